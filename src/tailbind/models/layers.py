"""The layers of a perceptron: what `mlp.perceptron` makes of them, read from the modules."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch import Tensor, nn

_Activate: TypeAlias = Callable[[Tensor, Tensor], object]
_Slope: TypeAlias = Callable[[Tensor, Tensor], object]
_OPS: Final = torch.ops.aten
#: Of each activation: what writes its values for the first tensor into the second; and what makes the first, the
#: gradient to its values, that to its inputs, which are the second.
_ACTIVATIONS: Final[Mapping[type[nn.Module], tuple[_Activate, _Slope]]] = {
    nn.ReLU: (
        lambda inputs, values: torch.clamp_min(inputs, 0, out=values),
        lambda slope, inputs: _OPS.threshold_backward.grad_input(slope, inputs, 0, grad_input=slope),
    ),
    nn.GELU: (
        lambda inputs, values: _OPS.gelu.out(inputs, out=values),
        lambda slope, inputs: _OPS.gelu_backward.grad_input(slope, inputs, grad_input=slope),
    ),
    nn.SiLU: (
        lambda inputs, values: _OPS.silu.out(inputs, out=values),
        lambda slope, inputs: _OPS.silu_backward.grad_input(slope, inputs, grad_input=slope),
    ),
}
#: Dropout compares 16 random bits with its share.
_DRAWS: Final = 1 << 16


@dataclass
class Layer:
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
    activate: _Activate | None = None
    slope: _Slope | None = None
    dropout: float = 0.0

    @property
    def least(self) -> int:
        """The least of 16 random bits, read as a signed number, with which dropout keeps a unit."""
        return min(round(self.dropout * _DRAWS), _DRAWS - 1) - _DRAWS // 2

    @property
    def scale(self) -> float:
        """What the units that dropout keeps are scaled by."""
        return _DRAWS / (_DRAWS // 2 - self.least) if self.dropout else 1.0

    @property
    def n_left(self) -> int:
        """How many numbers a unit leaves behind on the way forward."""
        return 1 + self.norm + (self.activate is not None) + bool(self.dropout)


def is_perceptron(layers: nn.Module) -> bool:
    """Return whether layers are those of a perceptron.

    >>> is_perceptron(nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1))), is_perceptron(nn.Linear(3, 1))
    (True, False)
    """
    if not isinstance(layers, nn.Sequential):
        return False
    try:
        return bool(list(read(layers)))
    except ValueError:
        return False


def read(layers: nn.Sequential) -> Iterator[Layer]:
    """Yield the layers of a perceptron; a ValueError where there is anything that is none."""
    modules = list(layers)
    linear = [place for place, module in enumerate(modules) if isinstance(module, nn.Linear)]
    if not linear or linear[0] != 0 or linear[-1] != len(modules) - 1:
        raise ValueError("a perceptron begins and ends with a linear layer")
    start = 0
    for place, following in itertools.pairwise([*linear, len(modules)]):
        fan_out, fan_in = modules[place].get_parameter("weight").shape
        layer, after = Layer(fan_in, fan_out, start), modules[place + 1 : following]
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
