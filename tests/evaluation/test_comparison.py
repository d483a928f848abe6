import numpy as np
import pytest

from tailbind.evaluation import comparison as module
from tailbind.evaluation.censoring import evaluate_censored
from tailbind.evaluation.comparison import (
    COMPARED,
    COMPARED_MARKED,
    CONCORDANCE_RESAMPLES,
    Comparison,
    Difference,
    compare_predictions,
    differing_rows,
)
from tailbind.evaluation.metrics import evaluate, figure, intervals


def truth(n: int = 400) -> np.ndarray:
    return np.random.default_rng(0).uniform(5, 12.5, n)


def noisy(y_true: np.ndarray, sd: float, seed: int = 1) -> np.ndarray:
    return y_true + np.random.default_rng(seed).normal(0, sd, len(y_true))


def by_metric(comparison: Comparison, run: int) -> dict[str, Difference]:
    return {entry.metric: entry for entry in comparison.differences[run]}


def test_values_and_intervals_are_those_of_evaluation() -> None:
    y = truth()
    runs = {"v1": noisy(y, 1.5), "v2": noisy(y, 1.0, seed=2)}
    comparison = compare_predictions(y, runs, n_resamples=200)
    assert comparison.names == ("v1", "v2")
    assert comparison.n == 400
    assert sum(comparison.bin_counts.values()) == 400
    for position, y_pred in enumerate(runs.values()):
        figures, found = evaluate(y, y_pred), intervals(y, y_pred, n_resamples=200)
        entries = by_metric(comparison, position)
        assert tuple(entries) == COMPARED
        for metric, entry in entries.items():
            assert entry.value == figure(figures, metric)
        assert entries["rmse"].interval == pytest.approx(found["rmse"])
        assert entries["strong.rmse"].interval == pytest.approx(found["bins"]["strong"]["rmse"])


def test_a_clearly_better_run_is_clear_in_every_metric() -> None:
    y = truth()
    better = by_metric(compare_predictions(y, {"v1": noisy(y, 2.0), "v2": noisy(y, 0.5, seed=2)}, 300), 1)
    for metric in ("rmse", "mae", "spearman", "pearson", "r2", "weak.rmse", "very_strong.rmse"):
        entry = better[metric]
        assert entry.better is True, metric
        assert entry.clear is True, metric
        assert entry.difference_interval is not None
        assert not entry.difference_interval[0] <= 0 <= entry.difference_interval[1]
        assert entry.difference_interval[0] <= entry.difference <= entry.difference_interval[1]
    assert better["rmse"].difference < 0
    assert better["spearman"].difference > 0
    assert better["rmse"].change_percent == pytest.approx(-75, abs=8)


def test_a_worse_run_is_said_to_be_worse() -> None:
    y = truth()
    worse = by_metric(compare_predictions(y, {"v1": noisy(y, 0.5), "v2": noisy(y, 2.0, seed=2)}, 100), 1)
    assert {worse[metric].better for metric in ("rmse", "mae", "spearman", "pearson", "r2")} == {False}
    assert worse["rmse"].change_percent > 100


def test_a_copy_differs_in_nothing() -> None:
    y = truth()
    for entry in by_metric(compare_predictions(y, {"v1": noisy(y, 1), "copy": noisy(y, 1)}, 100), 1).values():
        if entry.value is None:
            continue
        assert entry.difference == 0
        assert entry.difference_interval == (0, 0)
        assert (entry.better, entry.clear, entry.change_percent) == (None, False, 0)


def test_an_equally_good_run_is_not_clear() -> None:
    y = truth()
    entry = by_metric(compare_predictions(y, {"v1": noisy(y, 1.0, 1), "v2": noisy(y, 1.0, 7)}, 300), 1)["rmse"]
    assert entry.clear is False
    assert entry.difference_interval[0] < 0 < entry.difference_interval[1]


def test_pairing_sees_what_separate_intervals_do_not() -> None:
    # The second run is the first with its errors a fiftieth smaller: less than either interval is wide.
    y = truth()
    first = noisy(y, 1.0)
    comparison = compare_predictions(y, {"v1": first, "v2": y + (first - y) * 0.98}, 300)
    reference, entry = by_metric(comparison, 0)["rmse"], by_metric(comparison, 1)["rmse"]
    assert reference.interval[0] < entry.value < reference.interval[1]
    assert entry.clear is True
    assert entry.change_percent == pytest.approx(-2.0)


