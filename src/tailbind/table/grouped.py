"""Splits that keep whole groups together: a group is in one part, and the parts are as alike as that allows.

What the groups are is what tells the kinds apart; `assign` puts them into parts for all of them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import SplitError
from tailbind.options import bounded
from tailbind.scale import bin_index
from tailbind.table.grouping import antibody_groups, antigen_groups, components, parent_column
from tailbind.table.parts import PartArray, Seeded, Shares, column_values

#: How many groups, the largest, are moved and exchanged once all are dealt; the others fill up what is left.
EXCHANGED: Final = 100


@dataclass(frozen=True)
class GroupedSplit(Shares, Seeded, ABC):
    """Whole groups in one part each, the shares of rows and of affinity bins as near to their targets as can be.

    `stratify = false` looks at the shares of rows alone, not at the labels.
    """

    stratify: bool = True

    #: For messages: what the split is called, what it deals out, and what to do when there are too few of them.
    called: ClassVar[str]
    units: ClassVar[str] = "groups"
    remedy: ClassVar[str] = "Raise the identity from which sequences are one cluster, or choose another split.kind."

    @abstractmethod
    def groups(self, frame: pl.DataFrame) -> NDArray[np.intp]:
        """Return (n_samples,) the number of each row's group."""

    def __call__(self, frame: pl.DataFrame) -> PartArray:
        """Return (n_samples,) "train", "val" or "test"."""
        return self.divide(frame)[0]

    def divide(self, frame: pl.DataFrame) -> tuple[PartArray, NDArray[np.intp]]:
        """Return (n_samples,) the part of each row, and (n_groups,) the rows of each group, for a remark.

        Raises
        ------
        SplitError
            When there are fewer groups than parts or folds.
        """
        shares = self.shares()
        _, groups, sizes = np.unique(self.groups(frame), return_inverse=True, return_counts=True)
        if len(sizes) < len(shares):
            into = f" into {self.n_folds} folds" if self.n_folds else ""
            article = "An" if self.called[0] in "aeiou" else "A"
            raise SplitError(
                f"{article} {self.called} split{into} needs at least {len(shares)} {self.units}; "
                f"{self.holder()} has {len(sizes)}. {self.remedy}"
            )
        bins = bin_index(frame["pkd"].to_numpy()) if self.stratify else np.zeros(len(frame), dtype=np.intp)
        return self.parts_of(assign(groups, bins, shares, self.seed)[groups]), sizes

    def holder(self) -> str:
        """Return what has the groups, for messages."""
        return "the table"


@dataclass(frozen=True)
class GroupSplit(GroupedSplit):
    """Groups that a column names: nothing that shares a value of `column` is on two sides."""

    column: str = "group"
    called: ClassVar[str] = "group"
    remedy: ClassVar[str] = "Choose another column or split.kind=random."

    def groups(self, frame: pl.DataFrame) -> NDArray[np.intp]:
        """Return (n_samples,) the number of each row's value."""
        return np.unique(column_values(frame, self.column), return_inverse=True)[1]

    def holder(self) -> str:
        """Return what has the groups, for messages."""
        return f"column {self.column!r}"


@dataclass(frozen=True)
class ParentSplit(GroupedSplit):
    """Groups of variants made from one parent or complex: no parent is on two sides.

    The parent is what the first of the columns parent, complex, complex_id, pdb, pdb_id says, in whatever
    spelling, or `column` where that is set.
    """

    column: str = ""
    called: ClassVar[str] = "parent"
    units: ClassVar[str] = "parents"
    remedy: ClassVar[str] = "Name another column with split.column, or choose another split.kind."

    def groups(self, frame: pl.DataFrame) -> NDArray[np.intp]:
        """Return (n_samples,) the number of each row's parent."""
        column = self.column or parent_column(frame)
        return np.unique(column_values(frame, column), return_inverse=True)[1]


@dataclass(frozen=True)
class AntibodyClusterSplit(GroupedSplit):
    """Clusters of heavy chains: no cluster, and so no exact pair, is on two sides.

    The light chain stands for a heavy chain that is not there; a row with neither is a group of its own.
    """

    identity: float = bounded(0.9, low=0.3, high=1)
    called: ClassVar[str] = "antibody_cluster"
    units: ClassVar[str] = "clusters of antibodies"

    def groups(self, frame: pl.DataFrame) -> NDArray[np.intp]:
        """Return (n_samples,) the cluster of each row's antibody."""
        return antibody_groups(frame, self.identity)


@dataclass(frozen=True)
class AntigenClusterSplit(GroupedSplit):
    """Clusters of antigens: no cluster, and so no exact pair, is on two sides.

    The antigen's name, then the source, stand for a sequence that is not there.
    """

    identity: float = bounded(0.7, low=0.3, high=1)
    called: ClassVar[str] = "antigen_cluster"
    units: ClassVar[str] = "clusters of antigens"

    def groups(self, frame: pl.DataFrame) -> NDArray[np.intp]:
        """Return (n_samples,) the cluster of each row's antigen."""
        return antigen_groups(frame, self.identity)


