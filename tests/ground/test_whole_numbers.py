"""Whole and boolean numbers in the data: no arithmetic on them overflows, and what is an index stays one."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from tests.shared.soak import soaking

LOSSES, NAMED = jf.losses, jf.optimizers
KINDS = ("bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i4", "<u8")
PIXELS = np.arange(200, dtype=np.uint8)
LABELS = np.arange(12) % 3


def parabola(params, x):
    return params["a"] + params["b"] * x**2


def squares(params, x):
    return params * 1e-4 * x**2


def of_my_own(params, x, y):
    return jnp.mean(jnp.square(squares(params, x) - y))


START = {"a": 0.0, "b": 1.0}
FLOATS = PIXELS.astype(float)
DATA, PLAIN = (PIXELS, 2e-4 * FLOATS**2), (FLOATS, 2e-4 * FLOATS**2)


def test_pixels_counted_in_bytes_give_the_parabola_they_were_made_of():
    fit = jf.curve_fit(parabola, START, (PIXELS, 1 + 0.5 * FLOATS**2))
    assert fit.params["a"] == pytest.approx(1, abs=1e-9) and fit.params["b"] == pytest.approx(0.5, rel=1e-12)


@pytest.mark.soak
def test_years_in_32_bits_may_be_cubed():
    years = np.arange(1950, 2020, dtype=np.int32)
    fit = jf.curve_fit(lambda p, x: p["a"] + p["b"] * (x**3 / 8e9), START, (years, 3 + 2 * (years / 2e3) ** 3.0))
    assert [fit.params[k] for k in "ab"] == pytest.approx([3, 2], rel=1e-9)


NANO = LOSSES.mse(lambda p, x: p * (1e-9 * x**2)), lambda p, x, y: jnp.mean((p * (1e-9 * x**2) - y) ** 2)


@pytest.mark.parametrize("loss", soaking(NANO, keep=1), ids=["mse", "own"])
def test_integers_of_numpy_may_be_squared_in_float32(loss):
    x = np.arange(0, 60000, 100)
    fit = jf.fit(loss, 1.0, (x, 2e-9 * x**2.0), optimizer=NAMED.sgd(0.1), steps=500)
    assert fit.params == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("kind", soaking(KINDS, keep=("bool", "uint8", "int64", ">i4")))
def test_whole_numbers_of_every_kind_are_as_good_as_floats(kind):
    rng = np.random.default_rng(KINDS.index(kind))
    top = {"b": 1}.get(np.dtype(kind).kind) or min(np.iinfo(kind).max, 3_000_000_000)
    x, y = (rng.integers(0, top, 30, endpoint=True).astype(kind) for _ in range(2))

    found = jf.curve_fit(parabola, START, (x, y), sigma=np.full(30, 2, kind) if kind != "bool" else None)
    expected = np.polyfit((x / top) ** 2.0, y.astype(float), 1)[::-1]
    np.testing.assert_allclose(found.params["a"], expected[0], rtol=1e-8)
    np.testing.assert_allclose(found.params["b"] * float(top) ** 2, expected[1], rtol=1e-8)


EVERYWHERE = {
    "fit": lambda x, y: jf.fit(LOSSES.mse(squares), 1.0, (x, y), optimizer=NAMED.sgd(0.1), steps=3).loss,
    "a loss of one's own": lambda x, y: jf.fit(of_my_own, 1.0, (x, y), optimizer=NAMED.sgd(0.1), steps=3).loss,
    "batches": lambda x, y: jf.fit(
        of_my_own, 1.0, (x, y), optimizer=NAMED.sgd(0.1), steps=3, batches=jf.Batches(20), key=0
    ).loss,
    "validation": lambda x, y: jf.fit(
        LOSSES.mse(squares), 1.0, PLAIN, validation=(x, y), optimizer=NAMED.sgd(0.1), steps=3
    ).validation_loss,
    "a mask": lambda x, y: jf.fit(
        LOSSES.mse(squares, masked=True), 1.0, (x, y, FLOATS < 150), optimizer=NAMED.sgd(0.1), steps=3
    ).loss,
    "step": lambda x, y: jf.step(LOSSES.mse(squares), 1.0, (x, y), optimizer=NAMED.sgd(0.1)).value,
    "backprop": lambda x, y: jf.backprop(LOSSES.mse(squares), 1.0, (x, y)).loss,
    "surface": lambda x, y: jf.surface(of_my_own, jf.Axis("w", [1.0, 3.0]), (x, y)).values,
    "sharpness": lambda x, y: jf.sharpness(of_my_own, 1.0, (x, y)),
    "the loss itself": lambda x, y: LOSSES.mse(squares)(1.0, x, y),
    "noisy inputs": lambda x, y: LOSSES.input_noise(LOSSES.mse(squares), scale=0.0)(1.0, x, y, key=jax.random.key(0)),
    "a sweep of params": lambda x, y: jf.sweep(
        LOSSES.mse(squares), jf.Axis("w", [1.0, 3.0]), (x, y), optimizer=NAMED.sgd(0.1), steps=3
    ).results.loss.values,
    "a sweep of data": lambda x, y: jf.sweep(
        of_my_own, 1.0, (jf.Axis("set", np.stack([x, x[::-1]])), jf.Axis("set", np.stack([y, y]))),
        optimizer=NAMED.sgd(0.1), steps=3,
    ).results.loss.values,
    "a trace": lambda x, y: jax.jit(
        lambda x: jf.fit(of_my_own, 1.0, (x, y), optimizer=NAMED.sgd(0.1), steps=3).loss
    )(x),
    "a guess": lambda x, y: np.array(list(jf.models.gaussian.guess(x, y).values())),
    "a model": lambda x, y: jf.models.polynomial(2)({"coefficients": np.ones(3)}, x),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", soaking(EVERYWHERE, keep=("fit", "a loss of one's own", "surface", "the loss itself", "a model"))
)
def test_bytes_are_floats_wherever_data_are_given(name):
    np.testing.assert_allclose(EVERYWHERE[name](*DATA), EVERYWHERE[name](*PLAIN), rtol=1e-5)


def test_a_band_at_bytes_is_that_at_floats():
    fit = jf.curve_fit(parabola, START, (FLOATS, 1 + 0.5 * FLOATS**2 + np.sin(FLOATS)))
    for kind in ("confidence", "prediction"):
        for one, other in zip(jf.band(fit, PIXELS, kind=kind), jf.band(fit, FLOATS, kind=kind), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("precision", soaking(["float32", "float64"], keep=1))
@pytest.mark.parametrize("kind", soaking(["uint8", "int16", "int64", "bool"], keep=("uint8",)))
def test_a_prediction_at_whole_numbers_is_that_at_floats(kind, precision):
    fit = jf.fit(LOSSES.mse(parabola), START, (FLOATS / 200, FLOATS), optimizer=NAMED.adam(0.1), steps=3,
                 precision=precision)  # fmt: skip
    at = np.array([0, 1, 15, 90, 100]).astype(kind)
    np.testing.assert_array_equal(fit.predict(at), fit.predict(at.astype(float)))
    of_labels = jf.fit(LOSSES.mse(INDEXED["params[x]"]), np.zeros(3), (LABELS, 2 * LABELS), optimizer=NAMED.sgd(0.5),
                       steps=150, precision=precision)  # fmt: skip
    if kind != "bool":
        np.testing.assert_allclose(of_labels.predict(at[:2]), [0, 2], atol=1e-5)


INDEXED = {
    "params[x]": lambda p, x: p[x],
    "take": lambda p, x: jnp.take(p, x),
    "one_hot": lambda p, x: jax.nn.one_hot(x, 3, dtype=p.dtype) @ p,
    "bits": lambda p, x: jnp.where(x & 1, p[1], jnp.where(x & 2, p[2], p[0])),
    "switch": lambda p, x: jax.vmap(lambda i: jax.lax.switch(i, [lambda: p[0], lambda: p[1], lambda: p[2]]))(x),
}


@pytest.mark.parametrize("kind", soaking(["uint8", "int64"], keep=("uint8",)))
@pytest.mark.parametrize("name", soaking(INDEXED, keep=("params[x]", "one_hot")))
def test_an_index_stays_whole(name, kind):
    data = LABELS.astype(kind), 2 * LABELS
    fit = jf.fit(LOSSES.mse(INDEXED[name]), np.zeros(3), data, optimizer=NAMED.sgd(0.5), steps=150)
    np.testing.assert_allclose(fit.params, [0, 2, 4], atol=1e-5)


@pytest.mark.soak
def test_labels_stay_whole_also_in_a_loss_of_ones_own():
    x = np.random.default_rng(0).normal(size=(12, 2))

    def integers(p, x, y):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(x @ p, y))

    for kind in ("uint8", "int64"):
        own, named = (
            jf.fit(loss, np.zeros((2, 3)), (x, LABELS.astype(kind)), optimizer=NAMED.sgd(0.1), steps=5).loss
            for loss in (integers, LOSSES.softmax_cross_entropy(lambda p, x: x @ p))
        )
        assert own == pytest.approx(named, rel=1e-6)


def test_of_two_arrays_the_index_stays_whole_and_the_number_becomes_floating():
    ratings = np.full(12, 200, np.uint8)
    fit = jf.fit(
        lambda p, who, rating: jnp.mean((p[who] - rating**2) ** 2), np.zeros(3), (LABELS.astype(np.uint8), ratings),
        optimizer=NAMED.sgd(1.0), steps=200,
    )  # fmt: skip
    np.testing.assert_allclose(fit.params, 40000.0, rtol=1e-5)


def test_one_array_may_be_an_index_and_a_number():
    y = np.arange(200) % 3 + FLOATS**2
    for model in (lambda p, x: p[x % 3] + x**2, lambda p, x: p[(x % 3).astype(int)] + x**2):
        fit = jf.fit(LOSSES.mse(model), np.zeros(3), (PIXELS, y), optimizer=NAMED.sgd(0.5), steps=100)
        np.testing.assert_allclose(fit.params, [0, 1, 2], atol=0.01)


def test_whole_numbers_that_the_precision_rounds_are_told():
    seconds = np.array([1_700_000_000, 1_700_000_001])
    times = seconds, np.array([1.0, 2.0])
    model = LOSSES.mse(lambda p, x: p * 1e-9 * x)
    with pytest.warns(UserWarning, match=r"data\[0\] .*float32 rounds, such as 1,700,000,001 to 1,700,000,000;.*share"):
        jf.fit(model, 1.0, times, optimizer=NAMED.sgd(0.1), steps=1)
    with warnings.catch_warnings(action="error"):
        jf.fit(model, 1.0, times, optimizer=NAMED.sgd(0.1), steps=1, precision="float64")
        jf.fit(model, 1.0, (seconds - seconds[0], times[1]), optimizer=NAMED.sgd(0.1), steps=1)
        jf.fit(model, 1.0, (np.arange(2**24 - 1, 2**24 + 1), times[1]), optimizer=NAMED.sgd(0.1), steps=1)
    with pytest.warns(UserWarning, match=r"data\[0\] .*float64 rounds, such as 9,007,199,254,740,993 to"):
        jf.curve_fit(lambda p, x: p * 1e-16 * x, 1.0, (np.array([2**53 + 1, 2**53 + 2]), times[1]))
