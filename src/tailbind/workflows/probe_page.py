"""A probed run as its readers see it: verdicts, figures and pictures on a page, as text, and for programs."""

from pathlib import Path
from typing import Any, Final

from tailbind.evaluation.metrics import CLUSTERS
from tailbind.evaluation.verdicts import (
    BARELY,
    GRADES,
    NO,
    PARTLY,
    UNKNOWN,
    USUAL_SD,
    Verdict,
    judged_scan,
    why_no_swap,
    yardstick,
)
from tailbind.reporting import probe_plots
from tailbind.reporting.drawing import png
from tailbind.reporting.report import Report
from tailbind.reporting.tables import NOTHING, Table, interval_text, number
from tailbind.runtime import write_json, write_text
from tailbind.workflows.probing import REGION_NAMES, Probe

PAGE, TEXT, DOCUMENT = "probe.html", "probe.txt", "probe.json"

#: Way of changing rows → in words, in the order of the page.
WAYS: Final = {
    "cdrs_to_alanine": "CDRs to alanine",
    "antigen_swapped": "another row's antigen",
    "antigen_removed": "antigen removed",
    "antibody_swapped": "another row's antibody",
    "chains_exchanged": "heavy and light exchanged",
    "scan": "every single substitution",
    "scan_seen": "those that training had",
    "scan_new": "those new to training",
}
MEASURED, PREDICTED = "measured mutants, measured", "measured mutants, predicted"


def write_probe(result: Probe, folder: Path) -> None:
    """Write the page, the text and, last, the document."""
    folder.mkdir(parents=True, exist_ok=True)
    report = probe_report(result)
    write_text(folder / TEXT, report.text())
    write_text(folder / PAGE, Report(**{**vars(report), "pictures": _pictures(result)}).html())
    write_json(folder / DOCUMENT, result.document())


def probe_report(result: Probe) -> Report:
    """Return the report of a probe, without pictures."""
    return Report(
        title=f"tailbind probe · {result.run.name}",
        subtitle="How the model answers changed antibodies, held against what was measured",
        headline=headline(result),
        tiles=_tiles(result),
        tables=[_changes_table(result), _mutants_table(result), *_regions_table(result), _scanned_table(result)],
        findings=[(f"{verdict.question} {_word(verdict)}.", verdict.evidence, "") for verdict in result.verdicts],
        findings_title="What it has learned",
        findings_first=True,
        facts=[
            ("Run", str(result.run)),
            ("Table", ", ".join(result.data)),
            ("Rows", f"{result.figures['n_rows']:,}, of which {result.figures['n_test']:,} were kept for the test"),
            ("Predictions", f"{result.n_predictions:,} in {result.seconds:.0f} s"),
        ],
        facts_title="The probe",
    )


def headline(result: Probe) -> str:
    """Return the outcome in a sentence or two."""
    by_answer = {answer: [v for v in result.verdicts if v.answer == answer] for answer in (*GRADES[::-1], UNKNOWN)}
    counts = ", ".join(f"{len(found)} {answer}" for answer, found in by_answer.items() if found)
    faults = [
        _fault(verdict) for verdict in result.verdicts if verdict.decides and verdict.answer in (NO, BARELY, PARTLY)
    ]
    name = result.run.name
    if not faults:
        unknown = [verdict for verdict in result.verdicts if verdict.decides and verdict.answer == UNKNOWN]
        but = " so far as this table can tell" if unknown else ""
        silent = any(verdict.key == "new" and verdict.answer == NO for verdict in result.verdicts)
        but += ", and is silent on substitutions that training never had" if silent else ""
        return f"{name} reacts to mutations and antigens as measured{but}. Of the questions below: {counts}."
    *others, last = faults
    listed = f"{', '.join(others)} and {last}" if others else last
    return f"{name} {listed}. Of the questions below: {counts}."


