"""What people bring from other libraries works, or is refused with the line that brings it in.

The libraries themselves are not needed: these stand-ins have what tells the real ones, which were tried once each.
"""

import datetime
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from tests.shared.bad_inputs import LOSS, START, Case, X, Y, check, fit, follows, named, own
from tests.shared.soak import soaking

LINE, SGD = jf.models.line, jf.optimizers.sgd(0.1)
DAYS = [f"2024-01-{day:02d}" for day in range(1, 9)]
MOMENTS = np.array(DAYS, "datetime64[s]")
TIMES = [datetime.time(hour) for hour in range(8)]
SHEET = np.ma.array(np.ones((8, 2)), mask=np.eye(8, 2, dtype=bool))


class Series(dict):
    """As a pandas Series with names looks."""

    class index:
        values = ("w", "b")


class Columns:
    """As a polars DataFrame looks."""

    columns = ("w", "b")

    def to_dict(self):
        return {"w": np.array(1.0), "b": np.array(0.0)}


class Parameter(NamedTuple):
    """As one of lmfit looks."""

    value: float
    min: float
    max: float
    vary: bool


class Weights:
    """As a module of PyTorch looks."""

    def named_parameters(self):
        return iter(START.items())


class Tensor:
    """As an array of PyTorch looks, whose dtype NumPy does not know."""

    dtype, shape, requires_grad = "torch.int64", (), False

    def __init__(self, value):
        self.value = value

    def detach(self):
        return self

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.value)


class TrainState:
    """As one of Flax looks."""

    params, tx = START, None

    def apply_gradients(self):
        pass


class Adam:
    __module__ = "torch.optim.adam"


class KerasAdam:
    __module__ = "keras.src.optimizers.adam"


KerasAdam.__name__ = "Adam"


class Held:
    """As an optimizer of Flax NNX looks."""

    tx = None


class Transformed(NamedTuple):
    """As Haiku's looks."""

    init: object
    apply: object


class Sequential:
    """As a model of Keras looks."""

    trainable_variables = START

    def __call__(self, x, training=False):
        return x

    def stateless_call(self, weights, others, x):
        return LINE(weights, x), others


class Plain:
    """As a module of Linen looks."""

    def init(self, key, x):
        return START

    def apply(self, params, x, rngs=None):
        return LINE(params, x)


class Layer(Sequential):
    """As a layer of PyTorch looks."""

    stateless_call = property()

    def named_parameters(self):
        return iter(START.items())


def with_rng(params, rng, x):
    return LINE(params, x)


def mean(x):
    raise TypeError("mean(): argument 'input' (position 1) must be Tensor, not JitTracer")


def by_torch(params, x, y):
    return mean((LINE(params, x) - y) ** 2)


def by_jax(params, x, y):
    return jnp.mean((LINE(params, x) - y) ** 2)


def of_sheet(params, x, y):
    return jnp.mean((params["w"] * x - y) ** 2)


@jax.tree_util.register_pytree_node_class
class Filtered:
    """As a function of equinox.filter_jit looks: a tree with its name at a leaf."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        return self.function(*args)

    def tree_flatten(self):
        return ("name",), self.function

    @classmethod
    def tree_unflatten(cls, function, children):
        return cls(function)


HAIKU, KERAS, LINEN, PARAMETER = Transformed(None, with_rng), Sequential(), Plain(), Parameter(1.0, 0.0, 2.0, True)


def rows_of(keep):
    return SHEET[keep], Y[:, None][keep]


STARTS = {
    "a series": Case(lambda: fit(params=Series(START)), TypeError, "params is a Series", r"pass dict\(x\)",
        lambda: fit(params=dict(Series(START)))),
    "a table": Case(lambda: fit(params=Columns()), TypeError, "params is a Columns", r"pass x\.to_dict\(\)",
        lambda: fit(params=Columns().to_dict())),
    "a param with bounds": Case(lambda: fit(params=START | {"w": NoTuple(PARAMETER)}), TypeError,
        "bounds would be lost",
        r"write jf\.Bounded\(x\.value, x\.min, x\.max\)",
        lambda x=PARAMETER: fit(params=START | {"w": jf.Bounded(x.value, x.min, x.max)})),
    "a param that does not vary": Case(lambda: fit(params=START | {"w": NoTuple(PARAMETER)}), TypeError,
        "bounds would be",
        r"or jf\.Fixed\(x\.value\) if it does not vary",
        lambda x=PARAMETER: fit(params=START | {"w": jf.Fixed(x.value)})),
    "a generator": Case(lambda: fit(params=(w for w in (1.0, 0.0))), TypeError, "params is a generator",
        r"list\(params\)",
        lambda: fit(lambda p, x, y: own({"w": p[0], "b": p[1]}, x, y), params=list(w for w in (1.0, 0.0)))),
    "a module of PyTorch": Case(lambda: fit(params=Weights()), TypeError, "params is a Weights, of PyTorch",
        r"\{n: x\.detach\(\) for n, x in module\.named_parameters\(\)\}",
        lambda: fit(params={n: Tensor(x).detach() for n, x in Weights().named_parameters()})),
    "a training state": Case(lambda: fit(params=TrainState()), TypeError, "params is a TrainState, of Flax",
        r"state\.params",
        lambda: fit(params=TrainState().params)),
    "a masked start": Case(lambda: fit(params=START | {"w": np.ma.array([1.0], mask=[True])}), TypeError,
        "mask would be lo",
        r"pass x\.filled\(0\)", lambda: fit(params=START | {"w": np.ma.array([1.0], mask=[True]).filled(0)})),
}  # fmt: skip


class NoTuple:
    """A leaf, as lmfit's are."""

    def __init__(self, parameter):
        self.value, self.min, self.max, self.vary = parameter


