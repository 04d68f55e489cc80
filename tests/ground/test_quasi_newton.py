"""L-BFGS ends where no step can improve in the precision, and claims nothing elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from tests.shared import mgh
from tests.shared.soak import soaking

LBFGS = jf.optimizers.lbfgs()


def squares(name):
    residuals = mgh.PROBLEMS[name].residuals
    return lambda x: jnp.sum(residuals(x) ** 2)


@jax.custom_vjp
def once(x):
    """x, whose derivative is 1 and cannot be differentiated again by reverse mode."""
    return x


def _refuse(_, g):
    raise NotImplementedError("no second derivative")


once.defvjp(lambda x: (x, None), _refuse)


@jax.custom_vjp
def own_gradient(p):
    return jnp.sum((p - 1) ** 2) + 0.5


own_gradient.defvjp(lambda p: (own_gradient(p), p - 1), lambda kept, g: (once(2 * kept * g),))


@pytest.mark.parametrize("precision", soaking(["float64", "float32"], keep=("float64",)))
def test_a_least_value_of_zero_ends(precision):
    fit = jf.fit(squares("Rosenbrock"), np.array([-1.2, 1.0]), optimizer=LBFGS, steps=2000, precision=precision)
    eps = np.finfo(precision).eps
    assert fit.status == jf.Status.CONVERGED and fit.steps < 100
    assert fit.loss < 16 * 900 * eps**2  # 900 is p |H| p / 2 at (1, 1): what moving the params by their eps changes
    np.testing.assert_allclose(fit.params, 1, rtol=1e4 * eps)


# Also from a hundred times its start, where the loss is 1e34: what has fallen far may still be far from its least.
@pytest.mark.parametrize("name", soaking(mgh.PROBLEMS, keep=("Jennrich-Sampson",)))
def test_no_claim_is_false_on_problems_of_more_garbow_and_hillstrom(name):
    problem, loss = mgh.PROBLEMS[name], squares(name)
    for start in mgh.starts(problem):
        with jax.enable_x64(True):
            if not np.isfinite(loss(jnp.asarray(start))):
                continue
        fit = jf.fit(loss, start, optimizer=LBFGS, steps=3000, precision="float64", record=jf.Record(what=()))
        assert fit.status != jf.Status.CONVERGED or mgh.is_minimum(problem, fit.params), (start, fit.loss)


@pytest.mark.soak
def test_a_saddle_is_no_minimum():
    """Of Biggs' function, to which a run goes from its start, whose symmetry each step keeps."""
    problem = mgh.PROBLEMS["Biggs"]
    fit = jf.fit(squares("Biggs"), problem.start, optimizer=LBFGS, steps=100, precision="float64")
    np.testing.assert_allclose(fit.loss, problem.least[1], rtol=1e-5)
    assert fit.status == jf.Status.OUT_OF_STEPS and not mgh.is_minimum(problem, fit.params)
    assert jf.explain(fit).kind == "saddle"


@pytest.mark.parametrize("name", soaking(["Powell badly scaled", "Meyer", "Osborne 1"], keep=()))
def test_what_is_solved_is_said_to_be(name):
    problem = mgh.PROBLEMS[name]
    fit = jf.fit(squares(name), problem.start, optimizer=LBFGS, steps=3000, precision="float64")
    assert fit.status == jf.Status.CONVERGED
    np.testing.assert_allclose(fit.loss, problem.least[0], rtol=1e-5, atol=1e-25)


@pytest.mark.parametrize("factor", soaking([1, 100], keep=(1,)))
def test_more_params_than_are_probed_end_at_a_least_value_of_zero(factor):
    start = factor * np.tile([-1.2, 1.0], 40)
    loss = lambda x: jnp.sum(mgh.extended_rosenbrock(x) ** 2)  # noqa: E731
    fit = jf.fit(loss, start, optimizer=LBFGS, steps=400, precision="float64", record=jf.Record(what=()))
    assert fit.status == jf.Status.CONVERGED
    assert fit.loss < 16 * 40 * 900 * np.finfo(float).eps ** 2
    np.testing.assert_allclose(fit.params, 1, rtol=1e-11)


@pytest.mark.soak
def test_lanes_end_as_they_do_alone():
    starts = np.array([[-1.2, 1.0], [3.0, -2.0], [0.5, 4.0]])
    loss = squares("Rosenbrock")
    grid = jf.sweep(loss, jf.Axis("start", starts), optimizer=LBFGS, steps=300, precision="float64")
    assert (grid.results.status == jf.Status.CONVERGED).all() and (grid.results.loss < 1e-26).all()


@pytest.mark.soak
def test_a_bound_that_is_reached_does_not_keep_it_from_ending():
    start = jf.Bounded(np.array([-1.2, 0.4]), -2.0, 0.5)
    fit = jf.fit(squares("Rosenbrock"), start, optimizer=LBFGS, steps=500, precision="float64")
    assert fit.status == jf.Status.CONVERGED  # at x = .5, y = x**2: the loss is .25
    np.testing.assert_allclose(fit.params, [0.5, 0.25], rtol=1e-7)


@pytest.mark.soak
def test_a_runaway_param_is_no_minimum():
    loss = jf.losses.mse(lambda p, x: jnp.exp(-p["k"] * x) + 1)
    x = np.array([1.0, 2.0, 3.0])
    fit = jf.fit(loss, {"k": 1.0}, (x, np.full(3, 0.5)), optimizer=LBFGS, steps=300, precision="float64")
    assert fit.status != jf.Status.CONVERGED  # the loss falls as long as k grows


@pytest.mark.soak
def test_a_gradient_without_a_second_derivative_still_ends():
    fit = jf.fit(own_gradient, np.array([3.0, -2.0]), optimizer=LBFGS, steps=300, precision="float64")
    assert fit.status == jf.Status.CONVERGED
    np.testing.assert_allclose(fit.params, [1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize(("start", "scale", "precision"), [(1e15, 1.0, "float32"), (1e30, 1e30, "float64")])
def test_a_start_far_beyond_the_minimum_is_not_the_end_at_zero(start, scale, precision):
    """The first step leads to zero, as far as the start's size can tell; the least of scale * (p - 3)**2 is at 3."""
    fit = jf.fit(lambda p: scale * (p - 3) ** 2, start, optimizer=jf.optimizers.lbfgs(), steps=20, precision=precision)
    arrived = bool(abs(fit.params - 3) < 8 * np.finfo(precision).eps)
    assert fit.status == (jf.Status.CONVERGED if arrived else jf.Status.OUT_OF_STEPS)
    # In float32 the square of the first gradient overflows where XLA does not take its root at once: no step is made.
    assert arrived or precision == "float32"
