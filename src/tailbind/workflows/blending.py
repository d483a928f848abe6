"""The parts of a blend fitted one after the other, and the weights by which they are put together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from tailbind.errors import SplitError, TrainingError
from tailbind.models.blend import Blend, Blended, BlendPart, FamilySizes, Gate, Opinions, predict_parts
from tailbind.models.contract import Predictive, Problem, as_features
from tailbind.models.trust import find_trust, held_out
from tailbind.runtime import progress
from tailbind.table.features import Features
from tailbind.table.schema import AffinityTable
from tailbind.training.losses import sides
from tailbind.workflows.dividing import fold_rows
from tailbind.workflows.featurising import Computed
from tailbind.workflows.modelling import fit_one, weigh
from tailbind.workflows.plan import PartPlan, Plan

#: Fits one part: its name, its plan, what it has to learn, and which of its dense columns were computed.
FitPart: TypeAlias = Callable[[str, Plan, Problem, NDArray[np.bool_]], Predictive]
#: Rows, and what each part says of them.
Predicted: TypeAlias = tuple[NDArray[np.intp], Opinions]

#: A part with fewer rows than this to learn from is left out.
FEWEST_ROWS: Final = 10
#: What a sentence begins with that warns.
_WARNING: Final = "Warning: "


@dataclass(frozen=True)
class FittedParts:
    """The parts of a blend that had enough to learn from.

    Attributes
    ----------
    parts : by name
    families : sizes of the families that they learned from
    without : of the parts that had too little, by name, why they are left out
    """

    parts: Mapping[str, BlendPart]
    families: FamilySizes
    without: Mapping[str, str]

    def predict(self, X: Features, rows: NDArray[np.intp]) -> Predicted:
        """Return the rows, and what each part says of them."""
        return rows, predict_parts(self.parts, self.families, X, rows)


@dataclass(frozen=True)
class Combined:
    """A blend, and what it says of the validation rows.

    Attributes
    ----------
    model : the blend
    validation : the validation rows as predicted by parts that have not learned from them; the model's own may have
    refitted : of each part that learned once more, by name, from how many rows, validation rows among them
    held_out : training and validation rows as predicted by parts, and by weights, that have not learned from them; None
        where there are no folds
    """

    model: Blended
    validation: "HeldOut"
    refitted: Mapping[str, int]
    held_out: "HeldOut | None" = None


@dataclass(frozen=True)
class HeldOut:
    """Rows predicted by parts that have learned nothing from them.

    Attributes
    ----------
    rows : (n,) their numbers
    predicted, sd : (n,) pKd
    """

    rows: NDArray[np.intp]
    predicted: NDArray[np.float64]
    sd: NDArray[np.float64]


@dataclass(frozen=True)
class _Rows:
    """What a part may learn from and choose by, and why it is left out; "" where it is not."""

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    without: str


def fit_blend(
    plan: Plan, problem: Problem, inputs: Computed, table: AffinityTable, device: torch.device, fit: FitPart
) -> Blended:
    """Return a blend: its parts fitted to the training rows, its weights chosen on rows they have not learned from."""
    return put_together(plan, problem, inputs, table, device, fit_parts(plan, problem, inputs, fit)).model


def fit_parts(plan: Plan, problem: Problem, inputs: Computed, fit: FitPart) -> FittedParts:
    """Return the parts of a blend, fitted to the training rows; told are those with too few.

    Parameters
    ----------
    inputs : the features, and which blocks they are from
    fit : fits one part

    Raises
    ------
    TrainingError
        When no part that has a say about every row has enough to learn from.
    """
    families = FamilySizes.fit(problem.X, problem.train)
    found = _rows_of_parts(plan, problem, families)
    for name, rows in found.items():
        if rows.without:
            problem.notify(f"Without {name}: {rows.without}.")
    if all(rows.without or plan.parts[name].scope.largest_family for name, rows in found.items()):
        raise TrainingError(
            f"Recipe {plan.name} must have a part with a say about every row and enough to learn from; it has none on "
            f"{len(problem.train):,} training rows. Change parts.NAME.fewest_rows and most_rows, or add rows."
        )
    return _fitted(plan, problem, inputs, families, found, fit)


def put_together(
    plan: Plan, problem: Problem, inputs: Computed, table: AffinityTable, device: torch.device, fitted: FittedParts
) -> Combined:
    """Return the blend of parts that have learned, its weights chosen on rows that they have not learned from.

    These are the validation rows and, where training rows are few, each training row as predicted by parts that were
    fitted without it. Then, where the plan refits, parts learn from all of these rows.

    Parameters
    ----------
    table : that the features are of, for the folds
    """
    options: Blend = plan.model
    predicted = [fitted.predict(as_features(problem.X), problem.validation)]
    if len(problem.train) <= options.folds_up_to and len(fitted.parts) > 1:
        predicted += _out_of_fold(plan, problem, inputs, table, fitted, device)
    rows = np.concatenate([rows for rows, _ in predicted])
    fold = np.repeat(np.arange(len(predicted)), [len(rows) for rows, _ in predicted])
    opinions, y, side = Opinions.joined([said for _, said in predicted]), problem.y[rows], sides(problem.relation[rows])
    gate = Gate.fit(opinions, y, side, tail_share=options.tail_share, stiffness=options.stiffness)
    shares = dict(zip(fitted.parts, gate.weights(opinions).mean(axis=0).tolist(), strict=True))
    listing = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    problem.notify(f"Blend: {listing}, on average over the {len(rows):,} rows that chose the weights.")
    mean = float(problem.y[problem.train].mean())
    trust, held = 1.0, None
    if len(predicted) > 1:
        without, sd = held_out(options, opinions, y, side, fold)
        trust = find_trust(options, without, y, side, fold, mean)
        held = HeldOut(rows, mean + trust * (without - mean), sd)
    if trust < 1:
        problem.notify(f"Predictions are drawn {100 * (1 - trust):.0f} % of the way to the mean label, {mean:.2f}.")
    model = Blended(fitted.parts, gate, fitted.families, shares, mean, trust)
    refitted: dict[str, int] = {}
    if plan.refits(len(problem.train)):
        model, refitted = _refitted(plan, problem, inputs, model, device)
    first, (found, sd) = predicted[0][0], gate.predict_with_sd(predicted[0][1])
    return Combined(model.to(device), HeldOut(first, mean + trust * (found - mean), sd), refitted, held)


def _refitted(
    plan: Plan, problem: Problem, inputs: Computed, model: Blended, device: torch.device
) -> tuple[Blended, dict[str, int]]:
    """Return a blend whose parts, where validation rows choose nothing of them, learned from these rows too; and which.

    Of each of these by name, from how many rows.
    """
    train = np.sort(np.concatenate([problem.train, problem.validation]))
    both = replace(problem, train=train, notify=lambda _: None)
    families = FamilySizes.fit(problem.X, train)
    rows = {
        name: _Rows(_in_scope(part, both, families, train), problem.validation, "")
        for name, part in plan.parts.items()
        if name in model.parts and part.plan.is_closed_form and not part.plan.model.uses_validation
    }

    def fit(name: str, own: Plan, posed: Problem, computed: NDArray[np.bool_]) -> Predictive:
        return fit_one(own, posed, computed, device=device)

    with progress("Fitting once more, validation rows included"):
        found = _fitted(plan, both, inputs, families, rows, fit)
    refitted = {name: len(own.train) for name, own in rows.items()}
    if refitted:
        problem.notify(f"Fitted once more to training and validation rows together: {', '.join(refitted)}.")
    return replace(model, parts={**model.parts, **found.parts}, families=families), refitted


def _out_of_fold(
    plan: Plan, problem: Problem, inputs: Computed, table: AffinityTable, fitted: FittedParts, device: torch.device
) -> list[Predicted]:
    """Return the predictions of each fold of the training rows by parts that were fitted without it."""
    try:
        folds = fold_rows(plan, table, problem.train, plan.model.folds)
    except SplitError as error:
        problem.notify(f"The validation rows alone choose the weights; there are no folds of training rows. {error}")
        return []
    quiet = replace(problem, notify=lambda _: None)
    found = []

    def fit(name: str, own: Plan, posed: Problem, computed: NDArray[np.bool_]) -> Predictive:
        return fit_one(own, posed, computed, device=device)

    with progress("Predicting training rows out of fold") as tell:
        for number, (rest, fold) in enumerate(folds):
            tell(number, len(folds))
            posed = replace(quiet, train=rest)
            families = FamilySizes.fit(problem.X, rest)
            rows = _rows_of_parts(plan, posed, families)
            if [name for name, own in rows.items() if not own.without] != list(fitted.parts):
                continue  # a part has too few rows without the fold
            without = _fitted(plan, posed, inputs, families, rows, fit)
            found.append(without.predict(as_features(problem.X), fold))
        tell(len(folds), len(folds))
    if len(found) < len(folds):
        problem.notify(
            f"{len(folds) - len(found)} of {len(folds)} folds of training rows had no say in the weights: without "
            "them a part has too few rows."
        )
    return found


def _rows_of_parts(plan: Plan, problem: Problem, families: FamilySizes) -> dict[str, _Rows]:
    """Return what each part may learn from, and of one with too little, why it is left out."""
    found = {}
    for name, part in plan.parts.items():
        train, validation = (_in_scope(part, problem, families, rows) for rows in (problem.train, problem.validation))
        scope, n_train = part.scope, len(problem.train)
        without = ""
        if n_train < scope.fewest_rows or (scope.most_rows and n_train > scope.most_rows):
            limit = f"{scope.fewest_rows:,} training rows at least" if n_train < scope.fewest_rows else ""
            limit = limit or f"{scope.most_rows:,} training rows at most"
            without = f"it must have {limit}; there are {n_train:,}"
        elif len(train) < FEWEST_ROWS:
            without = f"it must have {FEWEST_ROWS} training rows in its scope; there are {len(train):,}"
        elif not len(validation):
            without = "it must have validation rows in its scope; there are none"
        found[name] = _Rows(train, validation, without)
    return found


def _in_scope(part: PartPlan, problem: Problem, families: FamilySizes, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    if not part.scope.largest_family:
        return rows
    return rows[families.of(problem.X, rows) <= part.scope.largest_family]


def _fitted(
    plan: Plan,
    problem: Problem,
    inputs: Computed,
    families: FamilySizes,
    found: Mapping[str, _Rows],
    fit: FitPart,
) -> FittedParts:
    """Return the parts that are not left out, each fitted to its own view of the problem."""
    places = {name: number for number, name in enumerate(inputs.pipeline.blocks)}
    parts = {}
    for name, rows in found.items():
        if rows.without:
            continue
        part = plan.parts[name].plan
        chosen = [places[block] for block in plan.parts[name].blocks]
        dense, sparse = (np.flatnonzero(np.isin(blocks, chosen)) for blocks in inputs.blocks)
        notify = _naming(name, problem.notify)
        posed = replace(
            problem,
            X=as_features(problem.X).columns(dense, sparse, residues=part.reads_residues),
            weight=weigh(part, problem.y, rows.train, notify),
            train=rows.train,
            validation=rows.validation,
            seed=part.training.seed,
            notify=notify,
        )
        model = fit(name, part, posed, inputs.computed[dense])
        largest = plan.parts[name].scope.largest_family
        parts[name] = BlendPart(part.kinds["model"], model, dense, sparse, part.reads_residues, largest)
    return FittedParts(parts, families, {name: rows.without for name, rows in found.items() if rows.without})


def _naming(name: str, notify: Callable[[str], None]) -> Callable[[str], None]:
    """Return what tells the sentences of a part, with its name before them."""

    def tell(text: str) -> None:
        said = text.removeprefix(_WARNING)
        notify(f"{_WARNING if said != text else ''}{name}: {said.removeprefix('Model: ')}")

    return tell
