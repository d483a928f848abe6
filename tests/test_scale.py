import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import constants

from tailbind.scale import (
    BIN_NAMES,
    MOLAR_UNITS,
    bin_index,
    bin_label,
    bin_names,
    delta_g_from_pkd,
    kd_from_pkd,
    pkd_from_delta_g,
    pkd_from_kd,
)

PKDS = st.floats(-5, 20)


@pytest.mark.parametrize(
    ("kd", "unit", "pkd"),
    [
        (1.0, "M", 0.0),
        (1.0, "mM", 3.0),
        (1.0, "uM", 6.0),
        (1.0, "\N{MICRO SIGN}M", 6.0),
        (1.0, "\N{GREEK SMALL LETTER MU}M", 6.0),
        (1.0, "nM", 9.0),
        (1.0, "pM", 12.0),
        (1.0, "fM", 15.0),
        (10_000.0, "nM", 5.0),
        (50.0, "nM", 7.301029995663981),
        (0.1, "M", 1.0),
    ],
)
def test_units_by_hand(kd: float, unit: str, pkd: float) -> None:
    assert float(pkd_from_kd(kd, unit)) == pytest.approx(pkd, abs=1e-12)
    assert float(kd_from_pkd(pkd, unit)) == pytest.approx(kd, rel=1e-12)


def test_millimolar_and_molar_differ_a_thousandfold() -> None:
    assert float(pkd_from_kd(1.0, "mM") - pkd_from_kd(1.0, "M")) == pytest.approx(3.0)


@pytest.mark.parametrize("unit", ["nm", "NM", "mm", "m", "", "mol/L"])
def test_units_are_not_guessed(unit: str) -> None:
    with pytest.raises(ValueError, match=r"unit must be one of M, mM, .*got"):
        pkd_from_kd(1.0, unit)
    with pytest.raises(ValueError, match="unit must be one of"):
        kd_from_pkd(1.0, unit)


@pytest.mark.parametrize("kd", [0.0, -1.0, [1.0, 0.0]])
def test_a_kd_that_is_not_positive_is_refused(kd: object) -> None:
    with pytest.raises(ValueError, match="Kd must be above 0"):
        pkd_from_kd(kd, "nM")  # type: ignore[arg-type]


def test_delta_g_against_scipys_gas_constant() -> None:
    # ΔG = R T ln Kd: 1 nM at 298.15 K, in joules per mole, then in thermochemical kilocalories.
    expected = constants.R * 298.15 * math.log(1e-9) / (1000 * constants.calorie_th)
    assert float(delta_g_from_pkd(9.0)) == pytest.approx(expected, rel=1e-9)
    assert expected == pytest.approx(-12.28, abs=0.005)
    assert float(pkd_from_delta_g(expected)) == pytest.approx(9.0)


def test_delta_g_is_proportional_to_temperature_row_by_row() -> None:
    warm = delta_g_from_pkd([9.0, 9.0], [298.15, 310.15])
    assert warm[1] / warm[0] == pytest.approx(310.15 / 298.15)
    assert pkd_from_delta_g(warm, [298.15, 310.15]) == pytest.approx([9.0, 9.0])


@given(pkd=PKDS, unit=st.sampled_from(sorted(MOLAR_UNITS)))
def test_kd_round_trip(pkd: float, unit: str) -> None:
    assert float(pkd_from_kd(kd_from_pkd(pkd, unit), unit)) == pytest.approx(pkd, abs=1e-9)


@given(pkd=PKDS, temperature=st.floats(250, 400))
def test_delta_g_round_trip(pkd: float, temperature: float) -> None:
    assert float(pkd_from_delta_g(delta_g_from_pkd(pkd, temperature), temperature)) == pytest.approx(pkd, abs=1e-9)


@given(stronger=PKDS, weaker=PKDS)
def test_stronger_means_smaller_kd_and_lower_delta_g(stronger: float, weaker: float) -> None:
    if stronger <= weaker:
        stronger, weaker = weaker, stronger
    assert kd_from_pkd(stronger) <= kd_from_pkd(weaker)
    assert delta_g_from_pkd(stronger) <= delta_g_from_pkd(weaker)


@pytest.mark.parametrize(("edge", "above"), [(5.0, 1), (7.0, 2), (9.0, 3), (11.0, 4)])
def test_an_edge_belongs_to_the_bin_above_it(edge: float, above: int) -> None:
    assert int(bin_index(edge)) == above
    assert int(bin_index(np.nextafter(edge, -np.inf))) == above - 1


def test_bins_have_the_seeds_names() -> None:
    assert bin_names([-1, 5, 7, 9, 11, 15]).tolist() == [
        "very_weak",
        "weak",
        "moderate",
        "strong",
        "very_strong",
        "very_strong",
    ]
    assert bin_index(np.zeros((2, 3))).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "label"),
    [("moderate", "Moderate (7–9)"), ("strong", "Strong (9–11)"), ("very_strong", "Very strong (≥ 11)")],
)
def test_bins_as_people_read_them(name: str, label: str) -> None:
    assert name in BIN_NAMES
    assert bin_label(name) == label
