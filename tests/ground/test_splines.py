"""Splines with given knots, against SciPy's."""

import jax
import numpy as np
import pytest
from scipy.interpolate import BSpline, make_lsq_spline

import jaxfit as jf
from tests.shared.soak import soaking

KNOTS = np.array([-1.0, 0.0, 0.3, 2.0, 2.5, 5.0])
M = jf.models


def of_scipy(knots, coefficients, degree):
    return BSpline(np.r_[[knots[0]] * degree, knots, [knots[-1]] * degree], coefficients, degree)


@pytest.mark.parametrize("degree", soaking([0, 1, 2, 3, 5], keep=(3,)))
def test_a_spline_has_the_values_and_slopes_of_scipys(degree):
    """Also at the knots, and outside of them."""
    model, rng = M.spline(KNOTS, degree), np.random.default_rng(degree)
    c = rng.normal(size=len(KNOTS) - 1 + degree)
    x = np.r_[KNOTS, rng.uniform(-1, 5, 100), -1.2, 5.3]
    with jax.enable_x64(True):
        found, slopes = jax.jit(jax.vmap(jax.value_and_grad(model, argnums=1), (None, 0)))({"coefficients": c}, x)
    np.testing.assert_allclose(found, of_scipy(KNOTS, c, degree)(x), rtol=1e-12, atol=1e-12)  # of about 1, by sums
    if degree > 1:  # the slope of degree 1 jumps at a knot
        np.testing.assert_allclose(slopes, of_scipy(KNOTS, c, degree)(x, 1), rtol=1e-11, atol=1e-11)  # over spacings
    assert model.init(0)["coefficients"].shape == c.shape


def data(count=80):
    x = np.linspace(-1, 5, count)
    return x, np.sin(2 * x) + 0.05 * np.random.default_rng(0).normal(size=count)


def test_a_fit_is_scipys_least_squares_and_so_is_the_guess():
    x, y = data()
    theirs = make_lsq_spline(x, y, np.r_[[-1.0] * 3, KNOTS, [5.0] * 3], 3)
    fit = jf.curve_fit(M.spline(KNOTS), None, (x, y))
    assert fit.status == jf.Status.CONVERGED
    np.testing.assert_allclose(fit.params["coefficients"], theirs.c, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(M.spline(KNOTS).guess(x, y)["coefficients"], theirs.c, rtol=1e-6, atol=1e-6)


@pytest.mark.soak
def test_a_peak_is_found_on_a_spline_as_its_background():
    x, y = data(200)
    fit = jf.curve_fit(M.gaussian + M.spline([-1.0, 2.0, 5.0]), None, (x, 0.3 * y + 4 * np.exp(-50 * (x - 1) ** 2)))
    assert fit.params["center"] == pytest.approx(1, abs=0.02) and fit.params["sigma"] == pytest.approx(0.1, abs=0.02)


@pytest.mark.soak
def test_a_step_on_a_spline_rises_since_the_spline_is_a_level():
    x, y = data()
    found = (M.smooth_step + M.spline([-1.0, 5.0])).guess(x, 0.1 * y - 3 * (x > 2))
    assert found["height"] > 0 and found["sigma"] < 0


@pytest.mark.soak
def test_a_number_and_an_array_of_any_shape_are_points_of_a_spline():
    model, params = M.spline(KNOTS, 2), {"coefficients": np.arange(7.0)}
    assert model(params, 1) == model(params, np.full((1, 2), 1.0))[0, 1]


def test_equal_knots_give_equal_models_that_never_compile_anew():
    assert M.spline(KNOTS.tolist()) == M.spline(KNOTS) and hash(M.spline(KNOTS)) == hash(M.spline(KNOTS, 3))
    assert str(M.spline([0, 1, 2.5, 4], 2)) == "spline([0, 1, 2.5, ...], 2)"


@pytest.mark.soak
def test_a_point_that_does_not_count_may_lie_outside_of_the_knots():
    x, y = data()
    x[0] = -9
    found = M.spline(KNOTS).guess(x, y, where=x >= -1)
    np.testing.assert_allclose(
        found["coefficients"], M.spline(KNOTS).guess(x[1:], y[1:])["coefficients"], rtol=1e-6, atol=1e-6
    )
