"""Intervals of a run: calibrated on rows that nothing was learned from, kept beside the model, judged on test rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.checkpoint import CALIBRATION as CONTENT
from tailbind.checkpoint import save_state
from tailbind.evaluation.calibration import FEWEST, NONE, OWN, Applied, Conformal
from tailbind.evaluation.coverage import TAILS, came_true, coverage, interval_columns, reliability
from tailbind.models.contract import Predictive
from tailbind.models.doubt import doubt
from tailbind.run_folder import RunFolder
from tailbind.table.features import Features
from tailbind.table.grouping import has_antibodies, pair_index
from tailbind.table.parts import CALIBRATION, VALIDATION
from tailbind.table.schema import MEASURED, AffinityTable
from tailbind.workflows.blending import HeldOut
from tailbind.workflows.plan import Plan

Rows = Mapping[str, NDArray[np.intp]]

#: What intervals were calibrated on: predictions out of fold, rows of their own, or rows that chose the model too.
OUT_OF_FOLD: Final = "out_of_fold"
_WHERE: Final = {
    OUT_OF_FOLD: "training and validation rows, each predicted by what has not learned from it",
    OWN: "rows that were set apart for it",
    VALIDATION: "the validation rows, which chose the model too, so that intervals may be a little narrow",
}


@dataclass(frozen=True)
class Calibrated:
    """Intervals of a run.

    Attributes
    ----------
    conformal : what makes them
    how : what they were calibrated on, one of `out_of_fold`, `own` and `val`
    n : measured rows that calibrated them
    """

    conformal: Conformal
    how: str
    n: int

    def apply(
        self,
        features: Features,
        rows: NDArray[np.intp],
        predicted: NDArray[np.float64],
        sd: NDArray[np.float64] | None,
    ) -> Applied:
        """Return the conformal distributions of rows."""
        inputs, spread, landscape = doubt(features, rows, predicted, sd)
        return self.conformal.apply(predicted, inputs, spread, landscape)

    def save(self, run: RunFolder) -> None:
        """Keep them in a run folder."""
        save_state(run.calibration, CONTENT, {**self.conformal.state(), "calibrated": self.described()})

    def sentence(self) -> str:
        """Return what is told of them."""
        level = f"{100 * self.conformal.level:.0f} %"
        return f"Intervals of {level} calibrated on {self.n:,} measured rows: {_WHERE[self.how]}."

    def described(self) -> dict[str, Any]:
        """Return what `metrics.json` says of how they were made."""
        landscapes = len(self.conformal.scores) - 1
        return {
            "level": self.conformal.level,
            "calibrated_on": self.how,
            "n_calibration": self.n,
            "landscapes": landscapes,
        }


def calibrate(
    plan: Plan,
    table: AffinityTable,
    features: Features,
    rows: Rows,
    model: Predictive,
    held_out: HeldOut | None,
    notify: Callable[[str], None],
) -> Calibrated | None:
    """Return the intervals of a fitted model; None, and why, where there are none.

    Parameters
    ----------
    held_out : rows predicted by what has not learned from them, where a blend made such predictions
    notify : told how they were calibrated, or why there are none
    """
    options = plan.calibration
    if options.rows == NONE:
        return None
    if options.rows == OWN and held_out is not None:
        how, members, predicted, sd = OUT_OF_FOLD, held_out.rows, held_out.predicted, held_out.sd
    else:
        how = OWN if CALIBRATION in rows else VALIDATION
        members = rows[CALIBRATION if CALIBRATION in rows else VALIDATION]
        predicted, own_sd = model.predict_with_sd(features, members)
        sd = np.zeros(len(members)) if own_sd is None else own_sd
    measured = table.relation[members] == MEASURED
    if measured.sum() < FEWEST:
        notify(
            f"No intervals: they need {FEWEST} measured rows that nothing was learned from; there are "
            f"{int(measured.sum())}. Add rows."
        )
        return None
    members, predicted, sd = members[measured], predicted[measured], sd[measured]
    inputs, spread, landscape = doubt(features, members, predicted, sd)
    frame = table.frame[members.tolist()]
    groups = pair_index(frame) if has_antibodies(frame) else np.arange(len(members))
    conformal = Conformal.fit(table.pkd[members], predicted, inputs, spread, landscape, options.level, groups)
    found = Calibrated(conformal, how, len(members))
    notify(found.sentence())
    return found


def score_intervals(
    sure: Applied, table: AffinityTable, rows: NDArray[np.intp], domain: NDArray[np.str_] | None
) -> dict[str, Any]:
    """Return whether intervals and tail probabilities come true on labelled rows.

    Parameters
    ----------
    domain : (n_rows,) inside, edge or outside; None of a run that cannot tell
    """
    found = interval_columns(sure)
    y, relation = table.pkd[rows], table.relation[rows]
    sources = table.source[rows]
    kinds = {"sources": sources} if len(np.unique(sources)) > 1 else {}
    if domain is not None:
        kinds["domains"] = domain
    return {
        "coverage": coverage(found["pkd_low"], found["pkd_high"], y, relation, kinds),
        "probabilities": {name: reliability(found[name], came_true(name, y, relation)) for name in TAILS},
    }
