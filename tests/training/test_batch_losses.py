import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from tailbind.models.mlp import Mlp
from tailbind.training.batch_losses import (
    BalancedMse,
    Concordant,
    Ranked,
    balanced_squared_error,
    certainly_stronger,
    concordance_correlation,
    pairwise_loss,
)
from tailbind.training.loop import Trainer
from tailbind.training.losses import BoundedFocal, CensoredMse, Huber, WeightedMse
from tailbind.training.member import own_loss
from tailbind.training.results import EpochResult
from tailbind.training.schedule import AdamW, OneCycle
from tailbind.training.stages import TrainingOptions, plan_stages

CPU = torch.device("cpu")
Y = torch.tensor([5.0, 6.5, 6.5, 8.0, 12.0], dtype=torch.float64)
PREDICTED = torch.tensor([5.5, 6.0, 7.0, 8.5, 9.0], dtype=torch.float64)
WEIGHT = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0], dtype=torch.float64)
EXACT = torch.zeros(5, dtype=torch.float64)
#: One row below its label, one above.
MIXED = torch.tensor([0.0, -1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
ALL = torch.ones(5, dtype=torch.bool)
LOSSES = {
    "balanced_mse": BalancedMse(),
    "concordant": Concordant(),
    "ranked": Ranked(),
    "huber": Huber(delta=0.7),
    "bounded_focal": BoundedFocal(),
    "censored_mse": CensoredMse(),
}


def built(loss: object) -> nn.Module:
    return own_loss(loss, CPU)  # type: ignore[arg-type,return-value]


# --- balanced MSE ------------------------------------------------------------------------------------


def test_balanced_mse_is_the_cross_entropy_of_the_paper_s_code() -> None:
    # bmc_loss of Ren et al.: logits −(predicted − target')² / (2 var), cross entropy with the diagonal, times 2 var.
    variance = 0.6**2
    logits = -(PREDICTED[:, None] - Y[None, :]).square() / (2 * variance)
    theirs = nn.functional.cross_entropy(logits, torch.arange(5), reduction="none") * 2 * variance
    ours = balanced_squared_error(PREDICTED, Y, torch.tensor(0.6, dtype=torch.float64), ALL)
    assert ours.tolist() == pytest.approx(theirs.tolist())
    loss = built(BalancedMse(sigma=0.6)).double()
    assert loss(PREDICTED, Y, WEIGHT, EXACT).tolist() == pytest.approx((WEIGHT * theirs).tolist(), rel=1e-6)


def test_balanced_mse_by_hand() -> None:
    # Labels 0 and 2, predictions 1 and 2, sigma 1: 1 + 2 log(2 e^−½) and 0 + 2 log(1 + e^−2).
    y, predicted = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 2.0])
    values = balanced_squared_error(predicted, y, torch.tensor(1.0), torch.tensor([True, True]))
    assert values.tolist() == pytest.approx([2 * np.log(2), 2 * np.log(1 + np.exp(-2))])


def test_balanced_mse_counts_bounds_out_and_has_one_sided_errors_for_them() -> None:
    loss = built(BalancedMse(sigma=0.6)).double()
    measured = MIXED == 0
    values = loss(PREDICTED, Y, WEIGHT, MIXED)
    alone = loss(PREDICTED[measured], Y[measured], WEIGHT[measured], EXACT[measured])
    assert values[measured].tolist() == pytest.approx(alone.tolist())
    # 6.0 is below 6.5, as it should be; 9.0 is 3 below a label that the truth is above, at weight 3.
    assert values[~measured].tolist() == pytest.approx([0.0, 27.0])
    assert built(BalancedMse(sigma=0.6, bounds="measured")).double()(PREDICTED, Y, WEIGHT, MIXED)[1] > 0


def test_a_batch_of_bounds_alone_has_finite_slopes() -> None:
    for loss in map(built, (BalancedMse(sigma=0.0), Concordant(), Ranked())):
        predicted = PREDICTED.float().requires_grad_()
        side = torch.full((5,), -1.0)
        values = loss(predicted, Y.float(), torch.ones(5), side)
        values.sum().backward()
        assert torch.isfinite(values).all()
        assert predicted.grad is not None
        expected = 2 * (PREDICTED - Y).clamp_min(0)
        assert predicted.grad.tolist() == pytest.approx(expected.tolist())


