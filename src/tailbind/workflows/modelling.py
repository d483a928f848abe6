"""A plan and a problem in memory → one fitted model. The one way in which anything is learned: runs go it too.

Nothing here reads or writes a file. What a person should know is told a sentence at a time.
"""

import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from tailbind.models.contract import Predictive, Problem, as_features, check_residues
from tailbind.models.network import Network
from tailbind.scale import BIN_NAMES, bin_index, bin_label
from tailbind.table.features import Features
from tailbind.table.schema import AffinityTable
from tailbind.table.splitting import TRAIN, VALIDATION
from tailbind.training.loop import Trainer
from tailbind.training.stages import TrainingOptions, epochs_needed, plan_stages
from tailbind.training.weights import effective_sample_size
from tailbind.workflows.plan import Plan

Rows: TypeAlias = Mapping[str, NDArray[np.intp]]
Notify: TypeAlias = Callable[[str], None]


def pose(plan: Plan, table: AffinityTable, features: Features, rows: Rows, notify: Notify) -> Problem:
    """Return what a plan's model has to learn from a table, having told of bins that training never sees.

    Told is also how the rows are weighted; the parts of a blend weight them each in its own way.
    """
    counts = np.bincount(bin_index(table.pkd[rows[TRAIN]]), minlength=len(BIN_NAMES))
    if empty := [bin_label(name) for name, count in zip(BIN_NAMES, counts, strict=True) if not count]:
        notify(f"Warning: No training rows: {', '.join(empty)}. Nothing can be learned there.")
    weight = np.ones(len(table)) if plan.parts else weigh(plan, table.pkd, rows[TRAIN], notify)
    return Problem(
        features, table.pkd, table.relation, weight, rows[TRAIN], rows[VALIDATION], plan.training.seed, notify
    )


def weigh(plan: Plan, pkd: NDArray[np.float64], train: NDArray[np.intp], notify: Notify) -> NDArray[np.float64]:
    """Return the loss's weight of every row, and tell it by bin."""
    weights: NDArray[np.float64] = plan.loss.of_rows(pkd, train)
    bins = bin_index(pkd[train])
    counts = np.bincount(bins, minlength=len(BIN_NAMES))
    if plan.is_closed_form and (weights[train] == 1).all():
        return weights
    means = np.bincount(bins, weights=weights[train], minlength=len(BIN_NAMES)) / np.maximum(counts, 1)
    listing = ", ".join(
        f"{name.replace('_', ' ')} {mean:.4g}" for name, mean, n in zip(BIN_NAMES, means, counts, strict=True) if n
    )
    effective = effective_sample_size(weights[train])
    notify(f"Bin weights: {listing}. Kish's effective sample size: {effective:,.0f} of {len(train):,} rows.")
    return weights


def fit_one(plan: Plan, problem: Problem, computed: NDArray[np.bool_], *, device: torch.device) -> Predictive:
    """Return a plan's model, fitted to a problem; a network with its best weights on the validation rows.

    Parameters
    ----------
    computed : (n_dense,) which dense columns were computed from sequences, not read from the table
    """
    if plan.is_closed_form:
        return fit_at_once(plan, problem, device)
    network = ready_network(plan, as_features(problem.X), problem.train, computed, device)
    trainer = trainer_of(plan, problem, network)
    trainer.run(lambda _: None)
    take_best(network, trainer)
    return network


def fit_at_once(plan: Plan, problem: Problem, device: torch.device) -> Predictive:
    """Return a plan's closed-form model, fitted to a problem.

    Raises
    ------
    FeatureError
        When there are residues, which no such model reads.
    """
    check_residues(as_features(problem.X), read=False)
    started = time.perf_counter()
    model: Predictive = plan.model.fit(problem).to(device)
    problem.notify(f"Model: {model.describe()}, in {time.perf_counter() - started:,.1f} s.")
    return model


def ready_network(
    plan: Plan, features: Features, train: NDArray[np.intp], computed: NDArray[np.bool_], device: torch.device
) -> Network:
    """Return a plan's network as training finds it: its start fitted to the training rows, on the device."""
    network: Network = plan.model.build(len(features.names), plan.training.seed, features.n_sparse)
    network.make_ready(features, train, computed)
    return network.to(device)


def trainer_of(plan: Plan, problem: Problem, network: Network) -> Trainer:
    """Return the trainer of a plan's network, having told of what in the plan a person may not want."""
    assert isinstance(plan.training, TrainingOptions)

    def warn(text: str) -> None:
        problem.notify(f"Warning: {text}")

    trainer = Trainer(
        network,
        problem.X,
        problem.y,
        problem.relation,
        problem.weight,
        problem.validation,
        plan_stages(plan.training, plan.optimizer, plan.schedule, problem.y, problem.train),
        plan.loss,
        plan.training,
        notify=warn,
    )
    _warn_of_plan(plan, problem, trainer, warn)
    return trainer


def _warn_of_plan(plan: Plan, problem: Problem, trainer: Trainer, warn: Notify) -> None:
    """Warn of stages that cannot be, too few epochs, and odd batches."""
    options, n_train = trainer.options, len(problem.train)
    if options.finetune_epochs and len(trainer.stages) == 1:
        warn("No second stage: fewer than two training rows are in its bins.")
    needed = epochs_needed(options, plan.optimizer.lr, n_train)
    at_labels = options.start_at_mean or plan.loss.takes_bounds
    if needed > options.epochs and not at_labels:
        warn(
            f"{options.epochs} epochs are few for {n_train:,} rows: at this learning rate a network "
            f"needs about {needed:,} to come from pKd 0 to the labels. Try --set training.epochs={needed}."
        )
    for stage in trainer.stages:
        if len(stage.rows) < trainer.batch_size:
            warn(f"{len(stage.rows):,} training rows are fewer than a batch: one batch it is.")
        elif len(stage.rows) % trainer.batch_size == 1:
            warn("The last batch would be a single row; it joins the one before.")


def take_best(network: Network, trainer: Trainer) -> None:
    """Give a trained network the weights of its best epoch on the validation rows."""
    for member, best in zip(network.members, trainer.best_weights, strict=True):
        member.load_state_dict(best)
