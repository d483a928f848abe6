from pathlib import Path
from typing import Any

import pytest

from tailbind.errors import RecipeError
from tailbind.evaluation.calibration import Calibration
from tailbind.features import FEATURES
from tailbind.features.columns import Columns
from tailbind.models import MODELS
from tailbind.models.mlp import Mlp
from tailbind.options import Registry, read_options
from tailbind.recipes import load_recipe, recipe_names
from tailbind.recipes.schema import SECTIONS, Recipe, Section, parse_override
from tailbind.table import SPLITS
from tailbind.training import LOSSES, OPTIMIZERS, SCHEDULES
from tailbind.training.losses import FocalMse, Tobit, WeightedMse
from tailbind.training.schedule import Adam, AdamW, CosineRestarts, Plateau
from tailbind.training.stages import TrainingOptions
from tailbind.workflows.plan import resolve

REGISTRIES = {"split": SPLITS, "model": MODELS, "loss": LOSSES, "optimizer": OPTIMIZERS, "schedule": SCHEDULES}


def component(section: Section, registry: Registry, name: str) -> Any:
    """Return the component a section describes, inherited options that it does not know left out."""
    cls = registry.load(section.kind)
    known = cls.__dataclass_fields__
    values = {key: value for key, value in section.values.items() if key in known or key not in section.inherited}
    return read_options(cls, values, name)


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Return section → component."""
    parts = {name: component(recipe.sections[name], registry, name) for name, registry in REGISTRIES.items()}
    parts["training"] = read_options(TrainingOptions, recipe.sections["training"].values, "training")
    blocks = {name: component(block, FEATURES, f"features.{name}") for name, block in recipe.features.items()}
    return {**parts, "features": blocks}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for recipe files, and the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


# --- what comes with tailbind ------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_comes_with_tailbind_resolves(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description.endswith(".")
    plan = resolve(recipe)
    without = {"optimizer", "schedule"} if plan.is_closed_form else set()
    without |= {"optimizer", "schedule", "loss"} if plan.parts else set()
    assert set(plan.document()) == {"name", "description", *SECTIONS, *(["parts"] if plan.parts else [])} - without
    if not without:
        assert set(recipe.sections) == set(SECTIONS) - {"features", "calibration"}
        assert {**resolved(recipe), "features": plan.features, "calibration": Calibration()} == {
            name: getattr(plan, name) for name in SECTIONS
        }


def test_the_seeds_variants_are_there() -> None:
    variants = ("mse", "full", "two-stage", "ensemble", "overfitting", "underfitting", "small")
    assert {"v1", "v2", *(f"v2-{variant}" for variant in variants)} <= set(recipe_names())


def test_v1_is_as_the_seeds_state_it() -> None:
    v1 = resolved(load_recipe("v1"))
    assert v1["model"] == Mlp((256, 128), "relu", "default", batch_norm=True, dropout=0.3, members=1)
    assert v1["loss"] == WeightedMse(weights="inverse", extreme_factor=1.0)
    assert v1["optimizer"] == Adam(lr=1e-3, weight_decay=0.0)
    assert v1["schedule"] == Plateau(factor=0.5, patience=5, min_lr=0.0)
    assert v1["training"] == TrainingOptions(epochs=100, batch_size=128, clip_grad_norm=0.0, checkpoint_every=10)


def test_v2_is_as_the_seeds_state_it() -> None:
    v2 = resolved(load_recipe("v2"))
    assert v2["model"] == Mlp((512, 256, 128, 64), "gelu", "xavier_uniform", batch_norm=True, dropout=0.3, members=1)
    assert v2["loss"] == FocalMse(gamma=2.0, weights="inverse", extreme_factor=10.0)
    assert v2["optimizer"] == AdamW(lr=1e-4, weight_decay=1e-4)
    assert v2["schedule"] == CosineRestarts(t_0=20, t_mult=1, min_lr=1e-5)
    assert v2["training"] == TrainingOptions(epochs=100, batch_size=128, clip_grad_norm=1.0, checkpoint_every=10)


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_both_split_and_read_features_as_the_seeds_do(name: str) -> None:
    recipe = resolved(load_recipe(name))
    split = recipe["split"]
    assert type(split).__name__ == "RandomSplit"
    assert (split.seed, split.test_fraction, split.val_fraction) == (42, 0.15, 0.15)
    assert list(recipe["features"]) == ["columns"]
    assert not recipe["features"]["columns"].standardize
    assert recipe["training"].seed == 42
    assert recipe["training"].finetune_epochs == 0


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("v2-mse", {"loss": WeightedMse(weights="inverse", extreme_factor=10.0)}),
        ("v2-tobit", {"loss": Tobit(sigma=0.2, initial_sigma=1.0, weights="none", extreme_factor=1.0)}),
        ("v2-overfitting", {"model.dropout": 0.4, "optimizer.weight_decay": 1e-3, "model.hidden_dims": (256, 128, 64)}),
        ("v2-underfitting", {"model.hidden_dims": (1024, 512, 256, 128), "optimizer.lr": 3e-4, "training.epochs": 150}),
        ("v2-small", {"model.hidden_dims": (256, 128, 64), "training.batch_size": 64}),
        ("v2-ensemble", {"model.members": 5}),
        ("v2-full", {"features.columns.prefix": "esm2_dim_"}),
        ("v2-two-stage", {"training.finetune_epochs": 20}),
    ],
)
def test_variants_differ_from_v2_in_what_they_say_alone(name: str, changes: dict[str, Any]) -> None:
    flat, base = flattened(resolved(load_recipe(name))), flattened(resolved(load_recipe("v2")))
    if "loss" in changes:
        assert resolved(load_recipe(name))["loss"] == changes["loss"]
        flat = {key: value for key, value in flat.items() if not key.startswith("loss")}
        base = {key: value for key, value in base.items() if not key.startswith("loss")}
        changes = {}
    assert {key: value for key, value in flat.items() if base.get(key) != value} == changes
    assert set(flat) == set(base)


def flattened(sections: dict[str, Any]) -> dict[str, Any]:
    blocks = {f"features.{name}": block for name, block in sections["features"].items()}
    parts = {**{name: part for name, part in sections.items() if name != "features"}, **blocks}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in vars(part).items()}


# --- extends -----------------------------------------------------------------------------------------


def test_a_file_extends_a_recipe_by_name(folder: Path) -> None:
    path = write(folder, "mine.toml", 'extends = "v2-mse"\n[model]\ndropout = 0.1\n')
    recipe = load_recipe(path)
    assert recipe.name == "mine"
    parts = resolved(recipe)
    assert parts["model"].dropout == 0.1
    assert parts["model"].hidden_dims == (512, 256, 128, 64)
    assert parts["loss"] == WeightedMse(extreme_factor=10.0)


def test_a_file_extends_a_file(folder: Path) -> None:
    parent = write(folder, "parent.toml", 'extends = "v1"\n[training]\nepochs = 7\nbatch_size = 32\n')
    child = write(folder, "child.toml", f'extends = "{parent}"\n[training]\nepochs = 9\n')
    training = resolved(load_recipe(child))["training"]
    assert (training.epochs, training.batch_size) == (9, 32)


def test_a_file_beside_the_recipe_is_found_from_anywhere(folder: Path) -> None:
    (folder / "mine").mkdir()
    write(folder / "mine", "parent.toml", 'extends = "v1"\n[training]\nepochs = 7\n')
    child = write(folder / "mine", "child.toml", 'extends = "parent.toml"\n')
    assert resolved(load_recipe(child))["training"].epochs == 7


def test_the_description_is_the_recipes_own(folder: Path) -> None:
    assert load_recipe(write(folder, "a.toml", 'extends = "v2"\n')).description == ""


def test_an_inherited_block_is_left_out(folder: Path) -> None:
    child = write(
        folder, "child.toml", 'extends = "v2"\n[features]\ncolumns = false\n[features.sites]\nidentity = 0.8\n'
    )
    recipe = load_recipe(child)
    assert list(recipe.features) == ["sites"]
    assert recipe.features["sites"].values == {"identity": 0.8}
    grandchild = write(folder, "grandchild.toml", 'extends = "child.toml"\n[features.columns]\nstandardize = true\n')
    again = load_recipe(grandchild)
    assert list(again.features) == ["sites", "columns"]
    # Left out is forgotten: nothing of v2's own comes back.
    assert again.features["columns"].values == {"standardize": True}


def test_a_block_is_left_out_by_an_override() -> None:
    assert list(load_recipe("v2", ["features.columns=false", "features.sites.identity=0.8"]).features) == ["sites"]
    assert list(load_recipe("v2-sequence", ["features.composition=false"]).features) == ["sites"]
    last = load_recipe("v2", ["features.columns=false", "features.columns.prefix=e_"])
    assert last.features["columns"].values["prefix"] == "e_"
    with pytest.raises(RecipeError, match=r"must have a feature block, such as \[features\.columns\]; it has none"):
        resolve(load_recipe("v2", ["features.columns=false"]))


def test_the_recipe_from_sequences_prints_as_one_that_loads(folder: Path) -> None:
    plan = resolve(load_recipe("v2-sequence"))
    assert list(plan.features) == ["sites", "composition"]
    assert plan.kinds["split"] == "pair"
    assert not any(isinstance(block, Columns) for block in plan.features.values())
    printed = write(folder, "printed.toml", plan.toml())
    again = resolve(load_recipe(printed))
    assert {**again.document(), "name": ""} == {**plan.document(), "name": ""}
    v2 = resolve(load_recipe("v2")).document()
    for section in ("model", "loss", "optimizer", "schedule"):
        assert plan.document()[section] == v2[section]
    assert plan.document()["training"] == {**v2["training"], "start_at_mean": True}


def test_a_block_is_added_and_left_out_by_a_word() -> None:
    plan = resolve(load_recipe("v2-sequence", ["features.descriptors=true", "features.composition=false"]))
    assert list(plan.features) == ["sites", "descriptors"]
    kept = resolve(load_recipe("v2-sequence", ["features.sites=true", "features.sites.identity=0.8"]))
    assert kept.features["sites"].identity == 0.8


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_is_told(folder: Path, length: int) -> None:
    for number in range(length):
        write(folder, f"r{number}.toml", f'extends = "{folder}/r{(number + 1) % length}.toml"\n')
    with pytest.raises(RecipeError, match=r"Recipe 'r0' extends itself by way of '.*r\d\.toml'; break the circle"):
        load_recipe(str(folder / "r0.toml"))


# --- --set -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("model.dropout=0.4", ("model", "dropout"), 0.4),
        ("model.hidden_dims=[256, 128]", ("model", "hidden_dims"), [256, 128]),
        ("training.epochs=5", ("training", "epochs"), 5),
        ("optimizer.lr=3e-4", ("optimizer", "lr"), 3e-4),
        ("model.batch_norm=false", ("model", "batch_norm"), False),
        ("loss.kind=mse", ("loss", "kind"), "mse"),
        ('loss.kind="mse"', ("loss", "kind"), "mse"),
        ("split.column = database source ", ("split", "column"), "database source"),
        ("features.columns.prefix=esm2_dim_", ("features", "columns", "prefix"), "esm2_dim_"),
        ("features.columns.prefix=a=b", ("features", "columns", "prefix"), "a=b"),
    ],
)
def test_an_override_is_read_as_toml_or_as_text(text: str, path: tuple[str, ...], value: object) -> None:
    parsed: Any = parse_override(text)
    for key in path:
        assert list(parsed) == [key]
        parsed = parsed[key]
    assert parsed == value
    assert type(parsed) is type(value)


def test_overrides_apply_in_order_and_last() -> None:
    parts = resolved(load_recipe("v2-small", ["training.batch_size=32", "model.dropout=0.1", "model.dropout=0.2"]))
    assert parts["training"].batch_size == 32
    assert parts["model"].dropout == 0.2
    assert parts["model"].hidden_dims == (256, 128, 64)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.dropout", r"--set must be section\.key=value, as in model\.dropout=0\.4; got 'model\.dropout'"),
        ("dropout=0.4", r"--set must be section\.key=value, .*got 'dropout=0\.4'"),
        ("model.=1", r"--set must be section\.key=value"),
        ("modle.dropout=0.4", r"--set modle\.dropout=0\.4: there is no section 'modle'; did you mean 'model'\?"),
        ("model.a.b=1", r"--set must be section\.key=value here; got 'model\.a\.b=1'"),
        ("features.prefix=x", r"--set must be features\.BLOCK\.key=value, .* here; got 'features\.prefix=x'"),
        ("features.columns=0", r"features\.BLOCK=false here; got 'features\.columns=0'"),
        ("features=false", r"--set must be section\.key=value"),
        ("features.colums=false", r"features\.colums = false must leave out .* there is; did you mean 'columns'\?"),
    ],
)
def test_an_override_that_cannot_be_read_is_told(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("v2", [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.dropuot=0.4", r"model\.dropuot is not an option of this recipe; did you mean 'dropout'\?"),
        ("model.dropout=1.5", r"model\.dropout must be at least 0 and below 1; got 1\.5"),
        ("model.dropout=high", r"model\.dropout must be a number; got 'high'"),
        ("model.kind=mpl", r"model\.kind 'mpl' does not exist; did you mean 'mlp'\?"),
        ("model.activation=relo", r"model\.activation must be one of relu, gelu, silu; got 'relo'"),
        ("training.batch_size=1", r"training\.batch_size must be at least 2; got 1"),
        ('training.finetune_bins=["strongest"]', r"training\.finetune_bins must be one of very_weak, .*'strongest'"),
        ("split.seed=-1", r"split\.seed must be at least 0"),
        ("loss.gamma=-1", r"loss\.gamma must be at least 0 and at most 8; got -1"),
        (
            "features.columns.prefx=a",
            r"features\.columns\.prefx is not an option of this recipe; did you mean 'prefix'",
        ),
    ],
)
def test_an_unknown_key_or_value_is_told(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolved(load_recipe("v2", [override]))


# --- a change of kind --------------------------------------------------------------------------------


def test_another_kind_drops_the_options_it_does_not_know() -> None:
    assert resolved(load_recipe("v2", ["loss.kind=mse"]))["loss"] == WeightedMse(weights="inverse", extreme_factor=10.0)
    assert resolved(load_recipe("v2", ["schedule.kind=plateau"]))["schedule"] == Plateau(min_lr=1e-5)
    assert resolved(load_recipe("v1", ["optimizer.kind=adamw"]))["optimizer"] == AdamW(lr=1e-3, weight_decay=0.0)
    assert resolved(load_recipe("v2", ["split.kind=group"]))["split"].seed == 42


@pytest.mark.parametrize(
    "overrides", [["loss.kind=mse", "loss.gamma=3"], ["loss.gamma=3", "loss.kind=mse"]], ids=["after", "before"]
)
def test_an_option_that_was_asked_for_is_never_dropped(overrides: list[str]) -> None:
    with pytest.raises(RecipeError, match=r"loss\.gamma is not an option of this recipe; .*extreme_factor.*weights"):
        resolved(load_recipe("v2", overrides))


def test_an_option_that_a_file_states_is_never_dropped(folder: Path) -> None:
    path = write(folder, "a.toml", 'extends = "v2"\n[loss]\nkind = "mse"\ngamma = 3.0\n')
    with pytest.raises(RecipeError, match=r"loss\.gamma is not an option"):
        resolved(load_recipe(path))


def test_naming_the_kind_that_it_is_changes_nothing() -> None:
    assert resolved(load_recipe("v2", ["loss.kind=focal"])) == resolved(load_recipe("v2"))
    assert load_recipe("v2", ["loss.kind=focal"]).sections["loss"].inherited == frozenset()


def test_there_and_back_keeps_what_was_said() -> None:
    there_and_back = resolved(load_recipe("v2", ["loss.kind=mse", "loss.kind=focal"]))
    assert there_and_back["loss"] == FocalMse(gamma=2.0, weights="inverse", extreme_factor=10.0)


# --- files that cannot be read -----------------------------------------------------------------------


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"Recipe 'v2-ensembel' does not exist; did you mean 'v2-ensemble'\?.*\.toml"):
        load_recipe("v2-ensembel")


def test_a_recipe_file_that_is_not_there(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"Recipe .*gone\.toml must be a TOML file; there is none"):
        load_recipe(folder / "gone.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model\ndropout = 0.4", r"Recipe bad must be valid TOML; .*line 1"),
        ("[model]\ndropout = 0.4\ndropout = 0.5", r"Recipe bad must be valid TOML; Cannot overwrite a value"),
        ("[modle]\ndropout = 0.4", r"Recipe bad: there is no section 'modle'; did you mean 'model'\?"),
        ("epochs = 5", r"Recipe bad: there is no section 'epochs'; known: calibration, features, loss"),
        ("model = 5", r"Recipe bad: model must be a section, \[model\]; got 5"),
        (
            "[features]\nprefix = 'a'",
            r"Recipe bad: features\.prefix must be a section, \[features\.prefix\], true to take .*; got 'a'",
        ),
        ("[model]\nkind = 3", "kind must be text; got 3"),
        ("extends = 'v3000'", r"Recipe 'v3000' does not exist"),
    ],
)
def test_a_recipe_file_that_is_not_one(folder: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(folder, "bad.toml", text))


def test_a_recipe_file_that_is_not_utf_8(folder: Path) -> None:
    (folder / "bad.toml").write_bytes('description = "é"'.encode("latin-1"))
    with pytest.raises(RecipeError, match=r"bad"):
        load_recipe(folder / "bad.toml")
