"""Backpropagation is one number forward and one back on every edge, and the one behind times the local derivative.

The loss (v x - y)² at v = 0 on the point (2, 5): forward 0, 0, -5, 25; back 1, -10, -10, -20; so a step with the rate
0.01 leads from v = 0 to 0.2, and further ones along 2.5 (1 - 0.92^t) to 2.5. With a second parameter, (k x + b - y)²,
both gradients share all edges up to the plus. Every gradient is the product of the local derivatives on its way.

Source: Cai, Bileschi, Nielsen and Chollet, Deep Learning with JavaScript (2020), section 2.2.2, figures 2.9 and 2.10;
Chollet, Deep Learning with Python (2017), section 2.4.4. Cost: some seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

from .published import check

RATE = 0.01
ROWS = {
    "TFJS-F2.9A": "product", "TFJS-F2.9B": "product", "TFJS-2.2.2.update": "product", "TFJS-F2.10": "line",
    "CHOLLET-2.4.4": "sweep",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    x: float = 2.0
    y: float = 5.0


QUICK = {}
BREAK = {"x": 3.0}


def product(v, x, y):
    return jnp.square(v * x - y)


def line(params, x, y):
    return jnp.square(params["k"] * x + params["b"] - y)


class Result(NamedTuple):
    product: jf.Graph
    line: jf.Graph
    step: float  # v after one step
    path: np.ndarray  # (51,) v in 50 steps
    losses: np.ndarray  # (51,)
    expected: dict[str, float]  # d loss / d k and d loss / d b without any graph


def compute(config: Config) -> Result:
    data, zeros = (config.x, config.y), {"k": 0.0, "b": 0.0}
    graph = jf.backprop(product, 0.0, data)
    record = jf.Record(what=("loss", "params"))
    fit: Any = jf.fit(product, 0.0, data, optimizer=jf.optimizers.sgd(RATE), steps=50, record=record)
    return Result(
        product=graph,
        line=jf.backprop(line, zeros, data),
        step=float(graph.update(jf.optimizers.sgd(RATE))),
        path=np.asarray(fit.history.params),
        losses=np.asarray(fit.history.loss),
        expected={name: float(g) for name, g in jax.grad(line)(zeros, *data).items()},
    )


def way(graph: jf.Graph, start: str) -> list[Any]:
    """The edges from a node to the loss."""
    edges = [graph.edges[graph[start].leaving[0]]]
    while edges[-1].target != "loss":
        edges.append(graph.edges[graph[edges[-1].target].leaving[0]])
    return edges


def checks(result: Result) -> list[Check]:
    edges = way(result.product, "params")
    t = np.arange(len(result.path))
    rows = [
        check("TFJS-F2.9.forward", [e.value for e in edges], "values on the edges from v to the loss"),
        check("TFJS-F2.9.backward", [e.gradient for e in edges[::-1]], "gradients on them, from the loss back"),
        Check("local derivatives from v to the square", [2, 1, -10], [e.local for e in edges[:3]], 0, "TFJS-F2.9B"),
        Check("loss", 25, float(result.product.loss), 0, "TFJS-F2.9A"),
        check("TFJS-F2.9.update", [RATE * 20, result.step, 2.5], "length of the step, v after it, and v in the end"),
        Check("v after one step", 0.2, result.step, 1e-6, "TFJS-2.2.2.update"),
        Check("loss after one step", 21.16, result.losses[1], 1e-4, "TFJS-2.2.2.update"),
        Check("v in 50 steps: 2.5 (1 - 0.92^t)", 2.5 * (1 - 0.92**t), result.path, 2e-6, "TFJS-2.2.2.update"),
        Check("gradients by k and b", [-20, -10], [result.line.gradients[n] for n in "kb"], 0, "TFJS-F2.10"),
        Check("the same by jax.grad", [-20, -10], [result.expected[n] for n in "kb"], 0, "TFJS-F2.10"),
        Check("edges that both ways share", 3, shared(result.line), 0, "TFJS-F2.10"),
    ]
    for name in "kb":
        locals_ = [edge.local for edge in way(result.line, name)]
        gradient = result.line.gradients[name]
        what = f"product of the {len(locals_)} local derivatives from {name} to the loss"
        rows.append(Check(what, gradient, np.prod(locals_), 1e-6, "CHOLLET-2.4.4"))
    return rows


def shared(graph: jf.Graph) -> int:
    """Edges on the ways of both parameters."""
    ways = [{(e.source, e.target) for e in way(graph, name)} for name in "kb"]
    return len(ways[0] & ways[1])


def draw(result: Result):
    figure, axes = plots.panels(
        [["forward"], ["backward"]], size=(9.2, 5.4), gridspec_kw={"hspace": 0.2, "height_ratios": [1, 1.5]}
    )
    figure.subplots_adjust(left=0.02, right=0.98, top=0.86, bottom=0.02)
    figure.suptitle(
        "(v x − y)² at v = 0, x = 2, y = 5: a number forward and a number back on every edge", x=0.02, ha="left"
    )
    plots.backprop_graph(result.product, backward=False, legend=False, ax=axes["forward"])
    axes["forward"].set_title("Forward: values, from the parameter v to the loss")
    plots.backprop_graph(result.product, optimizer=jf.optimizers.sgd(RATE), ax=axes["backward"])
    axes["backward"].set_title("Backward: the gradient behind an operation, times its local derivative, and one step")
    both = plots.backprop_graph(result.line, optimizer=jf.optimizers.sgd(RATE))
    both.set_title("Two parameters: their gradients share the edges from the loss to the plus")
    sweep = plots.backprop_animation(result.line, optimizer=jf.optimizers.sgd(RATE))
    return {"product": figure, "line": both.figure, "sweep": sweep}
