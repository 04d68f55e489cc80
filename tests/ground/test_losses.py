"""Losses against NumPy and finite differences, with and without masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxfit import datasets, losses
from jaxfit.models import line, polynomial
from tests.shared.loss_cases import (
    CASES,
    CLASSES,
    EVERY,
    EVERY_RESIDUAL,
    EXPECTED,
    GRID,
    INSIDE,
    LABELS,
    MAKERS,
    PARAMS,
    RESIDUALS,
    SHARES,
    T_C,
    T_U,
    WEIGHTS,
    WHERE,
    X,
)
from tests.shared.soak import soaking


@pytest.mark.parametrize("name", CASES)
def test_a_loss_is_its_formula_with_and_without_jit(name):
    loss, params, data = CASES[name]
    for evaluate in (loss, jax.jit(loss)):
        value = evaluate(params, *data)
        assert value.shape == () and float(value) == pytest.approx(EXPECTED[name], rel=1e-5)
    assert 2 < INSIDE.sum() < 9  # both branches of the Huber loss are tried


@EVERY
def test_a_gradient_agrees_with_finite_differences(loss, params, data):
    with jax.enable_x64(True):
        flat, unravel = ravel_pytree(jax.tree.map(lambda p: jnp.asarray(p, float), params))
        flat, shifts = np.asarray(flat), 1e-6 * np.eye(flat.size)
        values = jax.jit(jax.vmap(lambda p: loss(unravel(p), *data)))
        up, down = (np.asarray(values(flat[None] + sign * shifts)) for sign in (1, -1))
        found = jax.jit(jax.grad(lambda p: loss(unravel(p), *data)))(flat)
        np.testing.assert_allclose(found, (up - down) / 2e-6, rtol=1e-6, atol=1e-7)


@EVERY
def test_a_lane_of_many_params_has_the_value_it_has_alone(loss, params, data):
    params = jax.tree.map(lambda p: np.asarray(p, np.float32), params)
    many = jax.tree.map(lambda p: np.stack([p, 2 * p]), params)
    values = jax.jit(jax.vmap(lambda p: loss(p, *data)))(many)
    np.testing.assert_allclose(values[0], loss(params, *data), rtol=1e-5)
    assert values[0] != values[1]


def test_the_thermometer_has_the_printed_loss_and_slopes_at_the_start():
    value, grads = jax.value_and_grad(losses.mse(line))({"w": 1.0, "b": 0.0}, T_U, T_C)
    assert float(value) == pytest.approx(1763.8846, abs=1e-3)
    assert [float(grads["w"]), float(grads["b"])] == pytest.approx([4517.2964, 82.6], rel=1e-5)


@EVERY_RESIDUAL
def test_residuals_are_prediction_minus_target(make):
    np.testing.assert_allclose(make(line).residuals(PARAMS, X, T_C), RESIDUALS, rtol=1e-4, atol=1e-5)


def test_the_huber_loss_tends_to_half_the_squares_and_to_the_absolute_values():
    wide, narrow = losses.huber(line, delta=1e3)(PARAMS, X, T_C), losses.huber(line, delta=1e-3)(PARAMS, X, T_C)
    assert float(wide) == pytest.approx(EXPECTED["mse"] / 2, rel=1e-5)
    assert float(narrow) / 1e-3 == pytest.approx(EXPECTED["mae"], rel=1e-3)


def test_smoothness_is_free_for_straight_lines_and_strength_times_the_squared_second_derivative_for_parabolas():
    for x in (GRID, np.linspace(0, 1, 21)):
        penalty = jax.jit(losses.smoothness(polynomial(2), strength=0.5, x=x))
        assert float(penalty({"coefficients": np.array([4.0, -3.0, 0.0])})) == pytest.approx(0, abs=1e-5)
        assert float(penalty({"coefficients": np.array([4.0, -3.0, 1.5])})) == pytest.approx(0.5 * 3.0**2, rel=1e-3)


def test_on_a_grid_of_spacing_one_smoothness_is_the_mean_squared_second_difference():
    y = np.random.default_rng(1).normal(size=(9, 2))
    penalty = losses.smoothness(lambda params, x: params, strength=2.0, x=np.arange(9))
    assert float(jax.jit(penalty)(y)) == pytest.approx(2 * np.mean(np.diff(y, 2, axis=0) ** 2), rel=1e-5)


def test_cross_entropy_of_a_class_ruled_out_by_an_infinite_logit_is_finite_with_its_gradient():
    def ruled_out(params, x):
        return jnp.stack([params * x, x, jnp.full_like(x, -jnp.inf)], axis=1)

    for y in (np.array([0, 1]), np.eye(3)[[0, 1]]):
        both = jax.jit(jax.value_and_grad(losses.softmax_cross_entropy(ruled_out)))
        value, slope = both(0.0, np.array([0.0, 1.0]), y)
        assert float(value) == pytest.approx((np.log(2) + np.log(1 + np.exp(-1))) / 2, rel=1e-5)
        assert float(slope) == pytest.approx(1 / (1 + np.e) / 2, rel=1e-5)


# Laws of the data


def test_the_residual_sum_of_squares_is_n_times_the_mean():
    assert float(losses.rss(line)(PARAMS, X, T_C)) == pytest.approx(11 * float(losses.mse(line)(PARAMS, X, T_C)))


@pytest.mark.parametrize(
    "name", soaking(["rss", "mse", "mae", "huber", "labels", "shares"], keep=("rss", "mse", "labels"))
)
def test_doubling_the_data_doubles_a_sum_and_keeps_a_mean(name):
    loss, params, data = CASES[name]
    doubled = jax.jit(loss)(params, *(np.concatenate([column, column]) for column in data))
    assert float(doubled) == pytest.approx((2 if name == "rss" else 1) * float(jax.jit(loss)(params, *data)), rel=1e-5)


def test_numbers_of_every_kind_and_container_give_the_same_loss():
    x, y = np.array([0, 1, 2, 3]), np.array([1, 0, 2, 200])
    expected = float(losses.mse(line)({"w": 2.0, "b": 1.0}, x * 1.0, y * 1.0))
    assert expected == np.mean((2 * x + 1 - y) ** 2)
    for convert in (list, jnp.asarray, np.uint8, lambda a: a.astype(">f8"), lambda a: np.repeat(a, 2)[::2]):
        assert float(losses.mse(line)({"w": 2, "b": 1}, convert(x), convert(y))) == expected


def test_one_point_needs_no_axis_so_that_gradients_can_be_taken_point_by_point():
    loss = losses.mse(line)
    assert float(loss({"w": 0.0, "b": 139.0}, 58, 153)) == 196.0
    points = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0)))(PARAMS, X, T_C)
    whole = jax.jit(jax.grad(loss))(PARAMS, X, T_C)
    np.testing.assert_allclose([points[k].mean() for k in "wb"], [whole[k] for k in "wb"], rtol=1e-5)
    row = losses.mse(lambda params, x: jnp.sum(params * x))
    assert float(row(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0]), 4.0)) == 25.0


def reciprocal(params, x):
    """A model that is infinite at zero, where padding often stands."""
    return params["w"] / x + params["b"]


MASKED = {
    **{name: (lambda m, make=make: make(reciprocal, masked=m), PARAMS, T_C) for name, make in MAKERS.items()},
    "columns": (lambda m: losses.mse(lambda p, x: CLASSES(p, x), masked=m), WEIGHTS, SHARES),
    "labels": (lambda m: losses.softmax_cross_entropy(CLASSES, masked=m), WEIGHTS, LABELS),
    "shares": (lambda m: losses.softmax_cross_entropy(CLASSES, masked=m), WEIGHTS, SHARES),
    "sum": (lambda m: losses.mse(reciprocal, masked=m) + losses.l2(0.1), PARAMS, T_C),
}


@pytest.mark.parametrize("fill", soaking([np.nan, np.inf, 0.0, -1.0], keep=1))
@pytest.mark.parametrize("name", soaking(MASKED, keep=("mse", "huber", "columns", "labels", "sum")))
def test_a_masked_loss_and_its_gradient_are_those_of_the_shortened_data(name, fill):
    make, params, y = MASKED[name]
    x, spoiled = X.copy(), y.copy()
    x[~WHERE] = fill
    spoiled[~WHERE] = fill if spoiled.dtype.kind == "f" else -1
    value, grads = jax.jit(jax.value_and_grad(make(True)))(params, x, spoiled, WHERE)
    expected, expected_grads = jax.jit(jax.value_and_grad(make(False)))(params, X[WHERE], y[WHERE])
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grads, expected_grads)


@pytest.mark.parametrize(
    "make", soaking([losses.rss, losses.mse, losses.mae, losses.huber], keep=(losses.mae, losses.huber))
)
def test_a_residual_of_zero_pulls_in_no_direction(make):
    x = np.array([0.0, 1.0, -2.0])
    value, grads = jax.jit(jax.value_and_grad(make(line)))({"w": 3.0, "b": 1.0}, x, 3 * x + 1)
    assert value == 0 and grads == {"w": 0, "b": 0}


def test_masked_residuals_are_zero_and_masked_data_have_no_gradient():
    loss = losses.mse(reciprocal, masked=True)
    x = np.where(WHERE, X, np.nan)
    assert (loss.residuals(PARAMS, x, T_C, WHERE)[~WHERE] == 0).all()
    slopes = np.asarray(jax.jit(jax.grad(loss, argnums=1))(PARAMS, x, T_C, WHERE))
    assert (slopes[~WHERE] == 0).all() and (slopes[WHERE] != 0).all()


def test_padded_data_sets_have_the_losses_they_have_alone():
    sets = [(X[:n], T_C[:n]) for n in (4, 11, 7)]
    lanes = jax.jit(jax.vmap(losses.mse(reciprocal, masked=True), in_axes=(None, 0, 0, 0)))
    values, alone = lanes(PARAMS, *datasets.pad(sets)), jax.jit(losses.mse(reciprocal))
    np.testing.assert_allclose(values, [alone(PARAMS, *data) for data in sets], rtol=1e-5)


@EVERY_RESIDUAL
def test_without_any_row_that_counts_a_loss_is_not_a_number(make):
    value = jax.jit(make(reciprocal, masked=True))(PARAMS, 0 * X, T_C, np.zeros(11, bool))
    assert np.isnan(value)


def test_no_penalty_at_all_is_a_strength_of_zero():
    assert float(losses.l2(0)(PARAMS)) == 0
