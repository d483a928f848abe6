"""What the pictures share: the palette, the page, and the parts that more than one figure is drawn from.

Figures are made for a page some 900 pixels wide. One palette serves them all: blue for the bulk, vermilion and
purple for very strong and very weak binders, grey for what is muted (training loss, censored rows, the reference
run). Marker shapes repeat what the colours say.
"""

import io
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, MultipleLocator, NullLocator
from numpy.typing import NDArray

from tailbind.scale import BIN_EDGES, BIN_NAMES, PKD_RANGE, bin_index, bin_label

Array = NDArray[np.float64]
Rows = NDArray[np.bool_]

#: Rows are drawn one by one up to here, and as densities beyond.
FEW_ROWS: Final = 2000
#: How far, in pKd, the frame reaches for predictions beyond every measured pKd.
MARGIN: Final = 2.0

WIDTH_INCHES: Final = 9.0
INK, SOFT, LINE, TINT = "#1c2733", "#5b6875", "#cfd6dd", "#f3f5f8"
BULK, STRONG, WEAK, MUTED = "#1f5f8b", "#cc4b0f", "#7a3f94", "#98a3ae"
DENSITY: Final = LinearSegmentedColormap.from_list("density", ["#c3dcee", "#6ea8d0", BULK, "#0b2338"])
MUTED_DENSITY: Final = LinearSegmentedColormap.from_list("muted", ["#e1e5e9", "#c0c7ce", "#98a3ae", "#75808b"])
#: Runs of a comparison, the reference first. After Okabe and Ito, darkened to carry thin lines on white.
RUN_COLOURS: Final = ("#7d8994", BULK, "#e08a00", "#0f8a68", "#b84a86", "#55aee0")
RUN_MARKERS: Final = (("o", 6.8), ("s", 6.2), ("D", 5.8), ("^", 7.6), ("v", 7.6), ("P", 8.4), ("X", 8.0))
#: How the rows of the two extreme bins look: bin → colour, marker.
EXTREMES: Final = {"very_weak": (WEAK, "v"), "very_strong": (STRONG, "^")}
DASHED: Final[Any] = (0, (5, 3))

SMALL: Final = 9.0
STYLE: Final[Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "text.usetex": False,
    "text.color": INK,
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.labelsize": 10.0,
    "axes.titlecolor": INK,
    "axes.edgecolor": SOFT,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "savefig.facecolor": "auto",
    "savefig.bbox": None,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}
THOUSANDS: Final = FuncFormatter(lambda value, _: f"{value:,.0f}")


def new_figure(height: float, title: str) -> Figure:
    """Return an empty figure, `height` inches high, under its title."""
    figure = Figure(figsize=(WIDTH_INCHES, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    if title:
        text = figure.suptitle(_wrapped(title), x=0.012, ha="left", fontsize=12, fontweight="bold")
        text.set_parse_math(False)
    return figure


def square_and_rail(title: str) -> tuple[Figure, Axes, Axes]:
    """Return a figure with square axes and, to the right, a blank column of the same height.

    Everything in it has a known size, so it is placed in inches: a constrained layout clips the labels of axes
    with a fixed aspect where height is what limits them.
    """
    side, left, bottom, gap = 6.0, 0.62, 0.62, 0.2
    above = 0.55 + (0.12 + 0.22 * len(_wrapped(title).splitlines()) if title else 0)
    height = bottom + side + above
    figure = new_figure(height, title)
    figure.set_layout_engine("none")
    ax = figure.add_axes((left / WIDTH_INCHES, bottom / height, side / WIDTH_INCHES, side / height))
    start = left + side + gap
    place = (start / WIDTH_INCHES, bottom / height, (WIDTH_INCHES - start - 0.15) / WIDTH_INCHES, side / height)
    rail = figure.add_axes(place)
    rail.set_axis_off()
    return figure, _dress(ax), rail


def add_axes(figure: Figure, place: SubplotSpec, **shared: Axes) -> Axes:
    """Return new axes at a place of the figure's grid."""
    return _dress(figure.add_subplot(place, **shared))


def nothing_to_show(figure: Figure, words: str) -> Figure:
    """Return the figure with `words` in the middle of its first axes."""
    ax = figure.axes[0]
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color=SOFT)
    return figure


def small_title(ax: Axes, words: str, loc: Any = "left") -> None:
    """Write a small line above the axes."""
    ax.set_title(words, loc=loc, fontsize=SMALL, color=SOFT)


def add_legend(on: Axes | Figure, handles: Sequence[Artist], **options: Any) -> Legend:
    """Return a legend in which labels are shown as they are, dollar signs included."""
    legend = on.legend(handles=handles, handlelength=1.6, **options)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return legend


def rules(ax: Axes) -> None:
    """Draw a horizontal line at every tick."""
    ax.grid(axis="y", color=LINE, linewidth=0.7)


def value_axis(ax: Axes, values: Array, least_ratio: float = 1.1) -> None:
    """Make the y axis logarithmic where all values are positive, with ticks that can be read at any range."""
    low, high = float(values.min()), float(values.max())
    if low <= 0:
        pad = 0.06 * (high - low) or 0.5
        ax.set_ylim(low - pad, high + pad)
    else:
        ratio = high / low
        pad = max(ratio**0.06, (least_ratio / ratio) ** 0.5)
        ax.set_yscale("log")
        ax.set_ylim(low / pad, high * pad)
        if ratio == 1:
            ax.yaxis.set_major_locator(FixedLocator([low]))
        elif ratio * pad**2 < 6:
            ax.yaxis.set_major_locator(MaxNLocator(4))
        else:
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 300 else (1.0,), numticks=12))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    rules(ax)


