"""What is trained on when: all training rows, then, where a recipe asks for it, the extreme bins alone."""

import math
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import RecipeError
from tailbind.options import bounded, one_of
from tailbind.scale import BIN_NAMES, EXTREME_BINS, bin_index
from tailbind.training.schedule import Constant, OptimizerOptions, ScheduleOptions
from tailbind.training.selection import CRITERIA


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
    select_by : what the best epoch is best by, on validation rows: `val_loss`, the recipe's own loss, or an unweighted
        error, see `training.selection`
    patience : epochs without a better one after which training stops; 0 for never
    ema_decay : share of the average weights that stays at each step while the rest comes from the newest ones; the
        model is then the average; 0 for the newest
    stratified : whether every batch holds rows of every affinity bin that has training rows, see `training.batches`
    rows_per_bin : at least how many, where `stratified`

    Raises
    ------
    RecipeError
        For options that exclude each other, or have no effect beside each other.
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
    select_by: str = one_of("val_loss", CRITERIA)
    patience: int = bounded(0, low=0)
    ema_decay: float = bounded(0.0, low=0, below=1)
    stratified: bool = False
    rows_per_bin: int = bounded(1, low=1)

    def __post_init__(self) -> None:
        if self.patience and self.finetune_epochs:
            raise RecipeError(
                f"training.patience must be 0 with a second stage, which has epochs of its own; got {self.patience} "
                f"with training.finetune_epochs = {self.finetune_epochs}."
            )
        if self.rows_per_bin != 1 and not self.stratified:
            raise RecipeError(
                f"training.rows_per_bin must be 1 unless training.stratified is true; got {self.rows_per_bin}, which "
                "would have no effect."
            )
        least = len(BIN_NAMES) * self.rows_per_bin
        if self.stratified and self.batch_size < least:
            raise RecipeError(
                f"training.batch_size must be at least {least} to hold {self.rows_per_bin} rows of each of "
                f"{len(BIN_NAMES)} bins (training.stratified); got {self.batch_size}."
            )


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
