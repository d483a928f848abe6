"""`tailbind train`: a table and a recipe → a run folder."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from rich.console import Console

from tailbind.checkpoint import RESUME, Checkpoint, load_state, save_checkpoint, save_state
from tailbind.errors import CheckpointError, RunError, TableError, TrainingError
from tailbind.features.pipeline import FeaturePipeline, column_prefix
from tailbind.models.mlp import Network
from tailbind.recipes import load_recipe
from tailbind.run_folder import RunFolder, first_difference
from tailbind.runtime import (
    cannot_write,
    choose_device,
    describe_device,
    environment_record,
    file_hash,
    missing_gpu_warning,
    write_json,
    write_text,
)
from tailbind.scale import BIN_NAMES, bin_index, bin_label
from tailbind.table.audit import audit
from tailbind.table.grouping import find_families
from tailbind.table.leakage import sentence
from tailbind.table.reading import read_table
from tailbind.table.schema import MEASURED, AffinityTable
from tailbind.table.splitting import TRAIN, VALIDATION
from tailbind.training.loop import EpochResult, Trainer
from tailbind.training.stages import epochs_needed, plan_stages
from tailbind.training.weights import bin_weights, effective_sample_size
from tailbind.workflows.checking import brief, headline
from tailbind.workflows.dividing import divide, leakage_of, write_split
from tailbind.workflows.evaluating import write_results
from tailbind.workflows.plan import Plan, resolve
from tailbind.workflows.progress import EpochProgress, default_console

FEWEST_ROWS: Final = 20
HISTORY: Final = ("epoch", "train_loss", "val_loss", "lr", "seconds", "rows_per_second")


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


@dataclass(frozen=True)
class _Prepared:
    """All that is known before training begins."""

    plan: Plan
    run: RunFolder
    table: AffinityTable
    rows: dict[str, NDArray[np.intp]]
    record: dict[str, Any]
    device: torch.device
    console: Console


def train(
    data: str | Path | Sequence[str | Path],
    *,
    recipe: str | Path = "v2",
    out: str | Path,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
) -> RunSummary:
    """Train a recipe on a table of measured affinities, evaluate it, and leave a run folder.

    Parameters
    ----------
    data : CSV, TSV or Parquet file, or several
    recipe : name of a recipe, or a TOML file
    out : the run folder; must not exist or be empty, but for `resume` and `force`
    overrides : `section.key=value`, as `--set` takes them
    seed : of the training; short for the override `training.seed`
    device : auto, cpu or cuda
    resume : continue an unfinished run exactly; start where there is none; nothing to do for a finished one
    force : replace the run in `out`
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
    changes = [*overrides, *([] if seed is None else [f"training.seed={seed}"])]
    plan = resolve(load_recipe(recipe, changes))
    chosen = choose_device(device)
    _say(console, f"Device: {describe_device(chosen)}")
    if warning := missing_gpu_warning(chosen, device):
        _warn(console, warning)
    run = RunFolder(Path(out), plan.name)
    run.prepare(resume=resume, force=force)
    going_on = resume and run.config.exists()
    if going_on and run.is_done:
        run.resume.unlink(missing_ok=True)
        _say(console, f"{run.path} is finished; nothing to resume.")
        if difference := first_difference(run.read_json(run.config), plan.document()):
            key = "recipe" if difference[0] == "name" else difference[0]
            _warn(console, f"It was trained with {key} = {difference[1]!r}; {difference[2]!r} is not used.")
        return RunSummary(run.path, plan.name, run.read_json(run.metrics))
    if going_on:
        _check_same_recipe(run, plan)
    prepared = _prepare(data, recipe, changes, plan, run, chosen, console)
    if going_on and run.environment.exists() and run.split.exists():
        _check_same_data(prepared)
        run.sweep()
    else:
        _begin(prepared)
    metrics = _fit_and_evaluate(prepared)
    return RunSummary(run.path, plan.name, metrics)


