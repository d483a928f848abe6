"""Draw the pictures of the documentation by calling the library, so that they show what the code does.

    python docs/make_pictures.py

Writes docs/pictures/*.png. Everything is seeded; two runs on one machine give the same files. Most pictures take
a second; `clipping.png` trains the v2 network on a simulated table for about half a minute.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray
from torch import Tensor, nn

from tailbind.models.mlp import ACTIVATIONS, Mlp, perceptron
from tailbind.recipes import load_recipe
from tailbind.reporting.drawing import BULK, INK, LINE, MUTED, RUN_COLOURS, SOFT, STRONG, WEAK, png
from tailbind.scale import BIN_EDGES, BIN_NAMES, bin_index, bin_label
from tailbind.table.simulation import Landscape, simulate
from tailbind.table.splitting import RandomSplit
from tailbind.training.batches import batches
from tailbind.training.losses import FocalMse, WeightedMse
from tailbind.training.schedule import Adam, AdamW, CosineRestarts, Plateau
from tailbind.training.weights import bin_weights, effective_sample_size
from tailbind.workflows.plan import resolve

PICTURES: Final = Path(__file__).parent / "pictures"
LARGEST_BYTES: Final = 150_000
WIDTH: Final = 9.0
GREEN: Final = RUN_COLOURS[3]
STYLE: Final = {
    "font.family": "DejaVu Sans", "font.size": 10.0, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": SOFT,
    "axes.titlesize": 10.5, "axes.titlelocation": "left", "axes.titlepad": 10.0, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "xtick.labelsize": 9.0, "ytick.labelsize": 9.0,
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "grid.color": LINE,
    "grid.linewidth": 0.6, "lines.linewidth": 1.8, "legend.frameon": False, "legend.fontsize": 9.5,
}  # fmt: skip


def panels(columns: int, height: float, **options: object) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08, wspace=0.06)
    axes = np.atleast_1d(figure.subplots(1, columns, **options)).tolist()
    for ax in axes:
        ax.grid(axis="y")
    return figure, axes


def slope(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the derivative of an elementwise function, by autograd."""
    at = x.clone().requires_grad_()
    function(at).sum().backward()
    return at.grad


def activations() -> Figure:
    x = torch.linspace(-4, 4, 801, dtype=torch.float64)
    figure, (left, right) = panels(2, 3.4)
    for name, colour, dash in (("relu", MUTED, (0, (4, 2))), ("gelu", BULK, "-")):
        function = ACTIVATIONS[name]()
        label = {"relu": "ReLU (v1)", "gelu": "GELU (v2)"}[name]
        left.plot(x, function(x), color=colour, linestyle=dash, label=label)
        right.plot(x, slope(function, x), color=colour, linestyle=dash, label=label)
    left.set_title("What a unit passes on")
    left.set(xlabel="Input x", ylabel="Output f(x)", ylim=(-0.6, 4))
    right.set_title("How much a change of x still counts")
    right.set(xlabel="Input x", ylabel="Slope f′(x)")
    gelu = ACTIVATIONS["gelu"]()
    lowest = int(gelu(x).argmin())
    left.plot(x[lowest], gelu(x)[lowest], "o", color=STRONG, markersize=5)
    left.annotate(
        f"lowest: {gelu(x)[lowest]:.2f}\nat x = {x[lowest]:.2f}".replace("-", "−"),
        (float(x[lowest]), float(gelu(x)[lowest])), xytext=(-3.2, 0.6), color=STRONG, fontsize=9.5,
        arrowprops={"arrowstyle": "-", "color": STRONG, "linewidth": 0.8},
    )  # fmt: skip
    for ax in (left, right):
        ax.axvline(0, color=LINE, linewidth=0.8, zorder=0)
    left.legend(loc="upper left")
    return figure


