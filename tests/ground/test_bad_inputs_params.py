"""Bad params, losses, optimizers and settings are refused in words that help; odd ones work, doubtful ones warn."""

import functools
import gc
import re
import warnings
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit.engine import single
from tests.shared import bad_inputs
from tests.shared.bad_inputs import LOSS, SGD, START, Case, X, Y, check, fit, follows, named, own, sweep, with_
from tests.shared.soak import soaking

pytestmark = pytest.mark.usefixtures("nothing_was_compiled_before")
KEY = jax.random.key(0)


def leaf(value):
    return {"layers": [{"w": value}], "b": 0.0}


def noisy(params, x, *, key):
    return params["w"] * x + jax.random.normal(key, x.shape)


def log_of_b(params, x, y):
    return jnp.log(params["b"] - 1.0) + params["w"]


WRONG_PARAMS = {
    "an array of integers": Case(lambda: fit(params={"layers": [{"w": np.arange(3)}]}), TypeError,
        r"params\['layers'\]\[0\]\['w'\] is an array of integers \(dtype int64\), which stays",
        r"\.astype\(float\)",
        lambda: fit(three_weights, leaf(np.arange(3).astype(float)))),
    "an array of integers under an axis": Case(
        lambda: sweep(params={"w": jf.Axis("w0", np.ones((2, 3), int)), "b": 0.0}), TypeError,
        r"params\['w'\] \(axis 'w0'\) is an array of integers", r"\.astype\(float\)",
        lambda: sweep(
        three_weights, leaf(jf.Axis("w0", np.ones((2, 3), int).astype(float)))
    )),
    "NaN at the start": Case(lambda: fit(params=leaf(with_(np.ones((2, 2)), (1, 0), np.nan))), ValueError,
        r"params\['layers'\]\[0\]\['w'\] is nan at index \(1, 0\)",
        "must start from finite numbers; give another start",
        lambda: fit(three_weights, leaf(np.zeros((2, 2))))),
    "infinity at the start": Case(lambda: fit(params={"w": -np.inf, "b": 0.0}), ValueError,
        r"params\['w'\] is -inf", "finite",
        lambda: fit(params={"w": -1.0, "b": 0.0})),
    "NaN in a tuple under an axis": Case(
        lambda: sweep(params=jf.Axis("start", [{"w": 1.0, "b": 0.0}, {"w": np.nan, "b": 0.0}])), ValueError,
        r"params\[1\]\['w'\] is nan", "finite",
        lambda: sweep(params=jf.Axis("start", [{"w": 1.0, "b": 0.0}, {"w": 2.0, "b": 0.0}]))),
    "a start beyond the precision": Case(lambda: fit(params={"w": 1e300, "b": 0.0}), ValueError,
        r"params\['w'\] is 1e\+300, too large for float32", 'other units, or precision="float64"',
        lambda: jf.fit(
        lambda p: (p["w"] * 1e-300 - 2.0) ** 2, {"w": 1e300}, optimizer=SGD, steps=1, precision="float64"
    )),
    "text": Case(lambda: fit(params={"w": "1.0", "b": 0.0}), TypeError,
        r"computes with params\['w'\] as with a number, but it is the text '1.0'", "give a number to fit",
        lambda: fit(params={"w": float("1.0"), "b": 0.0})),
    "a function": Case(lambda: fit(params={"w": jnp.tanh, "b": 0.0}), TypeError,
        r"computes with params\['w'\] as with a number, but it is a PjitFunction", "give a number to fit",
        lambda: fit(
        lambda p, x, y: own({"w": p["f"](p["w"]), "b": p["b"]}, x, y), {"w": 1.0, "f": jnp.tanh, "b": 0.0}
    )),
    "a key": Case(lambda: fit(params=KEY), TypeError, r"params is a PRNG key", r"jf\.Call\(init, key=key\)",
        lambda: fit(params=jf.Call(lambda key: {"w": jax.random.normal(key), "b": 0.0}, key=KEY))),
    "a key as a number": Case(lambda: fit(params={"w": KEY, "b": 0.0}), TypeError,
        r"computes with params\['w'\] .*is a PRNG key", "give a number to fit",
        lambda: fit(params={"w": 1.0, "b": 0.0})),
    "a function alone": Case(lambda: fit(params=jnp.tanh), TypeError,
        "params is the function tanh", r"jf\.Call\(function",
        lambda: fit(params=jf.Call(jf.models.line.init, key=KEY))),
    "a boolean alone": Case(lambda: fit(params=[True]), TypeError,
        r"params\[0\] is True, which stays as it is", "at least one number",
        lambda: fit(lambda p, x, y: jnp.mean((p[1] * x - y) ** 2), params=[True, 1.0])),
    "text within bounds": Case(lambda: fit(params={"w": jf.Bounded("1.0", 0, 2), "b": 0.0}), TypeError,
        r"params\['w'\] is the text '1.0'", "give it as one",
        lambda: fit(params={"w": jf.Bounded(1.0, 0, 2), "b": 0.0})),
    "a function within bounds": Case(lambda: fit(params={"w": jf.Bounded(jnp.tanh, 0, 2), "b": 0.0}), TypeError,
        r"params\['w'\] is the function tanh", "give a number",
        lambda: fit(params={"w": jf.Bounded(1.0, 0, 2), "b": 0.0})),
    "a key within bounds": Case(lambda: fit(params={"w": jf.Bounded(KEY, 0, 2), "b": 0.0}), TypeError,
        r"params\['w'\] is a PRNG key", r"jf\.Call\(init, key=key\)",
        lambda: fit(params=jf.Call(jf.models.line.init, key=KEY))),
    "booleans along an axis": Case(lambda: sweep(params={"w": 1.0, "b": 0.0, "f": jf.Axis("f", [True, False])}),
        TypeError, r"\['f'\] \(axis 'f'\) is boolean", r"jf\.Axis\(name, \[\{",
        lambda: sweep(
        params=jf.Axis("f", [{"w": 1.0, "b": 0.0, "f": True}, {"w": 1.0, "b": 0.0, "f": False}])
    )),
    "complex": Case(lambda: fit(params=leaf(1j)), TypeError, r"\['w'\] is complex", "real and imaginary",
        lambda: fit(two_weights, {"re": 1j.real, "im": 1j.imag})),
    "half precision": Case(lambda: fit(params=leaf(np.float16(1))), TypeError, r"\['w'\] is float16", "float32",
        lambda: fit(params={"w": np.float16(1).astype("float32"), "b": 0.0})),
    "an object": Case(lambda: fit(params=leaf(object())), TypeError,
        r"\['w'\] is <object.*\(object\)", "numbers or arrays",
        lambda: fit(three_weights, leaf(np.asarray([1, 2, 3], float)))),
    "nothing": Case(lambda: fit(params={}), ValueError, r"params is \{\}", "at least one number",
        lambda: fit(lambda p, x, y: own(p, x, y))),
    "only None": Case(lambda: fit(params=[{"w": None}]), ValueError,
        r"params is \[\{'w': None\}\]", "at least one number",
        lambda: fit(lambda p, x, y: jnp.mean((p[0]["w"] * x - y) ** 2), params=[{"w": 1.0}])),
    "a call that returns integers": Case(lambda: fit(params=jf.Call(lambda: {"w": jnp.arange(3)})), TypeError,
        r"params\['w'\] is an array of integers", r"\.astype\(float\)",
        lambda: fit(
        params=jf.Call(lambda: {"w": jnp.arange(3).astype(float).sum(), "b": 0.0})
    )),
    "a call per lane that returns integers": Case(
        lambda: sweep(params=jf.Call(lambda s: {"w": jnp.arange(3)}, jf.Axis("s", [1.0, 2.0]))), TypeError,
        r"params\['w'\] is an array of integers", r"\.astype\(float\)",
        lambda: sweep(
            lambda p, x, y: jnp.mean((p["w"].sum() * x - y) ** 2),
            params=jf.Call(lambda s: {"w": jnp.arange(3).astype(float) * s}, jf.Axis("s", [1.0, 2.0])))),
    "a call per lane that returns text": Case(
        lambda: sweep(params=jf.Call(lambda s: {"w": "1.0"}, jf.Axis("s", [1.0, 2.0]))), TypeError,
        r"params\['w'\] is the text '1.0'", "at least one number",
        lambda: sweep(params=jf.Call(lambda s: {"w": float("1.0") * s, "b": 0.0}, jf.Axis("s", [1.0, 2.0])))),
    "a call per lane that returns nothing": Case(
        lambda: sweep(params=jf.Call(lambda s: {}, jf.Axis("s", [1.0, 2.0]))), ValueError, r"params is \{\}",
        "at least one",
        lambda: sweep(params=jf.Call(lambda s: {"w": s, "b": 0.0}, jf.Axis("s", [1.0, 2.0])))),
    "a call of what was called": Case(lambda: jf.Call(jf.models.line.init(0)), TypeError,
        r"Call: function is \{.*cannot be called", r"Call\(init, key=0\)",
        lambda: fit(params=jf.Call(jf.models.line.init, key=0))),
    "a call with a list": Case(lambda: jf.Call(lambda sizes: 0.0, [1, 2]), TypeError,
        r"argument 0 is \[1, 2\]", "use a tuple",
        lambda: jf.Call(lambda sizes: 0.0, (1, 2))),
}  # fmt: skip


