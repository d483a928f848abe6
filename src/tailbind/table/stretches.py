"""A file's cells, a stretch of rows at a time: the feature block as float32, all else as text (Parquet: as it is).

Nearly all of a file is its feature block. It is parsed by the file reader straight to float32, and no more than a
few stretches of it are ever there as columns. What the cells mean is said by `reading`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import FeatureError, TableError
from tailbind.table.cells import EMPTY, Source, parse_numbers
from tailbind.table.schema import SMALLEST_BLOCK, numbered_blocks

#: Rows read at a time where the whole file is wanted: the fewer, the less memory.
ROWS: Final = 8_192

#: What the numbers of a block must be.
FINITE: Final = "finite numbers that fit float32"


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows of a file.

    Attributes
    ----------
    raw : the columns that are no features, under the file's names
    block : (n, n_features) float32, nan where a cell is empty
    """

    raw: pl.DataFrame
    block: NDArray[np.float32]


@dataclass
class BadCells:
    """Cells of a feature block that cannot be taken: the rows of each column, and what the first of them holds."""

    rows: dict[str, list[NDArray[np.intp]]] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)

    def add(self, column: str, rows: NDArray[np.intp], first: Any) -> None:
        """Take down `rows` of the file, counted from 0; `first` is what the first of them holds."""
        self.rows.setdefault(column, []).append(rows)
        self.first.setdefault(column, first)

    def add_infinite(self, block: NDArray[np.float32], columns: Sequence[str], rows: NDArray[np.intp]) -> None:
        """Take down the infinite numbers of a block (n, n_features), whose rows in the file are `rows` (n,)."""
        at, positions = np.nonzero(np.isinf(block))
        for position in np.unique(positions):
            self.add(columns[position], rows[at[positions == position]], None)

    def refuse(self, source: Source, columns: Sequence[str], must: str) -> None:
        """Raise the error for the first of `columns` that has any."""
        for column in columns:
            if column in self.rows:
                got = "an infinite one" if self.first[column] is None else repr(self.first[column])
                raise FeatureError(
                    f"{source.path}: {column} must hold {must}; got {got} "
                    f"({source.lines(np.concatenate(self.rows[column]))}). Correct the cells or leave them empty."
                )


def read_stretches(source: Source, block: list[str], others: bool, rows: int = ROWS) -> Iterator[Stretch]:
    """Yield a file's rows, `rows` at a time; the last stretch has what is left.

    Parameters
    ----------
    source : the file
    block : its feature columns, in the order wanted
    others : whether other blocks of numbered columns are wanted: nearly all of a file, for nothing, where they are
        not. They are read as numbers where every cell is one
    rows : in a stretch

    Raises
    ------
    TableError
        For a file that cannot be read as a table.
    FeatureError
        For text in a feature column, once all such cells are found.
    """
    wanted, numbered = wanted_columns(source, block, others)
    kinds = {**dict.fromkeys(numbered if others else (), pl.Float64), **dict.fromkeys(block, pl.Float32)}
    n_done = 0
    try:
        if source.separator is not None:
            try:
                for frame in _batches(source, wanted, kinds, rows):
                    yield _split(frame, block)
                    n_done += len(frame)
                return
            except pl.exceptions.ComputeError:
                pass  # an odd cell somewhere: read all as text, then name the cell (or accept "NA")
        also = [column for column in wanted if column in numbered and source.separator is not None]
        yield from _parsed(source, _batches(source, wanted, {}, rows), block, also, n_done)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(source.path, error) from error


def wanted_columns(source: Source, block: list[str], others: bool) -> tuple[list[str], set[str]]:
    """Return the columns that `read_stretches` reads, and those that are of other blocks of numbers."""
    blocks = [columns for columns in numbered_blocks(source.columns).values() if len(columns) >= SMALLEST_BLOCK]
    numbered = {column for columns in blocks for column in columns} - set(block)
    return [column for column in source.columns if others or column not in numbered], numbered


def read_as_text(source: Source, columns: list[str]) -> pl.DataFrame:
    """Return columns of a text file as they are written."""
    return pl.concat(list(_batches(source, columns, {}, ROWS)))


def unreadable(path: Path, error: Exception) -> TableError:
    """Return the error of a file that is no table, with the reader's own reason."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return TableError(f"{path} must be readable as a table (UTF-8, one header, equal rows); got: {reason}.")


def _batches(source: Source, wanted: list[str], kinds: dict[str, Any], rows: int) -> Iterator[pl.DataFrame]:
    """Return frames of the wanted columns in file order; in text files, text but for those of `kinds`."""
    if source.separator is None:
        lazy = pl.scan_parquet(source.path, glob=False)
    else:
        lazy = pl.scan_csv(
            source.path, separator=source.separator, infer_schema=False, schema_overrides=kinds, glob=False
        )
    return iter(lazy.select(wanted).collect_batches(chunk_size=rows, maintain_order=True))


def _split(frame: pl.DataFrame, block: list[str]) -> Stretch:
    features = frame.select(block).to_numpy(order="c") if block else np.empty((len(frame), 0), np.float32)
    return Stretch(frame.drop(block), features)


def _parsed(
    source: Source, frames: Iterator[pl.DataFrame], block: list[str], also: list[str], n_done: int
) -> Iterator[Stretch]:
    """Yield stretches of frames whose cells are of other types, from row `n_done` on.

    Once a feature is found that is no number, the rest of the file is only looked through for more. Of the columns
    `also`, those become numbers that hold nothing else.
    """
    bad, start = BadCells(), 0
    for frame in frames:
        if start >= n_done:
            columns = [_parse(frame[column], column, start, bad) for column in block]
            if not bad.rows:
                parsed = {column: parse_numbers(frame[column]) for column in also}
                columns += [numbers.alias(column) for column, (numbers, wrong) in parsed.items() if not wrong.any()]
                yield _split(frame.with_columns(columns), block)
        start += len(frame)
    bad.refuse(source, block, "numbers")


def _parse(values: pl.Series, column: str, start: int, bad: BadCells) -> pl.Series:
    """Return a feature column as float32, null where empty; take down the cells that are neither."""
    if values.dtype == pl.Float32:
        return values
    if values.dtype == pl.String:
        stripped = values.str.strip_chars()
        numbers = stripped.cast(pl.Float32, strict=False)
        unread = numbers.is_null() & stripped.is_not_null()
        wrong = unread & ~stripped.str.to_lowercase().is_in(list(EMPTY)) if unread.any() else unread
    else:
        parsed, wrong = parse_numbers(values)
        numbers = parsed.cast(pl.Float32)
    if wrong.any():
        bad.add(column, wrong.arg_true().to_numpy().astype(np.intp) + start, values.filter(wrong)[0])
    return numbers.alias(column)
