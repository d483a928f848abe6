from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tailbind.checkpoint import load_state, save_state
from tailbind.errors import FeatureError
from tailbind.features.columns import Columns, FittedColumns
from tailbind.features.pipeline import FeaturePipeline, column_prefix
from tailbind.table.schema import AffinityTable

Parts = dict[str, np.ndarray]


def rearranged(table: AffinityTable, order: list[int]) -> AffinityTable:
    return replace(
        table, features=table.features[:, order], feature_names=tuple(table.feature_names[index] for index in order)
    )


def test_the_tables_own_matrix_is_handed_on(table: AffinityTable, parts: Parts) -> None:
    features = Columns().fit(table, parts["train"]).transform(table)
    assert features.dense is table.features
    assert features.names == table.feature_names


def test_standardising_gives_training_rows_mean_0_and_sd_1(table: AffinityTable, parts: Parts) -> None:
    before = table.features.copy()
    dense = Columns(standardize=True).fit(table, parts["train"]).transform(table).dense
    train = dense[parts["train"]].astype(np.float64)
    assert train.mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert train.std(axis=0) == pytest.approx(1, abs=1e-5)
    assert dense.dtype == np.float32
    assert np.abs(dense[parts["test"]].mean(axis=0)).max() > 1e-3
    np.testing.assert_array_equal(table.features, before)


def test_nothing_is_learned_from_other_rows(table: AffinityTable, parts: Parts) -> None:
    spoiled = table.features.copy()
    spoiled[parts["val"]], spoiled[parts["test"]] = 1e6, np.nan
    clean = Columns(standardize=True).fit(table, parts["train"])
    other = Columns(standardize=True).fit(replace(table, features=spoiled), parts["train"])
    np.testing.assert_array_equal(clean.mean, other.mean)
    np.testing.assert_array_equal(clean.scale, other.scale)


def test_a_constant_column_becomes_0_and_stays_finite(table: AffinityTable, parts: Parts) -> None:
    constant = table.features.copy()
    constant[:, 3] = 2.5
    spoiled = replace(table, features=constant)
    dense = Columns(standardize=True).fit(spoiled, parts["train"]).transform(spoiled).dense
    assert not dense[:, 3].any()
    assert np.isfinite(dense).all()


@pytest.mark.parametrize("standardize", [False, True])
def test_columns_in_another_order_are_found_by_name(table: AffinityTable, parts: Parts, standardize: bool) -> None:
    fitted = Columns(standardize=standardize).fit(table, parts["train"])
    expected = fitted.transform(table)
    order = np.random.default_rng(0).permutation(len(table.feature_names)).tolist()
    got = fitted.transform(rearranged(table, order))
    np.testing.assert_array_equal(got.dense, expected.dense)
    assert got.names == expected.names


def test_more_columns_than_the_model_knows_are_left_out(table: AffinityTable, parts: Parts) -> None:
    small = rearranged(table, [0, 1, 2])
    fitted = Columns().fit(small, parts["train"])
    np.testing.assert_array_equal(fitted.transform(table).dense, small.features)


def test_a_missing_column_is_named_with_its_file(table: AffinityTable, parts: Parts) -> None:
    fitted = Columns().fit(table, parts["train"])
    with pytest.raises(
        FeatureError,
        match=r"simulated\.csv must have the 12 feature columns the model was trained on, esm2_pca_0 … esm2_pca_11; "
        r"2 missing, first esm2_pca_4\. Add them",
    ):
        fitted.transform(rearranged(table, [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]))


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("pca", [0, 4])
def test_the_state_rebuilds_it_to_the_bit_through_a_file(
    table: AffinityTable, parts: Parts, tmp_path: Path, standardize: bool, pca: int
) -> None:
    options = Columns("esm2_pca_", standardize, pca)
    fitted = options.fit(table, parts["train"])
    save_state(tmp_path / "a.pth", "model", {"features": fitted.state()})
    again = options.from_state(load_state(tmp_path / "a.pth", "model")["features"])
    assert isinstance(again, FittedColumns)
    np.testing.assert_array_equal(again.transform(table).dense, fitted.transform(table).dense)
    assert again.names == fitted.names
    assert again.prefix == "esm2_pca_"


@pytest.fixture
def holed(table: AffinityTable, parts: Parts) -> AffinityTable:
    """The table with an empty column in two of its test rows, as a table to predict for may have."""
    features = table.features.copy()
    features[parts["test"][0], 3] = np.nan
    features[parts["test"][1]] = np.nan
    return replace(table, features=features)


