"""A step of an optimizer, without what PyTorch does besides in each."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, optim

#: The kernels that PyTorch's optimizers call with `fused=True`, one step of all parameters of a group.
_KERNELS: Final[Mapping[type[optim.Optimizer], Callable[..., object]]] = {
    optim.Adam: torch._fused_adam_,
    optim.AdamW: torch._fused_adamw_,
}


def take_step(optimizer: optim.Optimizer) -> None:
    """Take the step that `optimizer.step()` takes.

    That sorts parameters by device and type anew each time, and tells profilers: for one vector of weights this takes
    longer than the step. So what it calls is called here, from the second step on; the first makes the state.
    """
    kernel = _KERNELS.get(type(optimizer))
    groups = [
        [parameter for parameter in group["params"] if parameter.grad is not None] for group in optimizer.param_groups
    ]
    state: Mapping[Tensor, dict[str, Any]] = optimizer.state
    if kernel is None or not all(parameter in state for group in groups for parameter in group):
        optimizer.step()
        return
    for options, group in zip(optimizer.param_groups, groups, strict=True):
        states = [state[parameter] for parameter in group]
        steps = [own["step"] for own in states]
        torch._foreach_add_(steps, 1)
        kernel(
            group,
            [parameter.grad for parameter in group],
            [own["exp_avg"] for own in states],
            [own["exp_avg_sq"] for own in states],
            [],
            steps,
            lr=options["lr"],
            beta1=options["betas"][0],
            beta2=options["betas"][1],
            weight_decay=options["weight_decay"],
            eps=options["eps"],
            amsgrad=False,
            maximize=False,
            grad_scale=None,
            found_inf=None,
        )
