"""Memory of past gradients helps: descent crosses the canyon in 70,926 steps, momentum in 7,042, Adam in 328.

Each is a line's mean squared error, to 0.001 above the least: of 50 simulated points (the bowl, from (3, 3)) and of the
blood pressures of 33 women (the canyon, from a = 0, b = 139). Momentum overshoots, since a marble does not stop at the
bottom; descent never does, at these rates. RMSprop divides by the size of the last gradients, so that its steps keep
their length: it ends up jumping to and fro by its rate, rate^2 / 8 times the sum of the Hessian's entries above the
least loss. A rate of 0.01 never comes closer than 0.062, one of 0.001 does, in 51,579 steps. Adagrad divides by the
root of all squares so far, and its steps shrink by themselves. On a wavy loss of one parameter, plain descent stays in
the first small minimum that it meets, which momentum rolls through.

Source: Dürr, Sick and Murina, Probabilistic Deep Learning (2020), sections 3.2.2 and 3.3.2; Chollet, Deep Learning with
Python (2021), section 2.4.3. Cost: seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

GAP = 1e-3  # above the least loss, where a run stops
COLORS: dict[str, str] = dict(
    zip(
        ("descent", "momentum", "Adagrad", "RMSprop", "Adam"),
        (plots.DARK, plots.BLUE, plots.GREEN, plots.PINK, plots.RED),
        strict=True,
    )
)
HILLS = np.linspace(-5.2, 5.2, 521)


@dataclass(frozen=True)
class Config:
    momentum: float = 0.9


SECONDS = 14
QUICK = {}
BREAK = {"momentum": 0.8}
ROWS = {"PDL-3.2.2.momentum": "", "PDL-3.3.2": "", "CHOLLET-2.4.3.opt": "escape"}


class Result(NamedTuple):
    momentum: float
    runs: dict[str, dict[str, Any]]  # fits by place ("bowl", "canyon") and optimizer, with their rates in .optimizer
    jumping: Any  # a fit: RMSprop with 0.01 on the canyon, which does not arrive
    least: dict[str, float]  # loss, by place
    hessians: dict[str, np.ndarray]  # (2, 2), by place
    lowest: dict[str, np.ndarray]  # (2,), by place
    surfaces: dict[str, Any]
    hills: np.ndarray  # the wavy loss at HILLS
    stuck: Any  # a fit on it: descent
    through: Any  # a fit on it: momentum


def line(params, x):
    return params["a"] * x + params["b"]


def wavy(t):
    return 0.1 * t**2 - 0.25 * jnp.cos(3 * t)


LOSS = jf.losses.mse(line, masked=True)  # of data padded to one length, so that both places are one program
STARTS = {"bowl": {"a": 3.0, "b": 3.0}, "canyon": {"a": 0.0, "b": 139.0}}
RATES = {
    "bowl": {"descent": 0.1, "momentum": 0.1, "Adagrad": 1.0, "RMSprop": 0.1, "Adam": 0.3},
    "canyon": {"descent": 4e-4, "momentum": 4e-4, "Adagrad": 30.0, "RMSprop": 1e-3, "Adam": 1.0},
}


def optimizers(rates: dict[str, float], momentum: float) -> dict[str, Any]:
    named = jf.optimizers
    return {
        "descent": named.sgd(rates["descent"]),
        "momentum": named.momentum(rates["momentum"], momentum),
        "Adagrad": named.adagrad(rates["Adagrad"]),
        "RMSprop": named.rmsprop(rates["RMSprop"]),
        "Adam": named.adam(rates["Adam"]),
    }


def compute(config: Config) -> Result:
    raw = {"bowl": jf.datasets.bowl(), "canyon": jf.datasets.blood_pressure()}
    x, y, where = jf.datasets.pad(list(raw.values()))
    data = {place: (x[i], y[i], where[i]) for i, place in enumerate(raw)}
    record = jf.Record(what=("loss", "params"))
    designs = {place: np.stack([inputs, np.ones_like(inputs)], axis=1) for place, (inputs, _) in raw.items()}
    lowest = {place: np.linalg.lstsq(rows, raw[place][1], rcond=None)[0] for place, rows in designs.items()}
    least = {place: float(np.mean((designs[place] @ lowest[place] - raw[place][1]) ** 2)) for place in raw}

    def fit(place, optimizer, steps=100_000):
        return jf.fit(
            LOSS, STARTS[place], data[place], optimizer=optimizer, steps=steps, record=record, precision="float64",
            stop=jf.Stop(loss_below=least[place] + GAP),
        )  # fmt: skip

    def roll(optimizer):
        return jf.fit(wavy, 3.0, optimizer=optimizer, steps=400, record=record, precision="float64")

    windows = {"bowl": {"a": (-0.6, 3.4), "b": (-0.6, 3.4)}, "canyon": {"a": (-1.1, 2.1), "b": (70, 160)}}
    return Result(
        momentum=config.momentum,
        runs={
            place: {
                name: fit(place, optimizer) for name, optimizer in optimizers(RATES[place], config.momentum).items()
            }
            for place in raw
        },
        jumping=fit("canyon", jf.optimizers.rmsprop(1e-2), steps=10_000),
        least=least,
        hessians={place: 2 * rows.T @ rows / len(rows) for place, rows in designs.items()},
        lowest=lowest,
        surfaces={
            place: jf.surface(
                LOSS,
                {name: jf.Axis(name, np.linspace(low, high, 121)) for name, (low, high) in window.items()},
                data[place],
            )
            for place, window in windows.items()
        },
        hills=jf.surface(wavy, jf.Axis("t", HILLS), precision="float64").values,
        stuck=roll(jf.optimizers.sgd(0.1)),
        through=roll(jf.optimizers.momentum(0.1, config.momentum)),
    )


def path(fit: Any) -> np.ndarray:
    """(records, 2) a and b."""
    return np.stack([fit.history.params["a"], fit.history.params["b"]], axis=1).astype(float)


def checks(result: Result) -> list[Check]:
    canyon, bowl = result.runs["canyon"], result.runs["bowl"]
    hessian, lowest = result.hessians["bowl"], result.lowest["bowl"]
    rolled, law = path(bowl["momentum"]), [np.array([3.0, 3.0]) - lowest] * 2
    for _ in rolled[1:]:  # x(k + 1) = x(k) - rate * gradient + momentum * (x(k) - x(k - 1))
        law.append(law[-1] - 0.1 * hessian @ law[-1] + 0.9 * (law[-1] - law[-2]))
    rows = [
        Check("bowl, momentum: every point, by the law of the heavy ball", np.array(law[1:]) + lowest, rolled, 1e-9,
              "PDL-3.2.2.momentum, theory"),
        Check("bowl, descent: how often it crosses the lowest slope", 0, crossings(path(bowl["descent"]), lowest),
              source="PDL-3.2.2.momentum"),
        Check("bowl, momentum: the same", 1, min(1, crossings(rolled, lowest)), source="PDL-3.2.2.momentum"),
        Check("the first step of both is the same", path(bowl["descent"])[1], rolled[1], 1e-12, "PDL-3.2.2.momentum"),
    ]  # fmt: skip
    for name, count in {"descent": 70926, "momentum": 7042, "Adam": 328, "Adagrad": 1647, "RMSprop": 51579}.items():
        rows.append(Check(f"canyon, {name}: steps", count, canyon[name].steps, count // 2000, "PDL-3.3.2"))
    for name, count in {"descent": 28, "momentum": 28, "Adam": 37, "Adagrad": 7, "RMSprop": 27}.items():
        rows.append(Check(f"bowl, {name}: steps", count, bowl[name].steps, source="PDL-3.3.2"))
    jump = 0.01**2 / 8 * np.sum(result.hessians["canyon"])
    return [
        *rows,
        Check("canyon, RMSprop 0.01: outcome", "OUT_OF_STEPS", result.jumping.status.name, source="PDL-3.3.2"),
        Check("canyon, RMSprop 0.01: how far above the least it jumps to and fro", jump,
              float(result.jumping.loss) - result.least["canyon"], 1e-3 * jump, "PDL-3.3.2, theory"),
        Check("wavy loss: least of all, at 0", -0.25, float(np.min(result.hills)), 1e-12, "CHOLLET-2.4.3.opt"),
        Check("descent ends in a small minimum", small(), float(result.stuck.params), 1e-6, "CHOLLET-2.4.3.opt"),
        Check("momentum ends at the least of all", 0.0, float(result.through.params), 1e-5, "CHOLLET-2.4.3.opt"),
        Check("loss where descent ends, above the least", 0.1 * small() ** 2 - 0.25 * np.cos(3 * small()) + 0.25,
              float(result.stuck.loss - result.through.loss), 1e-6, "CHOLLET-2.4.3.opt"),
    ]  # fmt: skip


def crossings(points: np.ndarray, lowest: np.ndarray) -> int:
    return int(np.sum(np.diff(np.sign(points[:, 0] - lowest[0])) != 0))


def small() -> float:
    """Where the slope 0.2 t + 0.75 sin 3t vanishes between 1.7 and 2.2, by bisection."""
    low, high = 1.7, 2.2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.2 * middle + 0.75 * np.sin(3 * middle) < 0 else (low, middle)
    return low


def draw(result: Result):
    return {"": places(result), "escape": escape(result)}


def rate_of(fit: Any) -> str:
    return plots.number(float(fit.optimizer.hyperparameters["learning_rate"]))


def places(result: Result):
    space = {"hspace": 0.36, "wspace": 0.2, "top": 0.88, "left": 0.07, "right": 0.97, "bottom": 0.06}
    layout = [["bowl", "canyon"], ["steps", "steps"]]
    figure, axes = plots.panels(layout, size=(12, 9.4), height_ratios=[1.2, 1], gridspec_kw=space)
    canyon = result.runs["canyon"]
    steps = ", ".join(f"{name} in {canyon[name].steps:,}" for name in ("descent", "momentum", "Adam"))
    figure.suptitle(f"Across the canyon: {steps} steps", x=0.07, ha="left")
    words = "A line's mean squared error; every run stops 0.001 above the least. Beside each name: its learning rate."
    figure.text(0.07, 0.925, words, color="#555555")
    shown = {"bowl": ("descent", "momentum", "Adam"), "canyon": ("descent", "momentum", "Adam")}
    for place, names in shown.items():
        ax, lines = axes[place], {}
        for name in names:
            points = path(result.runs[place][name])
            keep = np.unique(np.concatenate([np.arange(min(400, len(points))), np.linspace(0, len(points) - 1, 400)]))
            lines[f"{name} {rate_of(result.runs[place][name])}"] = tuple(points[keep.astype(int)].T)
        start = tuple(STARTS[place].values())
        levels = (1, 2, 4, 6, 9, 12) if place == "bowl" else (400, 600, 1000, 2000, 4000, 7000)
        colors = [COLORS[name] for name in names]
        plots.contour(result.surfaces[place], lines, {"start": start}, colors=colors, levels=levels, ax=ax)
        ax.plot(*result.lowest[place], "x", color="black", ms=8, mew=2, zorder=13)
    axes["bowl"].set(title="In the bowl momentum overshoots, descent does not", xlabel="slope a", ylabel="intercept b")
    axes["canyon"].set(
        title="In the canyon all of them end up on its floor",
        xlabel="slope a, mmHg per year",
        ylabel="intercept b, mmHg",
    )
    ax = axes["steps"]
    ax.set_prop_cycle(color=[*COLORS.values(), "#b8a0b0"])
    curves = {}
    for name, fit in result.runs["canyon"].items():
        curves[f"{name}, {rate_of(fit)}: {fit.steps:,} steps"] = above(fit, result.least["canyon"])
    curves["RMSprop, 0.01: never"] = above(result.jumping, result.least["canyon"])
    plots.loss_history(curves, ax=ax)
    ax.set(
        title="In the canyon: five methods, RMSprop with two rates",
        xlabel="steps",
        ylabel="loss above the least, mmHg²",
    )
    return figure


def above(fit: Any, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses, each step at first, then a few hundred of them, equally spaced by their logarithm."""
    steps = np.unique(np.round(np.geomspace(1, fit.steps + 1, 600)).astype(int) - 1)
    return steps, np.asarray(fit.history.loss)[steps] - least


