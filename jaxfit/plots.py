"""One function a picture: numbers in, the axes out, in the house style and with the labels on the things themselves.

Every picture takes `ax=None` and makes an axes of its own if none is given. The caller's rcParams stay as they are.
"""

import functools
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from PIL import Image

from jaxfit.problems import Status

BLUE, RED, GREEN, PINK, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
DARK, GREY, PALE = "#333333", "#8a8a8a", "#e8e6e1"
LARGEST = 200_000  # bytes of a picture


# The house


@contextmanager
def style() -> Iterator[None]:
    """The house style inside, the caller's own outside; no setting of the caller gets in."""
    with plt.style.context(["default", Path(__file__).with_name("house.mplstyle")]):
        yield


def house(draw: Callable[..., Axes]) -> Callable[..., Axes]:
    """Draw in the house style, on an axes of its own if none is given."""

    @functools.wraps(draw)
    def drawn(*args: Any, ax: Axes | None = None, **options: Any) -> Axes:
        with style():
            return draw(*args, ax=plt.subplots()[1] if ax is None else ax, **options)

    return drawn


def panels(mosaic: Any, *, size: tuple[float, float], **options: Any) -> tuple[Figure, dict[str, Axes]]:
    """A figure of several axes, named as in `matplotlib.pyplot.subplot_mosaic`; the size in inches."""
    with style():
        return plt.subplot_mosaic(mosaic, figsize=size, **options)


def png(figure: Figure) -> bytes:
    """The picture as a file: the same bytes for the same figure, at most `LARGEST` of them. Closes the figure.

    Raises:
      ValueError: If it is larger even with 256 colors.
    """
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", metadata={"Software": None}, pil_kwargs={"optimize": True})
    plt.close(figure)
    if buffer.tell() > LARGEST // 2:
        image = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        image.save(buffer, format="png", optimize=True)
    if buffer.tell() > LARGEST:
        raise ValueError(f"the picture is {buffer.tell():,} bytes, more than {LARGEST:,}: draw less or make it smaller")
    return buffer.getvalue()


def without_display() -> None:
    """Draw into files only, on machines with and without a screen."""
    matplotlib.use("Agg")


# Labels: where there is room for them


