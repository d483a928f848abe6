from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from tailbind.errors import SplitError
from tailbind.scale import bin_index
from tailbind.table import SPLITS
from tailbind.table.schema import CANONICAL, AffinityTable
from tailbind.table.splitting import (
    PARTS,
    PROMISES,
    ColumnSplit,
    GroupSplit,
    PairSplit,
    ParentSplit,
    RandomSplit,
    StratifiedSplit,
    pair_index,
    part_rows,
)


def frame_of(n: int, **columns: Iterable[object]) -> pl.DataFrame:
    """Return a frame of canonical columns, empty but for those given."""
    plain: dict[str, object] = {name: [""] * n for name in CANONICAL}
    plain |= {"row_id": [f"r{row}" for row in range(n)], "pkd": [7.0] * n, "relation": ["="] * n}
    return pl.DataFrame({**plain, **{name: list(values) for name, values in columns.items()}})


def sides(values: Sequence[object], parts: NDArray[np.str_]) -> dict[object, set[str]]:
    """Return value → the parts it occurs in."""
    found: dict[object, set[str]] = {}
    for value, part in zip(values, parts.tolist(), strict=True):
        found.setdefault(value, set()).add(part)
    return found


def test_every_kind_says_what_it_promises() -> None:
    assert set(PROMISES) == set(SPLITS)


# --- random ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "seed"), [(20, 42), (1000, 42), (1001, 42), (997, 7), (330_762, 42)])
def test_random_is_scikit_learns_two_calls_row_for_row(n: int, seed: int) -> None:
    rows = np.arange(n)
    rest, test = train_test_split(rows, test_size=0.15, random_state=seed)
    train, val = train_test_split(rest, test_size=0.15 / 0.85, random_state=seed)
    split = part_rows(RandomSplit(seed=seed).draw(n))
    assert split["train"].tolist() == sorted(train)
    assert split["val"].tolist() == sorted(val)
    assert split["test"].tolist() == sorted(test)


def test_the_seeds_table_gives_the_seeds_counts() -> None:
    names, counts = np.unique(RandomSplit().draw(330_762), return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {"train": 231_532, "val": 49_615, "test": 49_615}


def test_random_looks_at_the_number_of_rows_alone(table: AffinityTable) -> None:
    drawn = RandomSplit()(table.frame)
    assert np.array_equal(drawn, RandomSplit()(table.frame.sort("pkd")))
    assert not np.array_equal(drawn, RandomSplit(seed=43)(table.frame))
    assert set(drawn) == set(PARTS)


def test_fractions_may_be_chosen() -> None:
    split = part_rows(RandomSplit(test_fraction=0.2, val_fraction=0.1).draw(1000))
    assert {name: len(rows) for name, rows in split.items()} == {"train": 700, "val": 100, "test": 200}


@pytest.mark.parametrize("cls", [RandomSplit, StratifiedSplit, PairSplit, GroupSplit])
def test_fractions_must_leave_rows_to_train_on(cls: type[RandomSplit], table: AffinityTable) -> None:
    with pytest.raises(
        SplitError, match=r"split\.test_fraction and split\.val_fraction must leave rows .*got 0\.5 \+ 0\.5"
    ):
        cls(test_fraction=0.5, val_fraction=0.5)(table.frame)


def test_too_few_rows_cannot_be_shared_out() -> None:
    with pytest.raises(SplitError, match=r"more to share out; there are 2 rows or groups\. Add"):
        RandomSplit()(frame_of(2))


# --- stratified --------------------------------------------------------------------------------------


def test_every_bin_is_shared_out_alike() -> None:
    pkd = np.repeat([4.0, 6.0, 8.0, 10.0, 12.0], [40, 2000, 1000, 500, 20])
    parts = StratifiedSplit()(frame_of(len(pkd), pkd=np.random.default_rng(0).permutation(pkd)))
    parts_in_order = StratifiedSplit()(frame_of(len(pkd), pkd=pkd))
    for index, n in enumerate([40, 2000, 1000, 500, 20]):
        members = parts_in_order[bin_index(pkd) == index]
        counts = {part: int((members == part).sum()) for part in PARTS}
        assert counts == {"train": n - 2 * round(0.15 * n), "val": round(0.15 * n), "test": round(0.15 * n)}
    assert (parts == "test").sum() == (parts_in_order == "test").sum()


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, ["train"]), (2, ["test", "train"]), (3, ["test", "train", "val"]), (4, ["test", "train", "train", "val"])],
)
def test_a_rare_bin_is_in_every_part_it_can_be_in(n: int, expected: list[str]) -> None:
    pkd = np.concatenate([np.full(100, 6.0), np.full(n, 12.0)])
    parts = StratifiedSplit()(frame_of(len(pkd), pkd=pkd))
    assert sorted(parts[100:].tolist()) == expected


