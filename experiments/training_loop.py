"""Training repeats four operations: draw a batch, predict, compare, move the weights a little against the gradient.

Every number of one step is on the diagram, and every number is also computed by hand. The loop ends after a given
number of steps, when the loss is small enough, or when the params stop changing, which is not the same: when a step
moves them by less than 0.001 they are still 0.59 from where they are going, by the law change / (rate x lambda_min).
It starts from a random guess, and of sixteen guesses each arrives. Gradients of small batches scatter about the
gradient of all rows, by the law of sampling without replacement. The loop knows nothing of the model: the same call
fits a line and a network.

Source: Cai, Bileschi, Nielsen and Chollet, Deep Learning with JavaScript (2020), figure 2.6, whose box 2.2 only links
to introductions to backpropagation: the circuit (x + y) z at (-2, 5, -4), as such introductions have it, is checked
here; Chollet, Deep Learning with Python (2021), section 2.4; notes on backpropagation, section 1; Stevens, Antiga and
Viehmann, Deep Learning with PyTorch (2020), figure 5.2 and cells 15 and 16. Cost: some seconds on a CPU.
"""

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

START = {"w": 1.0, "b": 0.0}
RATE = 1e-2
SMALL_LOSS, SMALL_CHANGE, SMALL_ERROR = 3.0, 1e-3, 1e-2
SIZES = (1, 4, 8, 11)
PAIR = np.array([[0.5, -1.0]]), np.array([[1.0]])  # an input x and the answer y for the random guesses
KINDS = {"SGD": jf.optimizers.sgd, "Adam": jf.optimizers.adam}
NEURONS = jf.models.dense((2, 3, 1), "sigmoid")
NETWORK = jf.models.dense((1, 16, 1), "tanh")


@dataclass(frozen=True)
class Config:
    momentum: float = 0.0  # of the optimizer: plain gradient descent has none
    guesses: int = 16


SECONDS = 15
QUICK = {"guesses": 4}
BREAK = {"momentum": 0.5}
ROWS = dict.fromkeys(
    ("TFJS-F2.6", "DLWPT-F5.2", "DLWPT-In15", "CHOLLET-2.4.loop4", "CHOLLET-2.4.2", "TFJS-box2.2"), ""
) | dict.fromkeys(("CHOLLET-2.4.0", "CHOLLET-2.4.diff", "GD-1.1", "GD-1.4", "DLWPT-5.5.2.swap"), "guesses")


class Step(NamedTuple):
    """One step of the loop, by jf.step and by hand."""

    batch: tuple[np.ndarray, ...]  # (4,) readings / 10, (4,) degrees Celsius
    predictions: np.ndarray  # (4,)
    loss: tuple[float, float]  # by jf.step, by hand; so are the next two
    gradient: tuple[list[float], list[float]]
    after: tuple[list[float], list[float]]
    validation: tuple[float, float]  # the loss of the two readings held out, before and after


class Result(NamedTuple):
    step: Step
    run: Any  # 5,000 steps on all readings
    by_steps: np.ndarray  # (21,) losses of the first 20 steps, by calls of jf.step
    small_loss: Any  # stops when the loss is small
    small_change: Any  # stops when the params hardly change
    theory: dict[str, np.ndarray]  # of plain gradient descent, k = 0 .. 5,000: "loss", "change", "distance"
    law: float  # rate * lambda_min: what is left to go, times this, is the change
    full: float  # dL/dw of all readings at the start, by hand
    gradients: dict[int, np.ndarray]  # by batch size: dL/dw of every batch that there is
    guesses: dict[str, list]  # by optimizer: fits of a small network until |a - y| is small
    models: dict[str, tuple[Any, np.ndarray]]  # fit and predictions over `grid` of the same call
    grid: np.ndarray  # readings, in the unknown unit
    circuit: list[float]  # (x + y) z and its derivatives
    dense: dict[str, Any]  # what is checked of the dense layer and of its gradient


