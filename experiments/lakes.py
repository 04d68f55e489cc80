"""Gradient descent reaches the minimum of the basin in which it starts, which need not be the lowest one.

Gradient descent from 65,536 starts on a landscape with five lakes of different depth, in one sweep. The map falls into
five basins, and only one of them leads to the deepest lake. Their borders are the watersheds: the lines that climb
from the passes to the summits, which are found here by gradient ascent from each pass and drawn over the map. The
passes, summits and lakes themselves are the minima of the squared gradient; as on every such island, lakes + summits -
passes = 1.

From a summit with several equally steep ways down, which of them is taken depends on where exactly the start is,
however near to the summit. On a summit with three ways down, starts on a circle of radius 0.001 split into
three thirds, each of which finds a minimum of the same height.

Source: Dürr, Sick and Murina, Probabilistic Deep Learning (2020), figure 3.9 (a drawing); the landscape is our own. Of
a mountain spring speak the notes on gradient descent of the Microsoft AI course, section 2.2. Cost: ten seconds on a
CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

HILLS = np.array(  # x, y, height (below zero: a hollow), width
    [
        (-1.9, 1.2, -1.5, 0.7), (1.5, 1.7, -1.1, 0.6), (0.2, -0.4, -1.0, 0.5), (2.0, -1.2, -1.9, 0.8),
        (-1.2, -1.9, -1.25, 0.65), (-0.4, 0.9, 0.9, 0.6), (0.6, -1.9, 0.7, 0.6), (1.2, 0.4, 0.5, 0.5),
    ]
)  # fmt: skip
SIZE = 3.0
SHOWN = np.array(
    [
        (-0.15, 1.0), (-0.55, 1.0), (-0.35, 0.62), (0.62, -1.45), (0.95, -1.75), (0.25, -1.8), (-2.8, -0.35),
        (2.7, 0.75), (2.75, 0.35), (0.15, 2.75), (-0.6, 2.8), (0.75, 0.35),
    ]
)  # fmt: skip
TWIST = 0.5  # of the summit with three ways down


@dataclass(frozen=True)
class Config:
    rate: float = 0.05  # small enough to follow the slope; large steps jump over watersheds
    cells: int = 256
    search: int = 30  # starts each way, of the search for level points
    spring: int = 720  # starts around the summit


SECONDS = 22
QUICK = {"cells": 48, "search": 10, "spring": 24}
BREAK = {"rate": 0.45}
ROWS = {"PDL-F3.9": "", "TFJS-2.2.localmin": "", "GD-2.2": "spring"}


def land(params):
    x, y = params["x"], params["y"]
    hills = [h * jnp.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * width**2)) for a, b, h, width in HILLS]
    return 0.06 * (x**2 + y**2) + sum(hills)


def upside_down(params):
    return -land(params)


def steepness(params):
    """Half the squared slope: zero on lakes, summits and passes, and nowhere else."""
    slope = jax.grad(land)(params)
    return 0.5 * (slope["x"] ** 2 + slope["y"] ** 2)


def summit(params):
    """r^4 / 4 - r^2 / 2 - TWIST r^3 cos(3 angle) / 3: a summit at zero, and three ways down."""
    x, y = params["x"], params["y"]
    squared = x**2 + y**2
    return squared**2 / 4 - squared / 2 - TWIST * (x**3 - 3 * x * y**2) / 3


class Points(NamedTuple):
    """Where the land is level."""

    lakes: np.ndarray  # (lakes, 2), the deepest first
    passes: np.ndarray  # (passes, 2)
    summits: np.ndarray  # (summits, 2)


class Result(NamedTuple):
    grid: np.ndarray  # (cells,) of x and of y
    fine: np.ndarray  # (2 cells,) of x and of y
    height: np.ndarray  # (2 cells, 2 cells) there, rows along y
    points: Points
    depth: np.ndarray  # (lakes,) height of their bottoms
    lake: np.ndarray  # (cells, cells) where a start ends; -1 nowhere
    apart: float  # the farthest that an end is from the bottom of its lake
    steps: np.ndarray  # (cells, cells)
    status: np.ndarray  # (cells, cells)
    watersheds: list[np.ndarray]  # (k, 2) each, from a pass up
    shown: list[np.ndarray]  # (k, 2) each, from a start down
    water: np.ndarray  # like height: where the lakes stand
    angles: np.ndarray  # (spring,) degrees, of the starts around the summit
    streams: np.ndarray  # (spring + 1, records, 2); the last one starts exactly between two ways


def compute(config: Config) -> Result:
    grid = np.linspace(-SIZE, SIZE, config.cells)
    points = level_points(config.search)
    found = downhill({"x": jf.Axis("x", grid), "y": jf.Axis("y", grid)}, config.rate).results
    ends = np.stack([found["params.x"].values.T, found["params.y"].values.T], -1)
    distances = np.linalg.norm(ends[:, :, None] - points.lakes, axis=-1)
    lake = np.where(distances.min(-1) < 0.05, distances.argmin(-1), -1)
    fine = np.linspace(-SIZE - 0.25 * (grid[1] - grid[0]), SIZE + 0.25 * (grid[1] - grid[0]), 2 * config.cells)
    height = np.asarray(land(dict(zip("xy", np.meshgrid(fine, fine), strict=True))))
    depth = np.asarray(land(dict(zip("xy", points.lakes.T, strict=True))))
    angles = (np.arange(config.spring) + 0.5) * 360 / config.spring
    around = np.deg2rad(angles)
    springs = 1e-3 * np.array([*zip(np.cos(around), np.sin(around), strict=True), (-1.0, 0.0)])
    streams = jf.sweep(
        summit, together("spring", springs), optimizer=jf.optimizers.sgd(config.rate), steps=800,
        record=jf.Record(every=5, what="params"), precision="float64",
    )  # fmt: skip
    return Result(
        grid=grid,
        fine=fine,
        height=height,
        points=points,
        depth=depth,
        lake=lake,
        apart=float(distances.min(-1).max()),
        steps=found.steps.values.T,
        status=found.status.values.T,
        watersheds=watersheds(points.passes),
        shown=paths(downhill(together("start", SHOWN), config.rate, record=jf.Record(what="params"))),
        water=lakes_filled(height, np.kron(lake, np.ones((2, 2), int)), depth),
        angles=angles,
        streams=np.array(paths(streams)),
    )


def together(name: str, starts: np.ndarray) -> dict[str, jf.Axis]:
    """One axis over starts (n, 2)."""
    return {leaf: jf.Axis(name, values) for leaf, values in zip("xy", starts.T, strict=True)}


def downhill(start: dict, rate: float, **options) -> Any:
    stop = jf.Stop(gradient_norm_below=1e-4)
    return jf.sweep(land, start, optimizer=jf.optimizers.sgd(rate), steps=3_000, stop=stop, **options)


def level_points(count: int) -> Points:
    """All that descent on the squared gradient finds from a grid of starts, told apart by the Hessian."""
    start = {name: jf.Axis(name, np.linspace(-SIZE, SIZE, count)) for name in "xy"}
    stop = jf.Stop(loss_below=1e-14)
    found = jf.sweep(
        steepness, start, optimizer=jf.optimizers.adam(0.02), steps=4_000, stop=stop, precision="float64"
    ).results
    good = found.loss.values < 1e-13
    candidates = np.stack([found["params.x"].values[good], found["params.y"].values[good]], 1)
    points: list[np.ndarray] = []
    for candidate in candidates:
        if all(np.linalg.norm(candidate - point) > 0.02 for point in points):
            points.append(candidate)
    bends = [np.linalg.eigvalsh(hessian(point)) for point in points]
    kinds = [[p for p, b in zip(points, bends, strict=True) if np.sum(b < 0) == kind] for kind in (0, 1, 2)]
    lakes = sorted(kinds[0], key=lambda p: float(land({"x": p[0], "y": p[1]})))
    return Points(np.array(lakes), np.array(sorted(map(tuple, kinds[1]))), np.array(sorted(map(tuple, kinds[2]))))


def hessian(point: np.ndarray) -> np.ndarray:
    return np.asarray(bend(jnp.asarray(point)), float)


bend = jax.jit(jax.hessian(lambda p: land({"x": p[0], "y": p[1]})))


def watersheds(passes: np.ndarray) -> list[np.ndarray]:
    """Gradient ascent from both sides of each pass, along the ridge, to a summit or out of the map."""
    ridges = [np.linalg.eigh(hessian(p))[1][:, 1] for p in passes]
    starts = np.array([p + side * 1e-3 * r for p, r in zip(passes, ridges, strict=True) for side in (-1, 1)])
    outside = 1.5 * float(land({"x": SIZE, "y": SIZE}))
    climbs = jf.sweep(
        upside_down, together("climb", starts), optimizer=jf.optimizers.sgd(0.02), steps=3_000,
        stop=jf.Stop(loss_below=-outside), record=jf.Record(every=2, what="params"), precision="float64",
    )  # fmt: skip
    return paths(climbs)


def paths(grid: Any) -> list[np.ndarray]:
    """(k, 2) params of every lane, until it ended."""
    history = np.stack([grid.results["history.params.x"].values, grid.results["history.params.y"].values], -1)
    return [path[np.isfinite(path).all(1)] for path in history]


def lakes_filled(height: np.ndarray, lake: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Water up to a part of the way from the bottom to the lowest place of the watershed."""
    border = borders(lake)
    water = np.zeros(height.shape, bool)
    for number, bottom in enumerate(depth):
        rim = height[border & (lake == number)].min(initial=bottom + 1)
        water |= (lake == number) & (height < bottom + 0.55 * (rim - bottom))
    return water


