"""At a constant learning rate the noise of single samples keeps the loss above a level; a decaying rate goes below it.

A line through 33 blood pressures against standardized age, one woman drawn anew for every step. The loss falls fast to
a floor that the rate sets, and stays there: 110 above the least loss at the rate 0.1, 8 at 0.01. A rate that decays as
1 / t starts as fast and ends below both. The mean loss of
many runs is that of an exact law: the second moment of the distance to the optimum obeys a linear recursion, step by
step. On average over the draws the params are those of descent on all the data, at a 33rd of its work a step; for the
same work single women are therefore ahead at first, and all 33 in the end.

On a curve with two valleys the rate decides as well: descent with a small one stays in the valley it starts in, a
larger one lets the noise carry it over into the deeper one, and one that is too large ends anywhere.

Source: notes on backpropagation and gradient descent, section 3.1; Chollet, Deep Learning with Python, second edition
(2021), section 2.4.3; Cai, Bileschi, Nielsen and Chollet, Deep Learning with JavaScript (2020), section 2.2. Cost:
some seconds on a CPU.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

START = {"w": 0.0, "b": 139.0}
LOSS = jf.losses.mse(jf.models.line)
STEPS, EVERY = 2000, 10
FOREVER = 1e9  # steps until a rate is halved: constant, for all that happens here
PLANS = {"0.1": (0.1, FOREVER), "0.01": (0.01, FOREVER), "0.1, decaying": (0.1, 20.0)}  # rate, and steps to its half
PUSHES = np.linspace(-1.5, 1.5, 11)  # of the samples on the curve of two valleys
RATES = (0.01, 0.2, 0.5)


@dataclass(frozen=True)
class Config:
    seeds: int = 500
    half: float = 20.0  # steps until the decaying rate is halved


SECONDS = 12
QUICK = {"seeds": 100}
BREAK = {"half": 40.0}
ROWS = {"GD-3.1": "", "TFJS-2.2.sgd": "", "CHOLLET-2.4.3.sgd": ""}


def valleys(params, pushes):
    """A curve with two valleys, which every sample tilts another way."""
    return params**4 / 4 - params**2 / 2 + 0.2 * params + jnp.mean(pushes) * params


def whole(params, x, y):
    """The loss of all the data, whatever the batch of the step."""
    return LOSS(params, x, y)


class Result(NamedTuple):
    steps: np.ndarray  # those that were recorded
    least: float
    floors: dict[str, float]  # by plan of constant rate, what the law comes to rest at
    losses: dict[str, np.ndarray]  # by plan, (seeds, records) above the least
    laws: dict[str, np.ndarray]  # (STEPS + 1,) the expected loss above the least
    params: np.ndarray  # (seeds, records, 2) w and b, with the rate 0.1
    descent: np.ndarray  # (records, 2) of descent on all the data
    all_data: np.ndarray  # (STEPS + 1,) its loss above the least
    stays: np.ndarray  # (301,) of descent on the curve of two valleys, all samples at once, rate 0.2
    places: np.ndarray  # (rates, seeds, steps + 1) on that curve


def compute(config: Config) -> Result:
    age, pressure = jf.datasets.blood_pressure()
    data = z, _ = jf.datasets.standardize(age)[0], pressure
    best = jf.models.line.least_squares(z, pressure)
    least = float(np.mean((best["w"] * z + best["b"] - pressure) ** 2))
    seeds = jf.Axis("seed", list(range(config.seeds)))
    plans = [(rate, half if half == FOREVER else config.half) for rate, half in PLANS.values()]
    rates, halves = (jf.Axis("plan", list(column), labels=list(PLANS)) for column in zip(*plans, strict=True))
    noisy = jf.sweep(
        LOSS, START, data, optimizer=jf.optimizers.sgd(jf.schedules.inverse_time(rates, halves)), steps=STEPS,
        batches=jf.Batches(1, replace=True), key=seeds, record=jf.Record(every=EVERY, what=(whole, "params")),
    ).results.transpose("plan", "seed", ...)  # fmt: skip
    quiet = jf.fit(
        LOSS, START, data, optimizer=jf.optimizers.sgd(0.1), steps=STEPS, record=jf.Record(what=("loss", "params")),
        precision="float64",
    ).history  # fmt: skip
    on_curve = jf.sweep(
        valleys, 1.6, (PUSHES,), optimizer=jf.optimizers.sgd(jf.Axis("rate", RATES)), steps=300, key=seeds,
        batches=jf.Batches(1, replace=True), record=jf.Record(what=("params",)),
    ).results.transpose("rate", "seed", ...)  # fmt: skip
    still = jf.fit(
        valleys, 1.6, (PUSHES,), optimizer=jf.optimizers.sgd(0.2), steps=300, record=jf.Record(what=("params",))
    )
    first = {name: noisy[f"history.params.{name}"].sel(plan="0.1").values for name in ("w", "b")}
    return Result(
        steps=np.arange(0, STEPS + 1, EVERY),
        least=least,
        floors={name: floor(z, pressure, best, PLANS[name][0]) for name in ("0.1", "0.01")},
        losses=dict(zip(PLANS, noisy["history.whole"].values.astype(float) - least, strict=True)),
        laws={name: law(z, pressure, best, *plan) for name, plan in PLANS.items()},
        params=np.stack([first["w"], first["b"]], axis=2).astype(float),
        descent=np.stack([quiet.params["w"], quiet.params["b"]], axis=1)[::EVERY],
        all_data=np.asarray(quiet.loss) - least,
        stays=np.asarray(still.history.params),
        places=on_curve["history.params"].values.astype(float),
    )


def law(x, y, best, rate: float, half: float) -> np.ndarray:
    """The expected loss above the least, of steps on single points drawn at random: tr(H M) / 2 with M = E[e e'].

    For the distance e to the optimum, residuals r there and rows X = (x, 1):
    E[e]' = (1 - rate H) E[e] and M' = M - rate (H M + M H) + 4 rate**2 mean(X X' (X' M X + 2 r X' E[e] + r**2)).
    """
    rows = np.stack([x, np.ones_like(x)], axis=1)
    residuals = rows @ [best["w"], best["b"]] - y
    hessian = 2 * rows.T @ rows / len(x)
    mean = np.array([START["w"] - best["w"], START["b"] - best["b"]])
    moment = np.outer(mean, mean)
    found = []
    for t in range(STEPS + 1):
        found.append(np.trace(hessian @ moment) / 2)
        now = rate / (1 + t / half)
        sizes = np.einsum("ni,ij,nj->n", rows, moment, rows) + 2 * residuals * (rows @ mean) + residuals**2
        moment = moment - now * (hessian @ moment + moment @ hessian) + 4 * now**2 * (rows.T * sizes) @ rows / len(x)
        mean = mean - now * hessian @ mean
    return np.array(found)


def floor(x, y, best, rate: float) -> float:
    """Where the law comes to rest, by four linear equations for M: H M + M H - rate F(M) = 4 rate mean(r**2 X X')."""
    rows = np.stack([x, np.ones_like(x)], axis=1)
    residuals = rows @ [best["w"], best["b"]] - y
    hessian, one = 2 * rows.T @ rows / len(x), np.eye(2)
    fourth = 4 * np.einsum("ni,nj,nk,nl->ijkl", rows, rows, rows, rows).reshape(4, 4) / len(x)
    noise = 4 * rate * (rows.T * residuals**2) @ rows / len(x)
    moment = np.linalg.solve(np.kron(hessian, one) + np.kron(one, hessian) - rate * fourth, noise.ravel())
    return float(np.trace(hessian @ moment.reshape(2, 2)) / 2)


def checks(result: Result) -> list[Check]:
    rows = []
    for name, losses in result.losses.items():
        theory, mean = result.laws[name][EVERY::EVERY], losses[:, 1:].mean(axis=0)
        doubt = 5 * losses[:, 1:].std(axis=0) / np.sqrt(len(losses))
        rows.append(Check(f"rate {name}: mean loss of all runs", theory, mean, doubt, "GD-3.1, law"))
    for name, height in result.floors.items():
        late = result.losses[name][:, -50:].mean(axis=1)
        doubt = 5 * float(late.std()) / np.sqrt(len(late))
        rows.append(
            Check(f"rate {name}: floor above the least loss", height, late.mean(), doubt, "GD-3.1, closed form")
        )
    ends = {name: float(losses[:, -50:].mean()) for name, losses in result.losses.items()}
    doubt = 5 * result.params[:, 1:].std(axis=0) / np.sqrt(len(result.params))
    means = result.params[:, 1:].mean(axis=0)
    over = [float(np.mean(places[:, -1] < 0)) for places in result.places]
    spread = [float(np.mean(places[:, -100:].std(axis=1))) for places in result.places]
    return [
        *rows,
        Check("a decaying rate ends below both", True, below(ends), source="GD-3.1"),
        Check("mean params of all runs", result.descent[1:], means, doubt, "TFJS-2.2.sgd, all data"),
        Check("after all data once: one woman a step is ahead", True, ahead(result, 1) < 0, source="TFJS-2.2.sgd"),
        Check("after all data 30 times: all at once is", True, ahead(result, 30) > 0, source="TFJS-2.2.sgd"),
        Check("two valleys, all samples: the nearer", nearer(), result.stays[-1], 1e-4, "CHOLLET-2.4.3.sgd, f' = 0"),
        Check("rate 0.01: share that gets over", 0, over[0], 0, "CHOLLET-2.4.3.sgd"),
        Check("rate 0.2: share that is in the deeper one", 0.95, over[1], 0.1, "CHOLLET-2.4.3.sgd, other seeds"),
        Check("rate 0.5: share that is there", 0.67, over[2], 0.2, "CHOLLET-2.4.3.sgd, other seeds"),
        Check("rate 0.5: goes about more widely", True, spread[2] > 2 * spread[1], source="CHOLLET-2.4.3.sgd"),
    ]


def below(ends: dict[str, float]) -> bool:
    return ends["0.1, decaying"] < min(ends["0.1"], ends["0.01"])


def ahead(result: Result, epochs: int) -> float:
    """Loss of single women less that of all data, rate 0.1, when all have seen that many women."""
    return float(result.losses["0.1"].mean(axis=0)[33 * epochs // EVERY] - result.all_data[epochs])


def nearer() -> float:
    """The bottom of the right valley, where w**3 - w + 0.2 = 0."""
    return float(np.max(np.roots([1.0, 0.0, -1.0, 0.2]).real))


COLORS = {"0.1": plots.RED, "0.01": plots.BLUE, "0.1, decaying": plots.GREEN}


def draw(result: Result):
    space = {"hspace": 0.42, "wspace": 0.9, "top": 0.87, "left": 0.07, "right": 0.98, "bottom": 0.07}
    mosaic = [["floor"] * 3 + ["work"] * 3, ["slow"] * 2 + ["right"] * 2 + ["fast"] * 2]
    figure, axes = plots.panels(mosaic, size=(11, 8.2), gridspec_kw=space)
    figure.suptitle(
        "One sample a step: at a constant learning rate the mean loss ends at a level set by the rate",
        x=0.07,
        ha="left",
    )
    words = f"Above: blood pressure against standardized age, means of {len(result.params)} runs on the law (dashed)."
    figure.text(0.07, 0.925, words, color="#555555")
    draw_floor(result, axes["floor"])
    draw_work(result, axes["work"])
    titles = ("stays in its valley", "reaches the deeper valley", "jumps between valleys")
    for name, rate, places, title in zip(("slow", "right", "fast"), RATES, result.places, titles, strict=True):
        draw_valleys(places, axes[name])
        axes[name].set_title(f"Rate {rate}: {title}")
    return figure


def draw_floor(result: Result, ax) -> None:
    ax.set(yscale="log", xlim=(0, STEPS), ylim=(0.5, 500), xlabel="steps, one woman each")
    ax.set(ylabel="mean loss above the least", title="The loss stops falling at a constant rate, not at a decaying one")
    plots.few_ticks(ax.xaxis, range(0, STEPS + 1, 500))
    plots.few_ticks(ax.yaxis, [1, 10, 100])
    for name, losses in result.losses.items():
        ax.plot(result.steps, losses.mean(axis=0), color=COLORS[name], lw=1.3)
        ax.plot(result.laws[name], color=plots.DARK, lw=0.9, ls=(0, (4, 3)))
    ax.text(STEPS * 0.98, 140, f"rate 0.1: level {result.floors['0.1']:.0f}", color=COLORS["0.1"], ha="right")
    ax.text(STEPS * 0.98, 11, f"rate 0.01: level {result.floors['0.01']:.1f}", color=COLORS["0.01"], ha="right")
    ax.text(STEPS * 0.45, 1.25, "0.1 / (1 + t / 20)", color=COLORS["0.1, decaying"], ha="right")


def draw_work(result: Result, ax) -> None:
    ax.set(xscale="log", yscale="log", xlim=(0.28, 62), ylim=(0.5, 500), xlabel="women seen / 33")
    ax.set(ylabel="mean loss above the least", title="For the same work: lower at first, higher at the end")
    plots.few_ticks(ax.xaxis, [0.3, 1, 3, 10, 30])
    plots.few_ticks(ax.yaxis, [1, 10, 100])
    for name, losses in result.losses.items():
        ax.plot(result.steps[1:] / 33, losses.mean(axis=0)[1:], color=COLORS[name], lw=1.3)
    epochs = np.arange(1, 61)
    ax.plot(epochs, np.maximum(result.all_data[epochs], 1e-3), "o-", color=plots.DARK, ms=3.5, lw=1.2)
    ax.annotate("all 33 a step,\nrate 0.1", (1.1, 200), (1.6, 230), color=plots.DARK, linespacing=1.3)
    ax.text(60, 135, "one a step, rate 0.1", color=COLORS["0.1"], ha="right")
    ax.text(60, 11, "0.01", color=COLORS["0.01"], ha="right")
    ax.text(60, 2.6, "decaying", color=COLORS["0.1, decaying"], ha="right")


def draw_valleys(places: np.ndarray, ax) -> None:
    """The first 150 steps of one run on the curve, and where all runs are after 300."""
    w = np.linspace(-2, 2, 300)
    curve = w**4 / 4 - w**2 / 2 + 0.2 * w
    ax.set(xlim=(-2, 2), ylim=(-1.15, 1.05), xlabel="w")
    ax.set_yticks([-0.5, 0, 0.5, 1])
    ax.plot(w, curve, color="#b5b5b5", lw=1.4)
    way = places[0, :151]
    heights = way**4 / 4 - way**2 / 2 + 0.2 * way
    ax.plot(way, heights, "-", color=plots.BLUE, lw=0.5, alpha=0.6)
    ax.plot(way, heights, "o", color=plots.BLUE, ms=3.2, mec="white", mew=0.4)
    ax.plot(way[0], heights[0], "o", color=plots.DARK, ms=6, zorder=4)
    ax.text(way[0] - 0.12, heights[0], "start", color=plots.DARK, ha="right", va="center")
    counts, edges = np.histogram(places[:, -1], np.linspace(-2, 2, 41))
    ax.fill_between(edges, -1.15, -1.15 + 0.4 * np.append(counts, 0) / counts.max(), step="post", color=plots.ORANGE)
    deeper = float(np.mean(places[:, -1] < 0))
    ax.text(-1.9, -0.68, f"after 300 steps {100 * deeper:.0f} % are left of 0", color=plots.ORANGE, va="bottom")
