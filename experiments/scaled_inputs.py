"""Scaled inputs lower the condition number of the loss: from 33,599 to 357 for a tenth of the readings, to 1 for
standardized ones.

Of the thermometer's loss w is 55 times as steep as b at the start ("about 50" in the text), so that no one learning
rate suits both. Readings divided by ten are the text's cure. Standardized readings are the whole cure: both params have
the same curvature, and the right rate, 0.5, arrives in one update. Learning rates of their own are the third way:
raw readings with the rate of w a hundredth of that of b take the very steps of readings divided by ten. The
limits, 2 / lambda_max, are met by a sweep of learning rates, and so is every number of steps by its closed form.

Source: Stevens, Antiga and Viehmann, Deep Learning with PyTorch (2020), section 5.4.4. It asks for inputs roughly in
-1 ... 1; divided by ten they lie in 2.18 ... 8.19, which is why its runs still need thousands of epochs. "Multiply by
10" in some prints is by 0.1. Cost: some seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

from .published import check

START = {"w": 1.0, "b": 0.0}
NAMES: tuple[str, ...] = ("raw", "divided by ten", "standardized")
TITLE = r"Updates until the loss is within 1 % of the least, and the limits $2\,/\,\lambda_{\max}$"
COLORS: dict[str, str] = dict(zip(NAMES, (plots.RED, plots.BLUE, plots.GREEN), strict=True))


@dataclass(frozen=True)
class Config:
    factor: float = 0.1  # of the text's scaling
    rates: int = 400
    steps: int = 300_000


SECONDS = 9
QUICK = {"rates": 100}
BREAK = {"factor": 0.2}
ROWS = {"DLWPT-5.4.4": ""}


class Bowl(NamedTuple):
    """The loss of a line over readings in one scaling."""

    x: np.ndarray  # (11,)
    hessian: np.ndarray  # (2, 2) by (w, b)
    optimum: np.ndarray  # (2,)
    path: np.ndarray  # (k, 2) of params: updates at 90 % of the limit
    window: tuple[np.ndarray, np.ndarray, np.ndarray]  # w, b, and the loss there in excess of the least


class Result(NamedTuple):
    celsius: np.ndarray  # (11,)
    bowls: dict[str, Bowl]
    sweep: Any  # Dataset over scaling and learning_rate: stops within 1 % of the least loss
    first: list[float]  # the gradient at the start, raw readings
    scaled: Any  # rate 0.01, readings divided by ten, from w = 1
    each: Any  # raw readings, rate 0.0001 for w and 0.01 for b, from w = 0.1: the same line
    one_update: Any  # standardized, rate 0.5
    back: list[float]  # its w and b for raw readings
    undone: float  # the largest difference of readings that were standardized and taken back


def compute(config: Config) -> Result:
    t_u, t_c = jf.datasets.thermometer()
    z, scaler = jf.datasets.standardize(t_u)
    loss, sgd = jf.losses.mse(jf.models.line), jf.optimizers.sgd
    readings = dict(zip(NAMES, (t_u, config.factor * t_u, z), strict=True))
    bowls = {name: bowl(loss, x, t_c) for name, x in readings.items()}
    scaling = jf.Axis("scaling", np.stack(list(readings.values())), labels=NAMES)
    rates = jf.Axis("learning_rate", np.geomspace(3e-5, 3, config.rates))
    stop = jf.Stop(loss_below=1.01 * least(bowls["raw"], t_c))
    options = {"steps": config.steps, "stop": stop, "precision": "float64"}
    every = jf.Record(what=("loss", "params"))
    own = jf.optimizers.each(w=sgd(1e-2 * config.factor**2), b=sgd(1e-2))
    one_update = jf.fit(loss, START, (z, t_c), optimizer=sgd(0.5), steps=1)
    w = float(one_update.params["w"]) / float(scaler.scale)
    return Result(
        celsius=t_c,
        bowls=bowls,
        sweep=jf.sweep(loss, START, (scaling, t_c), optimizer=sgd(rates), **options).results,
        first=[float(g) for g in jf.step(loss, START, (t_u, t_c), optimizer=sgd(1e-4)).grads.values()][::-1],
        scaled=jf.fit(loss, START, (0.1 * t_u, t_c), optimizer=sgd(1e-2), steps=2000, record=every),
        each=jf.fit(loss, {"w": config.factor, "b": 0.0}, (t_u, t_c), optimizer=own, steps=2000, record=every),
        one_update=one_update,
        back=[w, float(one_update.params["b"]) - w * float(scaler.mean)],
        undone=float(np.max(abs(scaler.undo(z) - t_u))),
    )


def bowl(loss: Any, x: np.ndarray, y: np.ndarray) -> Bowl:
    rows = np.stack([x, np.ones_like(x)], axis=1)
    hessian, optimum = 2 * rows.T @ rows / len(x), np.linalg.lstsq(rows, y, rcond=None)[0]
    rate = 0.9 * 2 / np.linalg.eigvalsh(hessian)[-1]
    record = jf.Record(what=("params",))
    fit: Any = jf.fit(loss, START, (x, y), optimizer=jf.optimizers.sgd(rate), steps=40, record=record)
    reach = 1.25 * np.max(abs(np.array([1.0, 0.0]) - optimum))
    w, b = (np.linspace(center - reach, center + reach, 301) for center in optimum)
    away = np.stack(np.meshgrid(w, b), axis=-1) - optimum
    height = 0.5 * np.einsum("...i,ij,...j", away, hessian, away)
    path = np.stack([fit.history.params["w"], fit.history.params["b"]], axis=1)
    return Bowl(x, hessian, optimum, path, (w, b, height))


def least(bowl: Bowl, y: np.ndarray) -> float:
    return float(np.mean((bowl.optimum[0] * bowl.x + bowl.optimum[1] - y) ** 2))


def limit(bowl: Bowl) -> float:
    return float(2 / np.linalg.eigvalsh(bowl.hessian)[-1])


def excess(bowl: Bowl, rates: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The loss above the least after so many steps: sum_i lambda_i c_i^2 (1 - rate lambda_i)^2k / 2.

    c is the start, seen from the optimum, along the eigenvectors of the Hessian.
    """
    curvatures, directions = np.linalg.eigh(bowl.hessian)
    heights = 0.5 * curvatures * ((np.array([1.0, 0.0]) - bowl.optimum) @ directions) ** 2
    return np.sum(heights * (1 - rates[:, None] * curvatures) ** (2 * steps[:, None]), axis=1)


