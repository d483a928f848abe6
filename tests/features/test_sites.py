import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailbind.checkpoint import load_state, save_state
from tailbind.errors import FeatureError
from tailbind.features import chain_sites
from tailbind.features.pipeline import FeaturePipeline
from tailbind.features.sites import FittedSites, Sites
from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.sequences.residues import CHARGE, HYDROPATHY
from tailbind.table.features import Features
from tailbind.table.schema import AffinityTable, ReadingReport

#: Trastuzumab.
VH = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSRWGGDGFYAMDY"
    "WGQGTLVTVSS"
)
VL = "DIQMTQSPSSLSASVGDRVTITCRASQDVNTAVAWYQQKPGKAPKLLIYSASFLYSGVPSRFSGSRSGTDFTLTISSLQPEDFATYYCQQHYTTPPTFGQGTKVEIK"
ANTIGEN = "".join(random.Random(5).choices(AMINO_ACIDS, k=90))
CHAINS = {"heavy": VH, "light": VL, "antigen": ANTIGEN}


def mutated(sequence: str, place: int, letter: str) -> str:
    return sequence[:place] + letter + sequence[place + 1 :]


def table_of(**columns: list[str]) -> AffinityTable:
    n = len(next(iter(columns.values())))
    empty = {name: [""] * n for name in ("heavy", "light", "antigen", "antigen_name", "source")}
    frame = pl.DataFrame({"row_id": [str(row) for row in range(n)], **empty, **columns})
    return AffinityTable(frame, np.empty((n, 0), np.float32), (), ReadingReport(("t.csv",), n, {}, {}))


def fit(table: AffinityTable, numbering: bool = False) -> FittedSites:
    return Sites(numbering=numbering).fit(table, np.arange(len(table)))


def lit(features: Features, row: int) -> dict[str, float]:
    """The sparse columns of a row that are not 0, by name."""
    assert features.sparse is not None
    line = features.sparse[[row]].tocoo()
    return {features.sparse_names[column]: float(value) for column, value in zip(line.col, line.data, strict=True)}


def vector(features: Features, row: int) -> list[float]:
    assert features.sparse is not None
    return [*features.dense[row].tolist(), *features.sparse[[row]].toarray()[0].tolist()]


@pytest.fixture(scope="module")
def campaign() -> AffinityTable:
    """Variants of one antibody against one antigen: three sites of VH vary, one of them with two residues."""
    heavy = [VH] * 5 + [mutated(VH, 30, "W"), mutated(VH, 30, "F"), mutated(VH, 54, "A"), mutated(VH, 100, "Y")]
    return table_of(heavy=heavy, light=[VL] * 9, antigen=[ANTIGEN] * 9)


@pytest.fixture(scope="module")
def fitted(campaign: AffinityTable) -> FittedSites:
    return Sites().fit(campaign, np.arange(len(campaign)))


def test_residues_are_lit_where_they_differ_from_the_consensus(campaign: AffinityTable, fitted: FittedSites) -> None:
    features = fitted.transform(campaign)
    of_family = {"heavy family 0": 1.0, "light family 0": 1.0, "antigen family 0": 1.0}
    assert lit(features, 0) == of_family
    assert lit(features, 5) == of_family | {"heavy 0 H36 CDR1 D>any": 1.0, "heavy 0 H36 CDR1 D>W": 1.0}
    assert lit(features, 7) == of_family | {"heavy 0 H62 CDR2 N>A": 1.0}  # the only one seen there: one column
    assert not features.unseen.any() if features.unseen is not None else False