WRONG_LOSSES = {
    "not a function": Case(lambda: fit(3.0), TypeError, "loss is 3.0", r"function loss\(params, \*data\) -> scalar",
        lambda: fit(own)),
    "not scalar": Case(lambda: fit(lambda p, x, y: p["w"] * x - y), TypeError,
        r"the loss returned an array of shape \(8,\) and dtype float32", "must return a scalar; reduce it",
        lambda: fit(lambda p, x, y: jnp.mean((p["w"] * x + p["b"] - y) ** 2))),
    "integer": Case(lambda: fit(lambda p, x, y: jnp.argmax(p["w"] * x)), TypeError,
        "the loss returned a scalar of dtype int32", "must be a float",
        lambda: fit(lambda p, x, y: jnp.max(p["w"] * x) ** 2 + p["b"] ** 2)),
    "boolean": Case(lambda: fit(lambda p, x, y: p["w"] > 0), TypeError, "scalar of dtype bool", "must be a float",
        lambda: fit(lambda p, x, y: jnp.maximum(p["w"], 0) + p["b"] ** 2)),
    "a tuple": Case(lambda: fit(lambda p, x, y: (own(p, x, y), y)), TypeError,
        "the loss returned a tuple", "one scalar",
        lambda: fit(lambda p, x, y: (own(p, x, y), y)[0])),
    "nothing": Case(lambda: fit(lambda p, x, y: None), TypeError, "the loss returned None", "one scalar",
        lambda: fit(lambda p, x, y: own(p, x, y))),
    "a model": Case(lambda: fit(jf.models.line), TypeError,
        r"takes \(params, x\), but data has 2 items", r"jf\.losses\.mse\(model\)",
        lambda: fit(jf.losses.mse(jf.models.line))),
    "NaN at the start": Case(lambda: fit(log_of_b), ValueError,
        "loss at the start is nan: params", "start from params at which",
        lambda: fit(log_of_b, {"w": 1.0, "b": 3.0})),
    "infinite at the start": Case(lambda: fit(lambda p, x, y: 1 / p["b"] + p["w"]), ValueError,
        "loss at the start is inf: params", "start from params at which it is finite",
        lambda: fit(lambda p, x, y: 1 / p["b"] ** 2 + p["w"] ** 2, {"w": 1.0, "b": 3.0})),
    "a swept number out of its range": Case(
        lambda: sweep(jf.losses.huber(jf.models.line, delta=jf.Axis("delta", [1.0, -1.0]))), ValueError,
        r"delta is -1.0 \(value 1 of axis 'delta'\)", "must be finite, and positive",
        lambda: sweep(
        jf.losses.huber(jf.models.line, delta=jf.Axis("delta", [1.0, 2.0])), START
    )),
    "a key is missing": Case(lambda: fit(jf.losses.mse(noisy)), ValueError,
        "key is None, but the loss takes a key", "key=0",
        lambda: fit(jf.losses.mse(lambda p, x, *, key: noisy(p, x, key=key) + p["b"]), key=0)),
}  # fmt: skip


