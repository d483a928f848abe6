"""Figures as tables of text, made once and then shown on a page, in a terminal, in a file or in a paper."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tailbind.evaluation.criteria import ALL_ROWS, LEVELS, MEASURED_ROWS, lower_is_better, metric_label, of_rows
from tailbind.evaluation.metrics import CLUSTERS, FEWEST_CLUSTERS, OVERALL, figure
from tailbind.scale import BIN_NAMES, bin_label

NOTHING: Final = "–"
#: Over the figures of all test rows, overall and by bin, where a run is judged by its measured ones.
AS_STATED: Final = ("All rows, floors counted as measured", "All rows by affinity bin, floors counted as measured")


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes
    ----------
    title : what it shows
    header : column names
    rows : a tuple of cells each
    note : a sentence under it, "" for none
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def text(self) -> str:
        """Return the table in aligned plain text: first column left, numbers right."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]

        def line(cells: tuple[str, ...]) -> str:
            first, *others = (
                cell.ljust(width) if not column else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            return "  ".join([first, *others]).rstrip()

        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        parts = [self.title, "=" * len(self.title), line(self.header), rule, *map(line, self.rows)]
        return "\n".join([*parts, self.note] if self.note else parts)

    def markdown(self) -> str:
        """Return the table in Markdown."""
        head = f"| {' | '.join(self.header)} |\n|{'|'.join(['---'] + ['---:'] * (len(self.header) - 1))}|"
        rows = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in self.rows)
        note = f"\n\n{self.note}" if self.note else ""
        return f"### {self.title}\n\n{head}\n{rows}{note}\n"

    def latex(self) -> str:
        """Return the table in LaTeX (booktabs), with its title as caption."""
        spec = "l" + "r" * (len(self.header) - 1)
        rows = "\n".join(f"    {' & '.join(_latex(cell) for cell in row)} \\\\" for row in self.rows)
        head = " & ".join(_latex(cell) for cell in self.header)
        caption = _latex(f"{self.title}. {self.note}" if self.note else self.title)
        return (
            "\\begin{table}\n  \\centering\n"
            f"  \\caption{{{caption}}}\n  \\begin{{tabular}}{{{spec}}}\n    \\toprule\n    {head} \\\\\n    \\midrule\n"
            f"{rows}\n    \\bottomrule\n  \\end{{tabular}}\n\\end{{table}}\n"
        )


_LATEX: Final = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "−": "$-$", "²": r"$^2$", "≥": r"$\geq$",
    "<": r"$<$", ">": r"$>$", "✓": r"$\checkmark$", "✗": r"$\times$", "√": r"$\sqrt{}$", "…": r"\dots{}",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure as text, a dash where there is none."""
    return NOTHING if value is None else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def interval_text(interval: Any, digits: int = 3) -> str:
    """Return an interval as text, a dash where there is none."""
    return NOTHING if interval is None else f"{number(interval[0], digits)} to {number(interval[1], digits)}"


def drawn(told: Mapping[str, Any]) -> str:
    """Return what a bootstrap drew, as the end of a sentence.

    Parameters
    ----------
    told : `by`, `n_clusters` and `why`, as intervals and comparisons have them

    Examples
    --------
    >>> drawn({"by": "clusters", "n_clusters": 143})
    'of 143 clusters of near-identical antibodies'
    >>> drawn({"by": "rows", "n_clusters": 6})
    'of rows (fewer than 20 families of antibodies)'
    """
    if told.get("by") == CLUSTERS:
        return f"of {told['n_clusters']:,} clusters of near-identical antibodies"
    if told.get("n_clusters") is not None:
        return f"of rows (fewer than {FEWEST_CLUSTERS} families of antibodies)"
    return f"of rows (families of antibodies unknown: {told['why']})" if told.get("why") else "of rows"


def overall_table(metrics: Mapping[str, Any]) -> Table:
    """Return the model's overall figures with intervals, beside the trivial baselines on the same rows.

    The rows are those that the run is judged by.
    """
    return _overall(metrics, "Overall", metrics["criteria"]["rows"])


def bin_table(metrics: Mapping[str, Any]) -> Table:
    """Return the model's figures in each affinity bin, with intervals of the RMSE and the baselines' RMSE.

    The rows are those that the run is judged by.
    """
    return _by_bin(metrics, "By affinity bin", metrics["criteria"]["rows"])


def as_stated_tables(metrics: Mapping[str, Any]) -> tuple[Table, ...]:
    """Return both of all test rows, where a run is judged by its measured ones; no table where it is by all."""
    if metrics["criteria"]["rows"] == ALL_ROWS:
        return ()
    return _overall(metrics, AS_STATED[0], ALL_ROWS), _by_bin(metrics, AS_STATED[1], ALL_ROWS)


def baseline_figures(metrics: Mapping[str, Any], rows: str) -> dict[str, Mapping[str, Any]]:
    """Return the trivial predictors' figures, of all test rows or of the measured ones; none for what there is not."""
    return {name: of_rows(entry, rows) for name, entry in metrics["baselines"].items() if entry is not None}


