"""Intervals of a run: calibrated on rows that nothing was learned from, kept beside the model, judged on test rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.checkpoint import CALIBRATION as CONTENT
from tailbind.checkpoint import save_state
from tailbind.evaluation.calibration import FEWEST, NONE, OWN, Applied, Conformal
from tailbind.evaluation.coverage import TAILS, came_true, coverage, interval_columns, reliability
from tailbind.models.contract import Predictive
from tailbind.models.doubt import doubt
from tailbind.reporting.intervals import CALIBRATED_ON
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
#: How alike the nearest of training may be, from the most to the least.
IDENTITIES: Final = (
    (1.0, "100 %"), (0.99, "99 to 100 %"), (0.95, "95 to 99 %"), (0.9, "90 to 95 %"), (0.0, "below 90 %"),
)  # fmt: skip
#: 95 of 100 letters are 95 %, whatever the last digit of a floating-point number says.
_ROUNDING: Final = 1e-6


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
        return f"Intervals of {level} calibrated on {self.n:,} measured rows: {CALIBRATED_ON[self.how]}."

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
    validation: HeldOut | None,
    notify: Callable[[str], None],
) -> Calibrated | None:
    """Return the intervals of a fitted model; None, and why, where there are none.

    Parameters
    ----------
    held_out : rows predicted by what has not learned from them, where a blend made such predictions
    validation : the validation rows likewise, where the model itself may have learned from them
    notify : told how they were calibrated, or why there are none
    """
    options = plan.calibration
    if options.rows == NONE:
        return None
    if options.rows == OWN and held_out is not None:
        how, said = OUT_OF_FOLD, held_out
    elif CALIBRATION in rows:
        how, said = OWN, _predicted(model, features, rows[CALIBRATION])
    else:
        how, said = VALIDATION, validation or _predicted(model, features, rows[VALIDATION])
    members, predicted, sd = said.rows, said.predicted, said.sd
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


def _predicted(model: Predictive, features: Features, rows: NDArray[np.intp]) -> HeldOut:
    predicted, sd = model.predict_with_sd(features, rows)
    return HeldOut(rows, predicted, np.zeros(len(rows)) if sd is None else sd)


def score_intervals(
    sure: Applied, table: AffinityTable, rows: NDArray[np.intp], near: pl.DataFrame | None
) -> dict[str, Any]:
    """Return whether intervals and tail probabilities come true on labelled rows.

    Parameters
    ----------
    near : a row each, how near training is, as `Domain.judge` tells; None of a run that cannot
    """
    found = interval_columns(sure)
    y, relation = table.pkd[rows], table.relation[rows]
    sources = table.source[rows]
    kinds = {"sources": sources} if len(np.unique(sources)) > 1 else {}
    if near is not None:
        kinds["domains"] = near["domain"].to_numpy().astype(str)
        kinds["identities"] = _identities(near)
    held = coverage(found["pkd_low"], found["pkd_high"], y, relation, kinds)
    if near is not None:
        held["identities"] = {word: held["identities"][word] for _, word in IDENTITIES if word in held["identities"]}
    return {
        "coverage": held,
        "probabilities": {name: reliability(found[name], came_true(name, y, relation)) for name in TAILS},
    }


def _identities(near: pl.DataFrame) -> NDArray[np.str_]:
    """Return (n_rows,) how alike the nearest of training is: the antibody or antigen, whichever is less; "" unknown."""
    given = [near[name] for name in near.columns if name.endswith("_identity")]
    least = np.fmin.reduce([np.full(len(near), np.nan), *(values.cast(pl.Float64).to_numpy() for values in given)])
    reached = [least >= limit - _ROUNDING for limit, _ in IDENTITIES]
    return np.select(reached, [word for _, word in IDENTITIES], "")
