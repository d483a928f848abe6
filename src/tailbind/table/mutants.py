"""What a table measured more than once in different ways: single mutants beside their parents, antigens side by side.

Comparisons are between pairs of antibody and antigen, each with the median of its measured labels; labels marked < or
> are none. A single mutant and its parent are from one source and bind one antigen, so that laboratories do not count.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.sequences.columns import encode
from tailbind.sequences.mutants import find_parents
from tailbind.table.grouping import numbered
from tailbind.table.schema import MEASURED

Rows = NDArray[np.intp]

PAIR = ("source", "target", "heavy", "light")


@dataclass(frozen=True)
class Mutants:
    """Measured single mutants, each with its parent.

    Attributes
    ----------
    mutant, parent : (n,) rows of the pairs' frame
    in_light : (n,) whether the light chain is mutated, and not the heavy one
    place : (n,) the mutated residue, counted from 0 in its chain
    n_relatives : (n_pairs,) of every pair, how many measured antibodies are one substitution away
    """

    mutant: Rows
    parent: Rows
    in_light: NDArray[np.bool_]
    place: Rows
    n_relatives: Rows

    def __len__(self) -> int:
        return len(self.mutant)

    def one_way(self, held_out: NDArray[np.bool_]) -> "Mutants":
        """Return them without the second of each two that are each other's parents, which are one measurement.

        That with fewer relatives stays, as the mutant; of as many the later. One that alone is held out stays anyway.

        Parameters
        ----------
        held_out : (n_pairs,) whether a pair's labels were kept from the model

        Examples
        --------
        >>> two, nobody = np.array([1, 0]), np.zeros(2, bool)
        >>> mutants = Mutants(np.array([0, 1]), two, nobody, np.zeros(2, np.intp), np.ones(2, np.intp))
        >>> mutants.one_way(nobody).mutant.tolist(), mutants.one_way(np.array([True, False])).mutant.tolist()
        ([1], [0])
        """
        parent_of = np.full(len(self.n_relatives), -1, np.intp)
        parent_of[self.mutant] = self.parent
        mutual = parent_of[self.parent] == self.mutant
        sides = [(held_out[side], -self.n_relatives[side], side) for side in (self.mutant, self.parent)]
        stays = np.zeros(len(self), np.bool_)
        alike = np.ones(len(self), np.bool_)
        for own, other in zip(*sides, strict=True):
            stays |= alike & (own > other)
            alike &= own == other
        return self.take(np.flatnonzero(~mutual | stays))

    def take(self, chosen: Rows) -> "Mutants":
        """Return those of the mutants that `chosen` numbers."""
        parts = (self.mutant[chosen], self.parent[chosen], self.in_light[chosen], self.place[chosen])
        return Mutants(*parts, self.n_relatives)


def target() -> pl.Expr:
    """Return what a row's antibody was held against: the antigen's sequence, its name where there is none, else ""."""
    named = pl.when(pl.col("antigen_name") != "").then(pl.format("name {}", "antigen_name")).otherwise(pl.lit(""))
    return pl.when(pl.col("antigen") != "").then(pl.col("antigen")).otherwise(named)


def measured_pairs(frame: pl.DataFrame, held_out: NDArray[np.bool_]) -> pl.DataFrame:
    """Return one row per source, antigen and antibody that was measured.

    Parameters
    ----------
    frame : a table's
    held_out : (n_samples,) whether a row's label was kept from the model

    Returns
    -------
    DataFrame
        `source, target, heavy, light, pkd` (the median of the measured labels), `row` (the first of its rows) and
        `held_out` (whether all its rows are).

    Examples
    --------
    >>> frame = pl.DataFrame({
    ...     "source": ["a"] * 3, "antigen": ["MKT"] * 3, "antigen_name": [""] * 3, "heavy": ["EV", "EV", "QV"],
    ...     "light": [""] * 3, "pkd": [7.0, 8.0, 6.0], "relation": ["="] * 3,
    ... })
    >>> measured_pairs(frame, np.array([True, False, True])).select("heavy", "pkd", "held_out").rows()
    [('EV', 7.5, False), ('QV', 6.0, True)]
    """
    rows = frame.lazy().with_columns(
        row=pl.int_range(pl.len()), held_out=pl.lit(pl.Series(held_out, dtype=pl.Boolean)), target=target()
    )
    has_antibody = (pl.col("heavy") != "") | (pl.col("light") != "")
    known = rows.filter((pl.col("relation") == MEASURED) & pl.col("pkd").is_not_null() & has_antibody)
    of_pair = (pl.col("pkd").median(), pl.col("row").first(), pl.col("held_out").all())
    return known.group_by(PAIR, maintain_order=True).agg(of_pair).collect()


def find_mutants(pairs: pl.DataFrame) -> Mutants:
    """Return the pairs whose antibody is one substitution away from another's, of one source and antigen.

    Parameters
    ----------
    pairs : as `measured_pairs` returns them

    Examples
    --------
    >>> pairs = pl.DataFrame({
    ...     "source": ["a"] * 4, "target": ["MKT"] * 4,
    ...     "heavy": ["EVQ", "QVQ", "EVA", "EVA"], "light": ["D"] * 3 + ["E"],
    ... })
    >>> found = find_mutants(pairs)
    >>> found.mutant.tolist(), found.parent.tolist(), found.in_light.tolist(), found.place.tolist()
    ([0, 1, 2, 3], [2, 0, 0, 2], [False, False, False, True], [2, 0, 2, 0])
    """
    sized = pairs.select("source", "target", pl.col("heavy", "light").str.len_chars().name.prefix("length_"))
    group = numbered(sized)
    order = np.argsort(group, kind="stable")
    bounds = np.flatnonzero(np.diff(group[order])) + 1
    heavy, light = (pairs[chain].to_numpy() for chain in ("heavy", "light"))
    parent, column, n_relatives = (np.full(len(pairs), fill, np.intp) for fill in (-1, -1, 0))
    for members in np.split(order, bounds) if len(pairs) else []:
        if len(members) < 2:
            continue
        found = find_parents(encode([heavy[row] + light[row] for row in members.tolist()]))
        has_one = found.parent >= 0
        parent[members[has_one]] = members[found.parent[has_one]]
        column[members], n_relatives[members] = found.column, found.n_relatives
    mutant = np.flatnonzero(parent >= 0)
    length = pairs["heavy"].str.len_chars().to_numpy().astype(np.intp)[mutant]
    in_light = column[mutant] >= length
    return Mutants(mutant, parent[mutant], in_light, column[mutant] - in_light * length, n_relatives)


def other_antigens(pairs: pl.DataFrame, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Return held-out pairs whose antibody was measured against another antigen too, and one such pair of each.

    Where each of two would be the other's, they are given once, in either order.

    Parameters
    ----------
    pairs : as `measured_pairs` returns them
    rng : chooses, where there are several

    Examples
    --------
    >>> pairs = pl.DataFrame({
    ...     "target": ["MKT", "GGS", "MKT"], "heavy": ["EV", "EV", "QV"], "light": [""] * 3,
    ...     "held_out": [True, False, True],
    ... })
    >>> [rows.tolist() for rows in other_antigens(pairs, np.random.default_rng(0))]
    [[0], [1]]
    """
    antibody = ("heavy", "light")
    drawn = pairs.select("target", *antibody, "held_out").with_columns(
        row=pl.int_range(pl.len()), order=pl.Series(rng.permutation(len(pairs)))
    )
    shared = drawn.filter((pl.col("target") != "") & (pl.col("target").n_unique().over(antibody) > 1))
    # Of two antigens one is another than a row's own; an antibody may have tens of thousands.
    two = shared.sort("order").unique([*antibody, "target"], keep="first", maintain_order=True)
    two = two.group_by(antibody, maintain_order=True).head(2)
    joined = shared.filter("held_out").join(two, on=antibody, suffix="_other")
    joined = joined.filter(pl.col("target") != pl.col("target_other"))
    chosen = joined.sort("row", "order_other").unique("row", keep="first", maintain_order=True)
    # Both ways round they would count twice; which way is left to chance, so that no antigen is always the first.
    turned = chosen.select(row="row_other", row_other="row").with_columns(mutual=True)
    mutual = chosen.join(turned, on=["row", "row_other"], how="left", maintain_order="left")["mutual"].fill_null(False)
    chosen = chosen.filter(~mutual | (pl.col("order") < pl.col("order_other")))
    return chosen["row"].to_numpy().astype(np.intp), chosen["row_other"].to_numpy().astype(np.intp)
