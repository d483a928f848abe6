"""Dense columns as vectors: each number is spread over several before the first layer mixes columns.

A plain layer sees a number as a straight line. Spread by a column's own bins or waves, it can be steep in one stretch
of its range and flat in another (Gorishniy et al. 2022, arXiv 2203.05556).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from tailbind.models.contract import Rows
from tailbind.options import bounded, one_of
from tailbind.table.blocks import on_disk
from tailbind.table.features import Features

NONE, PIECEWISE_LINEAR, PERIODIC = "none", "piecewise_linear", "periodic"
NUMERICAL: Final = (NONE, PIECEWISE_LINEAR, PERIODIC)


@dataclass(frozen=True, kw_only=True)
class Numerical:
    """Options that networks which read dense columns share.

    Attributes
    ----------
    numerical_embedding : how a dense column is spread: `none` reads it as it is, `piecewise_linear` along bins between
        quantiles of the training rows, `periodic` along learned waves
    numerical_dim : numbers that each column becomes; of no effect without an embedding
    numerical_bins : bins of a column, for `piecewise_linear`
    numerical_frequency : SD of the waves' frequencies at the start, for `periodic`: cycles in a unit of the column
    """

    numerical_embedding: str = one_of(NONE, NUMERICAL)
    numerical_dim: int = bounded(8, low=1, high=1024)
    numerical_bins: int = bounded(16, low=2, high=1024)
    numerical_frequency: float = bounded(0.1, above=0, high=1000)

    @property
    def each(self) -> int:
        """Numbers that a dense column becomes: 1 without an embedding.

        >>> Numerical(numerical_embedding="piecewise_linear", numerical_dim=8).each, Numerical().each
        (8, 1)
        """
        return 1 if self.numerical_embedding == NONE else self.numerical_dim

    def spread(self, n_columns: int) -> "Spread | None":
        """Return what spreads the columns, from the current random state; None where nothing does."""
        if self.numerical_embedding == NONE or not n_columns:
            return None
        if self.numerical_embedding == PERIODIC:
            return Periodic(n_columns, self.numerical_dim, self.numerical_frequency)
        return PiecewiseLinear(n_columns, self.numerical_dim, self.numerical_bins)


#: Rows whose quantiles stand for those of a table that stays on disk.
MOST_RANKED: Final = 100_000


class Spread(nn.Module):
    """Dense columns, each as several numbers: (n, n_columns) → (n, n_columns · width).

    Parameters
    ----------
    n_columns, width : columns, and numbers that each becomes
    """

    def __init__(self, n_columns: int, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(n_columns, width).uniform_(-(width**-0.5), width**-0.5))
        self.register_buffer("heard", torch.ones(n_columns))

    def fit(self, X: Features, rows: Rows) -> None:
        """Learn from the training rows where bins end; nothing unless a kind has any."""

    def silence(self, silent: Tensor) -> None:
        """Have columns give 0 whatever they hold, from here on; `silent` is (n_columns,) bool."""
        self.get_buffer("heard")[silent] = 0.0

    def finished(self, spread: Tensor) -> Tensor:
        """Return (n, n_columns · width) from (n, n_columns, width), silent columns 0."""
        return (spread * self.get_buffer("heard")[:, None]).flatten(1)


class PiecewiseLinear(Spread):
    """Each column as a line plus slopes of its own in bins that hold equal shares of the training rows.

    A bin's share is 0 below it, 1 above it and rises in a straight line between (equation 1 of the paper, held to 0
    and 1 at both ends: beyond the training rows the line goes on alone). Slopes begin at 0, so that a network begins
    with the line; this is the form "B" of the authors' package rtdl_num_embeddings 0.0.12, which TabM takes.

    Examples
    --------
    >>> layer = PiecewiseLinear(1, 4, n_bins=2)
    >>> layer.fit(Features(np.array([[0], [1], [4]], np.float32), ("a",)), np.arange(3))
    >>> layer.shares(torch.tensor([[0.5], [2.5], [9.0]])).squeeze(1).tolist()
    [[0.5, 0.0], [1.0, 0.5], [1.0, 1.0]]
    """

    def __init__(self, n_columns: int, width: int, n_bins: int) -> None:
        super().__init__(n_columns, width)
        self.line = nn.Parameter(torch.empty(n_columns, width).uniform_(-(width**-0.5), width**-0.5))
        self.slopes = nn.Parameter(torch.zeros(n_columns, n_bins, width))
        self.register_buffer("edges", torch.linspace(-1, 1, n_bins + 1).repeat(n_columns, 1))

    def fit(self, X: Features, rows: Rows) -> None:
        """Put the ends of bins at quantiles of the training rows."""
        edges = self.get_buffer("edges")
        shares = np.linspace(0, 1, edges.shape[1])
        chosen = rows if on_disk(X.dense) is None else rows[:: max(1, len(rows) // MOST_RANKED)]
        dense = X.dense[chosen]
        for column in range(len(edges)):
            values = dense[:, column]
            edges[column] = torch.from_numpy(np.quantile(values, shares).astype(np.float32))

    def shares(self, dense: Tensor) -> Tensor:
        """Return (n, n_columns, n_bins) how far each value is through each bin, 0 to 1.

        A bin without breadth, where many training rows hold one value, has none.
        """
        edges = self.get_buffer("edges")
        breadth = edges.diff(dim=1)
        inverse = torch.where(breadth > 0, 1 / breadth, torch.zeros_like(breadth))
        return ((dense.unsqueeze(2) - edges[:, :-1]) * inverse).clamp(0, 1)

    def forward(self, dense: Tensor) -> Tensor:
        """Return (n, n_columns · width)."""
        steps = torch.einsum("ncb,cbw->ncw", self.shares(dense), self.slopes)
        return self.finished(dense.unsqueeze(2) * self.line + self.bias + steps)


class Periodic(Spread):
    """Each column as a rectified sum of waves with learned frequencies.

    "PLR" of the paper, equation 2: linear and ReLU after sines and cosines of 2π · frequency · x.
    """

    def __init__(self, n_columns: int, width: int, frequency: float) -> None:
        super().__init__(n_columns, width)
        self.frequencies = nn.Parameter(torch.randn(n_columns, width) * frequency)
        bound = (2 * width) ** -0.5
        self.weight = nn.Parameter(torch.empty(n_columns, 2 * width, width).uniform_(-bound, bound))

    def forward(self, dense: Tensor) -> Tensor:
        """Return (n, n_columns · width)."""
        turns = 2 * math.pi * self.frequencies * dense.unsqueeze(2)
        waves = torch.cat([turns.cos(), turns.sin()], dim=2)
        return self.finished((torch.einsum("ncf,cfw->ncw", waves, self.weight) + self.bias).relu())
