"""Pictures of a run: how it trained, what it predicts, where it errs, how it compares. Arrays in, figures out.

Nothing is read or written here and pyplot's global state is never touched. Figures are made for a page some
900 pixels wide. One palette serves them all: blue for the bulk, vermilion and purple for very strong and very
weak binders, grey for what is muted (training loss, detection floors, the reference run). Marker shapes repeat
what the colours say.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, MultipleLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from tailbind.evaluation.comparison import Comparison, Difference
from tailbind.evaluation.criteria import CRITERIA, metric_label
from tailbind.evaluation.metrics import bias, rmse, spearman
from tailbind.scale import BIN_EDGES, BIN_NAMES, PKD_RANGE, bin_index, bin_label

Array = NDArray[np.float64]
Rows = NDArray[np.bool_]

#: Rows are drawn one by one up to here, and as densities beyond.
FEW_ROWS: Final = 2000
#: A bin's residuals are boxed from here on, and only dots below.
ENOUGH_FOR_BOX: Final = 5
#: The dots behind a box are shown up to here.
DOTS_BEHIND_BOX: Final = 200

WIDTH_INCHES: Final = 9.0
INK, SOFT, LINE, TINT = "#1c2733", "#5b6875", "#cfd6dd", "#f3f5f8"
BULK, STRONG, WEAK, MUTED = "#1f5f8b", "#cc4b0f", "#7a3f94", "#98a3ae"
DENSITY: Final = LinearSegmentedColormap.from_list("density", ["#c3dcee", "#6ea8d0", BULK, "#0b2338"])
MUTED_DENSITY: Final = LinearSegmentedColormap.from_list("muted", ["#dadee3", "#a9b2bb", "#6f7a86", "#3d4650"])
#: Runs of a comparison, the reference first. After Okabe and Ito, darkened to carry thin lines on white.
RUN_COLOURS: Final = ("#7d8994", BULK, "#e08a00", "#0f8a68", "#b84a86", "#55aee0")
RUN_MARKERS: Final = ("o", "s", "D", "^", "v", "P", "X")
#: How the rows of the two extreme bins look: bin → colour, marker.
EXTREMES: Final = {"very_weak": (WEAK, "v"), "very_strong": (STRONG, "^")}

_STYLE: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "text.usetex": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "savefig.facecolor": "auto",
    "savefig.bbox": None,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}
_SMALL: Final = 9.0


def training_curves(history: Mapping[str, Sequence[float]], best_epoch: int, title: str = "") -> Figure:
    """Return the losses and the learning rate by epoch, one above the other.

    The training loss is the mean over the epoch's batches, measured with dropout while the weights move; it may
    lie above the validation loss without anything being wrong, and the legend says so. Losses are on a log
    axis, unless one is not positive. The learning rate is drawn as what it was: one level per epoch.

    Parameters
    ----------
    history : one number per epoch under each of epoch, train_loss, val_loss, lr, seconds, rows_per_second
    best_epoch : the epoch whose weights were kept; not marked where the history lacks it
    title : above the figure

    Examples
    --------
    >>> history = {"epoch": [1, 2], "train_loss": [2.0, 1.0], "val_loss": [1.5, 1.2], "lr": [1e-4, 9e-5],
    ...            "seconds": [0.5, 0.5], "rows_per_second": [1e5, 1e5]}
    >>> len(training_curves(history, best_epoch=2).axes)
    2
    """
    with matplotlib.rc_context(_STYLE):
        epoch, train, val, lr, seconds, rate = (
            np.asarray(history[key], dtype=np.float64)
            for key in ("epoch", "train_loss", "val_loss", "lr", "seconds", "rows_per_second")
        )
        figure = _figure(6.0, title)
        grid = figure.add_gridspec(2, 1, height_ratios=[2.6, 1])
        top = _axes(figure, grid[0])
        bottom = _axes(figure, grid[1], sharex=top)
        if not len(epoch):
            return _nothing_to_show(top, "No epochs")

        marker = "o" if len(epoch) <= 30 else None
        width = 1.8 if len(epoch) <= 300 else 1.1
        style: dict[str, Any] = {"marker": marker, "markersize": 4, "linewidth": width}
        top.plot(epoch, train, color=MUTED, label="Training (during the epoch, with dropout)", **style)
        top.plot(epoch, val, color=BULK, label="Validation", zorder=3, **style)
        _value_axis(top.yaxis, np.concatenate([train, val]))
        top.set_ylabel("Loss")
        top.tick_params(labelbottom=False)

        edges = np.append(epoch - 0.5, epoch[-1] + 0.5)
        bottom.stairs(lr, edges, baseline=None, color=BULK, linewidth=max(width - 0.3, 1.0), label="Learning rate")
        _value_axis(bottom.yaxis, lr)
        bottom.set_ylabel("Learning rate")
        bottom.set_xlabel("Epoch")
        bottom.set_xlim(edges[0], edges[-1])
        bottom.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
        bottom.xaxis.set_major_formatter(_THOUSANDS)

        if best_epoch in epoch:
            best = float(val[epoch == best_epoch][0])
            for ax in (top, bottom):
                ax.axvline(best_epoch, color=STRONG, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
            label = f"Best: epoch {best_epoch:,}, loss {best:.4g}"
            top.plot([best_epoch], [best], "o", color=STRONG, markersize=7, mec="white", zorder=4, label=label)
        restarts = epoch[1:][lr[1:] > 1.5 * lr[:-1]]
        if len(restarts) <= 12:
            for restart in restarts:
                top.axvline(restart - 0.5, color=LINE, linewidth=0.8, zorder=0, label="_restart")
        top.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, borderaxespad=0.2, handlelength=1.6)
        pace = f"{_duration(float(seconds.sum()))} of training, {np.median(rate):,.0f} rows per second"
        bottom.set_title(pace, loc="right", fontsize=_SMALL, color=SOFT)
        figure.align_ylabels()
        return figure


def predictions_vs_targets(
    y_true: ArrayLike, y_pred: ArrayLike, title: str = "", censored: ArrayLike | None = None
) -> Figure:
    """Return predicted against measured pKd.

    Up to `FEW_ROWS` rows are points; more are a density with a logarithmic colour scale, in which the rows of an
    extreme bin stay points as long as they are few. Rows beyond `PKD_RANGE` are drawn at its ends and counted.

    Parameters
    ----------
    y_true, y_pred : (n_samples,) pKd
    title : above the figure
    censored : (n_samples,) bool
        Rows whose label is a limit (a detection floor), not a measurement. Muted; a cell of the density is muted
        where they are the majority. The figures in the corner are then also given without them.

    Raises
    ------
    ValueError
        When the arrays differ in length or hold what is not finite.

    Examples
    --------
    >>> figure = predictions_vs_targets([4.0, 8.0, 11.5], [6.0, 8.0, 9.0])
    >>> figure.axes[0].get_xlabel()
    'Measured pKd'
    """
    true, pred = _checked(y_true, y_pred)
    floor = np.zeros(len(true), dtype=bool) if censored is None else np.asarray(censored, dtype=bool)
    if floor.shape != true.shape:
        raise ValueError(f"censored must be one value per row, {true.shape}; got {floor.shape}")
    with matplotlib.rc_context(_STYLE):
        figure = _figure(6.9 if title else 6.6, title)
        grid = figure.add_gridspec(1, 2, width_ratios=[1, 0.36])
        ax, rail = _axes(figure, grid[0]), figure.add_subplot(grid[1])
        rail.set_axis_off()
        ax.set_xlabel("Measured pKd")
        ax.set_ylabel("Predicted pKd")
        if not len(true):
            return _nothing_to_show(ax, "No rows")

        x, y = np.clip(true, *PKD_RANGE), np.clip(pred, *PKD_RANGE)
        low, high = _frame(np.concatenate([x, y]))
        ax.set(xlim=(low, high), ylim=(low, high))
        ax.set_aspect("equal", anchor="NW")
        _bands(ax, true, low, high)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MultipleLocator(1 if high - low <= 14 else 2))
        for edge in BIN_EDGES:
            ax.axhline(edge, color=LINE, linewidth=0.7, zorder=0.6, label="_edge")
        (identity,) = ax.plot([low, high], [low, high], color=INK, linewidth=1, linestyle=(0, (5, 3)), zorder=4)
        identity.set_label("Predicted = measured")

        handles: list[Artist] = [identity]
        drawn, mesh = _rows(ax, x, y, bin_index(true), floor)
        handles += drawn
        _legend(rail, handles, loc="upper left", bbox_to_anchor=(0, 0.80), borderaxespad=0, handlelength=1.6)
        _figures(rail, true, pred, floor)
        beyond = int(((x != true) | (y != pred)).sum())
        if beyond:
            note = f"{_count(beyond, 'row')} beyond the frame,\ndrawn at its edge"
            rail.text(0, 0.42, note, va="top", fontsize=_SMALL, color=SOFT)
        if mesh is not None:
            _colour_scale(figure, rail, mesh)
        return figure


def residuals_analysis(y_true: ArrayLike, y_pred: ArrayLike, title: str = "") -> Figure:
    """Return the residuals, predicted minus measured, by measured pKd, all together, and by affinity bin.

    Parameters
    ----------
    y_true, y_pred : (n_samples,) pKd
    title : above the figure

    Raises
    ------
    ValueError
        When the arrays differ in length or hold what is not finite.

    Examples
    --------
    >>> figure = residuals_analysis([4.0, 8.0, 11.5], [6.0, 8.0, 9.0])
    >>> figure.axes[2].get_xticklabels()[0].get_text()
    'Very weak\\n< 5\\nn = 1'
    """
    true, pred = _checked(y_true, y_pred)
    with matplotlib.rc_context(_STYLE):
        figure = _figure(8.0, title)
        grid = figure.add_gridspec(2, 2, width_ratios=[3.4, 1], height_ratios=[1.15, 1])
        by_value = _axes(figure, grid[0, 0])
        together = _axes(figure, grid[0, 1], sharey=by_value)
        by_bin = _axes(figure, grid[1, :])
        if not len(true):
            return _nothing_to_show(by_value, "No rows")
        limit = PKD_RANGE[1] - PKD_RANGE[0]
        residual = np.clip(pred - true, -limit, limit)
        reach = _reach(residual)
        bins = bin_index(true)

        x = np.clip(true, *PKD_RANGE)
        low, high = _frame(x)
        by_value.set(xlim=(low, high), ylim=(-reach, reach))
        by_value.set_xlabel("Measured pKd")
        by_value.set_ylabel("Predicted − measured pKd")
        by_value.xaxis.set_major_locator(MultipleLocator(1 if high - low <= 14 else 2))
        _bands(by_value, true, low, high)
        handles, mesh = _rows(by_value, x, residual, bins, np.zeros(len(x), dtype=bool))
        if mesh is not None:
            bar = figure.colorbar(mesh, ax=by_value, location="bottom", aspect=60, fraction=0.04, pad=0.02)
            _dress_colour_scale(bar.ax.xaxis)
            bar.ax.set_xlabel("Rows per cell", fontsize=_SMALL, color=SOFT)
            bar.outline.set_visible(False)  # type: ignore[operator]

        together.hist(residual, bins=np.linspace(-reach, reach, 61).tolist(), orientation="horizontal", color=BULK)
        together.set_xlabel("Rows")
        together.xaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
        together.xaxis.set_major_formatter(_THOUSANDS)
        together.tick_params(labelleft=False)
        summary = f"n = {len(true):,}\nmean {_signed(bias(true, pred))}\nSD {np.std(pred - true):.2f}"
        together.set_title(summary, loc="left", fontsize=_SMALL, color=SOFT, linespacing=1.3)

        _boxes(by_bin, residual, bins)
        by_bin.set_ylim(-reach, reach)
        by_bin.set_ylabel("Predicted − measured pKd")
        explained = "Line: median. Box: middle half. Whiskers: 5th to 95th percentile."
        by_bin.set_title(explained, loc="left", fontsize=_SMALL, color=SOFT)
        for ax in figure.axes[:3]:
            ax.axhline(0, color=INK, linewidth=1, linestyle=(0, (5, 3)), zorder=4, label="_zero")
        figure.align_ylabels([by_value, by_bin])
        return figure


def comparison_chart(comparison: Comparison) -> Figure:
    """Return the RMSE of every run, overall and per bin, and beside it the correlations, with their intervals.

    Bars are 95 % bootstrap intervals; a bin of one row has none, a bin without rows stays empty. Short lines in
    the last bin are the success criteria for its RMSE.

    Parameters
    ----------
    comparison : of two to six runs, as `compare_predictions` gives it; the first is the reference

    Examples
    --------
    >>> from tailbind.evaluation.comparison import compare_predictions
    >>> y_true = np.array([4.0, 6.0, 8.0, 10.0, 12.0])
    >>> figure = comparison_chart(compare_predictions(y_true, {"v1": y_true * 0.5, "v2": y_true + 0.1}, 100))
    >>> [label.get_text() for label in figure.axes[1].get_xticklabels()]
    ['Spearman', 'Pearson', 'R²']
    """
    with matplotlib.rc_context(_STYLE):
        figure = _figure(4.9, "")
        grid = figure.add_gridspec(1, 2, width_ratios=[2.6, 1])
        errors, correlations = _axes(figure, grid[0]), _axes(figure, grid[1])
        by_metric = [{entry.metric: entry for entry in run} for run in comparison.differences]

        places = np.array([-0.25, 1, 2, 3, 4, 5])
        ticks = [f"Overall\n\nn = {comparison.n:,}"]
        ticks += [_bin_tick(name, comparison.bin_counts[name]) for name in BIN_NAMES]
        metrics = ["rmse", *(f"{name}.rmse" for name in BIN_NAMES)]
        for place in (1, 3, 5):
            errors.axvspan(place - 0.5, place + 0.5, color=TINT, linewidth=0, zorder=0)
        handles = _intervals(errors, places, metrics, by_metric)
        errors.set_xlim(-0.75, 5.5)
        errors.set_xticks(places, ticks)
        errors.set_title("RMSE in pKd, lower is better", loc="left", fontsize=10)
        top = max(errors.dataLim.y1, 0.1) if np.isfinite(errors.dataLim.y1) else 1.0
        if comparison.bin_counts["very_strong"]:
            top = max(top, CRITERIA["minimum"]["very_strong.rmse"])
            for level, thresholds in CRITERIA.items():
                threshold = thresholds["very_strong.rmse"]
                errors.plot([4.5, 5.5], [threshold] * 2, color=SOFT, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
                if top < 12:
                    errors.annotate(
                        level, (4.5, threshold), (-3, 0), textcoords="offset points",
                        ha="right", va="center", fontsize=8, color=SOFT,
                    )  # fmt: skip
        errors.set_ylim(0, top * 1.06)

        shown = ("spearman", "pearson", "r2")
        _intervals(correlations, np.arange(3.0), list(shown), by_metric)
        correlations.set_xlim(-0.5, 2.5)
        correlations.set_xticks(range(3), [metric_label(metric) for metric in shown])
        correlations.set_title("Higher is better", loc="left", fontsize=10)
        lowest = correlations.dataLim.y0 if np.isfinite(correlations.dataLim.y0) else 0.0
        correlations.set_ylim(min(0.0, lowest - 0.05), 1)
        for ax in (errors, correlations):
            ax.grid(axis="y", color=LINE, linewidth=0.7)
            ax.tick_params(axis="x", length=0)
        names = [textwrap.shorten(name, 44, placeholder=" …") if " " in name else name for name in comparison.names]
        for handle, name in zip(handles, names, strict=True):
            handle.set_label(name)
        columns = max(1, min(len(names), 92 // (max(map(len, names)) + 6)))
        _legend(figure, handles, loc="outside upper left", ncols=columns, handlelength=1.6)
        figure.supxlabel(
            f"Bars: 95 % bootstrap intervals over {_count(comparison.n, 'test row')}. Dotted: criteria for very strong.",
            x=0.01, ha="left", fontsize=_SMALL, color=SOFT,
        )  # fmt: skip
        return figure


def png(figure: Figure, dpi: int = 150) -> bytes:
    r"""Return a figure as a PNG file's bytes; the same figure gives the same bytes.

    >>> png(Figure(figsize=(1, 1)))[:4]
    b'\x89PNG'
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


