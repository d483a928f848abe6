"""Files of measured affinities → one `AffinityTable`; every conversion said, every bad cell located.

Text columns are read as text and numbers parsed here, so that a message can name the column and the
rows. Only a feature block is parsed by the file reader, straight to float32: it is nearly all of a file.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import FeatureError, TableError
from tailbind.table.blocks import Growing, Matrix
from tailbind.table.cache import default_cache, spill_folder
from tailbind.table.canonical import Asked, canonical_columns, sequence_notes
from tailbind.table.cells import Source
from tailbind.table.chain_cells import check_chains, without_chain
from tailbind.table.labels import find_label
from tailbind.table.opening import AUTO, check_file, feature_block, has_sequences, open_source
from tailbind.table.schema import AffinityTable, ReadingReport
from tailbind.table.stretches import FINITE, ROWS, BadCells, read_as_text, read_stretches

__all__ = ["NO_FEATURES", "NO_LABEL", "NO_SEQUENCE", "has_sequences", "read_table"]

NO_LABEL = "no pKd"
NO_FEATURES = "features are empty"
NO_SEQUENCE = "no heavy or light sequence"


def read_table(
    paths: str | Path | Sequence[str | Path],
    *,
    feature_prefix: str | None = AUTO,
    sequences: bool = False,
    labels: bool = True,
    keep_incomplete: bool = False,
    check_range: bool = True,
    keep_everything: bool = False,
    cache: bool = True,
) -> AffinityTable:
    """Read CSV, TSV or Parquet files of measured affinities as one table.

    Parameters
    ----------
    paths : one file or several; several are stacked in order, with their `source` kept (the file's name
        where a file has none)
    feature_prefix : the block of numbered columns to read as features ("esm2_pca_"); "auto" takes the
        table's only block, the training notebook's `esm2_pca_` where there are several; None reads no features
    sequences : whether features are to be computed from sequences: they are then looked at, and a row needs a heavy
        or a light one
    labels : whether to read pKd. Without, no label column is needed and none is looked at
    keep_incomplete : keep rows whose features are empty (as NaN), or that have no sequence to compute them from,
        instead of dropping and counting them
    check_range : refuse a label that no binder has; an audit reads it instead
    keep_everything : keep rows without a label (pkd null) and numbered blocks that are no features (as ordinary
        columns) too, so that a table can be written again whole
    cache : take a long table from the user's cache where it was read before, and else keep it there; the report says so

    Returns
    -------
    AffinityTable
        Rows in file order. Label and relation are on the pKd scale: a `>` beside a Kd becomes a `<`. Features that
        would take more than half of the memory that is left stay on disk, as `Blocks`.

    Raises
    ------
    TableError
        For a file that is missing, empty or unreadable, no label column, text or impossible values among
        the labels, or duplicate row ids.
    FeatureError
        For a block that is absent, has a gap, or holds anything but finite numbers and empty cells; where sequences
        are needed, for a table without them, or with DNA instead.
    """
    files = listed(paths)
    for file in files:
        check_file(file)
    named = len(files) > 1
    asked = Asked(feature_prefix, sequences, labels, check_range, named, keep_incomplete, keep_everything)
    kept = default_cache() if cache else None
    key = None if kept is None else kept.key(files, asdict(asked))
    if kept is not None and key is not None and (found := kept.read(key)) is not None:
        return found
    parts = [_read_file(file, asked) for file in files]
    table = parts[0] if len(parts) == 1 else _stack(parts)
    check_row_ids(table.frame["row_id"], table.report.files)
    if kept is not None and key is not None and kept.key(files, asdict(asked)) == key:  # not changed meanwhile
        return kept.write(key, table)
    return table


def listed(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return one path or several as a list, which must not be empty."""
    files = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not files:
        raise TableError("At least one table must be given; got none.")
    return files


def _read_file(path: Path, asked: Asked) -> AffinityTable:
    source = open_source(path)
    if asked.labels:
        find_label(source)
    block = feature_block(source, asked.feature_prefix)
    if asked.sequences:
        check_chains(source)
    raw, matrix, complete, infinite = _read_cells(source, block, asked)
    n_read = len(complete)
    if not n_read:
        raise TableError(f"{path} must hold rows; it has a header only.")
    n_notes = len(source.notes)
    frame = canonical_columns(source, raw, n_read, block, asked)
    source.notes[n_notes:n_notes] = sequence_notes(source, asked)  # before what is said of labels
    del raw
    keep = np.ones(n_read, np.bool_)
    dropped: dict[str, int] = {}
    if asked.labels:
        dropped[NO_LABEL] = frame["pkd"].null_count()
        keep &= asked.keep_everything | frame["pkd"].is_not_null().to_numpy()
    in_matrix = np.ones(n_read, np.bool_)
    if block and not asked.keep_incomplete:
        dropped[NO_FEATURES] = int((keep & ~complete).sum())
        keep &= complete
        in_matrix = complete
    if asked.sequences and not asked.keep_incomplete:
        without = without_chain(frame).to_numpy()
        dropped[NO_SEQUENCE] = int((keep & without).sum())
        keep &= ~without
    infinite.refuse(source, block, FINITE)
    if not keep.all():
        frame = frame.filter(pl.Series(keep))
    report = ReadingReport(
        files=(path.name,), n_read=n_read, dropped=dropped, columns=source.taken, notes=tuple(source.notes)
    )
    return AffinityTable(frame, cast(Matrix, matrix.finished(keep[in_matrix])), tuple(block), report)


