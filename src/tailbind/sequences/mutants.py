"""Single mutants: those that were measured, found among many sequences, and all that there could be of one."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.sequences.columns import Codes, Indices

Sums = NDArray[np.uint64]


@dataclass(frozen=True)
class Parents:
    """For each of some sequences, the one that it is most likely a mutant of.

    Attributes
    ----------
    parent : (n,) the sequence one substitution away that has most others one substitution away; −1 for none
    column : (n,) where the two differ; −1 for none
    n_relatives : (n,) sequences one substitution away
    """

    parent: Indices
    column: Indices
    n_relatives: Indices


def find_parents(codes: Codes) -> Parents:
    """Return each sequence's parent: of the sequences one substitution away, that with most such relatives.

    In a mutational scan that is the wild type; in a library of combinations, where all have as many relatives, one of
    them. Sequences that are equal but for one column have equal sums over the others, with a random number for each
    column (see `one_letter_apart`), so that no two are compared letter by letter.

    Parameters
    ----------
    codes : (n, length) distinct sequences, as `encode` returns them

    Examples
    --------
    >>> from tailbind.sequences.columns import encode
    >>> found = find_parents(encode(["AAA", "CAA", "ADA", "EEE"]))
    >>> found.parent.tolist(), found.column.tolist(), found.n_relatives.tolist()
    ([1, 0, 0, -1], [0, 0, 1, -1], [2, 1, 1, 0])
    """
    n_relatives = np.zeros(len(codes), np.intp)
    for _, members, group in _alike_but_for_one(codes):
        n_relatives[members] += np.bincount(group)[group] - 1
    parent, column, most = (np.full(len(codes), -1, np.intp) for _ in range(3))
    for where, members, group in _alike_but_for_one(codes):
        order = np.lexsort((members, -n_relatives[members], group))
        members, group = members[order], group[order]
        first = np.r_[True, np.diff(group) > 0]
        best, second = members[first], members[np.flatnonzero(first) + 1]  # every group has two members or more
        candidate = np.where(first, second[group], best[group])
        better = n_relatives[candidate] > most[members]
        chosen = members[better]
        parent[chosen], column[chosen], most[chosen] = candidate[better], where, n_relatives[candidate[better]]
    return Parents(parent, column, n_relatives)


def _alike_but_for_one(codes: Codes) -> Iterator[tuple[int, Indices, Indices]]:
    """Yield for each column the sequences that have others equal to them in all other columns, and in which group."""
    if len(codes) < 2:
        return
    varying = np.flatnonzero((codes != codes[0]).any(axis=0))
    numbers = np.random.default_rng(0).integers(1, 2**63, size=len(varying), dtype=np.uint64)
    sums: Sums = np.zeros(len(codes), np.uint64)  # they wrap around at 64 bits, as they may
    for column, number in zip(varying.tolist(), numbers, strict=True):
        sums += codes[:, column].astype(np.uint64) * number
    for column, number in zip(varying.tolist(), numbers, strict=True):
        rest = sums - codes[:, column].astype(np.uint64) * number
        order = np.argsort(rest, kind="stable")
        new = np.r_[True, np.diff(rest[order]) > 0]
        size = np.diff(np.r_[np.flatnonzero(new), len(order)])
        several = np.repeat(size > 1, size)
        if several.any():
            yield column, order[several], np.cumsum(new[several], dtype=np.intp) - 1


def substitutions(sequence: str, places: Indices) -> list[tuple[int, str, str]]:
    """Return every single substitution of a sequence at some places: place, residue put there, mutant.

    >>> [mutant for _, _, mutant in substitutions("GA", np.array([1]))][:3]
    ['GC', 'GD', 'GE']
    """
    return [
        (place, residue, f"{sequence[:place]}{residue}{sequence[place + 1 :]}")
        for place in places.tolist()
        for residue in AMINO_ACIDS
        if residue != sequence[place]
    ]
