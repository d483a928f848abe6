"""By what the best epoch of a training is best: one number of its predictions for the validation rows."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.evaluation.metrics import macro_rmse, rmse
from tailbind.scale import bin_index

Array = NDArray[np.float64]

#: The recipe's own loss, as the training notebook has it; then unweighted errors, see `validation_score`.
VAL_LOSS: Final = "val_loss"
CRITERIA: Final = (VAL_LOSS, "rmse", "macro_rmse", "balanced")


def validation_score(criterion: str, y_true: Array, y_pred: Array, side: NDArray[np.float32]) -> float:
    """Return an unweighted error in pKd, the lower the better.

    `rmse` is over all rows; of a label that is a bound, the error is how far a prediction is beyond it. `macro_rmse` is
    the mean of the RMSEs of the affinity bins of measured rows, and of that of all bounds where there are any, so that
    a rare bin counts as much as a full one. `balanced` is the mean of the two.

    Parameters
    ----------
    criterion : one of `CRITERIA` but `val_loss`
    y_true, y_pred : (n_samples,) pKd
    side : (n_samples,) −1 for a label that is a bound from above, +1 for one from below, 0 for one that counts as
        measured

    Examples
    --------
    >>> y_true, y_pred = np.array([6.0, 6.0, 12.0, 7.0]), np.array([6.0, 6.0, 9.0, 5.0])
    >>> validation_score("macro_rmse", y_true, y_pred, np.array([0, 0, 0, -1]))
    1.0
    >>> validation_score("rmse", y_true, y_pred, np.array([0, 0, 0, -1]))
    1.5
    """
    right = (y_pred - y_true) * side > 0
    taken = np.where(right, y_true, y_pred)
    overall = rmse(y_true, taken)
    if criterion == "rmse":
        return overall
    measured = side == 0
    n_bins = len(np.unique(bin_index(y_true[measured])))
    total = n_bins * macro_rmse(y_true[measured], taken[measured]) if n_bins else 0.0
    if not measured.all():
        total, n_bins = total + rmse(y_true[~measured], taken[~measured]), n_bins + 1
    macro = total / n_bins
    return {"macro_rmse": macro, "balanced": (overall + macro) / 2}[criterion]
