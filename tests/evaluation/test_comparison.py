import numpy as np
import pytest

from tailbind.evaluation.comparison import COMPARED, Comparison, Difference, compare_predictions, differing_rows
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


def test_three_runs_are_all_held_against_the_first() -> None:
    y = truth()
    comparison = compare_predictions(y, {"a": noisy(y, 1), "b": noisy(y, 2, 2), "c": noisy(y, 0.5, 3)}, 100)
    assert [by_metric(comparison, run)["rmse"].better for run in range(3)] == [None, False, True]


def test_predictions_are_not_changed() -> None:
    y = truth()
    runs = {"v1": noisy(y, 1), "v2": noisy(y, 2)}
    before = {name: values.copy() for name, values in runs.items()}
    compare_predictions(y, runs, 10)
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
