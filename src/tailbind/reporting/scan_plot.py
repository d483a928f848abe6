"""The picture of a scan: what every substitution at every position changes, as the model sees it.

Arrays in, a figure out; nothing is read or written. How it looks is in `tailbind.reporting.drawing`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from typing import Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tailbind.reporting import drawing
from tailbind.reporting.drawing import INK, LINE, SOFT, STRONG, STYLE, TINT, WEAK, WIDTH_INCHES, Array

#: Residues from top to bottom, and how many of them belong together: small, aliphatic, aromatic, polar, basic, acidic.
RESIDUES: Final = "GAPCVILMFYWSTNQHKRDE"
GROUPS: Final = (4, 4, 3, 4, 3, 2)
#: Weaker in purple, stronger in vermilion, as everywhere; told apart without seeing red and green.
CHANGE: Final = LinearSegmentedColormap.from_list(
    "change", ["#3f1a52", WEAK, "#c4a8d3", "#e9e8e6", "#f0b08a", STRONG, "#6d2503"]
)
SPREAD: Final = LinearSegmentedColormap.from_list("spread", [TINT, SOFT])
#: Positions in a row of the picture at most, and the limits of a cell's width.
PER_ROW: Final = 60
CELL_WIDEST: Final = 0.24
CELL_HIGH: Final = 0.138
#: In inches, from the top down: the page's head, a chain's title, a row's head, its strip, its labels, the page's foot.
PAGE_HEAD, TITLE, ROW_HEAD, STRIP, GAP, LABELS, FOOT = 1.05, 0.3, 0.5, 0.16, 0.05, 0.36, 0.1
LEFT, RIGHT = 0.5, 0.2
#: Side of the square of a substitution that training never saw; 1 fills the cell.
SMALL_SQUARE: Final = 0.48
#: Share of the changes worth mentioning that the colours span; those beyond have the end colours. Worth mentioning is
#: what is so large a share of the largest: most substitutions change next to nothing where training saw few.
SPANNED: Final = 0.95
MENTIONED: Final = 0.05


@dataclass(frozen=True)
class ScannedChain:
    """What a picture shows of one chain.

    Attributes
    ----------
    title : over its first row
    wild_type : (n_positions,) its residues
    labels : (n_positions,) what each position is called
    regions : (n_positions,) the region of each, "" for none
    places : (n_positions,) place in the sequence, where a gap is shown
    change : (n_positions, 20) ΔpKd, in the order of `RESIDUES`; nan for the wild type and for what is not known
    spread : (n_positions, 20) how unsure the model is of each prediction, in pKd; None where it does not tell
    unseen : (n_positions, 20) whether training never saw the substitution; None where nobody looked
    """

    title: str
    wild_type: str
    labels: Sequence[str]
    regions: Sequence[str]
    places: Sequence[int]
    change: Array
    spread: Array | None = None
    unseen: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        n = len(self.wild_type)
        for name, sequence in (("labels", self.labels), ("regions", self.regions), ("places", self.places)):
            if len(sequence) != n:
                raise ValueError(f"{name} must have an entry for each of {n} positions; got {len(sequence)}")
        for name, array in (("change", self.change), ("spread", self.spread), ("unseen", self.unseen)):
            if array is not None and array.shape != (n, len(RESIDUES)):
                raise ValueError(f"{name} must be (n_positions, 20), {(n, len(RESIDUES))}; got {array.shape}")


def scan_heatmap(chains: Sequence[ScannedChain], *, title: str = "", spread_name: str = "SD") -> Figure:
    """Return a heat map of positions and residues, sixty positions to a row, one row below the other.

    The colour is ΔpKd, centred at 0; a dot is the wild type; a small square is a substitution that training never saw
    at its place; the grey strip below is the mean uncertainty of a position's predictions.

    Parameters
    ----------
    chains : what to show, one chain below the other
    title : over the whole
    spread_name : what `ScannedChain.spread` is

    Examples
    --------
    >>> chain = ScannedChain("Heavy chain", "EV", ["1", "2"], ["FR1", "FR1"], [1, 2], np.zeros((2, 20)))
    >>> len(scan_heatmap([chain]).axes)  # a row of the picture, the scale of the colours, what the marks mean
    3
    """
    rows = [(chain, part) for chain in chains for part in _parts(len(chain.wild_type))]
    limit, beyond = _limit([chain.change for chain in chains])
    means = [_position_means(chain.spread) for chain in chains if chain.spread is not None]
    most = max((float(mean.max(initial=0.0)) for mean in means), default=0.0)
    strip = GAP + STRIP if most > 0 else 0.0
    row_high = ROW_HEAD + CELL_HIGH * len(RESIDUES) + strip + LABELS
    height = PAGE_HEAD + len(chains) * TITLE + len(rows) * row_high + FOOT
    with matplotlib.rc_context(STYLE):
        figure = drawing.new_figure(height, "")
        figure.set_layout_engine("none")
        figure.text(0.012, 1 - 0.12 / height, title, va="top", fontsize=12, fontweight="bold", parse_math=False)
        widest = max((part.stop - part.start for _, part in rows), default=1)
        cell = min((WIDTH_INCHES - LEFT - RIGHT) / widest, CELL_WIDEST)
        top = height - PAGE_HEAD
        for chain, part in rows:
            top -= ROW_HEAD + (TITLE if part.start == 0 else 0.0)
            wide = cell * (part.stop - part.start) / WIDTH_INCHES
            bottom = top - CELL_HIGH * len(RESIDUES)
            ax = figure.add_axes((LEFT / WIDTH_INCHES, bottom / height, wide, (top - bottom) / height))
            _draw_row(ax, chain, part, limit)
            if strip:
                bottom -= strip
                ax = figure.add_axes((LEFT / WIDTH_INCHES, bottom / height, wide, STRIP / height))
                _draw_strip(ax, chain, part, most, spread_name)
            _label_positions(ax, chain, part)
            top = bottom - LABELS
        _draw_scales(figure, height, (limit, beyond), most, spread_name)
        _draw_key(figure, height, any(chain.unseen is not None and chain.unseen.any() for chain in chains))
        return figure


def _parts(n_positions: int) -> list[slice]:
    """Return a chain's rows of the picture, as long as each other.

    >>> _parts(121)
    [slice(0, 41, None), slice(41, 82, None), slice(82, 121, None)]
    """
    n_rows = ceil(n_positions / PER_ROW)
    size = ceil(n_positions / max(n_rows, 1))
    return [slice(start, min(start + size, n_positions)) for start in range(0, n_positions, max(size, 1))]


def _limit(changes: Sequence[Array]) -> tuple[float, bool]:
    """Return the ΔpKd of the end colours, a round number that most changes are within, and whether any is beyond it."""
    sizes = np.abs(np.concatenate([np.zeros(1), *(change[np.isfinite(change)] for change in changes)]))
    largest = float(sizes.max())
    limit = max(ceil(float(np.quantile(sizes[sizes >= MENTIONED * largest], SPANNED)) * 10 - 1e-9) / 10, 0.1)
    return limit, largest > limit


def _draw_row(ax: Axes, chain: ScannedChain, part: slice, limit: float) -> None:
    change = chain.change[part].T
    n_residues, n = change.shape
    unseen = np.zeros(change.shape, bool) if chain.unseen is None else chain.unseen[part].T
    norm = Normalize(-limit, limit)
    ax.set_xlim(0, n)
    ax.set_ylim(n_residues, 0)
    ax.set_facecolor("white")
    edges = np.arange(n + 1), np.arange(n_residues + 1)
    ax.pcolormesh(*edges, np.ma.masked_where(unseen | ~np.isfinite(change), change), cmap=CHANGE, norm=norm)
    rows, columns = np.nonzero(unseen & np.isfinite(change))
    margin = (1 - SMALL_SQUARE) / 2
    squares = [
        Rectangle((column + margin, row + margin), SMALL_SQUARE, SMALL_SQUARE)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    small = PatchCollection(squares, cmap=CHANGE, norm=norm, linewidths=0)
    small.set_array(change[rows, columns])
    ax.add_collection(small)
    letters = chain.wild_type[part]
    known = [(place + 0.5, RESIDUES.index(letter) + 0.5) for place, letter in enumerate(letters) if letter in RESIDUES]
    if known:
        x, y = np.array(known).T
        ax.scatter(x, y, 7, color=INK, marker="o", linewidths=0, zorder=3)
    for edge in np.cumsum(GROUPS)[:-1].tolist():
        ax.axhline(edge, color="white", linewidth=1.2, zorder=2)
    ax.set_yticks(np.arange(n_residues) + 0.5, list(RESIDUES), fontsize=6.6)
    ax.set_xticks([])
    ax.tick_params(length=0, pad=3, labelcolor=INK)
    ax.spines[:].set_visible(False)
    for place, letter in enumerate(letters):
        ax.text(place + 0.5, -0.35, letter, ha="center", va="bottom", fontsize=6.6, color=INK)
    _draw_regions(ax, chain, part)
    places = chain.places[part]
    for place in range(1, n):
        if places[place] != places[place - 1] + 1:
            ax.axvline(place, color="white", linewidth=2.2, zorder=4)
    if part.start == 0:
        ax.annotate(
            chain.title, (0, 1), (0, 36), xycoords="axes fraction", textcoords="offset points", ha="left", va="bottom",
            fontsize=10, fontweight="bold", color=INK,
        )  # fmt: skip


def _draw_regions(ax: Axes, chain: ScannedChain, part: slice) -> None:
    """Mark the regions above the wild type's letters, CDRs darker."""
    place = 0
    for region, members in groupby(chain.regions[part]):
        start, place = place, place + len(list(members))
        if not region:
            continue
        is_cdr = region.startswith("CDR")
        ax.add_patch(
            Rectangle((start + 0.06, -2.05), place - start - 0.12, 0.42, color=SOFT if is_cdr else LINE, clip_on=False)
        )
        if is_cdr or place - start > 3:
            ax.text(
                (start + place) / 2, -2.25, region, ha="center", va="bottom", fontsize=7,
                color=INK if is_cdr else SOFT, fontweight="bold" if is_cdr else "normal",
            )  # fmt: skip


