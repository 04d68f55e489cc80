"""Which pairs of learning rates train a small network: seen closer, the boundary between them is rougher, not smoother.

A network of one hidden layer, 16 units and no biases, 272 params and 272 points of noise; the two axes are the learning
rates of its two layers. A pair trains if the mean of the last 20 of 500 losses, over the first loss and at most a
million, is below one. Only the neighborhood of the boundary is run: `refine` starts from every eighth pair and halves
the distance where the outcome changes; elsewhere the outcome is that of the nearest pair that was run.

How rough the boundary is says its dimension by counting boxes: of half the size, twice as many hold a piece of a smooth
line, but nearly three times as many of this one in the closer look. That is what two looks can show; that it goes on so
over dozens of them, a fractal, is the source's finding. `zoom()` gives the settings of ever closer looks, which are not
run by default. The picture is one of rounding too: of 32 x 32 pairs five to ten end otherwise in float32 than in
float64.

Source: Sohl-Dickstein, The boundary of neural network trainability is fractal (2024), arXiv:2402.06184. Cost: a minute
on two cores.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from numpy.lib.stride_tricks import sliding_window_view

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check
from jaxfit.verbs.refinements import mixed

WIDTH, POINTS = 16, 272
WINDOW = (1.95, 0.85)  # center of the closer look
BOXES = (2, 4, 8)  # sides of the counted boxes, in distances of neighbors
ISLANDS = 0.01  # part of a coarse map that may lie on islands that the lattice misses
SOURCE = "Sohl-Dickstein 2024"
SECONDS, CHAOTIC = 60, True


@dataclass(frozen=True)
class Config:
    cells: int = 256  # of each axis
    depth: int = 3
    window: int = 129  # cells of the closer look
    coarse: int = 32  # cells of the comparison of the precisions
    center: tuple[float, float] = (1.5, 1.5)  # of the logarithms of the rates of the first and the second layer
    width: float = 9.0  # of both
    steps: int = 500
    seed: int = 0
    linear: bool = False  # without the tanh, whose bounds make room for large rates of the first layer


QUICK = {"cells": 48, "depth": 2, "window": 65, "coarse": 16, "steps": 200}
BREAK = {"linear": True}  # 17 % of the pairs train instead of 43 %
ROWS = {}


class Result(NamedTuple):
    settings: Config
    results: Any  # Dataset of the map over first and second
    coarse: Any  # the same of few pairs, all of them run
    single: Any  # those in float32
    closer: Any  # Dataset of the map of a window on its boundary
    again: np.ndarray  # whether those train, by a refined map
    params: int


def network(params, x):
    hidden = jnp.tanh(jnp.sqrt(2.0) * (x @ params["first"]) / jnp.sqrt(float(WIDTH)))
    return hidden @ params["second"] / jnp.sqrt(float(WIDTH))


def linear(params, x):
    return jnp.sqrt(2.0) * (x @ params["first"]) @ params["second"] / WIDTH


def trains(results: Any) -> np.ndarray:
    return relative(results)[:, -20:].mean(axis=1) < 1


def relative(results: Any) -> np.ndarray:
    """(lane, step) the losses over the first, at most a million, which also stands for what is not a number."""
    losses = results["history.loss"].transpose("lane", "step").values[:, :-1]
    with np.errstate(over="ignore", invalid="ignore"):
        v = losses / losses[:, :1]
    return np.clip(np.where(np.isfinite(v), v, 1e6), 1e-12, 1e6)


def compute(config: Config) -> Result:
    rng = np.random.default_rng(config.seed)
    start = {"first": rng.normal(size=(WIDTH, WIDTH)), "second": rng.normal(size=(WIDTH, 1))}
    data = rng.normal(size=(POINTS, WIDTH)), rng.normal(size=(POINTS, 1))
    loss = jf.losses.mse(linear if config.linear else network)

    def look(cells, depth, precision="float64", center=config.center, width=config.width):
        span = 10 ** (np.linspace(-0.5, 0.5, cells) * width + np.array(center)[:, None])
        first, second = (jf.optimizers.sgd(jf.Axis(n, v)) for n, v in zip(("first", "second"), span, strict=True))
        options: dict[str, Any] = {"steps": config.steps, "record": jf.Record(), "precision": precision, "slots": 4}
        return jf.refine(
            loss, start, data, optimizer=jf.optimizers.each(first=first, second=second), by="trains", depth=depth,
            measure={"trains": trains}, **options,
        ).results  # fmt: skip

    return Result(
        settings=config,
        results=look(config.cells, config.depth),
        closer=look(config.window, config.depth, center=WINDOW, width=config.width / 20),
        coarse=look(config.coarse, 0),
        single=look(config.coarse, 0, "float32"),
        again=look(config.coarse, 2).trains.values,
        params=sum(x.size for x in start.values()),
    )


def zoom(center: tuple[float, float] = (2.25, 0.45), looks: int = 5, factor: float = 4.0) -> list[Config]:
    """Settings of looks at one point of the logarithms, each so many times closer: not run by default."""
    return [Config(center=center, width=9.0 / factor**k) for k in range(looks)]


def dimension(trains: np.ndarray) -> float:
    """The dimension of a map's boundary by counting boxes: the slope of their number's logarithm over their size's.

    The map is known at the points of a lattice. A box is on the boundary if its points, those of its sides among them,
    have both outcomes: neighboring boxes share a side, so that no piece of the boundary falls between two of them.
    """
    n = (len(trains) - 1) // max(BOXES) * max(BOXES) + 1
    counts = [on_boundary(trains[:n, :n], size) for size in BOXES]
    return -float(np.polyfit(np.log2(BOXES), np.log2(counts), 1)[0]) if min(counts) else np.nan


def on_boundary(trains: np.ndarray, size: int) -> int:
    """How many boxes of this side hold both outcomes."""
    boxes = sliding_window_view(trains, (size + 1, size + 1))[::size, ::size]
    return int(np.count_nonzero(boxes.any(axis=(2, 3)) & ~boxes.all(axis=(2, 3))))


def line(cells: int) -> np.ndarray:
    """A map whose boundary is smooth: a slanted line through its middle."""
    x = np.linspace(-0.5, 0.5, cells)
    return x[:, None] + 0.4 * x < 0.05


def checks(result: Result) -> list[Check]:
    fine, coarse, single = (one.trains.values for one in (result.results, result.coarse, result.single))
    share = result.results.attrs["evaluated"]
    edge = float(mixed(fine, (0, 1)).mean())
    again = result.again
    return [
        Check("params", 272, result.params, source=SOURCE),
        Check("part of the pairs that were run, at most a quarter", 0.125, share, 0.125),
        Check("part of the pairs on the boundary", 0.04, edge, 0.03, f"{SOURCE}: 3 to 5 % of a map"),
        Check("pairs that train, part", 0.43, float(fine.mean()), 0.1, f"{SOURCE}: picture"),
        Check("closer look: dimension of the boundary, of a smooth line 1, of all of the plane 2", 1.5,
              dimension(result.closer.trains.values), 0.4, f"{SOURCE}: a fractal, between the two"),
        Check("dimension of a straight line on the same lattice", 1, dimension(line(result.settings.window)), 0.1,
              "theory"),
        Check("refined map against every pair: outcomes that differ, part of all", 0, float(np.mean(again != coarse)),
              ISLANDS, "the law of refine: islands smaller than the lattice"),
        Check("float32 against float64: outcomes that differ, part of all", 5 / 1024, float(np.mean(coarse != single)),
              10 / 1024, f"{SOURCE}: 5 of 1,024"),
        Check("small rates train", True, bool(fine[: len(fine) // 6, : len(fine) // 6].all())),
        Check("a rate of a million in the second layer does not", False, bool(fine[:, -1].any())),
    ]  # fmt: skip


INKS = {  # by outcome, of pairs that were run and of those filled in
    True: (plots.RED, "#f6dccb"),
    False: (plots.BLUE, "#cfe2f0"),
}


def draw(result: Result):
    space = {"wspace": 0.2, "top": 0.8, "left": 0.06, "right": 0.98, "bottom": 0.09}
    figure, axes = plots.panels([["all", "closer"]], size=(12.5, 7.0), gridspec_kw=space)
    figure.suptitle("Which learning rates train a small network: closer, the boundary is rougher", x=0.06, ha="left")
    words = f"A network of 272 params, {result.settings.steps} steps for each pair of learning rates."
    figure.text(0.06, 0.915, words, color="#555555")
    legend(figure)
    for name, results in {"all": result.results, "closer": result.closer}.items():
        ax = axes[name]
        x, y = results["first"].values, results["second"].values
        ax.pcolormesh(x, y, painted(results).swapaxes(0, 1), rasterized=True)
        ax.set(xscale="log", yscale="log", xlim=x[[0, -1]], ylim=y[[0, -1]])
        ticks = ([60, 80, 100, 120], [5, 6, 7, 8, 9, 10]) if name == "closer" else ([1e-3, 1e-1, 10, 1e3, 1e5],) * 2
        plots.few_ticks(ax.xaxis, ticks[0])
        plots.few_ticks(ax.yaxis, ticks[1])
        ax.set(xlabel="learning rate of the first layer", ylabel="learning rate of the second layer")
    frame = [result.closer[name].values[[0, -1]] for name in ("first", "second")]
    (left, right), (low, high) = frame
    axes["all"].plot([left, right, right, left, left], [low, low, high, high, low], color="black", lw=1.4)
    axes["all"].set_title(f"Nine decades of both rates: {said(result.results)}")
    axes["closer"].set_title(f"The frame, twenty times closer: {said(result.closer)}")
    return figure


def said(results: Any) -> str:
    return f"{100 * results.attrs['evaluated']:.0f} % of {results.trains.size:,} pairs were run"


def legend(figure: Any) -> None:
    """A swatch and its meaning for each of the four colors."""
    x = 0.06
    for trains, inks in INKS.items():
        for color, how in zip(inks, ("run", "filled in: as the nearest that was run"), strict=True):
            words = f"{'trains' if trains else 'does not train'}, {how}"
            figure.patches.append(plt.Rectangle((x, 0.868), 0.014, 0.022, color=color, transform=figure.transFigure))
            figure.text(x + 0.019, 0.879, words, va="center", color="#555555")
            x += 0.03 + 0.0063 * len(words)


def painted(results: Any) -> np.ndarray:
    """(first, second, 3) the color of each pair."""
    trains, ran = results.trains.values, results.evaluated.values
    paint = np.empty((*trains.shape, 3))
    for outcome, inks in INKS.items():
        for known, color in zip((True, False), inks, strict=True):
            paint[(trains == outcome) & (ran == known)] = to_rgb(color)
    return paint
