"""Bad input is refused in words that help, odd input works, and trouble in a run is a status that says what to do."""

import functools
import gc
import inspect
import logging
import os
import re
import subprocess
import sys
import warnings
import weakref
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit import programs, sweeps, workers
from tests.soak import soaking

X = np.linspace(0.0, 1.0, 8)
Y = 2.0 * X + 1.0
START = {"w": 1.0, "b": 0.0}
SGD = jf.optimizers.sgd(0.1)
LOSS = jf.losses.mse(jf.models.line)
MASKED = jf.losses.mse(jf.models.line, masked=True)
KEY = jax.random.key(0)


def fit(loss=LOSS, params=START, data=(X, Y), **keywords):
    return jf.fit(loss, params, data, **({"optimizer": SGD, "steps": 3} | keywords))


def sweep(loss=LOSS, params=None, data=(X, Y), **keywords):
    params = {"w": jf.Axis("w0", [0.0, 1.0]), "b": 0.0} if params is None else params
    return jf.sweep(loss, params, data, **({"optimizer": SGD, "steps": 3} | keywords))


def with_(array, index, value):
    new = np.array(array)
    new[index] = value
    return new


def own(params, x, y):
    return jnp.mean(jnp.square(params["w"] * x + params["b"] - y))


def leaf(value):
    return {"layers": [{"w": value}], "b": 0.0}


def leaked(make):
    kept = []
    make(lambda z: kept.append(z) or z)(jnp.ones(2) if make is jax.vmap else 1.0)
    return kept[0]


OF_JIT, OF_GRAD, OF_VMAP = leaked(jax.jit), leaked(jax.grad), leaked(jax.vmap)

# Models and losses that cannot be trained, each for one reason


def calls_numpy(params, x):
    return np.sin(params["w"] * x) + params["b"]


def decides(params, x):
    return params["w"] * x if params["w"] > 0 else params["b"] * x


def needs_number(params, x):
    return float(params["w"]) * x + params["b"]


def loops(params, x):
    return sum(params["w"] * x for _ in range(params["b"]))


def draws(params, x):
    return params["w"] * x + np.random.default_rng().normal(size=8)


def draws_one(params, x):
    return params["w"] * x + np.random.default_rng().normal()


def counts(params, x, seen=[]):  # noqa: B006 (on purpose)
    seen.append(1)
    return params["w"] * x * len(seen)


def raises(params, x):
    raise RuntimeError("the spectrometer is off")


def predicts_column(params, x):
    return (params["w"] * x)[:, None]


def predicts_tuple(params, x):
    return params["w"] * x, params["b"]


def noisy(params, x, *, key):
    return params["w"] * x + jax.random.normal(key, x.shape)


def log_of_b(params, x, y):
    return jnp.log(params["b"] - 1.0) + params["w"]


