"""The public names, and what importing them costs."""

import subprocess
import sys
from pathlib import Path

import tailbind
from tailbind import workflows


def test_the_public_names_are_these() -> None:
    assert tailbind.__all__ == [
        "RunSummary", "TailbindError", "compare", "demo", "embed", "evaluate", "load", "predict", "read_table", "train",
    ]  # fmt: skip
    for name in tailbind.__all__:
        assert getattr(tailbind, name).__doc__, name
    assert set(tailbind.__all__) <= set(dir(tailbind))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(tailbind, "fit")


HEAVY = ("torch", "polars", "sklearn", "scipy.stats", "matplotlib")


def loaded(code: str) -> set[str]:
    """Return the heavy modules that a fresh interpreter has loaded after running `code`."""
    probe = f"import sys\n{code}\nprint(*(m for m in {HEAVY} if m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def test_importing_the_package_is_quick() -> None:
    assert loaded("import tailbind") == set()


def test_help_and_the_list_of_recipes_wait_for_nothing_heavy() -> None:
    assert loaded("from tailbind.cli import main; main(['--help']); main(['recipes'])") == set()


def test_a_check_waits_for_nothing_that_trains_or_draws(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("pkd,heavy\n" + "".join(f"{6 + row / 10},EVQLVESGGG{'A' * row}\n" for row in range(30)))
    command = ["check", str(table), "--no-numbering"]
    assert loaded(f"from tailbind.cli import main; main({command!r})") == {"polars"}


def test_the_verbs_are_imported_when_first_used() -> None:
    assert loaded("import tailbind.workflows") == set()
    for name in workflows.__all__:
        assert getattr(workflows, name).__doc__, name
    assert not hasattr(workflows, "fit")
