"""Rules about a label's scale, source by source: values that are no pKd, slips of unit and sign."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.scale import pkd_from_delta_g
from tailbind.table.audit.contract import (
    ERROR,
    EXCLUDE,
    FEWEST_OF_SOURCE,
    WARNING,
    Examined,
    Finding,
    Rows,
    listing,
    percent,
)

Array = NDArray[np.float64]

#: Kd from 30 mM to 0.1 pM: what binding assays report, with room to spare.
PLAUSIBLE: Final = (1.5, 13.0)
#: Beyond these a single row cannot be right: Kd above 0.1 mol/L or below 10 fM.
POSSIBLE: Final = (1.0, 14.0)
#: Share of implausible rows from which it is the whole source that is not on the pKd scale.
TOO_MANY: Final = 0.05
#: … and as many rows at least; below, it is single rows that are wrong.
FEWEST_IMPLAUSIBLE: Final = 5
#: Fewer rows that would fit after a shift are no slip of a unit but rows to look up.
FEWEST_SLIPPED: Final = 3
#: A source whose middle is weaker than 100 µM was not measured by a method that gives a Kd.
WEAKEST_MEDIAN: Final = 4.0
#: No source's middle is a binder stronger than 50 pM; that of ΔG (kcal/mol) without its sign is, from a pKd of 7.6.
STRONGEST_MEDIAN: Final = 10.3
WRONG_SIGN: Final = "ΔG with the wrong sign"
#: What a shift of pKd stands for.
SLIPS: Final = {9.0: "nM read as mol/L", 6.0: "µM read as mol/L"}
#: Slipped rows lie apart: in this stretch of pKd above them there are at most so many rows for each of them, …
SLIP_GAP: Final = 1.5
BETWEEN: Final = 0.2
#: … and this share of all impossibly weak rows is ordinary once shifted.
MOST_FIT: Final = 0.7
#: Affinities worth publishing lie about 10 nM.
USUAL_PKD: Final = 8.0


@dataclass(frozen=True)
class Conversion:
    """A mistake of conversion that would explain values which cannot be pKd."""

    name: str
    advice: str
    pkd: Array


def not_pkd(examined: Examined) -> Iterator[Finding]:
    """Find sources whose values cannot be pKd: many negative or implausible ones, or a middle weaker than 100 µM."""
    for source, rows in examined.sources.items():
        values = examined.pkd[rows]
        sorted_out = sort_out(values)
        if not sorted_out.reasons:
            continue
        slip = conversion(values, examined.states_delta_g)
        aside = int((sorted_out.missing | sorted_out.slipped).sum())
        uncounted = f" Not counted: {aside:,} rows that stand for none or slipped in unit." if aside else ""
        hint = f" If they are {slip.name}: {slip.advice}." if slip else ""
        yield Finding(
            "not_pkd",
            ERROR,
            source,
            rows,
            "; ".join(sorted_out.reasons) + "." + uncounted,
            {
                "n": len(values),
                "negative_share": float((values < 0).mean()),
                "outside_share": float(_outside(values, PLAUSIBLE).mean()),
                "min": float(values.min()),
                "median": float(np.median(values)),
                "max": float(values.max()),
            },
            "It teaches another quantity under the name of pKd, and fills the extreme bins with rows that are not.",
            f"Leave the source out, or state what it holds and convert it.{hint}",
            EXCLUDE,
        )


def off_scale(values: Array) -> list[str]:
    """Return why values as a whole cannot be pKd; nothing where they can.

    >>> off_scale(np.full(20, 8.0)), off_scale(np.full(20, -1.0))
    ([], ['100 % of its values are negative (a Kd above 1 mol/L)', 'its median is -1 (100 µM is 4)'])
    """
    if len(values) < FEWEST_OF_SOURCE:
        return []
    reasons = []
    negative, outside = float((values < 0).mean()), float(_outside(values, PLAUSIBLE).mean())
    median = float(np.median(values))
    least = max(TOO_MANY, FEWEST_IMPLAUSIBLE / len(values))  # a slip of the pen condemns no small source
    if negative >= least:
        reasons.append(f"{percent(negative)} of its values are negative (a Kd above 1 mol/L)")
    elif outside >= least:
        low, high = PLAUSIBLE
        reasons.append(f"{percent(outside)} of its values are below {low:g} or above {high:g}")
    if median < WEAKEST_MEDIAN:
        reasons.append(f"its median is {median:.3g} (100 µM is 4)")
    return reasons


def unit_slip(examined: Examined) -> Iterator[Finding]:
    """Find sources, and rows of sources, that one wrong conversion would explain: nM as mol/L, ΔG as pKd.

    A source whose values are all possible and only its middle too strong is a warning: ΔG without its sign looks so.
    """
    for source, rows in examined.sources.items():
        values = examined.pkd[rows]
        sorted_out = sort_out(values)
        slip = conversion(values, examined.states_delta_g) if sorted_out.reasons else None
        if slip is not None:
            numbers = {"median": float(np.median(values)), "median_converted": float(np.median(slip.pkd))}
            share = percent(1 - float(_outside(slip.pkd, PLAUSIBLE).mean()))
            evidence = (
                f"As {slip.name}, its median of {numbers['median']:.3g} would be pKd "
                f"{numbers['median_converted']:.3g}, and {share} of its values plausible."
            )
            yield _slip(source, rows, evidence, numbers, slip.advice)
        elif sorted_out.slipped.any():
            slipped, shift = sorted_out.slipped, sorted_out.shift
            found, others = values[slipped], values[~slipped & ~sorted_out.missing]
            numbers = {"n": len(found), "median": float(np.median(found)), "shift": shift}
            evidence = (
                f"{len(found):,} of its {len(values):,} rows lie about {shift:g} below the others (median "
                f"{numbers['median']:.3g} and {float(np.median(others)):.3g}) with nothing between: {SLIPS[shift]}."
            )
            yield _slip(source, rows[slipped], evidence, numbers, f"add {shift:g} to them once checked")
        elif (unsigned := too_strong(values)) is not None:
            numbers = {"median": float(np.median(values)), "median_converted": float(np.median(unsigned.pkd))}
            evidence = (
                f"Its median of {numbers['median']:.3g} is a Kd below 50 pM, stronger than that of any usual data set; "
                f"as {unsigned.name} it would be pKd {numbers['median_converted']:.3g}."
            )
            yield _slip(source, rows, evidence, numbers, f"if it is ΔG, {unsigned.advice}", certain=False)


def _slip(
    source: str, rows: Rows, evidence: str, numbers: dict[str, Any], advice: str, certain: bool = True
) -> Finding:
    return Finding(
        "unit_slip",
        ERROR if certain else WARNING,
        source,
        rows,
        evidence,
        numbers,
        "Strong binders become impossibly weak ones (or the reverse), and own the extreme bins.",
        f"Go back to the source's own unit: {advice}.",
        EXCLUDE if certain else "",
    )


def too_strong(values: Array) -> Conversion | None:
    """Return what would explain a source of possible values whose middle no data set has, None where it is usual.

    >>> too_strong(np.linspace(8.5, 13.3, 50)).name, too_strong(np.linspace(7, 11, 50))
    ('ΔG with the wrong sign', None)
    """
    if len(values) < FEWEST_OF_SOURCE or float(np.median(values)) <= STRONGEST_MEDIAN:
        return None
    slip = conversion(values)
    return slip if slip is not None and slip.name == WRONG_SIGN else None


def conversion(values: Array, delta_g: bool = False) -> Conversion | None:
    """Return the mistake of conversion that would best explain values off the pKd scale, None where none does.

    Parameters
    ----------
    values : (n,) pKd as read
    delta_g : whether they were converted from a column of ΔG, in which only the sign can be wrong

    >>> conversion(np.linspace(-1.5, 1.5, 50)).name
    '−log10 of nM (nM read as mol/L)'
    """
    turned = Conversion("ΔG with the wrong sign", "change the sign of the column; a binder's ΔG is negative", -values)
    candidates = (
        [turned]
        if delta_g
        else [
            Conversion("−log10 of nM (nM read as mol/L)", "add 9", values + 9),
            Conversion("−log10 of µM (µM read as mol/L)", "add 6", values + 6),
            Conversion(
                "ΔG in kcal/mol",
                "divide by −1.364 (298 K), or name the column delta_g",
                np.asarray(pkd_from_delta_g(values), np.float64),
            ),
            Conversion(WRONG_SIGN, "divide by 1.364 (298 K)", np.asarray(pkd_from_delta_g(-values), np.float64)),
        ]
    )
    likely = [entry for entry in candidates if _looks_like_pkd(entry.pkd)]
    return min(likely, key=lambda entry: abs(float(np.median(entry.pkd)) - USUAL_PKD)) if likely else None


def _looks_like_pkd(values: Array) -> bool:
    low, middle, high = np.quantile(values, (0.02, 0.5, 0.98))
    return bool(5 <= middle <= 10.5 and low >= 3 and high <= PLAUSIBLE[1])


@dataclass(frozen=True)
class SortedOut:
    """A source's values: which stand for none, which slipped in unit, and whether the rest can be pKd.

    Attributes
    ----------
    missing, slipped : (n,) masks
    shift : what the slipped ones lack, 0 where none did
    reasons : why the rest cannot be pKd; empty where it can
    """

    missing: NDArray[np.bool_]
    slipped: NDArray[np.bool_]
    shift: float
    reasons: list[str]


def sort_out(values: Array) -> SortedOut:
    """Return what a source's values are.

    >>> found = sort_out(np.r_[np.linspace(6, 9, 50), -1.5, -2.0, -1.2, -99.0, -99.0])
    >>> int(found.missing.sum()), int(found.slipped.sum()), found.shift, found.reasons
    (2, 3, 9.0, [])
    """
    missing = is_sentinel(values) & _outside(values, PLAUSIBLE)
    distinct, counts = np.unique(values[missing], return_counts=True)
    missing &= np.isin(values, distinct[(counts >= 2) | (np.abs(distinct) >= 9)])
    nothing = np.zeros(len(values), dtype=bool)
    for shift in SLIPS:
        slipped = _slipped(values, ~missing, shift)
        if slipped.sum() >= FEWEST_SLIPPED:
            return SortedOut(missing, slipped, shift, off_scale(values[~missing & ~slipped]))
    return SortedOut(missing, nothing, 0.0, off_scale(values[~missing]))


def _slipped(values: Array, present: NDArray[np.bool_], shift: float) -> NDArray[np.bool_]:
    """Return which values are impossibly weak, ordinary for their source once shifted, and apart from the others."""
    low_end, gap_end = PLAUSIBLE[0], PLAUSIBLE[0] + SLIP_GAP
    ordinary = values[present & (values >= gap_end) & (values <= PLAUSIBLE[1])]
    weak = present & (values < low_end)
    if not weak.any() or len(ordinary) < max(FEWEST_OF_SOURCE, weak.sum()) or off_scale(ordinary):
        return np.zeros(len(values), dtype=bool)
    low, high = np.quantile(ordinary, (0.005, 0.995))
    fits = weak & (values + shift >= low - 0.5) & (values + shift <= high + 0.5)
    between = int((present & (values >= low_end) & (values < gap_end)).sum())
    apart = between <= BETWEEN * weak.sum() and fits.sum() >= MOST_FIT * weak.sum()
    return fits if apart else np.zeros(len(values), dtype=bool)


#: Numbers that stand for "not measured" in files.
SENTINELS: Final = (0.0, -1.0, 1.0, -9.0, 99.0, -99.0, 100.0, 999.0, -999.0, 9999.0, -9999.0)


def is_sentinel(values: Array) -> NDArray[np.bool_]:
    """Return which values are numbers that stand for a missing one.

    >>> is_sentinel(np.array([0.0, 8.2, -99.0])).tolist()
    [True, False, True]
    """
    return np.isin(values, SENTINELS)


def impossible_value(examined: Examined) -> Iterator[Finding]:
    """Find rows of otherwise plausible sources whose label no binder has."""
    for source, rows in examined.sources.items():
        values = examined.pkd[rows]
        sorted_out = sort_out(values)
        if sorted_out.reasons:
            continue
        bad = _outside(values, POSSIBLE) & ~sorted_out.slipped & ~sorted_out.missing
        unsigned = None if sorted_out.slipped.any() else too_strong(values)
        if unsigned is not None:  # what the whole source's slip explains is no fault of single rows
            bad &= _outside(unsigned.pkd, POSSIBLE)
        if bad.any():
            found = np.sort(values[bad])
            yield Finding(
                "impossible_value",
                ERROR,
                source,
                rows[bad],
                f"{bad.sum():,} of {len(values):,} labels are no affinity: {listing([f'{v:.3g}' for v in found])}.",
                {"n": int(bad.sum()), "min": float(found[0]), "max": float(found[-1])},
                "A few such rows dominate a squared error and the weights of their bin.",
                "Look the rows up in their source, or leave them out.",
                EXCLUDE,
            )


def _outside(values: Array, limits: tuple[float, float]) -> NDArray[np.bool_]:
    return (values < limits[0]) | (values > limits[1])
