"""Files of measured affinities → one `AffinityTable`; every conversion said, every bad cell located.

Text columns are read as text and numbers parsed here, so that a message can name the column and the
rows. Only a feature block is parsed by the file reader, straight to float32: it is nearly all of a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import FeatureError, TableError
from tailbind.sequences.alphabet import normalise_sequences
from tailbind.table.cells import Source, parse_numbers
from tailbind.table.chain_cells import check_chains, check_letters, without_chain
from tailbind.table.labels import find_label, read_labels
from tailbind.table.schema import (
    CANONICAL,
    MEASURED,
    SEEDS_PREFIX,
    SEQUENCES,
    SMALLEST_BLOCK,
    SPELLINGS,
    AffinityTable,
    ReadingReport,
    block_gap,
    numbered_blocks,
)

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
NO_LABEL = "no pKd"
NO_FEATURES = "features are empty"
NO_SEQUENCE = "no heavy or light sequence"
AUTO = "auto"


def read_table(
    paths: str | Path | Sequence[str | Path],
    *,
    feature_prefix: str | None = AUTO,
    sequences: bool = False,
    labels: bool = True,
    keep_incomplete: bool = False,
    check_range: bool = True,
    keep_everything: bool = False,
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

    Returns
    -------
    AffinityTable
        Rows in file order. Label and relation are on the pKd scale: a `>` beside a Kd becomes a `<`.

    Raises
    ------
    TableError
        For a file that is missing, empty or unreadable, no label column, text or impossible values among
        the labels, or duplicate row ids.
    FeatureError
        For a block that is absent, has a gap, or holds anything but finite numbers and empty cells; where sequences
        are needed, for a table without them, or with DNA instead.
    """
    files = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not files:
        raise TableError("At least one table must be given; got none.")
    for file in files:
        _check_file(file)
    named = len(files) > 1
    asked = Asked(feature_prefix, sequences, labels, check_range, named, keep_incomplete, keep_everything)
    parts = [_read_file(file, asked) for file in files]
    table = parts[0] if len(parts) == 1 else _stack(parts)
    _check_row_ids(table)
    return table


def has_sequences(path: str | Path) -> bool:
    """Return whether a file has a column of heavy or light chains, from its header alone.

    Raises
    ------
    TableError
        For a file that is missing, empty or unreadable.
    """
    _check_file(Path(path))
    source = _open(Path(path))
    return any(source.find(SPELLINGS[chain]) for chain in ("heavy", "light"))


@dataclass(frozen=True)
class Asked:
    """What is asked of every file: the arguments of `read_table`, and whether to name the source after the file."""

    feature_prefix: str | None
    sequences: bool
    labels: bool
    check_range: bool
    name_source: bool
    keep_incomplete: bool
    keep_everything: bool


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise TableError(f"{path} must be a CSV, TSV or Parquet file; it is a directory. Name a file in it.")
    if not path.exists():
        raise TableError(f"{path} must be a CSV, TSV or Parquet file; there is no such file.")
    suffix = _suffix(path)
    if suffix not in SEPARATORS and suffix != ".parquet":
        raise TableError(
            f"{path} must end in .csv, .tsv, .txt (or these with .gz) or .parquet; got {suffix!r}. Save it as CSV."
        )
    try:
        if path.stat().st_size == 0:
            raise TableError(f"{path} must hold a header and rows; the file is empty.")
        with path.open("rb"):
            pass
    except OSError as error:
        raise TableError(f"{path} must be readable; {error.strerror}.") from error


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix == ".gz" else path.name).suffix.lower()


def _read_file(path: Path, asked: Asked) -> AffinityTable:
    source = _open(path)
    if asked.labels:
        find_label(source)
    block = _feature_block(source, asked.feature_prefix)
    if asked.sequences:
        check_chains(source)
    raw = _read_columns(source, block, asked.keep_everything or asked.feature_prefix is not None)
    n_read = len(raw)
    if not n_read:
        raise TableError(f"{path} must hold rows; it has a header only.")

    # Everything but the features becomes canonical columns; `raw` is then left with the features alone.
    frame = _canonical(source, raw, block, asked)
    raw = raw.select(block)
    keep = pl.repeat(True, n_read, eager=True)
    dropped: dict[str, int] = {}
    if asked.labels:
        dropped[NO_LABEL] = frame["pkd"].null_count()
        keep = keep if asked.keep_everything else frame["pkd"].is_not_null()
    if block and not asked.keep_incomplete:
        complete = raw.select(pl.all_horizontal(pl.all().is_not_null() & pl.all().is_not_nan())).to_series()
        dropped[NO_FEATURES] = int((keep & ~complete).sum())
        keep = keep & complete
    if asked.sequences and not asked.keep_incomplete:
        without = without_chain(frame)
        dropped[NO_SEQUENCE] = int((keep & without).sum())
        keep = keep & ~without
    matrix = _matrix(source, raw, block, keep)
    report = ReadingReport(
        files=(path.name,), n_read=n_read, dropped=dropped, columns=source.taken, notes=tuple(source.notes)
    )
    return AffinityTable(frame.filter(keep), matrix, tuple(block), report)


