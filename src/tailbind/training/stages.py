"""What is trained on when: all training rows, then, where a recipe asks for it, the extreme bins alone."""

import math
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from tailbind.options import bounded, one_of
from tailbind.scale import BIN_NAMES, EXTREME_BINS, bin_index
from tailbind.training.schedule import Constant, OptimizerOptions, ScheduleOptions


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the training loop.

    Attributes
    ----------
    epochs, batch_size : of the first stage; a batch size may be halved when a GPU runs out of memory
    clip_grad_norm : largest norm of the gradient; 0 does not clip
    checkpoint_every : epochs between kept checkpoints
    seed : of weights, batches and dropout; member m of an ensemble has `seed` + m
    start_at_mean : begin at the mean training label instead of pKd 0, as losses that take bounds always do
    finetune_epochs : epochs of a second stage on the `finetune_bins` alone; 0 for none
    finetune_lr : its constant learning rate
    tensorboard : also log to `tensorboard/` in the run folder
    """

    epochs: int = bounded(100, low=1)
    batch_size: int = bounded(128, low=2)
    clip_grad_norm: float = bounded(0.0, low=0)
    checkpoint_every: int = bounded(10, low=1)
    seed: int = bounded(42, low=0, high=2**32 - 1)
    start_at_mean: bool = False
    finetune_epochs: int = bounded(0, low=0)
    finetune_lr: float = bounded(1e-5, above=0, high=10)
    finetune_bins: tuple[str, ...] = one_of(EXTREME_BINS, BIN_NAMES)
    tensorboard: bool = False


@dataclass(frozen=True)
class Stage:
    """A stretch of epochs with its own rows, optimizer and schedule; it starts from the best weights so far."""

    name: str
    rows: NDArray[np.intp]
    epochs: int
    optimizer: OptimizerOptions
    schedule: ScheduleOptions


#: Steps times learning rate that a network needs to come from pKd 0 to the labels: with Adam and its kin a
#: step moves an output's bias by about the learning rate, and the layers before it help.
FULL_WAY: Final = 0.5


def epochs_needed(options: TrainingOptions, lr: float, n_train: int) -> int:
    """Return about how many epochs the first stage takes to reach the labels from pKd 0.

    >>> epochs_needed(TrainingOptions(batch_size=128), 1e-4, 12_800)
    50
    """
    steps_per_epoch = max(1, n_train // options.batch_size)
    return math.ceil(FULL_WAY / lr / steps_per_epoch)


def plan_stages(
    options: TrainingOptions,
    optimizer: OptimizerOptions,
    schedule: ScheduleOptions,
    y: NDArray[np.float64],
    train: NDArray[np.intp],
) -> list[Stage]:
    """Return the stages of a training: one, or two where `finetune_epochs` asks for a second.

    The second stage is left out where fewer than two training rows are in its bins.

    Parameters
    ----------
    y : (n_samples,) pKd of the whole table
    train : training rows of it
    """
    stages = [Stage("all rows", train, options.epochs, optimizer, schedule)]
    wanted = [BIN_NAMES.index(name) for name in options.finetune_bins]
    extremes = train[np.isin(bin_index(y[train]), wanted)]
    if options.finetune_epochs and len(extremes) > 1:
        slow = cast(OptimizerOptions, replace(cast(Any, optimizer), lr=options.finetune_lr))
        name = " and ".join(name.replace("_", " ") for name in options.finetune_bins)
        stages.append(Stage(name, extremes, options.finetune_epochs, slow, Constant()))
    return stages
