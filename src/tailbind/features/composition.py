"""What sequences are made of: shares of residues and of pairs of neighbours, by chain, wherever they are.

Shares of residues tell one family from another, and of a substitution what replaced what, but not where. Pairs
of neighbours tell two places apart where different residues stand beside them: most places of a family of variants,
and fewer the more sequences there are. For the place itself there is `sites`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import RecipeError
from tailbind.features.distinct import distinct, has_antibody, spread, stretches
from tailbind.features.scaling import Scaling, fit_scaling
from tailbind.options import one_of
from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.sequences.residues import residue_codes
from tailbind.table.features import Features
from tailbind.table.schema import SEQUENCES, AffinityTable

_N: Final = len(AMINO_ACIDS)
#: Letter code → its place among the twenty, or the place after them.
_PLACE: Final = np.full(256, _N, np.intp)
_PLACE[np.frombuffer(AMINO_ACIDS.encode(), np.uint8)] = np.arange(_N)


@dataclass(frozen=True)
class Composition:
    """Options of the block.

    Attributes
    ----------
    chains : the sequences that are read: heavy, light, antigen
    dipeptides : shares of the 400 pairs of neighbouring residues too
    standardize : bring each column to mean 0 and SD 1 over the training rows that have the chain
    """

    reads_sequences: ClassVar[bool] = True

    chains: tuple[str, ...] = one_of(SEQUENCES, SEQUENCES)
    dipeptides: bool = True
    standardize: bool = True

    def __post_init__(self) -> None:
        if not self.chains or len(set(self.chains)) < len(self.chains):
            raise RecipeError(
                f"features.composition.chains must name one chain or more, each once; got {list(self.chains)}. "
                'Write ["heavy", "light"], or leave it out for all three.'
            )

    def fit(self, table: AffinityTable, rows: NDArray[np.intp]) -> "FittedComposition":
        """Learn the columns' mean, SD and range over `rows`, where they are to be standardised."""
        if not self.standardize:
            return FittedComposition(self.chains, self.dipeptides, {})
        scalings = {}
        for chain in self.chains:
            sequences, index = distinct(table.frame[chain][rows])
            values = shares(sequences, self.dipeptides)
            lengths = np.fromiter(map(len, sequences), np.float64, len(sequences))
            counts = np.bincount(index, minlength=len(sequences))
            there = counts[lengths > 0].sum()
            one_residue = there / (counts @ lengths) if there else 0.01  # as a share, and about so in log length
            scalings[chain] = fit_scaling(values, counts, np.full(values.shape[1], one_residue))
        return FittedComposition(self.chains, self.dipeptides, scalings)

    def from_state(self, state: Mapping[str, Any]) -> "FittedComposition":
        """Return the fitted block that `state` was taken from."""
        scalings = {chain: Scaling.from_state(scaling) for chain, scaling in state["scalings"].items()}
        return FittedComposition(self.chains, self.dipeptides, scalings)


@dataclass(frozen=True)
class FittedComposition:
    """The composition of chains, each column scaled as over the training rows.

    Attributes
    ----------
    chains, dipeptides : as in `Composition`
    scalings : chain → how its columns are scaled; empty where they are not
    """

    reads_sequences: ClassVar[bool] = True

    chains: tuple[str, ...]
    dipeptides: bool
    scalings: Mapping[str, Scaling]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each column: "heavy share A", "heavy share AC", "heavy log length", "heavy missing"."""
        parts = [*AMINO_ACIDS, "unknown"]
        if self.dipeptides:
            parts += [first + second for first in AMINO_ACIDS for second in AMINO_ACIDS]
        columns = [*(f"share {part}" for part in parts), "log length", "missing"]
        return tuple(f"{chain} {column}" for chain in self.chains for column in columns)

    def transform(self, table: AffinityTable) -> Features:
        """Return the composition of every row's chains.

        A chain that is missing has 0 in all columns, the training rows' mean where they are standardised, but in
        the last, which is 1; a row with neither heavy nor light chain is nan.
        """
        dense = np.empty((len(table), len(self.names)), np.float32)
        width = len(self.names) // len(self.chains)
        for position, chain in enumerate(self.chains):
            sequences, index = distinct(table.frame[chain])
            values = np.empty((len(sequences), width), np.float32)
            for part in stretches(sequences, width):
                raw = shares(sequences[part], self.dipeptides)
                values[part, :-1] = self.scalings[chain].transform(raw) if self.scalings else raw
            missing = np.array([not sequence for sequence in sequences], np.bool_)
            values[missing], values[:, -1] = 0.0, missing
            spread(values, index, dense[:, position * width : (position + 1) * width])
        dense[~has_antibody(table)] = np.nan
        return Features(dense, self.names)

    def state(self) -> dict[str, Any]:
        """Return the scalings."""
        return {"scalings": {chain: scaling.state() for chain, scaling in self.scalings.items()}}


def shares(sequences: Sequence[str], dipeptides: bool) -> NDArray[np.float32]:
    """Return what sequences are made of, (n, 22) or with dipeptides (n, 422).

    The columns are the shares of the twenty residues and of all other letters; of the 400 pairs among all pairs of
    neighbours (a pair with another letter is none of them); and the natural logarithm of the length. nan for "".

    >>> shares(["AAC"], dipeptides=False).round(2)[0, [0, 1, -1]].tolist()
    [0.6700000166893005, 0.33000001311302185, 1.100000023841858]
    """
    width = _N + 1 + dipeptides * _N**2 + 1
    values = np.empty((len(sequences), width), np.float32)
    for part in stretches(sequences, width):
        letters, lengths = residue_codes(sequences[part])
        n = len(lengths)
        row, place = np.repeat(np.arange(n), lengths), _PLACE[letters]
        size = np.where(lengths > 0, lengths, np.nan)[:, None]
        values[part, : _N + 1] = np.bincount(row * (_N + 1) + place, minlength=n * (_N + 1)).reshape(n, -1) / size
        if dipeptides:
            pair = np.flatnonzero((row[1:] == row[:-1]) & (place[1:] < _N) & (place[:-1] < _N))
            code = row[pair] * _N**2 + place[pair] * _N + place[pair + 1]
            values[part, _N + 1 : -1] = np.bincount(code, minlength=n * _N**2).reshape(n, -1) / np.maximum(size - 1, 1)
        values[part, -1] = np.log(size[:, 0])
    return values
