"""Losses of predictions: what they share, and those that average or add a function of the residuals."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import reprlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxfit.datasets import as_numbers
from jaxfit.losses.base import (
    ROBUST,
    SQUARES,
    Block,
    Loss,
    NoiseModel,
    as_array,
    as_float,
    data_names,
    hashable,
    key_for,
    label,
    leaves_of,
    number,
)
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import Model, Number, Params, PyTree

if TYPE_CHECKING:
    from jaxfit.losses.regularization import Smoothness


@dataclass(frozen=True, eq=False, repr=False)
class OfPredictions(Loss):
    """A loss of predict(params, x) and what was measured there."""

    predict: Model
    masked: bool

    DATA = ("x", "y")  # not a field: no annotation

    takes_arrays = True


def read(loss: OfPredictions, data: tuple) -> tuple[Any, ...]:
    """Return x, y, further data such as sigma, and where (or None), checked.

    Masked rows of x and y are replaced, so that nothing in them reaches a gradient.
    """
    names = loss.data_names
    check_count(loss, data)
    x, y, *more = (as_array(name, value) for name, value in zip(names, data, strict=True))
    where = more.pop() if "where" in names else None
    if not y.size:
        raise ValueError(f"{loss}: y has shape {y.shape}, so there is no data; pass at least one row")
    if y.ndim and x.shape[:1] != y.shape[:1]:
        advice = "drop the rows without a partner" if x.ndim else f"pass np.full({y.shape}, x) if it is one for all"
        raise ValueError(
            f"{loss}: x has shape {x.shape} and y {y.shape}; their first axes must be of one length, a row for each "
            f"observation: {advice}"
        )
    if where is None:
        return x, y, *more, None
    where = mask(loss, where, y)
    return masked_rows_filled(x, where), masked_rows_filled(y, where), *more, where


def check_count(loss: OfPredictions, data: tuple) -> None:
    """Raise an error if the number of data is not what the loss takes."""
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


def masked_rows_filled(values: Array, where: Array) -> Array:
    """Replace masked rows by the first row that counts, or by ones if there is none."""
    row = jnp.where(jnp.any(where), values[jnp.argmax(where)], jnp.ones_like(values[0]))
    return jnp.where(beside(where, values), values, jnp.expand_dims(row, 0))


def beside(column: Array, like: Array) -> Array:
    """Return (n,) as (n, 1, ...) with as many axes as `like`."""
    return jnp.expand_dims(column, tuple(range(1, like.ndim)))


def zero_where_masked(values: Array, where: Array | None) -> Array:
    """Return values with zero in masked rows; NaN in all if every row is masked, since there is no data to fit.

    Args:
      values: (n, ...).
      where: (n,) booleans, or None if all count.
    """
    if where is None:
        return values
    return jnp.where(beside(where, values), values, jnp.where(jnp.any(where), 0.0, jnp.nan))


def mean_of_rows(values: Array, where: Array | None) -> Array:
    """Return the mean over rows that count, of values from `zero_where_masked`."""
    return jnp.mean(values) if where is None else jnp.sum(values) / count_of(values, where)


def count_of(values: Array, where: Array | None) -> Number:
    """Return how many of the values count, or 1 if none does."""
    return values.size if where is None else jnp.maximum(jnp.sum(where) * (values.size // where.size), 1)


def predicted(loss: OfPredictions | Smoothness, params: Params, x: Array, key: Array | None) -> Array:
    """Return the prediction at x; integers become floats unless predict accepts only integers, as an index."""
    prediction = _tried(lambda x: loss.predict(params, x, **key_for(loss, key)), x)
    if not isinstance(prediction, (Array, np.ndarray, numbers.Number)):
        raise TypeError(
            f"{loss}: predict returned a {type(prediction).__name__}; it must return one array: the prediction alone"
        )
    return as_float(as_numbers("prediction", prediction))


def _tried(predict: Model, x: Array) -> Array:
    if jnp.issubdtype(x.dtype, jnp.floating):
        return predict(x)
    try:
        with warnings.catch_warnings(action="error"):
            return predict(as_float(x))
    except Exception:  # whatever it raises or warns of for an x that is no index
        return predict(x)


def difference(loss: Loss, prediction: Array, y: Array) -> Array:
    """Return prediction minus target, which must have the same shape."""
    if prediction.shape != y.shape:
        raise ValueError(
            f"{loss}: the prediction has shape {prediction.shape}, the target y {y.shape}; a loss never broadcasts "
            f"targets against predictions: {reshape_advice(prediction.shape, y.shape)}"
        )
    return prediction - as_float(y)


def reshape_advice(prediction: tuple[int, ...], target: tuple[int, ...]) -> str:
    if not target:
        return f"pass one target for each prediction, np.full({prediction}, y) if they are all the same"
    rule = f"return predictions of shape {target}"
    if prediction == (*target, 1):
        return f"{rule}, for instance prediction[{':, ' * len(target)}0]"
    if target == (*prediction, 1):
        return f"{rule}, or pass y[{':, ' * len(prediction)}0]"
    return rule + (f", or reshape y to {prediction}" if math.prod(prediction) == math.prod(target) else "")


def check_called_with_params(predict: Model, star: str = "*") -> None:
    """Refuse a model that takes x and then each param, as SciPy's, or no x, with what makes one of both."""
    try:
        if len(data_names(predict)) == 1:  # remembered, unlike the signature
            return
        parameters = inspect.signature(predict).parameters.values()
    except (TypeError, ValueError):
        return
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if getattr(predict, "__module__", "").startswith("jaxfit.models."):
        made = f"jf.models.{predict.__name__}({', '.join(p.name for p in positional if p.default is p.empty)})"
        raise TypeError(f"predict is the function {predict.__name__}, which makes a model; call it: {made}")
    if len(positional) == 1 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise TypeError(
            f"predict takes ({positional[0].name}), but it is called as predict(params, x); let it take x too, even if "
            f"it does not use it: lambda params, x: predict(params)"
        )
    least = [p.name for p in positional if p.default is p.empty and p.name != "key"]
    if len(least) > 2 and least[1] in ("rng", "key", "rngs"):
        raise TypeError(
            f"predict takes ({', '.join(least)}), but it is called as predict(params, x); write "
            f"lambda params, x: predict(params, None, x), or for random numbers in each step "
            f"lambda params, x, key: predict(params, key, x)"
        )
    if len(least) > 2:
        both = "" if star == "**" else ", for params in a list or an array"
        raise TypeError(
            f"predict takes ({', '.join(least)}), but it is called as predict(params, x); write "
            f"jf.models.from_function(predict), whose params are a dict of {', '.join(least[1:])}, or "
            f"lambda params, x: predict(x, {star}params){both}"
        )


