"""The picture of a ladder: how a recipe and trivial predictors fare on one split after the other.

Arrays in, a figure out; nothing is read or written. How it looks is in `tailbind.reporting.drawing`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from textwrap import fill
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from tailbind.evaluation.criteria import metric_label
from tailbind.reporting import drawing
from tailbind.reporting.drawing import BULK, DASHED, MUTED, SMALL, SOFT, STYLE, Array

#: Of trivial predictors: they stay apart by marker and dashes, all in grey.
BASELINE_LOOKS: Final[tuple[tuple[str, Any], ...]] = (
    ("o", "-"), ("s", DASHED), ("^", (0, (1.5, 1.5))), ("D", (0, (6, 2, 1.5, 2))), ("v", (0, (3, 1.5))), ("P", "-"),
)  # fmt: skip
#: An error larger than so many times the recipe's largest is drawn at the edge.
LARGEST_ERROR: Final = 2.5
#: Metrics that are better when smaller, and start at 0; those better when larger, and end at 1.
ERRORS: Final = ("rmse", "mae")
CORRELATIONS: Final = ("spearman", "pearson", "r2")
PANEL_INCHES: Final = 2.7
#: Labels of predictors are so far apart at least, as a share of a panel's height.
LABEL_STEP: Final = 0.085
#: Letters in a line of the caption.
CAPTION_WIDTH: Final = 120


@dataclass(frozen=True)
class Scores:
    """One metric of every predictor on every rung, with its interval.

    Parameters
    ----------
    values, low, high : (n_predictors, n_rungs); nan where a predictor has no value, or no interval

    Examples
    --------
    >>> scores = Scores([[0.9, 0.4]], low=[[0.8, 0.3]], high=[[1.0, 0.5]])
    >>> [array.shape for array in scores.arrays().values()]
    [(1, 2), (1, 2), (1, 2)]
    """

    values: ArrayLike
    low: ArrayLike
    high: ArrayLike

    def arrays(self) -> dict[str, Array]:
        """Return all three by name, as float64."""
        return {field.name: np.asarray(getattr(self, field.name), dtype=np.float64) for field in fields(self)}


def ladder_chart(
    rungs: Sequence[str], predictors: Sequence[str], scores: Mapping[str, Scores], caption: str = ""
) -> Figure:
    """Return a panel per metric, one above the other, with every predictor's value on every rung.

    The first predictor is the recipe: bold, its values written beside it. The others are muted and named at the
    right. An error far beyond the recipe's is drawn at the upper edge, and its value is in the name.

    Parameters
    ----------
    rungs : splits, from left to right
    predictors : the recipe, then trivial predictors
    scores : metric ("rmse", "spearman", …) → its values, in the order of the panels
    caption : sentences under the picture, such as what each split keeps apart

    Raises
    ------
    ValueError
        When an array is not of shape (n_predictors, n_rungs), or a metric is not one of those that have a scale.

    Examples
    --------
    >>> scores = Scores([[0.9, 0.4], [0.5, 0.1]], low=[[0.8, 0.3], [0.4, 0.0]], high=[[1.0, 0.5], [0.6, 0.2]])
    >>> figure = ladder_chart(["random", "both cold"], ["v2", "antigen mean"], {"spearman": scores})
    >>> figure.axes[0].get_title(loc="left")
    'Spearman (higher is better)'
    """
    shape = len(predictors), len(rungs)
    for metric, of_metric in scores.items():
        if metric.rpartition(".")[2] not in (*ERRORS, *CORRELATIONS):
            raise ValueError(f"a ladder's metric must be one of {', '.join((*ERRORS, *CORRELATIONS))}; got {metric!r}")
        for name, array in of_metric.arrays().items():
            if array.shape != shape:
                raise ValueError(f"{metric}: {name} must be (n_predictors, n_rungs), {shape}; got {array.shape}")
    with matplotlib.rc_context(STYLE):
        figure = drawing.new_figure(0.9 + PANEL_INCHES * max(len(scores), 1), "")
        grid = figure.add_gridspec(max(len(scores), 1), 1)
        if not scores or 0 in shape:
            drawing.add_axes(figure, grid[0])
            return drawing.nothing_to_show(figure, "Nothing to compare")
        missing: list[str] = []
        for place, (metric, of_metric) in enumerate(scores.items()):
            ax = drawing.add_axes(figure, grid[place])
            ax.set_xlim(-0.5, len(rungs) - 0.5)
            missing += _panel(ax, metric, predictors, of_metric)
            ax.set_xticks(range(len(rungs)), [_wrapped(rung, len(rungs)) for rung in rungs])
            ax.tick_params(axis="x", length=0)
            for label in ax.get_xticklabels():
                label.set_parse_math(False)
        bars = any(np.isfinite(of_metric.arrays()["low"]).any() for of_metric in scores.values())
        lines = [fill(" ".join(filter(None, [caption, "Bars: 95 % intervals." if bars else ""])), CAPTION_WIDTH)]
        if missing:
            lines.append("Without a value: " + "; ".join(missing) + ".")
        figure.supxlabel("\n".join(filter(None, lines)), x=0.012, ha="left", fontsize=SMALL, color=SOFT).set_parse_math(
            False
        )
        return figure


def _panel(ax: Axes, metric: str, predictors: Sequence[str], scores: Scores) -> list[str]:
    """Draw one metric; return the predictors that have no value in it, in words."""
    values, low, high = scores.arrays().values()
    is_error = metric.rpartition(".")[2] in ERRORS
    title = f"{metric_label(metric)} {'in pKd units (lower is better)' if is_error else '(higher is better)'}"
    ax.set_title(title, loc="left", fontsize=10, pad=10).set_parse_math(False)
    bottom, top = _limits(values, low, high, is_error)
    ax.set_ylim(bottom, top)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    drawing.rules(ax)
    if bottom < 0 < top:
        ax.axhline(0, color=SOFT, linewidth=0.8, zorder=1, label="_zero")

    x = np.arange(values.shape[1], dtype=np.float64)
    spread = np.linspace(-0.14, 0.14, len(predictors) - 1) if len(predictors) > 2 else np.array([0.1])
    ends: list[tuple[float, str, dict[str, Any]]] = []
    missing = []
    for number, name in enumerate(predictors):
        if not np.isfinite(values[number]).any():
            missing.append(f"{_shortened(name)} ({metric_label(metric)})")
            continue
        if number:
            marker, dashes = BASELINE_LOOKS[(number - 1) % len(BASELINE_LOOKS)]
            look: dict[str, Any] = {"color": MUTED, "linewidth": 1.3, "marker": marker, "linestyle": dashes}
            look |= {"markersize": 7, "zorder": 2}
        else:
            look = {"color": BULK, "linewidth": 2.6, "marker": "o", "markersize": 8, "zorder": 4}
        at = x + (spread[number - 1] if number else 0.0)
        shown = np.clip(values[number], bottom, top)
        ax.plot(at, shown, mec="white", mew=0.8, clip_on=False, label="_" + name, **look)
        known = np.isfinite(low[number]) & np.isfinite(high[number]) & (low[number] <= top) & (high[number] >= bottom)
        bars = np.clip([low[number][known], high[number][known]], bottom, top)
        ax.vlines(at[known], *bars, color=look["color"], linewidth=1.2 if number else 2.2, zorder=look["zorder"] - 0.1)
        words, largest = _shortened(name), float(np.nanmax(values[number]))
        if is_error and largest > top:
            words += f" (up to {largest:.3g})"
        ends.append((float(shown[np.isfinite(shown)][-1]), words, look))
    _write_values(ax, values[0], below=is_error)
    _name_lines(ax, ends)
    return missing


def _limits(values: Array, low: Array, high: Array, is_error: bool) -> tuple[float, float]:
    """Return the ends of an axis that starts at 0 and shows the recipe whole."""
    known = [part[np.isfinite(part)] for part in (values, low, high)]
    largest = max((float(part.max()) for part in known if len(part)), default=1.0)
    if not is_error:
        smallest = min((float(part.min()) for part in known if len(part)), default=0.0)
        return (max(smallest - 0.05, -1.0) if smallest < 0 else 0.0), 1.04
    recipe = np.concatenate([part[0][np.isfinite(part[0])] for part in (values, high)])
    if len(recipe) and recipe.max() > 0:
        largest = min(largest, LARGEST_ERROR * float(recipe.max()))
    return 0.0, max(largest, 0.1) * 1.12


def _write_values(ax: Axes, values: Array, below: bool) -> None:
    """Write the recipe's values where its line, which falls off to the right, leaves room."""
    bottom, top = ax.get_ylim()
    for place, value in enumerate(values):
        if np.isfinite(value):
            height = float(np.clip(value, bottom, top))
            beneath = below and height - bottom > 0.12 * (top - bottom)
            text = ax.annotate(
                drawing.number(float(value)), (place, height), (7, -10 if beneath else 9),
                textcoords="offset points", ha="left", va="center", fontsize=9.5, fontweight="bold", color=BULK,
                zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            )  # fmt: skip
            text.set_in_layout(False)