def test_stratified_depends_on_the_seed_alone(table: AffinityTable) -> None:
    first = StratifiedSplit()(table.frame)
    assert np.array_equal(first, StratifiedSplit()(table.frame))
    assert not np.array_equal(first, StratifiedSplit(seed=1)(table.frame))


# --- pair --------------------------------------------------------------------------------------------


CHAINS = st.sampled_from(["", "A", "C"])
PAIRED_ROWS = st.lists(st.tuples(CHAINS, CHAINS, CHAINS, CHAINS, CHAINS), min_size=1, max_size=60)


def identity(row: tuple[str, str, str, str, str], number: int) -> object:
    heavy, light, antigen, name, source = row
    if not heavy and not light:
        return number
    stands_for = ("sequence", antigen) if antigen else ("name", name) if name else ("source", source)
    return heavy, light, stands_for


def pair_frame(rows: Sequence[tuple[str, str, str, str, str]]) -> pl.DataFrame:
    heavy, light, antigen, name, source = zip(*rows, strict=True)
    return frame_of(len(rows), heavy=heavy, light=light, antigen=antigen, antigen_name=name, source=source)


@given(PAIRED_ROWS)
def test_rows_are_one_pair_just_when_they_are_the_same_molecules(rows: list[tuple[str, str, str, str, str]]) -> None:
    assume(any(row[0] or row[1] for row in rows))
    pairs = pair_index(pair_frame(rows))
    by_identity: dict[object, int] = {}
    expected = [by_identity.setdefault(identity(row, number), len(by_identity)) for number, row in enumerate(rows)]
    assert pairs.tolist() == expected


@given(PAIRED_ROWS, st.integers(0, 99))
def test_no_pair_is_on_two_sides(rows: list[tuple[str, str, str, str, str]], seed: int) -> None:
    assume(any(row[0] or row[1] for row in rows))
    identities = [identity(row, number) for number, row in enumerate(rows)]
    assume(len(set(identities)) >= 6)
    parts = PairSplit(seed=seed)(pair_frame(rows))
    assert all(len(parts_of) == 1 for parts_of in sides(identities, parts).values())
    assert set(parts) == set(PARTS)


def test_the_antigens_name_then_its_source_stand_for_its_sequence() -> None:
    rows = [
        ("H", "L", "AG", "x", "s1"),
        ("H", "L", "AG", "y", "s2"),  # the sequence says it is the same
        ("H", "L", "", "spike", "s1"),
        ("H", "L", "", "spike", "s2"),
        ("H", "L", "", "other", "s1"),
        ("H", "L", "", "", "s1"),
        ("H", "L", "", "", "s1"),
        ("H", "L", "", "", "s2"),
        ("H", "L", "spike", "", ""),  # a sequence that reads like a name is not one
        ("H", "L", "", "s1", ""),
        ("", "", "AG", "", ""),
        ("", "", "AG", "", ""),  # without an antibody each row is its own
    ]
    assert pair_index(pair_frame(rows)).tolist() == [0, 0, 1, 1, 2, 3, 3, 4, 5, 6, 7, 8]


def test_pairs_of_a_real_table_stay_together(table: AffinityTable) -> None:
    doubled = pl.concat([table.frame, table.frame.with_columns(row_id=pl.format("again {}", "row_id"))])
    parts = PairSplit()(doubled)
    assert np.array_equal(parts[: len(table)], parts[len(table) :])
    shares = [float((parts == part).mean()) for part in PARTS]
    assert shares == pytest.approx([0.7, 0.15, 0.15], abs=0.05)


def test_pairs_need_sequences() -> None:
    with pytest.raises(SplitError, match=r"A pair split needs heavy or light sequences; .* Use split\.kind=random"):
        PairSplit()(frame_of(30, antigen=["M"] * 30))


# --- group -------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 12), min_size=3, max_size=80), st.integers(0, 99))
def test_no_group_is_on_two_sides_and_no_part_is_empty(groups: list[int], seed: int) -> None:
    assume(len(set(groups)) >= 3)
    names = [f"g{group}" for group in groups]
    parts = GroupSplit(seed=seed)(frame_of(len(names), group=names))
    assert all(len(parts_of) == 1 for parts_of in sides(names, parts).values())
    assert set(parts) == set(PARTS)


def test_groups_come_near_to_the_shares_of_rows() -> None:
    rng = np.random.default_rng(0)
    names = [f"g{group}" for group in rng.integers(200, size=4000)]
    parts = GroupSplit()(frame_of(4000, group=names))
    assert [float((parts == part).mean()) for part in PARTS] == pytest.approx([0.7, 0.15, 0.15], abs=0.03)


def test_any_column_may_group(table: AffinityTable) -> None:
    parts = GroupSplit(column="source")(table.frame)
    assert len(sides(table.source.tolist(), parts)) == 3
    assert sorted(part for found in sides(table.source.tolist(), parts).values() for part in found) == sorted(PARTS)


