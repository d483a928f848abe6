"""The fixture ladder: a table on disk → the table read → its parts. Each rung is built once a session."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tailbind.table.reading import read_table
from tailbind.table.schema import AffinityTable
from tailbind.table.simulation import Landscape, write_simulated
from tailbind.table.splitting import RandomSplit, part_rows


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small matrices gain nothing from a second thread, and lose much where the processor is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is numbered in a test stays out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAILBIND_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _denormal_numbers() -> Iterator[None]:
    """Choosing the CPU makes it flush denormal numbers, in this whole process; hypothesis needs them back."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def simulated_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV in the training notebook's format: 1,200 rows, 12 features, 15 % of rows without features."""
    path = tmp_path_factory.mktemp("table") / "simulated.csv"
    write_simulated(path, Landscape(n_rows=1200, n_features=12, n_families=3))
    return path


@pytest.fixture(scope="session")
def table(simulated_csv: Path) -> AffinityTable:
    """The simulated table, read; rows without features are dropped. Not to be changed by a test."""
    return read_table(simulated_csv)


@pytest.fixture(scope="session")
def parts(table: AffinityTable) -> dict[str, NDArray[np.intp]]:
    """Row numbers of "train", "val" and "test" by the default split."""
    return part_rows(RandomSplit()(table.frame))
