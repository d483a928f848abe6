"""Runs side by side on the same test rows, with paired intervals of their differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.evaluation.censoring import concordance
from tailbind.evaluation.criteria import ALL_ROWS, lower_is_better
from tailbind.evaluation.metrics import (
    CLUSTERS,
    FEWEST_FOR_INTERVAL,
    N_RESAMPLES,
    OVERALL,
    ROWS,
    Drawing,
    evaluate,
    figure,
    interval,
    metric_names,
    percentile_intervals,
    resampled,
    rmse,
    spearman,
)
from tailbind.scale import BIN_NAMES, bin_index

Array = NDArray[np.float64]
Clusters = NDArray[np.integer[Any]]
Interval = tuple[float, float]

#: What a comparison shows, in order: the training notebook's metrics, then each bin's RMSE.
COMPARED: Final = (*OVERALL, *(f"{name}.rmse" for name in BIN_NAMES))
MEASURED_RMSE, MEASURED_SPEARMAN = "measured.rmse", "measured.spearman"
ONE_SIDED_RMSE, CONCORDANCE = "censored.one_sided_rmse", "censored.concordance"
#: What follows where labels are marked < or >, named as in `metrics.json`: such rows left out, or taken as bounds.
COMPARED_MARKED: Final = (MEASURED_RMSE, MEASURED_SPEARMAN, ONE_SIDED_RMSE, CONCORDANCE)
#: Beside these, the RMSE of a bin's measured rows, where some of the bin's rows are marked: this and the bin's name.
MEASURED_BIN: Final = "measured.{}.rmse"
#: Resamples behind an interval of the concordance: one of 50,000 rows takes about 0.1 s a run.
CONCORDANCE_RESAMPLES: Final = 100
#: Rows up to which the concordance has an interval.
CONCORDANCE_ROWS: Final = 50_000


@dataclass(frozen=True)
class Difference:
    """One run against the first, in one metric.

    Attributes
    ----------
    metric : flat name
    value : of this run; None where the test rows have none of that bin
    interval : 95 % bootstrap interval of the value
    change_percent : of the value against the first run's; None for the first run
    better : whether the change is an improvement
    difference : value minus the first run's
    difference_interval : paired 95 % bootstrap interval of it
    clear : whether that interval leaves out 0
    """

    metric: str
    value: float | None
    interval: Interval | None
    change_percent: float | None = None
    better: bool | None = None
    difference: float | None = None
    difference_interval: Interval | None = None
    clear: bool | None = None


@dataclass(frozen=True)
class Comparison:
    """Several runs on the same rows; the first is what the others are held against.

    Attributes
    ----------
    names : of the runs
    n : test rows
    bin_counts : bin → number of test rows
    differences : one list per run, an entry per metric of `COMPARED`, then, where rows are marked, of
        `COMPARED_MARKED` and of the measured rows of each bin with marked ones
    by : what the bootstrap drew, "clusters" of near-identical antibodies or "rows"
    n_clusters : how many clusters the test rows are of; None where unknown
    why : why they are unknown, as the end of a sentence
    n_marked : test rows marked < or >, which the metrics of `COMPARED` take as if measured
    concordance_resamples : resamples behind the concordance's intervals; 0 for none
    measured_counts : bin with marked rows → number of its measured rows
    rows : "measured" where the metrics that leave marked rows out or take them as bounds decide, else "all"
    """

    names: tuple[str, ...]
    n: int
    bin_counts: Mapping[str, int]
    differences: tuple[tuple[Difference, ...], ...]
    by: str = ROWS
    n_clusters: int | None = None
    why: str = ""
    n_marked: int = 0
    concordance_resamples: int = 0
    measured_counts: Mapping[str, int] = field(default_factory=dict)
    rows: str = ALL_ROWS

    @property
    def n_by_metric(self) -> dict[str, int]:
        """Metric → number of rows that it is of."""
        n_measured = self.n - self.n_marked
        marked = {
            **dict.fromkeys((MEASURED_RMSE, MEASURED_SPEARMAN), n_measured),
            **{MEASURED_BIN.format(name): count for name, count in self.measured_counts.items()},
            ONE_SIDED_RMSE: self.n_marked,
            CONCORDANCE: self.n,
        }
        return {
            **dict.fromkeys(OVERALL, self.n),
            **{f"{name}.rmse": count for name, count in self.bin_counts.items()},
            **(marked if self.n_marked else {}),
        }


def compare_predictions(
    y_true: Array,
    predictions: Mapping[str, Array],
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    clusters: Clusters | None = None,
    why: str = "",
    relation: NDArray[np.str_] | None = None,
) -> Comparison:
    """Return every metric of every run, and its difference from the first run's.

    Parameters
    ----------
    y_true : (n_samples,) pKd
    predictions : run name → (n_samples,) predicted pKd, the first being the reference
    clusters : (n_samples,) of rows that are not independent, as `resampled` takes them
    why : where they are unknown, why
    relation : (n_samples,) "=", "<" or ">"; None where unknown, and every label is taken as stated
    """
    figures = [evaluate(y_true, y_pred) for y_pred in predictions.values()]
    values = resampled(y_true, list(predictions.values()), n_resamples, seed, clusters)
    counts = {name: (entry["n"] if (entry := figures[0]["bins"][name]) else 0) for name in BIN_NAMES}
    drawing = Drawing.of(clusters)
    enough = drawing.enough(y_true)
    intervals = [percentile_intervals(of_run) for of_run in values]
    paired = [percentile_intervals(of_run - values[0]) for of_run in values]
    runs = []
    for position in range(len(figures)):
        entries = []
        for metric in COMPARED:
            few = "." in metric and not enough[metric.split(".")[0]]
            entries.append(
                _difference(
                    metric,
                    figure(figures[position], metric),
                    figure(figures[0], metric) if position else None,
                    None if few else intervals[position][metric],
                    None if few or not position else paired[position][metric],
                )
            )
        runs.append(tuple(entries))
    comparison = Comparison(
        tuple(predictions),
        len(y_true),
        counts,
        tuple(runs),
        drawing.by,
        drawing.n_clusters,
        "" if clusters is not None else why,
    )
    if relation is None or bool((relation == "=").all()):
        return comparison
    return _with_marked(comparison, y_true, list(predictions.values()), relation, n_resamples, seed, clusters)


def _with_marked(
    comparison: Comparison,
    y_true: Array,
    predictions: Sequence[Array],
    relation: NDArray[np.str_],
    n_resamples: int,
    seed: int,
    clusters: Clusters | None,
) -> Comparison:
    """Return a comparison with the metrics of `COMPARED_MARKED`, and of bins with marked rows, after its own."""
    measured = relation == "="
    # Put at its bound, a prediction on the stated side has no error, and one beyond keeps its own.
    bounded = [
        np.where(relation == "<", np.maximum(y_pred, y_true), np.minimum(y_pred, y_true)) for y_pred in predictions
    ]
    drawn, drawn_marked = (
        _resampled_part(y_true, of_runs, rows, n_resamples, seed, clusters)
        for of_runs, rows in ((predictions, measured), (bounded, ~measured))
    )
    n_drawn = min(n_resamples, CONCORDANCE_RESAMPLES) if len(y_true) <= CONCORDANCE_ROWS else 0
    of_order = _resampled_concordance(y_true, predictions, relation, n_drawn, seed, clusters)
    true, bounds = y_true[measured], y_true[~measured]
    metrics = {
        MEASURED_RMSE: ([rmse(true, y_pred[measured]) for y_pred in predictions], _column(drawn, "rmse")),
        MEASURED_SPEARMAN: ([spearman(true, y_pred[measured]) for y_pred in predictions], _column(drawn, "spearman")),
        **_measured_bins(y_true, predictions, measured, drawn, clusters),
        ONE_SIDED_RMSE: ([rmse(bounds, y_pred[~measured]) for y_pred in bounded], _column(drawn_marked, "rmse")),
        CONCORDANCE: ([_concordance(y_true, y_pred, relation) for y_pred in predictions], of_order),
    }
    runs = []
    for position, entries in enumerate(comparison.differences):
        added = []
        for metric, (values, samples) in metrics.items():
            own, first = (value if np.isfinite(value) else None for value in (values[position], values[0]))
            own_interval = None if samples is None else interval(samples[position])
            paired = None if samples is None or not position else interval(samples[position] - samples[0])
            added.append(_difference(metric, own, first if position else None, own_interval, paired))
        runs.append((*entries, *added))
    return replace(
        comparison,
        differences=tuple(runs),
        n_marked=int((~measured).sum()),
        concordance_resamples=0 if of_order is None else n_drawn,
        measured_counts=_measured_counts(y_true, measured),
    )


def _measured_counts(y_true: Array, measured: NDArray[np.bool_]) -> dict[str, int]:
    """Return bin → number of measured rows, for each bin with marked ones."""
    bins = bin_index(y_true)
    marked = np.unique(bins[~measured])
    return {BIN_NAMES[index]: int((measured & (bins == index)).sum()) for index in marked}


def _measured_bins(
    y_true: Array,
    predictions: Sequence[Array],
    measured: NDArray[np.bool_],
    drawn: list[Array] | None,
    clusters: Clusters | None,
) -> dict[str, tuple[list[float], list[Array] | None]]:
    """Return for each bin with marked rows the RMSE of its measured ones: metric → of each run, resampled."""
    bins = bin_index(y_true)
    enough = Drawing.of(None if clusters is None else clusters[measured]).enough(y_true[measured])
    found = {}
    for name in _measured_counts(y_true, measured):
        rows = measured & (bins == BIN_NAMES.index(name))
        values = [rmse(y_true[rows], y_pred[rows]) for y_pred in predictions]
        found[MEASURED_BIN.format(name)] = values, _column(drawn, f"{name}.rmse") if enough[name] else None
    return found


def _resampled_part(
    y_true: Array,
    predictions: Sequence[Array],
    rows: NDArray[np.bool_],
    n_resamples: int,
    seed: int,
    clusters: Clusters | None,
) -> list[Array] | None:
    """Return bootstrap values of some of the rows, as `resampled` does; None where they are too few."""
    of_rows = None if clusters is None else clusters[rows]
    if not _enough(of_rows, int(rows.sum()), Drawing.of(clusters).by):
        return None
    return resampled(y_true[rows], [y_pred[rows] for y_pred in predictions], n_resamples, seed, of_rows)


def _enough(clusters: Clusters | None, n_rows: int, by: str) -> bool:
    """Return whether some of the rows have an interval, drawing by what is drawn of all rows."""
    of_rows = Drawing.of(clusters)
    n_units = of_rows.n_clusters if of_rows.by == CLUSTERS else n_rows
    return of_rows.by == by and (n_units or 0) >= FEWEST_FOR_INTERVAL


def _column(values: list[Array] | None, metric: str) -> list[Array] | None:
    return None if values is None else [of_run[:, metric_names().index(metric)] for of_run in values]


def _resampled_concordance(
    y_true: Array,
    predictions: Sequence[Array],
    relation: NDArray[np.str_],
    n_resamples: int,
    seed: int,
    clusters: Clusters | None,
) -> list[Array] | None:
    """Return (n_resamples,) bootstrap values of the concordance for each prediction; None without resamples."""
    drawing = Drawing.of(clusters)
    if not n_resamples or not _enough(clusters, len(y_true), drawing.by):
        return None
    rng = np.random.default_rng(seed)
    values = np.empty((len(predictions), n_resamples))
    for column in range(n_resamples):
        rows = np.repeat(np.arange(len(y_true)), drawing.counts(rng, len(y_true)).astype(np.intp))
        for which, y_pred in enumerate(predictions):
            values[which, column] = _concordance(y_true[rows], y_pred[rows], relation[rows])
    return list(values)


def _concordance(y_true: Array, y_pred: Array, relation: NDArray[np.str_]) -> float:
    """Return the concordance, nan where no pair is comparable."""
    index, _ = concordance(y_true, y_pred, relation)
    return float("nan") if index is None else index


def _difference(
    metric: str,
    value: float | None,
    reference: float | None,
    interval: Interval | None,
    paired: Interval | None,
) -> Difference:
    if value is None or reference is None:
        return Difference(metric, value, interval)
    change = value - reference
    return Difference(
        metric=metric,
        value=value,
        interval=interval,
        change_percent=100 * change / abs(reference) if reference else None,
        better=None if change == 0 else (change < 0) == (metric == ONE_SIDED_RMSE or lower_is_better(metric)),
        difference=change,
        difference_interval=paired,
        clear=None if paired is None else not paired[0] <= 0 <= paired[1],
    )


def differing_rows(ids: Sequence[NDArray[np.str_]]) -> NDArray[np.str_]:
    """Return the row ids that are not in every list, sorted.

    >>> differing_rows([np.array(["a", "b"]), np.array(["b", "c"])]).tolist()
    ['a', 'c']
    """
    common, union = set(ids[0].tolist()), set(ids[0].tolist())
    for others in ids[1:]:
        common &= set(others.tolist())
        union |= set(others.tolist())
    return np.array(sorted(union - common), dtype=np.str_)
