"""The features of a table's rows: what the feature blocks hand to the models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True)
class Features:
    """The features of rows: a dense block, and a sparse one where a feature block makes it.

    Attributes
    ----------
    dense : (n_samples, n_dense) float32; nan throughout a row that has nothing to compute features from
    names : of the dense columns, for messages and explanations
    sparse : (n_samples, n_sparse) float32 in CSR form; None where no block makes a sparse column
    sparse_names : of the sparse columns
    unseen : (n_samples,) what of each row training never saw, in words ("heavy H52 W"), "" where nothing;
        None where no block looks for it
    """

    dense: NDArray[np.float32]
    names: tuple[str, ...]
    sparse: "csr_array | None" = None
    sparse_names: tuple[str, ...] = ()
    unseen: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.dense)

    @property
    def n_sparse(self) -> int:
        """Columns of the sparse block; 0 where there is none."""
        return len(self.sparse_names)

    @property
    def complete(self) -> NDArray[np.bool_]:
        """(n_samples,) whether a row has all its features."""
        finite: NDArray[np.bool_] = np.all(np.isfinite(self.dense), axis=1)
        return finite

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
        )


def side_by_side(parts: Sequence[Features]) -> Features:
    """Return the columns of several features of the same rows as one.

    >>> one = Features(np.ones((2, 1), np.float32), ("a",))
    >>> side_by_side([one, Features(np.zeros((2, 1), np.float32), ("b",))]).names
    ('a', 'b')
    """
    if len(parts) == 1:
        return parts[0]
    from scipy.sparse import csr_array, hstack

    sparse = [part.sparse for part in parts if part.sparse is not None]
    told = [part.unseen for part in parts if part.unseen is not None]
    return Features(
        np.hstack([part.dense for part in parts]),
        tuple(name for part in parts for name in part.names),
        csr_array(hstack(sparse, format="csr", dtype=np.float32)) if sparse else None,
        tuple(name for part in parts for name in part.sparse_names),
        np.array(["; ".join(filter(None, words)) for words in zip(*told, strict=True)]) if told else None,
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
    )
