"""How much the final loss of sixteen optimizers depends on the learning rate, over nine decades, at an equal budget.

Four problems, 300 steps each and no tuning: the final loss against the learning rate. What counts is not only how low a
curve comes, but how wide: the area above the best, the mean of log10 of the final loss over the best of all, with
everything that ends above its start counted as its start. It is the same for every optimizer to reach the best at one
rate in a thousand; few are near it over three decades.

The curves that a law decides are checked against it: on the quadratic plain descent fails from 2 / sharpness on, with
momentum b from 2 (1 + b), Nesterov's from 2 (1 + b) / (1 + 2 b), over the sharpness. Adam and its relatives take steps
of a length of their own, and still end below their start there at rates ten thousand times as large; RAdam, which
begins as plain momentum, does not. Rprop finds its steps by itself: its rate is only where it begins to look.

Source: Sivaprasad et al., Optimizer benchmarking needs to account for hyperparameter tuning (2020), arXiv:1910.11758,
for the question; the figure is our own. Cost: half a minute on two cores, most of it compilation.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

NAMES = (
    "sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adamw", "nadam", "adamax", "amsgrad",
    "adabelief", "radam", "yogi", "lion", "rprop",
)  # fmt: skip
SPEED = plt.get_cmap("viridis_r", 64)  # bright is good
CURVATURES = np.array([1.0, 100.0])
LAWS = {"sgd": 2.0, "momentum": 2 * 1.9, "nesterov": 2 * 1.9 / 2.8}  # limits of rate x curvature at momentum 0.9


@dataclass(frozen=True)
class Config:
    rates: int = 73  # eight a decade
    steps: int = 300
    names: tuple[str, ...] = NAMES
    sharpest: float = 100.0  # of the quadratic: another one breaks the laws


SECONDS, CHAOTIC = 65, True
QUICK = {"rates": 37, "steps": 200, "names": ("sgd", "momentum", "nesterov", "adam", "radam", "rprop")}
BREAK = {"sharpest": 300.0}  # the last good rates of the three laws are a third of the limits, 0.0075 instead of 0.02
ROWS = {}


class Result(NamedTuple):
    settings: Config
    rates: np.ndarray
    losses: np.ndarray  # (problem, optimizer, rate) at the end; infinite where it ended above its start
    starts: np.ndarray  # (problem,)
    floors: np.ndarray  # (problem,) below which a loss counts as reached
    areas: np.ndarray  # (problem, optimizer)


PROBLEMS = ("A quadratic", "A line through data", "Rosenbrock's valley", "A network of 61 params")
UNITS = 20


def four(params, problem, curvatures, x, y, points, wave):
    """Four problems in one program; those of two params leave the others of the vector as they are."""
    a, b = params[0], params[1]
    quadratic = 0.5 * jnp.sum(curvatures * params[:2] ** 2)
    line = jnp.mean((a * x + b - y) ** 2)
    valley = (1 - a) ** 2 + 100 * (b - a**2) ** 2
    inner, shift, outer = params[: 3 * UNITS].reshape(3, UNITS)
    hidden = jnp.tanh(points[:, None] * inner[None] + shift[None])
    network = jnp.mean((hidden @ outer + params[-1] - wave) ** 2)
    return jnp.sum(jnp.where(jnp.arange(4) == problem, jnp.stack([quadratic, line, valley, network]), 0.0))


def compute(config: Config) -> Result:
    rates = np.geomspace(1e-6, 1e3, config.rates)
    rate = jf.Axis("rate", rates)
    kinds = jf.Axis("optimizer", [getattr(jf.optimizers, name)(rate) for name in config.names], labels=config.names)
    t_u, t_c = jf.datasets.thermometer()
    line = np.stack([0.1 * t_u, np.ones_like(t_u)], axis=1)
    points = np.cos(np.pi * (np.arange(20) + 0.5) / 20)
    rng = np.random.default_rng(0)
    places = np.zeros((4, 3 * UNITS + 1))
    places[:3, :2] = (1, 1), (1, 0), (-1, 1)
    places[3, :UNITS], places[3, 2 * UNITS : -1] = 1.5 * rng.normal(size=UNITS), rng.normal(size=UNITS) / UNITS**0.5
    data = np.array([1.0, config.sharpest]), line[:, 0], t_c, points, np.cos(4 * np.arccos(points))
    asked = jf.Axis("problem", places), (jf.Axis("problem", np.arange(4.0)), *data)
    grid = jf.sweep(four, *asked, optimizer=kinds, steps=config.steps, precision="float64")
    good = grid.results.status == jf.Status.OUT_OF_STEPS
    losses = grid.results.loss.where(good, np.inf).transpose("problem", "optimizer", "rate").values
    starts = jf.surface(four, *asked, precision="float64").values
    least = np.mean((line @ np.linalg.lstsq(line, t_c, rcond=None)[0] - t_c) ** 2)
    floors = np.array([1e-8, least, 1e-8, 1e-6])
    return Result(config, rates, losses, starts, floors, areas(losses, starts, floors))


def heights(losses: np.ndarray, starts: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """log10 of the final losses, from the best of all optimizers and rates (0) to the start (1)."""
    logs = np.log10(np.clip(losses, floors[:, None, None], starts[:, None, None]))
    lowest = logs.min(axis=(1, 2), keepdims=True)
    return (logs - lowest) / (np.log10(starts)[:, None, None] - lowest)


def areas(losses: np.ndarray, starts: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """(problem, optimizer) the mean over the rates of those heights: the area above the best."""
    return heights(losses, starts, floors).mean(axis=2)


def checks(result: Result) -> list[Check]:
    cell = result.rates[1] / result.rates[0]
    quadratic = dict(zip(result.settings.names, result.losses[0], strict=True))
    rows = []
    for name, law in LAWS.items():
        last = result.rates[np.isfinite(quadratic[name])].max()
        what = f"quadratic, {name}: log of its last good rate, to one of the map"
        middle = float(np.log(last) + np.log(cell) / 2)
        rows.append(Check(what, np.log(law / 100.0), middle, np.log(cell) / 2 * 1.001, "theory: the limit"))
    stable = result.rates < 0.98 * 2 / 100
    factors = 1 - result.rates[stable][:, None] * CURVATURES
    exact = 0.5 * np.sum(CURVATURES * factors ** (2 * result.settings.steps), axis=1)
    best = dict(zip(result.settings.names, result.areas.T, strict=True))
    return [
        *rows,
        Check("quadratic, sgd: final loss at every good rate", exact, quadratic["sgd"][stable], 1e-8 * exact,
              "theory: 1/2 sum of l (1 - rate l)^2k"),
        Check("line: the best is the least there is", result.floors[1], float(result.losses[1].min()), 1e-6,
              "closed form"),
        Check("starts of the first three", [50.5, 80.3643455, 4.0], result.starts[:3], 1e-6, "by hand"),
        Check("areas lie between zero and one", True, bool(np.all((result.areas >= 0) & (result.areas <= 1)))),
        Check("Rprop has the least area on the quadratic and the line", [True, True],
              (best["rprop"] <= result.areas.min(axis=1))[:2]),
        Check("quadratic: Adam ends below its start at every rate", True, bool(np.isfinite(quadratic["adam"]).all())),
        Check("quadratic: RAdam at no rate above 0.1", False,
              bool(np.isfinite(quadratic["radam"][result.rates > 0.1]).any())),
        Check("Adam's area is smaller than that of plain descent on every problem", True,
              bool(np.all(best["adam"] < best["sgd"]))),
    ]  # fmt: skip


def draw(result: Result):
    space = {"wspace": 0.28, "hspace": 0.3, "top": 0.88, "left": 0.09, "right": 0.9, "bottom": 0.07}
    figure, axes = plots.panels([[0, 1], [2, 3]], size=(13, 10), gridspec_kw=space)  # pyright: ignore[reportArgumentType]
    title = f"How the final loss of {len(result.settings.names)} optimizers depends on the learning rate"
    figure.suptitle(title, x=0.09, ha="left")
    words = (
        f"Loss after {result.settings.steps} steps from one start. Bright is the best of all; brown ended above "
        "the start.\nRight of each row: its area above the best, from 0 to 1, by which the rows are sorted."
    )
    figure.text(0.09, 0.915, words, color="#555555", linespacing=1.4)
    shown = heights(result.losses, result.starts, result.floors)
    for i, title in enumerate(PROBLEMS):
        rows(result, i, shown[i], axes[i])  # pyright: ignore[reportArgumentType]
        axes[i].set_title(title)  # pyright: ignore[reportArgumentType]
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), SPEED), cax=figure.add_axes((0.945, 0.07, 0.012, 0.81)))
    plots.few_ticks(bar.ax.yaxis, [0, 0.5, 1])
    bar.ax.set_yticklabels(["best", "half way,\nin powers of ten", "start"])
    bar.outline.set_visible(False)
    return figure


def rows(result: Result, problem: int, shown: np.ndarray, ax: Any) -> None:
    order, names = np.argsort(result.areas[problem]), result.settings.names
    failed = ~np.isfinite(result.losses[problem])
    logs = np.log10(result.rates)
    half = (logs[1] - logs[0]) / 2
    extent = (logs[0] - half, logs[-1] + half, len(names) - 0.5, -0.5)
    paint = SPEED(shown)
    paint[failed] = to_rgba("#8c2d04")
    ax.imshow(paint[order], extent=extent, aspect="auto", interpolation="nearest")
    for k in range(1, len(names)):
        ax.axhline(k - 0.5, color="white", lw=1.5)
    for k, i in enumerate(order):
        ax.text(extent[1] + 0.1, k, f"{result.areas[problem][i]:.2f}", va="center", fontsize=8.5, color="#555555")
        if np.isfinite(result.losses[problem][i]).any():
            best = np.argmin(result.losses[problem][i])
            ax.plot(logs[best], k, "o", ms=4.5, mfc="white", mec="black", mew=0.8)
        if problem == 0 and names[i] in LAWS:
            at = np.log10(LAWS[names[i]] / 100)
            ax.plot([at, at], [k - 0.45, k + 0.45], color="white", lw=3.2)
            ax.plot([at, at], [k - 0.45, k + 0.45], color="black", lw=1.4)
    ax.set_yticks(range(len(names)), [names[i] for i in order])
    ax.set_xticks([-6, -4, -2, 0, 2], ["$10^{-6}$", "$10^{-4}$", "$10^{-2}$", "1", "$10^{2}$"])
    ax.set_xlabel("learning rate (dots: the best" + ("; lines: the limit by law)" if problem == 0 else ")"))
    ax.tick_params(axis="y", length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
