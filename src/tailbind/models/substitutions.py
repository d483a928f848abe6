"""How alike two residues at one site are: vectors for the columns of `sites`, whose products say so.

By themselves the columns of a site are all equally unlike: phenylalanine instead of tyrosine is as far from it as
lysine is. Here each column gets a vector, so that what a kernel sees of two rows is how far apart their residues are
by BLOSUM62, site by site.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.models.contract import FloatArray
from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.sequences.residues import BLOSUM62

if TYPE_CHECKING:
    from scipy.sparse import csr_array

#: How the block `sites` names a residue of a site, `heavy 0 H52 FR2 S>Y`, and any change of it, `... S>any`.
RESIDUE: Final = re.compile(r"(?P<site>(heavy|light|antigen) \d+ .*) (?P<was>\S)>(?P<now>\S|any)")
#: Share of the likeness that is BLOSUM62's; for the rest, residues are the same or they are not.
SHARE: Final = 0.5
GAP: Final = "-"
#: Directions of a site that are so much shorter than its longest are rounding.
ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class SiteVectors:
    """Vectors of columns: those of one site lie in directions of its own.

    Attributes
    ----------
    vectors : (n_columns, n_directions), sparse: few columns are of one site
    site : (n_directions,) number of the site that each direction belongs to; 0, 1, … without a hole
    """

    vectors: "csr_array"
    site: NDArray[np.intp]


def site_vectors(names: Sequence[str]) -> SiteVectors:
    """Return vectors such that the sum over a row's columns tells its residues, seen from the consensus.

    Two rows of one family then lie Σ 2 (1 − likeness) apart, squared, over the sites where they differ. A column that
    is no residue of a site (a family, an antigen, an insertion) is a site by itself.

    Parameters
    ----------
    names : (n_columns,) of sparse columns

    Examples
    --------
    >>> found = site_vectors(["heavy 0 H52 FR2 S>any", "heavy 0 H52 FR2 S>T", "heavy 0 H52 FR2 S>W", "heavy family 0"])
    >>> rows = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])  # threonine, tryptophan, serine
    >>> points = rows @ found.vectors
    >>> [round(float(np.square(one - points[2]).sum()), 2) for one in points]  # from serine
    [1.71, 2.25, 0.0]
    >>> len(set(found.site.tolist()))
    2
    """
    parsed = [RESIDUE.fullmatch(name) for name in names]
    keys = [match["site"] if match else f"column {name}" for name, match in zip(names, parsed, strict=True)]
    several = {match["site"] for match in parsed if match and match["now"] == "any"}
    coordinates = _coordinates()
    raw = np.zeros((len(names), coordinates["A"].shape[0]))
    for column, match in enumerate(parsed):
        if match is None:
            raw[column, 0] = np.sqrt(0.5)
            continue
        # Beside a residue's own column, that of any change of its site is lit: the two add up to the difference.
        start = coordinates["any"] if match["site"] in several and match["now"] != "any" else None
        was = _of(coordinates, match["was"]) if start is None else start
        raw[column] = _of(coordinates, match["now"]) - was
    members: dict[str, list[int]] = {}
    for column, key in enumerate(keys):
        members.setdefault(key, []).append(column)
    return _compact(raw, list(members.values()))


def _of(coordinates: dict[str, FloatArray], residue: str) -> FloatArray:
    """Return a residue's coordinates; a letter that is none of the twenty is in their middle."""
    return coordinates.get(residue, coordinates["any"])


def _coordinates() -> dict[str, FloatArray]:
    """Return residue → (42,) coordinates, whose products are likenesses: 1 with itself; "any" is their mean."""
    letters = (*AMINO_ACIDS, GAP)
    n = len(AMINO_ACIDS)
    codes = np.frombuffer("".join(AMINO_ACIDS).encode(), np.uint8)
    scores = BLOSUM62[np.ix_(codes, codes)].astype(np.float64)
    likeness = np.eye(n + 1)
    likeness[:n, :n] = _correlation(scores)
    factor = np.linalg.cholesky(likeness)
    both = np.hstack([np.sqrt(SHARE) * factor, np.sqrt(1 - SHARE) * np.eye(n + 1)])
    return dict(zip(letters, both, strict=True)) | {"any": both[:n].mean(axis=0)}


def _correlation(scores: FloatArray) -> FloatArray:
    """Return scores as correlations: divided by those of a residue with itself, and made positive definite."""
    scale = np.sqrt(np.diag(scores))
    values, directions = np.linalg.eigh(scores / np.outer(scale, scale))
    positive = (directions * np.maximum(values, 1e-6)) @ directions.T
    scale = np.sqrt(np.diag(positive))
    result: FloatArray = positive / np.outer(scale, scale)
    return result


def _compact(raw: FloatArray, sites: Sequence[Sequence[int]]) -> SiteVectors:
    """Return the same products in as few directions as each site's columns span."""
    from scipy.sparse import csr_array

    owners: list[int] = []
    rows, places, entries = [np.empty(0, np.intp)], [np.empty(0, np.intp)], [np.empty(0)]
    for number, columns in enumerate(sites):
        values, directions = np.linalg.eigh(raw[columns] @ raw[columns].T)
        kept = values > ROUNDING * values[-1]
        block = directions[:, kept] * np.sqrt(values[kept])
        rows.append(np.repeat(columns, block.shape[1]))
        places.append(np.tile(np.arange(block.shape[1]), len(columns)) + len(owners))
        entries.append(block.ravel())
        owners += [number] * block.shape[1]
    coordinates = (np.concatenate(rows), np.concatenate(places))
    vectors = csr_array((np.concatenate(entries), coordinates), shape=(len(raw), len(owners)))
    return SiteVectors(vectors, np.array(owners, np.intp))
