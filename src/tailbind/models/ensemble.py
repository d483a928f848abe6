"""An ensemble for little more than the price of one network: shared layers, and per member a scaling and an output.

Each member sees the shared layers through numbers of its own that multiply what goes into them. All are trained at
once, each on its own error, and their mean is the prediction (TabM: Gorishniy et al. 2024, arXiv 2410.24210;
BatchEnsemble: Wen et al. 2020, arXiv 2002.06715).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tailbind.errors import RecipeError
from tailbind.models.contract import Rows
from tailbind.models.inlet import EmbeddingPerceptron, embeddings_in, inputs_in_words, prepare
from tailbind.models.mlp import ACTIVATIONS
from tailbind.models.network import Network
from tailbind.models.numeric import Numerical
from tailbind.options import bounded, one_of
from tailbind.table.features import Features

INPUT, LAYERS = "input", "layers"
ADAPTERS: Final = (INPUT, LAYERS)
SIGNS, NORMAL = "signs", "normal"
STARTS: Final = (SIGNS, NORMAL)


@dataclass(frozen=True)
class EnsembleMlp(Numerical):
    """Options of an efficient ensemble of perceptrons, beside those of `Numerical`.

    Attributes
    ----------
    heads : members that share their layers: each gives an output of its own
    adapters : where members differ beside their outputs: `input` scales what goes into the shared layers (TabM-mini);
        `layers` scales the inputs and outputs of every layer, and has biases, too (TabM)
    adapter_start : how the first scaling begins: random `signs` or `normal` numbers
    stem_dim : width of a first layer that has no adapters and is computed once for all members, so that wide inputs
        cost no more than in one network; 0 for none, as in the paper
    hidden_dims : width of each layer after it
    activation : relu, gelu or silu
    layer_norm : normalise each layer's outputs over its units, before the activation
    residual : add a layer's input to its output where both have one width
    dropout : share of hidden units left out while training
    members : how many such ensembles, differing in their seed, are trained and averaged
    embedding_dim : width of the summed embeddings of a sparse block; of no effect without one
    """

    reads_residues: ClassVar[bool] = False
    rows_at_once: ClassVar[int] = 4096

    heads: int = bounded(8, low=1, high=1024)
    adapters: str = one_of(INPUT, ADAPTERS)
    adapter_start: str = one_of(SIGNS, STARTS)
    stem_dim: int = bounded(256, low=0, high=65536)
    hidden_dims: tuple[int, ...] = bounded((256, 256), low=1, high=65536)
    activation: str = one_of("silu", ACTIVATIONS)
    layer_norm: bool = False
    residual: bool = False
    dropout: float = bounded(0.1, low=0, below=1)
    members: int = bounded(1, low=1, high=100)
    embedding_dim: int = bounded(64, low=1, high=4096)

    def __post_init__(self) -> None:
        if not self.hidden_dims:
            raise RecipeError("model.hidden_dims must name the width of one layer or more; got []. Write [256].")

    def build(self, n_features: int, seed: int, n_sparse: int = 0) -> Network:
        """Return an untrained network for `n_features` dense columns and `n_sparse` sparse ones.

        Examples
        --------
        >>> network = EnsembleMlp(heads=4, stem_dim=0, hidden_dims=(8,)).build(3, seed=0)
        >>> network.predict_members(np.ones((2, 3), np.float32)).shape
        (2, 4)
        """
        return Network.build(self, n_features, seed, n_sparse)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Network:
        """Return the network that `state` was taken from."""
        return Network.from_state(cls, state)

    def member(self, n_features: int, n_sparse: int, n_vector: int = 0) -> EmbeddingPerceptron:
        """Return an ensemble, (n, …) → (n, heads), initialised from the current random state."""
        n_inputs = self.each * n_features + (self.embedding_dim if n_sparse else 0)
        layers = SharedLayers(self, n_inputs)
        return EmbeddingPerceptron(layers, n_sparse, self.embedding_dim, self.spread(n_features))

    def output_bias(self, member: nn.Module) -> Tensor:
        """Return (heads,) the biases of the outputs."""
        return _layers(member).outputs.bias

    def make_ready(self, member: nn.Module, X: Features, rows: Rows, silent: NDArray[np.bool_] | None) -> None:
        """Fit a member's start to its training rows."""
        prepare(member, _layers(member).first.weight, X, rows, silent)

    def shape(self, n_features: int, n_sparse: int, n_vector: int) -> str:
        """Return the layers in words: those that are computed once, then those of each member."""
        inputs = inputs_in_words(n_features, n_sparse, self.embedding_dim, self.each)
        sizes = " → ".join(str(size) for size in (*self.hidden_dims, 1))
        stem = f" → {self.stem_dim}" if self.stem_dim else ""
        return f"{inputs}{stem} → {self.heads} × ({sizes})"

    def part_counts(self, member: nn.Module) -> list[tuple[int, str]]:
        """Return the parameters in the embeddings of sparse columns, where there are any."""
        return embeddings_in(member)


