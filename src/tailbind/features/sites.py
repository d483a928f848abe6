"""Features that see a single mutation: which residue stands where, family by family.

The sequences of each chain are divided into families of variants (see `sequences.families`). Of each family the sites
that vary in training become sparse columns: one that any change lights, and one per residue where several were seen.
Beside them stand dense differences from the family's consensus, summed over each framework and CDR: changed residues,
BLOSUM62, hydropathy, charge, volume, length. So a residue that training never saw at its site still counts as a
change of that site, of its region and of the chain's physics; and it is told, with every family, antigen or missing
chain that training never saw.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.features.chain_sites import ChainSites, Encoded, fit_chain
from tailbind.features.contract import cannot_number
from tailbind.features.distinct import distinct, has_antibody
from tailbind.options import bounded
from tailbind.runtime import progress
from tailbind.sequences.numbering import can_number
from tailbind.table.features import Features
from tailbind.table.schema import SEQUENCES, AffinityTable

#: What stands for an antigen without sequence when neither a name nor a source does.
UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class Sites:
    """Options of the block.

    Attributes
    ----------
    identity : from which two sequences are variants of one family: 1 − edits / length of the longer
    numbering : name the places of antibodies by IMGT, so that frameworks and CDRs are told apart; needs ANARCII
        for training, not for prediction
    """

    reads_sequences: ClassVar[bool] = True

    identity: float = bounded(0.9, low=0.3, high=1)
    numbering: bool = True

    def fit(self, table: AffinityTable, rows: NDArray[np.intp]) -> "FittedSites":
        """Learn the families of each chain, and what varies in them, from the training rows.

        Raises
        ------
        FeatureError
            When antibodies are to be numbered and ANARCII is not installed.
        """
        if self.numbering and not can_number():
            raise cannot_number("sites")
        chains = []
        for chain in SEQUENCES:
            sequences, index = distinct(table.frame[chain][rows])
            with progress(f"Numbering {chain} chains") as notify:
                chains.append(
                    fit_chain(
                        chain,
                        sequences,
                        np.bincount(index, minlength=len(sequences)),
                        identity=self.identity,
                        numbering=self.numbering and chain != "antigen",
                        notify=notify,
                    )
                )
        names = _antigen_names(table.frame[rows]).drop_nulls().unique().sort()
        return FittedSites(tuple(chains), tuple(names.to_list()))

    def from_state(self, state: Mapping[str, Any]) -> "FittedSites":
        """Return the fitted block that `state` was taken from."""
        return FittedSites(tuple(ChainSites.from_state(chain) for chain in state["chains"]), tuple(state["antigens"]))


@dataclass(frozen=True)
class FittedSites:
    """The sites of every chain, as training had them.

    Attributes
    ----------
    chains : heavy, light and antigen
    antigens : the antigens that training knew without a sequence: by their name, else by their source
    """

    reads_sequences: ClassVar[bool] = True

    chains: tuple[ChainSites, ...]
    antigens: tuple[str, ...]

    def transform(self, table: AffinityTable) -> Features:
        """Return the sparse sites and dense differences of every row; rows without heavy and light are nan."""
        from scipy.sparse import csr_array, hstack

        encoded: list[tuple[Encoded, NDArray[np.intp]]] = []
        for chain in self.chains:
            sequences, index = distinct(table.frame[chain.chain])
            encoded.append((chain.encode(sequences), index))
        antigens, index = encoded[-1]
        by_name, unseen_names = self._by_name(table, antigens.strange[index])
        dense = np.hstack([part.dense[index] for part, index in encoded])
        dense[~has_antibody(table)] = np.nan
        sparse = [part.sparse[index] for part, index in encoded]
        unseen = [part.unseen[index] for part, index in encoded]
        # An antigen known by name is none that lacks a sequence.
        named = table.frame["antigen"].to_numpy() == ""
        unseen[-1] = np.where(named, unseen_names, unseen[-1])
        return Features(
            dense,
            tuple(name for chain in self.chains for name in chain.names),
            csr_array(hstack([*sparse, by_name], format="csr", dtype=np.float32)),
            (
                *(name for chain in self.chains for name in chain.sparse_names),
                "antigen unseen name",
                *(f"antigen {name}" for name in self.antigens),
            ),
            _joined(unseen),
        )

    def _by_name(self, table: AffinityTable, strange: NDArray[np.bool_]) -> tuple[Any, NDArray[np.str_]]:
        """Return the columns of antigens known by name, (n, 1 + n_antigens), and in words the names never seen.

        Parameters
        ----------
        strange : (n,) whether the antigen's sequence is new; a name that training knew tells which it is all the same
        """
        from scipy.sparse import csr_array

        own = pl.format("name {}", "antigen_name")
        known = pl.Series(strange) & table.frame.select(own.is_in(self.antigens)).to_series()
        stand_in = _antigen_names(table.frame).fill_null("")
        names, index = distinct(table.frame.select(pl.when(known).then(own).otherwise(stand_in)).to_series())
        column = {name: position for position, name in enumerate(self.antigens, 1)} | {"": -1}
        columns = np.array([column.get(name, 0) for name in names], np.intp)
        words = np.array(
            [f"antigen {name}" if at == 0 else "" for name, at in zip(names, columns, strict=True)], dtype=np.str_
        )
        rows = np.flatnonzero(columns[index] >= 0)
        shape = (len(table), 1 + len(self.antigens))
        ones = np.ones(len(rows), np.float32)
        return csr_array((ones, (rows, columns[index][rows])), shape=shape), words[index]

    def state(self) -> dict[str, Any]:
        """Return the chains' states and the antigens' names."""
        return {"chains": [chain.state() for chain in self.chains], "antigens": list(self.antigens)}


def _antigen_names(frame: pl.DataFrame) -> pl.Series:
    """Return (n_samples,) what stands for an antigen without sequence; null where there is one."""
    stand_in = (
        pl.when(pl.col("antigen_name") != "")
        .then(pl.format("name {}", "antigen_name"))
        .when(pl.col("source") != "")
        .then(pl.format("of source {}", "source"))
        .otherwise(pl.lit(UNKNOWN))
    )
    return frame.select(pl.when(pl.col("antigen") == "").then(stand_in).alias("name"))["name"]


def _joined(parts: list[NDArray[np.str_]]) -> NDArray[np.str_]:
    """Return (n_samples,) the words of all chains; "" where none has any."""
    some = np.flatnonzero(np.any([part != "" for part in parts], axis=0))
    joined = {row: "; ".join(str(part[row]) for part in parts if part[row]) for row in some.tolist()}
    words = np.zeros(len(parts[0]), dtype=f"<U{max(map(len, joined.values()), default=1)}")
    for row, text in joined.items():
        words[row] = text
    return words
