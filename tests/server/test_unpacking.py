"""Tables that are small where they are sent and large where they are read: refused, and the server none the larger."""

import io
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from starlette.testclient import TestClient

from tailbind.server import unpacking
from tailbind.server.app import create_app
from tailbind.server.checking import RefusedError
from tailbind.server.limits import MIB, Limits
from tailbind.server.model import ServedModel
from tailbind.server.unpacker import unpack

resource = pytest.importorskip("resource", reason="needs a system that counts memory")

HEAVY = "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKG"
MOST = {"columns": 10, "rows": 1_000, "bytes": MIB}


def parquet(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file, compression="zstd")
    return file.getvalue()


def sent(client: TestClient, content: bytes, name: str = "designs.parquet", **asked: str) -> Any:
    return client.post("/api/predict-file", files={"file": (name, content)}, params=asked)


def one_long_text() -> pl.DataFrame:
    """400 MB: a text of 20 KB that 20,000 rows share."""
    return pl.DataFrame({"heavy": pl.repeat("E" * 20_000, 20_000, eager=True)})


def one_category() -> pl.DataFrame:
    """2 GB, of which even polars' own estimate knows nothing: the text is a category."""
    return pl.select(heavy=pl.repeat("E" * 100_000, 20_000).cast(pl.Categorical))


def many_columns() -> pl.DataFrame:
    """1.6 GB of numbers in one group of rows, more than the process that reads it has."""
    numbers = {f"n{column}": pl.lit(1.5) for column in range(1_000)}
    return pl.DataFrame({"heavy": pl.repeat(HEAVY, 200_000, eager=True)}).with_columns(**numbers)


@pytest.mark.parametrize("make", [one_long_text, one_category, many_columns])
def test_a_file_that_unpacks_to_too_much_is_refused(client: TestClient, make: Any) -> None:
    content = parquet(make())
    assert len(content) < MIB
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    answer = sent(client, content)
    unit = 1 if sys.platform == "darwin" else 1024
    assert answer.status_code == 413
    assert "A Parquet file must unpack to at most 256 MiB; it unpacks to more" in answer.json()["message"]
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 100 * MIB
    assert time.monotonic() - began < 30
    assert sent(client, parquet(pl.DataFrame({"heavy": [HEAVY]}))).status_code == 200


def test_categories_are_texts_and_lists_are_left_out(client: TestClient, frame: pl.DataFrame) -> None:
    some = frame.head(20).select("heavy", "light", "antigen")
    odd = some.with_columns(pl.col("heavy").cast(pl.Categorical), more=pl.Series([[1, 2]] * 20), b=pl.lit(b"\xff"))
    plain, other = (sent(client, parquet(one), format="json").json() for one in (some, odd))
    assert plain["predictions"] == other["predictions"]


def test_a_file_without_rows_is_told(client: TestClient) -> None:
    answer = sent(client, parquet(pl.DataFrame({"heavy": []}, schema={"heavy": pl.String})))
    assert answer.status_code == 422
    assert "must hold rows; it has a header only" in answer.json()["message"]


def test_unpacking_has_little_time(run: Path) -> None:
    model = ServedModel.of_run(run, "cpu", Limits(unpacking_seconds=0.01))
    with TestClient(create_app(model), base_url="http://localhost") as client:
        answer = sent(client, parquet(pl.DataFrame({"heavy": [HEAVY]})))
    assert answer.status_code == 413
    assert "it takes longer than 0.01 s to unpack" in answer.json()["message"]


def test_a_mistake_of_our_own_is_not_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet(pl.DataFrame({"heavy": [HEAVY]})))
    monkeypatch.setattr(unpacking, "CHILD", "tailbind.server.no_such_program")
    with pytest.raises(RuntimeError, match=r"failed on a\.parquet"):
        unpacking.unpack(tmp_path / "a.parquet", tmp_path / "b.parquet", Limits())


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (pl.DataFrame({f"c{column}": [1] for column in range(11)}), {"fault": "columns", "found": 11}),
        (pl.DataFrame({"c": range(1_001)}), {"fault": "rows", "found": 1_001}),
        (pl.DataFrame({"c": ["E" * 2_000] * 1_000}), {"fault": "bytes"}),
        (pl.DataFrame({"c": ["E" * 1_000] * 1_000}), {}),
    ],
)
def test_what_is_too_much_is_counted(tmp_path: Path, frame: pl.DataFrame, found: dict[str, Any]) -> None:
    frame.write_parquet(tmp_path / "a.parquet")
    assert unpack(tmp_path / "a.parquet", tmp_path / "b.parquet", MOST) == found
    assert (tmp_path / "b.parquet").exists() == (not found)
    if not found:
        assert pl.read_parquet(tmp_path / "b.parquet").equals(frame)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    whole = parquet(pl.DataFrame({"c": [str(row) * 9 for row in range(900)]}))
    (tmp_path / "a.parquet").write_bytes(whole[:20] + bytes(200) + whole[220:])
    assert unpack(tmp_path / "a.parquet", tmp_path / "b.parquet", MOST) == {"fault": "damaged"}
    with pytest.raises(RefusedError, match="must be a whole Parquet file"):
        unpacking.unpack(tmp_path / "a.parquet", tmp_path / "b.parquet", Limits())


def test_rows_that_a_reader_would_fill_up_are_refused(client: TestClient) -> None:
    header = "heavy," + ",".join(f"c{column}" for column in range(500))
    answer = sent(client, (header + "\nE" * 5_000).encode(), "short.csv")
    assert answer.status_code == 422
    assert "must have a cell in every row for each of its 501 columns; most rows have fewer" in answer.json()["message"]
    few = sent(client, f"{header}\n{HEAVY}\n{HEAVY}\n".encode(), "short.csv")
    assert few.status_code == 200


@pytest.mark.parametrize("start", ['"a\nb",', '"'])
def test_a_header_on_several_lines_is_refused(client: TestClient, start: str) -> None:
    answer = sent(client, f"{start}heavy,{'x,' * 6_000}\nEVQL\n".encode(), "odd.csv")
    assert answer.status_code == 422
    assert "must have its column names on one line" in answer.json()["message"]


def test_empty_lines_before_the_header_hide_nothing(client: TestClient) -> None:
    answer = sent(client, ("\ufeff\r\n\n\nheavy," + "x," * 6_000 + "\nEVQL\n").encode(), "odd.csv")
    assert answer.status_code == 422
    assert "at most 5,000 columns" in answer.json()["message"]
