"""The training loop. It knows no files: what is to happen after an epoch is handed in.

An ensemble's members are trained at once where they can be, see `models.together`, else in turn within each epoch.
On a CPU as many groups of them as there are threads are trained side by side.
Every member has its own random streams for batches and dropout, and its own optimizer, so that it becomes what it would
have become alone with its seed, to rounding.
"""

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tailbind.errors import TrainingError
from tailbind.models.contract import Inputs
from tailbind.models.network import Network
from tailbind.models.tensors import InputTensors, as_tensors
from tailbind.models.together import Together
from tailbind.runtime import available_bytes, each_a_thread
from tailbind.scale import bin_index
from tailbind.table.blocks import BLOCK_ROWS, Blocks
from tailbind.training.batches import Batching, Shuffled, ShuffledBlocks, Stratified
from tailbind.training.losses import NormalNoise, sides
from tailbind.training.member import (
    Average,
    Loss,
    LossOptions,
    Member,
    NoisyLoss,
    RowLoss,
    SlopedLoss,
    fresh_stream,
    learned_by,
    optimizer_of,
    own_loss,
)
from tailbind.training.selection import VAL_LOSS, validation_score
from tailbind.training.stages import Stage, TrainingOptions

#: Bytes of features that are read into memory together at most, where they stay on disk; and what share of the free.
READ_AT_ONCE: Final = 256 << 20
SHARES_OF_MEMORY: Final = 8


