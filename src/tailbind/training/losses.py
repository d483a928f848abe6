"""Losses of single rows: each a frozen dataclass of its options that gives one value per row; the loop takes the mean.

A loss that learns something itself, such as the noise of the labels, has `build`, which makes the module that is
trained beside one network. Losses that compare the rows of a batch with each other are in `batch_losses`.

Those that the recipes train with also give their slopes, written out: on batches of a hundred rows PyTorch's automatic
differentiation takes several times as long for them as the losses themselves.

Predictions may be (n,), or (k, n) where a network has k outputs: what is (n,) in labels, weights and sides serves all.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tailbind.options import bounded, one_of
from tailbind.training.weights import SCHEMES, Weighted

#: No assay is more exact than this, in pKd: a learned noise stays above it, or a network that knows its rows by
#: heart would drive the likelihood to infinity.
SMALLEST_SIGMA: Final = 0.01
#: How labels marked < or > may be taken.
BOUNDS: Final = ("one_sided", "measured")


def sides(relation: NDArray[np.str_]) -> NDArray[np.float32]:
    """Return (n_samples,) on which side of its label the true value is: −1 for "<", 0 for "=", +1 for ">".

    >>> sides(np.array(["=", "<", ">"])).tolist()
    [0.0, -1.0, 1.0]
    """
    side: NDArray[np.float32] = (relation == ">").astype(np.float32) - (relation == "<").astype(np.float32)
    return side


def residual(predicted: Tensor, measured: Tensor, side: Tensor) -> Tensor:
    """Return predicted minus measured; 0 for a prediction on the stated side of a label that is a bound.

    >>> residual(torch.tensor([5.0, 7.0, 7.0]), torch.tensor([6.0, 6.0, 6.0]), torch.tensor([-1.0, -1.0, 0.0])).tolist()
    [0.0, 1.0, 1.0]
    """
    error = predicted - measured
    return torch.where(side * error > 0, torch.zeros_like(error), error)


@dataclass(frozen=True, kw_only=True)
class WeightedMse(Weighted):
    """Squared error times the weight of the row's bin. Every label counts as measured, also one marked < or >."""

    #: Whether a value depends on the other rows of the batch.
    compares_rows: ClassVar[bool] = False
    #: Whether a label marked < or > is taken as a bound.
    takes_bounds: ClassVar[bool] = False

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd and weights, whatever the sides."""
        return weight * (predicted - measured).square()

    def with_slopes(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, and their slopes in `predicted`."""
        error = predicted - measured
        weighted = weight * error
        return weighted * error, weighted.mul_(2)


@dataclass(frozen=True, kw_only=True)
class FocalMse(Weighted):
    """The training notebook's focal loss, weight · e² · (1 + (e²)^(gamma/2)): large errors count for more.

    Every label counts as measured, also one marked < or >.

    Attributes
    ----------
    gamma : 0 doubles the squared error; 2 adds its square
    extreme_factor : as in `Weighted`, with another default
    """

    compares_rows: ClassVar[bool] = False
    takes_bounds: ClassVar[bool] = False

    gamma: float = bounded(2.0, low=0, high=8)
    extreme_factor: float = bounded(10.0, above=0)

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd and weights, whatever the sides."""
        squared = (predicted - measured).square()
        # For gamma 2 the power is the identity; below 2, its slope at an error of exactly 0 is infinite.
        focus = squared if self.gamma == 2 else squared.clamp_min(1e-12).pow(self.gamma / 2)
        return weight * squared * (1 + focus)

    def with_slopes(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, and their slopes in `predicted`."""
        error = predicted - measured
        focus = error.square()
        if self.gamma != 2:
            focus = focus.clamp_min_(1e-12).pow_(self.gamma / 2)
        weighted = weight * error
        losses = (focus + 1).mul_(error).mul_(weighted)
        return losses, focus.mul_(2 + self.gamma).add_(2).mul_(weighted)


@dataclass(frozen=True, kw_only=True)
class Bounded(Weighted):
    """Options of a loss that may take labels marked < or > as bounds; unweighted unless it is asked for.

    Attributes
    ----------
    bounds : `one_sided`: a prediction on the stated side of a bound is right, one beyond it wrong by the distance to
        it; `measured`: every label counts as measured
    """

    weights: str = one_of("none", SCHEMES)
    bounds: str = one_of("one_sided", BOUNDS)

    @property
    def takes_bounds(self) -> bool:
        """Whether a label marked < or > is taken as a bound."""
        return self.bounds == "one_sided"

    def error(self, predicted: Tensor, measured: Tensor, side: Tensor) -> Tensor:
        """Return (n,) errors, as the bounds are taken."""
        return residual(predicted, measured, side) if self.takes_bounds else predicted - measured


