"""Backpropagation one can see: the computation graph of a loss, with what goes forward and back along every edge.

`backprop` makes a `Graph`; `print(graph)` is the table of a textbook, `jaxfit.plots.backprop_graph(graph)` its picture.
"""

from jaxfit.graphs.backward import backprop
from jaxfit.graphs.records import Edge, Graph, Node
from jaxfit.graphs.words import written

__all__ = ["Edge", "Graph", "Node", "backprop", "written"]
