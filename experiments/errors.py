"""A squared error is smooth at zero and sensitive to outliers, an absolute one has a kink and is not; both are convex.

From the raw readings to the gradient by hand: the eleven pairs; the model at w = 1, b = 0, which returns the readings;
the two errors with their slopes; the gradient as a mean of products of two factors, number by number, which is what
automatic differentiation returns; and broadcasting, whose reverse is the sum by which the gradient of b comes about.
One temperature that is wrong by 20 degrees turns the line of least squares by 20 (x - mean x) / sum (x - mean x)^2, and
the line of least absolute errors not at all, since the point stays on its side of it. That line is known exactly: it
goes through two of the points, so that all pairs can be tried.

Source: Stevens, Antiga and Viehmann, Deep Learning with PyTorch (2020), sections 5.2 and 5.3, figures 5.3, 5.4, 5.7,
cells 5, 7 and 11 to 14. Some prints of cell 7 lack its last line, the shape (2, 3, 3). Cost: some seconds on a CPU.
"""

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

from .published import check

CELSIUS = (0.5, 14.0, 15.0, 28.0, 11.0, 8.0, 3.0, -4.0, 6.0, 13.0, 21.0)  # as printed
MISREAD, BY = 7, 20.0  # the coldest reading, and by how many degrees it is written down wrongly
SHAPES = {"x": (), "y": (3, 1), "z": (1, 3), "a": (2, 1, 1)}
STEPS = 2000
LOSSES = {"squared": jf.losses.mse(jf.models.line), "absolute": jf.losses.mae(jf.models.line)}
COLORS = {"squared": plots.RED, "absolute": plots.BLUE}


@dataclass(frozen=True)
class Config:
    w: float = 1.0  # where the model, the errors and the gradient are taken
    b: float = 0.0
    segments: int = 2000  # on which convexity is tried


SECONDS = 9
QUICK = {"segments": 200}
BREAK = {"b": 1.0}
ROWS = dict.fromkeys(("DLWPT-data", "DLWPT-F5.3", "DLWPT-F5.4"), "") | {
    "DLWPT-Out5": "gradient", "DLWPT-In11": "gradient", "DLWPT-F5.7": "gradient", "DLWPT-Out7": "broadcasting",
}  # fmt: skip


class Result(NamedTuple):
    readings: tuple[np.ndarray, np.ndarray]  # (11,) in the unknown unit, (11,) in degrees Celsius
    predictions: np.ndarray  # (11,) at w, b
    factors: np.ndarray  # (11, 3): 2 (t_p - t_c) and its products with the derivatives t_u and 1 of the model
    gradient: list[float]  # by w and b, by jf.step
    slopes: dict[str, list[float]]  # of the two errors at -1, 0 and 1 degree
    wrong: np.ndarray  # (11,) degrees Celsius, one of them misread
    lines: dict[str, tuple[np.ndarray, np.ndarray]]  # by loss: w and b for the readings, and with the misread one
    exact: dict[str, tuple[np.ndarray, np.ndarray]]  # the same by least squares and by trying all pairs
    above: dict[str, float]  # by loss: the least height of a chord above the middle of the bowl, in units of itself
    shapes: list[tuple[int, ...]]  # of x y, y z, y z a
    table: np.ndarray  # (2, 3, 3) y z a for y = 1, 2, 3 and z = 10, 20, 30 and a = 1, -1
    back: tuple[np.ndarray, np.ndarray]  # the gradient of sum(y z a) by y: by differentiation, by summing


def compute(config: Config) -> Result:
    t_u, t_c = jf.datasets.thermometer()
    here = {"w": config.w, "b": config.b}
    _, _, grads = jf.step(LOSSES["squared"], here, (t_u, t_c), optimizer=jf.optimizers.sgd(1e-4))
    predictions = np.asarray(jf.models.line(here, t_u))
    wrong = t_c + BY * (np.arange(11) == MISREAD)
    outer = 2 * (config.w * t_u + config.b - t_c)
    y, z, a = jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[10.0, 20.0, 30.0]]), jnp.array([[[1.0]], [[-1.0]]])
    x = jnp.ones(())
    with jax.numpy_rank_promotion("allow"):
        table = y * z * a
        shapes = [tuple(product.shape) for product in (x * y, y * z, table)]
        back = jax.grad(lambda y: jnp.sum(y * z * a))(y), np.sum(np.asarray(z * a), axis=(0, 2), keepdims=True)[0]
    return Result(
        readings=(t_u, t_c),
        predictions=predictions,
        factors=np.stack([outer, outer * t_u, outer], axis=1),
        gradient=[float(grads["w"]), float(grads["b"])],
        slopes={name: [slope(loss, error) for error in (-1.0, 0.0, 1.0)] for name, loss in LOSSES.items()},
        wrong=wrong,
        lines={name: (line(loss, t_u, t_c), line(loss, t_u, wrong)) for name, loss in LOSSES.items()},
        exact={
            "squared": (np.polyfit(t_u, t_c, 1), np.polyfit(t_u, wrong, 1)),
            "absolute": (through_two(t_u, t_c), through_two(t_u, wrong)),
        },
        above={name: chords(loss, (t_u, t_c), config.segments) for name, loss in LOSSES.items()},
        shapes=shapes,
        table=np.asarray(table),
        back=(np.asarray(back[0]), np.broadcast_to(back[1], (3, 1))),
    )


