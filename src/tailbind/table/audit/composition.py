"""Rules about what a table is made of: families, extreme bins, antigens."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import polars as pl

from tailbind.scale import BIN_NAMES, EXTREME_BINS, bin_index, bin_label
from tailbind.table.audit.contract import (
    FEWEST_OF_SOURCE,
    INFO,
    WARNING,
    Examined,
    Finding,
    listing,
    percent,
    rows_by,
)
from tailbind.table.grouping import FAMILY_IDENTITY

#: A family of near-identical heavy chains that holds more than this share of the rows speaks for the table.
DOMINANT_SHARE: Final = 0.5
#: An extreme bin of at least so many rows …
FEWEST_OF_BIN: Final = 10
#: … is one source's where it holds this share of the bin, and that is so many times its share of the rows.
BIN_SHARE: Final = 2 / 3
TIMES_ITS_SHARE: Final = 1.5


def dominant_family(examined: Examined) -> Iterator[Finding]:
    """Find a family of near-identical antibodies that holds most rows."""
    chain = "heavy" if (examined.frame["heavy"] != "").any() else "light"
    families = examined.families[chain]
    known = families >= 0
    counts = np.bincount(families[known])
    if len(counts) == 0 or counts.max() <= DOMINANT_SHARE * len(families):
        return
    largest = int(counts.argmax())
    rows = np.flatnonzero(families == largest)
    others = len(counts) - 1
    rest = f"; {others:,} other {'family holds' if others == 1 else 'families hold'} the rest" if others else ""
    sources = list(rows_by(examined.frame["source"].gather(rows)))
    yield Finding(
        "dominant_family",
        WARNING if others else INFO,
        "",
        rows,
        f"{percent(len(rows) / len(families))} of the rows are one family of antibodies (each {chain} chain at least "
        f"{percent(FAMILY_IDENTITY)} identical to another of it; from "
        f"{listing([name or 'the table' for name in sources])}){rest}.",
        {"n": len(rows), "share": len(rows) / len(families), "n_families": len(counts), "chain": chain},
        "Overall figures describe this family; a random split tests on near-twins of training rows.",
        "Read figures by source, and split with split.kind=antibody_cluster to see new antibodies.",
    )


def extreme_bin_source(examined: Examined) -> Iterator[Finding]:
    """Find extreme bins that one source makes nearly alone, out of proportion to its size."""
    if len(examined.sources) < 2:
        return
    bins = bin_index(examined.pkd)
    for name in EXTREME_BINS:
        members = np.flatnonzero(bins == BIN_NAMES.index(name))
        if len(members) < FEWEST_OF_BIN:
            continue
        counts = examined.frame["source"].gather(members).value_counts(sort=True)
        source, count = str(counts["source"][0]), int(counts["count"][0])
        share, usual = count / len(members), len(examined.sources[source]) / len(examined.frame)
        if share < BIN_SHARE or share < TIMES_ITS_SHARE * usual:
            continue
        yield Finding(
            "extreme_bin_source",
            WARNING,
            source,
            members[(examined.frame["source"].gather(members) == source).to_numpy()],
            f"{count:,} of the {len(members):,} {bin_label(name)} rows ({percent(share)}) are from this source, which "
            f"holds {percent(usual)} of all rows.",
            {"bin": name, "n": count, "n_bin": len(members), "share": share, "share_of_rows": usual},
            "The model learns the source for the extreme; weighting the bin up weights up this source's peculiarities.",
            "Check the source's scale first; report that bin by source, and split by source to see what remains.",
        )


def empty_antigen(examined: Examined) -> Iterator[Finding]:
    """Find rows whose antigen is unknown: no sequence and no name."""
    unknown = examined.antigens < 0
    if unknown.all():
        several = len(examined.sources) > 1
        yield Finding(
            "empty_antigen",
            WARNING if several else INFO,
            "",
            np.flatnonzero(unknown),
            "No row of the table states its antigen"
            + (f"; its {len(examined.sources):,} sources may hold several." if several else "."),
            {"n": int(unknown.sum()), "share": 1.0},
            "The same antibody has different affinities for different antigens; the model sees them as noise.",
            "Add a column antigen (its sequence) or antigen_name.",
        )
        return
    for source, rows in examined.sources.items():
        empty = rows[unknown[rows]]
        if len(empty):
            yield Finding(
                "empty_antigen",
                WARNING,
                source,
                empty,
                f"{len(empty):,} of {len(rows):,} rows have neither the antigen's sequence nor its name.",
                {"n": len(empty), "share": len(empty) / len(rows)},
                "The model cannot tell which antigen these affinities are for.",
                "Fill in antigen or antigen_name.",
            )
    named = ((pl.col("antigen") == "") & (pl.col("antigen_name") != "")).alias("named")
    name_only = examined.frame.select(named).to_series().to_numpy()
    if name_only.any():
        sources = list(rows_by(examined.frame["source"].filter(pl.Series(name_only))))
        yield Finding(
            "empty_antigen",
            INFO,
            "",
            np.flatnonzero(name_only),
            f"{name_only.sum():,} rows name their antigen without its sequence "
            f"({listing([name or 'the table' for name in sources])}).",
            {"n": int(name_only.sum()), "share": float(name_only.mean())},
            "A model of sequences can tell these antigens apart by name only, and says nothing about new ones.",
            "Add the sequences where they are known.",
        )


def constant_antigen(examined: Examined) -> Iterator[Finding]:
    """Find sources with one antigen: whatever the model learns from them, it is not the antigen."""
    for source, rows in examined.sources.items():
        antigens = examined.antigens[rows]
        if len(rows) < FEWEST_OF_SOURCE or antigens[0] < 0 or (antigens != antigens[0]).any():
            continue
        name = examined.frame["antigen_name"][int(rows[0])]
        yield Finding(
            "constant_antigen",
            INFO,
            source,
            rows,
            f"All {len(rows):,} rows have the same antigen{f' ({name})' if name else ''}.",
            {"n": len(rows)},
            "Nothing about the antigen can be learned here; a model may take the source for it.",
            "Nothing to repair. Do not read predictions for other antigens into it.",
        )
