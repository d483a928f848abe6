"""One file being read: its columns, how messages point into it, and how its cells become numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import TableError
from tailbind.table.schema import normalise

#: How an empty number is written; compared in lower case.
EMPTY = ("", "na", "n/a", "nan", "null", "none")


@dataclass
class Source:
    """One file being read: its columns, and how messages point into it."""

    path: Path
    separator: str | None  # None for Parquet
    columns: list[str]
    taken: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    #: The row of the file that the cells being looked at begin with.
    start: int = 0
    #: Canonical column → cells whose sequence was written differently.
    changed: dict[str, int] = field(default_factory=dict)
    #: Canonical column → letters that are none of the twenty in the first such cell, and the rows of all of them.
    odd_letters: dict[str, tuple[str, list[NDArray[np.integer[Any]]]]] = field(default_factory=dict)

    def find(self, spellings: Sequence[str]) -> str | None:
        """Return the file's column with the first of these spellings that it has."""
        by_spelling: dict[str, str] = {}
        for column in self.columns:
            by_spelling.setdefault(normalise(column), column)
        return next((by_spelling[spelling] for spelling in spellings if spelling in by_spelling), None)

    def rows(self, bad: pl.Series) -> str:
        """Return where the true entries of `bad` are, as a person finds them in the file."""
        return self.lines(bad.arg_true().to_numpy() + self.start)

    def lines(self, indices: NDArray[np.integer[Any]]) -> str:
        """Return where rows, counted from 0, are as a person finds them in the file.

        >>> Source(Path("t.csv"), ",", []).lines(np.array([0, 4]))
        'lines 2, 6'
        """
        first = ", ".join(str(index + (2 if self.separator else 1)) for index in indices[:3].tolist())
        more = f" and {len(indices) - 3:,} more" if len(indices) > 3 else ""
        return f"{'line' if self.separator else 'row'}{'s' if len(indices) > 1 else ''} {first}{more}"


def parse_numbers(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return (float64 with null where empty, mask of cells that are neither)."""
    if values.dtype.is_numeric():
        numbers = values.cast(pl.Float64)
        return numbers.fill_nan(None), pl.repeat(False, len(values), eager=True)
    text = values.cast(pl.String).str.strip_chars()
    empty = text.is_null() | text.str.to_lowercase().is_in(list(EMPTY))
    numbers = text.cast(pl.Float64, strict=False).fill_nan(None)
    return numbers, ~empty & numbers.is_null()


def refuse(
    source: Source,
    column: str,
    bad: pl.Series,
    numbers: pl.Series,
    must: str,
    advice: str = "Correct the cells or leave them empty",
) -> None:
    """Raise the error for the first of the `bad` numbers, if there is one."""
    if bad.any():
        found = numbers.filter(bad)[0]
        raise TableError(f"{source.path}: {column} must {must}; got {found:g} ({source.rows(bad)}). {advice}.")
