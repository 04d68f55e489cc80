"""Four learning rates on one loss: too small is slow, moderate is fast, large oscillates, too large diverges.

On x^2 + 2 y^2 from (-3, -3) an update multiplies x by 1 - 2 rate and y by 1 - 4 rate, so that the limit is 0.5. A rate
of 0.48 is ahead of 0.05 for two updates, since x is there almost at once, and behind it ever after; 0.51 dips below its
start, too, before it shoots up. On the raw readings of the mystery thermometer the limit is 0.00034: of the powers of
ten, 0.0001 is the largest that does not run off, and it stalls.

Source: the notes on backpropagation and gradient descent, section 2.3; Stevens, Antiga and Viehmann, Deep Learning with
PyTorch (2020), figure 5.8 and section 5.4.3. Cost: seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

RATES = {0.01: "too small", 0.05: "moderate", 0.48: "large", 0.51: "too large"}
TENS = 10.0 ** np.arange(-7, 0)
STEPS = 50


@dataclass(frozen=True)
class Config:
    steepness: float = 2.0  # of y^2
    rates: int = 241  # for the thermometer


QUICK = {"rates": 61}
BREAK = {"steepness": 3.0}
ROWS = {"GD-F.lr": "", "DLWPT-F5.8": "", "DLWPT-5.4.3.lr": "tens"}


class Result(NamedTuple):
    runs: Any  # Dataset over learning_rate: loss, x and y of every update
    parabola: Any  # the loss over y, at x = 0
    tens: Any  # Dataset over learning_rate: the thermometer at epoch 100, after 99 updates
    fine: Any  # Dataset over learning_rate: the same, rates between the powers
    limit: float  # 2 / lambda_max of the thermometer's readings


def bowl(params, steepness):
    return params["x"] ** 2 + steepness * params["y"] ** 2


def compute(config: Config) -> Result:
    t_u, t_c = jf.datasets.thermometer()
    rows = np.stack([t_u, np.ones_like(t_u)], axis=1)

    def sweep(loss, start, data, rates, steps, **options):
        optimizer = jf.optimizers.sgd(jf.Axis("learning_rate", rates))
        return jf.sweep(loss, start, data, optimizer=optimizer, steps=steps, **options).results

    def thermometer(rates):
        return sweep(jf.losses.mse(jf.models.line), {"w": 1.0, "b": 0.0}, (t_u, t_c), rates, 99)

    steep = (config.steepness,)
    return Result(
        runs=sweep(bowl, {"x": -3.0, "y": -3.0}, steep, list(RATES), STEPS, record=jf.Record(what=("loss", "params"))),
        parabola=jf.surface(bowl, {"x": 0.0, "y": jf.Axis("y", np.linspace(-4, 4, 161))}, steep),
        tens=thermometer(TENS),
        fine=thermometer(np.geomspace(1e-7, 1e-1, config.rates)),
        limit=float(2 / np.linalg.eigvalsh(2 * rows.T @ rows / len(rows))[-1]),
    )


def losses(result: Result, rate: float) -> np.ndarray:
    return result.runs["history.loss"].sel(learning_rate=rate, method="nearest").values.astype(float)


def ys(result: Result, rate: float) -> np.ndarray:
    return result.runs["history.params.y"].sel(learning_rate=rate, method="nearest").values.astype(float)


def checks(result: Result) -> list[Check]:
    k, rows = np.arange(STEPS + 1), []
    for rate, name in RATES.items():
        law = 9 * (1 - 2 * rate) ** (2 * k) + 18 * (1 - 4 * rate) ** (2 * k)
        rows.append(
            Check(f"{name}, {rate}: loss of every update", law, losses(result, rate), 3e-5 * law, "GD-F.lr, theory")
        )
    small, moderate, large, beyond = (losses(result, rate) for rate in RATES)
    status = result.fine.status.values == jf.Status.DIVERGED
    fine = result.fine.learning_rate.values
    outcomes = result.tens.status.values
    good = outcomes == jf.Status.OUT_OF_STEPS
    return [
        *rows,
        Check("updates for which large is ahead of moderate", 2, int(np.argmax(large[1:] > moderate[1:])),
              source="GD-F.lr"),
        Check("at the end: moderate, large, too small, too large, from low to high", [1, 2, 0, 3],
              np.argsort([small[-1], moderate[-1], large[-1], beyond[-1]]).tolist(), source="GD-F.lr"),
        Check("too large: updates after which its loss is above the start's", 6, int(np.argmax(beyond > beyond[0])),
              source="GD-F.lr"),
        Check("too large: y is multiplied by, every time", 1 - 4 * 0.51, ratios(ys(result, 0.51)), 1e-5, "DLWPT-F5.8"),
        Check("moderate: y is multiplied by, every time", 1 - 4 * 0.05, ratios(ys(result, 0.05)), 1e-5, "DLWPT-F5.8"),
        Check("thermometer: 2 / lambda_max", 3.399e-4, result.limit, 5e-8, "DLWPT-5.4.3.lr, closed form"),
        Check("thermometer: smallest rate that runs off", result.limit, fine[status][0],
              result.limit * (fine[1] / fine[0] - 1),
              "DLWPT-5.4.3.lr, theory"),
        Check("thermometer: rates above it that do not", 0, int(np.sum(~status[np.argmax(status):]))),
        Check("thermometer: largest power of ten that does not", 1e-4, TENS[good][-1], 1e-12, "DLWPT-5.4.3.lr"),
        Check("thermometer: how many powers of ten do not", 4, int(good.sum()), source="DLWPT-5.4.3.lr"),
        Check("thermometer: loss at epoch 100 with 0.0001", 29.022669, float(result.tens.loss[3]), 3e-4,
              "DLWPT-5.4.3.lr"),
    ]  # fmt: skip


def ratios(values: np.ndarray) -> np.ndarray:
    """By what each of the first 30 updates multiplied."""
    return values[1:31] / values[:30]


def draw(result: Result):
    return {"": four(result), "tens": tens(result)}


COLORS = dict(zip(RATES, (plots.SKY, plots.BLUE, plots.GREEN, plots.RED), strict=True))


def four(result: Result):
    names = [name for name in RATES.values()]
    space = {"hspace": 0.42, "wspace": 0.08, "top": 0.86, "left": 0.06, "right": 0.98, "bottom": 0.08}
    figure, axes = plots.panels([names, ["curves"] * 4], size=(12, 7.8), height_ratios=[1, 1.25], gridspec_kw=space)
    figure.suptitle("Too small, moderate, large, too large: the limit is 2 / curvature = 0.5", x=0.06, ha="left")
    words = "Gradient descent on x² + 2y² from (−3, −3). Above: y of six updates, on 2y²."
    figure.text(0.06, 0.92, words, color="#555555")
    for rate, name in RATES.items():
        ax, path = axes[name], ys(result, rate)[:7]
        ax.set(xlim=(-4, 4), ylim=(-3, 32), xlabel="y", title=f"{name}: {rate}")
        curve = (result.parabola.y.values, result.parabola.values)
        plots.descent_1d(path, 2 * path**2, curve, color=COLORS[rate], ax=ax)
        plots.few_ticks(ax.xaxis, (-3, 0, 3))
        ax.tick_params(labelleft=name == names[0])
    axes[names[0]].set_ylabel("2y²")
    ax = axes["curves"]
    ax.set_prop_cycle(color=list(COLORS.values()))
    plots.loss_history({f"{name}: {rate}": losses(result, rate) for rate, name in RATES.items()}, ax=ax)
    ax.set(xscale="linear", xlim=(-0.5, STEPS + 0.5), ylabel="x² + 2y²")
    plots.few_ticks(ax.xaxis, range(0, STEPS + 1, 10))
    return figure


def tens(result: Result):
    space = {"top": 0.8, "left": 0.09, "right": 0.97, "bottom": 0.13}
    figure, axes = plots.panels("A", size=(9.5, 5), gridspec_kw=space)
    figure.suptitle("Powers of ten: the thermometer's limit lies between 0.0001 and 0.001", x=0.09, ha="left")
    words = "Loss at epoch 100 on the raw readings, from w = 1, b = 0. Dots: powers of ten; arrows: infinite."
    figure.text(0.09, 0.87, words, color="#555555")
    ax = axes["A"]
    rate, loss = result.fine.learning_rate.values, result.fine.loss.values.astype(float)
    shown = np.isfinite(loss) & (loss < 1e7)
    ax.set(xscale="log", yscale="log", xlim=(7e-8, 0.15), ylim=(10, 1e6), xlabel="learning rate", ylabel="loss, °C²")
    ax.plot(rate[shown], loss[shown], color=plots.BLUE)
    start = 1763.88
    ax.axhline(start, color=plots.GREY, lw=0.8, zorder=0)
    ax.axvline(result.limit, color="black", lw=1.3, ls=(0, (4, 2)))
    dots = [(r, v) for r, v in zip(TENS, result.tens.loss.values.astype(float), strict=True)]
    for r, v in dots:
        if v < 1e6:
            ax.plot(r, v, "o", color=plots.BLUE, mec="white", ms=8, zorder=4)
        else:
            ax.annotate("", (r, 1e6), (r, 2e5), arrowprops={"arrowstyle": "-|>", "color": plots.RED, "lw": 1.7})
    plots.few_ticks(ax.xaxis, TENS.tolist())
    plots.few_ticks(ax.yaxis, (10, 100, 1000, 10_000, 100_000))
    room = plots.Room(ax)
    curve = room.block(rate[shown], loss[shown])
    level = room.block([7e-8, 0.15], [start, start])
    limit = room.block([result.limit, result.limit], [10, 1e6])
    spots = [room.block([r, r], [v, v] if v < 1e6 else [2e5, 1e6], width=16) for r, v in dots]
    room.near(spots[3], f"0.0001 stalls at {dots[3][1]:.1f}", color=plots.BLUE, prefer=(0.55, 0.2))
    room.near(spots[5], "0.001 and more diverge", color=plots.RED, prefer=(0.8, 0.75))
    room.near(limit, "law: 2 / λ = 0.00034", color=plots.DARK, prefer=(1, 0.4))
    room.near(level, "the loss at the start", color=plots.GREY, prefer=(0.1, 1))
    room.near(curve, "too small: hardly any change", color=plots.BLUE, prefer=(0.1, 0.5))
    return figure
