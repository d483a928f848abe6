"""A transformer over residues: an antibody's look at each other, then at the antigen's, and these back at them.

Layers are normalised before (Xiong et al. 2020); attention is that of Vaswani et al. 2017. What a batch has several
times, such as an antigen that all its rows share, is computed once up to where antibody and antigen meet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tailbind.errors import RecipeError
from tailbind.models.contract import Rows
from tailbind.models.inlet import EmbeddingPerceptron, embeddings_in, inputs_in_words, prepare
from tailbind.models.network import Network
from tailbind.models.tensors import ResidueTensors
from tailbind.models.tokens import Tokens
from tailbind.options import bounded
from tailbind.table.features import Features

#: Rows of a batch are computed together with those whose residues are at least this share of the most, …
ALIKE: Final = 0.75
#: … and with others, too, where they would be fewer than this.
FEWEST_TOGETHER: Final = 4


@dataclass(frozen=True)
class Attention:
    """Options of the model.

    Attributes
    ----------
    dim : width of a residue's token
    heads : of each attention; each is `dim` / `heads` wide
    layers : in which an antibody's residues, and an antigen's, attend to each other
    cross_layers : in which each attends to the other's
    feedforward : width of what follows each attention, in widths of a token
    hidden_dim : width of the layer that reads the pooled tokens, and dense and sparse columns beside them
    dropout : share left out while training of what attention and feed-forward layers add, and of the hidden layer
    members : how many networks, differing in their seed, are trained and averaged
    embedding_dim : width of the summed embeddings of a sparse block; of no effect without one
    """

    reads_residues: ClassVar[bool] = True
    rows_at_once: ClassVar[int] = 256

    dim: int = bounded(64, low=2, high=4096)
    heads: int = bounded(4, low=1, high=64)
    layers: int = bounded(2, low=0, high=48)
    cross_layers: int = bounded(1, low=1, high=48)
    feedforward: int = bounded(2, low=1, high=16)
    hidden_dim: int = bounded(64, low=1, high=65536)
    dropout: float = bounded(0.1, low=0, below=1)
    members: int = bounded(1, low=1, high=100)
    embedding_dim: int = bounded(64, low=1, high=4096)

    def __post_init__(self) -> None:
        if self.dim % (2 * self.heads):
            raise RecipeError(
                f"model.dim must be a multiple of twice model.heads; got {self.dim} and {self.heads}. "
                f"Write dim = {2 * self.heads * max(1, round(self.dim / (2 * self.heads)))}."
            )

    def build(self, n_features: int, seed: int, n_sparse: int = 0) -> Network:
        """Return an untrained network, which reads residues beside columns; `Network.make_ready` comes next."""
        return Network.build(self, n_features, seed, n_sparse)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Network:
        """Return the network that `state` was taken from."""
        return Network.from_state(cls, state)

    def member(self, n_features: int, n_sparse: int, n_vector: int = 0) -> "PairTransformer":
        """Return one member of a network, initialised from the current random state."""
        return PairTransformer(self, n_features, n_sparse, n_vector)

    def output_bias(self, member: nn.Module) -> Tensor:
        """Return (1,) the bias of the last layer."""
        return _head(member)[-1].get_parameter("bias")

    def make_ready(self, member: nn.Module, X: Features, rows: Rows, silent: NDArray[np.bool_] | None) -> None:
        """Fit a member's start to its training rows, and have it read an encoder's vectors where there are any."""
        assert isinstance(member, PairTransformer) and X.residues is not None
        prepare(member.head, _head(member)[0].get_parameter("weight"), X, rows, silent)
        if X.residues.n_vector:
            for tokens in (member.antibody_tokens, member.antigen_tokens):
                tokens.read_vectors(X.residues.n_vector)

    def shape(self, n_features: int, n_sparse: int, n_vector: int) -> str:
        """Return the layers in words."""
        vectors = f" with {n_vector:,} numbers of an encoder" if n_vector else ""
        beside = inputs_in_words(n_features, n_sparse, self.embedding_dim, 1)
        cross = f"{self.cross_layers} across" if self.layers else f"{self.cross_layers} layers across"
        own = f"{self.layers} layers within and " if self.layers else ""
        return f"residues{vectors} → {own}{cross}, width {self.dim}; pooled beside {beside} → {self.hidden_dim} → 1"

    def part_counts(self, member: nn.Module) -> list[tuple[int, str]]:
        """Return the parameters in the embeddings of sparse columns, where there are any."""
        assert isinstance(member, PairTransformer)
        return embeddings_in(member.head)


class PairTransformer(nn.Module):
    """One member: residues of antibody and antigen → (n, 1).

    Parameters
    ----------
    options : what it is
    n_features, n_sparse : columns that are read beside the pooled tokens
    n_vector : numbers of an encoder for each residue
    """

    def __init__(self, options: Attention, n_features: int, n_sparse: int, n_vector: int) -> None:
        super().__init__()
        self.antibody_tokens = Tokens(2, options.dim, n_vector)
        self.antigen_tokens = Tokens(1, options.dim, n_vector)
        self.antibody = nn.ModuleList(Layer(options) for _ in range(options.layers))
        self.antigen = nn.ModuleList(Layer(options) for _ in range(options.layers))
        self.antibody_across = nn.ModuleList(Layer(options) for _ in range(options.cross_layers))
        self.antigen_across = nn.ModuleList(Layer(options) for _ in range(options.cross_layers))
        self.antibody_pool, self.antigen_pool = Pool(options.dim), Pool(options.dim)
        n_inputs = n_features + 4 * options.dim + (options.embedding_dim if n_sparse else 0)
        layers = nn.Sequential(
            nn.Linear(n_inputs, options.hidden_dim),
            nn.SiLU(),
            nn.Dropout(options.dropout),
            nn.Linear(options.hidden_dim, 1),
        )
        self.head = EmbeddingPerceptron(layers, n_sparse, options.embedding_dim)

    def forward(self, residues: ResidueTensors, dense: Tensor, *sparse: Tensor) -> Tensor:
        """Return (n, 1); rows of like length are computed together, so that few tokens are padding."""
        lengths = residues.lengths().sum(dim=1)
        order = torch.argsort(lengths, descending=True, stable=True)
        pieces = [self.pooled(residues.take(order[start:end])) for start, end in groups(lengths[order].tolist())]
        pooled = (
            torch.cat(pieces)[torch.argsort(order)] if pieces else dense.new_empty((0, 4 * self.antigen_tokens.dim))
        )
        output: Tensor = self.head(torch.cat([dense, pooled], dim=1), *sparse)
        return output

    def pooled(self, residues: ResidueTensors) -> Tensor:
        """Return (n, 4 · dim) the pooled tokens of antibody and antigen."""
        antibody, antibody_mask = _within(self.antibody_tokens, self.antibody, residues, residues.index[:, :2])
        antigen, antigen_mask = _within(self.antigen_tokens, self.antigen, residues, residues.index[:, 2:])
        for to_antibody, to_antigen in zip(self.antibody_across, self.antigen_across, strict=True):
            antibody, antigen = (
                to_antibody(antibody, antigen, antigen_mask),
                to_antigen(antigen, antibody, antibody_mask),
            )
        pools = self.antibody_pool(antibody, antibody_mask), self.antigen_pool(antigen, antigen_mask)
        return torch.cat(pools, dim=1)


def _within(tokens: Tokens, layers: nn.ModuleList, residues: ResidueTensors, chains: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens of rows after the layers in which they attend to each other; each distinct one is made once."""
    distinct, of_row = torch.unique(chains, dim=0, return_inverse=True)
    values, mask = tokens(residues, distinct)
    for layer in layers:
        values = layer(values, values, mask)
    return values.index_select(0, of_row), mask[of_row]


