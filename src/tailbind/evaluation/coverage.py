"""Whether intervals hold what they promise, and probabilities come true."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.evaluation.calibration import Applied
from tailbind.scale import BIN_NAMES, bin_index

Array = NDArray[np.float64]

#: Tail probabilities that predictions carry: name → threshold, and whether it is of lying above.
TAILS: Final[Mapping[str, tuple[float, bool]]] = {
    "p_below_5": (5.0, False),
    "p_above_9": (9.0, True),
    "p_above_11": (11.0, True),
}
#: Steps of a probability whose rows are compared with how many came true.
N_STEPS: Final = 10


def interval_columns(sure: Applied, level: float | None = None) -> dict[str, Array]:
    """Return what predictions carry of intervals: `pkd_low, pkd_high` and the tail probabilities, (n_samples,) each.

    Parameters
    ----------
    level : share of measured values that an interval is to hold; that of the calibration unless given
    """
    low, high = sure.interval(level)
    tails = {name: 1 - sure.below(limit) if above else sure.below(limit) for name, (limit, above) in TAILS.items()}
    return {"pkd_low": low, "pkd_high": high, **tails}


def covered(low: Array, high: Array, y_true: Array, relation: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Return (n_samples,) whether an interval holds the label; of a bound, whether it reaches beyond it.

    >>> covered(np.array([4.0, 6.5]), np.array([6.0, 8.0]), np.array([5.0, 6.0]), np.array(["=", "<"])).tolist()
    [True, False]
    """
    return np.where(
        relation == "<", low < y_true, np.where(relation == ">", high > y_true, (low <= y_true) & (y_true <= high))
    )


def came_true(name: str, y_true: Array, relation: NDArray[np.str_]) -> Array:
    """Return (n_samples,) 1 where the event of a tail probability happened, 0 where not, nan where a bound hides it.

    >>> came_true("p_above_9", np.array([9.5, 8.0, 8.0, 8.0]), np.array(["=", "=", "<", ">"])).tolist()
    [1.0, 0.0, 0.0, nan]
    """
    threshold, above = TAILS[name]
    upward = y_true > threshold
    surely_below = (relation == "<") & (y_true <= threshold)
    surely_above = (relation == ">") & (y_true >= threshold)
    known = (relation == "=") | surely_below | surely_above
    happened = (
        np.where(surely_above, True, upward) if above else ~np.where(relation == "=", y_true >= threshold, surely_above)
    )
    return np.where(known, happened.astype(np.float64), np.nan)


def reliability(probability: Array, happened: Array) -> dict[str, Any]:
    """Return how far probabilities come true: rows, mean probability and share that happened by steps of a tenth.

    Returns
    -------
    dict
        `n`, `ece` (expected calibration error: mean of |probability − share| over the rows, by steps; None without
        rows), `steps`: of each step with rows, `n`, `probability`, `share`.

    Examples
    --------
    >>> reliability(np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.0, 0.0, 1.0, 0.0]))["ece"]
    0.25
    """
    rows = np.isfinite(happened) & np.isfinite(probability)
    probability, happened = probability[rows], happened[rows]
    step = np.minimum((probability * N_STEPS).astype(np.intp), N_STEPS - 1)
    steps = [
        {"n": int(own.sum()), "probability": float(probability[own].mean()), "share": float(happened[own].mean())}
        for number in range(N_STEPS)
        if (own := step == number).any()
    ]
    n = len(probability)
    ece = sum(one["n"] * abs(one["probability"] - one["share"]) for one in steps) / n if n else None
    return {"n": n, "ece": None if ece is None else round(ece, 9), "steps": steps}


def coverage(
    low: Array, high: Array, y_true: Array, relation: NDArray[np.str_], kinds: Mapping[str, NDArray[np.str_]]
) -> dict[str, Any]:
    """Return how many labels the intervals hold, overall, by affinity bin and by other kinds of rows.

    Parameters
    ----------
    low, high, y_true : (n_samples,) pKd
    relation : (n_samples,) "=", "<" or ">"
    kinds : name of a division, such as `source` → (n_samples,) the kind of each row

    Returns
    -------
    dict
        `measured` and `censored`, each `n`, `coverage` and `width` (the mean, and the median as `median_width`; None
        where infinite); `bins` and each of `kinds`: name → the same, of measured rows.
    """
    held, measured = covered(low, high, y_true, relation), relation == "="

    def of(rows: NDArray[np.bool_]) -> dict[str, Any] | None:
        if not rows.any():
            return None
        width = (high - low)[rows]
        mean, median = float(width.mean()), float(np.median(width))
        return {
            "n": int(rows.sum()),
            "coverage": float(held[rows].mean()),
            "width": mean if np.isfinite(mean) else None,
            "median_width": median if np.isfinite(median) else None,
        }

    bins = bin_index(y_true)
    return {
        "measured": of(measured),
        "censored": of(~measured),
        "bins": {name: of(measured & (bins == number)) for number, name in enumerate(BIN_NAMES)},
        **{
            division: {str(kind): of(measured & (of_rows == kind)) for kind in np.unique(of_rows[measured])}
            for division, of_rows in kinds.items()
        },
    }
