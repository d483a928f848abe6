"""What all networks share: members that read the same features, whose mean is the prediction.

A network's options describe one member and know its parts; `Network` is one or several of them, and all that is done
with them beside training: predicting, saving, telling of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tailbind.models.contract import CHUNK, FloatArray, Inputs, Rows, as_features, check_residues, mean_and_sd
from tailbind.models.tensors import InputTensors, as_tensors
from tailbind.models.together import Together, together
from tailbind.options import read_options
from tailbind.table.features import Features

#: Rows predicted at a time on a CPU: what they come to in between stays near it, and its memory is used again.
ROWS_ON_CPU: Final = 2_048


class Architecture(Protocol):
    """The options of a network: what a member is, and where its parts are.

    Attributes
    ----------
    members : how many networks, differing in their seed, are trained and averaged
    reads_residues : whether it reads the residues of sequences, which it then cannot do without
    rows_at_once : rows that are predicted at a time at most; 0 for as many as the device takes well
    """

    @property
    def members(self) -> int:
        """Networks that are averaged."""
        ...

    @property
    def reads_residues(self) -> bool:
        """Whether residues are read."""
        ...

    @property
    def rows_at_once(self) -> int:
        """Rows predicted at a time."""
        ...

    def member(self, n_features: int, n_sparse: int, n_vector: int = 0) -> nn.Module:
        """Return a member, (n, …) → (n, n_outputs), initialised from the current random state."""
        ...

    def output_bias(self, member: nn.Module) -> Tensor:
        """Return (n_outputs,) what a member adds to its outputs at the end."""
        ...

    def make_ready(self, member: nn.Module, X: Features, rows: Rows, silent: NDArray[np.bool_] | None) -> None:
        """Fit a member's start to its training rows; `silent` (n_dense,) are the columns that it must not see."""
        ...

    def shape(self, n_features: int, n_sparse: int, n_vector: int) -> str:
        """Return a member's layers in words."""
        ...

    def part_counts(self, member: nn.Module) -> list[tuple[int, str]]:
        """Return how many parameters are in parts that a person may want told apart, and their names."""
        ...


