"""How often the audit finds planted faults, how often it cries wolf, and what it says of real tables.

    python benchmarks/audit.py [--tables 10] [--data FOLDER] [--out docs/results/audit.md]

Clean tables are simulated: four laboratories, six antibody families each, every pair once, no floor, labels
rounded to 1, 2 or 4 digits. Each fault is planted at several strengths, and the rule that is named after it must
find it. `--data` is the folder with `mixed_scales.csv`, `affinity_pool.parquet` and `multi_antigen.parquet`.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from tailbind.sequences.clustering import forget_clusters
from tailbind.table.audit import RULES, audit
from tailbind.table.audit.contract import Audit, Examined
from tailbind.table.reading import read_table
from tailbind.table.schema import AffinityTable, ReadingReport
from tailbind.table.simulation import Landscape, simulate

LABORATORIES = ("north", "east", "south", "west")
FLOORED = ("cr9114_h3", "cr9114_fluB", "ch65_si06", "cr6261_h1")
Frame = pl.DataFrame
Plant = Callable[[Frame, float, np.random.Generator], Frame]


def clean_frame(seed: int, digits: int = 4, n_rows: int = 2400) -> Frame:
    """Return a table without a fault: canonical columns, every antibody once."""
    landscape = Landscape(n_rows=n_rows, n_features=2, floor=-4.9, missing=0.0, seed=seed)
    simulated = simulate(landscape).unique("antibody_heavy", maintain_order=True)
    rng = np.random.default_rng(seed)
    n = len(simulated)
    return pl.DataFrame(
        {
            "row_id": [str(row) for row in range(n)],
            "pkd": simulated["pKd"].round(digits),
            "relation": ["="] * n,
            "heavy": simulated["antibody_heavy"],
            "light": simulated["antibody_light"],
            "antigen": simulated["antigen"],
            "source": rng.choice(LABORATORIES, n),
            "antigen_name": [""] * n,
            "group": [""] * n,
            "file": ["simulated"] * n,
        }
    )


def table_of(frame: Frame) -> AffinityTable:
    """Return a frame as a table without features."""
    report = ReadingReport(("simulated",), len(frame), {}, {})
    frame = frame.with_columns(pl.Series("row_id", [str(row) for row in range(len(frame))]))
    return AffinityTable(frame, np.empty((len(frame), 0), np.float32), (), report)


def some(frame: Frame, share: float, rng: np.random.Generator, lab: str = "north") -> np.ndarray:
    """Return a mask of that share of a laboratory's rows, at least three."""
    members = np.flatnonzero((frame["source"] == lab).to_numpy())
    chosen = rng.choice(members, max(3, round(share * len(members))), replace=False)
    return np.isin(np.arange(len(frame)), chosen)


def relabel(frame: Frame, mask: np.ndarray, labels: np.ndarray) -> Frame:
    """Return the frame with other labels where the mask is true."""
    return frame.with_columns(pl.Series("pkd", np.where(mask, labels, frame["pkd"].to_numpy())))


def rewrite(frame: Frame, mask: np.ndarray, column: str, change: Callable[[str], str]) -> Frame:
    """Return the frame with other text in a column where the mask is true."""
    texts = [change(text) if here else text for text, here in zip(frame[column], mask, strict=True)]
    return frame.with_columns(pl.Series(column, texts))


def enrichment(frame: Frame, strength: float, rng: np.random.Generator) -> Frame:
    """A laboratory states log2 enrichments, correlated with affinity, of this SD."""
    pkd = frame["pkd"].to_numpy()
    return relabel(frame, some(frame, 1, rng), (pkd - pkd.mean()) / pkd.std() * strength)


def shifted(by: float) -> Plant:
    """A share of a laboratory's rows is shifted."""
    return lambda frame, share, rng: relabel(frame, some(frame, share, rng), frame["pkd"].to_numpy() + by)


def scaled(factor: float) -> Plant:
    """A share of a laboratory's rows is ΔG."""
    return lambda frame, share, rng: relabel(frame, some(frame, share, rng), frame["pkd"].to_numpy() * factor)


def unsigned_delta_g(frame: Frame, centre: float, rng: np.random.Generator) -> Frame:
    """A laboratory of usual pKd, N(centre, 0.8), states ΔG without its sign."""
    return relabel(frame, some(frame, 1, rng), rng.normal(centre, 0.8, len(frame)) * 1.364)


def relative_scale(frame: Frame, offset: float, rng: np.random.Generator) -> Frame:
    """A laboratory states values lower by an offset; five of its antibodies are known from two others."""
    mask = some(frame, 1, rng)
    shared = frame.filter(mask).sample(5, seed=int(rng.integers(1 << 30)))
    copies = [shared.with_columns(pl.lit(witness).alias("source")) for witness in ("east", "south")]
    return pl.concat([relabel(frame, mask, frame["pkd"].to_numpy() - offset), *copies])


