"""Where the slope vanishes descent stays, though not at a minimum: on a saddle while there is no noise, on a plateau.

On the ridge of x^2 - y^2 the slope points along the ridge, so gradient descent walks to the saddle and stays there,
and momentum does not help: what it would carry on is zero. The least noise does: it grows by 1 + 2 rate in every
update, with momentum faster still. A unit tanh(x) that starts at 4 has the slope 0.00134, and the way back takes (2 x
+ sinh(2 x)) / (4 rate) updates, exponentially many in the start; the slope of relu(x) is 1, and x / rate are enough.

Source: the notes on gradient descent of the Microsoft AI course, section 2.1. Cost: some seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

RATE, BETA, NOISE = 0.1, 0.5, 1e-6
FLAT = 0.05  # learning rate on the plateau
OUTPUT = float(np.tanh(0.5))  # where a unit counts as back


@dataclass(frozen=True)
class Config:
    across: float = 0.0  # where on the saddle the runs without noise start: on the ridge
    seeds: int = 400
    starts: int = 60


SECONDS = 10
QUICK = {"seeds": 200, "starts": 12}
BREAK = {"across": 1e-3}
ROWS = {"GD-2.1": ""}
LENGTH = 80  # updates on the saddle


def saddle(params):
    return params["x"] ** 2 - params["y"] ** 2


def shaken(params, *, key):
    """The saddle with a slope that is off by NOISE * N(0, 1) each way."""
    x, y = NOISE * jax.random.normal(key, (2,))
    return saddle(params) + x * params["x"] + y * params["y"]


def tanh_unit(params):
    return jnp.tanh(params)


def relu_unit(params):
    return jax.nn.relu(params)


class Result(NamedTuple):
    quiet: np.ndarray  # (2, LENGTH + 1, 2) without noise, from the ridge: without momentum, and with it
    noisy: np.ndarray  # (2, seeds, LENGTH + 1, 2) with noise
    slopes: tuple[float, float]  # of tanh and of relu at 4
    starts: np.ndarray  # (starts,)
    back: dict[str, np.ndarray]  # (starts,) updates until the unit is back at 0.5, for tanh and relu


def compute(config: Config) -> Result:
    momenta = jf.Axis("momentum", np.array([0.0, BETA]))
    options = {
        "optimizer": jf.optimizers.momentum(RATE, momenta),
        "steps": LENGTH,
        "record": jf.Record(what="params"),
        "precision": "float64",
    }
    start = {"x": 1.0, "y": config.across}
    seeds = jf.Axis("seed", np.arange(config.seeds))
    starts = np.linspace(1.0, 5.0, config.starts)
    return Result(
        quiet=track(jf.sweep(saddle, start, **options)),
        noisy=track(jf.sweep(shaken, start, key=seeds, **options)),
        slopes=(float(jax.grad(tanh_unit)(4.0)), float(jax.grad(relu_unit)(4.0))),
        starts=starts,
        back={
            "tanh": plateau(tanh_unit, starts, OUTPUT),
            "relu": plateau(relu_unit, starts, 0.5),
        },
    )


def track(grid: Any) -> np.ndarray:
    """(momenta, ..., steps, 2)"""
    results = grid.results.transpose("momentum", ...)
    return np.stack([results[f"history.params.{name}"].values for name in "xy"], -1)


def plateau(unit: Any, starts: np.ndarray, goal: float) -> np.ndarray:
    """Updates until the unit's output falls below the goal; -1 if it never does."""
    found = jf.sweep(
        unit, jf.Axis("start", starts), optimizer=jf.optimizers.sgd(FLAT), steps=200_000,
        stop=jf.Stop(loss_below=goal), precision="float64",
    ).results  # fmt: skip
    return np.where(found.status == jf.Status.CONVERGED, found.steps, -1)


def growth(beta: float) -> float:
    """Growth of the distance from the ridge in an update: the larger root of m^2 - (1 + beta + 2 rate) m + beta."""
    middle = (1 + beta + 2 * RATE) / 2
    return float(middle + np.sqrt(middle**2 - beta))


