"""Tables kept as they were read, in the user's cache, so that a long file is parsed once.

An entry is a folder: the rows as an Arrow file, the features as plain `.npy` blocks that may be mapped one at a time,
and `about.json` with the report and a checksum of each. It is made under another name and put in place whole. What is
damaged is removed and read anew; nothing that goes wrong here keeps a table from being read.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import RunError
from tailbind.table.blocks import BLOCK_ROWS, Blocks, Hold, Matrix, fits, is_held, on_disk
from tailbind.table.schema import AffinityTable, CacheUse, ReadingReport

#: Files of fewer bytes, all together, are read anew: it takes no second.
SMALLEST_BYTES: Final = 32 << 20
#: All entries together have at most so many bytes, and at most this share of what is free on the disk without them.
LARGEST_BYTES: Final = 20 << 30
LARGEST_SHARE: Final = 0.25
#: A file is told from another of the same size and age by stretches of it: how many, of how many bytes.
N_SAMPLES: Final = 64
SAMPLE_BYTES: Final = 16 << 10
#: What a killed program left half-written is removed when it is so old (seconds).
STALE: Final = 3_600

ABOUT, FRAME, BLOCK = "about.json", "frame.arrow", "features-{:05}.npy"

#: What reading a damaged entry may raise.
_DAMAGE: Final = (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError)


@dataclass(frozen=True)
class TableCache:
    """The tables in one folder.

    Attributes
    ----------
    root : the folder; made when first written to
    smallest : bytes below which files are not kept
    largest : bytes of all entries at most
    """

    root: Path
    smallest: int = SMALLEST_BYTES
    largest: int = LARGEST_BYTES

    def key(self, files: Sequence[Path], asked: Mapping[str, object]) -> str | None:
        """Return what the table of these files is found by, None where they are too small or cannot be looked at.

        It depends on each file's path, size, time of change and a sample of its content, on what is asked of them,
        and on the code that reads.
        """
        try:
            if sum(path.stat().st_size for path in files) < self.smallest:
                return None
            about = {"files": [_identity(path) for path in files], "asked": dict(asked), "reader": _reader()}
        except OSError:
            return None
        return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16).hexdigest()

    def read(self, key: str) -> AffinityTable | None:
        """Return the table kept under a key, None where there is none that is whole."""
        folder = self.root / key
        if not folder.is_dir():
            return None
        try:
            about = _checked(json.loads((folder / ABOUT).read_bytes()))
            content = (folder / FRAME).read_bytes()
            _compare(len(content), about["frame"]["bytes"])
            _compare(zlib.crc32(content), about["frame"]["crc32"])
            frame = pl.read_ipc(io.BytesIO(content))
            del content
            names = tuple(about["feature_names"])
            _compare(len(frame), about["n_rows"])
            features = _read_blocks(folder, about["blocks"], (len(frame), len(names)))
            report = ReadingReport(
                **{**about["report"], **{of: tuple(about["report"][of]) for of in ("files", "notes")}}
            )
        except _DAMAGE:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(folder)  # the entry that was not used for longest is the first to go
        return AffinityTable(frame, features, names, replace(report, cache=CacheUse(folder, used=True)))

    def write(self, key: str, table: AffinityTable) -> AffinityTable:
        """Keep a table under a key; return it with a report that says where it is kept, or why it could not be."""
        part = self.root / f".{key}-{uuid.uuid4().hex[:8]}.part"
        try:
            self._make_room(table.features.nbytes + int(table.frame.estimated_size()))
            part.mkdir(parents=True)
            _write(part, table)
            _replace(part, self.root / key)
            if on_disk(table.features) is not None:  # what it was read into can then go
                table = replace(table, features=cast(Matrix, _mapped(self.root / key, table.features.shape)))
        except (OSError, RunError, pl.exceptions.PolarsError) as error:
            reason = getattr(error, "strerror", None) or next(
                iter(str(error).strip().splitlines()), type(error).__name__
            )
            trouble = f"The table was not kept in {self.root} for the next time: {reason.rstrip('.')}."
            return _with(table, CacheUse(None, trouble=trouble))
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return _with(table, CacheUse(self.root / key))

    def _make_room(self, needed: int) -> None:
        """Remove what was not used for longest until `needed` bytes more are within bounds.

        Raises
        ------
        RunError
            Where they are not even then.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        now, entries = time.time(), []
        for folder in self.root.iterdir():
            with contextlib.suppress(OSError):
                changed = folder.stat().st_mtime
                if folder.name.startswith("."):
                    if now - changed > STALE:
                        shutil.rmtree(folder, ignore_errors=True)
                    continue
                entries.append((changed, sum(file.stat().st_size for file in folder.iterdir()), folder))
        used = sum(size for _, size, _ in entries)
        free = shutil.disk_usage(self.root).free
        room = min(self.largest, int(LARGEST_SHARE * (free + used)))
        if needed > room:
            raise RunError(f"it needs {needed / 1e9:.1f} GB and there is room for {room / 1e9:.1f} GB.")
        for _, size, folder in sorted(entries):
            if used + needed <= room:
                break
            if is_held(folder):  # a training reads from it
                continue
            shutil.rmtree(folder, ignore_errors=True)
            used -= size


def default_cache() -> TableCache:
    """Return the tables in the user's cache, or in the folder that `TAILBIND_CACHE` names."""
    import platformdirs

    return TableCache(Path(os.environ.get("TAILBIND_CACHE") or platformdirs.user_cache_dir("tailbind")) / "tables")