def line_number(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def at(function, text):
    return rf"test_bad_inputs\.py, line {line_number(function, text)}, `.*{re.escape(text)}"


class Case(NamedTuple):
    call: Any
    error: type
    argument: str  # regex: what is wrong, and what came
    remedy: str  # regex: the rule, and what to do


WRONG_DATA = {
    "NaN in x": Case(lambda: fit(data=(with_(X, 3, np.nan), Y)), ValueError,
        r"data\[0\] \(x\) has 1 of 8 values that are not finite, the first at index 3 \(nan\)",
        "drop those rows.*masked=True"),
    "infinity in y": Case(lambda: fit(data=(X, with_(Y, [2, 5], -np.inf))), ValueError,
        r"data\[1\] \(y\) has 2 of 8 .* index 2 \(-inf\)", "drop those rows.*masked=True"),
    "NaN in a matrix": Case(
        lambda: fit(own, data=(np.ones((8, 2)), with_(np.ones((8, 2)), (1, 1), np.nan))), ValueError,
        r"data\[1\] \(y\) has 1 of 16 .* index \(1, 1\)", "drop"),
    "NaN in a JAX array": Case(lambda: fit(data=(jnp.asarray(X).at[7].set(jnp.nan), Y)), ValueError,
        r"data\[0\] \(x\) .* index 7", "drop"),
    "NaN in a dict": Case(
        lambda: fit(lambda p, d: own(p, d["x"], d["y"]), data=({"x": X, "y": Y * np.nan},)), ValueError,
        r"data\[0\]\['y'\] .*has 8 of 8", "drop"),
    "NaN in a row that counts": Case(lambda: fit(MASKED, data=(X, with_(Y, 0, np.nan), X > -1)), ValueError,
        r"data\[1\] \(y\) .* index 0", "masked"),
    "NaN in the validation data": Case(lambda: fit(validation=(X, Y * np.inf)), ValueError,
        r"validation\[1\] \(y\) has 8 of 8", "drop"),
    "x and y of different length": Case(lambda: fit(data=(X, Y[:5])), ValueError,
        r"data differ in length: data\[0\] \(x\) has shape \(8,\), data\[1\] \(y\) has shape \(5,\)",
        "one entry per data point"),
    "different length in a loss of one's own": Case(lambda: fit(own, data=(X, Y[:5])), ValueError,
        r"data differ in length.*\(8,\).*\(5,\)", "one entry per data point"),
    "different length in batches": Case(
        lambda: fit(own, data=(X, Y[:5]), batches=jf.Batches(size=2), key=0), ValueError, r"\(8,\).*\(5,\)",
        "one entry per"),
    "validation of different length": Case(lambda: fit(own, validation=(X, Y[:5])), ValueError,
        r"validation differ in length.*\(8,\).*\(5,\)", "one entry per"),
    "a column against a row": Case(lambda: fit(data=(X, Y[:, None])), ValueError,
        r"prediction has shape \(8,\), the target y \(8, 1\)", r"never broadcasts.*pass y\[:, 0\]"),
    "one target for all": Case(lambda: fit(data=(X, Y[:1])), ValueError, r"\(8,\).*\(1,\)", "one entry per"),
    "validation as a column": Case(lambda: fit(validation=(X, Y[:, None])), ValueError,
        r"validation: .*\(8,\).*\(8, 1\)", "y.:, 0."),
    "a model that returns a column": Case(lambda: fit(jf.losses.mse(predicts_column)), ValueError,
        r"prediction has shape \(8, 1\), the target y \(8,\)",
        r"return predictions of shape \(8,\).*prediction\[:, 0\]"),
    "a model that returns a tuple": Case(lambda: fit(jf.losses.mse(predicts_tuple)), TypeError,
        "predict returned a tuple", "must return one array"),
    "empty arrays": Case(lambda: fit(data=(X[:0], Y[:0])), ValueError,
        r"data\[0\] \(x\) has shape \(0,\)", "at least one point"),
    "no arrays": Case(lambda: fit(data=()), ValueError, "data holds no array", r"pass data=\(x, y\)"),
    "one array too few": Case(lambda: fit(data=(X,)), TypeError,
        r"takes the data \(x, y\), but got 1 array;", r"takes \(x, y\)"),
    "one array too many": Case(lambda: fit(own, data=(X, Y, Y)), TypeError,
        r"takes \(params, x, y\), but data has 3 items", "tuple handed to the loss after params"),
    "a mask that counts nothing": Case(lambda: fit(MASKED, data=(X, Y, X > 9)), ValueError,
        r"data\[2\] \(where\) is False everywhere", "mark at least one row"),
    "a mask of numbers": Case(lambda: fit(MASKED, data=(X, Y, np.ones(8, int))), TypeError,
        "where holds int32 values", r"where\.astype\(bool\)"),
    "an array instead of a tuple": Case(lambda: fit(data=X), TypeError,
        r"data is one array of shape \(8,\)", r"write data=\(x, y\)"),
    "a dict instead of a tuple": Case(lambda: fit(data={"x": X}), TypeError,
        r"data is .* \(dict\)", r"write data=\(x, y\)"),
    "no data at all": Case(lambda: fit(data=None), TypeError, "data is None", r"write data=\(x, y\)"),
    "x in a tuple of its own": Case(lambda: fit(data=((X, X), Y)), TypeError,
        r"data\[0\] \(x\) is a tuple of arrays", "takes one array there; join them"),
    "text": Case(lambda: fit(data=(X, ["1", "2", "3"])), TypeError,
        r"data\[1\] holds text", r"must be numbers.*astype\(float\)"),
    "bytes": Case(lambda: fit(data=(X, np.array([b"1"] * 8))), TypeError, r"data\[1\] holds bytes", "must be numbers"),
    "objects": Case(lambda: fit(data=(X, [None] * 8)), TypeError, r"data\[1\] holds objects", "must be numbers"),
    "dates": Case(lambda: fit(data=(np.arange(8).astype("datetime64[D]"), Y)), TypeError,
        r"data\[0\] holds dates", r"\.astype"),
    "complex numbers": Case(lambda: fit(data=(X, Y * 1j)), TypeError,
        r"data\[1\] is complex", "real and imaginary parts"),
    "complex numbers of JAX": Case(lambda: fit(data=(jnp.asarray(X + 1j), Y)), TypeError,
        r"data\[0\] is complex", "real"),
    "a masked array": Case(lambda: fit(data=(X, np.ma.masked_greater(Y, 2.0))), TypeError,
        r"data\[1\] is a masked array", r"\(x, y, ~y\.mask\).*masked=True"),
    "a ragged list": Case(lambda: fit(data=([[1.0], [1.0, 2.0]], Y)), ValueError, r"data\[0\] is ragged", "one length"),
    "a call among the data": Case(lambda: fit(data=(jf.Call(lambda: X), Y)), TypeError,
        r"data\[0\] is Call", "stands for params"),
    "integers beyond 32 bits": Case(lambda: fit(data=(np.array([1, 2**40] * 4), Y)), ValueError,
        r"data\[0\] \(x\) has whole numbers up to 1,099,511,627,776", r"do not fit.*astype\(float\)"),
    "unsigned beyond 32 bits": Case(lambda: fit(data=(X, np.full(8, 2**31, np.uint32))), ValueError,
        r"data\[1\] \(y\) has whole numbers up to 2,147,483,648", 'precision="float64"'),
    "unsigned beyond 64 bits": Case(
        lambda: fit(data=(X, np.full(8, 2**63, np.uint64)), precision="float64"), ValueError,
        r"data\[1\] \(y\) has whole numbers", r"astype\(float\)$"),
    "an axis": Case(lambda: fit(params={"w": jf.Axis("w0", [1.0]), "b": 0.0}), ValueError, r"Axis\('w0'", "call sweep"),
}  # fmt: skip

WRONG_MODELS = {
    "NumPy in the model": Case(lambda: fit(jf.losses.mse(calls_numpy)), TypeError,
        at(calls_numpy, "np.sin(params"), "hands a traced value to NumPy.*use jax.numpy"),
    "a decision by a traced value": Case(lambda: fit(jf.losses.mse(decides)), TypeError,
        at(decides, 'if params["w"] > 0'), r"use jnp\.where\("),
    "the number of a traced value": Case(lambda: fit(jf.losses.mse(needs_number)), TypeError,
        at(needs_number, "float(params"), "not known yet.*jnp arrays"),
    "a loop over a traced value": Case(lambda: fit(jf.losses.mse(loops)), TypeError,
        at(loops, 'range(params["b"])'), "not known yet.*jnp arrays"),
    "an array of NumPy's random numbers": Case(lambda: fit(jf.losses.mse(draws)), TypeError,
        "loss is not pure.*" + at(draws, "default_rng().normal(size=8)"), "jax.random.*argument named `key`"),
    "one of NumPy's random numbers": Case(lambda: fit(jf.losses.mse(draws_one)), TypeError,
        "loss is not pure.*" + at(draws_one, "default_rng().normal()"), "jax.random.*argument named `key`"),
    "a model with a state": Case(lambda: fit(jf.losses.mse(counts)), TypeError,
        "loss is not pure.*" + at(counts, "len(seen)"), "keep no state outside"),
    "a model with an error of its own": Case(lambda: fit(jf.losses.mse(raises)), RuntimeError,
        "spectrometer", "^the spectrometer is off$"),
    "a value leaked out of a jit": Case(lambda: fit(lambda p, x, y: own(p, x, y) * OF_JIT), ValueError,
        "the loss uses a value that leaked out", "pass them as data"),
    "a value leaked out of a grad": Case(
        lambda: fit(jf.losses.mse(lambda p, x: p["w"] * x * OF_GRAD)), ValueError,
        "uses a value that leaked out", "pass them as data"),
    "a value leaked out of a vmap": Case(lambda: fit(lambda p, x, y: own(p, x, y) * OF_VMAP), ValueError,
        "uses a value that leaked out", "pass them as data"),
    "a leaked value in a sweep": Case(lambda: sweep(lambda p, x, y: own(p, x, y) * OF_JIT), ValueError,
        "the loss uses a value that leaked out", "pass them as data"),
    "a leaked value among the params": Case(lambda: fit(params={"w": OF_JIT, "b": 0.0}), ValueError,
        r"params\['w'\] is a value that leaked out", "return such values"),
    "a leaked value among the data": Case(lambda: fit(own, data=(OF_JIT, Y)), ValueError,
        r"data\[0\] is a value that leaked out", "return such values"),
    "a leaked learning rate": Case(lambda: fit(optimizer=jf.optimizers.adam(OF_JIT)), ValueError,
        r"optimizer\.learning_rate is a value that leaked out", "return such values"),
    "a leaked value in what is recorded": Case(
        lambda: fit(record=jf.Record(what=("loss", lambda p, x, y: p["w"] * OF_JIT))), ValueError,
        "record: <lambda> uses a value that leaked out", "return such values"),
}  # fmt: skip

WRONG_PARAMS = {
    "an array of integers": Case(lambda: fit(params=leaf(np.arange(3))), TypeError,
        r"params\['layers'\]\[0\]\['w'\] is an array of integers \(dtype int64\)", r"\.astype\(float\)"),
    "an array of integers under an axis": Case(
        lambda: sweep(params={"w": jf.Axis("w0", np.ones((2, 3), int)), "b": 0.0}), TypeError,
        r"params\['w'\] \(axis 'w0'\) is an array of integers", r"\.astype\(float\)"),
    "NaN at the start": Case(lambda: fit(params=leaf(with_(np.ones((2, 2)), (1, 0), np.nan))), ValueError,
        r"params\['layers'\]\[0\]\['w'\] is nan at index \(1, 0\)",
        "must start from finite numbers; give another start"),
    "infinity at the start": Case(lambda: fit(params={"w": -np.inf, "b": 0.0}), ValueError,
        r"params\['w'\] is -inf", "finite"),
    "NaN in a tuple under an axis": Case(
        lambda: sweep(params=jf.Axis("start", [{"w": 1.0, "b": 0.0}, {"w": np.nan, "b": 0.0}])), ValueError,
        r"params\[1\]\['w'\] is nan", "finite"),
    "a start beyond the precision": Case(lambda: fit(params={"w": 1e300, "b": 0.0}), ValueError,
        r"params\['w'\] is 1e\+300, too large for float32", 'other units, or precision="float64"'),
    "text": Case(lambda: fit(params=leaf("tanh")), TypeError,
        r"params\['layers'\]\[0\]\['w'\] is the text 'tanh'", "in the model"),
    "a key": Case(lambda: fit(params=leaf(KEY)), TypeError, r"\['w'\] is a PRNG key", r"jf\.Call\(init, key=key\)"),
    "complex": Case(lambda: fit(params=leaf(1j)), TypeError, r"\['w'\] is complex", "real and imaginary"),
    "boolean": Case(lambda: fit(params=leaf(True)), TypeError, r"\['w'\] is boolean", "belongs in the model"),
    "half precision": Case(lambda: fit(params=leaf(np.float16(1))), TypeError, r"\['w'\] is float16", "float32"),
    "an object": Case(lambda: fit(params=leaf(object())), TypeError,
        r"\['w'\] is <object.*\(object\)", "numbers or arrays"),
    "nothing": Case(lambda: fit(params={}), ValueError, r"params is \{\}", "at least one number"),
    "only None": Case(lambda: fit(params=[{"w": None}]), ValueError,
        r"params is \[\{'w': None\}\]", "at least one number"),
    "a call that returns integers": Case(lambda: fit(params=jf.Call(lambda: {"w": jnp.arange(3)})), TypeError,
        r"params\['w'\] is an array of integers", r"\.astype\(float\)"),
    "a call per lane that returns integers": Case(
        lambda: sweep(params=jf.Call(lambda s: {"w": jnp.arange(3)}, jf.Axis("s", [1.0, 2.0]))), TypeError,
        r"params\['w'\] is an array of integers", r"\.astype\(float\)"),
    "a call per lane that returns text": Case(
        lambda: sweep(params=jf.Call(lambda s: {"w": "1.0"}, jf.Axis("s", [1.0, 2.0]))), TypeError,
        r"params\['w'\] is the text '1.0'", "numbers"),
    "a call per lane that returns nothing": Case(
        lambda: sweep(params=jf.Call(lambda s: {}, jf.Axis("s", [1.0, 2.0]))), ValueError, r"params is \{\}",
        "at least one"),
    "a call of what was called": Case(lambda: jf.Call(jf.models.line.init(0)), TypeError,
        r"Call: function is \{.*cannot be called", r"Call\(init, key=0\)"),
    "a call with a list": Case(lambda: jf.Call(lambda sizes: 0.0, [1, 2]), TypeError,
        r"argument 0 is \[1, 2\]", "use a tuple"),
}  # fmt: skip

WRONG_LOSSES = {
    "not a function": Case(lambda: fit(3.0), TypeError, "loss is 3.0", r"function loss\(params, \*data\) -> scalar"),
    "not scalar": Case(lambda: fit(lambda p, x, y: p["w"] * x - y), TypeError,
        r"the loss returned an array of shape \(8,\) and dtype float32", "must return a scalar; reduce it"),
    "integer": Case(lambda: fit(lambda p, x, y: jnp.argmax(p["w"] * x)), TypeError,
        "the loss returned a scalar of dtype int32", "must be a float"),
    "boolean": Case(lambda: fit(lambda p, x, y: p["w"] > 0), TypeError, "scalar of dtype bool", "must be a float"),
    "a tuple": Case(lambda: fit(lambda p, x, y: (own(p, x, y), y)), TypeError,
        "the loss returned a tuple", "one scalar"),
    "nothing": Case(lambda: fit(lambda p, x, y: None), TypeError, "the loss returned None", "one scalar"),
    "a model": Case(lambda: fit(jf.models.line), TypeError,
        r"takes \(params, x\), but data has 2 items", r"jf\.losses\.mse\(model\)"),
    "NaN at the start": Case(lambda: fit(log_of_b), ValueError,
        "loss at the start is nan: params", "start from params at which"),
    "infinite at the start": Case(lambda: fit(lambda p, x, y: 1 / p["b"] + p["w"]), ValueError,
        "loss at the start is inf: params", "start from params at which it is finite"),
    "a swept number out of its range": Case(
        lambda: sweep(jf.losses.huber(jf.models.line, delta=jf.Axis("delta", [1.0, -1.0]))), ValueError,
        r"delta is -1.0 \(value 1 of axis 'delta'\)", "must be finite, and positive"),
    "a key is missing": Case(lambda: fit(jf.losses.mse(noisy)), ValueError,
        "key is None, but the loss takes a key", "key=0"),
}  # fmt: skip


def rate(value):
    return lambda: jf.optimizers.adam(value)


WRONG_OPTIMIZERS = {
    **{
        f"learning rate {value!r}": Case(
            rate(value), ValueError, rf"adam: learning_rate is {re.escape(str(value))}", "positive, finite number")
        for value in (-0.1, 0.0, 0, np.nan, np.inf)
    },
    **{
        f"learning rate {value!r}": Case(
            rate(value), TypeError,
            r"adam: learning_rate is .* \((str|bool|NoneType|list|complex|ndarray)\)", "positive, finite number")
        for value in ("0.1", True, None, [0.1, 0.2], 0.1j, np.array([0.1, 0.2]))
    },
    "learning rate under an axis": Case(rate(jf.Axis("rate", [0.1, 0.0])), ValueError,
        r"learning_rate is 0.0 \(value 1 of axis 'rate'\)", "positive"),
    "a schedule and a number": Case(lambda: jf.Axis("rate", [lambda t: 0.1, 0.1]), ValueError,
        "Axis 'rate': value 1 is 0.1", "of one kind"),
    "learning rate of zero in float32": Case(lambda: fit(optimizer=jf.optimizers.sgd(1e-50)), ValueError,
        "learning_rate is 1e-50, which float32 cannot hold", 'precision="float64"'),
    **{
        f"momentum {value!r}": Case(
            lambda v=value: jf.optimizer(optax.sgd, learning_rate=0.1, momentum=v), error,
            rf"sgd: momentum is '?{value}", r"in \[0, 1\)")
        for error, values in ((ValueError, (1.0, -0.1, np.nan)), (TypeError, (True, "0.9"))) for value in values
    },
    "beta of one": Case(lambda: jf.optimizers.momentum(0.1, 1.0), ValueError, "momentum: beta is 1.0", r"in \[0, 1\)"),
    "b1 beyond one": Case(lambda: jf.optimizers.adam(0.1, b1=1.5), ValueError, "adam: b1 is 1.5", r"in \[0, 1\)"),
    "NaN anywhere": Case(lambda: jf.optimizers.adam(0.1, eps=np.nan), ValueError,
        "adam: eps is nan", "must be a number"),
    "a hyperparameter it does not take": Case(lambda: jf.optimizer(optax.adam, learning_rat=0.1), TypeError,
        "adam takes no hyperparameter 'learning_rat'", "did you mean learning_rate"),
    "a keyword it does not take": Case(lambda: jf.optimizers.adam(0.1, beta1=0.9), TypeError,
        "adam has no argument 'beta1'", "mean b1"),
    "a hyperparameter is missing": Case(lambda: jf.optimizer(optax.adam), TypeError,
        "adam needs the hyperparameter 'learning_rate'", "write learning_rate=0.1"),
    "no such optimizer": Case(lambda: jf.optimizers.adma, AttributeError,
        "has no 'adma'", "did you mean adam.*There are: sgd"),
    "text": Case(lambda: fit(optimizer="Adam"), TypeError,
        "optimizer is the text 'Adam'", r"jf\.optimizers.*did you mean adam"),
    "not called": Case(lambda: fit(optimizer=jf.optimizers.adam), TypeError,
        "optimizer is the function adam", r"call it: jf\.optimizers\.adam\("),
    "a factory": Case(lambda: fit(optimizer=optax.lbfgs), TypeError,
        "optimizer is the function lbfgs", r"call it: jf\.optimizers\.lbfgs\(\)"),
    "a number": Case(lambda: fit(optimizer=0.1), TypeError, "optimizer is 0.1", r"must be jf\.optimizer"),
    "a factory that is none": Case(lambda: jf.optimizer("adam", learning_rate=0.1), TypeError,
        "factory is 'adam'", "such as optax.adam"),
    "a factory that returns a number": Case(
        lambda: fit(optimizer=jf.optimizer(lambda learning_rate: 3, learning_rate=0.1)), TypeError,
        "optimizer: <lambda> returned 3", "must return an Optax transformation"),
    "a schedule that returns NaN": Case(lambda: fit(optimizer=jf.optimizers.sgd(lambda t: jnp.nan)), ValueError,
        "learning_rate: the schedule returned nan at step 0", "must be finite"),
    "a schedule that turns infinite": Case(lambda: fit(optimizer=jf.optimizers.sgd(lambda t: 1 / (2 - t))), ValueError,
        "learning_rate: the schedule returned inf at step 2", "must be finite"),
    "a schedule that climbs": Case(lambda: fit(optimizer=jf.optimizers.sgd(lambda t: 0.1 - t)), ValueError,
        "learning_rate: the schedule returned -1.9", "zero or more"),
    "a schedule that returns a shape": Case(lambda: fit(optimizer=jf.optimizers.sgd(lambda t: jnp.ones(3))), ValueError,
        r"learning_rate: the schedule returned shape \(3,\) at step 0", "one number, a scalar"),
    "a schedule that returns nothing": Case(lambda: sweep(optimizer=jf.optimizers.sgd(lambda t: None)), ValueError,
        "learning_rate: the schedule returned None", "one number"),
}  # fmt: skip


def step(opt_state):
    return jf.step(LOSS, START, (X, Y), optimizer=jf.optimizers.momentum(0.1), opt_state=opt_state)


WRONG_SETTINGS = {
    **{
        f"steps {value!r}": Case(
            lambda v=value: fit(steps=v), ValueError,
            f"^steps is {re.escape(repr(value))}", rf"whole number from 1 to 2,147,483,647, such as {such}$")
        for value, such in (
            (0, "1"), (-3, "1"), (2.5, "2"), (2**31, "2,147,483,647"), ("10", "100"), (True, "100"), (None, "100"),
            (np.inf, "100"))
    },
    "no such argument": Case(lambda: fit(step=10), TypeError, "fit has no argument 'step'", "did you mean steps"),
    "no such argument of a sweep": Case(lambda: sweep(batch=10), TypeError,
        "sweep has no argument 'batch'", "did you mean batches"),
    "data as two arguments": Case(lambda: jf.fit(LOSS, START, X, Y, optimizer=SGD), TypeError,
        r"fit takes 3 arguments by position \(loss, params, data\), but got 4", "one tuple"),
    "no such precision": Case(lambda: fit(precision="float16"), ValueError,
        "precision is 'float16'", 'must be "float32" or "float64"'),
    "precision as a type": Case(lambda: fit(precision=np.float64), ValueError,
        "precision is <class", 'must be "float32" or'),
    "no such rule": Case(lambda: jf.Stop(loss_bellow=0.1), TypeError,
        "Stop has no argument 'loss_bellow'", "did you mean loss_below"),
    "a rule that is text": Case(lambda: fit(stop=jf.Stop(loss_below="low")), ValueError,
        "Stop: loss_below is 'low'", "must be a number"),
    "a rule that is NaN": Case(lambda: fit(stop=jf.Stop(loss_above=np.nan)), ValueError,
        "Stop: loss_above is nan", "must be a number"),
    "a rule that is never met": Case(lambda: fit(stop=jf.Stop(gradient_norm_below=0.0)), ValueError,
        "Stop: gradient_norm_below is 0.0", "must be positive"),
    "patience without validation": Case(lambda: fit(stop=jf.Stop(patience=3)), ValueError,
        "Stop: patience", r"pass validation=\(x, y\)"),
    "half a patience": Case(lambda: fit(stop=jf.Stop(patience=1.5), validation=(X, Y)), ValueError,
        "patience is 1.5", "whole number"),
    "a rule instead of rules": Case(lambda: fit(stop=1e-3), TypeError, "stop is 0.001", r"jf\.Stop\("),
    "a record of something unknown": Case(lambda: jf.Record(what=("loss", "weights")), ValueError,
        "what has 'weights'", "takes 'loss', 'params'"),
    "a record twice": Case(lambda: jf.Record(what=(own, own)), ValueError,
        "what has 'own' as item 1", "a name|one of its own"),
    "a record of a vector": Case(lambda: fit(record=jf.Record(what=(calls_jnp,))), TypeError,
        r"record: calls_jnp returned an array of shape \(8,\)", "must return a scalar; reduce it"),
    "a record by NumPy": Case(lambda: fit(record=jf.Record(what=(functools.partial(calls_numpy_too, 2),))), TypeError,
        r"test_bad_inputs\.py, line \d+, `return a \* np\.sin", "use jax.numpy"),
    "a record every half step": Case(lambda: jf.Record(every=0.5), ValueError,
        "Record: every is 0.5", "whole number from 1"),
    "a record as a word": Case(lambda: fit(record="loss"), TypeError, "record is 'loss'", r"jf\.Record\("),
    "a record of validation without any": Case(lambda: fit(record=jf.Record(what="validation_loss")), ValueError,
        'record asks for "validation_loss"', r"pass validation=\(x, y\)"),
    **{
        f"batch size {value!r}": Case(
            lambda v=value: jf.Batches(size=v), ValueError,
            f"Batches: size is {re.escape(repr(value))}", "whole number from 1")
        for value in (0, -4, 2.5, "8")
    },
    "a batch larger than the data": Case(lambda: fit(batches=jf.Batches(size=9), key=0), ValueError,
        "batches: size is 9, but the data have 8 points", "from 1 to 8"),
    "a batch size larger than the data under an axis": Case(
        lambda: sweep(params=START, batches=jf.Batches(size=jf.Axis("size", [2, 9])), key=0), ValueError,
        r"size is 9 \(value 1 of axis 'size'\)", "from 1 to 8"),
    "batches as a number": Case(lambda: fit(batches=4, key=0), TypeError, "batches is 4", r"jf\.Batches\(size=32\)"),
    "batches neither with nor without replacement": Case(lambda: jf.Batches(size=4, replace="no"), TypeError,
        "Batches: replace is 'no'", "True or False"),
    "batches without a key": Case(lambda: fit(batches=jf.Batches(size=4)), ValueError,
        "key is None, but batches", "key=0"),
    **{
        f"seed {value!r}": Case(
            lambda v=value: fit(key=v), error,
            f"key is {re.escape(repr(value))}", r"integer seed of 0 to 2\*\*32 - 1, or a key made by jax.random.key")
        for error, values in ((ValueError, (-1, 2**32, 1.5)), (TypeError, (True, "0"))) for value in values
    },
    "many keys": Case(lambda: fit(key=jax.random.split(KEY, 3)), ValueError,
        r"key holds keys of shape \(3,\)", r"choose one, such as key\[0\]"),
    "a state of another optimizer": Case(lambda: step(optax.adam(0.1).init(START)), ValueError,
        r"opt_state has the leaves \[0\]\.count, .* need \[0\]\.trace\['b'\]", "opt_state of the step before"),
    "a state of another shape": Case(
        lambda: step(optax.sgd(0.1, momentum=0.9).init({"w": jnp.ones(2), "b": 0.0})), ValueError,
        r"opt_state\[0\]\.trace\['w'\] has shape \(2,\), but these params need \(\)", "opt_state of the step before"),
}  # fmt: skip


def calls_jnp(params, x, y):
    return params["w"] * x


def calls_numpy_too(a, params, x, y):
    return a * np.sin(params["w"])


def both(name, values, others):
    return {"w": jf.Axis(name, values), "b": jf.Axis(name, others)}


WRONG_SWEEPS = {
    "an empty axis": Case(lambda: jf.Axis("w0", []), ValueError, "Axis 'w0' is empty", "at least one value"),
    "NaN on an axis": Case(lambda: jf.Axis("w0", [0.0, np.nan, 1.0]), ValueError,
        r"Axis 'w0': value 1 is NaN \(1 of 3\)", "leave it out"),
    "NaN on an axis of JAX's": Case(lambda: jf.Axis("w0", jnp.array([0.0, jnp.nan])), ValueError,
        "Axis 'w0': value 1 is NaN", "leave it out"),
    "infinity on an axis of params": Case(
        lambda: sweep(params={"w": jf.Axis("w0", [0.0, np.inf]), "b": 0.0}), ValueError,
        r"params\['w'\] \(axis 'w0'\) is inf at index 1", "finite"),
    "numbers and text on one axis": Case(lambda: jf.Axis("w0", [0.0, "one"]), ValueError,
        r"value 1 is 'one' \(str\)", "of one kind"),
    "numbers and booleans on one axis": Case(lambda: jf.Axis("w0", [True, 1]), ValueError,
        r"value 1 is 1 \(int\)", "of one kind"),
    "text where numbers belong": Case(lambda: sweep(params={"w": jf.Axis("w0", ["a", "b"]), "b": 0.0}), TypeError,
        r"params\['w'\]\[0\] is the text 'a'", "numbers"),
    "a number as an axis": Case(lambda: jf.Axis("w0", 3.0), TypeError, r"Axis 'w0': values is 3.0", r"write \[3.0\]"),
    "a scalar array as an axis": Case(lambda: jf.Axis("w0", np.array(3.0)), TypeError,
        r"Axis 'w0': values has no first axis", "a list"),
    "a set as an axis": Case(lambda: jf.Axis("w0", {1.0, 2.0}), TypeError, "Axis 'w0': values is a set", "pass a list"),
    "a dict as an axis": Case(lambda: jf.Axis("opt", {"sgd": SGD}), TypeError,
        "Axis 'opt': values is a dict", r"labels=list\(d\)"),
    "a label twice": Case(lambda: jf.Axis("w0", [0.0, 1.0, 2.0], ["a", "b", "a"]), ValueError,
        r"label 2 \('a'\)", "labels must differ"),
    "labels too few": Case(lambda: jf.Axis("w0", [0.0, 1.0], ["a"]), ValueError,
        "Axis 'w0': 1 labels for 2 values", "one label a value"),
    "a name that is a number": Case(lambda: jf.Axis(3, [0.0]), TypeError, "name is 3", "non-empty string"),
    "a name that is empty": Case(lambda: jf.Axis("", [0.0]), TypeError, "name is ''", "non-empty string"),
    **{
        f"the name {name!r}": Case(lambda n=name: sweep(params={"w": jf.Axis(n, [0.0, 1.0]), "b": 0.0}), ValueError,
            rf"axis name '{name}' \(at params\.w\)", "call the axis something else")
        for name in ("loss", "status", "steps", "validation_loss", "step", "params.w", "history.loss")
    },
    "one name with different lengths": Case(
        lambda: sweep(params=both("start", [0.0, 1.0], [0.0, 1.0, 2.0])), ValueError,
        "axis 'start' is used with different lengths: params.w has 2 values, params.b has 3", "equally many values"),
    "no axis": Case(lambda: sweep(params=START), ValueError, "found no Axis", r"put jf\.Axis.* or call fit"),
    "too many programs": Case(
        lambda: sweep(
            params=START, key=0, data=(np.arange(99.0), np.arange(99.0)),
            batches=jf.Batches(size=jf.Axis("size", range(1, 90)))), ValueError,
        r"the axes size \(89 values\)", "at most 64"),
    "data sets of unequal length": Case(lambda: sweep(params=START, data=(jf.Axis("set", [X, X[:4]]), Y)), ValueError,
        r"data\[0\] \(x\): axis 'set' .*value 0 has \(8,\), value 1 has \(4,\)", r"jf\.datasets\.pad.*masked=True"),
    "NaN in one of many data sets": Case(
        lambda: sweep(params=START, data=(X, jf.Axis("set", [Y, with_(Y, 2, np.nan)]))), ValueError,
        r"data\[1\] \(y\) has 1 of 16 .* index \(1, 2\)", "drop"),
    "a seed below zero": Case(lambda: sweep(key=jf.Axis("seed", [0, -1])), ValueError,
        "Axis 'seed': value 1 is -1", r"integer of 0 to 2\*\*32 - 1"),
    "a seed with a fraction": Case(lambda: sweep(key=jf.Axis("seed", [0, 1.5])), ValueError,
        "Axis 'seed': value 1 is 1.5", "integer"),
    "a seed beyond 32 bits": Case(lambda: jf.Call(jf.models.line.init, key=jf.Axis("seed", [0, 2**32])), ValueError,
        "Axis 'seed': value 1 is 4294967296", "integer"),
    "a seed twice": Case(lambda: sweep(key=jf.Axis("seed", [7, 7])), ValueError,
        r"Axis 'seed': value 1 \(7\)", "leave it out"),
    "steps on an axis": Case(lambda: sweep(steps=jf.Axis("n", [1, 2])), ValueError,
        r"steps is Axis\('n'", "whole number"),
    "an optimizer that is none": Case(lambda: sweep(params=START, optimizer=jf.Axis("opt", ["sgd", "adam"])), TypeError,
        "optimizer is the text 'sgd'", r"jf\.optimizers"),
    "half a slot": Case(lambda: sweep(slots=2.5), ValueError, "slots is 2.5", "whole number"),
    "no slot": Case(lambda: sweep(slots=0), ValueError, "slots is 0", "whole number"),
    "inside a jit": Case(
        lambda: jax.jit(lambda r: sweep(optimizer=jf.optimizers.sgd(r)).results.loss.values)(0.1), TypeError,
        "sweep .*cannot stand inside of a jit", r"jax\.vmap over jf\.fit"),
    "inside a vmap, by capture": Case(
        lambda: jax.vmap(lambda z: sweep(lambda p, x, y: own(p, x, y) * z).results.loss.values)(jnp.ones(2)), TypeError,
        "sweep .*captured", "call it outside"),
}  # fmt: skip

TABLES = {
    "data": WRONG_DATA, "model": WRONG_MODELS, "params": WRONG_PARAMS, "loss": WRONG_LOSSES,
    "optimizer": WRONG_OPTIMIZERS, "setting": WRONG_SETTINGS, "sweep": WRONG_SWEEPS,
}  # fmt: skip
CASES = {f"{table}: {name}": case for table, cases in TABLES.items() for name, case in cases.items()}


# A start can only be judged by evaluating the loss there.
EVALUATED = ("loss: NaN at the start", "loss: infinite at the start")


class Compilations(logging.Handler):
    """Counts the programs of jaxfit that XLA is asked to compile."""

    count = 0

    def emit(self, record):
        self.count += bool(re.match(r"Compiling \S*(<lambda>|segment)", record.getMessage()))


@pytest.fixture(autouse=True)
def nothing_was_compiled_before(monkeypatch):
    monkeypatch.setattr(programs, "_seen", {})


@pytest.fixture
def compilations():
    handler, logger = Compilations(), logging.getLogger("jax")
    logger.addHandler(handler)
    with jax.log_compiles():
        yield handler
    logger.removeHandler(handler)


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_with_its_argument_and_the_remedy_before_anything_compiles(name, compilations):
    case = CASES[name]
    with pytest.raises(case.error) as caught:
        case.call()
    message = str(caught.value)
    assert type(caught.value) is case.error
    assert re.search(case.argument, message), message
    assert re.search(case.remedy, message), message
    assert compilations.count == 0 or name in EVALUATED


def test_good_input_compiles_and_the_count_sees_it(compilations):
    workers.compiler_options("cpu")  # asks the compiler what it knows, once
    compilations.count = 0
    fit(lambda p, x, y: own(p, x, y))
    assert compilations.count == 2  # the start, and a stretch of steps
    sweep(lambda p, x, y: own(p, x, y))
    assert compilations.count == 4


WRONG_IN_STRUCTURE = {
    "steps": {"steps": 0},
    "lengths": {"data": (X, Y[:3])},
    "NaN": {"data": (X, Y * np.nan)},
    "params": {"params": {"w": np.arange(3), "b": 0.0}},
    "a batch too large": {"batches": jf.Batches(size=9), "key": 0},
    "a missing key": {"batches": jf.Batches(size=2)},
    "a rule": {"stop": jf.Stop(patience=2)},
    "a seed": {"key": -1},
    "an optimizer": {"optimizer": "adam"},
    "a schedule": {"optimizer": jf.optimizers.sgd(lambda t: jnp.nan)},
}


@pytest.mark.parametrize("run", [fit, sweep])
@pytest.mark.parametrize("keywords", WRONG_IN_STRUCTURE.values(), ids=WRONG_IN_STRUCTURE)
def test_what_is_wrong_with_the_structure_is_found_before_the_loss_is_traced(run, keywords, traces):
    model = traces(jf.models.line)
    with pytest.raises((TypeError, ValueError)):
        run(jf.losses.mse(model), **keywords)
    assert model.count == 0


def test_results_larger_than_memory_are_refused_with_an_estimate_and_what_to_change(monkeypatch):
    monkeypatch.setattr(sweeps, "_free_memory", lambda: 1000)
    monkeypatch.setattr(sweeps, "ALWAYS_FREE", 0)
    rates = jf.Axis("rate", np.logspace(-3, -1, 100))
    loss = lambda p, x, y: own(p, x, y)  # noqa: E731
    with pytest.raises(
        ValueError, match=r"100 lanes take [\d,]+ bytes .*but 1,000 bytes .* are free: sweep fewer lanes"
    ):
        sweep(loss, START, optimizer=jf.optimizers.sgd(rates))
    with pytest.raises(ValueError, match="record less often than every 2 steps or fewer things, sweep fewer lanes"):
        sweep(loss, START, optimizer=jf.optimizers.sgd(rates), record=jf.Record(every=2), steps=1000)


# Input that is odd, and works

REFERENCE = fit()


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


GOOD_DATA = {
    "lists": lambda: (X.tolist(), Y.tolist()),
    "a list of arrays": lambda: [X, Y],
    "read-only": lambda: (read_only(X), read_only(Y)),
    "not contiguous": lambda: (np.repeat(X, 2)[::2], np.stack([Y, Y], 1)[:, 0]),
    "backwards in memory": lambda: (X[::-1].copy()[::-1], Y),
    "big-endian": lambda: (X.astype(">f8"), Y.astype(">f8")),
    "float32": lambda: (X.astype(np.float32), Y.astype(np.float32)),
    "on the device": lambda: (jnp.asarray(X), jnp.asarray(Y)),
    "half on the device": lambda: (jnp.asarray(X), Y),
}


@pytest.mark.parametrize("make", GOOD_DATA.values(), ids=GOOD_DATA)
def test_data_of_any_make_give_the_same_bits_and_are_left_alone(make):
    data, before = make(), [np.array(item) for item in make()]
    found = fit(data=data)
    assert all(found.params[k] == REFERENCE.params[k] for k in "wb") and found.loss == REFERENCE.loss
    for item, copy in zip(data, before, strict=True):
        np.testing.assert_array_equal(item, copy)


def test_data_of_pandas_and_xarray_work():
    pandas, xarray = pytest.importorskip("pandas"), pytest.importorskip("xarray")
    frame = pandas.DataFrame({"x": X, "y": Y}, index=list("abcdefgh"))
    for data in [(frame.x, frame["y"]), (xarray.DataArray(X), xarray.DataArray(Y, dims="time"))]:
        assert fit(data=data).loss == REFERENCE.loss
    assert frame.equals(pandas.DataFrame({"x": X, "y": Y}, index=list("abcdefgh")))
    matrix = fit(lambda p, m: own(p, m[:, 0], m[:, 1]), data=(frame,))
    np.testing.assert_allclose(matrix.loss, REFERENCE.loss, rtol=1e-6)
    with pytest.raises(ValueError, match=r"data\[1\] \(y\) has 4 of 8 values that are not finite"):
        fit(data=(X, pandas.Series([1.0, None] * 4)))


def test_integers_of_any_size_and_order_are_data():
    numbers = np.arange(8)
    expected = fit(data=(numbers / 1.0, Y), optimizer=jf.optimizers.sgd(1e-3)).loss
    for kind in ("int8", "uint16", "int64", ">i4", ">i8", "list", "range"):
        x = {"list": numbers.tolist(), "range": range(8)}.get(kind)
        x = numbers.astype(kind) if x is None else x
        np.testing.assert_allclose(fit(data=(x, Y), optimizer=jf.optimizers.sgd(1e-3)).loss, expected, rtol=1e-6)


def test_rows_that_are_masked_may_hold_anything():
    where = np.arange(8) < 5
    x, y = with_(X, [5, 6], [np.nan, np.inf]), with_(Y, 7, -np.inf)
    found = fit(MASKED, data=(x, y, where), steps=50)
    alone = fit(data=(X[:5], Y[:5]), steps=50)
    np.testing.assert_allclose(found.loss, alone.loss, rtol=1e-5)
    np.testing.assert_allclose(found.params["w"], alone.params["w"], rtol=1e-5)


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
    assert all(found.params[k] == REFERENCE.params[k] and found.params[k].dtype == np.float32 for k in "wb")
    wide = fit(params=params, precision="float64")
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(wide.params))


