"""Remedies for overfitting: each lowers the error up to some strength and raises it beyond; all make the curve smooth.

Thirty Gaussian bumps are fitted to 15 noisy points of a wave. Without a remedy they meet every point, and miss the
wave by more than the noise. Three penalties are swept over their strengths: on the size of the coefficients (l2), on
second differences between the points (smoothness), and noise on the inputs, drawn anew in every update. Each error,
measured against the true wave, is lowest at a strength in between, and is the one of the closed-form solution; but for
the smallest noise, where the closed form is far off and 6,000 updates too few to get there: to stop early is a remedy,
too. A simpler model is the fourth one: polynomials of degree 0 to 13, of which 4 is best.

More data is the fifth, if there are enough to see what is there. A sine of frequency 5, among harmonics up to 8, is
found from 14 equally spaced samples on; from fewer, a lower or higher wave meets them as well, and gradient descent
from zero gives half of the amplitude to each, or all of it to neither at the 10 samples which fall on the sine's
zeros.

Source: Stevens, Antiga and Viehmann, Deep Learning with PyTorch (2020), section 5.5.3, which names the remedies; that
input noise is a penalty on slopes is of Bishop (1995), doi:10.1162/neco.1995.7.1.108. Cost: half a minute on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

from .overfitting import NOISE, measured, truth

CENTERS, WIDTH = np.linspace(-1.2, 1.2, 30), 0.15
GRID = np.linspace(-1, 1, 401)
BENDS = np.linspace(-1, 1, 81)  # where smoothness looks
COPIES = 20  # of the data in each update with noise, for a gradient with less noise
REACHED = 0.09  # noise from which on the updates are enough to reach the closed form
HIGHEST = 13
FREQUENCY, HARMONICS = 5, np.arange(1, 9)


@dataclass(frozen=True)
class Config:
    points: int = 15
    strengths: int = 25
    noises: int = 12
    steps: int = 20_000
    noisy_steps: int = 6_000
    beta: float = 0.995


SECONDS = 18
QUICK = {"strengths": 9, "noises": 4, "noisy_steps": 3_000}
BREAK = {"beta": 0.0}  # without momentum the flat directions are not reached in time
ROWS = {"DLWPT-5.5.3.cures": ""}


def bumps(coefficients, x):
    return jnp.exp(-((x[:, None] - CENTERS[None]) ** 2) / (2 * WIDTH**2)) @ coefficients


def waves(coefficients, x):
    angles = jnp.pi * x[:, None] * HARMONICS[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1) @ coefficients


class Cure(NamedTuple):
    """One remedy."""

    strength: np.ndarray  # (k,)
    error: np.ndarray  # (k,) mean squared distance of the fit from the truth
    theory: np.ndarray  # (k,) that of the closed-form solution
    curves: np.ndarray  # (k, points) the fits, on GRID


class Result(NamedTuple):
    data: tuple[np.ndarray, np.ndarray]
    none: Cure  # a strength of almost zero
    l2: Cure
    smooth: Cure
    noise: Cure
    degree: Cure
    samples: Cure  # the strength is their number


def compute(config: Config) -> Result:
    x, y = data = measured(config.points, 11)
    design, gram = features(x), np.eye(len(CENTERS))
    bends = second_differences()
    strengths = np.geomspace(1e-5, 1, config.strengths)
    plain = jf.losses.mse(bumps)
    l2 = penalized(config, data, strengths, lambda axis: plain + jf.losses.l2(axis), gram)
    curvature = bends.T @ bends / len(bends)
    smooth = penalized(
        config, data, 2 * strengths, lambda axis: plain + jf.losses.smoothness(bumps, strength=axis, x=BENDS), curvature
    )
    least = np.linalg.lstsq(
        np.concatenate([design, 1e-5 * gram]), np.concatenate([y, np.zeros(len(gram))]), rcond=None
    )[0]
    none = scored(np.zeros(1), least[None], least[None])
    return Result(data, none, l2, smooth, noisy(config, data), degrees(data), samples())


def features(x: np.ndarray, spread: float = WIDTH) -> np.ndarray:
    """(n, bumps), of that width and of the height that averages over input noise give."""
    return WIDTH / spread * np.exp(-((x[:, None] - CENTERS) ** 2) / (2 * spread**2))


def second_differences() -> np.ndarray:
    """(points, bumps): the bends that smoothness penalizes."""
    values, gap = features(BENDS), BENDS[1] - BENDS[0]
    return np.diff(values, 2, axis=0) / gap**2


def scored(strength: np.ndarray, found: np.ndarray, exact: np.ndarray) -> Cure:
    curves, ideal = found @ features(GRID).T, exact @ features(GRID).T
    return Cure(strength, error(curves), error(ideal), curves)


def error(curves: np.ndarray) -> np.ndarray:
    return np.mean((curves - truth(GRID)) ** 2, axis=-1)


def penalized(config: Config, data: Any, strengths: np.ndarray, loss: Any, penalty: np.ndarray) -> Cure:
    """mean(r^2) + strength c'Pc, by descent with momentum; and the solution (A'A / n + strength P) c = A'y / n."""
    x, y = data
    design = features(x)
    curvatures = [design.T @ design / len(x) + strength * penalty for strength in strengths]
    rates = 1 / np.array([2 * np.linalg.eigvalsh(curvature)[-1] for curvature in curvatures])
    found = jf.sweep(
        loss(jf.Axis("strength", strengths)), np.zeros(len(CENTERS)), data,
        optimizer=jf.optimizers.nesterov(jf.Axis("strength", rates), config.beta), steps=config.steps,
        precision="float64",
    ).results  # fmt: skip
    exact = np.array([np.linalg.solve(curvature, design.T @ y / len(x)) for curvature in curvatures])
    return scored(strengths, found["params"].values, exact)


