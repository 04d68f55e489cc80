"""Robust curve fits whose scale comes from their own residuals: R's rlm, efficiency, coverage, outliers told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.verbs import curves
from tests.shared.soak import soaking

# Brownlee's stack loss data: 21 days; Brownlee (1965), Statistical Theory and Methodology, page 454
AIR = np.array([80, 80, 75, 62, 62, 62, 62, 62, 58, 58, 58, 58, 58, 58, 50, 50, 50, 50, 50, 56, 70.0])
WATER = np.array([27, 27, 25, 24, 22, 23, 24, 24, 23, 18, 18, 17, 18, 19, 18, 18, 19, 19, 20, 20, 20.0])
ACID = np.array([89, 88, 90, 87, 87, 87, 93, 93, 87, 80, 89, 88, 82, 93, 89, 86, 72, 79, 80, 82, 91.0])
LOSS = np.array([42, 37, 37, 28, 18, 18, 19, 20, 15, 14, 14, 13, 11, 12, 8, 7, 8, 8, 9, 15, 15.0])
X = np.linspace(0.0, 4.0, 40)


def plane(params, x):
    return params["b"] + x @ params["w"]


@pytest.fixture(scope="module")
def stack():
    start = {"b": 0.0, "w": np.zeros(3)}
    return jf.curve_fit(plane, start, (np.stack([AIR, WATER, ACID], 1), LOSS), loss="huber")


def test_huber_with_the_scale_of_its_residuals_is_rlm_of_r(stack):
    """R's MASS: rlm(stack.loss ~ ., stackloss) prints -41.0265, 0.8294, 0.9261, -0.1278 and a scale of 2.441, from
    steps that end at a change of 1e-4."""
    np.testing.assert_allclose(stack.params["b"], -41.0265, rtol=2e-4)
    np.testing.assert_allclose(stack.params["w"], [0.8294, 0.9261, -0.1278], rtol=2e-3)
    np.testing.assert_allclose(stack.problem.loss.delta / 1.345, 2.441, rtol=2e-3)


def test_outliers_are_told_and_residuals_come_in_scales(stack):
    own = jf.residuals(stack)
    scale = 1.4826 * np.median(np.abs(own.raw))
    np.testing.assert_allclose(own.standardized, own.raw / scale, rtol=1e-12)
    np.testing.assert_allclose(own.raw, LOSS - stack.predict(np.stack([AIR, WATER, ACID], 1)), rtol=1e-9)
    assert list(np.flatnonzero(np.abs(own.standardized) > 3.5)) == [20]
    assert "1 outlier lies beyond 3.5 times the scale of the residuals, 2.44: residual 20" in str(jf.report(stack))


def decay(params, x):
    return params["a"] * jnp.exp(-params["b"] * x)


def noisy(seed):
    rng = np.random.default_rng(seed)
    y = 3.0 * np.exp(-1.2 * X) + 0.05 * rng.normal(size=X.size)
    y[rng.choice(X.size, 5, replace=False)] += rng.uniform(1.0, 4.0, 5)
    return y


def test_tukey_from_a_poor_start_sets_outliers_aside_and_settles():
    y = noisy(0)
    fit = jf.curve_fit(decay, {"a": 1.0, "b": 0.3}, (X, y), loss="tukey")
    own = jf.residuals(fit)
    far = np.abs(own.standardized) > 3.5
    assert far.sum() == 5 and "5 outliers lie beyond 3.5 times the scale" in str(jf.report(fit))
    np.testing.assert_allclose(fit.problem.loss.delta, 4.685 * 1.4826 * np.median(np.abs(own.raw)), rtol=1e-5)
    error = jf.standard_errors(fit)
    assert abs(fit.params["a"] - 3.0) < 4 * error["a"] and abs(fit.params["b"] - 1.2) < 4 * error["b"]
    given = jf.curve_fit(decay, fit.params, (X, y), loss="tukey", delta=float(fit.problem.loss.delta))
    np.testing.assert_allclose(given.params["b"], fit.params["b"], rtol=1e-6)


@pytest.mark.parametrize("name", soaking(curves.ROBUST, keep=["tukey"]))
def test_the_multiples_of_the_scale_make_a_loss_nearly_as_efficient_as_squares(name):
    """E[psi']**2 / E[psi**2] of normal residuals is the ratio of the variances: 95 %."""
    make, multiple = curves.ROBUST[name]
    rho = make(jf.models.line, delta=multiple).blocks({"w": 0.0, "b": 0.0}, np.zeros(1), np.zeros(1))[0].rho
    r = np.linspace(-10.0, 10.0, 200_001)
    weight = np.exp(-(r**2) / 2) / np.sqrt(2 * np.pi) * 1e-4
    slope = np.asarray(jax.jit(jax.vmap(jax.grad(rho)))(r), float)
    bend = np.gradient(slope, r)
    assert np.sum(bend * weight) ** 2 / np.sum(slope**2 * weight) == pytest.approx(0.95, abs=0.002)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["huber", "tukey"])
def test_intervals_cover_under_heavy_tails(name):
    """Student's t with 3 degrees of freedom, 300 sets: 95 % within four binomial standard deviations (1.26 %), less 1 %
    that the estimated scale and the linear theory cost at 40 points."""
    rng, inside = np.random.default_rng(4), 0
    for _ in range(300):
        y = 3.0 * np.exp(-1.2 * X) + 0.05 * rng.standard_t(3, size=X.size)
        low, high = jf.intervals(jf.curve_fit(decay, {"a": 3.0, "b": 1.2}, (X, y), loss=name))["b"]
        inside += low <= 1.2 <= high
    assert abs(inside / 300 - 0.95) < 4 * 0.0126 + 0.01


def test_masked_points_count_for_nothing():
    y = np.ma.array(noisy(1), mask=X > 3)
    y.data[X > 3] = np.nan
    fit = jf.curve_fit(decay, {"a": 2.0, "b": 1.0}, (X, y), loss="huber")
    there = jf.curve_fit(decay, {"a": 2.0, "b": 1.0}, (X[X <= 3], y.data[X <= 3]), loss="huber")
    np.testing.assert_allclose(fit.params["b"], there.params["b"], rtol=1e-6)


def test_exact_data_are_fitted():
    exact = jf.curve_fit(decay, {"a": 2.0, "b": 1.0}, (X, 3.0 * np.exp(-1.2 * X)), loss="huber")
    np.testing.assert_allclose(exact.params["b"], 1.2, rtol=1e-9)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": "hubber"}, "loss is 'hubber'; did you mean huber"),
        ({"loss": "huber", "sigma": 0.1}, "sigma is given with the loss 'huber'"),
        ({"delta": 0.1}, 'delta is given, but the loss is "linear"'),
        ({"loss": "huber", "delta": -1.0}, "delta is -1.0; it must be positive"),
    ],
)
def test_what_does_not_go_together_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        jf.curve_fit(decay, {"a": 2.0, "b": 1.0}, (X, noisy(1)), **given)
