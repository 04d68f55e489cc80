"""One run finds the learning rate: it grows in every step, and a tenth of where the loss turns up is a rate to use.

On a quadratic the whole curve is known: a step multiplies the distance along an eigenvector by 1 - rate * eigenvalue.
The loss along the steepest direction, of eigenvalue L, is least exactly where the rate crosses 2 / L; by then it has
nearly died out, and it is back at its start where the rate reaches 12.6 / L (12.595 is the zero of the dilogarithm's
real part), however slowly the rate grows. In between the whole loss turns up: at once if only the steepest direction
has far to go, late if another one has. So a tenth of the turn lies below 1.26 / L and is stable. The range test of a
net of 32 tanh units turns up between the same two rates, L being the sharpness of its start; trained from there, the
net diverges at the turn and at ten times the turn, and a tenth of it takes off 99 % of the loss. Where the net's loss
goes after the turn, rounding decides.

Source: Smith, Cyclical Learning Rates for Training Neural Networks (2017), arXiv:1506.01186, section 3.3; there the
rate grows by a constant instead of a factor. Cost: some seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

CURVATURES = np.array([1.0, 100.0])
STARTS = {"only steep": (0.0, 1.0), "both": (1.0, 1.0), "mostly flat": (10.0, 1.0)}
BETWEEN, BACK = (1e-3, 1.0), 12.595170369845  # Re Li2(BACK) = 0
NET_RATES = np.array([0.1, 1.0, 10.0])  # in turns
COLORS = (plots.GREEN, plots.BLUE, plots.PINK)


@dataclass(frozen=True)
class Config:
    steps: int = 60
    momentum: float = 0.0  # another optimizer, another law
    seed: int = 0


SECONDS, CHAOTIC = 11, True
QUICK = {}
BREAK = {"momentum": 0.9}  # the steep start turns up at 0.0148 instead of 0.0187, and is back at 0.048, not 0.126
ROWS = {}


def bowl(params, curvatures):
    return 0.5 * jnp.sum(curvatures * params**2)


def net(params, x):
    return jnp.tanh(x[:, None] * params["w1"] + params["b1"][None]) @ params["w2"]


class Result(NamedTuple):
    law: float  # 2 / sharpness of the bowl
    tests: dict[str, Any]  # by start
    bowl_losses: list[float]  # after training at a tenth of each turn
    net: Any
    net_law: float  # 2 / sharpness at the start
    net_losses: list[float]  # after 2,000 steps at NET_RATES times the turn, over that at the start


def compute(config: Config) -> Result:
    optimizer = jf.optimizers.momentum(1.0, config.momentum)
    double: Any = {"precision": "float64"}
    tests = {
        name: jf.learning_rate_range(
            bowl, np.array(start), (CURVATURES,), optimizer=optimizer, between=BETWEEN, steps=config.steps, **double
        )
        for name, start in STARTS.items()
    }
    rng = np.random.default_rng(config.seed)
    x = np.linspace(-1, 1, 40)
    start = {"w1": 3 * rng.normal(size=(1, 32)), "b1": rng.normal(size=32), "w2": rng.normal(size=32) / 32**0.5}
    loss, data = jf.losses.mse(net), (x, np.sin(4 * x))
    of_net = jf.learning_rate_range(
        loss, start, data, optimizer=jf.optimizers.sgd(1.0), between=(1e-4, 3.0), steps=400, **double
    )
    rate = jf.Axis("rate", NET_RATES * of_net.turn)
    trained = jf.sweep(loss, start, data, optimizer=jf.optimizers.sgd(rate), steps=2000, **double)
    suggested = jf.Axis("rate", [test.suggested for test in tests.values()])
    bowls = jf.sweep(bowl, np.ones(2), (CURVATURES,), optimizer=jf.optimizers.sgd(suggested), steps=5000, **double)
    sharpness = [jf.sharpness(bowl, np.ones(2), (CURVATURES,), **double), jf.sharpness(loss, start, data, **double)]
    laws = [float(jf.stability_limit(jf.optimizers.sgd(1.0), s)) for s in sharpness]
    shares = trained.results.loss.values / float(of_net.fit.start_loss)
    return Result(laws[0], tests, bowls.results.loss.values.tolist(), of_net, laws[1], shares.tolist())


def closed_form(rates: np.ndarray, start: tuple[float, float]) -> np.ndarray:
    """The loss after each step: half the sum of curvature times the squared product of 1 - rate * curvature."""
    factors = np.clip(np.cumprod(1 - rates[:, None] * CURVATURES[None], axis=0), -1e150, 1e150)
    return 0.5 * np.sum(CURVATURES[None] * (np.array(start)[None] * factors) ** 2, axis=1)


def checks(result: Result) -> list[Check]:
    closed, smith = "closed form", "Smith 2017"
    rows = [Check("bowl: 2 / sharpness", 0.02, result.law, 1e-12, "2 / 100")]
    for name, test in result.tests.items():
        rates = np.asarray(test.curve.learning_rate)[np.asarray(test.curve) < 1e100]
        law = closed_form(rates, STARTS[name])
        error = np.max(np.abs(test.curve.values[: len(rates)] / law - 1))
        turn = rates[np.argmin(law)]
        rows += [
            Check(f"{name}: loss of every step over the closed form, less one", 0.0, error, 1e-9, closed),
            Check(f"{name}: learning rate at the turn", turn, test.turn, 1e-9 * turn, closed),
        ]
    steep = result.tests["only steep"]
    rates, losses = np.asarray(steep.curve.learning_rate), np.asarray(steep.curve)
    cell = rates[1] / rates[0] - 1
    back = rates[np.argmax((rates > result.law) & (losses > 50))]
    latest = 0.5 * BACK * result.law
    turns = np.array([test.turn for test in result.tests.values()])
    share, *beyond = result.net_losses
    return [
        *rows,
        Check("only steep: turns up at 2 / L, to a step", result.law, steep.turn, cell * result.law, closed),
        Check(
            "only steep: back at its start at 12.595 / L, to two steps", latest, back, 2 * cell * latest, "Re Li2 = 0"
        ),
        Check("all turns lie in between", True, bool(np.all((turns > result.law * (1 - cell)) & (turns < latest)))),
        Check("bowl: loss after 5,000 steps at a tenth of each turn", np.zeros(3), np.array(result.bowl_losses), 1e-6),
        Check(
            "net: turns up between 2 / L and 12.6 / L of its start",
            True,
            bool(result.net_law < result.net.turn < 0.5 * BACK * result.net_law),
            0.0,
            "as the bowl",
        ),
        Check("net: loss after 2,000 steps at a tenth of the turn, over the start's", 0.0, share, 0.01, smith),
        Check(
            "net: at the turn, and at ten times the turn, it diverges",
            np.array([np.inf, np.inf]),
            np.array(beyond),
            0.0,
            "above 2 / L",
        ),
    ]


def draw(result: Result):
    space = {"wspace": 0.2, "top": 0.77, "left": 0.075, "right": 0.985, "bottom": 0.14}
    figure, axes = plots.panels([["bowl", "net"]], size=(11, 4.8), gridspec_kw=space)
    figure.suptitle(
        "The range test: the learning rate grows in every step, until the loss turns up", x=0.075, ha="left"
    )
    figure.text(
        0.075, 0.875, "On a bowl that is between 2 and 12.6 over the largest curvature L: a tenth of it is stable.",
        color="#555555",
    )  # fmt: skip
    ax = axes["bowl"]
    ax.set(xscale="log", yscale="log", xlim=(1e-3, 0.3), ylim=(1e-20, 1e5), xlabel="learning rate of the step")
    ax.set(ylabel="loss after the step", title="Bowl with curvatures 1 and 100, from three starts")
    plots.few_ticks(ax.xaxis, (1e-3, 1e-2, 1e-1))
    plots.few_ticks(ax.yaxis, (1e-15, 1e-10, 1e-5, 1))
    paths = {}
    for (name, test), color in zip(result.tests.items(), COLORS, strict=True):
        rates = np.asarray(test.curve.learning_rate)
        ax.plot(rates, closed_form(rates, STARTS[name]), color=color, lw=4.5, alpha=0.25)
        ax.plot(rates, test.curve, color=color, lw=1.5)
        least = float(np.nanmin(test.curve))
        ax.plot(test.turn, least, "o", color=color, ms=6, mec="white", zorder=4, clip_on=False)
        paths[name] = rates, np.asarray(test.curve), color
    lines = ((result.law, "2 / L"), (0.5 * BACK * result.law, "12.6 / L"))
    for rate, _ in lines:
        ax.axvline(rate, color=plots.DARK, lw=1, ls="--", zorder=0)
    room = plots.Room(ax)
    blocked = {name: (room.block(x, np.clip(y, 1e-20, 1e5)), color) for name, (x, y, color) in paths.items()}
    marks = [(room.block([rate, rate], [1e-20, 1e5]), label) for rate, label in lines]
    words = {
        "only steep": "along the steepest way only",
        "both": "along both",
        "mostly flat": "farther along the flat one",
    }
    for name, (line, color) in blocked.items():
        room.near(line, words[name], color=color, prefer=(0.05, 0.2))
    for line, label in marks:
        room.near(line, label, color=plots.DARK, prefer=(0.8, 0.05))
    plots.learning_rate_range(result.net, law=result.net_law, law_label="2 / L", ax=axes["net"])
    axes["net"].set_title("Net of 32 tanh units; L is that of its start")
    return figure
