"""The picture of a computation graph before it is drawn: texts of boxes, edges and captions, their sizes and places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from jaxfit.graphs.graph import Edge, Graph, Node, number, number_text, shape
from jaxfit.plots.graph_layout import Extent, Layout, Link, arrange
from jaxfit.plots.house import BLUE, DARK, GREEN, RED
from jaxfit.problems.messages import path_name
from jaxfit.typing import OptimizerLike, PyTree

SIZE, SMALL, LINE = 10.0, 8.5, 1.25  # points of text on edges, of captions; a line in font sizes
MARGIN = 12.0
BACK = {"right": "←", "up": "↓", "down": "↑"}  # the arrow before a gradient, against the direction of the graph
LEGEND = (
    ("value, computed forward", BLUE),
    ("{} gradient of the loss, carried back", RED),
    ("local derivative of the operation", GREEN),
)
SIGNS = frozenset("+−×÷<≤>≥=≠") | {"max", "min", "power"}


class Phrase(NamedTuple):
    """A line of text."""

    text: str
    color: str
    size: float


class NodeBox(NamedTuple):
    """A node as it is drawn."""

    node: Node
    text: str
    caption: tuple[Phrase, ...]
    width: float
    height: float


class Tie(NamedTuple):
    """An edge, or several between the same nodes, as it is drawn."""

    edges: tuple[int, ...]
    source: int
    target: int
    above: tuple[Phrase, ...]
    below: tuple[Phrase, ...]
    flows: bool  # whether a gradient is carried back along it to a parameter
    walked: bool  # whether a gradient was computed


class Drawing(NamedTuple):
    """A graph with the sizes and places of all parts; x to the right and y up, in points."""

    boxes: list[NodeBox]
    ties: list[Tie]
    layout: Layout
    direction: str
    legend: list[tuple[Phrase, float, float]]
    size: tuple[float, float]


def drawing_of(
    graph: Graph, optimizer: OptimizerLike | None, direction: str, legend: bool, backward: bool = True
) -> Drawing:
    """Return the drawing of a graph."""
    absorbed, texts = _absorbed(graph)
    nodes = [node for node in graph.nodes if node.name not in absorbed]
    index = {node.name: i for i, node in enumerate(nodes)}
    captions = _captions(graph, optimizer)
    boxes = [_box(node, texts.get(node.name, node.label), captions.get(node.name, ())) for node in nodes]
    flowing = ways_back(graph)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, edge in enumerate(graph.edges):
        if edge.source in index:
            groups.setdefault((index[edge.source], index[edge.target]), []).append(i)
    ties = []
    for (source, target), members in groups.items():
        for part in [[i] for i in members] if len(members) <= 3 else [members]:
            edges = [graph.edges[i] for i in part]
            flows, walked = not flowing.isdisjoint(part), any(edge.gradient is not None for edge in edges)
            below = _below(edges, flows, BACK[direction])
            ties.append(Tie(tuple(part), source, target, _above(edges), below, flows, walked))
    level = direction == "right"
    extents = [_box_extent(box, level) for box in boxes]
    weights = [(4.0 if t.flows else 1.0) * (1.0 if nodes[t.source].is_input else 3.0) for t in ties]  # of straightness
    links = [Link(t.source, t.target, _label_extent(t, level), w) for t, w in zip(ties, weights, strict=True)]
    layout = arrange(extents, links)
    along, across = layout.size
    width, height = (along, across) if level else (across, along)
    colors = {line.color for tie in ties for line in (*tie.above, *(tie.below if backward else ()))}
    shown = _legend(colors, width, BACK[direction]) if legend else []
    below = max((y for *_, y in shown), default=0.0)
    width = max([width, *(x + _wide(line) for line, x, _ in shown)])
    return Drawing(boxes, ties, layout, direction, shown, (width + 2 * MARGIN, height + below + 2 * MARGIN))


def _absorbed(graph: Graph) -> tuple[set[str], dict[str, str]]:
    """Return the constants that are written into the box of the only operation that uses them, and its text."""
    by_name = {node.name: node for node in graph.nodes}
    absorbed, texts = set(), {}
    for node in graph.nodes:
        sources = [by_name[graph.edges[i].source] for i in node.inputs]
        numbers = [s.kind == "constant" and np.ndim(s.value) == 0 and len(s.leaving) == 1 for s in sources]
        if len(sources) == 2 and sum(numbers) == 1 and node.label in SIGNS:
            constant = sources[numbers.index(True)]
            words = [node.label, _minus(number_text(constant.value, 4))]
            texts[node.name] = " ".join(words if numbers[1] else words[::-1])
            absorbed.add(constant.name)
    return absorbed, texts


def _captions(graph: Graph, optimizer: OptimizerLike | None) -> dict[str, tuple[Phrase, ...]]:
    """Return the captions below boxes: sums of gradients, and the values after a step of the optimizer."""
    captions: dict[str, list[Phrase]] = {node.name: [] for node in graph.nodes}
    flowing = ways_back(graph)
    for node in graph.nodes:
        parts = [i for i in node.leaving if graph.edges[i].gradient is not None]
        if len(parts) > 1 and len(node.outputs) == 1 and (node.kind == "parameter" or set(node.inputs) & flowing):
            captions[node.name].append(Phrase(_sum(graph, node, parts), RED, SMALL))
    if optimizer is not None:
        leaves = jax.tree_util.tree_leaves_with_path(graph.update(optimizer))
        after = {path_name("params", path): leaf for path, leaf in leaves}
        for node in graph.nodes:
            if node.kind == "parameter" and node.name in after and not isinstance(node.value, tuple):
                text = _step(node.value, after[node.name])
                captions[node.name].append(Phrase(text, DARK, SIZE))
    return {name: tuple(lines) for name, lines in captions.items()}


def _step(before: PyTree, after: PyTree) -> str:
    """Return the values before and after a step, with enough digits to show the difference."""
    if np.ndim(before) or before == after or not np.isfinite(after):
        return f"{_compact(before)} → {_compact(after)}"
    for digits in range(4, 10):
        if abs(float(number(after, digits)) - after) <= 0.01 * abs(after - before):
            break
    return _minus(f"{number(before, digits)} → {number(after, digits)}")


def _sum(graph: Graph, node: Node, parts: Sequence[int]) -> str:
    gradients = [graph.edges[i].gradient for i in parts]
    if np.ndim(node.gradient) or len(parts) > 3:
        return f"sum of {len(parts)}: {_compact(node.gradient)}"
    text = _minus(" + ".join(f"({number(g)})" if g < 0 else number(g) for g in gradients))
    return f"{text} = {_compact(node.gradient)}"


def ways_back(graph: Graph) -> set[int]:
    """Return the edges on paths from a parameter to the loss, which carry a gradient back."""
    moved, flowing = {node.name for node in graph.nodes if node.kind == "parameter"}, set()
    for node in graph.nodes:
        mine = [i for i in node.inputs if graph.edges[i].source in moved]
        if mine:
            moved.add(node.name)
            flowing.update(i for i in mine if graph.edges[i].gradient is not None)
    return flowing


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _compact(value: PyTree) -> str:
    """Return a number or a few numbers as text, or the mean of an array."""
    if not isinstance(value, (np.ndarray, np.generic)):
        return number_text(value)
    array = np.asarray(value)
    if array.ndim == 0 or array.size == 0:
        return _minus(number_text(value))
    if array.ndim == 1 and array.size <= 3:
        return _minus(number_text(array, 4))
    if array.dtype == bool:
        return f"{int(array.sum())} of {array.size}"
    numbers = array.astype(float)
    if np.all(numbers == numbers.flat[0]):
        return _minus(f"each {number(numbers.flat[0], 4)}")
    with np.errstate(invalid="ignore", over="ignore"):
        mean, largest = numbers.mean(), np.abs(numbers).max()
        return _minus(f"mean {number(0 if abs(mean) < 1e-7 * largest else mean, 3)}")


def _above(edges: Sequence[Edge]) -> tuple[Phrase, ...]:
    """Return the lines above an edge: its value, with the shape of an array."""
    if len(edges) > 1:
        return (Phrase(f"{len(edges)} values", BLUE, SIZE),)
    value = edges[0].value
    text = _compact(value)
    if np.ndim(value) and not text.startswith("["):
        return (Phrase(f"{shape(np.asarray(value))} {text}", BLUE, SIZE), *_range(value, BLUE))
    return (Phrase(text, BLUE, SIZE),)


def _range(value: PyTree, color: str) -> tuple[Phrase, ...]:
    """Return the line with the range of an array whose entries differ."""
    array = np.asarray(value)
    if not array.ndim or array.dtype == bool or not _compact(value).startswith("mean"):
        return ()
    return (Phrase(_minus(f"{number(array.min(), 3)} to {number(array.max(), 3)}"), color, SMALL),)


def _below(edges: Sequence[Edge], flows: bool, back: str) -> tuple[Phrase, ...]:
    """Return the lines below an edge: its gradient and local derivative."""
    if not flows:
        return ()
    if len(edges) > 1:
        return (Phrase(f"{back} {len(edges)} gradients", RED, SIZE),)
    edge = edges[0]
    lines = [Phrase(f"{back} {_compact(edge.gradient)}", RED, SIZE), *_range(edge.gradient, RED)]
    local = _local(edge)
    if local and edge.target != "loss":
        lines.append(Phrase(f"local {local}", GREEN, SMALL))
    return tuple(lines)


def _local(edge: Edge) -> str:
    """Return the local derivative as text; "" for a Jacobian that is no single number."""
    local = edge.local
    if local is None or isinstance(local, str):
        return local or ""
    if np.ndim(local) > max(np.ndim(edge.value), 1) and np.ndim(edge.value) and np.ptp(local):
        return ""
    return _compact(local).removeprefix("each ")


def _box(node: Node, text: str, caption: tuple[Phrase, ...]) -> NodeBox:
    size = SIZE + 2 if text in SIGNS else SIZE
    lines = text.split("\n")
    width = max(_wide(Phrase(line, DARK, size)) for line in lines) + 12
    height = 14 + len(lines) * size * LINE * 0.8
    return NodeBox(node, text, caption, max(width, 24.0), max(height, 22.0))


def _wide(line: Phrase) -> float:
    """Return the width of a text in points, 4 % above the measured one."""
    return 1.04 * text_to_path.get_text_width_height_descent(line.text, FontProperties(size=line.size), False)[0] + 1


def height_of(lines: Sequence[Phrase]) -> float:
    return sum(line.size * LINE for line in lines)


def _box_extent(box: NodeBox, level: bool) -> Extent:
    caption = max((_wide(line) for line in box.caption), default=0.0)
    if level:
        return Extent(
            max(box.width, caption), box.height / 2, box.height / 2 + (height_of(box.caption) + 3 if caption else 0)
        )
    return Extent(
        max(box.height, height_of(box.caption)), box.width / 2, box.width / 2 + (caption + 6 if caption else 0)
    )


def _label_extent(tie: Tie, level: bool) -> Extent:
    above, below = (max((_wide(line) for line in lines), default=0.0) for lines in (tie.above, tie.below))
    if level:
        return Extent(max(above, below) + 6, height_of(tie.above) + 3, height_of(tie.below) + 3)
    return Extent(max(height_of(tie.above), height_of(tie.below)) + 6, above + 6, below + 6 if below else 3)


def _legend(colors: set[str], width: float, back: str) -> list[tuple[Phrase, float, float]]:
    """Return the legend: colored lines with their x and the distance of their baseline below the graph."""
    lines = [Phrase(text.format(back), color, SIZE) for text, color in LEGEND if color in colors]
    together = sum(map(_wide, lines)) + 18 * (len(lines) - 1)
    placed, x = [], 0.0
    for k, line in enumerate(lines):
        if together <= max(width, 330):
            placed.append((line, x, 14 + SIZE * LINE))
            x += _wide(line) + 18
        else:
            placed.append((line, 0.0, 14 + (k + 1) * SIZE * LINE))
    return placed
