"""Wrong calls in tables: what is called, the error, words of it that name the argument and the remedy; what works."""

import re
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf

X = np.linspace(0.0, 1.0, 8)
Y = 2.0 * X + 1.0
START = {"w": 1.0, "b": 0.0}
SGD = jf.optimizers.sgd(0.1)
LOSS = jf.losses.mse(jf.models.line)
MASKED = jf.losses.mse(jf.models.line, masked=True)


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


class Case(NamedTuple):
    call: Any
    error: type
    argument: str  # regex: what is wrong, and what came
    remedy: str  # regex: the rule, and what to do
    mended: Any  # the call that the message says to make instead, which works


def check(case, events, *, may_compile=False):
    with pytest.raises(case.error) as caught:
        case.call()
    message = str(caught.value)
    assert type(caught.value) is case.error
    assert re.search(case.argument, message), message
    assert re.search(case.remedy, message), message
    assert not events["program"] or may_compile


def follows(call):
    """Whether a call that an error message gives as its remedy does what is asked: a finite result, or a value."""
    found = call()
    losses = getattr(found, "loss", None) if not hasattr(found, "results") else found.results.loss
    return losses is None or bool(np.isfinite(np.asarray(losses)).all())


def named(tables):
    """{"table: name": case}"""
    return {f"{table}: {name}": case for table, cases in tables.items() for name, case in cases.items()}
