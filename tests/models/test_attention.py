"""The transformer over residues."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from tailbind.errors import FeatureError, RecipeError
from tailbind.models import MODELS, attention
from tailbind.models.attention import Attention, PairTransformer
from tailbind.models.mlp import Mlp
from tailbind.models.network import Network
from tailbind.models.tensors import as_tensors
from tailbind.models.tokens import lay_out, waves
from tailbind.options import read_options
from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.sequences.residues import residue_codes
from tailbind.table.features import LAST_PLACE, ChainResidues, Features

SMALL = Attention(dim=8, heads=2, layers=1, cross_layers=1, hidden_dim=8)
ROWS = [("EVQLVESGG", "DIQMTQ", "MKTAYIAKQR"), ("EVQ", "", ""), ("", "DIQMTQSPSS", "GGSGG"), ("QVQL", "EIV", "MKT")]


def features(rows: list[tuple[str, str, str]], n_vector: int = 0, n_sparse: int = 0) -> Features:
    """Rows of chains, with places throughout heavy and light, and vectors that the letters make."""
    chains = sorted({(kind, chain) for row in rows for kind, chain in enumerate(row) if chain})
    number = {chain: position for position, chain in enumerate(chains)}
    codes, lengths = residue_codes([chain for _, chain in chains])
    starts = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    counted = np.concatenate([np.arange(1, length + 1) for length in lengths])
    kind = np.repeat([kind for kind, _ in chains], lengths)
    places = np.select([kind == 0, kind == 1], [counted, counted + LAST_PLACE], 0)
    index = np.array([[number.get((kind, chain), -1) for kind, chain in enumerate(row)] for row in rows])
    table = np.random.default_rng(5).normal(size=(256, n_vector)).astype(np.float16)
    residues = ChainResidues(codes, places.astype(np.int16), starts, index.astype(np.int64), table[codes])
    dense = (index < 0).astype(np.float32)
    sparse, names = None, tuple(f"s{column}" for column in range(n_sparse))
    if n_sparse:
        sparse = csr_array((np.random.default_rng(6).random((len(rows), n_sparse)) < 0.5).astype(np.float32))
    return Features(dense, ("heavy missing", "light missing", "antigen missing"), sparse, names, residues=residues)


def built(X: Features, options: Attention = SMALL) -> Network:
    network = options.build(3, 0, X.n_sparse)
    network.make_ready(X, np.arange(len(X)))
    return network


# --- tokens ------------------------------------------------------------------------------------------


def test_chains_of_a_row_stand_one_after_the_other_behind_its_first_token() -> None:
    residues = as_tensors(features(ROWS)).residues
    assert residues is not None
    laid = lay_out(residues, residues.index[:, :2])
    letters = np.full(tuple(laid.mask.shape), ord("-"), np.uint8)
    letters[laid.row, laid.column] = residues.codes[laid.residue]
    assert [row.tobytes().decode() for row in letters] == [
        "-EVQLVESGGDIQMTQ", "-EVQ------------", "-DIQMTQSPSS-----", "-QVQLEIV--------",
    ]  # fmt: skip
    assert laid.mask.sum(dim=1).tolist() == [16, 4, 11, 8]
    assert laid.chain[laid.row == 0].tolist() == [0] * 9 + [1] * 6
    assert laid.number[laid.row == 0].tolist() == [*range(9), *range(6)]


def test_rows_without_any_chain_have_their_first_token_alone() -> None:
    residues = as_tensors(features([("EVQ", "", ""), ("EV", "", "")])).residues
    assert residues is not None
    laid = lay_out(residues, residues.index[:, 2:])
    assert laid.mask.tolist() == [[True], [True]]
    assert len(laid.residue) == 0


def test_waves_tell_every_number_from_every_other() -> None:
    coded = waves(torch.arange(1024), 16)
    assert coded.shape == (1024, 16)
    assert torch.cdist(coded, coded).fill_diagonal_(9).min() > 0.05


def test_only_the_sequences_of_rows_go_to_another_device() -> None:
    X = as_tensors(features(ROWS, n_vector=3)).take(torch.tensor([3, 1]))
    assert X.residues is not None
    there = X.to(torch.device("meta")).residues
    assert there is not None
    assert there.codes.shape == (len("QVQLEIVMKT") + len("EVQ"),)
    assert there.vectors.shape == (13, 3)
    assert X.to(torch.device("cpu")).residues is X.residues


# --- predicting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_sparse", [0, 4])
def test_neither_padding_nor_company_nor_order_changes_predictions(n_sparse: int) -> None:
    rng = np.random.default_rng(0)
    rows = [tuple("".join(rng.choice([*AMINO_ACIDS], n)) for n in rng.integers(1, 90, 3)) for _ in range(40)]
    X = features([*ROWS, *rows], n_sparse=n_sparse)  # type: ignore[list-item]
    network = built(X)
    whole = network.predict(X)
    assert np.ptp(whole) > 0.01
    order = rng.permutation(len(X))
    np.testing.assert_allclose(network.predict(X, order), whole[order], atol=1e-5)
    alone = np.concatenate([network.predict(X, np.array([row])) for row in range(len(X))])
    np.testing.assert_allclose(alone, whole, atol=1e-5)


def test_rows_of_like_length_are_computed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    long = [("EVQLVESGG" * 20, "", "MKT")] * 9
    X = features([*ROWS * 3, *long])
    network = built(X)
    before = network.predict(X)
    seen: list[int] = []
    pooled = PairTransformer.pooled
    monkeypatch.setattr(PairTransformer, "pooled", lambda self, part: (seen.append(len(part)), pooled(self, part))[1])
    np.testing.assert_array_equal(network.predict(X), before)
    assert seen == [9, 4, 4, 4]
    monkeypatch.setattr(attention, "ALIKE", 0.0)
    np.testing.assert_allclose(network.predict(X), before, atol=1e-5)
    assert seen[4:] == [21]


def test_every_substitution_changes_the_prediction() -> None:
    heavy, light, antigen = ROWS[0]
    rows = [ROWS[0]]
    for kind, chain in enumerate(ROWS[0]):
        for place, letter in product(range(len(chain)), AMINO_ACIDS):
            if letter != chain[place]:
                row = [heavy, light, antigen]
                row[kind] = f"{chain[:place]}{letter}{chain[place + 1 :]}"
                rows.append((row[0], row[1], row[2]))
    X = features(rows)
    predicted = built(X, replace(SMALL, dim=16)).predict(X)
    assert (np.abs(predicted[1:] - predicted[0]) > 1e-6).all()
    assert len(np.unique(predicted.round(7))) > 0.99 * len(predicted)


def test_order_within_a_chain_and_which_chain_it_is_matter() -> None:
    X = features([("EVQL", "", "MKT"), ("VEQL", "", "MKT"), ("", "EVQL", "MKT"), ("EVQL", "", "TKM"), ("EVQL", "", "")])
    predicted = built(X).predict(X)
    assert (np.abs(np.subtract.outer(predicted, predicted))[~np.eye(5, dtype=bool)] > 1e-5).all()


def test_the_antigen_reaches_the_antibody_s_tokens_and_back() -> None:
    """Attention across: with the other side's pooled tokens left out of the head, its letters still count."""
    X = features([("EVQL", "", "MKT"), ("EVQL", "", "MKW"), ("EVQW", "", "MKT")])
    network = built(X)
    (member,) = network.members
    assert isinstance(member, PairTransformer)
    residues = as_tensors(X).residues
    assert residues is not None
    member.eval()
    with torch.no_grad():
        pooled = member.pooled(residues)
    width = 2 * SMALL.dim
    assert (pooled[0, :width] - pooled[1, :width]).abs().max() > 1e-4
    assert (pooled[0, width:] - pooled[2, width:]).abs().max() > 1e-4


