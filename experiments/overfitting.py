"""What the training and the validation loss show: a model too simple, one that memorizes, one that generalizes.

Four runs with the four shapes that the book draws. The same net, with the same optimizer, is given 9 points, 30 or
200: with 9 it learns them by heart while the validation loss rises (B), with 200 both losses fall to the noise (C),
with 30 the one for validation stays higher (D). A line through the same 200 points cannot fall at all (A).

Rule 1: a training loss that does not fall means a model too simple, as a line through the readings of a logarithmic
thermometer, or data that tell nothing, as thermometer readings beside shuffled temperatures: their line leaves, on
average over shuffles, 1 - 1 / (n - 1) of the variance. Rule 2: a validation loss that leaves the one of training means
over-fitting: polynomials of degree 0 to 8 through the 9 training readings of the mystery thermometer fall from 77 to
0, while the loss of the other 2 falls to 3.5 and then rises to 1.6 million. The polynomial of degree 10 through all 11
readings has no error left, and makes excursions of up to a hundred thousand degrees between them.

Such polynomials cannot be fitted in powers of x: for degree 8, with readings / 10, the condition number of the Hessian
is 2e27, and gradient descent never ends. `jaxfit.models.orthogonal_polynomial` is the same polynomial in a basis in
which every direction has the same curvature, so that one update of rate 0.5 is exact; it is checked against NumPy's
polyfit.

Source: Stevens, Antiga and Viehmann, Deep Learning with PyTorch (2020), section 5.5.3 and 5.5.4, figures 5.12 to 5.14
(drawings; the runs are our own). Cost: half a minute on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

from .published import check

NET = jf.models.dense((1, 64, 1))
NOISE = 0.25
WAVE = 4.5
SIZES = {"B": 9, "C": 200, "D": 30}
HELD_OUT = 100
HIGHEST = 8  # degree through 9 readings


@dataclass(frozen=True)
class Config:
    steps: int = 5_000
    seeds: int = 6
    shuffles: int = 200
    rate: float = 0.5  # of the polynomials: exactly 1 / curvature


SECONDS, CHAOTIC = 30, True
QUICK = {"steps": 1_500, "seeds": 2}
BREAK = {"rate": 0.4}
ROWS = {
    "DLWPT-F5.12": "split", "DLWPT-Out12": "split", "DLWPT-F5.13": "split", "DLWPT-5.5.3.rules": "rules",
    "DLWPT-F5.14": "", "DLWPT-5.5.4": "",
}  # fmt: skip


class Runs(NamedTuple):
    """One panel: the same fit from several initial weights."""

    data: tuple[np.ndarray, np.ndarray]
    step: np.ndarray  # (records,)
    train: np.ndarray  # (seeds, records)
    validation: np.ndarray  # (seeds, records)
    curve: np.ndarray  # (points,) predictions of the first one at GRID


class Result(NamedTuple):
    panels: dict[str, Runs]  # A, B, C, D
    rule_1: dict[str, Any]  # label: (steps, losses (runs, records))
    floors: dict[str, tuple[float, float]]  # label: least squares, and where the run ended
    shuffled: np.ndarray  # (shuffles,) losses at the end
    variance: float  # of the temperatures
    degrees: np.ndarray  # (9, 2) loss of training and of validation after the fit, by degree
    polyfit: np.ndarray  # (9, 2) the same by NumPy
    through: np.ndarray  # (11,) what degree 10 says at the readings
    excursion: np.ndarray  # (points,) and between them, at BETWEEN
    interpolation: np.ndarray  # (points,) there by Lagrange's formula
    untouched: dict[str, Any]  # what validation data change in a fit
    bytes_kept: tuple[int, int]  # by a validation loss, by a training loss


GRID = np.linspace(-1, 1, 301)
BETWEEN = np.linspace(21.8, 81.9, 1201)


def truth(x):
    return np.cos(WAVE * x)


def measured(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of the process: x even in [-1, 1], y = cos(4.5 x) + N(0, 0.25^2)."""
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, count)
    return x, truth(x) + NOISE * random.normal(size=count)


