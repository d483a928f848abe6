"""The hot loop: what it computes is a plain PyTorch loop's, and how many calls it makes for it."""

import collections
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tailbind.models.mlp import Mlp
from tailbind.training.loop import Trainer
from tailbind.training.losses import FocalMse
from tailbind.training.schedule import AdamW, Constant
from tailbind.training.stages import Stage, TrainingOptions
from tailbind.training.stepping import take_step

N, WIDTH, BATCH = 1000, 20, 64
#: PyTorch calls of a step of v2, forward, back, loss, clipping and optimizer: a few more than the 78 and 21 of today.
MOST_CALLS, MOST_CALLS_OF_ANOTHER_MEMBER = 86, 23


def trainer(dropout: float, members: int = 1, epochs: int = 2, n: int = N) -> Trainer:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, WIDTH), np.float32)
    y = np.clip(7.5 + X[:, 0] + 0.5 * rng.standard_normal(n), 0.5, 15.5)
    loss, rows = FocalMse(), np.arange(n)
    network = Mlp(dropout=dropout, members=members).build(WIDTH, seed=0)
    options = TrainingOptions(epochs=epochs, batch_size=BATCH, clip_grad_norm=1.0, seed=7)
    stage = Stage("all rows", rows, epochs, AdamW(1e-3), Constant())
    weight = np.minimum(loss.of_rows(y, rows), 30.0)
    return Trainer(network, X, y, np.full(n, "="), weight, rows[:50], [stage], loss, options)


def test_losses_are_those_of_a_plain_loop() -> None:
    """Without dropout, in the same order: every step's loss to rounding, and the weights after two epochs."""
    learner = trainer(dropout=0.0)
    plain = Mlp(dropout=0.0).build(WIDTH, seed=0).members[0].train()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=1e-4)
    sampler = torch.Generator().manual_seed(7)
    X, y, weight = learner._rows.X.dense, learner._rows.y, learner._rows.weight
    assert isinstance(X, torch.Tensor)
    expected = []
    for _ in range(2):
        total = 0.0
        for rows in torch.randperm(N, generator=sampler).split(BATCH):
            squared = (plain(X[rows]).squeeze(-1) - y[rows]).square()
            loss = (weight[rows] * squared * (1 + squared)).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            optimizer.step()
            total += loss.item() * len(rows)
        expected.append(total / N)
    found: list[float] = []
    learner.run(lambda result: found.append(result.train_loss))
    assert found == pytest.approx(expected, rel=1e-4)
    plain.eval()
    with torch.no_grad():
        wanted = plain(X).squeeze(-1).numpy()
    np.testing.assert_allclose(learner.network.predict(X.numpy()), wanted, rtol=2e-3, atol=2e-3)


class Counting(TorchDispatchMode):
    """Counts the calls into PyTorch's kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(function)] += 1
        return function(*args, **(kwargs or {}))


def calls_of_a_step(members: int, monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """Return the calls of one step: the difference of epochs of three batches and of two."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # what is counted is one thread's
    counts = []
    for n_batches in (2, 3):
        learner = trainer(0.3, members, epochs=2, n=n_batches * BATCH)
        learner._run_epoch()
        with Counting() as counting:
            learner._train_within_memory(0)
        counts.append(counting.calls)
    step = counts[1]
    step.subtract(counts[0])
    return step


def test_a_step_makes_no_more_calls_than_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard without a clock: a step that gathers row by row, or computes member by member, shows at once."""
    one, eight = calls_of_a_step(1, monkeypatch), calls_of_a_step(8, monkeypatch)
    assert 60 < one.total() <= MOST_CALLS, one.most_common()
    assert (eight.total() - one.total()) / 7 <= MOST_CALLS_OF_ANOTHER_MEMBER, eight.most_common()
    products = {name: count for name, count in one.items() if "bmm" in name and count}
    assert products == {"aten.baddbmm.out": 5, "aten.baddbmm_.default": 9}
    assert {name: eight[name] for name in products} == products, "members share the calls"
    assert one["aten.index_select.default"] == 1, "one gather of features"


def test_a_step_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read back from the device between the first batch and the last: a GPU would stand still."""
    step = calls_of_a_step(1, monkeypatch)
    assert step["aten._local_scalar_dense.default"] == 0
    assert step["aten.is_nonzero.default"] == 0


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_a_step_is_the_optimizers_own(kind: type[torch.optim.Optimizer]) -> None:
    """With two groups of options, a parameter without a gradient, and a learning rate that changes."""
    torch.manual_seed(0)
    ours, theirs = ([nn.Parameter(torch.ones(size)) for size in (50, 7, 3)] for _ in range(2))

    def optimizer_of(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.02, "weight_decay": 0.0}]
        return kind(groups, lr=0.01, weight_decay=0.1, fused=True)  # type: ignore[call-arg, arg-type]

    mine, plain = optimizer_of(ours), optimizer_of(theirs)
    for number in range(5):
        for own, other in zip(ours[:2], theirs[:2], strict=True):
            own.grad = torch.randn_like(own)
            other.grad = own.grad.clone()
        mine.param_groups[0]["lr"] = plain.param_groups[0]["lr"] = 0.01 / (1 + number)
        with torch.no_grad():
            take_step(mine)
        plain.step()
    for own, other in zip(ours, theirs, strict=True):
        assert torch.equal(own, other)
    assert str(mine.state_dict()) == str(plain.state_dict())
