"""The nearest of many rows, whose features are partly dense and partly sparse."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.table.features import Features

#: Distances held at a time where a sparse block takes part: 64 MB of float32.
MOST_DISTANCES: Final = 2**24


class Neighbours:
    """Finds, for each of some rows, the nearest of `points` (Euclidean), by comparing with every one.

    Parameters
    ----------
    points : what to find among; of equally near ones, either may be found
    k : how many to find; all where there are fewer
    """

    def __init__(self, points: Features, k: int = 1) -> None:
        self.points = points
        self.k = min(k, len(points))
        if points.sparse is None:
            from sklearn.neighbors import NearestNeighbors  # a second to load, which most predictions need not wait

            self._index = NearestNeighbors(n_neighbors=self.k, algorithm="brute").fit(points.dense)
        else:
            squares = np.einsum("ij,ij->i", points.dense, points.dense)
            self._squares = squares + np.asarray(points.sparse.power(2).sum(axis=1)).ravel()

    def nearest(self, X: Features) -> NDArray[np.intp]:
        """Return (n_samples, k) the numbers of the points nearest to each row."""
        if X.sparse is None:
            found: NDArray[np.intp] = self._index.kneighbors(X.dense, return_distance=False)
            return found
        size = max(1, MOST_DISTANCES // max(1, len(self.points), X.n_sparse))
        pieces = [X.take(slice(start, start + size)) for start in range(0, len(X), size)]
        return np.concatenate([self._of_piece(piece) for piece in pieces])

    def _of_piece(self, X: Features) -> NDArray[np.intp]:
        # ‖a − b‖² is least where ‖b‖² − 2ab is. A few rows made dense at a time: each point's nonzeros then pick
        # columns that lie side by side, which is quicker than sparse by sparse.
        assert X.sparse is not None
        products = self.points.dense @ X.dense.T
        products += self.points.sparse @ np.ascontiguousarray(X.sparse.toarray().T)
        products *= -2
        products += self._squares[:, None]
        found: NDArray[np.intp] = (
            products.argmin(axis=0)[None] if self.k == 1 else np.argpartition(products, self.k - 1, axis=0)[: self.k]
        )
        return found.T