class SharedLayers(nn.Module):
    """The layers that the members share, and what is each one's own: (n, n_inputs) → (n, heads).

    Parameters
    ----------
    options : what they are
    n_inputs : numbers that they read
    """

    def __init__(self, options: EnsembleMlp, n_inputs: int) -> None:
        super().__init__()
        width = options.stem_dim or n_inputs
        self.stem = Layer(options, n_inputs, width) if options.stem_dim else None
        start = torch.randn(options.heads, width)
        start = start if options.adapter_start == NORMAL else start.sign()
        own = options.adapters == LAYERS
        layers = [Layer(options, width, options.hidden_dims[0], scaling=start, own=own)]
        for fan_in, fan_out in pairwise(options.hidden_dims):
            scaling = torch.ones(options.heads, fan_in) if own else None
            layers.append(Layer(options, fan_in, fan_out, scaling=scaling, own=own))
        self.layers = nn.ModuleList(layers)
        self.outputs = Outputs(options.heads, options.hidden_dims[-1])

    @property
    def first(self) -> nn.Linear:
        """The layer that reads the inputs."""
        layer = self.stem if self.stem is not None else self.layers[0]
        assert isinstance(layer, Layer)
        return layer.linear

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (n, heads)."""
        shared = inputs if self.stem is None else self.stem(inputs)
        hidden = shared.unsqueeze(1)
        for layer in self.layers:
            hidden = layer(hidden)
        output: Tensor = self.outputs(hidden)
        return output


class Layer(nn.Module):
    """One layer: linear, normalised where asked for, activation, dropout, and the input added where asked for.

    Parameters
    ----------
    options : what it is
    fan_in, fan_out : widths
    scaling : (heads, fan_in) how each member begins to scale the inputs; None for a layer where none does
    own : whether each member scales the outputs and has a bias, too: l(x) = s ∘ W(r ∘ x) + b (Wen et al. 2020,
        equation 5); s begins at 1, and b the same for all
    """

    def __init__(
        self, options: EnsembleMlp, fan_in: int, fan_out: int, *, scaling: Tensor | None = None, own: bool = False
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(fan_in, fan_out, bias=not own)
        self.before = None if scaling is None else nn.Parameter(scaling)
        self.own = own
        if own:
            bound = fan_in**-0.5
            self.after = nn.Parameter(torch.ones(options.heads, fan_out))
            self.bias = nn.Parameter(torch.empty(fan_out).uniform_(-bound, bound).repeat(options.heads, 1))
        self.norm = nn.LayerNorm(fan_out) if options.layer_norm else None
        self.activation = ACTIVATIONS[options.activation]()
        self.dropout = nn.Dropout(options.dropout)
        self.adds_input = options.residual and fan_in == fan_out

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (n, heads, fan_out), or (n, fan_out) where members have not parted yet."""
        hidden = self.linear(inputs if self.before is None else inputs * self.before)
        if self.own:
            hidden = hidden * self.after + self.bias
        if self.norm is not None:
            hidden = self.norm(hidden)
        hidden = self.dropout(self.activation(hidden))
        output: Tensor = inputs + hidden if self.adds_input else hidden
        return output


class Outputs(nn.Module):
    """One output for each member, of weights of its own: (n, heads, width) → (n, heads)."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(heads, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(heads).uniform_(-bound, bound))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (n, heads)."""
        return (hidden * self.weight).sum(dim=2) + self.bias


def _layers(member: nn.Module) -> SharedLayers:
    assert isinstance(member, EmbeddingPerceptron) and isinstance(member.layers, SharedLayers)
    return member.layers