def checks(result: Result) -> list[Check]:
    row = "DLWPT-5.4.4, "
    rows = [
        check("DLWPT-5.4.4.ratio", result.first[0] / result.first[1], "how much steeper w is than b, raw"),
        Check("the same, exactly", 54.69, result.first[0] / result.first[1], 5e-3, row + "the printed gradients"),
    ]
    for name, number, print_ in zip(NAMES, (33_599, 357, 1), (3.399e-4, 0.03298, 1.0), strict=True):
        bowl = result.bowls[name]
        lanes = result.sweep.sel(scaling=name)
        rates, status, steps = (lanes[v].values for v in ("learning_rate", "status", "steps"))
        bad = np.isin(status, (jf.Status.DIVERGED, jf.Status.NOT_FINITE))
        done, cell = status == jf.Status.CONVERGED, rates[1] / rates[0] - 1
        bar = 0.01 * least(bowl, result.celsius)
        reached = excess(bowl, rates[done], steps[done]) < bar
        before = (steps[done] == 0) | (excess(bowl, rates[done], np.maximum(steps[done] - 1, 0)) >= bar)
        rows += [
            Check(f"{name}: condition number", number, np.linalg.cond(bowl.hessian), 0.5, row + "2 X'X / n"),
            Check(f"{name}: limit of the rate", print_, limit(bowl), 5e-4 * print_, row + "2 / lambda_max"),
            Check(f"{name}: first rate that fails", limit(bowl), rates[bad.argmax()], limit(bowl) * cell, row + "law"),
            Check(f"{name}: rates beyond it that do not", 0, int(np.sum(~bad[bad.argmax() :])), 0, row + "law"),
            Check(f"{name}: steps of the {done.sum()} that converged are the fewest", done.sum(),
                  int(np.sum(reached & before)), 0, row + "closed form"),
        ]  # fmt: skip
    scaled, each = result.scaled.history.params, result.each.history.params
    slope, intercept = result.bowls["raw"].optimum
    both = "1,000 steps: rates of their own, and readings / 10"
    return [
        *rows,
        Check(f"{both}: w", 0.1 * np.asarray(scaled["w"][:1001]), each["w"][:1001], 2e-6, row + "the same steps"),
        Check(f"{both}: b", np.asarray(scaled["b"][:1001]), each["b"][:1001], 2e-4, row + "the same steps"),
        Check(
            "standardized, rate 0.5: w and b after one update", [slope, intercept], result.back, 2e-5, row + "Newton"
        ),
        Check("standardized readings taken back: difference", 0.0, result.undone, 1e-12, row + "inverse"),
        check("DLWPT-5.4.4.true", np.polyfit([3.2, 21.2], [0.0, 100.0], 1), "Fahrenheit / 10 to Celsius"),
    ]


