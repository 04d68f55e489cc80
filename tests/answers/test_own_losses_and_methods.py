"""A loss and a method of one's own, each one class, do all that jaxfit's do: fits, sweeps, statistics, reports."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.losses.base import LIKELIHOOD, NoiseModel, leaves_of
from jaxfit.losses.regression import OfPredictions, mean_of_rows, predicted, read, zero_where_masked
from jaxfit.optimizers.methods import Proposal, Traits


@leaves_of()
@dataclass(frozen=True, eq=False, repr=False)
class Poisson(OfPredictions):
    """mean(exp(p) - y p), p being the prediction: the negative log-likelihood of counts y whose mean is exp(p)."""

    def __call__(self, params, *data, key=None):
        x, y, where = read(self, data)
        log_mean = predicted(self, params, x, key)
        return mean_of_rows(zero_where_masked(jnp.exp(log_mean) - y * log_mean, where), where)

    def noise_model(self):
        return NoiseModel(LIKELIHOOD)

    def __repr__(self):
        return "poisson(rate)"


class Newton(NamedTuple):
    """Newton's method with a damping added to the Hessian; it has converged when a step is short."""

    damping: jax.Array

    traits = Traits(judges=True, deterministic=True, precision="float64", chunk=4)

    def init(self, objective, params):
        return ()

    def step(self, objective, params, memory):
        flat, back = jax.flatten_util.ravel_pytree(params)
        loss, gradient = jax.value_and_grad(lambda p: objective(back(p)))(flat)
        hessian = jax.hessian(lambda p: objective(back(p)))(flat) + self.damping * jnp.eye(flat.size)
        step = -jnp.linalg.solve(hessian, gradient)
        return Proposal(loss, back(gradient), back(flat + step), memory, jnp.linalg.norm(step) < 1e-9)


def rate(params, x):
    return params["a"] + params["b"] * x


X = np.linspace(-1, 1, 40)
DATA = X, np.random.default_rng(0).poisson(np.exp(0.8 + 0.6 * X))
START = {"a": 0.0, "b": 0.0}
LOSS = Poisson(rate, False)
NEWTON = jf.optimizer(Newton, damping=0.0)


@pytest.fixture(scope="module")
def fit():
    return jf.fit(LOSS, START, DATA, optimizer=NEWTON, steps=50)


def test_the_fit_solves_the_equations_of_the_likelihood_and_the_method_says_when(fit):
    assert fit.status == jf.Status.CONVERGED and fit.precision == "float64"
    excess = np.exp(rate(fit.params, X)) - DATA[1]
    np.testing.assert_allclose([excess.sum(), excess @ X], 0, atol=1e-10)


def test_errors_are_those_of_the_fisher_information(fit):
    design = np.stack([np.ones_like(X), X], axis=1)
    information = design.T @ (np.exp(rate(fit.params, X))[:, None] * design)
    expected = np.sqrt(np.diag(np.linalg.inv(information)))
    np.testing.assert_allclose(list(jf.standard_errors(fit).values()), expected, rtol=1e-9)


def test_its_report_says_where_the_errors_come_from(fit):
    text = str(jf.report(fit))
    assert "the curvature of the likelihood" in text and "poisson(rate)" in text and "40 rows, 2 of 2" in text


@pytest.mark.soak
def test_a_run_that_needs_nothing_is_explained(fit):
    assert jf.explain(fit).kind == "converged"


@pytest.mark.soak
def test_lanes_of_a_sweep_end_where_the_fit_does(fit):
    damped = jf.optimizer(Newton, damping=jf.Axis("damping", [0.0, 0.1, 1.0]))
    grid = jf.sweep(LOSS, START, DATA, optimizer=damped, steps=200)
    assert (grid.results.status == jf.Status.CONVERGED).all()
    assert list(np.argsort(grid.results.steps)) == [0, 1, 2]
    np.testing.assert_allclose(grid.results["params.b"], fit.params["b"], atol=1e-7)
    errors = jf.standard_errors(grid)
    np.testing.assert_allclose(errors["params.b"], jf.standard_errors(fit)["b"], rtol=1e-6)


@pytest.mark.soak
def test_a_masked_row_counts_for_nothing(fit):
    x, y = np.append(X, np.nan), np.append(DATA[1], 10**6)
    masked = jf.fit(Poisson(rate, True), START, (x, y, np.isfinite(x)), optimizer=NEWTON, steps=50)
    np.testing.assert_allclose(masked.params["a"], fit.params["a"], rtol=1e-9)


def test_batches_are_refused_for_a_method_that_compares_steps():
    with pytest.raises(ValueError, match="Newton compares the losses of different steps"):
        jf.fit(LOSS, START, DATA, optimizer=NEWTON, steps=5, batches=jf.Batches(size=8), key=0)


def test_a_method_of_its_own_is_no_part_of_another_optimizer():
    with pytest.raises(TypeError, match="each: Newton moves the params in its own way"):
        jf.optimizers.each(a=NEWTON, b=jf.optimizers.sgd(0.1))


def test_a_loss_without_a_noise_model_fits_but_has_no_errors():
    class Silent(Poisson):
        def noise_model(self):
            return NoiseModel(why_unknown="nothing is known of this noise")

    silent = jf.fit(leaves_of()(Silent)(rate, False), START, DATA, optimizer=NEWTON, steps=50)
    assert silent.status == jf.Status.CONVERGED
    with pytest.raises(TypeError, match="covariance: nothing is known of this noise"):
        jf.covariance(silent)
