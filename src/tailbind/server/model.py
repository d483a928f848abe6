"""A loaded run as the server uses it: pairs, tables and scans in, plain values out, nothing told of this machine."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from tailbind.errors import FeatureError, SequenceError, TableError
from tailbind.features.pipeline import column_prefix, reads_sequences_alone
from tailbind.predictor import Predictor, load
from tailbind.runtime import computing_on
from tailbind.server.batching import Answer
from tailbind.server.card import card_of
from tailbind.server.checking import Pairs, RefusedError, table_of
from tailbind.server.limits import Limits
from tailbind.server.unpacking import too_many_rows
from tailbind.table.schema import SEQUENCES, AffinityTable
from tailbind.workflows.scanning import scan

#: What a predictions frame calls it → what answers call it; all other columns keep their names.
NAMES: Final = {"predicted_pkd": "pkd", "predicted_kd_nm": "kd_nm", "predicted_sd": "sd"}
_PATH: Final = re.compile(r"(?<![\w.])(?:/[^\s/:;,'\"]+){2,}/?")


@dataclass(frozen=True)
class ServedModel:
    """A run that is served.

    Attributes
    ----------
    predictor : the loaded run
    name : of its recipe
    card : the model card, in Markdown
    device : auto, cpu or cuda
    limits : what one request may ask for
    """

    predictor: Predictor
    name: str
    card: str
    device: str
    limits: Limits

    @classmethod
    def of_run(cls, run: str | Path, device: str, limits: Limits) -> "ServedModel":
        """Load a run folder, or a checkpoint of one.

        Raises
        ------
        RunError, CheckpointError
            As `tailbind.load` does.
        """
        predictor = load(run, device)
        return cls(predictor, predictor.checkpoint.recipe_name, card_of(Path(run), predictor), device, limits)

    @property
    def prefix(self) -> str | None:
        """Of the feature columns that the model reads from a table; None where sequences are enough."""
        return column_prefix(self.predictor.features.blocks)

    @property
    def scans(self) -> bool:
        """Whether substitutions can be predicted."""
        return reads_sequences_alone(self.predictor.features.blocks)

    @property
    def level(self) -> float | None:
        """Share of measured values that its intervals are to hold; None of a run without intervals."""
        return None if self.predictor.intervals is None else self.predictor.intervals.level

    def check_reads_sequences(self) -> None:
        """Refuse pairs where the model needs columns that they do not have."""
        if self.prefix is not None:
            raise RefusedError(
                f"This model reads feature columns ({self.prefix}0, {self.prefix}1, …), which pairs do not have. "
                "Send a table with them to /api/predict-file."
            )

    def predict_pairs(self, pairs: Pairs) -> list[Answer]:
        """Return what the model says of each pair."""
        with computing_on(self.device), _told():
            return answers(self.predictor.predict(table_of(pairs)).drop("row_id"))

    def predict_table(self, path: Path, shown: str) -> tuple[pl.DataFrame, list[str]]:
        """Return the predictions of a table, as `tailbind predict` writes them, and what reading did.

        Parameters
        ----------
        path : of the file
        shown : what messages call it

        Raises
        ------
        RefusedError
            When it cannot be read, is too long, or lacks what the model needs.
        """
        frames: list[pl.DataFrame] = []
        n_rows = 0
        with computing_on(self.device), _told({str(path): shown, path.name: shown}):
            tables = self.predictor.stretches(path)
            for table in tables:
                n_rows += len(table)
                if n_rows > self.limits.upload_rows:
                    raise too_many_rows(self.limits)
                self._check_lengths(table, n_rows - len(table))
                frames.append(self.predictor.predict(table))
            notes = [line.replace(path.name, shown) for line in tables.report.lines()]
        return pl.concat(frames), notes

    def scan(self, pair: Pairs, chains: Sequence[str]) -> dict[str, Any]:
        """Return the prediction for a pair, and for every single substitution of `chains`."""
        if not self.scans:
            raise RefusedError("This model reads no sequence: a substitution changes nothing that it sees.")
        wild_type = self.predict_pairs(pair)[0]
        with computing_on(self.device), _told():
            found = scan(self.predictor, *(pair.chains[chain][0] for chain in SEQUENCES), chains=chains)
        return {"level": self.level, "wild_type": wild_type, "substitutions": answers(found.frame, names={})}

    def _check_lengths(self, table: AffinityTable, start: int) -> None:
        for chain in SEQUENCES:
            letters, most = table.frame[chain].str.len_chars(), self.limits.letters(chain)
            if (letters > most).any():
                row = int((letters > most).arg_true()[0])
                raise RefusedError(
                    f"{chain} must have at most {most:,} letters; row {start + row + 1:,} has {letters[row]:,}."
                )


def answers(frame: pl.DataFrame, names: "dict[str, str] | None" = None) -> list[Answer]:
    """Return a frame's rows under the names of answers, null for what is no number.

    >>> answers(pl.DataFrame({"predicted_pkd": [7.5, float("nan")]}))
    [{'pkd': 7.5}, {'pkd': None}]
    """
    names = NAMES if names is None else names
    present = {name: own for name, own in names.items() if name in frame.columns}
    return frame.with_columns(pl.col(pl.Float32, pl.Float64).fill_nan(None)).rename(present).to_dicts()


@contextmanager
def _told(names: "dict[str, str] | None" = None) -> Iterator[None]:
    """Turn what is wrong with a user's data into a refusal that names no place on this machine."""
    try:
        yield
    except (FeatureError, TableError, SequenceError) as error:
        raise RefusedError(without_paths(str(error), names or {})) from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, UnicodeError) as error:
        raise RefusedError(
            "The table must be readable as the format its name says; it is not. Save it again."
        ) from error


def without_paths(text: str, names: "dict[str, str]") -> str:
    """Return one line in which files go by the names that the user knows, and others by none.

    >>> without_paths("/tmp/x/u.csv must be text; see /var/log/a.", {"/tmp/x/u.csv": "designs.csv"})
    'designs.csv must be text; see …'
    """
    for path, shown in names.items():
        text = text.replace(path, shown)
    return _PATH.sub("…", " ".join(text.split()))
