"""`embed` from the command line, and trainings on what it writes and from sequences alone."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmarks.embedding import random_encoder

import tailbind
from tailbind.cli import main
from tailbind.errors import FeatureError, RecipeError, RunError, TableError
from tailbind.recipes import load_recipe
from tailbind.workflows.embedding import embedded_lines
from tailbind.workflows.plan import resolve

SMALL = ("training.epochs=3", "training.batch_size=64", "model.hidden_dims=[16, 8]", "optimizer.lr=0.01")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_encoder(tmp_path_factory.mktemp("encoder") / "esm2_tiny", layers=2, width=16, heads=2, positions=300)


@pytest.fixture(scope="module")
def table(simulated_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated table without features, some 200 rows; one has no antibody, two no label."""
    frame = pl.read_csv(simulated_csv, infer_schema_length=None).head(200)
    row = pl.int_range(pl.len())
    bare = frame.select(
        pl.when(row == 7).then(None).otherwise("antibody_heavy").alias("antibody_heavy"),
        pl.when(row == 7).then(None).otherwise("antibody_light").alias("antibody_light"),
        "antigen",
        pl.when(row.is_in([3, 5])).then(None).otherwise("pKd").alias("pKd"),
        "database_source",
        row.alias("plate"),
    )
    path = tmp_path_factory.mktemp("table") / "table.csv"
    bare.write_csv(path)
    return path


def run(*arguments: object) -> int:
    return main(["embed", *map(str, arguments)])


def test_the_table_comes_back_whole_with_its_features(
    table: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features.parquet"
    assert run(table, "--encoder", folder, "--out", out) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        f"{out}: 200 rows, 1 of them without an antibody and left empty; 16 columns, esm2_dim_0 … esm2_dim_15.",
        f"Next: tailbind train {out} --recipe v2 --out runs/v2",
    ]
    assert "Device: cpu" in told.err
    assert "Read 200 rows from table.csv." in told.err
    written = pl.read_parquet(out)
    given = pl.read_csv(table)
    assert written["plate"].cast(pl.Int64).to_list() == list(range(200))
    assert written["antigen"].to_list() == given["antigen"].to_list()
    assert written["pkd"].to_list() == given["pKd"].to_list()
    assert written["heavy"].to_list() == given["antibody_heavy"].fill_null("").to_list()
    block = written.select(pl.col("^esm2_dim_\\d+$"))
    assert block.columns == [f"esm2_dim_{number}" for number in range(16)]
    assert block.dtypes == [pl.Float32] * 16
    assert block[7].null_count().sum_horizontal()[0] == 16
    assert block.null_count().sum_horizontal()[0] == 16


