"""The results of a run, or of several, as one self-contained page and as plain text."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jinja2

from tailbind.evaluation.criteria import MEASURED_ROWS, of_rows
from tailbind.reporting.domain_table import domain_table
from tailbind.reporting.intervals import interval_tables
from tailbind.reporting.tables import (
    NOTHING,
    Table,
    as_stated_tables,
    baseline_figures,
    bin_table,
    binders_table,
    censored_table,
    criteria_table,
    expected_table,
    number,
    overall_table,
)

#: Share of near-twins among the test rows from which the headline says so.
MANY_TWINS: Final = 0.5


@dataclass(frozen=True)
class Report:
    """What a page or a text shows, in order.

    Attributes
    ----------
    title, subtitle : of the page
    headline : the outcome in a sentence or two
    tiles : (label, figure, remark) that are seen first
    tables : figures
    pictures : caption → PNG
    findings : (symptom, evidence, what to try) of the diagnosis; None where there was none to make
    findings_title, facts_title : over the findings and the facts
    findings_first : whether the findings stand before the tables
    steps : (what to do next, command)
    facts : (name, value) of the run: recipe, data, machine
    """

    title: str
    subtitle: str
    headline: str
    tiles: Sequence[tuple[str, str, str]] = ()
    tables: Sequence[Table] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    findings: Sequence[tuple[str, str, str]] | None = None
    steps: Sequence[tuple[str, str]] = ()
    facts: Sequence[tuple[str, str]] = ()
    findings_title: str = "Diagnosis"
    facts_title: str = "The run"
    findings_first: bool = False

    def html(self) -> str:
        """Return one HTML page without any reference to another file."""
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("tailbind.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        pictures = {caption: base64.b64encode(data).decode() for caption, data in self.pictures.items()}
        return environment.get_template("report.html.j2").render(report=self, pictures=pictures)

    def text(self) -> str:
        """Return the same in plain text, without the pictures."""
        parts = [f"{self.title}\n{'#' * len(self.title)}\n{self.subtitle}\n\n{self.headline}"]
        tables = [table.text() for table in self.tables]
        findings = []
        if self.findings is not None:
            lines = [
                f"{what}{'' if what[-1] in '.?!' else ':'} {evidence}" + (f"\n    try {advice}" if advice else "")
                for what, evidence, advice in self.findings
            ]
            findings.append(_titled(self.findings_title, lines or ["Nothing found."]))
        parts += [*findings, *tables] if self.findings_first else [*tables, *findings]
        if self.steps:
            parts.append(_titled("Next steps", [f"{what}:\n    {command}" for what, command in self.steps]))
        if self.facts:
            parts.append(_titled(self.facts_title, [f"{name}: {value}" for name, value in self.facts]))
        return "\n\n".join(parts) + "\n"


def run_report(
    metrics: Mapping[str, Any],
    *,
    title: str,
    subtitle: str,
    pictures: Mapping[str, bytes],
    steps: Sequence[tuple[str, str]],
    facts: Sequence[tuple[str, str]],
) -> Report:
    """Return the report of a trained run from its `metrics.json`."""
    test, criteria = metrics["test"], metrics["criteria"]
    findings = [
        (
            entry["symptom"],
            entry["evidence"],
            " ".join([*(f"--set {o}" for o in entry["options"]), entry["advice"]]).strip(),
        )
        for entry in metrics["diagnosis"]
    ]
    return Report(
        title=title,
        subtitle=subtitle,
        headline=_headline(metrics),
        tiles=_tiles(metrics),
        tables=[
            overall_table(metrics),
            bin_table(metrics),
            *interval_tables(metrics.get("calibration")),
            *parts_table(metrics.get("parts")),
            leakage_table(metrics["leakage"]),
            *domain_table(metrics.get("domain")),
            *audit_table(metrics.get("audit")),
            *censored_table(test, metrics["baselines"]["ridge"], criteria["rows"]),
            *as_stated_tables(metrics),
            *binders_table(test, metrics["baselines"]["ridge"]),
            labels_table(metrics["labels"], metrics.get("audit")),
            criteria_table(criteria),
            expected_table(criteria),
        ],
        pictures=pictures,
        findings=findings,
        steps=steps,
        facts=facts,
        findings_title="Diagnosis" if metrics["epochs"] and "parts" not in metrics else "Diagnosis of the predictions",
    )


def _tiles(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return what is seen first: figures of the rows that the run is judged by, and the grade."""
    criteria = metrics["criteria"]
    test, ridge = (of_rows(figures, criteria["rows"]) for figures in (metrics["test"], metrics["baselines"]["ridge"]))
    which = "measured rows; " if criteria["rows"] == MEASURED_ROWS else ""
    very_strong = test["bins"]["very_strong"]
    return [
        ("RMSE", number(test["rmse"], 2), f"{which}ridge {number(ridge['rmse'], 2)}"),
        ("Spearman", number(test["spearman"], 2), f"{which}ridge {number(ridge['spearman'], 2)}"),
        (
            "Very strong RMSE",
            NOTHING if very_strong is None else number(very_strong["rmse"], 2),
            f"no {which and 'measured '}test rows" if very_strong is None else f"{which}n = {very_strong['n']:,}",
        ),
        ("Grade", criteria["word"], grade_words(criteria["grade"]) + _caveat(metrics)),
    ]


