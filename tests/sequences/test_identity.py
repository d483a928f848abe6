import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from tailbind.sequences import columns, neighbours
from tailbind.sequences.columns import encode, least_difference, one_letter_apart
from tailbind.sequences.identity import identity_matrix, nearest_identity

DATA = Path(__file__).parents[3] / "shared" / "data"

#: Few letters and lengths, so that equal, similar and shifted sequences are common.
few_letters = st.lists(st.text(alphabet="ACD", max_size=9), max_size=14)


@contextlib.contextmanager
def searching(radii: tuple[float, ...]) -> Iterator[None]:
    """Search through balls from the second pair on, as otherwise only large tables need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "ALL_PAIRS", 1)
        patch.setattr(neighbours, "RADII", radii)
        yield


either_radii = pytest.mark.parametrize("radii", [(0.08, 0.16), (0.4,)], ids=["small balls", "large balls"])


def by_comparing_all(queries: Sequence[str], references: Sequence[str], exclude_itself: bool) -> NDArray[np.float64]:
    nearest = []
    for query in queries:
        others = [reference for reference in references if reference]
        if exclude_itself and query:
            others.remove(query)
        found = [Levenshtein.normalized_similarity(query, other) for other in others]
        nearest.append(max(found) if found and query else np.nan)
    return np.array(nearest)


def families(n_variants: int, seed: int = 0) -> list[str]:
    """Return variants of four parents, two of them alike and one shorter by a letter: a small landscape."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    first = rng.choice(letters, 60)
    second = first.copy()
    second[rng.choice(60, 15, replace=False)] = "W"
    parents = [first, second, np.delete(first, 30), rng.choice(letters, 75)]
    found = []
    for number in range(n_variants):
        variant = parents[number % 4].copy()
        places = rng.integers(len(variant), size=rng.integers(1, 7))
        variant[places] = rng.choice(letters, len(places))
        found.append("".join(variant))
    return found


@given(queries=few_letters, references=few_letters)
def test_few_sequences_agree_with_comparing_all(queries: list[str], references: list[str]) -> None:
    np.testing.assert_allclose(
        nearest_identity(queries, references), by_comparing_all(queries, references, exclude_itself=False)
    )


@either_radii
@settings(max_examples=150)
@given(queries=few_letters, references=few_letters)
def test_the_search_agrees_with_comparing_all(
    radii: tuple[float, ...], queries: list[str], references: list[str]
) -> None:
    with searching(radii):
        found = nearest_identity(queries, references)
    np.testing.assert_allclose(found, by_comparing_all(queries, references, exclude_itself=False))


@either_radii
@settings(max_examples=150)
@given(sequences=few_letters)
def test_the_search_among_themselves_agrees_with_comparing_all(radii: tuple[float, ...], sequences: list[str]) -> None:
    with searching(radii):
        found = nearest_identity(sequences, sequences, exclude_itself=True)
    np.testing.assert_allclose(found, by_comparing_all(sequences, sequences, exclude_itself=True))


@either_radii
@pytest.mark.parametrize("exclude_itself", [False, True])
def test_the_search_through_families_agrees_with_comparing_all(radii: tuple[float, ...], exclude_itself: bool) -> None:
    sequences = families(400)
    queries = sequences if exclude_itself else families(120, seed=0)[::3] + families(40, seed=1)
    references = sequences if exclude_itself else sequences[200:]
    with searching(radii):
        found = nearest_identity(queries, references, exclude_itself=exclude_itself)
    np.testing.assert_allclose(found, by_comparing_all(queries, references, exclude_itself))