def _fault(verdict: Verdict) -> str:
    """Return what a verdict finds wrong, as the end of a sentence about the model."""
    words = {
        ("responds", NO): "gives single mutants one and the same answer",
        ("responds", BARELY): "hardly moves on single mutants",
        ("responds", PARTLY): "moves less on single mutants than was measured",
        ("order", NO): "does not know which mutations matter",
        ("order", BARELY): "barely knows which mutations matter",
        ("order", PARTLY): "knows in part which mutations matter",
        ("places", NO): "does not tell one place from another",
        ("antigen", NO): "does not know antigens",
        ("antigen", BARELY): "barely knows antigens",
        ("antigen", PARTLY): "knows antigens in part",
    }
    return words[verdict.key, verdict.answer]


def _word(verdict: Verdict) -> str:
    return verdict.answer.capitalize() if verdict.answer != UNKNOWN else "Unknown"


def _tiles(result: Probe) -> list[tuple[str, str, str]]:
    figures = result.figures
    mutants, swapped = figures["mutants"], figures["probes"].get("antigen_swapped")
    limits = mutants["interval"]
    measured, judged = yardstick(figures), judged_scan(figures)
    against = f"{USUAL_SD} would be usual" if measured is None else f"measured {number(measured, 2)}"
    antigens = figures["antigens"]["median_absolute_measured"]
    return [
        (
            "Held-out mutants",
            number(mutants["spearman"], 2),
            f"Spearman of ΔpKd{f', {interval_text(limits, 2)}' if limits else ''}; n = {mutants['n']:,}",
        ),
        ("SD over mutants", number(judged["sd"], 2), f"pKd, {judged['n']:,} predicted; {against}"),
        (
            "Size of changes",
            NOTHING if mutants["ratio"] is None else f"{number(mutants['ratio'], 2)}×",
            "predicted over measured, on the same mutants",
        ),
        (
            "Antigen swapped",
            number(swapped["median_absolute"], 2) if swapped else NOTHING,
            f"pKd moved in the median; measured {number(antigens, 2)}"
            if swapped
            else why_no_swap(figures["n_antigens"]),
        ),
    ]


def _changes_table(result: Probe) -> Table:
    figures = result.figures
    scans = {way: figures[way] for way in ("scan", "scan_seen", "scan_new") if way in figures}
    entries = {**figures["probes"], **scans}
    rows = []
    for way, words in WAYS.items():
        if (entry := entries.get(way)) is None or not entry["n"]:
            continue
        flagged = entry.get("share_flagged")
        rows.append(
            (
                words.capitalize() if way != "cdrs_to_alanine" else words,
                f"{entry['n']:,}",
                number(entry["median"], 2),
                number(entry["median_absolute"], 2),
                number(entry["sd"], 2),
                f"{100 * entry['share_down']:.0f} %",
                NOTHING if flagged is None else f"{100 * flagged:.0f} %",
            )
        )
    header = ("Change", "n", "Median ΔpKd", "Median |ΔpKd|", "SD", "Weaker", "Flagged")
    note = (
        "Predicted ΔpKd: the changed antibody less its own. Weaker: share predicted to bind worse. Flagged: share that "
        "the model itself says is unlike anything in training."
    )
    return Table("How far changes move predictions", header, tuple(rows), note)


