import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tailbind.checkpoint import RESUME, load_state, save_state
from tailbind.errors import RecipeError, TrainingError
from tailbind.models.mlp import Mlp
from tailbind.models.network import Network
from tailbind.models.tensors import InputTensors
from tailbind.options import read_options
from tailbind.scale import bin_index
from tailbind.training.batch_losses import BalancedMse
from tailbind.training.batches import batch_sizes
from tailbind.training.loop import Trainer
from tailbind.training.losses import CensoredMse, FocalMse, Tobit, WeightedMse, sides
from tailbind.training.member import NOISE_PACE, clip
from tailbind.training.results import EpochResult
from tailbind.training.schedule import AdamW, CosineRestarts, OneCycle, Plateau
from tailbind.training.selection import validation_score
from tailbind.training.stages import Stage, TrainingOptions, plan_stages
from tailbind.training.stepping import take_step

SEED = 3
MODEL = Mlp((16, 8), dropout=0.3)
OPTIONS = TrainingOptions(epochs=4, batch_size=16, clip_grad_norm=1.0, seed=SEED)
TRAIN, VALIDATION = np.arange(100), np.arange(100, 140)


@dataclass
class Data:
    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    relation: np.ndarray


@pytest.fixture(scope="module")
def data() -> Data:
    """140 rows whose pKd, of every bin, is a function of the features."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(140, 6)).astype(np.float32)
    y = 7.5 + 4.5 * np.tanh(X[:, 0] + X[:, 1] * X[:, 2])
    relation = np.where(y < 6, "<", np.where(y > 11, ">", "="))
    return Data(X, y, rng.uniform(0.5, 2.0, size=140), relation)


def trainer(
    data: Data,
    model: Mlp = MODEL,
    options: TrainingOptions = OPTIONS,
    *,
    train: np.ndarray = TRAIN,
    optimizer: AdamW | None = None,
    schedule: CosineRestarts | OneCycle | Plateau | None = None,
    loss: Any = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Trainer:
    stages = plan_stages(options, optimizer or AdamW(1e-2), schedule or CosineRestarts(t_0=3), data.y, train)
    network = model.build(data.X.shape[1], options.seed)
    return Trainer(
        network, data.X, data.y, data.relation, data.weight, VALIDATION, stages, loss or FocalMse(), options, notify
    )


def trained(trainer: Trainer, until: int | None = None) -> list[EpochResult]:
    """Train to the end, or until after an epoch; return what the epochs gave."""
    results: list[EpochResult] = []
    if until is None:
        trainer.run(results.append)
        return results

    class StoppedError(Exception):
        pass

    def stop(result: EpochResult) -> None:
        results.append(result)
        if result.epoch == until:
            raise StoppedError

    with pytest.raises(StoppedError):
        trainer.run(stop)
    return results


def figures(results: list[EpochResult]) -> list[EpochResult]:
    """Return results without their times."""
    return [replace(result, seconds=0.0, rows_per_second=0.0) for result in results]


def same(left: Any, right: Any) -> bool:
    """Return whether two states are the same to the bit; lists and tuples alike."""
    if isinstance(left, Tensor):
        return bool(torch.equal(left, right)) and left.dtype == right.dtype
    if isinstance(left, dict):
        return set(left) == set(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)


def near(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Return whether weights are the same but for rounding."""
    return list(left) == list(right) and all(
        torch.allclose(left[name], right[name], rtol=1e-4, atol=1e-5) for name in left
    )


# --- it learns, and only what there is ---------------------------------------------------------------


def test_it_memorises_32_rows(data: Data) -> None:
    options = replace(OPTIONS, epochs=200, batch_size=32)
    model = replace(MODEL, hidden_dims=(64, 32), dropout=0.0)
    learner = trainer(data, model, options, train=np.arange(32), loss=WeightedMse(), schedule=Plateau(patience=200))
    results = trained(learner)
    residual = learner.network.predict(data.X, np.arange(32)) - data.y[:32]
    assert np.sqrt(np.mean(residual**2)) < 0.2 * data.y[:32].std()
    assert results[-1].train_loss < 0.02 * results[0].train_loss


def test_it_learns_what_holds_for_other_rows(table: Any, parts: dict[str, np.ndarray]) -> None:
    error, spread = validation_error(table, parts, table.pkd)
    assert error < 0.9 * spread


def test_it_learns_nothing_from_shuffled_labels(table: Any, parts: dict[str, np.ndarray]) -> None:
    error, spread = validation_error(table, parts, np.random.default_rng(0).permutation(table.pkd))
    assert error > 0.97 * spread


def validation_error(table: Any, parts: dict[str, np.ndarray], y: np.ndarray) -> tuple[float, float]:
    """Return RMSE on validation rows after training, and that of the training mean."""
    options = TrainingOptions(epochs=15, batch_size=64, clip_grad_norm=1.0, seed=SEED)
    stages = plan_stages(options, AdamW(1e-2), CosineRestarts(t_0=15), y, parts["train"])
    network = Mlp((32, 16), dropout=0.2).build(table.features.shape[1], SEED)
    weight = np.ones(len(y))
    learner = Trainer(network, table.features, y, table.relation, weight, parts["val"], stages, WeightedMse(), options)
    trained(learner)
    actual = y[parts["val"]]
    error = np.sqrt(np.mean((network.predict(table.features, parts["val"]) - actual) ** 2))
    return float(error), float(np.sqrt(np.mean((y[parts["train"]].mean() - actual) ** 2)))


