"""Losses that compare the rows of a batch with each other. They too give one value per row; the loop takes the mean.

What such a loss says depends on which rows are together. Training batches are random, or stratified; validation rows
are taken in batches of the same size too, in an order that is random once and for all.

Predictions may be (n,), or (k, n) where a network has k outputs: what is (n,) in labels, weights and sides serves all.
"""

from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tailbind.options import bounded
from tailbind.training.losses import SMALLEST_SIGMA, Bounded, Noise, residual

#: The log of nothing, as good as: with −∞ itself, a row that is compared with none would have no slope but nan.
_NOTHING: Final = -1e9
#: Variances in pKd² below this are none; by anything smaller, slopes would be divided to infinity.
_NO_SPREAD: Final = 1e-9


@dataclass(frozen=True, kw_only=True)
class BalancedMse(Bounded):
    """Balanced MSE by the labels of the batch: −log of the prediction's likelihood as a share of that of all labels.

    The squared error is the likelihood's where labels are as common as they are in training; dividing by what the
    prediction would be worth for each label of the batch takes their commonness out (Ren et al. 2022, Balanced MSE for
    Imbalanced Visual Regression, CVPR, section 3.3, the batch-based Monte Carlo form; times 2 sigma², held fixed, as in
    the paper's code). With a large sigma this nears the squared error about the batch's mean.

    Attributes
    ----------
    sigma : standard deviation in pKd of labels about predictions; 0 to learn it
    initial_sigma : where a learned one starts
    bounds : as in `Bounded`; `one_sided` compares measured rows with measured rows alone, and has one-sided squared
        errors on the others
    """

    compares_rows: ClassVar[bool] = True

    sigma: float = bounded(0.5, low=0, high=100)
    initial_sigma: float = bounded(1.0, above=SMALLEST_SIGMA, high=100)

    def build(self) -> "BalancedNoise":
        """Return the loss of one network, with a noise of its own."""
        return BalancedNoise(self.sigma or self.initial_sigma, learned=not self.sigma, one_sided=self.takes_bounds)


