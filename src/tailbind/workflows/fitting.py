"""A training in a run folder: the model, its checkpoints and history; then the best model's results."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailbind.checkpoint import Checkpoint, save_checkpoint
from tailbind.errors import TrainingError
from tailbind.models import MODELS
from tailbind.models.contract import Predictive, Problem, as_features
from tailbind.models.network import Network
from tailbind.reporting.card import model_card
from tailbind.run_folder import RunFolder
from tailbind.runtime import write_text
from tailbind.table.leakage import sentence
from tailbind.table.schema import MEASURED
from tailbind.table.splitting import TEST, TRAIN
from tailbind.training.loop import Trainer
from tailbind.training.results import EpochResult
from tailbind.workflows.blending import fit_parts, put_together
from tailbind.workflows.calibrating import calibrate
from tailbind.workflows.checking import brief
from tailbind.workflows.dividing import leakage_of
from tailbind.workflows.evaluating import Fitted, write_results
from tailbind.workflows.featurising import Computed, learned_rows
from tailbind.workflows.journal import HISTORY, Journal
from tailbind.workflows.knowing import find_domain
from tailbind.workflows.modelling import fit_at_once, pose, ready_network, take_best, trainer_of
from tailbind.workflows.plan import Plan
from tailbind.workflows.preparing import Prepared
from tailbind.workflows.progress import EpochProgress, say, working


def fit_and_evaluate(prepared: Prepared, inputs: Computed) -> dict[str, Any]:
    """Train what is left of a run on its features, and write its results."""
    plan, run, table, rows = prepared.plan, prepared.run, prepared.table, prepared.rows
    with prepared.console.status("Comparing test with training rows …"):
        leakage = leakage_of(run, table, {TRAIN: learned_rows(plan, rows), TEST: rows[TEST]})
    say(prepared.console, sentence(leakage))
    with prepared.console.status("Finding how far training reaches …"):
        domain = find_domain(prepared, inputs)
    fit = _fit_parts if plan.parts else _fit_at_once if plan.is_closed_form else _fit_in_epochs
    fitted = fit(prepared, inputs)
    with prepared.console.status("Calibrating intervals …"):
        calibrated = calibrate(
            plan,
            table,
            inputs.features,
            rows,
            fitted.model,
            fitted.held_out,
            fitted.validation,
            lambda text: say(prepared.console, text),
        )
    if calibrated is not None:
        calibrated.save(run)
    metrics = write_results(
        plan,
        run,
        table,
        inputs.features,
        rows,
        fitted,
        leakage=leakage,
        domain=domain,
        audit=brief(run.read_json(run.audit)) if run.audit.exists() else None,
        record=run.read_json(run.environment),
        calibrated=calibrated,
        console=prepared.console,
    )
    write_text(run.model_card, model_card(*map(run.read_json, (run.metrics, run.config, run.environment))))
    write_text(run.done, "")
    run.resume.unlink(missing_ok=True)
    return metrics


def _posed(prepared: Prepared, inputs: Computed) -> Problem:
    """Return what there is to learn, what is told of it printed."""
    plan, table, rows = prepared.plan, prepared.table, prepared.rows
    return pose(plan, table, inputs.features, rows, lambda text: say(prepared.console, text))


def _fit_at_once(prepared: Prepared, inputs: Computed) -> Fitted:
    """Fit a model that learns without epochs: its best model is its final one."""
    plan, run, problem = prepared.plan, prepared.run, _posed(prepared, inputs)
    started = time.perf_counter()
    with working(prepared.console, "Fitting the model"):
        model = fit_at_once(plan, problem, prepared.device)
    seconds = time.perf_counter() - started
    errors = np.square(model.predict(problem.X, problem.validation) - problem.y[problem.validation])
    val_loss = float((problem.weight[problem.validation] * errors).mean())
    saved = _checkpoint(prepared, inputs.pipeline.state(), model, 0, val_loss)
    for path in (run.best_model, run.final_model):
        save_checkpoint(path, saved)
    return Fitted(model, seconds)


def _fit_in_epochs(prepared: Prepared, inputs: Computed) -> Fitted:
    """Train what is left of a network, and give it the weights of its best epoch."""
    plan, run, train = prepared.plan, prepared.run, prepared.rows[TRAIN]
    network = ready_network(plan, inputs.features, train, inputs.computed, prepared.device)
    say(prepared.console, f"Network: {network.describe()}.")
    trainer = trainer_of(plan, _posed(prepared, inputs), network)
    journal, features = Journal(run, plan), inputs.pipeline.state()

    def keep(result: EpochResult) -> None:
        saved = _checkpoint(prepared, features, network, result.epoch, result.val_loss)
        if result.is_best:
            save_checkpoint(run.best_model, saved)
        if result.epoch % trainer.options.checkpoint_every == 0:
            save_checkpoint(run.checkpoint(result.epoch), saved)
        if result.is_last:
            save_checkpoint(run.final_model, saved)

    _train(prepared, trainer, journal, keep)
    sigma = _sigma(prepared, trainer)
    take_best(network, trainer)
    history = journal.history()
    return Fitted(
        network,
        float(np.sum(history["seconds"])),
        history,
        trainer.best_epoch,
        trainer.batch_size,
        network.parameter_counts()[0] * len(network.members),
        sigma,
    )


def _fit_parts(prepared: Prepared, inputs: Computed) -> Fitted:
    """Fit what is left of a blend's parts, then put them together: the best model is the final one."""
    plan, run, console = prepared.plan, prepared.run, prepared.console
    journal = Journal(run, plan)
    records: dict[str, dict[str, Any]] = {}
    problem = _posed(prepared, inputs)

    def fit(name: str, own: Plan, problem: Problem, computed: NDArray[np.bool_]) -> Predictive:
        kept = journal.finished(name)
        if kept is not None:
            records[name] = kept["record"]
            model: Predictive = MODELS.load(own.kinds["model"]).from_state(kept["model"])
            return model.to(prepared.device)
        if own.is_closed_form:
            started = time.perf_counter()
            with working(console, f"Fitting {name}"):
                model = fit_at_once(own, problem, prepared.device)
            records[name] = {"n_train": len(problem.train), "seconds": time.perf_counter() - started}
        else:
            model, records[name] = _part_in_epochs(prepared, name, own, problem, computed, journal)
        journal.part_ended(name, model, records[name])
        return model

    fitted = fit_parts(plan, problem, inputs, fit)
    started = time.perf_counter()
    with working(console, "Choosing the weights"):
        combined = put_together(plan, problem, inputs, prepared.table, prepared.device, fitted)
    model = combined.model
    seconds = time.perf_counter() - started + sum(record["seconds"] for record in records.values())
    measured = problem.relation[problem.validation] == MEASURED
    errors = (combined.validation.predicted - problem.y[problem.validation])[measured]
    error = float(np.square(errors).mean()) if len(errors) else float("nan")
    saved = _checkpoint(prepared, inputs.pipeline.state(), model, 0, error)
    for path in (run.best_model, run.final_model):
        save_checkpoint(path, saved)
    parts = {name: {**record, "share": model.shares[name]} for name, record in records.items()}
    for name, n_rows in combined.refitted.items():
        parts[name]["n_refitted"] = n_rows
    parts |= {name: {"left_out": why} for name, why in fitted.without.items()}
    kinds = {name: part.plan.kinds["model"] for name, part in plan.parts.items()}
    parts = {name: {"model": kind, **parts[name]} for name, kind in kinds.items()}
    parameters = sum(record.get("parameters", 0) for record in records.values())
    return Fitted(
        model,
        seconds,
        journal.history(),
        parameters=parameters,
        parts=parts,
        validation=combined.validation,
        held_out=combined.held_out,
    )


