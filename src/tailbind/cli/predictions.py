"""The verbs that have a run predict: `predict` a table, `scan` an antibody, `serve` whoever asks."""

from pathlib import Path
from typing import Annotated

import typer

from tailbind.cli.options import Data, Device, DeviceOption, Json, Run
from tailbind.cli.printing import say, tell
from tailbind.runtime import check_empty, to_json


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

    done = write_predictions(run, data, out, level=level, device=device.value, notify=tell)
    empty = f", {done.n_empty:,} of them without features and left empty" if done.n_empty else ""
    say(f"{out}: {done.n_rows:,} rows{empty}.")


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
        positions=read_numbers(positions) if positions else None,
        combine=combine,
        top=top,
        explore=explore,
        avoid=avoid,
        seen_only=seen_only,
        diverse=diverse,
        seed=seed,
        device=device.value,
        notify=tell,
    )
    if out is not None:
        write_scan(result, out)
    if json:
        say(to_json(result.document()))
        return
    for table in scan_tables(result):
        say(table.text() + "\n")
    say(headline(result) + (f"\nReport: {out / 'scan.html'}" if out is not None else ""))


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
    max_pairs: Annotated[int, typer.Option(min=1, max=1_000_000, help="Pairs that one request may have.")] = 10_000,
    max_rows: Annotated[int, typer.Option(min=1, max=10_000_000, help="Rows that a table may have.")] = 200_000,
    max_upload_mib: Annotated[int, typer.Option(min=1, max=2_048, help="MiB that a table's file may have.")] = 32,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Serve a run: a web page that predicts and scans, and a REST interface. Stop it with Ctrl+C or SIGTERM."""
    from tailbind.server.limits import Limits
    from tailbind.server.running import serve as run_server

    limits = Limits.asked(pairs=max_pairs, rows=max_rows, upload_mib=max_upload_mib)
    run_server(run, host=host, port=port, device=device.value, key_file=api_key_file, limits=limits, notify=tell)


def _listed(text: str) -> list[str]:
    """Return the words of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]
