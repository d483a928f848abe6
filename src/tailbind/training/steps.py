"""The steps of an epoch: every batch forward and back, and a step of each member along its gradients.

An ensemble's members are trained at once where they can be, see `models.together`, else in turn within each epoch.
On a CPU as many groups of them as there are threads are trained side by side.
"""

import contextlib
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from tailbind.models.together import Together
from tailbind.runtime import available_bytes, each_a_thread
from tailbind.table.blocks import Blocks
from tailbind.training.batches import Batching
from tailbind.training.member import LossOptions, Member, SlopedLoss, learned_by
from tailbind.training.rows import Rows
from tailbind.training.stages import Stage

#: Bytes of features that are read into memory together at most, where they stay on disk; and what share of the free.
READ_AT_ONCE: Final = 256 << 20
SHARES_OF_MEMORY: Final = 8


@dataclass(frozen=True)
class Steps:
    """The steps of one epoch, to be taken once.

    Attributes
    ----------
    rows : of the whole table
    members, groups : all members in their order, and how they are trained at once
    batching : deals the stage's rows
    batch_size : may be smaller than the recipe's, on a GPU with little memory
    clip_grad_norm : largest norm of the gradient; 0 does not clip
    stage : the schedule's whole
    epochs_done : of the stage, before this one
    """

    rows: Rows
    members: Sequence[Member]
    groups: Sequence[Together]
    batching: Batching
    batch_size: int
    clip_grad_norm: float
    stage: Stage
    epochs_done: int
    _stopped: threading.Event = field(default_factory=threading.Event, init=False, repr=False)

    def train(self) -> float:
        """Train all members; return the mean of their mean losses."""
        members = iter(self.members)
        work = [(group, list(itertools.islice(members, len(group.members)))) for group in self.groups]
        n_threads = min(len(work), torch.get_num_threads()) if all(group.side_by_side for group in self.groups) else 1

        def train(of_group: tuple[Together, list[Member]]) -> list[float]:
            group, members = of_group
            with contextlib.ExitStack() as stack:
                for member in members:
                    stack.enter_context(member.newest())
                stack.enter_context(group.training([member.stream for member in members]))
                try:
                    return self._train_group(group, members)
                except BaseException:
                    self._stopped.set()
                    raise

        with each_a_thread(n_threads) as apply:
            try:
                return float(np.mean([loss for losses in apply(train, work) for loss in losses]))
            except BaseException:
                self._stopped.set()
                raise

    def _train_group(self, group: Together, members: list[Member]) -> list[float]:
        """Train members that are computed at once; return each one's mean loss."""
        device = self.rows.device
        epochs = [self.batching(self.batch_size, member.sampler) for member in members]
        rows = torch.stack([epoch.rows for epoch in epochs])
        order = rows.to(self.rows.X.device)
        y, weight, side = self.rows.labels(rows)
        if epochs[0].factor is not None:
            weight = weight * torch.stack([epoch.factor for epoch in epochs if epoch.factor is not None]).to(device)
        by_losses = [parameter for member in members for parameter in learned_by(member.loss)]
        batches, sizes = epochs[0].batches, epochs[0].sizes
        of_batches = zip(*(torch.split(of_row, sizes, dim=1) for of_row in (y, weight, side)), strict=True)
        total = torch.zeros(len(members), dtype=torch.float64, device=device)
        near = slice(0, 0)
        for number, (batch, of_rows) in enumerate(zip(batches, of_batches, strict=True)):
            if self._stopped.is_set():
                break
            if batch.stop > near.stop:
                near, X = self._reach(batches, number, len(members)), self.rows.X  # what was read before can go
                X, local = self.rows.X.near(order[:, near])
            for member in members:
                if member.schedule.by_batch:
                    member.schedule.enter((self.epochs_done + number / len(batches)) / self.stage.epochs)
            outputs = group.outputs(X, local[:, batch.start - near.start : batch.stop - near.start])
            losses, slope, of_losses = _with_slopes(members, outputs, by_losses, *of_rows)
            each = len(of_losses) // len(members)
            for place, (member, gradients) in enumerate(zip(members, group.gradients(slope), strict=True)):
                own = of_losses[place * each : (place + 1) * each]
                member.step([*gradients, *own], self.clip_grad_norm)
            total.add_(losses.mean(dim=1), alpha=batch.stop - batch.start)
        return [float(of_member) for of_member in total / batches[-1].stop]

    def _reach(self, batches: Sequence[slice], number: int, n_members: int) -> slice:
        """Return how many of the batches from `number` on are read together: all, or what may come into memory."""
        start, stop = batches[number].start, batches[-1].stop
        dense = self.rows.X.dense
        if isinstance(dense, Blocks):
            n_bytes = min(READ_AT_ONCE, available_bytes() // SHARES_OF_MEMORY) // len(self.groups)
            most = n_bytes // max(1, dense.shape[1] * dense.dtype.itemsize * n_members)
            fitting = [batch.stop for batch in batches[number:] if batch.stop <= start + most]
            stop = fitting[-1] if fitting else batches[number].stop
        return slice(start, stop)


def _with_slopes(
    members: Sequence[Member], outputs: Tensor, learned: list[nn.Parameter], y: Tensor, weight: Tensor, side: Tensor
) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
    """Return (n_members, n * n_outputs) losses, and the gradients of their means to `outputs` and to what losses learn.

    Where a member has several outputs, each learns from its own error: by the error of their mean they would learn to
    be one.

    Parameters
    ----------
    outputs : (n_members, n, n_outputs)
    learned : what the members' losses learn
    y, weight, side : (n_members, n)
    """
    one_output, loss = outputs.shape[-1] == 1, members[0].loss
    if one_output and isinstance(loss, SlopedLoss):  # then members share it
        with torch.inference_mode():
            losses, slopes = loss.with_slopes(outputs.squeeze(-1), y, weight, side)
            return losses, slopes.div_(slopes.shape[1]).unsqueeze(-1), []
    outputs = outputs.clone().requires_grad_()
    if one_output and isinstance(loss, LossOptions) and not loss.compares_rows:
        values = loss(outputs.squeeze(-1), y, weight, side)
    else:
        of_members = zip(members, outputs, y, weight, side, strict=True)
        values = torch.stack(
            [m.loss(own.squeeze(-1) if one_output else own.T, *of_rows).flatten() for m, own, *of_rows in of_members]
        )
    of_means, *of_losses = torch.autograd.grad(values.mean(dim=1).sum(), [outputs, *learned])
    return values.detach(), of_means, of_losses