_THOUSANDS: Final = FuncFormatter(lambda value, _: f"{value:,.0f}")


def _checked(y_true: ArrayLike, y_pred: ArrayLike) -> tuple[Array, Array]:
    """Return both as float64 vectors of one length."""
    true, pred = np.asarray(y_true, dtype=np.float64), np.asarray(y_pred, dtype=np.float64)
    if true.ndim != 1 or true.shape != pred.shape:
        raise ValueError(f"y_true and y_pred must be vectors of one length; got {true.shape} and {pred.shape}")
    if not (np.isfinite(true).all() and np.isfinite(pred).all()):
        raise ValueError("y_true and y_pred must be finite")
    return true, pred


def _figure(height: float, title: str) -> Figure:
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr]
    if title:
        text = figure.suptitle(textwrap.fill(title, 85), x=0.012, ha="left", fontsize=12, fontweight="bold")
        text.set_parse_math(False)
    return figure


def _axes(figure: Figure, place: SubplotSpec, **shared: Axes) -> Axes:
    ax = figure.add_subplot(place, **shared)  # type: ignore[arg-type]
    ax.spines[["top", "right"]].set_visible(False)
    # Ticks are made when first drawn, outside the style: what they look like must be said here.
    ax.tick_params(labelsize=_SMALL, color=SOFT, labelcolor=INK, length=3, width=0.8)
    return ax


