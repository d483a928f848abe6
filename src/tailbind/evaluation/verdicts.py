"""Verdicts on a probed model: a question, yes, partly, barely or no, and the figures that say so in a sentence.

Every answer is held against what was measured, as `tailbind.evaluation.probing` counts it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tailbind.evaluation.probing import FEWEST_PAIRS, NOISE_PKD

YES, PARTLY, BARELY, NO, UNKNOWN = "yes", "partly", "barely", "no", "unknown"

#: From the worst to the best.
GRADES: Final = (NO, BARELY, PARTLY, YES)

#: What stands for the SD of measured single mutants in a table that has none: a usual one.
USUAL_SD: Final = 0.5

#: A model has collapsed on mutants with so few distinct answers among them, or so small a spread beside the measured.
COLLAPSED_DISTINCT: Final = 0.01
COLLAPSED_SPREAD: Final = 0.05
#: Its changes beside the measured ones, and their correlation: below the first it does not see them, below the second
#: barely, below the third partly.
SEES_NOT, SEES_BARELY, SEES_PARTLY = 0.1, 0.3, 0.5
#: Share of its answers that the two letters tell, wherever they are, from which it does not tell places apart. A model
#: that knows a few places alone may come near: there these have letters that are rare elsewhere.
PLACES_NOT: Final = 0.95
#: CDRs weigh more than frameworks where a change in one counts so many times one in the other.
CDRS_WEIGH: Final = 1.25
#: Share of substitutions new to training that leave the prediction as it was, from which it is silent on them.
SILENT: Final = 0.5
#: Share of rows flagged from which a model that does not answer nonsense by its prediction is taken to have said so.
FLAGGED: Final = 0.9


@dataclass(frozen=True)
class Verdict:
    """One question, and what the answers say.

    Attributes
    ----------
    key : for programs
    question : for people
    answer : yes, partly, barely, no or unknown
    evidence : the figures, in a sentence
    decides : whether a no, or a barely, is one of the whole model
    """

    key: str
    question: str
    answer: str
    evidence: str
    decides: bool = False

    def document(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return asdict(self)


def judge(figures: Mapping[str, Any]) -> list[Verdict]:
    """Return the verdicts on a probed model.

    Parameters
    ----------
    figures : `scan`, and where the model tells them apart `scan_seen` and `scan_new`, of substitutions that training
        had and had not; `scan_measured` and `mutants_measured`, as `changes` gives them, of the measured single mutants
        of the scanned antibodies' sources and antigens, and of all; `mutants` and `antigens`, as `agreement` gives
        them, of held-out ones; `regions` and `regions_measured` (as `by_region`); per probe of `probes` those of
        `changes` with `share_flagged`; `n_antigens`. A probe that could not be made is left out
    """
    measured = yardstick(figures)
    enough, scale = measured is not None, measured or USUAL_SD
    against = f"the measured ones {_n(measured)}" if enough else f"{USUAL_SD} would be usual; none were measured"
    probes = figures["probes"]
    return [
        _collapse(judged_scan(figures), figures["mutants"], scale, against),
        _order(figures["mutants"]),
        _size(figures["mutants"]),
        _new(figures, scale),
        _places(figures["scan"]),
        _antigen(probes, figures["antigens"], figures["n_antigens"]),
        _regions(figures.get("regions", {}), figures.get("regions_measured", {})),
        _cdrs(probes.get("cdrs_to_alanine"), scale, enough),
        _chains(probes.get("chains_exchanged"), scale),
    ]


def _graded(share: float) -> str:
    """Return the answer that a share of what was measured, or a correlation with it, gives."""
    return NO if share < SEES_NOT else BARELY if share < SEES_BARELY else PARTLY if share < SEES_PARTLY else YES


def passes(verdicts: Sequence[Verdict]) -> bool:
    """Return whether no verdict that decides is a no or a barely."""
    return not any(verdict.decides and verdict.answer in (NO, BARELY) for verdict in verdicts)


def judged_scan(figures: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the figures of the substitutions that training had, where there are enough of them, else of all."""
    seen = figures.get("scan_seen")
    chosen: Mapping[str, Any] = seen if seen is not None and seen["n"] >= FEWEST_PAIRS else figures["scan"]
    return {**chosen, "kind": " that training had" if chosen is seen else ""}


