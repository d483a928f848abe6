"""pKd, Kd and ΔG, and the five affinity bins: the one place that knows them.

pKd is −log10 of the dissociation constant in mol/L, so larger is stronger: 1 nM is pKd 9.
ΔG = −R T ln(10) pKd in kcal/mol, negative for a binder, with R = 1.987204e-3 kcal/mol/K
(CODATA 2018 gas constant, thermochemical calorie).
"""

import math
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.floating[Any]]

GAS_CONSTANT_KCAL: Final = 8.31446261815324 / 4184.0
ROOM_TEMPERATURE_KELVIN: Final = 298.15

#: Mol/L in one of each unit. Looked up by its exact spelling: mM and M differ only in letters.
MOLAR_UNITS: Final = {
    "M": 1.0,
    "mM": 1e-3,
    "uM": 1e-6,
    "µM": 1e-6,
    "μM": 1e-6,
    "nM": 1e-9,
    "pM": 1e-12,
    "fM": 1e-15,
}

#: The five bins, weakest first.
BIN_NAMES: Final = ("very_weak", "weak", "moderate", "strong", "very_strong")
#: Inner edges; an edge belongs to the bin above it, so pKd 5 is weak and pKd 11 is very strong.
BIN_EDGES: Final = (5.0, 7.0, 9.0, 11.0)
#: The bins this package exists for.
EXTREME_BINS: Final = ("very_weak", "very_strong")

#: A stated pKd outside these is a mistake of unit or sign, not a measurement.
PKD_RANGE: Final = (-5.0, 20.0)


def pkd_from_kd(kd: ArrayLike, unit: str = "M") -> FloatArray:
    """Return pKd for dissociation constants given in a molar unit.

    Parameters
    ----------
    kd : array of positive numbers, any shape
    unit : one of `MOLAR_UNITS`

    Raises
    ------
    ValueError
        For an unknown unit, or a Kd that is not positive.

    Examples
    --------
    >>> float(pkd_from_kd(1.0, "nM"))
    9.0
    """
    values = np.asarray(kd, dtype=np.float64)
    if np.any(values <= 0):
        raise ValueError("Kd must be above 0")
    return -np.log10(values) - math.log10(_molar(unit))


def kd_from_pkd(pkd: ArrayLike, unit: str = "M") -> FloatArray:
    """Return dissociation constants in a molar unit for pKd values of any shape.

    >>> float(kd_from_pkd(9.0, "nM"))
    1.0
    """
    return np.power(10.0, -np.asarray(pkd, dtype=np.float64) - math.log10(_molar(unit)))


def delta_g_from_pkd(pkd: ArrayLike, temperature_kelvin: ArrayLike = ROOM_TEMPERATURE_KELVIN) -> FloatArray:
    """Return the binding free energy in kcal/mol (negative for a binder) for pKd values.

    >>> round(float(delta_g_from_pkd(9.0)), 2)
    -12.28
    """
    rt = GAS_CONSTANT_KCAL * np.asarray(temperature_kelvin, dtype=np.float64)
    return -rt * math.log(10) * np.asarray(pkd, dtype=np.float64)


def pkd_from_delta_g(
    delta_g_kcal_mol: ArrayLike, temperature_kelvin: ArrayLike = ROOM_TEMPERATURE_KELVIN
) -> FloatArray:
    """Return pKd for binding free energies in kcal/mol (negative for a binder).

    >>> round(float(pkd_from_delta_g(-12.28)), 2)
    9.0
    """
    rt = GAS_CONSTANT_KCAL * np.asarray(temperature_kelvin, dtype=np.float64)
    return -np.asarray(delta_g_kcal_mol, dtype=np.float64) / (rt * math.log(10))


def bin_index(pkd: ArrayLike) -> NDArray[np.intp]:
    """Return 0 (very weak) to 4 (very strong) for each pKd; bins are closed below.

    >>> bin_index([4.99, 5.0, 7.0, 8.99, 9.0, 11.0]).tolist()
    [0, 1, 2, 2, 3, 4]
    """
    return np.digitize(np.asarray(pkd, dtype=np.float64), BIN_EDGES)


def bin_names(pkd: ArrayLike) -> NDArray[np.str_]:
    """Return the name of the bin of each pKd.

    >>> bin_names([4.0, 11.0]).tolist()
    ['very_weak', 'very_strong']
    """
    return np.asarray(BIN_NAMES)[bin_index(pkd)]


def bin_label(name: str) -> str:
    """Return a bin's name as a person reads it, with its range.

    >>> bin_label("very_weak"), bin_label("weak"), bin_label("very_strong")
    ('Very weak (< 5)', 'Weak (5–7)', 'Very strong (≥ 11)')
    """
    index = BIN_NAMES.index(name)
    words = name.replace("_", " ").capitalize()
    if index == 0:
        return f"{words} (< {BIN_EDGES[0]:g})"
    if index == len(BIN_EDGES):
        return f"{words} (≥ {BIN_EDGES[-1]:g})"
    return f"{words} ({BIN_EDGES[index - 1]:g}–{BIN_EDGES[index]:g})"


def _molar(unit: str) -> float:
    if unit not in MOLAR_UNITS:
        raise ValueError(f"unit must be one of {', '.join(MOLAR_UNITS)}; got {unit!r}")
    return MOLAR_UNITS[unit]
