"""What a network begins with: dense columns, as they are or spread, beside the sum of a sparse block's vectors."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tailbind.models.contract import Rows
from tailbind.models.numeric import Spread
from tailbind.table.features import Features


class EmbeddingPerceptron(nn.Module):
    """Layers that read the dense columns, as they are or spread, beside the summed embeddings of a sparse block.

    Each sparse column has a learned vector. A row's nonzeros are multiplied with theirs and summed.

    Parameters
    ----------
    layers : (n, n_inputs) → (n, n_outputs)
    n_sparse, width : how many vectors, and their width; none without sparse columns
    spread : what spreads the dense columns; None to read them as they are
    reads_dense : whether it reads them at all
    """

    def __init__(
        self, layers: nn.Module, n_sparse: int, width: int, spread: Spread | None = None, *, reads_dense: bool = True
    ) -> None:
        super().__init__()
        self.layers = layers
        bag = nn.EmbeddingBag(n_sparse, width, mode="sum", include_last_offset=True) if n_sparse else None
        self.embedding = bag
        self.spread = spread
        self.reads_dense = reads_dense

    def forward(self, dense: Tensor, *sparse: Tensor) -> Tensor:
        """Return (n, n_outputs) for a dense block and, where there is one, a sparse one, as `InputTensors` has them."""
        output: Tensor = self.layers(self.read(dense, *sparse))
        return output

    def read(self, dense: Tensor, *sparse: Tensor) -> Tensor:
        """Return (n, n_inputs) what the layers read."""
        dense = dense if self.reads_dense else dense[:, :0]
        read = dense if self.spread is None else self.spread(dense)
        if sparse and self.embedding is not None:
            indices, offsets, values = sparse
            read = torch.cat([read, self.embedding(indices, offsets, per_sample_weights=values)], dim=1)
        return read

    def own_parameters(self) -> list[nn.Parameter]:
        """Return what is learned before the layers."""
        inlets = (inlet for inlet in (self.embedding, self.spread) if inlet is not None)
        return [parameter for inlet in inlets for parameter in inlet.parameters()]


def prepare(member: nn.Module, weight: Tensor, X: Features, rows: Rows, silent: NDArray[np.bool_] | None) -> None:
    """Fit the beginning of a network to its training rows, as `Network.make_ready` says.

    Parameters
    ----------
    member : an `EmbeddingPerceptron`, or layers that read dense columns alone
    weight : (n_outputs, n_inputs) of its first layer
    X, rows : the features, and which of their rows are for training
    silent : (n_dense,) the columns that it must not see
    """
    spread, bag = None, None
    if isinstance(member, EmbeddingPerceptron):
        spread, bag = member.spread, member.embedding
    if spread is not None:
        spread.fit(X, rows)
    if silent is not None:
        silence(weight, silent, spread)
    if bag is not None:
        fit_embedding(bag.weight, X, rows)


def embeddings_in(member: nn.Module) -> list[tuple[int, str]]:
    """Return how many parameters are in the embeddings of sparse columns, and a name for them; [] without any."""
    bag = member.embedding if isinstance(member, EmbeddingPerceptron) else None
    return [] if bag is None else [(bag.weight.numel(), "embeddings")]


def silence(weight: Tensor, silent: NDArray[np.bool_], spread: Spread | None) -> None:
    """Have a layer not see dense columns, by its weights or by what spreads them.

    >>> weight = torch.ones(1, 3)
    >>> silence(weight, np.array([False, True]), None)
    >>> weight.tolist()
    [[1.0, 0.0, 1.0]]
    """
    columns = torch.from_numpy(silent).to(weight.device)
    if spread is None:
        weight[:, columns.nonzero().squeeze(1)] = 0.0
    else:
        spread.silence(columns)


def fit_embedding(weight: Tensor, X: Features, rows: Rows) -> None:
    """Scale the vectors of sparse columns to a sum of unit mean square, and silence what no training row has.

    Parameters
    ----------
    weight : (n_sparse, width), changed in place
    X, rows : the features, which have a sparse block, and which of their rows are for training
    """
    assert X.sparse is not None
    chosen = X.sparse[rows]
    absent = torch.from_numpy(np.bincount(chosen.indices, weights=chosen.data != 0, minlength=X.n_sparse) == 0)
    mean_square = float(np.square(chosen.data, dtype=np.float64).sum()) / max(1, len(rows))
    weight.mul_(1 / math.sqrt(mean_square) if mean_square else 0.0)
    weight[absent.to(weight.device)] = 0.0


def inputs_in_words(n_features: int, n_sparse: int, width: int, each: int) -> str:
    """Return what a first layer reads.

    Parameters
    ----------
    n_features, n_sparse : columns
    width : of a sparse column's vector
    each : numbers that a dense column becomes

    Examples
    --------

    >>> inputs_in_words(150, 0, 64, each=1), inputs_in_words(150, 7000, 64, each=8)
    ('150', '150 dense as 8 each + 64 summed embeddings of 7,000 sparse columns')
    """
    wide = f" as {each:,} each" if each > 1 else ""
    if n_sparse and not n_features:
        return f"{width} summed embeddings of {n_sparse:,} sparse columns"
    if n_sparse:
        return f"{n_features:,} dense{wide} + {width} summed embeddings of {n_sparse:,} sparse columns"
    return f"{n_features}{wide}"