def floored(share: float, frame: Frame, rng: np.random.Generator, low: bool = True) -> Frame:
    """A laboratory writes its weakest (strongest) at the limit."""
    mask = some(frame, 1, rng)
    pkd = frame["pkd"].to_numpy()
    limit = round(float(np.quantile(pkd[mask], share if low else 1 - share)), 1)
    return relabel(frame, mask & ((pkd < limit) if low else (pkd > limit)), np.full(len(frame), limit))


def duplicated(noise: float, source: str | None = None) -> Plant:
    """Some rows are there twice, with this noise between them."""

    def plant(frame: Frame, n: float, rng: np.random.Generator) -> Frame:
        copies = frame.filter(pl.col("source") == "north").sample(int(n), seed=int(rng.integers(1 << 30)))
        signs = rng.choice([-1.0, 1.0], len(copies))
        labels = copies["pkd"].to_numpy() + noise * signs
        copies = copies.with_columns(pl.Series("pkd", labels), pl.lit(source or "north").alias("source"))
        return pl.concat([frame, copies])

    return plant


def dominant(frame: Frame, share: float, rng: np.random.Generator) -> Frame:
    """One family, by its light chain, holds this share of the rows."""
    largest = frame["light"].value_counts(sort=True)["light"][0]
    own = frame.filter(pl.col("light") == largest)
    n_others = round(len(own) * (1 - share) / share)
    return pl.concat([own, frame.filter(pl.col("light") != largest).sample(n_others, seed=int(rng.integers(1 << 30)))])


def one_source_weak(frame: Frame, share: float, rng: np.random.Generator) -> Frame:
    """This share of the very weak rows is one laboratory's."""
    weak = (frame["pkd"] < 5).to_numpy() & (rng.random(len(frame)) < share)
    moved = pl.when(pl.Series(weak)).then(pl.lit("north")).otherwise("source")
    return frame.with_columns(moved.alias("source"))


def letters(column: str, change: Callable[[str], str]) -> Plant:
    """Some of a laboratory's sequences are changed."""
    return lambda frame, share, rng: rewrite(frame, some(frame, share, rng), column, change)


def back_translated(protein: str) -> str:
    """Return a DNA of the protein's length in codons."""
    bases = "ACGT"
    return "".join(bases[(ord(a) + i) % 4] + bases[ord(a) % 4] + bases[(ord(a) * 7) % 4] for i, a in enumerate(protein))


def swapped(frame: Frame, share: float, rng: np.random.Generator) -> Frame:
    """Heavy and light are in each other's column."""
    mask = pl.Series(some(frame, share, rng))
    return frame.with_columns(
        pl.when(mask).then("light").otherwise("heavy").alias("heavy"),
        pl.when(mask).then("heavy").otherwise("light").alias("light"),
    )


def single_chain(frame: Frame, share: float, rng: np.random.Generator) -> Frame:
    """Both domains are in the heavy column."""
    mask = pl.Series(some(frame, share, rng))
    joined = pl.concat_str(pl.col("heavy"), pl.lit("GGGGSGGGGSGGGGS"), pl.col("light"))
    return frame.with_columns(
        pl.when(mask).then(joined).otherwise("heavy").alias("heavy"),
        pl.when(mask).then(pl.lit("")).otherwise("light").alias("light"),
    )


def antigen_as_heavy(frame: Frame, share: float, rng: np.random.Generator) -> Frame:
    """The antigen is in the heavy column."""
    mask = pl.Series(some(frame, share, rng))
    return frame.with_columns(pl.when(mask).then(pl.col("antigen").str.slice(0, 120)).otherwise("heavy").alias("heavy"))


def constant_antigen(frame: Frame, share: float, rng: np.random.Generator) -> Frame:
    """A laboratory has one antigen."""
    mask = pl.Series(some(frame, share, rng))
    return frame.with_columns(pl.when(mask).then(pl.lit(frame["antigen"][0])).otherwise("antigen").alias("antigen"))


def upside_down(frame: Frame, n: float, rng: np.random.Generator) -> Frame:
    """A laboratory's strongest rows are marked "<"."""
    lab = frame.filter(pl.col("source") == "north").sort("pkd", descending=True)["row_id"].head(int(n))
    return frame.with_columns(
        pl.when(pl.col("row_id").is_in(lab.implode())).then(pl.lit("<")).otherwise("relation").alias("relation")
    )


