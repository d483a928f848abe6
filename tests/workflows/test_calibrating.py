"""Intervals from end to end: which rows calibrate them, what they hold, and what predictions then say."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tailbind
from tailbind.cli import main
from tailbind.errors import RunError
from tailbind.evaluation.calibration import FEWEST
from tailbind.table.simulation import Landscape, simulate

COLUMNS = ["pkd_low", "pkd_high", "p_below_5", "p_above_9", "p_above_11"]
#: Rows that are tested, and how far from nine of ten what they hold may lie by chance alone.
N_ROWS, CHANCE = 1200, 0.08


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    landscape = Landscape(n_rows=N_ROWS, n_features=6, n_families=3, missing=0, floor=-10)
    groups = pl.Series("group", [f"g{i % 40}" for i in range(N_ROWS)])
    return simulate(landscape).drop("true_pkd").with_row_index("row_id").with_columns(groups)


@pytest.fixture(scope="module")
def data(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrating")
    frame.write_csv(folder / "t.csv")
    return folder / "t.csv"


def trained(data: Path, name: str, recipe: str, *changes: str) -> tailbind.RunSummary:
    return tailbind.train(data, recipe=recipe, out=data.parent / name, overrides=changes, device="cpu")


@pytest.fixture(scope="module")
def ridge(data: Path) -> tailbind.RunSummary:
    return trained(data, "ridge", "ridge-columns")


@pytest.mark.parametrize(
    ("recipe", "changes", "on"),
    [
        ("ridge-columns", (), "val"),
        ("ridge-columns", ("calibration.rows=own", "split.val_fraction=0.4"), "own"),
        ("v3-columns", (), "out_of_fold"),
        # The model learns from validation rows in the end: what it says of them is then no measure of its errors.
        ("v3-columns", ("calibration.rows=validation",), "val"),
        ("v3-columns", ("model.folds_up_to=0",), "val"),
    ],
)
def test_intervals_hold_what_they_promise(
    recipe: str, changes: tuple[str, ...], on: str, data: Path, tmp_path: Path
) -> None:
    run = tailbind.train(data, recipe=recipe, out=tmp_path / "run", overrides=changes, device="cpu")
    found = run.metrics["calibration"]
    assert found["calibrated_on"] == on
    held = found["coverage"]["measured"]
    assert held["n"] >= 150
    assert held["coverage"] == pytest.approx(0.9, abs=CHANCE)
    assert held["width"] < 4 * run.metrics["test"]["rmse"] + 1
    assert found["probabilities"]["p_above_9"]["ece"] < 0.12
    parts = pl.read_parquet(run.path / "split.parquet")["part"]
    assert (parts == "cal").sum() == (found["n_calibration"] if on == "own" else 0)
    assert "Intervals that are to hold 90 %" in (run.path / "report.html").read_text()


def test_levels_nest_and_another_than_the_recipes_can_be_asked_for(
    ridge: tailbind.RunSummary, data: Path, tmp_path: Path
) -> None:
    narrow, usual, wide = (tailbind.predict(ridge.path, data, level=level, device="cpu") for level in (0.5, None, 0.95))
    assert [name for name in usual.columns if name in COLUMNS] == COLUMNS
    for inner, outer in ((narrow, usual), (usual, wide)):
        assert (outer["pkd_low"] < inner["pkd_low"]).all()
        assert (outer["pkd_high"] > inner["pkd_high"]).all()
    assert usual.equals(tailbind.predict(ridge.path, data, level=0.9, device="cpu"))
    out = tmp_path / "p.csv"
    assert main(["predict", str(ridge.path), str(data), "--out", str(out), "--level", "0.5", "--device", "cpu"]) == 0
    assert np.allclose(pl.read_csv(out)["pkd_low"].to_numpy(), narrow["pkd_low"].to_numpy())


def test_a_level_that_cannot_be_had_is_refused(ridge: tailbind.RunSummary, data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"--level must be from 0.5 to 0.99; got 1"):
        tailbind.predict(ridge.path, data, level=1.0, device="cpu")
    with pytest.raises(RunError, match=r"best_model_ridge-columns.pth has none. Give the run folder"):
        tailbind.predict(ridge.path / "best_model_ridge-columns.pth", data, level=0.8, device="cpu")
    none = trained(data, "none", "ridge-columns", "calibration.rows=none")
    assert none.metrics["calibration"] is None
    with pytest.raises(RunError, match=r"Train with --set calibration.rows=own"):
        tailbind.predict(none.path, data, level=0.8, device="cpu")
    assert not set(COLUMNS) & set(tailbind.predict(none.path, data, device="cpu").columns)


def test_the_test_rows_carry_what_predictions_of_them_say(ridge: tailbind.RunSummary, data: Path) -> None:
    in_training = pl.read_csv(ridge.path / "test_predictions_ridge-columns.csv")
    again = tailbind.predict(ridge.path, data, device="cpu").with_columns(pl.col("row_id").cast(pl.Int64))
    both = in_training.join(again, on="row_id", suffix="_again", maintain_order="left")
    for column in COLUMNS:
        assert np.allclose(both[column].to_numpy(), both[f"{column}_again"].to_numpy())
    held = ((both["pkd_low"] <= both["true_pkd"]) & (both["true_pkd"] <= both["pkd_high"])).mean()
    assert held == pytest.approx(ridge.metrics["calibration"]["coverage"]["measured"]["coverage"])


def test_another_table_is_judged_and_its_predictions_written_with_intervals(
    ridge: tailbind.RunSummary, data: Path, tmp_path: Path
) -> None:
    figures = tailbind.evaluate(ridge.path, data, out=tmp_path / "again", device="cpu")
    written = pl.read_csv(tmp_path / "again" / "predictions.csv")
    held = ((written["pkd_low"] <= written["true_pkd"]) & (written["true_pkd"] <= written["pkd_high"])).mean()
    assert figures["calibration"]["coverage"]["measured"]["coverage"] == pytest.approx(held)
    assert json.loads((tmp_path / "again" / "metrics.json").read_text())["calibration"]["level"] == 0.9


def test_too_few_rows_for_intervals_are_told_of(
    frame: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame[:200].write_csv(tmp_path / "few.csv")
    run = tailbind.train(tmp_path / "few.csv", recipe="ridge-columns", out=tmp_path / "run", device="cpu")
    assert run.metrics["calibration"] is None
    n = run.metrics["validation"]["n"]
    assert n < FEWEST
    assert f"they need {FEWEST} measured rows that nothing was learned from; there are {n}." in capsys.readouterr().out


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_groups_are_set_apart_whole_whatever_the_share(share: float, data: Path, tmp_path: Path) -> None:
    changes = ("calibration.rows=own", f"calibration.share={share}", "split.kind=group", "split.column=group",
               "split.val_fraction=0.4")  # fmt: skip
    run = tailbind.train(data, recipe="ridge-columns", out=tmp_path / "run", overrides=changes, device="cpu")
    split = pl.read_parquet(run.path / "split.parquet")["part"]
    groups = pl.read_csv(data)["group"]
    sides = [set(groups.filter(split == part)) for part in ("train", "val", "cal", "test")]
    assert all(sides)
    assert sum(map(len, sides)) == 40
    assert len(sides[2]) < len(sides[1]) if share == 0.1 else len(sides[2]) >= len(sides[1])
