"""Runs with losses, batches, schedules and a choice of the best epoch that v1 and v2 do not have."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import tailbind
from tailbind.workflows import journal

TINY = ("model.hidden_dims=[8]", "training.epochs=3", "training.batch_size=64", "training.start_at_mean=true")
UNWEIGHTED = ("loss.weights=sqrt_inverse", "loss.extreme_factor=1.0")
EVERYTHING = (
    *TINY, *UNWEIGHTED, "loss.kind=censored_mse", "loss.cap=5", "loss.smoothing_sigma=0.2", "schedule.kind=one_cycle",
    "training.stratified=true", "training.ema_decay=0.9", "training.select_by=balanced",
)  # fmt: skip


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(path, weights_only=True)["model"]["members"][0])


@pytest.mark.parametrize(
    "kind", ["censored_mse", "huber", "bounded_focal", "balanced_mse", "concordant", "ranked"]
)  # fmt: skip
def test_every_loss_makes_a_run(kind: str, simulated_csv: Path, tmp_path: Path) -> None:
    changes = [*TINY, *UNWEIGHTED, f"loss.kind={kind}"]
    run = tailbind.train(simulated_csv, recipe="v2", out=tmp_path, overrides=changes, device="cpu")
    labels: Any = run.metrics["labels"]
    assert labels["taken_as_bounds"] > 0
    assert labels["fitted_as_measured"] == 0
    assert "sigma" not in run.metrics, "only a likelihood's noise is one of labels"


def test_history_tells_the_score_that_chose_the_best_epoch(
    simulated_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tailbind.train(simulated_csv, recipe="v2", out=tmp_path, overrides=EVERYTHING, device="cpu")
    history = pl.read_csv(run.path / "history.csv")
    assert history.columns == ["epoch", "train_loss", "val_loss", "lr", "seconds", "rows_per_second", "val_score"]
    assert run.metrics["best_epoch"] == history["epoch"][history["val_score"].arg_min()]  # type: ignore[index]
    assert history["lr"].is_sorted(descending=True)
    last = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch 3/3  "))
    assert f"  val {history['val_loss'][-1]:.4g}  balanced {history['val_score'][-1]:.4g}  lr " in last


def test_a_run_with_everything_is_continued_exactly(
    simulated_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tailbind.train(simulated_csv, recipe="v2", out=tmp_path / "whole", overrides=EVERYTHING, device="cpu")
    append = journal._append

    class Killed(BaseException):
        pass

    def strike(path: Path, line: str) -> None:
        append(path, line)
        if line.startswith("2,"):
            raise Killed

    out = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_append", strike)
        with pytest.raises(Killed):
            tailbind.train(simulated_csv, recipe="v2", out=out, overrides=EVERYTHING, device="cpu")
    tailbind.train(simulated_csv, recipe="v2", out=out, overrides=EVERYTHING, device="cpu", resume=True)
    unchanging = ["epoch", "train_loss", "val_loss", "lr", "val_score"]
    one, other = (pl.read_csv(path / "history.csv")[unchanging] for path in (out, whole.path))
    assert one.equals(other)
    for name in ("best_model_v2.pth", "final_model_v2.pth"):
        resumed, expected = weights(out / name), weights(whole.path / name)
        assert all(torch.equal(resumed[key], expected[key]) for key in expected)


def test_a_run_that_stops_early_is_finished(
    simulated_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = [*TINY, "training.epochs=60", "training.patience=2", "optimizer.lr=0.5"]
    run = tailbind.train(simulated_csv, recipe="v2", out=tmp_path, overrides=changes, device="cpu")
    history = pl.read_csv(run.path / "history.csv")
    last, best = history["epoch"][-1], run.metrics["best_epoch"]
    assert last < 60
    assert last - best == 2  # type: ignore[operator]
    assert torch.load(run.path / "final_model_v2.pth", weights_only=True)["epoch"] == last
    assert (run.path / "DONE").exists()
    said = capsys.readouterr().out
    assert f"Stopped after epoch {last}: no better one than epoch {best} for 2 epochs." in said
    assert f"epoch {last}/60  " in said
