"""What a Gaussian process sees of features: rows as points, in groups of columns that belong together."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tailbind.models.contract import FloatArray, Rows, all_rows
from tailbind.models.substitutions import SiteVectors, site_vectors
from tailbind.table.features import Features

#: A dense column whose SD is at most so much of its mean is constant.
CONSTANT: Final = 1e-6
#: How many SD a dense column may take a row from the mean: what is stranger than that is no stranger still.
REACH: Final = 6.0

#: What a dense column is: a share of one of the 400 pairs of residues, a length or a mark of absence, or anything else.
_PAIRS: Final = re.compile(r"\w+ share [A-Z]{2}")
_SIZE: Final = re.compile(r"\w+ (log length|missing)")
_BOTH: Final = re.compile(r"(VH|VL|CDR)")
#: Sparse columns that say to which family a chain belongs, or which antigen it is that has no sequence.
_FAMILY: Final = re.compile(r"(?P<chain>heavy|antigen) (family \d+|none|name .*|of source .*)")

#: A squared distance is rounding up to so many units of it.
ROUNDING: Final = 16.0

Numbers = NDArray[np.int64]


class Group(NamedTuple):
    """Columns that belong together.

    Attributes
    ----------
    chain : "heavy", "light", "antigen"; "antibody" for both chains of it; "other" where the name does not say
    kind : "sites", "kmers", "complex"; of dense columns "pairs", "size" or "columns"
    """

    chain: str
    kind: str


def group_of(name: str, *, sparse: bool) -> Group:
    """Return the group of a column by its name.

    >>> group_of("heavy 0 H52 FR2 S>Y", sparse=True)
    Group(chain='heavy', kind='sites')
    >>> group_of("antigen share AC", sparse=False), group_of("esm2_pca_0", sparse=False)
    (Group(chain='antigen', kind='pairs'), Group(chain='other', kind='columns'))
    """
    first, _, rest = name.partition(" ")
    chain = first if first in ("heavy", "light", "antigen") else "antibody" if _BOTH.match(name) else "other"
    if sparse:
        return Group(chain, "kmers" if rest.startswith("kmer ") else "sites")
    kind = "pairs" if _PAIRS.fullmatch(name) else "size" if _SIZE.fullmatch(name) else "columns"
    return Group(chain, kind)


def complexes(features: Features, rows: Rows) -> Numbers:
    """Return (n,) a number for each combination of a heavy chain's and an antigen's family; 0 where either is new.

    >>> from scipy.sparse import csr_array
    >>> names = ("heavy family 0", "antigen family 0", "antigen family 1")
    >>> lit = csr_array(np.array([[1, 1, 0], [1, 0, 1], [1, 1, 0], [1, 0, 0]], np.float32))
    >>> found = complexes(Features(np.empty((4, 0), np.float32), (), lit, names), np.arange(4))
    >>> bool(found[0] == found[2] != found[1]), int(found[3])
    (True, 0)
    """
    found = np.zeros(len(rows), np.int64)
    if features.sparse is None:
        return found
    matches = [_FAMILY.fullmatch(name) for name in features.sparse_names]
    known = np.ones(len(rows), np.bool_)
    for chain in ("heavy", "antigen"):
        columns = np.array([at for at, match in enumerate(matches) if match and match["chain"] == chain], np.intp)
        lit = features.sparse[rows][:, columns] != 0
        # Sums of random numbers: columns lit together get a number that no other combination is likely to have.
        numbers = np.random.default_rng(columns).integers(1, 2**40, len(columns))
        found += lit.astype(np.int64) @ numbers
        known &= np.asarray(lit.sum(axis=1)).ravel() > 0
    found[~known] = 0
    return found


def in_turn(families: NDArray[np.int64], limit: int, rng: np.random.Generator) -> Rows:
    """Return (limit,) rows, in their order: one of each family, then another of each that has one left, and so on.

    Parameters
    ----------
    families : (n,) number of each row's family
    limit : rows to take
    rng : which of a family are taken, and of which families in the last turn

    Examples
    --------
    >>> in_turn(np.array([7, 7, 7, 7, 2, 5, 5]), 5, np.random.default_rng(0)).tolist()
    [2, 3, 4, 5, 6]
    """
    shuffled = rng.permutation(len(families))
    by_family = shuffled[np.argsort(families[shuffled], kind="stable")]
    _, first, sizes = np.unique(families[by_family], return_index=True, return_counts=True)
    turn = np.empty(len(families), np.intp)
    turn[by_family] = np.arange(len(families)) - np.repeat(first, sizes)
    return np.sort(shuffled[np.argsort(turn[shuffled], kind="stable")][:limit])


@dataclass(frozen=True)
class Part:
    """Rows in the columns of one group, each distinct one held once.

    Attributes
    ----------
    values : (n_distinct, n_directions)
    norm : (n_distinct,) squared length
    index : (n,) which of them each row is
    """

    values: Tensor
    norm: Tensor
    index: Tensor

    def take(self, rows: Tensor) -> "Part":
        """Return some of the rows."""
        kept, index = torch.unique(self.index[rows], return_inverse=True)
        return Part(self.values[kept], self.norm[kept], index)

    def to(self, dtype: torch.dtype) -> "Part":
        """Return the same in other precision."""
        return Part(self.values.to(dtype), self.norm.to(dtype), self.index)

    def squares(self, other: "Part") -> Tensor:
        """Return (n, n_other) squared distances; 0 where they are no more than rounding."""
        norms = self.norm[:, None] + other.norm
        values = torch.addmm(norms, self.values, other.values.T, alpha=-2)
        values = torch.where(values > ROUNDING * torch.finfo(values.dtype).eps * norms, values, 0.0)
        return values.index_select(1, other.index).index_select(0, self.index)


@dataclass(frozen=True)
class Points:
    """Rows as a kernel sees them.

    Attributes
    ----------
    parts : of each group but the complexes, in the layout's order
    complex : (n,) number of the row's complex; 0 for one that is like no other
    """

    parts: tuple[Part, ...]
    complex: Tensor

    def __len__(self) -> int:
        return len(self.complex)

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which they are held."""
        return self.parts[0].values.dtype if self.parts else torch.float64

    def take(self, rows: Rows | slice) -> "Points":
        """Return some of the rows."""
        chosen = torch.arange(len(self))[rows] if isinstance(rows, slice) else torch.from_numpy(rows)
        return Points(tuple(part.take(chosen) for part in self.parts), self.complex[chosen])

    def to(self, dtype: torch.dtype) -> "Points":
        """Return the same in other precision."""
        return replace(self, parts=tuple(part.to(dtype) for part in self.parts))

    def told_apart(self) -> "Points":
        """Return the same, where each row whose complex is like no other has a number of its own."""
        return replace(self, complex=torch.where(self.complex == 0, -1 - torch.arange(len(self)), self.complex))