def compute(config: Config) -> Result:
    t_u, t_c = jf.datasets.thermometer()
    data = (0.1 * t_u, t_c)
    loss, optimizer = jf.losses.mse(jf.models.line), jf.optimizers.momentum(RATE, config.momentum)

    def train(**stop):
        record = jf.Record(what=("loss", "params"))
        return jf.fit(loss, START, data, optimizer=optimizer, steps=5000, stop=jf.Stop(**stop), record=record)

    theory, law = by_eigenvalues(data)
    params, opt_state, losses = START, None, []
    for _ in range(21):
        params, value, _ = turned = jf.step(loss, params, data, optimizer=optimizer, opt_state=opt_state)
        opt_state = turned.opt_state
        losses.append(float(value))
    return Result(
        step=one_step(loss, optimizer),
        run=train(),
        by_steps=np.array(losses),
        small_loss=train(loss_below=SMALL_LOSS),
        small_change=train(params_change_below=SMALL_CHANGE),
        theory=theory,
        law=law,
        full=float(np.mean(2 * (data[0] - t_c) * data[0])),
        gradients={size: of_all_batches(loss, data, size) for size in SIZES},
        guesses={name: guess(config.guesses, kind(4e-3)) for name, kind in KINDS.items()},
        models=swapped(t_u, t_c),
        grid=np.linspace(18, 86, 137),
        circuit=circuit(),
        dense=dense_layer(),
    )


def one_step(loss: Any, optimizer: Any) -> Step:
    train, held_out = ((0.1 * unknown, celsius) for unknown, celsius in jf.datasets.thermometer_split())
    x, y = batch = next(jf.datasets.batches(train, 4, 0))
    params, value, grads = jf.step(loss, START, batch, optimizer=optimizer)
    errors = START["w"] * x + START["b"] - y
    gradient = [float(np.mean(2 * errors * x)), float(np.mean(2 * errors))]
    return Step(
        batch=batch,
        predictions=np.asarray(jf.models.line(START, x)),
        loss=(float(value), float(np.mean(errors**2))),
        gradient=([float(grads["w"]), float(grads["b"])], gradient),
        after=([float(params["w"]), float(params["b"])], [START["w"] - RATE * gradient[0], -RATE * gradient[1]]),
        validation=(float(loss(START, *held_out)), float(loss(params, *held_out))),
    )


def by_eigenvalues(data: tuple) -> tuple[dict[str, np.ndarray], float]:
    """Plain gradient descent on all rows in closed form: a step shrinks each eigenvector's share by 1 - rate lambda."""
    rows = np.stack([data[0], np.ones(11)], axis=1)
    curvatures, directions = np.linalg.eigh(2 * rows.T @ rows / 11)
    optimum = np.linalg.lstsq(rows, data[1], rcond=None)[0]
    away = (np.array([1.0, 0.0]) - optimum) @ directions * (1 - RATE * curvatures) ** np.arange(5001)[:, None]
    least = np.mean((rows @ optimum - data[1]) ** 2)
    theory = {
        "loss": least + 0.5 * away**2 @ curvatures,
        "change": np.linalg.norm(RATE * curvatures * away, axis=1),
        "distance": np.linalg.norm(away, axis=1),
    }
    return theory, float(RATE * curvatures[0])


def of_all_batches(loss: Any, data: tuple, size: int) -> np.ndarray:
    """dL/dw of all batches of this size, each of different readings."""
    rows = np.array(list(itertools.combinations(range(len(data[0])), size)))
    each = jax.jit(jax.vmap(lambda x, y: jax.grad(loss)(START, x, y)["w"]))
    return np.asarray(each(data[0][rows], data[1][rows]))


def guess(count: int, optimizer: Any) -> list[Any]:
    """One pair (x, y), a network that guesses at random, and the loop until |a - y| is small."""
    loss, stop = jf.losses.mae(NEURONS), jf.Stop(loss_below=SMALL_ERROR)
    starts = [NEURONS.init(key) for key in range(count)]
    return [jf.fit(loss, start, PAIR, optimizer=optimizer, steps=1000, stop=stop) for start in starts]


def swapped(t_u: np.ndarray, t_c: np.ndarray) -> dict[str, tuple[Any, np.ndarray]]:
    """The same call for two models, on standardized readings and temperatures."""
    (x, scaler), (y, back) = jf.datasets.standardize(t_u), jf.datasets.standardize(t_c)
    grid, found = np.linspace(18, 86, 137), {}
    for name, model in (("line", jf.models.line), ("network", NETWORK)):
        loss, optimizer = jf.losses.mse(model), jf.optimizers.adam(1e-2)
        fit = jf.fit(loss, model.init(0), (x, y), optimizer=optimizer, steps=3000)
        found[name] = fit, back.undo(np.asarray(model(fit.params, scaler.apply(grid))))
    return found


