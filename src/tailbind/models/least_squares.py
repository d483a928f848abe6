"""Penalised least squares of rows that are partly dense and partly sparse: what `Ridge` solves.

Both ways gather products of columns a chunk of rows at a time in float64, because the usual implementations copy the
feature matrix once or twice, and none takes a dense block beside a sparse one without making either the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.models.contract import FloatArray, Rows, chunks
from tailbind.table.features import Features

if TYPE_CHECKING:
    from scipy.sparse import csr_array

#: Up to this many columns in all, the products of all of them with each other are gathered and solved exactly.
MOST_EXACT: Final = 2_000
#: Where the iterations end: relative size of what is left of the right-hand side, and how many there are at most. On
#: 200,000 rows with 39,000 sparse columns and 100 dense ones the error on other rows is the limit's to 0.1 % after 200
#: of them; with 1,260 dense ones and next to no penalty it is not yet, but so small a penalty is not chosen then.
TOLERANCE: Final = 1e-6
#: A column whose SD is at most so much of its mean is constant: in single precision no less can be told apart.
CONSTANT: Final = 1e-7
MOST_ITERATIONS: Final = 300


@dataclass(frozen=True)
class Solution:
    """What was fitted.

    Attributes
    ----------
    dense, sparse : (n_dense,) and (n_sparse,) coefficients, on the columns as they are
    intercept : what is added
    """

    dense: FloatArray
    sparse: FloatArray
    intercept: float


def penalised_least_squares(
    X: Features, y: FloatArray, rows: Rows, alphas: Sequence[float], weight: FloatArray | None = None
) -> list[Solution]:
    """Return for each penalty the coefficients that minimise ‖y − prediction‖² + alpha · ‖coefficients‖² over `rows`.

    Dense columns are penalised as if standardised over `rows`, sparse ones as they are; the intercept is free. Weights
    multiply the squared errors; they do not change what is standardised by.

    Parameters
    ----------
    X : features of all rows
    y : (n_samples,) pKd
    alphas : the penalties; more than one costs little where there are few columns
    weight : (n_samples,) of the squared errors; 1 unless given
    """
    weights = _Weights(y, rows, weight)
    if X.sparse is None or X.dense.shape[1] + X.n_sparse <= MOST_EXACT:
        return _exact(X, y, rows, alphas, weights)
    return _iterative(X.dense, X.sparse[rows].astype(np.float64), y, rows, alphas, weights)


class _Weights:
    """The weights of the rows that are learned from, or none.

    Parameters
    ----------
    y, weight : (n_samples,) of all rows
    rows : those learned from
    """

    def __init__(self, y: FloatArray, rows: Rows, weight: FloatArray | None) -> None:
        self._all = weight
        self._chosen = None if weight is None else weight[rows]
        self.total = float(len(rows)) if self._chosen is None else float(self._chosen.sum())
        self.y_mean = float(y[rows].mean()) if weight is None else float(np.average(y[rows], weights=self._chosen))

    def of(self, rows: Rows, values: NDArray[Any]) -> NDArray[Any]:
        """Return `values`, (n,) or (n, d), of some rows of the table times these rows' weights."""
        return values if self._all is None else (values.T * self._all[rows]).T

    def of_all(self, values: FloatArray) -> FloatArray:
        """Return `values` (n,) of all rows learned from times their weights."""
        return values if self._chosen is None else values * self._chosen

    @property
    def given(self) -> bool:
        """Whether there are any."""
        return self._all is not None


def _exact(X: Features, y: FloatArray, rows: Rows, alphas: Sequence[float], weights: _Weights) -> list[Solution]:
    """Solve the normal equations of all columns together."""
    n_dense, y_mean = X.dense.shape[1], weights.y_mean
    width = n_dense + X.n_sparse
    mean = np.zeros(width)
    for piece in chunks(rows):
        mean += weights.of(piece, _block(X, piece)).sum(axis=0, dtype=np.float64) / weights.total
    gram, moment = np.zeros((width, width)), np.zeros(width)
    for piece in chunks(rows):
        centred = _block(X, piece).astype(np.float64) - mean
        weighted = weights.of(piece, centred)
        gram += weighted.T @ centred
        moment += weighted.T @ (y[piece] - y_mean)
    scale = np.ones(width)
    scale[:n_dense] = (
        _scales(*_moments(X.dense, rows)) if weights.given else _scales(mean, np.diag(gram) / len(rows))[:n_dense]
    )
    gram /= np.outer(scale, scale)
    found = []
    for alpha in alphas:
        coefficients = np.linalg.solve(gram + alpha * np.eye(width), moment / scale) / scale
        intercept = y_mean - float(mean @ coefficients)
        found.append(Solution(coefficients[:n_dense], coefficients[n_dense:], intercept))
    return found


