"""Sums made in one pass: which are, and that they are the same sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.engine import compiling
from jaxfit.engine.compiling import fast_sums
from jaxfit.engine.settings import using
from jaxfit.engine.single import prepare
from tests.shared.soak import soaking

X = jnp.linspace(-1.0, 1.0, 11)
Y = jnp.cos(3 * X)


@pytest.fixture(autouse=True)
def with_any_version():
    if jax.default_backend() != "cpu":
        pytest.skip("sums are made together on a CPU alone")
    with using(joint_sums=True):
        yield


def reductions(function, *args):
    """How many sums a function makes, and how many of them are of several arrays."""
    program = str(jax.make_jaxpr(function)(*args))
    return program.count("= reduce_sum["), program.count("= reduce[")


def mse(params, x, y):
    return jnp.mean((params["w"] * x + params["b"] - y) ** 2)


def step(params, x, y):
    loss, grads = jax.value_and_grad(mse)(params, x, y)
    return loss, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)


START = {"w": 0.3, "b": -0.2}


def test_a_loss_and_its_gradient_are_one_pass_and_the_same_numbers():
    assert reductions(step, START, X, Y) == (3, 0)
    assert reductions(fast_sums(step), START, X, Y) == (0, 1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        jax.jit(fast_sums(step))(START, X, Y),
        step(START, X, Y),
    )


def test_a_sum_that_nobody_reads_is_not_made():
    def updated(*args):
        return step(*args)[1]

    program = jax.make_jaxpr(fast_sums(updated))(START, X, Y)
    (together,) = (e for e in program.eqns if e.primitive.name == "reduce")
    assert len(together.outvars) == 2  # of w and b, and not of the loss


def test_lanes_side_by_side_each_have_their_own_sums():
    lanes = {"w": jnp.arange(5.0), "b": -jnp.arange(5.0)}
    many = jax.vmap(fast_sums(step), in_axes=(0, None, None))
    assert reductions(many, lanes, X, Y) == (0, 1)
    found = jax.jit(many)(lanes, X, Y)
    for k in range(5):
        alone = step(jax.tree.map(lambda v, k=k: v[k], lanes), X, Y)
        jax.tree.map(lambda a, b, k=k: np.testing.assert_allclose(a[k], b, rtol=1e-6, atol=1e-7), found, alone)


def variance(x):
    return jnp.sum((x - jnp.sum(x) / x.size) ** 2) / x.size


APART = {
    "one depends on the other": (lambda x: variance(x), 2),
    "of nothing in common": (lambda x: (x.sum(), jnp.sin(X).sum()), 2),
    "over other axes": (lambda x: ((a := jnp.outer(x, x)).sum(0).max(), a.sum(1).max()), 2),
    "of another type": (lambda x: (x.sum(), x.astype(jnp.int32).sum()), 2),
}


@pytest.mark.parametrize("case", APART)
def test_other_sums_stay_apart(case):
    function, count = APART[case]
    assert reductions(fast_sums(function), X) == (count, 0)
    jax.tree.map(np.testing.assert_array_equal, fast_sums(function)(X), function(X))


def test_an_inner_jit_called_twice_is_followed_each_time():
    inner = jax.jit(lambda x, p: (jnp.sum(x * p), x + 1))

    def function(x):
        a, y = inner(x, 2.0)
        b, _ = inner(y, a)
        return a, b, jnp.sum(y * x)

    assert reductions(fast_sums(function), X) == (1, 1)  # a with the last; b depends on a
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), fast_sums(function)(X), function(X))


def test_what_prints_on_the_way_still_does(capsys):
    def function(x):
        jax.debug.print("sum {}", jnp.sum(x))
        return jnp.sum(x), jnp.sum(2 * x)

    jax.block_until_ready(jax.jit(fast_sums(function))(X))
    jax.effects_barrier()
    assert "sum " in capsys.readouterr().out


def test_loops_branches_and_rules_of_differentiation_on_the_way():
    @jax.custom_jvp
    def soft(x):
        return jnp.log1p(jnp.exp(x))

    soft.defjvp(lambda primals, tangents: (soft(*primals), jax.nn.sigmoid(primals[0]) * tangents[0]))

    def loss(w, x):
        h = jax.lax.fori_loop(0, 3, lambda _, h: soft(w * h), x)
        return jnp.sum(jax.lax.cond(w > 0, jnp.sin, jnp.cos, h) ** 2)

    def function(w, x):
        return loss(w, x), jax.grad(lambda w: jnp.sum(soft(w * x) ** 2))(w)

    np.testing.assert_allclose(jax.jit(fast_sums(function))(0.7, X), function(0.7, X), rtol=1e-6)


LM = jf.optimizers.levenberg_marquardt()
RUNS = {
    "a line": (jf.losses.mse, jf.models.line, {"w": 0.0, "b": 0.0}, jf.optimizers.sgd(0.1)),
    "a logistic curve": (
        jf.losses.mse, jf.models.logistic, {"capacity": 1.0, "rate": 2.0, "midpoint": 0.1}, jf.optimizers.adam(0.05),
    ),
    "least squares": (jf.losses.rss, jf.models.line, {"w": 0.0, "b": 0.0}, LM),
}  # fmt: skip


@pytest.mark.parametrize("case", soaking(RUNS, keep=("a line",)))
def test_a_fit_is_the_same_within_rounding(case):
    loss, model, start, optimizer = RUNS[case]
    found = {}
    for worth in (True, False):
        with using(joint_sums=worth):
            found[worth] = jf.fit(loss(model), start, (X, Y), optimizer=optimizer, steps=20)
    assert found[True].steps == found[False].steps
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found[True].params, found[False].params)


LENGTHS = [(5,), (256,), (257,), (3000,), (2**20 + 3,), (40, 70), (3, 2500), (2500, 3), (2, 1500, 3)]


@pytest.mark.parametrize("together", soaking([True, False], keep=1))
def test_long_sums_of_single_precision_keep_their_digits(together):
    for shape in LENGTHS:
        first, last, whole = (0,), (len(shape) - 1,), tuple(range(len(shape)))
        for axes in {first, last, whole}:
            x = np.full(shape, 0.1, np.float32)  # equal numbers, whose roundings add up
            exact = x.astype(np.float64)
            program = fast_sums(lambda x, axes=axes: (jnp.sum(x * x, axes), jnp.sum(3 * x, axes)))
            with using(joint_sums=together):
                squares, triples = jax.jit(program, compiler_options=compiling.compiler_options("cpu"))(x)
            joined = not together and len(axes) > 1  # LLVM may make one loop of those over two axes
            np.testing.assert_allclose(squares, (exact**2).sum(axes), rtol=5e-5 if joined else 5e-6)
            np.testing.assert_allclose(triples, (3 * exact).sum(axes), rtol=5e-5 if joined else 5e-6)


def test_a_sum_is_compiled_as_a_plain_loop():
    fit = jf.fit(
        lambda p, x: jnp.sum((p - x) ** 2) / 40, 0.0, (jnp.ones(40),), optimizer=jf.optimizers.sgd(0.1), steps=2
    )
    with using(joint_sums=False):  # of several operands XLA makes one anyway
        programs, leaves = prepare(fit.training, "float32")
        state = programs.begin(leaves)
        program = programs.plain.lower(leaves, state, np.int32(0), np.int32(2)).compile().as_text()
    assert "reduce(" in program and "reduce-window" not in program
