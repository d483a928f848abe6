"""Sequences laid along another one: what stands at each of its places, and what is inserted between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]

#: The last IMGT position of each region of a variable domain (Lefranc et al., Dev. Comp. Immunol. 27:55, 2003).
IMGT_ENDS: Final[Mapping[str, int]] = {
    "FR1": 26, "CDR1": 38, "FR2": 55, "CDR2": 65, "FR3": 104, "CDR3": 117, "FR4": 129,
}  # fmt: skip

#: What a residue is part of: a region of a variable domain, or anything else (antigen, linker, constant domain).
REGIONS: Final = (*(f"{domain}.{region}" for domain in ("VH", "VL") for region in IMGT_ENDS), "other")
OTHER: Final = len(REGIONS) - 1

#: Code of the place of an absent residue: no letter's.
GAP: Final = 0


@dataclass(frozen=True)
class Laid:
    """Sequences of one family, laid along its representative.

    Attributes
    ----------
    family : its number
    which : (k,) the sequences, by their position among those that were asked about
    residues : (k, length) ASCII codes, `GAP` where a residue of the representative is absent
    insertions : (row of `residues`, place, letters): what stands before residue `place`; at `length`, at the end
    """

    family: int
    which: Indices
    residues: NDArray[np.uint8]
    insertions: tuple[tuple[int, int, str], ...] = ()

    @cached_property
    def inserted(self) -> dict[int, list[tuple[int, str]]]:
        """Row of `residues` → its insertions: place and letters."""
        found: dict[int, list[tuple[int, str]]] = {}
        for row, place, letters in self.insertions:
            found.setdefault(row, []).append((place, letters))
        return found


def consensus(residues: NDArray[np.uint8], counts: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
    """Return (length,) the most common letter of each column; of equally common ones the first in the alphabet.

    Parameters
    ----------
    residues : (k, length) ASCII codes
    counts : (k,) how often each row counts; once unless given

    >>> consensus(np.frombuffer(b"AKAEAE", np.uint8).reshape(3, 2)).tobytes()
    b'AE'
    """
    length = residues.shape[1]
    best, letters = np.full(length, -1.0), np.zeros(length, np.uint8)
    for letter in np.flatnonzero(np.bincount(residues.ravel(), minlength=256)):
        present = residues == letter
        found = present.sum(axis=0) if counts is None else counts @ present
        letters[found > best] = letter
        best = np.maximum(best, found)
    return letters


def aligned(sequence: str, reference: str) -> tuple[NDArray[np.uint8], list[tuple[int, str]]]:
    """Return a sequence laid along another by the alignment of fewest edits.

    Returns
    -------
    residues : (length of the reference,) ASCII codes, `GAP` where nothing of the sequence stands
    insertions : (place, letters) that stand before the reference's residue `place`

    Examples
    --------
    >>> residues, insertions = aligned("MKWTAQ", "MKTAYQ")
    >>> residues.tobytes(), insertions
    (b'MKTA\\x00Q', [(2, 'W')])
    """
    from rapidfuzz.distance import Levenshtein

    residues = np.full(len(reference), GAP, np.uint8)
    letters = letters_of([sequence], len(sequence))[0]
    insertions = []
    for step in Levenshtein.opcodes(reference, sequence):
        begin, end = step.dest_start, step.dest_end
        if step.tag in ("equal", "replace"):
            residues[step.src_start : step.src_end] = letters[begin:end]
        elif step.tag == "insert":
            insertions.append((step.src_start, sequence[begin:end]))
    return residues, insertions


def carried(of_place: NDArray[Any], laid: Laid, row: int, inserted: int | None = None) -> NDArray[Any]:
    """Return what belongs to each residue of a laid sequence, from what belongs to each of the representative's.

    Parameters
    ----------
    of_place : (length,) regions of the representative, or anything else
    row : of `laid`
    inserted : what belongs to inserted residues; the region that they are in, as `inserted_region` has it, unless given
    """
    present = laid.residues[row] != GAP
    pieces: list[NDArray[Any]] = []
    start = 0
    for place, letters in laid.inserted.get(row, []):
        pieces.append(of_place[start:place][present[start:place]])
        value = inserted_region(of_place, place) if inserted is None else inserted
        pieces.append(np.full(len(letters), value, of_place.dtype))
        start = place
    return np.concatenate([*pieces, of_place[start:][present[start:]]])


def inserted_region(regions: NDArray[Any], place: int) -> int:
    """Return the region of what is inserted before a place: that of the residue before, within one domain, else none.

    >>> regions = np.array([OTHER, REGIONS.index("VH.FR1"), REGIONS.index("VH.CDR1")])
    >>> [REGIONS[inserted_region(regions, place)] for place in range(4)]
    ['other', 'other', 'VH.FR1', 'other']
    """
    if place == 0 or place == len(regions):
        return OTHER
    before, after = int(regions[place - 1]), int(regions[place])
    in_one = before != OTHER and after != OTHER and before // len(IMGT_ENDS) == after // len(IMGT_ENDS)
    return before if in_one else OTHER


def letters_of(sequences: Sequence[str], length: int) -> NDArray[np.uint8]:
    """Return (n, length) ASCII codes of sequences of one length; a letter beyond ASCII counts as "?"."""
    text = "".join(sequences).encode("ascii", "replace")
    return np.frombuffer(text, np.uint8).reshape(len(sequences), length)
