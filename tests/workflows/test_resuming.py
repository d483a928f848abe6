"""A run that was killed goes on as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch

import tailbind
from tailbind import runtime
from tailbind.cli import main
from tailbind.errors import RunError
from tailbind.workflows import evaluating, journal

TINY = ("model.hidden_dims=[8, 4]", "training.epochs=3", "training.batch_size=64", "training.checkpoint_every=2")


def same_weights(a: Path, b: Path) -> bool:
    """Return whether two checkpoints hold bit-identical networks."""
    one, other = (torch.load(path, weights_only=True)["model"]["members"] for path in (a, b))
    return all(
        torch.equal(of_one[key], of_other[key]) for of_one, of_other in zip(one, other, strict=True) for key in of_one
    )


class Killed(BaseException):
    """Stands in for kill -9 between two writes."""


@pytest.mark.parametrize("recipe", ["v1", "v2-two-stage", "v2-ensemble"])
def test_a_run_stopped_before_or_after_any_write_is_continued_exactly(
    recipe: str, simulated_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = [*TINY, "training.epochs=2"]
    changes += ["training.finetune_epochs=1", "training.finetune_bins=['strong']"] if recipe == "v2-two-stage" else []
    changes += ["model.members=2"] if recipe == "v2-ensemble" else []
    monkeypatch.setattr(evaluating, "_pictures", lambda *_: dict.fromkeys("abcd", b"no picture, for speed"))
    options = {"recipe": recipe, "overrides": changes, "device": "cpu"}
    whole = tailbind.train(simulated_csv, out=tmp_path / "whole", **options)  # type: ignore[arg-type]
    honest_replace, honest_append = Path.replace, journal._append
    n_writes = 0

    def strike_at(patch: pytest.MonkeyPatch, kill_at: int) -> None:
        def replace(self: Path, target: Path) -> Path:
            strike()
            return honest_replace(self, target)

        def append(path: Path, line: str) -> None:
            strike()
            honest_append(path, line)

        def strike() -> None:
            nonlocal n_writes
            n_writes += 1
            if n_writes == kill_at:
                raise Killed

        patch.setattr(Path, "replace", replace)
        patch.setattr(journal, "_append", append)

    for kill_at in range(1, 100) if recipe == "v1" else range(5, 100, 3):
        out, n_writes = tmp_path / f"killed-{kill_at}", 0
        with monkeypatch.context() as patch:
            strike_at(patch, kill_at)
            try:
                tailbind.train(simulated_csv, out=out, **options)  # type: ignore[arg-type]
            except Killed:
                pass
            else:
                break  # every write has been struck once
        history = out / "history.csv"
        lines = history.read_text().splitlines() if history.exists() else []
        tailbind.train(simulated_csv, out=out, resume=True, **options)  # type: ignore[arg-type]
        assert same_weights(out / f"final_model_{recipe}.pth", whole.path / f"final_model_{recipe}.pth"), kill_at
        assert same_weights(out / f"best_model_{recipe}.pth", whole.path / f"best_model_{recipe}.pth"), kill_at
        assert history.read_text().splitlines()[: len(lines)] == lines
        unchanging = ["epoch", "train_loss", "val_loss", "lr"]
        assert pl.read_csv(history)[unchanging].equals(pl.read_csv(whole.path / "history.csv")[unchanging])
        assert {p.name for p in out.iterdir()} == {p.name for p in whole.path.iterdir()}
    assert kill_at > 12


def test_a_run_killed_with_signal_9_is_continued_exactly(simulated_csv: Path, tmp_path: Path) -> None:
    common = [
        "train",
        str(simulated_csv),
        "--recipe",
        "v2",
        "--recipe",
        "v2",
        "--device",
        "cpu",
        "--set",
        "training.epochs=12",
    ]
    common += ["--set", "training.batch_size=16", "--set", "model.hidden_dims=[64, 32]"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tailbind", *common]

    def go(out: Path, *more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, "--out", str(out), *more], env=environment, stdout=subprocess.DEVNULL)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert go(whole).wait() == 0
    process = go(killed)
    history = killed / "history.csv"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not history.exists() or len(history.read_text().splitlines()) < 4):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "DONE").exists()
    lines = history.read_text().splitlines()
    assert go(killed, "--resume").wait() == 0
    assert history.read_text().splitlines()[: len(lines)] == lines
    for name in ("final_model_v2.pth", "best_model_v2.pth"):
        assert same_weights(killed / name, whole / name)
    assert (killed / "DONE").exists()
    assert not (killed / "resume.pth").exists()


def test_a_finished_run_has_nothing_to_resume(
    simulated_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    sets = [word for change in TINY for word in ("--set", change)]
    assert (
        main(["train", str(simulated_csv), "--recipe", "v2", "--out", str(out), "--device", "cpu", "--resume", *sets])
        == 0
    )
    before = (out / "metrics.json").read_bytes()
    capsys.readouterr()
    assert main(["train", str(simulated_csv), "--recipe", "v2", "--out", str(out), "--device", "cpu", "--resume"]) == 0
    assert "is finished; nothing to resume" in capsys.readouterr().out
    assert (out / "metrics.json").read_bytes() == before


@pytest.fixture
def unfinished(simulated_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run stopped after its first epoch."""

    def stop(path: Path, line: str) -> None:
        raise Killed

    monkeypatch.setattr(journal, "_append", stop)
    with pytest.raises(Killed):
        tailbind.train(simulated_csv, recipe="v2", out=tmp_path / "run", overrides=TINY, device="cpu")
    monkeypatch.undo()
    return tmp_path / "run"


def test_an_unfinished_run_is_not_overwritten(unfinished: Path, simulated_csv: Path) -> None:
    with pytest.raises(RunError, match=r"it holds an unfinished run \(go on with --resume\)"):
        tailbind.train(simulated_csv, recipe="v2", out=unfinished, overrides=TINY, device="cpu")


def test_resume_needs_the_same_recipe(unfinished: Path, simulated_csv: Path) -> None:
    with pytest.raises(RunError, match=r"model.dropout was 0.3, now it is 0.4. Give the same recipe"):
        tailbind.train(
            simulated_csv,
            recipe="v2",
            out=unfinished,
            overrides=[*TINY, "model.dropout=0.4"],
            device="cpu",
            resume=True,
        )


def test_resume_needs_the_same_table(unfinished: Path, simulated_csv: Path, tmp_path: Path) -> None:
    pl.read_csv(simulated_csv).head(1100).write_csv(tmp_path / "other.csv")
    with pytest.raises(RunError, match=r"--resume needs the table that .* was begun with; .*other.csv differs"):
        tailbind.train(tmp_path / "other.csv", recipe="v2", out=unfinished, overrides=TINY, device="cpu", resume=True)


def test_resume_and_force_exclude_each_other(simulated_csv: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--resume and --force exclude each other"):
        tailbind.train(simulated_csv, recipe="v2", out=tmp_path / "run", resume=True, force=True)


def test_a_full_disk_is_one_line_and_loses_nothing(
    simulated_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    sets = [word for change in TINY for word in ("--set", change)]
    command = ["train", str(simulated_csv), "--recipe", "v2", "--out", str(out), "--device", "cpu", *sets]
    honest, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 6:
            raise OSError(28, "No space left on device")
        honest(descriptor)

    monkeypatch.setattr(runtime.os, "fsync", full)
    assert main(command) == 2
    monkeypatch.undo()
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "must be writable; No space left on device. Free space" in message
    assert not list(out.glob(".*.part"))
    assert main([*command, "--resume"]) == 0
    assert (out / "DONE").exists()
