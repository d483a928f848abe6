import builtins
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from tailbind.checkpoint import load_state, save_state
from tailbind.errors import FeatureError, RecipeError, TailbindError
from tailbind.models.contract import ClosedForm, Predictive, Problem
from tailbind.models.trees import BoostedTrees, Trees, _OneSided
from tailbind.options import read_options
from tailbind.table.features import Features

N = 1_200
FEW = Trees(n_trees=80, num_leaves=15, feature_fraction=1.0)


def problem(**changes: object) -> Problem:
    """A step in a dense column, an interaction of two sparse ones, and a little noise."""
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(N, 4)).astype(np.float32)
    lit = rng.random((N, 30)) < 0.3
    lit[:, 20:] = False
    lit[:3, 20:] = True  # too rare to split a leaf
    y = 7 + (dense[:, 0] > 0) + 1.5 * (lit[:, 0] & lit[:, 1]) + rng.normal(scale=0.05, size=N)
    X = Features(dense, tuple("abcd"), csr_array(lit.astype(np.float32)), tuple(f"s{column}" for column in range(30)))
    whole = Problem(X, y, np.full(N, "="), np.ones(N), np.arange(800), np.arange(800, 1000))
    return replace(whole, **changes)


@pytest.fixture(scope="module")
def grown() -> BoostedTrees:
    return FEW.fit(problem())


def test_trees_learn_a_step_and_an_interaction_of_sparse_columns(grown: BoostedTrees) -> None:
    task = problem()
    test = np.arange(1000, N)
    errors = grown.predict(task.X, test) - task.y[test]
    assert np.sqrt(np.square(errors).mean()) < 0.15 < np.std(task.y[test])
    assert grown.columns.tolist() == list(range(20))
    assert isinstance(FEW, ClosedForm)
    assert isinstance(grown, Predictive)
    assert grown.to(torch.device("cpu")) is grown


def test_trees_are_lightgbm_s_on_the_same_matrix() -> None:
    task = problem(weight=np.random.default_rng(1).uniform(0.5, 2, N))
    model = replace(FEW, patience=0).fit(task)
    matrix = np.hstack([task.X.dense, task.X.sparse.toarray()[:, :20]])
    offset = task.y[:800].mean()
    parameters = {
        "learning_rate": 0.1, "num_leaves": 15, "min_data_in_leaf": 8, "max_bin": 63, "boost_from_average": False,
        "deterministic": True, "force_col_wise": True, "verbosity": -1, "num_threads": 1, "seed": 42,
    }  # fmt: skip
    data = lgb.Dataset(matrix[:800], task.y[:800] - offset, weight=task.weight[:800])
    expected = lgb.train(parameters, data, 80).predict(matrix) + offset
    np.testing.assert_allclose(model.predict(task.X), expected, atol=1e-6)


def test_trees_do_without_sparse_columns_and_take_a_plain_array() -> None:
    task = problem()
    model = FEW.fit(replace(task, X=task.X.dense))
    assert model.predict(task.X.dense, np.arange(1000, N)).std() > 0.4
    assert "sparse" not in model.describe()


def test_the_length_is_that_of_the_least_validation_error_however_rows_are_weighted() -> None:
    rng = np.random.default_rng(3)
    task = problem()
    noisy = replace(task, y=task.y + rng.normal(scale=1.0, size=N), weight=rng.uniform(0.01, 5, N))
    options = replace(FEW, n_trees=300, patience=30)
    stopped, whole = options.fit(noisy), replace(options, patience=0).fit(noisy)
    length = stopped.boosters[0].num_trees()
    assert length < 200 < whole.boosters[0].num_trees() == 300
    matrix = np.hstack([task.X.dense, task.X.sparse.toarray()[:, :20]])[noisy.validation]
    errors = [
        np.square(whole.boosters[0].predict(matrix, num_iteration=n) + whole.offset - noisy.y[noisy.validation]).mean()
        for n in range(1, length + 31)
    ]
    assert int(np.argmin(errors)) + 1 == length


