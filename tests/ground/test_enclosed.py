"""What a run in another precision puts into functions while it traces them: it is gone afterwards, whatever happens."""

import dataclasses
import functools
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.problems import precision_context
from jaxfit.problems.enclosed import enclosed_in_precision
from tests.shared.soak import soaking

X = np.linspace(0.1, 4.0, 30)
GAIN = np.linspace(1.0, 2.0, 30)
START = {"a": 1.0, "b": 1.0}
Y = 3 * GAIN * np.exp(-0.7 * X)


def of(gain):
    """A model of a function that gives its gain."""
    return lambda p, x: p["a"] * gain() * jnp.exp(-p["b"] * x)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Slots:
    gain: object


@dataclasses.dataclass(frozen=True, eq=False)
class Frozen:
    gain: object


class Pair(tuple):
    def __new__(cls, *items):
        if len(items) != 2:
            raise ValueError("a pair")
        return super().__new__(cls, items)


class Watched(dict):
    def __setitem__(self, key, value):
        raise RuntimeError("nothing may be set")

    items = None


class Noisy:
    """An object that raises wherever anyone looks."""

    __slots__ = ()

    @property
    def __dict__(self):
        raise RuntimeError("unbound")

    @property
    def __class__(self):
        raise RuntimeError("unbound")

    def __call__(self):
        return 1.0


def in_a_property(gain):
    class Holder:
        def __init__(self):
            self.__dict__["gain"] = gain

        @property
        def gain(self):
            return self.__dict__["gain"]

        @gain.setter
        def gain(self, value):
            raise RuntimeError("nothing may be set")

    return Holder()


def far_behind(gain):
    numbers, words = [float(i) for i in range(20_000)], {i: str(i) for i in range(20_000)}
    return lambda: gain if numbers and words else None


def beside(noisy, gain):
    return lambda: noisy() * gain


HOLDERS = {
    "slots": lambda gain: (lambda held: lambda: held.gain)(Slots(gain)),
    "frozen": lambda gain: (lambda held: lambda: held.gain)(Frozen(gain)),
    "a tuple with a rule": lambda gain: (lambda held: lambda: held[1])(Pair(gain, gain)),
    "a dict with a rule": lambda gain: (lambda held: lambda: held["gain"])(Watched(gain=gain)),
    "a property": lambda gain: (lambda held: lambda: held.gain)(in_a_property(gain)),
    "behind many numbers": far_behind,
    "beside an object that raises": lambda gain: beside(Noisy(), gain),
    "a partial in a list": lambda gain: (lambda held: lambda: held[0]())([functools.partial(lambda x: x, gain)]),
    "a namespace": lambda gain: (lambda held: lambda: held.gain)(types.SimpleNamespace(gain=gain)),
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_arrays_are_found_wherever_they_are_held_and_stay_the_users(kind):
    gain = GAIN.copy()
    held = HOLDERS[kind](gain)
    for precision, other in (("float64", "float32"), ("float32", "float64")):
        with jax.enable_x64(other == "float64"), precision_context(precision), enclosed_in_precision(held):
            inside = held()
        assert inside is not gain and inside.dtype == precision
        np.testing.assert_allclose(inside, GAIN, rtol=1e-7)
        outside = held()
        assert outside is gain or kind == "beside an object that raises" and np.array_equal(outside, GAIN)


def test_an_array_of_several_names_is_one_array_inside_too():
    gain, same = GAIN.copy(), None
    same = gain
    function = lambda: (gain, same)  # noqa: E731
    with precision_context("float64"), enclosed_in_precision(function):
        one, other = function()
    assert one is other and one is not gain


def test_what_a_function_changes_itself_while_it_is_traced_stays_changed():
    class Model:
        def __init__(self):
            self.logs, self.gain, self.seen = [np.ones(3), GAIN], GAIN, np.zeros(2)

        def __call__(self, p, x):
            self.logs[:], self.seen = self.logs[-1:], X
            return p["a"] * self.gain * jnp.exp(-p["b"] * x)

    model = Model()
    assert jf.curve_fit(model, START, (X, Y)).params["a"] == pytest.approx(3, rel=1e-9)
    assert model.seen is X and model.gain is GAIN and len(model.logs) == 1 and model.logs[0] is GAIN


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, ValueError])
def test_whatever_ends_a_trace_leaves_the_arrays_the_users(error):
    gain, left = GAIN.copy(), [GAIN, GAIN.astype("float32")]

    def model(p, x):
        assert gain.dtype == left[1].dtype == "float64"
        raise error("enough")

    with pytest.raises(error):
        jf.curve_fit(model, START, (X, Y))
    assert model.__closure__[1].cell_contents is gain and left[0] is GAIN and left[1].dtype == "float32"


