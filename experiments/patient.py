"""One patient, one step: the gradients of a line are products of local derivatives that can be computed by hand.

The patient of 58 years has a blood pressure of 153 mmHg; the line 0 x + 139 is 14 short. Forward 0, 139, -14, 196; back
1, -28, -28, -28 and by the slope -28 times 58; a step with the rate 0.0002 leads to 0.3248 x + 139.0056. On all 33
patients the same graph carries arrays of 33 numbers, and the mean divides by 33. As a network the line is one layer
with one input, one output and two parameters, with the same graph but for the shapes.

Source: Dürr, Sick and Murina, Probabilistic Deep Learning (2020), figures 3.2, 3.10 to 3.13 and listing 3.2. Cost: some
seconds on a CPU.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

from .published import check

START, RATE = {"a": 0.0, "b": 139.0}, 0.0002
ROWS = {"PDL-F3.2": "network", "PDL-L3.2": "all", "PDL-F3.10": "all", "PDL-F3.12": "one", "PDL-F3.13": "operations"}
OPERATIONS = {  # the result, and its derivative by each argument at a = 3, b = 4
    "a × b": (lambda p: p["a"] * p["b"], {"a": 4, "b": 3}),
    "a + b": (lambda p: p["a"] + p["b"], {"a": 1, "b": 1}),
    "a − b": (lambda p: p["a"] - p["b"], {"a": 1, "b": -1}),
    "a²": (lambda p: jnp.square(p["a"]), {"a": 6}),
}


@dataclass(frozen=True)
class Config:
    patient: int = 15  # as the book counts, from 1


QUICK = {}
BREAK = {"patient": 14}


def straight(x, a, b):
    return a * x + b


class Result(NamedTuple):
    one: jf.Graph
    after: dict  # params after a step on the one patient
    all: jf.Graph
    network: jf.Graph
    operations: dict[str, jf.Graph]


def compute(config: Config) -> Result:
    age, pressure = jf.datasets.blood_pressure()
    loss = jf.losses.mse(jf.models.from_function(straight))
    i = config.patient - 1

    def single(params, x, y):
        return jnp.square(straight(x, **params) - y)

    one = jf.backprop(single, START, (age[i], pressure[i]))
    layer = [{"w": np.array([[START["a"]]]), "b": np.array([START["b"]])}]
    return Result(
        one=one,
        after=one.update(jf.optimizers.sgd(RATE)),
        all=jf.backprop(loss, START, (age, pressure), precision="float64"),
        network=jf.backprop(jf.losses.mse(jf.models.dense((1, 1))), layer, (age[:, None], pressure[:, None])),
        operations={
            name: jf.backprop(function, {key: value for key, value in {"a": 3.0, "b": 4.0}.items() if key in slopes})
            for name, (function, slopes) in OPERATIONS.items()
        },
    )


def checks(result: Result) -> list[Check]:
    one, every = result.one, result.all
    edges = [one.edges[one[name].leaving[0]] for name in ("multiply", "add", "subtract", "square")]
    back = [edges[3], edges[2], edges[1], *(one.edges[one[name].leaving[0]] for name in "b")]
    slopes = [edge.local for edge in back] + [edges[0].local, one.edges[one["a"].leaving[0]].local]
    age, pressure = jf.datasets.blood_pressure()
    residuals = START["b"] - pressure
    words = ["multiply", "add", "subtract", "square", "mean"]
    got = [node.name for node in every.nodes if node.kind == "operation"]
    wide = [edge.target for edge in every.edges if np.shape(edge.value) == (33,)]
    leaves = sum(np.size(leaf) for layer in result.network.params for leaf in layer.values())
    rows = [
        check("PDL-F3.12.forward", [edge.value for edge in edges] + [float(one.loss)], "patient 15: values"),
        check("PDL-F3.12.local", slopes, "patient 15: local derivatives, from the loss back"),
        check("PDL-F3.12.grad", [one.gradients["b"], one.gradients["a"]], "patient 15: gradients by b and a"),
        Check("patient 15: params after a step", [0.3248, 139.0056], list(result.after.values()), 2e-5, "PDL-F3.12"),
        Check("operations of the graph", " ".join(words), " ".join(got), 0, "PDL-F3.10"),
        Check("operations that take 33 numbers", "multiply add subtract subtract square mean", " ".join(wide), 0,
              "PDL-F3.10"),
        Check("loss on all patients", float(np.mean(residuals**2)), float(every.loss), 1e-3, "PDL-L3.2"),
        check("PDL-L3.3.mse", float(every.loss), "loss on all patients, as printed"),
        Check("gradients by a and b", [2 * np.mean(residuals * age), 2 * np.mean(residuals)],
              list(every.gradients.values()), 1e-9, "PDL-L3.2"),
        check("PDL-nb06.grad", list(every.gradients.values()), "gradients by a and b, as printed", precision="float64"),
        Check("parameters of the layer", 2, leaves, 0, "PDL-F3.2"),
        Check("gradients of the layer", list(every.gradients.values()),
              [float(np.ravel(result.network.gradients[0][name])[0]) for name in "wb"], 1e-3, "PDL-F3.2"),
    ]  # fmt: skip
    for name, (_, slopes) in OPERATIONS.items():
        graph = result.operations[name]
        got = [graph.edges[graph[key].leaving[0]].local for key in slopes]
        rows.append(Check(f"derivatives of {name} at a = 3, b = 4", list(slopes.values()), got, 0, "PDL-F3.13"))
    return rows


def named(graph: jf.Graph) -> jf.Graph:
    """The result called by what it is: it is no loss."""
    return replace(graph, nodes=(*graph.nodes[:-1], graph.nodes[-1]._replace(label="result")))


def draw(result: Result):
    optimizer = jf.optimizers.sgd(RATE)
    one = plots.backprop_graph(result.one, optimizer=optimizer, direction="up")
    one.set_title("One patient, 58 years, 153 mmHg:\nvalues upward, gradients downward")
    every = plots.backprop_graph(result.all, direction="up")
    every.set_title("All 33 patients: arrays on the edges,\nand a mean that divides by 33")
    network = plots.backprop_graph(result.network, direction="up")
    network.set_title("The line as a network: one layer,\none input, one output, two parameters")
    figure, axes = plots.panels([["a × b", "a + b"], ["a − b", "a²"]], size=(8.4, 5.0))
    figure.subplots_adjust(left=0.03, right=0.97, top=0.84, bottom=0.03, wspace=0.1, hspace=0.3)
    figure.suptitle("In the backward pass an operation multiplies the gradient by its local derivative",
                    x=0.03, ha="left")  # fmt: skip
    rules = {"a × b": "by the other factor", "a + b": "by 1", "a − b": "by 1 and −1", "a²": "by 2 a"}
    for name, ax in axes.items():
        plots.backprop_graph(named(result.operations[name]), legend=False, ax=ax)
        ax.set_title(f"{name}: {rules[name]}")
    return {"one": one.figure, "all": every.figure, "network": network.figure, "operations": figure}