def circuit() -> list[float]:
    values, derivatives = jax.value_and_grad(lambda v: (v["x"] + v["y"]) * v["z"])({"x": -2.0, "y": 5.0, "z": -4.0})
    return [float(values), *(float(derivatives[name]) for name in "xyz")]


def dense_layer() -> dict[str, Any]:
    """A layer relu(x W + b) as the first of a network, its random start, and the gradient of all its params at once."""
    x, y = np.array([[1.0, -2.0, 0.5], [0.3, 0.8, -1.0]]), np.array([[1.0], [-1.0]])
    relu, smooth = jf.models.dense((3, 4, 1), "relu"), jf.models.dense((3, 4, 1), "tanh")
    start = relu.init(7)
    after, _, grads = jf.step(
        jf.losses.mse(smooth), start, (x, y), optimizer=jf.optimizers.sgd(0.1), precision="float64"
    )
    small = 1e-5 * np.eye(21)

    def loss(params):
        return np.mean((layers(params, x, np.tanh) - y) ** 2)

    wide = jf.models.dense((400, 400, 1), "relu").init(0)[0]
    return {
        "answer": (layers(flat(start), x, lambda h: np.maximum(h, 0)), np.asarray(relu(start, x))),
        "spread": float(np.std(wide["w"])),
        "biases": float(np.max(abs(np.asarray(wide["b"])))),
        "differences": np.array([(loss(flat(start) + e) - loss(flat(start) - e)) / 2e-5 for e in small]),
        "gradient": flat(grads),
        "moved": (flat(start) - 0.1 * flat(grads), flat(after)),
        "shapes": jax.tree.map(np.shape, grads) == jax.tree.map(np.shape, start),
    }


def error_by_hand(params: Any) -> float:
    """|a - y| of the small network, written out."""
    (first, second), (x, y) = params, PAIR
    hidden = 1 / (1 + np.exp(-(x @ np.asarray(first["w"]) + np.asarray(first["b"])[None])))
    return float(np.max(abs(hidden @ np.asarray(second["w"]) + np.asarray(second["b"])[None] - y)))


def flat(params: Any) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(leaf, float)) for leaf in jax.tree.leaves(params)])


def layers(params: np.ndarray, x: np.ndarray, activation: Any) -> np.ndarray:
    """The network of widths 3, 4, 1, written out; the params as `flat` has them, each layer's b before its w."""
    b1, w1, b2, w2 = np.split(params, [4, 16, 17])
    return activation(x @ w1.reshape(3, 4) + b1) @ w2.reshape(4, 1) + b2


def checks(result: Result) -> list[Check]:
    return [
        *checks_of_the_step(result),
        *checks_of_the_end(result),
        *checks_of_batches(result),
        *checks_of_models(result),
    ]


def checks_of_the_step(result: Result) -> list[Check]:
    step, row = result.step, "TFJS-F2.6, by hand"
    x, _ = step.batch
    return [
        Check("one step: predictions", x, step.predictions, 1e-6, row),
        Check("one step: loss", step.loss[1], step.loss[0], 1e-5 * step.loss[1], row),
        Check("one step: gradient by w and b", step.gradient[1], step.gradient[0], 1e-4, row),
        Check("one step: w and b after it", step.after[1], step.after[0], 1e-5, row),
        Check("readings held out: their loss falls too", True, step.validation[1] < step.validation[0],
              source="DLWPT-F5.2"),
        Check("x + y times z at (-2, 5, -4), and its derivatives", [-12, -4, -4, 3], result.circuit, 1e-6,
              "TFJS-box2.2, by hand"),
        Check("the gradient has the shapes of the params", True, result.dense["shapes"], source="CHOLLET-2.4.2"),
    ]  # fmt: skip


