"""Several feature blocks side by side, fitted on training rows and carried by the checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.features import FEATURES
from tailbind.features.contract import Block, FittedBlock
from tailbind.options import read_options
from tailbind.table.features import Features, side_by_side, stacked
from tailbind.table.schema import AffinityTable

#: Rows whose features are computed at a time where several blocks are put side by side.
CHUNK: Final = 65_536


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
        """Return the features of every row; of a single block that reads columns, the block's own array, uncopied.

        Several blocks are put side by side a stretch of rows at a time, into one array, so that the widest block is
        never there twice.
        """
        if len(self.blocks) == 1 or len(table) <= CHUNK:
            return side_by_side([block.transform(table) for block in self.blocks.values()])
        dense = np.empty((0, 0), np.float32)
        parts: list[Features] = []
        for start in range(0, len(table), CHUNK):
            rows = slice(start, min(start + CHUNK, len(table)))
            part = side_by_side([block.transform(table.stretch(rows)) for block in self.blocks.values()])
            if not parts:
                dense = np.empty((len(table), part.dense.shape[1]), np.float32)
            dense[rows] = part.dense
            parts.append(replace(part, dense=dense[rows]))
        return stacked(dense, parts)

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


def reads_sequences(blocks: Mapping[str, Block] | Mapping[str, FittedBlock]) -> bool:
    """Return whether any of the blocks computes features from sequences."""
    return any(block.reads_sequences for block in blocks.values())


def reads_sequences_alone(blocks: Mapping[str, Block] | Mapping[str, FittedBlock]) -> bool:
    """Return whether the features of a changed sequence can be computed: from sequences, and from no columns."""
    return column_prefix(blocks) is None and reads_sequences(blocks)