def _part_in_epochs(
    prepared: Prepared, name: str, plan: Plan, problem: Problem, computed: NDArray[np.bool_], journal: Journal
) -> tuple[Network, dict[str, Any]]:
    """Train what is left of a blend's network; return it with its best weights, and what is to be told of it."""
    network = ready_network(plan, as_features(problem.X), problem.train, computed, prepared.device)
    problem.notify(f"{network.describe()}.")
    trainer = trainer_of(plan, problem, network)
    _train(prepared, trainer, journal, lambda _: None, name)
    take_best(network, trainer)
    first = journal.before
    return network, {
        "n_train": len(problem.train),
        "seconds": float(np.sum(journal.history()["seconds"][first:])),
        "parameters": network.parameter_counts()[0] * len(network.members),
        "best_epoch": first + trainer.best_epoch,
        "epochs": trainer.epoch,
        "batch_size": trainer.batch_size,
    }


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


def _checkpoint(
    prepared: Prepared, features: Mapping[str, Any], model: Predictive, epoch: int, val_loss: float
) -> Checkpoint:
    """Return a model as the run keeps it, with the state of its features."""
    plan = prepared.plan
    return Checkpoint(
        recipe_name=plan.name,
        recipe=plan.document(),
        features=features,
        model_kind=plan.kinds["model"],
        model=model.state(),
        epoch=epoch,
        val_loss=val_loss,
    )


def _train(
    prepared: Prepared, trainer: Trainer, journal: Journal, keep: Callable[[EpochResult], None], name: str = ""
) -> None:
    """Train what is left; `keep` saves what an epoch leaves beside the journal's entry.

    Parameters
    ----------
    name : of the part of a blend that is trained
    """
    if journal.go_on(trainer):
        whose = f" {name}" if name else ""
        say(prepared.console, f"Resuming{whose} after epoch {trainer.epoch} of {trainer.n_epochs}.")

    def on_epoch(result: EpochResult) -> None:
        keep(result)
        journal.epoch_ended(trainer, result)
        progress.update(result)
        if log is not None:
            for name in ("train_loss", "val_loss", "lr", *journal.columns[len(HISTORY) :]):
                log.add_scalar(name, getattr(result, name), journal.before + result.epoch)

    log = _tensorboard(prepared.run) if trainer.options.tensorboard else None
    select_by = trainer.options.select_by
    with EpochProgress(prepared.console, trainer.n_epochs, trainer.epoch, select_by, name) as progress:
        try:
            trainer.run(on_epoch)
        except TrainingError as error:
            best = prepared.run.best_model
            good = f"{best} (epoch {trainer.best_epoch})" if trainer.best_epoch and best.exists() else "none yet"
            raise TrainingError(f"{error} Last good checkpoint: {good}.") from error
        finally:
            if log is not None:
                log.close()
    if trainer.epoch < trainer.n_epochs:
        say(
            prepared.console,
            f"{f'{name} stopped' if name else 'Stopped'} after epoch {trainer.epoch}: no better one than epoch "
            f"{trainer.best_epoch} for {trainer.options.patience} epochs.",
        )


def _tensorboard(run: RunFolder) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError(
            "training.tensorboard=true needs the package tensorboard; it is not installed. Run: pip install tensorboard"
        ) from None
    return SummaryWriter(str(run.tensorboard))
