"""Below a learning rate of 2 / curvature the slope of a line converges, above it every step increases the distance.

The slope a of a line through the blood pressures of 33 women, its intercept held at 87.6, by five steps of gradient
descent from a = 0.5. A step multiplies the distance to the minimum by 1 - rate * curvature: 0.52 at the rate 0.0001,
-0.44 at 0.0003 (every step crosses the minimum), -1.15 at 0.00045, which is above the limit of 0.000418.

Source: Dürr, Sick and Murina, Probabilistic Deep Learning (2020), figures 3.4 and 3.5, and the run of its notebook 1
from a = -0.5. Cost: some seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

from .published import check

RATES = (1e-4, 3e-4, 4.5e-4)
INTERCEPT = 87.6


@dataclass(frozen=True)
class Config:
    start: float = 0.5  # as in the figure; the book's notebook has -0.5


QUICK = {}
BREAK = {"start": -0.5}
ROWS = {"PDL-F3.5": "", "PDL-X2": "", "PDL-E3.2": ""}


def slope_only(params, x):
    return params["a"] * x + INTERCEPT


class Result(NamedTuple):
    best: float  # the slope of the least loss
    curvature: float  # second derivative of the loss by the slope
    curve: tuple[np.ndarray, np.ndarray]  # slopes and losses of the parabola
    paths: list[np.ndarray]  # (6,) slopes for each rate
    losses: list[np.ndarray]  # (6,) losses at them
    notebook: np.ndarray  # (6,) slopes of the notebook's run
    too_fast: jf.Fit  # 0.00045, until it stops
    calmed: jf.Fit  # a tenth of that


def compute(config: Config) -> Result:
    age, pressure = jf.datasets.blood_pressure()
    loss = jf.losses.mse(slope_only)

    def fit(rate, start=config.start, steps=5, **options) -> Any:
        record = jf.Record(what=("loss", "params"))
        optimizer = jf.optimizers.sgd(rate)
        return jf.fit(loss, {"a": start}, (age, pressure), optimizer=optimizer, steps=steps, record=record, **options)

    fits = [fit(rate) for rate in RATES]
    curvature = float(2 * np.mean(age**2))
    best = float(np.sum(age * (pressure - INTERCEPT)) / np.sum(age**2))
    slopes = np.linspace(-1, 3, 401)
    return Result(
        best=best,
        curvature=curvature,
        curve=(slopes, np.mean((slopes[:, None] * age + INTERCEPT - pressure) ** 2, axis=1)),
        paths=[np.asarray(fit.history.params["a"]) for fit in fits],
        losses=[np.asarray(fit.history.loss) for fit in fits],
        notebook=np.asarray(fit(3e-4, start=-0.5).history.params["a"]),
        too_fast=fit(4.5e-4, steps=1000),
        calmed=fit(4.5e-5, steps=1000, stop=jf.Stop(gradient_norm_below=1.0)),
    )


def checks(result: Result) -> list[Check]:
    figure = "PDL-F3.5, by hand"
    factors = [1 - rate * result.curvature for rate in RATES]
    rows = [
        Check("slope of the least loss", 1.1064, result.best, 5e-5, figure),
        Check("limit of the learning rate, 2 / curvature", 0.00041795, 2 / result.curvature, 5e-9, figure),
    ]
    for rate, path, losses, factor, printed, end in zip(
        RATES, result.paths, result.losses, factors, (0.5215, -0.4356, -1.1533), (1.0830, 1.1159, 2.3439), strict=True
    ):
        k = np.arange(len(path))
        law = result.best + factor**k * (path[0] - result.best)
        least = np.interp(result.best, *result.curve)
        way, sign = ("falls", -1) if abs(factor) < 1 else ("rises", 1)
        rows += [
            Check(f"rate {rate:g}: slope after 5 steps", end, path[-1], 6e-5, figure),
            Check(f"rate {rate:g}: factor of a step", printed, ratio(path, result.best), 6e-5, figure),
            Check(f"rate {rate:g}: slopes of all steps", law, path, 2e-6, "PDL-E3.2, theory"),
            Check(f"rate {rate:g}: the loss {way} in every step", True, bool(np.all(np.diff(losses) * sign > 0))),
            Check(f"rate {rate:g}: no loss below the least", True, bool(np.all(losses > least * (1 - 1e-6)))),
        ]
    return [
        *rows,
        check("PDL-nb01.path", result.notebook, "rate 0.0003 from -0.5: slopes of all steps"),
        Check("rate 0.00045, 1,000 steps: outcome", "DIVERGED", result.too_fast.status.name, source="PDL-X2"),
        Check("a tenth of that: outcome", "CONVERGED", result.calmed.status.name, source="PDL-X2"),
        Check("a tenth of that: slope", result.best, float(result.calmed.params["a"]), 5e-4, "theory"),
    ]


def ratio(path: np.ndarray, best: float) -> float:
    """By what the first step multiplied the distance to the minimum."""
    return float((path[1] - best) / (path[0] - best))


def draw(result: Result):
    space = {"hspace": 0.42, "wspace": 0.08, "top": 0.86, "left": 0.07, "right": 0.98, "bottom": 0.08}
    names, colors = ("slow", "crossing", "leaving"), (plots.BLUE, plots.GREEN, plots.RED)
    figure, axes = plots.panels([names, ["distance"] * 3], size=(10, 7.6), height_ratios=[1.25, 1], gridspec_kw=space)
    title = f"Gradient descent on a slope: the limit of the learning rate is 2 / curvature = {2 / result.curvature:.8f}"
    figure.suptitle(title, x=0.07, ha="left")
    figure.text(
        0.07, 0.915, "Blood pressure against age, intercept held at 87.6: five steps from a = 0.5.", color="#555555"
    )
    words = ("stays on one side", "crosses and converges", "crosses and diverges")
    for name, rate, path, losses, color, what in zip(
        names, RATES, result.paths, result.losses, colors, words, strict=True
    ):
        ax = axes[name]
        ax.set(xlim=(-0.35, 2.6), ylim=(0, 4600), xlabel="slope a", title=f"{rate:.5f} {what}")
        plots.descent_1d(path, losses, result.curve, color=color, ax=ax)
        if name != "slow":
            ax.tick_params(labelleft=False)
    axes["slow"].set_ylabel("loss, mmHg²")
    plots.few_ticks(axes["slow"].yaxis, range(0, 4001, 1000))
    distance(result, colors, axes["distance"])
    return figure


def distance(result: Result, colors, ax) -> None:
    """The distance to the minimum after every step, on the straight lines that the law draws."""
    k = np.arange(len(result.paths[0]))
    law = {}
    for rate, path in zip(RATES, result.paths, strict=True):
        factor = 1 - rate * result.curvature
        label = f"{rate:.5f}: times {factor:.2f} in every step".replace("-", "−")
        law[label] = abs(path[0] - result.best) * abs(factor) ** k
    ax.set_prop_cycle(color=colors)
    plots.loss_history(law, ax=ax)
    for path, color in zip(result.paths, colors, strict=True):
        ax.plot(k, abs(path - result.best), "o", color=color, ms=6, mec="white", mew=0.7, zorder=3)
    ax.set(xlabel="steps", ylabel="distance to the minimum")
    ax.set_title("A step multiplies the distance to the minimum: dots are the runs, lines the law 1 − rate × curvature")
