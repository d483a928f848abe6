"""What features from sequences cost, and what a linear model sees through them.

    python benchmarks/features.py --data FOLDER [--part speed|ridge] [--splits 10] [--out docs/results/features.md]

`--data` is the folder with `affinity_pool.parquet`. Two parts:

speed   `sites` and `composition` of the whole pool, fitted and transformed, with the representatives' numbers not yet
        known and then known; and `tailbind predict` for 100,000 new variants of known families
ridge   within each large set, on its measured rows: a ridge on `sites`, on `composition` with and without pairs of
        neighbouring residues, and the training mean; 80/20 with identical pairs on one side, several splits
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console

import tailbind
from tailbind.evaluation.metrics import evaluate
from tailbind.features.composition import Composition
from tailbind.features.contract import Block
from tailbind.features.pipeline import FeaturePipeline
from tailbind.features.sites import Sites
from tailbind.models.baselines import Ridge
from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.table.grouping import pair_index
from tailbind.table.reading import read_table
from tailbind.table.schema import MEASURED, AffinityTable

#: Set → Spearman of an additive model of one-hot sites on one random split, of a quick look before this was written.
SETS = {
    "ch65_si06": 0.853,
    "moulana_S309": 0.871,
    "moulana_REGN10987": 0.897,
    "moulana_CB6": 0.930,
    "cr9114_h3": 0.870,
    "cr6261_h1": 0.891,
    "abbibench_aayl49_ML": 0.483,
    "abbibench_aayl49": 0.549,
    "abbibench_aayl51": 0.552,
    "alphabind_her2_full": 0.847,
}
#: What a ridge reads.
COLUMNS: dict[str, dict[str, Block]] = {
    "`sites`": {"sites": Sites()},
    "residue shares": {"composition": Composition(dipeptides=False)},
    "`composition`": {"composition": Composition()},
    "`sites` + `composition`": {"sites": Sites(), "composition": Composition()},
}
VARIANTS = 100_000
#: Where few rows are held out, one split says little.
FEW_ROWS, FEW_ROWS_MORE_SPLITS = 2_500, 8
Rows = NDArray[np.intp]


def main(argv: list[str] | None = None) -> int:
    """Run the parts asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", choices=("speed", "ridge"))
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)  # one measurement, in its own process
    arguments = parser.parse_args(argv)
    pool = arguments.data / "affinity_pool.parquet"
    if arguments.whole:
        print(*whole_pool(pool))
        return 0
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, on the CPU"
    lines = [f"tailbind {tailbind.__version__}; {machine}; {time.strftime('%Y-%m-%d')}.", ""]
    if arguments.part in (None, "speed"):
        lines += [*speed(pool), ""]
    if arguments.part in (None, "ridge"):
        lines += [*ridge(read_table(pool, feature_prefix=None), arguments.splits), ""]
    text = "\n".join(lines)
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    return 0


def whole_pool(pool: Path) -> tuple[float, float, float, int, int]:
    """Return seconds of fitting and of transforming, peak memory in GB, dense and sparse columns."""
    table = read_table(pool, feature_prefix=None)
    blocks = {"sites": Sites(), "composition": Composition()}
    start = time.perf_counter()
    pipeline = FeaturePipeline.fit({name: name for name in blocks}, blocks, table, np.arange(len(table)))
    fitted = time.perf_counter()
    features = pipeline.transform(table)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return fitted - start, done - fitted, peak, features.dense.shape[1], features.n_sparse


