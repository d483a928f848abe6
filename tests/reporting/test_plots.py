"""The pictures show the data they were given, at any size, without a warning and without clipped text."""

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle, StepPatch
from matplotlib.text import Annotation
from numpy.typing import NDArray

from tailbind.evaluation.comparison import Comparison, compare_predictions
from tailbind.evaluation.metrics import rmse, spearman
from tailbind.reporting import plots
from tailbind.reporting.comparison_plot import comparison_chart
from tailbind.reporting.drawing import BULK, MUTED, png
from tailbind.reporting.plots import predictions_vs_targets, residuals_analysis, training_curves
from tailbind.scale import BIN_NAMES, bin_index

Array = NDArray[np.float64]

#: Enough rows for a density.
MANY = 50_000


def rows(n: int, very_strong: int = 25, very_weak: int = 7, seed: int = 0) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Return true and predicted pKd and which rows are censored: a third of them, all at 6.0."""
    rng = np.random.default_rng(seed)
    true = np.clip(rng.normal(7.8, 1.2, n), 5.0, 10.95).round(2)
    limit = np.arange(n) < n // 3
    true[limit] = 6.0
    true[n - very_strong :] = rng.uniform(11, 12.5, very_strong)
    true[n - very_strong - very_weak : n - very_strong] = rng.uniform(3.5, 4.99, very_weak)
    return true, 7.5 + 0.6 * (true - 7.5) + rng.normal(0, 0.6, n), limit


def history(n: int, t_0: int = 20) -> dict[str, list[float]]:
    epoch = np.arange(1, n + 1)
    lr = 1e-5 + 9e-5 * (1 + np.cos(np.pi * ((epoch - 1) % t_0) / t_0)) / 2
    return {
        "epoch": epoch.tolist(),
        "train_loss": (5 * epoch**-0.5).tolist(),
        "val_loss": (4 * epoch**-0.4).tolist(),
        "lr": lr.tolist(),
        "seconds": [5.0] * n,
        "rows_per_second": [61234.0] * n,
    }


@cache
def compared(n_runs: int = 2, n: int = 400, names: tuple[str, ...] = (), **size: int) -> Comparison:
    true, _, _ = rows(n, **size)
    rng = np.random.default_rng(1)
    names = names or tuple(f"run {i}" for i in range(n_runs))
    return compare_predictions(true, {name: true * 0.9 + rng.normal(0, 0.5, n) for name in names}, n_resamples=50)


# Figures that several tests look at and none changes, each made once.


@cache
def curves(n: int) -> Figure:
    return training_curves(history(n), best_epoch=n, title="v2")


@cache
def scatter(n: int, censored: bool = False, **size: int) -> Figure:
    true, pred, limit = rows(n, **size)
    return predictions_vs_targets(true, pred, "v2", limit if censored else None)


@cache
def residuals(n: int, censored: bool = False, **size: int) -> Figure:
    true, pred, limit = rows(n, **size)
    return residuals_analysis(true, pred, "v2", limit if censored else None)


@cache
def chart(n_runs: int = 2, **size: int) -> Figure:
    return comparison_chart(compared(n_runs, **size))


def by_measured() -> Comparison:
    """Two runs on 600 rows, 200 of them at a floor, of which the measured rows decide."""
    true, pred, limit = rows(600)
    relation = np.where(limit, "<", "=")
    found = compare_predictions(true, {"a": pred, "b": true}, n_resamples=50, relation=relation)
    return replace(found, rows="measured")


def assert_nothing_clipped(figure: Figure) -> None:
    """Everything drawn must lie on the page, to a sixtieth of an inch. Pixels are not needed, and cost the most."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 > -1 / 60 and box.y0 > -1 / 60
    assert box.x1 < width + 1 / 60 and box.y1 < height + 1 / 60


def ticks(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_xticklabels()]


def points(ax: Axes, label: str) -> Array:
    """Return the (n, 2) offsets of the points with a label."""
    (found,) = [c for c in ax.collections if isinstance(c, PathCollection) and str(c.get_label()).startswith(label)]
    return np.asarray(found.get_offsets())


def meshes(ax: Axes) -> dict[str, float]:
    """Return colour map → number of rows in the cells drawn with it."""
    found = [c for c in ax.collections if isinstance(c, QuadMesh)]
    return {mesh.get_cmap().name: float(np.ma.filled(mesh.get_array(), 0).sum()) for mesh in found}


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


