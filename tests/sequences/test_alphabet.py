import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbind.sequences.alphabet import AMINO_ACIDS, looks_like_nucleotides, normalise_sequences, unknown_letters


def test_whitespace_and_lower_case_go_and_are_counted() -> None:
    sequences, n_changed = normalise_sequences(pl.Series("heavy", [" EVQL", "ev ql\n", "EVQL", "\t", None, ""]))
    assert sequences.to_list() == ["EVQL", "EVQL", "EVQL", "", "", ""]
    assert n_changed == 3
    assert sequences.name == "heavy"


def test_an_empty_column_is_a_column_of_no_sequences() -> None:
    sequences, n_changed = normalise_sequences(pl.Series([None, None]))
    assert sequences.to_list() == ["", ""]
    assert n_changed == 0


@given(st.lists(st.text(alphabet=AMINO_ACIDS + "acd \t\nX*", max_size=20)))
def test_normalising_twice_changes_nothing_more(texts: list[str]) -> None:
    once, _ = normalise_sequences(pl.Series(texts, dtype=pl.String))
    twice, n_changed = normalise_sequences(once)
    assert twice.to_list() == once.to_list()
    assert n_changed == 0


@given(st.lists(st.text(max_size=20)))
def test_unknown_letters_are_those_that_are_none_of_the_twenty(texts: list[str]) -> None:
    expected = ["".join(sorted(set(text) - set(AMINO_ACIDS))) for text in texts]
    assert unknown_letters(pl.Series(texts, dtype=pl.String)).to_list() == expected


@pytest.mark.parametrize(
    ("sequence", "nucleic"),
    [
        ("ACGT" * 15, True),
        ("ACGU" * 15, True),
        ("ACGTN" * 12, True),
        ("ACGT" * 14 + "ACG", False),  # 59 letters: a peptide by chance
        ("ACGT" * 15 + "E", False),
        ("E" + "ACGT" * 15, False),
        ("", False),
        (None, False),
    ],
)
def test_nucleotides_are_long_and_have_no_other_letter(sequence: str | None, nucleic: bool) -> None:
    assert looks_like_nucleotides(pl.Series([sequence], dtype=pl.String)).to_list() == [nucleic]


def test_cells_are_not_written_over() -> None:
    values = pl.Series("heavy", ["evql", "EVQL", None])
    normalise_sequences(values)
    assert values.to_list() == ["evql", "EVQL", None]
