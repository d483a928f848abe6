"""What a protein language model makes of heavy, light and antigen: vectors pooled over residues, brought down by PCA.

The vectors come from `embedding`, which keeps them on disk. What is learned here, from training rows alone, is the
PCA, what stands for a missing chain, and which families' CDRs are where. The encoder's weights stay where they are:
a trained model names the encoder, and refuses another.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import FeatureError
from tailbind.features.distinct import distinct, has_antibody
from tailbind.features.embedding import BOTH, CDR, MEAN, POOLS, Chosen, Embedder
from tailbind.features.encoder import PRECISIONS, Reading
from tailbind.features.pretrained import ENCODER_VARIABLE, find_encoder, short_name
from tailbind.features.reduction import Reduction, fit_pca
from tailbind.features.store import default_store
from tailbind.options import bounded, one_of
from tailbind.runtime import progress, remark
from tailbind.sequences.families import Families, find_families
from tailbind.sequences.laying import REGIONS
from tailbind.table.features import Features
from tailbind.table.schema import SEQUENCES, AffinityTable

SEPARATE, JOINED = "separate", "joined"
DEFAULT_ENCODER: Final = "facebook/esm2_t33_650M_UR50D"
_IN_CDR: Final = np.array(["CDR" in region for region in REGIONS])


@dataclass(frozen=True)
class LanguageModel:
    """Options of the block.

    Attributes
    ----------
    encoder : a name on the Hugging Face hub, or a folder with the encoder's files
    revision : branch, tag or commit on the hub; its main branch unless given
    chains : "separate" reads heavy, light and antigen each for itself; "joined" reads them as one sequence in this
        order with nothing between, as the training notebook does, a missing one left out
    pool : "mean" over all residues; "cdr" over those in CDRs, all where a sequence has none; "both" side by side
    layers : whose vectors are averaged: −1 the last, 0 what goes into the first
    precision : fp32, bf16, fp16; auto takes half precision on a GPU
    pca : principal components of the training rows' vectors to keep; 0 keeps the vectors
    batch_tokens : tokens in a batch at most; 0 takes what suits the device
    window : residues read at a time at most; 0 takes the encoder's own maximum
    overlap : residues that neighbouring windows of a longer sequence share
    store : folder to keep vectors in; the user's cache unless given
    """

    reads_sequences: ClassVar[bool] = True

    encoder: str = DEFAULT_ENCODER
    revision: str = ""
    chains: str = one_of(SEPARATE, (SEPARATE, JOINED))
    pool: str = one_of(MEAN, POOLS)
    layers: tuple[int, ...] = (-1,)
    precision: str = one_of("auto", PRECISIONS)
    pca: int = bounded(150, low=0)
    batch_tokens: int = bounded(0, low=0)
    window: int = bounded(0, low=0)
    overlap: int = bounded(128, low=0)
    store: str = ""

    def embedder(self, device: str = "auto") -> Embedder:
        """Return what embeds sequences; the encoder's files must be here, or on the hub.

        Raises
        ------
        FeatureError
            When they are not.
        """
        reading = Reading(self.layers, self.precision, self.window, self.overlap, self.batch_tokens)
        root = Path(self.store).expanduser() if self.store else default_store()
        return Embedder(find_encoder(self.encoder, self.revision), reading, self.pool, root, device)

    def fit(self, table: AffinityTable, rows: NDArray[np.intp]) -> "FittedLanguageModel":
        """Embed the table's sequences, and learn from `rows` all that is learned."""
        embedder = self.embedder()
        training = table.frame[rows]
        families = find_cdrs(training) if self.pool != MEAN else None
        vectors = embed_table(embedder, table.frame, self.chains, families)
        counts = np.bincount(vectors.of_row[rows], minlength=len(vectors))
        # A folder by its whole path: who predicts may stand elsewhere.
        folder = Path(self.encoder).expanduser()
        options = replace(self, encoder=str(folder.resolve())) if folder.is_dir() else self
        fitted = FittedLanguageModel(
            options,
            embedder.files.identity,
            embedder.files.commit,
            *vectors.fitted(counts),
            families=families,
            pca=None,
        )
        if not self.pca:
            return fitted
        return replace(fitted, pca=fit_pca(fitted.filled(vectors), self.pca, weights=counts))

    def from_state(self, state: Mapping[str, Any]) -> "FittedLanguageModel":
        """Return the fitted block that `state` was taken from.

        Its encoder may have moved: `TAILBIND_ENCODER` names the folder it is in now. A store that is not on this
        machine gives way to the user's cache.
        """
        moved = os.environ.get(ENCODER_VARIABLE, "")
        options = replace(self, encoder=moved, revision="") if moved else replace(self, encoder=str(state["encoder"]))
        if self.store and not Path(self.store).expanduser().is_dir():
            remark(f"The store {self.store} is not here; vectors are kept in the user's cache instead.")
            options = replace(options, store="")
        families, pca = state["families"], state["pca"]
        return FittedLanguageModel(
            options,
            str(state["identity"]),
            str(state["commit"]),
            tuple(state["parts"]),
            np.asarray(state["means"], np.float32),
            families=None if families is None else Families.from_state(families),
            pca=None if pca is None else Reduction.from_state(pca),
            label=str(state["label"]),
        )


