"""The nearest known sequence, found quickly: never one that is not there, and nearly always the very nearest."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailbind.sequences import known as module
from tailbind.sequences.identity import nearest_identity
from tailbind.sequences.known import Known, gather_known, sketch

LETTERS = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
few_letters = st.lists(st.text(alphabet="ACD", max_size=9), max_size=14)


def families(n: int, seed: int) -> list[str]:
    """Return variants of five parents of other lengths, each with up to six letters changed."""
    rng = np.random.default_rng(seed)
    parents = [np.random.default_rng(length).choice(LETTERS, length) for length in (110, 118, 118, 121, 126)]
    found = []
    for number in range(n):
        variant = parents[number % 5].copy()
        places = rng.integers(len(variant), size=rng.integers(1, 7))
        variant[places] = rng.choice(LETTERS, len(places))
        found.append("".join(variant))
    return found


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Known:
    """2,000 sequences in some 60 cells, as otherwise only large tables need."""
    monkeypatch.setattr(module, "MOST_CENTRES", 64)
    return gather_known(families(2000, seed=0))


@settings(deadline=None)  # the first sketch waits for the numbers that words count for
@given(queries=few_letters, references=few_letters)
def test_what_is_found_is_never_too_high(queries: list[str], references: list[str]) -> None:
    found, exact = gather_known(references).identity(queries), nearest_identity(queries, references)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(exact))
    assert (np.nan_to_num(found) <= np.nan_to_num(exact) + 1e-12).all()
    np.testing.assert_array_equal(found == 1, exact == 1)


def test_variants_of_families_find_the_nearest_or_one_nearly_as_near(many: Known) -> None:
    assert 10 < len(many.centres) <= 64
    queries = families(300, seed=1)
    found, exact = many.identity(queries), nearest_identity(queries, many.sequences)
    missed = (exact - found) * 120
    assert missed.min() > -1e-9
    assert (missed < 0.5).mean() > 0.7
    assert missed.max() < 5


def test_a_row_finds_the_same_alone_and_among_others(many: Known) -> None:
    queries = [*families(40, seed=2), "".join(LETTERS) * 6, many.sequences[7], ""]
    together = many.identity(queries)
    np.testing.assert_array_equal(together, [many.identity([query])[0] for query in queries])
    np.testing.assert_array_equal(together[::-1], many.identity(queries[::-1]))
    assert together[-2] == 1
    assert np.isnan(together[-1])


def test_small_and_large_requests_find_the_same(many: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = families(30, seed=3)
    before = many.identity(queries)
    monkeypatch.setattr(module, "FEW", 0)
    monkeypatch.setattr(module, "BLOCK", 7)
    np.testing.assert_array_equal(before, many.identity(queries))


def test_a_stranger_is_nowhere_near(many: Known) -> None:
    assert many.identity(["W" * 120])[0] < 0.2


def test_without_anything_known_nothing_is_near() -> None:
    assert np.isnan(gather_known(["", ""]).identity(["EVQL", ""])).all()


def test_sketches_are_whole_numbers_and_near_for_relatives() -> None:
    one, variant, stranger = sketch(["EVQLVESGGGLVQPGG", "EVQLVQSGGGLVQPGG", "DIQMTQSPSSLSASVG"])
    assert (sketch(["EVQLVESGGGLVQPGG", "A", "AC"])[0] == one).all()
    assert (one == np.round(one)).all()
    assert np.square(one - variant).sum() < np.square(one - stranger).sum()


def test_letters_of_any_alphabet_are_known() -> None:
    assert gather_known(["EV*QΩ", "ev-1"]).identity(["EV*QX", "ev-1"]) == pytest.approx([0.8, 1.0])


def test_what_is_known_goes_by_distinct_sequences() -> None:
    once, twice = gather_known(["EVQL", "QVQL"]), gather_known(["QVQL", "EVQL", "QVQL", ""])
    assert once.sequences == twice.sequences == ("EVQL", "QVQL")
    assert pl.Series(once.cell).to_list() == twice.cell.tolist()