def checks_of_the_end(result: Result) -> list[Check]:
    theory, loss = result.theory, np.asarray(result.run.history.loss)
    small_loss = int(np.argmax(theory["loss"] < SMALL_LOSS))
    small_change = int(np.argmax(theory["change"] < SMALL_CHANGE)) + 1  # the update has been made when it is judged
    left = theory["distance"][small_change]
    params = result.small_change.params
    here = np.array([float(params["w"]), float(params["b"])])
    end = np.array([float(result.run.params["w"]), float(result.run.params["b"])])
    row = "DLWPT-In15, "
    return [
        Check("losses of the first 20 steps, fit against calls of step", result.by_steps, loss[:21], 2e-5,
              row + "a loop by hand"),
        Check("losses of all steps", theory["loss"], loss, 1e-4, row + "closed form"),
        Check("5,000 steps: how it ended", "OUT_OF_STEPS", result.run.status.name, source=row + "a fixed count"),
        Check("loss below 3: steps", small_loss, result.small_loss.steps, 1, "CHOLLET-2.4.loop4, closed form"),
        Check("loss below 3: how it ended", "CONVERGED", result.small_loss.status.name, source="CHOLLET-2.4.loop4"),
        Check("params change by less than 0.001: steps", small_change, result.small_change.steps, 4,
              row + "closed form"),
        Check("what is left to go then", SMALL_CHANGE / result.law, left, 2e-3, row + "change / (rate lambda_min)"),
        Check("what is left to go then, of the runs", left, float(np.linalg.norm(here - end)), 0.01, row + "runs"),
    ]  # fmt: skip


def checks_of_batches(result: Result) -> list[Check]:
    law, mean = scatter(result.gradients[1]), result.full
    return [
        check
        for size, values in result.gradients.items()
        for check in (
            Check(f"all {len(values)} batches of {size}: mean gradient", mean, float(np.mean(values)), 1e-3,
                  "TFJS-F2.6, unbiased"),
            Check(f"all {len(values)} batches of {size}: scatter of the gradient", law[size], float(np.std(values)),
                  1e-3, "TFJS-F2.6, sampling without replacement"),
        )
    ]  # fmt: skip


def scatter(rows: np.ndarray) -> dict[int, float]:
    """The standard deviation of the mean of m of n rows without replacement: s / sqrt(m) * sqrt((n - m) / (n - 1))."""
    n, s = len(rows), float(np.std(rows))
    return {m: s * ((n - m) / (n - 1) / m) ** 0.5 for m in SIZES}


def checks_of_models(result: Result) -> list[Check]:
    dense, guesses = result.dense, result.guesses
    arrived = {name: sum(fit.status == jf.Status.CONVERGED for fit in fits) for name, fits in guesses.items()}
    by_sgd, count = guesses["SGD"], len(guesses["SGD"])
    (by_hand, answer), (moved, after) = dense["answer"], dense["moved"]
    correlation = np.corrcoef(*jf.datasets.thermometer())[0, 1]
    line, network = (fit for fit, _ in result.models.values())
    return [
        Check("dense layer: relu(x W + b), then the next", by_hand, answer, 1e-5, "CHOLLET-2.4.0, by hand"),
        Check("its random weights: standard deviation", (2 / 400) ** 0.5, dense["spread"], 5e-4,
              "CHOLLET-2.4.0, 2 / inputs"),
        Check("its biases at the start", 0.0, dense["biases"], 0, "CHOLLET-2.4.0"),
        Check("gradient through two layers, all 21 params", dense["differences"], dense["gradient"], 1e-8,
              "CHOLLET-2.4.diff, differences"),
        Check("one update moves all of them", moved, after, 1e-12, "CHOLLET-2.4.diff, params - rate x gradient"),
        Check("random guesses: different losses at the start", count, len({float(fit.start_loss) for fit in by_sgd}),
              0, "GD-1.1"),
        Check("guesses that arrive at |a - y| < 0.01, by SGD", count, arrived["SGD"], 0, "GD-1.1"),
        Check("the same, by Adam", count, arrived["Adam"], 0, "GD-1.4"),
        Check("by SGD |a - y| falls in every step", True,
              all(np.all(np.diff(fit.history.loss) < 0) for fit in by_sgd), source="GD-1.1"),
        Check("|a - y| at the end, by hand", np.array([error_by_hand(fit.params) for fit in by_sgd]),
              np.array([float(fit.loss) for fit in by_sgd]), 2e-6, "GD-1.1, by hand"),
        Check("line on standardized readings: loss", 1 - correlation**2, float(line.loss), 1e-6,
              "DLWPT-5.5.2.swap, 1 - r squared"),
        Check("a network by the same call: its loss is lower", True, float(network.loss) < 0.6 * float(line.loss),
              source="DLWPT-5.5.2.swap"),
    ]  # fmt: skip


