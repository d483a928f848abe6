"""Weights of training rows: by affinity bin, or by how many labels are near.

Every loss has the options of `Weighted`; `Weighted.of_rows` makes the weights, fitted on training labels alone.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import RecipeError
from tailbind.options import bounded, one_of
from tailbind.scale import BIN_NAMES, EXTREME_BINS, bin_index

Array = NDArray[np.float64]

#: How often labels like it occur → the weight of a row, up to a factor.
SCHEMES: Final = ("inverse", "sqrt_inverse", "effective_number", "none")
#: Those of `bin_weights`: the training notebook's, and none.
NOTEBOOK_SCHEMES: Final = ("inverse", "none")


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """Options of the weights of rows, which every loss has.

    Plain `inverse`, without a cap or smoothing, is the training notebook's formula as it stands, see `bin_weights`, and
    `none` is 1. Whatever else is asked for has mean 1 over the training rows.

    Attributes
    ----------
    weights : how a row's weight falls with the number of training rows like it: `inverse`, `sqrt_inverse`,
        `effective_number` (Cui et al. 2019) or `none`
    extreme_factor : multiplies the weights of the very weak and the very strong bin
    cap : largest weight of a training row, where their mean is 1; 0 for none
    beta : of `effective_number`: the number of rows that tell anything new nears 1 / (1 − beta), however many there are
    smoothing_sigma : "rows like it" are those of near labels, weighted by a normal kernel of this SD in pKd (label
        distribution smoothing, Yang et al. 2021); 0 for the rows of its affinity bin
    smoothing_width : width in pKd of the narrow bins that labels are then counted in, at multiples of it
    smoothing_reach : where the kernel ends, in SDs

    Raises
    ------
    RecipeError
        For an option that would have no effect beside the others.
    """

    weights: str = one_of("inverse", SCHEMES)
    extreme_factor: float = bounded(1.0, above=0)
    cap: float = bounded(0.0, low=0)
    beta: float = bounded(0.9999, above=0, below=1)
    smoothing_sigma: float = bounded(0.0, low=0, high=10)
    smoothing_width: float = bounded(0.1, low=0.001, high=10)
    smoothing_reach: float = bounded(3.0, above=0, high=10)

    def __post_init__(self) -> None:
        if 0 < self.cap <= 1:
            raise RecipeError(f"loss.cap must be above 1, the mean of the weights, or 0 for none; got {self.cap:g}.")
        if self.weights == "none" and self.extreme_factor == 1:
            self._refuse(("cap",), "rows are weighted by loss.weights or loss.extreme_factor")
        if self.weights == "none":
            self._refuse(("smoothing_sigma",), "loss.weights says how rows are weighted")
        if self.weights != "effective_number":
            self._refuse(("beta",), 'loss.weights is "effective_number"')
        if not self.smoothing_sigma:
            self._refuse(("smoothing_width", "smoothing_reach"), "loss.smoothing_sigma is above 0")
        elif self.smoothing_reach * self.smoothing_sigma < self.smoothing_width:
            raise RecipeError(
                "loss.smoothing_sigma times loss.smoothing_reach must be at least loss.smoothing_width, or nothing is "
                f"smoothed; got {self.smoothing_sigma:g} × {self.smoothing_reach:g} and {self.smoothing_width:g}."
            )

    def _refuse(self, names: tuple[str, ...], unless: str) -> None:
        """Raise where an option differs from its default and would have no effect."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise RecipeError(
                    f"loss.{name} must be {defaults[name]:g} unless {unless}; got {getattr(self, name):g}, which would "
                    "have no effect."
                )

    def of_rows(self, y: Array, train: NDArray[np.intp]) -> Array:
        """Return the weight of every row, from the labels of the training rows alone.

        A row of an affinity bin without training rows weighs 0; smoothed, one whose label is near no training label.

        Parameters
        ----------
        y : (n_samples,) pKd of the whole table
        train : training rows of it

        Returns
        -------
        (n_samples,) weights; but for the notebook's two schemes, of mean 1 over `train`

        Examples
        --------
        >>> y = np.array([6.0, 6.0, 6.0, 6.0, 8.0])
        >>> Weighted(weights="sqrt_inverse").of_rows(y, np.arange(5)).round(3).tolist()
        [0.833, 0.833, 0.833, 0.833, 1.667]
        """
        bins = bin_index(y)
        if self.weights in NOTEBOOK_SCHEMES and not self.smoothing_sigma:
            weights: Array = bin_weights(y[train], self.weights, self.extreme_factor)[bins]
            return capped(weights, train, self.cap) if self.cap else weights
        if self.smoothing_sigma:
            like = smoothed_counts(y, train, self.smoothing_sigma, self.smoothing_width, self.smoothing_reach)
        else:
            like = np.bincount(bins[train], minlength=len(BIN_NAMES)).astype(np.float64)[bins]
        extreme = np.isin(bins, [BIN_NAMES.index(name) for name in EXTREME_BINS])
        weights = scheme_weights(like, self.weights, self.beta) * np.where(extreme, self.extreme_factor, 1.0)
        return capped(weights, train, self.cap)


