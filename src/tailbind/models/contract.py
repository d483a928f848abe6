"""What everything that predicts can do.

A model is described by a frozen dataclass of options in the registry, whose `build` gives an untrained one.
Closed-form models learn in `fit`; networks are trained by `tailbind.training`. Either way the result is
saved as `state()`, made of tensors, arrays, strings and JSON-able values, and rebuilt by `from_state`.
"""

from collections.abc import Mapping
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tailbind.table.features import Features

FloatArray: TypeAlias = NDArray[np.float64]
#: What models read: a `Features` record, or a plain array (n_samples, n_features) as scikit-learn's do.
Inputs: TypeAlias = Features | NDArray[np.float32]
Rows: TypeAlias = NDArray[np.intp]

#: Rows handled at a time where a whole table would need a second copy of itself.
CHUNK = 16_384


@runtime_checkable
class Predictive(Protocol):
    """Something fitted that turns features into pKd."""

    def predict(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) predicted pKd for all rows of `X`, or for `rows` of it in their order."""
        ...

    def state(self) -> dict[str, Any]:
        """Return all that `from_state` needs, as tensors, arrays, strings and JSON-able values."""
        ...

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the model that `state` was taken from."""
        ...


@runtime_checkable
class ClosedForm(Predictive, Protocol):
    """A model that learns in one call, without epochs."""

    def fit(self, X: Inputs, y: FloatArray, rows: Rows) -> Self:
        """Learn from `rows` of `X` (n_samples, n_features) and `y` (n_samples,) pKd."""
        ...


def chunks(rows: Rows) -> list[Rows]:
    """Return `rows` in pieces small enough to copy.

    >>> [len(piece) for piece in chunks(np.arange(20_000))]
    [16384, 3616]
    """
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]


def as_features(X: Inputs) -> Features:
    """Return a `Features` record as it is, a plain array as a dense block without a copy.

    >>> as_features(np.ones((2, 3), np.float32)).names
    ('x0', 'x1', 'x2')
    """
    return X if isinstance(X, Features) else Features(X, tuple(f"x{column}" for column in range(X.shape[1])))


def all_rows(X: Inputs, rows: Rows | None) -> Rows:
    """Return `rows`, or every row number of `X` where there are none."""
    return np.arange(len(X)) if rows is None else rows
