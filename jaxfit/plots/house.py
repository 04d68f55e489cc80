"""The house style: colors, panels, and pictures as files."""

from __future__ import annotations

import functools
import inspect
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from PIL import Image

from jaxfit.problems.messages import near_keywords
from jaxfit.typing import ArrayLike

BLUE, RED, GREEN, PINK, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
DARK, GREY, PALE = "#333333", "#8a8a8a", "#e8e6e1"
LARGEST = 200_000  # bytes of a picture
ONE_LANE = "or of a grid one lane: jf.lane(grid, ...)"  # to pass to a plot of fits
_SHADES = [np.linspace(to_rgb(c), 1, 4, endpoint=False) for c in (BLUE, RED, GREEN, PINK, ORANGE, DARK)]
INKS = np.round(255 * np.concatenate([np.ones((1, 3)), *_SHADES])).astype(int)  # white, and inks with their edges on it


@contextmanager
def style() -> Iterator[None]:
    """Use the house style inside of a `with` block, whatever the caller's rcParams; they do not change.

    Example:
      >>> with jf.plots.style():
      ...     figure, axes = jf.plots.panels("a", size=(2.0, 2.0))
    """
    with plt.style.context(["default", Path(__file__).with_name("house.mplstyle")]):
        yield


def house(draw: Callable[..., Axes]) -> Callable[..., Axes]:
    """Make a drawing function use the house style, and new axes if `ax` is not given.

    Example:
      >>> @jf.plots.house
      ... def draw(x, *, ax):
      ...     return ax
      >>> draw(1.0).get_title()
      ''
    """

    @functools.wraps(draw)
    def drawn(*args: object, ax: Axes | None = None, **options: object) -> Axes:
        with style():
            return draw(*args, ax=plt.subplots()[1] if ax is None else ax, **options)

    given = inspect.signature(draw)
    options = [p.replace(default=None) if p.name == "ax" else p for p in given.parameters.values()]
    drawn.__signature__ = given.replace(parameters=options)  # pyright: ignore[reportFunctionMemberAccess]
    return near_keywords(drawn)


@near_keywords
def check_drawn(plot: str, what: str, value: object, kind: type | UnionType, remedy: str) -> None:
    """Refuse a value of another kind than a plot draws."""
    if not isinstance(value, kind):
        raise TypeError(f"{plot} draws {what}, but got a {type(value).__name__}; pass {remedy}")


def panels(mosaic: Any, *, size: tuple[float, float], **options: Any) -> tuple[Figure, dict[str, Axes]]:
    """Make a figure with several named axes, as `matplotlib.pyplot.subplot_mosaic` does; the size is in inches.

    Example:
      >>> figure, axes = jf.plots.panels("ab", size=(6.0, 3.0))
      >>> sorted(axes)
      ['a', 'b']
    """
    with style():
        return plt.subplot_mosaic(mosaic, figsize=size, **options)


@near_keywords
def png(figure: Figure | Axes) -> bytes:
    """Return a figure, or that of some axes, as the bytes of a PNG file, at most `LARGEST` of them, and close it.

    The bytes are the same for the same figure.

    Raises:
      TypeError: If it is neither a figure nor axes.
      ValueError: If it is larger even with 256 colors.

    Example:
      >>> figure, axes = jf.plots.panels("a", size=(2.0, 2.0))
      >>> jf.plots.png(figure)[1:4]
      b'PNG'
    """
    check_drawn("png", "a figure, or axes", figure, Figure | Axes, "axes that a plot returned, one if they are several")
    whole = figure.figure.canvas.figure if isinstance(figure, Axes) else figure
    buffer = io.BytesIO()
    with style():
        whole.savefig(buffer, format="png", metadata={"Software": None}, pil_kwargs={"optimize": True})
    plt.close(whole)
    if buffer.tell() > LARGEST // 2:
        image = few_colors(Image.open(buffer).convert("RGB"))
        buffer = io.BytesIO()
        image.save(buffer, format="png", optimize=True)
    return _small(buffer.getvalue())


