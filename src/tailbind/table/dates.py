"""The split by date: what is known earlier is trained on, what came later is the test."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import SplitError
from tailbind.table.parts import LATER, PARTS, TEST, TRAIN, VALIDATION, PartArray, Shares, column_values

_ISO_DATE = r"^\d{4}-\d{2}-\d{2}([T ].*)?$"


@dataclass(frozen=True)
class DateSplit(Shares):
    """Oldest rows to training, then validation, newest to test; rows of one date are on one side.

    `column` holds ISO dates (a time of day is ignored), years or other numbers. With folds, windows that
    expand: the rows are cut in `n_folds + 2` blocks by date, and fold `fold` trains on the first `fold + 1`
    of them, validates on the next and tests on the one after; later rows are "later", in no part. So each
    row from the third block on is tested once.
    """

    column: str = "date"

    def __call__(self, frame: pl.DataFrame) -> PartArray:
        """Return (n_samples,) "train", "val", "test" or, with folds, "later"."""
        self.check()
        _, order, counts = np.unique(dates(frame, self.column), return_inverse=True, return_counts=True)
        n_blocks = self.n_folds + 2 if self.n_folds else len(PARTS)
        if len(counts) < n_blocks:
            into = f" into {self.n_folds} folds" if self.n_folds else ""
            raise SplitError(
                f"A date split{into} needs at least {n_blocks} different dates; column {self.column!r} has "
                f"{len(counts)}. Choose another column or split.kind."
            )
        if not self.n_folds:
            return np.asarray(PARTS)[_blocks(counts, self.shares())[order]]
        block = _blocks(counts, np.full(n_blocks, 1 / n_blocks))[order] - self.fold
        return np.asarray((TRAIN, VALIDATION, TEST, LATER))[np.clip(block, 0, 3)]


def _blocks(counts: NDArray[np.intp], shares: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the block of each date, in order, so that blocks are near to their shares and none is empty.

    >>> _blocks(np.array([5, 1, 1, 1, 2]), np.array([0.6, 0.2, 0.2])).tolist()
    [0, 0, 1, 1, 2]
    """
    n, k = len(counts), len(shares)
    before = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    block = np.zeros(n, dtype=np.intp)
    start = 0
    for number, target in enumerate(np.cumsum(shares)[:-1], 1):
        choices = np.arange(start + 1, n - (k - number) + 1)
        start = int(choices[np.argmin(np.abs(before[choices] - target))])
        block[start:] = number
    return block


def dates(frame: pl.DataFrame, column: str) -> NDArray[np.float64]:
    """Return (n_samples,) numbers in the order of a column's dates: days for ISO dates, else as they stand.

    Raises
    ------
    SplitError
        When a cell is empty or unreadable, or dates and numbers are mixed.
    """
    text = pl.Series(column_values(frame, column))
    is_date = text.str.contains(_ISO_DATE)
    days = text.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32).cast(pl.Float64)
    days = days.set(~is_date, None)
    numbers = text.cast(pl.Float64, strict=False)
    numbers = numbers.set(~numbers.is_finite().fill_null(False), None)
    kind = days if days.null_count() <= numbers.null_count() else numbers
    bad = kind.is_null()
    if bad.any():
        ids = ", ".join(frame["row_id"].filter(bad)[:3])
        raise SplitError(
            f"Column {column!r} must hold ISO dates such as 2021-03-30, or years, or numbers, and one kind alone; got "
            f"{text.filter(bad)[0]!r} in {int(bad.sum()):,} rows (row_id {ids})."
        )
    return kind.to_numpy()
