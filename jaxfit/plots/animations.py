"""Animated descents: a point on the loss surface, and its prediction in the data."""

import io
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from jaxfit.landscapes import surface as evaluate
from jaxfit.landscapes import trail
from jaxfit.plots.curves import loss_history
from jaxfit.plots.house import DARK, RED, few_colors, gif, number, style
from jaxfit.plots.surfaces import from_above
from jaxfit.problems.axes import Axis
from jaxfit.problems.messages import near_keywords
from jaxfit.verbs.fits import Fit

CELLS = 120  # of the surface, each way
PAUSE = 2000  # milliseconds on the last frame
SHADES = 95  # colors; one more is the transparent one


@near_keywords
def descent_animation(
    fit: Fit,
    *,
    surface: Any = None,
    levels: int | Sequence[float] = 8,
    frames: int = 40,
    milliseconds: int = 150,
    labels: tuple[str, str] = ("x", "y"),
) -> bytes:
    """Return an animated GIF of a fit of two params: a point on the loss surface, and its prediction in the data.

    Frames follow the updates closely at first, then in growing strides, and end with a pause. The panel beside the
    surface shows the data with the prediction if the loss has a model of one input, and otherwise the loss of every
    update.

    Args:
      fit: With its params recorded: `record=jf.Record(what=("loss", "params"))`.
      surface: From `jf.surface` over the two params, with their names; if None, of a window around the path.
      levels: Of the contours, as in `contour`.
      frames: The largest number of frames.
      milliseconds: Between two frames.
      labels: Of the axes of the data.

    Returns:
      The bytes of a GIF: the same for the same fit, at most 200 KB.

    Raises:
      ValueError: If the fit does not have two scalar params, did not record them or no longer has its problem, or if
        the GIF would be too large.

    Example:
      >>> x, y, record = np.array([0.0, 1.0]), np.array([1.0, 2.0]), jf.Record(what=("loss", "params"))
      >>> loss, sgd = jf.losses.mse(jf.models.line), jf.optimizers.sgd(0.1)
      >>> run = jf.fit(loss, {"w": 0.0, "b": 0.0}, (x, y), optimizer=sgd, steps=3, record=record)
      >>> jf.plots.descent_animation(run, frames=2)[:4]
      b'GIF8'
    """
    way = trail(fit)
    named = {
        jax.tree_util.keystr(path, simple=True, separator=".") or "params": np.asarray(values, float)
        for path, values in jax.tree_util.tree_leaves_with_path(way.params)
    }
    if len(named) != 2 or any(values.ndim != 1 for values in named.values()):
        shapes = ", ".join(f"{name} {values.shape[1:]}" for name, values in named.items())
        raise ValueError(f"a surface is drawn over two scalar params, but the fit has {shapes}; hold the others fixed")
    surface = window(fit, named) if surface is None else surface
    x, y = (named[name] for name in surface.dims)
    chosen = np.unique(np.round(np.geomspace(1, len(way.step), frames)).astype(int) - 1)
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4.0), dpi=100, gridspec_kw={"wspace": 0.28})
        figure.subplots_adjust(left=0.1, right=0.98, top=0.86, bottom=0.13)
        from_above(surface, {}, {"start": (x[0], y[0])}, levels=levels, clear=[(x, y)], ax=left)
        (tail,) = left.plot([], [], color=RED, lw=1.4)
        (head,) = left.plot([], [], "o", color=RED, ms=8, mec="white", mew=1.0)
        beside, place = _beside(fit, way, chosen, right, labels)
        words = figure.text(0.1, 0.93, "", weight="bold")
        take = _camera(figure, (tail, head, beside, words))
        images = []
        for frame, record in enumerate(chosen):
            tail.set_data(x[: record + 1], y[: record + 1])
            head.set_data(x[record : record + 1], y[record : record + 1])
            place(frame)
            words.set_text(f"update {number(float(way.step[record]))}:  loss {way.loss[record]:.4g}")
            images.append(take())
        plt.close(figure)
    return gif(_encoded(images, [milliseconds] * (len(images) - 1) + [PAUSE]))


