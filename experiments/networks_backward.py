"""The graph of a network is the graph of a line once more: what is folded into a box has a gradient of its own.

Forward and backward of a line through the thermometer readings. Two losses on the same params, of which one is walked
back: no gradient flows from the other, and with both, gradients would add. A network of 2 inputs, 3 sigmoid units and 3
softmax classes as one graph whose boxes are its layers, every result of which is kept for the way back; and a step of
a network with two layers, folded to its layers and unfolded to its operations.

Source: Stevens, Antiga and Viehmann, Deep Learning with PyTorch (2020), figures 5.10 and 5.15; the network of the notes
on backpropagation and gradient descent, figure 1.2. Cost: some seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

START = {"w": 1.0, "b": 0.0}
ROWS = {"DLWPT-F5.10": "passes", "DLWPT-F5.15": "two-losses", "GD-1.2": "classes"}
X = np.array([[0.5, -1.0], [1.5, 0.3], [-0.8, 0.9], [0.1, 1.2]])
CLASSES = np.eye(3)[[0, 1, 2, 2]]  # the class of each row, as shares


@dataclass(frozen=True)
class Config:
    both: bool = False  # whether to walk back from the validation loss too


SECONDS = 11
QUICK = {}
BREAK = {"both": True}


def classify(params, x, y):
    """2 inputs, 3 sigmoid units, 3 classes: mean cross entropy."""
    with jax.named_scope("W X + B"):
        z = x @ params["W1"] + params["B1"][None]
    a = jax.nn.sigmoid(z)
    with jax.named_scope("W A + B"):
        z = a @ params["W2"] + params["B2"][None]
    with jax.named_scope("softmax"):
        a = jax.nn.softmax(z)
    with jax.named_scope("cross entropy"):
        return -jnp.mean(jnp.sum(y * jnp.log(a), axis=1))


def two_layers(params, x, y):
    with jax.named_scope("hidden layer"):
        h = jnp.tanh(params["w"] * x + params["b"])
    with jax.named_scope("output layer"):
        prediction = jnp.dot(params["v"], h) + params["c"]
    with jax.named_scope("squared error"):
        return jnp.square(prediction - y)


class Result(NamedTuple):
    line: jf.Graph
    losses: jf.Graph  # training and validation
    alone: dict  # gradients by the params: of the training loss
    expected: dict  # the same by jax.grad
    together: dict  # of all data at once
    parts: tuple[dict, dict]  # of the two losses apart
    classes: jf.Graph
    by_hand: dict  # the gradients of the classes' network by its formulas
    folded: jf.Graph
    unfolded: jf.Graph
    after: dict  # params after a step of the network


def compute(config: Config) -> Result:
    (x, y), (other_x, other_y) = ((0.1 * u, c) for u, c in jf.datasets.thermometer_split())
    loss = jf.losses.mse(jf.models.line)
    everything = (np.concatenate([x, other_x]), np.concatenate([y, other_y]))
    trained = everything if config.both else (x, y)
    losses = jf.backprop(loss, START, trained, validation=(other_x, other_y))
    random = np.random.default_rng(1)
    params = {"W1": random.normal(size=(2, 3)), "B1": np.zeros(3), "W2": random.normal(size=(3, 3)), "B2": np.zeros(3)}
    small = {"w": np.array([0.5, -1.0]), "b": np.array([0.1, 0.2]), "v": np.array([1.0, 2.0]), "c": 0.3}
    folded = jf.backprop(two_layers, small, (1.5, 1.0))
    return Result(
        line=jf.backprop(loss, START, (x, y)),
        losses=losses,
        alone=losses.gradients,
        expected=jax.grad(loss)(START, x, y),
        together=jax.grad(loss)(START, *everything),
        parts=(jax.grad(loss)(START, x, y), jax.grad(loss)(START, other_x, other_y)),
        classes=jf.backprop(classify, params, (X, CLASSES)),
        by_hand=by_hand(params),
        folded=folded,
        unfolded=jf.backprop(two_layers, small, (1.5, 1.0), open=True),
        after=folded.update(jf.optimizers.sgd(0.1)),
    )


def by_hand(params: dict) -> dict[str, np.ndarray]:
    """The chain rule in matrices: errors A2 - Y at the softmax, times W2' and A1 (1 - A1) at the sigmoid."""
    a1 = 1 / (1 + np.exp(-(X @ params["W1"] + params["B1"])))
    exponentials = np.exp(a1 @ params["W2"] + params["B2"])
    errors = (exponentials / exponentials.sum(1, keepdims=True) - CLASSES) / len(X)
    hidden = errors @ params["W2"].T * a1 * (1 - a1)
    return {"W1": X.T @ hidden, "B1": hidden.sum(0), "W2": a1.T @ errors, "B2": errors.sum(0)}