def rate(value):
    return lambda: jf.optimizers.adam(value)


WRONG_OPTIMIZERS = {
    **{
        f"learning rate {value!r}": Case(
            rate(value), ValueError, rf"adam: learning_rate is {re.escape(str(value))}", "positive, finite number",
        lambda: jf.optimizers.adam(0.01))
        for value in (-0.1, 0.0, 0, np.nan, np.inf)
    },
    **{
        f"learning rate {value!r}": Case(
            rate(value), TypeError,
            r"adam: learning_rate is .* \((str|bool|list|complex|ndarray)\)", "positive, finite number",
        lambda: jf.optimizers.adam(0.01))
        for value in ("0.1", True, [0.1, 0.2], 0.1j, np.array([0.1, 0.2]))
    },
    "learning rate under an axis": Case(rate(jf.Axis("rate", [0.1, 0.0])), ValueError,
        r"learning_rate is 0.0 \(value 1 of axis 'rate'\)", "positive",
        lambda: jf.optimizers.adam(jf.Axis("rate", [0.1, 0.01]))),
    "a schedule and a number": Case(lambda: jf.Axis("rate", [lambda t: 0.1, 0.1]), ValueError,
        "Axis 'rate': value 1 is 0.1", "of one kind",
        lambda: jf.Axis("rate", [lambda t: 0.1, lambda t: 0.2])),
    "learning rate of zero in float32": Case(lambda: fit(optimizer=jf.optimizers.sgd(1e-50)), ValueError,
        "learning_rate is 1e-50, which float32 cannot hold", 'precision="float64"',
        lambda: fit(optimizer=jf.optimizers.sgd(1e-50), precision="float64")),
    **{
        f"momentum {value!r}": Case(
            lambda v=value: jf.optimizer(optax.sgd, learning_rate=0.1, momentum=v), error,
            rf"sgd: momentum is '?{value}", r"in \[0, 1\)",
        lambda: jf.optimizer(optax.sgd, learning_rate=0.1, momentum=0.9))
        for error, values in ((ValueError, (1.0, -0.1, np.nan)), (TypeError, (True, "0.9"))) for value in values
    },
    "beta of one": Case(lambda: jf.optimizers.momentum(0.1, 1.0), ValueError, "momentum: beta is 1.0", r"in \[0, 1\)",
        lambda: jf.optimizers.momentum(0.1, 0.9)),
    "b1 beyond one": Case(lambda: jf.optimizers.adam(0.1, b1=1.5), ValueError, "adam: b1 is 1.5", r"in \[0, 1\)",
        lambda: jf.optimizers.adam(0.1, b1=0.5)),
    "NaN anywhere": Case(lambda: jf.optimizers.adam(0.1, eps=np.nan), ValueError,
        "adam: eps is nan", "must be a number",
        lambda: jf.optimizers.adam(0.1, eps=1e-8)),
    "a hyperparameter it does not take": Case(lambda: jf.optimizer(optax.adam, learning_rat=0.1), TypeError,
        "adam takes no hyperparameter 'learning_rat'", "did you mean learning_rate",
        lambda: jf.optimizer(optax.adam, learning_rate=0.1)),
    "a keyword it does not take": Case(lambda: jf.optimizers.adam(0.1, beta1=0.9), TypeError,
        "adam has no argument 'beta1'", "mean b1",
        lambda: fit(optimizer=jf.optimizers.adam(0.1, b1=0.9))),
    "a hyperparameter is missing": Case(lambda: jf.optimizer(optax.adam), TypeError,
        "adam needs the hyperparameter 'learning_rate'", "write learning_rate=0.1",
        lambda: fit(optimizer=jf.optimizer(optax.adam, learning_rate=0.1))),
    "no such optimizer": Case(lambda: jf.optimizers.adma, AttributeError,
        "has no 'adma'", "did you mean adam.*There are: sgd",
        lambda: jf.optimizers.adam),
    "text": Case(lambda: fit(optimizer="Adam"), TypeError,
        "optimizer is the text 'Adam'", r"jf\.optimizers.*did you mean adam",
        lambda: fit(optimizer=jf.optimizers.adam(0.1))),
    "not called": Case(lambda: fit(optimizer=jf.optimizers.adam), TypeError,
        "optimizer is the function adam", r"call it: jf\.optimizers\.adam\(",
        lambda: fit(optimizer=jf.optimizers.adam(0.1))),
    "a factory": Case(lambda: fit(optimizer=optax.lbfgs), TypeError,
        "optimizer is the function lbfgs", r"call it: jf\.optimizers\.lbfgs\(\)",
        lambda: fit(optimizer=jf.optimizers.lbfgs())),
    "a number": Case(lambda: fit(optimizer=0.1), TypeError, "optimizer is 0.1", r"must be jf\.optimizer",
        lambda: fit(optimizer=jf.optimizers.adam(0.1))),
    "a factory that is none": Case(lambda: jf.optimizer("adam", learning_rate=0.1), TypeError,
        "factory is 'adam'", "such as optax.adam",
        lambda: jf.optimizer(optax.adam, learning_rate=0.1)),
    "a factory that returns a number": Case(
        lambda: fit(optimizer=jf.optimizer(lambda learning_rate: 3, learning_rate=0.1)), TypeError,
        "optimizer: <lambda> returned 3", "must return an Optax transformation",
        lambda: fit(optimizer=jf.optimizer(lambda learning_rate: optax.sgd(learning_rate), learning_rate=0.1))),
    "a schedule that returns NaN": Case(lambda: fit(optimizer=jf.optimizers.sgd(lambda t: jnp.nan)), ValueError,
        "learning_rate: the schedule returned nan at step 0", "must be finite",
        lambda: fit(optimizer=jf.optimizers.sgd(lambda t: 0.0))),
    "a schedule that turns infinite": Case(lambda: fit(optimizer=jf.optimizers.sgd(lambda t: 1 / (2 - t))), ValueError,
        "learning_rate: the schedule returned inf at step 2", "must be finite",
        lambda: fit(optimizer=jf.optimizers.sgd(lambda t: 0.1 / (1 + t)))),
    "a schedule that climbs": Case(lambda: fit(optimizer=jf.optimizers.sgd(lambda t: 0.1 - t)), ValueError,
        "learning_rate: the schedule returned -1.9", "zero or more",
        lambda: fit(optimizer=jf.optimizers.sgd(lambda t: jnp.maximum(0.1 - t, 0)))),
    "a schedule that returns a shape": Case(lambda: fit(optimizer=jf.optimizers.sgd(lambda t: jnp.ones(3))), ValueError,
        r"learning_rate: the schedule returned shape \(3,\) at step 0", "one number, a scalar",
        lambda: fit(optimizer=jf.optimizers.sgd(lambda t: 0.1 * jnp.ones(3)[0]))),
    "a schedule that returns nothing": Case(lambda: sweep(optimizer=jf.optimizers.sgd(lambda t: None)), ValueError,
        "learning_rate: the schedule returned None", "one number",
        lambda: sweep(optimizer=jf.optimizers.sgd(lambda t: 0.1))),
}  # fmt: skip