def groups(lengths: list[int]) -> list[tuple[int, int]]:
    """Return where groups of rows of like length begin and end.

    Parameters
    ----------
    lengths : (n,) residues of each row, the most first

    Examples
    --------
    >>> groups([800] * 10 + [300] * 20 + [250] * 10)
    [(0, 10), (10, 40)]
    """
    bounds = [0]
    for position, length in enumerate(lengths):
        start = bounds[-1]
        enough = position - start >= FEWEST_TOGETHER and len(lengths) - position >= FEWEST_TOGETHER
        if enough and length < ALIKE * lengths[start]:
            bounds.append(position)
    ends = [*bounds[1:], len(lengths)]
    return [(start, end) for start, end in zip(bounds, ends, strict=True) if end > start]


class Layer(nn.Module):
    """Attention of tokens to others or themselves, then a feed-forward layer; each adds to the tokens."""

    def __init__(self, options: Attention) -> None:
        super().__init__()
        dim = options.dim
        self.heads, self.dropout = options.heads, nn.Dropout(options.dropout)
        self.norm, self.norm_context, self.norm_after = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key_value, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        wide = options.feedforward * dim
        self.forward_layers = nn.Sequential(nn.Linear(dim, wide), nn.GELU(), nn.Linear(wide, dim))

    def forward(self, tokens: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Return tokens (n, length, dim) that have attended to a context (n, length of it, dim).

        Parameters
        ----------
        mask : (n, length of the context) where there is a token
        """
        query = self._parted(self.query(self.norm(tokens)))
        key, value = (self._parted(part) for part in self.key_value(self.norm_context(context)).chunk(2, dim=2))
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        tokens = tokens + self.dropout(self.out(seen.transpose(1, 2).flatten(2)))
        added: Tensor = tokens + self.dropout(self.forward_layers(self.norm_after(tokens)))
        return added

    def _parted(self, values: Tensor) -> Tensor:
        """Return (n, heads, length, dim / heads)."""
        n, length, dim = values.shape
        return values.reshape(n, length, self.heads, dim // self.heads).transpose(1, 2)


class Pool(nn.Module):
    """The mean of tokens, and a mean by weights that are learned: (n, length, dim) → (n, 2 · dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.score = nn.LayerNorm(dim), nn.Linear(dim, 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the two means of each row's tokens; `mask` (n, length) is where there are any."""
        values = self.norm(tokens)
        scores = self.score(values).squeeze(2).masked_fill(~mask, -torch.inf)
        weighted = torch.einsum("nl,nld->nd", scores.softmax(dim=1), values)
        counted = mask.to(values.dtype)
        mean = torch.einsum("nl,nld->nd", counted / counted.sum(dim=1, keepdim=True), values)
        return torch.cat([mean, weighted], dim=1)


def _head(member: nn.Module) -> nn.Sequential:
    assert isinstance(member, PairTransformer) and isinstance(member.head.layers, nn.Sequential)
    return member.head.layers