def _open(path: Path) -> Source:
    """Read a file's header."""
    try:
        if _suffix(path) == ".parquet":
            return Source(path, None, list(pl.read_parquet_schema(path)))
        separator = SEPARATORS[_suffix(path)]
        columns = _header(path, separator)
        if len(columns) == 1:  # a spreadsheet may have written another separator than the name says
            separator = max(",;\t", key=columns[0].count)
            columns = _header(path, separator)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(path, error) from error
    # polars lets a header of other encodings through, and Latin-1 "Kd (µM)" would then pass for mol/L.
    if any("\N{REPLACEMENT CHARACTER}" in column for column in columns):
        raise _unreadable(path, ValueError("invalid utf-8 sequence in the header"))
    twice = [column for column in columns if "_duplicated_" in column]
    if twice:
        name = twice[0].rsplit("_duplicated_", 1)[0]
        raise TableError(f"{path}: column names must differ; {name!r} is there twice. Rename one.")
    return Source(path, separator, columns)


def _header(path: Path, separator: str) -> list[str]:
    return pl.read_csv(path, separator=separator, n_rows=0, infer_schema=False).columns


def _unreadable(path: Path, error: Exception) -> TableError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return TableError(f"{path} must be readable as a table (UTF-8, one header, equal rows); got: {reason}.")


def _feature_block(source: Source, prefix: str | None) -> list[str]:
    """Return the columns of the block to read, in numeric order."""
    if prefix is None:
        return []
    blocks = numbered_blocks(source.columns)
    if prefix == AUTO:
        large = {name: block for name, block in blocks.items() if len(block) >= SMALLEST_BLOCK}
        if len(large) > 1 and SEEDS_PREFIX not in large:
            raise FeatureError(
                f"{source.path} has several blocks of feature columns: {', '.join(f'{n}*' for n in large)}. "
                "Choose one with --set features.columns.prefix=PREFIX."
            )
        prefix = SEEDS_PREFIX if SEEDS_PREFIX in large else next(iter(large), "")
    block = blocks.get(prefix, [])
    if not block:
        raise FeatureError(_no_features(source, prefix, list(blocks)))
    if gap := block_gap(block):
        raise FeatureError(
            f"{source.path}: the columns {block[0]} … {block[-1]} must be numbered without a gap; "
            f"{gap} is missing. Add the column, or renumber."
        )
    members = set(block)
    if [column for column in source.columns if column in members] != block:
        source.notes.append("Warning: the feature columns are in another order; they were put right by name.")
    return block


def _no_features(source: Source, prefix: str, prefixes: list[str]) -> str:
    wanted = f"numbered feature columns {prefix}0, {prefix}1, …" if prefix else "numbered feature columns"
    blocks = ", ".join(f"{name}*" for name in prefixes)
    small = f" (name one of fewer than {SMALLEST_BLOCK} columns with --set features.columns.prefix=PREFIX)"
    found = f"found {blocks} only{'' if prefix else small}" if prefixes else "found none"
    sequences = [name for name in SEQUENCES if source.find(SPELLINGS[name])]
    if sequences:
        also = f"; it has sequences ({', '.join(sequences)})"
        # A block that is asked for by name is what a trained model or a recipe cannot do without.
        advice = "Add the columns." if prefix else "Add the columns, or train from the sequences: --recipe v3."
    else:
        also = ", and no sequences"
        advice = "Add the columns, such as a protein language model's embedding."
    return f"{source.path} must have {wanted} (as in esm2_pca_0 …); {found}{also}. {advice}"


def _read_columns(source: Source, block: list[str], others: bool) -> pl.DataFrame:
    """Read the file: the feature block as float32, all else as text (Parquet: as it is).

    Without `others`, no other block of numbered columns is read: nearly all of a file, for nothing. With them,
    numbers in such a block are read as numbers.
    """
    blocks = [columns for columns in numbered_blocks(source.columns).values() if len(columns) >= SMALLEST_BLOCK]
    numbered = {column for columns in blocks for column in columns} - set(block)
    wanted = [column for column in source.columns if others or column not in numbered]
    kinds = {**dict.fromkeys(numbered if others else (), pl.Float64), **dict.fromkeys(block, pl.Float32)}
    try:
        if source.separator is None:
            return _cast_block(source, pl.read_parquet(source.path, columns=wanted), block)
        form: dict[str, Any] = {"separator": source.separator, "infer_schema": False, "columns": wanted}
        try:
            return pl.read_csv(source.path, schema_overrides=kinds, **form)
        except pl.exceptions.ComputeError:
            # An odd cell somewhere: read all as text, then name the cell (or accept "NA").
            frame = _cast_block(source, pl.read_csv(source.path, **form), block)
            parsed = {column: parse_numbers(frame[column]) for column in numbered & set(wanted)}
            return frame.with_columns(numbers.alias(name) for name, (numbers, bad) in parsed.items() if not bad.any())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(source.path, error) from error


