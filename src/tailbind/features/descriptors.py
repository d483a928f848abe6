"""What a protein chemist looks at: lengths, charge, hydropathy, aromatics and liabilities, by chain and by region.

A liability is a place where a protein is known to change by itself or to vary from batch to batch: sequons that
carry glycans, asparagines that lose their amide, aspartates that rearrange, residues that oxidise, bonds that break,
cysteines without a partner and N-terminal glutamates that close to a ring.

Regions are those of IMGT in the antibody's variable domains, whichever of the two columns they are in: an scFv in
the heavy column has both domains, a nanobody one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.features.contract import cannot_number
from tailbind.features.distinct import distinct, has_antibody, spread, stretches
from tailbind.features.scaling import Scaling, fit_scaling
from tailbind.runtime import progress
from tailbind.sequences.families import Families, find_families
from tailbind.sequences.laying import OTHER, REGIONS
from tailbind.sequences.numbering import can_number
from tailbind.sequences.residues import (
    AROMATIC,
    CHARGE,
    HYDROPATHY,
    VOLUME,
    Codes,
    isoelectric_points,
    residue_codes,
)
from tailbind.table.features import Features
from tailbind.table.schema import SEQUENCES, AffinityTable

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
#: Name of a column → its values.
Measures = dict[str, Array]

LIABILITIES: Final = ("glycosylation", "deamidation", "isomerisation", "oxidation", "fragmentation")
#: What is summed over the residues of a region or a chain.
QUANTITIES: Final = ("length", "charge", "hydropathy", "volume", "aromatic", *LIABILITIES, "cysteines")
_AT: Final = {name: position for position, name in enumerate(QUANTITIES)}

#: Measure → a difference in it that means something: one residue or one charge; for a mean over a chain, what one
#: residue in a hundred does to it, and over a region, where it is one in ten, ten times as much.
UNITS: Final[Mapping[str, float]] = {
    "mean hydropathy": 0.03,
    "aromatic share": 0.01,
    "mean volume": 0.3,
    "isoelectric point": 0.1,
    "hydropathy difference": 0.1,
}

ALL: Final = range(len(REGIONS))
LOOPS: Final = [at for at, region in enumerate(REGIONS) if "CDR" in region]


@dataclass(frozen=True)
class Descriptors:
    """Options of the block.

    Attributes
    ----------
    numbering : descriptors by region too, for which antibodies are numbered; needs ANARCII for training, not for
        prediction
    """

    reads_sequences: ClassVar[bool] = True

    numbering: bool = True

    def fit(self, table: AffinityTable, rows: Indices) -> "FittedDescriptors":
        """Find the antibodies' families among `rows`, and learn each column's mean, SD and range over them.

        Raises
        ------
        FeatureError
            When antibodies are to be numbered and ANARCII is not installed.
        """
        if self.numbering and not can_number():
            raise cannot_number("descriptors", "describe whole chains only")
        frame = table.frame[rows]
        families = {}
        for chain in ("heavy", "light") if self.numbering else ():
            with progress(f"Numbering {chain} chains") as notify:
                families[chain] = find_families(distinct(frame[chain])[0], notify=notify)
        names, scalings = [], {}
        for group, measures, index in _measured(frame, families):
            values = np.stack(list(measures.values()), axis=1)
            units = np.array([unit(name) for name in measures])
            scalings[group] = fit_scaling(values, np.bincount(index, minlength=len(values)), units)
            names += list(measures)
        return FittedDescriptors(tuple(names), families, scalings)

    def from_state(self, state: Mapping[str, Any]) -> "FittedDescriptors":
        """Return the fitted block that `state` was taken from."""
        return FittedDescriptors(
            tuple(state["names"]),
            {chain: Families.from_state(families) for chain, families in state["families"].items()},
            {group: Scaling.from_state(scaling) for group, scaling in state["scalings"].items()},
        )


@dataclass(frozen=True)
class FittedDescriptors:
    """Descriptors scaled as over the training rows.

    Attributes
    ----------
    names : of the columns
    families : heavy and light → the training sequences' families; empty without numbering
    scalings : group → how its columns are scaled
    """

    reads_sequences: ClassVar[bool] = True

    names: tuple[str, ...]
    families: Mapping[str, Families]
    scalings: Mapping[str, Scaling]

    def transform(self, table: AffinityTable) -> Features:
        """Return the descriptors of every row, each 0 in the mean of the training rows, with SD 1.

        What a row does not have (a light chain, a region) is 0 in its columns, and 1 in one that says it is missing;
        a row with neither heavy nor light chain is nan.
        """
        dense = np.empty((len(table), len(self.names)), np.float32)
        start = 0
        for group, measures, index in _measured(table.frame, self.families):
            values = np.nan_to_num(self.scalings[group].transform(np.stack(list(measures.values()), axis=1)))
            for position, name in enumerate(measures):
                if name.endswith(" missing"):
                    values[:, position] = measures[name]
            spread(values, index, dense[:, start : start + values.shape[1]])
            start += values.shape[1]
        dense[~has_antibody(table)] = np.nan
        return Features(dense, self.names)

    def state(self) -> dict[str, Any]:
        """Return names, families and scalings."""
        return {
            "names": list(self.names),
            "families": {chain: families.state() for chain, families in self.families.items()},
            "scalings": {group: scaling.state() for group, scaling in self.scalings.items()},
        }


def unit(name: str) -> float:
    """Return the difference in a column that means something.

    >>> unit("heavy net charge"), unit("heavy mean volume"), unit("VH.CDR3 mean volume")
    (1.0, 0.3, 3.0)
    """
    place, measure = name.split(" ", 1)
    return UNITS.get(measure, 1.0) * (10.0 if measure in UNITS and place in (*REGIONS, "CDRs") else 1.0)


def _measured(frame: pl.DataFrame, families: Mapping[str, Families]) -> Iterator[tuple[str, Measures, Indices]]:
    """Yield each group of columns: its name, its measures of what is distinct, and which of these each row has."""
    sums, index = {}, {}
    for chain in SEQUENCES:
        sequences, index[chain] = distinct(frame[chain])
        sums[chain], points = _sums(sequences, _regions(families.get(chain), sequences))
        yield chain, _of_chain(chain, sequences, _total(sums[chain], ALL), points), index[chain]
    both, in_both = _together(index["heavy"], index["light"])
    antibody = sums["heavy"][both[:, 0]] + sums["light"][both[:, 1]]
    if families:
        yield "antibody", _of_domains(antibody), in_both
    pairs, in_pairs = _together(in_both, index["antigen"])
    place, regions = ("CDRs", LOOPS) if families else ("antibody", ALL)
    paratope, antigen = _total(antibody, regions)[pairs[:, 0]], _total(sums["antigen"], ALL)[pairs[:, 1]]
    yield "pair", _of_pair(place, paratope, antigen), in_pairs


def _together(one: Indices, other: Indices) -> tuple[Indices, Indices]:
    """Return the distinct combinations of two indices, (n_distinct, 2), and which of them each row has."""
    width = int(other.max(initial=0)) + 1
    found, index = np.unique(one * width + other, return_inverse=True)
    return np.stack(np.divmod(found, width), axis=1), index


def _regions(families: Families | None, sequences: Sequence[str]) -> list[NDArray[np.uint8]] | None:
    """Return the region of each residue of each sequence; None where regions are not asked for."""
    if families is None:
        return None
    if not families.members:  # training had no such chain
        return [np.full(len(sequence), OTHER, np.uint8) for sequence in sequences]
    return families.regions(sequences)


def _sums(sequences: Sequence[str], regions: list[NDArray[np.uint8]] | None) -> tuple[NDArray[np.float32], Array]:
    """Return the quantities summed by region, (n, n_regions, n_quantities), and isoelectric points, (n,).

    Without regions all residues are of the last, "other".
    """
    n_regions = len(REGIONS)
    sums = np.empty((len(sequences), n_regions, len(QUANTITIES)), np.float32)
    points = np.empty(len(sequences))
    for part in stretches(sequences, 256 + n_regions * len(QUANTITIES)):
        letters, lengths = residue_codes(sequences[part])
        n = len(lengths)
        row = np.repeat(np.arange(n), lengths)
        region = np.full(len(letters), OTHER) if regions is None else np.concatenate(regions[part])
        place = row * n_regions + region
        for quantity, weights in _quantities(letters, row):
            total = np.bincount(place, weights, minlength=n * n_regions)
            sums[part, :, _AT[quantity]] = total.reshape(n, n_regions)
        points[part] = isoelectric_points(np.bincount(row * 256 + letters, minlength=n * 256).reshape(n, 256))
    return sums, points


def _quantities(letters: Codes, row: Indices) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield name and share of each residue in a sum; a motif counts where its first residue is."""
    following, after = np.zeros_like(letters), np.zeros_like(letters)
    following[:-1] = letters[1:] * (row[1:] == row[:-1])
    after[:-2] = letters[2:] * (row[2:] == row[:-2])
    yield "length", np.ones(len(letters))
    yield "charge", CHARGE[letters]
    yield "hydropathy", HYDROPATHY[letters]
    yield "volume", VOLUME[letters]
    yield "aromatic", AROMATIC[letters]
    asparagine, aspartate, proline = letters == ord("N"), letters == ord("D"), following == ord("P")
    yield "glycosylation", asparagine & ~proline & _among(after, "ST")
    yield "deamidation", asparagine & _among(following, "GST")
    yield "isomerisation", aspartate & _among(following, "GSD")
    yield "oxidation", _among(letters, "MW")
    yield "fragmentation", aspartate & proline
    yield "cysteines", letters == ord("C")


