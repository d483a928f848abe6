"""Which rows are in which batch of an epoch: shuffled, or with every affinity bin in every batch."""

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
    rows : row numbers of each batch
    factor : of each batch, (n,) what a row's weight is multiplied by; None where by nothing
    """

    rows: list[Tensor]
    factor: list[Tensor] | None = None

    def to(self, device: torch.device) -> "Epoch":
        """Return the same on a device, taken there all at once."""
        return Epoch(_moved(self.rows, device), None if self.factor is None else _moved(self.factor, device))


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
        return Epoch(batches(torch.from_numpy(self.rows)[torch.randperm(len(self.rows), generator=generator)], size))


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
        return Epoch([torch.cat(of) for of in dealt], [torch.cat(of) for of in factors])


def batches(order: Tensor, size: int) -> list[Tensor]:
    """Return `order` in batches; a last batch of one row joins the one before, for BatchNorm needs two.

    >>> [len(batch) for batch in batches(torch.arange(9), 4)]
    [4, 5]
    """
    pieces = list(torch.split(order, size))
    if len(pieces) > 1 and len(pieces[-1]) == 1:
        pieces[-2:] = [torch.cat(pieces[-2:])]
    return pieces


def _fewest_batches(counts: NDArray[np.intp], least: int, size: int) -> int:
    """Return the fewest batches of at most `size` rows that hold all rows, and `least` of each bin in each.

    >>> _fewest_batches(np.array([90, 10, 1]), least=1, size=12)
    10
    """
    n_batches = -(-int(counts.sum()) // size)
    while int(np.maximum(-(-counts // n_batches), least).sum()) > size:
        n_batches += 1
    return n_batches


def _moved(pieces: list[Tensor], device: torch.device) -> list[Tensor]:
    """Return pieces on a device, taken there as one."""
    return list(torch.split(torch.cat(pieces).to(device), [len(piece) for piece in pieces]))
