"""`demo`: three recipes on one simulated table, on the same test rows; two where what v3 needs is not there."""

import importlib.util
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

import tailbind
from tailbind.table.simulation import Landscape
from tailbind.workflows import demonstrating


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table and epochs for seconds instead of minutes."""
    monkeypatch.setattr(demonstrating, "LANDSCAPE", Landscape(n_rows=400, n_features=6, n_families=3, missing=0.0))
    short = {"v1": ("training.epochs=1",), "v2": ("training.epochs=1",), "v3": ("parts.network.training.epochs=1",)}
    assert list(short) == list(demonstrating.RECIPES)
    monkeypatch.setattr(demonstrating, "RECIPES", short)


@pytest.mark.usefixtures("small")
def test_three_recipes_are_trained_and_compared_on_the_same_rows(tmp_path: Path) -> None:
    said = StringIO()
    out = tmp_path / "demo"
    comparison = tailbind.demo(out, device="cpu", console=Console(file=said, width=200))
    assert comparison.names == ("v1", "v2", "v3")
    assert comparison.rows == "measured"
    splits = [pl.read_parquet(out / name / "split.parquet").select("row_id", "part") for name in comparison.names]
    assert len(splits[0]) == 400
    assert splits[0].equals(splits[1])
    assert splits[0].equals(splits[2])
    assert (out / "comparison" / "comparison.html").exists()
    assert "v3 is clearly better than v1 in" in said.getvalue()


@pytest.mark.usefixtures("small")
def test_v3_is_left_out_where_what_it_needs_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "anarcii" else honest(name, *rest)
    )
    said = StringIO()
    comparison = tailbind.demo(tmp_path / "demo", device="cpu", console=Console(file=said, width=200))
    assert comparison.names == ("v1", "v2")
    assert "Warning: v3 is left out: it reads sequences and needs anarcii, not installed here. Run: pip" in (
        " ".join(said.getvalue().split())
    )
    assert not (tmp_path / "demo" / "v3").exists()