def step(opt_state):
    return jf.step(LOSS, START, (X, Y), optimizer=jf.optimizers.momentum(0.1), opt_state=opt_state)


def calls_jnp(params, x, y):
    return params["w"] * x


def calls_numpy_too(a, params, x, y):
    return a * np.sin(params["w"])


WRONG_SETTINGS = {
    **{
        f"steps {value!r}": Case(
            lambda v=value: fit(steps=v), ValueError,
            f"^steps is {re.escape(repr(value))}", rf"whole number from 1 to 2,147,483,647, such as {such}$",
        lambda n=such: fit(steps=min(int(n.replace(",", "")), 100)))
        for value, such in (
            (0, "1"), (-3, "1"), (2.5, "2"), (2**31, "2,147,483,647"), ("10", "100"), (True, "100"), (None, "100"),
            (np.inf, "100"))
    },
    "no such argument": Case(lambda: fit(step=10), TypeError, "fit has no argument 'step'", "did you mean steps",
        lambda: fit(steps=10)),
    "no such argument of a sweep": Case(lambda: sweep(batch=10), TypeError,
        "sweep has no argument 'batch'", "did you mean batches",
        lambda: sweep(batches=jf.Batches(4), key=0)),
    "data as two arguments": Case(lambda: jf.fit(LOSS, START, X, Y, optimizer=SGD), TypeError,
        r"fit takes 3 arguments by position \(loss, params, data\), but got 4", "one tuple",
        lambda: jf.fit(LOSS, START, (X, Y), optimizer=SGD, steps=2)),
    "no such precision": Case(lambda: fit(precision="float16"), ValueError,
        "precision is 'float16'", 'must be "float32" or "float64"',
        lambda: fit(precision="float32")),
    "precision as a type": Case(lambda: fit(precision=np.float64), ValueError,
        "precision is <class", 'must be "float32" or',
        lambda: fit(precision="float64")),
    "no such rule": Case(lambda: jf.Stop(loss_bellow=0.1), TypeError,
        "Stop has no argument 'loss_bellow'", "did you mean loss_below",
        lambda: jf.Stop(loss_below=0.1)),
    "a rule that is text": Case(lambda: fit(stop=jf.Stop(loss_below="low")), ValueError,
        "Stop: loss_below is 'low'", "must be a number",
        lambda: fit(stop=jf.Stop(loss_below=1e-3))),
    "a rule that is NaN": Case(lambda: fit(stop=jf.Stop(loss_above=np.nan)), ValueError,
        "Stop: loss_above is nan", "must be a number",
        lambda: fit(stop=jf.Stop(loss_above=None))),
    "a rule that is never met": Case(lambda: fit(stop=jf.Stop(gradient_norm_below=0.0)), ValueError,
        "Stop: gradient_norm_below is 0.0", "must be positive",
        lambda: fit(stop=jf.Stop(gradient_norm_below=1e-4))),
    "patience without validation": Case(lambda: fit(stop=jf.Stop(patience=3)), ValueError,
        "Stop: patience", r"pass validation=\(x, y\)",
        lambda: fit(stop=jf.Stop(patience=3), validation=(X, Y))),
    "half a patience": Case(lambda: fit(stop=jf.Stop(patience=1.5), validation=(X, Y)), ValueError,
        "patience is 1.5", "whole number",
        lambda: fit(stop=jf.Stop(patience=1), validation=(X, Y))),
    "a rule instead of rules": Case(lambda: fit(stop=1e-3), TypeError, "stop is 0.001", r"jf\.Stop\(",
        lambda: fit(stop=jf.Stop(gradient_norm_below=1e-4))),
    "a record of something unknown": Case(lambda: jf.Record(what=("loss", "weights")), ValueError,
        "what has 'weights'", "takes 'loss', 'params'",
        lambda: jf.Record(what=("loss", "params"))),
    "a record twice": Case(lambda: jf.Record(what=(own, own)), ValueError,
        "what has 'own' as item 1", "a name|one of its own",
        lambda: jf.Record(what=(own, calls_jnp))),
    "a record of a vector": Case(lambda: fit(record=jf.Record(what=(calls_jnp,))), TypeError,
        r"record: calls_jnp returned an array of shape \(8,\)", "must return a scalar; reduce it",
        lambda: fit(record=jf.Record(what=(lambda p, x, y: jnp.mean(calls_jnp(p, x, y)),)))),
    "a record by NumPy": Case(lambda: fit(record=jf.Record(what=(functools.partial(calls_numpy_too, 2),))), TypeError,
        r"test_bad_inputs_\w+\.py, line \d+, `return a \* np\.sin", "use jax.numpy",
        lambda: fit(record=jf.Record(what=(lambda p, x, y: 2 * jnp.sin(p["w"]),)))),
    "a record every half step": Case(lambda: jf.Record(every=0.5), ValueError,
        "Record: every is 0.5", "whole number from 1",
        lambda: jf.Record(every=1)),
    "a record as a word": Case(lambda: fit(record="loss"), TypeError, "record is 'loss'", r"jf\.Record\(",
        lambda: fit(record=jf.Record(what=("loss",)))),
    "a record of validation without any": Case(lambda: fit(record=jf.Record(what="validation_loss")), ValueError,
        'record asks for "validation_loss"', r"pass validation=\(x, y\)",
        lambda: fit(
        record=jf.Record(what="validation_loss"), validation=(X, Y)
    )),
    **{
        f"batch size {value!r}": Case(
            lambda v=value: jf.Batches(size=v), ValueError,
            f"Batches: size is {re.escape(repr(value))}", "whole number from 1",
        lambda: jf.Batches(size=2))
        for value in (0, -4, 2.5, "8")
    },
    "a batch larger than the data": Case(lambda: fit(batches=jf.Batches(size=9), key=0), ValueError,
        "batches: size is 9, but the data have 8 points", "from 1 to 8",
        lambda: fit(batches=jf.Batches(size=8), key=0)),
    "a batch size larger than the data under an axis": Case(
        lambda: sweep(params=START, batches=jf.Batches(size=jf.Axis("size", [2, 9])), key=0), ValueError,
        r"size is 9 \(value 1 of axis 'size'\)", "from 1 to 8",
        lambda: sweep(params=START, batches=jf.Batches(size=jf.Axis("size", [2, 8])), key=0)),
    "batches as a number": Case(lambda: fit(batches=4, key=0), TypeError, "batches is 4", r"jf\.Batches\(size=32\)",
        lambda: fit(batches=jf.Batches(size=4), key=0)),
    "batches neither with nor without replacement": Case(lambda: jf.Batches(size=4, replace="no"), TypeError,
        "Batches: replace is 'no'", "True or False",
        lambda: jf.Batches(size=4, replace=False)),
    "batches without a key": Case(lambda: fit(batches=jf.Batches(size=4)), ValueError,
        "key is None, but batches", "key=0",
        lambda: fit(batches=jf.Batches(size=4), key=0)),
    **{
        f"seed {value!r}": Case(
            lambda v=value: fit(key=v), error,
            f"key is {re.escape(repr(value))}", r"integer seed of 0 to 2\*\*32 - 1, or a key made by jax.random.key",
        lambda: fit(batches=jf.Batches(size=4), key=2**32 - 1))
        for error, values in ((ValueError, (-1, 2**32, 1.5)), (TypeError, (True, "0"))) for value in values
    },
    "many keys": Case(lambda: fit(key=jax.random.split(KEY, 3)), ValueError,
        r"key holds keys of shape \(3,\)", r"choose one, such as key\[0\]",
        lambda: fit(batches=jf.Batches(size=4), key=jax.random.split(KEY, 3)[0])),
    "a state of another optimizer": Case(lambda: step(optax.adam(0.1).init(START)), ValueError,
        r"opt_state has the leaves \[0\]\.count, .* need \[0\]\.trace\['b'\]", "opt_state of the step before",
        lambda: jf.step(
        LOSS, START, (X, Y), optimizer=MOMENTUM,
        opt_state=jf.step(LOSS, START, (X, Y), optimizer=MOMENTUM).opt_state,
    )),
    "a state of another shape": Case(
        lambda: step(optax.sgd(0.1, momentum=0.9).init({"w": jnp.ones(2), "b": 0.0})), ValueError,
        r"opt_state\[0\]\.trace\['w'\] has shape \(2,\), but these params need \(\)", "opt_state of the step before",
        lambda: step(step(None).opt_state)),
}  # fmt: skip

