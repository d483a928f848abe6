"""The pictures of the accuracy benchmark: a panel per metric, a line per recipe, a point with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import matplotlib
import numpy as np
from benchmarks.accuracy_figures import Figure, is_error
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from matplotlib.ticker import MaxNLocator

from tailbind.reporting import drawing
from tailbind.reporting.drawing import BULK, INK, LINE, MUTED, SMALL, SOFT, STYLE
from tailbind.reporting.tables import number

#: Height of a recipe's line, and of what a row of panels has above and below its lines.
LINE_INCHES: Final = 0.21
AROUND_INCHES: Final = 0.62
#: A value beyond so many times the middle one is drawn at the edge: it would leave no room for the others.
FAR: Final = 2.2


@dataclass(frozen=True)
class Panel:
    """One metric of every recipe.

    Attributes
    ----------
    title : what it is
    metric : its flat name, which says which way is better
    figures : in the order of the recipes
    """

    title: str
    metric: str
    figures: Sequence[Figure]


def forest(
    title: str, note: str, names: Sequence[str], baselines: Sequence[str], rows: Sequence[Sequence[Panel]]
) -> Page:
    """Return rows of panels; recipes that are no baseline stand out.

    Parameters
    ----------
    names : recipes, from top to bottom
    baselines : which of them are muted
    rows : rows of panels
    """
    with matplotlib.rc_context(STYLE):
        height = len(rows) * (LINE_INCHES * len(names) + AROUND_INCHES) + 0.75
        page = drawing.new_figure(height, title)
        grid = page.add_gridspec(len(rows), 1)
        for place, panels in zip(grid, rows, strict=True):
            inner = place.subgridspec(1, len(panels))
            for position, panel in enumerate(panels):
                ax = drawing.add_axes(page, inner[position])
                _draw(ax, panel, [name in baselines for name in names])
                _name_lines(ax, names if position == 0 else [], len(names), baselines)
        page.supxlabel(note, x=0.012, ha="left", fontsize=SMALL, color=SOFT)
        return page


def _draw(ax: Axes, panel: Panel, muted: Sequence[bool]) -> None:
    """Draw one point and interval a recipe, and its value at the right."""
    values = np.array([figure.value for figure in panel.figures])
    shown = values[np.isfinite(values)]
    top = _top(panel, shown)
    ax.set_title(panel.title, loc="left", fontsize=9.5)
    finite = [value for value, is_muted in zip(values, muted, strict=True) if is_muted and np.isfinite(value)]
    if finite:
        of_best = min(finite) if is_error(panel.metric) else max(finite)
        ax.axvline(of_best, color=LINE, linewidth=1.0, zorder=0.5)
    for line, (figure, is_muted) in enumerate(zip(panel.figures, muted, strict=True)):
        colour = MUTED if is_muted else BULK
        if not np.isfinite(figure.value):
            ax.text(1.07, line, "–", transform=ax.get_yaxis_transform(), va="center", fontsize=8.5, color=SOFT)
            continue
        if figure.interval is not None:
            ends = np.minimum(figure.interval, top)
            ax.plot(ends, [line] * 2, color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
        beyond = figure.value > top
        ax.plot(
            min(figure.value, top), line, ">" if beyond else "o" if is_muted else "D", color=colour,
            markersize=5.6 if is_muted else 6.0, mec="white", mew=0.6, zorder=3, clip_on=False,
        )  # fmt: skip
        ax.text(
            1.07, line, number(figure.value), transform=ax.get_yaxis_transform(), va="center", fontsize=8.5,
            color=SOFT if is_muted else INK, fontweight="normal" if is_muted else "bold",
        )  # fmt: skip
    ax.set_xlim(_low(panel, shown), top)
    ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    ax.grid(axis="x", color=LINE, linewidth=0.5, alpha=0.6)
    ax.spines["left"].set_visible(False)


def _top(panel: Panel, shown: np.ndarray) -> float:
    """Return where the axis ends."""
    if not len(shown):
        return 1.0
    ends = [figure.interval[1] for figure in panel.figures if figure.interval is not None]
    highest = float(max([shown.max(), *ends]))
    if not is_error(panel.metric):
        return 1.0 if highest <= 1 else highest * 1.05
    return min(highest, FAR * float(np.median(shown))) * 1.06


def _low(panel: Panel, shown: np.ndarray) -> float:
    """Return where the axis begins: at 0, lower where a value is, higher for correlations that are all high."""
    starts = [figure.interval[0] for figure in panel.figures if figure.interval is not None]
    lowest = float(min([shown.min(initial=np.inf), *starts], default=0.0))
    if is_error(panel.metric) or lowest < 0.5:
        return min(0.0, lowest) - 0.04
    return float(np.floor(10 * min(lowest, 1.0)) / 10) - 0.02


def _name_lines(ax: Axes, names: Sequence[str], n: int, baselines: Sequence[str]) -> None:
    ax.set_ylim(n - 0.4, -0.6)
    ax.set_yticks(range(n) if names else [], names)
    ax.tick_params(axis="y", length=0)
    for tick, name in zip(ax.get_yticklabels(), names, strict=False):
        tick.set_parse_math(False)
        if name not in baselines:
            tick.set_fontweight("bold")