def test_a_run_in_one_thread_meets_no_copies_of_a_run_in_another():
    matrix, begun, met, fitted = jnp.stack([jnp.ones(30), jnp.asarray(X)], 1), threading.Event(), [], []

    def slow(p, x):
        begun.set()
        threading.Event().wait(0.05)
        return matrix @ p

    def quick(p, x):
        met.append(matrix.dtype)
        return matrix @ p

    y = 1 + 2 * X
    other = threading.Thread(target=lambda: fitted.append(jf.curve_fit(slow, np.zeros(2), (X, y)).params))
    other.start()
    assert begun.wait(30)
    loss = jf.fit(jf.losses.mse(quick), np.zeros(2), (X, y), optimizer=jf.optimizers.adam(0.1), steps=1).loss
    other.join(60)
    assert loss.dtype == "float32" and {str(x) for x in met} == {"float32"} and matrix.dtype == "float32"
    np.testing.assert_allclose(fitted, [[1, 2]], rtol=1e-6)


def swelling(scale):
    """A jitted function of params that encloses an array."""
    return jax.jit(lambda p: p["a"] * scale)


LOSS, ADAM = jf.losses.mse(lambda p, x: p["a"] * x), jf.optimizers.adam(0.1)
EAGER = {
    "predict": lambda f: jf.curve_fit(lambda p, x: f(p) * x, {"a": 1.0}, (X, X)).predict(np.float64([1.0, 2.0])),
    "a call": lambda f: jf.fit(LOSS, jf.Call(lambda s: {"a": f({"a": s})}, s=1.0), (X, X), optimizer=ADAM, steps=1,
                               precision="float64"),
    "step": lambda f: jf.step(LOSS, jf.Call(lambda s: {"a": f({"a": s})}, s=1.0), (X, X), optimizer=ADAM,
                              precision="float64"),
    "sharpness": lambda f: jf.sharpness(LOSS, jf.Call(lambda s: {"a": f({"a": s})}, s=1.0), (X, X),
                                        precision="float64"),
    "backprop": lambda f: jf.backprop(lambda p, x: jnp.mean(f(p) * x), {"a": 1.0}, (X,), precision="float64"),
    "a schedule": lambda f: jf.fit(
        LOSS, {"a": 1.0}, (X, X), optimizer=jf.optimizers.sgd(lambda t: 0.01 * f({"a": 1.0})), steps=1,
        precision="float64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", soaking(EAGER, keep=("predict", "a call", "backprop")))
def test_functions_that_are_called_at_once_stay_the_users_too(name):
    for warm in (False, True):
        function = swelling(np.array(2.0))
        if warm:
            function({"a": jnp.float32(1)})
        EAGER[name](function)
        assert function({"a": jnp.float32(1)}).dtype == "float32"


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_backprop_goes_through_a_jitted_model_that_encloses_an_array(precision):
    gain = GAIN.copy()
    model = jax.jit(lambda p, x: p["a"] * gain * jnp.exp(-p["b"] * x))
    graph = jf.backprop(jf.losses.mse(model), START, (X, Y), precision=precision)
    assert graph.loss == pytest.approx(np.mean((GAIN * np.exp(-X) - Y) ** 2), rel=1e-5)
    assert graph.gradients["a"] == pytest.approx(2 * np.mean((GAIN * np.exp(-X) - Y) * GAIN * np.exp(-X)), rel=1e-5)