def window(fit: Fit, named: dict[str, np.ndarray]) -> Any:
    """Return the loss surface over a fit's two params, with a margin of a quarter of the path on every side."""
    axes = {}
    for name, values in named.items():
        values = values[np.isfinite(values)]
        room = 0.25 * np.ptp(values) or 0.5 * max(abs(values[0]), 1.0)
        axes[name] = Axis(name, np.linspace(values.min() - room, values.max() + room, CELLS))
    problem: Any = fit.problem
    params = jax.tree.unflatten(jax.tree.structure(fit.params), list(axes.values()))
    found = evaluate(problem.loss, params, problem.data, key=problem.key, precision=fit.precision or "float32")
    return found.transpose(*axes)


def _beside(fit: Fit, way: Any, chosen: np.ndarray, ax: Axes, labels: tuple[str, str]) -> tuple[Artist, Callable]:
    """Draw the panel beside the surface; return its moving artists, and the function that updates them."""
    problem: Any = fit.problem
    predict = getattr(problem.loss, "predict", None)
    if predict is None or len(problem.data) < 2 or any(np.ndim(item) != 1 for item in problem.data[:2]):
        loss_history({"": (way.step, way.loss)}, ax=ax)
        (dot,) = ax.plot([], [], "o", color=RED, ms=8, mec="white", mew=1.0)
        return dot, lambda frame: dot.set_data(way.step[chosen[[frame]]], way.loss[chosen[[frame]]])
    inputs, targets = (np.asarray(item, float) for item in problem.data[:2])
    ax.plot(inputs, targets, "o", color=DARK, ms=4.5, zorder=3)
    ax.set(xlabel=labels[0], ylabel=labels[1], xlim=ax.get_xlim())
    left, right = ax.get_xlim()
    ends = np.linspace(left, right, 60, dtype=np.float32)
    params = jax.tree.map(lambda values: np.asarray(values)[chosen].astype(np.float32), way.params)
    curves = np.asarray(jax.vmap(lambda p: predict(p, ends))(params))
    reach = 0.3 * np.ptp(targets)  # beyond the data, as far as there is a prediction to see
    shown = np.clip(curves[np.isfinite(curves)], targets.min() - reach, targets.max() + reach)
    low, high = min(shown.min(), targets.min()), max(shown.max(), targets.max())
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    (line,) = ax.plot([], [], color=RED, lw=2.2)
    return line, lambda frame: line.set_data(ends, curves[frame])


def _camera(figure: Figure, moving: Sequence[Artist]) -> Callable[[], Image.Image]:
    """Render frames of a figure in which only some artists move; the others are drawn once."""
    canvas = FigureCanvasAgg(figure)
    for artist in moving:
        artist.set_animated(True)
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)

    def take() -> Image.Image:
        canvas.restore_region(still)
        for artist in moving:
            artist.draw(canvas.get_renderer())
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())

    return take


def _encoded(images: Sequence[Image.Image], durations: Sequence[int]) -> bytes:
    """Return a GIF with one palette, which stores only the changed pixels of every frame after the first."""
    width, height = images[0].size
    both = Image.new("RGB", (width, 2 * height))
    both.paste(images[0], (0, 0))
    both.paste(images[-1], (0, height))
    small = [few_colors(image, both, most=SHADES) for image in images]
    frames = [np.asarray(image) for image in small]
    pieces = [frames[0], *(np.where(b == a, SHADES, b) for a, b in itertools.pairwise(frames))]
    written = []
    for piece in pieces:
        written.append(Image.fromarray(piece.astype(np.uint8), "P"))
        written[-1].putpalette((small[0].getpalette() or [])[: 3 * SHADES] + [0, 0, 0])
    buffer = io.BytesIO()
    options = {"save_all": True, "append_images": written[1:], "loop": 0, "optimize": False, "disposal": 1}
    written[0].save(buffer, "GIF", duration=list(durations), transparency=SHADES, **options)
    return buffer.getvalue()
