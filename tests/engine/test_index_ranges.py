"""Ranges of whole numbers: what leaves int32 is seen, against the same arithmetic of NumPy in 64 bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.engine.inspections import overflow
from jaxfit.problems.data import range_of
from tests.shared.soak import soaking

INT32 = np.iinfo(np.int32)
SPANS = {"years": (1950, 2020), "both signs": (-1300, 1200), "wide": (-60_000, 50_000), "small": (-9, 9)}
ARITHMETIC = {  # of one array, as NumPy and JAX write it; each reaches its greatest number at an end of a span
    "square": lambda np, x: x**2,
    "cube": lambda np, x: x**3,
    "fourth power": lambda np, x: np.square(x * x),
    "times a million": lambda np, x: 1_000_000 * x,
    "polynomial": lambda np, x: (3 * x + 2) * x * x,
    "difference": lambda np, x: (x - 2_000) ** 3,
    "absolute": lambda np, x: np.abs(-x) * 40_000,
    "largest": lambda np, x: np.max(x) * np.min(x) * 2,
    "selected": lambda np, x: np.where(x % 2 == 0, x, -x) ** 3,
    "sum": lambda np, x: np.sum(np.abs(x) * 0 + np.max(np.abs(x))) * 1_000,
    "reshaped": lambda np, x: x[:, None] * np.transpose(x[:, None]) * 3,
}


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("name", ARITHMETIC)
def test_an_overflow_of_int32_is_seen_where_numpy_finds_it_and_nowhere_else(name, span):
    x = np.linspace(*SPANS[span], 21).astype(np.int64)
    true = ARITHMETIC[name](np, x)
    leaves = bool(np.max(true) > INT32.max or np.min(true) < INT32.min)
    program = jax.make_jaxpr(lambda x: ARITHMETIC[name](jnp, x))(x.astype(np.int32))
    found = overflow(program, [range_of(x)])
    assert (found is not None) == leaves
    if found:
        assert abs(found[1]) > INT32.max


INDICES = {
    "lookup": lambda p, x: p[x] + p[-x],
    "remainder": lambda p, x: p[x % 7] + p[x // 1_000],
    "gather": lambda p, x: jnp.take(p, x, mode="clip"),
    "counted": lambda p, x: p[0] * jnp.sum(x > 3) + p[x],
    "a float": lambda p, x: p[x] + 1e-9 * x.astype(p.dtype) ** 2,
    "a loop": lambda p, x: p[jax.lax.fori_loop(0, 3, lambda i, k: k + i, x)],
}


@pytest.mark.filterwarnings("ignore:the loss .* has been compiled")
@pytest.mark.parametrize("name", soaking(INDICES, keep=("lookup",)))
def test_what_an_index_is_made_of_is_no_overflow(name):
    x = np.arange(0, 60_000, 1_000)  # warnings are errors
    loss = lambda p, x: jnp.mean(INDICES[name](p, x) ** 2)  # noqa: E731
    jf.fit(loss, np.ones(60_000), (x,), optimizer=jf.optimizers.sgd(0.1), steps=1)


def squares(params, x):
    return params["offset"][x % 3] + params["slope"] * x**2


@pytest.mark.soak
@pytest.mark.parametrize("kind", soaking(["uint16", "int32", "int64"], keep=("uint16",)))
def test_an_index_that_is_squared_is_right_in_float64_and_told_in_float32(kind):
    x = np.arange(0, 60_000, 100)
    data = x.astype(kind), 2e-9 * x.astype(float) ** 2 + 1
    start = {"offset": np.zeros(3), "slope": 1e-9}
    fit = jf.curve_fit(squares, start, data)
    assert fit.params["slope"] == pytest.approx(2e-9, rel=1e-9)
    np.testing.assert_allclose(fit.params["offset"], 1, rtol=1e-9)
    words = r"line \d+, `return params\[.offset.* may reach 3,588,010,000, beyond int32.*x.astype\(float\)"
    with pytest.warns(UserWarning, match=words):
        jf.fit(jf.losses.mse(squares), start, data, optimizer=jf.optimizers.sgd(1e-12), steps=1)
    axis = jf.Axis("set", np.stack([x, x // 2]))
    with pytest.warns(UserWarning, match=words):
        jf.sweep(jf.losses.mse(squares), start, (axis, data[1]), optimizer=jf.optimizers.sgd(1e-12), steps=1)