@either_radii
@pytest.mark.parametrize("budget", [2.0, 20.0, 60.0])
def test_beyond_the_budget_an_identity_is_never_too_high(
    radii: tuple[float, ...], budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BUDGET", budget)
    queries, references = families(60, seed=1), families(300)
    with searching(radii):
        found = nearest_identity(queries, references)
    exact = by_comparing_all(queries, references, exclude_itself=False)
    assert (found <= exact + 1e-12).all()
    assert (found >= 0).all()
    assert (found < exact - 1e-12).any()  # the budget does bind


@either_radii
def test_a_shift_at_equal_length_is_found(radii: tuple[float, ...]) -> None:
    sequence = families(1)[0]
    shifted = "Y" + sequence[:-1]
    with searching(radii):
        assert nearest_identity([sequence], [shifted, families(2)[1]])[0] == pytest.approx(1 - 2 / 60)


def test_an_equal_sequence_counts_among_themselves_only_where_it_occurs_twice() -> None:
    sequences = ["EVQL", "EVQL", "EVQV", ""]
    assert nearest_identity(sequences, sequences, exclude_itself=True).tolist()[:3] == [1.0, 1.0, 0.75]


@pytest.mark.parametrize("references", [[], [""], ["", ""]])
def test_without_references_nothing_is_near(references: list[str]) -> None:
    assert np.isnan(nearest_identity(["EVQL", ""], references)).all()


def test_alone_nothing_else_is_near() -> None:
    assert np.isnan(nearest_identity(["EVQL"], ["EVQL"], exclude_itself=True)).all()


@either_radii
def test_the_order_of_the_rows_does_not_matter(radii: tuple[float, ...]) -> None:
    sequences = families(300)
    with searching(radii):
        forwards = nearest_identity(sequences, sequences, exclude_itself=True)
        backwards = nearest_identity(sequences[::-1], sequences[::-1], exclude_itself=True)
    np.testing.assert_array_equal(forwards, backwards[::-1])


@either_radii
def test_letters_of_any_alphabet_are_compared(radii: tuple[float, ...]) -> None:
    with searching(radii):
        assert nearest_identity(["EVQL*Ω", "ev-1"], ["EVQL*X", "ev-2"]) == pytest.approx([5 / 6, 3 / 4])


@given(few_letters)
def test_the_matrix_is_symmetric_and_agrees_with_each_pair(sequences: list[str]) -> None:
    matrix = identity_matrix(sequences)
    assert matrix.shape == (len(sequences), len(sequences))
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, matrix.T)
    for one, row in zip(sequences, matrix, strict=True):
        for other, identity in zip(sequences, row, strict=True):
            assert identity == np.float32(Levenshtein.normalized_similarity(one, other))


@pytest.mark.parametrize("direct", [0, 500_000], ids=["products", "direct"])
@given(
    queries=st.lists(st.text(alphabet="ACD", min_size=5, max_size=5), min_size=1, max_size=8),
    references=st.lists(st.text(alphabet="ADE", min_size=5, max_size=5), min_size=1, max_size=8),
)
def test_differing_columns_are_counted(direct: int, queries: list[str], references: list[str]) -> None:
    counts = np.array([[sum(a != b for a, b in zip(q, r, strict=True)) for r in references] for q in queries])
    expected = np.where(counts > 0, counts, np.inf).min(axis=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "DIRECT", direct)
        assert least_difference(encode(queries), encode(references)).tolist() == expected.tolist()


def test_differing_columns_are_counted_across_blocks() -> None:
    sequences = [sequence for sequence in families(12_000) if len(sequence) == 60]
    queries, references = encode(sequences[:600]), encode(sequences[600:])
    expected = [(references != query).sum(axis=1) for query in queries]
    assert len(references) > columns.REFERENCE_BLOCK
    assert len(queries) > columns.QUERY_BLOCK
    least = least_difference(queries, references)
    assert least.tolist() == [counts[counts > 0].min() for counts in expected]


@given(
    queries=st.sets(st.text(alphabet="ACD", min_size=4, max_size=4), min_size=1, max_size=8),
    references=st.sets(st.text(alphabet="ACD", min_size=4, max_size=4), min_size=1, max_size=8),
)
def test_one_letter_apart_is_told_without_comparing(queries: set[str], references: set[str]) -> None:
    asked, others = sorted(queries), sorted(references)
    expected = [any(sum(a != b for a, b in zip(q, r, strict=True)) == 1 for r in others) for q in asked]
    assert one_letter_apart(encode(asked), encode(others)).tolist() == expected


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="no public measurements in shared/data beside the checkout")
def test_variants_of_a_new_antibody_are_placed_among_the_public_ones() -> None:
    pool = pl.read_parquet(DATA / "affinity_pool.parquet", columns=["source", "heavy"]).filter(pl.col("heavy") != "")
    is_new = pl.col("source") == "ch65_si06"
    queries = pool.filter(is_new)["heavy"].unique().sort().to_list()
    references = pool.filter(~is_new)["heavy"].unique().sort().to_list()
    assert len(queries) * len(references) > neighbours.ALL_PAIRS
    found = nearest_identity(queries, references)
    some = list(range(0, len(queries), 250))
    expected = by_comparing_all([queries[number] for number in some], references, exclude_itself=False)
    np.testing.assert_allclose(found[some], expected)
