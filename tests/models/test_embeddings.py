"""A network with a sparse block: sums of embeddings beside the dense columns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import nn

from tailbind.models import network as networks
from tailbind.models.inlet import EmbeddingPerceptron
from tailbind.models.mlp import Mlp
from tailbind.models.network import Network
from tailbind.table.features import Features

SMALL = Mlp((16, 8), embedding_dim=5)
N, N_DENSE, N_SPARSE = 60, 4, 20


def features(n: int = N, n_sparse: int = N_SPARSE) -> Features:
    """Rows of which each has about six nonzeros; the last two sparse columns and the last dense one have none."""
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(n, N_DENSE)).astype(np.float32)
    dense[:, -1] = 0
    sparse = (rng.random((n, n_sparse)) < 0.3) * rng.choice([1.0, 2.0, -1.0], (n, n_sparse))
    sparse[:, -2:] = 0
    names = tuple(f"s{column}" for column in range(n_sparse))
    return Features(dense, tuple("abcd"), csr_array(sparse.astype(np.float32)), names)


def built(options: Mlp = SMALL, *, silenced: np.ndarray | None = None, rows: np.ndarray | None = None) -> Network:
    network = options.build(N_DENSE, 3, N_SPARSE)
    network.make_ready(features(), np.arange(N) if rows is None else rows, silenced)
    return network


def weights(network: Network, member: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first layer's weights and the embeddings."""
    module = network.members[member]
    assert isinstance(module, EmbeddingPerceptron)
    first = module.layers[0]
    assert isinstance(first, nn.Linear)
    return first.weight.detach(), module.embedding.weight.detach()


def test_the_sparse_block_enters_as_its_product_with_the_embeddings() -> None:
    network, X = built(), features()
    module = network.members[0]
    assert isinstance(module, EmbeddingPerceptron) and X.sparse is not None
    summed = torch.from_numpy(X.sparse.toarray()) @ weights(network)[1]
    module.eval()
    with torch.no_grad():
        by_hand = module.layers(torch.cat([torch.from_numpy(X.dense), summed], dim=1)).squeeze(1).numpy()
    np.testing.assert_allclose(network.predict(X), by_hand, rtol=1e-4, atol=1e-6)
    assert np.ptp(by_hand) > 0.1


def test_the_sparse_block_alone_leaves_dense_columns_unread_where_there_is_one() -> None:
    options, X = replace(SMALL, sparse_alone=True), features()
    network = built(options, silenced=np.ones(N_DENSE, dtype=bool))
    assert weights(network)[0].shape == (16, SMALL.embedding_dim)
    moved = replace(X, dense=X.dense + 5)
    np.testing.assert_array_equal(network.predict(moved), network.predict(X))
    assert np.ptp(network.predict(X)) > 0.1
    np.testing.assert_array_equal(Mlp.from_state(network.state()).predict(X), network.predict(X))
    assert network.describe().startswith("5 summed embeddings of 20 sparse columns → 16")
    without = options.build(N_DENSE, 3).predict(X.dense)
    np.testing.assert_array_equal(without, SMALL.build(N_DENSE, 3).predict(X.dense))
    assert np.ptp(without) > 0.1


def test_without_a_sparse_block_nothing_is_different() -> None:
    plain, wide = Mlp((16, 8)).build(N_DENSE, 3), replace(SMALL, embedding_dim=99).build(N_DENSE, 3)
    before = {name: tensor.clone() for name, tensor in plain.members[0].state_dict().items()}
    plain.make_ready(features().dense, np.arange(N), np.zeros(N_DENSE, bool))
    assert list(before) == list(wide.members[0].state_dict())
    for name, tensor in before.items():
        assert torch.equal(tensor, plain.members[0].state_dict()[name])
        assert torch.equal(tensor, wide.members[0].state_dict()[name])
    assert "n_sparse" not in plain.state()


