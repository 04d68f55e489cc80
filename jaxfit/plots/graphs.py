"""Computation graphs: values above their edges, local derivatives and gradients below, one color each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.textpath import text_to_path
from PIL import Image

from jaxfit.checks import path_name
from jaxfit.graphs.records import Edge, Graph, Node
from jaxfit.graphs.words import number, shape, written
from jaxfit.plots.house import BLUE, DARK, GREEN, GREY, LARGEST, PALE, RED, style
from jaxfit.plots.layers import Extent, Layout, Link, arrange

SIZE, SMALL, LINE = 10.0, 8.5, 1.25  # points of text on edges, of captions; a line in font sizes
PAD = 12.0
HEAD = 6.0  # an arrow's last part is straight
LONGEST = 1600.0  # points of a side of a figure of its own; larger ones are scaled down
BACK = {"right": "←", "up": "↓", "down": "↑"}  # what a gradient's number begins with
WHOLE, FOLDED = 56, 20  # a graph of more nodes is folded, and to how many
LEGEND = (
    ("value, computed forward", BLUE),
    ("{} gradient of the loss, carried back", RED),
    ("local derivative of the operation", GREEN),
)
SIGNS = frozenset("+−×÷<≤>≥=≠") | {"max", "min", "power"}


class _Line(NamedTuple):
    text: str
    color: str
    size: float


class _Box(NamedTuple):
    node: Node
    text: str
    caption: tuple[_Line, ...]
    width: float
    height: float


class _Tie(NamedTuple):
    """What is drawn of an edge, or of several between the same nodes."""

    edges: tuple[int, ...]
    source: int
    target: int
    above: tuple[_Line, ...]
    below: tuple[_Line, ...]
    flows: bool  # a gradient goes back along it to a parameter
    walked: bool  # a gradient was computed at all


class Drawing(NamedTuple):
    """A graph, measured and arranged; x to the right and y up, in points."""

    boxes: list[_Box]
    ties: list[_Tie]
    layout: Layout
    direction: str
    legend: list[tuple[_Line, float, float]]
    size: tuple[float, float]


def backprop_graph(
    graph: Graph,
    *,
    optimizer: Any = None,
    direction: str = "right",
    boxes: int | None = None,
    backward: bool = True,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """A computation graph: forward values in blue, gradients in red, local derivatives in green, on every edge.

    Parameters have a blue border, data are gray. Edges on which a gradient goes back to a parameter are dark, the
    others gray, and dashed where there is no gradient: whole numbers, or a loss without a backward pass. Numbers that
    go into one operation stand in its box.

    Args:
      graph: Made by `jf.backprop`.
      optimizer: Writes at each parameter where one step of it would lead.
      direction: Of the forward pass: "right", "up" or "down".
      boxes: A larger graph is folded to so many nodes; if None, one of more than 56 nodes is folded to 20.
      backward: Whether to draw what the backward pass found, or the values alone.
      legend: Whether to say below what the colors mean.
      ax: The axes to draw on, in which the graph is made to fit; a figure of the right size if None.

    Raises:
      ValueError: If the direction is none of the three.
    """
    if direction not in ("right", "up", "down"):
        raise ValueError(f'direction is {direction!r}, but it must be "right", "up" or "down"')
    with style():
        if boxes is not None or len(graph.nodes) > WHOLE:
            graph = graph.fold(boxes or FOLDED)
        drawing = _drawing(graph, optimizer, direction, legend, backward)
        ax, scale = _axes(drawing, ax)
        _paint(drawing, ax, scale, backward=None if backward else set(), captions=backward)
        return ax


def backprop_animation(graph: Graph, *, optimizer: Any = None, seconds: float = 0.8) -> bytes:
    """One sweep forward and one backward as an animated GIF: the values appear edge by edge, then the gradients.

    Args:
      graph: Made by `jf.backprop`; a small one.
      optimizer: Ends with one step of it.
      seconds: For each picture; the last one stays longer.

    Returns:
      The file; the same bytes for the same graph.

    Raises:
      ValueError: If it is larger than 200 KB.
    """
    with style():
        drawing = _drawing(graph, optimizer, "right", True)
        frames = [_frame(drawing, *stage) for stage in _stages(drawing, graph, optimizer is not None)]
    palette = frames[-1].quantize(128, dither=Image.Dither.NONE)
    pictures = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [int(1000 * seconds)] * (len(pictures) - 1) + [int(4000 * seconds)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0, optimize=True)
    if buffer.tell() > LARGEST:
        raise ValueError(f"the animation is {buffer.tell():,} bytes, more than {LARGEST:,}: fold the graph first")
    return buffer.getvalue()


# What is drawn


def _drawing(graph: Graph, optimizer: Any, direction: str, legend: bool, backward: bool = True) -> Drawing:
    """Measures and arranges."""
    absorbed, texts = _absorbed(graph)
    nodes = [node for node in graph.nodes if node.name not in absorbed]
    index = {node.name: i for i, node in enumerate(nodes)}
    captions = _captions(graph, optimizer)
    boxes = [_box(node, texts.get(node.name, node.label), captions.get(node.name, ())) for node in nodes]
    flowing = _flowing(graph)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, edge in enumerate(graph.edges):
        if edge.source in index:
            groups.setdefault((index[edge.source], index[edge.target]), []).append(i)
    ties = []
    for (source, target), members in groups.items():
        for part in [[i] for i in members] if len(members) <= 3 else [members]:
            edges = [graph.edges[i] for i in part]
            flows = any(i in flowing for i in part)
            walked = any(edge.gradient is not None for edge in edges)
            ties.append(
                _Tie(tuple(part), source, target, _above(edges), _below(edges, flows, BACK[direction]), flows, walked)
            )
    level = direction == "right"
    extents = [_box_extent(box, level) for box in boxes]
    links = [Link(t.source, t.target, _label_extent(t, level), _straightness(t, boxes)) for t in ties]
    layout = arrange(extents, links)
    along, across = layout.size
    width, height = (along, across) if level else (across, along)
    colors = {line.color for tie in ties for line in (*tie.above, *(tie.below if backward else ()))}
    shown = _legend(colors, width, BACK[direction]) if legend else []
    below = max((y for *_, y in shown), default=0.0)
    width = max([width, *(x + _wide(line) for line, x, _ in shown)])
    return Drawing(boxes, ties, layout, direction, shown, (width + 2 * PAD, height + below + 2 * PAD))


def _absorbed(graph: Graph) -> tuple[set[str], dict[str, str]]:
    """Numbers that are written into the box of the one operation that uses them, and what such boxes say."""
    by_name = {node.name: node for node in graph.nodes}
    absorbed, texts = set(), {}
    for node in graph.nodes:
        sources = [by_name[graph.edges[i].source] for i in node.inputs]
        numbers = [s.kind == "constant" and np.ndim(s.value) == 0 and len(s.leaving) == 1 for s in sources]
        if len(sources) == 2 and sum(numbers) == 1 and node.label in SIGNS:
            constant = sources[numbers.index(True)]
            words = [node.label, _minus(written(constant.value, 4))]
            texts[node.name] = " ".join(words if numbers[1] else words[::-1])
            absorbed.add(constant.name)
    return absorbed, texts


def _captions(graph: Graph, optimizer: Any) -> dict[str, tuple[_Line, ...]]:
    """Below boxes: sums of gradients that meet, and where a step of the optimizer leads."""
    found: dict[str, list[_Line]] = {node.name: [] for node in graph.nodes}
    flowing = _flowing(graph)
    for node in graph.nodes:
        parts = [i for i in node.leaving if graph.edges[i].gradient is not None]
        if len(parts) > 1 and len(node.outputs) == 1 and (node.kind == "parameter" or set(node.inputs) & flowing):
            found[node.name].append(_Line(_sum(graph, node, parts), RED, SMALL))
    if optimizer is not None:
        leaves = jax.tree_util.tree_leaves_with_path(graph.update(optimizer))
        after = {path_name("params", path): leaf for path, leaf in leaves}
        for node in graph.nodes:
            if node.kind == "parameter" and node.name in after and not isinstance(node.value, tuple):
                text = _step(node.value, after[node.name])
                found[node.name].append(_Line(text, DARK, SIZE))
    return {name: tuple(lines) for name, lines in found.items()}


def _step(before: Any, after: Any) -> str:
    """Where a step leads, with as many digits as show its length."""
    if np.ndim(before) or before == after or not np.isfinite(after):
        return f"{_compact(before)} → {_compact(after)}"
    for digits in range(4, 10):
        if abs(float(number(after, digits)) - after) <= 0.01 * abs(after - before):
            break
    return _minus(f"{number(before, digits)} → {number(after, digits)}")


def _parameters(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes if node.kind == "parameter"]


def _sum(graph: Graph, node: Node, parts: Sequence[int]) -> str:
    gradients = [graph.edges[i].gradient for i in parts]
    total = _compact(node.gradient)
    if np.ndim(node.gradient) or len(parts) > 3:
        return f"sum of {len(parts)}: {total}"
    text = _minus(" + ".join(f"({number(g)})" if g < 0 else number(g) for g in gradients))
    return f"{text} = {total}"


def _flowing(graph: Graph) -> set[int]:
    """Edges on a way from a parameter to the loss, on which a gradient goes back."""
    moved = set(_parameters(graph))
    flowing = set()
    for node in graph.nodes:
        mine = [i for i in node.inputs if graph.edges[i].source in moved]
        if mine:
            moved.add(node.name)
            flowing.update(i for i in mine if graph.edges[i].gradient is not None)
    return flowing


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _compact(value: Any) -> str:
    """A number, a few numbers, or what an array is on the whole."""
    if not isinstance(value, (np.ndarray, np.generic)):
        return written(value)
    array = np.asarray(value)
    if array.ndim == 0 or array.size == 0:
        return _minus(written(value))
    if array.ndim == 1 and array.size <= 3:
        return _minus(written(array, 4))
    if array.dtype == bool:
        return f"{int(array.sum())} of {array.size}"
    numbers = array.astype(float)
    if np.all(numbers == numbers.flat[0]):
        return _minus(f"each {number(numbers.flat[0], 4)}")
    with np.errstate(invalid="ignore", over="ignore"):
        mean, largest = numbers.mean(), np.abs(numbers).max()
        return _minus(f"mean {number(0 if abs(mean) < 1e-7 * largest else mean, 3)}")


def _above(edges: Sequence[Edge]) -> tuple[_Line, ...]:
    """The value; of an array its shape too."""
    if len(edges) > 1:
        return (_Line(f"{len(edges)} values", BLUE, SIZE),)
    value = edges[0].value
    text = _compact(value)
    if np.ndim(value) and not text.startswith("["):
        return (_Line(f"{shape(np.asarray(value))} {text}", BLUE, SIZE), *_range(value, BLUE))
    return (_Line(text, BLUE, SIZE),)


def _range(value: Any, color: str) -> tuple[_Line, ...]:
    """The least and the largest entry of an array that has different ones."""
    array = np.asarray(value)
    if not array.ndim or array.dtype == bool or not _compact(value).startswith("mean"):
        return ()
    return (_Line(_minus(f"{number(array.min(), 3)} to {number(array.max(), 3)}"), color, SMALL),)


def _below(edges: Sequence[Edge], flows: bool, back: str) -> tuple[_Line, ...]:
    """The gradient, and the local derivative."""
    if not flows:
        return ()
    if len(edges) > 1:
        return (_Line(f"{back} {len(edges)} gradients", RED, SIZE),)
    edge = edges[0]
    lines = [_Line(f"{back} {_compact(edge.gradient)}", RED, SIZE), *_range(edge.gradient, RED)]
    local = _local(edge)
    if local and edge.target != "loss":
        lines.append(_Line(f"local {local}", GREEN, SMALL))
    return tuple(lines)


def _local(edge: Edge) -> str:
    """The local derivative in a few words; "" for a Jacobian, which has none."""
    local = edge.local
    if local is None or isinstance(local, str):
        return local or ""
    if np.ndim(local) > max(np.ndim(edge.value), 1) and np.ndim(edge.value) and np.ptp(local):
        return ""
    return _compact(local).removeprefix("each ")


def _box(node: Node, text: str, caption: tuple[_Line, ...]) -> _Box:
    size = SIZE + 2 if text in SIGNS else SIZE
    lines = text.split("\n")
    width = max(_wide(_Line(line, DARK, size)) for line in lines) + 12
    height = 14 + len(lines) * size * LINE * 0.8
    return _Box(node, text, caption, max(width, 24.0), max(height, 22.0))


def _wide(line: _Line) -> float:
    """Width of a text in points, on the safe side."""
    return 1.04 * text_to_path.get_text_width_height_descent(line.text, FontProperties(size=line.size), False)[0] + 1


def _high(lines: Sequence[_Line]) -> float:
    return sum(line.size * LINE for line in lines)


def _box_extent(box: _Box, level: bool) -> Extent:
    caption = max((_wide(line) for line in box.caption), default=0.0)
    if level:
        return Extent(
            max(box.width, caption), box.height / 2, box.height / 2 + (_high(box.caption) + 3 if caption else 0)
        )
    return Extent(max(box.height, _high(box.caption)), box.width / 2, box.width / 2 + (caption + 6 if caption else 0))


def _label_extent(tie: _Tie, level: bool) -> Extent:
    above, below = (max((_wide(line) for line in lines), default=0.0) for lines in (tie.above, tie.below))
    if level:
        return Extent(max(above, below) + 6, _high(tie.above) + 3, _high(tie.below) + 3)
    return Extent(max(_high(tie.above), _high(tie.below)) + 6, above + 6, below + 6 if below else 3)


def _straightness(tie: _Tie, boxes: Sequence[_Box]) -> float:
    """Ways of gradients are straight first, among them those between operations."""
    return (4.0 if tie.flows else 1.0) * (3.0 if not boxes[tie.source].node.is_input else 1.0)


def _legend(colors: set[str], width: float, back: str) -> list[tuple[_Line, float, float]]:
    """Colored lines below the graph with their places: x, and the distance of their feet below it."""
    lines = [_Line(text.format(back), color, SIZE) for text, color in LEGEND if color in colors]
    together = sum(map(_wide, lines)) + 18 * (len(lines) - 1)
    placed, x = [], 0.0
    for k, line in enumerate(lines):
        if together <= max(width, 330):
            placed.append((line, x, 14 + SIZE * LINE))
            x += _wide(line) + 18
        else:
            placed.append((line, 0.0, 14 + (k + 1) * SIZE * LINE))
    return placed


# Drawing it


def _axes(drawing: Drawing, ax: Axes | None) -> tuple[Axes, float]:
    """Axes in which the graph fits, in points, and the scale of its texts."""
    width, height = drawing.size
    if ax is None:
        scale, own = min(1.0, LONGEST / max(width, height)), (width, height)
        ax = plt.figure(figsize=(scale * width / 72, scale * height / 72)).add_axes((0, 0, 1, 1))
    else:
        box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
        own = (72 * box.width, 72 * box.height)
        scale = min(1.25, own[0] / width, own[1] / height)
        own = (own[0] / scale, own[1] / scale)
    left, low = (width - own[0]) / 2, (height - own[1]) / 2
    ax.set(xlim=(left, left + own[0]), ylim=(low, low + own[1]), xticks=[], yticks=[])
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
        self.top = height - PAD
        self.left = PAD if self.direction == "right" else (width - across) / 2
        self.length = along

    def at(self, point: Any) -> tuple[float, float]:
        """Along and across as x and y."""
        along, across = point
        if self.direction == "right":
            return self.left + along, self.top - across
        y = self.top - along if self.direction == "down" else self.top - self.length + along
        return self.left + across, y

    def text(self, x: float, y: float, line: _Line, **how: Any) -> None:
        self.ax.text(x, y, line.text, color=line.color, fontsize=line.size * self.letters, **how)

    def stack(self, x: float, y: float, lines: Sequence[_Line], ha: str, va: str) -> None:
        """Lines below each other, together above, below or around y."""
        high = _high(lines)
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
    """Everything, or of the edges' numbers only those already computed forward and backward; `now` is highlighted."""
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
        brush.text(PAD + x, brush.top - size - depth, line, ha="left", va="baseline")


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
            middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
            vertices += (
                [(middle[0], a[1]), (middle[0], b[1]), b] if level else [(a[0], middle[1]), (b[0], middle[1]), b]
            )
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


def _node(brush: _Brush, box: _Box, x: float, y: float) -> None:
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
    brush.text(x, y, _Line(box.text, DARK, size), ha="center", va="center_baseline", zorder=3)


# The animation


def _stages(drawing: Drawing, graph: Graph, steps: bool) -> list[tuple[set[int], set[int], set[int], bool]]:
    """Edges with values, with gradients, those of the moment, and whether the sums and the step are shown."""
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
    flowing = _flowing(graph)
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
