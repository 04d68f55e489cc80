"""Loss surfaces of two params, and the descents on them: from above and in perspective."""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.contour import ContourSet
from mpl_toolkits.mplot3d import proj3d

from jaxfit.landscapes import Slice, trail
from jaxfit.plots.house import BLUE, DARK, GREEN, ORANGE, PINK, RED, Room, house, number, style
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import ArrayLike, PyTree
from jaxfit.verbs.results import Fit, recorded

if TYPE_CHECKING:
    import xarray as xr


Path: TypeAlias = "Fit | Mapping[str, ArrayLike] | tuple[ArrayLike, ...]"  # of params along the two dimensions
Paths: TypeAlias = Mapping[str, Path]  # by label
HEIGHTS = ListedColormap(0.42 * plt.get_cmap("viridis")(np.linspace(0, 1, 128))[:, :3] + 0.58)
COLORS = (RED, BLUE, DARK, GREEN, PINK, ORANGE)
HALO = [patheffects.withStroke(linewidth=2.5, foreground=(1, 1, 1, 0.85))]
DOTS = 60  # a path of more points than these is drawn as a line


@house
def contour(
    surface: xr.DataArray,
    paths: Paths | None = None,
    points: Mapping[str, tuple[float, float]] | None = None,
    *,
    levels: int | Sequence[float] = 8,
    filled: bool = True,
    colors: Sequence[str] = COLORS,
    ax: Axes,
) -> Axes:
    """Draw a loss surface from above, with labeled contours and the paths of descents as dots.

    Args:
      surface: From `jf.surface`, of two dimensions; the first is drawn to the right.
      paths: {label: fit with its params recorded}, or {label: (x, y)}; the params of a fit must have the names of the
        dimensions.
      points: {label: (x, y)} of single points to name.
      levels: Of the contours; or their number, spaced like those of a parabola at equal distances.
      filled: Whether to color the heights.
      colors: Of the paths.

    Raises:
      ValueError: If the surface does not have two dimensions, or the params of a path have other names.

    Example:
      >>> a, b = (jf.Axis(name, np.linspace(-1.0, 1.0, 9)) for name in "ab")
      >>> found = jf.surface(lambda p: p["a"] ** 2 + 3 * p["b"] ** 2, {"a": a, "b": b})
      >>> ax = jf.plots.contour(found)
      >>> ax.get_xlabel(), ax.get_ylabel()
      ('a', 'b')
    """
    return from_above(
        surface, by_label(paths), by_label(points, "points"), levels=levels, filled=filled, colors=colors, ax=ax
    )


def from_above(
    surface: xr.DataArray,
    paths: Paths,
    points: Mapping[str, tuple[float, float]],
    *,
    levels: int | Sequence[float],
    filled: bool = True,
    colors: Sequence[str] = COLORS,
    clear: Sequence[tuple[ArrayLike, ArrayLike]] = (),
    ax: Axes,
) -> Axes:
    """Draw as `contour`, with labels that do not cover the further lines `clear`."""
    x, y, heights = _grid(surface)
    levels = _levels(heights, levels)
    if filled:
        ax.contourf(x, y, heights.T, levels=_edges(heights, levels), cmap=HEIGHTS, zorder=0)
    lines = ax.contour(x, y, heights.T, levels=levels, colors="#6f6f6f", linewidths=0.7, zorder=1)
    ax.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()), xlabel=surface.dims[0], ylabel=surface.dims[1])
    if ax.get_xscale() == "linear":
        ax.locator_params("x", nbins=6, steps=[1, 2, 5, 10])
    if ax.get_yscale() == "linear":
        ax.locator_params("y", nbins=6, steps=[1, 2, 5, 10])
    drawn, names = {}, [str(name) for name in surface.dims]
    for color, (label, path) in zip(itertools.cycle(colors), paths.items(), strict=False):
        drawn[label] = color, _path(label, path, names)[:2]
        dots = {"marker": "o", "ms": 4.5, "mec": "white", "mew": 0.6} if len(drawn[label][1][0]) <= DOTS else {}
        ax.plot(*drawn[label][1], color=color, lw=1.4, zorder=3, **dots)
    room = Room(ax)
    blocked = {label: (color, room.block(*line, width=9)) for label, (color, line) in drawn.items()}
    for line in clear:
        room.block(*line, width=9)
    _name_points(room, {label: (place, place) for label, place in points.items()})
    for label, (color, line) in blocked.items():
        room.near(line, label, color=color, weight="bold", path_effects=HALO)
    _name_levels(room, lines)
    return ax


