from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tailbind.checkpoint import load_state, save_state
from tailbind.features import scaling as module
from tailbind.features.distinct import distinct
from tailbind.features.scaling import Scaling, fit_scaling

numbers = st.floats(-1000, 1000, width=32)
columns = st.integers(1, 8).flatmap(lambda n: arrays(np.float64, (n, 2), elements=numbers))
ONE = np.ones(2)


def fitted(values: np.ndarray) -> Scaling:
    return fit_scaling(values, np.ones(len(values), np.intp), ONE)


@given(columns)
def test_inside_the_range_a_column_is_only_moved_and_stretched(values: np.ndarray) -> None:
    scaling = fitted(values)
    np.testing.assert_allclose(scaling.transform(values), (values - scaling.mean) / scaling.scale, rtol=1e-5, atol=1e-6)


@given(columns, arrays(np.float64, (6, 2), elements=numbers))
def test_a_larger_value_is_never_smaller_and_none_leaves_the_range_by_more_than_the_range(
    values: np.ndarray, others: np.ndarray
) -> None:
    scaling = fitted(values)
    ordered = np.sort(np.vstack([values, others, [[np.inf, np.inf], [-np.inf, -np.inf]]]), axis=0)
    scaled = scaling.transform(ordered).astype(np.float64)
    assert (np.diff(scaled, axis=0) >= 0).all()
    room = np.maximum(np.ptp(values, axis=0), 1)
    assert (scaled * scaling.scale + scaling.mean <= values.max(axis=0) + room * (1 + 1e-5) + 1e-3).all()
    assert (scaled * scaling.scale + scaling.mean >= values.min(axis=0) - room * (1 + 1e-5) - 1e-3).all()


@given(columns, st.integers(-200, 200))
def test_beyond_the_range_each_further_step_shows(values: np.ndarray, steps: int) -> None:
    scaling = fitted(np.round(values))
    here = np.where(steps >= 0, scaling.high, scaling.low) + steps
    near, far = scaling.transform(np.array([here, here + np.where(steps >= 0, 1, -1)]))
    assert (near != far).all()
    assert (np.sign(far - near) == (1 if steps >= 0 else -1)).all()


def test_levelling_by_hand() -> None:
    scaling = fit_scaling(np.array([[2.0], [4.0], [6.0]]), np.array([1, 0, 3]), np.array([1.0]))
    assert scaling.mean == pytest.approx(5.0)
    assert scaling.scale == pytest.approx(np.sqrt(3.0))
    # Range 2 to 6, so 4 more at most: 10 is one range beyond, drawn in to 6 + 4 / 2; −2 to 2 − 4 / 2.
    expected = (np.array([2, 5, 6, 8, 0, 10, -2]) - 5) / np.sqrt(3)
    got = scaling.transform(np.array([[2.0], [5.0], [6.0], [10.0], [-2.0], [np.inf], [-np.inf]]))
    assert got[:, 0] == pytest.approx(expected, abs=1e-6)


def test_it_is_smooth_at_the_edge_of_the_range() -> None:
    scaling = fitted(np.array([[0.0, 0.0], [10.0, 2.0]]))
    step = 1e-4
    slopes = np.diff(scaling.transform(np.array([[10 - step] * 2, [10.0] * 2, [10 + step] * 2])), axis=0)[:, 0]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-2)


@given(columns, st.integers(0, 2**32 - 1))
def test_counts_stand_for_repeated_rows(values: np.ndarray, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 4, len(values))
    counts[0] += 1
    one, other = fit_scaling(values, counts, ONE), fitted(np.repeat(values, counts, axis=0))
    np.testing.assert_array_equal(one.low, other.low)
    np.testing.assert_array_equal(one.high, other.high)
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(one.scale, other.scale, rtol=1e-6, atol=1e-6)


def test_it_is_what_numpy_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(50, 3))
    monkeypatch.setattr(module, "BLOCK", 7)
    scaling = fit_scaling(values, np.ones(50, np.intp), np.ones(3))
    np.testing.assert_allclose(scaling.mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scaling.scale, values.std(axis=0), rtol=1e-12)
    in_blocks = scaling.transform(values)
    monkeypatch.setattr(module, "BLOCK", 8_192)
    np.testing.assert_array_equal(in_blocks, scaling.transform(values))


@given(numbers, st.integers(1, 300))
def test_a_constant_column_is_0_and_a_difference_from_it_counts_in_units(value: float, n: int) -> None:
    scaling = fit_scaling(np.array([[value, value]]), np.array([n]), np.array([0.5, 20.0]))
    assert scaling.transform(np.array([[value, value]])).tolist() == [[0, 0]]
    # One unit beyond a range of none: drawn in to half a unit.
    assert scaling.transform(np.array([[value + 0.5, value - 20]]))[0] == pytest.approx([0.5, -0.5], abs=1e-3)


def test_a_column_in_which_few_of_many_rows_differ_makes_no_outliers() -> None:
    scaling = fit_scaling(np.array([[0.0], [1.0]]), np.array([1_000_000, 1]), np.array([1.0]))
    assert scaling.transform(np.array([[0.0], [1.0]]))[:, 0] == pytest.approx([0, 1], abs=1e-5)


def test_few_rows_far_out_are_no_outliers_of_hundreds() -> None:
    values, counts = np.array([[0.0], [1.0], [1000.0]]), np.array([500_000, 500_000, 1])
    scaled = fit_scaling(values, counts, np.array([1.0])).transform(values)
    assert scaled.max() - scaled.min() == pytest.approx(20)


def test_what_is_not_there_does_not_count_and_stays_so() -> None:
    scaling = fit_scaling(np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]]), np.array([1, 1, 5]), ONE)
    assert scaling.mean.tolist() == [2, 0]
    assert scaling.scale.tolist() == [1, 1]
    scaled = scaling.transform(np.array([[np.nan, 0.0], [3.0, np.nan]]))
    np.testing.assert_array_equal(scaled, [[np.nan, 0], [1, np.nan]])


def test_columns_of_no_rows_at_all() -> None:
    scaling = fit_scaling(np.empty((0, 2)), np.empty(0, np.intp), ONE)
    assert scaling.transform(np.array([[0.0, 1.0]])).tolist() == [[0, 0.5]]
    assert scaling.transform(np.empty((0, 2))).shape == (0, 2)


@given(columns)
def test_values_are_left_as_they_were(values: np.ndarray) -> None:
    before = values.copy()
    fitted(values).transform(values)
    np.testing.assert_array_equal(values, before)


def test_the_state_rebuilds_it_to_the_bit_through_a_file(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(20, 2))
    scaling = fitted(values)
    save_state(tmp_path / "a.pth", "model", {"scaling": scaling.state()})
    again = Scaling.from_state(load_state(tmp_path / "a.pth", "model")["scaling"])
    for name, array in vars(scaling).items():
        np.testing.assert_array_equal(getattr(again, name), array)
    np.testing.assert_array_equal(again.transform(3 * values), scaling.transform(3 * values))


@given(st.lists(st.none() | st.text(alphabet="ACД ", max_size=3), max_size=20))
def test_distinct_strings_are_sorted_and_give_the_column_back(values: list[str | None]) -> None:
    strings, index = distinct(pl.Series(values, dtype=pl.String))
    texts = ["" if value is None else value for value in values]
    assert strings == sorted(set(texts))
    assert [strings[position] for position in index] == texts
    assert index.dtype == np.intp
