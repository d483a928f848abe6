"""`tailbind evaluate`: a trained run held against another measured table."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import TableError
from tailbind.evaluation.calibration import Applied
from tailbind.evaluation.criteria import MEASURED_ROWS, grade, metric_label, of_rows
from tailbind.evaluation.metrics import OVERALL, figure
from tailbind.predictor import interval_frame, load
from tailbind.recipes import stated_recipe
from tailbind.reporting import plots
from tailbind.reporting.domain_table import domain_table
from tailbind.reporting.drawing import png
from tailbind.reporting.intervals import interval_tables
from tailbind.reporting.report import Report, rows_judged
from tailbind.reporting.tables import (
    AS_STATED,
    Table,
    binders_table,
    censored_table,
    criteria_table,
    drawn,
    interval_text,
    number,
)
from tailbind.run_folder import open_run
from tailbind.runtime import check_empty, computing_on, file_hash, write_json, write_text, writing
from tailbind.scale import BIN_NAMES, bin_label, bin_names
from tailbind.table.grouping import find_families
from tailbind.table.schema import MEASURED, AffinityTable
from tailbind.workflows.calibrating import score_intervals
from tailbind.workflows.plan import resolve
from tailbind.workflows.predicting import tell_if_unfinished, tell_unseen
from tailbind.workflows.progress import default_console, working
from tailbind.workflows.scoring import errors_by_domain, judged_rows, score

SEEN = " The run was trained on rows of this very table: these figures say nothing about new ones."


def evaluate(
    run: str | Path,
    data: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    device: str = "auto",
    cache: bool = True,
    notify: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Hold a trained run against another measured table.

    Parameters
    ----------
    run, data, device, notify : as for `predict`; the table needs labels
    cache : take a long table from the user's cache, as `read_table` does
    out : folder for `metrics.json`, `predictions.csv`, `evaluation.txt`, `report.html`; none unless given

    Returns
    -------
    dict
        `data`, `n_without_features`, `n_unseen` (rows with something training never saw; None where features do
        not look for it), `test` (as in a run's `metrics.json`) and `criteria`; where the run tells what training
        knew, `domain`: errors inside of it, at its edge and outside.
    """
    folder = None if out is None else Path(out)
    if folder is not None:
        check_empty(folder)
    predictor = load(run, device)
    tell_if_unfinished(run, notify)
    table = predictor.read(data, labels=True, cache=cache)
    for line in table.report.lines():
        notify(line)
    with working(default_console(stderr=True), "Predicting", notify), computing_on(device):
        features = predictor.compute_features(table)
        predicted, sd = predictor.predict_pkd(features)
    known = np.isfinite(predicted)
    if not known.any():
        raise TableError(f"{', '.join(table.report.files)} must have rows with features and labels; it has none.")
    n_unseen = None
    if features.unseen is not None:
        rows = np.flatnonzero(known & (features.unseen != ""))
        n_unseen = len(rows)
        if n_unseen:
            row_id = table.frame["row_id"][int(rows[0])]
            tell_unseen(n_unseen, len(table), str(features.unseen[rows[0]]), row_id, notify)
    families = find_families(table.frame)
    clusters = None if families.index is None else families.index[known]
    near, rows = None, np.flatnonzero(known)
    if predictor.domain is not None:
        near = predictor.domain.judge(table, features, predicted[known], rows)
    marked = resolve(stated_recipe(predictor.checkpoint.recipe)).marked_labels
    figures = score(
        table.pkd[known], predicted[known], table.relation[known], clusters=clusters, why=families.why, marked=marked
    )
    result = {
        "run": str(run),
        "data": list(table.report.files),
        "n_without_features": int((~known).sum()),
        "n_unseen": n_unseen,
        "trained_on_this_table": _trained_on(Path(run), data),
        "test": figures,
        "criteria": grade(figures, judged := judged_rows(figures, marked)),
    }
    sure = predictor.applied(features, predicted, sd, rows)
    result["calibration"] = (
        None
        if sure is None
        else {**predictor.calibrated, "level": sure.level, **score_intervals(sure, table, rows, near)}
    )
    if predictor.domain is not None and near is not None:
        result["domain"] = errors_by_domain(predictor.domain, table, rows, predicted[known], near["domain"], judged)
    if folder is not None:
        _write_evaluation(folder, result, table.take(known), predicted[known], sure, near)
    return result


