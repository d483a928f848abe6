"""What intervals held, and which probabilities came true, by hand."""

import numpy as np
import pytest

from tailbind.evaluation.calibration import Applied
from tailbind.evaluation.coverage import came_true, coverage, covered, interval_columns, reliability

RELATION = np.array(["=", "=", "<", "<", ">", ">"])


def test_bounds_are_held_where_the_interval_reaches_beyond() -> None:
    low, high = np.array([4.0, 4.0, 5.0, 6.5, 8.0, 8.0]), np.array([6.0, 6.0, 7.0, 8.0, 10.5, 9.5])
    y = np.array([5.0, 6.1, 6.0, 6.0, 10.0, 10.0])
    assert covered(low, high, y, RELATION).tolist() == [True, False, True, False, True, False]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # labels = 4, = 9.5, < 4.5, < 9.5, > 9.5, > 8
        ("p_below_5", [1, 0, 1, np.nan, 0, 0]),
        ("p_above_9", [0, 1, 0, np.nan, 1, np.nan]),
        ("p_above_11", [0, 0, 0, 0, np.nan, np.nan]),
    ],
)
def test_what_came_true(name: str, expected: list[float]) -> None:
    found = came_true(name, np.array([4.0, 9.5, 4.5, 9.5, 9.5, 8.0]), RELATION)
    assert np.array_equal(found, expected, equal_nan=True)


def test_coverage_by_kinds_of_rows() -> None:
    y, low = np.array([4.0, 6.0, 6.0, 8.0]), np.array([3.0, 5.0, 6.5, 0.0])
    relation = np.array(["=", "=", "=", "<"])
    found = coverage(low, low + 2, y, relation, {"sources": np.array(["a", "b", "b", "a"])})
    assert found["measured"] == {"n": 3, "coverage": pytest.approx(2 / 3), "width": 2.0, "median_width": 2.0}
    assert found["censored"]["coverage"] == 1.0
    assert found["bins"]["weak"]["coverage"] == 0.5
    assert found["bins"]["strong"] is None
    assert {name: entry["n"] for name, entry in found["sources"].items()} == {"a": 1, "b": 2}


def test_an_open_interval_has_no_width() -> None:
    found = coverage(np.array([-np.inf]), np.array([np.inf]), np.array([8.0]), np.array(["="]), {})
    assert found["measured"] == {"n": 1, "coverage": 1.0, "width": None, "median_width": None}


def test_reliability_leaves_out_what_a_bound_hides() -> None:
    found = reliability(np.array([0.05, 0.05, 0.95, 0.95]), np.array([0.0, 1.0, 1.0, np.nan]))
    assert found["n"] == 3
    assert found["steps"][0] == {"n": 2, "probability": pytest.approx(0.05), "share": 0.5}
    assert found["ece"] == pytest.approx((2 * 0.45 + 0.05) / 3)
    assert reliability(np.empty(0), np.empty(0)) == {"n": 0, "ece": None, "steps": []}


def test_the_columns_of_predictions() -> None:
    scores = {-1: np.linspace(-2, 2, 401)}
    sure = Applied(np.array([8.0]), np.array([1.0]), np.array([-1]), scores, (np.empty(0), np.empty(0)), 0.9)
    found = interval_columns(sure)
    assert list(found) == ["pkd_low", "pkd_high", "p_below_5", "p_above_9", "p_above_11"]
    assert found["pkd_low"][0] == pytest.approx(6.2, abs=0.02)
    assert found["p_above_9"][0] == pytest.approx(0.25, abs=0.01)
    assert found["p_below_5"][0] < 0.005
    assert interval_columns(sure, 0.5)["pkd_high"][0] == pytest.approx(9.0, abs=0.02)
