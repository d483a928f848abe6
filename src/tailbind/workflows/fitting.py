"""A training itself: features, network, epochs; then the best model's results."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.checkpoint import RESUME, Checkpoint, load_state, save_checkpoint, save_state
from tailbind.errors import CheckpointError, TrainingError
from tailbind.models.mlp import Network
from tailbind.run_folder import RunFolder
from tailbind.runtime import cannot_write, write_text
from tailbind.scale import BIN_NAMES, bin_index, bin_label
from tailbind.table.leakage import sentence
from tailbind.table.splitting import TRAIN, VALIDATION
from tailbind.training.loop import EpochResult, Trainer
from tailbind.training.stages import epochs_needed, plan_stages
from tailbind.training.weights import bin_weights, effective_sample_size
from tailbind.workflows.checking import brief
from tailbind.workflows.dividing import leakage_of
from tailbind.workflows.evaluating import write_results
from tailbind.workflows.featurising import Computed
from tailbind.workflows.preparing import Prepared
from tailbind.workflows.progress import EpochProgress, say, warn

HISTORY: Final = ("epoch", "train_loss", "val_loss", "lr", "seconds", "rows_per_second")


def fit_and_evaluate(prepared: Prepared, inputs: Computed) -> dict[str, Any]:
    """Train what is left of a run on its features, and write its results."""
    plan, run, table, rows, features = prepared.plan, prepared.run, prepared.table, prepared.rows, inputs.features
    with prepared.console.status("Comparing test with training rows …"):
        leakage = leakage_of(run, table, rows)
    say(prepared.console, sentence(leakage))
    network: Network = plan.model.build(len(features.names), plan.training.seed, features.n_sparse)
    network.make_ready(features, rows[TRAIN], inputs.computed)
    network.to(prepared.device)
    say(prepared.console, f"Network: {network.describe()}.")
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
        notify=lambda text: warn(prepared.console, text),
    )
    _warn_of_plan(prepared, trainer)
    history = _train(prepared, trainer, inputs.pipeline.state())
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


def _warn_of_plan(prepared: Prepared, trainer: Trainer) -> None:
    """Warn of stages that cannot be, too few epochs, and odd batches."""
    plan, rows = prepared.plan, prepared.rows
    if plan.training.finetune_epochs and len(trainer.stages) == 1:
        warn(prepared.console, "No second stage: fewer than two training rows are in its bins.")
    needed = epochs_needed(plan.training, plan.optimizer.lr, len(rows[TRAIN]))
    at_labels = plan.training.start_at_mean or plan.loss.takes_bounds
    if needed > plan.training.epochs and not at_labels:
        warn(
            prepared.console,
            f"{plan.training.epochs} epochs are few for {len(rows[TRAIN]):,} rows: at this learning rate a network "
            f"needs about {needed:,} to come from pKd 0 to the labels. Try --set training.epochs={needed}.",
        )
    for stage in trainer.stages:
        if len(stage.rows) < trainer.batch_size:
            warn(prepared.console, f"{len(stage.rows):,} training rows are fewer than a batch: one batch it is.")
        elif len(stage.rows) % trainer.batch_size == 1:
            warn(prepared.console, "The last batch would be a single row; it joins the one before.")


def _sigma(prepared: Prepared, trainer: Trainer) -> dict[str, Any] | None:
    """Return the noise of the labels, and tell what was learned; None where the loss has none."""
    final, best = trainer.noise(), trainer.best_noise()
    if final is None or best is None:
        return None
    learned = not prepared.plan.loss.sigma
    if learned:
        say(
            prepared.console,
            f"Learned noise of labels: {np.mean(best):.3f} pKd in the best epoch, {np.mean(final):.3f} in the last.",
        )
    return {"learned": learned, "best_epoch": best, "final": final}


def _row_weights(prepared: Prepared) -> NDArray[np.float64]:
    """Return the loss's weight of every row, and tell of bins that training never sees."""
    pkd, train = prepared.table.pkd, prepared.rows[TRAIN]
    loss = prepared.plan.loss
    by_bin = bin_weights(pkd[train], loss.weights, loss.extreme_factor)
    counts = np.bincount(bin_index(pkd[train]), minlength=len(BIN_NAMES))
    empty = [bin_label(name) for name, count in zip(BIN_NAMES, counts, strict=True) if not count]
    if empty:
        warn(prepared.console, f"No training rows: {', '.join(empty)}. Nothing can be learned there.")
    weights: NDArray[np.float64] = by_bin[bin_index(pkd)]
    listing = ", ".join(
        f"{name.replace('_', ' ')} {weight:.4g}" for name, weight in zip(BIN_NAMES, by_bin, strict=True)
    )
    effective = effective_sample_size(weights[train])
    say(
        prepared.console,
        f"Bin weights: {listing}. Kish's effective sample size: {effective:,.0f} of {len(train):,} rows.",
    )
    return weights


def _train(prepared: Prepared, trainer: Trainer, features: Mapping[str, Any]) -> dict[str, list[float]]:
    """Train what is left, saving after every epoch, with the state of the features; return the history of all."""
    plan, run = prepared.plan, prepared.run
    lines: list[str] = []
    if run.resume.exists():
        state = load_state(run.resume, RESUME)
        if state["recipe"] != plan.document():
            raise CheckpointError(f"{run.resume} must be from the recipe in config.json; it is not. Use --force.")
        trainer.load_state(state["trainer"])
        lines = list(state["history"])
        say(prepared.console, f"Resuming after epoch {trainer.epoch} of {trainer.n_epochs}.")
    write_text(run.history, "\n".join([",".join(HISTORY), *lines]) + "\n")

    def checkpoint(epoch: int, val_loss: float) -> Checkpoint:
        return Checkpoint(
            recipe_name=plan.name,
            recipe=plan.document(),
            features=features,
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