def _write_evaluation(
    folder: Path,
    result: dict[str, Any],
    table: AffinityTable,
    predicted: NDArray[np.float64],
    sure: Applied | None,
    near: pl.DataFrame | None,
) -> None:
    """Write figures, predictions, text and page of the rows that were predicted."""
    folder.mkdir(parents=True, exist_ok=True)
    report = evaluation_report(result)
    true, relation = table.pkd, table.relation
    marked = relation != MEASURED if (relation != MEASURED).any() else None
    alone = result["criteria"]["rows"] == MEASURED_ROWS  # the distance to a bound is then no error
    shown = relation == MEASURED if alone else np.ones(len(true), bool)
    pictures = {
        "Predicted and measured pKd": png(plots.predictions_vs_targets(true, predicted, censored=marked)),
        f"Errors{' on measured rows' if alone else ''}": png(
            plots.residuals_analysis(true[shown], predicted[shown], censored=None if alone else marked)
        ),
    }
    frame = pl.DataFrame(
        {
            "row_id": table.frame["row_id"],
            "true_pkd": true,
            "predicted_pkd": predicted,
            "residual": predicted - true,
            "affinity_bin": bin_names(true),
            "relation": relation,
        }
    )
    if sure is not None:
        frame = frame.with_columns(interval_frame(sure))
    with writing(folder / "predictions.csv") as handle:
        (frame if near is None else frame.hstack(near)).write_csv(handle)
    write_json(folder / "metrics.json", result)
    write_text(folder / "evaluation.txt", report.text())
    write_text(folder / "report.html", Report(**{**vars(report), "pictures": pictures}).html())


def evaluation_report(result: dict[str, Any]) -> Report:
    """Return the report of a run on another table."""
    figures, n_unseen, rows = result["test"], result["n_unseen"], result["criteria"]["rows"]
    judged, measured = figures, ""
    tables, as_stated = _tables(figures, "Overall", "By affinity bin"), []
    if rows == MEASURED_ROWS:
        judged, measured = of_rows(figures, rows), "measured "
        tables = _tables(judged, "Overall, measured rows", "By affinity bin, measured rows")
        as_stated = _tables(figures, *AS_STATED)
    return Report(
        title=f"tailbind · {Path(result['run']).name} on {', '.join(result['data'])}",
        subtitle="A trained run on another measured table",
        headline=f"RMSE {judged['rmse']:.3f} on {judged['n']:,} {measured}rows; grade {result['criteria']['word']}."
        + rows_judged(figures, result["criteria"])
        + (SEEN if result["trained_on_this_table"] else ""),
        tables=[
            *tables,
            *interval_tables(result["calibration"]),
            *domain_table(result.get("domain")),
            *censored_table(figures, rows=rows),
            *as_stated,
            *binders_table(figures),
            criteria_table(result["criteria"]),
        ],
        facts=[
            ("Rows without features", f"{result['n_without_features']:,}"),
            *([("Rows with something training never saw", f"{n_unseen:,}")] if n_unseen is not None else []),
        ],
    )


def _tables(figures: Mapping[str, Any], overall: str, by_bin: str) -> list[Table]:
    """Return figures of some rows, overall and by affinity bin, under the titles given."""
    intervals = figures["intervals"]
    metrics = tuple(
        (metric_label(name), number(figure(figures, name)), interval_text(intervals.get(name))) for name in OVERALL
    )
    bins = tuple(
        (bin_label(name), f"{entry['n']:,}", number(entry["rmse"]), number(entry["mae"]), number(entry["bias"]))
        if (entry := figures["bins"][name])
        else (bin_label(name), "0", "–", "–", "–")
        for name in BIN_NAMES
    )
    return [
        Table(overall, ("Metric", "Value", "95 % interval"), metrics, f"Intervals by bootstrap {drawn(intervals)}."),
        Table(by_bin, ("Bin (pKd)", "n", "RMSE", "MAE", "Bias"), bins),
    ]


def _trained_on(run: Path, data: str | Path | Sequence[str | Path]) -> bool:
    """Return whether a run folder's model was trained on exactly these files."""
    if not run.is_dir():
        return False
    files = [Path(path) for path in ([data] if isinstance(data, str | Path) else data)]
    folder = open_run(run)
    if not folder.environment.exists():
        return False
    return bool(folder.read_json(folder.environment).get("data_sha256") == file_hash(files))
