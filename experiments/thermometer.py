"""The mystery thermometer reads Fahrenheit: a line through 11 readings shows it, at a suitable learning rate.

With a learning rate of 0.01 the line runs off to infinity in ten updates; with 0.0001 it stalls; with 0.01 on readings
divided by ten, or with Adam, it arrives. Every number that the book prints of these runs is met.

Source: Stevens, Antiga and Viehmann, Deep Learning with PyTorch (2020), chapter 5. Its epoch e prints the loss and the
gradient of step e - 1, before an update, and the params after it. Cost: some seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

from .published import check, published

START = {"w": 1.0, "b": 0.0}
EVERYTHING = jf.Record(what=("loss", "params", "gradient"))


@dataclass(frozen=True)
class Config:
    precision: str = "float32"  # the book's: in float64 the run-off reaches infinity 77 updates later


QUICK = {}
BREAK = {"precision": "float64"}
ROWS = dict.fromkeys(
    (
        "DLWPT-Out6", "DLWPT-Out17", "DLWPT-Out18", "DLWPT-Out20", "DLWPT-Out21", "DLWPT-F5.9", "DLWPT-5.4.4",
        "DLWPT-5.5.1", "DLWPT-Out10.autograd", "DLWPT-Out7.sgd", "DLWPT-Out8.sgd", "DLWPT-Out10.sgd",
        "DLWPT-Out11.adam", "DLWPT-Out15",
    ),
    "",
)  # fmt: skip


Run = Any  # a jf.Fit with its history


class Result(NamedTuple):
    precision: str
    readings: tuple[np.ndarray, np.ndarray]  # (11,) in the unknown unit, (11,) in degrees Celsius
    run_off: Run  # learning rate 0.01, raw readings
    beyond: dict  # its params one update after it stopped
    stalled: Run  # learning rate 0.0001, raw readings
    rescaled: Run  # learning rate 0.01, readings / 10
    adam: Run  # learning rate 0.1, raw readings
    held_out: Run  # as rescaled, on 9 readings, watched on 2
    small_step: dict  # params after one update of 0.00001, raw readings
    growth: float  # of the loss in one update of the run-off, by theory


def compute(config: Config) -> Result:
    t_u, t_c = jf.datasets.thermometer()
    train, validation = ((0.1 * unknown, celsius) for unknown, celsius in jf.datasets.thermometer_split())
    loss = jf.losses.mse(jf.models.line)

    def fit(data, optimizer, steps, **options):
        return jf.fit(loss, START, data, optimizer=optimizer, steps=steps, precision=config.precision, **options)

    def step(params, data, rate):
        return jf.step(loss, params, data, optimizer=jf.optimizers.sgd(rate), precision=config.precision)[0]

    run_off = fit((t_u, t_c), jf.optimizers.sgd(1e-2), 100, record=EVERYTHING)
    return Result(
        precision=config.precision,
        readings=(t_u, t_c),
        run_off=run_off,
        beyond=step(run_off.params, (t_u, t_c), 1e-2),
        stalled=fit((t_u, t_c), jf.optimizers.sgd(1e-4), 100, record=EVERYTHING),
        rescaled=fit((0.1 * t_u, t_c), jf.optimizers.sgd(1e-2), 5000, record=EVERYTHING),
        adam=fit((t_u, t_c), jf.optimizers.adam(0.1), 2000),
        held_out=fit(train, jf.optimizers.sgd(1e-2), 3000, validation=validation),
        small_step=step(START, (t_u, t_c), 1e-5),
        growth=(1 - 1e-2 * sharpness(t_u)) ** 2,
    )


def sharpness(x: np.ndarray) -> float:
    """The largest eigenvalue of the Hessian of a line's mean squared error, 2 X'X / n with rows (x, 1) in X."""
    rows = np.stack([x, np.ones_like(x)], axis=1)
    return float(np.linalg.eigvalsh(2 * rows.T @ rows / len(x))[-1])


def checks(result: Result) -> list[Check]:
    def printed(name, measured, what):
        return check(f"DLWPT-{name}", measured, what, precision=result.precision)

    def log(output, fit, epochs, what):
        """The book's log: loss and gradient before the update of an epoch, params after it."""
        for epoch in epochs:
            yield printed(f"{output}.e{epoch}.loss", fit.history.loss[epoch - 1], f"{what}, epoch {epoch}: loss")
            gradient = pair(at(fit.history.gradient, epoch - 1))
            yield printed(f"{output}.e{epoch}.grad", gradient, f"{what}, epoch {epoch}: gradient")
            after = result.beyond if epoch == fit.steps + 1 else at(fit.history.params, epoch)
            yield printed(f"{output}.e{epoch}.params", pair(after), f"{what}, epoch {epoch}: params")

    def losses(output, fit, epochs, what):
        for epoch in epochs:
            yield printed(f"{output}.e{epoch}", fit.history.loss[epoch - 1], f"{what}, epoch {epoch}: loss")

    run_off, stalled, rescaled, adam, held_out = result[2], *result[4:8]
    early, late = (1, 2, 3, 10, 11), (1, 2, 3, 10, 11, 99, 100)
    every_500 = range(500, 5001, 500)
    first = pair(at(run_off.history.gradient, 0))
    rows = [
        printed("Out6", run_off.history.loss[0], "loss at the start"),
        printed("Out7b.grad", first, "gradient at the start"),
        printed("5.4.4.ratio", first[0] / first[1], "how much steeper w is than b, raw"),
        printed("Out7.sgdstep", pair(result.small_step), "one update of 0.00001, raw"),
        printed("Out8.sgdstep", pair(at(rescaled.history.params, 1)), "one update of 0.01, readings / 10"),
        *log("Out17", run_off, early, "rate 0.01, raw"),
        Check("rate 0.01, raw: outcome", "DIVERGED", run_off.status.name),
        Check("rate 0.01, raw: updates until the loss is infinite", 10, run_off.steps, source="DLWPT-Out17"),
        Check("rate 0.01, raw: growth of the loss in an update", result.growth, growth(run_off), 0.01, "theory"),
        *log("Out18", stalled, late, "rate 0.0001, raw"),
        printed("Out18.final", pair(stalled.params), "rate 0.0001, raw: returned params"),
        *log("Out20", rescaled, late, "rate 0.01, readings / 10"),
        *losses("Out21", rescaled, (4000, 5000), "rate 0.01, readings / 10"),
        printed("Out21.params", pair(rescaled.params), "rate 0.01, readings / 10: params after 5,000 epochs"),
        *losses("Out10.autograd", rescaled, every_500, "the same, by autograd"),
        *losses("Out10.sgd", rescaled, every_500, "the same, by the optimizer"),
        *losses("Out11.adam", adam, (500, 1000, 1500, 2000), "Adam 0.1, raw"),
        printed("Out11.adam.params", pair(adam.params), "Adam 0.1, raw: params after 2,000 epochs"),
    ]
    fahrenheit = np.polyfit([3.2, 21.2], [0.0, 100.0], 1).tolist()  # readings / 10 where water freezes and boils
    rows.append(printed("5.4.4.true", fahrenheit, "Fahrenheit / 10 to Celsius"))
    slope, intercept = np.polyfit(0.1 * result.readings[0], result.readings[1], 1)
    line = [float(slope), float(intercept)]
    rows.append(Check("the line of least squares", line, pair(rescaled.params), 6e-3, "DLWPT-F5.9, closed form"))
    for epoch in (1, 2, 3, *range(500, 3001, 500)):
        both = [held_out.history.loss[epoch - 1], held_out.history.validation_loss[epoch - 1]]
        rows.append(printed(f"Out15.e{epoch}", both, f"9 readings, 2 held out, epoch {epoch}: both losses"))
    return [*rows, printed("Out15.params", pair(held_out.params), "9 readings: params after 3,000 epochs")]


