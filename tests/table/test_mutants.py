"""Single mutants and antigens of one antibody, as a table measured them."""

import numpy as np
import polars as pl

from tailbind.table.mutants import find_mutants, measured_pairs, other_antigens

COLUMNS = ("source", "antigen", "antigen_name", "heavy", "light", "pkd", "relation")


def table(*rows: tuple[str, str, str, str, str, float | None, str]) -> pl.DataFrame:
    return pl.DataFrame(
        rows, schema=dict(zip(COLUMNS, [pl.String] * 5 + [pl.Float64, pl.String], strict=True)), orient="row"
    )


def test_replicates_are_one_pair_and_held_out_only_together() -> None:
    frame = table(
        ("a", "MKT", "", "EVQ", "DIQ", 7.0, "="),
        ("a", "MKT", "", "EVQ", "DIQ", 9.0, "="),
        ("a", "MKT", "", "EVQ", "DIQ", 5.0, "<"),
        ("a", "MKT", "", "QVQ", "DIQ", 6.0, "="),
        ("a", "MKT", "", "", "", 6.0, "="),
        ("a", "MKT", "", "AVQ", "DIQ", None, "="),
    )
    pairs = measured_pairs(frame, np.array([True, False, True, True, True, True]))
    assert pairs["pkd"].to_list() == [8.0, 6.0]
    assert pairs["row"].to_list() == [0, 3]
    assert pairs["held_out"].to_list() == [False, True]


def test_mutants_are_of_one_source_and_antigen_and_one_chain() -> None:
    frame = table(
        ("a", "MKT", "", "EVQ", "DIQ", 7.0, "="),  # 0
        ("a", "MKT", "", "EVA", "DIQ", 6.0, "="),  # 1: heavy 2
        ("a", "MKT", "", "EVQ", "DIA", 5.0, "="),  # 2: light 2
        ("a", "GGS", "", "EAQ", "DIQ", 5.0, "="),  # another antigen
        ("b", "MKT", "", "EAQ", "DIQ", 5.0, "="),  # another source
        ("a", "MKT", "", "EVQD", "IQ", 5.0, "="),  # the same letters, otherwise cut
        ("a", "", "", "EVA", "DIQ", 6.0, "="),  # no antigen
    )
    found = find_mutants(measured_pairs(frame, np.zeros(len(frame), bool)))
    assert found.mutant.tolist() == [0, 1, 2]
    assert found.parent[1:].tolist() == [0, 0]
    assert found.in_light[1:].tolist() == [False, True]
    assert found.place[1:].tolist() == [2, 2]
    assert found.n_relatives.tolist() == [2, 1, 1, 0, 0, 0, 0]
    chosen = found.take(np.array([2]))
    assert (chosen.mutant.tolist(), chosen.in_light.tolist(), len(chosen)) == ([2], [True], 1)


def test_a_table_without_measured_antibodies_has_none() -> None:
    pairs = measured_pairs(table(("a", "", "", "", "", 7.0, "=")), np.ones(1, bool))
    assert len(find_mutants(pairs)) == 0
    assert [len(rows) for rows in other_antigens(pairs, np.random.default_rng(0))] == [0, 0]


def test_an_antibody_is_paired_with_another_of_its_antigens() -> None:
    frame = table(
        ("a", "MKT", "", "EVQ", "", 7.0, "="),
        ("b", "", "HER2", "EVQ", "", 6.0, "="),
        ("b", "MKT", "", "EVQ", "", 7.5, "="),
        ("a", "MKT", "", "QVQ", "", 5.0, "="),
        ("a", "", "", "EVQ", "", 5.0, "="),  # an antigen that nobody named
    )
    pairs = measured_pairs(frame, np.array([True, False, True, True, True]))
    first, other = other_antigens(pairs, np.random.default_rng(0))
    assert first.tolist() == [0, 2]
    assert other.tolist() == [1, 1]


def test_two_that_are_each_other_s_parents_count_once() -> None:
    lone = table(*(("a", "MKT", "", antibody, "", 7.0, "=") for antibody in ("EVQ", "EVA", "WWQ", "WWA")))
    pairs = measured_pairs(lone, np.ones(4, bool))
    found = find_mutants(pairs)
    assert (found.mutant.tolist(), found.parent.tolist()) == ([0, 1, 2, 3], [1, 0, 3, 2])
    once = found.one_way(np.ones(4, bool))
    assert (once.mutant.tolist(), once.parent.tolist()) == ([1, 3], [0, 2])
    # The held-out one of the two stays, whichever it is.
    assert found.one_way(np.array([True, False, False, True])).mutant.tolist() == [0, 3]
    # Of a mutational scan the wild type goes, which has most relatives.
    scan = table(*(("a", "MKT", "", antibody, "", 7.0, "=") for antibody in ("EVA", "EVC", "EVQ", "EAQ", "AVQ")))
    of_scan = find_mutants(measured_pairs(scan, np.ones(5, bool)))
    assert of_scan.parent.tolist() == [2, 2, 0, 2, 2]
    assert of_scan.one_way(np.ones(5, bool)).mutant.tolist() == [0, 1, 3, 4]


def test_two_held_out_antigens_of_an_antibody_are_one_pair() -> None:
    rows = [
        ("a", antigen, "", f"EV{letter}", "", 7.0, "=") for letter in "ACDEFGHIKLMNPQRS" for antigen in ("MKT", "GGS")
    ]
    pairs = measured_pairs(table(*rows), np.ones(32, bool))
    first, other = other_antigens(pairs, np.random.default_rng(0))
    assert sorted(map(sorted, zip(first.tolist(), other.tolist(), strict=True))) == [
        [n, n + 1] for n in range(0, 32, 2)
    ]
    assert 0 < (pairs["target"].gather(first.tolist()) == "MKT").sum() < 16  # either antigen may be the first
