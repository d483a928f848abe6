"""Rules about the sequences: letters, nucleotides, fragments, chains in the wrong column."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailbind.sequences.alphabet import looks_like_nucleotides, unknown_letters
from tailbind.table.audit.contract import (
    ERROR,
    EXCLUDE,
    INFO,
    SWAP,
    WARNING,
    Examined,
    Finding,
    listing,
    rows_by,
)
from tailbind.table.schema import SEQUENCES

#: A variable domain has some 105 to 130 residues.
SHORTEST_DOMAIN: Final = 85
CHAINS: Final = ("heavy", "light")


def nucleotides(examined: Examined) -> Iterator[Finding]:
    """Find sequences in nucleotides where amino acids belong."""
    for chain in SEQUENCES:
        bad = looks_like_nucleotides(examined.frame[chain]).to_numpy()
        for source, rows in _by_source(examined, bad):
            yield Finding(
                "nucleotides",
                ERROR,
                source,
                rows,
                f"{len(rows):,} {chain} sequences have no letters but A, C, G, T, U and N.",
                {"n": len(rows), "chain": chain},
                "Read as amino acids (alanine, cysteine, glycine, threonine) they are nonsense.",
                "Translate them first.",
                EXCLUDE,
            )


def stop_codon(examined: Examined) -> Iterator[Finding]:
    """Find sequences with a stop codon, "*": an error inside them, a note at their end."""
    for chain in SEQUENCES:
        sequences = examined.frame[chain]
        ends = sequences.str.contains(r"^[^*]+\*+$").to_numpy()
        bad = sequences.str.contains("*", literal=True).to_numpy()
        for source, rows in _by_source(examined, bad & ~ends):
            yield Finding(
                "stop_codon",
                ERROR,
                source,
                rows,
                f"{len(rows):,} {chain} sequences have a stop codon (*) inside.",
                {"n": len(rows), "chain": chain, "at_end": False},
                "The protein ends there; what follows was never measured.",
                "Leave the rows out, or correct the sequences.",
                EXCLUDE,
            )
        for source, rows in _by_source(examined, ends):
            yield Finding(
                "stop_codon",
                INFO,
                source,
                rows,
                f"{len(rows):,} {chain} sequences end in a stop codon (*).",
                {"n": len(rows), "chain": chain, "at_end": True},
                "The protein is whole, but the same sequence without * counts as another one: replicates are missed.",
                "Remove the * at the end.",
            )


def unknown_letter(examined: Examined) -> Iterator[Finding]:
    """Find sequences with letters that are none of the twenty amino acids; stop codons have a rule of their own."""
    for chain in SEQUENCES:
        letters = unknown_letters(examined.frame[chain].str.replace_all("*", "", literal=True))
        for source, rows in _by_source(examined, (letters != "").to_numpy()):
            found = sorted(set("".join(letters.gather(rows).unique())))
            yield Finding(
                "unknown_letter",
                WARNING,
                source,
                rows,
                f"{len(rows):,} {chain} sequences have letters that are no amino acid: {listing(found, most=8)}.",
                {"n": len(rows), "chain": chain, "letters": found},
                "A feature of that position is unknown; gaps and tags shift all that follow.",
                "Correct them; remove gaps (-) and numbers.",
            )


def fragment(examined: Examined) -> Iterator[Finding]:
    """Find heavy and light chains too short for a variable domain."""
    for chain in CHAINS:
        lengths = _lengths(examined.frame[chain])
        for source, rows in _by_source(examined, (lengths > 0) & (lengths < SHORTEST_DOMAIN)):
            shortest = int(lengths[rows].min())
            yield Finding(
                "fragment",
                WARNING,
                source,
                rows,
                f"{len(rows):,} {chain} chains are shorter than a variable domain ({SHORTEST_DOMAIN} residues); the "
                f"shortest has {shortest}.",
                {"n": len(rows), "chain": chain, "shortest": shortest},
                "Positions are missing, or the row holds a CDR or a peptide; it looks like no other antibody.",
                "Fill in the whole variable domain, or leave the rows out.",
            )


def swapped_chains(examined: Examined) -> Iterator[Finding]:
    """Find heavy chains in the light column and the reverse (by numbering one representative per family).

    A sequence of two domains is no exchange, whichever comes first: `single_chain` is about those.
    """
    heavy_is_light = np.isin(_only_type(examined, "heavy"), ("K", "L"))
    light_is_heavy = _only_type(examined, "light") == "H"
    both = heavy_is_light & light_is_heavy
    lone = (heavy_is_light & (examined.frame["light"] == "").to_numpy()) | (
        light_is_heavy & (examined.frame["heavy"] == "").to_numpy()
    )
    for source, rows in _by_source(examined, both | lone):
        yield Finding(
            "swapped_chains",
            ERROR,
            source,
            rows,
            f"{len(rows):,} rows have a light chain in the heavy column, or a heavy chain in the light column.",
            {"n": len(rows)},
            "The same antibody is two different ones to the model; splits by heavy chain miss it.",
            "Exchange the two columns in these rows (--fix does).",
            SWAP,
        )
    for chain, wrong in (("heavy", heavy_is_light), ("light", light_is_heavy)):
        for source, rows in _by_source(examined, wrong & ~(both | lone)):
            yield Finding(
                "swapped_chains",
                WARNING,
                source,
                rows,
                f"{len(rows):,} rows have a {'light' if chain == 'heavy' else 'heavy'} chain in the {chain} column, "
                "without the other one in its place.",
                {"n": len(rows), "chain": chain},
                "One chain is there twice or is another antibody's.",
                "Look the rows up in their source.",
            )


def single_chain(examined: Examined) -> Iterator[Finding]:
    """Find single-chain antibodies (scFv) whose two domains are in one column."""
    for chain in CHAINS:
        several = _n_domains(examined, chain) >= 2
        for source, rows in _by_source(examined, several):
            yield Finding(
                "single_chain",
                WARNING,
                source,
                rows,
                f"{len(rows):,} {chain} sequences hold two variable domains: a single-chain antibody in one column.",
                {"n": len(rows), "chain": chain},
                "Features by chain see a linker in the middle and no partner; it clusters with nothing.",
                "Divide them into heavy and light at the linker.",
            )


def not_an_antibody(examined: Examined) -> Iterator[Finding]:
    """Find heavy and light columns that hold something else: no variable domain is recognised."""
    for chain in CHAINS:
        lengths = _lengths(examined.frame[chain])
        nucleic = looks_like_nucleotides(examined.frame[chain]).to_numpy()
        none = (_n_domains(examined, chain) == 0) & (lengths >= SHORTEST_DOMAIN) & ~nucleic
        for source, rows in _by_source(examined, none):
            yield Finding(
                "not_an_antibody",
                WARNING,
                source,
                rows,
                f"{len(rows):,} {chain} sequences hold no variable domain that can be numbered.",
                {"n": len(rows), "chain": chain},
                "CDRs cannot be found in them; they may be receptors, peptides or mistakes.",
                "Check the column; leave out what is no antibody.",
            )


def _only_type(examined: Examined, chain: str) -> NDArray[np.str_]:
    """Return (n_samples,) the type of each row's only domain: H, K or L; "" where there is none, or several."""
    types = [found[0].chain if len(found) == 1 else "" for found in examined.domains[chain]]
    return np.array([*types, ""], dtype="<U1")[examined.families[chain]]


def _n_domains(examined: Examined, chain: str) -> NDArray[np.intp]:
    """Return (n_samples,) how many variable domains each row's sequence holds, −1 where it is empty."""
    counts = [len(found) for found in examined.domains[chain]]
    return np.array([*counts, -1], dtype=np.intp)[examined.families[chain]]


def _lengths(sequences: pl.Series) -> NDArray[np.int64]:
    """Return (n_samples,) how many residues each sequence has; a stop codon at the end is none."""
    return sequences.str.strip_chars_end("*").str.len_chars().to_numpy().astype(np.int64)


def _by_source(examined: Examined, chosen: NDArray[np.bool_]) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Yield source → the chosen rows of it."""
    rows = np.flatnonzero(chosen)
    if len(rows):
        for source, members in rows_by(examined.frame["source"].gather(rows)).items():
            yield source, rows[members]
