"""The verb `recipes`, which lists them or prints one."""

import textwrap
from itertools import zip_longest
from typing import Annotated, Final

import typer
from rich.console import Console

from tailbind.cli.printing import say

#: What recipes learn from, as they are listed.
SEQUENCES: Final = "From sequences"
COLUMNS: Final = "From the table's own feature columns"
LABELS: Final = "From labels alone"


def recipes(
    name: Annotated[str | None, typer.Argument(help="Recipe to print with every default filled in.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change an option of it; repeatable.")
    ] = None,
) -> None:
    """List the recipes, or print one resolved."""
    from tailbind.recipes import load_recipe

    if name is None:
        _list_recipes()
        return
    from tailbind.workflows.plan import resolve

    say(resolve(load_recipe(name, set_ or ())).toml())


def _list_recipes() -> None:
    """Print all recipes by what they read, a line each; in a terminal as many as it takes, one below the other."""
    from tailbind.recipes import load_recipe, recipe_names

    groups: dict[str, dict[str, str]] = {SEQUENCES: {}, COLUMNS: {}, LABELS: {}}
    for name in recipe_names():
        recipe = load_recipe(name)
        kinds = {section.kind for section in recipe.features.values()}
        group = SEQUENCES if kinds - {"columns", "category"} else COLUMNS if "columns" in kinds else LABELS
        groups[group][name] = recipe.description
    console, width = Console(), max(map(len, recipe_names()))
    room = max(20, console.width - width - 4)
    for group, entries in groups.items():
        say(f"{group}:")
        for name, words in entries.items():
            lines = textwrap.wrap(words, room, break_on_hyphens=False) if console.is_terminal else [words]
            for label, line in zip_longest([name], lines, fillvalue=""):
                say(f"  {label:<{width}}  {line}")
