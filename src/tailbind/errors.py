"""What tailbind raises when something outside it is wrong.

::

    Exception
    └── TailbindError        one line for the user; the command line exits with 2
        ├── RecipeError      a recipe: unknown name, key, kind or value
        ├── TableError       a table: unreadable, no labels, impossible values
        ├── SequenceError    sequences that cannot be compared, clustered or numbered here
        ├── FeatureError     features: absent, with gaps, not numbers
        ├── SplitError       a split that cannot keep its promise
        ├── CheckpointError  a checkpoint: truncated, foreign, of another version
        ├── RunError         a run folder: occupied, unfinished, not writable
        ├── TrainingError    training cannot go on: no such device, a loss that is not finite
        └── ServeError       a server cannot start: address taken, package missing, key unfit

Every message says what must hold, what was found (file, column, first rows) and what to do.
A programming mistake inside tailbind is not one of these and shows its traceback.
"""

import difflib
from collections.abc import Iterable


class TailbindError(Exception):
    """Something outside the program is wrong; the message is one line for the user."""


class RecipeError(TailbindError):
    """A recipe or an option of one is unknown or out of range."""


class TableError(TailbindError):
    """A table cannot be read as measured affinities."""


class SequenceError(TailbindError):
    """Sequences cannot be compared, clustered or numbered as asked, or not on this machine."""


class FeatureError(TailbindError):
    """The features a model needs are not in the table, or not usable."""


class SplitError(TailbindError):
    """A split cannot be made as asked."""


class CheckpointError(TailbindError):
    """A checkpoint is not what it should be."""


class RunError(TailbindError):
    """A run folder cannot be used as asked."""


class TrainingError(TailbindError):
    """Training cannot start or cannot go on."""


class ServeError(TailbindError):
    """A server cannot be started as asked."""


def nearest(word: str, choices: Iterable[str], label: str = "known") -> str:
    """Return a hint that names the choice most like `word`, and lists the choices under a label.

    >>> nearest("dropuot", ["dropout", "hidden_dims"])
    "did you mean 'dropout'? Known: dropout, hidden_dims"
    >>> nearest("zzz", ["a", "b"])
    'known: a, b'
    """
    known = sorted(choices)
    listing = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    by_lower = {choice.lower(): choice for choice in known}
    match = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return f"did you mean {by_lower[match[0]]!r}? {label.capitalize()}: {listing}" if match else f"{label}: {listing}"