# --- the same again ----------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_another_others(data: Data) -> None:
    first, second, other = trainer(data), trainer(data), trainer(data, options=replace(OPTIONS, seed=SEED + 1))
    assert figures(trained(first)) == figures(trained(second))
    trained(other)
    assert same(first.state(), second.state())
    assert not same(first.network.state()["members"], other.network.state()["members"])


def test_the_global_random_streams_are_left_alone(data: Data) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(271828)
        before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        trained(trainer(data, replace(MODEL, members=2)))
        assert torch.equal(torch.get_rng_state(), before)
        assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_the_global_random_stream_does_not_matter(data: Data) -> None:
    first, second = trainer(data), trainer(data)
    trained(first)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(999)
        second.run(lambda _: torch.rand(5))  # type: ignore[arg-type,return-value]
    assert same(first.state(), second.state())


def test_nothing_that_is_given_is_changed(data: Data) -> None:
    before = copy.deepcopy(data)
    trained(trainer(data))
    for name in ("X", "y", "weight", "relation"):
        np.testing.assert_array_equal(getattr(data, name), getattr(before, name))


# --- to be continued ---------------------------------------------------------------------------------


TWO_STAGES = replace(OPTIONS, epochs=2, finetune_epochs=2, finetune_lr=1e-3)
RESUMED = {
    "cosine": (MODEL, OPTIONS, CosineRestarts(t_0=3), FocalMse()),
    "plateau": (MODEL, OPTIONS, Plateau(patience=0), FocalMse()),
    "ensemble": (replace(MODEL, members=2), OPTIONS, CosineRestarts(t_0=3), FocalMse()),
    "two stages": (MODEL, TWO_STAGES, CosineRestarts(t_0=3), FocalMse()),
    "ensemble in two stages": (replace(MODEL, members=2), TWO_STAGES, Plateau(patience=0), FocalMse()),
    "learned noise": (MODEL, OPTIONS, CosineRestarts(t_0=3), Tobit(sigma=0.0)),
    "learned noises in two stages": (replace(MODEL, members=2), TWO_STAGES, Plateau(patience=0), Tobit(sigma=0.0)),
    "one cycle": (MODEL, OPTIONS, OneCycle(), FocalMse()),
    "one cycle before a second stage": (replace(MODEL, members=2), TWO_STAGES, OneCycle(), CensoredMse()),
    "averaged": (MODEL, replace(OPTIONS, ema_decay=0.9), CosineRestarts(t_0=3), FocalMse()),
    "averaged in two stages": (replace(MODEL, members=2), replace(TWO_STAGES, ema_decay=0.9), OneCycle(), FocalMse()),
    "stratified": (MODEL, replace(OPTIONS, stratified=True), CosineRestarts(t_0=3), FocalMse()),
    "selected": (MODEL, replace(OPTIONS, select_by="balanced"), CosineRestarts(t_0=3), CensoredMse()),
    "rows compared": (MODEL, OPTIONS, OneCycle(), BalancedMse(sigma=0.0)),
}


@pytest.mark.parametrize("through_a_file", [False, True], ids=["in memory", "through a file"])
@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("case", RESUMED)
def test_a_continued_training_is_the_uninterrupted_one_to_the_bit(
    data: Data, tmp_path: Path, case: str, stop: int, through_a_file: bool
) -> None:
    model, options, schedule, loss = RESUMED[case]
    whole = trainer(data, model, options, schedule=schedule, loss=loss)
    expected = trained(whole)
    assert len(expected) == 4

    broken = trainer(data, model, options, schedule=schedule, loss=loss)
    first = trained(broken, until=stop)
    state = broken.state()
    if through_a_file:
        save_state(tmp_path / "resume.pth", RESUME, state)
        state = load_state(tmp_path / "resume.pth", RESUME)
    continued = trainer(data, model, options, schedule=schedule, loss=loss)
    continued.load_state(state)
    rest = trained(continued)

    assert figures(first + rest) == figures(expected)
    assert same(continued.state(), whole.state())
    assert same(continued.network.state()["members"], whole.network.state()["members"])
    np.testing.assert_array_equal(continued.network.predict(data.X), whole.network.predict(data.X))
    assert (continued.noise(), continued.best_noise()) == (whole.noise(), whole.best_noise())
    assert (whole.noise() is not None) == isinstance(loss, Tobit)


def test_a_continued_training_remembers_the_best_epoch(data: Data) -> None:
    options, optimizer = replace(OPTIONS, epochs=6), AdamW(0.1)
    whole, broken = (
        trainer(data, options=options, optimizer=optimizer),
        trainer(data, options=options, optimizer=optimizer),
    )
    expected = trained(whole)
    assert whole.best_epoch < 5, "the best epoch must come before the break, or this shows nothing"
    trained(broken, until=5)
    continued = trainer(data, options=options, optimizer=optimizer)
    continued.load_state(broken.state())
    assert figures(trained(continued)) == figures(expected[5:])
    assert same(continued.state(), whole.state())