class TestTrainingCurves:
    @pytest.mark.parametrize("n", [1, 2, 100, 1000])
    def test_shows_the_history_at_any_length(self, n: int) -> None:
        given = history(n)
        figure = curves(n)
        loss, rate = figure.axes
        train, val = loss.lines[:2]
        assert list(train.get_ydata()) == given["train_loss"]
        assert list(val.get_ydata()) == given["val_loss"]
        assert list(val.get_xdata()) == given["epoch"]
        (steps,) = [patch for patch in rate.patches if isinstance(patch, StepPatch)]
        assert steps.get_data().values.tolist() == given["lr"]
        assert steps.get_data().edges.tolist() == np.arange(0.5, n + 1).tolist()
        assert loss.get_yscale() == rate.get_yscale() == "log"
        assert loss.get_xlim() == rate.get_xlim() == (0.5, n + 0.5)
        assert_nothing_clipped(figure)

    @pytest.mark.parametrize("n", [1, 2, 3, 11, 100])
    def test_epoch_ticks_are_whole(self, n: int) -> None:
        shown = [tick for tick in curves(n).axes[1].get_xticks() if 0.5 <= tick <= n + 0.5]
        assert shown and all(tick == int(tick) for tick in shown)

    def test_a_single_epoch_is_visible(self) -> None:
        assert curves(1).axes[0].lines[0].get_marker() == "o"

    def test_marks_the_best_epoch_at_its_loss(self) -> None:
        given = history(30)
        loss, rate = training_curves(given, best_epoch=12).axes
        best = loss.lines[-2] if str(loss.lines[-1].get_label()).startswith("_") else loss.lines[-1]
        assert list(best.get_xdata()) == [12] and list(best.get_ydata()) == [given["val_loss"][11]]
        assert f"Best: epoch 12, loss {given['val_loss'][11]:.4g}" in words(rate.figure)
        assert list(rate.lines[-1].get_xdata()) == [12, 12]

    def test_an_unknown_best_epoch_is_not_marked(self) -> None:
        assert "Best" not in words(training_curves(history(5), best_epoch=0))

    def test_networks_trained_one_after_the_other_are_told_apart(self) -> None:
        given = history(10)
        loss, rate = training_curves(given, 0, networks=[("first", 4, 3), ("second", 10, 9)]).axes
        curves = [line for line in loss.lines if len(line.get_xdata()) > 2]
        assert [list(line.get_xdata()) for line in curves] == [[1, 2, 3, 4]] * 2 + [[5, 6, 7, 8, 9, 10]] * 2
        marked = [line for line in loss.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
        assert [float(line.get_xdata()[0]) for line in marked] == [3, 9]
        assert [float(line.get_ydata()[0]) for line in marked] == [given["val_loss"][2], given["val_loss"][8]]
        assert [text.get_text() for text in loss.texts] == ["first", "second"]
        assert [text.get_text() for text in loss.get_legend().get_texts()][1:] == ["Validation", "Best of each"]
        assert [list(line.get_xdata()) for line in rate.lines] == [[3, 3], [9, 9]]

    def test_a_single_network_of_a_blend_is_drawn_as_one(self) -> None:
        figure = training_curves(history(5), 0, networks=[("network", 5, 4)])
        assert "Best: epoch 4, loss" in words(figure)
        assert not figure.axes[0].texts

    def test_says_how_the_training_loss_was_measured(self) -> None:
        assert "with dropout" in words(curves(3))

    @pytest.mark.parametrize(("n", "restarts"), [(100, [20.5, 40.5, 60.5, 80.5]), (11, []), (1000, [])])
    def test_marks_warm_restarts_unless_too_many(self, n: int, restarts: list[float]) -> None:
        lines = curves(n).axes[0].lines
        assert [line.get_xdata()[0] for line in lines if line.get_label() == "_restart"] == restarts

    @pytest.mark.parametrize("value", [0.0, -0.3])
    def test_a_loss_that_is_not_positive_makes_the_axis_linear(self, value: float) -> None:
        given = history(5) | {"val_loss": [1.0, 0.5, 0.2, 0.1, value]}
        assert training_curves(given, 5).axes[0].get_yscale() == "linear"

    @pytest.mark.parametrize("loss", [[1.0] * 5, [0.0] * 5, [3e4, 9.0, 1.0, 0.9, 0.8], [1.2, 1.19, 1.18, 1.17, 1.16]])
    def test_any_range_of_losses_has_ticks(self, loss: list[float]) -> None:
        figure = training_curves(history(5) | {"train_loss": loss, "val_loss": loss}, 5)
        low, high = figure.axes[0].get_ylim()
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert any(
            low <= tick <= high and label for tick, label in zip(figure.axes[0].get_yticks(), labels, strict=True)
        )

    def test_a_constant_learning_rate_has_its_tick(self) -> None:
        rate = training_curves(history(5) | {"lr": [1e-4] * 5}, 5).axes[1]
        assert [label.get_text() for label in rate.get_yticklabels()] == ["1e-4"]

    def test_no_epochs(self) -> None:
        assert "No epochs" in words(training_curves(history(0), 0))


class TestPredictionsVsTargets:
    def test_identity_line_equal_aspect_and_units(self) -> None:
        true, _, _ = rows(300)
        figure = scatter(300)
        figure.draw_without_rendering()
        ax = figure.axes[0]
        (identity,) = [line for line in ax.lines if line.get_label() == "Predicted = measured"]
        assert np.array_equal(identity.get_xdata(), identity.get_ydata())
        assert identity.get_xdata()[0] <= true.min() and identity.get_xdata()[1] >= true.max()
        assert ax.get_xlim() == ax.get_ylim()
        assert ax.get_aspect() == 1
        box = ax.get_window_extent()
        assert box.width == pytest.approx(box.height, abs=1)
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("Measured pKd", "Predicted pKd")

    def test_few_rows_are_points_where_they_belong(self) -> None:
        true, pred, _ = rows(300)
        ax = scatter(300).axes[0]
        bins = bin_index(true)
        assert meshes(ax) == {}
        for label, of in (
            ("Very weak", bins == 0),
            ("Very strong", bins == 4),
            ("Weak to strong", (bins > 0) & (bins < 4)),
        ):
            assert np.array_equal(points(ax, label), np.column_stack([true, pred])[of])

    def test_many_rows_are_a_density_and_the_extremes_stay_points(self) -> None:
        true, pred, _ = rows(MANY)
        ax = scatter(MANY).axes[0]
        assert meshes(ax) == {"density": MANY - 25 - 7}
        assert np.array_equal(points(ax, "Very strong"), np.column_stack([true, pred])[-25:])
        assert len(points(ax, "Very weak")) == 7

    def test_an_extreme_bin_too_large_for_points_joins_the_density(self) -> None:
        true, pred, _ = rows(6000, very_weak=3000)
        ax = predictions_vs_targets(true, pred).axes[0]
        assert meshes(ax) == {"density": 6000 - 25}

    def test_labels_that_heap_up_on_a_value_fill_one_column_of_cells(self) -> None:
        true, pred = np.full(3000, 6.0), np.linspace(5, 8, 3000)
        (mesh,) = [c for c in predictions_vs_targets(true, pred).axes[0].collections if isinstance(c, QuadMesh)]
        counts = np.ma.filled(mesh.get_array(), 0).reshape(mesh.get_coordinates().shape[0] - 1, -1)
        (column,) = np.flatnonzero(counts.sum(axis=0))
        left, right = mesh.get_coordinates()[0, column : column + 2, 0]
        assert (left + right) / 2 == pytest.approx(6.0)

    def test_names_every_bin_with_its_rows(self) -> None:
        true, _, _ = rows(MANY)
        shown = [text.get_text() for text in scatter(MANY).axes[0].texts if isinstance(text, Annotation)]
        counts = np.bincount(bin_index(true), minlength=5)
        assert shown[::2] == ["Very weak", "Weak", "Moderate", "Strong", "Very strong"]
        assert shown[1::2] == [f"n = {count:,}" for count in counts]

    def test_figures_in_the_corner(self) -> None:
        true, pred, limit = rows(MANY)
        shown = [text.get_text() for text in scatter(MANY, censored=True).axes[1].texts]
        assert shown[:4] == ["", "n", "RMSE", "Spearman"]
        assert shown[4:8] == ["All rows", f"{MANY:,}", f"{rmse(true, pred):.2f}", f"{spearman(true, pred):.2f}"]
        true, pred = true[~limit], pred[~limit]
        assert shown[8:] == ["Measured", f"{len(true):,}", f"{rmse(true, pred):.2f}", f"{spearman(true, pred):.2f}"]

    @pytest.mark.parametrize("n", [300, MANY])
    def test_censored_rows_are_muted_and_in_the_legend(self, n: int) -> None:
        true, pred, limit = rows(n)
        ax, rail = scatter(n, censored=True).axes[:2]
        legend = rail.get_legend()
        assert legend is not None
        assert f"Censored (< or >)\n(n = {n // 3:,})" in [text.get_text() for text in legend.get_texts()]
        if n == 300:
            assert np.array_equal(points(ax, "Censored"), np.column_stack([true, pred])[limit])
            assert len(points(ax, "Weak to strong")) == n - n // 3 - 25 - 7
        else:
            shown = meshes(ax)
            assert shown["muted"] >= 0.95 * limit.sum()
            assert shown["muted"] + shown["density"] == n - 25 - 7
        assert "Censored" not in words(scatter(n))

    def test_censored_rows_of_both_kinds_are_muted_in_the_extreme_bins_too(self) -> None:
        ax = predictions_vs_targets([4.5, 12.0, 4.0, 11.5], [5.0, 11.0, 5.0, 10.0], censored=[1, 1, 0, 0]).axes[0]
        assert points(ax, "Censored").tolist() == [[4.5, 5.0], [12.0, 11.0]]
        assert points(ax, "Very weak").tolist() == [[4.0, 5.0]]
        assert points(ax, "Very strong").tolist() == [[11.5, 10.0]]

    @pytest.mark.parametrize("n", [60, 3000])
    def test_nothing_but_censored_rows(self, n: int) -> None:
        true, pred, _ = rows(n)
        figure = predictions_vs_targets(true, pred, censored=np.ones(n, dtype=bool))
        assert "Measured" not in [text.get_text() for text in figure.axes[1].texts]

    def test_wild_predictions_do_not_squash_the_picture(self) -> None:
        true, pred, _ = rows(300)
        pred[:2] = 400.0, -90.0
        figure = predictions_vs_targets(true, pred)
        low, high = figure.axes[0].get_xlim()
        assert high - low < 16
        assert "2 rows beyond the frame" in words(figure)
        assert "beyond" not in words(scatter(300))

    def test_shows_all_bins_where_the_data_has_one(self) -> None:
        low, high = predictions_vs_targets([8.0, 8.1], [8.0, 8.2]).axes[0].get_xlim()
        assert low <= 4 and high >= 12

    def test_refuses_what_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"one length; got \(2,\) and \(3,\)"):
            predictions_vs_targets([1.0, 2.0], [1.0, 2.0, 3.0])
        with pytest.raises(ValueError, match="finite"):
            predictions_vs_targets([1.0, np.nan], [1.0, 2.0])
        with pytest.raises(ValueError, match=r"one value per row, \(2,\); got \(3,\)"):
            predictions_vs_targets([1.0, 2.0], [1.0, 2.0], censored=[True] * 3)


