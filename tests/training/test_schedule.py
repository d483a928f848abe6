import math

import pytest
import torch
from torch import nn

from tailbind.training.schedule import Adam, AdamW, Constant, CosineRestarts, OneCycle, Plateau, ScheduleOptions


def one_weight(value: float = 2.0) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value], dtype=torch.float64))


def rates(options: ScheduleOptions, lr: float, losses: list[float]) -> list[float]:
    """Return the learning rate of each epoch, the last being the one that would come next."""
    parameter = one_weight()
    optimizer = torch.optim.SGD([parameter], lr=lr)
    schedule = options(optimizer)
    seen = []
    for loss in losses:
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step(loss)
    return [*seen, optimizer.param_groups[0]["lr"]]


# --- schedules ---------------------------------------------------------------------------------------


def test_cosine_restarts_at_epochs_21_and_41() -> None:
    seen = rates(CosineRestarts(t_0=20, t_mult=1, min_lr=1e-5), 1e-4, [1.0] * 60)
    by_hand = [1e-5 + (1e-4 - 1e-5) * (1 + math.cos(math.pi * (epoch % 20) / 20)) / 2 for epoch in range(61)]
    assert seen == pytest.approx(by_hand, rel=1e-9)
    restarts = [epoch for epoch in range(2, 61) if seen[epoch - 1] > seen[epoch - 2]]
    assert restarts == [21, 41]
    assert seen[0] == seen[20] == seen[40] == 1e-4
    assert min(seen) == seen[19] == pytest.approx(1.0554e-5, rel=1e-3)


def test_restarts_may_get_further_apart() -> None:
    seen = rates(CosineRestarts(t_0=5, t_mult=2), 1e-4, [1.0] * 40)
    assert [epoch for epoch in range(2, 41) if seen[epoch - 1] > seen[epoch - 2]] == [6, 16, 36]


def test_plateau_halves_after_more_than_patience_epochs_without_better() -> None:
    losses = [1.0, 0.9, *[0.95] * 6, *[0.95] * 5, 0.95, 0.5, *[0.6] * 5]
    seen = rates(Plateau(factor=0.5, patience=5), 1e-3, losses)
    # Best in epoch 2; epochs 3 to 8 are no better, so epoch 9 is halved, and six epochs later epoch 15.
    assert seen[:8] == [1e-3] * 8
    assert seen[8:14] == [5e-4] * 6
    assert seen[14:] == [2.5e-4] * (len(seen) - 14)


def test_plateau_stops_at_its_floor() -> None:
    assert rates(Plateau(factor=0.1, patience=0, min_lr=1e-4), 1e-3, [1.0] * 6)[-1] == pytest.approx(1e-4)


def test_constant_is_constant() -> None:
    assert rates(Constant(), 1e-5, [1.0] * 12) == [1e-5] * 13


@pytest.mark.parametrize(
    "options", [CosineRestarts(t_0=4), Plateau(patience=1), Constant()], ids=lambda o: type(o).__name__
)
@pytest.mark.parametrize("stop", [1, 3, 4, 5])
def test_a_schedule_continues_where_it_stopped(options: ScheduleOptions, stop: int) -> None:
    losses = [1.0, 0.8, 0.9, 0.9, 0.9, 0.7, 0.9, 0.9, 0.9]
    whole = rates(options, 1e-3, losses)
    optimizer = torch.optim.SGD([one_weight()], lr=1e-3)
    schedule = options(optimizer)
    for loss in losses[:stop]:
        optimizer.step()
        schedule.step(loss)
    other = torch.optim.SGD([one_weight()], lr=1e-3)
    continued = options(other)
    other.load_state_dict(optimizer.state_dict())
    continued.load_state_dict(schedule.state_dict())
    seen = []
    for loss in losses[stop:]:
        seen.append(other.param_groups[0]["lr"])
        other.step()
        continued.step(loss)
    assert seen == whole[stop:-1]


