"""Guessing and turning knobs need less work than gradients for two params, more for many: theirs does not grow.

A line through the mystery thermometer's readings has two params. There random guesses that are kept if the loss drops,
and trying both sides of one param after another with finer and finer moves, are within 1 % of the least loss sooner
than gradient descent, which suffers from the canyon; the texts call guessing too slow, and at this size it is not.
Descent on central differences is gradient descent here, since the loss is quadratic, at five losses a step. On a bowl
of n params the gradient takes 11 steps for every n, and each is as much work as two losses; differences take 2 n + 1
losses for each of these steps, knobs 2 n + 1 a round, and guesses, even of the best size for each n, more than both
from 8 params on.

Differences also need a width to be chosen: too wide, and the sign is wrong where the curve bends within it; too narrow,
and rounding is all there is; how much, differs between processors. The book's listing probes w, moves it, and probes b
only then: the rate of b is then -4,597, and not 83 as at the start.

Source: Cai, Bileschi, Nielsen and Chollet, Deep Learning with JavaScript (2020), section 2.2; Chollet, Deep Learning
with Python, second edition (2021), sections 2.4 and 2.4.1; Stevens, Antiga and Viehmann, Deep Learning with PyTorch
(2020), section 5.4, figures 5.5 and 5.6. Cost: some seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

from .published import check

LINE = jf.losses.mse(jf.models.line)
PAIR = jf.losses.mse(lambda params, x: params[0] * x + params[1])  # w is probed before b
START = {"w": 1.0, "b": 0.0}
MOST = 32  # params of the largest bowl
WHERE = 0.5  # the point of the tangent


@dataclass(frozen=True)
class Config:
    probe: float = 0.05  # the change of the coefficient that is tried
    seeds: int = 16
    points: int = 201


SECONDS, CHAOTIC = 20, True
QUICK = {"seeds": 8, "points": 51}
BREAK = {"probe": 0.04}
ROWS = {
    "TFJS-2.2.guess": "", "CHOLLET-2.4.probe": "", "DLWPT-F5.5": "",
    "CHOLLET-2.4.1": "curve", "DLWPT-In8": "curve", "DLWPT-F5.6": "curve",
}  # fmt: skip


def coefficient(p):
    """A loss of 0.5 at 0.30, rising by 2 for every unit."""
    return 0.5 + 2.0 * (p - 0.3)


def wavy(x):
    """A curve with hills in its valley."""
    return 0.15 * x**2 + 0.5 * jnp.sin(4 * x)


def bowl(params, used):
    """Half the squared distance from 1 of those params that are used."""
    return 0.5 * jnp.sum(jnp.where(used, (params - 1.0) ** 2, 0.0))


class Result(NamedTuple):
    probes: list[float]  # losses at 0.25, 0.30, 0.35
    moved: float  # by a probe of the coefficient
    listing: tuple[np.ndarray, np.ndarray, np.ndarray]  # in turn: slopes and params (w, b); slopes at once
    runs: dict[str, tuple[np.ndarray, np.ndarray]]  # evaluations and losses, on the thermometer's line
    least: float
    best: dict[str, float]
    knobs: np.ndarray  # (rounds + 1, 2) w and b
    guesses: np.ndarray  # (kept + 1, 2) w and b
    surface: tuple[np.ndarray, np.ndarray, np.ndarray]
    sizes: np.ndarray  # (6,) params
    growth: dict[str, np.ndarray]  # (6,) evaluations until the loss is a hundredth
    steps: np.ndarray  # (6,) of gradient descent
    gradient_costs: np.ndarray  # (6,) in evaluations
    curve: tuple[np.ndarray, np.ndarray, np.ndarray]  # x, the wavy curve, its slope
    widths: np.ndarray  # of differences
    slopes: np.ndarray  # (x, widths) by differences
    tangent: tuple[float, float]  # height and slope at WHERE


def compute(config: Config) -> Result:
    t_u, t_c = jf.datasets.thermometer()
    data = 0.1 * t_u, t_c
    first = [float(coefficient(p)) for p in (0.25, 0.30, 0.35)]
    moved = jf.step(coefficient, 0.3, optimizer=jf.searches.coordinate_probing(config.probe)).params
    in_turn = jf.searches.finite_differences(1e-2, 0.1, in_turn=True)
    taken = jf.step(PAIR, (1.0, 0.0), (t_u, t_c), optimizer=in_turn, precision="float64")
    at_once = jf.searches.differences(PAIR, (1.0, 0.0), (t_u, t_c), delta=0.1, precision="float64")
    runs, knobs, guesses = on_the_line(data)
    best = jf.models.line.least_squares(*data)
    w, b = np.linspace(-1, 8, 91), np.linspace(-30, 10, 91)
    losses = jax.vmap(jax.vmap(lambda w, b: LINE({"w": w, "b": b}, *data), (None, 0)), (0, None))(w, b)
    sizes, growth, steps, costs = on_bowls(config.seeds)
    x, widths = np.linspace(-4, 4, config.points), np.geomspace(1e-5, 1, 26)
    return Result(
        probes=first,
        moved=float(moved) - 0.3,
        listing=(np.array(taken.grads), np.array(taken.params), np.array(at_once)),
        runs=runs,
        least=float(np.mean((best["w"] * data[0] + best["b"] - t_c) ** 2)),
        best=best,
        knobs=knobs,
        guesses=guesses,
        surface=(w, b, np.asarray(losses)),
        sizes=sizes,
        growth=growth,
        steps=steps,
        gradient_costs=costs,
        curve=(x, 0.15 * x**2 + 0.5 * np.sin(4 * x), 0.3 * x + 2 * np.cos(4 * x)),
        widths=widths,
        slopes=by_differences(x, widths),
        tangent=(float(wavy(WHERE)), float(jax.grad(wavy)(WHERE))),
    )


def on_the_line(data) -> tuple[dict, np.ndarray, np.ndarray]:
    """Losses against evaluations on the thermometer, and the ways of the knobs and of one guesser."""
    both = jf.Record(what=("loss", "params"))
    descent = jf.fit(LINE, START, data, optimizer=jf.optimizers.sgd(0.03), steps=1500)
    probing = jf.searches.finite_differences(0.03, 0.1)
    differences = jf.fit(LINE, START, data, optimizer=probing, steps=1500)
    turning = jf.searches.coordinate_probing(1.0)
    knobs = jf.fit(LINE, START, data, optimizer=turning, steps=600, record=both)
    guesses = jf.fit(LINE, START, data, optimizer=jf.searches.random_search(1.0), steps=3000, record=both)
    cost = jf.searches.gradient_cost(LINE, START, data)
    runs = {
        "gradient": (cost * np.arange(1501), np.asarray(descent.history.loss)),
        "differences": (count(probing, START) * np.arange(1501), np.asarray(differences.history.loss)),
        "knobs": (count(turning, START) * np.arange(601), np.asarray(knobs.history.loss)),
        "guesses": (2 * np.arange(3001), np.asarray(guesses.history.loss)),
    }
    return runs, both_of(knobs.history.params), both_of(guesses.history.params)


def count(method, params) -> int:
    return jf.searches.evaluations(method, params)


def both_of(params) -> np.ndarray:
    return np.stack([params["w"], params["b"]], axis=1).astype(float)


def on_bowls(seeds: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Evaluations until the loss of a bowl is a hundredth of that at the start, for several numbers of params."""
    sizes = np.array([1, 2, 4, 8, 16, 32])
    used = jf.Axis("params_used", np.arange(MOST) < sizes[:, None], labels=sizes.tolist())
    stop = jf.Stop(loss_below=jf.Axis("params_used", 0.01 * 0.5 * sizes, labels=sizes.tolist()))

    def sweep(optimizer, steps) -> Any:
        return jf.sweep(bowl, np.zeros(MOST), (used,), optimizer=optimizer, steps=steps, stop=stop).results.steps

    scales = jf.Axis("scale", np.geomspace(0.04, 0.6, 8))
    guessing = jf.searches.random_search(scales, key=jf.Axis("seed", list(range(seeds))))
    guesses = sweep(guessing, 4000).median("seed").min("scale").values
    knobs = sweep(jf.searches.coordinate_probing(0.37), 100).values
    steps = sweep(jf.optimizers.sgd(0.2), 100).values
    costs = np.array([jf.searches.gradient_cost(lambda p: 0.5 * jnp.sum((p - 1.0) ** 2), np.zeros(n)) for n in sizes])
    growth = {
        "gradient": steps * costs,
        "differences": steps * (2 * sizes + 1),
        "knobs": knobs * (2 * sizes + 1),
        "guesses": 2 * guesses,
    }
    return sizes, growth, steps, costs