def test_a_state_is_not_changed_by_training_on(data: Data) -> None:
    learner = trainer(data)
    trained(learner, until=2)
    state = learner.state()
    before = copy.deepcopy(state)
    trained(learner)
    assert same(state, before)
    other = trainer(data)
    other.load_state(state)
    trained(other)
    assert same(state, before)


def test_a_finished_training_has_nothing_left_to_do(data: Data) -> None:
    learner = trainer(data)
    trained(learner)
    continued = trainer(data)
    continued.load_state(learner.state())
    assert trained(continued) == []


def test_another_version_s_optimizer_is_refused(data: Data) -> None:
    learner = trainer(data)
    trained(learner, until=1)
    state = learner.state()
    state["members"][0]["optimizer"]["param_groups"][0]["params"] = [0, 1, 2]
    with pytest.raises(TrainingError, match="only be resumed by the version of tailbind that began it"):
        trainer(data).load_state(state)


def test_going_on_where_another_kind_of_device_stopped_is_said(data: Data) -> None:
    learner = trainer(data)
    trained(learner, until=2)
    state = learner.state()
    for member in state["members"]:
        member["random"] = torch.zeros(16, dtype=torch.uint8)  # as a GPU's stream is
    said: list[str] = []
    continued = trainer(data, notify=said.append)
    continued.load_state(state)
    assert len(said) == 1
    assert "another kind of device: dropout draws differ" in said[0]
    assert [result.epoch for result in trained(continued)] == [3, 4]


# --- ensembles ---------------------------------------------------------------------------------------


def test_each_member_becomes_what_it_would_have_become_alone(data: Data) -> None:
    together = trainer(data, replace(MODEL, members=3))
    trained(together)
    for number in range(3):
        alone = trainer(data, options=replace(OPTIONS, seed=SEED + number))
        trained(alone)
        ours = together.network.state()["members"][number]
        assert near(ours, alone.network.state()["members"][0])


def test_each_members_own_loss_moves_its_schedule(data: Data) -> None:
    # By plateau, so that each member's learning rate depends on its own validation losses.
    schedule = Plateau(factor=0.1, patience=0)
    options = replace(OPTIONS, epochs=6)
    together = trainer(data, replace(MODEL, members=2), options, schedule=schedule, optimizer=AdamW(0.1))
    results = trained(together)
    rates = []
    for number in range(2):
        alone = trainer(data, options=replace(options, seed=SEED + number), schedule=schedule, optimizer=AdamW(0.1))
        rates.append([result.lr for result in trained(alone)])
        assert near(together.network.state()["members"][number], alone.network.state()["members"][0])
    assert [result.lr for result in results] == pytest.approx(np.mean(rates, axis=0).tolist())
    assert len({lr for of_member in rates for lr in of_member}) > 1


def test_the_validation_loss_is_that_of_the_mean_prediction(data: Data) -> None:
    learner = trainer(data, replace(MODEL, members=2), loss=WeightedMse())
    result = trained(learner, until=1)[0]
    predicted = learner.network.predict(data.X, VALIDATION)
    expected = np.mean(data.weight[VALIDATION] * (predicted - data.y[VALIDATION]) ** 2)
    assert result.val_loss == pytest.approx(expected, rel=1e-5)


def test_each_member_learns_a_noise_of_its_own_as_if_alone(data: Data) -> None:
    together = trainer(data, replace(MODEL, members=2), loss=Tobit(sigma=0.0))
    trained(together)
    noises = together.noise()
    assert noises is not None
    assert noises[0] != noises[1]
    for number in range(2):
        alone = trainer(data, options=replace(OPTIONS, seed=SEED + number), loss=Tobit(sigma=0.0))
        trained(alone)
        assert alone.noise() == pytest.approx([noises[number]], rel=1e-4)


def test_the_validation_loss_of_noisy_members_is_the_mean_prediction_s_under_each_noise(data: Data) -> None:
    learner = trainer(data, replace(MODEL, members=2), loss=Tobit(sigma=0.0))
    result = trained(learner, until=2)[-1]
    predicted = torch.from_numpy(learner.network.predict(data.X, VALIDATION))
    y, weight = torch.from_numpy(data.y[VALIDATION]), torch.from_numpy(data.weight[VALIDATION])
    side = torch.from_numpy(sides(data.relation[VALIDATION]))
    expected = [float(Tobit(sigma=sigma).build()(predicted, y, weight, side).mean()) for sigma in learner.noise() or ()]
    assert len(expected) == 2
    assert result.val_loss == pytest.approx(np.mean(expected), rel=1e-5)


