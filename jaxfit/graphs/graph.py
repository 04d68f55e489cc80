"""A computation graph: nodes and edges with their numbers, as text, and folded where it is large."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxfit.optimizers.building import as_optimizer
from jaxfit.problems import precision_context
from jaxfit.typing import Array, ArrayLike, OptimizerLike, PyTree, Scalar
from jaxfit.verbs.results import pages
from jaxfit.verbs.summaries import text_table


class Edge(NamedTuple):
    """One use of a value by an operation, with numbers in the shapes that they have in the program."""

    source: str  # name of the node the value comes from
    target: str  # name of the node that uses it
    value: PyTree  # what goes forward
    local: PyTree  # derivative of the target by this value; see `backprop`
    gradient: PyTree  # d loss / d value through this edge alone, like value; None for what is not a float


class Node(NamedTuple):
    """An input, a constant, an operation, or the loss."""

    name: str  # unique: "params['w']", "x", "multiply", "multiply_2"
    label: str  # what its box says: "w", "x", "×"
    kind: str  # "parameter", "data", "constant", "operation" or "loss"
    value: PyTree  # what it computes; a tuple of several outputs
    gradient: PyTree  # d loss / d value, the sum over the edges that leave it; like value
    inputs: tuple[int, ...]  # positions in graph.edges, in the order of the arguments
    outputs: tuple[tuple[int, ...], ...]  # for each output the positions of the edges that carry it
    operations: int = 1  # of the program, folded into it; 0 for an input

    @property
    def is_input(self) -> bool:
        return self.kind in ("parameter", "data", "constant")

    @property
    def leaving(self) -> tuple[int, ...]:
        """Positions in graph.edges of all edges that leave it."""
        return tuple(position for output in self.outputs for position in output)


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """A computation graph with the values, local derivatives and gradients of backpropagation; made by `backprop`.

    Attributes:
      nodes: `Node` records in the order of computation: inputs first, the loss last.
      edges: `Edge` records, grouped by the node they enter, in the order of its arguments.
      gradients: d loss / d params, like params.
      params: As the loss received them.
      loss: () its value.
      precision: "float32" or "float64".
      replay: The loss as a function of {position of an edge: what is added to the value on it}; None after folding.

    Example:
      >>> graph = jf.backprop(lambda p: (2 * p) ** 2, 3.0)
      >>> float(graph.loss), float(graph.gradients)
      (36.0, 24.0)
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    gradients: PyTree
    params: PyTree
    loss: np.generic
    precision: str = "float32"
    replay: Callable[..., Array] | None = field(default=None)

    def __getitem__(self, name: str) -> Node:
        """Return the node of that name, or the only one with that label."""
        nodes = [n for n in self.nodes if n.name == name] or [n for n in self.nodes if n.label == name]
        if len(nodes) != 1:
            names = ", ".join(n.name for n in self.nodes)
            raise KeyError(f"{len(nodes) or 'no'} nodes are called {name!r}; the names are {names}")
        return nodes[0]

    def __str__(self) -> str:
        return _table(self)

    def _repr_html_(self) -> str:
        return pages().notebook(self)

    def __repr__(self) -> str:
        return f"Graph({len(self.nodes)} nodes, {len(self.edges)} edges, loss {number_text(self.loss)})"

    def along(self, position: int) -> Callable[[ArrayLike], Array]:
        """Return the loss by what is added to the value on an edge: its gradient at zero is the edge's.

        Args:
          position: Of the edge in `edges`.

        Raises:
          ValueError: If there is no such edge of floats on the way to the loss, or the graph was folded later.
        """
        replay = self.replay
        if replay is None:
            raise ValueError("a folded graph cannot be computed again; ask the graph that it was folded from")
        if not (0 <= position < len(self.edges)) or self.edges[position].gradient is None:
            raise ValueError(
                f"edge {position} has no gradient; those of 0 to {len(self.edges) - 1} with one can be moved"
            )
        return lambda delta: replay({position: delta})

    def update(self, optimizer: OptimizerLike) -> PyTree:
        """Return the params after one step of an optimizer along the gradients of the graph.

        Raises:
          TypeError: If it is no optimizer, or one that needs more than gradients.
        """
        optimizer = as_optimizer(optimizer)
        built = optimizer.build()
        if not hasattr(built, "update"):
            raise TypeError(f"optimizer: {optimizer.name} asks for more than a gradient; use jf.step for its steps")
        with precision_context(self.precision):
            extra = {"value": self.loss, "grad": self.gradients}
            built = optax.with_extra_args_support(built)
            updates, _ = built.update(self.gradients, built.init(self.params), self.params, **extra)
            return jax.tree.map(lambda x: np.asarray(x)[()], optax.apply_updates(self.params, updates))

    def fold(self, boxes: int = 60) -> Graph:
        """Return the graph with at most so many nodes: neighbors become one, and the edges between them vanish.

        First what is computed from the data alone is folded, then runs of operations in their order; edges between what
        is left keep their values and gradients. Inputs of one branch of a tree become one node with several outputs.

        Raises:
          ValueError: If `boxes` is not a whole number of 4 or more.
        """
        nodes, edges = fold(self.nodes, self.edges, boxes)
        return replace(self, nodes=nodes, edges=edges, replay=None)

    def to_dot(self) -> str:
        """Return the graph in the language of Graphviz: values in blue, gradients in red below them."""
        lines = ["digraph backprop {", "  rankdir=LR;", '  node [fontname="sans-serif"]; edge [fontname="sans-serif"];']
        places = {node.name: f"n{i}" for i, node in enumerate(self.nodes)}
        looks = {"parameter": f', color="{BLUE}", penwidth=2', "data": ", style=filled, fillcolor=grey90"}
        for node in self.nodes:
            look = f'shape={SHAPES[node.kind]}, tooltip="{_quoted(node.name)}"{looks.get(node.kind, "")}'
            lines.append(f'  {places[node.name]} [label="{_quoted(node.label)}", {look}];')
        for edge in self.edges:
            rows = [f'<font color="{BLUE}">{html.escape(number_text(edge.value, 4))}</font>']
            if edge.gradient is not None:
                rows.append(f'<font color="{RED}">← {html.escape(number_text(edge.gradient, 4))}</font>')
            lines.append(f"  {places[edge.source]} -> {places[edge.target]} [label=<{'<br/>'.join(rows)}>];")
        return "\n".join([*lines, "}"]) + "\n"

    def to_mermaid(self) -> str:
        """Return the graph in the language of Mermaid, which Markdown viewers draw."""
        lines = ["flowchart LR"]
        places = {node.name: f"n{i}" for i, node in enumerate(self.nodes)}
        for node in self.nodes:
            left, right = {"operation": ("([", "])"), "loss": ("((", "))")}.get(node.kind, ("[", "]"))
            lines.append(f'  {places[node.name]}{left}"{_entities(node.label)}"{right}')
        for edge in self.edges:
            text = number_text(edge.value, 4) + (
                "" if edge.gradient is None else f" / ← {number_text(edge.gradient, 4)}"
            )
            lines.append(f'  {places[edge.source]} -->|"{_entities(text)}"| {places[edge.target]}')
        lines += [f"  classDef parameter stroke:{BLUE},stroke-width:3px", "  classDef data fill:#e8e6e1"]
        for kind in ("parameter", "data"):
            members = [places[node.name] for node in self.nodes if node.kind == kind]
            lines += [f"  class {','.join(members)} {kind}"] * bool(members)
        return "\n".join(lines) + "\n"

    def to_networkx(self) -> Any:
        """Return the graph as a `networkx.MultiDiGraph`, records as attributes; needs networkx.

        Raises:
          ImportError: If networkx is not installed.
        """
        try:
            import networkx as nx  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ImportError(
                "to_networkx needs networkx, which is not installed: pip install networkx; or use to_dot() or "
                "to_mermaid()"
            ) from None
        graph = nx.MultiDiGraph()
        graph.add_nodes_from((node.name, _without(node, "name")) for node in self.nodes)
        graph.add_edges_from((edge.source, edge.target, _without(edge, "source", "target")) for edge in self.edges)
        return graph


