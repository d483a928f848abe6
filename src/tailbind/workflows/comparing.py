"""`tailbind compare`: finished runs side by side on the same test rows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import RunError
from tailbind.evaluation.comparison import (
    COMPARED,
    Comparison,
    Difference,
    compare_predictions,
    differing_rows,
)
from tailbind.evaluation.criteria import MEASURED_ROWS
from tailbind.reporting.comparison_plot import comparison_chart
from tailbind.reporting.comparison_tables import comparison_table, numbers_table
from tailbind.reporting.drawing import png
from tailbind.reporting.report import Report
from tailbind.reporting.tables import Table
from tailbind.run_folder import open_finished_run
from tailbind.runtime import cannot_write, check_empty, write_text, writing
from tailbind.table.schema import ABOVE, BELOW, MEASURED
from tailbind.workflows.dividing import read_families


def compare(runs: Sequence[str | Path], *, out: str | Path | None = None) -> Comparison:
    """Compare runs on their common test rows; the first is what the others are held against.

    Parameters
    ----------
    runs : two or more finished run folders with the same test rows
    out : folder for `comparison.html`, `.csv`, `.png`, `.md` and `.tex`; none unless given

    Raises
    ------
    RunError
        When a folder is no finished run, or the test rows or their labels differ, naming some of them.

    Notes
    -----
    A row is marked < or > where any run's table marks it: marks that only one table has hold for the others too.
    """
    folder = None if out is None else Path(out)
    if folder is not None:
        check_empty(folder)
    if len(runs) < 2:
        raise RunError(f"A comparison needs at least two runs; got {len(runs)}.")
    frames = {name: _predictions(run) for name, run in zip(_names(runs), runs, strict=True)}
    first = next(iter(frames.values()))
    _check_same_rows(frames)
    clusters, why = _families(runs[0], first["row_id"])
    comparison = compare_predictions(
        first["true_pkd"].to_numpy(),
        {name: frame["predicted_pkd"].to_numpy() for name, frame in frames.items()},
        clusters=clusters,
        why=why,
        relation=_relation(frames),
    )
    if 0 < comparison.n_marked < comparison.n and any(_is_judged_by_measured(run) for run in runs):
        comparison = replace(comparison, rows=MEASURED_ROWS)
    if folder is not None:
        _write(comparison, folder)
    return comparison


def _names(runs: Sequence[str | Path]) -> list[str]:
    """Return a name for each run: its recipe's where these differ, else its folder's, else its path."""
    folders = [open_finished_run(run) for run in runs]
    for names in ([f.name for f in folders], [f.path.name for f in folders], [str(f.path) for f in folders]):
        if len(set(names)) == len(names):
            return names
    raise RunError("A comparison needs different runs; one was given twice.")


def _predictions(run: str | Path) -> pl.DataFrame:
    folder = open_finished_run(run)
    try:
        frame = pl.read_csv(folder.test_predictions, schema_overrides={"row_id": pl.String})
        columns: list[str | pl.Expr] = ["row_id", pl.col("true_pkd", "predicted_pkd").cast(pl.Float64)]
        if "relation" in frame.columns:  # runs of earlier versions have none
            relation = frame["relation"].fill_null("").cast(pl.Enum((MEASURED, BELOW, ABOVE))).cast(pl.String)
            return frame.select(*columns, relation).sort("row_id")
        return frame.select(columns).sort("row_id")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{folder.test_predictions} must be whole; it is missing or damaged. Train again.") from error


def _families(run: str | Path, row_ids: pl.Series) -> tuple[NDArray[np.intp] | None, str]:
    """Return the families of the test rows as a run knew them, or None and why it knew none."""
    folder = open_finished_run(run)
    families = read_families(folder, row_ids)
    if families is not None or not folder.environment.exists():
        return families, f"{folder.path.name} does not say"
    return None, str(folder.read_json(folder.environment).get("families_unknown", f"{folder.path.name} does not say"))


def _is_judged_by_measured(run: str | Path) -> bool:
    """Return whether a run's own grade goes by its measured test rows."""
    folder = open_finished_run(run)
    return bool(folder.read_json(folder.metrics)["criteria"].get("rows") == MEASURED_ROWS)  # earlier runs say nothing