def at(history: dict, step: int) -> dict:
    return {name: values[step] for name, values in history.items()}


def pair(params: dict) -> list[float]:
    return [float(params["w"]), float(params["b"])]


def growth(fit: Run) -> float:
    """By how much the last finite update multiplied the loss."""
    finite = np.asarray(fit.history.loss, float)
    finite = finite[np.isfinite(finite)]
    return float(finite[-1] / finite[-2])


def draw(result: Result):
    space = {"hspace": 0.4, "wspace": 0.2, "top": 0.87, "left": 0.07, "right": 0.97, "bottom": 0.07}
    figure, axes = plots.panels([["data", "run-off"], ["arrive", "held out"]], size=(11, 8.2), gridspec_kw=space)
    figure.suptitle(
        "The mystery thermometer reads Fahrenheit: the fit shows it, at a suitable learning rate", x=0.07, ha="left"
    )
    figure.text(0.07, 0.925, "Lines: these runs. Circles: the numbers the book prints of them.", color="#555555")

    ax = axes["data"]
    ax.set_prop_cycle(color=["#86b2d6", "#5f9bcb", "#2f83c0", plots.BLUE, plots.RED])
    ax = plots.line_fit(*result.readings, lines(result), ax=ax)
    ax.set(
        title="Readings / 10, rate 0.01: the line after 10 to 5,000 updates",
        xlabel="reading, unknown unit",
        ylabel="temperature, °C",
    )

    ax = axes["run-off"]
    ax.set_prop_cycle(color=[plots.PINK, plots.ORANGE])
    runs = {"0.01, raw: infinite after 10 updates": result.run_off, "0.0001, raw": upto(result.stalled, 10)}
    ax = plots.loss_history(runs, ax=ax)
    ax.set_title(f"Rate 0.01 on raw readings: {growth(result.run_off):,.0f}-fold in every update")
    mark(ax, "Out17", (1, 2, 3, 10), "{}.loss")
    largest = float(np.finfo(result.precision).max)
    ax.axhline(largest, color=plots.GREY, lw=0.9, ls=(0, (4, 3)))
    ax.text(0, largest / 30, f"the largest {result.precision}", color=plots.GREY, va="top")

    ax = axes["arrive"]
    ax.set_prop_cycle(color=[plots.ORANGE, plots.BLUE, plots.GREEN])
    runs = {"0.0001, raw: stalls": result.stalled, "0.01, readings / 10": result.rescaled, "Adam 0.1, raw": result.adam}
    ax = plots.loss_history(runs, ax=ax)
    ax.set_title("With readings / 10, or with Adam, it converges")
    mark(ax, "Out18", (1, 2, 3, 10, 11, 99, 100), "{}.loss")
    mark(ax, "Out10.sgd", range(500, 5001, 500))
    mark(ax, "Out11.adam", range(500, 2001, 500))

    ax = axes["held out"]
    ax.set_prop_cycle(color=[plots.BLUE, plots.RED])
    history, epochs = result.held_out.history, (1, 2, 3, *range(500, 3001, 500))
    runs = {"9 readings it is fitted to": history.loss, "2 readings it never sees": history.validation_loss}
    ax = plots.loss_history({label: (history.step, loss) for label, loss in runs.items()}, ax=ax)
    ax.set_title("Readings it never sees are fitted as well")
    for which in range(2):
        mark(ax, "Out15", epochs, which=which)
    return figure


def lines(result: Result) -> dict[str, tuple[float, ...]]:
    """The rescaled run's line after some updates, and the truth, over raw readings."""
    rescaled = result.rescaled.history.params
    shown = {}
    for step in (10, 100, 1000, 5000):
        w, b = pair(at(rescaled, step))
        shown[f"{step:,} updates" if step < 5000 else f"5,000: {w / 10:.4f} t − {-b:.2f}"] = (w / 10, b)
    return shown | {"Fahrenheit: 5/9 (t − 32)": (5 / 9, -160 / 9)}


def upto(fit: Run, step: int) -> tuple[np.ndarray, np.ndarray]:
    return fit.history.step[: step + 1], fit.history.loss[: step + 1]


def mark(ax, output: str, epochs, form: str = "{}", which: int | None = None) -> None:
    """Circles at the losses that the book prints."""
    losses = [published(f"DLWPT-{output}." + form.format(f"e{epoch}")).printed for epoch in epochs]
    losses = losses if which is None else [both[which] for both in losses]
    ax.plot([epoch - 1 for epoch in epochs], losses, "o", mfc="white", mec=plots.DARK, ms=4.5, mew=0.9, zorder=3)
