"""A plane through a loss shows the curvature of its own directions alone: in a random one a saddle looks like a valley.

Along a direction d of length one the curvature of a quadratic is d'Hd. Its mean over random directions is tr(H) / N,
the mean of all eigenvalues, and it scatters little: of a saddle in 100 dimensions with 20 ways down (curvature -2.05)
and 80 up (1), only 1.9 % of random directions show any negative curvature, by the law of beta(10, 40). The plane of two
eigenvectors shows the saddle. That part is a matter of the spectrum, and -2.05 is chosen: of all saddles with 20 equal
ways down beside 80 ones it is that for which the law gives 1.9 %; with -1 it would be five in a million, with -3 18 %,
which is checked too, on the same directions.

A trained network shows the same. Its end is drawn in a random plane, normalized by filter, in the plane of its descent,
and in that of the two sharpest eigenvectors; along random directions of length one the loss hardly rises. Rounding
alone moves the end in the fourth digit.

Source: Li et al., Visualizing the loss landscape of neural nets (2018), arXiv:1712.09913. Cost: seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.stats import beta

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check
from jaxfit.problems import precision_context

SIZE, DOWN = 100, 2.05
LI = "Li et al. 2018"


@dataclass(frozen=True)
class Config:
    down: int = 20  # of the 100 eigenvalues are negative
    directions: int = 20_000


SECONDS, CHAOTIC = 23, True
QUICK = {"directions": 4_000}
BREAK = {
    "down": 25
}  # the mean curvature is 0.24 instead of 0.39, and 9.6 % of the directions show a way down, not 1.9 %
ROWS = {}


class Result(NamedTuple):
    eigenvalues: np.ndarray
    curvatures: np.ndarray  # (directions,) of the saddle's slices along random directions, measured
    exact: np.ndarray  # (directions,) d'Hd
    planes: dict[str, tuple[Any, Any]]  # of the saddle: slices and their surfaces
    fit: Any  # of the network
    hessian: np.ndarray  # at its end
    net_planes: dict[str, tuple[Any, Any]]
    along: np.ndarray  # distances
    rises: np.ndarray  # (directions, distances) of the network's loss along random directions of length one
    steepest: np.ndarray  # (distances,) along the sharpest eigenvector


def quadratic(params, hessian):
    v = params["v"].reshape(-1)
    return 0.5 * v @ hessian @ v


def away(*, center, direction, distance):
    return {"v": center + distance * direction}


def compute(config: Config) -> Result:
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
    eigenvalues = np.where(np.arange(SIZE) < config.down, -DOWN, 1.0)
    hessian = turn @ np.diag(eigenvalues) @ turn.T
    draws = unit(rng.normal(size=(config.directions, SIZE)))
    lines = jf.Call(
        away, center=np.zeros(SIZE), direction=jf.Axis("direction", draws), distance=jf.Axis("distance", [-1.0, 0, 1])
    )
    down, here, up = jf.surface(quadratic, lines, (hessian,), precision="float64").values.T
    center = {"v": np.zeros((10, 10))}
    slices = {
        "random": jf.landscapes.random_plane(center, key=1, normalize="none"),
        "hessian": jf.landscapes.hessian_plane(quadratic, center, (hessian,), which="ends"),
    }
    planes = {name: (one, jf.surface(quadratic, one.at(), (hessian,))) for name, one in slices.items()}
    return Result(
        eigenvalues=eigenvalues,
        curvatures=down + up - 2 * here,
        exact=np.einsum("ki,ij,kj->k", draws, hessian, draws),
        planes=planes,
        **network(rng),
    )


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def network(rng: np.random.Generator) -> dict[str, Any]:
    """A small network, fitted, and its landscape."""
    x = np.cos(np.pi * (np.arange(20) + 0.5) / 20)
    data = x, np.cos(4 * np.arccos(x))
    model = jf.models.dense((1, 20, 1))
    loss = jf.losses.mse(model)
    record = jf.Record(every=5, what=("loss", "params"))
    options: dict[str, Any] = {"steps": 1000, "record": record, "precision": "float64"}
    fit = jf.fit(loss, model.init(0), data, optimizer=jf.optimizers.adam(0.02), **options)
    slices = {
        "random": jf.landscapes.random_plane(fit.params, key=1),
        "descent": jf.landscapes.trajectory_plane(fit),
        "hessian": jf.landscapes.hessian_plane(loss, fit.params, data),
    }
    flat, unravel = ravel_pytree(jax.tree.map(np.asarray, fit.params))
    flat, along = np.asarray(flat, float), np.linspace(-0.5, 0.5, 41)

    def moved(*, direction, distance):
        return unravel((flat + distance * direction).astype(direction.dtype))

    steepest, _ = ravel_pytree(slices["hessian"].directions[0])
    directions = np.concatenate([np.asarray(steepest, float)[None], unit(rng.normal(size=(400, len(flat))))])
    lines = jf.Call(moved, direction=jf.Axis("direction", directions), distance=jf.Axis("distance", along))
    rises = jf.surface(loss, lines, data, precision="float64").values
    with precision_context("float64"):
        hessian = np.asarray(jax.hessian(lambda v: loss(unravel(v), *data))(flat))
    return {
        "fit": fit,
        "hessian": hessian,
        "net_planes": {name: (one, jf.surface(loss, one.at(), data)) for name, one in slices.items()},
        "along": along,
        "rises": rises[1:],
        "steepest": rises[0],
    }


def second(values: np.ndarray, along: np.ndarray) -> np.ndarray:
    """The second derivative at the middle, by the five points there."""
    middle, step = len(along) // 2, along[1] - along[0]
    weights = np.array([-1, 16, -30, 16, -1]) / (12 * step**2)
    return values[..., middle - 2 : middle + 3] @ weights


def checks(result: Result) -> list[Check]:
    values, count = result.eigenvalues, len(result.curvatures)
    spread = np.sqrt(2 / (SIZE + 2) * np.var(values))
    part, steep = beta(10, 40).sf([1 / (1 + DOWN), 0.25])
    shares = (1 - result.curvatures) / (1 + DOWN)  # of the squared length of a direction, in the ways down
    net = np.linalg.eigvalsh(result.hessian)
    found = second(result.rises, result.along)
    net_spread = np.sqrt(2 / (len(net) + 2) * np.var(net) / len(found))
    plane, _ = result.net_planes["hessian"]
    return [
        Check("saddle: curvature of every slice", result.exact, result.curvatures, 1e-12 * SIZE, f"{LI}: d'Hd"),
        Check("saddle: mean of them", 0.8 - 0.2 * DOWN, float(result.curvatures.mean()), 4 * spread / np.sqrt(count),
              f"{LI}: tr(H) / N"),
        Check("saddle: their standard deviation", spread, float(result.curvatures.std()),
              4 * spread / np.sqrt(2 * count), "theory: sqrt(2 / (N + 2)) times that of the eigenvalues"),
        Check("saddle: part of directions that show negative curvature", 0.019, float(np.mean(result.curvatures < 0)),
              4 * np.sqrt(part / count), f"{LI}: 1.9 %"),
        Check("the same by its law, beta(10, 40): the curvature of -2.05 is chosen for it", 0.019, float(part), 5e-4,
              "theory"),
        Check("the same directions, were the ways down of curvature -3", steep, float(np.mean(shares > 0.25)),
              4 * np.sqrt(steep / count), "theory: beta(10, 40)"),
        Check("plane of the Hessian: eigenvalues", [1.0, -DOWN], result.planes["hessian"][0].about["eigenvalues"], 1e-9,
              "theory"),
        Check("plane of the Hessian: the loss goes down", True, bool(result.planes["hessian"][1].min() < 0)),
        Check("random plane: the loss goes nowhere down", True, bool(result.planes["random"][1].min() >= 0)),
        Check("network: mean curvature along 400 random directions", net.mean(), float(found.mean()), 4 * net_spread,
              f"{LI}: tr(H) / N"),
        Check("network: curvature along the sharpest eigenvector", net[-1],
              float(second(result.steepest, result.along)), 2e-3 * net[-1], "largest eigenvalue"),
        Check("network: eigenvalues of the plane, over the Hessian's", np.ones(2),
              np.asarray(plane.about["eigenvalues"]) / net[[-1, -2]], 1e-6, "the Hessian"),
        Check("network: part of the descent's variance in its plane, at least 0.9", True,
              result.net_planes["descent"][0].about["captured"] > 0.9),
        Check("network: sharpest direction over the mean of random ones, at least 10", True,
              bool(net[-1] > 10 * found.mean())),
    ]  # fmt: skip


def draw(result: Result):
    return {"": saddle(result), "network": trained(result)}


def saddle(result: Result):
    space = {"wspace": 0.3, "top": 0.8, "left": 0.06, "right": 0.98, "bottom": 0.13}
    figure, axes = plots.panels([["all", "random", "hessian"]], size=(13, 4.8), gridspec_kw=space)
    figure.suptitle("A saddle with 20 descending directions looks like a valley in a random plane", x=0.06, ha="left")
    words = (
        "A quadratic in 100 dimensions: 80 eigenvalues of 1, 20 of −2.05, chosen so that the law gives 1.9 %. "
        "A random plane shows their mean, tr(H) / N."
    )
    figure.text(0.06, 0.895, words, color="#555555")
    ax = axes["all"]
    edges = np.linspace(-0.4, 1.05, 59)
    counts, _ = np.histogram(result.curvatures, edges)
    middle = (edges[1:] + edges[:-1]) / 2
    ax.bar(middle, counts, width=np.diff(edges), color=[plots.RED if m < 0 else plots.BLUE for m in middle])
    mean = result.eigenvalues.mean()
    ax.axvline(mean, color="black", lw=1.2, ls=(0, (4, 2)))
    ax.set(xlim=(-0.4, 1.05), ylim=(0, 1.22 * counts.max()), xlabel="curvature along a random direction", yticks=[])
    ax.set(title=f"{len(result.curvatures):,} directions")
    ax.text(mean + 0.02, 1.12 * counts.max(), f"tr(H) / N = {mean:.3f}")
    part = 100 * np.mean(result.curvatures < 0)
    ax.text(-0.38, 0.13 * counts.max(), f"{part:.1f} % show\na descent\n(law: 1.9 %)", color=plots.RED, weight="bold")
    ax.spines["left"].set_visible(False)
    for name, title in {
        "random": "A random plane: a valley",
        "hessian": "The plane of two eigenvectors: a saddle",
    }.items():
        one, surface = result.planes[name]
        levels = 8 if name == "random" else (-0.8, -0.5, -0.25, -0.05, 0.05, 0.25, 0.5)
        plots.landscape(surface, one, levels=levels, ax=axes[name])
        axes[name].set_title(title)
    return figure


def trained(result: Result):
    space = {"wspace": 0.24, "hspace": 0.36, "top": 0.88, "left": 0.07, "right": 0.97, "bottom": 0.07}
    layout = [["random", "descent"], ["hessian", "lines"]]
    figure, axes = plots.panels(layout, size=(11.5, 9.6), gridspec_kw=space)
    figure.suptitle("The end of one training run: three planes through it, and lines", x=0.07, ha="left")
    words = (
        "61 params of a network fitted to the Chebyshev polynomial T₄ by Adam; its path is projected onto each plane."
    )
    figure.text(0.07, 0.928, words, color="#555555")
    for name in ("random", "descent", "hessian"):
        one, surface = result.net_planes[name]
        plots.landscape(surface, one, {"Adam": result.fit}, ax=axes[name])
    ax = axes["lines"]
    top = 1.15 * result.steepest.max()
    ax.plot(result.along, result.rises[:60].T, color=plots.BLUE, lw=0.6, alpha=0.5)
    ax.plot(result.along, result.steepest, color=plots.RED, lw=2)
    ax.set(xlim=(-0.5, 0.5), ylim=(0, top), xlabel="distance from the end", ylabel="loss")
    net = np.linalg.eigvalsh(result.hessian)
    ax.set_title(f"The sharpest direction is {net[-1] / net.mean():.0f} times as curved as the mean")
    room = plots.Room(ax)
    room.block(result.along, result.steepest, width=9)
    flat = room.block(np.tile(result.along, 60), result.rises[:60].ravel(), width=9)
    label = f"sharpest eigenvector,\nλ = {net[-1]:.3g}"
    ax.text(0.28, 0.6, label, color=plots.RED, ha="center", va="center", transform=ax.transAxes)
    room.near(flat, f"60 random directions,\nmean curvature {net.mean():.2g}", color=plots.BLUE, prefer=(0.8, 0.4))
    return figure
