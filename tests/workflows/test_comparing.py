"""`compare`: the training notebook's table, in every format, refused for runs on other rows."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tailbind
from tailbind.cli import main
from tailbind.errors import RunError
from tailbind.evaluation.comparison import COMPARED, COMPARED_MARKED
from tailbind.reporting.comparison_tables import comparison_table
from tailbind.run_folder import open_finished_run
from tailbind.workflows.comparing import headline


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
    assert records.filter((pl.col("run") == "v2") & (pl.col("metric") == "rmse"))["value"].item() == pytest.approx(
        after
    )
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
    records = {(record["run"], record["metric"]): record for record in document["metrics"]}
    test = run_v2.metrics["test"]
    for metric in COMPARED_MARKED:
        part, name = metric.split(".")
        record = records["v2", metric]
        assert record["value"] == pytest.approx(test[part][name])
        assert record["n"] == (test["n"] if name == "concordance" else test[part]["n"])
    assert len({frozenset(record) for record in document["metrics"]}) == 1


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


def copied(run: tailbind.RunSummary, folder: Path, *changes: pl.Expr, without: tuple[str, ...] = ()) -> Path:
    """Return a copy of a run with its test predictions changed."""
    shutil.copytree(run.path, folder)
    file = open_finished_run(folder).test_predictions
    pl.read_csv(file).with_columns(changes).drop(without).write_csv(file)
    return folder


def test_a_run_that_knows_what_is_below_the_floor_is_not_said_to_be_worse(
    run_v1: tailbind.RunSummary, run_v2: tailbind.RunSummary, tmp_path: Path
) -> None:
    # The first is near the labels, floors included; the second nearer where they are measured, and far below floors.
    rng = np.random.default_rng(0)
    noise = pl.Series(rng.normal(0, 0.5, run_v1.metrics["test"]["n"]))
    floor = pl.col("relation") == "<"
    stated = copied(run_v1, tmp_path / "stated", (pl.col("true_pkd") + noise).alias("predicted_pkd"))
    below = pl.when(floor).then(pl.col("true_pkd") - 2 - noise.abs()).otherwise(pl.col("true_pkd") + noise / 2)
    tobit = copied(run_v2, tmp_path / "tobit", below.alias("predicted_pkd"))
    comparison = tailbind.compare([stated, tobit], out=tmp_path / "out")
    second = {entry.metric: entry for entry in comparison.differences[1]}
    assert (second["rmse"].better, second["rmse"].clear) == (False, True)
    assert [second[metric].better for metric in COMPARED_MARKED] == [True] * 4
    assert second["censored.one_sided_rmse"].value == 0
    assert second["measured.weak.rmse"].better is True
    marked = (*COMPARED_MARKED, "measured.weak.rmse")
    assert set(second) == {*COMPARED, *marked}
    clear = sum(bool(second[metric].clear) for metric in marked)
    told = sum(second[metric].clear is not None for metric in marked)
    assert clear >= 2
    assert headline(comparison).startswith(
        f"v2 is clearly better than v1 in {clear} and clearly worse in 0 of the {told} metrics with an interval that "
        "leave marked rows out or take them as bounds. As stated"
    )
    n, n_marked = comparison.n, run_v1.metrics["test"]["censored"]["n"]
    for suffix in ("md", "tex", "html"):
        page = (tmp_path / "out" / f"comparison.{suffix}").read_text()
        assert f"As stated, floors count as measured: {n_marked} of the {n} rows are marked" in page, suffix
        assert f"RMSE, measured rows (n = {n - n_marked})" in page, suffix
        assert f"One-sided RMSE, marked rows (n = {n_marked})" in page, suffix
        assert "its interval is from 100 resamples" in page, suffix
        n_weak = comparison.bin_counts["weak"] - n_marked
        assert f"Weak RMSE, measured rows (n = {n_weak})" in page, suffix
        assert "and decide" not in page, suffix  # both recipes fit floors as measured


def test_runs_of_earlier_versions_are_compared_as_stated(
    run_v1: tailbind.RunSummary, run_v2: tailbind.RunSummary, tmp_path: Path
) -> None:
    old = [
        copied(run, tmp_path / name, without=("relation",)) for run, name in ((run_v1, "old_v1"), (run_v2, "old_v2"))
    ]
    comparison = tailbind.compare(old)
    assert tuple(entry.metric for entry in comparison.differences[1]) == COMPARED
    assert "As stated" not in comparison_table(comparison).text() + headline(comparison)
    now = tailbind.compare([run_v1.path, run_v2.path])
    assert [entries[: len(COMPARED)] for entries in now.differences] == [*comparison.differences]
    # One run that knows the marks is enough.
    assert tailbind.compare([old[0], run_v2.path]).differences == now.differences
    assert tailbind.compare([run_v1.path, old[1]]).differences == now.differences


def test_a_row_is_marked_where_any_table_marks_it(
    run_v1: tailbind.RunSummary, run_v2: tailbind.RunSummary, tmp_path: Path
) -> None:
    unmarked = copied(run_v1, tmp_path / "unmarked", pl.lit("=").alias("relation"))
    n_marked = run_v2.metrics["test"]["censored"]["n"]
    assert n_marked > 0
    assert tailbind.compare([unmarked, run_v2.path]).n_marked == n_marked
    assert tailbind.compare([unmarked, copied(run_v2, tmp_path / "none", pl.lit("=").alias("relation"))]).n_marked == 0


def test_opposed_marks_and_unknown_ones_are_refused(
    run_v1: tailbind.RunSummary, run_v2: tailbind.RunSummary, tmp_path: Path
) -> None:
    turned = copied(run_v2, tmp_path / "turned", pl.col("relation").replace("<", ">"))
    n_marked = run_v2.metrics["test"]["censored"]["n"]
    with pytest.raises(RunError, match=f"{n_marked} are marked < in one and > in v2 or the other way round"):
        tailbind.compare([run_v1.path, turned])
    for name, damage in (("word", pl.lit("about")), ("empty", pl.lit(""))):
        with pytest.raises(RunError, match=r"test_predictions_v2.csv must be whole; it is missing or damaged"):
            tailbind.compare([run_v1.path, copied(run_v2, tmp_path / name, damage.alias("relation"))])


def test_a_tobit_run_is_held_against_its_baseline_on_measured_rows(
    run_v1: tailbind.RunSummary, run_v2: tailbind.RunSummary, simulated_csv: Path, tmp_path: Path
) -> None:
    changes = ("model.hidden_dims=[32]", "training.epochs=6", "training.batch_size=64", "optimizer.lr=0.003")
    tobit = tailbind.train(simulated_csv, recipe="v2-tobit", out=tmp_path / "tobit", overrides=changes, device="cpu")
    comparison = tailbind.compare([run_v2.path, tobit.path], out=tmp_path / "out")
    second = {entry.metric: entry for entry in comparison.differences[1]}
    assert second["measured.rmse"].value == pytest.approx(tobit.metrics["test"]["measured"]["rmse"])
    censored = tobit.metrics["test"]["censored"]
    for name in ("one_sided_rmse", "concordance"):
        assert second[f"censored.{name}"].value == pytest.approx(censored[name])
    measured = tobit.metrics["test"]["measured"]
    assert second["measured.weak.rmse"].value == pytest.approx(measured["bins"]["weak"]["rmse"])
    assert (comparison.rows, tailbind.compare([run_v2.path, run_v1.path]).rows) == ("measured", "all")
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "and decide, as not every run fitted them as measured" in page
    assert "RMSE by affinity bin, of measured rows, with 95 % intervals" in page
