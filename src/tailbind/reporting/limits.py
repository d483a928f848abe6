"""What a run's figures say against relying on it: sentences by rules over `metrics.json`, for its model card."""

import re
from collections.abc import Mapping
from typing import Any, Final

from tailbind.evaluation.criteria import LEVELS, MEASURED_ROWS, lower_is_better, metric_label, of_rows
from tailbind.evaluation.metrics import CLUSTERS
from tailbind.reporting.tables import baseline_figures, number
from tailbind.scale import BIN_NAMES, bin_label

#: Training or test rows of an affinity bin below which its figures are not to be relied upon.
FEW_IN_BIN: Final = 30
#: Test rows below which all figures are rough.
FEW_TESTED: Final = 100
#: Mean error of a bin, in pKd, from which it is told.
BIASED: Final = 0.5
#: Times the overall RMSE that a bin's must have to be told.
WORSE: Final = 1.5
#: Share of test rows with a near twin in training, or with an antigen of training, from which it is told.
MOST: Final = 0.5
#: SD of the predictions over that of the labels below which they are drawn to the mean.
DRAWN: Final = 0.7
#: How far below its level the coverage of intervals must be to be told.
SHORT: Final = 0.05
#: How a place on a disk begins, not a name on the hub.
_PLACE: Final = re.compile(r"""["']?(/|~|\.{1,2}[\\/]|[A-Za-z]:[\\/]|\\)""")


def limits(metrics: Mapping[str, Any], config: Mapping[str, Any], environment: Mapping[str, Any]) -> list[str]:
    """Return what a user of the model has to know, a bullet each in Markdown, what matters most first.

    Parameters
    ----------
    metrics, config, environment : contents of a run's JSON files of these names
    """
    return [
        *_criteria(metrics),
        *_baselines(metrics),
        *_bins(metrics),
        *_spread(metrics),
        *_strangers(metrics["leakage"], config),
        *_labels(metrics),
        *_audit(metrics.get("audit")),
        *_dropped(environment),
        *_rough(metrics),
        *_intervals(metrics),
        *_unsure(metrics.get("calibration")),
        *_inputs(config),
        *(f"**{entry['symptom'].capitalize()}**: {entry['evidence']}" for entry in metrics["diagnosis"]),
    ]


def _criteria(metrics: Mapping[str, Any]) -> list[str]:
    """Return which criteria of the first level that is not reached are missed, and which could not be judged."""
    levels, lines = metrics["criteria"]["levels"], []
    for level in LEVELS:
        missed = [entry for entry in levels[level] if entry["met"] is False]
        if missed:
            listing = ", ".join(
                f"{metric_label(entry['metric'])} {number(entry['value'])} (to be "
                f"{'below' if lower_is_better(entry['metric']) else 'above'} {entry['threshold']:g})"
                for entry in missed
            )
            lines.append(f"**Misses the {level} criteria** of the training notebook: {listing}.")
            break
    unjudged = [metric_label(entry["metric"]) for entry in levels[LEVELS[0]] if entry["met"] is None]
    if unjudged:
        lines.append(f"**Not judged**, for there are no such test rows: {', '.join(unjudged)}.")
    return lines


def _baselines(metrics: Mapping[str, Any]) -> list[str]:
    """Return whether a trivial predictor is as good."""
    rows = metrics["criteria"]["rows"]
    test = of_rows(metrics["test"], rows)
    errors = {name.replace("_", " "): entry["rmse"] for name, entry in baseline_figures(metrics, rows).items()}
    best = min(errors, key=lambda name: float(errors[name]))
    if test["rmse"] >= errors[best]:
        return [
            f"**No better than {best}**: its RMSE is {number(test['rmse'])}, that of {best} {number(errors[best])} on "
            "the same rows. Use that instead."
        ]
    interval = (test.get("intervals") or {}).get("rmse")
    if interval and interval[1] >= errors[best]:
        return [
            f"**Not surely better than {best}**: {number(errors[best])}, the RMSE of {best}, is within the interval of "
            f"its own, {number(interval[0])} to {number(interval[1])}."
        ]
    return []


