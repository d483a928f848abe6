import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import Ridge as JudgeRidge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tailbind.checkpoint import load_state, save_state
from tailbind.errors import FeatureError, RecipeError
from tailbind.features.category import Category
from tailbind.models import contract, least_squares, neighbours
from tailbind.models.baselines import (
    ALPHAS,
    NearestNeighbour,
    NearestNeighbourOptions,
    PatternMean,
    Ridge,
    RidgeOptions,
    SourceMean,
    SourceMeanOptions,
    TrainingMean,
)
from tailbind.models.contract import Problem
from tailbind.models.neighbours import Neighbours
from tailbind.table.features import Features
from tailbind.table.schema import AffinityTable

Parts = dict[str, np.ndarray]


def test_the_training_mean_is_of_training_rows(table: AffinityTable, parts: Parts) -> None:
    model = TrainingMean().fit(table.features, table.pkd, parts["train"])
    predicted = model.predict(table.features, parts["test"])
    assert predicted.tolist() == [table.pkd[parts["train"]].mean()] * len(parts["test"])
    assert len(model.predict(table.features)) == len(table)
    assert TrainingMean.from_state(model.state()) == model


def test_the_source_mean_by_hand() -> None:
    source = np.array(["a", "a", "b", "b", "new", ""])
    y = np.array([4.0, 6.0, 9.0, 100.0, 100.0, 100.0])
    model = SourceMean().fit(source, y, np.array([0, 1, 2]))
    assert model.means == {"a": 5.0, "b": 9.0}
    assert model.predict(source) == pytest.approx([5.0, 5.0, 9.0, 9.0, 19 / 3, 19 / 3])
    assert model.predict(source, np.array([2, 0])).tolist() == [9.0, 5.0]
    assert model.predict(source, np.empty(0, np.intp)).shape == (0,)
    assert SourceMean.from_state(json.loads(json.dumps(model.state()))) == model


