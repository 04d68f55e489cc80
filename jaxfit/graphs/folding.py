"""Folding of large graphs: neighboring nodes are merged into one.

Nodes are folded only where that makes no cycle: what nothing outside leads into, and runs of operations in the order of
computation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxfit.graphs.records import Edge, Node


def fold(nodes: Sequence[Node], edges: Sequence[Edge], boxes: int) -> tuple[tuple[Node, ...], tuple[Edge, ...]]:
    """Nodes and edges with at most `boxes` nodes."""
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
    """Operations that no parameter leads to, those that feed each other together."""
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
    """Data of one name, and params of one branch of their tree, until there are at most `most`."""
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
    """params[0]['w'] belongs to params[0]; x['a'] to x."""
    root, bracket, rest = node.name.partition("[")
    return root + bracket + rest.partition("]")[0] + "]" if node.kind == "parameter" and bracket else root


def _runs(nodes: Sequence[Node], count: int) -> list[list[Node]]:
    """Operations in their order, cut into that many runs of equal length."""
    operations = [node for node in nodes if node.kind == "operation"]
    length = math.ceil(len(operations) / count)
    runs = [operations[i : i + length] for i in range(0, len(operations), length)]
    return [run for run in runs if len(run) > 1]


def _with_constants(groups: list[list[Node]], nodes: Sequence[Node], edges: Sequence[Edge]) -> list[list[Node]]:
    """The groups, each with the constants that nothing else uses."""
    belongs = {node.name: group for group in groups for node in group}
    for node in nodes:
        users = [belongs.get(edges[i].target) for i in node.leaving] if node.kind == "constant" else []
        if users and users[0] is not None and all(user is users[0] for user in users):
            users[0].append(node)
    return groups


def _merged(
    nodes: Sequence[Node], edges: Sequence[Edge], groups: Sequence[Sequence[Node]]
) -> tuple[list[Node], list[Edge]]:
    """Each group as one node, in the place of its first one: what a group reads comes before that."""
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
    """What a folded node is called: a branch of the params, or how many operations, and the most frequent ones."""
    if group[0].kind == "constant":
        return f"{len(group)} constants"
    if group[0].is_input:
        branches = {_branch(node) for node in group}
        return branches.pop() if len(branches) == 1 else f"{len(group)} {group[0].kind}s".replace("datas", "data")
    kinds = Counter(node.label for node in group if node.kind == "operation" and " operations: " not in node.label)
    words = ", ".join(word for word, _ in kinds.most_common(2))
    return f"{sum(node.operations for node in group)} operations: {words}".removesuffix(": ")


def _one(name: str, group: Sequence[Node], kept: set[int]) -> Node:
    """A group as one node; its outputs are the values that others use."""
    outputs: list[tuple[Any, Any, tuple[int, ...]]] = []
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