def by_label(paths: Mapping[str, Any] | Fit | None, what: str = "paths") -> Mapping[str, Any]:
    """Return paths, or points, by label; a single fit has the empty label."""
    if isinstance(paths, Fit):
        return {"": paths}
    if paths is not None and not isinstance(paths, Mapping):
        each = "{'descent': fit}" if what == "paths" else "{'start': (x, y)}"
        raise TypeError(f"{what} is a {type(paths).__name__}, but it must be a dict by label, such as {each}")
    return paths or {}


@near_keywords
def surface_3d(
    surface: xr.DataArray,
    paths: Paths | None = None,
    points: Mapping[str, tuple[float, float, float]] | None = None,
    *,
    levels: int | Sequence[float] = 8,
    view: tuple[float, float] = (38, -60),
    ax: Axes | None = None,
) -> Axes:
    """Draw a loss surface in perspective, with its contours on the floor and the paths of descents on it.

    The heights of the path of a fit are its losses at the records and between them, not the heights of the surface.

    Args:
      surface: From `jf.surface`, of two dimensions.
      paths: {label: fit with its params recorded}, or {label: (x, y, loss)}.
      points: {label: (x, y, loss)} of single points to name.
      levels: As in `contour`, on the floor.
      view: Elevation and azimuth of the camera, in degrees.
      ax: Axes made with projection="3d"; new ones if None.

    Raises:
      ValueError: As in `contour`; also if the axes are not three-dimensional, or a path has no losses.

    Example:
      >>> a, b = (jf.Axis(name, np.linspace(-1.0, 1.0, 9)) for name in "ab")
      >>> found = jf.surface(lambda p: p["a"] ** 2 + 3 * p["b"] ** 2, {"a": a, "b": b})
      >>> ax = jf.plots.surface_3d(found)
    """
    with style():
        if ax is None:  # over the whole frame: the surface has room of its own around it
            frame = {"left": 0, "right": 1, "bottom": 0.06, "top": 1.08}
            ax = plt.subplots(figsize=(6.4, 5), subplot_kw={"projection": "3d"}, gridspec_kw=frame)[1]
        if getattr(ax, "name", "") != "3d":
            raise ValueError(f"surface_3d draws on axes made with projection='3d', not on a {type(ax).__name__}")
        x, y, heights = _grid(surface)
        levels = _levels(heights, levels)
        shown = heights[np.isfinite(heights)]
        floor = shown.min() - 0.45 * np.ptp(shown)
        ax.computed_zorder = False  # what is drawn later is in front: a path lies on its surface, never behind it
        right, up = np.meshgrid(x, y, indexing="ij")
        lines = {"levels": levels, "colors": "#6f6f6f", "linewidths": 0.7}
        ax.contour(right, up, heights, zdir="z", offset=floor, zorder=0, **lines)
        ax.plot_surface(right, up, heights, cmap=HEIGHTS, rcount=64, ccount=64, lw=0, antialiased=False, zorder=1)
        ax.contour(right, up, heights, zorder=2, alpha=0.45, **lines)
        ax.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()), zlim=(floor, shown.max()))
        ax.set(xlabel=surface.dims[0], ylabel=surface.dims[1], zlabel="loss")
        ax.view_init(*view)
        _quiet(ax, shown.min())
        drawn = {}
        for color, (label, path) in zip(itertools.cycle(COLORS), by_label(paths).items(), strict=False):
            line, dots = _path_3d(label, path, [str(name) for name in surface.dims])
            ax.plot(line[0], line[1], np.full_like(line[0], floor), color=color, lw=1.0, alpha=0.6, zorder=0.5)
            ax.plot(*line, color=color, lw=1.7, zorder=10)
            if len(dots[0]) <= DOTS:
                ax.plot(*dots, "o", color=color, ms=4, mec="white", mew=0.5, zorder=11)
            drawn[label] = color, line
        room = Room(ax)
        blocked = {label: (color, room.block(*_projected(ax, line), width=9)) for label, (color, line) in drawn.items()}
        _name_points(
            room, {label: (place, _projected(ax, place)) for label, place in by_label(points, "points").items()}
        )
        for label, (color, line) in blocked.items():
            room.near(line, label, color=color, weight="bold", path_effects=HALO, zorder=20)
        return ax


