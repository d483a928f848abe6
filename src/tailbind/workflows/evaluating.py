"""The end of a training: figures, pictures, texts and the page of a run folder."""

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console

from tailbind.errors import RecipeError
from tailbind.evaluation.calibration import Applied
from tailbind.evaluation.criteria import MEASURED_ROWS, grade, next_steps
from tailbind.evaluation.diagnosis import Likelihood, diagnose
from tailbind.evaluation.metrics import evaluate
from tailbind.features.domain import Domain
from tailbind.models.baselines import Ridge
from tailbind.models.contract import Predictive
from tailbind.predictor import interval_frame
from tailbind.recipes import load_recipe
from tailbind.reporting import plots
from tailbind.reporting.drawing import png
from tailbind.reporting.interval_plot import intervals_and_probabilities
from tailbind.reporting.report import run_report
from tailbind.run_folder import RunFolder
from tailbind.runtime import write_json, write_text, writing
from tailbind.scale import bin_names
from tailbind.table.features import Features
from tailbind.table.schema import MEASURED, AffinityTable
from tailbind.table.splitting import PROMISES, TEST, TRAIN, VALIDATION
from tailbind.workflows.blending import HeldOut
from tailbind.workflows.calibrating import Calibrated, score_intervals
from tailbind.workflows.dividing import read_families
from tailbind.workflows.plan import AS_MEASURED, Plan, resolve
from tailbind.workflows.scoring import (
    baselines,
    describe_labels,
    describe_training,
    errors_by_domain,
    judged_rows,
    score,
)

Rows = Mapping[str, NDArray[np.intp]]


