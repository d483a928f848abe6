"""The training loop. It knows no files: what is to happen after an epoch is handed in.

An ensemble's members are trained in turn within each epoch. Every member has its own random stream for
batches and dropout, so that it becomes exactly what it would have become alone with its seed.
"""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn, optim

from tailbind.errors import TrainingError
from tailbind.models.contract import Inputs
from tailbind.models.mlp import Network
from tailbind.models.tensors import InputTensors, as_tensors
from tailbind.training.losses import NormalNoise, sides
from tailbind.training.schedule import OptimizerOptions, Stepping
from tailbind.training.stages import Stage, TrainingOptions

#: How much faster a noise is learned than weights. Adam moves its logarithm by about the learning rate a step:
#: at 1e-4, and at a mean of half that by a schedule, a fall from e² to e⁻² takes 4,000 steps instead of 80,000.
NOISE_PACE: Final = 20.0


class RowLoss(Protocol):
    """A loss: one value per row."""

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd, weights and sides (−1 "<", 0 "=", +1 ">")."""
        ...


@runtime_checkable
class NoisyLoss(Protocol):
    """A likelihood: every member of an ensemble has a noise of its own."""

    def build(self) -> NormalNoise:
        """Return the loss of one member."""
        ...


@dataclass(frozen=True)
class EpochResult:
    """What an epoch gave.

    Attributes
    ----------
    epoch : counted from 1 over all stages
    stage : the stage's name
    train_loss, val_loss : mean of the recipe's loss over the rows; training as it went, with dropout
    lr : learning rate of the epoch, the mean over members
    seconds, rows_per_second : of the training part
    is_best : whether `val_loss` is the lowest so far
    """

    epoch: int
    stage: str
    train_loss: float
    val_loss: float
    lr: float
    seconds: float
    rows_per_second: float
    is_best: bool


@dataclass
class _Member:
    """One network in training, and everything that makes its future: loss, optimizer, schedule, random streams."""

    module: nn.Module
    loss: RowLoss
    optimizer: optim.Optimizer
    schedule: Stepping
    sampler: torch.Generator
    random: Tensor

    def state(self) -> dict[str, Any]:
        return copy.deepcopy(
            {
                "weights": dict(self.module.state_dict()),
                "loss": self.loss_state(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "sampler": self.sampler.get_state(),
                "random": self.random,
            }
        )

    def loss_state(self) -> dict[str, Tensor]:
        """Return what the loss has learned; empty for one that learns nothing."""
        return copy.deepcopy(dict(self.loss.state_dict())) if isinstance(self.loss, nn.Module) else {}

    def load_loss_state(self, state: Mapping[str, Tensor]) -> None:
        if isinstance(self.loss, nn.Module):
            self.loss.load_state_dict(state)

    def load_state(self, state: Mapping[str, Any]) -> None:
        state = copy.deepcopy(dict(state))
        self.module.load_state_dict(state["weights"])
        self.load_loss_state(state.get("loss", {}))  # absent where it was saved before any loss learned
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.sampler.set_state(state["sampler"])
        self.random = state["random"]


class Trainer:
    """Trains a network stage by stage; can be stopped after any epoch and continued exactly.

    Parameters
    ----------
    network : untrained, already on the device to train on; with a `NoisyLoss` it is made to start at the mean label
    X : features of all rows of the table: a `Features` record, or (n_samples, n_features) float32
    y : (n_samples,) pKd
    relation : (n_samples,) "=", "<" or ">", for losses that take bounds
    weight : (n_samples,) weight of each row in the loss
    validation : rows to measure the validation loss on
    stages : what to train on, in order
    loss : one value per row, or what builds such a loss for each member
    options : batch size, clipping, seed
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
        loss: RowLoss | NoisyLoss,
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
        self.best_weights: list[dict[str, Tensor]] = []
        self._best_losses: list[dict[str, Tensor]] = []
        device = network.device
        self._X = _on_device(as_tensors(X), device, notify)
        self._y = torch.from_numpy(y.astype(np.float32)).to(device)
        self._side = torch.from_numpy(sides(relation)).to(device)
        self._weight = torch.from_numpy(weight.astype(np.float32)).to(device)
        self._validation = torch.from_numpy(validation)
        self._members: list[_Member] = []
        if options.start_at_mean or isinstance(loss, NoisyLoss):
            # Beyond a bound the likelihood is flat. A network that came from pKd 0 would be scaled up until its
            # measured rows fit, with nothing to hold those below a floor: they would end several pKd too low.
            network.start_at(float(y[stages[0].rows].mean()))
        self._enter(0)

    @property
    def n_epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def noise(self) -> list[float] | None:
        """Return each member's noise in pKd as it is now; None for a loss without."""
        return _noise([member.loss for member in self._members])

    def best_noise(self) -> list[float] | None:
        """Return each member's noise as it was in the best epoch; None for a loss without, or before the first."""
        if not (isinstance(self.loss, NoisyLoss) and self._best_losses):
            return None
        losses = []
        for state in self._best_losses:
            losses.append(self.loss.build())
            losses[-1].load_state_dict(state)
        return _noise(losses)

    def run(self, on_epoch: Callable[[EpochResult], None]) -> None:
        """Train the epochs that are left, calling `on_epoch` after each.

        Raises
        ------
        TrainingError
            When a loss is not finite, or a batch of two does not fit into the GPU's memory.
        """
        while self.epoch < self.n_epochs:
            on_epoch(self._run_epoch())

    def state(self) -> dict[str, Any]:
        """Return all that an exact continuation needs."""
        return {
            "epoch": self.epoch,
            "batch_size": self.batch_size,
            "best_epoch": self.best_epoch,
            "best_val_loss": self.best_val_loss,
            "best_weights": self.best_weights,
            "best_losses": self._best_losses,
            "members": [member.state() for member in self._members],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from where `state` was taken."""
        self.epoch = int(state["epoch"])
        self.batch_size = int(state["batch_size"])
        self.best_epoch = int(state["best_epoch"])
        self.best_val_loss = float(state["best_val_loss"])
        self.best_weights = [dict(weights) for weights in state["best_weights"]]
        self._best_losses = [dict(of_loss) for of_loss in state.get("best_losses", [{}] * len(self.best_weights))]
        self._enter(self._stage_of(max(self.epoch, 1)))
        for member, saved in zip(self._members, state["members"], strict=True):
            fresh = member.random
            member.load_state(saved)
            if member.random.shape != fresh.shape:
                self.notify("Resuming on another kind of device: dropout draws differ from an uninterrupted run's.")
                member.random = fresh

    def _stage_of(self, epoch: int) -> int:
        """Return the index of the stage that an epoch, counted from 1, belongs to."""
        ends = np.cumsum([stage.epochs for stage in self.stages])
        return int(np.searchsorted(ends, epoch))

    def _enter(self, index: int) -> None:
        """Begin a stage: fresh optimizers and schedules; random streams and learned losses go on."""
        stage = self.stages[index]
        before = self._members
        self._members = []
        for number, module in enumerate(self.network.members):
            seed = self.options.seed + number
            if before:
                loss, sampler, random = before[number].loss, before[number].sampler, before[number].random
            else:
                loss, sampler, random = (
                    _own_loss(self.loss, self.network.device),
                    torch.Generator().manual_seed(seed),
                    _fresh_stream(seed, self.network.device),
                )
            optimizer = _optimizer(stage.optimizer, module, loss)
            self._members.append(_Member(module, loss, optimizer, stage.schedule(optimizer), sampler, random))

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
        train_loss = self._train_within_memory(stage)
        seconds = time.perf_counter() - started
        lr = float(np.mean([member.optimizer.param_groups[0]["lr"] for member in self._members]))
        val_loss, member_losses = self._validate()
        for name, value in (("training", train_loss), ("validation", val_loss)):
            if not math.isfinite(value):
                raise TrainingError(
                    f"The {name} loss must stay finite; it was {value} in epoch {epoch}. "
                    "Lower optimizer.lr, or clip with training.clip_grad_norm=1.0."
                )
        for member, member_loss in zip(self._members, member_losses, strict=True):
            member.schedule.step(member_loss)
        self.epoch = epoch
        is_best = val_loss < self.best_val_loss
        if is_best:
            self.best_epoch, self.best_val_loss = epoch, val_loss
            self.best_weights = [copy.deepcopy(dict(m.module.state_dict())) for m in self._members]
            self._best_losses = [m.loss_state() for m in self._members]
        rows_per_second = len(stage.rows) * len(self._members) / max(seconds, 1e-9)
        return EpochResult(epoch, stage.name, train_loss, val_loss, lr, seconds, rows_per_second, is_best)

    def _train_within_memory(self, stage: Stage) -> float:
        """Train one epoch; where the GPU's memory does not suffice, start it again with half the batch."""
        while True:
            before = [member.state() for member in self._members]
            try:
                return float(np.mean([self._train_member(member, stage.rows) for member in self._members]))
            except torch.OutOfMemoryError:
                if self.batch_size // 2 < 2:
                    raise TrainingError(
                        "A batch of 2 must fit into the GPU's memory; it does not. "
                        "Use a smaller model (model.hidden_dims) or --device cpu."
                    ) from None
            self.batch_size //= 2
            self.notify(f"CUDA out of memory: going on with batches of {self.batch_size}.")
            for member, saved in zip(self._members, before, strict=True):
                member.optimizer.zero_grad(set_to_none=True)
                member.load_state(saved)
            torch.cuda.empty_cache()

    def _train_member(self, member: _Member, rows: NDArray[np.intp]) -> float:
        """Train one member for one epoch; return its mean loss."""
        device = self.network.device
        order = torch.from_numpy(rows)[torch.randperm(len(rows), generator=member.sampler)]
        total = torch.zeros((), dtype=torch.float64, device=device)
        member.module.train()
        parameters = list(member.module.parameters())
        with _stream(member, device):
            for batch in batches(order.to(self._X.device), self.batch_size):
                there = batch.to(device)
                member.optimizer.zero_grad(set_to_none=True)
                predicted = member.module(*self._X.take(batch).to(device).arguments).squeeze(-1)
                loss = member.loss(predicted, self._y[there], self._weight[there], self._side[there]).mean()
                loss.backward()  # type: ignore[no-untyped-call]
                if self.options.clip_grad_norm:
                    nn.utils.clip_grad_norm_(parameters, self.options.clip_grad_norm)
                member.optimizer.step()
                total += loss.detach() * len(batch)
        return float(total) / len(rows)

    def _validate(self) -> tuple[float, list[float]]:
        """Return the validation loss of the mean prediction, the mean over the members' losses, and of each member."""
        rows = self._validation.to(self._X.device)
        outputs = self.network.outputs(self._X, rows)
        there = rows.to(outputs.device)
        of_rows = self._y[there], self._weight[there], self._side[there]
        mean = outputs.mean(dim=0)
        with torch.no_grad():
            of_mean = [float(member.loss(mean, *of_rows).double().mean()) for member in self._members]
            of_members = [
                float(member.loss(output, *of_rows).double().mean())
                for member, output in zip(self._members, outputs, strict=True)
            ]
        return float(np.mean(of_mean)), of_members


def batches(order: Tensor, size: int) -> list[Tensor]:
    """Return `order` in batches; a last batch of one row joins the one before, for BatchNorm needs two.

    >>> [len(batch) for batch in batches(torch.arange(9), 4)]
    [4, 5]
    """
    pieces = list(torch.split(order, size))
    if len(pieces) > 1 and len(pieces[-1]) == 1:
        pieces[-2:] = [torch.cat(pieces[-2:])]
    return pieces


def _own_loss(loss: RowLoss | NoisyLoss, device: torch.device) -> RowLoss:
    """Return the loss of one member: its own where the loss has a noise, else the one that all share."""
    return loss.build().to(device) if isinstance(loss, NoisyLoss) else loss


def _optimizer(options: OptimizerOptions, module: nn.Module, loss: RowLoss) -> optim.Optimizer:
    """Return the optimizer of a network, and of what its loss learns: faster, and without weight decay."""
    learned = list(loss.parameters()) if isinstance(loss, nn.Module) else []
    if not learned:
        return options(module.parameters())
    of_loss: dict[str, Any] = {"params": learned, "lr": NOISE_PACE * options.lr, "weight_decay": 0.0}
    return options([{"params": list(module.parameters())}, of_loss])


def _noise(losses: Sequence[RowLoss]) -> list[float] | None:
    """Return the noise of losses that have one."""
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


def _fresh_stream(seed: int, device: torch.device) -> Tensor:
    """Return the state of a random stream on `device` that starts from `seed`."""
    return torch.Generator(device).manual_seed(seed).get_state()


@contextlib.contextmanager
def _stream(member: _Member, device: torch.device) -> Iterator[None]:
    """Draw from a member's own random stream inside, and leave the global one as it was."""
    on_gpu = device.type == "cuda"
    get: Callable[[], Tensor] = torch.cuda.get_rng_state if on_gpu else torch.get_rng_state
    put: Callable[[Tensor], None] = torch.cuda.set_rng_state if on_gpu else torch.set_rng_state
    before = get()
    put(member.random)
    try:
        yield
    finally:
        member.random = get()
        put(before)
