"""A server that listens, and clients that mean it no good, come all at once, or never finish a sentence."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import polars as pl
import pytest

import tailbind
from tailbind.cli import main
from tailbind.errors import ServeError
from tailbind.server import running
from tailbind.server.app import create_app
from tailbind.server.batching import Jobs
from tailbind.server.limits import MIB, Limits
from tailbind.server.model import ServedModel
from tailbind.server.running import listen, read_key, serve

from .conftest import LOCAL, is_closed, listening, wait_for

IMPATIENT = Limits(head_seconds=0.5, body_seconds=0.5)
CHAINS = ("heavy", "light", "antigen")


@pytest.fixture(scope="module")
def port(run: Path) -> Iterator[int]:
    model = ServedModel.of_run(run, "cpu", IMPATIENT)
    with listening(create_app(model, hosts=LOCAL), IMPATIENT) as port:
        yield port


@pytest.fixture(autouse=True)
def _lives(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "port" in request.fixturenames:
        port = request.getfixturevalue("port")
        assert httpx.get(f"http://127.0.0.1:{port}/api/health").json()["status"] == "ok"


# --- too much --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["predict", "predict-file", "scan"])
def test_100_mb_are_refused_unread(port: int, address: str) -> None:
    answer = httpx.post(f"http://127.0.0.1:{port}/api/{address}", content=b"x" * 100_000_000, timeout=30)
    assert answer.status_code == 413
    assert "MiB" in answer.json()["message"]


def test_a_body_of_untold_length_is_refused_when_it_is_too_long(port: int) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * MIB

    answer = httpx.post(f"http://127.0.0.1:{port}/api/predict", content=pieces(), timeout=30)
    assert answer.status_code == 413


def test_bodies_together_are_bounded(run: Path) -> None:
    limits = Limits(held_bytes=1000, body_seconds=5)
    with listening(create_app(ServedModel.of_run(run, "cpu", limits)), limits) as port:
        address = f"http://127.0.0.1:{port}/api/predict"
        answer = httpx.post(address, content=b"x" * 2000)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert httpx.post(address, json={"pairs": [{"heavy": "EVQL"}]}).status_code == 200


@pytest.mark.parametrize("length", ["-1", "1e9", "9" * 30])
def test_a_length_that_is_none_is_refused(port: int, length: str) -> None:
    answer = asked(port, f"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))


def test_a_head_without_end_is_refused(port: int) -> None:
    answer = asked(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)
    assert answer.startswith(b"HTTP/1.1 400") or not answer


def test_more_than_may_wait_is_told_to_come_again(run: Path, frame: pl.DataFrame) -> None:
    limits = Limits(waiting_pairs=20)
    pairs = frame.head(20).select(CHAINS).to_dicts()
    model = ServedModel.of_run(run, "cpu", limits)
    app = create_app(model)
    held = threading.Event()
    plain = app.state.api.batcher.compute

    def slowly(asked: object) -> object:
        held.wait(20)
        return plain(asked)

    app.state.api.batcher.compute = slowly
    with listening(app, limits) as port, ThreadPoolExecutor(1) as pool:
        address = f"http://127.0.0.1:{port}/api/predict"
        first = pool.submit(httpx.post, address, json={"pairs": pairs}, timeout=30)
        wait_for(lambda: app.state.api.batcher.waiting == 20)
        answer = httpx.post(address, json={"pairs": pairs[:1]})
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        held.set()
        assert first.result().status_code == 200
        assert httpx.post(address, json={"pairs": pairs[:1]}).status_code == 200


# --- too slow --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HT", b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Len"],
    ids=["nothing", "half a line", "half a head"],
)
def test_half_open_connections_are_closed(port: int, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(said)
        assert is_closed(connection, 5)


def test_a_head_that_drips_is_cut_off(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - began < 10:
                connection.sendall(b"G")
                time.sleep(0.1)
        assert time.monotonic() - began < 8


def test_half_a_body_is_answered_and_closed(port: int) -> None:
    head = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    answer = asked(port, head)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"must be sent within 0.5 s" in answer


def test_many_half_open_connections_keep_nobody_out(port: int) -> None:
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        for connection in held:
            connection.sendall(b"POST / HTTP/1.1\r\n")
        assert httpx.get(f"http://127.0.0.1:{port}/api/health").status_code == 200
        assert all(is_closed(connection, 5) for connection in held)
    finally:
        for connection in held:
            connection.close()


# --- many at once ------------------------------------------------------------------------------------------


def test_many_clients_get_their_own_answers(port: int, run: Path, frame: pl.DataFrame, tmp_path: Path) -> None:
    frame.select(CHAINS).write_csv(tmp_path / "all.csv")
    offline = tailbind.predict(run, tmp_path / "all.csv", device="cpu")["predicted_pkd"].to_list()
    pairs = frame.select(CHAINS).to_dicts()

    def ask(client: int) -> list[tuple[int, float]]:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as one:
            found = []
            for row in range(client, len(pairs), 16):
                answer = one.post("/api/predict", json={"pairs": [pairs[row]]})
                found.append((row, answer.json()["predictions"][0]["pkd"]))
            return found

    with ThreadPoolExecutor(16) as pool:
        answers = dict(pair for found in pool.map(ask, range(16)) for pair in found)
    assert [answers[row] for row in range(len(pairs))] == pytest.approx(offline, abs=1e-4)
    counted = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    batches = float(counted.split("tailbind_batch_pairs_count ")[1].split()[0])
    assert batches < len(pairs) / 2, "requests are predicted together"


def test_one_request_that_fails_leaves_its_neighbours_alone(model: ServedModel) -> None:
    import asyncio

    from tailbind.server.batching import Batcher
    from tailbind.server.checking import Pairs

    def compute(pairs: Pairs) -> list[dict[str, str]]:
        if "BAD" in pairs.chains["heavy"]:
            raise ValueError("bad")
        return [{"heavy": heavy} for heavy in pairs.chains["heavy"]]

    async def three() -> list[object]:
        batcher = Batcher(compute, most_pairs=2, most_waiting=100, patience=0.05)
        batcher.start()
        asked = [Pairs({"heavy": (*chains,)}) for chains in (["A"], ["BAD"], ["C", "D", "E"])]
        found = await asyncio.gather(*(batcher.predict(pairs) for pairs in asked), return_exceptions=True)
        assert batcher.waiting == 0
        await batcher.stop()
        return list(found)

    first, second, third = asyncio.run(three())
    assert first == [{"heavy": "A"}]
    assert isinstance(second, ValueError)
    assert third == [{"heavy": "C"}, {"heavy": "D"}, {"heavy": "E"}]


def test_jobs_wait_in_bounds() -> None:
    import asyncio

    from tailbind.server.batching import BusyError

    async def two_of_three() -> None:
        jobs, held = Jobs(1), threading.Event()
        tasks = [asyncio.create_task(jobs.do(lambda: held.wait(20))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await jobs.do(lambda: True)
        held.set()
        assert await asyncio.gather(*tasks) == [True, True]
        jobs.stop()

    asyncio.run(two_of_three())


# --- beginning and end ---------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_sigterm_finishes_what_is_in_flight(run: Path, frame: pl.DataFrame) -> None:
    command = [sys.executable, "-m", "tailbind", "serve", str(run), "--port", "0", "--device", "cpu"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        line = server.stderr.readline()
        assert line.startswith("Serving ridge at http://127.0.0.1:")
        address = line.split()[3]
        pairs = frame.select(CHAINS).to_dicts() * 20
        wait_for(lambda: _is_up(address))
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(httpx.post, f"{address}/api/predict", json={"pairs": pairs}, timeout=60)
            wait_for(lambda: asked.done() or "tailbind_waiting_pairs 0.0" not in httpx.get(f"{address}/metrics").text)
            server.send_signal(signal.SIGTERM)
            assert len(asked.result().json()["predictions"]) == len(pairs)
        assert server.wait(20) == 0
        assert "Traceback" not in server.stderr.read()
    finally:
        server.kill()
        server.wait()
        if server.stderr is not None:
            server.stderr.close()


def _is_up(address: str) -> bool:
    try:
        return httpx.get(f"{address}/api/health").status_code == 200
    except httpx.TransportError:
        return False


def test_limits_are_options(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    taken: list[Limits] = []
    monkeypatch.setattr(running, "serve", lambda _, **options: taken.append(options["limits"]))
    assert main(["serve", str(run)]) == 0
    assert main(["serve", str(run), "--max-pairs", "5", "--max-rows", "7", "--max-upload-mib", "64"]) == 0
    assert taken[0] == Limits()
    assert (taken[1].pairs, taken[1].upload_rows, taken[1].upload_bytes) == (5, 7, 64 * MIB)
    assert taken[1].unpacked_bytes == 2 * Limits().unpacked_bytes
    assert main(["serve", str(run), "--max-pairs", "0"]) == 2
    assert "--max-pairs" in capsys.readouterr().err


def test_an_address_that_is_taken_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(run), "--port", port]) == 2
    assert f"--port {port} must be an address of this machine that is free; address already in use" in (
        " ".join(capsys.readouterr().err.split())
    )


def test_keys_are_read_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(running.KEY_VARIABLE, raising=False)
    assert read_key(None) is None
    monkeypatch.setenv(running.KEY_VARIABLE, "of-the-environment")
    assert read_key(None) == "of-the-environment"
    file = tmp_path / "key"
    file.write_text("of-the-file-itself\n")
    assert read_key(file) == "of-the-file-itself"
    for bad in ("short", "with spaces in between", ""):
        file.write_text(bad)
        with pytest.raises(ServeError, match="at least 16 printable ASCII characters") as caught:
            read_key(file)
        assert not bad or bad not in str(caught.value)
    with pytest.raises(ServeError, match="must be a readable text file; No such file"):
        read_key(tmp_path / "none")


def test_a_missing_package_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ServeError, match=r"needs the package uvicorn.*pip install 'tailbind\[serve\]'"):
        serve(run)


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(tailbind.TailbindError, match="must be a run folder"):
        serve(tmp_path, port=0)


def asked(port: int, request: bytes) -> bytes:
    """Return all that a server answers to some bytes, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(request)
        except OSError:
            return b""
        pieces = []
        try:
            while piece := connection.recv(65_536):
                pieces.append(piece)
        except ConnectionError:
            pass
        return b"".join(pieces)


def test_pairs_of_an_answer_are_json_without_nan(port: int) -> None:
    answer = httpx.post(f"http://127.0.0.1:{port}/api/predict", json={"pairs": [{"heavy": "EVQLVESGG"}]})
    json.loads(answer.text, parse_constant=lambda name: pytest.fail(name))