# Numbers and graphs as text

FEW = 4  # entries of an array that are written out


def number(value: Scalar, digits: int = 6) -> str:
    """Return a number as text, with at most `digits` significant digits."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    x = float(value)
    if not np.isfinite(x):
        return {np.inf: "inf", -np.inf: "-inf"}.get(x, "nan")
    if x == 0:
        return "0"
    if x == round(x) and abs(x) < 10 ** max(digits, 6):
        return f"{x:.0f}"
    text = f"{x:.{digits}g}"
    mantissa, _, power = text.partition("e")
    return f"{mantissa}e{int(power)}" if power else text


def number_text(value: PyTree, digits: int = 6) -> str:
    """Return a value on one line: a number, a few numbers, or the shape, mean and range of an array."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, tuple):
        return "; ".join(number_text(one, digits) for one in value)
    if not isinstance(value, (np.ndarray, np.generic, float, int, bool)):
        return "a key"
    array = np.asarray(value)
    if array.ndim == 0:
        return number(array[()], digits)
    if array.ndim == 1 and array.size <= FEW:
        return "[" + ", ".join(number(x, digits) for x in array) + "]"
    return f"{shape(array)} {summary(array, digits)}"


def shape(array: np.ndarray) -> str:
    """Return a shape as text: (33,) or 4×3."""
    return "×".join(map(str, array.shape)) if array.ndim > 1 else f"({array.size},)"