def compute(config: Config) -> Result:
    validation = measured(HELD_OUT, 99)
    panels = {"A": too_stiff(config, measured(SIZES["C"], 3), validation), **nets(config, validation)}
    rule_1, floors, shuffled, variance = too_simple(config)
    t_u, t_c = jf.datasets.thermometer()
    ten = jf.models.orthogonal_polynomial(10, t_u)
    fit: Any = jf.fit(
        jf.losses.mse(ten), {"coefficients": np.zeros(11)}, (t_u, t_c),
        optimizer=jf.optimizers.sgd(config.rate), steps=1, precision="float64",
    )  # fmt: skip
    start, (x, y) = NET.init(0), panels["D"].data
    return Result(
        panels=panels,
        rule_1=rule_1,
        floors=floors,
        shuffled=shuffled,
        variance=variance,
        degrees=by_degree(config.rate),
        polyfit=by_polyfit(),
        through=np.asarray(ten(fit.params, t_u)),
        excursion=np.asarray(ten(fit.params, BETWEEN)),
        interpolation=lagrange(t_u, t_c, BETWEEN),
        untouched=no_gradient(x, y, *validation),
        bytes_kept=(
            jf.forward_memory(jf.losses.mse(NET), start, validation),
            jf.backward_memory(jf.losses.mse(NET), start, validation),
        ),
    )


RECORD = jf.Record(every=10, what=("loss", "validation_loss"))


def too_stiff(config: Config, data: Any, validation: Any) -> Runs:
    """A line, which has no luck with its start to hope for."""
    loss, start = jf.losses.mse(jf.models.line), {"w": 0.3, "b": -0.2}
    fit: Any = jf.fit(
        loss, start, data, optimizer=jf.optimizers.adam(0.01), steps=config.steps, validation=validation, record=RECORD
    )
    history = fit.history
    curve = jf.models.line(fit.params, GRID)
    return Runs(data, history.step, history.loss[None], history.validation_loss[None], np.asarray(curve))


def nets(config: Config, validation: Any) -> dict[str, Runs]:
    """The same net on the first 9, on other 30, and on other 200 points, padded to one length, in one sweep."""
    sets = {name: measured(size, seed) for seed, (name, size) in enumerate(SIZES.items(), 2)}
    padded = (jf.Axis("panel", values, list(sets)) for values in jf.datasets.pad(list(sets.values())))
    seeds = jf.Axis("seed", np.arange(config.seeds))
    grid = jf.sweep(
        jf.losses.mse(NET, masked=True), jf.Call(NET.init, key=seeds), tuple(padded),
        optimizer=jf.optimizers.adam(0.01), steps=config.steps, validation=(*validation, np.ones(HELD_OUT, bool)),
        record=RECORD,
    )  # fmt: skip
    found = grid.results.transpose("panel", "seed", ...)
    return {
        name: Runs(
            data=data,
            step=found.step.values,
            train=found["history.loss"].sel(panel=name).values,
            validation=found["history.validation_loss"].sel(panel=name).values,
            curve=np.asarray(NET(jf.lane(grid, panel=name, seed=0).params, GRID)),
        )
        for name, data in sets.items()
    }


LOGARITHMIC, EXPONENTIAL = "a line, logarithmic thermometer", "an exponential, the same"
HONEST, SHUFFLED = "a line, the thermometer", "a line, temperatures shuffled"


def growth(x, height, rate):
    return height * jnp.exp(rate * x)


