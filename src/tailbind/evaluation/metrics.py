"""Errors and correlations, overall and per affinity bin, with bootstrap intervals.

Every metric takes `sample_weight`; a bootstrap resample is a weight per row that counts how often it was
drawn. Intervals are percentile intervals over resamples of whole clusters of rows that are not independent,
such as variants of one antibody, or of rows where clusters are unknown or too few.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.scale import BIN_NAMES, bin_index

Array = NDArray[np.float64]

N_RESAMPLES: Final = 1000
CONFIDENCE: Final = 0.95
#: Rows from which a bin has an interval; a bootstrap of fewer says little more than their number.
FEWEST_FOR_INTERVAL: Final = 5
#: Clusters from which whole clusters are drawn; the spread of fewer says little.
FEWEST_CLUSTERS: Final = 20
CLUSTERS, ROWS = "clusters", "rows"
#: The overall metrics, in the order in which people read them.
OVERALL: Final = ("rmse", "mae", "spearman", "pearson", "r2")
_ROWS_AT_A_TIME: Final = 2_000_000


def rmse(y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
    """Return the root of the mean squared error; nan without rows.

    >>> rmse(np.array([1.0, 2.0]), np.array([1.0, 4.0])) == 2**0.5
    True
    """
    return float(np.sqrt(_mean(np.square(y_pred - y_true), sample_weight)))


def mae(y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
    """Return the mean absolute error; nan without rows."""
    return _mean(np.abs(y_pred - y_true), sample_weight)


def bias(y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
    """Return the mean of predicted minus true; nan without rows."""
    return _mean(y_pred - y_true, sample_weight)


def r2(y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
    """Return the coefficient of determination, 1 − Σe² / Σ(y − ȳ)²; nan where `y_true` is constant."""
    if len(y_true) == 0 or np.ptp(y_true) == 0:
        return float("nan")
    spread = _mean(np.square(y_true - _mean(y_true, sample_weight)), sample_weight)
    return float(1 - _mean(np.square(y_pred - y_true), sample_weight) / spread) if spread > 0 else float("nan")


def pearson(y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
    """Return Pearson's correlation; nan where either side is constant or there are fewer than two rows."""
    if len(y_true) < 2 or np.ptp(y_true) == 0 or np.ptp(y_pred) == 0:
        return float("nan")
    a = y_true - _mean(y_true, sample_weight)
    b = y_pred - _mean(y_pred, sample_weight)
    scale = np.sqrt(_mean(a * a, sample_weight) * _mean(b * b, sample_weight))
    return float(_mean(a * b, sample_weight) / scale) if scale > 0 else float("nan")