def noisy(config: Config, data: Any) -> Cure:
    """Adam on inputs with noise; and the least squares of the loss averaged over all noise."""
    x, y = (np.tile(column, COPIES) for column in data)
    scales = np.geomspace(0.03, 0.5, config.noises)
    axis: Any = jf.Axis("scale", scales)
    loss = jf.losses.input_noise(jf.losses.mse(bumps), scale=axis)
    rate = jf.optimizer(falling, learning_rate=0.05, steps=float(config.noisy_steps))
    found = jf.sweep(
        loss, np.zeros(len(CENTERS)), (x, y), optimizer=rate, steps=config.noisy_steps, key=3
    ).results  # fmt: skip
    exact = [averaged(data, scale) for scale in scales]
    return scored(scales, found["params"].values.astype(float), np.array(exact))


def falling(learning_rate, steps):
    """Adam with a rate that falls to zero along a cosine."""
    import optax

    return optax.adam(lambda t: learning_rate * (1 + jnp.cos(jnp.pi * t / steps)) / 2)


def averaged(data: Any, scale: float) -> np.ndarray:
    """The least squares of E mean((A(x + scale z) c - y)^2): a mean of A, and of A'A, both integrals over Gaussians."""
    x, y = data
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    stacked = [features(x + scale * z) for z in nodes]
    second = sum(w * a.T @ a for w, a in zip(weights, stacked, strict=True)) / len(x)
    first = sum(w * a for w, a in zip(weights, stacked, strict=True)).T @ y / len(x)
    return np.linalg.lstsq(second, first, rcond=1e-9)[0]


