"""What belongs together: exact pairs, clusters of antibodies and antigens, variants of one parent.

Everything here numbers the rows of a table's frame: rows with one number are one group. Who is put where
is the business of the splits.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.errors import SequenceError, SplitError
from tailbind.sequences.clustering import cluster
from tailbind.table.schema import normalise

#: Columns that say which parent or complex a variant was made from; the first that a table has is taken.
PARENTS: Final = ("parent", "complex", "complex_id", "pdb", "pdb_id")
#: Heavy chains this alike are one family: variants of one antibody, whose errors are alike too.
FAMILY_IDENTITY: Final = 0.9

Numbers = NDArray[np.intp]


@dataclass(frozen=True)
class Families:
    """Near-duplicate families of antibodies.

    Attributes
    ----------
    index : (n_samples,) the family of each row; None where they are unknown
    why : why they are unknown, as the end of a sentence; "" where they are known
    """

    index: Numbers | None
    why: str = ""


def has_antibodies(frame: pl.DataFrame) -> bool:
    """Return whether any row has a heavy or light sequence."""
    return bool(frame.select(((pl.col("heavy") != "") | (pl.col("light") != "")).any()).item())


def pair_index(frame: pl.DataFrame) -> Numbers:
    """Return (n_samples,) the number of each row's pair, counted from 0 in order of appearance.

    A pair is heavy + light + antigen; where the antigen has no sequence its name, then its source,
    stands for it. A row with neither heavy nor light is a pair of its own.

    Raises
    ------
    SplitError
        When no row has a heavy or light sequence.
    """
    if not has_antibodies(frame):
        raise SplitError("A pair split needs heavy or light sequences; the table has none. Use split.kind=random.")
    frame = frame.rechunk()  # polars 2.1 panics when it formats a column with an empty chunk
    antigen = pl.when(pl.col("antigen") != "").then(pl.format("sequence {}", "antigen")).otherwise(_stand_in())
    unknown = (pl.col("heavy") == "") & (pl.col("light") == "")
    own = pl.when(unknown).then(pl.col("row_id")).otherwise(pl.lit(""))
    return numbered(frame.select("heavy", "light", antigen.alias("antigen"), own.alias("own")))


def antibody_groups(frame: pl.DataFrame, identity: float) -> Numbers:
    """Return (n_samples,) the cluster of each row's heavy chain.

    Where a row has no heavy chain, the cluster of its light chain among such rows; a row with neither is
    a group of its own.

    Raises
    ------
    SplitError
        When no row has a heavy or light sequence.
    SequenceError
        When so many sequences cannot be clustered here.
    """
    if not has_antibodies(frame):
        raise SplitError("Clusters of antibodies need heavy or light sequences; the table has none.")
    groups = np.array(cluster(frame["heavy"].to_list(), identity))
    for chain in ("light", ""):
        alone = np.flatnonzero(groups < 0)
        numbers = cluster(frame[chain].gather(alone).to_list(), identity) if chain else np.arange(len(alone))
        groups[alone] = np.where(numbers < 0, -1, groups.max(initial=-1) + 1 + numbers)
    return groups


def antigen_groups(frame: pl.DataFrame, identity: float) -> Numbers:
    """Return (n_samples,) the cluster of each row's antigen; its name, then its source, where it has no sequence.

    A name that stands for a sequence in one row and comes with one in another is one antigen: its rows are in the
    cluster of that sequence, and where it comes with several, their clusters are one group. A name that every row
    gives with a sequence joins nothing: the sequences say more than a name such as "envelope protein".

    Raises
    ------
    SequenceError
        When so many sequences cannot be clustered here.

    Examples
    --------
    >>> frame = pl.DataFrame({"antigen": ["MKT" * 4, "", "GGS" * 4], "antigen_name": ["HER2", "HER2", "TNF"]})
    >>> antigen_groups(frame.with_columns(source=pl.lit("assay")), 0.7).tolist()
    [0, 0, 1]
    """
    clusters = pl.Series("cluster", cluster(frame["antigen"].to_list(), identity))
    known = pl.format("cluster {}", pl.col("cluster"))
    key = pl.when(pl.col("cluster") >= 0).then(known).otherwise(_stand_in())
    keys = frame.select("antigen_name", "source").with_columns(clusters).with_columns(key.alias("key"))
    standing_in = keys.filter((pl.col("cluster") < 0) & (pl.col("antigen_name") != ""))["antigen_name"].unique()
    by_name = pl.col("antigen_name").is_in(standing_in.implode())
    linked = keys.select(pl.when(by_name).then(pl.format("name {}", "antigen_name")).otherwise("key").alias("key"))
    return components(numbered(keys.select("key")), numbered(linked))


def components(first: Numbers, second: Numbers) -> Numbers:
    """Return (n_samples,) groups that split neither the groups of `first` nor those of `second`: connected components.

    >>> components(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])).tolist()
    [0, 0, 0, 1]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = np.unique(first, return_inverse=True)[1]
    second = np.unique(second, return_inverse=True)[1] + first.max(initial=-1) + 1
    n = int(second.max(initial=-1)) + 1
    _, labels = connected_components(coo_array((np.ones(len(first)), (first, second)), shape=(n, n)), directed=False)
    joint: Numbers = labels[first].astype(np.intp)
    return joint


