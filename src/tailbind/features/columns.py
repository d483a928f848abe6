"""The table's own feature columns: a numbered block such as `esm2_pca_0 … esm2_pca_149`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import FeatureError
from tailbind.features.contract import Features
from tailbind.table.schema import AffinityTable


@dataclass(frozen=True)
class Columns:
    """Options of the block.

    Attributes
    ----------
    prefix : what the columns' names start with; `auto` takes the table's only numbered block
    standardize : bring each column to mean 0 and SD 1 over the training rows (the training notebook does not)
    """

    prefix: str = "auto"
    standardize: bool = False

    def fit(self, table: AffinityTable, rows: NDArray[np.intp]) -> "FittedColumns":
        """Learn the columns' names, and their mean and SD over `rows` where they are to be standardised."""
        if not self.standardize:
            return FittedColumns(table.feature_names)
        chosen = table.features[rows]
        mean = chosen.mean(axis=0, dtype=np.float64)
        scale = chosen.std(axis=0, dtype=np.float64)
        scale[scale == 0] = 1.0
        return FittedColumns(table.feature_names, mean.astype(np.float32), scale.astype(np.float32))

    def from_state(self, state: Mapping[str, Any]) -> "FittedColumns":
        """Return the fitted block that `state` was taken from."""
        mean, scale = state["mean"], state["scale"]
        return FittedColumns(
            tuple(state["names"]),
            None if mean is None else np.asarray(mean, np.float32),
            None if scale is None else np.asarray(scale, np.float32),
        )


@dataclass(frozen=True)
class FittedColumns:
    """The columns a model was trained on, found again by name.

    Attributes
    ----------
    names : the columns, in the model's order
    mean, scale : (n_features,) float32 where the block standardises, else None
    """

    names: tuple[str, ...]
    mean: NDArray[np.float32] | None = None
    scale: NDArray[np.float32] | None = None

    @property
    def prefix(self) -> str:
        """What the columns' names start with."""
        return self.names[0].rstrip("0123456789")

    def transform(self, table: AffinityTable) -> Features:
        """Return the model's columns of every row, in the model's order; the table's own matrix where it can.

        Raises
        ------
        FeatureError
            When a column is missing.
        """
        dense = table.features
        if table.feature_names != self.names:
            position = {name: index for index, name in enumerate(table.feature_names)}
            missing = [name for name in self.names if name not in position]
            if missing:
                raise FeatureError(
                    f"{', '.join(table.report.files)} must have the {len(self.names)} feature columns the model was "
                    f"trained on, {self.names[0]} … {self.names[-1]}; {len(missing)} missing, first {missing[0]}. "
                    "Add them."
                )
            dense = dense[:, [position[name] for name in self.names]]
        if self.mean is not None and self.scale is not None:
            dense = (dense - self.mean) / self.scale
        return Features(dense, self.names)

    def state(self) -> dict[str, Any]:
        """Return names, mean and scale."""
        return {"names": list(self.names), "mean": self.mean, "scale": self.scale}
