"""`compare`: the training notebook's table, in every format, refused for runs on other rows."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

import tailbind
from tailbind.cli import main
from tailbind.errors import RunError


def test_the_table_has_each_metric_each_run_and_the_change(
    run_v1: tailbind.RunSummary, run_v2: tailbind.RunSummary, tmp_path: Path
) -> None:
    comparison = tailbind.compare([run_v1.path, run_v2.path], out=tmp_path / "out")
    assert comparison.names == ("v1", "v2")
    rmse = comparison.differences[1][0]
    assert rmse.metric == "rmse"
    before, after = run_v1.metrics["test"]["rmse"], run_v2.metrics["test"]["rmse"]
    assert rmse.change_percent == pytest.approx(100 * (after - before) / before)
    assert rmse.better == (after < before)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"comparison.{suffix}" for suffix in ("html", "csv", "png", "md", "tex")
    }
    records = pl.read_csv(tmp_path / "out" / "comparison.csv")
    assert records.filter((pl.col("run") == "v2") & (pl.col("metric") == "rmse"))["value"].item() == after
    latex = (tmp_path / "out" / "comparison.tex").read_text()
    assert latex.count("&") == 5 * (len(comparison.differences[0]) + 1)
    assert "\\%" in latex
    assert "_" not in latex.replace("\\_", "")


def test_json_goes_to_standard_output_alone(
    run_v1: tailbind.RunSummary, run_v2: tailbind.RunSummary, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(run_v1.path), str(run_v2.path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["runs"] == ["v1", "v2"]
    assert document["n"] == run_v1.metrics["test"]["n"]


def test_runs_on_other_rows_are_refused_and_the_rows_named(
    run_v1: tailbind.RunSummary, run_v2: tailbind.RunSummary, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run_v2.path, other)
    file = other / "test_predictions_v2.csv"
    frame = pl.read_csv(file)
    frame.tail(-2).write_csv(file)
    lost = sorted(str(row) for row in frame["row_id"].head(2))
    with pytest.raises(RunError, match=f"2 row ids are not in all of them, such as {lost[0]}, {lost[1]}"):
        tailbind.compare([run_v1.path, other])


def test_runs_with_other_labels_are_refused(
    run_v1: tailbind.RunSummary, run_v2: tailbind.RunSummary, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run_v2.path, other)
    file = other / "test_predictions_v2.csv"
    pl.read_csv(file).with_columns(pl.col("true_pkd") + 1).write_csv(file)
    with pytest.raises(RunError, match="must have the same labels"):
        tailbind.compare([run_v1.path, other])


def test_a_run_alone_twice_or_unfinished_is_refused(run_v1: tailbind.RunSummary, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="at least two runs; got 1"):
        tailbind.compare([run_v1.path])
    with pytest.raises(RunError, match="one was given twice"):
        tailbind.compare([run_v1.path, run_v1.path])
    shutil.copytree(run_v1.path, tmp_path / "copy")
    (tmp_path / "copy" / "DONE").unlink()
    with pytest.raises(RunError, match="must hold a finished run; it has no DONE file"):
        tailbind.compare([run_v1.path, tmp_path / "copy"])


def test_two_runs_of_one_recipe_go_by_their_folders(run_v1: tailbind.RunSummary, tmp_path: Path) -> None:
    shutil.copytree(run_v1.path, tmp_path / "again")
    comparison = tailbind.compare([run_v1.path, tmp_path / "again"])
    assert comparison.names == (run_v1.path.name, "again")
    assert all(not entry.clear for entry in comparison.differences[1])
