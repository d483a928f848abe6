"""Pictures of a run: how it trained, what it predicts, where it errs, how it compares. Arrays in, figures out.

Nothing is read or written here and pyplot's global state is never touched. What the figures share, and how they
look, is in `tailbind.reporting.drawing`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from tailbind.evaluation.metrics import bias, rmse, spearman
from tailbind.reporting import drawing
from tailbind.reporting.drawing import BULK, DASHED, EXTREMES, INK, LINE, MUTED, SMALL, SOFT, STRONG, STYLE, Array, Rows
from tailbind.scale import BIN_EDGES, BIN_NAMES, bin_index

#: A bin's residuals are boxed from here on, and only dots below.
ENOUGH_FOR_BOX: Final = 5
#: The dots beside a box are shown up to here.
DOTS_BESIDE_BOX: Final = 100
#: The largest residual on scale; larger ones are drawn at the edge and counted.
LARGEST_RESIDUAL: Final = 8.0


def training_curves(
    history: Mapping[str, Sequence[float]],
    best_epoch: int,
    title: str = "",
    networks: Sequence[tuple[str, int, int]] = (),
) -> Figure:
    """Return the losses and the learning rate by epoch, one above the other.

    The training loss is the mean over the epoch's batches, measured with dropout while the weights move; it may
    lie above the validation loss without anything being wrong, and the legend says so. Losses are on a log
    axis, unless one is not positive. The learning rate is drawn as what it was: one level per epoch.

    Parameters
    ----------
    history : one number per epoch under each of epoch, train_loss, val_loss, lr, seconds, rows_per_second
    best_epoch : the epoch whose weights were kept; not marked where the history lacks it
    title : above the figure
    networks : of several that were trained one after the other, the name, the last and the best epoch of each, which
        then take the place of `best_epoch`

    Examples
    --------
    >>> history = {"epoch": [1, 2], "train_loss": [2.0, 1.0], "val_loss": [1.5, 1.2], "lr": [1e-4, 9e-5],
    ...            "seconds": [0.5, 0.5], "rows_per_second": [1e5, 1e5]}
    >>> len(training_curves(history, best_epoch=2).axes)
    2
    """
    with matplotlib.rc_context(STYLE):
        epoch, train, val, lr, seconds, rate = (
            np.asarray(history[key], dtype=np.float64)
            for key in ("epoch", "train_loss", "val_loss", "lr", "seconds", "rows_per_second")
        )
        figure = drawing.new_figure(6.0, title)
        grid = figure.add_gridspec(2, 1, height_ratios=[2.6, 1])
        top = drawing.add_axes(figure, grid[0])
        bottom = drawing.add_axes(figure, grid[1], sharex=top)
        if not len(epoch):
            return drawing.nothing_to_show(figure, "No epochs")

        marker = "o" if len(epoch) <= 30 else None
        width = 1.8 if len(epoch) <= 300 else 1.1
        networks = networks or [("", len(epoch), best_epoch)]
        _draw_losses(top, epoch, train, val, networks, {"marker": marker, "markersize": 4, "linewidth": width})
        drawing.value_axis(top, np.concatenate([train, val]))
        top.set_ylabel("Loss")
        top.tick_params(labelbottom=False)

        edges = np.append(epoch - 0.5, epoch[-1] + 0.5)
        bottom.stairs(lr, edges, baseline=None, color=BULK, linewidth=max(width - 0.3, 1.0), label="Learning rate")
        drawing.value_axis(bottom, lr, least_ratio=2.0)
        bottom.set_ylabel("Learning rate")
        bottom.set_xlabel("Epoch")
        bottom.set_xlim(edges[0], edges[-1])
        bottom.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        bottom.xaxis.set_major_formatter(drawing.THOUSANDS)

        _mark_best(top, bottom, epoch, val, networks)
        restarts = epoch[1:][lr[1:] > 1.5 * lr[:-1]]
        if len(restarts) <= 12:
            for restart in restarts:
                top.axvline(restart - 0.5, color=LINE, linewidth=0.8, zorder=0, label="_restart")
        top.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, borderaxespad=0.2, handlelength=1.6)
        pace = f"{drawing.duration(float(seconds.sum()))} of training, {np.median(rate):,.0f} rows per second"
        drawing.small_title(bottom, pace, loc="right")
        figure.align_ylabels()
        return figure


def _draw_losses(
    ax: Axes, epoch: Array, train: Array, val: Array, networks: Sequence[tuple[str, int, int]], style: dict[str, Any]
) -> None:
    """Draw the losses of each network, of several with its name and a line between."""
    begin = 0
    for name, end, _ in networks:
        own = slice(begin, end)
        words = ("_", "_") if begin else ("Training (during the epoch, with dropout)", "Validation")
        ax.plot(epoch[own], train[own], color=MUTED, label=words[0], **style)
        ax.plot(epoch[own], val[own], color=BULK, label=words[1], zorder=3, **style)
        if len(networks) > 1:
            edge = float(epoch[begin]) - 0.5
            if begin:
                ax.axvline(edge, color=INK, linewidth=0.8, zorder=2)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top"}
            ax.annotate(name, (edge, 1), xytext=(4, -4), color=SOFT, fontsize=SMALL, bbox=box, zorder=5, **place)
        begin = end


def _mark_best(top: Axes, bottom: Axes, epoch: Array, val: Array, networks: Sequence[tuple[str, int, int]]) -> None:
    """Mark the best epoch of each network, at its loss."""
    marked = [chosen for _, _, chosen in networks if chosen in epoch]
    for chosen in marked:
        least = float(val[epoch == chosen][0])
        for ax in (top, bottom):
            ax.axvline(chosen, color=STRONG, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        label = f"Best: epoch {chosen:,}, loss {least:.4g}" if len(networks) == 1 else "Best of each"
        label = label if chosen == marked[0] else "_"
        top.plot([chosen], [least], "o", color=STRONG, markersize=7, mec="white", zorder=4, label=label)


def predictions_vs_targets(
    y_true: ArrayLike, y_pred: ArrayLike, title: str = "", censored: ArrayLike | None = None
) -> Figure:
    """Return predicted against measured pKd.

    Up to `drawing.FEW_ROWS` rows are points; more are a density, log-coloured, in which the rows of an extreme
    bin stay points as long as they are few. The frame holds every measured pKd that can be one and reaches up to
    `drawing.MARGIN` further where predictions do; rows beyond it are drawn at its edge and counted.

    Parameters
    ----------
    y_true, y_pred : (n_samples,) pKd
    title : above the figure
    censored : (n_samples,) bool
        Rows whose label is a limit of either kind, < or >, not a measurement. Muted; a cell of the density is
        muted where they are the majority. The figures in the corner are then also given without them.

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
    true, pred, limit = _checked(y_true, y_pred, censored)
    with matplotlib.rc_context(STYLE):
        figure, ax, rail = drawing.square_and_rail(title)
        ax.set(xlabel="Measured pKd", ylabel="Predicted pKd")
        if not len(true):
            return drawing.nothing_to_show(figure, "No rows")

        low, high = drawing.frame(true, pred)
        x, y = np.clip(true, low, high), np.clip(pred, low, high)
        ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        drawing.name_bands(ax, drawing.draw_bands(ax, low, high), true)
        drawing.whole_pkd(low, high, ax.xaxis, ax.yaxis)
        for edge in BIN_EDGES:
            ax.axhline(edge, color=LINE, linewidth=0.7, zorder=0.6, label="_edge")
        (identity,) = ax.plot(
            [low, high], [low, high], color=INK, linewidth=1, linestyle=DASHED, zorder=4, label="Predicted = measured"
        )

        handles, mesh = drawing.draw_rows(ax, x, y, bin_index(true), limit)
        drawing.add_legend(rail, [identity, *handles], loc="upper left", bbox_to_anchor=(0, 0.80), borderaxespad=0)
        _figures(rail, true, pred, limit)
        beyond = int(((x != true) | (y != pred)).sum())
        if beyond:
            note = f"{drawing.count(beyond, 'row')} beyond the frame,\ndrawn at its edge"
            rail.text(0, 0.53, note, va="top", fontsize=SMALL, color=SOFT)
        if mesh is not None:
            drawing.colour_scale(figure, mesh, cax=rail.inset_axes((0.0, 0.0, 0.09, 0.36)))
        return figure