class TestResidualsAnalysis:
    def test_tick_labels_count_the_rows_of_each_bin(self) -> None:
        true, _, _ = rows(MANY)
        by_bin = residuals(MANY).axes[2]
        counts = np.bincount(bin_index(true), minlength=5)
        assert [label.split("\n")[-1] for label in ticks(by_bin)] == [f"n = {count:,}" for count in counts]
        assert ticks(by_bin)[4] == "Very strong\n≥ 11\nn = 25"

    def test_residual_is_predicted_minus_measured(self) -> None:
        by_value = residuals_analysis([11.5, 12.0], [10.0, 12.5]).axes[0]
        assert points(by_value, "Very strong") == pytest.approx(np.array([[11.5, -1.5], [12.0, 0.5]]))

    def test_boxes_dots_and_emptiness(self) -> None:
        true = np.concatenate([np.full(4, 4.0), np.full(200, 6.0), np.full(5, 10.0), np.full(30, 11.5)])
        pred = true + np.random.default_rng(0).normal(0, 1, len(true))
        by_bin = residuals_analysis(true, pred).axes[2]
        boxes = [patch for patch in by_bin.patches if isinstance(patch, PathPatch)]
        centres = [round(float(box.get_path().get_extents().x0 + box.get_path().get_extents().x1) / 2) for box in boxes]
        assert centres == [1, 3, 4]
        dots = [c.get_offsets() for c in by_bin.collections if isinstance(c, PathCollection)]
        assert [len(np.asarray(of_bin)) for of_bin in dots] == [4, 5, 30]
        assert sorted(np.asarray(dots[0])[:, 1]) == pytest.approx(sorted(pred[:4] - true[:4]))

    def test_the_histogram_counts_every_row(self) -> None:
        true, pred, _ = rows(5000)
        pred[0] = 300.0
        together = residuals_analysis(true, pred).axes[1]
        bars = [patch for patch in together.patches if isinstance(patch, Rectangle)]
        assert sum(bar.get_width() for bar in bars) == 5000

    def test_zero_line_and_shared_residual_axis(self) -> None:
        true, pred, _ = rows(300)
        axes = residuals(300).axes
        assert len(axes) == 3
        for ax in axes:
            assert [list(line.get_ydata()) for line in ax.lines if line.get_label() == "_zero"] == [[0, 0]]
            assert ax.get_ylim() == axes[0].get_ylim()
            assert ax.get_ylim()[1] > np.abs(pred - true).max()

    def test_a_density_brings_its_colour_scale(self) -> None:
        figure = residuals(MANY)
        assert len(figure.axes) == 4
        assert meshes(figure.axes[0]) == {"density": MANY - 25 - 7}

    def test_censored_rows_are_muted_and_still_counted(self) -> None:
        true, pred, limit = rows(300)
        by_value, together, by_bin = residuals(300, censored=True).axes
        assert points(by_value, "Censored") == pytest.approx(np.column_stack([true, pred - true])[limit])
        assert len(points(by_value, "Weak to strong")) == 300 - 100 - 25 - 7
        assert "300 rows, 100 of them censored" in by_value.get_title(loc="left")
        plain = residuals(300).axes
        assert "censored" not in plain[0].get_title(loc="left")
        assert together.get_title(loc="left") == plain[1].get_title(loc="left")
        assert ticks(by_bin) == ticks(plain[2])
        bars = [patch for patch in together.patches if isinstance(patch, Rectangle)]
        by_colour = {
            colour: sum(b.get_width() for b in bars if b.get_facecolor() == to_rgba(colour)) for colour in (BULK, MUTED)
        }
        assert by_colour == {BULK: 200, MUTED: 100}

    def test_censored_rows_do_not_dominate_a_density(self) -> None:
        _, _, limit = rows(MANY)
        shown = meshes(residuals(MANY, censored=True).axes[0])
        assert shown["muted"] >= 0.95 * limit.sum()
        assert shown["muted"] + shown["density"] == MANY - 25 - 7

    def test_censored_dots_are_muted_beside_their_box(self) -> None:
        by_bin = residuals_analysis([6.0] * 8, np.linspace(5, 7, 8), censored=[True] * 3 + [False] * 5).axes[2]
        muted, measured = [c for c in by_bin.collections if isinstance(c, PathCollection)]
        assert muted.get_edgecolor().tolist() == [list(to_rgba(MUTED))]
        assert np.asarray(muted.get_offsets())[:, 1] == pytest.approx(np.linspace(-1, 1, 8)[:3])
        assert np.asarray(measured.get_offsets())[:, 1] == pytest.approx(np.linspace(-1, 1, 8)[3:])
        assert sum(isinstance(patch, PathPatch) for patch in by_bin.patches) == 1

    def test_wild_residuals_are_counted_not_hidden(self) -> None:
        true, pred, _ = rows(300)
        pred[0] = 400.0
        figure = residuals_analysis(true, pred)
        assert figure.axes[0].get_ylim() == (-8, 8)
        assert "300 rows, 1 beyond the frame" in figure.axes[0].get_title(loc="left")

    def test_refuses_what_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match="one length"):
            residuals_analysis([[1.0]], [[1.0]])
        with pytest.raises(ValueError, match=r"one value per row, \(2,\); got \(3,\)"):
            residuals_analysis([1.0, 2.0], [1.0, 2.0], censored=[True] * 3)


