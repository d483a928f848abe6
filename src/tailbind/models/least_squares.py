"""Penalised least squares of rows that are partly dense and partly sparse: what `Ridge` solves.

Both ways gather products of columns a chunk of rows at a time in float64, because the usual implementations copy the
feature matrix once or twice, and none takes a dense block beside a sparse one without making either the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

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


def penalised_least_squares(X: Features, y: FloatArray, rows: Rows, alphas: Sequence[float]) -> list[Solution]:
    """Return for each penalty the coefficients that minimise ‖y − prediction‖² + alpha · ‖coefficients‖² over `rows`.

    Dense columns are penalised as if standardised over `rows`, sparse ones as they are; the intercept is free.

    Parameters
    ----------
    X : features of all rows
    y : (n_samples,) pKd
    alphas : the penalties; more than one costs little where there are few columns
    """
    if X.sparse is None or X.dense.shape[1] + X.n_sparse <= MOST_EXACT:
        return _exact(X, y, rows, alphas)
    return _iterative(X.dense, X.sparse[rows].astype(np.float64), y, rows, alphas)


def _exact(X: Features, y: FloatArray, rows: Rows, alphas: Sequence[float]) -> list[Solution]:
    """Solve the normal equations of all columns together."""
    n, n_dense = len(rows), X.dense.shape[1]
    width = n_dense + X.n_sparse
    mean, y_mean = np.zeros(width), float(y[rows].mean())
    for piece in chunks(rows):
        mean += _block(X, piece).sum(axis=0, dtype=np.float64) / n
    gram, moment = np.zeros((width, width)), np.zeros(width)
    for piece in chunks(rows):
        centred = _block(X, piece).astype(np.float64) - mean
        gram += centred.T @ centred
        moment += centred.T @ (y[piece] - y_mean)
    scale = _scales(mean, np.diag(gram) / n)
    scale[n_dense:] = 1.0
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
    dense: NDArray[np.float32], sparse: "csr_array", y: FloatArray, rows: Rows, alphas: Sequence[float]
) -> list[Solution]:
    """Eliminate the dense columns exactly; solve for the sparse ones by conjugate gradients.

    With Z the dense block standardised, S the sparse one centred (never formed) and Z'Z + alpha = L L', the sparse
    coefficients solve (S'S + alpha − Q'Q) w = S'y − Q' L⁻¹Z'y, where Q = L⁻¹Z'S. The diagonal preconditions.
    """
    from scipy.linalg import solve_triangular
    from scipy.sparse.linalg import LinearOperator, cg

    n, n_sparse = sparse.shape
    centred_y = y[rows] - y[rows].mean()
    mean, scale, gram, cross, moment = _dense_products(dense, sparse, centred_y, rows)
    transposed = sparse.T.tocsr()
    sparse_mean = np.asarray(sparse.sum(axis=0)).ravel() / n
    squares = np.asarray(sparse.power(2).sum(axis=0)).ravel() - n * sparse_mean**2
    shape = (n_sparse, n_sparse)

    def solved(alpha: float, w: FloatArray) -> Solution:
        lower = np.linalg.cholesky(gram + alpha * np.eye(len(gram)))
        half = solve_triangular(lower, cross, lower=True)
        half_moment = solve_triangular(lower, moment, lower=True)

        def product(w: FloatArray) -> FloatArray:
            of_rows: FloatArray = transposed @ (sparse @ w)
            result: FloatArray = of_rows - (n * (sparse_mean @ w)) * sparse_mean + alpha * w - half.T @ (half @ w)
            return result

        diagonal = np.maximum(squares + alpha - np.einsum("ij,ij->j", half, half), alpha)
        w, _ = cg(
            LinearOperator(shape, matvec=product, dtype=np.float64),
            transposed @ centred_y - half.T @ half_moment,
            x0=w,
            rtol=TOLERANCE,
            maxiter=MOST_ITERATIONS,
            M=LinearOperator(shape, matvec=lambda v: v / diagonal, dtype=np.float64),
        )
        of_dense = solve_triangular(lower, half_moment - half @ w, lower=True, trans="T") / scale
        return Solution(of_dense, w, float(y[rows].mean() - mean @ of_dense - sparse_mean @ w))

    found: dict[float, Solution] = {}
    start: FloatArray = np.zeros(n_sparse)
    for alpha in sorted(alphas, reverse=True):  # the stronger penalty is solved sooner, and near to the next
        found[alpha] = solved(alpha, start)
        start = found[alpha].sparse
    return [found[alpha] for alpha in alphas]


def _dense_products(
    dense: NDArray[np.float32], sparse: "csr_array", centred_y: FloatArray, rows: Rows
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return of the standardised dense block Z: means, scales, Z'Z, Z'S and Z'y."""
    n, width = len(rows), dense.shape[1]
    mean: FloatArray = np.zeros(width)
    square: FloatArray = np.zeros(width)
    for piece in chunks(rows):
        mean += dense[piece].sum(axis=0, dtype=np.float64) / n
    for piece in chunks(rows):
        square += np.square(dense[piece] - mean).sum(axis=0) / n
    scale = _scales(mean, square)
    gram: FloatArray = np.zeros((width, width))
    cross, moment = np.zeros((width, sparse.shape[1])), np.zeros(width)
    start = 0
    for piece in chunks(rows):
        taken = slice(start, start + len(piece))
        standardised = (dense[piece] - mean) / scale  # not in single precision: near-collinear columns need every digit
        gram += standardised.T @ standardised
        cross += (sparse[taken].T @ standardised).T
        moment += standardised.T @ centred_y[taken]
        start = taken.stop
    return mean, scale, gram, cross, moment
