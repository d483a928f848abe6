"""The residues of heavy, light and antigen, one by one, for models that read sequences themselves.

Each distinct chain is held once: its letters, the IMGT number of each residue's place where it is in a variable
domain, and, where an encoder is named, what that makes of each residue. Places are carried over from the families of
the training rows' chains (see `sequences.families`), so that numbering is needed for training alone.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.features.contract import cannot_number
from tailbind.features.distinct import distinct, has_antibody
from tailbind.features.encoder import PRECISIONS, Encoder, Reading, load_encoder
from tailbind.features.pretrained import ENCODER_VARIABLE, find_encoder
from tailbind.options import bounded, one_of
from tailbind.runtime import choose_device, progress, remark
from tailbind.sequences.families import Families, find_families
from tailbind.sequences.laying import GAP, carried
from tailbind.sequences.numbering import can_number, imgt_number
from tailbind.sequences.residues import residue_codes
from tailbind.table.features import LAST_PLACE, ChainResidues, Features
from tailbind.table.schema import SEQUENCES, AffinityTable

Places = NDArray[np.int16]

#: Vectors of residues are told of where they take so much memory.
MUCH_MEMORY: Final = 2**30


@dataclass(frozen=True)
class Residues:
    """Options of the block.

    Attributes
    ----------
    numbering : give the residues of variable domains their IMGT numbers; needs ANARCII for training, not for
        prediction. Without it residues are counted from the chain's start alone
    longest : residues of a chain that are read, from its start; 0 for all
    encoder : a protein language model whose vectors are read beside the letters: a name on the Hugging Face hub, or a
        folder with its files; none unless given. The vectors of all distinct chains are held in memory, 2 bytes each
        number
    revision : branch, tag or commit on the hub; its main branch unless given
    layers : whose vectors are averaged: −1 the last, 0 what goes into the first
    precision : fp32, bf16, fp16; auto takes half precision on a GPU
    """

    reads_sequences: ClassVar[bool] = True

    numbering: bool = True
    longest: int = bounded(1024, low=0)
    encoder: str = ""
    revision: str = ""
    layers: tuple[int, ...] = (-1,)
    precision: str = one_of("auto", PRECISIONS)

    def fit(self, table: AffinityTable, rows: NDArray[np.intp]) -> "FittedResidues":
        """Learn from `rows` the families of antibodies' chains and, of an encoder's vectors, mean and SD.

        Raises
        ------
        FeatureError
            When antibodies are to be numbered and ANARCII is not installed, or the encoder is not there.
        """
        if self.numbering and not can_number():
            raise cannot_number("residues")
        training = table.frame[rows]
        families = _numbered_families(training) if self.numbering else None
        if not self.encoder:
            return FittedResidues(self, families)
        encoder = self.load()
        chains = {chain: distinct(training[chain]) for chain in SEQUENCES}
        sequences = [sequence[: self.longest or None] for found, _ in chains.values() for sequence in found if sequence]
        vectors = _encoded(encoder, sequences)
        folder = Path(self.encoder).expanduser()  # by its whole path: who predicts may stand elsewhere
        return FittedResidues(
            replace(self, encoder=str(folder.resolve())) if folder.is_dir() else self,
            families,
            encoder.files.identity,
            encoder.files.commit,
            vectors.mean(axis=0, dtype=np.float64).astype(np.float32),
            np.maximum(vectors.std(axis=0, dtype=np.float64), 1e-6).astype(np.float32),
        )

    def load(self) -> Encoder:
        """Return the encoder, on the device that features are computed on."""
        reading = Reading(self.layers, self.precision)
        return load_encoder(find_encoder(self.encoder, self.revision), reading, choose_device("auto"))

    def from_state(self, state: Mapping[str, Any]) -> "FittedResidues":
        """Return the fitted block that `state` was taken from; `TAILBIND_ENCODER` names where its encoder is now."""
        families = None if state["families"] is None else Families.from_state(state["families"])
        if not self.encoder:
            return FittedResidues(self, families)
        moved = os.environ.get(ENCODER_VARIABLE, "")
        return FittedResidues(
            replace(self, encoder=moved, revision="") if moved else replace(self, encoder=str(state["encoder"])),
            families,
            str(state["identity"]),
            str(state["commit"]),
            np.asarray(state["mean"], np.float32),
            np.asarray(state["scale"], np.float32),
        )


@dataclass(frozen=True)
class FittedResidues:
    """Chains as training rows have taught to read them.

    Attributes
    ----------
    options : the block's
    families : of heavy and light chains, that give residues their places; None where they have none
    identity : SHA-256 of the encoder's configuration, weights and tokenizer; "" without one
    commit : the encoder's on the hub; "" for a folder
    mean, scale : (n_vector,) of the encoder's vectors over the training rows' distinct chains
    """

    reads_sequences: ClassVar[bool] = True

    options: Residues
    families: Families | None = None
    identity: str = ""
    commit: str = ""
    mean: NDArray[np.float32] | None = None
    scale: NDArray[np.float32] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The dense columns: "heavy missing", "light missing", "antigen missing"."""
        return tuple(f"{chain} missing" for chain in SEQUENCES)

    def transform(self, table: AffinityTable) -> Features:
        """Return the residues of every row's chains, and which are missing; rows without heavy and light are nan.

        Raises
        ------
        FeatureError
            When the encoder is not there, or is not the one that training had.
        """
        sequences: list[str] = []
        places: list[Places] = []
        index = np.empty((len(table), len(SEQUENCES)), np.int64)
        for position, chain in enumerate(SEQUENCES):
            found, of_row = distinct(table.frame[chain])
            there = np.array([bool(sequence) for sequence in found], np.bool_)
            number = np.where(there, len(sequences) + np.cumsum(there) - 1, -1)
            index[:, position] = number[of_row]
            filled = [sequence for sequence in found if sequence]
            places += self._places(filled, chain)
            sequences += filled
        longest = self.options.longest
        if longest and (n := sum(len(sequence) > longest for sequence in sequences)):
            what = "1 chain is" if n == 1 else f"{n:,} chains are"
            remark(f"{what} longer than the {longest:,} residues that are read (features.residues.longest); cut there.")
        cut = [sequence[: longest or None] for sequence in sequences]
        codes, lengths = residue_codes(cut)
        kept = [of_it[: longest or None] for of_it in places]
        residues = ChainResidues(
            codes,
            np.concatenate([np.empty(0, np.int16), *kept]),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            index,
            self._vectors(cut, len(codes)),
        )
        dense = (index < 0).astype(np.float32)
        dense[~has_antibody(table)] = np.nan
        return Features(dense, self.names, residues=residues)

    def _places(self, sequences: Sequence[str], chain: str) -> list[Places]:
        """Return the place of each residue of sequences; 0 throughout an antigen's."""
        if chain == "antigen" or self.families is None:
            return [np.zeros(len(sequence), np.int16) for sequence in sequences]
        return chain_places(sequences, self.families)

    def _vectors(self, sequences: Sequence[str], n_residues: int) -> NDArray[np.float16]:
        """Return (n_residues, n_vector) what the encoder makes of residues, of mean 0 and SD 1 over training's."""
        if self.mean is None or self.scale is None:
            return np.empty((n_residues, 0), np.float16)
        encoder = self.options.load()
        encoder.files.check_same(self.identity, self.commit)
        if (size := 2 * n_residues * len(self.mean)) > MUCH_MEMORY:
            remark(f"Vectors of {n_residues:,} residues take {size / 2**30:.1f} GiB of memory.")
        vectors = _encoded(encoder, sequences)
        # Half precision holds no more; what is so far from training's says no more by being farther.
        limit = np.finfo(np.float16).max
        scaled: NDArray[np.float16] = np.clip((vectors - self.mean) / self.scale, -limit, limit).astype(np.float16)
        return scaled

    def state(self) -> dict[str, Any]:
        """Return what was learned, and which encoder it is of; not the encoder."""
        return {
            "families": None if self.families is None else self.families.state(),
            "encoder": self.options.encoder,
            "identity": self.identity,
            "commit": self.commit,
            "mean": self.mean,
            "scale": self.scale,
        }


