"""Public measurements, where they lie beside the checkout: read as they are, split as promised."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tailbind
from tailbind.scale import bin_index
from tailbind.table.schema import AffinityTable
from tailbind.table.splitting import GroupSplit, PairSplit, pair_index, part_rows

DATA = Path(__file__).parents[2] / "shared" / "data"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not DATA.is_dir(), reason=f"no public measurements in {DATA.parent.name}/data beside the checkout"
    ),
]


@pytest.fixture(scope="module")
def pool() -> AffinityTable:
    return tailbind.read_table(DATA / "affinity_pool.parquet", feature_prefix=None)


def test_the_pool_is_read_whole(pool: AffinityTable) -> None:
    assert len(pool) == 306_154
    assert np.bincount(bin_index(pool.pkd)).tolist() == [6_720, 173_248, 73_995, 51_990, 201]
    assert (pool.relation == "<").sum() == 160_162
    assert {"parent", "assay", "origin"} <= set(pool.frame.columns)


def test_no_pair_of_the_pool_is_on_two_sides(pool: AffinityTable) -> None:
    rows = part_rows(PairSplit()(pool.frame))
    pairs = pair_index(pool.frame)
    train, val, test = (set(pairs[members].tolist()) for members in rows.values())
    assert not train & val
    assert not train & test
    assert not val & test
    assert 0.13 < len(test) / (len(train) + len(val) + len(test)) < 0.17


def test_no_antigen_cluster_is_on_two_sides() -> None:
    table = tailbind.read_table(DATA / "multi_antigen.parquet", feature_prefix=None)
    assert len(table) == 2_089
    parts = pl.Series(GroupSplit(column="ag_cluster")(table.frame))
    clusters = table.frame.with_columns(part=parts).group_by("ag_cluster").agg(pl.col("part").n_unique())
    assert clusters["part"].max() == 1
    assert set(parts) == {"train", "val", "test"}


def test_a_merged_csv_is_read_as_it_is() -> None:
    table = tailbind.read_table(DATA / "mixed_scales.csv", feature_prefix=None)
    assert len(table) == 23_382
    assert len(np.unique(table.source)) == 8
