"""Parquet files that strangers send, read in a process of their own: see `unpacker`, which is that process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tailbind.server.checking import RefusedError
from tailbind.server.limits import MIB, Limits

CHILD: Final = "tailbind.server.unpacker"
DAMAGED: Final = "must be a whole Parquet file; it is damaged or something else."


def unpack(source: Path, to: Path, limits: Limits) -> None:
    """Write a Parquet file again as one that is safe to read: by this program, and of the size that it has.

    Parameters
    ----------
    source, to : the file as it was sent, and the new one

    Raises
    ------
    RefusedError
        For a file that is damaged, has too many columns or rows, or unpacks to too much.
    """
    asked = {
        "columns": limits.upload_columns,
        "rows": limits.upload_rows,
        "bytes": limits.unpacked_bytes,
        "memory": limits.unpacking_bytes,
    }
    command = [sys.executable, "-P", "-m", CHILD, str(source), str(to), json.dumps(asked)]
    # It imports from where this process does; with one thread its memory is the file's, and not the machine's.
    places = os.pathsep.join(place or os.curdir for place in sys.path)
    environment = os.environ | {"PYTHONPATH": places, "POLARS_MAX_THREADS": "1"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=limits.unpacking_seconds,
            start_new_session=True,  # Ctrl+C is for the server, which finishes what is in flight
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _too_much(f"it takes longer than {limits.unpacking_seconds:g} s to unpack", limits) from None
    if done.returncode == 1:  # Python's own, for an error of ours
        raise RuntimeError(f"{CHILD} failed on {source.name}")
    if done.returncode:
        raise _too_much("it unpacks to more, or is damaged", limits)
    answer = json.loads(done.stdout)
    if fault := answer.get("fault"):
        raise _refused(fault, answer.get("found", 0), limits)


def _refused(fault: str, found: int, limits: Limits) -> RefusedError:
    if fault == "rows":
        return too_many_rows(limits, found)
    if fault == "bytes":
        return _too_much("it unpacks to more", limits)
    words = too_many_columns(limits, found) if fault == "columns" else DAMAGED
    return RefusedError(f"The file {words}", [("file", words)])


def too_many_rows(limits: Limits, found: int | None = None) -> RefusedError:
    """Return the refusal of a table that is too long; `found` is None where nobody counted to its end."""
    more = "" if found is None else f"; it has {found:,}"
    return RefusedError(f"A table must have at most {limits.upload_rows:,} rows{more}.", status=413)


def too_many_columns(limits: Limits, found: int) -> str:
    """Return what is said of a table that is too wide.

    >>> too_many_columns(Limits(), 6000)
    'must have at most 5,000 columns; it has 6,000.'
    """
    return f"must have at most {limits.upload_columns:,} columns; it has {found:,}."


def _too_much(found: str, limits: Limits) -> RefusedError:
    most = limits.unpacked_bytes / MIB
    return RefusedError(f"A Parquet file must unpack to at most {most:g} MiB; {found}. Send it in parts.", status=413)