def _among(letters: Codes, some: str) -> NDArray[np.bool_]:
    chosen = np.zeros(256, np.bool_)
    chosen[np.frombuffer(some.encode(), np.uint8)] = True
    return chosen[letters]


def _total(sums: NDArray[np.float32], regions: Sequence[int]) -> Array:
    """Return the sums over some regions, (n, n_quantities), added in one order whatever the number of rows."""
    total = np.zeros((len(sums), len(QUANTITIES)))
    for at in regions:
        total += sums[:, at]
    return total


def _of_place(place: str, sums: Array, there: NDArray[np.bool_], liabilities: bool) -> Measures:
    """Return the measures that chains and regions share, from sums (n, n_quantities); nan where it is not there."""
    sums = np.where(there[:, None], sums, np.nan)
    size = _positive(sums[:, _AT["length"]])
    measures = {
        f"{place} length": sums[:, _AT["length"]],
        f"{place} net charge": sums[:, _AT["charge"]],
        f"{place} mean hydropathy": sums[:, _AT["hydropathy"]] / size,
        f"{place} aromatic share": sums[:, _AT["aromatic"]] / size,
        f"{place} mean volume": sums[:, _AT["volume"]] / size,
    }
    if liabilities:
        measures |= {f"{place} {name} sites": sums[:, _AT[name]] for name in LIABILITIES}
    return measures