def bin_weights(y: Array, scheme: str, extreme_factor: float) -> Array:
    """Return one weight per bin, from the training labels alone.

    `inverse` is the notebook's `total / (n_bins * count)`, times `extreme_factor` for the very weak and the very
    strong bin; a bin without training rows weighs 0. `none` weighs every bin 1 (times the factor).

    Parameters
    ----------
    y : (n_samples,) pKd of the training rows
    scheme : one of `NOTEBOOK_SCHEMES`
    extreme_factor : multiplies the two extreme bins

    Returns
    -------
    (5,) weights, weakest bin first

    Examples
    --------
    >>> bin_weights(np.array([4.0, 6.0, 6.0, 8.0]), "inverse", 10.0).round(2).tolist()
    [8.0, 0.4, 0.8, 0.0, 0.0]
    """
    counts = np.bincount(bin_index(y), minlength=len(BIN_NAMES))
    weights = np.ones(len(BIN_NAMES))
    if scheme == "inverse":
        weights = np.divide(len(y), len(BIN_NAMES) * counts, out=np.zeros(len(BIN_NAMES)), where=counts > 0)
    elif scheme != "none":
        raise ValueError(f"scheme must be one of {', '.join(NOTEBOOK_SCHEMES)}; got {scheme!r}")
    weights[[BIN_NAMES.index(name) for name in EXTREME_BINS]] *= extreme_factor
    return weights


def scheme_weights(like: Array, scheme: str, beta: float) -> Array:
    """Return weights, up to a factor, from how many training rows are like each row; 0 where there are none.

    `inverse` is 1 / n, `sqrt_inverse` 1 / √n, and `effective_number` (1 − β) / (1 − βⁿ), which goes from 1 / n for few
    rows to a constant for many (Cui et al. 2019, Class-Balanced Loss Based on Effective Number of Samples, equation 4).

    Examples
    --------
    >>> scheme_weights(np.array([0.0, 4.0]), "sqrt_inverse", 0.9).tolist()
    [0.0, 0.5]
    >>> scheme_weights(np.array([1.0, 2.0]), "effective_number", 0.5).round(3).tolist()
    [1.0, 0.667]
    """
    formulas: dict[str, Callable[[Array], Array]] = {
        "inverse": lambda n: 1 / n,
        "sqrt_inverse": lambda n: 1 / np.sqrt(n),
        "effective_number": lambda n: (1 - beta) / -np.expm1(n * np.log(beta)),
    }
    weights = np.zeros(len(like))
    weights[like > 0] = formulas[scheme](like[like > 0])
    return weights