MODELS = {
    "a transformed function": Case(lambda: jf.losses.mse(HAIKU), TypeError, "is the module Transformed",
        r"lambda params, x: module\.apply\(params, None, x\)",
        lambda module=HAIKU: jf.losses.mse(lambda params, x: module.apply(params, None, x))(START, X, Y)),
    "a function with a key": Case(lambda: jf.losses.mse(with_rng), TypeError, r"takes \(params, rng, x\)",
        r"lambda params, x: predict\(params, None, x\)",
        lambda predict=with_rng: jf.losses.mse(lambda params, x: predict(params, None, x))(START, X, Y)),
    "a function with keys": Case(lambda: jf.losses.mse(with_rng), TypeError, r"takes \(params, rng, x\)",
        r"lambda params, x, key: predict\(params, key, x\)",
        lambda predict=with_rng: fit(jf.losses.mse(lambda params, x, key: predict(params, key, x)), key=0)),
    "a module of Linen": Case(lambda: jf.losses.mse(LINEN), TypeError, "is the module Plain", r"write module\.apply$",
        lambda module=LINEN: jf.losses.mse(module.apply)(START, X, Y)),
    "a model of Keras": Case(lambda: jf.losses.mse(KERAS), TypeError, "is the module Sequential",
        r"module\.stateless_call\(params, \[\], x\)\[0\], with params=module\.trainable_variables",
        lambda module=KERAS: fit(jf.losses.mse(lambda params, x: module.stateless_call(params, [], x)[0]),
                                 module.trainable_variables)),
    "a layer of PyTorch": Case(lambda: jf.losses.mse(Layer()), TypeError, "is the module Layer", "with jax.numpy",
        lambda: jf.losses.mse(lambda params, x: params["w"] * x + params["b"])(START, X, Y)),
    "a loss by PyTorch": Case(lambda: fit(by_torch), TypeError, "hands a traced value to PyTorch",
        "jnp.mean instead of",
        lambda: fit(by_jax)),
}  # fmt: skip

OPTIMIZERS = {
    "of PyTorch": Case(lambda: fit(optimizer=Adam()), TypeError, "is Adam of torch",
        r"jf\.optimizers\.torch\.Adam\(lr=0\.1",
        lambda: fit(optimizer=jf.optimizers.torch.Adam(lr=0.1))),
    "of PyTorch, uncalled": Case(lambda: fit(optimizer=Adam), TypeError, "is Adam of torch", r"torch\.Adam\(lr=0\.1",
        lambda: fit(optimizer=jf.optimizers.torch.Adam(lr=0.1))),
    "of Keras": Case(lambda: fit(optimizer=KerasAdam()), TypeError, "is Adam of keras",
        r"jf\.optimizers\.keras\.Adam\(learning_rate=0\.1",
        lambda: fit(optimizer=jf.optimizers.keras.Adam(learning_rate=0.1))),
    "of NNX": Case(lambda: fit(optimizer=Held()), TypeError, "holds an Optax transformation",
        r"pass that: optimizer\.tx",
        lambda: fit(optimizer=SGD)),
}  # fmt: skip

DATA = {
    "dates as text": Case(lambda: fit(data=(DAYS, Y)), TypeError, "data.0. .*holds text",
        r't = np\.array\(t, "datetime64\[s\]"\), and count from the first: \(t - t\[0\]\) / np\.timedelta64\(1, "s"\)',
        lambda t=MOMENTS: fit(data=((t - t[0]) / np.timedelta64(1, "s") / 1e6, Y))),
    "times of day": Case(lambda: fit(data=(TIMES, Y)), TypeError, "holds objects", "take their seconds: np.array",
        lambda t=TIMES: fit(data=(np.array([3600 * v.hour + 60 * v.minute + v.second for v in t]) / 3e4, Y))),
    "words": Case(lambda: fit(data=(list("abab" * 2), Y)), TypeError, "holds text",
        r"np\.unique\(x, return_inverse=True\)",
        lambda: fit(data=(np.unique(list("abab" * 2), return_inverse=True)[1], Y))),
    "a mask of single entries": Case(lambda: fit(of_sheet, {"w": 1.0}, (SHEET, Y[:, None])), TypeError, "masked array",
        r"keep = ~np\.ma\.getmaskarray\(x\)\.any\(axis=\(1,\)\), and data=\(x\[keep\], y\[keep\],\)",
        lambda: fit(of_sheet, {"w": 1.0}, rows_of(~np.ma.getmaskarray(SHEET).any(axis=(1,))))),
}  # fmt: skip

CASES = named({"start": STARTS, "model": MODELS, "optimizer": OPTIMIZERS, "data": DATA})


@pytest.mark.parametrize("name", CASES)
def test_what_comes_from_elsewhere_is_refused_with_the_line_that_brings_it_in(name, events):
    check(CASES[name], events)


@pytest.mark.parametrize("name", soaking(CASES, but=["model: a function with keys", "optimizer: of Keras"]))
def test_the_line_that_a_message_gives_for_what_comes_from_elsewhere_works(name):
    assert follows(CASES[name].mended)


def test_a_filtered_function_is_a_loss_as_the_function_itself(events):
    filtered, plain = Filtered(by_jax), fit(by_jax)
    for _ in range(2):
        assert fit(filtered).loss == plain.loss
    assert jf.backprop(filtered, START, (X, Y)).loss == jf.backprop(by_jax, START, (X, Y)).loss
    assert len(events["program"]) <= 2


def test_a_seed_in_a_tensor_is_the_seed():
    drawn = [fit(LOSS, batches=jf.Batches(2), key=key).loss for key in (3, Tensor(np.int64(3)))]
    assert drawn[0] == drawn[1]
