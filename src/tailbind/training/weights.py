"""Weights of training rows by affinity bin."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.scale import BIN_NAMES, EXTREME_BINS, bin_index

SCHEMES: Final = ("inverse", "none")


def bin_weights(y: NDArray[np.float64], scheme: str, extreme_factor: float) -> NDArray[np.float64]:
    """Return one weight per bin, from the training labels alone.

    `inverse` is the notebook's `total / (n_bins * count)`, times `extreme_factor` for the very weak and the very
    strong bin; a bin without training rows weighs 0. `none` weighs every bin 1 (times the factor).

    Parameters
    ----------
    y : (n_samples,) pKd of the training rows
    scheme : one of `SCHEMES`
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
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}; got {scheme!r}")
    weights[[BIN_NAMES.index(name) for name in EXTREME_BINS]] *= extreme_factor
    return weights


def effective_sample_size(weights: NDArray[np.float64]) -> float:
    """Return Kish's effective sample size, (Σw)² / Σw² (Kish 1965, Survey Sampling, section 11.7).

    >>> effective_sample_size(np.array([1.0, 1.0, 0.0]))
    2.0
    """
    return float(weights.sum() ** 2 / np.square(weights).sum())
