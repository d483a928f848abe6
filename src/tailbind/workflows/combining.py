"""Combinations of substitutions, proposed by a beam search in which the model itself predicts each of them.

Additive effects only say which combinations are worth predicting. What is proposed is ranked by the upper confidence
bound of its own prediction: pKd + explore × SD (Auer, J. Mach. Learn. Res. 3:397, 2002).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import SequenceError

#: How much the SD counts where nobody says.
EXPLORE: Final = 0.5
#: Substitutions that combinations are made of, and of how many per position at most.
POOL: Final = 64
PER_POSITION: Final = 3
#: Scores of a position that differ by less are the same to the model; and the decimals in which scores are compared.
SAME: Final = 1e-2
DIGITS: Final = 2
#: Combinations that are extended by one substitution each.
BEAM: Final = 64
#: Combinations of a size that are predicted, and the share of them that is drawn at random from the rest.
PREDICTED: Final = 1_500
DRAWN: Final = 0.2

#: A chain, a place in it counted from 0, and the residue that is put there.
Substitution: TypeAlias = tuple[str, int, str]
#: Substitutions by their rows in the frame of a scan, ascending.
Combination: TypeAlias = tuple[int, ...]
Floats: TypeAlias = NDArray[np.float64]
Predict: TypeAlias = Callable[[Sequence[Sequence[Substitution]]], pl.DataFrame]


@dataclass(frozen=True)
class Combining:
    """How combinations are searched.

    Attributes
    ----------
    largest : substitutions in the largest
    top : combinations to propose at most
    explore : what the SD counts beside the pKd; None for `EXPLORE` where the model has an SD
    avoid : residues that none puts in
    seen_only : none has a residue that training never saw at its place
    diverse : no two share all but one substitution
    seed : of what is drawn
    """

    largest: int
    top: int
    explore: float | None
    avoid: str
    seen_only: bool
    diverse: bool
    seed: int

    def __post_init__(self) -> None:
        if self.largest and not 2 <= self.largest <= 10:
            raise SequenceError(f"Combinations must be of 2 to 10 substitutions; got {self.largest}. Correct it.")
        if not self.largest and (self.seen_only or self.explore is not None):
            raise SequenceError("seen_only and explore are about combinations; none are asked for. Add combine = 2.")
        if self.top < 1:
            raise SequenceError(f"At least 1 combination must be asked for; got {self.top}. Correct it.")
        if self.explore is not None and not 0 <= self.explore < float("inf"):
            raise SequenceError(f"explore must be a number of 0 or above; got {self.explore:g}. Correct it.")


def combine_substitutions(
    singles: pl.DataFrame,
    wild_type: Mapping[str, Any],
    predict: Predict,
    search: Combining,
    notify: Callable[[str], None] = lambda _: None,
) -> tuple[pl.DataFrame, list[list[Substitution]]]:
    """Return combinations of 2 to `search.largest` substitutions, those with the highest score first.

    Each size begins with the best of the size before, extended by the best single substitutions. Those whose parts
    promise most are predicted, and some that are drawn from the rest.

    Parameters
    ----------
    singles : the frame of a scan
    wild_type : what the model says of the sequences as given
    predict : variants, each a few (chain, place from 0, residue) → what the model says of them
    search : how
    notify : told what a person should know

    Returns
    -------
    combinations
        `rank`, `mutations` ("H:Y52A+L:S30T"), `imgt` ("H52+L36", null where any is not numbered), `n_mutations`,
        `score` (predicted pKd + explore × SD), `predicted_pkd`, `delta_pkd`, `sum_of_singles` (what adding the single
        substitutions' `delta_pkd` gives), and what else the predictor tells.
    variants : their substitutions, row for row

    Raises
    ------
    SequenceError
        When the model has no SD to explore by, or there are not two positions to combine.
    """
    explore = _explore(singles, search)
    score = _scores(singles, explore)
    pool = _pool(singles, score, search)
    columns = singles.select("chain", "position", "residue", "mutation", "imgt", "delta_pkd").to_dicts()
    site = [(row["chain"], row["position"]) for row in columns]
    if len({site[single] for single in pool}) < 2:
        raise SequenceError("Combinations must have two positions to substitute; there is one. Scan more of them.")
    without = wild_type["predicted_pkd"] + explore * (wild_type.get("predicted_sd") or 0.0)

    def variant(combination: Combination) -> list[Substitution]:
        return [(columns[i]["chain"], columns[i]["position"] - 1, columns[i]["residue"]) for i in combination]

    def judge(combinations: Sequence[Combination]) -> tuple[pl.DataFrame, list[float]]:
        frame = predict([variant(combination) for combination in combinations]).drop("row_id")
        return frame, (_scores(frame, explore) - without).tolist()

    frames, known = _searched(pool, score - without, site, search, judge)
    found = list(known)[len(pool) :]
    chosen = _chosen(found, known, search)
    if len(chosen) < search.top:
        notify(
            f"{len(chosen):,} of {len(found):,} combinations are proposed, {search.top:,} were asked for: no more are "
            "predicted to be better than the wild type and their own parts, and differ enough from each other."
        )
    if not chosen:
        return pl.DataFrame(), []
    best_first = pl.concat(frames)[chosen]
    names = [_named([columns[i] for i in sorted(found[at], key=lambda i: site[i])]) for at in chosen]
    table = _proposed(names, best_first, _scores(best_first, explore), wild_type["predicted_pkd"])
    return table, [variant(found[at]) for at in chosen]


def _searched(
    pool: Sequence[int],
    gain: Floats,
    site: Sequence[tuple[str, int]],
    search: Combining,
    judge: Callable[[Sequence[Combination]], tuple[pl.DataFrame, list[float]]],
) -> tuple[list[pl.DataFrame], dict[Combination, float]]:
    """Return what was predicted of the combinations, and what each gains: first the pool's singles, then these in turn.

    Parameters
    ----------
    pool : the substitutions to combine
    gain : (n_singles,) score of each single substitution less the wild type's
    site : (n_singles,) chain and position of each
    judge : combinations → what the model says of them, and what each gains
    """
    rng = np.random.default_rng(search.seed)
    beam: dict[Combination, float] = {(single,): float(gain[single]) for single in pool}
    known = dict(beam)
    frames: list[pl.DataFrame] = []
    for _ in range(2, search.largest + 1):
        candidates = _promising(_extended(beam, pool, gain, site), rng)
        if not candidates:
            break
        frame, gains = judge(candidates)
        frames.append(frame)
        known |= dict(zip(candidates, gains, strict=True))
        beam = dict(sorted(zip(candidates, gains, strict=True), key=lambda pair: -pair[1])[:BEAM])
    return frames, known


def _proposed(
    names: Sequence[Mapping[str, Any]], best_first: pl.DataFrame, score: Floats, wild_type_pkd: float
) -> pl.DataFrame:
    """Return the table of the proposed combinations, best first.

    Parameters
    ----------
    names : of their substitutions, see `_named`
    best_first : what the model says of them
    score : (n_proposed,) by which they are ranked
    """
    table = pl.DataFrame(names, schema_overrides={"imgt": pl.String, "sum_of_singles": pl.Float64})
    result = table.select(
        pl.int_range(1, pl.len() + 1).alias("rank"), "mutations", "imgt", "n_mutations",
        pl.Series("score", score),
        best_first["predicted_pkd"],
        (best_first["predicted_pkd"] - wild_type_pkd).alias("delta_pkd"),
        "sum_of_singles",
    )  # fmt: skip
    return result.hstack(best_first.drop("predicted_pkd"))


def _explore(singles: pl.DataFrame, search: Combining) -> float:
    """Return how much the SD counts."""
    if "predicted_sd" in singles.columns:
        return EXPLORE if search.explore is None else search.explore
    if search.explore:
        raise SequenceError(
            f"explore = {search.explore:g} must have a model that tells an SD; this one tells none. Use 0, or a run of "
            "v3 or another ensemble."
        )
    return 0.0


def _scores(frame: pl.DataFrame, explore: float) -> Floats:
    """Return (n,) upper confidence bounds of the pKd; −inf where there is no prediction."""
    pkd = frame["predicted_pkd"].fill_null(-np.inf).to_numpy()
    return pkd + explore * frame["predicted_sd"].fill_null(0.0).to_numpy() if explore else pkd


def _pool(singles: pl.DataFrame, score: Floats, search: Combining) -> list[int]:
    """Return the substitutions that combinations are made of, best first, by their rows in `singles`.

    Residues that training never saw at a place are often all the same to a model: one of them then stands for all.
    """
    taken: dict[tuple[str, int], list[float]] = {}
    pool = []
    rows = singles.select("chain", "position", "residue").rows()
    told = "unseen_here" in singles.columns
    if search.seen_only and not told:
        raise SequenceError(
            "seen_only must have a model that tells what training saw at a place; this one does not. Leave it out, or "
            "use a run on sites, such as v3."
        )
    new = singles["unseen_here"].to_numpy() if told else np.zeros(len(rows), bool)
    for single in np.lexsort((-score, new, -score.round(DIGITS))).tolist():
        chain, position, residue = rows[single]
        others = taken.setdefault((chain, position), [])
        if residue in search.avoid or (search.seen_only and new[single]) or len(others) == PER_POSITION:
            continue
        if new[single] and any(abs(score[single] - other) < SAME for other in others):
            continue
        others.append(float(score[single]))
        pool.append(single)
        if len(pool) == POOL:
            break
    return pool


def _extended(
    beam: Mapping[Combination, float], pool: Sequence[int], gain: Floats, site: Sequence[tuple[str, int]]
) -> dict[Combination, float]:
    """Return every combination of the beam with one more substitution → what its parts promise in all."""
    promised: dict[Combination, float] = {}
    for combination, so_far in beam.items():
        occupied = {site[single] for single in combination}
        for single in pool:
            if site[single] not in occupied:
                longer = tuple(sorted((*combination, single)))
                promised[longer] = max(promised.get(longer, -np.inf), so_far + float(gain[single]))
    return promised


def _promising(promised: Mapping[Combination, float], rng: np.random.Generator) -> list[Combination]:
    """Return the combinations to predict: those that promise most, and some of the others drawn at random."""
    order = sorted(promised, key=lambda combination: (-promised[combination], combination))
    n_drawn = round(DRAWN * PREDICTED) if len(order) > PREDICTED else 0
    best, rest = order[: PREDICTED - n_drawn], order[PREDICTED - n_drawn :]
    if not n_drawn:
        return order
    return best + [rest[at] for at in sorted(rng.choice(len(rest), n_drawn, replace=False).tolist())]


def _chosen(found: Sequence[Combination], known: Mapping[Combination, float], search: Combining) -> list[int]:
    """Return the combinations to propose, best first, by their place in `found`.

    A substitution that adds nothing is left away: a combination must be better than any part of it that was predicted.

    Parameters
    ----------
    found : all that were predicted
    known : these and single substitutions → their score less the wild type's
    """
    chosen: list[int] = []
    members: list[frozenset[int]] = []
    for at in sorted(range(len(found)), key=lambda at: (-known[found[at]], found[at])):
        own = frozenset(found[at])
        parts = (known[part] for n in range(1, len(own)) for part in combinations(sorted(own), n) if part in known)
        if known[found[at]] < max(0.0, *parts) + SAME:
            continue
        if search.diverse and any(len(own & other) >= max(len(own), len(other)) - 1 for other in members):
            continue
        chosen.append(at)
        members.append(own)
        if len(chosen) == search.top:
            break
    return chosen


def _named(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the names of a combination's substitutions, in the order of chains and positions."""
    numbered = [part["imgt"] for part in parts]
    return {
        "mutations": "+".join(part["mutation"] for part in parts),
        "imgt": "+".join(numbered) if all(numbered) else None,
        "n_mutations": len(parts),
        "sum_of_singles": sum(part["delta_pkd"] for part in parts),
    }
