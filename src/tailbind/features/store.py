"""Vectors kept on disk, so that a sequence is embedded once: shards of rows, found by the sequences' hashes.

Every shard is written whole under a name of its own and carries its keys and a checksum. There is no other index
that could disagree with them: it is read from the shards. Several programs may write to one store at a time; what two
of them compute is there twice, and equal.
"""

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import FeatureError
from tailbind.features.pretrained import INSTALL
from tailbind.runtime import cannot_write, remark, write_json, writing

#: Raised when what is stored changes its meaning.
STORE_VERSION: Final = 1
KEY_BYTES: Final = 16
#: Shards below the first size are merged, into ones of at most about the second.
SMALL_BYTES: Final = 8 << 20
LARGE_BYTES: Final = 64 << 20
#: Small shards that are let be: the next merging takes them along.
FEWEST_TO_MERGE: Final = 8
#: What a killed program left half-written is removed when it is so old (seconds).
STALE: Final = 3_600

Vectors = NDArray[np.float32]


def default_store() -> Path:
    """Return the folder that vectors are kept in: the user's cache, or what `TAILBIND_CACHE` names."""
    import platformdirs

    return Path(os.environ.get("TAILBIND_CACHE") or platformdirs.user_cache_dir("tailbind")) / "embeddings"


def sequence_key(sequence: str, chosen: NDArray[np.bool_] | None = None) -> bytes:
    """Return what a sequence's vector is found by, given the residues that are pooled where that is not all of them.

    >>> sequence_key("EVQL") == sequence_key("EVQL", np.array([True, False, True, True]))
    False
    """
    digest = hashlib.blake2b(sequence.encode(), digest_size=KEY_BYTES)
    if chosen is not None:
        digest.update(b"\0" + np.packbits(chosen).tobytes())
    return digest.digest()


