"""Pictures of graphs: computation graphs with values and gradients on their edges, and flow diagrams of boxes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from PIL import Image

from jaxfit.graphs.graph import Graph
from jaxfit.plots.graph_drawing import (
    LINE,
    MARGIN,
    SIGNS,
    SIZE,
    Drawing,
    NodeBox,
    Phrase,
    drawing_of,
    height_of,
    ways_back,
)
from jaxfit.plots.house import BLUE, DARK, GREY, LARGEST, PALE, RED, Room, check_drawn, house, style
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import OptimizerLike

MADE = "what jf.backprop(loss, params, data) returned"
HEAD = 6.0  # an arrow's last part is straight
LONGEST = 1600.0  # points of a side of a figure of its own; larger ones are scaled down
WHOLE, FOLDED = 56, 20  # a graph of more nodes is folded, and to how many


@near_keywords
def backprop_graph(
    graph: Graph,
    *,
    optimizer: OptimizerLike | None = None,
    direction: str = "right",
    boxes: int | None = None,
    backward: bool = True,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a computation graph, with values in blue, gradients in red and local derivatives in green on every edge.

    Parameters have a blue border, data are gray. Edges on which a gradient flows back to a parameter are dark, the
    others gray, and dashed where there is no gradient: for whole numbers, or a loss without a backward pass. Numbers
    that go into one operation only are written in its box.

    Args:
      graph: Made by `jf.backprop`.
      optimizer: If given, each parameter also shows its value after one step of it.
      direction: Of the forward pass: "right", "up" or "down".
      boxes: A larger graph is folded to this number of nodes; if None, one of more than 56 nodes is folded to 20.
      backward: Whether to draw the results of the backward pass, or the values alone.
      legend: Whether to explain the colors below.
      ax: The axes to draw on, into which the graph is fitted; a figure of the right size if None.

    Raises:
      ValueError: If the direction is none of the three.

    Example:
      >>> graph = jf.backprop(lambda p: p**2, 3.0)
      >>> ax = jf.plots.backprop_graph(graph)
    """
    check_drawn("backprop_graph", "a graph", graph, Graph, MADE)
    if direction not in ("right", "up", "down"):
        raise ValueError(f'direction is {direction!r}, but it must be "right", "up" or "down"')
    with style():
        if boxes is not None or len(graph.nodes) > WHOLE:
            graph = graph.fold(boxes or FOLDED)
        drawing = drawing_of(graph, optimizer, direction, legend, backward)
        ax, scale = _axes(drawing, ax)
        _paint(drawing, ax, scale, backward=None if backward else set(), captions=backward)
        return ax


@near_keywords
def backprop_animation(graph: Graph, *, optimizer: OptimizerLike | None = None, seconds: float = 0.8) -> bytes:
    """Return an animated GIF of one forward and one backward pass through a graph.

    The values appear edge by edge, then the gradients.

    Args:
      graph: Made by `jf.backprop`; a small one.
      optimizer: If given, the animation ends with one step of it.
      seconds: For each picture; the last one stays longer.

    Returns:
      The bytes of the file; the same for the same graph.

    Raises:
      ValueError: If it is larger than 200 KB.

    Example:
      >>> graph = jf.backprop(lambda p: p**2, 3.0)
      >>> jf.plots.backprop_animation(graph)[:4]
      b'GIF8'
    """
    check_drawn("backprop_animation", "a graph", graph, Graph, MADE)
    with style():
        drawing = drawing_of(graph, optimizer, "right", True)
        frames = [_frame(drawing, *stage) for stage in _stages(drawing, graph, optimizer is not None)]
    palette = frames[-1].quantize(128, dither=Image.Dither.NONE)
    pictures = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [int(1000 * seconds)] * (len(pictures) - 1) + [int(4000 * seconds)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0, optimize=True)
    if buffer.tell() > LARGEST:
        raise ValueError(f"the animation is {buffer.tell():,} bytes, more than {LARGEST:,}: fold the graph first")
    return buffer.getvalue()


# Drawing it


