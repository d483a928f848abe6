"""The training loop: stages and epochs, which was best, and all that an exact continuation needs.

It knows no files: what is to happen after an epoch is handed in. What happens within one is in `training.steps`, by
what it is judged in `training.validation`.

Every member of an ensemble has its own random streams for batches and dropout, and its own optimizer, so that it
becomes what it would have become alone with its seed, to rounding.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tailbind.errors import TrainingError
from tailbind.models.contract import Inputs
from tailbind.models.network import Network
from tailbind.table.blocks import Blocks
from tailbind.training.beginning import dealt, members_of
from tailbind.training.losses import NormalNoise, sides
from tailbind.training.member import Loss, Member, NoisyLoss, RowLoss
from tailbind.training.results import EpochResult
from tailbind.training.rows import rows_on
from tailbind.training.stages import Stage, TrainingOptions
from tailbind.training.steps import Steps
from tailbind.training.validation import Validation


class Trainer:
    """Trains a network stage by stage; can be stopped after any epoch and continued exactly.

    Parameters
    ----------
    network : untrained, already on the device to train on; with a loss that takes bounds it is made to start at the
        mean label
    X : features of all rows of the table: a `Features` record, or (n_samples, n_features) float32
    y : (n_samples,) pKd
    relation : (n_samples,) "=", "<" or ">", for losses that take bounds
    weight : (n_samples,) weight of each row in the loss
    validation : rows to measure the validation loss on
    stages : what to train on, in order
    loss : one value per row, or what builds such a loss for each member
    options : batches, clipping, averaging, what to select by, seed
    notify : told of what a person should know, a sentence at a time
    """

    def __init__(
        self,
        network: Network,
        X: Inputs,
        y: NDArray[np.float64],
        relation: NDArray[np.str_],
        weight: NDArray[np.float64],
        validation: NDArray[np.intp],
        stages: list[Stage],
        loss: Loss,
        options: TrainingOptions,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.network = network
        self.stages = stages
        self.loss = loss
        self.options = options
        self.notify = notify
        self.batch_size = options.batch_size
        self.epoch = 0
        self.best_epoch = 0
        self.best_val_loss = math.inf
        self.best_score = math.inf
        self.best_weights: list[dict[str, Tensor]] = []
        self._best_losses: list[dict[str, Tensor]] = []
        self._rows = rows_on(network.device, X, y, relation, weight, notify)
        side = sides(relation)[validation] if loss.takes_bounds else np.zeros(len(validation), np.float32)
        self._validation = Validation(self._rows, torch.from_numpy(validation), y[validation], side, loss, options)
        self._labels = y
        self._members: list[Member] = []
        self._groups = network.together()
        self._by_blocks = isinstance(self._rows.X.dense, Blocks)
        if options.start_at_mean or loss.takes_bounds:
            # Beyond a bound the loss is flat. A network that came from pKd 0 would be scaled up until its
            # measured rows fit, with nothing to hold those below a floor: they would end several pKd too low.
            network.start_at(float(y[stages[0].rows].mean()))
        self._enter(0)

    @property
    def n_epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def is_finished(self) -> bool:
        """Whether no epoch is left, or there were `training.patience` of them without a better one."""
        patience = self.options.patience
        return self.epoch >= self.n_epochs or bool(patience and self.epoch - self.best_epoch >= patience)

    def noise(self) -> list[float] | None:
        """Return each member's noise in pKd as it is now; None for a loss that is no likelihood."""
        return _noise([member.loss for member in self._members])

    def best_noise(self) -> list[float] | None:
        """Return each member's noise as it was in the best epoch; None for a loss that is none, or before the first."""
        if not (isinstance(self.loss, NoisyLoss) and self._best_losses):
            return None
        losses: list[RowLoss] = []
        for state in self._best_losses:
            built = self.loss.build()
            built.load_state_dict(state)
            losses.append(built)
        return _noise(losses)

    def run(self, on_epoch: Callable[[EpochResult], None]) -> None:
        """Train the epochs that are left, calling `on_epoch` after each.

        Raises
        ------
        TrainingError
            When a loss is not finite, or a batch of two does not fit into the GPU's memory.
        """
        while not self.is_finished:
            on_epoch(self._run_epoch())

    def state(self) -> dict[str, Any]:
        """Return all that an exact continuation needs."""
        return {
            "epoch": self.epoch,
            "batch_size": self.batch_size,
            "best_epoch": self.best_epoch,
            "best_val_loss": self.best_val_loss,
            "best_score": self.best_score,
            "best_weights": self.best_weights,
            "best_losses": self._best_losses,
            "by_blocks": self._by_blocks,
            "members": [member.state() for member in self._members],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from where `state` was taken."""
        self.epoch = int(state["epoch"])
        self.batch_size = int(state["batch_size"])
        self.best_epoch = int(state["best_epoch"])
        self.best_val_loss = float(state["best_val_loss"])
        self.best_score = float(state.get("best_score", self.best_val_loss))  # the same before there was a choice
        self.best_weights = [dict(weights) for weights in state["best_weights"]]
        self._best_losses = [dict(of_loss) for of_loss in state.get("best_losses", [{}] * len(self.best_weights))]
        self._by_blocks = bool(state.get("by_blocks", self._by_blocks))  # wherever the features are this time
        self._enter(self._stage_of(max(self.epoch, 1)))
        for member, saved in zip(self._members, state["members"], strict=True):
            fresh = member.stream.get_state()
            if saved["random"].shape != fresh.shape:
                self.notify("Resuming on another kind of device: dropout draws differ from an uninterrupted run's.")
                saved = {**saved, "random": fresh}
            member.load_state(saved)

    def _stage_of(self, epoch: int) -> int:
        """Return the index of the stage that an epoch, counted from 1, belongs to."""
        ends = np.cumsum([stage.epochs for stage in self.stages])
        return int(np.searchsorted(ends, epoch))

    def _enter(self, index: int) -> None:
        """Begin a stage: fresh optimizers and schedules; random streams and learned losses go on."""
        stage = self.stages[index]
        self._members = members_of(stage, self.network, self._groups, self.loss, self.options, self._members)
        self._batching = dealt(stage.rows, self._labels, self.options, by_blocks=self._by_blocks)

    def _run_epoch(self) -> EpochResult:
        epoch = self.epoch + 1
        index = self._stage_of(epoch)
        if index and epoch == 1 + sum(stage.epochs for stage in self.stages[:index]):
            for member, weights, learned in zip(self._members, self.best_weights, self._best_losses, strict=True):
                member.module.load_state_dict(weights)
                member.load_loss_state(learned)
            self._enter(index)
        stage = self.stages[index]
        started = time.perf_counter()
        train_loss = self._train_within_memory(index)
        seconds = time.perf_counter() - started
        lr = float(np.mean([member.optimizer.param_groups[0]["lr"] for member in self._members]))
        val_loss, member_losses, predicted = self._validation.losses(self.network, self._members)
        for name, value in (("training", train_loss), ("validation", val_loss)):
            if not math.isfinite(value):
                raise TrainingError(
                    f"The {name} loss must stay finite; it was {value} in epoch {epoch}. "
                    "Lower optimizer.lr, or clip with training.clip_grad_norm=1.0."
                )
        for member, member_loss in zip(self._members, member_losses, strict=True):
            member.schedule.step(member_loss)
        self.epoch = epoch
        score = self._validation.score(val_loss, predicted)
        is_best = score < self.best_score
        if is_best:
            self.best_epoch, self.best_val_loss, self.best_score = epoch, val_loss, score
            self.best_weights = [member.weights() for member in self._members]
            self._best_losses = [m.loss_state() for m in self._members]
        rows_per_second = len(stage.rows) * len(self._members) / max(seconds, 1e-9)
        return EpochResult(
            epoch, stage.name, train_loss, val_loss, lr, seconds, rows_per_second, is_best, score, self.is_finished
        )

    def _train_within_memory(self, index: int) -> float:
        """Train one epoch of a stage; where the GPU's memory does not suffice, start it again with half the batch."""
        stage = self.stages[index]
        epochs_done = self.epoch - sum(earlier.epochs for earlier in self.stages[:index])
        while True:
            saved = [member.state() for member in self._members]
            try:
                return self._train_members(stage, epochs_done)
            except torch.OutOfMemoryError:
                if self.batch_size // 2 < 2:
                    raise TrainingError(
                        "A batch of 2 must fit into the GPU's memory; it does not. "
                        "Use a smaller model (model.hidden_dims) or --device cpu."
                    ) from None
            self.batch_size //= 2
            self.notify(f"CUDA out of memory: going on with batches of {self.batch_size}.")
            for member, state in zip(self._members, saved, strict=True):
                member.optimizer.zero_grad(set_to_none=True)
                member.load_state(state)
            torch.cuda.empty_cache()

    def _train_members(self, stage: Stage, epochs_done: int) -> float:
        """Train all members for one epoch of a stage; return the mean of their mean losses."""
        steps = Steps(
            rows=self._rows,
            members=self._members,
            groups=self._groups,
            batching=self._batching,
            batch_size=self.batch_size,
            clip_grad_norm=self.options.clip_grad_norm,
            stage=stage,
            epochs_done=epochs_done,
        )
        return steps.train()


def _noise(losses: Sequence[RowLoss]) -> list[float] | None:
    """Return the noise of losses that are likelihoods."""
    noises = [float(loss.sigma.detach()) for loss in losses if isinstance(loss, NormalNoise)]
    return noises or None
