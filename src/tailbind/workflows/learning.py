"""A plan and a table in memory → features and a model, without a run folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from tailbind.features.pipeline import FeaturePipeline
from tailbind.models.contract import Predictive, Problem
from tailbind.runtime import computing_on, remarks_to
from tailbind.table.features import Features
from tailbind.table.schema import AffinityTable
from tailbind.workflows.blending import fit_blend
from tailbind.workflows.featurising import fit_blocks
from tailbind.workflows.modelling import fit_one, pose
from tailbind.workflows.plan import Plan

Rows: TypeAlias = Mapping[str, NDArray[np.intp]]
Notify: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Learned:
    """A model and the features that it reads.

    Attributes
    ----------
    plan : by which it was learned
    pipeline : fitted on the training rows
    features : of every row of the table that it was learned from
    model : fitted
    """

    plan: Plan
    pipeline: FeaturePipeline
    features: Features
    model: Predictive

    def predict(self, table: AffinityTable) -> NDArray[np.float64]:
        """Return (n_samples,) predicted pKd for another table; nan where a row has no features."""
        features = self.pipeline.transform(table)
        rows = np.flatnonzero(features.complete)
        predicted = np.full(len(table), np.nan)
        predicted[rows] = self.model.predict(features, rows)
        return predicted


def learn(
    plan: Plan, table: AffinityTable, rows: Rows, *, device: torch.device, notify: Notify = lambda _: None
) -> Learned:
    """Fit the features of a plan on training rows, and its model on these features.

    Parameters
    ----------
    plan : what to do
    table : with labels
    rows : "train" and "val" → row numbers; rows that are in neither are not looked at
    device : to compute on
    notify : told of what a person should know, a sentence at a time

    Raises
    ------
    FeatureError, TrainingError
        When a row gets no features, or training cannot go on.
    """
    with remarks_to(notify), computing_on(device.type):
        inputs = fit_blocks(plan, table, rows)
    problem = pose(plan, table, inputs.features, rows, notify)
    if plan.parts:

        def fit(name: str, own: Plan, posed: Problem, computed: NDArray[np.bool_]) -> Predictive:
            return fit_one(own, posed, computed, device=device)

        model: Predictive = fit_blend(plan, problem, inputs, table, device, fit)
    else:
        model = fit_one(plan, problem, inputs.computed, device=device)
    return Learned(plan, inputs.pipeline, inputs.features, model)
