"""Params in which the residuals are affine: found in the program, and fitted anew where a step was refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jaxfit as jf
from jaxfit.engine.jaxprs import affine_inputs
from tests.shared import nist
from tests.shared.soak import soaking

X = np.linspace(0.5, 4.0, 8)
LM = jf.optimizers.levenberg_marquardt()
NAMES = "b1", "b2", "b3"


@jax.custom_jvp
def softened(x):
    return jnp.sqrt(1 + x * x)


softened.defjvps(lambda tangent, value, x: tangent * x / value)


def carried(p):
    return jax.lax.scan(lambda total, x: (total + p["a"] * x, total), 0.0, X)[1]


def turned(p):
    square = jnp.stack([p["c"] * X[:2], jnp.exp(p["c"])])
    return jax.lax.reshape(square, (4,), dimensions=(1, 0))[:2] + p["a"]  # c0 and the exponential of c0


def written(p):
    array = jax.new_ref(jnp.zeros(2))
    array[0] = jnp.exp(p["a"])
    return array[...] + p["a"] + p["b"] * X[:2]


MODELS = {  # a function of params a, b and, in an array, c: the params in which it is affine together
    "linear": (lambda p: p["a"] * X + p["b"] + p["c"][0] * X**2 + p["c"][1] * X**3, "a b c0 c1"),
    "exponential": (lambda p: p["a"] * jnp.exp(-X / p["c"][0]) + p["c"][1], "a c1"),
    "negative": (lambda p: (1 - p["a"]) / p["b"] - X, "a"),
    "bilinear": (lambda p: p["a"] * p["b"] * X + p["c"][0], "a c0"),
    "bilinear in an array": (lambda p: p["a"] * p["c"][0] * X + p["a"] * p["c"][1], "c0 c1"),
    "square": (lambda p: p["a"] ** 2 * X + p["b"] * p["b"] + p["c"][0], "c0"),
    "quotient": (lambda p: X / p["a"] + p["b"] / p["c"][0], "b"),
    "chosen by data": (lambda p: jnp.where(X > 1, p["a"], p["b"] * X), "a b"),
    "chosen by a param": (lambda p: jnp.where(X > p["a"], p["b"], p["c"][0]), ""),
    "rounded": (lambda p: jnp.round(p["a"]) * X + jnp.int32(p["b"]) + jnp.abs(p["c"][0]), ""),
    "in a scan, which is not opened": (carried, ""),
    "in a program": (lambda p: jax.jit(lambda a, b: a * X + jnp.exp(b))(p["a"], p["b"]), "a"),
    "beside a derivative of its own": (lambda p: p["a"] * softened(p["b"] * X), "a"),
    "another type": (lambda p: p["a"].astype("bfloat16") * X + p["b"].astype("float16") * X, "a b"),
    "product of matrices": (lambda p: jnp.stack([X, jnp.exp(p["a"] * X)], axis=1) @ p["c"], "c0 c1"),
    "product of params": (lambda p: p["c"] @ p["c"] * X + p["a"], "a"),
    "an array in its own units": (lambda p: (p["c"] * np.array([2.0, 3.0]))[0] * jnp.exp(X * (2 * p["c"])[1]), "c0"),
    "turned around": (lambda p: p["c"][::-1][0] * X + jnp.sin(p["a"]), "c0 c1"),
    "reshaped by columns": (turned, "a"),
    "written in place": (written, "b"),
    "sorted": (lambda p: jnp.sort(p["c"]) @ jnp.stack([X, X**2]), ""),
    "sums over params": (lambda p: jnp.sum(p["c"]) * X + jnp.mean(p["c"]), "c0 c1"),
    "none": (lambda p: X, ""),
}


POINT = {"a": 1.25, "b": 0.75, "c": np.array([1.125, 2.5])}  # which every type holds exactly


def places(names: str) -> list[int]:
    return [("a", "b", "c0", "c1").index(name) for name in names.split()]


@pytest.fixture(scope="module")
def bends():
    """The second differences of all models, each along the params in which it is to be affine."""
    flat, back = ravel_pytree(POINT)

    def values(step):
        return [
            model(back(flat.at[jnp.array(places(affine), int)].add(step * (1 + np.arange(len(affine.split()))))))
            for model, affine in MODELS.values()
        ]

    low, middle, high = (jax.device_get(jax.jit(values)(np.float32(step))) for step in (-0.25, 0.0, 0.25))
    return {
        name: float(np.max(np.abs(a - 2 * b + c)) / (1 + np.max(np.abs(b))))
        for name, a, b, c in zip(MODELS, low, middle, high, strict=True)
    }


@pytest.mark.parametrize("name", MODELS)
def test_params_are_called_affine_only_where_the_program_shows_it(name, bends):
    model, affine = MODELS[name]
    flat, back = ravel_pytree(POINT)
    assert list(affine_inputs(lambda z: model(back(z)), flat)) == places(affine)
    assert bends[name] < 1e-5  # single precision


def test_a_model_that_asks_its_fixed_arrays_for_methods_of_jax_arrays_is_traced_as_in_its_other_programs():
    """A refused step asks for the params in which the residuals are affine, with the same kinds of arrays."""

    def decay(params, x):
        return params["a"] * jnp.exp(-params["b"] * x * params["k"].at[0].set(1.0))

    start = {"a": 1.0, "b": 0.1, "k": jf.Fixed(np.full(8, 2.0))}
    y = 50 * np.exp(-1.3 * X * np.where(np.arange(8) > 0, 2, 1))
    fit = jf.fit(jf.losses.rss(decay), start, (X, y), optimizer=LM, steps=100, record=nist.NONE)
    assert fit.params["a"] == pytest.approx(50, rel=1e-9) and fit.params["b"] == pytest.approx(1.3, rel=1e-9)


def mgh10(params, x):
    return params["b1"] * jnp.exp(params["b2"] / (x + params["b3"]))


PROBLEM = nist.read()["MGH10"]


@pytest.fixture(scope="module")
def alone():
    loss = jf.losses.rss(mgh10)
    starts = [dict(zip(NAMES, map(float, start), strict=True)) for start in PROBLEM.starts]
    return [jf.fit(loss, start, PROBLEM.data, optimizer=LM, steps=1000, record=nist.NONE) for start in starts]


def right(params) -> float:
    return nist.digits([params[name] for name in NAMES], PROBLEM.params)


def test_an_amplitude_that_must_rise_by_80_factors_of_e_arrives(alone):
    """NIST's MGH10 from its first start: without another trial 1,000 steps end at a sum of squares of 1.5e6."""
    assert [fit.status for fit in alone] == [jf.Status.CONVERGED] * 2
    assert min(right(fit.params) for fit in alone) > 9
    assert alone[0].steps < 300 and alone[1].steps < 60


