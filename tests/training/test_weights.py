import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbind.scale import bin_index
from tailbind.training.weights import bin_weights, effective_sample_size

#: Pkd values in the middle of the five bins.
CENTRES = np.array([4.0, 6.0, 8.0, 10.0, 12.0])


def labels(*counts: int) -> np.ndarray:
    return np.repeat(CENTRES, counts)


def test_the_formula_by_hand() -> None:
    # total / (n_bins · count), n = 100
    weights = bin_weights(labels(2, 50, 30, 17, 1), "inverse", 1.0)
    assert weights == pytest.approx([100 / 10, 100 / 250, 100 / 150, 100 / 85, 100 / 5])
    strong = bin_weights(labels(2, 50, 30, 17, 1), "inverse", 10.0)
    assert strong / weights == pytest.approx([10, 1, 1, 1, 10])


def test_the_formula_and_not_the_seeds_example() -> None:
    # By the formula 1/w is 5 · count / total, so the five sum to 5; those of the example come to 0.84.
    seeds_example = np.array([81.2, 3.3, 3.9, 3.7, 2439.4])
    assert (1 / seeds_example).sum() == pytest.approx(0.842, abs=1e-3)
    weights = bin_weights(labels(570, 131_000, 56_000, 43_942, 20), "inverse", 1.0)
    assert (1 / weights).sum() == pytest.approx(5.0)
    assert weights[4] == pytest.approx(231_532 / 100)


def test_an_empty_bin_weighs_nothing() -> None:
    assert bin_weights(labels(0, 3, 1, 0, 0), "inverse", 10.0) == pytest.approx([0, 4 / 15, 4 / 5, 0, 0])
    assert bin_weights(np.empty(0), "inverse", 10.0).tolist() == [0.0] * 5


def test_no_weighting_leaves_the_extremes_their_factor() -> None:
    assert bin_weights(labels(1, 5, 0, 1, 1), "none", 1.0).tolist() == [1.0] * 5
    assert bin_weights(labels(1, 5, 0, 1, 1), "none", 10.0).tolist() == [10.0, 1.0, 1.0, 1.0, 10.0]


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="scheme must be one of inverse, none; got 'sqrt'"):
        bin_weights(labels(1, 1, 1, 1, 1), "sqrt", 1.0)


@given(st.lists(st.integers(0, 30), min_size=5, max_size=5).filter(any))
def test_every_bin_that_has_rows_counts_the_same_in_all(counts: list[int]) -> None:
    y = labels(*counts)
    per_row = bin_weights(y, "inverse", 1.0)[bin_index(y)]
    sums = np.bincount(bin_index(y), weights=per_row, minlength=5)
    assert sums == pytest.approx([len(y) / 5 if count else 0 for count in counts])


def test_the_effective_sample_size_by_hand() -> None:
    assert effective_sample_size(np.ones(7)) == pytest.approx(7)
    assert effective_sample_size(np.array([3.0, 1.0])) == pytest.approx(16 / 10)
    assert effective_sample_size(5 * np.array([3.0, 1.0])) == pytest.approx(1.6)
