"""What each ingredient of v3 gives, and each of the training notebook's eight improvements, on the pool.

    python benchmarks/ablation.py --data FOLDER [--seed-table FILE] [--seed 42]

Networks: the recipes in `benchmarks/ablation/`, each of which changes one thing of `plain`, the network of v3 at a
quarter of its size. The blend: v3 is trained once, and what its parts say is put together anew without each
ingredient. All on one split by pairs, on test rows; with `--seed-table`, a file with feature columns for the rows of
the pool, in their order, also on columns. What was trained is kept under `--out`. Writes a page.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # its other files are found however this one is run

import numpy as np
from benchmarks.accuracy_figures import BINS, ONE_SIDED, Labels, Scores, pool_scores
from benchmarks.accuracy_pages import cell
from benchmarks.accuracy_parts import labels_of, pool_task
from benchmarks.accuracy_runs import Bench, Data, Outcome, Task, fingerprint
from numpy.typing import NDArray

import tailbind
from tailbind.errors import TableError, TailbindError
from tailbind.models.blend import Blended, Gate, Opinions, predict_parts
from tailbind.recipes import load_recipe
from tailbind.reporting.drawing import duration
from tailbind.reporting.tables import Table, number
from tailbind.runtime import choose_device, describe_device, write_text, writing
from tailbind.scale import BIN_NAMES, bin_index, bin_label
from tailbind.table.grouping import find_families
from tailbind.table.splitting import TEST, TRAIN, VALIDATION
from tailbind.training.losses import sides
from tailbind.workflows.learning import learn
from tailbind.workflows.plan import Plan, resolve

Array = NDArray[np.float64]

FOLDER: Final = Path(__file__).with_name("ablation")
PAGE: Final = Path(__file__).parents[1] / "docs" / "results" / "ablation.md"
WIDTH: Final = 120
#: The network that the others differ from by one thing, and the same from other training seeds.
PLAIN: Final = "plain"
AGAIN: Final = ("plain-43", "plain-44")
#: Each of the notebook's improvements: what it is, the recipe without it and the recipe with it.
IMPROVEMENTS: Final = (
    ("GELU for ReLU", "relu", "gelu"),
    ("deeper: 512-256-128-64 for 256-128", "shallow", "deeper"),
    ("×10 on the extreme bins' inverse weights", "weights-inverse", "weights-tenfold"),
    ("a lower learning rate: 1e-4 for 4e-3", PLAIN, "low-rate"),
    ("focal factor on squared error", "floors-as-values", "focal"),
    ("gradient clipping", "no-clipping", PLAIN),
    ("AdamW with warm restarts for Adam", "adam", "warm-restarts"),
    ("Xavier's start", PLAIN, "xavier"),
)
SHOWN: Final = ("rmse", "spearman", *BINS, ONE_SIDED)
HEADER: Final = ("RMSE", "Spearman", *map(bin_label, BIN_NAMES), "One-sided, marked rows")


@dataclass(frozen=True)
class Heard:
    """What the parts of a blend say of the validation and the test rows of a task.

    Attributes
    ----------
    names : of the parts
    validation, test : what they say there
    """

    names: tuple[str, ...]
    validation: Opinions
    test: Opinions

    def without(self, name: str) -> "Heard":
        """Return the same without one of the parts."""
        keep = [number for number, own in enumerate(self.names) if own != name]
        pieces = (
            replace(said, **{of: getattr(said, of)[:, keep] for of in ("predictions", "variances", "speaks")})
            for said in (self.validation, self.test)
        )
        return Heard(tuple(own for own in self.names if own != name), *pieces)


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is not there yet and write the page; return the exit code."""
    options = _parser().parse_args(argv)
    try:
        started = time.perf_counter()
        data = Data.read(options.data / "affinity_pool.parquet", options.seed_table)
        device = choose_device(options.device)
        bench = Bench(options.out, device, options.fresh, tell, {})
        task = pool_task(data, options.seed)
        plan = resolve(load_recipe("v3", task.overrides))
        if plan.refits(n_train := len(task.rows[TRAIN])):
            raise TableError(
                f"The pool must have more training rows than {plan.model.folds_up_to:,}, or else v3 is another "
                f"blend and has learned from the rows that choose its weights; it has {n_train:,}. Take a larger table."
            )
        files = sorted(FOLDER.glob("*.toml"), key=lambda file: (file.stem != PLAIN, file.stem))
        networks = bench.outcomes(task, [str(file) for file in files], data)
        blends = blended(plan, task, data, bench)
        labels = labels_of(data.table, task.rows[TEST], find_families(data.table.frame).index)
        tell("bootstrap …")
        of_networks = pool_scores(labels, predictions(networks), options.resamples)
        of_blends = pool_scores(labels, blends, options.resamples)
        where = "the CPU" if device.type == "cpu" else describe_device(device)
        machine = f"{os.cpu_count()} cores, {platform.machine()}, on {where}"
        text = page(of_networks, of_blends, labels, bench, machine, options)
        options.page.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.page, text)
        tell(f"wrote {options.page}; {duration(time.perf_counter() - started)}")
    except TailbindError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def predictions(outcomes: Mapping[str, Outcome]) -> dict[str, Array]:
    """Return recipe → what it predicts of the test rows."""
    return {name: outcome.predicted for name, outcome in outcomes.items()}


