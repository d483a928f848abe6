"""A run from sequences and one from columns, their applications, and a server that listens."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

import tailbind
from tailbind.server.app import create_app
from tailbind.server.limits import Limits
from tailbind.server.model import ServedModel
from tailbind.server.running import configured, listen
from tailbind.table.simulation import Landscape, simulate

LOCAL = ("localhost", "127.0.0.1")


@pytest.fixture(scope="session")
def frame() -> pl.DataFrame:
    """400 rows of three families: sequences and features."""
    simulated = simulate(Landscape(n_rows=400, n_features=6, n_families=3, missing=0)).drop("true_pkd")
    return simulated.rename({"antibody_heavy": "heavy", "antibody_light": "light"})


@pytest.fixture(scope="session")
def table_file(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "table.csv"
    frame.write_csv(path)
    return path


@pytest.fixture(scope="session")
def run(table_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ridge from sequences."""
    out = tmp_path_factory.mktemp("runs") / "ridge"
    tailbind.train(table_file, recipe="ridge", out=out, overrides=["features.sites.numbering=false"], device="cpu")
    return out


@pytest.fixture(scope="session")
def columns_run(table_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ridge from feature columns."""
    out = tmp_path_factory.mktemp("runs") / "columns"
    tailbind.train(table_file, recipe="ridge-columns", out=out, device="cpu")
    return out


@pytest.fixture(scope="session")
def model(run: Path) -> ServedModel:
    return ServedModel.of_run(run, "cpu", Limits())


@pytest.fixture(scope="session")
def columns_model(columns_run: Path) -> ServedModel:
    return ServedModel.of_run(columns_run, "cpu", Limits())


@pytest.fixture
def client(model: ServedModel) -> Iterator[TestClient]:
    """A client of the application without a network between."""
    with TestClient(create_app(model, hosts=LOCAL), base_url="http://localhost", raise_server_exceptions=False) as one:
        yield one


@contextmanager
def listening(app: FastAPI, limits: Limits) -> Iterator[int]:
    """Yield the port at which an application is served, as `tailbind serve` serves it."""
    taken = listen("127.0.0.1", 0)
    server = uvicorn.Server(configured(app, limits))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
    thread.start()
    port: int = taken.getsockname()[1]
    wait_for(lambda: server.started)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(20)
        taken.close()
        assert not thread.is_alive()


def wait_for(happened: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def is_closed(connection: socket.socket, seconds: float) -> bool:
    """Return whether the other side ends a connection in time."""
    connection.settimeout(seconds)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
