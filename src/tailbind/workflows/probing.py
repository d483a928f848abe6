"""`tailbind probe`: how a finished run answers changed antibodies, held against what the table measured."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import RunError
from tailbind.evaluation.metrics import spearman
from tailbind.evaluation.probing import FEWEST_PAIRS, agreement, by_region, changes, scan
from tailbind.evaluation.verdicts import Verdict, judge, passes
from tailbind.predictor import Predictor, load
from tailbind.run_folder import RunFolder, open_finished_run
from tailbind.runtime import check_empty, computing_on, progress
from tailbind.sequences.laying import REGIONS
from tailbind.sequences.residues import BLOSUM62
from tailbind.table.grouping import numbered
from tailbind.table.mutants import Mutants, find_mutants, measured_pairs, other_antigens, target
from tailbind.table.schema import AffinityTable
from tailbind.table.splitting import TEST, TRAIN
from tailbind.workflows.probe_table import check_sequences, own_table, parts_of
from tailbind.workflows.probe_variants import (
    Regions,
    Substitutions,
    Variants,
    changed_rows,
    every_substitution,
    find_regions,
)
from tailbind.workflows.progress import default_console, working

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

#: Test rows that are changed as a whole: their CDRs, antigen and chains.
CHANGED_ROWS: Final = 200
#: Training antibodies of which every single substitution is predicted, unless told otherwise.
ANTIBODIES: Final = 3
#: Held-out measured single mutants, and antibodies with another antigen, that are predicted at most.
MOST_MUTANTS: Final = 4_000
#: Rows predicted at a time.
CHUNK: Final = 8_192
SEED: Final = 0
#: How the page calls the regions of the two chains.
REGION_NAMES: Final = tuple(name.replace("VH.", "heavy ").replace("VL.", "light ") for name in REGIONS)


@dataclass(frozen=True)
class Probe:
    """A probed run.

    Attributes
    ----------
    run : the run folder
    data : files of its table
    verdicts : a question and an answer each
    figures : what they go by, as `tailbind.evaluation.verdicts.judge` takes it
    scanned : row_id, heavy, light, antigen_name and source of each antibody whose single substitutions were predicted
    changed : way of changing rows → (n,) predicted changes; "scan" those of single substitutions
    mutants : (n,) measured and (n,) predicted changes of held-out single mutants
    n_predictions, seconds : what it took
    """

    run: Path
    data: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    figures: Mapping[str, Any]
    scanned: tuple[Mapping[str, str], ...]
    changed: Mapping[str, Array]
    mutants: tuple[Array, Array]
    n_predictions: int
    seconds: float

    @property
    def passes(self) -> bool:
        """Whether it is neither collapsed nor blind to mutations or antigens."""
        return passes(self.verdicts)

    def document(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "run": str(self.run),
            "data": list(self.data),
            "passes": self.passes,
            "verdicts": [verdict.document() for verdict in self.verdicts],
            "figures": dict(self.figures),
            "scanned": [dict(antibody) for antibody in self.scanned],
            "n_predictions": self.n_predictions,
            "seconds": self.seconds,
        }


def probe(
    run: str | Path,
    *,
    data: str | Path | Sequence[str | Path] | None = None,
    out: str | Path | None = None,
    antibodies: int = ANTIBODIES,
    device: str = "auto",
    cache: bool = True,
    notify: Callable[[str], None] = lambda _: None,
) -> Probe:
    """Ask a finished run what every affinity model is asked: does it react to mutations, CDRs, antigens?

    Parameters
    ----------
    run : folder of a finished run whose features are computed from sequences
    data : the run's own table, where it is no longer where the run found it
    out : new folder for `probe.html`, `.txt` and `.json`; none unless given
    antibodies : training antibodies of which every single substitution is predicted, at least 1
    device : auto, cpu or cuda
    cache : take a long table from the user's cache, as `read_table` does
    notify : told what is worth knowing, a sentence at a time

    Raises
    ------
    RunError, TableError, FeatureError
        When the run is not finished or an export, its table not there or another, or its features not made of
        sequences.
    """
    from tailbind.workflows.probe_page import write_probe

    started = time.monotonic()
    if antibodies < 1:
        raise RunError(f"--antibodies must be at least 1; got {antibodies}.")
    folder = None if out is None else Path(out)
    if folder is not None:
        check_empty(folder)
    finished = open_finished_run(run)
    if finished.is_export:
        raise RunError(
            f"{finished.path} must be a run that `tailbind train` wrote; it is an export, which says nothing of the "
            "rows that were kept for the test. Probe the run."
        )
    predictor = load(finished.path, device)
    check_sequences(finished, predictor)
    table = own_table(finished, predictor, data, cache=cache)
    parts = parts_of(finished, table)
    with working(default_console(stderr=True), "Probing", notify), computing_on(device):
        result = _probed(finished, _Asked(predictor, table), parts, antibodies, started)
    if folder is not None:
        write_probe(result, folder)
    return result


@dataclass(frozen=True)
class _Answers:
    """What the predictor said of some rows.

    Attributes
    ----------
    pkd : (n,) predicted, or how far it is from the rows' own; nan for none
    unseen : (n,) whether it names something that training never saw; None where it never does
    flagged : (n,) the same, or whether it calls a row outside of what it knows; None where it never says either
    """

    pkd: Array
    unseen: NDArray[np.bool_] | None
    flagged: NDArray[np.bool_] | None

    @property
    def share_flagged(self) -> float | None:
        return None if self.flagged is None or not len(self.flagged) else float(self.flagged.mean())


class _Asked:
    """A model and its table: answers for rows and for changed rows, each row asked once."""

    def __init__(self, predictor: Predictor, table: AffinityTable) -> None:
        self.predictor, self.table = predictor, table
        self.n_predictions = 0
        self._known = np.full(len(table), np.nan)
        self._asked = np.zeros(len(table), np.bool_)

    def rows(self, rows: Rows) -> Array:
        """Return (n,) the predicted pKd of rows of the table."""
        new = np.unique(rows[~self._asked[rows]])
        if len(new):
            self._known[new] = self._frame(self.table.frame[new.tolist()], "Predicting rows").pkd
            self._asked[new] = True
        return self._known[rows]

    def change(self, variants: Variants, what: str) -> _Answers:
        """Return how far the changed rows' predictions are from their own rows'."""
        answers = self._frame(variants.frame, what)
        return replace(answers, pkd=answers.pkd - self.rows(variants.base))

    def _frame(self, frame: pl.DataFrame, what: str) -> _Answers:
        frame = frame.with_columns(row_id=pl.int_range(pl.len()).cast(pl.String))
        said = []
        with progress(what) as tell:
            for start in range(0, len(frame), CHUNK):
                tell(start, len(frame))
                part = frame[start : start + CHUNK]
                table = AffinityTable(part, np.empty((len(part), 0), np.float32), (), self.table.report)
                said.append(self.predictor.predict(table))
        self.n_predictions += len(frame)
        answers = pl.concat(said) if said else pl.DataFrame({"predicted_pkd": []})
        pkd = answers["predicted_pkd"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        unseen = answers["unseen"].is_not_null().to_numpy() if "unseen" in answers.columns else None
        flags = [] if unseen is None else [unseen]
        if "domain" in answers.columns:
            flags.append((answers["domain"] == "outside").fill_null(False).to_numpy())
        return _Answers(pkd, unseen, np.logical_or.reduce(flags) if flags else None)


def _probed(run: RunFolder, asked: _Asked, parts: pl.DataFrame, antibodies: int, started: float) -> Probe:
    """Change antibodies in every way, predict them, and judge the answers."""
    frame, rng = asked.table.frame, np.random.default_rng(SEED)
    held_out = (parts["part"] == TEST).fill_null(False).to_numpy()
    pairs = measured_pairs(frame, held_out)
    kept_back = pairs["held_out"].to_numpy()
    all_mutants = find_mutants(pairs).one_way(kept_back)
    tested = _sampled(np.flatnonzero(kept_back[all_mutants.mutant]), MOST_MUTANTS, rng)
    tested_mutants = all_mutants.take(tested)
    chosen = _antibodies(frame, parts, pairs, all_mutants, antibodies)
    rows = _sampled(_with_antibody(frame, held_out), CHANGED_ROWS, rng)
    row_of = pairs["row"].to_numpy().astype(np.intp)
    known = np.concatenate([rows, chosen, row_of[tested_mutants.parent]])
    regions = find_regions(frame[np.unique(known).tolist()])

    figures: dict[str, Any] = {"n_antigens": _n_antigens(frame), "n_rows": len(frame), "n_test": int(held_out.sum())}
    changed: dict[str, Array] = {}
    figures["probes"] = {}
    for name, variants in changed_rows(frame, rows, regions, rng).items():
        answers = asked.change(variants, "Predicting changed rows")
        changed[name] = answers.pkd
        figures["probes"][name] = {**changes(answers.pkd), "share_flagged": answers.share_flagged}
    mutants = every_substitution(frame, chosen, regions)
    answers = asked.change(mutants, "Predicting single mutants")
    changed["scan"] = answers.pkd
    figures |= _scans(answers, mutants)
    if regions is not None:
        figures["regions"] = by_region(REGION_NAMES, mutants.region, changed["scan"])
    both, of_mutants = _held_out_mutants(asked, pairs, all_mutants, tested_mutants, regions)
    figures["scan_measured"] = _measured_beside(frame, chosen, pairs, all_mutants)
    return Probe(
        run=run.path,
        data=asked.table.report.files,
        verdicts=tuple(judge(figures := {**figures, **of_mutants, "antigens": _antigens(asked, pairs, rng)})),
        figures=figures,
        scanned=tuple(_described(frame, chosen)),
        changed=changed,
        mutants=both,
        n_predictions=asked.n_predictions,
        seconds=time.monotonic() - started,
    )


def _scans(answers: _Answers, mutants: Substitutions) -> dict[str, Any]:
    """Return the figures of all single substitutions, and of those that training had and had not, where it is known."""

    def of(rows: NDArray[np.bool_]) -> dict[str, Any]:
        return scan(answers.pkd[rows], mutants.base[rows], mutants.letters[rows])

    found = {"scan": {**of(np.ones(len(answers.pkd), np.bool_)), "share_flagged": answers.share_flagged}}
    if answers.unseen is not None:
        found |= {"scan_seen": of(~answers.unseen), "scan_new": of(answers.unseen)}
    return found


def _sampled(rows: Rows, most: int, rng: np.random.Generator) -> Rows:
    """Return the rows, or so many of them at random, in order."""
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def _with_antibody(frame: pl.DataFrame, held_out: NDArray[np.bool_]) -> Rows:
    """Return the held-out rows that have a heavy or light chain, or all that have one where there are none."""
    has_one = ((frame["heavy"] != "") | (frame["light"] != "")).to_numpy()
    rows = np.flatnonzero(has_one & held_out)
    return rows if len(rows) else np.flatnonzero(has_one)


def _n_antigens(frame: pl.DataFrame) -> int:
    return frame.select(target=target())["target"].replace("", None).drop_nulls().n_unique()


def _antibodies(frame: pl.DataFrame, parts: pl.DataFrame, pairs: pl.DataFrame, mutants: Mutants, most: int) -> Rows:
    """Return training rows to scan: one of each of the largest families and antigens, that with most mutants."""
    n_relatives = np.zeros(len(frame), np.intp)
    n_relatives[pairs["row"].to_numpy()] = mutants.n_relatives
    rows = frame.select("heavy", "light", "antigen", "antigen_name").with_columns(
        parts["part"], parts["family"], row=pl.int_range(pl.len()), n_relatives=pl.Series(n_relatives)
    )
    rows = rows.filter((pl.col("part") == TRAIN) & ((pl.col("heavy") != "") | (pl.col("light") != "")))
    group = ["family", "antigen", "antigen_name"]
    rows = rows.with_columns(size=pl.len().over(group)).sort(
        ["size", "n_relatives", "row"], descending=[True, True, False]
    )
    first = rows.unique(group, keep="first", maintain_order=True)
    distinct = pl.concat([first, rows]).unique(["heavy", "light"], keep="first", maintain_order=True)
    return distinct["row"].head(most).to_numpy().astype(np.intp)


def _described(frame: pl.DataFrame, rows: Rows) -> list[dict[str, str]]:
    return list(frame[rows.tolist()].select("row_id", "heavy", "light", "antigen_name", "source").iter_rows(named=True))


def _measured_beside(frame: pl.DataFrame, scanned: Rows, pairs: pl.DataFrame, mutants: Mutants) -> dict[str, Any]:
    """Return the figures of the measured single mutants that are of a scanned antibody's source and antigen."""
    of_scanned = frame[scanned.tolist()].select("source", target=target()).unique()
    beside = pairs.select("source", "target").join(
        of_scanned.with_columns(there=True), on=["source", "target"], how="left", maintain_order="left"
    )["there"]
    chosen = beside.fill_null(False).to_numpy()[mutants.mutant]
    pkd = pairs["pkd"].to_numpy()
    return changes(pkd[mutants.mutant[chosen]] - pkd[mutants.parent[chosen]])


