"""Flow diagrams: boxes that hold numbers, laid out on a grid, and arrows between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from jaxfit.plots.house import DARK, Room, house

PAD, LEADING, LEAST_GAP = 8.0, 4.0, 18.0  # points: around the text of a box, under its title, between boxes


class Box(NamedTuple):
    """A box of a diagram: a title, and lines of text under it."""

    title: str
    lines: Sequence[str] = ()
    at: tuple[int, int] = (0, 0)  # column and row on the diagram's grid; row 0 is the top one
    color: str = DARK


class Arrow(NamedTuple):
    """An arrow of a diagram from one box to another, with a label beside it."""

    start: str
    end: str
    label: str = ""
    color: str = "#666666"
    dashed: bool = False


@house
def flow(boxes: Mapping[str, Box], arrows: Sequence[Arrow] = (), *, ax: Axes) -> Axes:
    """Draw boxes on a grid, each as large as its text, with straight arrows between them.

    Args:
      boxes: By name. A column is as wide as its widest box, a row as high as its highest; the gaps share the remaining
        space.
      arrows: Between boxes by name; two arrows between the same boxes, in opposite directions, are drawn side by side.
      ax: The axes to draw on, without ticks or frame; new ones if None. Its size has to be final.

    Raises:
      ValueError: If two boxes have the same place, the boxes or a label do not fit into the axes, the end of an arrow
        is not a box, or an arrow passes through a box.

    Example:
      >>> boxes = {"a": jf.plots.Box("data", at=(0, 0)), "b": jf.plots.Box("loss", at=(0, 1))}
      >>> ax = jf.plots.flow(boxes, [jf.plots.Arrow("a", "b")])
    """
    _check(boxes, arrows)
    ax.set_axis_off()
    points = 72 / ax.figure.dpi
    ax.figure.canvas.figure.draw_without_rendering()
    frame = ax.get_window_extent()
    ax.set(xlim=(0, frame.width * points), ylim=(0, frame.height * points))  # coordinates are points
    middles, sizes = _layout(ax, boxes, points)
    for name, box in boxes.items():
        _draw_box(ax, box, middles[name], sizes[name])
    room = Room(ax)
    for middle, size in zip(middles.values(), sizes.values(), strict=True):
        room.keep(middle - size / 2, middle + size / 2)
    paths = [room.block(*_draw_arrow(ax, arrow, arrows, middles, sizes)) for arrow in arrows]
    for arrow, path in zip(arrows, paths, strict=True):
        middle = ax.transAxes.inverted().transform(path[len(path) // 2])
        how = {"within": 30, "prefer": tuple(middle), "color": arrow.color, "fontsize": 9}
        if arrow.label and room.near(path, arrow.label, **how) is None:
            raise ValueError(f"there is no room for {arrow.label!r} beside the arrow: make the axes larger")
    return ax


def _check(boxes: Mapping[str, Box], arrows: Sequence[Arrow]) -> None:
    places: dict[tuple[int, int], str] = {}
    for name, box in boxes.items():
        if box.at in places:
            raise ValueError(f"the boxes {places[box.at]!r} and {name!r} are both at {box.at}: move one of them")
        places[box.at] = name
    for name in (name for arrow in arrows for name in arrow[:2] if name not in boxes):
        raise ValueError(f"an arrow's end is {name!r}, but there are the boxes {', '.join(map(repr, boxes))}")


def _layout(ax: Axes, boxes: Mapping[str, Box], points: float) -> tuple[dict, dict]:
    """Return the middles and sizes of all boxes, in points."""
    sizes = {name: _size(ax, box, points) for name, box in boxes.items()}
    room = np.array([ax.get_xlim()[1], ax.get_ylim()[1]])
    middles = {name: np.zeros(2) for name in boxes}
    for axis in range(2):
        lanes = sorted({box.at[axis] for box in boxes.values()})
        widths = [max(sizes[name][axis] for name, box in boxes.items() if box.at[axis] == lane) for lane in lanes]
        gap = (room[axis] - sum(widths)) / max(len(lanes) - 1, 1)
        if gap < (LEAST_GAP if len(lanes) > 1 else 0):
            need = (sum(widths) + LEAST_GAP * (len(lanes) - 1)) / 72
            what = ("wide", "high")[axis]
            raise ValueError(f"the boxes need {need:.1f} inches, but the axes are {room[axis] / 72:.1f} inches {what}")
        starts = np.cumsum([0, *(width + gap for width in widths[:-1])]) + (gap / 2 if len(lanes) == 1 else 0)
        centers = {lane: start + width / 2 for lane, start, width in zip(lanes, starts, widths, strict=True)}
        for name, box in boxes.items():
            middles[name][axis] = centers[box.at[axis]] if axis == 0 else room[1] - centers[box.at[1]]
    return middles, sizes


def _texts(ax: Axes, box: Box, x: float, top: float) -> list:
    title = ax.text(x, top, box.title, weight="bold", color=box.color, va="top", zorder=4)
    if not box.lines:
        return [title]
    below = top - title.get_window_extent().height * 72 / ax.figure.dpi - LEADING
    return [title, ax.text(x, below, "\n".join(box.lines), color=DARK, va="top", zorder=4, linespacing=1.45)]


def _size(ax: Axes, box: Box, points: float) -> np.ndarray:
    texts = _texts(ax, box, 0, 0)
    extents = [text.get_window_extent() for text in texts]
    for text in texts:
        text.remove()
    width = max(extent.width for extent in extents)
    height = max(extent.y1 for extent in extents) - min(extent.y0 for extent in extents)
    return np.array([width, height]) * points + 2 * PAD


def _draw_box(ax: Axes, box: Box, middle: np.ndarray, size: np.ndarray) -> None:
    corner = middle - size / 2
    style = f"round,pad=0,rounding_size={PAD / 2}"
    border = {"fc": "white", "ec": box.color, "lw": 1.3, "zorder": 3, "clip_on": False}
    ax.add_patch(FancyBboxPatch(tuple(corner), *size, boxstyle=style, **border))
    _texts(ax, box, corner[0] + PAD, corner[1] + size[1] - PAD)


def _draw_arrow(ax: Axes, arrow: Arrow, arrows: Sequence[Arrow], middles: dict, sizes: dict) -> tuple:
    """Draw an arrow from border to border; return its x and y."""
    a, b = middles[arrow.start], middles[arrow.end]
    ends = np.array([_border(a, sizes[arrow.start], b - a), _border(b, sizes[arrow.end], a - b)])
    if any((other.start, other.end) == (arrow.end, arrow.start) for other in arrows):
        across = np.array([a[1] - b[1], b[0] - a[0]])
        ends = ends + 9 * across / np.linalg.norm(across)
    for name, middle in middles.items():
        inside = np.all(abs(np.linspace(ends[0], ends[1], 200) - middle) < sizes[name] / 2, axis=1)
        if name not in (arrow.start, arrow.end) and inside.any():
            raise ValueError(f"the arrow from {arrow.start!r} to {arrow.end!r} passes through {name!r}: move a box")
    line = "--" if arrow.dashed else "-"
    style = {"arrowstyle": "-|>", "color": arrow.color, "lw": 1.6, "ls": line, "shrinkA": 3, "shrinkB": 3}
    ax.annotate("", tuple(ends[1]), tuple(ends[0]), arrowprops=style | {"mutation_scale": 13})
    return ends[:, 0], ends[:, 1]


def _border(middle: np.ndarray, size: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return the point where the ray from the middle of a box leaves it."""
    with np.errstate(divide="ignore"):
        return middle + direction * np.min(size / 2 / abs(direction))