def _prepare(
    data: str | Path | Sequence[str | Path],
    recipe: str | Path,
    changes: Sequence[str],
    plan: Plan,
    run: RunFolder,
    device: torch.device,
    console: Console,
) -> _Prepared:
    """Read and split; nothing is written yet, so that a bad table leaves nothing behind."""
    files = [Path(path) for path in ([data] if isinstance(data, str | Path) else data)]
    with console.status("Reading the table …"):
        table = read_table(files, feature_prefix=column_prefix(plan.features))
    for line in table.report.lines():
        (_warn if line.startswith("Warning: ") else _say)(console, line.removeprefix("Warning: "))
    _check_usable(table)
    censored = int((table.relation != MEASURED).sum())
    if censored:
        how = "'s loss takes them as bounds" if plan.loss.takes_bounds else " fits them as if measured"
        _say(console, f"{censored:,} labels are marked < or >; this recipe{how}.")
    first, last = table.feature_names[0], table.feature_names[-1]
    _say(console, f"Features: {len(table.feature_names)} columns, {first} … {last}.")
    with console.status("Splitting the table …"):
        rows, remarks = divide(plan, table)
    for line in remarks:
        (_warn if line.startswith("Warning: ") else _say)(console, line.removeprefix("Warning: "))
    record = {
        **environment_record(device),
        "seed": plan.training.seed,
        "recipe": str(recipe),
        "overrides": list(changes),
        "data": [str(path) for path in files],
        "data_sha256": file_hash(files),
        "n_read": table.report.n_read,
        "dropped": dict(table.report.dropped),
        "columns": dict(table.report.columns),
        "notes": list(table.report.notes),
    }
    return _Prepared(plan, run, table, rows, record, device, console)


def _check_usable(table: AffinityTable) -> None:
    name = ", ".join(table.report.files)
    if len(table) < FEWEST_ROWS:
        lost = "; ".join(f"{count:,} dropped: {reason}" for reason, count in table.report.dropped.items() if count)
        raise TableError(
            f"{name} must have at least {FEWEST_ROWS} usable rows to train on; got {len(table)} of "
            f"{table.report.n_read:,}{f' ({lost})' if lost else ''}. Add measurements."
        )
    if np.ptp(table.pkd) == 0:
        raise TableError(
            f"{name} must have labels that differ; all {len(table):,} are pKd {table.pkd[0]:g}. Check the label column."
        )


def _begin(prepared: _Prepared) -> None:
    """Make the folder and write what is known before training."""
    run, table = prepared.run, prepared.table
    run.create()
    write_json(run.config, prepared.plan.document())
    with prepared.console.status("Finding families of near-identical antibodies …"):
        families = find_families(table.frame)
    write_split(run, table, prepared.rows, families)
    with prepared.console.status("Auditing the table …"):
        found = audit(table, numbering=False)
    in_training = [np.isin(entry.rows, prepared.rows[TRAIN]).sum() for entry in found.named("floor", "ceiling")]
    write_json(
        run.audit,
        {**found.document(table.frame["row_id"]), "suspected_floors_in_training": int(sum(in_training))},
    )
    if not found.is_clean:
        _warn(prepared.console, f"Audit of {headline(found)} See {run.audit}, or tailbind check.")
    write_json(run.environment, {**prepared.record, "families_unknown": families.why})


def _check_same_recipe(run: RunFolder, plan: Plan) -> None:
    differences = first_difference(run.read_json(run.config), plan.document())
    if differences:
        key, before, now = differences
        raise RunError(
            f"--resume needs the recipe that {run.path} was begun with; {key} was {before!r}, now it is {now!r}. "
            "Give the same recipe and --set, or start over with --force."
        )


