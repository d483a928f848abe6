"""A recipe resolved: every section's component built from its options, every default filled in."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tailbind.errors import RecipeError, nearest
from tailbind.features import FEATURES
from tailbind.features.contract import Block
from tailbind.models import MODELS
from tailbind.options import Registry, read_options
from tailbind.recipes.schema import Recipe, Section
from tailbind.table import SPLITS
from tailbind.training import LOSSES, OPTIMIZERS, SCHEDULES
from tailbind.training.stages import TrainingOptions

REGISTRIES: Final[Mapping[str, Registry]] = {
    "split": SPLITS,
    "model": MODELS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes
    ----------
    name, description : the recipe's
    kinds : section → registered name of its component; feature blocks under `features.BLOCK`
    features : block name → its options
    split, model, loss, optimizer, schedule : the components
    training : options of the loop
    """

    name: str
    description: str
    kinds: Mapping[str, str]
    features: Mapping[str, Block]
    split: Any
    model: Any
    loss: Any
    optimizer: Any
    schedule: Any
    training: TrainingOptions

    @property
    def feature_kinds(self) -> dict[str, str]:
        """Block name → registered kind."""
        return {name: self.kinds[f"features.{name}"] for name in self.features}

    def document(self) -> dict[str, Any]:
        """Return the recipe with every default written out, as `config.json` and the checkpoints hold it."""

        def options(component: Any) -> dict[str, Any]:
            values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(component)))
            return values

        return {
            "name": self.name,
            "description": self.description,
            "features": {
                name: {"kind": self.kinds[f"features.{name}"], **options(block)}
                for name, block in self.features.items()
            },
            **{name: {"kind": self.kinds[name], **options(getattr(self, name))} for name in REGISTRIES},
            "training": options(self.training),
        }

    def toml(self) -> str:
        """Return the document as a recipe file."""
        document = self.document()
        lines = [
            f"# {document.pop('name')}",
            f"description = {json.dumps(document.pop('description'), ensure_ascii=False)}",
        ]
        for block, values in document.pop("features").items():
            lines += ["", f"[features.{block}]", *_toml_lines(values)]
        for section, values in document.items():
            lines += ["", f"[{section}]", *_toml_lines(values)]
        return "\n".join(lines)


def resolve(recipe: Recipe) -> Plan:
    """Build every component that a recipe names.

    Raises
    ------
    RecipeError
        For a missing section, an unknown kind or key (naming the nearest), or a value out of range.
    """
    if not recipe.features:
        raise RecipeError(f"Recipe {recipe.name} must have a feature block, such as [features.columns]; it has none.")
    kinds: dict[str, str] = {}
    features = {}
    for name, section in recipe.features.items():
        kinds[f"features.{name}"] = section.kind
        if section.kind not in FEATURES:
            raise RecipeError(
                f"Recipe {recipe.name}: features.{name} must be a block of a known kind; there is no {section.kind!r}: "
                f"{nearest(section.kind, FEATURES)}."
            )
        features[name] = _component(FEATURES, section, f"features.{name}")
    components = {}
    for name, registry in REGISTRIES.items():
        section = recipe.sections.get(name, Section())
        if not section.kind:
            raise RecipeError(
                f"Recipe {recipe.name} must say [{name}] kind = …; it does not. Known: {', '.join(registry)}. "
                'Or begin with extends = "v2".'
            )
        kinds[name] = section.kind
        components[name] = _component(registry, section, name)
    loop = recipe.sections.get("training", Section())
    if loop.kind:
        raise RecipeError("training.kind is not an option of this recipe; [training] has no kinds.")
    training = read_options(TrainingOptions, loop.values, "training")
    return Plan(recipe.name, recipe.description, kinds, features, training=training, **components)


def _component(registry: Registry, section: Section, where: str) -> Any:
    component = registry.load(section.kind)
    known = {field.name for field in dataclasses.fields(component)}
    values = {key: value for key, value in section.values.items() if key in known or key not in section.inherited}
    return read_options(component, values, where)


def _toml_lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