def draw(result: Result):
    return {"": draw_loop(result), "guesses": draw_guesses(result)}


def draw_loop(result: Result):
    space = {"hspace": 0.3, "wspace": 0.2, "top": 0.87, "left": 0.06, "right": 0.98, "bottom": 0.07}
    figure, axes = plots.panels(
        [["step", "step"], ["end", "batches"]], size=(11, 8.2), height_ratios=[0.85, 1], gridspec_kw=space
    )
    figure.suptitle("The training loop: one step in numbers, and how it ends", x=0.06, ha="left")
    text = "A line w x + b through the mystery thermometer, readings / 10, rate 0.01: the first step, on 4 readings."
    figure.text(0.06, 0.925, text, color="#555555")
    draw_step(result.step, axes["step"])
    draw_end(result, axes["end"])
    draw_batches(result, axes["batches"])
    return figure


def draw_step(step: Step, ax) -> None:
    x, y = step.batch
    (w, b), (gw, gb) = step.after[0], step.gradient[0]
    errors = step.predictions - y
    boxes = {
        "batch": plots.Box("1  Draw a batch", ["x = " + listed(x), "y = " + listed(y)], (0, 0), plots.BLUE),
        "forward": plots.Box(
            "2  Forward: w x + b", ["w = 1,  b = 0", "prediction = " + listed(step.predictions)], (1, 0), plots.BLUE
        ),
        "loss": plots.Box(
            "3  Compare with y",
            ["error = " + listed(errors), f"mean of squares = {step.loss[0]:.2f}"],
            (2, 0),
            plots.RED,
        ),
        "backward": plots.Box(
            "4  Backward: the gradient",
            [f"mean of 2 error x = {signed(gw)}", f"mean of 2 error = {signed(gb)}"],
            (2, 2),
            plots.RED,
        ),
        "update": plots.Box(
            "    and move a little against it",
            [f"w = 1 − 0.01 × ({signed(gw)}) = {w:.4f}", f"b = 0 − 0.01 × ({signed(gb)}) = {b:.4f}"],
            (1, 2),
            plots.RED,
        ),
        "validation": plots.Box(
            "2 readings held out",
            [f"their loss: {step.validation[0]:.1f}, now {step.validation[1]:.1f}", "watched, never trained on"],
            (0, 2),
            "#777777",
        ),
    }
    arrows = [
        plots.Arrow("batch", "forward", "x"),
        plots.Arrow("forward", "loss", "predictions"),
        plots.Arrow("loss", "backward", "chain rule", plots.RED),
        plots.Arrow("backward", "update", "gradient", plots.RED),
        plots.Arrow("update", "forward", "next step, with the new w and b", plots.BLUE),
        plots.Arrow("update", "validation", "w, b", dashed=True),
    ]
    plots.flow(boxes, arrows, ax=ax)


def signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def listed(values: np.ndarray) -> str:
    return ",  ".join(f"{value:.4g}" for value in values).replace("-", "−")


def draw_end(result: Result, ax) -> None:
    ax.set_prop_cycle(color=[plots.BLUE])
    history = result.run.history
    plots.loss_history({"": (history.step, history.loss)}, ax=ax)
    ax.set(xlim=(-0.1, 9000), ylim=(2, 200), title="Three ways to end the loop", xlabel="steps")
    ax.axhline(result.theory["loss"][-1], color=plots.GREY, lw=0.9, ls=(0, (4, 3)))
    room = plots.Room(ax)
    room.block(history.step, history.loss)
    room.block([0, 5000], [result.theory["loss"][-1]] * 2)
    left = result.theory["distance"][result.small_change.steps]
    ends = {
        f"loss below 3:\n{result.small_loss.steps:,} steps": (result.small_loss, plots.GREEN, (0.8, 0.35)),
        f"change below 0.001: {result.small_change.steps:,} steps,\nwith {left:.2f} left to go": (
            result.small_change,
            plots.RED,
            (0.85, 0),
        ),
        "a fixed count:\n5,000 steps": (result.run, plots.BLUE, (1, 0.4)),
    }
    for label, (fit, color, where) in ends.items():
        ax.plot(fit.steps, fit.loss, "o", color=color, ms=7, mec="white", zorder=3)
        room.near(room.block(fit.steps, fit.loss, width=10), label, color=color, prefer=where, fontsize=9)


