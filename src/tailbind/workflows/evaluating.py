"""The end of a training: figures, pictures, texts and the page of a run folder."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console

from tailbind.evaluation.criteria import grade, next_steps
from tailbind.evaluation.diagnosis import Likelihood, diagnose
from tailbind.evaluation.metrics import evaluate
from tailbind.models.baselines import Ridge
from tailbind.models.mlp import Network
from tailbind.reporting import plots
from tailbind.reporting.report import run_report
from tailbind.run_folder import RunFolder
from tailbind.runtime import write_json, write_text, writing
from tailbind.scale import bin_index, bin_names
from tailbind.table.features import Features
from tailbind.table.schema import MEASURED, AffinityTable
from tailbind.table.splitting import PROMISES, TEST, TRAIN, VALIDATION
from tailbind.training.weights import bin_weights
from tailbind.workflows.dividing import read_families
from tailbind.workflows.plan import Plan
from tailbind.workflows.scoring import baselines, describe_labels, describe_training, score

Rows = Mapping[str, NDArray[np.intp]]


def write_results(
    plan: Plan,
    run: RunFolder,
    table: AffinityTable,
    features: Features,
    rows: Rows,
    network: Network,
    *,
    history: Mapping[str, Sequence[float]],
    best_epoch: int,
    batch_size: int,
    sigma: Mapping[str, Any] | None,
    leakage: Mapping[str, Any],
    audit: Mapping[str, Any] | None,
    record: Mapping[str, Any],
    console: Console,
) -> dict[str, Any]:
    """Evaluate the best model on the test rows, once, and write everything a run folder ends with."""
    members = network.predict_members(features, rows[TEST])
    predicted = members.mean(axis=1)
    validation_predicted = network.predict(features, rows[VALIDATION])
    pkd, relation = table.pkd, table.relation
    validation = evaluate(pkd[rows[VALIDATION]], validation_predicted)
    families = read_families(run, table.frame["row_id"].gather(rows[TEST].tolist()))
    why = str(record.get("families_unknown", ""))
    test = score(pkd[rows[TEST]], predicted, relation[rows[TEST]], clusters=families, why=why)
    judged = _judged_rows(plan, table, rows)
    with console.status("Fitting the predictors beside it …"):
        ridge = Ridge.chosen(features, pkd, rows[TRAIN], rows[VALIDATION])
    findings = diagnose(
        history,
        evaluate(pkd[judged], network.predict(features, judged)),
        float(evaluate(pkd[judged], ridge.predict(features, judged))["rmse"]),
        device=str(record["device"]),
        settings=plan.document(),
        likelihood=None if sigma is None else _likelihood(plan, table, rows, sigma),
    )
    metrics: dict[str, Any] = {
        "recipe": plan.name,
        "parameters": network.parameter_counts()[0] * len(network.members),
        "best_epoch": best_epoch,
        "epochs": len(history["epoch"]),
        "batch_size": batch_size,
        "seconds": float(np.sum(history["seconds"])),
        "train": describe_training(pkd[rows[TRAIN]]),
        "validation": validation,
        "test": test,
        "baselines": baselines(table, features, rows, ridge),
        "leakage": leakage,
        "audit": audit,
        "labels": describe_labels(table, rows[TRAIN], takes_bounds=plan.loss.takes_bounds),
        "criteria": grade(test),
        "diagnosis": [vars(finding) for finding in findings],
    }
    if sigma is not None:
        metrics["sigma"] = sigma
    if members.shape[1] > 1:
        metrics["test"]["member_sd"] = float(members.std(axis=1, ddof=1).mean())
    write_json(run.metrics, metrics)
    _write_predictions(run, table, rows[TEST], members)
    pictures = _pictures(plan, history, best_epoch, pkd[rows[TEST]], predicted, relation[rows[TEST]] != MEASURED)
    files = (run.training_curves, run.predictions_vs_targets, run.residuals_analysis)
    for file, picture in zip(files, pictures.values(), strict=True):
        with writing(file) as handle:
            handle.write(picture)
    report = run_report(
        metrics,
        title=f"tailbind · {plan.name}",
        subtitle=plan.description,
        pictures=pictures,
        steps=_steps(metrics, run, record),
        facts=_facts(plan, metrics, record, network),
    )
    write_text(run.evaluation_results, report.text())
    write_text(run.report, report.html())
    for index, part in enumerate(report.tables[:2]):
        console.print(("\n" if not index else "") + part.text() + "\n", highlight=False, markup=False, soft_wrap=True)
    console.print(report.headline, highlight=False, markup=False, soft_wrap=True)
    for symptom, evidence, advice in report.findings or ():
        remedy = f" Try {advice}" if advice else ""
        console.print(f"{symptom.capitalize()}: {evidence}{remedy}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"Report: {run.report}", highlight=False, markup=False, soft_wrap=True)
    return metrics


def _judged_rows(plan: Plan, table: AffinityTable, rows: Rows) -> NDArray[np.intp]:
    """Return the validation rows to diagnose by: under a loss that takes bounds, only those that were measured."""
    validation = rows[VALIDATION]
    measured = validation[table.relation[validation] == MEASURED]
    return measured if plan.loss.takes_bounds and len(measured) > 1 else validation


def _likelihood(plan: Plan, table: AffinityTable, rows: Rows, sigma: Mapping[str, Any]) -> Likelihood:
    """Return how the losses of a run with a noise are to be read: by a given noise, or by a learned one."""
    if sigma["learned"]:
        return Likelihood()
    loss, pkd = plan.loss, table.pkd
    of_bin = bin_weights(pkd[rows[TRAIN]], loss.weights, loss.extreme_factor)
    counted = of_bin[bin_index(pkd)] * (table.relation == MEASURED)
    shares = float(counted[rows[TRAIN]].mean()), float(counted[rows[VALIDATION]].mean())
    return Likelihood(float(sigma["best_epoch"][0]), shares)


def _write_predictions(
    run: RunFolder, table: AffinityTable, test: NDArray[np.intp], members: NDArray[np.float64]
) -> None:
    true, predicted = table.pkd[test], members.mean(axis=1)
    frame = pl.DataFrame(
        {
            "row_id": table.frame["row_id"].gather(test.tolist()),
            "true_pkd": true,
            "predicted_pkd": predicted,
            "residual": predicted - true,
            "affinity_bin": bin_names(true),
            "relation": table.relation[test],
        }
    )
    if members.shape[1] > 1:
        frame = frame.with_columns(pl.Series("predicted_sd", members.std(axis=1, ddof=1)))
    with writing(run.test_predictions) as handle:
        frame.write_csv(handle)


def _pictures(
    plan: Plan,
    history: Mapping[str, Sequence[float]],
    best_epoch: int,
    true: NDArray[np.float64],
    predicted: NDArray[np.float64],
    censored: NDArray[np.bool_],
) -> dict[str, bytes]:
    """Return caption → PNG, in the order of the run folder's three files."""
    marked = censored if censored.any() else None
    return {
        "Loss and learning rate by epoch": plots.png(plots.training_curves(history, best_epoch, title=plan.name)),
        "Predicted and measured pKd on the test rows": plots.png(
            plots.predictions_vs_targets(true, predicted, title=plan.name, censored=marked)
        ),
        "Errors on the test rows": plots.png(
            plots.residuals_analysis(true, predicted, title=plan.name, censored=marked)
        ),
    }


