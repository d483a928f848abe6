import pytest
import torch
from torch import Tensor

from tailbind.training.losses import FocalMse, WeightedMse

MEASURED = torch.tensor([7.0, 7.0, 7.0, 7.0], dtype=torch.float64)
ERROR = torch.tensor([0.0, 0.5, -1.0, 2.0], dtype=torch.float64)
WEIGHT = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.float64)


def slopes(loss: object, error: Tensor = ERROR) -> list[float]:
    predicted = (MEASURED[: len(error)] + error).requires_grad_()
    loss(predicted, MEASURED[: len(error)], WEIGHT[: len(error)]).sum().backward()  # type: ignore[operator]
    assert predicted.grad is not None
    return predicted.grad.tolist()  # type: ignore[no-any-return]


def test_weighted_mse_by_hand() -> None:
    loss = WeightedMse()
    assert loss(MEASURED + ERROR, MEASURED, WEIGHT).tolist() == [0.0, 0.5, 3.0, 2.0]
    assert slopes(loss) == [0.0, 2.0, -6.0, 2.0]


@pytest.mark.parametrize(
    ("gamma", "values"),
    [
        # weight · e² · (1 + (e²)^(gamma/2)), by hand
        (0.0, [0.0, 1.0, 6.0, 4.0]),
        (1.0, [0.0, 2 * 0.25 * 1.5, 6.0, 0.5 * 4 * 3]),
        (2.0, [0.0, 2 * 0.25 * 1.25, 6.0, 0.5 * 4 * 5]),
        (4.0, [0.0, 2 * 0.25 * 1.0625, 6.0, 0.5 * 4 * 17]),
    ],
)
def test_focal_mse_by_hand(gamma: float, values: list[float]) -> None:
    assert FocalMse(gamma)(MEASURED + ERROR, MEASURED, WEIGHT).tolist() == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.9, 2.0, 2.1, 4.0, 8.0])
def test_focal_slopes_by_hand(gamma: float) -> None:
    # d/de of w (e² + |e|^(2 + gamma)) = w (2 e + (2 + gamma) |e|^(1 + gamma) sign e)
    expected = WEIGHT * (2 * ERROR + (2 + gamma) * ERROR.abs() ** (1 + gamma) * ERROR.sign())
    assert slopes(FocalMse(gamma)) == pytest.approx(expected.tolist(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_an_exact_prediction_has_no_slope_and_no_nan(gamma: float) -> None:
    assert slopes(FocalMse(gamma), torch.zeros(2, dtype=torch.float64)) == [0.0, 0.0]


def test_gamma_0_doubles_the_squared_error() -> None:
    doubled = 2 * WeightedMse()(MEASURED + ERROR, MEASURED, WEIGHT)
    assert FocalMse(0.0)(MEASURED + ERROR, MEASURED, WEIGHT).tolist() == pytest.approx(doubled.tolist(), abs=1e-9)


def test_the_special_case_of_gamma_2_agrees_with_its_neighbours() -> None:
    at_2 = FocalMse(2.0)(MEASURED + ERROR, MEASURED, WEIGHT)
    beside = FocalMse(2.0 + 1e-9)(MEASURED + ERROR, MEASURED, WEIGHT)
    assert at_2.tolist() == pytest.approx(beside.tolist(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("loss", [WeightedMse(), FocalMse()], ids=["mse", "focal"])
def test_a_row_that_weighs_nothing_costs_and_teaches_nothing(loss: object) -> None:
    predicted = (MEASURED + ERROR).requires_grad_()
    values = loss(predicted, MEASURED, torch.zeros_like(WEIGHT))  # type: ignore[operator]
    values.sum().backward()
    assert values.tolist() == [0.0] * 4
    assert predicted.grad is not None
    assert predicted.grad.tolist() == [0.0] * 4


def test_the_defaults_are_the_seeds() -> None:
    assert FocalMse() == FocalMse(gamma=2.0, weights="inverse", extreme_factor=10.0)
    assert WeightedMse() == WeightedMse(weights="inverse", extreme_factor=1.0)
