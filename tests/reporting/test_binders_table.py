import numpy as np

from tailbind.evaluation.retrieval import find_binders, retrieval_intervals
from tailbind.reporting.tables import binders_table


def figures(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, object]:
    relation = np.full(len(y_true), "=")
    found = find_binders(y_true, y_pred, relation)
    limits = retrieval_intervals(y_true, y_pred, relation, n_resamples=50)
    return {"retrieval": {name: {**entry, "intervals": limits[name]} for name, entry in found.items()}}


def test_precision_stands_beside_recall() -> None:
    rng = np.random.default_rng(0)
    y_true = np.concatenate([rng.uniform(5, 8.9, 950), np.full(50, 9.5)])
    test, ridge = figures(y_true, y_true), figures(y_true, -y_true)
    (table,) = binders_table(test, ridge)
    assert len(table.rows) == 1  # nothing is at 11 or above
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert row["Binders"] == "pKd ≥ 9"
    assert row["n"] == "50 of 1,000"
    assert row["Prevalence"] == "0.050"
    assert row["Average precision"] == "1.000"
    assert row["95 % interval"] == "1.000 to 1.000"
    assert row["Ridge"] == "0.050"  # all of them last, as equals: no better than chance
    assert row["Enrichment in the top 1 %"] == "20.0 of 20.0"
    assert (row["Precision there"], row["Recall there"]) == ("1.000", "0.200")


def test_alone_and_without_intervals() -> None:
    y_true = np.array([9.5, *[6.0] * 99])
    (table,) = binders_table(figures(y_true, y_true))
    assert "Ridge" not in table.header
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert row["95 % interval"] == "–"  # one binder is too few for one
    assert (row["Precision there"], row["Recall there"]) == ("1.000", "1.000")


def test_no_binders_no_table() -> None:
    assert binders_table(figures(np.full(30, 6.0), np.linspace(5, 7, 30))) == ()
