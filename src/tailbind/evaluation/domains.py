"""The errors of predictions inside what a model knows, at its edge, and outside of it.

Where a row lies is found out by `features.domain`; here are the three words, and the figures of each.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.evaluation.metrics import Array, bias, mae, rmse

INSIDE, EDGE, OUTSIDE = "inside", "edge", "outside"
#: From what a model knows best to what it does not know.
DOMAINS: Final = (INSIDE, EDGE, OUTSIDE)


def by_domain(y_true: Array, y_pred: Array, domain: NDArray[np.str_]) -> dict[str, dict[str, Any] | None]:
    """Return the figures of the rows inside, at the edge and outside; None where there are no such rows.

    Parameters
    ----------
    y_true, y_pred : (n_samples,) pKd
    domain : (n_samples,) words of `DOMAINS`

    Examples
    --------
    >>> found = by_domain(np.array([7.0, 8.0]), np.array([7.0, 10.0]), np.array(["inside", "outside"]))
    >>> found["outside"]
    {'n': 1, 'rmse': 2.0, 'mae': 2.0, 'bias': 2.0}
    >>> found["edge"] is None
    True
    """
    figures: dict[str, dict[str, Any] | None] = {}
    for word in DOMAINS:
        true, predicted = y_true[domain == word], y_pred[domain == word]
        figures[word] = (
            {
                "n": len(true),
                "rmse": rmse(true, predicted),
                "mae": mae(true, predicted),
                "bias": bias(true, predicted),
            }
            if len(true)
            else None
        )
    return figures