def _legend(on: Axes | Figure, handles: Sequence[Artist], **options: Any) -> Legend:
    legend = on.legend(handles=handles, **options)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return legend


def _nothing_to_show(ax: Axes, words: str) -> Figure:
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color=SOFT)
    return ax.get_figure(root=True)  # type: ignore[return-value]


def _value_axis(axis: Axis, values: Array) -> None:
    """Make an axis logarithmic where all values are positive, with ticks that can be read at any range."""
    low, high = float(values.min()), float(values.max())
    set_limits, set_scale = axis.axes.set_ylim, axis.axes.set_yscale
    if low <= 0:
        pad = 0.06 * (high - low) or 0.5
        set_limits(low - pad, high + pad)
    else:
        set_scale("log")
        ratio = high / low
        pad = max(ratio**0.06, 1.05 if ratio > 1 else 1.5)
        set_limits(low / pad, high * pad)
        if ratio * pad**2 < 6:
            axis.set_major_locator(MaxNLocator(4))
        else:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 300 else (1.0,), numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axis.axes.grid(axis="y", color=LINE, linewidth=0.7)


def _plain(value: float) -> str:
    """Return a number as short as it can be said: 24,000, 0.5, 1e-4."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.6g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _bin_tick(name: str, n: int) -> str:
    """Return a bin's name, range and number of rows on three lines."""
    words, limits = bin_label(name).rstrip(")").split(" (")
    return f"{words}\n{limits}\nn = {n:,}"


