"""Runs side by side on the same test rows, with paired intervals of their differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.evaluation.criteria import lower_is_better
from tailbind.evaluation.metrics import (
    FEWEST_FOR_INTERVAL,
    N_RESAMPLES,
    OVERALL,
    evaluate,
    figure,
    percentile_intervals,
    resampled,
)
from tailbind.scale import BIN_NAMES

Array = NDArray[np.float64]

#: What a comparison shows, in order: the training notebook's metrics, then each bin's RMSE.
COMPARED: Final = (*OVERALL, *(f"{name}.rmse" for name in BIN_NAMES))


@dataclass(frozen=True)
class Difference:
    """One run against the first, in one metric.

    Attributes
    ----------
    metric : flat name
    value : of this run; None where the test rows have none of that bin
    interval : 95 % bootstrap interval of the value
    change_percent : of the value against the first run's; None for the first run
    better : whether the change is an improvement
    difference : value minus the first run's
    difference_interval : paired 95 % bootstrap interval of it
    clear : whether that interval leaves out 0
    """

    metric: str
    value: float | None
    interval: tuple[float, float] | None
    change_percent: float | None = None
    better: bool | None = None
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None
    clear: bool | None = None


@dataclass(frozen=True)
class Comparison:
    """Several runs on the same rows; the first is what the others are held against.

    Attributes
    ----------
    names : of the runs
    n : test rows
    bin_counts : bin → number of test rows
    differences : one list per run, an entry per metric of `COMPARED`
    """

    names: tuple[str, ...]
    n: int
    bin_counts: Mapping[str, int]
    differences: tuple[tuple[Difference, ...], ...]


def compare_predictions(
    y_true: Array, predictions: Mapping[str, Array], n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Comparison:
    """Return every metric of every run, and its difference from the first run's.

    Parameters
    ----------
    y_true : (n_samples,) pKd
    predictions : run name → (n_samples,) predicted pKd, the first being the reference
    """
    figures = [evaluate(y_true, y_pred) for y_pred in predictions.values()]
    values = resampled(y_true, list(predictions.values()), n_resamples, seed)
    counts = {name: (entry["n"] if (entry := figures[0]["bins"][name]) else 0) for name in BIN_NAMES}
    intervals = [percentile_intervals(of_run) for of_run in values]
    paired = [percentile_intervals(of_run - values[0]) for of_run in values]
    runs = []
    for position in range(len(figures)):
        entries = []
        for metric in COMPARED:
            few = "." in metric and counts[metric.split(".")[0]] < FEWEST_FOR_INTERVAL
            entries.append(
                _difference(
                    metric,
                    figure(figures[position], metric),
                    figure(figures[0], metric) if position else None,
                    None if few else intervals[position][metric],
                    None if few or not position else paired[position][metric],
                )
            )
        runs.append(tuple(entries))
    return Comparison(tuple(predictions), len(y_true), counts, tuple(runs))


def _difference(
    metric: str,
    value: float | None,
    reference: float | None,
    interval: tuple[float, float] | None,
    paired: tuple[float, float] | None,
) -> Difference:
    if value is None or reference is None:
        return Difference(metric, value, interval)
    change = value - reference
    return Difference(
        metric=metric,
        value=value,
        interval=interval,
        change_percent=100 * change / abs(reference) if reference else None,
        better=None if change == 0 else (change < 0) == lower_is_better(metric),
        difference=change,
        difference_interval=paired,
        clear=None if paired is None else not paired[0] <= 0 <= paired[1],
    )


def differing_rows(ids: Sequence[NDArray[np.str_]]) -> NDArray[np.str_]:
    """Return the row ids that are not in every list, sorted.

    >>> differing_rows([np.array(["a", "b"]), np.array(["b", "c"])]).tolist()
    ['a', 'c']
    """
    common, union = set(ids[0].tolist()), set(ids[0].tolist())
    for others in ids[1:]:
        common &= set(others.tolist())
        union |= set(others.tolist())
    return np.array(sorted(union - common), dtype=np.str_)
