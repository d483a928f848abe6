"""`tailbind check`: a table audited, shown, and, where asked, put right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import rich.box
import rich.table
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from tailbind.errors import RunError, SequenceError, TableError
from tailbind.reporting.report import Report
from tailbind.reporting.tables import Table
from tailbind.runtime import check_empty, to_json, write_json, write_text, writing
from tailbind.scale import BIN_NAMES, bin_index
from tailbind.sequences.clustering import cluster
from tailbind.sequences.identity import nearest_identity
from tailbind.table.audit import RULES, Audit, audit
from tailbind.table.audit.contract import ERROR, INFO, WARNING, Finding, rows_by
from tailbind.table.audit.repeats import FEWEST_AT_FLOOR
from tailbind.table.fixing import BESIDE, LEFT_OUT, Fixed, fix
from tailbind.table.grouping import FAMILY_IDENTITY
from tailbind.table.reading import read_table
from tailbind.table.schema import ABOVE, BELOW, SEQUENCES, AffinityTable

#: Sequences that the page's picture of nearest neighbours looks up, drawn at random where there are more.
SAMPLED: Final = 2_000
#: A limit is shown in the picture where this share of a source's marked rows have it.
SHARED_LIMIT: Final = 0.1
THE_TABLE: Final = "the table"
WHOLE: Final = "whole table"


@dataclass(frozen=True)
class Check:
    """A table and what its audit found.

    Attributes
    ----------
    table : as read
    audit : the findings
    fixed : the table put right, None where that was not asked for
    """

    table: AffinityTable
    audit: Audit
    fixed: Fixed | None = None

    def document(self) -> dict[str, Any]:
        """Return the audit as JSON-able values, with what was fixed."""
        document = self.audit.document(self.table.frame["row_id"])
        return document if self.fixed is None else {**document, "fixed": self.fixed.counts}


def check(
    data: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    fix_to: str | Path | None = None,
    numbering: bool = True,
    cache: bool = True,
    notify: Callable[[str], None] = lambda _: None,
) -> Check:
    """Audit a table of measured affinities before anyone trains on it.

    Parameters
    ----------
    data : CSV, TSV or Parquet file, or several
    out : new folder for `audit.html`, `audit.txt`, `audit.json` and `flagged_rows.csv`; none unless given
    fix_to : new Parquet file for the table put right; what it leaves out goes to `….left_out.parquet` beside it
    numbering : also number the chains, which takes seconds the first time
    cache : take a long table from the user's cache, as `read_table` does
    notify : told what reading and fixing did, a sentence at a time

    Raises
    ------
    TailbindError
        In one line, where the table cannot be read or a result not be written.
    """
    folder = None if out is None else Path(out)
    target = None if fix_to is None else Path(fix_to)
    if folder is not None:
        check_empty(folder)
    if target is not None:
        _check_target(target)
    everything = read_table(
        data, feature_prefix=None, check_range=False, keep_everything=target is not None, cache=cache
    )
    labelled = everything.frame["pkd"].is_not_null()
    table = everything.take(labelled.to_numpy())
    for line in table.report.lines():
        notify(line)
    if not len(table):
        raise TableError(f"{', '.join(table.report.files)} must have rows with a label; it has none.")
    if target is not None and (again := [name for name in (*BESIDE, *LEFT_OUT) if name in table.frame.columns]):
        raise TableError(
            f"{', '.join(table.report.files)} must not have the columns that --fix adds; it has {', '.join(again)}. "
            "Is it a cleaned table already? Start from the original, or rename them."
        )
    found = audit(table, numbering=numbering)
    unlabelled = everything.frame.filter(~labelled)
    result = Check(table, found, None if target is None else fix(table, found, unlabelled))
    if target is not None and result.fixed is not None:
        _write_fixed(result.fixed, target)
        for line in fixed_lines(result.fixed, target):
            notify(line)
    if folder is not None:
        _write(result, folder)
    return result


def left_out_beside(target: Path) -> Path:
    """Return where the rows that a cleaned table leaves out go.

    >>> left_out_beside(Path("clean.parquet")).name
    'clean.left_out.parquet'
    """
    return target.with_name(f"{target.stem}.left_out.parquet")


def _check_target(target: Path) -> None:
    if target.suffix != ".parquet":
        raise RunError(f"--fix must name a .parquet file; got {target}.")
    for file in (target, left_out_beside(target)):
        if file.exists():
            raise RunError(f"--fix {target} must be new; {file} exists. Choose another name or remove it.")
    if not target.parent.is_dir():
        raise RunError(f"--fix {target} must be in an existing folder; there is no {target.parent}. Make it first.")


def _write_fixed(fixed: Fixed, target: Path) -> None:
    """Write the rows left out, then the cleaned table."""
    beside = left_out_beside(target)
    with writing(beside) as handle:
        fixed.left_out.write_parquet(handle)
    try:
        with writing(target) as handle:
            fixed.cleaned.write_parquet(handle)
    except BaseException:
        beside.unlink(missing_ok=True)  # alone it would stand in the way of trying again
        raise


def fixed_lines(fixed: Fixed, target: Path) -> list[str]:
    """Return what fixing did, a sentence a line."""
    counts = dict(fixed.counts)
    kept, merged, swapped = counts.pop("kept"), counts.pop("merged"), counts.pop("swapped")
    marks = [f"{counts.pop(key):,} labels {key}" for key in ("marked <", "marked >") if counts[key]]
    counts = {key: count for key, count in counts.items() if count and not key.startswith("marked")}
    done = [
        *marks,
        *([f"{merged:,} rows merged into others of their pair"] if merged else []),
        *([f"chains exchanged in {swapped:,}"] if swapped else []),
        *(f"{count:,} left out: {reason}" for reason, count in counts.items()),
    ]
    lines = [f"{target}: {kept:,} rows kept; {'; '.join(done) or 'nothing to change'}."]
    if kept < merged + sum(counts.values()):
        lines.append("Warning: most rows were left out. Read the findings: the source may need one correction instead.")
    if merged or counts:
        lines.append(f"{left_out_beside(target)}: the rows left out, each with its reason.")
    return lines


def _write(result: Check, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report = check_report(result)
    write_json(folder / "audit.json", result.document())
    with writing(folder / "flagged_rows.csv") as handle:
        result.audit.flagged(result.table.frame["row_id"]).write_csv(handle)
    write_text(folder / "audit.txt", report.text())
    page = Report(**{**vars(report), "pictures": _pictures(result)})
    write_text(folder / "audit.html", page.html())


def headline(found: Audit) -> str:
    """Return the outcome of an audit in a sentence or two."""
    errors, warnings = found.count(ERROR), found.count(WARNING)
    size = f"{found.n_rows:,} rows from {found.n_sources:,} {'source' if found.n_sources == 1 else 'sources'}"
    if not errors and not warnings:
        looked = f" by the {len(RULES) - len(found.skipped)} rules that could look" if found.skipped else ""
        words = f"nothing was found{looked} that would mislead a model"
    else:
        words = " and ".join(
            f"{count:,} {name if count == 1 else f'{name}s'}"
            for count, name in ((errors, "error"), (warnings, "warning"))
            if count
        )
    return f"{size}: {words}."


def brief(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return of an audit's document what a run's report shows."""
    shown = ("severity", "rule", "source", "n_rows")
    findings = [{key: entry[key] for key in shown} for entry in document["findings"]]
    return {
        **{key: document[key] for key in ("errors", "warnings", "notes", "suspected_floors_in_training")},
        "findings": findings,
    }


