"""Rules about the same antibody-antigen pair measured more than once: duplicates, conflicts, overlapping sources."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import polars as pl

from tailbind.table.audit.contract import MERGE, WARNING, Examined, Finding, Rows, listing, percent
from tailbind.table.schema import ABOVE, BELOW, MEASURED

#: Replicates of one source with a larger SD, and larger than so many times the usual one, contradict each other.
REPLICATE_SD: Final = 0.7
TIMES_NOISE: Final = 3.0
#: The SD of replicates in the noisiest assays, weak binders in Tite-Seq.
LARGEST_NOISE: Final = 0.35
#: Two laboratories' values of one pair further apart than this contradict each other: twice the usual scatter.
SOURCES_APART: Final = 1.0
#: Sources must share so many pairs to be said to overlap.
FEWEST_SHARED: Final = 3


def exact_duplicate(examined: Examined) -> Iterator[Finding]:
    """Find rows that repeat another of the same source: same pair, same label, same relation."""
    if not examined.has_antibodies:
        return
    frame = _measurements(examined).filter(pl.col("known"))
    keys = ("source", "pair", "pkd", "relation")
    repeats = frame.filter(pl.len().over(keys) > 1).sort("row")
    for (source,), group in repeats.group_by("source", maintain_order=True):
        n_extra = len(group) - group.select(keys).n_unique()
        yield Finding(
            "exact_duplicate",
            WARNING,
            str(source),
            group["row"].to_numpy().astype(np.intp),
            f"{len(group):,} rows are {len(group) - n_extra:,} measurements: the same pair with the same value.",
            {"n": len(group), "n_distinct": len(group) - n_extra},
            "They count double in training, and a random split puts one copy on each side: the test is a look-up.",
            "Keep one of each (--fix merges them).",
            MERGE,
        )


def conflicting_replicates(examined: Examined) -> Iterator[Finding]:
    """Find pairs that one source states far apart, against the noise of its other replicates."""
    if not examined.has_antibodies:
        return
    frame = _measurements(examined).filter(pl.col("known") & (pl.col("relation") == "="))
    for (source,), group in frame.group_by("source", maintain_order=True):
        by_pair = group.group_by("pair").agg(
            pl.len().alias("n"),
            (pl.col("pkd").max() - pl.col("pkd").min()).alias("range"),
            pl.col("pkd").std(ddof=1).alias("sd"),
        )
        several = by_pair.filter(pl.col("n") > 1)
        if several.is_empty():
            continue
        # The median over pairs, and no more than assays have: conflicts must not make their own excuse.
        noise = float(several["sd"].median())  # type: ignore[arg-type]
        limit = max(REPLICATE_SD, TIMES_NOISE * min(noise, LARGEST_NOISE))
        apart = several.filter(pl.col("sd") > limit)
        if apart.is_empty():
            continue
        rows = group.filter(pl.col("pair").is_in(apart["pair"].implode()))["row"].sort()
        widest = float(apart["range"].max())  # type: ignore[arg-type]
        yield Finding(
            "conflicting_replicates",
            WARNING,
            str(source),
            rows.to_numpy().astype(np.intp),
            f"{len(apart):,} of {len(several):,} pairs measured more than once scatter with an SD over "
            f"{limit:.2g}, up to {widest:.2f} pKd apart; its replicates' usual SD is {noise:.2f}.",
            {"n_pairs": len(apart), "n_replicated": len(several), "noise_sd": noise, "largest": widest},
            "No model can fit both values; which one is right decides the bin the pair is in.",
            "Look them up: another construct, temperature or assay may be hidden. --fix keeps median and spread.",
            MERGE,
        )


def overlapping_sources(examined: Examined) -> Iterator[Finding]:
    """Find sources that state the same pairs, and how far they agree.

    Measured values are compared by their medians; a bound conflicts only with a measured value that it excludes.
    """
    if not examined.has_antibodies or len(examined.sources) < 2:
        return
    frame = _measurements(examined).filter(pl.col("known"))
    both = _met_often(frame)
    rows = _rows_of(frame, both)
    for (source,), met in sorted(both.partition_by("source", as_dict=True).items()):
        summary = (
            met.group_by("other")
            .agg(pl.len().alias("n"), pl.col("conflict").sum())
            .sort(["n", "other"], descending=[True, False])
        )
        names = [_overlap(str(name), int(n), int(apart)) for name, n, apart in summary.iter_rows()]
        n_pairs = met["pair"].n_unique()
        conflicts = met.filter("conflict")["pair"].n_unique()
        measured = met["apart"].drop_nulls().to_numpy()
        median = float(np.median(measured)) if len(measured) else None
        difference = "No pair is measured in both; " if median is None else f"Median difference {median:.2f} pKd; "
        yield Finding(
            "overlapping_sources",
            WARNING,
            str(source),
            rows[str(source)],
            f"{n_pairs:,} of its pairs are also in {listing(names, most=8)}. {difference}"
            f"{conflicts:,} pairs ({percent(conflicts / n_pairs)}) conflict.",
            {
                "n_pairs": n_pairs,
                "n_conflicts": conflicts,
                "median_difference": median,
                "with": {name: {"n_pairs": n, "n_conflicts": apart} for name, n, apart in summary.iter_rows()},
            },
            "Splitting by row, or by source, puts the same pair on both sides; conflicts set a floor under the error.",
            "Split by pair or by cluster (split.kind=pair, antibody_cluster); settle the conflicts at their origin.",
        )


def _met_often(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `source, other, pair, apart, conflict`: each pair of sources that share `FEWEST_SHARED`, from both sides.

    `apart` is null where one side has only a bound.
    """

    def stated(relation: str) -> pl.Expr:
        return pl.col("pkd").filter(pl.col("relation") == relation)

    of_source = frame.group_by("source", "pair").agg(
        stated(MEASURED).median().alias("pkd"), stated(BELOW).min().alias("most"), stated(ABOVE).max().alias("least")
    )
    shared = of_source.filter(pl.len().over("pair") > 1)
    theirs = shared.rename({"source": "other", "pkd": "pkd_other", "most": "most_other", "least": "least_other"})
    both = shared.join(theirs, on="pair").filter(pl.col("source") != pl.col("other"))
    both = both.filter(pl.len().over("source", "other") >= FEWEST_SHARED)
    apart = (pl.col("pkd") - pl.col("pkd_other")).abs()
    # Where both measured the pair, a bound beside the value says nothing more.
    excluded = pl.max_horizontal(_excess("pkd", bounds="_other"), _excess("pkd_other", bounds=""))
    conflict = (pl.coalesce(apart, excluded) > SOURCES_APART).fill_null(False)
    return both.select("source", "other", "pair", apart.alias("apart"), conflict.alias("conflict"))


