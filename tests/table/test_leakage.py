"""What a split leaks, by hand: identities to training and pairs on both sides."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from tailbind.errors import SequenceError
from tailbind.table import leakage
from tailbind.table.leakage import Leakage, leak_report, sentence
from tailbind.table.schema import CANONICAL

A, C, D, E = ("A" * 20, "C" * 20, "D" * 20, "E" * 20)


def changed(chain: str, n: int) -> str:
    """Return a chain with its last n letters changed."""
    return chain[: len(chain) - n] + "Y" * n


#: part, heavy, light, antigen. Twenty letters: one changed is 95 %, two 90 %, four 80 %.
ROWS = [
    ("train", A, C, D),
    ("train", A, C, D),
    ("train", changed(A, 10), "", D),
    ("val", E, E, E),
    ("test", A, C, D),  # the exact pair
    ("test", changed(A, 1), C, D),
    ("test", changed(A, 2), changed(C, 4), D),
    ("test", A, "", ""),
    ("test", E, E, E),  # in validation alone: new
    ("test", "", "", D),
]


def frame_of(rows: Sequence[tuple[str, str, str, str]]) -> pl.DataFrame:
    """Return a frame of canonical columns with the chains of each row."""
    _, heavy, light, antigen = zip(*rows, strict=True)
    plain: dict[str, object] = {name: [""] * len(rows) for name in CANONICAL}
    plain |= {"row_id": [f"r{row}" for row in range(len(rows))], "pkd": [7.0] * len(rows)}
    return pl.DataFrame({**plain, "heavy": heavy, "light": light, "antigen": antigen})


def report_of(rows: Sequence[tuple[str, str, str, str]]) -> Leakage:
    return leak_report(frame_of(rows), np.array([row[0] for row in rows]))


def test_identities_and_pairs_by_hand() -> None:
    report = report_of(ROWS)
    assert report.identities["heavy"].tolist() == pytest.approx([1, 0.95, 0.9, 1, 0, np.nan], nan_ok=True)
    assert report.identities["light"].tolist() == pytest.approx([1, 1, 0.8, np.nan, 0, np.nan], nan_ok=True)
    assert report.identities["antigen"].tolist() == pytest.approx([1, 1, 1, np.nan, 0, 1], nan_ok=True)
    assert report.pair_in_training is not None
    assert report.pair_in_training.tolist() == [True, False, False, False, False, False]


def test_the_summary_by_hand() -> None:
    summary = report_of(ROWS).summary()
    assert (summary["known"], summary["why"], summary["n_test"]) == (True, "", 6)
    assert summary["heavy"] == pytest.approx(
        {"n": 5, "median_identity": 0.95, "share_95": 0.6, "share_90": 0.8, "share_80": 0.8}
    )
    assert summary["light"] == pytest.approx(
        {"n": 4, "median_identity": 0.9, "share_95": 0.5, "share_90": 0.5, "share_80": 0.75}
    )
    assert summary["antigen"]["n"] == 5
    assert summary["exact_pairs"] == pytest.approx({"n_test_rows": 1, "share": 1 / 6})
    # The exact pair, the row one letter off, and the heavy chain alone.
    assert summary["near_twins"] == pytest.approx({"n_test_rows": 3, "share": 0.5})
    assert sentence(summary) == (
        "Leakage: 60.0 % of test rows that have one (5) have a training heavy chain ≥ 95 % identical; exact pairs "
        "in training as well: 1 test row (16.7 %)."
    )


def test_the_frame_has_a_row_per_test_row_and_comes_back() -> None:
    report = report_of(ROWS)
    frame = report.frame(pl.Series([f"r{row}" for row in range(4, 10)]))
    assert frame.columns == ["row_id", "heavy_identity", "light_identity", "antigen_identity", "pair_in_training"]
    assert frame["row_id"].to_list() == ["r4", "r5", "r6", "r7", "r8", "r9"]
    assert frame["heavy_identity"].null_count() == 1
    assert frame["heavy_identity"].is_nan().sum() == 0
    assert Leakage.from_frame(frame).summary() == report.summary()


def test_antigens_alone_have_identities_but_no_pairs() -> None:
    report = report_of([("train", "", "", D), ("test", "", "", D), ("test", "", "", changed(D, 4))])
    summary = report.summary()
    assert (summary["known"], summary["heavy"], summary["exact_pairs"], summary["near_twins"]) == (True, *[None] * 3)
    assert summary["antigen"]["share_95"] == 0.5
    assert sentence(summary) == "Leakage: 50.0 % of test rows have a training antigen ≥ 95 % identical."
    assert report.frame(pl.Series(["a", "b"]))["pair_in_training"].null_count() == 2
    assert Leakage.from_frame(report.frame(pl.Series(["a", "b"]))).summary() == summary


def test_a_table_without_sequences_says_so() -> None:
    report = report_of([("train", "", "", ""), ("val", "", "", ""), ("test", "", "", ""), ("test", "", "", "")])
    summary = report.summary()
    assert (summary["known"], summary["why"]) == (False, "the table has no sequences")
    assert sentence(summary) == "Leakage: unknown; the table has no sequences."
    frame = report.frame(pl.Series(["a", "b"]))
    assert frame.drop("row_id").null_count().row(0) == (2, 2, 2, 2)


def test_sequences_that_cannot_be_compared_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(queries: Sequence[str], references: Sequence[str]) -> np.ndarray:
        raise SequenceError("Comparing needs something; it is not there. Run: pip install it")

    monkeypatch.setattr(leakage, "nearest_identity", failing)
    summary = report_of(ROWS).summary()
    assert (summary["known"], summary["why"]) == (False, "Comparing needs something; it is not there")
    assert summary["n_test"] == 6


def test_a_chain_that_training_lacks_is_unknown() -> None:
    summary = report_of([("train", A, "", D), ("test", A, C, D)]).summary()
    assert summary["light"] is None
    assert summary["near_twins"] == {"n_test_rows": 1, "share": 1.0}


def test_the_report_changes_nothing() -> None:
    frame = frame_of(ROWS)
    before = frame.clone()
    leak_report(frame, np.array([row[0] for row in ROWS]))
    assert frame.equals(before)
