"""Pictures of a table before anything is trained on it: its labels, its bins, its families, its near-copies.

Arrays in, figures out; nothing is read or written. What a label, a family or a near-copy is, is decided by whoever
makes the arrays. How the figures look is in `tailbind.reporting.drawing`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, PercentFormatter
from numpy.typing import ArrayLike

from tailbind.reporting import drawing
from tailbind.reporting.drawing import BULK, DASHED, INK, SMALL, SOFT, STRONG, STYLE, WEAK, Array
from tailbind.reporting.histograms import Mark, draw_histogram, mostly_outside, own_window, shared_window
from tailbind.scale import BIN_NAMES

#: Sources that get a histogram.
MOST_PANELS: Final = 24
#: Of sources whose labels cannot be pKd: their bars, and words about them.
DOUBTFUL, DOUBTFUL_WORDS = "#e08a00", "#9a5f00"
#: Of the sources named in the bars: no two neighbours alike, also to the colour-blind.
SOURCE_COLOURS: Final = (BULK, "#e08a00", "#0f8a68", "#b84a86", "#55aee0", STRONG, WEAK)
OTHERS: Final = "#c3cad1"
#: Of the above, those that need dark letters.
PALE: Final = ("#e08a00", "#55aee0", OTHERS)
#: Identities at which near-copies are counted; 1 is the same chain.
THRESHOLDS: Final = (1.0, 0.95, 0.9, 0.8)


def label_histograms(
    values: Mapping[str, ArrayLike], marks: Mapping[str, Sequence[Mark]], flagged: Collection[str] = ()
) -> Figure:
    """Return a histogram of the labels of every source, the largest source first.

    All share one window on the pKd scale; rows outside it are counted in words at its edge. Flagged sources, and
    those with most rows outside, have an axis of their own. Rows at a mark are grey, and cut where they would
    dwarf the rest. Of more than `MOST_PANELS` sources, flagged ones are shown first, then the largest.

    Parameters
    ----------
    values : source → (n_rows,) labels as stated; what is not finite is left out
    marks : source → its floors, ceilings and placeholders: value, number of rows with it, which of the three
    flagged : sources whose labels cannot be pKd

    Examples
    --------
    >>> figure = label_histograms({"titration": [6.0, 6.0, 6.0, 7.5, 8.1]}, {"titration": [(6.0, 3, "floor")]})
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['floor 6: 3 rows', 'n = 5']
    """
    labels = {name: _finite(of_source) for name, of_source in values.items()}
    by_size = sorted(labels, key=lambda name: -len(labels[name]))
    chosen = set(sorted(by_size, key=lambda name: name not in flagged)[:MOST_PANELS])
    shown = [name for name in by_size if name in chosen]
    window = shared_window([labels[name] for name in shown if name not in flagged])
    with matplotlib.rc_context(STYLE):
        n_columns = min(max(len(shown), 1), 3)
        n_rows = -(-max(len(shown), 1) // n_columns)
        figure = drawing.new_figure(0.75 + (3.0, 2.4, 1.85)[n_columns - 1] * n_rows, "")
        grid = figure.add_gridspec(n_rows, n_columns)
        if not shown:
            drawing.add_axes(figure, grid[0])
            return drawing.nothing_to_show(figure, "No rows")
        for place, name in enumerate(shown):
            ax = drawing.add_axes(figure, grid[place // n_columns, place % n_columns])
            own = name in flagged or mostly_outside(labels[name], window)
            at_marks = [mark for mark in marks.get(name, ()) if mark[1] > 0]
            limits = own_window(labels[name], at_marks) if own else window
            draw_histogram(ax, labels[name], at_marks, limits, BULK if name not in flagged else DOUBTFUL, own)
            rows = f"n = {len(labels[name]):,}"
            rows += " · not pKd?" if name in flagged else ""
            rows += " · axis of its own" if own else ""
            _two_line_title(ax, _shortened(name, 99 // n_columns), rows, DOUBTFUL_WORDS if name in flagged else SOFT)
        note = "Across: the label as stated, in pKd, with faint lines where the affinity bins meet. Up: rows."
        if any(marks.get(name) for name in shown):
            note += "\nGrey: rows at a floor, a ceiling or a placeholder; a bar with two strokes is cut."
        left_out = [name for name in by_size if name not in chosen]
        if left_out:
            rest = drawing.count(sum(len(labels[name]) for name in left_out), "row")
            note += f"\nNot shown: {drawing.count(len(left_out), 'smaller source')} with {rest} together."
        figure.supxlabel(note, x=0.012, ha="left", fontsize=SMALL, color=SOFT)
        return figure


def bin_composition(counts: Mapping[str, Sequence[int]]) -> Figure:
    """Return which sources the rows of each affinity bin come from: a bar of 100 % per bin.

    The seven sources that take the largest share of the bars are named, so that the source of a small bin is
    named too; the others are one grey part.

    Parameters
    ----------
    counts : source → rows in each of the five bins, weakest first

    Examples
    --------
    >>> figure = bin_composition({"titration": [90, 5, 0, 0, 0], "crystals": [10, 15, 40, 20, 1]})
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()][:2]
    ['Very weak\\n< 5', 'Weak\\n5–7']
    """
    rows = np.array([list(of_source) for of_source in counts.values()], dtype=np.float64).reshape(-1, len(BIN_NAMES))
    totals = rows.sum(axis=0)
    share = rows / np.maximum(totals, 1)
    order = np.argsort(-share.sum(axis=1), kind="stable")
    order = order[share[order].sum(axis=1) > 0]
    named, others = order[: len(SOURCE_COLOURS)], order[len(SOURCE_COLOURS) :]
    names = list(counts)
    parts = [(names[at], share[at], colour) for at, colour in zip(named, SOURCE_COLOURS, strict=False)]
    if len(others):
        parts.append((drawing.count(len(others), "other"), share[others].sum(axis=0), OTHERS))
    with matplotlib.rc_context(STYLE):
        figure = drawing.new_figure(4.3, "")
        ax = drawing.add_axes(figure, figure.add_gridspec(1, 1)[0])
        places = np.arange(len(BIN_NAMES))
        start = np.zeros(len(BIN_NAMES))
        for name, width, colour in parts:
            ax.barh(places, width, 0.72, left=start, color=colour, edgecolor="white", linewidth=1.0, label="_" + name)
            for place, (left, part) in enumerate(zip(start, width, strict=True)):
                _label_part(ax, name, left + part / 2, place, part, INK if colour in PALE else "white")
            start = start + width
        for place, total in enumerate(totals):
            ax.annotate(
                f"n = {total:,.0f}", (1, place), (8, 0), textcoords="offset points", va="center", fontsize=SMALL,
                color=INK if total else SOFT,
            )  # fmt: skip
            if not total:
                ax.text(0.008, place, "no rows", va="center", fontsize=SMALL, color=SOFT)
        ax.set_yticks(places, [drawing.bin_tick(name, 0).rpartition("\n")[0] for name in BIN_NAMES])
        ax.set(xlim=(0, 1), ylim=(len(BIN_NAMES) - 0.5, -0.5))
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        ax.set_xlabel("Share of the bin's rows")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        handles = [Patch(color=colour, label=_shortened(name, 40)) for name, _, colour in parts]
        if handles:
            columns = max(1, min(4, 100 // (max(len(str(handle.get_label())) for handle in handles) + 6)))
            drawing.add_legend(figure, handles, loc="outside upper left", ncols=columns)
        return figure


def family_sizes(sizes: ArrayLike, n_rows: int) -> Figure:
    """Return the rows of each family of near-identical antibodies, the largest first, both axes logarithmic.

    The families that together hold half of all rows are drawn darker.

    Parameters
    ----------
    sizes : (n_families,) rows of each family, in any order; families of none are left out
    n_rows : rows of the table, those in no family included

    Examples
    --------
    >>> figure = family_sizes([1, 60, 30, 5], n_rows=100)
    >>> figure.axes[0].texts[0].get_text()
    'Largest: 60 rows,\\n60 % of all'
    """
    of_family = np.sort(_finite(sizes))[::-1]
    of_family = of_family[of_family > 0]
    n_rows = max(n_rows, 1)
    with matplotlib.rc_context(STYLE):
        figure = drawing.new_figure(4.2, "")
        ax = drawing.add_axes(figure, figure.add_gridspec(1, 1)[0])
        if not len(of_family):
            return drawing.nothing_to_show(figure, "No families")
        n_families = len(of_family)
        held = np.cumsum(of_family)
        in_half = int(np.searchsorted(held, n_rows / 2)) + 1
        enough = in_half <= n_families
        ax.set(xscale="log", yscale="log", xlim=(0.5, max(n_families, 9) + 0.5), ylim=(0.7, of_family[0] ** 1.15 * 3))
        for first, alpha in ((n_families, 0.35), (in_half if enough else 0, 1.0)):
            if first:
                steps = _steps(of_family[:first])
                ax.stairs(*steps, baseline=0.7, fill=True, color=BULK, alpha=alpha, linewidth=0)
        ax.annotate(
            f"Largest: {drawing.count(int(of_family[0]), 'row')},\n{_percent(of_family[0] / n_rows)} of all",
            (0.5, of_family[0]), (6, 5), textcoords="offset points", va="bottom", fontsize=SMALL, color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
        of_rows = f"of the {n_rows:,} rows"
        if enough:
            held_words = f"it takes {in_half:,} (dark) to hold half {of_rows}"
        else:
            held_words = f"all together hold {_percent(held[-1] / n_rows)} {of_rows}"
        alone = int((of_family == 1).sum())
        drawing.small_title(ax, f"{_families(n_families)}, {alone:,} of one row; {held_words}.")
        ax.set_xlabel("Family, by rank")
        ax.set_ylabel("Rows in the family")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0,), numticks=12))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(drawing.THOUSANDS)
        drawing.rules(ax)
        return figure


def nearest_identity(identity: Mapping[str, ArrayLike], sampled: int | None = None) -> Figure:
    """Return, for each chain, the share of rows whose nearest other row is at least so similar.

    Parameters
    ----------
    identity : chain → (n_rows,) identity to the nearest other row, 0 to 1; nan where unknown
    sampled : how many rows were looked up, where not all were

    Examples
    --------
    >>> figure = nearest_identity({"heavy": [1.0, 0.96, 0.5, float("nan")]})
    >>> [text.get_text() for text in figure.axes[0].texts if "%" in text.get_text()]
    ['33 %', '67 %', '67 %', '67 %']
    """
    chains = {chain: np.sort(_finite(of_chain)) for chain, of_chain in identity.items()}
    with matplotlib.rc_context(STYLE):
        figure = drawing.new_figure(0.8 + 1.75 * max(len(chains), 1), "")
        grid = figure.add_gridspec(max(len(chains), 1), 1)
        if not chains:
            drawing.add_axes(figure, grid[0])
            return drawing.nothing_to_show(figure, "No chains")
        lowest = min((float(of_chain[0]) for of_chain in chains.values() if len(of_chain)), default=0.5)
        left = min(max(np.floor(lowest * 10) / 10, 0.0), 0.6)
        for place, (chain, of_chain) in enumerate(chains.items()):
            ax = drawing.add_axes(figure, grid[place])
            unknown = np.asarray(identity[chain]).size - len(of_chain)
            rows = f"n = {len(of_chain):,}" + (f"; unknown for {unknown:,} more" if unknown else "")
            _two_line_title(ax, chain.capitalize(), rows, SOFT)
            ax.set(xlim=(left, 1.004), ylim=(0, 1.02))
            ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
            ax.yaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
            drawing.rules(ax)
            _at_or_above(ax, of_chain, left)
        figure.axes[-1].set_xlabel("Identity to the nearest other row")
        note = "Up: share of rows whose nearest other row is at least so similar."
        if sampled is not None:
            note += f" Looked up for a sample of {drawing.count(sampled, 'row')}."
        figure.supxlabel(note, x=0.012, ha="left", fontsize=SMALL, color=SOFT)
        return figure


def _finite(values: ArrayLike) -> Array:
    flat = np.asarray(values, dtype=np.float64).ravel()
    return flat[np.isfinite(flat)]


def _two_line_title(ax: Axes, name: str, rows: str, colour: str) -> None:
    """Write a panel's name above it and, smaller, its rows below the name."""
    ax.set_title(name, loc="left", fontsize=9.5, pad=16).set_parse_math(False)
    ax.annotate(rows, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontsize=8, color=colour)