def test_bounds_reach_the_loss_row_by_row(data: Data) -> None:
    # Under tobit a floor under all predictions teaches something, as a bound from above nothing.
    y = np.full(140, 5.0)
    noise = Tobit(sigma=0.1)
    teaching = {}
    for sign in ("<", ">"):
        marked = replace(data, y=y, relation=np.full(140, sign))
        learner = trainer(marked, replace(MODEL, batch_norm=False, dropout=0.0), loss=noise, optimizer=AdamW(1e-2, 0.0))
        with torch.no_grad():
            learner.network.members[0][-1].bias.fill_(20.0)
        before = learner.network.predict(data.X).mean()
        trained(learner)
        teaching[sign] = before - learner.network.predict(data.X).mean()
    assert teaching["<"] > 0.05
    assert teaching[">"] == 0.0


def test_a_likelihood_starts_at_the_mean_label(data: Data) -> None:
    # From pKd 0 a network would be scaled up, and end far below a floor, where nothing holds it.
    plain, likelihood = trainer(data), trainer(data, replace(MODEL, members=2), loss=Tobit(sigma=0.0))
    lifted = likelihood.network.predict_members(data.X)[:, 0] - plain.network.predict(data.X)
    assert lifted == pytest.approx(data.y[TRAIN].mean(), abs=1e-4)


def test_any_loss_starts_at_the_mean_label_where_the_options_say_so(data: Data) -> None:
    before = MODEL.build(data.X.shape[1], SEED).predict(data.X)
    as_it_is = trainer(data, loss=WeightedMse())
    moved = trainer(data, options=replace(OPTIONS, start_at_mean=True), loss=WeightedMse())
    np.testing.assert_array_equal(as_it_is.network.predict(data.X), before)
    np.testing.assert_allclose(moved.network.predict(data.X), before + data.y[TRAIN].mean(), rtol=1e-5)


def test_a_noise_has_no_weight_decay_a_faster_pace_and_the_schedule_of_the_weights(data: Data) -> None:
    learner = trainer(data, loss=Tobit(sigma=0.0), optimizer=AdamW(1e-3, 0.5))
    rates = []
    learner.run(lambda _: rates.append([group["lr"] for group in learner._members[0].optimizer.param_groups]))
    decays = [group["weight_decay"] for group in learner._members[0].optimizer.param_groups]
    assert decays == [0.5, 0.0]
    assert rates[1][1] < rates[0][1] < NOISE_PACE * 1e-3
    assert rates[2] == pytest.approx([1e-3, NOISE_PACE * 1e-3])  # a restart after three epochs


def test_an_epoch_s_learning_rate_is_that_of_the_weights(data: Data) -> None:
    assert trained(trainer(data, loss=Tobit(sigma=0.0), optimizer=AdamW(1e-3)), until=1)[0].lr == 1e-3


def test_a_fixed_noise_stays(data: Data) -> None:
    learner = trainer(data, replace(MODEL, members=2), loss=Tobit(sigma=0.5))
    trained(learner)
    assert learner.noise() == learner.best_noise() == [0.5, 0.5]
    assert len(learner._members[0].optimizer.param_groups) == 1


# --- stages ------------------------------------------------------------------------------------------


def test_the_second_stage_starts_from_the_best_weights_of_the_first(data: Data) -> None:
    options = replace(OPTIONS, epochs=6, finetune_epochs=1, finetune_lr=1e-9)
    learner = trainer(data, options=options, optimizer=AdamW(0.1))
    before = trained(learner, until=6)
    best = copy.deepcopy(learner.best_weights[0])
    assert learner.best_epoch < 6, "the last epoch must not be the best, or this shows nothing"
    last = trained(learner)[-1]
    for name, tensor in learner.network.members[0].state_dict().items():
        if "running" not in name and "tracked" not in name:
            assert torch.allclose(tensor, best[name], atol=1e-6), name
    assert last.stage == "very weak and very strong"
    assert [result.stage for result in before] == ["all rows"] * 6
    assert last.lr == 1e-9


def test_the_second_stage_goes_on_with_the_noise_of_the_best_epoch(data: Data) -> None:
    options = replace(OPTIONS, epochs=6, finetune_epochs=1, finetune_lr=1e-9)
    learner = trainer(data, options=options, optimizer=AdamW(1.0), loss=Tobit(sigma=0.0))
    trained(learner, until=6)
    best, last = learner.best_noise(), learner.noise()
    assert best != last, "the last epoch must not be the best, or this shows nothing"
    trained(learner)
    assert learner.noise() == pytest.approx(best)


def test_the_second_stage_draws_other_batches_than_the_first(data: Data) -> None:
    every_bin = ("very_weak", "weak", "moderate", "strong", "very_strong")
    options = replace(OPTIONS, epochs=1, finetune_epochs=1, finetune_bins=every_bin)
    learner = trainer(data, options=options)
    recording = recorded(learner)
    trained(learner)
    half = len(recording.rows) // 2
    assert recording.sizes[:half] == recording.sizes[half:]
    assert recording.rows[:half] != recording.rows[half:]


