"""What perceptrons are trained in: memory that is kept between steps, random bits, and the norms at work.

Tensors that are made and let go in every step cost more than it seems: where they are large, the system takes their
memory back and has to clear it anew.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tailbind.models.layers import Layer

#: Gradients of a norm that are wanted: to its inputs, its scale and its shift.
_ALL: Final = [True, True, True]


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


class Norm(NamedTuple):
    """One member's norm of a layer, as PyTorch's functions take it."""

    scale: Tensor
    shift: Tensor
    mean: Tensor
    variance: Tensor
    momentum: float
    eps: float

    @classmethod
    def of(cls, norm: nn.BatchNorm1d) -> "Norm":
        """Return that of a module."""
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        return cls(norm.weight, norm.bias, mean, variance, norm.momentum or 0.0, norm.eps)


class _AtWork(NamedTuple):
    """One member's norm of a layer at work.

    Attributes
    ----------
    norm : what it is
    hidden, normed : (n, fan_out) what it reads, and what it gives
    mean, inverse : (fan_out,) the batch's mean and 1 / SD
    slope : (n, fan_out) where the gradient to `normed` is on the way back
    """

    norm: Norm
    hidden: Tensor
    normed: Tensor
    mean: Tensor
    inverse: Tensor
    slope: Tensor


@dataclass(slots=True)
class Passed:
    """What a layer has before it and leaves behind on the way forward.

    Attributes
    ----------
    inputs, turned : (n_members, n, fan_in), and the other way round; what the layer before gives
    scale : what they are multiplied by, for what dropout left out of them
    hidden : (n_members, n, fan_out) after the linear layer
    norms : of each member, where there are any
    normed : what the activation reads
    active : what it gives, 0 where dropout leaves a unit out; on the way back, the gradient to it
    kept : (n_members, n, fan_out) 1 where dropout keeps a unit, else 0; None without dropout
    """

    inputs: Tensor
    turned: Tensor
    scale: float
    hidden: Tensor
    norms: Sequence[_AtWork]
    normed: Tensor
    active: Tensor
    kept: Tensor | None

    def normalise(self) -> None:
        """Compute `normed`, member by member: PyTorch's own function, which knows no members, is faster than parts."""
        for norm, hidden, *found, _ in self.norms:
            torch.native_batch_norm(hidden, *norm[:4], True, norm.momentum, norm.eps, out=found)

    def back_through_norm(self, to_norms: list[Tensor]) -> Tensor:
        """Return the gradient to `hidden` from that to `normed`; those to scales and shifts are added to a list."""
        slopes = []
        for norm, hidden, _, mean, inverse, slope in self.norms:
            to_hidden, *to_norm = torch.ops.aten.native_batch_norm_backward(
                slope, hidden, norm.scale, norm.mean, norm.variance, mean, inverse, True, norm.eps, _ALL
            )
            to_norms.extend(to_norm)
            slopes.append(to_hidden)
        return slopes[0].unsqueeze(0) if len(slopes) == 1 else torch.stack(slopes, out=self.hidden)


@dataclass(slots=True)
class Room:
    """What batches of one size are worked in.

    Attributes
    ----------
    layers : what each of them has before it and leaves behind
    kept : (n_members, n * n_units) of all units that dropout may leave out, see `Passed`
    of_members : its rows
    least : (n * n_units,) see `Layer.least`
    """

    layers: Sequence[Passed]
    kept: Tensor
    of_members: Sequence[Tensor]
    least: Tensor

    def enter(self, inputs: Tensor, draws: Sequence[Draws]) -> None:
        """Begin a batch: take its (n_members, n, n_inputs) in, and draw which units are kept."""
        self.layers[0].inputs, self.layers[0].turned = inputs, inputs.mT
        if len(self.least):
            for own, member in zip(self.of_members, draws, strict=True):
                own.copy_(member.bits(len(own)))
            self.kept.ge_(self.least)


class Rooms:
    """Rooms for batches of any size, all in one piece of memory.

    Parameters
    ----------
    layers : of the perceptrons
    norms : of each layer that has one, each member's
    values : (n_members, …) of the type and on the device to compute with
    """

    def __init__(self, layers: Sequence[Layer], norms: Sequence[Sequence[Norm]], values: Tensor) -> None:
        self._layers, self._norms, self._n_members = layers, norms, len(values)
        self._memory = values.new_empty(0)
        self._rooms: dict[int, Room] = {}

    def clear(self) -> None:
        """Give the memory back."""
        self._memory, self._rooms = self._memory.new_empty(0), {}

    def of(self, n: int) -> Room:
        """Return the room for batches of `n`; what was in any other is lost."""
        if n not in self._rooms:
            needed = self._n_members * n * sum(layer.fan_out * layer.n_left for layer in self._layers)
            if len(self._memory) < needed:
                self._memory, self._rooms = self._memory.new_empty(needed), {}
            self._rooms[n] = self._made(n)
        return self._rooms[n]

    def _made(self, n: int) -> Room:
        k, start = self._n_members, 0

        def part(*shape: int) -> Tensor:
            nonlocal start
            start += math.prod(shape)
            return self._memory[start - math.prod(shape) : start].view(shape)

        least = [self._memory.new_full((n * layer.fan_out,), layer.least) for layer in self._layers if layer.dropout]
        kept = part(k, sum(map(len, least)))
        of_layers = iter(torch.split(kept, [len(own) for own in least], dim=1) if least else ())
        norms = iter(self._norms)
        layers: list[Passed] = []
        scale, inputs = 1.0, kept  # of the first layer, inputs come with the batch
        for layer in self._layers:
            shape = k, n, layer.fan_out
            hidden = part(*shape)
            normed = part(*shape) if layer.norm else hidden
            active = part(*shape) if layer.activate is not None else hidden
            at_work = [
                _AtWork(
                    norm,
                    hidden[member],
                    normed[member],
                    hidden.new_empty(width),
                    hidden.new_empty(width),
                    active[member],
                )
                for width in [layer.fan_out]
                for member, norm in enumerate(next(norms) if layer.norm else ())
            ]
            drawn = next(of_layers).view(shape) if layer.dropout else None
            layers.append(Passed(inputs, inputs.mT, scale, hidden, at_work, normed, active, drawn))
            scale, inputs = layer.scale, active
        return Room(layers, kept, kept.unbind(0), torch.cat([*least, kept.new_empty(0)]))
