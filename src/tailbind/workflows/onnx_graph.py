"""A network and the columns it reads → one ONNX graph: the table's own columns in, pKd out."""

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tailbind.errors import RunError
from tailbind.features.columns import FittedColumns
from tailbind.features.pipeline import FeaturePipeline
from tailbind.models.contract import Predictive
from tailbind.models.network import Network
from tailbind.table.schema import AffinityTable, ReadingReport

#: Version of ONNX's operators that a graph is written in.
OPSET: Final = 18
PACKAGES: Final = ("onnx", "onnxruntime", "onnxscript")
INPUT: Final = "columns"
PKD, SD = "predicted_pkd", "predicted_sd"
#: How far a graph's predictions may be from the run's own, in pKd: single precision, added up in another order.
TOLERANCE: Final = 1e-4
_TRIED: Final = 64


class ColumnsNetwork(nn.Module):
    """A network that scales and reduces the table's columns itself.

    Parameters
    ----------
    block : fitted, the only one that the network reads
    network : on the CPU, whose members are in evaluation mode
    """

    def __init__(self, block: FittedColumns, network: Network) -> None:
        super().__init__()
        self.members = nn.ModuleList(network.members)
        self.mean: Tensor | None
        self.scale: Tensor | None
        self.centre: Tensor | None
        self.across: Tensor | None
        pca = block.reduction
        constants = {
            "mean": block.mean,
            "scale": block.scale,
            "centre": None if pca is None else pca.mean.astype(np.float64),
            "across": None if pca is None else pca.components.T.astype(np.float64),
        }
        for name, values in constants.items():
            self.register_buffer(name, None if values is None else torch.from_numpy(np.array(values, order="C")))

    def forward(self, columns: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return (n,) pKd of (n, n_columns), and the SD of members where there are several; nan for incomplete rows."""
        dense = columns
        if self.mean is not None and self.scale is not None:
            dense = (dense - self.mean) / self.scale
        if self.centre is not None and self.across is not None:
            dense = ((dense.double() - self.centre) @ self.across).float()
        complete = torch.isfinite(dense).all(dim=1)
        dense = torch.where(complete.unsqueeze(1), dense, torch.zeros_like(dense))
        outputs = torch.cat([member(dense) for member in self.members], dim=1).double()
        mean = outputs.mean(dim=1, keepdim=True)
        nothing = torch.full_like(mean.squeeze(1), float("nan"))
        pkd = torch.where(complete, mean.squeeze(1), nothing).float()
        if outputs.shape[1] == 1:
            return pkd
        sd = ((outputs - mean).square().sum(dim=1) / (outputs.shape[1] - 1)).sqrt()
        return pkd, torch.where(complete, sd, nothing).float()


def why_no_graph(pipeline: FeaturePipeline, model: Predictive) -> str:
    """Return why a model has no ONNX graph, "" where it has one."""
    if not isinstance(model, Network):
        return "the model is no network by itself"
    if not _block(pipeline):
        return "its features are not the table's own columns alone"
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        return f"{' and '.join(missing)} not installed (pip install 'tailbind[export]')"
    return ""


def write_graph(path: Path, pipeline: FeaturePipeline, network: Network) -> list[str]:
    """Write the graph of a network on the table's columns, and return the names of its outputs.

    It has one input, `columns`, (n, n_columns) float32 in the order of the property `columns` of its metadata.

    Raises
    ------
    RunError
        When the graph cannot be made, or ONNX Runtime does not predict from it what the run predicts.
    """
    import onnx

    block = _block(pipeline)
    assert block is not None
    module = ColumnsNetwork(block, network).eval()
    outputs = [PKD] if isinstance(module(torch.zeros(2, len(block.names))), Tensor) else [PKD, SD]
    example = torch.from_numpy(_example(block))
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (example,),
                input_names=[INPUT],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("rows", min=1)},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise RunError(
            f"{path.name} must be a graph that PyTorch {torch.__version__} can write; {str(error).splitlines()[0]} "
            "Export with another version of PyTorch, or without the packages of ONNX."
        ) from error
    assert program is not None
    model = program.model_proto
    for key, value in {"columns": json.dumps(list(block.names)), "unit": "pKd = -log10(Kd in mol/L)"}.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    _check(path, block, network, example.numpy(), outputs)
    return outputs


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Have PyTorch's exporter keep to itself what it calls that is deprecated, and which packages it does without."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _block(pipeline: FeaturePipeline) -> FittedColumns | None:
    """Return the block of table columns that is all there is of the features, None where there is more or another."""
    blocks = list(pipeline.blocks.values())
    return blocks[0] if len(blocks) == 1 and isinstance(blocks[0], FittedColumns) else None


def _example(block: FittedColumns) -> NDArray[np.float32]:
    """Return (64, n_columns) rows such as training's, one of them incomplete."""
    rows = np.random.default_rng(0).standard_normal((_TRIED, len(block.names)))
    if block.mean is not None and block.scale is not None:
        rows = rows * block.scale + block.mean
    elif block.reduction is not None:
        rows = rows + block.reduction.mean
    rows[-1, 0] = np.nan
    return rows.astype(np.float32)


def _check(path: Path, block: FittedColumns, network: Network, example: NDArray[np.float32], names: list[str]) -> None:
    """Hold what ONNX Runtime predicts from a graph against what features and network do; nan without features."""
    import onnxruntime

    report = ReadingReport((path.name,), len(example), {}, {}, ())
    features = block.transform(AffinityTable(pl.DataFrame(), example, block.names, report))
    complete = np.flatnonzero(features.complete)
    found = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(names, {INPUT: example})
    for name, by_graph, expected in zip(names, found, network.predict_with_sd(features, complete), strict=False):
        apart = float(np.abs(by_graph[complete] - expected).max())
        empty = np.isnan(np.delete(by_graph, complete)).all()
        if not (apart <= TOLERANCE and empty):
            raise RunError(
                f"{path.name} must predict what the run does; its {name} is {apart:.2g} apart. "
                "Export with another version of PyTorch or ONNX Runtime, or without the packages of ONNX."
            )
