"""What takes how long, as ratios measured in one run on one machine.

    python benchmarks/speed.py --tools FOLDER [--part loop,ensemble,…] [--repeats 3] [--out docs/results/speed.md]

`--tools` is the folder with `reference_loop.py`, the training notebook's loop written plainly, and with
`make_seed_table.py`, which writes a table of the notebook's form from real labels. Parts:

loop        an epoch of v2 at the notebook's size, 231,532 rows of 150 features, against the reference; the floor of it
ensemble    eight members at once against eight trainings one after the other
reading     the notebook's 390,757-row CSV, against pandas, and a second time
predict     a million rows to a Parquet file
evaluation  figures with intervals, plots and report of 50,000 test rows; start-up; an audit of 20,000 rows
growth      an epoch at 1, 2, 4 and 8 times the rows, and at 150 to 1,280 columns; and from disk, in little memory

Every figure is of processes of their own, sides taking turns, after one round that does not count; the median is told.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tailbind

ROWS, WIDTH, BATCH, MEMBERS = 231_532, 150, 128, 8
CSV_ROWS = 390_757
MILLION = 1_000_000
PARTS = ("loop", "ensemble", "reading", "predict", "evaluation", "growth")
Row = tuple[str, str, str, str]


def main(argv: list[str] | None = None) -> int:
    """Run the parts asked for and print, or write, their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path)
    parser.add_argument("--part", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--work", type=Path, help="folder for tables and runs; kept, so that a second call is quicker")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)  # one, in its own process
    arguments = parser.parse_args(argv)
    if arguments.side:
        from speed_sides import SIDES  # beside this file

        name, *words = arguments.side
        print(json.dumps(SIDES[name](*words)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(arguments.tools, arguments.work or Path(temporary), arguments.repeats, arguments.rows)
        bench.work.mkdir(parents=True, exist_ok=True)
        lines = page(bench, arguments.part.split(","))
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    return 0


class Bench:
    """Where things are, and how often they are measured."""

    def __init__(self, tools: Path | None, work: Path, repeats: int, rows: int) -> None:
        self.tools, self.work, self.repeats, self.rows = tools, work, repeats, rows

    def alternately(self, sides: Mapping[str, Callable[[], dict[str, Any]]]) -> dict[str, dict[str, Any]]:
        """Return of each side the medians of its figures, after a round that does not count."""
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for number in range(self.repeats + 1):
            for name, measure in sides.items():
                figures = measure()
                if number:
                    found[name].append(figures)
        return {name: _medians(figures) for name, figures in found.items()}

    def side(self, *words: object, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return what a measurement in a process of its own told."""
        command = [sys.executable, __file__, "--side", *map(str, words)]
        return run(command, environment)

    def reference(self, rows: int) -> dict[str, Any]:
        """Return what the notebook's loop told: {"seconds"} of an epoch."""
        assert self.tools is not None
        told = run([sys.executable, str(self.tools / "reference_loop.py"), "--rows", str(rows)])
        return {"seconds": told["seconds_per_epoch"]}


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the JSON that a command printed last."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def page(bench: Bench, parts: Sequence[str]) -> list[str]:
    """Return the page's lines."""
    import torch

    lines = [
        "# Speed",
        "",
        "`python benchmarks/speed.py --tools FOLDER`, see there for what each side is. "
        f"tailbind {tailbind.__version__}, torch {torch.__version__}, Python {platform.python_version()}; "
        f"{os.cpu_count()} cores ({_processor()}), on the CPU; {time.strftime('%Y-%m-%d')}. Medians of {bench.repeats} "
        "processes a side, sides taking turns.",
        "",
    ]
    if not torch.cuda.is_available():
        lines += ["GPU lines are left out: no GPU was at hand.", ""]
    measures = {
        "loop": loop,
        "ensemble": ensemble,
        "reading": reading,
        "predict": predict,
        "evaluation": evaluation,
        "growth": growth,
    }
    for part in parts:
        started = time.perf_counter()
        found = [*measures[part](bench), ""]
        print("\n".join(found), file=sys.stderr)  # what was measured is not lost if a later part fails
        lines += found
        print(f"{part}: {time.perf_counter() - started:,.0f} s", file=sys.stderr)
    return lines


def loop(bench: Bench) -> list[str]:
    """Return the table of the training loop."""
    if bench.tools is None:
        return ["## Training loop", "", "Left out: the reference is not at hand (`--tools`)."]
    found = bench.alternately(
        {
            "the notebook's loop": lambda: bench.reference(bench.rows),
            "tailbind": lambda: bench.side("loop", bench.rows, WIDTH),
            "floor": lambda: bench.side("floor", bench.rows, WIDTH),
        }
    )
    reference, ours, floor = (found[name]["seconds"] for name in ("the notebook's loop", "tailbind", "floor"))
    return [
        "## Training loop",
        "",
        f"One epoch of v2: {bench.rows:,} rows × {WIDTH}, batch {BATCH}, {-(-bench.rows // BATCH):,} steps of the "
        "optimizer, dropout, clipping and all.",
        "",
        "| | seconds | rows per second | × |",
        "|---|---|---|---|",
        f"| the training notebook's loop | {reference:.2f} | {bench.rows / reference:,.0f} | 1 |",
        f"| **tailbind** | {ours:.2f} | {bench.rows / ours:,.0f} | **{reference / ours:.2f}** |",
        f"| floor: its matrix products alone | {floor:.2f} | {bench.rows / floor:,.0f} | {reference / floor:.2f} |",
        "",
        f"The products run at {found['floor']['gflops']:.0f} GFLOP/s here; an epoch takes {ours / floor:.2f} times its "
        "floor.",
    ]


def ensemble(bench: Bench) -> list[str]:
    """Return the table of ensembles."""
    rows = bench.rows // 4
    found = bench.alternately(
        {
            "apart": lambda: bench.side("apart", rows, WIDTH, MEMBERS),
            "at once": lambda: bench.side("loop", rows, WIDTH, MEMBERS),
        }
    )
    apart, at_once = found["apart"]["seconds"], found["at once"]["seconds"]
    return [
        "## Ensembles",
        "",
        f"An epoch of {MEMBERS} members of v2, {rows:,} rows × {WIDTH}.",
        "",
        "| | seconds | share |",
        "|---|---|---|",
        f"| {MEMBERS} trainings, one after the other | {apart:.2f} | 1 |",
        f"| **one training of {MEMBERS} members** | {at_once:.2f} | **{at_once / apart:.2f}** |",
    ]


def reading(bench: Bench) -> list[str]:
    """Return the table of reading."""
    if bench.tools is None:
        return ["## Reading", "", "Left out: the table is not at hand (`--tools`)."]
    file = seed_table(bench, CSV_ROWS)
    cache = {"TAILBIND_CACHE": str(bench.work / "cache")}
    sides = {
        "tailbind": lambda: bench.side("read", file, "anew"),
        "again": lambda: bench.side("read", file, "cached", environment=cache),
    }
    try:
        import pandas  # noqa: F401

        sides = {"pandas": lambda: bench.side("pandas", file), **sides}
    except ImportError:
        pass
    found = bench.alternately(sides)
    names = {
        "pandas": "`pandas.read_csv(low_memory=False)`, then the matrix",
        "tailbind": "**`tailbind.read_table`**, audit-ready table and matrix",
        "again": "the same again, from the cache",
    }
    rows = [
        f"| {names[side]} | {of['seconds']:.2f} | {of['peak_gb']:.2f} GB |" for side, of in found.items()
    ]  # fmt: skip
    left_out = [] if "pandas" in found else ["", "pandas is left out: it is not installed."]
    return [
        "## Reading",
        "",
        f"{CSV_ROWS:,} rows, {file.stat().st_size / 1e9:.2f} GB of CSV.",
        "",
        "| | seconds | peak memory of the process |",
        "|---|---|---|",
        *rows,
        *left_out,
    ]


def predict(bench: Bench) -> list[str]:
    """Return the table of predicting."""
    model, table = bench.work / "v2", bench.work / "million.parquet"
    if not (model / "DONE").exists() or not table.exists():
        bench.side("prepare", model, table, MILLION)

    def measure() -> dict[str, Any]:
        out = bench.work / "predicted.parquet"
        out.unlink(missing_ok=True)
        return bench.side("command", "predict", model, table, "--out", out)

    found = bench.alternately({"predict": measure})["predict"]
    return [
        "## Predicting",
        "",
        "| | seconds | peak memory of the process |",
        "|---|---|---|",
        f"| `tailbind predict`, {MILLION:,} rows × {WIDTH} of Parquet to Parquet, with intervals and domains "
        f"| {found['seconds']:.1f} | "
        f"{found['peak_gb']:.2f} GB |",
    ]


def evaluation(bench: Bench) -> list[str]:
    """Return the table of evaluation, start-up and audit."""
    model, table = bench.work / "v2", bench.work / "million.parquet"
    if not (model / "DONE").exists() or not table.exists():
        bench.side("prepare", model, table, MILLION)
    sides: dict[str, Callable[[], dict[str, Any]]] = {}
    labelled, plain = bench.work / "labelled-50000.parquet", bench.work / "plain-20000.csv"
    bench.side("labelled", table, labelled, 50_000)
    bench.side("plain", plain, 20_000)

    def evaluate() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=bench.work) as folder:
            return bench.side("command", "evaluate", model, labelled, "--out", f"{folder}/evaluated")

    sides["`tailbind evaluate`: 50,000 rows, figures with intervals, plots and page"] = evaluate
    sides["`tailbind --help`"] = lambda: bench.side("command", "--help")
    sides["`tailbind check` of 20,000 rows with sequences"] = lambda: bench.side("command", "check", plain)
    found = bench.alternately(sides)
    return [
        "## Evaluation, start-up, audit",
        "",
        "Each from the start of the process to its end.",
        "",
        "| | seconds | peak memory of the process |",
        "|---|---|---|",
        *(f"| {name} | {of['seconds']:.2f} | {of['peak_gb']:.2f} GB |" for name, of in found.items()),
    ]


def growth(bench: Bench) -> list[str]:
    """Return the tables of how cost grows."""
    base = bench.rows // 8
    sizes = [(base * times, WIDTH) for times in (1, 2, 4, 8)] + [(base, width) for width in (320, 640, 1280)]
    sides = {size: (lambda size=size: bench.side("loop", *size)) for size in sizes}
    found = bench.alternately({str(size): measure for size, measure in sides.items()})
    rows = []
    for n, width in sizes:
        of = found[str((n, width))]
        a_row = 1e6 * of["seconds"] / n
        rows.append(f"| {n:,} × {width:,} | {of['seconds']:.2f} | {a_row:.1f} | {of['peak_gb']:.2f} GB |")
    disk = bench.alternately(
        {
            "memory": lambda: bench.side("loop", base * 4, 640),
            "disk": lambda: bench.side("disk", base * 4, 640, bench.work / "blocks"),
        }
    )
    memory, there = disk["memory"], disk["disk"]
    return [
        "## How cost grows",
        "",
        "One epoch of v2.",
        "",
        "| rows × columns | seconds | µs per row | peak memory of the process |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Features that stay on disk, {base * 4:,} rows × 640 ({base * 4 * 640 * 4 / 1e9:.2f} GB), in a process whose "
        f"address space has room for {there['room_gb']:.2f} GB beside what it begins with:",
        "",
        "| | seconds | × |",
        "|---|---|---|",
        f"| features in memory | {memory['seconds']:.2f} | 1 |",
        f"| **mapped a block at a time** | {there['seconds']:.2f} | **{there['seconds'] / memory['seconds']:.2f}** |",
    ]


def seed_table(bench: Bench, rows: int) -> Path:
    """Return the notebook's table, written once."""
    file = bench.work / f"merged-{rows}.csv"
    if not file.exists():
        assert bench.tools is not None
        subprocess.run(
            [sys.executable, str(bench.tools / "make_seed_table.py"), "--rows", str(rows), str(file)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return file


def _medians(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.median(of[name] for of in figures) for name in figures[0]}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    raise SystemExit(main())
