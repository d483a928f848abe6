"""Checkpoints: tensors, arrays and JSON-able values in one file, written whole and read without running code."""

import io
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from tailbind.errors import CheckpointError
from tailbind.runtime import writing

FORMAT: Final = "tailbind checkpoint"
#: Raised whenever a checkpoint of before cannot be read as one of now.
VERSION: Final = 1

MODEL, RESUME, CALIBRATION = "model", "resume", "calibration"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with all it needs to predict.

    Attributes
    ----------
    recipe_name : of the recipe it was trained by
    recipe : the recipe resolved, section by section
    features : state of the feature pipeline
    model_kind : registered name of the model
    model : state of the model
    epoch : that it is from; 0 for models without epochs
    val_loss : validation loss of that epoch
    """

    recipe_name: str
    recipe: Mapping[str, Any]
    features: Mapping[str, Any]
    model_kind: str
    model: Mapping[str, Any]
    epoch: int
    val_loss: float


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all."""
    save_state(path, MODEL, vars(checkpoint))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint written by `save_checkpoint`.

    Raises
    ------
    CheckpointError
        For a file that is missing, truncated, not a checkpoint, of another version, or holds code.
    """
    state = load_state(path, MODEL)
    missing = {field.name for field in fields(Checkpoint)} ^ set(state)
    if missing:
        raise CheckpointError(f"{path} must hold a whole model; these entries are missing or new: {sorted(missing)}.")
    return Checkpoint(**state)


def save_state(path: Path, content: str, state: Mapping[str, Any]) -> None:
    """Write tensors, arrays and JSON-able values, whole or not at all."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION, "content": content, **_portable(dict(state))}, buffer)
    with writing(path) as handle:
        handle.write(buffer.getbuffer())


def load_state(path: Path, content: str) -> dict[str, Any]:
    """Read what `save_state` wrote; never runs code that a file may hold.

    Raises
    ------
    CheckpointError
        For a file that is missing, truncated, not a checkpoint, of another version or content, or holds code.
    """
    found, state = load_any_state(path)
    if found != content:
        raise CheckpointError(f"{path} must hold a {content} state; got a {found} state.")
    return state


def load_any_state(path: Path) -> tuple[str, dict[str, Any]]:
    """Read what `save_state` wrote, whatever it is of: its content and the state.

    Raises
    ------
    CheckpointError
        As `load_state` does, but for the content.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} must be a tailbind checkpoint; there is no such file.")
    if not _is_whole(path):
        raise CheckpointError(
            f"{path} must be a whole tailbind checkpoint; it is truncated, damaged or something else."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} must hold tensors and plain values only; it holds code, which was not run. Do not use it."
        ) from error
    except (RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError, Warning) as error:
        raise CheckpointError(f"{path} must be a whole tailbind checkpoint; it is truncated or damaged.") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} must be a tailbind checkpoint; it was written by something else.")
    found = state.get("version")
    if found != VERSION:
        raise CheckpointError(
            f"{path} must be a checkpoint of version {VERSION}; got version {found}. "
            "Train again, or use the tailbind that wrote it."
        )
    kept = {key: _native(value) for key, value in state.items() if key not in ("format", "version", "content")}
    return str(state.get("content")), kept


def _is_whole(path: Path) -> bool:
    """Return whether a file is a zip archive whose every member has its checksum; PyTorch itself checks none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, LookupError, ValueError, RuntimeError):
        return False


_ARRAY: Final = "__array__"


def _portable(value: Any) -> Any:
    """Return `value` with NumPy arrays as marked tensors, for the reader admits no NumPy types."""
    if isinstance(value, np.ndarray):
        return {_ARRAY: torch.from_numpy(np.array(value, order="C"))}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    return value


def _native(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return value[_ARRAY].numpy()
        return {key: _native(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_native(item) for item in value]
    return value
