"""How alike two rows are to a Gaussian process: a sum of parts, whose sizes and lengths the labels decide."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tailbind.models.contract import FloatArray
from tailbind.models.points import Group, Layout, Part, Points

#: Where the search for hyperparameters begins, in natural logarithms; labels have unit variance then.
NOISE: Final = math.log(0.1)
#: The variance of the mean of all labels, about which they are centred: it is not learned.
MEAN: Final = 1.0
#: Sites beyond this all matter alike: their relevance cannot be told from a few thousand labels.
MOST_SITES: Final = 200
#: Each part of the kernel begins with the variance that its groups are likely to have. Dense columns begin small
#: beside sites: sums over regions repeat, at a coarser grain, what the sites say.
LARGE: Final = math.log(0.5)
MIDDLING: Final = math.log(0.2)
SMALL: Final = math.log(0.05)
_ANTIBODY: Final = ("heavy", "light", "antibody")
_TINY: Final = 1e-12


@dataclass(frozen=True)
class Component:
    """A part of the kernel that falls with the distance in some of the groups.

    Attributes
    ----------
    groups : numbers of the groups
    form : "smooth" for the Matérn function of smoothness 5/2, "bell" for the limit of infinite smoothness, "rough"
        for smoothness 1/2
    start : logarithm of its variance where the search begins
    """

    groups: tuple[int, ...]
    form: str
    start: float


@dataclass(frozen=True)
class Kernel:
    """How alike two points are: linear parts for what adds up, and parts that fall with the distance for the rest.

    k = 1 + Σ a_g x_g·x′_g + Σ b_c f_c(√Σ |x_g − x′_g|² / l²_cg), where x_g are a row's columns of group g. On one
    landscape there are two components, of sites and of dense columns, both smooth. Where an antibody and an antigen
    vary, there are three, all rough: of all groups, of the antibody's, and of the antigen's (Rasmussen and Williams
    2006, equations 4.9 and 4.17 for the functions f). The product for complexes is 1 within one and 0
    between two, so that variants of one complex do not count as so many complexes.

    The hyperparameters, as logarithms: a of the groups that have it; b and then l of every group of each component;
    and, where sites are few, each site's relevance, by which it is stretched.

    Attributes
    ----------
    groups : of columns, as the layout has them
    site : group of sites → (n_directions,) number of each direction's site
    """

    groups: tuple[Group, ...]
    site: dict[Group, NDArray[np.intp]]

    @classmethod
    def of(cls, layout: Layout) -> "Kernel":
        """Return the kernel for points of a layout."""
        return cls(layout.groups, layout.site)

    @cached_property
    def n_sites(self) -> int:
        """How many sites have a relevance."""
        n = max((int(site.max(initial=-1)) + 1 for site in self.site.values()), default=0)
        return n if n <= MOST_SITES else 0

    def _where(self, *kinds: str) -> tuple[int, ...]:
        """Return the numbers of the groups of some kinds."""
        return tuple(at for at, group in enumerate(self.groups) if group.kind in kinds)

    @cached_property
    def _sides(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The groups of the antibody and those of the antigen."""
        antibody = tuple(at for at, group in enumerate(self.groups) if group.chain in _ANTIBODY)
        return antibody, tuple(at for at, group in enumerate(self.groups) if group.chain == "antigen")

    @cached_property
    def linear(self) -> tuple[int, ...]:
        """Groups with a linear part; where strangers are to be met, shares and sums over regions have none."""
        return self._where("sites", "kmers", "size", "complex", *(() if all(self._sides) else ("pairs", "columns")))

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """The parts that fall with the distance."""
        sites, dense, both = self._where("sites"), self._where("columns", "pairs", "size"), all(self._sides)
        if both:
            everything = self._where("sites", "kmers", "columns", "pairs", "size")
            return tuple(Component(groups, "rough", MIDDLING) for groups in (everything, *self._sides))
        found = [Component(sites, "smooth", LARGE)] if sites else []
        if dense:
            found.append(Component(dense, "bell", SMALL if sites else LARGE))
        return tuple(found)

    def start(self) -> FloatArray:
        """Return (n_hyperparameters,) where the search begins, which is also the middle of their prior."""
        both, large = all(self._sides), ("sites",) if self.site else ("columns", "pairs", "size")
        first = [LARGE if self.groups[at].kind in large and not both else SMALL for at in self.linear]
        parts = [
            [part.start, *[0.5 * math.log(len(part.groups)) if part.form == "rough" else 0.0] * len(part.groups)]
            for part in self.components
        ]
        return np.array([*first, *(value for part in parts for value in part), *[0.0] * self.n_sites])

    def stretched(self, parameters: Tensor, points: Points) -> Points:
        """Return points whose sites are stretched by their relevance; the others are as they were."""
        if not self.n_sites:
            return points
        parts = list(points.parts)
        for at, group in enumerate(self.groups):
            if group.kind == "sites":
                own = torch.exp(0.5 * parameters[-self.n_sites :])[torch.from_numpy(self.site[group])]
                values = parts[at].values * own.to(points.dtype)
                parts[at] = Part(values, values.square().sum(1), parts[at].index)
        return Points(tuple(parts), points.complex)

    def squares(self, a: Points, b: Points, groups: list[int]) -> Tensor:
        """Return (n_groups, len(a), len(b)) squared distances in some of the groups."""
        found = []
        for at in groups:
            if self.groups[at].kind == "complex":
                different = a.complex[:, None] != b.complex
                found.append(2 * different.to(a.dtype))
            else:
                found.append(a.parts[at].squares(b.parts[at]))
        return torch.stack(found) if found else torch.zeros((0, len(a), len(b)), dtype=a.dtype)

    def norms(self, points: Points) -> Tensor:
        """Return (n_groups, len(points)) squared lengths."""
        found = [part.norm[part.index] for part in points.parts]
        if len(found) < len(self.groups):
            found.append(torch.ones(len(points), dtype=points.dtype))
        return torch.stack(found) if found else torch.zeros((0, len(points)), dtype=points.dtype)

    @cached_property
    def moving(self) -> list[int]:
        """Groups whose distances change with the hyperparameters: sites with a relevance."""
        return [at for at, group in enumerate(self.groups) if group.kind == "sites" and self.n_sites]

    @cached_property
    def still(self) -> list[int]:
        """Groups whose distances do not."""
        return [at for at in range(len(self.groups)) if at not in self.moving]

    def matrix(self, parameters: Tensor, a: Points, b: Points, still: Tensor | None = None) -> Tensor:
        """Return (len(a), len(b)) likenesses.

        Parameters
        ----------
        parameters : (n_hyperparameters,)
        a, b : points
        still : (n_still, len(a), len(b)) squared distances that do not change, where they are known already
        """
        own = self.stretched(parameters, a)
        other = own if b is a else self.stretched(parameters, b)
        fixed = self.squares(a, b, self.still) if still is None else still
        weights = self._weights(parameters).to(fixed.dtype)
        shape = (len(weights), len(a), len(b))
        sums = torch.zeros(shape, dtype=fixed.dtype)
        for chosen, squares in ((self.still, fixed), (self.moving, self.squares(own, other, self.moving))):
            if chosen:
                sums = sums + (weights[:, chosen] @ squares.reshape(len(chosen), -1)).reshape(shape)
        # Products from distances: x·x′ = (|x|² + |x′|² − |x − x′|²) / 2.
        linear = weights[0] @ self.norms(own), weights[0] @ self.norms(other)
        total = MEAN + 0.5 * (linear[0][:, None] + linear[1] - sums[0])
        for number, (part, start) in enumerate(self._starts(), 1):
            total = total + _FORMS[part.form](sums[number].clamp_min(_TINY), parameters[start].to(fixed.dtype))
        return total

    def diagonal(self, parameters: Tensor, a: Points) -> Tensor:
        """Return (len(a),) the likeness of each point with itself."""
        weights = self._weights(parameters)
        norms = self.norms(self.stretched(parameters, a))
        own = MEAN + weights[0].to(norms.dtype) @ norms
        return own + sum(float(torch.exp(parameters[start])) for _, start in self._starts())

    def _starts(self) -> list[tuple[Component, int]]:
        """Return the components, each with the place of its first hyperparameter."""
        sizes = [1 + len(part.groups) for part in self.components]
        starts = len(self.linear) + np.cumsum([0, *sizes])[:-1]
        return list(zip(self.components, starts.tolist(), strict=True))

    def _weights(self, parameters: Tensor) -> Tensor:
        """Return (1 + n_components, n_groups) what each group's squared distance counts: a first, then l⁻², or 0."""
        nothing = torch.zeros(len(self.groups), dtype=torch.float64)
        rows = [
            nothing.index_put((torch.tensor(self.linear, dtype=torch.long),), torch.exp(parameters[: len(self.linear)]))
        ]
        for part, start in self._starts():
            inverse = torch.exp(-2 * parameters[start + 1 : start + 1 + len(part.groups)])
            rows.append(nothing.index_put((torch.tensor(part.groups),), inverse))
        return torch.stack(rows)


def _smooth(squares: Tensor, size: Tensor) -> Tensor:
    distance = torch.sqrt(5 * squares)
    return (1 + distance + distance.square() / 3) * torch.exp(size - distance)


def _rough(squares: Tensor, size: Tensor) -> Tensor:
    return torch.exp(size - torch.sqrt(squares))


def _bell(squares: Tensor, size: Tensor) -> Tensor:
    return torch.exp(size - 0.5 * squares)


_FORMS: Final = {"smooth": _smooth, "rough": _rough, "bell": _bell}
