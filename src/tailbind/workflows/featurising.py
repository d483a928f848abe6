"""The features of a training: computed before anything is written, and told in a line."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailbind.checkpoint import load_checkpoint
from tailbind.errors import FeatureError
from tailbind.features.pipeline import FeaturePipeline
from tailbind.runtime import computing_on
from tailbind.table.features import Features
from tailbind.table.schema import AffinityTable
from tailbind.table.splitting import TRAIN
from tailbind.workflows.preparing import Prepared
from tailbind.workflows.progress import say, working


@dataclass(frozen=True)
class Computed:
    """The features of a table and what they were computed by.

    Attributes
    ----------
    pipeline : fitted on the training rows
    features : of every row
    computed : (n_dense,) which dense columns were computed from sequences, not read from the table
    """

    pipeline: FeaturePipeline
    features: Features
    computed: NDArray[np.bool_]


def compute_features(prepared: Prepared, *, begun: bool) -> Computed:
    """Fit the plan's feature blocks on the training rows and return the features of every row.

    Parameters
    ----------
    begun : whether this is an unfinished run. The blocks are then those in its best model, where it has one, so that
        it goes on with exactly the features it had

    Raises
    ------
    FeatureError
        When a row gets no features.
    """
    plan, run, table, console = prepared.plan, prepared.run, prepared.table, prepared.console
    with working(console, "Computing features"), computing_on(prepared.device.type):
        if begun and run.resume.exists() and run.best_model.exists():
            pipeline = FeaturePipeline.from_state(load_checkpoint(run.best_model).features)
        else:
            pipeline = FeaturePipeline.fit(plan.feature_kinds, plan.features, table, prepared.rows[TRAIN])
        features = pipeline.transform(table)
    if not features.complete.all():
        lacking = table.frame["row_id"].filter(~features.complete)
        raise FeatureError(
            f"{', '.join(table.report.files)} must give every row its features; {len(lacking):,} rows get none, such "
            f"as row_id {', '.join(lacking[:3])}. Leave them out."
        )
    first = {name: block.transform(table.stretch(slice(0, 1))) for name, block in pipeline.blocks.items()}
    say(console, f"Features: {_sizes(first, table)}.")
    computed = [np.full(len(part.names), pipeline.blocks[name].reads_sequences) for name, part in first.items()]
    return Computed(pipeline, features, np.concatenate(computed))


def _sizes(parts: Mapping[str, Features], table: AffinityTable) -> str:
    """Return how many columns each block gave, in words."""
    if len(parts) == 1 and (only := next(iter(parts.values()))).names == table.feature_names and not only.n_sparse:
        return f"{len(only.names)} columns, {only.names[0]} … {only.names[-1]}"
    words = []
    for name, part in parts.items():
        counts = [f"{part.n_sparse:,} sparse"] if part.n_sparse else []
        dense = f"{len(part.names):,} dense" if counts else f"{len(part.names):,}"
        counts += [dense] if part.names else []
        words.append(f"{name} {' and '.join(counts)} columns")
    return "; ".join(words)
