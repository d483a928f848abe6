"""The public names, and what importing them costs."""

import subprocess
import sys

import tailbind


def test_the_public_names_are_these() -> None:
    assert tailbind.__all__ == [
        "RunSummary", "TailbindError", "compare", "demo", "embed", "evaluate", "load", "predict", "read_table", "train",
    ]  # fmt: skip
    for name in tailbind.__all__:
        assert getattr(tailbind, name).__doc__, name
    assert set(tailbind.__all__) <= set(dir(tailbind))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(tailbind, "fit")


def loaded(code: str) -> set[str]:
    """Return the heavy modules that a fresh interpreter has loaded after running `code`."""
    probe = f"import sys\n{code}\nprint(*(m for m in ('torch', 'polars', 'sklearn', 'matplotlib') if m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def test_importing_the_package_is_quick() -> None:
    assert loaded("import tailbind") == set()


def test_help_and_the_list_of_recipes_wait_for_nothing_heavy() -> None:
    assert loaded("from tailbind.cli import main; main(['--help']); main(['recipes'])") == set()
