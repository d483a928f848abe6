"""Errors by domain, as a table with what it cannot tell."""

from typing import Any

from tailbind.reporting.domain_table import domain_table

ENTRY = {"n": 1200, "rmse": 0.5, "mae": 0.25, "bias": -0.125}
LIMITS: dict[str, Any] = {
    "antibody_identity": {"inside": 0.98765, "edge": 0.9},
    "antigen_identity": None,
    "distance": None,
    "predicted_pkd": [3.0, 12.0],
}


def table_of(test: dict[str, Any], **more: Any) -> Any:
    (table,) = domain_table({"limits": LIMITS, "rows": "all", "test": test, **more})
    return table


def test_a_row_per_domain() -> None:
    table = table_of({"inside": ENTRY, "edge": {**ENTRY, "n": 29}, "outside": None})
    assert table.rows == (
        ("inside", "1,200", "0.500", "0.250", "−0.125"),
        ("edge", "29", "0.500", "0.250", "−0.125"),
        ("outside", "0", "–", "–", "–"),
    )
    assert table.note == (
        "Inside: antibody 98.7 % identical to the nearest of training, or more, and nothing that training never saw; "
        "outside: antibody less than 90 % identical, or predicted below pKd 3.0 or above 12.0. No test rows are "
        "outside: nothing is known of the error there. Fewer than 30 are at the edge: that figure may be far off."
    )


def test_with_enough_rows_of_each_there_is_no_caveat() -> None:
    table = table_of(dict.fromkeys(("inside", "edge", "outside"), ENTRY), rows="measured")
    assert table.note.startswith("Measured test rows. Inside:")
    assert table.note.endswith("above 12.0.")


def test_distances_and_nothing_known_are_told() -> None:
    test = dict.fromkeys(("inside", "edge", "outside"), ENTRY)
    distance = {**LIMITS, "distance": {"inside": 6.85, "edge": 12.25}}
    note = table_of(test, limits=distance).note
    assert "no farther than 6.8 from those of training" in note or "no farther than 6.9 from" in note
    assert table_of(test, limits={**LIMITS, "antibody_identity": None}).note == (
        "Outside: predicted below pKd 3.0 or above 12.0."
    )


def test_earlier_runs_have_none() -> None:
    assert domain_table(None) == []
