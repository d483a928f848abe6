from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics as judge

from tailbind.evaluation.metrics import FEWEST_FOR_INTERVAL
from tailbind.evaluation.retrieval import (
    FIGURES,
    TOP,
    Known,
    Order,
    find_binders,
    resampled_retrieval,
    retrieval_intervals,
)

VALUE = st.sampled_from([5.0, 6.0, 8.5, 9.0, 9.5, 11.0, 12.0])
ROWS = st.lists(st.tuples(VALUE, VALUE, st.sampled_from(["=", "<", ">"])), min_size=1, max_size=40)


def columns(rows: list[tuple[float, float, str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y_true, y_pred = (np.array([row[index] for row in rows], dtype=float) for index in (0, 1))
    return y_true, y_pred, np.array([row[2] for row in rows], dtype="<U1")


def sample(n: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y_true = rng.normal(7, 1.5, n)
    relation = rng.choice(["=", "<"], n, p=[0.7, 0.3])
    return y_true, (y_true + rng.normal(0, 1, n)).round(1), relation


def by_shuffling(binder: np.ndarray, y_pred: np.ndarray, k: int, n_shuffles: int = 4000) -> float:
    """Return the mean number of binders among the first k, ties in random order."""
    rng = np.random.default_rng(0)
    hits = [binder[np.lexsort([rng.random(len(binder)), -y_pred])][:k].sum() for _ in range(n_shuffles)]
    return float(np.mean(hits))


# --- who is a binder -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relation", "pkd", "known", "binder"),
    [
        ("=", 9.0, True, True), ("=", 8.999, True, False), ("<", 9.0, True, False), ("<", 6.0, True, False),
        ("<", 9.1, False, False), (">", 9.0, True, True), (">", 10.0, True, True), (">", 8.9, False, False),
    ],
)  # fmt: skip
def test_only_what_is_certain_counts(relation: str, pkd: float, known: bool, binder: bool) -> None:
    found = Known.at(9.0, np.array([pkd]), np.array([relation]))
    assert (bool(found.rows[0]), bool(found.binder[0])) == (known, binder)


def test_rows_that_may_be_either_are_counted_and_left_out() -> None:
    y_true, y_pred = np.array([9.5, 9.5, 6.0, 8.0]), np.array([9.0, 12.0, 5.0, 8.0])
    figures = find_binders(y_true, y_pred, np.array(["=", "<", "<", "="]))
    at_nine = figures["9"]
    assert (at_nine["n"], at_nine["n_unknown"], at_nine["n_binders"]) == (3, 1, 1)
    assert at_nine["prevalence"] == pytest.approx(1 / 3)
    assert at_nine["average_precision"] == 1.0  # the row predicted at 12 may be a binder or not
    at_eleven = figures["11"]
    assert (at_eleven["n"], at_eleven["n_unknown"], at_eleven["n_binders"]) == (4, 0, 0)
    assert [at_eleven[name] for name in FIGURES] == [None] * 4
    assert at_eleven["most_enrichment"] is None


# --- each figure against its judge ---------------------------------------------------------------------


@given(ROWS)
def test_average_precision_is_scikit_learns(rows: list[tuple[float, float, str]]) -> None:
    y_true, y_pred, relation = columns(rows)
    known = Known.at(9.0, y_true, relation)
    assume(known.binder.any())
    expected = judge.average_precision_score(known.binder[known.rows], y_pred[known.rows])
    assert find_binders(y_true, y_pred, relation)["9"]["average_precision"] == pytest.approx(expected)


@given(ROWS, st.randoms(use_true_random=False))
def test_counts_are_repeats(rows: list[tuple[float, float, str]], random: Any) -> None:
    y_true, y_pred, _ = columns(rows)
    counts = np.array([random.randrange(4) for _ in rows])
    binder = y_true >= 9
    assume((counts * binder).sum() > 0)
    repeated = np.repeat(binder, counts)
    expected = Order(repeated, np.repeat(y_pred, counts))(np.ones(len(repeated)))
    assert Order(binder, y_pred)(counts.astype(float)) == pytest.approx(expected)
    judged = judge.average_precision_score(binder, y_pred, sample_weight=counts)
    assert expected[0] == pytest.approx(judged)


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_the_cut_through_ties_is_the_mean_over_their_orders(decimals: int) -> None:
    rng = np.random.default_rng(3)
    y_true = rng.normal(8, 1.5, 700)
    y_pred = (y_true + rng.normal(0, 1.5, 700)).round(decimals)
    figures = find_binders(y_true, y_pred, np.full(700, "="))["9"]
    assert figures["n_top"] == 7 == int(700 * TOP)
    hits = by_shuffling(y_true >= 9, y_pred, 7)
    assert figures["precision"] * 7 == pytest.approx(hits, abs=0.1)
    assert figures["recall"] * figures["n_binders"] == pytest.approx(figures["precision"] * 7)
    assert figures["enrichment"] == pytest.approx(figures["precision"] / figures["prevalence"])


def test_a_perfect_a_constant_and_a_reversed_order() -> None:
    y_true, _, _ = sample()
    relation = np.full(len(y_true), "=")
    perfect, constant, reversed_ = (find_binders(y_true, y, relation)["9"] for y in (y_true, y_true * 0, -y_true))
    assert perfect["average_precision"] == pytest.approx(1)
    assert perfect["enrichment"] == pytest.approx(perfect["most_enrichment"])
    assert perfect["precision"] == pytest.approx(1)
    assert constant["average_precision"] == pytest.approx(constant["prevalence"])
    assert constant["enrichment"] == pytest.approx(1)
    assert reversed_["precision"] == reversed_["recall"] == 0
    assert reversed_["average_precision"] < constant["average_precision"]


def test_few_binders_cannot_fill_the_top() -> None:
    y_true = np.concatenate([[12.0, 11.5], np.full(998, 6.0)])
    figures = find_binders(y_true, y_true, np.full(1000, "="))["11"]
    assert (figures["n_top"], figures["precision"], figures["recall"]) == (10, pytest.approx(0.2), 1.0)
    assert figures["enrichment"] == pytest.approx(100)
    assert figures["most_enrichment"] == pytest.approx(100)


def test_no_rows_at_all() -> None:
    figures = find_binders(np.empty(0), np.empty(0), np.empty(0, dtype="<U1"))["9"]
    assert (figures["n"], figures["n_top"], figures["prevalence"], figures["average_precision"]) == (0, 0, None, None)


# --- intervals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("clustered", [False, True])
def test_the_interval_holds_the_figure_and_is_repeatable(clustered: bool) -> None:
    y_true, y_pred, relation = sample()
    clusters = np.arange(len(y_true)) // 20 if clustered else None
    figures = find_binders(y_true, y_pred, relation)["9"]
    first, again = (retrieval_intervals(y_true, y_pred, relation, clusters=clusters, n_resamples=200) for _ in "ab")
    assert first == again
    for name in FIGURES:
        bounds = first["9"][name]
        assert bounds is not None
        assert bounds[0] < figures[name] < bounds[1]


def test_two_orders_are_paired() -> None:
    y_true, y_pred, relation = sample()
    drawn = resampled_retrieval(y_true, [y_pred, y_pred + 1.0, -y_pred], relation, 9.0, n_resamples=50)
    assert drawn is not None
    same, shifted, reversed_ = drawn
    assert np.array_equal(same, shifted)  # an order, not a scale
    assert (reversed_[:, 0] < same[:, 0]).all()


def test_few_binders_have_no_interval() -> None:
    y_true, y_pred = np.full(500, 6.0), np.linspace(0, 1, 500)
    relation = np.full(500, "=")
    y_true[: FEWEST_FOR_INTERVAL - 1] = 10
    assert resampled_retrieval(y_true, [y_pred], relation, 9.0, n_resamples=5) is None
    assert retrieval_intervals(y_true, y_pred, relation, n_resamples=5)["9"] == dict.fromkeys(FIGURES)
    y_true[:FEWEST_FOR_INTERVAL] = 10
    assert resampled_retrieval(y_true, [y_pred], relation, 9.0, n_resamples=5) is not None
    # Enough binders, but all of one cluster of the twenty-five drawn.
    clusters = np.arange(500) // 20
    assert resampled_retrieval(y_true, [y_pred], relation, 9.0, n_resamples=5, clusters=clusters) is None
