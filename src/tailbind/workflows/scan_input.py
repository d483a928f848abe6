"""What is to be scanned: the sequences as they were typed or lie in files, the chains, and the places in them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailbind.errors import SequenceError
from tailbind.sequences.families import Families, name_places
from tailbind.sequences.laying import IMGT_ENDS, OTHER, REGIONS
from tailbind.sequences.numbering import can_number, number
from tailbind.sequences.proteins import read_argument, read_chains
from tailbind.table.schema import SEQUENCES, SPELLINGS

ANTIBODY: Final = ("heavy", "light")
#: What the record of an antigen may be called.
ANTIGEN: Final = ("ag", *SPELLINGS["antigen"])
#: No chain is as long.
LAST_POSITION: Final = 1_000_000


@dataclass(frozen=True)
class Places:
    """Where the residues of a chain are: their IMGT names and regions, None outside a numbered domain."""

    imgt: tuple[str | None, ...]
    region: tuple[str | None, ...]


def read_pair(heavy: str, light: str, antigen: str, fasta: Path | None) -> dict[str, str]:
    """Return heavy, light and antigen from what was typed, `@FILE` included, or from a FASTA file.

    Raises
    ------
    SequenceError
        When a file cannot be read, or a chain is given twice.
    """
    typed = {chain: read_argument(text, chain) for chain, text in zip(SEQUENCES, (heavy, light, antigen), strict=True)}
    if fasta is None:
        return typed
    found = read_chains(fasta, {chain: (chain[0], *SPELLINGS[chain]) for chain in ANTIBODY} | {"antigen": ANTIGEN})
    for chain, sequence in found.items():
        if typed[chain]:
            raise SequenceError(f"The {chain} must be given once; it is typed and in {fasta}. Leave one out.")
        typed[chain] = sequence
    return typed


def read_numbers(text: str) -> list[int]:
    """Return the positions that a list with commas and ranges names.

    Raises
    ------
    SequenceError
        For what is neither, or a range that does not ascend.

    Examples
    --------
    >>> read_numbers("31-33, 52")
    [31, 32, 33, 52]
    """
    found: list[int] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = word.partition("-")
        if not (first.strip().isdecimal() and (not dash or last.strip().isdecimal())):
            raise SequenceError(f"Positions must be numbers and ranges, as in 31-35,52; got {word!r}. Correct it.")
        if int(last or first) < int(first):
            raise SequenceError(
                f"A range of positions must ascend; got {word!r}. Write {last.strip()}-{first.strip()}."
            )
        if int(last or first) > LAST_POSITION:
            raise SequenceError(f"Positions must be {LAST_POSITION:,} at most; got {word!r}. Correct it.")
        found += range(int(first), int(last or first) + 1)
    return found


def chains_to_scan(chains: Sequence[str] | None, sequences: Mapping[str, str]) -> list[str]:
    """Return the chains to scan, in the order heavy, light, antigen."""
    if chains is None:
        return [chain for chain in ANTIBODY if sequences[chain]]
    for chain in chains:
        if chain not in SEQUENCES:
            raise SequenceError(f"A chain to scan must be one of {', '.join(SEQUENCES)}; got {chain!r}. Correct it.")
        if not sequences[chain]:
            raise SequenceError(f"The chain to scan must be given; {chain} is empty. Give it, or scan another.")
    if not chains:
        raise SequenceError(f"A chain to scan must be named, of {', '.join(SEQUENCES)}; got none. Name one.")
    return [chain for chain in SEQUENCES if chain in chains]


def find_places(
    sequences: Mapping[str, str],
    chosen: Sequence[str],
    regions: Sequence[str],
    families: Mapping[str, Families],
    notify: Callable[[str], None],
) -> dict[str, Places]:
    """Return where the residues of every chain to scan are.

    Parameters
    ----------
    sequences, chosen : of every chain, and the chains to scan
    regions : asked for
    families : chain → families that a model has numbered; a sequence of one of them gets its numbers, and ANARCII is
        spared
    notify : told where there are no IMGT numbers, and why
    """
    for region in regions:
        if region not in IMGT_ENDS:
            raise SequenceError(f"A region must be one of {', '.join(IMGT_ENDS)}; got {region!r}. Correct it.")
    places = {chain: Places((None,) * len(sequences[chain]), (None,) * len(sequences[chain])) for chain in chosen}
    unknown = []
    for chain in chosen:
        member = families[chain].member_of(sequences[chain]) if chain in families else None
        if member is not None and (member.regions != OTHER).any():
            places[chain] = _named(member.positions, member.regions)
        elif chain in ANTIBODY:
            unknown.append(chain)
    if unknown and not can_number():
        if regions:
            raise SequenceError(
                "Regions need anarcii to number antibodies; it is not installed. "
                "Run: pip install 'tailbind[sequences]', or name positions."
            )
        notify("Positions are counted in the sequences; IMGT numbers need anarcii: pip install 'tailbind[sequences]'.")
        return places
    for chain, domains in zip(unknown, number([sequences[chain] for chain in unknown]), strict=True):
        if not domains:
            notify(f"No variable domain was found in the {chain} chain: its positions are counted in the sequence.")
        places[chain] = _named(*name_places(sequences[chain], domains))
    return places


def _named(names: Sequence[str], regions: NDArray[np.uint8]) -> Places:
    within = (regions != OTHER).tolist()
    return Places(
        tuple(name if there else None for name, there in zip(names, within, strict=True)),
        tuple(
            REGIONS[code].partition(".")[2] if there else None
            for code, there in zip(regions.tolist(), within, strict=True)
        ),
    )


def residues_to_scan(
    places: Mapping[str, Places], chosen: Sequence[str], regions: Sequence[str], positions: Sequence[int] | None
) -> list[tuple[str, int]]:
    """Return the chain and the place, counted from 0, of every residue to be substituted."""
    if positions is not None and len(chosen) != 1:
        raise SequenceError(f"Positions need one chain to scan; got {', '.join(chosen)}. Name one of them.")
    wanted = []
    for chain in chosen:
        length = len(places[chain].imgt)
        for position in positions or ():
            if not 1 <= position <= length:
                raise SequenceError(f"Positions in {chain} must be 1 to {length}; got {position}. Correct it.")
        for place, region in enumerate(places[chain].region):
            of_region = not regions or chain not in ANTIBODY or region in regions
            if of_region and (positions is None or place + 1 in positions):
                wanted.append((chain, place))
    if not wanted:
        asked = ", ".join([*regions, *(map(str, positions) if positions is not None else ())])
        raise SequenceError(f"There must be a residue to substitute; {', '.join(chosen)} has none in {asked or 'it'}.")
    return wanted
