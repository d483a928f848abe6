"""The notebook's multilayer perceptron: Linear → BatchNorm → activation → dropout, repeated, then one output.

A sparse block of features enters as sums of learned vectors, beside the dense columns, and these may be spread over
several numbers each.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tailbind.models.contract import Rows
from tailbind.models.inlet import EmbeddingPerceptron, embeddings_in, inputs_in_words, prepare
from tailbind.models.network import Network
from tailbind.models.numeric import Numerical
from tailbind.options import bounded, one_of
from tailbind.table.features import Features

ACTIVATIONS: Final[Mapping[str, type[nn.Module]]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
INITIALIZATIONS: Final = ("default", "xavier_uniform")


@dataclass(frozen=True)
class Mlp(Numerical):
    """Options of a multilayer perceptron, beside those of `Numerical`.

    Attributes
    ----------
    hidden_dims : width of each hidden layer
    activation : relu, gelu or silu
    initialization : `default` (PyTorch's) or `xavier_uniform` with zero biases
    batch_norm : normalise each hidden layer before its activation
    dropout : share of hidden units left out while training
    members : how many networks, differing in their seed, are trained and averaged
    embedding_dim : width of the summed embeddings of a sparse block; of no effect without one
    sparse_alone : leave dense columns unread where there are sparse ones: sums and shares of what the sparse ones say
        site by site tell a network little that is new, and what strangers have in common with a landscape by chance
    """

    reads_residues: ClassVar[bool] = False
    rows_at_once: ClassVar[int] = 0

    hidden_dims: tuple[int, ...] = bounded((512, 256, 128, 64), low=1, high=65536)
    activation: str = one_of("gelu", ACTIVATIONS)
    initialization: str = one_of("xavier_uniform", INITIALIZATIONS)
    batch_norm: bool = True
    dropout: float = bounded(0.3, low=0, below=1)
    members: int = bounded(1, low=1, high=100)
    embedding_dim: int = bounded(64, low=1, high=4096)
    sparse_alone: bool = False

    def build(self, n_features: int, seed: int, n_sparse: int = 0) -> Network:
        """Return an untrained network for `n_features` dense columns and `n_sparse` sparse ones.

        Member m starts from `seed` + m. `Network.make_ready` comes next.
        """
        return Network.build(self, n_features, seed, n_sparse)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Network:
        """Return the network that `state` was taken from."""
        return Network.from_state(cls, state)

    def member(self, n_features: int, n_sparse: int, n_vector: int = 0) -> "Member":
        """Return one member of a network, initialised from the current random state."""
        n_dense = self._n_dense(n_features, n_sparse)
        width = self.embedding_dim if n_sparse else 0
        layers = perceptron(self, self.each * n_dense + width)
        spread = self.spread(n_dense) if n_dense else None
        if not n_sparse and spread is None:
            return layers
        return EmbeddingPerceptron(layers, n_sparse, self.embedding_dim, spread, reads_dense=n_dense == n_features)

    def _n_dense(self, n_features: int, n_sparse: int) -> int:
        """Return how many of the dense columns it reads."""
        return 0 if self.sparse_alone and n_sparse else n_features

    def output_bias(self, member: nn.Module) -> Tensor:
        """Return (1,) the bias of a member's last layer."""
        layers = layers_of(member)
        return layers.get_submodule(str(len(layers) - 1)).get_parameter("bias")

    def make_ready(self, member: nn.Module, X: Features, rows: Rows, silent: NDArray[np.bool_] | None) -> None:
        """Fit a member's start to its training rows."""
        weight = layers_of(member).get_submodule("0").get_parameter("weight")
        prepare(member, weight, X, rows, silent if self._n_dense(1, X.n_sparse) else None)

    def shape(self, n_features: int, n_sparse: int, n_vector: int) -> str:
        """Return a member's layers in words."""
        inputs = inputs_in_words(self._n_dense(n_features, n_sparse), n_sparse, self.embedding_dim, self.each)
        return " → ".join([inputs, *(str(size) for size in (*self.hidden_dims, 1))])

    def part_counts(self, member: nn.Module) -> list[tuple[int, str]]:
        """Return the parameters in the embeddings of sparse columns, where there are any."""
        return embeddings_in(member)


def perceptron(options: Mlp, n_features: int) -> nn.Sequential:
    """Return one perceptron, (n, n_features) → (n, 1), initialised from the current random state."""
    sizes = (n_features, *options.hidden_dims)
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers.append(nn.Linear(fan_in, fan_out))
        if options.batch_norm:
            layers.append(nn.BatchNorm1d(fan_out))
        layers.append(ACTIVATIONS[options.activation]())
        if options.dropout:
            layers.append(nn.Dropout(options.dropout))
    network = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))
    if options.initialization == "xavier_uniform":
        for layer in network:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
    return network


Member: TypeAlias = nn.Sequential | EmbeddingPerceptron


def layers_of(member: nn.Module) -> nn.Sequential:
    """Return the perceptron of a member, with or without embeddings."""
    layers = member.layers if isinstance(member, EmbeddingPerceptron) else member
    assert isinstance(layers, nn.Sequential)
    return layers
