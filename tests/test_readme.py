"""What the README shows works: its code runs, its commands are understood, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from tailbind.cli import app
from tailbind.recipes import load_recipe
from tailbind.workflows.plan import resolve

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "runs" / "v2" / "DONE").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_verbs_recipes_and_options_in_the_pages_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    verbs = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    shown = "\n".join(re.findall(r"```console\n(.*?)```", text, re.S)) + "\n".join(
        re.findall(r"`(tailbind [^`]*)`", text)
    )
    assert set(re.findall(r"^(?:\$ )?tailbind ([a-z]+)", shown, re.M)) <= verbs
    for recipe in re.findall(r"--recipe (v[\w-]+)", text):
        load_recipe(recipe)
    for option in re.findall(r"`--set ([^`]+)`", text):
        if "=" in option and not re.search(r"[A-Z…]|section.key", option):
            for one in shlex.split(option.replace("--set", "")):
                kind = {"gamma": ["loss.kind=focal"], "column": ["split.kind=group"]}.get(
                    one.split(".")[1].split("=")[0], []
                )
                resolve(load_recipe("v3" if one.startswith("parts.") else "v2", [*kind, one]))


def test_the_options_table_covers_the_notebook_s_settings() -> None:
    for setting in (
        "USE_FOCAL_LOSS",
        "EPOCHS",
        "BATCH_SIZE",
        "LEARNING_RATE",
        "dropout",
        "weight_decay",
        "hidden_dims",
    ):
        assert re.search(rf"^\| `{setting}.*--set", README, re.M), setting
