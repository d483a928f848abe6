"""The audit of a table: rules that each look for one fault, and `audit`, which asks them all.

A rule is a function from an `Examined` table to findings, and one line in `RULES`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from tailbind.errors import SequenceError
from tailbind.table.audit.chains import (
    fragment,
    not_an_antibody,
    nucleotides,
    single_chain,
    stop_codon,
    swapped_chains,
    unknown_letter,
)
from tailbind.table.audit.composition import constant_antigen, dominant_family, empty_antigen, extreme_bin_source
from tailbind.table.audit.contract import SEVERITIES, Audit, Examined, Finding
from tailbind.table.audit.pairs import conflicting_replicates, exact_duplicate, overlapping_sources
from tailbind.table.audit.repeats import ceiling, floor, placeholder, relation_direction
from tailbind.table.audit.scales import impossible_value, not_pkd, unit_slip
from tailbind.table.audit.witnesses import other_scale
from tailbind.table.schema import AffinityTable

Rule = Callable[[Examined], Iterable[Finding]]

RULES: Final[Mapping[str, Rule]] = {
    rule.__name__: rule
    for rule in (
        not_pkd,
        unit_slip,
        other_scale,
        impossible_value,
        placeholder,
        floor,
        ceiling,
        relation_direction,
        exact_duplicate,
        conflicting_replicates,
        overlapping_sources,
        dominant_family,
        extreme_bin_source,
        nucleotides,
        stop_codon,
        unknown_letter,
        fragment,
        swapped_chains,
        single_chain,
        not_an_antibody,
        empty_antigen,
        constant_antigen,
    )
}
#: Rules that number one representative of every family of chains, which takes seconds the first time.
NUMBERING: Final = ("swapped_chains", "single_chain", "not_an_antibody")

__all__ = ["NUMBERING", "RULES", "Audit", "Finding", "Rule", "audit"]


def audit(table: AffinityTable, *, numbering: bool = True, notify: Callable[[str], None] = lambda _: None) -> Audit:
    """Look for every fault that the rules know.

    Parameters
    ----------
    table : with labels; features are not looked at
    numbering : also ask the rules that number representatives of the chains (`NUMBERING`)
    notify : told the name of each rule before it looks

    Returns
    -------
    Audit
        A rule that lacks an optional package is under `skipped`, with the reason; no rule changes the table.
    """
    examined = Examined(table)
    findings: list[Finding] = []
    skipped: dict[str, str] = {}
    for name, rule in RULES.items():
        if name in NUMBERING and not numbering:
            skipped[name] = "not asked to number the chains"
            continue
        notify(name)
        try:
            findings += rule(examined)
        except SequenceError as error:
            skipped[name] = str(error)
    findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), -finding.n_rows))
    return Audit(table.report.files, len(table), len(examined.sources), tuple(findings), skipped)
