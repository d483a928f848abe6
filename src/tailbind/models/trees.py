"""Gradient-boosted trees (LightGBM; Ke et al., NeurIPS 2017) on dense and sparse columns side by side.

`Trees` is the options; `BoostedTrees` is one or several ensembles, differing in their seed, whose mean is the
prediction. Trees find thresholds and interactions by themselves and do not extrapolate: no prediction lies far beyond
the labels that they learned from.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import FeatureError, TailbindError
from tailbind.models.contract import FloatArray, Inputs, Problem, Rows, all_rows, as_features, chunks, mean_and_sd
from tailbind.options import bounded, one_of, read_options
from tailbind.table.features import Features

if TYPE_CHECKING:
    import lightgbm as lgb
    import torch

OBJECTIVES: Final = ("squared", "huber", "censored")
#: Rows that LightGBM looks at to lay the bounds of bins.
BIN_ROWS: Final = 50_000
#: A leaf of few training rows needs a hundredth of them, but no fewer than this.
FEWEST_PER_LEAF: Final = 5


@dataclass(frozen=True)
class Trees:
    """Options of boosted trees.

    Attributes
    ----------
    n_trees : at most so many; fewer where `patience` ends them
    learning_rate : share of each tree's step that is taken
    num_leaves : leaves of a tree at most
    min_rows_per_leaf : training rows that a leaf holds at least; of fewer than a hundred times as many, a hundredth
        of them. Sparse columns that fewer rows have cannot split any leaf, and are left out
    feature_fraction : share of the columns that each tree chooses its splits from
    row_fraction : share of the rows that each tree learns from
    max_bin : steps that a column's values are divided into
    l2 : penalty on the squared values of leaves
    objective : what is minimised. `squared` error and `huber` (linear beyond `huber_delta`) take each label as
        stated; `censored` is the squared error of what is wrong for certain: a prediction below a "<" label costs
        nothing, nor does one above a ">" label
    huber_delta : error in pKd from which `huber` is linear; of no effect otherwise
    patience : trees after which an ensemble ends when its error on the validation rows (of the objective's kind, with
        equal weights) has not become less; the best length is kept. 0 for all trees
    members : how many ensembles, differing in their seed, are averaged
    """

    losses: ClassVar[frozenset[str]] = frozenset({"mse"})
    takes_weights: ClassVar[bool] = True
    uses_validation: ClassVar[bool] = True

    n_trees: int = bounded(1_000, low=1, high=100_000)
    learning_rate: float = bounded(0.1, above=0, high=1)
    num_leaves: int = bounded(127, low=2, high=131_072)
    min_rows_per_leaf: int = bounded(20, low=1)
    feature_fraction: float = bounded(0.2, above=0, high=1)
    row_fraction: float = bounded(1.0, above=0, high=1)
    max_bin: int = bounded(63, low=2, high=255)
    l2: float = bounded(0.0, low=0)
    objective: str = one_of("squared", OBJECTIVES)
    huber_delta: float = bounded(0.5, above=0)
    patience: int = bounded(50, low=0)
    members: int = bounded(1, low=1, high=100)

    @property
    def takes_bounds(self) -> bool:
        """Whether a label marked < or > is taken as a bound."""
        return self.objective == "censored"

    def fit(self, problem: Problem) -> "BoostedTrees":
        """Return the trees that have learned the training rows; member m starts from the problem's seed + m.

        The same seed gives the same trees, however many threads there are.
        """
        _check_lightgbm()
        import lightgbm as lgb

        features = as_features(problem.X)
        leaf = min(self.min_rows_per_leaf, max(FEWEST_PER_LEAF, len(problem.train) // 100))
        columns = _frequent(features, problem.train, leaf)
        offset = float(problem.y[problem.train].mean())
        lgb.Sequence.register(_TrainingRows)
        data = lgb.Dataset(
            _TrainingRows(features, problem.train, columns),
            label=problem.y[problem.train] - offset,
            weight=problem.weight[problem.train],
            params=self._parameters(problem.seed, leaf),
        )
        held_out: NDArray[np.float32] | None = None
        if self.patience and len(problem.validation):
            held_out = _block(features, problem.validation, columns)
        boosters = []
        for member in range(self.members):
            parameters = self._parameters(problem.seed + member, leaf)
            boosters.append(self._grow(problem, parameters, data, held_out, offset))
        return BoostedTrees(self, features.dense.shape[1], features.n_sparse, columns, offset, boosters)

    def _grow(
        self,
        problem: Problem,
        parameters: dict[str, Any],
        data: "lgb.Dataset",
        held_out: NDArray[np.float32] | None,
        offset: float,
    ) -> "lgb.Booster":
        """Return one member, cut to the length at which its error on the rows held out is least."""
        import lightgbm as lgb

        callbacks: list[Callable[..., Any]] = []
        held: list[lgb.Dataset] = []
        judged = _OneSided(problem, problem.validation, offset, self.objective == "censored")
        if held_out is not None:
            callbacks.append(lgb.early_stopping(self.patience, verbose=False))
            held.append(lgb.Dataset(held_out, label=problem.y[problem.validation] - offset, reference=data))
        if self.objective == "censored":
            parameters["objective"] = _OneSided(problem, problem.train, offset, True).gradient
        booster = lgb.train(
            parameters, data, self.n_trees, valid_sets=held, feval=judged.mean_square, callbacks=callbacks
        )
        return lgb.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))

    def _parameters(self, seed: int, leaf: int) -> dict[str, Any]:
        """Return the options by LightGBM's names."""
        return {
            "objective": "huber" if self.objective == "huber" else "regression",
            "alpha": self.huber_delta,
            "metric": "None",
            "boost_from_average": False,
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": leaf,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.row_fraction,
            "bagging_freq": int(self.row_fraction < 1),
            "max_bin": self.max_bin,
            "bin_construct_sample_cnt": BIN_ROWS,
            "lambda_l2": self.l2,
            "seed": seed,
            "deterministic": True,
            "force_col_wise": True,
            "num_threads": _threads(),
            "verbosity": -1,
        }

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> "BoostedTrees":
        """Return the trees that `state` was taken from."""
        return BoostedTrees.from_state(state)


