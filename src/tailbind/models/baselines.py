"""Trivial predictors that every result is shown beside: what needs no learning, or next to none.

`TrainingMean`, `PatternMean`, `NearestNeighbour` and `Ridge` predict from features; `SourceMean` knows only which
data set (or complex) a row is from. What recipes name are their options.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tailbind.errors import FeatureError, RecipeError
from tailbind.models.contract import FloatArray, Inputs, Problem, Rows, Single, all_rows, as_features, chunks
from tailbind.models.least_squares import Solution, penalised_least_squares
from tailbind.models.neighbours import Neighbours
from tailbind.options import bounded
from tailbind.table.features import Features

#: Penalties that a ridge regression is tried with.
ALPHAS: Final = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)


#: All of these learn by squared error alone.
MSE: Final = frozenset({"mse"})


@dataclass(frozen=True)
class TrainingMeanOptions:
    """Options of the training labels' mean: there are none."""

    losses: ClassVar[frozenset[str]] = MSE
    takes_weights: ClassVar[bool] = False
    uses_validation: ClassVar[bool] = False
    takes_bounds: ClassVar[bool] = False

    def fit(self, problem: Problem) -> "TrainingMean":
        """Return the mean of the problem's training labels."""
        return TrainingMean().fit(problem.X, problem.y, problem.train)

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> "TrainingMean":
        """Return the mean that `state` was taken from."""
        return TrainingMean.from_state(state)


