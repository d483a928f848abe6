"""One network of an ensemble in training, and everything that makes its future."""

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn, optim

from tailbind.errors import TrainingError
from tailbind.training.losses import Noise
from tailbind.training.schedule import OptimizerOptions, Stepping
from tailbind.training.stepping import take_step

#: How much faster a noise is learned than weights. Adam moves its logarithm by about the learning rate a step:
#: at 1e-4, and at a mean of half that by a schedule, a fall from e² to e⁻² takes 4,000 steps instead of 80,000.
NOISE_PACE: Final = 20.0
#: The n-th step's weights have at least a share of 9 / (10 + n) in the average, so that the start is soon forgotten.
_WARMUP: Final = 10
#: Added to a norm before it divides, as PyTorch's `clip_grad_norm_` does.
_NEVER_ZERO: Final = 1e-6


class RowLoss(Protocol):
    """A loss: one value per row."""

    def __call__(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> Tensor:
        """Return (n,) losses for (n,) predicted and measured pKd, weights and sides (−1 "<", 0 "=", +1 ">").

        Predictions may be (k, n), of k outputs; then so are the losses.
        """
        ...


@runtime_checkable
class SlopedLoss(Protocol):
    """A loss of single rows that knows its slopes."""

    def with_slopes(self, predicted: Tensor, measured: Tensor, weight: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, as `RowLoss` does, and the slope of each in its prediction."""
        ...


@runtime_checkable
class NoisyLoss(Protocol):
    """A loss with a noise: every member of an ensemble has one of its own."""

    def build(self) -> Noise:
        """Return the loss of one member."""
        ...


@runtime_checkable
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
    """One network in training, and everything that makes its future.

    Attributes
    ----------
    module : the network
    learned : what is learned of it: all its parameters, be it as one vector
    loss, optimizer, schedule : its own
    sampler, stream : random streams of its batches, and of dropout
    average : of its weights, where there is one
    """

    module: nn.Module
    learned: list[nn.Parameter]
    loss: RowLoss
    optimizer: optim.Optimizer
    schedule: Stepping
    sampler: torch.Generator
    stream: torch.Generator
    average: Average | None = None

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None], clip_grad_norm: float) -> None:
        """Take a step along gradients to `learned`, and then to what the loss learns.

        Parameters
        ----------
        clip_grad_norm : largest norm of the gradient to `learned`; 0 does not clip
        """
        for parameter, gradient in zip(self._learnable, gradients, strict=True):
            parameter.grad = gradient
        if clip_grad_norm:
            clip([gradient for gradient in gradients[: len(self.learned)] if gradient is not None], clip_grad_norm)
        take_step(self.optimizer)
        if self.average:
            self.average.update(self.module)

    def __post_init__(self) -> None:
        self._learnable = [*self.learned, *learned_by(self.loss)]

    def state(self) -> dict[str, Any]:
        """Return all that an exact continuation needs; to be taken between epochs."""
        return copy.deepcopy(
            {
                "weights": self.weights(),
                "loss": self.loss_state(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "sampler": self.sampler.get_state(),
                "random": self.stream.get_state(),
                **({"average": self.average.state()} if self.average else {}),
            }
        )

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights and running statistics, by name."""
        return {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}

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
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise TrainingError(
                "A run can only be resumed by the version of tailbind that began it; its optimizer is another "
                f"version's ({error}). Start over with --force."
            ) from error
        self.schedule.load_state_dict(state["schedule"])
        self.sampler.set_state(state["sampler"])
        self.stream.set_state(state["random"])
        if self.average:
            self.average.load_state(state["average"])

    @contextlib.contextmanager
    def newest(self) -> Iterator[None]:
        """Inside, the network holds the newest weights, where it else holds their average."""
        if self.average:
            self.average.swap(self.module)
        try:
            yield
        finally:
            if self.average:
                self.average.swap(self.module)


def clip(gradients: Sequence[Tensor], largest: float) -> None:
    """Scale gradients in place so that their joint norm is `largest` at most; nothing waits for a GPU.

    >>> gradient = torch.tensor([3.0, 4.0])
    >>> clip([gradient], 1.0)
    >>> gradient
    tensor([0.6000, 0.8000])
    """
    squares = [torch.dot(flat, flat) for flat in (gradient.flatten() for gradient in gradients)]
    norm = (squares[0] if len(squares) == 1 else torch.stack(squares).sum()).sqrt_()
    factor = norm.add_(_NEVER_ZERO).reciprocal_().mul_(largest).clamp_(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)


def own_loss(loss: RowLoss | NoisyLoss, device: torch.device) -> RowLoss:
    """Return the loss of one member: its own where the loss has a noise, else the one that all share."""
    return loss.build().to(device) if isinstance(loss, NoisyLoss) else loss


def optimizer_of(options: OptimizerOptions, learned: list[nn.Parameter], loss: RowLoss) -> optim.Optimizer:
    """Return the optimizer of what is learned of a network, and of what its loss learns: faster, and without decay."""
    of_loss = learned_by(loss)
    if not of_loss:
        return options(learned)
    faster: dict[str, Any] = {"params": of_loss, "lr": NOISE_PACE * options.lr, "weight_decay": 0.0}
    return options([{"params": learned}, faster])


def learned_by(loss: RowLoss) -> list[nn.Parameter]:
    """Return what a loss learns; nothing of most."""
    return list(loss.parameters()) if isinstance(loss, nn.Module) else []


def fresh_stream(seed: int, device: torch.device) -> torch.Generator:
    """Return a random stream on `device` that starts from `seed`."""
    return torch.Generator(device).manual_seed(seed)
