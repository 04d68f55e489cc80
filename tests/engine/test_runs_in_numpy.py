"""A single run whose steps are made in NumPy ends as the compiled one: status, steps, history, params to rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.engine.settings import counting, using
from jaxfit.optimizers import arrays
from tests.shared.soak import soaking

X = np.linspace(0, 10, 40)
Y = 3 * np.exp(-X / 2) + 0.5 + 0.05 * np.random.default_rng(0).normal(size=40)
Y[5] += 2
START = {"a": 1.0, "t": 1.0, "c": 0.0}
LM = jf.optimizers.levenberg_marquardt()


def decay(p, x):
    return p["a"] * jnp.exp(-x / p["t"]) + p["c"]


def two_heights(p, x):
    return decay(p | {"a": p["a"] + p["e"]}, x)


def polynomial(p, x):
    return jnp.polyval(p, x / 5 - 1)


CASES = {  # loss, start, data
    "squares": (jf.losses.rss(decay), START, (X, Y)),
    "bound": (jf.losses.rss(decay), START | {"t": jf.Bounded(1.0, 0.1, 1.5)}, (X, Y)),
    "on a bound": (
        jf.losses.rss(decay),
        START | {"t": jf.Bounded(1.0, 1.0, 5.0), "c": jf.Bounded(0.0, 0, 0.1)},
        (X, Y),
    ),
    "tied": (jf.losses.rss(decay), START | {"c": jf.Tied(lambda p: p["a"] / 6)}, (X, Y)),
    "fixed": (jf.losses.rss(decay), START | {"c": jf.Fixed(0.5)}, (X, Y)),
    "robust": (jf.losses.cauchy(decay, delta=0.1), START, (X, Y)),
    "masked": (jf.losses.mse(decay, masked=True), START, (X, Y, np.arange(40) != 5)),
    "covariance": (jf.losses.chi_squared(decay), START, (X, Y, np.diag(np.linspace(0.01, 0.02, 40)))),
    "not determined": (jf.losses.rss(two_heights), START | {"e": 0.0}, (X, Y)),
    "without influence": (jf.losses.rss(decay), START | {"a": 0.0}, (X, Y)),
    "all zero": (jf.losses.rss(lambda p, x: p["a"] * jnp.exp(-x / p["t"])), {"a": 1.0, "t": 2.0}, (X, 0 * Y)),
    "few points": (jf.losses.rss(decay), START, (X[:2], Y[:2])),
    "two blocks": (jf.losses.rss(decay) + jf.losses.l2(0.1), START, (X, Y)),
    "many params": (jf.losses.rss(polynomial), np.zeros(9), (X, Y)),
    "ill conditioned": (jf.losses.rss(polynomial), np.zeros(9), (X / 2 + 5, Y)),
    "far away": (jf.losses.rss(decay), {"a": 1e6, "t": 1e-3, "c": 1e3}, (X, Y)),
}


def both_ways(loss, start, data, **given):
    """The run in NumPy, and compiled."""
    runs = []
    for most in (2**20, 0):
        with using(numpy_numbers=most), counting() as events:
            runs.append(jf.fit(loss, start, data, optimizer=LM, **given))
        assert ("segment" in events["program"]) == (most == 0) or not events["program"]
    return runs


KINDS = [(name, kind) for name in CASES for kind in ("float64", "float32")]
KINDS.remove(("ill conditioned", "float32"))  # rounding decides in which step it ends


@pytest.mark.parametrize(("name", "precision"), soaking(KINDS, keep=[("on a bound", "float64")], names=2))
def test_it_ends_as_the_compiled_run_does(name, precision):
    loss, start, data = CASES[name]
    found, expected = both_ways(loss, start, data, precision=precision)
    assert (found.status, found.steps) == (expected.status, expected.steps)
    assert jax.tree.map(lambda x: (type(x), x.dtype), found.params) == jax.tree.map(
        lambda x: (type(x), x.dtype), expected.params
    )
    # Residuals are rounded as y is, and after a step as they were before it: here 13 times, 60 in the worst condition.
    norms, other = (np.sqrt(np.float64(run.history.loss)) for run in (found, expected))
    rounded = np.finfo(precision).eps * (np.linalg.norm(data[1]) + np.append(other[0], other[:-1]))
    assert np.all(abs(norms - other) <= 1000 * rounded)
    assert found.loss.dtype == expected.loss.dtype and found.history.loss[-1] == found.loss


def test_the_only_program_is_that_of_the_residuals_and_their_slopes():
    def own(p, x):
        return p["a"] * x**2 + p["b"]

    with counting() as events:
        run = jf.curve_fit(own, {"a": 1.0, "b": 0.0}, (X, 2 * X**2 + 1))
        jf.curve_fit(own, {"a": 3.0, "b": 1.0}, (X, X**2))
    assert events["program"] == ["linearize"] and run.status == jf.Status.CONVERGED


@pytest.mark.soak
@pytest.mark.parametrize(
    "given",
    [
        {"stop": jf.Stop(loss_below=5.0)},
        {"record": jf.Record(what=("loss", "params"))},
        {"validation": (X[:9], Y[:9])},
    ],
)
def test_rules_and_records_are_left_to_the_compiled_run(given):
    with counting() as events:
        run = jf.fit(jf.losses.rss(decay), START, (X, Y), optimizer=LM, **given)
    assert "segment" in events["program"] and run.steps > 0


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("steps", [1, 4, 6, 100])
def test_the_history_has_the_record_of_every_so_many_steps(every, steps):
    loss, whole = jf.losses.rss(decay), jf.fit(jf.losses.rss(decay), START, (X, Y), optimizer=LM)
    run = jf.fit(loss, START, (X, Y), optimizer=LM, steps=steps, record=jf.Record(every=every))
    assert run.steps == min(steps, whole.steps)
    assert run.status == (jf.Status.CONVERGED if steps == 100 else jf.Status.OUT_OF_STEPS)
    assert run.history.step.tolist() == list(range(0, run.steps + 1, every))
    assert run.history.loss.tolist() == whole.history.loss[: run.steps + 1 : every].tolist()
    assert run.loss == whole.history.loss[run.steps]


def test_stretches_do_not_change_the_run():
    whole = jf.fit(jf.losses.rss(decay), START, (X, Y), optimizer=LM)
    with using(stretch_steps=2):
        run = jf.fit(jf.losses.rss(decay), START, (X, Y), optimizer=LM)
    assert run.params == whole.params and run.history.loss.tolist() == whole.history.loss.tolist()
    assert (run.steps, run.status) == (whole.steps, whole.status)


def test_a_loss_that_becomes_infinite_or_nan_is_refused_at_the_start_without_a_warning():
    with pytest.raises(ValueError, match="the loss at the start is nan"):
        jf.fit(jf.losses.rss(lambda p, x: jnp.log(p - x)), 5.0, (X, Y), optimizer=LM)


def test_a_run_goes_on_in_numpy_with_more_steps():
    loss = jf.losses.rss(decay)
    whole, short = (jf.fit(loss, START, (X, Y), optimizer=LM, steps=steps) for steps in (100, 3))
    longer = jf.resume(short, 100)
    assert longer.params == whole.params and longer.history.loss.tolist() == whole.history.loss.tolist()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_plain_numbers_decide_as_arrays_do(kind):
    numbers = [kind(x) for x in (np.nan, np.inf, -np.inf, -1.0, 0.0, 0.1, 2.0, np.finfo(kind).max)]
    with np.errstate(all="ignore"):
        for a in numbers:
            _assert_same(arrays.root(a), np.sqrt(a))
            for b in numbers:
                _assert_same(arrays.maximum(a, b), np.maximum(a, b))
                _assert_same(arrays.minimum(a, b), np.minimum(a, b))
                pair = np.array([[a, b], [b, a]])
                assert arrays.are_finite(pair, (0, 1)) == np.isfinite(pair).all()
                assert arrays.holds(pair[0]) == pair[0].all()


def _assert_same(found, expected):
    assert found.dtype == expected.dtype and np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_triangle_is_solved_with_zeros_where_a_pivot_is_zero(kind):
    triangle = np.array([[2, 1, 3], [0, 0, 0], [0, 0, 4]], kind)
    found = arrays.solve(triangle, np.array([7, 5, 8], kind))
    assert found.dtype == kind and found.tolist() == [0.5, 0, 2]
