"""The top of the ladder: fitted runs, small enough for seconds."""

from pathlib import Path

import pytest

import tailbind

SMALL = ("training.epochs=4", "training.batch_size=64", "training.checkpoint_every=2")


@pytest.fixture(scope="session")
def run_v1(simulated_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tailbind.RunSummary:
    out = tmp_path_factory.mktemp("runs") / "v1"
    return tailbind.train(simulated_csv, recipe="v1", out=out, overrides=SMALL, device="cpu")


@pytest.fixture(scope="session")
def run_v2(simulated_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tailbind.RunSummary:
    out = tmp_path_factory.mktemp("runs") / "v2"
    changes = (*SMALL, "model.hidden_dims=[32, 16]", "optimizer.lr=0.01")
    return tailbind.train(simulated_csv, recipe="v2", out=out, overrides=changes, device="cpu")
