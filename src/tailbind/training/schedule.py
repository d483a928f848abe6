"""Optimizers and learning-rate schedules, PyTorch's own, described by options. Schedules step once an epoch."""

from dataclasses import dataclass
from typing import Protocol

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
    """What the loop asks of a schedule."""

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

    def __init__(self, scheduler: lr_scheduler.LRScheduler) -> None:
        self._scheduler = scheduler

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