def _cast_block(source: Source, frame: pl.DataFrame, block: list[str]) -> pl.DataFrame:
    for column in block:
        values = frame[column]
        if values.dtype == pl.Float32:
            continue
        numbers, bad = parse_numbers(values)
        if bad.any():
            raise FeatureError(
                f"{source.path}: {column} must hold numbers; got {values.filter(bad)[0]!r} "
                f"({source.rows(bad)}). Correct the cells or leave them empty."
            )
        frame = frame.with_columns(numbers.cast(pl.Float32).alias(column))
    return frame


def _matrix(source: Source, raw: pl.DataFrame, block: list[str], keep: pl.Series) -> NDArray[np.float32]:
    """Move the block's kept rows into one float32 array, letting go of each column as it is copied."""
    n_kept = int(keep.sum())
    matrix = np.empty((n_kept, len(block)), np.float32)
    everything = n_kept == len(keep)
    for position, name in enumerate(block):
        column = raw.drop_in_place(name)
        if column.is_infinite().any():
            raise FeatureError(
                f"{source.path}: {name} must hold finite numbers that fit float32; got an infinite one "
                f"({source.rows(column.is_infinite())}). Correct the cells or leave them empty."
            )
        kept = column if everything else column.filter(keep)
        matrix[:, position] = kept.fill_null(float("nan")).to_numpy()
    return matrix


def _canonical(source: Source, raw: pl.DataFrame, block: list[str], asked: Asked) -> pl.DataFrame:
    """Return the canonical columns, then the file's other columns under their own names."""
    n = len(raw)
    text: dict[str, pl.Series] = {}
    for name in ("row_id", *SEQUENCES, "source", "antigen_name", "group"):
        own = source.find(SPELLINGS[name])
        if own is not None:
            source.taken[name] = own
            text[name] = raw[own].cast(pl.String).str.strip_chars().fill_null("")
        else:
            text[name] = pl.repeat("", n, dtype=pl.String, eager=True)
    where = f" of {source.path.name}" if asked.name_source else ""
    for name in SEQUENCES:
        text[name], n_changed = normalise_sequences(text[name])
        if asked.sequences:
            check_letters(source, name, text[name], where)
        if n_changed:
            source.notes.append(f"Normalised {n_changed:,} {name} sequences{where} (lower case, spaces, gaps, stops).")
    if "row_id" not in source.taken:
        text["row_id"] = pl.int_range(n, eager=True).cast(pl.String)
    elif (text["row_id"] == "").any():
        raise TableError(f"{source.path}: row_id must not be empty; {source.rows(text['row_id'] == '')}. Fill it.")
    if "source" not in source.taken and asked.name_source:
        text["source"] = pl.repeat(source.path.stem, n, eager=True)
    if asked.labels:
        pkd, relation = read_labels(source, raw, asked.check_range)
    else:
        pkd = pl.repeat(None, n, dtype=pl.Float64, eager=True)
        relation = pl.repeat(MEASURED, n, eager=True)
    canonical = {**text, "pkd": pkd, "relation": relation, "file": pl.repeat(source.path.name, n, eager=True)}
    spent = {*block, *source.taken.values()}
    others = [column for column in raw.columns if column not in spent and column not in CANONICAL]
    return pl.DataFrame({name: canonical[name] for name in CANONICAL}).with_columns(raw[column] for column in others)


def _stack(parts: list[AffinityTable]) -> AffinityTable:
    """Join tables of several files, row under row."""
    first = parts[0]
    for part in parts[1:]:
        if set(part.feature_names) != set(first.feature_names):
            missing = sorted(set(first.feature_names) ^ set(part.feature_names))[0]
            raise FeatureError(
                f"{part.report.files[0]} and {first.report.files[0]} must have the same feature columns; "
                f"{missing} is in one only."
            )
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
    """Return one matrix in the first part's column order; empties `parts`, so that each is held once."""
    names = parts[0].feature_names
    features = np.empty((sum(len(part) for part in parts), len(names)), np.float32)
    start = 0
    while parts:
        part = parts.pop(0)
        order = [part.feature_names.index(name) for name in names]
        features[start : start + len(part)] = part.features[:, order]
        start += len(part)
    return features


def _check_row_ids(table: AffinityTable) -> None:
    ids = table.frame["row_id"]
    twice = ids.is_duplicated()
    if twice.any():
        examples = ", ".join(ids.filter(twice).unique(maintain_order=True)[:3])
        raise TableError(
            f"row_id must be different in every row of {', '.join(table.report.files)}; {int(twice.sum()):,} rows "
            f"share theirs, such as {examples}. Make them unique, or remove the column to number the rows."
        )
