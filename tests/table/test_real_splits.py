"""Public measurements, where they lie beside the checkout: splits keep their promises on them."""

from pathlib import Path

import numpy as np
import pytest

import tailbind
from tailbind.scale import bin_index
from tailbind.table.grouping import antibody_groups, antigen_groups, find_families, pair_index
from tailbind.table.leakage import leak_report
from tailbind.table.schema import AffinityTable
from tailbind.table.splitting import (
    AntibodyClusterSplit,
    AntigenClusterSplit,
    BothColdSplit,
    GroupedSplit,
    ParentSplit,
    RandomSplit,
)

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not DATA.is_dir(), reason=f"no public measurements in {DATA.parent.name}/data beside the checkout"
    ),
]
KINDS = (AntibodyClusterSplit, AntigenClusterSplit, BothColdSplit)
#: How many groups there are, and the rows of the largest.
GROUPS = {"antibody_cluster": (456, 212), "antigen_cluster": (327, 240), "both_cold": (266, 282)}


@pytest.fixture(scope="module")
def table() -> AffinityTable:
    return tailbind.read_table(DATA / "multi_antigen.parquet", feature_prefix=None)


@pytest.fixture(scope="module")
def numbers(table: AffinityTable) -> dict[str, np.ndarray]:
    """Return what must not be on two sides, numbered."""
    return {
        "antibodies": antibody_groups(table.frame, 0.9),
        "antigens": antigen_groups(table.frame, 0.7),
        "pairs": pair_index(table.frame),
    }


def crossing(numbers: np.ndarray, parts: np.ndarray) -> int:
    """Return how many numbers are on two sides."""
    return len(set(zip(numbers.tolist(), parts.tolist(), strict=True))) - len(set(numbers.tolist()))


@pytest.mark.parametrize("cls", KINDS)
@pytest.mark.parametrize("seed", [42, 1])
def test_promises_are_kept(
    cls: type[GroupedSplit], seed: int, table: AffinityTable, numbers: dict[str, np.ndarray]
) -> None:
    parts, sizes = cls(seed=seed).divide(table.frame)
    assert (len(sizes), int(sizes.max())) == GROUPS[cls.called]
    assert sizes.sum() == len(table) == 2_089
    kept = {"pairs"} | ({"antibodies"} if cls is not AntigenClusterSplit else set())
    kept |= {"antigens"} if cls is not AntibodyClusterSplit else set()
    for name in kept:
        assert crossing(numbers[name], parts) == 0, name
    shares = [float((parts == part).mean()) for part in ("train", "val", "test")]
    assert shares == pytest.approx([0.7, 0.15, 0.15], abs=0.03)


def test_folds_test_each_row_once_and_are_alike(table: AffinityTable, numbers: dict[str, np.ndarray]) -> None:
    bins = bin_index(table.pkd)
    splits = [BothColdSplit(n_folds=5, fold=fold)(table.frame) for fold in range(5)]
    tests = np.stack([parts == "test" for parts in splits])
    assert (tests.sum(axis=0) == 1).all()
    assert tests.sum(axis=1) == pytest.approx(np.full(5, len(table) / 5), rel=0.1)
    for index in range(5):
        per_fold = [int((test & (bins == index)).sum()) for test in tests]
        assert min(per_fold) > 0, (index, per_fold)
    assert all(crossing(numbers["antigens"], parts) == 0 for parts in splits)


def test_leakage_falls_with_what_is_kept_apart(table: AffinityTable) -> None:
    random, parent, cold = (
        leak_report(table.frame, split(table.frame)).summary()
        for split in (RandomSplit(), ParentSplit(), BothColdSplit())
    )
    assert random["near_twins"]["share"] > 0.5
    assert random["exact_pairs"]["n_test_rows"] == 0  # the table has each pair once
    assert cold["heavy"]["share_90"] == 0
    assert random["heavy"]["share_95"] > parent["heavy"]["share_95"] > cold["heavy"]["share_95"]


def test_families_are_many(table: AffinityTable) -> None:
    families = find_families(table.frame)
    assert families.why == ""
    assert families.index is not None
    assert 100 < len(set(families.index.tolist())) < 600
