"""How sure a prediction is: conformal intervals and tail probabilities from rows that nothing was learned from.

Errors on calibration rows, each divided by the error that was to be expected of its row, tell how far the truth lies
from a prediction: split conformal predictive systems (Vovk, Nouretdinov, Manokhin and Gammerman 2018, COPA) with
normalised residuals, one for each landscape that has enough rows and one for all others together (Mondrian). Where
calibration rows and new rows are drawn alike, an interval of 90 % holds nine of ten measured values, whatever the
model; for strangers it promises nothing.

What error is to be expected is learned too (`Difficulty`), out of fold, so that intervals are narrow where the model is
good. Rows measured in the tails have scores of their own beside (label-conditional: Vovk 2012, ACML), by which an
interval that reaches a tail at all reaches far enough into it. The computation is that of crepes (Boström 2022, COPA),
which tests hold it against; it is written out because crepes goes through all calibration rows for each prediction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from tailbind.options import bounded, one_of
from tailbind.scale import BIN_EDGES

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

OWN, ON_VALIDATION, NONE = "own", "validation", "none"
#: Calibration rows from which there are intervals at all, and from which a landscape has scores of its own.
FEWEST: Final = 40
FEWEST_OF_LANDSCAPE: Final = 150
#: Labels below are very weak, from here on very strong.
WEAKEST, STRONGEST = BIN_EDGES[0], BIN_EDGES[-1]
#: Rows from which expected errors are learned by trees; of fewer, as a share of the predicted SD.
ENOUGH_FOR_TREES: Final = 1_000
#: Expected errors are taken as no smaller than this share of their median.
_SMALLEST: Final = 0.05
_FOLDS: Final = 5
_TREES: Final[Mapping[str, Any]] = {
    "objective": "l1",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.8,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbose": -1,
}
_N_TREES: Final = 150


@dataclass(frozen=True)
class Calibration:
    """Options of intervals.

    Attributes
    ----------
    rows : what they are calibrated on. `own`: rows that chose nothing, either predictions out of fold, where a blend
        makes them, or a share of the validation rows, set apart as the split keeps things apart; `validation`: the
        validation rows, which chose the model too, so that intervals may be a little narrow; `none`: no intervals
    share : of the validation rows that `own` sets apart
    level : share of measured values that an interval is to hold
    """

    rows: str = one_of(ON_VALIDATION, (OWN, ON_VALIDATION, NONE))
    share: float = bounded(0.5, low=0.1, high=0.9)
    level: float = bounded(0.9, low=0.5, high=0.99)


@dataclass(frozen=True)
class Difficulty:
    """What error is to be expected of a row.

    Attributes
    ----------
    trees : LightGBM's text; "" where `line` is used
    line : (2,) a number of pKd, and how many times the predicted SD comes to it
    landscapes : codes of those that the trees know
    smallest : least expected error, pKd
    """

    trees: str
    line: Array
    landscapes: Codes
    smallest: float

    @classmethod
    def fit(cls, X: NDArray[np.float32], sd: Array, landscape: Codes, error: Array, *, trees: bool) -> Self:
        """Learn from absolute errors.

        Parameters
        ----------
        X : (n_samples, n_inputs) what may tell how hard a row is; nan where unknown
        sd : (n_samples,) the model's own SD; 0 where it has none
        landscape : (n_samples,) code of the row's landscape
        error : (n_samples,) absolute error, pKd
        trees : whether by trees, or as a line in `sd`
        """
        smallest = max(_SMALLEST * float(np.median(error)), 1e-3)
        if not trees:
            from scipy.optimize import nnls

            inputs = np.column_stack([np.ones(len(sd)), sd])
            line = nnls(inputs, error)[0]
            return cls("", line if line.any() else np.array([smallest, 0.0]), np.empty(0, np.int64), smallest)
        import lightgbm as lgb

        known = np.unique(landscape)
        data = lgb.Dataset(_with_landscape(X, landscape, known), error, categorical_feature=[0], params={"verbose": -1})
        return cls(lgb.train(dict(_TREES), data, _N_TREES).model_to_string(), np.zeros(2), known, smallest)

    def predict(self, X: NDArray[np.float32], sd: Array, landscape: Codes) -> Array:
        """Return (n_samples,) expected absolute errors, pKd."""
        if not self.trees:
            expected: Array = np.maximum(self.line[0] + self.line[1] * sd, self.smallest)
            return expected
        import lightgbm as lgb

        booster = lgb.Booster(model_str=self.trees)
        found = booster.predict(_with_landscape(X, landscape, self.landscapes))
        return np.maximum(np.asarray(found, np.float64), self.smallest)


@dataclass(frozen=True)
class Conformal:
    """Calibrated intervals and probabilities.

    Attributes
    ----------
    difficulty : what error is to be expected of a row
    scores : of each landscape with enough calibration rows, by its code, their errors (measured minus predicted) over
        the expected ones, ascending; under −1, for the other landscapes, those of the rows of all of these together,
        or of all rows where even they are too few
    tails : the same of the calibration rows measured as very weak, and as very strong; empty where they are few
    level : of intervals, where none other is asked for
    """

    difficulty: Difficulty
    scores: Mapping[int, Array]
    tails: tuple[Array, Array]
    level: float

    @classmethod
    def fit(
        cls,
        y_true: Array,
        y_pred: Array,
        X: NDArray[np.float32],
        sd: Array,
        landscape: Codes,
        level: float,
        groups: NDArray[np.intp],
    ) -> Self:
        """Calibrate on measured rows that nothing was learned from.

        Parameters
        ----------
        y_true, y_pred : (n_samples,) pKd
        X, sd, landscape : as for `Difficulty.fit`; landscapes have codes from 0 on
        level : share of measured values that an interval is to hold
        groups : (n_samples,) what is dealt into the same fold, such as replicates
        """
        error = y_true - y_pred
        trees = len(error) >= ENOUGH_FOR_TREES
        whole = Difficulty.fit(X, sd, landscape, np.abs(error), trees=trees)
        expected = whole.predict(X, sd, landscape)
        if trees:  # they know the rows that they learned from; a line hardly does
            fold = np.random.default_rng(0).permutation(int(groups.max()) + 1)[groups] % _FOLDS
            for number in range(_FOLDS):
                own, rest = fold == number, fold != number
                if own.any() and rest.any():
                    part = Difficulty.fit(X[rest], sd[rest], landscape[rest], np.abs(error[rest]), trees=True)
                    expected[own] = part.predict(X[own], sd[own], landscape[own])
        score = error / expected
        codes, counts = np.unique(landscape, return_counts=True)
        enough = codes[counts >= FEWEST_OF_LANDSCAPE].tolist() if trees else []
        scores = {code: np.sort(score[landscape == code]) for code in enough}
        tails = (np.sort(score[y_true < WEAKEST]), np.sort(score[y_true >= STRONGEST]))
        weak, strong = (own if len(own) >= FEWEST else np.empty(0) for own in tails)
        others = ~np.isin(landscape, enough)
        rest = score[others] if others.sum() >= FEWEST_OF_LANDSCAPE else score
        return cls(whole, {**scores, -1: np.sort(rest)}, (weak, strong), level)

    def apply(self, y_pred: Array, X: NDArray[np.float32], sd: Array, landscape: Codes) -> "Applied":
        """Return what can be asked of rows with these predictions."""
        known = np.isin(landscape, list(self.scores))
        expected = self.difficulty.predict(X, sd, landscape)
        return Applied(y_pred, expected, np.where(known, landscape, -1), self.scores, self.tails, self.level)

    def state(self) -> dict[str, Any]:
        """Return all of it."""
        codes = sorted(self.scores)
        return {
            "trees": self.difficulty.trees,
            "line": self.difficulty.line,
            "landscapes": self.difficulty.landscapes,
            "smallest": self.difficulty.smallest,
            "codes": np.array(codes, np.int64),
            "ends": np.cumsum([len(self.scores[code]) for code in codes]),
            "scores": np.concatenate([self.scores[code] for code in codes]),
            "very_weak": self.tails[0],
            "very_strong": self.tails[1],
            "level": self.level,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return what `state` was taken from."""
        difficulty = Difficulty(
            str(state["trees"]),
            np.asarray(state["line"], np.float64),
            np.asarray(state["landscapes"], np.int64),
            float(state["smallest"]),
        )
        pieces = np.split(np.asarray(state["scores"], np.float64), np.asarray(state["ends"])[:-1])
        codes = np.asarray(state["codes"]).tolist()
        weak, strong = (np.asarray(state[name], np.float64) for name in ("very_weak", "very_strong"))
        return cls(difficulty, dict(zip(codes, pieces, strict=True)), (weak, strong), float(state["level"]))


