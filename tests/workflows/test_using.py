"""`predict` and `evaluate`: the same numbers as in training, in order, for any table with the columns."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tailbind
from tailbind.checkpoint import load_checkpoint, save_checkpoint
from tailbind.errors import CheckpointError, FeatureError, RunError
from tailbind.features.pipeline import FeaturePipeline
from tailbind.predictor import load
from tailbind.table import stretches
from tailbind.table.streaming import TableStretches
from tailbind.workflows import Predicted, write_predictions

INTERVALS = ("pkd_low", "pkd_high", "p_below_5", "p_above_9", "p_above_11")
NEAR = ("antibody_identity", "antigen_identity", "domain")


def test_a_new_process_predicts_what_training_predicted(
    run_v2: tailbind.RunSummary, simulated_csv: Path, tmp_path: Path
) -> None:
    pl.read_csv(simulated_csv).drop("pKd", "relation").write_csv(tmp_path / "unlabelled.csv")
    out = tmp_path / "predicted.csv"
    command = ["predict", str(run_v2.path), str(tmp_path / "unlabelled.csv"), "--out", str(out), "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "tailbind", *command], check=True, capture_output=True)
    predicted = pl.read_csv(out)
    assert predicted.columns == ["row_id", "predicted_pkd", "predicted_kd_nm", "affinity_bin", *INTERVALS, *NEAR]
    assert len(predicted) == 1200
    in_training = pl.read_csv(run_v2.path / "test_predictions_v2.csv")
    both = in_training.join(predicted, on="row_id", suffix="_again")
    assert len(both) == len(in_training)
    assert np.allclose(both["predicted_pkd"], both["predicted_pkd_again"], atol=1e-5)
    known = predicted.drop_nulls()
    assert np.allclose(known["predicted_kd_nm"], 10.0 ** (9 - known["predicted_pkd"].to_numpy()))


def test_rows_without_features_stay_and_are_empty(run_v2: tailbind.RunSummary, simulated_csv: Path) -> None:
    predicted = tailbind.predict(run_v2.path, simulated_csv)
    absent = pl.read_csv(simulated_csv)["esm2_pca_0"].is_null()
    assert predicted["row_id"].to_list() == [str(i) for i in range(1200)]
    for column in ("predicted_pkd", "predicted_kd_nm", "affinity_bin"):
        assert predicted[column].is_null().equals(absent, check_names=False)


def test_columns_in_another_order_are_found_by_name(
    run_v2: tailbind.RunSummary, simulated_csv: Path, tmp_path: Path
) -> None:
    frame = pl.read_csv(simulated_csv)
    frame.select(frame.columns[::-1]).write_csv(tmp_path / "reversed.csv")
    remarks: list[str] = []
    tailbind.predict(run_v2.path, tmp_path / "reversed.csv", notify=remarks.append)
    assert any("in another order; they were put right by name" in remark for remark in remarks)
    assert tailbind.predict(run_v2.path, tmp_path / "reversed.csv").equals(tailbind.predict(run_v2.path, simulated_csv))


def test_missing_feature_columns_are_named(run_v2: tailbind.RunSummary, simulated_csv: Path, tmp_path: Path) -> None:
    pl.read_csv(simulated_csv).drop("esm2_pca_11").write_csv(tmp_path / "narrow.csv")
    with pytest.raises(
        FeatureError, match=r"narrow.csv must have the 12 feature columns .* 1 missing, first esm2_pca_11"
    ):
        tailbind.predict(run_v2.path, tmp_path / "narrow.csv")
    pl.read_csv(simulated_csv).drop([f"esm2_pca_{i}" for i in range(12)]).write_csv(tmp_path / "none.csv")
    with pytest.raises(FeatureError, match=r"none.csv must have numbered feature columns esm2_pca_0"):
        tailbind.predict(run_v2.path, tmp_path / "none.csv")


def test_parquet_holds_what_csv_holds(run_v2: tailbind.RunSummary, simulated_csv: Path, tmp_path: Path) -> None:
    frame = tailbind.predict(run_v2.path, simulated_csv, out=tmp_path / "p.parquet")
    assert pl.read_parquet(tmp_path / "p.parquet").equals(frame)


def test_predict_overwrites_nothing(run_v2: tailbind.RunSummary, simulated_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("mine")
    with pytest.raises(RunError, match="must be a new file"):
        tailbind.predict(run_v2.path, simulated_csv, out=tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == "mine"
    with pytest.raises(RunError, match=r"must end in .csv or .parquet"):
        tailbind.predict(run_v2.path, simulated_csv, out=tmp_path / "p.xlsx")
    with pytest.raises(RunError, match="must be in an existing folder"):
        tailbind.predict(run_v2.path, simulated_csv, out=tmp_path / "nowhere" / "p.csv")


def test_evaluate_on_the_test_rows_gives_the_run_s_own_figures(
    run_v2: tailbind.RunSummary, simulated_csv: Path, tmp_path: Path
) -> None:
    test_ids = pl.read_csv(run_v2.path / "test_predictions_v2.csv")["row_id"]
    frame = pl.read_csv(simulated_csv).with_row_index("row_id").with_columns(pl.col("row_id").cast(pl.Int64))
    frame.filter(pl.col("row_id").is_in(test_ids.implode())).write_csv(tmp_path / "test.csv")
    result = tailbind.evaluate(run_v2.path, tmp_path / "test.csv", out=tmp_path / "out")
    for metric in ("n", "rmse", "spearman"):
        assert result["test"][metric] == pytest.approx(run_v2.metrics["test"][metric], abs=1e-5)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["test"]["n"] == len(test_ids)
    assert result["test"]["censored"] == pytest.approx(run_v2.metrics["test"]["censored"], abs=1e-5)
    text = (tmp_path / "out" / "evaluation.txt").read_text()
    assert "Measured and censored labels" in text
    assert result["criteria"]["rows"] == "all"
    assert "Judged on" not in text
    written = pl.read_csv(tmp_path / "out" / "predictions.csv")
    own = pl.read_csv(run_v2.path / "test_predictions_v2.csv")
    assert written.columns == own.columns
    assert set(NEAR) | {"pkd_low", "pkd_high", "p_above_9"} <= set(written.columns)
    assert result["domain"]["test"]["inside"]["n"] == (written["domain"] == "inside").sum() > 0
    assert "How near training the test rows are" in text
    assert (written["relation"] == "<").sum() == result["test"]["censored"]["n_below"] > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "metrics.json", "predictions.csv", "evaluation.txt", "report.html",
    }  # fmt: skip


@pytest.mark.parametrize("way", ["folder", "checkpoint"])
def test_a_run_that_takes_bounds_is_held_against_measured_rows(way: str, simulated_csv: Path, tmp_path: Path) -> None:
    changes = ["model.hidden_dims=[8]", "training.epochs=2", "training.batch_size=64"]
    run = tailbind.train(simulated_csv, recipe="v2-tobit", out=tmp_path / "run", overrides=changes, device="cpu")
    trained = run.path if way == "folder" else run.path / "best_model_v2-tobit.pth"
    result = tailbind.evaluate(trained, simulated_csv, out=tmp_path / "out")
    test, criteria = result["test"], result["criteria"]
    assert criteria["rows"] == "measured"
    assert criteria["levels"]["minimum"][1]["value"] == test["measured"]["rmse"] != test["rmse"]
    text = (tmp_path / "out" / "evaluation.txt").read_text()
    assert f"RMSE {test['measured']['rmse']:.3f} on {test['measured']['n']} measured rows; grade" in text
    assert f"Judged on the {test['measured']['n']} measured test rows; the {test['censored']['n']} marked" in text
    assert "All rows, floors counted as measured" in text
    assert "Errors on measured rows" in (tmp_path / "out" / "report.html").read_text()


def test_a_checkpoint_of_another_recipe_is_refused(
    run_v1: tailbind.RunSummary, run_v2: tailbind.RunSummary, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(run_v2.path, mixed)
    shutil.copy(run_v1.path / "best_model_v1.pth", mixed / "best_model_v2.pth")
    with pytest.raises(CheckpointError, match="must be from recipe 'v2'; it was trained by 'v1'"):
        load(mixed)
    original = load_checkpoint(run_v2.path / "best_model_v2.pth")
    other = {**original.recipe, "model": {**original.recipe["model"], "dropout": 0.5}}
    save_checkpoint(mixed / "best_model_v2.pth", type(original)(**{**vars(original), "recipe": other}))
    with pytest.raises(CheckpointError, match=r"model.dropout there is 0.3, in the checkpoint 0.5"):
        load(mixed)


def test_a_truncated_checkpoint_is_refused(run_v2: tailbind.RunSummary, tmp_path: Path) -> None:
    shutil.copytree(run_v2.path, tmp_path / "cut")
    file = tmp_path / "cut" / "best_model_v2.pth"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"best_model_v2.pth must be a whole tailbind checkpoint"):
        load(tmp_path / "cut")


def test_a_single_checkpoint_predicts_too(run_v2: tailbind.RunSummary, simulated_csv: Path) -> None:
    final = tailbind.predict(run_v2.path / "final_model_v2.pth", simulated_csv)
    assert final["predicted_pkd"].null_count() < 300


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"must be a run folder .* it has no config.json"):
        load(tmp_path)
    with pytest.raises(RunError, match="it is not a folder"):
        load(tmp_path / "nothing")


def test_the_number_of_rows_changes_no_prediction(run_v2: tailbind.RunSummary, simulated_csv: Path) -> None:
    predictor = load(run_v2.path, "cpu")
    table = predictor.read(simulated_csv)
    features = np.nan_to_num(predictor.features.transform(table).dense)
    whole = predictor.model.predict(features)
    single = np.concatenate([predictor.model.predict(features, np.array([i])) for i in range(0, 1200, 97)])
    assert np.allclose(whole[::97], single, atol=1e-5)
    assert not predictor.model.members[0].training


def test_an_unfinished_run_predicts_with_a_warning(
    run_v2: tailbind.RunSummary, simulated_csv: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_v2.path, tmp_path / "cut")
    (tmp_path / "cut" / "DONE").unlink()
    remarks: list[str] = []
    tailbind.predict(tmp_path / "cut", simulated_csv, notify=remarks.append)
    assert any("is unfinished; its best model so far is used" in remark for remark in remarks)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_long_table_is_predicted_a_stretch_at_a_time(
    run_v2: tailbind.RunSummary, simulated_csv: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tailbind.predict(run_v2.path, simulated_csv)
    monkeypatch.setitem(TableStretches.__init__.__kwdefaults__, "rows", 100)
    monkeypatch.setattr(stretches.read_stretches, "__defaults__", (50,))
    out = tmp_path / f"p.{form}"
    longest: list[int] = []
    transform = FeaturePipeline.transform
    monkeypatch.setattr(
        FeaturePipeline, "transform", lambda self, table: longest.append(len(table)) or transform(self, table)
    )
    done = write_predictions(run_v2.path, simulated_csv, out)
    assert longest == [100] * 12
    assert done == Predicted(1200, whole["predicted_pkd"].null_count())
    written = pl.read_parquet(out) if form == "parquet" else pl.read_csv(out, schema_overrides={"row_id": pl.String})
    assert written["row_id"].equals(whole["row_id"])
    assert written["affinity_bin"].equals(whole["affinity_bin"])
    np.testing.assert_allclose(written["predicted_pkd"].to_numpy(), whole["predicted_pkd"].to_numpy(), atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_bad_cell_far_down_leaves_no_file(run_v2: tailbind.RunSummary, simulated_csv: Path, tmp_path: Path) -> None:
    lines = simulated_csv.read_text().splitlines()
    lines[-1] = lines[-1].rpartition(",")[0] + ",many"
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(FeatureError, match=r"must hold numbers; got 'many' \(line 1201\)"):
        tailbind.predict(run_v2.path, tmp_path / "t.csv", out=tmp_path / "p.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
