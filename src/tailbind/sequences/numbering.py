"""Where the variable domains of antibodies lie in a sequence, by IMGT numbers; found by ANARCII, kept on disk.

ANARCII runs in its mode "speed": on 200 heavy and light chains it found the same domains with the same numbers
as in its mode "accuracy", in half the time. What it takes for domains elsewhere scores lower (see
`LOWEST_SCORE`) and does not count.

ANARCII: Greenshields-Watson et al., bioRxiv 2025.04.16.648720.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Final

from tailbind.errors import RunError, SequenceError
from tailbind.runtime import writing
from tailbind.sequences.alphabet import AMINO_ACIDS

MODE: Final = "speed"

#: On public measurements, heavy and light chains score 24 or more, and fragments of them; antigens of all kinds,
#: immunoglobulin-like ones and constant domains among them, 20 at most.
LOWEST_SCORE: Final = 22.0

#: ANARCII numbers nothing shorter.
SHORTEST: Final = 50

#: What is left before or after a domain may hold another when it has so many residues.
SHORTEST_REST: Final = 70

#: Sequences numbered at a time, after which the results so far are on disk.
CHUNK: Final = 250

#: Raised when what is stored changes its meaning.
STORE_VERSION: Final = 2


@dataclass(frozen=True)
class Domain:
    """A variable domain in a sequence.

    Attributes
    ----------
    chain : "H", "K" or "L"
    score : of ANARCII; whole domains have about 27 to 31
    start, end : first residue and the one after the last, counted from 0 in the sequence
    positions : (end − start,) the IMGT position of each residue: "52", or "111A" for an inserted one
    """

    chain: str
    score: float
    start: int
    end: int
    positions: tuple[str, ...]

    @property
    def imgt_first(self) -> int:
        """IMGT number of the first residue."""
        return imgt_number(self.positions[0])

    @property
    def imgt_last(self) -> int:
        """IMGT number of the last residue."""
        return imgt_number(self.positions[-1])


def imgt_number(position: str) -> int:
    """Return the number of an IMGT position, without the letter of an insertion.

    >>> imgt_number("111A")
    111
    """
    return int(position.rstrip(ascii_uppercase))


def number(
    sequences: Sequence[str], *, notify: Callable[[int, int], None] = lambda done, of: None
) -> list[tuple[Domain, ...]]:
    """Return the variable domains in each sequence, in their order: two for an scFv, none for most antigens.

    Constant domains are none. A processor core does some 40 sequences a second the first time; the results are
    kept in the user's cache folder, or in the folder that the environment variable `TAILBIND_CACHE` names.

    Parameters
    ----------
    sequences : (n,) sequences; letters other than the twenty are taken for unknown residues
    notify : told how many of the sequences not known from before are done, and how many there are

    Raises
    ------
    SequenceError
        When ANARCII is not installed.

    Examples
    --------
    >>> number(["", "GGGGSGGGGS"])
    [(), ()]
    """
    wanted = sorted({sequence for sequence in sequences if len(sequence) >= SHORTEST})
    if not wanted:
        return [() for _ in sequences]
    if not can_number():
        raise SequenceError(
            f"Numbering {len(wanted):,} distinct sequences needs anarcii; it is not installed. "
            "Run: pip install 'tailbind[sequences]'"
        )
    store = _Store()
    known = store.read()
    missing = [sequence for sequence in wanted if _key(sequence) not in known]
    for start in range(0, len(missing), CHUNK):
        notify(start, len(missing))
        chunk = missing[start : start + CHUNK]
        known |= {_key(sequence): found for sequence, found in zip(chunk, _domains(chunk), strict=True)}
        store.write(known)
    notify(len(missing), len(missing))
    return [known[_key(sequence)] if len(sequence) >= SHORTEST else () for sequence in sequences]


def can_number() -> bool:
    """Return whether ANARCII is installed.

    >>> isinstance(can_number(), bool)
    True
    """
    return importlib.util.find_spec("anarcii") is not None


def _domains(sequences: Sequence[str]) -> list[tuple[Domain, ...]]:
    """Return the domains of each sequence: what is left around one that was found is looked at again."""
    unknown = str.maketrans(dict.fromkeys(set("".join(sequences)) - set(AMINO_ACIDS), "X"))
    found: list[list[Domain]] = [[] for _ in sequences]
    pieces = [(position, 0, sequence.translate(unknown)) for position, sequence in enumerate(sequences)]
    with _quiet():
        from anarcii import Anarcii
        from torch import get_num_threads

        model = Anarcii(seq_type="antibody", batch_size=32, cpu=True, ncpu=get_num_threads(), mode=MODE, verbose=False)
        while pieces:
            answers = model.number({str(place): piece for place, (_, _, piece) in enumerate(pieces)})
            rest = []
            for place, (position, offset, piece) in enumerate(pieces):
                domain = _read(answers[str(place)], offset)
                if domain is not None:
                    found[position].append(domain)
                    before, after = piece[: domain.start - offset], piece[domain.end - offset :]
                    rest += [(position, offset, before), (position, domain.end, after)]
            pieces = [part for part in rest if len(part[2]) >= SHORTEST_REST]
    return [tuple(sorted(domains, key=lambda domain: domain.start)) for domains in found]


def _read(answer: dict[str, Any], offset: int) -> Domain | None:
    """Return the domain in what ANARCII says of a piece that begins at `offset`, or None."""
    if not answer["numbering"] or answer["error"] or answer["score"] < LOWEST_SCORE:
        return None
    occupied = [f"{imgt}{letter}".strip() for (imgt, letter), residue in answer["numbering"] if residue != "-"]
    return Domain(
        chain=str(answer["chain_type"]),
        score=round(float(answer["score"]), 2),
        start=offset + int(answer["query_start"]),
        end=offset + int(answer["query_end"]) + 1,
        positions=tuple(occupied),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what ANARCII prints from the user, and the number of threads that it sets from the rest of the program."""
    import torch

    threads = torch.get_num_threads()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        torch.set_num_threads(threads)


