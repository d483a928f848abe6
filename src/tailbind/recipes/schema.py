"""Recipe files: which sections there are, how one extends another, how `--set` changes a key.

A recipe here is what was written; which components its `kind`s name, and their defaults, is resolved
where the registries are known. The only defaults are those of the components' dataclasses.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

from tailbind.errors import RecipeError, nearest

SECTIONS: Final = ("features", "split", "model", "loss", "optimizer", "schedule", "training")
#: Keys of a recipe file beside the sections.
HEADER: Final = ("description", "extends")
_MOST_ANCESTORS: Final = 8


@dataclass(frozen=True)
class Section:
    """One section as written: its kind, its options, and which of them a kind may not know.

    Attributes
    ----------
    kind : name of the component; "" where a recipe names none
    values : option → value
    inherited : options that came with another kind; where the present kind does not know them they fall away
    """

    kind: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    inherited: frozenset[str] = frozenset()

    def updated(self, changes: Mapping[str, Any]) -> "Section":
        """Return the section with `changes` laid over it; a new `kind` makes the older options optional."""
        options = {key: value for key, value in changes.items() if key != "kind"}
        kind = changes.get("kind", self.kind)
        if not isinstance(kind, str):
            raise RecipeError(f"kind must be text; got {kind!r}.")
        inherited = self.inherited if kind == self.kind else frozenset(self.values)
        return Section(kind, {**self.values, **options}, inherited - set(options))


@dataclass(frozen=True)
class Recipe:
    """A recipe as written, its ancestors and overrides merged.

    Attributes
    ----------
    name : names the run's files ("v2")
    description : one sentence
    sections : every section but the features
    features : feature blocks by name
    """

    name: str
    description: str = ""
    sections: Mapping[str, Section] = field(default_factory=dict)
    features: Mapping[str, Section] = field(default_factory=dict)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with tailbind.

    >>> {"v1", "v2"} <= set(recipe_names())
    True
    """
    folder = resources.files("tailbind.recipes")
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name_or_file: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe by name or from a TOML file, with `section.key=value` overrides applied.

    Raises
    ------
    RecipeError
        For an unknown recipe or section (naming the nearest), TOML that does not parse, or an override
        that is not `section.key=value`.

    Examples
    --------
    >>> load_recipe("v2", ["model.dropout=0.4"]).sections["model"].values["dropout"]
    0.4
    """
    name, document = _read(str(name_or_file))
    layers = [document]
    folder = Path(name_or_file).parent
    while extends := layers[-1].get("extends"):
        if len(layers) > _MOST_ANCESTORS:
            raise RecipeError(f"Recipe {name!r} extends itself by way of {extends!r}; break the circle.")
        base = Path(str(extends))
        if base.suffix == ".toml":  # beside the file that names it
            base = folder / base
            folder = base.parent
        layers.append(_read(str(base))[1])
    recipe = Recipe(name, str(document.get("description", "")))
    for layer in reversed(layers):
        recipe = _merged(recipe, layer)
    # All at once: what one --set states, another that changes the kind must not drop.
    changes: dict[str, Any] = {}
    for override in overrides:
        _lay_over(changes, parse_override(override))
    return _merged(recipe, changes)


def _lay_over(base: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = value


def parse_override(text: str) -> dict[str, Any]:
    """Return `section.key=value` as nested mappings; the value is TOML, or else plain text.

    >>> parse_override("model.hidden_dims=[256, 128]")
    {'model': {'hidden_dims': [256, 128]}}
    >>> parse_override("loss.kind=mse")
    {'loss': {'kind': 'mse'}}
    >>> parse_override("features.columns=false")
    {'features': {'columns': False}}
    >>> parse_override("features.descriptors=true")
    {'features': {'descriptors': True}}
    """
    path, equals, raw = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or len(keys) < 2 or not all(keys):
        raise RecipeError(f"--set must be section.key=value, as in model.dropout=0.4; got {text!r}.")
    if keys[0] not in SECTIONS:
        raise RecipeError(f"--set {text}: there is no section {keys[0]!r}; {nearest(keys[0], SECTIONS)}.")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    depth = 3 if keys[0] == "features" else 2
    if len(keys) != depth and not (keys[0] == "features" and len(keys) == 2 and isinstance(value, bool)):
        form = (
            "features.BLOCK.key=value, features.BLOCK=true or features.BLOCK=false"
            if depth == 3
            else "section.key=value"
        )
        raise RecipeError(f"--set must be {form} here; got {text!r}.")
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _read(name: str) -> tuple[str, dict[str, Any]]:
    """Return a recipe's name and its document, from a file or from those that come with tailbind."""
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise RecipeError(f"Recipe {name} must be a TOML file; there is none.")
        try:
            text, name = path.read_text(encoding="utf-8"), path.stem
        except (UnicodeDecodeError, OSError) as error:
            raise RecipeError(f"Recipe {name} must be readable as UTF-8 text; {error}.") from error
    elif name in recipe_names():
        text = (resources.files("tailbind.recipes") / f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise RecipeError(f"Recipe {name!r} does not exist; {nearest(name, recipe_names())}; or name a .toml file.")
    try:
        return name, _checked(tomllib.loads(text), name)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"Recipe {name} must be valid TOML; {error}.") from error


def _checked(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    for key, value in document.items():
        if key not in SECTIONS and key not in HEADER:
            raise RecipeError(f"Recipe {name}: there is no section {key!r}; {nearest(key, SECTIONS)}.")
        if key in SECTIONS and not isinstance(value, Mapping):
            raise RecipeError(f"Recipe {name}: {key} must be a section, [{key}]; got {value!r}.")
    for block, value in document.get("features", {}).items():
        if not isinstance(value, Mapping | bool):
            raise RecipeError(
                f"Recipe {name}: features.{block} must be a section, [features.{block}], true to take the block as it "
                f"is, or false to leave it out; got {value!r}."
            )
    return dict(document)


def _merged(recipe: Recipe, document: Mapping[str, Any]) -> Recipe:
    sections = dict(recipe.sections)
    features = dict(recipe.features)
    for key in SECTIONS:
        if key == "features":
            for block, changes in document.get(key, {}).items():
                if changes is not False:
                    options = {} if changes is True else changes
                    features[block] = features.get(block, Section(kind=block)).updated(options)
                elif features.pop(block, None) is None:
                    raise RecipeError(
                        f"features.{block} = false must leave out a block that there is; {nearest(block, features)}."
                    )
        elif key in document:
            sections[key] = sections.get(key, Section()).updated(document[key])
    return replace(recipe, sections=sections, features=features)
