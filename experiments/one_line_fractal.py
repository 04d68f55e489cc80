"""On x^2 + eps cos(2 pi x / l) the set of learning rates for which gradient descent stays bounded has a fractal edge.

Gradient descent from x = 1, 1,000 steps, with 20,001 learning rates. While theta = eps / l^2 is at most 1 / (2 pi^2) =
0.05066 the loss is convex, and the edge is a single point. A little more, 0.06, makes five; 0.1 makes more than a
hundred, and closer looks show as many again. How many exactly is a matter of rounding: the same loss written with
sin^2 in place of the cosine, as right as the first, gives another number. So the numbers from 0.1 on are checked only
within a factor of two.

Source: Liu, Complex fractal trainability boundary can arise from trivial non-convexity (2024), arXiv:2406.13971. Cost:
seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check
from jaxfit.problems import precision_context

THETAS = np.array([0.0, 0.02, 0.045, 0.0507, 0.06, 0.1, 0.3, 1.0])
CROSSINGS = (1, 1, 1, 1, 5, 130, 110, 21)  # about, from the sixth on
CONVEX = 1 / (2 * np.pi**2)
LENGTH = 0.1  # l
LIU = "Liu 2024"
ZOOMS = 4  # closer looks, each by 10


@dataclass(frozen=True)
class Config:
    rates: int = 20_001
    steps: int = 1000  # fewer leave the edge of the parabola where nothing has grown yet


SECONDS, CHAOTIC = 19, True
QUICK = {}
BREAK = {"steps": 100}  # the parabola ends at 1.074 instead of 1.007, and of 130 crossings at theta 0.1 five are there
ROWS = {}


class Result(NamedTuple):
    rates: np.ndarray
    bounded: np.ndarray  # (theta, rate)
    other: np.ndarray  # (rate,) for theta = 0.1, by the loss written with sin^2
    looks: list[tuple[np.ndarray, np.ndarray]]  # rates, and whether they are bounded, each ten times closer
    bends: np.ndarray  # (theta,) the least second derivative of the loss


def wavy(x, theta):
    return x**2 + theta * LENGTH**2 * jnp.cos(2 * jnp.pi * x / LENGTH)


def same(x, theta):
    return x**2 + theta * LENGTH**2 * (1 - 2 * jnp.sin(jnp.pi * x / LENGTH) ** 2)


def compute(config: Config) -> Result:
    rates = np.linspace(0.5, 1.5, config.rates)

    def bounded(loss, rates, thetas):
        rate, theta = jf.Axis("rate", rates), jf.Axis("theta", thetas)
        options: dict[str, Any] = {"steps": config.steps, "precision": "float64"}
        grid = jf.sweep(loss, 1.0, (theta,), optimizer=jf.optimizers.sgd(rate), **options)
        return (np.abs(grid.results.params) < 1e6).transpose("theta", "rate").values

    all_of_them, looks = bounded(wavy, rates, THETAS), []
    place = THETAS.tolist().index(0.3)
    near, yes = rates, all_of_them[place]
    for k in range(ZOOMS):
        looks.append((near, yes))
        edge = middle_edge(near, yes)
        near = edge + 0.5 * 0.1 ** (k + 1) * np.linspace(-1, 1, 2001)
        yes = bounded(wavy, near, THETAS[place : place + 1])[0]
    with precision_context("float64"):
        x = np.linspace(0, LENGTH, 1001)
        bends = [np.min(jax.vmap(jax.grad(jax.grad(wavy)), (0, None))(x, theta)) for theta in THETAS]
    return Result(
        rates=rates,
        bounded=all_of_them,
        other=bounded(same, rates, THETAS[5:6])[0],
        looks=[*looks, (near, yes)],
        bends=np.array(bends),
    )


def middle_edge(rates: np.ndarray, bounded: np.ndarray) -> float:
    """The crossing in the middle of all that there are."""
    edges = np.flatnonzero(np.diff(bounded))
    return float(rates[edges[len(edges) // 2]])


def crossings(bounded: np.ndarray) -> np.ndarray:
    """How often it changes along the last axis."""
    return np.count_nonzero(np.diff(bounded, axis=-1), axis=-1)


def checks(result: Result) -> list[Check]:
    counts = crossings(result.bounded)
    edge = result.rates[result.bounded[0].argmin()]
    return [
        Check("crossings while convex: theta 0, 0.02, 0.045; and at 0.0507", np.array(CROSSINGS[:4]), counts[:4],
              source=LIU),
        Check("crossings at theta 0.06", 5, int(counts[4]), source=LIU),
        Check("log2 of the crossings at theta 0.1, 0.3, 1: within a factor of two, since rounding moves them",
              np.log2(CROSSINGS[5:]), np.log2(counts[5:]), 1.0, LIU),
        Check("log2 of them at theta 0.1 by the loss written with sin^2", np.log2(CROSSINGS[5]),
              float(np.log2(crossings(result.other))), 1.0, LIU),
        Check("some rates end otherwise by that", True, bool(np.any(result.other != result.bounded[5]))),
        Check("the parabola: first rate that is not bounded", (1 + 1e6 ** (1 / 1000)) / 2, float(edge),
              1.01 * float(np.diff(result.rates[:2])[0]), "theory: (2 rate - 1)^1000 = 1e6"),
        Check("theta at which a second derivative becomes negative", True,
              bool(np.all((result.bends < -1e-12) == (THETAS > CONVEX))), source="theory: 1 / (2 pi^2)"),
        Check("least second derivative", 2 - 4 * np.pi**2 * THETAS, result.bends, 1e-9, "theory"),
        Check("crossings in each closer look at theta 0.3: more than 20", True,
              all(crossings(yes) > 20 for _, yes in result.looks)),
    ]  # fmt: skip


def draw(result: Result):
    space = {"hspace": 0.5, "wspace": 0.18, "top": 0.87, "left": 0.09, "right": 0.98, "bottom": 0.07}
    layout = [["edge", "looks"]]
    figure, axes = plots.panels(layout, size=(13, 6.4), gridspec_kw=space)
    figure.suptitle(
        "Gradient descent on x² + θ l² cos(2πx / l): the learning rates that stay bounded have a fractal edge",
        x=0.09,
        ha="left",
    )
    words = "l = 0.1, 1,000 steps from x = 1. Blue: |x| stays below a million; white: it does not; light blue: both."
    figure.text(0.09, 0.925, words, color="#555555")
    counts = crossings(result.bounded)
    ax = axes["edge"]
    names = [f"θ = {plots.number(float(theta))}" for theta in THETAS]
    told = [
        f"{count} {'edge' if count == 1 else 'edges'}" if count < 10 else f"about {rough(count)} edges"
        for count in counts
    ]
    strips(ax, [(result.rates, yes) for yes in result.bounded], names, told)
    ax.set(title="From row to row a larger θ", xlim=(0.5, 1.5), xlabel="learning rate")
    convex = int(np.searchsorted(THETAS, CONVEX))
    ax.axhline(convex - 0.5, color="black", lw=1.2, ls=(0, (4, 2)), clip_on=False)
    for word, middle in {"convex": (convex - 1) / 2, "not convex: θ > 1 / 2π²": (convex + len(THETAS) - 1) / 2}.items():
        ax.text(1.515, middle, word, rotation=90, ha="left", va="center", fontsize=9)
    ax = axes["looks"]
    names = ["θ = 0.3", *(f"×{10 ** (k + 1):,}" for k in range(ZOOMS))]
    spans = [(near[0], near[-1]) for near, _ in result.looks]
    told = [f"{crossings(yes)} edges" for _, yes in result.looks]
    strips(ax, [(np.linspace(0, 1, len(yes)), yes) for _, yes in result.looks], names, told)
    ax.set(title="Each row ten times closer: as many edges or more", xlim=(0, 1), xticks=[])
    for k, (low, high) in enumerate(spans[1:]):
        ends = (np.array([low, high]) - spans[k][0]) / (spans[k][1] - spans[k][0])
        for end, foot in zip(ends, (0, 1), strict=True):
            ax.plot([end, foot], [k + 0.36, k + 0.64], color=plots.RED, lw=0.9)
    return figure


def rough(count: int) -> int:
    return int(float(f"{count:.1g}")) if count > 30 else int(round(count, -1))


def strips(ax: Any, rows: list[tuple[np.ndarray, np.ndarray]], names: list[str], told: list[str]) -> None:
    """A row of color for each, from the top; where edges are closer than pixels, the share that is bounded."""
    for k, (rates, yes) in enumerate(rows):
        columns = min(len(yes), 1400)
        share = np.array([np.mean(part) for part in np.array_split(yes.astype(float), columns)])
        share = np.where((share > 0) & (share < 1), np.clip(share, 0.45, 0.8), share)
        extent = (rates[0], rates[-1], k + 0.36, k - 0.36)
        ax.imshow([share], cmap="Blues", vmin=0, vmax=1.25, extent=extent, aspect="auto", interpolation="nearest")
        ax.add_patch(plt.Rectangle((rates[0], k - 0.36), np.ptp(rates), 0.72, fill=False, ec="#bbbbbb", lw=0.7))
        text = ax.text(rates[0] + 0.98 * np.ptp(rates), k, told[k], ha="right", va="center", fontsize=9)
        plots.outlined(text, color=plots.DARK, edge="white")
    ax.set(ylim=(len(rows) - 0.5, -0.55))
    ax.set_yticks(range(len(rows)), names)
    ax.tick_params(axis="y", length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
