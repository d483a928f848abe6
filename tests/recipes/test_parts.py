"""The parts of a blend in recipes: in files, on the command line, and printed."""

import re
from pathlib import Path
from typing import Any

import pytest

from tailbind.cli import main
from tailbind.errors import RecipeError
from tailbind.recipes import load_recipe
from tailbind.recipes.schema import parse_override
from tailbind.workflows.plan import AS_BOUNDS, AS_MEASURED, LEFT_OUT, Plan, resolve

BLEND = """
description = "A network and a ridge."

[features.columns]

[features.composition]

[split]
kind = "pair"

[model]
kind = "blend"
tail_share = 0.3

[training]
seed = 7

[parts.network]
recipe = "v2"
blocks = ["columns"]

[parts.network.model]
hidden_dims = [8]

[parts.linear]
recipe = "ridge"
fewest_rows = 50

[parts.mean]
recipe = "training-mean"
largest_family = 20
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for recipe files, with one of a blend, and the working directory."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "mine.toml", BLEND)
    return tmp_path


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def blend(*changes: str) -> Plan:
    return resolve(load_recipe("mine.toml", changes))


@pytest.mark.usefixtures("folder")
def test_a_part_is_its_recipe_on_the_blend_s_split_and_blocks_with_its_seed() -> None:
    plan = blend()
    assert list(plan.parts) == ["network", "linear", "mean"]
    assert plan.model.tail_share == 0.3
    network, linear, mean = plan.parts.values()
    assert network.plan.model.hidden_dims == (8,)
    assert network.plan.loss == resolve(load_recipe("v2")).loss
    assert network.blocks == ("columns",)
    assert linear.blocks == mean.blocks == ("columns", "composition")
    assert (linear.scope.fewest_rows, mean.scope.largest_family) == (50, 20)
    for part in plan.parts.values():
        assert part.plan.split is not plan.split
        assert part.plan.split == plan.split
        assert part.plan.training.seed == 7
        assert set(part.plan.features) == set(part.blocks)
    assert {part.plan.training.seed for part in blend("training.seed=9").parts.values()} == {9}


@pytest.mark.usefixtures("folder")
def test_a_part_is_changed_left_out_and_added_by_overrides() -> None:
    plan = blend("parts.network.model.hidden_dims=[4, 2]", "parts.network.training.epochs=3")
    assert plan.parts["network"].plan.model.hidden_dims == (4, 2)
    assert plan.parts["network"].plan.training.epochs == 3  # type: ignore[union-attr]
    assert list(blend("parts.network=false").parts) == ["linear", "mean"]
    assert blend('parts.linear.blocks=["composition"]').parts["linear"].blocks == ("composition",)
    assert blend("parts.mean.largest_family=5").parts["mean"].scope.largest_family == 5
    more = blend("parts.near.recipe=nearest-neighbour", "parts.near.model.k=3")
    assert list(more.parts) == ["network", "linear", "mean", "near"]
    assert more.parts["near"].plan.model.k == 3


@pytest.mark.usefixtures("folder")
def test_another_recipe_takes_the_place_of_a_part_s_own() -> None:
    part = blend("parts.linear.recipe=nearest-neighbour").parts["linear"]
    assert part.plan.kinds["model"] == "nearest_neighbour"
    assert part.scope.fewest_rows == 50, "what is said of it as a part stays"


def test_a_blend_is_extended(folder: Path) -> None:
    write(folder, "child.toml", 'extends = "mine.toml"\n[parts]\nlinear = false\n[parts.mean]\nlargest_family = 3\n')
    plan = resolve(load_recipe("child.toml"))
    assert list(plan.parts) == ["network", "mean"]
    assert plan.parts["mean"].scope.largest_family == 3
    assert plan.parts["network"].plan.model.hidden_dims == (8,)


def test_a_part_s_file_is_beside_the_file_that_names_it(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    write(folder / "b", "small.toml", 'extends = "base.toml"\n[model]\nhidden_dims = [3]\n')
    write(folder / "b", "base.toml", 'extends = "v1"\n[training]\nepochs = 2\n')
    write(folder / "b", "blend.toml", BLEND.replace('recipe = "v2"', 'recipe = "small.toml"'))
    write(folder / "a", "child.toml", 'extends = "../b/blend.toml"\n[parts.own]\nrecipe = "own.toml"\n')
    write(folder / "a", "own.toml", 'extends = "ridge"\n[model]\nalphas = [5.0]\n')
    write(folder, "here.toml", 'extends = "ridge"\n[model]\nalphas = [7.0]\n')
    plan = resolve(load_recipe(folder / "a" / "child.toml", ["parts.linear.recipe=here.toml"]))
    assert plan.parts["network"].plan.training.epochs == 2  # type: ignore[union-attr]
    assert plan.parts["own"].plan.model.alphas == (5.0,)
    assert plan.parts["linear"].plan.model.alphas == (7.0,), "the command line's is where the command is run"


def test_a_part_may_state_itself(folder: Path) -> None:
    write(folder, "plain.toml", BLEND + '[parts.plain.model]\nkind = "ridge"\nalphas = [2.0]\n')
    assert resolve(load_recipe("plain.toml")).parts["plain"].plan.model.alphas == (2.0,)


@pytest.mark.parametrize("changes", [(), ("parts.network.loss.kind=mse", "parts.linear.loss.weights=inverse")])
def test_a_printed_blend_reads_back_the_same(
    changes: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "near.toml", 'extends = "nearest-neighbour"\n[model]\nk = 3\n')
    options = [word for change in (*changes, "parts.near.recipe=near.toml") for word in ("--set", change)]
    assert main(["recipes", "mine.toml", *options]) == 0
    printed = capsys.readouterr().out
    (folder / "printed").mkdir()  # where near.toml is not
    plan = resolve(load_recipe(write(folder / "printed", "mine.toml", printed)))
    assert plan == blend(*changes, "parts.near.recipe=near.toml")
    assert plan.toml() + "\n" == printed


@pytest.mark.usefixtures("folder")
def test_the_document_has_every_default_of_every_part_once() -> None:
    document: Any = blend().document()
    assert set(document) == {"name", "description", "features", "split", "model", "training", "calibration", "parts"}
    assert set(document["parts"]["linear"]) == {
        "blocks", "fewest_rows", "most_rows", "largest_family", "model", "loss", "training"
    }  # fmt: skip
    assert {"optimizer", "schedule"} <= set(document["parts"]["network"])
    assert "seed" not in document["parts"]["network"]["training"]
    assert document["parts"]["network"]["optimizer"]["weight_decay"] == 1e-4


@pytest.mark.usefixtures("folder")
def test_what_a_blend_does_with_marked_labels_is_what_its_parts_do() -> None:
    assert blend().marked_labels == AS_MEASURED
    assert not blend().takes_bounds
    bounded = blend("parts.network.recipe=v2-tobit")
    assert (bounded.marked_labels, bounded.takes_bounds) == (AS_BOUNDS, True)
    process = ("parts.linear.recipe=gaussian-process", "parts.linear.model.bounds=drop")
    assert blend(*process).marked_labels == AS_MEASURED, "the others still fit them"
    assert blend(*process, "parts.network=false", "parts.mean=false").marked_labels == LEFT_OUT


# --- what cannot be -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("parts.network=true", r"--set must be parts\.NAME\.section\.key=value, .* or parts\.NAME=false here; got"),
        ("parts.network.model=3", r"--set must be parts\.NAME\.section\.key=value"),
        ("parts.network.features.columns.pca=3", r"--set must be parts\.NAME\.section\.key=value"),
        ("parts=3", r"--set must be section\.key=value"),
        ("part.network.model.dropout=0", r"there is no section 'part'; did you mean 'parts'"),
        ("parts.netwrok.model.dropout=0", r"parts\.netwrok must say which recipe .*; did you mean 'network'\?"),
        ("parts.netwrok=false", r"parts\.netwrok = false must leave out a part .*; did you mean 'network'\?"),
        ("parts.network.modle.dropout=0", r"parts\.network\.modle is nothing that a part has; did you mean 'model'"),
        ("parts.network.split.kind=pair", r"parts\.network\.split must be left out; parts share the split of"),
        ("parts.network.blocks=columns", r"parts\.network\.blocks must be a list of feature blocks, .* got 'columns'"),
        ("parts.network.training.seed=3", r"parts\.network\.training\.seed must be left out; training\.seed of the"),
        ("parts.network.recipe=v200", r"Recipe 'v200' does not exist; "),
        ("parts.network.recipe=gone.toml", r"Recipe gone\.toml must be a TOML file; there is none"),
        ("parts.network.recipe=mine.toml", r"parts\.network\.recipe must be a recipe of one model; mine is a blend"),
        ("parts.a b.recipe=ridge", r"parts\.a b must be named by letters, digits, _ and - alone; rename it"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_part_that_cannot_be_written_so_is_told(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe("mine.toml", [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["parts.network.model.dropuot=0"], r"parts\.network: model\.dropuot is not an option .* 'dropout'"),
        (["parts.network.model.dropout=2"], r"parts\.network: model\.dropout must be at least 0 and below 1; got 2"),
        (["parts.linear.training.epochs=2"], r"parts\.linear: Recipe linear: ridge .*training\.epochs has no effect"),
        (["parts.network.model.kind=blend"], r"parts\.network\.model\.kind must be a model of its own; a blend cannot"),
        (['parts.network.blocks=["colums"]'], r"parts\.network\.blocks must name .*'colums': did you mean 'columns'"),
        (["parts.network.fewest_rows=-1"], r"parts\.network\.fewest_rows must be at least 0; got -1"),
        (["parts.network.largest_family=x"], r"parts\.network\.largest_family must be a whole number; got 'x'"),
        (
            ["training.epochs=3"],
            r"training\.epochs belongs to the parts.* network, which has it, .* parts\.network\.training\.epochs=…",
        ),
        (["loss.kind=mse"], r"loss belongs to the parts of a blend.* --set parts\.network\.loss\.kind=…"),
        (
            ["training.epochs=3", "parts.second.recipe=v1"],
            r"Say it of one that has it \(network, second\), as in --set parts\.network\.training\.epochs=…",
        ),
        (["training.epochs=3", "parts.network=false"], r"None of its parts learns in epochs; leave it out"),
        (
            ["loss.kind=mse", "parts.network=false"],
            r"one that has it \(linear, mean\), as in --set parts\.linear\.loss",
        ),
        (["optimizer.lr=1"], r"optimizer belongs to the parts of a blend"),
        (["model.folds=2"], r"model\.folds must be at least 3 and at most 100; got 2"),
        (["model.kind=ridge"], r"Recipe mine must have parts, .* and only there; it has 3 and model\.kind = 'ridge'"),
        (["parts.network=false", "parts.linear=false", "parts.mean=false"], r"must have parts.*it has 0 and .*'blend'"),
        (["parts.network=false", "parts.linear=false"], r"must have a part with a say about every row; all 1 have a"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_blend_that_cannot_be_is_told(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        blend(*overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parts = 3", r"Recipe bad: parts must be a section, \[parts\]; got 3"),
        ("[parts]\nnetwork = 'v2'", r"parts\.network must be a section, \[parts\.network\], or false .*; got 'v2'"),
        ("[parts.network]\nmodel = 3", r"parts\.network\.model must be a section, \[parts\.network\.model\]; got 3"),
        ("[parts.network]\nblocks = [1]", r"parts\.network\.blocks must be a list of feature blocks, .*got \[1\]"),
        ("[parts.network]\n[parts.network.model]\ndropout = 0.1", r"parts\.network must say which recipe it is"),
        ("[parts.me]\nrecipe = 'bad.toml'", r"parts\.me\.recipe must be a recipe of one model; bad is a blend itself"),
        ("[parts.'a.b']\nrecipe = 'v2'", r"parts\.a\.b must be named by letters"),
    ],
)
def test_a_file_of_parts_that_is_none_is_told(text: str, message: str, folder: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(folder, "bad.toml", text))


def test_an_override_of_a_part_is_read() -> None:
    assert parse_override("parts.a.model.k=3") == {"parts": {"a": {"model": {"k": 3}}}}
    assert parse_override("parts.a=false") == {"parts": {"a": False}}
    assert parse_override("parts.a.recipe=v2") == {"parts": {"a": {"recipe": "v2"}}}


def test_the_page_s_example_is_a_recipe(folder: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    (example,) = [text for text in re.findall(r"```toml\n(.*?)```", page, re.S) if text.startswith("# my-blend.toml")]
    changes = ["parts.network.training.epochs=8", "parts.mean=false", "parts.near.recipe=nearest-neighbour"]
    plan = resolve(load_recipe(write(folder, "my-blend.toml", example), changes))
    assert list(plan.parts) == ["network", "linear", "near"]
