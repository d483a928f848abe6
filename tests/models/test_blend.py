"""A blend weights its parts by what they predict, on rows they have not learned from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tailbind.checkpoint import load_state, save_state
from tailbind.models import MODELS
from tailbind.models.blend import Blend, Blended, BlendPart, FamilySizes, Gate, Opinions, predict_parts
from tailbind.models.contract import Predictive, Problem
from tailbind.table.features import ChainResidues, Features

Array = NDArray[np.float64]


def everywhere(predictions: Array) -> NDArray[np.bool_]:
    return np.ones(predictions.shape, dtype=bool)


def said(predictions: Array, speaks: NDArray[np.bool_] | None = None, sizes: Sequence[int] | None = None) -> Opinions:
    n = len(predictions)
    heard = everywhere(predictions) if speaks is None else speaks
    return Opinions(
        predictions, np.zeros_like(predictions), heard, np.full(n, 50) if sizes is None else np.array(sizes)
    )


def fitted(predictions: Array, y: Array, side: Sequence[int] | None = None, **options: float) -> Gate:
    sides = np.zeros(len(y), np.float32) if side is None else np.asarray(side, np.float32)
    chosen: dict[str, Any] = {"tail_share": 0.0, "stiffness": 1.0, **options}
    return Gate.fit(said(predictions), y, sides, **chosen)


@pytest.fixture(scope="module")
def regions() -> tuple[Array, Array]:
    """3,000 labels, and two models: the first is right below pKd 8, the second above; both know which side it is."""
    rng = np.random.default_rng(0)
    y = rng.uniform(4, 12, 3000)
    noise = np.where(y < 8, [[0.1], [0.8]], [[0.8], [0.1]])
    return (y + noise * rng.normal(size=(2, 3000))).T, y


# --- the gate -----------------------------------------------------------------------------------------


@given(
    st.integers(1, 4).flatmap(
        lambda m: st.lists(st.lists(st.floats(0, 20), min_size=m, max_size=m), min_size=1, max_size=5)
    ),
    st.integers(0, 2**32 - 1),
)
def test_weights_sum_to_1_and_the_silent_have_none(values: list[list[float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    predictions = np.array(values)
    speaks = rng.random(predictions.shape) < 0.5
    speaks[:, rng.integers(predictions.shape[1])] = True
    weights = Gate(rng.normal(0, 3, (predictions.shape[1], 7))).weights(said(predictions, speaks))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-9)
    assert (weights[~speaks] == 0).all()
    assert (weights >= 0).all()


def test_what_the_silent_would_say_changes_nothing() -> None:
    gate = Gate(np.random.default_rng(0).normal(size=(3, 7)))
    speaks = np.array([[True, False, True]])
    one, other = (gate.weights(said(np.array([[6.0, word, 7.0]]), speaks)) for word in (0.0, 11.0))
    np.testing.assert_array_equal(one, other)


def test_the_better_model_of_a_region_counts_there(regions: tuple[Array, Array]) -> None:
    predictions, y = regions
    weights = fitted(predictions, y).weights(said(predictions))
    assert weights[y < 6.5, 0].mean() > 0.85
    assert weights[y > 9.5, 1].mean() > 0.85
    error = np.sqrt(np.mean((np.sum(weights * predictions, axis=1) - y) ** 2))
    alone = np.sqrt(np.mean((predictions - y[:, None]) ** 2, axis=0))
    assert error < 0.6 * alone.min()


def test_how_far_the_models_lie_apart_is_a_reason(regions: tuple[Array, Array]) -> None:
    rng = np.random.default_rng(1)
    y = rng.uniform(5, 9, 3000)
    strange = rng.random(3000) < 0.3  # where it is lost, the first model is far from the second
    first = y + np.where(strange, 3.0, 0.05) * rng.normal(size=3000)
    predictions = np.column_stack([first, y + 0.4 * rng.normal(size=3000)])
    weights = fitted(predictions, y).weights(said(predictions))
    apart = np.abs(first - predictions[:, 1])
    assert weights[apart < 0.3, 0].mean() > weights[apart > 3, 0].mean() + 0.4


def rare() -> tuple[Array, Array]:
    """1,000 rows, 20 of them very strong: the first model is right of the many, the second of the few.

    They predict nearly the same for both kinds, so that no weights can suit both.
    """
    rng = np.random.default_rng(2)
    y = np.concatenate([np.full(980, 8.0), np.full(20, 11.5)])
    first = 8 + 0.1 * rng.normal(size=1000)
    return np.column_stack([first, first + 1.5]), y


def test_the_tails_share_of_the_criterion_moves_weight_to_what_is_right_there() -> None:
    predictions, y = rare()
    shares = [
        fitted(predictions, y, tail_share=share).weights(said(predictions))[:, 1].mean() for share in (0.0, 0.5, 1.0)
    ]
    assert shares[0] < shares[1] < shares[2]
    assert shares[0] < 0.15
    assert shares[2] > 0.3


def test_a_bin_of_a_few_rows_has_no_say_of_its_own() -> None:
    predictions, y = rare()
    few = np.r_[0:980, 980:989]
    whole, cut = (
        fitted(predictions[rows], y[rows], tail_share=0.5).weights(said(predictions))[:, 1].mean()
        for rows in (np.arange(1000), few)
    )
    assert cut < whole - 0.05


def test_stiff_weights_are_the_same_for_every_row(regions: tuple[Array, Array]) -> None:
    predictions, y = regions
    loose, stiff = (
        fitted(predictions, y, stiffness=stiffness).weights(said(predictions)).std(axis=0).max()
        for stiffness in (0.0, 1e6)
    )
    assert loose > 0.3
    assert stiff < 0.01


def test_bounds_count_on_one_side_alone() -> None:
    y = np.full(400, 6.0)
    predictions = np.tile([4.0, 7.0], (400, 1)) + np.random.default_rng(0).normal(0, 0.01, (400, 2))
    below, above, measured = (
        fitted(predictions, y, [side] * 400).weights(said(predictions)).mean(axis=0) for side in (-1, 1, 0)
    )
    assert below @ [4, 7] < 6.05  # at or below the bound
    assert above @ [4, 7] > 5.95
    assert measured @ [4, 7] == pytest.approx(6, abs=0.05)
    np.testing.assert_allclose(fitted(predictions - 3, y, [-1] * 400).weights(said(predictions)), 0.5, atol=1e-6)


@pytest.mark.parametrize("tail_share", [0.0, 0.3])
def test_a_handful_of_bounds_does_not_outweigh_what_was_measured(tail_share: float) -> None:
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.uniform(6, 10, 980), np.full(20, 6.0)])
    side = np.repeat([0, -1], [980, 20])
    good, low = y + 0.3 * rng.normal(size=1000) + (side < 0), np.full(1000, 6.0)
    predictions = np.column_stack([good, low])
    weights = fitted(predictions, y, side.tolist(), tail_share=tail_share).weights(said(predictions))
    assert weights[:, 0].mean() > 0.8


def test_a_model_counts_where_families_are_of_the_size_that_it_knows(regions: tuple[Array, Array]) -> None:
    """Two models, the first right about small families, the second about large ones; predictions tell neither apart."""
    rng = np.random.default_rng(1)
    y = rng.uniform(4, 12, 4000)
    sizes = rng.choice([3, 3000], 4000)
    noise = np.where(sizes < 10, [[0.1], [0.8]], [[0.8], [0.1]])
    opinions = said((y + noise * rng.normal(size=(2, 4000))).T, sizes=sizes.tolist())
    gate = Gate.fit(opinions, y, np.zeros(4000, np.float32), tail_share=0.0, stiffness=1.0)
    first = gate.weights(opinions)[:, 0]
    assert first[sizes < 10].mean() > 0.9
    assert first[sizes > 10].mean() < 0.1


def test_a_few_rows_hardly_move_equal_weights() -> None:
    rng = np.random.default_rng(3)
    y = rng.uniform(5, 9, 2000)
    predictions = np.column_stack([y + 0.2 * rng.normal(size=2000), y + rng.normal(size=2000)])
    few, many = (
        fitted(predictions[:n], y[:n], stiffness=10).weights(said(predictions))[:, 0].mean() for n in (3, 2000)
    )
    assert 0.4 < few < 0.7
    assert many > 0.85


def test_the_same_rows_give_the_same_weights(regions: tuple[Array, Array]) -> None:
    predictions, y = regions
    before = predictions.copy(), y.copy()
    one, other = (fitted(predictions, y, tail_share=0.5).coefficients for _ in range(2))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(predictions, before[0])
    np.testing.assert_array_equal(y, before[1])


# --- families -----------------------------------------------------------------------------------------


@pytest.fixture
def families() -> Features:
    """Rows of two families of heavy chains and two of antigens, a stranger, and a column that names none."""
    names = ("heavy 0 H52 S>Y", "heavy family 0", "heavy family 1", "antigen family 0", "antigen family 10")
    sparse = [[1, 1, 0, 1, 0], [0, 1, 0, 1, 0], [1, 0, 1, 1, 0], [0, 0, 1, 0, 1], [1, 0, 0, 1, 0], [0, 1, 0, 0, 1]]
    return Features(np.zeros((6, 1), np.float32), ("a",), csr_array(np.array(sparse, np.float32)), names)


def test_families_are_counted_over_training_rows_alone(families: Features) -> None:
    sizes = FamilySizes.fit(families, np.array([0, 1, 2, 3]))
    assert sizes.of(families, np.arange(6)).tolist() == [2, 2, 1, 1, 0, 0]
    assert sizes.of(families, np.array([3, 0, 5])).tolist() == [1, 2, 0]
    assert sizes.of(families, np.empty(0, np.intp)).tolist() == []


def test_without_family_columns_all_rows_are_one_family(families: Features) -> None:
    dense = np.zeros((5, 2), np.float32)
    assert FamilySizes.fit(dense, np.arange(4)).of(dense, np.arange(5)).tolist() == [4] * 5
    nameless = replace(families, sparse_names=("a", "b", "c", "d", "family 3"))
    assert FamilySizes.fit(nameless, np.arange(4)).of(nameless, np.arange(6)).tolist() == [4] * 6


# --- the whole ----------------------------------------------------------------------------------------


def problem_of(families: Features) -> Problem:
    """Six families' rows, repeated with dense columns of their own."""
    rng = np.random.default_rng(5)
    rows = np.tile(np.arange(6), 20)
    X = replace(families.take(rows), dense=rng.normal(size=(120, 2)).astype(np.float32), names=("a", "b"))
    y = 7 + X.dense @ [1.0, -0.5] + rng.normal(0, 0.1, 120)
    return Problem(X, y, np.full(120, "="), np.ones(120), np.flatnonzero(rows < 4), np.flatnonzero(rows == 4))


