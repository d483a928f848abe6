from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tailbind.errors import FeatureError
from tailbind.features.category import Category
from tailbind.features.pipeline import FeaturePipeline, column_prefix, reads_sequences
from tailbind.models.mlp import Mlp
from tailbind.table.schema import AffinityTable


def with_column(table: AffinityTable, name: str, values: list[str | None]) -> AffinityTable:
    """The first rows of a table, with a column of these values."""
    first = table.stretch(slice(0, len(values)))
    return replace(first, frame=first.frame.with_columns(pl.Series(name, values, dtype=pl.String)))


def test_a_column_per_value_that_training_had(table: AffinityTable) -> None:
    small = with_column(table, "assay", ["b", "a", "", "b", "new", None])
    features = Category("assay").fit(small, np.array([0, 1, 2])).transform(small)
    assert features.sparse_names == ("no assay", "assay a", "assay b")
    assert features.sparse is not None
    assert features.sparse.toarray().tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert features.unseen is not None
    assert features.unseen.tolist() == ["", "", "", "", "assay new", ""]
    assert features.dense.shape == (6, 0)
    assert features.complete.all()


def test_an_empty_cell_that_training_never_saw_is_told(table: AffinityTable) -> None:
    small = with_column(table, "assay", ["b", "a", ""])
    features = Category("assay").fit(small, np.array([0, 1])).transform(small)
    assert features.unseen is not None
    assert features.unseen.tolist() == ["", "", "no assay"]


def test_a_table_without_the_column_gets_zeros_and_is_told(table: AffinityTable) -> None:
    fitted = Category("assay").fit(with_column(table, "assay", ["b", "a"]), np.arange(2))
    features = fitted.transform(table.stretch(slice(0, 4)))
    assert features.sparse is not None
    assert features.sparse.shape == (4, 2)
    assert features.sparse.nnz == 0
    assert features.unseen is not None
    assert set(features.unseen) == {"table without assay"}


def test_a_column_that_there_is_not_cannot_be_learned(table: AffinityTable) -> None:
    with pytest.raises(
        FeatureError, match=r"simulated.csv must have the column .* 'asay'; it has none\. Known: row_id"
    ):
        Category("asay").fit(table, np.arange(3))


def test_it_goes_through_the_pipeline_and_comes_back(table: AffinityTable, parts: dict[str, np.ndarray]) -> None:
    blocks = {"category": Category()}
    assert column_prefix(blocks) is None
    assert not reads_sequences(blocks)
    pipeline = FeaturePipeline.fit({"category": "category"}, blocks, table, parts["train"])
    again = FeaturePipeline.from_state(pipeline.state()).transform(table)
    features = pipeline.transform(table)
    assert again.sparse is not None
    assert features.sparse is not None
    assert (again.sparse != features.sparse).nnz == 0
    assert again.sparse_names == features.sparse_names


def test_a_network_needs_no_dense_column(table: AffinityTable, parts: dict[str, np.ndarray]) -> None:
    features = Category().fit(table, parts["train"]).transform(table)
    network = Mlp((8,), embedding_dim=4).build(0, seed=0, n_sparse=features.n_sparse)
    network.make_ready(features, parts["train"], np.empty(0, np.bool_))
    predicted = network.predict(features)
    for source in np.unique(table.source):
        assert np.ptp(predicted[table.source == source]) < 1e-6
    assert np.ptp(predicted) > 1e-3
