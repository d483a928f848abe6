"""The features of a training: computed before anything is written, and told in a line."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailbind.checkpoint import load_checkpoint
from tailbind.errors import FeatureError
from tailbind.features.distinct import distinct
from tailbind.features.pipeline import FeaturePipeline
from tailbind.models.contract import check_residues
from tailbind.runtime import available_bytes, computing_on
from tailbind.table.blocks import on_disk
from tailbind.table.features import Features
from tailbind.table.schema import SEQUENCES, AffinityTable
from tailbind.table.splitting import TRAIN, VALIDATION
from tailbind.workflows.plan import Plan
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
    blocks : (n_dense,) and (n_sparse,) which block each column is from, by its place in the pipeline
    """

    pipeline: FeaturePipeline
    features: Features
    computed: NDArray[np.bool_]
    blocks: tuple[NDArray[np.intp], NDArray[np.intp]]


def learned_rows(plan: Plan, rows: Mapping[str, NDArray[np.intp]]) -> NDArray[np.intp]:
    """Return the rows that a plan's model learns from in the end: of training and, where it refits, validation."""
    train = rows[TRAIN]
    return np.sort(np.concatenate([train, rows[VALIDATION]])) if plan.refits(len(train)) else train


def fit_blocks(plan: Plan, table: AffinityTable, rows: Mapping[str, NDArray[np.intp]]) -> Computed:
    """Fit the plan's feature blocks on the rows that its model learns from and return the features of every row.

    Raises
    ------
    FeatureError
        When a row gets no features.
    """
    pipeline = FeaturePipeline.fit(plan.feature_kinds, plan.features, table, learned_rows(plan, rows))
    return _computed(plan, pipeline, table)


def compute_features(prepared: Prepared, *, begun: bool) -> Computed:
    """Return the features of a run's table and tell of them.

    Parameters
    ----------
    begun : whether this is an unfinished run. The blocks are then those in its best model, where it has one, so that
        it goes on with exactly the features it had

    Raises
    ------
    FeatureError
        When a row gets no features, or the model does not read what there is.
    """
    plan, run, table, console = prepared.plan, prepared.run, prepared.table, prepared.console
    with working(console, "Computing features"), computing_on(prepared.device.type):
        if begun and run.resume.exists() and run.best_model.exists():
            inputs = _computed(plan, FeaturePipeline.from_state(load_checkpoint(run.best_model).features), table)
        else:
            inputs = fit_blocks(plan, table, prepared.rows)
    check_residues(inputs.features, read=plan.reads_residues)
    first = {name: block.transform(table.stretch(slice(0, 1))) for name, block in inputs.pipeline.blocks.items()}
    say(console, f"Features: {_sizes(first, table)}.")
    return inputs


def _computed(plan: Plan, pipeline: FeaturePipeline, table: AffinityTable) -> Computed:
    """Return the features of every row by a fitted pipeline; on disk only where a network alone reads them."""
    features = pipeline.transform(table)
    if plan.is_closed_form or plan.parts:
        features = _brought_in(features)
    if not features.complete.all():
        lacking = table.frame["row_id"].filter(~features.complete)
        raise FeatureError(
            f"{', '.join(table.report.files)} must give every row its features; {len(lacking):,} rows get none, such "
            f"as row_id {', '.join(lacking[:3])}. Leave them out."
        )
    first = {name: block.transform(table.stretch(slice(0, 1))) for name, block in pipeline.blocks.items()}
    computed = [np.full(len(part.names), pipeline.blocks[name].reads_sequences) for name, part in first.items()]
    places = np.arange(len(first))
    blocks = (
        np.repeat(places, [len(part.names) for part in first.values()]),
        np.repeat(places, [part.n_sparse for part in first.values()]),
    )
    return Computed(pipeline, features, np.concatenate(computed), blocks)


def _brought_in(features: Features) -> Features:
    """Return features in memory, for a model that needs all at once."""
    kept = on_disk(features.dense)
    if kept is not None and kept.nbytes > available_bytes():
        raise FeatureError(
            f"This recipe's model must have its features in memory; they take {kept.nbytes / 1e9:.2g} GB, and "
            f"{available_bytes() / 1e9:.2g} GB are left. Take a network, which trains from disk: --recipe v2."
        )
    return features.in_memory()


def _sizes(parts: Mapping[str, Features], table: AffinityTable) -> str:
    """Return how many columns each block gave, in words, and of how many sequences residues."""
    if len(parts) == 1 and (only := next(iter(parts.values()))).names == table.feature_names and not only.n_sparse:
        return f"{len(only.names)} columns, {only.names[0]} … {only.names[-1]}"
    words = []
    for name, part in parts.items():
        counts = [f"{part.n_sparse:,} sparse"] if part.n_sparse else []
        dense = f"{len(part.names):,} dense" if counts else f"{len(part.names):,}"
        counts += [dense] if part.names else []
        of = f"of {_n_sequences(table):,} sequences and " if part.residues else ""
        words.append(f"{name} {of}{' and '.join(counts) or 'no'} columns")
    return "; ".join(words)


def _n_sequences(table: AffinityTable) -> int:
    """Return how many different chains there are, of all three kinds together."""
    return sum(bool(sequence) for chain in SEQUENCES for sequence in distinct(table.frame[chain])[0])
