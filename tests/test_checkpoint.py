import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tailbind import checkpoint
from tailbind.checkpoint import Checkpoint, load_checkpoint, load_state, save_checkpoint, save_state
from tailbind.errors import CheckpointError

STATE: dict[str, Any] = {
    "tensors": [torch.arange(6.0).reshape(2, 3), torch.tensor([1, 2], dtype=torch.uint8), torch.zeros(0, 3)],
    "arrays": {"float32": np.arange(4, dtype=np.float32), "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3))},
    "plain": {"text": "µ", "none": None, "yes": True, "count": 3, "number": 0.1, "far": float("inf")},
    "by_number": {0: {"step": torch.tensor(1.0)}, 1: {}},
}


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "state.pth"
    save_state(path, checkpoint.RESUME, STATE)
    return path


def test_tensors_arrays_and_values_come_back_as_they_were(saved: Path) -> None:
    loaded = load_state(saved, checkpoint.RESUME)
    assert set(loaded) == set(STATE)
    for before, after in zip(STATE["tensors"], loaded["tensors"], strict=True):
        assert torch.equal(before, after)
        assert before.dtype == after.dtype
    for name, before in STATE["arrays"].items():
        after = loaded["arrays"][name]
        assert isinstance(after, np.ndarray)
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)
    assert loaded["plain"] == STATE["plain"]
    assert loaded["by_number"] == STATE["by_number"]


def test_an_array_without_dimensions_keeps_its_shape(tmp_path: Path) -> None:
    save_state(tmp_path / "a.pth", "model", {"value": np.array(1.5)})
    assert load_state(tmp_path / "a.pth", "model")["value"].shape == ()


@pytest.mark.parametrize("value", [np.float64(1.5), np.float32(1.5), np.int64(3), np.bool_(True)])
def test_numpy_scalars_are_saved_as_plain_numbers(tmp_path: Path, value: Any) -> None:
    save_state(tmp_path / "a.pth", "model", {"value": value})
    assert load_state(tmp_path / "a.pth", "model")["value"] == value.item()


def test_a_model_comes_back_whole(tmp_path: Path) -> None:
    model = Checkpoint(
        recipe_name="v2",
        recipe={"model": {"hidden_dims": [512, 256]}},
        features={"columns": {"names": ["e_0"], "mean": None}},
        model_kind="mlp",
        model={"members": [{"0.weight": torch.ones(2, 2)}]},
        epoch=7,
        val_loss=0.25,
    )
    save_checkpoint(tmp_path / "model.pth", model)
    loaded = load_checkpoint(tmp_path / "model.pth")
    assert torch.equal(loaded.model["members"][0]["0.weight"], torch.ones(2, 2))
    assert replace(loaded, model={}) == replace(model, model={})


def test_what_is_saved_is_readable_by_torch_with_weights_only(saved: Path) -> None:
    assert torch.load(saved, weights_only=True)["format"] == checkpoint.FORMAT


def test_saving_changes_nothing_it_is_given(tmp_path: Path) -> None:
    array = np.arange(3)
    state = {"nested": {"array": array}, "pair": (1, 2)}
    save_state(tmp_path / "a.pth", "model", state)
    assert state["nested"]["array"] is array  # type: ignore[index]
    assert state["pair"] == (1, 2)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.5, 0.9, 0.99, 0.9999])
def test_a_truncated_file_is_told(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"state\.pth must be a whole tailbind checkpoint; it is truncated"):
        load_state(saved, checkpoint.RESUME)


def test_a_damaged_byte_never_shows_a_traceback(saved: Path) -> None:
    whole = saved.read_bytes()
    refused = 0
    for position in range(0, len(whole), 11):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        saved.write_bytes(bytes(damaged))
        try:
            load_state(saved, checkpoint.RESUME)
        except CheckpointError as error:
            assert str(saved) in str(error)
            refused += 1
    assert refused > 10


def test_a_damaged_directory_of_the_file_is_told(saved: Path) -> None:
    whole = bytearray(saved.read_bytes())
    ending = whole.rfind(b"PK\x06\x07")  # zip64 locator: the number of the disk comes next
    assert ending > 0
    whole[ending + 4] ^= 0xFF
    saved.write_bytes(bytes(whole))
    with pytest.raises(CheckpointError, match=r"state\.pth must be a whole tailbind checkpoint"):
        load_state(saved, checkpoint.RESUME)


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    trace, path = tmp_path / "was_run", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(CheckpointError, match=r"evil\.pth must be a whole tailbind checkpoint; .*something else"):
        load_state(path, checkpoint.MODEL)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # it would have been


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_torch_file_with_code_is_not_run(tmp_path: Path, as_zip: bool) -> None:
    trace, path = tmp_path / "was_run", tmp_path / "evil.pth"
    content = {"format": checkpoint.FORMAT, "version": checkpoint.VERSION, "content": "model", "x": Malicious(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    words = "it holds code, which was not run. Do not use it" if as_zip else "something else"
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)
    assert not trace.exists()


def test_another_version_is_told(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
    with pytest.raises(CheckpointError, match=r"must be a checkpoint of version 2; got version 1\. Train again"):
        load_state(saved, checkpoint.RESUME)


@pytest.mark.parametrize("value", [{"state_dict": {}}, [1, 2], torch.ones(3)], ids=["dict", "list", "tensor"])
def test_a_foreign_torch_file_is_told(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match=r"foreign\.pth must be a tailbind checkpoint; .*something else"):
        load_state(tmp_path / "foreign.pth", checkpoint.MODEL)


def test_a_foreign_zip_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(CheckpointError, match="must be a whole tailbind checkpoint"):
        load_state(tmp_path / "a.pth", checkpoint.MODEL)


def test_a_resume_state_is_not_a_model(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"state\.pth must hold a model state; got a resume state"):
        load_checkpoint(saved)


def test_a_missing_file_and_a_directory_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(CheckpointError, match="must be a tailbind checkpoint; there is no such file"):
            load_state(path, checkpoint.MODEL)
