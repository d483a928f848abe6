"""What a blend consists of, as a table."""

from typing import Any

from tailbind.reporting.report import parts_table

PARTS: dict[str, dict[str, Any]] = {
    "network": {"model": "ensemble_mlp", "share": 0.624, "n_train": 21400, "epochs": 10, "seconds": 71.26},
    "linear": {"model": "ridge", "share": 0.376, "n_train": 400, "seconds": 0.04},
    "mean": {"model": "training_mean", "left_out": "it must have 10 training rows in its scope; there are 2"},
}


def test_a_row_per_part_and_why_one_is_left_out() -> None:
    (table,) = parts_table(PARTS)
    assert table.rows == (
        ("network", "ensemble mlp", "62 %", "21,400", "10", "71.3"),
        ("linear", "ridge", "38 %", "400", "–", "0.0"),
        ("mean", "training mean", "left out", "–", "–", "–"),
    )
    assert table.note.endswith(" mean is left out: it must have 10 training rows in its scope; there are 2.")


def test_there_is_none_for_another_model() -> None:
    assert parts_table(None) == []
