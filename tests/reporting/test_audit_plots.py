"""The pictures of a table and of a ladder show the numbers they were given, at any size, with nothing clipped."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch
from matplotlib.text import Text
from numpy.typing import NDArray

from tailbind.reporting import audit_plots
from tailbind.reporting.audit_plots import (
    DOUBTFUL,
    MOST_PANELS,
    OTHERS,
    SOURCE_COLOURS,
    bin_composition,
    family_sizes,
    label_histograms,
    nearest_identity,
)
from tailbind.reporting.drawing import BULK, MUTED, png
from tailbind.reporting.ladder_plot import LABEL_STEP, Scores, ladder_chart
from tailbind.scale import BIN_EDGES, BIN_NAMES, bin_index

Array = NDArray[np.float64]

POOL = Path(__file__).parents[3] / "shared" / "data" / "affinity_pool.parquet"
RUNGS = ("random", "de-duplicated", "antibody cluster", "antigen cluster", "both cold")
ODD_NAMES = ("$x^", "_hidden", "alphabind_her2_full", "a_very_long_name_of_a_source_that_nobody_would_read_to_its_end")
NAN = float("nan")


def normal(n: int, mean: float = 8.0, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(mean, 1.0, n)


def titration(n: int = 1000, n_floor: int = 9000) -> Array:
    """Return labels of which most are at a floor of 6."""
    return np.concatenate([np.full(n_floor, 6.0), np.clip(normal(n), 6.1, 10.0)])


def sources(n: int) -> dict[str, Array]:
    """Return n sources, the k-th with 20 + k rows."""
    return {f"source_{k:02d}": normal(20 + k, seed=k) for k in range(n)}


def words(on: Figure | Axes) -> str:
    return "\n".join(text.get_text() for text in on.findobj(Text))


def ticks(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_xticklabels()]


def drawn_rows(ax: Axes) -> Array:
    """Return the heights of a histogram's bars, marks aside."""
    (bars,) = [patch for patch in ax.patches if isinstance(patch, StepPatch)]
    return np.asarray(bars.get_data().values)


def spikes(ax: Axes) -> list[Rectangle]:
    return [patch for patch in ax.patches if isinstance(patch, Rectangle) and to_hex(patch.get_facecolor()) == MUTED]


def labelled(ax: Axes, label: str) -> list[list[float]]:
    """Return the x values of the lines with a label."""
    return [list(line.get_xdata()) for line in ax.lines if line.get_label() == label]


def scores(n_predictors: int = 3, n_rungs: int = 5, seed: int = 0) -> Scores:
    values = np.random.default_rng(seed).uniform(0.2, 0.9, (n_predictors, n_rungs))
    return Scores(values, values - 0.05, values + 0.05)


