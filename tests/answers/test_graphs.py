"""Computation graphs: every gradient on every edge against JAX's own and finite differences; the table; errors."""

import functools
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit.graphs.graph import number_text
from tests.shared.soak import soaking

RANDOM = np.random.default_rng(7)
X, Y = RANDOM.normal(size=3), RANDOM.normal(size=3)
M = RANDOM.normal(size=(4, 3))
S = M[:3]  # few shapes: each has its operations compiled once
CHANGING = itertools.count(1.0)
LABELS = np.array([0, 2, 2])
V = np.array([0.3, -1.2, 2.1])


@jax.custom_jvp
def softened(x):
    return jnp.log1p(jnp.exp(x))


softened.defjvps(lambda t, _, x: jax.nn.sigmoid(x) * t)


@jax.custom_vjp
def straight_through(x):
    return jnp.round(x)


straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))


@jax.jit
def inner(x):
    return jax.jit(lambda z: jnp.sin(z) * z)(x) + 1


def scoped(p, x):
    with jax.named_scope("layer"):
        h = jnp.tanh(p["w"] * x)
        h = h * h
    with jax.named_scope("end"):
        return jnp.sum(jnp.exp(h) * p["w"])


def noisy(p, x, *, key):
    return jnp.mean((p * x + jax.random.normal(key, x.shape)) ** 2)


def doubled(p):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 1.5), (0, p))[1].sum()


def net(*widths, activation="tanh"):
    return jf.models.dense(widths, activation)


def of(model, seed=3):
    return jax.tree.map(lambda x: np.asarray(x) + 0.1, model.init(seed))


