from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tailbind.errors import RunError
from tailbind.models.baselines import Ridge
from tailbind.scale import BIN_NAMES, bin_index
from tailbind.table.schema import AffinityTable
from tailbind.table.simulation import BIN_SHARES, LETTERS, Landscape, simulate, write_simulated

SMALL = Landscape(n_rows=2000, n_features=8, n_families=3)


@pytest.fixture(scope="module")
def simulated() -> pl.DataFrame:
    return simulate(SMALL)


def test_the_columns_are_the_seeds(simulated: pl.DataFrame) -> None:
    labels = ["antibody_heavy", "antibody_light", "antigen", "pKd", "relation", "database_source", "true_pkd"]
    assert simulated.columns == [*labels, *(f"esm2_pca_{index}" for index in range(8))]
    assert len(simulated) == 2000


def test_chains_are_proteins_of_their_length(simulated: pl.DataFrame) -> None:
    for column, length in (("antibody_heavy", 120), ("antibody_light", 108), ("antigen", 180)):
        assert simulated[column].str.len_chars().unique().to_list() == [length]
        assert set("".join(simulated[column].unique())) <= set(LETTERS)


def test_a_family_shares_its_antigen_and_light_chain(simulated: pl.DataFrame) -> None:
    families = simulated.group_by("database_source").agg(
        pl.col("antigen", "antibody_light").n_unique(), pl.col("antibody_heavy").n_unique()
    )
    assert families["antigen"].to_list() == families["antibody_light"].to_list() == [1, 1, 1]
    assert min(families["antibody_heavy"]) > 100


def test_bins_have_their_shares() -> None:
    frame = simulate(replace(SMALL, n_rows=20_000, n_features=2))
    shares = np.bincount(bin_index(frame["true_pkd"].to_numpy()), minlength=5) / len(frame)
    assert shares == pytest.approx(list(BIN_SHARES.values()), abs=1e-3)
    measured = np.bincount(bin_index(frame["pKd"].to_numpy()), minlength=5) / len(frame)
    assert 0.0005 < measured[BIN_NAMES.index("very_strong")] < 0.002


def test_measurements_are_the_truth_with_noise_and_a_floor(simulated: pl.DataFrame) -> None:
    below = simulated.filter(pl.col("relation") == "<")
    assert len(below) > 50
    assert below["pKd"].unique().to_list() == [SMALL.floor]
    assert below["database_source"].unique().to_list() == ["family_0"]
    assert below["true_pkd"].max() < SMALL.floor + 5 * SMALL.noise
    assert simulated.filter(pl.col("database_source") == "family_0")["pKd"].min() == SMALL.floor
    measured = simulated.filter(pl.col("relation") == "=")
    error = (measured["pKd"] - measured["true_pkd"]).to_numpy()
    unfloored = error[(measured["database_source"] != "family_0").to_numpy()]
    assert unfloored.std() == pytest.approx(SMALL.noise, rel=0.1)
    assert unfloored.mean() == pytest.approx(0, abs=0.02)


def test_without_noise_or_floor_the_truth_is_measured() -> None:
    frame = simulate(replace(SMALL, noise=0.0, floor=-5.0))
    assert (frame["pKd"] - frame["true_pkd"]).abs().max() == 0.0
    assert frame["relation"].unique().to_list() == ["="]


def test_features_are_missing_together_in_their_share(simulated: pl.DataFrame) -> None:
    nulls = simulated.select(pl.col("^esm2_pca_.*$").is_null()).to_numpy()
    assert (nulls.all(axis=1) == nulls.any(axis=1)).all()
    assert nulls.all(axis=1).mean() == pytest.approx(0.15, abs=0.03)
    assert simulate(replace(SMALL, missing=0.0)).null_count().sum_horizontal().item() == 0


def test_features_tell_of_affinity(table: AffinityTable, parts: dict[str, np.ndarray]) -> None:
    # Otherwise there would be nothing to learn in the demonstration.
    ridge = Ridge().fit(table.features, table.pkd, parts["train"])
    y = table.pkd[parts["test"]]
    error = np.sqrt(np.mean((ridge.predict(table.features, parts["test"]) - y) ** 2))
    assert error < 0.9 * y.std()


def test_the_same_seed_gives_the_same_table(simulated: pl.DataFrame) -> None:
    assert simulated.equals(simulate(SMALL))
    assert not simulated["pKd"].equals(simulate(replace(SMALL, seed=1))["pKd"])


def test_a_small_table_has_as_many_features_as_it_can() -> None:
    frame = simulate(Landscape(n_rows=100))
    assert len([name for name in frame.columns if name.startswith("esm2_pca_")]) == 100


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    write_simulated(tmp_path / "a.csv", SMALL)
    assert pl.read_csv(tmp_path / "a.csv").shape == (2000, 15)
    with pytest.raises(RunError, match=r"absent/a\.csv must be writable"):
        write_simulated(tmp_path / "absent" / "a.csv", SMALL)
    assert [item.name for item in tmp_path.iterdir()] == ["a.csv"]
