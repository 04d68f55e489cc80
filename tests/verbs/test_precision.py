"""Without a word about precision, runs follow JAX: 64 bits where they are on and given, else 32."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from tests.shared.soak import soaking

X = np.linspace(0.0, 1.0, 8)
Y = 2 * X + 1
START = {"w": 1.0, "b": 0.0}
SGD, LOSS = jf.optimizers.sgd(0.1), jf.losses.mse(jf.models.line)
SWEPT = START | {"w": jf.Axis("w0", [0.0, 1.0])}
VERBS = {
    "fit": lambda start, swept, data: jf.fit(LOSS, start, data, optimizer=SGD, steps=2).loss,
    "step": lambda start, swept, data: jf.step(LOSS, start, data, optimizer=SGD).value,
    "sweep": lambda start, swept, data: jf.sweep(LOSS, swept, data, optimizer=SGD, steps=2).results.loss,
    "surface": lambda start, swept, data: jf.surface(LOSS, swept, data),
    "sharpness": lambda start, swept, data: jnp.asarray(jf.sharpness(LOSS, start, data)),
    "backprop": lambda start, swept, data: jf.backprop(LOSS, start, data).loss,
}


@pytest.mark.parametrize("verb", soaking(VERBS, keep=("fit",)))
def test_64_bits_are_kept_where_the_callers_jax_has_them_and_nowhere_else(verb):
    assert VERBS[verb](START, SWEPT, (X, Y)).dtype == "float32"
    with jax.enable_x64(True):
        assert VERBS[verb](START, SWEPT, (X, Y)).dtype == "float64"
        narrow = START | {"w": jf.Axis("w0", np.float32([0.0, 1.0]))}
        assert VERBS[verb](START, narrow, (X.astype("float32"), Y.astype("float32"))).dtype == "float32"
    assert not jax.config.jax_enable_x64


def test_without_any_array_python_numbers_are_what_jax_makes_of_them():
    def loss(w):
        return (w - 1) ** 2

    assert jf.fit(loss, 0.0, optimizer=SGD, steps=1).params.dtype == "float32"
    with jax.enable_x64(True):
        assert jf.fit(loss, 0.0, optimizer=SGD, steps=1).params.dtype == "float64"
        assert jf.fit(loss, np.float32(0.0), optimizer=SGD, steps=1).params.dtype == "float32"
        assert jf.fit(loss, 0.0, optimizer=SGD, steps=1, precision="float32").params.dtype == "float32"


def test_levenberg_marquardt_is_exact_by_default():
    fit = jf.fit(LOSS, START, (X, Y), optimizer=jf.optimizers.levenberg_marquardt())
    assert fit.precision == "float64" and jf.curve_fit(jf.models.line, START, (X, Y)).precision == "float64"
    assert jf.curve_fit(jf.models.line, START, (X, Y), optimizer=SGD, steps=1).precision == "float32"


@pytest.mark.parametrize("verb", ["fit", "sweep"])
def test_numbers_that_float32_hardly_tells_apart_are_told(verb):
    """Seconds since 1970, of which float32 holds every 128th; a test fails by a warning that it does not expect."""
    seconds = 1.7e9 + np.arange(8.0)
    with pytest.warns(UserWarning, match=r"data\[0\] lies between 1700000000 and 1700000007, .* 128 apart; subtract"):
        VERBS[verb](START, SWEPT, (seconds, Y))
    VERBS[verb](START, SWEPT, (seconds - seconds[0], Y))
    VERBS[verb](START, SWEPT, (np.full(8, 1.7e9 + 1), Y))  # one number, which a model may take as it is
    if verb == "fit":
        jf.fit(LOSS, START, (seconds, Y), optimizer=SGD, steps=1, precision="float64")


def test_no_verb_has_a_precision_of_its_own():
    verbs = [getattr(jf, name) for name in dir(jf) if inspect.isfunction(getattr(jf, name))]
    defaults = {f.__name__: p.default for f in verbs for n, p in inspect.signature(f).parameters.items()
                if n == "precision"}  # fmt: skip
    assert len(defaults) > 10 and set(defaults.values()) == {None}
