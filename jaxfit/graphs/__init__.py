"""Backpropagation made visible: the computation graph of a loss, with the value and gradient of every edge.

`backprop` makes a `Graph`; `print(graph)` is the table of a textbook, `jaxfit.plots.backprop_graph(graph)` its picture.
`backward_memory` and `forward_memory` count the bytes of a gradient without running it.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.engine.jaxprs import alive_bytes, returned_bytes
from jaxfit.engine.loops import objective_of
from jaxfit.engine.tracing import check_silent, inspect_loss, inspect_value, trace
from jaxfit.graphs.graph import Edge, Graph, Node, number_text, shape
from jaxfit.graphs.program import Passage, Program, is_float, read, walk
from jaxfit.losses import Loss, data_names, takes_key
from jaxfit.problems import PRECISIONS, chosen_precision, convert_all, precision_context
from jaxfit.problems.axes import as_key, is_axis, is_key, is_traced
from jaxfit.problems.data import as_data, check_data, floating_of_loss
from jaxfit.problems.enclosed import enclosed_in_precision, resolved
from jaxfit.problems.foreign import as_plain_function
from jaxfit.problems.marks import free, released, values_of
from jaxfit.problems.messages import near_keywords, near_names, path_name, shown
from jaxfit.problems.posing import as_loss, as_params, pose_question, refuse_axes
from jaxfit.typing import Array, ArrayLike, KeyLike, LossFunction, PyTree

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr

__all__ = ["Edge", "Graph", "Node", "backprop", "backward_memory", "forward_memory"]
__getattr__, __dir__ = near_names(__name__, __all__)


@near_keywords
def backprop(
    loss: LossFunction,
    params: PyTree,
    data: tuple = (),
    *,
    validation: tuple | None = None,
    key: KeyLike | None = None,
    open: str | Iterable[str] | bool = (),
    precision: str | None = None,
) -> Graph:
    """Return the computation graph of a loss, with the value, local derivative and gradient of every edge.

        gradient of an edge = local derivative of the operation it enters × gradient of what that operation computes

    and the gradient of a value is the sum over the edges that carry it on. Both are found by walking the graph
    backward, one vector-Jacobian product a node.

    An edge's local derivative is

    - for an elementwise operation its derivative by each entry, in the shape of the result: 2 x for a square;
    - for a sum, mean, largest or smallest, and all with a scalar result, the derivative by each entry;
    - 1 for an operation that only moves, copies or picks entries: a broadcast, a reshape, an index;
    - for a matrix product or convolution the text "× w", w being the other factor;
    - for others the Jacobian, (*output shape, *input shape), if it has at most 64 entries, else None.

    A call (`jax.jit`, `jax.custom_jvp`, `jax.custom_vjp`), a `jax.named_scope`, and a loop or branch of `jax.lax` are
    one node each. A mean is one node, though it is computed as a sum and a division.

    Args:
      loss: As for `jf.fit`: loss(params, *data), or with `key=`, which returns a scalar.
      params: A pytree of floats. Numbers that are not finite are let through: they show where they come from.
      data: The tuple handed to the loss after params.
      validation: Another such tuple, for a second graph on the same params; nothing is walked backward there.
      key: A seed, for a loss with an argument `key`.
      open: The calls and scopes to show from inside: a name, several, or True for all. A call with a derivative of its
        own is opened only where its operations give the same derivative.
      precision: "float32" or "float64"; by default as JAX has it, see `fit`.

    Returns:
      A `Graph`. `print(graph)` is a table, `jf.plots.backprop_graph(graph)` a picture.

    Raises:
      TypeError: If the loss does not return one float, is not pure, prints, or has no derivative; what else is wrong
        with the loss, params or data as for `jf.fit`.
      ValueError: If a name in `open` is no call's or scope's, or what it names cannot be opened.

    Example:
      >>> graph = jf.backprop(lambda p: (2 * p) ** 2, 3.0)
      >>> float(graph.loss), float(graph.gradients)
      (36.0, 24.0)
    """
    precision = chosen_precision(precision, params, data)
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ValueError(f'precision is {precision!r}, but it must be "float32" or "float64"')
    if not callable(loss):
        raise TypeError(f"loss is {shown(loss)}, but it must be a function loss(params, *data) -> scalar itself")
    loss, opening = as_plain_function(loss), _Opening(open)
    params = values_of(as_params(params, precision=precision, finite=False))
    names = ["data"] if validation is None else ["data", "validation"]
    sets = [as_data(given, name) for given, name in zip((data, validation), names, strict=False)]
    key = _checked_key(loss, key)
    _refuse_marks(loss, params, sets)
    sets = [floating_of_loss(loss, params, given, key, precision, n) for given, n in zip(sets, names, strict=True)]
    graphs = []
    with precision_context(precision):
        values = values_of(as_params(resolved(params, precision), precision=precision, finite=False))
        params = jax.tree.map(np.asarray, convert_all(values, precision))
        for name, given in zip(names, sets, strict=True):
            rows = isinstance(loss, Loss) and loss.by_row
            check_data(given, loss, name=name, precision=precision, rows=rows, finite=False)
            graphs.append(_graph(as_loss(loss), params, convert_all(given, precision), key, opening, name, precision))
    opening.check()
    return graphs[0] if validation is None else _beside(*graphs)


class _Opening:
    """The calls and scopes to open, and the names of all that were found."""

    def __init__(self, wanted: str | Iterable[str] | bool):
        self.all = wanted is True
        if isinstance(wanted, str):
            wanted = [wanted]
        several = isinstance(wanted, Iterable) and all(isinstance(name, str) for name in wanted)
        if not (several or isinstance(wanted, bool)):
            raise TypeError(f"open is {wanted!r}, but it must be the name of a call or scope, several names, or True")
        self.names = () if isinstance(wanted, bool) else tuple(wanted)
        self.seen: set[str] = set()

    def __call__(self, name: str) -> bool:
        self.seen.add(name)
        return self.all or name in self.names

    def check(self) -> None:
        for name in self.names:
            if name not in self.seen:
                found = ", ".join(map(repr, sorted(self.seen))) or "none"
                raise ValueError(
                    f"open has {name!r}, but no call or scope of the loss is called so; there are: {found}"
                )


def _checked_key(loss: LossFunction, key: KeyLike | None) -> Array | None:
    if not takes_key(loss):
        if key is not None:
            raise TypeError("key is given, but the loss has no argument named `key`; leave key out")
        return None
    if key is None:
        raise ValueError("key is None, but the loss takes a key; pass a seed, key=0, or a key of jax.random.key")
    return as_key(key)


def _refuse_marks(loss: LossFunction, params: PyTree, sets: Sequence[tuple]) -> None:
    """Raise a TypeError for axes and traced values, since a graph shows numbers."""
    leaves = jax.tree_util.tree_leaves_with_path((loss, params, *sets), is_leaf=is_axis)
    for _, leaf in leaves:
        if is_axis(leaf):
            raise TypeError(f"{leaf!r} stands for many runs, but a graph shows one: pass one of its values")
    if is_traced([leaf for _, leaf in leaves]):
        raise TypeError(
            "backprop shows numbers, which are not known under jax.jit, jax.vmap or jax.grad; call it outside"
        )


def _graph(
    loss: LossFunction, params: PyTree, data: tuple, key: Array | None, opening: _Opening, name: str, precision: str
) -> Graph:
    call, arguments, jaxpr, captured = inspect_value(loss, params, data, key, name, users=released)
    if captured:
        raise TypeError("the loss uses a value traced by a jax.jit, jax.vmap or jax.grad; call backprop outside of it")
    check_silent(jaxpr, "backprop")
    inputs = _inputs(loss, arguments)
    leaves = jax.tree.leaves(arguments)
    count = len(jax.tree.leaves(params))

    def graph(rules: bool) -> tuple[Program, Graph]:
        program = read(jaxpr, opening, rules=rules)
        names = {place: step.name for step in program.steps for place in step.outputs}
        names |= {place: label for place, (_, label, _) in zip(program.inputs, inputs, strict=True)}
        passage = walk(program, leaves, set(program.inputs[:count]), lambda place: names.get(place, "constant"))
        return program, _recorded(program, passage, inputs, params, precision)

    program, found = graph(rules=True)
    if program.rules:
        with enclosed_in_precision(call):
            expected = jax.grad(call)(*arguments)
        if not _close(found.gradients, expected, precision):
            explicit = sorted(set(program.rules) & set(opening.names))
            if explicit:
                raise ValueError(
                    f"open has {explicit[0]!r}, which has a derivative of its own that is not that of its operations "
                    f"here; leave it folded"
                )
            program, found = graph(rules=False)
    return found


def _close(found: PyTree, expected: PyTree, precision: str) -> bool:
    """Return whether two gradients agree to rounding."""
    tolerance = 1e-4 if precision == "float32" else 1e-10
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    largest = max((float(np.max(np.abs(x), initial=0)) for x in jax.tree.leaves(expected)), default=0.0)
    return all(np.allclose(a, b, rtol=tolerance, atol=tolerance * largest, equal_nan=True) for a, b in pairs)


def _inputs(loss: LossFunction, arguments: tuple) -> list[tuple[str, str, str]]:
    """Return name, label and kind of each leaf of the arguments."""
    params, data, key, numbers = arguments
    names = [*data_names(loss), *(f"data[{i}]" for i in range(len(data)))][: len(data)]
    names = names if len(names) == len(data) else [f"data[{i}]" for i in range(len(data))]
    inputs = [
        (path_name("params", path), _label(path) or _first_argument(loss), "parameter")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    for name, item in zip(names, data, strict=True):
        for path, _ in jax.tree_util.tree_leaves_with_path(item):
            inputs.append((path_name(name, path), path_name(name, path), "data"))
    inputs += [("key", "key", "data")] * (key is not None)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(loss)]
    inputs += [(path_name("loss", path), _label(path[-1:]) or "number", "constant") for path in paths]
    return inputs


def _label(path: tuple) -> str:
    """Return a path without quotes: w, hidden.w, [0].w."""
    text = jax.tree_util.keystr(path, simple=True, separator=".")
    first, dot, rest = text.partition(".")
    return f"[{first}]{dot}{rest}" if first.isdigit() else text


def _first_argument(loss: LossFunction) -> str:
    """Return the name of the loss's first argument, for params that are one leaf."""
    function = getattr(loss, "func", loss)
    try:
        return next(iter(inspect.signature(function).parameters)) if inspect.isfunction(function) else "params"
    except StopIteration:
        return "params"


