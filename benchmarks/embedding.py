"""How much faster a table is embedded than by the plain loop, with the same numbers.

    python benchmarks/embedding.py --data FOLDER [--rows 5000] [--chains separate joined]

The encoder has the shape of ESM-2 8M (`facebook/esm2_t6_8M_UR50D`: 6 layers, 320 wide, 20 heads, rotary positions)
and random weights, so that nothing need be downloaded; how long it takes does not depend on them. Rows are drawn from
`affinity_pool.parquet` with the repeats and lengths they have. The plain loop is what one writes first: 16 rows at a
time in the order of the file, each batch padded to its longest, every row. Ours goes through the store, an empty one
at first, and writes every vector to disk; loading the weights counts. Both take turns, a fifth of the rows each time.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

from tailbind.features.embedding import Embedder
from tailbind.features.encoder import Encoder, Reading, load_encoder
from tailbind.features.language_model import JOINED, SEPARATE, Filled, embed_table
from tailbind.features.pretrained import find_encoder
from tailbind.table.schema import SEQUENCES

#: ESM-2's own letters, in its order.
TOKENS = (*"<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>".split(),)  # noqa: SIM905
BATCH = 16
TURNS = 5


def random_encoder(
    folder: Path, *, layers: int = 6, width: int = 320, heads: int = 20, positions: int = 1026, seed: int = 0
) -> Path:
    """Write an ESM-2 with random weights to a new folder, of the 8M shape unless told otherwise."""
    from transformers import EsmConfig, EsmModel, EsmTokenizer

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(TOKENS))
    config = EsmConfig(
        vocab_size=len(TOKENS), hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width, max_position_embeddings=positions, position_embedding_type="rotary",
        token_dropout=True, pad_token_id=1, mask_token_id=32, layer_norm_eps=1e-5,
    )  # fmt: skip
    torch.manual_seed(seed)
    EsmModel(config, add_pooling_layer=False).save_pretrained(folder)
    EsmTokenizer(str(folder / "vocab.txt"), model_max_length=positions - 2).save_pretrained(folder)
    return folder


def plain_loop(encoder: Encoder, tokenizer: object, sequences: Sequence[str]) -> np.ndarray:
    """Return (n, 320) the mean over residues of each row's sequence, "" as 0, by the plain loop."""
    found = np.zeros((len(sequences), encoder.dim), np.float32)
    for start in range(0, len(sequences), BATCH):
        rows = [row for row in range(start, min(start + BATCH, len(sequences))) if sequences[row]]
        if not rows:
            continue
        batch = tokenizer([sequences[row] for row in rows], return_tensors="pt", padding=True)  # type: ignore[operator]
        with torch.inference_mode():
            hidden = encoder.module(**batch).last_hidden_state
        for row, vectors in zip(rows, hidden, strict=True):
            found[row] = vectors[1 : len(sequences[row]) + 1].mean(dim=0).numpy()
    return found


def by_plain_loop(encoder: Encoder, tokenizer: object, frame: pl.DataFrame, chains: str) -> np.ndarray:
    """Return every row's vectors by the plain loop."""
    if chains == JOINED:
        return plain_loop(encoder, tokenizer, frame.select(pl.concat_str(SEQUENCES)).to_series().to_list())
    return np.hstack([plain_loop(encoder, tokenizer, frame[chain].to_list()) for chain in SEQUENCES])


def by_tailbind(embedder: Embedder, frame: pl.DataFrame, chains: str) -> np.ndarray:
    """Return every row's vectors through the store."""
    vectors = embed_table(embedder, frame, chains, None)
    parts = list(vectors.parts.values())
    return Filled(parts, vectors.places, np.zeros((len(parts), parts[0].shape[1]), np.float32))[vectors.of_row]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="How much faster a table is embedded than by the plain loop.")
    parser.add_argument("--data", type=Path, required=True, help="Folder with affinity_pool.parquet.")
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--chains", nargs="+", choices=(SEPARATE, JOINED), default=[SEPARATE])
    arguments = parser.parse_args()
    pool = pl.read_parquet(arguments.data / "affinity_pool.parquet", columns=list(SEQUENCES))
    # In the order of the file, and none longer than the encoder takes: the plain loop has no windows.
    fitting = pool.with_columns(pl.all().fill_null("")).filter(pl.sum_horizontal(pl.all().str.len_chars()) <= 1_022)
    rows = np.sort(np.random.default_rng(0).choice(len(fitting), arguments.rows, replace=False))
    frame = fitting[rows]
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        files = find_encoder(str(random_encoder(Path(folder) / "esm")))
        encoder = load_encoder(files, Reading(precision="fp32"), torch.device("cpu"))
        tokenizer = AutoTokenizer.from_pretrained(files.folder)
        print(f"{len(frame):,} rows, {torch.get_num_threads()} threads, float32, random weights of the 8M shape.\n")
        print("| Chains | Plain loop, rows/s | tailbind, rows/s | Ratio | Largest difference |")
        print("|---|---|---|---|---|")
        for chains in arguments.chains:
            embedder = Embedder(files, Reading(precision="fp32"), "mean", Path(folder) / chains, "cpu")
            took = {"plain": 0.0, "ours": 0.0}
            largest = 0.0
            size = -(-len(frame) // TURNS)
            for start in range(0, len(frame), size):
                part = frame[start : start + size]
                began = time.perf_counter()
                plain = by_plain_loop(encoder, tokenizer, part, chains)
                took["plain"] += time.perf_counter() - began
                began = time.perf_counter()
                ours = by_tailbind(embedder, part, chains)
                took["ours"] += time.perf_counter() - began
                largest = max(largest, float(np.abs(plain - ours).max()))
            speed = {name: len(frame) / seconds for name, seconds in took.items()}
            print(
                f"| {chains} | {speed['plain']:.1f} | {speed['ours']:.1f} | {speed['ours'] / speed['plain']:.2f} "
                f"| {largest:.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