def decay(make: Adam | AdamW, noise: tuple[float, ...], steps: int, copies: int = 2000) -> NDArray[np.float64]:
    """Return (steps + 1, len(noise)) mean weights under gradients that are nothing but noise of these SDs."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.ones(len(noise), copies, dtype=torch.float64))
    optimizer = make([weight])
    scale = torch.tensor(noise, dtype=torch.float64)[:, None]
    means = [weight.detach().mean(dim=1).numpy().copy()]
    for _ in range(steps):
        weight.grad = scale * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        optimizer.step()
        means.append(weight.detach().mean(dim=1).numpy().copy())
    return np.array(means)


def optimizers() -> Figure:
    noise, steps = (0.1, 1.0, 10.0), 3000
    figure, axes = panels(2, 3.5, sharey=True)
    made = (("Adam: decay is part of the gradient", Adam), ("AdamW: decay stands beside it", AdamW))
    styles = zip(noise, (STRONG, BULK, WEAK), ("-", (0, (6, 2)), (0, (1.5, 1.5))), strict=True)
    styles = list(styles)
    for ax, (title, kind) in zip(axes, made, strict=True):
        paths = decay(kind(lr=1e-3, weight_decay=0.1), noise, steps)
        for (sd, colour, dash), path in zip(styles, paths.T, strict=True):
            ax.plot(path, color=colour, linestyle=dash, label=f"Gradient SD {sd:g}", linewidth=2)
        ax.set_title(title)
        ax.set(xlabel="Step", xlim=(0, steps), ylim=(-0.05, 1.05))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes[0].set_ylabel("Mean weight, from 1")
    axes[0].legend(loc="upper right", bbox_to_anchor=(1.0, 0.68))
    axes[1].annotate(
        "all three the same: (1 − lr · decay) per step", (1750, float((1 - 1e-4) ** 1750)), xytext=(500, 0.45),
        color=SOFT, fontsize=9.5, arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.8},
    )  # fmt: skip
    return figure


def made_up_validation_loss(epochs: int) -> NDArray[np.float64]:
    epoch = np.arange(1, epochs + 1)
    wobble = np.random.default_rng(3).normal(0, 0.012, epochs)
    return 0.55 + 1.2 * np.exp(-epoch / 9) + wobble


def learning_rates(epochs: int) -> tuple[list[float], list[float], NDArray[np.float64]]:
    """Return the learning rate of each epoch under v2's and v1's schedules, and the loss that v1's saw."""
    loss = made_up_validation_loss(epochs)
    rates = []
    for make, options in ((AdamW(), CosineRestarts()), (Adam(), Plateau())):
        optimizer = make([nn.Parameter(torch.zeros(1))])
        schedule = options(optimizer)
        rate = []
        for value in loss:
            rate.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step(float(value))
        rates.append(rate)
    return rates[0], rates[1], loss


def schedules() -> Figure:
    epochs = 100
    cosine, plateau, loss = learning_rates(epochs)
    figure, (left, right) = panels(2, 3.5)
    edges = np.arange(epochs + 1) + 0.5
    left.stairs(cosine, edges, color=BULK, linewidth=1.8, baseline=None)
    restarts = [epoch for epoch in range(2, epochs + 1) if cosine[epoch - 1] > 2 * cosine[epoch - 2]]
    for epoch in restarts:
        left.plot(epoch, cosine[epoch - 1], "o", color=STRONG, markersize=5)
        left.annotate(f"{epoch}", (epoch, cosine[epoch - 1]), xytext=(0, 6), textcoords="offset points", ha="center",
                      color=STRONG, fontsize=9.5)  # fmt: skip
    left.set_title("v2: cosine with warm restarts")
    left.set_ylim(8e-6, 1.4e-4)
    right.stairs(plateau, edges, color=BULK, linewidth=1.8, baseline=None)
    right.set_title("v1: halved on a plateau")
    right.set_ylim(0.6 * min(plateau), 1.4 * max(plateau))
    for ax in (left, right):
        ax.set_yscale("log")
        ax.set(xlabel="Epoch", ylabel="Learning rate", xlim=(0, epochs + 1), xticks=range(0, epochs + 1, 20))
        ax.yaxis.set_minor_locator(NullLocator())
    beside = right.twinx()
    beside.spines["top"].set_visible(False)
    beside.spines["right"].set_visible(True)
    beside.plot(np.arange(1, epochs + 1), loss, color=MUTED, linewidth=1.2)
    beside.set_ylabel("Validation loss (made up)", color=SOFT)
    beside.set_ylim(0, 1.8)
    return figure


