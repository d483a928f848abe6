import time

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as judge

from tailbind.evaluation.censoring import concordance, evaluate_censored

#: Few values, so that labels, bounds and predictions often meet.
VALUE = st.sampled_from([3.0, 5.0, 6.0, 6.5, 7.0, 9.0, 11.0])
ROWS = st.lists(st.tuples(VALUE, VALUE, st.sampled_from(["=", "<", ">"])), max_size=30)


def columns(rows: list[tuple[float, float, str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y_true, y_pred = (np.array([row[index] for row in rows], dtype=float) for index in (0, 1))
    return y_true, y_pred, np.array([row[2] for row in rows], dtype="<U1")


def by_brute_force(y_true: np.ndarray, y_pred: np.ndarray, relation: np.ndarray) -> tuple[float | None, int]:
    """Return concordance by going through every ordered pair of rows."""
    right, n_pairs = 0.0, 0
    for weaker in range(len(y_true)):
        for stronger in range(len(y_true)):
            high = np.inf if relation[weaker] == ">" else y_true[weaker]
            low = -np.inf if relation[stronger] == "<" else y_true[stronger]
            both_measured = relation[weaker] == relation[stronger] == "="
            if weaker != stronger and (high < low or (high == low and not both_measured)):
                n_pairs += 1
                right += (1 + np.sign(y_pred[stronger] - y_pred[weaker])) / 2
    return (right / n_pairs if n_pairs else None), n_pairs


# --- concordance -------------------------------------------------------------------------------------


@given(ROWS)
def test_concordance_is_that_of_all_pairs_ties_included(rows: list[tuple[float, float, str]]) -> None:
    found, n_pairs = concordance(*columns(rows))
    expected, expected_pairs = by_brute_force(*columns(rows))
    assert n_pairs == expected_pairs
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-12))


@pytest.mark.parametrize("n", [127, 128, 129, 300])
def test_concordance_is_that_of_all_pairs_of_more_rows(n: int) -> None:
    rng = np.random.default_rng(n)
    y_true, relation = rng.normal(7, 2, n).round(1), rng.choice(["=", "<", ">"], n, p=[0.5, 0.3, 0.2])
    y_pred = (y_true + rng.normal(0, 1, n)).round(1)
    assert concordance(y_true, y_pred, relation) == pytest.approx(by_brute_force(y_true, y_pred, relation), abs=1e-12)


@given(st.lists(st.tuples(VALUE, VALUE), min_size=2, max_size=30))
@example([(3.0, 5.0), (6.0, 3.0), (6.0, 3.0), (6.0, 6.0), (6.0, 6.0), (6.5, 5.0)])
def test_without_bounds_it_is_somers_d(pairs: list[tuple[float, float]]) -> None:
    # Somers' D of the prediction given the truth is 2 c − 1 (Somers 1962; Newson 2002).
    y_true, y_pred = np.array(pairs).T
    assume(np.ptp(y_true) > 0 and np.ptp(y_pred) > 0)  # SciPy has no value for a constant prediction
    found, _ = concordance(y_true, y_pred, np.full(len(pairs), "="))
    assert found is not None
    with np.errstate(all="ignore"):  # its p-value, which nobody asks for, divides by a variance of 0
        expected = stats.somersd(y_true, y_pred).statistic
    assert 2 * found - 1 == pytest.approx(expected, abs=1e-12)


def test_without_ties_it_is_kendalls_tau() -> None:
    rng = np.random.default_rng(0)
    y_true = rng.normal(size=500)
    y_pred = y_true + rng.normal(size=500)
    found, n_pairs = concordance(y_true, y_pred, np.full(500, "="))
    assert found is not None
    assert 2 * found - 1 == pytest.approx(stats.kendalltau(y_true, y_pred).statistic)
    assert n_pairs == 500 * 499 / 2


def test_of_a_floor_and_a_ceiling_it_is_the_area_under_the_roc_curve() -> None:
    rng = np.random.default_rng(0)
    relation = rng.choice(["<", ">"], 400)
    y_pred = (rng.normal(size=400) + (relation == ">")).round(1)
    found, n_pairs = concordance(np.full(400, 6.0), y_pred, relation)
    assert found == pytest.approx(judge.roc_auc_score(relation == ">", y_pred))
    assert n_pairs == (relation == "<").sum() * (relation == ">").sum()


@pytest.mark.parametrize(
    ("weaker", "stronger", "comparable"),
    [
        (("=", 6.0), ("=", 6.1), True),
        (("=", 6.0), ("=", 6.0), False),
        (("<", 6.0), ("=", 6.0), True),
        (("<", 6.1), ("=", 6.0), False),
        (("=", 6.0), (">", 6.0), True),
        (("=", 6.1), (">", 6.0), False),
        (("<", 6.0), (">", 6.0), True),
        (("<", 6.1), (">", 6.0), False),
        (("<", 5.0), ("<", 6.0), False),
        ((">", 5.0), (">", 6.0), False),
        ((">", 5.0), ("=", 6.0), False),
        (("=", 5.0), ("<", 6.0), False),
    ],
)
def test_which_pairs_have_a_certain_order(
    weaker: tuple[str, float], stronger: tuple[str, float], comparable: bool
) -> None:
    relation, y_true = np.array([weaker[0], stronger[0]]), np.array([weaker[1], stronger[1]])
    right, wrong, same = np.array([1.0, 2.0]), np.array([2.0, 1.0]), np.array([1.0, 1.0])
    if comparable:
        assert [concordance(y_true, p, relation) for p in (right, wrong, same)] == [(1.0, 1), (0.0, 1), (0.5, 1)]
    else:
        assert concordance(y_true, right, relation) == (None, 0)


@given(ROWS)
def test_turning_predictions_round_turns_concordance_round(rows: list[tuple[float, float, str]]) -> None:
    y_true, y_pred, relation = columns(rows)
    found, _ = concordance(y_true, y_pred, relation)
    turned, _ = concordance(y_true, -y_pred, relation)
    if found is not None and turned is not None:
        assert found + turned == pytest.approx(1)


def test_fifty_thousand_rows_are_a_matter_of_a_second() -> None:
    rng = np.random.default_rng(0)
    y_true = rng.normal(7, 1, 50_000)
    y_pred = y_true + rng.normal(0, 1, 50_000)
    relation = np.where(y_true < 7, "<", "=")
    started = time.process_time()
    found, n_pairs = concordance(np.maximum(y_true, 7.0), y_pred, relation)
    assert time.process_time() - started < 3
    assert found == pytest.approx(0.778, abs=0.01)
    n_measured = int((relation == "=").sum())
    assert n_pairs == n_measured * (n_measured - 1) // 2 + n_measured * (50_000 - n_measured)


# --- all figures -------------------------------------------------------------------------------------


def test_censored_rows_cost_on_the_wrong_side_alone() -> None:
    y_true, y_pred = np.array([6.0, 6.0, 9.0, 9.0, 7.0]), np.array([5.0, 8.0, 10.0, 8.0, 1.0])
    figures = evaluate_censored(y_true, y_pred, np.array(["<", "<", ">", ">", "="]))
    assert figures == {
        "n": 4,
        "n_below": 2,
        "n_above": 2,
        "one_sided_rmse": pytest.approx(np.sqrt((4 + 1) / 4)),
        "one_sided_mae": pytest.approx(3 / 4),
        "share_beyond": 0.5,
        "concordance": pytest.approx(5.5 / 8),  # "<" and ">": 3½ of 4; "<" and "=": 0 of 2; "=" and ">": 2 of 2
        "concordance_pairs": 8,
    }


def test_at_the_bound_a_prediction_is_not_beyond_it() -> None:
    figures = evaluate_censored(np.array([6.0, 9.0]), np.array([6.0, 9.0]), np.array(["<", ">"]))
    assert figures["share_beyond"] == figures["one_sided_mae"] == figures["one_sided_rmse"] == 0.0


def test_without_censored_rows_there_is_concordance_all_the_same() -> None:
    figures = evaluate_censored(np.array([5.0, 6.0, 7.0]), np.array([1.0, 3.0, 2.0]), np.full(3, "="))
    assert figures == {
        "n": 0, "n_below": 0, "n_above": 0, "one_sided_rmse": None, "one_sided_mae": None, "share_beyond": None,
        "concordance": pytest.approx(2 / 3), "concordance_pairs": 3,
    }  # fmt: skip


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_have_no_pair(n: int) -> None:
    figures = evaluate_censored(np.full(n, 6.0), np.full(n, 6.0), np.full(n, "="))
    assert (figures["concordance"], figures["concordance_pairs"]) == (None, 0)


def test_nothing_that_is_given_is_changed() -> None:
    rng = np.random.default_rng(0)
    y_true, y_pred, relation = rng.normal(size=50), rng.normal(size=50), rng.choice(["=", "<", ">"], 50)
    before = y_true.copy(), y_pred.copy(), relation.copy()
    evaluate_censored(y_true, y_pred, relation)
    for now, then in zip((y_true, y_pred, relation), before, strict=True):
        np.testing.assert_array_equal(now, then)
