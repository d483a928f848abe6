"""Columns brought to mean 0 and SD 1 over the training rows, which level off beyond what training saw.

A sequence unlike any in training has features far out of their range, and a linear model would follow them to absurd
predictions. So a value beyond the range that a column has over the training rows is drawn in: the further out, the
more, up to one more range; two different values stay different, as far as single precision can tell them apart.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Numbers of double precision made at a time: so few stay in the processor's cache.
BLOCK: Final = 65_536

#: A column whose SD is less than this share of its natural unit does not vary: only a few of very many rows differ,
#: and dividing by their SD would make each of them an outlier of hundreds.
LEAST_SPREAD: Final = 0.1

#: The range of a column is at most so many times its scale, however far out a few training rows lie.
WIDEST: Final = 20.0


@dataclass(frozen=True)
class Scaling:
    """How columns are scaled.

    Attributes
    ----------
    mean, scale : (d,) what is subtracted, and what the rest is divided by: the SD, or more where a column hardly
        varies or a few training rows lie far out
    low, high : (d,) the range over the training rows
    room : (d,) how far beyond its range a column can reach
    """

    mean: Array
    scale: Array
    low: Array
    high: Array
    room: Array

    def transform(self, X: NDArray[Any]) -> NDArray[np.float32]:
        """Return scaled values, (n_samples, d); nan stays nan.

        A value x above the range becomes high + room · u / (1 + u), where u = (x − high) / room; below it likewise.

        Parameters
        ----------
        X : (n_samples, d)

        Examples
        --------
        >>> scaling = fit_scaling(np.array([[0.0], [2.0]]), np.array([1, 1]), np.array([1.0]))
        >>> scaling.transform(np.array([[0.0], [2.0], [4.0], [1e9]])).round(2).tolist()
        [[-1.0], [1.0], [2.0], [3.0]]
        """
        scaled = np.empty(X.shape, np.float32)
        size = max(1, BLOCK // max(1, X.shape[1]))
        for start in range(0, len(X), size):
            part = X[start : start + size].astype(np.float64)
            inside = np.clip(part, self.low, self.high)
            np.subtract(part, inside, out=part)  # what lies beyond; nan where x is
            inside -= self.mean
            row, column = np.nonzero(part)
            beyond, room = part[row, column], self.room[column]
            share = np.divide(abs(beyond), room + abs(beyond), out=np.ones_like(beyond), where=~np.isinf(beyond))
            inside[row, column] += np.sign(beyond) * room * share
            scaled[start : start + size] = inside / self.scale
        return scaled

    def state(self) -> dict[str, Any]:
        """Return the arrays."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Scaling":
        """Return the scaling that `state` was taken from."""
        return cls(**{name: np.asarray(values, np.float64) for name, values in state.items()})


def fit_scaling(values: NDArray[Any], counts: NDArray[np.integer[Any]], unit: NDArray[Any]) -> Scaling:
    """Return the scaling of columns over training rows, from their distinct values and how many rows have each.

    Parameters
    ----------
    values : (n_distinct, d) where nan, a value that is not there: it does not count
    counts : (n_distinct,) training rows with each; those with none do not count
    unit : (d,) a difference that means something in a column: its scale where it does not vary in training

    Examples
    --------
    >>> scaling = fit_scaling(np.array([[0.0, 5.0], [4.0, 5.0]]), np.array([3, 1]), np.array([1.0, 2.0]))
    >>> scaling.mean.tolist(), scaling.scale.round(3).tolist(), scaling.room.tolist()
    ([1.0, 5.0], [1.732, 2.0], [4.0, 2.0])
    """
    used = np.flatnonzero(counts)
    width = values.shape[1]
    n, total, squares = np.zeros(width), np.zeros(width), np.zeros(width)
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for block, weight in _blocks(values, counts, used):
        there = ~np.isnan(block)
        n += (weight * there).sum(axis=0)
        total += (weight * np.where(there, block, 0)).sum(axis=0)
        low = np.minimum(low, np.where(there, block, np.inf).min(axis=0))
        high = np.maximum(high, np.where(there, block, -np.inf).max(axis=0))
    nowhere = n == 0
    n[nowhere], low[nowhere], high[nowhere] = 1, 0, 0
    mean = np.clip(total / n, low, high)  # rounding must not put a constant column's mean beside it
    for block, weight in _blocks(values, counts, used):
        squares += (weight * np.nan_to_num((block - mean) ** 2)).sum(axis=0)
    sd = np.sqrt(squares / n)
    scale = np.maximum(np.where(sd < LEAST_SPREAD * unit, unit, sd), (high - low) / WIDEST)
    return Scaling(mean, scale, low, high, np.maximum(high - low, unit))


def _blocks(
    values: NDArray[Any], counts: NDArray[np.integer[Any]], used: NDArray[np.intp]
) -> Iterator[tuple[Array, Array]]:
    """Yield blocks of the used rows, (m, d), and their counts, (m, 1), as float64."""
    size = max(1, BLOCK // max(1, values.shape[1]))
    for start in range(0, len(used), size):
        rows = used[start : start + size]
        yield values[rows].astype(np.float64), counts[rows, None].astype(np.float64)
