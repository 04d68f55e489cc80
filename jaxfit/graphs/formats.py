"""Formats of a graph: its table, Graphviz, Mermaid, and the numbers in them."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxfit.typing import PyTree, Scalar
from jaxfit.verbs.summaries import text_table

if TYPE_CHECKING:
    from jaxfit.graphs.graph import Edge, Graph, Node

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


def written(value: PyTree, digits: int = 6) -> str:
    """Return a value on one line: a number, a few numbers, or the shape, mean and range of an array."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, tuple):
        return "; ".join(written(one, digits) for one in value)
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


def called(node: Node) -> str:
    """Return the name of a node in the table: the label of a param or constant, else the unique name."""
    return node.label if node.kind in ("parameter", "constant") else node.name


def table(graph: Graph) -> str:
    """Return a table of all edges, followed by the sums of gradients and the gradient by the params."""
    nodes = {node.name: node for node in graph.nodes}
    head = ("edge", "value", "local derivative", "gradient of the loss")
    rows = [
        (
            f"{called(nodes[edge.source])} → {called(nodes[edge.target])}",
            written(edge.value), written(edge.local), written(edge.gradient),
        )
        for edge in graph.edges
    ]  # fmt: skip
    lines = text_table([head, *rows], [True, *(any(" " in row[i] for row in rows) for i in (1, 2, 3))])
    sums = [f"{called(node)}: {text}" for node in graph.nodes if (text := total(graph, node))]
    if sums:
        lines += ["", "Gradients that meet are added:", *("  " + text for text in sums)]
    lines += ["", f"Gradient of the loss, {written(graph.loss)}, by the params:"]
    lines += [f"  {n.label}: {written(n.gradient)}" for n in graph.nodes if n.kind == "parameter"]
    return "\n".join(line.rstrip() for line in lines)


def total(graph: Graph, node: Node) -> str:
    """Return the sum of the gradients at a node as text, "-4 + -20 = -24"; "" if there are fewer than two."""
    parts = [part for i in node.leaving if (part := graph.edges[i].gradient) is not None]
    if len(parts) < 2 or len(node.outputs) != 1:
        return ""
    if np.ndim(parts[0]) or len(parts) > 4:
        return f"{len(parts)} parts = {written(node.gradient)}"
    return " + ".join(map(number, parts)) + f" = {number(node.gradient)}"


BLUE, RED = "#0072B2", "#D55E00"
SHAPES = {"parameter": "box", "data": "box", "constant": "plaintext", "operation": "ellipse", "loss": "doublecircle"}


def dot(graph: Graph) -> str:
    """Return the graph in the language of Graphviz: values in blue, gradients in red below them."""
    lines = ["digraph backprop {", "  rankdir=LR;", '  node [fontname="sans-serif"]; edge [fontname="sans-serif"];']
    places = {node.name: f"n{i}" for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        look = f'shape={SHAPES[node.kind]}, tooltip="{_quoted(node.name)}"'
        look += {"parameter": f', color="{BLUE}", penwidth=2', "data": ", style=filled, fillcolor=grey90"}.get(
            node.kind, ""
        )
        lines.append(f'  {places[node.name]} [label="{_quoted(node.label)}", {look}];')
    for edge in graph.edges:
        rows = [f'<font color="{BLUE}">{html.escape(written(edge.value, 4))}</font>']
        if edge.gradient is not None:
            rows.append(f'<font color="{RED}">← {html.escape(written(edge.gradient, 4))}</font>')
        lines.append(f"  {places[edge.source]} -> {places[edge.target]} [label=<{'<br/>'.join(rows)}>];")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def mermaid(graph: Graph) -> str:
    """Return the graph in the language of Mermaid: "value / ← gradient" on every edge."""
    lines = ["flowchart LR"]
    places = {node.name: f"n{i}" for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        left, right = {"operation": ("([", "])"), "loss": ("((", "))")}.get(node.kind, ("[", "]"))
        lines.append(f'  {places[node.name]}{left}"{_entities(node.label)}"{right}')
    for edge in graph.edges:
        text = written(edge.value, 4) + ("" if edge.gradient is None else f" / ← {written(edge.gradient, 4)}")
        lines.append(f'  {places[edge.source]} -->|"{_entities(text)}"| {places[edge.target]}')
    lines += [f"  classDef parameter stroke:{BLUE},stroke-width:3px", "  classDef data fill:#e8e6e1"]
    for kind in ("parameter", "data"):
        members = [places[node.name] for node in graph.nodes if node.kind == kind]
        lines += [f"  class {','.join(members)} {kind}"] * bool(members)
    return "\n".join(lines) + "\n"


def _entities(text: str) -> str:
    """Return text for Mermaid, with quotes and characters of its markup as entities."""
    special = '"#&<>[]{}()|`;\\_*'
    return "".join(f"#{ord(c)};" if c in special else " " if c in "\n\r\t" else c for c in text)


def networkx(graph: Graph) -> Any:
    """Return the graph as a `networkx.MultiDiGraph`."""
    try:
        import networkx as nx  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            "to_networkx needs networkx, which is not installed: pip install networkx; or use to_dot() or to_mermaid()"
        ) from None
    made = nx.MultiDiGraph()
    made.add_nodes_from((node.name, _without(node, "name")) for node in graph.nodes)
    made.add_edges_from((edge.source, edge.target, _without(edge, "source", "target")) for edge in graph.edges)
    return made


def _without(record: Node | Edge, *names: str) -> dict[str, PyTree]:
    return {key: value for key, value in record._asdict().items() if key not in names}
