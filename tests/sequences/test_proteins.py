"""One protein as a person gives it: letters, files, FASTA; what is wrong is said by its place."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbind.errors import SequenceError
from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.sequences.proteins import bad_letters, check_protein, read_argument, read_chains, read_fasta

SPELLINGS = {"heavy": ("h", "heavy", "vh"), "light": ("l", "light", "vl"), "antigen": ("ag", "antigen")}


@given(st.text(alphabet=AMINO_ACIDS, max_size=40), st.data())
def test_every_bad_letter_is_found_at_its_place(sequence: str, data: st.DataObject) -> None:
    assert bad_letters(sequence) == []
    place = data.draw(st.integers(0, len(sequence)))
    letter = data.draw(st.sampled_from("BJOUXZ1?é"))
    assert bad_letters(sequence[:place] + letter + sequence[place:]) == [(place + 1, letter)]


def test_what_is_wrong_with_a_sequence_is_one_line() -> None:
    assert check_protein(" evql-vesg\n*", "heavy") == "EVQLVESG"
    assert check_protein("", "light") == ""
    with pytest.raises(SequenceError, match=r"light must be made of .* got B at position 3\. Correct it\.$"):
        check_protein("ACBD", "light")
    with pytest.raises(SequenceError, match=r"got X at position 1, .*X at position 5 and 3 more\. Correct them\.$"):
        check_protein("X" * 8, "light")
    with pytest.raises(SequenceError, match=r"antigen must be a protein sequence; got DNA or RNA \(GAGGTGCAG"):
        check_protein("GAGGTGCAGCTG" * 10, "antigen")


def test_a_file_may_hold_letters_or_one_record(tmp_path: Path) -> None:
    (tmp_path / "bare.txt").write_text("EVQL\nVESG\n")
    (tmp_path / "one.fasta").write_text(">my antibody\nEVQL\nVESG\n")
    (tmp_path / "two.fasta").write_text(">a\nEVQL\n>b\nVESG\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "marked.fasta").write_text(">vh\nEVQL\nVESG\n", encoding="utf-8-sig")
    assert read_chains(tmp_path / "marked.fasta", SPELLINGS) == {"heavy": "EVQLVESG"}
    for name in ("bare.txt", "one.fasta", "marked.fasta"):
        assert read_argument(f"@{tmp_path / name}", "heavy") == "EVQLVESG"
    with pytest.raises(SequenceError, match=r"two.fasta must hold one sequence, the heavy; got 2\."):
        read_argument(f"@{tmp_path / 'two.fasta'}", "heavy")
    with pytest.raises(SequenceError, match="nowhere must be a readable text file with a sequence; No such file"):
        read_argument(f"@{tmp_path / 'nowhere'}", "heavy")
    with pytest.raises(SequenceError, match="binary must be a readable text file with a sequence; it is no text"):
        read_argument(f"@{tmp_path / 'binary'}", "heavy")


def test_chains_are_found_by_the_names_of_records(tmp_path: Path) -> None:
    path = tmp_path / "pair.fasta"
    path.write_text("> VH of something\nEVQL\n>Light\nDIQM\n\n>ag\nMKT\nAYI\n")
    assert read_chains(path, SPELLINGS) == {"heavy": "EVQL", "light": "DIQM", "antigen": "MKTAYI"}
    for text, message in (
        (">kappa\nDIQM\n", r"records called heavy, light, antigen; got 'kappa'\. Rename it"),
        (">\nDIQM\n", r"got ''\. Rename it"),
        (">vh\nEVQL\n>heavy\nEVQL\n", "one record for each chain; got two for heavy"),
        ("", "it is empty"),
    ):
        path.write_text(text)
        with pytest.raises(SequenceError, match=message):
            read_chains(path, SPELLINGS)


def test_a_title_ends_with_its_line() -> None:
    assert read_fasta(">a\r\nEV\r\n>b c\r\n\r\nDI\r\n") == [("a", "EV"), ("b", "DI")]
    assert read_fasta("\n") == []