def draw(result: Result):
    space = {"hspace": 0.4, "wspace": 0.22, "top": 0.87, "left": 0.07, "right": 0.98, "bottom": 0.08}
    figure, axes = plots.panels(
        [list(NAMES), ["steps"] * 3], size=(10.5, 8.4), height_ratios=[1.15, 1], gridspec_kw=space
    )
    figure.suptitle("Scaled inputs lower the condition number of the loss", x=0.07, ha="left")
    text = "The loss of a line over (w, b) on axes of one scale, and 40 updates at 90 % of the limit of each."
    figure.text(0.07, 0.925, text, color="#555555")
    for name, bowl in result.bowls.items():
        draw_bowl(bowl, name, axes[name])
    draw_steps(result, axes["steps"])
    return figure


def draw_bowl(bowl: Bowl, name: str, ax) -> None:
    w, b, height = bowl.window
    levels = np.geomspace(1e-3, 1, 10) * np.max(height)
    ax.contour(w, b, height, levels, colors="#b9b9b9", linewidths=0.9)
    ax.plot(*bowl.path.T, "-o", color=COLORS[name], ms=3, lw=1.1)
    ax.plot(*bowl.optimum, "x", color=plots.DARK, ms=7, mew=1.8, zorder=4)
    ax.set(aspect="equal", xlim=(w[0], w[-1]), ylim=(b[0], b[-1]), xlabel="w")
    ax.set_title(f"{name.capitalize()}: condition number {np.linalg.cond(bowl.hessian):,.0f}")
    if name == NAMES[0]:
        ax.set_ylabel("b")
    ax.plot(*bowl.path[0], "o", color=COLORS[name], ms=6, mec="white", zorder=3)


def draw_steps(result: Result, ax) -> None:
    """Steps to within 1 % of the least loss against the learning rate, up to the limits."""
    few = 1, 300_000
    ax.set(xscale="log", yscale="log", xlim=(3e-5, 3), ylim=(0.8, few[1] * 2), xlabel="learning rate")
    ax.set(ylabel="updates", title=TITLE)
    plots.few_ticks(ax.xaxis, [1e-4, 1e-3, 1e-2, 0.1, 1])
    plots.few_ticks(ax.yaxis, [1, 10, 100, 1000, 10_000, 100_000])
    curves = {}
    for name, bowl in result.bowls.items():
        lanes = result.sweep.sel(scaling=name)
        done = lanes.status.values == jf.Status.CONVERGED
        curves[name] = lanes.learning_rate.values[done], lanes.steps.values[done]
        ax.plot(*curves[name], color=COLORS[name], lw=4.5 if name == NAMES[0] else 1.7)
        ax.axvline(limit(bowl), color=COLORS[name], lw=1, ls=(0, (4, 3)))
    room = plots.Room(ax)
    walls = {name: room.block([limit(bowl)] * 2, [0.8, few[1] * 2]) for name, bowl in result.bowls.items()}
    paths = {name: room.block(*curve) for name, curve in curves.items()}
    for name, bowl in result.bowls.items():
        fewest = curves[name][1].min()
        words = f"{name}: at best {fewest:,} update{'s' * int(fewest > 1)}"
        room.near(paths[name], words, color=COLORS[name], prefer=(0.3, 0.1))
        room.near(walls[name], plots.number(float(f"{limit(bowl):.4g}")), color=COLORS[name], prefer=(0.8, 1))