# A start can only be judged by evaluating the loss there.
EVALUATED = ("loss: NaN at the start", "loss: infinite at the start")
CASES = named({"params": WRONG_PARAMS, "loss": WRONG_LOSSES, "optimizer": WRONG_OPTIMIZERS, "setting": WRONG_SETTINGS})


@pytest.mark.parametrize("name", CASES)
def test_bad_params_losses_and_settings_are_refused_with_the_argument_and_the_remedy_before_anything_compiles(
    name, events
):
    check(CASES[name], events, may_compile=name in EVALUATED)


# What the messages say to do instead, word for word


def three_weights(params, x, y):
    return jnp.mean(jnp.square(jnp.sum(params["layers"][0]["w"]) * x + params["b"] - y))


def two_weights(params, x, y):
    return jnp.mean(jnp.square(params["re"] * x + params["im"] - y))


MOMENTUM = jf.optimizers.momentum(0.1)


KEPT = [  # one of each kind, and those that share a program
    "params: half precision", "params: nothing", "params: a call of what was called",
    "params: a call with a list", "loss: not a function", "loss: a model", "optimizer: text", "optimizer: not called",
    "setting: steps 2.5", "setting: no such argument", "setting: data as two arguments", "setting: no such precision",
    "setting: a record as a word", "setting: many keys",
]  # fmt: skip


