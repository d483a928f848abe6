"""Members of a network that are trained at once: all of their perceptrons in one go, or one module alone.

A step of a small network is over before its many small calls are. So the perceptrons of an ensemble keep their weights
in one array, a row per member, and every layer is computed for all members by one call; forward and backward are
written out, with nothing done twice. A single perceptron is an ensemble of one. Every other module is trained alone,
by PyTorch's own means.
"""

import contextlib
import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from tailbind.models.inlet import EmbeddingPerceptron
from tailbind.models.layers import is_perceptron
from tailbind.models.perceptrons import Perceptrons
from tailbind.models.rooms import Draws
from tailbind.models.tensors import InputTensors


class Together(Protocol):
    """Members in training that are computed at once.

    Attributes
    ----------
    members : the modules
    """

    @property
    def members(self) -> Sequence[nn.Module]:
        """The modules."""
        ...

    @property
    def side_by_side(self) -> bool:
        """Whether groups may be trained in threads of their own at the same time."""
        ...

    def parameters(self) -> list[list[nn.Parameter]]:
        """Return what each member learns."""
        ...

    def outputs(self, X: InputTensors, rows: Tensor) -> Tensor:
        """Return (n_members, n, n_outputs) for each member's own (n_members, n) rows of `X`, without a graph."""
        ...

    def gradients(self, slope: Tensor) -> list[list[Tensor | None]]:
        """Return gradients to what each member learns, from that to the outputs that were returned last."""
        ...

    def training(self, streams: Sequence[torch.Generator]) -> contextlib.AbstractContextManager[None]:
        """Have members in training inside, each drawing from its own stream."""
        ...


class Alone:
    """One module, computed by its own `forward`, which draws from the random stream that all share."""

    side_by_side = False

    def __init__(self, member: nn.Module) -> None:
        self.members = (member,)
        self._device = next(member.parameters()).device
        self._outputs = torch.empty(0)

    def parameters(self) -> list[list[nn.Parameter]]:
        """Return what the module learns."""
        return [list(self.members[0].parameters())]

    def outputs(self, X: InputTensors, rows: Tensor) -> Tensor:
        """Return (1, n, n_outputs) for (1, n) rows."""
        self._outputs = self.members[0](*X.take(rows[0]).to(self._device).arguments)
        return self._outputs.detach().unsqueeze(0)

    def gradients(self, slope: Tensor) -> list[list[Tensor | None]]:
        """Return gradients to the module's parameters; None to one that does nothing."""
        (learned,) = self.parameters()
        return [list(torch.autograd.grad(self._outputs, learned, slope[0], allow_unused=True))]

    @contextlib.contextmanager
    def training(self, streams: Sequence[torch.Generator]) -> Iterator[None]:
        """Have the module in training inside; what it draws from is the global stream, put back afterwards."""
        self.members[0].train()
        (stream,) = streams
        on_gpu = self._device.type == "cuda"
        get, put = (
            (torch.cuda.get_rng_state, torch.cuda.set_rng_state)
            if on_gpu
            else (torch.get_rng_state, torch.set_rng_state)
        )
        before = get()
        put(stream.get_state())
        try:
            yield
        finally:
            self._outputs = torch.empty(0)
            stream.set_state(get())
            put(before)


