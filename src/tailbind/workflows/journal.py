"""What a training in a run folder writes down as it goes: its history, and all that going on with it needs."""

import io
from pathlib import Path
from typing import Any, Final

import polars as pl

from tailbind.checkpoint import RESUME, load_state, save_state
from tailbind.errors import CheckpointError
from tailbind.models.contract import Predictive
from tailbind.run_folder import RunFolder
from tailbind.runtime import cannot_write, write_text
from tailbind.training.loop import Trainer
from tailbind.training.results import EpochResult
from tailbind.training.selection import VAL_LOSS
from tailbind.training.stages import TrainingOptions
from tailbind.workflows.plan import Plan

HISTORY: Final = ("epoch", "train_loss", "val_loss", "lr", "seconds", "rows_per_second")


class Journal:
    """The history and the resume state of a run, read where there are some and written as epochs and parts end.

    The parts of a blend have their epochs one after the other in one history.

    Parameters
    ----------
    run : the folder
    plan : that the run goes by

    Raises
    ------
    CheckpointError
        When the folder's resume state is of another recipe.
    """

    def __init__(self, run: RunFolder, plan: Plan) -> None:
        self._run = run
        self._recipe = plan.document()
        trainings = [part.plan.training for part in plan.parts.values()] or [plan.training]
        judged = {one.select_by for one in trainings if isinstance(one, TrainingOptions)}
        self.columns = HISTORY if judged <= {VAL_LOSS} else (*HISTORY, "val_score")
        self._lines: list[str] = []
        self._before = 0
        self._finished: dict[str, Any] = {}
        self._trainer: dict[str, Any] | None = None
        if run.resume.exists():
            state = load_state(run.resume, RESUME)
            if state["recipe"] != self._recipe:
                raise CheckpointError(f"{run.resume} must be from the recipe in config.json; it is not. Use --force.")
            self._lines, self._trainer = list(state["history"]), state["trainer"]
            self._before = int(state.get("before", 0))  # a state of before there were blends has no parts
            self._finished = dict(state.get("finished", {}))
        if self._lines:
            self._write_history()

    @property
    def before(self) -> int:
        """Epochs of the parts that are finished."""
        return self._before

    def finished(self, name: str) -> dict[str, Any] | None:
        """Return what was kept of a finished part; None of one that is not."""
        return self._finished.get(name)

    def go_on(self, trainer: Trainer) -> bool:
        """Put a trainer where an earlier process left it; return whether one had begun."""
        if not self._lines:
            self._write_history()
        if self._trainer is None:
            return False
        trainer.load_state(self._trainer)
        return True

    def epoch_ended(self, trainer: Trainer, result: EpochResult) -> None:
        """Write down an epoch."""
        # The line goes into the resume state before it goes into the file: after a kill between the two the
        # file is completed from the state, never the epoch repeated.
        values = {**vars(result), "epoch": self._before + result.epoch}
        self._lines.append(",".join(repr(values[name]) for name in self.columns))
        self._trainer = trainer.state()
        self._save()
        _append(self._run.history, self._lines[-1])

    def part_ended(self, name: str, model: Predictive, record: dict[str, Any]) -> None:
        """Keep a part that has learned, and what is to be told of it."""
        self._finished[name] = {"model": model.state(), "record": record}
        self._before, self._trainer = len(self._lines), None
        self._save()

    def history(self) -> dict[str, list[float]]:
        """Return the columns of the history; empty where there were no epochs."""
        return read_history(self._run.history) if self._lines else {}

    def _write_history(self) -> None:
        write_text(self._run.history, "\n".join([",".join(self.columns), *self._lines]) + "\n")

    def _save(self) -> None:
        state = {"history": self._lines, "before": self._before, "finished": self._finished, "trainer": self._trainer}
        save_state(self._run.resume, RESUME, {"recipe": self._recipe, **state})


def read_history(path: Path) -> dict[str, list[float]]:
    """Return the columns of a run's `history.csv`."""
    frame = pl.read_csv(io.BytesIO(path.read_bytes()), infer_schema=False).cast(pl.Float64)
    return {name: frame[name].to_list() for name in frame.columns}


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as handle:
            handle.write(line + "\n")
    except OSError as error:
        raise cannot_write(path, error) from error
