"""Each rule about what a model cannot be relied upon for speaks when its figures are there, and not else."""

from typing import Any

import pytest

from tailbind.reporting.limits import limits

BIN = {"n": 200, "rmse": 0.5, "mae": 0.4, "bias": 0.0}
BINS = ("very_weak", "weak", "moderate", "strong", "very_strong")
CHAIN = {"n": 1000, "median_identity": 0.5, "share_95": 0.1, "share_90": 0.1, "share_80": 0.1}


def figures(**changes: Any) -> dict[str, Any]:
    """Return figures with which nothing is wrong."""
    return {
        "n": 1000, "rmse": 0.5, "mae": 0.4, "spearman": 0.9, "label_sd": 1.4, "prediction_sd": 1.3,
        "bins": {name: dict(BIN) for name in BINS},
        "intervals": {"rmse": [0.45, 0.55], "by": "clusters", "n_clusters": 40, "bins": {}},
        **changes,
    }  # fmt: skip


def metrics(**changes: Any) -> dict[str, Any]:
    criterion = {"metric": "rmse", "threshold": 1.2, "value": 0.5, "met": True}
    return {
        "train": {"n": 5000, "bins": dict.fromkeys(BINS, 1000)},
        "test": figures(),
        "baselines": {"training_mean": {"rmse": 1.4}, "source_mean": None, "ridge": {"rmse": 0.8}},
        "leakage": {
            "known": True, "why": "", "heavy": CHAIN, "light": CHAIN, "antigen": CHAIN,
            "near_twins": {"n_test_rows": 10, "share": 0.01}, "exact_pairs": {"n_test_rows": 0, "share": 0.0},
        },
        "labels": {"fitted_as_measured": 0, "taken_as_bounds": 0, "left_out": 0},
        "audit": {"findings": [], "suspected_floors_in_training": 0},
        "criteria": {"rows": "all", "levels": {level: [criterion] for level in ("minimum", "target", "stretch")}},
        "diagnosis": [],
        "calibration": {"level": 0.9, "coverage": {"measured": None, "censored": None, "bins": {}}},
        **changes,
    }  # fmt: skip


CONFIG = {"split": {"kind": "pair"}, "features": {"sites": {"kind": "sites"}}}
ENVIRONMENT: dict[str, Any] = {"n_read": 5000, "dropped": {"no pKd": 0}}


def told(*, config: Any = CONFIG, environment: Any = ENVIRONMENT, **changes: Any) -> str:
    return "\n".join(limits(metrics(**changes), config, environment))


def with_bin(name: str, **changes: Any) -> dict[str, Any]:
    return figures(bins={**figures()["bins"], name: {**BIN, **changes}})


def leakage(**changes: Any) -> dict[str, Any]:
    return {**metrics()["leakage"], **changes}


MISSED = {"metric": "rmse", "threshold": 1.2, "value": 1.31, "met": False}
UNJUDGED = {"metric": "very_strong.rmse", "threshold": 2.0, "value": None, "met": None}