def _name_lines(ax: Axes, ends: Sequence[tuple[float, str, dict[str, Any]]]) -> None:
    """Name every line at the right of the axes, at the height of its end, or as near as the other names let it."""
    bottom, top = ax.get_ylim()
    order = sorted(range(len(ends)), key=lambda number: ends[number][0])
    heights = _apart([(ends[number][0] - bottom) / (top - bottom) for number in order])
    for number, height in zip(order, heights, strict=True):
        _, words, look = ends[number]
        # A piece of the line as it is drawn says more than a colour that all baselines share.
        ax.plot(
            [1.005, 1.025, 1.045], [height] * 3, transform=ax.transAxes, clip_on=False, markevery=[1], mec="white",
            mew=0.8, label="_key", scalex=False, scaley=False, **look,
        )  # fmt: skip
        is_recipe = look["color"] == BULK
        text = ax.annotate(
            words, (1.045, height), (4, 0), xycoords="axes fraction", textcoords="offset points", ha="left",
            va="center", fontsize=9.5 if is_recipe else SMALL, fontweight="bold" if is_recipe else "normal",
            color=BULK if is_recipe else SOFT,
        )  # fmt: skip
        text.set_parse_math(False)


def _apart(heights: Sequence[float]) -> list[float]:
    """Return ascending heights between 0 and 1, moved as little as it takes to be a `LABEL_STEP` apart.

    >>> [round(height, 3) for height in _apart([0.5, 0.5, 0.9])]
    [0.458, 0.542, 0.9]
    """
    step = min(LABEL_STEP, 1 / max(len(heights) - 1, 1))

    def middle(group: Sequence[float]) -> float:
        reach = step * (len(group) - 1) / 2
        return float(np.clip(np.mean(group), reach, 1 - reach))

    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1:
            below, above = groups[-2:]
            if middle(above) - middle(below) >= step * (len(below) + len(above)) / 2:
                break
            groups[-2:] = [below + above]
    return [middle(group) + step * (number - (len(group) - 1) / 2) for group in groups for number in range(len(group))]


def _wrapped(rung: str, n_rungs: int) -> str:
    """Return a rung's name on lines that fit its share of the width."""
    width = max(8, 84 // n_rungs)
    lines = [""]
    for word in rung.split():
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    return "\n".join(lines)


def _shortened(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:12]}…{name[-12:]}"