def summary(array: np.ndarray, digits: int = 6) -> str:
    """Return the mean and range of an array as text, or the one value that all entries have."""
    if not array.size:
        return "empty"
    if array.dtype == bool:
        return f"{int(array.sum())} of {array.size} true"
    numbers = array.astype(float)
    if np.isnan(numbers).any():
        return f"{int(np.isnan(numbers).sum())} nan" if not np.isnan(numbers).all() else "all nan"
    low, high = numbers.min(), numbers.max()
    if low == high:
        return f"all {number(low, digits)}"
    digits = min(digits, 4)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = numbers.mean()
        rounding = 1e-7 * max(abs(low), abs(high))
        middle = number(0 if abs(mean) < rounding else mean, digits)
    return f"mean {middle}, {number(low, digits)} to {number(high, digits)}"


def _called(node: Node) -> str:
    """Return the name of a node in the table: the label of a param or constant, else the unique name."""
    return node.label if node.kind in ("parameter", "constant") else node.name


def _table(graph: Graph) -> str:
    """Return a table of all edges, followed by the sums of gradients and the gradient by the params."""
    nodes = {node.name: node for node in graph.nodes}
    head = ("edge", "value", "local derivative", "gradient of the loss")
    ends = [f"{_called(nodes[edge.source])} → {_called(nodes[edge.target])}" for edge in graph.edges]
    rows = [(end, *map(number_text, edge[2:])) for end, edge in zip(ends, graph.edges, strict=True)]
    lines = text_table([head, *rows], [True, *(any(" " in row[i] for row in rows) for i in (1, 2, 3))])
    sums = [f"{_called(node)}: {text}" for node in graph.nodes if (text := _total(graph, node))]
    if sums:
        lines += ["", "Gradients that meet are added:", *("  " + text for text in sums)]
    lines += ["", f"Gradient of the loss, {number_text(graph.loss)}, by the params:"]
    lines += [f"  {n.label}: {number_text(n.gradient)}" for n in graph.nodes if n.kind == "parameter"]
    return "\n".join(line.rstrip() for line in lines)


def _total(graph: Graph, node: Node) -> str:
    """Return the sum of the gradients at a node as text, "-4 + -20 = -24"; "" if there are fewer than two."""
    parts = [part for i in node.leaving if (part := graph.edges[i].gradient) is not None]
    if len(parts) < 2 or len(node.outputs) != 1:
        return ""
    if np.ndim(parts[0]) or len(parts) > 4:
        return f"{len(parts)} parts = {number_text(node.gradient)}"
    return " + ".join(map(number, parts)) + f" = {number(node.gradient)}"