class Stacked:
    """Members that are perceptrons, each with what it reads by, or all reading the dense columns as they are."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        self.members = tuple(members)
        self._inlets = [member for member in members if isinstance(member, EmbeddingPerceptron)]
        self._layers = Perceptrons([_perceptron(member) for member in members])
        self._device = self._layers.device
        self.side_by_side = self._device.type == "cpu"
        self._draws: Sequence[Draws] = ()
        self._read: list[Tensor] = []

    def parameters(self) -> list[list[nn.Parameter]]:
        """Return what each member learns: the layers as one vector, then what its inlet has."""
        inlets = [inlet.own_parameters() for inlet in self._inlets] or [[] for _ in self.members]
        return [[weights, *own] for weights, own in zip(self._layers.weights, inlets, strict=True)]

    def outputs(self, X: InputTensors, rows: Tensor) -> Tensor:
        """Return (n_members, n, 1) for (n_members, n) rows."""
        if not self._inlets:
            (dense,) = X.take(rows.flatten()).to(self._device).arguments
            return self._layers.outputs(dense.view(*rows.shape, -1), self._draws)  # type: ignore[union-attr]
        self._read = [
            inlet.read(*X.take(own).to(self._device).arguments)  # type: ignore[arg-type]
            for inlet, own in zip(self._inlets, rows, strict=True)
        ]
        return self._layers.outputs(torch.stack([read.detach() for read in self._read]), self._draws)

    def gradients(self, slope: Tensor) -> list[list[Tensor | None]]:
        """Return gradients to the layers' vectors and to what inlets have."""
        to_read, to_layers = self._layers.gradients(slope, to_inputs=bool(self._inlets))
        if to_read is None:
            return [[of_layers] for of_layers in to_layers]
        members = zip(self._inlets, self._read, to_read, to_layers, strict=True)
        return [
            [of_layers, *torch.autograd.grad(read, inlet.own_parameters(), own, allow_unused=True)]
            for inlet, read, own, of_layers in members
        ]

    @contextlib.contextmanager
    def training(self, streams: Sequence[torch.Generator]) -> Iterator[None]:
        """Have the members in training inside, each drawing from its own stream."""
        for member in self.members:
            member.train()
        self._draws = [Draws(stream) for stream in streams]
        try:
            yield
        finally:  # after a lack of memory, the next attempt begins with what was free
            self._read = []
            self._layers.forget()


#: Perceptrons computed at once at most: so that an ensemble's activations do not add up beyond bounds.
AT_ONCE: Final = 32
#: Rows of a trial.
TRIAL: Final = 16


def together(members: Sequence[nn.Module]) -> list[Together]:
    """Return members in groups that are trained at once, in their order; on a CPU, a group for each thread."""
    if not all(is_perceptron(_layers(member)) for member in members):
        return [Alone(member) for member in members]
    on_cpu = next(members[0].parameters()).device.type == "cpu"
    if not on_cpu and not computes_alike(_perceptron(members[0])):
        return [Alone(member) for member in members]
    n_groups = max(-(-len(members) // AT_ONCE), min(torch.get_num_threads(), len(members)) if on_cpu else 1)
    ends = [number * len(members) // n_groups for number in range(n_groups + 1)]
    return [Stacked(members[start:stop]) for start, stop in itertools.pairwise(ends)]


def computes_alike(layers: nn.Sequential) -> bool:
    """Return whether a step written out gives, where the layers are, what the layers themselves give.

    It is made of parts of PyTorch that are there on every device, but releases of tailbind are tested on CPUs: on any
    other device a trial of a few rows comes first.
    """
    plain = copy.deepcopy(layers).train()
    for module in plain:
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    first = plain[0].get_parameter("weight")
    inputs = torch.linspace(-1, 1, TRIAL * first.shape[1], device=first.device).sin().view(TRIAL, -1).to(first.dtype)
    try:
        found = Perceptrons([copy.deepcopy(plain)])
        outputs = found.outputs(inputs.unsqueeze(0), []).clone()
        _, (gradient,) = found.gradients(torch.ones_like(outputs), to_inputs=False)
    except (RuntimeError, TypeError):
        return False
    wanted = plain(inputs)
    slopes = torch.autograd.grad(wanted.sum(), list(plain.parameters()))
    pairs = [(outputs[0], wanted), (gradient, torch.cat([slope.flatten() for slope in slopes]))]
    return all(
        torch.allclose(one, other, rtol=1e-2, atol=1e-3 * float(other.detach().abs().max())) for one, other in pairs
    )


def _layers(member: nn.Module) -> nn.Module:
    return member.layers if isinstance(member, EmbeddingPerceptron) else member


def _perceptron(member: nn.Module) -> nn.Sequential:
    layers = _layers(member)
    assert isinstance(layers, nn.Sequential)
    return layers
