"""Noise on the inputs of a loss, against its definition and its mean."""

import jax
import numpy as np
import pytest

from jaxfit import losses
from jaxfit.losses import regularization
from jaxfit.models import line
from tests.shared.loss_cases import EXPECTED, NOISY, PARAMS, T_C, WHERE, X, noisy, trimmed


def test_input_noise_is_the_loss_at_other_inputs_of_that_spread():
    seen = []

    def watching(params, x):
        seen.append(x)
        return line(params, x)

    value = losses.input_noise(losses.mse(watching), scale=0.5)(PARAMS, X, T_C, key=jax.random.key(1))
    assert float(value) == pytest.approx(float(losses.mse(line)(PARAMS, seen[0], T_C)), rel=1e-6)
    keys = jax.random.split(jax.random.key(0), 2000)
    draws = jax.jit(jax.vmap(lambda key: regularization._noise(0.5, X, key)))(keys) - X[None, :]
    assert np.abs(np.mean(draws, 0)).max() < 4 * 0.5 / 2000**0.5
    np.testing.assert_allclose(np.std(draws, 0), 0.5, rtol=4 / 4000**0.5)
    assert abs(np.corrcoef(np.asarray(draws).T) - np.eye(11)).max() < 4.5 / 2000**0.5


def test_input_noise_adds_its_variance_times_the_squared_slope_on_average():
    keys = jax.random.split(jax.random.key(2), 4000)
    values = jax.jit(jax.vmap(lambda key: NOISY(PARAMS, X, T_C, key=key)))(keys)
    expected = EXPECTED["mse"] + 0.5**2 * 4.5**2
    assert float(values.mean()) == pytest.approx(expected, abs=4 * float(values.std()) / 4000**0.5)
    assert float(values.std()) / 4000**0.5 < 0.02 * (expected - EXPECTED["mse"])


def test_no_input_noise_is_a_scale_of_zero():
    quiet = losses.input_noise(losses.mse(line), scale=0)
    assert float(quiet(PARAMS, X, T_C, key=jax.random.key(0))) == pytest.approx(EXPECTED["mse"], rel=1e-6)


def test_input_noise_wraps_sums_functions_and_masked_losses_and_hands_them_a_key_of_their_own():
    key = jax.random.key(3)
    masked = losses.input_noise(losses.mse(line, masked=True), scale=0.5)
    assert masked.masked and masked.data_names == ("x", "y", "where")
    assert np.isfinite(masked(PARAMS, np.where(WHERE, X, np.nan), T_C, WHERE, key=key))
    both = losses.input_noise(trimmed + losses.l2(0.3), scale=0.5)
    apart = losses.input_noise(trimmed, scale=0.5)(PARAMS, X, T_C, key=key) + losses.l2(0.3)(PARAMS)
    assert float(both(PARAMS, X, T_C, key=key)) == pytest.approx(float(apart), rel=1e-6)
    deep = losses.input_noise(losses.mse(noisy), scale=0.5)
    inner = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), (11,)))
    outer = np.asarray(regularization._noise(0.5, X, key))
    expected = np.mean((4.5 * outer - 12.0 + inner - T_C) ** 2)
    assert float(deep(PARAMS, X, T_C, key=key)) == pytest.approx(expected, rel=1e-5)


def test_input_noise_is_a_value_with_its_scale_as_a_leaf():
    assert NOISY == losses.input_noise(losses.mse(line), scale=0.5) and len({NOISY, NOISY + losses.l2(0.1)}) == 2
    assert NOISY != losses.input_noise(losses.mse(line), scale=0.4) and losses.takes_key(NOISY)
    both = losses.input_noise(losses.huber(line, delta=2.0), scale=0.5)
    assert jax.tree.leaves(both) == [2.0, 0.5]
    assert repr(both) == "input_noise(huber(line, delta=2.0), scale=0.5)"


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: NOISY(PARAMS, X, T_C), TypeError, r"needs a key: pass key=jax.random.key\(0\), or to fit key=0"),
        (lambda: NOISY(PARAMS, key=jax.random.key(0)), TypeError, r"takes the data \(x, y\), but got none"),
        (lambda: losses.input_noise(losses.l2(0.1), scale=1), TypeError, "takes no data to add noise to"),
        (lambda: losses.input_noise(3, scale=1), TypeError, "^loss is 3, which cannot be called; pass a loss"),
        (lambda: losses.input_noise(losses.mse(line), scale=-1), ValueError, "^scale is -1; it must be zero or more"),
        (lambda: losses.input_noise(losses.mse(line), scale="1"), TypeError, "^scale is '1'"),
    ],
)
def test_bad_arguments_of_input_noise_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()
