"""A scan as its readers see it: tables, a headline, a heat map, a page, and the same for programs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from tailbind.reporting.drawing import png
from tailbind.reporting.report import Report
from tailbind.reporting.scan_plot import RESIDUES, ScannedChain, scan_heatmap
from tailbind.reporting.tables import NOTHING, Table, number
from tailbind.runtime import write_text, writing
from tailbind.scale import kd_from_pkd
from tailbind.table.schema import SEQUENCES
from tailbind.workflows.scanning import RANK_DIGITS, Scan, sees

TABLE, PICTURE, PAGE, COMBINED = "scan.csv", "scan.png", "scan.html", "combinations.csv"
#: Rows of the tables in a terminal, and of the ranked list on the page.
FEW, LISTED = 10, 100
#: ΔpKd from which a substitution is counted as stronger; less is nothing.
WORTH: Final = 0.1
#: What a page says of the uncertainty, for it is easily misread.
OF_ONE: Final = "It is of the mutant's own pKd, not of ΔpKd: errors that mutant and wild type share cancel in ΔpKd."


def headline(scan: Scan) -> str:
    """Return what came out, in a sentence or two."""
    frame, wild = scan.frame, scan.wild_type
    best = frame.sort("rank").row(0, named=True)
    text = f"Wild type: pKd {number(wild['predicted_pkd'], 2)} ({_kd(wild['predicted_pkd'])}). "
    if sees(frame):
        text += (
            f"Of {len(frame):,} substitutions {_n_stronger(frame):,} are predicted to raise the pKd by {WORTH} or "
            f"more, {_called(best)} most ({_signed(best['delta_pkd'])})."
        )
    else:
        text += f"All {len(frame):,} substitutions are predicted the same: the model does not see them."
    if "unseen_here" in frame.columns:
        share = float(frame["unseen_here"].mean() or 0.0)  # type: ignore[arg-type]
        text += f" Training never saw {100 * share:.0f} % of the substitutions at their place: trust these less."
    if len(scan.combinations):
        first = scan.combinations.row(0, named=True)
        text += f" Best combination: {first['mutations']}, pKd {number(first['predicted_pkd'], 2)}."
    return text


def scan_tables(scan: Scan, n_rows: int = FEW) -> list[Table]:
    """Return the strongest substitutions, the combinations if any, and the positions that tolerate least.

    Parameters
    ----------
    n_rows : of each at most
    """
    strongest = Table(
        "Strongest substitutions",
        *_substitution_rows(scan.frame, n_rows),
        _note(scan),
    )
    return [strongest, *combination_tables(scan, n_rows), _positions(scan.frame, n_rows)]


def combination_tables(scan: Scan, n_rows: int) -> list[Table]:
    """Return the proposed combinations as a table; nothing where none were asked for."""
    if not len(scan.combinations):
        return []
    tells_sd = "predicted_sd" in scan.combinations.columns
    header = ("Combination", "IMGT", "pKd", "ΔpKd", "Sum of singles", *(("SD", "Score") if tells_sd else ()))
    rows = tuple(
        (
            row["mutations"],
            row["imgt"] or NOTHING,
            number(row["predicted_pkd"], 2),
            _signed(row["delta_pkd"]),
            _signed(row["sum_of_singles"]),
            *((number(row["predicted_sd"], 2), number(row["score"], 2)) if tells_sd else ()),
        )
        for row in scan.combinations.head(n_rows).iter_rows(named=True)
    )
    score = "Ranked by the score: predicted pKd and a part of its SD. " if tells_sd else "Ranked by predicted pKd. "
    note = f"{score}ΔpKd is the model's own for the combination; beside it what adding its single ones gives."
    return [Table("Proposed combinations", header, rows, note)]


def write_scan(scan: Scan, folder: Path) -> None:
    """Write the table, the picture, the combinations if there are some, and the page, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with writing(folder / TABLE) as handle:
        scan.frame.write_csv(handle)
    if len(scan.combinations):
        with writing(folder / COMBINED) as handle:
            scan.combinations.write_csv(handle)
    picture = scan_picture(scan)
    with writing(folder / PICTURE) as handle:
        handle.write(picture)
    write_text(folder / PAGE, scan_report(scan, picture).html())


