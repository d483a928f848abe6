"""How far rows of feature columns lie from the training rows, told by a thousand of them.

For tables that bring features and no sequences. Columns are standardised. A row is then its principal components and
the length of what these leave over, so that a row that is unlike training in any direction at all is far away; the
distance between two such short rows is never above that of the whole ones. The training rows that stand for all are
chosen one after the other, each the farthest from those chosen before (Gonzalez, Theoretical Computer Science 38:293,
1985), so that no group of rows goes without, however small it is.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.features.reduction import Rows, fit_pca

#: Training rows that are looked at, and those of them that stand for all.
LOOKED_AT: Final = 20_000
KEPT: Final = 1_000
#: Rows whose distances are taken together: so few that these stay in the cache.
AT_ONCE: Final = 1_024
#: Principal components of a row.
COMPONENTS: Final = 64

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cloud:
    """Training rows, and the coordinates in which distances from them are taken.

    Attributes
    ----------
    mean, scale : (n_features,) of the training rows
    components : (n_components, n_features) principal directions of the standardised columns
    points : (n_points, n_components + 1) the rows that stand for all
    """

    mean: Array
    scale: Array
    components: Array
    points: Array

    def distance(self, X: Rows, rows: NDArray[np.intp] | None = None) -> Array:
        """Return (n_rows,) the distance of each row to the nearest point; nan where a row has a nan.

        Which point is the nearest is told in single precision, how far it is in double.

        Parameters
        ----------
        X : (n_samples, n_features)
        rows : of them; all unless given
        """
        n_rows = len(X) if rows is None else len(rows)
        found = np.empty(n_rows)
        halves = np.square(self.points).sum(axis=1) / 2
        against = np.column_stack([self.points, -halves]).astype(np.float32).T  # |p − x|² = |x|² − 2 (x·p − |p|² / 2)
        for start in range(0, n_rows, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            own = _coordinates(X[part] if rows is None else X[rows[part]], self.mean, self.scale, self.components)
            near = np.column_stack([own, np.ones(len(own))]).astype(np.float32) @ against
            found[part] = np.sqrt(np.square(own - self.points[near.argmax(axis=1)]).sum(axis=1))
        return found


def fit_cloud(X: Rows, rows: NDArray[np.intp]) -> Cloud:
    """Return the cloud of training rows.

    Parameters
    ----------
    X : (n_samples, n_features) finite
    rows : (n_training,) the training rows

    Examples
    --------
    >>> X = np.repeat(np.eye(2, dtype=np.float32), 10, axis=0)
    >>> cloud = fit_cloud(X, np.arange(20))
    >>> len(cloud.points), cloud.distance(np.array([[0, 1], [9, 9]], np.float32)).round().tolist()
    (2, [0.0, 24.0])
    """
    if len(rows) > LOOKED_AT:
        rows = np.random.default_rng(0).choice(rows, LOOKED_AT, replace=False)
    chosen = X[np.sort(rows)].astype(np.float64)
    mean, scale = chosen.mean(axis=0), chosen.std(axis=0)
    scale[scale == 0] = 1.0
    standard = ((chosen - mean) / scale).astype(np.float32)
    components = fit_pca(standard, min(COMPONENTS, *standard.shape)).components.astype(np.float64)
    return Cloud(mean, scale, components, _spread_out(_coordinates(chosen, mean, scale, components)))


def _coordinates(X: NDArray[np.floating], mean: Array, scale: Array, components: Array) -> Array:
    """Return (n, n_components + 1) the components of rows and the length of what these leave over."""
    standard = (X.astype(np.float64) - mean) / scale
    along = standard @ components.T
    beyond = np.square(standard).sum(axis=1) - np.square(along).sum(axis=1)
    return np.column_stack([along, np.sqrt(np.maximum(beyond, 0.0))])


def _spread_out(points: Array) -> Array:
    """Return up to `KEPT` of the points, each the farthest from those before it; no two equal."""
    squares = np.square(points).sum(axis=1)
    equal = 1e-9 * max(float(squares.max()), 1.0)  # what rounding leaves of no distance at all
    kept = [int(np.square(points - points.mean(axis=0)).sum(axis=1).argmin())]
    nearest = np.full(len(points), np.inf)
    while True:
        own = kept[-1]
        nearest = np.minimum(nearest, squares - 2 * (points @ points[own]) + squares[own])
        farthest = int(nearest.argmax())
        if len(kept) == KEPT or nearest[farthest] <= equal:
            return points[kept]
        kept.append(farthest)
