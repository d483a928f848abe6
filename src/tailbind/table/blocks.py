"""A feature matrix that stays on disk: files of as many rows each, mapped into memory one at a time.

`Growing` is what a matrix is read into: it stays in memory while there is room, and goes on on disk.
"""

import contextlib
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import TableError
from tailbind.runtime import available_bytes, cannot_write

#: Rows of a file.
BLOCK_ROWS: Final = 65_536
#: What the names of files begin with that say which program reads from a folder.
HELD: Final = "held-by-"
#: A matrix may take this share of the memory that is left; the rest is for what is made of it.
SHARE_OF_MEMORY: Final = 0.5

Matrix = NDArray[np.float32]


def fits(n_bytes: int, *, held: int = 0) -> bool:
    """Return whether a matrix of so many bytes, of which some are held already, is to be held in memory."""
    return n_bytes <= SHARE_OF_MEMORY * (available_bytes() + held)


@dataclass(frozen=True)
class Blocks:
    """Rows of float32 in `.npy` files; indexed like an array, it gives arrays in memory.

    Attributes
    ----------
    files : in row order, `rows_per_file` rows each but the last
    rows_per_file : of every file but the last
    shape : (n_samples, n_columns)
    rows, columns : which of the files' rows and columns, in order; None for all
    mean, scale : (n_columns,) what is taken away from each row, and what it is then divided by; None for nothing
    keeper : whatever must stay for the files to stay

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.save(folder / "0.npy", np.array([[0, 1], [2, 3]], np.float32))
    >>> np.save(folder / "1.npy", np.array([[4, 5]], np.float32))
    >>> blocks = Blocks((folder / "0.npy", folder / "1.npy"), 2, (3, 2))
    >>> blocks[np.array([2, 0])].tolist(), blocks[1:].tolist()
    ([[4.0, 5.0], [0.0, 1.0]], [[2.0, 3.0], [4.0, 5.0]])
    """

    files: tuple[Path, ...]
    rows_per_file: int
    shape: tuple[int, int]
    rows: NDArray[np.intp] | None = None
    columns: NDArray[np.intp] | None = None
    mean: Matrix | None = None
    scale: Matrix | None = None
    keeper: object = field(default=None, repr=False)

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """What the numbers are."""
        return np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes that it would have in memory."""
        return self.dtype.itemsize * self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Matrix:
        """Return `rows` in memory, in their order; each file that has any is mapped once."""
        stored = self._stored(rows)
        taken = np.empty((len(stored), self.shape[1]), np.float32)
        number = stored // self.rows_per_file
        order = np.argsort(number, kind="stable")
        ends = np.searchsorted(number[order], np.arange(len(self.files) + 1))
        for file, start, stop in zip(self.files, ends[:-1], ends[1:], strict=True):
            if start < stop:
                where = order[start:stop]
                taken[where] = self._of_file(file, stored[where] % self.rows_per_file)
        if self.mean is not None and self.scale is not None:
            taken -= self.mean
            taken /= self.scale
        return taken

    def _stored(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> NDArray[np.intp]:
        """Return (n,) row numbers in the files."""
        if self.rows is not None:
            return self.rows[rows]
        if isinstance(rows, slice):
            return np.arange(len(self))[rows]
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.intp)
        return np.where(rows < 0, rows + len(self), rows)

    def _of_file(self, file: Path, rows: NDArray[np.intp]) -> Matrix:
        try:
            mapped = np.load(file, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise TableError(
                f"{file} must stay as it is while features are read from it; it was removed or changed. Start again."
            ) from error
        found: Matrix = np.asarray(mapped[rows] if self.columns is None else mapped[rows][:, self.columns])
        return found

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Blocks":
        """Return some of the rows, in order, still on disk."""
        stored = self._stored(rows)
        return replace(self, rows=stored, shape=(len(stored), self.shape[1]))

    def take_columns(self, columns: Sequence[int]) -> "Blocks":
        """Return some of the columns, in order, still on disk."""
        here = np.arange(self.shape[1]) if self.columns is None else self.columns
        chosen = np.asarray(columns, np.intp)
        mean, scale = (None if of is None else of[chosen] for of in (self.mean, self.scale))
        shape = self.shape[0], len(chosen)
        return replace(self, columns=here[chosen], shape=shape, mean=mean, scale=scale)

    def scaled(self, mean: Matrix, scale: Matrix) -> "Blocks":
        """Return rows less `mean`, divided by `scale`, still on disk; once only."""
        assert self.mean is None, "scaled already"
        return replace(self, mean=mean, scale=scale)


def on_disk(matrix: object) -> Blocks | None:
    """Return a matrix that stays on disk; None for one in memory."""
    return matrix if isinstance(matrix, Blocks) else None


class Growing:
    """A matrix that rows are added to; once it no longer fits into memory it goes on on disk.

    Parameters
    ----------
    n_columns : of it
    folder : where a folder for blocks is made, should it be needed; it goes when the blocks do
    """

    def __init__(self, n_columns: int, folder: Path) -> None:
        self._matrix = np.empty((0, n_columns), np.float32)
        self._folder = folder
        self._part: _Folder | None = None
        self._files: list[Path] = []
        self._n_stored = 0

    def append(self, piece: Matrix) -> None:
        """Add rows below, in place: where a matrix cannot grow it is moved, and never there twice on Linux."""
        n = len(self._matrix)
        if self._part is None and not fits(self._matrix.nbytes + piece.nbytes, held=self._matrix.nbytes):
            self._part = _Folder(self._folder)
        self._matrix.resize((n + len(piece), self._matrix.shape[1]), refcheck=False)
        self._matrix[n:] = piece
        if self._part is not None:
            self._store(BLOCK_ROWS)

    def finished(self, keep: NDArray[np.bool_]) -> "Matrix | Blocks":
        """Return the rows that are kept: (n_kept, n_columns), in memory or on disk."""
        if self._part is not None:
            self._store(1)
            shape = self._n_stored, self._matrix.shape[1]
            blocks = Blocks(tuple(self._files), BLOCK_ROWS, shape, keeper=self._part)
            return blocks if keep.all() else blocks.take(keep)
        if not keep.all():
            n_kept = 0
            for start in range(0, len(keep), BLOCK_ROWS):
                kept = self._matrix[start : start + BLOCK_ROWS][keep[start : start + BLOCK_ROWS]]
                self._matrix[n_kept : n_kept + len(kept)] = kept
                n_kept += len(kept)
            self._matrix.resize((n_kept, self._matrix.shape[1]), refcheck=False)
        return self._matrix

    def _store(self, least: int) -> None:
        """Move whole blocks of rows to disk, and what is left where it has `least` rows."""
        assert self._part is not None
        start = 0
        while len(self._matrix) - start >= least:
            rows = self._matrix[start : start + BLOCK_ROWS]
            self._files.append(self._part.path / f"{len(self._files):05}.npy")
            try:
                np.save(self._files[-1], rows)
            except OSError as error:
                raise cannot_write(self._files[-1], error) from error
            start += len(rows)
            self._n_stored += len(rows)
        if start:
            self._matrix = self._matrix[start:].copy()


class _Folder:
    """A folder that is removed when nobody holds it any longer, at the end of the program at the latest.

    It is named after the program; what killed ones left is removed when the next is made.
    """

    def __init__(self, parent: Path) -> None:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for left in parent.glob("*-*"):
                if not _runs(left.name.partition("-")[0]):
                    shutil.rmtree(left, ignore_errors=True)
            self.path = Path(tempfile.mkdtemp(dir=parent, prefix=f"{os.getpid()}-"))
        except OSError as error:
            raise cannot_write(parent, error) from error
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class Hold:
    """Keeps a folder that others might remove, by a file in it, until nobody holds this any longer."""

    def __init__(self, folder: Path) -> None:
        mark = folder / f"{HELD}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        with contextlib.suppress(OSError):  # a folder that cannot be written to is not removed by others either
            mark.touch()
            weakref.finalize(self, mark.unlink, missing_ok=True)


def is_held(folder: Path) -> bool:
    """Return whether a program that still runs holds a folder."""
    return any(_runs(mark.name.removeprefix(HELD).partition("-")[0]) for mark in folder.glob(f"{HELD}*"))


def _runs(process: str) -> bool:
    """Return whether a process runs, or may: only POSIX lets one ask without harm."""
    if os.name != "posix" or not process.isdigit():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
