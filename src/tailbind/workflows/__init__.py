"""The verbs, each a readable list of calls into the rooms below: check, train, compare, predict, embed and others."""

from tailbind.workflows.checking import Check, check
from tailbind.workflows.comparing import compare
from tailbind.workflows.demonstrating import demo
from tailbind.workflows.embedding import Embedded, embed
from tailbind.workflows.laddering import Ladder, ladder
from tailbind.workflows.training import RunSummary, train
from tailbind.workflows.using import evaluate, predict

__all__ = [
    "Check",
    "Embedded",
    "Ladder",
    "RunSummary",
    "check",
    "compare",
    "demo",
    "embed",
    "evaluate",
    "ladder",
    "predict",
    "train",
]