def findings_table(found: Audit) -> Table:
    """Return the findings in brief: severity, rule, source, rows."""
    rows = tuple(
        (entry.severity, entry.rule.replace("_", " "), entry.source or WHOLE, f"{entry.n_rows:,}")
        for entry in found.findings
    )
    return Table("Findings", ("Severity", "Rule", "Source", "Rows"), rows or (("none", "–", "–", "0"),))


def check_report(result: Check) -> Report:
    """Return the report of a check, without its pictures."""
    found = result.audit
    facts = [("Files", ", ".join(found.files))]
    facts += [(f"Not looked at: {rule.replace('_', ' ')}", reason) for rule, reason in found.skipped.items()]
    if result.fixed is not None:
        facts += [(f"Fixed: {what}", f"{count:,} rows") for what, count in result.fixed.counts.items() if count]
    return Report(
        title=f"Audit of {', '.join(found.files)}",
        subtitle="What a model would learn wrongly from this table",
        headline=headline(found),
        tiles=[
            ("Errors", str(found.count(ERROR)), "labels or sequences that are wrong"),
            ("Warnings", str(found.count(WARNING)), "what misleads a model unless told"),
            ("Rows", f"{found.n_rows:,}", f"{found.n_sources:,} sources"),
        ],
        tables=[findings_table(found)],
        findings=[(_title(entry), f"{entry.evidence} {entry.effect}", entry.fix) for entry in found.findings],
        findings_title="Each finding",
        facts=facts,
        facts_title="The audit",
    )


def _title(finding: Finding) -> str:
    return f"{finding.severity}: {finding.rule.replace('_', ' ')}, {finding.source or WHOLE} ({finding.n_rows:,} rows)"