#: Rule → (what is planted, how, strengths).
FAULTS: Mapping[str, tuple[tuple[str, Plant, tuple[float, ...]], ...]] = {
    "not_pkd": (("log2 enrichments of this SD", enrichment, (0.5, 1, 2, 4)),),
    "unit_slip": (
        ("nM read as mol/L, share of a source", shifted(-9), (0.01, 0.05, 0.2, 1)),
        ("µM read as mol/L, share of a source", shifted(-6), (0.01, 0.05, 0.2, 1)),
        ("ΔG not converted, whole source", scaled(-1.364), (1,)),
        ("ΔG with the wrong sign, whole source", scaled(1.364), (1,)),
        ("ΔG with the wrong sign of pKd N(strength, 0.8), whole source", unsigned_delta_g, (8,)),
    ),
    "other_scale": (("offset of a source that shares 5 antibodies with two", relative_scale, (1.25, 2, 3)),),
    "impossible_value": (("+8, share of a source", shifted(8), (0.005, 0.02)),),
    "placeholder": (
        ("0, share of a source", lambda f, s, r: relabel(f, some(f, s, r), np.zeros(len(f))), (0.005, 0.05, 0.3)),
        ("−99, share of a source",
         lambda f, s, r: relabel(f, some(f, s, r), np.full(len(f), -99.0)), (0.005, 0.05, 0.3)),
        ("the mean filled in, share of a source",
         lambda f, s, r: relabel(f, some(f, s, r), np.full(len(f), f["pkd"].mean().__round__(3))), (0.07, 0.15, 0.4)),
    ),
    "floor": (("share of a source at its floor", lambda f, s, r: floored(s, f, r), (0.02, 0.1, 0.5, 0.9)),),
    "ceiling": (("share of a source at its ceiling", lambda f, s, r: floored(s, f, r, low=False), (0.02, 0.1, 0.4)),),
    "relation_direction": (("strongest rows marked <", upside_down, (3, 10)),),
    "exact_duplicate": (("rows twice", duplicated(0.0), (3, 30)),),
    "conflicting_replicates": (("rows twice, 2 pKd apart", duplicated(2.0), (3, 30)),),
    "overlapping_sources": (("rows in two sources", duplicated(0.1, "east"), (3, 30)),),
    "dominant_family": (("share of one family", dominant, (0.55, 0.8, 0.95)),),
    "extreme_bin_source": (("share of the very weak rows in one source", one_source_weak, (0.7, 0.9, 1)),),
    "nucleotides": (("share of a source's heavy chains", letters("heavy", back_translated), (0.005, 0.1)),),
    "stop_codon": (
        ("share of a source's heavy chains", letters("heavy", lambda s: s[:70] + "*" + s[71:]), (0.005, 0.1)),
    ),
    "unknown_letter": (
        ("X in a share of a source's antigens", letters("antigen", lambda s: s[:9] + "X" + s[10:]), (0.005, 0.1)),
    ),
    "fragment": (("share of a source's light chains cut to 50", letters("light", lambda s: s[:50]), (0.005, 0.1)),),
    "swapped_chains": (("share of a source", swapped, (0.005, 0.1, 1)),),
    "single_chain": (("share of a source", single_chain, (0.005, 0.1, 1)),),
    "not_an_antibody": (("antigen in the heavy column, share of a source", antigen_as_heavy, (0.005, 0.1)),),
    "empty_antigen": (("share of a source", letters("antigen", lambda _: ""), (0.005, 0.1, 1)),),
    "constant_antigen": (("whole source", constant_antigen, (1,)),),
}  # fmt: skip


def planted_faults(n_tables: int) -> list[str]:
    """Return the table of detection rates, and what else was found in tables with one fault."""
    lines = ["| rule | planted | strength | found | rows right, of those planted |", "|---|---|---:|---:|---:|"]
    for rule, plants in FAULTS.items():
        for words, plant, strengths in plants:
            for strength in strengths:
                found, covered = 0, []
                for seed in range(n_tables):
                    clean = clean_frame(seed)
                    faulty = plant(clean, strength, np.random.default_rng(seed))
                    findings = list(RULES[rule](Examined(table_of(faulty))))
                    found += bool(findings)
                    changed = changed_rows(clean, faulty)
                    if findings and changed.any():
                        rows = np.unique(np.concatenate([entry.rows for entry in findings]))
                        covered.append(float(np.isin(np.flatnonzero(changed), rows).mean()))
                share = f"{100 * np.mean(covered):.0f} %" if covered else "–"
                lines.append(f"| {rule} | {words} | {strength:g} | {found} of {n_tables} | {share} |")
                print(lines[-1], flush=True)
    missing = set(RULES) - set(FAULTS)
    if missing:
        raise SystemExit(f"rules without a planted fault: {', '.join(sorted(missing))}")
    return lines


