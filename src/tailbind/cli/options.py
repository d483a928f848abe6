"""Arguments and options that several verbs take alike."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Device(StrEnum):
    """Where to compute, as `--device` takes it."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


Data = Annotated[list[Path], typer.Argument(help="Table of measured affinities: CSV, TSV or Parquet; or several.")]
Run = Annotated[Path, typer.Argument(help="Run folder that `tailbind train` wrote, or `tailbind export`.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Read the table anew, and keep nothing of it in the user's cache.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, messages on standard error.")]
RecipeOption = Annotated[
    str | None, typer.Option(help="Name of a recipe (see `tailbind recipes`) or a TOML file; v3 unless given.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change an option of the recipe; repeatable."),
]
TrainingSeed = Annotated[int | None, typer.Option(help="Seed of the training (the split's is split.seed).")]
