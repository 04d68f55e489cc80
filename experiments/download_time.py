"""A file's size tells its download time: a descent on a loss of absolute errors, and four learning rates that fail.

The line kernel * size + bias, fitted to 20 files by the mean absolute error, from kernel = bias = 0 with a rate of
0.0005 as the book's figures are (its text speaks of random starts and TensorFlow.js' own rate, 0.01). The first 50
epochs fall straight, since every file takes longer than the line says and the gradient does not change; then the path
bends and creeps along the valley. The surface of figure 2.5 is that of the 20 test files on five rows of biases, the
path that of the training files; both are shown on a fine grid. The lowest point printed there is the lowest of that
coarse grid, and also the rounded optimum of the training files. A file of no size takes 0.079 s, where the text says
about 0.10. Too large a rate does not lead to infinity or NaN with this loss, whose gradient is bounded: at 0.5 the run
goes to and fro for ever. With squared errors it does, as the text says, above 0.0464: at 0.5 the loss is infinite after
15 epochs, kernel and bias after 31, and the update after that is infinity minus infinity. The arrow of figure 2.8 is a
sketch; here it is an update of 0.05.

Source: Cai, Bileschi, Nielsen and Chollet, Deep Learning with JavaScript (2020), section 2.2. Cost: seconds on a CPU.
"""

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

from .published import check, published

RATE, EPOCHS = 5e-4, 200
SHOWN = (20, 100, 200)
CORNER = {"w": 0.1, "b": 0.1}  # where figure 2.8 starts
WINDOW = {"w": (-0.05, 0.15), "b": (-0.1, 0.14)}  # of figure 2.5


@dataclass(frozen=True)
class Config:
    part: str = "train"  # the files that are fitted
    starts: int = 1000  # at random
    rates: int = 81
    cells: int = 241  # of the surfaces, each way


SECONDS = 18
QUICK = {"starts": 64, "rates": 21, "cells": 61}
BREAK = {"part": "test"}
ROWS = {
    "TFJS-F2.7A": "", "TFJS-F2.7B": "", "TFJS-F2.7C": "", "TFJS-2.2.intercept": "",
    "TFJS-F2.5": "surface", "TFJS-2.2.gradient": "surface",
    "TFJS-2.2.1": "rates", "TFJS-2.2.init": "rates", "TFJS-2.2.steps": "rates", "TFJS-F2.8": "rates",
}  # fmt: skip


class Result(NamedTuple):
    train: tuple[np.ndarray, np.ndarray]  # (20,) megabytes, (20,) seconds
    test: tuple[np.ndarray, np.ndarray]
    surfaces: dict[
        str, Any
    ]  # "train", "test": the loss over the window; "coarse": as the book draws it; "wide", "near"
    descent: Any  # a fit: 200 epochs from (0, 0)
    seen: np.ndarray  # (201,) the loss on the test files along it
    gradients: dict[str, np.ndarray]  # by place, (2,)
    compass: Any  # the loss on a circle around (0, 0), over the direction
    starts: Any  # Dataset over seed: 200 epochs at 0.01, the loss every 10
    rates: Any  # Dataset over learning_rate: 200 epochs from (0, 0)
    overshoot: Any  # a fit: from (0.1, 0.1) with 0.05
    cycle: Any  # a fit: from (0.1, 0.1) with 0.5, absolute errors
    blow_up: Any  # a fit: the same with squared errors
    no_params: int  # epochs until the params of that run, led on, are infinite
    limit: float  # of the rate with squared errors, 2 / lambda_max


