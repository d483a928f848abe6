"""Trivial predictors that every result is shown beside: what needs no learning, or next to none.

`TrainingMean`, `NearestNeighbour` and `Ridge` predict from features; `SourceMean` knows only which data set (or
complex) a row is from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tailbind.models.contract import FloatArray, Inputs, Rows, all_rows, as_features, chunks
from tailbind.models.least_squares import Solution, penalised_least_squares
from tailbind.models.neighbours import Neighbours
from tailbind.table.features import Features

#: Penalties that a ridge regression is tried with.
ALPHAS: Final = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)


@dataclass
class TrainingMean:
    """Predicts the mean of the training labels for every row."""

    mean: float = float("nan")

    def fit(self, X: Inputs, y: FloatArray, rows: Rows) -> Self:
        """Learn the mean of `y` over `rows`."""
        self.mean = float(y[rows].mean())
        return self

    def predict(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return the mean, once per row."""
        return np.full(len(all_rows(X, rows)), self.mean)

    def state(self) -> dict[str, Any]:
        """Return the mean."""
        return {"mean": self.mean}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the model with that mean."""
        return cls(float(state["mean"]))


@dataclass
class SourceMean:
    """Predicts the training mean of the row's data set, the overall mean for a data set never seen."""

    means: dict[str, float] = field(default_factory=dict)
    overall: float = float("nan")

    def fit(self, source: NDArray[np.str_], y: FloatArray, rows: Rows) -> Self:
        """Learn from `source` (n_samples,) and `y` (n_samples,) at `rows`."""
        names, index = np.unique(source[rows], return_inverse=True)
        sums = np.bincount(index, weights=y[rows])
        self.means = dict(zip(names.tolist(), (sums / np.bincount(index)).tolist(), strict=True))
        self.overall = float(y[rows].mean())
        return self

    def predict(self, source: NDArray[np.str_], rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) the mean of each row's source."""
        taken = source if rows is None else source[rows]
        names, index = np.unique(taken, return_inverse=True)
        return np.array([self.means.get(str(name), self.overall) for name in names])[index]

    def state(self) -> dict[str, Any]:
        """Return the means by source."""
        return {"means": dict(self.means), "overall": self.overall}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the model with those means."""
        return cls(dict(state["means"]), float(state["overall"]))


@dataclass
class NearestNeighbour:
    """Predicts the label of the training row whose features are nearest (Euclidean).

    Dense columns are standardised; a sparse block counts as it is.
    """

    mean: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    scale: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    points: Features = field(default_factory=lambda: Features(np.empty((0, 0), np.float32), ()))
    labels: FloatArray = field(default_factory=lambda: np.empty(0))

    def fit(self, X: Inputs, y: FloatArray, rows: Rows) -> Self:
        """Keep `rows` of `X` (n_samples, n_features), standardised, and their labels."""
        chosen = as_features(X).take(rows)
        self.mean = chosen.dense.mean(axis=0, dtype=np.float64).astype(np.float32)
        scale = chosen.dense.std(axis=0, dtype=np.float64)
        self.scale = np.where(scale > 0, scale, 1).astype(np.float32)
        self.points, self.labels = self._standardised(chosen), y[rows]
        return self

    def predict(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) the label of each row's nearest training row."""
        features, index = as_features(X), Neighbours(self.points)
        pieces = [
            self.labels[index.nearest(self._standardised(features.take(piece)))] for piece in chunks(all_rows(X, rows))
        ]
        return np.concatenate(pieces) if pieces else np.empty(0)

    def _standardised(self, X: Features) -> Features:
        return replace(X, dense=(X.dense - self.mean) / self.scale)

    def state(self) -> dict[str, Any]:
        """Return the training rows, standardised, and their labels."""
        sparse = self.points.sparse
        return {
            "mean": self.mean,
            "scale": self.scale,
            "points": self.points.dense,
            "labels": self.labels,
            "sparse": None if sparse is None else [sparse.data, sparse.indices, sparse.indptr, list(sparse.shape)],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the model that keeps those rows."""
        points = as_features(np.asarray(state["points"]))
        if state.get("sparse") is not None:
            data, indices, indptr, shape = state["sparse"]
            sparse = csr_array((np.asarray(data), np.asarray(indices), np.asarray(indptr)), shape=tuple(shape))
            points = replace(points, sparse=sparse, sparse_names=tuple(f"s{column}" for column in range(shape[1])))
        return cls(np.asarray(state["mean"]), np.asarray(state["scale"]), points, np.asarray(state["labels"]))


@dataclass
class Ridge:
    """Linear least squares with an L2 penalty, on standardised dense columns and on sparse ones as they are.

    Agrees with scikit-learn's `Ridge`, after `StandardScaler` on the dense columns. Where sparse columns are so many
    that it iterates, only as nearly as the iterations that `least_squares` allows come: least so at a small penalty.
    """

    alpha: float = 1.0
    coefficients: FloatArray = field(default_factory=lambda: np.empty(0))
    intercept: float = float("nan")
    sparse_coefficients: FloatArray = field(default_factory=lambda: np.empty(0))

    def fit(self, X: Inputs, y: FloatArray, rows: Rows) -> Self:
        """Learn from `rows` of `X` (n_samples, n_features) and `y` (n_samples,)."""
        (found,) = penalised_least_squares(as_features(X), y, rows, [self.alpha])
        return self._take(found)

    @classmethod
    def chosen(cls, X: Inputs, y: FloatArray, rows: Rows, validation: Rows) -> Self:
        """Return the model of the penalty, one of `ALPHAS`, whose squared error on the validation rows is least.

        A penalty that suits a hundred thousand rows of one family is none for a thousand antibodies with more
        features than rows.
        """
        found = penalised_least_squares(as_features(X), y, rows, ALPHAS)
        models = [cls(alpha)._take(solution) for alpha, solution in zip(ALPHAS, found, strict=True)]
        errors = [float(np.square(model.predict(X, validation) - y[validation]).mean()) for model in models]
        return models[int(np.argmin(errors))]

    def _take(self, found: Solution) -> Self:
        self.coefficients, self.sparse_coefficients, self.intercept = found.dense, found.sparse, found.intercept
        return self

    def predict(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) predicted pKd."""
        features = as_features(X)
        pieces = []
        for piece in chunks(all_rows(X, rows)):
            pieces.append(features.dense[piece].astype(np.float64) @ self.coefficients)
            if features.sparse is not None:
                pieces[-1] += features.sparse[piece] @ self.sparse_coefficients
        return np.concatenate(pieces) + self.intercept if pieces else np.empty(0)

    def state(self) -> dict[str, Any]:
        """Return coefficients, intercept and penalty."""
        return vars(self).copy()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the model with those coefficients."""
        return cls(
            float(state["alpha"]),
            np.asarray(state["coefficients"]),
            float(state["intercept"]),
            np.asarray(state["sparse_coefficients"]),
        )
