"""Sequences as an encoder's tokens: one for each residue, in windows where a sequence is longer than it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from string import ascii_uppercase
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import FeatureError

#: What the tokenizer is tried on: each of the twenty once.
TRIAL: Final = "MKTAYIFGHWCDELNPQRSV"


@dataclass(frozen=True)
class Window:
    """A stretch of a sequence that the encoder reads at a time.

    Attributes
    ----------
    start, end : what is read
    own_start, own_end : the residues within that are taken from it; of all windows together, each residue once
    """

    start: int
    end: int
    own_start: int
    own_end: int


def windows(length: int, size: int, overlap: int) -> list[Window]:
    """Return the windows of a sequence: one where it fits, else overlapping ones, the last flush with the end.

    Where two overlap, each residue is taken from the one in which it is farther from the edge.

    Parameters
    ----------
    length : residues of the sequence
    size : residues of a window; 0 for any number
    overlap : residues that neighbouring windows share, at least

    Examples
    --------
    >>> [(w.start, w.end, w.own_start, w.own_end) for w in windows(10, 6, 2)]
    [(0, 6, 0, 5), (4, 10, 5, 10)]
    """
    if not size or length <= size:
        return [Window(0, length, 0, length)]
    starts = [*range(0, length - size, size - overlap), length - size]
    borders = [0, *((before + size + after) // 2 for before, after in pairwise(starts)), length]
    return [Window(start, start + size, *own) for start, own in zip(starts, pairwise(borders), strict=True)]


@dataclass(frozen=True)
class Letters:
    """What an encoder calls the letters of a sequence.

    Attributes
    ----------
    ids : (256,) token of each ASCII code
    prefix, suffix : special tokens that stand around every sequence
    padding : token that fills up the shorter ones of a batch
    """

    ids: NDArray[np.int64]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    padding: int

    @property
    def n_special(self) -> int:
        """How many special tokens a sequence has."""
        return len(self.prefix) + len(self.suffix)

    def batch(self, pieces: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the tokens of sequences, padded at the end, and 1 where a token is none of the padding.

        Returns
        -------
        tokens, mask : (n, longest + n_special)
        """
        longest = max(map(len, pieces)) + self.n_special
        tokens = np.full((len(pieces), longest), self.padding, np.int64)
        mask = np.zeros((len(pieces), longest), np.int64)
        before = len(self.prefix)
        for row, piece in enumerate(pieces):
            end = before + len(piece)
            tokens[row, :before] = self.prefix
            tokens[row, before:end] = self.ids[np.frombuffer(piece.encode("ascii", "replace"), np.uint8)]
            tokens[row, end : end + len(self.suffix)] = self.suffix
            mask[row, : end + len(self.suffix)] = 1
        return tokens, mask


def read_letters(tokenizer: Any, name: str) -> Letters:
    """Return the letters of a tokenizer, tried on a sequence as it is and, failing that, with spaces between residues.

    Raises
    ------
    FeatureError
        When neither gives one token for each residue.
    """
    for joint in ("", " "):
        if letters := _tried(tokenizer, joint):
            return letters
    tokens = tokenizer.tokenize(TRIAL)
    raise FeatureError(
        f"Encoder {name} must have one token for each residue; its tokenizer makes {len(tokens)} of {len(TRIAL)}, "
        f"{' '.join(tokens[:4])} …. Choose an encoder of amino acids."
    )


def _tried(tokenizer: Any, joint: str) -> Letters | None:
    """Return the letters if each of the twenty is a known token of its own, the same wherever it stands."""
    unknown = tokenizer.unk_token_id
    single = {letter: tokenizer.encode(letter, add_special_tokens=False) for letter in TRIAL}
    body = [ids[0] for ids in single.values() if len(ids) == 1]
    whole = tokenizer.encode(joint.join(TRIAL))
    if len(body) < len(TRIAL) or len(set(body)) < len(TRIAL) or unknown in body:
        return None
    starts = [start for start in range(len(whole)) if whole[start : start + len(body)] == body]
    if len(starts) != 1:
        return None
    prefix, suffix = whole[: starts[0]], whole[starts[0] + len(body) :]
    other = tokenizer.encode("X", add_special_tokens=False)
    fallback = unknown if unknown is not None else other[0] if len(other) == 1 else body[0]
    ids = np.full(256, fallback, np.int64)
    for letter in {*ascii_uppercase, *"-.*"}:
        found = single.get(letter) or tokenizer.encode(letter, add_special_tokens=False)
        ids[ord(letter)] = found[0] if len(found) == 1 else fallback
    padding = tokenizer.pad_token_id
    return Letters(ids, tuple(prefix), tuple(suffix), 0 if padding is None else padding)