def _frame(values: Array) -> tuple[float, float]:
    """Return limits that show all five bins and every value."""
    low, high = float(values.min()), float(values.max())
    return min(np.floor(low * 2) / 2 - 0.25, BIN_EDGES[0] - 1.25), max(
        np.ceil(high * 2) / 2 + 0.25, BIN_EDGES[-1] + 1.25
    )


def _reach(residual: Array) -> float:
    return max(float(np.abs(residual).max()) * 1.06, 1.0)


def _bands(ax: Axes, true: Array, low: float, high: float) -> None:
    """Shade every other affinity bin and name all of them, with their rows, above the axes."""
    counts = np.bincount(bin_index(true), minlength=len(BIN_NAMES))
    limits = np.array([low, *BIN_EDGES, high])
    for index, name in enumerate(BIN_NAMES):
        left, right = limits[index], limits[index + 1]
        if index % 2 == 0:
            ax.axvspan(left, right, color=TINT, linewidth=0, zorder=0.5)
        words = name.replace("_", " ").capitalize()
        crowded = (right - left) / (high - low) < 0.12
        ax.annotate(
            f"{words}\nn = {counts[index]:,}", ((left + right) / 2, 1), (0, 4), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="bottom", fontsize=7 if crowded else 8.5, color=SOFT,
            linespacing=1.3,
        )  # fmt: skip
    for edge in BIN_EDGES:
        ax.axvline(edge, color=LINE, linewidth=0.7, zorder=0.6, label="_edge")


