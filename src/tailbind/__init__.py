"""tailbind predicts antibody-antigen affinity (pKd) and is right in the tails.

>>> import tailbind
>>> sorted(tailbind.__all__)
['RunSummary', 'TailbindError', 'compare', 'demo', 'embed', 'evaluate', 'load', 'predict', 'read_table', 'train']

The names are imported when first used, so `import tailbind` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tailbind.errors import TailbindError
    from tailbind.predictor import load
    from tailbind.table.reading import read_table
    from tailbind.workflows import RunSummary, compare, demo, embed, evaluate, predict, train

_HOMES = {
    "RunSummary": "tailbind.workflows",
    "TailbindError": "tailbind.errors",
    "compare": "tailbind.workflows",
    "demo": "tailbind.workflows",
    "embed": "tailbind.workflows",
    "evaluate": "tailbind.workflows",
    "load": "tailbind.predictor",
    "predict": "tailbind.workflows",
    "read_table": "tailbind.table.reading",
    "train": "tailbind.workflows",
}
__all__ = [
    "RunSummary",
    "TailbindError",
    "compare",
    "demo",
    "embed",
    "evaluate",
    "load",
    "predict",
    "read_table",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tailbind' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