def speed(pool: Path) -> list[str]:
    """Return the table of what computing features takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "TAILBIND_CACHE": name}
        command = [sys.executable, __file__, "--data", str(pool.parent), "--whole"]
        first, again = (
            [
                float(number)
                for number in subprocess.run(
                    command, env=environment, check=True, capture_output=True, text=True
                ).stdout.split()
            ]
            for _ in range(2)
        )
        os.environ["TAILBIND_CACHE"] = name
        new = folder / "new.parquet"
        frame = pl.read_parquet(pool)
        variants(frame).drop("pkd", "relation").write_parquet(new)
        short = ["training.epochs=1"]
        tailbind.train(pool, recipe="v2-sequence", out=folder / "run", overrides=short, console=Console(stderr=True))
        start = time.perf_counter()
        tailbind.predict(folder / "run", new, out=folder / "predictions.parquet")
        predicted = time.perf_counter() - start
    n = len(frame)
    return [
        "| what | seconds | peak memory |",
        "|---|---|---|",
        f"| `sites` + `composition` of {n:,} rows ({first[3]:,.0f} dense and {first[4]:,.0f} sparse columns), "
        f"representatives not numbered yet: fit + transform | {first[0]:.1f} + {first[1]:.1f} | {first[2]:.2f} GB |",
        f"| the same with their numbers known | {again[0]:.1f} + {again[1]:.1f} | {again[2]:.2f} GB |",
        f"| so numbering costs, once | {first[0] - again[0]:.1f} | |",
        f"| `tailbind predict` of {VARIANTS:,} new variants of known families, reading and writing included "
        f"| {predicted:.1f} | |",
    ]


def variants(known: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """Return rows drawn from a table with one or two random substitutions in each heavy chain, none twice."""
    rng = np.random.default_rng(seed)
    drawn = known.filter(pl.col("heavy") != "").sample(2 * VARIANTS, with_replacement=True, seed=seed)
    heavy = []
    for sequence in drawn["heavy"]:
        letters = list(sequence)
        for place in rng.integers(len(letters), size=2):
            letters[place] = AMINO_ACIDS[rng.integers(len(AMINO_ACIDS))]
        heavy.append("".join(letters))
    mutants = drawn.with_columns(heavy=pl.Series(heavy)).unique(["heavy", "light", "antigen"], maintain_order=True)
    mutants = mutants.head(VARIANTS)
    return mutants.with_columns(row_id=pl.int_range(len(mutants)).cast(pl.String))


def ridge(pool: AffinityTable, n_splits: int) -> list[str]:
    """Return the table of Spearman and RMSE within each set."""
    lines = [
        f"Mean Spearman and RMSE on the held-out fifth over {n_splits} splits, {FEW_ROWS_MORE_SPLITS * n_splits} for "
        f"sets of fewer than {FEW_ROWS:,} rows (± SD of Spearman over the splits). The last column is the Spearman of "
        "plain one-hot sites on one other split.",
        "",
        f"| set | measured rows | {' | '.join(COLUMNS)} | training mean | one-hot |",
        f"|---|---|{'---|' * len(COLUMNS)}---|---|",
    ]
    for name, before in SETS.items():
        table = pool.take((pool.source == name) & (pool.relation == MEASURED))
        figures: dict[str, list[tuple[float, float]]] = {column: [] for column in COLUMNS}
        trivial = []
        for seed in range(n_splits * (FEW_ROWS_MORE_SPLITS if len(table) < FEW_ROWS else 1)):
            train, test = sides(table, seed)
            for column, blocks in COLUMNS.items():
                kinds = {name: name for name in blocks}
                features = FeaturePipeline.fit(kinds, blocks, table, train).transform(table)
                predicted = Ridge().fit(features, table.pkd, train).predict(features, test)
                found = evaluate(table.pkd[test], predicted)
                figures[column].append((found["spearman"], found["rmse"]))
            trivial.append(float(np.sqrt(np.mean((table.pkd[test] - table.pkd[train].mean()) ** 2))))
        cells = [
            f"{np.mean([s for s, _ in found]):.3f} ± {np.std([s for s, _ in found]):.3f}, "
            f"{np.mean([r for _, r in found]):.3f}"
            for found in figures.values()
        ]
        lines.append(f"| {name} | {len(table):,} | {' | '.join(cells)} | {np.mean(trivial):.3f} | {before:.3f} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def sides(table: AffinityTable, seed: int) -> tuple[Rows, Rows]:
    """Return training and test rows, 80/20, identical pairs on one side."""
    pairs = pair_index(table.frame)
    shuffled = np.random.default_rng(seed).permutation(pairs.max() + 1)
    held_out = np.isin(pairs, shuffled[: len(shuffled) // 5])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


if __name__ == "__main__":
    sys.exit(main())
