from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as judge

from tailbind.evaluation import metrics
from tailbind.evaluation.metrics import (
    FEWEST_CLUSTERS,
    FEWEST_FOR_INTERVAL,
    OVERALL,
    bias,
    evaluate,
    figure,
    intervals,
    macro_rmse,
    mae,
    metric_names,
    pearson,
    percentile_intervals,
    r2,
    resampled,
    rmse,
    spearman,
)
from tailbind.scale import BIN_NAMES

#: Affinities with many ties, some on the edges of bins.
TIED = st.sampled_from([3.0, 4.5, 5.0, 6.0, 6.5, 7.0, 8.25, 9.0, 10.0, 11.0, 12.5])
PAIRS = st.lists(st.tuples(TIED, TIED), min_size=2, max_size=40)


def columns(pairs: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    y_true, y_pred = np.array(pairs).T
    return y_true.copy(), y_pred.copy()


def sample(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y_true = rng.uniform(3, 13, n)
    return y_true, y_true + rng.normal(0.3, 1.0, n)


# --- each metric against its judge -------------------------------------------------------------------


@given(PAIRS)
def test_errors_are_scikit_learns(pairs: list[tuple[float, float]]) -> None:
    y_true, y_pred = columns(pairs)
    assert rmse(y_true, y_pred) == pytest.approx(judge.root_mean_squared_error(y_true, y_pred))
    assert mae(y_true, y_pred) == pytest.approx(judge.mean_absolute_error(y_true, y_pred))
    assert bias(y_true, y_pred) == pytest.approx(float(np.mean(y_pred - y_true)), abs=1e-12)


@given(PAIRS)
def test_r2_is_scikit_learns(pairs: list[tuple[float, float]]) -> None:
    y_true, y_pred = columns(pairs)
    assume(np.ptp(y_true) > 0)
    assert r2(y_true, y_pred) == pytest.approx(judge.r2_score(y_true, y_pred))


@given(PAIRS)
def test_correlations_are_scipys_ties_included(pairs: list[tuple[float, float]]) -> None:
    y_true, y_pred = columns(pairs)
    assume(np.ptp(y_true) > 0 and np.ptp(y_pred) > 0)
    assert pearson(y_true, y_pred) == pytest.approx(stats.pearsonr(y_true, y_pred).statistic, abs=1e-9)
    assert spearman(y_true, y_pred) == pytest.approx(stats.spearmanr(y_true, y_pred).statistic, abs=1e-9)


def test_signs_by_hand() -> None:
    y = np.array([5.0, 6.0, 8.0, 12.0])
    assert bias(y, y + 0.5) == pytest.approx(0.5)
    assert (pearson(y, -y), spearman(y, -y), spearman(y, np.exp(y))) == pytest.approx((-1, -1, 1))
    assert r2(y, y) == 1.0
    assert r2(y, np.full(4, y.mean())) == pytest.approx(0.0)


@pytest.mark.parametrize("value", [7.0, 0.1, 6.9, 1 / 3])
@pytest.mark.parametrize("n", [2, 5, 10, 33])
def test_a_constant_side_has_no_correlation(value: float, n: int) -> None:
    y, _ = sample(n)
    constant = np.full(n, value)
    for metric in (pearson, spearman):
        assert np.isnan(metric(y, constant))
        assert np.isnan(metric(constant, y))
    assert np.isnan(r2(constant, y))
    assert np.isfinite(r2(y, constant))


def test_one_row_and_none() -> None:
    one, none = np.array([7.0]), np.empty(0)
    assert rmse(one, one + 1) == mae(one, one + 1) == bias(one, one + 1) == 1.0
    for metric in (pearson, spearman, r2):
        assert np.isnan(metric(one, one))
        assert np.isnan(metric(none, none))
    for metric in (rmse, mae, bias):
        assert np.isnan(metric(none, none))


@given(PAIRS, st.randoms(use_true_random=False))
def test_a_weight_is_a_number_of_repeats(pairs: list[tuple[float, float]], random: Any) -> None:
    y_true, y_pred = columns(pairs)
    counts = np.array([random.randrange(4) for _ in pairs])
    assume(counts.sum() > 0)
    repeated = np.repeat(y_true, counts), np.repeat(y_pred, counts)
    assume(np.ptp(repeated[0]) > 0 and np.ptp(repeated[1]) > 0)
    for metric in (rmse, mae, bias, r2, pearson, spearman):
        expected = metric(*repeated)
        assert metric(y_true, y_pred, counts.astype(float)) == pytest.approx(expected, abs=1e-9), metric.__name__


def test_macro_rmse_counts_every_bin_alike() -> None:
    y_true = np.array([4.0, *[6.0] * 97, 12.0, 12.0])
    y_pred = np.array([4.5, *[6.0] * 97, 11.0, 13.0])
    assert macro_rmse(y_true, y_pred) == pytest.approx((0.5 + 0 + 1) / 3)
    weight = np.concatenate([np.ones(98), [0.0, 0.0]])  # no very strong row is left
    assert macro_rmse(y_true, y_pred, weight) == pytest.approx((0.5 + 0) / 2)
    assert np.isnan(macro_rmse(np.empty(0), np.empty(0)))
    one_bin = np.array([5.0, 6.9]), np.array([5.5, 6.0])
    assert macro_rmse(*one_bin) == pytest.approx(rmse(*one_bin))


def test_overshooting_shows_by_predicted_bin() -> None:
    y_true = np.array([*[8.0] * 99, 12.0])
    y_pred = np.array([*[8.0] * 90, *[12.0] * 10])  # one is right about the tail, nine rows are not in it
    figures = evaluate(y_true, y_pred)
    assert figures["bins"]["very_strong"]["rmse"] == 0
    by_predicted = figures["predicted_bins"]["very_strong"]
    assert by_predicted["n"] == 10
    assert by_predicted["rmse"] == pytest.approx(np.sqrt(9 * 16 / 10))
    assert by_predicted["bias"] == pytest.approx(3.6)
    assert figures["predicted_bins"]["weak"] is None
    assert figures["macro_rmse"] == pytest.approx(macro_rmse(y_true, y_pred))


# --- everything at once ------------------------------------------------------------------------------


def test_evaluate_by_hand() -> None:
    y_true = np.array([4.0, 5.0, 6.0, 11.0, 12.0])
    y_pred = np.array([5.0, 5.0, 5.0, 9.0, 11.0])
    figures = evaluate(y_true, y_pred)
    assert figures["n"] == 5
    assert figures["rmse"] == pytest.approx(np.sqrt(7 / 5))
    assert figures["mae"] == pytest.approx(1.0)
    assert figures["bias"] == pytest.approx(-0.6)
    assert figures["label_sd"] == pytest.approx(y_true.std())
    assert figures["prediction_sd"] == pytest.approx(y_pred.std())
    assert figures["distinct_predictions"] == 3
    assert figures["bins"] == {
        "very_weak": {"n": 1, "rmse": 1.0, "mae": 1.0, "bias": 1.0},
        "weak": {"n": 2, "rmse": pytest.approx(np.sqrt(0.5)), "mae": 0.5, "bias": -0.5},
        "moderate": None,
        "strong": None,
        "very_strong": {"n": 2, "rmse": pytest.approx(np.sqrt(2.5)), "mae": 1.5, "bias": -1.5},
    }


def test_bins_are_of_the_truth_and_share_out_all_rows() -> None:
    y_true, y_pred = sample()
    figures = evaluate(y_true, y_pred)
    bins = figures["bins"]
    assert list(bins) == list(BIN_NAMES)
    assert sum(entry["n"] for entry in bins.values()) == 200
    squared = sum(entry["n"] * entry["rmse"] ** 2 for entry in bins.values())
    assert np.sqrt(squared / 200) == pytest.approx(figures["rmse"])


def test_distinct_predictions_are_to_a_thousandth() -> None:
    y = np.linspace(5, 6, 4)
    assert evaluate(y, np.array([7.0, 7.0001, 7.0002, 7.0]))["distinct_predictions"] == 1
    assert evaluate(y, np.array([7.0, 7.002, 7.004, 7.006]))["distinct_predictions"] == 4


def test_figures_are_found_by_their_flat_names() -> None:
    y_true, y_pred = sample()
    figures = evaluate(y_true, y_pred)
    for name in metric_names():
        value = figure(figures, name)
        assert value is not None
        bin_name, _, metric = name.rpartition(".")
        assert value == (figures["bins"][bin_name][metric] if bin_name else figures[name])
    assert figure({"rmse": float("nan"), "bins": {}}, "rmse") is None
    assert figure(figures, "absent") is None
    assert figure(figures, "absent.rmse") is None


# --- the bootstrap -----------------------------------------------------------------------------------


def drawn_counts(n: int, n_resamples: int, seed: int) -> np.ndarray:
    """Return (n_resamples, n) how often each row is drawn, as the bootstrap is stated to draw."""
    rng = np.random.default_rng(seed)
    return np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(n_resamples)])