def blended(plan: Plan, task: Task, data: Data, bench: Bench) -> dict[str, Array]:
    """Return what v3 predicts of the test rows, and what it would without each of its ingredients."""
    heard = _heard(plan, task, data, bench)
    own = plan.model
    rows = task.rows[VALIDATION]
    pkd, side = data.table.pkd[rows], sides(data.table.relation[rows])

    def put_together(of: Heard, tail_share: float = own.tail_share, stiffness: float = own.stiffness) -> Array:
        gate = Gate.fit(of.validation, pkd, side, tail_share=tail_share, stiffness=stiffness)
        found: Array = gate.predict(of.test)
        return found

    return {
        "v3": put_together(heard),
        "weights the same for every row": put_together(heard, stiffness=1e9),
        "weights by RMSE alone": put_together(heard, tail_share=0.0),
        "weights by the bins alone": put_together(heard, tail_share=1.0),
        **{f"without {name}": put_together(heard.without(name)) for name in heard.names if name != "network"},
        "the network alone": heard.test.predictions[:, heard.names.index("network")],
    }


def _heard(plan: Plan, task: Task, data: Data, bench: Bench) -> Heard:
    """Return what the parts of v3 say, from a file where it was trained before."""
    path = bench.folder / "ablation" / f"v3-{task.key}-{fingerprint(task, plan, data)}.npz"
    fields = ("predictions", "variances", "speaks", "sizes")
    if path.is_file() and not bench.fresh:
        with np.load(path) as kept:
            pieces = [Opinions(*(kept[f"{part}.{name}"] for name in fields)) for part in (VALIDATION, TEST)]
            return Heard(tuple(kept["names"].tolist()), *pieces)
    bench.tell("v3: training …")
    learned = learn(plan, data.of(plan), task.rows, device=bench.device, notify=bench.tell)
    model = learned.model
    assert isinstance(model, Blended)
    said = {
        part: predict_parts(model.parts, model.families, learned.features, task.rows[part])
        for part in (VALIDATION, TEST)
    }
    arrays = {f"{part}.{name}": getattr(of, name) for part, of in said.items() for name in fields}
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as handle:
        np.savez_compressed(handle, names=np.array(list(model.parts)), **arrays)
    return Heard(tuple(model.parts), said[VALIDATION], said[TEST])