def by_differences(x: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """(x, widths) slopes of the wavy curve, in float32."""
    axes = jf.Axis("x", x), jf.Axis("width", widths)
    grid = jf.sweep(
        wavy, axes[0], optimizer=jf.searches.finite_differences(0.1, axes[1]), steps=1,
        record=jf.Record(what=("gradient",)),
    )  # fmt: skip
    return grid.results["history.gradient"].transpose("x", "width", "step").values[:, :, 0]


def misled(result: Result, width: float) -> np.ndarray:
    """Where differences of about that width have the wrong sign, and the slope is not small."""
    column = int(np.abs(result.widths - width).argmin())
    slope = result.curve[2]
    return (np.sign(result.slopes[:, column]) != np.sign(slope)) & (abs(slope) > 0.1)


def errors(result: Result) -> np.ndarray:
    """Root mean square over the points, for each width; infinite where a probe was lost in rounding."""
    return np.sqrt(np.mean((result.slopes - result.curve[2][:, None]) ** 2, axis=0))


def wide(result: Result) -> np.ndarray:
    """What differences of a wide width must give: 0.3 x + 2 cos 4x sin(4 width) / (4 width)."""
    x, _, _ = result.curve
    return 0.3 * x[:, None] + 2 * np.cos(4 * x[:, None]) * np.sinc(4 * result.widths / np.pi)


def arrival(result: Result, name: str) -> float:
    """Evaluations until the loss is within 1 % of the least."""
    evaluations, losses = result.runs[name]
    return float(evaluations[np.argmax(losses < 1.01 * result.least)])


def checks(result: Result) -> list[Check]:
    slopes, params, at_once = result.listing
    runs, growth, sizes = result.runs, result.growth, result.sizes
    powers = {name: float(np.polyfit(np.log(sizes), np.log(found), 1)[0]) for name, found in growth.items()}
    height, slope = result.tangent
    apart = np.array([0.1, 0.05, 0.025])
    beyond = 0.15 * (WHERE + apart) ** 2 + 0.5 * np.sin(4 * (WHERE + apart)) - height - slope * apart
    moves = np.abs(np.diff(result.knobs, axis=0)).max(axis=1)
    coarse = result.widths > 0.03
    return [
        check("CHOLLET-2.4.probe", result.probes, "losses at 0.25, 0.30, 0.35"),
        Check("the probe moves it by", -0.05, result.moved, 1e-6, "CHOLLET-2.4.probe, by hand"),
        Check("and evaluates the loss", 3, count(jf.searches.coordinate_probing(0.05), 0.3), 0, "CHOLLET-2.4.probe"),
        Check("by central differences: rate of w", 4517.2964, slopes[0], 1e-4, "DLWPT-In8, by hand"),
        Check("w after it", -44.173, params[0], 5e-4, "DLWPT-In8, by hand"),
        Check("rate of b at the new w", -4597.32, slopes[1], 5e-3, "DLWPT-In8, by hand"),
        Check("b after it", 45.973, params[1], 5e-4, "DLWPT-In8, by hand"),
        Check("rates of both at once", [4517.2964, 82.6], at_once, 1e-3, "DLWPT-In8, by hand"),
        Check("descent on differences", runs["gradient"][1], runs["differences"][1], 2e-2, "DLWPT-In8, on gradients"),
        Check("gradient: steps to within 1 %", 668, arrival(result, "differences") / 5, 1, "DLWPT-In8, the same steps"),
        Check("two params: guesses before the gradient", True, sooner(result, "guesses"), source="TFJS-2.2.guess"),
        Check("two params: knobs before the gradient", True, sooner(result, "knobs"), source="DLWPT-F5.5"),
        Check("guesses: evaluations / those of the gradient", True, bool(ratios(growth)[-1] > 20), 0, "TFJS-2.2.guess"),
        Check("the knobs never raise the loss", True, bool(np.all(np.diff(runs["knobs"][1]) <= 0)), 0, "DLWPT-F5.5"),
        Check("their moves: 1, halved again and again", True, halves(moves), source="DLWPT-F5.5"),
        Check("their last move is finer", True, bool(moves[moves > 0][-1] < 0.02), source="DLWPT-F5.5"),
        Check("gradient: steps, for any n", np.full(6, 11), result.steps, 0, "(1 - 0.2)**(2 k) < 1 %"),
        Check("gradient: in losses, for any n", 2, result.gradient_costs, 0.5, "Baur and Strassen (1983)"),
        Check("gradient: power of n in its cost", 0, powers["gradient"], 0.1, "theory"),
        Check("differences: evaluations", 11 * (2 * sizes + 1), growth["differences"], 0, "11 (2 n + 1)"),
        Check("knobs: power of n in their cost", 0.9, powers["knobs"], 0.15, "about n"),
        Check("guesses: power of n in their cost", 1, powers["guesses"], 0.35, "about n"),
        Check("what the tangent misses / square", curvature() / 2, beyond[-1] / apart[-1] ** 2, 0.2, "CHOLLET-2.4.1"),
        Check("half as far: a quarter of the miss", 4, beyond[1] / beyond[2], 0.1, "CHOLLET-2.4.1"),
        Check("a slope below zero: the curve falls", [-1, -1], fall(slope, beyond, apart), 0, "CHOLLET-2.4.1"),
        Check("wide differences", wide(result)[:, coarse], result.slopes[:, coarse], 1e-4, "DLWPT-F5.6, closed form"),
        Check("of width 1: share with the wrong sign", True, bool(misled(result, 1.0).mean() > 0.2), 0, "DLWPT-F5.6"),
        Check("of width 0.003: points with the wrong sign", 0, int(misled(result, 0.003).sum()), 0, "DLWPT-F5.6"),
    ]  # fmt: skip


def fall(slope: float, beyond: np.ndarray, apart: np.ndarray) -> list[float]:
    """The signs of the slope, and of what the curve changes by to the nearest point."""
    return [float(np.sign(slope)), float(np.sign(beyond[-1] + slope * apart[-1]))]


def sooner(result: Result, name: str) -> bool:
    return 0 < arrival(result, name) < arrival(result, "gradient")


def halves(moves: np.ndarray) -> bool:
    """Whether all moves are 1 divided by a power of 2, the first of them 1."""
    powers = np.log2(moves[moves > 0.01])
    return moves[0] == 1 and bool(np.all(abs(powers - np.round(powers)) < 1e-3))


def ratios(growth: dict[str, np.ndarray]) -> np.ndarray:
    return growth["guesses"] / growth["gradient"]


def curvature() -> float:
    """Second derivative of the wavy curve at the tangent's point."""
    return float(0.3 - 8 * np.sin(4 * WHERE))


COLORS = {"gradient": plots.BLUE, "differences": plots.GREEN, "knobs": plots.ORANGE, "guesses": plots.RED}


def draw(result: Result):
    return {"": draw_costs(result), "curve": draw_curve(result)}


def draw_costs(result: Result):
    space = {"hspace": 0.42, "wspace": 0.2, "top": 0.87, "left": 0.07, "right": 0.98, "bottom": 0.07}
    figure, axes = plots.panels([["knobs", "guesses"], ["runs", "growth"]], size=(11, 8.6), gridspec_kw=space)
    figure.suptitle("Without a gradient: cheap for two params, expensive for many", x=0.07, ha="left")
    words = "Above and lower left: the thermometer's line, two params. Lower right: a bowl of n params."
    figure.text(0.07, 0.925, words, color="#555555")
    for name, title in (("knobs", "Turning one knob, then the other"), ("guesses", "Guess and test")):
        ax = axes[name]
        on_the_surface(result, ax)
        way = staircase(result.knobs) if name == "knobs" else result.guesses
        ax.plot(*way.T, color=COLORS[name], lw=1.2, zorder=2)
        corners = way[np.any(np.diff(way, axis=0, prepend=np.inf), axis=1)]
        ax.plot(*corners.T, "o", color=COLORS[name], ms=3 if name == "knobs" else 4, mec="white", mew=0.4, zorder=3)
        kept = f"{len(corners) - 1} of {len(way) - 1:,} guesses are better"
        ax.set_title(title + (", finer and finer" if name == "knobs" else f": {kept}"))
    draw_runs(result, axes["runs"])
    draw_growth(result, axes["growth"])
    return figure


def staircase(knobs: np.ndarray) -> np.ndarray:
    """The corners between the ends of the rounds: b is turned first, then w."""
    between = np.stack([knobs[:-1, 0], knobs[1:, 1]], axis=1)
    return np.concatenate([np.stack([knobs[:-1], between], axis=1).reshape(-1, 2), knobs[-1:]])


def on_the_surface(result: Result, ax) -> None:
    w, b, losses = result.surface
    ax.set(xlim=(0, 7), ylim=(-21, 3), xlabel="w", ylabel="b")
    ax.contour(w, b, losses.T, levels=[4, 10, 30, 100, 300], colors="#c4c4c4", linewidths=0.9)
    ax.plot(result.best["w"], result.best["b"], "*", color=plots.DARK, ms=11, zorder=4)
    ax.annotate("best", (result.best["w"], result.best["b"]), (10, -4), textcoords="offset points", color=plots.DARK)
    ax.annotate("start", (START["w"], START["b"]), (-6, 8), textcoords="offset points", ha="right", color=plots.DARK)


def draw_runs(result: Result, ax) -> None:
    ax.set(xscale="log", yscale="log", xlim=(1.5, 9000), ylim=(0.01, 200))
    ax.set(
        xlabel="evaluations of the loss",
        ylabel="loss above the least",
        title="Two params: knobs and guesses need the least work",
    )
    plots.few_ticks(ax.xaxis, [2, 10, 100, 1000])
    plots.few_ticks(ax.yaxis, [0.01, 0.1, 1, 10, 100])
    shown = {name: (n[1:], losses[1:] - result.least) for name, (n, losses) in result.runs.items()}
    for name, (n, above) in shown.items():
        ax.plot(n, np.maximum(above, 1e-3), color=COLORS[name])
    ax.axhline(0.01 * result.least, color=plots.GREY, lw=0.9, ls=(0, (4, 2)))
    ax.text(1.7, 0.0115 * result.least, "within 1 %", color="#555555", va="bottom")
    room = plots.Room(ax)
    room.block([1.5, 9000], [0.01 * result.least] * 2)
    paths = {name: room.block(*curve) for name, curve in shown.items()}
    for name, path in paths.items():
        words = f"{name}: {arrival(result, name):,.0f}"
        room.near(path, words, color=COLORS[name], prefer=(0.75, 0.75) if name == "differences" else (0.4, 0.4))


def draw_growth(result: Result, ax) -> None:
    sizes = result.sizes
    ax.set(xscale="log", yscale="log", xlim=(0.9, 36), ylim=(8, 2000), xlabel="params")
    ax.set(ylabel="evaluations until a hundredth", title="Many params: the cost grows, except for the gradient")
    plots.few_ticks(ax.xaxis, [1, 2, 4, 8, 16, 32])
    plots.few_ticks(ax.yaxis, [10, 30, 100, 300, 1000])
    words = {
        "gradient": f"gradient: {result.growth['gradient'][0]:.0f} for any n",
        "differences": "differences: 11 (2 n + 1)",
        "knobs": "knobs: 5 (2 n + 1)",
        "guesses": "guesses, at their best",
    }
    for name, found in result.growth.items():
        ax.plot(sizes, found, "o-", ms=4.5, color=COLORS[name])
    room = plots.Room(ax)
    paths = {name: room.block(sizes, found) for name, found in result.growth.items()}
    for name, path in paths.items():
        prefer = (0.9, 0.95) if name == "guesses" else (0.8, 0.5)
        room.near(path, words[name], color=COLORS[name], prefer=prefer)


def draw_curve(result: Result):
    space = {"wspace": 0.2, "top": 0.8, "left": 0.07, "right": 0.98, "bottom": 0.12}
    figure, axes = plots.panels([["curve", "error"]], size=(11, 4.9), gridspec_kw=space)
    figure.suptitle("The tangent's slope is exact; narrow differences come close to it", x=0.07, ha="left")
    found, moved, at_once = result.listing
    words = (
        f"The thermometer by differences of width 0.1: rate of w {found[0]:,.1f}, so w goes to {moved[0]:.1f}; there "
        f"the rate of b is {found[1]:,.1f}, before it was {at_once[1]:.1f}."
    )
    figure.text(0.07, 0.885, words.replace("-", "−"), color="#555555")
    x, heights, _ = result.curve
    ax = axes["curve"]
    ax.set(xlim=(-2.6, 3.1), ylim=(-0.75, 2.1), xlabel="x")
    ax.set_title("Differences of width 1 rise where the curve falls")
    fine = np.linspace(-2.6, 3.1, 400)
    ax.plot(fine, 0.15 * fine**2 + 0.5 * np.sin(4 * fine), color=plots.DARK)
    height, slope = result.tangent
    ends = np.array([WHERE - 1, WHERE + 1])
    at_ends = 0.15 * ends**2 + 0.5 * np.sin(4 * ends)
    reach = np.array([-0.5, 0.5])
    ax.plot(ends, at_ends, "o--", color=plots.RED, lw=1.3, ms=4.5)
    ax.plot(WHERE + reach, height + slope * reach, color=plots.BLUE, lw=2.2)
    ax.plot(WHERE, height, "o", color=plots.BLUE, ms=6, zorder=4)
    ax.text(0.1, 0.88, f"tangent: {slope:+.2f}".replace("-", "−"), color=plots.BLUE)
    ax.text(0.02, -0.52, f"width 1: {np.diff(at_ends).item() / 2:+.2f}", color=plots.RED)
    wrong = f"{100 * misled(result, 1.0).mean():.0f} % of the points"
    words = f"width 1 has the wrong sign at {wrong},\nwidth 0.003 at none"
    ax.text(0.03, 0.95, words, transform=ax.transAxes, va="top", color=plots.RED, linespacing=1.4)

    ax = axes["error"]
    ax.set(xscale="log", yscale="log", xlim=(8e-6, 1.3), ylim=(1e-5, 5), xlabel="width of the differences")
    ax.set(ylabel="error of the slope")
    ax.set_title("Too narrow: rounding. Too wide: another slope")
    plots.few_ticks(ax.xaxis, [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1])
    plots.few_ticks(ax.yaxis, [1e-4, 1e-2, 1])
    found = errors(result)
    third = float(np.sqrt(np.mean((32 * np.cos(4 * x)) ** 2)))
    ax.plot(result.widths, third * result.widths**2 / 6, color=plots.GREY, lw=1, ls=(0, (4, 2)))
    rounding = np.finfo(np.float32).eps * float(np.sqrt(np.mean(heights**2)))
    ax.plot(result.widths, 0.3 * rounding / result.widths, color=plots.GREY, lw=1, ls=(0, (4, 2)))
    ax.plot(result.widths, found, "o-", ms=4, color=plots.GREEN)
    ax.text(1.2, 6e-5, "third derivative × width² / 6", color="#555555", ha="right")
    ax.text(1.2e-5, 2.2e-5, "rounding: as 1 / width", color="#555555")
    return figure
