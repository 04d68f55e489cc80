"""The data of a loss and the predictions for them, checked; what is masked does not count."""

from __future__ import annotations

import math
import numbers
import reprlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxfit.datasets import as_numbers
from jaxfit.losses.base import Loss, hashable, key_for


@dataclass(frozen=True, eq=False, repr=False)
class OfPredictions(Loss):
    """A loss of predict(params, x) and what was measured there."""

    predict: Callable
    masked: bool

    DATA = ("x", "y")  # not a field: no annotation

    @property
    def data_names(self) -> tuple[str, ...]:
        return (*self.DATA, "where") if self.masked else self.DATA

    @property
    def functions(self) -> tuple[Callable, ...]:
        return (self.predict,)


def read(loss: Any, data: tuple) -> tuple[Any, ...]:
    """x, y and where (or None), checked, before where any further data as they are.

    Masked rows of x and y are replaced, so that nothing in them reaches a gradient.
    """
    names = loss.data_names
    check_count(loss, data)
    x, y, *more = (as_array(name, value) for name, value in zip(names, data, strict=True))
    where = more.pop() if "where" in names else None
    if not y.size:
        raise ValueError(f"{loss}: y has shape {y.shape}, so there is no data; pass at least one row")
    if y.ndim and x.shape[:1] != y.shape[:1]:
        raise ValueError(
            f"{loss}: x has shape {x.shape} and y {y.shape}; their first axes must be of one length, a row for each "
            f"observation: drop the rows without a partner"
        )
    if where is None:
        return x, y, *more, None
    where = mask(loss, where, y)
    return fill(x, where), fill(y, where), *more, where


def check_count(loss: Any, data: tuple) -> None:
    """Refuses data that are not as many as the loss takes."""
    names = loss.data_names
    if len(data) != len(names):
        raise TypeError(
            f"{loss} takes the data ({', '.join(names)}), but got {len(data)} array{'s' * (len(data) != 1)}; "
            f"a loss takes (x, y), with masked=True (x, y, where), and chi_squared a sigma after y"
        )


def mask(loss: Loss, where: Array, y: Array) -> Array:
    if where.dtype != bool:
        raise TypeError(f"{loss}: where holds {where.dtype} values; a mask must be boolean: pass where.astype(bool)")
    if where.ndim != 1 or where.shape != y.shape[:1]:
        raise ValueError(f"{loss}: where has shape {where.shape} and y {y.shape}; where must be (n,), one entry a row")
    if not isinstance(where, Tracer) and not where.any():
        raise ValueError(f"{loss}: where is False everywhere, so there is no data; at least one row must count")
    return where


def fill(values: Array, where: Array) -> Array:
    """Masked rows become the first one that counts, or ones if there is none."""
    row = jnp.where(jnp.any(where), values[jnp.argmax(where)], jnp.ones_like(values[0]))
    return jnp.where(beside(where, values), values, jnp.expand_dims(row, 0))


def beside(column: Array, like: Array) -> Array:
    """(n,) as (n, 1, ...) with as many axes as `like`."""
    return jnp.expand_dims(column, tuple(range(1, like.ndim)))


def counted(values: Array, where: Array | None) -> Array:
    """Zero in the rows that do not count; NaN in all if none does, since without data no params are better than others.

    Args:
      values: (n, ...).
      where: (n,) booleans, or None if all count.
    """
    if where is None:
        return values
    return jnp.where(beside(where, values), values, jnp.where(jnp.any(where), 0.0, jnp.nan))


def mean_of_rows(values: Array, where: Array | None) -> Array:
    """The mean over rows that count, of values from `counted`."""
    return jnp.mean(values) if where is None else jnp.sum(values) / count(values, where)


def count(values: Array, where: Array | None) -> Any:
    """How many of the values count; one if none does."""
    return values.size if where is None else jnp.maximum(jnp.sum(where) * (values.size // where.size), 1)


def predicted(loss: Any, params: Any, x: Array, key: Any) -> Array:
    """The prediction at x, whose whole numbers are floating, unless predict takes them only as they are: an index."""
    prediction = _tried(lambda x: loss.predict(params, x, **key_for(loss, key)), x)
    if not isinstance(prediction, (Array, np.ndarray, numbers.Number)):
        raise TypeError(
            f"{loss}: predict returned a {type(prediction).__name__}; it must return one array: the prediction alone"
        )
    return as_float(as_numbers("prediction", prediction))


def _tried(predict: Callable, x: Array) -> Any:
    if jnp.issubdtype(x.dtype, jnp.floating):
        return predict(x)
    try:
        with warnings.catch_warnings(action="error"):
            return predict(as_float(x))
    except Exception:  # whatever it raises or warns of for an x that is no index
        return predict(x)


def difference(loss: Loss, prediction: Array, y: Array) -> Array:
    """Prediction minus target, which must be of one shape."""
    if prediction.shape != y.shape:
        raise ValueError(
            f"{loss}: the prediction has shape {prediction.shape}, the target y {y.shape}; a loss never broadcasts "
            f"targets against predictions: {reshape_advice(prediction.shape, y.shape)}"
        )
    return prediction - as_float(y)


def reshape_advice(prediction: tuple[int, ...], target: tuple[int, ...]) -> str:
    rule = f"return predictions of shape {target}"
    if prediction == (*target, 1):
        return f"{rule}, for instance prediction[{':, ' * len(target)}0]"
    if target == (*prediction, 1):
        return f"{rule}, or pass y[{':, ' * len(prediction)}0]"
    return rule + (f", or reshape y to {prediction}" if math.prod(prediction) == math.prod(target) else "")


def as_array(name: str, value: Any) -> Array:
    given = as_numbers(name, value)
    array = jnp.asarray(given)
    if given.dtype.kind in "iu" and given.dtype != array.dtype and not np.array_equal(given, array):
        raise ValueError(f"{name} holds integers too large for {array.dtype}; convert them: {name}.astype(float)")
    return array


def as_float(value: Any) -> Array:
    return jnp.asarray(value, jnp.result_type(value, float))


def checked(predict: Callable, masked: bool) -> tuple[Callable, bool]:
    if not isinstance(masked, (bool, np.bool_)):
        raise TypeError(
            f"masked is {reprlib.repr(masked)}; it is True or False, and the mask is a part of the data: (x, y, where)"
        )
    return hashable("predict", predict), bool(masked)


def number(name: str, value: Any, rule: str) -> Any:
    """A plain number, checked, as a float; anything that may become one in a trace or a sweep, as it is."""
    if isinstance(value, (str, bytes, bool, np.bool_, list, tuple, dict, complex, type(None))):
        raise TypeError(f"{name} is {reprlib.repr(value)}; it must be a number, {rule}")
    if not isinstance(value, numbers.Real) and not (isinstance(value, np.ndarray) and value.ndim == 0):
        return value
    if not math.isfinite(value) or value < 0 or (value == 0 and rule == "positive"):
        raise ValueError(f"{name} is {value}; it must be {rule}, and finite")
    return float(value)