@dataclass
class TrainingMean(Single):
    """Predicts the mean of the training labels for every row."""

    mean: float = float("nan")

    def fit(self, X: Inputs, y: FloatArray, rows: Rows) -> Self:
        """Learn the mean of `y` over `rows`."""
        self.mean = float(y[rows].mean())
        return self

    def predict(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return the mean, once per row."""
        return np.full(len(all_rows(X, rows)), self.mean)

    def describe(self) -> str:
        """Return the mean in words."""
        return f"mean of the training labels, pKd {self.mean:.3f}"

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


@dataclass(frozen=True)
class SourceMeanOptions:
    """Options of the mean by data set: there are none.

    The data sets are told apart by the sparse columns that the features have: those of the block `category`, by the
    values of one column of the table. Dense columns have no say.
    """

    losses: ClassVar[frozenset[str]] = MSE
    takes_weights: ClassVar[bool] = False
    uses_validation: ClassVar[bool] = False
    takes_bounds: ClassVar[bool] = False

    def fit(self, problem: Problem) -> "PatternMean":
        """Return the means of the problem's training labels.

        Raises
        ------
        FeatureError
            When the features have no sparse columns.
        """
        return PatternMean().fit(problem.X, problem.y, problem.train)

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> "PatternMean":
        """Return the means that `state` was taken from."""
        return PatternMean.from_state(state)


@dataclass
class PatternMean(Single):
    """Predicts the training mean of the rows whose nonzero sparse columns are the same, else the overall mean.

    Attributes
    ----------
    groups : the means, by pattern
    """

    groups: SourceMean = field(default_factory=SourceMean)

    def fit(self, X: Inputs, y: FloatArray, rows: Rows) -> Self:
        """Learn from `rows` of the sparse columns of `X` and `y` (n_samples,)."""
        if not as_features(X).n_sparse:
            raise FeatureError(
                "source_mean needs sparse columns to tell rows apart by; these features have none. "
                "Add a block that has some, such as [features.category]."
            )
        self.groups = SourceMean().fit(_patterns(as_features(X).take(rows)), y[rows], np.arange(len(rows)))
        return self

    def predict(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) the mean of each row's pattern."""
        return self.groups.predict(_patterns(as_features(X).take(all_rows(X, rows))))

    def describe(self) -> str:
        """Return how many means there are."""
        return f"training means of {len(self.groups.means):,} groups of rows"

    def state(self) -> dict[str, Any]:
        """Return the means by pattern, and the overall mean."""
        return self.groups.state()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the model with those means."""
        return cls(SourceMean.from_state(state))


def _patterns(X: Features) -> NDArray[np.str_]:
    """Return (n_samples,) the numbers of each row's nonzero sparse columns, as text: "3 17", "" for none."""
    if X.sparse is None or not len(X):
        return np.full(len(X), "")
    of_rows = np.split(X.sparse.indices, X.sparse.indptr[1:-1])
    values = np.split(X.sparse.data, X.sparse.indptr[1:-1])
    texts = [" ".join(map(str, sorted(at[value != 0]))) for at, value in zip(of_rows, values, strict=True)]
    return np.array(texts, dtype=object)


@dataclass(frozen=True)
class NearestNeighbourOptions:
    """Options of the nearest neighbours.

    Attributes
    ----------
    k : how many training rows' labels are averaged
    """

    losses: ClassVar[frozenset[str]] = MSE
    takes_weights: ClassVar[bool] = False
    uses_validation: ClassVar[bool] = False
    takes_bounds: ClassVar[bool] = False

    k: int = bounded(1, low=1, high=1000)

    def fit(self, problem: Problem) -> "NearestNeighbour":
        """Return the problem's training rows, ready to be found among."""
        return NearestNeighbour(k=self.k).fit(problem.X, problem.y, problem.train)

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> "NearestNeighbour":
        """Return the rows that `state` was taken from."""
        return NearestNeighbour.from_state(state)


@dataclass
class NearestNeighbour(Single):
    """Predicts the label of the training row whose features are nearest (Euclidean), or the mean of the nearest k.

    Dense columns are standardised; a sparse block counts as it is.
    """

    mean: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    scale: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    points: Features = field(default_factory=lambda: Features(np.empty((0, 0), np.float32), ()))
    labels: FloatArray = field(default_factory=lambda: np.empty(0))
    k: int = 1

    def fit(self, X: Inputs, y: FloatArray, rows: Rows) -> Self:
        """Keep `rows` of `X` (n_samples, n_features), standardised, and their labels."""
        chosen = as_features(X).take(rows)
        self.mean = chosen.dense.mean(axis=0, dtype=np.float64).astype(np.float32)
        scale = chosen.dense.std(axis=0, dtype=np.float64)
        self.scale = np.where(scale > 0, scale, 1).astype(np.float32)
        self.points, self.labels = self._standardised(chosen), y[rows]
        return self

    def predict(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) the label of each row's nearest training row, or the mean of the nearest k."""
        features, index = as_features(X), Neighbours(self.points, self.k)
        pieces = [
            self.labels[index.nearest(self._standardised(features.take(piece)))].mean(axis=1)
            for piece in chunks(all_rows(X, rows))
        ]
        return np.concatenate(pieces) if pieces else np.empty(0)

    def describe(self) -> str:
        """Return how many neighbours are averaged, and among how many."""
        which = "nearest training row" if self.k == 1 else f"mean of the {self.k} nearest training rows"
        columns = f"{self.points.dense.shape[1]:,} dense and {self.points.n_sparse:,} sparse columns"
        return f"{which} of {len(self.labels):,}, in {columns}"

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
            "k": self.k,
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
        return cls(
            np.asarray(state["mean"]), np.asarray(state["scale"]), points, np.asarray(state["labels"]), int(state["k"])
        )


@dataclass(frozen=True)
class RidgeOptions:
    """Options of a ridge regression.

    Attributes
    ----------
    alphas : penalties; the one whose squared error on the validation rows is least is taken
    """

    losses: ClassVar[frozenset[str]] = MSE
    takes_weights: ClassVar[bool] = True
    uses_validation: ClassVar[bool] = True
    takes_bounds: ClassVar[bool] = False

    alphas: tuple[float, ...] = bounded(ALPHAS, above=0)

    def __post_init__(self) -> None:
        if not self.alphas:
            raise RecipeError(f"model.alphas must list one penalty or more, as in {list(ALPHAS)}; got none.")

    def fit(self, problem: Problem) -> "Ridge":
        """Return the model of the penalty that suits the problem's validation rows best."""
        weight = None if (problem.weight == 1).all() else problem.weight
        return Ridge.chosen(problem.X, problem.y, problem.train, problem.validation, self.alphas, weight)

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> "Ridge":
        """Return the model that `state` was taken from."""
        return Ridge.from_state(state)


@dataclass
class Ridge(Single):
    """Linear least squares with an L2 penalty, on standardised dense columns and on sparse ones as they are.

    Agrees with scikit-learn's `Ridge`, after `StandardScaler` on the dense columns. Where sparse columns are so many
    that it iterates, only as nearly as the iterations that `least_squares` allows come: least so at a small penalty.
    """

    alpha: float = 1.0
    coefficients: FloatArray = field(default_factory=lambda: np.empty(0))
    intercept: float = float("nan")
    sparse_coefficients: FloatArray = field(default_factory=lambda: np.empty(0))

    def fit(self, X: Inputs, y: FloatArray, rows: Rows, weight: FloatArray | None = None) -> Self:
        """Learn from `rows` of `X` (n_samples, n_features), `y` and `weight` (n_samples,)."""
        (found,) = penalised_least_squares(as_features(X), y, rows, [self.alpha], weight)
        return self._take(found)

    @classmethod
    def chosen(
        cls,
        X: Inputs,
        y: FloatArray,
        rows: Rows,
        validation: Rows,
        alphas: Sequence[float] = ALPHAS,
        weight: FloatArray | None = None,
    ) -> Self:
        """Return the model of the penalty, one of `alphas`, whose squared error on the validation rows is least.

        A penalty that suits a hundred thousand rows of one family is none for a thousand antibodies with more
        features than rows. Weights have no say in the choice.
        """
        found = penalised_least_squares(as_features(X), y, rows, alphas, weight)
        models = [cls(alpha)._take(solution) for alpha, solution in zip(alphas, found, strict=True)]
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

    def describe(self) -> str:
        """Return size and penalty."""
        n_dense, n_sparse = len(self.coefficients), len(self.sparse_coefficients)
        return f"ridge on {n_dense:,} dense and {n_sparse:,} sparse columns, penalty {self.alpha:g}"

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