def whole_pkd(low: float, high: float, *axes: Axis) -> None:
    """Put ticks at whole pKd, every second one where the range is wide."""
    for axis in axes:
        axis.set_major_locator(MultipleLocator(1 if high - low <= 14 else 2))


def frame(true: Array, pred: Array) -> tuple[float, float]:
    """Return limits that show all five bins, every true value that can be one, and predictions near those."""
    low, high = np.clip([true.min(), true.max()], *PKD_RANGE)
    low, high = min(low, BIN_EDGES[0] - 1), max(high, BIN_EDGES[-1] + 1)
    low, high = min(low, max(float(pred.min()), low - MARGIN)), max(high, min(float(pred.max()), high + MARGIN))
    return float(np.floor(low * 2) / 2 - 0.25), float(np.ceil(high * 2) / 2 + 0.25)


def stripes(ax: Axes, limits: Sequence[float] | Array) -> None:
    """Shade every other interval between the limits, the first one included."""
    for left, right in list(pairwise(limits))[::2]:
        ax.axvspan(left, right, color=TINT, linewidth=0, zorder=0)


def draw_bands(ax: Axes, low: float, high: float) -> Array:
    """Mark the affinity bins along x; return the limits of all five as drawn."""
    limits = np.array([low, *BIN_EDGES, high])
    stripes(ax, limits)
    for edge in BIN_EDGES:
        ax.axvline(edge, color=LINE, linewidth=0.7, zorder=0.6, label="_edge")
    return limits


def name_bands(ax: Axes, limits: Array, true: Array) -> None:
    """Name every affinity bin, with its rows, above the axes."""
    counts = np.bincount(bin_index(true), minlength=len(BIN_NAMES))
    for name, count, (left, right) in zip(BIN_NAMES, counts, pairwise(limits), strict=True):
        crowded = (right - left) / (limits[-1] - limits[0]) < 0.12
        size, rows = (6.5, f"{count:,}") if crowded else (8.5, f"n = {count:,}")
        for words, height in ((_words(name), 18), (rows, 5)):
            ax.annotate(
                words, ((left + right) / 2, 1), (0, height), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", va="baseline", fontsize=size, color=SOFT,
            )  # fmt: skip


def draw_rows(
    ax: Axes, x: Array, y: Array, bins: NDArray[np.intp], censored: Rows
) -> tuple[list[Artist], QuadMesh | None]:
    """Draw rows as points or as a density; return what a legend needs, and the density if there is one.

    Censored rows are muted. In a density, the others of an extreme bin stay points as long as they are few.
    """
    kinds = [(bins == BIN_NAMES.index(name), *look, _words(name)) for name, look in EXTREMES.items()]
    extreme = np.logical_or.reduce([rows for rows, *_ in kinds])
    dense = np.full(len(x), len(x) > FEW_ROWS)
    for rows, *_ in kinds:
        if (rows & ~censored).sum() <= FEW_ROWS:
            dense[rows & ~censored] = False

    handles: list[Artist] = []
    mesh = _density(ax, x, y, dense, censored) if dense.any() else None
    if censored.any():
        label = f"Censored (< or >)\n(n = {censored.sum():,})"
        if mesh is None:
            handles.append(draw_censored(ax, x[censored], y[censored], label=label))
        else:
            handles.append(Patch(color=MUTED, label=label))
    for rows, colour, marker, label in [(~extreme, BULK, "o", "Weak to strong"), *kinds]:
        shown = rows & ~censored & ~dense
        if shown.any():
            size, alpha = (float(np.clip(4000 / shown.sum(), 9, 26)), 0.6) if marker == "o" else (26, 0.8)
            handles.append(
                draw_points(ax, x[shown], y[shown], size, colour, marker, alpha=alpha, label=label, clip_on=False)
            )
    return handles, mesh


