"""The seeds' success criteria and their table of expected performance, and what to do after each grade."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tailbind.evaluation.metrics import figure
from tailbind.scale import BIN_NAMES

LEVELS: Final = ("minimum", "target", "stretch")
#: What a grade may go by: all rows, with every label as stated, or those that were measured.
ALL_ROWS, MEASURED_ROWS = "all", "measured"

#: level → metric → threshold; errors must be below, correlations above.
CRITERIA: Final[Mapping[str, Mapping[str, float]]] = {
    "minimum": {"very_strong.rmse": 2.0, "rmse": 1.2, "spearman": 0.55},
    "target": {"very_strong.rmse": 1.5, "rmse": 1.0, "spearman": 0.65},
    "stretch": {"very_strong.rmse": 1.0, "rmse": 0.8, "spearman": 0.75},
}

#: metric → what the notebook's author measured with v1, on a table of their own.
NOTEBOOK_V1: Final[Mapping[str, float]] = {
    "rmse": 1.4761, "spearman": 0.3912, "pearson": 0.7265, "r2": 0.5188,
    "very_weak.rmse": 1.1183, "weak.rmse": 1.7306, "moderate.rmse": 0.9875,
    "strong.rmse": 1.5264, "very_strong.rmse": 2.9394,
}  # fmt: skip

#: metric → the range the training notebook expects of v2, its less and its more ambitious end.
EXPECTED: Final[Mapping[str, tuple[float, float]]] = {
    "rmse": (1.0, 0.8), "spearman": (0.65, 0.75), "pearson": (0.80, 0.85), "r2": (0.65, 0.75),
    "very_weak.rmse": (0.9, 0.7), "weak.rmse": (1.4, 1.2), "moderate.rmse": (0.8, 0.6),
    "strong.rmse": (1.2, 1.0), "very_strong.rmse": (1.5, 1.0),
}  # fmt: skip

#: Grade → the training notebook's word for it.
WORDS: Final = {"stretch": "excellent", "target": "good", "minimum": "OK", "none": "poor"}


@dataclass(frozen=True)
class Criterion:
    """One threshold and whether it is met.

    Attributes
    ----------
    level : minimum, target or stretch; "expected" for the table of expected performance
    metric : flat name ("very_strong.rmse")
    threshold : to be below (errors) or above (correlations)
    value : measured; None where the test set has no such rows
    met : None where there is no value
    clear : whether the whole 95 % interval is on the value's side of the threshold; None without interval
    """

    level: str
    metric: str
    threshold: float
    value: float | None
    met: bool | None
    clear: bool | None


def lower_is_better(metric: str) -> bool:
    """Return whether less of a metric is better.

    >>> lower_is_better("weak.rmse"), lower_is_better("r2")
    (True, False)
    """
    return metric.rsplit(".", 1)[-1] in ("rmse", "mae", "bias")


def judge(figures: Mapping[str, Any], level: str, metric: str, threshold: float) -> Criterion:
    """Return one criterion for figures as `evaluate` gives them, with intervals under `intervals`."""
    value = figure(figures, metric)
    if value is None:
        return Criterion(level, metric, threshold, None, None, None)
    met = value < threshold if lower_is_better(metric) else value > threshold
    interval = _interval(figures.get("intervals"), metric)
    clear = None if interval is None else not interval[0] <= threshold <= interval[1]
    return Criterion(level, metric, threshold, value, met, clear)


def of_rows(figures: Mapping[str, Any], rows: str) -> Mapping[str, Any]:
    """Return what of the figures is of all rows (`ALL_ROWS`), or of measured rows alone (`MEASURED_ROWS`).

    >>> of_rows({"rmse": 0.8, "measured": {"rmse": 0.3}}, "measured")
    {'rmse': 0.3}
    """
    measured: Mapping[str, Any] = figures["measured"] if rows == MEASURED_ROWS else figures
    return measured


def grade(figures: Mapping[str, Any], rows: str = ALL_ROWS) -> dict[str, Any]:
    """Return the grade and everything it rests on, as `metrics.json` has it under `criteria`.

    A level is reached when none of its criteria is missed and at least one could be judged. Criteria on bins
    without test rows are not judged, and listed as such.

    Parameters
    ----------
    figures : of the test rows, with those of measured rows under `measured` and intervals under `intervals` of either
    rows : which of them the grade goes by, see `of_rows`
    """
    chosen = of_rows(figures, rows)
    judged = [judge(chosen, level, metric, limit) for level in LEVELS for metric, limit in CRITERIA[level].items()]
    expected = [judge(chosen, "expected", metric, EXPECTED[metric][0]) for metric in EXPECTED]
    reached = "none"
    for level in LEVELS:
        marks = [criterion.met for criterion in judged if criterion.level == level]
        if False in marks or True not in marks:
            break
        reached = level
    return {
        "grade": reached,
        "word": WORDS[reached],
        "rows": rows,
        "levels": {level: [vars(c) for c in judged if c.level == level] for level in LEVELS},
        "expected": [
            {**vars(c), "range": list(EXPECTED[c.metric]), "notebook_v1": NOTEBOOK_V1[c.metric]} for c in expected
        ],
    }


def next_steps(
    grade_name: str, run: str, data: str, recipe: str, unsplit: str, predictions: str, rows: str = ALL_ROWS
) -> list[tuple[str, str]]:
    """Return (what to do, command) pairs that follow a grade, in the order of the notebook's next steps.

    Parameters
    ----------
    grade_name : "none", "minimum", "target" or "stretch"
    run, data, predictions : the run folder, the table, and the file of test predictions, as commands name them
    recipe : the run's recipe with its changes, as in `--recipe v2 --set training.epochs=50`
    unsplit : the same without changes of the split
    rows : which test rows the grade goes by; the largest errors are looked for among them
    """
    largest = "NR > 1" if rows == ALL_ROWS else 'NR > 1 && $6 == "="'  # the sixth column is the relation

    def again(suffix: str, changes: str = "", more: str = "", recipe: str = recipe) -> str:
        return f"tailbind train {data}{more} {recipe}{changes} --out {run}-{suffix}"

    if grade_name in ("target", "stretch"):
        return [
            ("Use it: predict new pairs", f"tailbind predict {run} NEW_PAIRS.csv --out predictions.csv"),
            (
                "Write it up: the comparison with another run as a LaTeX table",
                f"tailbind compare OTHER_RUN {run} --out comparison",
            ),
            (
                "Before relying on it: the same with identical pairs kept together",
                again("pairs", " --set split.kind=pair", recipe=unsplit),
            ),
        ]
    if grade_name == "minimum":
        return [
            (
                "Two-stage training: all data, then the extremes",
                again("two-stage", " --set training.finetune_epochs=20 --set training.finetune_lr=1e-5"),
            ),
            ("An ensemble of five", again("ensemble", " --set model.members=5")),
            (
                "All 1,280 features instead of 150 (the table's esm2_dim_* columns)",
                again("full", " --set features.columns.prefix=esm2_dim_"),
            ),
        ]
    return [
        (
            "Check the labels: the repeated values (under Labels in the report) and the largest errors",
            f"awk -F, '{largest} {{print ($4 < 0 ? -$4 : $4) \", \" $0}}' {predictions} | sort -gr | head",
        ),
        ("Better features: another block of columns", again("features", " --set features.columns.prefix=PREFIX")),
        ("Another architecture: larger", again("larger", " --set 'model.hidden_dims=[1024,512,256,128]'")),
        ("External data: more very strong binders", again("more", more=" MORE.csv")),
    ]


def metric_label(metric: str) -> str:
    """Return a metric's name as a table shows it.

    >>> metric_label("very_strong.rmse"), metric_label("r2"), metric_label("spearman")
    ('Very strong RMSE', 'R²', 'Spearman')
    """
    words = {
        "rmse": "RMSE",
        "mae": "MAE",
        "r2": "R²",
        "bias": "bias",
        "spearman": "Spearman",
        "pearson": "Pearson",
    }
    bin_name, _, name = metric.rpartition(".")
    label = words.get(name, name)
    return f"{bin_name.replace('_', ' ').capitalize()} {label}" if bin_name in BIN_NAMES else label


def _interval(intervals: Mapping[str, Any] | None, metric: str) -> tuple[float, float] | None:
    if intervals is None:
        return None
    bin_name, _, name = metric.rpartition(".")
    entry = (intervals["bins"].get(bin_name) or {}).get(name) if bin_name else intervals.get(name)
    return None if entry is None else (float(entry[0]), float(entry[1]))