def _check_same_data(prepared: _Prepared) -> None:
    run = prepared.run
    before = run.read_json(run.environment).get("data_sha256")
    if before != prepared.record["data_sha256"]:
        raise RunError(
            f"--resume needs the table that {run.path} was begun with; {', '.join(prepared.record['data'])} differs "
            "from it (SHA-256). Give the same file, or start over with --force."
        )


def _fit_and_evaluate(prepared: _Prepared) -> dict[str, Any]:
    plan, run, table, rows = prepared.plan, prepared.run, prepared.table, prepared.rows
    with prepared.console.status("Comparing test with training rows …"):
        leakage = leakage_of(run, table, rows)
    _say(prepared.console, sentence(leakage))
    pipeline = FeaturePipeline.fit(plan.feature_kinds, plan.features, table, rows[TRAIN])
    features = pipeline.transform(table).dense
    network: Network = plan.model.build(features.shape[1], plan.training.seed).to(prepared.device)
    _say(prepared.console, f"Network: {network.describe()}.")
    weights = _row_weights(prepared)
    trainer = Trainer(
        network,
        features,
        table.pkd,
        table.relation,
        weights,
        rows[VALIDATION],
        plan_stages(plan.training, plan.optimizer, plan.schedule, table.pkd, rows[TRAIN]),
        plan.loss,
        plan.training,
        notify=lambda text: _warn(prepared.console, text),
    )
    if plan.training.finetune_epochs and len(trainer.stages) == 1:
        _warn(prepared.console, "No second stage: fewer than two training rows are in its bins.")
    needed = epochs_needed(plan.training, plan.optimizer.lr, len(rows[TRAIN]))
    if needed > plan.training.epochs and not plan.loss.takes_bounds:  # that loss starts at the labels
        _warn(
            prepared.console,
            f"{plan.training.epochs} epochs are few for {len(rows[TRAIN]):,} rows: at this learning rate a network "
            f"needs about {needed:,} to come from pKd 0 to the labels. Try --set training.epochs={needed}.",
        )
    for stage in trainer.stages:
        if len(stage.rows) < trainer.batch_size:
            _warn(prepared.console, f"{len(stage.rows):,} training rows are fewer than a batch: one batch it is.")
        elif len(stage.rows) % trainer.batch_size == 1:
            _warn(prepared.console, "The last batch would be a single row; it joins the one before.")
    history = _train(prepared, trainer, pipeline)
    sigma = _sigma(prepared, trainer)
    for member, best in zip(network.members, trainer.best_weights, strict=True):
        member.load_state_dict(best)
    metrics = write_results(
        plan,
        run,
        table,
        features,
        rows,
        network,
        history=history,
        best_epoch=trainer.best_epoch,
        batch_size=trainer.batch_size,
        sigma=sigma,
        leakage=leakage,
        audit=brief(run.read_json(run.audit)) if run.audit.exists() else None,
        record=run.read_json(run.environment),
        console=prepared.console,
    )
    write_text(run.done, "")
    run.resume.unlink(missing_ok=True)
    return metrics


def _sigma(prepared: _Prepared, trainer: Trainer) -> dict[str, Any] | None:
    """Return the noise of the labels, and tell what was learned; None where the loss has none."""
    final, best = trainer.noise(), trainer.best_noise()
    if final is None or best is None:
        return None
    learned = not prepared.plan.loss.sigma
    if learned:
        _say(
            prepared.console,
            f"Learned noise of labels: {np.mean(best):.3f} pKd in the best epoch, {np.mean(final):.3f} in the last.",
        )
    return {"learned": learned, "best_epoch": best, "final": final}


