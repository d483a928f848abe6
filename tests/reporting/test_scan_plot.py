"""The heat map of a scan shows each change in its cell, at any length, with no text outside the page."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text

from tailbind.reporting.drawing import STYLE
from tailbind.reporting.scan_plot import PER_ROW, RESIDUES, ScannedChain, scan_heatmap


def chain(n: int, *, spread: bool = True, unseen: bool = True, seed: int = 0) -> ScannedChain:
    rng = np.random.default_rng(seed)
    letters = rng.integers(20, size=n)
    change = rng.normal(0, 0.5, (n, 20))
    change[np.arange(n), letters] = np.nan
    regions = [f"CDR{i // 20}" if i // 10 % 2 else f"FR{i // 20 + 1}" for i in range(n)]
    return ScannedChain(
        title="Heavy chain, positions by IMGT",
        wild_type="".join(RESIDUES[letter] for letter in letters),
        labels=[f"{i}A" if i % 30 == 29 else str(i) for i in range(1, n + 1)],
        regions=regions,
        places=list(range(1, n + 1)),
        change=change,
        spread=np.abs(change) if spread else None,
        unseen=rng.random((n, 20)) < 0.5 if unseen else None,
    )


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("n", [1, 7, 59, 60, 61, 120, 250])
@pytest.mark.parametrize("told", [True, False])
def test_text_lies_on_the_page_at_any_length(n: int, told: bool) -> None:
    with matplotlib.rc_context(STYLE):
        figure = scan_heatmap([chain(n, spread=told, unseen=told)], title="Every single substitution")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
    width, height = figure.get_size_inches() * figure.dpi
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent(renderer)
            assert box.x0 >= -1 and box.x1 <= width + 1, text
            assert box.y0 >= -1 and box.y1 <= height + 1, text
    shown = texts(figure)
    assert {"wild type", "Heavy chain, positions by IMGT"} <= set(shown)
    assert ("training never saw it here" in shown) == told
    assert ("SD" in shown) == told


def test_each_change_is_in_its_cell_and_what_training_never_saw_is_a_small_square() -> None:
    one = chain(PER_ROW + 5)
    figure = scan_heatmap([one])
    rows = [ax for ax in figure.axes if [label.get_text() for label in ax.get_yticklabels()] == list(RESIDUES)]
    assert len(rows) == 2
    shown = np.hstack([np.ma.filled(_mesh(ax).get_array(), np.nan) for ax in rows])
    assert one.unseen is not None
    expected = np.where(one.unseen, np.nan, one.change).T
    np.testing.assert_allclose(shown, expected)
    squares = [next(item for item in ax.collections if isinstance(item, PatchCollection)) for ax in rows]
    drawn = np.sort(np.concatenate([np.asarray(square.get_array()) for square in squares]))
    hidden = one.change[one.unseen]
    np.testing.assert_allclose(drawn, np.sort(hidden[np.isfinite(hidden)]))


def test_no_change_has_the_colour_in_the_middle() -> None:
    one = chain(30, unseen=False)
    figure = scan_heatmap([replace(one, change=one.change + 3)])
    mesh = _mesh(figure.axes[0])
    assert mesh.norm.vmin == -mesh.norm.vmax
    assert mesh.norm.vmax >= 3
    flat = _mesh(scan_heatmap([replace(one, change=np.zeros_like(one.change))]).axes[0])
    assert flat.norm.vmax == pytest.approx(0.1)


def test_arrays_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="labels must have an entry for each of 5 positions; got 4"):
        replace(chain(5), labels=list("1234"))
    with pytest.raises(ValueError, match=r"change must be \(n_positions, 20\), \(5, 20\); got \(5, 19\)"):
        replace(chain(5), change=np.zeros((5, 19)))


def _mesh(ax: matplotlib.axes.Axes) -> QuadMesh:
    return next(item for item in ax.collections if isinstance(item, QuadMesh))