@pytest.mark.parametrize("standardize", [False, True])
def test_components_are_those_of_scikit_learn_on_training_rows(
    table: AffinityTable, parts: Parts, standardize: bool
) -> None:
    train = table.features[parts["train"]].astype(np.float64)
    steps = [StandardScaler()] if standardize else []
    judge = make_pipeline(*steps, PCA(4, svd_solver="full")).fit(train)
    expected = judge.transform(table.features.astype(np.float64))
    features = Columns(standardize=standardize, pca=4).fit(table, parts["train"]).transform(table)
    signs = np.sign((features.dense * expected).sum(axis=0))
    np.testing.assert_allclose(features.dense * signs, expected, atol=1e-4)
    assert features.names == ("esm2_pca_ pca 0", "esm2_pca_ pca 1", "esm2_pca_ pca 2", "esm2_pca_ pca 3")
    assert features.dense.dtype == np.float32


@pytest.mark.parametrize("standardize", [False, True])
def test_components_are_learned_from_training_rows_in_any_order(
    table: AffinityTable, parts: Parts, standardize: bool
) -> None:
    spoiled = table.features.copy()
    spoiled[parts["val"]], spoiled[parts["test"]] = 1e6, np.nan
    options = Columns(standardize=standardize, pca=3)
    clean = options.fit(table, parts["train"])
    other = options.fit(replace(table, features=spoiled), parts["train"])
    assert clean.reduction is not None
    assert other.reduction is not None
    np.testing.assert_array_equal(clean.reduction.components, other.reduction.components)
    backwards = options.fit(table, parts["train"][::-1].copy())
    np.testing.assert_allclose(backwards.transform(table).dense, clean.transform(table).dense, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("standardize", [False, True])
def test_an_incomplete_row_is_incomplete_in_its_components(
    table: AffinityTable, parts: Parts, holed: AffinityTable, standardize: bool
) -> None:
    fitted = Columns(standardize=standardize, pca=3).fit(table, parts["train"])
    features = fitted.transform(holed)
    gone = np.zeros(len(table), bool)
    gone[parts["test"][:2]] = True
    assert np.isnan(features.dense[gone]).all()
    np.testing.assert_array_equal(features.complete, ~gone)
    np.testing.assert_array_equal(features.dense[~gone], fitted.transform(table).dense[~gone])


def test_components_of_some_rows_are_those_of_all(table: AffinityTable, parts: Parts) -> None:
    fitted = Columns(pca=5).fit(table, parts["train"])
    every = fitted.transform(table).dense
    some = fitted.transform(replace(table, frame=table.frame[7:20], features=table.features[7:20])).dense
    np.testing.assert_allclose(some, every[7:20], rtol=1e-6, atol=1e-6)
    assert fitted.transform(replace(table, frame=table.frame[:0], features=table.features[:0])).dense.shape == (0, 5)


def test_more_components_than_columns_are_refused(table: AffinityTable, parts: Parts) -> None:
    with pytest.raises(FeatureError, match=r"PCA must have 1 to 12 components here"):
        Columns(pca=13).fit(table, parts["train"])


def test_a_state_of_before_pca_still_loads(table: AffinityTable, parts: Parts) -> None:
    fitted = Columns(standardize=True).fit(table, parts["train"])
    state = fitted.state()
    del state["pca"]
    again = Columns(standardize=True).from_state(state)
    np.testing.assert_array_equal(again.transform(table).dense, fitted.transform(table).dense)


def test_a_pipeline_puts_blocks_side_by_side_and_comes_back(table: AffinityTable, parts: Parts) -> None:
    options = {"columns": Columns(), "scaled": Columns(standardize=True)}
    pipeline = FeaturePipeline.fit(dict.fromkeys(options, "columns"), options, table, parts["train"])
    features = pipeline.transform(table)
    assert features.dense.shape == (len(table), 24)
    assert features.names == table.feature_names * 2
    np.testing.assert_array_equal(features.dense[:, :12], table.features)
    again = FeaturePipeline.from_state(pipeline.state())
    np.testing.assert_array_equal(again.transform(table).dense, features.dense)
    assert again.options == options
    assert column_prefix(again.blocks) == "esm2_pca_"
    assert column_prefix({}) is None


def test_a_single_block_is_not_copied(table: AffinityTable, parts: Parts) -> None:
    pipeline = FeaturePipeline.fit({"columns": "columns"}, {"columns": Columns()}, table, parts["train"])
    assert pipeline.transform(table).dense is table.features