def compute(config: Config) -> Result:
    train, test = jf.datasets.download_time(config.part), jf.datasets.download_time("test")
    mae, mse = jf.losses.mae(jf.models.line), jf.losses.mse(jf.models.line)
    zero = {"w": 0.0, "b": 0.0}
    record = jf.Record(what=("loss", "params"))

    def surface(data, w, b, **options):
        return jf.surface(mae, {"w": jf.Axis("w", w), "b": jf.Axis("b", b)}, data, **options)

    def fit(start, rate, steps, loss=mae):
        return jf.fit(loss, start, train, optimizer=jf.optimizers.sgd(rate), steps=steps, record=record)

    window = [np.linspace(*WINDOW[name], config.cells) for name in "wb"]
    descent = fit(zero, RATE, EPOCHS)
    angles = np.linspace(0, 2 * np.pi, 3600, endpoint=False)
    path = {name: jf.Axis("epoch", values) for name, values in descent.history.params.items()}
    circle = {
        "w": jf.Axis("direction", 0.005 * np.cos(angles), labels=angles.tolist()),
        "b": jf.Axis("direction", 0.005 * np.sin(angles), labels=angles.tolist()),
    }
    seeds, rates = jf.Axis("seed", range(config.starts)), np.geomspace(1e-5, 1, config.rates)
    run = {"steps": EPOCHS, "record": jf.Record(every=10)}
    surfaces = {
        "train": surface(train, *window),
        "test": surface(test, *window),
        "coarse": surface(test, -0.05 + 0.0035 * np.arange(58), -0.1 + 0.06 * np.arange(5)),
        "wide": surface(train, np.linspace(-0.09, 0.16, config.cells), window[1]),
        "near": surface(train, np.linspace(0.06, 0.08, 201), np.linspace(0.06, 0.1, 201), precision="float64"),
    }
    blow_up = fit(CORNER, 0.5, 40, loss=mse)
    return Result(
        train=train,
        test=test,
        surfaces=surfaces,
        descent=descent,
        seen=jf.surface(mae, path, test).values,
        gradients={
            name: pair(jf.step(mae, start, train, optimizer=jf.optimizers.sgd(RATE)).grads)
            for name, start in (("(0, 0)", zero), ("(0.1, 0.1)", CORNER))
        },
        compass=jf.surface(mae, circle, train, precision="float64"),
        starts=jf.sweep(
            mae, jf.Call(jf.models.line.init, key=seeds), train, optimizer=jf.optimizers.sgd(0.01), **run
        ).results,
        rates=jf.sweep(mae, zero, train, optimizer=jf.optimizers.sgd(jf.Axis("learning_rate", rates)), **run).results,
        overshoot=fit(CORNER, 0.05, 40),
        cycle=fit(CORNER, 0.5, 40),
        blow_up=blow_up,
        no_params=lead_on(mse, blow_up, train),
        limit=2 / float(np.linalg.eigvalsh(hessian(train[0]))[-1]),
    )


def lead_on(loss, fit: Any, data: tuple) -> int:
    """Epochs until the params are infinite: a fit stops where its loss is, but updates can go on from there."""
    params, epochs = fit.params, fit.steps
    while np.all(np.isfinite(pair(params))):
        params, epochs = jf.step(loss, params, data, optimizer=fit.optimizer).params, epochs + 1
    return epochs


LEVELS = (0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35)


def hessian(x: np.ndarray) -> np.ndarray:
    """Of a line's mean squared error, by slope and intercept."""
    rows = np.stack([x, np.ones_like(x)], axis=1)
    return 2 * rows.T @ rows / len(x)


def pair(params: Any, at: Any = ...) -> np.ndarray:
    return np.array([np.asarray(params["w"])[at], np.asarray(params["b"])[at]], float)