@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.9])
def test_one_cycle_is_pytorchs(warmup: float) -> None:
    # PyTorch counts its top and its end as steps of their own; ours are at the shares of the batches that are stated.
    steps = 1000
    parameter = one_weight()
    optimizer = torch.optim.SGD([parameter], lr=1e-3)
    judge = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1e-3, total_steps=steps, pct_start=warmup, div_factor=25, final_div_factor=40, cycle_momentum=False
    )
    theirs = []
    for _ in range(steps):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        judge.step()
    ours = [1e-3 * OneCycle(warmup=warmup, start=0.04, end=0.001).share(step / steps) for step in range(steps)]
    assert ours == pytest.approx(theirs, abs=2e-5)


def test_one_cycle_at_its_corners() -> None:
    cycle = OneCycle(warmup=0.25, start=0.1, end=0.02)
    assert [cycle.share(done) for done in (0.0, 0.125, 0.25, 0.625, 1.0)] == pytest.approx([0.1, 0.55, 1, 0.51, 0.02])
    assert OneCycle(warmup=0.0).share(0.0) == 1
    rates = [cycle.share(done / 100) for done in range(101)]
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)


def test_one_cycle_keeps_the_ratio_of_groups_also_after_a_state_is_loaded() -> None:
    def made() -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": [one_weight()]}, {"params": [one_weight()], "lr": 0.2}], lr=0.01)

    optimizer = made()
    OneCycle()(optimizer).enter(0.1)
    other = made()
    schedule = OneCycle()(other)
    other.load_state_dict(optimizer.state_dict())
    schedule.enter(0.25)
    assert [group["lr"] for group in other.param_groups] == pytest.approx([0.01, 0.2])
    schedule.step(1.0)
    assert [group["lr"] for group in other.param_groups] == pytest.approx([0.01, 0.2])


# --- optimizers --------------------------------------------------------------------------------------


def after_steps(options: Adam | AdamW, gradients: list[float]) -> float:
    parameter = one_weight()
    optimizer = options([parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    return float(parameter.detach())


def by_hand(gradients: list[float], lr: float, decay: float, decoupled: bool) -> float:
    """Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2."""
    theta, m, v = 2.0, 0.0, 0.0
    for step, gradient in enumerate(gradients, 1):
        if decoupled:
            theta -= lr * decay * theta
        else:
            gradient = gradient + decay * theta
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        theta -= lr * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return theta


@pytest.mark.parametrize("decay", [0.0, 1e-4, 0.5])
@pytest.mark.parametrize(("cls", "decoupled"), [(Adam, False), (AdamW, True)])
def test_steps_are_the_papers(cls: type[Adam | AdamW], decoupled: bool, decay: float) -> None:
    gradients = [0.3, -0.2, 1.5, 0.01]
    expected = by_hand(gradients, 0.01, decay, decoupled)
    assert after_steps(cls(lr=0.01, weight_decay=decay), gradients) == pytest.approx(expected, rel=1e-9)


def test_only_adamw_decays_a_weight_by_its_size() -> None:
    # Without a gradient AdamW shrinks the weight by lr · decay; Adam takes a whole step of lr whatever the decay.
    assert after_steps(AdamW(lr=0.01, weight_decay=0.1), [0.0]) == pytest.approx(2.0 * (1 - 0.001))
    assert after_steps(Adam(lr=0.01, weight_decay=0.1), [0.0]) == pytest.approx(2.0 - 0.01)


def test_the_defaults_are_the_seeds() -> None:
    assert Adam() == Adam(lr=1e-3, weight_decay=0.0)
    assert AdamW() == AdamW(lr=1e-4, weight_decay=1e-4)
    assert CosineRestarts() == CosineRestarts(t_0=20, t_mult=1, min_lr=1e-5)
    assert Plateau() == Plateau(factor=0.5, patience=5, min_lr=0.0)
