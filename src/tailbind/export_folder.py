"""An exported model on disk: tensors as safetensors, all else as JSON, and a manifest with each file's hash.

Nothing in it is a pickle, and what is no tensor can be read without tailbind. A value of the model's state is written
as JSON has it; what JSON has no word for is an object with a single key: `{"$tensor": name}` or `{"$array": name}` for
a tensor of `model.safetensors`, `{"$number": "inf"}`, and `{"$pairs": [[key, value], …]}` for a mapping whose keys are
not plain text. What goes into the folder beside the model is `workflows.exporting`'s.
"""

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tailbind.checkpoint import MODEL, Checkpoint, load_any_state, load_state
from tailbind.errors import CheckpointError, RunError
from tailbind.run_folder import MANIFEST, RunFolder
from tailbind.runtime import file_hash, write_json, write_text, writing

if TYPE_CHECKING:
    from torch import Tensor

FORMAT: Final = "tailbind export"
#: Raised whenever an export of now cannot be read as one of before.
VERSION: Final = 1

TENSORS, STATE, GRAPH = "model.safetensors", "model.json", "model.onnx"
_SUFFIXES: Final = (".safetensors", ".json")

_TENSOR, _ARRAY, _NUMBER, _PAIRS = "$tensor", "$array", "$number", "$pairs"
_AGAIN: Final = "Copy the folder again, or export the run anew."


def write_model(folder: Path, checkpoint: Checkpoint) -> list[str]:
    """Write a model as `model.safetensors` and `model.json`, whose names are returned; it comes back to the bit.

    Raises
    ------
    RunError
        When the package safetensors is not installed.
    """
    return write_state(folder, "model", MODEL, vars(checkpoint))


def write_beside(folder: Path, path: Path) -> list[str]:
    """Write a file that a run keeps beside its model, a state as the model's is; return the names of what was written.

    Raises
    ------
    CheckpointError, RunError
        When it is a damaged state, or the package safetensors is not installed.
    """
    if path.suffix == ".pth":
        return write_state(folder, path.stem, *load_any_state(path))
    shutil.copyfile(path, folder / path.name)
    return [path.name]