def _axes(drawing: Drawing, ax: Axes | None) -> tuple[Axes, float]:
    """Return axes in which the graph fits, in points, and the scale of its texts."""
    width, height = drawing.size
    if ax is None:
        scale, extent = min(1.0, LONGEST / max(width, height)), (width, height)
        ax = plt.figure(figsize=(scale * width / 72, scale * height / 72)).add_axes((0, 0, 1, 1))
    else:
        box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
        extent = (72 * box.width, 72 * box.height)
        scale = min(1.25, extent[0] / width, extent[1] / height)
        extent = (extent[0] / scale, extent[1] / scale)
    left, low = (width - extent[0]) / 2, (height - extent[1]) / 2
    ax.set(xlim=(left, left + extent[0]), ylim=(low, low + extent[1]), xticks=[], yticks=[])
    ax.set_axis_off()
    return ax, scale


class _Brush:
    """Draws in points, to the right and up, at the scale of the axes."""

    def __init__(self, drawing: Drawing, ax: Axes, scale: float):
        self.ax, self.scale, self.direction = ax, scale, drawing.direction
        self.letters = scale if scale > 0.6 else 0.88 * scale  # small letters are drawn wider
        self.drawing = drawing
        along, across = drawing.layout.size
        width, height = drawing.size
        self.top = height - MARGIN
        self.left = MARGIN if self.direction == "right" else (width - across) / 2
        self.length = along

    def at(self, point: np.ndarray) -> tuple[float, float]:
        """Return along and across as x and y."""
        along, across = point
        if self.direction == "right":
            return self.left + along, self.top - across
        y = self.top - along if self.direction == "down" else self.top - self.length + along
        return self.left + across, y

    def text(self, x: float, y: float, line: Phrase, **how: Any) -> None:
        self.ax.text(x, y, line.text, color=line.color, fontsize=line.size * self.letters, **how)

    def stack(self, x: float, y: float, lines: Sequence[Phrase], ha: str, va: str) -> None:
        """Write lines below each other, together above, below or around y."""
        high = height_of(lines)
        top = {"bottom": y + high, "top": y, "center": y + high / 2}[va]
        for line in lines:
            self.text(x, top - line.size * LINE / 2, line, ha=ha, va="center_baseline")
            top -= line.size * LINE


def _paint(
    drawing: Drawing,
    ax: Axes,
    scale: float,
    *,
    forward: set[int] | None = None,
    backward: set[int] | None = None,
    now: set[int] | None = None,
    captions: bool = True,
) -> None:
    """Draw everything, or only the edges' numbers computed so far, forward and backward; `now` is highlighted."""
    brush = _Brush(drawing, ax, scale)
    level = drawing.direction == "right"
    for k, tie in enumerate(drawing.ties):
        _edge(brush, k, now is not None and not now.isdisjoint(tie.edges), RED if backward else BLUE)
    for k, tie in enumerate(drawing.ties):
        x, y = brush.at(drawing.layout.labels[k])
        above = tie.above if forward is None or not forward.isdisjoint(tie.edges) else ()
        below = tie.below if backward is None or not backward.isdisjoint(tie.edges) else ()
        if level:
            brush.stack(x, y + 3, above, "center", "bottom")
            brush.stack(x, y - 3, below, "center", "top")
        else:
            brush.stack(x - 5, y, above, "right", "center")
            brush.stack(x + 5, y, below, "left", "center")
    for box, point in zip(drawing.boxes, drawing.layout.nodes, strict=True):
        x, y = brush.at(point)
        _node(brush, box, x, y)
        lines = box.caption if captions else ()
        if level:
            brush.stack(x, y - box.height / 2 - 3, lines, "center", "top")
        else:
            brush.stack(x + box.width / 2 + 6, y, lines, "left", "center")
    for line, x, depth in drawing.legend:
        size = drawing.layout.size[1 if level else 0]
        brush.text(MARGIN + x, brush.top - size - depth, line, ha="left", va="baseline")


