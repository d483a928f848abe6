"""Rules about values that many rows share: detection floors and ceilings, placeholders, marks on the wrong side."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.table.audit.contract import (
    ABOVE_CEILING,
    BELOW_FLOOR,
    ERROR,
    EXCLUDE,
    WARNING,
    Examined,
    Finding,
    Rows,
    listing,
    percent,
)
from tailbind.table.audit.scales import PLAUSIBLE, sort_out
from tailbind.table.schema import ABOVE, BELOW

Array = NDArray[np.float64]

#: A floor is a value, give or take this much of rounding, …
SAME: Final = 5e-4
#: … that at least so many pairs of a source share, …
FEWEST_AT_FLOOR: Final = 5
#: … of which this share is not marked as a bound, …
UNMARKED_SHARE: Final = 0.2
#: … that many times as many as share any value within one pKd of it, …
BEYOND_NEIGHBOURS: Final = 5.0
#: … and beyond which lie no more pairs than this share of those at it.
STRAGGLERS: Final = 0.1
#: A value in the middle of a source that this share of its pairs have is a filled-in one.
FILLED_SHARE: Final = 0.05


@dataclass(frozen=True)
class Spike:
    """A value that far more pairs share than any near it.

    Attributes
    ----------
    value : the value
    rows : (n,) rows at it that are marked as measured
    neighbour : most pairs that share a value within one pKd of it
    """

    value: float
    rows: Rows
    neighbour: int


def floor(examined: Examined) -> Iterator[Finding]:
    """Find detection floors stored as measured values: a value repeated far beyond its neighbourhood, at the low end.

    Titrations have a weakest concentration; what binds less is written at it. It means "no better than this".
    """
    for source, rows in examined.sources.items():
        spike = _spike_at_low_end(examined, rows, sign=1.0)
        if spike is not None:
            yield _end(source, spike, spike.value, len(rows), "floor")


def ceiling(examined: Examined) -> Iterator[Finding]:
    """Find ceilings stored as measured values: the same as `floor`, at the high end."""
    for source, rows in examined.sources.items():
        spike = _spike_at_low_end(examined, rows, sign=-1.0)
        # Where nearly all rows share one value it is at both ends: a floor, then, for non-binders are common.
        if spike is not None and -spike.value > float(np.median(examined.pkd[rows])):
            yield _end(source, spike, -spike.value, len(rows), "ceiling")


def _end(source: str, spike: Spike, value: float, n_source: int, what: str) -> Finding:
    rows, low = spike.rows, what == "floor"
    mark, beyond = ("<", "lower") if low else (">", "higher")
    return Finding(
        what,
        WARNING,
        source,
        rows,
        f"{len(rows):,} of {n_source:,} rows ({percent(len(rows) / n_source)}) are exactly {value:.4g} and marked as "
        f"measured; no value within 1 pKd is shared by more than {_pairs(spike.neighbour)}, and hardly any row is "
        f"{beyond}.",
        {"value": value, "n": len(rows), "share": len(rows) / n_source, "most_shared_neighbour": spike.neighbour},
        f"A {'non-binder' if low else 'tight binder'} is fitted as if it were measured at {value:.4g}; the model "
        f"learns that nothing is {'weaker' if low else 'stronger'}.",
        f"Mark them {mark} (--fix does) and train with a loss that knows bounds, such as loss.kind=tobit.",
        BELOW_FLOOR if low else ABOVE_CEILING,
    )


def _spike_at_low_end(examined: Examined, rows: Rows, sign: float) -> Spike | None:
    """Return the value at a source's low end (high end where the sign is −1) at which its assay stopped, or None."""
    values, pairs = sign * examined.pkd[rows], examined.pairs[rows]
    # Placeholders and slips below the plausible range hide no floor; a whole source off the scale has none.
    found = sort_out(sign * values)
    inside = (sign * values >= PLAUSIBLE[0]) & (sign * values <= PLAUSIBLE[1])
    plausible = inside & ~found.missing & ~found.slipped
    if found.reasons or not plausible.any():
        return None
    distinct, counts = _pairs_at(values[plausible], pairs[plausible])
    end = np.searchsorted(distinct, distinct + SAME, side="right")
    upto = np.r_[0, counts.cumsum()]
    shared, below = upto[end] - upto[:-1], upto[:-1]
    for position in np.flatnonzero((shared >= FEWEST_AT_FLOOR) & (below <= STRAGGLERS * shared)):  # few: below grows
        value = float(distinct[position])
        near = slice(end[position], np.searchsorted(distinct, value + 1, side="right"))
        at = plausible & (values >= value) & (values <= value + SAME)
        # Like is compared with like: one exact value with exact values, or what rounding may have spread with such.
        exact, spread = int(counts[near].max(initial=0)), int(shared[near].max(initial=0))
        for n_pairs, neighbour in ((counts[position], exact), (len(np.unique(pairs[at])), spread)):
            if n_pairs >= max(FEWEST_AT_FLOOR, BEYOND_NEIGHBOURS * neighbour):
                unmarked = at & examined.measured[rows]
                # Where most of a limit's rows are marked, those beside them that are not were measured there.
                missed = len(np.unique(pairs[unmarked])) >= max(FEWEST_AT_FLOOR, UNMARKED_SHARE * at.sum())
                return Spike(value, rows[unmarked], neighbour) if missed else None
    return None