LINE = {"w": 0.7, "b": -0.2}
AB = {"a": 0.5, "b": 1.5}
SMOOTH = {  # name: loss, params, data
    "product": (lambda v, x, y: (v * x - y) ** 2, 0.0, (2.0, 5.0)),
    "mse of a line": (jf.losses.mse(jf.models.line), LINE, (X, Y)),
    "rss of a line": (jf.losses.rss(jf.models.line), LINE, (X, Y)),
    "mae of a line": (jf.losses.mae(jf.models.line), LINE, (X, Y)),
    "huber of a line": (jf.losses.huber(jf.models.line, delta=0.6), LINE, (X, Y)),
    "masked mse": (jf.losses.mse(jf.models.line, masked=True), LINE, (X, Y, np.array([True, False, True]))),
    "masked huber": (jf.losses.huber(jf.models.line, masked=True), LINE, (X, Y, np.arange(3) > 0)),
    "mse and l2": (jf.losses.mse(jf.models.line) + jf.losses.l2(0.3), LINE, (X, Y)),
    "mse and smoothness": (
        jf.losses.mse(jf.models.polynomial(3))
        + jf.losses.smoothness(jf.models.polynomial(3), strength=0.1, x=np.array([-1.0, 0.2, 1.0])),
        {"coefficients": np.array([0.1, -0.4, 0.3, 0.2])},
        (X, Y),
    ),
    "polynomial": (jf.losses.rss(jf.models.polynomial(2)), {"coefficients": V}, (X, Y)),
    "from_function": (jf.losses.mse(jf.models.from_function(lambda x, a, b: a * jnp.exp(-b * x))), AB, (X, Y)),
    "dense tanh": (jf.losses.mse(net(3, 3, 3)), of(net(3, 3, 3)), (S, S.T)),
    "three layers on a batch": (jf.losses.mse(net(3, 3, 3, 3)), of(net(3, 3, 3, 3)), (S, S.T)),
    "dense relu": (
        jf.losses.mse(net(3, 3, 1, activation="relu")), of(net(3, 3, 1, activation="relu")), (S, S[:, :1]),
    ),
    "cross entropy of labels": (
        jf.losses.softmax_cross_entropy(net(3, 3, 3, activation="sigmoid")),
        of(net(3, 3, 3, activation="sigmoid")),
        (S, LABELS),
    ),
    "cross entropy of shares": (jf.losses.softmax_cross_entropy(net(3, 3)), of(net(3, 3)), (S, np.full((3, 3), 1 / 3))),
    "reshape and transpose": (lambda p, m: jnp.sum(p.reshape(3, 2).T @ m.T) ** 2, np.arange(6.0), (M,)),
    "index and gather": (lambda p: p[1] * jnp.sum(p[jnp.array([0, 2, 2])] ** 2), V, ()),
    "traced index": (lambda p, i: p[i] ** 2 + jax.lax.dynamic_slice(p, (i,), (2,)).sum(), V, (1,)),
    "scatter": (lambda p: jnp.sum(p.at[jnp.array([0, 0])].add(p[1] * p[2]) ** 2), V, ()),
    "concatenation": (lambda p: jnp.sum(jnp.cumprod(jnp.concatenate([p["a"], p["b"]]))), {"a": V, "b": V + 1}, ()),
    "stack and flip": (lambda p: jnp.sum(jnp.stack([p, p[::-1]])[:, 0] ** 3), V, ()),
    "pad and roll": (lambda p: jnp.sum(jnp.roll(jnp.pad(p, 2), 1) * jnp.arange(7.0)), V, ()),
    "convolution": (lambda p, x: jnp.sum(jnp.convolve(x, p, mode="same") ** 2), V, (X,)),
    "convolution of images": (
        lambda p, x: jnp.sum(jax.lax.conv(x, p, (1, 1), "SAME") ** 2), M[:2, :2].reshape(1, 1, 2, 2) + 1,
        (M.reshape(1, 1, 4, 3),),
    ),
    "reductions": (lambda p, m: jnp.max(m * p[0]) + jnp.min(m, axis=0) @ p + jnp.prod(p) + jnp.var(p), V, (M,)),
    "mean over an axis": (lambda p, m: jnp.sum(jnp.mean(m * p[None], axis=1) ** 2), V, (M,)),
    "logsumexp": (lambda p: jax.nn.logsumexp(p * 3), V, ()),
    "softmax": (lambda p: jax.nn.softmax(p)[1], V, ()),
    "norm": (lambda p: jnp.linalg.norm(p), V, ()),
    "where": (lambda p: jnp.sum(jnp.where(p > 0, p**2, jnp.exp(p))), V, ()),
    "clip": (lambda p: jnp.sum(jnp.clip(p, -1, 1) * p), V, ()),
    "integer inputs": (lambda p, n: jnp.sum(p * n) ** 2, 1.5, (np.array([1, 2, 3]),)),
    "unused params": (lambda p: p["a"] ** 2, AB, ()),
    "shared subexpressions": (lambda p: (s := jnp.sin(p["a"] * p["b"])) * s + s / (1 + s**2), AB, ()),
    "one argument twice": (lambda p: (p * p) @ p, V, ()),
    "scan": (lambda p: jax.lax.scan(lambda c, x: (c * p[0] + x, c**2), 1.0, p)[1].sum(), V, ()),
    "fori_loop": (lambda p: jax.lax.fori_loop(0, 4, lambda i, c: jnp.sin(c + i), p).sum(), V, ()),
    "cond": (lambda p: jax.lax.cond(p[0] > 0, lambda p: p @ p, lambda p: p.sum(), p), V, ()),
    "switch": (lambda p, i: jax.lax.switch(i, [jnp.sin, jnp.cos], p[0]) * p[1], V, (1,)),
    "cumulative sum": (lambda p: jnp.sum(jnp.cumsum(p) ** 2), V, ()),
    "sort": (lambda p: jnp.sort(p) @ jnp.arange(3.0), V, ()),
    "custom_jvp": (lambda p: jnp.sum(softened(p) ** 2), V, ()),
    "nested jit": (lambda p: jnp.sum(inner(p) * inner(p + 1)), V, ()),
    "dot_general": (lambda p, m: jnp.sum(jnp.tanh(m @ p) ** 2), V, (M,)),
    "einsum": (lambda p, m: jnp.einsum("ij,j,kj->", m, p, m), V, (M,)),
    "batched product": (lambda p, m: jnp.sum(jax.vmap(lambda row: jnp.outer(row, p) @ p)(m) ** 2), V, (M,)),
    "named scopes": (scoped, {"w": 0.8}, (X,)),
    "checkpoint": (lambda p: jax.checkpoint(lambda z: jnp.sum(jnp.sin(z) ** 2))(p), V, ()),
    "linear solve": (lambda p: jnp.linalg.solve(jnp.outer(p, p) + jnp.eye(3) * 2, p).sum(), V, ()),
    "special functions": (lambda p: jnp.sum(jnp.arctan2(p, 2.0) + jax.scipy.special.erf(p) + jnp.abs(p) ** 1.5), V, ()),
    "a function of a key": (noisy, 0.4, (X,)),
    "params alone": (lambda p: p, 2.0, ()),
}  # fmt: skip
BENT = {  # where finite differences say something else than the rules of JAX, or nothing
    "max with ties": (lambda p: jnp.max(p) + jnp.maximum(p[0], p[1]), np.array([2.0, 2.0, 1.0]), ()),
    "stop_gradient": (lambda p: jnp.sum(p * jax.lax.stop_gradient(p**2)), V, ()),
    "custom_vjp": (lambda p: jnp.sum(straight_through(p) ** 2), V, ()),
    "relu at zero": (lambda p: jnp.sum(jax.nn.relu(p)), np.zeros(2), ()),
    "argmax and comparison": (lambda p: p[jnp.argmax(p)] * (p > 0).sum(), V, ()),
    "mae at the target": (jf.losses.mae(jf.models.line), {"w": 1.0, "b": 0.0}, (X, X)),
    "not a number": (lambda p: jnp.log(p["a"] - 2) * p["b"], AB, ()),
    "loss of constants": (lambda p: jnp.float64(3.0), 1.0, ()),
}
CASES = SMOOTH | BENT
KINDS = "dense tanh", "index and gather", "scan", "max with ties"  # which differ most; make soak has them all


