"""The cache of read tables: the same table the second time, never a stale or damaged one, and never in the way."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tailbind.errors import TableError
from tailbind.table import cache, reading
from tailbind.table.cache import BLOCK_ROWS, TableCache, feature_blocks
from tailbind.table.reading import read_table
from tailbind.table.schema import AffinityTable


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TableCache:
    """A cache of its own that keeps the smallest file; `read_table` uses it."""
    own = TableCache(tmp_path / "cache", smallest=0)
    monkeypatch.setattr(reading, "default_cache", lambda: own)
    return own


@pytest.fixture
def file(simulated_csv: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(simulated_csv, tmp_path / "t.csv"))


def same(left: AffinityTable, right: AffinityTable) -> None:
    assert left.frame.equals(right.frame)
    assert left.frame.schema == right.frame.schema
    np.testing.assert_array_equal(left.features, right.features)
    assert (left.features.dtype, left.feature_names) == (right.features.dtype, right.feature_names)
    assert left.report == replace(right.report, cache=left.report.cache)


def entries(kept: TableCache) -> list[Path]:
    return sorted(kept.root.iterdir()) if kept.root.exists() else []


def test_the_second_reading_is_the_first_and_says_so(kept: TableCache, file: Path) -> None:
    first, second = read_table(file), read_table(file)
    same(first, second)
    assert (first.report.cache.used, second.report.cache.used) == (False, True)
    assert first.report.cache.entry == second.report.cache.entry == entries(kept)[0]
    assert first.report.lines()[0] == "Read 1,200 rows from t.csv."
    assert second.report.lines() == [
        f"Read 1,200 rows from t.csv (from the cache in {kept.root}; --no-cache reads it anew).",
        *first.report.lines()[1:],
    ]
    assert sorted(path.name for path in file.parent.iterdir()) == ["cache", "t.csv"]


def test_without_the_cache_nothing_is_kept_or_taken(kept: TableCache, file: Path) -> None:
    assert read_table(file, cache=False).report.cache.entry is None
    assert not entries(kept)
    read_table(file)
    assert not read_table(file, cache=False).report.cache.used


@pytest.mark.parametrize(
    "arguments",
    [
        {"feature_prefix": None},
        {"sequences": True},
        {"labels": False},
        {"keep_incomplete": True},
        {"keep_everything": True},
        {"check_range": False},
    ],
)
def test_what_is_asked_decides(kept: TableCache, file: Path, arguments: dict[str, object]) -> None:
    read_table(file)
    other = read_table(file, **arguments)  # type: ignore[arg-type]
    assert not other.report.cache.used
    same(read_table(file, **arguments), other)  # type: ignore[arg-type]
    assert len(entries(kept)) == 2


def test_several_files_are_one_entry(kept: TableCache, file: Path, tmp_path: Path) -> None:
    pl.read_csv(file).head(50).write_parquet(tmp_path / "u.parquet")
    same(read_table([file, tmp_path / "u.parquet"]), read_table([file, tmp_path / "u.parquet"]))
    assert len(entries(kept)) == 1
    assert not read_table([tmp_path / "u.parquet", file]).report.cache.used


def rewrite(file: Path, change: Callable[[bytes], bytes], *, keep_age: bool) -> None:
    before, age = file.read_bytes(), file.stat().st_mtime_ns
    file.write_bytes(change(before))
    os.utime(file, ns=(age, age if keep_age else age + 1_000_000))


def other_digit(text: bytes) -> bytes:
    """Another last digit: the same size."""
    end = len(text.rstrip()) - 1
    return text[:end] + (b"2" if text[end : end + 1] == b"1" else b"1") + text[end + 1 :]


@pytest.mark.parametrize(
    ("change", "keep_age"),
    [(lambda text: text, False), (other_digit, True), (lambda text: text + text.splitlines()[-1] + b"\n", True)],
    ids=["other time", "other content", "other size"],
)
def test_a_file_that_changed_is_read_anew(
    kept: TableCache, file: Path, change: Callable[[bytes], bytes], keep_age: bool
) -> None:
    read_table(file)
    rewrite(file, change, keep_age=keep_age)
    again = read_table(file)
    assert not again.report.cache.used
    same(again, read_table(file, cache=False))


def test_a_copy_elsewhere_and_other_code_are_not_taken_for_it(
    kept: TableCache, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_table(file)
    (tmp_path / "other").mkdir()
    assert not read_table(shutil.copy2(file, tmp_path / "other" / "t.csv")).report.cache.used
    monkeypatch.setattr(cache, "_reader", lambda: "later")
    assert not read_table(file).report.cache.used


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    kept: TableCache, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = reading._read_file

    def slowly(*arguments: object) -> AffinityTable:
        table = read(*arguments)  # type: ignore[arg-type]
        os.utime(file, ns=(1, 1))
        return table

    monkeypatch.setattr(reading, "_read_file", slowly)
    assert read_table(file).report.cache.entry is None
    assert not entries(kept)


def test_only_long_files_are_kept(file: Path, tmp_path: Path) -> None:
    size = file.stat().st_size
    assert TableCache(tmp_path, smallest=size + 1).key([file], {}) is None
    assert TableCache(tmp_path, smallest=size).key([file], {}) is not None
    assert TableCache(tmp_path, smallest=size + 1).key([file, file], {}) is not None
    assert not read_table(file).report.cache.entry, "a test's small file must not be kept"


@pytest.fixture
def entry(kept: TableCache, file: Path) -> Path:
    folder = read_table(file).report.cache.entry
    assert folder is not None
    return folder


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [spoil, truncate, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", ["about.json", "frame.arrow", "features-00000.npy"])
def test_a_damaged_entry_is_replaced(entry: Path, file: Path, name: str, damage: Callable[[Path], object]) -> None:
    damage(entry / name)
    again = read_table(file)
    assert not again.report.cache.used
    same(again, read_table(file, cache=False))
    same(read_table(file), again)
    assert read_table(file).report.cache.used


def test_blocks_are_plain_arrays_in_row_order(tmp_path: Path, table: AffinityTable) -> None:
    times = -(-(BLOCK_ROWS + 10) // len(table))
    long = replace(table, frame=pl.concat([table.frame] * times), features=np.concatenate([table.features] * times))
    long.features[:, 0] = np.arange(len(long))
    folder = TableCache(tmp_path).write("key", long).report.cache.entry
    assert folder is not None
    blocks = [np.load(path, mmap_mode="r") for path in feature_blocks(folder)]
    assert [len(block) for block in blocks] == [BLOCK_ROWS, len(long) - BLOCK_ROWS]
    np.testing.assert_array_equal(np.concatenate(blocks), long.features)
    found = TableCache(tmp_path).read("key")
    assert found is not None
    same(found, long)


def test_the_entry_unused_for_longest_goes_first(tmp_path: Path, table: AffinityTable) -> None:
    unbounded = TableCache(tmp_path)
    for age, key in enumerate(("old", "new")):
        unbounded.write(key, table)
        os.utime(tmp_path / key, (age + 1, age + 1))
    needed = table.features.nbytes + int(table.frame.estimated_size())
    used = sum(path.stat().st_size for path in (tmp_path / "old").iterdir())
    unbounded.read("old")  # used just now
    bounded = TableCache(tmp_path, largest=used + needed)
    assert bounded.write("third", table).report.cache.entry == tmp_path / "third"
    assert {path.name for path in tmp_path.iterdir()} == {"old", "third"}
    small = TableCache(tmp_path, largest=needed - 1).write("fourth", table)
    assert small.report.cache.entry is None
    assert f"The table was not kept in {tmp_path} for the next time: it needs" in small.report.lines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"old", "third"}


def test_what_a_killed_program_left_is_removed_in_time(tmp_path: Path, table: AffinityTable) -> None:
    for name, age in ((".a-1.part", 0), (".b-2.part", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "frame.arrow").write_bytes(b"half")
        if age is not None:
            os.utime(tmp_path / name, (age, age))
    TableCache(tmp_path).write("key", table)
    assert {path.name for path in tmp_path.iterdir()} == {".b-2.part", "key"}
    assert TableCache(tmp_path).read(".b-2.part") is None


def test_a_cache_that_cannot_be_written_only_says_so(
    kept: TableCache, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_bytes", full)
        table = read_table(file)
    same(table, read_table(file, cache=False))
    trouble = f"The table was not kept in {kept.root} for the next time: No space left on device."
    assert table.report.lines()[-1] == trouble
    assert not entries(kept)
    kept.root.rmdir()
    kept.root.write_text("in the way")
    assert f"The table was not kept in {kept.root} for the next time: File exists." in read_table(file).report.lines()


def test_two_programs_may_keep_the_same_table(kept: TableCache, table: AffinityTable) -> None:
    first, second = kept.write("key", table), kept.write("key", table)
    assert first.report.cache == second.report.cache
    assert [path.name for path in entries(kept)] == ["key"]


def test_a_table_that_is_refused_is_not_kept(kept: TableCache, file: Path) -> None:
    file.write_text("row_id,pKd,e_0\na,7,1\na,8,1\n")
    for _ in range(2):
        with pytest.raises(TableError, match="row_id must be different"):
            read_table(file, feature_prefix=None)
    assert not entries(kept)


def test_the_folder_is_the_user_s_or_the_one_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TAILBIND_CACHE", str(tmp_path))
    assert cache.default_cache() == TableCache(tmp_path / "tables")
    monkeypatch.delenv("TAILBIND_CACHE")
    assert cache.default_cache().root.parts[-2:] == ("tailbind", "tables")
