"""The block that gives chains residue by residue."""

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmarks.embedding import random_encoder

from tailbind.checkpoint import load_state, save_state
from tailbind.errors import FeatureError
from tailbind.features import FEATURES
from tailbind.features import residues as block
from tailbind.features.encoder import Reading, load_encoder
from tailbind.features.pipeline import FeaturePipeline
from tailbind.features.pretrained import find_encoder
from tailbind.features.residues import FittedResidues, Residues
from tailbind.runtime import choose_device, remarks_to
from tailbind.table.features import LAST_PLACE, N_PLACES, ChainResidues, Features, side_by_side, stacked
from tailbind.table.schema import AffinityTable, ReadingReport

HEAVY = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSR"
    "WGGDGFYAMDYWGQGTLVTVSS"
)
LIGHT = "DIQMTQSPSSLSASVGDRVTITCRASQDVNTAVAWYQQKPGKAPKLLIYSASFLYSGVPSRFSGSRSGTDFTLTISSLQPEDFATYYCQQHYTTPPTFGQGTKVEIK"
ANTIGEN = "TQVCTGTDMKLRLPASPETHLDMLRHLYQGCQVVQGNLELTYLPTNASLSFLQDIQ"
PLAIN = Residues(numbering=False)

needs_anarcii = pytest.mark.skipif(importlib.util.find_spec("anarcii") is None, reason="needs anarcii")


def table_of(rows: list[tuple[str, str, str]]) -> AffinityTable:
    frame = pl.DataFrame(rows, schema=["heavy", "light", "antigen"], orient="row")
    frame = frame.with_columns(pl.int_range(pl.len()).cast(pl.String).alias("row_id"))
    return AffinityTable(frame, np.empty((len(rows), 0), np.float32), (), ReadingReport(("t.csv",), len(rows), {}, {}))


MIXED = [
    (HEAVY, LIGHT, ANTIGEN),
    (HEAVY[:50] + "W" + HEAVY[51:], LIGHT, ANTIGEN),
    (HEAVY, "", ""),
    ("", LIGHT, ANTIGEN[:9]),
    ("", "", ANTIGEN),
]


def chains_of(residues: ChainResidues, row: int) -> list[str]:
    """Return the three chains of a row as they are held."""
    return [
        "" if number < 0 else residues.codes[residues.starts[number] : residues.starts[number + 1]].tobytes().decode()
        for number in residues.index[row]
    ]


def fitted(options: Residues, table: AffinityTable) -> tuple[FittedResidues, ChainResidues, Features]:
    learned = options.fit(table, np.arange(len(table)))
    features = learned.transform(table)
    assert features.residues is not None
    return learned, features.residues, features


# --- chains ------------------------------------------------------------------------------------------


def test_each_distinct_chain_is_held_once_and_every_row_finds_its_own() -> None:
    _, residues, features = fitted(PLAIN, table_of(MIXED))
    assert [chains_of(residues, row) for row in range(5)] == [list(row) for row in MIXED]
    assert len(residues.starts) - 1 == 2 + 1 + 2
    assert residues.n_vector == 0
    assert not residues.places.any()
    assert features.names == ("heavy missing", "light missing", "antigen missing")
    assert features.dense[:4].tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]]
    assert features.complete.tolist() == [True] * 4 + [False]


def test_features_take_and_join_their_residues() -> None:
    table = table_of(MIXED)
    _, residues, features = fitted(PLAIN, table)
    rows = np.array([3, 0])
    taken = features.take(rows).residues
    assert taken is not None
    assert [chains_of(taken, row) for row in range(2)] == [list(MIXED[3]), list(MIXED[0])]
    other = Features(np.ones((5, 1), np.float32), ("a",))
    joined = side_by_side([other, features])
    assert joined.residues is residues
    assert joined.names == ("a", *features.names)
    with pytest.raises(FeatureError, match=r"One feature block at most must give residues; 2 do"):
        side_by_side([features, features])


def test_residues_of_consecutive_stretches_are_stacked() -> None:
    table = table_of(MIXED)
    learned, _, whole = fitted(PLAIN, table)
    parts = [learned.transform(table.stretch(rows)) for rows in (slice(0, 2), slice(2, 3), slice(3, 5))]
    found = stacked(whole.dense, parts).residues
    assert found is not None
    assert [chains_of(found, row) for row in range(5)] == [list(row) for row in MIXED]
    assert len(found.codes) == len(found.places) == len(found.vectors) == found.starts[-1]


def test_longer_chains_are_cut_with_a_remark() -> None:
    said: list[str] = []
    with remarks_to(said.append):
        _, residues, _ = fitted(Residues(numbering=False, longest=40), table_of(MIXED))
    assert chains_of(residues, 3) == ["", LIGHT[:40], ANTIGEN[:9]]
    assert said == ["4 chains are longer than the 40 residues that are read (features.residues.longest); cut there."]
    _, residues, _ = fitted(Residues(numbering=False, longest=0), table_of(MIXED))
    assert chains_of(residues, 0) == list(MIXED[0])


def test_rows_have_the_same_residues_in_any_company() -> None:
    table = table_of(MIXED)
    learned, _, _ = fitted(PLAIN, table)
    alone = learned.transform(table.stretch(slice(1, 2))).residues
    assert alone is not None
    assert chains_of(alone, 0) == list(MIXED[1])


