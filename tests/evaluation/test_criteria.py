import shlex
from typing import Any

import numpy as np
import pytest

from tailbind.evaluation.criteria import (
    ALL_ROWS,
    CRITERIA,
    EXPECTED,
    MEASURED_ROWS,
    NOTEBOOK_V1,
    grade,
    judge,
    lower_is_better,
    next_steps,
)
from tailbind.evaluation.metrics import evaluate, intervals
from tailbind.models import MODELS
from tailbind.options import read_options
from tailbind.recipes import Recipe, load_recipe
from tailbind.scale import BIN_NAMES
from tailbind.table import SPLITS
from tailbind.training.stages import TrainingOptions


def figures(rmse: float, spearman: float, very_strong: float | None, **others: float) -> dict[str, Any]:
    bins = {"very_strong": None if very_strong is None else {"rmse": very_strong}}
    return {"rmse": rmse, "spearman": spearman, "bins": bins, **others}


@pytest.mark.parametrize(
    ("values", "reached", "word"),
    [
        ((0.79, 0.76, 0.99), "stretch", "excellent"),
        ((0.8, 0.76, 0.99), "target", "good"),  # "below", not "at most"
        ((0.79, 0.75, 0.99), "target", "good"),
        ((0.79, 0.76, 1.0), "target", "good"),
        ((0.99, 0.66, 1.49), "target", "good"),
        ((1.0, 0.66, 1.49), "minimum", "OK"),
        ((1.19, 0.56, 1.99), "minimum", "OK"),
        ((1.2, 0.56, 1.99), "none", "poor"),
        ((1.19, 0.55, 1.99), "none", "poor"),
        ((1.19, 0.56, 2.0), "none", "poor"),
        ((0.5, 0.9, 2.5), "none", "poor"),
    ],
)
def test_a_level_is_reached_when_none_of_its_criteria_is_missed(
    values: tuple[float, float, float], reached: str, word: str
) -> None:
    graded = grade(figures(*values))
    assert (graded["grade"], graded["word"]) == (reached, word)


def test_the_notebook_v1_is_poor_by_the_seeds_criteria() -> None:
    bins = {name: {"rmse": NOTEBOOK_V1[f"{name}.rmse"]} for name in BIN_NAMES}
    assert grade({**NOTEBOOK_V1, "bins": bins})["grade"] == "none"


def test_a_bin_without_rows_is_listed_and_not_judged() -> None:
    graded = grade(figures(0.79, 0.76, None))
    assert graded["grade"] == "stretch"
    for level in CRITERIA:
        entry = next(c for c in graded["levels"][level] if c["metric"] == "very_strong.rmse")
        assert (entry["met"], entry["value"], entry["clear"]) == (None, None, None)
        assert len(graded["levels"][level]) == 3
    assert [c["met"] for c in graded["expected"] if c["metric"] == "weak.rmse"] == [None]


def test_a_grade_goes_by_the_rows_it_is_told() -> None:
    both = {**figures(1.3, 0.9, 0.5), "measured": figures(0.3, 0.9, 0.5)}
    assert (grade(both)["grade"], grade(both)["rows"]) == ("none", "all")
    by_measured = grade(both, MEASURED_ROWS)
    assert (by_measured["grade"], by_measured["rows"]) == ("stretch", "measured")
    assert by_measured["levels"]["minimum"][1]["value"] == 0.3


def test_the_largest_errors_are_looked_for_among_the_rows_judged() -> None:
    said = [
        next_steps("none", "run", "data.csv", "--recipe v3", "--recipe v3", "p.csv", rows)[0][1]
        for rows in (ALL_ROWS, MEASURED_ROWS)
    ]
    assert ['$6 == "="' in command for command in said] == [False, True]


def test_nothing_to_judge_reaches_nothing() -> None:
    assert grade({"rmse": float("nan"), "spearman": float("nan"), "bins": {}})["grade"] == "none"


def test_a_correlation_that_is_not_a_number_is_not_judged() -> None:
    graded = grade(figures(0.79, float("nan"), 0.9))
    assert [c["met"] for c in graded["levels"]["minimum"] if c["metric"] == "spearman"] == [None]