def smoothed_counts(y: Array, train: NDArray[np.intp], sigma: float, width: float, reach: float) -> Array:
    """Return how many training labels are near each row's label, counted in narrow bins and smoothed over them.

    Bin k is [k · width, (k + 1) · width). The counts are convolved with a normal kernel that sums to 1 and ends `reach`
    SDs from its middle (label distribution smoothing: Yang et al. 2021, Delving into Deep Imbalanced Regression,
    section 3.1; there with 5 bins and an SD of 2 bins, which is `reach` 1).

    Parameters
    ----------
    y : (n_samples,) pKd of the whole table
    train : training rows of it
    sigma, width : the kernel's SD, and the bins' width, in pKd
    reach : half width of the kernel in SDs

    Returns
    -------
    (n_samples,)

    Examples
    --------
    >>> y = np.array([6.0, 6.1, 6.1, 7.0])
    >>> smoothed_counts(y, np.arange(3), sigma=0.1, width=0.1, reach=1.0).round(3).tolist()
    [1.0, 1.178, 1.178, 0.0]
    """
    half = int(np.floor(round(reach * sigma / width, 9)))
    kernel = np.exp(-np.square(np.arange(-half, half + 1) * width / sigma) / 2)
    kernel /= kernel.sum()
    # Rounded first: 7.3 / 0.1 is a little less than 73.
    place = np.floor(np.round(y / width, 6)).astype(np.int64)
    if not len(train):
        return np.zeros(len(y))
    low, high = int(place[train].min()) - half, int(place[train].max()) + half
    counts = np.bincount(place[train] - low, minlength=high - low + 1)
    # "same" would give as many numbers as the longer of the two has; there are never fewer counts than kernel bins.
    smoothed = np.convolve(counts, kernel, mode="same")
    inside = (place >= low) & (place <= high)
    like = np.zeros(len(y))
    like[inside] = smoothed[place[inside] - low]
    return like


def capped(weights: Array, train: NDArray[np.intp], cap: float = 0.0) -> Array:
    """Return weights times a factor, and at most `cap`, so that their mean over the training rows is 1.

    With a cap, this holds exactly: the mean of the training rows is 1; none weighs more than `cap`; those that weigh
    less keep their ratios. (What is cut off the heaviest is given to all others by a common factor, which may lift
    further ones over the cap, until none is.) Other rows are treated alike.

    Parameters
    ----------
    weights : (n_samples,) not negative
    train : training rows; where they all weigh 0, the weights are returned as they are
    cap : above 1; 0 for none

    Examples
    --------
    >>> capped(np.array([1.0, 1.0, 1.0, 9.0]), np.arange(4)).round(3).tolist()
    [0.333, 0.333, 0.333, 3.0]
    >>> capped(np.array([1.0, 1.0, 1.0, 9.0]), np.arange(4), cap=2.0).round(3).tolist()
    [0.667, 0.667, 0.667, 2.0]
    """
    values, counts = np.unique(weights[train], return_counts=True)
    n, heaviest = len(train), len(values)  # the values from `heaviest` on are at the cap
    if not n or not values[-1] > 0:
        return weights
    factor = n / float(values @ counts)
    while cap and heaviest and factor * values[heaviest - 1] > cap:
        heaviest = int(np.searchsorted(factor * values, cap, side="right"))
        left = n - cap * counts[heaviest:].sum()
        below = float(values[:heaviest] @ counts[:heaviest])
        if not below > 0:  # all that weighs anything is at the cap
            break
        factor = left / below
    scaled: Array = weights * factor
    return np.minimum(scaled, cap) if cap else scaled


def effective_sample_size(weights: Array) -> float:
    """Return Kish's effective sample size, (Σw)² / Σw² (Kish 1965, Survey Sampling, section 11.7).

    >>> effective_sample_size(np.array([1.0, 1.0, 0.0]))
    2.0
    """
    return float(weights.sum() ** 2 / np.square(weights).sum())
