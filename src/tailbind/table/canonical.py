"""A file's columns under their canonical names: text tidied, labels converted, sequences in one way of writing."""

from dataclasses import dataclass
from typing import Final

import polars as pl

from tailbind.errors import TableError
from tailbind.sequences.alphabet import normalise_sequences
from tailbind.table.cells import Source
from tailbind.table.chain_cells import check_letters, letters_note
from tailbind.table.labels import read_labels
from tailbind.table.schema import CANONICAL, MEASURED, SEQUENCES, SPELLINGS

#: The canonical columns that are taken as the file has them.
TEXT: Final = ("row_id", *SEQUENCES, "source", "antigen_name", "group")


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

    @property
    def others(self) -> bool:
        """Whether blocks of numbered columns are read that are no features."""
        return self.keep_everything or self.feature_prefix is not None


def canonical_columns(source: Source, raw: pl.DataFrame, n: int, block: list[str], asked: Asked) -> pl.DataFrame:
    """Return the canonical columns, then the file's other columns under their own names.

    What a person should know of the sequences is gathered in `source`, for `sequence_notes` when all rows are read.

    Parameters
    ----------
    source : the file, at the row that `raw` begins with
    raw : `n` rows of the file, all or some consecutive ones, without the features
    block : its feature columns
    asked : what is asked of it
    """
    text: dict[str, pl.Series] = {}
    for name in TEXT:
        own = source.find(SPELLINGS[name])
        if own is not None:
            source.taken[name] = own
            text[name] = _bare(raw[own].cast(pl.String).fill_null(""))
        else:
            text[name] = pl.repeat("", n, dtype=pl.String, eager=True)
    for name in SEQUENCES:
        text[name], n_changed = normalise_sequences(text[name])
        if asked.sequences:
            check_letters(source, name, text[name])
        source.changed[name] = source.changed.get(name, 0) + n_changed
    if "row_id" not in source.taken:
        text["row_id"] = pl.int_range(source.start, source.start + n, eager=True).cast(pl.String)
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


def sequence_notes(source: Source, asked: Asked) -> list[str]:
    """Return sentences about the sequences of all rows that were read."""
    where = f" of {source.path.name}" if asked.name_source else ""
    notes = []
    for name in SEQUENCES:
        if name in source.odd_letters:
            notes.append(letters_note(source, name, where))
        if n_changed := source.changed.get(name, 0):
            notes.append(f"Normalised {n_changed:,} {name} sequences{where} (lower case, spaces, gaps, stops).")
    return notes


def _bare(text: pl.Series) -> pl.Series:
    """Return cells without white space at their ends: the very same where there is none, for text is large."""
    ends = text.str.head(1) + text.str.tail(1)
    return text.str.strip_chars() if ends.str.contains(r"\s").any() else text
