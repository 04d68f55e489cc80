"""Momentum has phases: monotone, rippling, alternating, diverging; a = rate x curvature and momentum b decide which.

On a parabola a step of the heavy ball multiplies (x, its last step) by a matrix with the eigenvalues
s = (1 - a + b +- sqrt((1 - a + b)^2 - 4 b)) / 2, and the largest |s| is the factor of a step in the long run. It is
below one where a < 2 + 2 b: the limit of plain descent, doubled at b = 1. Where the root is imaginary the rate is
sqrt(b), whatever the learning rate; its edge b = (1 - sqrt(a))^2 is critical damping, the fastest b for that a. Runs on
parabolas of curvature 1 and of curvature 100 measure both, the limit and the rate.

A footnote of the article gives the rate in the rippling phase as 2 sqrt(b). It is sqrt(b): 2 sqrt(b) would diverge from
b = 1/4 on, where every run of the phase converges.

Source: Goh, Why Momentum Really Works (2017), doi:10.23915/distill.00006. Cost: seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

LIMITS = np.linspace(0, 0.95, 20)  # momenta at which the limit is measured
RATES = (0.1, 0.5, 0.9)  # momenta whose rate of convergence is measured
GOH = "Goh 2017"


@dataclass(frozen=True)
class Config:
    nesterov: bool = False  # another momentum, whose limit is lower by 1 + 2 b
    cells: int = 4001  # of a, up to 4, where the limit is looked for
    steps: int = 4000


QUICK = {"cells": 401, "steps": 1000}
BREAK = {"nesterov": True}  # at b = 0.95 the limit is 1.34 instead of 3.9, and runs meant to ripple at sqrt(b) diverge
ROWS = {}


class Result(NamedTuple):
    cell: float  # of a, in the search of the limit
    limits: dict[float, np.ndarray]  # by curvature: (20,) the last a that does not diverge, at LIMITS
    evaluated: float  # part of the members that were run for it
    a: np.ndarray  # of the measured rates
    rates: np.ndarray  # (3, a) factor of a step in the long run, at RATES
    fastest: np.ndarray  # (a, 3): a, the b of the fastest of many, and its rate


def parabola(x, curvature):
    return 0.5 * curvature * x**2


def compute(config: Config) -> Result:
    kind = jf.optimizers.nesterov if config.nesterov else jf.optimizers.momentum
    a = np.linspace(0, 4, config.cells)[1:]

    def limit(curvature):
        optimizer = kind(jf.Axis("rate", a / curvature), jf.Axis("momentum", LIMITS))
        options: dict[str, Any] = {"stop": jf.Stop(loss_above=1e30), "steps": config.steps, "precision": "float64"}
        grid = jf.refine(parabola, 1.0, (curvature,), optimizer=optimizer, over="rate", depth=6, **options)
        bad = (grid.results.status == jf.Status.DIVERGED).transpose("momentum", "rate").values
        return a[bad.argmax(axis=1) - 1], grid.results.attrs["evaluated"]

    def rates(a, b):
        return rate_of(path(kind(jf.Axis("rate", a), jf.Axis("momentum", b))))

    shown = np.linspace(0, 4, 81)[1:]
    some = np.linspace(0.1, 0.7, 7)
    momenta = np.linspace(0.02, 0.6, 59)
    trials = rates(some, momenta)
    limits = {curvature: limit(curvature) for curvature in (1.0, 100.0)}
    return Result(
        cell=float(a[1] - a[0]),
        limits={curvature: found for curvature, (found, _) in limits.items()},
        evaluated=limits[1.0][1],
        a=shown,
        rates=rates(shown, np.array(RATES)),
        fastest=np.stack([some, momenta[trials.argmin(axis=0)], trials.min(axis=0)], axis=1),
    )


def path(optimizer: Any) -> np.ndarray:
    """(momentum, rate, step) the way of every member of a sweep from x = 1."""
    record = jf.Record(what=("params",))
    grid = jf.sweep(parabola, 1.0, (1.0,), optimizer=optimizer, steps=320, record=record, precision="float64", slots=64)
    return grid.results["history.params"].transpose("momentum", "rate", "step").values


def rate_of(x: np.ndarray) -> np.ndarray:
    """The factor of a step, from the largest |x| of 60 steps in the middle and at the end: ripples do not count."""
    early, late = (np.abs(x[..., end - 60 : end]).max(axis=-1) for end in (160, 320))
    with np.errstate(invalid="ignore"):
        return (late / early) ** (1 / 160)


def law(a: Any, b: Any) -> np.ndarray:
    """The larger |s|."""
    trace = 1 - np.asarray(a) + b
    root = np.sqrt(trace**2 - 4 * np.asarray(b) + 0j)
    return np.maximum(abs(trace + root), abs(trace - root)) / 2


def checks(result: Result) -> list[Check]:
    b = np.array(RATES)[:, None]
    theory = law(result.a, b)
    rippling = (result.a > (1 - np.sqrt(b)) ** 2 + 0.1) & (result.a < (1 + np.sqrt(b)) ** 2 - 0.1)
    plateau = np.broadcast_to(np.sqrt(b), theory.shape)[rippling]
    some, best, rate = result.fastest.T
    return [
        *(
            Check(f"curvature {curvature:g}: last a that does not diverge, 20 momenta", 2 + 2 * LIMITS, found,
                  1.5 * result.cell, f"{GOH}: a < 2 + 2 b")
            for curvature, found in result.limits.items()
        ),
        Check("factor of a step, everywhere", theory, result.rates, 0.012 * theory, f"{GOH}: the larger |s|"),
        Check("factor of a step while it ripples", plateau, result.rates[rippling], 0.01 * plateau, f"{GOH}: sqrt(b)"),
        Check("momentum 0.9 ripples: 2 sqrt(b), as printed, would diverge; all runs converge", True,
              bool(2 * np.sqrt(0.9) > 1 > result.rates[2][rippling[2]].max()), source=f"{GOH}: erratum"),
        Check("fastest momentum for a", (1 - np.sqrt(some)) ** 2, best, 0.02, f"{GOH}: critical damping"),
        Check("and its rate", 1 - np.sqrt(some), rate, 0.03, f"{GOH}: critical damping"),
        Check("members that were run to find the limit", 0.04, result.evaluated, 0.04),
    ]  # fmt: skip


def draw(result: Result):
    space = {"wspace": 0.2, "top": 0.83, "left": 0.06, "right": 0.98, "bottom": 0.11}
    figure, axes = plots.panels([["phases", "rates"]], size=(12, 5.6), width_ratios=[1.15, 1], gridspec_kw=space)
    figure.suptitle("The phases of momentum: monotone, rippling, alternating, diverging", x=0.06, ha="left")
    words = "A parabola; a = learning rate × curvature, b = momentum. Color: by what a step multiplies the distance."
    figure.text(0.06, 0.9, words, color="#555555")
    phases(result, axes["phases"], figure)
    rates(result, axes["rates"])
    return figure


def phases(result: Result, ax: Any, figure: Any) -> None:
    a, b = np.linspace(0, 4, 801), np.linspace(0, 1, 401)
    factor = law(a[None, :], b[:, None])
    stable = np.ma.masked_greater(factor, 1 + 1e-12)
    ax.set(
        xlim=(0, 4),
        ylim=(0, 1),
        xlabel="a = rate × curvature",
        ylabel="momentum b",
        title="Dots: the limit found by runs; dashed: the law",
    )
    mesh = ax.pcolormesh(a, b, stable, cmap=plt.get_cmap("viridis_r", 40), vmin=0, vmax=1, rasterized=True)
    ax.contourf(a, b, factor, [1 + 1e-9, 10], colors=["#8c2d04"])
    edge = np.linspace(0, 1, 301)
    for sign in (-1, 1):
        ax.plot((1 + sign * np.sqrt(edge)) ** 2, edge, color="white", lw=1.2, ls=(0, (2, 2)))
    ax.plot(2 + 2 * edge, edge, color="white", lw=2.6)
    ax.plot(2 + 2 * edge, edge, color="black", lw=1.4, ls=(0, (4, 2)))
    ax.plot(result.limits[1.0], LIMITS, "o", ms=4.5, mfc="white", mec="black", mew=0.8, zorder=5, clip_on=False)
    room = plots.Room(ax)
    limit = room.block(2 + 2 * edge, edge, width=14)
    for sign in (-1, 1):
        damping = room.block((1 + sign * np.sqrt(edge)) ** 2, edge)
        if sign < 0:
            critical = damping
    columns, rows = room.centers()
    grid = np.meshgrid(columns, rows)
    ripples = (1 - grid[0] + grid[1]) ** 2 < 4 * grid[1]
    diverges = grid[0] > 2 + 2 * grid[1]
    where = {"within": 14, "allowed": ripples}
    room.near(critical, "critical damping\n$b = (1-\\sqrt{a})^2$", prefer=(0.3, 0.15), color="white", **where)
    room.near(limit, "$a = 2+2b$", within=14, allowed=diverges, prefer=(0.8, 0.35), color="white")
    room.inside(ripples, "ripples\nrate $\\sqrt{b}$, whatever a", color="white", weight="bold", linespacing=1.4)
    room.inside(diverges, "diverges", color="white", weight="bold")
    for word, at in {"monotone": 0.34, "alternates": 1.7}.items():
        ax.text(at, 0.025, word, color="white", weight="bold", fontsize=8.5, ha="center", va="center")
    bar = figure.colorbar(mesh, ax=ax, pad=0.02, aspect=32)
    plots.few_ticks(bar.ax.yaxis, [0, 0.25, 0.5, 0.75, 1])
    bar.set_label("factor of a step, max |s|")
    bar.outline.set_visible(False)


def rates(result: Result, ax: Any) -> None:
    fine = np.linspace(0, 4, 801)
    colors = (plots.GREEN, plots.BLUE, plots.PINK)
    ax.set(xlim=(0, 4), ylim=(0, 2.05), xlabel="a = rate × curvature", ylabel="factor of a step")
    ax.set_title("Ripples shrink by √b, not by 2√b: dots are runs, lines max |s|")
    ax.axhline(1, color="#999999", lw=0.8)
    lines, printed = {}, {}
    for b, rate, color in zip(RATES, result.rates, colors, strict=True):
        ax.plot(fine, law(fine, b), color=color, lw=1.4)
        ax.plot(result.a[::2], rate[::2], "o", ms=3.6, color=color, mec="white", mew=0.4)
        span = np.array([(1 - np.sqrt(b)) ** 2, (1 + np.sqrt(b)) ** 2])
        ax.plot(span, np.full(2, 2 * np.sqrt(b)), color=color, lw=1.2, ls=(0, (2, 2)))
        lines[b], printed[b] = (fine, law(fine, b)), (span, np.full(2, 2 * np.sqrt(b)))
    room = plots.Room(ax)
    room.block([0, 4], [1, 1])
    paths = {b: room.block(*line, width=9) for b, line in lines.items()}
    dotted = {b: room.block(*line) for b, line in printed.items()}
    room.near(np.array([room.ax.transData.transform((0.35, 1.0))]), "diverges above", color=plots.GREY, prefer=(0, 0.6))
    for (b, line), color in zip(paths.items(), colors, strict=True):
        room.near(line, f"b = {b}", color=color, weight="bold", prefer=(0.4, 0.3))
        room.near(dotted[b], f"printed for b = {b}", color=color, prefer=(0.5, 1), fontsize=8.5)