def _rows(ax: Axes, x: Array, y: Array, bins: NDArray[np.intp], floor: Rows) -> tuple[list[Artist], QuadMesh | None]:
    """Draw rows as points or as a density; return what a legend needs, and the density if there is one."""
    dense = np.full(len(x), len(x) > FEW_ROWS)
    points: list[tuple[Rows, str, str, str]] = []
    for name, (colour, marker) in EXTREMES.items():
        rows = (bins == BIN_NAMES.index(name)) & ~floor
        if 0 < rows.sum() <= FEW_ROWS:
            dense[rows] = False
            points.append((rows, colour, marker, name.replace("_", " ").capitalize()))
    extreme = np.logical_or.reduce([rows for rows, *_ in points], axis=0) if points else np.zeros(len(x), dtype=bool)
    points.insert(0, (~dense & ~extreme & ~floor, BULK, "o", "Other rows" if extreme.any() else "Rows"))

    handles: list[Artist] = []
    mesh = _density(ax, x, y, dense, floor) if dense.any() else None
    if floor.any():
        label = f"Detection floor, n = {floor.sum():,}"
        if dense.any():
            handles.append(Patch(color=MUTED_DENSITY(0.4), label=label))
        else:
            style = {"facecolors": "none", "edgecolors": MUTED, "linewidths": 0.8}
            handles.append(ax.scatter(x[floor], y[floor], 14, marker="o", zorder=2, label=label, **style))
    for rows, colour, marker, label in points:
        if rows.any():
            size = 26 if marker != "o" else float(np.clip(4000 / rows.sum(), 9, 26))
            handles.append(
                ax.scatter(
                    x[rows], y[rows], size, color=colour, marker=marker, alpha=0.8 if marker != "o" else 0.6,
                    edgecolors="white", linewidths=0.4, zorder=3, label=label, clip_on=False,
                )
            )  # fmt: skip
    return handles, mesh


