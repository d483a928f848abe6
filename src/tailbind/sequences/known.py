"""Sequences that are known, kept so that the nearest of them to any other is found quickly, again and again.

Each sequence has a sketch: its counts of three-letter words, projected at random onto a few numbers, between which
distances are nearly those of the counts (Achlioptas, Journal of Computer and System Sciences 66:671, 2003). Known
sequences are gathered in cells around some of them. A sequence is held, letter by letter, against the centres with
the nearest sketches and then, in their cells, against the members with the nearest. So what is found is the identity
of a sequence that exists, and never too high; now and then another is nearer by a letter or two. `identity` finds the
very nearest, where minutes do not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.sequences.balls import by_length, gather, lengths

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
Sketches = NDArray[np.float32]

#: Numbers of a sketch. They are whole, so that products are exact and a row is found the same alone and among others.
SKETCH: Final = 128
LETTERS: Final = 26

#: Centres of cells: of families of relatives, the largest first, and as many again evenly over all sequences.
MOST_CENTRES: Final = 4_096
FAMILY_RADIUS: Final = 0.1

#: Cells in which the nearest is looked for.
PROBES: Final = 2

#: What is less like the centres than this is a stranger to their cells too.
STRANGER: Final = 0.5

#: For so few sequences, the sketches of all that is known need not be there.
FEW: Final = 200

#: Sequences whose sketches, and distances from all centres, are held at a time.
BLOCK: Final = 4_096


@dataclass(frozen=True)
class Known:
    """Distinct sequences in cells.

    Attributes
    ----------
    sequences : (n,) sorted, none empty
    centres : (n_cells,) those around which the cells are, by their position
    cell : (n,) which cell each is in

    Examples
    --------
    >>> known = gather_known(["EVQLVESGGG", "DIQMTQSPSS", ""])
    >>> known.identity(["EVQLVQSGGG", "DIQMTQSPSS", ""]).tolist()
    [0.9, 1.0, nan]
    """

    sequences: tuple[str, ...]
    centres: Indices
    cell: Indices

    def __len__(self) -> int:
        return len(self.sequences)

    def identity(self, sequences: Sequence[str]) -> Array:
        """Return how alike each sequence and its nearest known one are.

        Parameters
        ----------
        sequences : (n,) repeats allowed; "" stands for none

        Returns
        -------
        (n,) identities from 0 to 1, 1 where an equal one is known; nan where the sequence is "" or none is known
        """
        rest = sorted(set(sequences) - self._all - {""})
        found = dict.fromkeys(self._all.intersection(sequences), 1.0) | {"": float("nan")}
        found |= dict(zip(rest, self._nearest(rest).tolist(), strict=True))
        return np.array([found[sequence] for sequence in sequences], dtype=np.float64)

    def _nearest(self, sequences: list[str]) -> Array:
        """Return (n,) the identity of sequences that are not known themselves to the nearest that are."""
        best = np.zeros(len(sequences)) if self.sequences else np.full(len(sequences), np.nan)
        for start in range(0, len(sequences) if self.sequences else 0, BLOCK):
            asked = sequences[start : start + BLOCK]
            found = best[start : start + BLOCK]
            sketches = sketch(asked)
            cells = self._probe(sketches)
            for cell in cells.T:
                np.maximum(found, self._identity(asked, self.centres[cell]), out=found)
            for cell in cells.T:
                kin = np.flatnonzero((found >= STRANGER) & (self._sizes[cell] > 1))
                nearest = self._nearest_members(sketches[kin], cell[kin])
                found[kin] = np.maximum(found[kin], self._identity([asked[row] for row in kin.tolist()], nearest))
        return best

    def _identity(self, sequences: Sequence[str], known: Indices) -> Array:
        """Return (n,) the identity of each sequence to one that is known."""
        from rapidfuzz.distance import Levenshtein
        from rapidfuzz.process import cpdist

        others = [self.sequences[position] for position in known.tolist()]
        edits = cpdist(sequences, others, scorer=Levenshtein.distance, workers=-1)
        identity: Array = 1 - edits / np.maximum(lengths(sequences), lengths(others))
        return identity

    def _probe(self, sketches: Sketches) -> Indices:
        """Return (n, n_probes) the cells whose centres have the nearest sketches, the nearest first."""
        centres, squares = self._of_centres
        apart = squares - 2 * sketches @ centres.T
        rows, cells = np.arange(len(apart)), []
        for _ in range(min(PROBES, len(self.centres))):
            cells.append(apart.argmin(axis=1))
            apart[rows, cells[-1]] = np.inf
        return np.column_stack(cells)

    def _nearest_members(self, sketches: Sketches, cells: Indices) -> Indices:
        """Return (n,) which member of a cell each has the nearest sketch to, by its position."""
        found = np.empty(len(cells), np.intp)
        asking = np.argsort(cells, kind="stable")
        order, bounds = self._by_cell
        for rows in np.split(asking, np.flatnonzero(np.diff(cells[asking])) + 1) if len(asking) else ():
            cell = cells[rows[0]]
            members = order[bounds[cell] : bounds[cell + 1]]
            own = self._of_all[members].astype(np.float32) if len(cells) > FEW else self._of(members)
            apart = np.square(own).sum(axis=1) - 2 * sketches[rows] @ own.T
            found[rows] = members[apart.argmin(axis=1)]
        return found

    def _of(self, positions: Indices) -> Sketches:
        return sketch([self.sequences[position] for position in positions.tolist()])

    @cached_property
    def _all(self) -> frozenset[str]:
        return frozenset(self.sequences)

    @cached_property
    def _by_cell(self) -> tuple[Indices, Indices]:
        """(n,) sequences in the order of their cells, and (n_cells + 1,) where each cell begins."""
        order = np.argsort(self.cell, kind="stable")
        return order, np.searchsorted(self.cell[order], np.arange(len(self.centres) + 1))

    @cached_property
    def _sizes(self) -> Indices:
        return np.bincount(self.cell, minlength=len(self.centres))

    @cached_property
    def _of_centres(self) -> tuple[Sketches, Sketches]:
        """(n_cells, SKETCH) sketches of the centres, and (n_cells,) the squares of their lengths."""
        centres = self._of(self.centres)
        return centres, np.square(centres).sum(axis=1)

    @cached_property
    def _of_all(self) -> NDArray[np.int16]:
        """(n, SKETCH) sketches of all sequences."""
        out = np.empty((len(self.sequences), SKETCH), np.int16)
        for start in range(0, len(out), BLOCK):
            out[start : start + BLOCK] = sketch(self.sequences[start : start + BLOCK])
        return out


def gather_known(sequences: Sequence[str]) -> Known:
    """Return the known sequences, gathered in cells.

    Parameters
    ----------
    sequences : repeats allowed; "" for none
    """
    distinct = sorted(set(sequences) - {""})
    if len(distinct) <= MOST_CENTRES // 2:
        each = np.arange(len(distinct))
        return Known(tuple(distinct), each, each)
    place = {sequence: position for position, sequence in enumerate(distinct)}
    balls = sorted(gather(distinct, FAMILY_RADIUS), key=lambda ball: -len(ball.members))
    of_families = [place[ball.centre] for ball in balls[: MOST_CENTRES // 2]]
    evenly = np.linspace(0, len(distinct) - 1, MOST_CENTRES // 2).astype(np.intp)
    plain = Known(tuple(distinct), np.union1d(of_families, evenly).astype(np.intp), np.zeros(0, np.intp))
    nearest = [plain._probe(sketch(distinct[start : start + BLOCK]))[:, 0] for start in range(0, len(distinct), BLOCK)]
    return Known(plain.sequences, plain.centres, np.concatenate(nearest))


def sketch(sequences: Sequence[str]) -> Sketches:
    """Return (n, SKETCH) the sketches of sequences: whole numbers."""
    from scipy.sparse import csr_array

    out = np.zeros((len(sequences), SKETCH), np.float32)
    for which, codes in by_length(sequences):
        letters = codes.astype(np.int64) % LETTERS
        if letters.shape[1] < 3:
            letters = np.pad(letters, ((0, 0), (0, 3 - letters.shape[1])))
        words = (letters[:, :-2] * LETTERS + letters[:, 1:-1]) * LETTERS + letters[:, 2:]
        starts = np.arange(len(words) + 1) * words.shape[1]
        ones = np.ones(words.size, np.float32)
        out[which] = csr_array((ones, words.ravel(), starts), shape=(len(words), LETTERS**3)) @ _signs()
    return out


@lru_cache(maxsize=1)
def _signs() -> Sketches:
    """Return (n_words, SKETCH) the numbers that each word counts for, 1 or −1."""
    return np.random.default_rng(0).choice(np.array([-1, 1], np.float32), size=(LETTERS**3, SKETCH))