def scan_report(scan: Scan, picture: bytes) -> Report:
    """Return the page of a scan, with its heat map as PNG."""
    strongest, positions = scan_tables(scan)[0], scan_tables(scan)[-1]
    ranked = Table(
        "The ranked list",
        *_substitution_rows(scan.frame, LISTED),
        f"The strongest of {len(scan.frame):,}; all are in {TABLE}.",
    )
    wild = scan.wild_type
    frame = scan.frame
    low = frame.sort("rank", descending=True).row(0, named=True)
    high = frame.sort("rank").row(0, named=True)
    tiles = [
        ("Wild type, pKd", number(wild["predicted_pkd"], 2), f"{_kd(wild['predicted_pkd'])}{_interval(wild)}"),
        ("Strongest substitution", _signed(high["delta_pkd"]), _called(high)),
        ("Most harmful", _signed(low["delta_pkd"]), _called(low)),
        (
            "Substitutions",
            f"{len(frame):,}",
            f"{_n_stronger(frame):,} with ΔpKd of {WORTH} or more",
        ),
    ]
    return Report(
        title=f"tailbind scan · {scan.name}",
        subtitle=f"Every single substitution of {' and '.join(scan.chains)}, as the model sees it",
        headline=headline(scan),
        tiles=tiles,
        tables=[strongest, *combination_tables(scan, LISTED), positions, ranked],
        pictures={_caption(scan): picture},
        facts=[
            *((chain.capitalize(), scan.sequences[chain] or "none") for chain in SEQUENCES),
            *([("Training never saw, of the wild type", wild["unseen"])] if wild.get("unseen") else []),
        ],
        facts_title="The sequences",
    )


def scan_picture(scan: Scan) -> bytes:
    """Return the heat map of a scan as PNG."""
    spread_name, chains = "", []
    for chain in scan.chains:
        shown, spread_name = _scanned_chain(scan, chain)
        chains.append(shown)
    return png(scan_heatmap(chains, title=f"Every single substitution · {scan.name}", spread_name=spread_name))


def _scanned_chain(scan: Scan, chain: str) -> tuple[ScannedChain, str]:
    """Return what the heat map shows of a chain, and what its uncertainty is."""
    frame = scan.frame.filter(pl.col("chain") == chain)
    sites = frame.unique("position", keep="first", maintain_order=True)
    row = {position: at for at, position in enumerate(sites["position"].to_list())}
    rows = np.array([row[position] for position in frame["position"].to_list()], np.intp)
    columns = np.array([RESIDUES.index(residue) for residue in frame["residue"].to_list()], np.intp)
    shape = len(sites), len(RESIDUES)

    def grid(values: pl.Series) -> np.ndarray[Any, np.dtype[np.float64]]:
        cells = np.full(shape, np.nan)
        cells[rows, columns] = values.fill_null(float("nan")).to_numpy()
        return cells

    spread, name = None, ""
    if "predicted_sd" in frame.columns:
        spread, name = grid(frame["predicted_sd"]), "SD"
    elif {"pkd_low", "pkd_high"} <= set(frame.columns):
        spread, name = grid((frame["pkd_high"] - frame["pkd_low"]) / 2), "±"
    unseen = None
    if "unseen_here" in frame.columns:
        unseen = np.zeros(shape, bool)
        unseen[rows, columns] = frame["unseen_here"].to_numpy()
    named = sites["imgt"].is_not_null().any()
    kinds = {label[0] for label in sites["imgt"].drop_nulls().to_list()}
    labels = [
        (imgt if len(kinds) > 1 else imgt[1:]) if imgt else (f"({position})" if named else str(position))
        for imgt, position in sites.select("imgt", "position").iter_rows()
    ]
    shown = ScannedChain(
        title=f"{chain.capitalize()}{' chain' if chain != 'antigen' else ''}, positions "
        f"{'by IMGT' if named else 'in the sequence'}",
        wild_type="".join(sites["wild_type"].to_list()),
        labels=labels,
        regions=[region or "" for region in sites["region"].to_list()],
        places=sites["position"].to_list(),
        change=grid(frame["delta_pkd"]),
        spread=spread,
        unseen=unseen,
    )
    return shown, name


