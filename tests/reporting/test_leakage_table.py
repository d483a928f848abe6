"""What the split leaks, as a table, and what intervals were drawn from, in words."""

from typing import Any

import pytest

from tailbind.reporting.report import _near_twins, leakage_table
from tailbind.reporting.tables import drawn

CHAIN = {"n": 400, "median_identity": 0.975, "share_95": 0.8, "share_90": 0.9, "share_80": 1.0}
KNOWN: dict[str, Any] = {
    "known": True,
    "why": "",
    "n_test": 400,
    "heavy": CHAIN,
    "light": None,
    "antigen": {**CHAIN, "n": 1200},
    "exact_pairs": {"n_test_rows": 0, "share": 0.0},
    "near_twins": {"n_test_rows": 100, "share": 0.25},
}


def test_a_row_per_chain() -> None:
    table = leakage_table(KNOWN)
    assert table.rows == (
        ("Heavy chain", "400", "97.5 %", "80.0 %", "90.0 %", "100.0 %"),
        ("Light chain", "0", "–", "–", "–", "–"),
        ("Antigen", "1,200", "97.5 %", "80.0 %", "90.0 %", "100.0 %"),
    )
    assert "Exact pairs in training as well: 0 test rows (0.0 %)." in table.note
    assert "Exact pairs are unknown without antibody sequences." in leakage_table({**KNOWN, "exact_pairs": None}).note


def test_nothing_known_is_one_line() -> None:
    table = leakage_table({"known": False, "why": "the table has no sequences"})
    assert table.text().splitlines()[-1] == "Unknown: the table has no sequences"
    assert table.markdown().count("|---|") == 1


@pytest.mark.parametrize(
    ("share", "n_pairs", "expected"),
    [
        (0.49, 0, []),
        (0.5, 0, ["near-twins of training rows: 50.0 % of test rows"]),
        (0.1, 12, ["12 (3.0 %) have their exact pair in training"]),
        (0.9, 12, ["near-twins of training rows: 90.0 %", "12 (3.0 %) have their exact pair"]),
    ],
)
def test_the_headline_warns_of_near_twins_and_pairs(share: float, n_pairs: int, expected: list[str]) -> None:
    leakage = {**KNOWN, "near_twins": {"n_test_rows": 1, "share": share}}
    text = _near_twins({**leakage, "exact_pairs": {"n_test_rows": n_pairs, "share": n_pairs / 400}})
    assert bool(text) == bool(expected)
    assert all(words in text for words in expected)
    assert _near_twins({"near_twins": None, "exact_pairs": None}) == ""


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"by": "clusters", "n_clusters": 1143}, "of 1,143 clusters of near-identical antibodies"),
        ({"by": "rows", "n_clusters": 19, "why": ""}, "of rows (fewer than 20 families of antibodies)"),
        ({"by": "rows", "n_clusters": None, "why": "none"}, "of rows (families of antibodies unknown: none)"),
        ({}, "of rows"),
    ],
)
def test_intervals_say_what_was_drawn(told: dict[str, Any], expected: str) -> None:
    assert drawn(told) == expected
