"""Perceptrons of one shape computed at once in training, forward and backward written out.

The layers are those of `mlp.perceptron`: Linear → BatchNorm → activation → dropout, repeated, then Linear. What is
computed is what the modules compute one after the other, to rounding; tests hold the two against each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tailbind.models.layers import read
from tailbind.models.rooms import Draws, Norm, Passed, Rooms


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
        self._layers = list(read(perceptrons[0]))
        self._values = torch.stack([_vector(list(one.parameters())) for one in perceptrons])
        self.weights = [nn.Parameter(row) for row in self._values]
        self._counts = torch.stack([_vector(_counts(one)) for one in perceptrons])
        for number, one in enumerate(perceptrons):
            _lay(list(one.parameters()), self._values[number])
            _lay(_counts(one), self._counts[number])
        norms = [[Norm.of(norm) for norm in of_layer] for of_layer in zip(*map(_norms, perceptrons), strict=True)]
        self._least_rows = 2 if norms else 1
        self._own = self._views(self._values)
        # A norm takes the bias before it out again: that gradient is 0, but for rounding, and stays what it is here.
        gradient = torch.zeros_like(self._values)
        self._into, self._gradients = self._views(gradient), gradient.unbind(0)
        self._to_norms = [
            of_norm
            for into in reversed(self._into)
            for of_member in zip(into.scale, into.shift, strict=True)
            for of_norm in of_member
        ]
        self._rooms = Rooms(self._layers, norms, self._values)
        self._passed: Sequence[Passed] = []

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self._values.device

    @torch.inference_mode()
    def outputs(self, inputs: Tensor, draws: Sequence[Draws]) -> Tensor:
        """Return (n_members, n, n_outputs) for (n_members, n, n_inputs), in training; `gradients` may follow.

        The outputs are in memory that the next call overwrites.

        Parameters
        ----------
        draws : what each member draws from for dropout
        """
        n = inputs.shape[1]
        if n < self._least_rows:
            raise ValueError("a norm must have two rows or more to take the SD of")
        room = self._rooms.of(n)
        room.enter(inputs, draws)
        for layer, own, passed in zip(self._layers, self._own, room.layers, strict=True):
            torch.baddbmm(own.bias, passed.inputs, own.turned, alpha=passed.scale, out=passed.hidden)
            passed.normalise()
            if layer.activate is not None:
                layer.activate(passed.normed, passed.active)
            if passed.kept is not None:
                passed.active.mul_(passed.kept)
        self._counts.add_(1)
        self._passed = room.layers
        return self._passed[-1].hidden

    @torch.inference_mode()
    def gradients(self, slope: Tensor, *, to_inputs: bool) -> tuple[Tensor | None, Sequence[Tensor]]:
        """Return gradients to the last inputs, where asked for, and to each of `weights`, from that to the outputs.

        Gradients to weights are in memory that the next call overwrites.
        """
        to_norms: list[Tensor] = []
        for place in reversed(range(len(self._layers))):
            layer, own, into, passed = self._layers[place], self._own[place], self._into[place], self._passed[place]
            if passed.kept is not None:
                slope.mul_(passed.kept)
            if layer.slope is not None:
                layer.slope(slope, passed.normed)
            if layer.norm:
                slope = passed.back_through_norm(to_norms)
            else:
                torch.sum(slope, dim=1, keepdim=True, out=into.bias)
            into.turned.baddbmm_(passed.turned, slope, beta=0, alpha=passed.scale)
            if place:  # what the layer before gave is not needed any more, and its place is taken
                slope = passed.inputs.baddbmm_(slope, own.weight, beta=0, alpha=passed.scale)
            elif to_inputs:
                slope = torch.bmm(slope, own.weight)
        if to_norms:
            torch._foreach_copy_(self._to_norms, to_norms)
        return slope if to_inputs else None, self._gradients

    def forget(self) -> None:
        """Give back the memory that was worked in."""
        self._rooms.clear()
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