def drift(beta: float, steps: int) -> np.ndarray:
    """Root mean square of y after each step: what every kick has become, added up as independent ones are."""
    ridge, speed, path = 0.0, 0.0, []
    for _ in range(steps + 1):  # a kick of RATE * NOISE at step 0
        path.append(ridge)
        speed = beta * speed + 2 * RATE * ridge + (RATE * NOISE if not ridge else 0.0)
        ridge = ridge + speed
    return np.sqrt(np.concatenate([[0], np.cumsum(np.square(path[1:]))]))


def tanh_time(start: np.ndarray) -> np.ndarray:
    """Updates from a start to 0.5, if they are small: the integral of cosh(x)^2 / rate; and for their being finite."""

    def integral(x):
        return (2 * x + np.sinh(2 * x)) / 4

    return (integral(start) - integral(0.5)) / FLAT + np.log(np.cosh(start) / np.cosh(0.5))


def checks(result: Result) -> list[Check]:
    rows = [
        Check("tanh at 4: slope", 0.00134, result.slopes[0], 5e-6, "GD-2.1, closed form"),
        Check("relu at 4: slope", 1.0, result.slopes[1], 0, "GD-2.1, closed form"),
    ]
    for beta, quiet, noisy in zip((0.0, BETA), result.quiet, result.noisy, strict=True):
        with_momentum = f"momentum {beta:g}"
        rms = np.sqrt(np.mean(noisy[..., 1] ** 2, axis=0))
        law = drift(beta, LENGTH)
        allowed = 4 * law / np.sqrt(2 * len(noisy))
        rows += [
            Check(f"{with_momentum}, from the ridge: distance from the saddle", 0,
                  float(np.linalg.norm(quiet[-1])), 1e-6, "GD-2.1, theory"),
            Check(f"{with_momentum}, noise: root mean square distance from the ridge", law, rms, allowed,
                  "GD-2.1, theory"),
            Check(f"{with_momentum}, noise: runs that have left the saddle", 1.0,
                  float(np.mean(abs(noisy[:, -1, 1]) > 1e-3)), 0.02, "GD-2.1, theory"),
            Check(f"{with_momentum}, noise: growth in an update", growth(beta),
                  float(np.median(noisy[:, -1, 1] / noisy[:, -2, 1])), 1e-6, "GD-2.1, theory"),
        ]  # fmt: skip
    relu = np.floor((result.starts - 0.5) / FLAT + 1e-9) + 1
    return [
        *rows,
        Check("tanh: updates until it is back", tanh_time(result.starts), result.back["tanh"],
              1.5 + 1e-4 * tanh_time(result.starts), "GD-2.1, closed form"),
        Check("relu: updates until it is back", relu, result.back["relu"], 1, "GD-2.1, closed form"),
    ]  # fmt: skip