@dataclass(frozen=True)
class Applied:
    """Predictions with their conformal distributions.

    Attributes
    ----------
    y_pred : (n_samples,) pKd
    expected : (n_samples,) absolute error to be expected
    landscape : (n_samples,) whose scores are used
    scores, tails : see `Conformal`
    level : of intervals
    """

    y_pred: Array
    expected: Array
    landscape: Codes
    scores: Mapping[int, Array]
    tails: tuple[Array, Array]
    level: float

    def interval(self, level: float | None = None) -> tuple[Array, Array]:
        """Return (n_samples,) lower and upper bounds, pKd; infinite where there are too few scores for the level.

        Of rows measured in a tail it is the outer bound that misses. So one that reaches the tail leaves out no more of
        them than the level allows in all.
        """
        out = (1 - (level or self.level)) / 2
        lowest, highest = _quantiles(self.scores[-1], out)
        low, high = np.empty((2, len(self.y_pred)))
        for rows, scores in self._landscapes():
            lower, upper = _quantiles(scores, out)  # too few of its own for the level: beyond all of them
            low[rows] = lower if np.isfinite(lower) else min(lowest, scores[0])
            high[rows] = upper if np.isfinite(upper) else max(highest, scores[-1])
        low, high = self.y_pred + low * self.expected, self.y_pred + high * self.expected
        weak, strong = self.tails
        if len(weak):
            weakest = self.y_pred + max(_quantiles(weak, 2 * out)[0], weak[0]) * self.expected
            low = np.where(low < WEAKEST, np.minimum(low, weakest), low)
        if len(strong):
            strongest = self.y_pred + min(_quantiles(strong, 2 * out)[1], strong[-1]) * self.expected
            high = np.where(high >= STRONGEST, np.maximum(high, strongest), high)
        return low, high

    def below(self, threshold: float) -> Array:
        """Return (n_samples,) the probability of a pKd below a threshold, by the conformal distribution."""
        found = np.empty(len(self.y_pred))
        for rows, scores in self._landscapes():
            reached = (threshold - self.y_pred[rows]) / self.expected[rows]
            found[rows] = (np.searchsorted(scores, reached) + 0.5) / (len(scores) + 1)
        return found

    def _landscapes(self) -> list[tuple[NDArray[np.intp], Array]]:
        return [(np.flatnonzero(self.landscape == code), self.scores[int(code)]) for code in np.unique(self.landscape)]


def _quantiles(scores: Array, out: float) -> tuple[float, float]:
    """Return the scores that leave a share `out` of new ones below and above.

    >>> _quantiles(np.arange(1.0, 20.0), 0.05), _quantiles(np.arange(3.0), 0.05)
    ((1.0, 19.0), (-inf, inf))
    """
    n = len(scores)
    lower, upper = int(np.floor(out * (n + 1) + 1e-9)) - 1, int(np.ceil((1 - out) * (n + 1) - 1e-9)) - 1
    return (float(scores[lower]) if lower >= 0 else -np.inf), (float(scores[upper]) if upper < n else np.inf)


def _with_landscape(X: NDArray[np.float32], landscape: Codes, known: Codes) -> NDArray[np.float32]:
    """Return the inputs, and before them the number of each row's landscape among those known; nan for others."""
    place = np.searchsorted(known, landscape)
    found = known[np.minimum(place, len(known) - 1)] == landscape
    return np.column_stack([np.where(found, place, np.nan), X]).astype(np.float32)
