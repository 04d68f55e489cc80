"""Gradient descent by hand: from (-3, -3) down x^2 + 2 y^2 in 17 updates, each point a power of 0.8 and of 0.6.

An update takes the rate, 0.1, times the gradient (2x, 4y) off the point, so that x_n = -3 * 0.8^n and y_n = -3 * 0.6^n;
the run stops at the first loss below 0.005. The table fills in the rows that the text leaves out. The text numbers its
first two rows from one and its last two from zero: its row 16 is here 16 updates, 17 the last. Its code draws the path
of this loss over the surface x^2 + 4 y^2, 45 high at the start instead of 27, so that the path hangs below it by 2 y^2.
It also starts from whole numbers, which become floats here.

Source: the notes on backpropagation and gradient descent, section 2.3. Cost: seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

from .published import check


@dataclass(frozen=True)
class Config:
    rate: float = 0.1


QUICK = {}
BREAK = {"rate": 0.09}
ROWS = {
    "GD-F.concept": "", "GD-2.3.eq1": "", "GD-2.3.example": "table", "GD-T1": "table", "GD-code": "table",
    "GD-T2": "views",
}  # fmt: skip


class Side(NamedTuple):
    """One update of the parabola."""

    before: float
    after: float
    slope: float
    losses: tuple[float, float]


class Result(NamedTuple):
    sides: tuple[Side, Side]
    parabola: Any  # the loss over X
    fit: Any  # from (-3, -3)
    from_whole: Any  # from whole numbers, as the code has it
    surface: Any  # x^2 + 2 y^2
    wide: Any  # the same, beyond the start
    wrong: Any  # x^2 + 4 y^2, which the code draws
    wrong_heights: np.ndarray  # of that, along the path


def parabola(x):
    return (x - 2) ** 2 + 1


def bowl(params):
    return params["x"] ** 2 + 2 * params["y"] ** 2


def drawn(params):
    """The surface in the code of the text, which is not the one it descends."""
    return params["x"] ** 2 + 4 * params["y"] ** 2


def compute(config: Config) -> Result:
    optimizer = jf.optimizers.sgd(config.rate)

    def side(x):
        step = jf.step(parabola, x, optimizer=optimizer)
        after = float(step.params)
        return Side(x, after, float(step.grads), (float(step.value), float(parabola(after))))

    def fit(start):
        return jf.fit(
            bowl, start, optimizer=optimizer, steps=50, stop=jf.Stop(loss_below=0.005),
            record=jf.Record(what=("loss", "params", "gradient")),
        )  # fmt: skip

    grid = {name: jf.Axis(name, np.linspace(-3, 3, 100)) for name in "xy"}
    run = fit({"x": -3.0, "y": -3.0})
    path = {name: jf.Axis("update", values) for name, values in run.history.params.items()}
    return Result(
        sides=(side(1.4), side(2.55)),
        parabola=jf.surface(parabola, jf.Axis("X", np.linspace(0.9, 3.1, 111))),
        fit=run,
        from_whole=fit({"x": -3, "y": -3}),
        surface=jf.surface(bowl, grid),
        wide=jf.surface(bowl, {name: jf.Axis(name, np.linspace(-3.4, 3.4, 100)) for name in "xy"}),
        wrong=jf.surface(drawn, grid),
        wrong_heights=jf.surface(drawn, path).values,
    )


def rows_of(fit: Any) -> np.ndarray:
    """(updates + 1, 3): x, y and the loss."""
    return np.stack([fit.history.params["x"], fit.history.params["y"], fit.history.loss], axis=1).astype(float)


def checks(result: Result) -> list[Check]:
    rows, history, n = rows_of(result.fit), result.fit.history, np.arange(18)
    points, gradients = (
        np.stack([np.asarray(h["x"]), np.asarray(h["y"])], axis=1) for h in (history.params, history.gradient)
    )
    x, y = -3 * 0.8**n, -3 * 0.6**n
    law = np.stack([x, y, x**2 + 2 * y**2], axis=1)
    left, right = result.sides
    found = [
        check("GD-F.concept.left", [left.slope, left.after], "left of the minimum: slope, and where an update leads"),
        check("GD-F.concept.right", [right.slope, right.after], "right of the minimum: slope, and where it leads"),
        Check("both updates lower the loss", True, all(side.losses[1] < side.losses[0] for side in result.sides)),
        Check("every point is the last minus the rate times its gradient", points[:-1] - 0.1 * gradients[:-1],
              points[1:], 1e-6, "GD-2.3.eq1"),
        Check("gradient (2x, 4y)", points * [2, 4], gradients, 1e-6, "GD-2.3.example"),
        check("GD-2.3.step1", points[1], "the first update"),
        check("GD-T1.n", result.fit.steps, "updates until the loss is below 0.005"),
    ]  # fmt: skip
    for name, row in (("row1", 0), ("row2", 1), ("row16", 16), ("row17", 17)):
        found.append(check(f"GD-T1.{name}", rows[row], f"x, y and loss after {row} updates"))
    return [
        *found,
        Check("the whole table: -3 * 0.8^n, -3 * 0.6^n, and their loss", law, rows, 1e-5, "GD-T1, theory"),
        Check("from whole numbers the same table", rows, rows_of(result.from_whole), 0, "GD-code"),
        Check("the code's surface and the loss, at the start", [45, 27], [result.wrong_heights[0], rows[0, 2]], 1e-5,
              "GD-T2"),
        Check("how far the path hangs below it: 2 y^2", 2 * rows[:, 1] ** 2, result.wrong_heights - rows[:, 2], 1e-5,
              "GD-T2, theory"),
        Check("highest point of the right surface", 27, float(result.surface.max()), 1e-5, "GD-T2"),
    ]  # fmt: skip


def draw(result: Result):
    return {"": concept(result), "table": table(result), "views": views(result)}


def concept(result: Result):
    space = {"wspace": 0.1, "top": 0.78, "left": 0.07, "right": 0.98, "bottom": 0.12}
    figure, axes = plots.panels([["left", "right"]], size=(11, 4.8), gridspec_kw=space)
    figure.suptitle("Against the slope, whichever side one starts from: X − 0.1 · slope", x=0.07, ha="left")
    figure.text(0.07, 0.87, "One update on Y = (X − 2)² + 1. Dashed: the tangent at the start.", color="#555555")
    x, y = result.parabola.X.values, result.parabola.values
    for name, side in zip(("left", "right"), result.sides, strict=True):
        ax = axes[name]
        ax.set(xlim=(0.9, 3.1), ylim=(0.8, 2.2), xlabel="weight X")
        path = np.array([side.before, side.after])
        tangent = np.array([side.before - 0.45, side.before + 0.45])
        ax.plot(tangent, side.losses[0] + side.slope * (tangent - side.before), color=plots.RED, lw=1.2, ls=(0, (4, 2)))
        for place, loss in zip(path, side.losses, strict=True):
            ax.plot([place, place], [0.8, loss], color=plots.GREY, lw=0.9, ls=(0, (1, 2)), zorder=0)
        ax.plot(x, y, color="#b5b5b5", lw=1.4, zorder=1)
        arrow = {"arrowstyle": "-|>", "lw": 2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 13}
        ax.annotate("", (side.after, 0.9), (side.before, 0.9), arrowprops=arrow | {"color": plots.GREEN})
        ax.plot(path, side.losses, "o", color=plots.BLUE, mec="white", ms=7, zorder=4)
        ax.plot(2, 1, "o", mfc="white", mec=plots.DARK, ms=6, mew=1.2, zorder=4)
        room = plots.Room(ax, raster=2)
        room.block(x, y)
        slope_line = room.block(tangent, side.losses[0] + side.slope * (tangent - side.before))
        step_line = room.block(path, [0.9, 0.9], width=14)
        spots = [room.block(*spot, width=12) for spot in (*zip(path, side.losses, strict=True), (2, 1))]
        words = (f"X₀ = {side.before:g}", f"X₁ = {side.after:.2f}", "the minimum")
        for spot, word, color in zip(spots, words, (plots.BLUE, plots.BLUE, plots.DARK), strict=True):
            room.near(spot, word, color=color, weight="bold" if color == plots.BLUE else "normal")
        room.near(slope_line, f"slope {side.slope:+.1f}".replace("-", "−"), color=plots.RED, prefer=(0.5, 1))
        room.near(step_line, f"step {side.after - side.before:+.2f}".replace("-", "−"), color=plots.GREEN)
        what = "It falls to the right: go right" if side.slope < 0 else "It rises to the right: go left"
        ax.set_title(what)
        plots.few_ticks(ax.yaxis, (1, 1.5, 2))
    axes["left"].set_ylabel("objective Y")
    axes["right"].tick_params(labelleft=False)
    return figure


def table(result: Result):
    space = {"wspace": 0.05, "top": 0.82, "left": 0.06, "right": 0.98, "bottom": 0.1, "width_ratios": [1.15, 1]}
    figure, axes = plots.panels([["path", "table"]], size=(11, 6), gridspec_kw=space)
    figure.suptitle("17 updates down x² + 2y², every one of them", x=0.06, ha="left")
    words = "Rate 0.1 from (−3, −3), until the loss is below 0.005. Bold: the rows that the text prints."
    figure.text(0.06, 0.895, words, color="#555555")
    rows = rows_of(result.fit)
    axes["path"].set_aspect("equal", anchor="W")  # before, since labels are placed in the final frame
    ax = plots.contour(result.wide, {"descent": result.fit}, {"start": (-3, -3)}, ax=axes["path"])
    ax.set_title("x shrinks to 0.8 of itself in an update, y to 0.6")
    ax = axes["table"]
    ax.set(xlim=(0, 1), ylim=(len(rows) + 0.2, -1.4))
    ax.set_axis_off()
    columns = (0.16, 0.42, 0.7, 0.98)
    for place, head in zip(columns, ("updates", "x", "y", "loss"), strict=True):
        ax.text(place, -0.75, head, ha="right", va="center", color="#555555")
    for n, (x, y, loss) in enumerate(rows):
        bold: Any = {"weight": "bold"} if n in (0, 1, 16, 17) else {}
        if n % 2 == 0:
            ax.axhspan(n - 0.5, n + 0.5, color=plots.PALE, alpha=0.55, lw=0)
        cells = (f"{n}", f"{x:.6f}", f"{y:.6f}", f"{loss:.6f}")
        for place, cell in zip(columns, cells, strict=True):
            ax.text(place, n, cell.replace("-", "−"), ha="right", va="center", **bold)
    return figure


def views(result: Result):
    with plots.style():
        import matplotlib.pyplot as plt

        figure = plt.figure(figsize=(13.5, 5))
    title = "The path lies on x² + 2y², which is 2y² below the surface of the printed code, x² + 4y²"
    figure.suptitle(title, x=0.04, ha="left")
    rows = rows_of(result.fit)
    points = {"start: 27": tuple(rows[0])}
    for left, view, words in (
        (0.0, (34, -60), "From 27 at (−3, −3) down to 0.0046"),
        (0.335, (30, 25), "The same from another side"),
        (0.67, (5, -118), "The code's surface: the path is 2y² below"),
    ):
        figure.text(left + 0.04, 0.86, words, weight="bold")
        ax = figure.add_axes((left, -0.04, 0.31, 0.88), projection="3d")
        if left < 0.5:
            plots.surface_3d(result.surface, {"descent": result.fit}, points, view=view, ax=ax)
    above = {"45 on x² + 4y²": (rows[0, 0], rows[0, 1], result.wrong_heights[0])}
    plots.surface_3d(result.wrong, {"descent": tuple(rows.T)}, points | above, view=view, ax=ax)
    for other in figure.axes[1:]:
        other.set(zlabel="")
    for (x, y, loss), height in zip(rows[:6], result.wrong_heights, strict=False):
        ax.plot([x, x], [y, y], [loss, height], color=plots.DARK, lw=0.9, ls=(0, (2, 2)), zorder=9)
    return figure
