"""Which rows are in which batch of an epoch: shuffled, or with every affinity bin in every batch."""

import itertools
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tailbind.errors import TrainingError


@dataclass(frozen=True)
class Epoch:
    """The batches of an epoch.

    Attributes
    ----------
    rows : (n_draws,) row numbers, batch after batch
    sizes : of the batches
    factor : (n_draws,) what a row's weight is multiplied by; None where by nothing
    """

    rows: Tensor
    sizes: list[int]
    factor: Tensor | None = None

    @property
    def batches(self) -> list[slice]:
        """Where each batch is in `rows`.

        >>> Epoch(torch.arange(5), [3, 2]).batches
        [slice(0, 3, None), slice(3, 5, None)]
        """
        ends = list(itertools.accumulate(self.sizes))
        return [slice(stop - size, stop) for size, stop in zip(self.sizes, ends, strict=True)]


class Batching(Protocol):
    """Deals rows into batches, an epoch at a time."""

    def __call__(self, size: int, generator: torch.Generator) -> Epoch:
        """Return the batches of an epoch, of about `size` rows, drawn from a random stream."""
        ...


@dataclass(frozen=True)
class Shuffled:
    """Every row once, in random order."""

    rows: NDArray[np.intp]

    def __call__(self, size: int, generator: torch.Generator) -> Epoch:
        """Return the batches of an epoch."""
        order = torch.from_numpy(self.rows)[torch.randperm(len(self.rows), generator=generator)]
        return Epoch(order, batch_sizes(len(order), size))


@dataclass(frozen=True)
class ShuffledBlocks:
    """Every row once, the rows of a few blocks of the table at a time, blocks and rows in random order.

    So rows that stay on disk are read a block at a time. Batches differ from those of `Shuffled` in that their rows
    come from a few blocks: where a table is sorted, such as by data set, shuffle it first.

    Attributes
    ----------
    rows : training rows
    block : (n_rows,) the block of each
    at_once : blocks whose rows are shuffled together
    """

    rows: NDArray[np.intp]
    block: NDArray[np.intp]
    at_once: int = 8

    def __call__(self, size: int, generator: torch.Generator) -> Epoch:
        """Return the batches of an epoch."""
        block = torch.from_numpy(self.block)
        turn = torch.randperm(int(block.max()) + 1, generator=generator)[block] // self.at_once
        order = torch.randperm(len(self.rows), generator=generator)
        order = order[torch.argsort(turn[order], stable=True)]
        return Epoch(torch.from_numpy(self.rows)[order], batch_sizes(len(order), size))


@dataclass(frozen=True)
class Stratified:
    """Every batch has its share of every bin, and at least `least` rows of it.

    Where a bin has fewer rows than that takes, they are gone through again and again, each time in another order. A row
    that is drawn more often counts for less each time, so that the expectation of the loss stays that of every row
    once: what changes is that a rare row pulls a little in every batch, not much in one of hundreds. (To have it count
    for more, there are weights.) Exactly: with d draws of a bin of n rows, D of all bins of N rows, a row's weight is
    multiplied by n / d · D / N, whose mean over the draws is 1. An epoch has D draws, a few more than N.

    Losses that compare rows see the batches as they are: with their rare rows.

    Attributes
    ----------
    rows : training rows
    bins : (n_rows,) the bin of each
    least : rows of each bin in each batch
    """

    rows: NDArray[np.intp]
    bins: NDArray[np.intp]
    least: int = 1

    def __call__(self, size: int, generator: torch.Generator) -> Epoch:
        """Return the batches of an epoch, of at most `size` rows.

        Raises
        ------
        TrainingError
            When a batch is too small to hold a row of every bin.
        """
        present, counts = np.unique(self.bins, return_counts=True)
        if self.least * len(present) > size:
            raise TrainingError(
                f"A batch must hold {self.least} rows of each of {len(present)} bins with training.stratified; it has "
                f"{size}. Use training.stratified=false, or a smaller model."
            )
        n_batches = _fewest_batches(counts, self.least, size)
        if counts.sum() < 2 * n_batches and len(present) == 1:
            n_batches = max(1, n_batches - 1)  # no batch of one row, for BatchNorm needs two
        draws = np.maximum(counts, self.least * n_batches)
        dealt: list[list[Tensor]] = [[] for _ in range(n_batches)]
        factors: list[list[Tensor]] = [[] for _ in range(n_batches)]
        for name, count, drawn in zip(present, counts, draws, strict=True):
            of_bin = torch.from_numpy(self.rows[self.bins == name])
            order = torch.cat([torch.randperm(count, generator=generator) for _ in range(-(-drawn // count))])[:drawn]
            ends = np.arange(1, n_batches + 1) * drawn // n_batches
            factor = count / drawn * draws.sum() / counts.sum()
            for place, share in enumerate(torch.tensor_split(of_bin[order], torch.from_numpy(ends[:-1]))):
                dealt[place].append(share)
                factors[place].append(torch.full((len(share),), factor, dtype=torch.float32))
        sizes = [sum(len(share) for share in of) for of in dealt]
        rows, factor = (torch.cat([share for of in batches for share in of]) for batches in (dealt, factors))
        return Epoch(rows, sizes, factor)


def batch_sizes(n: int, size: int) -> list[int]:
    """Return the sizes of the batches of n rows; a last batch of one row joins the one before, for BatchNorm needs two.

    >>> batch_sizes(9, 4), batch_sizes(10, 4)
    ([4, 5], [4, 4, 2])
    """
    sizes = [min(size, n - start) for start in range(0, n, size)]
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [sizes[-2] + 1]
    return sizes


def _fewest_batches(counts: NDArray[np.intp], least: int, size: int) -> int:
    """Return the fewest batches of at most `size` rows that hold all rows, and `least` of each bin in each.

    >>> _fewest_batches(np.array([90, 10, 1]), least=1, size=12)
    10
    """
    n_batches = -(-int(counts.sum()) // size)
    while int(np.maximum(-(-counts // n_batches), least).sum()) > size:
        n_batches += 1
    return n_batches