def test_stages_are_planned_from_training_rows_alone() -> None:
    y = np.array([4.0, 6.0, 8.0, 12.0, 4.5, 3.0, 13.0])
    options = TrainingOptions(epochs=3, finetune_epochs=2, finetune_lr=2e-6)
    first, second = plan_stages(options, AdamW(1e-3, 0.5), Plateau(), y, np.arange(5))
    assert (first.epochs, first.rows.tolist(), first.optimizer) == (3, [0, 1, 2, 3, 4], AdamW(1e-3, 0.5))
    assert (second.epochs, second.rows.tolist(), second.optimizer) == (2, [0, 3, 4], AdamW(2e-6, 0.5))


def test_there_is_no_second_stage_without_rows_for_it() -> None:
    options = TrainingOptions(epochs=3, finetune_epochs=2)
    assert len(plan_stages(options, AdamW(), Plateau(), np.array([6.0, 7.0, 12.0]), np.arange(3))) == 1
    assert len(plan_stages(replace(options, finetune_epochs=0), AdamW(), Plateau(), np.full(9, 4.0), np.arange(9))) == 1
    chosen = replace(options, finetune_bins=("weak",))
    assert plan_stages(chosen, AdamW(), Plateau(), np.array([6.0, 7.0, 5.0]), np.arange(3))[1].rows.tolist() == [0, 2]


# --- what an epoch tells -----------------------------------------------------------------------------


def test_epochs_are_told_as_they_were(data: Data) -> None:
    options = replace(OPTIONS, epochs=7)
    learner = trainer(data, options=options)
    results = trained(learner)
    assert [result.epoch for result in results] == list(range(1, 8))
    lrs = [1e-5 + (1e-2 - 1e-5) * (1 + np.cos(np.pi * (epoch % 3) / 3)) / 2 for epoch in range(7)]
    assert [result.lr for result in results] == pytest.approx(lrs)
    best_so_far = np.minimum.accumulate([result.val_loss for result in results])
    assert [result.is_best for result in results] == [
        result.val_loss == best and (position == 0 or best < best_so_far[position - 1])
        for position, (result, best) in enumerate(zip(results, best_so_far, strict=True))
    ]
    assert learner.best_val_loss == best_so_far[-1]
    assert learner.best_epoch == 1 + int(np.argmin([result.val_loss for result in results]))
    assert all(result.seconds > 0 and result.rows_per_second > 0 for result in results)
    assert learner.n_epochs == 7


def test_the_best_weights_are_those_of_the_best_epoch(data: Data) -> None:
    options = replace(OPTIONS, epochs=6)
    learner = trainer(data, options=options, optimizer=AdamW(0.1))
    kept: dict[int, dict[str, Tensor]] = {}
    learner.run(lambda result: kept.update({result.epoch: learner.network.state()["members"][0]}))
    assert learner.best_epoch < 6, "the last epoch must not be the best, or this shows nothing"
    assert same(dict(learner.best_weights[0]), kept[learner.best_epoch])
    assert not same(kept[6], kept[learner.best_epoch])


def test_the_training_loss_is_the_mean_over_rows(data: Data) -> None:
    # With a learning rate of next to nothing and no dropout, all batches see the same weights.
    model = replace(MODEL, dropout=0.0, batch_norm=False)
    learner = trainer(data, model, optimizer=AdamW(1e-12), loss=WeightedMse(), options=replace(OPTIONS, batch_size=30))
    before = learner.network.predict(data.X, TRAIN)
    expected = np.mean(data.weight[TRAIN] * (before - data.y[TRAIN]) ** 2)
    assert trained(learner, until=1)[0].train_loss == pytest.approx(expected, rel=1e-5)


# --- batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "size", "lengths"),
    [
        (9, 4, [4, 5]),
        (8, 4, [4, 4]),
        (10, 4, [4, 4, 2]),
        (3, 4, [3]),
        (5, 4, [5]),
        (4, 4, [4]),
        (3, 2, [3]),
        (1, 4, [1]),
    ],
)
def test_a_last_batch_of_one_row_is_joined_to_the_one_before(n: int, size: int, lengths: list[int]) -> None:
    assert batch_sizes(n, size) == lengths


