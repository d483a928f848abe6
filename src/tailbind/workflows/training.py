"""`tailbind train`: a table and a recipe → a run folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tailbind.errors import RunError
from tailbind.recipes import load_recipe
from tailbind.run_folder import RunFolder, first_difference
from tailbind.runtime import choose_device, describe_device, missing_gpu_warning
from tailbind.workflows.featurising import compute_features
from tailbind.workflows.fitting import fit_and_evaluate
from tailbind.workflows.plan import resolve
from tailbind.workflows.preparing import begin, check_same_data, check_same_recipe, default_recipe, prepare
from tailbind.workflows.progress import default_console, say, warn


@dataclass(frozen=True)
class RunSummary:
    """What a run leaves.

    Attributes
    ----------
    path : the run folder
    recipe : the recipe's name
    metrics : the content of `metrics.json`
    """

    path: Path
    recipe: str
    metrics: dict[str, Any]

    @property
    def report(self) -> Path:
        """The page with everything."""
        return self.path / "report.html"


def train(
    data: str | Path | Sequence[str | Path],
    *,
    recipe: str | Path | None = None,
    out: str | Path,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    cache: bool = True,
    console: Console | None = None,
) -> RunSummary:
    """Train a recipe on a table of measured affinities, evaluate it, and leave a run folder.

    Parameters
    ----------
    data : CSV, TSV or Parquet file, or several
    recipe : name of a recipe, or a TOML file; v3 unless given, v3-columns for a table without sequences
    out : the run folder; must not exist or be empty, but for `resume` and `force`
    overrides : `section.key=value`, as `--set` takes them
    seed : of the training; short for the override `training.seed`
    device : auto, cpu or cuda
    resume : continue an unfinished run exactly; start where there is none; nothing to do for a finished one
    force : replace the run in `out`
    cache : take a long table from the user's cache, as `read_table` does
    console : where progress goes; standard output unless given

    Returns
    -------
    RunSummary

    Raises
    ------
    TailbindError
        In one line, for whatever is wrong with recipe, table, folder or device.
    """
    console = console or default_console()
    if resume and force:
        raise RunError("--resume and --force exclude each other: one continues the run, the other replaces it.")
    recipe = recipe or default_recipe(data)
    changes = [*overrides, *([] if seed is None else [f"training.seed={seed}"])]
    plan = resolve(load_recipe(recipe, changes))
    chosen = choose_device(device)
    say(console, f"Device: {describe_device(chosen)}")
    if warning := missing_gpu_warning(chosen, device):
        warn(console, warning)
    run = RunFolder(Path(out), plan.name)
    run.prepare(resume=resume, force=force)
    going_on = resume and run.config.exists()
    if going_on and run.is_done:
        run.resume.unlink(missing_ok=True)
        say(console, f"{run.path} is finished; nothing to resume.")
        if difference := first_difference(run.read_json(run.config), plan.document()):
            key = "recipe" if difference[0] == "name" else difference[0]
            warn(console, f"It was trained with {key} = {difference[1]!r}; {difference[2]!r} is not used.")
        return RunSummary(run.path, plan.name, run.read_json(run.metrics))
    if going_on:
        check_same_recipe(run, plan)
    prepared = prepare(data, recipe, changes, plan, run, chosen, console, cache)
    begun = going_on and run.environment.exists() and run.split.exists()
    if begun:
        check_same_data(prepared)
        run.sweep()
    inputs = compute_features(prepared, begun=begun)
    if not begun:
        begin(prepared)
    metrics = fit_and_evaluate(prepared, inputs)
    return RunSummary(run.path, plan.name, metrics)
