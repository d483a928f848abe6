import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from benchmarks.embedding import random_encoder

from tailbind.checkpoint import load_state, save_state
from tailbind.errors import FeatureError, RecipeError
from tailbind.features import embedding
from tailbind.features.embedding import Embedder
from tailbind.features.encoder import Encoder, Reading, load_encoder
from tailbind.features.language_model import FittedLanguageModel, LanguageModel
from tailbind.features.pipeline import FeaturePipeline
from tailbind.features.pretrained import find_encoder
from tailbind.features.store import Store
from tailbind.options import read_options
from tailbind.runtime import remarks_to, showing_progress
from tailbind.sequences.alphabet import AMINO_ACIDS
from tailbind.sequences.families import find_families
from tailbind.sequences.laying import REGIONS
from tailbind.table.schema import AffinityTable, ReadingReport

#: Trastuzumab's chains, and a part of what it binds.
HEAVY = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSR"
    "WGGDGFYAMDYWGQGTLVTVSS"
)
LIGHT = "DIQMTQSPSSLSASVGDRVTITCRASQDVNTAVAWYQQKPGKAPKLLIYSASFLYSGVPSRFSGSRSGTDFTLTISSLQPEDFATYYCQQHYTTPPTFGQGTKVEIK"
ANTIGEN = "TQVCTGTDMKLRLPASPETHLDMLRHLYQGCQVVQGNLELTYLPTNASLSFLQDIQEVQGYVLIAHNQVRQVPLQRLRIVRGTQLFEDNYALAVLDNGDPL"
N_ROWS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ESM-2 with random weights that reads 160 residues at a time."""
    return random_encoder(tmp_path_factory.mktemp("encoder") / "esm2_tiny", layers=2, width=16, heads=2, positions=164)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def mutants(sequence: str, n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        place = rng.integers(5, len(sequence) - 5)
        found.append(f"{sequence[:place]}{rng.choice([*AMINO_ACIDS])}{sequence[place + 1 :]}")
    return found


def table_of(**columns: list[str]) -> AffinityTable:
    n = len(next(iter(columns.values())))
    texts = {name: columns.get(name, [""] * n) for name in ("heavy", "light", "antigen", "source", "antigen_name")}
    frame = pl.DataFrame({"row_id": [str(row) for row in range(n)], "pkd": np.linspace(5, 9, n), **texts})
    return AffinityTable(frame, np.empty((n, 0), np.float32), (), ReadingReport(("made.csv",), n, {}, {}))


@pytest.fixture(scope="module")
def variants() -> AffinityTable:
    """Variants of one antibody: every third has no light chain, every fourth no antigen; rows 4 and 40 are alike."""
    heavy = mutants(HEAVY, N_ROWS, 0)
    heavy[40] = heavy[4]
    light = ["" if row % 3 == 0 else text for row, text in enumerate(mutants(LIGHT, N_ROWS, 1))]
    light[40] = light[4]
    return table_of(heavy=heavy, light=light, antigen=["" if row % 4 == 3 else ANTIGEN for row in range(N_ROWS)])


TRAIN = np.arange(45)


def block(folder: Path, store: str, **options: object) -> LanguageModel:
    given = {"encoder": str(folder), "overlap": 20, "pca": 6, "store": store, **options}
    return read_options(LanguageModel, given, "features.language_model")


def by_hand(folder: Path, text: str) -> np.ndarray:
    encoder = load_encoder(find_encoder(str(folder)), Reading(overlap=20), torch.device("cpu"))
    return encoder.residues([text])[0]


def test_separate_chains_side_by_side_and_what_is_missing(folder: Path, store: str, variants: AffinityTable) -> None:
    fitted = block(folder, store, pca=0).fit(variants, TRAIN)
    features = fitted.transform(variants)
    assert features.dense.shape == (N_ROWS, 3 * 16 + 3)
    assert features.dense.dtype == np.float32
    assert features.names[:2] == ("heavy esm2 0", "heavy esm2 1")
    assert features.names[16] == "light esm2 0"
    assert features.names[-4:] == ("antigen esm2 15", "heavy missing", "light missing", "antigen missing")
    row = variants.frame.row(4, named=True)
    for position, chain in enumerate(("heavy", "light", "antigen")):
        mean = by_hand(folder, row[chain]).mean(axis=0)
        np.testing.assert_allclose(features.dense[4, 16 * position : 16 * (position + 1)], mean, atol=1e-5)
    np.testing.assert_array_equal(features.dense[:, -2], np.arange(N_ROWS) % 3 == 0)
    np.testing.assert_array_equal(features.dense[:, -1], np.arange(N_ROWS) % 4 == 3)
    assert not features.dense[:, -3].any()
    # A missing light chain is the mean of the training rows that have one.
    there = TRAIN[TRAIN % 3 != 0]
    np.testing.assert_allclose(features.dense[0, 16:32], features.dense[there, 16:32].mean(axis=0), atol=1e-5)


def test_joined_chains_are_one_sequence_in_the_notebook_s_order(
    folder: Path, store: str, variants: AffinityTable
) -> None:
    features = block(folder, store, chains="joined", pca=0).fit(variants, TRAIN).transform(variants)
    assert features.names == tuple(f"esm2 {number}" for number in range(16))
    for row in (4, 3, 7):
        joined = "".join(variants.frame.row(row, named=True)[chain] for chain in ("heavy", "light", "antigen"))
        np.testing.assert_allclose(features.dense[row], by_hand(folder, joined).mean(axis=0), atol=1e-5)


def test_the_components_are_those_of_training_rows_each_as_often_as_it_is_there(
    folder: Path, store: str, variants: AffinityTable
) -> None:
    from sklearn.decomposition import PCA

    raw = block(folder, store, pca=0).fit(variants, TRAIN).transform(variants).dense[:, :-3].astype(np.float64)
    features = block(folder, store).fit(variants, TRAIN).transform(variants)
    assert features.names == (
        *(f"esm2 pca {number}" for number in range(6)), "heavy missing", "light missing", "antigen missing",
    )  # fmt: skip
    judge = PCA(n_components=6, svd_solver="full").fit(raw[TRAIN]).transform(raw)
    np.testing.assert_allclose(np.abs(features.dense[:, :6]), np.abs(judge), atol=1e-4)


def test_nothing_is_learned_from_other_rows(folder: Path, store: str, variants: AffinityTable) -> None:
    spoiled = variants.frame.with_columns(
        pl.when(pl.int_range(pl.len()) < len(TRAIN)).then("heavy").otherwise(pl.lit("W" * 120)).alias("heavy"),
        pl.when(pl.int_range(pl.len()) < len(TRAIN)).then("light").otherwise(pl.lit("")).alias("light"),
    )
    for options in ({}, {"pool": "both"}):
        one = block(folder, store, **options).fit(variants, TRAIN).state()
        other = block(folder, store, **options).fit(replace(variants, frame=spoiled), TRAIN).state()
        np.testing.assert_array_equal(one["means"], other["means"])
        np.testing.assert_array_equal(one["pca"]["components"], other["pca"]["components"])
        if options:
            assert one["families"]["sequences"] == other["families"]["sequences"]


def test_cdrs_are_pooled_by_the_families_regions(folder: Path, store: str, variants: AffinityTable) -> None:
    both = block(folder, store, pool="both", pca=0).fit(variants, TRAIN)
    features = both.transform(variants)
    assert features.names[0] == "heavy esm2 mean 0"
    assert features.names[16] == "heavy esm2 cdr 0"
    training = variants.frame[TRAIN]
    families = find_families([*training["heavy"], *training["light"]])
    row = variants.frame.row(4, named=True)
    (regions,) = families.regions([row["heavy"]])
    in_cdr = np.array(["CDR" in REGIONS[region] for region in regions])
    assert 20 < in_cdr.sum() < 40
    vectors = by_hand(folder, row["heavy"])
    np.testing.assert_allclose(features.dense[4, :16], vectors.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(features.dense[4, 16:32], vectors[in_cdr].mean(axis=0), atol=1e-5)
    # An antigen has no CDRs: the mean over all of it.
    np.testing.assert_allclose(features.dense[4, 64:80], features.dense[4, 80:96], atol=1e-6)
    alone = block(folder, store, pool="cdr", pca=0).fit(variants, TRAIN).transform(variants)
    np.testing.assert_allclose(alone.dense[4, :16], features.dense[4, 16:32], atol=1e-5)
    assert alone.names[0] == "heavy esm2 cdr 0"
    joined = block(folder, store, pool="cdr", pca=0, chains="joined").fit(variants, TRAIN).transform(variants)
    (light,) = families.regions([row["light"]])
    chosen = np.concatenate([in_cdr, [("CDR" in REGIONS[k]) for k in light], np.zeros(len(row["antigen"]), np.bool_)])
    text = row["heavy"] + row["light"] + row["antigen"]
    np.testing.assert_allclose(joined.dense[4], by_hand(folder, text)[chosen].mean(axis=0), atol=1e-5)


def test_a_row_without_an_antibody_has_no_features(folder: Path, store: str, variants: AffinityTable) -> None:
    fitted = block(folder, store).fit(variants, TRAIN)
    features = fitted.transform(table_of(heavy=[HEAVY, "", ""], light=["", "", LIGHT], antigen=["", ANTIGEN, ""]))
    assert features.complete.tolist() == [True, False, True]
    assert np.isnan(features.dense[1]).all()


def test_a_chain_that_training_never_has_is_not_looked_at(folder: Path, store: str) -> None:
    fitted = block(folder, store, pca=0).fit(table_of(heavy=mutants(HEAVY, 9, 2)), np.arange(9))
    assert fitted.parts == ("heavy",)
    one, other = fitted.transform(table_of(heavy=[HEAVY, HEAVY], antigen=["", ANTIGEN])).dense
    np.testing.assert_array_equal(one, other)


def test_a_row_alone_and_among_others_is_the_same(folder: Path, store: str, variants: AffinityTable) -> None:
    fitted = block(folder, store).fit(variants, TRAIN)
    whole = fitted.transform(variants).dense
    np.testing.assert_array_equal(whole[4], whole[40])
    parts = [fitted.transform(variants.stretch(slice(start, start + 7))).dense for start in range(0, N_ROWS, 7)]
    np.testing.assert_array_equal(np.vstack(parts), whole)
    other = block(folder, store + " elsewhere").from_state(fitted.state())
    np.testing.assert_allclose(other.transform(variants.stretch(slice(50, 55))).dense, whole[50:55], atol=1e-5)


def test_a_single_mutation_is_seen(folder: Path, store: str) -> None:
    features = block(folder, store, pca=0).fit(table_of(heavy=[HEAVY, HEAVY]), np.arange(2))
    one, other = features.transform(table_of(heavy=[HEAVY, HEAVY.replace("CSRWGG", "CSRYGG")])).dense
    assert np.abs(one - other).max() > 1e-5


@pytest.mark.parametrize("options", [{}, {"pool": "both", "chains": "separate"}, {"pca": 0, "chains": "joined"}])
def test_the_pipeline_comes_back_from_a_file_to_the_bit(
    folder: Path, store: str, variants: AffinityTable, tmp_path: Path, options: dict[str, object]
) -> None:
    chosen = {"language_model": block(folder, store, **options)}
    pipeline = FeaturePipeline.fit({"language_model": "language_model"}, chosen, variants, TRAIN)
    save_state(tmp_path / "a.pth", "model", {"features": pipeline.state()})
    again = FeaturePipeline.from_state(load_state(tmp_path / "a.pth", "model")["features"])
    expected = pipeline.transform(variants)
    np.testing.assert_array_equal(again.transform(variants).dense, expected.dense)
    assert again.transform(variants).names == expected.names
    weights = (folder / "model.safetensors").stat().st_size
    assert options or (tmp_path / "a.pth").stat().st_size < weights, "the encoder must stay where it is"


def test_another_encoder_than_training_had_is_refused(
    folder: Path, store: str, variants: AffinityTable, tmp_path: Path
) -> None:
    place = tmp_path / "esm2_tiny"
    shutil.copytree(folder, place)
    fitted = block(place, store).fit(variants, TRAIN)
    shutil.rmtree(place)
    random_encoder(place, layers=2, width=16, heads=2, positions=164, seed=7)
    said = r"must be the one that the model was trained with \(SHA-256 \w{12}\); the files in .* are others \(\w{12}\)"
    with pytest.raises(FeatureError, match=said):
        fitted.transform(variants)
    shutil.rmtree(place)
    with pytest.raises(FeatureError, match="there is no such folder"):
        fitted.transform(variants)


def test_an_encoder_that_moved_is_found_by_the_variable(
    folder: Path, store: str, variants: AffinityTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "before"
    shutil.copytree(folder, place)
    options = block(place, store)
    fitted = options.fit(variants, TRAIN)
    expected = fitted.transform(variants).dense
    shutil.move(place, tmp_path / "after")
    monkeypatch.setenv("TAILBIND_ENCODER", str(tmp_path / "after"))
    again = options.from_state(fitted.state())
    assert isinstance(again, FittedLanguageModel)
    np.testing.assert_array_equal(again.transform(variants).dense, expected)
    assert again.names == fitted.names


def test_a_store_that_is_gone_gives_way_to_the_cache_and_says_so(
    folder: Path, store: str, variants: AffinityTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = block(folder, store)
    fitted = options.fit(variants, TRAIN)
    expected = fitted.transform(variants).dense
    monkeypatch.setenv("TAILBIND_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    with remarks_to(said.append):
        options.from_state(fitted.state())
        assert said == []
        shutil.rmtree(store)  # of another machine, say
        again = options.from_state(fitted.state())
    assert said == [f"The store {store} is not here; vectors are kept in the user's cache instead."]
    np.testing.assert_allclose(again.transform(variants).dense, expected, atol=1e-5)
    assert not Path(store).exists()
    assert list((tmp_path / "cache").rglob("shard-*"))


def test_an_encoder_named_by_a_relative_folder_is_found_from_another_working_directory(
    folder: Path, store: str, variants: AffinityTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    chosen = {"language_model": block(Path(folder.name), store)}
    pipeline = FeaturePipeline.fit({"language_model": "language_model"}, chosen, variants, TRAIN)
    expected = pipeline.transform(variants)
    save_state(tmp_path / "a.pth", "model", {"features": pipeline.state()})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = FeaturePipeline.from_state(load_state(tmp_path / "a.pth", "model")["features"])
    for predicted in (pipeline.transform(variants), again.transform(variants)):
        np.testing.assert_array_equal(predicted.dense, expected.dense)
        assert predicted.names == expected.names


def test_each_distinct_sequence_is_read_once_and_never_again(
    folder: Path, store: str, variants: AffinityTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    hidden = Encoder._hidden

    def counted(self: Encoder, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        read.append(len(tokens))
        return hidden(self, tokens, mask)

    monkeypatch.setattr(Encoder, "_hidden", counted)
    fitted = block(folder, store).fit(variants, TRAIN)
    texts = {text for chain in ("heavy", "light", "antigen") for text in variants.frame[chain] if text}
    assert sum(read) == len(texts)
    monkeypatch.setattr(embedding, "load_encoder", lambda *_: pytest.fail("the weights were loaded for nothing"))
    fitted.transform(variants)
    block(folder, store, pca=3).fit(variants, TRAIN)


def test_progress_is_shown_and_windows_are_told_of(folder: Path, store: str) -> None:
    shown: list[tuple[str, int, int]] = []
    said: list[str] = []

    class Display:
        def __init__(self, what: str) -> None:
            self.what = what

        def __enter__(self):  # type: ignore[no-untyped-def]
            return lambda done, of: shown.append((self.what, done, of))

        def __exit__(self, *_: object) -> None:
            return None

    long = ANTIGEN * 4
    table = table_of(heavy=[HEAVY, HEAVY], antigen=[ANTIGEN, long])
    with remarks_to(said.append), showing_progress(Display):  # type: ignore[arg-type]
        block(folder, store, pca=0).fit(table, np.arange(2))
    assert said == [
        "1 sequence is longer than the 160 residues that the encoder reads at a time: read in windows that share "
        "20 residues."
    ]
    total = len(HEAVY) + len(ANTIGEN) + len(long)
    assert {what for what, _, _ in shown} == {"Embedding 3 sequences (residues)"}
    assert [shown[0][1:], shown[-1][1:]] == [(0, total), (total, total)]


def test_more_components_than_training_rows_are_refused(folder: Path, store: str, variants: AffinityTable) -> None:
    with pytest.raises(FeatureError, match="PCA must have 1 to 47 components here"):
        block(folder, store, pca=150).fit(variants, np.arange(48))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"chains": "both"}, r"chains must be one of separate, joined; got 'both'"),
        ({"pool": "max"}, r"pool must be one of mean, cdr, both; got 'max'"),
        ({"pca": -1}, r"pca must be at least 0; got -1"),
        ({"precision": "fp8"}, r"precision must be one of auto, fp32, bf16, fp16"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=rf"features\.language_model\.{said}"):
        read_options(LanguageModel, options, "features.language_model")


def everything(store: Store) -> dict[bytes, bytes]:
    """Return what lies in a store, key by key; what is there twice is equal."""
    found: dict[bytes, bytes] = {}
    for path in sorted(store.folder.glob("shard-*")):
        loaded = store._load(path.name)
        assert loaded is not None
        for key, vector in zip(*loaded, strict=True):
            assert found.setdefault(key.tobytes(), vector.tobytes()) == vector.tobytes()
    return found


FILL = """
import json, sys
from pathlib import Path
import torch
from tailbind.features.embedding import Embedder
from tailbind.features.encoder import Reading
from tailbind.features.pretrained import find_encoder
torch.set_num_threads(1)
folder, root, texts = sys.argv[1:]
texts = json.loads(Path(texts).read_text())
embedder = Embedder(find_encoder(folder), Reading(overlap=20, batch_tokens=300), "mean", Path(root), "cpu")
embedder.embed(texts, [None] * len(texts))
"""


def filling(folder: Path, root: Path, texts: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", FILL, str(folder), str(root), str(texts)], env=environment)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = sorted({*mutants(HEAVY, 300, 3), *mutants(LIGHT, 60, 4), *mutants(ANTIGEN * 3, 15, 5)})
    path = tmp_path_factory.mktemp("texts") / "texts.json"
    path.write_text(json.dumps(texts))
    return path


def uninterrupted(folder: Path, root: Path, many: Path) -> tuple[Embedder, list[str]]:
    texts = json.loads(many.read_text())
    return Embedder(find_encoder(str(folder)), Reading(overlap=20, batch_tokens=300), "mean", root, "cpu"), texts


def test_killed_at_three_moments_and_resumed_the_store_is_an_uninterrupted_one(
    folder: Path, many: Path, tmp_path: Path
) -> None:
    whole, texts = uninterrupted(folder, tmp_path / "whole", many)
    whole.embed(texts, [None] * len(texts))
    moments = random.Random(11)
    store = Embedder(whole.files, whole.reading, whole.pool, tmp_path / "killed", "cpu").store()
    held = 0
    for _ in range(3):
        process = filling(folder, tmp_path / "killed", many)
        until = held + moments.randint(5, 40)
        deadline = time.monotonic() + 120
        while len(list(store.folder.glob("shard-*"))) < until and time.monotonic() < deadline:
            assert process.poll() is None, "it was to be killed before it is done"
            time.sleep(0.002)
        time.sleep(moments.random() / 50)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before, held = held, len(list(store.folder.glob("shard-*")))
        assert held > before
    assert 0 < len(everything(store)) < len(texts)
    resumed = Embedder(whole.files, whole.reading, whole.pool, tmp_path / "killed", "cpu")
    vectors = resumed.embed(texts, [None] * len(texts))
    assert everything(store) == everything(whole.store())
    assert len(everything(store)) == len(texts)
    np.testing.assert_array_equal(vectors, whole.embed(texts, [None] * len(texts)))


def test_two_programs_fill_one_store(folder: Path, many: Path, tmp_path: Path) -> None:
    whole, texts = uninterrupted(folder, tmp_path / "whole", many)
    whole.embed(texts, [None] * len(texts))
    processes = [filling(folder, tmp_path / "shared", many) for _ in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    shared = Embedder(whole.files, whole.reading, whole.pool, tmp_path / "shared", "cpu")
    assert everything(shared.store()) == everything(whole.store())


def test_a_damaged_store_is_filled_again_with_the_same_numbers(folder: Path, many: Path, tmp_path: Path) -> None:
    whole, texts = uninterrupted(folder, tmp_path / "whole", many)
    before = whole.embed(texts, [None] * len(texts))
    victim = max(whole.store().folder.glob("shard-*"), key=lambda path: path.stat().st_size)
    held = bytearray(victim.read_bytes())
    held[len(held) // 2] ^= 4
    victim.write_bytes(held)
    said: list[str] = []
    with remarks_to(said.append):
        after = whole.embed(texts, [None] * len(texts))
    np.testing.assert_array_equal(after, before)
    assert [victim.name in text and "damaged" in text for text in said if text.startswith("Warning")] == [True]


def test_a_table_that_overlaps_with_what_is_there_needs_the_rest_only(
    folder: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, texts = uninterrupted(folder, tmp_path / "whole", many)
    whole.embed(texts[::3], [None] * len(texts[::3]))
    read: list[int] = []
    pooled = Encoder.pooled

    monkeypatch.setattr(Encoder, "pooled", lambda self, s, w, b: pooled(self, s, w, noted(b)))

    def noted(batches):  # type: ignore[no-untyped-def]
        for batch in batches:
            read.append(len(batch))
            yield batch

    vectors = whole.embed(texts, [None] * len(texts))
    assert sum(read) == len(texts) - len(texts[::3])
    other, _ = uninterrupted(folder, tmp_path / "other", many)
    np.testing.assert_allclose(vectors, other.embed(texts, [None] * len(texts)), atol=1e-5)