def page(
    networks: Scores, blends: Scores, labels: Labels, bench: Bench, machine: str, options: argparse.Namespace
) -> str:
    """Return the page."""
    measured = labels.measured
    counts = np.bincount(bin_index(labels.pkd[measured]), minlength=len(BIN_NAMES))
    n_of_bins = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in zip(BIN_NAMES, counts, strict=True))
    introduction = (
        f"One split of the pool by pairs (seed {options.seed}): {int(measured.sum()):,} measured test rows "
        f"({n_of_bins}) and {int((~measured).sum()):,} marked < or >. Differences are paired, with 95 % intervals from "
        f"whole families of near-identical antibodies; negative errors are better. v3 and its network were chosen with "
        "this split in sight, so what they gain over the rest is a little flattered here; what they reach on others is "
        "on the [page of the pool](accuracy-pool.md)."
    )
    again = [networks[name]["rmse"].value for name in (PLAIN, *AGAIN) if name in networks]
    chance = (
        f"The plain network from {len(again)} training seeds: RMSE {', '.join(number(value) for value in again)}. A "
        "difference within that range may be chance, whatever its interval, which knows of test rows alone."
    )
    command = f"python benchmarks/ablation.py --data FOLDER{' --seed-table FILE' if options.seed_table else ''}"
    others = [name for name in networks if name not in AGAIN and name not in {PLAIN, *_of_improvements()}]
    tables = (
        _improvements(networks, chance),
        _against(f"{PLAIN}, and one thing changed", networks, PLAIN, [*AGAIN, *others], chance),
        _against("v3, and one ingredient left out", blends, "v3", [name for name in blends if name != "v3"], _BLENDS),
    )
    lines = [
        "# What each ingredient gives",
        "",
        fill(introduction, WIDTH, break_on_hyphens=False),
        "",
        fill(
            f"tailbind {tailbind.__version__}; {machine}; {time.strftime('%Y-%m-%d')}. Training took "
            f"{duration(bench.seconds)} for the networks. Made by",
            WIDTH,
        ),
        "",
        "```console",
        command,
        "```",
        "",
        *(f"{name} is left out: {why}\n" for name, why in bench.left_out.items()),
        *(table.markdown() for table in tables),
        "### The recipes",
        "",
        *(f"- `{name}`: {_described(name)}" for name in networks),
    ]
    return "\n".join(lines).rstrip() + "\n"


_BLENDS: Final = (
    "v3 was trained once; its parts' predictions were put together anew, with weights chosen on the validation rows."
)


def _of_improvements() -> set[str]:
    return {name for _, without, with_it in IMPROVEMENTS for name in (without, with_it)}


def _improvements(found: Scores, note: str) -> Table:
    """Return how much each of the notebook's improvements changes."""
    rows = tuple(
        (
            what,
            f"{without} → {with_it}",
            f"{number(found[without]['rmse'].value)} → {number(found[with_it]['rmse'].value)}",
            cell(found[with_it]["rmse"].minus(found[without]["rmse"])),
            *(number(found[with_it][metric].minus(found[without][metric]).value) for metric in SHOWN[1:]),
        )
        for what, without, with_it in IMPROVEMENTS
        if without in found and with_it in found
    )
    header = ("Improvement", "Recipes", "RMSE", "Change of RMSE", *(f"of {name}" for name in HEADER[1:]))
    return Table("The training notebook's eight improvements, one at a time", header, rows, note)


def _against(title: str, found: Scores, base: str, names: Sequence[str], note: str) -> Table:
    """Return the figures of some recipes, and how their RMSE differs from that of one."""
    rows = tuple(
        (
            name,
            *(number(found[name][metric].value) for metric in SHOWN),
            "" if name == base else cell(found[name]["rmse"].minus(found[base]["rmse"])),
        )
        for name in (base, *names)
    )
    return Table(title, ("Recipe", *HEADER, f"RMSE minus {base}'s"), rows, note)


def _described(name: str) -> str:
    text = load_recipe(str(FOLDER / f"{name}.toml")).description.removeprefix("Ablation: ")
    return text if text.startswith("v1") else text[0].upper() + text[1:]


def tell(text: str) -> None:
    """Print a line of progress at once."""
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with affinity_pool.parquet")
    parser.add_argument("--seed-table", type=Path, help="feature columns of the pool's rows")
    parser.add_argument("--seed", type=int, default=42, help="of the split")
    parser.add_argument("--resamples", type=int, default=500, help="of every bootstrap")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"), help="where predictions are kept")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--fresh", action="store_true", help="train again what is there")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
