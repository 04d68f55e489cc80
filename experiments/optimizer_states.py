"""An optimizer is two functions and a state that the caller holds: init, and update from a gradient to a step.

In the text an optimizer keeps the params, backward() fills a gradient beside them, and step() changes them in place.
Here nothing is kept: params, gradient and state go into a function and new ones come out, as in the diagram, which
has the numbers of Adam's first update. So no gradient has to be set to zero before the next. What forgetting it does is
exactly a momentum of 1: the new gradients join all the old ones, and the params oscillate around the optimum for ever,
on the curve cos((k + 1/2) theta), cos theta = 1 - rate lambda / 2, along each eigenvector of the Hessian. Where a sum
of gradients is wanted, it is asked for: the mean over two halves of the data is the gradient of all. The text's list of
optimizers is there by name, and for each the learning rates that converge; where there is a law for the largest, it is
met.

Source: Stevens, Antiga and Viehmann, Deep Learning with PyTorch (2020), sections 5.5.1, 5.5.2 and 5.8, figure 5.11. Of
the classes it lists, ASGD, LBFGS and SparseAdam have no name here; Optimizer is the base class. Cost: half a minute.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

from .rate_sensitivity import NAMES

START = {"w": 1.0, "b": 0.0}
RATE, SWING = 0.1, 300  # Adam's learning rate; updates of the run that forgets to zero
LISTED = {
    "SGD": "sgd", "Adagrad": "adagrad", "Adadelta": "adadelta", "RMSprop": "rmsprop", "Rprop": "rprop",
    "Adam": "adam", "Adamax": "adamax", "LBFGS": "lbfgs",
}  # fmt: skip
FEW = ("sgd", "momentum", "adam")


@dataclass(frozen=True)
class Config:
    kept: float = 1.0  # share of the old gradients that stay when nobody sets them to zero
    names: tuple[str, ...] = NAMES
    rates: int = 60


SECONDS = 36
QUICK = {"names": FEW, "rates": 40}
BREAK = {"kept": 0.95}
ROWS = {
    "DLWPT-F5.11": "", "DLWPT-5.5.1.acc": "accumulation", "DLWPT-5.5.2": "names", "DLWPT-5.8": "names",
}  # fmt: skip


class Update(NamedTuple):
    """One update with Adam."""

    params: list[float]  # w and b before it
    loss: float
    gradient: list[float]
    after: list[float]
    state: tuple[int, list[float], list[float]]  # count, first and second moments, after it


class Result(NamedTuple):
    updates: list[Update]
    fresh: tuple[int, list[float], list[float]]  # the state that init returns
    forgetful: np.ndarray  # (SWING + 1, 2): w and b if gradients are never set to zero
    plain: np.ndarray  # the same with plain gradient descent
    losses: tuple[np.ndarray, np.ndarray]  # of both
    law: np.ndarray  # (SWING + 1, 2)
    optimum: np.ndarray  # (2,)
    least: float
    curvatures: np.ndarray  # (2,) of the loss
    twice: tuple[np.ndarray, np.ndarray]  # the gradient, and the sum of two calls
    halves: tuple[list[float], list[float]]  # w and b after one update: of all rows, of two halves accumulated
    between: list[float]  # w and b after the first half
    first: dict[str, np.ndarray]  # by name: the first step, rate 0.01
    arrived: dict[str, tuple[np.ndarray, np.ndarray]]  # by name: steps and status over `rates`
    ends: dict[str, float]  # by name: lowest final loss
    rates: np.ndarray


def compute(config: Config) -> Result:
    t_u, t_c = jf.datasets.thermometer()
    data, loss = (0.1 * t_u, t_c), jf.losses.mse(jf.models.line)
    rows = np.stack([data[0], np.ones(11)], axis=1)
    optimum = np.linalg.lstsq(rows, t_c, rcond=None)[0]
    least = float(np.mean((rows @ optimum - t_c) ** 2))
    curvatures, directions = np.linalg.eigh(2 * rows.T @ rows / 11)

    def run(optimizer) -> Any:
        record = jf.Record(what=("loss", "params"))
        return jf.fit(loss, START, data, optimizer=optimizer, steps=SWING, record=record)

    forgetful, plain = run(optax.sgd(1e-2, momentum=config.kept)), run(jf.optimizers.sgd(1e-2))
    swinging = np.arccos(1 - 1e-2 * curvatures / 2)
    swing = np.cos((np.arange(SWING + 1)[:, None] + 0.5) * swinging) / np.cos(swinging / 2)
    away = (np.array([1.0, 0.0]) - optimum) @ directions
    gradient = jax.jit(jax.grad(loss))
    whole, twice = gradient(START, *data), jax.tree.map(np.add, gradient(START, *data), gradient(START, *data))
    updates, fresh = adam(loss, data)
    swept = {name: sweep(loss, data, name, config.rates, 1.01 * least) for name in config.names}
    halves, between = by_halves(loss, tuple(part[:10] for part in data))
    return Result(
        updates=updates,
        fresh=fresh,
        forgetful=history(forgetful),
        plain=history(plain),
        losses=(np.asarray(forgetful.history.loss), np.asarray(plain.history.loss)),
        law=optimum + (away * swing) @ directions.T,
        optimum=optimum,
        least=least,
        curvatures=curvatures,
        twice=(np.array(pair(whole)), np.array(pair(twice))),
        halves=halves,
        between=between,
        first={name: first_step(loss, data, name) for name in config.names},
        arrived={name: (results.steps.values, results.status.values) for name, results in swept.items()},
        ends={name: float(np.nanmin(results.loss.values)) for name, results in swept.items()},
        rates=rates(config.rates),
    )


def adam(loss: Any, data: tuple) -> tuple[list[Update], tuple]:
    """Three updates, the state handed from each to the next."""
    optimizer = jf.optimizers.adam(RATE)
    fresh = optimizer.build().init(jax.tree.map(np.float32, START))
    params, opt_state, updates = START, None, []
    for _ in range(3):
        found = jf.step(loss, params, data, optimizer=optimizer, opt_state=opt_state)
        after, value, grads = found
        updates.append(Update(pair(params), float(value), pair(grads), pair(after), moments(found.opt_state)))
        params, opt_state = after, found.opt_state
    return updates, moments(fresh)


def moments(opt_state: Any) -> tuple[int, list[float], list[float]]:
    state = next(part for part in opt_state if hasattr(part, "mu"))
    return int(state.count), pair(state.mu), pair(state.nu)


def by_halves(loss: Any, data: tuple) -> tuple[tuple[list[float], list[float]], list[float]]:
    """One update of ten readings at once, and of five and five with their gradients accumulated."""
    sgd = jf.optimizers.sgd(1e-2)
    slowly = jf.optimizers.accumulated(sgd, every=2)
    once = jf.step(loss, START, data, optimizer=sgd)
    first = jf.step(loss, START, tuple(part[:5] for part in data), optimizer=slowly)
    rest = tuple(part[5:] for part in data)
    second = jf.step(loss, first.params, rest, optimizer=slowly, opt_state=first.opt_state)
    return (pair(once.params), pair(second.params)), pair(first.params)


def first_step(loss: Any, data: tuple, name: str) -> np.ndarray:
    params, _, _ = jf.step(loss, START, data, optimizer=getattr(jf.optimizers, name)(1e-2))
    return np.array(pair(params)) - [1.0, 0.0]


def rates(count: int) -> np.ndarray:
    return np.geomspace(1e-3, 30, count)


def sweep(loss: Any, data: tuple, name: str, count: int, small: float) -> Any:
    optimizer = getattr(jf.optimizers, name)(jf.Axis("learning_rate", rates(count)))
    return jf.sweep(loss, START, data, optimizer=optimizer, steps=20_000, stop=jf.Stop(loss_below=small)).results


def history(fit: Any) -> np.ndarray:
    return np.stack([fit.history.params["w"], fit.history.params["b"]], axis=1)


def pair(params: Any) -> list[float]:
    return [float(params["w"]), float(params["b"])]


def by_hand(gradients: list[list[float]]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Adam's moments and the sum of its steps: m, v and params - start after each of the gradients."""
    m, v, moved, found = np.zeros(2), np.zeros(2), np.zeros(2), []
    for k, gradient in enumerate(np.array(gradients), 1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        moved = moved - RATE * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
        found.append((m, v, moved))
    return found


def laws(curvature: float) -> dict[str, float]:
    """The largest learning rates of the optimizers that have one, on a bowl of this largest curvature."""
    return {
        "sgd": 2 / curvature,
        "momentum": 2 * (1 + 0.9) / curvature,
        "nesterov": 2 * (1 + 0.9) / (1 + 2 * 0.9) / curvature,
    }


def largest(result: Result, name: str) -> float:
    done = result.arrived[name][1] == jf.Status.CONVERGED
    return float(result.rates[done].max()) if done.any() else np.nan


def checks(result: Result) -> list[Check]:
    diagram, gathered, names = "DLWPT-F5.11, ", "DLWPT-5.5.1.acc, ", "DLWPT-5.5.2, "
    rows = [Check("init: count, moments", [0, 0, 0, 0, 0], flat(result.fresh), 0, diagram + "zeros")]
    steps = by_hand([update.gradient for update in result.updates])
    for k, (update, (m, v, moved)) in enumerate(zip(result.updates, steps, strict=True), 1):
        rows += [
            Check(f"update {k}: count", k, update.state[0], 0, diagram + "by hand"),
            Check(f"update {k}: first moments", m, np.array(update.state[1]), 1e-5 * abs(m), diagram + "by hand"),
            Check(f"update {k}: second moments", v, np.array(update.state[2]), 1e-5 * v, diagram + "by hand"),
            Check(
                f"update {k}: w and b after it", moved + [1.0, 0.0], np.array(update.after), 1e-5, diagram + "by hand"
            ),
        ]
    swinging = np.linalg.norm(result.forgetful - result.optimum, axis=1)
    rows += [
        Check("two calls, added: twice the gradient", 2 * result.twice[0], result.twice[1], 0, gathered + "sum"),
        Check("never set to zero: w and b of all updates", result.law, result.forgetful, 5e-3,
              gathered + "closed form"),
        Check("never set to zero: the largest distance of the last 100 updates is as large as at first", True,
              bool(swinging[-100:].max() > 0.95 * swinging[0]), source=gathered + "closed form"),
        Check("two halves: w and b stay after the first", [1.0, 0.0], result.between, 0, gathered + "accumulated"),
        Check("two halves: w and b after both", result.halves[0], result.halves[1], 1e-6, gathered + "all rows"),
        Check("classes of the text's list that have a name here", list(LISTED.values()),
              [name for name in LISTED.values() if name in dir(jf.optimizers)], source=names + "the print"),
    ]  # fmt: skip
    g = np.array(result.updates[0].gradient)
    firsts = {
        "sgd": -1e-2 * g,
        "momentum": -1e-2 * g,
        "nesterov": -1.9e-2 * g,
        "adam": -1e-2 * np.sign(g),
        "adagrad": -1e-2 * g / np.sqrt(0.1 + g**2),
        "rmsprop": -1e-2 * np.sign(g) / np.sqrt(0.1),
        "adamax": -1e-2 * np.sign(g),
        "lion": -1e-2 * (np.sign(g) + [1e-3, 0.0]),
        "rprop": -1e-2 * np.sign(g),
    }  # fmt: skip; lion also shrinks w = 1
    for name, found in result.first.items():
        if name in firsts:
            rows.append(Check(f"{name}: first step", firsts[name], found, 1e-5 * abs(firsts[name]) + 1e-7,
                              names + "by hand"))  # fmt: skip
        rows.append(Check(f"{name}: lowest loss", 1.005 * result.least, result.ends[name], 0.006 * result.least,
                          "DLWPT-5.8, least squares"))  # fmt: skip
    cell = result.rates[1] / result.rates[0]
    for name, law in laws(result.curvatures[-1]).items():
        if name in result.arrived:
            inside = largest(result, name) <= law <= largest(result, name) * cell
            rows.append(Check(f"{name}: the law lies within a cell above the last rate that arrives", True, inside,
                              source=names + "law"))  # fmt: skip
    return rows


def flat(state: tuple[int, list[float], list[float]]) -> list[float]:
    return [state[0], *state[1], *state[2]]


def draw(result: Result):
    return {"": draw_update(result), "accumulation": draw_accumulation(result), "names": draw_names(result)}


def draw_update(result: Result):
    figure, axes = plots.panels(
        "A", size=(11, 4.3), gridspec_kw={"top": 0.79, "left": 0.02, "right": 0.98, "bottom": 0.03}
    )
    figure.suptitle("What goes into an optimizer, and what comes out: Adam's first update", x=0.02, ha="left", y=0.98)
    text = "No function keeps a state: the caller holds it. A to D are the four panels of the text's figure."
    figure.text(0.02, 0.875, text, color="#555555")
    update, moved = result.updates[0], np.array(result.updates[0].after) - [1.0, 0.0]
    boxes = {
        "init": plots.Box(
            "A  init(params)",
            ["params: w = 1, b = 0", f"state: {told(result.fresh)}"],
            (0, 0),
            plots.BLUE,
        ),
        "loss": plots.Box("B  Loss of the data", [f"{update.loss:.4f}"], (1, 0), plots.BLUE),
        "grads": plots.Box(
            "C  Gradient",
            [f"by w: {minus(update.gradient[0])}", f"by b: {minus(update.gradient[1])}"],
            (2, 0),
            plots.RED,
        ),
        "update": plots.Box(
            "D  update(gradient, state)",
            [f"step of w: {minus(moved[0])}", f"step of b: {minus(moved[1])}"],
            (2, 1),
            plots.RED,
        ),
        "apply": plots.Box(
            "Params + step", [f"w = {update.after[0]:.4f}", f"b = {update.after[1]:.4f}"], (1, 1), plots.RED
        ),
        "next": plots.Box(
            "What the next update gets",
            [f"params: w = {update.after[0]:.1f}, b = {update.after[1]:.1f}", f"state: {told(update.state)}"],
            (0, 1),
            plots.BLUE,
        ),
    }
    arrows = [
        plots.Arrow("init", "loss", "params"),
        plots.Arrow("loss", "grads", "chain rule", plots.RED),
        plots.Arrow("grads", "update", "gradient", plots.RED),
        plots.Arrow("update", "apply", "step", plots.RED),
        plots.Arrow("apply", "next", "and the new state"),
        plots.Arrow("next", "loss", "next update", plots.BLUE),
    ]
    plots.flow(boxes, arrows, ax=axes["A"])
    return figure


def told(state: tuple[int, list[float], list[float]]) -> str:
    count, m, v = state
    rounded = [", ".join(minus(value, 1) if value else "0" for value in values) for values in (m, v)]
    return f"count {count}, m ({rounded[0]}), v ({rounded[1]})"


def minus(value: float, places: int = 4) -> str:
    return f"{value:.{places}f}".replace("-", "−")


def draw_accumulation(result: Result):
    space = {"wspace": 0.2, "top": 0.79, "left": 0.06, "right": 0.985, "bottom": 0.13}
    figure, axes = plots.panels([["path", "losses"]], size=(11, 5), gridspec_kw=space)
    figure.suptitle(
        "Gradients that are never set to zero act as a momentum of 1: the params oscillate for ever", x=0.06, ha="left"
    )
    text = "Readings / 10, rate 0.01. Circles: the law cos((k + 1/2) θ), cos θ = 1 − rate λ / 2, for every update k."
    figure.text(0.06, 0.885, text, color="#555555")
    ax = axes["path"]
    ax.plot(*result.forgetful.T, color=plots.RED, lw=0.9)
    ax.plot(*result.law.T, "o", mfc="none", mec=plots.RED, ms=3.4, mew=0.6)
    ax.plot(*result.plain.T, color=plots.BLUE, lw=2)
    ax.plot(*result.optimum, "x", color=plots.DARK, ms=8, mew=2, zorder=4)
    ax.set(xlabel="w", ylabel="b", title=f"{SWING} updates from w = 1, b = 0")
    ax.set(xlim=(-1.5, 12), ylim=(-39, 4))
    room = plots.Room(ax)
    red, blue = room.block(*result.forgetful.T), room.block(*result.plain.T)
    room.near(red, "added to all the old ones", color=plots.RED, prefer=(0.1, 0.1))
    room.near(blue, "set to zero", color=plots.BLUE, prefer=(0.9, 0.9))
    ax = axes["losses"]
    steps, styles = (
        np.arange(SWING + 1),
        (("added to all the old ones", plots.RED, 0.8), ("set to zero", plots.BLUE, 2)),
    )
    ax.set(yscale="log", ylim=(2, 260), xlim=(0, SWING), xlabel="updates", ylabel="loss", title="The loss")
    plots.few_ticks(ax.yaxis, [3, 10, 30, 100])
    for losses, (_, color, width) in zip(result.losses, styles, strict=True):
        ax.plot(steps, losses, color=color, lw=width)
    room = plots.Room(ax)
    paths = [room.block(steps, losses) for losses in result.losses]
    for path, (label, color, _) in zip(paths, styles, strict=True):
        room.near(path, label, color=color, prefer=(0.9, 1) if color == plots.RED else (0.05, 0.5))
    return figure


def draw_names(result: Result):
    count = len(result.arrived)
    figure, axes = plots.panels(
        "A", size=(10.5, 1.6 + 0.34 * count), gridspec_kw={"top": 0.84, "left": 0.12, "right": 0.98, "bottom": 0.09}
    )
    ax = axes["A"]
    figure.suptitle("Optimizers by name: the learning rates that converge", x=0.12, ha="left")
    text = "A line, readings / 10: within 1 % of the least loss in at most 20,000 updates. Dots: with the fewest."
    figure.text(0.12, 0.9, text, color="#555555")
    low, high = result.rates[0], result.rates[-1]
    ax.set(xscale="log", xlim=(low, high * 9), ylim=(count - 0.4, -0.6), xlabel="learning rate")
    plots.few_ticks(ax.xaxis, [1e-3, 1e-2, 0.1, 1, 10])
    ax.set_yticks(range(count), list(result.arrived))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    limits = laws(result.curvatures[-1])
    for row, (name, (steps, status)) in enumerate(result.arrived.items()):
        done = status == jf.Status.CONVERGED
        reached, fewest = result.rates[done], int(steps[done].min())
        color = plots.BLUE if name in LISTED.values() else plots.GREEN
        ax.plot(result.rates, np.where(done, row, np.nan), color=color, lw=6, alpha=0.3, solid_capstyle="butt")
        ax.plot(reached[np.argmin(steps[done])], row, "o", color=color, ms=6)
        words = f"{fewest:,} updates"
        if name in limits:
            ax.plot([limits[name]] * 2, [row - 0.38, row + 0.38], color=plots.RED, lw=1.8)
            words += f";  limit, by law: {plots.number(float(f'{limits[name]:.3g}'))}"
        ax.text(max(reached[-1], limits.get(name, 0)) * 1.25, row, words, va="center", color=plots.DARK, fontsize=9)
    figure.text(0.98, 0.9, "blue: in the text's list", color=plots.BLUE, ha="right")
    return figure