def _which_rows(metrics: Mapping[str, Any], rows: str) -> str:
    """Return which test rows figures are of, and whether the grade goes by them, in words."""
    measured, marked = metrics["test"]["measured"]["n"], metrics["test"]["censored"]["n"]
    if rows == MEASURED_ROWS:
        return f"n = {measured:,} measured test rows, which the grade goes by; {marked:,} marked < or > are left out"
    if metrics["criteria"]["rows"] == MEASURED_ROWS:
        return (
            f"n = {metrics['test']['n']:,} test rows, {marked:,} of them marked < or > but held against the bound "
            "itself, so that predicting below a floor is an error; the grade does not go by these figures"
        )
    return f"n = {metrics['test']['n']:,} test rows"


def _overall(metrics: Mapping[str, Any], title: str, rows: str) -> Table:
    test, baselines = of_rows(metrics["test"], rows), baseline_figures(metrics, rows)
    intervals = test.get("intervals") or {}
    names = {"training_mean": "Training mean", "source_mean": "Source mean", "ridge": "Ridge"}
    lines = tuple(
        (
            metric_label(metric),
            number(figure(test, metric)),
            interval_text(intervals.get(metric)),
            *(number(figure(entry, metric)) for entry in baselines.values()),
        )
        for metric in OVERALL
    )
    header = ("Metric", "Model", "95 % interval", *(names[name] for name in baselines))
    note = f"{_which_rows(metrics, rows)}; intervals by bootstrap {drawn(intervals)}."
    return Table(title, header, lines, note)


def _by_bin(metrics: Mapping[str, Any], title: str, rows: str) -> Table:
    test, baselines = of_rows(metrics["test"], rows), baseline_figures(metrics, rows)
    intervals = (test.get("intervals") or {}).get("bins") or {}
    names = {"training_mean": "mean", "source_mean": "source", "ridge": "ridge"}
    lines = []
    for name in BIN_NAMES:
        entry = test["bins"][name]
        if entry is None:
            lines.append((bin_label(name), "0", *[NOTHING] * (4 + len(baselines))))
            continue
        lines.append(
            (
                bin_label(name),
                f"{entry['n']:,}",
                number(entry["rmse"]),
                interval_text((intervals.get(name) or {}).get("rmse")),
                number(entry["mae"]),
                number(entry["bias"]),
                *(number(figure(baseline, f"{name}.rmse")) for baseline in baselines.values()),
            )
        )
    header = ("Bin (pKd)", "n", "RMSE", "95 % interval", "MAE", "Bias", *(f"RMSE {names[b]}" for b in baselines))
    which = "Measured test rows alone. " if rows == MEASURED_ROWS else ""
    return Table(title, header, tuple(lines), f"{which}Bias is predicted minus measured.")


