"""The verbs that tell how good a run is, `compare`, `evaluate` and `probe`, and the one that shares it, `export`."""

from pathlib import Path
from typing import Annotated

import typer

from tailbind.cli.options import Data, Device, DeviceOption, Json, NoCache, Run
from tailbind.cli.printing import say, tell
from tailbind.runtime import to_json


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
        say(to_json(document))
        return
    say(comparison_table(comparison).text())
    if out is not None:
        say(f"\nReport: {out / 'comparison.html'}")


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
    from tailbind.workflows.retesting import evaluation_report

    result = run_evaluate(run, data, out=out, device=device.value, cache=not no_cache, notify=tell)
    say(to_json(result) if json else evaluation_report(result).text())


def probe(
    run: Annotated[Path, typer.Argument(help="Run folder that `tailbind train` wrote; an export lacks its test.")],
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
        run, data=data or None, out=out, antibodies=antibodies, device=device.value, cache=not no_cache, notify=tell
    )
    say(to_json(result.document()) if json else probe_report(result).text().rstrip())
    if out is not None and not json:
        say(f"\nReport: {out / 'probe.html'}")
    raise typer.Exit(0 if result.passes else 1)


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="New folder, to share.")],
) -> None:
    """Write a run's model as a folder that loads anywhere: safetensors, JSON, model card, and ONNX where it can be."""
    from tailbind.workflows import export as run_export
    from tailbind.workflows.exporting import exported_lines

    for line in exported_lines(run_export(run, out, notify=tell)):
        say(line)
