"""The notebook's multilayer perceptron: Linear → BatchNorm → activation → dropout, repeated, then one output.

A sparse block of features enters as sums of learned vectors, beside the dense columns. `Mlp` is the options;
`Network` is one or several such perceptrons whose mean is the prediction.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tailbind.models.contract import CHUNK, FloatArray, Inputs, Rows, as_features, chunks
from tailbind.models.tensors import InputTensors, as_tensors
from tailbind.options import bounded, one_of
from tailbind.table.features import Features

ACTIVATIONS: Final[Mapping[str, type[nn.Module]]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
INITIALIZATIONS: Final = ("default", "xavier_uniform")


@dataclass(frozen=True)
class Mlp:
    """Options of a multilayer perceptron.

    Attributes
    ----------
    hidden_dims : width of each hidden layer
    activation : relu, gelu or silu
    initialization : `default` (PyTorch's) or `xavier_uniform` with zero biases
    batch_norm : normalise each hidden layer before its activation
    dropout : share of hidden units left out while training
    members : how many networks, differing in their seed, are trained and averaged
    embedding_dim : width of the summed embeddings of a sparse block; of no effect without one
    """

    hidden_dims: tuple[int, ...] = bounded((512, 256, 128, 64), low=1, high=65536)
    activation: str = one_of("gelu", ACTIVATIONS)
    initialization: str = one_of("xavier_uniform", INITIALIZATIONS)
    batch_norm: bool = True
    dropout: float = bounded(0.3, low=0, below=1)
    members: int = bounded(1, low=1, high=100)
    embedding_dim: int = bounded(64, low=1, high=4096)

    def build(self, n_features: int, seed: int, n_sparse: int = 0) -> "Network":
        """Return an untrained network for `n_features` dense columns and `n_sparse` sparse ones.

        Member m starts from `seed` + m. Where there are sparse columns, `Network.make_ready` comes next.
        """
        with torch.random.fork_rng(devices=[]):
            members = []
            for member in range(self.members):
                torch.manual_seed(seed + member)
                members.append(member_of(self, n_features, n_sparse))
        return Network(self, n_features, members, n_sparse)

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> "Network":
        """Return the network that `state` was taken from."""
        return Network.from_state(state)


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


class EmbeddingPerceptron(nn.Module):
    """A perceptron that reads the dense columns beside the summed embeddings of a sparse block.

    Each sparse column has a learned vector. A row's nonzeros are multiplied with theirs and summed.

    Parameters
    ----------
    layers : (n, n_dense + width) → (n, 1)
    n_sparse, width : how many vectors, and their width
    """

    def __init__(self, layers: nn.Sequential, n_sparse: int, width: int) -> None:
        super().__init__()
        self.layers = layers
        self.embedding = nn.EmbeddingBag(n_sparse, width, mode="sum", include_last_offset=True)

    def forward(self, dense: Tensor, indices: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
        """Return (n, 1) outputs for a dense block and a sparse one, as `InputTensors` has them."""
        summed = self.embedding(indices, offsets, per_sample_weights=values)
        output: Tensor = self.layers(torch.cat([dense, summed], dim=1))
        return output


Member: TypeAlias = nn.Sequential | EmbeddingPerceptron


def member_of(options: Mlp, n_features: int, n_sparse: int) -> Member:
    """Return one member of a network, initialised from the current random state."""
    if not n_sparse:
        return perceptron(options, n_features)
    return EmbeddingPerceptron(perceptron(options, n_features + options.embedding_dim), n_sparse, options.embedding_dim)


def layers_of(member: Member) -> nn.Sequential:
    """Return the perceptron of a member, with or without embeddings."""
    return member.layers if isinstance(member, EmbeddingPerceptron) else member


class Network:
    """Perceptrons that read the same features; their mean is the prediction.

    Parameters
    ----------
    options : what they are
    n_features : dense columns that each reads
    members : one module per member, (n, n_features) → (n, 1)
    n_sparse : sparse columns that each reads
    """

    def __init__(self, options: Mlp, n_features: int, members: Sequence[Member], n_sparse: int = 0) -> None:
        self.options = options
        self.n_features = n_features
        self.members = list(members)
        self.n_sparse = n_sparse

    def to(self, device: torch.device) -> Self:
        """Move every member to a device."""
        for member in self.members:
            member.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the members are."""
        return next(self.members[0].parameters()).device

    def start_at(self, pkd: float) -> None:
        """Add `pkd` to every member's output, by the bias of its last layer.

        >>> network = Mlp((8,)).build(3, seed=0)
        >>> before = network.predict(np.ones((2, 3), np.float32))
        >>> network.start_at(7.0)
        >>> (network.predict(np.ones((2, 3), np.float32)) - before).round(5).tolist()
        [7.0, 7.0]
        """
        with torch.no_grad():
            for layers in map(layers_of, self.members):
                layers.get_submodule(str(len(layers) - 1)).get_parameter("bias").add_(pkd)

    def make_ready(self, X: Inputs, rows: Rows, silenced: NDArray[np.bool_] | None = None) -> None:
        """Fit an untrained network's start to its training rows, without a look at their labels.

        Embeddings are scaled so that their sum over a training row has unit mean square: like a standardised dense
        column, which is what the first layer's start counts on. However many nonzeros a row has, its sparse block
        then neither drowns the dense one nor drowns in it.

        Columns that are zero in every training row get zero weights, and stay so, for their gradient is zero. With
        random ones, what training never saw would add noise to the prediction of a row that has it.

        Parameters
        ----------
        X, rows : the features, and which of their rows are for training
        silenced : (n_dense,) which dense columns may be silenced; none unless given. Sparse ones always are

        Examples
        --------
        >>> network = Mlp((8,)).build(2, seed=0)
        >>> X = np.array([[1, 0], [1, 5]], np.float32)
        >>> network.make_ready(X, np.array([0]), np.array([True, True]))
        >>> float(np.ptp(network.predict(X)))
        0.0
        """
        features = as_features(X)
        with torch.no_grad():
            if silenced is not None and silenced.any():
                silent = torch.from_numpy(silenced & ~_occurring(features, rows))
                columns = silent.nonzero().squeeze(1).to(self.device)
                for layers in map(layers_of, self.members):
                    layers.get_submodule("0").get_parameter("weight")[:, columns] = 0.0
            if features.sparse is None:
                return
            chosen = features.sparse[rows]
            absent = torch.from_numpy(
                np.bincount(chosen.indices, weights=chosen.data != 0, minlength=self.n_sparse) == 0
            )
            mean_square = float(np.square(chosen.data, dtype=np.float64).sum()) / max(1, len(rows))
            for member in self.members:
                weight = member.get_submodule("embedding").get_parameter("weight")
                weight.mul_(1 / math.sqrt(mean_square) if mean_square else 0.0)
                weight[absent.to(self.device)] = 0.0

    def parameter_counts(self) -> tuple[int, int]:
        """Return the parameters of one member, with and without those of BatchNorm.

        >>> Mlp().build(150, seed=0).parameter_counts()
        (251777, 249857)
        """
        modules = list(self.members[0].modules())
        norms = sum(p.numel() for m in modules if isinstance(m, nn.BatchNorm1d) for p in m.parameters())
        total = sum(p.numel() for p in self.members[0].parameters())
        return total, total - norms

    def describe(self) -> str:
        """Return the shape in words, as a run prints it."""
        inputs = str(self.n_features)
        total, without = self.parameter_counts()
        parts = [f"{without:,} without BatchNorm"] if without != total else []
        if self.n_sparse:
            width = self.options.embedding_dim
            inputs = f"{self.n_features:,} dense + {width} summed embeddings of {self.n_sparse:,} sparse columns"
            parts.append(f"{self.n_sparse * width:,} in embeddings")
        shape = " → ".join([inputs, *(str(size) for size in (*self.options.hidden_dims, 1))])
        counts = f"{total:,} parameters" + (f" ({', '.join(parts)})" if parts else "")
        many = f"{len(self.members)} networks of " if len(self.members) > 1 else ""
        return f"{many}{shape}, {counts}"

    def predict(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) predicted pKd, the mean over the members."""
        mean: FloatArray = self.predict_members(X, rows).mean(axis=1)
        return mean

    def predict_members(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples, n_members) predicted pKd."""
        chosen = None if rows is None else torch.from_numpy(np.ascontiguousarray(rows))
        outputs = self.outputs(as_tensors(X), chosen)
        result: FloatArray = outputs.T.cpu().numpy().astype(np.float64)
        return result

    def outputs(self, X: InputTensors, rows: Tensor | None = None) -> Tensor:
        """Return (n_members, n_samples) outputs for `rows` of `X`, a chunk at a time, in evaluation mode."""
        device = self.device
        n = len(X) if rows is None else len(rows)
        result = torch.empty((len(self.members), n), device=device)
        training = [member.training for member in self.members]
        with torch.inference_mode():
            for member in self.members:
                member.eval()
            for start in range(0, n, CHUNK):
                stop = min(start + CHUNK, n)
                chunk = X.take(slice(start, stop) if rows is None else rows[start:stop]).to(device)
                for position, member in enumerate(self.members):
                    result[position, start:stop] = member(*chunk.arguments).squeeze(-1)
        for member, mode in zip(self.members, training, strict=True):
            member.train(mode)
        return result

    def state(self) -> dict[str, Any]:
        """Return options and weights, on the CPU."""
        return {
            "options": {**asdict(self.options), "hidden_dims": list(self.options.hidden_dims)},
            "n_features": self.n_features,
            **({"n_sparse": self.n_sparse} if self.n_sparse else {}),
            "members": [
                {name: tensor.detach().cpu().clone() for name, tensor in member.state_dict().items()}
                for member in self.members
            ],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the network that `state` was taken from."""
        options = Mlp(**{**state["options"], "hidden_dims": tuple(state["options"]["hidden_dims"])})
        n_sparse = int(state.get("n_sparse", 0))
        members = []
        with torch.random.fork_rng(devices=[]):
            for weights in state["members"]:
                member = member_of(options, state["n_features"], n_sparse)
                member.load_state_dict(weights)
                members.append(member.eval())
        return cls(options, state["n_features"], members, n_sparse)


def _occurring(features: Features, rows: Rows) -> NDArray[np.bool_]:
    """Return (n_dense,) whether any of `rows` is not zero in a dense column."""
    found = np.zeros(features.dense.shape[1], bool)
    for piece in chunks(rows):
        found |= (features.dense[piece] != 0).any(axis=0)
    return found
