"""A Gaussian process on sites and dense columns: what learns most from a few hundred labels.

`GaussianProcess` is the options; `Process` is the fitted model, exact, with the hyperparameters that the labels make
likeliest (Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, chapters 2 and 5).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tailbind.errors import FeatureError, TrainingError
from tailbind.models.contract import FloatArray, Inputs, Problem, Rows, all_rows, as_features
from tailbind.models.kernels import NOISE, Kernel
from tailbind.models.points import Layout, Points, complexes, in_turn
from tailbind.options import bounded, one_of, read_options
from tailbind.runtime import blas_threads_at_most, threads_at_most
from tailbind.table.features import Features

BOUNDS: Final = ("measured", "drop", "expect")
CHOICES: Final = ("families", "random")
#: SD of the prior of the logarithms of all hyperparameters but the sites' relevance.
PRIOR_SD: Final = 2.0
#: Added to the noise, as a share of the labels' variance, so that no factorisation fails.
JITTER: Final = 1e-6
#: Where the logarithms of hyperparameters may go.
RANGE: Final = (-6.0, 6.0)
#: Steps of the search for hyperparameters at most.
STEPS: Final = 60
#: Squared distances, of all groups together, held at a time while predicting: 256 MB, and twice that to compute them.
MOST_LIKENESSES: Final = 2**25
#: Numbers of one kind held at a time while tuning: few enough for memory that is there to be used again.
STRETCH: Final = 2**20
#: Training rows up to which one thread is as quick as several: so small a matrix is not worth sharing.
MOST_ALONE: Final = 500
#: Rounds in which the labels of censored rows are replaced by what the others say of them.
ROUNDS: Final = 5


@dataclass(frozen=True)
class GaussianProcess:
    """Options of a Gaussian process.

    Attributes
    ----------
    max_rows : training rows at most. Time grows with their cube
    choice : which rows, where there are more. `families`: a row of each complex (a family of heavy chains and one of
        antigens) in turn, so that all rows of small complexes are there, and as many of one large one as of another;
        `random`: whichever are drawn
    tuning_rows : of these, at most so many, drawn at random, decide the hyperparameters
    relevance : SD of the prior of each site's relevance, in natural logarithms. With a greater one, sites differ more
        in what they matter; with 0, or where more sites vary than can be told apart, all of a chain matter alike
    bounds : what is done with "<" and ">" labels. `measured`: each is taken as stated; `drop`: their rows are left
        out; `expect`: each is replaced by what the other rows lead to expect on its side of the bound
    """

    losses: ClassVar[frozenset[str]] = frozenset({"mse"})
    takes_weights: ClassVar[bool] = True
    uses_validation: ClassVar[bool] = False

    max_rows: int = bounded(3_000, low=10, high=20_000)
    choice: str = one_of("families", CHOICES)
    tuning_rows: int = bounded(1_000, low=10, high=20_000)
    relevance: float = bounded(1.0, low=0, high=5)
    bounds: str = one_of("expect", BOUNDS)

    @property
    def takes_bounds(self) -> bool:
        """Whether a label marked < or > is taken as a bound, or at least not as measured."""
        return self.bounds != "measured"

    @property
    def leaves_out_bounds(self) -> bool:
        """Whether rows whose label is marked < or > are not learned from at all."""
        return self.bounds == "drop"

    def fit(self, problem: Problem) -> "Process":
        """Return the process that has learned the training rows; validation rows are not looked at.

        Raises
        ------
        TrainingError
            When no training row is left to learn from.
        """
        rows = self._chosen(problem)
        with threads_at_most(1) if len(rows) <= MOST_ALONE else nullcontext():
            return self._fitted(problem, rows)

    def _fitted(self, problem: Problem, rows: Rows) -> "Process":
        """Return the process that has learned `rows`."""
        features = as_features(problem.X)
        layout = Layout.fit(features, rows)
        kernel = Kernel.of(layout)
        points, y, weight = layout.points(features, rows).told_apart(), problem.y[rows], problem.weight[rows]
        mean, sd = float(y.mean()), float(y.std()) or 1.0
        observed = _Observed(points, torch.from_numpy((y - mean) / sd), torch.from_numpy(weight / weight.mean()))
        few = np.sort(np.random.default_rng([problem.seed, 1]).permutation(len(rows))[: self.tuning_rows])
        parameters = self._tuned(kernel, observed.take(few), np.r_[NOISE, kernel.start()])
        if self.bounds == "expect" and (problem.relation[rows] != "=").any():
            observed = _expected(kernel, parameters, observed, problem.relation[rows])
            parameters = self._tuned(kernel, observed.take(few), parameters)
            stated = replace(observed, y=torch.from_numpy((y - mean) / sd))
            observed = _expected(kernel, parameters, stated, problem.relation[rows])
        sparse = None if features.sparse is None else features.sparse[rows]
        seen = Features(features.dense[rows], features.names, sparse, features.sparse_names)
        return Process(self, layout, parameters, mean, sd, observed, seen)

    def _chosen(self, problem: Problem) -> Rows:
        """Return the training rows to learn from, no more than are allowed."""
        rows = problem.train[problem.weight[problem.train] > 0]
        if self.bounds == "drop":
            rows = rows[problem.relation[rows] == "="]
        if not len(rows):
            raise TrainingError(
                'A Gaussian process needs a training row of weight above 0 whose relation is "="; there is none. '
                "Set model.bounds to measured or expect, to learn from bounds as well."
                if self.bounds == "drop"
                else "A Gaussian process needs a training row of weight above 0; there is none. Choose other weights."
            )
        if len(rows) <= self.max_rows:
            return rows
        how = "family by family in turn" if self.choice == "families" else "drawn at random"
        problem.notify(
            f"The Gaussian process learns from {self.max_rows:,} of the {len(rows):,} training rows, {how}: "
            "its time grows with their cube (model.max_rows)."
        )
        families = (
            complexes(as_features(problem.X), rows) if self.choice == "families" else np.zeros(len(rows), np.int64)
        )
        return rows[in_turn(families, self.max_rows, np.random.default_rng([problem.seed, 0]))]

    def _tuned(self, kernel: Kernel, observed: "_Observed", start: FloatArray) -> FloatArray:
        """Return (1 + n_hyperparameters,) the likeliest given labels and prior: the noise's logarithm, the kernel's."""
        from scipy.optimize import minimize

        middle = np.r_[NOISE, kernel.start()]
        n_scalars = len(middle) - kernel.n_sites
        sd = np.r_[np.full(n_scalars, PRIOR_SD), np.full(kernel.n_sites, self.relevance)]
        free = sd > 0
        stretches = list(_stretches(kernel, observed.points))

        def negative_log_posterior(values: FloatArray) -> tuple[float, FloatArray]:
            whole = middle.copy()
            whole[free] = values
            likelihood, slope = _likelihood_and_slope(kernel, whole, observed, stretches)
            distance = (values - middle[free]) / sd[free]
            return 0.5 * float(distance @ distance) - likelihood, distance / sd[free] - slope[free]

        bounds = [RANGE] * int(free.sum())
        options = {"maxiter": STEPS, "maxfun": STEPS + STEPS // 3}
        with blas_threads_at_most(1):  # the search's own vectors are short; its threads would wait beside PyTorch's
            found = minimize(
                negative_log_posterior, start[free], jac=True, method="L-BFGS-B", bounds=bounds, options=options
            )
        result: FloatArray = middle.copy()
        result[free] = found.x
        return result

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> "Process":
        """Return the process that `state` was taken from."""
        return Process.from_state(state)


@dataclass(frozen=True)
class _Observed:
    """Points with their labels, of mean 0 and SD 1, and their weights, of mean 1."""

    points: Points
    y: Tensor
    weight: Tensor

    def take(self, rows: Rows) -> "_Observed":
        chosen = torch.from_numpy(rows)
        return _Observed(self.points.take(rows), self.y[chosen], self.weight[chosen])


@dataclass(frozen=True)
class _Stretch:
    """Some rows of a covariance, up to and with the diagonal: what stands beyond it is the same once more.

    Attributes
    ----------
    rows : which
    points, others : of these rows, and of the columns
    still : (n_still, n_rows, n_columns) squared distances that do not change with the hyperparameters
    """

    rows: slice
    points: Points
    others: Points
    still: Tensor


def _stretches(kernel: Kernel, points: Points) -> Iterator[_Stretch]:
    """Yield all rows, so many at a time that what is computed of them stays small."""
    size = max(1, STRETCH // (len(points) * (1 + len(kernel.components))))
    for start in range(0, len(points), size):
        rows = slice(start, min(start + size, len(points)))
        some, others = points.take(rows), points.take(slice(0, rows.stop))
        yield _Stretch(rows, some, others, kernel.squares(some, others, kernel.still))


def _factor(kernel: Kernel, parameters: FloatArray, observed: _Observed) -> Tensor:
    """Return the Cholesky factor of the labels' covariance; a row of twice the weight has half the noise."""
    given = torch.from_numpy(parameters)
    with torch.inference_mode():
        covariance = torch.diag(torch.exp(given[0]) / observed.weight + JITTER)
        for part in _stretches(kernel, observed.points):
            likeness = kernel.matrix(given[1:], part.points, part.others, part.still)
            covariance[part.rows, : part.rows.stop] += likeness
        factor: Tensor = torch.linalg.cholesky(covariance)
    return factor