def checks(result: Result) -> list[Check]:
    def pair(tree: Any) -> list[float]:
        return [float(tree["w"]), float(tree["b"])]

    validating = [edge for edge in result.losses.edges if edge.target.startswith("validation")]
    shared = {edge.source for edge in validating if not edge.source.startswith("validation")}
    weighted = [
        (9 * a + 2 * b) / 11 for a, b in zip(pair(result.parts[0]), pair(result.parts[1]), strict=True)
    ]  # fmt: skip
    boxes = [node.label for node in result.classes.nodes if node.kind == "operation"]
    rows = [
        Check("gradients of a line, by its graph", pair(result.expected), pair(result.line.gradients), 1e-4,
              "DLWPT-F5.10"),
        Check("edges of the graph that carry a gradient back", len(result.line.edges),
              sum(edge.gradient is not None for edge in result.line.edges), 0, "DLWPT-F5.10"),
        Check("two losses, one walked back: gradients", pair(result.expected), pair(result.alone), 1e-4, "DLWPT-F5.15"),
        Check("what both losses use", "['params']['b'] ['params']['w']".replace("['params']", "params"),
              " ".join(sorted(shared)), 0, "DLWPT-F5.15"),
        Check("gradients on the edges of the validation loss", 0,
              sum(edge.gradient is not None for edge in validating), 0, "DLWPT-F5.15"),
        Check("gradients of both add to those of all data", pair(result.together), weighted, 1e-4, "DLWPT-F5.15"),
        Check("boxes of the network", "W X + B, sigmoid, W A + B, softmax, cross entropy", ", ".join(boxes), 0,
              "GD-1.2"),
    ]  # fmt: skip
    for name, expected in result.by_hand.items():
        rows.append(Check(f"gradient by {name}, by hand", expected, result.classes.gradients[name], 1e-6, "GD-1.2"))
    opened = jax.tree.leaves(result.unfolded.gradients)
    for name, one, other in zip(result.after, jax.tree.leaves(result.folded.gradients), opened, strict=True):
        rows.append(Check(f"two layers, folded and unfolded: gradient by {name}", other, one, 1e-6, "theory"))
    return rows


def draw(result: Result):
    figure, axes = plots.panels([["forward"], ["backward"]], size=(11.5, 5.6))
    figure.subplots_adjust(left=0.02, right=0.98, top=0.86, bottom=0.02, hspace=0.22)
    figure.suptitle("A line through 9 readings of the thermometer: the forward graph and the backward graph", x=0.02,
                    ha="left")  # fmt: skip
    plots.backprop_graph(result.line, backward=False, legend=False, ax=axes["forward"])
    axes["forward"].set_title("Forward")
    plots.backprop_graph(result.line, ax=axes["backward"])
    axes["backward"].set_title("Backward, along the same edges")
    both = plots.backprop_graph(result.losses)
    both.set_title("Two losses share the parameters alone; backward was called on the training loss")
    classes = plots.backprop_graph(result.classes, direction="up")
    classes.set_title("2 inputs, 3 sigmoid units, 3 classes:\nevery layer's result is stored for the backward pass")
    optimizer = jf.optimizers.sgd(0.1)
    folded = plots.backprop_graph(result.folded, optimizer=optimizer)
    folded.set_title("A step of a network with two layers, folded to its layers")
    unfolded = plots.backprop_graph(result.unfolded, optimizer=optimizer, direction="up")
    unfolded.set_title("The same step, every operation unfolded")
    return {
        "passes": figure, "two-losses": both.figure, "classes": classes.figure, "step-folded": folded.figure,
        "step-unfolded": unfolded.figure,
    }  # fmt: skip
