"""What `tailbind serve` takes: many clients at once, every answer held against the offline predictor.

    python benchmarks/serving.py RUN TABLE [--requests 10000] [--clients 16] [--rounds 3] [--out FILE.md]

RUN is a run from sequences, TABLE a table with sequences that it may predict. The server is a process of its own; so
are the clients, in threads of one process, each with a connection that it keeps, asking for one pair at a time. All are
on the same cores. Lost is a request without an answer of status 200, wrong one that is off the offline prediction by
more than 0.0001. The memory is the server's own (resident), before and after each round.
"""

import argparse
import http.client
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import tailbind

CHAINS = ("heavy", "light", "antigen")
TOLERANCE = 1e-4
START_SECONDS = 120


@dataclass(frozen=True)
class Round:
    """What one round of requests came to.

    Attributes
    ----------
    seconds : from the first request to the last answer
    latencies : (n_answered,) seconds of each
    lost, wrong : requests
    largest : difference from an offline prediction, in pKd
    memory : of the server afterwards, in bytes
    """

    seconds: float
    latencies: np.ndarray
    lost: int
    wrong: int
    largest: float
    memory: float


def main(argv: list[str] | None = None) -> int:
    """Measure, and print or write the page; 1 where an answer was lost or wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    pairs, expected = offline(arguments.run, arguments.table, arguments.requests)
    with served(arguments.run) as port:
        before = memory(port)
        rounds = [ask_all(port, pairs, expected, arguments.clients) for _ in range(arguments.rounds)]
        batch = mean_batch(port)
    text = "\n".join(page(arguments, pairs, before, rounds, batch)) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    return int(any(one.lost or one.wrong for one in rounds))


def offline(run: Path, table: Path, n: int) -> tuple[list[dict[str, str]], np.ndarray]:
    """Return `n` pairs of a table, rows again from the start where it has fewer, and their offline predictions."""
    frame = tailbind.read_table(table, sequences=True, feature_prefix=None, labels=False).frame.select(CHAINS)
    frame = frame[np.arange(n) % len(frame)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.csv"
        frame.write_csv(path)
        predicted = tailbind.predict(run, path, device="cpu")["predicted_pkd"].to_numpy()
    return frame.to_dicts(), predicted


@contextmanager
def served(run: Path) -> Iterator[int]:
    """Yield the port at which a process serves the run."""
    command = [sys.executable, "-m", "tailbind", "serve", str(run), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            line = server.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if not found:
                raise RuntimeError(f"the server did not start: {line}{server.stderr.read()}")
            port = int(found[1])
            until = time.monotonic() + START_SECONDS
            while time.monotonic() < until:
                try:
                    get(port, "/api/health")
                    break
                except OSError:
                    time.sleep(0.05)
            yield port
        finally:
            server.terminate()
            server.wait(60)


def ask_all(port: int, pairs: Sequence[dict[str, str]], expected: np.ndarray, n_clients: int) -> Round:
    """Return what came of asking for every pair, one a request, by so many clients."""
    found = np.full(len(pairs), np.nan)
    seconds = np.full(len(pairs), np.nan)
    bodies = [json.dumps({"pairs": [pair]}).encode() for pair in pairs]

    def client(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for row in range(first, len(pairs), n_clients):
            began = time.perf_counter()
            try:
                connection.request("POST", "/api/predict", bodies[row], {"Content-Type": "application/json"})
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                continue
            if answer.status == 200:
                seconds[row] = time.perf_counter() - began
                found[row] = json.loads(content)["predictions"][0]["pkd"]
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(n_clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - began
    answered = np.isfinite(seconds)
    off = np.abs(found - expected)[answered]
    wrong = int((~(off <= TOLERANCE)).sum())  # NaN is wrong
    largest = float(off.max()) if len(off) else float("nan")
    return Round(taken, seconds[answered], int((~answered).sum()), wrong, largest, memory(port))


def get(port: int, path: str) -> str:
    """Return what the server has at an address."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def counted(port: int, name: str) -> float:
    """Return one of the server's counts; nan where it does not count that."""
    found = re.search(rf"^{name} (\S+)$", get(port, "/metrics"), re.M)
    return float(found[1]) if found else float("nan")


def memory(port: int) -> float:
    """Return the server's resident memory in bytes; nan where the system does not tell."""
    return counted(port, "process_resident_memory_bytes")


def mean_batch(port: int) -> float:
    """Return how many pairs were predicted together, on average."""
    return counted(port, "tailbind_batch_pairs_sum") / counted(port, "tailbind_batch_pairs_count")


def page(
    arguments: Any, pairs: Sequence[dict[str, str]], before: float, rounds: Sequence[Round], batch: float
) -> list[str]:
    """Return the page's lines."""
    name = json.loads((arguments.run / "config.json").read_text(encoding="utf-8"))["name"]
    lines = [
        "# Serving",
        "",
        f"`python benchmarks/serving.py`: `tailbind serve` with a run of {name}; {arguments.clients} clients on the "
        f"same {os.cpu_count()} cores, each asking for one pair at a time; {len(pairs):,} requests a round, of "
        f"{pl.DataFrame(pairs).n_unique():,} different pairs. tailbind {tailbind.__version__}, Python "
        f"{platform.python_version()}, {time.strftime('%Y-%m-%d')}. On average {batch:.1f} pairs were predicted "
        "together.",
        "",
        "| Round | Requests a second | Median | 99 % within | Lost | Wrong | Furthest off (pKd) | Memory after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, one in enumerate(rounds, 1):
        middle, most = (1000 * np.quantile(one.latencies, share) for share in (0.5, 0.99))
        lines.append(
            f"| {number} | {len(one.latencies) / one.seconds:,.0f} | {middle:.0f} ms | {most:.0f} ms | {one.lost} | "
            f"{one.wrong} | {one.largest:.1e} | {one.memory / 2**20:,.0f} MiB |"
        )
    return [*lines, "", f"Before the first round the server had {before / 2**20:,.0f} MiB."]


if __name__ == "__main__":
    sys.exit(main())