def _recorded(
    program: Program, passage: Passage, inputs: Sequence[tuple[str, str, str]], params: PyTree, precision: str
) -> Graph:
    """Return the graph with the results of a forward and backward pass."""
    used = {place for step in program.steps for place in step.inputs} | {program.result}
    names, drawn = _Names(), []  # of (place or places, name, label, kind, operations)
    for place, (name, label, kind) in zip(program.inputs, inputs, strict=True):
        if kind != "constant" or place in used:
            drawn.append(((place,), names.unique(name), label, kind, 0))
    for place, value in program.constants.items():
        if place in used:
            text = number_text(host(value), 4)
            label = text if len(text) <= 8 else f"constant {shape(np.asarray(value))}"
            drawn.append(((place,), names.unique("constant"), label, "constant", 0))
    for step in program.steps:
        drawn.append((step.outputs, names.unique(step.name), step.label, "operation", step.operations))
    source = {place: name for places, name, *_ in drawn for place in places}
    edges, arriving = [], []
    uses: dict[int, list[int]] = {}
    steps = [((), (), ())] * (len(drawn) - len(program.steps))
    steps += list(zip((s.inputs for s in program.steps), passage.gradients, passage.locals, strict=True))
    one = jnp.ones_like(passage.values[program.result])
    drawn.append(((), names.unique("loss"), "loss", "loss", 0))
    steps.append(((program.result,), [one], [one]))
    for (_, name, *_), step in zip(drawn, steps, strict=True):
        first = len(edges)
        for place, gradient, local in zip(*step, strict=True):
            uses.setdefault(place, []).append(len(edges))
            value = host(passage.values[place])
            edges.append(Edge(source[place], name, value, host(local), host(gradient)))
        arriving.append(tuple(range(first, len(edges))))
    nodes = []
    for (places, name, label, kind, operations), incoming in zip(drawn, arriving, strict=True):
        shown = places or (program.result,)
        values = tuple(host(passage.values[p]) for p in shown)
        sums = tuple(_sum(passage, p) for p in shown)
        outputs = tuple(tuple(uses.get(p, ())) for p in places)
        single = len(shown) == 1
        value, gradient = (values[0], sums[0]) if single else (values, sums)
        nodes.append(Node(name, label, kind, value, gradient, incoming, outputs, operations))
    leaves, structure = jax.tree.flatten(params)
    gradients = jax.tree.unflatten(structure, [node.gradient for node in nodes[: len(leaves)]])
    loss = host(passage.values[program.result])
    return Graph(tuple(nodes), tuple(edges), gradients, params, loss, precision, _Replay(program, passage, precision))