@dataclass(frozen=True)
class BoostedTrees:
    """Ensembles of trees that read the same columns; their mean is the prediction.

    Attributes
    ----------
    options : what they were grown with
    n_dense, n_sparse : columns of the features that they read
    columns : (n_kept,) the sparse columns that are read
    offset : the training mean, which every prediction begins with
    boosters : one per member
    """

    options: Trees
    n_dense: int
    n_sparse: int
    columns: NDArray[np.intp]
    offset: float
    boosters: "list[lgb.Booster]" = field(repr=False)

    def predict(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples,) predicted pKd, the mean over the members."""
        return self.predict_with_sd(X, rows)[0]

    def predict_with_sd(self, X: Inputs, rows: Rows | None = None) -> tuple[FloatArray, FloatArray | None]:
        """Return (n_samples,) predicted pKd, and the SD over the members; None of a single one."""
        return mean_and_sd(self.predict_members(X, rows))

    def predict_members(self, X: Inputs, rows: Rows | None = None) -> FloatArray:
        """Return (n_samples, n_members) predicted pKd.

        Raises
        ------
        FeatureError
            When the features have not the columns that the trees were grown on.
        """
        features = as_features(X)
        found = (features.dense.shape[1], features.n_sparse)
        if found != (self.n_dense, self.n_sparse):
            raise FeatureError(
                f"The features must have {self.n_dense:,} dense and {self.n_sparse:,} sparse columns, as in training; "
                f"got {found[0]:,} and {found[1]:,}. Compute them with the pipeline that was trained with the model."
            )
        chosen, threads = all_rows(X, rows), _threads()
        predicted = np.empty((len(chosen), len(self.boosters)))
        start = 0
        for piece in chunks(chosen):
            block = _block(features, piece, self.columns)
            for member, booster in enumerate(self.boosters):
                predicted[start : start + len(piece), member] = booster.predict(block, num_threads=threads)
            start += len(piece)
        return predicted + self.offset

    def describe(self) -> str:
        """Return the size in words, as a run prints it."""
        counts = sorted({booster.num_trees() for booster in self.boosters})
        trees = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        many = f"{len(self.boosters)} times " if len(self.boosters) > 1 else ""
        sparse = f" and {len(self.columns):,} of {self.n_sparse:,} sparse" if self.n_sparse else ""
        return (
            f"{many}{trees} boosted trees of up to {self.options.num_leaves} leaves "
            f"on {self.n_dense:,} dense{sparse} columns"
        )

    def to(self, device: "torch.device") -> Self:
        """Return the same: trees are followed on the processor."""
        return self

    def state(self) -> dict[str, Any]:
        """Return options, columns and the trees in LightGBM's text format."""
        return {
            "options": asdict(self.options),
            "n_dense": self.n_dense,
            "n_sparse": self.n_sparse,
            "columns": self.columns,
            "offset": self.offset,
            "trees": [booster.model_to_string() for booster in self.boosters],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the trees that `state` was taken from."""
        _check_lightgbm()
        import lightgbm as lgb

        return cls(
            read_options(Trees, state["options"], "model"),
            int(state["n_dense"]),
            int(state["n_sparse"]),
            np.asarray(state["columns"], np.intp),
            float(state["offset"]),
            [lgb.Booster(model_str=text) for text in state["trees"]],
        )


class _TrainingRows:
    """The training rows as LightGBM asks for them: a batch at a time, so that the table is never there twice.

    It is what LightGBM calls a `Sequence`, and registered as one where it is handed over.
    """

    def __init__(self, features: Features, rows: Rows, columns: NDArray[np.intp]) -> None:
        self._features, self._rows, self._columns = features, rows, columns
        self._place = np.full(features.n_sparse, -1, np.intp)
        self._place[columns] = features.dense.shape[1] + np.arange(len(columns))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> NDArray[Any]:
        if isinstance(at, slice):
            return _block(self._features, self._rows[at], self._columns)
        # Tens of thousands of single rows are asked for to lay the bins; SciPy takes too long over each.
        row, n_dense = self._rows[at], self._features.dense.shape[1]
        values = np.zeros(n_dense + len(self._columns))
        values[:n_dense] = self._features.dense[row]
        sparse = self._features.sparse
        if sparse is not None:
            lit = slice(sparse.indptr[row], sparse.indptr[row + 1])
            places = self._place[sparse.indices[lit]]
            np.add.at(values, places[places >= 0], sparse.data[lit][places >= 0])
        return values


@dataclass(frozen=True)
class _OneSided:
    """Squared errors of `rows`, of which those that a "<" or ">" label allows count as none where `censored`."""

    problem: Problem
    rows: Rows
    offset: float
    censored: bool

    def gradient(self, predicted: FloatArray, data: "lgb.Dataset") -> tuple[FloatArray, FloatArray]:
        """Return the weighted first and second derivatives of half the squared errors."""
        weight = self.problem.weight[self.rows]
        errors, counts = self._errors(predicted)
        return errors * weight, np.where(counts, weight, 0.0)

    def mean_square(self, predicted: FloatArray, data: "lgb.Dataset") -> tuple[str, float, bool]:
        """Return the mean squared error with equal weights, as LightGBM wants it: (name, value, more is better)."""
        return "error", float(np.square(self._errors(predicted)[0]).mean()), False

    def _errors(self, predicted: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        errors = predicted + self.offset - self.problem.y[self.rows]
        relation = self.problem.relation[self.rows]
        allowed = ((relation == "<") & (errors < 0)) | ((relation == ">") & (errors > 0))
        counts = ~(allowed & self.censored)
        return np.where(counts, errors, 0.0), counts


def _frequent(features: Features, rows: Rows, least: int) -> NDArray[np.intp]:
    """Return the sparse columns that at least so many of `rows` have."""
    if features.sparse is None:
        return np.empty(0, np.intp)
    return np.flatnonzero(np.bincount(features.sparse[rows].indices, minlength=features.n_sparse) >= least)


def _block(features: Features, rows: Rows, columns: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return (n_samples, n_dense + n_kept) all columns of a few rows, the sparse ones made dense."""
    if features.sparse is None:
        return features.dense[rows]
    return np.hstack([features.dense[rows], features.sparse[rows][:, columns].toarray()])


def _check_lightgbm() -> None:
    """Refuse to go on where LightGBM cannot be loaded: pip brings it without OpenMP's library, which it needs."""
    try:
        import lightgbm  # noqa: F401
    except OSError as error:
        raise TailbindError(
            "LightGBM must find OpenMP's library, libgomp or on macOS libomp; loading it failed: "
            f"{(str(error) or type(error).__name__).splitlines()[0]}. "
            "Install it: apt-get install libgomp1 on Debian and Ubuntu, dnf install libgomp on Fedora, brew install "
            "libomp on macOS."
        ) from error


def _threads() -> int:
    """Return how many threads PyTorch uses, which follows OMP_NUM_THREADS: one number for the whole program."""
    import torch

    return torch.get_num_threads()
