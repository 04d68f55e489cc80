"""Kepler's seven steps, with gradient descent: of four curves through the orbit of Mars the ellipse predicts best.

Get data (simulated: Mars for six years, distances to 0.001 AU, which at its distance is about the two minutes of arc
of Tycho Brahe's instruments); look at them; choose the simplest curve that may do (the ellipse r = p / (1 + e cos t)
with the Sun in a focus); keep a quarter of the observations for validation; start from a tentative size and
eccentricity (p = 1, e = 0) and iterate; validate; look back. A circle around the Sun misses by a fifteenth of the
distance. A circle around another point misses by so little that only good data tell: the orbit of Mars is 0.4 %
narrower than it is long. An oval of 33 numbers fits the training data best and predicts worse than the ellipse. With
the ellipse the areas that Mars sweeps in equal times are equal, which is the second law; the answer is that of least
squares, and without noise that of the straight line 1 / r = 1 / p + (e / p) cos t.

Source: Stevens, Antiga and Viehmann, Deep Learning with PyTorch (2020), section 5.1 and figure 5.1, without
data. Orbital elements of Mars: a = 1.5237 AU, e = 0.0934, period 1.881 years. Cost: some seconds on a CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

AXIS, ECCENTRICITY, PERIOD = 1.5237, 0.0934, 1.881  # AU, 1, years
SIZE = AXIS * (1 - ECCENTRICITY**2)  # p, the semi-latus rectum
NARROW = np.sqrt(1 - ECCENTRICITY**2)  # the short axis over the long one
HARMONICS = 16
SECTORS = 12


@dataclass(frozen=True)
class Config:
    noise: float = 1e-3  # AU
    years: float = 6.0
    observations: int = 120
    validation: float = 0.25
    seed: int = 1609


SECONDS = 14
QUICK = {}
BREAK = {"noise": 1e-2}  # then the circle around another point is as good
ROWS = {"DLWPT-5.1": "", "DLWPT-F5.1": ""}


def circle(params, t):
    """Around the Sun."""
    return params["radius"] + 0 * t


def eccentric(params, t):
    """A circle around a point that lies `offset` from the Sun, away from the perihelion."""
    return jnp.sqrt(params["radius"] ** 2 - (params["offset"] * jnp.sin(t)) ** 2) - params["offset"] * jnp.cos(t)


def ellipse(params, t):
    """With the Sun in a focus."""
    return params["p"] / (1 + params["e"] * jnp.cos(t))


def oval(params, t):
    """Any smooth closed curve: a Fourier series of 2 HARMONICS + 1 numbers."""
    angles = jnp.expand_dims(t, -1) * jnp.expand_dims(jnp.arange(1, HARMONICS + 1), 0)
    return params["mean"] + jnp.cos(angles) @ params["cos"] + jnp.sin(angles) @ params["sin"]


CANDIDATES: dict[str, tuple[Callable, dict]] = {
    "circle around the Sun": (circle, {"radius": 1.0}),
    "circle around another point": (eccentric, {"radius": 1.0, "offset": 0.0}),
    "ellipse": (ellipse, {"p": 1.0, "e": 0.0}),
    "oval of 33 numbers": (oval, {"mean": 1.0, "cos": np.zeros(HARMONICS), "sin": np.zeros(HARMONICS)}),
}
CIRCLE, ECCENTRIC, ELLIPSE, OVAL = CANDIDATES
COLORS = dict(zip(CANDIDATES, (plots.RED, plots.ORANGE, plots.BLUE, plots.PINK), strict=True))
Data = tuple[np.ndarray, ...]  # true anomalies in radians (from the perihelion), distances from the Sun in AU


class Result(NamedTuple):
    noise: float
    train: Data
    validation: Data
    fits: dict[str, Any]
    errors: dict[str, tuple[float, float]]  # root mean square on both, AU
    curves: dict[str, np.ndarray]  # (721,) distances over `angles`
    angles: np.ndarray  # 0 .. 2 pi
    noiseless: list[float]  # p and e that gradient descent finds without noise
    inverse: tuple[list[float], list[float]]  # p and e by the line through 1 / r: of the data, without noise
    least_squares: tuple[np.ndarray, np.ndarray]  # p and e by Levenberg-Marquardt, and their standard errors
    corners: np.ndarray  # (SECTORS + 1,) angles at equal times
    areas: dict[str, np.ndarray]  # (SECTORS,) areas swept between them, by candidate


def compute(config: Config) -> Result:
    times, noise, shuffle = jax.random.split(jax.random.key(config.seed), 3)
    t = anomaly(config.years * np.sort(np.asarray(jax.random.uniform(times, (config.observations,)), float)))
    truth = SIZE / (1 + ECCENTRICITY * np.cos(t))
    r = truth + config.noise * np.asarray(jax.random.normal(noise, (config.observations,)), float)
    train, validation = jf.datasets.split((t, r), config.validation, key=shuffle)
    fits = {name: train_on(model, start, train, validation) for name, (model, start) in CANDIDATES.items()}
    angles = np.linspace(0, 2 * np.pi, 721)
    corners = anomaly(PERIOD * np.arange(SECTORS + 1) / SECTORS)
    noiseless = train_on(ellipse, {"p": 1.0, "e": 0.0}, (t, truth), validation).params

    def predict(name: str, at: np.ndarray) -> np.ndarray:
        return np.asarray(CANDIDATES[name][0](fits[name].params, at), float)

    return Result(
        noise=config.noise,
        train=train,
        validation=validation,
        fits=fits,
        errors={name: (float(fit.loss) ** 0.5, float(fit.validation_loss) ** 0.5) for name, fit in fits.items()},
        curves={name: predict(name, angles) for name in CANDIDATES},
        angles=angles,
        noiseless=[float(noiseless["p"]), float(noiseless["e"])],
        inverse=(by_inverse(*train), by_inverse(t, truth)),
        least_squares=least_squares(*train),
        corners=corners,
        areas={name: swept(lambda at, n=name: predict(n, at), corners) for name in (CIRCLE, ELLIPSE)},
    )


def train_on(model: Callable, start: dict, train: Data, validation: Data) -> Any:
    return jf.fit(
        jf.losses.mse(model), start, train, validation=validation, optimizer=jf.optimizers.sgd(0.3), steps=3000,
        stop=jf.Stop(gradient_norm_below=1e-9), precision="float64",
    )  # fmt: skip


def anomaly(times: np.ndarray) -> np.ndarray:
    """The angle at the Sun some years after the perihelion, by the second law (Kepler's equation M = E - e sin E)."""
    mean = 2 * np.pi * times / PERIOD
    eccentric = mean.copy()
    for _ in range(20):  # Newton
        eccentric -= (eccentric - ECCENTRICITY * np.sin(eccentric) - mean) / (1 - ECCENTRICITY * np.cos(eccentric))
    half = np.sqrt((1 + ECCENTRICITY) / (1 - ECCENTRICITY)) * np.tan(eccentric / 2)
    turns = np.round(eccentric / (2 * np.pi))
    return 2 * np.arctan(half) + 2 * np.pi * turns


def by_inverse(t: np.ndarray, r: np.ndarray) -> list[float]:
    slope, constant = np.polyfit(np.cos(t), 1 / r, 1)
    return [float(1 / constant), float(slope / constant)]


def least_squares(t: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p and e of least squares, and their standard errors for noise of 1 AU."""
    fit = jf.curve_fit(ellipse, {"p": 1.0, "e": 0.0}, (t, r), sigma=1.0, absolute_sigma=True)
    errors = jf.standard_errors(fit)
    return tuple(np.array([tree["p"], tree["e"]]) for tree in (fit.params, errors))  # pyright: ignore[reportReturnType]


def swept(distance: Callable, corners: np.ndarray) -> np.ndarray:
    """The areas under r(t) between successive angles: the integral of r^2 / 2."""
    middles = (np.arange(400) + 0.5) / 400
    at = corners[:-1, None] + np.diff(corners)[:, None] * middles
    return np.mean(distance(at.ravel()).reshape(at.shape) ** 2, axis=1) / 2 * np.diff(corners)


def checks(result: Result) -> list[Check]:
    params = result.fits[ELLIPSE].params
    found = [float(params["p"]), float(params["e"])]
    best, scale = result.least_squares
    errors, sector = result.errors, np.pi * AXIS**2 * NARROW / SECTORS
    count = len(result.validation[0])
    validation = {name: both[1] for name, both in errors.items()}
    off = ((0.25 * ECCENTRICITY**2 * AXIS) ** 2 / 2 + 1e-6) ** 0.5
    return [
        Check("every candidate: outcome", ["CONVERGED"] * 4, [fit.status.name for fit in result.fits.values()],
              source="DLWPT-5.1, step 5"),
        Check("ellipse: p and e", best, np.array(found), 1e-7, "DLWPT-5.1, Levenberg-Marquardt"),
        Check("ellipse: p and e, three standard errors from Mars", [SIZE, ECCENTRICITY], found,
              3e-3 * scale, "DLWPT-5.1, truth"),
        Check("ellipse: p and e without noise", [SIZE, ECCENTRICITY], result.noiseless, 1e-7, "DLWPT-5.1, truth"),
        Check("line through 1 / r, without noise: p and e", [SIZE, ECCENTRICITY], result.inverse[1], 1e-12,
              "DLWPT-5.1, closed form"),
        Check("line through 1 / r: p and e", found, result.inverse[0], 2e-3 * scale, "DLWPT-5.1, closed form"),
        Check("circle around the Sun: radius", float(np.mean(result.train[1])),
              float(result.fits[CIRCLE].params["radius"]), 1e-8, "DLWPT-F5.1, mean distance"),
        Check("circle around the Sun: error on new observations", AXIS * ECCENTRICITY / 2**0.5,
              validation[CIRCLE], 0.02, "DLWPT-F5.1, a e / sqrt(2)"),
        Check("circle around another point: error on old observations", off, errors[ECCENTRIC][0], 0.15 * off,
              "DLWPT-F5.1, a e^2 / 4 cos 2t, and the noise"),
        Check("the ellipse predicts new observations best", ELLIPSE, min(validation, key=validation.__getitem__),
              source="DLWPT-F5.1, validation"),
        Check("ellipse: error on new observations", 1e-3, validation[ELLIPSE], 3e-3 / (2 * count) ** 0.5,
              "DLWPT-F5.1, the noise"),
        Check("oval: smaller error on old ones", True, errors[OVAL][0] < 0.9 * errors[ELLIPSE][0], source="DLWPT-F5.1"),
        Check("oval: larger error on new ones", True, validation[OVAL] > 1.05 * validation[ELLIPSE],
              source="DLWPT-F5.1"),
        Check("areas in equal times, under the ellipse", sector, result.areas[ELLIPSE], 1e-3 * sector,
              "DLWPT-5.1, pi a b / 12"),
        Check("largest over smallest area under the circle", ((1 + ECCENTRICITY) / (1 - ECCENTRICITY)) ** 2,
              float(np.max(result.areas[CIRCLE]) / np.min(result.areas[CIRCLE])), 0.03,
              "DLWPT-5.1, ((1 + e) / (1 - e))^2"),
    ]  # fmt: skip


def draw(result: Result):
    space = {"wspace": 0.28, "hspace": 0.45, "top": 0.85, "left": 0.05, "right": 0.98, "bottom": 0.09}
    figure, axes = plots.panels(
        [["orbit", "residuals"], ["orbit", "errors"]], size=(11.5, 6.6), width_ratios=[1.2, 1], gridspec_kw=space
    )
    params, scale = result.fits[ELLIPSE].params, result.noise * result.least_squares[1]
    figure.suptitle("Kepler's ellipse, found by gradient descent", x=0.05, ha="left")
    text = (
        f"Six simulated years of Mars: p = {params['p']:.4f} ± {scale[0]:.4f} AU, "
        f"e = {params['e']:.5f} ± {scale[1]:.5f}. Truth: {SIZE:.4f}, {ECCENTRICITY:.4f}."
    )
    figure.text(0.05, 0.91, text, color="#555555")
    draw_orbit(result, axes["orbit"])
    draw_residuals(result, axes["residuals"])
    draw_errors(result, axes["errors"])
    return figure


def plane(t: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return r * np.cos(t), r * np.sin(t)


def draw_orbit(result: Result, ax) -> None:
    ax.set(aspect="equal", xlim=(-1.85, 1.6), ylim=(-1.75, 1.75), xticks=[], yticks=[])
    ax.set_title("Equal areas in equal times")
    ax.spines[:].set_visible(False)
    ellipse_at = result.curves[ELLIPSE]
    for i, (low, high) in enumerate(zip(result.corners[:-1], result.corners[1:], strict=True)):
        edge = np.linspace(low, high, 60)
        x, y = plane(edge, np.interp(edge % (2 * np.pi), result.angles, ellipse_at))
        ax.fill([0, *x], [0, *y], color=("#d9e8f3", "#f0f5fa")[i % 2], lw=0, zorder=0)
    ax.plot(*plane(result.angles, result.curves[CIRCLE]), color=COLORS[CIRCLE], lw=1.2, ls=(0, (4, 3)))
    ax.plot(*plane(result.angles, ellipse_at), color=COLORS[ELLIPSE])
    ax.plot(*plane(*result.train), "o", color=plots.DARK, ms=3.4, zorder=3)
    ax.plot(*plane(*result.validation), "o", mfc="white", mec=plots.DARK, ms=4.6, mew=0.9, zorder=3)
    ax.plot(0, 0, "o", color=plots.ORANGE, ms=13, zorder=4)
    center = -AXIS * ECCENTRICITY
    ax.plot(center, 0, "+", color=plots.DARK, ms=9, mew=1.3, zorder=4)
    ax.text(0.09, 0.02, "Sun, in a focus", ha="left", va="center", zorder=5)
    ax.text(center - 0.07, 0.02, "center", ha="right", va="center", zorder=5)
    ax.text(
        SIZE / (1 + ECCENTRICITY) - 0.05, 0.02, "perihelion", ha="right", va="center", color="#777777", fontsize=8.5
    )
    room = plots.Room(ax)
    paths = {name: room.block(*plane(result.angles, result.curves[name]), width=9) for name in (CIRCLE, ELLIPSE)}
    room.keep((-1.2, -1.2), (1.1, 1.2))
    room.near(paths[CIRCLE], "circle around\nthe Sun", color=COLORS[CIRCLE], prefer=(1, 0.1))
    room.near(paths[ELLIPSE], "ellipse", color=COLORS[ELLIPSE], prefer=(0.02, 0.75))
    ax.text(-1.85, -1.7, "● to fit   ○ to validate", color=plots.DARK, va="bottom")


def draw_residuals(result: Result, ax) -> None:
    degrees = np.rad2deg(result.angles)
    ax.set(xlim=(-8, 368), ylim=(-6.5, 6.5), xlabel="angle from the perihelion", ylabel="0.001 AU")
    ax.set_title("Distances, less those of the ellipse")
    ax.set_xticks([0, 90, 180, 270, 360], ["0°", "90°", "180°", "270°", "360°"])
    plots.few_ticks(ax.yaxis, [-5, 0, 5])
    ax.axhline(0, color=COLORS[ELLIPSE])
    off = {name: 1e3 * (result.curves[name] - result.curves[ELLIPSE]) for name in (ECCENTRIC, OVAL)}
    for name, values in off.items():
        ax.plot(degrees, values, color=COLORS[name], lw=1.5)
    room = plots.Room(ax)
    for (t, r), style in ((result.train, {"color": plots.DARK, "ms": 3}), (result.validation, HOLLOW)):
        at = t % (2 * np.pi)
        misses = 1e3 * (r - np.interp(at, result.angles, result.curves[ELLIPSE]))
        ax.plot(np.rad2deg(at), misses, "o", **style)
        for point in zip(np.rad2deg(at), misses, strict=True):
            room.block(*point, width=8)
    paths = {name: room.block(degrees, values) for name, values in off.items()}
    room.near(paths[ECCENTRIC], ECCENTRIC, color=COLORS[ECCENTRIC], prefer=(0.5, 0.1))
    room.near(paths[OVAL], OVAL, color=COLORS[OVAL], prefer=(0.9, 1))


HOLLOW = {"mfc": "white", "mec": plots.DARK, "ms": 4.2, "mew": 0.9}


def draw_errors(result: Result, ax) -> None:
    ax.set(xscale="log", xlim=(5e-4, 0.4), ylim=(-0.75, 3.5), yticks=[], xlabel="error, AU (root mean square)")
    ax.set_title("Errors ● on the observations fitted, ○ on new ones")
    plots.few_ticks(ax.xaxis, [1e-3, 1e-2, 0.1])
    ax.spines["left"].set_visible(False)
    ax.axvline(result.noise, color=plots.GREY, lw=0.9, ls=(0, (4, 3)), zorder=0)
    ax.text(result.noise, 3.45, " the noise", color=plots.GREY, va="top")
    for height, (name, (fitted, new)) in enumerate(reversed(result.errors.items())):
        ax.plot([fitted, new], [height] * 2, color=COLORS[name], lw=1.5)
        ax.plot(fitted, height, "o", color=COLORS[name], ms=7)
        ax.plot(new, height, "o", mfc="white", mec=COLORS[name], ms=7, mew=1.5)
        side = max(fitted, new) < 0.02
        words = f"{name}: {plots.number(float(f'{new:.3g}'))}"
        at = max(fitted, new) * 1.25 if side else min(fitted, new) / 1.25
        ax.text(at, height, words, color=COLORS[name], va="center", ha="left" if side else "right")
