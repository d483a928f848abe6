"""What a training tells after each epoch."""

from dataclasses import dataclass


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
