"""The nearest other of many distinct sequences, without comparing all pairs.

Within a ball of one family, distances are matrix products over the columns that vary. Between balls the triangle
inequality tells from the distance of the centres which sequences cannot be nearer than what is known, and only
the rest are compared letter by letter.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.sequences.balls import Ball, by_length, gather, lengths, levenshtein
from tailbind.sequences.columns import Codes, Indices, least_difference, one_letter_apart

Array = NDArray[np.float64]

#: Up to so many pairs, all are compared.
ALL_PAIRS = 200_000

#: Letter-by-letter comparisons of two sequences of `DOMAIN_LENGTH` that may be spent; a processor core does some
#: 600,000 a second. Those that stop at a distance below `NARROW_BELOW` take only a share of the time.
BUDGET = 10_000_000
DOMAIN_LENGTH: Final = 120
NARROW_BELOW: Final = 32
NARROW: Final = 0.2

#: Queries compared at a time, with those references that may be near to any of them.
BLOCK: Final = 128

#: A ball's radius, as a share of the length; doubled while the balls are too many to compare all their centres.
RADII: Final = (0.08, 0.16, 0.32, 0.64)


def nearest_other(queries: Sequence[str], references: Sequence[str]) -> Array:
    """Return the identity of each query to the nearest reference that is not equal to it.

    Parameters
    ----------
    queries, references : distinct sequences in sorted order, none empty; one may be in both

    Returns
    -------
    (n_queries,) identities below 1; nan where there is no other reference

    Examples
    --------
    >>> nearest_other(["EVQL"], ["EVQL", "EVQV", "QVQV"]).tolist()
    [0.75]
    """
    if len(queries) * len(references) > ALL_PAIRS:
        return _Search(queries, references).run()
    if not queries or not references:
        return np.full(len(queries), np.nan)
    distances = levenshtein(queries, references)
    longer = np.maximum.outer(lengths(queries), lengths(references))
    identities = np.where(distances > 0, 1 - distances / longer, -1).max(axis=1)
    return np.where(identities < 0, np.nan, identities)


class _Ball:
    """A ball whose members are queries and references, apart.

    Attributes
    ----------
    centre : sequence
    queries, references : positions among the queries and among the references
    query_codes, reference_codes : (n, length) their letters
    query_distance, reference_distance : (n,) columns in which each differs from the centre
    """

    def __init__(self, ball: Ball, n_queries: int) -> None:
        asks = ball.members < n_queries
        self.centre = ball.centre
        self.queries, self.references = ball.members[asks], ball.members[~asks] - n_queries
        self.query_codes, self.reference_codes = ball.codes[asks], ball.codes[~asks]
        self.query_distance, self.reference_distance = ball.distance[asks], ball.distance[~asks]


class _Surroundings:
    """The balls that hold references, and what the triangle inequality needs of them, all as (n_balls,)."""

    def __init__(self, balls: list[_Ball]) -> None:
        self.balls = balls
        self.lengths = lengths([ball.centre for ball in balls])
        self.nearest = np.array([ball.reference_distance.min() for ball in balls], dtype=np.float64)
        self.farthest = np.array([ball.reference_distance.max() for ball in balls], dtype=np.float64)

    def are(self, one: _Ball) -> NDArray[np.bool_]:
        """Return which of the balls is this one, if any."""
        return np.array([ball is one for ball in self.balls])


class _Search:
    """What is known of the queries' nearest references, and how much may still be spent to know more.

    `best` only rises, and only to identities of references that exist.
    """

    def __init__(self, queries: Sequence[str], references: Sequence[str]) -> None:
        self.queries = queries
        self.references = references
        self.best: Array = np.zeros(len(queries))
        self.budget = float(BUDGET)

    def run(self) -> Array:
        """Return the identities, found within balls, then between them, then with shifts at equal length."""
        for members, codes in by_length([*self.queries, *self.references]):
            self._one_letter_apart(members, codes)
        balls = self._balls()
        asking = sorted((ball for ball in balls if ball.queries.size), key=lambda ball: ball.queries.size)
        for ball in asking:
            unsettled = np.flatnonzero(self.best[ball.queries] < 1 - 1 / len(ball.centre))
            self._compare_columns(ball, ball, unsettled)
        around = self._surroundings(asking, [ball for ball in balls if ball.references.size])
        between = levenshtein([ball.centre for ball in asking], [ball.centre for ball in around.balls])
        for shifts in (False, True):
            for ball, distances in zip(asking, between, strict=True):
                self._search_around(ball, around, distances, shifts)
        return self.best

    def _one_letter_apart(self, members: Indices, codes: Codes) -> None:
        """Settle the queries with a reference that differs in one column: in a landscape, nearly all."""
        asks = members < len(self.queries)
        if asks.sum() * (~asks).sum() > ALL_PAIRS:
            settled = members[asks][one_letter_apart(codes[asks], codes[~asks])]
            self._raise(settled, np.full(len(settled), 1 - 1 / codes.shape[1]))

    def _balls(self) -> list[_Ball]:
        """Return the smallest balls of which comparing the centres takes no more than half the budget."""
        for radius in RADII:
            balls = [_Ball(ball, len(self.queries)) for ball in gather([*self.queries, *self.references], radius)]
            asking = [ball.centre for ball in balls if ball.queries.size]
            answering = [ball.centre for ball in balls if ball.references.size]
            if _cost(asking, answering) <= self.budget / 2:
                break
        return balls

    def _surroundings(self, asking: list[_Ball], answering: list[_Ball]) -> _Surroundings:
        """Return the balls to search, evenly thinned where comparing all centres would take too long."""
        questions = [ball.centre for ball in asking]
        cost = _cost(questions, [ball.centre for ball in answering])
        kept = answering[:: max(1, math.ceil(cost / (self.budget / 2)))]
        self.budget -= _cost(questions, [ball.centre for ball in kept])
        return _Surroundings(kept)

    def _compare_columns(self, asking: _Ball, answering: _Ball, which: Indices) -> None:
        """Raise identities by the columns in which references of the same length differ."""
        least = least_difference(asking.query_codes[which], answering.reference_codes)
        self._raise(asking.queries[which], 1 - least / len(asking.centre))

    def _search_around(self, asking: _Ball, around: _Surroundings, distances: Array, shifts: bool) -> None:
        """Raise identities by the references of other balls, the nearest ball first.

        With `shifts`, by those of the same length, where two letters or more were inserted and deleted.
        """
        own = asking.query_distance
        longer = np.maximum(around.lengths, len(asking.centre))
        # Some reference of another ball is no farther than by way of both centres.
        by_centres = np.where(around.are(asking), np.inf, distances + around.nearest)
        promise = (by_centres / longer).argmin()
        self._raise(asking.queries, 1 - (by_centres[promise] + own) / longer[promise])
        least = np.maximum(np.abs(around.lengths - len(asking.centre)), 2 if shifts else 1)
        possible = 1 - np.maximum(distances - own.max() - around.farthest, least) / longer
        lowest = self.best[asking.queries].min()
        wanted = (around.lengths == len(asking.centre)) if shifts else ~around.are(asking)
        candidates = np.flatnonzero(wanted & (possible > lowest))
        for position in candidates[np.argsort((distances / longer)[candidates], kind="stable")]:
            if possible[position] <= lowest:
                continue
            nearest = np.maximum(distances[position] - own - around.farthest[position], least[position])
            which = np.flatnonzero(1 - nearest / longer[position] > self.best[asking.queries])
            answering = around.balls[position]
            if which.size and len(answering.centre) == len(asking.centre) and not shifts:
                self._compare_columns(asking, answering, which)
            elif which.size:
                self._compare_letters(asking, answering, asking.queries[which], least[position])
            lowest = self.best[asking.queries].min()

    def _compare_letters(self, asking: _Ball, answering: _Ball, queries: Indices, least: float) -> None:
        """Raise identities by those references of a ball that may be nearer than what is known."""
        longer, farthest = max(len(asking.centre), len(answering.centre)), answering.reference_distance.max()
        if self.budget < len(queries) * longer**2 / DOMAIN_LENGTH**2:
            return
        known = (1 - self.best[queries]) * longer
        to_centre = self._spend(queries, [answering.centre], known.max() + farthest)[:, 0]
        beyond = to_centre - known  # a reference no farther from the centre than this is no nearer than what is known
        order = np.argsort(beyond, kind="stable")
        order = order[(beyond[order] < farthest) & (known[order] > least)]
        for start in range(0, len(order), BLOCK):
            block = order[start : start + BLOCK]
            members = answering.references[answering.reference_distance > beyond[block[0]]]
            counts = self._spend(queries[block], [self.references[member] for member in members], known[block].max())
            nearest = np.where(counts > 0, counts, np.inf).min(axis=1, initial=np.inf)
            self._raise(queries[block], 1 - nearest / longer)

    def _spend(self, queries: Indices, references: Sequence[str], cutoff: float) -> Array:
        """Return distances, (n_queries, n_kept), of references evenly thinned to what is left of the budget."""
        asked = [self.queries[query] for query in queries]
        if (cost := _cost(asked, references, cutoff)) > self.budget:
            references = references[:: math.ceil(cost / self.budget)] if self.budget >= 1 else references[:0]
        self.budget -= _cost(asked, references, cutoff)
        return levenshtein(asked, references, cutoff=int(cutoff))

    def _raise(self, queries: Indices, identities: Array) -> None:
        self.best[queries] = np.maximum(self.best[queries], identities)


def _cost(queries: Sequence[str], references: Sequence[str], cutoff: float = math.inf) -> float:
    """Return the time of comparing all, in comparisons of two sequences of `DOMAIN_LENGTH` without a cutoff."""
    letters = float(lengths(queries).sum()) * float(lengths(references).sum())
    share = NARROW if cutoff < NARROW_BELOW else 1.0
    return share * max(letters / DOMAIN_LENGTH**2, 0.5 * len(queries) * len(references))
