"""Training with a sparse block: it learns from it, and goes on exactly."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from tailbind.checkpoint import RESUME, load_state, save_state
from tailbind.models.inlet import EmbeddingPerceptron
from tailbind.models.mlp import Mlp
from tailbind.table.features import Features
from tailbind.training.loop import Trainer
from tailbind.training.losses import WeightedMse
from tailbind.training.results import EpochResult
from tailbind.training.schedule import Adam, AdamW, Constant, CosineRestarts
from tailbind.training.stages import TrainingOptions, plan_stages

N, N_SPARSE = 400, 30
TRAIN, VALIDATION = np.arange(300), np.arange(300, N)
MODEL = Mlp((16, 8), embedding_dim=6, dropout=0.2)
OPTIONS = TrainingOptions(epochs=5, batch_size=16, clip_grad_norm=1.0, seed=3)


@pytest.fixture(scope="module", name="X")
def _features() -> Features:
    """Rows whose dense columns say nothing; some have no nonzero, and the last column occurs in no training row."""
    rng = np.random.default_rng(0)
    sparse = (rng.random((N, N_SPARSE)) < 0.1).astype(np.float32)
    sparse[TRAIN, -1] = 0
    sparse[350:, -1] = 1
    names = tuple(f"s{column}" for column in range(N_SPARSE))
    return Features(rng.normal(size=(N, 2)).astype(np.float32), ("a", "b"), csr_array(sparse), names)


@pytest.fixture(scope="module", name="y")
def _labels(X: Features) -> np.ndarray:
    effects = np.random.default_rng(1).normal(size=N_SPARSE)
    effects[-1] = 0
    return np.asarray(7 + X.sparse @ effects)


def trainer(
    X: Features,
    y: np.ndarray,
    options: TrainingOptions = OPTIONS,
    optimizer: Adam | AdamW | None = None,
    model: Mlp = MODEL,
) -> Trainer:
    stages = plan_stages(options, optimizer or AdamW(1e-2), CosineRestarts(t_0=3), y, TRAIN)
    network = model.build(2, options.seed, N_SPARSE)
    network.make_ready(X, TRAIN)
    equal, ones = np.full(N, "="), np.ones(N)
    return Trainer(network, X, y, equal, ones, VALIDATION, stages, WeightedMse(), options)


def losses(learner: Trainer) -> list[tuple[float, float]]:
    results: list[EpochResult] = []
    learner.run(results.append)
    return [(result.train_loss, result.val_loss) for result in results]


def test_it_learns_what_only_the_sparse_block_says(X: Features, y: np.ndarray) -> None:
    learner = trainer(X, y, replace(OPTIONS, epochs=60), model=replace(MODEL, dropout=0.0))
    losses(learner)
    error = np.sqrt(np.mean((learner.network.predict(X, VALIDATION) - y[VALIDATION]) ** 2))
    assert error < 0.4 * y[VALIDATION].std()


@pytest.mark.parametrize("optimizer", [AdamW(1e-2, 0.1), Adam(1e-2, 0.1)])
def test_a_column_that_no_training_row_has_stays_silent(X: Features, y: np.ndarray, optimizer: Adam | AdamW) -> None:
    learner = trainer(X, y, optimizer=optimizer)
    losses(learner)
    module = learner.network.members[0]
    assert isinstance(module, EmbeddingPerceptron)
    silent = (module.embedding.weight == 0).all(dim=1)
    assert silent.tolist() == [False] * (N_SPARSE - 1) + [True]


@pytest.mark.parametrize("members", [1, 2])
def test_a_continued_training_is_the_uninterrupted_one_to_the_bit(
    X: Features, y: np.ndarray, tmp_path: Path, members: int
) -> None:
    model = replace(MODEL, members=members)
    whole = trainer(X, y, model=model)
    expected = losses(whole)

    class StoppedError(Exception):
        pass

    def stop(result: EpochResult) -> None:
        if result.epoch == 2:
            raise StoppedError

    first = trainer(X, y, model=model)
    with pytest.raises(StoppedError):
        first.run(stop)
    save_state(tmp_path / "resume.pth", RESUME, first.state())
    second = trainer(X, y, model=model)
    second.load_state(load_state(tmp_path / "resume.pth", RESUME))
    assert losses(second) == expected[2:]
    for one, other in zip(whole.network.members, second.network.members, strict=True):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name])


def test_it_is_what_it_would_be_with_the_block_made_dense(X: Features, y: np.ndarray) -> None:
    # The embeddings are the rows of a first linear layer without bias: the same start gives the same training. Without
    # BatchNorm, before which a bias has no gradient but rounding, that Adam would enlarge.
    class Dense(torch.nn.Module):
        def __init__(self, inner: EmbeddingPerceptron) -> None:
            super().__init__()
            self.layers, self.weight = inner.layers, torch.nn.Parameter(inner.embedding.weight.detach().clone())

        def forward(self, columns: torch.Tensor) -> torch.Tensor:
            return self.layers(torch.cat([columns[:, :2], columns[:, 2:] @ self.weight], dim=1))

    options, model = replace(OPTIONS, epochs=3), replace(MODEL, batch_norm=False, dropout=0.0)
    learner = trainer(X, y, options, model=model)
    other = trainer(X, y, options, model=model).network
    inner = other.members[0]
    assert isinstance(inner, EmbeddingPerceptron)
    other.members[0] = Dense(inner)  # type: ignore[call-overload]
    stages = plan_stages(options, AdamW(1e-2), CosineRestarts(t_0=3), y, TRAIN)
    columns = np.hstack([X.dense, X.sparse.toarray()])
    judge = Trainer(other, columns, y, np.full(N, "="), np.ones(N), VALIDATION, stages, WeightedMse(), options)
    np.testing.assert_allclose(losses(learner), losses(judge), rtol=1e-3)


def test_a_second_stage_has_it_too(X: Features, y: np.ndarray) -> None:
    options = replace(OPTIONS, epochs=2, finetune_epochs=2, finetune_bins=("moderate",))
    stages = plan_stages(options, AdamW(1e-2), Constant(), y, TRAIN)
    network = MODEL.build(2, 3, N_SPARSE)
    network.make_ready(X, TRAIN)
    learner = Trainer(network, X, y, np.full(N, "="), np.ones(N), VALIDATION, stages, WeightedMse(), options)
    assert len(losses(learner)) == 4