def plain(y_true: np.ndarray, y_pred: np.ndarray) -> list[float]:
    figures = evaluate(y_true, y_pred)
    values = [figure(figures, name) for name in metric_names()]
    return [float("nan") if value is None else value for value in values]


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.integers(0, 5))
def test_a_resample_is_its_rows_repeated(pairs: list[tuple[float, float]], seed: int) -> None:
    y_true, y_pred = columns(pairs)
    second = y_pred[::-1].copy()
    values = resampled(y_true, [y_pred, second], n_resamples=6, seed=seed)
    for position, counts in enumerate(drawn_counts(len(y_true), 6, seed)):
        for of_values, predicted in zip(values, (y_pred, second), strict=True):
            expected = plain(np.repeat(y_true, counts), np.repeat(predicted, counts))
            np.testing.assert_allclose(of_values[position], expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_a_resample_of_many_rows_is_its_rows_repeated(seed: int) -> None:
    y_true, y_pred = sample(500, seed)
    y_true = y_true.round(1)
    values = resampled(y_true, [y_pred], n_resamples=4, seed=seed)[0]
    assert values.shape == (4, len(metric_names()))
    for row, counts in zip(values, drawn_counts(500, 4, seed), strict=True):
        np.testing.assert_allclose(row, plain(np.repeat(y_true, counts), np.repeat(y_pred, counts)), rtol=1e-9)


def test_chunks_do_not_change_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    y_true, y_pred = sample(50)
    whole = resampled(y_true, [y_pred], n_resamples=20)[0]
    monkeypatch.setattr(metrics, "_ROWS_AT_A_TIME", 150)
    np.testing.assert_allclose(resampled(y_true, [y_pred], n_resamples=20)[0], whole, rtol=1e-12)


@pytest.mark.parametrize("value", [6.9, 7.1, 0.1, 1 / 3, 7.123456])
@pytest.mark.parametrize("n", [21, 50, 333])
def test_a_constant_prediction_has_no_interval_of_its_correlation(value: float, n: int) -> None:
    y_true, _ = sample(n)
    found = intervals(y_true, np.full(n, value), n_resamples=200)
    assert found["pearson"] is None
    assert found["spearman"] is None
    assert found["rmse"] is not None
    same_label = intervals(np.full(n, value), y_true, n_resamples=200)
    assert same_label["pearson"] is None
    assert same_label["r2"] is None


def test_the_interval_holds_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        y_true = rng.uniform(3, 13, 80)
        low, high = intervals(y_true, y_true + rng.normal(0, 1.0, 80), n_resamples=100)["rmse"]
        held += low <= 1.0 <= high
    assert 0.88 <= held / 200 <= 0.99


def test_an_interval_narrows_with_the_root_of_the_rows() -> None:
    widths = []
    for n in (100, 1600):
        low, high = intervals(*sample(n), n_resamples=400)["rmse"]
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)


