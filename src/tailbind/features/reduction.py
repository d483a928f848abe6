"""Many columns brought down to a few by principal components, fitted on training rows and carried by the checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import FeatureError

#: Rows taken at a time, so that a table in double precision is never there whole.
STRETCH: Final = 8_192


class Rows(Protocol):
    """Rows of columns: an array, or what makes some of its rows when it is asked for them."""

    @property
    def shape(self) -> tuple[Any, ...]:
        """(n_samples, n_features)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Reduction:
    """Principal components of training rows.

    Attributes
    ----------
    mean : (n_features,) of the training rows
    components : (n_components, n_features) of unit length, the one of most variance first; of each, the entry that
        is largest in absolute value is positive
    explained : (n_components,) share of the training rows' variance that each keeps
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    explained: NDArray[np.float32]

    @property
    def n_components(self) -> int:
        """How many columns come out."""
        return len(self.components)

    def transform(self, X: Rows) -> NDArray[np.float32]:
        """Return (n_samples, n_components) the rows of `X` in the components; nan where a row has a nan.

        Sums are taken in double precision, so that a row comes out the same alone and among others.
        """
        if X.shape[1] != len(self.mean):
            raise FeatureError(
                f"The components were fitted on {len(self.mean):,} columns; got {X.shape[1]:,}. Give the same features."
            )
        out = np.empty((len(X), self.n_components), np.float32)
        across = self.components.T.astype(np.float64)
        for start in range(0, len(X), STRETCH):
            rows = slice(start, start + STRETCH)
            out[rows] = (X[rows].astype(np.float64) - self.mean) @ across
        return out

    def state(self) -> dict[str, Any]:
        """Return all that rebuilds it."""
        return {"mean": self.mean, "components": self.components, "explained": self.explained}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Reduction":
        """Return the reduction that `state` was taken from."""
        return cls(*(np.asarray(state[name], np.float32) for name in ("mean", "components", "explained")))


def fit_pca(X: Rows, n_components: int, *, weights: NDArray[np.int_] | NDArray[np.float64] | None = None) -> Reduction:
    """Return the principal components of the rows of `X`, as scikit-learn's PCA gives them.

    From the eigenvectors of the covariance matrix: nothing is drawn at random, and a row that is there many times
    needs to be given once only, with its number.

    Parameters
    ----------
    X : (n_samples, n_features) finite
    n_components : of them to keep; at most as many as there are columns, or rows
    weights : (n_samples,) how often each row counts; once unless given

    Raises
    ------
    FeatureError
        For more components than rows or columns, and for values that are not finite.

    Examples
    --------
    >>> line = np.array([[0, 0], [1, 1], [2, 2], [5, 5]], np.float32)
    >>> fit_pca(line, 1).transform(line).ravel().round().tolist()
    [-3.0, -1.0, 0.0, 4.0]
    """
    counts = np.ones(len(X)) if weights is None else np.asarray(weights, np.float64)
    chosen = np.flatnonzero(counts > 0)
    limit = min(len(chosen), X.shape[1])
    if not 1 <= n_components <= limit:
        raise FeatureError(
            f"PCA must have 1 to {limit:,} components here, as there are {X.shape[1]:,} columns and {len(chosen):,} "
            f"distinct training rows; got {n_components:,}. Ask for fewer, as in --set features.BLOCK.pca={limit}."
        )
    counts = counts[chosen]
    total = counts.sum()
    stretches = [chosen[start : start + STRETCH] for start in range(0, len(chosen), STRETCH)]
    shares = [counts[start : start + STRETCH] / total for start in range(0, len(chosen), STRETCH)]
    sums = np.zeros(X.shape[1])
    with np.errstate(invalid="ignore"):
        for rows, share in zip(stretches, shares, strict=True):
            sums += share @ X[rows].astype(np.float64)
    if not np.isfinite(sums).all():
        raise FeatureError("PCA must have finite numbers; some are not. Leave rows with empty features out.")
    mean: NDArray[np.float32] = sums.astype(np.float32)  # what `transform` subtracts
    covariance = np.zeros((X.shape[1], X.shape[1]))
    for rows, share in zip(stretches, shares, strict=True):
        centred = X[rows].astype(np.float64) - mean
        covariance += (centred * share[:, None]).T @ centred
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(values)[::-1][:n_components]
    components = vectors[:, order].T
    largest = np.abs(components).argmax(axis=1)
    components *= np.sign(components[np.arange(n_components), largest])[:, None]
    variance = values.clip(0).sum()
    explained = values[order].clip(0) / variance if variance > 0 else np.zeros(n_components)
    return Reduction(mean, components.astype(np.float32), explained.astype(np.float32))
