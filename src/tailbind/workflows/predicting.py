"""`tailbind predict`: a trained run on a table, with or without labels, a stretch of rows at a time."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tailbind.errors import RunError
from tailbind.evaluation.domains import DOMAINS, EDGE, INSIDE, OUTSIDE
from tailbind.predictor import Predictor, load
from tailbind.run_folder import open_run
from tailbind.runtime import computing_on
from tailbind.table.writing import writing_frames
from tailbind.workflows.progress import default_console, working

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
    tell_if_unfinished(run, notify)
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
        tell_unseen(n_unseen, tables.report.n_read, first["unseen"], first["row_id"], notify, " See the column unseen.")
    if predictor.domain is not None:
        _tell_domains(domains, notify)


def tell_unseen(
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


def tell_if_unfinished(run: str | Path, notify: Callable[[str], None]) -> None:
    """Warn of a run folder whose training has not come to its end."""
    if Path(run).is_dir() and not open_run(run).is_done:
        notify(f"Warning: {run} is unfinished; its best model so far is used. Go on with tailbind train --resume.")


def _check_level(run: str | Path, predictor: Predictor, level: float) -> None:
    if predictor.intervals is None:
        alone = Path(run).suffix == ".pth" and not Path(run).is_dir()
        what = "Give the run folder it is of" if alone else "Train with --set calibration.rows=own"
        raise RunError(f"--level needs a run with intervals; {run} has none. {what}.")
    if not LEVELS[0] <= level <= LEVELS[1]:
        raise RunError(f"--level must be from {LEVELS[0]} to {LEVELS[1]}; got {level:g}.")


def _check_target(target: Path) -> None:
    if target.suffix not in FORMATS:
        raise RunError(f"--out must end in {' or '.join(FORMATS)}; got {target}.")
    if target.exists():
        raise RunError(f"--out {target} must be a new file; there is one. Choose another name or remove it.")
    if not target.parent.is_dir():
        raise RunError(f"--out {target} must be in an existing folder; there is no {target.parent}. Make it first.")
