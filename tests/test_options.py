import dataclasses
from dataclasses import dataclass

import pytest

from tailbind.errors import RecipeError
from tailbind.features import FEATURES
from tailbind.models import MODELS
from tailbind.options import Registry, bounded, one_of, read_options
from tailbind.table import SPLITS
from tailbind.training import LOSSES, OPTIMIZERS, SCHEDULES


@dataclass(frozen=True)
class Kitchen:
    rate: float = bounded(0.5, low=0, below=1)
    count: int = bounded(3, above=0, high=10)
    on: bool = False
    colour: str = one_of("red", ("red", "green"))
    sizes: tuple[int, ...] = bounded((4, 2), low=1)
    names: tuple[str, ...] = one_of(("a",), ("a", "b"))


def test_nothing_given_is_the_defaults() -> None:
    assert read_options(Kitchen, {}, "kitchen") == Kitchen()


def test_values_arrive_with_their_types() -> None:
    read = read_options(Kitchen, {"rate": 0, "sizes": [8, 1], "names": ["b", "a"], "on": True}, "kitchen")
    assert read == Kitchen(rate=0.0, sizes=(8, 1), names=("b", "a"), on=True)
    assert isinstance(read.rate, float)
    assert isinstance(read.sizes, tuple)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 0.1}, r"kitchen\.rat is not an option of this recipe; did you mean 'rate'\? Known: colour, count"),
        ({"rate": "0.1"}, r"kitchen\.rate must be a number; got '0\.1'"),
        ({"rate": True}, r"kitchen\.rate must be a number; got True"),
        ({"rate": 1}, r"kitchen\.rate must be at least 0 and below 1; got 1\."),
        ({"rate": -0.1}, r"kitchen\.rate must be at least 0 and below 1; got -0\.1"),
        ({"rate": float("nan")}, r"kitchen\.rate must be finite; got nan"),
        ({"rate": float("inf")}, r"kitchen\.rate must be finite; got inf"),
        ({"count": 3.0}, r"kitchen\.count must be a whole number; got 3\.0"),
        ({"count": True}, r"kitchen\.count must be a whole number; got True"),
        ({"count": 0}, r"kitchen\.count must be at most 10 and above 0; got 0"),
        ({"count": 11}, r"kitchen\.count must be at most 10 and above 0; got 11"),
        ({"on": 1}, r"kitchen\.on must be true or false; got 1"),
        ({"colour": "blue"}, r"kitchen\.colour must be one of red, green; got 'blue'"),
        ({"colour": 1}, r"kitchen\.colour must be text; got 1"),
        ({"sizes": 4}, r"kitchen\.sizes must be a list, as in \[512, 256\]; got 4"),
        ({"sizes": "ab"}, r"kitchen\.sizes must be a list"),
        ({"sizes": [4, 0]}, r"kitchen\.sizes must be at least 1; got 0"),
        ({"sizes": [4, "2"]}, r"kitchen\.sizes must be a whole number; got '2'"),
        ({"names": ["a", "c"]}, r"kitchen\.names must be one of a, b; got 'c'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_options(Kitchen, values, "kitchen")


def test_the_values_are_not_changed() -> None:
    values: dict[str, object] = {"sizes": [8, 1], "rate": 0}
    read_options(Kitchen, values, "kitchen")
    assert values == {"sizes": [8, 1], "rate": 0}
    assert isinstance(values["rate"], int)


@pytest.mark.parametrize("registry", [SPLITS, MODELS, LOSSES, OPTIMIZERS, SCHEDULES, FEATURES], ids=lambda r: r.section)
def test_every_registered_component_loads_and_its_defaults_pass_its_own_checks(registry: Registry) -> None:
    assert len(registry) > 0
    for name in registry:
        component = registry.load(name)
        defaults = {field.name: getattr(component(), field.name) for field in dataclasses.fields(component)}
        assert read_options(component, defaults, registry.section) == component()


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(
        RecipeError, match=r"loss\.kind 'focall' does not exist; did you mean 'focal'\? Known: .*focal, "
    ):
        LOSSES.load("focall")
    with pytest.raises(RecipeError, match=r"split\.kind 'stratify' does not exist; did you mean 'stratified'\?"):
        SPLITS.load("stratify")
