import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailbind.checkpoint import load_state, save_state
from tailbind.errors import FeatureError
from tailbind.features.descriptors import Descriptors, FittedDescriptors, _measured
from tailbind.features.pipeline import FeaturePipeline, reads_sequences
from tailbind.sequences.families import Families
from tailbind.table.schema import AffinityTable, ReadingReport

Rows = list[tuple[str | None, str | None, str | None]]

#: Trastuzumab.
VH = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSRWGGDGFYAMDY"
    "WGQGTLVTVSS"
)
VL = "DIQMTQSPSSLSASVGDRVTITCRASQDVNTAVAWYQQKPGKAPKLLIYSASFLYSGVPSRFSGSRSGTDFTLTISSLQPEDFATYYCQQHYTTPPTFGQGTKVEIK"
LINKER = "GGGGS" * 3
ANTIGEN = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQ"

whole = Descriptors(numbering=False)

#: Each example takes some milliseconds, and more where the machine is busy.
few = settings(max_examples=30, deadline=None)


def table_of(rows: Rows) -> AffinityTable:
    frame = pl.DataFrame(rows, schema=dict.fromkeys(("heavy", "light", "antigen"), pl.String), orient="row")
    return AffinityTable(frame, np.empty((len(rows), 0), np.float32), (), ReadingReport((), len(rows), {}, {}))


def every(rows: Rows) -> np.ndarray:
    return np.arange(len(rows), dtype=np.intp)


def measured(rows: Rows, families: dict[str, Families] | None = None) -> dict[str, np.ndarray]:
    """Return each measure of each row before it is scaled."""
    groups = _measured(table_of(rows).frame, families or {})
    return {name: values[index] for _, measures, index in groups for name, values in measures.items()}


def same_state(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_state(one[key], other[key]) for key in one)
    return bool(np.array_equal(one, other))


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("length", 8),
        ("net charge", 0),
        ("mean hydropathy", -15.3 / 8),
        ("aromatic share", 1 / 8),
        ("mean volume", 999.5 / 8),
        ("glycosylation sites", 1),
        ("deamidation sites", 1),
        ("isomerisation sites", 0),
        ("oxidation sites", 1),
        ("fragmentation sites", 1),
        ("cysteines", 0),
        ("odd cysteine", 0),
        ("starts with Q or E", 0),
        ("missing", 0),
    ],
)
@pytest.mark.parametrize("chain", ["heavy", "light", "antigen"])
def test_a_chain_by_hand(chain: str, measure: str, expected: float) -> None:
    rows: Rows = [("NGSTDPKW", "NGSTDPKW", "NGSTDPKW")]
    assert measured(rows)[f"{chain} {measure}"] == pytest.approx([expected], abs=1e-5)


@pytest.mark.parametrize(
    ("sequence", "measure", "count"),
    [
        ("NAS", "glycosylation sites", 1),
        ("NAT", "glycosylation sites", 1),
        ("NPT", "glycosylation sites", 0),
        ("NAC", "glycosylation sites", 0),
        ("NXSNNTT", "glycosylation sites", 3),
        ("NA", "glycosylation sites", 0),
        ("NGNSNTNA", "deamidation sites", 3),
        ("DGDSDDDA", "isomerisation sites", 4),
        ("DPDPPD", "fragmentation sites", 2),
        ("MWMF", "oxidation sites", 3),
        ("CCAC", "cysteines", 3),
        ("CCAC", "odd cysteine", 1),
        ("CC", "odd cysteine", 0),
        ("QA", "starts with Q or E", 1),
        ("EA", "starts with Q or E", 1),
        ("AQ", "starts with Q or E", 0),
        ("HHK", "net charge", 1.2236),
    ],
)
def test_liabilities_by_hand(sequence: str, measure: str, count: float) -> None:
    assert measured([(sequence, "", "")])[f"heavy {measure}"] == pytest.approx([count], abs=1e-4)


def test_a_motif_does_not_reach_into_the_next_sequence() -> None:
    # In the table's sorted order N is before S, and so on.
    values = measured([("N", "", ""), ("S", "", ""), ("NA", "", ""), ("T", "", ""), ("D", "", ""), ("G", "", "")])
    for name in ("glycosylation", "deamidation", "isomerisation", "fragmentation"):
        assert not values[f"heavy {name} sites"].any()


@pytest.mark.parametrize(
    ("sequence", "expected"),
    # One base (8.6) and one acid (3.6): their mean. With aspartate, the mean of the acids' 3.6 and 3.9; with lysine,
    # that of the bases' 8.6 and 10.8.
    [("GGG", 6.1), ("D", 3.75), ("K", 9.7)],
)
def test_isoelectric_points_by_hand(sequence: str, expected: float) -> None:
    assert measured([(sequence, "", "")])["heavy isoelectric point"] == pytest.approx([expected], abs=0.01)


