"""80,000 steps in a canyon: the remaining distance halves only every 7,812 steps, and the intercept is still 0.04 off.

The line through 33 blood pressures, from slope 0 and intercept 139, by gradient descent with the rate 0.0004: the 16
rows that the book's notebook prints and its final line are met, whether the line is a function, a layer with two
weights that sees batches of all 33, or a plain loop that is not compiled; in float64 those of the notebook with
autograd. One direction of the canyon is 21,582 times as steep as the other, and the rate has to suit the steep one: all
80,001 points are those of the closed form.

The program that is compiled knows neither the numbers nor the steps: Python's own `if` on a number cannot become a part
of it, `jax.lax.cond` can; step by step both give the same numbers.

The book takes 139 for the mean of the pressures, which is 138.636; and it prints 158 for the pressure of the woman of
58 in its single-sample step, which is 153, as the numbers of that step need it. 0.00042 would diverge.

Source: Dürr, Sick and Murina, Probabilistic Deep Learning (2020), sections 3.3 and 3.4, figure 3.11, listings 3.3 to
3.7, and the output of its notebooks. Row i is printed after i + 1 updates, its loss before the last of them. Cost: some
seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

from .published import check, published

START = {"w": 0.0, "b": 139.0}
STEPS, ROW = 80_000, 5_000  # updates, and between two printed rows
PRINTED = tuple(range(0, STEPS, ROW))
LOSS = jf.losses.mse(jf.models.line)
BOTH = jf.Record(what=("params", "loss"))
PATIENT = 14  # the fifteenth woman
RATES = (4e-5, 4e-4, 4.2e-4)


@dataclass(frozen=True)
class Config:
    rate: float = 4e-4


SECONDS = 9
QUICK = {}
BREAK = {"rate": 3.99e-4}
ROWS = dict.fromkeys(
    (
        "PDL-L3.3", "PDL-L3.4", "PDL-L3.5", "PDL-L3.6", "PDL-L3.7", "PDL-nb07", "PDL-3.4", "PDL-F3.11", "PDL-3.3.3",
        "PDL-sum",
    ),
    "",
)  # fmt: skip


class Result(NamedTuple):
    data: tuple[np.ndarray, np.ndarray]  # (33,) years, (33,) mmHg
    function: Any  # the fit in float32
    layer: Any  # as a dense layer, in batches of 33
    layer_params: int
    double: Any  # in float64
    law: np.ndarray  # (80,001, 2) slope and intercept in closed form
    best: np.ndarray  # (2,) slope and intercept of least squares
    least: float  # the loss there
    curvatures: np.ndarray  # (2,) eigenvalues of the Hessian, the smaller first
    slopes: tuple[np.ndarray, np.ndarray, np.ndarray]  # (2,) by w and b at the start: by autodiff, formula, differences
    eager: np.ndarray  # (5, 3) slope, intercept, loss before, in a loop of steps that are not compiled
    equations: tuple[int, int]  # of the program of a step: for these data, and for others
    branches: tuple[list[float], list[float]]  # losses on both sides of a branch: compiled, and by Python's if
    refused: str  # what is said to Python's if inside of a program
    patient: np.ndarray  # (2,) slope and intercept after one step on one woman
    statuses: list[str]  # of three rates, after 8,000 steps
    left: list[float]  # loss above the least, of the first two
    absolute: float  # mean absolute error after descending that one


def compute(config: Config) -> Result:
    age, pressure = data = jf.datasets.blood_pressure()
    optimizer = jf.optimizers.sgd(config.rate)
    layer = jf.models.dense((1, 1))
    double = jf.fit(LOSS, START, data, optimizer=optimizer, steps=STEPS, record=BOTH, precision="float64")
    rates = jf.Axis("rate", [*RATES])
    grid = jf.sweep(LOSS, START, data, optimizer=jf.optimizers.sgd(rates), steps=8000, precision="float64").results
    best = jf.models.line.least_squares(age, pressure)
    law, curvatures = closed_form(age, best, config.rate)
    least = float(np.mean((best["w"] * age + best["b"] - pressure) ** 2))
    one = age[PATIENT : PATIENT + 1], pressure[PATIENT : PATIENT + 1]
    taken = jf.step(LOSS, START, one, optimizer=jf.optimizers.sgd(config.rate / 2)).params
    robust = jf.fit(
        jf.losses.mae(jf.models.line), best, data, optimizer=jf.optimizers.sgd(jf.schedules.cosine(1e-3, 2000)),
        steps=2000, precision="float64",
    )  # fmt: skip
    return Result(
        data=data,
        function=jf.fit(LOSS, START, data, optimizer=optimizer, steps=STEPS, record=BOTH),
        layer=jf.fit(
            jf.losses.mse(layer), [{"w": np.zeros((1, 1)), "b": np.array([139.0])}], data, optimizer=optimizer,
            steps=STEPS, batches=jf.Batches(33), key=0, record=jf.Record(every=ROW),
        ),
        layer_params=sum(np.size(leaf) for leaf in jax.tree.leaves(layer.init(0))),
        double=double,
        law=law,
        best=np.array([best["w"], best["b"]]),
        least=least,
        curvatures=curvatures,
        slopes=slopes_at_start(age, pressure),
        eager=eager(data, optimizer),
        equations=(equations(data), equations((age[::-1] / 2, pressure + 7))),
        branches=branches(data),
        refused=refused(data),
        patient=np.array([taken["w"], taken["b"]]),
        statuses=[jf.Status(int(status)).name for status in grid.status.values],
        left=[float(loss) - least for loss in grid.loss.values[:2]],
        absolute=float(robust.loss),
    )  # fmt: skip


def closed_form(x: np.ndarray, best: dict, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """best + sum over eigenvectors v of (1 - rate * curvature)**k v v' (start - best), for all k; the curvatures."""
    rows = np.stack([x, np.ones_like(x)], axis=1)
    curvatures, vectors = np.linalg.eigh(2 * rows.T @ rows / len(x))
    there = np.array([best["w"], best["b"]])
    apart = vectors.T @ (np.array([START["w"], START["b"]]) - there)
    factors = (1 - rate * curvatures) ** np.arange(STEPS + 1)[:, None]
    return there + (factors * apart) @ vectors.T, curvatures


