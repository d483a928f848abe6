"""The verbs, each a readable list of calls into the rooms below: train, compare, evaluate, predict, demo."""

from tailbind.workflows.comparing import compare
from tailbind.workflows.demonstrating import demo
from tailbind.workflows.training import RunSummary, train
from tailbind.workflows.using import evaluate, predict

__all__ = ["RunSummary", "compare", "demo", "evaluate", "predict", "train"]
