"""A graph in the languages of other programs."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from jaxfit.graphs.words import written

if TYPE_CHECKING:
    from jaxfit.graphs.records import Edge, Graph, Node

BLUE, RED = "#0072B2", "#D55E00"
SHAPES = {"parameter": "box", "data": "box", "constant": "plaintext", "operation": "ellipse", "loss": "doublecircle"}


def dot(graph: Graph) -> str:
    """Graphviz: values in blue, gradients in red below them."""
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
    """Mermaid: "value / ← gradient" on every edge, parameters with a thick border."""
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
    """Text between quotes in Mermaid: what could end it, or be taken for markup, as entities."""
    special = '"#&<>[]{}()|`;\\_*'
    return "".join(f"#{ord(c)};" if c in special else " " if c in "\n\r\t" else c for c in text)


def networkx(graph: Graph) -> Any:
    """A `networkx.MultiDiGraph`."""
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


def _without(record: Node | Edge, *names: str) -> dict[str, Any]:
    return {key: value for key, value in record._asdict().items() if key not in names}
