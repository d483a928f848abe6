"""A table in stretches is the table read at once: the same rows, the same remarks, the same refusals."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tailbind.errors import TailbindError
from tailbind.table import stretches
from tailbind.table.reading import read_table
from tailbind.table.streaming import TableStretches

N = 70
BLOCK = [f"e_{index}" for index in range(5)]
HEAVY = "EVQLVESGGGLVQPGGSLRLSCAAS"
DNA = "GAGGTGCAGCTG" * 10


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight rows are read at a time."""
    monkeypatch.setattr(stretches.read_stretches, "__defaults__", (8,))


def frame(**changes: object) -> pl.DataFrame:
    values = np.random.default_rng(0).normal(size=(N, len(BLOCK))).astype(np.float32)
    columns = {name: values[:, position] for position, name in enumerate(BLOCK)}
    return pl.DataFrame({"vh": [HEAVY] * N, "note": [f"n{row}" for row in range(N)], **columns}).with_columns(
        **{name: pl.Series(value) for name, value in changes.items()}
    )


def with_cells(column: str, cells: dict[int, object], usual: object) -> list[object]:
    return [cells.get(row, usual) for row in range(N)]


def same(paths: Path | list[Path], *, sequences: bool = True, prefix: str | None = "e_") -> list[str]:
    """Fail unless both readings give the same, or refuse in the same words; return what was said."""
    whole = None
    tables = []
    try:
        whole = read_table(paths, feature_prefix=prefix, sequences=sequences, labels=False, keep_incomplete=True)
    except TailbindError as expected:
        with pytest.raises(type(expected)) as refusal:
            tables = list(TableStretches(paths, feature_prefix=prefix, sequences=sequences, rows=20))
        assert str(refusal.value) == str(expected)
        return [str(expected)]
    parts = TableStretches(paths, feature_prefix=prefix, sequences=sequences, rows=20)
    tables = list(parts)
    assert len(tables) > 2
    joined = pl.concat([table.frame for table in tables], how="diagonal_relaxed")
    assert joined.select(whole.frame.columns).equals(whole.frame)
    assert set(joined.columns) == set(whole.frame.columns)
    columns = [[table.feature_names.index(name) for name in whole.feature_names] for table in tables]
    features = [table.features[:, order] for table, order in zip(tables, columns, strict=True)]
    np.testing.assert_array_equal(np.concatenate(features), whole.features)
    assert parts.report == whole.report
    again = list(parts)[-1]
    assert again.frame.equals(tables[-1].frame)
    assert parts.report == whole.report
    return parts.report.lines()


def written(folder: Path, name: str, table: pl.DataFrame) -> Path:
    table.write_parquet(folder / name) if name.endswith("parquet") else table.write_csv(folder / name)
    return folder / name


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_rows_and_remarks(tmp_path: Path, name: str) -> None:
    heavy = with_cells("vh", {3: "evql", 30: "EV QL", 31: "EVXXL", 60: "EVBL"}, HEAVY)
    said = same(written(tmp_path, name, frame(vh=heavy).select("note", *BLOCK[::-1], "vh")))
    where = "lines 33, 62" if name == "t.csv" else "rows 32, 61"
    assert any(
        f"2 heavy sequences have letters that are none of the twenty amino acids, such as X ({where})" in s
        for s in said
    )
    assert "Normalised 2 heavy sequences (lower case, spaces, gaps, stops)." in said
    assert any("in another order" in sentence for sentence in said)


def test_empty_features_and_no_features_at_all(tmp_path: Path) -> None:
    table = frame().with_columns(e_1=pl.when(pl.int_range(N).is_in([0, 33])).then(None).otherwise("e_1"))
    same(written(tmp_path, "t.csv", table))
    same(written(tmp_path, "t.csv", table), prefix=None)


def test_several_files(tmp_path: Path) -> None:
    first = written(tmp_path, "a.csv", frame().with_columns(only=pl.lit("x")))
    second = written(tmp_path, "b.parquet", frame().select(*BLOCK[::-1], "note", pl.col("vh").alias("heavy")))
    own = written(tmp_path, "c.csv", frame(row_id=[f"own{row}" for row in range(N)]))
    same([first, second, own])
    same([own, first])
    assert "e_5 is in one only" in same([first, written(tmp_path, "d.csv", frame(e_5=np.zeros(N)))])[0]
    assert "row_id must be different" in same([own, own])[0]
    (tmp_path / "other").mkdir()
    third = written(tmp_path / "other", "b.parquet", frame())
    assert f"{2 * N} rows share theirs, such as b:0, b:1, b:2" in same([first, second, third])[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vh": with_cells("vh", {2: DNA, 40: DNA, 41: DNA, 69: DNA}, HEAVY)}, "lines 4, 42, 43 and 1 more"),
        ({"row_id": [str(row % 60) for row in range(N)]}, "20 rows share theirs, such as 0, 1, 2"),
        ({"row_id": ["" if row in (5, 50) else str(row) for row in range(N)]}, "must not be empty; lines 7, 52"),
        ({"e_2": with_cells("e_2", {3: "inf", 50: "-inf"}, "1.5")}, "got an infinite one (lines 5, 52)"),
        ({"e_2": with_cells("e_2", {3: "x", 50: "y"}, "1.5")}, "got 'x' (lines 5, 52)"),
    ],
)
def test_what_is_wrong_is_told_for_the_whole_file(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    assert message in same(written(tmp_path, "t.csv", frame(**changes)))[0]


def test_what_a_header_tells_is_told_before_any_row_is_read(tmp_path: Path) -> None:
    for columns in (["vh", "note"], BLOCK):
        path = written(tmp_path, "t.csv", frame().select(columns))
        same(path)
        with pytest.raises(TailbindError):
            TableStretches(path, feature_prefix="e_", sequences=True)
    assert "it has a header only" in same(written(tmp_path, "t.csv", frame().head(0)))[0]
    with pytest.raises(TailbindError, match="At least one table"):
        TableStretches([], feature_prefix=None)
