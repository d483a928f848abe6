"""Families of near-identical sequences, and every sequence laid along the representative of its family.

A family's representative is one of its members, numbered by IMGT where it holds variable domains. A sequence
belongs to the family whose representative is nearest, and gets its positions from it: letter by letter where both
have one length and agree in most letters, else by their alignment of fewest edits. So a single representative is
numbered for thousands of variants, and a position means the same residue in all of them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from sys import intern
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.runtime import remark
from tailbind.sequences.clustering import cluster
from tailbind.sequences.laying import GAP, IMGT_ENDS, OTHER, Laid, aligned, carried, consensus, letters_of
from tailbind.sequences.numbering import Domain, imgt_number, number

Indices = NDArray[np.intp]

#: Sequences of one length are laid letter by letter where at least this share of letters agrees in place.
IN_PLACE: Final = 0.8

#: Families whose representative is numbered; the rest, should there be more, carry the numbers of the nearest.
MOST_NUMBERED: Final = 4_000

#: A sequence less alike any representative is compared with so many families at most, the largest.
MOST_COMPARED: Final = 1_000


@dataclass(frozen=True)
class Member:
    """The representative of a family.

    Attributes
    ----------
    sequence : itself
    positions : the name of each residue's place: "H52" or "K111A" by IMGT, else its number in the sequence, "417"
    regions : (length,) index in `REGIONS` of each residue
    reach : the lowest identity to it of the sequences that made the family
    """

    sequence: str
    positions: tuple[str, ...]
    regions: NDArray[np.uint8]
    reach: float

    def __len__(self) -> int:
        return len(self.sequence)


@dataclass(frozen=True)
class Placement:
    """Where sequences belong.

    Attributes
    ----------
    family : (n,) number of the nearest family; −1 for ""
    identity : (n,) to its representative; nan for ""
    in_place : (n,) whether it is laid letter by letter
    """

    family: Indices
    identity: NDArray[np.float64]
    in_place: NDArray[np.bool_]


@dataclass(frozen=True)
class Families:
    """Representatives of families, in the order in which sequences are compared with them.

    Examples
    --------
    >>> families = find_families(["MKTAYIAKQR", "MKTAYIAKQW", "GGSGGSGGSG"], identity=0.8, numbering=False)
    >>> families.place(["MKTAYIAKQQ", ""]).family.tolist()
    [0, -1]
    >>> families.members[0].positions[:3]
    ('1', '2', '3')
    """

    members: tuple[Member, ...]

    def __len__(self) -> int:
        return len(self.members)

    def place(self, sequences: Sequence[str]) -> Placement:
        """Return the family whose representative is nearest to each sequence, and how alike the two are.

        Parameters
        ----------
        sequences : (n,) sequences, best without repeats; "" for none
        """
        n = len(sequences)
        family = np.full(n, -1, np.intp)
        identity = np.full(n, np.nan)
        in_place = np.zeros(n, np.bool_)
        represented = {member.sequence: number for number, member in enumerate(self.members)}
        for position, sequence in enumerate(sequences):
            if (own := represented.get(sequence, -1)) >= 0:
                family[position], identity[position], in_place[position] = own, 1.0, True
        rest = [position for position, sequence in enumerate(sequences) if sequence and not in_place[position]]
        for length, which in _by_length(sequences, rest).items():
            rivals = [rival for rival, member in enumerate(self.members) if len(member) == length]
            if not rivals:
                continue
            letters = letters_of([sequences[position] for position in which], length)
            best = np.full(len(which), -1)
            for rival in rivals:
                agreeing = np.count_nonzero(letters == letters_of([self.members[rival].sequence], length), axis=1)
                better = agreeing > best
                family[which[better]] = rival
                best[better] = agreeing[better]
            edits = self._edits([sequences[position] for position in which], family[which])
            identity[which] = 1 - edits / length
            # Far fewer edits than letters that differ: something is shifted.
            in_place[which] = (best / length >= IN_PLACE) & (2 * edits >= length - best)
        rest = [position for position in rest if not in_place[position]]
        if rest and self.members:
            family[rest], identity[rest] = self._nearest([sequences[position] for position in rest])
        return Placement(family, identity, in_place)

    def _edits(self, sequences: Sequence[str], family: Indices) -> NDArray[np.float64]:
        """Return (n,) the edits between each sequence and the representative of its family."""
        from rapidfuzz.distance import Levenshtein
        from rapidfuzz.process import cpdist

        representatives = [self.members[number].sequence for number in family.tolist()]
        return np.asarray(cpdist(sequences, representatives, scorer=Levenshtein.distance), np.float64)

    def _nearest(self, sequences: Sequence[str]) -> tuple[Indices, NDArray[np.float64]]:
        """Return the family with the nearest representative, whatever its length, and the identity to it.

        Comparing is many times faster where only what is as alike as a family's members counts. What is less alike
        any representative is of no family, and is compared with the largest ones alone.
        """
        representatives = [member.sequence for member in self.members]
        lowest = min(member.reach for member in self.members)
        nearest, identity = _most_alike(sequences, representatives, lowest)
        far = np.flatnonzero(identity < lowest)
        if len(far):
            chosen = [sequences[position] for position in far.tolist()]
            nearest[far], identity[far] = _most_alike(chosen, representatives[:MOST_COMPARED], 0.0)
        return nearest, identity

    def lay(self, sequences: Sequence[str], placement: Placement) -> list[Laid]:
        """Return the sequences laid along the representative of the family that `placement` gives each."""
        laid = []
        order = np.argsort(placement.family, kind="stable")
        bounds = np.searchsorted(placement.family[order], np.arange(len(self.members) + 1))
        for family in np.unique(placement.family[placement.family >= 0]).tolist():
            which = order[bounds[family] : bounds[family + 1]]
            laid.append(_laid(family, self.members[family], sequences, which, placement.in_place[which]))
        return laid

    def regions(self, sequences: Sequence[str]) -> list[NDArray[np.uint8]]:
        """Return for each sequence the index in `REGIONS` of each of its residues, carried over from its family's.

        A residue inserted within a domain is of the region of the residue before it; at a domain's ends, of none.
        """
        found = [np.full(len(sequence), OTHER, np.uint8) for sequence in sequences]
        for laid in self.lay(sequences, self.place(sequences)):
            member = self.members[laid.family]
            lacking = (laid.residues == GAP).any(axis=1)
            for row, position in enumerate(laid.which.tolist()):
                changed = lacking[row] or row in laid.inserted
                found[position] = carried(member.regions, laid, row) if changed else member.regions
        return found

    def member_of(self, sequence: str) -> Member | None:
        """Return the representative whose places are a sequence's own, residue for residue.

        None where the sequence is of no family, or has a residue more or less than its family's representative.

        >>> families = find_families(["MKTAYIAKQR", "MKTAYIAKQW"], identity=0.8, numbering=False)
        >>> families.member_of("MKTAYIAKQA").positions[-1], families.member_of("GGSGGSGGSG")
        ('10', None)
        """
        placement = self.place([sequence])
        if not sequence or not placement.in_place[0]:
            return None
        member = self.members[int(placement.family[0])]
        return member if placement.identity[0] >= min(member.reach, IN_PLACE) else None

    def state(self) -> dict[str, Any]:
        """Return the representatives, their positions, regions and reach."""
        return {
            "sequences": [member.sequence for member in self.members],
            "positions": [" ".join(member.positions) for member in self.members],
            "regions": np.concatenate([np.empty(0, np.uint8), *(member.regions for member in self.members)]),
            "reach": np.array([member.reach for member in self.members]),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Families":
        """Return the families that `state` was taken from."""
        ends = np.cumsum([len(sequence) for sequence in state["sequences"]])
        regions = np.split(np.asarray(state["regions"], np.uint8), ends[:-1]) if len(ends) else []
        rows = zip(state["sequences"], state["positions"], regions, np.asarray(state["reach"]).tolist(), strict=True)
        return cls(tuple(Member(sequence, tuple(text.split()), part, reach) for sequence, text, part, reach in rows))


def find_families(
    sequences: Sequence[str],
    *,
    identity: float = 0.9,
    numbering: bool = True,
    notify: Callable[[int, int], None] = lambda done, of: None,
) -> Families:
    """Return the families of sequences: clusters of near relatives, each with a numbered representative.

    The representative has the length that most members have, and of these agrees with the most letters of their
    consensus. What else a sequence may be, it is laid along the nearest representative: the clusters only say who
    represents. A sequence that is less alike any of them than `IN_PLACE` and `identity`, as at the end of a long chain
    of relatives, represents itself.

    Parameters
    ----------
    sequences : (n,) sequences, repeats allowed; "" for none
    identity : that links two sequences to one family
    numbering : look for variable domains in the representatives and name their residues by IMGT; needs ANARCII
    notify : told of the progress of numbering: how many are done, and of how many

    Raises
    ------
    SequenceError
        When ANARCII is needed and not installed, or so many sequences cannot be clustered here.
    """
    distinct = sorted(set(sequences) - {""})
    labels = cluster(distinct, identity)
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(distinct) else []
    groups.sort(key=lambda group: -len(group))  # stable: of families of one size, the first in the alphabet
    chosen = [_representative([distinct[position] for position in group]) for group in groups]
    lowest = min(identity, IN_PLACE)
    plain = Families(tuple(Member(sequence, *name_places(sequence, ()), lowest) for sequence in chosen))
    far = np.flatnonzero(plain.place(distinct).identity < lowest).tolist()
    chosen += [distinct[position] for position in far]
    places = _numbered(chosen, notify) if numbering else [name_places(sequence, ()) for sequence in chosen]
    families = Families(tuple(Member(sequence, *place, lowest) for sequence, place in zip(chosen, places, strict=True)))
    placed = families.place(distinct)
    reach = np.full(len(chosen), identity)
    np.minimum.at(reach, placed.family, placed.identity)
    return Families(tuple(replace(member, reach=r) for member, r in zip(families.members, reach.tolist(), strict=True)))


def _representative(sequences: Sequence[str]) -> str:
    """Return the member nearest to the consensus of the most common length."""
    if len(sequences) == 1:
        return sequences[0]
    lengths = Counter(len(sequence) for sequence in sequences)
    length = max(lengths, key=lambda length: (lengths[length], -length))
    alike = [sequence for sequence in sequences if len(sequence) == length]
    letters = letters_of(alike, length)
    agreeing = np.count_nonzero(letters == consensus(letters), axis=1)
    return alike[int(agreeing.argmax())]


Places = tuple[tuple[str, ...], NDArray[np.uint8]]


def _numbered(representatives: Sequence[str], notify: Callable[[int, int], None]) -> list[Places]:
    """Return the places of each representative: ANARCII's for the first, the nearest one's for those beyond."""
    first, others = representatives[:MOST_NUMBERED], representatives[MOST_NUMBERED:]
    domains = number(first, notify=notify)
    places = [name_places(sequence, of_sequence) for sequence, of_sequence in zip(first, domains, strict=True)]
    if others:
        remark(
            f"Numbered {len(first):,} representatives of families; {len(others):,} more, of the smallest families, "
            "carry the numbers of the nearest."
        )
        pool = Families(tuple(Member(sequence, *of_it, 0.0) for sequence, of_it in zip(first, places, strict=True)))
        borrowed: list[Places] = [name_places(sequence, ()) for sequence in others]
        for laid in pool.lay(others, pool.place(others)):
            member = pool.members[laid.family]
            names = np.array(member.positions, object)
            for row, position in enumerate(laid.which.tolist()):
                own = np.array(borrowed[position][0], object)
                aligned_places = carried(np.arange(len(member)), laid, row, -1)
                own[aligned_places >= 0] = names[aligned_places[aligned_places >= 0]]
                borrowed[position] = tuple(own.tolist()), carried(member.regions, laid, row)
        places += borrowed
    return places


def name_places(sequence: str, domains: Sequence[Domain]) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """Return the name of each residue's place, "H52" by IMGT or its number in the sequence, and its region's index.

    >>> names, regions = name_places("GSEV", [Domain("H", 29.0, 2, 4, ("1", "2"))])
    >>> names, (regions != OTHER).tolist()
    (('1', '2', 'H1', 'H2'), [False, False, True, True])
    """
    positions = [intern(str(place)) for place in range(1, len(sequence) + 1)]  # one text for all families
    regions = np.full(len(sequence), OTHER, np.uint8)
    names = list(IMGT_ENDS)
    ends = np.array(list(IMGT_ENDS.values()))
    taken: set[str] = set()
    for domain in domains:
        offset = 0 if domain.chain == "H" else len(names)
        again = "'" if domain.chain in taken else ""  # a second domain of the same kind
        taken.add(domain.chain)
        for place, position in enumerate(domain.positions, domain.start):
            positions[place] = intern(f"{domain.chain}{position}{again}")
            regions[place] = offset + int(np.searchsorted(ends, imgt_number(position)))
    return tuple(positions), regions


def _laid(family: int, member: Member, sequences: Sequence[str], which: Indices, in_place: NDArray[np.bool_]) -> Laid:
    """Return sequences laid along one representative."""
    residues = np.empty((len(which), len(member)), np.uint8)
    residues[in_place] = letters_of([sequences[position] for position in which[in_place]], len(member))
    insertions = []
    for row in np.flatnonzero(~in_place).tolist():
        residues[row], inserted = aligned(sequences[which[row]], member.sequence)
        insertions += [(row, place, text) for place, text in inserted]
    return Laid(family, which, residues, tuple(insertions))


def _most_alike(
    sequences: Sequence[str], references: Sequence[str], lowest: float
) -> tuple[Indices, NDArray[np.float64]]:
    """Return for each sequence the nearest reference and the identity to it; 0 where that is below `lowest`."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    nearest, identity = np.empty(len(sequences), np.intp), np.empty(len(sequences))
    size = max(1, 4_000_000 // len(references))
    for start in range(0, len(sequences), size):
        chunk = sequences[start : start + size]
        alike = cdist(
            chunk,
            references,
            scorer=Levenshtein.normalized_similarity,
            score_cutoff=max(lowest - 1e-9, 0.0),
            dtype=np.float64,
            workers=-1,
        )
        alike = np.asarray(alike).reshape(len(chunk), len(references))
        nearest[start : start + size] = alike.argmax(axis=1)
        identity[start : start + size] = alike.max(axis=1)
    return nearest, identity


def _by_length(sequences: Sequence[str], which: Sequence[int]) -> dict[int, Indices]:
    """Return length → those of the sequences that have it, by their positions."""
    lengths = np.fromiter((len(sequences[position]) for position in which), np.intp, len(which))
    return {int(length): np.array(which)[lengths == length] for length in np.unique(lengths)}
