"""A table of simulated affinities in the training notebook's own format, with the truth beside each label.

Several antibody families, each with its parent (human frameworks, CDRs of its own) and its antigen. A variant's
true pKd is the parent's plus additive effects of its substitutions plus pairwise effects between some of them.
The measurement adds noise, and one source has a detection floor. Features are what the training notebook's are in
kind, a pooled vector: residue and dipeptide shares of the chains, projected at random and reduced by PCA.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from tailbind.options import bounded
from tailbind.runtime import writing
from tailbind.scale import BIN_NAMES

LETTERS: Final = "ACDEFGHIKLMNPQRSTVWY"
CHAIN_LENGTHS: Final = {"heavy": 120, "light": 108, "antigen": 180}
#: Human frameworks (IGHV3-23 with IGHJ4, IGKV1-39 with IGKJ1); a family draws its own letters for the dots, the CDRs.
FRAMEWORKS: Final = {
    "heavy": "EVQLLESGGGLVQPGGSLRLSCAASG........WVRQAPGKGLEWVS........YYADSVKGRFTISRDNSKNTLYLQMNSLRAEDTAVYYC"
    "...............WGQGTLVTVSS",
    "light": "DIQMTQSPSSLSASVGDRVTITCRAS.......WYQQKPGKAPKLLIY...SLQSGVPSRFSGSGSGTDFTLTISSLQPEDFATYYC"
    "...........FGQGTKVEIK",
}

#: Share of true pKd in each bin: about the training notebook's table's; noise then brings very strong to 0.1 %.
BIN_SHARES: Final = dict(zip(BIN_NAMES, (0.0200, 0.5670, 0.2420, 0.1703, 0.0007), strict=True))
#: pKd that ends each bin's range, weakest first.
_BIN_SPANS: Final = ((3.0, 5.0), (5.0, 7.0), (7.0, 9.0), (9.0, 11.0), (11.0, 12.5))


@dataclass(frozen=True)
class Landscape:
    """What to simulate.

    Attributes
    ----------
    n_rows, n_families : size of the table
    n_features : width of the `esm2_pca_*` block, at most `n_rows`
    n_sites : positions of the heavy chain that vary within a family
    pairwise : size of pairwise effects beside additive ones (0: additive only)
    noise : standard deviation of a measurement, in pKd
    floor : the first family's detection floor; weaker binders are written at it, marked `<`
    missing : share of rows without features
    """

    n_rows: int = bounded(20_000, low=100)
    n_families: int = bounded(6, low=1)
    n_features: int = bounded(150, low=2)
    n_sites: int = bounded(12, low=2, high=60)
    pairwise: float = bounded(0.4, low=0)
    noise: float = bounded(0.15, low=0)
    floor: float = 6.5
    missing: float = bounded(0.15, low=0, below=1)
    seed: int = bounded(42, low=0)


def simulate(landscape: Landscape) -> pl.DataFrame:
    """Return a table in the training notebook's format, plus `relation` and the noiseless `true_pkd`.

    Columns: `antibody_heavy, antibody_light, antigen, pKd, relation, database_source, true_pkd` and the
    feature block `esm2_pca_0 …`, empty in the share of rows that `missing` says.

    >>> table = simulate(Landscape(n_rows=200, n_features=10))
    >>> table.shape
    (200, 17)
    """
    rng = np.random.default_rng(landscape.seed)
    family = rng.integers(landscape.n_families, size=landscape.n_rows)
    chains = {
        name: _parents(rng, landscape.n_families, length, FRAMEWORKS.get(name, "." * length))
        for name, length in CHAIN_LENGTHS.items()
    }
    heavy, scores = _variants(rng, landscape, chains["heavy"], family)
    true_pkd = _to_bin_shares(scores)
    measured = np.clip(true_pkd + rng.normal(0, landscape.noise, landscape.n_rows), -4.9, 19.9)
    below = (family == 0) & (measured < landscape.floor)
    pkd = np.where(below, landscape.floor, measured)

    codes = [heavy, chains["light"][family], chains["antigen"][family]]
    features = _pooled_features(rng, codes, landscape.n_features)
    absent = pl.Series(rng.random(landscape.n_rows) < landscape.missing)
    block = pl.from_numpy(features.round(5), schema=[f"esm2_pca_{i}" for i in range(features.shape[1])]).select(
        pl.when(~absent).then(pl.all())
    )
    return pl.DataFrame(
        {
            "antibody_heavy": _letters(codes[0]),
            "antibody_light": _letters(codes[1]),
            "antigen": _letters(codes[2]),
            "pKd": pkd.round(4),
            "relation": np.where(below, "<", "="),
            "database_source": [f"family_{index}" for index in family],
            "true_pkd": true_pkd.round(4),
        }
    ).hstack(block)


def write_simulated(path: Path, landscape: Landscape) -> None:
    """Simulate and write a CSV file, whole or not at all."""
    frame = simulate(landscape)
    with writing(path) as handle:
        frame.write_csv(handle)


def _parents(rng: np.random.Generator, n_families: int, length: int, framework: str) -> NDArray[np.int64]:
    """Return (n_families, length) letter codes: random where the framework has a dot, its own letter elsewhere."""
    codes = rng.integers(len(LETTERS), size=(n_families, length))
    for position, letter in enumerate(framework):
        if letter != ".":
            codes[:, position] = LETTERS.index(letter)
    return codes


def _variants(
    rng: np.random.Generator, landscape: Landscape, parents: NDArray[np.int64], family: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the variants' heavy chains, (n_rows, length) letter codes, and an affinity score for each."""
    heavy = parents[family].copy()
    scores = np.empty(landscape.n_rows)
    level = np.linspace(-1.3, 1.3, landscape.n_families)
    level = np.roll(level, -(landscape.n_families // 2))  # the floored family is neither the weakest nor the strongest
    for index in range(landscape.n_families):
        rows = np.flatnonzero(family == index)
        sites = rng.choice(parents.shape[1], landscape.n_sites, replace=False)
        options = rng.integers(len(LETTERS), size=(landscape.n_sites, 3))  # substitutions seen at each site
        additive = rng.normal(0, 1.0, (landscape.n_sites, 3))
        pairs = np.triu(rng.normal(0, landscape.pairwise, (landscape.n_sites, landscape.n_sites)), 1)
        mutated = rng.random((len(rows), landscape.n_sites)) < 0.4
        choice = rng.integers(3, size=(len(rows), landscape.n_sites))
        for position, site in enumerate(sites):
            changed = rows[mutated[:, position]]
            heavy[changed, site] = options[position, choice[mutated[:, position], position]]
        effect = (additive[np.arange(landscape.n_sites), choice] * mutated).sum(axis=1)
        epistasis = np.einsum("ri,ij,rj->r", mutated, pairs, mutated)
        scores[rows] = level[index] + (effect + epistasis) / np.sqrt(landscape.n_sites * 0.4)
    return heavy, scores


def _to_bin_shares(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return pKd that keeps the order of the scores and gives every bin its share."""
    quantile = (np.argsort(np.argsort(scores)) + 0.5) / len(scores)
    edges = np.concatenate([[0.0], np.cumsum(list(BIN_SHARES.values()))])
    index = np.clip(np.digitize(quantile, edges) - 1, 0, len(_BIN_SPANS) - 1)
    within = (quantile - edges[index]) / np.diff(edges)[index]
    low, high = np.asarray(_BIN_SPANS).T
    # Within a bin the density falls towards the extremes, so that noise carries few rows over the outer edges.
    rising = np.sqrt(within)
    falling = 1 - np.sqrt(1 - within)
    middle = len(_BIN_SPANS) // 2
    inner = np.select([index < middle, index > middle], [rising, falling], within)
    pkd: NDArray[np.float64] = low[index] + (high - low)[index] * inner
    return pkd


def _pooled_features(rng: np.random.Generator, chains: list[NDArray[np.int64]], width: int) -> NDArray[np.float32]:
    """Return (n_rows, width) principal components of a random projection of composition."""
    size = len(LETTERS)
    projected = np.zeros((len(chains[0]), 2 * width), np.float32)
    for codes in chains:
        n, length = codes.shape
        rows = np.repeat(np.arange(n), length - 1)
        pairs = (codes[:, :-1] * size + codes[:, 1:]).ravel()
        counts = np.bincount(rows * size**2 + pairs, minlength=n * size**2).reshape(n, size**2)
        shares = (counts / length).astype(np.float32)
        residues = np.add.reduceat(shares, np.arange(0, size**2, size), axis=1)
        basis = rng.normal(size=(size**2 + size, projected.shape[1])).astype(np.float32)
        projected += np.hstack([shares, residues]) @ basis
    width = min(width, *projected.shape)
    components = PCA(width, random_state=0).fit_transform(projected)
    scaled: NDArray[np.float32] = (components / components[:, 0].std()).astype(np.float32)
    return scaled


def _letters(codes: NDArray[np.int64]) -> list[str]:
    table = np.frombuffer(LETTERS.encode(), np.uint8)
    width = codes.shape[1]
    joined = table[codes].tobytes().decode()
    return [joined[start : start + width] for start in range(0, len(joined), width)]
