"""The rule about sources that contradict each other: another affinity for the same antibodies and antigens."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.table.audit.contract import ERROR, EXCLUDE, FEWEST_OF_SOURCE, WARNING, Examined, Finding, Rows, listing
from tailbind.table.audit.repeats import ceiling, floor
from tailbind.table.audit.scales import USUAL_PKD, sort_out

#: How far two laboratories' pKd of one complex may lie apart: twice the scatter of 0.4 to 0.6 between them.
LABORATORIES_APART: Final = 1.0
#: Complexes measured by others too that are needed to judge a source by; one is enough where it is the parent of most.
ENOUGH_SHARED: Final = 3
PARENT_SHARE: Final = 0.5
#: One source against one is a word against a word; a second witness decides.
FEWEST_WITNESSES: Final = 2
#: How near a factor of a thousand an offset must be to suggest a unit.
STEP_TOLERANCE: Final = 0.35


def other_scale(examined: Examined) -> Iterator[Finding]:
    """Find sources that state another affinity than the rest for the same antibodies and antigens.

    A source is compared with all others on antibodies of identical sequence and antigens of one family. Its
    median difference must exceed `LABORATORIES_APART`, over `ENOUGH_SHARED` antibodies or over one that is the
    parent of most of its rows. It is an error where `FEWEST_WITNESSES` contradict it, or its values are no pKd anyway;
    where one does, either of the two may be right, and it is for a person to say which.
    """
    if len(examined.sources) < 2 or not examined.has_antibodies:
        return
    no_pkd = {source for source, rows in examined.sources.items() if sort_out(examined.pkd[rows]).reasons}
    for source, reference in _contradicting(examined, no_pkd).items():
        certain = source in no_pkd or len(reference.accusers) >= FEWEST_WITNESSES
        apart = "lower" if reference.offset < 0 else "higher"
        alone = (
            "" if certain else f" Only {reference.accusers[0]} contradicts it: nothing tells which of the two is right."
        )
        yield Finding(
            "other_scale",
            ERROR if certain else WARNING,
            source,
            examined.sources[source],
            f"For {reference.n_shared:,} {'antibody' if reference.n_shared == 1 else 'antibodies'} that "
            f"{listing(reference.others)} also measured against the same antigen, it states a pKd "
            f"{abs(reference.offset):.2f} {apart} (laboratories differ by 0.4 to 0.6).{_unit_step(reference.offset)}"
            f"{alone}",
            {
                "offset": reference.offset,
                "n_shared": reference.n_shared,
                "sources": reference.others,
                "contradicted_by": reference.accusers,
            },
            "The model must tell the source to know the scale; on a new antibody it is wrong by the offset.",
            "Leave the source out, or train on it alone for ranking; do not mix it with absolute values."
            if certain
            else f"Look both up at their origin; leave out the one on another scale, this or {reference.accusers[0]}.",
            EXCLUDE if certain else "",
        )


@dataclass(frozen=True)
class Reference:
    """A source held against the others.

    Attributes
    ----------
    offset : median difference of its pKd from theirs
    n_shared : antibodies that it and they measured
    others : who measured them too
    accusers : those of them whose own median difference from it is as large, to the same side
    """

    offset: float
    n_shared: int
    others: list[str]
    accusers: list[str]


def _contradicting(examined: Examined, no_pkd: Collection[str]) -> dict[str, Reference]:
    """Return source → how it compares with the others, for those that contradict them.

    One at a time, the source that most others contradict; of equals the one of less usual values. A source found
    out no longer speaks for or against others: it accuses none, and a second one on its scale is not excused by it.
    """

    def guilt(source: str) -> tuple[bool, int, float, str]:
        unusual = abs(float(np.median(examined.pkd[examined.sources[source]])) - USUAL_PKD)
        return source in no_pkd, len(accused[source].accusers), unusual, source

    meetings = _meetings(examined)
    found: dict[str, Reference] = {}
    # Those already known to be on no scale of pKd are judged too, but accuse none.
    heard = meetings.filter(~pl.col("other").is_in(list(no_pkd)))
    accused = _references(examined, heard)
    while accused:
        worst = max(accused, key=guilt)
        found[worst] = accused[worst]
        # Only those that met it are judged anew.
        met = set(heard.filter(pl.col("other") == worst)["source"])
        heard = heard.filter((pl.col("other") != worst) & (pl.col("source") != worst))
        accused = {name: accused[name] for name in accused if name != worst and name not in met}
        accused |= _references(examined, heard.filter(pl.col("source").is_in(list(met))))
    return found


def _unit_step(offset: float) -> str:
    steps = {3: "nM and pM, or nM and µM, taken for each other", 6: "pM and µM taken for each other", 9: "nM and M"}
    near = [words for step, words in steps.items() if abs(abs(offset) - step) < STEP_TOLERANCE]
    return f" An offset of {abs(offset):.1f} is what {near[0]} would give." if near else ""


def _meetings(examined: Examined) -> pl.DataFrame:
    """Return `source, other, antibody, antigen, difference`: each complex that both measured, from both sides."""
    measured = pl.DataFrame(
        {
            "antibody": examined.antibodies,
            "antigen": examined.antigen_families,
            "source": examined.frame["source"],
            "pkd": examined.pkd,
        }
    ).filter(pl.Series(_exact(examined)) & pl.Series(examined.antigen_families >= 0))
    complexes = ("antibody", "antigen")
    stated = measured.group_by(*complexes, "source").agg(pl.col("pkd").median())
    shared = stated.filter(pl.len().over(complexes) > 1)
    theirs = shared.rename({"source": "other", "pkd": "theirs"})
    return shared.join(theirs, on=complexes).filter(pl.col("source") != pl.col("other"))


def _exact(examined: Examined) -> NDArray[np.bool_]:
    """Return which labels are measured values: not marked, not at what looks like a limit, not slipped in unit."""
    exact = examined.measured.copy()
    for limit in (*floor(examined), *ceiling(examined)):
        exact[limit.rows] = False
    for rows in examined.sources.values():
        found = sort_out(examined.pkd[rows])
        exact[rows[found.slipped | found.missing]] = False
    return exact


def _references(examined: Examined, meetings: pl.DataFrame) -> dict[str, Reference]:
    """Return source → how it compares, where it differs by much from whom it met and the comparison says something."""
    by_complex = meetings.group_by("source", "antibody", "antigen").agg(
        (pl.col("pkd").first() - pl.col("theirs").median()).alias("difference")
    )
    offsets = by_complex.group_by("source").agg(
        pl.col("difference").median().alias("offset"), pl.col("antibody").n_unique().alias("n_shared")
    )
    far = offsets.filter(pl.col("offset").abs() >= LABORATORIES_APART).sort("source")
    each = (
        meetings.join(far, on="source")
        .group_by("source", "other")
        .agg((pl.col("pkd") - pl.col("theirs")).median().alias("apart"), pl.col("offset").first())
        .sort("source", "other")
        .with_columns((pl.col("apart") * pl.col("offset").sign() >= LABORATORIES_APART).alias("accuses"))
    )
    by_source = each.group_by("source").agg("other", pl.col("other").filter("accuses").alias("accusers"))
    references = {}
    for source, offset, n_shared, others, accusers in far.join(by_source, on="source").iter_rows():
        if accusers and (n_shared >= ENOUGH_SHARED or _is_parent(examined, meetings, source)):
            references[source] = Reference(offset, n_shared, others, accusers)
    return references


def _is_parent(examined: Examined, meetings: pl.DataFrame, source: str) -> bool:
    """Return whether most of a source's rows are of the family of the antibodies that it shares with others."""
    rows: Rows = examined.sources[source]
    shared = meetings.filter(pl.col("source") == source)["antibody"].unique()
    heavy = examined.families["heavy"][rows]
    chosen = np.isin(examined.antibodies[rows], shared.to_numpy())
    relatives = np.isin(heavy, np.unique(heavy[chosen])) & (heavy >= 0)
    return bool(relatives.mean() >= PARENT_SHARE) and len(rows) >= FEWEST_OF_SOURCE
