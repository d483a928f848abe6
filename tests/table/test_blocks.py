"""Tables whose features they stay on disk: read to disk, and used from there as from memory."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tailbind
from tailbind.errors import FeatureError, RunError, TableError
from tailbind.features.columns import Columns
from tailbind.table import blocks as module
from tailbind.table.blocks import BLOCK_ROWS, Blocks, Growing, is_held
from tailbind.table.cache import TableCache
from tailbind.table.reading import read_table
from tailbind.workflows import featurising

N = 400


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 8)) * np.arange(1, 9)
    frame = pl.DataFrame({f"e_{column}": X[:, column] for column in range(8)})
    frame = frame.insert_column(0, pl.Series("pKd", 7 + X[:, 0] + 0.1 * rng.normal(size=N)))
    frame = frame.with_columns(
        pl.when(pl.int_range(pl.len()) % 10 == 3).then(None).otherwise(pl.col("e_1")).alias("e_1"),
        pl.when(pl.int_range(pl.len()) % 50 == 7).then(None).otherwise(pl.col("pKd")).alias("pKd"),
    )
    frame.write_csv(tmp_path / "table.csv")
    return tmp_path / "table.csv"


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have room for 100 rows of 8 columns; files of 64 rows."""
    monkeypatch.setattr(module, "available_bytes", lambda: 2 * 4 * 8 * 100)
    monkeypatch.setattr(module, "BLOCK_ROWS", 64)


def test_a_growing_matrix_goes_on_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little_memory: None) -> None:
    X = np.random.default_rng(1).normal(size=(230, 8)).astype(np.float32)
    keep = np.arange(230) % 3 > 0
    for chosen in (keep, np.ones(230, bool)):
        growing = Growing(8, tmp_path / "here")
        for start in range(0, 230, 37):
            growing.append(X[start : start + 37])
        matrix = growing.finished(chosen)
        assert isinstance(matrix, Blocks)
        assert [len(np.load(file)) for file in matrix.files] == [64, 64, 64, 38]
        np.testing.assert_array_equal(matrix[:], X[chosen])
        np.testing.assert_array_equal(matrix[np.array([5, 100, 2])], X[chosen][[5, 100, 2]])
        folder = matrix.files[0].parent
        assert folder.is_dir()
        del growing, matrix
        assert not folder.exists(), "nobody holds it"
    monkeypatch.setattr(module, "available_bytes", lambda: 1 << 30)
    growing = Growing(8, tmp_path / "blocks")
    growing.append(X[:100])
    growing.append(X[100:])
    matrix = growing.finished(keep)
    assert isinstance(matrix, np.ndarray)
    np.testing.assert_array_equal(matrix, X[keep])


