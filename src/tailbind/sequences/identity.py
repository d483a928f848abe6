"""How alike sequences are: pairwise, and each to the nearest of many.

The identity of two sequences is 1 − Levenshtein distance / length of the longer: 1 when they are equal, and
lower by one part in the length for each letter substituted, inserted or deleted. How the nearest of very many
is found without comparing with each is the work of `neighbours`.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tailbind.sequences.neighbours import nearest_other


def identity_matrix(sequences: Sequence[str]) -> NDArray[np.float32]:
    """Return the identity of every sequence with every other.

    Meant for up to a few thousand sequences: time and memory grow with the square of their number.

    Parameters
    ----------
    sequences : (n,) strings

    Returns
    -------
    (n, n) symmetric, ones on the diagonal; two empty sequences are equal

    Examples
    --------
    >>> identity_matrix(["EVQLVESG", "EVQLVQSG", "EVQLGG"]).tolist()
    [[1.0, 0.875, 0.625], [0.875, 1.0, 0.625], [0.625, 0.625, 1.0]]
    """
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    n = len(sequences)
    if not n:
        return np.zeros((0, 0), dtype=np.float32)
    scores = cdist(sequences, sequences, scorer=Levenshtein.normalized_similarity, dtype=np.float32, workers=-1)
    return np.asarray(scores, dtype=np.float32).reshape(n, n)


def nearest_identity(
    queries: Sequence[str], references: Sequence[str], *, exclude_itself: bool = False
) -> NDArray[np.float64]:
    """Return how alike each query and its nearest reference are.

    Exact while the comparisons that it takes stay within a budget, as they do for the families of variants and
    the natural sequences that measured tables hold. Beyond that, for very many sequences that are all different,
    the references are thinned out evenly: what is returned is then an estimate that is never too high.

    Parameters
    ----------
    queries : (n,) sequences; "" stands for none
    references : (m,) sequences, in any order, repeats allowed
    exclude_itself : the queries are members of the references, and a query's own entry does not count:
        an equal sequence does only where it occurs at least twice

    Returns
    -------
    (n,) identities in [0, 1]; nan where the query is "" or there is no (other) reference but ""

    Examples
    --------
    >>> nearest_identity(["EVQLVESG", "AAAAAAAA", ""], ["EVQLVQSG", "EVQLVESG"]).tolist()
    [1.0, 0.0, nan]
    >>> nearest_identity(["EVQLVESG", "EVQLVQSG"], ["EVQLVESG", "EVQLVQSG"], exclude_itself=True).tolist()
    [0.875, 0.875]
    """
    occurrences = Counter(references)
    occurrences.pop("", None)
    found = {"": float("nan")}
    enough = 2 if exclude_itself else 1
    found |= {query: 1.0 for query in set(queries) if query and occurrences[query] >= enough}
    # Sorted: what is found must not depend on the order of the rows.
    rest = sorted(set(queries) - found.keys())
    found |= dict(zip(rest, nearest_other(rest, sorted(occurrences)).tolist(), strict=True))
    return np.array([found[query] for query in queries], dtype=np.float64)
