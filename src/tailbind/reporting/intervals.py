"""Intervals and tail probabilities of a run in tables: what they hold, and whether they come true."""

from collections.abc import Mapping
from typing import Any, Final

from tailbind.reporting.tables import NOTHING, Table, number
from tailbind.scale import bin_label

#: What tail probabilities are called.
TAIL_LABELS: Final[Mapping[str, str]] = {
    "p_below_5": "pKd below 5",
    "p_above_9": "pKd above 9",
    "p_above_11": "pKd above 11",
}
#: What intervals were calibrated on, in words.
CALIBRATED_ON: Final[Mapping[str, str]] = {
    "out_of_fold": "training and validation rows, each predicted by what had not learned from it",
    "own": "rows of their own, which neither trained nor chose the model",
    "val": "validation rows, which chose the model too, so that they may be a little narrow",
}
#: By what rows are divided, in `metrics.json` and in words.
DIVISIONS: Final[Mapping[str, str]] = {
    "sources": "Source",
    "domains": "Domain",
    "identities": "Identity to training",
}
#: Rows from which a kind of rows has a line of its own.
FEWEST_SHOWN: Final = 20


def interval_tables(calibration: Mapping[str, Any] | None) -> list[Table]:
    """Return what intervals hold on labelled rows, and whether probabilities come true; nothing where there are none.

    Parameters
    ----------
    calibration : as in `metrics.json`
    """
    if calibration is None:
        return []
    found, level = calibration["coverage"], f"{100 * calibration['level']:.0f} %"
    lines = [
        _line("All measured rows", found["measured"]),
        _line("Rows marked < or >", found["censored"]),
        *(_line(f"Measured {bin_label(name).lower()}", entry) for name, entry in found["bins"].items()),
    ]
    for division, word in DIVISIONS.items():
        kinds = {name: entry for name, entry in found.get(division, {}).items() if entry and entry["n"] >= FEWEST_SHOWN}
        lines += [_line(f"{word} {name}", entry) for name, entry in kinds.items()]
    how = CALIBRATED_ON[calibration["calibrated_on"]]
    on = f"{calibration['n_calibration']:,} {how}"
    note = (
        f"Calibrated on {on}. A label marked < or > counts as held where the interval reaches beyond it. The promise "
        "is for rows like those of calibration, not for strangers, and holds on average over rows, not for each bin of "
        "measured values."
    )
    tails = [
        (TAIL_LABELS[name], f"{entry['n']:,}", number(entry["ece"]), *_extremes(entry["steps"]))
        for name, entry in calibration["probabilities"].items()
    ]
    header = (
        "Probability of",
        "n",
        "Calibration error",
        "Given below 10 %, came true",
        "Given 90 % or more, came true",
    )
    return [
        Table(
            f"Intervals that are to hold {level}",
            ("Rows", "n", "Held", "Mean width, pKd", "Median width"),
            tuple(lines),
            note,
        ),
        Table(
            "Probabilities of the tails",
            header,
            tuple(tails),
            "Calibration error: how far the probability given lies from the share that came true, on average over the "
            "rows, by steps of a tenth.",
        ),
    ]


def _line(name: str, entry: Mapping[str, Any] | None) -> tuple[str, ...]:
    if entry is None:
        return (name, "0", NOTHING, NOTHING, NOTHING)
    widths = (number(entry["width"], 2), number(entry["median_width"], 2))
    return (name, f"{entry['n']:,}", f"{100 * entry['coverage']:.1f} %", *widths)


def _extremes(steps: list[Mapping[str, Any]]) -> tuple[str, str]:
    """Return what came true of rows with the lowest and with the highest probabilities."""
    low = next((step for step in steps if step["probability"] < 0.1), None)
    high = next((step for step in steps if step["probability"] >= 0.9), None)
    return tuple(  # type: ignore[return-value]
        NOTHING if step is None else f"{100 * step['share']:.1f} % of {step['n']:,}" for step in (low, high)
    )