def _substitution_rows(frame: pl.DataFrame, n_rows: int) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return header and rows of substitutions, best first, with the columns that the model gives.

    Residues that training never saw at a place and that are all the same to the model share a row: H:W110[CDE].
    """
    has = set(frame.columns)
    interval, unseen = {"pkd_low", "pkd_high"} <= has, "unseen_here" in has
    header = (
        "Substitution", "IMGT", "Region", "pKd", "ΔpKd",
        *(("SD",) if "predicted_sd" in has else ()),
        *(("Interval",) if interval else ()),
        *(("Domain",) if "domain" in has else ()),
        *(("Seen in training",) if unseen else ()),
    )  # fmt: skip
    rows = tuple(
        (
            row["names"],
            row["imgt"] or NOTHING,
            row["region"] or NOTHING,
            number(row["predicted_pkd"], 2),
            _signed(row["delta_pkd"]),
            *((number(row["predicted_sd"], 2),) if "predicted_sd" in has else ()),
            *((f"{number(row['pkd_low'], 2)} to {number(row['pkd_high'], 2)}",) if interval else ()),
            *((row["domain"] or NOTHING,) if "domain" in has else ()),
            *(("no" if row["unseen_here"] else "yes",) if unseen else ()),
        )
        for row in _shared(frame).head(n_rows).iter_rows(named=True)
    )
    return header, rows


def _shared(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a row per substitution by rank, those that the model cannot tell apart in one; named by `names`."""
    new = pl.col("unseen_here") if "unseen_here" in frame.columns else pl.lit(False)
    apart = pl.when(new).then(pl.lit("")).otherwise(pl.col("residue")).alias("apart")
    same = pl.col("predicted_pkd").round(RANK_DIGITS).alias("same")
    residues = pl.col("residue").sort().str.join("")
    names = pl.when(pl.len() > 1).then(pl.col("mutation").first().str.head(-1) + "[" + residues + "]")
    return (
        frame.sort("rank")
        .group_by("chain", "position", same, apart, maintain_order=True)
        .agg(names.otherwise(pl.col("mutation").first()).alias("names"), pl.all().exclude("chain", "position").first())
    )


def _positions(frame: pl.DataFrame, n_rows: int) -> Table:
    """Return the positions where a substitution costs most, on average."""
    sites = (
        frame.group_by("chain", "position", maintain_order=True)
        .agg(
            pl.col("imgt").first(),
            pl.col("region").first(),
            pl.col("wild_type").first(),
            pl.col("delta_pkd").mean().alias("mean"),
            pl.col("delta_pkd").min().alias("worst"),
            pl.col("residue").sort_by("delta_pkd").first().alias("to"),
        )
        .sort("mean", maintain_order=True)
        .head(n_rows)
    )
    rows = tuple(
        (
            f"{row['chain']} {row['wild_type']}{row['position']}",
            row["imgt"] or NOTHING,
            row["region"] or NOTHING,
            _signed(row["mean"]),
            f"{_signed(row['worst'])} ({row['to']})",
        )
        for row in sites.iter_rows(named=True)
    )
    header = ("Position", "IMGT", "Region", "Mean ΔpKd", "Worst")
    return Table("Positions that tolerate least", header, rows, "Mean over the substitutions of a position.")


def _note(scan: Scan) -> str:
    text = "Substitutions are named by the position in the sequence, counted from 1."
    if "unseen_here" in scan.frame.columns:
        text += " In square brackets: residues that training never saw there and that are all the same to the model."
    if "predicted_sd" in scan.frame.columns:
        text += f" SD: how far the model's parts lie apart. {OF_ONE}"
    if "pkd_low" in scan.frame.columns:
        text += f" Interval: {'likewise of' if 'predicted_sd' in scan.frame.columns else 'of'} the mutant's pKd."
    return text


def _caption(scan: Scan) -> str:
    words = ["Colour: ΔpKd, predicted less the wild type's.", "Dot: wild type."]
    if "unseen_here" in scan.frame.columns:
        words.append("Small square: training never saw the residue at that place.")
    if "predicted_sd" in scan.frame.columns:
        words.append(f"Grey strip: SD of the predictions, mean of a position. {OF_ONE}")
    elif "pkd_low" in scan.frame.columns:
        words.append(f"Grey strip: half the interval's width, mean of a position. {OF_ONE}")
    return " ".join(words)


def _n_stronger(frame: pl.DataFrame) -> int:
    return int((frame["delta_pkd"] >= WORTH).sum())


def _called(row: Mapping[str, Any]) -> str:
    """Return a substitution by its name, with the IMGT position where there is one."""
    return f"{row['mutation']} (IMGT {row['imgt']}, {row['region']})" if row["imgt"] else str(row["mutation"])


def _signed(value: float | None) -> str:
    if value is None:
        return NOTHING
    return ("+" if round(value, 2) > 0 else "") + number(value, 2)


def _kd(pkd: float) -> str:
    """Return the Kd of a pKd, in the unit that it is best read in.

    >>> _kd(9.0), _kd(5.5), _kd(6.0002)
    ('Kd 1 nM', 'Kd 3.16 µM', 'Kd 1 µM')
    """
    for unit, sign in (("M", "M"), ("mM", "mM"), ("uM", "µM"), ("nM", "nM"), ("pM", "pM")):
        value = float(f"{float(kd_from_pkd(pkd, unit)):.3g}")
        if value >= 1 or unit == "pM":
            return f"Kd {value:.3g} {sign}"
    raise AssertionError(unit)


def _interval(wild_type: Mapping[str, Any]) -> str:
    low, high = wild_type.get("pkd_low"), wild_type.get("pkd_high")
    return f"; pKd {number(low, 2)} to {number(high, 2)}" if low is not None and high is not None else ""