def focal() -> Figure:
    error = torch.linspace(0, 4, 801, dtype=torch.float64)
    one, zero = torch.ones_like(error), torch.zeros_like(error)
    curves = (
        ("Focal, gamma 2 (v2)", FocalMse(gamma=2.0), BULK, "-"),
        ("Focal, gamma 1", FocalMse(gamma=1.0), GREEN, (0, (6, 2))),
        ("Focal, gamma 0", FocalMse(gamma=0.0), WEAK, (0, (1.5, 1.5))),
        ("Squared error", WeightedMse(), MUTED, "-"),
    )
    figure, (left, right) = panels(2, 3.6)
    for label, loss, colour, dash in curves:
        left.plot(error, loss(error, zero, one, zero), color=colour, linestyle=dash, label=label)
        right.plot(error, slope(lambda e, loss=loss: loss(e, zero, one, zero), error), color=colour, linestyle=dash)
    left.set_title("Loss of one row of weight 1")
    left.set(xlabel="Error in pKd", ylabel="Loss", ylim=(0, 60), xlim=(0, 4))
    right.set_title("Its gradient: how hard the row pulls")
    right.set(xlabel="Error in pKd", ylabel="Gradient", ylim=(0, 60), xlim=(0, 4))
    left.legend(loc="upper left")
    return figure


def spreads(initialization: str, batch_norm: bool, n_networks: int = 20) -> NDArray[np.float64]:
    """Return (n_layers,) variance of each hidden layer's output in fresh v2 networks on standard normal features."""
    variances = []
    for seed in range(n_networks):
        torch.manual_seed(seed)
        network = perceptron(Mlp(initialization=initialization, batch_norm=batch_norm, dropout=0.0), 150)
        flow, of_network = torch.randn(2048, 150), []
        with torch.no_grad():
            for layer in network[:-1]:
                flow = layer(flow)
                if isinstance(layer, nn.GELU):
                    of_network.append(float(flow.var()))
        variances.append(of_network)
    return np.exp(np.log(np.array(variances)).mean(axis=0))


def initializations() -> Figure:
    layers = [f"{number}\n({width})" for number, width in enumerate(Mlp().hidden_dims, 1)]
    figure, axes = panels(2, 3.5, sharey=True)
    for ax, batch_norm in zip(axes, (False, True), strict=True):
        for name, label, style in (
            ("default", "PyTorch's default (v1)", {"color": MUTED, "marker": "s", "markersize": 10}),
            ("xavier_uniform", "Xavier uniform (v2)", {"color": BULK, "marker": "o", "markersize": 5}),
        ):
            ax.plot(layers, spreads(name, batch_norm), label=label, **style)
        ax.set_title(f"{'With' if batch_norm else 'Without'} BatchNorm")
        ax.set_yscale("log")
        ax.set(xlabel="Hidden layer (units)", ylim=(3e-4, 2))
        ax.margins(x=0.1)
        ax.yaxis.set_minor_locator(NullLocator())
    axes[0].set_ylabel("Variance of the layer's output")
    axes[0].legend(loc="lower left")
    axes[1].text(1.5, 0.2, "the two coincide", ha="center", va="top", color=SOFT, fontsize=9.5)
    return figure


