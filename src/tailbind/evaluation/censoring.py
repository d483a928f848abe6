"""Predictions judged by labels of which some are bounds: one-sided errors, and the share of pairs in order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


def evaluate_censored(y_true: Array, y_pred: Array, relation: NDArray[np.str_]) -> dict[str, Any]:
    """Return the one-sided errors on censored rows, and the concordance over all rows.

    Being on the stated side of a bound costs nothing; beyond it, the error is the distance to the bound.

    Parameters
    ----------
    y_true, y_pred : (n_samples,) pKd
    relation : (n_samples,) "=", "<" or ">"

    Returns
    -------
    dict
        n, n_below and n_above (rows marked < and >); one_sided_rmse, one_sided_mae and share_beyond (the share
        predicted on the wrong side), None without censored rows; concordance and concordance_pairs, see
        `concordance`.

    Examples
    --------
    >>> figures = evaluate_censored(np.array([6.0, 6.0, 8.0]), np.array([5.0, 6.5, 7.0]), np.array(["<", "<", "="]))
    >>> figures["one_sided_mae"], figures["share_beyond"], figures["concordance"], figures["concordance_pairs"]
    (0.25, 0.5, 1.0, 2)
    """
    below, above = relation == "<", relation == ">"
    rows = below | above
    signed = np.where(below, y_pred - y_true, y_true - y_pred)[rows]
    excess = np.maximum(signed, 0)
    index, n_pairs = concordance(y_true, y_pred, relation)
    return {
        "n": int(rows.sum()),
        "n_below": int(below.sum()),
        "n_above": int(above.sum()),
        "one_sided_rmse": float(np.sqrt(np.mean(np.square(excess)))) if rows.any() else None,
        "one_sided_mae": float(np.mean(excess)) if rows.any() else None,
        "share_beyond": float(np.mean(signed > 0)) if rows.any() else None,
        "concordance": index,
        "concordance_pairs": n_pairs,
    }


def concordance(y_true: Array, y_pred: Array, relation: NDArray[np.str_]) -> tuple[float | None, int]:
    """Return the share of comparable pairs that are predicted in the right order, and how many pairs those are.

    A pair is comparable where the order of its true values is certain: two different measured values; a measured
    value or a lower bound, and an upper bound at or below it; a measured value at or below a lower bound. Equal
    predictions count one half (Harrell et al. 1982, JAMA 247:2543–2546; Harrell, Lee & Mark 1996, Stat. Med.
    15:361–387, there with bounds of one side).

    Parameters
    ----------
    y_true, y_pred : (n_samples,) pKd
    relation : (n_samples,) "=", "<" or ">"

    Returns
    -------
    (float, int)
        0.5 for predictions by chance, 1 for a perfect order; None where no pair is comparable.

    Examples
    --------
    >>> concordance(np.array([6.0, 7.0, 8.0]), np.array([5.0, 9.0, 7.0]), np.array(["<", "=", "="]))
    (0.6666666666666666, 3)
    """
    measured = relation == "="
    weaker = np.flatnonzero(relation != ">")  # rows with an upper end: they can be the weaker of a pair
    stronger = np.flatnonzero(relation != "<")
    # In order of upper ends; a "<" comes before a measured row of the same value, for it is certainly weaker.
    weaker = weaker[np.lexsort([measured[weaker], y_true[weaker]])]
    ends = y_true[weaker]
    # A measured row is stronger than bounds "<" its own value, and not than rows measured at it; a ">" than both.
    n_bounds = np.searchsorted(ends[~measured[weaker]], y_true[stronger], side="right")
    values = ends[measured[weaker]]
    n_measured = np.where(
        measured[stronger],
        np.searchsorted(values, y_true[stronger], side="left"),
        np.searchsorted(values, y_true[stronger], side="right"),
    )
    first = n_bounds + n_measured  # so many of `weaker`, from the start, are certainly weaker
    n_pairs = int(first.sum())
    if not n_pairs:
        return None, 0
    ranks = np.unique(y_pred, return_inverse=True)[1]
    less, equal = _counts_among_first(ranks[weaker], first, ranks[stronger])
    return (less + equal / 2) / n_pairs, n_pairs


def _counts_among_first(values: Indices, first: Indices, queries: Indices) -> tuple[int, int]:
    """Return how often, over all queries, one of its `first` values is below the query, and equals it.

    The first k values are blocks whose sizes are the powers of two in k. Level by level, values are sorted within
    the blocks of one size, and each query that has such a block finds its place in it.

    Parameters
    ----------
    values : (n_values,) whole numbers from 0
    first : (n_queries,) how many values, from the start, each query is compared with
    queries : (n_queries,) whole numbers from 0

    Examples
    --------
    >>> _counts_among_first(np.array([3, 1, 2]), np.array([2, 3]), np.array([3, 3]))
    (3, 2)
    """
    less = equal = 0
    span = int(max(values.max(), queries.max())) + 1
    place = np.arange(len(values))
    for level in range(int(first.max()).bit_length()):
        size = 1 << level
        keys = np.sort((place // size) * span + values)
        having = (first & size) > 0
        start = (first[having] // (2 * size)) * (2 * size)
        wanted = (start // size) * span + queries[having]
        left, right = np.searchsorted(keys, wanted, side="left"), np.searchsorted(keys, wanted, side="right")
        less += int((left - start).sum())
        equal += int((right - left).sum())
    return less, equal
