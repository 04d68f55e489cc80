"""The house style: colors, panels, and pictures as files."""

import functools
import inspect
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from jaxfit.keywords import near_keywords

BLUE, RED, GREEN, PINK, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
DARK, GREY, PALE = "#333333", "#8a8a8a", "#e8e6e1"
LARGEST = 200_000  # bytes of a picture
INKS = np.round(  # with their edges on white, and white
    255
    * np.concatenate(
        [
            np.ones((1, 3)),
            *(np.linspace(to_rgb(c), 1, 4, endpoint=False) for c in (BLUE, RED, GREEN, PINK, ORANGE, DARK)),
        ]
    )
).astype(int)


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

    given = inspect.signature(draw)
    options = [p.replace(default=None) if p.name == "ax" else p for p in given.parameters.values()]
    drawn.__signature__ = given.replace(parameters=options)  # pyright: ignore[reportFunctionMemberAccess]
    return near_keywords(drawn)


@near_keywords
def panels(mosaic: Any, *, size: tuple[float, float], **options: Any) -> tuple[Figure, dict[str, Axes]]:
    """A figure of several axes, named as in `matplotlib.pyplot.subplot_mosaic`; the size in inches."""
    with style():
        return plt.subplot_mosaic(mosaic, figsize=size, **options)


@near_keywords
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
        image = few_colors(Image.open(buffer).convert("RGB"))
        buffer = io.BytesIO()
        image.save(buffer, format="png", optimize=True)
    return _small(buffer.getvalue())


def few_colors(image: Image.Image, like: Image.Image | None = None, *, most: int = 256) -> Image.Image:
    """The image in a palette of its own (or of `like`) in which thin lines keep the house's inks, however few pixels.

    Of the palette the last entry stays unused if `most` is less than 256.
    """
    found = (like or image).quantize(most - len(INKS), Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    own = np.reshape(found.getpalette() or [], (-1, 3))[: most - len(INKS)]
    apart = np.abs(own[:, None] - INKS[None]).max(axis=2)
    own = np.where(apart.min(axis=1, keepdims=True) < 10, INKS[apart.argmin(axis=1)], own)  # an ink, not almost one
    colors = np.concatenate([INKS, own]).ravel().tolist()
    palette = Image.new("P", (1, 1))
    palette.putpalette(colors + colors[:3] * (256 - len(colors) // 3))
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


@near_keywords
def gif(animation: bytes) -> bytes:
    """The bytes of a GIF, at most `LARGEST` of them.

    Raises:
      ValueError: If they are those of another file, or more.
    """
    if animation[:4] != b"GIF8":
        raise ValueError(f"an animation must be the bytes of a GIF; these begin with {animation[:4]!r}")
    return _small(animation)


def _small(image: bytes) -> bytes:
    if len(image) > LARGEST:
        raise ValueError(f"the picture is {len(image):,} bytes, more than {LARGEST:,}: draw less or make it smaller")
    return image


def without_display() -> None:
    """Draw into files only, on machines with and without a screen."""
    matplotlib.use("Agg")
