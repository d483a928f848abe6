"""The pictures of a probe hold what they are given, also where that is nothing or very much."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from tailbind.reporting.drawing import BULK, MUTED, png
from tailbind.reporting.probe_plots import change_ranges, mutant_scatter, region_bars


def drawn(figure: Figure) -> bytes:
    found = png(figure, dpi=50)
    assert found[:4] == b"\x89PNG"
    return found


def test_every_kind_of_change_has_its_line() -> None:
    figure = change_ranges(["one", "none", "two"], [np.arange(5.0), [np.nan], [-1.0]], [False, False, True])
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one\nn = 5", "two\nn = 1"]
    first, second = ax.patches
    assert (first.get_x(), first.get_width()) == (1.0, 2.0)  # the middle half
    assert first.get_facecolor() != second.get_facecolor()
    drawn(figure)
    assert "Grey" in figure.get_supxlabel()
    assert "Grey" not in change_ranges(["one"], [[1.0]], [False]).get_supxlabel()


def test_nothing_is_said_to_be_nothing() -> None:
    for figure in (change_ranges([], [], []), mutant_scatter([np.nan], [1.0]), region_bars([], {})):
        assert figure.axes[0].texts
        drawn(figure)


@pytest.mark.parametrize("n", [1, 300, 5000])
def test_mutants_are_on_equal_scales(n: int) -> None:
    rng = np.random.default_rng(0)
    measured = rng.normal(size=n)
    figure = mutant_scatter(measured, 0.1 * measured)
    ax = figure.axes[0]
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_xlim()[1] >= np.abs(measured).max()
    drawn(figure)


@pytest.mark.parametrize("n_sizes", [1, 2, 3])
def test_a_bar_per_region_and_kind(n_sizes: int) -> None:
    names = ["every substitution", "predicted", "measured"]
    sizes = {name: [0.1, float("nan")] for name in names[:n_sizes]}
    figure = region_bars(["heavy FR1", "heavy CDR1"], sizes)
    bars = figure.axes[0].containers
    assert len(bars) == n_sizes
    assert bars[0].patches[0].get_height() == 0.1
    colours = [container.patches[0].get_facecolor() for container in bars]
    assert len(set(colours)) == n_sizes
    drawn(figure)
    assert BULK != MUTED
