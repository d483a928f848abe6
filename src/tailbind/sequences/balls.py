"""Many sequences gathered into balls: those of one length that differ little from one of them.

Measured sequences come in families: tens of thousands of variants of one parent, of one length. A ball holds such
a family or a part of it, and the triangle inequality then tells from two centres what their balls cannot hold.
Differences within a ball are counted in columns (the Hamming distance), which the Levenshtein distance between
the same two sequences never exceeds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailbind.sequences.columns import Codes, Indices, commonest, decode, differences, encode

#: Starting threads takes longer than so few comparisons.
WORTH_THREADS = 200_000


@dataclass(frozen=True)
class Ball:
    """Sequences of one length around a centre, which is one of them.

    Attributes
    ----------
    centre : sequence
    members : (n,) positions among the sequences that were gathered
    codes : (n, length) the members' letters
    distance : (n,) columns in which each member differs from the centre
    """

    centre: str
    members: Indices
    codes: Codes
    distance: Indices


def by_length(sequences: Sequence[str]) -> Iterator[tuple[Indices, Codes]]:
    """Yield for each length, the shortest first, the positions of its sequences and their letters.

    >>> [(members.tolist(), codes.shape) for members, codes in by_length(["ACD", "A", "CDE"])]
    [([1], (1, 1)), ([0, 2], (2, 3))]
    """
    found = lengths(sequences)
    order = np.argsort(found, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(found[order])) + 1):
        if members.size:
            yield members, encode([sequences[member] for member in members])


def gather(sequences: Sequence[str], radius: float) -> list[Ball]:
    """Return balls that together hold each sequence once, those of the shortest sequences first.

    Parameters
    ----------
    sequences : none empty
    radius : greatest difference from the centre, as a share of the length

    Examples
    --------
    >>> [(ball.centre, ball.members.tolist()) for ball in gather(["AAAC", "AAAA", "AACA", "WYWY"], 0.25)]
    [('AAAA', [0, 1, 2]), ('WYWY', [3])]
    """
    balls = []
    for members, codes in by_length(sequences):
        limit = radius * codes.shape[1] + 1e-9
        while members.size:
            # The middle of the sorted sequences lies in a large family sooner than the first of them does.
            around = codes[differences(codes, codes[len(codes) // 2]) <= limit]
            centre = around[differences(around, commonest(around)).argmin()]
            distance = differences(codes, centre)
            inside = distance <= limit
            balls.append(Ball(decode(centre), members[inside], codes[inside], distance[inside]))
            members, codes = members[~inside], codes[~inside]
    return balls


def levenshtein(queries: Sequence[str], references: Sequence[str], cutoff: int | None = None) -> NDArray[np.float64]:
    """Return the Levenshtein distances of all pairs, (n_queries, n_references); inf where above the cutoff.

    >>> levenshtein(["EVQL"], ["EVQL", "VQL", "AAAA"], cutoff=2).tolist()
    [[0.0, 1.0, inf]]
    """
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    workers = -1 if len(queries) * len(references) > WORTH_THREADS else 1
    counts = cdist(
        queries, references, scorer=Levenshtein.distance, score_cutoff=cutoff, dtype=np.int32, workers=workers
    )
    distances = np.asarray(counts, dtype=np.float64).reshape(len(queries), len(references))
    if cutoff is not None:
        distances[distances > cutoff] = np.inf
    return distances


def lengths(sequences: Sequence[str]) -> Indices:
    """Return the length of each sequence, (n,)."""
    return np.array([len(sequence) for sequence in sequences], dtype=np.intp)