def escape(result: Result):
    space = {"wspace": 0.1, "top": 0.8, "left": 0.07, "right": 0.98, "bottom": 0.12}
    figure, axes = plots.panels([["stuck", "through"]], size=(11.5, 4.8), gridspec_kw=space)
    figure.suptitle("Momentum passes the local minimum in which plain descent stays", x=0.07, ha="left")
    words = "0.1 t² − 0.25 cos 3t from t = 3, rate 0.1. Numbers: updates."
    figure.text(0.07, 0.875, words, color="#555555")
    titles = {
        "stuck": f"Descent stays in the first minimum, t = {float(result.stuck.params):.2f}",
        "through": f"Momentum {result.momentum} goes on to the least, t = 0",
    }
    for (name, title), color in zip(titles.items(), (plots.DARK, plots.BLUE), strict=True):
        fit, ax = getattr(result, name), axes[name]
        count = 13 if name == "stuck" else 18
        t, loss = (np.asarray(values, float)[:count] for values in (fit.history.params, fit.history.loss))
        ax.set(xlim=(-3.4, 3.4), ylim=(-0.6, 1.6), xlabel="t", title=title)
        plots.descent_1d(t, loss, (HILLS, result.hills), color=color, ax=ax)
        ax.plot(fit.params, fit.loss, "o", mfc="white", mec=plots.RED, ms=8, mew=1.6, zorder=5)
    axes["stuck"].set_ylabel("loss")
    axes["through"].tick_params(labelleft=False)
    return figure
