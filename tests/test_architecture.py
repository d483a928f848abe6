"""Who may import whom: a line of the house may import only lines below it, and siblings never each other."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "tailbind"

#: From the top down; what shares a line are siblings.
HOUSE = (
    ("__main__",),
    ("cli",),
    ("server",),
    ("workflows",),
    ("reporting", "predictor"),
    ("export_folder",),
    ("training", "checkpoint", "run_folder"),
    ("models", "features"),
    ("evaluation", "table", "recipes"),
    ("sequences",),
    ("scale", "runtime", "options"),
    ("errors",),
)
LEVEL = {room: level for level, rooms in enumerate(HOUSE) for room in rooms}
FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms that a file imports, at its top or inside functions."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("tailbind.") and name.split(".")[1] in LEVEL}
    return rooms


def test_every_file_is_in_a_room_of_the_house() -> None:
    assert {room_of(path) for path in FILES} == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_only_go_down(path: Path) -> None:
    own = room_of(path)
    wrong = {room for room in imported_rooms(path) - {own} if LEVEL[room] <= LEVEL[own]}
    assert not wrong, f"{path.relative_to(SOURCE)} imports {wrong}"


@pytest.mark.parametrize("room", ["evaluation", "table", "recipes", "reporting", "scale", "options", "errors"])
def test_rooms_without_torch_import_none(room: str) -> None:
    for path in FILES:
        if room_of(path) == room:
            imports = [
                node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
            ]
            names = {alias.name for node in imports for alias in node.names} | {
                str(node.module) for node in imports if isinstance(node, ast.ImportFrom)
            }
            assert not any(name.split(".")[0] == "torch" for name in names), path


def test_sequences_load_nothing_heavy_before_it_is_used() -> None:
    heavy = {"torch", "anarcii", "pymmseqs", "rapidfuzz", "scipy", "platformdirs"}
    for path in FILES:
        if room_of(path) == "sequences":
            imports = [
                node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
            ]
            names = {alias.name for node in imports for alias in node.names} | {
                str(node.module) for node in imports if isinstance(node, ast.ImportFrom)
            }
            assert not {name.split(".")[0] for name in names} & heavy, path


def test_trees_load_lightgbm_when_they_are_grown() -> None:
    code = "import sys, tailbind.models.trees; print('lightgbm' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
    assert sorted(path.name for path in FILES if "import lightgbm" in path.read_text()) == [
        "calibration.py",
        "trees.py",
    ]


def test_only_the_command_line_parses_arguments_and_only_plots_draw() -> None:
    for path in FILES:
        text = path.read_text()
        assert not re.search(r"\b(import|from) typer\b", text) or room_of(path) == "cli", path
        assert not re.search(r"\b(import|from) argparse\b", text), path
        assert "matplotlib.pyplot" not in text, path
        assert "pickle.load" not in text, path
        assert "weights_only=False" not in text, path
