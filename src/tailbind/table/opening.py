"""A file before its rows are read: whether it can be, its header, and which of its columns are the features."""

from pathlib import Path
from typing import Final

import polars as pl

from tailbind.errors import FeatureError, TableError
from tailbind.table.cells import Source
from tailbind.table.schema import (
    SEEDS_PREFIX,
    SEQUENCES,
    SMALLEST_BLOCK,
    SPELLINGS,
    block_gap,
    numbered_blocks,
)
from tailbind.table.stretches import unreadable

SEPARATORS: Final = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
AUTO: Final = "auto"


def check_file(path: Path) -> None:
    """Refuse what is no file of a known format, or cannot be opened."""
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


def open_source(path: Path) -> Source:
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
        raise unreadable(path, error) from error
    # polars lets a header of other encodings through, and Latin-1 "Kd (µM)" would then pass for mol/L.
    if any("\N{REPLACEMENT CHARACTER}" in column for column in columns):
        raise unreadable(path, ValueError("invalid utf-8 sequence in the header"))
    twice = [column for column in columns if "_duplicated_" in column]
    if twice:
        name = twice[0].rsplit("_duplicated_", 1)[0]
        raise TableError(f"{path}: column names must differ; {name!r} is there twice. Rename one.")
    return Source(path, separator, columns)


def _header(path: Path, separator: str) -> list[str]:
    return pl.read_csv(path, separator=separator, n_rows=0, infer_schema=False).columns


def feature_block(source: Source, prefix: str | None) -> list[str]:
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


def has_sequences(path: str | Path) -> bool:
    """Return whether a file has a column of heavy or light chains, from its header alone.

    Raises
    ------
    TableError
        For a file that is missing, empty or unreadable.
    """
    check_file(Path(path))
    source = open_source(Path(path))
    return any(source.find(SPELLINGS[chain]) for chain in ("heavy", "light"))
