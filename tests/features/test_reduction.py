from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from tailbind.checkpoint import load_state, save_state
from tailbind.errors import FeatureError
from tailbind.features.reduction import STRETCH, Reduction, fit_pca


def cloud(n: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * np.linspace(3, 0.2, d) + 10).astype(np.float32)


@given(st.integers(3, 60), st.integers(2, 12), st.integers(0, 5))
@settings(deadline=None, max_examples=40)
def test_it_agrees_with_scikit_learn_up_to_the_sign(n: int, d: int, seed: int) -> None:
    X = cloud(n, d, seed)
    k = min(n - 1, d)
    judge = PCA(n_components=k, svd_solver="full").fit(X.astype(np.float64))
    ours = fit_pca(X, k)
    np.testing.assert_allclose(ours.explained, judge.explained_variance_ratio_, atol=1e-5)
    own, his = ours.transform(X), judge.transform(X.astype(np.float64))
    signs = np.sign((own * his).sum(axis=0))
    np.testing.assert_allclose(own * signs, his, atol=2e-3)


def test_more_than_one_stretch_of_rows_changes_nothing() -> None:
    X = cloud(2 * STRETCH + 100, 4)
    judge = PCA(n_components=2, svd_solver="full").fit(X.astype(np.float64))
    ours = fit_pca(X, 2)
    np.testing.assert_allclose(np.abs(ours.components), np.abs(judge.components_), atol=1e-5)
    np.testing.assert_allclose(ours.transform(X)[-1], ours.transform(X[-1:])[0], atol=0)


def test_a_weight_is_a_number_of_copies_and_no_weight_is_no_row() -> None:
    X = cloud(50, 6)
    counts = np.random.default_rng(1).integers(0, 5, 50)
    once = fit_pca(X, 3, weights=counts)
    copied = fit_pca(np.repeat(X, counts, axis=0), 3)
    np.testing.assert_allclose(once.components, copied.components, atol=1e-5)
    np.testing.assert_allclose(once.mean, copied.mean, rtol=1e-6)
    spoiled = X.copy()
    spoiled[counts == 0] = np.nan
    np.testing.assert_array_equal(fit_pca(spoiled, 3, weights=counts).components, once.components)


def test_the_largest_entry_of_a_component_is_positive_so_that_the_sign_is_no_accident() -> None:
    X = cloud(40, 5)
    for turned in (X, -X):
        components = fit_pca(turned, 5).components
        assert (components[np.arange(5), np.abs(components).argmax(axis=1)] > 0).all()


def test_a_row_comes_out_the_same_alone_and_among_others_and_nan_stays_nan() -> None:
    X = cloud(100, 8)
    reduction = fit_pca(X, 4)
    X[7] = np.nan
    whole = reduction.transform(X)
    assert whole.dtype == np.float32
    assert np.isnan(whole[7]).all()
    assert np.isfinite(np.delete(whole, 7, axis=0)).all()
    np.testing.assert_array_equal(whole[:20], np.vstack([reduction.transform(X[i : i + 1]) for i in range(20)]))


def test_columns_without_variance_are_no_trouble() -> None:
    reduction = fit_pca(np.full((5, 3), 2.0, np.float32), 3)
    assert reduction.explained.tolist() == [0, 0, 0]
    assert not reduction.transform(np.full((1, 3), 2.0, np.float32)).any()


@pytest.mark.parametrize(("n", "d", "k", "limit"), [(5, 8, 6, 5), (50, 4, 5, 4), (50, 4, 0, 4)])
def test_components_beyond_rows_or_columns_are_refused(n: int, d: int, k: int, limit: int) -> None:
    with pytest.raises(FeatureError, match=rf"must have 1 to {limit} components here.*got {k}\. Ask for fewer"):
        fit_pca(cloud(n, d), k)


def test_what_is_not_finite_is_refused() -> None:
    X = cloud(10, 3)
    X[4, 1] = np.inf
    with pytest.raises(FeatureError, match="PCA must have finite numbers"):
        fit_pca(X, 2)


def test_another_number_of_columns_is_refused() -> None:
    with pytest.raises(FeatureError, match="fitted on 3 columns; got 4"):
        fit_pca(cloud(10, 3), 2).transform(cloud(5, 4))


def test_the_state_rebuilds_it_to_the_bit_through_a_file(tmp_path: Path) -> None:
    X = cloud(30, 6)
    reduction = fit_pca(X, 4)
    save_state(tmp_path / "a.pth", "model", {"pca": reduction.state()})
    again = Reduction.from_state(load_state(tmp_path / "a.pth", "model")["pca"])
    np.testing.assert_array_equal(again.transform(X), reduction.transform(X))
