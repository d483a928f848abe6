"""Rows written to one file as they come, whole or not at all."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from tailbind.runtime import cannot_write, writing


class _ElsewhereError(Exception):
    """Something else than the writing failed."""


@contextmanager
def writing_frames(path: Path) -> Iterator[Callable[[pl.DataFrame], None]]:
    """Yield what adds a frame to a CSV or Parquet file; on leaving, `path` is the whole file or as before.

    A Parquet file has a row group for each frame. Until it is whole, they are in a folder beside it.

    Raises
    ------
    RunError
        When the folder is read-only, the disk is full, or anything else keeps the file from being written.
    """
    if path.suffix == ".csv":
        elsewhere: OSError | None = None
        with contextlib.suppress(_ElsewhereError), writing(path) as handle:
            n_frames = 0

            def add(frame: pl.DataFrame) -> None:
                nonlocal n_frames
                try:
                    frame.write_csv(handle, include_header=n_frames == 0)
                except OSError as error:
                    raise cannot_write(path, error) from error
                n_frames += 1

            try:
                yield add
            except OSError as error:  # not of this file
                elsewhere = error
                raise _ElsewhereError from error
        if elsewhere is not None:
            raise elsewhere
        return
    with _folder_beside(path) as folder:
        parts: list[Path] = []

        def keep(frame: pl.DataFrame) -> None:
            parts.append(folder / f"{len(parts):06}.parquet")
            with writing(parts[-1]) as handle:
                frame.write_parquet(handle)

        yield keep
        with writing(path) as handle:
            pl.scan_parquet(parts, glob=False).sink_parquet(handle, maintain_order=True)


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
