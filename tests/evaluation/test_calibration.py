"""Conformal intervals: what crepes computes, and what they promise."""

import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailbind.evaluation.calibration import FEWEST_OF_LANDSCAPE, Applied, Conformal, Difficulty

Array = np.ndarray
NO_TAILS = (np.empty(0), np.empty(0))


def applied(scores: Array, predicted: Array, expected: Array, level: float = 0.9) -> Applied:
    return Applied(predicted, expected, np.full(len(predicted), -1), {-1: np.sort(scores)}, NO_TAILS, level)


@settings(max_examples=30, deadline=None)
@given(st.integers(30, 300), st.sampled_from([0.8, 0.9, 0.95]), st.integers(0, 2**16))
def test_intervals_and_probabilities_are_those_of_crepes(n: int, level: float, seed: int) -> None:
    import crepes  # of the development tools: never skipped

    rng = np.random.default_rng(seed)
    residual, sigma = rng.normal(size=n), rng.uniform(0.2, 2, n)
    predicted, expected = rng.normal(8, 2, 7), rng.uniform(0.2, 2, 7)
    ours = applied(residual / sigma, predicted, expected, level)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # too few calibration rows for a level: infinite there and here
        theirs = crepes.ConformalPredictiveSystem().fit(residual, sigmas=sigma)
        out = round(50 * (1 - level), 6)
        bounds = theirs.predict_percentiles(
            predicted, sigmas=expected, lower_percentiles=[out], higher_percentiles=[100 - out]
        )
        below = theirs.predict_p(predicted, np.full(7, 9.0), sigmas=expected, smoothing=False)
    low, high = ours.interval()
    assert np.allclose(np.column_stack([low, high]), bounds)
    # crepes gives the upper end of what is left open by n scores, here is its middle
    assert np.abs(ours.below(9.0) - below).max() <= 1 / (n + 1) + 1e-12


