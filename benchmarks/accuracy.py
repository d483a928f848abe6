"""How right any recipes are: on a pool of measurements, on antigens never seen, and with few labels.

    python benchmarks/accuracy.py --data FOLDER [--part pool|cold|few|all] [--recipes a,b,c] [--seed-table FILE]

`--data` is the folder with `affinity_pool.parquet` and `multi_antigen.parquet`. Recipes are names or TOML files. Three
parts:

pool   70/15/15 of the pairs, identical pairs on one side, three splits; figures on measured rows, by bin of the
       measured and of the predicted pKd, one-sided errors on marked rows, and how well binders are found.
       `--random-split` adds the training notebook's own split of all rows
cold   five folds that share no cluster of antigens; validation is the next fold, so all is tuned inside the others
few    each large landscape by itself: 96, 384 and 1,536 random measured rows to learn from, a fifth of them for
       validation, and at most 10,000 of the others to predict

Recipes that read feature columns need `--seed-table`: a file with columns for the rows of the pool, in their order.
Predictions are kept under `--out`; what is there is not trained again. Each part writes a page and a picture.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # its other files are found however this one is run

from benchmarks.accuracy_parts import Part, Settings, cold, few, pool, random_split
from benchmarks.accuracy_runs import Bench, Data, resolved_names

import tailbind
from tailbind.errors import TailbindError
from tailbind.recipes.schema import recipe_names
from tailbind.reporting.drawing import duration, png
from tailbind.runtime import choose_device, describe_device, write_text, writing

DOCS: Final = Path(__file__).parents[1] / "docs"
#: Recipes that the others are held against.
BASELINES: Final = (
    "training-mean", "source-mean", "nearest-neighbour", "ridge", "ridge-columns", "lightgbm", "lightgbm-columns",
    "gaussian-process", "gaussian-process-columns", "nearest-neighbour-columns", "v1", "v2",
)  # fmt: skip
#: What is run where nobody says.
RECIPES: Final = (
    "training-mean", "source-mean", "nearest-neighbour", "ridge", "lightgbm", "gaussian-process", "v1", "v2", "v3",
)  # fmt: skip
#: Letters in a line of a page.
WIDTH: Final = 120
PARTS: Final = ("pool", "cold", "few")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for and write their pages; return the exit code."""
    options = _parser().parse_args(argv)
    try:
        recipes = tuple(options.recipes or [name for name in RECIPES if name in recipe_names()])
        resolved_names(recipes)
        device = choose_device(options.device)
        settings = Settings(
            recipes,
            tuple(options.baselines),
            tuple(options.seeds),
            tuple(options.sizes),
            options.repeats,
            options.fewest,
            options.resamples,
            tuple(options.once),
        )
        for part in PARTS if options.part == "all" else (options.part,):
            started = time.perf_counter()
            bench = Bench(options.out, device, options.fresh, tell, {})
            found = run_part(part, options, bench, settings)
            where = "the CPU" if device.type == "cpu" else describe_device(device)
            machine = f"{os.cpu_count()} cores, {platform.machine()}, on {where}"
            write_part(part, found, bench, machine, options)
            tell(f"{part}: {duration(time.perf_counter() - started)}, of which training now or before "
                 f"{duration(bench.seconds)}")  # fmt: skip
    except TailbindError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def run_part(part: str, options: argparse.Namespace, bench: Bench, settings: Settings) -> Part:
    """Read the part's table, and train and score on it."""
    if part == "cold":
        return cold(Data.read(options.data / "multi_antigen.parquet"), bench, settings)
    data = Data.read(options.data / "affinity_pool.parquet", options.seed_table)
    if part == "few":
        return few(data, bench, settings)
    found = pool(data, bench, settings)
    if options.random_split:
        found = replace(found, tables=(*found.tables, *random_split(data, bench, settings)))
    return found


def write_part(part: str, found: Part, bench: Bench, machine: str, options: argparse.Namespace) -> None:
    """Write a part's page and picture."""
    pages, pictures = options.pages, options.pictures
    pages.mkdir(parents=True, exist_ok=True)
    pictures.mkdir(parents=True, exist_ok=True)
    page, picture = pages / f"accuracy-{part}.md", pictures / f"accuracy-{part}.png"
    with writing(picture) as handle:
        handle.write(png(found.picture))
    lines = [
        f"# {found.title}",
        "",
        fill(found.introduction, WIDTH, break_on_hyphens=False),
        "",
        f"![{found.title}]({Path(os.path.relpath(picture, pages)).as_posix()})",
        "",
        fill(
            f"tailbind {tailbind.__version__}; {machine}; {time.strftime('%Y-%m-%d')}. Training and predicting took "
            f"{duration(bench.seconds)} in all. What the figures are: [evaluation](../evaluation.md). Made by",
            WIDTH,
        ),
        "",
        "```console",
        _command(part, options),
        "```",
        "",
        *(f"{name} is left out: {why}\n" for name, why in bench.left_out.items()),
        *(table.markdown() for table in found.tables),
    ]
    write_text(page, "\n".join(lines).rstrip() + "\n")
    tell(f"{part}: wrote {page} and {picture}")


def _command(part: str, options: argparse.Namespace) -> str:
    """Return how a part is run so that it gives the same again."""
    words = ["python benchmarks/accuracy.py --data FOLDER --part", part]
    if options.seed_table is not None and part != "cold":
        words.append("--seed-table FILE")
    if options.recipes:
        words += ["--recipes", ",".join(Path(name).stem for name in options.recipes)]
    of_part = {"pool": ("seeds", "once"), "cold": (), "few": ("sizes", "repeats", "fewest")}[part]
    for name in of_part:
        value = getattr(options, name)
        if value != _parser().get_default(name):
            words += [f"--{name}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return " ".join([*words, *(["--random-split"] if options.random_split and part == "pool" else [])])


def tell(text: str) -> None:
    """Print a line of progress at once."""
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the tables")
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all")
    parser.add_argument("--recipes", type=_words, help="names or TOML files, with commas; else the baselines and v3")
    parser.add_argument("--baselines", type=_words, default=BASELINES, help="recipes that the others are held against")
    parser.add_argument("--seed-table", type=Path, help="feature columns of the pool's rows")
    parser.add_argument("--seeds", type=_numbers, default=(42, 43, 44), help="of the pool's splits")
    parser.add_argument("--once", type=_words, default=(), help="recipes to train on the pool's first split alone")
    parser.add_argument("--random-split", action="store_true", help="the training notebook's split of the pool too")
    parser.add_argument("--sizes", type=_numbers, default=(96, 384, 1536), help="training rows where labels are few")
    parser.add_argument("--repeats", type=int, default=5, help="training sets of each size")
    parser.add_argument("--fewest", type=int, default=2500, help="measured rows that make a source a landscape")
    parser.add_argument("--resamples", type=int, default=1000, help="of every bootstrap")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"), help="where predictions are kept")
    parser.add_argument("--pages", type=Path, default=DOCS / "results")
    parser.add_argument("--pictures", type=Path, default=DOCS / "pictures")
    parser.add_argument("--fresh", action="store_true", help="train again what is there")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    return parser


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> list[int]:
    return [int(word) for word in _words(text)]


if __name__ == "__main__":
    sys.exit(main())