def draw_batches(result: Result, ax) -> None:
    """The gradients of random batches, a strip for each size, and the law of their scatter."""
    law = scatter(result.gradients[1])
    ax.set(xlim=(-500, 90), ylim=(-0.6, 3.6), xlabel="dL/dw of a batch at w = 1, b = 0", yticks=[])
    ax.set_title("The smaller the batch, the wider its gradient scatters")
    ax.spines["left"].set_visible(False)
    ax.axvline(result.full, color=plots.GREY, lw=0.9, ls=(0, (4, 3)), zorder=0)
    for height, (size, values) in enumerate(reversed(result.gradients.items())):
        jitter = 0.34 * ((np.arange(len(values)) * 0.6180339887) % 1 - 0.5) * (len(values) > 11)
        ax.plot(values, height + jitter, "o", color=plots.BLUE, ms=3 if len(values) > 11 else 5, alpha=0.6, mew=0)
        ax.plot([result.full - law[size], result.full + law[size]], [height - 0.3] * 2, color=plots.RED, lw=2.2)
        words = f"{len(values)} batches of {size}\n± {law[size]:.1f}" if size < 11 else "all 11 readings:\nno scatter"
        ax.text(-495, height, words, color=plots.DARK, va="center")
    ax.text(result.full + law[1] + 6, 2.7, "± the law", color=plots.RED, va="center")


def draw_guesses(result: Result):
    space = {"wspace": 0.18, "top": 0.8, "left": 0.06, "right": 0.98, "bottom": 0.12}
    figure, axes = plots.panels([["guesses", "models"]], size=(11, 4.9), gridspec_kw=space)
    figure.suptitle("The same loop works from any start, and for any model", x=0.06, ha="left")
    count = len(result.guesses["SGD"])
    text = (
        f"Left: one pair (x, y) and a network of 13 weights from {count} random guesses. "
        "Right: one call of fit, with two models."
    )
    figure.text(0.06, 0.895, text, color="#555555")
    ax = axes["guesses"]
    ax.set(xlabel="steps", ylabel="|a − y|", title=f"{count} guesses, all of them reach 0.01")
    for (name, fits), color, height in zip(
        result.guesses.items(), (plots.BLUE, plots.ORANGE), (0.9, 0.82), strict=True
    ):
        for fit in fits:
            ax.plot(fit.history.step, fit.history.loss, color=color, lw=1, alpha=0.8)
        ax.text(0.97, height, f"by {name}", color=color, transform=ax.transAxes, ha="right")
    ax.set(xlim=(0, None), ylim=(0, None))
    draw_models(result, axes["models"])
    return figure


def draw_models(result: Result, ax) -> None:
    t_u, t_c = jf.datasets.thermometer()
    ax.plot(t_u, t_c, "o", color=plots.DARK, ms=5, zorder=3)
    ax.set(xlim=(18, 86), ylim=(-9, 33), xlabel="reading, unknown unit", ylabel="temperature, °C")
    ax.set_title("The same loop trains a line and a network")
    colors = {"line": plots.BLUE, "network": plots.GREEN}
    for name, (_, curve) in result.models.items():
        ax.plot(result.grid, curve, color=colors[name])
    places = {"line": ("line", (35.4, 7.4)), "network": ("network of 49 weights", (60.4, 0.1))}
    for name, (fit, _) in result.models.items():
        loss, (words, place) = float(fit.loss) * float(np.var(t_c)), places[name]
        ax.text(*place, f"{words}: loss {loss:.2f}", color=colors[name], ha="center", va="center")
