"""A climbed ladder as its readers see it: tables, a headline, a picture, a page, and the same for programs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from tailbind.reporting.drawing import png
from tailbind.reporting.ladder_plot import Scores, ladder_chart
from tailbind.reporting.report import Report
from tailbind.reporting.tables import NOTHING, Table, interval_text, number
from tailbind.runtime import write_json, write_text, writing

#: From the split that keeps nothing apart to the one that keeps most: what it is called, its kind.
RUNGS: Final[Mapping[str, str]] = {
    "random": "random",
    "de-duplicated": "pair",
    "antibody cluster": "antibody_cluster",
    "antigen cluster": "antigen_cluster",
    "both cold": "both_cold",
}
HARDEST: Final = "both_cold"
#: What each kind never puts on two sides, in a caption's words.
KEPT_APART: Final[Mapping[str, str]] = {
    "random": "nothing",
    "pair": "exact pairs",
    "antibody_cluster": "antibodies at least {antibody} % identical",
    "antigen_cluster": "antigens at least {antigen} % identical",
    "both_cold": "either",
}
BASELINES: Final = ("training mean", "source mean", "complex mean", "nearest neighbour", "ridge")
METRICS: Final = ("rmse", "spearman")
DOCUMENT: Final = "ladder.json"
PICTURE, TABLE, FORMATTED, PAGE = "ladder.png", "ladder.csv", "ladder.md", "ladder.html"


@dataclass(frozen=True)
class Step:
    """One predictor on one rung.

    Attributes
    ----------
    rung, predictor : names
    n : measured test rows it was held against
    values : metric → value, None where it is not defined
    intervals : metric → 95 % interval
    by, n_clusters : what the bootstrap drew
    """

    rung: str
    predictor: str
    n: int
    values: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float] | None]
    by: str
    n_clusters: int | None


@dataclass(frozen=True)
class Ladder:
    """A recipe and the baselines on every rung that the table allows.

    Attributes
    ----------
    recipe : its name
    steps : an entry per rung and predictor, the recipe first on each rung
    skipped : rung → why the table does not allow it
    identities : antibody, antigen → identity from which two are of one cluster
    leakage : rung → how near its test rows are to training, as its `metrics.json` has it
    """

    recipe: str
    steps: tuple[Step, ...]
    skipped: Mapping[str, str]
    identities: Mapping[str, float]
    leakage: Mapping[str, Mapping[str, Any]]

    @property
    def rungs(self) -> list[str]:
        """The rungs that were climbed, in the order of `RUNGS`."""
        return list(dict.fromkeys(step.rung for step in self.steps))

    def step(self, rung: str, predictor: str) -> Step | None:
        """Return a predictor on a rung, None where it is not there."""
        return next((step for step in self.steps if (step.rung, step.predictor) == (rung, predictor)), None)

    def records(self) -> list[dict[str, Any]]:
        """Return one record per step and metric."""
        return [
            {
                "rung": step.rung,
                "predictor": step.predictor,
                "metric": metric,
                "n": step.n,
                "value": step.values[metric],
                "low": interval[0] if (interval := step.intervals[metric]) else None,
                "high": interval[1] if interval else None,
                "intervals_by": step.by,
                "n_clusters": step.n_clusters,
            }
            for step in self.steps
            for metric in METRICS
        ]

    def document(self) -> dict[str, Any]:
        """Return the ladder as JSON-able values."""
        return {
            "recipe": self.recipe,
            "identities": dict(self.identities),
            "rungs": self.rungs,
            "steps": self.records(),
            "leakage": dict(self.leakage),
            "skipped": dict(self.skipped),
        }


def ladder_tables(result: Ladder) -> list[Table]:
    """Return a table per metric, a row per predictor and a column per rung; and how near training each rung is."""
    first = [step for step in result.steps if step.predictor == result.recipe]
    sizes = ", ".join(f"{step.rung} {step.n:,}" for step in first)
    drawn = ", ".join(
        f"{step.rung} by {f'{step.n_clusters:,} families' if step.by == 'clusters' else 'rows'}" for step in first
    )
    tables = []
    for metric, name in (("rmse", "RMSE"), ("spearman", "Spearman")):
        rows = []
        for predictor in (result.recipe, *BASELINES):
            cells = []
            for rung in result.rungs:
                step = result.step(rung, predictor)
                value = step.values[metric] if step else None
                interval = step.intervals[metric] if step else None
                cells.append(number(value, 2) + (f" ({interval_text(interval, 2)})" if interval else ""))
            rows.append((predictor, *cells))
        note = f"Measured test rows: {sizes}. In brackets 95 % intervals by bootstrap: {drawn}."
        tables.append(Table(name, ("Predictor", *result.rungs), tuple(rows), note))
    return [*tables, _nearness(result)]


def _nearness(result: Ladder) -> Table:
    """Return the median identity of each rung's test rows to training."""
    rows = tuple(
        (name, *(_median(result.leakage[rung], chain) for rung in result.rungs))
        for chain, name in (("heavy", "Heavy chain"), ("antigen", "Antigen"))
    )
    note = (
        "Median identity to the nearest training sequence, of the test rows that have such a sequence. "
        f"{_kept_apart(result)}"
    )
    reasons = dict.fromkeys(entry["why"] for entry in result.leakage.values() if not entry["known"])
    if reasons:
        note += f" Unknown: {'; '.join(reasons)}."
    return Table("How near the test rows are to training", ("Nearest training row", *result.rungs), rows, note)