def _held_out_mutants(
    asked: _Asked, pairs: pl.DataFrame, mutants: Mutants, tested: Mutants, regions: Regions | None
) -> tuple[tuple[Array, Array], dict[str, Any]]:
    """Return measured and predicted changes of held-out mutants, and their figures beside all measured ones'."""
    pkd, row_of = pairs["pkd"].to_numpy(), pairs["row"].to_numpy().astype(np.intp)
    every = pkd[mutants.mutant] - pkd[mutants.parent]
    measured = pkd[tested.mutant] - pkd[tested.parent]
    predicted = asked.rows(row_of[tested.mutant]) - asked.rows(row_of[tested.parent])
    figures = agreement(measured, predicted, tested.parent)
    was, now = _letters(pairs, tested)
    if figures["n"] >= FEWEST_PAIRS and np.ptp(measured) > 0:
        known = spearman(measured, BLOSUM62[was, now].astype(np.float64))
        figures["spearman_blosum62"] = known if np.isfinite(known) else None
    found: dict[str, Any] = {"mutants": figures, "mutants_measured": changes(every)}
    if regions is not None and len(tested):
        where = _regions_of(pairs, tested, regions)
        found["regions_measured"] = by_region(REGION_NAMES, where, measured)
        found["regions_predicted"] = by_region(REGION_NAMES, where, predicted)
    return (measured, predicted), found