@dataclass(frozen=True, kw_only=True)
class CensoredMse(Weighted):
    """Squared error of measured labels; of one marked < or >, the squared distance beyond it, and 0 on its side.

    The one-sided error is the hinge of support vector regression on censored targets, squared (Shivaswamy, Chu &
    Jansche 2007, ICDM, 655–660). Unlike `Tobit` it has no noise, and asks nothing of a prediction on the stated side.

    Attributes
    ----------
    bound_weight : how much a marked label counts beside a measured one. Near a floor noise decides which rows are
        marked: a model that is held strictly to the bounds predicts the measured ones there too low
    """

    compares_rows: ClassVar[bool] = False
    takes_bounds: ClassVar[bool] = True

    weights: str = one_of("none", SCHEMES)
    bound_weight: float = bounded(1.0, low=0, high=1)

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd, weights and sides."""
        counts = torch.where(side == 0, 1.0, self.bound_weight)
        return weight * counts * residual(predicted, measured, side).square()

    def with_slopes(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, and their slopes in `predicted`."""
        error = residual(predicted, measured, side)
        weighted = torch.where(side == 0, weight, weight * self.bound_weight) * error
        return weighted * error, weighted.mul_(2)


@dataclass(frozen=True, kw_only=True)
class Huber(Bounded):
    """Squared error up to `delta`, then straight on: outliers pull no harder than an error of `delta`.

    e² for |e| ≤ delta, else 2 · delta · |e| − delta²: twice that of Huber 1964 (Ann. Math. Stat. 35:73–101, section 7),
    so that small errors count as in `WeightedMse`.

    Attributes
    ----------
    delta : in pKd
    """

    compares_rows: ClassVar[bool] = False

    delta: float = bounded(1.0, above=0, high=100)

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd, weights and sides."""
        size = self.error(predicted, measured, side).abs()
        near = size.clamp_max(self.delta)  # ½ near² + delta (size − near), doubled
        return weight * near * (2 * size - near)


@dataclass(frozen=True, kw_only=True)
class BoundedFocal(Bounded):
    """Squared error times a factor that grows with it from 1 to a stated bound: 1 + bonus · (1 − exp(−(e / scale)²)).

    Where the notebook's factor, 1 + e², has no bound, one row that is far off cannot outweigh a whole batch here. The
    saturating factor is that of the Welsch loss (Holland & Welsch 1977, Commun. Stat. 6:813–827), added instead of
    taken away: the idea is that of Focal-R (Yang et al. 2021, section 4), whose factor stays below 1.

    Attributes
    ----------
    bonus : what a large error counts for beyond 1: factors are below 1 + bonus
    scale : error in pKd that has 63 % of the bonus
    """

    compares_rows: ClassVar[bool] = False

    bonus: float = bounded(1.0, above=0, high=100)
    scale: float = bounded(1.0, above=0, high=100)

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd, weights and sides."""
        squared = self.error(predicted, measured, side).square()
        return weight * squared * (1 - self.bonus * torch.expm1(-squared / self.scale**2))


@dataclass(frozen=True, kw_only=True)
class Tobit(Weighted):
    """Negative log likelihood under normal noise; a label marked < or > is a bound (Tobin 1958; Amemiya 1984).

    Attributes
    ----------
    sigma : the noise's standard deviation in pKd, 0.05 to 0.35 in most assays; 0 to learn it. A learned one takes in
        what dropout and BatchNorm add while training, and comes out larger
    initial_sigma : where a learned one starts
    weights : as in `Weighted`, with another default
    """

    compares_rows: ClassVar[bool] = False
    takes_bounds: ClassVar[bool] = True

    sigma: float = bounded(0.2, low=0, high=100)
    initial_sigma: float = bounded(1.0, above=SMALLEST_SIGMA, high=100)
    weights: str = one_of("none", SCHEMES)

    def build(self) -> "NormalNoise":
        """Return the loss of one network, with a noise of its own."""
        return NormalNoise(self.sigma or self.initial_sigma, learned=not self.sigma)


class Noise(nn.Module):
    """A standard deviation of labels about predictions, given or learned beside one network.

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


class NormalNoise(Noise):
    """The loss of `Tobit` for one network, and its noise."""

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