def test_nothing_is_said_of_a_run_with_which_nothing_is_wrong() -> None:
    assert told() == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"criteria": {"rows": "all", "levels": {"minimum": [MISSED, UNJUDGED], "target": [MISSED], "stretch": []}}},
            "**Misses the minimum criteria** of the training notebook: RMSE 1.310 (to be below 1.2).\n"
            "- **Not judged**, for there are no such test rows: Very strong RMSE.",
        ),
        ({"test": figures(rmse=0.9)}, "**No better than ridge**: its RMSE is 0.900, that of ridge 0.800"),
        (
            {"test": figures(rmse=0.7, intervals={"rmse": [0.6, 0.85], "by": "clusters", "bins": {}})},
            "**Not surely better than ridge**: 0.800, the RMSE of ridge, is within the interval of its "
            "own, 0.600 to 0.850",
        ),
        (
            {"train": {"n": 5, "bins": {**dict.fromkeys(BINS, 1000), "very_strong": 0}}},
            "**Very strong (≥ 11)**: no training rows, so that nothing was learned here.",
        ),
        (
            {"train": {"n": 5, "bins": {**dict.fromkeys(BINS, 1000), "very_weak": 1}}},
            "**Very weak (< 5)**: 1 training row only.",
        ),
        ({"test": with_bin("strong", n=4)}, "**Strong (9–11)**: judged by 4 test rows only."),
        (
            {"test": figures(bins={**figures()["bins"], "strong": None})},
            "**Strong (9–11)**: no test rows, so that the error is unknown.",
        ),
        (
            {"test": with_bin("very_strong", rmse=1.9, bias=-1.2)},
            "**Very strong (≥ 11)**: RMSE 1.900, overall 0.500; predicted 1.20 pKd too weak on average.",
        ),
        ({"test": with_bin("very_weak", bias=0.6)}, "predicted 0.60 pKd too strong on average"),
        (
            {"test": figures(prediction_sd=0.5)},
            "**Drawn to the mean**: predictions have an SD of 0.50 pKd, labels of 1",
        ),
        (
            {"leakage": {"known": False, "why": "the table has no sequences"}},
            "**How new the test rows are is unknown**: the table has no sequences.",
        ),
        (
            {"leakage": leakage(near_twins={"n_test_rows": 990, "share": 0.99})},
            "**New antibodies**: 99 % of the test rows are at least 95 % identical to training in every antibody chain "
            "(split: pair)",
        ),
        (
            {"leakage": leakage(exact_pairs={"n_test_rows": 24, "share": 0.024})},
            "**Repeats**: 24 test rows (2.4 %) have their exact pair in training",
        ),
        ({"leakage": leakage(antigen=None)}, "**New antigens**: without antigen sequences in the test rows"),
        (
            {"leakage": leakage(antigen={**CHAIN, "share_95": 1.0})},
            "**New antigens**: 100 % of the test rows' antigens are at least 95 % identical to one of training.",
        ),
        (
            {"labels": {"fitted_as_measured": 1234, "taken_as_bounds": 0, "left_out": 0}},
            "**Bounds taken for measurements**: 1,234 training labels",
        ),
        ({"labels": {"fitted_as_measured": 0, "taken_as_bounds": 9, "left_out": 0}}, "**Bounds**: 9 training labels"),
        ({"labels": {"fitted_as_measured": 0, "taken_as_bounds": 0, "left_out": 9}}, "**Bounds left out**: 9 training"),
        (
            {"audit": {"findings": [], "suspected_floors_in_training": 55}},
            "**Suspected detection limits**: 55 training labels",
        ),
        ({"audit": None}, "**The table was not audited**"),
        (
            {
                "audit": {
                    "suspected_floors_in_training": 0,
                    "findings": [
                        {"rule": "unit_shift", "severity": "error", "n_rows": 40},
                        {"rule": "unit_shift", "severity": "error", "n_rows": 2},
                        {"rule": "constant_antigen", "severity": "info", "n_rows": 9},
                    ],
                }
            },
            "of which training left nothing out: unit shift (42 rows).",
        ),
        ({"test": figures(n=60)}, "**Few test rows**: all figures are of 60 test rows."),
        (
            {"test": figures(intervals={"rmse": [0.45, 0.55], "by": "rows", "bins": {}})},
            "**The intervals of these figures are too narrow** where rows are relatives",
        ),
        ({"calibration": None}, "**No error bars**: predictions come without calibrated intervals."),
        (
            {
                "calibration": {
                    "level": 0.9,
                    "coverage": {
                        "measured": {"n": 500, "coverage": 0.86},
                        "censored": None,
                        "bins": {
                            "very_weak": {"n": 29, "coverage": 0.5},
                            "strong": {"n": 80, "coverage": 0.84},
                            "very_strong": None,
                        },
                    },
                }
            },
            "**Intervals that hold less than their 90 %** of the test rows: bin strong 84 % of 80.",
        ),
        ({"diagnosis": [{"symptom": "overfitting", "evidence": "It grows."}]}, "**Overfitting**: It grows."),
        (
            {"environment": {"n_read": 5000, "dropped": {"no pKd": 7, "features are empty": 1500}}},
            "**Rows left out** of the 5,000 read: 7 (no pKd), 1,500 (features are empty).",
        ),
        (
            {"config": {**CONFIG, "features": {"columns": {"kind": "columns"}}}},
            "**Needs its feature columns**",
        ),
        (
            {"config": {**CONFIG, "features": {"source": {"kind": "category", "column": "lab"}}}},
            "**Needs the column lab**",
        ),
    ],
)
def test_a_rule_speaks_of_its_figures_and_no_other_rule_does(changes: dict[str, Any], words: str) -> None:
    said = told(**changes)
    assert words in said.replace("\n**", "\n- **")
    assert said.count("\n") == words.count("\n")


def test_figures_of_measured_rows_are_taken_where_the_run_is_judged_by_them() -> None:
    measured = {**figures(n=60), "intervals": figures()["intervals"]}
    criteria = {**metrics()["criteria"], "rows": "measured"}
    baselines = {
        "training_mean": {"measured": {"rmse": 1.4}},
        "source_mean": None,
        "ridge": {"measured": {"rmse": 0.8}},
    }
    said = told(test=figures(measured=measured), criteria=criteria, baselines=baselines)
    assert said == "**Few test rows**: all figures are of 60 measured test rows."
