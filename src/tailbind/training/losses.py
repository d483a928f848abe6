"""Losses: each a frozen dataclass of its options that gives one value per row; the loop takes the mean.

A loss that learns something itself, such as the noise of the labels, also has `build`, which makes the module
that is trained beside one network.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tailbind.options import bounded, one_of
from tailbind.training.weights import SCHEMES

#: No assay is more exact than this, in pKd: a learned noise stays above it, or a network that knows its rows by
#: heart would drive the likelihood to infinity.
SMALLEST_SIGMA: Final = 0.01


def sides(relation: NDArray[np.str_]) -> NDArray[np.float32]:
    """Return (n_samples,) on which side of its label the true value is: −1 for "<", 0 for "=", +1 for ">".

    >>> sides(np.array(["=", "<", ">"])).tolist()
    [0.0, -1.0, 1.0]
    """
    side: NDArray[np.float32] = (relation == ">").astype(np.float32) - (relation == "<").astype(np.float32)
    return side


@dataclass(frozen=True)
class WeightedMse:
    """Squared error times the weight of the row's bin. Every label counts as measured, also one marked < or >.

    Attributes
    ----------
    weights : how bins are weighted, see `training.weights`
    extreme_factor : multiplies the weights of the very weak and the very strong bin
    """

    #: Whether a label marked < or > is taken as a bound.
    takes_bounds: ClassVar[bool] = False

    weights: str = one_of("inverse", SCHEMES)
    extreme_factor: float = bounded(1.0, above=0)

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd and weights, whatever the sides."""
        return weight * (predicted - measured).square()


@dataclass(frozen=True)
class FocalMse:
    """The training notebook's focal loss, weight · e² · (1 + (e²)^(gamma/2)): large errors count for more.

    Every label counts as measured, also one marked < or >.

    Attributes
    ----------
    gamma : 0 doubles the squared error; 2 adds its square
    weights, extreme_factor : as in `WeightedMse`
    """

    takes_bounds: ClassVar[bool] = False

    gamma: float = bounded(2.0, low=0, high=8)
    weights: str = one_of("inverse", SCHEMES)
    extreme_factor: float = bounded(10.0, above=0)

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd and weights, whatever the sides."""
        squared = (predicted - measured).square()
        # For gamma 2 the power is the identity; below 2, its slope at an error of exactly 0 is infinite.
        focus = squared if self.gamma == 2 else squared.clamp_min(1e-12).pow(self.gamma / 2)
        return weight * squared * (1 + focus)


@dataclass(frozen=True)
class Tobit:
    """Negative log likelihood under normal noise; a label marked < or > is a bound (Tobin 1958; Amemiya 1984).

    Attributes
    ----------
    sigma : the noise's standard deviation in pKd, 0.05 to 0.35 in most assays; 0 to learn it. A learned one takes in
        what dropout and BatchNorm add while training, and comes out larger
    initial_sigma : where a learned one starts
    weights, extreme_factor : as in `WeightedMse`
    """

    takes_bounds: ClassVar[bool] = True

    sigma: float = bounded(0.2, low=0, high=100)
    initial_sigma: float = bounded(1.0, above=SMALLEST_SIGMA, high=100)
    weights: str = one_of("none", SCHEMES)
    extreme_factor: float = bounded(1.0, above=0)

    def build(self) -> "NormalNoise":
        """Return the loss of one network, with a noise of its own."""
        return NormalNoise(self.sigma or self.initial_sigma, learned=not self.sigma)


class NormalNoise(nn.Module):
    """The loss of `Tobit` for one network, and its noise.

    Parameters
    ----------
    sigma : standard deviation in pKd, at the start where it is learned
    learned : whether it is
    """

    def __init__(self, sigma: float, *, learned: bool) -> None:
        super().__init__()
        # Learned on a log scale above the smallest, so that a step of the optimizer changes it by a share.
        start = torch.tensor(math.log(sigma - SMALLEST_SIGMA) if learned else sigma, dtype=torch.float32)
        self.learned = learned
        if learned:
            self.log_excess = nn.Parameter(start)
        else:
            self.register_buffer("fixed", start)

    @property
    def sigma(self) -> Tensor:
        """The noise's standard deviation in pKd."""
        return SMALLEST_SIGMA + self.log_excess.exp() if self.learned else self.get_buffer("fixed")

    def forward(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd, weights and sides."""
        return weight * negative_log_likelihood(predicted, measured, side, self.sigma)


def negative_log_likelihood(predicted: Tensor, measured: Tensor, side: Tensor, sigma: Tensor) -> Tensor:
    """Return −log of the likelihood of each label under normal noise about the prediction.

    With z = (measured − predicted) / sigma: ½ z² + log sigma + ½ log 2π for a measured label, −log Φ(z) for one
    that the true value is below, −log Φ(−z) for one that it is above (Amemiya 1984, J. Econometrics 24:3–61).

    Parameters
    ----------
    predicted, measured : (n,) pKd
    side : (n,) −1 for "<", 0 for "=", +1 for ">"
    sigma : standard deviation in pKd

    Examples
    --------
    >>> y, below = torch.tensor([6.0, 6.0]), torch.tensor([-1.0, -1.0])
    >>> negative_log_likelihood(torch.tensor([3.0, 6.0]), y, below, torch.tensor(1.0))
    tensor([0.0014, 0.6931])
    """
    z = (measured - predicted) / sigma
    density = z.square() / 2 + sigma.log() + math.log(2 * math.pi) / 2
    return torch.where(side == 0, density, -torch.special.log_ndtr(-side * z))