@functools.cache
def graph_of(name, **options):
    loss, params, data = CASES[name]
    if name == "a function of a key":
        options["key"] = 5
    return jf.backprop(loss, params, data, precision="float64", **options)


def moved(graph):
    return [i for i, edge in enumerate(graph.edges) if edge.gradient is not None]


def assert_equals_jax(graph, loss=None):
    """Every edge's gradient; with a loss also its value and gradients without any graph."""
    with jax.enable_x64(True):
        zeros = {i: jnp.zeros_like(graph.edges[i].value) for i in moved(graph)}
        expected = jax.jit(jax.grad(graph.replay))(zeros)
        params = jax.tree.map(jnp.asarray, graph.params)
        whole = loss and jax.jit(jax.value_and_grad(loss))(params)
    for i in zeros:
        assert np.shape(graph.edges[i].gradient) == np.shape(graph.edges[i].value)
        np.testing.assert_allclose(graph.edges[i].gradient, expected[i], rtol=1e-9, atol=1e-12, err_msg=graph.edges[i])
    if loss is not None:
        np.testing.assert_allclose(graph.loss, whole[0], rtol=1e-12)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), graph.gradients, whole[1])


@pytest.mark.parametrize("name", soaking(CASES, keep=KINDS))
def test_every_gradient_on_every_edge_is_that_of_jax(name):
    loss, _, data = CASES[name]
    key = {"key": jax.random.key(5)} if name == "a function of a key" else {}
    assert_equals_jax(graph_of(name), lambda params: loss(params, *data, **key))


@pytest.mark.parametrize("name", soaking(SMOOTH, keep=[name for name in KINDS if name in SMOOTH]))
def test_every_gradient_on_every_edge_is_that_of_finite_differences(name):
    graph = graph_of(name)
    random = np.random.default_rng(0)
    reached = {node.name for node in graph.nodes if node.kind == "parameter"}
    for i in moved(graph):
        value, gradient = graph.edges[i].value, graph.edges[i].gradient
        reached |= {graph.edges[i].target} if graph.edges[i].source in reached else set()
        if name == "cross entropy of labels" and graph.edges[i].source not in reached:
            continue  # shares of zero are left out of the sum: it jumps there
        if not np.isfinite(value).all() or graph.edges[i].local is not None and not np.any(graph.edges[i].local):
            continue  # nothing to move, or a comparison
        direction = random.normal(size=np.shape(value))
        size = 1e-6
        there, back = (float(graph.along(i)(sign * size * direction)) for sign in (1, -1))
        expected = (there - back) / (2 * size)
        np.testing.assert_allclose(
            np.sum(gradient * direction), expected, rtol=2e-6, atol=2e-8 * max(1, abs(graph.loss)), err_msg=str(i)
        )


