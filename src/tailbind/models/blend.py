"""Several models as one: how much each counts for a row depends on what they predict there, and how far they agree.

A model that fits ordinary binders is not the one that is right about rare ones, and what knows a landscape by heart
knows little of strangers. The weights are chosen on rows that none of the models has learned from: stacked
generalisation (Wolpert 1992) with weights that are functions of the input (Sill et al. 2009).
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tailbind.models import MODELS
from tailbind.models.contract import FloatArray, Inputs, Predictive, Rows, all_rows, as_features
from tailbind.options import bounded
from tailbind.runtime import threads_at_most
from tailbind.scale import BIN_NAMES, bin_index
from tailbind.table.features import Features

#: Where the weights may bend along the predicted pKd: the middle of each affinity bin, about.
KNOTS: Final = (4.5, 6.0, 8.0, 10.0, 11.5)
#: Disagreement below this is none: about the scatter of replicates, in pKd.
AGREEMENT: Final = 0.05
#: A bin with fewer rows has no say of its own in the criterion.
FEWEST: Final = 10
#: A family of middling size: there the size has no say.
MIDDLING: Final = 100
_STEPS: Final = 200
#: Sparse columns that say which family a chain belongs to.
FAMILY: Final = re.compile(r"(heavy|light|antigen) family \d+")


@dataclass(frozen=True)
class Blend:
    """Options of a blend.

    Attributes
    ----------
    tail_share : what counts when weights are chosen: 0 the RMSE of all rows; 1 the mean over the affinity bins, and the
        labels that are bounds, of their RMSE, however rare; in between, both. Errors of bounds are one-sided
    stiffness : how strongly the weights are held to be the same for every row
    folds : where training rows are few, they are dealt into so many folds as the recipe's split deals them, and every
        part predicts each fold from the others; these predictions choose the weights beside the validation rows'
    folds_up_to : training rows up to which they are; with more, the validation rows alone choose
    refit : where there are folds, the parts that choose nothing by validation rows learn once more when the weights
        are chosen, from training and validation rows together
    caution : where there are folds, predictions are drawn to the mean label as far as makes the folds' errors greater
        by no more than so many standard errors, see `models.trust`; 0 for not at all
    """

    tail_share: float = bounded(0.5, low=0, high=1)
    stiffness: float = bounded(10.0, low=0)
    folds: int = bounded(5, low=3, high=100)
    folds_up_to: int = bounded(5_000, low=0)
    refit: bool = False
    caution: float = bounded(1.0, low=0, high=10)

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> "Blended":
        """Return the blend that `state` was taken from."""
        return Blended.from_state(state)


@dataclass(frozen=True)
class Opinions:
    """What the parts of a blend say of rows.

    Attributes
    ----------
    predictions : (n_samples, n_parts) pKd
    variances : (n_samples, n_parts) over the members of a part; 0 where it has none
    speaks : (n_samples, n_parts) whether a part has a say about a row; what it would say is of no effect where not
    sizes : (n_samples,) training rows in the row's family
    """

    predictions: FloatArray
    variances: FloatArray
    speaks: NDArray[np.bool_]
    sizes: NDArray[np.intp]

    @classmethod
    def joined(cls, pieces: Sequence["Opinions"]) -> Self:
        """Return the opinions of several pieces of rows as one."""
        return cls(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in vars(pieces[0])))

    def take(self, rows: Rows) -> Self:
        """Return those about some of the rows."""
        return replace(self, **{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Gate:
    """How much each of several models counts for a row.

    The weights are the softmax of linear functions of three things: the mean of the predictions, by a piecewise linear
    function with `KNOTS`; the logarithm of how far they lie from it; and that of the size of the row's family. Models
    without a say count in none.

    Attributes
    ----------
    coefficients : (n_models, n_knots + 2) of the prediction's hat functions, of the disagreement and of the size
    """

    coefficients: FloatArray

    @classmethod
    def fit(
        cls,
        opinions: Opinions,
        y: FloatArray,
        side: NDArray[np.float32],
        *,
        tail_share: float,
        stiffness: float,
    ) -> Self:
        """Choose the weights on rows that the models have not learned from.

        What is made least: (1 − `tail_share`) · RMSE of all rows + `tail_share` · mean of the RMSEs of the bins of
        measured rows and of that of all bounds + a penalty that falls with the number of rows: of weights that differ
        between models, and, `stiffness` times stronger, of weights that bend. Errors of bounds are one-sided.

        Parameters
        ----------
        opinions : of the models on these rows
        y : (n_samples,) pKd
        side : (n_samples,) −1 for "<", 0 for "=", +1 for ">"
        """
        inputs, silent = torch.from_numpy(_inputs(opinions)), torch.from_numpy(~opinions.speaks)
        given = torch.from_numpy(opinions.predictions)
        target, sides = torch.from_numpy(y), torch.from_numpy(side.astype(np.float64))
        measured = side == 0
        bins = np.where(measured, bin_index(y), -1)
        # Bounds are a group among the bins: a handful of them must not outweigh all that was measured.
        groups = [torch.from_numpy(np.flatnonzero(bins == number)) for number in range(-1, len(BIN_NAMES))]
        groups = [group for group in groups if len(group) >= FEWEST]
        coefficients = torch.zeros((given.shape[1], inputs.shape[1]), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([coefficients], max_iter=_STEPS, line_search_fn="strong_wolfe")

        def criterion() -> Tensor:
            optimizer.zero_grad()
            error = (_weights(inputs, coefficients, silent) * given).sum(dim=1) - target
            error = torch.where(sides * error > 0, 0.0, error)
            overall = _rms(error)
            of_groups = torch.stack([_rms(error[group]) for group in groups]).mean() if groups else overall
            value = (1 - tail_share) * overall + tail_share * of_groups
            of_prediction = coefficients[:, : len(KNOTS)]
            level = of_prediction.mean(dim=1, keepdim=True)
            bends = torch.cat([of_prediction - level, coefficients[:, len(KNOTS) :]], dim=1)
            value = value + (level.square().sum() + stiffness * bends.square().sum()) / len(target)
            value.backward()  # type: ignore[no-untyped-call]
            return value

        with threads_at_most(1):  # what is computed here is too short to be shared
            optimizer.step(criterion)  # type: ignore[no-untyped-call]
        return cls(coefficients.detach().numpy().copy())

    def weights(self, opinions: Opinions) -> FloatArray:
        """Return (n_samples, n_models) weights, not negative, which sum to 1 in each row.

        >>> two = Opinions(np.array([[6.0, 7.0]]), np.zeros((1, 2)), np.array([[True, True]]), np.array([3]))
        >>> Gate(np.zeros((2, 7))).weights(two).tolist()
        [[0.5, 0.5]]
        """
        silent = torch.from_numpy(~opinions.speaks)
        found = _weights(torch.from_numpy(_inputs(opinions)), torch.from_numpy(self.coefficients), silent)
        result: FloatArray = found.numpy()
        return result

    def predict(self, opinions: Opinions) -> FloatArray:
        """Return (n_samples,) the weighted mean of what the models predict."""
        result: FloatArray = (self.weights(opinions) * opinions.predictions).sum(axis=1)
        return result

    def predict_with_sd(self, opinions: Opinions) -> tuple[FloatArray, FloatArray]:
        """Return (n_samples,) the weighted mean of what the models predict, and its SD: how far they lie apart."""
        weights = self.weights(opinions)
        mean: FloatArray = (weights * opinions.predictions).sum(axis=1)
        apart = np.square(opinions.predictions - mean[:, None])
        return mean, np.sqrt((weights * (apart + opinions.variances)).sum(axis=1))


def _inputs(opinions: Opinions) -> FloatArray:
    """Return (n_samples, n_knots + 2): the mean prediction's hat functions, how far all lie from it, family size."""
    predictions, speaks = opinions.predictions, opinions.speaks
    mean = predictions.mean(axis=1, where=speaks)
    hats = np.stack([np.interp(mean, KNOTS, row) for row in np.eye(len(KNOTS))], axis=1)
    apart = np.abs(predictions - mean[:, None]).mean(axis=1, where=speaks)
    return np.column_stack([hats, np.log(AGREEMENT + apart), np.log10((1 + opinions.sizes) / MIDDLING)])