class TestComparisonChart:
    @pytest.mark.parametrize("n_runs", [2, 3, 6])
    def test_every_run_at_its_values(self, n_runs: int) -> None:
        comparison = compared(n_runs)
        errors, correlations = chart(n_runs).axes
        for ax, metrics in (
            (errors, ["rmse", *(f"{name}.rmse" for name in BIN_NAMES)]),
            (correlations, ["spearman", "pearson", "r2"]),
        ):
            markers = [line for line in ax.lines if line.get_marker() not in ("None", None)]
            assert len(markers) == n_runs
            for line, run in zip(markers, comparison.differences, strict=True):
                by_metric = {entry.metric: entry for entry in run}
                assert list(line.get_ydata()) == [by_metric[metric].value for metric in metrics]
                for x, metric in zip(line.get_xdata(), metrics, strict=True):
                    assert any(
                        list(bar.get_xdata()) == [x, x] and tuple(bar.get_ydata()) == by_metric[metric].interval
                        for bar in ax.lines
                    )

    def test_tick_labels_have_the_rows(self) -> None:
        comparison = compared(n=2400)
        labels = ticks(comparison_chart(comparison).axes[0])
        assert labels[0].endswith("n = 2,400")
        counts = [comparison.bin_counts[name] for name in BIN_NAMES]
        assert [label.split("\n")[-1] for label in labels[1:]] == [f"n = {count:,}" for count in counts]

    def test_errors_are_of_measured_rows_where_these_decide(self) -> None:
        true, pred, limit = rows(600)
        errors, order = comparison_chart(by_measured()).axes
        weak = int(((bin_index(true) == BIN_NAMES.index("weak")) & ~limit).sum())
        assert [ticks(errors)[0].split("\n")[-1], ticks(errors)[2].split("\n")[-1]] == ["n = 400", f"n = {weak}"]
        assert ticks(order) == ["Spearman", "Concordance"]
        shown = next(line for line in errors.lines if line.get_marker() not in ("None", None)).get_ydata()
        assert shown[0] == rmse(true[~limit], pred[~limit]) != rmse(true, pred)
        of_weak = (bin_index(true) == BIN_NAMES.index("weak")) & ~limit
        assert shown[2] == rmse(true[of_weak], pred[of_weak])
        assert ticks(comparison_chart(replace(by_measured(), rows="all")).axes[0])[0].endswith("n = 600")

    def test_an_empty_bin_stays_empty_and_a_single_row_has_no_interval(self) -> None:
        errors = chart(very_strong=1, very_weak=0).axes[0]
        marker = next(line for line in errors.lines if line.get_marker() not in ("None", None))
        weak, strong = marker.get_ydata()[1], marker.get_ydata()[5]
        assert np.isnan(weak) and np.isfinite(strong)
        assert not any(list(bar.get_xdata()) == [marker.get_xdata()[5]] * 2 for bar in errors.lines)

    def test_criteria_are_marked_where_there_are_very_strong_rows(self) -> None:
        def dotted(figure: Figure) -> list[float]:
            lines = figure.axes[0].lines
            return [line.get_ydata()[0] for line in lines if list(line.get_xdata()) == [4.5, 5.5]]

        assert dotted(chart()) == [2.0, 1.5, 1.0]
        assert dotted(chart(very_strong=0, very_weak=0)) == []

    def test_names_are_shown_as_they_are(self) -> None:
        names = ("_hidden", "$x^$", "run_1/2")
        (legend,) = comparison_chart(compared(names=names)).legends
        assert [text.get_text() for text in legend.get_texts()] == list(names)

    def test_axes_start_at_zero_and_reach_the_highest_interval(self) -> None:
        comparison = compared()
        errors, correlations = chart().axes
        highest = max(e.interval[1] for run in comparison.differences for e in run if "rmse" in e.metric and e.interval)
        assert errors.get_ylim()[0] == 0 and errors.get_ylim()[1] > highest
        assert correlations.get_ylim() == (0, 1)

    def test_a_negative_r2_is_on_the_axis(self) -> None:
        true, _, _ = rows(300)
        comparison = compare_predictions(true, {"a": true + 2.2, "b": true}, n_resamples=50)
        assert -1 < comparison.differences[0][4].value < 0
        assert comparison_chart(comparison).axes[1].get_ylim()[0] < comparison.differences[0][4].value

    def test_an_r2_far_below_does_not_stretch_the_axis_and_is_said_to_be_cut(self) -> None:
        true, _, _ = rows(300)
        axes = comparison_chart(compare_predictions(true, {"a": true + 50, "b": true}, n_resamples=50)).axes[1]
        assert axes.get_ylim()[0] == -1
        assert "below −1 not shown" in [text.get_text() for text in axes.texts]


