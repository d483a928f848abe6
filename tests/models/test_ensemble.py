"""The efficient ensemble: shared layers, outputs of each member's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from tailbind.errors import RecipeError
from tailbind.models import MODELS
from tailbind.models.ensemble import EnsembleMlp
from tailbind.models.inlet import EmbeddingPerceptron
from tailbind.models.network import Network
from tailbind.options import read_options
from tailbind.table.features import Features
from tailbind.training.loop import Trainer
from tailbind.training.losses import WeightedMse
from tailbind.training.schedule import Adam, Constant
from tailbind.training.stages import TrainingOptions, plan_stages

N, N_DENSE, N_SPARSE = 300, 3, 20
SMALL = EnsembleMlp(heads=4, stem_dim=6, hidden_dims=(8, 8), dropout=0.0, embedding_dim=5)
VARIANTS = {
    "mini": SMALL,
    "full": replace(SMALL, adapters="layers", adapter_start="normal"),
    "no stem": replace(SMALL, stem_dim=0),
    "normed": replace(SMALL, adapters="layers", layer_norm=True, residual=True),
    "spread": replace(SMALL, numerical_embedding="piecewise_linear", numerical_dim=2, stem_dim=0),
}


@pytest.fixture(scope="module", name="X")
def _features() -> Features:
    rng = np.random.default_rng(0)
    sparse = csr_array((rng.random((N, N_SPARSE)) < 0.2).astype(np.float32))
    return Features(rng.normal(size=(N, N_DENSE)).astype(np.float32), tuple("abc"), sparse, tuple(map(str, range(20))))


@pytest.fixture(scope="module", name="y")
def _labels(X: Features) -> np.ndarray:
    assert X.sparse is not None
    return np.asarray(7 + X.sparse @ np.random.default_rng(1).normal(size=N_SPARSE) + X.dense[:, 0])


def built(options: EnsembleMlp, X: Features) -> Network:
    network = options.build(N_DENSE, 3, N_SPARSE)
    network.make_ready(X, np.arange(N))
    return network


def trainer(options: EnsembleMlp, X: Features, y: np.ndarray, training: TrainingOptions) -> Trainer:
    stages = plan_stages(training, Adam(1e-2), Constant(), y, np.arange(200))
    equal, ones = np.full(N, "="), np.ones(N)
    loss = WeightedMse(weights="none")
    return Trainer(built(options, X), X, y, equal, ones, np.arange(200, N), stages, loss, training)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_each_head_predicts_and_their_mean_is_the_prediction(options: EnsembleMlp, X: Features) -> None:
    network = built(options, X)
    members = network.predict_members(X)
    assert members.shape == (N, 4)
    assert members.std(axis=1).min() > 0
    np.testing.assert_allclose(network.predict(X), members.mean(axis=1))
    rows = np.array([5, 2, 2])
    np.testing.assert_allclose(network.predict_members(X, rows), members[rows], atol=1e-6)
    assert network.predict_members(X, np.empty(0, np.intp)).shape[0] == 0


def test_a_head_is_the_perceptron_that_its_scalings_make(X: Features) -> None:
    """By hand: member 2 of the full variant, layer after layer, without the others."""
    network = built(replace(VARIANTS["full"], stem_dim=0), X)
    (member,) = network.members
    assert isinstance(member, EmbeddingPerceptron) and member.embedding is not None and X.sparse is not None
    weights = {name: tensor.double().numpy() for name, tensor in member.state_dict().items()}
    hidden = np.hstack([X.dense, X.sparse @ weights["embedding.weight"]])
    for layer in range(2):
        at = f"layers.layers.{layer}."
        hidden = (hidden * weights[f"{at}before"][2]) @ weights[f"{at}linear.weight"].T
        hidden = hidden * weights[f"{at}after"][2] + weights[f"{at}bias"][2]
        hidden = hidden / (1 + np.exp(-hidden))
    by_hand = hidden @ weights["layers.outputs.weight"][2] + weights["layers.outputs.bias"][2]
    np.testing.assert_allclose(network.predict_members(X)[:, 2], by_hand, atol=1e-5)


def test_the_first_scaling_begins_with_signs_or_normal_numbers_and_later_ones_with_one(X: Features) -> None:
    state = built(SMALL, X).members[0].state_dict()
    assert set(state["layers.layers.0.before"].flatten().tolist()) == {-1.0, 1.0}
    assert "layers.layers.1.before" not in state
    state = built(VARIANTS["full"], X).members[0].state_dict()
    assert len(set(state["layers.layers.0.before"].flatten().tolist())) == 24
    assert (state["layers.layers.1.before"] == 1).all() and (state["layers.layers.1.after"] == 1).all()


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_the_state_rebuilds_it_to_the_bit(options: EnsembleMlp, X: Features) -> None:
    network = built(options, X)
    again = EnsembleMlp.from_state(network.state())
    np.testing.assert_array_equal(again.predict_members(X), network.predict_members(X))
    assert again.options == options
    assert again.describe() == network.describe()


def test_the_shape_in_words(X: Features) -> None:
    network = built(SMALL, X)
    n = 20 * 5 + (8 * 6 + 6) + 4 * 6 + (6 * 8 + 8) + (8 * 8 + 8) + 4 * 8 + 4
    assert network.describe() == (
        f"3 dense + 5 summed embeddings of 20 sparse columns → 6 → 4 × (8 → 8 → 1), {n} parameters (100 in embeddings)"
    )


def test_heads_share_most_of_what_as_many_networks_would_have() -> None:
    one, many = (replace(EnsembleMlp(), heads=heads).build(150, 0).parameter_counts()[0] for heads in (1, 32))
    assert many < 1.2 * one


def test_what_no_training_row_has_is_silent(X: Features) -> None:
    dense = X.dense.copy()
    dense[:, 1] = 0
    X = replace(X, dense=dense)
    for options in VARIANTS.values():
        network = options.build(N_DENSE, 3, N_SPARSE)
        network.make_ready(X, np.arange(N), np.array([True, True, True]))
        strange = dense.copy()
        strange[:, 1] = 9
        np.testing.assert_array_equal(network.predict(replace(X, dense=strange)), network.predict(X))


def test_start_at_moves_every_head(X: Features) -> None:
    network = built(SMALL, X)
    before = network.predict_members(X)
    network.start_at(7.0)
    np.testing.assert_allclose(network.predict_members(X), before + 7, atol=1e-5)


# --- training ----------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_of_the_heads_own_losses(X: Features, y: np.ndarray) -> None:
    """One batch: what the epoch tells is the mean of squared errors, not the squared error of the mean."""
    learner = trainer(SMALL, X, y, TrainingOptions(epochs=1, batch_size=200, seed=3))
    members = learner.network.predict_members(X, np.arange(200))
    results: list[float] = []
    learner.run(lambda result: results.append(result.train_loss))
    own = np.square(members - y[:200, None]).mean()
    of_mean = np.square(members.mean(axis=1) - y[:200]).mean()
    assert results[0] == pytest.approx(own, rel=1e-5)
    assert abs(own - of_mean) > 1e-4


def test_the_validation_loss_is_of_the_mean_prediction(X: Features, y: np.ndarray) -> None:
    learner = trainer(SMALL, X, y, TrainingOptions(epochs=1, batch_size=50, seed=3))
    results: list[float] = []
    learner.run(lambda result: results.append(result.val_loss))
    error = np.square(learner.network.predict(X, np.arange(200, N)) - y[200:]).mean()
    assert results[0] == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_it_learns(options: EnsembleMlp, X: Features, y: np.ndarray) -> None:
    learner = trainer(options, X, y, TrainingOptions(epochs=25, batch_size=20, seed=3, start_at_mean=True))
    learner.run(lambda _: None)
    members = learner.network.predict_members(X, np.arange(200, N))
    error = np.sqrt(np.square(members.mean(axis=1) - y[200:]).mean())
    assert error < 0.5 * y[200:].std()
    assert members.std(axis=1).mean() > 0.01  # heads stay apart


def test_it_goes_on_exactly(X: Features, y: np.ndarray) -> None:
    options = TrainingOptions(epochs=4, batch_size=20, seed=3)
    model = replace(SMALL, dropout=0.2)
    whole, first, second = (trainer(model, X, y, options) for _ in range(3))
    whole.run(lambda _: None)

    def stop(result: object) -> None:
        if first.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run(stop)
    second.load_state(first.state())
    second.run(lambda _: None)
    np.testing.assert_array_equal(second.network.predict_members(X), whole.network.predict_members(X))


def test_one_layer_at_least() -> None:
    assert MODELS.load("ensemble_mlp") is EnsembleMlp
    with pytest.raises(RecipeError, match=r"model\.hidden_dims must name the width of one layer or more; got \[\]"):
        read_options(EnsembleMlp, {"hidden_dims": []}, "model")
    assert torch.isfinite(built_outputs()).all()


def built_outputs() -> torch.Tensor:
    """Outputs where there is nothing but dense columns."""
    network = replace(SMALL, adapters="layers").build(2, 0)
    return torch.from_numpy(network.predict(np.ones((3, 2), np.float32)))
