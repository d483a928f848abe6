import json

import numpy as np
import pytest
from sklearn.linear_model import Ridge as JudgeRidge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tailbind.models import contract
from tailbind.models.baselines import NearestNeighbour, Ridge, SourceMean, TrainingMean
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
    assert again.points.dtype == np.float32


def test_the_nearest_neighbour_bears_a_constant_column(table: AffinityTable, parts: Parts) -> None:
    X = np.hstack([table.features, np.full((len(table), 1), 3.0, np.float32)])
    predicted = NearestNeighbour().fit(X, table.pkd, parts["train"]).predict(X, parts["test"])
    plain = NearestNeighbour().fit(table.features, table.pkd, parts["train"]).predict(table.features, parts["test"])
    np.testing.assert_array_equal(predicted, plain)