@pytest.mark.soak
def test_lanes_arrive_where_they_arrive_alone(alone):
    first, second = PROBLEM.starts
    start = {name: jf.Axis("start", np.array(pair)) for name, *pair in zip(NAMES, first, second, strict=True)}
    lanes = jf.sweep(jf.losses.rss(mgh10), start, PROBLEM.data, optimizer=LM, steps=1000, record=nist.NONE).results
    for i, fit in enumerate(alone):
        lane = lanes.isel(start=i)
        assert lane["status"] == jf.Status.CONVERGED
        assert right({name: lane[f"params.{name}"] for name in NAMES}) > 9
        assert abs(int(lane["steps"]) - fit.steps) <= 0.1 * fit.steps  # rounding turns a long way a little


@pytest.mark.parametrize("kind", soaking(["bounds", "tied", "weights", "robust"], keep=("bounds",)))
def test_another_trial_keeps_bounds_ties_weights_and_robust_losses(kind):
    """The same minimum as from a start beside it."""
    x, y = PROBLEM.data
    near, far = dict(zip(NAMES, PROBLEM.params, strict=True)), {"b1": 0.02, "b2": 4000.0, "b3": 250.0}
    options = {"loss": "huber", "delta": 5.0} if kind == "robust" else {}
    if kind == "weights":
        options["sigma"] = 1 + 0.001 * y

    def start(params):
        if kind == "bounds":
            return params | {"b1": jf.Bounded(params["b1"], 0.004, 1.0), "b2": jf.Bounded(params["b2"], 100.0, 1e6)}
        if kind == "tied":
            return {"b1": params["b1"], "b2": params["b2"], "b3": jf.Tied(lambda p: 345.2 / 6181.3 * p["b2"])}
        return params

    found, expected = (jf.curve_fit(mgh10, start(p), (x, y), steps=1000, **options) for p in (far, near))
    assert found.status == expected.status == jf.Status.CONVERGED
    assert found.loss == pytest.approx(expected.loss, rel=1e-9)


@pytest.mark.parametrize("alone", soaking([True, False], keep=(False,)), ids=["alone", "lanes"])
def test_redundant_amplitudes_of_a_refused_step_do_not_become_large_numbers_that_cancel(alone):
    """Two decays, one with two amplitudes of which the sum counts; of the last of them rounding alone is left."""

    def decays(p, x):
        return (p[0] + p[5]) * jnp.exp(-p[1] * x) + p[2] + p[3] * jnp.exp(-p[4] * x)

    rng, x, truth = np.random.default_rng(0), np.linspace(0, 4, 25), np.array([2.0, 0.4, 0.5, 1.0, 2.0, 0.5])
    y = np.asarray(decays(truth, x), float) + np.array([0.0, 0.1])[:, None, None] * rng.normal(size=(2, 40, 25))
    data, starts = y.reshape(80, 25), truth * (1 + 0.3 * rng.normal(size=(80, 6)))
    how, loss = {"optimizer": LM, "steps": 60}, jf.losses.rss(decays)
    if alone:
        ends = np.array([jf.fit(loss, *one, **how).params for one in zip(starts, ((x, y) for y in data), strict=True)])
    else:
        ends = jf.sweep(loss, jf.Axis("set", starts), (x, jf.Axis("set", data)), **how).results.params.values
    assert np.abs(ends[:, [0, 5]]).max() < 100
