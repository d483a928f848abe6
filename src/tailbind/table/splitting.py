"""Splits of a table into training, validation and test rows.

Each split is a frozen dataclass of its options; called with a table's frame it returns the part of each
row. Here are the splits that deal rows and pairs at random and the one that a column states; those that
keep whole groups together are in `grouped`, the one by date in `dates`, what all share in `parts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import SplitError
from tailbind.scale import bin_index
from tailbind.table.dates import DateSplit
from tailbind.table.grouped import (
    AntibodyClusterSplit,
    AntigenClusterSplit,
    BothColdSplit,
    GroupedSplit,
    GroupSplit,
    ParentSplit,
)
from tailbind.table.grouping import pair_index
from tailbind.table.parts import (
    LATER,
    PART_SPELLINGS,
    PARTS,
    TEST,
    TRAIN,
    VALIDATION,
    PartArray,
    Seeded,
    Shares,
    column_values,
    filled,
    part_rows,
)

__all__ = (
    "LATER", "PARTS", "PART_SPELLINGS", "PROMISES", "TEST", "TRAIN", "VALIDATION",
    "AntibodyClusterSplit", "AntigenClusterSplit", "BothColdSplit", "ColumnSplit", "DateSplit", "GroupSplit",
    "GroupedSplit", "PairSplit", "ParentSplit", "PartArray", "RandomSplit", "StratifiedSplit",
    "filled", "pair_index", "part_rows",
)  # fmt: skip

#: What each kind of split never puts on two sides.
PROMISES: Final[Mapping[str, str]] = {
    "random": "nothing is kept apart",
    "stratified": "nothing is kept apart",
    "pair": "no exact pair is on two sides",
    "group": "no value of the column is on two sides",
    "column": "as the column says",
    "antibody_cluster": "no cluster of antibodies, hence no exact pair, is on two sides",
    "antigen_cluster": "no cluster of antigens, hence no exact pair, is on two sides",
    "both_cold": "no cluster of antibodies or antigens, hence no exact pair, is on two sides",
    "parent": "no parent is on two sides",
    "date": "training is older than validation, validation older than test",
}


@dataclass(frozen=True)
class _DrawnSplit(Shares, Seeded):
    """Things dealt out at random, each for itself."""

    def draw(self, n: int) -> PartArray:
        """Return the parts of `n` things: scikit-learn's `train_test_split`, twice, with the same seed.

        With folds, a permutation dealt out in turn: folds differ by one thing at most.
        """
        self.check()
        if self.n_folds:
            if n < self.n_folds:
                raise SplitError(f"A split into {self.n_folds} folds needs as many things to share out; there are {n}.")
            fold = np.empty(n, dtype=np.intp)
            fold[np.random.default_rng(self.seed).permutation(n)] = np.arange(n) % self.n_folds
            return self.parts_of(fold)
        from sklearn.model_selection import train_test_split

        rest_fraction = 1 - self.test_fraction
        try:
            rest, test = train_test_split(np.arange(n), test_size=self.test_fraction, random_state=self.seed)
            train, val = train_test_split(rest, test_size=self.val_fraction / rest_fraction, random_state=self.seed)
        except ValueError as error:
            found = "is 1 row or group of rows that stay together" if n == 1 else f"are {n} rows or groups"
            raise SplitError(
                f"A split into training, validation and test needs more to share out; there {found}. Add rows, or "
                "choose another split.kind, such as random."
            ) from error
        parts = np.empty(n, dtype="<U5")
        for name, members in zip(PARTS, (train, val, test), strict=True):
            parts[members] = name
        return parts


@dataclass(frozen=True)
class RandomSplit(_DrawnSplit):
    """Rows at random: scikit-learn's `train_test_split`, first test, then validation from the rest.

    With the defaults, row for row what `train_test_split(test_size=0.15, random_state=42)` and then
    `train_test_split(test_size=0.15/0.85, random_state=42)` on the remainder give for rows in file order.
    Promises nothing: replicates and near-twins are on both sides.
    """

    def __call__(self, frame: pl.DataFrame) -> PartArray:
        """Return (n_samples,) "train", "val" or "test"."""
        return self.draw(len(frame))


@dataclass(frozen=True)
class StratifiedSplit(_DrawnSplit):
    """Rows at random within each affinity bin, so that rare bins are in every part where they can be.

    A bin of one or two rows goes to training, then test. With folds, the bins are dealt out one after the
    other, so that both folds and each bin's rows in them differ by one row at most. Promises nothing else.
    """

    def __call__(self, frame: pl.DataFrame) -> PartArray:
        """Return (n_samples,) "train", "val" or "test"."""
        self.check()
        rng = np.random.default_rng(self.seed)
        bins = bin_index(frame["pkd"].to_numpy())
        orders = [rng.permutation(np.flatnonzero(bins == index)) for index in np.unique(bins)]
        if self.n_folds:
            if len(frame) < self.n_folds:
                raise SplitError(f"A split into {self.n_folds} folds needs as many rows; there are {len(frame)}.")
            fold = np.empty(len(frame), dtype=np.intp)
            fold[np.concatenate(orders)] = np.arange(len(frame)) % self.n_folds
            return self.parts_of(fold)
        parts = np.full(len(frame), TRAIN, dtype="<U5")
        for order in orders:
            n_test = _share(len(order), self.test_fraction, others=1)
            n_val = _share(len(order), self.val_fraction, others=1 + n_test)
            parts[order[:n_test]] = TEST
            parts[order[n_test : n_test + n_val]] = VALIDATION
        return parts


def _share(n: int, fraction: float, others: int) -> int:
    """Return a share of `n`, at least one where `others` leave one."""
    return min(max(1, round(n * fraction)), max(n - others, 0))


@dataclass(frozen=True)
class PairSplit(_DrawnSplit):
    """Distinct antibody-antigen pairs at random: rows of one pair are never on two sides.

    Fractions and folds are of distinct pairs, not of rows.
    """

    def __call__(self, frame: pl.DataFrame) -> PartArray:
        """Return (n_samples,) "train", "val" or "test"."""
        pairs = pair_index(frame)
        return self.draw(int(pairs.max()) + 1)[pairs]


@dataclass(frozen=True)
class ColumnSplit:
    """The split that a column states: train, val or test for each row."""

    column: str = "split"

    def __call__(self, frame: pl.DataFrame) -> PartArray:
        """Return (n_samples,) "train", "val" or "test"."""
        stated = column_values(frame, self.column)
        words = pl.Series(stated).str.to_lowercase()
        bad = ~words.is_in(list(PART_SPELLINGS))
        if bad.any():
            ids = ", ".join(frame["row_id"].filter(bad)[:3])
            raise SplitError(
                f"Column {self.column!r} must say train, val or test; got {str(stated[bad.arg_true()[0]])!r} "
                f"in {int(bad.sum()):,} rows (row_id {ids})."
            )
        parts: NDArray[np.str_] = words.replace_strict(PART_SPELLINGS).to_numpy().astype("<U5")
        for part in PARTS:
            if not np.any(parts == part):
                raise SplitError(f"Column {self.column!r} must put rows in train, val and test; none is {part}.")
        return parts