FREE = [  # which compile nothing
    name for name in CASES if name.startswith(
        ("optimizer: learning rate -", "optimizer: momentum", "optimizer: b", "setting: batch size")
    )
]  # fmt: skip


@pytest.mark.parametrize("name", soaking(CASES, keep=KEPT + FREE))
def test_the_remedy_of_a_message_about_params_losses_and_settings_works(name):
    assert follows(CASES[name].mended)


# Input that is odd, and works


@functools.cache
def reference():
    return fit()


GOOD_PARAMS = {
    "integer scalars": {"w": 1, "b": 0},
    "NumPy's scalars": {"w": np.float64(1), "b": np.int8(0)},
    "mixed precision": {"w": np.float64(1), "b": np.float32(0)},
    "JAX's integers": {"w": jnp.int32(1), "b": jnp.float32(0)},
    "None as an empty subtree": {"w": 1.0, "b": 0.0, "scale": None},
    "big-endian": {"w": np.array(1.0, ">f8"), "b": np.array(0, ">i4")},
    "a call": jf.Call(lambda: {"w": 1, "b": 0.0}),
}


@pytest.mark.parametrize("params", GOOD_PARAMS.values(), ids=GOOD_PARAMS)
def test_params_of_any_make_become_floats_of_the_precision(params):
    found = fit(params=params)
    assert all(found.params[k] == reference().params[k] and found.params[k].dtype == np.float32 for k in "wb")
    wide = fit(params=params, precision="float64")
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(wide.params))