def borders(lake: np.ndarray) -> np.ndarray:
    """Cells beside a cell of another basin, to the right or above."""
    border = np.zeros(lake.shape, bool)
    border[:, :-1] |= lake[:, :-1] != lake[:, 1:]
    border[:-1] |= lake[:-1] != lake[1:]
    return border


def checks(result: Result) -> list[Check]:
    lakes, passes, summits = (len(kind) for kind in result.points)
    cell = result.grid[1] - result.grid[0]
    to_line, to_border = astray(result)
    *ends, stuck = result.streams[:, -1]
    way = nearest_way(result.angles)
    turned = np.rad2deg(np.arctan2(*np.transpose(ends)[::-1]))
    turns = (turned - 120 * way + 180) % 360 - 180
    far, near = (np.sqrt(TWIST**2 + 4) + TWIST) / 2, (np.sqrt(TWIST**2 + 4) - TWIST) / 2
    return [
        Check("lakes", 5, lakes, source="PDL-F3.9, the landscape"),
        Check("lakes + summits - passes", 1, lakes + summits - passes, source="PDL-F3.9, Morse's law"),
        Check("starts that do not end in a lake", 0, int(np.sum(result.lake < 0)), source="PDL-F3.9, theory"),
        Check("distance of an end from the bottom of its lake", 0, result.apart, 1e-3, "PDL-F3.9, theory"),
        Check("lakes that are reached", 5, len(np.unique(result.lake[result.lake >= 0])), source="TFJS-2.2.localmin"),
        Check("starts that end in a lake which is not the deepest: more than half", True,
              bool(np.mean(result.lake > 0) > 0.5), source="TFJS-2.2.localmin"),
        Check("borders of the basins: distance to a watershed, in cells", 0, to_line / cell, 1.0, "PDL-F3.9, theory"),
        Check("watersheds: distance to a border of the basins, in cells", 0, to_border / cell, 1.5, "PDL-F3.9, theory"),
        Check("spring: starts for each of the three ways", [len(way) // 3] * 3, np.bincount(way).tolist(),
              source="GD-2.2, symmetry"),
        Check("spring: end, degrees from the nearest way down", 0, turns, 1e-4, "GD-2.2, symmetry"),
        Check("spring: distance of the three minima from the summit", far, np.linalg.norm(ends, axis=1), 1e-6,
              "GD-2.2, closed form"),
        Check("spring: a start exactly between two ways ends on the pass there", [-near, 0], stuck.tolist(), 1e-6,
              "GD-2.2, closed form"),
    ]  # fmt: skip


def astray(result: Result) -> tuple[float, float]:
    """How far, at most, borders of the basins are from watersheds, and watersheds inside the map from borders."""
    lake, grid = result.lake, result.grid
    half = (grid[1] - grid[0]) / 2
    up, right = np.argwhere(lake[:-1] != lake[1:]), np.argwhere(lake[:, :-1] != lake[:, 1:])
    border = np.concatenate(
        [
            np.stack([grid[up[:, 1]], grid[up[:, 0]] + half], 1),
            np.stack([grid[right[:, 1]] + half, grid[right[:, 0]]], 1),
        ]
    )
    line = np.concatenate([dense(path, half / 2) for path in result.watersheds])
    line = line[np.all(abs(line) <= SIZE, axis=1)]
    return farthest(border, line), farthest(line, border)


def dense(path: np.ndarray, spacing: float) -> np.ndarray:
    """A path with points no farther apart than the spacing."""
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    at = np.linspace(0, lengths[-1], 2 + int(lengths[-1] / spacing))
    return np.stack([np.interp(at, lengths, column) for column in path.T], 1)


def farthest(points: np.ndarray, others: np.ndarray) -> float:
    """The largest distance of any of the points to the nearest of the others."""
    return max((float(np.sqrt(np.sum((others - p) ** 2, 1).min())) for p in points), default=np.inf)


def nearest_way(angles: np.ndarray) -> np.ndarray:
    """Which of the ways at 0, 120 and 240 degrees is the nearest."""
    return np.round(angles / 120).astype(int) % 3


def draw(result: Result):
    return {"": draw_lakes(result), "spring": draw_spring(result)}


def draw_lakes(result: Result):
    space = {"wspace": 0.05, "top": 0.86, "left": 0.02, "right": 0.98, "bottom": 0.07}
    figure, axes = plots.panels([["land", "basins"]], size=(11.2, 6.6), gridspec_kw=space)
    figure.suptitle(
        "Gradient descent reaches the minimum of its basin, which need not be the lowest", x=0.02, ha="left"
    )
    share = np.mean(result.lake == 0)
    words = f"Of {result.lake.size:,} descents, each from another start, {100 * share:.0f} % reach the "
    figure.text(0.02, 0.925, words + "lowest of the five minima (lakes).", color="#555555")
    ax = plots.relief(result.fine, result.fine, result.height, water=result.water, contours=16, ax=axes["land"])
    ax.set_title("The paths of twelve descents")
    for path in result.shown:
        ax.plot(*path.T, color="white", lw=2.8)
        ax.plot(*path.T, color="#a31621", lw=1.5)
        ax.plot(*path[0], "o", color="#a31621", ms=6, mec="white", mew=1.1)
    ax = plots.basin_map(result.grid, result.grid, result.lake, result.steps, ax=axes["basins"])
    ax.set_title("Where each start ends; the darker, the more steps")
    for path in result.watersheds:
        inside = path[np.all(abs(path) <= SIZE + 0.1, axis=1)]
        ax.plot(*inside.T, color="white", lw=2.4, solid_capstyle="butt")
        ax.plot(*inside.T, color="black", lw=1.2, ls=(0, (4, 2)))
    ax.plot(*result.points.passes.T, "X", color="white", mec="black", ms=7.5, mew=0.9)
    ax.plot(*result.points.summits.T, "^", color="white", mec="black", ms=8.5, mew=0.9)
    for point, depth in zip(result.points.lakes, result.depth, strict=True):
        ax.plot(*point, "o", color="white", mec="black", ms=6.5, mew=0.9)
        words = f"{depth:.2f}".replace("-", "−")
        for other, below in ((axes["land"], -17), (ax, 9)):
            plots.outlined(other.annotate(words, point, (0, below), textcoords="offset points", ha="center"))
    for ax in axes.values():
        ax.set(xlim=(-SIZE, SIZE), ylim=(-SIZE, SIZE), aspect="equal", xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    words = "Dashed: the borders of the basins, found by ascent from the saddles (crosses) to the maxima (triangles)."
    figure.text(0.98, 0.03, words, color="#555555", ha="right")
    return figure


def draw_spring(result: Result):
    space = {"wspace": 0.22, "top": 0.83, "left": 0.02, "right": 0.98, "bottom": 0.1}
    figure, axes = plots.panels([["ways", "angles"]], size=(10.6, 5.9), gridspec_kw=space)
    figure.suptitle(
        "Three equally steep ways down: the start decides between them, however near to the summit", x=0.02, ha="left"
    )
    words = "Every run starts 0.001 from the summit. Black: started exactly between two ways, it stops at the saddle."
    figure.text(0.02, 0.91, words, color="#555555")
    ax, side = axes["ways"], np.linspace(-1.75, 1.75, 201)
    height = np.asarray(summit(dict(zip("xy", np.meshgrid(side, side), strict=True))))
    levels = np.linspace(height.min(), 0.9, 16)
    ax.contour(side, side, height, levels, colors="#b9b3a5", linewidths=0.8, linestyles="solid")
    *streams, stuck = result.streams
    ways, colors = nearest_way(result.angles), np.array([plots.BLUE, plots.RED, plots.GREEN])
    for stream, way in list(zip(streams, ways, strict=True))[len(ways) // 96 :: len(ways) // 48]:
        ax.plot(*stream.T, color=colors[way], lw=0.9)
        ax.plot(*stream[-1], "o", color=colors[way], ms=8, mec="white")
    ax.plot(*stuck.T, color="black", lw=2)
    ax.plot(*stuck[-1], "X", color="black", ms=9, mec="white")
    ax.plot(0, 0, "^", color="white", mec="black", ms=9)
    ax.set(xlim=(-1.75, 1.75), ylim=(-1.75, 1.75), aspect="equal", xticks=[], yticks=[], title="48 runs")
    ax.spines[:].set_visible(False)
    ax = axes["angles"]
    turned = np.rad2deg(np.arctan2(*np.transpose([stream[-1] for stream in streams])[::-1])).round(6) % 360
    for way, color in enumerate(colors):
        ax.plot(result.angles[ways == way], turned[ways == way], ".", color=color, ms=5)
    ax.plot(180, 180, "X", color="black", ms=9)
    ax.set(xlabel="direction of the start, degrees", ylabel="direction of the end, degrees", ylim=(-15, 285))
    ax.set_title(f"{len(ways):,} starts: a third for each of the three minima")
    plots.few_ticks(ax.xaxis, range(0, 361, 60))
    plots.few_ticks(ax.yaxis, range(0, 241, 60))
    return figure