def test_too_few_groups_are_told() -> None:
    with pytest.raises(
        SplitError,
        match=r"A group split needs at least 3 groups; column 'group' has 2\. Choose another column or split",
    ):
        GroupSplit()(frame_of(30, group=["a", "b"] * 15))


def test_a_group_column_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(
        SplitError, match=r"split\.column must name a column of the table; got 'sorce'; did you mean 'source'\?"
    ):
        GroupSplit(column="sorce")(frame_of(30))


def test_rows_without_group_are_located() -> None:
    groups = ["a", "b", "c", "", " ", None, "", "d"]
    with pytest.raises(
        SplitError, match=r"Column 'group' must not be empty; 4 rows are \(row_id r3, r4, r5\)\. Fill it to split by it"
    ):
        GroupSplit()(frame_of(len(groups), group=groups))


def test_groups_are_stratified_as_far_as_they_allow() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(150), 20)
    # The label belongs to the group: rare bins come in lumps, which chance alone puts anywhere.
    pkd = np.choose(rng.choice(5, 150, p=[0.04, 0.5, 0.3, 0.12, 0.04]), [4.0, 6.0, 8.0, 10.0, 12.0])[groups]
    frame = frame_of(3000, group=[f"g{group}" for group in groups], pkd=pkd)
    bins, targets = bin_index(pkd), {"train": 0.7, "val": 0.15, "test": 0.15}

    def unevenness(parts: NDArray[np.str_]) -> float:
        return sum(
            abs(float((parts[bins == index] == part).mean()) - target)
            for index in range(5)
            for part, target in targets.items()
        )

    even = unevenness(GroupSplit()(frame))
    uneven = [unevenness(GroupSplit(stratify=False, seed=seed)(frame)) for seed in range(10)]
    assert even < 0.5 * min(uneven)
    for part, target in targets.items():
        assert float((GroupSplit()(frame) == part).mean()) == pytest.approx(target, abs=0.02)


def test_stratify_looks_at_labels_and_without_it_nobody_does() -> None:
    rng = np.random.default_rng(1)
    names = [f"g{group}" for group in rng.integers(60, size=600)]
    one, other = (frame_of(600, group=names, pkd=rng.uniform(3, 13, 600)) for _ in range(2))
    assert not np.array_equal(GroupSplit()(one), GroupSplit()(other))
    assert np.array_equal(GroupSplit(stratify=False)(one), GroupSplit(stratify=False)(other))


def test_a_small_part_has_its_portion_of_large_groups() -> None:
    # 100 groups of 20 rows and 400 of one: by rows alone the large ones could all be in training.
    names = [f"large{i // 20}" for i in range(2000)] + [f"small{i}" for i in range(400)]
    parts = GroupSplit()(frame_of(2400, group=names))
    assert [float((parts[:2000] == part).mean()) for part in PARTS] == pytest.approx([0.7, 0.15, 0.15], abs=0.02)


def test_equal_groups_are_drawn_by_the_seed() -> None:
    frame = frame_of(200, group=[f"g{i // 2}" for i in range(200)])
    assert np.array_equal(GroupSplit()(frame), GroupSplit()(frame))
    assert not np.array_equal(GroupSplit()(frame), GroupSplit(seed=1)(frame))


@pytest.mark.parametrize("largest", [90, 95, 99])
def test_one_group_of_nearly_all_rows_is_training(largest: int) -> None:
    names = ["all"] * largest + [f"g{i}" for i in range(100 - largest)] + ["last"]
    parts = GroupSplit()(frame_of(len(names), group=names))
    assert set(parts[:largest]) == {"train"}
    assert set(parts) == set(PARTS)


# --- folds -------------------------------------------------------------------------------------------


def partition(splits: Sequence[NDArray[np.str_]]) -> None:
    """Check that every row is tested once and validated once, and trained on in every other fold."""
    stacked = np.stack(splits)
    assert ((stacked == "test").sum(axis=0) == 1).all()
    assert ((stacked == "val").sum(axis=0) == 1).all()
    assert ((stacked == "train").sum(axis=0) == len(splits) - 2).all()
    for fold, parts in enumerate(splits):
        assert set(parts) == set(PARTS)
        assert np.array_equal(parts == "val", splits[(fold + 1) % len(splits)] == "test")