def _edge(brush: _Brush, k: int, highlighted: bool, color: str) -> None:
    tie, route = brush.drawing.ties[k], brush.drawing.layout.routes[k].copy()
    source, target = brush.drawing.boxes[tie.source], brush.drawing.boxes[tie.target]
    level = brush.direction == "right"
    half = (lambda box: box.width / 2) if level else (lambda box: box.height / 2)
    breadth = target.height if level else target.width
    port = np.clip(route[-3, 1] - route[-1, 1], -0.3 * breadth, 0.3 * breadth)
    route[0, 0] += half(source)
    route[-1] = route[-1, 0] - half(target) - 1, route[-1, 1] + port
    route[-2] = min(route[-2, 0], route[-1, 0] - HEAD), route[-1, 1]
    points = [brush.at(point) for point in route]
    vertices, codes = [points[0]], [Path.MOVETO]
    for a, b in zip(points, points[1:], strict=False):
        straight = abs(a[1] - b[1]) < 1e-6 if level else abs(a[0] - b[0]) < 1e-6
        if straight:
            vertices.append(b)
            codes.append(Path.LINETO)
        else:
            x, y = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
            vertices += [(x, a[1]), (x, b[1]), b] if level else [(a[0], y), (b[0], y), b]
            codes += [Path.CURVE4] * 3
    width = 2.6 if highlighted else 1.7 if tie.flows else 1.0
    patch = FancyArrowPatch(
        path=Path(vertices, codes),
        arrowstyle=("<|-" if highlighted and color == RED else "-|>") + ",head_length=0.45,head_width=0.22",
        mutation_scale=(11 if tie.flows else 9) * brush.scale, lw=width * brush.scale,
        color=color if highlighted else DARK if tie.flows else GREY,
        ls="-" if tie.walked or tie.flows else (0, (3, 2)), zorder=1, capstyle="butt", joinstyle="round",
        shrinkA=0, shrinkB=0,
    )  # fmt: skip
    brush.ax.add_patch(patch)


def _node(brush: _Brush, box: NodeBox, x: float, y: float) -> None:
    kind = box.node.kind
    round_ = 0.0 if kind in ("parameter", "data", "constant") else 5.0
    look = {
        "parameter": (BLUE, "white", 2.2), "data": (GREY, PALE, 1.0), "constant": (GREY, PALE, 0.6),
    }.get(kind, (DARK, "white", 1.1))  # fmt: skip
    patch = FancyBboxPatch(
        (x - box.width / 2, y - box.height / 2), box.width, box.height,
        boxstyle=f"round,pad=0,rounding_size={round_}" if round_ else "square,pad=0",
        edgecolor=look[0], facecolor=look[1], lw=look[2] * brush.scale, zorder=2,
    )  # fmt: skip
    brush.ax.add_patch(patch)
    size = SIZE + 2 if box.text in SIGNS else SIZE
    brush.text(x, y, Phrase(box.text, DARK, size), ha="center", va="center_baseline", zorder=3)


# The animation


def _stages(drawing: Drawing, graph: Graph, steps: bool) -> list[tuple[set[int], set[int], set[int], bool]]:
    """Return edges with values, with gradients, those of the moment, and whether the sums and the step are shown."""
    along = {box.node.name: point[0] for box, point in zip(drawing.boxes, drawing.layout.nodes, strict=True)}
    drawn = {i for tie in drawing.ties for i in tie.edges}
    when: dict[float, set[int]] = {}
    for i in drawn:
        when.setdefault(along[graph.edges[i].target], set()).add(i)
    order = [when[x] for x in sorted(when)]
    stages, forward, backward = [(set(), set(), set(), False)], set(), set()
    for edges in order:
        forward = forward | edges
        stages.append((forward, set(), edges, False))
    flowing = ways_back(graph)
    for edges in reversed(order):
        edges = edges & flowing
        if edges:
            backward = backward | edges
            stages.append((forward, backward, edges, False))
    return [*stages, (forward, backward, set(), True)] if steps or any(b.caption for b in drawing.boxes) else stages


def _frame(drawing: Drawing, forward: set[int], backward: set[int], now: set[int], captions: bool) -> Image.Image:
    ax, scale = _axes(drawing, None)
    _paint(drawing, ax, scale, forward=forward, backward=backward, now=now, captions=captions)
    figure: Any = ax.figure
    figure.set_dpi(100)
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    plt.close(figure)
    return picture


# Flow diagrams

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
    check_drawn("flow", "boxes by name", boxes, Mapping, 'such as {"a": jf.plots.Box("data", at=(0, 0))}')
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
            raise ValueError(
                f"the boxes need {need:.1f} inches, but the axes are {room[axis] / 72:.1f} inches {what}: make the "
                f"axes larger, or the texts shorter"
            )
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
