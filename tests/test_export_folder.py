"""A model on disk without pickles: what comes back is what was written, and what was changed is told."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from tailbind import export_folder
from tailbind.checkpoint import Checkpoint, save_state
from tailbind.errors import CheckpointError
from tailbind.export_folder import (
    GRAPH,
    STATE,
    TENSORS,
    load_beside,
    read_export,
    write_beside,
    write_manifest,
    write_model,
)  # fmt: skip
from tailbind.run_folder import CONFIG, MANIFEST, RunFolder

MODEL = Checkpoint(
    recipe_name="mine",
    recipe={"name": "mine", "model": {"hidden_dims": [8], "dropout": 0.1}},
    features={"block": {"names": ["e_0", "µ"], "mean": np.array([0.1, np.nan], np.float32), "scale": None}},
    model_kind="mlp",
    model={
        "members": [{"0.weight": torch.tensor([[1.5, -0.0]]), "0.count": torch.tensor(7)}],
        "0": {"weight": np.asfortranarray(np.arange(6.0).reshape(2, 3))},
        "0.weight": np.array([True, False]),
        "empty": torch.zeros(0, 3, dtype=torch.uint8),
        "far": [float("inf"), float("-inf")],
    },
    epoch=3,
    val_loss=0.1 + 0.2,
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """An exported model, with the few files that it must have."""
    write_model(tmp_path, MODEL)
    (tmp_path / CONFIG).write_text(json.dumps({"name": "mine"}))
    write_manifest(tmp_path, {"tailbind": "0.1.0"}, [TENSORS, STATE, CONFIG])
    return RunFolder(tmp_path, "mine")


def assert_same(before: Any, after: Any) -> None:
    """Check that two values of a state are the same to the bit, type by type."""
    if isinstance(before, np.ndarray | torch.Tensor):
        assert type(after) is type(before)
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
        assert np.asarray(after).tobytes() == np.asarray(before).tobytes()
    elif isinstance(before, dict):
        assert list(after) == list(before)
        for key in before:
            assert_same(before[key], after[key])
    elif isinstance(before, list | tuple):
        assert len(after) == len(before)
        for one, other in zip(before, after, strict=True):
            assert_same(one, other)
    else:
        assert type(after) is type(before)
        assert repr(after) == repr(before)


def test_a_model_comes_back_to_the_bit(folder: RunFolder) -> None:
    assert_same(vars(MODEL), vars(read_export(folder)))


keys = st.one_of(st.text(max_size=8), st.sampled_from(["$tensor", "$array", "$pairs", "0.weight"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(keys | st.integers(), children, max_size=3),
    max_leaves=12,
)


@given(values)
def test_any_plain_value_comes_back_as_it_was_through_strict_json(value: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(export_folder._to_json(value, "", tensors), allow_nan=False)
    assert_same(value, export_folder._from_json(json.loads(text), tensors))


def test_tensors_and_json_are_read_without_torch_and_without_tailbind(folder: RunFolder) -> None:
    tensors = load_file(folder.path / TENSORS)
    document = json.loads((folder.path / STATE).read_text())
    document = document["state"]
    named = document["model"]["members"][0]["0.weight"]["$tensor"]
    assert tensors[named].tolist() == [[1.5, 0.0]]
    assert {document["model"]["0"]["weight"]["$array"], document["model"]["0.weight"]["$array"]} == {
        "model.0.weight",
        "model.0.weight~2",
    }


def test_what_is_no_plain_value_is_a_mistake_of_the_program() -> None:
    with pytest.raises(TypeError, match=r"made of tensors, arrays and plain values; model\.x is a set"):
        export_folder._to_json({"model": {"x": {1}}}, "", {})


@pytest.mark.parametrize("name", [TENSORS, STATE, CONFIG])
def test_a_damaged_file_is_told_by_name(folder: RunFolder, name: str) -> None:
    content = bytearray((folder.path / name).read_bytes())
    content[-3] ^= 1
    (folder.path / name).write_bytes(bytes(content))
    with pytest.raises(
        CheckpointError, match=rf"{name} must be as it was exported; its SHA-256 is not the one"
    ) as told:
        read_export(folder)
    assert "Copy the folder again" in str(told.value)


@pytest.mark.parametrize("name", [TENSORS, STATE, CONFIG])
def test_a_missing_file_is_told_by_name(folder: RunFolder, name: str) -> None:
    (folder.path / name).unlink()
    with pytest.raises(CheckpointError, match=rf"must hold {name}, as its export.json says; it does not"):
        read_export(folder)


def change(folder: RunFolder, **entries: Any) -> None:
    manifest = json.loads(folder.manifest.read_text())
    folder.manifest.write_text(json.dumps({**manifest, **entries}))


def test_a_newer_version_is_refused(folder: RunFolder) -> None:
    change(folder, version=2, tailbind="9.0")
    with pytest.raises(
        CheckpointError, match=r"must be an export of version 1 at most; got version 2, written by tailbind 9\.0\. Upd"
    ):
        read_export(folder)


@pytest.mark.parametrize("version", [None, "1"])
def test_a_version_that_is_no_number_is_refused(folder: RunFolder, version: object) -> None:
    change(folder, version=version)
    with pytest.raises(CheckpointError, match="must be an export of version 1 at most"):
        read_export(folder)


def test_a_foreign_or_broken_manifest_is_told(folder: RunFolder) -> None:
    folder.manifest.write_text('{"format": "another"}')
    with pytest.raises(CheckpointError, match=r"export\.json must be of an exported model; it was written by somethi"):
        read_export(folder)
    folder.manifest.write_text('{"format": ')
    with pytest.raises(CheckpointError, match=r"export\.json must be readable JSON; it is damaged\. Copy"):
        read_export(folder)


@pytest.mark.parametrize("files", [None, {}, {TENSORS: {}}, {TENSORS: None, STATE: None}])
def test_a_manifest_without_the_model_s_files_is_told(folder: RunFolder, files: object) -> None:
    change(folder, files=files)
    with pytest.raises(CheckpointError, match=r"must list the model's files|must be as it was exported"):
        read_export(folder)


def test_a_name_in_the_manifest_leads_nowhere_else(folder: RunFolder, tmp_path: Path) -> None:
    manifest = json.loads(folder.manifest.read_text())
    outside = tmp_path.parent / "outside.txt"
    outside.write_text("secret")
    change(folder, files={**manifest["files"], "../outside.txt": {"sha256": "0"}})
    with pytest.raises(CheckpointError, match=r"must hold \.\./outside\.txt"):
        read_export(folder)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"content": "model", "state": {}},
        {"content": "model", "state": [1]},
        {"content": "resume", "state": {**vars(MODEL), "features": {}, "model": {}}},
        {"content": "model", "state": {**vars(MODEL), "features": {}, "model": {"$tensor": "nowhere"}}},
        {"content": "model", "state": {**vars(MODEL), "features": {}, "model": {"$array": ["unhashable"]}}},
        {"content": "model", "state": {**vars(MODEL), "features": {}, "model": {"$pairs": 3}}},
        {"content": "model", "state": {**vars(MODEL), "features": {}, "model": {"$number": "many"}}},
    ],
)
def test_a_state_that_is_no_model_is_told(folder: RunFolder, document: object) -> None:
    (folder.path / STATE).write_text(json.dumps(document))
    write_manifest(folder.path, {"tailbind": "0.1.0"}, [TENSORS, STATE, CONFIG])
    with pytest.raises(CheckpointError, match=r"model\.json must hold a whole model state; it does not"):
        read_export(folder)


def test_tensors_that_are_none_are_told(folder: RunFolder) -> None:
    (folder.path / TENSORS).write_bytes(b"no safetensors")
    write_manifest(folder.path, {"tailbind": "0.1.0"}, [TENSORS, STATE, CONFIG])
    with pytest.raises(CheckpointError, match="must hold a whole model state"):
        read_export(folder)


STATE_BESIDE = {"scores": [np.arange(3.0), np.array([np.inf])], "level": 0.9, "far": float("nan")}


def test_a_state_beside_the_model_travels_without_a_pickle(tmp_path: Path) -> None:
    run, out = RunFolder(tmp_path / "run", "mine"), RunFolder(tmp_path / "out", "mine")
    run.path.mkdir()
    out.path.mkdir()
    path = run.path / "calibration.pth"
    assert load_beside(run, path, "calibration") is None
    save_state(path, "calibration", STATE_BESIDE)
    assert write_beside(out.path, path) == ["calibration.safetensors", "calibration.json"]
    (run.path / "domain.parquet").write_bytes(b"PAR1")
    assert write_beside(out.path, run.path / "domain.parquet") == ["domain.parquet"]
    out.manifest.write_text("{}")
    assert_same(STATE_BESIDE, load_beside(run, path, "calibration"))
    assert_same(STATE_BESIDE, load_beside(out, out.path / "calibration.pth", "calibration"))
    assert load_beside(out, out.path / "other.pth", "calibration") is None
    with pytest.raises(CheckpointError, match=r"calibration\.json must hold a whole other state; it does not"):
        load_beside(out, out.path / "calibration.pth", "other")


def test_a_file_that_is_not_listed_is_of_no_matter(folder: RunFolder) -> None:
    (folder.path / GRAPH).write_text("mine")
    shutil.copy(folder.path / CONFIG, folder.path / "notes.json")
    assert read_export(folder).epoch == 3
    assert folder.is_export and folder.is_done and folder.manifest.name == MANIFEST
