"""Splits of a table into training, validation and test rows.

Each split is a frozen dataclass of its options; called with a table's frame it returns the part of each
row. Fractions are of rows for `random` and `stratified`, of distinct pairs for `pair`, and as near to rows
as whole groups allow for `group`.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from tailbind.errors import SplitError, nearest
from tailbind.options import bounded
from tailbind.scale import bin_index

TRAIN, VALIDATION, TEST = "train", "val", "test"
PARTS: Final = (TRAIN, VALIDATION, TEST)
PART_SPELLINGS: Final = {
    "train": TRAIN, "training": TRAIN,
    "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "dev": VALIDATION,
    "test": TEST, "testing": TEST,
}  # fmt: skip

PartArray: TypeAlias = NDArray[np.str_]


@dataclass(frozen=True)
class _Shares:
    """What every split by chance has: a seed and the shares of the test and validation parts."""

    seed: int = bounded(42, low=0, high=2**32 - 1)
    test_fraction: float = bounded(0.15, above=0, below=1)
    val_fraction: float = bounded(0.15, above=0, below=1)

    def draw(self, n: int) -> PartArray:
        """Return the parts of `n` things: scikit-learn's `train_test_split`, twice, with the same seed."""
        self._check()
        rest_fraction = 1 - self.test_fraction
        try:
            rest, test = train_test_split(np.arange(n), test_size=self.test_fraction, random_state=self.seed)
            train, val = train_test_split(rest, test_size=self.val_fraction / rest_fraction, random_state=self.seed)
        except ValueError as error:
            raise SplitError(f"A split needs at least one of each part; {n} cannot be shared out.") from error
        parts = np.empty(n, dtype="<U5")
        for name, members in zip(PARTS, (train, val, test), strict=True):
            parts[members] = name
        return parts

    def _check(self) -> None:
        if self.test_fraction + self.val_fraction >= 1:
            raise SplitError(
                "split.test_fraction and split.val_fraction must leave rows to train on; "
                f"got {self.test_fraction:g} + {self.val_fraction:g}."
            )


@dataclass(frozen=True)
class RandomSplit(_Shares):
    """Rows at random: scikit-learn's `train_test_split`, first test, then validation from the rest.

    With the defaults, row for row what `train_test_split(test_size=0.15, random_state=42)` and then
    `train_test_split(test_size=0.15/0.85, random_state=42)` on the remainder give for rows in file order.
    """

    def __call__(self, frame: pl.DataFrame) -> PartArray:
        """Return (n_samples,) "train", "val" or "test"."""
        return self.draw(len(frame))


@dataclass(frozen=True)
class StratifiedSplit(_Shares):
    """Rows at random within each affinity bin, so that rare bins are in every part where they can be.

    A bin of one or two rows goes to training, then test.
    """

    def __call__(self, frame: pl.DataFrame) -> PartArray:
        """Return (n_samples,) "train", "val" or "test"."""
        self._check()
        rng = np.random.default_rng(self.seed)
        bins = bin_index(frame["pkd"].to_numpy())
        parts = np.full(len(frame), TRAIN, dtype="<U5")
        for members in (np.flatnonzero(bins == index) for index in np.unique(bins)):
            order = rng.permutation(members)
            n_test = _share(len(order), self.test_fraction, others=1)
            n_val = _share(len(order), self.val_fraction, others=1 + n_test)
            parts[order[:n_test]] = TEST
            parts[order[n_test : n_test + n_val]] = VALIDATION
        return parts


def _share(n: int, fraction: float, others: int) -> int:
    """Return a share of `n`, at least one where `others` leave one."""
    return min(max(1, round(n * fraction)), max(n - others, 0))


@dataclass(frozen=True)
class PairSplit(_Shares):
    """Distinct antibody-antigen pairs at random: rows of one pair are never on two sides."""

    def __call__(self, frame: pl.DataFrame) -> PartArray:
        """Return (n_samples,) "train", "val" or "test"."""
        pairs = pair_index(frame)
        return self.draw(int(pairs.max()) + 1)[pairs]