def spearman(y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
    """Return Spearman's rank correlation, ties at their mean rank; weights count repeated rows."""
    counts = np.ones(len(y_true)) if sample_weight is None else sample_weight
    return pearson(_Ranks(y_true)(counts), _Ranks(y_pred)(counts), sample_weight)


def macro_rmse(y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
    """Return the mean of the RMSEs of the affinity bins present: a rare bin counts as much as a full one.

    >>> macro_rmse(np.array([6.0, 6.0, 6.0, 12.0]), np.array([6.0, 6.0, 6.0, 10.0]))
    1.0
    """
    bins = bin_index(y_true)
    present = np.unique(bins if sample_weight is None else bins[sample_weight > 0])
    if not len(present):
        return float("nan")
    of_bins = []
    for index in present:
        rows = bins == index
        of_bins.append(rmse(y_true[rows], y_pred[rows], None if sample_weight is None else sample_weight[rows]))
    return float(np.mean(of_bins))


class _Ranks:
    """Mean ranks of values, again and again under other counts, sorted only once."""

    def __init__(self, values: Array) -> None:
        self._distinct, self._place = np.unique(values, return_inverse=True)

    def __call__(self, counts: Array) -> Array:
        """Return the rank of each row among rows repeated `counts` times."""
        per_value = np.bincount(self._place, weights=counts, minlength=len(self._distinct))
        ranks: Array = (np.cumsum(per_value) - (per_value - 1) / 2)[self._place]
        return ranks


def evaluate(y_true: Array, y_pred: Array) -> dict[str, Any]:
    """Return every figure of a set of predictions, as `metrics.json` has them.

    Parameters
    ----------
    y_true, y_pred : (n_samples,) pKd

    Returns
    -------
    dict
        n, the overall metrics, `macro_rmse`, SDs, the number of distinct predictions (to a thousandth), and under
        `bins` one entry per affinity bin of `y_true`: n, rmse, mae, bias, or None where it has no rows; under
        `predicted_bins` the same by the bin of `y_pred`.
    """
    figures: dict[str, Any] = {"n": len(y_true)}
    functions: dict[str, Callable[[Array, Array], float]] = {
        "rmse": rmse, "mae": mae, "spearman": spearman, "pearson": pearson, "r2": r2,
    }  # fmt: skip
    figures |= {name: function(y_true, y_pred) for name, function in functions.items()}
    figures["bias"] = bias(y_true, y_pred)
    figures["macro_rmse"] = macro_rmse(y_true, y_pred)
    figures["label_sd"] = float(y_true.std()) if len(y_true) else float("nan")
    figures["prediction_sd"] = float(y_pred.std()) if len(y_pred) else float("nan")
    figures["distinct_predictions"] = len(np.unique(y_pred.round(3)))
    figures["bins"] = _by_bin(y_true, y_pred, bin_index(y_true))
    figures["predicted_bins"] = _by_bin(y_true, y_pred, bin_index(y_pred))
    return figures


def _by_bin(y_true: Array, y_pred: Array, bins: NDArray[np.intp]) -> dict[str, dict[str, Any] | None]:
    """Return bin → n, rmse, mae and bias of the rows that `bins` (n_samples,) puts in it; None where there are none."""
    figures: dict[str, dict[str, Any] | None] = {}
    for index, name in enumerate(BIN_NAMES):
        rows = bins == index
        figures[name] = (
            {
                "n": int(rows.sum()),
                "rmse": rmse(y_true[rows], y_pred[rows]),
                "mae": mae(y_true[rows], y_pred[rows]),
                "bias": bias(y_true[rows], y_pred[rows]),
            }
            if rows.any()
            else None
        )
    return figures


def metric_names() -> list[str]:
    """Return the metrics that `resampled` gives a column for: overall ones, then `bin.metric`.

    >>> metric_names()[-1]
    'very_strong.bias'
    """
    return [*OVERALL, *(f"{name}.{metric}" for name in BIN_NAMES for metric in ("rmse", "mae", "bias"))]


@dataclass(frozen=True)
class Drawing:
    """What a bootstrap of some rows draws: whole clusters, or rows.

    Attributes
    ----------
    clusters : (n_samples,) the cluster of each row, from 0 without gaps; None where unknown
    n_clusters : how many there are; None where unknown
    """

    clusters: NDArray[np.intp] | None
    n_clusters: int | None

    @classmethod
    def of(cls, clusters: NDArray[np.integer[Any]] | None) -> "Drawing":
        """Return the drawing for clusters numbered in any way, or for none.

        >>> Drawing.of(np.arange(20)).by, Drawing.of(np.arange(19)).by, Drawing.of(None).by
        ('clusters', 'rows', 'rows')
        """
        if clusters is None:
            return cls(None, None)
        distinct, numbered = np.unique(clusters, return_inverse=True)
        return cls(numbered, len(distinct))

    @property
    def by(self) -> str:
        """What is drawn: "clusters" where there are at least `FEWEST_CLUSTERS`, else "rows"."""
        return CLUSTERS if self.n_clusters is not None and self.n_clusters >= FEWEST_CLUSTERS else ROWS

    def counts(self, rng: np.random.Generator, n: int) -> Array:
        """Return (n,) how often each of `n` rows is in a resample: as often as its cluster, where these are drawn."""
        units = self.n_clusters if self.clusters is not None and self.by == CLUSTERS else None
        size = n if units is None else units
        drawn = np.bincount(rng.integers(size, size=size), minlength=size).astype(float)
        return drawn if units is None else drawn[self.clusters]

    def enough(self, y_true: Array) -> dict[str, bool]:
        """Return bin → whether it has an interval: `FEWEST_FOR_INTERVAL` rows, from as many of the clusters drawn."""
        bins = bin_index(y_true)
        return {name: self.n_units(bins == index) >= FEWEST_FOR_INTERVAL for index, name in enumerate(BIN_NAMES)}

    def n_units(self, rows: NDArray[np.bool_]) -> int:
        """Return how many of what is drawn, clusters or rows, are among `rows` (n_samples,)."""
        if self.clusters is not None and self.by == CLUSTERS:
            return len(np.unique(self.clusters[rows]))
        return int(rows.sum())


def resampled(
    y_true: Array,
    predictions: Sequence[Array],
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    clusters: NDArray[np.integer[Any]] | None = None,
) -> list[Array]:
    """Return bootstrap values of every metric for one or several predictions of the same rows.

    The same resamples serve all predictions, so that differences between two are paired.

    Parameters
    ----------
    y_true : (n_samples,) pKd
    predictions : each (n_samples,) pKd
    clusters : (n_samples,) numbers; where at least `FEWEST_CLUSTERS` differ, whole clusters are drawn with
        replacement, as many as there are, else rows

    Returns
    -------
    list of (n_resamples, n_metrics)
        Columns as `metric_names`; nan where a resample has no row of a bin.
    """
    n = len(y_true)
    drawing = Drawing.of(clusters)
    rng = np.random.default_rng(seed)
    bins = np.eye(len(BIN_NAMES))[bin_index(y_true)]
    ranks_true = _Ranks(y_true)
    summed = [_Summed(y_true, y_pred, bins) for y_pred in predictions]
    ranks = [_Ranks(y_pred) for y_pred in predictions]
    values = [np.empty((n_resamples, len(metric_names()))) for _ in predictions]
    step = max(1, _ROWS_AT_A_TIME // max(n, 1))
    for start in range(0, n_resamples, step):
        stop = min(start + step, n_resamples)
        counts = np.stack([drawing.counts(rng, n) for _ in range(start, stop)])
        true_ranks = [ranks_true(row) for row in counts]
        for which, of_values in enumerate(values):
            of_values[start:stop] = summed[which](counts)
            of_values[start:stop, OVERALL.index("spearman")] = [
                pearson(rank, ranks[which](row), row) for rank, row in zip(true_ranks, counts, strict=True)
            ]
    return values


class _Summed:
    """Every metric but Spearman's from weighted sums, for many resamples in one matrix product."""

    def __init__(self, y_true: Array, y_pred: Array, bins: Array) -> None:
        error = y_pred - y_true
        a, b = y_true - y_true.mean(), y_pred - y_pred.mean()
        overall = [np.ones_like(a), np.square(error), np.abs(error), a, b, a * a, b * b, a * b]
        self._n_overall = len(overall)
        per_bin = [
            bins,
            bins * np.square(error)[:, None],
            bins * np.abs(error)[:, None],
            bins * error[:, None],
        ]
        self._columns = np.hstack([np.stack(overall, axis=1), *per_bin])

    def __call__(self, counts: Array) -> Array:
        """Return (n_resamples, n_metrics) for (n_resamples, n_samples) counts; Spearman's left as nan."""
        sums = counts @ self._columns
        n, e2, e1, a, b, aa, bb, ab = sums[:, : self._n_overall].T
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_e2 = e2 / n
            var_a, var_b = _variance(n, a, aa), _variance(n, b, bb)
            r = (ab / n - (a / n) * (b / n)) / np.sqrt(var_a * var_b)
            overall = [np.sqrt(mean_e2), e1 / n, np.full_like(n, np.nan), r, 1 - mean_e2 / var_a]
            count, squared, absolute, signed = np.split(sums[:, self._n_overall :], 4, axis=1)
            per_bin = np.stack([np.sqrt(squared / count), absolute / count, signed / count], axis=2)
        values: Array = np.hstack([np.stack(overall, axis=1), per_bin.reshape(len(counts), -1)])
        return values


def _variance(n: Array, total: Array, squares: Array) -> Array:
    """Return the variances of resamples from their sums; nan where all that is left is rounding."""
    variance: Array = squares / n - (total / n) ** 2
    return np.where(variance > 1e-12 * squares / n, variance, np.nan)


def percentile_intervals(values: Array) -> dict[str, tuple[float, float] | None]:
    """Return metric → 95 % percentile interval over (n_resamples, n_metrics); None where most are nan."""
    return {name: interval(values[:, position]) for position, name in enumerate(metric_names())}


def interval(values: Array) -> tuple[float, float] | None:
    """Return the 95 % percentile interval over (n_resamples,) values; None where most are nan.

    >>> tuple(round(end, 6) for end in interval(np.arange(41.0)))
    (1.0, 39.0)
    """
    finite = values[np.isfinite(values)]
    if len(finite) < len(values) / 2:
        return None
    low, high = np.percentile(finite, (100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2))
    return float(low), float(high)


def intervals(
    y_true: Array,
    y_pred: Array,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    clusters: NDArray[np.integer[Any]] | None = None,
) -> dict[str, Any]:
    """Return 95 % bootstrap intervals of every metric, `bins` nested as in `evaluate`.

    Under `by` is what was drawn, "clusters" or "rows", and under `n_clusters` how many clusters there are,
    None where unknown. A bin of fewer than `FEWEST_FOR_INTERVAL` rows has no interval, nor one whose rows
    are from fewer of the clusters drawn.
    """
    drawing = Drawing.of(clusters)
    told = {"by": drawing.by, "n_clusters": drawing.n_clusters}
    if len(y_true) < 2:
        return {**dict.fromkeys(OVERALL), "bins": dict.fromkeys(BIN_NAMES), **told}
    flat = percentile_intervals(resampled(y_true, [y_pred], n_resamples, seed, clusters)[0])
    nested: dict[str, Any] = {name: flat[name] for name in OVERALL}
    nested["bins"] = {
        name: {metric: flat[f"{name}.{metric}"] for metric in ("rmse", "mae", "bias")} if enough else None
        for name, enough in drawing.enough(y_true).items()
    }
    return {**nested, **told}


def figure(figures: Mapping[str, Any], name: str) -> float | None:
    """Return a figure by its flat name, "rmse" or "very_strong.rmse"; None where there is none.

    >>> figure({"rmse": 1.0, "bins": {"weak": None}}, "weak.rmse") is None
    True
    """
    value: Any = figures
    for key in ["bins", *name.split(".")] if "." in name else [name]:
        value = value.get(key) if value is not None else None
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return float(value)


def _mean(values: Array, sample_weight: Array | None) -> float:
    if len(values) == 0:
        return float("nan")
    return float(np.average(values, weights=sample_weight))
