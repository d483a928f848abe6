"""Perceptrons of one shape computed at once in training, forward and backward written out.

The layers are those of `mlp.perceptron`: Linear → BatchNorm → activation → dropout, repeated, then Linear. What is
computed is what the modules compute one after the other, to rounding; tests hold the two against each other.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

_Slope: TypeAlias = Callable[[Tensor, Tensor], Tensor]
_OPS: Final = torch.ops.aten
#: Of each activation: its values, and the gradient to its inputs from that to its values and the inputs.
_ACTIVATIONS: Final[Mapping[type[nn.Module], tuple[Callable[[Tensor], Tensor], _Slope]]] = {
    nn.ReLU: (torch.relu, lambda slope, inputs: _OPS.threshold_backward(slope, inputs, 0)),
    nn.GELU: (nn.functional.gelu, _OPS.gelu_backward),
    nn.SiLU: (nn.functional.silu, _OPS.silu_backward),
}
#: Dropout compares 16 random bits with its share.
_DRAWS: Final = 1 << 16
#: Gradients of a norm that are wanted: to its inputs, its scale and its shift.
_ALL: Final = [True, True, True]


@dataclass
class _Layer:
    """A linear layer and what follows it; where its weights are in the vector of all.

    Attributes
    ----------
    fan_in, fan_out : widths of the linear layer
    start : where its weights begin; then come its bias, and the norm's weight and bias
    norm : whether a norm follows
    activate, slope : what then follows, see `_ACTIVATIONS`; None where nothing does
    dropout : share of units left out after it
    """

    fan_in: int
    fan_out: int
    start: int
    norm: bool = False
    activate: Callable[[Tensor], Tensor] | None = None
    slope: Callable[[Tensor, Tensor], Tensor] | None = None
    dropout: float = 0.0


def is_perceptron(layers: nn.Module) -> bool:
    """Return whether `Perceptrons` computes layers.

    >>> is_perceptron(nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1))), is_perceptron(nn.Linear(3, 1))
    (True, False)
    """
    if not isinstance(layers, nn.Sequential):
        return False
    try:
        return bool(list(_read(layers)))
    except ValueError:
        return False


class Perceptrons:
    """Perceptrons whose weights are rows of one array.

    The modules' own parameters become views of these rows: whatever reads or changes them sees the same numbers. What
    is learned is one vector for each perceptron, `weights`, with its gradient in one vector too, so that an optimizer
    has one thing to do.

    Parameters
    ----------
    perceptrons : of one shape, on one device
    """

    def __init__(self, perceptrons: Sequence[nn.Sequential]) -> None:
        self._layers = list(_read(perceptrons[0]))
        self._values = torch.stack([_vector(list(one.parameters())) for one in perceptrons])
        self.weights = [nn.Parameter(row) for row in self._values]
        self._counts = torch.stack([_vector(_counts(one)) for one in perceptrons])
        for number, one in enumerate(perceptrons):
            _lay(list(one.parameters()), self._values[number])
            _lay(_counts(one), self._counts[number])
        self._norms = [
            [_Norm.of(norm) for norm in of_layer] for of_layer in zip(*map(_norms, perceptrons), strict=True)
        ]
        self._own = self._views(self._values)
        # A norm takes the bias before it out again: that gradient is 0, but for rounding, and stays what it is here.
        gradient = torch.zeros_like(self._values)
        self._into, self._gradients = self._views(gradient), gradient.unbind(0)
        self._passed: list[_Passed] = []
        self._n_units = sum(layer.fan_out for layer in self._layers if layer.dropout)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self._values.device

    @torch.no_grad()
    def outputs(self, inputs: Tensor, draws: Sequence["Draws"]) -> Tensor:
        """Return (n_members, n, n_outputs) for (n_members, n, n_inputs), in training; `gradients` may follow.

        Parameters
        ----------
        draws : what each member draws from for dropout
        """
        if self._norms and inputs.shape[1] < 2:
            raise ValueError("a norm must have two rows or more to take the SD of")
        drawn = self._drawn(inputs.shape[1], draws)
        norms, self._passed = iter(self._norms), []
        for layer, own in zip(self._layers, self._own, strict=True):
            hidden = torch.baddbmm(own.bias, inputs, own.turned)
            of_layer = _Passed(inputs, hidden, hidden)
            if layer.norm:
                of_layer.normalise(next(norms))
            if layer.activate is not None:
                inputs = layer.activate(of_layer.normed)
            if layer.dropout:
                of_layer.kept = next(drawn)
                inputs.mul_(of_layer.kept)
            self._passed.append(of_layer)
        self._counts.add_(1)
        return hidden

    @torch.no_grad()
    def gradients(self, slope: Tensor, *, to_inputs: bool) -> tuple[Tensor | None, Sequence[Tensor]]:
        """Return gradients to the last inputs, where asked for, and to each of `weights`, from that to the outputs.

        Gradients to weights are in memory that the next call overwrites.
        """
        passed, self._passed = self._passed, []
        for place in reversed(range(len(passed))):
            layer, of_layer, own, into = self._layers[place], passed[place], self._own[place], self._into[place]
            if of_layer.kept is not None:
                slope = slope.mul_(of_layer.kept)
            if layer.slope is not None:
                slope = layer.slope(slope, of_layer.normed)
            if layer.norm:
                slope = of_layer.back_through_norm(slope, into)
            else:
                torch.sum(slope, dim=1, keepdim=True, out=into.bias)
            torch.bmm(slope.mT, of_layer.inputs, out=into.weight)
            if place or to_inputs:
                slope = torch.bmm(slope, own.weight)
        return slope if to_inputs else None, self._gradients

    def forget(self) -> None:
        """Let go of what the way back needs."""
        self._passed = []

    def _views(self, values: Tensor) -> list["_Own"]:
        """Return each layer's weights in (n_members, n_weights)."""
        k, n_weights = values.shape
        views = []
        for layer in self._layers:
            end = layer.start + layer.fan_out * layer.fan_in
            vectors = [
                values.as_strided((k, 1, layer.fan_out), (n_weights, layer.fan_out, 1), end + number * layer.fan_out)
                for number in range(3 if layer.norm else 1)
            ]
            shape, strides = (k, layer.fan_out, layer.fan_in), (n_weights, layer.fan_in, 1)
            weight = values.as_strided(shape, strides, layer.start)
            of_norm = [vector[:, 0].unbind(0) for vector in vectors[1:]]
            views.append(_Own(weight, weight.mT, vectors[0], *of_norm))
        return views

    def _drawn(self, n: int, draws: Sequence["Draws"]) -> Iterator[Tensor]:
        """Yield of each layer with dropout (n_members, n, fan_out): 0 where left out, else what it is scaled by."""
        if not self._n_units:
            return
        bits = _one([own.bits(n * self._n_units) for own in draws])
        start = 0
        for layer in self._layers:
            if layer.dropout:
                own = bits[:, start : start + n * layer.fan_out].to(self._values.dtype)
                n_out = min(round(layer.dropout * _DRAWS), _DRAWS - 1)
                kept = own.ge_(n_out - _DRAWS // 2).mul_(_DRAWS / (_DRAWS - n_out))
                yield kept.view(len(draws), n, layer.fan_out)
                start += n * layer.fan_out


class Draws:
    """Random bits of one member for an epoch, from its stream.

    On a CPU they are NumPy's, begun anew from the stream: PyTorch's own generator takes twice as long for bits, and ten
    times as long for what its dropout draws.

    Parameters
    ----------
    stream : the member's, on the device to compute on
    """

    def __init__(self, stream: torch.Generator) -> None:
        self._stream = stream
        seed = torch.randint(2**62, (), generator=stream, device=stream.device)
        self._quick = np.random.SFC64(int(seed)) if stream.device.type == "cpu" else None

    def bits(self, n: int) -> Tensor:
        """Return (n,) int16, each of its values as likely as any other."""
        n_words = -(-n // 4)
        if self._quick is not None:
            words = torch.from_numpy(self._quick.random_raw(n_words).view(np.int64))
        else:
            words = torch.empty(n_words, dtype=torch.int64, device=self._stream.device)
            words.random_(-(2**63), None, generator=self._stream)
        return words.view(torch.int16)[:n]


@dataclass(slots=True)
class _Own:
    """A layer's weights, or their gradients, of all members.

    Attributes
    ----------
    weight, turned : (n_members, fan_out, fan_in), and the other way round
    bias : (n_members, 1, fan_out)
    scale, shift : of each member, (fan_out,) of a norm; empty without one
    """

    weight: Tensor
    turned: Tensor
    bias: Tensor
    scale: Sequence[Tensor] = ()
    shift: Sequence[Tensor] = ()


class _Norm(NamedTuple):
    """One member's norm of a layer, as PyTorch's functions take it."""

    scale: Tensor
    shift: Tensor
    mean: Tensor
    variance: Tensor
    momentum: float
    eps: float

    @classmethod
    def of(cls, norm: nn.BatchNorm1d) -> "_Norm":
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        return cls(norm.weight, norm.bias, mean, variance, norm.momentum or 0.0, norm.eps)


@dataclass(slots=True)
class _Passed:
    """What a layer leaves behind on the way forward.

    Attributes
    ----------
    inputs : (n_members, n, fan_in)
    hidden : (n_members, n, fan_out) after the linear layer
    normed : what the activation reads
    norms : of each member, where there are any
    statistics : of each member, (fan_out,) the batch's mean and 1 / SD
    kept : what dropout multiplied by
    """

    inputs: Tensor
    hidden: Tensor
    normed: Tensor
    norms: Sequence[_Norm] = ()
    statistics: Sequence[tuple[Tensor, Tensor]] = ()
    kept: Tensor | None = None

    def normalise(self, norms: Sequence[_Norm]) -> None:
        """Compute `normed`, member by member: PyTorch's own function, which knows no members, is faster than parts."""
        found = [
            torch.native_batch_norm(hidden, *norm[:4], True, norm.momentum, norm.eps)
            for hidden, norm in zip(self.hidden.unbind(0), norms, strict=True)
        ]
        self.norms, self.normed = norms, _one([normed for normed, _, _ in found])
        self.statistics = [(mean, inverse) for _, mean, inverse in found]

    def back_through_norm(self, slope: Tensor, into: _Own) -> Tensor:
        """Return the gradient to `hidden` from that to `normed`; those to the norm's weights go `into` theirs."""
        slopes = []
        members = zip(slope.unbind(0), self.hidden.unbind(0), self.norms, self.statistics, strict=True)
        for member, (own, hidden, norm, (mean, inverse)) in enumerate(members):
            to_hidden, to_scale, to_shift = _OPS.native_batch_norm_backward(
                own, hidden, norm.scale, norm.mean, norm.variance, mean, inverse, True, norm.eps, _ALL
            )
            into.scale[member].copy_(to_scale)
            into.shift[member].copy_(to_shift)
            slopes.append(to_hidden)
        return _one(slopes)


def _one(of_members: list[Tensor]) -> Tensor:
    """Return tensors as one, member by member; of a single one without a copy."""
    return of_members[0].unsqueeze(0) if len(of_members) == 1 else torch.stack(of_members)


def _read(layers: nn.Sequential) -> Iterator[_Layer]:
    """Yield the layers of a perceptron; a ValueError where there is anything that is none."""
    modules = list(layers)
    linear = [place for place, module in enumerate(modules) if isinstance(module, nn.Linear)]
    if not linear or linear[0] != 0 or linear[-1] != len(modules) - 1:
        raise ValueError("a perceptron begins and ends with a linear layer")
    start = 0
    for place, following in itertools.pairwise([*linear, len(modules)]):
        fan_out, fan_in = modules[place].get_parameter("weight").shape
        layer, after = _Layer(fan_in, fan_out, start), modules[place + 1 : following]
        if after and isinstance(norm := after[0], nn.BatchNorm1d):
            if not (norm.affine and norm.track_running_stats and norm.momentum):
                raise ValueError("a norm has weights and running statistics")
            layer.norm, after = True, after[1:]
        if modules[place].bias is None or not all(p.requires_grad for p in modules[place].parameters()):
            raise ValueError("a linear layer has a bias, and is learned")
        if after and type(after[0]) in _ACTIVATIONS and getattr(after[0], "approximate", "none") == "none":
            (layer.activate, layer.slope), after = _ACTIVATIONS[type(after[0])], after[1:]
        if after and isinstance(dropout := after[0], nn.Dropout):
            layer.dropout, after = dropout.p, after[1:]
        if after or (layer.activate is None and following != len(modules)):
            raise ValueError("a linear layer is followed by a norm, an activation and dropout, in this order")
        yield layer
        start += sum(p.numel() for module in modules[place:following] for p in module.parameters())


def _norms(layers: nn.Sequential) -> list[nn.BatchNorm1d]:
    return [module for module in layers if isinstance(module, nn.BatchNorm1d)]


def _counts(layers: nn.Sequential) -> list[Tensor]:
    return [norm.get_buffer("num_batches_tracked") for norm in _norms(layers)]


def _vector(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors one after the other; (0,) of none."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors]) if tensors else torch.empty(0)


def _lay(tensors: Sequence[Tensor], row: Tensor) -> None:
    """Make tensors views of a row, one after the other."""
    start = 0
    for tensor in tensors:
        tensor.data = row[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
