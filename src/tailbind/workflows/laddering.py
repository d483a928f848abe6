"""`tailbind ladder`: one recipe on five splits, beside trivial baselines: what a random split flatters."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console

from tailbind.checkpoint import load_checkpoint
from tailbind.errors import RunError, SequenceError, SplitError
from tailbind.evaluation.metrics import evaluate, intervals
from tailbind.features.pipeline import FeaturePipeline
from tailbind.models.baselines import NearestNeighbour, Ridge, SourceMean, TrainingMean
from tailbind.recipes import load_recipe
from tailbind.recipes.schema import parse_override
from tailbind.run_folder import RunFolder, first_difference, open_run
from tailbind.runtime import file_hash
from tailbind.table import SPLITS
from tailbind.table.grouping import complex_labels
from tailbind.table.schema import MEASURED, AffinityTable
from tailbind.table.splitting import TEST, TRAIN, VALIDATION, PartArray, part_rows
from tailbind.workflows.ladder_page import (
    BASELINES,
    DOCUMENT,
    FORMATTED,
    METRICS,
    PAGE,
    PICTURE,
    RUNGS,
    TABLE,
    Ladder,
    Step,
    headline,
    ladder_tables,
    write_ladder,
)
from tailbind.workflows.plan import Plan, resolve
from tailbind.workflows.preparing import default_recipe, read_for
from tailbind.workflows.progress import default_console
from tailbind.workflows.training import train

__all__ = ("BASELINES", "METRICS", "RUNGS", "Ladder", "Step", "headline", "ladder", "ladder_tables")

#: Options of a split that mean the same on every rung; the others are the ladder's own.
SHARED: Final = ("seed", "test_fraction", "val_fraction", "n_folds", "fold")
#: The least and the greatest identity that splits by clusters take.
IDENTITIES: Final = (0.3, 1.0)
#: Resamples behind an interval; a ladder has thirty of them.
N_RESAMPLES: Final = 300


def ladder(
    data: str | Path | Sequence[str | Path],
    *,
    recipe: str | Path | None = None,
    out: str | Path,
    overrides: Sequence[str] = (),
    antibody_identity: float = 0.9,
    antigen_identity: float = 0.7,
    seed: int | None = None,
    device: str = "auto",
    cache: bool = True,
    console: Console | None = None,
) -> Ladder:
    """Train a recipe on every rung of `RUNGS` and hold it against trivial baselines on measured test rows.

    Parameters
    ----------
    data, recipe, seed, device, cache : as for `train`
    out : folder for a run per rung and `ladder.html`, `.csv`, `.md`, `.json`, `.png`; an interrupted ladder
        continues in the same folder
    overrides : as for `train`; of the split only what is in `SHARED`, as of the recipe's own split section
    antibody_identity, antigen_identity : from which two of them are of one cluster, on every rung that has clusters

    Raises
    ------
    TailbindError
        In one line, where no rung can be climbed, or the folder's rungs are of another recipe or table.
    """
    console = console or default_console()
    folder = Path(out)
    identities = {"antibody": antibody_identity, "antigen": antigen_identity}
    others = _checked(overrides, identities)
    if (folder / DOCUMENT).exists():
        raise RunError(f"--out {folder} must not hold a finished ladder; it does. Choose another folder.")
    _check_folder(folder)
    recipe = recipe or default_recipe(data)
    plan = _plan(recipe, others, console)
    changes = {rung: [*overrides, *_split_changes(kind, identities)] for rung, kind in RUNGS.items()}
    for rung in RUNGS:
        _check_same(RunFolder(_place(folder, rung), plan.name), recipe, [*changes[rung], *_seeded(seed)], data)
    table = read_for(plan, data, cache)
    steps: list[Step] = []
    skipped: dict[str, str] = {}
    leakage: dict[str, Mapping[str, Any]] = {}
    for rung in RUNGS:
        console.rule(rung)
        run = _place(folder, rung)
        try:
            train(
                data,
                recipe=recipe,
                out=run,
                overrides=changes[rung],
                seed=seed,
                device=device,
                resume=True,
                cache=cache,
                console=console,
            )
        except (SplitError, SequenceError) as error:
            skipped[rung] = str(error)
            console.print(f"Left out: {error}", style="yellow", highlight=False, markup=False, soft_wrap=True)
            continue
        finished = open_run(run)
        steps += _steps(rung, plan, finished, table)
        leakage[rung] = finished.read_json(finished.metrics)["leakage"]
    if not steps:
        raise RunError(f"No rung of the ladder is possible on this table: {next(iter(skipped.values()))}")
    result = Ladder(plan.name, tuple(steps), skipped, identities, leakage)
    write_ladder(result, folder)
    return result


def _checked(overrides: Sequence[str], identities: Mapping[str, float]) -> list[str]:
    """Return the overrides that are not of the split, having refused what the ladder does not take."""
    others = []
    for change in overrides:
        split = parse_override(change).get("split")
        if split is None:
            others.append(change)
        elif "kind" in split:
            raise RunError("tailbind ladder chooses split.kind itself, one after another; leave it out of --set.")
        elif not {*split} <= {*SHARED}:
            raise RunError(
                f"On the ladder --set split.… must be one of {', '.join(SHARED)}, which all rungs have; got {change}. "
                "From which identity two are of one cluster, --antibody-identity and --antigen-identity say."
            )
    low, high = IDENTITIES
    for side, identity in identities.items():
        if not low <= identity <= high:
            raise RunError(f"--{side}-identity must be at least {low:g} and at most {high:g}; got {identity:g}.")
    return others


def _plan(recipe: str | Path, overrides: Sequence[str], console: Console) -> Plan:
    """Return the recipe resolved, having told which options of its own split have no say on the ladder."""
    written = load_recipe(recipe, overrides)
    plan = resolve(written)
    if plan.name in BASELINES:
        raise RunError(
            f"A recipe on the ladder must not be called as a predictor beside it; {plan.name} is. Its "
            "figures are there for any recipe; or write it in a file of another name."
        )
    if unused := sorted({*written.sections["split"].values} - {*SHARED}):
        told = (
            f"The ladder draws splits of its own, without the recipe's {', '.join(f'split.{key}' for key in unused)}."
        )
        console.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)
    return plan


def _split_changes(kind: str, identities: Mapping[str, float]) -> list[str]:
    """Return the overrides that make a split of this kind: every option that not all kinds have, stated.

    >>> _split_changes("both_cold", {"antibody": 0.8, "antigen": 0.7})[1:]
    ['split.stratify=true', 'split.antibody_identity=0.8', 'split.antigen_identity=0.7']
    """
    own = {f"{side}_identity": identity for side, identity in identities.items()}
    if kind.endswith("_cluster"):
        own["identity"] = identities[kind.removesuffix("_cluster")]
    options = [field for field in fields(SPLITS.load(kind)) if field.name not in SHARED]
    values = {field.name: own.get(field.name, field.default) for field in options}
    return [f"split.kind={kind}", *(f"split.{key}={json.dumps(value)}" for key, value in values.items())]


def _place(folder: Path, rung: str) -> Path:
    return folder / rung.replace(" ", "_")


def _check_folder(folder: Path) -> None:
    known = {*(_place(folder, rung).name for rung in RUNGS), PICTURE, TABLE, FORMATTED, PAGE}
    if folder.exists() and not folder.is_dir():
        raise RunError(f"--out {folder} must be a folder; it is a file. Choose another name.")
    present = sorted(item.name for item in folder.iterdir() if item.suffix != ".part") if folder.exists() else []
    others = [name for name in present if name not in known]
    if others:
        raise RunError(f"--out {folder} must be empty or an unfinished ladder; it holds {others[0]}. Choose another.")


def _check_same(
    run: RunFolder, recipe: str | Path, changes: Sequence[str], data: str | Path | Sequence[str | Path]
) -> None:
    """Refuse a finished rung of another recipe or table; `train` does so for an unfinished one."""
    if not run.is_done:
        return
    difference = first_difference(run.read_json(run.config), resolve(load_recipe(recipe, changes)).document())
    if difference is None:
        files = [Path(path) for path in ([data] if isinstance(data, str | Path) else data)]
        before, now = run.read_json(run.environment).get("data_sha256"), file_hash(files)
        difference = ("data", before, now) if before != now else None
    if difference is not None:
        key, before, now = difference
        words = f"{key} was {before!r}, now it is {now!r}" if key != "data" else "the table differs (SHA-256)"
        raise RunError(
            f"--out {run.path.parent} must be a ladder of this recipe and table; in its rung {run.path.name} {words}. "
            "Give the same again, or choose another folder."
        )


def _seeded(seed: int | None) -> list[str]:
    return [] if seed is None else [f"training.seed={seed}"]


def _steps(rung: str, plan: Plan, run: RunFolder, table: AffinityTable) -> list[Step]:
    """Return the recipe and the baselines on a rung's measured test rows."""
    parts, family = _split(run, table)
    rows = part_rows(parts)
    measured = rows[TEST][table.relation[rows[TEST]] == MEASURED]
    clusters = family[measured] if family is not None else None
    predictions = {plan.name: _predicted(run, table, measured), **_baselines(run, table, rows, measured)}
    steps = []
    for name, predicted in predictions.items():
        figures = evaluate(table.pkd[measured], predicted)
        of_rows = intervals(table.pkd[measured], predicted, N_RESAMPLES, clusters=clusters)
        finite = {metric: figures[metric] if np.isfinite(figures[metric]) else None for metric in METRICS}
        steps.append(
            Step(
                rung,
                name,
                len(measured),
                finite,
                {metric: of_rows[metric] if finite[metric] is not None else None for metric in METRICS},
                of_rows["by"],
                of_rows["n_clusters"],
            )
        )
    return steps