def _weights(inputs: Tensor, coefficients: Tensor, silent: Tensor) -> Tensor:
    return torch.softmax((inputs @ coefficients.T).masked_fill(silent, -torch.inf), dim=1)


def _rms(error: Tensor) -> Tensor:
    return (error.square().mean() + 1e-12).sqrt()


@dataclass(frozen=True)
class FamilySizes:
    """How many training rows have the same families of heavy chain, light chain and antigen as a row.

    Attributes
    ----------
    sizes : numbers of the family columns, joined by a space → training rows
    columns : (n_families,) the sparse columns that name families; without any, all rows are one family
    """

    sizes: Mapping[str, int]
    columns: NDArray[np.intp]

    @classmethod
    def fit(cls, X: Inputs, rows: Rows) -> Self:
        """Count the families of the training rows."""
        names = as_features(X).sparse_names
        columns = np.array([number for number, name in enumerate(names) if FAMILY.fullmatch(name)], dtype=np.intp)
        families, counts = np.unique(cls({}, columns)._families(X, rows), return_counts=True)
        return cls(dict(zip(families.tolist(), counts.tolist(), strict=True)), columns)

    def of(self, X: Inputs, rows: Rows) -> NDArray[np.intp]:
        """Return (n_samples,) the size of each row's family; 0 for one that training never saw.

        >>> X = np.zeros((3, 1), np.float32)
        >>> FamilySizes.fit(X, np.arange(3)).of(X, np.arange(2)).tolist()
        [3, 3]
        """
        families, index = np.unique(self._families(X, rows), return_inverse=True)
        return np.array([self.sizes.get(str(family), 0) for family in families], dtype=np.intp)[index]

    def _families(self, X: Inputs, rows: Rows) -> NDArray[np.str_]:
        """Return (n_samples,) each row's family columns as text."""
        sparse = as_features(X).sparse
        if sparse is None or not len(self.columns):
            return np.zeros(len(rows), dtype="<U1")
        chosen = sparse[rows][:, self.columns].tocsr()
        chosen.sort_indices()
        words = [str(column) for column in range(len(self.columns))]
        spans = itertools.pairwise(chosen.indptr.tolist())
        families = [" ".join(words[column] for column in chosen.indices[start:stop]) for start, stop in spans]
        return np.array(families or np.empty(0, "<U1"))


