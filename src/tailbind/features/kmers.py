"""Which short words a chain is written in: what two sequences share that no alignment finds alike.

The product of two rows' columns is the cosine of their counts of words of k letters (the spectrum kernel of Leslie,
Eskin and Noble 2002), so that antigens of one kind are near each other though they are of no one family. The ends count
as letters: how a sequence begins and ends often tells where it is from.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import RecipeError
from tailbind.features.distinct import distinct
from tailbind.options import bounded, one_of
from tailbind.table.features import Features
from tailbind.table.schema import SEQUENCES, AffinityTable

#: What stands for the beginning and the end of a sequence; no sequence has them.
START: Final = "^"
END: Final = "$"


@dataclass(frozen=True)
class Kmers:
    """Options of the block.

    Attributes
    ----------
    k : letters of a word
    chains : the sequences that are read: heavy, light, antigen
    """

    reads_sequences: ClassVar[bool] = True

    k: int = bounded(3, low=1, high=5)
    chains: tuple[str, ...] = one_of(("antigen",), SEQUENCES)

    def __post_init__(self) -> None:
        if not self.chains or len(set(self.chains)) < len(self.chains):
            raise RecipeError(
                f"features.kmers.chains must name one chain or more, each once; got {list(self.chains)}. "
                'Write ["antigen"], or leave it out for that.'
            )

    def fit(self, table: AffinityTable, rows: NDArray[np.intp]) -> "FittedKmers":
        """Learn which words the training rows have."""
        words = {}
        for chain in self.chains:
            sequences, _ = distinct(table.frame[chain][rows])
            words[chain] = tuple(sorted({word for sequence in sequences for word in split(sequence, self.k)}))
        return FittedKmers(self.k, words)

    def from_state(self, state: Mapping[str, Any]) -> "FittedKmers":
        """Return the fitted block that `state` was taken from."""
        return FittedKmers(self.k, {chain: tuple(state["words"][chain]) for chain in self.chains})


@dataclass(frozen=True)
class FittedKmers:
    """One sparse column per word that a chain had in training.

    Attributes
    ----------
    k : letters of a word
    words : chain → its words, in sorted order
    """

    reads_sequences: ClassVar[bool] = True

    k: int
    words: Mapping[str, tuple[str, ...]]

    def transform(self, table: AffinityTable) -> Features:
        """Return (n_samples, n_words) sparse columns: counts, divided by the length of the vector of all counts.

        Words that training never saw have no column, but they count in that length; so a row's squares sum to 1
        where training knew all its words, and to less elsewhere. A chain that is missing has 0 throughout.
        """
        from scipy.sparse import csr_array, hstack

        parts = []
        for chain, words in self.words.items():
            sequences, index = distinct(table.frame[chain])
            parts.append(self._counted(sequences, words)[index])
        names = tuple(f"{chain} kmer {word}" for chain, words in self.words.items() for word in words)
        sparse = csr_array(hstack(parts, format="csr", dtype=np.float32))
        return Features(np.empty((len(table), 0), np.float32), (), sparse, names)

    def _counted(self, sequences: list[str], words: tuple[str, ...]) -> Any:
        """Return (n_sequences, n_words) the columns of distinct sequences."""
        from scipy.sparse import csr_array

        place = {word: column for column, word in enumerate(words)}
        columns, values, ends = [], [], [0]
        for sequence in sequences:
            counts: dict[str, int] = {}
            for word in split(sequence, self.k):
                counts[word] = counts.get(word, 0) + 1
            length = float(np.sqrt(sum(count**2 for count in counts.values())))
            known = sorted((place[word], count / length) for word, count in counts.items() if word in place)
            columns += [column for column, _ in known]
            values += [value for _, value in known]
            ends.append(len(columns))
        parts = (np.array(values, np.float32), np.array(columns, np.int32), np.array(ends, np.int32))
        return csr_array(parts, shape=(len(sequences), len(words)))

    def state(self) -> dict[str, Any]:
        """Return the words."""
        return {"words": {chain: list(words) for chain, words in self.words.items()}}


def split(sequence: str, k: int) -> Iterator[str]:
    """Yield the words of `k` letters of a sequence with its ends marked; none where there is no sequence.

    >>> list(split("ACD", 3)), list(split("", 3))
    (['^AC', 'ACD', 'CD$'], [])
    """
    if sequence:
        marked = f"{START}{sequence}{END}"
        for at in range(max(1, len(marked) - k + 1)):
            yield marked[at : at + k]