def _key(sequence: str) -> str:
    return hashlib.blake2b(sequence.encode(), digest_size=16).hexdigest()


class _Store:
    """The domains known from earlier runs: one line of JSON for each sequence, under the sequence's hash.

    One file for each version of ANARCII. What another program has added meanwhile is kept, but for two that write at
    the same moment; a line that cannot be read is numbered again.
    """

    def __init__(self) -> None:
        import platformdirs

        folder = Path(os.environ.get("TAILBIND_CACHE") or platformdirs.user_cache_dir("tailbind"))
        version = importlib.metadata.version("anarcii")
        self.path = folder / "numbering" / f"anarcii-{version}-{MODE}-{STORE_VERSION}.jsonl"

    def read(self) -> dict[str, tuple[Domain, ...]]:
        known = {}
        with contextlib.suppress(OSError):
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, OverflowError):
                    key, domains = _from_line(line)
                    known[key] = domains
        return known

    def write(self, known: dict[str, tuple[Domain, ...]]) -> None:
        known = self.read() | known
        lines = (json.dumps({"sequence": key, "domains": _rows(found)}) for key, found in sorted(known.items()))
        with contextlib.suppress(OSError, RunError):  # a cache is a convenience
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with writing(self.path) as handle:
                handle.write("".join(f"{line}\n" for line in lines).encode())


def _rows(found: Iterable[Domain]) -> list[tuple[object, ...]]:
    return [(*astuple(domain)[:-1], " ".join(domain.positions)) for domain in found]


def _from_line(line: str) -> tuple[str, tuple[Domain, ...]]:
    record = json.loads(line)
    domains = []
    for chain, score, start, end, positions in record["domains"]:
        domains.append(Domain(str(chain), float(score), int(start), int(end), tuple(positions.split())))
    return str(record["sequence"]), tuple(domains)
