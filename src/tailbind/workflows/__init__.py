"""The verbs, each a readable list of calls into the rooms below: check, train, compare, evaluate, predict, demo."""

from tailbind.workflows.checking import Check, check
from tailbind.workflows.comparing import compare
from tailbind.workflows.demonstrating import demo
from tailbind.workflows.laddering import Ladder, ladder
from tailbind.workflows.training import RunSummary, train
from tailbind.workflows.using import evaluate, predict

__all__ = ["Check", "Ladder", "RunSummary", "check", "compare", "demo", "evaluate", "ladder", "predict", "train"]
