"""Features that stay on disk: the same training but for the order of rows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tailbind.models.mlp import Mlp
from tailbind.table.blocks import Blocks
from tailbind.table.features import Features
from tailbind.training import beginning, steps
from tailbind.training.batches import ShuffledBlocks
from tailbind.training.loop import Trainer
from tailbind.training.losses import WeightedMse
from tailbind.training.schedule import AdamW, CosineRestarts
from tailbind.training.stages import Stage, TrainingOptions

N, N_COLUMNS, PER_FILE = 230, 6, 50


@pytest.fixture
def X() -> np.ndarray:  # noqa: N802
    return np.random.default_rng(0).normal(size=(N, N_COLUMNS)).astype(np.float32)


@pytest.fixture
def blocks(X: np.ndarray, tmp_path: Path) -> Blocks:
    files = []
    for start in range(0, N, PER_FILE):
        files.append(tmp_path / f"{start:05}.npy")
        np.save(files[-1], X[start : start + PER_FILE])
    return Blocks(tuple(files), PER_FILE, X.shape)


def trainer(X: np.ndarray | Blocks, members: int = 1, n_train: int = 200) -> Trainer:
    y = np.random.default_rng(1).normal(7, 2, N)
    stage = Stage("all rows", np.arange(n_train), 3, AdamW(1e-2), CosineRestarts())
    options = TrainingOptions(epochs=3, batch_size=16, clip_grad_norm=1.0)
    network = Mlp((8, 4), members=members).build(N_COLUMNS, 0)
    features = Features(X, tuple("abcdef"))
    validation = np.arange(n_train, N)
    return Trainer(network, features, y, np.full(N, "="), np.ones(N), validation, [stage], WeightedMse(), options)


def test_rows_are_those_of_the_matrix(X: np.ndarray, blocks: Blocks) -> None:
    rng = np.random.default_rng(2)
    assert (len(blocks), blocks.shape, blocks.nbytes) == (N, X.shape, X.nbytes)
    for rows in (rng.permutation(N), np.array([3, 3, 229, 0]), np.array([], np.intp), np.array([-1, 5]), X[:, 0] > 0):
        np.testing.assert_array_equal(blocks[rows], X[rows])
    for stretch in (slice(None), slice(40, 120), slice(5, 200, 7), slice(10, 10)):
        np.testing.assert_array_equal(blocks[stretch], X[stretch])
    some = blocks.take_columns([4, 1])
    np.testing.assert_array_equal(some[10:60], X[10:60, [4, 1]])
    np.testing.assert_array_equal(some.take_columns([1])[:], X[:, [1]])
    mean, scale = np.float32([1, 2, 3, 4, 5, 6]), np.float32([1, 2, 1, 2, 1, 2])
    np.testing.assert_array_equal(blocks.scaled(mean, scale)[:], (X - mean) / scale)


def test_what_rows_have_and_what_comes_into_memory(X: np.ndarray, blocks: Blocks) -> None:
    features = Features(blocks, tuple("abcdef"))
    assert features.complete.all()
    assert isinstance(features.in_memory().dense, np.ndarray)
    np.testing.assert_array_equal(features.take(np.array([7, 2])).dense, X[[7, 2]])


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("at_once", [1 << 20, 4 * N_COLUMNS * 120])
def test_training_is_that_in_memory_in_the_same_order(
    X: np.ndarray, blocks: Blocks, members: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little is read at a time; batches of both are dealt by blocks here."""
    monkeypatch.setattr(steps, "READ_AT_ONCE", at_once)
    monkeypatch.setattr(beginning, "BLOCK_ROWS", PER_FILE)
    monkeypatch.setattr(beginning, "Shuffled", lambda rows: ShuffledBlocks(rows, rows // PER_FILE))
    here, there = trainer(X, members), trainer(blocks, members)
    told: list[list[float]] = [[], []]
    for learner, losses in zip((here, there), told, strict=True):
        learner.run(lambda result, losses=losses: losses.extend((result.train_loss, result.val_loss)))
    assert told[0] == pytest.approx(told[1], rel=1e-6)
    np.testing.assert_allclose(here.network.predict(X), there.network.predict(Features(blocks, tuple("abcdef"))))


def test_a_continued_training_deals_batches_as_it_was_begun(
    X: np.ndarray, blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the features fit into memory by then."""
    monkeypatch.setattr(beginning, "BLOCK_ROWS", PER_FILE)
    whole, begun, continued = trainer(blocks), trainer(blocks), trainer(X)
    losses: list[float] = []
    whole.run(lambda result: losses.append(result.train_loss))
    begun._run_epoch()
    continued.load_state(begun.state())
    again: list[float] = []
    continued.run(lambda result: again.append(result.train_loss))
    assert again == pytest.approx(losses[1:], rel=1e-6)


def test_no_more_is_read_than_allowed(blocks: Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "READ_AT_ONCE", 4 * N_COLUMNS * 40)
    taken: list[int] = []
    original = Blocks.__getitem__

    def watched(self: Blocks, rows: np.ndarray) -> np.ndarray:
        found = original(self, rows)
        taken.append(len(found))
        return found

    monkeypatch.setattr(Blocks, "__getitem__", watched)
    trainer(blocks)._run_epoch()
    assert taken == [32] * 5 + [40, 30], "two batches of 16 fit into 40 rows, the last of 8 too; then validation rows"


def test_each_row_once_and_rows_of_few_blocks_together() -> None:
    rows = np.arange(1000, dtype=np.intp)[::-1].copy()
    dealt = ShuffledBlocks(rows, rows // 100, at_once=2)
    epoch = dealt(32, torch.Generator().manual_seed(0))
    assert sorted(epoch.rows.tolist()) == list(range(1000))
    blocks = [set((epoch.rows[start : start + 200] // 100).tolist()) for start in range(0, 1000, 200)]
    assert [len(of) for of in blocks] == [2] * 5
    again = dealt(32, torch.Generator().manual_seed(1))
    assert [set((again.rows[start : start + 200] // 100).tolist()) for start in range(0, 1000, 200)] != blocks
    assert (epoch.rows[:200] // 100).diff().abs().sum() > 50, "rows of the two are mixed"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space as Linux does")
def test_a_table_larger_than_the_address_space(tmp_path: Path) -> None:
    """In a process that may have less memory than the table: it learns, where a map of the whole is refused."""
    code = f"""
import resource, sys
import numpy as np, torch
from pathlib import Path
from tailbind.models.mlp import Mlp
from tailbind.table.blocks import Blocks
from tailbind.table.features import Features
from tailbind.training import steps
from tailbind.training.loop import Trainer
from tailbind.training.losses import WeightedMse
from tailbind.training.schedule import AdamW, CosineRestarts
from tailbind.training.stages import Stage, TrainingOptions
torch.set_num_threads(1)
n, per_file, width = 200_000, 10_000, 256
files = []
for start in range(0, n, per_file):
    files.append(Path({str(tmp_path)!r}) / f"{{start:07}}.npy")
    np.save(files[-1], np.random.default_rng(start).standard_normal((per_file, width), np.float32))
blocks = Blocks(tuple(files), per_file, (n, width))
steps.READ_AT_ONCE = 16 << 20
y = np.tile(blocks[:per_file] @ np.random.default_rng(1).normal(size=width) / 16 + 7, n // per_file)
def train():
    network = Mlp((8,)).build(width, 0)
    stage = Stage("all rows", np.arange(0, n - 1000, 4), 1, AdamW(1e-2), CosineRestarts())
    trainer = Trainer(network, Features(blocks, tuple(map(str, range(width)))), y, np.full(n, "="), np.ones(n),
                      np.arange(n - 1000, n), [stage], WeightedMse(), TrainingOptions(epochs=1, batch_size=512))
    trainer.run(lambda result: print(result.train_loss))
train()  # what is loaded on the way is loaded now
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = used + blocks.nbytes // 2
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    np.empty(blocks.shape, np.float32)
    print("it fits")
except MemoryError:
    train()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = map(float, done.stdout.split())
    assert first == pytest.approx(second, rel=1e-5)
    assert np.isfinite(first)