def chain_places(sequences: Sequence[str], families: Families) -> list[Places]:
    """Return the place of each residue, as `ChainResidues` has them, carried over from the nearest representatives.

    An inserted residue has the place of none.

    Examples
    --------
    >>> families = find_families(["MKTAYIAKQR"], numbering=False)
    >>> chain_places(["MKTAYIAKQW"], families)[0].tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    """
    found = [np.zeros(len(sequence), np.int16) for sequence in sequences]
    for laid in families.lay(sequences, families.place(sequences)):
        own = np.array([_place(position) for position in families.members[laid.family].positions], np.int16)
        lacking = (laid.residues == GAP).any(axis=1)
        for row, position in enumerate(laid.which.tolist()):
            changed = lacking[row] or row in laid.inserted
            found[position] = carried(own, laid, row, 0) if changed else own
    return found


def _place(position: str) -> int:
    """Return the number of a place that is named "H52" or "K111A", or "H52'" in a second domain; 0 for "417"."""
    if position[0] not in "HKL":
        return 0
    number = imgt_number(position[1:].rstrip("'"))
    return number if position[0] == "H" else LAST_PLACE + number


def _numbered_families(frame: pl.DataFrame) -> Families:
    """Return the families of heavy and light chains, their representatives numbered."""
    antibodies = pl.concat([frame["heavy"], frame["light"].alias("heavy")]).fill_null("")
    with progress("Numbering families") as notify:
        return find_families(antibodies.unique().sort().to_list(), notify=notify)


def _encoded(encoder: Encoder, sequences: Sequence[str]) -> NDArray[np.float32]:
    """Return (n_residues, n_vector) the encoder's vectors of all residues, one sequence after the other."""
    with progress(f"Encoding {len(sequences):,} chains") as tell:
        tell(0, len(sequences))
        vectors = encoder.residues(sequences)
        tell(len(sequences), len(sequences))
    return np.concatenate([np.empty((0, encoder.dim), np.float32), *vectors])
