"""Whatever predicts keeps the one contract."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from tailbind.checkpoint import load_state, save_state
from tailbind.models import MODELS
from tailbind.models.contract import ClosedForm, Predictive, Problem
from tailbind.table.features import Features

NETWORKS = [name for name in MODELS if hasattr(MODELS.load(name), "build")]
CLOSED_FORMS = [name for name in MODELS if hasattr(MODELS.load(name), "fit")]


@pytest.fixture(scope="module")
def problem() -> Problem:
    """80 rows of three dense and four sparse columns, of which the labels are nearly a linear function."""
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(80, 3)).astype(np.float32)
    sparse = (rng.random((80, 4)) < 0.3).astype(np.float32)
    y = 7 + dense @ [1.0, -0.5, 0.0] + sparse @ [0.5, 0.0, -1.0, 1.0] + rng.normal(scale=0.1, size=80)
    X = Features(dense, ("a", "b", "c"), csr_array(sparse), ("s0", "s1", "s2", "s3"))
    order = rng.permutation(80)
    return Problem(X, y, np.full(80, "="), np.ones(80), order[:60], order[60:70])


def test_a_model_learns_in_epochs_or_at_once_or_is_put_together() -> None:
    assert sorted([*NETWORKS, *CLOSED_FORMS, "blend"]) == sorted(MODELS)
    assert callable(MODELS.load("blend").from_state)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_s_options_build_one_that_predicts(name: str) -> None:
    options = MODELS.load(name)
    assert isinstance(options().build(3, seed=0), Predictive)
    assert not isinstance(options(), ClosedForm)
    assert callable(options.from_state)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_closed_form_s_options_fit_one_that_comes_back_from_a_file(
    name: str, problem: Problem, tmp_path: Path
) -> None:
    options = MODELS.load(name)()
    assert isinstance(options, ClosedForm)
    assert "mse" in options.losses
    model = options.fit(problem)
    assert isinstance(model, Predictive)
    assert model.to(torch.device("cpu")) is model
    assert "\n" not in model.describe()
    save_state(tmp_path / "state.pth", "model", model.state())
    again = type(options).from_state(load_state(tmp_path / "state.pth", "model"))
    rows = np.array([79, 3, 5])
    predicted = model.predict(problem.X)
    assert predicted.shape == (80,)
    assert np.isfinite(predicted).all()
    np.testing.assert_array_equal(again.predict(problem.X), predicted)
    np.testing.assert_allclose(model.predict(problem.X, rows), predicted[rows], rtol=1e-5)
    mean, sd = model.predict_with_sd(problem.X, rows)
    np.testing.assert_allclose(mean, predicted[rows], rtol=1e-5)
    assert sd is None
    assert len(model.predict(problem.X, np.empty(0, np.intp))) == 0


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_closed_form_looks_at_no_label_that_is_neither_for_training_nor_for_validation(
    name: str, problem: Problem
) -> None:
    y = problem.y.copy()
    y[np.setdiff1d(np.arange(80), [*problem.train, *problem.validation])] = 100.0
    spoiled = Problem(problem.X, y, problem.relation, problem.weight, problem.train, problem.validation)
    options = MODELS.load(name)()
    np.testing.assert_array_equal(options.fit(spoiled).predict(problem.X), options.fit(problem).predict(problem.X))


@pytest.mark.parametrize("name", [name for name in CLOSED_FORMS if MODELS.load(name).takes_weights])
def test_weights_that_are_taken_have_a_say(name: str, problem: Problem) -> None:
    weight = np.where(problem.y > np.median(problem.y), 10.0, 0.1)
    weighted = Problem(problem.X, problem.y, problem.relation, weight, problem.train, problem.validation)
    options = MODELS.load(name)()
    assert np.abs(options.fit(weighted).predict(problem.X) - options.fit(problem).predict(problem.X)).max() > 1e-3