def test_an_unknown_letter_is_no_error() -> None:
    X = features([("EVXL", "", "MKT"), ("EVBL", "", "MKT"), ("EVQL", "", "MKT")])
    predicted = built(X).predict(X)
    assert predicted[0] == pytest.approx(predicted[1], abs=1e-6)
    assert abs(predicted[2] - predicted[0]) > 1e-6


def test_no_rows_have_no_predictions() -> None:
    X = features(ROWS)
    assert built(X).predict(X, np.empty(0, np.intp)).shape == (0,)


# --- an encoder's vectors ----------------------------------------------------------------------------


def test_vectors_begin_without_weight_and_count_once_they_have_some() -> None:
    X, plain = features(ROWS, n_vector=6), features(ROWS)
    network = built(X)
    np.testing.assert_array_equal(network.predict(X), built(plain).predict(plain))
    (member,) = network.members
    assert isinstance(member, PairTransformer) and member.antibody_tokens.vectors is not None
    member.train()
    outputs = member(*as_tensors(X).arguments)
    outputs.square().mean().backward()
    assert member.antibody_tokens.vectors.grad is not None
    assert member.antibody_tokens.vectors.grad.abs().max() > 0
    before = network.predict(X)
    with torch.no_grad():
        member.antibody_tokens.vectors.normal_(generator=torch.Generator().manual_seed(0))
    assert (np.abs(network.predict(X) - before) > 1e-4).all()
    again = Attention.from_state(network.state())
    np.testing.assert_array_equal(again.predict(X), network.predict(X))


# --- what it is --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_sparse", [0, 4])
def test_the_state_rebuilds_it_to_the_bit(n_sparse: int) -> None:
    X = features(ROWS, n_sparse=n_sparse)
    network = built(X, replace(SMALL, members=2))
    again = Attention.from_state(network.state())
    np.testing.assert_array_equal(again.predict_members(X), network.predict_members(X))
    assert again.predict_members(X).shape == (4, 2)
    assert again.describe() == network.describe()


def test_the_shape_in_words() -> None:
    words = built(features(ROWS, n_vector=6, n_sparse=4)).describe()
    assert words.startswith(
        "residues with 6 numbers of an encoder → 1 layers within and 1 across, width 8; pooled beside 3 dense + 64 "
        "summed embeddings of 4 sparse columns → 8 → 1, "
    )
    assert words.endswith("(256 in embeddings)")


def test_it_starts_at_a_mean() -> None:
    X = features(ROWS)
    network = built(X)
    before = network.predict(X)
    network.start_at(7.0)
    np.testing.assert_allclose(network.predict(X), before + 7, atol=1e-5)


def test_residues_and_the_model_that_reads_them_need_each_other() -> None:
    assert MODELS.load("attention") is Attention
    with pytest.raises(FeatureError, match=r"must have the block residues to read; there is none"):
        SMALL.build(3, 0).make_ready(np.zeros((4, 3), np.float32), np.arange(4))
    with pytest.raises(FeatureError, match=r"this one reads columns\. Use model\.kind = \"attention\", or leave"):
        Mlp((4,)).build(3, 0).make_ready(features(ROWS), np.arange(4))


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"model\.dim must be a multiple of twice model\.heads; got 60 and 8\. Write"):
        read_options(Attention, {"dim": 60, "heads": 8}, "model")