@near_keywords
def arrow_3d(start: ArrayLike, end: ArrayLike, *, color: str = DARK, ax: Axes) -> Axes:
    """Draw an arrow from one point (x, y, z) to another, in front of everything else.

    Draw it after the view and the limits are set.

    Example:
      >>> import matplotlib.pyplot as plt
      >>> ax = plt.figure().add_subplot(projection="3d")
      >>> arrow = jf.plots.arrow_3d((0, 0, 0), (1, 1, 1), ax=ax)
    """
    x, y = _projected(ax, np.transpose([np.asarray(start), np.asarray(end)]))
    look = {"arrowstyle": "-|>", "color": color, "lw": 2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 15}
    ax.annotate("", (x[1], y[1]), (x[0], y[0]), arrowprops=look, zorder=15)
    return ax


def _grid(surface: xr.DataArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    remedy = "what jf.surface returned, or of a grid one of its results, such as grid.results.loss"
    if hasattr(surface, "results"):
        raise TypeError(f"a surface is drawn, but this is a {type(surface).__name__}; pass {remedy}")
    dims = getattr(surface, "dims", ())
    if len(dims) != 2:
        raise ValueError(
            f"a surface has two dimensions, but this has {dims}: choose the rest with surface.sel, or take the least "
            f"along them with surface.min"
        )
    surface = surface.sortby(list(dims))
    x, y = (np.asarray(surface[d], float) for d in dims)
    return x, y, np.where(np.isfinite(surface.values), surface.values, np.nan).astype(float)


def _levels(heights: np.ndarray, levels: int | Sequence[float]) -> list[float]:
    """Return the given levels, or as many rounded ones as asked, at equal distances for a parabola."""
    if not isinstance(levels, int):
        return list(levels)
    low, high = np.nanmin(heights), np.nanmax(heights)
    exact = low + (high - low) * (np.arange(1, levels) / levels) ** 2
    digits = -np.floor(np.log10(np.maximum(exact - low, 1e-300) / 4))
    rounded = np.array([round(value, int(d)) for value, d in zip(exact, digits, strict=True)])
    return np.unique(rounded[(rounded > low) & (rounded < high)]).tolist()


def _edges(heights: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Return the levels of the colors: three bands between two contours, so that slopes are visible."""
    low, high = np.nanmin(heights), np.nanmax(heights)
    edges = np.unique(np.clip([low, *levels, high], low, high))
    last = len(edges) - 1
    return np.unique(np.interp(np.linspace(0, last, 3 * last + 1), np.arange(last + 1), edges))


def _path(label: str, path: Path, dims: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Return the coordinates of a path along the dimensions, and its losses if it has any."""
    which = f" {label!r}" if label else ""
    given: PyTree = recorded(path, "params", f"the fit{which}") if isinstance(path, Fit) else path
    if isinstance(given, Mapping):
        missing = [name for name in dims if name not in given]
        if missing:
            raise ValueError(
                f"the path{which} has params {', '.join(map(str, given))}, but the surface has the dimensions "
                f"{', '.join(dims)}: name the axes like the params, or give the path as (x, y)"
            )
        given = tuple(given[name] for name in dims)
    shapes = [np.shape(numbers) for numbers in given] if isinstance(given, (tuple, list, np.ndarray)) else []
    if len(shapes) not in (2, 3) or any(len(shape) != 1 or shape != shapes[0] for shape in shapes):
        raise ValueError(
            f"the path{which} is {reprlib.repr(given)}, but it must be a fit with its params recorded, or (x, y) or "
            f"(x, y, loss), sequences of one length"
        )
    return tuple(np.asarray(numbers, float) for numbers in given)


def _path_3d(label: str, path: Path, dims: Sequence[str]) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Return the line of a path on the surface, and the dots on it."""
    if isinstance(path, Fit):
        _path(label, path, dims)
        between = 0 if len(path.history.step) > DOTS else 11
        way = trail(path, between=between)
        line = (*_path(label, way.params, dims), way.loss.astype(float))
        return line, tuple(numbers[:: between + 1] for numbers in line)
    line = _path(label, path, dims)
    if len(line) != 3:
        raise ValueError(f"the path {label!r} has no losses to draw it on the surface: give the fit, or (x, y, loss)")
    return line, line


def _name_points(room: Room, points: Mapping[str, tuple]) -> None:
    """Draw a white dot and a name for each point, given as (position, position in the plane of the picture)."""
    spots = {}
    for label, (place, flat) in points.items():
        room.ax.plot(*([value] for value in place), "o", mfc="white", mec=DARK, ms=5.5, mew=1.1, zorder=12)
        spots[label] = room.block(*flat, width=11)
    for label, spot in spots.items():
        room.near(spot, label, color=DARK, path_effects=HALO, zorder=21)


def _name_levels(room: Room, lines: ContourSet) -> None:
    """Label each contour with its loss, where there is room, with the labels close to each other."""
    near = room.ax.transAxes.transform((0.5, 0.02))
    look = {"fontsize": 8, "color": "#555555", "path_effects": HALO}
    for level, pieces in sorted(zip(lines.levels, lines.allsegs, strict=True), key=lambda pair: -pair[0]):
        text = room.on(pieces, number(float(f"{level:.6g}")), near, **look)
        if text is not None:
            box = text.get_window_extent()
            near = np.array([box.x0 + box.x1, box.y0 + box.y1]) / 2


def _quiet(ax: Axes, least: float) -> None:
    """Style the axes: no walls, few ticks, and no ticks of the loss below the surface."""
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_pane_color((1, 1, 1, 0))
        axis.line.set_color("#999999")
    ax.patch.set_visible(False)
    ax.grid(False)
    ax.locator_params(nbins=5)
    ax.set_box_aspect((1, 1, 0.62))  # pyright: ignore[reportArgumentType]
    ax.set_zticks([tick for tick in ax.get_zticks() if least - 1e-9 <= tick <= ax.get_zlim()[1]])


def _projected(ax: Axes, points: np.ndarray | Sequence[ArrayLike]) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of points in space in the plane of the picture."""
    x, y, z = (np.asarray(numbers, float) for numbers in points)
    right, up, _ = proj3d.proj_transform(x, y, z, ax.get_proj())
    return np.asarray(right), np.asarray(up)


@house
def landscape(
    surface: xr.DataArray, plane: Slice, paths: Paths | None = None, *, levels: int | Sequence[float] = 8, ax: Axes
) -> Axes:
    """Draw the loss over a slice, with descents projected onto it; the title says how much of them the slice shows.

    Args:
      surface: `jf.surface(loss, plane.at(), data)`.
      plane: The slice; a line is drawn as a curve.
      paths: {label: fit with its params recorded, or params like its own, one or many}; only over planes.
      levels: As in `contour`.

    Raises:
      ValueError: If the surface is of another slice, or a path does not fit it.

    Example:
      >>> line, t = jf.landscapes.between({"a": 0.0}, {"a": 2.0}), np.linspace(0.0, 1.0, 5)
      >>> ax = jf.plots.landscape(jf.surface(lambda p: p["a"] ** 2, line.at(t)), line)
    """
    if getattr(surface, "dims", None) != plane.names:
        raise ValueError(
            f"landscape: the surface has the dimensions {getattr(surface, 'dims', None)}, but the slice {plane.names}; "
            f"make it with jf.surface(loss, plane.at(), data)"
        )
    words = [name.replace("_", " ") for name in plane.names]
    if "eigenvalues" in plane.about:
        shown = [number(float(f"{value:.3g}")) for value in plane.about["eigenvalues"]]
        words = [f"{word}, \N{GREEK SMALL LETTER LAMDA} = {value}" for word, value in zip(words, shown, strict=True)]
    if len(words) == 1:
        ax.plot(surface[plane.names[0]], surface, color=BLUE)
        ax.set(xlabel=words[0], ylabel="loss")
    else:
        drawn = {label: tuple(plane.project(path).values()) for label, path in by_label(paths).items()}
        starts = [("start", (float(x[0]), float(y[0]))) for x, y in drawn.values()][:1]
        contour(surface, drawn, dict(starts), levels=levels, ax=ax)
        ax.set(xlabel=words[0], ylabel=words[1])
    ax.set_title(slice_title(surface.attrs))
    return ax


def slice_title(about: Mapping[str, Any]) -> str:
    """Return the title of a slice: its kind, and how much it captures."""
    what = str(about["slice"])
    held = f": {_percent(about['captured'])} of the {about['captures']}" if "captured" in about else ""
    return what[0].upper() + what[1:] + held


def _percent(part: float) -> str:
    """Return a percentage with enough digits that a number below 100 is not rounded to 100."""
    digits = 0 if part < 0.985 else int(np.clip(np.floor(-np.log10(max(1 - part, 1e-9))) - 1, 1, 4))
    return f"{100 * part:.{digits}f} %"
