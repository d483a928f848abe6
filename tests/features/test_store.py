import importlib
import os
import time
from pathlib import Path

import numpy as np
import pytest

from tailbind.errors import FeatureError, RunError
from tailbind.features import store as module
from tailbind.features.store import FEWEST_TO_MERGE, Store, default_store, sequence_key
from tailbind.runtime import remarks_to

ABOUT = {"encoder": "a", "pool": "mean"}


def rows(first: int, n: int, width: int = 4) -> tuple[list[bytes], np.ndarray]:
    """Return keys and vectors that follow from them."""
    keys = [sequence_key(str(number)) for number in range(first, first + n)]
    return keys, np.array([np.random.default_rng(first + k).normal(size=width) for k in range(n)], np.float32)


def shards(store: Store) -> list[Path]:
    return sorted(store.folder.glob("shard-*"))


def content(store: Store) -> dict[bytes, bytes]:
    """Return all that lies in a store's shards, key by key."""
    found: dict[bytes, bytes] = {}
    for path in shards(store):
        loaded = store._load(path.name)
        assert loaded is not None
        for key, vector in zip(loaded[0], loaded[1], strict=True):
            assert found.setdefault(key.tobytes(), vector.tobytes()) == vector.tobytes()
    return found


def filled(root: Path, n_shards: int) -> Store:
    store = Store(root, ABOUT, "esm")
    for number in range(n_shards):
        store.write(*rows(10 * number, 10))
    return store


def test_what_is_written_is_read_by_another_program_in_any_order(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    keys, vectors = rows(10, 10)
    found, read = Store(tmp_path, ABOUT, "esm").read([*keys[::-1], sequence_key("new")])
    assert found.tolist() == [True] * 10 + [False]
    np.testing.assert_array_equal(read[:10], vectors[::-1])
    assert not read[10].any()


def test_an_empty_store_has_nothing(tmp_path: Path) -> None:
    found, vectors = Store(tmp_path, ABOUT, "esm").read([sequence_key("A")])
    assert not found.any()
    assert vectors is None


def test_what_vectors_depend_on_has_a_folder_each_and_is_written_there(tmp_path: Path) -> None:
    one, other = Store(tmp_path, ABOUT, "esm"), Store(tmp_path, {**ABOUT, "pool": "cdr"}, "esm")
    one.write(*rows(0, 2))
    assert one.folder != other.folder
    assert not other.read(rows(0, 2)[0])[0].any()
    assert '"pool": "cdr"' in (other.folder / "about.json").read_text()
    assert Store(tmp_path, dict(reversed(ABOUT.items())), "esm").folder == one.folder


def test_a_key_is_of_the_letters_and_of_the_residues_pooled() -> None:
    all_of_it, some = np.ones(9, np.bool_), np.arange(9) < 8
    keys = {sequence_key("EVQLVESGG"), sequence_key("EVQLVESGA"), sequence_key("EVQLVESGG", all_of_it)}
    assert len(keys | {sequence_key("EVQLVESGG", some)}) == 4


@pytest.mark.parametrize("damage", ["vector", "key", "header", "cut", "empty", "text"])
def test_a_damaged_shard_is_told_of_removed_and_its_rows_are_not_there(tmp_path: Path, damage: str) -> None:
    store = filled(tmp_path, 2)
    victim = next(path for path in shards(store) if store._places[rows(0, 1)[0][0]][0] == path.name)
    held = bytearray(victim.read_bytes())
    if damage in ("vector", "key"):
        needle = rows(0, 10)[1].tobytes()[:8] if damage == "vector" else rows(0, 1)[0][0]
        held[held.index(needle)] ^= 1
    elif damage == "header":
        held[12] ^= 255
    held = {"cut": held[:-30], "empty": bytearray(), "text": bytearray(b"not a shard, and long enough to be one")}.get(
        damage, held
    )
    victim.write_bytes(held)
    told: list[str] = []
    again = Store(tmp_path, ABOUT, "esm")
    with remarks_to(told.append):
        found, vectors = again.read([*rows(0, 10)[0], *rows(10, 10)[0]])
    assert found.tolist() == [False] * 10 + [True] * 10
    np.testing.assert_array_equal(vectors[10:], rows(10, 10)[1])
    assert len(told) == 1
    assert victim.name in told[0]
    assert "is damaged" in told[0]
    assert "computed again" in told[0]
    assert not victim.exists()
    again.write(*rows(0, 10))
    assert again.read(rows(0, 10)[0])[0].all()


def test_what_a_damaged_shard_held_is_found_where_another_holds_it_too(tmp_path: Path) -> None:
    store = Store(tmp_path, ABOUT, "esm")
    store.write(*rows(0, 5))
    Store(tmp_path, ABOUT, "esm").write(*rows(0, 5))
    first = shards(store)[0]
    first.write_bytes(first.read_bytes()[:-3] + b"abc")
    found, vectors = Store(tmp_path, ABOUT, "esm").read(rows(0, 5)[0])
    assert found.all()
    np.testing.assert_array_equal(vectors, rows(0, 5)[1])


def test_small_shards_are_merged_and_nothing_is_lost(tmp_path: Path) -> None:
    store = filled(tmp_path, FEWEST_TO_MERGE + 3)
    before = content(store)
    store.merge()
    assert len(shards(store)) == 1
    assert content(store) == before
    keys = [key for number in range(FEWEST_TO_MERGE + 3) for key in rows(10 * number, 10)[0]]
    assert store.read(keys)[0].all()
    assert Store(tmp_path, ABOUT, "esm").read(keys)[0].all()


def test_few_small_shards_and_large_ones_are_let_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, FEWEST_TO_MERGE - 1)
    names = shards(store)
    store.merge()
    assert shards(store) == names
    store.write(*rows(900, 10))
    monkeypatch.setattr(module, "SMALL_BYTES", 10)
    store.merge()
    assert len(shards(store)) == FEWEST_TO_MERGE


