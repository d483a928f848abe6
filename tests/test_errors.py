import pytest

from tailbind import errors
from tailbind.errors import TailbindError, nearest


@pytest.mark.parametrize(
    "name",
    [
        "RecipeError",
        "TableError",
        "SequenceError",
        "FeatureError",
        "SplitError",
        "CheckpointError",
        "RunError",
        "TrainingError",
    ],
)
def test_every_error_is_a_tailbind_error_and_is_drawn_in_the_docstring(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, TailbindError)
    assert error is not TailbindError
    assert name in str(errors.__doc__)


def test_no_error_is_missing_from_the_drawing() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert len(defined) > 1
    assert [name for name in defined if f" {name} " not in str(errors.__doc__)] == []


def test_nearest_is_named_whatever_its_case() -> None:
    assert nearest("PKD", ["weak", "pKd"]).startswith("did you mean 'pKd'?")


def test_nothing_near_is_not_guessed_at() -> None:
    assert nearest("zzz", ["alpha", "beta"]) == "known: alpha, beta"


def test_a_long_list_is_cut_at_twenty() -> None:
    words = [f"w{number:02d}" for number in range(30)]
    hint = nearest("q", words)
    assert "w19" in hint
    assert "w20" not in hint
    assert hint.endswith(", …")