class Network:
    """Members that read the same features; the mean of their outputs is the prediction.

    Parameters
    ----------
    options : what they are
    n_features : dense columns that each reads
    members : one module per member, (n, n_features) → (n, n_outputs)
    n_sparse : sparse columns that each reads
    n_vector : numbers that each reads of a residue beside its letter
    """

    def __init__(
        self,
        options: Architecture,
        n_features: int,
        members: Sequence[nn.Module],
        n_sparse: int = 0,
        n_vector: int = 0,
    ) -> None:
        self.options = options
        self.n_features = n_features
        self.members = list(members)
        self.n_sparse = n_sparse
        self.n_vector = n_vector

    @classmethod
    def build(cls, options: Architecture, n_features: int, seed: int, n_sparse: int) -> Self:
        """Return an untrained network; member m starts from `seed` + m. Its `make_ready` comes next."""
        with torch.random.fork_rng(devices=[]):
            members = []
            for member in range(options.members):
                torch.manual_seed(seed + member)
                members.append(options.member(n_features, n_sparse))
        return cls(options, n_features, members, n_sparse)

    def to(self, device: torch.device) -> Self:
        """Move every member to a device."""
        for member in self.members:
            member.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the members are."""
        return next(self.members[0].parameters()).device

    def together(self) -> list[Together]:
        """Return the members in groups that are trained at once; until `to`, members and groups share their weights."""
        return together(self.members)

    def start_at(self, pkd: float) -> None:
        """Add `pkd` to every member's outputs, by the bias of its last layer.

        >>> from tailbind.models.mlp import Mlp
        >>> network = Mlp((8,)).build(3, seed=0)
        >>> before = network.predict(np.ones((2, 3), np.float32))
        >>> network.start_at(7.0)
        >>> (network.predict(np.ones((2, 3), np.float32)) - before).round(5).tolist()
        [7.0, 7.0]
        """
        with torch.no_grad():
            for member in self.members:
                self.options.output_bias(member).add_(pkd)

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

        Raises
        ------
        FeatureError
            When there are residues and the model reads none, or the other way round.

        Examples
        --------
        >>> from tailbind.models.mlp import Mlp
        >>> network = Mlp((8,)).build(2, seed=0)
        >>> X = np.array([[1, 0], [1, 5]], np.float32)
        >>> network.make_ready(X, np.array([0]), np.array([True, True]))
        >>> float(np.ptp(network.predict(X)))
        0.0
        """
        features = as_features(X)
        check_residues(features, read=self.options.reads_residues)
        silent = None
        if silenced is not None and silenced.any():
            silent = silenced & ~occurring(features, rows)
        if features.residues is not None:
            self.n_vector = features.residues.n_vector
        with torch.no_grad():
            for member in self.members:
                self.options.make_ready(member, features, rows, silent)

    def parameter_counts(self) -> tuple[int, int]:
        """Return the parameters of one member, with and without those of BatchNorm.

        >>> from tailbind.models.mlp import Mlp
        >>> Mlp().build(150, seed=0).parameter_counts()
        (251777, 249857)
        """
        modules = list(self.members[0].modules())
        norms = sum(p.numel() for m in modules if isinstance(m, nn.BatchNorm1d) for p in m.parameters())
        total = sum(p.numel() for p in self.members[0].parameters())
        return total, total - norms

    def describe(self) -> str:
        """Return the shape in words, as a run prints it."""
        total, without = self.parameter_counts()
        parts = [f"{without:,} without BatchNorm"] if without != total else []
        parts += [f"{count:,} in {name}" for count, name in self.options.part_counts(self.members[0])]
        counts = f"{total:,} parameters" + (f" ({', '.join(parts)})" if parts else "")
        many = f"{len(self.members)} networks of " if len(self.members) > 1 else ""
        return f"{many}{self.options.shape(self.n_features, self.n_sparse, self.n_vector)}, {counts}"

    def predict(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) predicted pKd, the mean over all outputs of all members."""
        return self.predict_with_sd(X, rows)[0]

    def predict_with_sd(self, X: Inputs, rows: Rows | None = None) -> tuple[FloatArray, FloatArray | None]:
        """Return (n_samples,) predicted pKd, and the SD over all outputs of all members; None of a single one."""
        return mean_and_sd(self.predict_members(X, rows))

    def predict_members(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples, n_members · n_outputs) predicted pKd."""
        chosen = None if rows is None else torch.from_numpy(np.ascontiguousarray(rows))
        outputs = self._every_output(as_tensors(X), chosen)
        result: FloatArray = outputs.flatten(1).cpu().numpy().astype(np.float64)
        return result

    def outputs(self, X: InputTensors, rows: Tensor | None = None) -> Tensor:
        """Return (n_members, n_samples) outputs for `rows` of `X`, the mean where a member has several."""
        every = self._every_output(X, rows)
        return (every.squeeze(-1) if every.shape[-1] == 1 else every.mean(dim=-1)).T.contiguous()

    def _every_output(self, X: InputTensors, rows: Tensor | None) -> Tensor:
        """Return (n_samples, n_members, n_outputs), a chunk of rows at a time, in evaluation mode."""
        device = self.device
        n = len(X) if rows is None else len(rows)
        size = self.options.rows_at_once or (ROWS_ON_CPU if device.type == "cpu" else CHUNK)
        pieces = [torch.empty((0, len(self.members), 1), device=device)] if n == 0 else []
        training = [member.training for member in self.members]
        with torch.inference_mode():
            for member in self.members:
                member.eval()
            for start in range(0, n, size):
                stop = min(start + size, n)
                chunk = X.take(slice(start, stop) if rows is None else rows[start:stop]).to(device)
                pieces.append(torch.stack([member(*chunk.arguments) for member in self.members], dim=1))
        for member, mode in zip(self.members, training, strict=True):
            member.train(mode)
        return torch.cat(pieces)

    def state(self) -> dict[str, Any]:
        """Return options and weights, on the CPU."""
        options = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self.options).items()  # type: ignore[call-overload]
        }
        sizes = {name: size for name in ("n_sparse", "n_vector") if (size := getattr(self, name))}
        return {
            "options": options,
            "n_features": self.n_features,
            **sizes,
            "members": [
                {name: tensor.detach().cpu().clone() for name, tensor in member.state_dict().items()}
                for member in self.members
            ],
        }

    @classmethod
    def from_state(cls, architecture: type[Any], state: Mapping[str, Any]) -> Self:
        """Return the network that `state` was taken from.

        Parameters
        ----------
        architecture : the class of its options
        """
        options: Architecture = read_options(architecture, state["options"], "model")
        n_sparse, n_vector = int(state.get("n_sparse", 0)), int(state.get("n_vector", 0))
        members = []
        with torch.random.fork_rng(devices=[]):
            for weights in state["members"]:
                member = options.member(state["n_features"], n_sparse, n_vector)
                member.load_state_dict(weights)
                members.append(member.eval())
        return cls(options, state["n_features"], members, n_sparse, n_vector)


def occurring(features: Features, rows: Rows) -> NDArray[np.bool_]:
    """Return (n_dense,) whether any of `rows` is not zero in a dense column."""
    found = np.zeros(features.dense.shape[1], bool)
    rows = np.sort(rows)
    for start in range(0, len(rows), CHUNK):
        found |= (features.dense[rows[start : start + CHUNK]] != 0).any(axis=0)
    return found
