"""What comes before a training: the table read and split, the run folder begun or found to be the same run's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from tailbind.errors import RunError, TableError
from tailbind.features.pipeline import column_prefix, reads_sequences
from tailbind.run_folder import RunFolder, first_difference
from tailbind.runtime import environment_record, file_hash, write_json
from tailbind.table.audit import audit
from tailbind.table.blocks import on_disk
from tailbind.table.grouping import find_families
from tailbind.table.reading import has_sequences, read_table
from tailbind.table.schema import MEASURED, AffinityTable
from tailbind.table.splitting import TRAIN
from tailbind.workflows.checking import headline
from tailbind.workflows.dividing import divide, write_split
from tailbind.workflows.plan import AS_BOUNDS, AS_MEASURED, LEFT_OUT, Plan
from tailbind.workflows.progress import say, warn

FEWEST_ROWS: Final = 20


@dataclass(frozen=True)
class Prepared:
    """All that is known before training begins."""

    plan: Plan
    run: RunFolder
    table: AffinityTable
    rows: dict[str, NDArray[np.intp]]
    record: dict[str, Any]
    device: torch.device
    console: Console


def default_recipe(data: str | Path | Sequence[str | Path]) -> str:
    """Return the recipe that a table is trained by where none is named: v3, of feature columns alone v3-columns."""
    files = [data] if isinstance(data, str | Path) else data
    return "v3" if all(has_sequences(path) for path in files) else "v3-columns"


def prepare(
    data: str | Path | Sequence[str | Path],
    recipe: str | Path,
    changes: Sequence[str],
    plan: Plan,
    run: RunFolder,
    device: torch.device,
    console: Console,
    cache: bool,
) -> Prepared:
    """Read and split; nothing is written yet, so that a bad table leaves nothing behind."""
    files = [Path(path) for path in ([data] if isinstance(data, str | Path) else data)]
    with console.status("Reading the table …"):
        table = read_for(plan, files, cache)
    for line in table.report.lines():
        say(console, line)
    _check_usable(table)
    if (kept := on_disk(table.features)) is not None:
        say(
            console,
            f"The features, {kept.nbytes / 1e9:.2g} GB, are more than half of the memory left: they stay on disk.",
        )
    censored = int((table.relation != MEASURED).sum())
    if censored:
        takes = "'s parts take" if plan.parts else "'s model takes" if plan.is_closed_form else "'s loss takes"
        how = {
            AS_BOUNDS: f"{takes} them as bounds",
            AS_MEASURED: " fits them as if measured",
            LEFT_OUT: " leaves them out of training",
        }
        say(console, f"{censored:,} labels are marked < or >; this recipe{how[plan.marked_labels]}.")
    with console.status("Splitting the table …"):
        rows, remarks = divide(plan, table)
    for line in remarks:
        say(console, line)
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
    return Prepared(plan, run, table, rows, record, device, console)


def read_for(plan: Plan, data: str | Path | Sequence[str | Path], cache: bool) -> AffinityTable:
    """Read a table with what the plan's features are computed from."""
    prefix, sequences = column_prefix(plan.features), reads_sequences(plan.features)
    return read_table(data, feature_prefix=prefix, sequences=sequences, cache=cache)


def _check_usable(table: AffinityTable) -> None:
    name = ", ".join(table.report.files)
    if len(table) < FEWEST_ROWS:
        lost = "; ".join(f"{count:,} dropped: {reason}" for reason, count in table.report.dropped.items() if count)
        raise TableError(
            f"{name} must have at least {FEWEST_ROWS} usable rows to train on; got {len(table)} of "
            f"{table.report.n_read:,}{f' ({lost})' if lost else ''}. "
            f"{'Fill in what is missing, or add measurements.' if lost else 'Add measurements.'}"
        )
    if np.ptp(table.pkd) == 0:
        raise TableError(
            f"{name} must have labels that differ; all {len(table):,} are pKd {table.pkd[0]:g}. Check the label column."
        )


def begin(prepared: Prepared) -> None:
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
        warn(prepared.console, f"Audit of {headline(found)} See {run.audit}, or tailbind check.")
    write_json(run.environment, {**prepared.record, "families_unknown": families.why})


def check_same_recipe(run: RunFolder, plan: Plan) -> None:
    """Refuse to go on with a run that was begun with another recipe."""
    differences = first_difference(run.read_json(run.config), plan.document())
    if differences:
        key, before, now = differences
        raise RunError(
            f"--resume needs the recipe that {run.path} was begun with; {key} was {before!r}, now it is {now!r}. "
            "Give the same recipe and --set, or start over with --force."
        )


def check_same_data(prepared: Prepared) -> None:
    """Refuse to go on with a run that was begun with another table."""
    run = prepared.run
    before = run.read_json(run.environment).get("data_sha256")
    if before != prepared.record["data_sha256"]:
        raise RunError(
            f"--resume needs the table that {run.path} was begun with; {', '.join(prepared.record['data'])} differs "
            "from it (SHA-256). Give the same file, or start over with --force."
        )
