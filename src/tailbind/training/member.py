"""One network of an ensemble in training, and everything that makes its future."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn, optim

from tailbind.training.losses import Noise
from tailbind.training.schedule import OptimizerOptions, Stepping

#: How much faster a noise is learned than weights. Adam moves its logarithm by about the learning rate a step:
#: at 1e-4, and at a mean of half that by a schedule, a fall from e² to e⁻² takes 4,000 steps instead of 80,000.
NOISE_PACE: Final = 20.0
#: The n-th step's weights have at least a share of 9 / (10 + n) in the average, so that the start is soon forgotten.
_WARMUP: Final = 10


class RowLoss(Protocol):
    """A loss: one value per row."""

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd, weights and sides (−1 "<", 0 "=", +1 ">").

        Predictions may be (k, n), of k outputs; then so are the losses.
        """
        ...


@runtime_checkable
class NoisyLoss(Protocol):
    """A loss with a noise: every member of an ensemble has one of its own."""

    def build(self) -> Noise:
        """Return the loss of one member."""
        ...


class LossOptions(Protocol):
    """What is asked of the options of any loss."""

    @property
    def takes_bounds(self) -> bool:
        """Whether a label marked < or > is taken as a bound, not as measured."""
        ...

    @property
    def compares_rows(self) -> bool:
        """Whether a value depends on the other rows of the batch."""
        ...


class RowLossOptions(LossOptions, RowLoss, Protocol):
    """A loss that is its own options."""


@runtime_checkable
class NoisyLossOptions(LossOptions, NoisyLoss, Protocol):
    """A loss whose options build it."""


Loss: TypeAlias = RowLossOptions | NoisyLossOptions


class Average:
    """An exponential moving average of a network's weights, and of the statistics that go with them.

    While an epoch runs, the network holds the newest weights; between epochs it holds the average, which is what is
    judged, predicted by and saved. The other of the two is kept here.

    After step n the average moves to the newest by max(1 − decay, 9 / (10 + n)).

    Parameters
    ----------
    module : the network at the start
    decay : share of the average that stays at each step, in the long run
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._other = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def swap(self, module: nn.Module) -> None:
        """Exchange the weights in the network with those kept here."""
        for name, tensor in module.state_dict().items():
            here = self._other[name].clone()
            self._other[name].copy_(tensor)
            tensor.copy_(here)

    def update(self, module: nn.Module) -> None:
        """Take a step's weights in; to be called while the network holds the newest."""
        self.steps += 1
        share = max(1 - self.decay, (_WARMUP - 1) / (_WARMUP + self.steps))
        newest = module.state_dict()
        floats = [name for name, tensor in newest.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self._other[name] for name in floats], [newest[name] for name in floats], share)
        for name in newest.keys() - set(floats):
            self._other[name].copy_(newest[name])

    def state(self) -> dict[str, Any]:
        """Return all but what is in the network."""
        return {"steps": self.steps, "other": self._other}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Return to a state."""
        self.steps = int(state["steps"])
        for name, tensor in state["other"].items():
            self._other[name].copy_(tensor)


@dataclass
class Member:
    """One network in training, and everything that makes its future: loss, optimizer, schedule, random streams."""

    module: nn.Module
    loss: RowLoss
    optimizer: optim.Optimizer
    schedule: Stepping
    sampler: torch.Generator
    random: Tensor
    average: Average | None = None

    def state(self) -> dict[str, Any]:
        """Return all that an exact continuation needs; to be taken between epochs."""
        return copy.deepcopy(
            {
                "weights": dict(self.module.state_dict()),
                "loss": self.loss_state(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "sampler": self.sampler.get_state(),
                "random": self.random,
                **({"average": self.average.state()} if self.average else {}),
            }
        )

    def loss_state(self) -> dict[str, Tensor]:
        """Return what the loss has learned; empty for one that learns nothing."""
        return copy.deepcopy(dict(self.loss.state_dict())) if isinstance(self.loss, nn.Module) else {}

    def load_loss_state(self, state: Mapping[str, Tensor]) -> None:
        """Return to what the loss had learned."""
        if isinstance(self.loss, nn.Module):
            self.loss.load_state_dict(state)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Return to a state."""
        state = copy.deepcopy(dict(state))
        self.module.load_state_dict(state["weights"])
        self.load_loss_state(state.get("loss", {}))  # absent where it was saved before any loss learned
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.sampler.set_state(state["sampler"])
        self.random = state["random"]
        if self.average:
            self.average.load_state(state["average"])

    @contextlib.contextmanager
    def in_training(self, device: torch.device) -> Iterator[None]:
        """Inside, train the newest weights, drawing from the member's own random stream."""
        self.module.train()
        if self.average:
            self.average.swap(self.module)
        with self._stream(device):
            yield
        if self.average:
            self.average.swap(self.module)

    @contextlib.contextmanager
    def _stream(self, device: torch.device) -> Iterator[None]:
        """Draw from the member's own random stream inside, and leave the global one as it was."""
        on_gpu = device.type == "cuda"
        get: Callable[[], Tensor] = torch.cuda.get_rng_state if on_gpu else torch.get_rng_state
        put: Callable[[Tensor], None] = torch.cuda.set_rng_state if on_gpu else torch.set_rng_state
        before = get()
        put(self.random)
        try:
            yield
        finally:
            self.random = get()
            put(before)


def own_loss(loss: RowLoss | NoisyLoss, device: torch.device) -> RowLoss:
    """Return the loss of one member: its own where the loss has a noise, else the one that all share."""
    return loss.build().to(device) if isinstance(loss, NoisyLoss) else loss


def optimizer_of(options: OptimizerOptions, module: nn.Module, loss: RowLoss) -> optim.Optimizer:
    """Return the optimizer of a network, and of what its loss learns: faster, and without weight decay."""
    learned = list(loss.parameters()) if isinstance(loss, nn.Module) else []
    if not learned:
        return options(module.parameters())
    of_loss: dict[str, Any] = {"params": learned, "lr": NOISE_PACE * options.lr, "weight_decay": 0.0}
    return options([{"params": list(module.parameters())}, of_loss])


def fresh_stream(seed: int, device: torch.device) -> Tensor:
    """Return the state of a random stream on `device` that starts from `seed`."""
    return torch.Generator(device).manual_seed(seed).get_state()
