"""What a rule is handed, and what it hands back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.sequences.clustering import cluster
from tailbind.sequences.numbering import Domain, number
from tailbind.table.grouping import FAMILY_IDENTITY, has_antibodies, numbered, pair_index
from tailbind.table.schema import LABELS, MEASURED, AffinityTable, normalise

Rows = NDArray[np.intp]

ERROR, WARNING, INFO = "error", "warning", "info"
SEVERITIES: Final = (ERROR, WARNING, INFO)

#: What `fix` does about the rows of a finding; "" where that is a person's decision.
EXCLUDE, BELOW_FLOOR, ABOVE_CEILING, MERGE, SWAP = "exclude", "floor", "ceiling", "merge", "swap"

#: A source of fewer rows is too small to say anything about how its values are distributed.
FEWEST_OF_SOURCE: Final = 10
#: Row ids that a document lists for a finding; the flagged rows' own file has all.
EXAMPLES: Final = 20


@dataclass(frozen=True)
class Finding:
    """Something about a table that a person should know before training on it.

    Attributes
    ----------
    rule : name of the rule that found it
    severity : "error" (the labels or sequences are wrong), "warning" (a model will be misled unless told) or
        "info" (a limit of what can be learned)
    source : the data set it is about, "" for the whole table
    rows : (n,) row numbers it is about
    evidence : what was found, in words and numbers
    numbers : the same figures by name
    effect : what it does to a model
    fix : what to do
    action : what `fix` does about it, "" for nothing; but replicates it merges whether a finding says so or not
    """

    rule: str
    severity: str
    source: str
    rows: Rows
    evidence: str
    numbers: Mapping[str, Any]
    effect: str
    fix: str
    action: str = ""

    @property
    def n_rows(self) -> int:
        """How many rows it is about."""
        return len(self.rows)

    def document(self, row_ids: pl.Series) -> dict[str, Any]:
        """Return the finding as JSON-able values, with some of its `row_ids`."""
        return {
            "rule": self.rule,
            "severity": self.severity,
            "source": self.source,
            "n_rows": self.n_rows,
            "evidence": self.evidence,
            "numbers": dict(self.numbers),
            "effect": self.effect,
            "fix": self.fix,
            "action": self.action,
            "row_ids": row_ids.gather(self.rows[:EXAMPLES]).to_list(),
        }


@dataclass(frozen=True)
class Examined:
    """A table under examination: what several rules need is worked out once.

    Attributes
    ----------
    table : the table
    """

    table: AffinityTable

    @property
    def frame(self) -> pl.DataFrame:
        """The table's canonical columns."""
        return self.table.frame

    @cached_property
    def pkd(self) -> NDArray[np.float64]:
        """(n_samples,) pKd."""
        return self.table.pkd

    @cached_property
    def measured(self) -> NDArray[np.bool_]:
        """(n_samples,) whether the label is stated as measured."""
        return np.asarray(self.table.relation == MEASURED)

    @property
    def states_delta_g(self) -> bool:
        """Whether the labels were converted from a column of ΔG."""
        own = normalise(self.table.report.columns.get("pkd", ""))
        return LABELS.get(own, ("", ""))[0] == "delta_g"

    @cached_property
    def sources(self) -> dict[str, Rows]:
        """Data set → its rows, in order of appearance; "" is the whole table where none is named."""
        return rows_by(self.frame["source"])

    @cached_property
    def has_antibodies(self) -> bool:
        """Whether any row has a heavy or light sequence."""
        return has_antibodies(self.frame)

    @cached_property
    def pairs(self) -> NDArray[np.intp]:
        """(n_samples,) number of each row's antibody-antigen pair; every row its own where there are no sequences."""
        return pair_index(self.frame) if self.has_antibodies else np.arange(len(self.frame))

    @cached_property
    def antibodies(self) -> NDArray[np.intp]:
        """(n_samples,) number of each row's antibody, its heavy and light sequence together."""
        return numbered(self.frame.select("heavy", "light"))

    @cached_property
    def antigens(self) -> NDArray[np.intp]:
        """(n_samples,) number of each row's antigen: its sequence, else its name, else −1."""
        key = pl.when(pl.col("antigen") != "").then(pl.col("antigen")).otherwise(pl.format("name {}", "antigen_name"))
        known = self.frame.select((pl.col("antigen") != "") | (pl.col("antigen_name") != "")).to_series().to_numpy()
        return np.where(known, numbered(self.frame.select(key.alias("antigen"))), -1).astype(np.intp)

    @cached_property
    def families(self) -> dict[str, NDArray[np.intp]]:
        """Chain → (n_samples,) family of near-identical sequences, −1 where it is empty.

        Raises
        ------
        SequenceError
            Where the table is too large to cluster without an optional package.
        """
        return {chain: cluster(self.frame[chain].to_list(), FAMILY_IDENTITY) for chain in ("heavy", "light")}

    @cached_property
    def domains(self) -> dict[str, list[tuple[Domain, ...]]]:
        """Chain → the variable domains that each family's first sequence holds, in the families' order.

        Raises
        ------
        SequenceError
            Without the optional package that numbers them.
        """
        found = {}
        for chain, families in self.families.items():
            numbers, first = np.unique(families, return_index=True)
            found[chain] = number(self.frame[chain].gather(first[numbers >= 0]).to_list())
        return found

    @cached_property
    def antigen_families(self) -> NDArray[np.intp]:
        """(n_samples,) family of the antigen's sequence, else a number for its name, −1 where neither is known."""
        families = cluster(self.frame["antigen"].to_list(), FAMILY_IDENTITY)
        named = self.antigens
        return np.where(families >= 0, families, np.where(named >= 0, families.max() + 1 + named, -1))