@dataclass(frozen=True)
class GroupSplit(_Shares):
    """Whole groups at random: nothing that shares a value of `column` is on two sides.

    Groups are drawn in random order, each into the part that is furthest below its share of rows.
    """

    column: str = "group"

    def __call__(self, frame: pl.DataFrame) -> PartArray:
        """Return (n_samples,) "train", "val" or "test"."""
        self._check()
        values = _column(frame, self.column)
        names, groups, counts = np.unique(values, return_inverse=True, return_counts=True)
        if len(names) < len(PARTS):
            raise SplitError(
                f"A group split needs at least 3 groups; column {self.column!r} has {len(names)}. "
                "Choose another column or split.kind=random."
            )
        targets = np.array([1 - self.test_fraction - self.val_fraction, self.val_fraction, self.test_fraction])
        filled = np.zeros(3)
        part_of = np.empty(len(names), dtype=np.intp)
        order = np.random.default_rng(self.seed).permutation(len(names))
        for position, group in enumerate(order):
            empty = filled == 0
            if len(order) - position <= empty.sum():  # the last groups: no part may stay empty
                part = int(np.argmax(np.where(empty, targets, -1)))
            else:
                part = int(np.argmax(targets - filled / len(values)))
            part_of[group] = part
            filled[part] += counts[group]
        return np.asarray(PARTS)[part_of[groups]]


@dataclass(frozen=True)
class ColumnSplit:
    """The split that a column states: train, val or test for each row."""

    column: str = "split"

    def __call__(self, frame: pl.DataFrame) -> PartArray:
        """Return (n_samples,) "train", "val" or "test"."""
        stated = _column(frame, self.column)
        words = pl.Series(stated).str.to_lowercase()
        bad = ~words.is_in(list(PART_SPELLINGS))
        if bad.any():
            ids = ", ".join(frame["row_id"].filter(bad)[:3])
            raise SplitError(
                f"Column {self.column!r} must say train, val or test; got {str(stated[bad.arg_true()[0]])!r} "
                f"in {int(bad.sum()):,} rows (row_id {ids})."
            )
        parts = words.replace_strict(PART_SPELLINGS).to_numpy().astype("<U5")
        for part in PARTS:
            if not np.any(parts == part):
                raise SplitError(f"Column {self.column!r} must put rows in train, val and test; none is {part}.")
        return parts


def pair_index(frame: pl.DataFrame) -> NDArray[np.intp]:
    """Return (n_samples,) the number of each row's pair, counted from 0 in order of appearance.

    A pair is heavy + light + antigen; where the antigen has no sequence its name, then its source,
    stands for it. A row with neither heavy nor light is a pair of its own.

    Raises
    ------
    SplitError
        When no row has a heavy or light sequence.
    """
    unknown = (pl.col("heavy") == "") & (pl.col("light") == "")
    if frame.select(unknown.all()).item():
        raise SplitError("A pair split needs heavy or light sequences; the table has none. Use split.kind=random.")
    antigen = (
        pl.when(pl.col("antigen") != "").then(pl.format("sequence {}", "antigen"))
        .when(pl.col("antigen_name") != "").then(pl.format("name {}", "antigen_name"))
        .otherwise(pl.format("source {}", "source"))
    )  # fmt: skip
    own = pl.when(unknown).then(pl.col("row_id")).otherwise(pl.lit(""))
    keys = frame.select("heavy", "light", antigen.alias("antigen"), own.alias("own"))
    pairs = keys.unique(maintain_order=True).with_row_index("pair")
    numbered = keys.join(pairs, on=keys.columns, how="left", maintain_order="left")
    return numbered["pair"].to_numpy().astype(np.intp)


def filled(frame: pl.DataFrame) -> str:
    """Return the names of the columns that hold anything, for a message."""
    return ", ".join(name for name in frame.columns if (frame[name].cast(pl.String).fill_null("") != "").any())


def _column(frame: pl.DataFrame, column: str) -> NDArray[np.str_]:
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


def part_rows(parts: PartArray) -> dict[str, NDArray[np.intp]]:
    """Return the row numbers of each part, in file order.

    >>> {part: rows.tolist() for part, rows in part_rows(np.array(["test", "train", "val"])).items()}
    {'train': [1], 'val': [2], 'test': [0]}
    """
    return {part: np.flatnonzero(parts == part) for part in PARTS}
