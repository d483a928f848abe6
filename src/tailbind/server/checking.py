"""Sequences of requests: put into one way of writing, each bad letter told with its place."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from tailbind.sequences.alphabet import AMINO_ACIDS, NUCLEOTIDES, SHORTEST_NUCLEOTIDES
from tailbind.server.limits import Limits
from tailbind.table.schema import CANONICAL, MEASURED, SEQUENCES, AffinityTable, ReadingReport

#: Bad letters of one sequence, and faults of one request, that are told one by one.
MOST_LETTERS: Final = 5
MOST_FAULTS: Final = 20
#: What may stand between letters, as texts are copied and alignments written; stops may follow the last one.
SPACES: Final = r" \t\r\n\u00a0.\-"
_BARE: Final = str.maketrans(
    dict.fromkeys(" \t\r\n\u00a0.-") | dict(zip(AMINO_ACIDS.lower(), AMINO_ACIDS, strict=True))
)
_ODD: Final = re.compile(f"[^{AMINO_ACIDS}]")
_DNA: Final = re.compile(f"[{NUCLEOTIDES}]{{{SHORTEST_NUCLEOTIDES},}}")


class RefusedError(Exception):
    """A request is understood, and cannot be done as asked.

    Attributes
    ----------
    message : one line
    faults : (where, what) of the fields that are to blame
    status : of the answer
    """

    def __init__(self, message: str, faults: Sequence[tuple[str, str]] = (), status: int = 422) -> None:
        super().__init__(message)
        self.message, self.faults, self.status = message, tuple(faults), status


@dataclass(frozen=True)
class Pairs:
    """Sequences that may be predicted: (n,) strings in upper case for each chain, "" where there is none."""

    chains: Mapping[str, tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.chains["heavy"])

    def slice(self, start: int, stop: int) -> "Pairs":
        """Return consecutive ones."""
        return Pairs({name: values[start:stop] for name, values in self.chains.items()})


def checked_pairs(asked: Sequence[Mapping[str, str]], limits: Limits, where: str = "pairs[{}].") -> Pairs:
    """Return the pairs of a request, or refuse it with all that is wrong.

    Parameters
    ----------
    asked : each with heavy, light and antigen
    where : how a pair's place is written before the name of the chain

    Raises
    ------
    RefusedError
        For letters that are none of the twenty amino acids, DNA, sequences that are too long, or a pair without
        heavy and light chain.

    Examples
    --------
    >>> checked_pairs([{"heavy": "evql vesg", "light": "", "antigen": ""}], Limits()).chains["heavy"]
    ('EVQLVESG',)
    >>> try:
    ...     checked_pairs([{"heavy": "EVX1", "light": "", "antigen": ""}], Limits())
    ... except RefusedError as error:
    ...     print(error.faults)
    (('pairs[0].heavy', "must hold the twenty amino acids' letters only; got 'X' at 3, '1' at 4."),)
    """
    faults: dict[tuple[int, int], tuple[str, str]] = {}
    chains: dict[str, tuple[str, ...]] = {}
    for number, chain in enumerate(SEQUENCES):
        chains[chain] = tuple(bare(pair[chain]) for pair in asked)
        for row, sequence in enumerate(chains[chain]):
            if words := _wrong(sequence, limits.letters(chain)):
                faults[row, number] = (f"{where.format(row)}{chain}", words)
    for row, (heavy, light) in enumerate(zip(chains["heavy"], chains["light"], strict=True)):
        if not heavy and not light:
            faults[row, 0] = (f"{where.format(row)}heavy", "must be given, or light; both are empty.")
    if faults:
        found = [faults[place] for place in sorted(faults)]
        first = f", of which the first {MOST_FAULTS} are told" if len(found) > MOST_FAULTS else ""
        more = f" ({len(found):,} are not{first})" if len(found) > 1 else ""
        path, words = found[0]
        raise RefusedError(
            f"Every sequence must be one that can be predicted{more}: {path} {words}", found[:MOST_FAULTS]
        )
    return Pairs(chains)


def bare(text: str) -> str:
    """Return a sequence without what may stand between letters, the twenty in upper case; all else as it is.

    Unlike in a table nothing is guessed: a letter that only becomes one of the twenty by its capital (ſ, ß) stays.

    >>> bare("evql-VES gg*")
    'EVQLVESGG'
    """
    return text.translate(_BARE).rstrip("*")


def _wrong(sequence: str, most: int) -> str:
    """Return why a sequence cannot be predicted, "" where it can."""
    if len(sequence) > most:
        return f"must have at most {most:,} letters; it has {len(sequence):,}."
    if _DNA.fullmatch(sequence):
        return "must be a protein in one-letter code; it looks like DNA or RNA. Translate it."
    bad = [(found[0], found.start() + 1) for found in _ODD.finditer(sequence)]
    if not bad:
        return ""
    told = ", ".join(f"{letter!r} at {place}" for letter, place in bad[:MOST_LETTERS])
    more = f" and {len(bad) - MOST_LETTERS:,} more" if len(bad) > MOST_LETTERS else ""
    return f"must hold the twenty amino acids' letters only; got {told}{more}."


def table_of(pairs: Pairs) -> AffinityTable:
    """Return the pairs as a table, as if read from a file with the three sequences alone.

    >>> len(table_of(Pairs({"heavy": ("EVQL",), "light": ("",), "antigen": ("",)})))
    1
    """
    n = len(pairs)
    nothing = [""] * n  # lists are quicker here than expressions: most tables have one row
    columns: dict[str, Any] = dict.fromkeys(CANONICAL, nothing)
    columns |= {"row_id": [str(row) for row in range(n)], "relation": [MEASURED] * n, "pkd": [None] * n}
    columns |= {chain: pairs.chains[chain] for chain in SEQUENCES}
    schema = dict.fromkeys(CANONICAL, pl.String()) | {"pkd": pl.Float64()}
    report = ReadingReport(files=(), n_read=n, dropped={}, columns={})
    return AffinityTable(pl.DataFrame(columns, schema=schema), np.empty((n, 0), np.float32), (), report)