def slope(loss: Any, error: float) -> float:
    """The derivative of one observation's loss by its prediction, which is off by `error`."""
    return float(jax.grad(loss)({"w": 0.0, "b": error}, np.zeros(1), np.zeros(1))["b"])


def line(loss: Any, t_u: np.ndarray, t_c: np.ndarray) -> np.ndarray:
    """The line of least loss in readings as they are: standardized, and by Adam with a rate that falls to nothing."""
    z, scaler = jf.datasets.standardize(t_u)
    rate = optax.exponential_decay(1.0, STEPS, 1e-6)
    start = {"w": 0.0, "b": float(np.mean(t_c))}
    fit: Any = jf.fit(loss, start, (z, t_c), optimizer=jf.optimizers.adam(rate), steps=STEPS)
    w = float(fit.params["w"]) / float(scaler.scale)
    return np.array([w, float(fit.params["b"]) - w * float(scaler.mean)])


def through_two(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The line of least absolute errors: one of those through two of the points."""
    pairs = np.array(list(itertools.combinations(range(len(x)), 2))).T
    w = np.diff(y[pairs], axis=0)[0] / np.diff(x[pairs], axis=0)[0]
    b = y[pairs[0]] - w * x[pairs[0]]
    errors = np.mean(abs(w[:, None] * x + b[:, None] - y), axis=1)
    return np.array([w[errors.argmin()], b[errors.argmin()]])


def chords(loss: Any, data: tuple, count: int) -> float:
    """The least of (mean of the loss at two ends - loss in their middle) / that mean, over random pairs of params."""
    ends = 10 * jax.random.normal(jax.random.key(0), (2, count, 2))
    height = jax.jit(jax.vmap(lambda p: loss({"w": p[0], "b": p[1]}, *data)))
    mean = (height(ends[0]) + height(ends[1])) / 2
    return float(jnp.min((mean - height((ends[0] + ends[1]) / 2)) / mean))


def turned(lines: tuple[np.ndarray, np.ndarray]) -> float:
    """By how much the misread temperature turns a line, in degrees Celsius per unit of the readings."""
    return float(lines[1][0] - lines[0][0])


def checks(result: Result) -> list[Check]:
    (t_u, t_c), figure = result.readings, "DLWPT-F5.4, "
    by_hand = result.factors[:, 1:].mean(axis=0)
    shapes = [n for shape in result.shapes for n in shape]
    rows = [
        Check("temperatures, °C", np.array(CELSIUS), t_c, 0, "DLWPT-data, as printed"),
        Check("readings and temperatures: correlation", 0.98, float(np.corrcoef(t_u, t_c)[0, 1]), 5e-3,
              "DLWPT-F5.3, nearly a line"),
        check("DLWPT-Out5", result.predictions, "the model at w = 1, b = 0"),
        Check("gradient by w and b, by hand", by_hand, np.array(result.gradient), 2e-7 * abs(by_hand) + 1e-4,
              "DLWPT-In11, by hand"),
        Check("gradient by w and b, as printed", [4517.2969, 82.6], result.factors[:, 1:].mean(axis=0), 2e-3,
              "DLWPT-F5.7, the print of section 5.5.1"),
        check("DLWPT-Out7", shapes, "shapes of x y, y z and y z a"),
        Check("entries of y z a", np.multiply.outer([1, -1], np.outer([1, 2, 3], [10, 20, 30])).ravel(),
              result.table.ravel(), 0, "DLWPT-Out7, outer products"),
        Check("the gradient through a broadcast is a sum", result.back[1], result.back[0], 0, "DLWPT-In11, sums"),
        Check("slopes of the squared error at -1, 0, 1", [-2, 0, 2], result.slopes["squared"], 0, figure + "2 x"),
        Check("slopes of the absolute error at -1, 0, 1; 0 by convention", [-1, 0, 1], result.slopes["absolute"], 0,
              figure + "sign"),
    ]  # fmt: skip
    for name in LOSSES:
        least = 0 if name == "squared" else -1e-6  # a chord may lie in a face of the absolute bowl
        for exact, found, which in zip(result.exact[name], result.lines[name], ("as read", "one misread"), strict=True):
            rows.append(Check(f"line of least {name} errors, {which}: w and b", exact, found, [2e-4, 1e-2],
                              figure + "exact"))  # fmt: skip
        rows.append(Check(f"{name} errors: every chord lies above the bowl", True, result.above[name] >= least,
                          source=figure + "convex"))  # fmt: skip
    away = t_u - np.mean(t_u)
    law = BY * away[MISREAD] / np.sum(away**2)
    return [
        *rows,
        Check("the misread one turns the squared line by", law, turned(result.lines["squared"]), 1e-5, figure + "law"),
        Check("and the absolute line by", 0.0, turned(result.lines["absolute"]), 2e-4, figure + "it stays on its side"),
    ]


def draw(result: Result):
    return {"": draw_errors(result), "gradient": draw_gradient(result), "broadcasting": draw_broadcasting(result)}


def draw_errors(result: Result):
    space = {"wspace": 0.24, "top": 0.79, "left": 0.06, "right": 0.98, "bottom": 0.13}
    figure, axes = plots.panels([["errors", "lines"]], size=(11, 5), gridspec_kw=space, width_ratios=[1, 1.25])
    figure.suptitle("One outlier moves a fit by squared errors far, by absolute errors hardly", x=0.06, ha="left")
    squared, absolute = (turned(result.lines[name]) for name in LOSSES)
    text = (
        f"One temperature, written down 20 °C too high, turns the line of least squares by {squared:.3f} °C a unit, "
        f"that of least absolute errors by {abs(absolute):.3f}."
    )
    figure.text(0.06, 0.885, text.replace("-", "−"), color="#555555")
    ax, error = axes["errors"], np.linspace(-3, 3, 241)
    curves = {"squared": error**2, "absolute": abs(error)}
    ax.set(xlim=(-3, 3), ylim=(-0.5, 9), xlabel="$t_p - t_c$, °C", ylabel="loss of one reading")
    ax.set_title("Smooth at zero, or with a kink")
    for name, values in curves.items():
        ax.plot(error, values, color=COLORS[name])
    for at in (-1.0, 1.0):
        ax.plot(at, 1, "o", color=plots.DARK, ms=5, zorder=4)
    room = plots.Room(ax)
    paths = {name: room.block(error, values) for name, values in curves.items()}
    room.near(
        paths["squared"], "$(t_p - t_c)^2$:\nslopes −2, 0, 2\nat −1, 0, 1", color=COLORS["squared"], prefer=(0.35, 0.9)
    )
    room.near(paths["absolute"], "$|t_p - t_c|$:\nslopes −1, none, 1", color=COLORS["absolute"], prefer=(1, 0.1))
    draw_lines(result, axes["lines"])
    return figure


def draw_lines(result: Result, ax) -> None:
    t_u, t_c = result.readings
    ends = np.array([18.0, 86.0])
    ax.set(xlim=ends, ylim=(-9, 33), xlabel="reading, unknown unit", ylabel="temperature, °C")
    ax.set_title("Lines through the readings; dashed: with one misread")
    ax.plot(t_u, t_c, "o", color=plots.DARK, ms=5, zorder=3)
    ax.plot(t_u[MISREAD], result.wrong[MISREAD], "o", mfc="white", mec=plots.DARK, ms=6, zorder=3)
    way = {"arrowstyle": "-|>", "color": plots.GREY, "shrinkA": 5, "shrinkB": 5}
    ax.annotate("", (t_u[MISREAD], result.wrong[MISREAD]), (t_u[MISREAD], t_c[MISREAD]), arrowprops=way)
    drawn = {}
    for name, both in result.lines.items():
        for (w, b), dashes in zip(both, ("-", (0, (4, 2))), strict=True):
            drawn[name, dashes] = w * ends + b
            ax.plot(ends, drawn[name, dashes], color=COLORS[name], ls=dashes, lw=1.5)
    ax.plot(ends, drawn["absolute", "-"], color=COLORS["absolute"], lw=4.5, alpha=0.25)
    room = plots.Room(ax)
    for point in zip([*t_u, t_u[MISREAD]], [*t_c, result.wrong[MISREAD]], strict=True):
        room.block(*point, width=13)
    room.block([t_u[MISREAD]] * 2, [t_c[MISREAD], result.wrong[MISREAD]])
    paths = {key: room.block(ends, values) for key, values in drawn.items()}
    room.near(paths["squared", (0, (4, 2))], "least squares, misled", color=COLORS["squared"], prefer=(0.2, 0.6))
    room.near(
        paths["absolute", (0, (4, 2))],
        "least absolute errors, with and without",
        color=COLORS["absolute"],
        prefer=(1, 0.2),
    )


def draw_gradient(result: Result):
    figure, axes = plots.panels(
        "A", size=(9.5, 6.6), gridspec_kw={"top": 0.97, "left": 0.03, "right": 0.97, "bottom": 0.02}
    )
    ax = axes["A"]
    ax.set_axis_off()
    ax.set(xlim=(0, 100), ylim=(0, 100))
    ax.text(0, 99, "The gradient by hand: a mean of products", fontsize=13, weight="bold", va="top")
    formula = (
        r"$\dfrac{\partial L}{\partial w} = \mathrm{mean}\left(2\,(t_p - t_c) \cdot t_u\right)$",
        r"$\dfrac{\partial L}{\partial b} = \mathrm{mean}\left(2\,(t_p - t_c) \cdot 1\right)$",
    )
    for x, words in zip((2, 54), formula, strict=True):
        ax.text(x, 86, words, fontsize=15, va="center")
    note = "the loss by the prediction, times the prediction by w or b; the mean is the loss' own"
    ax.text(2, 77, note, color="#555555", va="center")
    (t_u, t_c), factors = result.readings, result.factors
    heads = ("$t_u$", "$t_c$", "$t_p = w\\,t_u + b$", "$2\\,(t_p - t_c)$", r"$\times\;t_u$", r"$\times\;1$")
    columns = np.column_stack([t_u, t_c, result.predictions, factors])
    places, colors = (8, 20, 40, 58, 78, 95), (*[plots.DARK] * 3, plots.RED, plots.BLUE, plots.BLUE)
    rows = np.linspace(65, 13, len(columns))
    for x, head, color in zip(places, heads, colors, strict=True):
        ax.text(x, 70.5, head, ha="right", va="center", fontsize=11, color=color)
    ax.plot([0, 97], [68, 68], color=plots.GREY, lw=0.8)
    for y, row in zip(rows, columns, strict=True):
        for x, value, color in zip(places, row, colors, strict=True):
            ax.text(x, y, f"{value:,.1f}".replace("-", "−"), ha="right", va="center", color=color)
    ax.plot([0, 97], [10, 10], color=plots.GREY, lw=0.8)
    ax.text(58, 5.5, "mean", ha="right", va="center", weight="bold")
    for x, value in zip(places[-2:], factors[:, 1:].mean(axis=0), strict=True):
        ax.text(x, 5.5, f"{value:,.4f}", ha="right", va="center", weight="bold", color=plots.BLUE)
    return figure


def draw_broadcasting(result: Result):
    figure, axes = plots.panels(
        "A", size=(9.5, 4.8), gridspec_kw={"top": 0.97, "left": 0.03, "right": 0.97, "bottom": 0.02}
    )
    ax = axes["A"]
    ax.set_axis_off()
    ax.set(xlim=(0, 100), ylim=(0, 100))
    ax.text(0, 99, "Broadcasting: shapes are aligned at their last dimension", fontsize=13, weight="bold", va="top")
    (xy, yz, yza) = result.shapes
    for left, (names, out) in zip(
        (0, 32, 64), ((("x", "y"), xy), (("y", "z"), yz), (("y", "z", "a"), yza)), strict=True
    ):
        draw_alignment(ax, left, names, out)
    rules = (
        "1   A dimension that is missing on the left (dotted) counts as 1.",
        "2   A dimension of 1 (pale) is repeated to the length of the other.",
        "3   Any other two lengths must be equal. Going back, gradients are summed over what was repeated.",
    )
    for height, rule in zip((17, 9.5, 2), rules, strict=True):
        ax.text(0, height, rule, color=plots.DARK, va="center")
    return figure


def draw_alignment(ax, left: float, names: tuple[str, ...], out: tuple[int, ...]) -> None:
    """The shapes of some arrays above each other, and that of their product under a line."""
    lines = [(name, SHAPES[name]) for name in names] + [(" ".join(names), out)]
    for row, (name, shape) in enumerate(lines):
        last = row == len(lines) - 1
        y = 33 if last else 81 - 13 * row
        ax.text(left + 8, y, name, ha="right", va="center", weight="bold" if last else "normal", fontsize=11)
        for column in range(3):
            place = column - (3 - len(shape))
            x = left + 11 + 6.2 * column
            corners = [x, x + 5.6, x + 5.6, x], [y - 5, y - 5, y + 5, y + 5]
            if place >= 0:
                repeated = not last and shape[place] < out[place - len(shape)]
                color = plots.BLUE if last else "#cfe3f1" if repeated else "#6aa5cf"
                ax.fill(*corners, color=color, lw=0)
                ink = "white" if last else plots.DARK
                ax.text(x + 2.8, y, str(shape[place]), ha="center", va="center", color=ink)
            elif column >= 3 - len(out):
                ax.fill(*corners, fc="white", ec=plots.GREY, ls=":", lw=1)
                ax.text(x + 2.8, y, "1", ha="center", va="center", color=plots.GREY)
    ax.plot([left + 3, left + 29.6], [43, 43], color=plots.GREY, lw=0.8)