def test_integer_scalars_become_floats_inside_a_jit_and_in_the_lanes_of_a_call():
    inside = jax.jit(lambda w: fit(params={"w": w, "b": 0}).params["w"])(1)
    np.testing.assert_allclose(inside, REFERENCE.params["w"], rtol=1e-6)
    lanes = sweep(params=jf.Call(lambda w: {"w": w, "b": 0}, jf.Axis("w0", [1.0, 2.0])))
    np.testing.assert_allclose(lanes.results["params.w"][0], REFERENCE.params["w"], rtol=1e-6)


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


@pytest.mark.parametrize("keywords", GOOD_SETTINGS.values(), ids=GOOD_SETTINGS)
def test_settings_of_any_make_work(keywords):
    found = fit(**keywords)
    assert np.isfinite(found.loss) and found.steps == keywords.get("steps", 3)


def test_float64_data_fitted_in_float32_say_so():
    assert "float32" in str(REFERENCE) and REFERENCE.params["w"].dtype == np.float32


def test_fewer_points_than_params_work_and_the_summary_says_what_that_means():
    found = fit(data=(X[3:4], Y[3:4]), steps=500)
    assert found.loss < 1e-9
    assert "2 params are fitted to 1 point: underdetermined" in str(found)
    masked = fit(MASKED, data=(X, Y, np.arange(8) == 3))
    assert "2 params are fitted to 1 point" in str(masked)
    assert "note" not in str(REFERENCE)


