"""Where a loss has one minimum every start finds it; where it has several, start and learning rate choose.

x cos(pi x) has a local minimum at -0.274 and a lower one at 1.090, between which starts are divided by the summit at
0.274: in the map of 256 starts by 256 learning rates, as long as the rate is small. A minimum can hold a run only
while the rate is below 2 / curvature there; a run that oversteps jumps over summits, and where it ends is then
anybody's guess. A convex loss leaves no choice: from 1,024 starts each, a line through the simulated points, and one
through the blood pressure of 33 women, end at the line of least squares.

Source: Cai, Bileschi, Nielsen and Chollet, Deep Learning with JavaScript (2020), section 2.2; Dürr, Sick and Murina,
Probabilistic Deep Learning (2020), section 3.2.2; the function is the example of the notes on gradient descent of the
Microsoft AI course, section 2.1. Cost: some seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

LEFT, RIGHT = -1.0, 2.0  # of the starts
RATES = (0.01, 0.6)


@dataclass(frozen=True)
class Config:
    cells: int = 256
    starts: int = 32  # each way
    beta: float = 0.973  # momentum for the canyon of the blood pressure, ((sqrt(k) - 1) / (sqrt(k) + 1))^2
    steps: int = 2_000


SECONDS = 10
QUICK = {"cells": 48, "starts": 6}
BREAK = {"steps": 60}
ROWS = {"TFJS-2.2.localmin": "", "PDL-3.2.2.convex": "convex"}


def waves(x):
    return x * jnp.cos(jnp.pi * x)


class Case(NamedTuple):
    """A line through data, from many starts."""

    name: str
    data: tuple[np.ndarray, np.ndarray]
    low: tuple[float, float]  # corner of the starts: w, b
    high: tuple[float, float]
    best: np.ndarray  # (2,) the line of least squares
    hessian: np.ndarray  # (2, 2)
    ends: np.ndarray  # (starts, starts, 2)


class Result(NamedTuple):
    level: np.ndarray  # (n,) where the slope is zero, by bisection, from -2.2 to 3.2
    bend: np.ndarray  # (n,) curvature there
    starts: np.ndarray  # (cells,)
    rates: np.ndarray  # (cells,)
    ends: np.ndarray  # (rates, starts)
    settled: np.ndarray  # (rates, starts) whether the slope vanished at the end
    steps: np.ndarray  # (rates, starts)
    cases: list[Case]


def compute(config: Config) -> Result:
    starts, rates = np.linspace(LEFT, RIGHT, config.cells), np.geomspace(*RATES, config.cells)
    found = jf.sweep(
        waves, jf.Axis("start", starts), optimizer=jf.optimizers.sgd(jf.Axis("learning_rate", rates)),
        steps=config.steps, stop=jf.Stop(gradient_norm_below=1e-9), precision="float64",
    ).results.transpose("learning_rate", "start")  # fmt: skip
    level, bend = level_points()
    return Result(
        level=level,
        bend=bend,
        starts=starts,
        rates=rates,
        ends=found["params"].values,
        settled=found.status.values == jf.Status.CONVERGED,
        steps=found.steps.values,
        cases=[
            convex(config, "simulated points", jf.datasets.bowl(), (-1, -1), (3, 3), 0.0),
            convex(config, "blood pressure", jf.datasets.blood_pressure(), (-3, -100), (5, 300), config.beta),
        ],
    )


def level_points() -> tuple[np.ndarray, np.ndarray]:
    """Zeros of cos(pi x) - pi x sin(pi x), by bisection, and the second derivative there."""

    def slope(x):
        return np.cos(np.pi * x) - np.pi * x * np.sin(np.pi * x)

    grid = np.linspace(-2.2, 3.2, 5402)
    left = np.flatnonzero(slope(grid[:-1]) * slope(grid[1:]) < 0)
    low, high = grid[left], grid[left + 1]
    for _ in range(60):
        middle = (low + high) / 2
        same = slope(middle) * slope(low) > 0
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return low, -2 * np.pi * np.sin(np.pi * low) - np.pi**2 * low * np.cos(np.pi * low)


def convex(config: Config, name: str, data: Any, low: Any, high: Any, beta: float) -> Case:
    x, y = data
    rows = np.stack([x, np.ones_like(x)], axis=1)
    hessian = 2 * rows.T @ rows / len(x)
    rate = (1 + np.sqrt(beta)) ** 2 / np.linalg.eigvalsh(hessian)[-1]
    axes = {leaf: jf.Axis(leaf, np.linspace(a, b, config.starts)) for leaf, a, b in zip("wb", low, high, strict=True)}
    found = jf.sweep(
        jf.losses.mse(jf.models.line), axes, data, optimizer=jf.optimizers.momentum(rate, beta), steps=config.steps,
        precision="float64",
    ).results  # fmt: skip
    ends = np.stack([found["params.w"].values, found["params.b"].values], -1)
    return Case(name, data, low, high, np.linalg.lstsq(rows, y, rcond=None)[0], hessian, ends)


def checks(result: Result) -> list[Check]:
    minima, summit = result.level[result.bend > 0], result.level[(result.bend < 0) & (abs(result.level - 0.3) < 0.1)]
    local, lower = (minima[np.argmin(abs(minima - about))] for about in (-0.274, 1.09))
    slow = result.rates < 0.05
    ends, settled = result.ends[slow], result.settled[slow]
    inside = result.starts > -1.09  # of the summit on the left
    side = np.where(result.starts < summit, local, lower)
    near = abs(result.starts - summit) < 1e-9
    rows = [
        Check("local minimum of x cos(pi x)", -0.27389, local, 5e-5, "TFJS-2.2.localmin, by bisection"),
        Check("lower minimum", 1.09041, lower, 5e-5, "TFJS-2.2.localmin, by bisection"),
        Check("rates below 0.05: runs that settle", 1.0, float(settled.mean()), source="TFJS-2.2.localmin, theory"),
        Check("rates below 0.05: end of each start", np.where(near | ~inside, 0, side)[None].repeat(slow.sum(), 0),
              np.where(near | ~inside, 0, ends), 1e-5, "TFJS-2.2.localmin, the side of the summit"),
    ]  # fmt: skip
    for name, minimum in (("local", local), ("lower", lower)):
        limit = 2 / curvature(minimum)
        at = (abs(result.ends - minimum) < 1e-4) & result.settled
        fastest = result.rates[at.any(1)].max()
        cell = result.rates[1] / result.rates[0] - 1
        rows.append(
            Check(f"largest rate at which runs settle in the {name} minimum: 2 / curvature", limit, fastest,
                  1.5 * limit * cell, "TFJS-2.2.localmin, theory")
        )  # fmt: skip
    for case in result.cases:
        miss = case.ends - case.best
        heights = 0.5 * np.einsum("...i,ij,...j", miss, case.hessian, miss)
        scale = abs(np.array(case.high) - case.low)
        rows += [
            Check(f"{case.name}: end of every start, from the line of least squares", 0, (abs(miss) / scale).max(),
                  1e-8, "PDL-3.2.2.convex, closed form"),
            Check(f"{case.name}: loss above the least", 0, heights.max(), 1e-8, "PDL-3.2.2.convex, closed form"),
        ]  # fmt: skip
    return rows


def height(x: float) -> float:
    return float(x * np.cos(np.pi * x))


def curvature(x: float) -> float:
    return float(-2 * np.pi * np.sin(np.pi * x) - np.pi**2 * x * np.cos(np.pi * x))


def draw(result: Result):
    return {"": draw_waves(result), "convex": draw_convex(result)}


def draw_waves(result: Result):
    space = {"hspace": 0.07, "top": 0.86, "left": 0.09, "right": 0.97, "bottom": 0.08}
    figure, axes = plots.panels([["curve"], ["map"]], size=(9.5, 8.6), height_ratios=[1, 2], gridspec_kw=space)
    figure.suptitle(
        "The start decides which minimum is found, as long as the learning rate is small enough", x=0.09, ha="left"
    )
    figure.text(0.09, 0.9, "Below the curve x cos(πx): where gradient descent ends, from 256 starts with 256 "
                "learning rates each.\nThe darker, the more steps it takes.", color="#555555")  # fmt: skip
    minima = result.level[result.bend > 0]
    x = np.linspace(LEFT, RIGHT, 601)
    ax = axes["curve"]
    ax.plot(x, x * np.cos(np.pi * x), color="#777777")
    colors, words = (plots.BLUE, "#F0E442", plots.RED), ("local minimum", "lower minimum", "")
    shown = [m for m in minima if LEFT < m < RIGHT]
    for minimum, color, word in zip(shown, colors, words, strict=False):
        ax.plot(minimum, height(minimum), "o", ms=11, color=color, mec="black", mew=0.9, zorder=3)
        ax.annotate(f"{word} at {minimum:.3f}".replace("-", "−"), (minimum, height(minimum)), (0, -21),
                    textcoords="offset points", ha="center", color="#333333")  # fmt: skip
    summit = float(result.level[(result.bend < 0) & (abs(result.level) < 0.5)][0])
    ax.plot(summit, height(summit), "^", ms=10, color="white", mec="black", mew=0.9, zorder=3)
    ax.annotate(f"summit at {summit:.3f}", (summit, height(summit)), (0, 10), textcoords="offset points", ha="center",
                color="#333333")  # fmt: skip
    ax.set(xlim=(LEFT, RIGHT), ylim=(-1.7, 2.1), ylabel="x cos(πx)", xticks=[], yticks=[-1, 0, 1, 2])
    ax.spines["bottom"].set_visible(False)
    ax = axes["map"]
    number = np.full(result.ends.shape, 2)
    for i, minimum in enumerate(shown):
        number[abs(result.ends - minimum) < 1e-3] = i
    number[~result.settled] = -1
    plots.basin_map(result.starts, np.log10(result.rates), number, result.steps, colors=colors, ax=ax)
    ax.set(xlabel="start", ylabel="learning rate")
    ticks = (0.01, 0.03, 0.1, 0.3)
    ax.set_yticks(np.log10(ticks), [plots.number(t) for t in ticks])
    for minimum in shown:
        limit = 2 / curvature(minimum)
        ax.axhline(np.log10(limit), color="white", lw=2.4)
        ax.axhline(np.log10(limit), color="black", lw=1.2, ls=(0, (4, 2)))
        words = f"2 / curvature of the {'local' if minimum == shown[0] else 'lower'} minimum: {limit:.3f}"
        plots.outlined(ax.text(LEFT + 0.04, np.log10(limit) - 0.025, words, va="top"))
    ax.text(1.15, np.log10(0.42), "does not converge", ha="center", va="center", color="#555555")
    return figure


def draw_convex(result: Result):
    space = {"wspace": 0.25, "top": 0.82, "left": 0.08, "right": 0.97, "bottom": 0.12}
    figure, axes = plots.panels([["0", "1"]], size=(10.5, 5.2), gridspec_kw=space)
    figure.suptitle("A convex loss has one minimum, and descent reaches it from every start", x=0.08, ha="left")
    count = result.cases[0].ends[..., 0].size
    figure.text(
        0.08, 0.9, f"Gray: {count:,} starts. Circle: where each of them ends. Lines: equal loss.", color="#555555"
    )
    for ax, case in zip(axes.values(), result.cases, strict=True):
        w, b = (np.linspace(low, high, len(case.ends)) for low, high in zip(case.low, case.high, strict=True))
        ww, bb = np.meshgrid(w, b)
        fine = np.meshgrid(*(np.linspace(low, high, 201) for low, high in zip(case.low, case.high, strict=True)))
        miss = np.stack([fine[0] - case.best[0], fine[1] - case.best[1]], -1)
        above = 0.5 * np.einsum("...i,ij,...j", miss, case.hessian, miss)
        ax.contour(*fine, above, np.geomspace(above.max() / 3e3, above.max(), 9), colors=plots.BLUE, linewidths=0.8)
        ax.plot(ww.ravel(), bb.ravel(), ".", color="#aaaaaa", ms=2)
        ends = case.ends.reshape(-1, 2)
        ax.plot(*ends.T, "o", ms=9, color=plots.RED, mec="white")
        words = f"w = {case.best[0]:.3f}, b = {case.best[1]:.2f}"
        text = ax.annotate(words, (case.best[0], case.best[1]), (0, 12), textcoords="offset points", ha="center")
        plots.outlined(text, color=plots.DARK, edge="white")
        bends = np.linalg.eigvalsh(case.hessian)
        ratio = plots.number(float(f"{bends[1] / bends[0]:.3g}"))
        ax.set(xlabel="slope w", ylabel="intercept b", title=f"{case.name.capitalize()}: curvatures 1 : {ratio}")
    return figure