def slopes_at_start(age, pressure) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = jf.step(LOSS, START, (age, pressure), optimizer=jf.optimizers.sgd(1.0), precision="float64").grads
    by_probing = jf.searches.differences(LOSS, START, (age, pressure), delta=0.1, precision="float64")
    residuals = START["w"] * age + START["b"] - pressure
    formula = 2 * np.array([np.mean(residuals * age), np.mean(residuals)])
    return np.array([found["w"], found["b"]]), formula, np.array([by_probing["w"], by_probing["b"]])


def eager(data, optimizer) -> np.ndarray:
    """Five steps, each operation carried out as it is met: every value can be looked at on the way."""
    params, rows = START, []
    with jax.disable_jit():
        for _ in range(5):
            params, loss, _ = jf.step(LOSS, params, data, optimizer=optimizer)
            rows.append([params["w"], params["b"], loss])
    return np.array(rows, float)


def equations(data) -> int:
    """How many operations the program of a loss and its gradient has."""
    return len(jax.make_jaxpr(jax.value_and_grad(LOSS))({"w": 1.0, "b": 2.0}, *data).jaxpr.eqns)


def far(params, x, y):
    return jnp.mean(jnp.abs(params["w"] * x + params["b"] - y))


def branching(params, x, y):
    """The mean absolute error where the intercept is above 100, the squared one elsewhere, inside of one program."""
    return jax.lax.cond(params["b"] > 100, far, LOSS, params, x, y)


def by_python(params, x, y):
    return far(params, x, y) if params["b"] > 100 else LOSS(params, x, y)


def branches(data) -> tuple[list[float], list[float]]:
    sides = [START, {"w": 1.0, "b": 90.0}]
    compiled = jax.jit(branching)
    return [float(compiled(p, *data)) for p in sides], [float(by_python(p, *data)) for p in sides]


def refused(data) -> str:
    try:
        jf.fit(by_python, START, data, optimizer=jf.optimizers.sgd(1e-4), steps=1)
    except TypeError as error:
        return str(error)
    return ""