@settings(deadline=None)
@given(st.integers(3, 7), st.integers(7, 60), st.integers(0, 99))
def test_over_all_folds_each_row_is_tested_once(n_folds: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = frame_of(
        n,
        pkd=rng.uniform(3, 13, n),
        heavy=[f"H{i}" for i in range(n)],
        group=[f"g{i % 7}" for i in range(n)],
        complex=[f"c{i % 8}" for i in range(n)],
    )
    for cls in (RandomSplit, StratifiedSplit, PairSplit, GroupSplit, ParentSplit):
        partition([cls(seed=seed, n_folds=n_folds, fold=fold)(frame) for fold in range(n_folds)])


def test_folds_are_of_equal_size_and_of_equal_bins_where_stratified() -> None:
    pkd = np.repeat([4.0, 6.0, 8.0, 10.0, 12.0], [7, 401, 299, 91, 3])
    for cls, of_bins in ((RandomSplit, False), (StratifiedSplit, True)):
        tests = [cls(n_folds=5, fold=fold)(frame_of(801, pkd=pkd)) == "test" for fold in range(5)]
        assert sorted(int(test.sum()) for test in tests) == [160, 160, 160, 160, 161]
        spread = [np.ptp([int(test[bin_index(pkd) == index].sum()) for test in tests]) for index in range(5)]
        assert bool(max(spread) <= 1) is of_bins


def test_folds_of_pairs_keep_pairs_together() -> None:
    frame = frame_of(60, heavy=[f"H{i % 13}" for i in range(60)])
    for fold in range(4):
        parts = PairSplit(n_folds=4, fold=fold)(frame)
        assert all(len(found) == 1 for found in sides(frame["heavy"].to_list(), parts).values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_folds": 2}, r"split\.n_folds must be 0 \(no folds\) or at least 3, one fold a part; got 2"),
        ({"n_folds": 1}, r"split\.n_folds must be 0 \(no folds\) or at least 3"),
        ({"n_folds": 5, "fold": 5}, r"split\.fold must be 0 to 4 for split\.n_folds=5; got 5"),
        ({"fold": 1}, r"split\.fold=1 needs split\.n_folds, which is 0"),
    ],
)
@pytest.mark.parametrize("cls", [RandomSplit, StratifiedSplit, PairSplit, GroupSplit, ParentSplit])
def test_folds_that_are_none_are_told(cls: type[RandomSplit], options: dict[str, int], message: str) -> None:
    frame = frame_of(30, heavy=["H"] * 30, group=[f"g{i % 9}" for i in range(30)], parent=["p"] * 30)
    with pytest.raises(SplitError, match=message):
        cls(**options)(frame)


def test_fewer_things_than_folds_are_told() -> None:
    frame = frame_of(4, heavy=["H", "I", "J", "J"], group=["a", "b", "c", "d"])
    with pytest.raises(SplitError, match="A group split into 5 folds needs at least 5 groups; column 'group' has 4"):
        GroupSplit(n_folds=5)(frame)
    for split in (RandomSplit(n_folds=5), PairSplit(n_folds=4)):
        with pytest.raises(SplitError, match=r"into \d folds needs as many things to share out; there are \d"):
            split(frame)
    with pytest.raises(SplitError, match="into 5 folds needs as many rows; there are 4"):
        StratifiedSplit(n_folds=5)(frame)


# --- column ------------------------------------------------------------------------------------------


def test_a_stated_split_in_any_spelling() -> None:
    stated = ["train", "Training", " val", "VALID", "validation", "dev", "Test", "testing "]
    parts = ColumnSplit()(frame_of(len(stated), split=stated))
    assert parts.tolist() == ["train", "train", "val", "val", "val", "val", "test", "test"]
    assert ColumnSplit(column="fold")(frame_of(3, fold=["test", "val", "train"])).tolist() == ["test", "val", "train"]


def test_an_unknown_word_is_located() -> None:
    stated = ["train", "val", "test", "holdout", "holdout", "1"]
    with pytest.raises(
        SplitError,
        match=r"Column 'split' must say train, val or test; got 'holdout' in 3 rows \(row_id r3, r4, r5\)",
    ):
        ColumnSplit()(frame_of(len(stated), split=stated))


@pytest.mark.parametrize("absent", PARTS)
def test_a_part_without_rows_is_told(absent: str) -> None:
    stated = [part for part in PARTS if part != absent] * 3
    with pytest.raises(SplitError, match=rf"must put rows in train, val and test; none is {absent}"):
        ColumnSplit()(frame_of(len(stated), split=stated))


def test_empty_cells_and_no_column_are_told() -> None:
    with pytest.raises(SplitError, match=r"Column 'split' must not be empty; 1 rows are \(row_id r1\)"):
        ColumnSplit()(frame_of(3, split=["train", "", "test"]))
    with pytest.raises(SplitError, match=r"split\.column must name a column of the table; got 'split'"):
        ColumnSplit()(frame_of(3))


def test_splitting_changes_nothing(table: AffinityTable) -> None:
    before = table.frame.clone()
    for split in (RandomSplit(), StratifiedSplit(), PairSplit(), GroupSplit(column="source")):
        split(table.frame)
    assert table.frame.equals(before)