@cache
def simulated() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return features and pKd of the training rows of a table as `tailbind demo` simulates it, with gaps in it."""
    frame = simulate(Landscape())
    frame = frame.filter(frame["esm2_pca_0"].is_not_null())
    train = RandomSplit()(frame) == "train"
    block = [name for name in frame.columns if name.startswith("esm2_pca_")]
    return frame.select(block).to_numpy().astype(np.float32)[train], frame["pKd"].to_numpy()[train]


def weights() -> Figure:
    _, pkd = simulated()
    bins = bin_index(pkd)
    schemes = (
        ("No weights", bin_weights(pkd, "none", 1.0), MUTED),
        ("Inverse frequency (v1)", bin_weights(pkd, "inverse", 1.0), BULK),
        ("The same, extremes × 10 (v2)", bin_weights(pkd, "inverse", 10.0), STRONG),
    )
    figure, (left, right) = panels(2, 4.0, width_ratios=(1.75, 1))
    places, width = np.arange(len(BIN_NAMES)), 0.27
    for number, (label, of_bin, colour) in enumerate(schemes):
        of_row = of_bin[bins]
        share = np.bincount(bins, weights=of_row, minlength=len(BIN_NAMES)) / of_row.sum()
        left.bar(places + (number - 1) * width, share, width * 0.92, color=colour, label=label)
        effective = effective_sample_size(of_row) / len(pkd)
        right.barh(number, effective, 0.62, color=colour)
        right.text(
            effective * 1.25,
            number,
            f"{100 * effective:.2g} %" if effective < 0.1 else f"{100 * effective:.0f} %",
            va="center",
        )
    names = [bin_label(name).replace(" (", "\n(") for name in BIN_NAMES]
    counts = np.bincount(bins, minlength=len(BIN_NAMES))
    ticks = [f"{name}\nn = {count:,}" for name, count in zip(names, counts, strict=True)]
    left.set_xticks(places, ticks)
    left.tick_params(axis="x", length=0)
    left.set_title("Share of each bin in the loss, at equal errors")
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    left.set_ylim(0, 0.62)
    left.legend(loc="upper left", bbox_to_anchor=(0.4, 1.02), frameon=True, edgecolor="none", framealpha=1.0)
    right.set_title("Effective sample size (Kish)")
    right.set_xscale("log")
    right.set(xlim=(5e-4, 8), ylim=(2.6, -0.6), yticks=[], xlabel="Share of the training rows")
    right.set_xticks([0.001, 0.01, 0.1, 1], ["0.1 %", "1 %", "10 %", "100 %"])
    right.xaxis.set_minor_locator(NullLocator())
    right.grid(False)
    right.spines["left"].set_visible(False)
    right.spines["bottom"].set_bounds(5e-4, 1)
    return figure


@cache
def gradient_norms(epochs: int = 30) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return each step's gradient norm in a v2 training, before clipping, and whether a very strong row took part."""
    features, pkd = simulated()
    plan = resolve(load_recipe("v2"))
    network = plan.model.build(features.shape[1], plan.training.seed).members[0]
    torch.manual_seed(plan.training.seed)
    optimizer = plan.optimizer(network.parameters())
    schedule = plan.schedule(optimizer)
    X, y = torch.from_numpy(features), torch.from_numpy(pkd.astype(np.float32))
    of_bin = bin_weights(pkd, plan.loss.weights, plan.loss.extreme_factor)
    weight = torch.from_numpy(of_bin[bin_index(pkd)].astype(np.float32))
    measured = torch.zeros_like(y)
    norms, holds = [], []
    for _ in range(epochs):
        for batch in batches(torch.randperm(len(X)), plan.training.batch_size):
            optimizer.zero_grad()
            plan.loss(network(X[batch]).squeeze(-1), y[batch], weight[batch], measured[batch]).mean().backward()
            norms.append(float(nn.utils.clip_grad_norm_(network.parameters(), plan.training.clip_grad_norm)))
            holds.append(bool((y[batch] >= BIN_EDGES[-1]).any()))
            optimizer.step()
        schedule.step(0.0)
    return np.array(norms), np.array(holds)