def _median(leakage: Mapping[str, Any], chain: str) -> str:
    entry = leakage[chain] if leakage["known"] else None
    return f"{number(100 * entry['median_identity'], 1)} %" if entry else NOTHING


def _kept_apart(result: Ladder) -> str:
    """Return what each rung never puts on two sides, as a caption."""
    percent = {side: f"{100 * identity:g}" for side, identity in result.identities.items()}
    words = (f"{KEPT_APART[RUNGS[rung]].format(**percent)} ({rung})" for rung in result.rungs)
    return f"Never on two sides: {'; '.join(words)}."


def headline(result: Ladder) -> str:
    """Return what the random split flatters, in a sentence or two."""
    start, end = result.rungs[0], result.rungs[-1]
    words = []
    for metric, name in (("rmse", "RMSE"), ("spearman", "Spearman")):
        low, high = (result.step(rung, result.recipe) for rung in (start, end))
        words.append(
            f"{name} {number(low.values[metric] if low else None, 2)} → "
            f"{number(high.values[metric] if high else None, 2)}"
        )
    summary = f"{result.recipe}, from {start} to {end}: {', '.join(words)}."
    place = "the hardest rung" if RUNGS[end] == HARDEST else f"the rung {end}"
    errors = {name: _rmse(result.step(end, name)) for name in BASELINES}
    best = min(errors, key=lambda name: errors[name])
    if not np.isfinite(errors[best]):
        return f"{summary} {place[0].upper()}{place[1:]} has no measured test rows."
    beats = _rmse(result.step(end, result.recipe)) < errors[best]
    return (
        f"{summary} On {place} it {'beats' if beats else 'does not beat'} the best trivial predictor, "
        f"{best} (RMSE {number(errors[best], 2)})."
    )


def write_ladder(result: Ladder, folder: Path) -> None:
    """Write the picture, the tables, the page and, last, the document that says that the ladder is finished."""
    predictors = (result.recipe, *BASELINES)
    grids: dict[str, Scores] = {}
    for metric in METRICS:
        entries = [[_triple(result.step(rung, name), metric) for rung in result.rungs] for name in predictors]
        grids[metric] = Scores(*np.moveaxis(np.asarray(entries, dtype=np.float64), 2, 0))
    picture = png(ladder_chart(result.rungs, predictors, grids, _kept_apart(result)))
    with writing(folder / PICTURE) as handle:
        handle.write(picture)
    with writing(folder / TABLE) as handle:
        pl.DataFrame(result.records(), infer_schema_length=None).write_csv(handle)
    tables = ladder_tables(result)
    write_text(folder / FORMATTED, "\n".join(table.markdown() for table in tables))
    page = Report(
        title=f"tailbind ladder · {result.recipe}",
        subtitle="The same recipe on one split after the other, beside trivial predictors",
        headline=headline(result),
        tables=tables,
        pictures={f"From {result.rungs[0]} to {result.rungs[-1]}": picture},
        facts=[(f"Left out: {rung}", reason) for rung, reason in result.skipped.items()],
        facts_title="Rungs left out",
    )
    write_text(folder / PAGE, page.html())
    write_json(folder / DOCUMENT, result.document())


def _rmse(step: Step | None) -> float:
    value = step.values["rmse"] if step is not None else None
    return float("inf") if value is None else value


def _triple(step: Step | None, metric: str) -> tuple[float, float, float]:
    nothing = float("nan")
    if step is None or step.values[metric] is None:
        return nothing, nothing, nothing
    low, high = step.intervals[metric] or (nothing, nothing)
    return step.values[metric] or 0.0, low, high
