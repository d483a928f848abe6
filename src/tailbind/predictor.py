"""A run folder and a table → predictions. Nothing of training is imported here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.checkpoint import Checkpoint, load_checkpoint
from tailbind.errors import CheckpointError
from tailbind.features.pipeline import FeaturePipeline, column_prefix, reads_sequences
from tailbind.models import MODELS
from tailbind.models.contract import Predictive
from tailbind.run_folder import first_difference, open_run
from tailbind.runtime import choose_device
from tailbind.scale import bin_names, kd_from_pkd
from tailbind.table.features import Features
from tailbind.table.reading import read_table
from tailbind.table.schema import AffinityTable
from tailbind.table.streaming import TableStretches


@dataclass(frozen=True)
class Predictor:
    """A trained model and its features, ready for tables.

    Attributes
    ----------
    checkpoint : what was loaded
    features : the fitted feature pipeline
    model : the fitted model
    """

    checkpoint: Checkpoint
    features: FeaturePipeline
    model: Predictive

    def read(
        self, paths: str | Path | Sequence[str | Path], *, labels: bool = False, cache: bool = True
    ) -> AffinityTable:
        """Read a table with the columns this model needs; rows without features are kept."""
        blocks = self.features.blocks
        return read_table(
            paths,
            feature_prefix=column_prefix(blocks),
            sequences=reads_sequences(blocks),
            labels=labels,
            keep_incomplete=True,
            cache=cache,
        )

    def stretches(self, paths: str | Path | Sequence[str | Path]) -> TableStretches:
        """Return the table that `read` reads without labels, however long it is, a stretch of rows at a time."""
        blocks = self.features.blocks
        return TableStretches(paths, feature_prefix=column_prefix(blocks), sequences=reads_sequences(blocks))

    def compute_features(self, table: AffinityTable) -> Features:
        """Return the features of every row, as the model was trained on them.

        Raises
        ------
        FeatureError
            When the table lacks a column the model was trained on.
        """
        return self.features.transform(table)

    def predict_pkd(self, features: Features) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return (n_samples,) predicted pKd and, of an ensemble, its SD; nan where a row has no features."""
        complete = np.flatnonzero(features.complete)
        found = self.model.predict_with_sd(features, None if len(complete) == len(features) else complete)
        pkd, sd = (None if values is None else np.full(len(features), np.nan) for values in found)
        for whole, values in ((pkd, found[0]), (sd, found[1])):
            if whole is not None:
                whole[complete] = values
        assert pkd is not None
        return pkd, sd

    def predict(self, table: AffinityTable) -> pl.DataFrame:
        """Return a row per row of `table`, in its order.

        Returns
        -------
        DataFrame
            `row_id, predicted_pkd, predicted_kd_nm, affinity_bin`, and `predicted_sd` over the members of an
            ensemble; all but `row_id` null for rows without features. Where features are computed from sequences,
            also `unseen`: what of the row training never saw, in words, null where nothing.
        """
        features = self.compute_features(table)
        pkd, sd = self.predict_pkd(features)
        known = np.isfinite(pkd)
        frame = pl.DataFrame(
            {
                "row_id": table.frame["row_id"],
                "predicted_pkd": pkd,
                "predicted_kd_nm": kd_from_pkd(pkd, "nM"),
                "affinity_bin": np.where(known, bin_names(np.where(known, pkd, 0.0)), ""),
            }
        )
        if sd is not None:
            frame = frame.with_columns(pl.Series("predicted_sd", sd))
        if features.unseen is not None:
            unseen = np.where(known, features.unseen, "").astype(object)
            frame = frame.with_columns(pl.Series("unseen", unseen, dtype=pl.String))
        numbers = pl.col(pl.Float64).fill_nan(None)
        texts = pl.col("affinity_bin", *(["unseen"] if features.unseen is not None else []))
        return frame.with_columns(numbers, texts.replace("", None))


def load(run: str | Path, device: str = "auto") -> Predictor:
    """Return the best model of a run folder, or the model of one checkpoint file, ready to predict.

    Parameters
    ----------
    run : a run folder (its best model on validation), or a `.pth` file of one
    device : auto, cpu or cuda

    Raises
    ------
    RunError, CheckpointError
        When the folder is no run, or the checkpoint is damaged or belongs to another recipe.
    """
    path = Path(run)
    if path.suffix == ".pth" and not path.is_dir():
        checkpoint = load_checkpoint(path)
    else:
        folder = open_run(path)
        path = folder.best_model
        checkpoint = load_checkpoint(path)
        check_recipe(path, checkpoint, folder.read_json(folder.config))
    model = MODELS.load(checkpoint.model_kind).from_state(checkpoint.model)
    return Predictor(checkpoint, FeaturePipeline.from_state(checkpoint.features), model.to(choose_device(device)))


def check_recipe(path: Path, checkpoint: Checkpoint, config: dict[str, Any]) -> None:
    """Refuse a checkpoint that was trained by another recipe than its folder's."""
    if checkpoint.recipe_name != config["name"]:
        raise CheckpointError(
            f"{path} must be from recipe {config['name']!r}; it was trained by {checkpoint.recipe_name!r}. "
            "Put each run's files back into its own folder."
        )
    if difference := first_difference(config, checkpoint.recipe):
        key, expected, found = difference
        raise CheckpointError(
            f"{path} must be from the recipe in its folder's config.json; {key} there is {expected!r}, in the "
            f"checkpoint {found!r}. Put each run's files back into its own folder."
        )