def _positive(length: Array) -> Array:
    return np.where(length > 0, length, np.nan)


def _of_chain(chain: str, sequences: Sequence[str], sums: Array, points: Array) -> Measures:
    """Return the measures of whole chains, (n,) each, from sums (n, n_quantities)."""
    there = np.array([bool(sequence) for sequence in sequences], np.bool_)
    cysteines = np.where(there, sums[:, _AT["cysteines"]], np.nan)
    ring = np.array([sequence[:1] in ("Q", "E") for sequence in sequences], np.float64)
    return {
        **_of_place(chain, sums, there, liabilities=True),
        f"{chain} isoelectric point": points,
        f"{chain} cysteines": cysteines,
        f"{chain} odd cysteine": cysteines % 2,
        f"{chain} starts with Q or E": np.where(there, ring, np.nan),
        f"{chain} missing": (~there).astype(np.float64),
    }


def _of_domains(sums: NDArray[np.float32]) -> Measures:
    """Return the measures of the regions of variable domains, from sums (n, n_regions, n_quantities)."""
    measures: Measures = {}
    some = np.zeros(len(sums), np.bool_)
    for domain in ("VH", "VL"):
        own = [at for at, region in enumerate(REGIONS) if region.startswith(domain)]
        whole = _total(sums, own)
        there = whole[:, _AT["length"]] > 0
        some |= there
        for at in own:
            measures |= _of_place(REGIONS[at], _total(sums, [at]), there, liabilities=at in LOOPS)
        cysteines = np.where(there, whole[:, _AT["cysteines"]], np.nan)
        # The two of the domain's own bond have each other; a third has nobody, and a fourth may have it.
        measures[f"{domain} cysteines beyond two"] = np.maximum(cysteines - 2, 0)
        measures[f"{domain} odd cysteine"] = cysteines % 2
        measures[f"{domain} missing"] = (~there).astype(np.float64)
    return measures | _of_place("CDRs", _total(sums, LOOPS), some, liabilities=False)


def _of_pair(place: str, antibody: Array, antigen: Array) -> Measures:
    """Return measures of an antibody, or its CDRs, and its antigen together, from sums (n, n_quantities)."""
    sizes = _positive(antibody[:, _AT["length"]]), _positive(antigen[:, _AT["length"]])
    product = antibody[:, _AT["charge"]] * antigen[:, _AT["charge"]]
    hydropathy = antibody[:, _AT["hydropathy"]] / sizes[0] - antigen[:, _AT["hydropathy"]] / sizes[1]
    return {
        f"{place}-antigen charge product": np.where(np.isnan(hydropathy), np.nan, product),
        f"{place}-antigen hydropathy difference": hydropathy,
    }
