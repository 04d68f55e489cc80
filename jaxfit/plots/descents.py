"""Descents: loss histories, lines through data, steps on a curve, range tests, and animations on a surface."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, TypeAlias

import jax
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from jaxfit.curvature import RangeTest
from jaxfit.landscapes import surface as evaluate
from jaxfit.landscapes import trail
from jaxfit.plots.house import (
    BLUE,
    DARK,
    ONE_LANE,
    RED,
    Room,
    check_drawn,
    few_colors,
    few_ticks,
    gif,
    house,
    number,
    round_ticks,
    style,
)
from jaxfit.plots.surfaces import from_above
from jaxfit.problems.axes import Axis, holds_call
from jaxfit.problems.marks import filled, free
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import ArrayLike, PyTree
from jaxfit.verbs.evaluations import whole_params
from jaxfit.verbs.results import Fit, problem_of, recorded

if TYPE_CHECKING:
    import xarray as xr

    from jaxfit.landscapes import Trail


@house
def loss_history(curves: Curve | Mapping[str, Curve], *, ax: Axes) -> Axes:
    """Draw the loss against updates, both logarithmic, with a label on every curve.

    A loss that becomes infinite leaves the axes at the top.

    Args:
      curves: {label: losses}, {label: (steps, losses)} or {label: fit}; or one fit.

    Example:
      >>> ax = jf.plots.loss_history({"slow": [4.0, 3.0, 2.5], "fast": [4.0, 1.0, 0.2]})
    """
    curves = curves if isinstance(curves, Mapping) else {"": curves}
    for curve in curves.values():
        check_drawn(
            "loss_history", "losses", curve, Sized | Fit, f"a list of them, or what jf.fit returned, {ONE_LANE}"
        )
    runs = {label: _steps_and_losses(curve) for label, curve in curves.items()}
    _loss_axes(ax, [losses for _, losses in runs.values()], max(steps[-1] for steps, _ in runs.values()))
    for steps, losses in runs.values():
        ax.plot(steps, _visible(ax, losses), marker="o" if len(steps) <= 30 else "", ms=3.5)
        _leave(ax, steps, losses)
    room = Room(ax)
    paths = [room.block(steps, _with_exit(ax, losses)) for steps, losses in runs.values()]
    for label, path, line in zip(runs, paths, ax.lines[-len(paths) :], strict=True):
        room.near(path, label, prefer=(1, 0.5), color=line.get_color())
    return ax


def _loss_axes(ax: Axes, losses: Sequence[np.ndarray], longest: int) -> None:
    """Set both scales to logarithmic, with step 0 on the axis; that of negative losses is linear."""
    shown = np.concatenate(losses)
    shown = shown[np.isfinite(shown)]
    if np.any(shown < 0):
        ax.set_ylim(shown.min() - 0.06 * np.ptp(shown), shown.max() + 0.12 * np.ptp(shown))
    else:
        logs = np.log10(shown[shown > 0]) if np.any(shown > 0) else np.zeros(1)
        size = max(np.ptp(logs), 1)
        ends = np.clip([logs.min() - 0.06 * size, logs.max() + 0.12 * size], -307, 307)  # what float64 holds
        ax.set(yscale="log", ylim=10.0**ends)
        few_ticks(ax.yaxis, round_ticks(*ax.get_ylim()))
    if longest > 30:
        ax.set_xscale("symlog", linthresh=1, linscale=0.3)
        ax.set_xlim(-0.1, longest * 1.05)
        few_ticks(ax.xaxis, [0, *(10**d for d in range(int(np.log10(longest)) + 1))])
    ax.set(xlabel="updates", ylabel="loss")


def _visible(ax: Axes, losses: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(losses) & ((losses > 0) | (ax.get_yscale() == "linear")), losses, np.nan)


def _with_exit(ax: Axes, losses: np.ndarray) -> np.ndarray:
    """Return the visible part of a curve, cut at the top of the axes."""
    visible, bad = _visible(ax, losses), int(np.argmin(np.isfinite(losses)))
    if bad and not np.isfinite(losses[bad]):
        visible[bad] = ax.get_ylim()[1]
    return visible


def _steps_and_losses(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(curve, Fit):
        losses = recorded(curve, "loss", "loss_history: the fit")
        return np.asarray(curve.history.step), np.asarray(losses, float)
    if isinstance(curve, tuple):
        return np.asarray(curve[0]), np.asarray(curve[1], float)
    losses = np.asarray(curve, float)
    return np.arange(len(losses)), losses


def _leave(ax: Axes, steps: np.ndarray, losses: np.ndarray) -> None:
    """Draw an arrow through the top of the axes, from the last finite loss to where it is infinite or NaN."""
    bad = int(np.argmin(np.isfinite(losses)))
    if bad and np.isfinite(losses[bad - 1]) and not np.isfinite(losses[bad]):
        arrow = {"arrowstyle": "-|>", "color": ax.lines[-1].get_color(), "lw": 1.7, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (steps[bad], ax.get_ylim()[1]), (steps[bad - 1], losses[bad - 1]), arrowprops=arrow)


@house
def line_fit(x: ArrayLike, y: ArrayLike, lines: Mapping[str, tuple[float, float]], *, ax: Axes) -> Axes:
    """Draw measurements and straight lines through them, with a label on every line.

    Args:
      x: (n,) and y: (n,) the measurements.
      lines: {label: (slope, intercept)}.

    Example:
      >>> x, y = jf.datasets.thermometer()
      >>> ax = jf.plots.line_fit(x, y, {"fit": (0.537, -17.3)})
    """
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
def descent_1d(
    path: ArrayLike, losses: ArrayLike, curve: tuple[ArrayLike, ArrayLike], *, color: str = BLUE, ax: Axes
) -> Axes:
    """Draw the points of a descent on the curve of a loss of one parameter, joined in order and numbered from 0.

    Args:
      path: (k,) parameters; losses: (k,) losses at them.
      curve: The parameters and losses of the curve. To use other limits of the axes, set them before.
      color: Of the descent.

    Example:
      >>> w = np.linspace(-2.0, 2.0, 41)
      >>> ax = jf.plots.descent_1d([2.0, 1.0, 0.5], [4.0, 1.0, 0.25], (w, w**2))
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
    """Return the first and last point of every run of successive points closer together than `apart`."""
    starts = [0, *(1 + np.flatnonzero(np.linalg.norm(np.diff(points, axis=0), axis=1) >= apart)), len(points)]
    return [(int(first), int(after) - 1) for first, after in zip(starts, starts[1:], strict=False)]


