"""Whether intervals hold what they promise: on a pool of measurements, and on antigens never seen.

    python benchmarks/intervals.py --data FOLDER [--part pool|cold|all] [--seeds 42,43,44] [--runs FOLDER]

`--data` is the folder with `affinity_pool.parquet` and `multi_antigen.parquet`. On the pool (70/15/15 of the pairs, one
split for each seed) and on five folds that share no cluster of antigens, v3 and LightGBM are trained with half of the
validation rows set apart to calibrate. v3's intervals are those that `tailbind predict` writes. Beside them stands what
anybody can do: the quantile of LightGBM's absolute errors on the same calibration rows, the same width for every row.

Runs are kept under `--runs`; those that are finished are not trained again. Writes docs/results/intervals.md.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

import tailbind
from tailbind.errors import TailbindError
from tailbind.evaluation.coverage import TAILS, came_true, coverage, reliability
from tailbind.reporting.tables import NOTHING, Table, number
from tailbind.run_folder import open_run
from tailbind.runtime import write_text
from tailbind.scale import BIN_NAMES, bin_label
from tailbind.table.parts import CALIBRATION
from tailbind.table.reading import read_table
from tailbind.table.schema import MEASURED, AffinityTable
from tailbind.table.splitting import TEST

PAGE: Final = Path(__file__).parents[1] / "docs" / "results" / "intervals.md"
OWN: Final = ("calibration.rows=own", "calibration.share=0.5", "calibration.level=0.9")
V3, PLAIN, WRITTEN = "v3", "LightGBM, one width", "LightGBM with tailbind's"
LEVEL: Final = 0.9
#: Measured rows from which a kind of rows is judged, and what is then to be held of it.
FEWEST: Final = 300
HELD_AT_LEAST: Final = 0.85
N_FOLDS: Final = 5
#: Letters in a line of the page.
WIDTH: Final = 120

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """One division of a table, and what it is called on the page."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """Test rows with the intervals of one way to make them; the fields are row for row.

    Attributes
    ----------
    pkd, relation, source : (n_test,) of the labels
    low, high : (n_test,) pKd
    tails : name of a tail probability → (n_test,); empty of a way that gives none
    """

    pkd: Array
    relation: NDArray[np.str_]
    source: NDArray[np.str_]
    low: Array
    high: Array
    tails: dict[str, Array]

    def found(self) -> dict[str, Any]:
        """Return what is held, as `metrics.json` has it."""
        return coverage(self.low, self.high, self.pkd, self.relation, {"sources": self.source})


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is not there, judge it and write the page; return the exit code."""
    options = _parser().parse_args(argv)
    sections = []
    try:
        if options.part in ("pool", "all"):
            table = options.data / "affinity_pool.parquet"
            splits = [Split(f"seed {s}", ("split.kind=pair", f"split.seed={s}")) for s in options.seeds]
            sections += section("The pool", table, splits, options.runs / "pool", pool_text)
        if options.part in ("cold", "all"):
            table = options.data / "multi_antigen.parquet"
            group = ("split.kind=group", "split.column=ag_cluster", f"split.n_folds={N_FOLDS}")
            splits = [Split(f"fold {fold}", (*group, f"split.fold={fold}")) for fold in range(N_FOLDS)]
            sections += section("New antigens", table, splits, options.runs / "cold", cold_text)
    except TailbindError as error:
        print(error, file=sys.stderr)
        return 2
    heading = (
        f"tailbind {tailbind.__version__}; {os.cpu_count()} cores, {platform.machine()}; {time.strftime('%Y-%m-%d')}. "
        "How intervals are made: [intervals](../intervals.md). Held: of measured rows, those whose label lies within "
        "the interval; a label marked < or > is held where the interval reaches beyond it. Made by"
    )
    command = ["python benchmarks/intervals.py --data FOLDER", *([] if options.part == "all" else [options.part])]
    lines = [
        "# Whether intervals hold",
        "",
        fill(heading, WIDTH),
        "",
        "```console",
        " --part ".join(command),
        "```",
        "",
    ]
    write_text(options.page, "\n".join([*lines, *sections]).rstrip() + "\n")
    print(f"wrote {options.page}")
    return 0


