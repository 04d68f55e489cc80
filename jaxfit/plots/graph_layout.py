"""The layout of a graph: boxes in layers, with few crossings and straight edges between the params and the loss.

By Sugiyama's method. A node is placed one layer before the first node that uses it. The label of every edge is placed
in a layer of its own, so that labels cannot overlap, and a long edge has a point in each layer that it crosses. The
order within a layer comes from barycenters and swaps of neighbors, the positions from a linear program.

Source: Sugiyama, Tagawa and Toda (1981), doi:10.1109/TSMC.1981.4308636; Gansner et al. (1993), doi:10.1109/32.221135.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

PASS = 4.0  # half the width reserved for an edge that crosses a layer


class Extent(NamedTuple):
    """The size of a box or label around its point, in the direction of the edges (along) and across it."""

    along: float  # whole length
    before: float  # from the point towards smaller positions across
    after: float  # and towards larger ones


class Link(NamedTuple):
    """An edge, or several between the same two nodes drawn as one."""

    source: int
    target: int
    label: Extent
    weight: float  # of its bends in the cost that is minimized


class Layout(NamedTuple):
    """Positions of all nodes, labels and edges."""

    nodes: np.ndarray  # (nodes, 2) along, across
    labels: np.ndarray  # (links, 2)
    routes: list[np.ndarray]  # of each link (points, 2): horizontal at every point, curved in between
    size: tuple[float, float]  # along, across; everything lies between zero and that


class _Item(NamedTuple):
    """A node, or a point of an edge in a layer that it crosses."""

    layer: int
    extent: Extent
    node: int  # -1 for a point of an edge
    link: int  # -1 for a node


def arrange(nodes: Sequence[Extent], links: Sequence[Link], *, gap: float = 10.0, room: float = 22.0) -> Layout:
    """Return the positions of nodes, labels and edges.

    Args:
      nodes: The size of each node.
      links: In the order of the arguments of their targets; without cycles.
      gap: Distance between neighbors in a layer.
      room: Distance between two layers, where edges curve.
    """
    layers = _layers(len(nodes), links)
    items = [_Item(2 * layers[i], extent, i, -1) for i, extent in enumerate(nodes)]
    chains = []
    for number, link in enumerate(links):
        chain = [link.source]
        for layer in range(2 * layers[link.source] + 1, 2 * layers[link.target]):
            last = layer == 2 * layers[link.target] - 1
            chain.append(len(items))
            items.append(_Item(layer, link.label if last else Extent(0, PASS, PASS), -1, number))
        chains.append([*chain, link.target])
    pieces = [
        (a, b, _weight(items, link, a, b))
        for link, chain in zip(links, chains, strict=True)
        for a, b in zip(chain, chain[1:], strict=False)
    ]
    order = _fewest_crossings(items, pieces, links, chains, layers)
    across = _across(items, pieces, order, gap)
    along, length = _along(items, order, pieces, across, room)
    points = np.stack([along, across], 1)
    routes = [_route(items, order, points, chain) for chain in chains]
    labels = np.array([points[chain[-2]] for chain in chains]).reshape(-1, 2)
    width = max((across[i] + item.extent.after for i, item in enumerate(items)), default=0.0)
    return Layout(points[: len(nodes)], labels, routes, (length, width))


def _layers(count: int, links: Sequence[Link]) -> list[int]:
    """Return the layer of each node: the length of its longest path to the end, subtracted from the longest of all."""
    targets: list[list[int]] = [[] for _ in range(count)]
    for link in links:
        targets[link.source].append(link.target)
    depth = [-1] * count
    for start in range(count):
        stack = [start]
        while stack:
            node = stack[-1]
            missing = [t for t in targets[node] if depth[t] < 0]
            if missing:
                stack += missing
            else:
                depth[node] = 1 + max((depth[t] for t in targets[node]), default=-1)
                stack.pop()
    deepest = max(depth, default=0)
    return [deepest - d for d in depth]


def _weight(items: Sequence[_Item], link: Link, a: int, b: int) -> float:
    """Return the weight of a piece of an edge: bends inside of a long edge cost most, then those before its label."""
    inner = (items[a].node < 0) + (items[b].node < 0)
    return link.weight * (8.0 if inner == 2 else 3.0 if items[b].node < 0 else 2.0)


def _fewest_crossings(
    items: Sequence[_Item], pieces: Sequence[tuple[int, int, float]], links: Sequence[Link],
    chains: Sequence[Sequence[int]], layers: Sequence[int],
) -> list[list[int]]:  # fmt: skip
    """Return the best order found from several starts: the arguments in order, in reverse, and in random orders."""
    before: list[list[int]] = [[] for _ in items]
    after: list[list[int]] = [[] for _ in items]
    for a, b, _ in pieces:
        after[a].append(b)
        before[b].append(a)
    random = np.random.default_rng(0)
    forward = np.arange(len(links))
    starts = [forward, forward[::-1]] + [random.permutation(len(links)) for _ in range(10 if len(items) < 600 else 1)]
    best, fewest = [], np.inf
    for ranks in starts:
        order, crossings = _ordered(_first_order(items, links, chains, layers, ranks), before, after)
        if crossings < fewest:
            best, fewest = order, crossings
        if not fewest:
            break
    return best


def _first_order(
    items: Sequence[_Item], links: Sequence[Link], chains: Sequence[Sequence[int]], layers: Sequence[int],
    ranks: np.ndarray,
) -> list[list[int]]:  # fmt: skip
    """Return an order by depth-first search from the end nodes, with arguments in the order of their links' ranks."""
    arriving: dict[int, list[int]] = {}
    for number, link in enumerate(links):
        arriving.setdefault(link.target, []).append(number)
    for numbers in arriving.values():
        numbers.sort(key=lambda number: ranks[number])
    order: list[list[int]] = [[] for _ in range(2 * max(layers, default=0) + 1)]
    seen: set[int] = set()
    sources = {link.source for link in links}
    stack = [i for i in reversed(range(len(layers))) if i not in sources]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        order[items[node].layer].append(node)
        for number in arriving.get(node, []):
            for item in chains[number][1:-1]:
                order[items[item].layer].append(item)
        stack += [links[number].source for number in reversed(arriving.get(node, []))]
    return order