def test_the_change_is_relative_to_the_size_of_a_negative_reference() -> None:
    y = truth()
    entry = by_metric(compare_predictions(y, {"v1": np.full(400, 20.0), "v2": noisy(y, 0.5)}, 50), 1)["r2"]
    assert entry.better is True
    assert entry.change_percent > 0


def test_the_first_run_is_held_against_nothing() -> None:
    y = truth()
    for entry in compare_predictions(y, {"v1": noisy(y, 1), "v2": noisy(y, 2)}, 50).differences[0]:
        assert (entry.change_percent, entry.better, entry.difference, entry.difference_interval, entry.clear) == (
            (None,) * 5
        )


def test_a_bin_without_rows_has_no_value_and_one_row_no_interval() -> None:
    y = np.concatenate([truth(), [4.0]])
    y = y[y < 11]
    run = by_metric(compare_predictions(y, {"v1": noisy(y, 1), "v2": noisy(y, 0.3, seed=2)}, 100), 1)
    assert run["very_strong.rmse"] == Difference("very_strong.rmse", None, None)
    assert run["very_weak.rmse"].value is not None
    assert run["very_weak.rmse"].interval is None
    assert run["very_weak.rmse"].difference_interval is None
    assert run["very_weak.rmse"].clear is None


def test_clusters_widen_the_paired_interval_and_are_told() -> None:
    y = truth(40).repeat(10)
    runs = {"v1": noisy(y[::10], 1.0).repeat(10), "v2": noisy(y[::10], 0.9, seed=2).repeat(10)}
    of_rows = compare_predictions(y, runs, 300)
    comparison = compare_predictions(y, runs, 300, clusters=np.arange(40).repeat(10), why="not read")
    assert (of_rows.by, of_rows.n_clusters, of_rows.why) == ("rows", None, "")
    assert (comparison.by, comparison.n_clusters, comparison.why) == ("clusters", 40, "")
    assert compare_predictions(y, runs, 10, why="the table has no antibody sequences").why.startswith("the table")
    narrow, wide = (by_metric(found, 1)["rmse"].difference_interval for found in (of_rows, comparison))
    assert narrow is not None
    assert wide is not None
    assert (wide[1] - wide[0]) / (narrow[1] - narrow[0]) == pytest.approx(np.sqrt(10), rel=0.3)
    few = compare_predictions(y, runs, 300, clusters=np.arange(10).repeat(40))
    assert (few.by, few.n_clusters) == ("rows", 10)
    assert by_metric(few, 1)["rmse"] == by_metric(of_rows, 1)["rmse"]


def test_a_bin_of_few_clusters_is_not_judged() -> None:
    y = np.concatenate([np.full(60, 8.0), np.full(40, 10.0)])
    clusters = np.concatenate([np.arange(30).repeat(2), np.arange(4).repeat(10)])
    runs = {"v1": noisy(y, 1), "v2": noisy(y, 0.3, seed=2)}
    assert by_metric(compare_predictions(y, runs, 100, clusters=clusters), 1)["strong.rmse"].clear is None
    assert by_metric(compare_predictions(y, runs, 100), 1)["strong.rmse"].clear is True


def test_three_runs_are_all_held_against_the_first() -> None:
    y = truth()
    comparison = compare_predictions(y, {"a": noisy(y, 1), "b": noisy(y, 2, 2), "c": noisy(y, 0.5, 3)}, 100)
    assert [by_metric(comparison, run)["rmse"].better for run in range(3)] == [None, False, True]


