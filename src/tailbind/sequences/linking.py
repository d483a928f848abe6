"""Single linkage of many distinct sequences, exactly, without comparing all pairs.

Two sequences are linked when they are at least so alike; a cluster is a connected component. A ball whose radius
is within the limit is linked through its centre. Two balls are compared only while they are in different clusters
and the distance of their centres leaves room for a link.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.sequences.balls import Ball, gather, lengths, levenshtein
from tailbind.sequences.columns import Indices, least_difference

#: Largest radius of a ball, as a share of the length: larger ones are fewer, but harder to keep apart.
RADIUS: Final = 0.1

#: Sequences compared at a time, which bounds the memory.
BLOCK: Final = 500

#: Added where shares of lengths become whole numbers, lest rounding take a link away.
ROUNDING: Final = 1e-9


def link(sequences: Sequence[str], identity: float, fewer_than: int) -> Indices | None:
    """Return the connected component of each sequence, where an edge is an identity of at least so much.

    Parameters
    ----------
    sequences : (n,) distinct, none empty
    identity : above 0, below or equal to 1
    fewer_than : the time grows with the square of the number of balls; with so many or more, nothing is done

    Returns
    -------
    (n,) labels; None where there are too many balls

    Examples
    --------
    >>> link(["EVQLVESGGG", "EVQLVQSGGG", "DIQMTQSPSS"], identity=0.9, fewer_than=10)
    array([0, 0, 1])
    """
    if not sequences:
        return np.zeros(0, dtype=np.intp)
    balls = gather(sequences, min(RADIUS, 1 - identity))
    if len(balls) >= fewer_than:
        return None
    labels = _Links(sequences, balls, identity).labels()
    components = np.empty(len(sequences), dtype=np.intp)
    for ball, label in zip(balls, labels.tolist(), strict=True):
        components[ball.members] = label
    return np.unique(components, return_inverse=True)[1].astype(np.intp)


class _Links:
    """The clusters of balls found so far: `parent` leads from each ball to one that stands for its cluster."""

    def __init__(self, sequences: Sequence[str], balls: list[Ball], identity: float) -> None:
        self.sequences = sequences
        self.balls = balls
        self.identity = identity
        self.parent = list(range(len(balls)))
        self.lengths = lengths([ball.centre for ball in balls])
        self.radii = np.array([ball.distance.max() for ball in balls])

    def labels(self) -> Indices:
        """Return the cluster of each ball, (n_balls,), once no link between clusters is left."""
        undecided = [self._link_centres(start) for start in range(0, len(self.balls), BLOCK)]
        first, second, distance = (np.concatenate([block[part] for block in undecided]) for part in range(3))
        # The nearest first: what they join need not be compared.
        nearest = np.argsort(distance / np.maximum(self.lengths[first], self.lengths[second]), kind="stable")
        for one, other, apart in zip(
            first[nearest].tolist(), second[nearest].tolist(), distance[nearest].tolist(), strict=True
        ):
            if self._find(one) != self._find(other) and self._touch(self.balls[one], self.balls[other], apart):
                self.parent[self._find(one)] = self._find(other)
        return self._current()

    def _link_centres(self, start: int) -> tuple[Indices, Indices, NDArray[np.float64]]:
        """Join the balls of a block to later ones with an alike centre; return the pairs that need a closer look."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        block = slice(start, start + BLOCK)
        centres = [ball.centre for ball in self.balls[start:]]
        limit = self._limit(np.maximum.outer(self.lengths[block], self.lengths[start:]))
        reach = limit + np.add.outer(self.radii[block], self.radii[start:])
        distance = levenshtein(centres[:BLOCK], centres, cutoff=int(reach.max()))
        rows, columns = np.nonzero(distance <= limit)
        current, n = self._current(), len(self.balls)
        ends = (np.concatenate([rows + start, np.arange(n)]), np.concatenate([columns + start, current]))
        joined = connected_components(coo_array((np.ones(len(ends[0])), ends), shape=(n, n)), directed=False)[1]
        self.parent = np.unique(joined, return_index=True)[1][joined].tolist()
        near = (distance <= reach) & np.not_equal.outer(joined[block], joined[start:])
        rows, columns = np.nonzero(np.triu(near, k=1))
        return rows + start, columns + start, distance[rows, columns]

    def _touch(self, one: Ball, other: Ball, distance: float) -> bool:
        """Return whether any two sequences of two balls are linked, their centres being so far apart."""
        limit = int(self._limit(np.array(max(len(one.centre), len(other.centre)))))
        left = np.flatnonzero(distance - one.distance - other.distance.max() <= limit)
        right = np.flatnonzero(distance - one.distance.max() - other.distance <= limit)
        if not left.size or not right.size:
            return False
        if len(one.centre) == len(other.centre):
            if least_difference(one.codes[left], other.codes[right]).min() <= limit:
                return True
            if limit < 2:  # at one length, an insertion comes with a deletion
                return False
        references = [self.sequences[member] for member in other.members[right]]
        queries = [self.sequences[member] for member in one.members[left]]
        return any(
            bool((levenshtein(queries[start : start + BLOCK], references, cutoff=limit) <= limit).any())
            for start in range(0, len(queries), BLOCK)
        )

    def _limit(self, longer: Indices) -> NDArray[np.float64]:
        """Return the distances up to which sequences are linked, the longer having so many letters."""
        limit: NDArray[np.float64] = np.floor((1 - self.identity) * longer + ROUNDING)
        return limit

    def _find(self, ball: int) -> int:
        while self.parent[ball] != ball:
            self.parent[ball] = self.parent[self.parent[ball]]
            ball = self.parent[ball]
        return ball

    def _current(self) -> Indices:
        return np.array([self._find(ball) for ball in range(len(self.balls))], dtype=np.intp)
