"""The pictures of a probe: how far changes move predictions, whether as measured, and in which regions.

Arrays in, figures out; nothing is read or written. How they look is in `tailbind.reporting.drawing`.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from tailbind.reporting import drawing
from tailbind.reporting.drawing import BULK, INK, LINE, MUTED, SMALL, SOFT, STYLE, Array

#: A change by less than this share of the axis is drawn as none.
THIN: Final = 0.004
#: Ends of the middle half, and of the middle 90 %, of changes.
SHARES: Final = (5, 25, 50, 75, 95)


def change_ranges(names: Sequence[str], changes: Sequence[ArrayLike], measured: Sequence[bool]) -> Figure:
    """Return one line per kind of change: its median, middle half and middle 90 % of ΔpKd.

    Parameters
    ----------
    names : of the kinds, from the top
    changes : of each (n,) ΔpKd
    measured : of each, whether they were measured, not predicted; these are grey

    Examples
    --------
    >>> figure = change_ranges(["CDRs to alanine"], [[-2.0, -1.0, 0.0]], [False])
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['CDRs to alanine\\nn = 3']
    """
    with matplotlib.rc_context(STYLE):
        figure = drawing.new_figure(1.1 + 0.52 * max(len(names), 1), "")
        ax = drawing.add_axes(figure, figure.add_gridspec(1, 1)[0])
        known = [_finite(change) for change in changes]
        shown = [number for number, change in enumerate(known) if len(change)]
        if not shown:
            return drawing.nothing_to_show(figure, "Nothing was changed")
        places = np.arange(len(shown))[::-1].astype(float)
        ends = np.array([np.percentile(known[number], SHARES) for number in shown])
        low, high = min(float(ends.min()), 0.0), max(float(ends.max()), 0.0)
        pad = 0.06 * (high - low) or 0.1
        ax.set_xlim(low - pad, high + pad)
        ax.axvline(0, color=SOFT, linewidth=0.9, zorder=1)
        for place, number, (start, quarter, middle, three, end) in zip(places, shown, ends, strict=True):
            colour = MUTED if measured[number] else BULK
            ax.plot([start, end], [place] * 2, color=colour, linewidth=2.2, solid_capstyle="butt", zorder=2)
            width = max(three - quarter, THIN * (high - low + 2 * pad))
            ax.barh(place, width, 0.46, quarter, color=colour, zorder=3)
            ax.plot([middle] * 2, [place - 0.3, place + 0.3], color=INK, linewidth=2.2, zorder=4, solid_capstyle="butt")
        ax.set_yticks(places, [f"{names[number]}\nn = {len(known[number]):,}" for number in shown])
        ax.set_ylim(-0.7, len(shown) - 0.3)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", color=LINE, linewidth=0.7)
        ax.set_xlabel("ΔpKd: the changed antibody less its own")
        note = "Bars: the middle half; lines: the middle 90 %; marks: the median."
        note += " Grey: measured." if any(measured[number] for number in shown) else ""
        figure.supxlabel(note, x=0.012, ha="left", fontsize=SMALL, color=SOFT)
        return figure


def mutant_scatter(measured: ArrayLike, predicted: ArrayLike) -> Figure:
    """Return predicted over measured ΔpKd of held-out single mutants, on equal scales.

    Parameters
    ----------
    measured, predicted : (n,) ΔpKd; nan where there is none

    Examples
    --------
    >>> figure = mutant_scatter([-1.0, 0.5], [-0.8, 0.1])
    >>> figure.axes[0].get_xlabel()
    'Measured ΔpKd'
    """
    x, y = np.asarray(measured, np.float64), np.asarray(predicted, np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    with matplotlib.rc_context(STYLE):
        figure, ax, rail = drawing.square_and_rail("")
        if not len(x):
            return drawing.nothing_to_show(figure, "No measured single mutants in the test rows")
        reach = 1.05 * max(float(np.abs([x, y]).max()), 0.1)
        ax.set_xlim(-reach, reach)
        ax.set_ylim(-reach, reach)
        for line in (ax.axhline, ax.axvline):
            line(0, color=LINE, linewidth=0.9, zorder=1)
        ax.plot([-reach, reach], [-reach, reach], color=SOFT, linewidth=1, linestyle=drawing.DASHED, zorder=2)
        if len(x) > drawing.FEW_ROWS:
            _density(ax, x, y, reach)
            kind = "Darker: more mutants"
        else:
            size = float(np.clip(4000 / len(x), 9, 26))
            drawing.draw_points(ax, x, y, size, BULK, "o", alpha=0.6)
            kind = "A point per mutant"
        ax.set_xlabel("Measured ΔpKd")
        ax.set_ylabel("Predicted ΔpKd")
        words = f"{drawing.count(len(x), 'mutant')}\n{kind}\n\nDashed: as measured\n\nSD measured  {x.std():.2f}\n"
        words += f"SD predicted {y.std():.2f}"
        rail.text(0, 1, words, transform=rail.transAxes, va="top", fontsize=9.5, color=SOFT, linespacing=1.5)
        return figure


def _density(ax: Axes, x: Array, y: Array, reach: float) -> None:
    edges = np.linspace(-reach, reach, 90)
    counts, _, _ = np.histogram2d(x, y, (edges, edges))
    shades = np.ma.masked_equal(counts, 0)
    norm = LogNorm(1, max(float(counts.max()), 10.0))
    ax.pcolormesh(edges, edges, shades.T, norm=norm, cmap=drawing.DENSITY, zorder=3, rasterized=True)


def region_bars(regions: Sequence[str], sizes: Mapping[str, Sequence[float]]) -> Figure:
    """Return how far a single substitution moves pKd on average, region by region.

    Parameters
    ----------
    regions : their names; those of CDRs have "CDR" in them and stand on a tinted ground
    sizes : what was asked → (n_regions,) mean |ΔpKd|, nan where there are none; at most three, the last one measured

    Examples
    --------
    >>> figure = region_bars(["heavy FR1", "heavy CDR1"], {"every substitution, predicted": [0.1, 0.4]})
    >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
    ['heavy\\nFR1', 'heavy\\nCDR1']
    """
    with matplotlib.rc_context(STYLE):
        figure = drawing.new_figure(3.6, "")
        ax = drawing.add_axes(figure, figure.add_gridspec(1, 1)[0])
        if not regions:
            return drawing.nothing_to_show(figure, "Where the regions are is not known")
        places = np.arange(len(regions), dtype=np.float64)
        for place, name in zip(places, regions, strict=True):
            if "CDR" in name:
                ax.axvspan(place - 0.5, place + 0.5, color=drawing.TINT, linewidth=0, zorder=0)
        width = 0.8 / len(sizes)
        colours: NDArray[np.str_] = np.array([BULK, "#6ea8d0", MUTED])
        if len(sizes) == 2:
            colours = colours[[0, 2]]
        for number, ((name, values), colour) in enumerate(zip(sizes.items(), colours.tolist(), strict=False)):
            at = places + width * (number - (len(sizes) - 1) / 2)
            ax.bar(at, np.asarray(values, np.float64), 0.92 * width, color=colour, label=name, zorder=2)
        ax.set_xticks(places, [name.replace(" ", "\n") for name in regions])
        ax.tick_params(axis="x", length=0)
        ax.set_xlim(-0.5, len(regions) - 0.5)
        ax.set_ylabel("Mean |ΔpKd|")
        drawing.rules(ax)
        drawing.add_legend(figure, ax.get_legend_handles_labels()[0], loc="outside upper left", ncols=3)
        return figure


def _finite(values: ArrayLike) -> Array:
    array = np.asarray(values, np.float64)
    return array[np.isfinite(array)]