class Store:
    """The vectors of one encoder, read in one way.

    Parameters
    ----------
    root : folder of all stores
    about : all that a vector depends on beside its sequence, JSON-able; it has a folder of its own in `root`
    name : what the folder's name begins with

    Examples
    --------
    >>> import tempfile
    >>> store = Store(Path(tempfile.mkdtemp()), {"encoder": "sha256 of its files", "pool": "mean"}, "esm2")
    >>> store.write([b"0" * 16], np.ones((1, 3), np.float32))
    >>> store.read([b"0" * 16, b"1" * 16])
    (array([ True, False]), array([[1., 1., 1.], [0., 0., 0.]], dtype=float32))
    """

    def __init__(self, root: Path, about: Mapping[str, Any], name: str) -> None:
        described = {"version": STORE_VERSION, **about}
        digest = hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=8).hexdigest()
        self.folder = root / f"{name}-{digest}"
        self._places: dict[bytes, tuple[str, int]] = {}
        self._seen: set[str] = set()
        self._useless: set[str] = set()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        if not (self.folder / "about.json").exists():
            write_json(self.folder / "about.json", described)

    def refresh(self) -> None:
        """Look for shards that are new, of this program or another."""
        present = {entry.name for entry in os.scandir(self.folder) if entry.name.startswith("shard-")} - self._useless
        if self._seen - present:
            self._forget()
        for name in sorted(present - self._seen):
            try:
                with _opened(self.folder / name) as shard:
                    keys = _as_keys(shard.get_tensor("keys"))
            except FileNotFoundError:  # merged by another program just now
                continue
            except _DAMAGE as error:
                self._discard(name, error)
                continue
            self._seen.add(name)
            for row, key in enumerate(keys):
                self._places.setdefault(key, (name, row))

    def has(self, key: bytes) -> bool:
        """Return whether a key was there at the last look."""
        return key in self._places

    def read(self, keys: Sequence[bytes]) -> tuple[NDArray[np.bool_], Vectors | None]:
        """Return which keys are there, and their vectors.

        A damaged shard is removed, with a remark, and what it held is not there.

        Returns
        -------
        found : (n,)
        vectors : (n, width), 0 where not found; None where nothing is
        """
        self.refresh()
        found = np.zeros(len(keys), np.bool_)
        vectors: Vectors | None = None
        wanted = {row for row, key in enumerate(keys) if key in self._places}
        while wanted:
            by_shard: dict[str, list[tuple[int, int]]] = {}
            for row in sorted(wanted):
                name, place = self._places[keys[row]]
                by_shard.setdefault(name, []).append((row, place))
            for name, places in by_shard.items():
                if (loaded := self._load(name)) is None:
                    continue
                rows, values = [row for row, _ in places], loaded[1]
                if vectors is None:
                    vectors = np.zeros((len(keys), values.shape[1]), np.float32)
                vectors[rows] = values[[place for _, place in places]]
                found[rows] = True
                wanted -= set(rows)
            if wanted:  # their shards are gone: damaged, or merged by another program
                self.refresh()
                wanted = {row for row in wanted if keys[row] in self._places}
        return found, vectors

    def write(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Write a shard, whole or not at all.

        Raises
        ------
        RunError
            When it cannot be written.
        """
        from safetensors.numpy import save

        rows = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), KEY_BYTES)
        content = save(
            {"keys": rows, "vectors": np.ascontiguousarray(vectors, np.float32)},
            metadata={"checksum": _checksum(rows, vectors)},
        )
        name = f"shard-{uuid.uuid4().hex}.safetensors"
        with writing(self.folder / name) as handle:
            handle.write(content)
        self._seen.add(name)
        for row, key in enumerate(keys):
            self._places.setdefault(key, (name, row))

    def merge(self) -> None:
        """Bring small shards together in larger ones, where there are several.

        The merged shard is whole before the first of its parts is removed: a kill leaves rows twice, never none.
        Another program that merges at the same time makes this one stop.
        """
        self._sweep()
        self.refresh()
        sizes = {name: size for name in sorted(self._seen) if (size := _size(self.folder / name)) < SMALL_BYTES}
        if len(sizes) < FEWEST_TO_MERGE:
            return
        group: list[str] = []
        for name in sizes:
            if group and sum(sizes[member] for member in group) + sizes[name] > LARGE_BYTES:
                self._merge(group)
                group = []
            group.append(name)
        self._merge(group)

    def _merge(self, names: Sequence[str]) -> None:
        rows: dict[bytes, NDArray[np.float32]] = {}
        for name in names:
            if (loaded := self._load(name)) is None:
                return
            for key, vector in zip(_as_keys(loaded[0]), loaded[1], strict=True):
                rows.setdefault(key, vector)
        self.write(list(rows), np.stack(list(rows.values())))
        for name in names:
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()
        self._forget()

    def _load(self, name: str) -> tuple[NDArray[np.uint8], Vectors] | None:
        """Return a shard's keys and vectors; None where it is gone or, with a remark, damaged."""
        try:
            with _opened(self.folder / name) as shard:
                keys, vectors = shard.get_tensor("keys"), shard.get_tensor("vectors")
                if (shard.metadata() or {}).get("checksum") != _checksum(keys, vectors):
                    raise ValueError("its checksum is another")
        except FileNotFoundError:
            self._forget()
            return None
        except _DAMAGE as error:
            self._discard(name, error)
            self._forget()
            return None
        return keys, vectors

    def _discard(self, name: str, error: Exception) -> None:
        """Tell of a shard that cannot be used, and remove it where it is damaged beyond doubt."""
        reason = " ".join(str(error).split())[:100]
        remark(f"Warning: {self.folder / name} is damaged ({reason}); what it held is computed again.")
        if not isinstance(error, OSError):
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()
        self._useless.add(name)

    def _forget(self) -> None:
        """Have the next look read all shards: what one of them held, another may hold too."""
        self._seen.clear()
        self._places.clear()

    def _sweep(self) -> None:
        """Remove what killed programs left half-written."""
        for part in self.folder.glob(".shard-*.part"):
            with contextlib.suppress(OSError):
                if time.time() - part.stat().st_mtime > STALE:
                    part.unlink()


#: What reading a damaged shard may raise, beside what safetensors has of its own.
_DAMAGE: Final = (OSError, ValueError, KeyError, TypeError, RuntimeError)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a shard; whatever is wrong with it is a ValueError, but that it is not there."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise FeatureError(
            f"Kept embeddings need the package safetensors; it is not installed. Run: {INSTALL}"
        ) from None
    try:
        with safe_open(path, framework="numpy") as shard:
            yield shard
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _as_keys(rows: NDArray[np.uint8]) -> list[bytes]:
    if rows.ndim != 2 or rows.shape[1] != KEY_BYTES:
        raise ValueError("its keys are no keys")
    return [row.tobytes() for row in rows]


def _checksum(keys: NDArray[np.uint8], vectors: Vectors) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in (keys, np.ascontiguousarray(vectors, np.float32)):
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return SMALL_BYTES  # gone: nothing to merge