def test_the_sum_of_a_row_s_embeddings_starts_at_unit_scale_however_many_it_has() -> None:
    rng = np.random.default_rng(0)
    for nonzeros in (2, 200):
        columns = rng.integers(1000, size=(500, nonzeros))
        sparse = csr_array((np.ones(columns.size), columns.ravel(), np.arange(501) * nonzeros), shape=(500, 1000))
        sparse.sum_duplicates()
        X = Features(np.zeros((500, 0), np.float32), (), sparse.astype(np.float32), tuple(map(str, range(1000))))
        network = Mlp((8,), embedding_dim=64).build(0, 0, 1000)
        network.make_ready(X, np.arange(500))
        summed = sparse @ weights(network)[1].numpy()
        assert np.sqrt(np.mean(summed**2)) == pytest.approx(1, rel=0.1)


def test_what_no_training_row_has_is_silent_where_it_may_be() -> None:
    may = np.array([True, False, True, True])
    X = features()
    dense = X.dense.copy()
    dense[:30, 0] = 0  # zero in the training rows alone
    dense[:, 1] = 0  # zero everywhere, but a column of the table's own
    X = replace(X, dense=dense)
    network = SMALL.build(N_DENSE, 3, N_SPARSE)
    network.make_ready(X, np.arange(30), may)
    first, embedding = weights(network)
    assert (first == 0).all(dim=0).tolist() == [True, False, False, True] + [False] * 5
    assert (embedding == 0).all(dim=1).tolist() == [False] * 18 + [True] * 2
    sparse = X.sparse.toarray()
    sparse[:, -1], dense[:, [0, 3]] = 9, 7
    strange = replace(X, dense=dense, sparse=csr_array(sparse))
    np.testing.assert_array_equal(network.predict(strange), network.predict(X))


def test_stored_zeros_are_no_occurrence() -> None:
    X = features()
    stored = X.sparse.tolil()
    stored[0, 19] = 1
    stored = csr_array(stored.tocsr())
    stored.data[stored.indices == 19] = 0
    network = SMALL.build(N_DENSE, 3, N_SPARSE)
    network.make_ready(replace(X, sparse=stored), np.arange(N))
    assert not weights(network)[1][19].any()


def test_parameters_and_words_tell_of_the_embeddings() -> None:
    network = built()
    total, without = network.parameter_counts()
    assert total == 20 * 5 + (9 * 16 + 16) + 2 * 16 + (16 * 8 + 8) + 2 * 8 + (8 + 1)
    assert without == total - 2 * 16 - 2 * 8
    assert network.describe() == (
        f"4 dense + 5 summed embeddings of 20 sparse columns → 16 → 8 → 1, {total} parameters "
        f"({without} without BatchNorm, 100 in embeddings)"
    )


@pytest.mark.parametrize("members", [1, 3])
def test_the_state_rebuilds_it_to_the_bit(members: int) -> None:
    network, X = built(replace(SMALL, members=members)), features()
    again = Mlp.from_state(network.state())
    np.testing.assert_array_equal(again.predict_members(X), network.predict_members(X))
    assert again.describe() == network.describe()
    assert again.n_sparse == N_SPARSE


def test_each_member_is_the_one_built_alone_with_its_seed() -> None:
    together = Mlp((8,), members=2, embedding_dim=3).build(N_DENSE, 3, N_SPARSE)
    alone = Mlp((8,), embedding_dim=3).build(N_DENSE, 4, N_SPARSE)
    for name, tensor in together.members[1].state_dict().items():
        assert torch.equal(tensor, alone.members[0].state_dict()[name])


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_and_order_do_not_change_predictions(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    network, X = built(), features()
    whole = network.predict(X)
    monkeypatch.setattr(networks, "CHUNK", chunk)
    np.testing.assert_allclose(network.predict(X), whole, rtol=1e-4, atol=1e-5)
    rows = np.array([4, 2, 59, 2])
    np.testing.assert_allclose(network.predict(X, rows), whole[rows], rtol=1e-4, atol=1e-5)
    assert network.predict(X, np.empty(0, np.intp)).shape == (0,)


def test_a_likelihood_may_start_it_at_a_label() -> None:
    network, X = built(), features()
    before = network.predict(X)
    network.start_at(7.0)
    np.testing.assert_allclose(network.predict(X) - before, 7, rtol=1e-5)