def uneven(n: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """Two landscapes, the second four times as noisy, and noise that grows with the prediction; no SD is told."""
    rng = np.random.default_rng(seed)
    landscape = rng.integers(0, 2, n)
    predicted = rng.uniform(4, 11, n)
    scale = 0.05 * (1 + 3 * landscape) * (1 + (predicted > 8))
    return predicted + scale * rng.normal(size=n), predicted, landscape, scale


def fitted(n: int, seed: int = 0) -> Conformal:
    y, predicted, landscape, _ = uneven(n, seed)
    X = predicted[:, None].astype(np.float32)
    return Conformal.fit(y, predicted, X, np.zeros(n), landscape, 0.9, np.arange(n))


def with_tail(n: int, seed: int) -> tuple[Array, Array]:
    """Noisy predictions around 6, whose intervals just reach below 5; of those above 7, one in 400 is a non-binder."""
    rng = np.random.default_rng(seed)
    predicted = np.concatenate([rng.uniform(5.8, 6.2, n // 10), rng.uniform(7, 9, n - n // 10)])
    noise = np.where(predicted < 7, 0.8, 0.1) * rng.normal(size=n)
    gone = (predicted >= 7) & (rng.uniform(size=n) < 1 / 400)
    return np.where(gone, rng.uniform(3, 5, n), predicted + noise), predicted


def applied_to_tail(seed: int) -> tuple[Array, Applied, Applied]:
    """Return new rows' labels, what can be asked of them, and the same without the scores of tails."""
    n, (y, predicted) = 8_000, with_tail(8_000, 0)
    X, nothing = predicted[:, None].astype(np.float32), np.zeros(n, np.int64)
    conformal = Conformal.fit(y, predicted, X, np.zeros(n), nothing, 0.9, np.arange(n))
    weak, strong = conformal.tails
    assert len(weak) == (y < 5).sum() and not len(strong)
    y, predicted = with_tail(n, seed)
    sure = conformal.apply(predicted, predicted[:, None].astype(np.float32), np.zeros(n), nothing)
    return y, sure, replace(sure, tails=NO_TAILS)


def test_rows_measured_in_a_tail_are_held_where_intervals_reach_it() -> None:
    y, sure, without = applied_to_tail(1)
    (low, high), (usual, _) = sure.interval(), without.interval()
    reaching = (y < 5) & (usual < 5)
    assert (usual <= y)[reaching].mean() < 0.84 < 0.88 < (low <= y)[reaching].mean()
    assert np.array_equal(low[usual >= 5], usual[usual >= 5])  # a surprise elsewhere widens nothing here
    assert np.median((high - low)[sure.y_pred > 7.5]) < 0.5
    assert ((low <= y) & (y <= high)).mean() == pytest.approx(0.9, abs=0.02)


def test_intervals_nest_over_levels() -> None:
    _, sure, _ = applied_to_tail(2)
    few, many = sure.scores[-1][::50], sure.scores[-1]
    known = replace(sure, scores={0: few, -1: many})
    unknown = replace(known, landscape=np.full(len(sure.y_pred), -1))
    short_tails = replace(sure, tails=(sure.tails[0][:50], sure.tails[0][-50:] + 10))
    for asked in (sure, short_tails, known, unknown):
        bounds = [asked.interval(level) for level in (0.5, 0.8, 0.9, 0.97, 0.98, 0.99)]
        for (low, high), (lower, higher) in pairwise(bounds):
            assert (lower <= low).all() and (higher >= high).all()
    assert np.isfinite(known.interval(0.99)).all()


@pytest.mark.parametrize("n", [990, 1_050, 1_240, 1_300])
def test_expected_errors_of_calibration_and_of_new_rows_are_learned_alike(n: int) -> None:
    y, predicted, landscape, _ = uneven(4_000, 1)
    conformal = fitted(n)
    low, high = conformal.apply(predicted, predicted[:, None].astype(np.float32), np.zeros(4_000), landscape).interval()
    assert ((low <= y) & (y <= high)).mean() == pytest.approx(0.9, abs=0.035)


def test_landscapes_with_few_rows_share_their_own_scores() -> None:
    """Ten landscapes of 30 rows, each far noisier than the large one, of which nothing is told but their number."""
    rng = np.random.default_rng(0)

    def drawn(n_large: int, n_each: int) -> tuple[Array, Array, Array]:
        landscape = np.concatenate([np.zeros(n_large, np.int64), np.repeat(np.arange(1, 11), n_each)])
        predicted = rng.uniform(5, 10, len(landscape))
        return predicted + np.where(landscape > 0, 1.5, 0.1) * rng.standard_t(3, len(landscape)), predicted, landscape

    y, predicted, landscape = drawn(3_000, 30)
    X = predicted[:, None].astype(np.float32)
    conformal = Conformal.fit(y, predicted, X, np.zeros(len(y)), landscape, 0.9, np.arange(len(y)))
    assert {code: len(scores) for code, scores in conformal.scores.items()} == {0: 3_000, -1: 300}
    y, predicted, landscape = drawn(3_000, 300)
    sure = conformal.apply(predicted, predicted[:, None].astype(np.float32), np.zeros(len(y)), landscape)
    low, high = sure.interval()
    for rows in (landscape == 0, landscape > 0):
        assert ((low <= y) & (y <= high))[rows].mean() == pytest.approx(0.9, abs=0.04)


def test_coverage_holds_in_each_landscape_and_where_noise_is_large() -> None:
    y, predicted, landscape, scale = uneven(20_000, 1)
    conformal = fitted(6_000)
    assert set(conformal.scores) == {-1, 0, 1}
    sure = conformal.apply(predicted, predicted[:, None].astype(np.float32), np.zeros(len(y)), landscape)
    low, high = sure.interval()
    held = (low <= y) & (y <= high)
    for rows in (landscape == 0, landscape == 1, predicted > 8, predicted < 8, (landscape == 1) & (predicted > 8)):
        assert held[rows].mean() == pytest.approx(0.9, abs=0.03)
    ideal = 2 * 1.645 * scale
    assert np.abs(np.log((high - low) / ideal)).mean() < 0.15, "as wide as the noise is there, not as on average"
    given = sure.below(9.0)
    for least in (0.0, 0.3, 0.6):
        rows = (given >= least) & (given < least + 0.4)
        assert (y[rows] < 9).mean() == pytest.approx(given[rows].mean(), abs=0.05)


def test_another_level_is_wider_and_strangers_have_the_scores_of_all() -> None:
    conformal = fitted(6_000)
    predicted = np.array([7.0, 7.0])
    sure = conformal.apply(predicted, predicted[:, None].astype(np.float32), np.zeros(2), np.array([0, 99]))
    assert sure.landscape.tolist() == [0, -1]
    narrow, wide = sure.interval(0.5), sure.interval(0.98)
    assert np.all(wide[0] < narrow[0])
    assert np.all(narrow[1] < wide[1])


def test_few_rows_go_by_the_models_own_sd() -> None:
    rng = np.random.default_rng(0)
    sd = rng.uniform(0.05, 1.0, 200)
    y = 8 + sd * rng.normal(size=200)
    X = np.full((200, 1), 8, np.float32)
    conformal = Conformal.fit(y, np.full(200, 8.0), X, sd, np.zeros(200, np.int64), 0.9, np.arange(200))
    assert list(conformal.scores) == [-1], f"{FEWEST_OF_LANDSCAPE} rows are no landscape's of so few"
    low, high = conformal.apply(np.full(2, 8.0), X[:2], np.array([0.1, 1.0]), np.zeros(2, np.int64)).interval()
    assert (high - low)[1] > 4 * (high - low)[0]


def test_too_few_scores_for_a_level_leave_it_open() -> None:
    low, high = applied(np.arange(10.0), np.array([8.0]), np.array([1.0])).interval(0.9)
    assert (low[0], high[0]) == (-np.inf, np.inf)


def test_expected_errors_are_never_none() -> None:
    error = np.zeros(60)
    difficulty = Difficulty.fit(np.zeros((60, 1), np.float32), np.zeros(60), np.zeros(60, np.int64), error, trees=False)
    assert difficulty.predict(np.zeros((1, 1), np.float32), np.zeros(1), np.zeros(1, np.int64))[0] > 0


@pytest.mark.parametrize("n", [100, 3_000])
def test_its_state_gives_it_back(n: int) -> None:
    conformal = fitted(n)
    again = Conformal.from_state(conformal.state())
    _, predicted, landscape, _ = uneven(50, 2)
    X = predicted[:, None].astype(np.float32)
    before, after = (one.apply(predicted, X, np.zeros(50), landscape) for one in (conformal, again))
    assert np.array_equal(before.interval(), after.interval())
    assert np.array_equal(before.below(9.0), after.below(9.0))


def test_replicates_never_judge_the_trees_that_learned_from_them() -> None:
    """Each value ten times: trees that saw nine of them would expect no error where there is one."""
    rng = np.random.default_rng(0)
    predicted, group = np.repeat(rng.uniform(4, 11, 300), 10), np.repeat(np.arange(300), 10)
    y = predicted + np.repeat(rng.choice([-1.0, 0.0], 300), 10) * rng.uniform(0.5, 1, 3_000)
    X = predicted[:, None].astype(np.float32)
    kept = Conformal.fit(y, predicted, X, np.zeros(3_000), np.zeros(3_000, np.int64), 0.9, group)
    split = Conformal.fit(y, predicted, X, np.zeros(3_000), np.zeros(3_000, np.int64), 0.9, np.arange(3_000))
    assert np.abs(kept.scores[-1]).mean() > 1.2 * np.abs(split.scores[-1]).mean()