class Recording:
    """Has members that are trained at once compute, remembering how many rows each batch had and which."""

    def __init__(self, learner: Trainer, limit: int = 10**9) -> None:
        (self.group,) = learner._groups
        learner._groups = [self]
        self.limit = limit
        self.sizes: list[int] = []
        self.rows: list[list[float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.group, name)

    def outputs(self, X: InputTensors, rows: Tensor) -> Tensor:
        self.sizes.append(rows.shape[1])
        self.rows.append(X.dense[rows[0], 0].tolist())
        if rows.shape[1] > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.group.outputs(X, rows)


def recorded(learner: Trainer, limit: int = 10**9) -> Recording:
    return Recording(learner, limit)


@pytest.mark.parametrize(("n", "sizes"), [(5, [5]), (16, [16]), (17, [17]), (33, [16, 17]), (40, [16, 16, 8])])
def test_any_number_of_rows_is_trained_on(data: Data, n: int, sizes: list[int]) -> None:
    learner = trainer(data, train=np.arange(n))
    recording = recorded(learner)
    trained(learner, until=1)
    assert recording.sizes == sizes
    seen = sorted(value for rows in recording.rows for value in rows)
    assert seen == sorted(data.X[:n, 0].tolist())


def test_rows_come_in_another_order_each_epoch(data: Data) -> None:
    learner = trainer(data)
    recording = recorded(learner)
    trained(learner, until=2)
    half = len(recording.rows) // 2
    first, second = (list(chain.from_iterable(rows)) for rows in (recording.rows[:half], recording.rows[half:]))
    assert first != second
    assert sorted(first) == sorted(second) == sorted(data.X[TRAIN, 0].tolist())


# --- what goes wrong ---------------------------------------------------------------------------------


def test_out_of_memory_halves_the_batch_says_so_and_goes_on(data: Data) -> None:
    said: list[str] = []
    learner = trainer(data, notify=said.append)
    recording = recorded(learner, limit=5)
    results = trained(learner)
    assert said == [
        "CUDA out of memory: going on with batches of 8.",
        "CUDA out of memory: going on with batches of 4.",
    ]
    assert recording.sizes[:2] == [16, 8]
    assert set(recording.sizes[2:]) == {4}
    assert learner.batch_size == learner.state()["batch_size"] == 4
    assert [result.epoch for result in results] == [1, 2, 3, 4]


def test_after_out_of_memory_all_is_as_with_the_smaller_batch_from_the_start(data: Data) -> None:
    # The epoch starts again: weights, statistics, optimizer and random streams are those of its beginning.
    class Late(Recording):
        def outputs(self, X: InputTensors, rows: Tensor) -> Tensor:
            if rows.shape[1] == 16 and len(self.sizes) == 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().outputs(X, rows)

    halved = trainer(data)
    Late(halved)
    small = trainer(data, options=replace(OPTIONS, batch_size=8))
    recorded(small)
    assert figures(trained(halved)) == figures(trained(small))
    assert same(halved.network.state()["members"], small.network.state()["members"])


def test_out_of_memory_in_a_later_epoch_repeats_that_epoch_alone(data: Data) -> None:
    said: list[str] = []
    whole, learner = trainer(data), trainer(data, notify=said.append)
    recorded(whole)
    recording = recorded(learner)
    expected = trained(whole, until=2)
    got = trained(learner, until=2)
    recording.limit = 8
    got += trained(learner)
    assert figures(got)[:2] == figures(expected)
    assert len(said) == 1
    assert [result.epoch for result in got] == [1, 2, 3, 4]


def test_a_batch_of_two_that_does_not_fit_is_told(data: Data) -> None:
    learner = trainer(data)
    recorded(learner, limit=1)
    with pytest.raises(
        TrainingError, match=r"A batch of 2 must fit into the GPU's memory; it does not\. .*hidden_dims"
    ):
        trained(learner)


@dataclass(frozen=True)
class Broken:
    """A squared error that is spoiled for so many rows at once: a training batch, or the validation rows."""

    rows: int
    value: float
    takes_bounds: bool = False
    compares_rows: bool = False

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        spoiled = self.value if predicted.shape[-1] == self.rows else 1.0
        return spoiled * (predicted - measured).square()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("rows", "which"), [(16, "training"), (40, "validation")])
def test_a_loss_that_is_not_finite_stops_with_one_line(data: Data, rows: int, which: str, value: float) -> None:
    learner = trainer(data, loss=Broken(rows, value))
    done: list[EpochResult] = []
    with pytest.raises(
        TrainingError, match=rf"The {which} loss must stay finite; it was (nan|inf) in epoch 1\. Lower optimizer\.lr"
    ) as caught:
        learner.run(done.append)
    assert "\n" not in str(caught.value)
    assert done == []
    assert learner.epoch == 0


def test_an_infinite_feature_ends_the_same_way(data: Data) -> None:
    spoiled = replace(data, X=data.X.copy())
    spoiled.X[3, 0] = np.inf
    with pytest.raises(TrainingError, match="The training loss must stay finite; it was nan in epoch 1"):
        trained(trainer(spoiled))


def test_gradients_are_clipped_only_where_asked(data: Data) -> None:
    norms: list[float] = []

    def watched(clip_grad_norm: float) -> list[float]:
        learner = trainer(data, options=replace(OPTIONS, clip_grad_norm=clip_grad_norm, epochs=1))
        (member,) = learner._members
        step = member.optimizer.step
        norms.clear()

        def watch(*args: Any, **kwargs: Any) -> Any:
            norms.append(float(torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in member.learned]))))
            return step(*args, **kwargs)

        member.optimizer.step = watch  # type: ignore[method-assign]
        trained(learner)
        return list(norms)

    free, held = watched(0.0), watched(0.25)
    assert min(free) > 0.25
    assert held == pytest.approx([0.25] * len(held), rel=1e-4)


