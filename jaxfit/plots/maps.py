"""Maps of a sweep: which runs converge, and how fast."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LightSource, LinearSegmentedColormap, LogNorm, to_rgb

from jaxfit.plots.house import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    PALE,
    PINK,
    RED,
    Room,
    few_ticks,
    house,
    number,
    round_ticks,
    style,
)
from jaxfit.problems import Status
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import ArrayLike

if TYPE_CHECKING:
    import xarray as xr


OUTCOMES = {  # the color of the region, the color of what is written on it, what is written
    Status.NOT_RUN: ("#ffffff", GREY, "not run"),
    Status.CONVERGED: ("#ffffff", DARK, ""),
    Status.OUT_OF_STEPS: (PALE, "#555555", "not converged\nafter {steps:,} steps"),
    Status.DIVERGED: ("#8c2d04", "#ffffff", "diverges"),
    Status.NOT_FINITE: ("#4a1486", "#ffffff", "not a number"),
    Status.STOPPED_EARLY: ("#d9d2c5", "#555555", "stopped early"),
    Status.PRUNED: ("#e3e3e3", "#555555", "pruned"),
    Status.NOT_DETERMINED: ("#cfe0d4", "#555555", "at its least,\nparams not determined"),
}
SPEED = plt.get_cmap("viridis_r", 64)  # bright is fast; 64 levels keep the files small


@house
def convergence_map(
    results: xr.Dataset,
    *,
    x: str,
    y: str,
    law: ArrayLike | None = None,
    law_label: str = "",
    steps_range: tuple[float, float] | None = None,
    colorbar: bool = True,
    ax: Axes,
) -> Axes:
    """Draw which runs of a sweep converge, how fast, and which diverge.

    Args:
      results: The sweep's Dataset: `status` and `steps` over the dimensions x and y, both with numbers as coordinates.
      x: The dimension drawn to the right; a geometric one gets a logarithmic axis.
      y: The dimension drawn upwards.
      law: The limit on x from theory, one number or one for every y; drawn over the map.
      law_label: Its label; if empty its value.
      steps_range: The numbers of steps at the ends of the colors; those of the results if None.
      colorbar: Whether to add the scale of the colors.

    Raises:
      ValueError: If the results have other dimensions than x and y.

    Example:
      >>> rate, start = jf.Axis("rate", [0.1, 0.3, 1.1]), jf.Axis("start", [1.0, 2.0, 3.0])
      >>> sgd, stop = jf.optimizers.sgd(rate), jf.Stop(loss_below=1e-6)
      >>> grid = jf.sweep(lambda p: p**2, start, optimizer=sgd, steps=200, stop=stop)
      >>> ax = jf.plots.convergence_map(grid.results, x="rate", y="start", law=1.0)
    """
    if hasattr(results, "results"):
        raise TypeError(f"convergence_map draws results, but got a {type(results).__name__}; pass its grid.results")
    if set(results.status.dims) != {x, y}:
        raise ValueError(
            f"a map of {x!r} and {y!r} cannot show {results.status.dims}: choose the rest with results.sel"
        )
    law = None if law is None else np.broadcast_to(law, results.sizes[y])[np.argsort(results[y].values)]
    results = results.sortby([x, y]).transpose(y, x, ...)
    status, steps = results.status.values, np.maximum(results.steps.values, 1)
    edges = [_cells(ax, name, results[d]) for name, d in (("x", x), ("y", y))]
    fewest, most = steps_range or _span(steps[status == Status.CONVERGED])
    paint = _painted(status, steps, LogNorm(fewest, most, clip=True))
    ax.pcolormesh(*edges, paint, rasterized=True)
    room = Room(ax)
    columns, rows = (np.searchsorted(e[1:-1], c) for e, c in zip(edges, room.centers(), strict=True))
    if law is not None:
        words = law_label or f"law: {number(float(f'{law.max():.3g}'))}"
        _draw_law(room, law, results[y].values, words, paint[np.ix_(rows, columns)])
    shown = status[np.ix_(rows, columns)]
    for outcome, (_, ink, words) in OUTCOMES.items():
        if words:
            last = int(steps[status == outcome].max(initial=0))
            words = words.format(steps=last)
            for rotation in (0, 90):
                if room.inside(shown == outcome, words, color=ink, linespacing=1.35, rotation=rotation):
                    break
    if colorbar:
        steps_bar(ax, fewest, most)
    return ax


@near_keywords
def steps_bar(axes: Any, fewest: float, most: float, *, label: str = "steps to converge", **options: object) -> None:
    """Draw the color scale of a map beside its axes, one or several.

    Example:
      >>> figure, axes = jf.plots.panels("a", size=(4.0, 3.0))
      >>> jf.plots.steps_bar(axes["a"], 1.0, 100.0)
    """
    figure = np.ravel(axes)[0].figure
    with style():
        colors, options = ScalarMappable(LogNorm(fewest, most), SPEED), {"pad": 0.02, "aspect": 32} | options
        bar = figure.colorbar(colors, ax=axes, **options)
        bar.set_label(label)
        few_ticks(bar.ax.yaxis if bar.orientation == "vertical" else bar.ax.xaxis, round_ticks(fewest, most))
        bar.outline.set_visible(False)


def _span(steps: np.ndarray) -> tuple[float, float]:
    low, high = max(steps.min(initial=10**9), 1), max(steps.max(initial=1), 1)
    return (low, high) if low < high else (high / 10, high)


def _painted(status: np.ndarray, steps: np.ndarray, colors: LogNorm) -> np.ndarray:
    paint = SPEED(colors(steps))[..., :3]
    for outcome, (color, _, _) in OUTCOMES.items():
        if outcome != Status.CONVERGED:
            paint[status == outcome] = to_rgb(color)
    return paint


def _cells(ax: Axes, name: str, coordinate: np.ndarray | xr.DataArray) -> np.ndarray:
    """Set scale, limits and label of the axis `name` for a coordinate; return the edges of its cells."""
    values = np.asarray(coordinate, float)
    geometric = len(values) > 2 and values[0] > 0 and np.ptp(np.diff(np.log(values))) < 1e-3 * np.ptp(np.log(values))
    places = np.log(values) if geometric else values
    middles = (places[1:] + places[:-1]) / 2
    first, last = (middles[0], middles[-1]) if len(middles) else (places[0] - 0.5, places[0] + 0.5)
    edges = np.concatenate([[2 * places[0] - first], middles, [2 * places[-1] - last]])
    edges = np.exp(edges) if geometric else edges
    ax.set(**{f"{name}scale": "log" if geometric else "linear", f"{name}lim": (edges[0], edges[-1])})
    ax.set(**{f"{name}label": str(getattr(coordinate, "name", "")).replace("_", " ")})
    if geometric:
        few_ticks(ax.xaxis if name == "x" else ax.yaxis, round_ticks(edges[0], edges[-1]))
    return edges


def _draw_law(room: Room, law: np.ndarray, y: np.ndarray, label: str, paint: np.ndarray) -> None:
    """Draw the law as a dashed line with a label beside it, which is vertical only if there is no room."""
    low, high = room.ax.get_ylim()
    law, y = np.concatenate([law[:1], law, law[-1:]]), np.concatenate([[low], y, [high]])
    room.ax.plot(law, y, color="white", lw=2.4, solid_capstyle="butt")
    room.ax.plot(law, y, color="black", lw=1.3, ls=(0, (4, 2)))
    line = room.block(law, y)
    light = paint @ (0.3, 0.59, 0.11)
    inks = (("white", light < 0.45), ("black", light > 0.5))
    for rotation, (ink, readable) in itertools.product((0, 90), inks):
        if room.near(line, label, within=12, prefer=(0.9, 1), allowed=readable, color=ink, rotation=rotation):
            return


@house
def power_map(
    x: ArrayLike, y: ArrayLike, powers: ArrayLike, *, law: ArrayLike | None = None, span: float = 12.0, ax: Axes
) -> Axes:
    """Draw powers of ten over two coordinates: blue for small, red for large, white for one.

    Args:
      x: (columns,) drawn to the right, logarithmic if geometric; y: (rows,) upwards.
      powers: (rows, columns) logarithms to the base of ten.
      law: The same from theory; dashed, labeled lines at whole multiples of a quarter of the span.
      span: The power at which the colors end, and below zero its negative.

    Example:
      >>> rate = np.array([0.1, 1.0, 10.0])
      >>> ax = jf.plots.power_map(rate, rate, np.array([[-1.0, 0.0, 1.0]] * 3))
    """
    edges = [_cells(ax, name, np.asarray(values, float)) for name, values in (("x", x), ("y", y))]
    colors = plt.get_cmap("RdBu_r", 49)
    ax.pcolormesh(*edges, powers, cmap=colors, vmin=-span, vmax=span, rasterized=True)
    if law is not None:
        levels = np.arange(-3, 4) * span / 4
        lines = ax.contour(x, y, law, levels, colors="black", linewidths=1.0, linestyles=[(0, (4, 2))])
        ax.clabel(lines, fmt=lambda power: f"$10^{{{power:.0f}}}$" if power else "1", fontsize=8)
    return ax


LAND = LinearSegmentedColormap.from_list("land", ["#8fae7c", "#c9cf9b", "#efe3b4", "#e0b983", "#b98a63", "#f7f3ee"])
WATER = LinearSegmentedColormap.from_list("water", ["#123f6b", "#2f7fb8", "#86bfe2"])
BASINS = (BLUE, "#F0E442", GREEN, PINK, RED)
TINTS, LIGHTS, SPEEDS = 10, 14, 16  # few of each keep the files small, and bands of height look like a map's


@house
def relief(
    x: ArrayLike,
    y: ArrayLike,
    height: ArrayLike,
    *,
    water: ArrayLike | None = None,
    contours: int | Sequence[float] = 12,
    ax: Axes,
) -> Axes:
    """Draw a landscape from above: lit from the upper left, with lines of equal height, and lakes.

    Args:
      x: (columns,) and y: (rows,) coordinates, evenly spaced.
      height: (rows, columns).
      water: (rows, columns), True where a lake stands; None for dry land.
      contours: How many lines of equal height, or their heights.

    Example:
      >>> x = np.linspace(-1.0, 1.0, 9)
      >>> ax = jf.plots.relief(x, x, x[:, None] ** 2 + x**2)
    """
    x, y, height = (np.asarray(v, float) for v in (x, y, height))
    wet = np.zeros(height.shape, bool) if water is None else np.asarray(water, bool)
    size = np.ptp(x) / np.ptp(height)
    right, up = np.diff(x[:2])[0], np.diff(y[:2])[0]
    light = LightSource(315, 38).hillshade(height * size, vert_exag=0.28, dx=right, dy=-up)  # rows run upwards here
    dry, low = height[~wet], height[wet]
    paint = LAND(_bands((height - dry.min()) / np.ptp(dry), TINTS))[..., :3]
    paint = paint * (0.42 + 0.68 * _bands(light, LIGHTS)[..., None])
    if wet.any():
        paint[wet] = WATER(_bands((low - low.min()) / np.ptp(low), TINTS))[..., :3]
    _map(ax, x, y, np.clip(paint, 0, 1))
    dry_only = np.where(wet, np.nan, height)
    ax.contour(x, y, dry_only, contours, colors="black", linewidths=0.45, linestyles="solid", alpha=0.3)
    return ax


@house
def basin_map(
    x: ArrayLike,
    y: ArrayLike,
    basin: ArrayLike,
    steps: ArrayLike | None = None,
    *,
    colors: Sequence[str] = BASINS,
    ax: Axes,
) -> Axes:
    """Draw where each start ends, by color; a darker color means more steps.

    Args:
      x: (columns,) and y: (rows,) the starts, evenly spaced.
      basin: (rows, columns) the number of the minimum that was reached; negative for none.
      steps: (rows, columns) steps until it was reached; None for flat colors.
      colors: One for each minimum; they repeat if there are more.

    Example:
      >>> start = np.linspace(-2.0, 2.0, 4)
      >>> ax = jf.plots.basin_map(start, start, np.tile([0, 0, 1, 1], (4, 1)))
    """
    basin = np.asarray(basin)
    palette = np.array([to_rgb(color) for color in colors])
    paint = 0.28 + 0.72 * palette[basin % len(palette)]
    if steps is not None:
        late = np.log(np.maximum(np.asarray(steps, float), 1))
        low, high = np.quantile(late, [0.02, 0.995])
        dark = _bands(np.clip((late - low) / max(high - low, 1e-9), 0, 1), SPEEDS)
        paint = paint * (1.05 - 0.6 * dark[..., None])
    paint[basin < 0] = to_rgb(PALE)
    return _map(ax, np.asarray(x, float), np.asarray(y, float), np.clip(paint, 0, 1))


def _bands(values: np.ndarray, count: int) -> np.ndarray:
    """Round numbers from 0 to 1 to one of `count` levels."""
    return np.minimum(np.floor(values * count), count - 1) / (count - 1)


def _map(ax: Axes, x: np.ndarray, y: np.ndarray, paint: np.ndarray) -> Axes:
    """Draw an image on the coordinates of the centers of its cells."""
    right, up = np.diff(x[:2])[0] / 2, np.diff(y[:2])[0] / 2
    extent = (x[0] - right, x[-1] + right, y[0] - up, y[-1] + up)
    ax.imshow(paint, origin="lower", extent=extent, interpolation="nearest", aspect="auto")
    return ax