def test_integer_scalars_become_floats_inside_a_jit_and_in_the_lanes_of_a_call():
    inside = jax.jit(lambda w: fit(params={"w": w, "b": 0}).params["w"])(1)
    np.testing.assert_allclose(inside, reference().params["w"], rtol=1e-6)
    lanes = sweep(params=jf.Call(lambda w: {"w": w, "b": 0}, jf.Axis("w0", [1.0, 2.0])))
    np.testing.assert_allclose(lanes.results["params.w"][0], reference().params["w"], rtol=1e-6)


GOOD_SETTINGS = {
    "whole rates": {"optimizer": jf.optimizers.sgd(1), "steps": 1},
    "NumPy's rate": {"optimizer": jf.optimizers.sgd(np.float32(0.1))},
    "JAX's rate": {"optimizer": jf.optimizers.sgd(jnp.array(0.1))},
    "a rate that ends at zero": {"optimizer": jf.optimizers.sgd(optax.linear_schedule(0.1, 0.0, 2))},
    "NumPy's steps": {"steps": np.int64(3)},
    "JAX's steps": {"steps": jnp.int32(3)},
    "steps as a float": {"steps": 3.0},
    "a seed": {"key": 2**32 - 1, "batches": jf.Batches(size=8)},
    "NumPy's seed": {"key": np.uint32(7), "batches": jf.Batches(size=np.int64(2))},
    "a key": {"key": KEY, "batches": jf.Batches(size=1, replace=True)},
    "a key of the old form": {"key": jax.random.PRNGKey(0), "batches": jf.Batches(size=3)},
    "NumPy's threshold": {"stop": jf.Stop(loss_below=np.float64(1e-3))},
    "an order of its own": {"record": jf.Record(what=("params", "loss"))},
}


