"""Thousands of decays fitted at once: the scatter of the estimates is the one that Fisher's information gives.

Each data set is the same decay to a level, with noise of its own. A guess from each data set starts its fit, all
in one sweep. Where the noise is small, the least-squares estimates are normal around the truth, with the covariance
noise**2 (J^T J)^-1 of the Jacobian at the truth; a fit's own standard error, which knows neither the truth nor the
noise, covers the truth as often as Student's t says.

Source: Seber and Wild, Nonlinear Regression (1989), section 2.1; Massey (1951), doi:10.1080/01621459.1951.10500769, for
the distance between a sample and a law. Cost: some seconds on a CPU.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.stats

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

MODEL = jf.models.exponential_decay + jf.models.constant
NAMES = ("amplitude", "rate", "offset")
TRUTH = dict(zip(NAMES, (2.0, 1.3, 0.5), strict=True))
POINTS = 50
SEBER, MASSEY = "Seber and Wild 1989, 2.1", "Massey 1951"


@dataclass(frozen=True)
class Config:
    noise: float = 0.03
    count: int = 10_000
    seed: int = 1


SECONDS = 13
QUICK = {"count": 2_000}
BREAK = {"noise": 0.5}  # too much noise for a law of small noise: the estimates are skewed
ROWS = {}


class Result(NamedTuple):
    noise: float
    x: np.ndarray  # (50,)
    some: np.ndarray  # (50,) one of the data sets
    curve: np.ndarray  # (50,) fitted to it
    found: np.ndarray  # (count, 3) params
    covered: np.ndarray  # (3,) fraction of the data sets whose 95 % interval holds the truth
    converged: int
    covariance: np.ndarray  # (3, 3) by Fisher's information

    @property
    def errors(self) -> np.ndarray:
        return np.sqrt(np.diag(self.covariance))

    @property
    def standard(self) -> np.ndarray:
        """(count, 3) distances from the truth in standard errors."""
        return (self.found - np.array([*TRUTH.values()])) / self.errors

    @property
    def inside(self) -> float:
        """The fraction in the ellipse that should hold 95 % of amplitudes and rates."""
        off = self.found[:, :2] - np.array([TRUTH["amplitude"], TRUTH["rate"]])
        square = np.einsum("ni,ij,nj->n", off, np.linalg.inv(self.covariance[:2, :2]), off)
        return float(np.mean(square < scipy.stats.chi2.ppf(0.95, 2)))


def compute(config: Config) -> Result:
    x = np.linspace(0, 4, POINTS)
    falling = np.exp(-TRUTH["rate"] * x)
    clean = TRUTH["amplitude"] * falling + TRUTH["offset"]
    y = clean + config.noise * np.random.default_rng(config.seed).standard_normal((config.count, POINTS))
    sets = jf.Axis("set", y)
    grid = jf.sweep(
        jf.losses.rss(MODEL), jf.Call(MODEL.guess, x, sets), (x, sets), steps=100,
        optimizer=jf.optimizers.levenberg_marquardt(),
    )  # fmt: skip
    errors = jf.standard_errors(grid)
    names = [f"params.{name}" for name in NAMES]
    found, own = (np.stack([values[name].values for name in names], axis=1) for values in (grid.results, errors))
    reach = scipy.stats.t.ppf(0.975, POINTS - 3) * own
    jacobian = np.stack([falling, -TRUTH["amplitude"] * x * falling, np.ones(POINTS)], axis=1)
    return Result(
        noise=config.noise,
        x=x,
        some=y[0],
        curve=found[0, 0] * np.exp(-found[0, 1] * x) + found[0, 2],
        found=found,
        covered=np.mean(np.abs(found - np.array([*TRUTH.values()])) < reach, axis=0),
        converged=int((grid.results.status == jf.Status.CONVERGED).sum()),
        covariance=config.noise**2 * np.linalg.inv(jacobian.T @ jacobian),
    )


def checks(result: Result) -> list[Check]:
    count, standard = len(result.found), result.standard
    chance = 3.5 * (0.05 * 0.95 / count) ** 0.5
    distances = [scipy.stats.kstest(column, "norm").statistic for column in standard.T]
    correlation = result.covariance[0, 1] / result.errors[0] / result.errors[1]
    return [
        Check("fits that converged", count, result.converged, source="every one"),
        Check("means, in standard errors", [0, 0, 0], standard.mean(0), 4 / count**0.5, SEBER),
        Check("standard deviations, in standard errors", [1, 1, 1], standard.std(0), 4 / (2 * count) ** 0.5, SEBER),
        Check("distance from the normal law", [0, 0, 0], distances, 1.95 / count**0.5, f"{MASSEY}, one in a thousand"),
        Check("correlation of amplitude and rate", correlation, np.corrcoef(result.found.T)[0, 1],
              4 * (1 - correlation**2) / count**0.5, SEBER),
        Check("in the ellipse of 95 %", 0.95, result.inside, chance, SEBER),
        Check("truth within the 95 % interval of a fit's own", [0.95] * 3, result.covered, chance, "Student's t"),
    ]  # fmt: skip


def draw(result: Result):
    figure, axes = plots.panels(
        [["curves", "histogram", "pairs"]], size=(11.5, 3.7), gridspec_kw={"wspace": 0.25, "left": 0.05, "right": 0.98}
    )
    draw_curves(result, axes["curves"])
    draw_histogram(result, axes["histogram"])
    draw_pairs(result, axes["pairs"])
    return figure


def draw_curves(result: Result, ax) -> None:
    ax.set(xlim=(-0.06, 4.06), ylim=(0.3, 2.8), xlabel="x", ylabel="y")
    ax.set_title(f"One of {len(result.found):,} data sets")
    plots.few_ticks(ax.xaxis, [0, 1, 2, 3, 4])
    plots.few_ticks(ax.yaxis, [0.5, 1, 1.5, 2, 2.5])
    ax.plot(result.x, result.some, "o", color=plots.DARK, ms=3, mew=0)
    ax.plot(result.x, result.curve, color=plots.BLUE, lw=1.4)
    ax.text(1.1, 1.6, "amplitude $e^{-\\mathrm{rate}\\,x}$ + offset", color=plots.DARK)


def draw_histogram(result: Result, ax) -> None:
    rate, error = result.found[:, 1], result.errors[1]
    edges = TRUTH["rate"] + error * np.linspace(-4, 4, 41)
    ax.hist(rate, edges, density=True, color=plots.SKY, alpha=0.55, lw=0)
    fine = np.linspace(edges[0], edges[-1], 300)
    law = scipy.stats.norm.pdf(fine, TRUTH["rate"], error)
    ax.plot(fine, law, color=plots.DARK, lw=1.4)
    ax.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.15 * law.max()), yticks=[], xlabel="rate found")
    ax.set_title("The rates found scatter by the law")
    ax.spines["left"].set_visible(False)
    plots.few_ticks(ax.xaxis, [1.2, 1.25, 1.3, 1.35, 1.4])
    room = plots.Room(ax)
    room.keep((TRUTH["rate"] - 2.4 * error, 0), (TRUTH["rate"] + 2.4 * error, 0.45 * law.max()))
    ax.text(TRUTH["rate"], 0.2 * law.max(), f"found:\n± {rate.std():.4f}", color=plots.BLUE, ha="center", va="center")
    room.near(room.block(fine, law), f"Fisher's law:\n± {error:.4f}", color=plots.DARK, prefer=(0.9, 0.8))


def draw_pairs(result: Result, ax) -> None:
    few, center = result.found[:1500], np.array([TRUTH["amplitude"], TRUTH["rate"]])
    turn = np.linspace(0, 2 * np.pi, 200)
    root = np.linalg.cholesky(result.covariance[:2, :2]) * scipy.stats.chi2.ppf(0.95, 2) ** 0.5
    ring = center[:, None] + root @ np.stack([np.cos(turn), np.sin(turn)])
    ax.plot(few[:, 0], few[:, 1], "o", color=plots.BLUE, ms=1.6, mew=0, alpha=0.5, zorder=1)
    ax.plot(*ring, color=plots.DARK, lw=1.4, zorder=2)
    ax.set(xlim=center[0] + result.errors[0] * np.array([-4, 4]), ylim=center[1] + result.errors[1] * np.array([-4, 4]))
    ax.set(xlabel="amplitude found", ylabel="rate found")
    ax.set_title(f"{100 * result.inside:.1f} % in the ellipse of 95 %")
    plots.few_ticks(ax.xaxis, [1.95, 2, 2.05])
    plots.few_ticks(ax.yaxis, [1.2, 1.3, 1.4])