def checked(predict: Model, masked: bool) -> tuple[Callable, bool]:
    check_called_with_params(predict)
    if not isinstance(masked, (bool, np.bool_)):
        raise TypeError(
            f"masked is {reprlib.repr(masked)}; it is True or False, and the mask is a part of the data: (x, y, where)"
        )
    return hashable("predict", predict), bool(masked)


@leaves_of("delta")
@dataclass(frozen=True, eq=False, repr=False)
class Residual(OfPredictions):
    """The losses `rss`, `mse`, `mae` and the robust ones: functions of the residuals, prediction minus target."""

    kind: str
    delta: Number | None = None  # a positive number for a robust loss, else None

    def __call__(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        residuals, where = self._residuals(params, data, key)
        values = _OF_RESIDUALS[self.kind](residuals, self.delta)
        return jnp.sum(values) if self.kind == "rss" else mean_of_rows(values, where)

    @property
    def knows_residuals(self) -> bool:
        return self.kind != "mae"  # whose second derivative is zero everywhere

    def blocks(self, params: Params, *data: PyTree, key: Array | None = None) -> tuple[Block, ...]:
        residuals, where = self._residuals(params, data, key)
        rho = functools.partial(_ROBUST[self.kind], delta=self.delta) if self.kind in _ROBUST else None
        return (Block(residuals, 1.0 if self.kind == "rss" else 1 / count_of(residuals, where), rho),)

    def noise_model(self) -> NoiseModel:
        if self.kind == "mae":
            why = (
                f"the second derivative of {self} is zero wherever it exists, so that it has no curvature to read "
                f"errors from; fit jf.losses.huber with a small delta, or use jf.bootstrap on a fit of that"
            )
            return NoiseModel(sigma=False, predicts=True, why_unknown=why)
        kind = ROBUST if self.kind in _ROBUST else SQUARES
        return NoiseModel(kind, sigma=False, additive=self.kind == "rss", predicts=True)

    def residuals(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        """Return prediction minus target in the target's shape and unit, zero where masked."""
        return self._residuals(params, data, key)[0]

    def _residuals(self, params: Params, data: tuple, key: Array | None) -> tuple[Array, Array | None]:
        x, y, where = read(self, data)
        residuals = difference(self, predicted(self, params, x, key), y)
        return zero_where_masked(residuals, where), where

    def __repr__(self) -> str:
        options = [f"delta={self.delta!r}"] * (self.delta is not None) + ["masked=True"] * self.masked
        return f"{self.kind}({', '.join([label(self.predict), *options])})"


def _huber(residuals: Array, delta: Number) -> Array:
    size = jnp.abs(residuals)
    return jnp.where(size <= delta, jnp.square(residuals) / 2, delta * (size - delta / 2))


def _soft_l1(residuals: Array, delta: Number) -> Array:
    square = jnp.square(residuals / delta)
    return jnp.square(residuals) / (1 + jnp.sqrt(1 + square))  # delta**2 * (sqrt(1 + square) - 1), of small ones too


def _cauchy(residuals: Array, delta: Number) -> Array:
    return delta**2 / 2 * jnp.log1p(jnp.square(residuals / delta))


def _arctan(residuals: Array, delta: Number) -> Array:
    return delta**2 / 2 * jnp.arctan(jnp.square(residuals / delta))


def _tukey(residuals: Array, delta: Number) -> Array:
    square = jnp.minimum(jnp.square(residuals / delta), 1)
    return delta**2 / 6 * square * (3 - square * (3 - square))  # delta**2 / 6 * (1 - (1 - square)**3)


_ROBUST: dict[str, Callable[..., Array]] = {  # each is r**2 / 2 where |r| is small against delta
    "huber": _huber,
    "soft_l1": _soft_l1,
    "cauchy": _cauchy,
    "arctan": _arctan,
    "tukey": _tukey,
}
SCALE = 1.4826  # times the median of |r| is the standard deviation of a normal distribution: 1 / 0.67449
_OF_RESIDUALS: dict[str, Callable[[Array, Any], Array]] = {
    "rss": lambda residuals, _: jnp.square(residuals),
    "mse": lambda residuals, _: jnp.square(residuals),
    "mae": lambda residuals, _: residuals * jnp.sign(residuals),  # JAX takes the slope of abs at zero to be one
    **_ROBUST,
}


@near_keywords
def rss(predict: Model, *, masked: bool = False) -> Residual:
    """Return the residual sum of squares, sum(r**2) with r = predict(params, x) - y, in the target's unit squared.

    The data are x (n, ...) and y (n, ...), of integers or floats.

    Args:
      predict: A hashable function of (params, x), optionally with an argument `key`, that returns the shape of y.
      masked: Whether the data are (x, y, where) with a boolean where (n,). Rows where it is False are ignored, even if
        they contain NaN; predict gets the first row that counts in their place. If no row counts the loss is NaN.

    Raises:
      TypeError: If `predict` cannot be called or hashed; when called, if the number of data is not that of
        `data_names`, or they are not real numbers.
      ValueError: When called, if x and y differ in length or are empty, or predictions and targets differ in shape.

    Example:
      >>> loss = jf.losses.rss(jf.models.line)
      >>> float(loss({"w": 0.0, "b": 0.0}, np.array([0.0, 1.0]), np.array([1.0, 3.0])))
      10.0
    """
    return Residual(*checked(predict, masked), "rss")


@near_keywords
def mse(predict: Model, *, masked: bool = False) -> Residual:
    """Return the mean squared error, mean(r**2) with r = predict(params, x) - y, in the target's unit squared.

    Args:
      predict, masked: As for `rss`.

    Raises:
      TypeError, ValueError: As for `rss`.

    Example:
      >>> loss = jf.losses.mse(jf.models.line)
      >>> float(loss({"w": 0.0, "b": 0.0}, np.array([0.0, 1.0]), np.array([1.0, 3.0])))
      5.0
    """
    return Residual(*checked(predict, masked), "mse")


@near_keywords
def mae(predict: Model, *, masked: bool = False) -> Residual:
    """Return the mean absolute error, mean(|r|) with r = predict(params, x) - y, in the target's unit.

    Where a residual is zero its derivative is taken to be zero.

    Args:
      predict, masked: As for `rss`.

    Raises:
      TypeError, ValueError: As for `rss`.

    Example:
      >>> loss = jf.losses.mae(jf.models.line)
      >>> float(loss({"w": 0.0, "b": 0.0}, np.array([0.0, 1.0]), np.array([1.0, 3.0])))
      2.0
    """
    return Residual(*checked(predict, masked), "mae")


@near_keywords
def huber(predict: Model, *, delta: float = 1.0, masked: bool = False) -> Residual:
    """Return the Huber loss, mean(h(r)) with h(r) = r**2 / 2 where |r| <= delta, else delta * (|r| - delta / 2).

    Args:
      predict, masked: As for `rss`.
      delta: Where the square becomes linear, in the target's unit; positive. A leaf.

    Raises:
      TypeError, ValueError: As for `rss`; also for a `delta` that is a number and not positive.

    Source: Huber (1964), doi:10.1214/aoms/1177703732.

    Example:
      >>> loss = jf.losses.huber(jf.models.line, delta=1.0)
      >>> float(loss({"w": 0.0, "b": 0.0}, np.array([0.0, 1.0]), np.array([1.0, 3.0])))
      1.5
    """
    return Residual(*checked(predict, masked), "huber", number("delta", delta, "positive"))


@near_keywords
def soft_l1(predict: Callable, *, delta: float = 1.0, masked: bool = False) -> Residual:
    """Return the smooth absolute loss, mean(h(r)) with h(r) = delta**2 * (sqrt(1 + (r / delta)**2) - 1).

    It is r**2 / 2 for small residuals and delta * |r| for large ones, as Huber's loss, with all derivatives. It is the
    loss "soft_l1" of `scipy.optimize.least_squares` with f_scale=delta, whose cost is a sum.

    Args:
      predict, masked: As for `rss`.
      delta: The size of a residual at which the loss leaves the square, in the target's unit; positive. A leaf.

    Raises:
      TypeError, ValueError: As for `huber`.

    Source: Charbonnier, Blanc-Feraud, Aubert and Barlaud (1997), doi:10.1109/83.551699.

    Example:
      >>> loss = jf.losses.soft_l1(jf.models.line, delta=1.0)
      >>> round(float(loss({"w": 0.0, "b": 0.0}, np.array([0.0, 1.0]), np.array([1.0, 3.0]))), 4)
      1.2882
    """
    return Residual(*checked(predict, masked), "soft_l1", number("delta", delta, "positive"))


@near_keywords
def cauchy(predict: Callable, *, delta: float = 1.0, masked: bool = False) -> Residual:
    """Return the Cauchy loss, mean(h(r)) with h(r) = delta**2 / 2 * log(1 + (r / delta)**2).

    Beyond delta the pull of a residual falls as delta**2 / |r|, so that gross outliers hardly count; the loss is not
    convex, and where it ends may depend on the start. It is the loss "cauchy" of `scipy.optimize.least_squares`.

    Args:
      predict, delta, masked: As for `soft_l1`.

    Raises:
      TypeError, ValueError: As for `huber`.

    Source: Dennis and Welsch (1978), doi:10.1080/03610917808812083.

    Example:
      >>> loss = jf.losses.cauchy(jf.models.line, delta=1.0)
      >>> round(float(loss({"w": 0.0, "b": 0.0}, np.array([0.0, 1.0]), np.array([1.0, 3.0]))), 4)
      0.7489
    """
    return Residual(*checked(predict, masked), "cauchy", number("delta", delta, "positive"))


@near_keywords
def arctan(predict: Callable, *, delta: float = 1.0, masked: bool = False) -> Residual:
    """Return the arctangent loss, mean(h(r)) with h(r) = delta**2 / 2 * arctan((r / delta)**2).

    No residual adds more than pi / 4 * delta**2 to the sum; the loss is not convex, as that of `cauchy`. It is the loss
    "arctan" of `scipy.optimize.least_squares`.

    Args:
      predict, delta, masked: As for `soft_l1`.

    Raises:
      TypeError, ValueError: As for `huber`.

    Source: the documentation of scipy.optimize.least_squares, SciPy 1.17.

    Example:
      >>> loss = jf.losses.arctan(jf.models.line, delta=1.0)
      >>> round(float(loss({"w": 0.0, "b": 0.0}, np.array([0.0, 1.0]), np.array([1.0, 3.0]))), 4)
      0.5614
    """
    return Residual(*checked(predict, masked), "arctan", number("delta", delta, "positive"))


@near_keywords
def tukey(predict: Callable, *, delta: float = 4.685, masked: bool = False) -> Residual:
    """Return Tukey's biweight loss, mean(h(r)) with h(r) = delta**2 / 6 * (1 - (1 - (r / delta)**2)**3), at most.

    Residuals beyond delta count delta**2 / 6 each and pull at nothing: they are left out. Start from params near those
    wanted, such as those of a fit by `huber`. With 4.685 times the standard deviation of the bulk it is 95 % as
    efficient on Gaussian residuals as least squares.

    Args:
      predict, masked: As for `rss`.
      delta: The size of a residual beyond which it is left out, in the target's unit; positive. A leaf.

    Raises:
      TypeError, ValueError: As for `huber`.

    Source: Beaton and Tukey (1974), doi:10.1080/00401706.1974.10489171; Holland and Welsch (1977),
    doi:10.1080/03610927708827533 for 4.685.

    Example:
      >>> loss = jf.losses.tukey(jf.models.line, delta=2.0)
      >>> round(float(loss({"w": 0.0, "b": 0.0}, np.array([0.0, 1.0]), np.array([1.0, 3.0]))), 4)
      0.526
    """
    return Residual(*checked(predict, masked), "tukey", number("delta", delta, "positive"))