def _steps(metrics: Mapping[str, Any], run: RunFolder, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the next steps as commands that repeat this run's own recipe, changes and data."""
    recipe, unsplit = (
        " ".join([f"--recipe {shlex.quote(record['recipe'])}", *(f"--set {shlex.quote(o)}" for o in overrides)])
        for overrides in (record["overrides"], [o for o in record["overrides"] if not o.startswith("split.")])
    )
    data = " ".join(shlex.quote(path) for path in record["data"])
    folder, predictions = shlex.quote(str(run.path)), shlex.quote(str(run.test_predictions))
    return next_steps(metrics["criteria"]["grade"], folder, data, recipe, unsplit, predictions)


def _facts(
    plan: Plan, metrics: Mapping[str, Any], record: Mapping[str, Any], network: Network
) -> list[tuple[str, str]]:
    train, validation, test = (metrics[part]["n"] for part in ("train", "validation", "test"))
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in record["dropped"].items() if count)
    test_figures = metrics["test"]
    n_folds, promise = getattr(plan.split, "n_folds", 0), PROMISES[plan.kinds["split"]]
    fold = f" (fold {plan.split.fold} of 0 to {n_folds - 1})" if n_folds else ""
    facts = [
        ("Data", f"{', '.join(record['data'])} (SHA-256 {str(record['data_sha256'])[:12]}…)"),
        ("Rows", f"{record['n_read']:,} read{f'; dropped: {dropped}' if dropped else ''}"),
        (
            "Split",
            f"{plan.kinds['split']}: {train:,} training, {validation:,} validation, {test:,} test{fold}; {promise}",
        ),
        ("Network", network.describe()),
        (
            "Training",
            f"{metrics['epochs']} epochs, {metrics['seconds']:,.0f} s; best on validation: {metrics['best_epoch']}",
        ),
        (
            "Predictions",
            f"{test_figures['distinct_predictions']:,} distinct (to 0.001), SD {test_figures['prediction_sd']:.3f}; "
            f"labels' SD {test_figures['label_sd']:.3f}",
        ),
        ("Device", str(record["device"])),
        ("Versions", ", ".join(f"{name} {version}" for name, version in record["versions"].items())),
        ("Random seeds", f"training {record['seed']}, split {getattr(plan.split, 'seed', 'none')}"),
    ]
    if "member_sd" in test_figures:
        facts.insert(6, ("Ensemble", f"mean SD over members {test_figures['member_sd']:.3f} pKd"))
    if "sigma" in metrics:
        origin = "learned, as of the best epoch" if metrics["sigma"]["learned"] else "given"
        facts.insert(5, ("Noise of the labels", f"{np.mean(metrics['sigma']['best_epoch']):.3f} pKd, {origin}"))
    return facts