def test_the_expected_table_is_graded_with_its_range_and_v1() -> None:
    graded = grade(figures(0.95, 0.70, 1.6, pearson=0.79, r2=0.7))
    entries = {entry["metric"]: entry for entry in graded["expected"]}
    assert set(entries) == set(EXPECTED) == set(NOTEBOOK_V1)
    met = {metric: entry["met"] for metric, entry in entries.items() if entry["met"] is not None}
    assert met == {"rmse": True, "spearman": True, "pearson": False, "r2": True, "very_strong.rmse": False}
    assert entries["rmse"]["range"] == [1.0, 0.8]
    assert entries["rmse"]["notebook_v1"] == 1.4761


def test_expected_ranges_lead_from_good_to_better_and_beat_v1() -> None:
    for metric, (less, more) in EXPECTED.items():
        down = lower_is_better(metric)
        assert (more < less) == down, metric
        assert (less < NOTEBOOK_V1[metric]) == down, metric


def test_levels_get_harder() -> None:
    for metric in CRITERIA["minimum"]:
        limits = [CRITERIA[level][metric] for level in ("minimum", "target", "stretch")]
        assert limits == sorted(limits, reverse=lower_is_better(metric))
        assert len(set(limits)) == 3


@pytest.mark.parametrize(
    ("interval", "clear"), [((0.7, 0.9), True), ((0.9, 1.1), False), ((1.01, 1.3), True), ((1.0, 1.1), False)]
)
def test_a_criterion_is_clear_when_its_interval_is_on_one_side(interval: tuple[float, float], clear: bool) -> None:
    with_interval = {"rmse": 0.95, "intervals": {"rmse": interval, "bins": {"weak": {"rmse": interval}}}}
    assert judge(with_interval, "target", "rmse", 1.0).clear is clear
    with_interval["bins"] = {"weak": {"rmse": 0.95}}
    assert judge(with_interval, "target", "weak.rmse", 1.0).clear is clear
    assert judge({"rmse": 0.95}, "target", "rmse", 1.0).clear is None


def test_intervals_as_evaluated_are_found() -> None:
    rng = np.random.default_rng(0)
    y_true = rng.uniform(5, 11, 400)
    y_pred = y_true + rng.normal(0, 0.5, 400)
    graded = grade({**evaluate(y_true, y_pred), "intervals": intervals(y_true, y_pred, n_resamples=100)})
    marks = {entry["metric"]: entry["clear"] for entry in graded["levels"]["stretch"]}
    assert marks == {"rmse": True, "spearman": True, "very_strong.rmse": None}


@pytest.mark.parametrize("name", ["none", "minimum", "target", "stretch"])
def test_next_steps_are_commands_that_can_be_typed(name: str) -> None:
    recipe = "--recipe v2 --set training.epochs=50"
    steps = next_steps(name, "runs/v2", "data.csv", f"{recipe} --set split.seed=1", recipe, "runs/v2/predictions.csv")
    assert len(steps) >= 3
    folders = []
    for what, command in steps:
        assert what
        words = shlex.split(command)
        if words[:2] == ["tailbind", "train"]:
            assert words[2] == "data.csv"
            assert words[words.index("--recipe") + 1] == "v2"
            folders.append(words[words.index("--out") + 1])
            overrides = [words[position + 1] for position, word in enumerate(words) if word == "--set"]
            assert overrides[0] == "training.epochs=50"
            assert ("split.seed=1" in overrides) != ("split.kind=pair" in overrides)
            read_sections(load_recipe("v2", overrides))
        else:
            assert "runs/v2" in command
    assert len(set(folders)) == len(folders)
    assert "runs/v2" not in folders


def read_sections(recipe: Recipe) -> None:
    """Fail where a section holds an option that its component does not know, or a value it does not allow."""
    for name, registry in (("model", MODELS), ("split", SPLITS)):
        section = recipe.sections[name]
        known = registry.load(section.kind).__dataclass_fields__
        values = {key: value for key, value in section.values.items() if key in known or key not in section.inherited}
        read_options(registry.load(section.kind), values, name)
    read_options(TrainingOptions, recipe.sections["training"].values, "training")


def test_each_grade_has_its_own_next_steps() -> None:
    told = {
        name: next_steps(name, "run", "data.csv", "--recipe v2", "--recipe v2", "p.csv")
        for name in ("none", "minimum", "target")
    }
    assert told["none"] != told["minimum"] != told["target"]
    assert told["target"] == next_steps("stretch", "run", "data.csv", "--recipe v2", "--recipe v2", "p.csv")
