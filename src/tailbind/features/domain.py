"""Whether a prediction is about what the model knows: inside, at the edge, or outside, and how near training is.

Of rows whose model reads sequences, the antibody and the antigen are each held against the nearest of training; of
rows of feature columns, their distance to the training rows. What counts as near is told by the validation rows: the
figures of a run are about rows as far from training as these.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.evaluation.domains import DOMAINS, EDGE, INSIDE, OUTSIDE
from tailbind.features.cloud import Cloud, fit_cloud
from tailbind.sequences.known import Known, gather_known
from tailbind.table.features import Features
from tailbind.table.grouping import FAMILY_IDENTITY
from tailbind.table.schema import AffinityTable

Array = NDArray[np.float64]
Levels = NDArray[np.intp]

#: What still counts as inside: as near training as all but this share of the validation rows.
BEYOND_INSIDE: Final = 0.05
#: The edge, by distance: as near as all but this share. By identity, a relative of `FAMILY_IDENTITY`; or, where more
#: than the second share of the validation rows are themselves no such relatives, as near as all but that share.
BEYOND_EDGE: Final = 0.01
FAR_OF_STRANGERS: Final = 0.25
#: Five of a hundred letters changed is 95 %, whatever the last digit of its floating-point number says.
_ROUNDING: Final = 1e-6
_INSIDE, _EDGE, _OUTSIDE = (DOMAINS.index(word) for word in (INSIDE, EDGE, OUTSIDE))
#: Raised whenever a file of before cannot be read as one of now.
VERSION: Final = 1


@dataclass(frozen=True)
class Kin:
    """The antibodies of the training rows, or their antigens, and how near to them is near.

    Attributes
    ----------
    known : its distinct sequences; an antibody's heavy and light chain in one
    names : what stood for it where training had no sequence; "" for nothing
    inside : identity to the nearest from which a row is inside
    edge : from which it is at the edge; below, outside
    """

    known: Known
    names: tuple[str, ...]
    inside: float
    edge: float

    def levels(self, identity: Array, sequences: pl.Series, names: pl.Series) -> Levels:
        """Return (n,) the place in `DOMAINS` of each row.

        What has no sequence is known by its name. No sequence where training always had one is outside. Where
        training knew nothing at all, as of the antigen that all of a table is measured against, every row is inside.

        Parameters
        ----------
        identity : (n,) to the nearest of training
        sequences, names : (n,) of the rows; "" for none
        """
        if not len(self.known) and not any(self.names):
            return np.full(len(sequences), _INSIDE)
        given = (sequences != "").to_numpy()
        near = np.where(identity >= self.inside - _ROUNDING, _INSIDE, _EDGE)
        of_sequence = np.where(identity >= self.edge - _ROUNDING, near, _OUTSIDE)  # nan: training had none
        by_name = np.where(names.is_in(self.names).to_numpy(), _INSIDE, _OUTSIDE)
        return np.where(given, of_sequence, by_name).astype(np.intp)


@dataclass(frozen=True)
class Domain:
    """What training knew, as far as it takes to tell what it did not.

    Attributes
    ----------
    antibodies, antigens : of the training rows
    cloud : the training rows' features, for a model that reads no sequences; None for one that does
    reach : (2,) distances from the cloud up to which a row is inside, and at the edge
    pkd : (2,) beyond which a prediction is outside: the training labels' range, widened by their SD at both ends
    """

    antibodies: Kin
    antigens: Kin
    cloud: Cloud | None
    reach: tuple[float, float]
    pkd: tuple[float, float]

    def judge(
        self, table: AffinityTable, features: Features, predicted: Array, rows: NDArray[np.intp] | None = None
    ) -> pl.DataFrame:
        """Return the columns that tell of each row how near training is; null where there is no prediction.

        Parameters
        ----------
        table : of n_samples rows
        features : of these rows, as the model reads them
        predicted : (n_rows,) pKd; nan for rows without features
        rows : (n_rows,) row numbers of those that were predicted; all unless given

        Returns
        -------
        DataFrame
            `antibody_identity` and `antigen_identity`, from 0 to 1, each where training had any; `domain`
        """
        frame = table.frame if rows is None else table.frame[rows.tolist()]
        known = np.isfinite(predicted)
        levels = np.where((predicted < self.pkd[0]) | (predicted > self.pkd[1]), _OUTSIDE, _INSIDE)
        if features.unseen is not None:
            unseen = features.unseen if rows is None else features.unseen[rows]
            levels = np.maximum(levels, np.where(unseen != "", _EDGE, _INSIDE))
        if self.cloud is not None:
            distance = self.cloud.distance(features.dense, rows)
            levels = np.maximum(levels, np.searchsorted(self.reach, distance, side="left"))
        columns: dict[str, pl.Series] = {}
        for name, kin in (("antibody", self.antibodies), ("antigen", self.antigens)):
            sequences, names = _of_rows(frame, name)
            distinct = sequences.filter(known).unique().sort()
            identities = kin.known.identity(distinct.to_list())
            found = pl.DataFrame({name: distinct, "identity": identities}, schema_overrides={"identity": pl.Float64})
            identity = sequences.to_frame(name).join(found, on=name, how="left", maintain_order="left")["identity"]
            if self.cloud is None:
                levels = np.maximum(levels, kin.levels(identity.fill_null(np.nan).to_numpy(), sequences, names))
            if len(kin.known):
                columns[f"{name}_identity"] = _where(known, identity.fill_nan(None))
        words = pl.Series("domain", np.asarray(DOMAINS, dtype=object)[levels], dtype=pl.String)
        columns["domain"] = _where(known, words)
        return pl.DataFrame(columns)

    def limits(self) -> dict[str, Any]:
        """Return from which figures on a row is inside, and at the edge, as `metrics.json` has them."""
        of_features = None if self.cloud is None else {"inside": self.reach[0], "edge": self.reach[1]}
        of_kin = {
            f"{name}_identity": {"inside": kin.inside, "edge": kin.edge} if len(kin.known) else None
            for name, kin in (("antibody", self.antibodies), ("antigen", self.antigens))
        }
        return {**of_kin, "distance": of_features, "predicted_pkd": list(self.pkd)}

    def frame(self) -> pl.DataFrame:
        """Return all that rebuilds it, a row for each thing: `what` it is, and its `text` or `numbers`."""
        limits = {name: {"inside": kin.inside, "edge": kin.edge} for name, kin in self._kin()}
        settings = {"version": VERSION, "pkd": self.pkd, "reach": self.reach, **limits}
        rows: list[tuple[str, str | None, NDArray[Any] | None]] = [("settings", json.dumps(settings), None)]
        for name, kin in self._kin():
            rows += [(name, sequence, None) for sequence in kin.known.sequences]
            rows += [(f"{name} cells", None, kin.known.cell), (f"{name} centres", None, kin.known.centres)]
            rows += [(f"{name} without sequence", text, None) for text in kin.names]
        if self.cloud is not None:
            rows += [("mean", None, self.cloud.mean), ("scale", None, self.cloud.scale)]
            rows += [("component", None, component) for component in self.cloud.components]
            rows += [("point", None, point) for point in self.cloud.points]
        what, text, numbers = zip(*rows, strict=True)
        lists = [None if values is None else values.tolist() for values in numbers]
        schema: dict[str, Any] = {"what": pl.String, "text": pl.String, "numbers": pl.List(pl.Float64)}
        return pl.DataFrame({"what": what, "text": text, "numbers": lists}, schema=schema)

    def _kin(self) -> tuple[tuple[str, Kin], tuple[str, Kin]]:
        return ("antibody", self.antibodies), ("antigen", self.antigens)

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> "Domain":
        """Return what `frame` was taken from.

        Raises
        ------
        ValueError, KeyError, polars.exceptions.PolarsError
            When it is of something else.
        """
        parts = {str(what): part for (what,), part in frame.group_by("what", maintain_order=True)}
        settings = json.loads(parts["settings"]["text"][0])
        if settings["version"] != VERSION:
            raise ValueError(f"version {settings['version']}")

        def texts(what: str) -> tuple[str, ...]:
            return tuple(parts[what]["text"]) if what in parts else ()

        def known(what: str) -> Known:
            cells, centres = (parts[f"{what} {of}"]["numbers"][0].to_numpy().astype(np.intp) for of in _OF_KNOWN)
            return Known(texts(what), centres, cells)

        kin = [
            Kin(known(name), texts(f"{name} without sequence"), settings[name]["inside"], settings[name]["edge"])
            for name in ("antibody", "antigen")
        ]
        cloud = None
        if "mean" in parts:
            numbers = [np.stack([row.to_numpy() for row in parts[what]["numbers"]]) for what in _OF_CLOUD]
            cloud = Cloud(numbers[0][0], numbers[1][0], numbers[2], numbers[3])
        return cls(kin[0], kin[1], cloud, tuple(settings["reach"]), tuple(settings["pkd"]))


_OF_KNOWN: Final = ("cells", "centres")
_OF_CLOUD: Final = ("mean", "scale", "component", "point")


def fit_domain(
    table: AffinityTable,
    features: Features,
    train: NDArray[np.intp],
    validation: NDArray[np.intp],
    *,
    learned: NDArray[np.intp] | None = None,
    reads_sequences: bool,
) -> Domain:
    """Return what the training rows know, and how far from them the validation rows lie.

    Parameters
    ----------
    table : with labels
    features : of every row, as the model reads them
    train, validation : row numbers
    learned : the rows that the model has learned from in the end, which may be both; the training rows unless given
    reads_sequences : whether the model reads sequences, or else the table's own feature columns
    """
    learned = train if learned is None else learned
    pkd, spread = table.pkd[learned], float(table.pkd[learned].std())
    cloud, reach = None, (np.inf, np.inf)
    if not reads_sequences and features.dense.shape[1]:
        cloud = fit_cloud(features.dense, train)
        found = np.quantile(cloud.distance(features.dense, validation), [1 - BEYOND_INSIDE, 1 - BEYOND_EDGE])
        reach = float(found[0]), float(found[1])
    return Domain(
        _fit_kin(table.frame, "antibody", train, validation, learned),
        _fit_kin(table.frame, "antigen", train, validation, learned),
        cloud,
        reach,
        (float(pkd.min()) - spread, float(pkd.max()) + spread),
    )


def _fit_kin(
    frame: pl.DataFrame,
    name: str,
    train: NDArray[np.intp],
    validation: NDArray[np.intp],
    learned: NDArray[np.intp],
) -> Kin:
    """Return the antibodies or antigens of training; a relative of 90 % is never outside, nor a stranger inside."""
    sequences, names = _of_rows(frame, name)
    own = sequences.gather(learned)
    without = names.gather(learned).filter(own == "").unique().sort()
    known = gather_known(own.to_list())
    of_train = known if learned is train else gather_known(sequences.gather(train).to_list())
    identity = of_train.identity(sequences.gather(validation).to_list())
    identity = identity[np.isfinite(identity)]
    inside = edge = FAMILY_IDENTITY
    if len(identity):
        low, far = np.quantile(identity, [BEYOND_INSIDE, FAR_OF_STRANGERS], method="lower")
        inside, edge = max(inside, float(low)), min(edge, float(far))
    return Kin(known, tuple(without), inside, edge)


def _of_rows(frame: pl.DataFrame, name: str) -> tuple[pl.Series, pl.Series]:
    """Return (n_samples,) the sequence of each row's antibody or antigen, and what may stand for it; "" for none."""
    chains = ("heavy", "light") if name == "antibody" else ("antigen",)
    sequences = frame.select(pl.concat_str([pl.col(chain).fill_null("") for chain in chains]).alias(name))[name]
    nothing = pl.repeat("", len(frame), dtype=pl.String, eager=True)
    return sequences, nothing if name == "antibody" else frame["antigen_name"].fill_null("")


def _where(chosen: NDArray[np.bool_], values: pl.Series) -> pl.Series:
    """Return the values of the rows chosen, null elsewhere."""
    return pl.select(pl.when(pl.lit(pl.Series(chosen))).then(pl.lit(values))).to_series()
