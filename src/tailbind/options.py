"""Components described by options: strict reading of a mapping into a frozen dataclass, and registries.

A component (a split, a feature block, a model, a loss, an optimizer, a schedule) is a frozen dataclass
whose fields are its options and whose methods are its work. A registry names the components of one kind
by a lazy import path, so that listing them imports nothing heavy. Recipes are built from these two.
"""

import dataclasses
import importlib
import math
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from tailbind.errors import RecipeError, nearest

T = TypeVar("T")


def bounded(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Return a dataclass field for a number within stated bounds (`above` and `below` are exclusive)."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "above": above, "below": below})


def one_of(default: str | tuple[str, ...], choices: Collection[str]) -> Any:
    """Return a dataclass field for a word, or a list of words, from a fixed list."""
    return dataclasses.field(default=default, metadata={"choices": tuple(choices)})


def read_options(cls: type[T], values: Mapping[str, object], section: str) -> T:
    """Build the dataclass `cls` from `values`, refusing unknown keys, wrong types and values out of range.

    Parameters
    ----------
    cls : a dataclass type whose fields carry defaults
    values : option name → value, as read from TOML, JSON or the command line
    section : how the section is written in a recipe, for the message ("model", "features.columns")

    Raises
    ------
    RecipeError
        Naming the key (the nearest known one, if unknown), what it must be and what was found.

    Examples
    --------
    >>> @dataclasses.dataclass(frozen=True)
    ... class Drop:
    ...     rate: float = bounded(0.3, low=0, below=1)
    >>> read_options(Drop, {"rate": 0.4}, "model")
    Drop(rate=0.4)
    >>> read_options(Drop, {"rate": 1}, "model")
    Traceback (most recent call last):
    tailbind.errors.RecipeError: model.rate must be at least 0 and below 1; got 1.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    checked: dict[str, object] = {}
    for key, value in values.items():
        if key not in fields:
            raise RecipeError(f"{section}.{key} is not an option of this recipe; {nearest(key, fields)}.")
        where = f"{section}.{key}"
        checked[key] = _coerce(value, hints[key], where)
        _check_bounds(checked[key], fields[key].metadata, where)
    return cls(**checked)


def _coerce(value: object, hint: Any, where: str) -> object:
    """Return `value` as the annotated type, without guessing: 1 is a fine float, "1" is not."""
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if not isinstance(value, list | tuple):
            raise RecipeError(f"{where} must be a list, as in [512, 256]; got {value!r}.")
        return tuple(_coerce(element, item, where) for element in value)
    if isinstance(hint, types.UnionType):
        raise TypeError(f"{where}: options are plain types, not unions")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        words = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
        raise RecipeError(f"{where} must be {words[hint]}; got {value!r}.")
    return value


def _check_bounds(value: object, metadata: Mapping[str, Any], where: str) -> None:
    choices = metadata.get("choices")
    for item in value if isinstance(value, tuple) else (value,):
        if choices and item not in choices:
            raise RecipeError(f"{where} must be one of {', '.join(choices)}; got {item!r}.")
        if isinstance(item, float) and not math.isfinite(item):
            raise RecipeError(f"{where} must be finite; got {item}.")
    low, high, above, below = (metadata.get(key) for key in ("low", "high", "above", "below"))
    words = [
        f"{word} {bound:g}"
        for word, bound in (("at least", low), ("at most", high), ("above", above), ("below", below))
        if bound is not None
    ]
    for item in value if isinstance(value, tuple) else (value,):
        if not isinstance(item, int | float) or isinstance(item, bool):
            continue
        fits = (
            (low is None or item >= low)
            and (high is None or item <= high)
            and (above is None or item > above)
            and (below is None or item < below)
        )
        if not fits:
            raise RecipeError(f"{where} must be {' and '.join(words)}; got {item:g}.")


class Registry(Mapping[str, str]):
    """The components of one kind: a name for each and where to import it from.

    Parameters
    ----------
    section : the recipe section whose `kind` chooses among them ("model")
    entries : name → "package.module:Class"
    """

    def __init__(self, section: str, entries: Mapping[str, str]) -> None:
        self.section = section
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> str:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def load(self, name: str) -> type[Any]:
        """Import and return the component called `name`.

        Raises
        ------
        RecipeError
            When there is none, naming the nearest.
        """
        if name not in self._entries:
            raise RecipeError(f"{self.section}.kind {name!r} does not exist; {nearest(str(name), self._entries)}.")
        module, attribute = self._entries[name].split(":")
        component: type[Any] = getattr(importlib.import_module(module), attribute)
        return component
