"""The verbs, each a readable list of calls into the rooms below: check, train, compare, predict, embed and others.

The names are imported when first used, so that `tailbind check` does not wait for what trains.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailbind.workflows.checking import Check, check
    from tailbind.workflows.comparing import compare
    from tailbind.workflows.demonstrating import demo
    from tailbind.workflows.embedding import Embedded, embed
    from tailbind.workflows.exporting import Exported, export
    from tailbind.workflows.laddering import Ladder, ladder
    from tailbind.workflows.predicting import Predicted, predict, write_predictions
    from tailbind.workflows.probing import Probe, probe
    from tailbind.workflows.retesting import evaluate
    from tailbind.workflows.scanning import Scan, scan
    from tailbind.workflows.training import RunSummary, train

_HOMES = {
    "Check": "checking",
    "Embedded": "embedding",
    "Exported": "exporting",
    "Ladder": "laddering",
    "Predicted": "predicting",
    "Probe": "probing",
    "RunSummary": "training",
    "Scan": "scanning",
    "check": "checking",
    "compare": "comparing",
    "demo": "demonstrating",
    "embed": "embedding",
    "evaluate": "retesting",
    "export": "exporting",
    "ladder": "laddering",
    "predict": "predicting",
    "scan": "scanning",
    "probe": "probing",
    "train": "training",
    "write_predictions": "predicting",
}
__all__ = [
    "Check",
    "Embedded",
    "Exported",
    "Ladder",
    "Predicted",
    "Probe",
    "RunSummary",
    "Scan",
    "check",
    "compare",
    "demo",
    "embed",
    "evaluate",
    "export",
    "ladder",
    "predict",
    "probe",
    "scan",
    "train",
    "write_predictions",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