class BalancedNoise(Noise):
    """The loss of `BalancedMse` for one network, and its noise.

    Parameters
    ----------
    sigma, learned : as in `Noise`
    one_sided : whether labels marked < or > are bounds
    """

    def __init__(self, sigma: float, *, learned: bool, one_sided: bool) -> None:
        super().__init__(sigma, learned=learned)
        self.one_sided = one_sided

    def forward(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd, weights and sides."""
        balanced = balanced_squared_error(predicted, measured, self.sigma, _counted(side, self.one_sided))
        if not self.one_sided:
            return weight * balanced
        return weight * torch.where(side == 0, balanced, residual(predicted, measured, side).square())


def balanced_squared_error(predicted: Tensor, measured: Tensor, sigma: Tensor, counted: Tensor) -> Tensor:
    """Return (n,) balanced squared errors: e² + 2 sigma² · log Σⱼ exp(−(predicted − measuredⱼ)² / 2 sigma²).

    The gradient to `sigma` is that of the value divided by 2 sigma² (Ren et al. 2022, equation 9 and the code to it).

    Parameters
    ----------
    predicted, measured : (n,) pKd
    sigma : standard deviation in pKd
    counted : (n,) which labels are summed over; a row that is not among them gets a value of no meaning

    Examples
    --------
    >>> y = torch.tensor([6.0, 8.0])
    >>> balanced_squared_error(torch.tensor([7.0, 8.0]), y, torch.tensor(1.0), torch.tensor([True, True]))
    tensor([1.3863, 0.2539])
    """
    twice = 2 * sigma.square()
    closeness = -(predicted.unsqueeze(-1) - measured).square() / twice
    of_all = torch.logsumexp(closeness.masked_fill(~counted, _NOTHING), dim=-1)
    return twice.detach() * ((predicted - measured).square() / twice + of_all)


@dataclass(frozen=True, kw_only=True)
class Concordant(Bounded):
    """Squared error plus `strength` · (1 − Lin's concordance correlation of the batch).

    Squared errors are least for predictions drawn to the mean; this coefficient, 2 cov / (var + var + (mean − mean)²),
    falls when predictions spread less than labels, which costs the tails most (Lin 1989, Biometrics 45:255–268). The
    term is the same for all rows of a batch and does not know their weights.

    Attributes
    ----------
    strength : of the term; it lies between 0 and 2 · strength, and is in pKd² like the errors
    bounds : as in `Bounded`; `one_sided` takes the coefficient over measured rows
    """

    compares_rows: ClassVar[bool] = True

    strength: float = bounded(1.0, above=0, high=1e6)

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd, weights and sides."""
        agreement = concordance_correlation(predicted, measured, _counted(side, self.takes_bounds))
        return weight * self.error(predicted, measured, side).square() + self.strength * (1 - agreement)


def concordance_correlation(predicted: Tensor, measured: Tensor, counted: Tensor) -> Tensor:
    """Return (1,) Lin's concordance correlation coefficient; 0 where neither side spreads, or nothing is counted.

    Parameters
    ----------
    predicted, measured : (n,) pKd
    counted : (n,) which rows to take

    Examples
    --------
    >>> concordance_correlation(torch.tensor([6.0, 7.0]), torch.tensor([6.0, 8.0]), torch.tensor([True, True]))
    tensor([0.6667])
    """
    share = counted.to(predicted.dtype) / counted.sum().clamp_min(1)

    def mean(values: Tensor) -> Tensor:
        return (share * values).sum(dim=-1, keepdim=True)

    of_predicted, of_measured = mean(predicted), mean(measured)
    a, b = predicted - of_predicted, measured - of_measured
    spread = mean(a.square()) + mean(b.square()) + (of_predicted - of_measured).square()
    return 2 * mean(a * b) / spread.clamp_min(_NO_SPREAD)


@dataclass(frozen=True, kw_only=True)
class Ranked(Bounded):
    """Squared error plus `strength` · the mean logistic loss of pairs: which of two rows binds more strongly.

    log(1 + exp(−(stronger − weaker) / scale)) of the predictions of every pair of the batch whose order is certain
    (RankNet: Burges et al. 2005, ICML, equation 3). The term is the same for all rows of a batch and does not know
    their weights. It costs time and memory by the square of the batch: more than about 1,000 rows are slow.

    Attributes
    ----------
    strength : of the term, in pKd² like the errors
    scale : difference in pKd that counts as clear
    bounds : as in `Bounded`; `one_sided` also takes pairs with bounds, where their order is certain
    """

    compares_rows: ClassVar[bool] = True

    strength: float = bounded(1.0, above=0, high=1e6)
    scale: float = bounded(0.5, above=0, high=100)

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd, weights and sides."""
        stronger = certainly_stronger(measured, side if self.takes_bounds else torch.zeros_like(side))
        wrong = pairwise_loss(predicted / self.scale, stronger)
        return weight * self.error(predicted, measured, side).square() + self.strength * wrong


def certainly_stronger(measured: Tensor, side: Tensor) -> Tensor:
    """Return (n, n) whether row i binds certainly more strongly than row j.

    That is where the lowest that i can be is above the highest that j can be; or equal to it, where one of them is a
    bound, for a bound is not reached.

    >>> certainly_stronger(torch.tensor([6.0, 6.0, 7.0]), torch.tensor([-1.0, 0.0, -1.0])).int().tolist()
    [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    """
    lowest = torch.where(side < 0, -torch.inf, measured).unsqueeze(-1)
    highest = torch.where(side > 0, torch.inf, measured)
    marked = (side != 0).unsqueeze(-1) | (side != 0)
    return (lowest > highest) | (marked & (lowest == highest))


def pairwise_loss(predicted: Tensor, stronger: Tensor) -> Tensor:
    """Return (1,) the mean of log(1 + exp(−(predictedᵢ − predictedⱼ))) over pairs with i the stronger; 0 if none.

    Parameters
    ----------
    predicted : (n,)
    stronger : (n, n) whether i is stronger than j

    Examples
    --------
    >>> pairwise_loss(torch.tensor([0.0, 0.0]), torch.tensor([[False, True], [False, False]]))
    tensor([0.6931])
    """
    difference = predicted.unsqueeze(-1) - predicted.unsqueeze(-2)
    wrong = torch.where(stronger, softplus(-difference), torch.zeros_like(difference)).sum(dim=(-1, -2))
    return (wrong / stronger.sum().clamp_min(1)).unsqueeze(-1)


def _counted(side: Tensor, takes_bounds: bool) -> Tensor:
    """Return (n,) which rows count as measured."""
    return side == 0 if takes_bounds else torch.ones_like(side, dtype=torch.bool)