def _label_part(ax: Axes, name: str, x: float, place: int, part: float, colour: str) -> None:
    """Write a part's name and share where they fit, the share alone where only it does."""
    for words in (f"{name} {_percent(part)}", _percent(part)):
        # A bar is some 7 inches long, a letter of this size about a sixteenth.
        if len(words) / 16 + 0.1 < 7 * part:
            text = ax.text(x, place, words, ha="center", va="center", fontsize=8.5, color=colour)
            text.set_parse_math(False)
            return


def _at_or_above(ax: Axes, of_chain: Array, left: float) -> None:
    """Draw the share of rows at or above each identity, and write it down for the thresholds."""
    if not len(of_chain):
        ax.text(0.5, 0.5, "None known", transform=ax.transAxes, ha="center", va="center", color=SOFT)
        return

    def share(of: Any) -> Any:
        # Rounding in the last digit must not carry 19 of 20 below 0.95.
        return 1 - np.searchsorted(of_chain, np.asarray(of) - 1e-9, side="left") / len(of_chain)

    grid = np.append(np.arange(left, 1.0, 0.0025), 1.0)
    ax.fill_between(grid, share(grid), step="pre", color=BULK, alpha=0.18, linewidth=0)
    ax.step(grid, share(grid), where="pre", color=BULK, linewidth=1.8)
    table = [("Identity", "Rows", 8.0, SOFT)]
    for threshold in THRESHOLDS:
        at = float(share(threshold))
        ax.plot([threshold] * 2, [0, at], color=STRONG, linewidth=0.9, linestyle=DASHED, zorder=3)
        ax.plot([threshold], [at], "o", color=STRONG, markersize=5, mec="white", zorder=4, clip_on=False)
        table.append((f"≥ {threshold:g}" if threshold < 1 else "1", _percent(at), SMALL, INK))
    for number, (*cells, size, colour) in enumerate(table):
        for cell, x in zip(cells, (52, 108), strict=True):
            ax.annotate(
                cell, (1, 1 - 0.2 * number), (x, 0), xycoords="axes fraction", textcoords="offset points", ha="right",
                va="center", fontsize=size, color=colour,
            )  # fmt: skip


def _steps(of_family: Array) -> tuple[Array, Array]:
    """Return the heights and the edges of the steps down: one for all families of a size, of which there are many."""
    last = np.append(np.flatnonzero(np.diff(of_family)), len(of_family) - 1)
    return of_family[last], np.append(0.5, last + 1.5)


def _families(n: int) -> str:
    return f"{n:,} " + ("family" if n == 1 else "families")


def _percent(share: float) -> str:
    """Return a share in whole percent, with one digit below ten; never 0 or 100 unless it is."""
    percent = round(100 * share, 9)
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.5 <= percent < 100:
        return "> 99 %"
    return f"{percent:.0f} %" if percent >= 9.95 or percent == 0 else f"{percent:.1f} %"


def _shortened(name: str, longest: int) -> str:
    """Return a name with its middle left out where it is too long."""
    keep = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:keep]}…{name[-keep:]}"
