"""Inside, edge, outside: by hand, over files, and on public measurements."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tailbind.features.domain import Domain, fit_domain
from tailbind.table.features import Features
from tailbind.table.schema import CANONICAL, AffinityTable, ReadingReport

DATA = Path(__file__).parents[3] / "shared" / "data"
A, C, D, W = ("A" * 50, "C" * 50, "D" * 40, "W" * 100)


def changed(chain: str, n: int) -> str:
    return chain[: len(chain) - n] + "Y" * n


def table_of(rows: list[tuple[str, str, str, str]]) -> AffinityTable:
    """Return a table of heavy, light, antigen and antigen_name, labels 6, 7, 8, 6, …"""
    heavy, light, antigen, name = zip(*rows, strict=True)
    plain: dict[str, object] = {column: [""] * len(rows) for column in CANONICAL}
    frame = pl.DataFrame(
        {**plain, "heavy": heavy, "light": light, "antigen": antigen, "antigen_name": name, "relation": "="}
    ).with_columns(pkd=6.0 + pl.int_range(pl.len()) % 3)
    return AffinityTable(frame, np.empty((len(rows), 0), np.float32), (), ReadingReport((), len(rows), {}, {}))


def features_of(n: int, unseen: dict[int, str] | None = None) -> Features:
    words = [(unseen or {}).get(row, "") for row in range(n)]
    return Features(np.zeros((n, 1), np.float32), ("x",), unseen=np.array(words, dtype=np.str_))


#: Three training rows, and validation rows with 0, 1, 2 and 2 of 100 letters changed.
FITTED = [(A, C, D, ""), (A, changed(C, 3), D, ""), (changed(A, 20), C, "", "HER2")] + [
    (changed(A, n), C, D, "") for n in (0, 1, 2, 2)
]


@pytest.fixture
def domain() -> Domain:
    table = table_of(FITTED)
    return fit_domain(table, features_of(7), np.arange(3), np.arange(3, 7), reads_sequences=True)


def judged(domain: Domain, rows: list[tuple[str, str, str, str]], **more: object) -> pl.DataFrame:
    predicted = np.asarray(more.get("predicted", np.full(len(rows), 7.0)))
    return domain.judge(table_of(rows), features_of(len(rows), more.get("unseen")), predicted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "identity", "word"),
    [
        ((A, C, D, ""), 1.0, "inside"),
        ((changed(A, 2), C, D, ""), 0.98, "inside"),
        ((changed(A, 3), C, D, ""), 0.97, "edge"),
        ((changed(A, 10), C, D, ""), 0.9, "edge"),
        ((changed(A, 12), changed(C, 12), D, ""), 0.8, "outside"),
        ((W, "", D, ""), 0.0, "outside"),
        ((A, C, changed(D, 1), ""), 1.0, "edge"),
        ((A, C, changed(D, 9), ""), 1.0, "outside"),
        ((A, C, "", "HER2"), 1.0, "inside"),
        ((A, C, "", "EGFR"), 1.0, "outside"),
        ((A, C, "", ""), 1.0, "outside"),  # training always knew which
    ],
)
def test_words_by_hand(domain: Domain, row: tuple[str, str, str, str], identity: float, word: str) -> None:
    frame = judged(domain, [row])
    assert frame.columns == ["antibody_identity", "antigen_identity", "domain"]
    assert frame["antibody_identity"][0] == pytest.approx(identity, abs=0.005 if identity < 0.9 else 1e-9)
    assert (frame["antigen_identity"][0] is None) == (row[2] == "")
    assert frame["domain"].to_list() == [word]


def test_what_training_never_saw_is_at_the_edge_at_best(domain: Domain) -> None:
    rows = [(A, C, D, ""), (W, "", D, "")]
    frame = judged(domain, rows, unseen={0: "heavy H52 S>W", 1: "heavy family"})
    assert frame["domain"].to_list() == ["edge", "outside"]


def test_a_prediction_far_beyond_the_labels_is_outside_and_none_is_null(domain: Domain) -> None:
    rows = [(A, C, D, "")] * 4
    frame = judged(domain, rows, predicted=[16.0, -3.0, np.nan, 8.5])
    assert frame["domain"].to_list() == ["outside", "outside", None, "inside"]
    assert frame["antibody_identity"].to_list() == [1.0, 1.0, None, 1.0]


def test_strangers_are_at_the_edge_where_the_validation_rows_were_strangers_too() -> None:
    far = [(changed(A, 25), changed(C, n), D, "") for n in (0, 1, 2, 3, 4, 5, 6, 7)]
    table = table_of([(A, C, D, ""), (A, C, D, ""), *far])
    domain = fit_domain(table, features_of(10), np.arange(2), np.arange(2, 10), reads_sequences=True)
    rows = [(changed(A, 25), C, D, ""), (changed(A, 45), changed(C, 45), D, ""), (A, C, D, "")]
    assert judged(domain, rows)["domain"].to_list() == ["edge", "outside", "inside"]


def test_where_training_knew_of_no_antigen_none_is_judged() -> None:
    table = table_of([(A, C, "", "")] * 6)
    domain = fit_domain(table, features_of(6), np.arange(3), np.arange(3, 6), reads_sequences=True)
    frame = judged(domain, [(A, C, D, ""), (A, C, "", "HER2")])
    assert frame.columns == ["antibody_identity", "domain"]
    assert frame["domain"].to_list() == ["inside", "inside"]


def test_what_is_learned_from_validation_rows_too_is_known() -> None:
    rows = [*FITTED, (W, W, D, "")]
    parts = {"train": np.arange(3), "validation": np.arange(3, 8)}
    domain = fit_domain(table_of(rows), features_of(8), *parts.values(), learned=np.arange(8), reads_sequences=True)
    assert judged(domain, [(W, W, D, "")])["antibody_identity"].to_list() == [1.0]
    assert domain.antibodies.inside == 0.9  # found with training rows alone, to which the last row is a stranger


def test_of_feature_columns_distance_tells(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(300, 4)).astype(np.float32)
    table = table_of([("", "", "", "")] * 300)
    domain = fit_domain(
        table, Features(dense, tuple("abcd")), np.arange(200), np.arange(200, 300), reads_sequences=False
    )
    frame = domain.judge(table, Features(dense, tuple("abcd")), np.full(300, 7.0))
    assert frame.columns == ["domain"]
    assert (frame["domain"][:200] == "inside").all()
    counts = dict(frame["domain"][200:].value_counts().iter_rows())
    assert counts == {"inside": 95, "edge": 4, "outside": 1}
    strange = Features(dense[:1] + np.float32(20), tuple("abcd"))
    assert domain.judge(table.stretch(slice(0, 1)), strange, np.array([7.0]))["domain"].to_list() == ["outside"]
    domain.frame().write_parquet(tmp_path / "domain.parquet")
    again = Domain.from_frame(pl.read_parquet(tmp_path / "domain.parquet"))
    assert again.judge(table, Features(dense, tuple("abcd")), np.full(300, 7.0)).equals(frame)


def test_a_file_holds_all_of_it(domain: Domain, tmp_path: Path) -> None:
    domain.frame().write_parquet(tmp_path / "domain.parquet")
    again = Domain.from_frame(pl.read_parquet(tmp_path / "domain.parquet"))
    rows = [(changed(A, n), C, D, "") for n in range(0, 40, 3)] + [(A, C, "", "HER2"), (A, C, "", "EGFR")]
    assert judged(again, rows).equals(judged(domain, rows))
    assert again.limits() == domain.limits()


def test_some_rows_are_judged_as_among_all(domain: Domain) -> None:
    rows = [(changed(A, n), C, D, "") for n in range(12)]
    whole = judged(domain, rows)
    chosen = np.array([7, 2, 11])
    some = domain.judge(table_of(rows), features_of(12), np.full(3, 7.0), chosen)
    assert some.equals(whole[chosen.tolist()])


def test_a_file_of_another_version_is_refused(domain: Domain) -> None:
    frame = domain.frame()
    text = frame["text"][0].replace('"version": 1', '"version": 9')
    frame = frame.with_columns(text=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(text)).otherwise("text"))
    with pytest.raises(ValueError, match="version 9"):
        Domain.from_frame(frame)


def test_limits_say_nothing_of_what_training_did_not_have(domain: Domain) -> None:
    nothing = replace(domain.antigens, known=replace(domain.antigens.known, sequences=()))
    limits = replace(domain, antigens=nothing).limits()
    assert limits["antigen_identity"] is None
    assert limits["antibody_identity"] == {"inside": pytest.approx(0.98), "edge": 0.9}
    assert limits["predicted_pkd"] == pytest.approx([6 - np.std([6, 7, 8]), 8 + np.std([6, 7, 8])])
