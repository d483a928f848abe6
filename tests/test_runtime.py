import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from tailbind.errors import RunError, TrainingError
from tailbind.runtime import (
    blas_threads_at_most,
    choose_device,
    describe_device,
    environment_record,
    file_hash,
    missing_gpu_warning,
    threads_at_most,
    to_json,
    write_json,
    write_text,
    writing,
)


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_writing_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old and long")
    with writing(path) as handle:
        handle.write(b"new")
        assert path.read_text() == "old and long"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_text(tmp_path / "ours", "x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


@pytest.mark.parametrize("error", [ValueError("mistake"), KeyboardInterrupt()])
def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), writing(path) as handle:
        handle.write(b"half of it")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"a\.txt must be writable; No space left on device\. Free space") as caught:
        write_text(path, "new")
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"absent/a\.txt must be writable; No such file or directory"):
        write_text(tmp_path / "absent" / "a.txt", "x")
    assert names(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="must be writable; Permission denied"):
        write_text(tmp_path / "a.txt", "x")


def test_a_read_only_folder_is_told_even_where_root_runs_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(RunError, match=r"a\.txt must be writable; Permission denied.* choose another place"):
        write_text(tmp_path / "a.txt", "x")


def test_json_has_null_where_a_number_is_not_finite(tmp_path: Path) -> None:
    value = {"a": float("nan"), "b": [1.5, float("inf"), (-float("inf"), "nan")], "c": {"d": np.float64("nan")}, "e": 1}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    read = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert read == {"a": None, "b": [1.5, None, [None, "nan"]], "c": {"d": None}, "e": 1}
    assert text.endswith("}\n")


def test_json_is_written_as_people_spell() -> None:
    assert "µ" in to_json({"unit": "µM"})


def test_the_cpu_may_always_be_chosen() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert describe_device(torch.device("cpu")).startswith("cpu: ")
    assert "CUDA available" in describe_device(torch.device("cpu"))


def test_threads_are_limited_inside_and_as_before_outside() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with pytest.raises(KeyError), threads_at_most(2):
            assert torch.get_num_threads() == 2
            with threads_at_most(8):
                assert torch.get_num_threads() == 2
            raise KeyError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_numpy_s_threads_are_limited_too() -> None:
    def n_threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        with threads_at_most(1):
            assert n_threads() == {1}
        with blas_threads_at_most(3):
            assert max(n_threads()) <= 2
        assert n_threads() == {2}


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"--device must be one of auto, cpu, cuda; got 'tpu'"):
        choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told() -> None:
    with pytest.raises(TrainingError, match=r"--device cuda needs a GPU that PyTorch can use; none was found.*cpu"):
        choose_device("cuda")
    assert choose_device("auto") == torch.device("cpu")


def test_a_missing_gpu_is_warned_of_where_one_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    assert "Change runtime type" in str(missing_gpu_warning(torch.device("cpu"), "auto"))
    assert missing_gpu_warning(torch.device("cpu"), "cpu") is None
    monkeypatch.delenv("COLAB_RELEASE_TAG")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert "NVIDIA driver" in str(missing_gpu_warning(torch.device("cpu"), "auto"))


def test_a_hash_is_of_all_files_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"one" * 3_000_000)
    second.write_bytes(b"two")
    assert file_hash([first, second]) == hashlib.sha256(b"one" * 3_000_000 + b"two").hexdigest()
    assert file_hash([second, first]) != file_hash([first, second])


def test_the_environment_is_recorded() -> None:
    record = json.loads(to_json(environment_record(torch.device("cpu"))))
    assert record["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert record["device"].startswith("cpu")
