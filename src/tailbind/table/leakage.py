"""How near the test rows are to the training rows: what a split lets through.

A test row that nearly equals a training row is not new, whatever the split is called. Validation rows count
as neither side: they choose the best epoch, but nothing is fitted on them and nothing is reported of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import SequenceError
from tailbind.sequences.identity import nearest_identity
from tailbind.table.grouping import has_antibodies, pair_index
from tailbind.table.parts import TEST, TRAIN, PartArray
from tailbind.table.schema import SEQUENCES

#: Identities, in percent, from which a test row's nearest training row is counted as near.
LEVELS: Final = (95, 90, 80)
#: Identity from which a chain has a near-twin.
TWIN: Final = 0.95
#: Five of a hundred letters changed is 95 %, whatever the last digit of its floating-point number says.
_ROUNDING: Final = 1e-6

Identities = NDArray[np.float64]


@dataclass(frozen=True)
class Leakage:
    """How near each test row is to training.

    Attributes
    ----------
    identities : heavy, light, antigen → (n_test,) identity to the nearest training sequence; nan where
        the row or all of training has none
    pair_in_training : (n_test,) whether a training row has the same pair; None where pairs are unknown
    why : why nothing is known, as the end of a sentence; "" where something is
    """

    identities: Mapping[str, Identities]
    pair_in_training: NDArray[np.bool_] | None
    why: str = ""

    def frame(self, row_ids: pl.Series) -> pl.DataFrame:
        """Return one row per test row: row_id, an identity per chain (null where unknown), pair_in_training."""
        return pl.DataFrame(
            {
                "row_id": row_ids,
                **{
                    f"{chain}_identity": pl.Series(values, dtype=pl.Float64).fill_nan(None)
                    for chain, values in self.identities.items()
                },
                "pair_in_training": pl.Series(
                    [None] * len(row_ids) if self.pair_in_training is None else self.pair_in_training, dtype=pl.Boolean
                ),
            }
        )

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> Self:
        """Return what `frame` wrote, for a table of which something was known."""
        pairs = frame["pair_in_training"]
        return cls(
            {chain: frame[f"{chain}_identity"].fill_null(float("nan")).to_numpy() for chain in SEQUENCES},
            None if pairs.null_count() else pairs.to_numpy().astype(np.bool_),
        )

    def summary(self) -> dict[str, Any]:
        """Return the figures, as `metrics.json` has them.

        Returns
        -------
        dict
            `known` and `why`; `n_test`; for heavy, light and antigen None or `n` (test rows with a known
            identity), `median_identity` and the shares of these n at the levels 95, 90 and 80 %;
            `exact_pairs` and `near_twins` (every known antibody chain at least 95 % identical to training):
            `n_test_rows` and `share` of all test rows, None where unknown.
        """
        n = len(next(iter(self.identities.values())))
        return {
            "known": not self.why,
            "why": self.why,
            "n_test": n,
            **{chain: _of_chain(values) for chain, values in self.identities.items()},
            "exact_pairs": _counted(self.pair_in_training),
            "near_twins": _counted(self._near_twins()),
        }

    def _near_twins(self) -> NDArray[np.bool_] | None:
        antibody = np.stack([self.identities["heavy"], self.identities["light"]])
        known = np.isfinite(antibody)
        if not known.any():
            return None
        twins: NDArray[np.bool_] = known.any(axis=0) & np.all((antibody >= TWIN - _ROUNDING) | ~known, axis=0)
        return twins


def leak_report(frame: pl.DataFrame, parts: PartArray) -> Leakage:
    """Return how near each test row is to training: each chain's nearest identity, and whether the pair is there.

    Parameters
    ----------
    frame : of the table
    parts : (n_samples,) "train", "val", "test" as a split returns them; other rows than training and test
        rows count as neither side

    Notes
    -----
    Never fails: where sequences cannot be compared here, nothing is known, and it is said why.
    """
    train, test = np.flatnonzero(parts == TRAIN), np.flatnonzero(parts == TEST)
    unknown = np.full(len(test), np.nan)
    try:
        identities = {
            chain: nearest_identity(frame[chain].gather(test).to_list(), frame[chain].gather(train).to_list())
            for chain in SEQUENCES
        }
    except SequenceError as error:
        return Leakage(dict.fromkeys(SEQUENCES, unknown), None, str(error).partition(". ")[0].rstrip("."))
    if not any(np.isfinite(values).any() for values in identities.values()):
        return Leakage(identities, None, "the table has no sequences")
    return Leakage(identities, _pairs_in_training(frame, train, test))


def _pairs_in_training(
    frame: pl.DataFrame, train: NDArray[np.intp], test: NDArray[np.intp]
) -> NDArray[np.bool_] | None:
    if not has_antibodies(frame):
        return None
    pairs = pair_index(frame)
    return np.isin(pairs[test], pairs[train])


def _of_chain(identities: Identities) -> dict[str, Any] | None:
    known = identities[np.isfinite(identities)]
    if not len(known):
        return None
    return {
        "n": len(known),
        "median_identity": float(np.median(known)),
        **{f"share_{level}": float((known >= level / 100 - _ROUNDING).mean()) for level in LEVELS},
    }


def _counted(rows: NDArray[np.bool_] | None) -> dict[str, Any] | None:
    return None if rows is None else {"n_test_rows": int(rows.sum()), "share": float(rows.mean())}


def sentence(summary: Mapping[str, Any]) -> str:
    """Return a summary in a sentence.

    >>> sentence({"known": False, "why": "the table has no sequences"})
    'Leakage: unknown; the table has no sequences.'
    """
    if not summary["known"]:
        return f"Leakage: unknown; {summary['why']}."
    chain = next(name for name in SEQUENCES if summary[name])
    what = "antigen" if chain == "antigen" else f"{chain} chain"
    of = "" if summary[chain]["n"] == summary["n_test"] else f" that have one ({summary[chain]['n']:,})"
    text = f"Leakage: {100 * summary[chain]['share_95']:.1f} % of test rows{of} have a training {what} ≥ 95 % identical"
    if (pairs := summary["exact_pairs"]) is None:
        return f"{text}."
    rows = "1 test row" if pairs["n_test_rows"] == 1 else f"{pairs['n_test_rows']:,} test rows"
    return f"{text}; exact pairs in training as well: {rows} ({100 * pairs['share']:.1f} %)."