@dataclass(frozen=True)
class Vectors:
    """The vectors of a table's rows, each distinct one once.

    Attributes
    ----------
    parts : chain → (n_sequences, width) vectors; ("",) for joined chains
    places : (n_distinct, n_parts) of each distinct combination, the row in each part's vectors; −1 where missing
    of_row : (n_samples,) the combination of each row
    """

    parts: Mapping[str, NDArray[np.float32]]
    places: NDArray[np.intp]
    of_row: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.places)

    def fitted(self, counts: NDArray[np.intp]) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """Return the parts that are there in training, and the mean vector of each, (n_parts, width).

        Parameters
        ----------
        counts : (n_distinct,) training rows of each combination
        """
        names, means = [], []
        for position, (name, vectors) in enumerate(self.parts.items()):
            there = self.places[:, position] >= 0
            weights = np.bincount(self.places[there, position], counts[there], minlength=len(vectors))
            if weights.sum():
                names.append(name)
                means.append((weights / weights.sum()) @ vectors)
        if not names:
            raise FeatureError("Training rows must have heavy or light sequences to embed; they have none.")
        return tuple(names), np.stack(means).astype(np.float32)


@dataclass(frozen=True)
class Filled:
    """Rows of vectors, the chains' side by side, made as they are asked for: all at once may not fit the memory.

    Attributes
    ----------
    parts : of each chain its vectors, (n_sequences, width)
    places : (n_rows, n_parts) the row in each part's; −1 where missing
    fill : (n_parts, width) what stands for a missing chain
    """

    parts: Sequence[NDArray[np.float32]]
    places: NDArray[np.intp]
    fill: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_parts · width)."""
        return len(self.places), self.fill.size

    def __getitem__(self, rows: NDArray[np.intp] | slice) -> NDArray[np.float32]:
        places = self.places[rows]
        out = np.empty((len(places), *self.fill.shape), np.float32)
        for position, (vectors, instead) in enumerate(zip(self.parts, self.fill, strict=True)):
            there = places[:, position] >= 0
            out[there, position] = vectors[places[there, position]]
            out[~there, position] = instead
        return out.reshape(len(places), -1)


@dataclass(frozen=True)
class FittedLanguageModel:
    """An encoder's vectors as training rows have taught to take them.

    Attributes
    ----------
    options : the block's
    identity : SHA-256 of the encoder's configuration, weights and tokenizer
    commit : the encoder's on the hub; "" for a folder
    parts : the chains that training rows have; ("",) for joined chains
    means : (n_parts, width) mean vector of each over the training rows that have it: what stands for a missing one
    families : that say where CDRs are; None where nothing asks
    pca : None where the vectors are kept
    label : what the columns' names begin with
    """

    reads_sequences: ClassVar[bool] = True

    options: LanguageModel
    identity: str
    commit: str
    parts: tuple[str, ...]
    means: NDArray[np.float32]
    families: Families | None
    pca: Reduction | None
    label: str = ""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", short_name(self.options.encoder))

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each column: "esm2 pca 0", "heavy esm2 12", "heavy esm2 cdr 12", "light missing"."""
        if self.pca is not None:
            columns = [f"{self.label} pca {number}" for number in range(self.pca.n_components)]
        else:
            pools = {MEAN: [""], CDR: ["cdr "], BOTH: ["mean ", "cdr "]}[self.options.pool]
            dim = self.means.shape[1] // len(pools)
            columns = [
                f"{part} {self.label} {pool}{number}".strip()
                for part in self.parts
                for pool in pools
                for number in range(dim)
            ]
        return (*columns, *(f"{part} missing" for part in self.parts if part))

    def filled(self, vectors: Vectors) -> Filled:
        """Return the vectors of each combination of chains, with the training rows' mean for a missing one."""
        chosen = [list(vectors.parts).index(part) for part in self.parts]
        return Filled([vectors.parts[part] for part in self.parts], vectors.places[:, chosen], self.means)

    def transform(self, table: AffinityTable) -> Features:
        """Return the vectors of every row, or their components, and for separate chains which are missing.

        A missing chain has the training rows' mean vector, and 1 in "… missing". A chain that no training row has is
        not looked at. A row with neither heavy nor light chain is nan.

        Raises
        ------
        FeatureError
            When the encoder is not there, or is not the one that training had.
        """
        embedder = self.options.embedder()
        embedder.files.check_same(self.identity, self.commit)
        vectors = embed_table(embedder, table.frame, self.options.chains, self.families, self.parts)
        filled = self.filled(vectors)
        missing = (filled.places < 0).astype(np.float32) if self.parts != ("",) else np.empty((len(filled), 0))
        width = filled.shape[1] if self.pca is None else self.pca.n_components
        dense = np.empty((len(table), width + missing.shape[1]), np.float32)
        if self.pca is None:
            dense[:, :width] = filled[vectors.of_row]
        else:
            dense[:, :width] = self.pca.transform(filled)[vectors.of_row]
        dense[:, width:] = missing[vectors.of_row]
        dense[~has_antibody(table)] = np.nan
        return Features(dense, self.names)

    def state(self) -> dict[str, Any]:
        """Return what was learned, and which encoder it is of; not the encoder."""
        return {
            "encoder": self.options.encoder,
            "identity": self.identity,
            "commit": self.commit,
            "parts": list(self.parts),
            "means": self.means,
            "families": None if self.families is None else self.families.state(),
            "pca": None if self.pca is None else self.pca.state(),
            "label": self.label,
        }