def floored(n: int = 400, floor: float = 7.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true pKd, labels with a floor, and their relations."""
    true = truth(n)
    return true, np.maximum(true, floor), np.where(true < floor, "<", "=")


def test_marked_metrics_by_hand() -> None:
    y = np.array([6.0, 6.0, 8.0, 9.0, 10.0])
    relation = np.array(["<", "<", "=", "=", ">"])
    # Below, one is 1 beyond its bound, the other on its side; above, 2 beyond. Measured: errors of 1 and −1.
    runs = {"v1": np.array([7.0, 3.0, 9.0, 8.0, 8.0]), "v2": np.array([5.0, 3.0, 8.0, 9.0, 12.0])}
    comparison = compare_predictions(y, runs, n_resamples=20, relation=relation)
    first, second = by_metric(comparison, 0), by_metric(comparison, 1)
    of_bins = [f"measured.{name}.rmse" for name in ("weak", "strong")]  # moderate, where 8 is, has no marked row
    assert tuple(second) == (*COMPARED, *COMPARED_MARKED[:2], *of_bins, *COMPARED_MARKED[2:])
    assert first["measured.rmse"].value == 1.0
    assert first["measured.spearman"].value == -1.0
    assert first["censored.one_sided_rmse"].value == pytest.approx(np.sqrt((1 + 0 + 4) / 3))
    # Of 9 pairs, the 6 of a floor and a stronger row are in order; of the other three two are not, and one is even.
    assert first["censored.concordance"].value == pytest.approx(6.5 / 9)
    perfect = [second[metric] for metric in COMPARED_MARKED]
    assert [entry.value for entry in perfect] == [0.0, 1.0, 0.0, 1.0]
    assert [entry.better for entry in perfect] == [True] * 4
    assert second["measured.rmse"].change_percent == -100
    assert comparison.n_marked == 3
    n = comparison.n_by_metric
    assert [n[metric] for metric in ("rmse", *COMPARED_MARKED)] == [5, 2, 2, 3, 5]
    assert [n[metric] for metric in of_bins] == [0, 1]
    assert [first[metric].value for metric in of_bins] == [None, 1.0]
    assert tuple(n) == tuple(second)


def test_marked_metrics_are_those_of_a_run_s_own_figures() -> None:
    _, y, relation = floored()
    relation[y > 12] = ">"
    measured = relation == "="
    runs = {"v1": noisy(y, 1.5), "v2": noisy(y, 1.0, seed=2)}
    comparison = compare_predictions(y, runs, 200, relation=relation)
    for position, y_pred in enumerate(runs.values()):
        entries, censored = by_metric(comparison, position), evaluate_censored(y, y_pred, relation)
        figures = evaluate(y[measured], y_pred[measured])
        assert entries["measured.rmse"].value == figures["rmse"]
        assert entries["measured.spearman"].value == pytest.approx(figures["spearman"])
        assert entries["censored.one_sided_rmse"].value == pytest.approx(censored["one_sided_rmse"])
        assert entries["censored.concordance"].value == censored["concordance"]
        found = intervals(y[measured], y_pred[measured], 200)
        assert entries["measured.rmse"].interval == pytest.approx(found["rmse"])
        assert entries["measured.spearman"].interval == pytest.approx(found["spearman"])
        assert list(comparison.measured_counts) == ["moderate", "very_strong"]  # of the floor, and of the limit above
        for name in comparison.measured_counts:
            assert entries[f"measured.{name}.rmse"].value == figures["bins"][name]["rmse"]
            assert entries[f"measured.{name}.rmse"].interval == pytest.approx(found["bins"][name]["rmse"])
        for metric in COMPARED_MARKED:
            low, high = entries[metric].interval
            assert low < entries[metric].value < high, metric


def test_knowing_what_is_below_a_floor_is_worse_as_stated_and_better_in_truth() -> None:
    true, y, relation = floored(floor=8.0)
    runs = {"v2": noisy(y, 0.8), "v2-tobit": noisy(true, 0.4, seed=2)}
    comparison = compare_predictions(y, runs, 200, relation=relation)
    tobit = by_metric(comparison, 1)
    assert (tobit["rmse"].better, tobit["rmse"].clear) == (False, True)
    for metric in COMPARED_MARKED:
        assert (tobit[metric].better, tobit[metric].clear) == (True, True), metric
        assert tobit[metric].difference_interval[0] <= tobit[metric].difference <= tobit[metric].difference_interval[1]
    assert comparison.concordance_resamples == CONCORDANCE_RESAMPLES


def test_without_marks_nothing_is_added() -> None:
    y = truth()
    runs = {"v1": noisy(y, 1), "v2": noisy(y, 2, 2)}
    plain = compare_predictions(y, runs, 50)
    assert compare_predictions(y, runs, 50, relation=np.full(400, "=")) == plain
    assert (plain.n_marked, plain.concordance_resamples) == (0, 0)
    assert tuple(plain.n_by_metric) == COMPARED


def test_marks_leave_the_metrics_as_stated_as_they_are() -> None:
    _, y, relation = floored()
    runs = {"v1": noisy(y, 1), "v2": noisy(y, 2, 2)}
    plain, marked = compare_predictions(y, runs, 50), compare_predictions(y, runs, 50, relation=relation)
    for position in range(2):
        assert marked.differences[position][: len(COMPARED)] == plain.differences[position]


def test_a_copy_differs_in_no_marked_metric() -> None:
    _, y, relation = floored()
    comparison = compare_predictions(y, {"v1": noisy(y, 1), "copy": noisy(y, 1)}, 100, relation=relation)
    for metric in COMPARED_MARKED:
        entry = by_metric(comparison, 1)[metric]
        assert (entry.difference, entry.difference_interval, entry.better, entry.clear) == (0, (0, 0), None, False)


def test_clusters_widen_the_intervals_of_marked_metrics_too() -> None:
    true, y, relation = (values.repeat(10) for values in floored(60))
    runs = {"v1": noisy(true[::10], 1.0).repeat(10), "v2": noisy(true[::10], 0.9, seed=2).repeat(10)}
    clusters = np.arange(60).repeat(10)
    of_rows = compare_predictions(y, runs, 300, relation=relation)
    whole = compare_predictions(y, runs, 300, clusters=clusters, relation=relation)
    for metric in ("measured.rmse", "censored.concordance"):
        narrow, wide = (by_metric(found, 1)[metric].difference_interval for found in (of_rows, whole))
        assert (wide[1] - wide[0]) / (narrow[1] - narrow[0]) == pytest.approx(np.sqrt(10), rel=0.4), metric
    # Marked rows are of fewer than 20 clusters: rows are not drawn instead, as the note says clusters are.
    assert 5 < len(np.unique(clusters[relation == "<"])) < 20
    assert by_metric(whole, 1)["censored.one_sided_rmse"].clear is None
    assert by_metric(of_rows, 1)["censored.one_sided_rmse"].clear is not None


def test_few_or_all_rows_marked() -> None:
    _, y, _ = floored(60)
    runs = {"v1": noisy(y, 1), "v2": noisy(y, 0.5, 2)}
    one = np.full(60, "=")
    one[0] = "<"
    entry = by_metric(compare_predictions(y, runs, 50, relation=one), 1)["censored.one_sided_rmse"]
    assert (entry.value is None, entry.interval, entry.clear) == (False, None, None)
    everything = by_metric(compare_predictions(y, runs, 50, relation=np.full(60, "<")), 1)
    for metric in ("measured.rmse", "measured.spearman", "censored.concordance"):
        assert everything[metric] == Difference(metric, None, None), metric
    assert everything["censored.one_sided_rmse"].interval is not None


def test_too_many_rows_have_a_concordance_without_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    _, y, relation = floored()
    monkeypatch.setattr(module, "CONCORDANCE_ROWS", 399)
    comparison = compare_predictions(y, {"v1": noisy(y, 1), "v2": noisy(y, 0.5, 2)}, 50, relation=relation)
    entry = by_metric(comparison, 1)["censored.concordance"]
    assert (entry.better, entry.interval, entry.difference_interval, entry.clear) == (True, None, None, None)
    assert comparison.concordance_resamples == 0


def test_predictions_are_not_changed() -> None:
    y = truth()
    runs = {"v1": noisy(y, 1), "v2": noisy(y, 2)}
    before = {name: values.copy() for name, values in runs.items()}
    compare_predictions(y, runs, 10, relation=np.where(y < 7, "<", "="))
    assert all(np.array_equal(runs[name], before[name]) for name in runs)


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ([["a", "b"], ["b", "a"]], []),
        ([["a", "b"], ["b", "c"]], ["a", "c"]),
        ([["a", "b"], ["a", "b"], ["a"]], ["b"]),
        ([["a"], ["b"], ["c"]], ["a", "b", "c"]),
        ([["a", "b"]], []),
    ],
)
def test_differing_rows_are_those_not_in_every_run(lists: list[list[str]], expected: list[str]) -> None:
    assert differing_rows([np.array(ids) for ids in lists]).tolist() == expected