def _sum(passage: Passage, place: int) -> PyTree:
    if not is_float(passage.values[place]):
        return None
    return host(passage.sums.get(place, jnp.zeros_like(passage.values[place])))


class _Names:
    """Unique names of nodes: multiply, multiply_2, ..."""

    def __init__(self):
        self.counts: Counter[str] = Counter()

    def unique(self, name: str) -> str:
        self.counts[name] += 1
        return name if self.counts[name] == 1 else self.unique(f"{name}_{self.counts[name]}")


def host(value: PyTree) -> PyTree:
    """Return a value of JAX as a NumPy scalar or array; keys, texts and None stay."""
    return value if value is None or isinstance(value, str) or is_key(value) else np.asarray(value)[()]


class _Replay:
    """The loss as a function of numbers that are added to the values on some edges."""

    def __init__(self, program: Program, passage: Passage, precision: str):
        self.program, self.passage, self.precision = program, passage, precision

    def __call__(self, added: Mapping[int, ArrayLike]) -> Array:
        known, at = dict(self.passage.values), 0
        with precision_context(self.precision):
            for step in self.program.steps:
                given = [known[place] for place in step.inputs]
                for i in range(len(given)):
                    if at + i in added:
                        given[i] = given[i] + jnp.asarray(added[at + i])
                known.update(zip(step.outputs, step.function(*given), strict=True))
                at += len(given)
            return known[self.program.result] + jnp.asarray(added.get(at, 0))