@pytest.mark.parametrize("alpha", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("chunk", [16_384, 100])
def test_ridge_is_scikit_learns_after_its_scaler(
    table: AffinityTable, parts: Parts, monkeypatch: pytest.MonkeyPatch, alpha: float, chunk: int
) -> None:
    monkeypatch.setattr(contract, "CHUNK", chunk)
    X, y, train = table.features.astype(np.float64), table.pkd, parts["train"]
    judge = make_pipeline(StandardScaler(), JudgeRidge(alpha)).fit(X[train], y[train])
    model = Ridge(alpha).fit(table.features, y, train)
    np.testing.assert_allclose(model.predict(table.features), judge.predict(X), rtol=1e-6)
    np.testing.assert_allclose(model.predict(table.features, parts["test"]), judge.predict(X[parts["test"]]), rtol=1e-6)


def test_ridge_bears_a_constant_column_and_copies(table: AffinityTable, parts: Parts) -> None:
    X = np.hstack([table.features, np.full((len(table), 1), 3.0, np.float32), table.features[:, :1]])
    predicted = Ridge().fit(X, table.pkd, parts["train"]).predict(X)
    assert np.isfinite(predicted).all()
    assert (
        np.corrcoef(predicted, Ridge().fit(table.features, table.pkd, parts["train"]).predict(table.features))[0, 1]
        > 0.99
    )


def test_ridge_looks_at_training_rows_alone(table: AffinityTable, parts: Parts) -> None:
    X, y = table.features.copy(), table.pkd.copy()
    X[parts["test"]], y[parts["test"]] = 1e6, -4
    np.testing.assert_array_equal(
        Ridge().fit(X, y, parts["train"]).coefficients,
        Ridge().fit(table.features, table.pkd, parts["train"]).coefficients,
    )


def test_ridge_comes_back_from_its_state(table: AffinityTable, parts: Parts) -> None:
    before = table.features.copy()
    model = Ridge(2.0).fit(table.features, table.pkd, parts["train"])
    again = Ridge.from_state(model.state())
    np.testing.assert_array_equal(again.predict(table.features), model.predict(table.features))
    assert again.alpha == 2.0
    assert model.predict(table.features, np.empty(0, np.intp)).shape == (0,)
    np.testing.assert_array_equal(table.features, before)


def test_the_nearest_neighbour_by_hand() -> None:
    # Unscaled, the second column would decide alone; standardised, both count the same.
    X = np.array([[0, 0], [1, 1000], [2, 0], [1.9, 400], [0.2, 600], [1, 1000]], np.float32)
    y = np.array([4.0, 6.0, 9.0, 100.0, 100.0, 100.0])
    model = NearestNeighbour().fit(X, y, np.array([0, 1, 2]))
    np.testing.assert_allclose(model.mean, [1, 1000 / 3], rtol=1e-6)
    assert model.predict(X).tolist() == [4.0, 6.0, 9.0, 9.0, 6.0, 6.0]
    assert model.predict(X, np.array([4, 0])).tolist() == [6.0, 4.0]
    assert model.predict(X, np.empty(0, np.intp)).shape == (0,)


@pytest.mark.parametrize("chunk", [16_384, 50])
def test_the_nearest_neighbour_is_brute_force_s(
    table: AffinityTable, parts: Parts, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(contract, "CHUNK", chunk)
    train, test = parts["train"], parts["test"]
    model = NearestNeighbour().fit(table.features, table.pkd, train)
    scaled = StandardScaler().fit(table.features[train].astype(np.float64)).transform(table.features)
    distance = np.linalg.norm(scaled[test][:, None] - scaled[train][None], axis=2)
    predicted = model.predict(table.features, test)
    # Where two training rows are equally near to rounding, either label may be taken.
    taken = np.abs(table.pkd[train][None] - predicted[:, None]) == 0
    nearest = np.where(taken, distance, np.inf).min(axis=1)
    np.testing.assert_allclose(nearest, distance.min(axis=1), atol=2e-3)
    assert (predicted == table.pkd[train][distance.argmin(axis=1)]).mean() > 0.98


def test_the_nearest_neighbour_of_a_training_row_is_itself(table: AffinityTable, parts: Parts) -> None:
    _, first = np.unique(table.features, axis=0, return_index=True)
    train = np.intersect1d(parts["train"], first)
    model = NearestNeighbour().fit(table.features, table.pkd, train)
    assert (model.predict(table.features, train) == table.pkd[train]).mean() > 0.99


def test_the_nearest_neighbour_looks_at_training_rows_alone_and_comes_back(table: AffinityTable, parts: Parts) -> None:
    X, y = table.features.copy(), table.pkd.copy()
    X[parts["test"]], y[parts["test"]] = 1e6, -4
    model = NearestNeighbour().fit(table.features, table.pkd, parts["train"])
    other = NearestNeighbour().fit(X, y, parts["train"])
    predicted = model.predict(table.features, parts["val"])
    np.testing.assert_array_equal(other.predict(table.features, parts["val"]), predicted)
    again = NearestNeighbour.from_state(model.state())
    np.testing.assert_array_equal(again.predict(table.features, parts["val"]), predicted)
    assert again.points.dense.dtype == np.float32


def test_the_nearest_neighbour_bears_a_constant_column(table: AffinityTable, parts: Parts) -> None:
    X = np.hstack([table.features, np.full((len(table), 1), 3.0, np.float32)])
    predicted = NearestNeighbour().fit(X, table.pkd, parts["train"]).predict(X, parts["test"])
    plain = NearestNeighbour().fit(table.features, table.pkd, parts["train"]).predict(table.features, parts["test"])
    np.testing.assert_array_equal(predicted, plain)


# --- a sparse block beside the dense one -------------------------------------------------------------


def with_sparse(table: AffinityTable, n_sparse: int = 40) -> Features:
    """The table's features beside a sparse block; some of its columns are alike, constant or empty."""
    rng = np.random.default_rng(0)
    sparse = (rng.random((len(table), n_sparse)) < 0.15) * rng.choice([1.0, 2.0], (len(table), n_sparse))
    sparse[:, 1], sparse[:, 2], sparse[:, 3] = sparse[:, 0], 1.0, 0.0
    names = tuple(f"s{column}" for column in range(n_sparse))
    return Features(table.features, table.feature_names, csr_array(sparse.astype(np.float32)), names)


def judged_ridge(X: Features, y: np.ndarray, train: np.ndarray, alpha: float) -> np.ndarray:
    """Predict by scikit-learn, with the dense columns standardised and the sparse ones made dense as they are."""
    scaled = StandardScaler().fit(X.dense[train].astype(np.float64)).transform(X.dense.astype(np.float64))
    columns = np.hstack([scaled, X.sparse.toarray()])
    return JudgeRidge(alpha).fit(columns[train], y[train]).predict(columns)


@pytest.mark.parametrize("alpha", [1.0, 30.0])
@pytest.mark.parametrize(("most_exact", "tolerance"), [(2_000, 1e-6), (0, 1e-3)])
@pytest.mark.parametrize("chunk", [16_384, 100])
def test_ridge_with_a_sparse_block_is_scikit_learns(
    table: AffinityTable,
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
    alpha: float,
    most_exact: int,
    tolerance: float,
    chunk: int,
) -> None:
    monkeypatch.setattr(contract, "CHUNK", chunk)
    monkeypatch.setattr(least_squares, "MOST_EXACT", most_exact)
    X, train = with_sparse(table), parts["train"]
    model = Ridge(alpha).fit(X, table.pkd, train)
    expected = judged_ridge(X, table.pkd, train, alpha)
    np.testing.assert_allclose(model.predict(X), expected, rtol=tolerance)
    np.testing.assert_allclose(model.predict(X, parts["test"]), expected[parts["test"]], rtol=tolerance)
    assert np.abs(model.sparse_coefficients[0] - model.sparse_coefficients[1]) < 1e-3
    assert model.sparse_coefficients[3] == 0


def test_ridge_needs_no_dense_column(table: AffinityTable, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    X = replace(with_sparse(table), dense=np.zeros((len(table), 0), np.float32), names=())
    exact = Ridge().fit(X, table.pkd, parts["train"]).predict(X)
    monkeypatch.setattr(least_squares, "MOST_EXACT", 0)
    np.testing.assert_allclose(Ridge().fit(X, table.pkd, parts["train"]).predict(X), exact, rtol=1e-4)
    expected = JudgeRidge(1.0).fit(X.sparse.toarray()[parts["train"]], table.pkd[parts["train"]])
    np.testing.assert_allclose(exact, expected.predict(X.sparse.toarray()), rtol=1e-6)


@pytest.mark.parametrize("points", [2**24, 7 * 1000, 1])
def test_the_nearest_neighbour_with_a_sparse_block_is_brute_force_s(
    table: AffinityTable, parts: Parts, monkeypatch: pytest.MonkeyPatch, points: int
) -> None:
    monkeypatch.setattr(neighbours, "MOST_DISTANCES", points)
    X, train, test = with_sparse(table), parts["train"], parts["test"][:60]
    predicted = NearestNeighbour().fit(X, table.pkd, train).predict(X, test)
    scaled = StandardScaler().fit(X.dense[train].astype(np.float64)).transform(X.dense.astype(np.float64))
    columns = np.hstack([scaled, X.sparse.toarray()])
    distance = np.linalg.norm(columns[test][:, None] - columns[train][None], axis=2)
    taken = np.where(table.pkd[train][None] == predicted[:, None], distance, np.inf).min(axis=1)
    np.testing.assert_allclose(taken, distance.min(axis=1), atol=2e-3)
    dense = NearestNeighbour().fit(X.dense, table.pkd, train).predict(X.dense, test)
    assert (dense != predicted).any()


def test_with_a_sparse_block_they_come_back_from_a_file(table: AffinityTable, parts: Parts, tmp_path: Path) -> None:
    X, train, test = with_sparse(table), parts["train"], parts["test"]
    for model in (TrainingMean(), Ridge(), NearestNeighbour()):
        fitted = model.fit(X, table.pkd, train)
        save_state(tmp_path / "state.pth", "model", fitted.state())
        again = type(model).from_state(load_state(tmp_path / "state.pth", "model"))
        np.testing.assert_array_equal(again.predict(X, test), fitted.predict(X, test))


@pytest.mark.parametrize("most_exact", [2_000, 0])
def test_ridge_s_penalty_is_chosen_on_validation_rows(
    table: AffinityTable, parts: Parts, monkeypatch: pytest.MonkeyPatch, most_exact: int
) -> None:
    monkeypatch.setattr(least_squares, "MOST_EXACT", most_exact)
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(len(table), 200)).astype(np.float32)
    X = replace(
        with_sparse(table),
        dense=np.hstack([table.features, noise]),
        names=tuple(f"x{column}" for column in range(table.features.shape[1] + 200)),
    )
    train, validation = parts["train"][:150], parts["val"]  # more columns than rows
    y = table.pkd
    chosen = Ridge.chosen(X, y, train, validation)
    errors = {
        alpha: np.square(Ridge(alpha).fit(X, y, train).predict(X, validation) - y[validation]).mean()
        for alpha in ALPHAS
    }
    assert chosen.alpha == min(errors, key=errors.__getitem__) > 1
    expected = judged_ridge(X, y, train, chosen.alpha)
    np.testing.assert_allclose(chosen.predict(X), expected, rtol=1e-3)


@pytest.mark.parametrize("most_exact", [2_000, 0])
def test_a_constant_column_has_no_say_however_its_mean_is_rounded(
    monkeypatch: pytest.MonkeyPatch, most_exact: int
) -> None:
    monkeypatch.setattr(least_squares, "MOST_EXACT", most_exact)
    rng, n = np.random.default_rng(0), 49_286  # the mean of so many ones, gathered in chunks, is not quite 1
    dense = np.column_stack([rng.normal(size=n), np.ones(n), np.full(n, 0.3)]).astype(np.float32)
    sparse = csr_array((rng.random((n, 3)) < 0.01).astype(np.float32))
    y = dense[:, 0] + 7 + rng.normal(scale=0.1, size=n)
    for X in (Features(dense, ("a", "b", "c")), Features(dense, ("a", "b", "c"), sparse, ("d", "e", "f"))):
        model = Ridge().fit(X, y, np.arange(n))
        assert model.coefficients == pytest.approx([1, 0, 0], abs=0.01)
        assert model.intercept == pytest.approx(7, abs=0.01)


def test_the_nearest_neighbour_makes_few_wide_rows_dense_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = csr_array(np.eye(60, 5_000, dtype=np.float32))
    X = Features(np.zeros((60, 1), np.float32), ("x",), sparse, tuple(f"s{column}" for column in range(5_000)))
    monkeypatch.setattr("tailbind.models.neighbours.MOST_DISTANCES", 20_000)
    widths: list[int] = []
    of_piece = Neighbours._of_piece
    monkeypatch.setattr(
        Neighbours, "_of_piece", lambda self, piece: (widths.append(len(piece)), of_piece(self, piece))[1]
    )
    assert Neighbours(X).nearest(X)[:, 0].tolist() == list(range(60))
    assert max(widths) == 4


# --- options ---------------------------------------------------------------------------------------------


def problem_of(X: Features, y: np.ndarray, parts: Parts, weight: np.ndarray | None = None) -> Problem:
    relation, weight = np.full(len(y), "="), np.ones(len(y)) if weight is None else weight
    return Problem(X, y, relation, weight, parts["train"], parts["val"])


def judged_with_weights(X: Features, y: np.ndarray, train: np.ndarray, alpha: float, weight: np.ndarray) -> np.ndarray:
    scaled = StandardScaler().fit(X.dense[train].astype(np.float64)).transform(X.dense.astype(np.float64))
    columns = scaled if X.sparse is None else np.hstack([scaled, X.sparse.toarray()])
    return JudgeRidge(alpha).fit(columns[train], y[train], sample_weight=weight[train]).predict(columns)


@pytest.mark.parametrize("chunk", [16_384, 100])
@pytest.mark.parametrize(("sparse", "most_exact", "tolerance"), [(0, 2_000, 1e-6), (1, 2_000, 1e-6), (1, 0, 1e-3)])
def test_weighted_ridge_is_scikit_learns(
    table: AffinityTable,
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
    chunk: int,
    sparse: int,
    most_exact: int,
    tolerance: float,
) -> None:
    monkeypatch.setattr(contract, "CHUNK", chunk)
    monkeypatch.setattr(least_squares, "MOST_EXACT", most_exact)
    X = with_sparse(table) if sparse else Features(table.features, table.feature_names)
    weight = np.random.default_rng(2).choice([0.0, 0.3, 1.0, 8.0], len(table))
    model = RidgeOptions((10.0,)).fit(problem_of(X, table.pkd, parts, weight))
    expected = judged_with_weights(X, table.pkd, parts["train"], 10.0, weight)
    np.testing.assert_allclose(model.predict(X), expected, rtol=tolerance)
    unweighted = Ridge(10.0).fit(X, table.pkd, parts["train"]).predict(X)
    assert np.abs(expected - unweighted).max() > 0.01


@pytest.mark.parametrize("most_exact", [2_000, 0])
def test_equal_weights_are_none(
    table: AffinityTable, parts: Parts, monkeypatch: pytest.MonkeyPatch, most_exact: int
) -> None:
    monkeypatch.setattr(least_squares, "MOST_EXACT", most_exact)
    X, train = with_sparse(table), parts["train"]
    plain = Ridge(10.0).fit(X, table.pkd, train)
    np.testing.assert_allclose(
        Ridge(10.0).fit(X, table.pkd, train, np.ones(len(table))).predict(X), plain.predict(X), rtol=1e-6
    )
    # Twice the weight is half the penalty.
    doubled = Ridge(20.0).fit(X, table.pkd, train, np.full(len(table), 2.0))
    np.testing.assert_allclose(doubled.predict(X), plain.predict(X), rtol=1e-4)


def test_weights_have_no_say_in_the_choice_of_the_penalty(table: AffinityTable, parts: Parts) -> None:
    X = with_sparse(table)
    weight = np.where(table.pkd > 8, 20.0, 0.1)
    model = RidgeOptions((1.0, 1000.0)).fit(problem_of(X, table.pkd, parts, weight))
    errors = [
        np.square(judged_with_weights(X, table.pkd, parts["train"], alpha, weight) - table.pkd)[parts["val"]].mean()
        for alpha in (1.0, 1000.0)
    ]
    assert model.alpha == (1.0, 1000.0)[int(np.argmin(errors))]


def test_ridge_needs_a_penalty() -> None:
    with pytest.raises(RecipeError, match=r"model\.alphas must list one penalty or more, .*; got none"):
        RidgeOptions(())


@pytest.mark.parametrize("sparse", [False, True])
def test_several_neighbours_are_averaged_as_scikit_learn_does(table: AffinityTable, parts: Parts, sparse: bool) -> None:
    X = with_sparse(table) if sparse else Features(table.features, table.feature_names)
    _, first = np.unique(X.dense, axis=0, return_index=True)  # no two equally near
    train, test = np.intersect1d(parts["train"], first), parts["test"][:60]
    model = NearestNeighbourOptions(k=5).fit(problem_of(X, table.pkd, {**parts, "train": train}))
    scaled = StandardScaler().fit(X.dense[train].astype(np.float64)).transform(X.dense.astype(np.float64))
    columns = np.hstack([scaled, X.sparse.toarray()]) if X.sparse is not None else scaled
    judge = KNeighborsRegressor(5).fit(columns[train], table.pkd[train])
    assert (np.abs(model.predict(X, test) - judge.predict(columns[test])) < 1e-6).mean() > 0.9
    assert NearestNeighbour.from_state(model.state()).k == 5


def test_no_more_neighbours_than_there_are() -> None:
    X, y = np.eye(3, dtype=np.float32), np.array([1.0, 2.0, 6.0])
    assert NearestNeighbour(k=9).fit(X, y, np.arange(3)).predict(X).tolist() == [3.0, 3.0, 3.0]


def test_the_mean_by_category_is_the_source_mean(table: AffinityTable, parts: Parts) -> None:
    X = Category().fit(table, parts["train"]).transform(table)
    model = SourceMeanOptions().fit(problem_of(X, table.pkd, parts))
    expected = SourceMean().fit(table.source, table.pkd, parts["train"]).predict(table.source)
    np.testing.assert_array_equal(model.predict(X), expected)
    np.testing.assert_array_equal(model.predict(X, parts["test"]), expected[parts["test"]])
    assert len(np.unique(expected)) > 1
    assert PatternMean.from_state(json.loads(json.dumps(model.state()))) == model


def test_the_mean_by_pattern_by_hand() -> None:
    sparse = csr_array(np.array([[1, 0, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]], np.float32))
    X = Features(np.zeros((5, 0), np.float32), (), sparse, ("a", "b", "c"))
    model = PatternMean().fit(X, np.array([4.0, 6.0, 9.0, 100.0, 100.0]), np.arange(3))
    assert model.predict(X) == pytest.approx([5.0, 5.0, 9.0, 19 / 3, 19 / 3])
    assert model.predict(X, np.empty(0, np.intp)).shape == (0,)
    assert model.predict(X, np.array([2])).tolist() == [9.0]


def test_the_mean_by_pattern_needs_sparse_columns() -> None:
    with pytest.raises(FeatureError, match=r"source_mean needs sparse columns .* none\. Add .* \[features\.category\]"):
        PatternMean().fit(np.ones((3, 2), np.float32), np.ones(3), np.arange(3))
