"""Domains from end to end: written by training, told by predictions, shown in the report."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tailbind
from tailbind.cli import main
from tailbind.errors import RunError
from tailbind.run_folder import RunFolder
from tailbind.table.simulation import Landscape, simulate

HEAVY = "antibody_heavy"
NEAR = ["antibody_identity", "antigen_identity", "domain"]


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    landscape = Landscape(n_rows=400, n_features=6, n_families=3, missing=0)
    return simulate(landscape).drop("true_pkd").with_row_index("row_id")


@pytest.fixture(scope="module")
def run(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tailbind.RunSummary:
    folder = tmp_path_factory.mktemp("domain")
    frame.write_csv(folder / "t.csv")
    changes = ["features.sites.numbering=false"]
    return tailbind.train(folder / "t.csv", recipe="ridge", out=folder / "run", overrides=changes, device="cpu")


def new_rows(frame: pl.DataFrame, folder: Path) -> Path:
    """Write a row of training, a stranger with the same antigen, and the same antibody with a strange antigen."""
    rows = pl.concat([frame[:1]] * 3).with_columns(row_id=pl.Series(["known", "stranger", "strange antigen"]))
    heavy, antigen = rows[HEAVY].to_list(), rows["antigen"].to_list()
    heavy[1], antigen[2] = "QVNDWKPEHLRTMSAFGIYC" * 6, "MKNDWHPELRQTVSAFGIYC" * 8
    rows.with_columns(pl.Series(HEAVY, heavy), pl.Series("antigen", antigen)).drop("pKd").write_csv(folder / "new.csv")
    return folder / "new.csv"


def test_strangers_are_outside(run: tailbind.RunSummary, frame: pl.DataFrame, tmp_path: Path) -> None:
    said: list[str] = []
    predicted = tailbind.predict(run.path, new_rows(frame, tmp_path), device="cpu", notify=said.append)
    assert predicted["domain"].to_list() == ["inside", "outside", "outside"]
    assert predicted["antibody_identity"][1] < 0.9 < predicted["antibody_identity"][2]
    assert predicted["antigen_identity"][2] < 0.5 < predicted["antigen_identity"][1] == 1
    (line,) = [line for line in said if line.startswith("Domain")]
    assert line == (
        "Domain: 1 rows are inside what training knew, 0 at its edge, 2 outside; trust these less. "
        "See the column domain."
    )


def test_the_command_line_says_so_too(
    run: tailbind.RunSummary, frame: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.parquet"
    assert main(["predict", str(run.path), str(new_rows(frame, tmp_path)), "--out", str(out), "--device", "cpu"]) == 0
    assert "2 outside; trust these less" in capsys.readouterr().err
    assert pl.read_parquet(out).columns[-3:] == NEAR


def test_the_test_rows_say_what_predictions_of_them_say(
    run: tailbind.RunSummary, frame: pl.DataFrame, tmp_path: Path
) -> None:
    in_training = pl.read_csv(run.path / "test_predictions_ridge.csv")
    frame.drop("pKd").write_csv(tmp_path / "all.csv")
    again = tailbind.predict(run.path, tmp_path / "all.csv", device="cpu").with_columns(pl.col("row_id").cast(pl.Int64))
    both = in_training.join(again, on="row_id", suffix="_again", maintain_order="left")
    assert len(both) == 60
    for column in NEAR:
        assert both[column].equals(both[f"{column}_again"], check_names=False, null_equal=True)


def test_the_figures_are_those_of_the_test_predictions(run: tailbind.RunSummary) -> None:
    rows = pl.read_csv(run.path / "test_predictions_ridge.csv")
    figures = json.loads((run.path / "metrics.json").read_text())["domain"]
    assert figures["rows"] == "all"
    assert set(figures["test"]) == {"inside", "edge", "outside"}
    for word, entry in figures["test"].items():
        residuals = rows.filter(pl.col("domain") == word)["residual"].to_numpy()
        assert (entry is None) == (len(residuals) == 0)
        if entry:
            assert entry["n"] == len(residuals)
            assert entry["rmse"] == pytest.approx(np.sqrt(np.square(residuals).mean()))
    text = (run.path / "evaluation_results_ridge.txt").read_text()
    assert "How near training the test rows are" in text
    assert "No test rows are outside: nothing is known of the error there." in text
    assert "How near training the test rows are" in (run.path / "report.html").read_text()


def test_a_run_without_the_file_predicts_as_before(
    run: tailbind.RunSummary, frame: pl.DataFrame, tmp_path: Path
) -> None:
    shutil.copytree(run.path, tmp_path / "old")
    for file in ("domain.parquet", "calibration.pth"):
        (tmp_path / "old" / file).unlink()
    data, said = new_rows(frame, tmp_path), list[str]()
    before = tailbind.predict(tmp_path / "old", data, device="cpu", notify=said.append)
    intervals = ["pkd_low", "pkd_high", "p_below_5", "p_above_9", "p_above_11"]
    assert before.equals(tailbind.predict(run.path, data, device="cpu").drop(*NEAR, *intervals))
    assert not any(line.startswith("Domain") for line in said)
    assert before.equals(tailbind.predict(run.path / "best_model_ridge.pth", data, device="cpu"))


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_file_is_refused(run: tailbind.RunSummary, frame: pl.DataFrame, tmp_path: Path, damage: str) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    file = tmp_path / "run" / "domain.parquet"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-500])
    else:
        shutil.copy(run.path / "split.parquet", file)
    with pytest.raises(RunError, match=r"domain.parquet must be what `tailbind train` wrote .* damaged"):
        tailbind.predict(tmp_path / "run", new_rows(frame, tmp_path), device="cpu")


def test_a_new_run_leaves_none_of_an_earlier_one(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", "ridge")
    run.create()
    run.domain.write_bytes(b"stale")
    run.create()
    assert not run.domain.exists()


def test_the_file_does_not_need_the_table_and_is_small(run: tailbind.RunSummary) -> None:
    kept = pl.read_parquet(run.path / "domain.parquet")
    assert set(kept["what"]) >= {"settings", "antibody", "antigen"}
    assert (run.path / "domain.parquet").stat().st_size < 30_000
