"""The top of the ladder: fitted runs, small enough for seconds."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import tailbind
from tailbind.evaluation.comparison import compare_predictions
from tailbind.evaluation.metrics import intervals
from tailbind.evaluation.retrieval import retrieval_intervals
from tailbind.workflows import comparing, scoring

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


@pytest.fixture(scope="module", autouse=True)
def _fewer_resamples() -> Iterator[None]:
    """What these tests are about is not the bootstrap, which would take a fifth of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "intervals", partial(intervals, n_resamples=100))
        patch.setattr(scoring, "retrieval_intervals", partial(retrieval_intervals, n_resamples=100))
        patch.setattr(comparing, "compare_predictions", partial(compare_predictions, n_resamples=100))
        yield
