"""Sequences of one length as columns of letters: in how many columns they differ, many against many.

The number of differing columns (the Hamming distance) is found by matrix products over the columns that vary on
both sides, where two sequences score one for each letter they share.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.unsignedinteger[Any]]
Indices = NDArray[np.intp]

#: Sequences in one block of a matrix product, whose result should stay in the processor's cache.
QUERY_BLOCK: Final = 512
REFERENCE_BLOCK: Final = 2048

#: Letters compared without a matrix product, where setting one up would take longer.
DIRECT: Final = 500_000


def encode(sequences: Sequence[str]) -> Codes:
    """Return the letters of sequences of one length as code points, (n_sequences, length).

    >>> encode(["AC", "AD"]).tolist()
    [[65, 67], [65, 68]]
    """
    points = np.array(sequences).view(np.uint32).reshape(len(sequences), -1)
    return points.astype(np.uint8) if points.max() < 256 else points


def decode(codes: NDArray[Any]) -> str:
    """Return the sequence whose letters these are.

    >>> decode(encode(["EVQL"])[0])
    'EVQL'
    """
    return "".join(map(chr, codes.tolist()))


def commonest(codes: Codes) -> Codes:
    """Return the commonest letter of each column, the first in the alphabet where several are, (length,)."""
    columns = [np.unique(column, return_counts=True) for column in codes.T]
    return np.array([letters[counts.argmax()] for letters, counts in columns], dtype=codes.dtype)


def differences(codes: Codes, centre: Codes) -> Indices:
    """Return in how many columns each sequence differs from one, (n_sequences,)."""
    count: Indices = (codes != centre).sum(axis=1)
    return count


def one_letter_apart(queries: Codes, references: Codes) -> NDArray[np.bool_]:
    """Return which queries have a reference that differs from them in exactly one column.

    Sequences that are equal but for one column have equal sums over the others, with a random number for
    each column and letter; so sorting takes the place of comparing (an accidental equality of two 64-bit
    sums has a chance of one in a billion for the largest tables).

    Parameters
    ----------
    queries, references : (n_queries, length), (n_references, length); distinct within each

    Examples
    --------
    >>> one_letter_apart(encode(["EVQL", "QVQV"]), encode(["EVQV", "EVQL"])).tolist()
    [True, True]
    """
    # The sums wrap around at 64 bits, as they may.
    generator = np.random.default_rng(0)
    numbers = generator.integers(1, 2**63, size=(queries.shape[1],), dtype=np.uint64)
    query_sums = queries.astype(np.uint64) @ numbers
    reference_sums = references.astype(np.uint64) @ numbers
    equal = np.isin(query_sums, reference_sums)  # the query itself is among the references
    varying = (references != references[0]).any(axis=0) | (queries != references[0]).any(axis=0)
    found = np.zeros(len(queries), dtype=bool)
    for column in np.flatnonzero(varying):
        left = np.flatnonzero(~found)
        others = np.sort(reference_sums - references[:, column] * numbers[column])
        wanted = query_sums[left] - queries[left, column] * numbers[column]
        count = np.searchsorted(others, wanted, side="right") - np.searchsorted(others, wanted, side="left")
        found[left] = count > equal[left]
    return found


def least_difference(queries: Codes, references: Codes) -> NDArray[np.float64]:
    """Return in how many columns each query differs from the nearest reference that is not equal to it.

    Parameters
    ----------
    queries, references : (n_queries, length), (n_references, length)

    Returns
    -------
    (n_queries,) at least 1; inf where there is no other reference

    Examples
    --------
    >>> least_difference(encode(["EVQL"]), encode(["EVQL", "EAAL", "QVAA"])).tolist()
    [2.0]
    """
    least = np.full(len(queries), np.inf)
    if queries.size * len(references) <= DIRECT:
        if len(references):
            counts = (queries[:, None, :] != references[None, :, :]).sum(axis=2)
            least = np.where(counts > 0, counts, np.inf).min(axis=1)
        return least
    scores = _Scores(queries, references)
    for first in range(0, len(queries), QUERY_BLOCK):
        rows = slice(first, first + QUERY_BLOCK)
        left = scores.of_queries(queries[rows])
        for start in range(0, len(references), REFERENCE_BLOCK):
            counts = scores.n_shared - left @ scores.of_references(references[start : start + REFERENCE_BLOCK]).T
            counts[counts < 1] = np.inf
            least[rows] = np.minimum(least[rows], counts.min(axis=1))
    return least


class _Scores:
    """Letters as vectors, whose product is the number of equal columns less a constant.

    Only columns that vary on both sides need one component per letter; the differences in all other columns are
    the same for every partner and take one component together.
    """

    def __init__(self, queries: Codes, references: Codes) -> None:
        query_varies = (queries != queries[0]).any(axis=0)
        reference_varies = (references != references[0]).any(axis=0)
        shared = np.flatnonzero(query_varies & reference_varies)
        self.n_shared = len(shared)
        letters = [np.intersect1d(queries[:, column], references[:, column]) for column in shared]
        self.columns = np.repeat(shared, [len(found) for found in letters])
        self.letters = np.concatenate([np.zeros(0, dtype=queries.dtype), *letters])
        self.only_queries = np.flatnonzero(query_varies & ~reference_varies)
        self.only_references = np.flatnonzero(~query_varies)
        self.first_query, self.first_reference = queries[0], references[0]

    def of_queries(self, codes: Codes) -> NDArray[np.float32]:
        differing = codes[:, self.only_queries] != self.first_reference[self.only_queries]
        return self._vectors(codes, -differing.sum(axis=1), np.ones(len(codes)))

    def of_references(self, codes: Codes) -> NDArray[np.float32]:
        differing = codes[:, self.only_references] != self.first_query[self.only_references]
        return self._vectors(codes, np.ones(len(codes)), -differing.sum(axis=1))

    def _vectors(self, codes: Codes, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float32]:
        vectors = np.empty((len(codes), len(self.columns) + 2), dtype=np.float32)
        vectors[:, :-2] = codes[:, self.columns] == self.letters
        vectors[:, -2], vectors[:, -1] = first, second
        return vectors
