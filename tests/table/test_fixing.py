"""Putting a table right: every row is in one of two places, replicates merge as said, and all of it can be undone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from benchmarks import audit as planting  # it knows how to plant each fault
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tailbind.table.audit import Audit, Finding, audit
from tailbind.table.audit.contract import ABOVE_CEILING, BELOW_FLOOR, EXCLUDE, MERGE, SWAP
from tailbind.table.fixing import BESIDE, LEFT_OUT, Fixed, fix
from tailbind.table.schema import AffinityTable

Row = tuple[str, str, float, str]


def table_of(rows: Sequence[Row], **columns: Sequence[str]) -> AffinityTable:
    """Return a table of `(source, heavy, pkd, relation)`."""
    source, heavy, pkd, relation = zip(*rows, strict=True)
    n = len(rows)
    texts = {"heavy": heavy, "light": ["DIQ"] * n, "antigen": ["MKV"] * n, "source": source, **columns}
    blank = {name: [""] * n for name in ("antigen_name", "group", "file")}
    ids = {"row_id": [str(row) for row in range(n)]}
    return planting.table_of(pl.DataFrame({**ids, "pkd": pkd, "relation": relation, **texts, **blank}))


def found(*actions: tuple[str, str, Sequence[int]]) -> Audit:
    """Return an audit with these `(rule, action, rows)`."""
    findings = tuple(
        Finding(rule, "error", "", np.array(rows, np.intp), "", {}, "", "", action) for rule, action, rows in actions
    )
    return Audit(("x",), 0, 1, findings, {})


def undone(fixed: Fixed, columns: Sequence[str]) -> pl.DataFrame:
    """Return the table as it was, from what fixing left."""
    back = fixed.cleaned.with_columns(
        pl.col("original_pkd").alias("pkd"),
        pl.col("original_relation").alias("relation"),
        *(
            pl.when(pl.col("changes").str.contains("swapped_chains")).then(other).otherwise(own).alias(own)
            for own, other in (("heavy", "light"), ("light", "heavy"))
        ),
    )
    both = pl.concat([back.select(columns), fixed.left_out.select(columns)])
    return both.sort(pl.col("row_id").cast(pl.Int64))


def check_whole(table: AffinityTable, fixed: Fixed) -> None:
    """Hold what must be so of every table and every audit."""
    cleaned, left_out = fixed.cleaned, fixed.left_out
    ids = [*cleaned["row_id"], *left_out["row_id"]]
    assert sorted(ids) == sorted(table.frame["row_id"])
    assert cleaned.columns == [*table.frame.columns, *table.feature_names, "original_pkd", "original_relation", *(
        "n_replicates", "replicate_spread", "changes",
    )]  # fmt: skip
    assert left_out.columns == [*table.frame.columns, *table.feature_names, *LEFT_OUT]
    assert (left_out["reason"] != "").all()
    merged = left_out.filter(pl.col("reason") == "merged")
    assert set(merged["kept_as"]) <= set(cleaned["row_id"])
    assert (left_out.filter(pl.col("reason") != "merged")["kept_as"] == "").all()
    stand_for = dict(merged["kept_as"].value_counts().iter_rows())
    for row_id, n in cleaned.select("row_id", "n_replicates").iter_rows():
        assert n == 1 + stand_for.get(row_id, 0)
    assert_frame_equal(undone(fixed, table.frame.columns), table.frame)


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from(["", "EVQ", "QVQ"]),
            st.sampled_from([5.0, 6.5, 7.25, 9.0]),
            st.sampled_from("=<>"),
        ),
        min_size=1,
        max_size=12,
    ),
    actions=st.lists(
        st.tuples(
            st.sampled_from([EXCLUDE, BELOW_FLOOR, ABOVE_CEILING, SWAP, MERGE, ""]),
            st.sets(st.integers(0, 11), min_size=1),
        ),
        max_size=4,
    ),
)
def test_every_row_is_in_one_place_and_all_can_be_undone(rows: list[Row], actions: list[tuple[str, set[int]]]) -> None:
    table = table_of(rows)
    before = table.frame.clone()
    names = {SWAP: "swapped_chains"}
    audited = found(*((names.get(a, f"rule {a}"), a, sorted(r for r in s if r < len(rows))) for a, s in actions))
    fixed = fix(table, audited)
    check_whole(table, fixed)
    excluded = {r for a, s in actions if a == EXCLUDE for r in s if r < len(rows)}
    assert excluded.isdisjoint(int(row_id) for row_id in fixed.cleaned["row_id"])
    assert fixed.counts["kept"] == len(fixed.cleaned)
    assert fixed.counts["merged"] == (fixed.left_out["reason"] == "merged").sum()
    assert_frame_equal(table.frame, before)


def test_several_planted_faults_at_once() -> None:
    rng = np.random.default_rng(0)
    frame = planting.clean_frame(seed=3, n_rows=800)
    frame = planting.floored(0.3, frame, rng)
    frame = planting.swapped(frame, 0.05, rng)
    frame = planting.letters("heavy", lambda s: s[:70] + "*" + s[71:])(frame, 0.02, rng)
    frame = planting.relabel(frame, planting.some(frame, 0.02, rng, "south"), np.full(len(frame), -99.0))
    frame = planting.duplicated(0.0)(frame, 10, rng)
    frame = planting.duplicated(2.0)(frame, 5, rng)
    table = planting.table_of(frame)
    audited = audit(table)
    rules = {entry.rule for entry in audited.findings}
    planted = {"floor", "swapped_chains", "stop_codon", "placeholder", "exact_duplicate", "conflicting_replicates"}
    assert rules >= planted
    fixed = fix(table, audited)
    check_whole(table, fixed)
    assert set(fixed.left_out["reason"]) == {"stop_codon", "placeholder", "merged"}
    assert fixed.counts["marked <"] == (fixed.cleaned["relation"] == "<").sum() > 50
    assert fixed.counts["swapped"] == fixed.cleaned["changes"].str.contains("swapped_chains").sum() > 0
    assert fixed.counts["merged"] >= 10
    again = planting.table_of(fixed.cleaned.select(table.frame.columns))
    assert planted.isdisjoint(entry.rule for entry in audit(again).findings)


def test_replicates_merge_by_the_median_and_their_number_and_spread_are_kept() -> None:
    rows = [("a", "EVQ", 7.0, "="), ("a", "QVQ", 6.0, "="), ("a", "EVQ", 9.0, "="), ("a", "EVQ", 7.5, "=")]
    fixed = fix(table_of(rows), found())
    assert fixed.cleaned.select("row_id", "pkd", "n_replicates", "replicate_spread", "changes").rows() == [
        ("0", 7.5, 3, 2.0, "merged"),
        ("1", 6.0, 1, 0.0, ""),
    ]
    assert fixed.cleaned["original_pkd"].to_list() == [7.0, 6.0]
    assert fixed.left_out.select("row_id", "pkd", "reason", "kept_as").rows() == [
        ("2", 9.0, "merged", "0"),
        ("3", 7.5, "merged", "0"),
    ]
    assert fixed.counts == {"kept": 2, "merged": 2, "marked <": 0, "marked >": 0, "swapped": 0}


def test_an_even_number_of_replicates_has_the_mean_of_the_middle_two() -> None:
    fixed = fix(table_of([("a", "EVQ", value, "=") for value in (7.0, 8.0, 7.5, 12.0)]), found())
    assert fixed.cleaned["pkd"].to_list() == [7.75]
    assert fixed.cleaned["replicate_spread"].to_list() == [5.0]


@pytest.mark.parametrize(("relation", "kept"), [("<", 5.0), (">", 6.0)])
def test_of_bounds_the_tightest_is_kept(relation: str, kept: float) -> None:
    fixed = fix(table_of([("a", "EVQ", value, relation) for value in (5.5, 5.0, 6.0)]), found())
    assert fixed.cleaned.select("row_id", "pkd", "relation", "n_replicates").rows() == [("0", kept, relation, 3)]
    assert fixed.cleaned["original_pkd"].to_list() == [5.5]


def test_replicates_merge_only_within_a_source_a_pair_and_a_relation() -> None:
    rows = [
        ("a", "EVQ", 7.0, "="),
        ("b", "EVQ", 7.0, "="),  # another source
        ("a", "QVQ", 7.0, "="),  # another antibody
        ("a", "EVQ", 7.0, "<"),  # another relation
        ("a", "EVQ", 7.0, "="),  # another antigen
        ("a", "EVQ", 7.0, "="),  # another light chain
    ]
    table = table_of(rows, antigen=["MKV"] * 4 + ["MKL", "MKV"], light=["DIQ"] * 5 + ["EIV"])
    fixed = fix(table, found())
    assert fixed.left_out.is_empty()
    assert fixed.cleaned["n_replicates"].to_list() == [1] * 6


def test_rows_without_an_antibody_are_no_replicates_of_each_other() -> None:
    rows = [("a", "", 7.0, "="), ("a", "", 8.0, "="), ("a", "EVQ", 8.0, "=")]
    assert fix(table_of(rows, light=["", "", "DIQ"]), found()).left_out.is_empty()
    assert fix(table_of(rows[:2], light=["", ""]), found()).left_out.is_empty()


def test_floors_and_ceilings_are_marked_before_replicates_merge() -> None:
    rows = [("a", "EVQ", 6.0, "="), ("a", "EVQ", 6.0, "="), ("a", "EVQ", 7.0, "="), ("a", "QVQ", 11.0, "=")]
    fixed = fix(table_of(rows), found(("floor", BELOW_FLOOR, [0, 1]), ("ceiling", ABOVE_CEILING, [3])))
    assert fixed.cleaned.select("row_id", "pkd", "relation", "original_relation", "changes").rows() == [
        ("0", 6.0, "<", "=", "floor; merged"),
        ("2", 7.0, "=", "=", ""),
        ("3", 11.0, ">", "=", "ceiling"),
    ]
    assert (fixed.counts["marked <"], fixed.counts["marked >"]) == (1, 1)


def test_exchanged_chains_meet_their_replicates() -> None:
    table = table_of([("a", "EVQ", 7.0, "="), ("a", "DIQ", 8.0, "=")], light=["DIQ", "EVQ"])
    fixed = fix(table, found(("swapped_chains", SWAP, [1])))
    assert fixed.cleaned.select("heavy", "light", "pkd", "n_replicates").rows() == [("EVQ", "DIQ", 7.5, 2)]
    assert fixed.left_out.select("heavy", "light", "pkd", "kept_as").rows() == [("DIQ", "EVQ", 8.0, "0")]
    alone = fix(table, found(("nucleotides", EXCLUDE, [0]), ("swapped_chains", SWAP, [1])))
    assert alone.cleaned.select("heavy", "light", "changes").rows() == [("EVQ", "DIQ", "swapped_chains")]
    assert alone.counts["swapped"] == alone.counts["nucleotides"] == 1


def test_the_worst_finding_is_the_reason_and_rows_are_counted_once() -> None:
    table = table_of([("a", "EVQ", 7.0, "="), ("a", "QVQ", 7.0, "=")])
    fixed = fix(table, found(("not_pkd", EXCLUDE, [0]), ("stop_codon", EXCLUDE, [0, 1])))
    assert fixed.left_out["reason"].to_list() == ["not_pkd", "stop_codon"]
    assert (fixed.counts["not_pkd"], fixed.counts["stop_codon"]) == (1, 1)


def test_a_table_of_which_nothing_is_left_is_empty_and_whole() -> None:
    table = table_of([("a", "EVQ", 7.0, "="), ("a", "QVQ", 7.0, "=")])
    fixed = fix(table, found(("not_pkd", EXCLUDE, [0, 1])))
    assert fixed.cleaned.is_empty()
    check_whole(table, fixed)


def test_a_clean_table_comes_back_unchanged() -> None:
    table = planting.table_of(planting.clean_frame(seed=5, n_rows=300))
    fixed = fix(table, audit(table, numbering=False))
    assert_frame_equal(fixed.cleaned.drop(BESIDE), table.frame)
    assert fixed.left_out.is_empty()
    assert (fixed.cleaned["changes"] == "").all()
    assert fixed.cleaned["n_replicates"].to_list() == [1] * len(table)
    assert fixed.cleaned["original_pkd"].to_list() == table.pkd.tolist()


def test_features_survive_and_empty_ones_stay_empty() -> None:
    table = table_of([("a", "EVQ", 7.0, "="), ("a", "QVQ", 7.0, "="), ("a", "EVQ", 8.0, "=")])
    features = np.array([[1.5, 2.5], [np.nan, np.nan], [3.5, 4.5]], np.float32)
    table = replace(table, features=features.copy(), feature_names=("e_0", "e_1"))
    fixed = fix(table, found())
    assert fixed.cleaned.select("e_0", "e_1").rows() == [(1.5, 2.5), (None, None)]
    assert fixed.left_out.select("e_0", "e_1").rows() == [(3.5, 4.5)]
    assert fixed.cleaned.schema["e_0"] == pl.Float32
    np.testing.assert_array_equal(table.features, features)


def test_a_whole_file_may_be_left_out() -> None:
    files = [table_of([("a", "EVQ", 7.0, "=")] * 3), table_of([("b", "QVQ", 1.0, "=")] * 2)]
    frame = pl.concat([files[0].frame, files[1].frame, files[0].frame], rechunk=False)
    table = planting.table_of(frame)
    fixed = fix(table, found(("not_pkd", EXCLUDE, [3, 4])))
    assert fixed.cleaned.select("row_id", "n_replicates").rows() == [("0", 6)]
    check_whole(table, fixed)
