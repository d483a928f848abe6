"""The verbs, in the order in which help lists them, and what `tailbind` does without one."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final

import typer

import tailbind
from tailbind.cli.predictions import predict, scan, serve
from tailbind.cli.printing import say
from tailbind.cli.recipes import recipes
from tailbind.cli.runs import compare, evaluate, export, probe
from tailbind.cli.tables import check, embed
from tailbind.cli.training import demo, ladder, train

VERBS: Final[Sequence[Callable[..., None]]] = (
    demo, check, train, compare, ladder, evaluate, predict, embed, recipes, scan, export, probe, serve,
)  # fmt: skip

app = typer.Typer(
    help="Predict antibody-antigen affinity (pKd) from a table of measurements, right in the tails.",
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
for verb in VERBS:
    app.command()(verb)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        say(f"tailbind {tailbind.__version__}")
    elif context.invoked_subcommand is None:
        say(context.get_help())