def section(title: str, data: Path, splits: Sequence[Split], runs: Path, text: Any) -> list[str]:
    """Return the lines of one part of the page."""
    table = read_table(data, feature_prefix=None, sequences=True)
    judged: dict[str, list[Judged]] = {V3: [], WRITTEN: [], PLAIN: []}
    for split in splits:
        for name, found in judge_split(data, table, split, runs).items():
            judged[name].append(found)
    found = {name: [one.found() for one in of_splits] for name, of_splits in judged.items()}
    together = {name: joined(of_splits) for name, of_splits in judged.items()}
    tables = [
        splits_table(splits, found),
        kinds_table("By affinity bin of the measured value", "bins", together, {n: bin_label(n) for n in BIN_NAMES}),
        kinds_table("By source", "sources", together, {}),
        tails_table(together),
    ]
    lines = [f"## {title}", "", fill(text(len(table), len(splits)), WIDTH), ""]
    return [*lines, *(table.markdown() for table in tables)]


def pool_text(n_rows: int, n_splits: int) -> str:
    """Return what the part on the pool is about."""
    return (
        f"{n_rows:,} public measurements, identical pairs on one side, {n_splits} splits. Tables of kinds of rows take "
        "the test rows of all splits together; a row may be in several. Half of the validation rows calibrate both."
    )


def cold_text(n_rows: int, n_splits: int) -> str:
    """Return what the part on new antigens is about."""
    return (
        f"{n_rows:,} pairs in {n_splits} folds that share no cluster of antigens; the fold after the tested one is for "
        "validation. v3 learns from fewer than 2,000 rows and calibrates on predictions out of fold, whose folds share "
        "no cluster either. LightGBM calibrates on half of its validation rows."
    )


def judge_split(data: Path, table: AffinityTable, split: Split, runs: Path) -> dict[str, Judged]:
    """Return the test rows of a split with the intervals of each way."""
    folders = {name: trained(data, name, split, runs / split.name.replace(" ", "-")) for name in ("v3", "lightgbm")}
    parts = pl.read_parquet(open_run(folders["lightgbm"]).split)
    test = parts["part"].to_numpy() == TEST
    of_v3 = pl.read_parquet(open_run(folders["v3"]).split)["part"].to_numpy()
    if not (of_v3 == TEST).tolist() == test.tolist():
        raise SystemExit(f"{split.name}: the two runs are not of the same split; remove {runs} and train again.")
    own = (parts["part"].to_numpy() == CALIBRATION) & (table.relation == MEASURED)
    tested, calibrating = table.take(test), table.take(own)
    found = {}
    for name, recipe in ((V3, "v3"), (WRITTEN, "lightgbm")):
        frame = tailbind.load(folders[recipe]).predict(tested, LEVEL)
        found[name] = judged_rows(tested, frame["pkd_low"], frame["pkd_high"], {tail: frame[tail] for tail in TAILS})
    predictor = tailbind.load(folders["lightgbm"])
    error = np.abs(predictor.predict(calibrating)["predicted_pkd"].to_numpy() - calibrating.pkd)
    rank = int(np.ceil(LEVEL * (len(error) + 1))) - 1
    width, predicted = np.sort(error)[min(rank, len(error) - 1)], predictor.predict(tested)["predicted_pkd"]
    found[PLAIN] = judged_rows(tested, predicted - width, predicted + width, {})
    return found


def trained(data: Path, recipe: str, split: Split, folder: Path) -> Path:
    """Return the folder of a finished run, trained now unless it is there."""
    path = folder / recipe
    print(f"{split.name}: {recipe} in {path}", flush=True)
    tailbind.train(data, recipe=recipe, out=path, overrides=(*split.overrides, *OWN), resume=True)
    return path