# --- places ------------------------------------------------------------------------------------------


def test_a_place_s_name_gives_its_number() -> None:
    assert [block._place(name) for name in ("H52", "K111A", "L1", "H52'", "417")] == [
        52, LAST_PLACE + 111, LAST_PLACE + 1, 52, 0,
    ]  # fmt: skip
    assert block._place("L129") < N_PLACES


@needs_anarcii
def test_places_are_imgt_s_and_are_carried_over_to_variants_with_insertions_and_deletions() -> None:
    inserted = HEAVY[:100] + "WW" + HEAVY[100:]
    deleted = HEAVY[:10] + HEAVY[11:]
    table = table_of([*((HEAVY, LIGHT, ANTIGEN),) * 3, (inserted, LIGHT, ""), (deleted, "", "")])
    learned = Residues().fit(table, np.arange(3))
    residues = learned.transform(table).residues
    assert residues is not None

    def places(row: int, chain: int) -> list[int]:
        number = residues.index[row, chain]
        return residues.places[residues.starts[number] : residues.starts[number + 1]].tolist()

    heavy, light = places(0, 0), places(0, 1)
    assert heavy[0] == 1 and heavy[21] == 23  # the first cysteine is 23 by IMGT
    assert light[22] == LAST_PLACE + 23
    assert heavy == sorted(heavy) and 0 not in heavy
    assert not any(places(0, 2))
    assert places(3, 0) == [*heavy[:100], 0, 0, *heavy[100:]]
    assert places(4, 0) == [*heavy[:10], *heavy[11:]]


@needs_anarcii
def test_the_state_rebuilds_it_without_numbering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(MIXED)
    pipeline = FeaturePipeline.fit({"residues": "residues"}, {"residues": Residues()}, table, np.arange(4))
    save_state(tmp_path / "x.pth", "features", pipeline.state())
    monkeypatch.setattr(block, "can_number", lambda: False)
    again = FeaturePipeline.from_state(load_state(tmp_path / "x.pth", "features"))
    before, after = pipeline.transform(table).residues, again.transform(table).residues
    assert before is not None and after is not None
    for name in ("codes", "places", "starts", "index"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert before.places.any()


def test_without_anarcii_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "can_number", lambda: False)
    with pytest.raises(FeatureError, match=r"residues needs anarcii .*--set features.residues.numbering=false"):
        Residues().fit(table_of(MIXED), np.arange(4))
    assert FEATURES.load("residues") is Residues
    json.dumps(asdict(Residues()))


# --- an encoder --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_encoder(tmp_path_factory.mktemp("encoder") / "esm2_tiny", layers=2, width=16, heads=2, positions=164)


def test_vectors_are_the_encoder_s_standardised_over_training_s_distinct_chains(folder: Path) -> None:
    table = table_of(MIXED)
    options = Residues(numbering=False, longest=60, encoder=str(folder))
    learned = options.fit(table, np.arange(2))
    residues = learned.transform(table).residues
    assert residues is not None and residues.n_vector == 16
    assert residues.vectors.dtype == np.float16
    encoder = load_encoder(find_encoder(str(folder)), Reading(), choose_device("cpu"))
    of_training = sorted({row[0][:60] for row in MIXED[:2]} | {LIGHT[:60], ANTIGEN[:60]})
    reference = np.concatenate(encoder.residues(of_training))
    (own,) = encoder.residues([MIXED[3][2]])
    expected = (own - reference.mean(axis=0)) / reference.std(axis=0)
    number = residues.index[3, 2]
    found = residues.vectors[residues.starts[number] : residues.starts[number + 1]]
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=5e-3)


def test_another_encoder_is_refused_and_a_moved_one_is_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(MIXED)
    options = Residues(numbering=False, encoder=str(folder))
    learned = options.fit(table, np.arange(4))
    state = learned.state()
    other = random_encoder(tmp_path / "other", layers=2, width=16, heads=2, positions=164, seed=5)
    monkeypatch.setenv("TAILBIND_ENCODER", str(other))
    with pytest.raises(
        FeatureError, match=r"must be the one that the model was trained with .*TAILBIND_ENCODER=FOLDER"
    ):
        options.from_state(state).transform(table)
    moved = tmp_path / "moved"
    folder.rename(moved)
    try:
        monkeypatch.setenv("TAILBIND_ENCODER", str(moved))
        again = options.from_state(state).transform(table).residues
    finally:
        moved.rename(folder)
    monkeypatch.delenv("TAILBIND_ENCODER")
    before = learned.transform(table).residues
    assert before is not None and again is not None
    np.testing.assert_array_equal(again.vectors, before.vectors)


def test_much_memory_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "MUCH_MEMORY", 1000)
    said: list[str] = []
    with remarks_to(said.append):
        fitted(Residues(numbering=False, encoder=str(folder)), table_of(MIXED[:1]))
    n = len(HEAVY) + len(LIGHT) + len(ANTIGEN)
    assert f"Vectors of {n:,} residues take {2 * 16 * n / 2**30:.1f} GiB of memory." in said
