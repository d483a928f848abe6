"""The command line: each verb is a typed call into `workflows`. The only place that parses arguments.

Exit codes: 0 done; 1 the answer is no; 2 a mistake of the user's or of the machine, told in one line; 130
interrupted. What is heavy is imported inside the verbs, so that `--help` is quick.
"""

import sys
import textwrap
from collections.abc import Sequence
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

import tailbind
from tailbind.errors import TailbindError
from tailbind.runtime import check_empty, to_json


class Device(StrEnum):
    """Where to compute, as `--device` takes it."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


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


#: What Typer raises for a wrong command line: BadParameter's ancestor below Exception. Typer brings Click
#: along under a name that has changed between versions.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]

INTERRUPTED: Final = 130
#: What recipes learn from, as they are listed.
SEQUENCES, COLUMNS, LABELS = "From sequences", "From the table's own feature columns", "From labels alone"

app = typer.Typer(
    help="Predict antibody-antigen affinity (pKd) from a table of measurements, right in the tails.",
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

Data = Annotated[list[Path], typer.Argument(help="Table of measured affinities: CSV, TSV or Parquet; or several.")]
Run = Annotated[Path, typer.Argument(help="Run folder that `tailbind train` wrote, or `tailbind export`.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Read the table anew, and keep nothing of it in the user's cache.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, messages on standard error.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        _print(f"tailbind {tailbind.__version__}")
    elif context.invoked_subcommand is None:
        _print(context.get_help())


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="New folder for the table, the runs and the comparison.")] = Path("demo"),
    device: DeviceOption = Device.AUTO,
) -> None:
    """Simulate a table, train v1 and v2 on it and compare them: offline, in minutes."""
    from tailbind.workflows import demo as run_demo

    run_demo(out, device=device.value)


@app.command()
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

    result = run_check(data, out=out, fix_to=fix, numbering=numbering, cache=not no_cache, notify=_tell)
    if json:
        _print(check_json(result))
    else:
        show(result, Console())
        if out is not None:
            _print(f"Report: {out / 'audit.html'}")
    raise typer.Exit(0 if result.audit.is_clean else 1)


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    recipe: Annotated[
        str | None,
        typer.Option(help="Name of a recipe (see `tailbind recipes`) or a TOML file; v3 unless given."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change an option of the recipe; repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the training (the split's is split.seed).")] = None,
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


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more finished run folders; the first is the reference.")],
    out: Annotated[Path | None, typer.Option(help="New folder for comparison.html, .csv, .png, .md and .tex.")] = None,
    json: Json = False,
) -> None:
    """Compare runs on the same test rows, with paired intervals."""
    from tailbind.reporting.comparison_tables import comparison_table, numbers_table
    from tailbind.workflows import compare as run_compare

    comparison = run_compare(runs, out=out)
    if json:
        document = {
            "runs": comparison.names,
            "n": comparison.n,
            "bins": dict(comparison.bin_counts),
            "intervals_by": comparison.by,
            "n_clusters": comparison.n_clusters,
            "metrics": numbers_table(comparison),
        }
        _print(to_json(document))
        return
    _print(comparison_table(comparison).text())
    if out is not None:
        _print(f"\nReport: {out / 'comparison.html'}")


@app.command()
def ladder(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for a run per split and ladder.html; continues where it was.")],
    recipe: Annotated[
        str | None,
        typer.Option(help="Name of a recipe (see `tailbind recipes`) or a TOML file; v3 unless given."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change an option of the recipe; repeatable."),
    ] = None,
    antibody_identity: Annotated[
        float, typer.Option(help="Identity from which two antibodies are of one cluster.")
    ] = 0.9,
    antigen_identity: Annotated[float, typer.Option(help="Identity from which two antigens are of one cluster.")] = 0.7,
    seed: Annotated[int | None, typer.Option(help="Seed of the training (the split's is split.seed).")] = None,
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
        _print(to_json(result.document()))
        return
    for table in ladder_tables(result):
        _print(table.text() + "\n")
    _print(f"{headline(result)}\nReport: {out / 'ladder.html'}")


@app.command()
def evaluate(
    run: Run,
    data: Data,
    out: Annotated[Path | None, typer.Option(help="New folder for figures, predictions and a page.")] = None,
    device: DeviceOption = Device.AUTO,
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Hold a trained run against another measured table."""
    from tailbind.workflows import evaluate as run_evaluate
    from tailbind.workflows.using import evaluation_report

    result = run_evaluate(run, data, out=out, device=device.value, cache=not no_cache, notify=_tell)
    _print(to_json(result) if json else evaluation_report(result).text())


