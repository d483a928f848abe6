"""Residues as tokens: the chains of rows side by side, padded to the longest, with a mask."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tailbind.models.tensors import ResidueTensors, stretches
from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.table.features import N_PLACES

#: Letters that are told apart: the twenty, and all others as one.
N_LETTERS: Final = len(AMINO_ACIDS) + 1
#: Longest wave in the code of a residue's number in its chain, in residues over 2π (Vaswani et al. 2017, section 3.5).
LONGEST_WAVE: Final = 10_000.0


def _letter_numbers() -> Tensor:
    numbers = np.full(256, len(AMINO_ACIDS), np.int64)
    numbers[np.frombuffer(AMINO_ACIDS.encode(), np.uint8)] = np.arange(len(AMINO_ACIDS))
    return torch.from_numpy(numbers)


@dataclass(frozen=True)
class Layout:
    """Where the residues of rows go when each row's chains are put one after the other behind a first token.

    Attributes
    ----------
    residue : (n_tokens,) each residue's position among those of the store
    row, column : (n_tokens,) where it goes
    chain : (n_tokens,) which of the row's chains it is of
    number : (n_tokens,) its number in its chain, from 0
    mask : (n_rows, longest + 1) where there is a token
    """

    residue: Tensor
    row: Tensor
    column: Tensor
    chain: Tensor
    number: Tensor
    mask: Tensor


def lay_out(residues: ResidueTensors, chains: Tensor) -> Layout:
    """Return where residues go.

    Parameters
    ----------
    residues : the store
    chains : (n_rows, n_chains) sequences of each row; −1 for none

    Examples
    --------
    >>> store = ResidueTensors(*[torch.arange(5)] * 2, torch.tensor([0, 3, 5]), torch.zeros(1, 3), torch.zeros(5, 0))
    >>> laid = lay_out(store, torch.tensor([[1, 0], [-1, 1]]))
    >>> laid.row.tolist(), laid.column.tolist()
    ([0, 0, 0, 0, 0, 1, 1], [1, 2, 3, 4, 5, 1, 2])
    """
    there = (chains >= 0).nonzero()
    residue, own = stretches(residues.starts, chains[chains >= 0])
    lengths = own.diff()
    of_residue = torch.repeat_interleave(torch.arange(len(lengths), device=own.device), lengths)
    row, chain = there[of_residue].unbind(1)
    counts = torch.bincount(row, minlength=len(chains))
    before = counts.cumsum(0) - counts
    count = torch.arange(len(row), device=own.device)
    longest = int(counts.max()) if len(counts) else 0
    mask = torch.arange(longest + 1, device=own.device) <= counts[:, None]
    return Layout(residue, row, 1 + count - before[row], chain, count - own[:-1][of_residue], mask)


class Tokens(nn.Module):
    """The tokens of rows' chains: (n, longest + 1, dim) and a mask.

    A residue's token is the sum of vectors for its letter, its chain, its place in a variable domain and its number in
    the chain, and of what an encoder says of it. Before them stands a token of the row's own, which is another where
    there is no chain.

    Parameters
    ----------
    n_chains : chains that stand one after the other
    dim : width of a token
    n_vector : numbers of a residue that an encoder gave; 0 without one
    """

    def __init__(self, n_chains: int, dim: int, n_vector: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(N_LETTERS, dim)
        self.chains = nn.Embedding(n_chains, dim)
        self.first = nn.Embedding(2, dim)
        # What is zero at the start stays so for places and letters that training never saw.
        self.places = nn.Parameter(torch.zeros(N_PLACES, dim))
        self.vectors = nn.Parameter(torch.zeros(dim, n_vector)) if n_vector else None
        self.dim = dim
        with torch.no_grad():
            self.letters.weight[-1] = 0.0
        self.register_buffer("letter_numbers", _letter_numbers(), persistent=False)

    def read_vectors(self, n_vector: int) -> None:
        """Begin to read an encoder's vectors, at first without weight."""
        self.vectors = nn.Parameter(torch.zeros(self.dim, n_vector, device=self.places.device))

    def forward(self, residues: ResidueTensors, chains: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (n, longest + 1, dim) and where there are any (n, longest + 1), for (n, n_chains) sequences."""
        laid = lay_out(residues, chains)
        letters = self.get_buffer("letter_numbers")[residues.codes[laid.residue].long()]
        values = self.letters(letters) + self.chains(laid.chain) + waves(laid.number, self.dim)
        values = values + functional.embedding(residues.places[laid.residue].long(), self.places)
        if self.vectors is not None:
            values = values + residues.vectors[laid.residue].to(values.dtype) @ self.vectors.T
        empty = (chains < 0).all(dim=1).long()
        tokens = values.new_zeros((*laid.mask.shape, self.dim))
        tokens[:, 0] = self.first(empty)
        tokens[laid.row, laid.column] = values
        return tokens, laid.mask


def waves(number: Tensor, dim: int) -> Tensor:
    """Return (n, dim) sines and cosines of numbers (n,), by wavelengths from 2π to `LONGEST_WAVE` · 2π.

    >>> waves(torch.tensor([0, 3]), 4)[1]
    tensor([ 0.1411,  0.0300, -0.9900,  0.9996])
    """
    steps = torch.arange(0, dim, 2, device=number.device) / dim
    angles = number[:, None] * torch.exp(-math.log(LONGEST_WAVE) * steps)
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :dim]
