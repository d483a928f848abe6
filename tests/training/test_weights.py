from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from tailbind.errors import RecipeError
from tailbind.options import read_options
from tailbind.scale import bin_index
from tailbind.training import LOSSES
from tailbind.training.weights import Weighted, bin_weights, capped, effective_sample_size, smoothed_counts

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


# --- options that every loss has ---------------------------------------------------------------------

#: 2 very weak, 50 weak, 30 moderate, 17 strong and 1 very strong.
COUNTS = (2, 50, 30, 17, 1)


def of_bins(options: Weighted, *counts: int) -> np.ndarray:
    """Return the weight of a row of each bin that has rows."""
    y = labels(*counts)
    weights = options.of_rows(y, np.arange(len(y)))
    return np.array([weights[bin_index(y) == index][0] for index, count in enumerate(counts) if count])


def test_the_notebook_s_schemes_are_bin_weights_to_the_bit() -> None:
    y = np.random.default_rng(0).uniform(2, 13, 500)
    train = np.arange(0, 500, 2)
    for scheme in ("inverse", "none"):
        for factor in (1.0, 10.0):
            expected = bin_weights(y[train], scheme, factor)[bin_index(y)]
            np.testing.assert_array_equal(Weighted(weights=scheme, extreme_factor=factor).of_rows(y, train), expected)


def test_square_roots_by_hand() -> None:
    # Σ n / √n = Σ √n, so that 100 / (√n · Σ √n) has mean 1.
    total = np.sqrt(COUNTS).sum()
    assert of_bins(Weighted(weights="sqrt_inverse"), *COUNTS) == pytest.approx(100 / (np.sqrt(COUNTS) * total))


def test_effective_numbers_by_hand() -> None:
    # (1 − β) / (1 − βⁿ) with β = 0.9: about 0.1 for 50 rows, 1 for a single one.
    raw = np.array([0.1 / (1 - 0.9**n) for n in COUNTS])
    expected = raw * 100 / (raw * COUNTS).sum()
    assert of_bins(Weighted(weights="effective_number", beta=0.9), *COUNTS) == pytest.approx(expected)
    assert expected[-1] / expected[1] == pytest.approx(10, rel=0.01)


def test_the_extreme_factor_multiplies_before_the_mean_is_made_1() -> None:
    plain = of_bins(Weighted(weights="sqrt_inverse"), *COUNTS)
    strong = of_bins(Weighted(weights="sqrt_inverse", extreme_factor=3.0), *COUNTS)
    ratio = strong / plain
    assert ratio / ratio[1] == pytest.approx([3, 1, 1, 1, 3])


def test_a_cap_by_hand() -> None:
    # 1, 1, 1 and 9 of sum 12: at most 2 of mean 1 leaves 2 for the three others.
    assert capped(np.array([1.0, 1.0, 1.0, 9.0]), np.arange(4), 2.0) == pytest.approx([2 / 3] * 3 + [2])
    # 1, 6, 6 and 100 at most 1.2: the first cut lifts the sixes over the cap too; 4 − 3.6 is left for the first.
    assert capped(np.array([1.0, 6.0, 6.0, 100.0]), np.arange(4), 1.2) == pytest.approx([0.4, 1.2, 1.2, 1.2])


@given(
    st.lists(st.integers(0, 40), min_size=5, max_size=5).filter(any),
    st.sampled_from(["inverse", "sqrt_inverse", "effective_number"]),
    st.sampled_from([1.0, 10.0]),
    st.floats(1.01, 20),
    st.sampled_from([0.0, 0.5]),
)
def test_what_holds_of_capped_weights(counts: list[int], scheme: str, factor: float, cap: float, sigma: float) -> None:
    y = labels(*counts) + np.linspace(0, 0.9, sum(counts))
    train = np.arange(len(y))
    options = Weighted(weights=scheme, extreme_factor=factor, cap=cap, smoothing_sigma=sigma)
    weights = options.of_rows(y, train)
    uncapped = replace(options, cap=1e9).of_rows(y, train)
    assert weights.mean() == pytest.approx(1)
    assert uncapped.mean() == pytest.approx(1)
    assert weights.max() <= cap * (1 + 1e-12)
    below = weights < cap * (1 - 1e-9)
    ratios = weights[below] / uncapped[below]
    assert ratios == pytest.approx(ratios[:1].repeat(len(ratios)))
    assert (np.diff(weights[np.argsort(uncapped)]) >= -1e-12).all(), "the order stays"


