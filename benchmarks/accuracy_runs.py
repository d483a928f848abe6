"""What the accuracy benchmark trains: each recipe on each task once, its predictions kept in a file.

A file is named after all that its predictions depend on: the recipe as resolved, the rows of each part, the data. A
recipe that changes finds no file of its own and is trained again; what is there is read. The code is no part of the
name: after a change of the library give `--fresh`.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from tailbind.errors import RecipeError, TableError, TailbindError
from tailbind.features.pipeline import column_prefix
from tailbind.recipes import load_recipe
from tailbind.runtime import file_hash, writing
from tailbind.table.reading import read_table
from tailbind.table.schema import SEQUENCES, AffinityTable
from tailbind.table.splitting import PARTS, TEST
from tailbind.workflows.learning import learn
from tailbind.workflows.plan import Plan, resolve

Rows = Mapping[str, NDArray[np.intp]]
Tell = Callable[[str], None]

#: What a parquet file of predictions keeps beside them.
RECORD: Final = "tailbind"


@dataclass(frozen=True)
class Data:
    """A table of sequences, and where there are any the feature columns of the same rows.

    Attributes
    ----------
    table : without feature columns
    columns : the same rows with them; None where there are none
    hashes : SHA-256 of the table's file and of the columns'
    """

    table: AffinityTable
    columns: AffinityTable | None
    hashes: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, columns: Path | None = None) -> "Data":
        """Read a table, and columns for it that another file has.

        Raises
        ------
        TableError
            When the two files are not of the same rows in the same order, or a row has no features.
        """
        table = read_table(path, feature_prefix=None, sequences=True)
        if columns is None:
            return cls(table, None, (file_hash([path]),))
        given = read_table(columns, sequences=True, keep_incomplete=True)
        check_same_rows(table, given, str(path), str(columns))
        joined = replace(table, features=given.features, feature_names=given.feature_names)
        return cls(table, joined, (file_hash([path]), file_hash([columns])))

    def of(self, plan: Plan) -> AffinityTable:
        """Return the table that a plan's features are computed from.

        Raises
        ------
        TableError
            When it reads columns and there are none.
        """
        if column_prefix(plan.features) is None:
            return self.table
        if self.columns is None:
            raise TableError(
                f"Recipe {plan.name} reads feature columns; here are none. Give them for the pool with --seed-table."
            )
        return self.columns


def check_same_rows(table: AffinityTable, given: AffinityTable, path: str, columns: str) -> None:
    """Refuse columns that are not of the table's rows, or not of all of them."""
    ids = "row_id" in given.report.columns
    same = len(table) == len(given) and bool(np.allclose(table.pkd, given.pkd, atol=1e-6))
    compared = [*SEQUENCES, *(["row_id"] if ids else [])]
    if not same or not table.frame.select(compared).equals(given.frame.select(compared)):
        raise TableError(
            f"{columns} must have the rows of {path} in the same order, so that recipes on either are tested on the "
            f"same rows; it has {len(given):,} rows against {len(table):,}, or other sequences or labels. Make it "
            "from that table."
        )
    lacking = int((~np.isfinite(given.features).all(axis=1)).sum())
    if lacking:
        raise TableError(
            f"{columns} must have features in every row; {lacking:,} rows have none. Make it without missing ones."
        )


