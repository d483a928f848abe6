"""The notebook runs from top to bottom, and its two forms say the same."""

import shutil
from pathlib import Path

import jupytext
import nbclient
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def test_the_notebook_and_its_text_are_the_same() -> None:
    notebook, text = jupytext.read(NOTEBOOKS / "train_v2.ipynb"), jupytext.read(NOTEBOOKS / "train_v2.py")
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in text.cells
    ]
    assert all(not cell.get("outputs") for cell in notebook.cells)


def test_the_notebook_runs(simulated_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILBIND_DATA", str(simulated_csv))
    monkeypatch.setenv("TAILBIND_OUT", str(tmp_path / "models"))
    monkeypatch.setenv("TAILBIND_EPOCHS", "2")
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    shutil.copy(NOTEBOOKS / "train_v2.ipynb", tmp_path)
    notebook = jupytext.read(tmp_path / "train_v2.ipynb")
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert "Comparison: v1 vs v2" in text
    assert "epoch 2/2" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert (tmp_path / "models" / "tailbind_results.zip").exists()
