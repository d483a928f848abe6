"""Several feature blocks side by side, fitted on training rows and carried by the checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailbind.features import FEATURES
from tailbind.features.contract import Block, Features, FittedBlock
from tailbind.options import read_options
from tailbind.table.schema import AffinityTable


@dataclass(frozen=True)
class FeaturePipeline:
    """Fitted blocks in the recipe's order.

    Attributes
    ----------
    kinds : block name → registered kind
    options : block name → its options
    blocks : block name → the fitted block
    """

    kinds: Mapping[str, str]
    options: Mapping[str, Block]
    blocks: Mapping[str, FittedBlock]

    @classmethod
    def fit(
        cls,
        kinds: Mapping[str, str],
        options: Mapping[str, Block],
        table: AffinityTable,
        rows: NDArray[np.intp],
    ) -> "FeaturePipeline":
        """Fit every block on `rows` of `table`, the training rows."""
        return cls(kinds, options, {name: block.fit(table, rows) for name, block in options.items()})

    def transform(self, table: AffinityTable) -> Features:
        """Return the features of every row; of a single block, the block's own array without a copy."""
        parts = [block.transform(table) for block in self.blocks.values()]
        if len(parts) == 1:
            return parts[0]
        names = tuple(name for part in parts for name in part.names)
        return Features(np.hstack([part.dense for part in parts]), names)

    def state(self) -> dict[str, Any]:
        """Return the blocks' kinds, options and states, in order."""
        return {
            name: {"kind": self.kinds[name], "options": asdict(self.options[name]), "state": block.state()}  # type: ignore[call-overload]
            for name, block in self.blocks.items()
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "FeaturePipeline":
        """Return the pipeline that `state` was taken from."""
        kinds = {name: entry["kind"] for name, entry in state.items()}
        options = {
            name: read_options(FEATURES.load(entry["kind"]), entry["options"], f"features.{name}")
            for name, entry in state.items()
        }
        return cls(kinds, options, {name: options[name].from_state(state[name]["state"]) for name in state})


def column_prefix(blocks: Mapping[str, Block] | Mapping[str, FittedBlock]) -> str | None:
    """Return the prefix of the feature columns that the blocks read from a table, None where none does."""
    prefixes = (getattr(block, "prefix", None) for block in blocks.values())
    return next((prefix for prefix in prefixes if prefix is not None), None)