@dataclass(frozen=True)
class Task:
    """One thing to learn and to predict.

    Attributes
    ----------
    part, key : name it: "pool", "pair-42"
    rows : "train", "val" and "test" → row numbers of the table
    overrides : of the recipe, as in `--set`
    """

    part: str
    key: str
    rows: Rows
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a recipe gave on a task.

    Attributes
    ----------
    predicted : (n_test,) pKd, in the order of the task's test rows
    learning, predicting : seconds, features included
    """

    predicted: NDArray[np.float64]
    learning: float
    predicting: float


@dataclass
class Bench:
    """Trains what is not there yet.

    Attributes
    ----------
    folder : of the files of predictions
    device : to train on
    fresh : whether to train again what is there
    tell : told of progress
    left_out : recipe → why it could not be trained, in a line
    seconds : spent on training and predicting by all that was asked for, whether now or before
    """

    folder: Path
    device: torch.device
    fresh: bool
    tell: Tell
    left_out: dict[str, str]
    seconds: float = 0.0

    def outcomes(self, task: Task, recipes: Sequence[str], data: Data) -> dict[str, Outcome]:
        """Return recipe → what it gave; a recipe that cannot be trained is told of and left out from then on."""
        found = {}
        for recipe in recipes:
            plan = resolve(load_recipe(recipe, task.overrides))
            if plan.name in self.left_out:
                continue
            try:
                found[plan.name] = self._outcome(task, plan, data)
            except TailbindError as error:
                self.left_out[plan.name] = str(error)
                self.tell(f"{plan.name} is left out: {error}")
        return found

    def _outcome(self, task: Task, plan: Plan, data: Data) -> Outcome:
        table = data.of(plan)
        ids = data.table.frame["row_id"].gather(task.rows[TEST].tolist())
        path = self.folder / task.part / plan.name / f"{task.key}-{fingerprint(task, plan, data)}.parquet"
        outcome = None if self.fresh else read_outcome(path, ids)
        how = "read"
        if outcome is None:
            outcome, how = _learned(task, plan, table, self.device), "trained"
            write_outcome(path, ids, outcome, plan)
        self.seconds += outcome.learning + outcome.predicting
        n_train, n_test = (len(task.rows[part]) for part in (PARTS[0], TEST))
        self.tell(
            f"{task.part} {task.key}: {plan.name} {how}; {n_train:,} rows in {outcome.learning:.1f} s, {n_test:,} "
            f"predicted in {outcome.predicting:.1f} s"
        )
        return outcome


def resolved_names(recipes: Sequence[str]) -> list[str]:
    """Return the names of recipes given by name or file, none of them twice.

    Raises
    ------
    RecipeError
        For a name that two have, or an unknown recipe.
    """
    names = [resolve(load_recipe(recipe)).name for recipe in recipes]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"--recipes must have different names; two are called {name}. Rename one of the files.")
    return names


def fingerprint(task: Task, plan: Plan, data: Data) -> str:
    """Return twelve letters that change with whatever the predictions depend on but the library's code."""
    document = {key: value for key, value in plan.document().items() if key not in ("name", "description")}
    hashes = data.hashes if column_prefix(plan.features) is not None else data.hashes[:1]
    digest = hashlib.sha256(json.dumps([document, list(hashes)], sort_keys=True).encode())
    for part in PARTS:
        digest.update(np.ascontiguousarray(task.rows[part], dtype=np.int64).tobytes())
    return digest.hexdigest()[:12]


def _learned(task: Task, plan: Plan, table: AffinityTable, device: torch.device) -> Outcome:
    """Train on the rows of a task and predict its test rows; other rows of the table are out of sight."""
    rows = np.sort(np.concatenate([task.rows[part] for part in PARTS]))
    chosen = np.zeros(len(table), dtype=bool)
    chosen[rows] = True
    seen = table.take(chosen)
    renumbered = {part: np.searchsorted(rows, task.rows[part]) for part in PARTS}
    start = time.perf_counter()
    learned = learn(plan, seen, renumbered, device=device, notify=lambda _: None)
    middle = time.perf_counter()
    predicted = learned.model.predict(learned.features, renumbered[TEST])
    if not np.isfinite(predicted).all():
        raise RecipeError(f"Recipe {plan.name} must predict a number for every row; some are not finite.")
    return Outcome(np.asarray(predicted, dtype=np.float64), middle - start, time.perf_counter() - middle)


def write_outcome(path: Path, ids: pl.Series, outcome: Outcome, plan: Plan) -> None:
    """Write the predictions of a recipe with the recipe itself and its seconds, whole or not at all."""
    record = {"learning": outcome.learning, "predicting": outcome.predicting, "recipe": plan.document()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as handle:
        pl.DataFrame({"row_id": ids, "predicted_pkd": outcome.predicted}).write_parquet(
            handle, metadata={RECORD: json.dumps(record)}
        )


def read_outcome(path: Path, ids: pl.Series) -> Outcome | None:
    """Return predictions as they were written; None where there is no such file, or one of other rows."""
    if not path.is_file():
        return None
    frame = pl.read_parquet(path)
    if not frame["row_id"].equals(ids):
        return None
    record = json.loads(pl.read_parquet_metadata(path)[RECORD])
    return Outcome(frame["predicted_pkd"].to_numpy(), record["learning"], record["predicting"])
