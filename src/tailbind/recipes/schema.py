"""Recipe files: which sections there are, how one extends another, how `--set` changes a key.

A recipe here is what was written; which components its `kind`s name, and their defaults, is resolved
where the registries are known. The only defaults are those of the components' dataclasses.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

from tailbind.errors import RecipeError, nearest

SECTIONS: Final = ("features", "split", "model", "loss", "optimizer", "schedule", "training", "calibration")
#: Keys of a recipe file beside the sections. `parts` are the recipes whose models a blend puts together.
HEADER: Final = ("description", "extends")
PARTS: Final = "parts"
#: What a part may say of itself, beside the sections of the recipe that it takes over and changes.
OF_PART: Final = ("recipe", "blocks", "fewest_rows", "most_rows", "largest_family")
#: Sections that parts share: they learn from the same rows and features, and intervals are the blend's.
SHARED: Final = ("features", "split", "calibration")
_MOST_ANCESTORS: Final = 8
_PART_NAME: Final = re.compile(rf"{PARTS}\.[A-Za-z0-9_-]+")


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
    parts : what a blend is put together from, by name
    """

    name: str
    description: str = ""
    sections: Mapping[str, Section] = field(default_factory=dict)
    features: Mapping[str, Section] = field(default_factory=dict)
    parts: Mapping[str, "Part"] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One of the models of a blend.

    Attributes
    ----------
    recipe : what it is, its own or as the part's sections state it; features and split are the blend's
    blocks : names of the blend's feature blocks that it reads; all of them where empty
    scope : when it learns, and about which rows it has a say, as written
    """

    recipe: Recipe
    blocks: tuple[str, ...] = ()
    scope: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Layer:
    """What one recipe file states.

    Attributes
    ----------
    name : of the recipe
    document : as read
    folder : that the files it names are looked for in
    """

    name: str
    document: Mapping[str, Any]
    folder: Path


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
    recipe = _assembled(_layers(str(name_or_file)))
    # All at once: what one --set states, another that changes the kind must not drop.
    changes: dict[str, Any] = {}
    for override in overrides:
        _lay_over(changes, parse_override(override))
    return _merged(recipe, changes, Path())


def stated_recipe(document: Mapping[str, Any]) -> Recipe:
    """Return the recipe that a document states in full, such as a run's `config.json`.

    >>> stated_recipe({"name": "mine", "description": "", "model": {"kind": "ridge"}}).sections["model"].kind
    'ridge'
    """
    return _merged(Recipe(str(document["name"]), str(document["description"])), document, Path())


def _layers(name_or_file: str) -> list[_Layer]:
    """Return a recipe and what it extends, one after the other."""
    layers = [_read(name_or_file)]
    while extends := layers[-1].document.get("extends"):
        if len(layers) > _MOST_ANCESTORS:
            raise RecipeError(f"Recipe {layers[0].name!r} extends itself by way of {extends!r}; break the circle.")
        layers.append(_read(_beside(layers[-1].folder, str(extends))))
    return layers


def _assembled(layers: Sequence[_Layer]) -> Recipe:
    """Return the recipe that is the first layer laid over the others."""
    recipe = Recipe(layers[0].name, str(layers[0].document.get("description", "")))
    for layer in reversed(layers):
        recipe = _merged(recipe, layer.document, layer.folder)
    return recipe


def _beside(folder: Path, name_or_file: str) -> str:
    """Return a recipe as the file in `folder` that names it means it: a TOML file is beside that file."""
    return str(folder / name_or_file) if name_or_file.endswith(".toml") else name_or_file


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
    >>> parse_override("parts.trees.model.n_trees=100")
    {'parts': {'trees': {'model': {'n_trees': 100}}}}
    """
    path, equals, raw = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or len(keys) < 2 or not all(keys):
        raise RecipeError(f"--set must be section.key=value, as in model.dropout=0.4; got {text!r}.")
    if keys[0] not in (*SECTIONS, PARTS):
        raise RecipeError(f"--set {text}: there is no section {keys[0]!r}; {nearest(keys[0], (*SECTIONS, PARTS))}.")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    if form := _wrong_form(keys, value):
        raise RecipeError(f"--set must be {form} here; got {text!r}.")
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _wrong_form(keys: Sequence[str], value: object) -> str:
    """Return how an override that begins so should be written; "" where it is."""
    if keys[0] == PARTS:
        fits = len(keys) == 4 or (len(keys) == 3 and keys[2] in OF_PART) or (len(keys) == 2 and value is False)
        return "" if fits else "parts.NAME.section.key=value, parts.NAME.blocks=[…] or parts.NAME=false"
    if keys[0] == "features":
        fits = len(keys) == 3 or (len(keys) == 2 and isinstance(value, bool))
        return "" if fits else "features.BLOCK.key=value, features.BLOCK=true or features.BLOCK=false"
    return "" if len(keys) == 2 else "section.key=value"