def assert_nothing_clipped(figure: Figure) -> None:
    """Everything drawn must lie on the page, to a sixtieth of an inch."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [
        figure.get_tightbbox(),
        *(
            text.get_window_extent(renderer).transformed(figure.dpi_scale_trans.inverted())
            for text in figure.findobj(Text)
            if text.get_visible() and text.get_text() and not text.get_in_layout()
        ),
    ]
    for box in boxes:
        assert box.x0 > -1 / 60 and box.y0 > -1 / 60
        assert box.x1 < width + 1 / 60 and box.y1 < height + 1 / 60


class TestLabelHistograms:
    def test_a_floor_does_not_dwarf_the_measured_rows(self) -> None:
        labels = titration()
        (ax,) = label_histograms({"cr9114": labels}, {"cr9114": [(6.0, 9000, "floor")]}).axes
        assert drawn_rows(ax).sum() == 1000
        assert drawn_rows(ax).max() < ax.get_ylim()[1] < 2 * drawn_rows(ax).max()
        (spike,) = spikes(ax)
        assert spike.get_height() == ax.get_ylim()[1]
        assert spike.get_x() + spike.get_width() == pytest.approx(6.0)
        assert labelled(ax, "_mark") == [[6.0, 6.0]]
        assert len(labelled(ax, "_cut")) == 2
        assert "floor 6: 9,000 rows" in words(ax) and "n = 10,000" in words(ax)

    def test_a_small_spike_is_drawn_whole(self) -> None:
        labels = np.concatenate([np.full(30, 10.0), normal(1000, 7.0)])
        (ax,) = label_histograms({"s": labels}, {"s": [(10.0, 30, "ceiling")]}).axes
        (spike,) = spikes(ax)
        assert spike.get_height() == 30 and spike.get_x() == 10.0
        assert not labelled(ax, "_cut")
        assert "ceiling 10: 30 rows" in words(ax)

    def test_nothing_but_a_floor(self) -> None:
        (ax,) = label_histograms({"s": [6.0] * 50}, {"s": [(6.0, 50, "floor")]}).axes
        assert drawn_rows(ax).sum() == 0
        assert spikes(ax)[0].get_height() == 50

    def test_sources_off_the_scale_do_not_squash_the_others(self) -> None:
        values = {"good": normal(100), "logs": normal(50, -2.0)}
        good, logs = label_histograms(values, {}, flagged=["logs"]).axes
        assert good.get_xlim() == (3.75, 12.25)
        assert logs.get_xlim()[1] < 2
        assert "not pKd?" in words(logs) and "axis of its own" in words(logs)
        assert "not pKd?" not in words(good)
        colours = [to_hex(ax.patches[0].get_facecolor()) for ax in (good, logs)]
        assert colours == [BULK, DOUBTFUL]

    def test_a_source_that_is_mostly_outside_has_its_own_axis_unflagged(self) -> None:
        good, far = label_histograms({"good": normal(100), "far": normal(50, 400.0)}, {}).axes
        assert 380 < far.get_xlim()[0] < far.get_xlim()[1] < 420
        assert "axis of its own" in words(far) and "not pKd?" not in words(far)
        assert "axis of its own" not in words(good)

    def test_rows_outside_the_window_are_counted_once(self) -> None:
        labels = np.concatenate([normal(100), [99.0] * 12, [-3.0] * 2, [20.0]])
        (ax,) = label_histograms({"s": labels}, {"s": [(99.0, 12, "placeholder")]}).axes
        shown = words(ax)
        assert "placeholder 99: 12 rows →" in shown
        assert "← 2 rows below 3.75" in shown
        assert "1 row above 12.25 →" in shown
        assert drawn_rows(ax).sum() == 100
        assert not labelled(ax, "_mark")

    def test_every_finite_row_is_drawn_or_counted(self) -> None:
        labels = np.append(normal(20), [NAN, np.inf])
        (ax,) = label_histograms({"s": labels}, {}).axes
        assert drawn_rows(ax).sum() == 20
        assert "n = 20" in words(ax)

    def test_bin_edges_are_marked(self) -> None:
        (ax,) = label_histograms({"s": normal(20)}, {}).axes
        assert [x for x, _ in labelled(ax, "_edge")] == list(BIN_EDGES)

    def test_round_values_lie_amid_a_bar_and_the_axis_is_shared(self) -> None:
        figure = label_histograms({"a": normal(50), "b": normal(500), "c": normal(5000)}, {})
        limits = {ax.get_xlim() for ax in figure.axes}
        assert len(limits) == 1
        for ax, width in zip(figure.axes, (0.1, 0.2, 0.5), strict=True):
            edges = ax.patches[0].get_data().edges  # type: ignore[attr-defined]
            assert np.diff(edges) == pytest.approx(width)
            assert edges / width - 0.5 == pytest.approx(np.round(edges / width - 0.5))
            assert edges[0] <= ax.get_xlim()[0] and edges[-1] >= ax.get_xlim()[1]

    def test_the_largest_sources_come_first_and_the_rest_is_counted(self) -> None:
        figure = label_histograms(sources(30), {})
        names = [ax.get_title(loc="left") for ax in figure.axes]
        assert names == [f"source_{k:02d}" for k in range(29, 29 - MOST_PANELS, -1)]
        assert f"6 smaller sources with {sum(20 + k for k in range(6))} rows together" in words(figure)
        assert "Not shown" not in words(label_histograms(sources(24), {}))

    def test_a_flagged_source_is_shown_however_small(self) -> None:
        figure = label_histograms(sources(30), {}, flagged=["source_00"])
        assert figure.axes[-1].get_title(loc="left") == "source_00"
        assert len(figure.axes) == MOST_PANELS

    def test_many_marks_are_named_up_to_a_limit(self) -> None:
        marks = [(5.0 + k / 4, 10 - k, "placeholder") for k in range(7)]
        (ax,) = label_histograms({"s": normal(1000)}, {"s": marks}).axes
        shown = words(ax)
        assert "placeholder 5.5: 8 rows" in shown and "placeholder 5.75" not in shown
        assert "and 4 more" in shown
        assert len(labelled(ax, "_mark")) == 7

    def test_the_words_about_grey_are_there_only_where_grey_is(self) -> None:
        assert "Grey" not in words(label_histograms({"s": normal(20)}, {}))
        assert "Grey" in words(label_histograms({"s": titration()}, {"s": [(6.0, 9000, "floor")]}))


class TestBinComposition:
    def test_every_bar_is_whole_and_every_part_its_share(self) -> None:
        counts = {"a": [1, 2, 3, 4, 0], "b": [3, 2, 1, 0, 5]}
        (ax,) = bin_composition(counts).axes
        by_colour = {
            colour: [bar.get_width() for bar in ax.patches if to_hex(bar.get_facecolor()) == colour]
            for colour in SOURCE_COLOURS[:2]
        }
        assert sorted(by_colour.values()) == sorted([[0.25, 0.5, 0.75, 1.0, 0.0], [0.75, 0.5, 0.25, 0.0, 1.0]])
        assert [label.get_text().split("\n")[0] for label in ax.get_yticklabels()][::4] == ["Very weak", "Very strong"]
        bottom, top = ax.get_ylim()
        assert bottom > top, "very weak is the uppermost"

    def test_rows_of_each_bin_are_written_and_an_empty_one_said(self) -> None:
        shown = words(bin_composition({"a": [6000, 5, 0, 0, 1], "b": [720, 0, 0, 0, 0]}))
        for n in ("n = 6,720", "n = 5", "n = 0", "n = 1"):
            assert n in shown
        assert shown.count("no rows") == 2
        assert "a 89 %" in shown and "b 11 %" in shown

    def test_others_are_gathered_and_counted(self) -> None:
        figure = bin_composition({f"s{k}": [100 - k] * 5 for k in range(19)})
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == [*(f"s{k}" for k in range(7)), "12 others"]
        rest = [bar for bar in figure.axes[0].patches if to_hex(bar.get_facecolor()) == OTHERS]
        assert [bar.get_width() for bar in rest] == pytest.approx([sum(range(82, 94)) / sum(range(82, 101))] * 5)

    def test_the_source_of_a_small_bin_is_named_too(self) -> None:
        counts = {f"s{k}": [0, 10_000, 0, 0, 0] for k in range(10)} | {"tail": [0, 0, 0, 0, 3]}
        (legend,) = bin_composition(counts).legends
        assert legend.get_texts()[0].get_text() == "tail"

    def test_seven_sources_need_no_others_and_empty_ones_are_left_out(self) -> None:
        counts = {f"s{k}": [1] * 5 for k in range(7)} | {"empty": [0] * 5}
        shown = words(bin_composition(counts))
        assert "other" not in shown and "empty" not in shown


class TestFamilySizes:
    def test_sizes_by_rank_and_the_half(self) -> None:
        (ax,) = family_sizes([1, 30, 5, 30, 1, 0], n_rows=67).axes
        every, dark = [patch.get_data() for patch in ax.patches if isinstance(patch, StepPatch)]
        assert every.values.tolist() == [30, 5, 1]
        assert every.edges.tolist() == [0.5, 2.5, 3.5, 5.5]
        assert dark.values.tolist() == [30] and dark.edges.tolist() == [0.5, 2.5]
        assert ax.get_title(loc="left") == "5 families, 2 of one row; it takes 2 (dark) to hold half of the 67 rows."
        assert "Largest: 30 rows,\n45 % of all" in words(ax)
        assert ax.get_xscale() == ax.get_yscale() == "log"

    def test_exactly_half_is_half(self) -> None:
        assert "it takes 1 (dark)" in words(family_sizes([50, 25, 25], 100))

    def test_families_that_hold_less_than_half(self) -> None:
        (ax,) = family_sizes([10, 10], n_rows=100).axes
        assert "all together hold 20 % of the 100 rows" in words(ax)
        assert len(ax.patches) == 1

    def test_no_families(self) -> None:
        assert "No families" in words(family_sizes([], 20))


class TestNearestIdentity:
    def test_shares_at_or_above_the_thresholds(self) -> None:
        figure = nearest_identity({"heavy": [1.0, 19 / 20, 0.9, 0.8, 0.5], "light": [NAN, 1.0]}, sampled=5)
        heavy, light = figure.axes
        assert heavy.get_title(loc="left") == "Heavy"
        cells = [text.get_text() for text in heavy.texts]
        assert cells == ["n = 5", "Identity", "Rows", "1", "20 %", "≥ 0.95", "40 %", "≥ 0.9", "60 %", "≥ 0.8", "80 %"]
        assert "n = 1; unknown for 1 more" in words(light)
        assert "a sample of 5 rows" in words(figure)
        curve = heavy.lines[0]
        assert curve.get_ydata()[[0, -1]] == pytest.approx([1.0, 0.2])

    def test_one_axis_for_all_chains_reaches_the_least_identity(self) -> None:
        figure = nearest_identity({"heavy": [1.0], "light": [0.23, 0.9]})
        assert {ax.get_xlim()[0] for ax in figure.axes} == {0.2}

    def test_a_share_is_never_rounded_to_all_or_none(self) -> None:
        shown = words(nearest_identity({"heavy": np.append(np.ones(9999), 0.0)}))
        assert "> 99 %" in shown and "100 %" not in shown.replace("100 %\n", "", 1)
        assert "< 0.1 %" in words(nearest_identity({"heavy": np.append(np.zeros(9999), 1.0)}))

    def test_an_unknown_chain(self) -> None:
        figure = nearest_identity({"light": [NAN] * 20})
        assert "None known" in words(figure) and "unknown for 20 more" in words(figure)


class TestLadderChart:
    def test_a_panel_per_metric_with_every_value_and_interval(self) -> None:
        given = {"rmse": scores(), "spearman": scores(seed=1)}
        figure = ladder_chart(RUNGS, ("v2", "antigen mean", "nearest"), given)
        assert [ax.get_title(loc="left") for ax in figure.axes] == [
            "RMSE in pKd units (lower is better)",
            "Spearman (higher is better)",
        ]
        for ax, of_metric in zip(figure.axes, given.values(), strict=True):
            arrays = of_metric.arrays()
            for number, name in enumerate(("v2", "antigen mean", "nearest")):
                (line,) = [line for line in ax.lines if line.get_label() == "_" + name]
                assert list(line.get_ydata()) == arrays["values"][number].tolist()
                bars = ax.collections[number].get_segments()  # type: ignore[attr-defined]
                assert [[end[1] for end in bar] for bar in bars] == pytest.approx(
                    np.stack([arrays["low"][number], arrays["high"][number]], axis=1)
                )
            assert [tick.replace("\n", " ") for tick in ticks(ax)] == list(RUNGS)
            for value in arrays["values"][0]:
                assert f"{value:.2f}" in words(ax)

    def test_the_recipe_is_bold_and_baselines_are_muted_and_named(self) -> None:
        (ax,) = ladder_chart(RUNGS, ("v2", "antigen mean", "nearest"), {"rmse": scores()}).axes
        looks = {line.get_label(): line for line in ax.lines}
        assert looks["_v2"].get_color() == BULK and looks["_antigen mean"].get_color() == MUTED
        assert looks["_v2"].get_linewidth() > 2 * looks["_nearest"].get_linewidth() * 0.9
        named = [text.get_text() for text in ax.texts]
        assert {"v2", "antigen mean", "nearest"} <= set(named)
        baselines = [looks["_antigen mean"], looks["_nearest"]]
        assert len({line.get_marker() for line in baselines}) == 2

    def test_missing_rungs_and_predictors(self) -> None:
        values = np.array([[0.8, 0.5, NAN], [NAN, NAN, NAN], [0.4, NAN, NAN]])
        figure = ladder_chart(
            RUNGS[:3], ("v2", "training mean", "x"), {"spearman": Scores(values, values * NAN, values * NAN)}
        )
        (ax,) = figure.axes
        assert "Without a value: training mean (Spearman)." in words(figure)
        assert "training mean" not in [text.get_text() for text in ax.texts]
        assert "95 %" not in words(figure)
        assert not any(collection.get_segments() for collection in ax.collections)  # type: ignore[attr-defined]
        assert_nothing_clipped(figure)

    def test_the_caption_is_the_caller_s_and_fits(self) -> None:
        apart = ("nothing", "pairs", "H" * 30, "A" * 30, "either")
        parts = [f"{what} ({rung})" for what, rung in zip(apart, RUNGS, strict=True)]
        caption = f"Never on two sides: {'; '.join(parts)}."
        figure = ladder_chart(RUNGS, ("a", "b", "c"), {"rmse": scores()}, caption)
        assert f"{caption} Bars: 95 % intervals." in words(figure).replace("\n", " ")
        assert_nothing_clipped(figure)
        bare = words(ladder_chart(RUNGS, ("a", "b", "c"), {"rmse": scores()}))
        assert "less like" not in bare and "Bars: 95 % intervals." in bare

    def test_names_at_one_height_do_not_overlap(self) -> None:
        same = np.full((7, 2), 0.02)
        (ax,) = ladder_chart(RUNGS[:2], [f"p{k}" for k in range(7)], {"spearman": Scores(same, same, same)}).axes
        heights = sorted(text.xy[1] for text in ax.texts if text.get_text().startswith("p"))  # type: ignore[attr-defined]
        assert np.diff(heights) == pytest.approx(LABEL_STEP)
        assert heights[0] >= 0

    def test_a_wild_baseline_does_not_squash_the_recipe(self) -> None:
        values = np.array([[0.5, 1.0], [0.8, 99.0]])
        (ax,) = ladder_chart(RUNGS[:2], ("v2", "nearest"), {"rmse": Scores(values, values, values)}).axes
        assert ax.get_ylim()[1] < 4
        assert "nearest (up to 99)" in words(ax)

    def test_negative_correlations_are_on_the_axis(self) -> None:
        values = np.array([[-0.4, 0.1]])
        (ax,) = ladder_chart(RUNGS[:2], ("v2",), {"pearson": Scores(values, values - 0.1, values + 0.1)}).axes
        assert -0.6 < ax.get_ylim()[0] < -0.5 and ax.get_ylim()[1] > 1
        assert "−0.40" in words(ax)

    def test_refuses_what_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"rmse: values must be \(n_predictors, n_rungs\), \(1, 2\); got \(3, 5\)"):
            ladder_chart(RUNGS[:2], ("v2",), {"rmse": scores()})
        with pytest.raises(ValueError, match="metric must be one of rmse, mae, spearman, pearson, r2; got 'bias'"):
            ladder_chart(RUNGS, ("a", "b", "c"), {"bias": scores()})


def odd_ladder() -> Figure:
    given = {"rmse": scores(4, 2), "mae": scores(4, 2), "very_strong.rmse": scores(4, 2)}
    return ladder_chart(("$\\frac", "a split that is cold on antibodies and antigens"), ODD_NAMES, given)


CASES: dict[str, Callable[[], Figure]] = {
    "no source": lambda: label_histograms({}, {}),
    "a source without rows": lambda: label_histograms({"a": [], "b": [NAN]}, {}, ["b"]),
    "one row": lambda: label_histograms({"a": [8.0]}, {}),
    "one source of 300,000": lambda: label_histograms({"a": normal(300_000)}, {"a": [(6.0, 65_336, "floor")]}),
    "thirty sources": lambda: label_histograms(
        sources(30), {name: [(4.0, 11_111, "floor"), (9.9, 22_222, "ceiling")] for name in sources(30)}
    ),
    "odd names": lambda: label_histograms({name: normal(20) for name in ODD_NAMES}, {}, ODD_NAMES),
    "at 99 and −999": lambda: label_histograms(
        {"a": [99.0] * 30, "b": [-999.0, 99.0, 8.0], "c": normal(20)},
        {"a": [(99.0, 30, "placeholder")], "b": [(-999.0, 1, "placeholder"), (99.0, 1, "placeholder")]},
    ),
    "beyond any scale": lambda: label_histograms({"a": [1e-9, 1e9, 3e9], "b": [-1e300, 5.0]}, {}, ["a"]),
    "no counts": lambda: bin_composition({}),
    "one bin": lambda: bin_composition({"a": [0, 0, 20, 0, 0]}),
    "thirty sources in bins": lambda: bin_composition({f"{ODD_NAMES[-1]}_{k}": [10_000 * k] * 5 for k in range(30)}),
    "odd names in bins": lambda: bin_composition({name: [20] * 5 for name in ODD_NAMES}),
    "one family": lambda: family_sizes([20], 20),
    "one antibody": lambda: family_sizes([1], 1),
    "only single antibodies": lambda: family_sizes(np.ones(300_000), 300_000),
    "families of all sizes": lambda: family_sizes(1e5 / np.arange(1, 20_000), 300_000),
    "no chains": lambda: nearest_identity({}),
    "all the same": lambda: nearest_identity({"heavy": np.ones(300_000), "light": np.ones(20), "antigen": [0.0]}),
    "an odd chain": lambda: nearest_identity({"$x^": [0.5], "light": []}),
    "no predictor": lambda: ladder_chart((), (), {}),
    "one rung": lambda: ladder_chart(("random",), ("v2",), {"spearman": Scores([[0.5]], [[NAN]], [[NAN]])}),
    "an odd ladder": odd_ladder,
    "eight rungs of long names": lambda: ladder_chart(
        [f"antibody cluster at {k} % identity" for k in range(30, 110, 10)],
        [f"p{k}" for k in range(12)],
        {"rmse": scores(12, 8)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_edge_cases_draw_without_warning_or_clipping(case: str) -> None:
    figure = CASES[case]()
    assert figure.get_figwidth() == 9
    assert_nothing_clipped(figure)


def test_names_are_shown_as_they_are() -> None:
    name = "$x^$_1"
    for figure in (
        label_histograms({name: normal(20)}, {}),
        bin_composition({name: [1] * 5}),
        ladder_chart((name,), (name,), {"spearman": Scores([[NAN]], [[NAN]], [[NAN]])}),
        ladder_chart((name,), (name,), {"spearman": Scores([[0.5]], [[0.4]], [[0.6]])}),
    ):
        shown = [text for text in figure.findobj(Text) if name in text.get_text() and text.get_visible()]
        assert shown and not any(text.get_parse_math() for text in shown)


def test_no_global_state_is_left_behind_and_inputs_are_not_changed() -> None:
    before = dict(matplotlib.rcParams)
    identity, sizes, labels = np.array([1.0, 0.5, NAN]), np.array([3.0, 9.0]), titration()
    copies = identity.copy(), sizes.copy(), labels.copy()
    png(nearest_identity({"heavy": identity}), dpi=40)
    png(family_sizes(sizes, 12), dpi=40)
    png(label_histograms({"s": labels}, {"s": [(6.0, 9000, "floor")]}), dpi=40)
    for now, then in zip((identity, sizes, labels), copies, strict=True):
        assert np.array_equal(now, then, equal_nan=True)
    assert dict(matplotlib.rcParams) == before
    assert not hasattr(audit_plots, "plt")


@pytest.mark.real_data
@pytest.mark.skipif(not POOL.is_file(), reason=f"no public measurements in {POOL.parent.parent.name}/data")
def test_the_public_measurements() -> None:
    pool = pl.read_parquet(POOL, columns=["source", "pkd", "parent"])
    values = {str(name): rows["pkd"].to_numpy() for (name,), rows in pool.group_by("source")}
    figure = label_histograms(values, {"cr9114_fluB": [(6.0, 65_336, "floor")]})
    assert len(figure.axes) == 20
    by_name = {ax.get_title(loc="left"): ax for ax in figure.axes}
    assert drawn_rows(by_name["cr9114_fluB"]).sum() == 198
    assert by_name["cr9114_fluB"].get_ylim()[1] < 40
    assert_nothing_clipped(figure)
    counts = {name: np.bincount(bin_index(pkd), minlength=len(BIN_NAMES)).tolist() for name, pkd in values.items()}
    assert "n = 173,248" in words(bin_composition(counts))
    assert_nothing_clipped(family_sizes(pool.group_by("parent").len()["len"].to_numpy(), len(pool)))