@dataclass(frozen=True)
class EpochResult:
    """What an epoch gave.

    Attributes
    ----------
    epoch : counted from 1 over all stages
    stage : the stage's name
    train_loss, val_loss : mean of the recipe's loss over the rows; training as it went, with dropout
    lr : learning rate of the epoch, at its last batch; the mean over members
    seconds, rows_per_second : of the training part
    is_best : whether `val_score` is the lowest so far
    val_score : what `training.select_by` goes by: `val_loss` itself, or an error in pKd
    is_last : whether no epoch follows
    """

    epoch: int
    stage: str
    train_loss: float
    val_loss: float
    lr: float
    seconds: float
    rows_per_second: float
    is_best: bool
    val_score: float
    is_last: bool


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
        device = network.device
        self._X = _on_device(as_tensors(X), device, notify)
        self._y = torch.from_numpy(y.astype(np.float32)).to(device)
        self._side = torch.from_numpy(sides(relation)).to(device)
        self._weight = torch.from_numpy(weight.astype(np.float32)).to(device)
        self._validation = torch.from_numpy(validation)
        self._labels = y
        side = sides(relation)[validation] if loss.takes_bounds else np.zeros(len(validation), np.float32)
        self._judged = y[validation], side
        self._members: list[Member] = []
        self._groups = network.together()
        self._stopped = threading.Event()
        self._by_blocks = isinstance(self._X.dense, Blocks)
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
        before = self._members
        self._members = []
        learned = [own for group in self._groups for own in group.parameters()]
        for number, module in enumerate(self.network.members):
            seed = self.options.seed + number
            if before:
                loss, sampler, stream = before[number].loss, before[number].sampler, before[number].stream
            else:
                loss, sampler, stream = (
                    own_loss(self.loss, self.network.device),
                    torch.Generator().manual_seed(seed),
                    fresh_stream(seed, self.network.device),
                )
            optimizer = optimizer_of(stage.optimizer, learned[number], loss)
            average = Average(module, self.options.ema_decay) if self.options.ema_decay else None
            schedule = stage.schedule(optimizer)
            self._members.append(Member(module, learned[number], loss, optimizer, schedule, sampler, stream, average))
        if self.options.stratified:
            bins = bin_index(self._labels[stage.rows])
            self._batching: Batching = Stratified(stage.rows, bins, self.options.rows_per_bin)
        elif self._by_blocks:
            self._batching = ShuffledBlocks(stage.rows, stage.rows // BLOCK_ROWS)
        else:
            self._batching = Shuffled(stage.rows)

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
        val_loss, member_losses, predicted = self._validate()
        for name, value in (("training", train_loss), ("validation", val_loss)):
            if not math.isfinite(value):
                raise TrainingError(
                    f"The {name} loss must stay finite; it was {value} in epoch {epoch}. "
                    "Lower optimizer.lr, or clip with training.clip_grad_norm=1.0."
                )
        for member, member_loss in zip(self._members, member_losses, strict=True):
            member.schedule.step(member_loss)
        self.epoch = epoch
        score = val_loss if self.options.select_by == VAL_LOSS else self._score(predicted)
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
        members = iter(self._members)
        work = [(group, list(itertools.islice(members, len(group.members)))) for group in self._groups]
        n_threads = min(len(work), torch.get_num_threads()) if all(group.side_by_side for group in self._groups) else 1
        self._stopped.clear()

        def train(of_group: tuple[Together, list[Member]]) -> list[float]:
            group, members = of_group
            with contextlib.ExitStack() as stack:
                for member in members:
                    stack.enter_context(member.newest())
                stack.enter_context(group.training([member.stream for member in members]))
                try:
                    return self._train_group(group, members, stage, epochs_done)
                except BaseException:
                    self._stopped.set()
                    raise

        with each_a_thread(n_threads) as apply:
            try:
                return float(np.mean([loss for losses in apply(train, work) for loss in losses]))
            except BaseException:
                self._stopped.set()
                raise

    def _train_group(self, group: Together, members: list[Member], stage: Stage, epochs_done: int) -> list[float]:
        """Train members that are computed at once for one epoch of a stage; return each one's mean loss."""
        device = self.network.device
        epochs = [self._batching(self.batch_size, member.sampler) for member in members]
        rows = torch.stack([epoch.rows for epoch in epochs])
        order = rows.to(self._X.device)
        there = rows.to(device)
        y, weight, side = self._y[there], self._weight[there], self._side[there]
        if epochs[0].factor is not None:
            weight = weight * torch.stack([epoch.factor for epoch in epochs if epoch.factor is not None]).to(device)
        by_losses = [parameter for member in members for parameter in learned_by(member.loss)]
        batches, sizes = epochs[0].batches, epochs[0].sizes
        of_batches = zip(*(torch.split(of_row, sizes, dim=1) for of_row in (y, weight, side)), strict=True)
        total = torch.zeros(len(members), dtype=torch.float64, device=device)
        near = slice(0, 0)
        for number, (batch, of_rows) in enumerate(zip(batches, of_batches, strict=True)):
            if self._stopped.is_set():
                break
            if batch.stop > near.stop:
                near, X = self._reach(batches, number, len(members)), self._X  # what was read before can go
                X, local = self._X.near(order[:, near])
            for member in members:
                if member.schedule.by_batch:
                    member.schedule.enter((epochs_done + number / len(batches)) / stage.epochs)
            outputs = group.outputs(X, local[:, batch.start - near.start : batch.stop - near.start])
            losses, slope, of_losses = _with_slopes(members, outputs, by_losses, *of_rows)
            each = len(of_losses) // len(members)
            for place, (member, gradients) in enumerate(zip(members, group.gradients(slope), strict=True)):
                own = of_losses[place * each : (place + 1) * each]
                member.step([*gradients, *own], self.options.clip_grad_norm)
            total.add_(losses.mean(dim=1), alpha=batch.stop - batch.start)
        return [float(of_member) for of_member in total / batches[-1].stop]

    def _reach(self, batches: Sequence[slice], number: int, n_members: int) -> slice:
        """Return how many of the batches from `number` on are read together: all, or what may come into memory."""
        start, stop = batches[number].start, batches[-1].stop
        if isinstance(self._X.dense, Blocks):
            n_bytes = min(READ_AT_ONCE, available_bytes() // SHARES_OF_MEMORY) // len(self._groups)
            most = n_bytes // max(1, self._X.dense.shape[1] * self._X.dense.dtype.itemsize * n_members)
            fitting = [batch.stop for batch in batches[number:] if batch.stop <= start + most]
            stop = fitting[-1] if fitting else batches[number].stop
        return slice(start, stop)

    def _validate(self) -> tuple[float, list[float], Tensor]:
        """Return the validation loss of the mean prediction, the mean over the members' losses; each member's; and it.

        A loss that compares rows is taken in batches as large as the recipe's, whatever training had to do with.
        """
        rows = self._validation.to(self._X.device)
        pieces = self._together(len(rows)) if self.loss.compares_rows else None
        outputs = self.network.outputs(self._X, rows)
        there = rows.to(outputs.device)
        of_rows = self._y[there], self._weight[there], self._side[there]
        mean = outputs.mean(dim=0)

        def loss_of(member: Member, predicted: Tensor) -> float:
            if pieces is None:
                return float(member.loss(predicted, *of_rows).double().mean())
            values = [member.loss(predicted[piece], *(of_row[piece] for of_row in of_rows)) for piece in pieces]
            return float(torch.cat(values).double().mean())

        with torch.no_grad():
            of_mean = [loss_of(member, mean) for member in self._members]
            of_members = [loss_of(member, output) for member, output in zip(self._members, outputs, strict=True)]
        return float(np.mean(of_mean)), of_members, mean

    def _together(self, n: int) -> list[Tensor]:
        """Return which of `n` validation rows a loss compares with each other: the same in every epoch."""
        order = np.random.default_rng(self.options.seed).permutation(n)
        return list(torch.split(torch.from_numpy(order).to(self.network.device), self.options.batch_size))

    def _score(self, predicted: Tensor) -> float:
        """Return the unweighted error of (n_validation,) predictions that the best epoch is to have the least of."""
        y_true, side = self._judged
        return validation_score(self.options.select_by, y_true, predicted.cpu().numpy().astype(np.float64), side)


def _with_slopes(
    members: Sequence[Member], outputs: Tensor, learned: list[nn.Parameter], y: Tensor, weight: Tensor, side: Tensor
) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
    """Return (n_members, n * n_outputs) losses, and the gradients of their means to `outputs` and to what losses learn.

    Where a member has several outputs, each learns from its own error: by the error of their mean they would learn to
    be one.

    Parameters
    ----------
    outputs : (n_members, n, n_outputs)
    learned : what the members' losses learn
    y, weight, side : (n_members, n)
    """
    one_output, loss = outputs.shape[-1] == 1, members[0].loss
    if one_output and isinstance(loss, SlopedLoss):  # then members share it
        with torch.inference_mode():
            losses, slopes = loss.with_slopes(outputs.squeeze(-1), y, weight, side)
            return losses, slopes.div_(slopes.shape[1]).unsqueeze(-1), []
    outputs = outputs.clone().requires_grad_()
    if one_output and isinstance(loss, LossOptions) and not loss.compares_rows:
        values = loss(outputs.squeeze(-1), y, weight, side)
    else:
        of_members = zip(members, outputs, y, weight, side, strict=True)
        values = torch.stack(
            [m.loss(own.squeeze(-1) if one_output else own.T, *of_rows).flatten() for m, own, *of_rows in of_members]
        )
    of_means, *of_losses = torch.autograd.grad(values.mean(dim=1).sum(), [outputs, *learned])
    return values.detach(), of_means, of_losses


def _noise(losses: Sequence[RowLoss]) -> list[float] | None:
    """Return the noise of losses that are likelihoods."""
    noises = [float(loss.sigma.detach()) for loss in losses if isinstance(loss, NormalNoise)]
    return noises or None


def _on_device(X: InputTensors, device: torch.device, notify: Callable[[str], None]) -> InputTensors:
    """Return the features on the device where they fit, else where they are."""
    try:
        return X.to(device)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        notify("The features do not fit into the GPU's memory; they stay in the computer's.")
        return X