def test_a_training_on_the_file_works_right_away(table: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.parquet"
    tailbind.embed(table, encoder=str(folder), out=out)
    summary = tailbind.train(out, recipe="v2", out=tmp_path / "run", overrides=SMALL, device="cpu")
    assert summary.metrics["test"]["n"] > 20
    predicted = tailbind.predict(tmp_path / "run", out, device="cpu")
    assert predicted["predicted_pkd"].null_count() == 1


def test_csv_and_parquet_say_the_same(table: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("a.csv", "a.parquet"):
        assert run(table, "--encoder", folder, "--out", tmp_path / name, "--chains", "separate") == 0
    text, binary = pl.read_csv(tmp_path / "a.csv"), pl.read_parquet(tmp_path / "a.parquet")
    columns = [f"esm2_dim_{number}" for number in range(48)]
    assert set(columns) <= set(text.columns)
    np.testing.assert_allclose(text[columns].to_numpy(), binary[columns].to_numpy(), rtol=1e-6)


def test_the_components_are_of_all_rows_and_that_is_said(
    table: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(table, "--encoder", folder, "--out", tmp_path / "raw.parquet") == 0
    capsys.readouterr()
    assert run(table, "--encoder", folder, "--out", tmp_path / "pca.parquet", "--pca", 5, "--prefix", "mine") == 0
    told = capsys.readouterr()
    assert "5 principal components, fitted on all rows, keep" in told.err
    assert "features.columns.pca in a recipe fits them on training rows only" in told.err
    raw = pl.read_parquet(tmp_path / "raw.parquet").select(pl.col("^esm2_dim_\\d+$")).drop_nulls().to_numpy()
    pca = pl.read_parquet(tmp_path / "pca.parquet").select(pl.col("^mine_pca_\\d+$")).drop_nulls().to_numpy()
    assert pca.shape == (199, 5)
    centred = raw.astype(np.float64) - raw.mean(axis=0, dtype=np.float64)
    singular = np.linalg.svd(centred, compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(pca, axis=0), singular[:5], rtol=1e-3)


def test_layers_pools_windows_and_the_store_reach_the_encoder(table: Path, folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "kept"
    common = (table, "--encoder", folder, "--store", store)
    assert run(*common, "--out", tmp_path / "a.parquet") == 0
    assert run(*common, "--out", tmp_path / "b.parquet", "--layers=0,-1", "--window", 100, "--overlap", 20) == 0
    one, other = (
        pl.read_parquet(tmp_path / f"{name}.parquet").select(pl.col("^esm2_dim_\\d+$")).drop_nulls().to_numpy()
        for name in "ab"
    )
    assert np.abs(one - other).max() > 0.01
    assert len(list(store.iterdir())) == 2


def test_a_table_without_labels_is_embedded_too(table: Path, folder: Path, tmp_path: Path) -> None:
    pl.read_csv(table).drop("pKd").write_csv(tmp_path / "new.csv")
    done = tailbind.embed(tmp_path / "new.csv", encoder=str(folder), out=tmp_path / "new.parquet")
    assert (done.n_rows, done.n_without, len(done.columns)) == (200, 1, 16)
    written = pl.read_parquet(tmp_path / "new.parquet")
    assert "pkd" not in written.columns
    assert "plate" in written.columns


def test_a_file_with_another_block_says_which_to_train_on(simulated_csv: Path, folder: Path, tmp_path: Path) -> None:
    pl.read_csv(simulated_csv, infer_schema_length=None).head(30).write_csv(tmp_path / "both.csv")
    done = tailbind.embed(tmp_path / "both.csv", encoder=str(folder), out=tmp_path / "both.parquet")
    assert embedded_lines(done)[1].endswith("--recipe v2 --out runs/v2 --set features.columns.prefix=esm2_dim_")
    with pytest.raises(TableError, match=r"must not have columns esm2_dim_0 … already; it has esm2_dim_0.*--prefix"):
        tailbind.embed(tmp_path / "both.parquet", encoder=str(folder), out=tmp_path / "again.parquet")


def test_what_cannot_be_is_refused_before_anything_is_computed(
    table: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.parquet").write_text("kept")
    with pytest.raises(RunError, match=r"--out .*there\.parquet must be a new file"):
        tailbind.embed(table, encoder=str(folder), out=tmp_path / "there.parquet")
    assert (tmp_path / "there.parquet").read_text() == "kept"
    with pytest.raises(RunError, match=r"must end in \.parquet or \.csv"):
        tailbind.embed(table, encoder=str(folder), out=tmp_path / "a.xlsx")
    with pytest.raises(RunError, match="must be in an existing folder"):
        tailbind.embed(table, encoder=str(folder), out=tmp_path / "no" / "a.parquet")
    with pytest.raises(RecipeError, match=r"embed\.pool must be one of mean, cdr, both"):
        tailbind.embed(table, encoder=str(folder), out=tmp_path / "a.parquet", pool="max")
    with pytest.raises(FeatureError, match="there is no such folder"):
        tailbind.embed(table, encoder="/no/such/folder", out=tmp_path / "a.parquet")
    pl.read_csv(table).drop("antibody_heavy", "antibody_light").write_csv(tmp_path / "bare.csv")
    with pytest.raises(TableError, match="must have heavy or light sequences to embed; it has none"):
        tailbind.embed(tmp_path / "bare.csv", encoder=str(folder), out=tmp_path / "a.parquet")
    assert run(table, "--encoder", folder, "--out", tmp_path / "a.parquet", "--layers", "last") == 2
    assert "--layers must be whole numbers, as in -1 or 30,33; got 'last'" in capsys.readouterr().err
    assert not (tmp_path / "a.parquet").exists()


def test_the_recipe_is_the_notebook_s_pipeline_from_sequences() -> None:
    document = resolve(load_recipe("v2-esm2")).document()
    assert list(document["features"]) == ["language_model"]
    chosen = document["features"]["language_model"]
    assert (chosen["encoder"], chosen["chains"], chosen["pool"], chosen["pca"]) == (
        "facebook/esm2_t33_650M_UR50D", "joined", "mean", 150,
    )  # fmt: skip
    assert document["split"] == resolve(load_recipe("v2")).document()["split"]


def test_trained_from_sequences_another_process_predicts_the_same(table: Path, folder: Path, tmp_path: Path) -> None:
    changes = (*SMALL, f"features.language_model.encoder={folder}", "features.language_model.pca=8")
    run_folder = tmp_path / "run"
    tailbind.train(table, recipe="v2-esm2", out=run_folder, overrides=changes, device="cpu")
    here = tailbind.predict(run_folder, table, device="cpu")
    assert here["predicted_pkd"].null_count() == 1
    sequences = tmp_path / "sequences.csv"
    pl.read_csv(table).select("antibody_heavy", "antibody_light", "antigen").write_csv(sequences)
    command = [sys.executable, "-m", "tailbind", "predict", run_folder, sequences, "--out", tmp_path / "there.csv"]
    subprocess.run(
        [*map(str, command), "--device", "cpu"], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True,
        capture_output=True,
    )  # fmt: skip
    there = pl.read_csv(tmp_path / "there.csv")
    np.testing.assert_array_equal(
        here["predicted_pkd"].to_numpy().astype(np.float32), there["predicted_pkd"].to_numpy().astype(np.float32)
    )