def few_colors(image: Image.Image, like: Image.Image | None = None, *, most: int = 256) -> Image.Image:
    """Return the image in a palette (its own, or that of `like`) in which thin lines keep their colors.

    Of the palette the last entry stays unused if `most` is less than 256.
    """
    quantized = (like or image).quantize(most - len(INKS), Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    own = np.reshape(quantized.getpalette() or [], (-1, 3))[: most - len(INKS)]
    apart = np.abs(own[:, None] - INKS[None]).max(axis=2)
    own = np.where(apart.min(axis=1, keepdims=True) < 10, INKS[apart.argmin(axis=1)], own)  # an ink, not almost one
    colors = np.concatenate([INKS, own]).ravel().tolist()
    palette = Image.new("P", (1, 1))
    palette.putpalette(colors + colors[:3] * (256 - len(colors) // 3))
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


@near_keywords
def gif(animation: bytes) -> bytes:
    """Check that these are the bytes of a GIF of at most `LARGEST` bytes, and return them.

    Raises:
      TypeError: If they are not bytes.
      ValueError: If they are not a GIF, or more bytes.

    Example:
      >>> jf.plots.gif(b"GIF89a")
      b'GIF89a'
    """
    check_drawn("gif", "the bytes of a GIF", animation, bytes, "those of jf.plots.descent_animation(...)")
    if animation[:4] != b"GIF8":
        raise ValueError(
            f"an animation must be the bytes of a GIF; these begin with {animation[:4]!r}: of a still picture use "
            f"jf.plots.png(figure)"
        )
    return _small(animation)


def _small(image: bytes) -> bytes:
    if len(image) > LARGEST:
        raise ValueError(f"the picture is {len(image):,} bytes, more than {LARGEST:,}: draw less or make it smaller")
    return image


def without_display() -> None:
    """Set matplotlib to draw into files only, on machines with and without a screen.

    Example:
      >>> jf.plots.without_display()
    """
    matplotlib.use("Agg")


class Room:
    """A finder of free space for labels on axes, on a raster of pixels. Set limits and scales before."""

    def __init__(self, ax: Axes, *, raster: float = 3.0):
        ax.figure.canvas.figure.draw_without_rendering()
        box = ax.get_window_extent()
        self.ax, self.raster, self.origin = ax, raster, np.array([box.x0, box.y0])
        self.free = np.ones((int(box.height / raster), int(box.width / raster)), bool)
        self.lines: list[np.ndarray] = []  # of (points, 2), in pixels

    def centers(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the data coordinates of the raster's columns and rows."""
        rows, columns = self.free.shape
        diagonal = (np.arange(max(rows, columns)) + 0.5) * self.raster
        data = self.ax.transData.inverted().transform(self.origin + np.stack([diagonal, diagonal], 1))
        return data[:columns, 0], data[:rows, 1]

    def block(self, x: ArrayLike, y: ArrayLike, *, width: float = 6.0) -> np.ndarray:
        """Keep labels off a line, `width` pixels wide; returns its points in pixels."""
        line = self._dense(np.stack([np.asarray(x, float), np.asarray(y, float)], -1).reshape(-1, 2))
        self._take(line - width / 2, line + width / 2)
        self.lines.append(line)
        return line

    def keep(self, low: ArrayLike, high: ArrayLike) -> None:
        """Keep labels off the rectangle between two corners, the lower left and the upper right one, in data."""
        corners = self.ax.transData.transform(np.stack([np.asarray(low), np.asarray(high)]))
        self._take(*corners)

    def _dense(self, points: np.ndarray) -> np.ndarray:
        """Return points of a line in pixels, no farther apart than the raster, without those outside of the axes."""
        pixels = self.ax.transData.transform(points)
        pixels = pixels[np.isfinite(pixels).all(1)]
        far = np.maximum(1, np.ceil(np.abs(np.diff(pixels, axis=0)).max(1, initial=0) / self.raster)).astype(int)
        far = np.minimum(far, 4096)
        pieces = [a + (b - a) * np.arange(n)[:, None] / n for a, b, n in zip(pixels, pixels[1:], far, strict=False)]
        dense, end = np.concatenate([*pieces, pixels[-1:]]), self.origin + self.raster * np.array(self.free.shape)[::-1]
        return dense[np.all((dense >= self.origin) & (dense <= end), 1)]

    def _take(self, low: np.ndarray, high: np.ndarray) -> None:
        first = np.maximum(np.floor((low - self.origin) / self.raster).astype(int), 0)
        last = np.maximum(np.ceil((high - self.origin) / self.raster).astype(int), 0)
        for (left, bottom), (right, top) in zip(np.atleast_2d(first), np.atleast_2d(last), strict=True):
            self.free[bottom:top, left:right] = False

    def inside(self, region: np.ndarray, label: str, **how: object) -> Text | None:
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
        **how: object,
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

    def on(self, pieces: Sequence[np.ndarray], label: str, close_to: np.ndarray, **how: object) -> Text | None:
        """Label a line of several pieces on itself, at the free place closest to a pixel, if there is one."""
        text = self._text(label, how)
        dense = [self._dense(np.asarray(points, float)) for points in pieces if len(points)]
        line, spots = np.concatenate([np.empty((0, 2)), *dense]), self._spots(text, self.free, 2)
        if len(spots) and len(line):
            cells, free = (np.floor((place - self.origin) / self.raster).astype(int) for place in (line, spots))
            known = np.zeros(self.free.shape[::-1], bool)
            known[tuple(free.T)] = True
            line = line[known[tuple(np.minimum(cells, np.array(known.shape) - 1).T)]]
            if len(line):
                return self._put(text, line[np.argmin(np.linalg.norm(line - close_to, axis=1))])
        text.remove()
        return None

    def _cost(
        self, spots: np.ndarray, half: np.ndarray, line: np.ndarray, others: list, prefer: tuple[float, float] | None
    ) -> np.ndarray:
        """Return the cost of each spot: a gap to its own line, a small one to others, distance from the preferred."""
        cost = 2 * _gap(spots, half, line)
        if others:
            cost = cost - 0.5 * np.minimum(np.min([_gap(spots, half, points) for points in others], axis=0), 40)
        if prefer is not None:
            cost = cost + 0.02 * np.linalg.norm(spots - self.ax.transAxes.transform(prefer), axis=1)
        return cost

    def _text(self, label: str, how: Mapping[str, Any]) -> Text:
        write = getattr(self.ax, "text2D", self.ax.text)
        return write(0.5, 0.5, label, ha="center", va="center", transform=self.ax.transAxes, **how)

    def _size(self, text: Text, margin: float) -> np.ndarray:
        box = text.get_window_extent()
        return np.array([box.width, box.height]) + 2 * margin

    def _spots(self, text: Text, free: np.ndarray, margin: float) -> np.ndarray:
        """Return the centers, in pixels, of all places where the text and a margin around it are free: (spots, 2)."""
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
    """Return the distance from boxes of half-size `half` around the spots to the nearest of the points, in pixels."""
    points = points[:: max(1, len(points) // 150)]
    apart = [np.maximum(abs(spots - point) - half, 0) for point in points]
    return np.min([np.hypot(*pair.T) for pair in apart], axis=0)


@near_keywords
def outlined(text: Text, *, color: str = "white", edge: str = "#333333") -> Text:
    """Draw an edge around the letters of a text, so that it can be read on any color, and return the text.

    Example:
      >>> ax = jf.plots.line_fit([1.0, 2.0], [1.0, 2.0], {})
      >>> jf.plots.outlined(ax.text(1.5, 1.5, "here")).get_text()
      'here'
    """
    text.set(color=color, weight="bold", path_effects=[withStroke(linewidth=2.4, foreground=edge)])
    return text


@near_keywords
def few_ticks(axis: XAxis | YAxis, ticks: Sequence[float]) -> None:
    """Set the ticks of an axis to these, all in one notation: decimals if they are short, otherwise powers of ten.

    Example:
      >>> ax = jf.plots.line_fit([1.0, 2.0], [1.0, 2.0], {})
      >>> jf.plots.few_ticks(ax.xaxis, [1.0, 1.5, 2.0])
      >>> [label.get_text() for label in ax.get_xticklabels()]
      ['1', '1.5', '2']
    """
    written = [number(tick) for tick in ticks]
    if any("$" in text for text in written):
        short = all(tick == 0 or 1e-5 <= abs(tick) < 1e6 for tick in ticks)
        written = [_decimal(tick) if short else _power(tick) for tick in ticks]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter(written))
    axis.set_minor_locator(NullLocator())


@near_keywords
def number(value: float) -> str:
    """Write a number as readers expect it: 20,000 or 0.005 or 3 x 10^-5.

    Example:
      >>> jf.plots.number(20000.0), jf.plots.number(0.005)
      ('20,000', '0.005')
    """
    if not np.isfinite(value):
        return f"{value:g}"
    return _decimal(value) if value == 0 or 1e-4 <= abs(value) < 1e6 else _power(value)


def _decimal(value: float) -> str:
    """Return a number of up to six significant digits, without a power of ten: 20,000 or 0.00005."""
    text = f"{value:,.0f}" if value == round(value) else f"{value:.6g}"
    text = f"{value:.10f}".rstrip("0") if "e-" in text else text
    return text.replace("-", "\N{MINUS SIGN}")


def _power(value: float) -> str:
    """Return a number as a power of ten, with its factor if that is not one: 10^-4 or 3 x 10^-5."""
    if value == 0:
        return "0"
    mantissa, power = f"{value:.3e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return f"$10^{{{int(power)}}}$" if mantissa == "1" else f"${mantissa} \\times 10^{{{int(power)}}}$"


@near_keywords
def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round ticks between limits: 1, 2 and 5 times powers of ten, or only 1 and 3, or only some powers.

    Example:
      >>> [float(tick) for tick in jf.plots.round_ticks(1.0, 20.0)]
      [1.0, 2.0, 5.0, 10.0, 20.0]
    """
    powers = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for leading in ((1, 2, 5), (1, 3), (1,)):
        ticks = [n * 10.0**d for d in powers for n in leading if low * 0.999 <= n * 10.0**d <= high * 1.001]
        if len(ticks) <= most:
            return ticks
    stride = next(n for n in (2, 5, 10, 20, 50, 100, 200) if len(ticks) / n <= most)
    return [10.0**d for d in powers if d % stride == 0 and low * 0.999 <= 10.0**d <= high * 1.001]