def row(fit, i: int) -> list[float]:
    """What is printed in pass i: slope and intercept after it, the loss before it."""
    history = fit.history
    return [float(history.params["w"][i + 1]), float(history.params["b"][i + 1]), float(history.loss[i])]


def checks(result: Result) -> list[Check]:
    age, pressure = result.data
    function, double = result.function, result.double
    path = np.stack([double.history.params["w"], double.history.params["b"]], axis=1)
    single = np.stack([function.history.params["w"], function.history.params["b"]], axis=1)
    layer = result.layer.params[0]
    last = [float(layer["w"][0, 0]), float(layer["b"][0]), float(result.layer.loss)]
    autodiff, formula, probed = result.slopes
    left = path[:, 1] - result.best[1]
    jitted = [row(function, i) for i in range(5)]
    moves = (path[:-1] - path[1:])[:100] / gradients(path[:100], age, pressure)
    return [
        check("PDL-L3.3.mse", function.history.loss[0], "loss at slope 0, intercept 139"),
        check("PDL-data.mean", np.mean(pressure), "mean of the pressures"),
        *(check(f"PDL-L3.4.i{i}", row(function, i), f"row {i:,}: slope, intercept, loss") for i in PRINTED),
        check("PDL-L3.4.final", [*row(function, STEPS - 1)[:2], float(function.loss)], "after 80,000 steps"),
        Check("a layer of one weight and a bias: params", 2, result.layer_params, 0, "PDL-L3.5"),
        Check("its losses, every 5,000th", function.history.loss[::ROW], result.layer.history.loss, 5e-4, "PDL-L3.5"),
        check("PDL-L3.6.final", last, "the layer in batches of 33, after 80,000 steps"),
        Check("five steps that are not compiled", jitted, result.eager, [[1e-6, 2e-5, 2e-4]] * 5, "PDL-L3.7"),
        check("PDL-nb07.final", path[-1], "in float64: slope, intercept", precision="float64"),
        Check("all slopes and intercepts, in float64", result.law, path, 1e-7, "PDL-L3.4, closed form"),
        Check("float32 behind float64, on the way", path, single, strays(result), "PDL-nb07, rounding"),
        Check("float32 behind float64, at the end", path[-1], single[-1], [1e-4, 5e-3], "PDL-nb07, rounding"),
        Check("what the intercept still lacks", 0.043, left[-1], 1e-3, "PDL-L3.4, closed form"),
        Check("how much steeper one way is", 21_582, ratio(result), 0.5, "PDL-sum, closed form"),
        Check("steps that halve what is left", 7812, halving(result), 0.5, "PDL-L3.4, closed form"),
        Check("what is left of it after these", 0.5, left[27_812] / left[20_000], 1e-4, "PDL-L3.4, closed form"),
        Check("by autodiff: both slopes at the start", formula, autodiff, 1e-9, "PDL-3.3.3, formula"),
        Check("by differences: the same", formula, probed, 1e-6, "PDL-3.3.3, formula"),
        Check("operations of the program, for other data", *result.equations, 0, "PDL-3.4"),
        Check("a branch inside of the program", result.branches[1], result.branches[0], 1e-4, "PDL-3.4, Python's if"),
        Check("Python's if inside of it: refused", True, bool(result.refused), source="PDL-3.4"),
        check("PDL-F3.11.patient", [age[PATIENT], pressure[PATIENT]], "the fifteenth woman: age, pressure"),
        check("PDL-F3.11.y158", pressure[PATIENT], "her pressure"),
        check("PDL-F3.11.update", result.patient[::-1], "after one step on her: intercept, slope"),
        Check("each move / its own slope", 4e-4, moves, 1e-9, "PDL-sum"),
        Check("rates 0.00004, 0.0004, 0.00042", OUTCOMES, result.statuses, source="PDL-sum"),
        Check("a tenth of the rate leaves more", True, result.left[0] > 3 * result.left[1], 0, "PDL-sum"),
        Check(
            "another loss: mean absolute error falls below that of the best line", True,
            result.absolute < float(np.mean(abs(age * result.best[0] + result.best[1] - pressure))), 0, "PDL-sum",
        ),
    ]  # fmt: skip


OUTCOMES = ["OUT_OF_STEPS", "OUT_OF_STEPS", "DIVERGED"]