def judged_rows(table: AffinityTable, low: pl.Series, high: pl.Series, tails: dict[str, pl.Series]) -> Judged:
    """Return test rows with their intervals; an open end is infinite."""
    return Judged(
        table.pkd,
        table.relation,
        table.source,
        low.fill_null(-np.inf).to_numpy(),
        high.fill_null(np.inf).to_numpy(),
        {name: values.to_numpy() for name, values in tails.items()},
    )


def joined(parts: Sequence[Judged]) -> Judged:
    """Return the rows of several splits as one."""
    of = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("pkd", "relation", "source")}
    tails = {name: np.concatenate([part.tails[name] for part in parts]) for name in parts[0].tails}
    low, high = (np.concatenate([getattr(part, name) for part in parts]) for name in ("low", "high"))
    return Judged(**of, low=low, high=high, tails=tails)


def splits_table(splits: Sequence[Split], found: dict[str, list[dict[str, Any]]]) -> Table:
    """Return what each way holds of all measured rows, and how wide it is, split by split."""
    rows = []
    for place, split in enumerate(splits):
        n = found[V3][place]["measured"]["n"]
        entries = [of_splits[place]["measured"] for of_splits in found.values()]
        rows.append((split.name, f"{n:,}", *(cell for entry in entries for cell in (share(entry), width(entry)))))
    header = ("Split", "n", *(f"{name}: {word}" for name in found for word in ("held", "mean width, pKd")))
    note = (
        f"Measured test rows; {100 * LEVEL:.0f} % are to be held. `{WRITTEN}`: LightGBM's predictions with the "
        "intervals that tailbind gives every model."
    )
    return Table("All measured rows, split by split", header, tuple(rows), note)


def kinds_table(title: str, division: str, together: dict[str, Judged], words: dict[str, str]) -> Table:
    """Return what each way holds of kinds of rows; those with few rows say how many and are not judged."""
    found = {name: judged.found()[division] for name, judged in together.items()}
    rows = []
    for kind, entry in found[V3].items():
        if entry is None:
            continue
        cells = [cell for of in found.values() for cell in (share(of[kind]), width(of[kind]))]
        judged = NOTHING if entry["n"] < FEWEST else "yes" if entry["coverage"] >= HELD_AT_LEAST else "**no**"
        rows.append((words.get(kind, kind), f"{entry['n']:,}", *cells, judged))
    header = ("Rows", "n", *(f"{name}: {word}" for name in together for word in ("held", "width")))
    limit = f"{100 * HELD_AT_LEAST:.0f} %"
    note = f"The last column is of {V3}: {limit} are to be held wherever there are {FEWEST} measured rows."
    return Table(title, (*header, f"At least {limit}"), tuple(rows), note)


def tails_table(together: dict[str, Judged]) -> Table:
    """Return how far the probabilities of the tails come true."""
    rows = []
    for tail in TAILS:
        entries = [
            reliability(judged.tails[tail], came_true(tail, judged.pkd, judged.relation))
            for judged in together.values()
            if judged.tails
        ]
        rows.append((tail, f"{entries[0]['n']:,}", *(number(entry["ece"], 4) for entry in entries)))
    names = [name for name, judged in together.items() if judged.tails]
    note = "How far the probability given lies from the share that came true, on average over the rows, by tenths."
    return Table("Calibration error of tail probabilities", ("Probability", "n", *names), tuple(rows), note)


def share(entry: dict[str, Any]) -> str:
    """Return the share that is held, as a cell."""
    return f"{100 * entry['coverage']:.1f} %"


def width(entry: dict[str, Any]) -> str:
    """Return the mean width as a cell."""
    return NOTHING if entry["width"] is None else number(entry["width"], 2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the tables")
    parser.add_argument("--part", choices=("pool", "cold", "all"), default="all")
    parser.add_argument("--seeds", type=lambda text: [int(word) for word in text.split(",")], default=[42, 43, 44])
    parser.add_argument("--runs", type=Path, default=Path("runs/intervals"), help="where runs are kept")
    parser.add_argument("--page", type=Path, default=PAGE)
    return parser


if __name__ == "__main__":
    sys.exit(main())