def grade_words(grade: str) -> str:
    """Return what a grade says about the training notebook's criteria."""
    return "misses the minimum criteria" if grade == "none" else f"meets the {grade} criteria"


def parts_table(parts: Mapping[str, Mapping[str, Any]] | None) -> list[Table]:
    """Return what a blend is put together from, and how much each part counts; nothing for any other model."""
    if parts is None:
        return []
    rows = tuple(
        (
            name,
            part["model"].replace("_", " "),
            f"{100 * part['share']:.0f} %" if "share" in part else "left out",
            f"{part['n_train']:,}" if "n_train" in part else NOTHING,
            f"{part['epochs']:,}" if "epochs" in part else NOTHING,
            f"{part['seconds']:,.1f}" if "seconds" in part else NOTHING,
        )
        for name, part in parts.items()
    )
    left_out = "".join(
        f" {name} is left out: {part['left_out']}." for name, part in parts.items() if "left_out" in part
    )
    note = (
        f"The mean weight is over the rows that chose the weights; a row's own depend on what is predicted.{left_out}"
    )
    refitted = {name: part["n_refitted"] for name, part in parts.items() if "n_refitted" in part}
    if refitted:
        counts = ", ".join(f"{name} from {n_rows:,}" for name, n_rows in refitted.items())
        note += (
            f" Once the weights were chosen, parts learned again from training and validation rows together: {counts}. "
            "Figures of validation rows are from before."
        )
    header = ("Part", "Model", "Mean weight", "Training rows", "Epochs", "Seconds")
    return [Table("What the blend consists of", header, rows, note)]


def audit_table(audit: Mapping[str, Any] | None) -> list[Table]:
    """Return what the audit found in the run's table, in brief; nothing where no run's table was audited."""
    if audit is None:
        return []
    rows = tuple(
        (entry["rule"].replace("_", " "), entry["severity"], entry["source"] or "whole table", f"{entry['n_rows']:,}")
        for entry in audit["findings"]
    )
    note = "Training left nothing out because of these. `tailbind check` shows the evidence, and --fix puts right."
    rows = rows or (("Nothing was found", NOTHING, NOTHING, NOTHING),)
    return [Table("What the audit found in the table", ("Rule", "Severity", "Source", "Rows"), rows, note)]


def labels_table(labels: Mapping[str, Any], audit: Mapping[str, Any] | None) -> Table:
    """Return the values that many labels share: detection floors, mostly; and how training took those marked."""
    rows = tuple(
        (f"{entry['value']:g}", f"{entry['n']:,}", f"{100 * entry['share']:.1f} %", f"{entry['censored']:,}")
        for entry in labels["most_repeated"]
    )
    if labels["left_out"]:
        taken = f"This recipe left out {labels['left_out']:,} training labels marked < or >"
    elif labels["taken_as_bounds"]:
        taken = f"This recipe took {labels['taken_as_bounds']:,} training labels marked < or > as bounds"
    else:
        taken = f"This recipe fitted {labels['fitted_as_measured']:,} training labels marked < or > as if measured"
    note = (
        f"Of {labels['n']:,} labels, {labels['censored']:,} are marked as censored (< or >). {taken}; "
        f"{_suspected(audit)}"
    )
    rows = rows or ((f"None is shared by {labels['shown_from']:.1%} of the rows", NOTHING, NOTHING, NOTHING),)
    return Table("Labels: the most repeated values", ("pKd", "Rows", "Share", "Marked < or >"), rows, note)


def _suspected(audit: Mapping[str, Any] | None) -> str:
    n_suspected = audit["suspected_floors_in_training"] if audit is not None else 0
    if n_suspected:
        return f"{n_suspected:,} more look like a detection limit, unmarked, and were fitted as measured."
    return "a value that many rows share is often a detection floor."


