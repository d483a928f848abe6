"""What everything that predicts can do.

A model is described by a frozen dataclass of options in the registry. Those of a network `build` an untrained one,
which `tailbind.training` trains; those of a closed-form model `fit` one. Either way the result is saved as `state()`,
made of tensors, arrays, strings and JSON-able values, and rebuilt by the options' `from_state`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import FeatureError
from tailbind.table.features import Features

if TYPE_CHECKING:
    import torch

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

    def predict_with_sd(self, X: Inputs, rows: Rows | None = None) -> tuple[FloatArray, FloatArray | None]:
        """Return (n_samples,) predicted pKd, and the SD over the members of an ensemble; None where there are none."""
        ...

    def describe(self) -> str:
        """Return what it is and what it has learned, as a run prints it in one line."""
        ...

    def to(self, device: "torch.device") -> Self:
        """Return it ready to compute on a device; as it is where it knows none."""
        ...

    def state(self) -> dict[str, Any]:
        """Return all that the options' `from_state` needs, as tensors, arrays, strings and JSON-able values."""
        ...


@dataclass(frozen=True)
class Problem:
    """What there is to learn from, and which of its rows for what.

    Attributes
    ----------
    X : features of every row of the table
    y : (n_samples,) pKd
    relation : (n_samples,) "=", "<" or ">"
    weight : (n_samples,) weight of each row in the loss
    train, validation : row numbers to learn from and to choose by
    seed : of whatever is random
    notify : told of what a person should know, a sentence at a time
    """

    X: Inputs
    y: FloatArray
    relation: NDArray[np.str_]
    weight: FloatArray
    train: Rows
    validation: Rows
    seed: int = 42
    notify: Callable[[str], None] = field(default=lambda _: None, repr=False)


class Single(ABC):
    """A model that is no ensemble and computes in NumPy: what such models have in common."""

    @abstractmethod
    def predict(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) predicted pKd."""

    def predict_with_sd(self, X: Inputs, rows: Rows | None = None) -> tuple[FloatArray, None]:
        """Return (n_samples,) predicted pKd, and no SD."""
        return self.predict(X, rows), None

    def to(self, device: "torch.device") -> Self:
        """Return the model as it is: it knows no device."""
        return self


@runtime_checkable
class ClosedForm(Protocol):
    """The options of a model that learns in one call, without epochs.

    Attributes
    ----------
    losses : names of the losses that it can learn by; squared error, "mse", where a recipe names none
    takes_weights : whether it honours `Problem.weight`
    takes_bounds : whether a label marked < or > is taken as a bound, or fitted as if measured
    uses_validation : whether validation rows choose anything, such as a penalty
    """

    losses: ClassVar[frozenset[str]]
    takes_weights: ClassVar[bool]
    uses_validation: ClassVar[bool]

    @property
    def takes_bounds(self) -> bool:
        """Whether a label marked < or > is taken as a bound; a class variable where no option decides."""
        ...

    def fit(self, problem: Problem) -> Predictive:
        """Return the model that has learned the problem's training rows; validation rows choose, and nothing else."""
        ...

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Predictive:
        """Return the model that `state` was taken from."""
        ...


def mean_and_sd(members: FloatArray) -> tuple[FloatArray, FloatArray | None]:
    """Return (n_samples,) mean and SD of (n_samples, n_members) predictions; no SD of a single member.

    >>> mean_and_sd(np.array([[6.0, 8.0]]))
    (array([7.]), array([1.41421356]))
    """
    return members.mean(axis=1), members.std(axis=1, ddof=1) if members.shape[1] > 1 else None


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


def check_residues(features: Features, *, read: bool) -> None:
    """Refuse residues for a model that reads columns alone, and columns alone for one that reads residues.

    Raises
    ------
    FeatureError
        In either case.
    """
    if read and features.residues is None:
        raise FeatureError(
            "This model must have the block residues to read; there is none. Add [features.residues] to the recipe, "
            "or --set features.residues=true."
        )
    if features.residues is not None and not read:
        raise FeatureError(
            "The block residues must have a model that reads residues; this one reads columns. Use model.kind = "
            '"attention", or leave the block out with features.residues=false.'
        )


def all_rows(X: Inputs, rows: Rows | None) -> Rows:
    """Return `rows`, or every row number of `X` where there are none."""
    return np.arange(len(X)) if rows is None else rows
