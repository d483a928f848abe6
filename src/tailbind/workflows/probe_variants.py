"""Antibodies as a probe changes them: rows of a table in another shape, each beside the row that it is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import SequenceError
from tailbind.runtime import progress, remark
from tailbind.sequences.families import Families, find_families
from tailbind.sequences.laying import OTHER, REGIONS
from tailbind.sequences.mutants import substitutions
from tailbind.table.mutants import target

Rows = NDArray[np.intp]

CHAINS: Final = ("heavy", "light")
#: Of a chain whose variable domain is not known, so many residues are substituted.
LONGEST_SCAN: Final = 300


@dataclass(frozen=True)
class Variants:
    """Changed rows.

    Attributes
    ----------
    frame : with the table's columns
    base : (n,) rows of the table that each is made from
    """

    frame: pl.DataFrame
    base: Rows


@dataclass(frozen=True)
class Substitutions(Variants):
    """Single substitutions.

    Attributes
    ----------
    letters : (n,) number of the chain and of the two letters, the one that was there and the one put there
    region : (n,) index in `REGIONS`
    """

    letters: Rows
    region: Rows


@dataclass(frozen=True)
class Regions:
    """Where the regions of antibodies lie.

    Attributes
    ----------
    families : chain → families of what was numbered
    """

    families: Mapping[str, Families]

    def of(self, chain: str, sequences: Sequence[str]) -> list[NDArray[np.uint8]]:
        """Return for each sequence the index in `REGIONS` of each of its residues."""
        return self.families[chain].regions(sequences)


def find_regions(frame: pl.DataFrame) -> Regions | None:
    """Return where the regions lie in the antibodies of some rows; None, with a remark, where ANARCII is missing."""
    families = {}
    for chain in CHAINS:
        sequences = frame[chain].unique(maintain_order=True).to_list()
        try:
            with progress(f"Numbering {chain} chains") as tell:
                families[chain] = find_families(sequences, notify=tell)
        except SequenceError as error:
            remark(f"Warning: CDRs and frameworks are not told apart. {error}")
            return None
    return Regions(families)


def changed_rows(
    frame: pl.DataFrame, rows: Rows, regions: Regions | None, rng: np.random.Generator
) -> dict[str, Variants]:
    """Return every way in which whole rows are changed, of those rows where it can be done.

    Parameters
    ----------
    frame : a table's
    rows : those to change
    regions : of their antibodies; where unknown, no CDR is changed
    rng : chooses whose antigen and antibody is put there
    """
    base = frame[rows.tolist()]
    found = {
        "antigen_removed": _without_antigen(base, rows),
        "antigen_swapped": _swapped(frame, base, rows, pl.col("target"), ("antigen", "antigen_name"), rng),
        "antibody_swapped": _swapped(frame, base, rows, pl.concat_str("heavy", "light", separator=" "), CHAINS, rng),
        "chains_exchanged": _exchanged(base, rows),
    }
    if regions is not None:
        found["cdrs_to_alanine"] = _without_cdrs(base, rows, regions)
    return {name: variants for name, variants in found.items() if len(variants.base)}


def _without_antigen(base: pl.DataFrame, rows: Rows) -> Variants:
    has_one = (base["antigen"] != "") | (base["antigen_name"] != "")
    return Variants(base.filter(has_one).with_columns(antigen=pl.lit(""), antigen_name=pl.lit("")), rows[has_one])


def _exchanged(base: pl.DataFrame, rows: Rows) -> Variants:
    has_both = (base["heavy"] != "") & (base["light"] != "") & (base["heavy"] != base["light"])
    return Variants(base.filter(has_both).with_columns(heavy="light", light="heavy"), rows[has_both])


def _swapped(
    frame: pl.DataFrame, base: pl.DataFrame, rows: Rows, key: pl.Expr, columns: Sequence[str], rng: np.random.Generator
) -> Variants:
    """Return rows with another row's columns in the place of their own, chosen among all that differ in `key`."""
    others = frame.with_columns(target=target()).with_columns(key=key).unique("key", keep="first", maintain_order=True)
    others = others.filter(pl.col("key").str.strip_chars() != "")
    own = base.with_columns(target=target()).select(key=key)["key"]
    place = {value: number for number, value in enumerate(others["key"].to_list())}
    mine = np.array([place.get(value, -1) for value in own.to_list()], np.intp)
    chosen = mine >= 0
    if len(others) < 2 or not chosen.any():
        return Variants(base.clear(), rows[:0])
    drawn = rng.integers(len(others) - 1, size=int(chosen.sum()))
    drawn += drawn >= mine[chosen]  # any but its own
    put = others[drawn.tolist()]
    return Variants(base.filter(pl.Series(chosen)).with_columns(put[column] for column in columns), rows[chosen])


def _without_cdrs(base: pl.DataFrame, rows: Rows, regions: Regions) -> Variants:
    """Return rows whose antibody has alanine all over its CDRs; those without a CDR that was found are left out."""
    in_cdr = np.array([".CDR" in name for name in REGIONS])
    changed, found = {}, np.zeros(len(base), np.bool_)
    for chain in CHAINS:
        sequences = base[chain].to_list()
        bare = []
        for row, (sequence, region) in enumerate(zip(sequences, regions.of(chain, sequences), strict=True)):
            inside = in_cdr[region]
            found[row] |= bool(inside.any())
            bare.append("".join("A" if cdr else letter for letter, cdr in zip(sequence, inside, strict=True)))
        changed[chain] = pl.Series(chain, bare, dtype=pl.String)
    return Variants(base.with_columns(changed.values()).filter(pl.Series(found)), rows[found])


def every_substitution(frame: pl.DataFrame, rows: Rows, regions: Regions | None) -> Substitutions:
    """Return every single substitution in the variable domains of some rows' antibodies, as rows.

    Where it is not known where the domains lie, the first `LONGEST_SCAN` residues of each chain are substituted.
    """
    base: list[int] = []
    chains: dict[str, list[str]] = {chain: [] for chain in CHAINS}
    letters: list[int] = []
    region: list[int] = []
    for row in rows.tolist():
        for number, chain in enumerate(CHAINS):
            sequence, other = frame[chain][row], CHAINS[1 - number]
            of_residue = np.full(len(sequence), OTHER) if regions is None else regions.of(chain, [sequence])[0]
            places = np.flatnonzero(of_residue != OTHER)
            places = places if len(places) else np.arange(min(len(sequence), LONGEST_SCAN))
            for place, residue, mutant in substitutions(sequence, places):
                base.append(row)
                chains[chain].append(mutant)
                chains[other].append(frame[other][row])
                letters.append((number * 256 + ord(sequence[place]) % 256) * 256 + ord(residue))
                region.append(int(of_residue[place]))
    changed = [pl.Series(chain, of_chain, dtype=pl.String) for chain, of_chain in chains.items()]
    return Substitutions(
        frame[base].with_columns(changed),
        np.array(base, np.intp),
        np.array(letters, np.intp),
        np.array(region, np.intp),
    )