def censored_table(
    test: Mapping[str, Any], ridge: Mapping[str, Any] | None = None, rows: str = ALL_ROWS
) -> tuple[Table, ...]:
    """Return the figures on measured and on censored rows apart, beside ridge regression's; no table without censored.

    Parameters
    ----------
    test : figures with `measured` and `censored`
    ridge : the same of ridge regression, where there are any
    rows : which of them the grade goes by
    """
    censored = test["censored"]
    if not censored["n"]:
        return ()
    runs = [test] if ridge is None else [test, ridge]
    measured = f"{test['measured']['n']:,} measured (=)"
    sides = [(censored["n_below"], "<"), (censored["n_above"], ">")]
    marked = f"{censored['n']:,} censored ({', '.join(sign for count, sign in sides if count)})"
    lines = (
        ("RMSE", *(number(figure(run["measured"], "rmse")) for run in runs), measured),
        ("Spearman", *(number(figure(run["measured"], "spearman")) for run in runs), measured),
        ("One-sided RMSE", *(number(run["censored"]["one_sided_rmse"]) for run in runs), marked),
        ("Predicted beyond the bound", *(f"{100 * run['censored']['share_beyond']:.1f} %" for run in runs), marked),
        (
            "Concordance",
            *(number(run["censored"]["concordance"]) for run in runs),
            f"{censored['concordance_pairs']:,} pairs",
        ),
    )
    note = (
        "One-sided: a prediction on the stated side of a bound is no error. Concordance: share of the pairs of known "
        "order that are predicted in that order. "
    )
    note += (
        "The grade goes by the measured rows."
        if rows == MEASURED_ROWS
        else "The other tables take every label as stated, and charge a model for predicting below a floor."
    )
    header = ("Metric", "Model", *(["Ridge"] if ridge is not None else []), "On")
    return (Table("Measured and censored labels", header, lines, note),)


def binders_table(test: Mapping[str, Any], ridge: Mapping[str, Any] | None = None) -> tuple[Table, ...]:
    """Return how well rows above each threshold are found, precision beside recall; no table where there are none.

    Parameters
    ----------
    test : figures with `retrieval`
    ridge : the same of ridge regression, where there are any
    """
    rows = []
    for threshold, entry in test["retrieval"].items():
        if not entry["n_binders"]:
            continue
        limits = (entry.get("intervals") or {}).get("average_precision")
        rows.append(
            (
                f"pKd ≥ {threshold}",
                f"{entry['n_binders']:,} of {entry['n']:,}",
                number(entry["prevalence"]),
                number(entry["average_precision"]),
                interval_text(limits),
                *([] if ridge is None else [number(ridge["retrieval"][threshold]["average_precision"])]),
                f"{number(entry['enrichment'], 1)} of {number(entry['most_enrichment'], 1)}",
                number(entry["precision"]),
                number(entry["recall"]),
            )
        )
    header = (
        "Binders", "n", "Prevalence", "Average precision", "95 % interval", *([] if ridge is None else ["Ridge"]),
        "Enrichment in the top 1 %", "Precision there", "Recall there",
    )  # fmt: skip
    note = (
        "Average precision of a random order is the prevalence. Enrichment is precision over prevalence, of the most "
        "that any order could have. Rows whose bound leaves open on which side they are do not count."
    )
    return (Table("Finding binders", header, tuple(rows), note),) if rows else ()


def criteria_table(criteria: Mapping[str, Any]) -> Table:
    """Return the training notebook's success criteria and whether each is met."""
    note = "Judged on the measured test rows." if criteria["rows"] == MEASURED_ROWS else ""
    rows = tuple(
        (
            f"{level.capitalize()}: {metric_label(entry['metric'])}",
            f"{'<' if lower_is_better(entry['metric']) else '>'} {entry['threshold']:g}",
            number(entry["value"]),
            _verdict(entry),
        )
        for level in LEVELS
        for entry in criteria["levels"][level]
    )
    return Table("Success criteria", ("Criterion", "Threshold", "Model", "Met"), rows, note)


def expected_table(criteria: Mapping[str, Any]) -> Table:
    """Return the training notebook's table of expected performance beside what was measured."""
    rows = tuple(
        (
            metric_label(entry["metric"]),
            number(entry["notebook_v1"], 4),
            f"{min(entry['range']):g}–{max(entry['range']):g}",
            number(entry["value"], 4),
            _verdict(entry),
        )
        for entry in criteria["expected"]
    )
    note = "v1 and the expectation are from another table, whose rows are not public: a yardstick, not a contest."
    if criteria["rows"] == MEASURED_ROWS:
        note += " Model: on the measured test rows."
    return Table("Expected performance of v2", ("Metric", "v1 there", "v2 expected", "Model", "Reached"), rows, note)


def _verdict(entry: Mapping[str, Any]) -> str:
    if entry["met"] is None:
        return "not judged (no such test rows)"
    word = "yes" if entry["met"] else "no"
    return f"{word}, interval includes threshold" if entry["clear"] is False else word
