import numpy as np
import pytest

from tailbind.evaluation.metrics import macro_rmse, rmse
from tailbind.training.selection import CRITERIA, validation_score

Y = np.array([4.0, 6.0, 6.5, 8.0, 8.5, 12.0])
PREDICTED = np.array([4.5, 6.0, 6.0, 8.0, 9.5, 10.0])
MEASURED = np.zeros(6, np.float32)
#: The second and third labels are bounds from above, the last one from below.
SIDE = np.array([0, -1, -1, 0, 0, 1], np.float32)


def test_measured_rows_by_the_metrics() -> None:
    assert validation_score("rmse", Y, PREDICTED, MEASURED) == rmse(Y, PREDICTED)
    assert validation_score("macro_rmse", Y, PREDICTED, MEASURED) == pytest.approx(macro_rmse(Y, PREDICTED))
    expected = (rmse(Y, PREDICTED) + macro_rmse(Y, PREDICTED)) / 2
    assert validation_score("balanced", Y, PREDICTED, MEASURED) == pytest.approx(expected)


def test_bounds_by_hand() -> None:
    # Errors ½, 0, 0 (6.0 is below 6.5), 0, 1 and −2 (10 is not above 12).
    assert validation_score("rmse", Y, PREDICTED, SIDE) == pytest.approx(np.sqrt(5.25 / 6))
    # Bins of measured rows: very weak ½, moderate √½; the bounds: √(4/3).
    macro = (0.5 + np.sqrt(0.5) + np.sqrt(4 / 3)) / 3
    assert validation_score("macro_rmse", Y, PREDICTED, SIDE) == pytest.approx(macro)
    assert validation_score("balanced", Y, PREDICTED, SIDE) == pytest.approx((np.sqrt(5.25 / 6) + macro) / 2)


def test_many_bounds_do_not_drown_the_measured_rows_of_their_bin() -> None:
    y = np.concatenate([[6.0, 8.0], np.full(1000, 6.0)])
    predicted = np.concatenate([[7.0, 8.0], np.full(1000, 5.0)])
    side = np.concatenate([[0, 0], np.full(1000, -1)]).astype(np.float32)
    assert validation_score("macro_rmse", y, predicted, side) == pytest.approx((1 + 0 + 0) / 3)
    assert validation_score("rmse", y, predicted, side) == pytest.approx(np.sqrt(1 / 1002))


@pytest.mark.parametrize("criterion", CRITERIA[1:])
def test_bounds_alone_can_be_judged_and_a_perfect_prediction_scores_0(criterion: str) -> None:
    side = np.full(6, -1, np.float32)
    assert validation_score(criterion, Y, Y + 1, side) == pytest.approx(1)
    assert validation_score(criterion, Y, Y - 1, side) == 0
    assert validation_score(criterion, Y, Y, MEASURED) == 0
