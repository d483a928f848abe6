"""A program of its own, started by `unpacking`: it reads one Parquet file with little memory, and writes it plainly.

A few KB of Parquet can unpack to any size, its footer can lie about that, and a decoder that runs out of memory ends
its process: it is this one that ends. Nothing but polars is imported, because it is started for every file.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl

#: Rows looked at together.
ROWS: Final = 8_192
_CATEGORIES: Final = (pl.Categorical, pl.Enum)


def unpack(source: Path, to: Path, limits: Mapping[str, int]) -> dict[str, Any]:
    """Write a Parquet file again, without compression and lists; return why not, or nothing where it is done.

    Parameters
    ----------
    source, to : the file, and the new one
    limits : `columns`, `rows` and `bytes` that it may have; bytes are those of its cells, each written out

    Returns
    -------
    dict
        `fault` (columns, rows, bytes or damaged) and, of the first two, how many were `found`.
    """
    try:
        schema = pl.read_parquet_schema(source)
        if len(schema) > limits["columns"]:
            return {"fault": "columns", "found": len(schema)}
        # Lists and structs are no cells of a table: no prediction reads them.
        flat = [name for name, kind in schema.items() if not kind.is_nested()]
        lazy = pl.scan_parquet(source, glob=False)
        n_rows = lazy.select(pl.len()).collect().item()
        if n_rows > limits["rows"]:
            return {"fault": "rows", "found": n_rows}
        frames, n_bytes = [pl.DataFrame(schema={name: _plain(schema[name]) for name in flat})], 0
        for batch in lazy.select(flat).collect_batches(chunk_size=ROWS, maintain_order=True):
            # A text that all rows share is there once, and would be there once a row as soon as it is changed.
            frames.append(batch.cast({name: _plain(batch.schema[name]) for name in flat}))
            n_bytes += int(frames[-1].estimated_size())
            if n_bytes > limits["bytes"]:
                return {"fault": "bytes"}
        pl.concat(frames).write_parquet(to, compression="uncompressed", statistics=False)
    except MemoryError:
        return {"fault": "bytes"}
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError):
        return {"fault": "damaged"}
    return {}


def _plain(kind: pl.DataType) -> pl.DataType:
    return pl.String() if kind in _CATEGORIES else kind


def hold(memory_bytes: int) -> None:
    """Give this process so much memory beside what it has; where the system cannot, as much as there is."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):  # Windows; macOS, which takes such limits and does not keep them
        return
    most = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(source: str, to: str, told: str) -> None:
    """Unpack a file within the limits told as JSON, `memory` among them, and write what `unpack` returns."""
    limits = json.loads(told)
    pl.select(pl.lit(1)).lazy().collect()  # its threads are there before they are counted
    hold(limits["memory"])
    sys.stdout.write(json.dumps(unpack(Path(source), Path(to), limits)))


if __name__ == "__main__":
    main(*sys.argv[1:])