def gradients(path: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(k, 2) by the formula, at (k, 2) slopes and intercepts."""
    residuals = path[:, :1] * x + path[:, 1:] - y
    return 2 * np.stack([np.mean(residuals * x, axis=1), np.mean(residuals, axis=1)], axis=1)


def strays(result: Result) -> np.ndarray:
    """(80,001, 2): how far rounding by half a unit in every step can lead away along the flat direction."""
    half = np.spacing(np.float32(result.best[1])) / 2
    farthest = half / (4e-4 * result.curvatures[0])
    slope, intercept = result.law[-1] - result.best  # along the valley
    return np.tile([farthest * abs(slope / intercept), farthest], (len(result.law), 1))


def halving(result: Result) -> float:
    """Steps in which the distance along the flat direction is halved."""
    return float(np.log(0.5) / np.log(1 - 4e-4 * result.curvatures[0]))


def ratio(result: Result) -> float:
    return float(result.curvatures[1] / result.curvatures[0])


def draw(result: Result):
    space = {"hspace": 0.42, "wspace": 0.22, "top": 0.87, "left": 0.08, "right": 0.98, "bottom": 0.07}
    figure, axes = plots.panels([["loss", "params"], ["patient", "ways"]], size=(11, 8.6), gridspec_kw=space)
    figure.suptitle("80,000 steps in a canyon, and the minimum is not reached yet", x=0.08, ha="left")
    words = "Blood pressure against age, rate 0.0004. Lines: these runs. Circles: what the notebook prints."
    figure.text(0.08, 0.925, words, color="#555555")
    draw_excess(result, axes["loss"])
    draw_params(result, axes["params"])
    draw_patient(result, axes["patient"])
    draw_ways(result, axes["ways"])
    return figure


def draw_excess(result: Result, ax) -> None:
    """The loss above the least one, and the straight line of the flat direction."""
    excess = np.asarray(result.double.history.loss) - result.least
    k = np.unique([*range(100), *range(100, STEPS + 1, 100)])
    ax.set(yscale="log", ylim=(5e-5, 2e3), xlim=(-1500, STEPS * 1.03))
    ax.set(xlabel="updates", ylabel="loss above the least, mmHg²")
    plots.few_ticks(ax.xaxis, range(0, STEPS + 1, 20_000))
    plots.few_ticks(ax.yaxis, [1e-4, 1e-2, 1, 100])
    ax.plot(k, excess[k], color=plots.BLUE)
    losses = [published(f"PDL-L3.4.i{i}").printed[2] - result.least for i in PRINTED]
    ax.plot(PRINTED, losses, "o", mfc="white", mec=plots.DARK, ms=4.5, mew=0.9, zorder=3)
    ax.set_title(f"Every {halving(result):,.0f} steps halve the remaining distance")
    flat, steep = result.curvatures
    ax.text(
        0.97, 0.93, f"law: the way shrinks by 1 − rate × curvature.\n"
        f"The curvatures are {flat:.4f} along the floor\nand {steep:,.0f} across it, {ratio(result):,.0f} to 1.",
        transform=ax.transAxes, ha="right", va="top", color=plots.BLUE, linespacing=1.4,
    )  # fmt: skip


def draw_params(result: Result, ax) -> None:
    """Slope and intercept towards the best ones."""
    history = result.function.history
    k = np.unique([*range(100), *range(100, STEPS + 1, 100)])
    ax.set(xlim=(-1500, STEPS * 1.03), ylim=(80, 145), xlabel="updates")
    ax.set_ylabel("intercept, mmHg", color=plots.RED)
    plots.few_ticks(ax.xaxis, range(0, STEPS + 1, 20_000))
    ax.plot(k, history.params["b"][k], color=plots.RED)
    ax.axhline(result.best[1], color=plots.GREY, lw=1, ls=(0, (4, 2)))
    twin = ax.twinx()
    twin.set(ylim=(-0.4, 1.22))
    twin.set_ylabel("slope, mmHg a year", color=plots.GREEN)
    twin.spines["right"].set_visible(True)
    plots.few_ticks(twin.yaxis, [0, 0.5, 1])
    twin.plot(k, history.params["w"][k], color=plots.GREEN, lw=1.4)
    for i in PRINTED:
        a, b, _ = published(f"PDL-L3.4.i{i}").printed
        ax.plot(i + 1, b, "o", mfc="white", mec=plots.DARK, ms=4.5, mew=0.9, zorder=3)
        twin.plot(i + 1, a, "o", mfc="white", mec=plots.DARK, ms=4.5, mew=0.9, zorder=3)
    left = float(history.params["b"][-1]) - result.best[1]
    ax.set_title(f"After 80,000 steps the intercept is {left:.3f} off")
    ax.text(15_000, 106, "intercept", color=plots.RED, ha="left")
    twin.text(32_000, 0.93, "slope", color=plots.GREEN, ha="left")
    ax.text(2_000, result.best[1] - 3.5, f"best: {result.best[1]:.2f}", color="#555555")


def draw_patient(result: Result, ax) -> None:
    """Figure 3.11: the first step of stochastic gradient descent, on one woman alone."""
    age, pressure = result.data
    ends = np.array([5.0, 85.0])
    ax.set(xlim=ends, ylim=(90, 225), xlabel="age, years", ylabel="systolic blood pressure, mmHg")
    ax.set_title("One step on one woman, rate 0.0002: slope 0 to 0.3248")
    ax.plot(age, pressure, "o", mfc="white", mec=plots.GREY, ms=5)
    ax.plot(age[PATIENT], pressure[PATIENT], "o", color=plots.DARK, ms=7, zorder=3)
    ax.plot(ends, [139, 139], color=plots.BLUE)
    ax.plot(ends, result.patient[0] * ends + result.patient[1], color=plots.BLUE, ls=(0, (4, 2)))
    ax.annotate(
        "the one it sees: 58, 153\n(158 in the text: a misprint)", (age[PATIENT], pressure[PATIENT]), (52, -64),
        textcoords="offset points", ha="center", color=plots.DARK, linespacing=1.3,
        arrowprops={"arrowstyle": "-", "color": plots.GREY, "lw": 0.8, "shrinkB": 4},
    )  # fmt: skip
    ax.text(6, 134, "before", color=plots.BLUE, va="top")
    ax.text(6, 157, f"after: {result.patient[0]:.4f} × age + {result.patient[1]:.4f}", color=plots.BLUE)


def draw_ways(result: Result, ax) -> None:
    """The ends of the runs, as printed and as computed."""
    ax.set(xlim=(0, 1), ylim=(0, 10), title="Written in three ways: slope and intercept at the end")
    ax.axis("off")
    layer = result.layer.params[0]
    found = [
        ("a function, float32", "PDL-L3.4.final", row(result.function, STEPS - 1)[:2], (5, 3)),
        ("a layer, batches", "PDL-L3.6.final", [float(layer["w"][0, 0]), float(layer["b"][0])], (5, 3)),
        ("float64", "PDL-nb07.final", row(result.double, STEPS - 1)[:2], (7, 7)),
    ]  # the digits of the slope as printed, and as found: in float32 those that rounding leaves
    for place, word in ((0.7, "slope"), (1.0, "intercept")):
        ax.text(place, 9.2, word, ha="right", color="#555555")
    for i, (words, name, ends, (printed, certain)) in enumerate(found):
        y = 8 - 2.1 * i
        ax.text(0, y - 0.45, words, color=plots.DARK, weight="bold")
        for shift, who, values, digits, ink in (
            (0, "printed", published(name).printed, printed, "#555555"), (-0.85, "here", ends, certain, plots.BLUE),
        ):  # fmt: skip
            ax.text(0.44, y + shift, who, ha="right", color=ink)
            ax.text(0.7, y + shift, f"{values[0]:.{digits}f}", ha="right", color=ink)
            ax.text(1.0, y + shift, f"{values[1]:.{digits - 1}f}", ha="right", color=ink)
    ax.text(0, 1.0, "best", color=plots.DARK, weight="bold")
    ax.text(0.7, 1.0, f"{result.best[0]:.7f}", ha="right", color=plots.GREEN)
    ax.text(1.0, 1.0, f"{result.best[1]:.6f}", ha="right", color=plots.GREEN)
