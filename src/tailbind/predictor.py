"""A run folder and a table → predictions. Nothing of training is imported here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.checkpoint import CALIBRATION, Checkpoint, load_checkpoint
from tailbind.errors import CheckpointError, RunError
from tailbind.evaluation.calibration import Applied, Conformal
from tailbind.evaluation.coverage import interval_columns
from tailbind.export_folder import STATE, load_beside, read_export
from tailbind.features.domain import Domain
from tailbind.features.pipeline import FeaturePipeline, column_prefix, reads_sequences
from tailbind.models import MODELS
from tailbind.models.contract import Predictive
from tailbind.models.doubt import doubt
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
    intervals : what makes intervals and tail probabilities; None where the run has none
    calibrated : how they were calibrated, as in `metrics.json`
    domain : what training knew; None of a single checkpoint, and of runs of earlier versions
    """

    checkpoint: Checkpoint
    features: FeaturePipeline
    model: Predictive
    intervals: Conformal | None = None
    calibrated: Mapping[str, Any] = field(default_factory=dict)
    domain: Domain | None = None

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

    def applied(
        self, features: Features, pkd: NDArray[np.float64], sd: NDArray[np.float64] | None, rows: NDArray[np.intp]
    ) -> Applied | None:
        """Return the conformal distributions of rows with features, from predictions of all; None without intervals."""
        if self.intervals is None:
            return None
        inputs, spread, landscape = doubt(features, rows, pkd[rows], None if sd is None else sd[rows])
        return self.intervals.apply(pkd[rows], inputs, spread, landscape)

    def predict(self, table: AffinityTable, level: float | None = None) -> pl.DataFrame:
        """Return a row per row of `table`, in its order.

        Parameters
        ----------
        level : share of measured values that intervals are to hold; that of the recipe unless given

        Returns
        -------
        DataFrame
            `row_id, predicted_pkd, predicted_kd_nm, affinity_bin`, and `predicted_sd` over the members of an
            ensemble; all but `row_id` null for rows without features. Where features are computed from sequences,
            also `unseen`: what of the row training never saw, in words, null where nothing. Where the run has
            intervals, `pkd_low, pkd_high, p_below_5, p_above_9, p_above_11`; a bound is null where calibration rows
            are too few for the level. Where it tells what training knew, `antibody_identity` and `antigen_identity`,
            each to the nearest of training where that had any, and `domain`: inside, edge or outside.
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
        rows = np.flatnonzero(known)
        if (sure := self.applied(features, pkd, sd, rows)) is not None:
            for values in interval_frame(sure, level):
                of_all = np.full(len(pkd), np.nan)
                of_all[rows] = values.fill_null(np.nan).to_numpy()
                frame = frame.with_columns(pl.Series(values.name, of_all))
        if features.unseen is not None:
            unseen = np.where(known, features.unseen, "").astype(object)
            frame = frame.with_columns(pl.Series("unseen", unseen, dtype=pl.String))
        numbers = pl.col(pl.Float64).fill_nan(None)
        texts = pl.col("affinity_bin", *(["unseen"] if features.unseen is not None else []))
        frame = frame.with_columns(numbers, texts.replace("", None))
        return frame if self.domain is None else frame.hstack(self.domain.judge(table, features, pkd))


def interval_frame(sure: Applied, level: float | None = None) -> pl.DataFrame:
    """Return what tables of predictions have of intervals, a row each; null where a bound is not known.

    Parameters
    ----------
    level : share of measured values that intervals are to hold; that of the calibration unless given
    """
    columns = pl.DataFrame(interval_columns(sure, level))
    return columns.select(pl.when(pl.all().is_finite()).then(pl.all()))


def load(run: str | Path, device: str = "auto") -> Predictor:
    """Return the best model of a run folder, or the model of one checkpoint file, ready to predict.

    Parameters
    ----------
    run : a run folder (its best model on validation), an exported one, or a `.pth` file of one
    device : auto, cpu or cuda

    Raises
    ------
    RunError, CheckpointError
        When the folder is no run, or the checkpoint is damaged or belongs to another recipe.
    """
    path, domain = Path(run), None
    intervals: Conformal | None = None
    calibrated: dict[str, Any] = {}
    if path.suffix == ".pth" and not path.is_dir():
        checkpoint = load_checkpoint(path)
    else:
        folder = open_run(path)
        path = folder.path / STATE if folder.is_export else folder.best_model
        checkpoint = read_export(folder) if folder.is_export else load_checkpoint(path)
        check_recipe(path, checkpoint, folder.read_json(folder.config))
        if (state := load_beside(folder, folder.calibration, CALIBRATION)) is not None:
            intervals, calibrated = read_intervals(folder.path, state)
        domain = read_domain(folder.domain) if folder.domain.exists() else None
    model = MODELS.load(checkpoint.model_kind).from_state(checkpoint.model)
    features = FeaturePipeline.from_state(checkpoint.features)
    return Predictor(checkpoint, features, model.to(choose_device(device)), intervals, calibrated, domain)


def read_intervals(run: Path, state: Mapping[str, Any]) -> tuple[Conformal, dict[str, Any]]:
    """Return what makes a run's intervals, and how they were calibrated.

    Raises
    ------
    CheckpointError
        When the state is of another version of tailbind.
    """
    try:
        return Conformal.from_state(state), dict(state["calibrated"])
    except KeyError as error:
        raise CheckpointError(
            f"The intervals of {run} must be of this version of tailbind; they lack {error}. Train again, or remove "
            "calibration.pth: predictions are then without intervals."
        ) from error


def read_domain(path: Path) -> Domain:
    """Return what training knew, as a run wrote it.

    Raises
    ------
    RunError
        When the file is damaged or something else.
    """
    try:
        return Domain.from_frame(pl.read_parquet(path))
    except (OSError, ValueError, LookupError, TypeError, pl.exceptions.PolarsError) as error:
        raise RunError(
            f"{path} must be what `tailbind train` wrote of this run; it is damaged or something else. "
            "Train again, or remove it: predictions then do not tell how near training is."
        ) from error


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
