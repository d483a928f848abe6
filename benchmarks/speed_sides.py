"""The sides of `speed.py`, each measured in a process of its own: words in, figures out."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Figures = dict[str, Any]
BATCH = 128
SIZES = (512, 256, 128, 64, 1)


def loop(rows: str, width: str, members: str = "1") -> Figures:
    """Return the seconds of an epoch of v2 in memory."""
    X, y = _random(int(rows), int(width))
    return _epoch(X, y, int(members))


def apart(rows: str, width: str, members: str) -> Figures:
    """Return the seconds of as many epochs of v2, one network after the other."""
    X, y = _random(int(rows), int(width))
    return {"seconds": sum(_epoch(X, y, 1, seed)["seconds"] for seed in range(int(members))), "peak_gb": _peak()}


def disk(rows: str, width: str, folder: str) -> Figures:
    """Return the seconds of an epoch of v2 whose features stay on disk, in an address space too small for them."""
    from tailbind.runtime import available_bytes
    from tailbind.table.blocks import Blocks

    n, n_columns, per_file = int(rows), int(width), 16_384
    y = _random(n, 1)[1]
    files = []
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, n, per_file)):
        files.append(Path(folder) / f"{n}-{n_columns}-{number:05}.npy")
        if not files[-1].exists():
            rng = np.random.default_rng([0, number])
            np.save(files[-1], rng.standard_normal((min(per_file, n - start), n_columns), np.float32))
    blocks = Blocks(tuple(files), per_file, (n, n_columns))
    _epoch(blocks[:2000], y[:2000], 1)  # libraries are loaded before the limit is set
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    room = blocks.nbytes // 2
    resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
    assert available_bytes() < blocks.nbytes
    try:
        np.empty(blocks.shape, np.float32)
        raise RuntimeError("the table fits into the address space")
    except MemoryError:
        pass
    return {**_epoch(blocks, y, 1), "room_gb": room / 1e9}


def floor(rows: str, width: str) -> Figures:
    """Return the seconds of the matrix products of an epoch alone, and their rate."""
    import torch

    n_steps = -(-int(rows) // BATCH)
    products: list[Callable[[], object]] = []
    flops = 0
    for number, (fan_in, fan_out) in enumerate(zip((int(width), *SIZES), SIZES, strict=False)):
        x, weight, slope = torch.randn(BATCH, fan_in), torch.randn(fan_out, fan_in), torch.randn(BATCH, fan_out)
        bias, gradient = torch.randn(fan_out), torch.empty(fan_out, fan_in)
        products.append(lambda b=bias, x=x, w=weight: torch.addmm(b, x, w.t()))
        products.append(lambda s=slope, x=x, g=gradient: torch.mm(s.t(), x, out=g))
        if number:
            products.append(lambda s=slope, w=weight: torch.mm(s, w))
        flops += 2 * BATCH * fan_in * fan_out * (3 if number else 2)

    def steps(n: int) -> float:
        started = time.perf_counter()
        for _ in range(n):
            for product in products:
                product()
        return time.perf_counter() - started

    steps(100)
    seconds = steps(n_steps)
    return {"seconds": seconds, "gflops": flops * n_steps / seconds / 1e9}


def read(file: str, how: str) -> Figures:
    """Return the seconds of reading a table, anew or from the cache."""
    import tailbind

    if how == "cached":  # whoever comes first fills it
        subprocess.run([sys.executable, "-c", f"import tailbind; tailbind.read_table({file!r})"], check=True)
    started = time.perf_counter()
    table = tailbind.read_table(file, cache=how == "cached")
    seconds = time.perf_counter() - started
    assert table.features.dtype == np.float32
    return {"seconds": seconds, "peak_gb": _peak()}


def pandas(file: str) -> Figures:
    """Return the seconds of reading a table by pandas, as a notebook does."""
    import pandas as pd

    started = time.perf_counter()
    frame = pd.read_csv(file, low_memory=False)
    columns = [name for name in frame.columns if name.startswith("esm2_pca_")]
    matrix = frame.dropna(subset=columns)[columns].to_numpy(np.float32)
    seconds = time.perf_counter() - started
    assert matrix.shape[1] == len(columns)
    return {"seconds": seconds, "peak_gb": _peak()}


def prepare(model: str, table: str, rows: str) -> Figures:
    """Write a table of the notebook's form and train v2 on its beginning, for an epoch."""
    import polars as pl

    import tailbind

    X, y = _random(int(rows), 150)
    frame = pl.DataFrame({f"esm2_pca_{column}": X[:, column] for column in range(150)}).insert_column(
        0, pl.Series("pKd", y)
    )
    frame.write_parquet(table)
    first = Path(table).with_name("first.parquet")
    frame.head(20_000).write_parquet(first)
    tailbind.train(first, recipe="v2", out=model, overrides=["training.epochs=1"], device="cpu")
    return {}


def labelled(table: str, out: str, rows: str) -> Figures:
    """Write the first rows of a table."""
    import polars as pl

    pl.scan_parquet(table).head(int(rows)).collect().write_parquet(out)
    return {}


def plain(out: str, rows: str) -> Figures:
    """Write simulated sequences with labels."""
    from tailbind.table.simulation import Landscape, simulate

    simulate(Landscape(n_rows=int(rows))).write_csv(out)
    return {}


def command(*words: str) -> Figures:
    """Return the seconds and the memory of a call of tailbind, from start to end."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "tailbind", *words], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr)
    return {"seconds": seconds, "peak_gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6 * 1.024}


def _random(rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.clip(7.5 + 1.6 * rng.standard_normal(rows), 0.5, 15.5)
    return rng.standard_normal((rows, width), np.float32), y


def _epoch(X: Any, y: np.ndarray, members: int, seed: int = 0) -> Figures:
    """Return the seconds of an epoch of training by v2's recipe, validation left out."""
    from tailbind.models.mlp import Mlp
    from tailbind.runtime import choose_device
    from tailbind.table.features import Features
    from tailbind.training.loop import Trainer
    from tailbind.training.losses import FocalMse
    from tailbind.training.schedule import AdamW, CosineRestarts
    from tailbind.training.stages import Stage, TrainingOptions

    device, n = choose_device("auto"), len(y)
    rows, loss = np.arange(n), FocalMse()
    network = Mlp(members=members).build(X.shape[1], seed).to(device)
    options = TrainingOptions(epochs=2, batch_size=BATCH, clip_grad_norm=1.0, seed=seed)
    features = Features(X, tuple(str(column) for column in range(X.shape[1])))
    trainer = Trainer(
        network, features, y, np.full(n, "="), loss.of_rows(y, rows), rows[:128],
        [Stage("all rows", rows, 1, AdamW(), CosineRestarts())], loss, options,
    )  # fmt: skip
    seconds: list[float] = []
    trainer.run(lambda result: seconds.append(result.seconds))
    return {"seconds": seconds[0], "peak_gb": _peak()}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


SIDES: dict[str, Callable[..., Figures]] = {
    "loop": loop,
    "apart": apart,
    "disk": disk,
    "floor": floor,
    "read": read,
    "pandas": pandas,
    "prepare": prepare,
    "labelled": labelled,
    "plain": plain,
    "command": command,
}