def residuals_analysis(
    y_true: ArrayLike, y_pred: ArrayLike, title: str = "", censored: ArrayLike | None = None
) -> Figure:
    """Return the residuals, predicted minus measured, by measured pKd, all together, and by affinity bin.

    Parameters
    ----------
    y_true, y_pred : (n_samples,) pKd
    title : above the figure
    censored : (n_samples,) bool
        Rows whose label is a limit of either kind, < or >, not a measurement. Muted wherever rows are drawn, and
        part of everything that is counted: the mean, the SD and the boxes are of all rows.

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
    true, pred, limit = _checked(y_true, y_pred, censored)
    with matplotlib.rc_context(STYLE):
        figure = drawing.new_figure(7.6, title)
        grid = figure.add_gridspec(2, 2, width_ratios=[3.4, 1], height_ratios=[1.15, 1])
        by_value = drawing.add_axes(figure, grid[0, 0])
        together = drawing.add_axes(figure, grid[0, 1], sharey=by_value)
        by_bin = drawing.add_axes(figure, grid[1, :])
        if not len(true):
            return drawing.nothing_to_show(figure, "No rows")
        reach = float(np.clip(np.abs(pred - true).max() * 1.06, 1.0, LARGEST_RESIDUAL))
        residual = np.clip(pred - true, -reach, reach)
        bins = bin_index(true)

        low, high = drawing.frame(true, true)
        x = np.clip(true, low, high)
        by_value.set(xlim=(low, high), ylim=(-reach, reach))
        by_value.set(xlabel="Measured pKd", ylabel="Predicted − measured pKd")
        drawing.whole_pkd(low, high, by_value.xaxis)
        drawing.draw_bands(by_value, low, high)
        _, mesh = drawing.draw_rows(by_value, x, residual, bins, limit)
        if mesh is not None:
            below: dict[str, Any] = {"location": "bottom", "shrink": 0.36, "aspect": 26, "pad": 0.02, "anchor": (0, 0)}
            drawing.colour_scale(figure, mesh, ax=by_value, **below)

        edges = np.linspace(-reach, reach, int(np.clip(1.3 * len(true) ** 0.5, 12, 60)) + 1)
        kinds = [residual[~limit], residual[limit]]
        together.hist(kinds, edges.tolist(), stacked=True, color=[BULK, MUTED], orientation="horizontal")
        together.set_xlabel("Rows")
        together.xaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
        together.xaxis.set_major_formatter(drawing.THOUSANDS)
        together.tick_params(labelleft=False)
        beyond = int(((x != true) | (residual != pred - true)).sum())
        rows = drawing.count(len(true), "row")
        if limit.any():
            rows += f", {limit.sum():,} of them censored (< or >; grey)"
        if beyond:
            rows += f", {beyond:,} beyond the frame drawn at its edge"
        drawing.small_title(by_value, rows)
        summary = f"mean {drawing.number(bias(true, pred), sign='+')}, SD {drawing.number(float(np.std(pred - true)))}"
        drawing.small_title(together, summary)

        _boxes(by_bin, residual, bins, limit)
        by_bin.set(ylim=(-reach, reach), ylabel="Predicted − measured pKd")
        drawing.small_title(by_bin, "Line: median. Box: middle half. Whiskers: 5th to 95th percentile.")
        for ax, zorder in ((by_value, 4), (together, 4), (by_bin, 1.5)):
            ax.axhline(0, color=INK, linewidth=1, linestyle=DASHED, zorder=zorder, label="_zero")
        figure.align_ylabels([by_value, by_bin])
        return figure


def _checked(y_true: ArrayLike, y_pred: ArrayLike, censored: ArrayLike | None) -> tuple[Array, Array, Rows]:
    """Return the first two as float64 vectors of one length, and which rows are censored."""
    true, pred = np.asarray(y_true, dtype=np.float64), np.asarray(y_pred, dtype=np.float64)
    if true.ndim != 1 or true.shape != pred.shape:
        raise ValueError(f"y_true and y_pred must be vectors of one length; got {true.shape} and {pred.shape}")
    if not (np.isfinite(true).all() and np.isfinite(pred).all()):
        raise ValueError("y_true and y_pred must be finite")
    limit = np.zeros(true.shape, dtype=bool) if censored is None else np.asarray(censored, dtype=bool)
    if limit.shape != true.shape:
        raise ValueError(f"censored must be one value per row, {true.shape}; got {limit.shape}")
    return true, pred, limit


def _figures(rail: Axes, true: Array, pred: Array, censored: Rows) -> None:
    """Write n, RMSE and Spearman at the top of the rail, and again without the censored rows."""
    kinds = [("All rows", np.ones(len(true), dtype=bool))]
    if censored.any() and not censored.all():
        kinds.append(("Measured", ~censored))
    lines: list[tuple[str, ...]] = [("", "n", "RMSE", "Spearman")]
    for words, rows in kinds:
        figures = rmse(true[rows], pred[rows]), spearman(true[rows], pred[rows])
        lines.append((words, f"{rows.sum():,}", *map(drawing.number, figures)))
    for column, (words, *values) in enumerate(lines):
        x, align = [(0.0, "left"), (0.65, "right"), (1.03, "right")][column]
        rail.text(x, 1.0, words, ha=align, va="top", fontsize=8.5, color=SOFT)
        for row, value in enumerate(values):
            rail.text(x, 0.955 - 0.04 * row, value, ha=align, va="top", fontsize=9.5, color=INK if column else SOFT)


def _boxes(ax: Axes, residual: Array, bins: NDArray[np.intp], censored: Rows) -> None:
    """Draw a box per affinity bin, dots for the rows of a small one, nothing for an empty one."""
    drawing.stripes(ax, np.arange(-0.5, len(BIN_NAMES)))
    ticks = []
    for index, name in enumerate(BIN_NAMES):
        values = residual[bins == index]
        ticks.append(drawing.bin_tick(name, len(values)))
        colour, marker = EXTREMES.get(name, (BULK, "o"))
        boxed, dotted = len(values) >= ENOUGH_FOR_BOX, 0 < len(values) <= DOTS_BESIDE_BOX
        if boxed:
            low, q1, median, q3, high = np.percentile(values, [5, 25, 50, 75, 95])
            box = {"whislo": low, "q1": q1, "med": median, "q3": q3, "whishi": high}
            line = {"color": colour, "linewidth": 1.3}
            ax.bxp(
                [box], positions=[index - 0.12 * dotted], widths=0.28, showfliers=False, showcaps=False,
                patch_artist=True, boxprops={"facecolor": "white", "edgecolor": colour, "linewidth": 1.3},
                whiskerprops=line, medianprops={**line, "linewidth": 2.6}, manage_ticks=False, zorder=2,
            )  # fmt: skip
        if dotted:
            # Steps of the golden ratio spread dots evenly without a random number.
            spread = 0.2 * ((np.arange(len(values)) * 0.618034) % 1 - 0.5) if len(values) > 1 else np.zeros(1)
            x, limit = index + 0.19 * boxed + spread, censored[bins == index]
            if limit.any():
                drawing.draw_censored(ax, x[limit], values[limit])
            if not limit.all():
                drawing.draw_points(ax, x[~limit], values[~limit], 22, colour, marker, alpha=0.7)
    ax.set_xlim(-0.5, len(BIN_NAMES) - 0.5)
    ax.set_xticks(range(len(BIN_NAMES)), ticks)
    ax.tick_params(axis="x", length=0)
    drawing.rules(ax)