def _pictures(result: Check) -> dict[str, bytes]:
    """Return caption → PNG: labels by source, bins by source, families, and the nearest other row."""
    table, found = result.table, result.audit
    sources = {name or THE_TABLE: rows for name, rows in rows_by(table.frame["source"]).items()}
    pkd = table.pkd
    marks: dict[str, list[tuple[float, int, str]]] = {}
    for entry in found.named("floor", "ceiling"):
        marks.setdefault(entry.source or THE_TABLE, []).append((entry.numbers["value"], entry.n_rows, entry.rule))
    for name, rows in sources.items():
        marks.setdefault(name, []).extend(_marked_limits(pkd[rows], table.relation[rows]))
    flagged = {entry.source or THE_TABLE for entry in found.named("not_pkd", "other_scale")}
    bins = bin_index(pkd)
    composition = {name: np.bincount(bins[rows], minlength=len(BIN_NAMES)).tolist() for name, rows in sources.items()}
    from tailbind.reporting import audit_plots  # matplotlib, for which a check without a page does not wait
    from tailbind.reporting.drawing import png

    pictures = {
        "Labels by source, with floors marked or suspected": png(
            audit_plots.label_histograms({name: pkd[rows] for name, rows in sources.items()}, marks, flagged)
        ),
        "Who makes each affinity bin": png(audit_plots.bin_composition(composition)),
    }
    if sizes := _family_sizes(table):
        chain, counts = sizes
        pictures[f"Families of near-identical {chain} chains (90 %)"] = png(
            audit_plots.family_sizes(counts, len(table))
        )
    nearest, sampled = _nearest(table)
    if nearest:
        pictures["Identity to the nearest other row"] = png(audit_plots.nearest_identity(nearest, sampled))
    return pictures


def _marked_limits(pkd: NDArray[np.float64], relation: NDArray[np.str_]) -> list[tuple[float, int, str]]:
    """Return the limits that a source's own marks name: (value, rows, floor or ceiling), each that many rows share."""
    limits = []
    for mark, word in ((BELOW, "floor"), (ABOVE, "ceiling")):
        values, counts = np.unique(pkd[relation == mark], return_counts=True)
        if len(counts) and counts.max() >= max(FEWEST_AT_FLOOR, SHARED_LIMIT * counts.sum()):
            limits.append((float(values[counts.argmax()]), int(counts.max()), word))
    return limits


def _family_sizes(table: AffinityTable) -> tuple[str, NDArray[np.float64]] | None:
    for chain in ("heavy", "light"):
        if (table.frame[chain] != "").any():
            try:
                families = cluster(table.frame[chain].to_list(), FAMILY_IDENTITY)
            except SequenceError:
                return None
            return chain, np.sort(np.bincount(families[families >= 0]))[::-1].astype(np.float64)
    return None


def _nearest(table: AffinityTable) -> tuple[Mapping[str, NDArray[np.float64]], int | None]:
    """Return chain → identity to the nearest other row, for a sample of rows, and the sample's size."""
    rng = np.random.default_rng(0)
    rows = np.arange(len(table))
    sampled = SAMPLED if len(rows) > SAMPLED else None
    if sampled is not None:
        rows = np.sort(rng.choice(rows, sampled, replace=False))
    nearest = {}
    for chain in SEQUENCES:
        column = table.frame[chain]
        if (column != "").any():
            nearest[chain] = nearest_identity(column.gather(rows).to_list(), column.to_list(), exclude_itself=True)
    return nearest, sampled


def show(result: Check, console: Console) -> None:
    """Print the findings as a table, and what each asks for."""
    found = result.audit
    colours = {ERROR: "bold red", WARNING: "yellow", INFO: "dim"}
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, expand=True, pad_edge=False)
    table.add_column("Severity", no_wrap=True)
    table.add_column("Rule and source", ratio=3, min_width=11, overflow="fold")
    table.add_column("Rows", justify="right", no_wrap=True)
    table.add_column("Evidence", ratio=6)
    table.add_column("Fix", ratio=5)
    for entry in found.findings:
        table.add_row(
            Text(entry.severity, style=colours[entry.severity]),
            Text(f"{entry.rule.replace('_', ' ')}\n{entry.source or WHOLE}"),
            f"{entry.n_rows:,}",
            Text(entry.evidence),
            Text(entry.fix),
            end_section=True,
        )
    if found.findings:
        console.print(table)
    for rule, reason in found.skipped.items():
        console.print(f"Not looked at ({rule}): {reason}", highlight=False, markup=False, soft_wrap=True)
    console.print(headline(found), highlight=False, markup=False, soft_wrap=True)


def check_json(result: Check) -> str:
    """Return the document of a check as JSON text."""
    return to_json(result.document())
