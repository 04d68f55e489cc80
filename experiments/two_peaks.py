"""Two overlapping peaks on a decaying background, fitted without a start of the user's, to every certified digit.

The sum of two Gaussians and an exponential, eight params, is written as gaussians(2) + exponential_decay. Its guess is
the best of a grid of shapes with their best heights: it only has to be good enough for Levenberg-Marquardt, which goes
from there to the params and the standard errors that NIST certifies.

Source: NIST Statistical Reference Datasets, nonlinear regression, Gauss3 (simulated data of 250 points, "average"
difficulty). Cost: some seconds on a CPU.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

CERTIFIED = json.loads(Path(__file__).with_name("two_peaks.json").read_text("utf-8"))
MODEL = jf.models.gaussians(2) + jf.models.exponential_decay
NIST = "NIST StRD, Gauss3"


@dataclass(frozen=True)
class Config:
    decimals: int = 6  # of the data, as they are given


QUICK = {}
BREAK = {"decimals": 1}  # then only the first three digits are those certified
ROWS = {}


class Result(NamedTuple):
    x: np.ndarray  # (250,)
    y: np.ndarray
    fit: Any
    errors: Any  # like the params
    start: np.ndarray  # (250,) the curve of the guess
    curve: np.ndarray  # (250,) of the fit
    parts: dict[str, np.ndarray]  # (250,) each


def compute(config: Config) -> Result:
    x, y = np.array(CERTIFIED["x"]), np.round(CERTIFIED["y"], config.decimals)
    guess = MODEL.guess(x, y)
    fit = jf.curve_fit(MODEL, guess, (x, y))
    own = fit.params
    peaks = [jf.models.gaussian({n: own[n][i] for n in ("height", "center", "sigma")}, x) for i in (0, 1)]
    background = jf.models.exponential_decay({n: own[n] for n in ("amplitude", "rate")}, x)
    parts = {"first peak": peaks[0], "second peak": peaks[1], "background": background}
    return Result(
        x, y, fit, jf.standard_errors(fit), np.asarray(MODEL(guess, x), float), np.asarray(MODEL(own, x), float),
        {name: np.asarray(part, float) for name, part in parts.items()},
    )  # fmt: skip


def in_order(p: dict[str, Any], width: float) -> np.ndarray:
    """The eight numbers in NIST's order, whose widths are sqrt(2) sigma."""
    peaks = [[p["height"][i], p["center"][i], width * abs(p["sigma"][i])] for i in (0, 1)]
    return np.array([p["amplitude"], p["rate"], *peaks[0], *peaks[1]], float)


def checks(result: Result) -> list[Check]:
    params, errors = np.array(CERTIFIED["params"]), np.array(CERTIFIED["errors"])
    left = float(np.sum((result.curve - result.y) ** 2))
    return [
        Check("outcome", "CONVERGED", result.fit.status.name, source=NIST),
        Check("sum of squares", CERTIFIED["rss"], float(result.fit.loss), 1e-8 * CERTIFIED["rss"], NIST),
        Check("the eight params", params, in_order(result.fit.params, np.sqrt(2)), 1e-7 * params, NIST),
        Check("their standard errors", errors, in_order(result.errors, np.sqrt(2)), 1e-6 * errors, NIST),
        Check("the curve drawn: its sum of squares", CERTIFIED["rss"], left, 1e-4 * CERTIFIED["rss"], NIST),
    ]


def draw(result: Result):
    figure, axes = plots.panels([["fit"], ["rest"]], size=(7.2, 5.6), height_ratios=[3, 1], sharex=True)
    draw_fit(result, axes["fit"])
    spread = np.sqrt(result.fit.loss / (result.x.size - 8))
    ax = axes["rest"]
    ax.axhline(0, color=plots.BLUE, lw=1.2)
    ax.plot(result.x, result.y - result.curve, "o", color=plots.DARK, ms=2.2)
    ax.set(ylim=(-8, 8), xlabel="x", title=f"residuals, standard deviation {spread:.2f}")
    plots.few_ticks(ax.yaxis, [-5, 0, 5])
    return figure


def draw_fit(result: Result, ax) -> None:
    x, params, errors = result.x, result.fit.params, result.errors
    ax.set(xlim=(0, 251), ylim=(0, 150), title="Two Gaussians and an exponential, fitted from a guess")
    plots.few_ticks(ax.xaxis, [0, 50, 100, 150, 200, 250])
    plots.few_ticks(ax.yaxis, [0, 50, 100, 150])
    colors = dict(zip(result.parts, (plots.RED, plots.GREEN, plots.ORANGE), strict=True))
    ax.plot(x, result.y, "o", color=plots.DARK, ms=2.4, zorder=1)
    ax.plot(x, result.start, color=plots.GREY, lw=1.1, ls=(0, (4, 3)), zorder=2)
    for name, part in result.parts.items():
        ax.plot(x, part, color=colors[name], lw=1.3, zorder=3)
    ax.plot(x, result.curve, color=plots.BLUE, lw=1.6, zorder=4)
    room = plots.Room(ax)
    lines = {name: room.block(x, part) for name, part in result.parts.items()}
    whole, guess = room.block(x, result.curve), room.block(x, result.start)
    for i, name in enumerate(("first peak", "second peak")):
        words = f"{name}\nat {params['center'][i]:.2f} ± {errors['center'][i]:.2f}"
        room.near(lines[name], words, color=colors[name], prefer=((0.33, 0.45), (0.72, 0.55))[i])
    room.near(lines["background"], "background", color=colors["background"], prefer=(0.9, 0.15))
    room.near(whole, "the fit", color=plots.BLUE, prefer=(0.64, 0.85))
    room.near(guess, "the guess", color=plots.GREY, prefer=(0.35, 0.9))
