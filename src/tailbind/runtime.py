"""What a run needs of the machine: seeds, a device, files written whole, and a record of the environment.

torch is imported inside the functions that use it, so that `tailbind --help` does not wait for it.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from tailbind.errors import RunError, TrainingError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
Work = TypeVar("Work")
Done = TypeVar("Done")


_LISTENER: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def remarks_to(notify: Callable[[str], None]) -> Iterator[None]:
    """Have `notify` told the remarks of all that is done inside; without it nobody hears them."""
    before = _LISTENER.set(notify)
    try:
        yield
    finally:
        _LISTENER.reset(before)


def remark(text: str) -> None:
    """Tell whoever listens a sentence about the work that is being done.

    >>> with remarks_to(print):
    ...     remark("3 sequences are longer than the encoder takes.")
    3 sequences are longer than the encoder takes.
    """
    if notify := _LISTENER.get():
        notify(text)


#: Told how much of a piece of work is done, and of how much.
Progress = Callable[[int, int], None]
#: Shows the progress of a piece of work, given its name.
Display = Callable[[str], contextlib.AbstractContextManager[Progress]]

_DISPLAY: ContextVar[Display | None] = ContextVar("display", default=None)


@contextlib.contextmanager
def showing_progress(display: Display) -> Iterator[None]:
    """Have `display` show the progress of all that is done inside; without it nothing is shown."""
    before = _DISPLAY.set(display)
    try:
        yield
    finally:
        _DISPLAY.reset(before)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress]:
    """Yield what to tell of the progress of a long piece of work: how much is done, and of how much.

    >>> with progress("Counting") as tell:
    ...     for number in range(3):
    ...         tell(number, 3)
    """
    display = _DISPLAY.get()
    if display is None:
        yield lambda done, of: None
        return
    with display(what) as tell:
        yield tell


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary neighbour of `path` for writing; on leaving, `path` is the whole file or as before.

    Raises
    ------
    RunError
        When the folder is read-only, the disk is full, or anything else keeps the file from being written.
    """
    temporary = None
    try:
        handle = tempfile.NamedTemporaryFile(  # noqa: SIM115 (closed below, before the rename)
            dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
        )
        temporary = Path(handle.name)
        with handle:
            yield handle.file
            handle.flush()
            os.fsync(handle.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> RunError:
    """Return the one-line error for a file that could not be written."""
    return RunError(
        f"{path} must be writable; {error.strerror or error}. Free space or choose another place; "
        "what was written before is whole."
    )


def check_empty(folder: Path) -> None:
    """Refuse a folder for results that holds anything.

    Raises
    ------
    RunError
        When it does, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"--out {folder} must be a new or empty folder; it is not. Choose another name.")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with writing(path) as handle:
        handle.write(text.encode())


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, whole or not at all; numbers that are not finite become null."""
    write_text(path, to_json(value) + "\n")


def to_json(value: object) -> str:
    """Return indented, strictly valid JSON: what is not a finite number becomes null.

    >>> print(to_json({"rmse": float("nan")}))
    {
      "rmse": null
    }
    """
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_DEVICE: ContextVar[str] = ContextVar("device", default="auto")


@contextlib.contextmanager
def computing_on(name: str) -> Iterator[None]:
    """Have `auto` mean this device for all that is done inside: feature blocks follow the run they are part of.

    >>> with computing_on("cpu"):
    ...     choose_device().type
    'cpu'
    """
    before = _DEVICE.set(name)
    try:
        yield
    finally:
        _DEVICE.reset(before)


def choose_device(name: str = "auto") -> "torch.device":
    """Return the device to compute on: the GPU where `auto` finds one, unless `computing_on` says otherwise.

    Raises
    ------
    TrainingError
        When `cuda` is asked for and PyTorch sees no GPU.
    """
    import torch

    name = _DEVICE.get() if name == "auto" else name
    if name not in DEVICES:
        raise TrainingError(f"--device must be one of {', '.join(DEVICES)}; got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "--device cuda needs a GPU that PyTorch can use; none was found (CUDA available: False). "
            "Use --device cpu, or install a CUDA build of PyTorch."
        )
    if name == "cpu" or not torch.cuda.is_available():
        torch.set_flush_denormal(True)  # tiny weights after long decay are 10 to 100 times slower otherwise
        return torch.device("cpu")
    return torch.device("cuda")


@contextlib.contextmanager
def threads_at_most(limit: int) -> Iterator[None]:
    """Have PyTorch, NumPy and SciPy compute with no more than `limit` threads inside.

    Threads that share little work wait for each other most of the time, and they wait busily: where another program
    takes a core, up to thirty times longer than one thread alone needs.

    >>> import torch
    >>> with threads_at_most(1):
    ...     torch.get_num_threads()
    1
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(min(limit, before))
    try:
        with blas_threads_at_most(limit):
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def each_a_thread(n_threads: int) -> Iterator[Callable[[Callable[[Work], Done], Sequence[Work]], Iterator[Done]]]:
    """Yield a `map` whose calls are made in so many threads, in each of which PyTorch computes with one alone.

    With one thread it is the usual `map`, and PyTorch computes as ever.

    >>> with each_a_thread(2) as apply:
    ...     list(apply(abs, [-1, 2]))
    [1, 2]
    """
    if n_threads == 1:
        yield map
        return
    import torch

    def alone() -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # a setting of each thread's own on some systems

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(n_threads, initializer=alone) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def blas_threads_at_most(limit: int) -> Iterator[None]:
    """Have NumPy and SciPy compute with no more than `limit` threads inside; PyTorch has threads of its own."""
    from threadpoolctl import threadpool_info, threadpool_limits

    found = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    with threadpool_limits(min([limit, *found]), user_api="blas"):
        yield


def describe_device(device: "torch.device") -> str:
    """Return one line that names the device, as the first line of a run shows it."""
    import torch

    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"cuda: {properties.name}, {properties.total_memory / 2**30:.0f} GiB (CUDA available: True)"
    return f"cpu: {torch.get_num_threads()} threads (CUDA available: {torch.cuda.is_available()})"


def missing_gpu_warning(device: "torch.device", asked: str) -> str | None:
    """Return a warning where a GPU would be expected and is not used, else None."""
    if device.type != "cpu" or asked == "cpu":
        return None
    if "COLAB_RELEASE_TAG" in os.environ:
        return "No GPU in this Colab runtime: Runtime → Change runtime type → GPU, then run again."
    if shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists():
        return "This machine has an NVIDIA driver but PyTorch sees no GPU: install a CUDA build of PyTorch."
    return None


def available_bytes() -> int:
    """Return the memory that this process may still take; without a limit, where the system does not tell.

    On Linux the least of what the machine has left, a container's limit and the process's own limit leave.
    """
    found = [sys.maxsize]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with contextlib.suppress(OSError, ValueError, KeyError):  # "max" is no number
        group = Path("/sys/fs/cgroup")
        limit, taken = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        found.append(limit - taken + int(statistics["inactive_file"]))  # files kept in memory while there is room
    with contextlib.suppress(ImportError, OSError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            found.append(limit - taken)
    return max(0, min(found))


def file_hash(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of the files' bytes, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as handle:
            while chunk := handle.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def environment_record(device: "torch.device") -> dict[str, object]:
    """Return versions, machine and device: what someone needs to repeat a run."""
    packages = ("tailbind", "torch", "numpy", "polars", "scikit-learn", "scipy", "matplotlib")
    versions = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor_count": os.cpu_count(),
        "device": describe_device(device),
        "versions": versions,
    }
