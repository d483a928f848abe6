"""Which of a few values a row has in one column of the table, such as the data set that it is from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import FeatureError
from tailbind.features.distinct import distinct
from tailbind.table.features import Features
from tailbind.table.schema import AffinityTable


@dataclass(frozen=True)
class Category:
    """Options of the block.

    Attributes
    ----------
    column : of the table, by its own name or by tailbind's; an empty cell counts as a value like any other
    """

    reads_sequences: ClassVar[bool] = False

    column: str = "source"

    def fit(self, table: AffinityTable, rows: NDArray[np.intp]) -> "FittedCategory":
        """Learn which values the training rows have.

        Raises
        ------
        FeatureError
            When the table has no such column.
        """
        if self.column not in table.frame.columns:
            raise FeatureError(
                f"{', '.join(table.report.files)} must have the column that features.category.column names, "
                f"{self.column!r}; it has none. Known: {', '.join(table.frame.columns)}."
            )
        return FittedCategory(self.column, tuple(distinct(table.frame[self.column][rows])[0]))

    def from_state(self, state: Mapping[str, Any]) -> "FittedCategory":
        """Return the fitted block that `state` was taken from."""
        return FittedCategory(self.column, tuple(state["values"]))


@dataclass(frozen=True)
class FittedCategory:
    """One sparse column per value that the training rows had.

    Attributes
    ----------
    column : of the table
    values : in sorted order
    """

    reads_sequences: ClassVar[bool] = False

    column: str
    values: tuple[str, ...]

    def transform(self, table: AffinityTable) -> Features:
        """Return (n_samples, n_values) sparse columns, 1 where the row has the value and 0 elsewhere.

        A row whose value training never saw is 0 throughout, and so is every row of a table without the column.
        """
        from scipy.sparse import csr_array

        n, dense = len(table), np.empty((len(table), 0), np.float32)
        names = tuple(f"{self.column} {value}" if value else f"no {self.column}" for value in self.values)
        if self.column not in table.frame.columns:
            nothing = csr_array((n, len(names)), dtype=np.float32)
            return Features(dense, (), nothing, names, np.full(n, f"table without {self.column}"))
        found, index = distinct(table.frame[self.column])
        place = {value: position for position, value in enumerate(self.values)}
        places = np.array([place.get(value, -1) for value in found], np.intp)
        rows = np.flatnonzero(places[index] >= 0)
        sparse = csr_array((np.ones(len(rows), np.float32), (rows, places[index][rows])), shape=(n, len(names)))
        words = [
            "" if at >= 0 else f"{self.column} {value}" if value else f"no {self.column}"
            for value, at in zip(found, places, strict=True)
        ]
        return Features(dense, (), sparse, names, np.array(words, dtype=np.str_)[index])

    def state(self) -> dict[str, Any]:
        """Return the values."""
        return {"values": list(self.values)}