def draw(result: Result):
    space = {"hspace": 0.45, "wspace": 0.25, "top": 0.86, "left": 0.07, "right": 0.97, "bottom": 0.08}
    figure, axes = plots.panels([["saddle", "leaving"], ["units", "time"]], size=(11, 8.6), gridspec_kw=space)
    figure.suptitle("A slope of zero is not always a minimum: a saddle, and a plateau", x=0.07, ha="left")
    figure.text(0.07, 0.92, "Dots are runs of gradient descent, dashed lines the law.", color="#555555")
    draw_saddle(result, axes["saddle"])
    draw_leaving(result, axes["leaving"])
    ax, x = axes["units"], np.linspace(-1.5, 5, 400)
    ax.plot(x, np.tanh(x), color=plots.RED)
    ax.plot(x, np.maximum(x, 0), color=plots.BLUE)
    ax.plot(4, np.tanh(4), "o", ms=8, color=plots.RED, mec="white")
    ax.plot(4, 4, "o", ms=8, color=plots.BLUE, mec="white")
    ax.annotate(f"tanh at 4: slope {result.slopes[0]:.5f}", (4, 1), (0, -18), textcoords="offset points", ha="center",
                color=plots.RED)  # fmt: skip
    ax.annotate(f"relu at 4: slope {result.slopes[1]:.0f}", (4, 4), (-10, 3), textcoords="offset points", ha="right",
                color=plots.BLUE)  # fmt: skip
    ax.set(
        title="A unit that starts where tanh is flat",
        xlabel="x",
        ylabel="output",
        ylim=(-1.5, 5),
        yticks=[-1, 0, 1, 2, 3, 4, 5],
    )
    ax = axes["time"]
    ax.set_yscale("log")
    relu = (result.starts - 0.5) / FLAT
    for name, color, law in (("tanh", plots.RED, tanh_time(result.starts)), ("relu", plots.BLUE, relu)):
        ax.plot(result.starts[1:], law[1:], color=color, lw=1.2, ls=(0, (4, 2)))
        ax.plot(result.starts, result.back[name], "o", color=color, ms=3.5)
    room = plots.Room(ax)
    lines = {
        "tanh: (2x + sinh 2x) / 4 / rate": (tanh_time(result.starts), plots.RED),
        "relu: x / rate": (relu, plots.BLUE),
    }
    blocked = [room.block(result.starts[1:], law[1:], width=10) for law, _ in lines.values()]
    for (label, (_, color)), path in zip(lines.items(), blocked, strict=True):
        room.near(path, label, prefer=(0.5, 0.5), color=color)
    ax.set(title=f"Updates until it is back at 0.5, rate {FLAT}", xlabel="start", ylabel="updates")
    plots.few_ticks(ax.yaxis, [10, 100, 1_000, 10_000, 100_000])
    return figure


def draw_saddle(result: Result, ax) -> None:
    x, y = np.linspace(-1.15, 1.15, 121), np.linspace(-1.15, 1.15, 121)
    height = x[None] ** 2 - y[:, None] ** 2
    ax.contour(x, y, height, 13, colors="#b9b3a5", linewidths=0.8, linestyles="solid")
    for path in result.noisy[0, :40]:
        ax.plot(*path.T, color=plots.BLUE, lw=0.8, alpha=0.7)
    quiet = result.quiet[0]
    ax.plot(*quiet.T, "o-", color=plots.RED, ms=4, lw=1.2)
    ax.plot(0, 0, "X", ms=10, color=plots.RED, mec="white")
    ax.annotate("without noise: stuck at the saddle", (0, 0), (-10, 12), textcoords="offset points", color=plots.RED,
                ha="left", bbox={"fc": "white", "ec": "none", "pad": 1.0})  # fmt: skip
    ax.annotate("with noise", (0.03, -0.75), (8, 0), textcoords="offset points", color=plots.BLUE)
    ax.set(
        xlim=(-1.15, 1.15),
        ylim=(-1.15, 1.15),
        xlabel="x",
        ylabel="y",
        title="x² − y² from its ridge, 40 runs with noise",
    )
    ax.set(xticks=[-1, 0, 1], yticks=[-1, 0, 1])


def draw_leaving(result: Result, ax) -> None:
    steps = np.arange(LENGTH + 1)
    ax.set(yscale="log", ylim=(1e-9, 3e3), xlim=(0, LENGTH), xlabel="updates", ylabel="distance from the ridge")
    plots.few_ticks(ax.yaxis, [1e-9, 1e-6, 1e-3, 1, 1e3])
    room, laws = plots.Room(ax), {}
    for beta, noisy, color in zip((0.0, BETA), result.noisy, (plots.BLUE, plots.GREEN), strict=True):
        for path in noisy[:25]:
            ax.plot(steps, np.where(path[:, 1] == 0, np.nan, abs(path[:, 1])), color=color, lw=0.5, alpha=0.35)
        law = drift(beta, LENGTH)
        ax.plot(steps[1:], law[1:], color="black", lw=1.3, ls=(0, (4, 2)))
        words = f"momentum {beta:g}: times {growth(beta):.3f}" if beta else f"no momentum: times {growth(beta):.1f}"
        laws[words] = room.block(steps[1:], law[1:], width=14), color
    for words, (path, color) in laws.items():
        room.near(path, words, prefer=(0.75, 0.4 if "no " in words else 0.9), color=color, weight="bold")
    ax.set_title("Noise of a millionth in the slope grows exponentially")
