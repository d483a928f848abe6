"""The distinct sequences of a table, so that a block computes each of them once."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.table.schema import AffinityTable

#: Rows filled at a time: so few stay in the processor's cache.
BLOCK: Final = 256
#: Letters and numbers held at a time, likewise.
BUDGET: Final = 500_000


def distinct(values: pl.Series) -> tuple[list[str], NDArray[np.intp]]:
    """Return the distinct strings of a column in sorted order, and which of them each row has.

    Parameters
    ----------
    values : (n,) strings; null counts as ""

    Returns
    -------
    strings : (n_distinct,)
    index : (n,) into them

    Examples
    --------
    >>> strings, index = distinct(pl.Series(["QVQL", "EVQL", None, "QVQL"]))
    >>> strings, index.tolist()
    (['', 'EVQL', 'QVQL'], [2, 1, 0, 2])
    """
    texts = values.cast(pl.String).fill_null("").alias("text")
    strings = texts.unique().sort()
    numbered = strings.to_frame().with_row_index("index")
    index = texts.to_frame().join(numbered, on="text", how="left", maintain_order="left")["index"]
    return strings.to_list(), index.to_numpy().astype(np.intp)


def has_antibody(table: AffinityTable) -> NDArray[np.bool_]:
    """Return which rows have a heavy or a light chain, (n_samples,); the others have nothing to predict from.

    >>> from tailbind.table.schema import ReadingReport
    >>> frame = pl.DataFrame({"heavy": ["EVQL", "", ""], "light": ["", "DIQM", ""]})
    >>> has_antibody(AffinityTable(frame, np.empty((3, 0), np.float32), (), ReadingReport((), 3, {}, {}))).tolist()
    [True, True, False]
    """
    there = table.frame.select((pl.col("heavy").fill_null("") != "") | (pl.col("light").fill_null("") != ""))
    return there.to_series().to_numpy()


def spread(values: NDArray[np.float32], index: NDArray[np.intp], out: NDArray[np.float32]) -> None:
    """Write to each row of `out` the values it has, a block of rows at a time.

    Parameters
    ----------
    values : (n_distinct, d)
    index : (n,) into them
    out : (n, d) to be filled; may be columns of a wider array

    Examples
    --------
    >>> wide = np.zeros((3, 2), np.float32)
    >>> spread(np.array([[5], [7]], np.float32), np.array([1, 0, 1]), wide[:, 1:])
    >>> wide.tolist()
    [[0.0, 7.0], [0.0, 5.0], [0.0, 7.0]]
    """
    for start in range(0, len(index), BLOCK):
        out[start : start + BLOCK] = values[index[start : start + BLOCK]]


def stretches(sequences: Sequence[str], width: int) -> Iterator[slice]:
    """Yield stretches of sequences whose letters and columns together are few enough to be held.

    Parameters
    ----------
    sequences : (n,)
    width : numbers that are made of each

    Examples
    --------
    >>> list(stretches(["EVQL"] * 5, width=200_000))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    group = np.cumsum([len(sequence) + width for sequence in sequences]) // BUDGET
    bounds = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(sequences)]
    for start, end in pairwise(bounds):
        if end > start:
            yield slice(start, end)
