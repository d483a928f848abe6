"""The features of a table's rows: what the feature blocks hand to the models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import FeatureError
from tailbind.table.blocks import on_disk

if TYPE_CHECKING:
    from scipy.sparse import csr_array


#: Rows looked at at a time.
_STRETCH: Final = 65_536
#: The last number of a place in a variable domain by IMGT.
LAST_PLACE: Final = 129
#: Places that residues may have: none, those of a heavy chain's domain, those of a light chain's.
N_PLACES: Final = 1 + 2 * LAST_PLACE


@dataclass(frozen=True)
class ChainResidues:
    """The residues of rows' chains, each distinct sequence held once.

    Attributes
    ----------
    codes : (n_residues,) ASCII letters of all sequences, one after the other
    places : (n_residues,) IMGT number of each residue's place in the variable domain of a heavy chain, `LAST_PLACE`
        more in that of a light chain; 0 in neither
    starts : (n_sequences + 1,) where each sequence begins in them
    index : (n_samples, 3) the sequence of each row's heavy and light chain and antigen; −1 where there is none
    vectors : (n_residues, n_vector) float16, what an encoder says of each residue; (n_residues, 0) without one
    """

    codes: NDArray[np.uint8]
    places: NDArray[np.int16]
    starts: NDArray[np.int64]
    index: NDArray[np.int64]
    vectors: NDArray[np.float16]

    @property
    def n_vector(self) -> int:
        """Numbers of a residue beside its letter."""
        return int(self.vectors.shape[1])

    def take(self, rows: NDArray[np.intp] | slice) -> "ChainResidues":
        """Return the residues of `rows`, in their order; the sequences stay as they are."""
        return replace(self, index=self.index[rows])


@dataclass(frozen=True)
class Features:
    """The features of rows: a dense block, and a sparse one where a feature block makes it.

    Attributes
    ----------
    dense : (n_samples, n_dense) float32; nan throughout a row that has nothing to compute features from. Where
        the table's own columns are too large for memory, `Blocks` of them, which are an array as far as networks and
        what is done with rows go; `in_memory` for everything else
    names : of the dense columns, for messages and explanations
    sparse : (n_samples, n_sparse) float32 in CSR form; None where no block makes a sparse column
    sparse_names : of the sparse columns
    unseen : (n_samples,) what of each row training never saw, in words ("heavy H52 W"), "" where nothing;
        None where no block looks for it
    residues : of the rows' chains, for models that read them one by one; None where no block gives them
    """

    dense: NDArray[np.float32]
    names: tuple[str, ...]
    sparse: "csr_array | None" = None
    sparse_names: tuple[str, ...] = ()
    unseen: NDArray[np.str_] | None = None
    residues: ChainResidues | None = None

    def __len__(self) -> int:
        return len(self.dense)

    @property
    def n_sparse(self) -> int:
        """Columns of the sparse block; 0 where there is none."""
        return len(self.sparse_names)

    @property
    def complete(self) -> NDArray[np.bool_]:
        """(n_samples,) whether a row has all its features."""
        finite = np.empty(len(self), np.bool_)
        for start in range(0, len(self), _STRETCH):
            rows = slice(start, start + _STRETCH)
            np.all(np.isfinite(self.dense[rows]), axis=1, out=finite[rows])
        return finite

    def in_memory(self) -> "Features":
        """Return the same with an array for a dense block that was left on disk."""
        return self if on_disk(self.dense) is None else replace(self, dense=self.dense[:])

    def take(self, rows: NDArray[np.intp] | slice) -> "Features":
        """Return the features of `rows`, in their order.

        >>> Features(np.eye(3, dtype=np.float32), ("a", "b", "c")).take(np.array([2, 0])).dense.tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
        """
        return Features(
            self.dense[rows],
            self.names,
            None if self.sparse is None else self.sparse[rows],
            self.sparse_names,
            None if self.unseen is None else self.unseen[rows],
            None if self.residues is None else self.residues.take(rows),
        )

    def columns(self, dense: NDArray[np.intp], sparse: NDArray[np.intp], *, residues: bool = False) -> "Features":
        """Return some of the columns, by number, with the residues or without.

        >>> Features(np.eye(3, dtype=np.float32), ("a", "b", "c")).columns(np.array([2]), np.array([], int)).names
        ('c',)
        """
        return Features(
            self.dense[:, dense],
            tuple(self.names[column] for column in dense),
            self.sparse[:, sparse] if self.sparse is not None and len(sparse) else None,
            tuple(self.sparse_names[column] for column in sparse),
            self.unseen,
            self.residues if residues else None,
        )


def side_by_side(parts: Sequence[Features]) -> Features:
    """Return the columns of several features of the same rows as one.

    Raises
    ------
    FeatureError
        When more than one of them has residues.

    Examples
    --------
    >>> one = Features(np.ones((2, 1), np.float32), ("a",))
    >>> side_by_side([one, Features(np.zeros((2, 1), np.float32), ("b",))]).names
    ('a', 'b')
    """
    if len(parts) == 1:
        return parts[0]
    from scipy.sparse import csr_array, hstack

    sparse = [part.sparse for part in parts if part.sparse is not None]
    told = [part.unseen for part in parts if part.unseen is not None]
    residues = [part.residues for part in parts if part.residues is not None]
    if len(residues) > 1:
        raise FeatureError(
            f"One feature block at most must give residues; {len(residues)} do. Leave the others out, as in "
            "--set features.residues=false."
        )
    return Features(
        np.hstack([part.in_memory().dense for part in parts]),
        tuple(name for part in parts for name in part.names),
        csr_array(hstack(sparse, format="csr", dtype=np.float32)) if sparse else None,
        tuple(name for part in parts for name in part.sparse_names),
        np.array(["; ".join(filter(None, words)) for words in zip(*told, strict=True)]) if told else None,
        residues[0] if residues else None,
    )


def stacked(dense: NDArray[np.float32], parts: Sequence[Features]) -> Features:
    """Return features of consecutive rows as one, whose dense block is there already.

    Parameters
    ----------
    dense : (n_samples, n_dense) of all rows
    parts : the features of consecutive stretches of them
    """
    from scipy.sparse import csr_array, vstack

    sparse = [part.sparse for part in parts if part.sparse is not None]
    told = [part.unseen for part in parts if part.unseen is not None]
    return Features(
        dense,
        parts[0].names,
        csr_array(vstack(sparse, format="csr", dtype=np.float32)) if sparse else None,
        parts[0].sparse_names,
        np.concatenate(told) if told else None,
        _stacked_residues([part.residues for part in parts if part.residues is not None]),
    )


def _stacked_residues(parts: Sequence[ChainResidues]) -> ChainResidues | None:
    """Return residues of consecutive rows as one; a sequence that several parts have is there several times."""
    if not parts:
        return None
    n_residues = np.cumsum([0, *(len(part.codes) for part in parts)])
    n_sequences = np.cumsum([0, *(len(part.starts) - 1 for part in parts)])
    return ChainResidues(
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.places for part in parts]),
        np.concatenate(
            [[0], *(part.starts[1:] + before for part, before in zip(parts, n_residues[:-1], strict=True))]
        ).astype(np.int64),
        np.concatenate(
            [
                np.where(part.index < 0, part.index, part.index + before)
                for part, before in zip(parts, n_sequences[:-1], strict=True)
            ]
        ),
        np.concatenate([part.vectors for part in parts]),
    )
