"""What every feature block can do, and what it hands on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tailbind.table.schema import AffinityTable


@dataclass(frozen=True)
class Features:
    """The features of a table's rows.

    Attributes
    ----------
    dense : (n_samples, n_features) float32
    names : one per column, for messages and explanations
    """

    dense: NDArray[np.float32]
    names: tuple[str, ...]


class FittedBlock(Protocol):
    """A feature block that has learned all it needs from the training rows."""

    def transform(self, table: AffinityTable) -> Features:
        """Return the features of every row of `table`."""
        ...

    def state(self) -> dict[str, Any]:
        """Return all that rebuilds the block, as arrays, strings and JSON-able values."""
        ...


class Block(Protocol):
    """The options of a feature block."""

    def fit(self, table: AffinityTable, rows: NDArray[np.intp]) -> FittedBlock:
        """Learn from `rows` of `table`, the training rows, and nothing else."""
        ...

    def from_state(self, state: Mapping[str, Any]) -> FittedBlock:
        """Return the fitted block that `state` was taken from."""
        ...