def too_simple(config: Config) -> tuple[dict, dict, np.ndarray, float]:
    """Rule 1: a line and an exponential through a logarithmic scale; a line through shuffled temperatures."""
    temperature = np.geomspace(2, 40, 11)
    scale, _ = jf.datasets.standardize(np.log(temperature))
    t_u, t_c = jf.datasets.thermometer()
    reading, _ = jf.datasets.standardize(t_u)
    random = np.random.default_rng(5)
    y = np.array([temperature, t_c, *(random.permutation(t_c) for _ in range(config.shuffles))])
    x = np.array([scale, *[reading] * (len(y) - 1)])
    options = {"optimizer": jf.optimizers.adam(0.1), "steps": 1_000, "record": jf.Record(every=5)}
    lines = jf.sweep(
        jf.losses.mse(jf.models.line), {"w": 0.0, "b": 0.0}, (jf.Axis("case", x), jf.Axis("case", y)), **options
    ).results
    curve = jf.losses.mse(jf.models.from_function(growth))
    fit: Any = jf.fit(curve, {"height": 1.0, "rate": 0.0}, (scale, temperature), **options)
    step, history, ends = lines.step.values, lines["history.loss"].values, lines.loss.values
    found = {
        LOGARITHMIC: (step, history[:1]),
        EXPONENTIAL: (step, np.asarray(fit.history.loss)[None]),
        HONEST: (step, history[1:2]),
        SHUFFLED: (step, history[2:]),
    }
    floors = {name: (least(x[i], y[i]), float(ends[i])) for i, name in enumerate((LOGARITHMIC, HONEST))}
    return found, floors, ends[2:], float(np.var(t_c))


def least(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean((np.polyval(np.polyfit(x, y, 1), x) - y) ** 2))


def by_degree(rate: float) -> np.ndarray:
    """Losses of training and of validation by degree: one update each, from zero."""
    train, validation = jf.datasets.thermometer_split()
    model = jf.models.orthogonal_polynomial(HIGHEST, train[0])

    def loss(params, x, y, allowed):
        return jnp.mean((model({"coefficients": allowed * params}, x) - y) ** 2)

    allowed = jf.Axis("degree", np.tril(np.ones((HIGHEST + 1, HIGHEST + 1))))
    found = jf.sweep(
        loss, np.zeros(HIGHEST + 1), (*train, allowed), optimizer=jf.optimizers.sgd(rate), steps=1,
        validation=(*validation, allowed), precision="float64",
    ).results  # fmt: skip
    return np.stack([found.loss.values, found.validation_loss.values], 1)


def by_polyfit() -> np.ndarray:
    (x, y), (u, v) = jf.datasets.thermometer_split()
    fits = [np.polynomial.Polynomial.fit(x, y, degree) for degree in range(HIGHEST + 1)]
    return np.array([[np.mean((fit(x) - y) ** 2), np.mean((fit(u) - v) ** 2)] for fit in fits])


