from pathlib import Path

import polars as pl
import pytest

from tailbind.errors import RunError
from tailbind.table.writing import writing_frames

FRAMES = [pl.DataFrame({"row_id": [f"a{start}", "b"], "x": [float(start), None]}) for start in range(3)]


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
def test_frames_become_one_file(tmp_path: Path, name: str) -> None:
    with writing_frames(tmp_path / name) as add:
        for frame in FRAMES:
            add(frame)
            assert not (tmp_path / name).exists()
    read = pl.read_csv if name.endswith("csv") else pl.read_parquet
    assert read(tmp_path / name).equals(pl.concat(FRAMES))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
def test_an_interrupted_file_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyboardInterrupt), writing_frames(tmp_path / name) as add:
        add(FRAMES[0])
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
def test_a_folder_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="must be writable"), writing_frames(tmp_path / "absent" / name) as add:
        add(FRAMES[0])


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
def test_what_fails_elsewhere_is_not_blamed_on_the_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="another file"), writing_frames(tmp_path / name) as add:
        add(FRAMES[0])
        raise OSError("another file is not there")
    assert not list(tmp_path.iterdir())