def _mutants_table(result: Probe) -> Table:
    rows = []
    for key, words in (("mutants", "Single mutants and their parents"), ("antigens", "One antibody, two antigens")):
        entry = result.figures[key]
        limits = interval_text(entry["interval"], 2)
        signs = entry["sign_agreement"]
        rows.append(
            (
                words,
                f"{entry['n']:,}",
                number(entry["sd_measured"], 2),
                number(entry["sd_predicted"], 2),
                number(entry["spearman"], 2),
                limits,
                NOTHING if signs is None else f"{100 * signs:.0f} % of {entry['n_signs']:,}",
            )
        )
    header = ("Held-out pairs", "n", "SD measured", "SD predicted", "Spearman", "95 % interval", "Sign right")
    everywhere = result.figures["mutants_measured"]
    units = {"mutants": "parents", "antigens": "antibodies"}
    drawn = [words if result.figures[key]["intervals_by"] == CLUSTERS else "pairs" for key, words in units.items()]
    note = (
        "A pair counts where the test has the mutant (or the antibody with one of its antigens); its partner is any "
        "measured row. Single mutants are of one source and antigen; the parent is the antibody one substitution away "
        f"that has most such mutants. The whole table has {everywhere['n']:,} (SD {number(everywhere['sd'], 2)}). "
        "Two that are each other's partners count once. Intervals by bootstrap, "
        f"of single mutants by {drawn[0]}, of antigens by {drawn[1]}."
    )
    return Table("Predicted and measured changes", header, tuple(rows), note)


def _region_names(figures: dict[str, Any]) -> list[str]:
    return [name for name in REGION_NAMES if name in figures.get("regions", {}) and name != "other"]


def _regions_table(result: Probe) -> list[Table]:
    figures = dict(result.figures)
    names = _region_names(figures)
    measured, predicted = (figures.get(key, {}) for key in ("regions_measured", "regions_predicted"))
    rows = tuple(
        (
            f"{name[0].upper()}{name[1:]}",
            f"{figures['regions'][name]['n']:,}",
            number(figures["regions"][name]["mean_absolute"], 2),
            f"{measured[name]['n']:,}" if name in measured else "0",
            number(measured[name]["mean_absolute"], 2) if name in measured else NOTHING,
            number(predicted[name]["mean_absolute"], 2) if name in predicted else NOTHING,
        )
        for name in names
    )
    header = ("Region", "Substitutions", "Mean |ΔpKd|", "Measured", "Mean |ΔpKd|", "The same, predicted")
    note = (
        "IMGT's regions. Left: every substitution of the scanned antibodies. Right: measured held-out single mutants."
    )
    return [Table("Sensitivity by region", header, rows, note)] if rows else []


def _scanned_table(result: Probe) -> Table:
    rows = tuple(
        (
            entry["row_id"],
            entry["source"] or NOTHING,
            entry["antigen_name"] or NOTHING,
            f"{len(entry['heavy']):,} + {len(entry['light']):,}",
        )
        for entry in result.scanned
    )
    note = "Training rows of the largest families, each the antibody with most measured single mutants."
    return Table(
        "The antibodies that were scanned", ("row_id", "Source", "Antigen", "Residues, heavy + light"), rows, note
    )


def _pictures(result: Probe) -> dict[str, bytes]:
    measured, predicted = result.mutants
    names, arrays, grey = [], [], []
    for way, words in WAYS.items():
        if way in result.changed:
            names.append(words)
            arrays.append(result.changed[way])
            grey.append(False)
    if len(measured):
        names += [PREDICTED, MEASURED]
        arrays += [predicted, measured]
        grey += [False, True]
    pictures = {"How far changes move predictions": png(probe_plots.change_ranges(names, arrays, grey))}
    if len(measured):
        pictures["Held-out single mutants: predicted and measured change"] = png(
            probe_plots.mutant_scatter(measured, predicted)
        )
    figures = dict(result.figures)
    if regions := _region_names(figures):
        sizes = {"every substitution, predicted": _sizes(figures["regions"], regions)}
        if any(name in figures.get("regions_measured", {}) for name in regions):
            sizes[PREDICTED] = _sizes(figures["regions_predicted"], regions)
            sizes[MEASURED] = _sizes(figures["regions_measured"], regions)
        pictures["Where substitutions move pKd, by IMGT region"] = png(probe_plots.region_bars(regions, sizes))
    return pictures


def _sizes(entries: dict[str, Any], regions: list[str]) -> list[float]:
    return [entries[name]["mean_absolute"] if name in entries else float("nan") for name in regions]