def _scales(mean: FloatArray, variance: FloatArray) -> FloatArray:
    """Return what columns are divided by: their SD; 1 for a constant one, whose SD is its mean's rounding."""
    sd = np.sqrt(variance)
    return np.where(sd <= CONSTANT * np.abs(mean), 1.0, sd)


def _block(X: Features, rows: Rows) -> NDArray[np.float32]:
    """Return all columns of a few rows, the sparse ones made dense."""
    if X.sparse is None:
        return X.dense[rows]
    return np.hstack([X.dense[rows], X.sparse[rows].toarray()])


def _iterative(
    dense: NDArray[np.float32],
    sparse: "csr_array",
    y: FloatArray,
    rows: Rows,
    alphas: Sequence[float],
    weights: _Weights,
) -> list[Solution]:
    """Eliminate the dense columns exactly; solve for the sparse ones by conjugate gradients.

    With Z the dense block standardised, S the sparse one centred (never formed) and Z'Z + alpha = L L', the sparse
    coefficients solve (S'S + alpha − Q'Q) w = S'y − Q' L⁻¹Z'y, where Q = L⁻¹Z'S. The diagonal preconditions. Weights
    stand inside each product of columns, and the means are theirs.
    """
    from scipy.linalg import solve_triangular
    from scipy.sparse.linalg import LinearOperator, cg

    n_sparse, total = sparse.shape[1], weights.total
    centred_y = y[rows] - weights.y_mean
    mean, scale, gram, cross, moment = _dense_products(dense, sparse, centred_y, rows, weights)
    transposed = sparse.T.tocsr()
    ones = weights.of_all(np.ones(len(rows)))
    sparse_mean = (transposed @ ones) / total
    squares = transposed.power(2) @ ones - total * sparse_mean**2
    shape = (n_sparse, n_sparse)

    def solved(alpha: float, w: FloatArray) -> Solution:
        lower = np.linalg.cholesky(gram + alpha * np.eye(len(gram)))
        half = solve_triangular(lower, cross, lower=True)
        half_moment = solve_triangular(lower, moment, lower=True)

        def product(w: FloatArray) -> FloatArray:
            of_rows: FloatArray = transposed @ weights.of_all(sparse @ w)
            result: FloatArray = of_rows - (total * (sparse_mean @ w)) * sparse_mean + alpha * w - half.T @ (half @ w)
            return result

        diagonal = np.maximum(squares + alpha - np.einsum("ij,ij->j", half, half), alpha)
        w, _ = cg(
            LinearOperator(shape, matvec=product, dtype=np.float64),
            transposed @ weights.of_all(centred_y) - half.T @ half_moment,
            x0=w,
            rtol=TOLERANCE,
            maxiter=MOST_ITERATIONS,
            M=LinearOperator(shape, matvec=lambda v: v / diagonal, dtype=np.float64),
        )
        of_dense = solve_triangular(lower, half_moment - half @ w, lower=True, trans="T") / scale
        return Solution(of_dense, w, float(weights.y_mean - mean @ of_dense - sparse_mean @ w))

    found: dict[float, Solution] = {}
    start: FloatArray = np.zeros(n_sparse)
    for alpha in sorted(alphas, reverse=True):  # the stronger penalty is solved sooner, and near to the next
        found[alpha] = solved(alpha, start)
        start = found[alpha].sparse
    return [found[alpha] for alpha in alphas]


def _dense_products(
    dense: NDArray[np.float32], sparse: "csr_array", centred_y: FloatArray, rows: Rows, weights: _Weights
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return of the standardised dense block Z: means, scales, Z'Z, Z'S and Z'y."""
    width = dense.shape[1]
    mean, square = _moments(dense, rows)
    scale = _scales(mean, square)
    if weights.given:
        mean = np.zeros(width)
        for piece in chunks(rows):
            mean += weights.of(piece, dense[piece]).sum(axis=0) / weights.total
    gram: FloatArray = np.zeros((width, width))
    cross, moment = np.zeros((width, sparse.shape[1])), np.zeros(width)
    start = 0
    for piece in chunks(rows):
        taken = slice(start, start + len(piece))
        standardised = (dense[piece] - mean) / scale  # not in single precision: near-collinear columns need every digit
        weighted = weights.of(piece, standardised)
        gram += weighted.T @ standardised
        cross += (sparse[taken].T @ weighted).T
        moment += weighted.T @ centred_y[taken]
        start = taken.stop
    return mean, scale, gram, cross, moment


def _moments(dense: NDArray[np.float32], rows: Rows) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of dense columns over `rows`, whatever their weights."""
    mean: FloatArray = np.zeros(dense.shape[1])
    square: FloatArray = np.zeros(dense.shape[1])
    for piece in chunks(rows):
        mean += dense[piece].sum(axis=0, dtype=np.float64) / len(rows)
    for piece in chunks(rows):
        square += np.square(dense[piece] - mean).sum(axis=0) / len(rows)
    return mean, square
