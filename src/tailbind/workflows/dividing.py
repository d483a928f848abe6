"""The split of a run: its parts, the families of near-identical antibodies, and what leaks between the parts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import SplitError
from tailbind.evaluation.calibration import OWN
from tailbind.run_folder import RunFolder
from tailbind.runtime import writing
from tailbind.table.grouping import Families
from tailbind.table.leakage import Leakage, leak_report
from tailbind.table.parts import CALIBRATION, Shares
from tailbind.table.schema import AffinityTable
from tailbind.table.splitting import LATER, PROMISES, TEST, TRAIN, VALIDATION, GroupedSplit, PairSplit, part_rows
from tailbind.workflows.plan import Plan

Rows = Mapping[str, NDArray[np.intp]]

#: Share of the rows in one group from which the parts cannot be what was asked for.
MOST: Final = 0.5
#: Rows that calibrate intervals, and that choose, at least, where validation rows are divided between the two.
FEWEST_SET_APART: Final = 100
#: Folds that validation rows are dealt into for that: as many of these as there are groups for.
FOLDS_TO_SET_APART: Final = (10, 4, 3)


def divide(plan: Plan, table: AffinityTable) -> tuple[dict[str, NDArray[np.intp]], list[str]]:
    """Return the rows of each part, and what to say of them, a sentence each.

    Raises
    ------
    SplitError, SequenceError
        When the plan's split cannot be made of this table, or not on this machine.
    """
    split, kind = _split_of(plan, table), plan.kinds["split"]
    sizes = None
    if isinstance(split, GroupedSplit):
        parts, sizes = split.divide(table.frame)
    else:
        parts = split(table.frame)
    rows = part_rows(parts)
    rows = _set_apart(plan, table, rows)
    counts = ", ".join(f"{len(members):,} {part}" for part, members in rows.items())
    later = int((parts == LATER).sum())
    remarks = [
        f"Split ({kind}): {counts} rows{f'; {later:,} later ones are in no part' if later else ''}; {PROMISES[kind]}."
    ]
    if sizes is not None:
        largest = sizes.max() / len(table)
        held = f"{len(sizes):,} groups were kept whole; the largest has {100 * largest:.0f} % of the rows"
        remarks.append(
            f"Warning: {held}, so that the parts cannot be the shares asked for." if largest > MOST else f"{held}."
        )
    return rows, remarks


def _set_apart(plan: Plan, table: AffinityTable, rows: dict[str, NDArray[np.intp]]) -> dict[str, NDArray[np.intp]]:
    """Return the parts with a share of the validation rows apart to calibrate intervals, where the plan wants them so.

    They are dealt as the split deals parts, so that what it keeps together is on one side. Few validation rows stay
    whole, as do those of a blend that predicts training rows out of fold.
    """
    options, validation = plan.calibration, rows[VALIDATION]
    if options.rows != OWN or plan.makes_folds(len(rows[TRAIN])):
        return rows
    for n_folds in FOLDS_TO_SET_APART:
        try:
            dealt = fold_rows(plan, table, validation, n_folds)
        except SplitError:  # too few groups for so many
            continue
        n_own = min(max(1, round(options.share * n_folds)), n_folds - 1)
        own = np.sort(np.concatenate([fold for _, fold in dealt[:n_own]]))
        rest = np.setdiff1d(validation, own)
        if min(len(own), len(rest)) >= FEWEST_SET_APART:
            return {**rows, VALIDATION: rest, CALIBRATION: own}
    return rows


def _split_of(plan: Plan, table: AffinityTable) -> Any:
    """Return the plan's split; a column it names by the file's own spelling is found under its canonical name."""
    canonical = {own: name for name, own in table.report.columns.items()}
    column = getattr(plan.split, "column", None)
    return replace(plan.split, column=canonical[column]) if column in canonical else plan.split


def fold_rows(
    plan: Plan, table: AffinityTable, rows: NDArray[np.intp], n_folds: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return for each fold of `rows` those to learn from and those to predict, as the plan's split deals parts.

    Of a split by date, only earlier rows are there to learn from. Pairs are dealt where the split knows no folds.

    Raises
    ------
    SplitError
        When there is too little to deal out.
    """
    split = _split_of(plan, table)
    if not isinstance(split, Shares):
        split = PairSplit(seed=getattr(split, "seed", 0))
    frame = table.frame[rows.tolist()]
    dealt = [replace(split, n_folds=n_folds, fold=fold)(frame) for fold in range(n_folds)]
    return [(rows[(part == TRAIN) | (part == VALIDATION)], rows[part == TEST]) for part in dealt]


def write_split(run: RunFolder, table: AffinityTable, rows: Rows, families: Families) -> None:
    """Write the part and the family of every row."""
    family = [None] * len(table) if families.index is None else families.index
    with writing(run.split) as handle:
        pl.DataFrame(
            {
                "row_id": table.frame["row_id"],
                "part": _parts(rows, len(table)),
                "family": pl.Series(family, dtype=pl.Int64),
            }
        ).write_parquet(handle)


def read_families(run: RunFolder, row_ids: pl.Series) -> NDArray[np.intp] | None:
    """Return (n_rows,) the family of the rows named, as the run wrote them; None where it knew none."""
    try:
        split = pl.read_parquet(run.split, columns=["row_id", "family"])
    except (OSError, pl.exceptions.PolarsError):
        return None
    found = row_ids.to_frame("row_id").join(split, on="row_id", how="left", maintain_order="left")["family"]
    return None if found.null_count() else found.to_numpy().astype(np.intp)


def leakage_of(run: RunFolder, table: AffinityTable, rows: Rows) -> dict[str, Any]:
    """Return the summary of what the split leaks: from the run's own file where there is one, else written to it."""
    test_ids = table.frame["row_id"].gather(rows[TEST].tolist())
    leakage = _read_leakage(run, test_ids)
    if leakage is None:
        leakage = leak_report(table.frame, _parts(rows, len(table)))
        with writing(run.leakage) as handle:
            leakage.frame(test_ids).write_parquet(handle)
    return leakage.summary()


def _read_leakage(run: RunFolder, test_ids: pl.Series) -> Leakage | None:
    """Return what an unfinished run found out; None where that is nothing, or not of these rows."""
    try:
        frame = pl.read_parquet(run.leakage)
    except (OSError, pl.exceptions.PolarsError):
        return None
    if not frame["row_id"].equals(test_ids) or frame.drop("row_id").null_count().row(0) == (len(frame),) * 4:
        return None
    return Leakage.from_frame(frame)


def _parts(rows: Rows, n: int) -> NDArray[np.str_]:
    parts = np.full(n, LATER, dtype="<U5")
    for part, members in rows.items():
        parts[members] = part
    return parts