class Room:
    """Where on an axes there is room for a label, found on a raster of its pixels. Set limits and scales before."""

    def __init__(self, ax: Axes, *, raster: float = 3.0):
        ax.figure.canvas.figure.draw_without_rendering()
        box = ax.get_window_extent()
        self.ax, self.raster, self.origin = ax, raster, np.array([box.x0, box.y0])
        self.free = np.ones((int(box.height / raster), int(box.width / raster)), bool)
        self.lines: list[np.ndarray] = []  # of (points, 2), in pixels

    def centers(self) -> tuple[np.ndarray, np.ndarray]:
        """The data coordinates of the raster's columns and rows."""
        rows, columns = self.free.shape
        diagonal = (np.arange(max(rows, columns)) + 0.5) * self.raster
        data = self.ax.transData.inverted().transform(self.origin + np.stack([diagonal, diagonal], 1))
        return data[:columns, 0], data[:rows, 1]

    def block(self, x: Any, y: Any, *, width: float = 6.0) -> np.ndarray:
        """Keep labels off a line, `width` pixels wide; returns its points in pixels."""
        line = self._dense(np.stack([np.asarray(x, float), np.asarray(y, float)], -1).reshape(-1, 2))
        self._take(line - width / 2, line + width / 2)
        self.lines.append(line)
        return line

    def _dense(self, points: np.ndarray) -> np.ndarray:
        """Points of a line in pixels, no farther apart than the raster, those outside the axes left out."""
        pixels = self.ax.transData.transform(points)
        pixels = pixels[np.isfinite(pixels).all(1)]
        far = np.maximum(1, np.ceil(np.abs(np.diff(pixels, axis=0)).max(1, initial=0) / self.raster)).astype(int)
        far = np.minimum(far, 4096)
        pieces = [a + (b - a) * np.arange(n)[:, None] / n for a, b, n in zip(pixels, pixels[1:], far, strict=False)]
        dense = np.concatenate([*pieces, pixels[-1:]])
        inside = np.all(
            (dense >= self.origin) & (dense <= self.origin + self.raster * np.array(self.free.shape)[::-1]), 1
        )
        return dense[inside]

    def _take(self, low: np.ndarray, high: np.ndarray) -> None:
        first = np.maximum(np.floor((low - self.origin) / self.raster).astype(int), 0)
        last = np.maximum(np.ceil((high - self.origin) / self.raster).astype(int), 0)
        for (left, bottom), (right, top) in zip(np.atleast_2d(first), np.atleast_2d(last), strict=True):
            self.free[bottom:top, left:right] = False

    def inside(self, region: np.ndarray, label: str, **how: Any) -> Text | None:
        """Label a region ((rows, columns) of the raster) at its widest place; not at all if it is too small."""
        text = self._text(label, how)
        for margin in (60, 40, 25, 15, 10, 6, 3):
            spots = self._spots(text, self.free & region, margin)
            if len(spots):
                middle = spots[np.argmin(np.sum((spots - spots.mean(0)) ** 2, 1))]
                return self._put(text, middle)
        text.remove()
        return None

    def near(
        self,
        line: np.ndarray,
        label: str,
        *,
        within: float = np.inf,
        prefer: tuple[float, float] | None = None,
        allowed: np.ndarray | bool = True,
        **how: Any,
    ) -> Text | None:
        """Label a line (of `block`) from beside it, not closer to another; not at all if no place is `within` pixels.

        Of places as good the one nearest to `prefer` (a point of the axes, from 0 to 1) is taken.
        """
        text = self._text(label, how)
        spots, half = self._spots(text, self.free & allowed, 2), self._size(text, 0) / 2
        others = [points for points in self.lines if points is not line and len(points)]
        if len(spots) and len(line):
            rough = spots[:: 1 + len(spots) // 4000]
            rough = rough[np.argmin(self._cost(rough, half, line, others, prefer))]
            spots = spots[np.all(abs(spots - rough) < 40, axis=1)]
            best = spots[np.argmin(self._cost(spots, half, line, others, prefer))]
            if _gap(best[None], half, line)[0] <= within:
                return self._put(text, best)
        text.remove()
        return None

    def _cost(self, spots: np.ndarray, half: np.ndarray, line: np.ndarray, others: list, prefer: Any) -> np.ndarray:
        """What speaks against each spot: a gap to its own line, a small one to others, distance from the preferred."""
        cost = 2 * _gap(spots, half, line)
        if others:
            cost = cost - 0.5 * np.minimum(np.min([_gap(spots, half, points) for points in others], axis=0), 40)
        if prefer is not None:
            cost = cost + 0.02 * np.linalg.norm(spots - self.ax.transAxes.transform(prefer), axis=1)
        return cost

    def _text(self, label: str, how: Mapping[str, Any]) -> Text:
        return self.ax.text(0.5, 0.5, label, ha="center", va="center", transform=self.ax.transAxes, **how)

    def _size(self, text: Text, margin: float) -> np.ndarray:
        box = text.get_window_extent()
        return np.array([box.width, box.height]) + 2 * margin

    def _spots(self, text: Text, free: np.ndarray, margin: float) -> np.ndarray:
        """Centres, in pixels, of all places where the text and a margin around it are free: (spots, 2)."""
        columns, rows = np.ceil(self._size(text, margin) / self.raster).astype(int)
        total = np.pad(np.cumsum(np.cumsum(free, 0), 1), ((1, 0), (1, 0)))
        if rows >= len(total) or columns >= total.shape[1]:
            return np.empty((0, 2))
        filled = total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
        corners = np.argwhere(filled == rows * columns)[:, ::-1]
        return self.origin + (corners + np.array([columns, rows]) / 2) * self.raster

    def _put(self, text: Text, center: np.ndarray) -> Text:
        text.set_transform(self.ax.transData)
        x, y = self.ax.transData.inverted().transform(center)
        text.set_position((x, y))
        half = self._size(text, 2) / 2
        self._take(center - half, center + half)
        return text


def _gap(spots: np.ndarray, half: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance from boxes of half-size `half` around the spots to the nearest of the points, in pixels."""
    points = points[:: max(1, len(points) // 150)]
    apart = [np.maximum(abs(spots - point) - half, 0) for point in points]
    return np.min([np.hypot(*pair.T) for pair in apart], axis=0)


def few_ticks(axis: Any, ticks: Sequence[float]) -> None:
    """Only these ticks on an axis."""
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([number(tick) for tick in ticks]))
    axis.set_minor_locator(NullLocator())


def number(value: float) -> str:
    """A number as a reader writes it: 20,000 or 0.005 or 3 x 10^-5."""
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return f"{value:,.0f}" if value == round(value) else f"{value:.6g}"
    mantissa, power = f"{value:.3e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return f"$10^{{{int(power)}}}$" if mantissa == "1" else f"${mantissa} \\times 10^{{{int(power)}}}$"


def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """1, 2 and 5 times the powers of ten between the limits, or only 1 and 3, or only every so many powers."""
    powers = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for leading in ((1, 2, 5), (1, 3), (1,)):
        ticks = [n * 10.0**d for d in powers for n in leading if low * 0.999 <= n * 10.0**d <= high * 1.001]
        if len(ticks) <= most:
            return ticks
    stride = next(n for n in (2, 5, 10, 20, 50, 100) if len(ticks) / n <= most)
    return [10.0**d for d in powers if d % stride == 0 and low * 0.999 <= 10.0**d <= high * 1.001]


# Maps


OUTCOMES = {  # the color of the region, the color of what is written on it, what is written
    Status.NOT_RUN: ("#ffffff", GREY, "not run"),
    Status.CONVERGED: ("#ffffff", DARK, ""),
    Status.OUT_OF_STEPS: (PALE, "#555555", "still on its way\nafter {steps:,} steps"),
    Status.DIVERGED: ("#8c2d04", "#ffffff", "diverges"),
    Status.NOT_FINITE: ("#4a1486", "#ffffff", "not a number"),
}
SPEED = plt.get_cmap("viridis_r", 64)  # bright is fast; 64 levels keep the files small


@house
def convergence_map(
    results: Any,
    *,
    x: str,
    y: str,
    law: Any = None,
    law_label: str = "",
    steps_range: tuple[float, float] | None = None,
    colorbar: bool = True,
    ax: Axes,
) -> Axes:
    """Which members of a sweep converge, how fast, and which diverge.

    Args:
      results: The sweep's Dataset: `status` and `steps` over the dimensions x and y, both with numbers as coordinates.
      x: The dimension drawn to the right; a geometric one gets a logarithmic axis.
      y: The dimension drawn upwards.
      law: The limit on x that theory gives, one number or one for every y; drawn over the map.
      law_label: What is written beside it; if empty its value.
      steps_range: The numbers of steps at the ends of the colors; those of the results if None.
      colorbar: Whether to add the scale of the colors.
      ax: The axes to draw on; new ones if None.

    Raises:
      ValueError: If the results have other dimensions than x and y.
    """
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
            room.inside(shown == outcome, words.format(steps=last), color=ink, linespacing=1.35)
    if colorbar:
        steps_bar(ax, fewest, most)
    return ax


def steps_bar(axes: Any, fewest: float, most: float, *, label: str = "steps to converge", **options: Any) -> None:
    """The scale of a map's colors, beside one axes or several."""
    figure = np.ravel(axes)[0].figure
    with style():
        bar = figure.colorbar(
            ScalarMappable(LogNorm(fewest, most), SPEED), ax=axes, **{"pad": 0.02, "aspect": 32} | options
        )
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


def _cells(ax: Axes, name: str, coordinate: Any) -> np.ndarray:
    """Scale, limit and label the axis called `name` for a coordinate; returns the edges of its cells."""
    values = np.asarray(coordinate.values, float)
    geometric = len(values) > 2 and values[0] > 0 and np.ptp(np.diff(np.log(values))) < 1e-3 * np.ptp(np.log(values))
    places = np.log(values) if geometric else values
    middles = (places[1:] + places[:-1]) / 2
    first, last = (middles[0], middles[-1]) if len(middles) else (places[0] - 0.5, places[0] + 0.5)
    edges = np.concatenate([[2 * places[0] - first], middles, [2 * places[-1] - last]])
    edges = np.exp(edges) if geometric else edges
    ax.set(**{f"{name}scale": "log" if geometric else "linear", f"{name}lim": (edges[0], edges[-1])})
    ax.set(**{f"{name}label": str(coordinate.name).replace("_", " ")})
    if geometric:
        few_ticks(ax.xaxis if name == "x" else ax.yaxis, round_ticks(edges[0], edges[-1]))
    return edges


def _draw_law(room: Room, law: np.ndarray, y: np.ndarray, label: str, paint: np.ndarray) -> None:
    """The law as a dashed line through the whole height, its label beside it, upright only if there is no room."""
    low, high = room.ax.get_ylim()
    law, y = np.concatenate([law[:1], law, law[-1:]]), np.concatenate([[low], y, [high]])
    room.ax.plot(law, y, color="white", lw=2.4, solid_capstyle="butt")
    room.ax.plot(law, y, color="black", lw=1.3, ls=(0, (4, 2)))
    line = room.block(law, y)
    light = paint @ (0.3, 0.59, 0.11)
    for rotation, ink, readable in (
        (r, *side) for r in (0, 90) for side in (("white", light < 0.45), ("black", light > 0.5))
    ):
        if room.near(line, label, within=12, prefer=(0.9, 1), allowed=readable, color=ink, rotation=rotation):
            return


# Curves and points


@house
def loss_history(curves: Any, *, ax: Axes) -> Axes:
    """Loss against updates, both logarithmic, a label on every curve; one that becomes infinite leaves by the top.

    Args:
      curves: {label: losses}, {label: (steps, losses)} or {label: fit}; or one fit.
      ax: The axes to draw on; new ones if None.
    """
    curves = curves if isinstance(curves, Mapping) else {"": curves}
    runs = {label: _steps_and_losses(curve) for label, curve in curves.items()}
    _loss_axes(ax, [losses for _, losses in runs.values()], max(steps[-1] for steps, _ in runs.values()))
    for steps, losses in runs.values():
        ax.plot(steps, _visible(ax, losses), marker="o" if len(steps) <= 30 else "", ms=3.5)
        _leave(ax, steps, losses)
    room = Room(ax)
    paths = [room.block(steps, _visible(ax, losses)) for steps, losses in runs.values()]
    for label, path, line in zip(runs, paths, ax.lines[-len(paths) :], strict=True):
        room.near(path, label, prefer=(1, 0.5), color=line.get_color())
    return ax


def _loss_axes(ax: Axes, losses: Sequence[np.ndarray], longest: int) -> None:
    """Both logarithmic, with step 0 on the axis; the losses linear if there are negative ones."""
    shown = np.concatenate(losses)
    shown = shown[np.isfinite(shown)]
    if np.any(shown < 0):
        ax.set_ylim(shown.min() - 0.06 * np.ptp(shown), shown.max() + 0.12 * np.ptp(shown))
    else:
        logs = np.log10(shown[shown > 0]) if np.any(shown > 0) else np.zeros(1)
        size = max(np.ptp(logs), 1)
        ax.set(yscale="log", ylim=(10 ** (logs.min() - 0.06 * size), 10 ** (logs.max() + 0.12 * size)))
        few_ticks(ax.yaxis, round_ticks(*ax.get_ylim()))
    if longest > 30:
        ax.set_xscale("symlog", linthresh=1, linscale=0.3)
        ax.set_xlim(-0.1, longest * 1.05)
        few_ticks(ax.xaxis, [0, *(10**d for d in range(int(np.log10(longest)) + 1))])
    ax.set(xlabel="updates", ylabel="loss")


def _visible(ax: Axes, losses: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(losses) & ((losses > 0) | (ax.get_yscale() == "linear")), losses, np.nan)


def _steps_and_losses(curve: Any) -> tuple[np.ndarray, np.ndarray]:
    if hasattr(curve, "history"):
        curve = (curve.history.step, curve.history.loss)
    steps, losses = curve if isinstance(curve, tuple) else (np.arange(len(curve)), curve)
    return np.asarray(steps), np.asarray(losses, float)


def _leave(ax: Axes, steps: np.ndarray, losses: np.ndarray) -> None:
    """An arrow out of the top from the last finite loss to where the loss is infinite or NaN."""
    bad = int(np.argmin(np.isfinite(losses)))
    if bad and np.isfinite(losses[bad - 1]) and not np.isfinite(losses[bad]):
        arrow = {"arrowstyle": "-|>", "color": ax.lines[-1].get_color(), "lw": 1.7, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (steps[bad], ax.get_ylim()[1]), (steps[bad - 1], losses[bad - 1]), arrowprops=arrow)


@house
def line_fit(x: Any, y: Any, lines: Mapping[str, tuple[float, float]], *, ax: Axes) -> Axes:
    """Measurements, and straight lines {label: (slope, intercept)} through them, a label on every line."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    ax.plot(x, y, "o", color=DARK, ms=5, zorder=3)
    ends = np.array(ax.set_xlim(x.min() - 0.06 * np.ptp(x), x.max() + 0.06 * np.ptp(x)))
    for slope, intercept in lines.values():
        ax.plot(ends, slope * ends + intercept)
    room = Room(ax)
    for point in zip(x, y, strict=True):
        room.block(*point, width=12)
    paths = [room.block(ends, slope * ends + intercept) for slope, intercept in lines.values()]
    for label, path, drawn in zip(lines, paths, ax.lines[1:], strict=False):
        room.near(path, label, color=drawn.get_color())
    return ax


@house
def descent_1d(path: Any, losses: Any, curve: tuple[Any, Any], *, color: str = BLUE, ax: Axes) -> Axes:
    """The points of a descent on the curve of a loss of one parameter, joined in their order and numbered from 0.

    Args:
      path: (k,) parameters; losses: (k,) losses at them.
      curve: The parameters and losses that draw the curve; set the limits of the axes first, if they are to be others.
      color: Of the descent.
      ax: The axes to draw on; new ones if None.
    """
    path, losses = np.asarray(path, float), np.asarray(losses, float)
    ax.plot(*curve, color="#b5b5b5", lw=1.4, zorder=1)
    ax.plot(path, losses, "o-", color=color, ms=5, lw=1.1, zorder=2, markeredgecolor="white", markeredgewidth=0.6)
    room = Room(ax, raster=1.5)
    room.block(*curve)
    room.block(path, losses, width=8)
    for first, last in _clusters(ax.transData.transform(np.stack([path, losses], 1)), apart=12):
        spot = room.block(path[first : last + 1].mean(), losses[first : last + 1].mean(), width=8)
        room.near(spot, f"{first}" if first == last else f"{first}–{last}", color=color, fontsize=9, weight="bold")
    return ax


def _clusters(points: np.ndarray, apart: float) -> list[tuple[int, int]]:
    """First and last of every run of successive points that lie closer together than `apart`."""
    starts = [0, *(1 + np.flatnonzero(np.linalg.norm(np.diff(points, axis=0), axis=1) >= apart)), len(points)]
    return [(int(first), int(after) - 1) for first, after in zip(starts, starts[1:], strict=False)]