def degrees(data: Any) -> Cure:
    """Polynomials of all degrees, each in one update; and NumPy's."""
    x, y = data
    model = jf.models.orthogonal_polynomial(HIGHEST, x)

    def loss(params, x, y, allowed):
        return jnp.mean((model({"coefficients": allowed * params}, x) - y) ** 2)

    allowed = jf.Axis("degree", np.tril(np.ones((HIGHEST + 1, HIGHEST + 1))))
    found = jf.sweep(
        loss, np.zeros(HIGHEST + 1), (x, y, allowed), optimizer=jf.optimizers.sgd(0.5), steps=1, precision="float64"
    ).results["params"].values  # fmt: skip
    curves = np.array([np.asarray(model({"coefficients": row}, GRID)) for row in found])
    ideal = np.array([np.polynomial.Polynomial.fit(x, y, d)(GRID) for d in range(HIGHEST + 1)])
    return Cure(np.arange(HIGHEST + 1), error(curves), error(ideal), curves)


def samples() -> Cure:
    """A sine from more and more samples; its mean squared error over that of saying nothing."""
    counts = np.arange(4, 25)
    sets = [(x, np.sin(np.pi * FREQUENCY * x)) for x in (-1 + 2 * np.arange(n) / n for n in counts)]
    padded = (jf.Axis("samples", values, counts.tolist()) for values in jf.datasets.pad(sets))
    found = jf.sweep(
        jf.losses.mse(waves, masked=True), np.zeros(2 * len(HARMONICS)), tuple(padded),
        optimizer=jf.optimizers.sgd(0.15), steps=400, precision="float64",
    ).results["params"].values  # fmt: skip
    angles = np.pi * GRID[:-1, None] * HARMONICS
    curves = found @ np.concatenate([np.sin(angles), np.cos(angles)], axis=1).T
    wave = np.sin(np.pi * FREQUENCY * GRID[:-1])
    missed = np.mean((curves - wave) ** 2, axis=1) / np.mean(wave**2)
    return Cure(counts, missed, np.array([aliased(int(n)) for n in counts]), curves)


def aliased(n: int) -> float:
    """The share of the sine that is missed, if k waves of the model look the same at n samples: 1 - 1 / k.

    Frequency f looks as n m - f and n m + f do, with their sign; where it is its own mirror image its sine is unseen.
    """
    if (2 * FREQUENCY) % n == 0:
        return 1.0
    partners = [h for h in HARMONICS if (h - FREQUENCY) % n == 0 or (h + FREQUENCY) % n == 0]
    return 1 - 1 / len(partners)


def checks(result: Result) -> list[Check]:
    row = "DLWPT-5.5.3.cures"
    rows = []
    for name, cure, least, tolerance in (
        ("l2", result.l2, 0, 0.02), ("smoothness", result.smooth, 0, 0.02), ("input noise", result.noise, REACHED, 0.1),
        ("degree", result.degree, 0, 1e-6),
    ):  # fmt: skip
        best, there = int(cure.error.argmin()), cure.strength >= least
        rows += [
            Check(f"{name}: error by strength{f', from {least} on' if least else ''}", cure.theory[there],
                  cure.error[there], tolerance * cure.theory[there], f"{row}, closed form"),
            Check(f"{name}: it is neither the weakest nor the strongest that is best", True,
                  0 < best < len(cure.error) - 1, source=row),
            Check(f"{name}: least error, of that without a remedy: below a half", True,
                  bool(cure.error[best] < 0.5 * result.none.error[0]), source=row),
        ]  # fmt: skip
    return [
        *rows,
        Check("the least input noise: the run, stopped early, errs less than half as much as the closed form", True,
              bool(result.noise.error[0] < 0.5 * result.noise.theory[0]), source=row),
        Check("samples: share of the sine that is missed", result.samples.theory, result.samples.error, 1e-6,
              f"{row}, aliasing"),
        Check("samples: the fewest that find it", FREQUENCY + HARMONICS[-1] + 1,
              int(result.samples.strength[result.samples.error > 1e-3].max() + 1), source=f"{row}, aliasing"),
    ]  # fmt: skip