OPENED = ["nested jit", "softmax", "custom_jvp", "named scopes", "cross entropy of labels"]


@pytest.mark.parametrize("name", soaking(OPENED, keep=("nested jit", "named scopes")))
def test_an_opened_graph_has_more_nodes_and_the_same_gradients(name):
    closed, opened = graph_of(name), graph_of(name, open=True)
    assert_equals_jax(opened)
    assert len(opened.nodes) > len(closed.nodes) or name == "softmax"
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), closed.gradients, opened.gradients)


@pytest.mark.parametrize("name", soaking(CASES, keep=KINDS))
def test_local_derivatives_times_the_gradient_behind_are_the_gradient(name):
    """Of elementwise operations and those with a scalar result, one number after the other."""
    graph = graph_of(name)
    nodes = {node.name: node for node in graph.nodes}
    for edge in graph.edges:
        target = nodes[edge.target]
        behind = target.gradient
        if edge.gradient is None or not isinstance(edge.local, (np.ndarray, np.floating)) or behind is None:
            continue
        if np.shape(edge.local) == np.shape(behind) == np.shape(edge.value) or np.shape(behind) == ():
            expected = edge.local * behind
            if np.shape(expected) == np.shape(edge.gradient):
                np.testing.assert_allclose(edge.gradient, expected, rtol=1e-9, atol=1e-12)


def test_a_while_has_a_gradient_though_jax_has_none():
    graph = jf.backprop(doubled, V, precision="float64")
    np.testing.assert_allclose(graph.gradients, np.full(3, 1.5**3))
    assert any(node.name == "while" for node in graph.nodes)


# What the texts print


def test_the_textbook_graph():
    graph = jf.backprop(lambda v, x, y: jnp.square(v * x - y), 0.0, (2.0, 5.0))
    way = [graph.edges[i] for i in (0, 2, 4, 5)]
    assert [edge.value for edge in way] == [0, 0, -5, 25]
    assert [edge.gradient for edge in way] == [-20, -10, -10, 1]
    assert [edge.local for edge in way] == [2, 1, -10, 1]
    assert [(e.source, e.target) for e in way[:2]] == [("params", "multiply"), ("multiply", "subtract")]
    np.testing.assert_allclose(graph.update(jf.optimizers.sgd(0.01)), 0.2, rtol=1e-6)
    source, target, value, local, gradient = graph.edges[0]
    assert (source, target, value, local, gradient) == ("params", "multiply", 0, 2, -20)


def test_patient_15():
    age, pressure = (column[14:15] for column in jf.datasets.blood_pressure())
    loss = jf.losses.mse(jf.models.from_function(lambda x, a, b: a * x + b))
    graph = jf.backprop(loss, {"a": 0.0, "b": 139.0}, (age, pressure))
    by_target = {edge.target: edge for edge in graph.edges}
    assert by_target["square"].value == -14 and by_target["mean"].value == 196
    assert graph.gradients == {"a": -1624, "b": -28}
    after = graph.update(jf.optimizers.sgd(0.0002))
    np.testing.assert_allclose([after["a"], after["b"]], [0.3248, 139.0056], rtol=1e-6)


# How a graph is told


def test_the_table_of_a_small_graph_is_the_one_of_a_textbook():
    graph = jf.backprop(lambda v, x, y: jnp.square(v * x - y), 0.0, (2.0, 5.0))
    assert str(graph).splitlines() == [
        "edge                 value  local derivative  gradient of the loss",
        "──────────────────────────────────────────────────────────────────",
        "v → multiply             0                 2                   -20",
        "x → multiply             2                 0                     0",
        "multiply → subtract      0                 1                   -10",
        "y → subtract             5                -1                    10",
        "subtract → square       -5               -10                   -10",
        "square → loss           25                 1                     1",
        "",
        "Gradient of the loss, 25, by the params:",
        "  v: -20",
    ]