def _read(name: str) -> _Layer:
    """Return a recipe as a file, or one of those that come with tailbind, states it."""
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
        return _Layer(name, _checked(tomllib.loads(text), name), path.parent)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"Recipe {name} must be valid TOML; {error}.") from error


def _checked(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    for key, value in document.items():
        if key not in (*SECTIONS, PARTS, *HEADER):
            raise RecipeError(f"Recipe {name}: there is no section {key!r}; {nearest(key, (*SECTIONS, PARTS))}.")
        if key in (*SECTIONS, PARTS) and not isinstance(value, Mapping):
            raise RecipeError(f"Recipe {name}: {key} must be a section, [{key}]; got {value!r}.")
    for block, value in document.get("features", {}).items():
        if not isinstance(value, Mapping | bool):
            raise RecipeError(
                f"Recipe {name}: features.{block} must be a section, [features.{block}], true to take the block as it "
                f"is, or false to leave it out; got {value!r}."
            )
    return dict(document)


def _merged(recipe: Recipe, document: Mapping[str, Any], folder: Path) -> Recipe:
    """Return the recipe with a document laid over it, which names files in `folder`."""
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
    parts = dict(recipe.parts)
    for name, changes in document.get(PARTS, {}).items():
        if changes is not False:
            parts[name] = _part(name, changes, parts, folder)
        elif parts.pop(name, None) is None:
            raise RecipeError(f"parts.{name} = false must leave out a part that there is; {nearest(name, parts)}.")
    return replace(recipe, sections=sections, features=features, parts=parts)


def _part(name: str, changes: object, parts: Mapping[str, Part], folder: Path) -> Part:
    """Return a part as its recipe, the part of that name before, and what is said beside it make it."""
    where = f"{PARTS}.{name}"
    before = parts.get(name)
    known = tuple(section for section in SECTIONS if section not in SHARED)
    said = _checked_part(where, changes, known)
    if "recipe" in said:
        layers = _layers(_beside(folder, str(said["recipe"])))
        if any(PARTS in layer.document for layer in layers):  # before they are merged: it may name itself
            raise RecipeError(f"{where}.recipe must be a recipe of one model; {layers[0].name} is a blend itself.")
        base = _assembled(layers)
    elif before:
        base = before.recipe
    elif "kind" in said.get("model", {}):
        base = Recipe(name)
    else:
        others = f"; {nearest(name, parts)}" if parts else ""
        raise RecipeError(f'{where} must say which recipe it is, as in recipe = "ridge"; it does not{others}.')
    scope = {**(before.scope if before else {}), **{key: said[key] for key in OF_PART[2:] if key in said}}
    blocks = tuple(said.get("blocks", before.blocks if before else ()))
    return Part(_merged(base, {key: said[key] for key in known if key in said}, folder), blocks, scope)


def _checked_part(where: str, changes: object, known: Sequence[str]) -> Mapping[str, Any]:
    """Return what is said of a part, having refused what cannot be said of one."""
    if not _PART_NAME.fullmatch(where):
        raise RecipeError(f"{where} must be named by letters, digits, _ and - alone; rename it.")
    if not isinstance(changes, Mapping):
        raise RecipeError(f"{where} must be a section, [{where}], or false to leave it out; got {changes!r}.")
    for key, value in changes.items():
        if key in SHARED:
            raise RecipeError(f"{where}.{key} must be left out; parts share the {key} of the recipe that blends them.")
        if key not in (*known, *OF_PART):
            raise RecipeError(f"{where}.{key} is nothing that a part has; {nearest(key, (*known, *OF_PART))}.")
        if key in known and not isinstance(value, Mapping):
            raise RecipeError(f"{where}.{key} must be a section, [{where}.{key}]; got {value!r}.")
    blocks = changes.get("blocks", ())
    if not isinstance(blocks, list | tuple) or not all(isinstance(block, str) for block in blocks):
        raise RecipeError(f'{where}.blocks must be a list of feature blocks, as in ["sites"]; got {blocks!r}.')
    if "seed" in changes.get("training", {}):
        raise RecipeError(f"{where}.training.seed must be left out; training.seed of the blend is that of its parts.")
    return changes
