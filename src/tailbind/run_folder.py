"""The run folder: which file is called what, and what state a folder is in. A contract; see the docs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailbind.errors import RunError
from tailbind.runtime import cannot_write

CONFIG = "config.json"
#: What makes a folder an exported model: the hashes of its files, see `export_folder`.
MANIFEST = "export.json"
#: Files beside the model that predicting reads, where a run has them: they go wherever the model goes.
BESIDE_THE_MODEL = ("calibration.*", "domain.*")


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, named after its recipe.

    Attributes
    ----------
    path : the folder
    name : the recipe's name
    """

    path: Path
    name: str

    @property
    def config(self) -> Path:
        """The recipe, resolved."""
        return self.path / CONFIG

    @property
    def split(self) -> Path:
        """row_id → train, val or test, and the antibody's family."""
        return self.path / "split.parquet"

    @property
    def leakage(self) -> Path:
        """Test row → how near training is."""
        return self.path / "leakage.parquet"

    @property
    def domain(self) -> Path:
        """What training knew, as far as a prediction needs it to tell how near it is."""
        return self.path / "domain.parquet"

    @property
    def history(self) -> Path:
        """One row per epoch."""
        return self.path / "history.csv"

    @property
    def environment(self) -> Path:
        """Versions, seed, device, data hash."""
        return self.path / "environment.json"

    @property
    def audit(self) -> Path:
        """What the audit found in the table."""
        return self.path / "audit.json"

    @property
    def metrics(self) -> Path:
        """Every figure, machine-readable."""
        return self.path / "metrics.json"

    @property
    def calibration(self) -> Path:
        """What intervals are made by, for the best model."""
        return self.path / "calibration.pth"

    @property
    def resume(self) -> Path:
        """All that an exact continuation needs; gone when the run is done."""
        return self.path / "resume.pth"

    @property
    def done(self) -> Path:
        """Written last."""
        return self.path / "DONE"

    @property
    def best_model(self) -> Path:
        """Best on validation."""
        return self.path / f"best_model_{self.name}.pth"

    @property
    def final_model(self) -> Path:
        """After the last epoch."""
        return self.path / f"final_model_{self.name}.pth"

    def checkpoint(self, epoch: int) -> Path:
        """Return the file of a kept epoch."""
        return self.path / f"checkpoint_{self.name}_epoch_{epoch}.pth"

    @property
    def training_curves(self) -> Path:
        """Loss and learning rate by epoch."""
        return self.path / f"training_curves_{self.name}.png"

    @property
    def predictions_vs_targets(self) -> Path:
        """Scatter on the test rows."""
        return self.path / f"predictions_vs_targets_{self.name}.png"

    @property
    def residuals_analysis(self) -> Path:
        """Errors on the test rows."""
        return self.path / f"residuals_analysis_{self.name}.png"

    @property
    def intervals(self) -> Path:
        """What intervals hold, and how probabilities come true, on the test rows."""
        return self.path / f"intervals_{self.name}.png"

    @property
    def evaluation_results(self) -> Path:
        """The summary a person reads."""
        return self.path / f"evaluation_results_{self.name}.txt"

    @property
    def test_predictions(self) -> Path:
        """row_id, true_pkd, predicted_pkd, residual, affinity_bin."""
        return self.path / f"test_predictions_{self.name}.csv"

    @property
    def report(self) -> Path:
        """One self-contained page."""
        return self.path / "report.html"

    @property
    def tensorboard(self) -> Path:
        """Event files, where asked for."""
        return self.path / "tensorboard"

    @property
    def model_card(self) -> Path:
        """What the model is, learned from and is good for, in Hugging Face's format; their name for it in an export."""
        return self.path / ("README.md" if self.is_export else "model_card.md")

    @property
    def for_prediction(self) -> list[Path]:
        """The files beside the model that predicting reads; none in a run from before there were any."""
        return sorted(match for pattern in BESIDE_THE_MODEL for match in self.path.glob(pattern))

    @property
    def manifest(self) -> Path:
        """The hashes of an exported model's files; a run has none."""
        return self.path / MANIFEST

    @property
    def is_export(self) -> bool:
        """Whether `tailbind export` wrote it."""
        return self.manifest.is_file()

    @property
    def is_done(self) -> bool:
        """Whether the run has finished; only such a one is exported."""
        return self.is_export or self.done.exists()

    def read_json(self, path: Path) -> dict[str, Any]:
        """Return the content of one of the folder's JSON files.

        Raises
        ------
        RunError
            When it is missing or not JSON.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{path} must be readable JSON; it is missing or damaged. Train the run again.") from error
        return dict(content)

    def prepare(self, *, resume: bool, force: bool) -> None:
        """Check, before anything is read, that a run may be written here.

        Raises
        ------
        RunError
            When the folder is not empty, unless it is a run to be resumed or replaced by force.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"--out {self.path} must be a folder; it is a file. Choose another name.")
        content = [] if not self.path.exists() else [item for item in self.path.iterdir() if item.suffix != ".part"]
        if not content:
            return
        if self.is_export:
            raise RunError(
                f"--out {self.path} must be empty or a run; it holds an exported model. Choose another folder."
            )
        if not self.config.exists():
            raise RunError(f"--out {self.path} must be empty or a run; it holds other files. Choose another folder.")
        if resume or force:
            return
        state = "a finished run" if self.is_done else "an unfinished run (go on with --resume)"
        raise RunError(f"--out {self.path} must be empty; it holds {state}. Choose another folder or add --force.")

    def create(self) -> None:
        """Make the folder, empty of the files of an earlier run and of what a killed one left half-written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            patterns = (
                "*.pth", "training_curves_*.png", "predictions_vs_targets_*.png", "residuals_analysis_*.png",
                "intervals_*.png", "evaluation_results_*.txt", "test_predictions_*.csv", ".*.part",
            )  # fmt: skip
            fixed = (
                self.done, self.config, self.split, self.leakage, self.audit, self.history, self.environment,
                self.metrics, self.report, self.path / "model_card.md", *self.for_prediction,
            )  # fmt: skip
            for stale in (*fixed, *(match for pattern in patterns for match in self.path.glob(pattern))):
                stale.unlink(missing_ok=True)
            for event in self.tensorboard.glob("*"):
                event.unlink()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def sweep(self) -> None:
        """Remove what a killed process left half-written."""
        for stale in self.path.glob(".*.part"):
            stale.unlink(missing_ok=True)


def first_difference(before: Any, now: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """Return the first entry in which two resolved recipes differ: its dotted key and both values.

    >>> first_difference({"model": {"dropout": 0.3}}, {"model": {"dropout": 0.4}})
    ('model.dropout', 0.3, 0.4)
    """
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = ((name, before.get(name), now.get(name)) for name in {**before, **now})
        differences = (first_difference(old, new, f"{key}.{name}".lstrip(".")) for name, old, new in pairs)
        return next((difference for difference in differences if difference), None)
    return None if before == now else (key, before, now)


def open_run(path: str | Path) -> RunFolder:
    """Return an existing run folder, its name read from its `config.json`.

    Raises
    ------
    RunError
        When the folder is missing or no run.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        what = "is not a folder" if not folder.is_dir() else f"has no {CONFIG}"
        raise RunError(f"{folder} must be a run folder that `tailbind train` wrote, or `tailbind export`; it {what}.")
    run = RunFolder(folder, "")
    name = run.read_json(run.config).get("name")
    if not isinstance(name, str) or not name:
        raise RunError(f"{run.config} must name its recipe; it does not. Train the run again.")
    return RunFolder(folder, name)


def open_finished_run(path: str | Path) -> RunFolder:
    """Return a run folder whose run has finished.

    Raises
    ------
    RunError
        When it is missing, no run, or unfinished.
    """
    run = open_run(path)
    if not run.is_done:
        raise RunError(f"{run.path} must hold a finished run; it has no DONE file. Go on with tailbind train --resume.")
    return run