@dataclass(frozen=True)
class Fitted:
    """A model and how it came about.

    Attributes
    ----------
    model : fitted; of a network, the best epoch on validation
    seconds : that training took
    history : the columns of `history.csv`; of a model without epochs there are none, nor any of the following
    best_epoch, batch_size, parameters : of a network; the parameters of all its members, and of all parts of a blend
    sigma : noise of the labels, where the loss has one
    parts : of a blend, what is to be told of each part, by name: the kind of its model, and why it was left out, or
        its share, training rows and seconds and, of a network, its own epochs and the above
    validation : the validation rows as predicted by what has not learned from them, where the model itself may have
    held_out : rows as predicted by what has not learned from them, where a blend makes such predictions
    """

    model: Predictive
    seconds: float
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    best_epoch: int = 0
    batch_size: int = 0
    parameters: int = 0
    sigma: Mapping[str, Any] | None = None
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    validation: HeldOut | None = None
    held_out: HeldOut | None = None

    def predict_validation(self, X: Features, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return (n_validation,) pKd of the validation rows, by what has not learned from them."""
        return self.model.predict(X, rows) if self.validation is None else self.validation.predicted

    @property
    def epochs(self) -> int:
        """How many there were."""
        return len(self.history.get("epoch", ()))

    def record(self) -> dict[str, Any]:
        """Return what `metrics.json` says of the training."""
        seconds: dict[str, Any] = {"epochs": self.epochs, "seconds": self.seconds}
        if not self.epochs:
            return {**seconds, "parts": dict(self.parts)} if self.parts else seconds
        if self.parts:  # the best epoch and the batch size are each part's own
            return {"parameters": self.parameters, **seconds, "parts": dict(self.parts)}
        of_network = {"parameters": self.parameters, "best_epoch": self.best_epoch, "batch_size": self.batch_size}
        return {**of_network, **seconds}

    def networks(self) -> list[tuple[str, int, int]]:
        """Return of each network of a blend its name, and its last and its best epoch in the history."""
        of_epochs = {name: part for name, part in self.parts.items() if "best_epoch" in part}
        ends = itertools.accumulate(part["epochs"] for part in of_epochs.values())
        return [(name, end, part["best_epoch"]) for (name, part), end in zip(of_epochs.items(), ends, strict=True)]


def write_results(
    plan: Plan,
    run: RunFolder,
    table: AffinityTable,
    features: Features,
    rows: Rows,
    fitted: Fitted,
    *,
    leakage: Mapping[str, Any],
    domain: Domain,
    audit: Mapping[str, Any] | None,
    record: Mapping[str, Any],
    calibrated: Calibrated | None,
    console: Console,
) -> dict[str, Any]:
    """Evaluate the best model on the test rows, once, and write everything a run folder ends with."""
    predicted, sd = fitted.model.predict_with_sd(features, rows[TEST])
    sure = None if calibrated is None else calibrated.apply(features, rows[TEST], predicted, sd)
    families = read_families(run, table.frame["row_id"].gather(rows[TEST].tolist()))
    test = score(
        table.pkd[rows[TEST]],
        predicted,
        table.relation[rows[TEST]],
        clusters=families,
        why=str(record.get("families_unknown", "")),
        marked=plan.marked_labels,
    )
    judged = judged_rows(test, plan.marked_labels)
    near = domain.judge(table, features, predicted, rows[TEST])
    if sd is not None:
        test["member_sd"] = float(sd.mean())
    with console.status("Fitting the predictors beside it …"):
        ridge = Ridge.chosen(features, table.pkd, rows[TRAIN], rows[VALIDATION])
    metrics: dict[str, Any] = {
        "recipe": plan.name,
        **fitted.record(),
        "train": describe_training(table.pkd[rows[TRAIN]]),
        "validation": evaluate(table.pkd[rows[VALIDATION]], fitted.predict_validation(features, rows[VALIDATION])),
        "test": test,
        "baselines": baselines(table, features, rows, ridge),
        "leakage": leakage,
        "domain": errors_by_domain(domain, table, rows[TEST], predicted, near["domain"], judged),
        "audit": audit,
        "labels": describe_labels(table, rows[TRAIN], plan.marked_labels),
        "criteria": grade(test, judged),
        "diagnosis": _diagnosis(plan, table, features, rows, fitted, ridge, str(record["device"])),
        **({} if fitted.sigma is None else {"sigma": fitted.sigma}),
        "calibration": None
        if calibrated is None or sure is None
        else {
            **calibrated.described(),
            **score_intervals(sure, table, rows[TEST], near),
        },
    }
    write_json(run.metrics, metrics)
    _write_predictions(run, table, rows[TEST], predicted, sd, sure, near)
    pictures = _pictures(plan, fitted, table, rows[TEST], predicted, judged, metrics["calibration"])
    _write_report(plan, run, fitted, metrics, record, pictures, console)
    return metrics


def _diagnosis(
    plan: Plan, table: AffinityTable, features: Features, rows: Rows, fitted: Fitted, ridge: Ridge, device: str
) -> list[dict[str, Any]]:
    """Return what is wrong with a training, as `metrics.json` has it."""
    judged = _judged_rows(plan, table, rows)
    predicted = fitted.predict_validation(features, rows[VALIDATION])[np.isin(rows[VALIDATION], judged)]
    pkd, sigma = table.pkd, fitted.sigma
    findings = diagnose(
        {} if fitted.parts else fitted.history,  # the curves of a part are not the blend's
        evaluate(pkd[judged], predicted),
        float(evaluate(pkd[judged], ridge.predict(features, judged))["rmse"]),
        device=device,
        settings=_settings(plan, fitted),
        likelihood=None if sigma is None else _likelihood(plan, table, rows, sigma),
    )
    return [vars(finding) for finding in findings]


def _write_report(
    plan: Plan,
    run: RunFolder,
    fitted: Fitted,
    metrics: Mapping[str, Any],
    record: Mapping[str, Any],
    pictures: Mapping[str, bytes],
    console: Console,
) -> None:
    """Write pictures, text and page, and print what matters most of them."""
    curves = [run.training_curves] if fitted.epochs else []
    sure = [run.intervals] if metrics["calibration"] else []
    files = (*curves, run.predictions_vs_targets, run.residuals_analysis, *sure)
    for file, picture in zip(files, pictures.values(), strict=True):
        with writing(file) as handle:
            handle.write(picture)
    report = run_report(
        metrics,
        title=f"tailbind · {plan.name}",
        subtitle=plan.description,
        pictures=pictures,
        steps=_steps(metrics, run, record),
        facts=_facts(plan, metrics, record, fitted),
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


def _settings(plan: Plan, fitted: Fitted) -> dict[str, Any]:
    """Return the recipe as advice may change it: of a blend, without the parts that were left out."""
    document = plan.document()
    if fitted.parts:
        document["parts"] = {name: document["parts"][name] for name in fitted.parts if "share" in fitted.parts[name]}
    return document


def _judged_rows(plan: Plan, table: AffinityTable, rows: Rows) -> NDArray[np.intp]:
    """Return the validation rows to diagnose by: only those measured, where marked ones are not taken as measured."""
    validation = rows[VALIDATION]
    measured = validation[table.relation[validation] == MEASURED]
    return measured if plan.marked_labels != AS_MEASURED and len(measured) > 1 else validation


def _likelihood(plan: Plan, table: AffinityTable, rows: Rows, sigma: Mapping[str, Any]) -> Likelihood:
    """Return how the losses of a run with a noise are to be read: by a given noise, or by a learned one."""
    if sigma["learned"]:
        return Likelihood()
    counted = plan.loss.of_rows(table.pkd, rows[TRAIN]) * (table.relation == MEASURED)
    shares = float(counted[rows[TRAIN]].mean()), float(counted[rows[VALIDATION]].mean())
    return Likelihood(float(sigma["best_epoch"][0]), shares)


def _write_predictions(
    run: RunFolder,
    table: AffinityTable,
    test: NDArray[np.intp],
    predicted: NDArray[np.float64],
    sd: NDArray[np.float64] | None,
    sure: Applied | None,
    near: pl.DataFrame,
) -> None:
    true = table.pkd[test]
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
    if sd is not None:
        frame = frame.with_columns(pl.Series("predicted_sd", sd))
    if sure is not None:
        frame = frame.with_columns(interval_frame(sure))
    frame = frame.hstack(near)
    with writing(run.test_predictions) as handle:
        frame.write_csv(handle)


def _pictures(
    plan: Plan,
    fitted: Fitted,
    table: AffinityTable,
    test: NDArray[np.intp],
    predicted: NDArray[np.float64],
    judged: str,
    calibration: Mapping[str, Any] | None,
) -> dict[str, bytes]:
    """Return caption → PNG, in the order of the run folder's files; no curves without epochs, nor what there is not."""
    true, censored = table.pkd[test], table.relation[test] != MEASURED
    marked = censored if censored.any() else None
    alone = judged == MEASURED_ROWS  # the distance to a bound is then no error
    shown = ~censored if alone else np.ones(len(true), bool)
    curves = {}
    if fitted.epochs:
        figure = plots.training_curves(fitted.history, fitted.best_epoch, plan.name, fitted.networks())
        whose = f" of {', then '.join(name for name, _, _ in fitted.networks())}" if fitted.parts else ""
        curves[f"Loss and learning rate by epoch{whose}"] = png(figure)
    sure = {}
    if calibration is not None:
        sure["Intervals and tail probabilities on the test rows"] = png(
            intervals_and_probabilities(calibration, title=plan.name)
        )
    return {
        **curves,
        "Predicted and measured pKd on the test rows": png(
            plots.predictions_vs_targets(true, predicted, title=plan.name, censored=marked)
        ),
        f"Errors on the {'measured ' if alone else ''}test rows": png(
            plots.residuals_analysis(true[shown], predicted[shown], title=plan.name, censored=None if alone else marked)
        ),
        **sure,
    }


def _steps(metrics: Mapping[str, Any], run: RunFolder, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the next steps as commands that repeat this run's own recipe, changes and data."""
    recipe, unsplit = (
        " ".join([f"--recipe {shlex.quote(record['recipe'])}", *(f"--set {shlex.quote(o)}" for o in overrides)])
        for overrides in (record["overrides"], [o for o in record["overrides"] if not o.startswith("split.")])
    )
    data = " ".join(shlex.quote(path) for path in record["data"])
    folder, predictions = shlex.quote(str(run.path)), shlex.quote(str(run.test_predictions))
    name, rows = metrics["criteria"]["grade"], metrics["criteria"]["rows"]
    steps = next_steps(name, folder, data, recipe, unsplit, predictions, rows)
    return [(what, command) for what, command in steps if _is_possible(command, record["recipe"])]


def _is_possible(command: str, recipe: str) -> bool:
    """Return whether a command's changes are options of the recipe: trees have no hidden layers to widen."""
    changes = [after for word, after in itertools.pairwise(shlex.split(command)) if word == "--set"]
    try:
        resolve(load_recipe(recipe, changes))
    except RecipeError:
        return False
    return True


def _facts(plan: Plan, metrics: Mapping[str, Any], record: Mapping[str, Any], fitted: Fitted) -> list[tuple[str, str]]:
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
        ("Network" if fitted.epochs and not fitted.parts else "Model", fitted.model.describe()),
        ("Training", _training(fitted)),
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
        who = ("Spread", "parts and their members") if fitted.parts else ("Ensemble", "members")
        facts.insert(6, (who[0], f"mean SD over {who[1]} {test_figures['member_sd']:.3f} pKd"))
    if "sigma" in metrics:
        origin = "learned, as of the best epoch" if metrics["sigma"]["learned"] else "given"
        facts.insert(5, ("Noise of the labels", f"{np.mean(metrics['sigma']['best_epoch']):.3f} pKd, {origin}"))
    return facts


def _training(fitted: Fitted) -> str:
    """Return how long training took, and which epochs were best."""
    if not fitted.epochs:
        return f"{fitted.seconds:,.1f} s, without epochs"
    if not fitted.parts:
        return f"{fitted.epochs} epochs, {fitted.seconds:,.0f} s; best on validation: {fitted.best_epoch}"
    best = ", ".join(f"{epoch} ({name})" for name, _, epoch in fitted.networks())
    return f"{fitted.epochs} epochs of networks; {fitted.seconds:,.0f} s in all; best on validation: {best}"