def test_a_constant_x_is_flagged():
    assert "data[0] (x) is the same at every point" in str(fit(data=(np.full(8, 0.5), Y)))


@pytest.mark.parametrize("place", soaking(["loss", "model", "optimizer", "schedule"], keep=("loss", "optimizer")))
def test_a_live_tracer_of_the_users_own_transformation_gives_right_numbers(place):
    def run(z):
        if place == "loss":
            return fit(lambda p, x, y: own(p, x, y) * z).loss
        if place == "model":
            return fit(jf.losses.mse(lambda p, x: p["w"] * x * z + p["b"])).loss
        return fit(optimizer=optax.sgd(0.1 * z) if place == "optimizer" else jf.optimizers.sgd(lambda t: 0.1 * z)).loss

    values = [0.5, 1.5]
    plain = [float(run(value)) for value in values]
    np.testing.assert_allclose([jax.jit(run)(value) for value in values], plain, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(run)(jnp.array(values)), plain, rtol=1e-5)
    slope = (float(run(1.0 + 1e-2)) - float(run(1.0 - 1e-2))) / 2e-2
    np.testing.assert_allclose(jax.grad(run)(1.0), slope, rtol=1e-3)


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


@pytest.mark.parametrize(("call", "text"), WARNINGS.values(), ids=WARNINGS)
def test_what_is_doubtful_warns_once_at_the_callers_line(call, text):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    assert len(found) == 1 and re.search(text, str(found[0].message)), [str(w.message) for w in found]
    assert found[0].filename == __file__


