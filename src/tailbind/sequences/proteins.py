"""One protein as a person gives it: bare letters or FASTA text, checked letter by letter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from tailbind.errors import SequenceError
from tailbind.sequences.alphabet import AMINO_ACIDS, looks_like_nucleotides, normalise_sequences

#: Of letters that are none of the twenty, so many are told by place.
TOLD: Final = 5


def check_protein(text: str, name: str) -> str:
    """Return a protein's letters in upper case, without white space, gaps and a stop at the end; "" for none.

    Parameters
    ----------
    text : as a person typed or pasted it
    name : of the chain, for messages

    Raises
    ------
    SequenceError
        When it is DNA or RNA, or a letter is none of the twenty amino acids.

    Examples
    --------
    >>> check_protein("evql vesg*", "heavy")
    'EVQLVESG'
    >>> check_protein("EVBLX", "heavy")
    Traceback (most recent call last):
    tailbind.errors.SequenceError: heavy must be made of the twenty amino acids ACDEFGHIKLMNPQRSTVWY; got B at position
    3, X at position 5. Correct them.
    """
    letters = normalise_sequences(pl.Series([text]))[0]
    sequence = str(letters[0])
    if looks_like_nucleotides(letters)[0]:
        raise SequenceError(f"{name} must be a protein sequence; got DNA or RNA ({sequence[:20]}…). Translate it.")
    bad = bad_letters(sequence)
    if bad:
        listing = ", ".join(f"{letter} at position {position}" for position, letter in bad[:TOLD])
        more = f" and {len(bad) - TOLD:,} more" if len(bad) > TOLD else ""
        raise SequenceError(
            f"{name} must be made of the twenty amino acids {AMINO_ACIDS}; got {listing}{more}. "
            f"Correct {'it' if len(bad) == 1 else 'them'}."
        )
    return sequence


def bad_letters(sequence: str) -> list[tuple[int, str]]:
    """Return the letters that are none of the twenty, each with its position, counted from 1.

    >>> bad_letters("EVBLX")
    [(3, 'B'), (5, 'X')]
    """
    return [(position, letter) for position, letter in enumerate(sequence, 1) if letter not in AMINO_ACIDS]


def read_fasta(text: str) -> list[tuple[str, str]]:
    r"""Return the records of FASTA text, the first word of each title and its letters; text without titles is one.

    >>> read_fasta(">heavy of 4D5\nEVQL\nVESG\n>light\nDIQM\n")
    [('heavy', 'EVQLVESG'), ('light', 'DIQM')]
    >>> read_fasta("EVQL\nVESG\n")
    [('', 'EVQLVESG')]
    """
    records: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith(">"):
            records.append((bare[1:].split(maxsplit=1)[0] if bare[1:].strip() else "", []))
        elif bare:
            if not records:
                records.append(("", []))
            records[-1][1].append(bare)
    return [(name, "".join(lines)) for name, lines in records]


def read_argument(argument: str, name: str) -> str:
    """Return the sequence that an argument gives: itself, or after @ a file of bare letters or of one FASTA record.

    Parameters
    ----------
    argument : as typed: "EVQL", or "@vh.fasta"
    name : of the chain, for messages

    Raises
    ------
    SequenceError
        When the file cannot be read, or does not hold one sequence.

    Examples
    --------
    >>> read_argument("EVQL", "heavy")
    'EVQL'
    """
    if not argument.startswith("@"):
        return argument
    path = Path(argument[1:])
    records = read_fasta(_text(path))
    if len(records) != 1:
        raise SequenceError(
            f"{path} must hold one sequence, the {name}; got {len(records)}. Give one, or several chains by --fasta."
        )
    return records[0][1]


def read_chains(path: Path, spellings: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return chain → sequence, from a FASTA file whose records are called after their chains.

    Parameters
    ----------
    path : of the file
    spellings : chain → what its record may be called, in lower case

    Raises
    ------
    SequenceError
        When the file cannot be read, or a record is of no chain, or two are of one.
    """
    found: dict[str, str] = {}
    for name, sequence in read_fasta(_text(path)):
        chain = next((chain for chain, names in spellings.items() if name.lower() in names), None)
        if chain is None:
            raise SequenceError(
                f"{path} must have records called {', '.join(spellings)}; got {name!r}. Rename it, as in >heavy."
            )
        if chain in found:
            raise SequenceError(f"{path} must have one record for each chain; got two for {chain}. Remove one.")
        found[chain] = sequence
    if not found:
        raise SequenceError(f"{path} must hold FASTA records called {', '.join(spellings)}; it is empty.")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SequenceError(f"{path} must be a readable text file with a sequence; {reason}.") from error
