"""The verbs about tables: `check` audits one, `embed` writes one with features."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tailbind.cli.options import Data, Device, DeviceOption, Json, NoCache
from tailbind.cli.printing import say, tell


class Chains(StrEnum):
    """What an encoder reads at a time, as `--chains` takes it."""

    JOINED = "joined"
    SEPARATE = "separate"


class Pool(StrEnum):
    """Which residues' vectors are averaged, as `--pool` takes it."""

    MEAN = "mean"
    CDR = "cdr"
    BOTH = "both"


class Precision(StrEnum):
    """What an encoder computes in, as `--precision` takes it."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


def check(
    data: Data,
    out: Annotated[
        Path | None, typer.Option(help="New folder for audit.html, .txt, .json and flagged_rows.csv.")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option(help="New Parquet file for the table put right; what it leaves out goes beside it.")
    ] = None,
    numbering: Annotated[
        bool, typer.Option(help="Number one chain of each family, to find swapped chains and scFv.")
    ] = True,
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Audit a table before training: labels, units, detection floors, duplicates, sequences.

    Exit code 0 for a clean table, 1 for errors or warnings, 2 for a table that cannot be read.
    """
    from tailbind.workflows import check as run_check
    from tailbind.workflows.checking import check_json, show

    result = run_check(data, out=out, fix_to=fix, numbering=numbering, cache=not no_cache, notify=tell)
    if json:
        say(check_json(result))
    else:
        show(result, Console())
        if out is not None:
            say(f"Report: {out / 'audit.html'}")
    raise typer.Exit(0 if result.audit.is_clean else 1)


def embed(
    data: Annotated[list[Path], typer.Argument(help="Table with heavy or light sequences; or several.")],
    out: Annotated[Path, typer.Option(help="New Parquet or CSV file: the table with the feature columns.")],
    encoder: Annotated[
        str, typer.Option(help="Protein language model: a name on the Hugging Face hub, or a folder.")
    ] = "facebook/esm2_t33_650M_UR50D",
    revision: Annotated[str, typer.Option(help="Branch, tag or commit on the hub.")] = "",
    chains: Annotated[
        Chains, typer.Option(help="Heavy, light and antigen as one sequence, or each for itself.")
    ] = Chains.JOINED,
    pool: Annotated[Pool, typer.Option(help="Average over all residues, those in CDRs, or both.")] = Pool.MEAN,
    layers: Annotated[
        str, typer.Option(metavar="N[,N…]", help="Layers whose vectors are averaged; -1 is the last.")
    ] = "-1",
    pca: Annotated[
        int, typer.Option(min=0, help="Principal components to write instead of the vectors, fitted on all rows.")
    ] = 0,
    precision: Annotated[
        Precision, typer.Option(help="Numbers to compute in; auto: half precision on a GPU.")
    ] = Precision.AUTO,
    device: DeviceOption = Device.AUTO,
    store: Annotated[
        Path | None, typer.Option(help="Folder to keep vectors in; the user's cache unless given.")
    ] = None,
    batch_tokens: Annotated[int, typer.Option(min=0, help="Tokens in a batch at most; 0: what suits the device.")] = 0,
    window: Annotated[
        int, typer.Option(min=0, help="Residues read at a time at most; 0: the encoder's own maximum.")
    ] = 0,
    overlap: Annotated[int, typer.Option(min=0, help="Residues that neighbouring windows share.")] = 128,
    prefix: Annotated[str, typer.Option(help="Of the feature columns; from the encoder's name unless given.")] = "",
) -> None:
    """Write a table with a protein language model's vectors of its sequences as feature columns.

    Stopped at any time, the same command goes on where it was.
    """
    from tailbind.workflows import embed as run_embed
    from tailbind.workflows.embedding import embedded_lines

    try:
        chosen = tuple(int(layer) for layer in layers.split(","))
    except ValueError:
        raise typer.BadParameter(f"--layers must be whole numbers, as in -1 or 30,33; got {layers!r}.") from None
    done = run_embed(
        data,
        out=out,
        encoder=encoder,
        revision=revision,
        chains=chains.value,
        pool=pool.value,
        layers=chosen,
        pca=pca,
        precision=precision.value,
        device=device.value,
        store="" if store is None else store,
        batch_tokens=batch_tokens,
        window=window,
        overlap=overlap,
        prefix=prefix,
        notify=tell,
        console=Console(stderr=True),
    )
    for line in embedded_lines(done):
        say(line)