def test_gradients_that_meet_are_added_where_one_sees_it():
    graph = jf.backprop(lambda p: p["a"] * 3 + p["a"] ** 2, {"a": 2.0})
    assert graph["a"].gradient == 7
    assert "  a: 3 + 4 = 7" in str(graph).splitlines()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(0.2), "0.2"), (np.float64(-1624), "-1624"), (np.float64(1e-9), "1e-9"), (np.nan, "nan"),
        (-np.inf, "-inf"), (np.array([1.0, 2.5]), "[1, 2.5]"), (np.zeros(33), "(33,) all 0"), (None, ""),
        (np.arange(6.0).reshape(2, 3), "2×3 mean 2.5, 0 to 5"), (np.array([True] * 5), "(5,) 5 of 5 true"),
        (np.array([1.0, np.nan, 3, 4, 5]), "(5,) 1 nan"), (np.float64(1e7), "1e7"), ("× w", "× w"),
        (np.zeros((0, 2)), "0×2 empty"),
    ],
)  # fmt: skip
def test_values_are_written_as_a_reader_would(value, text):
    assert number_text(value) == text


def test_a_mean_is_one_node_and_a_sum_that_is_used_twice_stays():
    names = [node.name for node in jf.backprop(lambda p: jnp.mean(p**2), V).nodes]
    assert names == ["params", "square", "mean", "loss"]
    twice = jf.backprop(lambda p: (s := jnp.sum(p)) / 3 + s, V)
    names = [node.name for node in twice.nodes]
    assert "sum" in names and "mean" not in names
    names = [node.name for node in jf.backprop(lambda p: jnp.sum(p) / 4, V).nodes]
    assert "sum" in names and "divide" in names


def test_nodes_are_named_by_their_paths_and_operations_are_numbered():
    graph = graph_of("dense tanh")
    names = [node.name for node in graph.nodes]
    assert names[:6] == ["params[0]['b']", "params[0]['w']", "params[1]['b']", "params[1]['w']", "x", "y"]
    assert {"matmul", "matmul_2", "tanh", "mean"} <= set(names) and len(set(names)) == len(names)
    assert graph["[0].w"].kind == "parameter" and graph["y"].kind == "data" and graph["loss"].kind == "loss"


def test_data_have_the_names_that_the_loss_gives_them():
    graph = jf.backprop(lambda p, ages, table: p * ages + table["k"], 1.0, (2.0, {"k": 3.0}))
    assert [node.name for node in graph.nodes if node.kind == "data"] == ["ages", "table['k']"]
    graph = jf.backprop(lambda p, *data: p * data[0] * data[1], 1.0, (2.0, 3.0))
    assert [node.name for node in graph.nodes if node.kind == "data"] == ["data[0]", "data[1]"]


def test_a_scope_is_one_node_until_it_is_opened():
    graph = jf.backprop(scoped, {"w": 0.8}, (X,))
    assert [node.label for node in graph.nodes] == ["w", "x", "layer", "end", "loss"]
    assert "tanh" in [node.name for node in jf.backprop(scoped, {"w": 0.8}, (X,), open="layer").nodes]
    assert graph["layer"].operations == 3


def test_a_call_with_a_rule_of_its_own_is_opened_only_where_its_operations_agree():
    def loss(p):
        return jnp.sum(jax.nn.relu(p) ** 2)

    def tied(p):
        return jnp.sum(jax.nn.relu(p) * 3)

    assert "max" in [node.name for node in jf.backprop(loss, V, open="relu").nodes]
    with pytest.raises(ValueError, match="'relu', which has a derivative of its own"):
        jf.backprop(tied, np.zeros(3), open="relu")
    assert "relu" in [node.name for node in jf.backprop(tied, np.zeros(3), open=True).nodes]


def test_control_flow_is_one_node():
    assert [n.label for n in graph_of("scan").nodes if n.kind == "operation"].count("scan, 3 turns") == 1
    assert "cond" in [n.name for n in graph_of("cond").nodes]


