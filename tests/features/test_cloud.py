"""Distances of rows of feature columns from training."""

import numpy as np
import pytest

from tailbind.features import cloud as module
from tailbind.features.cloud import fit_cloud

X = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32) * [1, 10, 100, 1, 1, 1] + 5
TRAIN = np.arange(300)


def test_a_training_row_that_is_kept_is_at_no_distance() -> None:
    cloud = fit_cloud(X, TRAIN)
    assert cloud.distance(X[:300]) == pytest.approx(np.zeros(300), abs=1e-4)
    assert (cloud.distance(X[300:]) > 0.05).all()


def test_distances_are_those_of_standardised_columns() -> None:
    cloud = fit_cloud(X, TRAIN)
    standard = (X.astype(np.float64) - X[:300].mean(axis=0)) / X[:300].astype(np.float64).std(axis=0)
    exact = [np.sqrt(np.square(standard[:300] - row).sum(axis=1).min()) for row in standard[300:]]
    assert cloud.distance(X[300:]) == pytest.approx(np.array(exact), abs=1e-3)


def test_with_few_components_a_distance_is_never_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = fit_cloud(X, TRAIN).distance(X)
    monkeypatch.setattr(module, "COMPONENTS", 2)
    assert (fit_cloud(X, TRAIN).distance(X) <= exact + 1e-4).all()


def test_a_row_unlike_training_in_a_direction_of_no_variance_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPONENTS", 1)
    flat = X.copy()
    flat[:300, 3] = 5
    cloud = fit_cloud(flat, TRAIN)
    strange = flat[:1].copy()
    strange[0, 3] = 105
    assert cloud.distance(strange)[0] > 50


def test_a_lone_group_of_rows_is_kept_however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 10)
    with_outliers = X.copy()
    with_outliers[[17, 204]] += 1000
    cloud = fit_cloud(with_outliers, TRAIN)
    assert len(cloud.points) == 10
    assert cloud.distance(with_outliers[[17, 204]]) == pytest.approx([0, 0], abs=5)


def test_only_training_rows_are_looked_at_and_stretches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = fit_cloud(X, TRAIN)
    other = X.copy()
    other[300:] = 1e6
    np.testing.assert_array_equal(fit_cloud(other, TRAIN).points, cloud.points)
    whole = cloud.distance(X, np.array([399, 3, 350]))
    monkeypatch.setattr(module, "AT_ONCE", 2)
    np.testing.assert_allclose(cloud.distance(X)[[399, 3, 350]], whole, atol=1e-6)


def test_a_row_without_features_has_no_distance() -> None:
    rows = X[:2].copy()
    rows[1, 2] = np.nan
    assert np.isnan(fit_cloud(X, TRAIN).distance(rows)).tolist() == [False, True]