def test_merged_shards_do_not_grow_beyond_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, 12)
    before = content(store)
    size = shards(store)[0].stat().st_size
    monkeypatch.setattr(module, "LARGE_BYTES", 4 * size)
    store.merge()
    assert len(shards(store)) == 3
    assert content(store) == before


def test_a_kill_while_merging_leaves_rows_twice_and_never_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, 9)
    before = content(store)

    class Killed(BaseException):
        pass

    removed: list[Path] = []
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if len(removed) == 4:
            raise Killed
        removed.append(path)
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "unlink", killed)
        store.merge()
    assert len(shards(store)) == 6
    again = Store(tmp_path, ABOUT, "esm")
    assert content(again) == before
    assert again.read(list(before))[0].all()


def test_a_program_that_reads_while_another_merges_finds_its_rows(tmp_path: Path) -> None:
    filled(tmp_path, 9)
    reader, other = Store(tmp_path, ABOUT, "esm"), Store(tmp_path, ABOUT, "esm")
    reader.refresh()
    other.merge()
    looks = []

    def look() -> None:  # the first shows what was there before the other merged
        looks.append(None)
        if len(looks) > 1:
            Store.refresh(reader)

    reader.refresh = look  # type: ignore[method-assign]
    found, vectors = reader.read(rows(30, 10)[0])
    assert found.all()
    assert len(looks) == 2
    np.testing.assert_array_equal(vectors, rows(30, 10)[1])


def test_two_that_merge_at_a_time_lose_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path, 9)
    before = content(store)
    other = Store(tmp_path, ABOUT, "esm")
    names = [path.name for path in shards(store)]
    other.refresh()
    other._merge(names[:5])
    store._merge(names)  # finds some of its parts gone, and leaves the rest
    assert content(Store(tmp_path, ABOUT, "esm")) == before


def test_rows_of_another_program_are_there_after_a_look(tmp_path: Path) -> None:
    one, other = Store(tmp_path, ABOUT, "esm"), Store(tmp_path, ABOUT, "esm")
    key = rows(0, 1)[0][0]
    other.write(*rows(0, 3))
    assert not one.has(key)
    one.refresh()
    assert one.has(key)


def test_what_a_killed_program_left_half_written_goes_when_it_is_old(tmp_path: Path) -> None:
    store = Store(tmp_path, ABOUT, "esm")
    old, new = store.folder / ".shard-a.x.part", store.folder / ".shard-b.x.part"
    for path in (old, new):
        path.write_bytes(b"half")
    past = time.time() - 2 * module.STALE
    os.utime(old, (past, past))
    store.merge()
    assert not old.exists()
    assert new.exists()


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"must be writable; .*Free space or choose another place"):
        Store(tmp_path / "file" / "in", ABOUT, "esm")


def test_a_store_without_safetensors_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, 1)
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(FeatureError, match=r"pip install 'tailbind\[language-model\]'"):
        Store(tmp_path, ABOUT, "esm").refresh()


def test_the_default_place_is_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILBIND_CACHE", str(tmp_path))
    assert default_store() == tmp_path / "embeddings"
    monkeypatch.delenv("TAILBIND_CACHE")
    assert default_store().name == "embeddings"
    assert importlib.import_module("platformdirs").user_cache_dir("tailbind") in str(default_store())