@pytest.mark.parametrize("name", soaking(CASES, keep=KINDS))
def test_every_edge_hangs_at_both_of_its_nodes(name):
    graph = graph_of(name)
    nodes = {node.name: node for node in graph.nodes}
    for i, edge in enumerate(graph.edges):
        assert i in nodes[edge.target].inputs and i in nodes[edge.source].leaving
    assert sum(len(n.inputs) for n in graph.nodes) == sum(len(n.leaving) for n in graph.nodes) == len(graph.edges)


# Two losses


def test_of_two_losses_only_the_params_are_shared_and_only_one_is_walked_back():
    loss, params = jf.losses.mse(jf.models.line), {"w": 1.0, "b": 0.0}
    alone = jf.backprop(loss, params, (X, Y))
    both = jf.backprop(loss, params, (X, Y), validation=(X[:2] + 1, Y[:2]))
    assert both.gradients == alone.gradients
    validating = {node.name for node in both.nodes if node.name.startswith("validation")}
    for edge in both.edges:
        if edge.target in validating:
            assert edge.gradient is None and (edge.source in validating or both[edge.source].kind == "parameter")
        else:
            assert edge.gradient is not None and edge.source not in validating
    assert both["validation loss"].value == pytest.approx(float(loss(params, X[:2] + 1, Y[:2])), rel=1e-6)


# Folding


def test_folding_a_loop_written_out_keeps_its_operations_and_gradients():
    def loop(params, x):
        for i in range(40):
            x = jnp.tanh(params[i % 5] * x + params[5] * 0.1)
        return x

    graph = jf.backprop(loop, [0.5 + 0.1 * i for i in range(6)], (1.0,))
    folded = graph.fold(20)
    assert len(folded.nodes) <= 20
    assert sum(node.operations for node in folded.nodes) == sum(node.operations for node in graph.nodes) == 160
    assert folded.gradients is graph.gradients


@pytest.mark.parametrize("boxes", [4, 7, 12, 30])
def test_folding_keeps_what_it_does_not_swallow(boxes):
    graph = graph_of("three layers on a batch", open=True)
    folded = graph.fold(boxes)
    assert len(folded.nodes) <= max(boxes, 5)
    before = {id(edge.value): edge for edge in graph.edges}
    for i, edge in enumerate(folded.edges):
        assert edge.gradient is before[id(edge.value)].gradient
        assert i in folded[edge.target].inputs and i in folded[edge.source].leaving
    names = [node.name for node in folded.nodes]
    assert all(names.index(edge.source) < names.index(edge.target) for edge in folded.edges)


def test_what_data_alone_decide_is_folded_first():
    folded = graph_of("cross entropy of labels").fold(24)
    operations = [node.name for node in folded.nodes if node.kind == "operation"]
    assert "matmul" in operations and "log_softmax" in operations and "one_hot" not in operations


def test_a_folded_graph_cannot_be_moved_along_an_edge():
    graph = graph_of("three layers on a batch").fold(8)
    with pytest.raises(ValueError, match="folded"):
        graph.along(0)
    with pytest.raises(ValueError, match="boxes is 2"):
        graph.fold(2)


# Other formats


def test_dot_and_mermaid_escape_what_labels_hold():
    with jax.named_scope("outer"):
        graph = jf.backprop(lambda p: p['a"b<c>'] * p["[d]|{e}"], {'a"b<c>': 2.0, "[d]|{e}": 3.0})
    dot, mermaid = graph.to_dot(), graph.to_mermaid()
    assert 'label="a\\"b<c>"' in dot and dot.count("->") == len(graph.edges)
    assert "#34;" in mermaid and mermaid.count("-->") == len(graph.edges)
    for line in mermaid.splitlines()[1:]:
        assert line.count('"') in (0, 2)
    assert dot.count("{") == dot.count("}") + dot.count("{e}") - dot.count("{e}")