@pytest.fixture
def blend(families: Features) -> tuple[Blended, Problem]:
    """A ridge on the dense columns, a tiny ensemble of networks, and a mean for families of at most 20 rows."""
    problem = problem_of(families)
    dense, none = np.arange(2), np.empty(0, np.intp)
    X = problem.X
    assert isinstance(X, Features)
    network = MODELS.load("mlp")((4,), members=2, batch_norm=False).build(2, seed=1, n_sparse=5)
    models: dict[str, tuple[str, Predictive]] = {
        "linear": ("ridge", MODELS.load("ridge")().fit(replace(problem, X=X.columns(dense, none)))),
        "network": ("mlp", network),
        "mean": ("training_mean", MODELS.load("training_mean")().fit(problem)),
    }
    parts = {
        "linear": BlendPart(*models["linear"], dense, none),
        "network": BlendPart(*models["network"]),
        "mean": BlendPart(*models["mean"], largest_family=20),
    }
    gate = Gate(np.random.default_rng(0).normal(size=(3, 7)))
    shares = {"linear": 0.5, "network": 0.3, "mean": 0.2}
    return Blended(parts, gate, FamilySizes.fit(X, problem.train), shares), problem


def test_a_blend_keeps_the_contract_and_comes_back_from_a_file(blend: tuple[Blended, Problem], tmp_path: Path) -> None:
    model, problem = blend
    assert isinstance(model, Predictive)
    assert model.describe().startswith("blend of 3: linear 50 % (ridge on 2 dense and 0 sparse columns, penalty")
    assert "\n" not in model.describe()
    save_state(tmp_path / "state.pth", "model", model.state())
    again = Blend.from_state(load_state(tmp_path / "state.pth", "model"))
    for one, other in zip(model.predict_with_sd(problem.X), again.predict_with_sd(problem.X), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.describe() == model.describe()
    assert again.families.sizes == model.families.sizes
    rows = np.array([7, 3, 100])
    np.testing.assert_allclose(model.predict(problem.X, rows), model.predict(problem.X)[rows], rtol=1e-6)
    assert len(model.predict(problem.X, np.empty(0, np.intp))) == 0


def test_a_part_is_silent_about_large_families(blend: tuple[Blended, Problem]) -> None:
    model, problem = blend
    assert isinstance(problem.X, Features)
    opinions = predict_parts(model.parts, model.families, problem.X, np.arange(6))
    variances, speaks = opinions.variances, opinions.speaks
    assert opinions.sizes.tolist() == [40, 40, 20, 20, 0, 0]
    # Rows 0 and 1 are one family, of 40 training rows; 2 and 3 have 20 each; 4 and 5 are strangers, of none.
    assert speaks[:, 2].tolist() == [False, False, True, True, True, True]
    assert speaks[:, :2].all()
    expected = (model.gate.weights(opinions) * opinions.predictions).sum(axis=1)
    np.testing.assert_allclose(model.predict(problem.X, np.arange(6)), expected)
    assert (model.gate.weights(opinions)[:2, 2] == 0).all()
    assert (variances[:, 1] > 0).all()
    assert (variances[:, 0] == 0).all()


def test_a_part_that_is_silent_about_all_rows_is_not_asked(blend: tuple[Blended, Problem]) -> None:
    model, problem = blend
    assert isinstance(problem.X, Features)
    nobody: Any = None  # asking it would be an error
    never = replace(model.parts["mean"], model=nobody)
    parts = {**model.parts, "mean": never}
    speaks = predict_parts(parts, model.families, problem.X, np.arange(2)).speaks
    assert not speaks[:, 2].any()


def test_the_spread_is_that_of_the_mixture(blend: tuple[Blended, Problem]) -> None:
    model, problem = blend
    assert isinstance(problem.X, Features)
    rows = np.arange(6)
    opinions = predict_parts(model.parts, model.families, problem.X, rows)
    weights = model.gate.weights(opinions)
    mean, sd = model.predict_with_sd(problem.X, rows)
    second_moment = (weights * (opinions.predictions**2 + opinions.variances)).sum(axis=1)
    np.testing.assert_allclose(sd, np.sqrt(second_moment - mean**2))
    alone = replace(model, parts={"linear": model.parts["linear"]}, gate=Gate(np.zeros((1, 7))))
    assert alone.predict_with_sd(problem.X, rows)[1].tolist() == [0.0] * 6


def test_parts_go_to_a_device_as_what_their_models_become(blend: tuple[Blended, Problem]) -> None:
    model = blend[0]

    class Elsewhere:
        def to(self, device: torch.device) -> Predictive:
            return model.parts["linear"].model

    elsewhere: Any = Elsewhere()
    there = replace(model, parts={**model.parts, "linear": BlendPart("ridge", elsewhere)})
    assert there.to(torch.device("cpu")).parts["linear"].model is model.parts["linear"].model
    assert list(there.parts) == list(model.parts)


def test_a_part_sees_its_own_columns_and_residues_where_it_reads_them(families: Features) -> None:
    residues = ChainResidues(
        np.zeros(1, np.uint8), np.zeros(1, np.int16), np.array([0, 1]), np.zeros((6, 3), int), np.zeros((1, 0), "f2")
    )
    X = replace(families, residues=residues)
    model: Any = None
    view = BlendPart("mlp", model, np.array([], int), np.array([1, 4])).view(X)
    assert (view.names, view.sparse_names) == ((), ("heavy family 0", "antigen family 10"))
    assert view.residues is None
    assert BlendPart("attention", model, np.array([0]), np.array([], int), residues=True).view(X).residues is residues
    assert BlendPart("mlp", model).view(X) is X