def test_a_new_lambda_in_every_call_does_not_fill_the_memory(monkeypatch):
    kept = functools.lru_cache(maxsize=2)(programs._programs.__wrapped__)
    monkeypatch.setattr(programs, "_programs", kept)
    alive = []
    for i in range(4):
        loss = lambda p, x, y, i=i: own(p, x, y) + i  # noqa: E731
        alive.append(weakref.ref(loss))
        fit(loss)
    del loss
    gc.collect()
    assert [ref() is not None for ref in alive] == [False, False, True, True]


# Trouble in the numbers: a status, and what to do


def bad_gradient(params, x, y):
    return jnp.where(params["b"] > 0, jnp.log(params["b"]), 0.0) + params["w"] ** 2


STATUSES = {
    "targets of 1e300": (lambda: fit(data=(X, Y * 1e300)), "DIVERGED",
        r"data\[1\] reaches 3e\+300, .*overflows float32: scale the data"),
    "targets of 1e300 in float64": (lambda: fit(data=(X, Y * 1e300), precision="float64"), "DIVERGED",
        "overflows float64: scale the data.$"),
    "squares beyond float32": (lambda: fit(data=(X, Y * 1e30)), "DIVERGED",
        'overflows float32: scale the data or use precision="float64"'),
    "x beyond float32": (lambda: fit(data=(X * 1e30, Y)), "DIVERGED", r"data\[0\] reaches 1e\+30, .*scale the data"),
    "squares within float64": (lambda: fit(data=(X, Y * 1e30), precision="float64"), "OUT_OF_STEPS",
        "give it more steps"),
    "targets of 1e-300": (lambda: fit(data=(X, Y * 1e-300)), "OUT_OF_STEPS",
        r"data\[1\] is at most 3e-300, .*rounds to zero: scale"),
    "squares below float32": (
        lambda: fit(params={"w": 0.0, "b": 0.0}, data=(X, Y * 1e-30), stop=jf.Stop(loss_below=1e-12)), "CONVERGED",
        'square underflows float32: scale the data or use precision="float64"'),
    "sqrt at zero": (lambda: fit(lambda p, x, y: jnp.sqrt(p["b"]) + p["w"] ** 2), "NOT_FINITE",
        "after 0 updates a gradient was not finite while the loss still was; .*log or sqrt"),
    "where over log": (lambda: fit(bad_gradient), "NOT_FINITE",
        "jnp.where does not protect a gradient: guard the argument too"),
    "NaN on the way": (
        lambda: fit(lambda p, x, y: p["w"] + jnp.log(p["w"]) + p["b"] ** 2, optimizer=jf.optimizers.sgd(0.3), steps=9),
        "NOT_FINITE", "after 2 updates the loss became NaN; params are those where it was first seen"),
    "a schedule that is NaN in the middle": (
        lambda: fit(optimizer=jf.optimizers.sgd(lambda t: jnp.where(t == 1, jnp.nan, 0.1)), steps=4), "NOT_FINITE",
        "after 2 updates"),
    "a rate too large": (lambda: fit(optimizer=jf.optimizers.sgd(50.0), steps=100), "DIVERGED",
        r"overflowed float32; it grew [\d,]+-fold a step, so the limit is near .* lower the learning rate: try"),
    "a rate slightly too large": (lambda: fit(optimizer=jf.optimizers.sgd(0.9), steps=9), "DIVERGED",
        "above its start; .*try"),
    "too few steps": (fit, "OUT_OF_STEPS", "give it more steps, or a stop rule"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "status", "text"), STATUSES.values(), ids=STATUSES)