def lagrange(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The polynomial through all points, each times what is one there and zero at the others."""
    others = [np.delete(x, i) for i in range(len(x))]
    terms = [value * np.prod((at[:, None] - o) / (xi - o), axis=1) for xi, value, o in zip(x, y, others, strict=True)]
    return np.sum(terms, axis=0)


def no_gradient(x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> dict[str, Any]:
    """How the params of a fit depend on targets: of training, and of validation."""

    def params(y, v):
        options = {"optimizer": jf.optimizers.sgd(0.1), "steps": 20, "validation": (u, v)}
        return jf.fit(jf.losses.mse(jf.models.line), {"w": 0.0, "b": 0.0}, (x, y), **options).params["w"]

    by_train, by_validation = jax.grad(params, argnums=(0, 1))(jnp.asarray(y), jnp.asarray(v))
    return {
        "by a target of training": float(jnp.abs(by_train).max()),
        "by a target of validation": float(jnp.abs(by_validation).max()),
        "same with other validation data": bool(params(y, v) == params(y, 0 * v)),
    }


def checks(result: Result) -> list[Check]:
    (x, y), (train, validation) = result.panels["C"].data, jf.datasets.thermometer_split()
    sizes = [len(train[0]) + len(validation[0]), len(validation[0]), len(train[0])]
    parts = np.sort(np.concatenate([train[0], validation[0]]))
    same = int(np.array_equal(parts, np.sort(jf.datasets.thermometer()[0])))
    figure, rules, extreme = "DLWPT-F5.14, its shape", "DLWPT-5.5.3.rules", "DLWPT-F5.13"
    a, b, c, d = (shape(result.panels[name]) for name in "ABCD")
    line, log = (result.floors[name] for name in (HONEST, LOGARITHMIC))
    exponential = float(result.rule_1[EXPONENTIAL][1][0, -1])
    mean, spread = result.variance * (1 - 1 / 10), float(np.std(result.shuffled)) / np.sqrt(len(result.shuffled))
    return [
        check("DLWPT-Out12.sizes", sizes, "readings, held out, to train on"),
        check("DLWPT-Out12.partition", same, "the two parts are all readings, each once"),
        Check("the process: noise of 200 points about the truth", NOISE, float(np.std(y - truth(x))), 0.04,
              "DLWPT-F5.12, theory"),
        Check("A: both losses end above 0.8 of the variance", True, min(a[1], a[3]) > 0.8 * 0.6, source=figure),
        Check("B: training loss, end over start: below 0.05", True, b[1] / b[0] < 0.05, source=figure),
        Check("B: validation loss, end over lowest: above 1.3", True, b[3] / b[4] > 1.3, source=figure),
        Check("C: losses at the end, over the noise's", [1.0, 1.0], [c[1] / NOISE**2, c[3] / NOISE**2], [0.2, 0.4],
              figure),
        Check("D: validation over training at the end: above 1.5", True, d[3] / d[1] > 1.5, source=figure),
        Check("D: validation, end over lowest: below 1.25", True, d[3] / d[4] < 1.25, source=figure),
        Check("rule 1: where the line on the thermometer ends", line[0], line[1], 1e-3, f"{rules}, least squares"),
        Check("rule 1: where the line on a logarithmic scale ends", log[0], log[1], 1e-3, f"{rules}, least squares"),
        Check("rule 1: the exponential there", 0, exponential, 1e-3, f"{rules}, theory"),
        Check("rule 1: shuffled temperatures, mean over shuffles", mean, float(result.shuffled.mean()), 4 * spread,
              f"{rules}, theory"),
        Check("rule 2: training loss by degree", result.polyfit[:, 0], result.degrees[:, 0], 1e-8, f"{rules}, polyfit"),
        Check("rule 2: validation loss by degree", result.polyfit[:, 1], result.degrees[:, 1],
              1e-6 * result.polyfit[:, 1], f"{rules}, polyfit"),
        Check("degree 8 on 9 readings: loss of the other 2", 1.6e6, result.degrees[-1, 1], 5e4, f"{extreme}, by hand"),
        Check("degree 10: error at the 11 readings", 0, result.through - jf.datasets.thermometer()[1], 1e-7,
              f"{extreme}, theory"),
        Check("degree 10: excursions between them", result.interpolation, result.excursion,
              1e-8 * np.ptp(result.interpolation), f"{extreme}, Lagrange's formula"),
        Check("slope of the fit by a target of validation", 0.0, result.untouched["by a target of validation"], 0,
              "DLWPT-5.5.4"),
        Check("slope of the fit by a target of training is not zero", True,
              result.untouched["by a target of training"] > 1e-3, source="DLWPT-5.5.4"),
        Check("the same bits with other validation data", True, result.untouched["same with other validation data"],
              source="DLWPT-5.5.4"),
    ]  # fmt: skip


def shape(run: Runs) -> tuple[float, ...]:
    """Medians over seeds: training loss at the start and the end, validation loss there, and its lowest."""
    train, validation = run.train, run.validation
    numbers = (train[:, 0], train[:, -1], validation[:, 0], validation[:, -1], validation.min(1))
    return tuple(float(np.median(number)) for number in numbers)


def draw(result: Result):
    return {"": draw_panels(result), "rules": draw_rules(result), "split": draw_split(result)}


WORDS = {
    "A": ("neither falls", "a line, 200 points: too simple"),
    "B": ("one falls, the other rises", "the net, 9 points: memorized"),
    "C": ("both fall together", "the net, 200 points: good"),
    "D": ("both fall, with a gap", "the net, 30 points: acceptable"),
}


def draw_panels(result: Result):
    space = {"hspace": 0.32, "wspace": 0.1, "top": 0.84, "left": 0.06, "right": 0.985, "bottom": 0.07}
    figure, axes = plots.panels([list("ABCD"), list("abcd")], size=(13.2, 7), gridspec_kw=space)
    figure.suptitle("Four outcomes of a training, as its two losses show them", x=0.06, ha="left")
    words = f"Solid: training loss. Dashed: the loss of {HELD_OUT} points that it never sees. Dotted: the noise. "
    figure.text(0.06, 0.915, words + "Thin: other initial weights.", color="#555555")
    for name, run in result.panels.items():
        ax = axes[name]
        ax.set(xscale="log", yscale="log", ylim=(4e-4, 2.5), xlim=(10, run.step[-1]))
        ax.axhline(NOISE**2, color=plots.GREY, lw=1.1, ls=":")
        for losses, color, dash in ((run.train, plots.BLUE, "-"), (run.validation, plots.RED, (0, (5, 2)))):
            for other in losses[1:]:
                ax.plot(run.step[1:], other[1:], color=color, lw=0.5, alpha=0.35, ls=dash)
            ax.plot(run.step[1:], losses[0, 1:], color=color, lw=2.0, ls=dash)
        ax.set_title(f"{name}: {WORDS[name][0]}")
        ax.set_xlabel("updates")
        plots.few_ticks(ax.yaxis, [0.001, 0.01, 0.1, 1])
        plots.few_ticks(ax.xaxis, [10, 100, 1000])
        below = axes[name.lower()]
        below.plot(GRID, truth(GRID), color="#bbbbbb", lw=3)
        x, y = run.data
        below.plot(x, y, "o", color=plots.DARK, ms=3 if len(x) > 100 else 5, mec="white", mew=0.4)
        below.plot(GRID, run.curve, color=plots.BLUE, lw=2)
        below.set(xlim=(-1, 1), ylim=(-2, 2), xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        below.set_title(WORDS[name][1], fontsize=9.5, fontweight="normal")
        if name != "A":
            ax.tick_params(labelleft=False)
            below.tick_params(labelleft=False)
    axes["A"].set_ylabel("loss")
    axes["a"].set_ylabel("the fit")
    label = axes["B"]
    label.text(0.5, 0.1, "training", color=plots.BLUE, transform=label.transAxes, weight="bold")
    label.text(0.5, 0.86, "validation", color=plots.RED, transform=label.transAxes, weight="bold")
    axes["a"].text(-0.95, 1.6, "gray: the truth", color="#999999")
    return figure


def draw_rules(result: Result):
    space = {"wspace": 0.24, "top": 0.8, "left": 0.065, "right": 0.98, "bottom": 0.12}
    figure, axes = plots.panels([["one", "two"]], size=(12, 5.6), gridspec_kw=space)
    figure.suptitle(
        "Two rules: a training loss that does not fall, a validation loss that does not follow", x=0.065, ha="left"
    )
    figure.text(0.065, 0.885, "Dashed: what least squares or theory say.", color="#555555")
    ax = axes["one"]
    colors = dict(zip(result.rule_1, (plots.RED, plots.GREEN, plots.BLUE, plots.GREY), strict=True))
    ax.set(xscale="log", yscale="log", xlim=(5, 1000), ylim=(0.01, 900), xlabel="updates", ylabel="training loss, °C²")
    ax.set_title("Rule 1: too simple, or nothing to learn")
    for label, (step, losses) in result.rule_1.items():
        for one in losses[:40]:
            ax.plot(
                step[1:],
                one[1:],
                color=colors[label],
                lw=2 if len(losses) == 1 else 0.5,
                alpha=1 if len(losses) == 1 else 0.5,
            )
    levels = [result.floors[name][0] for name in (HONEST, LOGARITHMIC)]
    for level in (*levels, 0.9 * result.variance):
        ax.axhline(level, color="black", lw=1, ls=(0, (4, 2)))
    plots.few_ticks(ax.xaxis, [10, 100, 1000])
    plots.few_ticks(ax.yaxis, [0.01, 0.1, 1, 10, 100])
    room = plots.Room(ax)
    for level in levels:
        room.block(ax.get_xlim(), (level, level))
    paths = {
        label: room.block(step[1:], losses.mean(0)[1:], width=10) for label, (step, losses) in result.rule_1.items()
    }
    for label, path in paths.items():
        room.near(path, label, prefer=(0.7, 0.5), color=colors[label] if colors[label] != plots.GREY else "#666666")
    ax = axes["two"]
    degree = np.arange(HIGHEST + 1)
    ax.set(yscale="log", ylim=(1e-2, 1e7), xlim=(-0.3, 8.6), xlabel="degree of the polynomial", ylabel="loss, °C²")
    ax.set_title("Rule 2: degree by degree through 9 readings")
    for column, color, dash, label in (
        (0, plots.BLUE, "-", "9 readings it is fitted to"),
        (1, plots.RED, "--", "2 readings it never sees"),
    ):
        values = np.where(result.degrees[:, column] > 1e-12, result.degrees[:, column], np.nan)
        ax.plot(degree, values, color=color, ls=dash)
        ax.plot(degree, values, "o", color=color, ms=6, mec="white")
        ax.text(0.3 if column else 3.2, 4e3 if column else 0.09, label, color=color)
    arrow = {"arrowstyle": "-|>", "color": plots.BLUE, "lw": 1.7}
    ax.annotate("", (8, 1e-2), (7, result.degrees[7, 0]), arrowprops=arrow)
    ax.annotate("0", (8, 1e-2), (7, 4), textcoords="offset points", color=plots.BLUE)
    ax.annotate(
        f"{result.degrees[-1, 1]:,.0f}",
        (8, result.degrees[-1, 1]),
        (-8, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        color=plots.RED,
    )
    ax.annotate(
        f"the line: {result.degrees[1, 1]:.2f}",
        (1, result.degrees[1, 1]),
        (6, 8),
        textcoords="offset points",
        color=plots.RED,
    )
    plots.few_ticks(ax.yaxis, [0.01, 1, 100, 1e4, 1e6])
    return figure


def draw_split(result: Result):
    space = {"wspace": 0.22, "top": 0.86, "left": 0.065, "right": 0.98, "bottom": 0.12}
    figure, axes = plots.panels([["split", "through"]], size=(12, 5.2), gridspec_kw=space)
    figure.suptitle(
        "One process, two samples: a good fit to the first proves nothing about the second", x=0.065, ha="left"
    )
    t_u, t_c = jf.datasets.thermometer()
    train, validation = jf.datasets.thermometer_split()
    ends = np.array([18.0, 86.0])
    line = 5 / 9 * (ends - 32)
    spread = float(np.std(t_c - 5 / 9 * (t_u - 32)))
    ax = axes["split"]
    for width, alpha in ((2, 0.12), (1, 0.2)):
        ax.fill_between(ends, line - width * spread, line + width * spread, color=plots.GREEN, alpha=alpha, lw=0)
    ax.plot(ends, line, color=plots.GREEN, lw=1.6)
    ax.plot(*train, "o", color=plots.BLUE, ms=8, mec="white")
    ax.plot(*validation, "D", color=plots.RED, ms=8, mec="white")
    ax.set(
        xlim=ends, ylim=(-12, 34), xlabel="reading, unknown unit", ylabel="temperature, °C", yticks=[-10, 0, 10, 20, 30]
    )
    ax.set_title("The process draws 11 readings; 2 are held out")
    ax.text(62, 6, f"the process: 5/9 (t − 32)\nand noise of {spread:.1f} °C", color=plots.GREEN)
    ax.text(20, 27, "9 to train on", color=plots.BLUE, weight="bold")
    ax.text(20, 23, "2 to validate with", color=plots.RED, weight="bold")
    ax = axes["through"]
    ax.set(xlim=ends, ylim=(-60, 80), xlabel="reading, unknown unit", ylabel="temperature, °C")
    ax.plot(BETWEEN, result.excursion, color=plots.PINK, lw=1.8)
    ax.plot(ends, line, color=plots.GREEN, lw=1.4)
    ax.plot(t_u, t_c, "o", color=plots.DARK, ms=7, mec="white", zorder=3)
    low, high = result.excursion.min(), result.excursion.max()
    ax.set_title("Degree 10 through all 11: no error there, large ones between")
    words = f"between the readings\nfrom {low:,.0f} °C\nto {high:,.0f} °C".replace("-", "−")
    ax.text(38, -48, words, color=plots.PINK, weight="bold")
    return figure