def _position_means(spread: Array) -> Array:
    """Return (n_positions,) the mean of what is known of each position; 0 where nothing is."""
    known = np.isfinite(spread)
    means: Array = np.where(known, spread, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return means


def _draw_strip(ax: Axes, chain: ScannedChain, part: slice, most: float, name: str) -> None:
    """Draw the mean uncertainty of each position."""
    n = part.stop - part.start
    ax.set_xlim(0, n)
    ax.spines[:].set_visible(False)
    ax.set_facecolor(TINT)
    if chain.spread is not None:
        mean = _position_means(chain.spread[part])
        ax.pcolormesh(np.arange(n + 1), [0, 1], mean[None, :], cmap=SPREAD, norm=Normalize(0, most))
    ax.set_yticks([0.5], [name], fontsize=6.6)
    ax.tick_params(axis="y", length=0, pad=3, labelcolor=INK)


def _label_positions(ax: Axes, chain: ScannedChain, part: slice) -> None:
    n = part.stop - part.start
    ax.set_xticks(np.arange(n) + 0.5, chain.labels[part], fontsize=6.2, rotation=90)
    ax.tick_params(axis="x", length=0, pad=2, labelcolor=INK)


def _draw_scales(figure: Figure, height: float, ends: tuple[float, bool], most: float, spread_name: str) -> None:
    """Draw the scale of the colours, and of the strip where there is one, at the right of the page's head."""
    limit, beyond = ends
    scales = [(CHANGE, Normalize(-limit, limit), "ΔpKd  (weaker ← 0 → stronger)")]
    if most:
        scales.append((SPREAD, Normalize(0, most), f"{spread_name} of a prediction, by position"))
    for number, (colours, norm, words) in enumerate(scales):
        wide, left = 1.9, WIDTH_INCHES - RIGHT - 2.0 - (len(scales) - 1 - number) * 2.4
        place = (left / WIDTH_INCHES, (height - 0.78) / height, wide / WIDTH_INCHES, 0.11 / height)
        axes = figure.add_axes(place)
        bar = figure.colorbar(
            ScalarMappable(norm, colours),
            cax=axes,
            orientation="horizontal",
            extend="both" if beyond and not number else "neither",
        )
        bar.outline.set_visible(False)
        low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
        ticks = MaxNLocator(4, symmetric=not number).tick_values(low, high)
        bar.set_ticks([tick for tick in ticks if low <= tick <= high])
        axes.tick_params(length=0, labelsize=7, labelcolor=INK, pad=2)
        axes.set_title(words, fontsize=7.5, color=SOFT, loc="left", pad=3)


def _draw_key(figure: Figure, height: float, has_unseen: bool) -> None:
    """Say what a dot and a small square are, at the left of the page's head."""
    entries = [("dot", "wild type"), *([("square", "training never saw it here")] if has_unseen else [])]
    place = (LEFT / WIDTH_INCHES, (height - 0.86) / height, 2.6 / WIDTH_INCHES, 0.4 / height)
    ax = figure.add_axes(place, frameon=False)
    ax.set_axis_off()
    ax.set_xlim(0, 2.6)
    ax.set_ylim(0.4, 0)
    for number, (mark, words) in enumerate(entries):
        y = 0.1 + 0.19 * number
        ax.add_patch(Rectangle((0, y - 0.07), 0.14, 0.14, facecolor="white", edgecolor=LINE, linewidth=0.6))
        if mark == "dot":
            ax.scatter([0.07], [y], 7, color=INK, linewidths=0, zorder=3)
        else:
            side = SMALL_SQUARE * 0.14
            ax.add_patch(Rectangle((0.07 - side / 2, y - side / 2), side, side, color=STRONG, zorder=3))
        ax.text(0.22, y, words, va="center", fontsize=7.5, color=SOFT)
