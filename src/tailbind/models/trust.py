"""How far a blend may go from the mean of its labels: as far as folds of training rows agree that it should.

A model chosen on labels of a few antigens is surer of itself than a new antigen bears out. So of all predictions
between the mean and what the parts say, that nearest to the mean is taken which is, over the folds, no worse than the
best but for chance: the rule of one standard error (Breiman, Friedman, Olshen and Stone 1984, Classification and
Regression Trees, section 3.4.3), with the standard error of the difference from the best.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.models.blend import Blend, Gate, Opinions
from tailbind.models.contract import FloatArray

#: How much of the way from the mean is tried; never none of it, which would leave no order.
TRIED: Final = np.linspace(0.1, 1.0, 19)
#: With fewer folds there is no telling what is chance.
FEWEST_FOLDS: Final = 3


def held_out(
    options: Blend, opinions: Opinions, y: FloatArray, side: NDArray[np.float32], fold: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """Return (n_samples,) predictions and their SD, of each fold with weights that were chosen on the others.

    Parameters
    ----------
    options : of the blend
    opinions : of the parts on rows that they have not learned from
    y : (n_samples,) pKd
    side : (n_samples,) −1 for "<", 0 for "=", +1 for ">"
    fold : (n_samples,) number of each row's fold; two at least
    """
    predicted, sd = np.empty((2, len(y)))
    for number in np.unique(fold):
        own, rest = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        gate = Gate.fit(
            opinions.take(rest), y[rest], side[rest], tail_share=options.tail_share, stiffness=options.stiffness
        )
        predicted[own], sd[own] = gate.predict_with_sd(opinions.take(own))
    return predicted, sd


def find_trust(
    options: Blend,
    predicted: FloatArray,
    y: FloatArray,
    side: NDArray[np.float32],
    fold: NDArray[np.intp],
    mean: float,
) -> float:
    """Return the share of the way from `mean` to its prediction that a blend goes, 0.1 to 1.

    Errors of bounds are one-sided. Folds of unlike size count alike.

    Parameters
    ----------
    options : of the blend; `caution` is how many standard errors worse than the best still counts as no worse
    predicted : (n_samples,) pKd, see `held_out`
    y, side, fold : as for `held_out`
    mean : of the training labels, pKd
    """
    folds = np.unique(fold)
    if len(folds) < FEWEST_FOLDS or not options.caution:
        return 1.0
    errors = np.empty((len(folds), len(TRIED)))
    for place, number in enumerate(folds):
        own = np.flatnonzero(fold == number)
        error = mean + TRIED[:, None] * (predicted[own] - mean) - y[own]
        errors[place] = np.square(np.where(side[own] * error > 0, 0.0, error)).mean(axis=1)
    worse = errors - errors[:, [int(errors.mean(axis=0).argmin())]]
    chance = worse.std(axis=0, ddof=1) / np.sqrt(len(folds))
    return float(TRIED[np.flatnonzero(worse.mean(axis=0) <= options.caution * chance)[0]])