def _density(ax: Axes, x: Array, y: Array, dense: Rows, floor: Rows) -> QuadMesh:
    """Draw how many of the `dense` rows lie in each cell, muted where most are detection floors."""
    columns, rows = _cells(*ax.get_xlim()), _cells(*ax.get_ylim())
    total, _, _ = np.histogram2d(x[dense], y[dense], (columns, rows))
    floors, _, _ = np.histogram2d(x[dense & floor], y[dense & floor], (columns, rows))
    norm = LogNorm(1, max(float(total.max()), 10.0))

    def draw(of: Rows, cmap: Colormap, zorder: float) -> QuadMesh:
        counts = np.ma.masked_where(~of, total)
        return ax.pcolormesh(columns, rows, counts.T, norm=norm, cmap=cmap, zorder=zorder, rasterized=True)

    muted = (total > 0) & (floors > total / 2)
    if muted.any():
        draw(muted, MUTED_DENSITY, 1.9)
    return draw((total > 0) & ~muted, DENSITY, 2)


def _cells(low: float, high: float) -> Array:
    """Return cell edges over a range, some 90, with round numbers (where labels heap up) at cell centres."""
    width = next((w for w in (0.05, 0.1, 0.2, 0.25) if (high - low) / w <= 110), 0.5)
    return width * (np.arange(np.floor(low / width), np.ceil(high / width) + 2) - 0.5)