def _likelihood_and_slope(
    kernel: Kernel, parameters: FloatArray, observed: _Observed, stretches: Sequence[_Stretch]
) -> tuple[float, FloatArray]:
    """Return the logarithm of the labels' probability, and its slope along each of the parameters.

    Rasmussen and Williams 2006, equations 2.30 and 5.9: the slope along the covariance is (α αᵀ − K⁻¹) / 2.
    """
    given = torch.tensor(parameters, requires_grad=True)
    noise = torch.exp(given[0]) / observed.weight
    parts = [kernel.matrix(given[1:], part.points, part.others, part.still) for part in stretches]
    with torch.no_grad():
        covariance = torch.diag(noise + JITTER)
        for part, likeness in zip(stretches, parts, strict=True):
            covariance[part.rows, : part.rows.stop] += likeness
        factor = torch.linalg.cholesky(covariance)
        inverse = torch.cholesky_inverse(factor)
        alpha = inverse @ observed.y
        value = -0.5 * float(observed.y @ alpha) - float(torch.log(torch.diagonal(factor)).sum())
        slope = 0.5 * (torch.outer(alpha, alpha) - inverse)
        at_noise = torch.diagonal(slope).clone()
        slopes = []
        for part in stretches:
            own = slope[part.rows, : part.rows.stop].clone()
            own[:, : part.rows.start] *= 2  # for the same once more beyond the diagonal
            slopes.append(own)
    torch.autograd.backward([noise, *parts], [at_noise, *slopes])
    assert given.grad is not None
    return value - 0.5 * len(alpha) * math.log(2 * math.pi), given.grad.numpy()