def draw_points(ax: Axes, x: Array, y: Array, size: float, colour: str, marker: str, **options: Any) -> PathCollection:
    """Draw measured rows one by one."""
    return ax.scatter(x, y, size, color=colour, marker=marker, edgecolors="white", linewidths=0.4, zorder=3, **options)


def draw_censored(ax: Axes, x: Array, y: Array, **options: Any) -> PathCollection:
    """Draw censored rows one by one."""
    return ax.scatter(x, y, 14, marker="o", facecolors="none", edgecolors=MUTED, linewidths=0.8, zorder=2, **options)


def colour_scale(figure: Figure, mesh: QuadMesh, **place: Any) -> None:
    """Draw the scale of a density, placed by what `Figure.colorbar` takes."""
    bar = figure.colorbar(mesh, format=THOUSANDS, **place)
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, length=0, labelcolor=INK)
    words = "Rows per cell"
    if bar.orientation == "vertical":
        small_title(bar.ax, words)
    else:
        bar.ax.text(1.04, 0.5, words, transform=bar.ax.transAxes, va="center", fontsize=SMALL, color=SOFT)


def count(n: int, noun: str) -> str:
    """Return a number of things: 1 row, 2,000 rows."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def duration(seconds: float) -> str:
    """Return a time in the unit it is best read in."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def number(value: float, sign: str = "") -> str:
    """Return a figure with two decimals, or its magnitude where it is absurdly large; a dash for nan."""
    if not np.isfinite(value):
        return "–"
    return f"{round(value, 2) + 0.0:{sign}{'.2f' if abs(value) < 1000 else '.0e'}}".replace("-", "−")


def bin_tick(name: str, n: int) -> str:
    """Return a bin's name, range and number of rows on three lines."""
    words, limits = bin_label(name).rstrip(")").split(" (")
    return f"{words}\n{limits}\nn = {n:,}"


def _wrapped(title: str) -> str:
    return textwrap.fill(title, 84)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _plain(value: float) -> str:
    """Return a number as short as it can be said: 24,000, 0.5, 1e-4."""
    if value == 0 or 1e-2 <= abs(value) < 1e6:
        return f"{value:,.6g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _dress(ax: Axes) -> Axes:
    ax.spines[["top", "right"]].set_visible(False)
    # Ticks are made when first drawn, outside the style: what they look like must be said here.
    ax.tick_params(labelsize=SMALL, color=SOFT, labelcolor=INK, length=3, width=0.8)
    return ax


def _density(ax: Axes, x: Array, y: Array, dense: Rows, censored: Rows) -> QuadMesh:
    """Draw how many of the `dense` rows lie in each cell, muted where most are censored."""
    columns, rows = _cells(*ax.get_xlim()), _cells(*ax.get_ylim())
    total, _, _ = np.histogram2d(x[dense], y[dense], (columns, rows))
    limits, _, _ = np.histogram2d(x[dense & censored], y[dense & censored], (columns, rows))
    norm = LogNorm(1, max(float(total.max()), 10.0))

    def draw(of: Rows, cmap: Colormap, zorder: float) -> QuadMesh:
        counts = np.ma.masked_where(~of, total)
        return ax.pcolormesh(columns, rows, counts.T, norm=norm, cmap=cmap, zorder=zorder, rasterized=True)

    muted = (total > 0) & (limits > total / 2)
    if muted.any():
        draw(muted, MUTED_DENSITY, 1.9)
    return draw((total > 0) & ~muted, DENSITY, 2)


def _cells(low: float, high: float) -> Array:
    """Return cell edges over a range, some 100, with round numbers (where labels heap up) at cell centres."""
    width = next((width for width, up_to in ((0.05, 4), (0.1, 14), (0.2, 28)) if high - low <= up_to), 0.5)
    return width * (np.arange(np.floor(low / width), np.ceil(high / width) + 2) - 0.5)


def png(figure: Figure, dpi: int = 150) -> bytes:
    r"""Return a figure as a PNG file's bytes; the same figure gives the same bytes.

    >>> png(Figure(figsize=(1, 1)))[:4]
    b'\x89PNG'
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