def test_a_learned_noise_of_balanced_mse_has_the_slope_of_the_unscaled_loss() -> None:
    sigma = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    balanced_squared_error(PREDICTED, Y, sigma, ALL).sum().backward()

    def unscaled(s: float) -> float:
        return float(balanced_squared_error(PREDICTED, Y, torch.tensor(s, dtype=torch.float64), ALL).sum() / (2 * s**2))

    numerical = (unscaled(0.8 + 1e-6) - unscaled(0.8 - 1e-6)) / 2e-6
    assert sigma.grad is not None
    assert float(sigma.grad) == pytest.approx(2 * 0.8**2 * numerical, rel=1e-5)


# --- agreement ---------------------------------------------------------------------------------------


def test_the_concordance_correlation_by_numpy() -> None:
    p, y = PREDICTED.numpy(), Y.numpy()
    covariance = np.cov(p, y, bias=True)
    expected = 2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + (p.mean() - y.mean()) ** 2)
    assert float(concordance_correlation(PREDICTED, Y, ALL)) == pytest.approx(expected)
    kept = torch.tensor([True, False, True, True, False])
    assert float(concordance_correlation(PREDICTED, Y, kept)) == pytest.approx(
        float(concordance_correlation(PREDICTED[kept], Y[kept], ALL[kept]))
    )


def test_the_concordance_correlation_is_pearsons_only_without_shift_and_shrinkage() -> None:
    y = Y - Y.mean()
    assert float(concordance_correlation(y, y, ALL)) == pytest.approx(1)
    assert float(concordance_correlation(-y, y, ALL)) == pytest.approx(-1)
    for other in (y + 2, y / 2):
        assert stats.pearsonr(other.numpy(), y.numpy()).statistic == pytest.approx(1)
        assert float(concordance_correlation(other, y, ALL)) < 0.9


def test_what_does_not_spread_does_not_agree() -> None:
    predicted = torch.full((5,), 7.0, dtype=torch.float64, requires_grad=True)
    value = concordance_correlation(predicted, torch.full((5,), 7.0, dtype=torch.float64), ALL)
    value.sum().backward()
    assert abs(float(value.detach())) < 1e-15
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad).all()


def test_concordant_adds_its_term_to_every_row() -> None:
    kept = MIXED == 0
    term = 2.5 * (1 - float(concordance_correlation(PREDICTED[kept], Y[kept], ALL[kept])))
    squares = [0.25, 0.0, 0.5 * 0.25, 0.25, 27.0]
    values = Concordant(strength=2.5)(PREDICTED, Y, WEIGHT, MIXED)
    assert values.tolist() == pytest.approx([square + term for square in squares])


# --- order -------------------------------------------------------------------------------------------


def test_which_order_is_certain() -> None:
    y = np.array([6.0, 6.0, 6.0, 7.0, 5.0])
    side = np.array([-1.0, 0.0, 1.0, 0.0, 1.0])
    got = certainly_stronger(torch.from_numpy(y), torch.from_numpy(side)).numpy()
    for i in range(5):
        for j in range(5):
            # i ≥ its label or above, j ≤ its label or below; equal labels decide only where one is a bound.
            lowest = -np.inf if side[i] < 0 else y[i]
            highest = np.inf if side[j] > 0 else y[j]
            certain = lowest > highest or (lowest == highest and (side[i] != 0 or side[j] != 0))
            assert got[i, j] == certain, (i, j)
    assert got[1, 0] and got[2, 1] and got[3, 1] and not got[3, 4] and not got[0].any()


def test_ranknet_by_hand() -> None:
    predicted = torch.tensor([1.0, 2.0, 0.0])
    stronger = torch.tensor([[False, True, True], [False, False, False], [False, True, False]])
    pairs = [np.log1p(np.exp(-(1 - 2))), np.log1p(np.exp(-1)), np.log1p(np.exp(2))]
    assert float(pairwise_loss(predicted, stronger)) == pytest.approx(np.mean(pairs))
    assert pairwise_loss(predicted, torch.zeros_like(stronger)).tolist() == [0.0]


