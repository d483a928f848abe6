"""`tailbind export`: every kind of model predicts from the folder what it predicted from the run, to the bit."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from benchmarks.embedding import random_encoder
from huggingface_hub import ModelCard

import tailbind
from tailbind.checkpoint import save_state
from tailbind.cli import main
from tailbind.errors import CheckpointError, RunError
from tailbind.export_folder import load_beside
from tailbind.models import MODELS
from tailbind.predictor import load
from tailbind.run_folder import RunFolder
from tailbind.table.simulation import Landscape, simulate
from tailbind.workflows import Exported, export, exporting
from tailbind.workflows.onnx_graph import OPSET

EPOCHS = ("training.epochs=2", "training.batch_size=64")
MLP = (*EPOCHS, "model.hidden_dims=[8]")
NUMBERS = "features.sites.numbering=false"
ENSEMBLE = (*EPOCHS, "model.stem_dim=8", "model.hidden_dims=[8]", "model.heads=3")
OF_COLUMNS = (
    "features.sites=false",
    "features.descriptors=false",
    "features.composition=false",
    "features.columns=true",
)
#: What is tried → recipe, and what makes it quick enough for a test.
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "network": ("v2", MLP),
    "scaled": ("v2", (*MLP, "features.columns.standardize=true", "model.activation=relu")),
    "reduced": ("v2", (*MLP, "features.columns.standardize=true", "features.columns.pca=3", "model.members=2")),
    "components": ("v1", (*MLP, "features.columns.pca=4", "model.numerical_embedding=periodic")),
    "bins": ("v2", (*MLP, "model.numerical_embedding=piecewise_linear")),
    "tobit": ("v2-tobit", MLP),
    "heads": ("ensemble-mlp", (*ENSEMBLE, *OF_COLUMNS)),
    "adapters": ("ensemble-mlp", (*ENSEMBLE, *OF_COLUMNS, "model.adapters=layers", "model.layer_norm=true")),
    "of sites": ("v2-sequence", (*MLP, NUMBERS)),
    "attention": ("attention", (
        *EPOCHS, "features.residues.numbering=false", "model.dim=8", "model.heads=2", "model.layers=1",
        "model.hidden_dim=8",
    )),
    "training mean": ("training-mean", ()),
    "source mean": ("source-mean", ()),
    "neighbour": ("nearest-neighbour", (NUMBERS,)),
    "ridge": ("ridge", (NUMBERS,)),
    "trees": ("lightgbm", (NUMBERS,)),
    "process": ("gaussian-process", (NUMBERS,)),
    "process of columns": ("gaussian-process-columns", ()),
    "blend": ("v3", (
        NUMBERS, "features.descriptors.numbering=false", "parts.network.training.epochs=2",
        "parts.network.model.hidden_dims=[8]", "parts.network.model.members=1",
    )),
    "blend of columns": ("v3-columns", ("parts.network.training.epochs=2", "parts.network.model.hidden_dims=[8]")),
}  # fmt: skip
#: Those that have a graph.
GRAPHS = ("network", "scaled", "reduced", "components", "bins", "tobit", "heads", "adapters")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 rows of three families, with sequences and six feature columns, a tenth of them empty."""
    path = tmp_path_factory.mktemp("table") / "small.csv"
    simulate(Landscape(n_rows=240, n_features=6, n_families=3, missing=0.1)).drop("true_pkd").write_csv(path)
    return path


class Runs(dict[str, Path]):
    """What is tried → its run folder, trained when first asked for."""

    def __init__(self, data: Path, folder: Path) -> None:
        super().__init__()
        self.data, self.folder = data, folder

    def __missing__(self, name: str) -> Path:
        recipe, changes = RUNS[name]
        out = self.folder / name.replace(" ", "-")
        self[name] = tailbind.train(self.data, recipe=recipe, out=out, overrides=changes, device="cpu").path
        return self[name]


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(data, tmp_path_factory.mktemp("runs"))