def yardstick(figures: Mapping[str, Any]) -> float | None:
    """Return the SD of the measured single mutants that answers are held against, in pKd; None where there are few.

    Those of the scanned antibodies' sources and antigens, where there are enough of them, else all.
    """
    beside = figures["scan_measured"]
    measured = beside if beside["n"] >= FEWEST_PAIRS else figures["mutants_measured"]
    return float(measured["sd"]) if measured["n"] >= FEWEST_PAIRS else None


def why_no_swap(n_antigens: int) -> str:
    """Return why no test row could be given another antigen, of a table with so many.

    >>> why_no_swap(1)
    'the table has one antigen'
    """
    if n_antigens > 1:
        return "the test rows name no antigen"
    return "the table has one antigen" if n_antigens else "the table names no antigen"


def _as_measured(order: float, interval: Sequence[float] | None) -> str:
    """Return the answer that a correlation with what was measured gives: no where it may be chance, else barely on."""
    chance = order <= 0 or (interval is not None and interval[0] <= 0)
    return NO if chance else max(_graded(order), BARELY, key=GRADES.index)


def _limits(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" ({_n(interval[0])} to {_n(interval[1])})"


def _collapse(found: Mapping[str, Any], mutants: Mapping[str, Any], scale: float, against: str) -> Verdict:
    question = "Does it answer single mutants differently?"
    n, distinct, sd = found["n"], found["distinct"], found["sd"]
    if not n:
        return Verdict("responds", question, UNKNOWN, "No mutant could be predicted.", decides=True)
    collapsed = distinct <= max(COLLAPSED_DISTINCT * n, found["n_antibodies"]) or sd < COLLAPSED_SPREAD * scale
    # Which of all substitutions would matter nobody measured; the same mutants, measured and predicted, say more.
    held_out = mutants["ratio"] if mutants["n"] >= FEWEST_PAIRS else None
    share = sd / scale if held_out is None else held_out
    answer = NO if collapsed else BARELY if share < SEES_BARELY else PARTLY if share < SEES_PARTLY else YES
    word = {NO: "Collapsed", BARELY: "Hardly moved", PARTLY: "Moved somewhat", YES: "Moved"}[answer]
    evidence = (
        f"{word}: {n:,} substitutions{found['kind']}, in "
        f"{_count(found['n_antibodies'], 'training antibody', 'training antibodies')}, have "
        f"{_count(distinct, 'distinct answer', 'distinct answers')} (SD {_n(sd)} pKd; {against})."
    )
    return Verdict("responds", question, answer, evidence, decides=True)


def _order(found: Mapping[str, Any]) -> Verdict:
    question = "Does it know which mutations matter?"
    if found["n"] < FEWEST_PAIRS:
        evidence = f"The test rows have {found['n']:,} measured single mutants; {FEWEST_PAIRS} are needed."
        return Verdict("order", question, UNKNOWN, evidence, decides=True)
    order, interval = found["spearman"], found["interval"]
    if order is None:
        what = "they were all measured alike" if not found["constant"] else "it predicts no change for any"
        answer = NO if found["constant"] else UNKNOWN
        evidence = f"Of {found['n']:,} held-out single mutants, {what}."
        return Verdict("order", question, answer, evidence, decides=True)
    answer = _as_measured(order, interval)
    word = {NO: "Blind to mutations", YES: "Sees mutations"}.get(answer, f"{answer.capitalize()} sees mutations")
    signs = ""
    if found["n_signs"]:
        signs = (
            f"; the sign is right for {_percent(found['sign_agreement'])} of the {found['n_signs']:,} that moved by "
            f"more than {NOISE_PKD} (always saying the commoner one: {_percent(found['commonest_sign'])})"
        )
    known = found.get("spearman_blosum62")
    letters = "" if known is None else f"; BLOSUM62, which knows no data, has {_n(known)}"
    evidence = (
        f"{word}: Spearman {_n(order)}{_limits(interval)} of predicted and measured ΔpKd on {found['n']:,} held-out "
        f"single mutants{letters}{signs}."
    )
    return Verdict("order", question, answer, evidence, decides=True)


def _size(found: Mapping[str, Any]) -> Verdict:
    question = "Are its changes as large as the measured ones?"
    ratio = found["ratio"]
    if found["n"] < FEWEST_PAIRS or ratio is None:
        return Verdict("size", question, UNKNOWN, "Too few measured single mutants are in the test rows.")
    answer = _graded(ratio)
    evidence = (
        f"On the same mutants its ΔpKd have an SD of {_n(found['sd_predicted'])}, the measured ones of "
        f"{_n(found['sd_measured'])}: {_n(ratio)} times as large."
    )
    return Verdict("size", question, answer, evidence)


def _new(figures: Mapping[str, Any], scale: float) -> Verdict:
    question = "Does it answer substitutions that training never had?"
    new = figures.get("scan_new")
    if new is None:
        return Verdict("new", question, UNKNOWN, "It does not tell which those are, and answers all of them.")
    if not new["n"]:
        return Verdict("new", question, UNKNOWN, "Training had them all.")
    answer = NO if new["share_unmoved"] >= SILENT else BARELY if new["sd"] < SEES_BARELY * scale else YES
    evidence = (
        f"{new['n']:,} of {figures['scan']['n']:,} substitutions are new to it, and flagged as such; "
        f"{_percent(new['share_unmoved'])} of these leave the prediction as it was (SD {_n(new['sd'])} pKd)."
    )
    return Verdict("new", question, answer, evidence)


def _places(found: Mapping[str, Any]) -> Verdict:
    question = "Does it tell one place from another?"
    told = found["told_by_letters"]
    if told is None:
        return Verdict("places", question, UNKNOWN, "Its answers to mutants do not differ enough to say.", decides=True)
    answer = NO if told >= PLACES_NOT else YES
    evidence = (
        f"Which residue became which tells {_percent(told)} of the variance of its answers to mutants, wherever in the "
        "chain that is."
    )
    return Verdict("places", question, answer, evidence, decides=True)


def _antigen(probes: Mapping[str, Any], found: Mapping[str, Any], n_antigens: int) -> Verdict:
    question = "Does it see which antigen it is?"
    swapped, removed, other = (probes.get(way) for way in ("antigen_swapped", "antigen_removed", "antibody_swapped"))
    if not swapped or not swapped["n"]:
        why = why_no_swap(n_antigens)
        gone = f" Removing it moves predictions by {_move(removed)}." if removed and removed["n"] else ""
        so = "there is none to swap" if n_antigens > 1 else "nothing can be learned of others"
        evidence = f"{why[0].upper()}{why[1:]}: {so}.{gone}"
        return Verdict("antigen", question, UNKNOWN, evidence, decides=True)
    enough = found["n"] >= FEWEST_PAIRS and bool(found["median_absolute_measured"])
    scale = found["median_absolute_measured"] if enough else USUAL_SD
    share, order, interval = swapped["median_absolute"] / scale, found["spearman"], found["interval"]
    answer = _graded(share)
    word = {NO: "Blind to the antigen", YES: "Sees the antigen"}.get(answer, f"{answer.capitalize()} sees the antigen")
    if order is not None and answer != NO:
        as_measured = _as_measured(order, interval)
        if GRADES.index(as_measured) < GRADES.index(answer):
            how = "not" if as_measured == NO else as_measured
            answer, word = as_measured, f"Moves with the antigen, but {how} as measured"
    evidence = f"{word}: swapping it for another row's moves predictions by {_move(swapped)}"
    if removed and removed["n"]:
        evidence += f", removing it by {_n(removed['median_absolute'])}"
    if other and other["n"]:
        evidence += f", swapping the antibody by {_n(other['median_absolute'])}"
    if not enough:
        evidence += ". Too few antibodies were measured against two antigens to hold it against."
        return Verdict("antigen", question, answer, evidence, decides=True)
    evidence += f". One antibody's measured pKd differ by {_n(scale)} from antigen to antigen"
    if order is not None:
        evidence += f"; Spearman {_n(order)}{_limits(interval)} of those differences on {found['n']:,} held-out pairs"
    return Verdict("antigen", question, answer, f"{evidence}.", decides=True)


def _regions(found: Mapping[str, Any], measured: Mapping[str, Any]) -> Verdict:
    question = "Do CDRs weigh more than frameworks?"
    cdr, framework = (_of_kind(found, kind) for kind in ("CDR", "FR"))
    if cdr is None or framework is None:
        return Verdict("regions", question, UNKNOWN, "Where the CDRs are is not known here.")
    ratio = cdr / framework if framework > 0 else float("inf")
    answer = NO if ratio < 1 else BARELY if ratio < CDRS_WEIGH else YES
    evidence = (
        f"A substitution in a CDR moves predictions by {_n(cdr)} on average, one in a framework by {_n(framework)}"
    )
    sides = [_of_kind(measured, kind) for kind in ("CDR", "FR")]
    if None not in sides:
        evidence += f"; measured ones by {_n(sides[0])} and {_n(sides[1])}"
        if sides[0] is not None and sides[1] is not None and sides[0] < sides[1]:
            answer = UNKNOWN  # the table's own mutants do not say so
    return Verdict("regions", question, answer, f"{evidence}.")


def _of_kind(regions: Mapping[str, Any], kind: str) -> float | None:
    """Return the mean size of changes in all CDRs, or in all frameworks; None below `FEWEST_PAIRS` of them."""
    of_kind = [entry for name, entry in regions.items() if f" {kind}" in f" {name}" and entry["n"]]
    n = sum(entry["n"] for entry in of_kind)
    return sum(entry["n"] * entry["mean_absolute"] for entry in of_kind) / n if n >= FEWEST_PAIRS else None


def _cdrs(found: Mapping[str, Any] | None, scale: float, enough: bool) -> Verdict:
    question = "Does an antibody without its CDRs bind worse?"
    if found is None or not found["n"]:
        return Verdict("cdrs", question, UNKNOWN, "Where the CDRs are is not known here.")
    fall = -found["median"]
    answer = YES if fall >= scale else BARELY if fall >= SEES_NOT * scale else NO
    evidence = (
        f"All CDRs to alanine: predictions of {found['n']:,} antibodies change by {_n(found['median'], '+')} pKd in "
        f"the median, and fall for {_percent(found['share_down'])}; "
        f"{'a typical' if enough else 'a usual'} single mutant's SD is {_n(scale)}{_flagged(found)}."
    )
    return Verdict("cdrs", question, answer, evidence)


def _chains(found: Mapping[str, Any] | None, scale: float) -> Verdict:
    question = "Does it notice heavy and light exchanged?"
    if found is None or not found["n"]:
        return Verdict("chains", question, UNKNOWN, "No row has both a heavy and a light chain.")
    moved = found["median_absolute"] >= scale
    said = (found["share_flagged"] or 0.0) >= FLAGGED
    answer = YES if moved or said else BARELY if found["median_absolute"] >= SEES_NOT * scale else NO
    evidence = (
        f"Heavy and light exchanged: predictions move by {_move(found)}, to weaker binding for "
        f"{_percent(found['share_down'])}{_flagged(found)}."
    )
    return Verdict("chains", question, answer, evidence)


def _flagged(found: Mapping[str, Any]) -> str:
    share = found["share_flagged"]
    return "" if share is None else f"; {_percent(share)} are flagged as something training never saw"


def _move(found: Mapping[str, Any]) -> str:
    return f"{_n(found['median_absolute'])} pKd in the median of {found['n']:,}"


def _n(value: float | None, sign: str = "") -> str:
    """Return a figure in pKd with two decimals, three where it is small."""
    if value is None:
        return "–"
    digits = 3 if 0 < abs(value) < 0.0995 else 2
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}".replace("-", "−")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"
