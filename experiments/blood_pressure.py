"""A line by hand has a root mean square error of 20 mmHg, the best line 19, and two equations give the best one.

The blood pressures of 33 women against their age, and the line 100 + 1 * age drawn by eye. Its residuals, their squares
and the mean of these, which is the loss; why the mean and not the sum (the sum grows with the number of women, and both
are least at the same line); the loss along the slope with its tangents; the least loss in closed form. That takes n
equations for n params and about n cubed operations: nothing for a line or a parabola, out of reach for a network,
which is why one descends instead, and gets to the same line.

The book calls 87.6 the best intercept: it is 87.67 cut off, not rounded. Its least loss, 349.200787, is the rounding of
float32: it is 349.200873.

Source: Dürr, Sick and Murina, Probabilistic Deep Learning (2020), section 3.1 with its notebook 1; Chollet, Deep
Learning with Python, second edition (2021), section 2.4.3. Cost: some seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

from .published import check

INTERCEPT = 87.6
TRIES = ((1.0, 100.0), (0.9, 101.0))  # slopes and intercepts of the book's notebook
MSE, RSS = jf.losses.mse(jf.models.line), jf.losses.rss(jf.models.line)


@dataclass(frozen=True)
class Config:
    slope: float = 1.0  # by hand, in mmHg a year
    intercept: float = 100.0


QUICK = {}
BREAK = {"slope": 1.01}  # a hundredth of a mmHg a year more, and no printed number is met
ROWS = {
    "PDL-3.0": "", "PDL-F3.1": "", "PDL-3.1.1.eye": "", "PDL-F3.3": "", "PDL-T3.1": "", "PDL-X1": "", "PDL-CF": "",
    "PDL-E3.1": "loss", "PDL-L3.1": "loss", "PDL-3.1.rss": "loss", "PDL-F3.4": "loss",
    "CHOLLET-2.4.3.analytic": "loss",
}  # fmt: skip


def slope_only(params, x):
    return params["a"] * x + INTERCEPT


class Result(NamedTuple):
    data: tuple[np.ndarray, np.ndarray]  # (33,) years, (33,) mmHg
    hand: dict[str, float]  # w and b by eye
    predicted: np.ndarray  # (33,) by that line
    at_31: float  # and for a woman of 31
    losses: np.ndarray  # (2, 33): sum and mean of squares of the first k women
    doubled: np.ndarray  # (2,) both, with every woman twice
    gradients: np.ndarray  # (2, 2): of both, by b and w
    tries: np.ndarray  # (2,) losses of the tries by hand
    surface: tuple[np.ndarray, np.ndarray, np.ndarray]  # slopes, intercepts, losses over them
    best: dict[str, float]  # w and b of least squares
    flat: list[float]  # norms of the gradient at the closed form, for 2 and 3 params
    descended: Any  # a fit to standardized ages, in float64
    descended_line: np.ndarray  # (2,) its slope and intercept in years
    curve: tuple[np.ndarray, np.ndarray, np.ndarray]  # slopes, losses, slopes of the loss; intercept at 87.6
    tangents: np.ndarray  # (2,) slopes of the loss at a = 0 and a = 2
    lowest: float  # the slope a of the least loss there
    refused: str  # what is said to one age for all


def compute(config: Config) -> Result:
    age, pressure = jf.datasets.blood_pressure()
    hand = {"w": config.slope, "b": config.intercept}
    best = jf.models.line.least_squares(age, pressure)
    slopes, intercepts = np.linspace(0.2, 2.0, 121), np.linspace(50, 130, 121)
    grid = jax.vmap(jax.vmap(lambda w, b: MSE({"w": w, "b": b}, age, pressure), (None, 0)), (0, None))
    along, one = np.linspace(-1, 3, 161), jf.losses.mse(slope_only)
    walk = jax.vmap(jax.value_and_grad(lambda a: one({"a": a}, age, pressure)))
    at_ends = jax.vmap(jax.grad(lambda a: one({"a": a}, age, pressure)))(np.array([0.0, 2.0]))
    values, derivatives = walk(along)
    z, scaler = jf.datasets.standardize(age)
    stop = jf.Stop(gradient_norm_below=1e-7)
    descended = jf.fit(
        MSE, {"w": 0.0, "b": 139.0}, (z, pressure), optimizer=jf.optimizers.sgd(0.1), stop=stop, precision="float64"
    )
    try:
        refused = str(jf.models.line.least_squares(np.full(3, 50.0), pressure[:3]))
    except ValueError as error:
        refused = str(error)
    slope = descended.params["w"] / scaler.scale
    twice = np.tile(age, 2), np.tile(pressure, 2)
    return Result(
        data=(age, pressure),
        hand=hand,
        predicted=np.asarray(jf.models.line(hand, age)),
        at_31=float(jf.models.line(hand, 31.0)),
        losses=np.array([of_first(loss, hand, age, pressure) for loss in (jf.losses.rss, jf.losses.mse)]),
        doubled=np.array([loss(hand, *twice) for loss in (RSS, MSE)]),
        gradients=np.array([gradient(loss, hand, (age, pressure)) for loss in (RSS, MSE)]),
        tries=np.array([MSE({"w": w, "b": b}, age, pressure) for w, b in TRIES]),
        surface=(slopes, intercepts, np.asarray(grid(slopes, intercepts))),
        best=best,
        flat=[flatness(degree, z, pressure) for degree in (1, 2)],
        descended=descended,
        descended_line=np.array([slope, descended.params["b"] - slope * scaler.mean]),
        curve=(along, np.asarray(values), np.asarray(derivatives)),
        tangents=np.asarray(at_ends),
        lowest=float(np.sum(age * (pressure - INTERCEPT)) / np.sum(age**2)),
        refused=refused,
    )


def of_first(loss, params, x, y) -> np.ndarray:
    """The loss of the first 1, 2, ... points: all of them, with a mask."""
    masked, first = loss(jf.models.line, masked=True), np.tri(len(x), dtype=bool)
    return np.asarray(jax.vmap(lambda where: masked(params, x, y, where))(first))


def gradient(loss, params, data) -> list[float]:
    found = jf.step(loss, params, data, optimizer=jf.optimizers.sgd(0.1)).grads
    return [float(found["b"]), float(found["w"])]


def flatness(degree: int, x, y) -> float:
    """The norm of the gradient where degree + 1 linear equations say that it vanishes: X'X c = X'y."""
    rows = np.vander(x, degree + 1, increasing=True)
    solved = {"coefficients": np.linalg.solve(rows.T @ rows, rows.T @ y)}
    loss = jf.losses.mse(jf.models.polynomial(degree))
    found = jf.step(loss, solved, (x, y), optimizer=jf.optimizers.sgd(0.1), precision="float64").grads
    return float(np.linalg.norm(found["coefficients"]))


def checks(result: Result) -> list[Check]:
    age, pressure = result.data
    residuals = pressure - result.predicted
    five = residuals[:5]
    (sums, means), n = result.losses, len(age)
    slopes, values, derivatives = result.curve
    best = [result.best["w"], result.best["b"]]
    return [
        check("PDL-data.n", len(age), "women"),
        Check("the lowest and the highest pressure", [99, 217], [pressure.min(), pressure.max()], 0, "PDL-F3.1"),
        Check("pressures between 100 and 220", 32, int(np.sum((pressure >= 100) & (pressure <= 220))), 0, "PDL-F3.1"),
        check("PDL-3.1.pred31", result.at_31, "by the line by hand, at 31"),
        check("PDL-T3.1.x", age[:5], "five women: age"),
        check("PDL-T3.1.y", pressure[:5], "five women: pressure"),
        check("PDL-T3.1.yhat", result.predicted[:5], "five women: the line by hand"),
        check("PDL-T3.1.res", five, "five women: residuals"),
        check("PDL-T3.1.sq", five**2, "five women: squares"),
        check("PDL-T3.1.rss", sums[4], "five women: sum of squares"),
        check("PDL-T3.1.mse", means[4], "five women: mean of squares"),
        check("PDL-T3.1.rmse", np.sqrt(means[4]), "five women: root of the mean"),
        Check("residuals, pressure less line", pressure - (100 + age), residuals, 1e-4, "PDL-F3.3, by hand"),
        check("PDL-L3.1.full", means[-1], "line by hand: loss of all 33"),
        Check("the mean as the formula has it", np.mean((pressure - (age + 100)) ** 2), means[-1], 1e-3, "PDL-E3.1"),
        Check("sum of squares / women, for 1 to 33 women", sums / np.arange(1, n + 1), means, 2e-4, "PDL-3.1.rss"),
        Check("every woman twice: sum / sum", 2, result.doubled[0] / sums[-1], 1e-6, "PDL-3.1.rss"),
        Check("every woman twice: mean / mean", 1, result.doubled[1] / means[-1], 1e-6, "PDL-3.1.rss"),
        Check("gradient of the sum / of the mean", n, result.gradients[0] / result.gradients[1], 1e-4, "PDL-3.1.rss"),
        Check("by hand: slope 0.9, intercept 101", 375.36, result.tries[1], 5e-3, "PDL-X1"),
        Check("that lowers the loss", True, bool(result.tries[1] < result.tries[0])),
        check("PDL-CF.a", best[0], "closed form: slope"),
        check("PDL-CF.b", best[1], "closed form: intercept"),
        check("PDL-3.2.b", best[1], "the intercept held at 87.6"),
        check("PDL-CF.mse", result.descended.loss, "least loss", precision="float64"),
        Check("descent on standardized ages: outcome", "CONVERGED", result.descended.status.name, source="PDL-3.0"),
        Check("descent on standardized ages: the line", best, result.descended_line, 1e-6, "PDL-3.0, closed form"),
        Check("one age for all: refused", True, "slope is not determined" in result.refused, source="PDL-CF"),
        Check("gradient where 2 or 3 equations put it", 0, result.flat, 1e-10, "CHOLLET-2.4.3.analytic"),
        Check("slope of the loss at a = 0", -5294.35, result.tangents[0], 5e-3, "PDL-F3.4, by hand"),
        Check("slope of the loss at a = 2", 4276.07, result.tangents[1], 5e-3, "PDL-F3.4, by hand"),
        Check("a of the least loss, at 87.6", 1.1064, result.lowest, 5e-5, "PDL-F3.4, by hand"),
        Check(
            "the loss falls below it, rises above it",
            np.sign(slopes - result.lowest), np.sign(derivatives), 0, "PDL-F3.4",
        ),
        Check("no loss is lower", True, bool(values.min() >= values[np.abs(slopes - result.lowest).argmin()])),
    ]  # fmt: skip


def draw(result: Result):
    return {"": draw_line(result), "loss": draw_loss(result)}


def draw_line(result: Result):
    space = {"hspace": 0.42, "wspace": 0.2, "top": 0.87, "left": 0.07, "right": 0.98, "bottom": 0.07}
    figure, axes = plots.panels([["data", "residuals"], ["five", "tries"]], size=(11, 8.4), gridspec_kw=space)
    figure.suptitle("A line through 33 blood pressures: by hand, and the best one", x=0.07, ha="left")
    words = "The loss is the mean of the squared residuals; to fit is to make it as small as it gets."
    figure.text(0.07, 0.925, words, color="#555555")
    age, pressure = result.data

    ax = axes["data"]
    ax.set(ylim=(85, 225), xlabel="age, years", ylabel="systolic blood pressure, mmHg", title="By hand: 100 + age")
    ends = np.array(ax.set_xlim(age.min() - 4, age.max() + 4))
    ax.plot([31, 31, ends[0]], [85, result.at_31, result.at_31], color=plots.ORANGE, lw=1.1, ls=(0, (2, 2)), zorder=1)
    ax.text(ends[0] + 1, result.at_31 + 2, f"at 31: {result.at_31:.0f}", color=plots.ORANGE, va="bottom")
    ax.plot(age, pressure, "o", color=plots.DARK, ms=4.5, zorder=3)
    lines = [result.hand["w"] * ends + result.hand["b"], result.best["w"] * ends + result.best["b"]]
    words = ["by hand: 1 × age + 100", f"best: {result.best['w']:.3f} × age + {result.best['b']:.2f}"]
    for line, color in zip(lines, (plots.ORANGE, plots.BLUE), strict=True):
        ax.plot(ends, line, color=color)
    ax.text(76, 194, words[0], ha="right", color=plots.ORANGE)
    ax.text(84, 119, words[1], ha="right", color=plots.BLUE)

    ax = axes["residuals"]
    ax.set(xlim=axes["data"].get_xlim(), ylim=(85, 225), xlabel="age, years", title="The residuals of that line")
    ax.vlines(age, result.predicted, pressure, color=plots.RED, lw=1.3)
    ends = np.array(ax.get_xlim())
    ax.plot(ends, result.hand["w"] * ends + result.hand["b"], color=plots.ORANGE)
    ax.plot(age, pressure, "o", color=plots.DARK, ms=4.5, zorder=3)
    ax.plot(age[:5], pressure[:5], "o", color=plots.RED, ms=6, zorder=4)
    room = plots.Room(ax)
    room.block(ends, result.hand["w"] * ends + result.hand["b"])
    for x, y, z in zip(age, pressure, result.predicted, strict=True):
        room.block([x, x], [y, z])
        room.block([x], [y], width=11)
    for x, y, miss in zip(age[:5], pressure[:5], (pressure - result.predicted)[:5], strict=True):
        spot = room.block([x], [y], width=11)
        room.near(spot, f"{miss:+.0f}".replace("-", "−"), color=plots.RED, weight="bold")

    draw_table(result, axes["five"])
    draw_tries(result, axes["tries"])
    return figure


def draw_table(result: Result, ax) -> None:
    """Table 3.1: the first five women, and what becomes of their residuals."""
    age, pressure = (column[:5] for column in result.data)
    predicted = result.predicted[:5]
    residuals = pressure - predicted
    ax.set(xlim=(0, 1), ylim=(0, 9), title="The first five women: their loss")
    ax.axis("off")
    places = (0.1, 0.3, 0.5, 0.72, 0.95)
    for place, word in zip(places, ("age", "pressure", "line", "residual", "squared"), strict=True):
        ax.text(place, 8.2, word, ha="right", color="#555555")
    for row, values in enumerate(zip(age, pressure, predicted, residuals, residuals**2, strict=True)):
        for place, value in zip(places, values, strict=True):
            ink = plots.RED if place > 0.6 else plots.DARK
            ax.text(place, 7.1 - row, f"{value:.0f}".replace("-", "−"), ha="right", color=ink)
    ax.plot([0.76, 0.95], [2.75, 2.75], color=plots.GREY, lw=0.9)
    total = float(np.sum(residuals**2))
    for y, word, value in ((1.9, "sum", total), (1.0, "mean", total / 5), (0.1, "its root", (total / 5) ** 0.5)):
        ax.text(0.72, y, word, ha="right", color="#555555")
        ax.text(0.95, y, plots.number(round(value, 1)), ha="right", color=plots.RED, weight="bold")


def draw_tries(result: Result, ax) -> None:
    """The loss over slope and intercept as level lines, the tries by hand and the best line on it."""
    slopes, intercepts, losses = result.surface
    ax.set(xlim=(slopes[0], slopes[-1]), ylim=(intercepts[0], intercepts[-1]))
    ax.set(xlabel="slope, mmHg a year", ylabel="intercept, mmHg", title="By trying: each trial evaluates one loss")
    levels = [360, 400, 500, 700, 1000, 2000, 4000]
    drawn = ax.contour(slopes, intercepts, losses.T, levels=levels, colors="#b5b5b5", linewidths=0.9)
    spots = [(1.25, 74.5), (1.87, 66), (1.25, 123), (1.85, 114)]
    ax.clabel(drawn, [400, 700, 2000, 4000], fmt=plots.number, fontsize=8, colors="#8a8a8a", manual=spots)
    points = [(w, b, f"{w:g}, {b:g}: {loss:.1f}") for (w, b), loss in zip(TRIES, result.tries, strict=True)]
    points.append((result.best["w"], result.best["b"], f"best: {result.descended.loss:.1f}"))
    ax.plot([w for w, _, _ in points], [b for _, b, _ in points], color=plots.GREY, lw=1, ls=(0, (2, 2)))
    for (w, b, words), color, shift in zip(
        points, (plots.ORANGE, plots.GREEN, plots.BLUE), ((10, 4), (-10, 6), (-8, -12)), strict=True
    ):
        ax.plot(w, b, "o", color=color, ms=7, mec="white", zorder=3)
        side = "left" if shift[0] > 0 else "right"
        text = ax.annotate(words, (w, b), shift, textcoords="offset points", ha=side, color=color, weight="bold")
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85})


def draw_loss(result: Result):
    space = {"wspace": 0.24, "top": 0.8, "left": 0.07, "right": 0.98, "bottom": 0.12}
    figure, axes = plots.panels([["tangents", "women"]], size=(11, 4.7), gridspec_kw=space)
    figure.suptitle(
        "The loss of a line: its slope gives the direction of the minimum, and the distance to it", x=0.07, ha="left"
    )
    ax = axes["tangents"]
    slopes, losses, _ = result.curve
    ax.set(xlim=(-1, 3), ylim=(0, 12_000), xlabel="slope a", ylabel="loss, mmHg²")
    ax.set_title(f"Intercept held at {INTERCEPT}: the least loss is at a = {result.lowest:.4f}")
    ax.plot(slopes, losses, color=plots.DARK)
    plots.few_ticks(ax.yaxis, range(0, 12_001, 3000))
    for a, slope, color in zip((0.0, 2.0), result.tangents, (plots.BLUE, plots.RED), strict=True):
        height = float(np.interp(a, slopes, losses))
        ends = np.array([a - 0.55, a + 0.55])
        ax.plot(ends, height + slope * (ends - a), color=color, ls=(0, (4, 2)))
        ax.plot(a, height, "o", color=color, ms=6, zorder=3)
        words = f"at a = {a:g} the loss {'falls' if slope < 0 else 'rises'}:\n{slope:,.2f} per unit of a"
        place = (0.02, 9600) if a == 0 else (2.28, 6900)
        ax.text(*place, words.replace("-", "−"), color=color, ha="left" if a == 0 else "right", linespacing=1.35)
    ax.annotate(
        "flat only here", (result.lowest, losses.min()), (0, 30), textcoords="offset points", ha="center",
        color="#555555", arrowprops={"arrowstyle": "-", "color": plots.GREY, "lw": 0.8},
    )  # fmt: skip

    ax = axes["women"]
    sums, means = result.losses
    count = np.arange(1, len(sums) + 1)
    ax.set(xlim=(0, 34), yscale="log", ylim=(30, 40_000), xlabel="women", ylabel="mmHg², line by hand")
    ax.set_title("More women: a larger sum, the same mean")
    ax.plot(count, sums, "o-", ms=3, color=plots.RED)
    ax.plot(count, means, "o-", ms=3, color=plots.BLUE)
    ax.plot(count, means[-1] * count, color=plots.GREY, lw=1, ls=(0, (4, 2)))
    plots.few_ticks(ax.yaxis, [100, 1000, 10_000])
    room = plots.Room(ax)
    paths = [room.block(count, values) for values in (sums, means, means[-1] * count)]
    for path, words, color in zip(
        paths,
        (f"sum of squares: {sums[-1]:,.0f}", f"mean of squares: {means[-1]:.2f}", f"{means[-1]:.0f} × women"),
        (plots.RED, plots.BLUE, plots.GREY),
        strict=True,
    ):
        room.near(path, words, color=color, prefer=(0.85, 0.5))
    return figure
