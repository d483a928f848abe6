"""How a run does inside what its training knew, at the edge of it and outside, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tailbind.evaluation.domains import DOMAINS
from tailbind.reporting.tables import NOTHING, Table, number

#: The RMSE of fewer rows says little: two in three times that of as many others is within 13 % of it, if errors are
#: as the bell curve has them; theirs are not.
FEW: Final = 30


def domain_table(figures: Mapping[str, Any] | None) -> list[Table]:
    """Return the errors by domain with what each means; nothing for results of earlier versions.

    Parameters
    ----------
    figures : `domain` of `metrics.json`: `limits`, `rows`, and `test` by domain
    """
    if figures is None:
        return []
    test = figures["test"]
    rows = tuple(
        (word, f"{entry['n']:,}", number(entry["rmse"]), number(entry["mae"]), number(entry["bias"]))
        if (entry := test[word])
        else (word, "0", *[NOTHING] * 3)
        for word in DOMAINS
    )
    measured = "Measured test rows. " if figures["rows"] == "measured" else ""
    note = f"{measured}{_limits(figures['limits'])} {_caveat(test)}".strip()
    return [Table("How near training the test rows are", ("Domain", "n", "RMSE", "MAE", "Bias"), rows, note)]


def _limits(limits: Mapping[str, Any]) -> str:
    """Return in words from where a row is inside, and where it ends to be at the edge."""
    names = {"antibody_identity": "antibody", "antigen_identity": "antigen"}
    known = [(names[key], limits[key]) for key in names if limits[key]]
    low, high = limits["predicted_pkd"]
    beyond = f"predicted below pKd {low:.1f} or above {high:.1f}"
    if limits["distance"] is not None:
        own = limits["distance"]
        return (
            f"Inside: features no farther than {own['inside']:.1f} from those of training, as those of 95 % of the "
            f"validation rows are; outside: farther than {own['edge']:.1f}, or {beyond}."
        )
    if not known:
        return f"Outside: {beyond}."
    inside = " and ".join(f"{name} {_percent(entry['inside'])} identical" for name, entry in known)
    outside = " or ".join(f"{name} less than {_percent(entry['edge'])}" for name, entry in known)
    return (
        f"Inside: {inside} to the nearest of training, or more, and nothing that training never saw; outside: "
        f"{outside} identical, or {beyond}."
    )


def _percent(share: float) -> str:
    """Return a share in percent, rounded so that it stays at or below what it is.

    >>> _percent(0.98765), _percent(1.0)
    ('98.7 %', '100 %')
    """
    tenths = int(1000 * share + 1e-6)
    return f"{tenths // 10} %" if not tenths % 10 else f"{tenths / 10:.1f} %"


def _caveat(test: Mapping[str, Any]) -> str:
    """Return what the figures cannot tell: of domains with no test rows, or few."""
    absent = [word for word in DOMAINS if not test[word]]
    few = [word for word in DOMAINS if test[word] and test[word]["n"] < FEW]
    told: list[str] = []
    if absent:
        told.append(f"No test rows are {_listed(absent)}: nothing is known of the error there.")
    if few:
        told.append(f"Fewer than {FEW} are {_listed(few)}: that figure may be far off.")
    return " ".join(told)


def _listed(words: Sequence[str]) -> str:
    return " or ".join(["at the edge" if word == "edge" else word for word in words])
