"""Networks that read more than columns, or give more than one output, from a table to predictions in a new process."""

import subprocess
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from benchmarks.embedding import random_encoder
from rich.console import Console

import tailbind
from tailbind.errors import FeatureError
from tailbind.table.simulation import Landscape, simulate
from tailbind.training.loop import Trainer

ATTENTION = (
    "features.residues.numbering=false",
    "model.dim=8",
    "model.heads=2",
    "model.layers=1",
    "model.hidden_dim=8",
    "training.epochs=3",
    "training.batch_size=32",
)
ENSEMBLE = (
    "features.sites.numbering=false",
    "features.descriptors=false",
    "model.heads=3",
    "model.stem_dim=16",
    "model.hidden_dims=[8]",
    "training.epochs=3",
    "training.batch_size=32",
)
RECIPES = {"attention": ATTENTION, "ensemble-mlp": ENSEMBLE}
HEAVY, LIGHT = "antibody_heavy", "antibody_light"


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    """200 rows of three families; every 10th without a light chain, every 7th without an antigen's sequence."""
    frame = simulate(Landscape(n_rows=200, n_features=6, n_families=3, missing=0)).drop("true_pkd")
    row = pl.int_range(pl.len())
    return frame.select(
        HEAVY,
        pl.when(row % 10 == 0).then(pl.lit("")).otherwise(LIGHT).alias(LIGHT),
        pl.when(row % 7 == 0).then(pl.lit("")).otherwise("antigen").alias("antigen"),
        "pKd",
        pl.when(row % 5 == 0).then(pl.lit("<")).otherwise(pl.lit("=")).alias("relation"),
    )


@pytest.fixture(scope="module")
def data(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("networks") / "data.csv"
    frame.write_csv(path)
    return path


def trained(
    data: Path, out: Path, recipe: str, changes: Sequence[str] = (), *, resume: bool = False
) -> tuple[tailbind.RunSummary, str]:
    console = Console(file=StringIO(), width=300)
    changes = [*RECIPES[recipe], *changes]
    run = tailbind.train(data, recipe=recipe, out=out, overrides=changes, device="cpu", console=console, resume=resume)
    assert isinstance(console.file, StringIO)
    return run, console.file.getvalue()


@pytest.fixture(scope="module", params=RECIPES)
def run(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tailbind.RunSummary:
    return trained(data, tmp_path_factory.mktemp("run") / request.param, request.param)[0]


def test_a_new_process_predicts_what_training_predicted(
    run: tailbind.RunSummary, frame: pl.DataFrame, tmp_path: Path
) -> None:
    frame.drop("pKd", "relation").write_csv(tmp_path / "new.csv")
    out = tmp_path / "predicted.csv"
    command = ["predict", str(run.path), str(tmp_path / "new.csv"), "--out", str(out), "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "tailbind", *command], check=True, capture_output=True)
    again = pl.read_csv(out)
    assert again["predicted_pkd"].null_count() == 0
    assert ("predicted_sd" in again.columns) == (run.recipe == "ensemble-mlp")
    both = pl.read_csv(run.path / f"test_predictions_{run.recipe}.csv").join(again, on="row_id", suffix="_again")
    assert len(both) == run.metrics["test"]["n"]
    np.testing.assert_allclose(both["predicted_pkd"], both["predicted_pkd_again"], atol=1e-5)


def test_neither_order_nor_company_changes_a_prediction(
    run: tailbind.RunSummary, frame: pl.DataFrame, tmp_path: Path
) -> None:
    def predicted(rows: list[int]) -> np.ndarray:
        frame[rows].write_csv(tmp_path / "rows.csv")
        return tailbind.predict(run.path, tmp_path / "rows.csv", device="cpu")["predicted_pkd"].to_numpy()

    whole = predicted(list(range(200)))
    assert np.ptp(whole) > 1e-3
    np.testing.assert_allclose(predicted([199, 3, 70]), whole[[199, 3, 70]], atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_that_was_stopped_goes_on_exactly(
    recipe: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    whole, _ = trained(data, tmp_path / "whole", recipe)
    honest = Trainer._run_epoch

    def until_the_third(self: Trainer) -> object:
        if self.epoch == 2:
            raise Killed
        return honest(self)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "_run_epoch", until_the_third)
        trained(data, tmp_path / "stopped", recipe)
    stopped, _ = trained(data, tmp_path / "stopped", recipe, resume=True)
    files = [path / f"final_model_{recipe}.pth" for path in (whole.path, stopped.path)]
    one, other = (torch.load(file, weights_only=True)["model"]["members"] for file in files)
    for of_one, of_other in zip(one, other, strict=True):
        assert all(torch.equal(of_one[name], of_other[name]) for name in of_one)


def test_attention_takes_labels_as_bounds_and_says_what_it_is(frame: pl.DataFrame, data: Path, tmp_path: Path) -> None:
    _, said = trained(data, tmp_path / "run", "attention", ["training.epochs=1"])
    assert "40 labels are marked < or >; this recipe's loss takes them as bounds." in said
    n = sum(len(set(frame[chain]) - {""}) for chain in (HEAVY, LIGHT, "antigen"))
    assert f"Features: residues of {n} sequences and 3 columns." in said
    assert "Network: residues → 1 layers within and 1 across, width 8; pooled beside 3 → 8 → 1, " in said


def test_attention_reads_sites_beside_residues_and_an_encoder_s_vectors(data: Path, tmp_path: Path) -> None:
    folder = random_encoder(tmp_path / "esm2_tiny", layers=1, width=8, heads=2, positions=200)
    changes = ["features.sites=true", "features.sites.numbering=false", f"features.residues.encoder={folder}"]
    run, said = trained(data, tmp_path / "run", "attention", [*changes, "training.epochs=1"])
    assert "Network: residues with 8 numbers of an encoder → " in said
    assert "dense + 64 summed embeddings of " in said
    again = tailbind.predict(run.path, data, device="cpu")
    both = pl.read_csv(run.path / "test_predictions_attention.csv").join(
        again.with_columns(pl.col("row_id").cast(pl.Int64)), on="row_id", suffix="_again"
    )
    np.testing.assert_allclose(both["predicted_pkd"], both["predicted_pkd_again"], atol=1e-5)


def test_residues_for_a_model_of_columns_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"this one reads columns"):
        trained(data, tmp_path / "run", "ensemble-mlp", ["features.residues=true", "features.residues.numbering=false"])
    with pytest.raises(FeatureError, match=r"must have the block residues to read; there is none"):
        trained(data, tmp_path / "run", "attention", ["features.residues=false", "features.composition=true"])
    assert not (tmp_path / "run").exists(), "nothing is begun that cannot be trained"