def _check_same_rows(frames: dict[str, pl.DataFrame]) -> None:
    differing = differing_rows([frame["row_id"].to_numpy().astype(np.str_) for frame in frames.values()])
    if len(differing):
        examples = ", ".join(differing[:5])
        sizes = ", ".join(f"{name} {len(frame):,}" for name, frame in frames.items())
        raise RunError(
            f"Runs must have the same test rows to be compared; {len(differing):,} row ids are not in all of them, "
            f"such as {examples} (test rows: {sizes}). Train them on the same table with the same split."
        )
    (name, first), *others = frames.items()
    for other, frame in others:
        unequal = first["row_id"].filter((first["true_pkd"] - frame["true_pkd"]).abs() > 1e-9)
        if len(unequal):
            raise RunError(
                f"Runs must have the same labels on their test rows; {name} and {other} differ in {len(unequal):,}, "
                f"such as row_id {', '.join(unequal[:5])}. Train them on the same table."
            )


def _relation(frames: dict[str, pl.DataFrame]) -> NDArray[np.str_] | None:
    """Return the relation of every test row, marked where any run's table marks it; None where no run knows."""
    known = {name: frame["relation"] for name, frame in frames.items() if "relation" in frame.columns}
    if not known:
        return None
    (first, relation), *others = known.items()
    for name, other in others:
        opposed = (relation != MEASURED) & (other != MEASURED) & (relation != other)
        if opposed.any():
            ids = frames[first]["row_id"].filter(opposed)
            raise RunError(
                f"Runs must have the same labels on their test rows; {len(ids):,} are marked < in one and > in {name} "
                f"or the other way round, such as row_id {', '.join(ids[:5])}. Train them on the same table."
            )
        relation = pl.select(pl.when(relation == MEASURED).then(other).otherwise(relation)).to_series()
    return relation.to_numpy().astype(np.str_)


def _write(comparison: Comparison, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    table = comparison_table(comparison)
    picture = png(comparison_chart(comparison))
    with writing(folder / "comparison.png") as handle:
        handle.write(picture)
    with writing(folder / "comparison.csv") as handle:
        pl.DataFrame(numbers_table(comparison), infer_schema_length=None).write_csv(handle)
    write_text(folder / "comparison.md", table.markdown())
    write_text(folder / "comparison.tex", table.latex())
    page = Report(
        title=table.title,
        subtitle=f"{len(comparison.names)} runs on the same {comparison.n:,} test rows",
        headline=headline(comparison),
        tables=_pairwise(comparison),
        pictures={f"RMSE by affinity bin{_of_measured(comparison)}, with 95 % intervals": picture},
    )
    write_text(folder / "comparison.html", page.html())


def _of_measured(comparison: Comparison) -> str:
    return ", of measured rows" if comparison.rows == MEASURED_ROWS else ""


def _pairwise(comparison: Comparison) -> list[Table]:
    """Return one table for each run beside the first: a page is too narrow for all in one."""
    first, *others = comparison.names
    return [
        replace(
            comparison_table(
                replace(
                    comparison,
                    names=(first, name),
                    differences=(comparison.differences[0], comparison.differences[position]),
                )
            ),
            title="Metric by metric" if len(others) == 1 else f"{first} and {name}",
        )
        for position, name in enumerate(others, 1)
    ]


def headline(comparison: Comparison) -> str:
    """Return in words which run is clearly better in what, and in what clearly worse.

    Where rows are marked, the metrics that leave them out or take them as bounds come first, then those as stated.
    """
    sentences = []
    for name, of_run in zip(comparison.names[1:], comparison.differences[1:], strict=True):
        as_stated = _tally([entry for entry in of_run if entry.metric in COMPARED])
        if not comparison.n_marked:
            better, worse, judged = as_stated
            sentences.append(
                f"{name} is clearly better than {comparison.names[0]} in {better} and clearly worse in {worse} of the "
                f"{judged} metrics with an interval."
            )
            continue
        better, worse, judged = _tally([entry for entry in of_run if entry.metric not in COMPARED])
        sentences.append(
            f"{name} is clearly better than {comparison.names[0]} in {better} and clearly worse in {worse} of the "
            f"{judged} metrics with an interval that leave marked rows out or take them as bounds. As stated, with "
            f"{comparison.n_marked:,} of {comparison.n:,} rows marked < or > but counted as measured: better in "
            f"{as_stated[0]}, worse in {as_stated[1]} of {as_stated[2]}."
        )
    return " ".join(sentences)


def _tally(entries: Sequence[Difference]) -> tuple[int, int, int]:
    """Return how many metrics are clearly better, how many clearly worse, and how many have an interval."""
    clear = [entry for entry in entries if entry.clear]
    better = sum(bool(entry.better) for entry in clear)
    return better, len(clear) - better, sum(entry.clear is not None for entry in entries)
