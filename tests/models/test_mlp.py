import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tailbind.models import network as networks
from tailbind.models.mlp import Mlp
from tailbind.models.network import Network

V1 = Mlp((256, 128), "relu", "default")
V2 = Mlp()
SMALL = Mlp((16, 8))


def inputs(n: int = 50, width: int = 12) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)


def linears(network: Network, member: int = 0) -> list[nn.Linear]:
    return [layer for layer in network.members[member] if isinstance(layer, nn.Linear)]


def moved(network: Network) -> Network:
    """Give BatchNorm statistics and scales that are not the initial ones."""
    generator = torch.Generator().manual_seed(5)
    for member in network.members:
        for layer in member:
            if isinstance(layer, nn.BatchNorm1d):
                layer.running_mean.copy_(torch.randn(layer.num_features, generator=generator))
                layer.running_var.copy_(torch.rand(layer.num_features, generator=generator) + 0.5)
                nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
    return network


# --- what it is --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "total", "without"), [(V1, 72_449, 71_681), (V2, 251_777, 249_857)])
def test_parameter_counts(options: Mlp, total: int, without: int) -> None:
    assert options.build(150, seed=0).parameter_counts() == (total, without)
    sizes = (150, *options.hidden_dims, 1)
    by_hand = sum(a * b + b for a, b in itertools.pairwise(sizes))
    assert by_hand == without
    assert by_hand + 2 * sum(options.hidden_dims) == total


def test_parameter_counts_without_batch_norm() -> None:
    network = Mlp(batch_norm=False).build(150, seed=0)
    assert network.parameter_counts() == (249_857, 249_857)
    assert network.describe() == "150 → 512 → 256 → 128 → 64 → 1, 249,857 parameters"


def test_the_shape_in_words() -> None:
    assert V1.build(150, seed=0).describe() == "150 → 256 → 128 → 1, 72,449 parameters (71,681 without BatchNorm)"
    assert Mlp((4,), members=3).build(2, seed=0).describe().startswith("3 networks of 2 → 4 → 1, ")


def test_layers_are_in_the_seeds_order() -> None:
    names = [type(layer).__name__ for layer in V2.build(150, seed=0).members[0]]
    assert names == ["Linear", "BatchNorm1d", "GELU", "Dropout"] * 4 + ["Linear"]
    names = [type(layer).__name__ for layer in V1.build(150, seed=0).members[0]]
    assert names == ["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2 + ["Linear"]
    plain = Mlp((4,), "silu", batch_norm=False, dropout=0.0).build(2, seed=0).members[0]
    assert [type(layer).__name__ for layer in plain] == ["Linear", "SiLU", "Linear"]


def test_dropout_is_the_options() -> None:
    rates = {layer.p for layer in Mlp(dropout=0.4).build(3, seed=0).members[0] if isinstance(layer, nn.Dropout)}
    assert rates == {0.4}


def test_xavier_uniform_weights_and_zero_biases() -> None:
    for layer in linears(V2.build(150, seed=0)):
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        largest = float(layer.weight.detach().abs().max())
        assert largest <= bound
        if layer.weight.numel() > 1000:
            assert largest > 0.99 * bound
            assert float(layer.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)
        assert not layer.bias.detach().any()


def test_the_default_initialisation_is_pytorchs_untouched() -> None:
    built = linears(V1.build(150, seed=7))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        expected = [nn.Linear(150, 256), nn.Linear(256, 128), nn.Linear(128, 1)]
    for layer, reference in zip(built, expected, strict=True):
        assert torch.equal(layer.weight, reference.weight)
        assert torch.equal(layer.bias, reference.bias)
        assert layer.bias.detach().any()


def test_building_leaves_the_global_random_stream_alone() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(271828)
        before = torch.get_rng_state()
        network = V2.build(12, seed=3)
        Mlp.from_state(network.state())
        assert torch.equal(torch.get_rng_state(), before)


# --- members -----------------------------------------------------------------------------------------


def test_members_differ_and_each_is_the_one_built_alone_with_its_seed() -> None:
    together = Mlp((16, 8), members=3).build(12, seed=42)
    assert not torch.equal(linears(together, 0)[0].weight, linears(together, 1)[0].weight)
    for number, member in enumerate(together.members):
        alone = SMALL.build(12, seed=42 + number).members[0]
        for name, tensor in member.state_dict().items():
            assert torch.equal(tensor, alone.state_dict()[name])


def test_the_prediction_is_the_mean_of_the_members() -> None:
    network = moved(Mlp((16, 8), members=3).build(12, seed=0))
    X = inputs()
    members = network.predict_members(X)
    assert members.shape == (50, 3)
    np.testing.assert_allclose(network.predict(X), members.mean(axis=1), rtol=1e-12)
    for number in range(3):
        alone = Network(SMALL, 12, [network.members[number]])
        np.testing.assert_array_equal(members[:, number], alone.predict(X))
    assert members.std(axis=1).min() > 0


# --- predicting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 50, 64])
def test_chunks_do_not_change_predictions(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    network, X = moved(SMALL.build(12, seed=0)), inputs()
    whole = network.predict(X)
    monkeypatch.setattr(networks, "CHUNK", chunk)
    np.testing.assert_allclose(network.predict(X), whole, rtol=1e-5, atol=1e-6)
    assert np.ptp(whole) > 0.1


def test_rows_are_predicted_in_their_order() -> None:
    network, X = moved(SMALL.build(12, seed=0)), inputs()
    rows = np.array([4, 2, 49, 2])
    np.testing.assert_allclose(network.predict(X, rows), network.predict(X)[rows], rtol=1e-5)
    assert network.predict(X, np.empty(0, np.intp)).shape == (0,)
    assert network.predict(X).dtype == np.float64


def test_predicting_neither_drops_out_nor_learns() -> None:
    network, X = moved(SMALL.build(12, seed=0)), inputs()
    state = network.state()
    network.members[0].train()
    np.testing.assert_array_equal(network.predict(X), network.predict(X))
    assert network.members[0].training
    network.members[0].eval()
    network.predict(X)
    assert not network.members[0].training
    for name, tensor in network.state()["members"][0].items():
        assert torch.equal(tensor, state["members"][0][name])


def test_inputs_are_not_changed() -> None:
    X = inputs()
    before = X.copy()
    SMALL.build(12, seed=0).predict(X)
    np.testing.assert_array_equal(X, before)


# --- state -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [V1, V2, Mlp((8,), "silu", batch_norm=False, dropout=0.0, members=2)])
def test_the_state_rebuilds_it_to_the_bit(options: Mlp) -> None:
    network, X = moved(options.build(12, seed=0)), inputs()
    again = Mlp.from_state(network.state())
    np.testing.assert_array_equal(again.predict(X), network.predict(X))
    assert again.options == options
    assert again.n_features == 12
    assert again.describe() == network.describe()


def test_the_state_is_a_copy() -> None:
    network = SMALL.build(12, seed=0)
    state: dict[str, Any] = network.state()
    weight = state["members"][0]["0.weight"].clone()
    with torch.no_grad():
        linears(network)[0].weight.add_(1)
    assert torch.equal(state["members"][0]["0.weight"], weight)
