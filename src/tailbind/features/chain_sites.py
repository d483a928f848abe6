"""One chain's sites: which positions vary in training, with which residues, and how a sequence is encoded by them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.features.scaling import Scaling, fit_scaling
from tailbind.sequences.families import Families, find_families
from tailbind.sequences.laying import GAP, OTHER, REGIONS, Laid, consensus, inserted_region
from tailbind.sequences.residues import BLOSUM62, CHARGE, HYDROPATHY, VOLUME, residue_codes

if TYPE_CHECKING:
    from scipy.sparse import csr_array

#: What is summed over the residues of a region that differ from the consensus, and a difference that counts.
DIFFERENCES: Final[Mapping[str, float]] = {
    "changed residues": 1, "BLOSUM62 loss": 4, "hydropathy": 4, "charge": 1, "volume": 40, "length": 1,
}  # fmt: skip

#: The columns that every chain begins with.
COMMON: Final = ("none", "unseen family", "unseen residues")
NONE, UNSEEN_FAMILY, UNSEEN_RESIDUES = range(len(COMMON))

#: Of what training never saw in a sequence, so much is told by name.
TOLD: Final = 3

#: Rounding of identities that are compared with the lowest of training.
ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class Alphabet:
    """What training saw at each site that varies.

    Attributes
    ----------
    consensus : family → (length,) its most common residues, as ASCII codes
    family, place, letter : (n_seen,) each residue seen beside the consensus, sorted
    inserted : (family, place, letters) of each insertion seen, sorted
    """

    consensus: tuple[NDArray[np.uint8], ...]
    family: NDArray[np.int32]
    place: NDArray[np.int32]
    letter: NDArray[np.uint8]
    inserted: tuple[tuple[int, int, str], ...]

    @cached_property
    def site(self) -> NDArray[np.intp]:
        """(n_seen,) the number of the varying site of each residue seen."""
        new = (
            np.r_[True, (np.diff(self.family) != 0) | (np.diff(self.place) != 0)] if len(self.family) else np.array([])
        )
        return np.cumsum(new, dtype=np.intp) - 1

    @cached_property
    def n_sites(self) -> int:
        """Sites that vary."""
        return int(self.site[-1]) + 1 if len(self.site) else 0

    @cached_property
    def column(self) -> NDArray[np.intp]:
        """(n_seen,) the column of each residue seen: its own, or its site's where that saw no other."""
        alone = np.bincount(self.site, minlength=self.n_sites)[self.site] == 1
        return np.where(alone, self.site, self.n_sites + np.cumsum(~alone) - 1)

    @cached_property
    def insertion_columns(self) -> dict[tuple[int, int, str], int]:
        """The column of each insertion seen, after those of residues."""
        first = max(self.n_sites, int(self.column.max(initial=-1)) + 1)
        return {insertion: first + position for position, insertion in enumerate(self.inserted)}

    @property
    def width(self) -> int:
        """Columns in all."""
        return max(self.n_sites, int(self.column.max(initial=-1)) + 1) + len(self.inserted)

    @cached_property
    def bounds(self) -> NDArray[np.intp]:
        """(n_families + 1,) where each family's residues begin in the arrays."""
        return np.searchsorted(self.family, np.arange(len(self.consensus) + 1))

    def tables(self, family: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return (length,) the column of a change at each place, and (length, 256) of each residue; −1 for none."""
        length = len(self.consensus[family])
        changed, residues = np.full(length, -1, np.intp), np.full((length, 256), -1, np.intp)
        part = slice(self.bounds[family], self.bounds[family + 1])
        changed[self.place[part]] = self.site[part]
        residues[self.place[part], self.letter[part]] = self.column[part]
        return changed, residues


@dataclass(frozen=True)
class Encoded:
    """Sequences of a chain as features.

    Attributes
    ----------
    sparse : (n, n_sparse)
    dense : (n, n_dense) scaled differences from the consensus; 0 for ""
    unseen : (n,) in words, what training never saw; "" where nothing
    strange : (n,) whether a sequence is of a family that training never saw
    """

    sparse: "csr_array"
    dense: NDArray[np.float32]
    unseen: NDArray[np.str_]
    strange: NDArray[np.bool_]


@dataclass(frozen=True)
class ChainSites:
    """The sites of one chain, as training had them.

    Attributes
    ----------
    chain : heavy, light or antigen
    families : of its sequences
    identity : from which a sequence is of its nearest family, unless training's own were further away
    alphabet : what varies in each
    without : whether training had rows without this chain
    regions : (n_regions,) those that its families have, by their index in `REGIONS`
    scaling : of the differences
    """

    chain: str
    families: Families
    identity: float
    alphabet: Alphabet
    without: bool
    regions: NDArray[np.intp]
    scaling: Scaling

    @property
    def names(self) -> tuple[str, ...]:
        """The dense columns."""
        return tuple(
            f"{self.chain} {_region_name(region, self.chain)}{difference}"
            for region in self.regions.tolist()
            for difference in DIFFERENCES
        )

    @cached_property
    def sparse_names(self) -> tuple[str, ...]:
        """The sparse columns: `heavy 0 H52 FR2 S>Y` is residue Y where family 0 has S."""
        seen = self.alphabet
        names = [""] * seen.width
        alone = seen.column == seen.site
        rows = np.column_stack([seen.family, seen.place, seen.letter, seen.site, seen.column, alone])
        for family, place, letter, site, column, is_alone in rows.tolist():
            where = f"{self.chain} {family} {self._place_name(family, place)}"
            was = _spelled(seen.consensus[family][place])
            names[column] = f"{where} {was}>{_spelled(letter)}"
            if not is_alone:
                names[site] = f"{where} {was}>any"
        for (family, place, letters), column in seen.insertion_columns.items():
            names[column] = f"{self.chain} {family} before {self._place_name(family, place)} +{letters}"
        common = (f"{self.chain} {name}" for name in COMMON)
        of_families = (f"{self.chain} family {family}" for family in range(len(self.families)))
        return (*common, *of_families, *names)

    def _place_name(self, family: int, place: int) -> str:
        member = self.families.members[family]
        if place == len(member):
            return "end"
        region = _region_name(int(member.regions[place]), "")
        return f"{member.positions[place]} {region}".strip()

    def encode(self, sequences: Sequence[str]) -> Encoded:
        """Return the features of sequences, best without repeats; "" stands for no chain."""
        from scipy.sparse import coo_array, csr_array

        n, first = len(sequences), len(COMMON) + len(self.families)
        placement = self.families.place(sequences)
        reach = np.array([member.reach for member in self.families.members])
        absent = np.array([not sequence for sequence in sequences], np.bool_)
        strange = ~absent
        if len(reach):
            lowest = np.minimum(reach, self.identity)[placement.family]
            strange &= placement.identity < lowest - ROUNDING
        unseen: list[list[str]] = [[] for _ in range(n)]
        category = np.select([absent, strange], [NONE, UNSEEN_FAMILY], len(COMMON) + placement.family)
        rows, columns, values = [np.arange(n)], [category], [np.ones(n)]
        differences = np.zeros((n, len(self.regions) * len(DIFFERENCES)))
        for laid in self.families.lay(sequences, placement):
            differences[laid.which] = self._differences(laid)
            known = ~strange[laid.which]
            for part_rows, part_columns, part_values in self._lit(laid, known, unseen):
                rows.append(part_rows)
                columns.append(np.where(part_columns < 0, UNSEEN_RESIDUES, first + part_columns))
                values.append(part_values)
        for position in np.flatnonzero(strange).tolist():
            alike = f"{placement.identity[position]:.0%} like the nearest" if len(reach) else "training had none"
            unseen[position] = [f"family ({alike})"]
        if not self.without:
            for position in np.flatnonzero(absent).tolist():
                unseen[position] = ["none"]
        shape = (n, len(self.sparse_names))
        sparse = coo_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)
        dense = self.scaling.transform(differences)
        dense[absent] = 0
        told = np.array([self._told(words) for words in unseen])
        return Encoded(csr_array(sparse, dtype=np.float32), dense, told, strange)

    def _lit(
        self, laid: Laid, known: NDArray[np.bool_], unseen: list[list[str]]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]]:
        """Yield rows, columns and values that laid sequences of a known family light; column −1 for the unseen."""
        member = self.families.members[laid.family]
        of_change, of_residue = self.alphabet.tables(laid.family)
        different = (laid.residues != self.alphabet.consensus[laid.family]) & known[:, None]
        rows, places = np.nonzero(different)
        letters = laid.residues[rows, places]
        changed, own = of_change[places], of_residue[places, letters]
        for columns in (changed, np.where(own == changed, -1, own)):
            lit = np.flatnonzero(columns >= 0)
            yield laid.which[rows[lit]], columns[lit], np.ones(len(lit))
        new = np.flatnonzero(own < 0)
        agreed = self.alphabet.consensus[laid.family]
        for row, place, letter in zip(rows[new].tolist(), places[new].tolist(), letters[new].tolist(), strict=True):
            unseen[laid.which[row]].append(f"{member.positions[place]} {_spelled(agreed[place])}>{_spelled(letter)}")
        yield laid.which[rows[new]], np.full(len(new), -1), np.ones(len(new))
        for row, place, inserted in laid.insertions:
            if known[row]:
                column = self.alphabet.insertion_columns.get((laid.family, place, inserted), -1)
                if column < 0:
                    where = f"before {member.positions[place]}" if place < len(member) else "at the end"
                    unseen[laid.which[row]].append(f"{inserted} {where}")
                yield laid.which[[row]], np.array([column]), np.ones(1)

    def _differences(self, laid: Laid) -> NDArray[np.float64]:
        """Return (k, n_regions × n_differences) sums over what differs from the consensus."""
        return _sums(laid, self.families, self.alphabet.consensus[laid.family], self.regions)

    def _told(self, words: Sequence[str]) -> str:
        if not words:
            return ""
        more = f" and {len(words) - TOLD:,} more" if len(words) > TOLD else ""
        return f"{self.chain} {', '.join(words[:TOLD])}{more}"

    def state(self) -> dict[str, Any]:
        """Return families, alphabet and scaling."""
        seen = self.alphabet
        return {
            "chain": self.chain,
            "families": self.families.state(),
            "identity": self.identity,
            "consensus": np.concatenate([np.empty(0, np.uint8), *seen.consensus]),
            "family": seen.family,
            "place": seen.place,
            "letter": seen.letter,
            "inserted": [list(insertion) for insertion in seen.inserted],
            "without": self.without,
            "regions": self.regions,
            "scaling": self.scaling.state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "ChainSites":
        """Return the chain that `state` was taken from."""
        families = Families.from_state(state["families"])
        ends = np.cumsum([len(member) for member in families.members])[:-1]
        alphabet = Alphabet(
            tuple(np.split(np.asarray(state["consensus"], np.uint8), ends)) if len(families) else (),
            np.asarray(state["family"], np.int32),
            np.asarray(state["place"], np.int32),
            np.asarray(state["letter"], np.uint8),
            tuple((int(family), int(place), str(letters)) for family, place, letters in state["inserted"]),
        )
        return cls(
            str(state["chain"]),
            families,
            float(state["identity"]),
            alphabet,
            bool(state["without"]),
            np.asarray(state["regions"], np.intp),
            Scaling.from_state(state["scaling"]),
        )


def fit_chain(
    chain: str,
    sequences: Sequence[str],
    counts: NDArray[np.intp],
    *,
    identity: float,
    numbering: bool,
    notify: Callable[[int, int], None] = lambda done, of: None,
) -> ChainSites:
    """Learn the sites of one chain.

    Parameters
    ----------
    chain : heavy, light or antigen
    sequences : (n_distinct,) of the training rows; "" for rows without the chain
    counts : (n_distinct,) training rows with each
    identity : that links two sequences to one family
    numbering : name the places of antibodies by IMGT
    notify : told of the progress of numbering
    """
    present = [position for position, sequence in enumerate(sequences) if sequence]
    chosen = [sequences[position] for position in present]
    families = find_families(chosen, identity=identity, numbering=numbering, notify=notify)
    laid = families.lay(chosen, families.place(chosen))
    # A representative may be no sequence's nearest; it is its own consensus then.
    agreed = [residue_codes([member.sequence])[0] for member in families.members]
    for of_family in laid:
        agreed[of_family.family] = consensus(of_family.residues)
    alphabet = _learn(laid, tuple(agreed))
    regions = np.unique(np.concatenate([[OTHER], *(member.regions for member in families.members)])).astype(np.intp)
    sums = np.zeros((len(chosen), len(regions) * len(DIFFERENCES)))
    for of_family in laid:
        sums[of_family.which] = _sums(of_family, families, agreed[of_family.family], regions)
    unit = np.tile(list(DIFFERENCES.values()), len(regions))
    scaling = fit_scaling(sums, counts[present], unit)
    return ChainSites(chain, families, identity, alphabet, len(present) < len(sequences), regions, scaling)


def _learn(laid: Sequence[Laid], agreed: tuple[NDArray[np.uint8], ...]) -> Alphabet:
    """Return the residues that stand beside the consensus, family by family."""
    pieces: list[NDArray[np.int64]] = [np.empty((0, 3), np.int64)]
    inserted: set[tuple[int, int, str]] = set()
    for of_family in sorted(laid, key=lambda one: one.family):
        rows, places = np.nonzero(of_family.residues != agreed[of_family.family])
        seen = np.unique(places.astype(np.int64) * 256 + of_family.residues[rows, places])
        pieces.append(np.column_stack([np.full(len(seen), of_family.family), seen // 256, seen % 256]))
        inserted |= {(of_family.family, place, letters) for _, place, letters in of_family.insertions}
    family, place, letter = np.concatenate(pieces).T
    columns = family.astype(np.int32), place.astype(np.int32), letter.astype(np.uint8)
    return Alphabet(agreed, *columns, tuple(sorted(inserted)))


def _sums(laid: Laid, families: Families, agreed: NDArray[np.uint8], regions: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return (k, n_regions × n_differences) differences from the consensus, summed over each region."""
    of_place = np.searchsorted(regions, families.members[laid.family].regions)
    rows, places = np.nonzero(laid.residues != agreed)
    now, was, group = laid.residues[rows, places], agreed[places], of_place[places]
    if laid.insertions:
        codes, lengths = residue_codes([letters for _, _, letters in laid.insertions])
        own = families.members[laid.family].regions
        where = np.searchsorted(regions, [inserted_region(own, place) for _, place, _ in laid.insertions])
        rows = np.concatenate([rows, np.repeat([row for row, _, _ in laid.insertions], lengths)])
        group = np.concatenate([group, np.repeat(where, lengths)])
        now = np.concatenate([now, codes])
        was = np.concatenate([was, np.full(len(codes), GAP, np.uint8)])
    cell = rows * len(regions) + group
    values = (
        np.ones(len(rows)),
        BLOSUM62[was, was] - BLOSUM62[was, now],
        HYDROPATHY[now] - HYDROPATHY[was],
        CHARGE[now] - CHARGE[was],
        VOLUME[now] - VOLUME[was],
        (was == GAP).astype(np.float64) - (now == GAP),
    )
    size = len(laid.which) * len(regions)
    sums: NDArray[np.float64] = np.stack([np.bincount(cell, weights=value, minlength=size) for value in values], axis=1)
    return sums.reshape(len(laid.which), -1)


def _spelled(letter: int) -> str:
    """Return a residue by its letter, an absent one as "-"."""
    return "-" if letter == GAP else chr(letter)


def _region_name(region: int, chain: str) -> str:
    """Return a region as column names say it: `CDR2 `; "" for a whole antigen, `other ` for the rest of an antibody."""
    if region == OTHER:
        return "" if chain in ("", "antigen") else "other "
    domain, name = REGIONS[region].split(".")
    return f"{name} " if domain == {"heavy": "VH", "light": "VL"}.get(chain, domain) else f"{domain} {name} "
