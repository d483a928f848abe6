"""`tailbind export`: a finished run → a folder that loads anywhere, without a pickle in it."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tailbind import __version__
from tailbind.errors import RunError
from tailbind.export_folder import GRAPH, STATE, TENSORS, write_beside, write_manifest, write_model
from tailbind.models.network import Network
from tailbind.predictor import Predictor, load
from tailbind.reporting.card import bare_card, model_card
from tailbind.reporting.limits import file_name, without_folder
from tailbind.run_folder import CONFIG, MANIFEST, RunFolder, open_finished_run
from tailbind.runtime import cannot_write, check_empty, write_json, write_text
from tailbind.workflows.onnx_graph import INPUT, OPSET, why_no_graph, write_graph

CARD: Final = "README.md"
#: What each file of an export is, as its card says.
WHAT: Final[Mapping[str, str]] = {
    TENSORS: "every tensor and array of the model and of its features",
    STATE: "all else of them, and by name which tensor goes where",
    CONFIG: "the recipe, every default written out",
    "environment.json": "versions, device, seed; names and hash of the data",
    "metrics.json": "every figure of this card, for programs",
    MANIFEST: "SHA-256 of the files above; they are checked whenever the model is loaded",
}


#: What of the record of a run's environment names places on its machine, and what is left of each.
_OF_PATHS: Final[Mapping[str, Callable[[str], str]]] = {"overrides": without_folder, "data": file_name}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path : the folder
    files : names of its files, in order
    n_bytes : of all of them
    no_graph : why there is no ONNX graph, "" where there is one
    """

    path: Path
    files: tuple[str, ...]
    n_bytes: int
    no_graph: str


def export(run: str | Path, out: str | Path, *, notify: Callable[[str], None] = lambda _: None) -> Exported:
    """Write a finished run's best model as a folder to share: safetensors, JSON, the model card and, of some, ONNX.

    `tailbind predict`, `evaluate` and `tailbind.load` take the folder as they take a run, and predict the same, to the
    bit. It names the training's files without their folders. It is there whole or not at all.

    Parameters
    ----------
    run : run folder of a finished run
    out : new or empty folder
    notify : told what a receiver will miss, a sentence at a time

    Raises
    ------
    RunError, CheckpointError
        When the run is unfinished, damaged or an export itself; when the folder holds anything, or safetensors is not
        installed.
    """
    source, folder = open_finished_run(run), Path(out).resolve()
    if source.is_export:
        raise RunError(f"{source.path} must be a run that `tailbind train` wrote; it is an export. Copy the folder.")
    check_empty(folder)
    predictor = load(source.path, "cpu")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part") as temporary:
            made = Path(temporary) / folder.name
            made.mkdir()
            files, no_graph = _fill(made, source, predictor)
            n_bytes = sum((made / name).stat().st_size for name in files)
            if folder.exists():
                folder.rmdir()  # it is empty; not every system lets a folder take its place
            made.rename(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    for line in _missing(predictor):
        notify(line)
    return Exported(Path(out), files, n_bytes, no_graph)


def exported_lines(done: Exported) -> list[str]:
    """Return what was written, and what not, a sentence a line."""
    lines = [f"{done.path}: {', '.join(done.files)} ({done.n_bytes / 1e6:,.1f} MB)."]
    if done.no_graph:
        lines.append(f"No {GRAPH}: {done.no_graph}.")
    lines.append(f"Before you share it, fill in what {CARD} leaves open: licence, citation, contact.")
    return lines


def _fill(folder: Path, source: RunFolder, predictor: Predictor) -> tuple[tuple[str, ...], str]:
    """Write all files of an export; return their names, and why there is no graph among them."""
    files = [*write_model(folder, predictor.checkpoint), CONFIG]
    shutil.copyfile(source.config, folder / source.config.name)
    for path in source.for_prediction:
        files += write_beside(folder, path)
    if source.environment.exists():
        write_json(folder / source.environment.name, _portable(source.read_json(source.environment)))
        files.append(source.environment.name)
    if source.metrics.exists():
        shutil.copyfile(source.metrics, folder / source.metrics.name)
        files.append(source.metrics.name)
    outputs: list[str] = []
    if not (no_graph := why_no_graph(predictor.features, predictor.model)):
        assert isinstance(predictor.model, Network)
        outputs = write_graph(folder / GRAPH, predictor.features, predictor.model)
        files.append(GRAPH)
    checkpoint = predictor.checkpoint
    about: dict[str, Any] = {
        "tailbind": __version__,
        "recipe": checkpoint.recipe_name,
        "model": checkpoint.model_kind,
        **({"onnx": {"opset": OPSET, "input": INPUT, "outputs": outputs}} if outputs else {}),
    }
    write_manifest(folder, about, files)
    files.append(MANIFEST)
    write_text(folder / CARD, f"{_card(source)}\n{_files_section(files, outputs)}")
    return (CARD, *files), no_graph


def _card(source: RunFolder) -> str:
    """Return the run's model card, as its user may have filled it in; of an old run without one, a new one.

    Where files are missing, or their figures are not those that this tailbind writes, the new one is bare.
    """
    if source.model_card.exists():
        try:
            return source.model_card.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RunError(
                f"{source.model_card} must be UTF-8 text; byte {error.start + 1:,} is not. Save it as UTF-8."
            ) from error
    config = source.read_json(source.config)
    try:
        return model_card(source.read_json(source.metrics), config, source.read_json(source.environment))
    except (LookupError, TypeError, RunError):
        return bare_card(config)


def _files_section(files: list[str], outputs: list[str]) -> str:
    """Return what the folder holds, as the end of its card."""
    graph = (
        f"the network as an ONNX graph (opset {OPSET}): input `{INPUT}`, (n, n_columns) float32, the table's columns "
        f"as they are, in the order of the graph's metadata `columns`; outputs "
        f"{' and '.join(f'`{name}`' for name in outputs)}, (n,) float32, nan for a row with an empty column"
    )
    what = {**WHAT, GRAPH: graph}
    rows = [f"| `{name}` | {what.get(name, 'read when predicting')} |" for name in files]
    return "\n".join(["## The files of this folder", "", "| File | What |", "|---|---|", *rows, ""])


def _portable(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a run's environment without the folders of the machine it was trained on."""
    return {
        **environment,
        **({"recipe": file_name(environment["recipe"])} if "recipe" in environment else {}),
        **{key: [change(text) for text in environment[key]] for key, change in _OF_PATHS.items() if key in environment},
    }


def _missing(predictor: Predictor) -> list[str]:
    """Return what a receiver needs beside the folder."""
    return [
        f"Note: features.{name} reads an encoder, {encoder!r}, that is not in the folder; whoever predicts needs it."
        for name, options in predictor.features.options.items()
        if (encoder := getattr(options, "encoder", ""))
    ]
