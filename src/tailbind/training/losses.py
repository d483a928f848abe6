"""Losses: each a frozen dataclass of its options that gives one value per row; the loop takes the mean."""

from dataclasses import dataclass

from torch import Tensor

from tailbind.options import bounded, one_of
from tailbind.training.weights import SCHEMES


@dataclass(frozen=True)
class WeightedMse:
    """Squared error times the weight of the row's bin.

    Attributes
    ----------
    weights : how bins are weighted, see `training.weights`
    extreme_factor : multiplies the weights of the very weak and the very strong bin
    """

    weights: str = one_of("inverse", SCHEMES)
    extreme_factor: float = bounded(1.0, above=0)

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd and weights."""
        return weight * (predicted - measured).square()


@dataclass(frozen=True)
class FocalMse:
    """The seeds' focal loss, weight · e² · (1 + (e²)^(gamma/2)): large errors count for more.

    Attributes
    ----------
    gamma : 0 doubles the squared error; 2 adds its square
    weights, extreme_factor : as in `WeightedMse`
    """

    gamma: float = bounded(2.0, low=0, high=8)
    weights: str = one_of("inverse", SCHEMES)
    extreme_factor: float = bounded(10.0, above=0)

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd and weights."""
        squared = (predicted - measured).square()
        # For gamma 2 the power is the identity; below 2, its slope at an error of exactly 0 is infinite.
        focus = squared if self.gamma == 2 else squared.clamp_min(1e-12).pow(self.gamma / 2)
        return weight * squared * (1 + focus)
