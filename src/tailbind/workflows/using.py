"""`tailbind predict` and `tailbind evaluate`: a finished run on other tables."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import RunError, TableError
from tailbind.evaluation.criteria import MEASURED_ROWS, grade, metric_label, of_rows
from tailbind.evaluation.domains import DOMAINS, EDGE, INSIDE, OUTSIDE
from tailbind.evaluation.metrics import OVERALL, figure
from tailbind.predictor import Predictor, load
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
from tailbind.table.writing import writing_frames
from tailbind.workflows.calibrating import score_intervals
from tailbind.workflows.plan import resolve
from tailbind.workflows.progress import default_console, working
from tailbind.workflows.scoring import errors_by_domain, judged_rows, score

SEEN = " The run was trained on rows of this very table: these figures say nothing about new ones."
FORMATS = (".csv", ".parquet")
LEVELS = (0.5, 0.99)


@dataclass(frozen=True)
class Predicted:
    """What was written: how many rows, and how many of them without a prediction."""

    n_rows: int
    n_empty: int


def predict(
    run: str | Path,
    data: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    level: float | None = None,
    device: str = "auto",
    notify: Callable[[str], None] = lambda _: None,
) -> pl.DataFrame:
    """Predict every row of a table, with or without labels.

    The table is read and predicted a stretch of rows at a time; only the predictions are held in memory. Where not
    even they fit, `write_predictions` holds none.

    Parameters
    ----------
    run : run folder, or a `.pth` file of one
    data : table or tables with the model's feature columns, or with the sequences they are computed from
    out : CSV or Parquet file to write; none unless given
    level : share of measured values that intervals are to hold, 0.5 to 0.99; the recipe's unless given
    device : auto, cpu or cuda
    notify : told what reading did, a sentence at a time

    Returns
    -------
    DataFrame
        `row_id, predicted_pkd, predicted_kd_nm, affinity_bin` (and `predicted_sd` for ensembles), a row per
        row of the table in its order; empty for rows without features. From sequences also `unseen`: what of
        the row training never saw, in words. Where the run has intervals, `pkd_low, pkd_high, p_below_5,
        p_above_9, p_above_11`.

    Raises
    ------
    RunError
        When a level is asked for of a run without intervals.
    """
    frames: list[pl.DataFrame] = []
    _predict(run, data, out, level, device, notify, frames.append)
    return pl.concat(frames)


def write_predictions(
    run: str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    level: float | None = None,
    device: str = "auto",
    notify: Callable[[str], None] = lambda _: None,
) -> Predicted:
    """Write what `predict` returns to a CSV or Parquet file, whole or not at all, however long the table is."""
    counted: list[Predicted] = []
    _predict(
        run,
        data,
        out,
        level,
        device,
        notify,
        lambda frame: counted.append(Predicted(len(frame), frame["predicted_pkd"].null_count())),
    )
    return Predicted(sum(part.n_rows for part in counted), sum(part.n_empty for part in counted))


def _predict(
    run: str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path | None,
    level: float | None,
    device: str,
    notify: Callable[[str], None],
    take: Callable[[pl.DataFrame], None],
) -> None:
    """Predict a table, a stretch of rows at a time, into a file where one is given; `take` is given each of them."""
    target = None if out is None else Path(out)
    if target is not None:
        _check_target(target)
    predictor = load(run, device)
    _tell_if_unfinished(run, notify)
    if level is not None:
        _check_level(run, predictor, level)
    tables = predictor.stretches(data)
    n_unseen, first = 0, None
    domains = dict.fromkeys(DOMAINS, 0)
    with (
        nullcontext(lambda _: None) if target is None else writing_frames(target) as write,
        working(default_console(stderr=True), "Predicting", notify),
        computing_on(device),
    ):
        for table in tables:
            frame = predictor.predict(table, level)
            if "unseen" in frame.columns:
                unseen = frame.filter(pl.col("unseen").is_not_null())
                first = first or (unseen.row(0, named=True) if len(unseen) else None)
                n_unseen += len(unseen)
            if "domain" in frame.columns:
                for word in DOMAINS:
                    domains[word] += int((frame["domain"] == word).sum())
            write(frame)
            take(frame)
    for line in tables.report.lines():
        notify(line)
    if first is not None:
        _tell_unseen(
            n_unseen, tables.report.n_read, first["unseen"], first["row_id"], notify, " See the column unseen."
        )
    if predictor.domain is not None:
        _tell_domains(domains, notify)


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
    _tell_if_unfinished(run, notify)
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
            _tell_unseen(n_unseen, len(table), str(features.unseen[rows[0]]), row_id, notify)
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
    domain = None if near is None else near["domain"].to_numpy().astype(str)
    result["calibration"] = (
        None
        if sure is None
        else {**predictor.calibrated, "level": sure.level, **score_intervals(sure, table, rows, domain)}
    )
    if predictor.domain is not None and near is not None:
        result["domain"] = errors_by_domain(predictor.domain, table, rows, predicted[known], near["domain"], judged)
    if folder is not None:
        _write_evaluation(folder, result, table.take(known), predicted[known], near)
    return result


def _write_evaluation(
    folder: Path,
    result: dict[str, Any],
    table: AffinityTable,
    predicted: NDArray[np.float64],
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


def _tell_unseen(
    n_unseen: int, n_rows: int, example: str, row_id: str, notify: Callable[[str], None], more: str = ""
) -> None:
    """Warn of rows with something that training never saw.

    Parameters
    ----------
    n_unseen, n_rows : how many there are, of how many
    example, row_id : what it is in the first of them, and which that is
    more : what to say after it
    """
    notify(
        f"Warning: {n_unseen:,} of {n_rows:,} rows have something that training never saw, such as "
        f"{example} (row_id {row_id}); trust their predictions less.{more}"
    )


def _tell_domains(counts: Mapping[str, int], notify: Callable[[str], None]) -> None:
    """Tell in a line how many predictions are about what the model knows."""
    text = f"Domain: {counts[INSIDE]:,} rows are inside what training knew"
    if counts[EDGE] or counts[OUTSIDE]:
        more = f"{counts[EDGE]:,} at its edge, {counts[OUTSIDE]:,} outside; trust these less. See the column domain."
        notify(f"{text}, {more}")
    elif counts[INSIDE]:
        notify(f"{text}, none at its edge or outside.")


def _tell_if_unfinished(run: str | Path, notify: Callable[[str], None]) -> None:
    if Path(run).is_dir() and not open_run(run).is_done:
        notify(f"Warning: {run} is unfinished; its best model so far is used. Go on with tailbind train --resume.")


def _trained_on(run: Path, data: str | Path | Sequence[str | Path]) -> bool:
    """Return whether a run folder's model was trained on exactly these files."""
    if not run.is_dir():
        return False
    files = [Path(path) for path in ([data] if isinstance(data, str | Path) else data)]
    folder = open_run(run)
    if not folder.environment.exists():
        return False
    return bool(folder.read_json(folder.environment).get("data_sha256") == file_hash(files))


def _check_level(run: str | Path, predictor: Predictor, level: float) -> None:
    if predictor.intervals is None:
        raise RunError(f"--level needs a run with intervals; {run} has none. Train with --set calibration.rows=own.")
    if not LEVELS[0] <= level <= LEVELS[1]:
        raise RunError(f"--level must be from {LEVELS[0]} to {LEVELS[1]}; got {level:g}.")


def _check_target(target: Path) -> None:
    if target.suffix not in FORMATS:
        raise RunError(f"--out must end in {' or '.join(FORMATS)}; got {target}.")
    if target.exists():
        raise RunError(f"--out {target} must be a new file; there is one. Choose another name or remove it.")
    if not target.parent.is_dir():
        raise RunError(f"--out {target} must be in an existing folder; there is no {target.parent}. Make it first.")