def test_intervals_hold_their_figures_bin_by_bin() -> None:
    y_true, y_pred = sample()
    figures, found = evaluate(y_true, y_pred), intervals(y_true, y_pred)
    for name in OVERALL:
        assert found[name][0] < figures[name] < found[name][1]
    for name in BIN_NAMES:
        for metric in ("rmse", "mae", "bias"):
            low, high = found["bins"][name][metric]
            assert low < figures["bins"][name][metric] < high


def test_intervals_depend_on_the_seed_alone() -> None:
    y_true, y_pred = sample()
    assert intervals(y_true, y_pred) == intervals(y_true, y_pred, seed=0)
    assert intervals(y_true, y_pred)["rmse"] != intervals(y_true, y_pred, seed=1)["rmse"]


def test_bins_of_few_rows_have_no_interval() -> None:
    counts = [0, FEWEST_FOR_INTERVAL - 1, FEWEST_FOR_INTERVAL, 20, 1]
    y_true = np.repeat([4.0, 6.0, 8.0, 10.0, 12.0], counts)
    found = intervals(y_true, y_true + np.random.default_rng(0).normal(size=len(y_true)))
    has = {name for name, of_bin in found["bins"].items() if of_bin is not None}
    assert has == {"moderate", "strong"}
    low, high = found["bins"]["moderate"]["rmse"]
    assert 0 < low < high


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_have_no_intervals(n: int) -> None:
    found = intervals(np.full(n, 7.0), np.full(n, 7.0))
    assert {name: found[name] for name in OVERALL} == dict.fromkeys(OVERALL)
    assert found["bins"] == dict.fromkeys(BIN_NAMES)


