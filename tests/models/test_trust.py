"""How far from the mean of its labels a blend goes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tailbind.models.blend import Blend, Opinions
from tailbind.models.trust import find_trust, held_out

Array = NDArray[np.float64]

RNG = np.random.default_rng(5)
FOLD = np.repeat(np.arange(6), 50)
Y = RNG.normal(7, 1, 300)
MEASURED = np.zeros(300, np.float32)


def said(*predictions: Array) -> Opinions:
    given = np.column_stack(predictions)
    return Opinions(given, np.zeros_like(given), np.ones(given.shape, bool), np.zeros(len(given), np.intp))


def trust(opinions: Opinions, y: Array = Y, side: NDArray[np.float32] = MEASURED, **options: float) -> float:
    blend = Blend(**options)  # type: ignore[arg-type]
    return find_trust(blend, held_out(blend, opinions, y, side, FOLD)[0], y, side, FOLD, 7.0)


def test_predictions_that_hold_in_every_fold_are_trusted() -> None:
    assert trust(said(Y + RNG.normal(0, 0.1, 300), Y + RNG.normal(0, 0.1, 300))) >= 0.95


def test_of_predictions_that_say_nothing_the_order_is_kept_and_little_else() -> None:
    assert trust(said(RNG.normal(7, 1, 300), RNG.normal(7, 1, 300))) == pytest.approx(0.1)


def test_what_holds_in_some_folds_alone_is_half_trusted_and_less_so_the_more_caution() -> None:
    right = np.where(FOLD < 4, Y, 14 - Y)  # mirrored about the mean in two folds of six
    bold, cautious, timid = (trust(said(right, right), caution=caution) for caution in (1e-6, 0.5, 10))
    assert 0.1 < bold < 0.7
    assert timid == pytest.approx(0.1)
    assert timid <= cautious < bold


def test_an_error_on_the_stated_side_of_a_bound_is_none() -> None:
    below = np.full(300, 4.0)
    side = np.where(FOLD % 2 == 0, -1, 0).astype(np.float32)
    y = np.where(side < 0, 6.0, 4.0)  # floors at 6 of what is 4, as the other folds say
    assert trust(said(below, below), y, side) == 1
    assert trust(said(below, below), y) < 1


@pytest.mark.parametrize("caution", [0.0, 1.0])
def test_without_caution_or_folds_predictions_stay_as_they_are(caution: float) -> None:
    noise = RNG.normal(7, 1, 300)
    folds = np.zeros(300, np.intp) if caution else FOLD
    assert find_trust(Blend(caution=caution), noise, Y, MEASURED, folds, 7.0) == 1