BLUE, RED = "#0072B2", "#D55E00"
SHAPES = {"parameter": "box", "data": "box", "constant": "plaintext", "operation": "ellipse", "loss": "doublecircle"}


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _entities(text: str) -> str:
    """Return text for Mermaid, with quotes and characters of its markup as entities."""
    special = '"#&<>[]{}()|`;\\_*'
    return "".join(f"#{ord(c)};" if c in special else " " if c in "\n\r\t" else c for c in text)


def _without(record: Node | Edge, *names: str) -> dict[str, PyTree]:
    return {key: value for key, value in record._asdict().items() if key not in names}


# Folding, only where it makes no cycle: groups without inputs from outside, and consecutive operations


def fold(nodes: Sequence[Node], edges: Sequence[Edge], boxes: int) -> tuple[tuple[Node, ...], tuple[Edge, ...]]:
    """Return nodes and edges with at most `boxes` nodes."""
    if isinstance(boxes, bool) or not isinstance(boxes, int) or boxes < 4:
        raise ValueError(f"boxes is {boxes!r}, but it must be a whole number, 4 or more")
    if len(nodes) > boxes:
        nodes, edges = _merged(nodes, edges, _with_constants(_prepared(nodes, edges), nodes, edges))
    if len(nodes) > boxes:
        nodes, edges = _merged(nodes, edges, _branches(nodes, max(1, (boxes - 1) // 2)))
    if len(nodes) > boxes:
        others = sum(node.kind in ("parameter", "data", "loss") for node in nodes)
        runs = _runs(nodes, max(1, boxes - 1 - others))
        nodes, edges = _merged(nodes, edges, _with_constants(runs, nodes, edges))
    if len(nodes) > boxes:
        constants = [node for node in nodes if node.kind == "constant"]
        nodes, edges = _merged(nodes, edges, [constants] if len(constants) > 1 else [])
    return tuple(nodes), tuple(edges)


def _prepared(nodes: Sequence[Node], edges: Sequence[Edge]) -> list[list[Node]]:
    """Return groups of connected operations that do not depend on a parameter."""
    moved = {node.name for node in nodes if node.kind == "parameter"}
    for node in nodes:
        if any(edges[i].source in moved for i in node.inputs):
            moved.add(node.name)
    still = {node.name: node for node in nodes if node.kind == "operation" and node.name not in moved}
    group = {name: {name} for name in still}
    for edge in edges:
        if edge.source in still and edge.target in still and group[edge.source] is not group[edge.target]:
            union = group[edge.source] | group[edge.target]
            group.update({name: union for name in union})
    unique = {id(names): names for names in group.values()}
    return [[node for node in nodes if node.name in names] for names in unique.values() if len(names) > 1]


def _branches(nodes: Sequence[Node], most: int) -> list[list[Node]]:
    """Return groups of inputs, by name or by branch of the params, so that at most `most` are left."""
    inputs = [node for node in nodes if node.kind in ("parameter", "data")]
    if len(inputs) <= most:
        return []
    groups: dict[str, list[Node]] = {}
    for node in inputs:
        groups.setdefault(_branch(node), []).append(node)
    if len(groups) > most:
        groups = {}
        for node in inputs:
            groups.setdefault(node.kind, []).append(node)
    return [group for group in groups.values() if len(group) > 1]


def _branch(node: Node) -> str:
    """Return the branch of a tree that a node belongs to: params[0] for params[0]['w'], x for x['a']."""
    root, bracket, rest = node.name.partition("[")
    return root + bracket + rest.partition("]")[0] + "]" if node.kind == "parameter" and bracket else root


def _runs(nodes: Sequence[Node], count: int) -> list[list[Node]]:
    """Return the operations, in order, cut into `count` runs of equal length."""
    operations = [node for node in nodes if node.kind == "operation"]
    length = math.ceil(len(operations) / count)
    runs = [operations[i : i + length] for i in range(0, len(operations), length)]
    return [run for run in runs if len(run) > 1]


def _with_constants(groups: list[list[Node]], nodes: Sequence[Node], edges: Sequence[Edge]) -> list[list[Node]]:
    """Return the groups, each with the constants that it alone uses."""
    belongs = {node.name: group for group in groups for node in group}
    for node in nodes:
        users = [belongs.get(edges[i].target) for i in node.leaving] if node.kind == "constant" else []
        if users and users[0] is not None and all(user is users[0] for user in users):
            users[0].append(node)
    return groups


def _merged(
    nodes: Sequence[Node], edges: Sequence[Edge], groups: Sequence[Sequence[Node]]
) -> tuple[list[Node], list[Edge]]:
    """Return the graph with each group merged into one node, at the position of its first member."""
    names = _names(nodes, groups)
    belongs = {node.name: names[i] for i, group in enumerate(groups) for node in group}
    first = {group[0].name: group for group in groups}
    kept = {i for i, e in enumerate(edges) if belongs.get(e.source, e.source) != belongs.get(e.target, e.target)}
    merged = [
        _one(belongs[node.name], first[node.name], kept) if node.name in first else node
        for node in nodes
        if node.name in first or node.name not in belongs
    ]
    order = [i for node in merged for i in node.inputs if i in kept]
    position = {old: new for new, old in enumerate(order)}
    renamed = [
        edges[i]._replace(
            source=belongs.get(edges[i].source, edges[i].source),
            target=belongs.get(edges[i].target, edges[i].target),
            local=None if edges[i].target in belongs else edges[i].local,
        )
        for i in order
    ]
    placed = [
        node._replace(
            inputs=tuple(position[i] for i in node.inputs if i in position),
            outputs=tuple(tuple(position[i] for i in output if i in position) for output in node.outputs),
        )
        for node in merged
    ]
    return placed, renamed


def _names(nodes: Sequence[Node], groups: Sequence[Sequence[Node]]) -> list[str]:
    taken = {node.name for node in nodes}
    names = []
    for group in groups:
        wanted = title(group)
        name, count = wanted, 1
        while name in taken:
            count += 1
            name = f"{wanted}_{count}"
        taken.add(name)
        names.append(name)
    return names


def title(group: Sequence[Node]) -> str:
    """Return the name of a merged node: a branch of the params, or the number of operations and the most frequent."""
    if group[0].kind == "constant":
        return f"{len(group)} constants"
    if group[0].is_input:
        branches = {_branch(node) for node in group}
        return branches.pop() if len(branches) == 1 else f"{len(group)} {group[0].kind}s".replace("datas", "data")
    kinds = Counter(node.label for node in group if node.kind == "operation" and " operations: " not in node.label)
    words = ", ".join(word for word, _ in kinds.most_common(2))
    return f"{sum(node.operations for node in group)} operations: {words}".removesuffix(": ")


def _one(name: str, group: Sequence[Node], kept: set[int]) -> Node:
    """Return a group as one node, whose outputs are the values that other nodes use."""
    outputs: list[tuple[PyTree, PyTree, tuple[int, ...]]] = []
    for node in group:
        values = node.value if len(node.outputs) > 1 else (node.value,)
        sums = node.gradient if len(node.outputs) > 1 else (node.gradient,)
        for value, gradient, positions in zip(values, sums, node.outputs, strict=True):
            leaving = tuple(i for i in positions if i in kept)
            if leaving or group[0].is_input:
                outputs.append((value, gradient, leaving))
    values, sums, leaving = (tuple(part[k] for part in outputs) for k in range(3))
    inputs = tuple(i for node in group for i in node.inputs if i in kept)
    single = len(values) == 1
    operations = sum(node.operations for node in group)
    label = name if group[0].kind == "parameter" else title(group)
    return group[0]._replace(
        name=name, label=label, value=values[0] if single else values,
        gradient=sums[0] if single else sums, inputs=inputs, outputs=leaving, operations=operations,
    )  # fmt: skip