def test_a_pair_by_hand() -> None:
    values = measured([("KKK", "K", "DD"), ("I", "I", "R"), ("KK", "", ""), ("K", "", "DDD")])
    np.testing.assert_allclose(values["antibody-antigen charge product"], [-8, 0, np.nan, -3])
    expected = [-3.9 + 3.5, 9.0, np.nan, -3.9 + 3.5]
    np.testing.assert_allclose(values["antibody-antigen hydropathy difference"], expected, atol=1e-5)


def test_an_unknown_letter_is_as_the_mean_of_the_twenty() -> None:
    values = measured([("X", "ACDEFGHIKLMNPQRSTVWY", "")])
    for measure in ("mean hydropathy", "mean volume", "aromatic share"):
        assert values[f"heavy {measure}"] == pytest.approx(values[f"light {measure}"], abs=1e-4)


ANTIBODIES: Rows = [
    (VH, VL, ANTIGEN),
    (VH.replace("NIKDT", "NIKWT"), VL, ANTIGEN),
    (VH + LINKER + VL, "", ANTIGEN),
    (VH, None, ""),
    (VH[:105] + "CAC" + VH[105:], VL, ANTIGEN),
]


@pytest.fixture(scope="module")
def fitted() -> FittedDescriptors:
    return Descriptors().fit(table_of(ANTIBODIES), every(ANTIBODIES))


@pytest.fixture(scope="module")
def values(fitted: FittedDescriptors) -> dict[str, np.ndarray]:
    return measured(ANTIBODIES, dict(fitted.families))


def test_loops_have_their_imgt_lengths(values: dict[str, np.ndarray]) -> None:
    lengths = {f"{domain}.CDR{n}": values[f"{domain}.CDR{n} length"][0] for domain in ("VH", "VL") for n in (1, 2, 3)}
    assert lengths == {"VH.CDR1": 8, "VH.CDR2": 8, "VH.CDR3": 13, "VL.CDR1": 6, "VL.CDR2": 3, "VL.CDR3": 9}
    assert values["CDRs length"][0] == 47
    regions = [f"VH.{region} length" for region in ("FR1", "CDR1", "FR2", "CDR2", "FR3", "CDR3", "FR4")]
    assert sum(values[region][0] for region in regions) == len(VH)


def test_a_region_by_hand(values: dict[str, np.ndarray]) -> None:
    # SRWGGDGFYAMDY: R and two D; W, F, two Y; M and W oxidise; one DG.
    assert values["VH.CDR3 net charge"][0] == pytest.approx(-1)
    assert values["VH.CDR3 aromatic share"][0] == pytest.approx(4 / 13)
    assert values["VH.CDR3 oxidation sites"][0] == 2
    assert values["VH.CDR3 isomerisation sites"][0] == 1
    assert values["VH.CDR2 deamidation sites"][0] == 1  # IYPTNGYT
    hydropathy = 4.5 - 1.3 - 1.6 - 0.7 - 3.5 - 0.4 - 1.3 - 0.7
    assert values["VH.CDR2 mean hydropathy"][0] == pytest.approx(hydropathy / 8)


def test_an_scfv_has_both_domains(values: dict[str, np.ndarray]) -> None:
    own = [name for name in values if name.startswith(("VH", "VL", "CDRs"))]
    assert len(own) == 14 * 5 + 6 * 5 + 2 * 3 + 5 + 2
    for name in own:
        assert values[name][2] == pytest.approx(values[name][0])
    assert values["heavy length"][2] == len(VH + LINKER + VL)
    assert values["light missing"].tolist() == [0, 0, 1, 1, 0]
    assert values["VL missing"].tolist() == [0, 0, 0, 1, 0]


def test_a_third_and_a_fourth_cysteine_show(values: dict[str, np.ndarray]) -> None:
    assert values["VH cysteines beyond two"].tolist() == [0, 0, 0, 0, 2]
    assert values["VH odd cysteine"].tolist() == [0] * 5
    assert values["VH.CDR3 length"].tolist() == [13, 13, 13, 13, 16]


def test_a_missing_domain_is_marked_and_says_nothing_else(fitted: FittedDescriptors) -> None:
    features = fitted.transform(table_of(ANTIBODIES))
    assert features.complete.all()
    assert len(set(features.names)) == features.dense.shape[1] == 158
    for place in ("VL", "light"):
        own = [at for at, name in enumerate(features.names) if name.split(" ")[0].split(".")[0] == place]
        missing = features.names.index(f"{place} missing")
        assert features.dense[3, missing] == 1
        assert not features.dense[3, [at for at in own if at != missing]].any()


def test_a_variant_that_training_never_saw_has_its_familys_regions(fitted: FittedDescriptors) -> None:
    values = measured([(VH.replace("GFYAMDY", "GFYMDY"), VL, ANTIGEN)], dict(fitted.families))
    assert values["VH.CDR3 length"] == [12]
    assert values["VH.CDR1 length"] == [8]


def test_a_chain_that_training_never_had_has_no_regions() -> None:
    heavies: Rows = [(VH, "", ANTIGEN)]
    fitted = Descriptors().fit(table_of(heavies), every(heavies))
    features = fitted.transform(table_of([(VH, VL, ANTIGEN)]))
    assert features.complete.all()
    assert features.dense[0, features.names.index("VL missing")] == 1
    assert features.dense[0, features.names.index("light missing")] == 0