def write_state(folder: Path, stem: str, content: str, state: Mapping[str, Any]) -> list[str]:
    """Write what `checkpoint.save_state` writes, without a pickle; return the names of both files."""
    library = _safetensors()
    tensors: dict[str, Tensor] = {}
    document = {"content": content, "state": _to_json(state, "", tensors)}
    names = [f"{stem}{suffix}" for suffix in _SUFFIXES]
    with writing(folder / names[0]) as handle:
        handle.write(library.torch.save(tensors, metadata={"format": "pt"}))
    write_text(folder / names[1], json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return names


def write_manifest(folder: Path, about: Mapping[str, Any], files: Iterable[str]) -> None:
    """Write what an exported folder is and the hash of each of its files, by which it is recognised and checked."""
    content = {
        name: {"sha256": file_hash([folder / name]), "bytes": (folder / name).stat().st_size} for name in sorted(files)
    }
    write_json(folder / MANIFEST, {"format": FORMAT, "version": VERSION, **about, "files": content})


def read_export(run: RunFolder) -> Checkpoint:
    """Return the model of an exported folder, all of whose files are as they were written.

    Raises
    ------
    CheckpointError
        For a folder that something else wrote, or a newer tailbind; and for a file that is missing or damaged.
    RunError
        When the package safetensors is not installed.
    """
    check_files(run)
    state = _read_state(run, "model", MODEL)
    if set(state) != {field.name for field in fields(Checkpoint)}:
        raise _damaged(run.path / STATE, MODEL)
    return Checkpoint(**state)


def load_beside(run: RunFolder, path: Path, content: str) -> dict[str, Any] | None:
    """Return a state that is kept beside the model, of a run or an exported one; None where there is none.

    Parameters
    ----------
    path : of the state as a run has it, such as `run.calibration`
    content : what it is of

    Raises
    ------
    CheckpointError, RunError
        When it is damaged or of something else, or the package safetensors is not installed.
    """
    if not run.is_export:
        return load_state(path, content) if path.exists() else None
    return _read_state(run, path.stem, content) if (run.path / f"{path.stem}.json").exists() else None


def _read_state(run: RunFolder, stem: str, content: str) -> dict[str, Any]:
    """Return what `write_state` wrote."""
    library = _safetensors()
    tensors_file, state_file = (run.path / f"{stem}{suffix}" for suffix in _SUFFIXES)
    try:
        tensors = library.torch.load(tensors_file.read_bytes())
        document = json.loads(state_file.read_text(encoding="utf-8"))
        found, state = document["content"], _from_json(document["state"], tensors)
    except (OSError, LookupError, ValueError, TypeError, library.SafetensorError) as error:
        raise _damaged(state_file, content) from error
    if found != content or not isinstance(state, dict):
        raise _damaged(state_file, content)
    return state


def _damaged(path: Path, content: str) -> CheckpointError:
    return CheckpointError(f"{path} must hold a whole {content} state; it does not. {_AGAIN}")


def check_files(run: RunFolder) -> None:
    """Check that an exported folder is one that this tailbind can read, and its files what they were.

    Raises
    ------
    CheckpointError
        When it is not, naming the file.
    """
    try:
        manifest = run.read_json(run.manifest)
    except RunError as error:
        raise CheckpointError(f"{run.manifest} must be readable JSON; it is damaged. {_AGAIN}") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{run.manifest} must be of an exported model; it was written by something else.")
    version = manifest.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise CheckpointError(
            f"{run.path} must be an export of version {VERSION} at most; got version {version}, written by tailbind "
            f"{manifest.get('tailbind')}. Update tailbind, or export the run with this one."
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or not {TENSORS, STATE} <= set(files):
        raise CheckpointError(f"{run.manifest} must list the model's files; it does not. {_AGAIN}")
    for name, entry in files.items():
        path = run.path / Path(name).name
        if not path.is_file():
            raise CheckpointError(f"{run.path} must hold {name}, as its {MANIFEST} says; it does not. {_AGAIN}")
        if not isinstance(entry, dict) or file_hash([path]) != entry.get("sha256"):
            raise CheckpointError(
                f"{path} must be as it was exported; its SHA-256 is not the one in {MANIFEST}: it is damaged or was "
                f"changed. {_AGAIN}"
            )


def _safetensors() -> Any:
    """Return the package safetensors."""
    try:
        import safetensors.torch
    except ImportError:
        raise RunError(
            "An exported model needs the package safetensors; it is not installed. Run: pip install safetensors"
        ) from None
    return safetensors


def _to_json(value: Any, name: str, tensors: "dict[str, Tensor]") -> Any:
    """Return a value of a state as JSON has it; its tensors and arrays are put into `tensors`, named by where they are.

    >>> found = {}
    >>> _to_json({"weights": [np.zeros(2)], "floor": float("-inf")}, "", found)
    {'weights': [{'$array': 'weights.0'}], 'floor': {'$number': '-inf'}}
    >>> found
    {'weights.0': tensor([0., 0.], dtype=torch.float64)}
    """
    import torch

    if isinstance(value, np.ndarray):
        return {_ARRAY: _put(torch.from_numpy(np.array(value, order="C")), name, tensors)}
    if isinstance(value, torch.Tensor):
        return {_TENSOR: _put(value.detach().cpu().contiguous().clone(), name, tensors)}
    if isinstance(value, np.generic):
        return _to_json(value.item(), name, tensors)
    if isinstance(value, Mapping):
        items = [(key, _to_json(item, f"{name}.{key}".lstrip("."), tensors)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
            return dict(items)
        return {_PAIRS: [list(item) for item in items]}
    if isinstance(value, list | tuple):
        return [_to_json(item, f"{name}.{place}".lstrip("."), tensors) for place, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {_NUMBER: str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a state is made of tensors, arrays and plain values; {name} is a {type(value).__name__}")


def _put(tensor: "Tensor", name: str, tensors: "dict[str, Tensor]") -> str:
    """Put a tensor under a name that no other has, and return the name."""
    number, free = 1, name
    while free in tensors:
        number += 1
        free = f"{name}~{number}"
    tensors[free] = tensor
    return free


def _from_json(value: Any, tensors: "Mapping[str, Tensor]") -> Any:
    """Return what `_to_json` was given; arrays and tensors in memory of their own."""
    if isinstance(value, list):
        return [_from_json(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    kind: str
    content: Any
    kind, content = next(iter(value.items())) if len(value) == 1 else ("", None)
    if kind == _TENSOR:
        return tensors[content].clone()
    if kind == _ARRAY:
        return tensors[content].clone().numpy()
    if kind == _NUMBER:
        return float(content)
    if kind == _PAIRS:
        return {key: _from_json(item, tensors) for key, item in content}
    return {key: _from_json(item, tensors) for key, item in value.items()}
