"""What a stage begins with: members with fresh optimizers and schedules, and how its rows are dealt into batches."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tailbind.models.network import Network
from tailbind.models.together import Together
from tailbind.scale import bin_index
from tailbind.table.blocks import BLOCK_ROWS
from tailbind.training.batches import Batching, Shuffled, ShuffledBlocks, Stratified
from tailbind.training.member import Average, Loss, Member, fresh_stream, optimizer_of, own_loss
from tailbind.training.stages import Stage, TrainingOptions


def members_of(
    stage: Stage,
    network: Network,
    groups: Sequence[Together],
    loss: Loss,
    options: TrainingOptions,
    before: Sequence[Member],
) -> list[Member]:
    """Return the members that a stage trains; from the stage before, random streams and learned losses go on.

    Parameters
    ----------
    groups : the network's members, as they are trained at once
    before : the members of the stage before; empty in the first, where member m starts from `options.seed` + m
    """
    members = []
    learned = [own for group in groups for own in group.parameters()]
    for number, module in enumerate(network.members):
        seed = options.seed + number
        if before:
            own, sampler, stream = before[number].loss, before[number].sampler, before[number].stream
        else:
            own, sampler, stream = (
                own_loss(loss, network.device),
                torch.Generator().manual_seed(seed),
                fresh_stream(seed, network.device),
            )
        optimizer = optimizer_of(stage.optimizer, learned[number], own)
        average = Average(module, options.ema_decay) if options.ema_decay else None
        schedule = stage.schedule(optimizer)
        members.append(Member(module, learned[number], own, optimizer, schedule, sampler, stream, average))
    return members


def dealt(
    rows: NDArray[np.intp], y: NDArray[np.float64], options: TrainingOptions, *, by_blocks: bool = False
) -> Batching:
    """Return what deals a stage's rows into batches.

    Parameters
    ----------
    rows : (n_rows,) of the stage
    y : (n_samples,) pKd of the whole table
    by_blocks : whether rows come a few blocks of the table at a time, as where features stay on disk

    Examples
    --------
    >>> batching = dealt(np.arange(5), np.full(5, 6.0), TrainingOptions())
    >>> batching(2, torch.Generator().manual_seed(0)).sizes
    [2, 3]
    """
    if options.stratified:
        return Stratified(rows, bin_index(y[rows]), options.rows_per_bin)
    return ShuffledBlocks(rows, rows // BLOCK_ROWS) if by_blocks else Shuffled(rows)
