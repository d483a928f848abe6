"""How a model answers changed antibodies, in figures: how far, how differently, and whether as measured.

Changes are of pKd, the changed antibody's less its own. Which antibodies are changed, and how, is for others to say,
and what the figures mean for `tailbind.evaluation.verdicts`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.evaluation.metrics import intervals, spearman

Array = NDArray[np.float64]

#: Answers are counted as distinct where they differ when rounded so.
DIGITS: Final = 3
#: A smaller change is none.
UNMOVED: Final = 0.5 * 10.0**-DIGITS
#: Decimals that predicted changes are compared by: a network's float32 pKd moves by 5e-7 with its place in a batch.
COMPARED_DIGITS: Final = 5
#: Held-out pairs from which a correlation is judged.
FEWEST_PAIRS: Final = 20
#: A measured change of less than this may be noise; its sign is not counted.
NOISE_PKD: Final = 0.3


def changes(change: Array) -> dict[str, Any]:
    """Return the figures of some changes.

    Parameters
    ----------
    change : (n,) in pKd; nan where there is no prediction, which does not count

    Examples
    --------
    >>> figures = changes(np.array([-2.0, -1.0, 0.5, np.nan]))
    >>> figures["n"], figures["median"], figures["median_absolute"], round(figures["share_down"], 2)
    (3, -1.0, 1.0, 0.67)
    """
    known = change[np.isfinite(change)]
    if not len(known):
        return {"n": 0, "median": None, "median_absolute": None, "mean_absolute": None, "sd": None, "share_down": None}
    return {
        "n": len(known),
        "median": float(np.median(known)),
        "median_absolute": float(np.median(np.abs(known))),
        "mean_absolute": float(np.abs(known).mean()),
        "sd": float(known.std()),
        "share_down": float((known < 0).mean()),
    }


def scan(change: Array, antibody: NDArray[np.intp], letters: NDArray[np.intp]) -> dict[str, Any]:
    """Return the figures of every single substitution of some antibodies.

    Parameters
    ----------
    change : (n,) predicted
    antibody : (n,) whose mutant it is
    letters : (n,) number of the chain and of the two letters, the one that was there and the one put there

    Returns
    -------
    dict
        Those of `changes`; `sd` is within antibodies. `distinct` answers, added up over the `n_antibodies`,
        `share_unmoved` of mutants with the antibody's own prediction, and `told_by_letters` (see the function).
    """
    known = np.isfinite(change)
    change, antibody, letters = change[known], antibody[known], letters[known]
    figures = changes(change)
    within = np.empty(len(change))
    distinct, told = 0, []
    for one in np.unique(antibody):
        rows = antibody == one
        within[rows] = change[rows] - change[rows].mean()
        distinct += len(np.unique(change[rows].round(DIGITS)))
        told.append(told_by_letters(change[rows], letters[rows]))
    shares = [share for share in told if share is not None]
    return {
        **figures,
        "sd": float(within.std()) if len(within) else None,
        "distinct": distinct,
        "n_antibodies": len(np.unique(antibody)),
        "share_unmoved": float((np.abs(change) < UNMOVED).mean()) if len(change) else None,
        "told_by_letters": float(np.mean(shares)) if shares else None,
    }


def told_by_letters(change: Array, letters: NDArray[np.intp]) -> float | None:
    """Return the share of the changes' variance that the two letters tell, wherever in the chain they are.

    Adjusted for how many means are fitted (R² adjusted), so that it is about 0 where letters say nothing, and 1 where
    they say all; None where the changes do not differ, or too few have letters in common.

    Examples
    --------
    >>> told_by_letters(np.array([1.0, 1.0, 2.0, 2.0, 2.0]), np.array([0, 0, 1, 1, 1]))
    1.0
    """
    _, number = np.unique(letters, return_inverse=True)
    counts = np.bincount(number)
    free = len(change) - len(counts)
    total = float(np.square(change - change.mean()).sum()) if len(change) else 0.0
    if free < 1 or total <= 1e-12 * len(change):
        return None
    means = np.bincount(number, weights=change) / counts
    left = float(np.square(change - means[number]).sum())
    return max(0.0, 1 - (left / free) / (total / (len(change) - 1)))


def agreement(measured: Array, predicted: Array, clusters: NDArray[np.intp] | None = None) -> dict[str, Any]:
    """Return how predicted changes go with measured ones.

    Parameters
    ----------
    measured, predicted : (n,) changes
    clusters : (n,) of changes that are not independent, such as those of one parent

    Returns
    -------
    dict
        `n`; `spearman` with its 95 % `interval`, None below `FEWEST_PAIRS`; `constant`, whether all that is predicted
        is one change; `sign_agreement` among the `n_signs` measured changes beyond `NOISE_PKD`, of which a predicted
        change of nothing has none, and `commonest_sign`, what always saying the commoner one gets;
        `median_absolute_measured`; `sd_measured`, `sd_predicted` and `ratio`, the second over the first.

    Examples
    --------
    >>> measured = np.linspace(-1, 1, 41)
    >>> figures = agreement(measured, measured**3 / 2)
    >>> round(figures["spearman"], 3), figures["sign_agreement"], round(figures["ratio"], 2)
    (1.0, 1.0, 0.34)
    """
    known = np.isfinite(measured) & np.isfinite(predicted)
    measured, predicted = measured[known], predicted[known].round(COMPARED_DIGITS)
    judged = len(measured) >= FEWEST_PAIRS
    order = spearman(measured, predicted) if judged else float("nan")
    drawn: Mapping[str, Any] = {"spearman": None, "by": "rows", "n_clusters": None}
    if np.isfinite(order):
        drawn = intervals(measured, predicted, clusters=None if clusters is None else clusters[known])
    beyond = np.abs(measured) > NOISE_PKD
    down = measured[beyond] < 0
    said = np.where(np.abs(predicted) < UNMOVED, 0.0, np.sign(predicted))[beyond]
    spread = [float(side.std()) if len(side) > 1 else None for side in (measured, predicted)]
    return {
        "n": len(measured),
        "spearman": order if np.isfinite(order) else None,
        "interval": drawn["spearman"],
        "intervals_by": drawn["by"],
        "n_clusters": drawn["n_clusters"],
        "constant": bool(judged and np.ptp(predicted) == 0),
        "n_signs": int(beyond.sum()),
        "sign_agreement": float((said == np.sign(measured[beyond])).mean()) if len(down) else None,
        "commonest_sign": float(max(down.mean(), 1 - down.mean())) if len(down) else None,
        "median_absolute_measured": float(np.median(np.abs(measured))) if len(measured) else None,
        "sd_measured": spread[0],
        "sd_predicted": spread[1],
        "ratio": spread[1] / spread[0] if spread[0] and spread[1] is not None else None,
    }


def by_region(names: Sequence[str], region: NDArray[np.intp], change: Array) -> dict[str, dict[str, Any]]:
    """Return the figures of the changes in each region, as `changes` gives them.

    Parameters
    ----------
    names : of the regions
    region : (n,) index of each change's
    change : (n,)

    Examples
    --------
    >>> list(by_region(["FR1", "CDR1", "FR2"], np.array([0, 0, 1]), np.array([0.0, 0.5, -1.0])))
    ['FR1', 'CDR1']
    """
    return {name: changes(change[region == index]) for index, name in enumerate(names) if (region == index).any()}
