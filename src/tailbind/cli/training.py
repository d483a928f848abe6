"""The verbs that train: `demo`, `train`, and `ladder`, which trains once for each of five splits."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tailbind.cli.options import Changes, Data, Device, DeviceOption, Json, NoCache, RecipeOption, TrainingSeed
from tailbind.cli.printing import say
from tailbind.runtime import to_json


def demo(
    out: Annotated[Path, typer.Option(help="New folder for the table, the runs and the comparison.")] = Path("demo"),
    device: DeviceOption = Device.AUTO,
) -> None:
    """Simulate a table, train v1 and v2 on it and compare them: offline, in minutes."""
    from tailbind.workflows import demo as run_demo

    run_demo(out, device=device.value)


def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    recipe: RecipeOption = None,
    set_: Changes = None,
    seed: TrainingSeed = None,
    device: DeviceOption = Device.AUTO,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an unfinished run exactly where it was.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run in --out.")] = False,
    no_cache: NoCache = False,
) -> None:
    """Train a recipe on a measured table, evaluate it, and leave a run folder.

    Epochs, batch size and all else of a recipe change with --set, as in --set training.epochs=50.
    """
    from tailbind.workflows import train as run_train

    run_train(
        data,
        recipe=recipe,
        out=out,
        overrides=set_ or (),
        seed=seed,
        device=device.value,
        resume=resume,
        force=force,
        cache=not no_cache,
    )


def ladder(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for a run per split and ladder.html; continues where it was.")],
    recipe: RecipeOption = None,
    set_: Changes = None,
    antibody_identity: Annotated[
        float, typer.Option(help="Identity from which two antibodies are of one cluster.")
    ] = 0.9,
    antigen_identity: Annotated[float, typer.Option(help="Identity from which two antigens are of one cluster.")] = 0.7,
    seed: TrainingSeed = None,
    device: DeviceOption = Device.AUTO,
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Train one recipe on five splits, beside trivial predictors: what a random split flatters."""
    from tailbind.workflows import ladder as run_ladder
    from tailbind.workflows.laddering import headline, ladder_tables

    console = Console(stderr=True) if json else None
    result = run_ladder(
        data,
        recipe=recipe,
        out=out,
        overrides=set_ or (),
        antibody_identity=antibody_identity,
        antigen_identity=antigen_identity,
        seed=seed,
        device=device.value,
        cache=not no_cache,
        console=console,
    )
    if json:
        say(to_json(result.document()))
        return
    for table in ladder_tables(result):
        say(table.text() + "\n")
    say(f"{headline(result)}\nReport: {out / 'ladder.html'}")
