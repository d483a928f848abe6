"""`tailbind demo`: simulate a table with known truth, train the training notebook's two recipes on it, compare them."""

from pathlib import Path
from typing import Final

from rich.console import Console

from tailbind.evaluation.comparison import Comparison
from tailbind.reporting.tables import comparison_table
from tailbind.table.simulation import Landscape, write_simulated
from tailbind.workflows.comparing import compare
from tailbind.workflows.progress import default_console
from tailbind.workflows.training import train
from tailbind.workflows.using import check_empty

RECIPES: Final = ("v1", "v2")
#: Enough for 5,000 steps of v2 at batches of 128: it starts at pKd 0 and needs them.
EPOCHS: Final = 55


def demo(out: str | Path = "demo", *, device: str = "auto", console: Console | None = None) -> Comparison:
    """Simulate a table, train v1 and v2 on it, and compare them, offline and in minutes.

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
    write_simulated(table, Landscape())
    runs = [folder / recipe for recipe in RECIPES]
    for recipe, run in zip(RECIPES, runs, strict=True):
        console.rule(f"Training {recipe}")
        train(
            table,
            recipe=recipe,
            out=run,
            overrides=[f"training.epochs={EPOCHS}", "split.kind=stratified"],
            device=device,
            console=console,
        )
    comparison = compare(runs, out=folder / "comparison")
    console.rule("v1 and v2")
    console.print(comparison_table(comparison).text(), highlight=False, markup=False, soft_wrap=True)
    console.print(f"\nReport: {folder / 'comparison' / 'comparison.html'}", soft_wrap=True, highlight=False)
    return comparison
