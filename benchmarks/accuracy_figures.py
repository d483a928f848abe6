"""The figures of the accuracy benchmark, each with its bootstrap values, so that two of them can be held together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.evaluation import metrics
from tailbind.evaluation.censoring import evaluate_censored
from tailbind.evaluation.metrics import Drawing, evaluate, figure, interval, metric_names, resampled
from tailbind.evaluation.retrieval import FIGURES, THRESHOLDS, find_binders, resampled_retrieval
from tailbind.scale import BIN_NAMES
from tailbind.table.schema import MEASURED

Array = NDArray[np.float64]
Interval = tuple[float, float]

#: Sources on a relative scale: enrichment that was fitted to a few measured Kd, not Kd.
RELATIVE: Final = ("alphabind_her2_full", "alphabind_her2_cdr")
BINS: Final = tuple(f"{name}.rmse" for name in BIN_NAMES)
ABSOLUTE: Final = "absolute."
ONE_SIDED: Final = "one_sided_rmse"
#: How much worse than the best baseline counts as no worse, in percent of its value.
TOLERANCE: Final = 2.0


@dataclass(frozen=True)
class Figure:
    """A figure and its bootstrap values.

    Attributes
    ----------
    value : nan where it has none
    samples : (n_resamples,); None where the rows are too few for an interval
    """

    value: float
    samples: Array | None = None

    @property
    def interval(self) -> Interval | None:
        """95 % percentile interval."""
        return None if self.samples is None else interval(self.samples)

    def minus(self, other: "Figure") -> "Figure":
        """Return the difference of two figures whose resamples are the same."""
        samples = None if self.samples is None or other.samples is None else self.samples - other.samples
        return Figure(self.value - other.value, samples)


@dataclass(frozen=True)
class Labels:
    """What predictions are held against; the fields are row for row.

    Attributes
    ----------
    pkd, relation, source : (n_samples,)
    clusters : (n_samples,) what the bootstrap draws whole; None where unknown
    """

    pkd: Array
    relation: NDArray[np.str_]
    source: NDArray[np.str_]
    clusters: NDArray[np.intp] | None

    def of(self, rows: NDArray[np.bool_]) -> "Labels":
        """Return those of some rows."""
        clusters = None if self.clusters is None else self.clusters[rows]
        return replace(
            self, pkd=self.pkd[rows], relation=self.relation[rows], source=self.source[rows], clusters=clusters
        )

    @property
    def measured(self) -> NDArray[np.bool_]:
        """(n_samples,) whether each row was measured."""
        measured: NDArray[np.bool_] = self.relation == MEASURED
        return measured

    @property
    def drawn(self) -> str:
        """What the bootstrap draws, in words."""
        drawing = Drawing.of(self.clusters)
        return f"{drawing.n_clusters:,} clusters" if drawing.by == metrics.CLUSTERS else "rows"


Scores = dict[str, dict[str, Figure]]


def scores(labels: Labels, predictions: Mapping[str, Array], n_resamples: int, seed: int = 0) -> Scores:
    """Return recipe → metric → figure, of labels as they are stated: the overall metrics, macro RMSE, each bin's RMSE.

    One set of resamples serves all.
    """
    drawn = resampled(labels.pkd, list(predictions.values()), n_resamples, seed, labels.clusters)
    enough = Drawing.of(labels.clusters).enough(labels.pkd)
    column = {name: position for position, name in enumerate(metric_names())}
    found: Scores = {}
    for (name, y_pred), values in zip(predictions.items(), drawn, strict=True):
        figures = evaluate(labels.pkd, y_pred)
        found[name] = {
            metric: Figure(_finite(figure(figures, metric)), values[:, column[metric]]) for metric in metrics.OVERALL
        }
        bins = values[:, [column[metric] for metric in BINS]]
        found[name]["macro_rmse"] = Figure(figures["macro_rmse"], _mean_of_present(bins))
        for position, metric in enumerate(BINS):
            samples = bins[:, position] if enough[metric.split(".")[0]] else None
            found[name][metric] = Figure(_finite(figure(figures, metric)), samples)
    return found


def pool_scores(labels: Labels, predictions: Mapping[str, Array], n_resamples: int) -> Scores:
    """Return the figures of the pool: on measured rows, one-sided on marked rows, and how well binders are found.

    Bins without the sources on a relative scale are under `ABSOLUTE`, retrieval under "9.average_precision" and so on.
    """
    measured = labels.measured
    found = scores(labels.of(measured), _of(predictions, measured), n_resamples)
    absolute = measured & ~np.isin(labels.source, RELATIVE)
    without = scores(labels.of(absolute), _of(predictions, absolute), n_resamples)
    one_sided = _one_sided(labels.of(~measured), _of(predictions, ~measured), n_resamples)
    for name, y_pred in predictions.items():
        found[name] |= {ABSOLUTE + metric: without[name][metric] for metric in BINS}
        found[name][ONE_SIDED] = one_sided[name]
        binders = find_binders(labels.pkd, y_pred, labels.relation)
        for threshold, figures in binders.items():
            found[name] |= {f"{threshold}.{metric}": Figure(_finite(figures[metric])) for metric in FIGURES}
    for threshold in THRESHOLDS:
        drawn = resampled_retrieval(
            labels.pkd, list(predictions.values()), labels.relation, threshold, n_resamples, 0, labels.clusters
        )
        for name, values in zip(predictions, drawn or [], strict=False):
            for position, metric in enumerate(FIGURES):
                key = f"{threshold:g}.{metric}"
                found[name][key] = replace(found[name][key], samples=values[:, position])
    return found


def _one_sided(labels: Labels, predictions: Mapping[str, Array], n_resamples: int) -> dict[str, Figure]:
    """Return the one-sided RMSE of every recipe on marked rows."""
    if not len(labels.pkd):
        return dict.fromkeys(predictions, Figure(float("nan")))
    below = labels.relation == "<"
    bounded = {
        name: np.where(below, np.maximum(y_pred, labels.pkd), np.minimum(y_pred, labels.pkd))
        for name, y_pred in predictions.items()
    }
    drawn = scores(labels, bounded, n_resamples)
    values = {name: evaluate_censored(labels.pkd, y, labels.relation) for name, y in predictions.items()}
    return {name: Figure(float(values[name]["one_sided_rmse"]), drawn[name]["rmse"].samples) for name in predictions}


def averaged(folds: Sequence[Scores], metric_list: Sequence[str]) -> Scores:
    """Return the means over folds, resample by resample; the folds share no cluster, so each is drawn for itself.

    A metric that has no value in a fold has no mean.
    """
    found: Scores = {}
    for name in folds[0]:
        found[name] = {}
        for metric in metric_list:
            of_folds = [fold[name][metric] for fold in folds]
            samples = [one.samples for one in of_folds if one.samples is not None]
            whole = np.mean(samples, axis=0) if len(samples) == len(folds) else None
            found[name][metric] = Figure(float(np.mean([one.value for one in of_folds])), whole)
    return found


def over_landscapes(values: Mapping[str, Array], n_resamples: int, seed: int = 0) -> dict[str, Figure]:
    """Return the mean of (n_landscapes, n_repeats) values of each recipe; landscapes are drawn, and repeats in each."""
    rng = np.random.default_rng(seed)
    n_landscapes, n_repeats = next(iter(values.values())).shape
    landscape = rng.integers(n_landscapes, size=(n_resamples, n_landscapes, 1))
    repeat = rng.integers(n_repeats, size=(n_resamples, n_landscapes, n_repeats))
    return {name: Figure(float(of.mean()), of[landscape, repeat].mean(axis=(1, 2))) for name, of in values.items()}


def is_error(metric: str) -> bool:
    """Return whether a metric is better when smaller.

    >>> is_error("very_strong.rmse"), is_error("9.average_precision")
    (True, False)
    """
    return metric.endswith(("rmse", "mae"))


def best(found: Scores, names: Sequence[str], metric: str) -> str | None:
    """Return which of some recipes is best in a metric; None where none has a value."""
    values = {name: found[name][metric].value for name in names if np.isfinite(found[name][metric].value)}
    if not values:
        return None
    return min(values, key=values.__getitem__) if is_error(metric) else max(values, key=values.__getitem__)


@dataclass(frozen=True)
class Held:
    """A recipe held against the best baseline in one metric.

    Attributes
    ----------
    baseline : which it is
    own, other : the recipe's figure and the baseline's
    difference : of the two, paired
    bound : how much worse the recipe may be, at most, in percent of the baseline's value; None without interval
    """

    baseline: str
    own: Figure
    other: Figure
    difference: Figure
    bound: float | None
    is_error: bool

    @property
    def verdict(self) -> str:
        """In words: better, no worse (by more than `TOLERANCE`), worse, or not shown either way."""
        limits = self.difference.interval
        if limits is None or self.bound is None:
            return "no interval"
        low, high = limits if self.is_error else (-limits[1], -limits[0])
        if high < 0:
            return "better"
        if self.bound <= TOLERANCE:
            return "no worse"
        return "worse" if low > 0 else "not shown"


def held(found: Scores, name: str, baselines: Sequence[str], metric: str) -> Held | None:
    """Return a recipe held against the best baseline in a metric; None where either has no value."""
    baseline = best(found, baselines, metric)
    if baseline is None or not np.isfinite(found[name][metric].value):
        return None
    own, other = found[name][metric], found[baseline][metric]
    difference, error = own.minus(other), is_error(metric)
    limits, bound = difference.interval, None
    if limits is not None and other.value:
        bound = 100 * (limits[1] if error else -limits[0]) / abs(other.value)
    return Held(baseline, own, other, difference, bound, error)


def _of(predictions: Mapping[str, Array], rows: NDArray[np.bool_]) -> dict[str, Array]:
    return {name: y_pred[rows] for name, y_pred in predictions.items()}


def _mean_of_present(bins: Array) -> Array:
    """Return (n_resamples,) means of (n_resamples, n_bins), over the bins that each resample has."""
    present = np.isfinite(bins)
    sums = np.where(present, bins, 0.0).sum(axis=1)
    means: Array = sums / present.sum(axis=1)
    return means


def _finite(value: float | None) -> float:
    return float("nan") if value is None else float(value)