@app.command()
def predict(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option(help="CSV or Parquet file to write.")],
    level: Annotated[
        float | None, typer.Option(help="Share of measured values that intervals are to hold; the run's unless given.")
    ] = None,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Predict pKd, Kd and bin for every row of a table, with or without labels; with intervals where there are any."""
    from tailbind.workflows import write_predictions

    done = write_predictions(run, data, out, level=level, device=device.value, notify=_tell)
    empty = f", {done.n_empty:,} of them without features and left empty" if done.n_empty else ""
    _print(f"{out}: {done.n_rows:,} rows{empty}.")


@app.command()
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
        notify=_tell,
        console=Console(stderr=True),
    )
    for line in embedded_lines(done):
        _print(line)


@app.command()
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

    _print(resolve(load_recipe(name, set_ or ())).toml())


@app.command()
def scan(
    run: Run,
    heavy: Annotated[str, typer.Option(help="Heavy chain: letters, or @FILE with letters or one FASTA record.")] = "",
    light: Annotated[str, typer.Option(help="Light chain, likewise.")] = "",
    antigen: Annotated[str, typer.Option(help="Antigen, likewise.")] = "",
    fasta: Annotated[
        Path | None, typer.Option(help="FASTA file with records called heavy, light, antigen, instead of these.")
    ] = None,
    antigen_name: Annotated[str, typer.Option(help="Stands for an antigen without sequence, as in a table.")] = "",
    source: Annotated[str, typer.Option(help="Data set it counts to, as in a table.")] = "",
    chains: Annotated[
        str, typer.Option("--scan", metavar="CHAIN[,…]", help="Chains to scan; the antibody's that are given.")
    ] = "",
    region: Annotated[
        str, typer.Option(metavar="REGION[,…]", help="Scan these alone, as in CDR1,CDR2,CDR3; by IMGT.")
    ] = "",
    positions: Annotated[
        str, typer.Option(metavar="N[,N-N…]", help="Scan these alone, counted from 1, of one chain: 31-35,52.")
    ] = "",
    combine: Annotated[int, typer.Option(min=0, help="Propose combinations of 2 to so many substitutions.")] = 0,
    top: Annotated[int, typer.Option(min=1, help="How many combinations.")] = 20,
    explore: Annotated[
        float | None, typer.Option(help="Rank them by pKd + EXPLORE × SD; 0.5 where the model has an SD.")
    ] = None,
    avoid: Annotated[str, typer.Option(metavar="LETTERS", help="Residues that no combination puts in.")] = "C",
    seen_only: Annotated[
        bool, typer.Option("--seen-only", help="Combine only residues that training saw at their place.")
    ] = False,
    diverse: Annotated[
        bool, typer.Option(help="Propose no two combinations that share all but one substitution.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the combinations that are tried at random.")] = 42,
    out: Annotated[
        Path | None, typer.Option(help="New folder for scan.csv, scan.png, scan.html and combinations.csv.")
    ] = None,
    device: DeviceOption = Device.AUTO,
    json: Json = False,
) -> None:
    """Predict every single substitution of an antibody: a ranked list and a heat map."""
    from tailbind.workflows import scan as run_scan
    from tailbind.workflows.scan_input import read_numbers, read_pair
    from tailbind.workflows.scan_page import headline, scan_tables, write_scan

    if out is not None:
        check_empty(out)
    result = run_scan(
        run,
        **read_pair(heavy, light, antigen, fasta),
        antigen_name=antigen_name,
        source=source,
        chains=_listed(chains.lower()) or None,
        regions=_listed(region.upper()),
        positions=read_numbers(positions) or None,
        combine=combine,
        top=top,
        explore=explore,
        avoid=avoid,
        seen_only=seen_only,
        diverse=diverse,
        seed=seed,
        device=device.value,
        notify=_tell,
    )
    if out is not None:
        write_scan(result, out)
    if json:
        _print(to_json(result.document()))
        return
    for table in scan_tables(result):
        _print(table.text() + "\n")
    _print(headline(result) + (f"\nReport: {out / 'scan.html'}" if out is not None else ""))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="New folder, to share.")],
) -> None:
    """Write a run's model as a folder that loads anywhere: safetensors, JSON, model card, and ONNX where it can be."""
    from tailbind.workflows import export as run_export
    from tailbind.workflows.exporting import exported_lines

    for line in exported_lines(run_export(run, out, notify=_tell)):
        _print(line)


