"""Finding strong binders: how well the predicted order puts those above a threshold first.

A row is a binder where its true pKd is certainly at or above the threshold: measured there, or marked `>` with a bound
there. It is none where the true pKd is certainly below: measured below, or marked `<` with a bound at or below the
threshold. Other marked rows may be either and are left out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.evaluation.metrics import FEWEST_FOR_INTERVAL, N_RESAMPLES, Drawing, interval

Array = NDArray[np.float64]
Clusters = NDArray[np.integer[Any]]

#: pKd from which a row is a binder, each a task of its own; closed below, as the affinity bins are.
THRESHOLDS: Final = (9.0, 11.0)
#: The share of the rows, those predicted strongest, that would be taken to the laboratory.
TOP: Final = 0.01
#: The figures that `Order` gives, in its order.
FIGURES: Final = ("average_precision", "enrichment", "precision", "recall")


@dataclass(frozen=True)
class Known:
    """What is certain of each row at one threshold.

    Attributes
    ----------
    rows : (n_samples,) whether it is known on which side of the threshold the row is
    binder : (n_samples,) whether it is known to be at or above
    """

    rows: NDArray[np.bool_]
    binder: NDArray[np.bool_]

    @classmethod
    def at(cls, threshold: float, y_true: Array, relation: NDArray[np.str_]) -> "Known":
        """Return what labels (n_samples,) pKd with their relations "=", "<" or ">" say for certain.

        >>> known = Known.at(9.0, np.array([9.0, 8.9, 9.0, 9.5, 9.0, 8.0]), np.array(["=", "=", "<", "<", ">", ">"]))
        >>> known.rows.tolist(), known.binder.tolist()
        ([True, True, True, False, True, False], [True, False, False, False, True, False])
        """
        binder = (relation != "<") & (y_true >= threshold)
        other = ((relation == "=") & (y_true < threshold)) | ((relation == "<") & (y_true <= threshold))
        return cls(binder | other, binder)


class Order:
    """Rows in the order of their predictions, strongest first, scored again and again under other counts.

    Equal predictions have no order of their own: for the average precision they are one step, and where the cut goes
    through them, it takes the same share of each, which is what a random order gives on average.
    """

    def __init__(self, binder: NDArray[np.bool_], y_pred: Array) -> None:
        self._order = np.argsort(-y_pred, kind="stable")
        ordered = y_pred[self._order]
        self._start = np.searchsorted(-ordered, -ordered, side="left")
        self._end = np.searchsorted(-ordered, -ordered, side="right") - 1
        self._binders = np.flatnonzero(binder[self._order])
        self._ends = self._end[self._binders]  # where each binder's group of equal predictions ends
        self._found = np.searchsorted(self._binders, self._ends, side="right") - 1  # and the last binder in it

    def __call__(self, counts: Array) -> Array:
        """Return (4,) `FIGURES` where row i is there `counts[i]` times; nan where no binder is."""
        counts = counts[self._order]
        taken, hits = np.cumsum(counts), counts[self._binders]
        found = np.cumsum(hits)
        n, n_binders = float(taken[-1]), float(found[-1]) if len(found) else 0.0
        if not n_binders:
            return np.full(len(FIGURES), np.nan)
        ends = taken[self._ends]
        precision_here = np.divide(found[self._found], ends, out=np.zeros_like(ends), where=ends > 0)
        average = float(hits @ precision_here) / n_binders
        cut = max(1.0, math.ceil(TOP * n))
        precision = self._up_to(cut, taken, found) / cut
        return np.array([average, precision * n / n_binders, precision, precision * cut / n_binders])

    def _up_to(self, cut: float, taken: Array, found: Array) -> float:
        """Return how many binders are among the first `cut` rows."""
        at = int(np.searchsorted(taken, cut))
        start, end = int(self._start[at]), int(self._end[at])
        first, last = np.searchsorted(self._binders, [start, end + 1]).tolist()
        before, hits_before = (taken[start - 1] if start else 0.0), (found[first - 1] if first else 0.0)
        hits = (found[last - 1] if last else 0.0) - hits_before
        return float(hits_before + hits * (cut - before) / (taken[end] - before))


def find_binders(
    y_true: Array,
    y_pred: Array,
    relation: NDArray[np.str_],
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, dict[str, Any]]:
    """Return how well predictions find the rows at or above each threshold.

    Parameters
    ----------
    y_true, y_pred : (n_samples,) pKd
    relation : (n_samples,) "=", "<" or ">"

    Returns
    -------
    dict
        The threshold as text → n (rows whose side is known), n_unknown (rows left out), n_binders, prevalence; then
        average_precision (the area under precision against recall, in steps: Zhu 2004, as scikit-learn's; its value
        for a random order is the prevalence), n_top (the rows predicted strongest, `TOP` of all, rounded up), and
        among these precision, recall and enrichment (precision over prevalence), with the most enrichment that any
        order could have. None for what has no value without binders.

    Examples
    --------
    >>> y_true, y_pred = np.array([9.5, 8.0, 9.2, 6.0]), np.array([10.0, 9.0, 8.0, 5.0])
    >>> figures = find_binders(y_true, y_pred, np.full(4, "="))["9"]
    >>> figures["n_binders"], round(figures["average_precision"], 3), figures["precision"], figures["enrichment"]
    (2, 0.833, 1.0, 2.0)
    """
    return {f"{threshold:g}": _figures_at(threshold, y_true, y_pred, relation) for threshold in thresholds}


def _figures_at(threshold: float, y_true: Array, y_pred: Array, relation: NDArray[np.str_]) -> dict[str, Any]:
    known = Known.at(threshold, y_true, relation)
    n, n_binders = int(known.rows.sum()), int(known.binder.sum())
    n_top = max(1, math.ceil(TOP * n)) if n else 0
    values = dict.fromkeys(FIGURES, float("nan"))
    if n_binders:
        order = Order(known.binder[known.rows], y_pred[known.rows])
        values = dict(zip(FIGURES, order(np.ones(n)).tolist(), strict=True))
    return {
        "n": n,
        "n_unknown": len(y_true) - n,
        "n_binders": n_binders,
        "prevalence": n_binders / n if n else None,
        "n_top": n_top,
        **{name: value if n_binders else None for name, value in values.items()},
        "most_enrichment": min(n_top, n_binders) / n_top / (n_binders / n) if n_binders else None,
    }


def resampled_retrieval(
    y_true: Array,
    predictions: Sequence[Array],
    relation: NDArray[np.str_],
    threshold: float,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    clusters: Clusters | None = None,
) -> list[Array] | None:
    """Return bootstrap values of `FIGURES` at one threshold, for one or several predictions of the same rows.

    The same resamples serve all predictions, so that differences between two are paired. Rows whose side of the
    threshold is unknown are not drawn.

    Parameters
    ----------
    clusters : (n_samples,) numbers; drawn whole where there are enough, as `metrics.resampled` does

    Returns
    -------
    list of (n_resamples, 4), or None
        None where binders are fewer than `FEWEST_FOR_INTERVAL`, or of fewer of the clusters drawn.
    """
    known = Known.at(threshold, y_true, relation)
    binder, n = known.binder[known.rows], int(known.rows.sum())
    drawing = Drawing.of(None if clusters is None else clusters[known.rows])
    if drawing.n_units(binder) < FEWEST_FOR_INTERVAL:
        return None
    orders = [Order(binder, y_pred[known.rows]) for y_pred in predictions]
    values = [np.empty((n_resamples, len(FIGURES))) for _ in predictions]
    rng = np.random.default_rng(seed)
    for row in range(n_resamples):
        counts = drawing.counts(rng, n)
        for of_values, order in zip(values, orders, strict=True):
            of_values[row] = order(counts)
    return values


def retrieval_intervals(
    y_true: Array,
    y_pred: Array,
    relation: NDArray[np.str_],
    thresholds: Sequence[float] = THRESHOLDS,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    clusters: Clusters | None = None,
) -> dict[str, Mapping[str, tuple[float, float] | None]]:
    """Return the threshold as text → figure → 95 % bootstrap interval, None where the binders are too few for one."""
    nothing: Mapping[str, tuple[float, float] | None] = dict.fromkeys(FIGURES)
    found: dict[str, Mapping[str, tuple[float, float] | None]] = {}
    for threshold in thresholds:
        drawn = resampled_retrieval(y_true, [y_pred], relation, threshold, n_resamples, seed, clusters)
        found[f"{threshold:g}"] = (
            nothing if drawn is None else {name: interval(drawn[0][:, column]) for column, name in enumerate(FIGURES)}
        )
    return found