def test_smoothed_counts_are_scipys() -> None:
    # Bins of 0.25 pKd, a kernel of SD 0.5 pKd that ends 1.5 pKd from its middle: 6 bins on either side.
    rng = np.random.default_rng(0)
    y = np.round(rng.uniform(4, 12, 400), 3)
    train = np.arange(300)
    ours = smoothed_counts(y, train, sigma=0.5, width=0.25, reach=3.0)
    edges = np.arange(0, 16 + 0.25, 0.25)
    counts = np.histogram(y[train], edges)[0].astype(float)
    theirs = ndimage.gaussian_filter1d(counts, sigma=2, mode="constant", truncate=3.0)
    assert ours == pytest.approx(theirs[np.digitize(y, edges) - 1])


def test_labels_on_an_edge_are_in_the_bin_above_it() -> None:
    # 7.3 / 0.1 is 72.99999999999999 in floating point.
    y = np.array([7.3, 7.35, 7.25])
    alone = smoothed_counts(y, np.arange(3), sigma=1e-3, width=0.1, reach=1.0)
    assert alone.tolist() == [2.0, 2.0, 1.0]


def test_smoothing_tells_rare_labels_of_a_full_bin_from_common_ones() -> None:
    y = np.concatenate([np.full(200, 6.0), [6.9], np.full(20, 8.0)])
    options = Weighted(weights="sqrt_inverse", smoothing_sigma=0.1)
    weights = options.of_rows(y, np.arange(len(y)))
    assert weights[200] > 5 * weights[0]
    assert weights.mean() == pytest.approx(1)
    plain = Weighted(weights="sqrt_inverse").of_rows(y, np.arange(len(y)))
    assert plain[200] == plain[0]


def test_rows_outside_training_never_matter_and_weigh_as_their_label_does() -> None:
    y = np.array([6.0, 6.0, 8.0, 6.0, 12.0, 3.0])
    for options in (Weighted(weights="sqrt_inverse", cap=1.2), Weighted(weights="inverse", smoothing_sigma=0.2)):
        weights = options.of_rows(y, np.arange(3))
        np.testing.assert_array_equal(weights[:3], options.of_rows(y[:3], np.arange(3)))
        assert weights[3] == weights[0]
        assert weights[4] == weights[5] == 0, "no training label is near"
        assert weights[:3].mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cap": 0.5}, r"loss\.cap must be above 1, the mean of the weights, or 0 for none; got 0\.5"),
        ({"weights": "none", "cap": 5.0}, r"loss\.cap must be 0 unless rows are weighted by .*got 5, which would have"),
        ({"weights": "none", "smoothing_sigma": 0.2}, r"loss\.smoothing_sigma must be 0 unless loss\.weights says"),
        ({"weights": "sqrt_inverse", "beta": 0.9}, r'loss\.beta must be 0\.9999 unless loss\.weights is "effective_n'),
        ({"smoothing_width": 0.5}, r"loss\.smoothing_width must be 0\.1 unless loss\.smoothing_sigma is above 0"),
        ({"smoothing_reach": 1.0}, r"loss\.smoothing_reach must be 3 unless loss\.smoothing_sigma is above 0"),
        ({"smoothing_sigma": 0.01}, r"must be at least loss\.smoothing_width, .* smoothed; got 0\.01 × 3 and"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["mse", "focal", "tobit", "huber", "balanced_mse"])
def test_what_would_have_no_effect_is_refused(kind: str, options: dict[str, object], message: str) -> None:
    stated = {"weights": "inverse", "extreme_factor": 1.0, **options}
    with pytest.raises(RecipeError, match=message):
        read_options(LOSSES.load(kind), stated, "loss")


def test_an_extreme_factor_alone_can_be_capped() -> None:
    weights = of_bins(Weighted(weights="none", extreme_factor=10.0, cap=3.0), *COUNTS)
    assert weights[[0, 4]] == pytest.approx([3, 3])
    assert weights[1:4] == pytest.approx((100 - 9) / 97)