@dataclass(frozen=True)
class BothColdSplit(GroupedSplit):
    """Connected components of antibody and antigen clusters: no cluster of either is on two sides.

    No row is left out. Where one antigen was measured against many antibodies, and these against others, a
    component can hold most of the table.
    """

    antibody_identity: float = bounded(0.9, low=0.3, high=1)
    antigen_identity: float = bounded(0.7, low=0.3, high=1)
    called: ClassVar[str] = "both_cold"
    units: ClassVar[str] = "components of antibody and antigen clusters"
    remedy: ClassVar[str] = "Keep one side apart: split.kind=antibody_cluster or antigen_cluster."

    def groups(self, frame: pl.DataFrame) -> NDArray[np.intp]:
        """Return (n_samples,) the component of each row's antibody and antigen cluster."""
        return components(antibody_groups(frame, self.antibody_identity), antigen_groups(frame, self.antigen_identity))


def assign(
    groups: NDArray[np.intp], bins: NDArray[np.intp], shares: NDArray[np.float64], seed: int
) -> NDArray[np.intp]:
    """Return (n_groups,) the share each group goes to, so that rows and bins come nearest to the shares.

    As scikit-learn's `StratifiedGroupKFold`: groups one after the other, the largest and most uneven first,
    equal ones in random order, each to where the sum of squared deviations rises least. A deviation is
    taken relative to the share, so that a small part gets its portion of large groups too. Then the largest
    groups are moved and exchanged while that brings the shares nearer.

    Parameters
    ----------
    groups : (n_samples,) from 0, without gaps
    bins : (n_samples,) affinity bin of each row
    shares : (n_shares,) that sum to 1; at most as many as groups, and none stays empty

    Examples
    --------
    >>> assign(np.array([0, 0, 1, 2]), np.zeros(4, dtype=int), np.array([0.5, 0.25, 0.25]), seed=0).tolist()
    [0, 2, 1]
    """
    n_groups = int(groups.max()) + 1
    counts = np.zeros((n_groups, int(bins.max()) + 1))
    np.add.at(counts, (groups, bins), 1)
    counts = np.hstack([counts.sum(axis=1, keepdims=True), counts[:, counts.any(axis=0)]])
    portions = counts / counts.sum(axis=0)
    # One bin counts as much as another, as rare as it may be, and all rows twice as much as all bins: where groups
    # are few and large, a part of a hundredth of the rows is worse than one of uneven bins.
    weight = np.concatenate([[2.0], np.full(counts.shape[1] - 1, 1 / (counts.shape[1] - 1))])
    weighted = portions * weight
    order = np.random.default_rng(seed).permutation(n_groups)
    order = order[np.argsort(-(weighted * portions).sum(axis=1)[order], kind="stable")]
    dealt = np.zeros((len(shares), counts.shape[1]))
    share_of = np.empty(n_groups, dtype=np.intp)
    for position, group in enumerate(order):
        rise = (2 * dealt + portions[group]) @ weighted[group] / shares
        empty = dealt[:, 0] == 0
        if n_groups - position <= empty.sum():  # the last groups: none may stay empty
            rise[~empty] = np.inf
        share = int(np.argmin(rise))
        share_of[group] = share
        dealt[share] += portions[group]
    largest = order[:EXCHANGED]
    share_of[largest] = _exchanged(share_of[largest], portions[largest], weight, shares, dealt, np.bincount(share_of))
    return share_of


def _exchanged(
    share_of: NDArray[np.intp],
    portions: NDArray[np.float64],
    weight: NDArray[np.float64],
    shares: NDArray[np.float64],
    dealt: NDArray[np.float64],
    members: NDArray[np.intp],
) -> NDArray[np.intp]:
    """Return (n_large,) the shares of some groups after all moves and exchanges that bring the shares nearer.

    Parameters
    ----------
    share_of : (n_large,) the share each of these groups is in
    portions : (n_large, n_counts) of all rows and of each bin in each group
    weight : (n_counts,) of each of these
    shares : (n_shares,)
    dealt : (n_shares, n_counts) sum of the portions of all groups in each share
    members : (n_shares,) number of all groups in each share; none may become 0
    """
    # An exchange moves the difference of two groups; the row of zeros at the end makes a move of one of them.
    stock = np.vstack([portions, np.zeros_like(weight)])
    share_of, dealt, members = share_of.copy(), dealt.copy(), members.copy()
    step, nobody = stock[:, None] - stock[None], len(share_of)
    squares = (step * step) @ weight
    for _ in range(len(share_of) * len(shares)):
        best, chosen = -1e-12, None
        for source, target in permutations(range(len(shares)), 2):
            givers = np.flatnonzero(share_of == source)
            takers = np.append(np.flatnonzero(share_of == target), nobody if members[source] > 1 else [])
            if not len(givers) or not len(takers):
                continue
            pairs = np.ix_(givers, takers.astype(np.intp))
            change = step[pairs] @ (2 * weight * (dealt[target] / shares[target] - dealt[source] / shares[source]))
            change += squares[pairs] * (1 / shares[target] + 1 / shares[source])
            place = np.unravel_index(np.argmin(change), change.shape)
            if change[place] < best:
                best, chosen = float(change[place]), (source, target, givers[place[0]], int(takers[place[1]]))
        if chosen is None:
            break
        source, target, giver, taker = chosen
        dealt[target] += step[giver, taker]
        dealt[source] -= step[giver, taker]
        share_of[giver] = target
        if taker == nobody:
            members[source], members[target] = members[source] - 1, members[target] + 1
        else:
            share_of[taker] = source
    return share_of
