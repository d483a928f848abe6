from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from torch import Tensor

from tailbind.errors import RecipeError
from tailbind.models.mlp import Mlp
from tailbind.options import read_options
from tailbind.training import LOSSES
from tailbind.training.loop import Trainer
from tailbind.training.losses import (
    SMALLEST_SIGMA,
    BoundedFocal,
    CensoredMse,
    FocalMse,
    Huber,
    NormalNoise,
    Tobit,
    WeightedMse,
    negative_log_likelihood,
    residual,
    sides,
)
from tailbind.training.schedule import AdamW, Constant, CosineRestarts
from tailbind.training.stages import Stage, TrainingOptions

MEASURED = torch.tensor([7.0, 7.0, 7.0, 7.0], dtype=torch.float64)
ERROR = torch.tensor([0.0, 0.5, -1.0, 2.0], dtype=torch.float64)
WEIGHT = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.float64)
EXACT = torch.zeros(4, dtype=torch.float64)


def slopes(loss: object, error: Tensor = ERROR) -> list[float]:
    predicted = (MEASURED[: len(error)] + error).requires_grad_()
    loss(predicted, MEASURED[: len(error)], WEIGHT[: len(error)], EXACT[: len(error)]).sum().backward()  # type: ignore[operator]
    assert predicted.grad is not None
    return predicted.grad.tolist()  # type: ignore[no-any-return]


def test_weighted_mse_by_hand() -> None:
    loss = WeightedMse()
    assert loss(MEASURED + ERROR, MEASURED, WEIGHT, EXACT).tolist() == [0.0, 0.5, 3.0, 2.0]
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
    assert FocalMse(gamma=gamma)(MEASURED + ERROR, MEASURED, WEIGHT, EXACT).tolist() == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.9, 2.0, 2.1, 4.0, 8.0])