@house
def learning_rate_range(
    test: RangeTest, *, law: float | None = None, law_label: str = "law", color: str = BLUE, ax: Axes
) -> Axes:
    """Draw the loss of a range test against the learning rate, with the rate where it turns up and the suggested rate.

    Args:
      test: From `jf.learning_rate_range`.
      law: A learning rate to draw as a line, such as that of `jf.stability_limit`.
      law_label: The label of that line.
      color: Of the curve.

    Example:
      >>> test = jf.learning_rate_range(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(0.1), steps=100)
      >>> ax = jf.plots.learning_rate_range(test)
    """
    remedy = "what jf.learning_rate_range returned; the rates of a sweep are drawn by grid.to_html(path)"
    check_drawn("learning_rate_range", "a range test", test, RangeTest, remedy)
    rates, losses = np.asarray(test.curve.learning_rate), np.asarray(test.curve, float)
    shown = np.isfinite(losses) & (losses > 0)
    top = 30 * losses[shown][0]
    bottom = losses[shown].min()
    lowest = np.log10(bottom) - 0.12 * np.log10(top / bottom)
    lowest = np.floor(4 * lowest) / 4  # so that rounding of the least loss does not move the whole curve
    ax.set(xscale="log", yscale="log", xlim=(rates[0], rates[-1]), ylim=(10**lowest, top))
    few_ticks(ax.xaxis, round_ticks(*ax.get_xlim()))
    few_ticks(ax.yaxis, round_ticks(*ax.get_ylim()))
    ax.set(xlabel="learning rate of the step", ylabel="loss after the step")
    ax.plot(rates[shown], losses[shown], color=color, lw=1.8)
    room = Room(ax)
    room.block(rates[shown], np.minimum(losses[shown], top))
    marks = [(law, law_label, DARK, "--")] if law is not None else []
    if np.isfinite(test.suggested):
        marks += [(test.suggested, f"suggested: {test.suggested:.2g}", color, ":")]
    lines = []
    for rate, label, shade, dashes in marks:
        ax.axvline(rate, color=shade, lw=1.1, ls=dashes, zorder=1)
        lines.append((room.block([rate, rate], ax.get_ylim()), label, shade))
    if np.isfinite(test.turn):
        least = losses[np.argmin(np.abs(rates - test.turn))]
        ax.plot([test.turn], [least], "o", color=RED, ms=6, zorder=3)
        spot = room.block([test.turn], [least], width=10)
        room.near(spot, f"turns up at {test.turn:.3g}", color=RED)
    for line, label, shade in lines:
        room.near(line, label, color=shade, prefer=(1, 0.9) if shade is DARK else (0, 0.1))
    return ax


