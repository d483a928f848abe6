"""A comparison of runs as a table of text, and as records for other programs."""

from collections.abc import Mapping
from typing import Any, Final

from tailbind.evaluation.comparison import (
    COMPARED,
    CONCORDANCE,
    CONCORDANCE_ROWS,
    MEASURED_BIN,
    MEASURED_RMSE,
    MEASURED_SPEARMAN,
    ONE_SIDED_RMSE,
    Comparison,
    Difference,
)
from tailbind.evaluation.criteria import MEASURED_ROWS, metric_label
from tailbind.reporting.tables import NOTHING, Table, drawn, interval_text, number
from tailbind.scale import BIN_NAMES

_LABELS_MARKED: Final[Mapping[str, str]] = {
    MEASURED_RMSE: "RMSE, measured rows",
    MEASURED_SPEARMAN: "Spearman, measured rows",
    ONE_SIDED_RMSE: "One-sided RMSE, marked rows",
    CONCORDANCE: "Concordance",
}


def comparison_table(comparison: Comparison) -> Table:
    """Return the notebook's comparison: each metric, each run, and the change from the first run in percent."""
    first, *others = comparison.names
    header: list[str] = ["Metric", first]
    for name in others:
        header += [name, "Change", "Difference, 95 % interval", "Verdict"]
    rows = []
    for position, entry in enumerate(comparison.differences[0]):
        cells = [_compared_label(entry.metric, comparison), number(entry.value)]
        for of_run in comparison.differences[1:]:
            other = of_run[position]
            change = NOTHING if other.change_percent is None else f"{other.change_percent:+.1f} %".replace("-", "−")
            interval = NOTHING if other.difference_interval is None else interval_text(other.difference_interval)
            cells += [number(other.value), change, interval, verdict(other)]
        rows.append(tuple(cells))
    note = (
        f"n = {comparison.n:,} test rows. Change and difference are from {first}; intervals by paired bootstrap "
        f"{drawn(vars(comparison))}; a verdict in brackets is not clear: the interval includes 0, or the rows are too "
        "few for one."
    )
    if comparison.n_marked:
        note += " " + _marked_note(comparison)
    return Table("Comparison: " + " vs ".join(comparison.names), tuple(header), tuple(rows), note)


def verdict(difference: Difference) -> str:
    """Return better or worse, in brackets where the interval of the difference includes 0."""
    if difference.better is None:
        return NOTHING if difference.value is None else "same"
    word = "better" if difference.better else "worse"
    return word if difference.clear else f"({word})"


def _marked_note(comparison: Comparison) -> str:
    """Return what a comparison does with labels marked < or >."""
    resamples = (
        f"its interval is from {comparison.concordance_resamples:,} resamples"
        if comparison.concordance_resamples
        else f"it has no interval where the rows are more than {CONCORDANCE_ROWS:,} or too few"
    )
    return (
        f"As stated, floors count as measured: {comparison.n_marked:,} of the {comparison.n:,} rows are marked < or >. "
        f"The last {len(comparison.differences[0]) - len(COMPARED)} metrics leave these out or take them as bounds"
        f"{', and decide, as not every run fitted them as measured' if comparison.rows == MEASURED_ROWS else ''}. "
        "One-sided: a prediction on the stated side of a bound is no error. Concordance: share of the pairs of known "
        f"order that are predicted in that order; {resamples}."
    )


def _compared_label(metric: str, comparison: Comparison) -> str:
    """Return a metric's name in a comparison, with its rows where they are not all."""
    n = comparison.n_by_metric[metric]
    label = _LABELS_MARKED.get(metric) or metric_label(metric)
    if metric in (MEASURED_BIN.format(name) for name in BIN_NAMES):
        label = f"{metric_label(metric.removeprefix('measured.'))}, measured rows"
    return f"{label} (n = {n:,})" if "." in metric and metric != CONCORDANCE else label


def numbers_table(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the comparison as records, one per run and metric, for CSV and JSON."""
    return [
        {
            "run": name,
            "metric": entry.metric,
            "n": comparison.n_by_metric[entry.metric],
            "value": entry.value,
            "low": entry.interval[0] if entry.interval else None,
            "high": entry.interval[1] if entry.interval else None,
            "change_percent": entry.change_percent,
            "difference": entry.difference,
            "difference_low": entry.difference_interval[0] if entry.difference_interval else None,
            "difference_high": entry.difference_interval[1] if entry.difference_interval else None,
            "verdict": None if position == 0 else verdict(entry),
        }
        for position, (name, of_run) in enumerate(zip(comparison.names, comparison.differences, strict=True))
        for entry in of_run
    ]
