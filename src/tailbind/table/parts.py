"""The three parts of a table, and the shares or folds in which a split deals them out.

What is dealt (rows, pairs, whole groups, dates) is the business of `splitting`, `grouped` and `dates`.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import SplitError, nearest
from tailbind.options import bounded

TRAIN, VALIDATION, TEST = "train", "val", "test"
PARTS: Final = (TRAIN, VALIDATION, TEST)
#: Rows taken from the validation part to calibrate intervals.
CALIBRATION: Final = "cal"
#: Rows measured after the test window of a fold by date: in no part, for they were not known then.
LATER: Final = "later"
PART_SPELLINGS: Final = {
    "train": TRAIN, "training": TRAIN,
    "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "dev": VALIDATION,
    "test": TEST, "testing": TEST,
}  # fmt: skip

PartArray: TypeAlias = NDArray[np.str_]


@dataclass(frozen=True)
class Seeded:
    """What every split by chance has: a seed."""

    seed: int = bounded(42, low=0, high=2**32 - 1)


@dataclass(frozen=True)
class Shares:
    """How large the parts are: fractions of the whole, or folds of equal size.

    With `n_folds` the fractions have no say: fold `fold` (from 0) is the test part, the next one, after the
    last the first, the validation part, and the others are the training part. The folds are the same
    whichever is chosen, so over all of them each row is tested once.
    """

    test_fraction: float = bounded(0.15, above=0, below=1)
    val_fraction: float = bounded(0.15, above=0, below=1)
    n_folds: int = bounded(0, low=0)
    fold: int = bounded(0, low=0)

    def shares(self) -> NDArray[np.float64]:
        """Return (3,) the shares of training, validation and test, or (n_folds,) equal ones; they sum to 1.

        >>> Shares(n_folds=4).shares().tolist()
        [0.25, 0.25, 0.25, 0.25]
        """
        self.check()
        if self.n_folds:
            return np.full(self.n_folds, 1 / self.n_folds)
        return np.array([1 - self.test_fraction - self.val_fraction, self.val_fraction, self.test_fraction])

    def parts_of(self, share: NDArray[np.intp]) -> PartArray:
        """Return the part of everything that `share` (n,) puts in one of `shares`.

        >>> Shares(n_folds=3, fold=2).parts_of(np.array([0, 1, 2])).tolist()
        ['val', 'train', 'test']
        """
        if not self.n_folds:
            return np.asarray(PARTS)[share]
        parts = np.full(len(share), TRAIN, dtype="<U5")
        parts[share == (self.fold + 1) % self.n_folds] = VALIDATION
        parts[share == self.fold] = TEST
        return parts

    def check(self) -> None:
        """Refuse shares that leave nothing to train on, and folds that are none.

        Raises
        ------
        SplitError
        """
        if self.n_folds:
            if self.n_folds < len(PARTS):
                raise SplitError(
                    f"split.n_folds must be 0 (no folds) or at least {len(PARTS)}, one fold a part; got {self.n_folds}."
                )
            if self.fold >= self.n_folds:
                raise SplitError(
                    f"split.fold must be 0 to {self.n_folds - 1} for split.n_folds={self.n_folds}; got {self.fold}."
                )
        elif self.fold:
            raise SplitError(f"split.fold={self.fold} needs split.n_folds, which is 0. Set it to the number of folds.")
        elif self.test_fraction + self.val_fraction >= 1:
            raise SplitError(
                "split.test_fraction and split.val_fraction must leave rows to train on; "
                f"got {self.test_fraction:g} + {self.val_fraction:g}."
            )


def column_values(frame: pl.DataFrame, column: str) -> NDArray[np.str_]:
    """Return (n_samples,) the text of a column that a split goes by.

    Raises
    ------
    SplitError
        When there is no such column, or a cell of it is empty.
    """
    if column not in frame.columns:
        raise SplitError(
            f"split.column must name a column of the table; got {column!r}; {nearest(column, frame.columns)}."
        )
    values = frame[column].cast(pl.String).str.strip_chars().fill_null("")
    if (values == "").all():
        raise SplitError(
            f"split.column must name a column with values; the table has no {column!r}. Known: {filled(frame)}."
        )
    if (values == "").any():
        n = int((values == "").sum())
        ids = ", ".join(frame["row_id"].filter(values == "")[:3])
        raise SplitError(f"Column {column!r} must not be empty; {n:,} rows are (row_id {ids}). Fill it to split by it.")
    return values.to_numpy().astype(np.str_)


def filled(frame: pl.DataFrame) -> str:
    """Return the names of the columns that hold anything, for a message."""
    return ", ".join(name for name in frame.columns if (frame[name].cast(pl.String).fill_null("") != "").any())


def part_rows(parts: PartArray) -> dict[str, NDArray[np.intp]]:
    """Return the row numbers of each part, in file order.

    >>> {part: rows.tolist() for part, rows in part_rows(np.array(["test", "train", "val"])).items()}
    {'train': [1], 'val': [2], 'test': [0]}
    """
    return {part: np.flatnonzero(parts == part) for part in PARTS}