def test_a_seed_gives_the_same_trees_and_members_differ() -> None:
    options = replace(FEW, n_trees=20, feature_fraction=0.5, row_fraction=0.7, members=2)
    task = problem()
    first, second, other = options.fit(task), options.fit(task), options.fit(replace(task, seed=7))
    np.testing.assert_array_equal(first.predict_members(task.X), second.predict_members(task.X))
    members = first.predict_members(task.X)
    assert members.shape == (N, 2)
    assert (members[:, 0] != members[:, 1]).any()
    assert (members != other.predict_members(task.X)).any()
    np.testing.assert_allclose(first.predict(task.X), members.mean(axis=1))
    alone = replace(options, members=1).fit(replace(task, seed=43))
    np.testing.assert_array_equal(alone.predict(task.X), members[:, 1])


def test_threads_do_not_change_the_trees() -> None:
    task, before = problem(), torch.get_num_threads()
    options = replace(FEW, n_trees=20, feature_fraction=0.5)
    one = options.fit(task).predict(task.X)
    try:
        torch.set_num_threads(2)
        two = options.fit(task).predict(task.X)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(one, two)


def test_only_training_and_validation_labels_are_seen() -> None:
    task = problem()
    y, weight = task.y.copy(), task.weight.copy()
    y[1000:], weight[1000:] = 99, 99
    options = replace(FEW, n_trees=10)
    np.testing.assert_array_equal(
        options.fit(task).predict(task.X), options.fit(replace(task, y=y, weight=weight)).predict(task.X)
    )
    y[800:1000] = 99  # without patience, validation labels are nothing to the trees either
    options = replace(options, patience=0)
    np.testing.assert_array_equal(options.fit(task).predict(task.X), options.fit(replace(task, y=y)).predict(task.X))


def test_a_weighty_row_pulls_harder() -> None:
    task = problem()
    upper = task.X.dense[:, 1] > 0  # says nothing of y: its rows pull a constant apart only by their weight
    y = np.where(upper, 9.0, 5.0)
    blind = replace(task, X=task.X.dense[:, 2:3], y=y)
    heavy = replace(blind, weight=np.where(upper, 9.0, 1.0))
    options = replace(FEW, n_trees=200, patience=0, num_leaves=2, min_rows_per_leaf=400)
    assert options.fit(blind).predict(blind.X).mean() == pytest.approx(7.0, abs=0.15)
    assert options.fit(heavy).predict(blind.X).mean() == pytest.approx(8.6, abs=0.15)


def test_huber_heeds_outliers_less() -> None:
    task = problem()
    y = task.y.copy()
    y[:800:20] += 30
    spoilt = replace(task, y=y)
    test = np.arange(1000, N)
    errors = {}
    for objective in ("squared", "huber"):
        model = replace(FEW, objective=objective, patience=0).fit(spoilt)
        errors[objective] = np.abs(model.predict(task.X, test) - task.y[test]).mean()
    assert errors["huber"] < 0.5 * errors["squared"]


def test_one_sided_errors_by_hand() -> None:
    task = problem(
        y=np.array([6.0, 6.0, 6.0, 6.0, 6.0]),
        relation=np.array(["=", "<", "<", ">", ">"]),
        weight=np.array([2.0, 2.0, 2.0, 2.0, 2.0]),
    )
    predicted = np.array([4.0, 4.0, 7.0, 4.0, 7.0])
    censored = _OneSided(task, np.arange(5), 1.0, True)  # with the offset: 5, 5, 8, 5, 8
    gradient, curvature = censored.gradient(predicted, None)
    assert gradient.tolist() == [-2, 0, 4, -2, 0]
    assert curvature.tolist() == [2, 0, 2, 2, 0]
    assert censored.mean_square(predicted, None) == ("error", pytest.approx((1 + 4 + 1) / 5), False)
    stated = _OneSided(task, np.arange(5), 1.0, False)
    assert stated.mean_square(predicted, None)[1] == pytest.approx((1 + 1 + 4 + 1 + 4) / 5)