@dataclass(frozen=True)
class Audit:
    """What the rules found.

    Attributes
    ----------
    files : the table's
    n_rows, n_sources : its size
    findings : worst first
    skipped : rule → why it could not look
    """

    files: tuple[str, ...]
    n_rows: int
    n_sources: int
    findings: tuple[Finding, ...]
    skipped: Mapping[str, str]

    @property
    def is_clean(self) -> bool:
        """Whether nothing of weight was found: no error and no warning."""
        return all(finding.severity == INFO for finding in self.findings)

    def count(self, severity: str) -> int:
        """Return how many findings are of this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def named(self, *rules: str) -> list[Finding]:
        """Return the findings of these rules."""
        return [finding for finding in self.findings if finding.rule in rules]

    def document(self, row_ids: pl.Series) -> dict[str, Any]:
        """Return the audit as JSON-able values; `row_ids` are the table's."""
        return {
            "files": list(self.files),
            "n_rows": self.n_rows,
            "n_sources": self.n_sources,
            "errors": self.count(ERROR),
            "warnings": self.count(WARNING),
            "notes": self.count(INFO),
            "findings": [finding.document(row_ids) for finding in self.findings],
            "skipped": dict(self.skipped),
        }

    def flagged(self, row_ids: pl.Series) -> pl.DataFrame:
        """Return a row per finding and row: `row_id, rule, severity, source, action`."""
        parts = [
            pl.DataFrame({"row_id": row_ids.gather(finding.rows)}).with_columns(
                pl.lit(finding.rule).alias("rule"),
                pl.lit(finding.severity).alias("severity"),
                pl.lit(finding.source).alias("source"),
                pl.lit(finding.action).alias("action"),
            )
            for finding in self.findings
        ]
        columns = ("row_id", "rule", "severity", "source", "action")
        return pl.concat(parts) if parts else pl.DataFrame(schema=dict.fromkeys(columns, pl.String))


def rows_by(values: pl.Series) -> dict[str, Rows]:
    """Return value → its row numbers, in order of appearance.

    >>> {name: rows.tolist() for name, rows in rows_by(pl.Series(["b", "a", "b"])).items()}
    {'b': [0, 2], 'a': [1]}
    """
    frame = pl.DataFrame({"value": values}).with_row_index("row")
    grouped = frame.group_by("value", maintain_order=True).agg("row")
    return {name: rows.to_numpy().astype(np.intp) for name, rows in zip(grouped["value"], grouped["row"], strict=True)}


def percent(share: float) -> str:
    """Return a share in words.

    >>> percent(0.4597), percent(0.00004)
    ('46 %', 'under 0.1 %')
    """
    if 0 < share < 0.001:
        return "under 0.1 %"
    return f"{100 * share:.{0 if share >= 0.1 else 1}f} %"


def listing(names: Sequence[str], most: int = 4) -> str:
    """Return names for a sentence, the first few and how many more.

    >>> listing(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
