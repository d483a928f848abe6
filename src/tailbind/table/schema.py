"""The measured table: its canonical columns, the spellings they go by, and the record that holds it.

This module says what a table is. How one is read from files is the job of `reading`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.table.blocks import on_disk

#: A feature block found without being named needs this many numbered columns: `kd_rep_1, kd_rep_2` is none.
SMALLEST_BLOCK: Final = 5
#: What a table with several blocks is read for when nobody says: the training notebook's own features.
SEEDS_PREFIX: Final = "esm2_pca_"

MEASURED, BELOW, ABOVE = "=", "<", ">"

#: Canonical column → spellings, compared in lower case with every run of other characters as one "_".
SPELLINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "row_id": ("row_id", "rowid"),
    "relation": ("relation", "qualifier"),
    "heavy": (
        "heavy",
        "vh",
        "antibody_heavy",
        "heavy_chain",
        "heavy_sequence",
        "heavy_chain_sequence",
        "vh_sequence",
    ),
    "light": (
        "light",
        "vl",
        "antibody_light",
        "light_chain",
        "light_sequence",
        "light_chain_sequence",
        "vl_sequence",
    ),
    "antigen": ("antigen", "antigen_sequence", "antigen_seq", "ag_sequence", "ag_seq"),
    "source": ("source", "dataset", "data_set", "database_source"),
    "antigen_name": ("antigen_name", "ag_name"),
    "group": ("group",),
}

#: Spelling of a label column → (scale, unit); the first that a table has is taken.
LABELS: Final[Mapping[str, tuple[str, str]]] = {
    "pkd": ("pkd", ""),
    "p_kd": ("pkd", ""),
    "kd_nm": ("kd", "nM"),
    "kd_um": ("kd", "uM"),
    "kd_pm": ("kd", "pM"),
    "kd_mm": ("kd", "mM"),
    "kd_fm": ("kd", "fM"),
    "kd_m": ("kd", "M"),
    "kd_molar": ("kd", "M"),
    "kd": ("kd", "M"),
    "delta_g": ("delta_g", "kcal/mol"),
    "dg": ("delta_g", "kcal/mol"),
    "deltag": ("delta_g", "kcal/mol"),
    "delta_g_kcal_mol": ("delta_g", "kcal/mol"),
}
TEMPERATURES: Final = ("temperature", "temperature_k", "temperature_kelvin", "temp_k")

#: What a relation column may say, in lower case → the relation.
RELATIONS: Final[Mapping[str, str]] = {
    "": MEASURED, "=": MEASURED, "==": MEASURED, "equal": MEASURED, "equals": MEASURED, "measured": MEASURED,
    "<": BELOW, "<=": BELOW, "=<": BELOW, "≤": BELOW, "<<": BELOW,
    "less than": BELOW, "below": BELOW, "at most": BELOW, "lt": BELOW, "le": BELOW,
    ">": ABOVE, ">=": ABOVE, "=>": ABOVE, "≥": ABOVE, ">>": ABOVE,
    "greater than": ABOVE, "more than": ABOVE, "above": ABOVE, "at least": ABOVE, "gt": ABOVE, "ge": ABOVE,
}  # fmt: skip

SEQUENCES: Final = ("heavy", "light", "antigen")
CANONICAL: Final = ("row_id", "pkd", "relation", *SEQUENCES, "source", "antigen_name", "group", "file")

_NUMBERED = re.compile(r"^(?P<prefix>.*\D)(?P<number>\d+)$")


@dataclass(frozen=True)
class CacheUse:
    """What reading had to do with the cache.

    Attributes
    ----------
    entry : the folder that the table is kept in, None where it is not kept
    used : whether the table was taken from there instead of its files
    trouble : a sentence on why it could not be kept, "" where nothing is to be said
    """

    entry: Path | None = None
    used: bool = False
    trouble: str = ""


@dataclass(frozen=True)
class ReadingReport:
    """What reading did: the files, the columns it took, and the rows it left out.

    Attributes
    ----------
    files : the input files, in order
    n_read : rows in the files
    dropped : reason → number of rows left out for it
    columns : canonical name → the file's own name for it
    notes : sentences about conversions and guesses a person should know of
    cache : whether the table came from the cache, or was kept there
    """

    files: tuple[str, ...]
    n_read: int
    dropped: Mapping[str, int]
    columns: Mapping[str, str]
    notes: tuple[str, ...] = ()
    cache: CacheUse = CacheUse()

    def lines(self) -> list[str]:
        """Return what happened, a sentence a line, for the terminal."""
        kept = self.cache.entry.parent if self.cache.entry is not None and self.cache.used else None
        cached = "" if kept is None else f" (from the cache in {kept}; --no-cache reads it anew)"
        lines = [f"Read {self.n_read:,} rows from {', '.join(self.files)}{cached}."]
        renamed = [f"{own} as {name}" for name, own in self.columns.items() if own != name]
        if renamed:
            lines.append(f"Took {', '.join(renamed)}.")
        lines += [f"Dropped {count:,} rows: {reason}." for reason, count in self.dropped.items() if count]
        return [*lines, *self.notes, *([self.cache.trouble] if self.cache.trouble else [])]


@dataclass(frozen=True)
class AffinityTable:
    """Measured affinities with their features, row for row.

    Attributes
    ----------
    frame : canonical columns, then the file's other columns under their own names; `pkd` is null
        throughout where labels were not asked for
    features : (n_samples, n_features) float32, held once; (n_samples, 0) where no block was asked for; `Blocks`, which
        give some of their rows when asked for them, where all do not fit into memory
    feature_names : the column each feature came from
    report : what reading did
    """

    frame: pl.DataFrame
    features: NDArray[np.float32]
    feature_names: tuple[str, ...]
    report: ReadingReport = field(repr=False)

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, chosen: NDArray[np.bool_]) -> "AffinityTable":
        """Return the table of the rows where `chosen` (n_samples,) is true."""
        if chosen.all():
            return self
        kept = on_disk(self.features)
        features = self.features[chosen] if kept is None else cast(NDArray[np.float32], kept.take(chosen))
        return replace(self, frame=self.frame.filter(pl.Series(chosen)), features=features)

    def stretch(self, rows: slice) -> "AffinityTable":
        """Return the table of consecutive rows; nothing is copied."""
        return replace(self, frame=self.frame[rows], features=self.features[rows])

    @property
    def pkd(self) -> NDArray[np.float64]:
        """(n_samples,) measured pKd."""
        return self.frame["pkd"].to_numpy()

    @property
    def relation(self) -> NDArray[np.str_]:
        """(n_samples,) "=" measured, "<" true pKd below the value, ">" above it."""
        return self.frame["relation"].to_numpy().astype(np.str_)

    @property
    def source(self) -> NDArray[np.str_]:
        """(n_samples,) the data set of each row, "" where unknown."""
        return self.frame["source"].to_numpy().astype(np.str_)


def normalise(name: str) -> str:
    """Return a column name as spellings are compared: `Kd (nM)` and `kd_nm` are the same.

    >>> normalise(" Kd (nM)")
    'kd_nm'
    """
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower().replace("µ", "u").replace("μ", "u")).strip("_")


def numbered_blocks(columns: list[str]) -> dict[str, list[str]]:
    """Return prefix → its numbered columns in numeric order, for every numbered column of a table.

    >>> numbered_blocks(["pKd", "e_10", "e_9"])
    {'e_': ['e_9', 'e_10']}
    """
    blocks: dict[str, list[tuple[int, str]]] = {}
    for column in columns:
        if match := _NUMBERED.match(column):
            blocks.setdefault(match["prefix"], []).append((int(match["number"]), column))
    return {prefix: [column for _, column in sorted(members)] for prefix, members in blocks.items()}


def block_gap(block: list[str]) -> str | None:
    """Return the first column missing from a numbered block (that starts at 0 or 1), else None.

    >>> block_gap(["e_0", "e_2"])
    'e_1'
    """
    matches = [_NUMBERED.match(column) for column in block]
    numbers = [int(match["number"]) for match in matches if match]
    prefix = matches[0]["prefix"] if matches[0] else ""
    start = min(numbers[0], 1)
    for expected, number in enumerate(numbers, start):
        if number != expected:
            return f"{prefix}{expected}"
    return None