def _row_weights(prepared: _Prepared) -> NDArray[np.float64]:
    """Return the loss's weight of every row, and tell of bins that training never sees."""
    pkd, train = prepared.table.pkd, prepared.rows[TRAIN]
    loss = prepared.plan.loss
    by_bin = bin_weights(pkd[train], loss.weights, loss.extreme_factor)
    counts = np.bincount(bin_index(pkd[train]), minlength=len(BIN_NAMES))
    empty = [bin_label(name) for name, count in zip(BIN_NAMES, counts, strict=True) if not count]
    if empty:
        _warn(prepared.console, f"No training rows: {', '.join(empty)}. Nothing can be learned there.")
    weights: NDArray[np.float64] = by_bin[bin_index(pkd)]
    listing = ", ".join(
        f"{name.replace('_', ' ')} {weight:.4g}" for name, weight in zip(BIN_NAMES, by_bin, strict=True)
    )
    effective = effective_sample_size(weights[train])
    _say(
        prepared.console,
        f"Bin weights: {listing}. Kish's effective sample size: {effective:,.0f} of {len(train):,} rows.",
    )
    return weights


def _train(prepared: _Prepared, trainer: Trainer, pipeline: FeaturePipeline) -> dict[str, list[float]]:
    """Train what is left, saving after every epoch; return the history of all epochs."""
    plan, run = prepared.plan, prepared.run
    lines: list[str] = []
    if run.resume.exists():
        state = load_state(run.resume, RESUME)
        if state["recipe"] != plan.document():
            raise CheckpointError(f"{run.resume} must be from the recipe in config.json; it is not. Use --force.")
        trainer.load_state(state["trainer"])
        lines = list(state["history"])
        _say(prepared.console, f"Resuming after epoch {trainer.epoch} of {trainer.n_epochs}.")
    write_text(run.history, "\n".join([",".join(HISTORY), *lines]) + "\n")

    def checkpoint(epoch: int, val_loss: float) -> Checkpoint:
        return Checkpoint(
            recipe_name=plan.name,
            recipe=plan.document(),
            features=pipeline.state(),
            model_kind=plan.kinds["model"],
            model=trainer.network.state(),
            epoch=epoch,
            val_loss=val_loss,
        )

    def on_epoch(result: EpochResult) -> None:
        saved = checkpoint(result.epoch, result.val_loss)
        if result.is_best:
            save_checkpoint(run.best_model, saved)
        if result.epoch % plan.training.checkpoint_every == 0:
            save_checkpoint(run.checkpoint(result.epoch), saved)
        if result.epoch == trainer.n_epochs:
            save_checkpoint(run.final_model, saved)
        # The line goes into the resume state before it goes into the file: after a kill between the two the
        # file is completed from the state, never the epoch repeated.
        lines.append(",".join(repr(getattr(result, name)) for name in HISTORY))
        save_state(run.resume, RESUME, {"recipe": plan.document(), "trainer": trainer.state(), "history": lines})
        _append(run.history, lines[-1])
        progress.update(result)
        if log is not None:
            for name in ("train_loss", "val_loss", "lr"):
                log.add_scalar(name, getattr(result, name), result.epoch)

    log = _tensorboard(run) if plan.training.tensorboard else None
    with EpochProgress(prepared.console, trainer.n_epochs, trainer.epoch) as progress:
        try:
            trainer.run(on_epoch)
        except TrainingError as error:
            good = f"{run.best_model} (epoch {trainer.best_epoch})" if trainer.best_epoch else "none yet"
            raise TrainingError(f"{error} Last good checkpoint: {good}.") from error
        finally:
            if log is not None:
                log.close()
    return read_history(run.history)


def read_history(path: Path) -> dict[str, list[float]]:
    """Return the columns of a run's `history.csv`."""
    frame = pl.read_csv(io.BytesIO(path.read_bytes()), schema=dict.fromkeys(HISTORY, pl.Float64))
    return {name: frame[name].to_list() for name in HISTORY}


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as handle:
            handle.write(line + "\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def _tensorboard(run: RunFolder) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError(
            "training.tensorboard=true needs the package tensorboard; it is not installed. Run: pip install tensorboard"
        ) from None
    return SummaryWriter(str(run.tensorboard))


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _warn(console: Console, text: str) -> None:
    console.print(f"Warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)