def test_differences_are_summed_by_region(campaign: AffinityTable, fitted: FittedSites) -> None:
    features = fitted.transform(campaign)
    chain = fitted.chains[0]
    raw = features.dense[:, : len(chain.names)] * chain.scaling.scale + chain.scaling.mean
    of_row = dict(zip(chain.names, raw[7].tolist(), strict=True))
    assert of_row["heavy CDR2 changed residues"] == pytest.approx(1)
    assert of_row["heavy CDR2 BLOSUM62 loss"] == pytest.approx(6 - (-2), abs=1e-5)  # N to N 6, N to A −2
    assert of_row["heavy CDR2 hydropathy"] == pytest.approx(1.8 - (-3.5), abs=1e-5)
    assert of_row["heavy CDR2 volume"] == pytest.approx(88.6 - 114.1, abs=1e-4)
    assert of_row["heavy CDR1 changed residues"] == pytest.approx(0, abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(
    chain=st.sampled_from(list(CHAINS)),
    place=st.integers(0, 200),
    letter=st.sampled_from(AMINO_ACIDS + "X"),
    background=st.integers(0, 8),
)
def test_every_substitution_in_every_chain_changes_the_features(
    campaign: AffinityTable, fitted: FittedSites, chain: str, place: int, letter: str, background: int
) -> None:
    row = {name: campaign.frame[name][background] for name in CHAINS}
    before = row[chain]
    place %= len(before)
    if before[place] == letter:
        return
    changed = {**row, chain: mutated(before, place, letter)}
    features = fitted.transform(table_of(**{name: [row[name], changed[name]] for name in CHAINS}))
    assert vector(features, 0) != vector(features, 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1_272), st.sampled_from(AMINO_ACIDS), st.integers(0, 1_272), st.booleans())
def test_every_substitution_shows_in_a_long_antigen_of_any_kind(
    fitted: FittedSites, place: int, letter: str, gap: int, is_known: bool
) -> None:
    antigen = "".join(random.Random(11).choices(AMINO_ACIDS, k=1_273))
    background = antigen[:gap] + "GS" + antigen[gap + 1 :]
    before, after = ord(background[place]), ord(letter)
    if before == after:
        return
    if not is_known and (HYDROPATHY[before], CHARGE[before]) == (HYDROPATHY[after], CHARGE[after]):
        return  # of a stranger only bounded sums are told: N for Q among 1,200 foreign residues can be lost in rounding
    pair = table_of(heavy=[VH] * 2, light=[VL] * 2, antigen=[background, mutated(background, place, letter)])
    known = table_of(heavy=[VH] * 2, light=[VL] * 2, antigen=[antigen, antigen])
    features = (fit(known) if is_known else fitted).transform(pair)
    assert vector(features, 0) != vector(features, 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 119), st.integers(1, 3), st.booleans())
def test_insertions_and_deletions_change_the_features(
    campaign: AffinityTable, fitted: FittedSites, place: int, size: int, inserted: bool
) -> None:
    changed = VH[:place] + "GSG"[:size] + VH[place:] if inserted else VH[:place] + VH[place + size :]
    features = fitted.transform(table_of(heavy=[VH, changed], light=[VL] * 2, antigen=[ANTIGEN] * 2))
    assert vector(features, 0) != vector(features, 1)


def test_the_features_differ_in_an_unseen_family_too(fitted: FittedSites) -> None:
    stranger = "".join(random.Random(9).choices(AMINO_ACIDS, k=118))
    variants = [stranger, *(mutated(stranger, place, "W") for place in range(0, 118, 9) if stranger[place] != "W")]
    n = len(variants)
    features = fitted.transform(table_of(heavy=variants, light=[VL] * n, antigen=[ANTIGEN] * n))
    assert all(vector(features, 0) != vector(features, row) for row in range(1, n))
    assert "heavy unseen family" in lit(features, 0)
    assert np.abs(features.dense).max() < 1_000