def test_reading_gives_the_same_rows_from_disk(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_table(csv, cache=False)
    assert isinstance(whole.features, np.ndarray)
    monkeypatch.setattr(module, "available_bytes", lambda: 2 * 4 * 8 * 100)
    there = read_table(csv, cache=False)
    assert isinstance(there.features, Blocks)
    assert there.frame.equals(whole.frame)
    assert there.report.lines() == whole.report.lines()
    np.testing.assert_array_equal(there.features[:], whole.features)
    some = np.arange(len(whole)) % 2 == 0
    assert isinstance(there.take(some).features, Blocks)
    np.testing.assert_array_equal(there.take(some).features[:], whole.take(some).features)
    both = read_table([csv, csv], cache=False)
    assert isinstance(both.features, Blocks)
    np.testing.assert_array_equal(both.features[:], np.vstack([whole.features, whole.features]))


def test_the_cache_gives_blocks_where_memory_is_little(csv: Path, tmp_path: Path, little_memory: None) -> None:
    kept = TableCache(tmp_path / "tables", smallest=0)
    table = read_table(csv, cache=False)
    written = kept.write("k", table)
    assert isinstance(written.features, Blocks)
    assert written.features.files[0].parent == tmp_path / "tables" / "k"
    again = kept.read("k")
    assert again is not None
    assert isinstance(again.features, Blocks)
    np.testing.assert_array_equal(again.features[:], table.features[:])
    last = again.features.files[-1]
    last.write_bytes(last.read_bytes()[:-4])
    assert kept.read("k") is None, "a file is too short"


@pytest.mark.parametrize("options", [{}, {"standardize": True}, {"pca": 3}, {"standardize": True, "pca": 3}])
def test_columns_are_computed_from_disk_alike(
    csv: Path, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.arange(0, 300, 2)
    whole = read_table(csv, cache=False)
    monkeypatch.setattr(module, "available_bytes", lambda: 2 * 4 * 8 * 100)
    there = read_table(csv, cache=False)
    block = Columns(**options)  # type: ignore[arg-type]
    here, away = block.fit(whole, rows), block.fit(there, rows)
    found = away.transform(there).dense
    assert isinstance(found, Blocks) == ("pca" not in options)
    np.testing.assert_allclose(found[:], here.transform(whole).dense, rtol=1e-5, atol=1e-6)
    turned = tuple(reversed(here.names))
    np.testing.assert_allclose(
        type(here)(turned).transform(there).dense[:], type(here)(turned).transform(whole).dense, rtol=1e-6
    )


@pytest.mark.parametrize("recipe", ["v2", "v3-columns"])
def test_a_run_from_disk_ends_like_any_other(
    csv: Path, tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["training.epochs=2", "model.hidden_dims=[8]"] if recipe == "v2" else ["split.kind=random"]
    monkeypatch.setattr(module, "available_bytes", lambda: 2 * 4 * 8 * 100)
    run = tailbind.train(csv, recipe=recipe, out=tmp_path / "run", overrides=changes, device="cpu")
    assert (run.path / "DONE").exists()
    assert "they stay on disk" in capsys.readouterr().out
    predicted = tailbind.predict(run.path, csv)
    assert predicted["predicted_pkd"].null_count() == N // 10
    monkeypatch.undo()
    again = tailbind.predict(run.path, csv)
    np.testing.assert_allclose(predicted["predicted_pkd"].drop_nulls(), again["predicted_pkd"].drop_nulls(), rtol=1e-5)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little_memory: None) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    growing = Growing(8, tmp_path / "blocks")
    with pytest.raises(RunError, match="must be writable; No space left on device"):
        growing.append(np.zeros((200, 8), np.float32))
    assert BLOCK_ROWS == 65_536


def test_what_killed_programs_left_goes_and_what_others_use_stays(tmp_path: Path, little_memory: None) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left, others = tmp_path / f"{dead.stdout.strip()}-abc", tmp_path / f"{os.getppid()}-abc"
    left.mkdir()
    others.mkdir()
    growing = Growing(8, tmp_path)
    growing.append(np.zeros((200, 8), np.float32))
    assert others.is_dir()
    assert left.exists() == (os.name != "posix")


def test_an_entry_that_is_read_from_is_not_removed_to_make_room(csv: Path, tmp_path: Path, little_memory: None) -> None:
    kept = TableCache(tmp_path / "tables", smallest=0)
    table = kept.write("k", read_table(csv, cache=False))
    assert is_held(tmp_path / "tables" / "k")
    small = TableCache(tmp_path / "tables", smallest=0, largest=40_000)
    small._make_room(39_000)
    assert len(table.features[:]) == len(table)
    del table
    gc.collect()
    assert not is_held(tmp_path / "tables" / "k")
    small._make_room(39_000)
    assert not (tmp_path / "tables" / "k").exists()


def test_files_that_go_are_told(csv: Path, little_memory: None) -> None:
    table = read_table(csv, cache=False)
    assert isinstance(table.features, Blocks)
    table.features.files[0].unlink()
    with pytest.raises(TableError, match="must stay as it is while features are read from it"):
        table.features[:10]


def test_what_needs_all_in_memory_says_so(
    csv: Path, tmp_path: Path, little_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(featurising, "available_bytes", lambda: 2 * 4 * 8 * 100)
    with pytest.raises(FeatureError, match=r"must have its features in memory; .* --recipe v2"):
        tailbind.train(csv, recipe="v3-columns", out=tmp_path / "run", overrides=["split.kind=random"], device="cpu")
