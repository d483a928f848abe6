"""The histogram of one source's labels: its window, its bars, the rows at a floor, a ceiling or a placeholder.

`tailbind.reporting.audit_plots` places one beside the other.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from tailbind.reporting import drawing
from tailbind.reporting.drawing import DASHED, LINE, MUTED, SOFT, STRONG, Array
from tailbind.scale import BIN_EDGES

#: A floor, a ceiling or a placeholder of a source: its value, how many rows have it, which of the three it is.
Mark = tuple[float, int, str]

#: Histograms share a window of this range, or less where the labels need less. Bin edges are always in it.
WIDEST_WINDOW: Final = (0.0, 14.0)
NARROWEST_WINDOW: Final = (4.0, 12.0)
#: Bars of a histogram are this wide, in pKd, up to so many rows.
BAR_WIDTHS: Final = ((0.5, 100), (0.2, 2000), (0.1, np.inf))
#: Marks that are labelled in one histogram, and how much of its height a label takes.
MOST_LABELS: Final = 4
LABEL_HEIGHT: Final = 0.13
#: The mean width of a letter in it.
LETTER_INCHES: Final = 0.062


def shared_window(labels: Sequence[Array]) -> tuple[float, float]:
    """Return limits at whole pKd, and a little beyond, that hold all labels between `WIDEST_WINDOW`'s.

    >>> shared_window([np.array([2.7, 8.0]), np.array([-40.0, 12.5])])
    (1.75, 13.25)
    """
    inside = [of_source[(of_source >= WIDEST_WINDOW[0]) & (of_source <= WIDEST_WINDOW[1])] for of_source in labels]
    ends = [float(end) for of_source in inside if len(of_source) for end in (of_source.min(), of_source.max())]
    low, high = min([*ends, NARROWEST_WINDOW[0]]), max([*ends, NARROWEST_WINDOW[1]])
    beyond = BAR_WIDTHS[0][0] / 2
    return float(np.floor(low) - beyond), float(np.ceil(high) + beyond)


def own_window(labels: Array, marks: Sequence[Mark]) -> tuple[float, float]:
    """Return limits that hold nearly all labels of a source, its placeholders aside.

    >>> own_window(np.array([-2.0, 0.0, 99.0]), [(99.0, 1, "placeholder")])
    (-2.11, 0.11)
    """
    placeholders = [value for value, _, kind in marks if kind == "placeholder"]
    real = labels[~np.isclose(labels[:, None], placeholders).any(axis=1)] if placeholders else labels
    real = real if len(real) else labels
    if not len(real):
        return NARROWEST_WINDOW
    low, high = np.percentile(real, [0.5, 99.5])
    pad = max(0.06 * (high - low), 0.02 * max(abs(low), abs(high)), 0.1)
    return round(float(low - pad), 2), round(float(high + pad), 2)


def mostly_outside(labels: Array, window: tuple[float, float]) -> bool:
    """Return whether more than half of the labels lie outside.

    >>> mostly_outside(np.array([3.0, 99.0, 99.0]), (0.0, 14.0))
    True
    """
    return int(_outside(labels, window).sum()) > len(labels) / 2


def draw_histogram(
    ax: Axes, labels: Array, marks: Sequence[Mark], window: tuple[float, float], colour: str, own: bool
) -> None:
    """Draw one source's labels within the window, those at a mark as a bar of their own beside its line.

    Parameters
    ----------
    labels : (n_rows,)
    marks : floors, ceilings and placeholders, each of one row at least
    window : limits of the axis
    colour : of the bars
    own : whether the window is the source's own, not a range of whole pKd
    """
    low, high = window
    edges = _bars(window, len(labels), own)
    rest, _ = np.histogram(labels[~_outside(labels, window)], edges)
    spikes = [mark for mark in marks if low <= mark[0] <= high]
    for value, n, _ in spikes:
        bar = min(int(np.searchsorted(edges, value, side="right")), len(rest)) - 1
        rest[bar] -= min(n, rest[bar])
    lines = _words_at_marks(labels, marks, window)
    highest = max(rest.max() if rest.any() else max((n for _, n, _ in spikes), default=1), 1)
    top = 1.04 * float(highest) / (1 - LABEL_HEIGHT * len(lines))
    ax.set(xlim=(low, high), ylim=(0, top))
    for limit in BIN_EDGES:
        if low < limit < high:
            ax.axvline(limit, color=LINE, linewidth=0.7, zorder=0.6, label="_edge")
    ax.stairs(rest, edges, fill=True, color=colour, linewidth=0, zorder=2)
    for value, n, kind in spikes:
        _spike(ax, value, n, kind, 0.025 * (high - low))
    _write(ax, lines, window)
    _plain_axes(ax, own)
    if not len(labels):
        ax.text(0.5, 0.5, "No labels", transform=ax.transAxes, ha="center", va="center", color=SOFT)
        ax.set_yticks([])


def _outside(labels: Array, window: tuple[float, float]) -> NDArray[np.bool_]:
    return (labels < window[0]) | (labels > window[1])


def _bars(window: tuple[float, float], n: int, own: bool) -> Array:
    """Return edges of bars that cover the window; on the shared axis, round values lie amid a bar."""
    low, high = window
    if own:
        return np.linspace(low, high, int(np.clip(2 * n**0.5, 8, 60)) + 1)
    width = next(width for width, up_to in BAR_WIDTHS if n <= up_to)
    return np.asarray(width * (np.arange(np.floor(low / width), np.ceil(high / width) + 2) - 0.5), dtype=np.float64)


def _spike(ax: Axes, value: float, n: int, kind: str, width: float) -> None:
    """Draw the rows at a mark outside its line, where few others are; too many for the axes are cut by two strokes."""
    left = value - width * {"floor": 1.0, "ceiling": 0.0}.get(kind, 0.5)
    top = ax.get_ylim()[1]
    # Behind the other rows, to hide none of them, unless it would then be hidden itself.
    zorder = 1.8 if n > top else 2.5
    ax.bar(left, min(n, top), width, align="edge", color=MUTED, linewidth=0, zorder=zorder, label="_spike")
    ax.axvline(value, color=STRONG, linewidth=1.0, linestyle=DASHED, zorder=3, label="_mark")
    if n > top:
        for height in (0.60, 0.66):
            x, y = np.array([left - 0.3 * width, left + 1.3 * width]), top * np.array([height - 0.02, height + 0.02])
            ax.plot(x, y, color="white", linewidth=2, zorder=1.9, label="_cut", scalex=False, scaley=False)


def _words_at_marks(labels: Array, marks: Sequence[Mark], window: tuple[float, float]) -> list[tuple[float, str, str]]:
    """Return what to write, in order: the value it belongs to, the words, their colour.

    Rows outside the window are counted once: those at a mark are said there.
    """
    low, high = window
    words = [
        (value, f"{kind} {_plain(value)}: {drawing.count(n, 'row')}", STRONG)
        for value, n, kind in sorted(marks, key=lambda mark: -mark[1])
    ]
    if len(words) > MOST_LABELS:
        more = len(words) - MOST_LABELS + 1
        words = [*words[: MOST_LABELS - 1], (0.1 * low + 0.9 * high, f"and {more} more", STRONG)]
    below = int((labels < low).sum()) - sum(n for value, n, _ in marks if value < low)
    above = int((labels > high).sum()) - sum(n for value, n, _ in marks if value > high)
    if below > 0:
        words.append((-np.inf, f"{drawing.count(below, 'row')} below {_plain(low)}", SOFT))
    if above > 0:
        words.append((np.inf, f"{drawing.count(above, 'row')} above {_plain(high)}", SOFT))
    return words


def _write(ax: Axes, lines: Sequence[tuple[float, str, str]], window: tuple[float, float]) -> None:
    """Write each line beside its value, one below the other; those beyond the window at its edge, with an arrow."""
    low, high = window
    place = ax.get_subplotspec()
    n_columns = place.get_gridspec().ncols if place else 1
    letter = (high - low) * LETTER_INCHES / (drawing.WIDTH_INCHES / n_columns - 0.6)
    for number, (value, words, colour) in enumerate(lines):
        x, gap, align = value, 4, "left"
        length = letter * (len(words) + 1)
        if value < low:
            x, gap, words = low, 2, "← " + words
        elif value > high:
            x, gap, align, words = high, -2, "right", words + " →"
        elif value - low > 0.5 * (high - low):
            x, gap, align = (value, -4, "right") if value - length >= low else (low, 2, "left")
        elif value + length > high:
            x, gap, align = high, -2, "right"
        text = ax.annotate(
            words, (x, 0.98 - LABEL_HEIGHT * number), (gap, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha=align, va="top", fontsize=8, color=colour, zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
        )  # fmt: skip
        text.set_in_layout(False)


def _plain_axes(ax: Axes, own: bool) -> None:
    ax.tick_params(labelsize=8)
    ax.xaxis.set_major_locator(MaxNLocator(5 if own else 8, steps=[1, 2, 5, 10], integer=not own))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    ax.yaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
    ax.yaxis.set_major_formatter(drawing.THOUSANDS)


def _plain(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