def _ordered(
    order: list[list[int]], before: list[list[int]], after: list[list[int]], sweeps: int = 24
) -> tuple[list[list[int]], int]:
    """Return the order with the fewest crossings found by sweeps of barycenters and swaps, and its crossings."""
    best, fewest = [list(layer) for layer in order], _all_crossings(order, after)
    for sweep in range(sweeps):
        if not fewest:
            break
        forward = sweep % 2 == 0
        neighbors = before if forward else after
        place = {item: k for layer in order for k, item in enumerate(layer)}
        for layer in order if forward else reversed(order):
            centers = {
                item: float(np.mean([place[n] for n in neighbors[item]])) if neighbors[item] else float(place[item])
                for item in layer
            }
            layer.sort(key=lambda item, centers=centers: centers[item])
            place.update({item: k for k, item in enumerate(layer)})
        for layer in order:
            _swap(layer, place, before, after)
        crossings = _all_crossings(order, after)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in order], crossings
    return best, fewest


def _swap(layer: list[int], place: dict[int, int], before: list[list[int]], after: list[list[int]]) -> None:
    """Swap neighbors in a layer while this reduces crossings."""
    for _ in range(4):
        changed = False
        for k in range(len(layer) - 1):
            a, b = layer[k], layer[k + 1]
            saved = 0
            for sides in (before, after):
                left, right = [place[n] for n in sides[a]], [place[n] for n in sides[b]]
                saved += sum((x > y) - (x < y) for x in left for y in right)
            if saved > 0:
                layer[k], layer[k + 1] = b, a
                place[a], place[b] = k + 1, k
                changed = True
        if not changed:
            return


def _all_crossings(order: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> int:
    place = {item: k for layer in order for k, item in enumerate(layer)}
    total = 0
    for layer in order:
        ends = np.array([place[t] for item in layer for t in sorted(after[item], key=lambda t: place[t])])
        total += int(np.sum(np.triu(ends[:, None] > ends[None, :], 1))) if len(ends) else 0
    return total


def _across(
    items: Sequence[_Item], pieces: Sequence[tuple[int, int, float]], order: Sequence[Sequence[int]], gap: float
) -> np.ndarray:
    """Return positions across the layers that minimize the sum of weight * |bend| and let nothing overlap."""
    n, m = len(items), len(pieces)
    rows, columns, entries, limits = [], [], [], []

    def bound(terms, limit):  # sum of factor * variable <= limit
        for variable, factor in terms:
            rows.append(len(limits))
            columns.append(variable)
            entries.append(factor)
        limits.append(limit)

    for layer in order:
        for a, b in zip(layer, layer[1:], strict=False):
            tight = items[a].node < 0 and items[b].node < 0 and items[a].extent.after == PASS
            bound([(a, 1), (b, -1)], -(items[a].extent.after + items[b].extent.before + (gap / 2 if tight else gap)))
    for k, (a, b, _) in enumerate(pieces):
        bound([(a, 1), (b, -1), (n + k, -1)], 0)
        bound([(b, 1), (a, -1), (n + k, -1)], 0)
    cost = np.concatenate([np.full(n, 1e-6), [weight for *_, weight in pieces]])
    low = [(item.extent.before, None) for item in items] + [(0, None)] * m
    matrix = coo_matrix((entries, (rows, columns)), shape=(len(limits), n + m)) if limits else None
    solution = linprog(cost, matrix, limits or None, bounds=low, method="highs")
    return np.round(solution.x[:n], 3)


def _along(
    items: Sequence[_Item], order: Sequence[Sequence[int]], pieces: Sequence[tuple[int, int, float]],
    across: np.ndarray, room: float,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Return the positions of the layers, farther apart where edges are steep, and the total length."""
    climbs = np.zeros(len(order) + 1)
    for a, b, _ in pieces:
        climbs[items[b].layer] = max(climbs[items[b].layer], abs(across[a] - across[b]))
    centers, end = np.zeros(len(order)), 0.0
    for k, layer in enumerate(order):
        half = max((items[i].extent.along for i in layer), default=0.0) / 2
        start = end + (0 if k == 0 else room * 0.6 + min(0.3 * climbs[k], 2.2 * room))
        centers[k], end = start + half, start + 2 * half
    return np.array([centers[item.layer] for item in items]), end


def _route(
    items: Sequence[_Item], order: Sequence[Sequence[int]], points: np.ndarray, chain: Sequence[int]
) -> np.ndarray:
    """Return the points of an edge from the middle of its source to that of its target, level in each layer."""
    route = [points[chain[0]]]
    for item in chain:
        half = max(items[i].extent.along for i in order[items[item].layer]) / 2
        x, y = points[item]
        if item != chain[0]:
            route.append(np.array([x - half, y]))
        if item != chain[-1]:
            route.append(np.array([x + half, y]))
    return np.array([*route, points[chain[-1]]])
