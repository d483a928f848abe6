"""Dense columns spread over several numbers."""

import math

import numpy as np
import pytest
import torch

from tailbind.models.mlp import Mlp
from tailbind.models.numeric import Numerical, Periodic, PiecewiseLinear
from tailbind.table.features import Features


def features(dense: np.ndarray) -> Features:
    dense = np.asarray(dense, np.float32)
    return Features(dense, tuple(f"x{column}" for column in range(dense.shape[1])))


def test_bins_end_at_quantiles_of_the_training_rows_alone() -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(200, 2)).astype(np.float32)
    dense[100:] += 50
    layer = PiecewiseLinear(2, 3, 4)
    layer.fit(features(dense), np.arange(100))
    expected = np.quantile(dense[:100], [0, 0.25, 0.5, 0.75, 1], axis=0).T
    np.testing.assert_allclose(layer.get_buffer("edges"), expected, rtol=1e-5)


def test_shares_of_bins_by_hand_and_held_beyond_the_training_rows() -> None:
    layer = PiecewiseLinear(1, 2, 3)
    layer.fit(features([[0], [1], [1], [4]]), np.arange(4))  # quantiles 0, 1, 1, 4: the middle bin has no breadth
    shares = layer.shares(torch.tensor([[-5.0], [0.5], [1.0], [2.5], [99.0]])).squeeze(1)
    assert shares.tolist() == [[0, 0, 0], [0.5, 0, 0], [1, 0, 0], [1, 0, 0.5], [1, 0, 1]]


def test_the_piecewise_embedding_begins_as_a_line_and_has_slopes_of_its_own_in_each_bin() -> None:
    layer = PiecewiseLinear(1, 2, 2)
    layer.fit(features([[0], [1], [4]]), np.arange(3))
    x = torch.tensor([[0.5], [2.5]])
    line = x.unsqueeze(2) * layer.line + layer.bias
    assert torch.allclose(layer(x), line.flatten(1))
    with torch.no_grad():
        layer.slopes[0, 1, 0] = 10.0
    assert torch.allclose(layer(x)[:, 0] - line.flatten(1)[:, 0], torch.tensor([0.0, 5.0]), atol=1e-6)


def test_waves_by_hand() -> None:
    layer = Periodic(1, 2, 0.5)
    with torch.no_grad():
        layer.frequencies.copy_(torch.tensor([[0.25, 1.0]]))
        layer.weight.zero_()
        layer.weight[0, 0, 0] = layer.weight[0, 2, 1] = 1.0  # the first's cosine, the first's sine
        layer.bias.zero_()
    x = torch.tensor([[0.5], [2.0]])
    expected = [[math.cos(math.pi / 4), math.sin(math.pi / 4)], [0.0, 0.0]]  # cos π is −1, rectified
    assert torch.allclose(layer(x), torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize("kind", ["piecewise_linear", "periodic"])
def test_a_network_learns_a_step_that_a_line_cannot_make(kind: str) -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(400, 1)).astype(np.float32)
    y = torch.from_numpy((np.abs(dense[:, 0]) < 0.3).astype(np.float32))
    errors = {}
    for embedding in ("none", kind):
        options = Mlp((2,), batch_norm=False, dropout=0.0, numerical_embedding=embedding, numerical_frequency=0.5)
        network = options.build(1, seed=0)
        network.make_ready(dense, np.arange(400))
        (member,) = network.members
        optimizer = torch.optim.Adam(member.parameters(), 0.02)
        for _ in range(300):
            optimizer.zero_grad()
            loss = (member(torch.from_numpy(dense)).squeeze(1) - y).square().mean()
            loss.backward()
            optimizer.step()
        errors[embedding] = float(loss.detach())
    assert errors[kind] < 0.2 * errors["none"]


@pytest.mark.parametrize("kind", ["piecewise_linear", "periodic"])
def test_what_no_training_row_has_is_silent(kind: str) -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(50, 3)).astype(np.float32)
    dense[:30, 1] = 0
    network = Mlp((8,), batch_norm=False, numerical_embedding=kind, numerical_dim=4).build(3, seed=0)
    network.make_ready(dense, np.arange(30), np.array([True, True, False]))
    other = dense.copy()
    other[30:, 1] = 7
    np.testing.assert_array_equal(network.predict(other), network.predict(dense))
    other[30:, 0] = 7
    assert (network.predict(other) != network.predict(dense))[30:].all()


@pytest.mark.parametrize("kind", ["piecewise_linear", "periodic"])
def test_the_state_rebuilds_it_to_the_bit(kind: str) -> None:
    dense = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    network = Mlp((8,), numerical_embedding=kind, numerical_dim=4, numerical_bins=3).build(3, seed=0)
    network.make_ready(dense, np.arange(30))
    again = Mlp.from_state(network.state())
    np.testing.assert_array_equal(again.predict(dense), network.predict(dense))
    assert again.describe() == network.describe()
    assert network.describe().startswith("3 as 4 each → 8 → 1, ")


def test_without_columns_there_is_nothing_to_spread() -> None:
    assert Numerical(numerical_embedding="periodic").spread(0) is None
    assert Numerical().spread(3) is None
