"""The values of a model or a loss where the function itself is wanted: what the error shows, and its remedy."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit import losses, models
from jaxfit.models import line


def called(x, a, b):
    return a * x + b


VALUES = called(np.arange(4.0), 2.0, 1.0)
TAKE_A_FUNCTION = {
    **{name: getattr(losses, name) for name in
       ("mse", "mae", "rss", "chi_squared", "least_squares", "softmax_cross_entropy")},
    "huber": lambda f: losses.huber(f, delta=1.0),
    "smoothness": lambda f: losses.smoothness(f, strength=0.1, x=np.arange(4.0)),
    "input_noise": lambda f: losses.input_noise(f, scale=0.1),
    "loss +": lambda f: losses.mse(line) + f,
    "+ loss": lambda f: f + losses.mse(line),
    "model +": lambda f: models.gaussian + f,
    "+ model": lambda f: f + models.gaussian,
    "sum": lambda f: models.sum(models.gaussian, f),
    "from_function": models.from_function,
    "curve_fit": lambda f: jf.curve_fit(f, {"a": 1.0}, (np.arange(4.0), np.arange(4.0))),
    "fit": lambda f: jf.fit(f, 1.0, optimizer=jf.optimizers.sgd(0.1)),
    "backprop": lambda f: jf.backprop(f, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("made", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("name", TAKE_A_FUNCTION)
def test_the_values_of_a_function_in_its_place_are_told_by_their_shape_with_what_to_pass(name, made):
    with pytest.raises(TypeError, match=r"an array of shape \(4,\).*itself"):
        TAKE_A_FUNCTION[name](made(VALUES))


def test_a_function_of_separate_arguments_becomes_a_loss_as_the_message_says():
    with pytest.raises(TypeError, match=r"or mse\(jf.models.from_function\(f\)\) for f\(x, a, b\)"):
        losses.mse(VALUES)
    assert float(losses.mse(models.from_function(called))({"a": 2.0, "b": 1.0}, np.arange(4.0), VALUES)) == 0
