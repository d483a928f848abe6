"""What an audit found, put right: labels marked, replicates merged, rows left out. Nothing is lost.

Every row of the table is in exactly one of two frames: the cleaned one, or the one of rows left out, which
says why. What was changed in a cleaned row is beside it under `original_…`, so that all of it can be undone.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.table.audit import Audit
from tailbind.table.audit.contract import ABOVE_CEILING, BELOW_FLOOR, EXCLUDE, SWAP
from tailbind.table.reading import NO_LABEL
from tailbind.table.schema import ABOVE, BELOW, MEASURED, AffinityTable
from tailbind.table.splitting import pair_index

Rows = NDArray[np.intp]

#: What the cleaned table says beside each row: what was changed in it, and what it was before.
BESIDE: Final = ("changes", "original_pkd", "original_relation", "n_replicates", "replicate_spread")
LEFT_OUT: Final = ("reason", "kept_as")


@dataclass(frozen=True)
class Fixed:
    """A table put right.

    Attributes
    ----------
    cleaned : the rows kept, with `BESIDE`; `n_replicates` measurements became one, `replicate_spread` apart
    left_out : the others, as they were, with `reason` and, where merged, the row that stands for them
    counts : what was done → rows
    """

    cleaned: pl.DataFrame
    left_out: pl.DataFrame
    counts: dict[str, int]


def fix(table: AffinityTable, audit: Audit, unlabelled: pl.DataFrame | None = None) -> Fixed:
    """Return the table with what the audit found put right where that needs no person.

    Rows that a finding says to exclude are left out. Floors and ceilings get their relation. Chains in each
    other's column are exchanged. Then measurements of one pair by one source, with the same relation, become
    one: the median of measured labels; of bounds the tightest.

    Parameters
    ----------
    table : as the audit saw it; features, where it has them, go along
    audit : of this very table
    unlabelled : further rows of the file, which have no label; they are left out for that
    """
    n = len(table)
    excluded: dict[int, str] = {}
    changes: list[list[str]] = [[] for _ in range(n)]
    relation = table.relation.astype(object)
    swapped = np.zeros(n, dtype=bool)
    for finding in audit.findings:
        if finding.action == EXCLUDE:
            for row in finding.rows:
                excluded.setdefault(int(row), finding.rule)
        elif finding.action in (BELOW_FLOOR, ABOVE_CEILING):
            relation[finding.rows] = BELOW if finding.action == BELOW_FLOOR else ABOVE
            for row in finding.rows:
                changes[row].append(finding.rule)
        elif finding.action == SWAP:
            swapped[finding.rows] = True
            for row in finding.rows:
                changes[row].append(finding.rule)
    whole = with_features(table)
    frame = whole.with_columns(
        pl.Series("relation", relation.astype(str)),
        pl.when(pl.Series(swapped)).then("light").otherwise("heavy").alias("heavy"),
        pl.when(pl.Series(swapped)).then("heavy").otherwise("light").alias("light"),
        pl.Series("original_pkd", table.pkd),
        pl.Series("original_relation", table.relation),
    ).with_row_index("__row")
    # In one piece: where a whole file is left out, polars fails on the empty piece (pl.format, 2.1).
    kept = frame.filter(~pl.col("__row").is_in(list(excluded))).rechunk()
    merged = _merge(kept)
    represented = _represented(kept, merged)
    for row in merged.filter(pl.col("n_replicates") > 1)["__row"]:
        changes[row].append("merged")
    done = pl.Series("changes", ["; ".join(changes[row]) for row in merged["__row"]], dtype=pl.String)
    cleaned = merged.with_columns(done)
    reasons = {**excluded, **dict.fromkeys(represented, "merged")}
    gone = sorted(reasons)
    left_out = whole[gone].with_columns(
        pl.Series("reason", [reasons[row] for row in gone], dtype=pl.String),
        pl.Series("kept_as", [represented.get(row, "") for row in gone], dtype=pl.String),
    )
    if unlabelled is not None and len(unlabelled):
        without = unlabelled.with_columns(pl.lit(NO_LABEL).alias("reason"), pl.lit("").alias("kept_as"))
        left_out = pl.concat([left_out, without], how="diagonal_relaxed")
        reasons |= {n + row: NO_LABEL for row in range(len(unlabelled))}
    counts = {"kept": len(cleaned), "merged": len(represented)}
    for reason in (reason for reason in reasons.values() if reason != "merged"):
        counts[reason] = counts.get(reason, 0) + 1
    remarked = cleaned["relation"] != cleaned["original_relation"]
    for mark in (BELOW, ABOVE):
        counts[f"marked {mark}"] = int((remarked & (cleaned["relation"] == mark)).sum())
    counts["swapped"] = int(swapped[cleaned["__row"].to_numpy()].sum())
    return Fixed(cleaned.drop("__row"), left_out, counts)


def with_features(table: AffinityTable) -> pl.DataFrame:
    """Return the table's frame with its feature columns, empty where they are NaN."""
    if not table.feature_names:
        return table.frame
    block = pl.from_numpy(table.features[:], schema=list(table.feature_names))
    return table.frame.hstack(block.select(pl.all().fill_nan(None)))


def _keys(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `source, __pair, relation`: what must agree for rows to be replicates."""
    known = ((frame["heavy"] != "") | (frame["light"] != "")).any()
    pairs = pair_index(frame) if known else np.arange(len(frame))
    return frame.select("source", pl.Series("__pair", pairs), "relation")


def _merge(frame: pl.DataFrame) -> pl.DataFrame:
    """Return one row for the replicates of each pair: the first one's, with the label of all."""
    keys = _keys(frame)
    over = ("source", "__pair", "relation")
    label = (
        pl.when(pl.col("relation") == MEASURED)
        .then(pl.col("pkd").median().over(over))
        .when(pl.col("relation") == BELOW)
        .then(pl.col("pkd").min().over(over))
        .otherwise(pl.col("pkd").max().over(over))
    )
    return (
        frame.with_columns(keys["__pair"])
        .with_columns(
            label.alias("__label"),
            pl.len().over(over).alias("n_replicates"),
            (pl.col("pkd").max().over(over) - pl.col("pkd").min().over(over)).alias("replicate_spread"),
            (pl.col("__row") == pl.col("__row").min().over(over)).alias("__first"),
        )
        .filter("__first")
        .with_columns(pl.col("__label").alias("pkd"))
        .drop("__label", "__first", "__pair")
    )


def _represented(kept: pl.DataFrame, merged: pl.DataFrame) -> dict[int, str]:
    """Return row → row_id of the row that stands for it, for the rows that a merge took away."""
    over = ("source", "__pair", "relation")
    first = kept.with_columns(_keys(kept)["__pair"]).select(
        "__row", pl.col("row_id").sort_by("__row").first().over(over).alias("kept_as")
    )
    away = first.filter(~pl.col("__row").is_in(merged["__row"].implode()))
    return dict(zip(away["__row"].to_list(), away["kept_as"].to_list(), strict=True))