def test_the_state_rebuilds_it_to_the_bit_through_a_file(fitted: FittedDescriptors, tmp_path: Path) -> None:
    save_state(tmp_path / "a.pth", "model", {"features": fitted.state()})
    again = Descriptors().from_state(load_state(tmp_path / "a.pth", "model")["features"])
    rows = table_of([*ANTIBODIES, (VH[3:], VL[:-4], "")])
    np.testing.assert_array_equal(again.transform(rows).dense, fitted.transform(rows).dense)
    assert again.names == fitted.names


def test_nothing_is_learned_from_other_rows_nor_from_their_order(fitted: FittedDescriptors) -> None:
    rows = [("QVQL" + VH[4:], VL[:50], "WWW"), *ANTIBODIES[::-1]]
    assert same_state(Descriptors().fit(table_of(rows), every(rows)[1:]).state(), fitted.state())


@few
@given(st.lists(st.integers(0, 4), max_size=6))
def test_any_rows_get_the_same_features(fitted: FittedDescriptors, order: list[int]) -> None:
    part = fitted.transform(table_of([ANTIBODIES[at] for at in order]))
    np.testing.assert_array_equal(part.dense, fitted.transform(table_of(ANTIBODIES)).dense[order])


def test_without_anarcii_numbering_is_refused_and_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "anarcii" else find(name))
    rows: Rows = [(VH, VL, ANTIGEN)]
    with pytest.raises(FeatureError, match=r"needs anarcii .* not installed.*features\.descriptors\.numbering=false"):
        Descriptors().fit(table_of(rows), every(rows))
    features = whole.fit(table_of(rows), every(rows)).transform(table_of(rows))
    assert not any(name.startswith("VH") for name in features.names)
    assert features.dense.shape == (1, 47)


chain = st.none() | st.text(alphabet="NGSDPCWX", max_size=6)
some_rows = st.lists(st.tuples(chain, chain, chain), min_size=1, max_size=8)


@few
@given(some_rows)
def test_only_rows_without_antibody_have_no_features(rows: Rows) -> None:
    features = whole.fit(table_of(rows), every(rows)).transform(table_of(rows))
    antibody = [bool(heavy or light) for heavy, light, _ in rows]
    assert features.complete.tolist() == antibody
    assert np.isnan(features.dense[~np.array(antibody)]).all()
    for position, name in enumerate(("heavy", "light", "antigen")):
        column = features.dense[:, features.names.index(f"{name} missing")]
        assert column[antibody].tolist() == [not row[position] for row in rows if row[0] or row[1]]


@few
@given(some_rows, st.data())
def test_any_rows_in_any_order_get_the_same_features(rows: Rows, data: st.DataObject) -> None:
    fitted = whole.fit(table_of(rows), every(rows))
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
    part = fitted.transform(table_of([rows[position] for position in order]))
    np.testing.assert_array_equal(part.dense, fitted.transform(table_of(rows)).dense[order])
    shuffled = data.draw(st.permutations(rows))
    assert same_state(whole.fit(table_of(shuffled), every(rows)).state(), fitted.state())


@few
@given(some_rows, some_rows, some_rows)
def test_nothing_is_learned_from_other_rows(rows: Rows, others: Rows, instead: Rows) -> None:
    one = whole.fit(table_of(rows + others), every(rows)).state()
    assert same_state(one, whole.fit(table_of(rows + instead), every(rows)).state())
    assert same_state(one, whole.fit(table_of(rows), every(rows)).state())


def test_training_rows_have_mean_0_and_sd_1(table: AffinityTable, parts: dict[str, np.ndarray]) -> None:
    features = whole.fit(table, parts["train"]).transform(table)
    varying = [f"heavy {name}" for name in ("net charge", "isoelectric point", "mean hydropathy", "mean volume")]
    train = features.dense[parts["train"]][:, [features.names.index(name) for name in varying]].astype(np.float64)
    assert train.mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert train.std(axis=0) == pytest.approx(1, abs=1e-4)


def test_no_rows_have_no_features() -> None:
    rows: Rows = [(VH, VL, ANTIGEN)]
    fitted = whole.fit(table_of(rows), every(rows))
    assert fitted.transform(table_of([])).dense.shape == (0, 47)
    empty = whole.fit(table_of([]), np.empty(0, np.intp))
    assert np.isfinite(empty.transform(table_of(rows)).dense).all()


def test_a_pipeline_carries_it(table: AffinityTable, parts: dict[str, np.ndarray], tmp_path: Path) -> None:
    pipeline = FeaturePipeline.fit({"descriptors": "descriptors"}, {"descriptors": whole}, table, parts["train"])
    save_state(tmp_path / "a.pth", "model", {"features": pipeline.state()})
    again = FeaturePipeline.from_state(load_state(tmp_path / "a.pth", "model")["features"])
    assert again.options == {"descriptors": whole}
    assert reads_sequences(again.blocks)
    np.testing.assert_array_equal(again.transform(table).dense, pipeline.transform(table).dense)
