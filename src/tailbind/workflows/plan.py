"""A recipe resolved: every section's component built from its options, every default filled in."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tailbind.errors import RecipeError, nearest
from tailbind.evaluation.calibration import Calibration
from tailbind.features import FEATURES
from tailbind.features.contract import Block
from tailbind.models import MODELS
from tailbind.models.contract import ClosedForm
from tailbind.options import Registry, bounded, read_options
from tailbind.recipes.schema import PARTS, SECTIONS, SHARED, Part, Recipe, Section
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
#: Sections that say how epochs are gone through: a model that learns without them has none.
OF_EPOCHS: Final = ("optimizer", "schedule")
#: What training may do with labels marked < or >.
AS_BOUNDS, AS_MEASURED, LEFT_OUT = "taken_as_bounds", "fitted_as_measured", "left_out"
#: What a closed-form model learns by where its recipe says nothing else.
SQUARED_ERROR: Final = Section("mse", {"weights": "none"})
#: The model that is put together from parts.
BLEND: Final = "blend"


@dataclass(frozen=True)
class SeedOptions:
    """Options of the training of a model without epochs.

    Attributes
    ----------
    seed : of whatever in it is random
    """

    seed: int = bounded(42, low=0, high=2**32 - 1)


@dataclass(frozen=True)
class Scope:
    """When a part of a blend learns, and about which rows it has a say.

    Attributes
    ----------
    fewest_rows, most_rows : it is left out where there are fewer training rows, or more; 0 for no limit
    largest_family : it learns from, and has a say about, rows of families with at most so many training rows; 0 for all
    """

    fewest_rows: int = bounded(0, low=0)
    most_rows: int = bounded(0, low=0)
    largest_family: int = bounded(0, low=0)


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes
    ----------
    name, description : the recipe's
    kinds : section → registered name of its component; feature blocks under `features.BLOCK`
    features : block name → its options
    split, model, loss, optimizer, schedule : the components; no optimizer and no schedule where there are no epochs
    training : options of the loop; the seed alone where there is none
    calibration : of intervals
    parts : what a blend is put together from, by name; empty for any other model
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
    training: TrainingOptions | SeedOptions
    calibration: Calibration = dataclasses.field(default_factory=Calibration)
    parts: Mapping[str, "PartPlan"] = dataclasses.field(default_factory=dict)

    @property
    def is_closed_form(self) -> bool:
        """Whether the model learns in one call, without epochs."""
        return isinstance(self.model, ClosedForm)

    @property
    def takes_bounds(self) -> bool:
        """Whether a label marked < or > is taken as a bound, or fitted as if measured."""
        if self.parts:
            return any(part.plan.takes_bounds for part in self.parts.values())
        return bool(self.model.takes_bounds if self.is_closed_form else self.loss.takes_bounds)

    @property
    def marked_labels(self) -> str:
        """What training does with labels marked < or >: `AS_BOUNDS`, `AS_MEASURED` or `LEFT_OUT`.

        Of a blend, what one of its parts does, the first of these that any does.
        """
        if self.parts:
            ways = {part.plan.marked_labels for part in self.parts.values()}
            return next(way for way in (AS_BOUNDS, AS_MEASURED, LEFT_OUT) if way in ways)
        if getattr(self.model, "leaves_out_bounds", False):
            return LEFT_OUT
        return AS_BOUNDS if self.takes_bounds else AS_MEASURED

    @property
    def reads_residues(self) -> bool:
        """Whether the model reads residues one by one; columns alone otherwise."""
        if self.parts:
            return any(part.plan.reads_residues for part in self.parts.values())
        return bool(getattr(self.model, "reads_residues", False))

    def makes_folds(self, n_train: int) -> bool:
        """Whether, with so many training rows, a blend predicts them out of fold."""
        return bool(self.parts) and n_train <= self.model.folds_up_to

    def refits(self, n_train: int) -> bool:
        """Whether, with so many training rows, validation rows are learned from once they have chosen."""
        return self.makes_folds(n_train) and bool(self.model.refit)

    @property
    def feature_kinds(self) -> dict[str, str]:
        """Block name → registered kind."""
        return {name: self.kinds[f"features.{name}"] for name in self.features}

    def document(self) -> dict[str, Any]:
        """Return the recipe with every default written out, as `config.json` and the checkpoints hold it."""

        def options(component: Any) -> dict[str, Any]:
            values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(component)))
            return values

        document = {
            "name": self.name,
            "description": self.description,
            "features": {
                name: {"kind": self.kinds[f"features.{name}"], **options(block)}
                for name, block in self.features.items()
            },
            **{
                name: {"kind": self.kinds[name], **options(getattr(self, name))}
                for name in REGISTRIES
                if name in self.kinds
            },
            "training": options(self.training),
            "calibration": options(self.calibration),
        }
        if self.parts:
            document[PARTS] = {name: part.document() for name, part in self.parts.items()}
        return document

    def toml(self) -> str:
        """Return the document as a recipe file."""
        document = self.document()
        lines = [
            f"# {document.pop('name')}",
            f"description = {json.dumps(document.pop('description'), ensure_ascii=False)}",
        ]
        for block, values in document.pop("features").items():
            lines += ["", f"[features.{block}]", *_toml_lines(values)]
        parts = document.pop(PARTS, {})
        for section, values in document.items():
            lines += ["", f"[{section}]", *_toml_lines(values)]
        for name, values in parts.items():
            sections = {key: values.pop(key) for key, value in list(values.items()) if isinstance(value, dict)}
            lines += ["", f"[{PARTS}.{name}]", *_toml_lines(values)]
            for section, content in sections.items():
                lines += ["", f"[{PARTS}.{name}.{section}]", *_toml_lines(content)]
        return "\n".join(lines)


@dataclass(frozen=True)
class PartPlan:
    """One part of a blend.

    Attributes
    ----------
    plan : what it will do, on the blend's rows and its own choice among the blend's feature blocks
    blocks : names of these blocks
    scope : when it learns, and about which rows it has a say
    """

    plan: Plan
    blocks: tuple[str, ...]
    scope: Scope

    def document(self) -> dict[str, Any]:
        """Return what the blend's document says of it: all but features and split, which are the blend's."""
        document = self.plan.document()
        own: dict[str, Any] = {key: document[key] for key in SECTIONS if key in document and key not in SHARED}
        own["training"].pop("seed")
        return {"blocks": list(self.blocks), **dataclasses.asdict(self.scope), **own}


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
    components: dict[str, Any] = dict.fromkeys(REGISTRIES)
    at_once = _learns_at_once(recipe)
    _check_parts(recipe)
    for name, registry in REGISTRIES.items():
        if at_once and name in (*OF_EPOCHS, *(["loss"] if recipe.parts else [])):
            continue
        section = recipe.sections.get(name, Section())
        if at_once and name == "loss":
            values = {**SQUARED_ERROR.values, **section.values}
            section = Section(section.kind or SQUARED_ERROR.kind, values, section.inherited)
        if not section.kind:
            raise RecipeError(
                f"Recipe {recipe.name} must say [{name}] kind = …; it does not. Known: {', '.join(registry)}. "
                'Or begin with extends = "v2".'
            )
        kinds[name] = section.kind
        components[name] = _component(registry, section, name)
    if at_once and kinds["model"] != BLEND:
        _check_closed_form(kinds, components)
    loop = recipe.sections.get("training", Section())
    if loop.kind:
        raise RecipeError("training.kind is not an option of this recipe; [training] has no kinds.")
    options: type[SeedOptions | TrainingOptions] = SeedOptions if at_once else TrainingOptions
    training = read_options(options, loop.values, "training")
    intervals = recipe.sections.get("calibration", Section())
    if intervals.kind:
        raise RecipeError("calibration.kind is not an option of this recipe; [calibration] has no kinds.")
    calibration = read_options(Calibration, intervals.values, "calibration")
    plan = Plan(
        recipe.name, recipe.description, kinds, features, training=training, calibration=calibration, **components
    )
    parts = {name: _part(plan, recipe, name, part) for name, part in recipe.parts.items()}
    return dataclasses.replace(plan, parts=parts)


def _check_parts(recipe: Recipe) -> None:
    """Refuse parts of what is no blend, a blend without parts, and one that is silent about some rows."""
    kind, parts = recipe.sections.get("model", Section()).kind, recipe.parts
    if (kind == BLEND) != bool(parts):
        raise RecipeError(
            f'Recipe {recipe.name} must have parts, as in [parts.linear] recipe = "ridge", where model.kind is '
            f"{BLEND!r}, and only there; it has {len(parts)} and model.kind = {kind!r}."
        )
    if parts and all(part.scope.get("largest_family") for part in parts.values()):
        raise RecipeError(
            f"Recipe {recipe.name} must have a part with a say about every row; all {len(parts)} have a "
            "largest_family. Add one without, such as training-mean."
        )


def _part(plan: Plan, recipe: Recipe, name: str, part: Part) -> PartPlan:
    """Return what a part of a blend will do: its own recipe on the blend's split and blocks, with the blend's seed."""
    for block in part.blocks:
        if block not in recipe.features:
            raise RecipeError(
                f"parts.{name}.blocks must name feature blocks of {recipe.name}; there is no {block!r}: "
                f"{nearest(block, recipe.features)}."
            )
    blocks = part.blocks or tuple(recipe.features)
    features = {block: recipe.features[block] for block in blocks}
    sections = {**part.recipe.sections, "split": recipe.sections["split"]}
    sections.pop("calibration", None)
    loop = sections.get("training", Section())
    sections["training"] = dataclasses.replace(loop, values={**loop.values, "seed": plan.training.seed})
    if sections.get("model", Section()).kind == BLEND:
        raise RecipeError(f"parts.{name}.model.kind must be a model of its own; a blend cannot be part of another.")
    try:
        # Its name is the part's, whatever recipe it came from: a blend that is printed states its parts in full.
        own = resolve(Recipe(name, "", sections, features))
    except RecipeError as error:
        raise RecipeError(f"parts.{name}: {error}") from error
    return PartPlan(own, blocks, read_options(Scope, part.scope, f"parts.{name}"))


def _learns_at_once(recipe: Recipe) -> bool:
    """Return whether a recipe's model learns without epochs, having refused what would then have no effect."""
    kind = recipe.sections.get("model", Section()).kind
    if kind not in MODELS or not (kind == BLEND or hasattr(MODELS.load(kind), "fit")):
        return False
    idle = [name for name in (*OF_EPOCHS, *(["loss"] if kind == BLEND else [])) if name in recipe.sections]
    loop = recipe.sections.get("training", Section())
    idle += [f"training.{key}" for key in loop.values if key != "seed"]
    if idle and kind == BLEND:
        raise RecipeError(
            f"Recipe {recipe.name}: {idle[0]} belongs to the parts of a blend, not to the blend. "
            + _where_it_belongs(recipe, idle[0])
        )
    if idle:
        raise RecipeError(
            f"Recipe {recipe.name}: {kind} learns without epochs; {idle[0]} has no effect. Leave it out; where it is "
            "inherited, extend a recipe without it, such as ridge."
        )
    return True


