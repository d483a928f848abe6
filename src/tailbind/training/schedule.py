"""Optimizers and learning-rate schedules, described by options; PyTorch's own, but for `OneCycle`.

Schedules step once an epoch, `OneCycle` before every batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import optim
from torch.optim import lr_scheduler
from torch.optim.optimizer import ParamsT

from tailbind.options import bounded


class OptimizerOptions(Protocol):
    """Options that make an optimizer; all have a learning rate."""

    @property
    def lr(self) -> float:
        """The learning rate at the start."""
        ...

    def __call__(self, parameters: ParamsT) -> optim.Optimizer:
        """Return the optimizer of `parameters`, or of groups of them with options of their own."""
        ...


class Stepping(Protocol):
    """What the loop asks of a schedule.

    Attributes
    ----------
    by_batch : whether `enter` is to be called before every batch
    """

    by_batch: ClassVar[bool]

    def enter(self, done: float) -> None:
        """Begin a batch, with so large a share of the stage's batches done: from 0 to below 1."""
        ...

    def step(self, val_loss: float) -> None:
        """End an epoch that had this validation loss."""
        ...

    def state_dict(self) -> dict[str, object]:
        """Return the schedule's position."""
        ...

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Return to a position."""
        ...


class ScheduleOptions(Protocol):
    """Options that make a schedule."""

    def __call__(self, optimizer: optim.Optimizer) -> Stepping:
        """Return the schedule of `optimizer`'s learning rate."""
        ...


@dataclass(frozen=True)
class Adam:
    """Adam; weight decay, where there is any, is added to the gradient."""

    lr: float = bounded(1e-3, above=0, high=10)
    weight_decay: float = bounded(0.0, low=0, high=10)

    def __call__(self, parameters: ParamsT) -> optim.Optimizer:
        """Return the optimizer of `parameters`, or of groups of them with options of their own."""
        return optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)


@dataclass(frozen=True)
class AdamW:
    """AdamW: weight decay apart from the gradient (Loshchilov & Hutter 2019)."""

    lr: float = bounded(1e-4, above=0, high=10)
    weight_decay: float = bounded(1e-4, low=0, high=10)

    def __call__(self, parameters: ParamsT) -> optim.Optimizer:
        """Return the optimizer of `parameters`, or of groups of them with options of their own."""
        return optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)


class _ByEpoch:
    """A schedule that looks at the epoch alone."""

    by_batch: ClassVar[bool] = False

    def __init__(self, scheduler: lr_scheduler.LRScheduler) -> None:
        self._scheduler = scheduler

    def enter(self, done: float) -> None:
        """Begin a batch: nothing changes."""

    def step(self, val_loss: float) -> None:
        """End an epoch."""
        self._scheduler.step()

    def state_dict(self) -> dict[str, object]:
        """Return the schedule's position."""
        return dict(self._scheduler.state_dict())

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Return to a position."""
        self._scheduler.load_state_dict(state)


class _ByLoss(_ByEpoch):
    """A schedule that looks at the validation loss."""

    def __init__(self, scheduler: lr_scheduler.ReduceLROnPlateau) -> None:
        self._plateau = scheduler
        super().__init__(scheduler)

    def step(self, val_loss: float) -> None:
        """End an epoch that had this validation loss."""
        self._plateau.step(val_loss)


class _ByBatch:
    """A schedule whose learning rates are a function of how much is done, and of nothing else.

    So it has no position of its own, and halved batches after a lack of memory do not disturb it.
    """

    by_batch: ClassVar[bool] = True

    def __init__(self, optimizer: optim.Optimizer, share: Callable[[float], float]) -> None:
        self._optimizer = optimizer
        self._share = share
        self._peaks = [float(group["lr"]) for group in optimizer.param_groups]

    def enter(self, done: float) -> None:
        """Begin a batch, with so large a share of the stage's batches done."""
        share = self._share(done)
        # Asked anew each time: loading an optimizer's state puts other groups in place of those there were.
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = share * peak

    def step(self, val_loss: float) -> None:
        """End an epoch: nothing changes."""

    def state_dict(self) -> dict[str, object]:
        """Return nothing: what is done says all."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take nothing."""


@dataclass(frozen=True)
class Constant:
    """The same learning rate throughout."""

    def __call__(self, optimizer: optim.Optimizer) -> Stepping:
        """Return the schedule of `optimizer`'s learning rate."""
        return _ByEpoch(lr_scheduler.ConstantLR(optimizer, factor=1.0))


@dataclass(frozen=True)
class Plateau:
    """Multiply the learning rate by `factor` after `patience` epochs without a better validation loss."""

    factor: float = bounded(0.5, above=0, below=1)
    patience: int = bounded(5, low=0)
    min_lr: float = bounded(0.0, low=0)

    def __call__(self, optimizer: optim.Optimizer) -> Stepping:
        """Return the schedule of `optimizer`'s learning rate."""
        return _ByLoss(
            lr_scheduler.ReduceLROnPlateau(optimizer, factor=self.factor, patience=self.patience, min_lr=self.min_lr)
        )


@dataclass(frozen=True)
class CosineRestarts:
    """Cosine descent to `min_lr` over `t_0` epochs, then again from the top, each `t_mult` times as long.

    Warm restarts (Loshchilov & Hutter 2017, equation 5). With the defaults they fall on epochs 21, 41, …
    """

    t_0: int = bounded(20, low=1)
    t_mult: int = bounded(1, low=1)
    min_lr: float = bounded(1e-5, low=0)

    def __call__(self, optimizer: optim.Optimizer) -> Stepping:
        """Return the schedule of `optimizer`'s learning rate."""
        return _ByEpoch(
            lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=self.t_0, T_mult=self.t_mult, eta_min=self.min_lr)
        )


@dataclass(frozen=True)
class OneCycle:
    """Up to the learning rate and down to nearly nothing, once in the whole stage, changing with every batch.

    Half a cosine up from `start` times the optimizer's learning rate, half a cosine down to `end` times it
    (super-convergence: Smith & Topin 2018, arXiv 1708.07120; cosines as in PyTorch's `OneCycleLR`, momentum left
    alone).

    Attributes
    ----------
    warmup : share of the batches until the top; 0 starts there
    start, end : as shares of the optimizer's learning rate
    """

    warmup: float = bounded(0.25, low=0, below=1)
    start: float = bounded(0.04, above=0, high=1)
    end: float = bounded(1e-3, low=0, high=1)

    def __call__(self, optimizer: optim.Optimizer) -> Stepping:
        """Return the schedule of `optimizer`'s learning rate."""
        return _ByBatch(optimizer, self.share)

    def share(self, done: float) -> float:
        """Return the learning rate as a share of the optimizer's, when so large a share of the batches is done.

        >>> [round(OneCycle(warmup=0.5, start=0.1, end=0.0).share(done), 3) for done in (0.0, 0.25, 0.5, 0.75, 1.0)]
        [0.1, 0.55, 1.0, 0.5, 0.0]
        """
        if done < self.warmup:
            return _half_cosine(self.start, 1.0, done / self.warmup)
        return _half_cosine(1.0, self.end, (done - self.warmup) / (1 - self.warmup))


def _half_cosine(first: float, last: float, way: float) -> float:
    """Return the height of half a cosine from `first` to `last`, after so large a share of the way."""
    return last + (first - last) * (1 + math.cos(math.pi * way)) / 2