def test_what_training_never_saw_is_told(fitted: FittedSites) -> None:
    rows = [
        (VH, VL, ANTIGEN, ""),
        (mutated(VH, 30, "K"), VL, ANTIGEN, "heavy H36 D>K"),  # a site that varied, with another residue
        (mutated(VH, 2, "K"), VL, ANTIGEN, "heavy H3 Q>K"),  # one that did not
        (VH, mutated(VL, 0, "E"), mutated(ANTIGEN, 4, "W"), f"light K1 D>E; antigen 5 {ANTIGEN[4]}>W"),
        (VH[:98] + VH[99:], VL, ANTIGEN, "heavy H107 W>-"),
        (VH[:50] + "GG" + VH[50:], VL, ANTIGEN, "heavy GG before H56"),
        (VH + "A", VL, ANTIGEN, "heavy A at the end"),
        (VH, "", ANTIGEN, "light none"),
        (VH, VL, "MKT" * 20, "antigen family (18% like the nearest)"),
        (VH, VL, "", "antigen unknown"),
        ("KKKKK" + VH[5:], VL, ANTIGEN, "heavy H1 E>K, H2 V>K, H3 Q>K and 2 more"),
    ]
    table = table_of(heavy=[r[0] for r in rows], light=[r[1] for r in rows], antigen=[r[2] for r in rows])
    features = fitted.transform(table)
    assert features.unseen is not None
    told = features.unseen.tolist()
    expected = [r[3] for r in rows]
    position = next(i for i, words in enumerate(expected) if "nearest" in words)
    assert told[position].startswith("antigen family (")
    assert told[:position] + told[position + 1 :] == expected[:position] + expected[position + 1 :]
    assert lit(features, 1)["heavy 0 H36 CDR1 D>any"] == 1.0  # it counts as a change of that site
    assert lit(features, 1)["heavy unseen residues"] == 1.0
    assert lit(features, 10)["heavy unseen residues"] == 5.0
    assert lit(features, 7)["light none"] == 1.0
    assert lit(features, 9)["antigen unseen name"] == 1.0


def test_an_antigen_without_sequence_is_known_by_its_name_then_its_source() -> None:
    table = table_of(
        heavy=[VH] * 4, antigen=[ANTIGEN, "", "", ""], antigen_name=["HER2", "HER2", "", ""], source=["", "a", "a", ""]
    )
    block = fit(table)
    assert block.antigens == ("name HER2", "of source a", "unknown")
    features = block.transform(table)
    assert "antigen name HER2" in lit(features, 1)
    assert "antigen of source a" in lit(features, 2)
    assert "antigen unknown" in lit(features, 3)
    assert "antigen family 0" in lit(features, 0)
    renamed = block.transform(table_of(heavy=[VH], antigen=["MKTW" * 20], antigen_name=["HER2"]))
    assert {"antigen name HER2", "antigen unseen family"} <= set(lit(renamed, 0))
    new = block.transform(table_of(heavy=[VH], antigen_name=["TNF"], source=["a"]))
    assert new.unseen is not None
    assert new.unseen.tolist() == ["antigen name TNF"]


def test_a_chain_that_training_never_had_is_told() -> None:
    block = fit(table_of(heavy=[VH, mutated(VH, 9, "W")], antigen_name=["HER2", "HER2"]))
    features = block.transform(
        table_of(heavy=[VH, VH, VH], light=["", VL, ""], antigen=["", "", ANTIGEN], antigen_name=["HER2", "HER2", ""])
    )
    assert features.unseen is not None
    assert features.unseen.tolist() == ["", "light family (training had none)", "antigen family (training had none)"]
    assert "light unseen family" in lit(features, 1)
    assert "antigen unseen family" in lit(features, 2)


def test_a_nanobody_and_an_scfv_have_no_light_chain_of_their_own() -> None:
    scfv = VH + "GGGGS" * 3 + VL
    table = table_of(heavy=[VH, scfv, scfv, mutated(scfv, 200, "W")], light=[VL, "", "", ""], antigen=[ANTIGEN] * 4)
    block = fit(table, numbering=True)
    features = block.transform(table)
    assert "light none" in lit(features, 1)
    assert "heavy VL CDR3 changed residues" in features.names
    assert "heavy other changed residues" in features.names  # the linker
    (name,) = [name for name in lit(features, 3) if ">" in name]
    assert name == "heavy 0 K80 FR3 R>W"