def best_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Least mean absolute error, slope and intercept of it: one of the lines through two points."""
    lines = []
    for i, j in itertools.combinations(range(len(x)), 2):
        if x[i] != x[j]:
            slope = (y[j] - y[i]) / (x[j] - x[i])
            lines.append((np.mean(abs(slope * (x - x[i]) + y[i] - y)), slope, y[i] - slope * x[i]))
    return min(lines)


def lowest(surface: Any) -> list[float]:
    place = surface.stack(all=surface.dims).idxmin("all").item()
    return [float(value) for value in place]


def checks(result: Result) -> list[Check]:
    history, least = result.descent.history, best_line(*jf.datasets.download_time())
    x, y = jf.datasets.download_time()
    starts = result.starts["history.loss"].transpose("seed", "step")
    rates, ends = result.rates.learning_rate.values, result.rates.loss.values
    first = 0.29505 - EPOCHS * rates[0] * (np.mean(x) ** 2 + 1)  # below every file the gradient is (-mean x, -1)
    rows = [
        check("TFJS-F2.5.opt", lowest(result.surfaces["near"]), "lowest point, training files"),
        Check("the same, of lines through two files", least[1:], lowest(result.surfaces["near"]), 2e-4, "TFJS-F2.5"),
        Check("lowest point of the coarse grid, test files", [0.069, 0.08], lowest(result.surfaces["coarse"]), 1e-6,
              "TFJS-F2.5, grid of the figure"),
        Check("loss at (-0.05, -0.1), test files", 0.381, corner(result.surfaces["test"]), 5e-4, "TFJS-F2.5"),
        Check("loss at (-0.05, -0.1), training files", 0.547, corner(result.surfaces["train"]), 5e-4,
              "TFJS-F2.5"),
        check("TFJS-2.2.intercept", lowest(result.surfaces["near"])[1], "time of a file of no size, s"),
    ]  # fmt: skip
    for epoch in SHOWN:
        rows.append(check(f"TFJS-F2.7A.e{epoch}", pair(history.params, epoch), f"kernel and bias after {epoch} epochs"))
    for epoch in (1, *SHOWN):
        rows.append(check(f"TFJS-F2.7B.e{epoch}", history.loss[epoch - 1], f"loss before the update of epoch {epoch}"))
    lines = [pair(history.params, epoch) for epoch in (10, *SHOWN)]
    right = [[0.01521, 0.005], [0.03042, 0.01], [0.07567, 0.03925], [0.07178, 0.0656]]
    gradient, angles = result.gradients["(0, 0)"], result.compass.direction.values
    rise = result.compass.values - np.mean(np.abs(y))
    steepest = float(angles[np.argmax(rise)])
    side = np.sign(CORNER["w"] * x + CORNER["b"] - y)
    early, late = starts.sel(step=10).values, starts.sel(step=EPOCHS).values
    return [
        *rows,
        Check("lines after 10, 20, 100 and 200 epochs", right, lines, 1e-5, "TFJS-F2.7C"),
        Check("each of them is better than the last, on the test files too", True,
              bool(np.all(np.diff(result.seen[[10, *SHOWN]]) < 0)), source="TFJS-F2.7C"),
        Check("gradient at (0, 0): minus mean size, and -1", [-np.mean(x), -1], gradient, 1e-6, "TFJS-2.2.gradient"),
        Check("gradient at (0.1, 0.1)", [np.mean(side * x), np.mean(side)], result.gradients["(0.1, 0.1)"], 1e-6,
              "TFJS-2.2.gradient, theory"),
        Check("direction of the steepest rise around (0, 0)", np.arctan2(*gradient[::-1]) % (2 * np.pi), steepest, 1e-3,
              "TFJS-2.2.gradient"),
        Check("rise there over the radius: the norm of the gradient", np.linalg.norm(gradient), np.max(rise) / 0.005,
              1e-6, "TFJS-2.2.gradient"),
        Check("random starts: median loss after 10 epochs above ten times that after 200", True,
              bool(np.median(early) > 10 * np.median(late)), source="TFJS-2.2.1"),
        Check("random starts that are above 0.1 s after 10 epochs, and not better after 200", 0,
              int(np.sum(late[early > 0.1] >= early[early > 0.1])), source="TFJS-2.2.1"),
        Check("random starts above 0.1 s after 200 epochs", 0, int(np.sum(late > 0.1)), source="TFJS-2.2.init"),
        Check("smallest rate, 0.00001: loss after 200 epochs", first, ends[0], 2e-5, "TFJS-2.2.steps, theory"),
        Check("best rate", 1.5e-3, rates[np.argmin(ends)], 1.3e-3, "TFJS-2.2.steps"),
        Check("rates from 0.05 on: none ends below a loss of", True, bool(ends[rates > 0.05].min() > 0.1),
              source="TFJS-2.2.steps"),
        Check("an update of 0.05 from (0.1, 0.1)", [-0.0512, 0.06], pair(result.overshoot.history.params, 1), 5e-5,
              "TFJS-F2.8"),
        Check("its loss before and after", [0.1135, 0.3909], result.overshoot.history.loss[:2], 5e-5, "TFJS-F2.8"),
        Check("rate 0.5, absolute errors: distance of the losses two epochs apart, from epoch 10 on", 0.0,
              np.ptp(result.cycle.history.loss[10::2]), 1e-5, "TFJS-F2.8"),
        Check("the same: largest loss of all", True, bool(np.max(result.cycle.history.loss) < 5), source="TFJS-F2.8"),
        Check("rate 0.5, squared errors: outcome", "DIVERGED", result.blow_up.status.name, source="TFJS-F2.8"),
        Check("the same: epoch at which the loss is infinite", 15, result.blow_up.steps, source="TFJS-F2.8"),
        Check("the same, led on: epoch of infinite kernel and bias", 31, result.no_params, source="TFJS-F2.8"),
        Check("the same: growth of the loss in an epoch", (1 - 0.5 * 2 / result.limit) ** 2, growth(result.blow_up),
              0.5, "TFJS-F2.8, theory"),
        Check("limit of the rate, squared errors", 0.0464, result.limit, 5e-5, "TFJS-F2.8, 2 / lambda_max"),
    ]  # fmt: skip


def corner(surface: Any) -> float:
    return float(surface[0, 0])


def growth(fit: Any) -> float:
    finite = np.asarray(fit.history.loss, float)
    finite = finite[np.isfinite(finite)]
    return float(finite[-1] / finite[-2])


def draw(result: Result):
    return {"": descent(result), "surface": surfaces(result), "rates": rates(result), "moving": moving(result)}


def moving(result: Result) -> bytes:
    labels = ("size, MB", "download time, s")
    return plots.descent_animation(result.descent, surface=result.surfaces["train"], levels=LEVELS, labels=labels)


def descent(result: Result):
    space = {"hspace": 0.42, "wspace": 0.22, "top": 0.87, "left": 0.07, "right": 0.97, "bottom": 0.07}
    figure, axes = plots.panels([["path", "loss"], ["path", "lines"]], size=(11, 7.2), gridspec_kw=space)
    figure.suptitle("200 epochs at 0.0005: straight down, then along the valley", x=0.07, ha="left")
    words = "Mean absolute error of 20 training files, from kernel = bias = 0. Circles: the numbers the book prints."
    figure.text(0.07, 0.92, words, color="#555555")
    history = result.descent.history

    ax = axes["path"]
    near = result.surfaces["train"].sel(w=slice(-0.011, 0.101), b=slice(-0.021, 0.101))
    points = {f"epoch {epoch}": tuple(published(f"TFJS-F2.7A.e{epoch}").printed) for epoch in SHOWN}
    levels = (0.02, 0.025, 0.03, *LEVELS[1:])
    plots.contour(near, {"descent": result.descent}, {"start": (0, 0)} | points, levels=levels, ax=ax)
    ax.plot(*best_line(*result.train)[1:], "x", color=plots.DARK, ms=8, mew=2)
    ax.set(title="On the loss of the training files (x: its minimum)", xlabel="kernel, s/MB", ylabel="bias, s")

    ax = axes["loss"]
    ax.plot(history.step, history.loss, color=plots.RED)
    marks = [(epoch, published(f"TFJS-F2.7B.e{epoch}").printed) for epoch in (1, *SHOWN)]
    ax.set(xlim=(-8, 208), ylim=(0, 0.32), xlabel="epochs", ylabel="loss, s", title="The loss of every epoch")
    room = plots.Room(ax)
    room.block(history.step, history.loss)
    for epoch, loss in marks:
        ax.plot(epoch - 1, loss, "o", mfc="white", mec=plots.DARK, ms=5.5, mew=1.1, zorder=4)
        room.block(epoch - 1, loss, width=12)
    for epoch, loss in marks:
        spot = room.block(epoch - 1, loss, width=12)
        room.near(spot, f"{'start' if epoch == 1 else f'epoch {epoch}'}: {loss:.3g}", color=plots.DARK)
    kink = room.block(50, history.loss[50], width=12)
    room.near(kink, "here the path bends", color=plots.RED, prefer=(0.4, 0.5))

    ax = axes["lines"]
    lines = {f"{epoch} epochs": tuple(pair(history.params, epoch)) for epoch in (10, *SHOWN)}
    ax.set_prop_cycle(color=[plots.SKY, plots.GREEN, plots.RED, plots.DARK])
    plots.line_fit(*result.train, lines, ax=ax)
    ax.plot(*result.test, "^", mfc="white", mec=plots.GREY, ms=5, zorder=2)
    ax.set(xlabel="size, MB", ylabel="download time, s", ylim=(-0.02, 0.86))
    ax.set_title("Dots: files to train on; triangles: files to test on")
    return figure


def surfaces(result: Result):
    space = {"wspace": 0.2, "top": 0.8, "left": 0.07, "right": 0.98, "bottom": 0.12}
    figure, axes = plots.panels([["test", "train", "compass"]], size=(13, 4.6), gridspec_kw=space)
    figure.suptitle("The loss surface: every pair of kernel and bias has a loss", x=0.07, ha="left")
    words = (
        "Mean absolute error over the window of figure 2.5. Cross: (0.07, 0.08), which the book marks as the lowest."
    )
    figure.text(0.07, 0.89, words, color="#555555")
    titles = {"test": "Of the test files, as in the book", "train": "Of the training files, which the descent sees"}
    for name, title in titles.items():
        ax = axes[name]
        own = best_line(*(result.test if name == "test" else result.train))
        words = f"lowest: {own[0]:.4f} s"
        plots.contour(result.surfaces[name], points={words: own[1:]}, levels=LEVELS[2:], ax=ax)
        ax.plot(*published("TFJS-F2.5.opt").printed, "x", color=plots.RED, ms=8, mew=2, zorder=13)
        ax.set(title=title, xlabel="kernel, s/MB", ylabel="bias, s")
        plots.few_ticks(ax.xaxis, (-0.05, 0, 0.05, 0.1, 0.15))
    axes["train"].set_ylabel("")
    axes["train"].tick_params(labelleft=False)

    ax = axes["compass"]
    angles = np.degrees(result.compass.direction.values)
    slopes = (result.compass.values - result.descent.history.loss[0]) / 0.005
    gradient = result.gradients["(0, 0)"]
    up = np.degrees(np.arctan2(*gradient[::-1])) % 360
    ax.plot(angles, slopes, color=plots.BLUE)
    ax.axhline(0, color=plots.GREY, lw=0.8)
    size = np.linalg.norm(gradient)
    ax.plot([up, up - 180], [size, -size], "o", mfc="white", mec=plots.DARK, ms=6, mew=1.1, zorder=3)
    ax.set(
        xlim=(0, 360), ylim=(-4.4, 4.4), xlabel="direction of a step from (0, 0), degrees", ylabel="rise of the loss"
    )
    ax.set_title("No direction rises faster than the gradient's")
    plots.few_ticks(ax.xaxis, (0, 90, 180, 270, 360))
    room = plots.Room(ax)
    room.block(angles, slopes)
    room.block([0, 360], [0, 0])
    ups = room.block(up, size, width=12), room.block(up - 180, -size, width=12)
    room.near(ups[0], f"the gradient ({gradient[0]:.2f}, {gradient[1]:.0f})".replace("-", "−"), color=plots.DARK)
    room.near(ups[1], "against it: a descent's step", color=plots.DARK)
    return figure


def rates(result: Result):
    space = {"hspace": 0.42, "wspace": 0.22, "top": 0.88, "left": 0.07, "right": 0.97, "bottom": 0.07}
    figure, axes = plots.panels([["starts", "rates"], ["over", "squares"]], size=(11, 8.4), gridspec_kw=space)
    figure.suptitle(
        "A learning rate too small does not reach the minimum, one too large moves away from it", x=0.07, ha="left"
    )
    figure.text(0.07, 0.925, "Mean absolute error of the training files, unless it says otherwise.", color="#555555")

    ax = axes["starts"]
    losses, steps = result.starts["history.loss"].transpose("seed", "step").values, result.starts.step.values
    ax.set(yscale="log", xlim=(-4, 204), ylim=(0.012, 12), xlabel="epochs", ylabel="loss, s")
    bands = ((0, 100), (10, 90), (25, 75))
    for low, high in bands:
        ax.fill_between(steps, *np.percentile(losses, (low, high), axis=0), color=plots.BLUE, alpha=0.22, lw=0)
    median = np.median(losses, axis=0)
    ax.plot(steps, median, color=plots.BLUE)
    ax.axhline(best_line(*result.train)[0], color=plots.GREY, lw=1, ls=(0, (4, 2)))
    plots.few_ticks(ax.yaxis, (0.02, 0.05, 0.1, 0.3, 1, 3, 10))
    ax.text(60, 0.0135, "the least loss", color=plots.GREY)
    ax.text(70, 1.2, "median, half, 80 % and all of the starts", color=plots.BLUE)
    for step in (10, EPOCHS):
        value = median[list(steps).index(step)]
        ax.plot(step, value, "o", mfc="white", mec=plots.BLUE, ms=6, mew=1.3, zorder=4)
        place: Any = {"textcoords": "offset points", "ha": "right" if step > 10 else "left"}
        text = f"{value:.2g} s" if step == 10 else f"{value:.1g} s"  # whose second digit is rounding's
        ax.annotate(text, (step, value), (4, 9), color=plots.BLUE, **place)
    ax.set_title(f"{len(losses):,} random starts, rate 0.01: their losses")

    ax = axes["rates"]
    rate, loss = result.rates.learning_rate.values, result.rates["history.loss"].transpose("learning_rate", "step")
    ax.set(xscale="log", yscale="log", ylim=(0.012, 12), xlim=(1e-5, 1), xlabel="learning rate", ylabel="loss, s")
    curves = {f"after {step} epochs": loss.sel(step=step).values for step in (10, EPOCHS)}
    room = None
    for (_, values), color in zip(curves.items(), (plots.SKY, plots.BLUE), strict=True):
        ax.plot(rate, values, color=color)
    plots.few_ticks(ax.yaxis, (0.02, 0.05, 0.1, 0.3, 1, 3, 10))
    plots.few_ticks(ax.xaxis, (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1))
    room = plots.Room(ax)
    blocked = [room.block(rate, values) for values in curves.values()]
    for label, line, color in zip(curves, blocked, (plots.SKY, plots.BLUE), strict=True):
        room.near(line, label, color=color, prefer=(0.5, 0.6))
    ax.axvline(0.01, color=plots.GREY, lw=0.8, zorder=0)
    ax.text(0.0108, 7, "the library's default", color=plots.GREY, fontsize=9)
    ax.set_title("Too small: not converged yet. Too large: oscillates")

    ax = axes["over"]
    before, after = result.overshoot.history.loss[:2]
    start, end = (tuple(pair(result.overshoot.history.params, epoch)) for epoch in (0, 1))
    points = {f"start: {before:.3f} s": start, f"after one epoch: {after:.3f} s": end}
    paths = {"one update": tuple(np.transpose([start, end]))}
    plots.contour(result.surfaces["wide"], paths, points, levels=LEVELS[2:], ax=ax)
    arrow = {"arrowstyle": "-|>", "color": plots.RED, "lw": 1.4, "shrinkA": 5, "shrinkB": 5, "mutation_scale": 14}
    ax.annotate("", end, start, arrowprops=arrow, zorder=5)
    plots.few_ticks(ax.xaxis, (-0.05, 0, 0.05, 0.1, 0.15))
    ax.set(title="One update with rate 0.05 ends on the other side", xlabel="kernel, s/MB", ylabel="bias, s")

    ax = axes["squares"]
    both = {"squared errors": result.blow_up, "absolute errors": result.cycle}
    ax.set_prop_cycle(color=[plots.PINK, plots.BLUE])
    plots.loss_history(
        {label: (f.history.step[:21], np.asarray(f.history.loss, float)[:21]) for label, f in both.items()}, ax=ax
    )
    ax.set(xlabel="epochs", ylabel="loss")
    plots.few_ticks(ax.xaxis, range(0, 21, 5))
    ax.set_title("Rate 0.5: squared errors diverge, absolute ones do not")
    return figure