def test_trouble_in_the_numbers_is_a_status_and_the_summary_says_what_to_do(call, status, text):
    found = call()
    assert found.status == jf.Status[status]
    assert re.search(text, str(found), re.MULTILINE), str(found)
    if "a gradient was not finite" in str(found):
        assert found.steps == 0 and found.params == {"w": 1.0, "b": 0.0}


def one_bad(params, x, y):
    return own(params, x, y) + jnp.log(params["w"])


def test_a_lane_that_is_not_finite_changes_no_other_and_a_sweep_of_such_lanes_ends_and_says_so():
    def of(starts):
        return sweep(one_bad, {"w": jf.Axis("w0", starts), "b": 0.0}, slots=4)

    good, mixed, bad = of([1.0, 2.0, 3.0]), of([1.0, -1.0, 3.0]), of([-1.0, -2.0, -3.0])
    assert mixed.results.status.values.tolist() == [2, jf.Status.NOT_FINITE, 2]
    for name in ("loss", "params.w", "params.b"):
        a, b = good.results[name].values[[0, 2]], mixed.results[name].values[[0, 2]]
        assert a.tobytes() == b.tobytes()
    assert (bad.results.status == jf.Status.NOT_FINITE).all() and "3 not_finite" in str(bad)
    with pytest.raises(ValueError, match="no member of the grid ended well; see grid.results.status"):
        jf.best(bad)
    with pytest.raises(jf.NotConverged, match="3 of 3 lanes did not converge"):
        jf.require_converged(bad)


