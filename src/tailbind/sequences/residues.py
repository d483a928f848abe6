"""What is known of the twenty amino acids, as arrays that are looked up by the codes of letters.

Each property is an array of 256 numbers, one for each byte: `HYDROPATHY[ord("I")]` is 4.5. A letter that is none of
the twenty has their mean; a gap and the padding after a sequence's end have 0.

Hydropathy: Kyte and Doolittle, J. Mol. Biol. 157:105 (1982), table 2. Volume: Zamyatnin, Prog. Biophys. Mol. Biol.
24:107 (1972). BLOSUM62: Henikoff and Henikoff, PNAS 89:10915 (1992). pKa: those of EMBOSS (its program iep).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.sequences.alphabet import AMINO_ACIDS

Codes = NDArray[np.uint8]
Lookup = NDArray[np.float32]

GAP: Final = "-"
#: The code of no letter: what `codes` puts behind a sequence's end.
PADDING: Final = 0
#: The pH of blood, at which charges are stated.
BLOOD_PH: Final = 7.4

#: pKa of the side chains that take up or give off a proton, and of the chain's two ends.
ACIDS: Final[Mapping[str, float]] = {"C": 8.5, "D": 3.9, "E": 4.1, "Y": 10.1, "end": 3.6}
BASES: Final[Mapping[str, float]] = {"H": 6.5, "K": 10.8, "R": 12.5, "start": 8.6}


def _lookup(values: Mapping[str, float]) -> Lookup:
    """Return (256,) the values of letters by their codes, none of them to be changed."""
    table = np.full(256, sum(values.values()) / len(AMINO_ACIDS), np.float32)
    table[[PADDING, ord(GAP)]] = 0.0
    for letter in AMINO_ACIDS:
        table[ord(letter)] = values.get(letter, 0.0)
    table.flags.writeable = False
    return table


#: How water-shunning a side chain is: from −4.5 for arginine to 4.5 for isoleucine.
HYDROPATHY: Final = _lookup(
    {
        "A": 1.8, "C": 2.5, "D": -3.5, "E": -3.5, "F": 2.8, "G": -0.4, "H": -3.2, "I": 4.5, "K": -3.9, "L": 3.8,
        "M": 1.9, "N": -3.5, "P": -1.6, "Q": -3.5, "R": -4.5, "S": -0.8, "T": -0.7, "V": 4.2, "W": -0.9, "Y": -1.3,
    }
)  # fmt: skip

#: Volume of a residue in solution, in Å³.
VOLUME: Final = _lookup(
    {
        "A": 88.6, "C": 108.5, "D": 111.1, "E": 138.4, "F": 189.9, "G": 60.1, "H": 153.2, "I": 166.7, "K": 168.6,
        "L": 166.7, "M": 162.9, "N": 114.1, "P": 112.7, "Q": 143.8, "R": 173.4, "S": 89.0, "T": 116.1, "V": 140.0,
        "W": 227.8, "Y": 193.6,
    }
)  # fmt: skip

#: Charge of a side chain at the pH of blood, in elementary charges. Of the twenty only histidine is charged in part:
#: 1 / (1 + 10^(7.4 − 6.5)) = 0.11 by its pKa (Henderson and Hasselbalch). The others are within 0.001 of a whole
#: charge; cysteine and tyrosine, whose 0.07 and 0.002 depend on bonds and surroundings, are taken to have none.
CHARGE: Final = _lookup({"D": -1, "E": -1, "K": 1, "R": 1, "H": 1 / (1 + 10 ** (BLOOD_PH - BASES["H"]))})

#: 1 for phenylalanine, tryptophan and tyrosine. Histidine's ring counts as a base here.
AROMATIC: Final = _lookup(dict.fromkeys("FWY", 1.0))

_BLOSUM62_ORDER: Final = "ARNDCQEGHILKMFPSTWYV"
_BLOSUM62_ROWS: Final = (
    (4, -1, -2, -2, 0, -1, -1, 0, -2, -1, -1, -1, -1, -2, -1, 1, 0, -3, -2, 0),
    (-1, 5, 0, -2, -3, 1, 0, -2, 0, -3, -2, 2, -1, -3, -2, -1, -1, -3, -2, -3),
    (-2, 0, 6, 1, -3, 0, 0, 0, 1, -3, -3, 0, -2, -3, -2, 1, 0, -4, -2, -3),
    (-2, -2, 1, 6, -3, 0, 2, -1, -1, -3, -4, -1, -3, -3, -1, 0, -1, -4, -3, -3),
    (0, -3, -3, -3, 9, -3, -4, -3, -3, -1, -1, -3, -1, -2, -3, -1, -1, -2, -2, -1),
    (-1, 1, 0, 0, -3, 5, 2, -2, 0, -3, -2, 1, 0, -3, -1, 0, -1, -2, -1, -2),
    (-1, 0, 0, 2, -4, 2, 5, -2, 0, -3, -3, 1, -2, -3, -1, 0, -1, -3, -2, -2),
    (0, -2, 0, -1, -3, -2, -2, 6, -2, -4, -4, -2, -3, -3, -2, 0, -2, -2, -3, -3),
    (-2, 0, 1, -1, -3, 0, 0, -2, 8, -3, -3, -1, -2, -1, -2, -1, -2, -2, 2, -3),
    (-1, -3, -3, -3, -1, -3, -3, -4, -3, 4, 2, -3, 1, 0, -3, -2, -1, -3, -1, 3),
    (-1, -2, -3, -4, -1, -2, -3, -4, -3, 2, 4, -2, 2, 0, -3, -2, -1, -2, -1, 1),
    (-1, 2, 0, -1, -3, 1, 1, -2, -1, -3, -2, 5, -1, -3, -1, 0, -1, -3, -2, -2),
    (-1, -1, -2, -3, -1, 0, -2, -3, -2, 1, 2, -1, 5, 0, -2, -1, -1, -1, -1, 1),
    (-2, -3, -3, -3, -2, -3, -3, -3, -1, 0, 0, -3, 0, 6, -4, -2, -2, 1, 3, -1),
    (-1, -2, -2, -1, -3, -1, -1, -2, -2, -3, -3, -1, -2, -4, 7, -1, -1, -4, -3, -2),
    (1, -1, 1, 0, -1, 0, 0, 0, -1, -2, -2, 0, -1, -2, -1, 4, 1, -3, -2, -2),
    (0, -1, 0, -1, -1, -1, -1, -2, -2, -1, -1, -1, -1, -2, -1, 1, 5, -2, -2, 0),
    (-3, -3, -4, -4, -2, -2, -3, -2, -2, -3, -2, -3, -1, 1, -4, -3, -2, 11, 2, -3),
    (-2, -2, -2, -3, -2, -1, -2, -3, 2, -1, -1, -2, -1, 3, -3, -2, -2, 2, 7, -1),
    (0, -3, -3, -3, -1, -2, -2, -3, -3, 3, 1, -2, 1, -1, -2, -2, 0, -3, -1, 4),
)  # fmt: skip


def _blosum62() -> Lookup:
    table = np.full((256, 256), -1.0, np.float32)
    known = np.frombuffer(_BLOSUM62_ORDER.encode(), np.uint8)
    table[np.ix_(known, known)] = _BLOSUM62_ROWS
    for nothing in (PADDING, ord(GAP)):
        table[nothing, :] = table[:, nothing] = -4.0
    table.flags.writeable = False
    return table


#: (256, 256) substitution scores in half bits; −1 where a letter is none of the twenty, −4 where one is a gap.
BLOSUM62: Final = _blosum62()


def residue_codes(sequences: Sequence[str]) -> tuple[Codes, NDArray[np.intp]]:
    """Return the codes of all letters, one sequence after the other, and the sequences' lengths.

    Parameters
    ----------
    sequences : (n,) strings; a letter that is not ASCII counts as unknown, "?"

    Returns
    -------
    codes : (sum of lengths,)
    lengths : (n,)

    Examples
    --------
    >>> letters, lengths = residue_codes(["AC", "", "D"])
    >>> letters.tobytes(), lengths.tolist()
    (b'ACD', [2, 0, 1])
    """
    lengths = np.fromiter(map(len, sequences), np.intp, count=len(sequences))
    return np.frombuffer("".join(sequences).encode("ascii", "replace"), np.uint8), lengths


def codes(sequences: Sequence[str]) -> tuple[Codes, NDArray[np.intp]]:
    """Return the codes of each sequence's letters, padded with 0 at the end, and the sequences' lengths.

    Parameters
    ----------
    sequences : (n,) strings; a letter that is not ASCII counts as unknown, "?"

    Returns
    -------
    codes : (n, greatest length)
    lengths : (n,)

    Examples
    --------
    >>> padded, lengths = codes(["AC", "", "D"])
    >>> padded.tolist(), lengths.tolist()
    ([[65, 67], [0, 0], [68, 0]], [2, 0, 1])
    """
    letters, lengths = residue_codes(sequences)
    padded = np.full((len(lengths), lengths.max(initial=0)), PADDING, np.uint8)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = letters
    return padded, lengths


def isoelectric_points(counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the pH at which a chain has no net charge, by its letters, free ends included.

    By bisection on the sum of the charges of single groups (Henderson and Hasselbalch); every cysteine counts as
    free, and no group feels another.

    Parameters
    ----------
    counts : (n, 256) how often each code occurs in each sequence

    Returns
    -------
    (n,) nan where there is no letter

    Examples
    --------
    >>> letters, _ = codes(["GGG", "DDDK", ""])
    >>> isoelectric_points(np.stack([np.bincount(row[row > 0], minlength=256) for row in letters])).round(2).tolist()
    [6.1, 3.83, nan]
    """
    there = np.where(counts.sum(axis=1) > 0, 1, np.nan)
    groups = [
        (sign, pka, there if len(name) > 1 else counts[:, ord(name)])
        for sign, pkas in ((-1, ACIDS), (1, BASES))
        for name, pka in pkas.items()
    ]
    low, high = np.zeros(len(counts)), np.full(len(counts), 14.0)
    for _ in range(40):
        middle = (low + high) / 2
        acidity = 10**middle
        charge = np.zeros(len(counts))
        for sign, pka, n in groups:
            charge += sign * n / (1 + (acidity / 10**pka) ** sign)
        positive = charge > 0
        low, high = np.where(positive, middle, low), np.where(positive, high, middle)
    points: NDArray[np.float64] = (low + high) / 2 * there
    return points