def test_ranked_adds_its_term_to_every_row() -> None:
    term = 2.0 * float(pairwise_loss(PREDICTED / 0.5, certainly_stronger(Y, EXACT)))
    loss = Ranked(strength=2.0, scale=0.5, bounds="measured")
    expected = [float(square) + term for square in WEIGHT * (PREDICTED - Y).square()]
    assert loss(PREDICTED, Y, WEIGHT, MIXED).tolist() == pytest.approx(expected)


# --- all of them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [EXACT, MIXED], ids=["measured", "mixed"])
@pytest.mark.parametrize("name", LOSSES)
def test_slopes_are_the_numerical_ones(name: str, side: Tensor) -> None:
    loss = built(LOSSES[name])
    if isinstance(loss, nn.Module):
        loss.double()
    predicted = PREDICTED.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss(p, Y, WEIGHT, side), predicted)


@pytest.mark.parametrize("name", LOSSES)
def test_several_outputs_are_several_batches(name: str) -> None:
    loss = built(LOSSES[name])
    if isinstance(loss, nn.Module):
        loss.double()
    outputs = torch.stack([PREDICTED, PREDICTED + 1, 2 * PREDICTED - 7])
    together = loss(outputs, Y, WEIGHT, MIXED)
    alone = torch.stack([loss(predicted, Y, WEIGHT, MIXED) for predicted in outputs])
    assert together.shape == (3, 5)
    assert together.flatten().tolist() == pytest.approx(alone.flatten().tolist())


@pytest.mark.parametrize("name", LOSSES)
def test_bounds_are_taken_where_the_options_say_so(name: str) -> None:
    assert LOSSES[name].takes_bounds
    if name != "censored_mse":
        measured = type(LOSSES[name])(bounds="measured")
        assert not measured.takes_bounds
        one, other = (
            built(measured)(PREDICTED.float(), Y.float(), WEIGHT.float(), side.float()) for side in (EXACT, MIXED)
        )
        assert torch.equal(one, other)


def trained(loss: object, stratified: bool = False) -> tuple[np.ndarray, list[EpochResult]]:
    """Train on rows with a floor under two fifths of them; return the truth minus predictions, and the epochs."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 4)).astype(np.float32)
    truth = 7.5 + X @ np.array([1.5, -0.8, 0.5, 0.0])
    measured = truth + rng.normal(0, 0.2, 1500)
    below = measured < 7.0
    y, relation = np.where(below, 7.0, measured), np.where(below, "<", "=")
    options = TrainingOptions(epochs=12, batch_size=64, seed=0, start_at_mean=True, stratified=stratified)
    stages = plan_stages(options, AdamW(1e-2), OneCycle(), y, np.arange(1200))
    network = Mlp((32,), dropout=0.0, batch_norm=False).build(4, 0)
    validation = np.arange(1200, 1500)
    learner = Trainer(network, X, y, relation, np.ones(1500), validation, stages, loss, options)  # type: ignore[arg-type]
    results: list[EpochResult] = []
    learner.run(results.append)
    return (network.predict(X, validation) - truth[validation])[~below[validation]], results


@pytest.mark.parametrize("name", LOSSES)
def test_a_network_learns_by_it(name: str) -> None:
    errors, results = trained(LOSSES[name])
    assert np.sqrt(np.mean(errors**2)) < 0.3
    assert results[-1].val_loss < results[0].val_loss


def test_validation_rows_that_are_compared_are_together_in_batches_as_large_as_the_recipe_s() -> None:
    sizes: list[int] = []

    class Watched(Concordant):
        def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                sizes.append(len(predicted))
            return super().__call__(predicted, measured, weight, side)

    trained(Watched())
    once = [64] * 4 + [44]
    assert sizes == once * 2 * 12, "of the mean and of the one member, in each epoch"


def test_a_squared_error_takes_validation_rows_at_once() -> None:
    assert not WeightedMse.compares_rows
    assert Concordant.compares_rows and Ranked.compares_rows and BalancedMse.compares_rows
