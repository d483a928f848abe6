"""`tailbind embed`: a table of sequences → the same table with an encoder's vectors as feature columns."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console

from tailbind.errors import RunError, TableError
from tailbind.features.distinct import has_antibody
from tailbind.features.embedding import MEAN
from tailbind.features.language_model import DEFAULT_ENCODER, Filled, LanguageModel, embed_table, find_cdrs
from tailbind.features.pretrained import short_name
from tailbind.features.reduction import fit_pca
from tailbind.options import read_options
from tailbind.runtime import choose_device, describe_device, missing_gpu_warning, writing
from tailbind.table.fixing import with_features
from tailbind.table.reading import read_table
from tailbind.table.schema import SMALLEST_BLOCK, AffinityTable, numbered_blocks
from tailbind.workflows.progress import default_console, working

FORMATS: Final = (".parquet", ".csv")


@dataclass(frozen=True)
class Embedded:
    """What `embed` has written.

    Attributes
    ----------
    path : the file
    n_rows : its rows
    n_without : rows with neither heavy nor light sequence, whose features are empty
    columns : the feature columns
    """

    path: Path
    n_rows: int
    n_without: int
    columns: tuple[str, ...]


def embed(
    data: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    encoder: str = DEFAULT_ENCODER,
    revision: str = "",
    chains: str = "joined",
    pool: str = "mean",
    layers: Sequence[int] = (-1,),
    pca: int = 0,
    precision: str = "auto",
    device: str = "auto",
    store: str | Path = "",
    batch_tokens: int = 0,
    window: int = 0,
    overlap: int = 128,
    prefix: str = "",
    notify: Callable[[str], None] = lambda _: None,
    console: Console | None = None,
) -> Embedded:
    """Write a table with a protein language model's vectors of its sequences as numbered feature columns.

    A run that was stopped goes on where it was: vectors are kept on disk as soon as a batch is done.

    Parameters
    ----------
    data : CSV, TSV or Parquet file with heavy or light sequences, or several
    out : new Parquet or CSV file
    encoder, revision, chains, pool, layers, precision, batch_tokens, window, overlap, store : as in the feature
        block `language_model`; joined chains give one vector a row, as in the training notebook. Of separate chains
        the vectors of heavy, light and antigen follow each other, zeros for a missing one
    pca : principal components, fitted on all rows of the table, to write instead of the vectors; 0 writes the vectors
    device : auto, cpu or cuda
    prefix : of the columns; from the encoder's name unless given
    notify : told what was read and done, a sentence at a time
    console : where progress goes; standard output unless given

    Raises
    ------
    TailbindError
        In one line, for whatever is wrong with table, encoder, options or the file to write.
    """
    given = {
        "encoder": encoder, "revision": revision, "chains": chains, "pool": pool, "layers": list(layers), "pca": pca,
        "precision": precision, "batch_tokens": batch_tokens, "window": window, "overlap": overlap, "store": str(store),
    }  # fmt: skip
    options = read_options(LanguageModel, given, "embed")
    target = Path(out)
    _check_target(target)
    chosen = choose_device(device)
    notify(f"Device: {describe_device(chosen)}")
    if warning := missing_gpu_warning(chosen, device):
        notify(f"Warning: {warning}")
    base = f"{prefix or short_name(encoder)}_{'pca' if pca else 'dim'}_"
    table = _read(data, base)
    for line in table.report.lines():
        notify(line)
    known = has_antibody(table)
    if not known.any():
        raise TableError(f"{', '.join(table.report.files)} must have heavy or light sequences to embed; it has none.")
    with working(console or default_console(), "Embedding", notify):
        features = _features(options, table.take(known), device, notify)
    whole = np.full((len(table), features.shape[1]), np.nan, np.float32)
    whole[known] = features
    names = tuple(f"{base}{number}" for number in range(features.shape[1]))
    frame = with_features(replace(table, features=whole, feature_names=names))
    with writing(target) as handle:
        frame.write_csv(handle) if target.suffix == ".csv" else frame.write_parquet(handle)
    return Embedded(target, len(frame), int((~known).sum()), names)


def _read(data: str | Path | Sequence[str | Path], base: str) -> AffinityTable:
    """Read all there is of a table, with its labels where it has a column of them."""
    try:
        table = read_table(data, feature_prefix=None, check_range=False, keep_everything=True, cache=False)
    except TableError as error:
        if "must have a label column" not in str(error):
            raise
        table = read_table(data, feature_prefix=None, labels=False, keep_everything=True, cache=False)
        table = replace(table, frame=table.frame.drop("pkd", "relation"))
    if taken := [name for name in table.frame.columns if re.fullmatch(rf"{re.escape(base)}\d+", name)]:
        raise TableError(
            f"{', '.join(table.report.files)} must not have columns {base}0 … already; it has {taken[0]}. "
            "Choose another name with --prefix, or start from the table without them."
        )
    return table


def _features(
    options: LanguageModel, table: AffinityTable, device: str, notify: Callable[[str], None]
) -> NDArray[np.float32]:
    """Return (n_samples, n_features) of rows that all have an antibody."""
    embedder = options.embedder(device)
    families = find_cdrs(table.frame) if options.pool != MEAN else None
    vectors = embed_table(embedder, table.frame, options.chains, families)
    width = max(part.shape[1] for part in vectors.parts.values())
    parts = [part if len(part) else np.empty((0, width), np.float32) for part in vectors.parts.values()]
    rows = Filled(parts, vectors.places, np.zeros((len(parts), width), np.float32))
    if not options.pca:
        return rows[vectors.of_row]
    reduction = fit_pca(rows, options.pca, weights=np.bincount(vectors.of_row, minlength=len(vectors)))
    notify(
        f"{options.pca} principal components, fitted on all rows, keep {100 * reduction.explained.sum():.1f} % of the "
        "variance. Without --pca, features.columns.pca in a recipe fits them on training rows only."
    )
    return reduction.transform(rows)[vectors.of_row]


def embedded_lines(done: Embedded) -> list[str]:
    """Return what was written, and how to train on it, a sentence a line."""
    empty = f", {done.n_without:,} of them without an antibody and left empty" if done.n_without else ""
    first, last = done.columns[0], done.columns[-1]
    how = f"tailbind train {done.path} --recipe v2 --out runs/v2"
    others = numbered_blocks(_columns(done.path))
    large = [name for name, block in others.items() if len(block) >= SMALLEST_BLOCK]
    if len(large) > 1 or len(done.columns) < SMALLEST_BLOCK:
        how += f" --set features.columns.prefix={first[:-1]}"
    return [
        f"{done.path}: {done.n_rows:,} rows{empty}; {len(done.columns):,} columns, {first} … {last}.",
        f"Next: {how}",
    ]


def _columns(path: Path) -> list[str]:
    if path.suffix == ".csv":
        return pl.read_csv(path, n_rows=0, infer_schema=False).columns
    return list(pl.read_parquet_schema(path))


def _check_target(target: Path) -> None:
    if target.suffix not in FORMATS:
        raise RunError(f"--out must end in {' or '.join(FORMATS)}; got {target}.")
    if target.exists():
        raise RunError(f"--out {target} must be a new file; there is one. Choose another name or remove it.")
    if not target.parent.is_dir():
        raise RunError(f"--out {target} must be in an existing folder; there is no {target.parent}. Make it first.")