@app.command()
def probe(
    run: Run,
    data: Annotated[
        list[Path] | None, typer.Option(help="The run's own table, where it has moved; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder for probe.html, .txt and .json.")] = None,
    antibodies: Annotated[
        int, typer.Option(min=1, help="Training antibodies of which every single substitution is predicted.")
    ] = 3,
    device: DeviceOption = Device.AUTO,
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Ask a run whether it reacts to mutations, CDRs and antigens, as the table's own mutants did.

    Exit code 0, or 1 for a model that does not see mutations, places or antigens, or barely.
    """
    from tailbind.workflows import probe as run_probe
    from tailbind.workflows.probe_page import probe_report

    result = run_probe(
        run, data=data or None, out=out, antibodies=antibodies, device=device.value, cache=not no_cache, notify=_tell
    )
    _print(to_json(result.document()) if json else probe_report(result).text().rstrip())
    if out is not None and not json:
        _print(f"\nReport: {out / 'probe.html'}")
    raise typer.Exit(0 if result.passes else 1)


@app.command()
def serve(
    run: Run,
    host: Annotated[
        str, typer.Option(help="Address to listen at: this computer alone, unless told otherwise.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File with the key that requests must bring; else TAILBIND_API_KEY, where that is set."),
    ] = None,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Serve a run: a web page that predicts and scans, and a REST interface. Stop it with Ctrl+C or SIGTERM."""
    from tailbind.server.running import serve as run_server

    run_server(run, host=host, port=port, device=device.value, key_file=api_key_file, notify=_tell)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    >>> main(["--version"])
    tailbind ...
    0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="tailbind", standalone_mode=False)
    except TailbindError as error:
        return _fail(str(error))
    except _CommandLineError as error:
        format_message = getattr(error, "format_message", error.__str__)
        verb = f" {arguments[0]}" if arguments[0] in getattr(command, "commands", {}) else ""
        return _fail(f"{format_message()} See tailbind{verb} --help.")
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except OSError as error:
        return _fail(f"{error.filename or 'A file'}: {error.strerror or error}.")
    if code == INTERRUPTED:
        _fail("Interrupted. An unfinished training goes on with --resume, a ladder and embed with the same command.")
    return code if isinstance(code, int) else 0


def run() -> None:
    """Run the command line of this process and leave with its exit code."""
    sys.exit(main())


def _fail(message: str) -> int:
    """Print one line on standard error and return the exit code of a mistake."""
    Console(stderr=True).print(
        f"tailbind: {' '.join(message.split())}", style="red", markup=False, highlight=False, soft_wrap=True
    )
    return 2


def _tell(text: str) -> None:
    """Print a remark on standard error, so that standard output is the result alone."""
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def _listed(text: str) -> list[str]:
    """Return the words of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


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
        _print(f"{group}:")
        for name, words in entries.items():
            lines = textwrap.wrap(words, room, break_on_hyphens=False) if console.is_terminal else [words]
            for label, line in zip_longest([name], lines, fillvalue=""):
                _print(f"  {label:<{width}}  {line}")


def _print(text: str) -> None:
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
