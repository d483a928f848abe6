"""Features as tensors: what a network reads, a batch of rows at a time, without a loop over rows."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from tailbind.models.contract import Inputs, as_features
from tailbind.table.blocks import Blocks, on_disk
from tailbind.table.features import ChainResidues


@dataclass(frozen=True)
class ResidueTensors:
    """The residues of rows' chains on one device, each distinct sequence once.

    Attributes
    ----------
    codes, places : (n_residues,) uint8 and int16, letters and places of all sequences, one after the other
    starts : (n_sequences + 1,) where each sequence begins in them
    index : (n_samples, 3) the sequence of each row's heavy and light chain and antigen; −1 where there is none
    vectors : (n_residues, n_vector) float16
    """

    codes: Tensor
    places: Tensor
    starts: Tensor
    index: Tensor
    vectors: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: Tensor | slice) -> Self:
        """Return the residues of `rows`, in their order; the sequences stay as they are."""
        return replace(self, index=self.index[rows])

    def to(self, device: torch.device) -> Self:
        """Return the same on a device; only the sequences that rows have go there."""
        if self.codes.device.type == device.type:
            return self
        used, index = torch.unique(self.index[self.index >= 0], return_inverse=True)
        where, starts = stretches(self.starts, used)
        mapped = self.index.clone()
        mapped[mapped >= 0] = index
        moved = (self.codes[where], self.places[where], starts, mapped, self.vectors[where])
        return type(self)(*(tensor.to(device) for tensor in moved))

    def lengths(self) -> Tensor:
        """Return (n_samples, 3) how long each row's chains are; 0 where there is none.

        >>> of = torch.arange(5), torch.zeros(5), torch.tensor([0, 3, 5]), torch.tensor([[1, -1, 0]])
        >>> ResidueTensors(*of, torch.zeros(5, 0)).lengths().tolist()
        [[2, 0, 3]]
        """
        lengths = torch.cat([self.starts.diff(), torch.zeros(1, dtype=self.starts.dtype, device=self.starts.device)])
        return lengths[self.index]


@dataclass(frozen=True)
class InputTensors:
    """Rows of features on one device: a dense block and, where there are any, a sparse one in CSR form and residues.

    Attributes
    ----------
    dense : (n_samples, n_dense) float32; `Blocks` where they stay on disk
    indices, values : (n_nonzero,) column and value of each nonzero, row after row; None without a sparse block
    offsets : (n_samples + 1,) where each row's nonzeros begin
    residues : of the rows' chains; None where no block gives them
    """

    dense: Tensor | Blocks
    indices: Tensor | None = None
    offsets: Tensor | None = None
    values: Tensor | None = None
    residues: ResidueTensors | None = None

    def __len__(self) -> int:
        return len(self.dense)

    @property
    def device(self) -> torch.device:
        """Where they are; what is on disk is the CPU's."""
        return torch.device("cpu") if isinstance(self.dense, Blocks) else self.dense.device

    @property
    def arguments(self) -> tuple[Tensor | ResidueTensors, ...]:
        """What a network is called with: residues, the dense block, the sparse one's indices, offsets and values."""
        sparse = () if self.sparse is None else self.sparse
        assert isinstance(self.dense, Tensor), "what is on disk is taken some rows at a time"
        return (*(() if self.residues is None else (self.residues,)), self.dense, *sparse)

    @property
    def sparse(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """The sparse block's indices, offsets and values; None without one."""
        if self.indices is None or self.offsets is None or self.values is None:
            return None
        return self.indices, self.offsets, self.values

    def to(self, device: torch.device) -> Self:
        """Return the same on a device; what is on disk stays there, whole."""
        if isinstance(self.dense, Blocks):
            return self
        residues = None if self.residues is None else self.residues.to(device)
        if self.sparse is None:
            return type(self)(self.dense.to(device), residues=residues)
        indices, offsets, values = (tensor.to(device) for tensor in self.sparse)
        return type(self)(self.dense.to(device), indices, offsets, values, residues)

    def near(self, rows: Tensor) -> tuple[Self, Tensor]:
        """Return features in memory that have `rows`, and their row numbers there: of those on disk these alone.

        >>> X = InputTensors(torch.zeros(3, 0))
        >>> X.near(torch.tensor([[2, 0]]))[1].tolist()
        [[2, 0]]
        """
        if not isinstance(self.dense, Blocks):
            return self, rows
        distinct, local = torch.unique(rows, return_inverse=True)
        return self.take(distinct), local

    def take(self, rows: Tensor | slice) -> Self:
        """Return `rows`, in their order.

        >>> X = InputTensors(torch.zeros(3, 0), torch.tensor([4, 5, 6]), torch.tensor([0, 2, 2, 3]), torch.ones(3))
        >>> X.take(torch.tensor([2, 0])).indices.tolist(), X.take(torch.tensor([2, 0])).offsets.tolist()
        ([6, 4, 5], [0, 1, 3])
        """
        residues = None if self.residues is None else self.residues.take(rows)
        if isinstance(self.dense, Blocks):
            dense = torch.from_numpy(self.dense[rows if isinstance(rows, slice) else rows.numpy()])
        else:  # of many rows, three times as fast as an index
            dense = self.dense[rows] if isinstance(rows, slice) else self.dense.index_select(0, rows)
        if self.sparse is None:
            return type(self)(dense, residues=residues)
        indices, offsets, values = self.sparse
        where, own = stretches(offsets, rows)
        return type(self)(dense, indices[where], own, values[where], residues)


def stretches(offsets: Tensor, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
    """Return where the elements of `rows` are, row after row, and the offsets of what they then are.

    Parameters
    ----------
    offsets : (n + 1,) where each row's elements begin

    Returns
    -------
    where : (n_elements,) positions of the elements
    offsets : (n_rows + 1,) where each of `rows` begins in them

    Examples
    --------
    >>> where, offsets = stretches(torch.tensor([0, 2, 2, 5]), torch.tensor([2, 0]))
    >>> where.tolist(), offsets.tolist()
    ([2, 3, 4, 0, 1], [0, 3, 5])
    """
    starts, ends = offsets[:-1][rows], offsets[1:][rows]
    lengths = ends - starts
    own = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=offsets.device)
    torch.cumsum(lengths, 0, out=own[1:])
    where = torch.repeat_interleave(starts - own[:-1], lengths)
    where += torch.arange(len(where), device=offsets.device)
    return where, own


def as_tensors(X: Inputs) -> InputTensors:
    """Return features as tensors on the CPU; the dense block without a copy."""
    features = as_features(X)
    kept = on_disk(features.dense)
    dense = torch.from_numpy(features.dense) if kept is None else kept
    residues = None if features.residues is None else _residues(features.residues)
    if features.sparse is None:
        return InputTensors(dense, residues=residues)
    sparse = features.sparse
    return InputTensors(
        dense,
        torch.from_numpy(sparse.indices.astype(np.int64)),
        torch.from_numpy(sparse.indptr.astype(np.int64)),
        torch.from_numpy(np.ascontiguousarray(sparse.data, np.float32)),
        residues,
    )


def _residues(residues: ChainResidues) -> ResidueTensors:
    return ResidueTensors(
        torch.from_numpy(residues.codes.astype(np.uint8)),
        torch.from_numpy(residues.places.astype(np.int16)),
        torch.from_numpy(residues.starts.astype(np.int64)),
        torch.from_numpy(residues.index.astype(np.int64)),
        torch.from_numpy(residues.vectors.astype(np.float16)),
    )