def find_cdrs(frame: pl.DataFrame) -> Families:
    """Return the families of heavy and light chains, whose representatives are numbered to say where CDRs are.

    Raises
    ------
    SequenceError
        When they cannot be numbered on this machine.
    """
    antibodies = pl.concat([frame["heavy"], frame["light"].alias("heavy")]).fill_null("")
    with progress("Numbering families") as notify:
        return find_families(antibodies.unique().sort().to_list(), notify=notify)


def embed_table(
    embedder: Embedder,
    frame: pl.DataFrame,
    chains: str,
    families: Families | None,
    wanted: Sequence[str] | None = None,
) -> Vectors:
    """Return the vectors of a table's rows.

    Parameters
    ----------
    frame : with heavy, light and antigen
    chains : "separate" or "joined"
    families : that say where CDRs are, where they are pooled
    wanted : the chains to embed; all unless given
    """
    of_chain = {chain: distinct(frame[chain]) for chain in SEQUENCES}
    masks = {chain: _cdr_masks(sequences, chain, families) for chain, (sequences, _) in of_chain.items()}
    index = np.stack([of_chain[chain][1] for chain in SEQUENCES], axis=1)
    rows, of_row = np.unique(index, axis=0, return_inverse=True)
    of_row = of_row.reshape(-1)
    if chains == JOINED:
        parts = {"": ([], [])} if not len(rows) else {"": _joined(rows, of_chain, masks)}
        places = np.arange(len(rows), dtype=np.intp)[:, None]
    else:
        parts = {chain: (of_chain[chain][0], masks[chain]) for chain in SEQUENCES if wanted is None or chain in wanted}
        places = rows[:, [SEQUENCES.index(chain) for chain in parts]]
    filled = {part: [k for k, sequence in enumerate(sequences) if sequence] for part, (sequences, _) in parts.items()}
    found = embedder.embed(
        [sequences[k] for part, (sequences, _) in parts.items() for k in filled[part]],
        [chosen[k] for part, (_, chosen) in parts.items() for k in filled[part]],
    )
    vectors = {}
    start = 0
    for position, (part, (sequences, _)) in enumerate(parts.items()):
        end = start + len(filled[part])
        vectors[part] = found[start:end]
        place = np.full(len(sequences), -1, np.intp)
        place[filled[part]] = np.arange(end - start)
        places[:, position] = place[places[:, position]]
        start = end
    return Vectors(vectors, places, of_row)


def _cdr_masks(sequences: Sequence[str], chain: str, families: Families | None) -> list[Chosen]:
    """Return which residues of each sequence are in a CDR; None for antigens and where nothing asks."""
    if families is None or chain == "antigen":
        return [None] * len(sequences)
    return [_IN_CDR[regions] for regions in families.regions(sequences)]


def _joined(
    rows: NDArray[np.intp],
    of_chain: Mapping[str, tuple[list[str], NDArray[np.intp]]],
    masks: Mapping[str, Sequence[Chosen]],
) -> tuple[list[str], list[Chosen]]:
    """Return each combination of chains as one sequence, in the order heavy, light, antigen, and its CDRs."""
    joined, chosen = [], []
    for row in rows.tolist():
        texts = [of_chain[chain][0][k] for chain, k in zip(SEQUENCES, row, strict=True)]
        of_texts = [masks[chain][k] for chain, k in zip(SEQUENCES, row, strict=True)]
        joined.append("".join(texts))
        known = any(mask is not None for mask in of_texts)
        chosen.append(
            np.concatenate(
                [
                    np.zeros(len(text), np.bool_) if mask is None else mask
                    for text, mask in zip(texts, of_texts, strict=True)
                ]
            )
            if known
            else None
        )
    return joined, chosen
