import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.sequences.residues import (
    ACIDS,
    AROMATIC,
    BASES,
    BLOSUM62,
    CHARGE,
    HYDROPATHY,
    VOLUME,
    codes,
    isoelectric_points,
    residue_codes,
)

KNOWN = np.frombuffer(AMINO_ACIDS.encode(), np.uint8)
PROPERTIES = {"hydropathy": HYDROPATHY, "volume": VOLUME, "charge": CHARGE, "aromatic": AROMATIC}


@pytest.mark.parametrize(
    ("lookup", "expected"),
    [
        (HYDROPATHY, {"I": 4.5, "R": -4.5, "W": -0.9, "G": -0.4, "D": -3.5, "N": -3.5, "E": -3.5, "Q": -3.5}),
        (VOLUME, {"G": 60.1, "W": 227.8, "A": 88.6, "C": 108.5, "L": 166.7, "I": 166.7, "P": 112.7}),
        (CHARGE, {"D": -1, "E": -1, "K": 1, "R": 1, "H": 0.112, "C": 0, "Y": 0, "A": 0}),
        (AROMATIC, {"F": 1, "W": 1, "Y": 1, "H": 0, "A": 0}),
    ],
    ids=PROPERTIES.keys(),
)
def test_values_are_those_of_their_sources(lookup: np.ndarray, expected: dict[str, float]) -> None:
    assert {letter: round(float(lookup[ord(letter)]), 3) for letter in expected} == pytest.approx(expected, abs=1e-3)


def test_sums_over_the_twenty_are_those_of_the_published_tables() -> None:
    assert HYDROPATHY[KNOWN].sum() == pytest.approx(-9.8, abs=1e-4)
    assert VOLUME[KNOWN].sum() == pytest.approx(2825.2, abs=1e-2)
    assert AROMATIC[KNOWN].sum() == 3


@pytest.mark.parametrize("lookup", PROPERTIES.values(), ids=PROPERTIES.keys())
def test_an_unknown_letter_has_the_mean_and_a_gap_nothing(lookup: np.ndarray) -> None:
    assert lookup.shape == (256,)
    assert lookup.dtype == np.float32
    for letter in "XBZUO*?":
        assert lookup[ord(letter)] == pytest.approx(lookup[KNOWN].mean(dtype=np.float64), abs=1e-5)
    assert lookup[ord("-")] == lookup[0] == 0


def test_blosum62_is_symmetric_and_highest_on_its_diagonal() -> None:
    np.testing.assert_array_equal(BLOSUM62, BLOSUM62.T)
    scores = BLOSUM62[np.ix_(KNOWN, KNOWN)]
    assert dict(zip(AMINO_ACIDS, np.diag(scores).astype(int).tolist(), strict=True)) == {
        "A": 4, "C": 9, "D": 6, "E": 5, "F": 6, "G": 6, "H": 8, "I": 4, "K": 5, "L": 4,
        "M": 5, "N": 6, "P": 7, "Q": 5, "R": 5, "S": 4, "T": 5, "V": 4, "W": 11, "Y": 7,
    }  # fmt: skip
    assert (scores + 1000 * np.eye(20)).argmax(axis=1).tolist() == list(range(20))
    assert (scores < np.diag(scores)).sum() == 380
    assert scores.sum() == -426


@pytest.mark.parametrize(
    ("pair", "score"), [("WF", 1), ("IV", 3), ("DE", 2), ("WC", -2), ("GI", -4), ("KR", 2), ("ST", 1), ("HY", 2)]
)
def test_blosum62_by_hand(pair: str, score: int) -> None:
    assert BLOSUM62[ord(pair[0]), ord(pair[1])] == score


def test_blosum62_of_other_letters_and_gaps() -> None:
    assert BLOSUM62[ord("X"), ord("W")] == BLOSUM62[ord("A"), ord("*")] == BLOSUM62[ord("X"), ord("X")] == -1
    assert BLOSUM62[ord("-"), ord("W")] == BLOSUM62[ord("X"), ord("-")] == BLOSUM62[0, ord("A")] == -4


def test_what_is_known_cannot_be_changed() -> None:
    for lookup in (*PROPERTIES.values(), BLOSUM62):
        with pytest.raises(ValueError, match="read-only"):
            lookup[65] = 1


@given(st.lists(st.text(alphabet="ACDXÄЖ", max_size=7), max_size=9))
def test_codes_are_the_letters_padded(sequences: list[str]) -> None:
    ascii_only = ["".join(letter if letter in "ACDX" else "?" for letter in sequence) for sequence in sequences]
    padded, lengths = codes(sequences)
    assert padded.shape == (len(sequences), max(map(len, sequences), default=0))
    assert lengths.tolist() == [len(sequence) for sequence in sequences]
    assert [row.tobytes().rstrip(b"\0").decode() for row in padded] == ascii_only
    letters, again = residue_codes(sequences)
    assert letters.tobytes().decode() == "".join(ascii_only)
    np.testing.assert_array_equal(again, lengths)


def letter_counts(sequences: list[str]) -> np.ndarray:
    return np.array([np.bincount(np.frombuffer(text.encode(), np.uint8), minlength=256) for text in sequences])


def charge_at(sequence: str, ph: float) -> float:
    """Return the charge of a chain by the formula of Henderson and Hasselbalch, group by group."""
    acids = [ACIDS["end"], *(ACIDS[letter] for letter in sequence if letter in ACIDS)]
    bases = [BASES["start"], *(BASES[letter] for letter in sequence if letter in BASES)]
    return sum(1 / (1 + 10 ** (ph - pka)) for pka in bases) - sum(1 / (1 + 10 ** (pka - ph)) for pka in acids)


@given(st.lists(st.text(alphabet=AMINO_ACIDS, min_size=1, max_size=30), min_size=1, max_size=5))
def test_at_its_isoelectric_point_a_chain_has_no_charge(sequences: list[str]) -> None:
    for sequence, point in zip(sequences, isoelectric_points(letter_counts(sequences)), strict=True):
        assert charge_at(sequence, point) == pytest.approx(0, abs=1e-6)
        assert 2 < point < 14


def test_what_has_no_letter_has_no_isoelectric_point() -> None:
    assert np.isnan(isoelectric_points(letter_counts(["", "K"]))).tolist() == [True, False]
    assert isoelectric_points(np.zeros((0, 256), np.intp)).shape == (0,)
