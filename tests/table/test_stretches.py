"""A file is read a stretch at a time; nobody must be able to tell, from what is read or from what is refused."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tailbind.errors import FeatureError, TableError
from tailbind.table.opening import open_source
from tailbind.table.reading import NO_FEATURES, NO_LABEL, read_table
from tailbind.table.stretches import ROWS, read_stretches

N = 2 * ROWS + 100
BLOCK = [f"e_{index}" for index in range(5)]


def cells() -> dict[str, list[str]]:
    """Columns of a table of more than two stretches, as text."""
    values = np.random.default_rng(0).normal(size=(N, len(BLOCK))).astype(np.float32)
    labels = [f"{value:.3f}" for value in np.linspace(4, 11, N)]
    return {
        "pKd": labels,
        "note": [f"n{row}" for row in range(N)],
        **{name: [repr(float(value)) for value in values[:, position]] for position, name in enumerate(BLOCK)},
    }


def written(path: Path, columns: dict[str, list[str]]) -> Path:
    pl.DataFrame(columns).write_csv(path, quote_style="never")
    return path


def test_a_long_table_reads_as_one_that_is_read_at_once(tmp_path: Path) -> None:
    columns = cells()
    for row in (3, ROWS - 1, ROWS, N - 1):
        columns["e_2"][row] = ""
    for row in (4, ROWS + 1):
        columns["pKd"][row] = ""
    columns["note"][ROWS + 7] = '"two\nlines, and a comma"'
    table = read_table(written(tmp_path / "t.csv", columns))
    kept = np.setdiff1d(np.arange(N), [3, ROWS - 1, ROWS, N - 1, 4, ROWS + 1])
    expected = pl.DataFrame({name: columns[name] for name in BLOCK}).cast(pl.Float32, strict=False).to_numpy()[kept]
    np.testing.assert_array_equal(table.features, expected)
    assert table.features.flags.c_contiguous
    assert table.frame["row_id"].to_list() == [str(row) for row in kept]
    assert table.frame["note"][ROWS + 7 - 4 - 1] == "two\nlines, and a comma"
    np.testing.assert_array_equal(table.pkd, [float(columns["pKd"][row]) for row in kept])
    assert table.report.n_read == N
    assert table.report.dropped == {NO_LABEL: 2, NO_FEATURES: 4}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_stretches_are_of_the_length_asked_for(tmp_path: Path, form: str) -> None:
    frame = pl.DataFrame(cells()).with_columns(pl.col(BLOCK).cast(pl.Float32))
    path = tmp_path / f"t.{form}"
    frame.write_csv(path) if form == "csv" else frame.write_parquet(path, row_group_size=300)
    stretches = list(read_stretches(open_source(path), BLOCK[::-1], others=True, rows=5000))
    assert [len(stretch.raw) for stretch in stretches] == [5000, 5000, 5000, N - 15_000]
    assert stretches[0].raw.columns == ["pKd", "note"]
    whole = np.concatenate([stretch.block for stretch in stretches])
    np.testing.assert_array_equal(whole, frame.select(BLOCK[::-1]).to_numpy())


def test_words_for_empty_far_down_change_nothing_above(tmp_path: Path) -> None:
    columns = cells()
    plain = read_table(written(tmp_path / "t.csv", columns), keep_incomplete=True)
    columns["e_1"][N - 2] = "NA"
    columns["e_3"][ROWS + 2] = " n/a "
    words = read_table(written(tmp_path / "t.csv", columns), keep_incomplete=True)
    expected = plain.features.copy()
    expected[N - 2, 1] = expected[ROWS + 2, 3] = np.nan
    np.testing.assert_array_equal(words.features, expected)
    assert words.frame.equals(plain.frame)


def test_text_is_counted_over_the_whole_file_and_the_first_column_named(tmp_path: Path) -> None:
    columns = cells()
    columns["e_3"][1] = "early"
    for row in (ROWS + 1, N - 3, N - 2, N - 1):
        columns["e_1"][row] = f"many{row}"
    lines = rf"lines {ROWS + 3}, {N - 1}, {N} and 1 more"
    with pytest.raises(
        FeatureError, match=rf"t\.csv: e_1 must hold numbers; got 'many{ROWS + 1}' \({lines}\)\. Correct"
    ):
        read_table(written(tmp_path / "t.csv", columns))


def test_infinite_numbers_are_counted_over_the_whole_file(tmp_path: Path) -> None:
    columns = cells()
    columns["e_4"][0] = columns["e_2"][ROWS] = columns["e_2"][N - 1] = "inf"
    columns["e_2"][ROWS - 1] = "1e39"
    with pytest.raises(
        FeatureError,
        match=rf"e_2 must hold finite numbers that fit float32; got an infinite one "
        rf"\(lines {ROWS + 1}, {ROWS + 2}, {N + 1}\)",
    ):
        read_table(written(tmp_path / "t.csv", columns))
    columns["pKd"][N - 1] = "strong"  # labels are looked at first
    with pytest.raises(TableError, match=rf"pKd must hold numbers; got 'strong' \(line {N + 1}\)"):
        read_table(written(tmp_path / "t.csv", columns))


def test_other_numbers_stay_text_where_one_of_them_is_none(tmp_path: Path) -> None:
    columns = cells()
    others = {f"r_{index}": [f"{row}.50" for row in range(N)] for index in range(5)}
    numbers = read_table(written(tmp_path / "t.csv", columns | others), feature_prefix="e_")
    assert numbers.frame["r_0"].to_list()[:2] == [0.5, 1.5]
    others["r_0"][N - 1] = "odd"
    mixed = read_table(written(tmp_path / "t.csv", columns | others), feature_prefix="e_")
    assert mixed.frame["r_0"].to_list() == others["r_0"]
    assert mixed.frame["r_1"].dtype == pl.Float64
    assert mixed.frame.columns == numbers.frame.columns


def test_a_table_of_nothing_but_features(tmp_path: Path) -> None:
    columns = {name: values for name, values in cells().items() if name in BLOCK}
    table = read_table(written(tmp_path / "t.csv", columns), labels=False)
    assert len(table) == len(table.features) == table.report.n_read == N