def censored(n: int, **size: int) -> Callable[[], list[Figure]]:
    return lambda: [scatter(n, censored=True, **size), residuals(n, censored=True, **size)]


def both(true: list[float], pred: list[float]) -> Callable[[], list[Figure]]:
    return lambda: [predictions_vs_targets(true, pred), residuals_analysis(true, pred)]


LONG = "A title that goes on and on, as the names of runs in folders of folders do, " * 2

CASES: dict[str, Callable[[], list[Figure]]] = {
    "no rows": both([], []),
    "one row": both([8.0], [7.5]),
    "one row, perfect": both([12.0], [12.0]),
    "constant predictions": both([4.0, 6.0, 8.0, 11.0], [7.0] * 4),
    "constant labels": both([6.0] * 50, np.linspace(5, 7, 50).tolist()),
    "all the same": both([6.0] * 3000, [6.0] * 3000),
    "beyond any scale": both([-30.0, 6.0, 45.0], [1e9, 6.0, -1e9]),
    "wide": both(np.linspace(-5, 20, 3000).tolist(), np.linspace(-5, 20, 3000).tolist()),
    "few": censored(300),
    "many": censored(MANY),
    "missing bins": censored(3000, very_strong=0, very_weak=0),
    "long title": lambda: [f([5.0, 12.0], [6.0, 9.0], LONG) for f in (predictions_vs_targets, residuals_analysis)],
    "markup in the title": lambda: [
        predictions_vs_targets([5.0], [6.0], "$x^$ 100% _a"),
        training_curves(history(3), 1, "$\\frac"),
    ],
    "long names of runs": lambda: [comparison_chart(compared(names=tuple(f"{LONG[:70]}/{i}" for i in range(6))))],
    "comparison by measured rows": lambda: [comparison_chart(by_measured())],
    "comparison without very strong rows": lambda: [chart(very_strong=0, very_weak=0)],
}


