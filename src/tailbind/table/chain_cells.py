"""What is asked of a table's sequences where a model's features are computed from them."""

from typing import Final

import numpy as np
import polars as pl

from tailbind.errors import FeatureError
from tailbind.sequences.alphabet import AMINO_ACIDS, looks_like_nucleotides, unknown_letters
from tailbind.table.cells import Source
from tailbind.table.schema import SPELLINGS

CHAINS: Final = ("heavy", "light")

#: A cell of which this share of letters or more is none of the twenty amino acids is no protein.
MOST_UNKNOWN: Final = 0.5


def check_chains(source: Source) -> None:
    """Refuse a file that has no column of antibody sequences."""
    if any(source.find(SPELLINGS[name]) for name in CHAINS):
        return
    spellings = ", ".join(spelling for name in CHAINS for spelling in SPELLINGS[name][1:3])
    listing = ", ".join(source.columns[:10]) + (", …" if len(source.columns) > 10 else "")
    raise FeatureError(
        f"{source.path} must have antibody sequences in a column heavy or light (or {spellings}, …), for the features "
        f"are computed from them; its columns are {listing}. Add or rename them; recipes such as v2 read feature "
        "columns instead."
    )


def check_letters(source: Source, name: str, sequences: pl.Series) -> None:
    """Refuse DNA where proteins are needed, and take down in `source` letters that are none of the twenty.

    Parameters
    ----------
    name, sequences : canonical name of the column, and its cells normalised
    """
    dna = looks_like_nucleotides(sequences)
    if dna.any():
        raise FeatureError(
            f"{source.path}: {source.taken.get(name, name)} must hold protein sequences; got DNA or RNA "
            f"({source.rows(dna)}). Translate them."
        )
    known = sequences.str.count_matches(f"[{AMINO_ACIDS}]")
    no_protein = (sequences != "") & (known <= MOST_UNKNOWN * sequences.str.len_chars())
    if no_protein.any():
        raise FeatureError(
            f"{source.path}: {source.taken.get(name, name)} must hold protein sequences in one-letter code; got "
            f"{sequences.filter(no_protein)[0][:30]!r} ({source.rows(no_protein)}). Correct the cells or empty them."
        )
    unknown = unknown_letters(sequences)
    odd = unknown != ""
    if odd.any():
        rows = source.odd_letters.setdefault(name, (unknown.filter(odd)[0], []))[1]
        rows.append(odd.arg_true().to_numpy() + source.start)


def letters_note(source: Source, name: str, where: str) -> str:
    """Return the sentence about letters that are none of the twenty; `where`: which file, among several."""
    letters, rows = source.odd_letters[name]
    lines = np.concatenate(rows)
    return (
        f"Warning: {len(lines):,} {name} sequences{where} have letters that are none of the twenty amino "
        f"acids, such as {letters[0]} ({source.lines(lines)})."
    )


def without_chain(frame: pl.DataFrame) -> pl.Series:
    """Return (n_samples,) whether a row has neither a heavy nor a light sequence."""
    return (frame["heavy"] == "") & (frame["light"] == "")