def _pairs_at(values: Array, pairs: Rows) -> tuple[Array, Rows]:
    """Return the distinct values, sorted, and how many pairs have each: a control measured often counts once.

    >>> distinct, counts = _pairs_at(np.array([7.0, 6.0, 6.0, 6.0]), np.array([0, 1, 1, 2]))
    >>> distinct.tolist(), counts.tolist()
    ([6.0, 7.0], [2, 1])
    """
    order = np.lexsort((pairs, values))
    values, pairs = values[order], pairs[order]
    first = np.r_[True, (np.diff(values) != 0) | (np.diff(pairs) != 0)]
    distinct, counts = np.unique(values[first], return_counts=True)
    return distinct, counts.astype(np.intp)


def placeholder(examined: Examined) -> Iterator[Finding]:
    """Find numbers that stand for "not measured" (0, −1, 99, −999 …) and one value filled in for many rows."""
    for source, rows in examined.sources.items():
        values = examined.pkd[rows]
        found = sort_out(values)
        if found.missing.any() and not found.reasons:
            distinct, counts = np.unique(values[found.missing], return_counts=True)
            shown = listing([f"{value:g} ({count:,} rows)" for value, count in zip(distinct, counts, strict=True)])
            yield _placeholder(source, rows[found.missing], f"Labels that stand for none: {shown}.", distinct)
        filled = _filled_value(values, examined.pairs[rows])
        if filled is not None:
            value, neighbour = filled
            at = (np.abs(values - value) <= SAME) & examined.measured[rows]
            evidence = (
                f"{at.sum():,} of {len(values):,} rows ({percent(at.mean())}) are exactly {value:.4g}, in the middle "
                f"of the source's values; no other value within 1 pKd is shared by more than {_pairs(neighbour)}."
            )
            yield _placeholder(source, rows[at], evidence, np.array([value]), certain=False)


def _placeholder(source: str, rows: Rows, evidence: str, values: Array, certain: bool = True) -> Finding:
    return Finding(
        "placeholder",
        ERROR if certain else WARNING,
        source,
        rows,
        evidence,
        {"values": values.tolist(), "n": len(rows)},
        "Rows that nobody measured are fitted as if they were.",
        "Leave the rows out, or fill in what was measured."
        if certain
        else "Look them up. A value filled in: leave the rows out. The limit of one of several assays: mark them, and "
        "name the assays in a column source.",
        EXCLUDE if certain else "",
    )


def _filled_value(values: Array, pairs: Rows) -> tuple[float, int] | None:
    """Return a value in the middle that far too many pairs share, and how many share the next most shared one."""
    distinct, counts = _pairs_at(values, pairs)
    top = int(counts.argmax())
    value, count = float(distinct[top]), int(counts[top])
    if count < max(20, FILLED_SHARE * counts.sum()):
        return None
    near = (np.abs(distinct - value) <= 1) & (np.abs(distinct - value) > SAME)
    neighbour = int(counts[near].max()) if near.any() else 0
    below, above = int(counts[:top].sum()), int(counts[top + 1 :].sum())
    if min(below, above) <= STRAGGLERS * count or count < 2 * BEYOND_NEIGHBOURS * max(neighbour, 1):
        return None
    return value, neighbour


def _pairs(n: int) -> str:
    return f"{n:,} {'pair' if n == 1 else 'pairs'}"


def relation_direction(examined: Examined) -> Iterator[Finding]:
    """Find bounds that point the wrong way: "<" on a source's strongest values, ">" on its weakest."""
    for source, rows in examined.sources.items():
        relation, values = examined.table.relation[rows], examined.pkd[rows]
        measured = values[examined.measured[rows]]
        if len(measured) < 20:
            continue
        low, high = np.quantile(measured, (0.05, 0.95))
        wrong = ((relation == BELOW) & (values >= max(high, 9.0))) | ((relation == ABOVE) & (values <= min(low, 7.0)))
        if wrong.any():
            found = values[wrong]
            mark = "<" if (relation[wrong] == BELOW).mean() >= 0.5 else ">"
            end = "strongest" if mark == "<" else "weakest"
            yield Finding(
                "relation_direction",
                WARNING,
                source,
                rows[wrong],
                f"{wrong.sum():,} rows are marked {mark} at {found.min():.3g} to {found.max():.3g}, among the source's "
                f"{end} 5 %: a limit stated about Kd, not turned round for pKd?",
                {"n": int(wrong.sum()), "min": float(found.min()), "max": float(found.max())},
                "The bound excludes what is true: a very strong binder is taught as a non-binder (or the reverse).",
                "Look the rows up in their source and turn the mark round.",
            )
