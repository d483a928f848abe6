"""Figures of a model's answers, held against SciPy, scikit-learn and hand-made cases."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from tailbind.evaluation.probing import FEWEST_PAIRS, agreement, by_region, changes, scan, told_by_letters


def test_changes_leave_out_what_was_not_predicted() -> None:
    figures = changes(np.array([1.0, np.nan, -3.0]))
    assert figures == {
        "n": 2, "median": -1.0, "median_absolute": 2.0, "mean_absolute": 2.0, "sd": 2.0, "share_down": 0.5,
    }  # fmt: skip
    assert changes(np.array([np.nan]))["n"] == 0
    assert changes(np.array([]))["median"] is None


def test_agreement_is_spearman_s() -> None:
    rng = np.random.default_rng(0)
    measured = rng.normal(size=200)
    predicted = measured + rng.normal(size=200)
    figures = agreement(measured, predicted, np.arange(200) // 5)
    assert figures["spearman"] == pytest.approx(spearmanr(measured, predicted).statistic)
    low, high = figures["interval"]
    assert low < figures["spearman"] < high
    assert (figures["intervals_by"], figures["n_clusters"]) == ("clusters", 40)
    beyond = np.abs(measured) > 0.3
    assert figures["n_signs"] == beyond.sum()
    assert figures["sign_agreement"] == pytest.approx((np.sign(measured) == np.sign(predicted))[beyond].mean())
    assert figures["ratio"] == pytest.approx(predicted.std() / measured.std())


def test_few_or_constant_predictions_have_no_correlation() -> None:
    few = agreement(np.arange(FEWEST_PAIRS - 1.0), np.arange(FEWEST_PAIRS - 1.0))
    assert (few["spearman"], few["interval"], few["n"]) == (None, None, FEWEST_PAIRS - 1)
    constant = agreement(np.linspace(-1, 1, 50), np.zeros(50))
    assert (constant["spearman"], constant["constant"], constant["ratio"]) == (None, True, 0.0)
    nothing = agreement(np.array([]), np.array([]))
    assert (nothing["n"], nothing["ratio"], nothing["sign_agreement"]) == (0, None, None)


def test_no_change_is_no_sign() -> None:
    measured = np.tile([1.0, -1.0, 1.0, -1.0], 10)
    assert agreement(measured, np.zeros(40))["sign_agreement"] == 0
    assert agreement(measured, np.full(40, -4e-4))["sign_agreement"] == 0  # nor is one that rounds to none
    assert agreement(measured, np.full(40, 6e-4))["sign_agreement"] == 0.5
    assert agreement(measured, np.tile([0.5, -0.5, 0.0, 0.5], 10))["sign_agreement"] == 0.5


def test_rounding_of_a_network_s_predictions_is_no_change() -> None:
    rng = np.random.default_rng(0)
    pkd = np.float32(8.1) + rng.choice([-1, 0, 1], (2, 60)).astype(np.float32) * np.float32(4.8e-7)
    predicted = (pkd[0] - pkd[1]).astype(np.float64)
    assert np.ptp(predicted.round(9)) > 0
    figures = agreement(rng.normal(size=60), predicted)
    assert (figures["constant"], figures["spearman"], figures["interval"]) == (True, None, None)
    assert (figures["sign_agreement"], figures["ratio"]) == (0.0, 0.0)


def test_letters_tell_all_of_a_composition_and_nothing_of_noise() -> None:
    rng = np.random.default_rng(1)
    letters = rng.integers(50, size=4000)
    assert told_by_letters(rng.normal(size=50)[letters], letters) == pytest.approx(1.0)
    noise = told_by_letters(rng.normal(size=4000), letters)
    assert noise is not None
    assert noise < 0.02
    half = told_by_letters(np.where(letters % 2, 1.0, -1.0) + rng.normal(size=4000), letters)
    assert half == pytest.approx(0.5, abs=0.05)
    assert told_by_letters(np.zeros(10), np.arange(10) // 2) is None
    assert told_by_letters(np.arange(10.0), np.arange(10)) is None


def test_a_scan_is_counted_antibody_by_antibody() -> None:
    change = np.array([0.0, 0.0, 1.0, 5.0, 5.0, 6.0, np.nan])
    figures = scan(change, np.array([3, 3, 3, 8, 8, 8, 8]), np.array([0, 0, 1, 0, 0, 1, 1]))
    assert figures["n"] == 6
    assert figures["n_antibodies"] == 2
    assert figures["distinct"] == 4
    assert figures["sd"] == pytest.approx(np.std([0, 0, 1]))  # not the 5 between the two antibodies
    assert figures["share_unmoved"] == pytest.approx(1 / 3)
    assert figures["told_by_letters"] == 1.0
    assert scan(np.array([np.nan]), np.array([0]), np.array([0]))["n"] == 0


def test_regions_without_changes_are_left_out() -> None:
    found = by_region(["FR1", "CDR1", "FR2"], np.array([0, 2, 2]), np.array([0.5, -1.0, 2.0]))
    assert list(found) == ["FR1", "FR2"]
    assert found["FR2"]["mean_absolute"] == 1.5
