"""Predictions of a run → the figures of `metrics.json`, and the baselines they are held against."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.evaluation.censoring import evaluate_censored
from tailbind.evaluation.criteria import ALL_ROWS, MEASURED_ROWS
from tailbind.evaluation.domains import by_domain
from tailbind.evaluation.metrics import evaluate, intervals
from tailbind.evaluation.retrieval import find_binders, retrieval_intervals
from tailbind.features.domain import Domain
from tailbind.models.baselines import Ridge, SourceMean, TrainingMean
from tailbind.scale import BIN_NAMES, bin_index
from tailbind.table.features import Features
from tailbind.table.schema import MEASURED, AffinityTable
from tailbind.table.splitting import TEST, TRAIN
from tailbind.workflows.plan import AS_BOUNDS, AS_MEASURED, LEFT_OUT

#: How many of the most repeated label values a report shows, and how often a value must occur to be shown.
REPEATED_SHOWN: Final = 5
REPEATED_AT_LEAST: Final = 0.005

Rows = Mapping[str, NDArray[np.intp]]


def score(
    pkd: NDArray[np.float64],
    predicted: NDArray[np.float64],
    relation: NDArray[np.str_],
    *,
    clusters: NDArray[np.intp] | None = None,
    why: str = "",
    marked: str = AS_MEASURED,
) -> dict[str, Any]:
    """Return every figure of predictions: as stated, with intervals; on measured rows alone; on censored rows.

    Where the predictions are to be judged by their measured rows, these have intervals too.

    Parameters
    ----------
    pkd, predicted : (n_samples,) pKd
    relation : (n_samples,) "=", "<" or ">"
    clusters : (n_samples,) families of antibodies, which the intervals' bootstrap draws whole
    why : where they are unknown, why; kept beside the intervals
    marked : what training did with labels marked < or >, see `Plan.marked_labels`
    """

    def drawn(rows: NDArray[np.bool_]) -> dict[str, Any]:
        of_rows = None if clusters is None else clusters[rows]
        return {**intervals(pkd[rows], predicted[rows], clusters=of_rows), "why": "" if clusters is not None else why}

    figures = _figures(pkd, predicted, relation)
    if judged_rows(figures, marked) == MEASURED_ROWS:
        figures["measured"]["intervals"] = drawn(relation == MEASURED)
    of_binders = retrieval_intervals(pkd, predicted, relation, clusters=clusters)
    retrieval = {name: {**entry, "intervals": of_binders[name]} for name, entry in figures["retrieval"].items()}
    return {**figures, "retrieval": retrieval, "intervals": drawn(np.ones(len(pkd), bool))}


def judged_rows(figures: Mapping[str, Any], marked: str) -> str:
    """Return which rows a grade goes by: the measured ones, where marked labels were not learned as if measured.

    A model that takes bounds as bounds rightly predicts below a floor; held against the floor itself, it would be
    charged for that. Without a marked row, or with none but marked ones, it goes by all.

    Parameters
    ----------
    figures : with `measured` and `censored`
    marked : what training did with labels marked < or >, see `Plan.marked_labels`

    Examples
    --------
    >>> figures = {"measured": {"n": 80}, "censored": {"n": 20}}
    >>> judged_rows(figures, AS_BOUNDS), judged_rows(figures, AS_MEASURED)
    ('measured', 'all')
    """
    both = figures["censored"]["n"] and figures["measured"]["n"]
    return MEASURED_ROWS if both and marked != AS_MEASURED else ALL_ROWS


def _figures(pkd: NDArray[np.float64], predicted: NDArray[np.float64], relation: NDArray[np.str_]) -> dict[str, Any]:
    measured = relation == MEASURED
    return {
        **evaluate(pkd, predicted),
        "measured": evaluate(pkd[measured], predicted[measured]),
        "censored": evaluate_censored(pkd, predicted, relation),
        "retrieval": find_binders(pkd, predicted, relation),
    }


def errors_by_domain(
    domain: Domain,
    table: AffinityTable,
    rows: NDArray[np.intp],
    predicted: NDArray[np.float64],
    words: pl.Series,
    judged: str,
) -> dict[str, Any]:
    """Return what `metrics.json` says of the domains of predicted rows.

    Parameters
    ----------
    table : with labels
    rows : (n,) its rows that were predicted
    predicted : (n,) pKd
    words : (n,) their domains
    judged : which rows the figures are of: the measured ones, or all
    """
    of = table.relation[rows] == MEASURED if judged == MEASURED_ROWS else np.ones(len(rows), bool)
    figures = by_domain(table.pkd[rows][of], predicted[of], words.to_numpy().astype(np.str_)[of])
    return {"limits": domain.limits(), "rows": judged, "test": figures}


def describe_training(pkd: NDArray[np.float64]) -> dict[str, Any]:
    """Return size, mean, SD and bin counts of the training labels."""
    counts = np.bincount(bin_index(pkd), minlength=len(BIN_NAMES)).tolist()
    return {
        "n": len(pkd),
        "label_mean": float(pkd.mean()),
        "label_sd": float(pkd.std()),
        "bins": dict(zip(BIN_NAMES, counts, strict=True)),
    }


def describe_labels(table: AffinityTable, train: NDArray[np.intp], marked: str) -> dict[str, Any]:
    """Return how many labels are censored, how training took them, and the values that many share: often floors.

    Parameters
    ----------
    train : training rows
    marked : what training did with those marked < or >, see `Plan.marked_labels`
    """
    values, counts = np.unique(table.pkd, return_counts=True)
    censored = table.relation != MEASURED
    order = [i for i in np.argsort(-counts)[:REPEATED_SHOWN] if counts[i] >= max(2, REPEATED_AT_LEAST * len(table))]
    return {
        "n": len(table),
        "censored": int(censored.sum()),
        **{way: int(censored[train].sum()) if way == marked else 0 for way in (AS_MEASURED, AS_BOUNDS, LEFT_OUT)},
        "shown_from": REPEATED_AT_LEAST,
        "most_repeated": [
            {
                "value": float(values[i]),
                "n": int(counts[i]),
                "share": float(counts[i] / len(table)),
                "censored": int(censored[table.pkd == values[i]].sum()),
            }
            for i in order
        ],
    }


def baselines(table: AffinityTable, features: Features, rows: Rows, ridge: Ridge) -> dict[str, dict[str, Any] | None]:
    """Return the trivial predictors' figures on the test rows; the source's mean None for a single source.

    Parameters
    ----------
    ridge : fitted on the training rows, its penalty chosen on the validation rows
    """
    train, test = rows[TRAIN], rows[TEST]
    source = table.source
    predictions = {
        "training_mean": TrainingMean().fit(features, table.pkd, train).predict(features, test),
        "source_mean": SourceMean().fit(source, table.pkd, train).predict(source, test)
        if len(np.unique(source)) > 1
        else None,
        "ridge": ridge.predict(features, test),
    }
    return {
        name: None if predicted is None else _figures(table.pkd[test], predicted, table.relation[test])
        for name, predicted in predictions.items()
    }
