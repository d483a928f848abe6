"""`tailbind scan`: every single substitution of an antibody's chains, predicted, and combinations that are proposed."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from tailbind.errors import FeatureError, SequenceError
from tailbind.features.pipeline import column_prefix, reads_sequences_alone
from tailbind.features.sites import FittedSites
from tailbind.predictor import Predictor, load
from tailbind.runtime import computing_on
from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.sequences.families import Families
from tailbind.sequences.proteins import check_protein
from tailbind.table.schema import CANONICAL, MEASURED, SEQUENCES, AffinityTable, ReadingReport
from tailbind.workflows.combining import Combining, Substitution, combine_substitutions
from tailbind.workflows.scan_input import ANTIBODY, Places, chains_to_scan, find_places, residues_to_scan

#: How a chain is called in the name of a substitution: H:Y52A.
CHAIN_LETTERS: Final[Mapping[str, str]] = {"heavy": "H", "light": "L", "antigen": "A"}
#: Mutants predicted at a time, so that a long antigen's fit into memory.
STRETCH: Final = 16_384
#: Substitutions whose predictions differ by less are all the same to the model.
SAME_PKD: Final = 1e-4
#: Decimals of a pKd that substitutions are ranked by.
RANK_DIGITS: Final = 2

_MORE: Final = re.compile(r" and ([\d,]+) more$")


@dataclass(frozen=True)
class Scan:
    """Every single substitution of an antibody's chains, as a model sees them.

    Attributes
    ----------
    name : of the run's recipe
    sequences : heavy, light and antigen as they were taken; "" for none
    numbered : whether positions have IMGT names
    wild_type : what `Predictor.predict` says of the sequences as given
    frame : a row per substitution, by chain, position and residue: `chain`, `position` (in the sequence, from 1),
        `imgt` ("H52", null outside a numbered domain), `region` ("CDR2", likewise), `wild_type`, `residue`, `mutation`
        ("H:Y52A", by position in the sequence), `rank` (1 for the highest pKd; of those within 0.01, what training saw
        goes first), `predicted_pkd`, `delta_pkd` (less the wild type's) and what else the predictor tells of a mutant;
        beside `unseen` also `unseen_here`: whether it is the substitution itself that training never saw
    combinations : proposed combinations, best first, see `workflows.combining`, with the sequences of the scanned
        chains; no rows unless asked for
    """

    name: str
    sequences: Mapping[str, str]
    numbered: bool
    wild_type: Mapping[str, Any]
    frame: pl.DataFrame = field(repr=False)
    combinations: pl.DataFrame = field(repr=False)

    @property
    def chains(self) -> list[str]:
        """The chains that were scanned."""
        return [chain for chain in SEQUENCES if chain in set(self.frame["chain"])]

    def document(self) -> dict[str, Any]:
        """Return the scan as JSON-able values."""
        return {
            "recipe": self.name,
            "sequences": dict(self.sequences),
            "numbering": "imgt" if self.numbered else "sequence",
            "wild_type": dict(self.wild_type),
            "substitutions": self.frame.to_dicts(),
            "combinations": self.combinations.to_dicts(),
        }


def scan(
    run: str | Path | Predictor,
    heavy: str = "",
    light: str = "",
    antigen: str = "",
    *,
    antigen_name: str = "",
    source: str = "",
    chains: Sequence[str] | None = None,
    regions: Sequence[str] = (),
    positions: Sequence[int] | None = None,
    combine: int = 0,
    top: int = 20,
    explore: float | None = None,
    avoid: str = "C",
    seen_only: bool = False,
    diverse: bool = True,
    seed: int = 42,
    device: str = "auto",
    notify: Callable[[str], None] = lambda _: None,
) -> Scan:
    """Predict every single substitution of an antibody's chains, and propose combinations.

    Parameters
    ----------
    run : run folder, `.pth` file of one, or a predictor that is loaded already
    heavy, light, antigen : sequences in one-letter code; a heavy or a light chain at least
    antigen_name, source : what stands for an antigen without sequence, as in a table
    chains : those to scan; every antibody chain that is given unless said
    regions : of antibody chains scan these alone, as in ("CDR1", "CDR3"); needs ANARCII
    positions : scan these alone, counted from 1 in the sequence of the one chain that is scanned
    combine : propose combinations of 2 to so many substitutions; none for 0
    top : how many
    explore : rank combinations by predicted pKd + `explore` × predicted SD; 0.5 where the model has an SD
    avoid : residues that no combination puts in
    seen_only : combine only residues that training saw at their place
    diverse : propose no two combinations that share all but one substitution
    seed : of the part of the combinations that is drawn at random
    device : auto, cpu or cuda; a predictor stays where it is
    notify : told what a person should know, a sentence at a time

    Raises
    ------
    SequenceError
        When a sequence is not a protein, or there is nothing to scan as asked.
    FeatureError
        When the model reads a table's feature columns, which a new sequence does not have.
    """
    given = {"heavy": heavy, "light": light, "antigen": antigen}
    sequences = {chain: check_protein(given[chain], chain) for chain in SEQUENCES}
    if not any(sequences[chain] for chain in ANTIBODY):
        raise SequenceError("A heavy or a light chain must be given; both are empty. Give one of them.")
    chosen = chains_to_scan(chains, sequences)
    predictor = run if isinstance(run, Predictor) else load(run, device)
    _check_reads_sequences(predictor)
    if set(avoid.upper()) - set(AMINO_ACIDS):
        raise SequenceError(f"avoid must be letters of amino acids, as in CM; got {avoid!r}. Correct it.")
    search = Combining(combine, top, explore, avoid.upper(), seen_only, diverse, seed)
    places = find_places(sequences, chosen, regions, _families(predictor), notify)
    wanted = residues_to_scan(places, chosen, regions, positions)
    variants = _Variants(predictor, sequences, antigen_name, source)
    with computing_on(device):
        wild_type = variants.predict([()]).drop("row_id").row(0, named=True)
        if wild_type["predicted_pkd"] is None:
            raise SequenceError("The model must be able to predict the antibody as given; it cannot. Try another run.")
        frame = _single_substitutions(variants, wild_type, places, wanted)
        _tell(wild_type, frame, notify)
        combinations = pl.DataFrame()
        if combine:
            table, found = combine_substitutions(frame, wild_type, variants.predict, search, notify)
            combinations = table.with_columns(pl.Series(chain, variants.changed(found)[chain]) for chain in chosen)
    numbered = any(name for chain in chosen for name in places[chain].imgt)
    return Scan(predictor.checkpoint.recipe_name, sequences, numbered, wild_type, frame, combinations)


@dataclass(frozen=True)
class _Variants:
    """Sequences whose variants a model predicts."""

    predictor: Predictor
    sequences: Mapping[str, str]
    antigen_name: str
    source: str

    def predict(self, variants: Sequence[Sequence[Substitution]]) -> pl.DataFrame:
        """Return what `Predictor.predict` says of variants, each a few substitutions; there must be one."""
        pieces = range(0, len(variants), STRETCH)
        return pl.concat([self.predictor.predict(self._table(variants[start : start + STRETCH])) for start in pieces])

    def changed(self, variants: Sequence[Sequence[Substitution]]) -> dict[str, list[str]]:
        """Return chain → its sequence in each variant."""
        changed = {chain: [sequence] * len(variants) for chain, sequence in self.sequences.items()}
        for row, substitutions in enumerate(variants):
            for chain, place, residue in substitutions:
                before = changed[chain][row]
                changed[chain][row] = f"{before[:place]}{residue}{before[place + 1 :]}"
        return changed

    def _table(self, variants: Sequence[Sequence[Substitution]]) -> AffinityTable:
        n, changed = len(variants), self.changed(variants)
        columns: dict[str, pl.Series] = {name: pl.repeat("", n, dtype=pl.String, eager=True) for name in CANONICAL}
        columns |= {chain: pl.Series(texts, dtype=pl.String) for chain, texts in changed.items()}
        columns |= {
            "row_id": pl.int_range(n, eager=True).cast(pl.String),
            "pkd": pl.repeat(None, n, dtype=pl.Float64, eager=True),
            "relation": pl.repeat(MEASURED, n, eager=True),
            "antigen_name": pl.repeat(self.antigen_name, n, eager=True),
            "source": pl.repeat(self.source, n, eager=True),
        }
        report = ReadingReport(("the variants",), n, {}, {})
        return AffinityTable(pl.DataFrame(columns), np.empty((n, 0), np.float32), (), report)


def _check_reads_sequences(predictor: Predictor) -> None:
    """Refuse a model that needs what a substituted sequence does not have."""
    blocks = predictor.features.blocks
    if reads_sequences_alone(blocks):
        return
    prefix = column_prefix(blocks)
    reads = f"the table's feature columns {prefix}…" if prefix is not None else "no sequence"
    raise FeatureError(
        f"A scan must have a model that reads sequences alone; this one, of recipe "
        f"{predictor.checkpoint.recipe_name!r}, reads {reads}. Train one from sequences, as with --recipe v3."
    )


def _families(predictor: Predictor) -> dict[str, Families]:
    """Return chain → the families that the model's features have laid out, where they have."""
    blocks = [block for block in predictor.features.blocks.values() if isinstance(block, FittedSites)]
    return {chain.chain: chain.families for block in blocks for chain in block.chains}


def _single_substitutions(
    variants: _Variants,
    wild_type: Mapping[str, Any],
    places: Mapping[str, Places],
    wanted: Iterable[tuple[str, int]],
) -> pl.DataFrame:
    """Return the frame of a scan."""
    found: list[tuple[str, int, str]] = [
        (chain, place, residue)
        for chain, place in wanted
        for residue in AMINO_ACIDS.replace(variants.sequences[chain][place], "")
    ]
    rows = []
    for chain, place, residue in found:
        was = variants.sequences[chain][place]
        rows.append(
            {
                "chain": chain,
                "position": place + 1,
                "imgt": places[chain].imgt[place],
                "region": places[chain].region[place],
                "wild_type": was,
                "residue": residue,
                "mutation": f"{CHAIN_LETTERS[chain]}:{was}{place + 1}{residue}",
            }
        )
    named = pl.DataFrame(rows, schema_overrides=dict.fromkeys(("imgt", "region"), pl.String))
    predicted = variants.predict([[substitution] for substitution in found])
    delta = (predicted["predicted_pkd"] - wild_type["predicted_pkd"]).alias("delta_pkd")
    frame = named.with_columns(predicted["predicted_pkd"], delta).hstack(predicted.drop("row_id", "predicted_pkd"))
    if "unseen" in frame.columns:
        own = wild_type["unseen"] or ""
        here = [is_unseen_here(words or "", own, chain) for words, chain in frame.select("unseen", "chain").iter_rows()]
        frame = frame.with_columns(pl.Series("unseen_here", here, dtype=pl.Boolean))
    return frame.insert_column(frame.get_column_index("predicted_pkd"), _rank(frame))


def _rank(frame: pl.DataFrame) -> pl.Series:
    """Return (n,) 1 for the highest pKd; of those that are the same to the model, first what training saw."""
    new = frame["unseen_here"].to_numpy() if "unseen_here" in frame.columns else np.zeros(len(frame), bool)
    rank = np.empty(len(frame), np.int64)
    pkd = frame["predicted_pkd"].to_numpy()
    rank[np.lexsort((-pkd, new, -pkd.round(RANK_DIGITS)))] = np.arange(1, len(frame) + 1)
    return pl.Series("rank", rank)


def is_unseen_here(mutant: str, wild_type: str, chain: str) -> bool:
    """Return whether it is the substitution in a chain that training never saw, and not what the wild type has anyway.

    Where training never saw the chain's family, it saw none of its residues. A substitution that takes away what
    training never saw is none.

    Parameters
    ----------
    mutant, wild_type : what of each training never saw, in the words of `unseen`

    Examples
    --------
    >>> is_unseen_here("heavy H52 Y>W; antigen family (12% like the nearest)", "antigen family (12% ...)", "heavy")
    True
    >>> is_unseen_here("heavy H9 A>V", "heavy H9 A>V, H52 Y>W", "heavy")
    False
    """
    own, before = _of_chain(mutant, chain), _of_chain(wild_type, chain)
    if any(part.startswith(f"{chain} family (") for part in own):
        return True
    return own != before and _how_many(own) > 0 and _how_many(own) >= _how_many(before)


def _of_chain(words: str, chain: str) -> list[str]:
    return [part for part in words.split("; ") if part.startswith(f"{chain} ")]


def _how_many(parts: Sequence[str]) -> int:
    more = sum(int(match[1].replace(",", "")) for part in parts if (match := _MORE.search(part)))
    return more + sum(len(part.split(", ")) for part in parts)


def _tell(wild_type: Mapping[str, Any], frame: pl.DataFrame, notify: Callable[[str], None]) -> None:
    """Warn of what makes a scan say little."""
    if wild_type.get("unseen"):
        notify(
            f"Warning: training never saw something of the antibody as given ({wild_type['unseen']}); trust the "
            "predictions less."
        )
    if not sees(frame):
        all_new = "unseen_here" in frame.columns and frame["unseen_here"].all()
        why = " Training never saw one of them: these chains did not vary in it." if all_new else ""
        notify(f"Warning: the model predicts the same pKd for every substitution: it does not see them.{why}")


def sees(frame: pl.DataFrame) -> bool:
    """Return whether a model tells any two substitutions of a scan apart."""
    pkd = frame["predicted_pkd"].to_numpy()
    return bool(pkd.max() - pkd.min() >= SAME_PKD)