def _excess(pkd: str, bounds: str) -> pl.Expr:
    """Return by how much a measured value lies beyond the bounds of the other side; null where either is missing."""
    return pl.max_horizontal(pl.col(pkd) - pl.col(f"most{bounds}"), pl.col(f"least{bounds}") - pl.col(pkd))


def _rows_of(frame: pl.DataFrame, both: pl.DataFrame) -> dict[str, Rows]:
    """Return source → the rows of the pairs that it shares with others: its own and theirs."""
    where = frame.select("row", "source", "pair")
    own = both.select("source", "pair").unique().join(where, on=("source", "pair"))
    theirs = both.select("source", "other", "pair").join(where.rename({"source": "other"}), on=("other", "pair"))
    rows = pl.concat([own.select("source", "row"), theirs.select("source", "row")]).sort("row")
    by_source = rows.group_by("source").agg("row")
    return {str(source): np.array(numbers, np.intp) for source, numbers in by_source.iter_rows()}


def _measurements(examined: Examined) -> pl.DataFrame:
    """Return `row, source, pair, pkd, relation`, and whether the pair is known: an antibody, not an empty cell."""
    return examined.frame.select(
        pl.int_range(pl.len()).alias("row"),
        "source",
        pl.Series("pair", examined.pairs),
        "pkd",
        "relation",
        ((pl.col("heavy") != "") | (pl.col("light") != "")).alias("known"),
    )


def _overlap(name: str, n: int, apart: int) -> str:
    conflicts = f", {apart:,} of them over {SOURCES_APART:g} pKd apart" if apart else ""
    return f"{name} ({n:,} pairs{conflicts})"