def _where_it_belongs(recipe: Recipe, option: str) -> str:
    """Return of which parts of a blend an option can be said, as advice: that of epochs, of networks alone."""
    kinds = {name: part.recipe.sections.get("model", Section()).kind for name, part in recipe.parts.items()}
    in_epochs = [name for name, kind in kinds.items() if kind in MODELS and not hasattr(MODELS.load(kind), "fit")]
    parts = in_epochs if option != "loss" else in_epochs or list(kinds)
    if not parts:
        return "None of its parts learns in epochs; leave it out."
    example = f"--set parts.{parts[0]}.{option}{'' if '.' in option else '.kind'}=…"
    which = f"{parts[0]}, which has it" if len(parts) == 1 else f"one that has it ({', '.join(parts)})"
    return f"Say it of {which}, as in {example}."


def _check_closed_form(kinds: Mapping[str, str], components: Mapping[str, Any]) -> None:
    """Refuse a loss that a closed-form model cannot learn by, and weights that it cannot honour."""
    kind, model, loss = kinds["model"], components["model"], components["loss"]
    if kinds["loss"] not in model.losses:
        raise RecipeError(
            f"loss.kind must be {' or '.join(sorted(model.losses))} for {kind}; got {kinds['loss']!r}. "
            "Leave [loss] out for squared errors."
        )
    for key, neutral in (("weights", "none"), ("extreme_factor", 1.0)):
        if not model.takes_weights and getattr(loss, key) != neutral:
            raise RecipeError(
                f"loss.{key} must be {neutral} for {kind}, which weights no rows; got {getattr(loss, key)!r}. "
                "Leave it out."
            )


def _component(registry: Registry, section: Section, where: str) -> Any:
    component = registry.load(section.kind)
    known = {field.name for field in dataclasses.fields(component)}
    values = {key: value for key, value in section.values.items() if key in known or key not in section.inherited}
    return read_options(component, values, where)


def _toml_lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