Curve: TypeAlias = "Fit | ArrayLike | tuple[ArrayLike, ArrayLike]"  # a run, its losses, or (steps, losses)
CELLS = 120  # of the surface, each way
PAUSE = 2000  # milliseconds on the last frame
SHADES = 95  # colors; one more is the transparent one


@near_keywords
def descent_animation(
    fit: Fit,
    *,
    surface: xr.DataArray | None = None,
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
        for path, values in jax.tree_util.tree_leaves_with_path(_moving(fit, way.params))
    }
    if len(named) != 2 or any(values.ndim != 1 for values in named.values()):
        shapes = ", ".join(f"{name} {values.shape[1:]}" for name, values in named.items())
        raise ValueError(
            f"a surface is drawn over two scalar params, but the fit has {shapes}; hold the others with jf.Fixed"
        )
    surface = window(fit, named) if surface is None else surface
    x, y = (named[str(name)] for name in surface.dims)
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
            words.set_text(f"update {number(float(way.step[record]))}:  loss {four_digits(float(way.loss[record]))}")
            images.append(take())
        plt.close(figure)
    return gif(_encoded(images, [milliseconds] * (len(images) - 1) + [PAUSE]))


def window(fit: Fit, named: dict[str, np.ndarray]) -> xr.DataArray:
    """Return the loss surface over a fit's two params, with a margin of a quarter of the path on every side."""
    axes = {}
    for name, values in named.items():
        values = values[np.isfinite(values)]
        room = 0.25 * np.ptp(values) or 0.5 * max(abs(values[0]), 1.0)
        axes[name] = Axis(name, np.linspace(values.min() - room, values.max() + room, CELLS))
    problem = problem_of(fit)
    places = jax.tree.structure(_moving(fit, fit.params))
    params = filled(jax.tree.unflatten(places, list(axes.values())), _marks(fit))
    losses = evaluate(problem.loss, params, problem.data, key=problem.key, precision=fit.precision or "float32")
    return losses.transpose(*axes)


def _marks(fit: Fit) -> PyTree:
    """Return the params with their marks, those of what is kept if a call made them."""
    params = problem_of(fit).params
    return whole_params(fit) if holds_call(params) else params


def _moving(fit: Fit, params: PyTree) -> PyTree:
    """Return params of a fit with None at each leaf that did not move."""
    return free(_marks(fit), params)


def _beside(fit: Fit, way: Trail, chosen: np.ndarray, ax: Axes, labels: tuple[str, str]) -> tuple[Artist, Callable]:
    """Draw the panel beside the surface; return its moving artists, and the function that updates them."""
    problem = problem_of(fit)
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
    curves = np.asarray(jax.vmap(lambda p: predict(filled(p, fit.params), ends))(params))
    reach = 0.3 * np.ptp(targets)  # beyond the data, as far as there is a prediction to see
    shown = np.clip(curves[np.isfinite(curves)], targets.min() - reach, targets.max() + reach)
    low, high = min(shown.min(), targets.min()), max(shown.max(), targets.max())
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    (line,) = ax.plot([], [], color=RED, lw=2.2)
    return line, lambda frame: line.set_data(ends, curves[frame])


def four_digits(loss: float) -> str:
    """Return a loss with four digits, the same wherever it was computed.

    The mean of round data may lie midway between two such numbers, and its last bits would decide.
    """
    return f"{loss * (1 + 1e-6):.4g}"  # by more than float32 rounds


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