def test_focal_slopes_by_hand(gamma: float) -> None:
    # d/de of w (e² + |e|^(2 + gamma)) = w (2 e + (2 + gamma) |e|^(1 + gamma) sign e)
    expected = WEIGHT * (2 * ERROR + (2 + gamma) * ERROR.abs() ** (1 + gamma) * ERROR.sign())
    assert slopes(FocalMse(gamma=gamma)) == pytest.approx(expected.tolist(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    "loss",
    [WeightedMse(), CensoredMse(), CensoredMse(bound_weight=0.3), *(FocalMse(gamma=gamma) for gamma in (0, 0.5, 2, 4))],
)
@given(arrays(np.float64, (3, 5), elements=st.floats(-6, 6)), arrays(np.int8, 5, elements=st.integers(-1, 1)))
def test_slopes_written_out_are_those_of_automatic_differentiation(
    loss: WeightedMse | CensoredMse | FocalMse, error: np.ndarray, side: np.ndarray
) -> None:
    """For one prediction a row, and for several."""
    weight, measured = torch.arange(5.0, dtype=torch.float64), torch.linspace(4, 12, 5, dtype=torch.float64)
    predicted = (measured + torch.from_numpy(error)).requires_grad_()
    of_rows = measured, weight, torch.from_numpy(side.astype(np.float64))
    values = loss(predicted, *of_rows)
    (expected,) = torch.autograd.grad(values.sum(), predicted)
    found, slopes_found = loss.with_slopes(predicted.detach(), *of_rows)
    assert torch.allclose(found, values.detach(), rtol=1e-6, atol=1e-9)
    # Below an error of 1e-6 the focal loss is taken as a parabola, whose slope differs by less than that.
    assert torch.allclose(slopes_found, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_an_exact_prediction_has_no_slope_and_no_nan(gamma: float) -> None:
    assert slopes(FocalMse(gamma=gamma), torch.zeros(2, dtype=torch.float64)) == [0.0, 0.0]


def test_gamma_0_doubles_the_squared_error() -> None:
    doubled = 2 * WeightedMse()(MEASURED + ERROR, MEASURED, WEIGHT, EXACT)
    assert FocalMse(gamma=0.0)(MEASURED + ERROR, MEASURED, WEIGHT, EXACT).tolist() == pytest.approx(
        doubled.tolist(), abs=1e-9
    )


def test_the_special_case_of_gamma_2_agrees_with_its_neighbours() -> None:
    at_2 = FocalMse(gamma=2.0)(MEASURED + ERROR, MEASURED, WEIGHT, EXACT)
    beside = FocalMse(gamma=2.0 + 1e-9)(MEASURED + ERROR, MEASURED, WEIGHT, EXACT)
    assert at_2.tolist() == pytest.approx(beside.tolist(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("loss", [WeightedMse(), FocalMse()], ids=["mse", "focal"])
def test_a_row_that_weighs_nothing_costs_and_teaches_nothing(loss: object) -> None:
    predicted = (MEASURED + ERROR).requires_grad_()
    values = loss(predicted, MEASURED, torch.zeros_like(WEIGHT), EXACT)  # type: ignore[operator]
    values.sum().backward()
    assert values.tolist() == [0.0] * 4
    assert predicted.grad is not None
    assert predicted.grad.tolist() == [0.0] * 4


def test_the_defaults_are_the_seeds() -> None:
    assert FocalMse() == FocalMse(gamma=2.0, weights="inverse", extreme_factor=10.0)
    assert WeightedMse() == WeightedMse(weights="inverse", extreme_factor=1.0)
    assert Tobit() == Tobit(sigma=0.2, initial_sigma=1.0, weights="none", extreme_factor=1.0)


@pytest.mark.parametrize("loss", [WeightedMse(), FocalMse()], ids=["mse", "focal"])
def test_squared_errors_take_a_bound_as_measured_and_say_so(loss: WeightedMse | FocalMse) -> None:
    sided = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    assert torch.equal(loss(MEASURED + ERROR, MEASURED, WEIGHT, sided), loss(MEASURED + ERROR, MEASURED, WEIGHT, EXACT))
    assert not loss.takes_bounds
    assert "Every label counts as measured" in (type(loss).__doc__ or "")
    assert Tobit.takes_bounds


# --- the likelihood of bounds ------------------------------------------------------------------------

#: Errors in sigmas from far on the wrong side to far on the right one.
FAR = torch.linspace(-30, 30, 121, dtype=torch.float64)


def expected(z: np.ndarray, side: int, sigma: float) -> np.ndarray:
    """Return the negative log likelihood by SciPy; z = (measured − predicted) / sigma."""
    if side == 0:
        return -stats.norm.logpdf(z * sigma, scale=sigma)
    return -stats.norm.logcdf(z if side < 0 else -z)


def likelihood(z: Tensor, side: int, sigma: Tensor) -> Tensor:
    return negative_log_likelihood(7.0 - z * sigma, torch.full_like(z, 7.0), torch.full_like(z, side), sigma)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 3.0])
@pytest.mark.parametrize("side", [-1, 0, 1])
def test_the_likelihood_is_scipys_out_to_30_sigma(side: int, sigma: float) -> None:
    values = likelihood(FAR, side, torch.tensor(sigma, dtype=torch.float64))
    np.testing.assert_allclose(values.numpy(), expected(FAR.numpy(), side, sigma), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 3.0])
@pytest.mark.parametrize("side", [-1, 0, 1])
def test_its_slopes_are_scipys_numerical_ones(side: int, sigma: float) -> None:
    predicted = (7.0 - FAR * sigma).requires_grad_()
    spread = torch.tensor(sigma, dtype=torch.float64, requires_grad=True)
    measured, sided = torch.full_like(FAR, 7.0), torch.full_like(FAR, side)
    values = negative_log_likelihood(predicted, measured, sided, spread)
    (by_prediction,) = torch.autograd.grad(values.sum(), predicted, retain_graph=True)

    def scipys(mu: np.ndarray, s: float) -> np.ndarray:
        return expected((7.0 - mu) / s, side, s)

    mu, step = predicted.detach().numpy(), 1e-5 * sigma
    numerical = (scipys(mu + step, sigma) - scipys(mu - step, sigma)) / (2 * step)
    np.testing.assert_allclose(by_prediction.numpy(), numerical, rtol=1e-5, atol=1e-5 / sigma)
    by_sigma = [float(torch.autograd.grad(value, spread, retain_graph=True)[0]) for value in values]
    numerical = (scipys(mu, sigma + step) - scipys(mu, sigma - step)) / (2 * step)
    np.testing.assert_allclose(by_sigma, numerical, rtol=1e-4, atol=1e-4 / sigma)


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_single_precision_is_finite_and_pulls_back_from_far_out(side: float) -> None:
    # 30 sigma beyond the bound, where Φ itself is 0 in single precision: the slope is about z / sigma = 30.
    predicted = torch.tensor([7.0 - 30 * side, 7.0 + 30 * side], requires_grad=True)
    loss = Tobit(sigma=1.0).build()
    values = loss(predicted, torch.full((2,), 7.0), torch.ones(2), torch.full((2,), side))
    values.sum().backward()
    assert values[0].item() == pytest.approx(-stats.norm.logcdf(-30.0), rel=1e-5)
    assert predicted.grad is not None
    assert predicted.grad[0].item() == pytest.approx(-side * (30 + 1 / 30), rel=1e-3)
    assert values[1].item() == predicted.grad[1].item() == 0.0


def test_the_row_s_weight_multiplies_its_likelihood() -> None:
    loss = Tobit(sigma=0.5).build()
    sided = torch.tensor([0.0, -1.0, 1.0, 0.0], dtype=torch.float64)
    once = loss(MEASURED + ERROR, MEASURED, torch.ones_like(WEIGHT), sided)
    assert torch.allclose(loss(MEASURED + ERROR, MEASURED, WEIGHT, sided), WEIGHT * once)


def test_sides_are_read_from_the_relation() -> None:
    assert sides(np.array(["=", "<", ">", "="])).tolist() == [0, -1, 1, 0]


def test_a_fixed_noise_is_no_parameter_and_a_learned_one_starts_where_asked() -> None:
    fixed, learned = Tobit(sigma=0.3).build(), Tobit(sigma=0.0, initial_sigma=0.7).build()
    assert (list(fixed.parameters()), len(list(learned.parameters()))) == ([], 1)
    assert float(fixed.sigma) == pytest.approx(0.3)
    assert float(learned.sigma.detach()) == pytest.approx(0.7)
    other = Tobit(sigma=0.0).build()
    other.load_state_dict(learned.state_dict())
    assert float(other.sigma.detach()) == pytest.approx(0.7)


def test_a_learned_noise_stays_above_the_smallest() -> None:
    noise = NormalNoise(1.0, learned=True)
    with torch.no_grad():
        noise.log_excess.fill_(-80.0)
    assert float(noise.sigma.detach()) == pytest.approx(SMALLEST_SIGMA)
    value = noise(torch.tensor([7.0]), torch.tensor([7.0]), torch.ones(1), torch.zeros(1))
    assert torch.isfinite(value).all()


def test_its_options_are_read_and_bounded() -> None:
    cls = LOSSES.load("tobit")
    assert asdict(read_options(cls, {"sigma": 0.4, "weights": "inverse"}, "loss")) == {
        "sigma": 0.4, "initial_sigma": 1.0, "weights": "inverse", "extreme_factor": 1.0, "cap": 0.0, "beta": 0.9999,
        "smoothing_sigma": 0.0, "smoothing_width": 0.1, "smoothing_reach": 3.0,
    }  # fmt: skip
    with pytest.raises(RecipeError, match=r"loss.sigma must be at least 0 and at most 100; got -1"):
        read_options(cls, {"sigma": -1.0}, "loss")
    with pytest.raises(RecipeError, match=r"loss.initial_sigma must be at most 100 and above 0.01; got 0"):
        read_options(cls, {"initial_sigma": 0.0}, "loss")


# --- what a network learns from bounds ---------------------------------------------------------------


def simulated(noise: float, share: float, n: int = 3000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return features, labels with a floor under a share of them, relations, and the truth: linear in the features."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    truth = 7.0 + X @ np.array([1.0, -0.8, 0.5, 0.0])
    measured = truth + rng.normal(0, noise, n)
    floor = np.quantile(measured, share)
    below = measured < floor
    return X, np.where(below, floor, measured), np.where(below, "<", "="), truth


def fitted(X: np.ndarray, y: np.ndarray, relation: np.ndarray, loss: WeightedMse | Tobit, lr: float = 3e-3) -> Trainer:
    train, validation = np.arange(2400), np.arange(2400, len(y))
    options = TrainingOptions(epochs=30, batch_size=64, clip_grad_norm=1.0, seed=0)
    stages = [Stage("all rows", train, options.epochs, AdamW(lr), CosineRestarts(t_0=options.epochs, min_lr=1e-5))]
    # Without BatchNorm, whose batch statistics scatter the training predictions and so count as noise.
    network = Mlp((32,), dropout=0.0, batch_norm=False).build(X.shape[1], 0)
    learner = Trainer(network, X, y, relation, np.ones(len(y)), validation, stages, loss, options)
    learner.run(lambda _: None)
    return learner


@pytest.mark.parametrize("noise", [0.2, 0.5])
def test_the_learned_noise_is_that_of_the_labels(noise: float) -> None:
    X, y, relation, _ = simulated(noise, share=0.4)
    learned = fitted(X, y, relation, Tobit(sigma=0.0)).best_noise()
    assert learned is not None
    assert learned[0] == pytest.approx(noise, rel=0.15)


def test_a_noise_is_learned_long_before_a_slow_network() -> None:
    # At v2's learning rate the logarithm of the noise would need 16,000 steps from 1 to 0.2 at the weights' pace.
    rng = np.random.default_rng(0)
    X, y = np.zeros((3200, 1), np.float32), rng.normal(0, 0.2, 3200)
    options = TrainingOptions(epochs=40, batch_size=64, seed=0)
    stages = [Stage("all rows", np.arange(3200), options.epochs, AdamW(1e-4), Constant())]
    network = Mlp((2,), dropout=0.0, batch_norm=False).build(1, 0)
    learner = Trainer(
        network, X, y, np.full(3200, "="), np.ones(3200), np.arange(3200), stages, Tobit(sigma=0.0), options
    )  # right from the start: it predicts 0
    learner.run(lambda _: None)
    noise = learner.noise()
    assert noise is not None
    assert noise[0] == pytest.approx(0.2, rel=0.05)


def test_below_a_floor_tobit_predicts_below_and_squared_error_at_it() -> None:
    X, y, relation, truth = simulated(0.2, share=0.6)
    rows = np.arange(2400, len(y))
    censored = relation[rows] == "<"
    errors = {}
    for name, loss in (("tobit", Tobit(sigma=0.0)), ("mse", WeightedMse(weights="none"))):
        learner = fitted(X, y, relation, loss)
        for member, best in zip(learner.network.members, learner.best_weights, strict=True):
            member.load_state_dict(best)
        below = learner.network.predict(X, rows)[censored]
        errors[name] = float(np.sqrt(np.mean((below - truth[rows][censored]) ** 2)))
        distance = float(np.median(below - y.min()))
        assert (distance < -0.5) if name == "tobit" else (abs(distance) < 0.1), name
    assert errors["tobit"] < 0.5 * errors["mse"]


# --- losses of single rows beside the notebook's ------------------------------------------------------

#: 0, ½, −1 and 2 off labels of 7 that are: measured, a bound from above, a bound from above, a bound from below.
SIDED = torch.tensor([0.0, -1.0, -1.0, 1.0], dtype=torch.float64)


def test_the_residual_beyond_a_bound() -> None:
    assert residual(MEASURED + ERROR, MEASURED, SIDED).tolist() == [0.0, 0.5, 0.0, 0.0]
    assert residual(MEASURED - ERROR, MEASURED, SIDED).tolist() == [0.0, 0.0, 1.0, -2.0]


def test_censored_mse_by_hand() -> None:
    loss = CensoredMse()
    assert loss(MEASURED + ERROR, MEASURED, WEIGHT, SIDED).tolist() == [0.0, 0.5, 0.0, 0.0]
    assert loss(MEASURED - ERROR, MEASURED, WEIGHT, SIDED).tolist() == [0.0, 0.0, 3.0, 2.0]
    plain = WeightedMse()(MEASURED + ERROR, MEASURED, WEIGHT, EXACT)
    assert torch.equal(loss(MEASURED + ERROR, MEASURED, WEIGHT, EXACT), plain)


@pytest.mark.parametrize("delta", [0.25, 0.5, 1.0, 10.0])
def test_huber_is_twice_pytorchs(delta: float) -> None:
    ours = Huber(delta=delta)(MEASURED + ERROR, MEASURED, WEIGHT, EXACT)
    theirs = 2 * WEIGHT * torch.nn.functional.huber_loss(MEASURED + ERROR, MEASURED, reduction="none", delta=delta)
    assert ours.tolist() == pytest.approx(theirs.tolist())


def test_huber_by_hand() -> None:
    # e² up to 1, beyond it 2 e − 1: 2 gives 3, at weight ½.
    assert Huber()(MEASURED + ERROR, MEASURED, WEIGHT, EXACT).tolist() == [0.0, 0.5, 3.0, 1.5]
    assert slopes(Huber()) == [0.0, 2.0, -6.0, 1.0]


def test_bounded_focal_by_hand() -> None:
    loss = BoundedFocal(bonus=3.0, scale=0.5)
    expected = WEIGHT * ERROR**2 * (1 + 3 * (1 - torch.exp(-((ERROR / 0.5) ** 2))))
    assert loss(MEASURED + ERROR, MEASURED, WEIGHT, EXACT).tolist() == pytest.approx(expected.tolist())


def test_the_bounded_factor_grows_from_1_to_its_bound_and_the_notebooks_does_not_stop() -> None:
    error = torch.linspace(0.01, 50, 2000, dtype=torch.float64)
    ones, zeros = torch.ones_like(error), torch.zeros_like(error)
    factor = BoundedFocal(bonus=3.0)(error, zeros, ones, zeros) / error**2
    assert (factor.diff() >= 0).all()
    assert factor[0] == pytest.approx(1, abs=1e-3)
    assert factor.max() <= 4
    assert factor[-1] == pytest.approx(4)
    assert (FocalMse()(error, zeros, ones, zeros) / error**2)[-1] == pytest.approx(2501)


def test_the_defaults_of_losses_that_take_bounds_are_one_sided_and_unweighted() -> None:
    for loss in (CensoredMse(), Huber(), BoundedFocal()):
        assert (loss.weights, loss.extreme_factor, loss.takes_bounds) == ("none", 1.0, True)
    with pytest.raises(RecipeError, match=r"loss\.bounds must be one of one_sided, measured; got 'both'"):
        read_options(LOSSES.load("huber"), {"bounds": "both"}, "loss")