@dataclass(frozen=True)
class Layout:
    """How rows become points, as the training rows had it: each group is centred, of unit mean square over them.

    Sites are one scale for all chains: a change counts as much in one as in another.

    Attributes
    ----------
    groups : of the columns that vary in training; ("other", "complex") last where complexes do
    columns : (n_kept,) sparse columns that vary; one that does not tells nothing in training, and is not read
    names : (n_kept,) theirs
    centre : (n_directions,) what is taken off, sites' directions group by group
    size : what sites are divided by
    dense : (n_dense_kept,) dense columns that vary
    mean, scale : (n_dense_kept,) what is taken off, and what is divided by
    dense_names : (n_dense_kept,)
    """

    groups: tuple[Group, ...]
    columns: NDArray[np.intp]
    names: tuple[str, ...]
    centre: FloatArray
    size: float
    dense: NDArray[np.intp]
    dense_names: tuple[str, ...]
    mean: FloatArray
    scale: FloatArray

    @classmethod
    def fit(cls, features: Features, rows: Rows) -> Self:
        """Learn from the training rows what varies, and how much."""
        columns = np.empty(0, np.intp)
        if features.sparse is not None:
            chosen = features.sparse[rows].astype(np.float64)
            mean = np.asarray(chosen.mean(axis=0)).ravel()
            square = np.asarray(chosen.power(2).mean(axis=0)).ravel()
            columns = np.flatnonzero(square > mean**2 + CONSTANT**2)
        names = tuple(features.sparse_names[column] for column in columns)
        block = features.dense[rows].astype(np.float64)
        mean, sd = block.mean(axis=0), block.std(axis=0)
        dense = np.flatnonzero(sd > CONSTANT * np.abs(mean))
        dense_names = tuple(features.names[column] for column in dense)
        kinds = [group_of(name, sparse=False) for name in dense_names]
        scale = np.array([sd[at] * math.sqrt(kinds.count(kind)) for at, kind in zip(dense, kinds, strict=True)])
        groups = list(dict.fromkeys([*(group_of(name, sparse=True) for name in names), *kinds]))
        if len(np.unique(complexes(features, rows))) > 1:
            groups.append(Group("other", "complex"))
        rough = cls(tuple(groups), columns, names, np.empty(0), 1.0, dense, dense_names, mean[dense], scale)
        centre, size = rough._centre(features, rows)
        return replace(rough, centre=centre, size=size)

    def _centre(self, features: Features, rows: Rows) -> tuple[FloatArray, float]:
        """Return the mean of the sites' directions, and the root of their mean square about it."""
        means, total = [], 0.0
        for group in self.site_groups:
            raw = self._read(features, rows, group) @ self.vectors[group].vectors
            mean = np.asarray(raw.mean(axis=0)).ravel()
            total += float(raw.power(2).sum()) / len(rows) - float(mean @ mean)
            means.append(mean)
        size = math.sqrt(total) if total > CONSTANT**2 else 1.0
        return np.concatenate([np.empty(0), *means]) / size, size

    @property
    def site_groups(self) -> list[Group]:
        """Groups of sites."""
        return [group for group in self.groups if group.kind == "sites"]

    @cached_property
    def vectors(self) -> dict[Group, SiteVectors]:
        """Group of sites → the vectors of its columns."""
        return {group: site_vectors([self.names[at] for at in self._own[group]]) for group in self.site_groups}

    @cached_property
    def _own(self) -> dict[Group, NDArray[np.intp]]:
        """Group → which of the kept columns, sparse or dense, are its own."""
        kinds = [group_of(name, sparse=True) for name in self.names]
        dense = [group_of(name, sparse=False) for name in self.dense_names]
        of = {group: dense if group.kind in ("columns", "pairs", "size") else kinds for group in self.groups}
        return {group: np.array([at for at, kind in enumerate(of[group]) if kind == group], np.intp) for group in of}

    def _read(self, features: Features, rows: Rows, group: Group) -> Any:
        """Return the sparse columns of a group."""
        assert features.sparse is not None
        return features.sparse[rows][:, self.columns[self._own[group]]].astype(np.float64)

    @property
    def site(self) -> dict[Group, NDArray[np.intp]]:
        """Group of sites → (n_directions,) number of each direction's site; each group goes on from the one before."""
        found, before = {}, 0
        for group in self.site_groups:
            found[group] = self.vectors[group].site + before
            before = int(found[group].max(initial=before - 1)) + 1
        return found

    @property
    def n_sites(self) -> int:
        """Sites that vary in training."""
        return max((int(site.max(initial=-1)) + 1 for site in self.site.values()), default=0)

    def points(self, features: Features, rows: Rows | None = None) -> Points:
        """Return rows as points."""
        chosen = all_rows(features, rows)
        parts, at = [], 0
        for group in self.groups:
            if group.kind == "sites":
                width = len(self.vectors[group].site)
                parts.append(self._sites(features, chosen, group, self.centre[at : at + width]))
                at += width
            elif group.kind == "kmers":
                # A row is of length 1 by all k-mers that its chain has, those that training never saw included.
                raw = self._read(features, chosen, group)
                part = _distinct_sparse(raw, lambda rows: rows.toarray())
                parts.append(replace(part, norm=(part.values != 0).any(dim=1).to(torch.float64)))
            elif group.kind != "complex":
                parts.append(self._dense(features, chosen, group))
        codes = complexes(features, chosen) if self.groups and self.groups[-1].kind == "complex" else None
        return Points(tuple(parts), torch.from_numpy(np.zeros(len(chosen), np.int64) if codes is None else codes))

    def _sites(self, features: Features, rows: Rows, group: Group, centre: FloatArray) -> Part:
        vectors = self.vectors[group].vectors / self.size
        return _distinct_sparse(self._read(features, rows, group), lambda raw: (raw @ vectors).toarray() - centre)

    def _dense(self, features: Features, rows: Rows, group: Group) -> Part:
        own = self._own[group]
        raw = features.dense[np.ix_(rows, self.dense[own])]
        first, index = _distinct([row.tobytes() for row in raw])
        sd = self.scale[own] / math.sqrt(len(own))
        values = np.clip((raw[first].astype(np.float64) - self.mean[own]) / sd, -REACH, REACH) / math.sqrt(len(own))
        return _part(values, index)

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs."""
        fields = ("columns", "names", "centre", "size", "dense", "dense_names", "mean", "scale")
        found = {name: getattr(self, name) for name in fields}
        return found | {"groups": [list(group) for group in self.groups]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the layout that `state` was taken from."""
        return cls(
            groups=tuple(Group(*group) for group in state["groups"]),
            columns=np.asarray(state["columns"]),
            names=tuple(state["names"]),
            centre=np.asarray(state["centre"]),
            size=float(state["size"]),
            dense=np.asarray(state["dense"]),
            dense_names=tuple(state["dense_names"]),
            mean=np.asarray(state["mean"]),
            scale=np.asarray(state["scale"]),
        )


def _part(values: FloatArray, index: NDArray[np.intp]) -> Part:
    return Part(torch.from_numpy(values), torch.from_numpy(np.square(values).sum(axis=1)), torch.from_numpy(index))


def _distinct(keys: Sequence[bytes]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return (n_distinct,) where each key is first, and (n,) which of the distinct ones each is."""
    number: dict[bytes, int] = {}
    index = np.array([number.setdefault(key, len(number)) for key in keys], np.intp)
    return np.unique(index, return_index=True)[1], index


def _distinct_sparse(rows: Any, dense: Callable[[Any], FloatArray]) -> Part:
    """Return sparse rows as a part, made dense where they are distinct."""
    ends = rows.indptr
    keys = [rows.indices[start:end].tobytes() + rows.data[start:end].tobytes() for start, end in pairwise(ends)]
    first, index = _distinct(keys)
    return _part(np.ascontiguousarray(dense(rows[first])), index)
