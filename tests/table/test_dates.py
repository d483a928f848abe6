"""By date: the past is trained on, the future is the test."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbind.errors import SplitError
from tailbind.table.dates import DateSplit, dates


def frame_of(values: list[object]) -> pl.DataFrame:
    """Return a frame with row ids and a column of dates."""
    return pl.DataFrame({"row_id": [f"r{row}" for row in range(len(values))], "date": pl.Series(values, strict=False)})


DAYS = st.lists(st.integers(1990, 2025), min_size=3, max_size=80)


@given(DAYS)
def test_parts_follow_in_time_and_no_date_is_on_two_sides(years: list[int]) -> None:
    if len(set(years)) < 3:
        with pytest.raises(
            SplitError, match=rf"A date split needs at least 3 different dates; .* has {len(set(years))}"
        ):
            DateSplit()(frame_of(years))
        return
    parts, time = DateSplit()(frame_of(years)), np.array(years)
    assert time[parts == "train"].max() < time[parts == "val"].min()
    assert time[parts == "val"].max() < time[parts == "test"].min()
    assert set(parts) == {"train", "val", "test"}


def test_shares_are_as_near_as_whole_dates_allow() -> None:
    parts = DateSplit()(frame_of([str(year) for year in np.repeat(np.arange(1900, 2000), 10)]))
    assert [int((parts == part).sum()) for part in ("train", "val", "test")] == [700, 150, 150]
    parts = DateSplit(test_fraction=0.3, val_fraction=0.2)(frame_of(["2001"] * 5 + ["2002"] * 2 + ["2003"] * 3))
    assert parts.tolist() == ["train"] * 5 + ["val"] * 2 + ["test"] * 3
    heaped = DateSplit()(frame_of(["2001"] * 97 + ["2002", "2003", "2004"]))
    assert [int((heaped == part).sum()) for part in ("train", "val", "test")] == [97, 1, 2]


@given(st.lists(st.integers(1, 40), min_size=5, max_size=80), st.integers(3, 6))
def test_windows_expand_and_from_the_third_block_on_each_row_is_tested_once(days: list[int], n_folds: int) -> None:
    if len(set(days)) < n_folds + 2:
        with pytest.raises(SplitError, match=rf"into {n_folds} folds needs at least {n_folds + 2} different dates"):
            DateSplit(n_folds=n_folds)(frame_of(days))
        return
    time = np.array(days)
    splits = [DateSplit(n_folds=n_folds, fold=fold)(frame_of(days)) for fold in range(n_folds)]
    tested = np.stack([parts == "test" for parts in splits]).sum(axis=0)
    first = time[splits[0] == "test"].min()
    assert (tested == (time >= first)).all()
    for parts in splits:
        newest = {part: time[parts == part].max() for part in ("train", "val", "test")}
        assert newest["train"] < time[parts == "val"].min()
        assert newest["val"] < time[parts == "test"].min()
        assert (time[parts == "later"] > newest["test"]).all()
    for before, after in pairwise(splits):
        assert ((after == "train") == np.isin(before, ["train", "val"])).all()
    assert not (splits[-1] == "later").any()


def test_dates_years_and_numbers_are_read_in_order() -> None:
    iso = ["2021-03-30", "2020-12-31", " 2021-03-30T08:15:00Z", "2021-03-30 23:59"]
    found = dates(frame_of(iso), "date")
    assert found[0] == found[2] == found[3] == found[1] + 89
    assert dates(frame_of(["1999", "2001.5", "-3", "1e3"]), "date").tolist() == [1999, 2001.5, -3, 1000]
    as_dates = frame_of(["2020-01-02", "2020-01-01"]).with_columns(pl.col("date").str.to_date())
    assert np.diff(dates(as_dates, "date")).tolist() == [-1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["2020-01-01", "2020-02-01", "2021"], r"and one kind alone; got '2021' in 1 rows \(row_id r2\)"),
        (["2020", "spring", "2021", "autumn"], r"got 'spring' in 2 rows \(row_id r1, r3\)"),
        (["2020-13-01", "2020-02-30", "2020-01-01"], r"got '2020-13-01' in 2 rows \(row_id r0, r1\)"),
        (["nan", "2020", "inf"], r"got 'nan' in 2 rows \(row_id r0, r2\)"),
        (["30.03.2021"], r"Column 'date' must hold ISO dates such as 2021-03-30, or years, or numbers"),
        (["2020", "", "2021"], r"Column 'date' must not be empty; 1 rows are \(row_id r1\)"),
    ],
)
def test_what_is_no_date_is_located(values: list[object], message: str) -> None:
    with pytest.raises(SplitError, match=message):
        DateSplit()(frame_of(values))


def test_a_column_that_is_not_there_is_told() -> None:
    with pytest.raises(
        SplitError, match=r"split\.column must name a column of the table; got 'dat'; did you mean 'date'"
    ):
        DateSplit(column="dat")(frame_of(["2020"]))
