"""The table's own feature columns: a numbered block such as `esm2_pca_0 … esm2_pca_149`, or components of one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import FeatureError
from tailbind.features.reduction import STRETCH, Reduction, fit_pca
from tailbind.options import bounded
from tailbind.table.blocks import on_disk
from tailbind.table.features import Features
from tailbind.table.schema import AffinityTable


@dataclass(frozen=True)
class Columns:
    """Options of the block.

    Attributes
    ----------
    prefix : what the columns' names start with; `auto` takes the table's only numbered block
    standardize : bring each column to mean 0 and SD 1 over the training rows (the training notebook does not)
    pca : principal components of the training rows that take the columns' place, after these are standardised where
        they are to be; 0 keeps the columns
    """

    reads_sequences: ClassVar[bool] = False

    prefix: str = "auto"
    standardize: bool = False
    pca: int = bounded(0, low=0)

    def fit(self, table: AffinityTable, rows: NDArray[np.intp]) -> "FittedColumns":
        """Learn the columns' names and, over `rows`, their mean and SD and their components where asked for."""
        names = table.feature_names
        if not self.standardize and not self.pca:
            return FittedColumns(names)
        if not self.standardize:
            times_chosen = np.bincount(rows, minlength=len(table))
            return FittedColumns(names, reduction=fit_pca(table.features, self.pca, weights=times_chosen))
        mean, scale = _mean_and_sd(table.features, rows)
        scale[scale == 0] = 1.0
        scaled = FittedColumns(names, mean.astype(np.float32), scale.astype(np.float32))
        if not self.pca:
            return scaled
        times_chosen = np.bincount(rows, minlength=len(table))
        return replace(scaled, reduction=fit_pca(scaled._scaled(table.features), self.pca, weights=times_chosen))

    def from_state(self, state: Mapping[str, Any]) -> "FittedColumns":
        """Return the fitted block that `state` was taken from."""
        mean, scale, reduction = state["mean"], state["scale"], state.get("pca")  # older checkpoints have none
        return FittedColumns(
            tuple(state["names"]),
            None if mean is None else np.asarray(mean, np.float32),
            None if scale is None else np.asarray(scale, np.float32),
            None if reduction is None else Reduction.from_state(reduction),
        )


@dataclass(frozen=True)
class FittedColumns:
    """The columns a model was trained on, found again by name.

    Attributes
    ----------
    names : the columns, in the model's order
    mean, scale : (n_features,) float32 where the block standardises, else None
    reduction : to principal components where there are any, else None
    """

    reads_sequences: ClassVar[bool] = False

    names: tuple[str, ...]
    mean: NDArray[np.float32] | None = None
    scale: NDArray[np.float32] | None = None
    reduction: Reduction | None = None

    @property
    def prefix(self) -> str:
        """What the columns' names start with."""
        return self.names[0].rstrip("0123456789")

    def transform(self, table: AffinityTable) -> Features:
        """Return the model's columns of every row, in the model's order, or the components that take their place.

        It is the table's own matrix where that can be. A row with an empty column is nan in every component.

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
            order = [position[name] for name in self.names]
            kept = on_disk(dense)
            dense = dense[:, order] if kept is None else cast(NDArray[np.float32], kept.take_columns(order))
        if self.reduction is None:
            return Features(self._scaled(dense), self.names)
        components = np.empty((len(dense), self.reduction.n_components), np.float32)
        for start in range(0, len(dense), STRETCH):
            rows = slice(start, start + STRETCH)
            components[rows] = self.reduction.transform(self._scaled(dense[rows]))
        return Features(components, tuple(f"{self.prefix} pca {number}" for number in range(components.shape[1])))

    def _scaled(self, dense: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.mean is None or self.scale is None:
            return dense
        if (kept := on_disk(dense)) is not None:
            return cast(NDArray[np.float32], kept.scaled(self.mean, self.scale))
        return (dense - self.mean) / self.scale

    def state(self) -> dict[str, Any]:
        """Return names, mean, scale and components."""
        return {
            "names": list(self.names),
            "mean": self.mean,
            "scale": self.scale,
            "pca": None if self.reduction is None else self.reduction.state(),
        }


def _mean_and_sd(
    features: NDArray[np.float32], rows: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (n_features,) means and SDs of `rows`, some rows of the matrix at a time: it may be on disk."""
    rows = np.sort(rows)
    stretches = [rows[start : start + STRETCH] for start in range(0, len(rows), STRETCH)]
    mean = sum(features[of].sum(axis=0, dtype=np.float64) for of in stretches) / len(rows)
    squares = sum(np.square(features[of] - mean).sum(axis=0) for of in stretches)
    return mean, np.sqrt(squares / len(rows))
