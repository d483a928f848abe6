"""Trivial predictors that every result is shown beside: what needs no learning, or next to none.

`TrainingMean`, `NearestNeighbour` and `Ridge` predict from features; `SourceMean` knows only which data set (or
complex) a row is from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from tailbind.models.contract import Features, FloatArray, Rows, all_rows, chunks


@dataclass
class TrainingMean:
    """Predicts the mean of the training labels for every row."""

    mean: float = float("nan")

    def fit(self, X: Features, y: FloatArray, rows: Rows) -> Self:
        """Learn the mean of `y` over `rows`."""
        self.mean = float(y[rows].mean())
        return self

    def predict(self, X: Features, rows: Rows | None = None) -> FloatArray:
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
    """Predicts the label of the training row whose standardised features are nearest (Euclidean)."""

    mean: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    scale: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    points: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    labels: FloatArray = field(default_factory=lambda: np.empty(0))

    def fit(self, X: Features, y: FloatArray, rows: Rows) -> Self:
        """Keep `rows` of `X` (n_samples, n_features), standardised, and their labels."""
        chosen = X[rows]
        self.mean = chosen.mean(axis=0, dtype=np.float64).astype(np.float32)
        scale = chosen.std(axis=0, dtype=np.float64)
        self.scale = np.where(scale > 0, scale, 1).astype(np.float32)
        self.points, self.labels = (chosen - self.mean) / self.scale, y[rows]
        return self

    def predict(self, X: Features, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) the label of each row's nearest training row."""
        index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(self.points)
        pieces = [
            self.labels[index.kneighbors((X[piece] - self.mean) / self.scale, return_distance=False)[:, 0]]
            for piece in chunks(all_rows(X, rows))
        ]
        return np.concatenate(pieces) if pieces else np.empty(0)

    def state(self) -> dict[str, Any]:
        """Return the training rows, standardised, and their labels."""
        return {"mean": self.mean, "scale": self.scale, "points": self.points, "labels": self.labels}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the model that keeps those rows."""
        return cls(**{name: np.asarray(state[name]) for name in ("mean", "scale", "points", "labels")})


@dataclass
class Ridge:
    """Linear least squares with an L2 penalty on standardised features.

    Solved from the normal equations, gathered a chunk of rows at a time in float64, because the usual
    implementations copy the feature matrix once or twice. Agrees with scikit-learn's `Ridge` after
    `StandardScaler`.
    """

    alpha: float = 1.0
    coefficients: FloatArray = field(default_factory=lambda: np.empty(0))
    intercept: float = float("nan")

    def fit(self, X: Features, y: FloatArray, rows: Rows) -> Self:
        """Learn from `rows` of `X` (n_samples, n_features) and `y` (n_samples,)."""
        n, width = len(rows), X.shape[1]
        mean, y_mean = np.zeros(width), float(y[rows].mean())
        for piece in chunks(rows):
            mean += X[piece].sum(axis=0, dtype=np.float64) / n
        gram, moment = np.zeros((width, width)), np.zeros(width)
        for piece in chunks(rows):
            centred = X[piece].astype(np.float64) - mean
            gram += centred.T @ centred
            moment += centred.T @ (y[piece] - y_mean)
        scale = np.sqrt(np.diag(gram) / n)
        scale[scale == 0] = 1.0
        penalised = gram / np.outer(scale, scale) + self.alpha * np.eye(width)
        self.coefficients = np.linalg.solve(penalised, moment / scale) / scale
        self.intercept = y_mean - float(mean @ self.coefficients)
        return self

    def predict(self, X: Features, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) predicted pKd."""
        pieces = [X[piece].astype(np.float64) @ self.coefficients for piece in chunks(all_rows(X, rows))]
        return np.concatenate(pieces) + self.intercept if pieces else np.empty(0)

    def state(self) -> dict[str, Any]:
        """Return coefficients, intercept and penalty."""
        return {"alpha": self.alpha, "coefficients": self.coefficients, "intercept": self.intercept}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the model with those coefficients."""
        return cls(float(state["alpha"]), np.asarray(state["coefficients"]), float(state["intercept"]))
