"""Sequences → pooled vectors: from the store where they are known, else from the encoder and into the store.

Batches are planned from all sequences that are asked for, known or not, so that a run that was killed goes on with
the batches that an uninterrupted one has, and gives the same numbers to the bit.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import FeatureError
from tailbind.features.encoder import Encoder, Reading, load_encoder, mean_weights
from tailbind.features.pretrained import Pretrained
from tailbind.features.store import Store, Vectors, sequence_key
from tailbind.runtime import choose_device, progress, remark

MEAN, CDR, BOTH = "mean", "cdr", "both"
POOLS: Final = (MEAN, CDR, BOTH)
#: Batches after which small shards are merged, so that looking for new ones stays quick.
MERGE_EVERY: Final = 500
#: Residues that are pooled, as (length,) booleans; None for all.
Chosen = NDArray[np.bool_] | None


@dataclass(frozen=True)
class Embedder:
    """An encoder's pooled vectors, kept in a store.

    Attributes
    ----------
    files : of the encoder
    reading : how it reads
    pool : "mean" over all residues, "cdr" over the chosen ones (all where none is), or "both", one after the other
    root : folder of the stores
    device : auto, cpu or cuda
    """

    files: Pretrained
    reading: Reading
    pool: str
    root: Path
    device: str = "auto"

    def store(self) -> Store:
        """Return the place of these vectors on disk."""
        reading = self.reading.on(choose_device(self.device))
        about = {
            "encoder": self.files.identity,
            "layers": list(reading.layers),
            "pool": self.pool,
            "precision": reading.precision,
            "window": reading.window,
            "overlap": reading.overlap,
        }
        return Store(self.root, about, str(self.files.config.get("model_type", "encoder")))

    def embed(self, sequences: Sequence[str], chosen: Sequence[Chosen]) -> Vectors:
        """Return (n, width) the vectors of sequences, each on disk as soon as its batch is done.

        The encoder is loaded only where a sequence is new.

        Parameters
        ----------
        sequences : (n,) none empty; best without repeats
        chosen : (n,) the residues that "cdr" pools

        Raises
        ------
        FeatureError, RunError
            When the encoder cannot be loaded or does not give numbers, or the store cannot be written.
        """
        if not sequences:
            return np.empty((0, 0), np.float32)
        keyed = chosen if self.pool != MEAN else [None] * len(sequences)
        keys = [sequence_key(sequence, of_it) for sequence, of_it in zip(sequences, keyed, strict=True)]
        store = self.store()
        found, vectors = store.read(keys)
        if not found.all():
            encoder = load_encoder(self.files, self.reading, choose_device(self.device))
            self._fill(store, encoder, sequences, keyed, keys, found)
            store.merge()
            found, vectors = store.read(keys)
        if vectors is None or not found.all():
            raise FeatureError(f"{store.folder} must keep what is written to it; rows are missing. Run again.")
        return vectors

    def _fill(
        self,
        store: Store,
        encoder: Encoder,
        sequences: Sequence[str],
        chosen: Sequence[Chosen],
        keys: Sequence[bytes],
        found: NDArray[np.bool_],
    ) -> None:
        """Compute what is not found, a shard for each batch."""
        missing = int((~found).sum())
        if encoder.window and (n := sum(len(sequence) > encoder.window for sequence in sequences)):
            what = "1 sequence is" if n == 1 else f"{n:,} sequences are"
            remark(
                f"{what} longer than the {encoder.window:,} residues that the encoder reads at a time: "
                f"read in windows that share {encoder.reading.overlap:,} residues."
            )
        weights = [self._weights(len(sequence), of_it) for sequence, of_it in zip(sequences, chosen, strict=True)]
        todo = _batches(encoder, sequences, found)
        total = sum(len(sequences[index]) for batch in todo for index in batch)
        done = 0
        waiting: list[NDArray[np.intp]] = []

        def still_missing() -> Iterator[NDArray[np.intp]]:
            nonlocal done
            for batch in todo:
                store.refresh()  # another program may have been here
                if all(store.has(keys[index]) for index in batch):
                    done += sum(len(sequences[index]) for index in batch)
                    continue
                waiting.append(batch)
                yield batch

        with progress(f"Embedding {missing:,} sequences (residues)") as tell:
            tell(0, total)
            for number, values in enumerate(encoder.pooled(sequences, weights, still_missing()), 1):
                batch = waiting.pop(0)
                store.write([keys[index] for index in batch], values)
                if number % MERGE_EVERY == 0:
                    store.merge()
                done += sum(len(sequences[index]) for index in batch)
                tell(done, total)

    def _weights(self, length: int, chosen: Chosen) -> NDArray[np.float32]:
        """Return (n_pools, length) the weights of the residues in each mean."""
        of_pool: dict[str, list[Chosen]] = {MEAN: [None], CDR: [chosen], BOTH: [None, chosen]}
        masks = of_pool[self.pool]
        return np.stack([mean_weights(length, mask) for mask in masks])


def _batches(encoder: Encoder, sequences: Sequence[str], found: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Return the batches to compute: of the plan for all sequences those with none found; the others' rest anew.

    They begin at a place that depends on the process, so that two that fill one store share the work.
    """
    planned = encoder.plan(sequences)
    whole = [batch for batch in planned if not found[batch].any()]
    rest = [index for batch in planned if found[batch].any() for index in batch.tolist() if not found[index]]
    if rest:
        left = np.array(sorted(rest), np.intp)
        whole += [left[batch] for batch in encoder.plan([sequences[index] for index in left])]
    turn = os.getpid() % len(whole)
    return whole[turn:] + whole[:turn]
