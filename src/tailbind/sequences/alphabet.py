"""The letters of protein sequences: one way of writing them, and which cells are not proteins.

Whole columns at a time, by polars: a table has hundreds of thousands of cells and few distinct ones.
What is done about a cell with other letters is for the caller to say.
"""

from typing import Final

import numpy as np
import polars as pl

#: The twenty amino acids by their one-letter codes, in alphabetical order.
AMINO_ACIDS: Final = "ACDEFGHIKLMNPQRSTVWY"

#: DNA and RNA bases, and N for any of them; all but U are amino acids too.
NUCLEOTIDES: Final = "ACGTUN"

#: Below this length a peptide may be made of A, C, G, N and T by chance.
SHORTEST_NUCLEOTIDES: Final = 60


def normalise_sequences(values: pl.Series) -> tuple[pl.Series, int]:
    """Return the sequences in upper case without whitespace, gaps of an alignment (- and .) and stops at the end (*).

    Parameters
    ----------
    values : (n,) strings; null stands for no sequence

    Returns
    -------
    sequences : (n,) strings; "" where there is none
    n_changed : cells that were written differently; an empty cell is not one of them

    Examples
    --------
    >>> sequences, n_changed = normalise_sequences(pl.Series(["evql vesg", "DIQ", None, "QV--LQ*"]))
    >>> sequences.to_list(), n_changed
    (['EVQLVESG', 'DIQ', '', 'QVLQ'], 2)
    """
    text = values.cast(pl.String)
    odd = text.str.contains("[^A-Z]").fill_null(False).arg_true()  # few as a rule, and the others need no copy
    bare = text.gather(odd).str.replace_all(r"[\s.\-]+", "").str.replace(r"\*+$", "").str.to_uppercase()
    n_changed = int((bare != text.gather(odd)).sum())
    if not n_changed:
        return text.fill_null(""), 0
    place = np.arange(len(text))
    place[odd] = len(text) + np.arange(len(odd))
    return pl.concat([text, bare]).gather(place).fill_null(""), n_changed


def unknown_letters(values: pl.Series) -> pl.Series:
    """Return for each sequence the distinct letters that are none of the twenty, sorted; "" where all are.

    Parameters
    ----------
    values : (n,) sequences, as `normalise_sequences` returns them

    Examples
    --------
    >>> unknown_letters(pl.Series(["EVQL", "EVXX*", "", None])).to_list()
    ['', '*X', '', '']
    """
    rest = values.cast(pl.String).str.replace_all(f"[{AMINO_ACIDS}]+", "").fill_null("")
    odd = rest.filter(rest != "").unique().to_list()
    return rest.replace(odd, ["".join(sorted(set(letters))) for letters in odd])


def looks_like_nucleotides(values: pl.Series) -> pl.Series:
    """Return which sequences are DNA or RNA: 60 letters or more, none but those of bases.

    Parameters
    ----------
    values : (n,) sequences, as `normalise_sequences` returns them

    Returns
    -------
    (n,) bool

    Examples
    --------
    >>> looks_like_nucleotides(pl.Series(["GAGGTGCAGCTG" * 10, "GAGGTG", "EVQLVESGG" * 10])).to_list()
    [True, False, False]
    """
    return values.cast(pl.String).str.contains(f"^[{NUCLEOTIDES}]{{{SHORTEST_NUCLEOTIDES},}}$").fill_null(False)