@pytest.mark.parametrize("case", CASES)
def test_edge_cases_draw_without_warning_or_clipping(case: str) -> None:
    for figure in CASES[case]():
        assert_nothing_clipped(figure)


def test_inputs_are_not_changed() -> None:
    true, pred, limit = rows(3000)
    pred[0] = 99.0
    given = history(30)
    copies = true.copy(), pred.copy(), limit.copy(), {key: list(values) for key, values in given.items()}
    predictions_vs_targets(true, pred, censored=limit)
    residuals_analysis(true, pred, censored=limit)
    training_curves(given, 3)
    assert all(np.array_equal(now, before) for now, before in zip((true, pred, limit), copies[:3], strict=True))
    assert given == copies[3]


@cache
def three_rows() -> bytes:
    return png(residuals_analysis([4.0, 8.0, 11.5], [6.0, 8.5, 9.0]), dpi=40)


def test_float32_and_lists_give_the_same_picture() -> None:
    true, pred = np.array([4.0, 8.0, 11.5], dtype=np.float32), np.array([6.0, 8.5, 9.0], dtype=np.float32)
    assert png(residuals_analysis(true, pred), dpi=40) == three_rows()


def test_no_global_state_is_left_behind() -> None:
    before = dict(matplotlib.rcParams)
    true, pred, _ = rows(50)
    png(predictions_vs_targets(true, pred), dpi=40)
    png(comparison_chart(compared(n=60)), dpi=40)
    assert dict(matplotlib.rcParams) == before
    assert not hasattr(plots, "plt")


def test_a_users_settings_do_not_show() -> None:
    ours = three_rows()
    with matplotlib.rc_context({"font.size": 22, "axes.grid": True, "axes.facecolor": "pink", "xtick.labelsize": 30}):
        theirs = png(residuals_analysis([4.0, 8.0, 11.5], [6.0, 8.5, 9.0]), dpi=40)
    assert ours == theirs


class TestPng:
    def test_signature_and_size(self) -> None:
        content = png(Figure(figsize=(3, 2)), dpi=50)
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", content[16:24]) == (150, 100)

    def test_figures_are_as_wide_as_the_page_at_twice_its_pixels(self) -> None:
        for figure in (curves(3), scatter(300), residuals(300), chart()):
            assert figure.get_figwidth() == 9
        assert struct.unpack(">I", png(scatter(300))[16:20]) == (9 * 150,)

    def test_same_figure_same_bytes(self) -> None:
        assert png(training_curves(history(3), 3, "v2"), dpi=40) == png(curves(3), dpi=40)
