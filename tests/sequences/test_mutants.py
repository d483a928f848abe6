"""Parents of single mutants, held against comparing all pairs letter by letter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbind.sequences.columns import encode
from tailbind.sequences.mutants import find_parents, substitutions


def expected_relatives(sequences: list[str]) -> list[set[int]]:
    def apart(one: str, other: str) -> int:
        return sum(left != right for left, right in zip(one, other, strict=True))

    return [{j for j, other in enumerate(sequences) if apart(one, other) == 1} for one in sequences]


@given(st.lists(st.text("ACD", min_size=4, max_size=4), min_size=1, max_size=40, unique=True))
def test_a_parent_is_a_relative_with_most_relatives(sequences: list[str]) -> None:
    relatives = expected_relatives(sequences)
    found = find_parents(encode(sequences))
    assert found.n_relatives.tolist() == [len(others) for others in relatives]
    for one, others in enumerate(relatives):
        parent = int(found.parent[one])
        if not others:
            assert parent == -1
            assert found.column[one] == -1
            continue
        assert parent in others
        assert len(relatives[parent]) == max(len(relatives[other]) for other in others)
        where = [place for place in range(4) if sequences[one][place] != sequences[parent][place]]
        assert where == [found.column[one]]


def test_in_a_mutational_scan_the_parent_is_the_wild_type() -> None:
    wild_type = "EVQLVESGGG"
    mutants = [mutant for _, _, mutant in substitutions(wild_type, np.arange(5))]
    found = find_parents(encode([*mutants, wild_type]))
    assert set(found.parent[:-1].tolist()) == {len(mutants)}
    assert found.n_relatives[-1] == len(mutants) == 5 * 19


@pytest.mark.parametrize(("sequence", "n"), [("EVQ", 57), ("XVQ", 58)])
def test_every_place_takes_every_other_residue(sequence: str, n: int) -> None:
    found = substitutions(sequence, np.arange(3))
    assert len({mutant for _, _, mutant in found}) == n
    for place, residue, mutant in found:
        assert mutant[place] == residue != sequence[place]
        assert mutant[:place] + mutant[place + 1 :] == sequence[:place] + sequence[place + 1 :]