def test_slots_beyond_the_lanes_and_lanes_that_do_not_fill_the_slots_give_the_same_result():
    def run(slots):
        return sweep(params={"w": jf.Axis("w0", np.linspace(0, 1, 7)), "b": 0.0}, slots=slots).results

    few, many = run(3), run(64)
    np.testing.assert_allclose(few.loss, many.loss, rtol=1e-6)
    assert (few.status == many.status).all() and (few.steps == many.steps).all()


def test_the_same_problem_with_many_new_values_is_traced_once(traces):
    loss = traces(own)
    fit(loss, key=0)
    count = loss.count
    for i in range(200):
        fit(loss, {"w": float(i), "b": 0.0}, (X, Y + i), optimizer=jf.optimizers.sgd(0.1 / (i + 1)), key=i)
    assert loss.count == count


# The environment

PROGRAM = """
import numpy as np, jaxfit as jf
x = np.linspace(0, 1, 8)
data = x, 2 * x + 1
loss = jf.losses.mse(jf.models.line) + jf.losses.l2(1e-3)
found = jf.fit(loss, {"w": 1.0, "b": 0.0}, data, optimizer=jf.optimizers.adam(0.1), steps=20,
               batches=jf.Batches(size=3), key=1, precision="float64")
grid = jf.sweep(loss, {"w": jf.Axis("w0", [0.0, 1.0]), "b": 0.0}, data, steps=20,
                optimizer=jf.Axis("opt", [jf.optimizers.sgd(0.1), jf.optimizers.adam(0.1)], ["sgd", "adam"]))
print(found)
print(found.params["w"].tobytes().hex(), grid.results.loss.values.tobytes().hex(), grid.results.status.dims)
"""


@pytest.mark.soak
def test_results_do_not_depend_on_flags_hash_seed_locale_display_or_matplotlib(capsys):
    exec(PROGRAM, {})
    expected = capsys.readouterr().out
    without = "import sys; sys.modules['matplotlib'] = None"
    known = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")}
    odd = {"PYTHONHASHSEED": "12345", "LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Kathmandu"}
    command = [sys.executable, "-W", "error", "-O", "-c", without + PROGRAM]
    done = subprocess.run(command, env=known | odd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected and "float64" in expected
