"""Bytes of the forward and backward pass, against what the chain rule says has to be kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.models import dense, line
from tests.shared.soak import soaking

WIDTH = 16


def square_of_tanh(params, x):
    return jnp.sum(jnp.tanh(params * x) ** 2)


def net(depth, rows, activation="tanh"):
    model = dense((1, *[WIDTH] * depth, 1), activation)
    x = np.linspace(-1, 1, rows)
    return jf.losses.mse(model), model.init(0), (x, np.sin(x))


def layers(params, x, *, wrap):
    """A loss of equal tanh layers without biases, each of them wrapped."""
    for w in params:
        x = wrap(lambda h, w: jnp.tanh(h @ w))(x, w)
    return jnp.sum(x)


@pytest.mark.parametrize("rows", soaking([8, 32], keep=(8,)))
@pytest.mark.parametrize("depth", [1, 3, 6])
def test_a_net_keeps_two_arrays_a_layer_for_the_backward_pass(depth, rows):
    """The output of each tanh and its slope; beside them the inputs as a column, and the residuals."""
    assert jf.backward_memory(*net(depth, rows)) == 4 * rows * (2 * WIDTH * depth + 2)


@pytest.mark.parametrize("rows", [8, 32])
def test_without_a_backward_pass_depth_costs_no_memory(rows):
    shallow, deep = (jf.forward_memory(*net(depth, rows)) for depth in (2, 20))
    assert shallow == deep == 4 * (2 * rows * WIDTH + WIDTH)  # h @ w, a bias as a row, and their sum


def test_a_linear_layer_keeps_its_input_only():
    assert jf.backward_memory(*net(5, 8, "linear")) == 4 * 8 * (WIDTH * 5 + 2)


def test_the_params_and_data_are_not_counted():
    assert jf.backward_memory(lambda w, x: jnp.sum(w * x), np.ones(50), (np.ones(50),)) == 0


def test_an_array_that_is_needed_twice_is_counted_once():
    def twice(params, x):
        h = jnp.exp(params * x)  # its slope is itself
        return jnp.sum(h * x) + jnp.sum(h * x)

    once = jf.backward_memory(lambda p, x: jnp.sum(jnp.exp(p * x) * x), 1.0, (np.ones(10),))
    assert once == jf.backward_memory(twice, 1.0, (np.ones(10),)) == 40


def test_checkpoints_keep_what_enters_them_and_no_more():
    params, x = [np.eye(WIDTH) for _ in range(6)], np.ones((8, WIDTH))
    one = 4 * 8 * WIDTH
    plain = functools.partial(layers, wrap=lambda f: f)
    each = functools.partial(layers, wrap=jax.checkpoint)
    assert jf.backward_memory(plain, params, (x,)) / one in (
        11,
        12,
    )  # by version of JAX, the last tanh keeps one or two
    assert jf.backward_memory(each, params, (x,)) == one * 5  # the first layer's input is the data
    assert jf.backward_memory(jax.checkpoint(plain), params, (x,)) == 0
    grads = (jax.jit(jax.grad(loss))(params, x) for loss in (plain, each))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *grads)


def test_a_loss_of_jaxfits_can_be_checkpointed():
    loss, params, data = net(3, 8)
    assert jf.backward_memory(jax.checkpoint(loss), params, data) == 0
    fits = [jf.fit(f, params, data, optimizer=jf.optimizers.sgd(0.1), steps=3) for f in (loss, jax.checkpoint(loss))]
    assert float(fits[0].loss) == pytest.approx(float(fits[1].loss), rel=1e-5)


def test_float64_takes_twice_the_bytes():
    for measure in (jf.backward_memory, jf.forward_memory):
        single, double = (measure(*net(2, 8), precision=p) for p in ("float32", "float64"))
        assert double == 2 * single


def test_forward_memory_follows_what_is_alive():
    """Two arrays are alive at once where one operation turns one into another, three where two are joined."""
    x = np.ones(100)

    def chain(params, x):
        return jnp.sum(jnp.exp(jnp.sin(jnp.cos(params * x))))

    def joined(params, x):
        h = params * x
        return jnp.sum(jnp.sin(h) * h)

    def kept(params, x):
        h = params * x
        return jnp.sum(jnp.sin(jnp.cos(h)) * h)

    assert jf.forward_memory(chain, 1.0, (x,)) == 800
    assert jf.forward_memory(joined, 1.0, (x,)) == 1200
    assert jf.forward_memory(kept, 1.0, (x,)) == 1200


def test_nothing_is_run():
    def loss(params, x):
        jax.debug.callback(lambda: pytest.fail("ran"))
        return jnp.sum(params * x)

    jf.backward_memory(loss, 1.0, (np.ones(3),))
    jf.forward_memory(loss, 1.0, (np.ones(3),))


def test_a_loss_with_noise_takes_a_key():
    noisy = jf.losses.input_noise(jf.losses.mse(line), scale=0.1)
    data = (np.arange(4.0), np.arange(4.0))
    assert jf.backward_memory(noisy, {"w": 1.0, "b": 0.0}, data, key=0) == 2 * 4 * 4  # the noisy x, and the residuals
    with pytest.raises(ValueError, match="key is None, but the loss takes a key"):
        jf.backward_memory(noisy, {"w": 1.0, "b": 0.0}, data)


@pytest.mark.parametrize("measure", [jf.backward_memory, jf.forward_memory])
def test_bad_arguments_are_refused_as_by_fit(measure):
    with pytest.raises(TypeError, match="loss is 3, but it must be a function"):
        measure(3, 1.0, ())
    with pytest.raises(TypeError, match="write data="):
        measure(square_of_tanh, 1.0, np.ones(3))
    with pytest.raises(TypeError, match="shape .*must return a scalar"):
        measure(lambda w, x: w * x, 1.0, (np.ones(3),))
    with pytest.raises(ValueError, match="precision is 'half'"):
        measure(square_of_tanh, 1.0, (np.ones(3),), precision="half")
    with pytest.raises(ValueError, match="Axis.*many runs.*call sweep"):
        measure(square_of_tanh, jf.Axis("w", [1.0, 2.0]), (np.ones(3),))