def _bins(metrics: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with each affinity bin: few rows to learn or to judge by, a large error or bias."""
    test, lines = of_rows(metrics["test"], metrics["criteria"]["rows"]), []
    for name in BIN_NAMES:
        n_train, entry = metrics["train"]["bins"][name], test["bins"][name]
        said = []
        if not n_train:
            said.append("no training rows, so that nothing was learned here")
        elif n_train < FEW_IN_BIN:
            said.append(f"{_rows(n_train, 'training')} only")
        if entry is None:
            said.append("no test rows, so that the error is unknown")
        elif entry["n"] < FEW_IN_BIN:
            said.append(f"judged by {_rows(entry['n'], 'test')} only")
        if entry is not None and entry["rmse"] >= WORSE * test["rmse"]:
            said.append(f"RMSE {number(entry['rmse'])}, overall {number(test['rmse'])}")
        if entry is not None and abs(entry["bias"]) >= BIASED:
            side = "weak" if entry["bias"] < 0 else "strong"
            said.append(f"predicted {number(abs(entry['bias']), 2)} pKd too {side} on average")
        if said:
            lines.append(f"**{bin_label(name)}**: {'; '.join(said)}.")
    return lines


def _rows(n: int, of: str) -> str:
    return f"1 {of} row" if n == 1 else f"{n:,} {of} rows"


def _spread(metrics: Mapping[str, Any]) -> list[str]:
    """Return whether the predictions spread much less than the labels."""
    test = of_rows(metrics["test"], metrics["criteria"]["rows"])
    if not test["label_sd"] or test["prediction_sd"] >= DRAWN * test["label_sd"]:
        return []
    return [
        f"**Drawn to the mean**: predictions have an SD of {number(test['prediction_sd'], 2)} pKd, labels of "
        f"{number(test['label_sd'], 2)}. The strongest and the weakest binders are more extreme than it says."
    ]


def _strangers(leakage: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return for what kind of new row the figures do not hold."""
    if not leakage["known"]:
        return [f"**How new the test rows are is unknown**: {leakage['why']}. The figures may flatter."]
    lines, split = [], config["split"]["kind"]
    twins, pairs, antigen = leakage["near_twins"], leakage["exact_pairs"], leakage["antigen"]
    if twins and twins["share"] >= MOST:
        lines.append(
            f"**New antibodies**: {100 * twins['share']:.0f} % of the test rows are at least 95 % identical to "
            f"training in every antibody chain (split: {split}). Expect larger errors for antibodies unlike "
            "those trained on; `tailbind ladder` measures how much larger."
        )
    if pairs and pairs["n_test_rows"]:
        lines.append(
            f"**Repeats**: {pairs['n_test_rows']:,} test rows ({100 * pairs['share']:.1f} %) have their exact pair in "
            "training; the figures on these are not for new pairs."
        )
    if antigen is None:
        lines.append(
            "**New antigens**: without antigen sequences in the test rows, how it does on a new antigen was not tested."
        )
    elif antigen["share_95"] >= MOST:
        lines.append(
            f"**New antigens**: {100 * antigen['share_95']:.0f} % of the test rows' antigens are at least 95 % "
            "identical to one of training. How it does on a new antigen is not what these figures say."
        )
    return lines


def _labels(metrics: Mapping[str, Any]) -> list[str]:
    """Return how training took labels that are bounds."""
    labels, audit = metrics["labels"], metrics.get("audit") or {}
    lines = []
    if labels["fitted_as_measured"]:
        lines.append(
            f"**Bounds taken for measurements**: {labels['fitted_as_measured']:,} training labels marked < or > were "
            "fitted as if measured. It is pulled towards these detection limits."
        )
    if labels["left_out"]:
        lines.append(
            f"**Bounds left out**: {labels['left_out']:,} training labels marked < or > were not learned from. It "
            "knows little of binders beyond the detection limits."
        )
    if labels["taken_as_bounds"]:
        lines.append(
            f"**Bounds**: {labels['taken_as_bounds']:,} training labels marked < or > say on which side of a limit a "
            "binder is, not where. Beyond the limits a prediction is an extrapolation."
        )
    if suspected := audit.get("suspected_floors_in_training"):
        lines.append(
            f"**Suspected detection limits**: {suspected:,} training labels look like one, are not marked, and were "
            "fitted as measured."
        )
    return lines


def _audit(audit: Mapping[str, Any] | None) -> list[str]:
    """Return what the audit found against the table it learned from."""
    if audit is None:
        return ["**The table was not audited** for wrong units, repeats and detection limits."]
    found: dict[str, int] = {}
    for entry in audit["findings"]:
        if entry["severity"] in ("error", "warning"):
            found[entry["rule"]] = found.get(entry["rule"], 0) + entry["n_rows"]
    if not found:
        return []
    listing = ", ".join(f"{rule.replace('_', ' ')} ({n_rows:,} rows)" for rule, n_rows in found.items())
    return [f"**Faults of the table that the audit found**, of which training left nothing out: {listing}."]


def _dropped(environment: Mapping[str, Any]) -> list[str]:
    """Return which rows were not read."""
    dropped = {reason: count for reason, count in environment["dropped"].items() if count}
    if not dropped:
        return []
    listing = ", ".join(f"{count:,} ({reason})" for reason, count in dropped.items())
    return [f"**Rows left out** of the {environment['n_read']:,} read: {listing}."]


def _rough(metrics: Mapping[str, Any]) -> list[str]:
    """Return whether all figures rest on few rows."""
    n_test = of_rows(metrics["test"], metrics["criteria"]["rows"])["n"]
    if n_test >= FEW_TESTED:
        return []
    which = "measured test" if metrics["criteria"]["rows"] == MEASURED_ROWS else "test"
    return [f"**Few test rows**: all figures are of {_rows(n_test, which)}."]


def _intervals(metrics: Mapping[str, Any]) -> list[str]:
    """Return whether the intervals take relatives for independent rows."""
    told = of_rows(metrics["test"], metrics["criteria"]["rows"]).get("intervals") or {}
    if told.get("by") == CLUSTERS:
        return []
    return [
        "**The intervals of these figures are too narrow** where rows are relatives: they take every test row for an "
        "independent one, as there are too few families of antibodies to draw, or these are unknown."
    ]


def _unsure(calibration: Mapping[str, Any] | None) -> list[str]:
    """Return whether a prediction comes without an error bar, and for which test rows these are too short."""
    if not calibration:
        return [
            "**No error bars**: predictions come without calibrated intervals. `predicted_sd`, where there is one, is "
            "how far the models within it disagree, and too small for an error bar."
        ]
    level, found = calibration["level"], calibration["coverage"]
    kinds = {
        "measured rows": found["measured"],
        "rows marked < or >": found["censored"],
        **{f"bin {name.replace('_', ' ')}": entry for name, entry in found["bins"].items()},
        **{f"source {name}": entry for name, entry in found.get("sources", {}).items()},
        **{f"domain {name}": entry for name, entry in found.get("domains", {}).items()},
    }
    short = [
        f"{name} {100 * entry['coverage']:.0f} % of {entry['n']:,}"
        for name, entry in kinds.items()
        if entry is not None and entry["n"] >= FEW_IN_BIN and entry["coverage"] < level - SHORT
    ]
    if not short:
        return []
    return [f"**Intervals that hold less than their {100 * level:.0f} %** of the test rows: {'; '.join(short)}."]


def _inputs(config: Mapping[str, Any]) -> list[str]:
    """Return what the features need of whoever predicts."""
    lines = []
    for block in config["features"].values():
        if block["kind"] == "columns":
            lines.append(
                "**Needs its feature columns**: they must be made exactly as those of training were, by the same "
                "encoder, pooling and components. Nothing can tell whether they were."
            )
        elif block.get("encoder"):
            lines.append(
                f"**Needs the encoder** {without_folder(block['encoder'])}, which is not part of the model: "
                "it is fetched, or must be where training found it."
            )
        elif block["kind"] == "category":
            lines.append(f"**Needs the column {block['column']}**; a value that training never saw says nothing.")
    return lines


def file_name(path: str) -> str:
    """Return the last part of a path of any system.

    >>> file_name("/home/me/data/pairs.csv"), file_name("C:\\\\data\\\\pairs.csv")
    ('pairs.csv', 'pairs.csv')
    """
    return re.split(r"[\\/]", path.rstrip("/"))[-1]


def without_folder(text: str) -> str:
    """Return text, or `key=value`, in which a place on a disk is reduced to its last part.

    >>> without_folder("features.lm.encoder=/home/me/esm2"), without_folder("facebook/esm2_t6"), without_folder("0.5")
    ('features.lm.encoder=esm2', 'facebook/esm2_t6', '0.5')
    """
    key, sign, value = text.rpartition("=")
    return f"{key}{sign}{file_name(value)}" if _PLACE.match(value) else text
