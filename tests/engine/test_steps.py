"""The seam for methods that are not gradient transformations: `init`, `step`, and a verdict of their own."""

from typing import NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.engine.settings import using
from jaxfit.optimizers.methods import Proposal, Traits


class Newton(NamedTuple):
    """Solves for the zero of the gradient with the whole Hessian; judges by the size of its step."""

    damping: jax.Array

    def init(self, objective, params):
        return jnp.zeros(())

    def step(self, objective, params, memory):
        flat, back = jax.flatten_util.ravel_pytree(params)
        loss, grads = jax.value_and_grad(lambda p: objective(back(p)))(flat)
        hessian = jax.hessian(lambda p: objective(back(p)))(flat) + self.damping * jnp.eye(flat.size)
        move = -jnp.linalg.solve(hessian, grads)
        converged = jnp.linalg.norm(move) < 1e-4
        return Proposal(loss, back(grads), back(flat + move), memory + 1, converged)


def newton(damping):
    return Newton(damping)


newton.traits = Traits(judges=True)


@pytest.fixture
def line():
    t_u, t_c = jf.datasets.thermometer()
    return jf.losses.mse(jf.models.line), {"w": 1.0, "b": 0.0}, (0.1 * t_u, t_c), np.polyfit(0.1 * t_u, t_c, 1)


def test_a_method_of_ones_own_runs_in_fit_and_is_judged_by_itself(line):
    loss, start, data, (slope, intercept) = line
    fit = jf.fit(loss, start, data, optimizer=jf.optimizer(newton, damping=0.0), steps=50, precision="float64")
    assert fit.status == jf.Status.CONVERGED and 1 <= fit.steps <= 3
    np.testing.assert_allclose([fit.params["w"], fit.params["b"]], [slope, intercept], rtol=1e-9)


@pytest.mark.soak
def test_a_method_of_ones_own_sweeps_over_its_numbers(line):
    loss, start, data, (slope, _) = line
    damping = jf.Axis("damping", [0.0, 0.1, 1.0])
    grid = jf.sweep(loss, start, data, optimizer=jf.optimizer(newton, damping=damping), steps=500, precision="float64")
    assert (grid.results.status == jf.Status.CONVERGED).all()
    assert (np.diff(grid.results.steps) > 0).all()  # the more damped, the slower
    np.testing.assert_allclose(grid.results["params.w"], slope, rtol=1e-3)


def test_a_method_of_ones_own_takes_a_single_step(line):
    loss, start, data, (slope, _) = line
    taken = jf.step(loss, start, data, optimizer=jf.optimizer(newton, damping=0.0), precision="float64")
    np.testing.assert_allclose(taken.params["w"], slope, rtol=1e-9)
    assert taken.opt_state == 1


@pytest.mark.parametrize("every", [1, pytest.param(3, marks=pytest.mark.soak)])
def test_the_records_of_a_fit_do_not_depend_on_how_its_steps_are_cut(every):
    x, random = np.linspace(-1, 1, 37), np.random.default_rng(0)
    kept = jf.Record(what=("loss", "gradient_norm", "preconditioner"), every=every)
    rule = {"steps": 2000, "stop": jf.Stop(gradient_norm_below=1e-3), "record": kept}
    for rate in np.linspace(0.03, 0.1, 8):
        y, found = 2 * x + 0.3 * random.normal(size=37), []
        for most in (1, 7, 100_000):
            with using(stretch_steps=most):
                adam = jf.optimizers.adam(rate)
                found.append(
                    jf.fit(jf.losses.mse(jf.models.line), {"w": 0.0, "b": 0.0}, (x, y), optimizer=adam, **rule)
                )
        assert found[0].status == jf.Status.CONVERGED
        for other in found[1:]:
            np.testing.assert_array_equal(other.history.loss, found[0].history.loss)
            np.testing.assert_array_equal(other.history.gradient_norm, found[0].history.gradient_norm)
            one, two = (jax.tree.leaves(run.history["preconditioner"]) for run in (other, found[0]))
            for a, b in zip(one, two, strict=True):
                np.testing.assert_array_equal(a, b)