@dataclass(frozen=True)
class BlendPart:
    """One model of a blend, what it reads and where it has a say.

    Attributes
    ----------
    kind : its registered name
    model : fitted
    dense, sparse : numbers of the columns that it reads; None for all
    residues : whether it reads residues one by one, where there are some
    largest_family : it has a say about rows of families with at most so many training rows; 0 for all rows
    """

    kind: str
    model: Predictive
    dense: NDArray[np.intp] | None = None
    sparse: NDArray[np.intp] | None = None
    residues: bool = False
    largest_family: int = 0

    def view(self, X: Features) -> Features:
        """Return the columns, and the residues, that it reads."""
        if self.dense is None or self.sparse is None:
            return X
        return X.columns(self.dense, self.sparse, residues=self.residues)


@dataclass(frozen=True)
class Blended:
    """Fitted models and how they are put together.

    Attributes
    ----------
    parts : by name; one at least has a say about every row
    gate : their weights
    families : sizes of the families in training
    shares : by name, the mean weight of each part over the rows that chose the weights
    mean : of the training labels, pKd
    trust : share of the way from `mean` to what the parts say that a prediction goes, see `models.trust`
    """

    parts: Mapping[str, BlendPart]
    gate: Gate
    families: FamilySizes = field(repr=False)
    shares: Mapping[str, float]
    mean: float = 0.0
    trust: float = 1.0

    def predict(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) predicted pKd."""
        return self.predict_with_sd(X, rows)[0]

    def predict_with_sd(self, X: Inputs, rows: Rows | None = None) -> tuple[FloatArray, FloatArray]:
        """Return (n_samples,) predicted pKd, and its SD: how far the parts, and their members, lie apart."""
        features, chosen = as_features(X), all_rows(X, rows)
        opinions = predict_parts(self.parts, self.families, features, chosen)
        mean, sd = self.gate.predict_with_sd(opinions)
        return self.mean + self.trust * (mean - self.mean), sd

    def describe(self) -> str:
        """Return its parts in words, and how much each counts on average."""
        listing = "; ".join(
            f"{name} {100 * self.shares[name]:.0f} % ({part.model.describe()})" for name, part in self.parts.items()
        )
        drawn = f", drawn {100 * (1 - self.trust):.0f} % of the way to the mean" if self.trust < 1 else ""
        return f"blend of {len(self.parts)}{drawn}: {listing}"

    def to(self, device: torch.device) -> Self:
        """Return the blend with every part on a device."""
        parts = {name: replace(part, model=part.model.to(device)) for name, part in self.parts.items()}
        return replace(self, parts=parts)

    def state(self) -> dict[str, Any]:
        """Return the state of every part, and the weights."""
        return {
            "parts": {name: {**vars(part), "model": part.model.state()} for name, part in self.parts.items()},
            "gate": self.gate.coefficients,
            "families": {"sizes": dict(self.families.sizes), "columns": self.families.columns},
            "shares": dict(self.shares),
            "mean": self.mean,
            "trust": self.trust,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the blend that `state` was taken from."""
        parts = {
            name: BlendPart(**{**entry, "model": MODELS.load(entry["kind"]).from_state(entry["model"])})
            for name, entry in state["parts"].items()
        }
        families = FamilySizes(dict(state["families"]["sizes"]), np.asarray(state["families"]["columns"], np.intp))
        gate, shares = Gate(np.asarray(state["gate"])), dict(state["shares"])
        return cls(parts, gate, families, shares, float(state["mean"]), float(state["trust"]))


def predict_parts(parts: Mapping[str, BlendPart], families: FamilySizes, X: Features, rows: Rows) -> Opinions:
    """Return what each part says of `rows`; where it has no say, 0."""
    sizes = families.of(X, rows)
    predictions, variances = np.zeros((2, len(rows), len(parts)))
    speaks = np.ones((len(rows), len(parts)), dtype=bool)
    for number, part in enumerate(parts.values()):
        if part.largest_family:
            speaks[:, number] = sizes <= part.largest_family
        where = np.flatnonzero(speaks[:, number])
        if len(where):
            mean, sd = part.model.predict_with_sd(part.view(X), rows[where])
            predictions[where, number] = mean
            variances[where, number] = 0 if sd is None else np.square(sd)
    return Opinions(predictions, variances, speaks, sizes)