def _expected(kernel: Kernel, parameters: FloatArray, observed: _Observed, relation: NDArray[np.str_]) -> _Observed:
    """Return the same with each bound replaced by what is expected of its row, given all other rows and the bound.

    What the others say of a row is normal (its leave-one-out prediction: Rasmussen and Williams 2006, equation 5.12);
    cut off at the bound, its mean takes the bound's place, and so on for a few rounds. No label crosses its bound.
    """
    from scipy.special import log_ndtr

    precision = torch.cholesky_inverse(_factor(kernel, parameters, observed)).numpy()
    stated = observed.y.numpy()
    side = np.select([relation == "<", relation == ">"], [-1.0, 1.0], 0.0)
    at = np.flatnonzero(side)
    sd = 1 / np.sqrt(np.diag(precision)[at])
    y = stated.copy()
    for _ in range(ROUNDS):
        middle = y[at] - (precision[at] @ y) * sd**2
        beyond = side[at] * (middle - stated[at]) / sd  # how far inside the bound the others put the row, in SDs
        ratio = np.exp(-0.5 * beyond**2 - 0.5 * math.log(2 * math.pi) - log_ndtr(beyond))
        y[at] = middle + side[at] * sd * ratio
    return replace(observed, y=torch.from_numpy(y))


@dataclass(frozen=True)
class Process:
    """A fitted Gaussian process.

    Attributes
    ----------
    options : what it was fitted with
    layout : how features become points
    parameters : (1 + n_hyperparameters,) logarithms of the noise's variance and of the kernel's hyperparameters
    mean, sd : of the training labels, in pKd
    observed : the training rows
    seen : the training rows' features, from which a file restores the points
    """

    options: GaussianProcess
    layout: Layout
    parameters: FloatArray
    mean: float
    sd: float
    observed: _Observed
    seen: Features

    def predict(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) predicted pKd.

        In double precision: coefficients are large and cancel, so that what single precision rounds away would depend
        on the rows that are predicted together, by 0.004 pKd in a blend.
        """
        seen, coefficients = self.observed.points, self._coefficients
        parts = [self._likeness(points, seen) @ coefficients for points in self._pieces(X, rows)]
        return torch.cat(parts).numpy() * self.sd + self.mean if parts else np.empty(0)

    def predict_with_sd(self, X: Inputs, rows: Rows | None = None) -> tuple[FloatArray, None]:
        """Return (n_samples,) predicted pKd, and no SD over members: there is one."""
        return self.predict(X, rows), None

    def predict_sd(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) the SD of a measurement of each row, in pKd, noise of an average row included."""
        parts = []
        parameters = torch.from_numpy(self.parameters)
        for points in self._pieces(X, rows):
            half = torch.linalg.solve_triangular(
                self._cholesky, self._likeness(points, self.observed.points).T, upper=False
            )
            variance = self._kernel.diagonal(parameters[1:], points) - half.square().sum(0)
            parts.append(torch.sqrt(variance.clamp_min(0) + torch.exp(parameters[0])))
        return torch.cat(parts).numpy() * self.sd if parts else np.empty(0)

    @cached_property
    def _kernel(self) -> Kernel:
        return Kernel.of(self.layout)

    @cached_property
    def _cholesky(self) -> Tensor:
        return _factor(self._kernel, self.parameters, self.observed)

    @cached_property
    def _coefficients(self) -> Tensor:
        return torch.cholesky_solve(self.observed.y[:, None], self._cholesky)[:, 0]

    def _likeness(self, points: Points, seen: Points) -> Tensor:
        with torch.inference_mode():
            return self._kernel.matrix(torch.from_numpy(self.parameters[1:]), points, seen)

    def _pieces(self, X: Inputs, rows: Rows | None) -> Iterator[Points]:
        """Yield the rows as points, as many at a time as their likenesses leave room for."""
        features = as_features(X)
        expected = (self.seen.dense.shape[1], self.seen.n_sparse)
        found = (features.dense.shape[1], features.n_sparse)
        if found != expected:
            raise FeatureError(
                f"The features must have {expected[0]:,} dense and {expected[1]:,} sparse columns, as in training; "
                f"got {found[0]:,} and {found[1]:,}. Compute them with the pipeline that was trained with the model."
            )
        chosen = all_rows(X, rows)
        size = max(1, MOST_LIKENESSES // (len(self.observed.y) * max(1, len(self.layout.groups))))
        for start in range(0, len(chosen), size):
            yield self.layout.points(features, chosen[start : start + size])

    def describe(self) -> str:
        """Return the size in words, as a run prints it."""
        noise = math.sqrt(math.exp(self.parameters[0])) * self.sd
        return (
            f"Gaussian process of {len(self.observed.y):,} rows, {self.layout.n_sites:,} sites and "
            f"{len(self.layout.dense):,} dense columns that vary in them, noise {noise:.2f} pKd"
        )

    def to(self, device: torch.device) -> Self:
        """Return the same: it is solved in double precision, on the processor."""
        return self

    def state(self) -> dict[str, Any]:
        """Return options, hyperparameters and the training rows."""
        sparse = self.seen.sparse
        return {
            "options": asdict(self.options),
            "layout": self.layout.state(),
            "parameters": self.parameters,
            "mean": self.mean,
            "sd": self.sd,
            "y": self.observed.y,
            "weight": self.observed.weight,
            "dense": self.seen.dense,
            "names": list(self.seen.names),
            "sparse": {} if sparse is None else {name: getattr(sparse, name) for name in ("data", "indices", "indptr")},
            "sparse_names": list(self.seen.sparse_names),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the process that `state` was taken from."""
        from scipy.sparse import csr_array

        dense, given = np.asarray(state["dense"]), state["sparse"]
        parts = tuple(np.asarray(given[name]) for name in ("data", "indices", "indptr")) if given else None
        names = tuple(state["sparse_names"])
        sparse = None if parts is None else csr_array(parts, shape=(len(dense), len(names)))
        seen = Features(dense, tuple(state["names"]), sparse, names)
        layout = Layout.from_state(state["layout"])
        return cls(
            read_options(GaussianProcess, state["options"], "model"),
            layout,
            np.asarray(state["parameters"]),
            float(state["mean"]),
            float(state["sd"]),
            _Observed(layout.points(seen).told_apart(), state["y"], state["weight"]),
            seen,
        )