def test_networkx_gets_every_node_and_edge(monkeypatch):
    class MultiDiGraph:
        def add_nodes_from(self, nodes):
            self.nodes = dict(nodes)

        def add_edges_from(self, edges):
            self.edges = list(edges)

    monkeypatch.setitem(sys.modules, "networkx", type("networkx", (), {"MultiDiGraph": MultiDiGraph}))
    graph = graph_of("product")
    made = graph.to_networkx()
    assert list(made.nodes) == [node.name for node in graph.nodes]
    assert made.edges[0][:2] == ("params", "multiply") and made.edges[0][2]["gradient"] == -20
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match="pip install networkx"):
        graph.to_networkx()


# Precision, and numbers that are none


def test_precision_is_that_of_the_call():
    assert graph_of("product").loss.dtype == np.float64
    assert jf.backprop(lambda p: p**2, 1.0).loss.dtype == np.float32
    assert not jax.config.jax_enable_x64


def test_numbers_that_are_not_finite_are_shown():
    graph = jf.backprop(lambda p, x: jnp.sum(p * x), np.nan, (np.array([1.0, np.inf]),))
    assert np.isnan(graph.loss) and "nan" in str(graph)


# Errors


def effect(p):
    jax.debug.print("{}", p)
    return p**2


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: jf.backprop(lambda p: p * 2, V), TypeError, "must return a scalar"),
        (lambda: jf.backprop(lambda p: jnp.argmax(p), V), TypeError, "must be a float"),
        (lambda: jf.backprop(lambda p: jnp.sum(p), np.array([1, 2])), TypeError, "array of integers.*astype"),
        (lambda: jf.backprop(effect, 1.0), TypeError, "test_graphs.py, line .*debug.print.*take it out"),
        (lambda: jf.backprop(lambda p: float(np.sin(p)), 1.0), TypeError, "jnp.sin"),
        (lambda: jf.backprop(lambda p: p if p > 0 else -p, 1.0), TypeError, "jnp.where"),
        (lambda: jf.backprop(lambda p: p * next(CHANGING), 1.0), TypeError, "not pure"),
        (lambda: jf.backprop(lambda p, x: p * x, 1.0, 2.0), TypeError, r"data=\(x, y\)|write data"),
        (lambda: jf.backprop(lambda p, x: p * x, 1.0), TypeError, "the loss takes"),
        (lambda: jf.backprop(3, 1.0), TypeError, "loss is 3"),
        (lambda: jf.backprop(lambda p: p, jf.Axis("p", [1.0, 2.0])), TypeError, "many runs"),
        (lambda: jf.backprop(noisy, 1.0, (X,)), ValueError, "key is None"),
        (lambda: jf.backprop(lambda p: p, 1.0, key=0), TypeError, "no argument named"),
        (lambda: jf.backprop(lambda p: p, 1.0, open="relu"), ValueError, "no call or scope.*none"),
        (lambda: jf.backprop(lambda p: p, 1.0, open=3), TypeError, "open is 3"),
        (lambda: jf.backprop(lambda p: p, 1.0, precision="half"), ValueError, "float32"),
        (lambda: jax.jit(lambda p: jf.backprop(lambda q: q**2, p).loss)(1.0), TypeError, "call it outside"),
        (lambda: jf.backprop(lambda p: p, {}), ValueError, "no leaf"),
        (lambda: graph_of("product")["nothing"], KeyError, "the names are"),
        (lambda: graph_of("integer inputs").along(99), ValueError, "no gradient"),
        (lambda: (g := graph_of("traced index")).along(g["i"].leaving[0]), ValueError, "no gradient"),
    ],
)  # fmt: skip
def test_errors_say_what_to_change(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_step_without_a_derivative_is_named():
    def loss(p):
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.pure_callback(lambda x: np.float32(x), shape, p) ** 2

    with pytest.raises(TypeError, match="'pure_callback' of the loss has no derivative.*custom_vjp"):
        jf.backprop(loss, 1.0)


def test_an_update_is_one_step_of_any_optimizer():
    loss, params = jf.losses.mse(jf.models.line), {"w": 1.0, "b": 0.0}
    graph = jf.backprop(loss, params, (X, Y))
    for optimizer in (jf.optimizers.adam(0.1), optax.sgd(0.3, momentum=0.9)):
        expected = jf.step(loss, params, (X, Y), optimizer=optimizer)[0]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), graph.update(optimizer), expected)