def changed_rows(clean: Frame, faulty: Frame) -> np.ndarray:
    """Return which rows of the faulty table differ from the clean one's; none where rows came or went."""
    if len(clean) != len(faulty) or (clean["row_id"] != faulty["row_id"]).any():
        return np.zeros(len(faulty), dtype=bool)
    return pl.DataFrame([clean[name].ne_missing(faulty[name]) for name in clean.columns]).max_horizontal().to_numpy()


def clean_tables(n_tables: int) -> list[str]:
    """Return how often a table without a fault raises a finding."""
    lines = ["| labels rounded to | clean tables | with any finding | which |", "|---:|---:|---:|---|"]
    for digits in (4, 2, 1):
        raised: list[str] = []
        n_raised = 0
        for seed in range(100, 100 + n_tables):
            found = audit(table_of(clean_frame(seed, digits))).findings
            n_raised += bool(found)
            raised += [entry.rule for entry in found]
        which = ", ".join(f"{rule} {raised.count(rule)}" for rule in sorted(set(raised))) or "–"
        lines.append(f"| {digits} digits | {n_tables} | {n_raised} | {which} |")
        print(lines[-1], flush=True)
    return lines


def real_tables(folder: Path) -> list[str]:
    """Return what the audit says of the public tables, with the must-holds checked."""
    lines = []
    mixed = audit(read_table(folder / "mixed_scales.csv", feature_prefix=None, check_range=False))
    not_pkd = sorted({entry.source for entry in mixed.named("not_pkd", "other_scale", "unit_slip")})
    floors = {entry.source: entry.numbers["value"] for entry in mixed.named("floor")}
    lines += [f"- `mixed_scales.csv`: not pKd: {', '.join(not_pkd)}; floors: {floors}."]
    table = read_table(folder / "multi_antigen.parquet", feature_prefix=None)
    multi = audit(table)
    lines += [f"- `multi_antigen.parquet`: {multi.count('error')} errors, {multi.count('warning')} warnings."]

    table = read_table(folder / "affinity_pool.parquet", feature_prefix=None)
    truth = (table.relation == "<").astype(bool)
    hidden = replace(table, frame=table.frame.with_columns(pl.lit("=").alias("relation")))
    pool, seconds = timed(hidden, numbering=False)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TAILBIND_CACHE"] = cache
        _, first = timed(hidden, numbering=True)
        _, again = timed(hidden, numbering=True)
    called = np.zeros(len(table), dtype=bool)
    for entry in pool.named("floor"):
        called[entry.rows] = True
    for name in FLOORED:
        own = table.source == name
        right, wrong = int((called & truth & own).sum()), int((called & ~truth & own).sum())
        n_floor, n_measured = int((truth & own).sum()), int((~truth & own).sum())
        lines.append(
            f"- `affinity_pool.parquet`, relation hidden, {name}: {right:,} of {n_floor:,} floor rows recovered "
            f"({100 * right / n_floor:.2f} %), {wrong:,} of {n_measured:,} measured rows called floors."
        )
    lines.append(
        f"- all sources: {(called & ~truth).sum():,} of {(~truth).sum():,} measured rows called floors "
        f"({100 * (called & ~truth).sum() / (~truth).sum():.3f} %)."
    )
    lines.append(f"- another scale: {', '.join(sorted({e.source for e in pool.named('other_scale', 'not_pkd')}))}.")
    lines += [f"- overlap, {entry.source}: {entry.evidence}" for entry in pool.named("overlapping_sources")]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    lines.append(
        f"- {len(table):,} rows audited in {seconds:.0f} s without numbering; with it in {first:.0f} s the first time, "
        f"{again:.0f} s after; peak memory {memory:.1f} GB, of its subprocesses {children:.1f} GB."
    )
    print("\n".join(lines))
    return lines


def timed(table: AffinityTable, numbering: bool) -> tuple[Audit, float]:
    """Return an audit from scratch, and its seconds: no cluster is remembered from before."""
    forget_clusters()
    started = time.perf_counter()
    found = audit(table, numbering=numbering)
    return found, time.perf_counter() - started


def main() -> None:
    """Run what is asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=10, help="tables per fault and strength")
    parser.add_argument("--data", type=Path, help="folder with the public tables")
    parser.add_argument("--out", type=Path, default=Path("docs/results/audit.md"))
    options = parser.parse_args()
    parts = ["# The audit: planted faults, clean tables, public tables", "", f"`{' '.join(['python', *sys.argv])}`", ""]
    parts += ["## Clean tables", "", *clean_tables(options.tables), ""]
    parts += ["## Planted faults", "", *planted_faults(options.tables), ""]
    if options.data:
        parts += ["## Public tables", "", *real_tables(options.data), ""]
    options.out.write_text("\n".join(parts), encoding="utf-8")
    print(options.out)


if __name__ == "__main__":
    main()