def leakage_table(leakage: Mapping[str, Any]) -> Table:
    """Return how near the test rows are to training rows, chain by chain."""
    if not leakage["known"]:
        return Table("What the split leaks", ("Nearest training row",), ((f"Unknown: {leakage['why']}",),))
    header = ("Nearest training row", "n", "Median identity", "≥ 95 %", "≥ 90 %", "≥ 80 %")
    names = {"heavy": "Heavy chain", "light": "Light chain", "antigen": "Antigen"}
    rows = tuple(
        (
            name,
            f"{entry['n']:,}",
            f"{100 * entry['median_identity']:.1f} %",
            *(f"{100 * entry[f'share_{level}']:.1f} %" for level in (95, 90, 80)),
        )
        if (entry := leakage[chain])
        else (name, "0", *[NOTHING] * 4)
        for chain, name in names.items()
    )
    pairs = leakage["exact_pairs"]
    exact = (
        "Exact pairs are unknown without antibody sequences."
        if pairs is None
        else f"Exact pairs in training as well: {pairs['n_test_rows']:,} test rows ({100 * pairs['share']:.1f} %)."
    )
    note = f"Shares of the n test rows whose nearest training sequence is that alike. {exact}"
    return Table("What the split leaks", header, rows, note)


def _near_twins(leakage: Mapping[str, Any]) -> str:
    """Return a warning where figures are for near-twins of training rows, "" where they are not."""
    twins, pairs = leakage["near_twins"], leakage["exact_pairs"]
    text = ""
    if twins and twins["share"] >= MANY_TWINS:
        text += (
            f" The figures are for near-twins of training rows: {100 * twins['share']:.1f} % of test rows are at least "
            "95 % identical to training in every antibody chain they have."
        )
    if pairs and pairs["n_test_rows"]:
        text += (
            f" Of the test rows {pairs['n_test_rows']:,} ({100 * pairs['share']:.1f} %) have their exact pair in "
            "training: on these the figures are not for new pairs."
        )
    return text


def _best_baseline(metrics: Mapping[str, Any]) -> tuple[str, float]:
    """Return the trivial predictor with the lowest RMSE on the rows that count, in words, and that RMSE."""
    rows = metrics["criteria"]["rows"]
    errors = {name: figures["rmse"] for name, figures in baseline_figures(metrics, rows).items()}
    best = min(errors, key=lambda name: errors[name])
    return best.replace("_", " "), errors[best]


def _caveat(metrics: Mapping[str, Any]) -> str:
    """Return what takes the shine off a grade: a trivial predictor that does better."""
    name, error = _best_baseline(metrics)
    test, grade = of_rows(metrics["test"], metrics["criteria"]["rows"]), metrics["criteria"]["grade"]
    return f", but {name} is better" if test["rmse"] > error and grade != "none" else ""


def _headline(metrics: Mapping[str, Any]) -> str:
    """Return the outcome in words: the grade, and whether the model beats the best trivial baseline."""
    criteria = metrics["criteria"]
    test = of_rows(metrics["test"], criteria["rows"])
    words, error = _best_baseline(metrics)
    relation = "beats" if test["rmse"] < error else "equals" if test["rmse"] == error else "does not beat"
    measured, on = ("measured ", "") if criteria["rows"] == MEASURED_ROWS else ("", f" on {test['n']:,} test rows")
    sentence = (
        f"Grade: {criteria['word']}; the model {grade_words(criteria['grade'])}. "
        f"With an RMSE of {test['rmse']:.3f}{on} it {relation} the best trivial predictor, {words} ({error:.3f})."
    )
    sentence += rows_judged(metrics["test"], criteria) + _near_twins(metrics["leakage"])
    absent = [name.replace("_", " ") for name, entry in test["bins"].items() if entry is None]
    return f"{sentence} No {measured}test rows are {' or '.join(absent)}." if absent else sentence


def rows_judged(test: Mapping[str, Any], criteria: Mapping[str, Any]) -> str:
    """Return on which rows a run is judged, where that is not all of them, as a sentence to follow another.

    Parameters
    ----------
    test : figures of the test rows, with `measured` and `censored`
    criteria : as `grade` returns them
    """
    if criteria["rows"] != MEASURED_ROWS:
        return ""
    censored = test["censored"]
    marked = f"the {censored['n']:,} marked < or > are bounds" if censored["n"] > 1 else "one marked < or > is a bound"
    return (
        f" Judged on the {test['measured']['n']:,} measured test rows; {marked}, on which the one-sided RMSE is "
        f"{censored['one_sided_rmse']:.3f}."
    )


def _titled(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, "=" * len(title), *lines])
