"""The losses that average or add a function of the residuals."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxfit.losses.base import (
    Block,
    OfPredictions,
    checked,
    count,
    counted,
    difference,
    label,
    leaves_of,
    mean_of_rows,
    number,
    predicted,
    read,
)
from jaxfit.losses.noise_models import ROBUST, SQUARES, NoiseModel
from jaxfit.problems.messages import near_keywords


@leaves_of("delta")
@dataclass(frozen=True, eq=False, repr=False)
class Residual(OfPredictions):
    """The losses `rss`, `mse`, `mae` and `huber`: functions of the residuals, prediction minus target."""

    kind: str
    delta: Any = None  # a positive number for huber, else None

    def __call__(self, params: Any, *data: Any, key: Any = None) -> Array:
        residuals, where = self._residuals(params, data, key)
        values = _OF_RESIDUALS[self.kind](residuals, self.delta)
        return jnp.sum(values) if self.kind == "rss" else mean_of_rows(values, where)

    @property
    def knows_residuals(self) -> bool:
        return self.kind != "mae"  # whose second derivative is zero everywhere

    def blocks(self, params: Any, *data: Any, key: Any = None) -> tuple[Block, ...]:
        residuals, where = self._residuals(params, data, key)
        rho = functools.partial(_huber, delta=self.delta) if self.kind == "huber" else None
        return (Block(residuals, 1.0 if self.kind == "rss" else 1 / count(residuals, where), rho),)

    def noise_model(self) -> NoiseModel:
        if self.kind == "mae":
            why = (
                f"the second derivative of {self} is zero wherever it exists, so that it has no curvature to read "
                f"errors from; fit jf.losses.huber with a small delta, or use jf.bootstrap on a fit of that"
            )
            return NoiseModel(sigma=False, predicts=True, why_unknown=why)
        kind = ROBUST if self.kind == "huber" else SQUARES
        return NoiseModel(kind, sigma=False, additive=self.kind == "rss", predicts=True)

    def residuals(self, params: Any, *data: Any, key: Any = None) -> Array:
        """Return prediction minus target in the target's shape and unit, zero where masked."""
        return self._residuals(params, data, key)[0]

    def _residuals(self, params: Any, data: tuple, key: Any) -> tuple[Array, Array | None]:
        x, y, where = read(self, data)
        residuals = difference(self, predicted(self, params, x, key), y)
        return counted(residuals, where), where

    def __repr__(self) -> str:
        options = [f"delta={self.delta!r}"] * (self.delta is not None) + ["masked=True"] * self.masked
        return f"{self.kind}({', '.join([label(self.predict), *options])})"


def _huber(residuals: Array, delta: Any) -> Array:
    size = jnp.abs(residuals)
    return jnp.where(size <= delta, jnp.square(residuals) / 2, delta * (size - delta / 2))


_OF_RESIDUALS: dict[str, Callable[[Array, Any], Array]] = {
    "rss": lambda residuals, _: jnp.square(residuals),
    "mse": lambda residuals, _: jnp.square(residuals),
    "mae": lambda residuals, _: residuals * jnp.sign(residuals),  # JAX takes the slope of abs at zero to be one
    "huber": _huber,
}


@near_keywords
def rss(predict: Callable, *, masked: bool = False) -> Residual:
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
def mse(predict: Callable, *, masked: bool = False) -> Residual:
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
def mae(predict: Callable, *, masked: bool = False) -> Residual:
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
def huber(predict: Callable, *, delta: float = 1.0, masked: bool = False) -> Residual:
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