class Exports(dict[str, Exported]):
    """What is tried → its export, written when first asked for and then moved to another place."""

    def __init__(self, runs: Runs, folder: Path) -> None:
        super().__init__()
        self.runs, self.folder = runs, folder

    def __missing__(self, name: str) -> Exported:
        place = self.folder / f"moved {name}"
        done = export(self.runs[name], self.folder / "out")
        shutil.move(done.path, place)
        self[name] = replace(done, path=place)
        return self[name]


@pytest.fixture(scope="module")
def exports(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    return Exports(runs, tmp_path_factory.mktemp("exports"))


def test_every_kind_of_model_is_tried_here(runs: Runs) -> None:
    assert {load(runs[name], "cpu").checkpoint.model_kind for name in RUNS} == set(MODELS)


@pytest.mark.parametrize("name", RUNS)
def test_an_exported_model_predicts_the_same_to_the_bit(name: str, runs: Runs, exports: Exports, data: Path) -> None:
    done = exports[name]
    before = tailbind.predict(runs[name], data, device="cpu")
    after = tailbind.predict(done.path, data, device="cpu")
    assert before["predicted_pkd"].null_count() < 60
    assert after.columns == before.columns
    for column in before.columns:
        one, other = before[column], after[column]
        if one.dtype == pl.Float64:
            assert one.to_numpy().tobytes() == other.to_numpy().tobytes(), column
        else:
            assert one.equals(other), column
    assert ("model.onnx" in done.files) == (name in GRAPHS)
    assert bool(done.no_graph) == (name not in GRAPHS)
    assert {path.name for path in done.path.iterdir()} == set(done.files)
    assert done.n_bytes == sum(path.stat().st_size for path in done.path.iterdir())


IN_A_NEW_PROCESS = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx", providers=["CPUExecutionProvider"])
columns = json.loads(session.get_modelmeta().custom_metadata_map["columns"])
rows = np.genfromtxt(sys.argv[2], delimiter=",", names=True, usecols=columns, dtype=np.float32)
given = np.stack([rows[name] for name in columns], axis=1)
names = [output.name for output in session.get_outputs()]
found = dict(zip(names, session.run(names, {session.get_inputs()[0].name: given})))
alone = session.run(["predicted_pkd"], {session.get_inputs()[0].name: given[:1]})[0]
assert "torch" not in sys.modules and "tailbind" not in sys.modules
np.savez(sys.argv[3], alone=alone, **found)
"""


@pytest.mark.parametrize("name", GRAPHS)
def test_the_graph_predicts_the_same_without_tailbind(
    name: str, runs: Runs, exports: Exports, data: Path, tmp_path: Path
) -> None:
    folder = exports[name].path
    arguments = [str(folder), str(data), str(tmp_path / "found.npz")]
    subprocess.run([sys.executable, "-c", IN_A_NEW_PROCESS, *arguments], check=True, cwd=tmp_path)
    found = dict(np.load(tmp_path / "found.npz"))
    own = tailbind.predict(runs[name], data, device="cpu")
    assert set(found) - {"alone"} == set(own.columns) & {"predicted_pkd", "predicted_sd"}
    for column in set(found) - {"alone"}:
        expected = own[column].to_numpy()
        assert 0 < np.isnan(expected).sum() < 60
        np.testing.assert_allclose(found[column], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["alone"], found["predicted_pkd"][:1], rtol=0, atol=1e-5)
    graph = onnx.load(folder / "model.onnx")
    assert [entry.version for entry in graph.opset_import if entry.domain == ""] == [OPSET]
    manifest = json.loads((folder / "export.json").read_text())
    assert manifest["onnx"]["opset"] == OPSET
    assert set(manifest["onnx"]["outputs"]) == set(found) - {"alone"}


def test_a_new_process_predicts_and_evaluates_from_the_folder(runs: Runs, data: Path, tmp_path: Path) -> None:
    assert main(["export", str(runs["ridge"]), "--out", str(tmp_path / "deep" / "out")]) == 0
    out = tmp_path / "p.csv"
    for command in (
        ["predict", str(tmp_path / "deep" / "out"), str(data), "--out", str(out), "--device", "cpu"],
        ["evaluate", str(tmp_path / "deep" / "out"), str(data), "--device", "cpu"],
    ):
        done = subprocess.run([sys.executable, "-m", "tailbind", *command], check=True, capture_output=True, text=True)
    assert "unfinished" not in done.stderr
    assert "The run was trained on rows of this very table" in done.stdout
    again = pl.read_csv(out, schema_overrides={"row_id": pl.String})
    both = pl.read_csv(runs["ridge"] / "test_predictions_ridge.csv", schema_overrides={"row_id": pl.String})
    both = both.join(again, on="row_id", suffix="_again")
    np.testing.assert_allclose(both["predicted_pkd"], both["predicted_pkd_again"], atol=1e-9)


def test_what_an_encoder_makes_is_exported_without_the_encoder(data: Path, tmp_path: Path) -> None:
    encoder = random_encoder(tmp_path / "tiny", layers=1, width=8, heads=2, positions=300)
    changes = (*MLP, f"features.language_model.encoder={encoder}", "features.language_model.pca=4")
    run = tailbind.train(data, recipe="v2-esm2", out=tmp_path / "run", overrides=changes, device="cpu")
    said: list[str] = []
    export(run.path, tmp_path / "out", notify=said.append)
    assert len(said) == 1 and "that is not in the folder; whoever predicts needs it" in said[0] and "tiny" in said[0]
    assert tailbind.predict(tmp_path / "out", data).equals(tailbind.predict(run.path, data))
    for name in ("README.md", "environment.json"):
        assert str(tmp_path) not in (tmp_path / "out" / name).read_text()


# --- what travels ------------------------------------------------------------------------------------


def test_files_for_prediction_travel_and_are_checked(runs: Runs, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["ridge"], run)
    (run / "domain.csv").write_bytes(b"domain")
    save_state(run / "calibration.of_ours.pth", "ours", {"scores": np.arange(3.0)})
    assert {"calibration.of_ours.pth", "domain.csv"} <= {path.name for path in RunFolder(run, "").for_prediction}
    done = export(run, tmp_path / "out")
    assert {"calibration.of_ours.safetensors", "calibration.of_ours.json", "domain.csv"} <= set(done.files)
    assert (tmp_path / "out" / "domain.csv").read_bytes() == b"domain"
    found = load_beside(RunFolder(tmp_path / "out", "ridge"), Path("calibration.of_ours.pth"), "ours")
    assert found is not None and found["scores"].tolist() == [0, 1, 2]
    (tmp_path / "out" / "domain.csv").write_bytes(b"demain")
    with pytest.raises(CheckpointError, match=r"domain\.csv must be as it was exported"):
        load(tmp_path / "out")


def test_no_folder_of_the_machine_is_in_the_export(runs: Runs, exports: Exports, data: Path) -> None:
    folder = exports["reduced"].path
    for path in folder.iterdir():
        for place in (data.parent, runs["reduced"].parent, folder.parent):
            assert str(place).encode() not in path.read_bytes(), path.name


def test_the_card_comes_as_its_user_left_it_and_says_what_the_files_are(runs: Runs, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["ridge"], run)
    card = (run / "model_card.md").read_text().replace("license: unknown", "license: mit")
    (run / "model_card.md").write_text(card)
    done = export(run, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.startswith(card)
    assert ModelCard(text).data.license == "mit"
    for name in done.files[1:]:
        assert f"| `{name}` |" in text
    (tmp_path / "out" / "README.md").write_text(text + "Cite us.")
    assert len(tailbind.predict(tmp_path / "out", data)) == 240


def test_a_card_that_is_no_utf8_is_one_line(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs["ridge"], tmp_path / "run")
    (tmp_path / "run" / "model_card.md").write_bytes("by José".encode("latin-1"))
    with pytest.raises(RunError, match=r"model_card.md must be UTF-8 text; byte 7 is not"):
        export(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_folder_one_is_in_is_taken_where_it_is_empty(
    runs: Runs, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export(runs["ridge"], ".")
    assert tailbind.predict(tmp_path / "here", data).height == 240


def test_an_old_run_is_exported_with_a_card(runs: Runs, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["ridge"], run)
    (run / "model_card.md").unlink()
    for later in RunFolder(run, "ridge").for_prediction:
        later.unlink()
    export(run, tmp_path / "out")
    assert "## Limits" in (tmp_path / "out" / "README.md").read_text()
    assert tailbind.predict(tmp_path / "out", data).height == 240


def test_a_run_whose_figures_are_of_another_form_has_a_bare_card(runs: Runs, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["ridge"], run)
    (run / "model_card.md").unlink()
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["criteria"]["rows"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "environment.json").write_text('{"data_sha256": "0"}')
    export(run, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "**How good it is, and on what it was trained, is not told here**" in text
    assert "the sequences `heavy`, `light`, `antigen` in one-letter code" in text
    assert ModelCard(text).data.license == "unknown"
    for name in ("metrics.json", "environment.json"):
        (run / name).unlink()
    export(run, tmp_path / "barest")
    assert tailbind.predict(tmp_path / "barest", data).height == 240


def test_no_pickle_is_in_the_folder(exports: Exports) -> None:
    suffixes = {path.suffix for path in exports["blend"].path.iterdir()} - {".parquet", ".npz"}
    assert suffixes == {".md", ".json", ".safetensors"}


# --- refusals ----------------------------------------------------------------------------------------


def test_nothing_is_overwritten(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="must be a new or empty folder; it is not"):
        export(runs["ridge"], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "out" / "mine.txt").unlink()
    export(runs["ridge"], tmp_path / "out")
    with pytest.raises(RunError, match="must be a new or empty folder"):
        export(runs["ridge"], tmp_path / "out")


def test_a_failure_leaves_nothing(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_manifest", fail)
    with pytest.raises(RunError, match=r"out must be writable; No space left on device"):
        export(runs["ridge"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_and_what_is_none_are_refused(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs["network"], tmp_path / "run")
    (tmp_path / "run" / "DONE").unlink()
    with pytest.raises(RunError, match="must hold a finished run; it has no DONE file"):
        export(tmp_path / "run", tmp_path / "out")
    with pytest.raises(RunError, match="must be a run folder"):
        export(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_is_no_run_to_export_resume_or_replace(runs: Runs, data: Path, tmp_path: Path) -> None:
    export(runs["ridge"], tmp_path / "out")
    with pytest.raises(RunError, match=r"it is an export\. Copy the folder"):
        export(tmp_path / "out", tmp_path / "again")
    for way in ({"resume": True}, {"force": True}, {}):
        with pytest.raises(RunError, match="must be empty or a run; it holds an exported model"):
            tailbind.train(data, recipe="ridge", out=tmp_path / "out", device="cpu", **way)
    assert load(tmp_path / "out").checkpoint.recipe_name == "ridge"


def test_a_recipe_that_is_not_the_model_s_is_told(runs: Runs, tmp_path: Path) -> None:
    export(runs["ridge"], tmp_path / "out")
    shutil.copy(runs["source mean"] / "config.json", tmp_path / "out" / "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json must be as it was exported"):
        load(tmp_path / "out")


@pytest.mark.parametrize("absent", ["onnxruntime", "onnxscript"])
def test_without_the_packages_of_onnx_all_else_is_exported(
    absent: str, runs: Runs, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    done = export(runs["network"], tmp_path / "out")
    assert done.no_graph == f"{absent} not installed (pip install 'tailbind[export]')"
    assert "model.onnx" not in (tmp_path / "out" / "README.md").read_text()
    assert tailbind.predict(tmp_path / "out", data).equals(tailbind.predict(runs["network"], data))


def test_without_safetensors_it_is_one_line(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert main(["export", str(runs["ridge"]), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "An exported model needs the package safetensors; it is not installed" in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_was_written_is_told(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(runs["ridge"]), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'out'}: README.md, model.safetensors, model.json, config.json,")
    assert lines[1] == "No model.onnx: the model is no network by itself."
    assert lines[2] == "Before you share it, fill in what README.md leaves open: licence, citation, contact."
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~umask