def draw(result: Result):
    space = {"hspace": 0.5, "wspace": 0.25, "top": 0.87, "left": 0.065, "right": 0.98, "bottom": 0.075}
    mosaic = [["none", "l2", "smooth"], ["noise", "degree", "samples"]]
    figure, axes = plots.panels(mosaic, size=(13, 8), gridspec_kw=space)
    figure.suptitle(
        "Remedies for overfitting: each lowers the error up to some strength, and raises it beyond", x=0.065, ha="left"
    )
    words = "Error: mean squared distance from the true wave. Dots: fits. Lines: closed form. Dotted: noise variance."
    figure.text(0.065, 0.925, words, color="#555555")
    ax, (x, y) = axes["none"], result.data
    best = result.smooth.curves[result.smooth.error.argmin()]
    ax.plot(GRID, truth(GRID), color="#bbbbbb", lw=3.5)
    ax.plot(GRID, result.none.curves[0], color=plots.RED, lw=1.5)
    ax.plot(GRID, best, color=plots.BLUE, lw=2)
    ax.plot(x, y, "o", color=plots.DARK, ms=5.5, mec="white", zorder=3)
    ax.set(xlim=(-1, 1), ylim=(-2.4, 2.4), xticks=[-1, 0, 1], yticks=[-2, -1, 0, 1, 2])
    ax.set_title("30 bumps, 15 points", fontsize=10.5)
    for height, words, color in (
        (0.93, f"no remedy: error {result.none.error[0]:,.0f}", plots.RED),
        (0.86, "smoothness", plots.BLUE),
        (0.79, "the truth", "#999999"),
    ):
        ax.text(
            0.03,
            height,
            words,
            color=color,
            transform=ax.transAxes,
            weight="bold",
            bbox={"fc": "white", "ec": "none", "pad": 1},
        )
    titles = {
        "l2": ("Small coefficients", "strength of l2"),
        "smooth": ("Small second differences", "strength of smoothness"),
        "noise": ("Noise on the inputs", "its standard deviation"),
        "degree": ("A simpler model", "degree of a polynomial"),
    }
    for name, (title, label) in titles.items():
        ax, cure = axes[name], getattr(result, name)
        ax.set(yscale="log", ylim=(0.01, 3), xlabel=label, ylabel="error", title=title)
        if name != "degree":
            ax.set_xscale("log")
        ax.plot(cure.strength, cure.theory, color=plots.BLUE)
        ax.plot(cure.strength, cure.error, "o", color=plots.BLUE, ms=5, mec="white", mew=0.6)
        ax.axhline(NOISE**2, color=plots.GREY, lw=1.1, ls=":")
        at = int(cure.error.argmin())
        ax.annotate(f"{cure.error[at]:.3f}", (cure.strength[at], cure.error[at]), (0, -15), textcoords="offset points",
                    ha="center", weight="bold", color=plots.BLUE)  # fmt: skip
        plots.few_ticks(ax.yaxis, [0.01, 0.1, 1])
        if name != "degree":
            plots.few_ticks(ax.xaxis, plots.round_ticks(cure.strength[0], cure.strength[-1]))
    axes["noise"].text(0.031, 0.02, "stopped early: below the closed form", color=plots.BLUE, fontsize=9)
    plots.few_ticks(axes["degree"].xaxis, range(0, HIGHEST + 1, 2))
    ax, cure = axes["samples"], result.samples
    ax.step(cure.strength, cure.theory, where="mid", color=plots.BLUE)
    ax.plot(cure.strength, cure.error, "o", color=plots.BLUE, ms=5, mec="white", mew=0.6)
    ax.set(
        title="More data",
        xlabel="samples of a sine of frequency 5",
        ylabel="share of it that is missed",
        yticks=[0, 0.5, 1],
    )
    ax.annotate("found from 14 on:\n5 + 8 < samples", (14, 0), (6, 22), textcoords="offset points", color=plots.BLUE)
    plots.few_ticks(ax.xaxis, [5, 10, 14, 20])
    return figure
