"""Features as tensors: what a network reads, a batch of rows at a time, without a loop over rows."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from tailbind.models.contract import Inputs, as_features


@dataclass(frozen=True)
class InputTensors:
    """Rows of features on one device: a dense block and, where there is one, a sparse block in CSR form.

    Attributes
    ----------
    dense : (n_samples, n_dense) float32
    indices, values : (n_nonzero,) column and value of each nonzero, row after row; None without a sparse block
    offsets : (n_samples + 1,) where each row's nonzeros begin
    """

    dense: Tensor
    indices: Tensor | None = None
    offsets: Tensor | None = None
    values: Tensor | None = None

    def __len__(self) -> int:
        return len(self.dense)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.dense.device

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """What a network is called with: the dense block, then the sparse one's indices, offsets and values."""
        if self.indices is None or self.offsets is None or self.values is None:
            return (self.dense,)
        return self.dense, self.indices, self.offsets, self.values

    def to(self, device: torch.device) -> Self:
        """Return the same on a device."""
        return type(self)(*(tensor.to(device) for tensor in self.arguments))

    def take(self, rows: Tensor | slice) -> Self:
        """Return `rows`, in their order.

        >>> X = InputTensors(torch.zeros(3, 0), torch.tensor([4, 5, 6]), torch.tensor([0, 2, 2, 3]), torch.ones(3))
        >>> X.take(torch.tensor([2, 0])).indices.tolist(), X.take(torch.tensor([2, 0])).offsets.tolist()
        ([6, 4, 5], [0, 1, 3])
        """
        if self.indices is None or self.offsets is None or self.values is None:
            return type(self)(self.dense[rows])
        starts, ends = self.offsets[:-1][rows], self.offsets[1:][rows]
        lengths = ends - starts
        offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=self.device)
        torch.cumsum(lengths, 0, out=offsets[1:])
        where = torch.repeat_interleave(starts - offsets[:-1], lengths)
        where += torch.arange(len(where), device=self.device)
        return type(self)(self.dense[rows], self.indices[where], offsets, self.values[where])


def as_tensors(X: Inputs) -> InputTensors:
    """Return features as tensors on the CPU; the dense block without a copy."""
    features = as_features(X)
    dense = torch.from_numpy(features.dense)
    if features.sparse is None:
        return InputTensors(dense)
    sparse = features.sparse
    return InputTensors(
        dense,
        torch.from_numpy(sparse.indices.astype(np.int64)),
        torch.from_numpy(sparse.indptr.astype(np.int64)),
        torch.from_numpy(np.ascontiguousarray(sparse.data, np.float32)),
    )
