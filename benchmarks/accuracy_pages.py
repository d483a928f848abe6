"""The figures of the accuracy benchmark as Markdown tables, with n and intervals."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from benchmarks.accuracy_figures import (
    BINS,
    ONE_SIDED,
    RELATIVE,
    TOLERANCE,
    Figure,
    Labels,
    Scores,
    held,
)
from numpy.typing import NDArray

from tailbind.evaluation.criteria import metric_label
from tailbind.evaluation.metrics import evaluate
from tailbind.evaluation.retrieval import THRESHOLDS, find_binders
from tailbind.reporting.tables import NOTHING, Table, interval_text, number
from tailbind.scale import BIN_NAMES, bin_index, bin_label

Array = NDArray[np.float64]

LABELS: Final = {
    "macro_rmse": "Macro RMSE",
    ONE_SIDED: "One-sided RMSE, marked rows",
    **{f"{threshold:g}.average_precision": f"Average precision, pKd ≥ {threshold:g}" for threshold in THRESHOLDS},
    **{f"{threshold:g}.enrichment": f"Enrichment in the top 1 %, pKd ≥ {threshold:g}" for threshold in THRESHOLDS},
}
#: What a recipe is held against the best baseline in, on the pool.
HELD: Final = ("rmse", "mae", "spearman", "macro_rmse", *BINS, ONE_SIDED, *list(LABELS)[2:])


def label(metric: str) -> str:
    """Return a metric's name as a person reads it.

    >>> label("9.enrichment"), label("rmse")
    ('Enrichment in the top 1 %, pKd ≥ 9', 'RMSE')
    """
    return LABELS.get(metric) or metric_label(metric)


def cell(figure: Figure, digits: int = 3) -> str:
    """Return a figure with its interval in brackets."""
    if not np.isfinite(figure.value):
        return NOTHING
    limits = "" if figure.interval is None else f" ({interval_text(figure.interval, digits)})"
    return f"{number(figure.value, digits)}{limits}"


def overall_table(title: str, found: Scores, columns: Sequence[str], note: str) -> Table:
    """Return a row per recipe and a column per metric."""
    rows = tuple((name, *(cell(figures[metric]) for metric in columns)) for name, figures in found.items())
    return Table(title, ("Recipe", *map(label, columns)), rows, note)


def bins_table(title: str, found: Scores, pkd: Array, note: str, prefix: str = "") -> Table:
    """Return the RMSE of every recipe in each bin of the measured pKd."""
    counts = np.bincount(bin_index(pkd), minlength=len(BIN_NAMES))
    header = [f"{bin_label(name)}, n = {count:,}" for name, count in zip(BIN_NAMES, counts, strict=True)]
    rows = tuple((name, *(cell(figures[prefix + metric]) for metric in BINS)) for name, figures in found.items())
    return Table(title, ("Recipe", *header), rows, note)


def predicted_bins_table(labels: Labels, predictions: Mapping[str, Array]) -> Table:
    """Return the RMSE of every recipe in each bin of what it predicted itself, on measured rows."""
    rows = []
    for name, y_pred in predictions.items():
        found = evaluate(labels.pkd[labels.measured], y_pred[labels.measured])["predicted_bins"]
        entries = [found[bin_name] for bin_name in BIN_NAMES]
        rows.append(
            (name, *(f"{number(entry['rmse'])}, n = {entry['n']:,}" if entry else NOTHING for entry in entries))
        )
    note = (
        "How wrong a prediction is that says so much: a model that reaches for the tail with rows that are not in it "
        "pays for it here, not above."
    )
    return Table("RMSE by predicted bin", ("Recipe", *map(bin_label, BIN_NAMES)), tuple(rows), note)


def retrieval_table(threshold: float, labels: Labels, found: Scores, predictions: Mapping[str, Array]) -> Table:
    """Return how well every recipe finds the rows at or above a threshold, precision always beside recall."""
    columns = ("average_precision", "enrichment", "precision", "recall")
    facts = find_binders(labels.pkd, next(iter(predictions.values())), labels.relation, [threshold])[f"{threshold:g}"]
    rows = tuple(
        (name, *(cell(figures[f"{threshold:g}.{column}"]) for column in columns)) for name, figures in found.items()
    )
    header = ("Recipe", "Average precision", "Enrichment in the top 1 %", "Precision there", "Recall there")
    if not facts["n_binders"]:
        return Table(f"Finding binders of pKd ≥ {threshold:g}", header, rows, "There are none among the test rows.")
    note = (
        f"{facts['n_binders']:,} of {facts['n']:,} rows are binders, a prevalence of "
        f"{100 * facts['prevalence']:.3g} %: the average precision of a random order. "
        f"{facts['n_unknown']:,} marked rows may be either and are left out. The top 1 % are {facts['n_top']:,} rows; "
        f"no order has more enrichment there than {facts['most_enrichment']:.3g}."
    )
    return Table(f"Finding binders of pKd ≥ {threshold:g}", header, rows, note)


def held_table(
    found: Scores, name: str, baselines: Sequence[str], metrics: Sequence[str], names: Mapping[str, str] | None = None
) -> Table:
    """Return a recipe held against the best baseline in each metric.

    Parameters
    ----------
    names : metric → how to call it, where `label` does not know
    """
    rows = []
    for metric in metrics:
        entry = held(found, name, baselines, metric)
        if entry is None:
            continue
        bound = NOTHING if entry.bound is None else f"{entry.bound:+.1f} %".replace("-", "−")
        rows.append(
            (
                (names or {}).get(metric) or label(metric),
                entry.baseline,
                number(entry.other.value),
                number(entry.own.value),
                cell(entry.difference),
                bound,
                entry.verdict,
            )
        )
    header = ("Metric", "Best baseline", "Baseline", name, "Difference (95 %)", "At most worse by", "Verdict")
    note = (
        "The best baseline is chosen in each metric for itself, on these rows. Paired intervals. No worse: with the "
        f"whole interval, by {TOLERANCE:g} % of the baseline's value at most."
    )
    return Table(f"{name} against the best baseline", header, tuple(rows), note)


def splits_table(keys: Sequence[str], found: Sequence[Scores], metrics: Sequence[str], name_of_key: str) -> Table:
    """Return each split's own figures, without intervals."""
    header = ("Recipe", *(f"{label(metric)}, {key}" for metric in metrics for key in keys))
    rows = tuple(
        (name, *(number(_or_none(scores[name][metric].value)) for metric in metrics for scores in found))
        for name in found[0]
    )
    return Table(f"By {name_of_key}", header, rows)


def seconds_table(learning: Mapping[str, Sequence[float]], predicting: Mapping[str, Sequence[float]]) -> Table:
    """Return the median seconds of every recipe."""
    rows = tuple(
        (name, f"{np.median(seconds):,.1f}", f"{np.median(predicting[name]):,.1f}")
        for name, seconds in learning.items()
    )
    return Table("Seconds", ("Recipe", "Training", "Predicting"), rows, "Median; features from sequences included.")


def relative_note(pkd: Array) -> str:
    """Return what the rows without the relative sources are."""
    return f"{len(pkd):,} measured rows: without {' and '.join(RELATIVE)}, whose scale is relative."


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
