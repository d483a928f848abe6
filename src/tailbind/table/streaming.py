"""Tables that may be longer than memory, a stretch of rows at a time, as `read_table` would read them whole.

Labels are not looked at, and no row is left out: this is for predicting.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import TableError, TailbindError
from tailbind.table.canonical import TEXT, Asked, canonical_columns, sequence_notes
from tailbind.table.cells import Source
from tailbind.table.chain_cells import check_chains
from tailbind.table.opening import check_file, feature_block, open_source
from tailbind.table.reading import check_row_ids, check_same_features, listed
from tailbind.table.schema import CANONICAL, SPELLINGS, AffinityTable, ReadingReport
from tailbind.table.stretches import FINITE, BadCells, Stretch, read_stretches, wanted_columns

#: Rows of a stretch: as many as several feature blocks are put side by side at a time.
ROWS: Final = 65_536


class TableStretches:
    """The tables of consecutive rows of one or several files.

    Parameters
    ----------
    paths, feature_prefix, sequences : as for `read_table`
    rows : in a stretch, or up to a few thousand more; the last of each file has what is left

    Raises
    ------
    TableError, FeatureError
        As `read_table` raises them: here for what a header tells, in iterating for a bad cell, and at its end for
        row ids that are not unique.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        feature_prefix: str | None,
        sequences: bool = False,
        rows: int = ROWS,
    ) -> None:
        files = listed(paths)
        for file in files:
            check_file(file)
        self.rows = rows
        self.asked = Asked(feature_prefix, sequences, False, True, len(files) > 1, True, False)
        self.sources: list[Source] = []
        self.blocks: list[list[str]] = []
        for file in files:
            source = open_source(file)
            self.sources.append(source)
            self.blocks.append(feature_block(source, feature_prefix))
            if sequences:
                check_chains(source)
        check_same_features(
            [(source.path.name, block) for source, block in zip(self.sources, self.blocks, strict=True)]
        )
        self._n_read = 0
        self._others = sorted(
            {
                column
                for source, block in zip(self.sources, self.blocks, strict=True)
                for column in {*wanted_columns(source, block, self.asked.others)[0]}
                - {source.find(SPELLINGS[name]) for name in TEXT}
                - {*block, *CANONICAL}
            }
        )

    @property
    def report(self) -> ReadingReport:
        """What reading did, once all stretches are read."""
        notes = [note for source in self.sources for note in (*source.notes, *sequence_notes(source, self.asked))]
        return ReadingReport(
            files=tuple(source.path.name for source in self.sources),
            n_read=self._n_read,
            dropped={},
            columns={name: own for source in reversed(self.sources) for name, own in source.taken.items()},
            notes=tuple(dict.fromkeys(notes)),
        )

    def __iter__(self) -> Iterator[AffinityTable]:
        """Yield a table per stretch."""
        self._n_read = 0
        ids: list[NDArray[np.uint64]] = []
        for source, block in zip(self.sources, self.blocks, strict=True):
            source.start = 0
            source.changed.clear()
            source.odd_letters.clear()
            for table in self._of_file(source, block):
                self._n_read += len(table)
                ids.append(table.frame["row_id"].hash().to_numpy())
                yield table
            if not source.start:
                raise TableError(f"{source.path} must hold rows; it has a header only.")
        seen = np.sort(np.concatenate(ids))
        if (seen[1:] == seen[:-1]).any():  # two ids of one hash may differ all the same
            check_row_ids(self._row_ids(), self.report.files)

    def _of_file(self, source: Source, block: list[str]) -> Iterator[AffinityTable]:
        infinite = BadCells()
        for stretch in _joined(read_stretches(source, block, self.asked.others), self.rows):
            if np.isinf(stretch.block).any():
                first = np.arange(source.start, source.start + len(stretch.block))
                infinite.add_infinite(stretch.block, block, first)
            if not infinite.rows:
                yield AffinityTable(self._frame(source, stretch, block), stretch.block, tuple(block), self.report)
            source.start += len(stretch.block)
        infinite.refuse(source, block, FINITE)

    def _frame(self, source: Source, stretch: Stretch, block: list[str]) -> pl.DataFrame:
        try:
            frame = canonical_columns(source, stretch.raw, len(stretch.block), block, self.asked)
        except TailbindError:
            self._refuse(source, block)
            raise
        if self._is_numbered(source):
            frame = frame.with_columns(pl.format("{}:{}", pl.lit(source.path.stem), "row_id").alias("row_id"))
        absent = [column for column in self._others if column not in frame.columns]
        return frame.with_columns(pl.lit(None, pl.String).alias(column) for column in absent)

    def _is_numbered(self, source: Source) -> bool:
        """Return whether row numbers stand in for the ids of a file that is not the first."""
        return "row_id" not in source.taken and source is not self.sources[0]

    def _refuse(self, source: Source, block: list[str]) -> None:
        """Raise the error for a file's text with all the rows it is about, not those of one stretch alone."""
        whole = Source(source.path, source.separator, source.columns)
        raw, n = _text(whole)
        canonical_columns(whole, raw, n, block, self.asked)

    def _row_ids(self) -> pl.Series:
        """Return the row ids of all files, tidied as everywhere."""
        parts = []
        for source in self.sources:
            whole = Source(source.path, source.separator, source.columns)
            raw, n = _text(whole)
            ids = canonical_columns(whole, raw, n, [], self.asked)["row_id"]
            named = pl.select(pl.format("{}:{}", pl.lit(source.path.stem), pl.lit(ids))).to_series()
            parts.append(named if self._is_numbered(source) else ids)
        return pl.concat([part.alias("row_id") for part in parts])


def _joined(stretches: Iterator[Stretch], rows: int) -> Iterator[Stretch]:
    """Yield stretches of `rows` or slightly more: the reader keeps several ready, so its own are shorter."""
    parts: list[Stretch] = []
    for stretch in stretches:
        parts.append(stretch)
        if sum(len(part.block) for part in parts) >= rows:
            yield _one(parts)
            parts = []
    if parts:
        yield _one(parts)


def _one(parts: list[Stretch]) -> Stretch:
    if len(parts) == 1:
        return parts[0]
    raw = pl.concat([part.raw for part in parts], how="vertical_relaxed")
    return Stretch(raw, np.concatenate([part.block for part in parts]))


def _text(source: Source) -> tuple[pl.DataFrame, int]:
    """Return a file without its blocks of numbers, and how many rows it has."""
    stretches = list(read_stretches(source, [], others=False))
    return pl.concat([stretch.raw for stretch in stretches]), sum(len(stretch.block) for stretch in stretches)