def test_rows_without_heavy_and_light_have_no_features(fitted: FittedSites) -> None:
    features = fitted.transform(table_of(heavy=["", VH], light=["", ""], antigen=[ANTIGEN] * 2))
    assert features.complete.tolist() == [False, True]


def test_nothing_is_learned_from_other_rows(campaign: AffinityTable) -> None:
    train = np.arange(6)
    spoiled = [*campaign.frame["heavy"].to_list()[:6], ANTIGEN, VL, "W" * 120]
    other = table_of(heavy=spoiled, light=[VL] * 6 + ["", VH, ""], antigen=[ANTIGEN] * 6 + ["", "W", "MKT"])
    one, two = (Sites(numbering=False).fit(table, train) for table in (campaign, other))
    here, there = (block.transform(campaign) for block in (one, two))
    assert here.sparse_names == there.sparse_names
    np.testing.assert_array_equal(here.dense, there.dense)
    assert here.sparse is not None and there.sparse is not None
    assert (here.sparse != there.sparse).nnz == 0


def test_a_row_has_the_same_features_alone_and_among_others(campaign: AffinityTable, fitted: FittedSites) -> None:
    whole = fitted.transform(campaign)
    order = np.array([8, 3, 5])
    some = fitted.transform(table_of(**{name: campaign.frame[name][order].to_list() for name in CHAINS}))
    for row, position in enumerate(order):
        assert vector(some, row) == vector(whole, position)


def test_stretches_are_put_together_again(
    campaign: AffinityTable, fitted: FittedSites, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Sites()
    two = FeaturePipeline({"a": "sites", "b": "sites"}, {"a": options, "b": options}, {"a": fitted, "b": fitted})
    whole = two.transform(campaign)
    monkeypatch.setattr("tailbind.features.pipeline.CHUNK", 4)
    parts = two.transform(campaign)
    assert parts.names == whole.names
    assert parts.unseen is not None and whole.unseen is not None
    assert parts.unseen.tolist() == whole.unseen.tolist()
    for row in range(len(campaign)):
        assert vector(parts, row) == vector(whole, row)


def test_the_block_survives_a_checkpoint(campaign: AffinityTable, fitted: FittedSites, tmp_path: Path) -> None:
    options = {"sites": Sites()}
    pipeline = FeaturePipeline({"sites": "sites"}, options, {"sites": fitted})
    save_state(tmp_path / "x.pth", "features", {"features": pipeline.state()})
    again = FeaturePipeline.from_state(load_state(tmp_path / "x.pth", "features")["features"])
    before, after = pipeline.transform(campaign), again.transform(campaign)
    assert (before.names, before.sparse_names) == (after.names, after.sparse_names)
    for row in range(len(campaign)):
        assert vector(before, row) == vector(after, row)


def test_an_empty_table_has_no_rows_of_features(fitted: FittedSites) -> None:
    features = fitted.transform(table_of(heavy=[]))
    assert features.dense.shape == (0, len(features.names))
    assert features.sparse is not None
    assert features.sparse.shape == (0, len(features.sparse_names))


def test_column_names_differ(fitted: FittedSites, campaign: AffinityTable) -> None:
    features = fitted.transform(campaign)
    names = (*features.names, *features.sparse_names)
    assert len(set(names)) == len(names)
    assert features.sparse is not None
    assert features.sparse.shape[1] == features.n_sparse


def test_training_without_anarcii_says_what_to_do(campaign: AffinityTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailbind.features.sites.can_number", lambda: False)
    with pytest.raises(FeatureError, match=r"pip install 'tailbind\[sequences\]', or .*numbering=false"):
        Sites().fit(campaign, np.arange(9))
    assert chain_sites.fit_chain("heavy", [VH], np.array([1]), identity=0.9, numbering=False).regions.tolist() == [14]