# --- clusters ----------------------------------------------------------------------------------------


def clustered(n_clusters: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, predictions and clusters of rows that are the same within a cluster."""
    rng = np.random.default_rng(seed)
    y_true = rng.uniform(3, 13, n_clusters)
    y_pred = y_true + rng.normal(0, 1, n_clusters)
    return y_true.repeat(size), y_pred.repeat(size), np.arange(n_clusters).repeat(size)


def width(found: dict[str, Any], metric: str = "rmse") -> float:
    low, high = found[metric]
    return float(high - low)


def drawn_cluster_counts(clusters: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Return (n_resamples, n) how often each row is drawn, cluster by cluster, the long way."""
    rng = np.random.default_rng(seed)
    distinct = np.unique(clusters)
    counts = np.zeros((n_resamples, len(clusters)), dtype=int)
    for resample in counts:
        for chosen in rng.integers(len(distinct), size=len(distinct)):
            resample[clusters == distinct[chosen]] += 1
    return counts


def test_whole_clusters_are_drawn_as_often_as_there_are_clusters() -> None:
    rng = np.random.default_rng(4)
    clusters = rng.choice(25, 120) * 7 - 50  # numbered in any way, of any size
    assert len(np.unique(clusters)) >= FEWEST_CLUSTERS
    y_true, y_pred = sample(120)
    second = y_pred[::-1].copy()
    values = resampled(y_true, [y_pred, second], n_resamples=30, seed=9, clusters=clusters)
    for of_values, predicted in zip(values, (y_pred, second), strict=True):
        for row, counts in zip(of_values, drawn_cluster_counts(clusters, 30, 9), strict=True):
            np.testing.assert_allclose(row, plain(np.repeat(y_true, counts), np.repeat(predicted, counts)), rtol=1e-7)


def test_identical_rows_are_one_observation() -> None:
    # Thirty clusters of twenty identical rows say as much as thirty rows: intervals are √20 times as wide.
    y_true, y_pred, clusters = clustered(30, 20)
    by_cluster = intervals(y_true, y_pred, clusters=clusters)
    by_row = intervals(y_true, y_pred)
    one_each = intervals(y_true[::20], y_pred[::20])
    assert width(by_cluster) == pytest.approx(width(one_each), rel=0.1)
    for metric in OVERALL:
        assert width(by_cluster, metric) / width(by_row, metric) == pytest.approx(np.sqrt(20), rel=0.3), metric
    assert (by_cluster["by"], by_cluster["n_clusters"]) == ("clusters", 30)
    assert (by_row["by"], by_row["n_clusters"]) == ("rows", None)


def test_the_cluster_interval_holds_the_truth_where_that_of_rows_does_not() -> None:
    rng = np.random.default_rng(2)
    held = {"clusters": 0, "rows": 0}
    for _ in range(100):
        y_true = rng.uniform(3, 13, 40).repeat(10)
        y_pred = y_true + rng.normal(0, 1.0, 40).repeat(10)
        for name, clusters in (("clusters", np.arange(40).repeat(10)), ("rows", None)):
            low, high = intervals(y_true, y_pred, n_resamples=100, clusters=clusters)["rmse"]
            held[name] += low <= 1.0 <= high
    assert held["clusters"] >= 85
    assert held["rows"] <= 65


def test_fewer_than_twenty_clusters_are_not_drawn() -> None:
    y_true, y_pred, clusters = clustered(FEWEST_CLUSTERS - 1, 10)
    found = intervals(y_true, y_pred, clusters=clusters)
    assert (found["by"], found["n_clusters"]) == ("rows", FEWEST_CLUSTERS - 1)
    assert found["rmse"] == intervals(y_true, y_pred)["rmse"]
    y_true, y_pred, clusters = clustered(FEWEST_CLUSTERS, 10)
    assert intervals(y_true, y_pred, clusters=clusters)["by"] == "clusters"


def test_rows_that_are_clusters_of_one_give_what_rows_give() -> None:
    y_true, y_pred = sample(60)
    found, of_rows = intervals(y_true, y_pred, clusters=np.arange(60)), intervals(y_true, y_pred)
    assert {**found, "by": "rows", "n_clusters": None} == of_rows


def test_a_bin_of_few_clusters_has_no_interval() -> None:
    # Thirty clusters of moderate rows; the strong rows are of four clusters, the weak ones of five.
    y_true = np.concatenate([np.full(60, 8.0), np.full(40, 10.0), np.full(10, 6.0)])
    clusters = np.concatenate([np.arange(30).repeat(2), np.arange(4).repeat(10), np.arange(5).repeat(2)])
    y_pred = y_true + np.random.default_rng(0).normal(size=len(y_true))
    found = intervals(y_true, y_pred, clusters=clusters)["bins"]
    assert {name for name, of_bin in found.items() if of_bin is not None} == {"weak", "moderate"}
    assert intervals(y_true, y_pred)["bins"]["strong"] is not None


def test_percentiles_by_hand_leaving_out_what_is_not_a_number() -> None:
    values = np.tile(np.arange(201.0)[:, None], (1, len(metric_names())))
    assert percentile_intervals(values)["rmse"] == pytest.approx((5.0, 195.0))
    values[:90, 0] = np.nan
    assert percentile_intervals(values)["rmse"] == pytest.approx((92.75, 197.25))
    values[:110, 0] = np.nan
    assert percentile_intervals(values)["rmse"] is None


def test_metrics_change_nothing() -> None:
    y_true, y_pred = sample(40)
    before = y_true.copy(), y_pred.copy()
    evaluate(y_true, y_pred)
    intervals(y_true, y_pred, n_resamples=10)
    np.testing.assert_array_equal(y_true, before[0])
    np.testing.assert_array_equal(y_pred, before[1])
