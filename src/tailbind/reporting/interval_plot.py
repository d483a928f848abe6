"""Whether intervals and probabilities keep their promise, drawn."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from tailbind.reporting import drawing
from tailbind.reporting.drawing import BULK, DASHED, INK, LINE, MUTED, SMALL, SOFT, STRONG, STYLE, WEAK
from tailbind.reporting.intervals import TAIL_LABELS
from tailbind.scale import bin_label

#: How each tail probability looks: colour, marker.
LOOKS: Final = {"p_below_5": (WEAK, "v"), "p_above_9": (BULK, "o"), "p_above_11": (STRONG, "^")}
#: Rows from which a step of a probability, or a kind of rows, is drawn in full ink.
MANY: Final = 20
#: Sources that are drawn at most, those with the most rows.
MOST_SOURCES: Final = 14


def intervals_and_probabilities(calibration: Mapping[str, Any], title: str = "") -> Figure:
    """Return what share of labels intervals hold, by kinds of rows, and how tail probabilities come true.

    Parameters
    ----------
    calibration : as in `metrics.json`
    title : above the figure
    """
    kinds = _kinds(calibration["coverage"])
    with matplotlib.rc_context(STYLE):
        figure = drawing.new_figure(max(4.4, 1.4 + 0.27 * len(kinds)), title)
        grid = figure.add_gridspec(1, 2, width_ratios=[1.25, 1])
        held, reliable = drawing.add_axes(figure, grid[0, 0]), drawing.add_axes(figure, grid[0, 1])
        _draw_coverage(held, kinds, float(calibration["level"]))
        _draw_reliability(reliable, calibration["probabilities"])
    return figure


def _kinds(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the kinds of rows with any, and their figures."""
    kinds = [("All measured", found["measured"]), ("Marked < or >", found["censored"])]
    kinds += [(bin_label(name), entry) for name, entry in found["bins"].items()]
    kinds += list(found.get("domains", {}).items())
    sources = [(name, entry) for name, entry in found.get("sources", {}).items() if entry]
    kinds += sorted(sources, key=lambda one: -one[1]["n"])[:MOST_SOURCES]
    return [(name, entry) for name, entry in kinds if entry]


def _draw_coverage(ax: Axes, kinds: Sequence[tuple[str, Mapping[str, Any]]], level: float) -> None:
    lowest = min([level, *(entry["coverage"] for _, entry in kinds if entry["n"] >= MANY)])
    left = max(0.0, min(level - 0.1, lowest - 0.05))
    ax.axvline(level, color=INK, linewidth=1, linestyle=DASHED, zorder=1)
    for place, (_, entry) in enumerate(kinds):
        value, few = entry["coverage"], entry["n"] < MANY
        error = 1.96 * (max(value * (1 - value), 0.25 / entry["n"]) / entry["n"]) ** 0.5
        colour = MUTED if few else BULK
        ax.plot(
            [max(value - error, left), min(value + error, 1)], [place, place], color=colour, linewidth=1.6, zorder=2
        )
        ax.plot(max(value, left), place, "<" if value < left else "o", color=colour, markersize=5.5, zorder=3)
    ax.set(ylim=(len(kinds) - 0.4, -0.6), xlim=(left - 0.005, 1.005), xlabel=f"Share held; promised {level:.0%}")
    ax.set_yticks(range(len(kinds)), [f"{name}  ({entry['n']:,})" for name, entry in kinds], fontsize=SMALL)
    ax.xaxis.set_major_locator(MultipleLocator(0.05 if left > 0.5 else 0.1))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.grid(axis="x", color=LINE, linewidth=0.6)
    ax.set_axisbelow(True)
    drawing.small_title(ax, "Intervals, by kinds of rows (n)")


def _draw_reliability(ax: Axes, probabilities: Mapping[str, Any]) -> None:
    ax.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=DASHED, zorder=1)
    for name, (colour, marker) in LOOKS.items():
        entry = probabilities[name]
        steps = [step for step in entry["steps"] if step["n"] >= MANY]
        if not steps:
            continue
        x, y = [step["probability"] for step in steps], [step["share"] for step in steps]
        label = f"{TAIL_LABELS[name]}: error {entry['ece']:.3f}"
        ax.plot(x, y, color=colour, marker=marker, markersize=6, linewidth=1.4, label=label, zorder=2)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="Probability given", ylabel="Share that came true")
    ax.set_aspect("equal", adjustable="box")
    ax.grid(color=LINE, linewidth=0.6)
    ax.set_axisbelow(True)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best", fontsize=SMALL, frameon=False, labelcolor=SOFT)
    drawing.small_title(ax, f"Tail probabilities (steps of {MANY} rows or more)")
