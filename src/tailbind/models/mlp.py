"""The notebook's multilayer perceptron: Linear → BatchNorm → activation → dropout, repeated, then one output.

`Mlp` is the options; `Network` is one or several such perceptrons whose mean is the prediction.
"""

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
import torch
from torch import Tensor, nn

from tailbind.models.contract import CHUNK, Features, FloatArray, Rows
from tailbind.options import bounded, one_of

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
    """

    hidden_dims: tuple[int, ...] = bounded((512, 256, 128, 64), low=1, high=65536)
    activation: str = one_of("gelu", ACTIVATIONS)
    initialization: str = one_of("xavier_uniform", INITIALIZATIONS)
    batch_norm: bool = True
    dropout: float = bounded(0.3, low=0, below=1)
    members: int = bounded(1, low=1, high=100)

    def build(self, n_features: int, seed: int) -> "Network":
        """Return an untrained network for `n_features` inputs; member m starts from `seed` + m."""
        with torch.random.fork_rng(devices=[]):
            members = []
            for member in range(self.members):
                torch.manual_seed(seed + member)
                members.append(perceptron(self, n_features))
        return Network(self, n_features, members)

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


class Network:
    """Perceptrons that read the same features; their mean is the prediction.

    Parameters
    ----------
    options : what they are
    n_features : inputs of each
    members : one module per member, (n, n_features) → (n, 1)
    """

    def __init__(self, options: Mlp, n_features: int, members: list[nn.Sequential]) -> None:
        self.options = options
        self.n_features = n_features
        self.members = members

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
            for member in self.members:
                member.get_submodule(str(len(member) - 1)).get_parameter("bias").add_(pkd)

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
        shape = " → ".join(str(size) for size in (self.n_features, *self.options.hidden_dims, 1))
        total, without = self.parameter_counts()
        counts = f"{total:,} parameters" + (f" ({without:,} without BatchNorm)" if without != total else "")
        many = f"{len(self.members)} networks of " if len(self.members) > 1 else ""
        return f"{many}{shape}, {counts}"

    def predict(self, X: Features, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) predicted pKd, the mean over the members."""
        mean: FloatArray = self.predict_members(X, rows).mean(axis=1)
        return mean

    def predict_members(self, X: Features, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples, n_members) predicted pKd."""
        chosen = None if rows is None else torch.from_numpy(np.ascontiguousarray(rows))
        outputs = self.outputs(torch.from_numpy(X), chosen)
        result: FloatArray = outputs.T.cpu().numpy().astype(np.float64)
        return result

    def outputs(self, X: Tensor, rows: Tensor | None = None) -> Tensor:
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
                chunk = X[start:stop] if rows is None else X[rows[start:stop]]
                chunk = chunk.to(device)
                for position, member in enumerate(self.members):
                    result[position, start:stop] = member(chunk).squeeze(-1)
        for member, mode in zip(self.members, training, strict=True):
            member.train(mode)
        return result

    def state(self) -> dict[str, Any]:
        """Return options and weights, on the CPU."""
        return {
            "options": {**asdict(self.options), "hidden_dims": list(self.options.hidden_dims)},
            "n_features": self.n_features,
            "members": [
                {name: tensor.detach().cpu().clone() for name, tensor in member.state_dict().items()}
                for member in self.members
            ],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the network that `state` was taken from."""
        options = Mlp(**{**state["options"], "hidden_dims": tuple(state["options"]["hidden_dims"])})
        members = []
        with torch.random.fork_rng(devices=[]):
            for weights in state["members"]:
                member = perceptron(options, state["n_features"])
                member.load_state_dict(weights)
                members.append(member.eval())
        return cls(options, state["n_features"], members)
