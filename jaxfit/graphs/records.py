"""The records of a computation graph: nodes and edges, with their numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxfit.graphs import folding, formats
from jaxfit.optimizers import as_optimizer
from jaxfit.problems.problems import precision_context

PyTree = Any


class Edge(NamedTuple):
    """One use of a value by an operation, numbers in the shapes that the program gives them."""

    source: str  # name of the node the value comes from
    target: str  # name of the node that uses it
    value: Any  # what goes forward
    local: Any  # derivative of the target by this value; see `backprop`
    gradient: Any  # d loss / d value through this edge alone, like value; None for what is not a float


class Node(NamedTuple):
    """An input, a constant, an operation, or the loss."""

    name: str  # unique: "params['w']", "x", "multiply", "multiply_2"
    label: str  # what its box says: "w", "x", "×"
    kind: str  # "parameter", "data", "constant", "operation" or "loss"
    value: Any  # what it computes; a tuple of several outputs
    gradient: Any  # d loss / d value, the sum over the edges that leave it; like value
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
    loss: Any
    precision: str = "float32"
    replay: Callable[..., Any] | None = field(default=None)

    def __getitem__(self, name: str) -> Node:
        """The node of that name, or the only one with that label."""
        found = [n for n in self.nodes if n.name == name] or [n for n in self.nodes if n.label == name]
        if len(found) != 1:
            names = ", ".join(n.name for n in self.nodes)
            raise KeyError(f"{len(found) or 'no'} nodes are called {name!r}; the names are {names}")
        return found[0]

    def __str__(self) -> str:
        return formats.table(self)

    def __repr__(self) -> str:
        return f"Graph({len(self.nodes)} nodes, {len(self.edges)} edges, loss {formats.written(self.loss)})"

    def along(self, position: int) -> Callable[[Any], Any]:
        """The loss as a function of what is added to the value on an edge: its gradient at zero is the edge's.

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

    def update(self, optimizer: Any) -> PyTree:
        """The params after one step of an optimizer along the gradients of the graph.

        Raises:
          TypeError: If it is no optimizer, or one that needs more than gradients.
        """
        optimizer = as_optimizer(optimizer)
        built: Any = optimizer.build()
        if not hasattr(built, "update"):
            raise TypeError(f"optimizer: {optimizer.name} asks for more than a gradient; use jf.step for its steps")
        with precision_context(self.precision):
            extra = {"value": self.loss, "grad": self.gradients}
            built = optax.with_extra_args_support(built)
            updates, _ = built.update(self.gradients, built.init(self.params), self.params, **extra)
            return jax.tree.map(lambda x: np.asarray(x)[()], optax.apply_updates(self.params, updates))

    def fold(self, boxes: int = 60) -> Graph:
        """The same graph with at most so many nodes: neighbors become one, and the edges between them vanish.

        First what is computed from the data alone is folded, then runs of operations in their order; edges between what
        is left keep their values and gradients. Inputs of one branch of a tree become one node with several outputs.

        Raises:
          ValueError: If `boxes` is not a whole number of 4 or more.
        """
        nodes, edges = folding.fold(self.nodes, self.edges, boxes)
        return replace(self, nodes=nodes, edges=edges, replay=None)

    def to_dot(self) -> str:
        """The graph in the language of Graphviz."""
        return formats.dot(self)

    def to_mermaid(self) -> str:
        """The graph in the language of Mermaid, which Markdown viewers draw."""
        return formats.mermaid(self)

    def to_networkx(self) -> Any:
        """The graph as a `networkx.MultiDiGraph`, records as attributes; needs networkx.

        Raises:
          ImportError: If networkx is not installed.
        """
        return formats.networkx(self)
