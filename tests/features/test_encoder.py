import builtins
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.embedding import random_encoder
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tailbind.errors import FeatureError
from tailbind.features.encoder import Encoder, Reading, load_encoder, mean_weights
from tailbind.features.pretrained import find_encoder, missing_files, short_name
from tailbind.features.tokens import windows
from tailbind.sequences.alphabet import AMINO_ACIDS

CPU = torch.device("cpu")
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ESM-2 with random weights, which reads 60 residues at a time."""
    return random_encoder(tmp_path_factory.mktemp("encoder") / "esm2_tiny", layers=3, width=16, heads=2, positions=64)


def loaded(folder: Path, **reading: object) -> Encoder:
    return load_encoder(find_encoder(str(folder)), Reading(**{"overlap": 10, **reading}), CPU)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return loaded(folder)


def sequences(n: int, longest: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice([*AMINO_ACIDS, "X"], length)) for length in rng.integers(1, longest + 1, n)]


def pooled(encoder: Encoder, texts: list[str]) -> np.ndarray:
    """Return the mean vectors by the batches that the encoder plans."""
    weights = [mean_weights(len(text))[None] for text in texts]
    found = np.empty((len(texts), encoder.dim), np.float32)
    plan = encoder.plan(texts)
    for batch, values in zip(plan, encoder.pooled(texts, weights, plan), strict=True):
        found[batch] = values
    return found


@given(st.integers(1, 400), st.integers(1, 80), st.integers(0, 79))
def test_windows_fit_overlap_and_take_each_residue_once(length: int, size: int, overlap: int) -> None:
    assume(overlap < size)
    found = windows(length, size, overlap)
    taken = [place for window in found for place in range(window.own_start, window.own_end)]
    assert taken == list(range(length))
    for window in found:
        assert window.start <= window.own_start < window.own_end <= window.end
        assert window.end - window.start <= size
    for one, other in pairwise(found):
        assert one.end - other.start >= overlap
        border = one.own_end  # on either side, a residue is at least as far from the edge as in the other window
        assert abs((one.end - border) - (border - other.start)) <= 1
    assert found[-1].end == length


def test_the_model_s_own_numbers_come_out(encoder: Encoder, folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, vectors in zip(texts := sequences(5, 60), encoder.residues(texts), strict=True):
        with torch.inference_mode():
            hidden = encoder.module(**tokenizer(text, return_tensors="pt")).last_hidden_state
        np.testing.assert_allclose(vectors, hidden[0, 1:-1].numpy(), atol=TOLERANCE)
        assert vectors.dtype == np.float32


@given(st.permutations(range(12)), st.sampled_from([64, 150, 4096]))
@settings(deadline=None, max_examples=15)
def test_batch_order_and_padding_change_nothing(folder: Path, order: list[int], batch_tokens: int) -> None:
    texts = sequences(12, 150)
    alone = np.vstack([pooled(loaded_once(folder, 4096), [text]) for text in texts])
    among = pooled(loaded_once(folder, batch_tokens), [texts[k] for k in order])
    np.testing.assert_allclose(among, alone[order], atol=TOLERANCE)


_LOADED: dict[tuple[Path, int], Encoder] = {}


def loaded_once(folder: Path, batch_tokens: int) -> Encoder:
    if (folder, batch_tokens) not in _LOADED:
        _LOADED[folder, batch_tokens] = loaded(folder, batch_tokens=batch_tokens)
    return _LOADED[folder, batch_tokens]


def test_the_pooled_vector_is_the_mean_of_the_residues_without_special_tokens(encoder: Encoder) -> None:
    texts = sequences(20, 200)
    by_hand = np.stack([vectors.mean(axis=0) for vectors in encoder.residues(texts)])
    np.testing.assert_allclose(pooled(encoder, texts), by_hand, atol=TOLERANCE)


def test_chosen_residues_are_pooled(encoder: Encoder) -> None:
    text = "A" + "EVQLVESGGGLVQPGGSLRL" * 4
    chosen = np.zeros(len(text), np.bool_)
    chosen[[3, 17, 59, 60, 80]] = True
    weights = [np.stack([mean_weights(len(text)), mean_weights(len(text), chosen)])]
    (values,) = encoder.pooled([text], weights, encoder.plan([text]))
    vectors = encoder.residues([text])[0]
    expected = np.concatenate([vectors.mean(axis=0), vectors[chosen].mean(axis=0)])
    np.testing.assert_allclose(values[0], expected, atol=TOLERANCE)
    assert mean_weights(3, np.zeros(3, np.bool_)).tolist() == mean_weights(3).tolist()


def test_a_long_sequence_is_read_in_windows_and_each_residue_taken_where_it_is_central(encoder: Encoder) -> None:
    assert encoder.window == 60
    text = "".join(np.random.default_rng(3).choice([*AMINO_ACIDS], 130))
    vectors = encoder.residues([text])[0]
    parts = encoder.windows(130)
    assert [(part.start, part.end) for part in parts] == [(0, 60), (50, 110), (70, 130)]
    for part in parts:
        alone = encoder.residues([text[part.start : part.end]])[0]
        own = slice(part.own_start, part.own_end)
        np.testing.assert_allclose(
            vectors[own], alone[part.own_start - part.start : part.own_end - part.start], atol=TOLERANCE
        )


def test_the_plan_keeps_to_the_tokens_and_does_not_depend_on_the_order(folder: Path) -> None:
    encoder = loaded(folder, batch_tokens=300)
    texts = sorted(set(sequences(80, 140)))
    plan = encoder.plan(texts)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(texts)))
    for batch in plan:
        rows = [window for index in batch for window in encoder.windows(len(texts[index]))]
        tokens = len(rows) * max(window.end - window.start + 2 for window in rows)
        assert tokens <= 300
    other = encoder.plan(texts[::-1])
    assert [[texts[k] for k in batch] for batch in plan] == [[texts[::-1][k] for k in batch] for batch in other]


def test_one_sequence_of_more_windows_than_a_batch_has_room_for_is_read_in_parts(folder: Path) -> None:
    text = "".join(np.random.default_rng(0).choice([*AMINO_ACIDS], 900))
    np.testing.assert_allclose(
        pooled(loaded(folder, batch_tokens=100), [text]), pooled(loaded(folder), [text]), atol=TOLERANCE
    )


def test_layers_are_averaged_and_counted_from_either_end(folder: Path) -> None:
    texts = sequences(3, 40)
    of_layer = {layer: loaded(folder, layers=(layer,)).residues(texts)[0] for layer in (0, 1, 3)}
    np.testing.assert_allclose(loaded(folder).residues(texts)[0], of_layer[3], atol=TOLERANCE)
    both = loaded(folder, layers=(1, -1)).residues(texts)[0]
    np.testing.assert_allclose(both, (of_layer[1] + of_layer[3]) / 2, atol=TOLERANCE)
    np.testing.assert_allclose(loaded(folder, layers=(-4,)).residues(texts)[0], of_layer[0], atol=TOLERANCE)
    assert np.abs(of_layer[0] - of_layer[3]).max() > 0.1


@pytest.mark.parametrize(("layers", "said"), [((4,), "got 4"), ((-1, -5), "got -5"), ((), "got none")])
def test_a_layer_that_is_not_there_is_refused(folder: Path, layers: tuple[int, ...], said: str) -> None:
    with pytest.raises(FeatureError, match=f"Layers must be from -4 to 3 for encoder .*{said}"):
        loaded(folder, layers=layers)


def test_half_precision_is_near_and_single_is_the_default_on_a_processor(folder: Path, encoder: Encoder) -> None:
    texts = sequences(4, 60)
    half = loaded(folder, precision="bf16")
    assert next(half.module.parameters()).dtype == torch.bfloat16
    assert next(encoder.module.parameters()).dtype == torch.float32
    # Rounded positions would turn the angles of far residues.
    assert half.module.rotary_embeddings.inv_freq.dtype == torch.float32  # type: ignore[union-attr]
    difference = np.abs(pooled(half, texts) - pooled(encoder, texts)).max()
    assert 1e-6 < difference < 0.05


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        ({"window": 61}, "window must be at most 60.*got 61"),
        ({"overlap": 60}, "overlap must be below the window of 60"),
    ],
)
def test_windows_that_the_encoder_cannot_read_are_refused(folder: Path, reading: dict[str, int], said: str) -> None:
    with pytest.raises(FeatureError, match=said):
        loaded(folder, **reading)


def test_a_smaller_window_is_kept_to(folder: Path) -> None:
    encoder = loaded(folder, window=30)
    assert encoder.window == 30
    assert max(part.end - part.start for part in encoder.windows(100)) == 30


def test_letters_that_the_encoder_does_not_know_are_one_token_each(encoder: Encoder) -> None:
    tokens, mask = encoder.letters.batch(["AJJ*ØA", "A"])
    unknown = encoder.letters.ids[ord("J")]
    assert tokens[0, 2:6].tolist() == [unknown] * 4
    assert mask.sum(axis=1).tolist() == [8, 3]
    assert [len(vectors) for vectors in encoder.residues(["AJJ*ØA", "", "A"])] == [6, 0, 1]


def test_numbers_that_are_not_finite_are_refused(folder: Path) -> None:
    encoder = loaded(folder)
    with torch.no_grad():
        encoder.module.encoder.emb_layer_norm_after.weight.fill_(float("inf"))  # type: ignore[union-attr, operator]
    with pytest.raises(FeatureError, match=r"must give finite numbers; it does not at fp32.*--precision fp32"):
        pooled(encoder, ["EVQL"])


def bert(folder: Path, tokens: list[str]) -> Path:
    """Write a small BERT with random weights whose tokenizer knows `tokens`."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *tokens]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40,
    )  # fmt: skip
    torch.manual_seed(1)
    BertModel(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    return folder


def test_an_encoder_whose_residues_stand_apart_is_spelled_so(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    encoder = loaded(bert(tmp_path / "IgBert", [*AMINO_ACIDS]), overlap=5)
    assert encoder.window == 38
    text = "EVQLVESGG"
    expected = AutoTokenizer.from_pretrained(tmp_path / "IgBert")(" ".join(text), return_tensors="pt")
    np.testing.assert_array_equal(encoder.letters.batch([text])[0], expected["input_ids"].numpy())
    with torch.inference_mode():
        hidden = encoder.module(**expected).last_hidden_state
    np.testing.assert_allclose(encoder.residues([text])[0], hidden[0, 1:-1].numpy(), atol=TOLERANCE)
    texts = sequences(10, 80)
    alone = np.vstack([pooled(encoder, [text]) for text in texts])
    np.testing.assert_allclose(pooled(encoder, texts), alone, atol=TOLERANCE)


def test_the_encoder_half_of_a_t5_is_read_whole_lengths_at_a_time(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    pieces = ["<pad>", "</s>", "<unk>", *(f"▁{letter}" for letter in AMINO_ACIDS)]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(tmp_path / "prot_t5")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(pieces), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "prot_t5")
    encoder = loaded(tmp_path / "prot_t5")
    assert encoder.window == 0
    assert encoder.letters.prefix == ()
    texts = sequences(8, 90)
    alone = np.vstack([pooled(encoder, [text]) for text in texts])
    assert alone.shape == (8, 16)
    np.testing.assert_allclose(pooled(encoder, texts), alone, atol=TOLERANCE)


def test_an_encoder_of_nucleotides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"must have one token for each residue; its tokenizer makes 1 of 20"):
        loaded(bert(tmp_path / "dna", [*"ACGT"]))


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (["config.json"], r"config\.json is missing"),
        (["model.safetensors"], r"model\.safetensors is missing"),
        (["vocab.txt"], r"tokenizer files \(vocab\.txt or tokenizer\.json\) are missing"),
        (["config.json", "model.safetensors"], r"config\.json, model\.safetensors are missing"),
    ],
)
def test_a_folder_without_its_files_says_which_and_what_to_do(
    folder: Path, tmp_path: Path, gone: list[str], said: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    for name in gone:
        (copy / name).unlink()
    with pytest.raises(
        FeatureError, match=rf"must have its files in .*copy; {said}.*internet.*--encoder FOLDER"
    ) as told:
        find_encoder(str(copy))
    assert "--set features.language_model.encoder=FOLDER" in str(told.value)
    assert "\n" not in str(told.value)


def test_weights_in_several_files_are_all_needed(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert missing_files(copy) == ["model-00002-of-00002.safetensors"]


def test_offline_without_the_files_one_line_says_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FeatureError) as told:
        find_encoder("facebook/esm2_t6_8M_UR50D", "main")
    text = str(told.value)
    assert "\n" not in text
    for part in (
        "Encoder facebook/esm2_t6_8M_UR50D at revision main",
        "config.json, model.safetensors, tokenizer files",
        str(tmp_path / "models--facebook--esm2_t6_8M_UR50D"),
        "internet access",
        "--encoder FOLDER",
    ):
        assert part in text


def test_the_hub_s_cache_is_used_without_asking_the_hub(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "a" * 40
    place = tmp_path / "models--some--esm2"
    shutil.copytree(folder, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    found = find_encoder("some/esm2")
    assert found.commit == commit
    assert found.identity == find_encoder(str(folder)).identity
    (place / "snapshots" / commit / "model.safetensors").unlink()
    with pytest.raises(
        FeatureError, match=rf"model\.safetensors is missing in .*{commit}, and the .* hub did not give"
    ):
        find_encoder("some/esm2")


def test_a_path_that_is_no_folder_is_not_looked_for_on_the_hub() -> None:
    with pytest.raises(FeatureError, match="there is no such folder"):
        find_encoder("/no/such/folder")


def test_a_revision_is_of_the_hub(folder: Path) -> None:
    with pytest.raises(FeatureError, match="A revision is of the hub"):
        find_encoder(str(folder), "main")


def test_what_an_encoder_is_its_content_says(folder: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for copy in (one, other):
        shutil.copytree(folder, copy)
    (other / "README.md").write_text("not of the encoder")
    assert find_encoder(str(one)).identity == find_encoder(str(other)).identity == find_encoder(str(folder)).identity
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    assert find_encoder(str(one)).identity != find_encoder(str(other)).identity


def test_weights_that_the_files_lack_are_not_made_up(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    lost = next(name for name in sorted(weights) if "attention.self.query.weight" in name)
    save_file({name: value for name, value in weights.items() if name != lost}, copy / "model.safetensors")
    with pytest.raises(
        FeatureError, match=r"must have all its weights in .*copy; 1 are not in the files, such as .*query"
    ):
        loaded(copy)


def test_an_unknown_architecture_is_told_in_one_line(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "no_such_thing"}))
    with pytest.raises(FeatureError, match=r"can load without running code of its own .*got: .*no_such_thing") as told:
        loaded(copy)
    assert "\n" not in str(told.value)


def test_loading_prints_nothing_and_draws_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    loaded(folder)
    assert torch.equal(torch.rand(3), expected)
    assert capfd.readouterr() == ("", "")


def test_without_transformers_one_line_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def absent(name: str, *rest: object, **form: object) -> object:
        if name.split(".")[0] in ("transformers", "huggingface_hub"):
            raise ImportError(name)
        return imported(name, *rest, **form)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", absent)
    said = r"needs the package transformers; it is not installed\. Run: pip install 'tailbind\[language-model\]'"
    with pytest.raises(FeatureError, match=said):
        loaded(folder)
    with pytest.raises(FeatureError, match=said):
        find_encoder("facebook/esm2_t6_8M_UR50D")


def test_columns_are_called_after_the_encoder() -> None:
    assert short_name("/somewhere/AntiBERTy_md_smooth/") == "antiberty_md_smooth"
    assert short_name("facebook/esm2_t36_3B_UR50D") == "esm2"