def clipping() -> Figure:
    norms, holds = gradient_norms()
    steps = np.arange(1, len(norms) + 1)
    figure, (left, right) = panels(2, 3.8, width_ratios=(2.2, 1), sharey=True)
    kinds = (
        (~holds, BULK, "o", 5, "Batch without a very strong row"),
        (holds, STRONG, "^", 13, "Batch with one"),
    )
    limits = (0.4, 10 ** np.ceil(np.log10(norms.max())))
    edges = np.geomspace(*limits, 60)
    for rows, colour, marker, size, label in kinds:
        left.scatter(steps[rows], norms[rows], s=size, color=colour, marker=marker, alpha=0.45, linewidths=0)
        left.scatter([], [], s=30, color=colour, marker=marker, label=label)
        right.hist(norms[rows], bins=edges, orientation="horizontal", color=colour, alpha=0.8,
                   weights=np.full(rows.sum(), 1 / rows.sum()))  # fmt: skip
    for ax in (left, right):
        ax.axhline(1, color=INK, linewidth=1.2)
        ax.set_yscale("log")
        ax.set_ylim(*limits)
        ax.yaxis.set_minor_locator(NullLocator())
    left.annotate("clipped to 1", (steps[-1], 1), xytext=(0, 4), textcoords="offset points", ha="right", fontsize=9.5)
    left.set(xlabel="Step", ylabel="Norm of the gradient before clipping", xlim=(0, len(steps)))
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    left.set_title("A v2 training on simulated data, step by step")
    left.legend(loc="upper right", ncols=2, handletextpad=0.2, columnspacing=1.0)
    right.set_title("The same, as shares")
    right.set_xlabel("Share of such batches")
    right.xaxis.set_major_locator(MultipleLocator(0.05))
    right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return figure


def facts() -> None:
    """Print the figures that the page quotes."""
    cosine, _, _ = learning_rates(100)
    for decay_rate in (1e-4, 1e-3):
        left = np.prod([(1 - rate * decay_rate) ** 1809 for rate in cosine])
        print(f"AdamW, decay {decay_rate:g}, 100 epochs of 1,809 steps: a weight without gradient keeps {left:.4%}")
    print(f"learning rate in epochs 1, 20, 21: {cosine[0]:.3g}, {cosine[19]:.3g}, {cosine[20]:.3g}")
    for batch_norm in (False, True):
        for name in ("default", "xavier_uniform"):
            print(
                f"variance, {name}, BatchNorm {batch_norm}: {np.array2string(spreads(name, batch_norm), precision=4)}"
            )
    _, pkd = simulated()
    print(f"bins of the {len(pkd):,} simulated training rows: {np.bincount(bin_index(pkd)).tolist()}")
    norms, holds = gradient_norms()
    for rows, words in ((~holds, "without"), (holds, "with")):
        third = rows & (np.arange(len(norms)) >= 2 * len(norms) // 3)
        print(
            f"{words}: {rows.mean():.1%} of {len(norms):,} batches, {np.mean(norms[rows] > 1):.1%} clipped, "
            f"median norm {np.median(norms[rows]):,.0f}, in the last third {np.median(norms[third]):,.0f}"
        )


PAGES: Final = (activations, optimizers, schedules, focal, initializations, weights, clipping)


def main() -> None:
    torch.set_num_threads(1)  # the order of sums, and with it the last digits, depends on the number of threads
    PICTURES.mkdir(exist_ok=True)
    for picture in PAGES:
        with matplotlib.rc_context(STYLE):
            data = png(picture())
        file = PICTURES / f"{picture.__name__}.png"
        file.write_bytes(data)
        print(f"{file.name}: {len(data):,} bytes{' (too large)' if len(data) > LARGEST_BYTES else ''}")
    facts()


if __name__ == "__main__":
    main()
