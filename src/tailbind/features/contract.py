"""What every feature block can do.

A block is a frozen dataclass of options. `fit` learns from the training rows and nothing else; `transform` gives the
features of any table's rows, alone or among others the same. What a block has learned is its `state`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import FeatureError
from tailbind.table.features import Features
from tailbind.table.schema import AffinityTable


def cannot_number(block: str, instead: str = "do without IMGT numbers") -> FeatureError:
    """Return the error of a block that is to number antibodies where ANARCII is not installed.

    >>> str(cannot_number("sites")).partition(";")[0]
    'The block sites needs anarcii to number antibodies'
    """
    return FeatureError(
        f"The block {block} needs anarcii to number antibodies; it is not installed. Run: pip install "
        f"'tailbind[sequences]', or {instead}: --set features.{block}.numbering=false"
    )


class FittedBlock(Protocol):
    """A feature block that has learned all it needs from the training rows."""

    reads_sequences: ClassVar[bool]

    def transform(self, table: AffinityTable) -> Features:
        """Return the features of every row of `table`."""
        ...

    def state(self) -> dict[str, Any]:
        """Return all that rebuilds the block, as tensors, arrays, strings and JSON-able values."""
        ...


class Block(Protocol):
    """The options of a feature block.

    Attributes
    ----------
    reads_sequences : whether it reads heavy, light and antigen, or else numbered columns of the table
    """

    reads_sequences: ClassVar[bool]

    def fit(self, table: AffinityTable, rows: NDArray[np.intp]) -> FittedBlock:
        """Learn from `rows` of `table`, the training rows, and nothing else."""
        ...

    def from_state(self, state: Mapping[str, Any]) -> FittedBlock:
        """Return the fitted block that `state` was taken from."""
        ...