def spill_folder() -> Path:
    """Return where features that do not fit into memory are put while they are used."""
    return default_cache().root.with_name("blocks")


def _mapped(entry: Path, shape: tuple[int, ...]) -> Blocks:
    """Return the features of an entry as they lie on disk, where they stay as long as they are held."""
    return Blocks(tuple(feature_blocks(entry)), BLOCK_ROWS, (shape[0], shape[1]), keeper=Hold(entry))


def feature_blocks(entry: Path) -> list[Path]:
    """Return the files of an entry's features in row order: `.npy`, float32, `BLOCK_ROWS` rows each but the last."""
    return sorted(entry.glob(BLOCK.replace("{:05}", "*")))


def _identity(path: Path) -> dict[str, object]:
    """Return what tells a file from another, or from itself before it was changed."""
    status = path.stat()
    digest = hashlib.blake2b(digest_size=16)
    last = max(0, status.st_size - SAMPLE_BYTES)
    with path.open("rb") as handle:
        for number in range(N_SAMPLES):
            handle.seek(last * number // (N_SAMPLES - 1))
            digest.update(handle.read(SAMPLE_BYTES))
    return {
        "path": str(path.absolute()),
        "bytes": status.st_size,
        "changed": status.st_mtime_ns,
        "sample": digest.hexdigest(),
    }


@cache
def _reader() -> str:
    """Return what changes whenever a line of the code that reads does, or polars."""
    digest = hashlib.blake2b(pl.__version__.encode(), digest_size=16)
    package = Path(__file__).parents[1]
    for file in (
        *sorted((package / "table").glob("*.py")),
        package / "sequences" / "alphabet.py",
        package / "scale.py",
    ):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _with(table: AffinityTable, use: CacheUse) -> AffinityTable:
    return replace(table, report=replace(table.report, cache=use))


def _write(folder: Path, table: AffinityTable) -> None:
    """Write all files of an entry. They are not forced to the disk: what a power cut spoils has no right checksum."""
    with _counted(folder / FRAME) as (handle, frame):
        table.frame.write_ipc(handle, compression="zstd")
    blocks = []
    for number, start in enumerate(range(0, len(table) if table.feature_names else 0, BLOCK_ROWS)):
        rows = np.ascontiguousarray(table.features[start : start + BLOCK_ROWS])
        name = BLOCK.format(number)
        with (folder / name).open("wb") as handle:
            np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(rows))
            handle.write(_bytes(rows))
            blocks.append({"name": name, "rows": len(rows), "bytes": handle.tell(), "crc32": zlib.crc32(_bytes(rows))})
    report = {name: value for name, value in asdict(table.report).items() if name != "cache"}
    about = {
        "n_rows": len(table),
        "feature_names": list(table.feature_names),
        "frame": frame,
        "blocks": blocks,
        "report": report,
    }
    document = json.dumps({"about": about, "crc32": _crc(about)}, ensure_ascii=False)
    (folder / ABOUT).write_bytes(document.encode())


@contextlib.contextmanager
def _counted(path: Path) -> Iterator[tuple[IO[bytes], dict[str, int]]]:
    """Open a file for writing; the record beside it has its size and checksum when it is closed."""
    record: dict[str, int] = {}
    with path.open("wb") as handle:
        yield handle, record
    with path.open("rb") as handle:
        checksum = 0
        while chunk := handle.read(1 << 22):
            checksum = zlib.crc32(chunk, checksum)
        record.update(bytes=handle.tell(), crc32=checksum)


def _replace(part: Path, target: Path) -> None:
    """Put a whole entry in place; where another program was quicker, its entry stays."""
    try:
        part.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _read_blocks(folder: Path, blocks: Sequence[Mapping[str, Any]], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the blocks of an entry: where they fit into memory as one matrix, two at a time read into their place."""
    if not fits(4 * shape[0] * shape[1]):
        for block in blocks:  # their checksums would take as long as reading them
            _compare((folder / block["name"]).stat().st_size, block["bytes"])
            _compare(np.load(folder / block["name"], mmap_mode="r").shape, (block["rows"], shape[1]))
        _compare(sum(block["rows"] for block in blocks), shape[0])
        return cast(Matrix, _mapped(folder, shape))
    features = np.empty(shape, np.float32)
    if not shape[1]:
        return features
    stops = np.cumsum([block["rows"] for block in blocks]).tolist()
    _compare(stops[-1] if stops else 0, shape[0])
    places = [features[stop - block["rows"] : stop] for stop, block in zip(stops, blocks, strict=True)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_read_block, [folder / block["name"] for block in blocks], blocks, places))
    return features


def _read_block(path: Path, block: Mapping[str, Any], rows: NDArray[np.float32]) -> None:
    """Read one block into its place."""
    with path.open("rb") as handle:
        _compare(os.fstat(handle.fileno()).st_size, block["bytes"])
        _compare(np.lib.format.read_magic(handle), (1, 0))
        _compare(np.lib.format.read_array_header_1_0(handle), (rows.shape, False, rows.dtype))
        _compare(handle.readinto(_bytes(rows)), rows.nbytes)
    _compare(zlib.crc32(_bytes(rows)), block["crc32"])


def _bytes(rows: NDArray[np.float32]) -> memoryview:
    return rows.reshape(-1).data.cast("B")


def _crc(about: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(about, sort_keys=True).encode())


def _checked(document: Mapping[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = document["about"]
    _compare(_crc(about), document["crc32"])
    return about


def _compare(found: object, expected: object) -> None:
    if found != expected:
        raise ValueError(f"{expected!r} expected, {found!r} found")