def parent_column(frame: pl.DataFrame) -> str:
    """Return the column that says which parent or complex each row is of.

    Raises
    ------
    SplitError
        When there is none of `PARENTS`.
    """
    by_spelling = {normalise(name): name for name in reversed(frame.columns)}
    found = next((by_spelling[name] for name in PARENTS if name in by_spelling), None)
    if found is None:
        raise SplitError(
            f"A parent split needs a column {', '.join(PARENTS[:-1])} or {PARENTS[-1]}; the table has none. "
            "Name the column with split.column."
        )
    return found


def find_families(frame: pl.DataFrame, identity: float = FAMILY_IDENTITY) -> Families:
    """Return the near-duplicate family of each row: the cluster of its heavy chain, else of its light chain.

    Never fails: where clustering is not possible here, the families are unknown, and it is said why.
    """
    if not has_antibodies(frame):
        return Families(None, "the table has no antibody sequences")
    try:
        return Families(antibody_groups(frame, identity))
    except SequenceError as error:
        return Families(None, str(error).partition(". ")[0].rstrip("."))  # what is wrong, without what to do


def complex_labels(frame: pl.DataFrame) -> NDArray[np.str_]:
    """Return (n_samples,) the complex that each row is a variant of.

    The column of parents says it where the table has one; else it is the family of the antibody together with the
    antigen's; where families are unknown, the source.
    """
    try:
        return frame[parent_column(frame)].cast(pl.String).fill_null("").to_numpy().astype(np.str_)
    except SplitError:
        families = find_families(frame)
    if families.index is None:
        return frame["source"].to_numpy().astype(np.str_)
    antigens = numbered(frame.select(pl.col("antigen"), pl.col("antigen_name")))
    return np.char.add(np.char.add(families.index.astype(np.str_), "/"), antigens.astype(np.str_))


def numbered(keys: pl.DataFrame) -> Numbers:
    """Return (n_samples,) the number of each distinct row of `keys`, from 0 in order of appearance.

    >>> numbered(pl.DataFrame({"heavy": ["QVQ", "EVQ", "QVQ"], "light": ["DIQ", "DIQ", "DIQ"]})).tolist()
    [0, 1, 0]
    """
    distinct = keys.unique(maintain_order=True).with_row_index("number")
    found = keys.join(distinct, on=keys.columns, how="left", maintain_order="left")
    return found["number"].to_numpy().astype(np.intp)


def _stand_in() -> pl.Expr:
    """Return what stands for an antigen without a sequence: its name, then its source."""
    return (
        pl.when(pl.col("antigen_name") != "")
        .then(pl.format("name {}", "antigen_name"))
        .otherwise(pl.format("source {}", "source"))
    )
