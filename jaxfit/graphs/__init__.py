"""Backpropagation made visible: the computation graph of a loss, with the value and gradient of every edge.

`backprop` makes a `Graph`; `print(graph)` is the table of a textbook, `jaxfit.plots.backprop_graph(graph)` its picture.
"""

from jaxfit.graphs.backward import backprop
from jaxfit.graphs.graph import Edge, Graph, Node
from jaxfit.problems.messages import near_names

__all__ = ["Edge", "Graph", "Node", "backprop"]
__getattr__, __dir__ = near_names(__name__, __all__)