def test_censored_trees_go_below_a_floor_where_measured_rows_lead() -> None:
    task = problem()
    floor = 7.5
    below = (task.y < floor) & (np.arange(N) % 2 == 0)
    y, relation = np.where(below, floor, task.y), np.where(below, "<", "=")
    test = np.arange(1000, N)
    errors = {}
    for objective in ("squared", "censored"):
        model = replace(FEW, objective=objective).fit(replace(task, y=y, relation=relation))
        errors[objective] = np.sqrt(np.square(model.predict(task.X, test) - task.y[test]).mean())
    assert errors["censored"] < 0.2 < errors["squared"]


def test_censored_trees_without_a_bound_are_squared_ones() -> None:
    task = problem()
    options = replace(FEW, n_trees=30)
    np.testing.assert_allclose(
        replace(options, objective="censored").fit(task).predict(task.X), options.fit(task).predict(task.X), atol=1e-5
    )


def test_trees_come_back_from_a_file(grown: BoostedTrees, tmp_path: Path) -> None:
    task = problem()
    save_state(tmp_path / "state.pth", "model", grown.state())
    again = Trees.from_state(load_state(tmp_path / "state.pth", "model"))
    np.testing.assert_array_equal(again.predict(task.X), grown.predict(task.X))
    assert again.describe() == grown.describe()
    assert again.options == FEW


def test_rows_are_predicted_in_their_order_a_chunk_at_a_time(
    grown: BoostedTrees, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = problem()
    rows = np.array([5, 1100, 3])
    whole = grown.predict(task.X)
    np.testing.assert_array_equal(grown.predict(task.X, rows), whole[rows])
    assert grown.predict(task.X, np.empty(0, np.intp)).shape == (0,)
    monkeypatch.setattr("tailbind.models.contract.CHUNK", 100)
    np.testing.assert_array_equal(grown.predict(task.X), whole)


def test_trees_say_what_they_are_and_are_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    model = replace(FEW, n_trees=5, patience=0, members=2).fit(problem())
    assert model.describe() == ("2 times 5 boosted trees of up to 15 leaves on 4 dense and 20 of 30 sparse columns")
    assert capfd.readouterr() == ("", "")


def test_other_features_than_those_of_training_are_refused(grown: BoostedTrees) -> None:
    with pytest.raises(FeatureError, match="must have 4 dense and 30 sparse columns, as in training; got 3 and 0"):
        grown.predict(np.zeros((2, 3), np.float32))


def test_few_rows_are_enough() -> None:
    task = problem(train=np.arange(30), validation=np.empty(0, np.intp))
    assert np.isfinite(FEW.fit(task).predict(task.X)).all()


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"model\.objective must be one of squared, huber, censored; got 'tobit'"):
        read_options(Trees, {"objective": "tobit"}, "model")
    with pytest.raises(RecipeError, match=r"model\.max_bin must be at least 2 and at most 255; got 1000"):
        read_options(Trees, {"max_bin": 1000}, "model")


def test_a_library_that_lightgbm_needs_and_does_not_find_is_one_line(
    grown: BoostedTrees, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, honest = grown.state(), builtins.__import__

    def without_openmp(name: str, *arguments: object, **options: object) -> object:
        if name == "lightgbm":
            raise OSError("libgomp.so.1: cannot open shared object file: No such file or directory")
        return honest(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_openmp)
    for attempt in (lambda: FEW.fit(problem()), lambda: BoostedTrees.from_state(state)):
        with pytest.raises(
            TailbindError, match=r"must find OpenMP.*; loading it failed: libgomp\.so\.1: .* libgomp1 on"
        ) as caught:
            attempt()
        assert "\n" not in str(caught.value)
