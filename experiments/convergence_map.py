"""Where gradient descent converges is decided by the learning rate, not by the start: below 2 / lambda_max it does.

lambda_max is the largest eigenvalue of the Hessian. A line is fitted to the mystery thermometer (readings / 10) and to
the blood pressure of 33 women, from 256 starting points and with 256 learning rates each, in one sweep; and with heavy
ball momentum b, which moves the limit to 2 (1 + b) / lambda_max. A member has converged when its loss is within 1 % of
the least one. In every row of every map the limit that is measured lies within one cell of the law, and the colors
of the upper maps, the steps it took, are those of the closed form.

Source: the law is in every textbook, for example Goh, Why Momentum Really Works (2017); the data are of Stevens,
Antiga and Viehmann, Deep Learning with PyTorch (2020), chapter 5, and of Dürr, Sick and Murina, Probabilistic Deep
Learning (2020), chapter 3. Cost: half a minute on two cores.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check


@dataclass(frozen=True)
class Config:
    cells: int = 256  # learning rates, and starts
    momenta: int = 128
    nesterov: bool = False  # another momentum, another law
    precision: str = "float64"  # in float32 rounding delays the slowest members by some percent


SECONDS = 20
QUICK = {"cells": 24, "momenta": 12}
BREAK = {"nesterov": True}


class Case(NamedTuple):
    """A data set, and the window on it."""

    name: str
    data: tuple[np.ndarray, np.ndarray]
    start: dict[str, float]  # of the maps over momentum
    starts: tuple[float, float]  # of b, from w = 0, in the maps over the start
    rates: tuple[float, float]
    steps: int


class Maps(NamedTuple):
    """Of one case."""

    case: Case
    hessian: np.ndarray  # (2, 2), of the loss by (w, b): 2 X'X / n
    traced: np.ndarray  # (2, 2), the same by differentiation, in float32
    optimum: np.ndarray  # (2,) w and b of the least loss
    least: float  # that loss
    by_start: Any  # Dataset over b and learning_rate
    by_momentum: Any  # Dataset over momentum and learning_rate


def cases() -> tuple[Case, Case]:
    t_u, t_c = jf.datasets.thermometer()
    pressure = jf.datasets.blood_pressure()
    return (
        Case("thermometer, readings / 10", (0.1 * t_u, t_c), {"w": 1.0, "b": 0.0}, (-50, 10), (1e-3, 0.1), 5_000),
        Case("blood pressure", pressure, {"w": 1.0, "b": 100.0}, (70, 106), (3e-5, 1.6e-3), 5_000),
    )


def compute(config: Config) -> list[Maps]:
    return [maps(config, case) for case in cases()]


def maps(config: Config, case: Case) -> Maps:
    x, y = case.data
    rows = np.stack([x, np.ones_like(x)], axis=1)
    optimum = np.linalg.lstsq(rows, y, rcond=None)[0]
    least = float(np.mean((rows @ optimum - y) ** 2))
    kind = jf.optimizers.nesterov if config.nesterov else jf.optimizers.momentum
    loss, stop = jf.losses.mse(jf.models.line), jf.Stop(loss_below=1.01 * least)

    def rate(cells):
        return jf.Axis("learning_rate", np.geomspace(*case.rates, cells))

    def sweep(start, optimizer):
        options = {"steps": case.steps, "stop": stop, "precision": config.precision}
        return jf.sweep(loss, start, case.data, optimizer=optimizer, **options).results

    start = jf.Axis("b0", np.linspace(*case.starts, config.cells))
    momentum = jf.Axis("momentum", np.linspace(0, 0.98, config.momenta))
    return Maps(
        case=case,
        hessian=2 * rows.T @ rows / len(x),
        traced=np.asarray(jax.hessian(lambda p: loss({"w": p[0], "b": p[1]}, x, y))(jnp.zeros(2))),
        optimum=optimum,
        least=least,
        by_start=sweep({"w": 0.0, "b": start}, jf.optimizers.sgd(rate(config.cells))),
        by_momentum=sweep(case.start, kind(rate(config.momenta), momentum)),
    )


def checks(result: list[Maps]) -> list[Check]:
    thermometer, pressure = result
    rows = [
        Check("thermometer, raw readings: 2 / lambda_max", 3.399e-4, raw_limit(thermometer), 5e-8, "closed form"),
        Check("blood pressure: 2 / lambda_max", 4.1780e-4, limit(pressure), 5e-9, "closed form"),
    ]
    for maps in result:
        name, law, momenta = maps.case.name, limit(maps), maps.by_momentum.momentum.values
        measured, theory = speeds(maps)
        rows += [
            Check(f"{name}: Hessian of the loss", maps.hessian, maps.traced, 2e-6 * maps.hessian, "2 X'X / n"),
            *boundary(f"{name}, every start", maps.by_start, law * np.ones(maps.by_start.sizes["b0"])),
            *boundary(f"{name}, every momentum", maps.by_momentum, law * (1 + momenta)),
            Check(f"{name}: steps of all that converged", theory, measured, 1, "closed form"),
        ]
    return rows


def limit(maps: Maps) -> float:
    return float(2 / np.linalg.eigvalsh(maps.hessian)[-1])


def raw_limit(maps: Maps) -> float:
    """The limit for readings that are not divided by ten."""
    scale = np.diag([10.0, 1.0])
    return float(2 / np.linalg.eigvalsh(scale @ maps.hessian @ scale)[-1])


def boundary(what: str, results, law: np.ndarray) -> list[Check]:
    """The first learning rate that ends badly is within one cell of the law, and after it none ends well."""
    rates = results.learning_rate.values
    status = results.status.transpose(..., "learning_rate").values
    bad = (status == jf.Status.DIVERGED) | (status == jf.Status.NOT_FINITE)
    first = np.where(bad.any(axis=1), rates[bad.argmax(axis=1)], np.nan)
    cell = rates[1] / rates[0] - 1
    after = np.maximum.accumulate(bad, axis=1)
    outcomes = {jf.Status.CONVERGED, jf.Status.OUT_OF_STEPS, jf.Status.DIVERGED}
    return [
        Check(f"{what}: first rate that fails", law, first, law * cell, "the law"),
        Check(f"{what}: members beyond it that do not", 0, int(np.sum(after & ~bad)), 0, "the law"),
        Check(f"{what}: the map has all three outcomes", True, outcomes <= set(np.unique(status))),
    ]


def speeds(maps: Maps) -> tuple[np.ndarray, np.ndarray]:
    """Steps of all members that converged, and the least k with sum_i lambda_i c_i^2 (1 - rate lambda_i)^2k / 2 < 1 %.

    c are the coordinates of the start, seen from the optimum, along the eigenvectors of the Hessian.
    """
    results = maps.by_start.transpose("b0", "learning_rate")
    done = results.status.values == jf.Status.CONVERGED
    b0, rates = np.meshgrid(results.b0.values, results.learning_rate.values, indexing="ij")
    curvatures, directions = np.linalg.eigh(maps.hessian)
    starts = np.stack([np.zeros_like(b0), b0], axis=-1)[done] - maps.optimum
    heights = 0.5 * curvatures * (starts @ directions) ** 2
    factors = (1 - rates[done][:, None] * curvatures) ** 2
    low, high = np.zeros(len(heights), int), np.full(len(heights), maps.case.steps)
    while np.any(high > low):
        middle = (low + high) // 2
        reached = np.sum(heights * factors ** middle[:, None], axis=1) < 0.01 * maps.least
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    return results.steps.values[done], high


def draw(result: list[Maps]):
    space = {"hspace": 0.36, "wspace": 0.16, "top": 0.86, "left": 0.07, "right": 0.89, "bottom": 0.07}
    figure, axes = plots.panels([["s0", "s1"], ["m0", "m1"]], size=(11, 8.6), gridspec_kw=space)
    figure.suptitle(
        "Where gradient descent converges: the learning rate decides, and the law says where", x=0.07, ha="left"
    )
    legend = (
        "Color: steps until the loss is within 1 % of the least. Bright bands: starts with only the steep way to go."
    )
    figure.text(0.07, 0.92, legend, color="#555555")
    colors = {"steps_range": (5, 5_000), "colorbar": False}
    for column, maps in enumerate(result):
        law = limit(maps)
        ax = axes[f"s{column}"]
        label = rf"$2\,/\,\lambda_{{\max}}$ = {plots.number(float(f'{law:.4g}'))}"
        plots.convergence_map(maps.by_start, x="learning_rate", y="b0", law=law, law_label=label, ax=ax, **colors)
        ax.set(title=f"{maps.case.name.capitalize()}, from any start", ylabel="starting intercept b, from w = 0")
        ax = axes[f"m{column}"]
        label = r"$2\,(1+\beta)\,/\,\lambda_{\max}$"
        curve = law * (1 + maps.by_momentum.momentum.values)
        plots.convergence_map(
            maps.by_momentum, x="learning_rate", y="momentum", law=curve, law_label=label, ax=ax, **colors
        )
        ax.set(title=f"{maps.case.name.capitalize()}, with any momentum", ylabel=r"momentum $\beta$")
    place = figure.add_axes((0.915, 0.07, 0.014, 0.79))
    plots.steps_bar(place, 5, 5_000, cax=place)
    return figure