def _read_cells(
    source: Source, block: list[str], asked: Asked
) -> tuple[pl.DataFrame, Growing, NDArray[np.bool_], BadCells]:
    """Read a file's rows.

    Returns
    -------
    raw : the columns that are no features
    matrix : the features of all rows; without those of incomplete rows unless these are kept
    complete : (n_read,) whether no feature of a row is empty
    infinite : where features are
    """
    matrix = Growing(len(block), spill_folder())
    texts, infinite, start = [], BadCells(), 0
    complete = [np.ones(0, np.bool_)]
    for stretch in read_stretches(source, block, asked.others):
        piece = stretch.block
        filled = np.ones(len(piece), np.bool_)
        with np.errstate(over="ignore", invalid="ignore"):
            odd = np.flatnonzero(~np.isfinite(piece.sum(axis=1)))  # one pass; what is odd is few rows
        if len(odd):
            infinite.add_infinite(piece[odd], block, odd + start)
            filled[odd] = ~np.isnan(piece[odd]).any(axis=1)
            piece = piece if asked.keep_incomplete else piece[filled]
        texts.append(stretch.raw)
        matrix.append(piece)
        complete.append(filled)
        start += len(filled)
    return _one_frame(source, texts), matrix, np.concatenate(complete), infinite


def _one_frame(source: Source, texts: list[pl.DataFrame]) -> pl.DataFrame:
    """Join frames, row under row; a column that only some of them could read as numbers is read again as text."""
    if not texts:
        return pl.DataFrame()
    torn = [name for name in texts[0].columns if any(text[name].dtype != texts[0][name].dtype for text in texts)]
    raw = pl.concat([text.drop(torn) for text in texts])
    if torn:
        raw = raw.with_columns(read_as_text(source, torn)).select(texts[0].columns)
    return raw


def check_same_features(files: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Refuse files, each with its name and feature columns, of which two differ in these but for their order."""
    first, expected = files[0]
    for name, columns in files[1:]:
        if set(columns) != set(expected):
            missing = sorted(set(columns) ^ set(expected))[0]
            raise FeatureError(f"{name} and {first} must have the same feature columns; {missing} is in one only.")


def _stack(parts: list[AffinityTable]) -> AffinityTable:
    """Join tables of several files, row under row."""
    first = parts[0]
    check_same_features([(part.report.files[0], part.feature_names) for part in parts])
    frames = [
        part.frame.with_columns(pl.format("{}:{}", pl.lit(Path(part.report.files[0]).stem), "row_id").alias("row_id"))
        if "row_id" not in part.report.columns and part is not first
        else part.frame
        for part in parts
    ]
    dropped: dict[str, int] = {}
    for part in parts:
        for reason, count in part.report.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    report = ReadingReport(
        files=tuple(name for part in parts for name in part.report.files),
        n_read=sum(part.report.n_read for part in parts),
        dropped=dropped,
        columns={name: own for part in reversed(parts) for name, own in part.report.columns.items()},
        notes=tuple(dict.fromkeys(note for part in parts for note in part.report.notes)),
    )
    frame = pl.concat(frames, how="diagonal_relaxed")
    return AffinityTable(frame, _stack_features(parts), first.feature_names, report)


def _stack_features(parts: list[AffinityTable]) -> NDArray[np.float32]:
    """Return one matrix in the first part's column order; empties `parts`, so that each is let go of."""
    names = parts[0].feature_names
    features, n_rows = Growing(len(names), spill_folder()), sum(len(part) for part in parts)
    while parts:
        part = parts.pop(0)
        order = [part.feature_names.index(name) for name in names]
        for start in range(0, len(part), ROWS):
            features.append(part.features[start : start + ROWS][:, order])
    return cast(Matrix, features.finished(np.ones(n_rows, np.bool_)))


def check_row_ids(ids: pl.Series, files: Sequence[str]) -> None:
    """Refuse row ids (n_samples,) of which two are the same."""
    twice = ids.is_duplicated()
    if twice.any():
        examples = ", ".join(ids.filter(twice).unique(maintain_order=True)[:3])
        raise TableError(
            f"row_id must be different in every row of {', '.join(files)}; {int(twice.sum()):,} rows "
            f"share theirs, such as {examples}. Make them unique, or remove the column to number the rows."
        )