@pytest.mark.parametrize("largest", [0.5, 1e3])
@pytest.mark.parametrize("n", [1, 3])
def test_clipping_is_pytorch_s(largest: float, n: int) -> None:
    parameters = [nn.Parameter(torch.randn(5, 4)) for _ in range(n)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    ours = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
    clip(ours, largest)
    nn.utils.clip_grad_norm_(parameters, largest)
    for own, parameter in zip(ours, parameters, strict=True):
        torch.testing.assert_close(own, parameter.grad)


def test_a_row_that_weighs_nothing_changes_nothing(data: Data) -> None:
    # Weights multiply the loss alone: with BatchNorm off, a label of weight 0 may be anything.
    model = replace(MODEL, batch_norm=False)
    weight = data.weight.copy()
    weight[:10] = 0
    y = data.y.copy()
    y[:10] = 15.0
    first, second = trainer(replace(data, weight=weight), model), trainer(replace(data, weight=weight, y=y), model)
    trained(first)
    trained(second)
    assert same(first.network.state()["members"], second.network.state()["members"])


def test_the_network_is_trained_in_place(data: Data) -> None:
    network: Network = MODEL.build(6, SEED)
    before = network.state()["members"]
    stages = [Stage("all rows", TRAIN, 1, AdamW(1e-2), CosineRestarts())]
    learner = Trainer(network, data.X, data.y, data.relation, data.weight, VALIDATION, stages, FocalMse(), OPTIONS)
    trained(learner)
    assert learner.network is network
    assert not same(network.state()["members"], before)


# --- averaged weights --------------------------------------------------------------------------------


def test_the_average_is_of_the_weights_after_every_step(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    # Beside it the same training without an average: its weights after each step, averaged by hand.
    plain = trainer(data, options=replace(OPTIONS, epochs=2))
    member = plain.network.members[0]
    average = {name: tensor.clone() for name, tensor in member.state_dict().items()}
    steps = 0

    def watched(optimizer: torch.optim.Optimizer) -> None:
        nonlocal steps
        take_step(optimizer)
        steps += 1
        share = max(0.1, 9 / (10 + steps))
        for name, tensor in member.state_dict().items():
            if tensor.is_floating_point():
                average[name] += share * (tensor - average[name])
            else:
                average[name].copy_(tensor)

    with monkeypatch.context() as patch:
        patch.setattr("tailbind.training.member.take_step", watched)
        trained(plain)
    averaged = trainer(data, options=replace(OPTIONS, epochs=2, ema_decay=0.9))
    trained(averaged)
    assert steps == 14
    for name, tensor in averaged.network.members[0].state_dict().items():
        assert torch.allclose(tensor, average[name], rtol=1e-4, atol=1e-6), name
    newest = averaged.state()["members"][0]["average"]["other"]
    assert same(newest, dict(member.state_dict())), "training itself goes on from the newest weights"


def test_what_is_told_and_kept_of_an_epoch_is_the_average_s(data: Data) -> None:
    learner = trainer(data, loss=WeightedMse(), options=replace(OPTIONS, ema_decay=0.95))
    for result in trained(learner, until=3)[-1:]:
        predicted = learner.network.predict(data.X, VALIDATION)
        expected = np.mean(data.weight[VALIDATION] * (predicted - data.y[VALIDATION]) ** 2)
        assert result.val_loss == pytest.approx(expected, rel=1e-5)
        assert result.is_best
    assert same(dict(learner.best_weights[0]), learner.network.state()["members"][0])


def test_out_of_memory_leaves_the_average_as_it_was(data: Data) -> None:
    options = replace(OPTIONS, ema_decay=0.9)
    halved, small = trainer(data, options=options), trainer(data, options=replace(options, batch_size=8))
    for learner, limit in ((halved, 8), (small, 16)):
        recorded(learner, limit)
        learner._enter(0)  # with the recording in the network that is averaged
    assert figures(trained(halved)) == figures(trained(small))
    assert halved.batch_size == 8
    assert same(halved.network.state()["members"], small.network.state()["members"])


# --- stopping early, and what is best ----------------------------------------------------------------


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_after_so_many_epochs_without_a_better_one(data: Data, patience: int) -> None:
    options = replace(OPTIONS, epochs=40, patience=patience)
    whole, learner = trainer(data, options=replace(options, patience=0)), trainer(data, options=options)
    for one in (whole, learner):
        one.stages[0] = replace(one.stages[0], optimizer=AdamW(0.3))
        one._enter(0)
    expected, got = trained(whole), trained(learner)
    since = np.array([result.epoch for result in expected]) - np.maximum.accumulate(
        [result.epoch if result.is_best else 0 for result in expected]
    )
    stop = int(np.argmax(since == patience)) + 1
    assert 1 < stop < 40, "it must stop in between, or this shows nothing"
    assert len(got) == stop
    assert [result.val_loss for result in got] == [result.val_loss for result in expected[:stop]]
    assert [result.is_last for result in got] == [False] * (stop - 1) + [True]
    assert [result.is_last for result in expected] == [False] * 39 + [True]
    assert learner.best_epoch == stop - patience

    continued = trainer(data, options=options)
    continued.load_state(learner.state())
    assert trained(continued) == [], "what has stopped does not go on when it is resumed"


@pytest.mark.parametrize("loss", [WeightedMse(), CensoredMse()], ids=["measured", "bounds"])
@pytest.mark.parametrize("criterion", ["rmse", "macro_rmse", "balanced"])
def test_the_best_epoch_is_best_by_what_was_asked_for(data: Data, criterion: str, loss: Any) -> None:
    options = replace(OPTIONS, epochs=12, select_by=criterion)
    learner = trainer(data, options=options, optimizer=AdamW(0.2), loss=loss)
    side = sides(data.relation)[VALIDATION] if loss.takes_bounds else np.zeros(40, np.float32)
    scores: list[float] = []

    def judge(result: EpochResult) -> None:
        predicted = learner.network.predict(data.X, VALIDATION)
        scores.append(validation_score(criterion, data.y[VALIDATION], predicted, side))
        assert result.val_score == scores[-1]
        assert result.is_best == (scores[-1] == min(scores) and scores.count(scores[-1]) == 1)

    learner.run(judge)
    assert learner.best_epoch == 1 + int(np.argmin(scores))
    assert learner.best_score == min(scores)


def test_the_score_is_the_loss_unless_asked_otherwise(data: Data) -> None:
    assert all(result.val_score == result.val_loss for result in trained(trainer(data)))


def test_a_state_from_before_there_was_a_choice_can_be_continued(data: Data) -> None:
    whole, broken = trainer(data), trainer(data)
    expected = trained(whole)
    trained(broken, until=2)
    state = broken.state()
    del state["best_score"]
    continued = trainer(data)
    continued.load_state(state)
    assert figures(trained(continued)) == figures(expected[2:])


# --- learning rates by the batch ---------------------------------------------------------------------


def test_one_cycle_spans_the_whole_stage_batch_by_batch(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = trainer(data, schedule=OneCycle(warmup=0.5, start=0.1, end=0.01), optimizer=AdamW(1e-2))
    seen: list[float] = []

    def watched(optimizer: torch.optim.Optimizer) -> None:
        seen.append(optimizer.param_groups[0]["lr"])
        take_step(optimizer)

    monkeypatch.setattr("tailbind.training.member.take_step", watched)
    results = trained(learner)
    batches_in_all = 4 * 7
    expected = [1e-2 * OneCycle(warmup=0.5, start=0.1, end=0.01).share(done / batches_in_all) for done in range(28)]
    assert seen == pytest.approx(expected)
    assert [result.lr for result in results] == pytest.approx(expected[6::7])
    assert max(seen) == seen[14] == pytest.approx(1e-2)


def test_a_learned_noise_keeps_its_pace_under_one_cycle(data: Data) -> None:
    learner = trainer(data, schedule=OneCycle(), loss=Tobit(sigma=0.0))
    trained(learner, until=2)
    weights, noise = (group["lr"] for group in learner._members[0].optimizer.param_groups)
    assert noise / weights == pytest.approx(NOISE_PACE)


# --- stratified batches ------------------------------------------------------------------------------


def test_stratified_batches_hold_every_bin(data: Data) -> None:
    learner = trainer(data, options=replace(OPTIONS, stratified=True))
    recording = recorded(learner)
    trained(learner, until=1)
    bins = dict(zip(data.X[:, 0].tolist(), bin_index(data.y), strict=True))
    present = set(bin_index(data.y[TRAIN]))
    assert len(present) == 5
    assert all({bins[value] for value in rows} == present for rows in recording.rows)
    assert max(recording.sizes) <= 16
    assert {value for rows in recording.rows for value in rows} == set(data.X[TRAIN, 0].tolist())


def test_the_training_loss_of_stratified_batches_is_that_of_every_row_once(data: Data) -> None:
    # With a learning rate of next to nothing and no dropout, all batches see the same weights. Every row of a rare bin
    # is drawn equally often where the draws are a multiple of its rows; else the expectation holds.
    model = replace(MODEL, dropout=0.0, batch_norm=False)
    options = replace(OPTIONS, stratified=True, batch_size=10, epochs=200)
    still = Plateau(patience=1000)
    learner = trainer(data, model, optimizer=AdamW(1e-12), schedule=still, loss=WeightedMse(), options=options)
    before = learner.network.predict(data.X, TRAIN)
    expected = np.mean(data.weight[TRAIN] * (before - data.y[TRAIN]) ** 2)
    losses = [result.train_loss for result in trained(learner)]
    assert np.std(losses) > 0
    assert np.mean(losses) == pytest.approx(expected, rel=3 * np.std(losses) / np.sqrt(200) / expected + 1e-4)
    assert np.std(losses) < 0.05 * expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 3, "finetune_epochs": 2}, r"training\.patience must be 0 with a second stage, .* got 3 with"),
        ({"rows_per_bin": 2}, r"training\.rows_per_bin must be 1 unless training\.stratified is true; got 2"),
        ({"stratified": True, "batch_size": 4}, r"training\.batch_size must be at least 5 to hold 1 rows of each of 5"),
        ({"select_by": "mae"}, r"training\.select_by must be one of val_loss, rmse, macro_rmse, balanced; got 'mae'"),
        ({"ema_decay": 1.0}, r"training\.ema_decay must be at least 0 and below 1; got 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_options(TrainingOptions, options, "training")