COMPILES = ["a rate that ends at zero", "a seed", "a key", "a key of the old form", "NumPy's threshold"]


@pytest.mark.parametrize("name", soaking(GOOD_SETTINGS, but=COMPILES))
def test_settings_of_any_make_work(name):
    keywords = GOOD_SETTINGS[name]
    found = fit(**keywords)
    assert np.isfinite(found.loss) and found.steps == keywords.get("steps", 3)


# Warnings


def many_lambdas():
    for _ in range(6):
        fit(lambda params, x, y: jnp.mean(jnp.square(params["w"] * x + params["b"] - y)))


def three(change):
    return lambda p, x, y: own({"w": change(p["w"]), "b": p["b"]}, x, y)


WARNINGS = {
    "a leaf that is not used": (lambda: fit(params=START | {"c": [1.0, 2.0]}),
        r"params\['c'\]\[0\], params\['c'\]\[1\] .*they"),
    "round": (lambda: fit(three(jnp.round)), r"depend on params\['w'\] .*identically zero, so it will not move"),
    "argmax": (lambda: fit(three(lambda w: jnp.argmax(jnp.stack([w, 0.0])))), r"depend on params\['w'\]"),
    "a comparison": (lambda: fit(three(lambda w: jnp.where(w > 0, 1.0, 2.0))), r"depend on params\['w'\]"),
    "stop_gradient": (lambda: fit(three(jax.lax.stop_gradient)), r"depend on params\['w'\]"),
    "a leaf that is not used in any lane": (lambda: sweep(three(jax.lax.stop_gradient)), r"depend on params\['w'\]"),
    "a gradient norm below the precision": (lambda: fit(stop=jf.Stop(gradient_norm_below=1e-12)),
        r'gradient_norm_below=1e-12 .*raise it, or use precision="float64"'),
    "a change below the precision": (lambda: fit(stop=jf.Stop(params_change_below=1e-30), precision="float64"),
        "params_change_below=1e-30 .*raise it$"),
    "a loss below the precision": (lambda: fit(stop=jf.Stop(loss_below=1e-60)),
        'loss_below=1e-60 .*precision="float64"'),
    "the same lambda again and again": (many_lambdas,
        "`many_lambdas.<locals>.<lambda>` has been compiled 5 times.*define it once"),
}  # fmt: skip


COMPILES = [
    "round", "argmax", "a comparison", "a leaf that is not used in any lane", "a change below the precision",
    "a loss below the precision",
]  # fmt: skip


@pytest.mark.parametrize("name", soaking(WARNINGS, but=COMPILES))
def test_what_is_doubtful_warns_once_at_the_callers_line(name):
    call, text = WARNINGS[name]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    assert len(found) == 1 and re.search(text, str(found[0].message)), [str(w.message) for w in found]
    assert found[0].filename == bad_inputs.__file__


def test_a_new_lambda_in_every_call_does_not_fill_the_memory():
    alive = []
    for i in range(3):
        loss = lambda p, x, y, i=i: own(p, x, y) + i  # noqa: E731
        alive.append(weakref.ref(loss))
        fit(loss)
    del loss
    gc.collect()
    assert all(ref() is not None for ref in alive)
    single.run_programs_of.cache_clear()  # of which it holds a bounded number, and nobody else holds a function
    gc.collect()
    assert not any(ref() for ref in alive) and single.run_programs_of.cache_parameters()["maxsize"] <= 64