def _split(run: RunFolder, table: AffinityTable) -> tuple[PartArray, NDArray[np.intp] | None]:
    """Return the parts that a run's rows were in, and their families, in the table's order."""
    split = pl.read_parquet(run.split)
    joined = table.frame.select("row_id").join(split, on="row_id", how="left", maintain_order="left")
    family = joined["family"]
    parts = joined["part"].to_numpy().astype("<U5")
    return parts, None if family.null_count() else family.to_numpy().astype(np.intp)


def _predicted(run: RunFolder, table: AffinityTable, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    frame = pl.read_csv(run.test_predictions, schema_overrides={"row_id": pl.String})
    wanted = table.frame.select("row_id")[rows]
    return wanted.join(frame, on="row_id", how="left", maintain_order="left")["predicted_pkd"].to_numpy()


def _baselines(
    run: RunFolder, table: AffinityTable, rows: Mapping[str, NDArray[np.intp]], test: NDArray[np.intp]
) -> dict[str, NDArray[np.float64]]:
    """Return baseline → (n_test,) predicted pKd, learned from the training rows alone."""
    train_rows, y = rows[TRAIN], table.pkd
    features = FeaturePipeline.from_state(load_checkpoint(run.best_model).features).transform(table)
    complexes = complex_labels(table.frame)
    return {
        "training mean": TrainingMean().fit(features, y, train_rows).predict(features, test),
        "source mean": SourceMean().fit(table.source, y, train_rows).predict(table.source, test),
        "complex mean": SourceMean().fit(complexes, y, train_rows).predict(complexes, test),
        "nearest neighbour": NearestNeighbour().fit(features, y, train_rows).predict(features, test),
        "ridge": Ridge.chosen(features, y, train_rows, rows[VALIDATION]).predict(features, test),
    }
