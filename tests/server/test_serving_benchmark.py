"""The benchmark of serving in small: nothing lost, nothing wrong, memory as it was."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks import serving


def test_nothing_is_lost_or_wrong_and_memory_is_flat(
    run: Path, table_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "serving.md"
    arguments = [str(run), str(table_file), "--requests", "300", "--clients", "8", "--rounds", "3", "--out", str(out)]
    assert serving.main(arguments) == 0
    rows = [line.split("|") for line in out.read_text().splitlines() if line.startswith(("| 1 ", "| 2 ", "| 3 "))]
    assert [row[5].strip() for row in rows] == ["0", "0", "0"]
    assert [row[6].strip() for row in rows] == ["0", "0", "0"]
    megabytes = [float(row[8].replace(",", "").split()[0]) for row in rows]
    assert megabytes[2] < megabytes[0] + 20


def test_a_wrong_answer_is_found(run: Path, table_file: Path) -> None:
    pairs, expected = serving.offline(run, table_file, 5)
    expected = expected + np.array([0, 0, 0, 0.01, 0])
    with serving.served(run) as port:
        found = serving.ask_all(port, pairs, expected, 2)
    assert (found.lost, found.wrong) == (0, 1)
    assert found.largest == pytest.approx(0.01, abs=1e-3)