def _figures(rail: Axes, true: Array, pred: Array, floor: Rows) -> None:
    """Write n, RMSE and Spearman at the top of the rail, and again without the detection floors."""
    kinds = [("All rows", np.ones(len(true), dtype=bool))]
    if floor.any() and not floor.all():
        kinds.append(("Measured only", ~floor))
    lines = [("", "n", "RMSE", "Spearman")]
    for words, rows in kinds:
        rank = spearman(true[rows], pred[rows])
        lines.append((words, f"{rows.sum():,}", f"{rmse(true[rows], pred[rows]):.2f}",
                      f"{rank:.2f}".replace("-", "−") if np.isfinite(rank) else "–"))  # fmt: skip
    for column, (words, *values) in enumerate(lines):
        x, align = [(0.0, "left"), (0.62, "right"), (1.0, "right")][column]
        rail.text(x, 1.0, words, ha=align, va="top", fontsize=8.5, color=SOFT)
        for row, value in enumerate(values):
            rail.text(x, 0.955 - 0.04 * row, value, ha=align, va="top", fontsize=9.5, color=INK if column else SOFT)


def _colour_scale(figure: Figure, rail: Axes, mesh: QuadMesh) -> None:
    bar = figure.colorbar(mesh, cax=rail.inset_axes((0.0, 0.0, 0.09, 0.36)))
    _dress_colour_scale(bar.ax.yaxis)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.set_title("Rows per cell", loc="left", fontsize=_SMALL, color=SOFT)


def _dress_colour_scale(axis: Axis) -> None:
    axis.set_major_formatter(_THOUSANDS)
    axis.set_minor_locator(NullLocator())
    axis.set_tick_params(labelsize=_SMALL, length=0, labelcolor=INK)


def _boxes(ax: Axes, residual: Array, bins: NDArray[np.intp]) -> None:
    """Draw a box per affinity bin, dots for the rows of a small one, nothing for an empty one."""
    ticks = []
    for index, name in enumerate(BIN_NAMES):
        values = residual[bins == index]
        ticks.append(_bin_tick(name, len(values)))
        colour, marker = EXTREMES.get(name, (BULK, "o"))
        if index % 2 == 0:
            ax.axvspan(index - 0.5, index + 0.5, color=TINT, linewidth=0, zorder=0)
        if len(values) >= ENOUGH_FOR_BOX:
            low, q1, median, q3, high = np.percentile(values, [5, 25, 50, 75, 95])
            box = {"whislo": low, "q1": q1, "med": median, "q3": q3, "whishi": high}
            line = {"color": colour, "linewidth": 1.3}
            ax.bxp(
                [box], positions=[index], widths=0.42, showfliers=False, showcaps=False, patch_artist=True,
                boxprops={"facecolor": "white", "edgecolor": colour, "linewidth": 1.3}, whiskerprops=line,
                medianprops={**line, "linewidth": 2.6}, manage_ticks=False, zorder=2,
            )  # fmt: skip
        if 0 < len(values) <= DOTS_BEHIND_BOX:
            # Steps of the golden ratio spread dots evenly without a random number.
            spread = 0.34 * ((np.arange(len(values)) * 0.618034) % 1 - 0.5) if len(values) > 1 else np.zeros(1)
            ax.scatter(
                index + spread, values, 22, color=colour, marker=marker, alpha=0.6, edgecolors="white", linewidths=0.4,
                zorder=3,
            )  # fmt: skip
    ax.set_xlim(-0.5, len(BIN_NAMES) - 0.5)
    ax.set_xticks(range(len(BIN_NAMES)), ticks)
    ax.tick_params(axis="x", length=0)
    ax.grid(axis="y", color=LINE, linewidth=0.7)


def _intervals(
    ax: Axes, places: Array, metrics: Sequence[str], runs: Sequence[Mapping[str, Difference]]
) -> list[Line2D]:
    """Draw each run's value and interval in each metric, side by side around its place; return one line per run."""
    step = min(0.16, 0.72 / len(runs))
    handles = []
    for position, run in enumerate(runs):
        colour, marker = RUN_COLOURS[position % len(RUN_COLOURS)], RUN_MARKERS[position % len(RUN_MARKERS)]
        x = places + step * (position - (len(runs) - 1) / 2)
        entries = [run[metric] for metric in metrics]
        values = [np.nan if entry.value is None else entry.value for entry in entries]
        for place, entry in zip(x, entries, strict=True):
            if entry.interval is not None:
                ax.plot([place] * 2, entry.interval, color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
        (line,) = ax.plot(x, values, marker, color=colour, markersize=7, mec="white", mew=0.8, zorder=3)
        handles.append(line)
    return handles
