"""The picture of a comparison: the errors of runs by bin, and how they order rows. Figures in, a figure out."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tailbind.evaluation.comparison import (
    CONCORDANCE,
    MEASURED_BIN,
    MEASURED_RMSE,
    MEASURED_SPEARMAN,
    Comparison,
    Difference,
)
from tailbind.evaluation.criteria import CRITERIA, MEASURED_ROWS, metric_label
from tailbind.reporting import drawing
from tailbind.reporting.drawing import SMALL, SOFT, STYLE, Array
from tailbind.scale import BIN_NAMES


def comparison_chart(comparison: Comparison) -> Figure:
    """Return the RMSE of every run, overall and per bin, and beside it the correlations, with their intervals.

    Bars are 95 % bootstrap intervals; a bin of one row has none, a bin without rows stays empty. Short lines in
    the last bin are the success criteria for its RMSE.

    Parameters
    ----------
    comparison : of two to six runs, as `compare_predictions` gives it; the first is the reference

    Examples
    --------
    >>> from tailbind.evaluation.comparison import compare_predictions
    >>> y_true = np.array([4.0, 6.0, 8.0, 10.0, 12.0])
    >>> figure = comparison_chart(compare_predictions(y_true, {"v1": y_true * 0.5, "v2": y_true + 0.1}, 100))
    >>> [label.get_text() for label in figure.axes[1].get_xticklabels()]
    ['Spearman', 'Pearson', 'R²']
    """
    with matplotlib.rc_context(STYLE):
        figure = drawing.new_figure(4.9, "")
        grid = figure.add_gridspec(1, 2, width_ratios=[2.6, 1])
        errors, correlations = drawing.add_axes(figure, grid[0]), drawing.add_axes(figure, grid[1])
        by_metric = [{entry.metric: entry for entry in run} for run in comparison.differences]

        places = np.array([-0.25, 1, 2, 3, 4, 5])
        metrics, shown, marked = _compared_metrics(comparison)
        n_by_metric = comparison.n_by_metric
        ticks = [f"Overall\nall bins\nn = {n_by_metric[metrics[0]]:,}"]
        ticks += [drawing.bin_tick(name, n_by_metric[key]) for name, key in zip(BIN_NAMES, metrics[1:], strict=True)]
        drawing.stripes(errors, np.arange(0.5, 6))
        handles = _intervals(errors, places, metrics, by_metric)
        errors.set_xticks(places, ticks)
        errors.set_xlim(-0.75, 5.5)
        errors.set_title("RMSE in pKd units (lower is better)", loc="left", fontsize=10)
        top = max(*_extent(metrics, by_metric), 0.1)
        note = "Bars: 95 % bootstrap intervals."
        if n_by_metric[metrics[-1]]:
            note += " Dotted: the success criteria for very strong binders."
            top = max(top, CRITERIA["minimum"]["very_strong.rmse"])
            for level, thresholds in CRITERIA.items():
                threshold = thresholds["very_strong.rmse"]
                errors.plot([4.5, 5.5], [threshold] * 2, color=SOFT, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
                if top < 12:
                    errors.annotate(
                        level, (5.5, threshold), (4, 0), textcoords="offset points",
                        ha="left", va="center", fontsize=8, color=SOFT,
                    )  # fmt: skip
        note += marked
        errors.set_ylim(0, top * 1.06)

        _intervals(correlations, np.arange(len(shown), dtype=float), list(shown), by_metric, lowest=-1)
        correlations.set_xlim(-0.5, len(shown) - 0.5)
        correlations.set_xticks(range(len(shown)), list(shown.values()))
        lowest, _ = _extent(list(shown), by_metric)
        correlations.set_title("Correlation and R²" if "r2" in shown else "Order", loc="left", fontsize=10)
        if lowest < -1:
            correlations.text(
                0.04, 0.03, "below −1 not shown", transform=correlations.transAxes, fontsize=8, color=SOFT
            )
        correlations.set_ylim(max(lowest - 0.05, -1) if lowest < 0 else 0, 1)
        for ax in (errors, correlations):
            drawing.rules(ax)
            ax.tick_params(axis="x", length=0)
        names = [name if len(name) <= 60 else "…" + name[-59:] for name in comparison.names]
        for handle, name in zip(handles, names, strict=True):
            handle.set_label(name)
        columns = max(1, min(len(names), 92 // (max(map(len, names)) + 6)))
        drawing.add_legend(figure, handles, loc="outside upper left", ncols=columns)
        figure.supxlabel(note, x=0.01, ha="left", fontsize=SMALL, color=SOFT)
        return figure


def _compared_metrics(comparison: Comparison) -> tuple[list[str], dict[str, str], str]:
    """Return the RMSEs that a comparison shows, overall and by bin, what it shows beside them, and a note on both."""
    if comparison.rows == MEASURED_ROWS:
        bins = [
            MEASURED_BIN.format(name) if name in comparison.measured_counts else f"{name}.rmse" for name in BIN_NAMES
        ]
        note = " Of measured rows; concordance of all."
        return [MEASURED_RMSE, *bins], {MEASURED_SPEARMAN: "Spearman", CONCORDANCE: "Concordance"}, note
    shown = {metric: metric_label(metric) for metric in ("spearman", "pearson", "r2")}
    note = " Labels marked < or > count as measured." if comparison.n_marked else ""
    return ["rmse", *(f"{name}.rmse" for name in BIN_NAMES)], shown, note


def _extent(metrics: Sequence[str], runs: Sequence[Mapping[str, Difference]]) -> tuple[float, float]:
    """Return the lowest and highest value or end of an interval; 0 and 0 where there is none."""
    entries = [run[metric] for run in runs for metric in metrics]
    ends = [entry.value for entry in entries if entry.value is not None]
    ends += [end for entry in entries if entry.interval is not None for end in entry.interval]
    return min(ends, default=0.0), max(ends, default=0.0)


def _intervals(
    ax: Axes, places: Array, metrics: Sequence[str], runs: Sequence[Mapping[str, Difference]], lowest: float = -np.inf
) -> list[Line2D]:
    """Draw each run's value and interval in each metric, side by side around its place; return one line per run.

    What is below `lowest` is left out.
    """
    step = min(0.16, 0.72 / len(runs))
    handles = []
    looks = zip(runs, cycle(drawing.RUN_COLOURS), cycle(drawing.RUN_MARKERS), strict=False)
    for position, (run, colour, (marker, size)) in enumerate(looks):
        x = places + step * (position - (len(runs) - 1) / 2)
        entries = [run[metric] for metric in metrics]
        values = [np.nan if entry.value is None or entry.value < lowest else entry.value for entry in entries]
        for place, entry in zip(x, entries, strict=True):
            if entry.interval is not None and entry.interval[0] >= lowest:
                ax.plot([place] * 2, entry.interval, color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
        (line,) = ax.plot(
            x, values, marker, color=colour, markersize=size, mec="white", mew=0.6, zorder=3, clip_on=False
        )
        handles.append(line)
    return handles
