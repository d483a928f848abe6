"""The table of a finished run, found again: the very rows that it was trained on, and in which part each was."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from tailbind.errors import FeatureError, RunError, TableError
from tailbind.features.pipeline import column_prefix, reads_sequences_alone
from tailbind.predictor import Predictor
from tailbind.run_folder import RunFolder
from tailbind.runtime import file_hash
from tailbind.table.schema import AffinityTable


def check_sequences(run: RunFolder, predictor: Predictor) -> None:
    """Refuse a model that does not compute all its features from sequences: it cannot be asked about changed ones."""
    blocks = predictor.features.blocks
    if reads_sequences_alone(blocks):
        return
    prefix = column_prefix(blocks)
    found = "reads no sequences" if prefix is None else f"reads the table's own columns {prefix}*, which no mutant has"
    raise FeatureError(
        f"{run.path} must compute its features from sequences to be probed; it {found}. Train a recipe that does, such "
        "as --recipe v3 or v2-sequence."
    )


def own_table(
    run: RunFolder, predictor: Predictor, data: str | Path | Sequence[str | Path] | None, *, cache: bool = True
) -> AffinityTable:
    """Return the table that a run was trained on, from where it was then or from where `data` says it is now.

    Raises
    ------
    RunError
        When it is not there, or is another.
    """
    record = run.read_json(run.environment)
    recorded = [Path(path) for path in record["data"]]
    files = recorded if data is None else [Path(path) for path in ([data] if isinstance(data, str | Path) else data)]
    missing = [path for path in files if not path.is_file()]
    if missing and data is None:
        raise RunError(
            f"The table that {run.path} was trained on must be at {missing[0]}; there is no such file. Say where it is "
            "now with --data."
        )
    same = not missing and file_hash(files) == record["data_sha256"]
    if not same and data is None:
        raise RunError(
            f"{', '.join(map(str, files))} must be the table that {run.path} was trained on; it has changed since "
            "(SHA-256). Say where that table is with --data."
        )
    table = predictor.read(files, labels=True, cache=cache)
    if not same:
        _check_same_rows(run, table)
    return table


def _check_same_rows(run: RunFolder, table: AffinityTable) -> None:
    """Refuse a table in another file or format that has not the run's test rows with their labels."""
    try:
        stated = pl.read_csv(run.test_predictions, schema_overrides={"row_id": pl.String}).select("row_id", "true_pkd")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunError(
            f"{run.test_predictions} must be readable; it is missing or damaged. Train the run again."
        ) from error
    both = stated.join(table.frame.select("row_id", "pkd"), on="row_id", how="left")
    wrong = both.filter(((pl.col("pkd") - pl.col("true_pkd")).abs() < 1e-4).fill_null(False).not_())
    if len(wrong):
        row_id, was, now = wrong.row(0)
        found = "has none" if now is None else f"has pKd {now:g}"
        raise TableError(
            f"--data must be the table that {run.path} was trained on: row_id {row_id} had pKd {was:g} there; "
            f"{', '.join(table.report.files)} {found}. Name that table."
        )


def parts_of(run: RunFolder, table: AffinityTable) -> pl.DataFrame:
    """Return the part and the family of every row of the table, null where the run did not have it."""
    try:
        split = pl.read_parquet(run.split, columns=["row_id", "part", "family"])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{run.split} must be readable; it is missing or damaged. Train the run again.") from error
    return table.frame.select("row_id").join(split, on="row_id", how="left", maintain_order="left")