def _beside(training: Graph, validation: Graph) -> Graph:
    """Return two graphs as one, with common params; the second one has no gradients."""
    shared = {node.name for node in training.nodes if node.kind == "parameter"}
    count = len(training.edges)

    def renamed(name: str) -> str:
        return name if name in shared else f"validation {name}"

    def moved(positions: Sequence[int]) -> tuple[int, ...]:
        return tuple(count + i for i in positions)

    edges = [Edge(renamed(edge.source), renamed(edge.target), edge.value, None, None) for edge in validation.edges]
    extra = {n.name: tuple(map(moved, n.outputs)) for n in validation.nodes}
    nodes = [
        node._replace(outputs=(node.outputs[0] + extra[node.name][0],)) if node.name in shared else node
        for node in training.nodes
    ]
    for node in validation.nodes:
        if node.name not in shared:
            label = "validation loss" if node.kind == "loss" else node.label
            own = {"inputs": moved(node.inputs), "outputs": extra[node.name]}
            nodes.append(node._replace(name=renamed(node.name), label=label, gradient=None, **own))
    nodes = [n._replace(label="training loss") if n.name == "loss" else n for n in nodes]
    return replace(training, nodes=tuple(nodes), edges=training.edges + tuple(edges))


@near_keywords
def backward_memory(
    loss: LossFunction, params: PyTree, data: tuple = (), *, key: KeyLike | None = None, precision: str | None = None
) -> int:
    """Return the bytes of intermediate results that the backward pass keeps of the forward pass.

    For layers h = tanh(h @ w + b) it grows with rows x width x depth. `jax.checkpoint` around a part of the loss keeps
    only the inputs of that part, and computes the rest again.

    Every array that the function returned by `jax.vjp` closes over counts once. Params, data and constants do not
    count, because they exist anyway, nor does what the backward pass needs for itself. A compiler may store less,
    because it fuses operations and repeats cheap ones: this number is what the program asks for, not what a device
    reports.

    Args:
      loss, params, data, key, precision: As for `fit`.

    Raises:
      ValueError, TypeError: As `fit` for the same arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> jf.backward_memory(lambda p, x: jnp.sum(jnp.tanh(x * p)), 1.0, (np.ones(100),)) >= 400
      True
    """
    arguments = loss, params, data, key
    return returned_bytes(_program("backward_memory", lambda f, p: jax.vjp(f, p)[1], arguments, precision))


@near_keywords
def forward_memory(
    loss: LossFunction, params: PyTree, data: tuple = (), *, key: KeyLike | None = None, precision: str | None = None
) -> int:
    """Return the largest number of bytes of intermediate results that exist at once when only the loss is computed.

    Operations run in the order written, and an array is dropped after its last use: for a chain of layers of one width
    the result does not depend on their number. Params, data and constants do not count, nor do arrays that exist only
    inside of one operation (an inner `jit`, a loop).

    Args:
      loss, params, data, key, precision: As for `fit`.

    Raises:
      ValueError, TypeError: As `fit` for the same arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> jf.forward_memory(lambda p, x: jnp.sum(jnp.tanh(x * p)), 1.0, (np.ones(100),)) <= 804
      True
    """
    return alive_bytes(_program("forward_memory", lambda f, p: f(p), (loss, params, data, key), precision))


def _program(
    verb: str, function: Callable[[Callable, PyTree], PyTree], arguments: tuple, precision: str | None
) -> ClosedJaxpr:
    """Return the program of function(objective, free params) for the problem that (loss, params, data, key) pose."""
    loss, params, data, key = arguments
    precision = chosen_precision(precision, params, data)
    problem = pose_question(loss, params, data, key, precision)
    refuse_axes(verb, problem)
    with precision_context(precision):
        problem = convert_all(problem, precision)
        inspect_loss(problem)
        program, _ = trace(lambda p: function(objective_of(p, p.data, p.key), free(p.params)), problem)
    return program