def _letters(pairs: pl.DataFrame, mutants: Mutants) -> tuple[Rows, Rows]:
    """Return (n,) the codes of the letters that were there and are there now, below 256."""
    sides = []
    for rows in (mutants.parent, mutants.mutant):
        chains = [pairs[chain].gather(rows.tolist()).to_list() for chain in ("heavy", "light")]
        ends = zip(*chains, mutants.in_light.tolist(), mutants.place.tolist(), strict=True)
        sides.append(
            np.array([ord((light if in_light else heavy)[place]) % 256 for heavy, light, in_light, place in ends])
        )
    return sides[0].astype(np.intp), sides[1].astype(np.intp)


def _regions_of(pairs: pl.DataFrame, mutants: Mutants, regions: Regions) -> Rows:
    """Return (n,) the index in `REGIONS` of each mutated residue."""
    where = np.zeros(len(mutants), np.intp)
    for chain, chosen in (("heavy", ~mutants.in_light), ("light", mutants.in_light)):
        of_chain = pairs[chain].gather(mutants.parent[chosen].tolist())
        sequences = of_chain.unique(maintain_order=True).to_list()
        known = dict(zip(sequences, regions.of(chain, sequences), strict=True))
        places = zip(of_chain.to_list(), mutants.place[chosen].tolist(), strict=True)
        where[chosen] = [int(known[sequence][place]) for sequence, place in places]
    return where


def _antigens(asked: _Asked, pairs: pl.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
    """Return how predicted differences between antigens of one antibody go with measured ones, on held-out pairs."""
    first, other = other_antigens(pairs, rng)
    chosen = _sampled(np.arange(len(first)), MOST_MUTANTS, rng)
    first, other = first[chosen], other[chosen]
    pkd, row_of = pairs["pkd"].to_numpy(), pairs["row"].to_numpy().astype(np.intp)
    predicted = asked.rows(row_of[first]) - asked.rows(row_of[other])
    antibody = numbered(pairs.select("heavy", "light"))
    return agreement(pkd[first] - pkd[other], predicted, antibody[first])
