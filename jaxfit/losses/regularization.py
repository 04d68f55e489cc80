"""What keeps a model simple: penalties on the params, to add to a loss of the data, and noise on the inputs."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxfit.datasets import as_numbers
from jaxfit.losses.base import (
    Block,
    Loss,
    Penalty,
    Sum,
    as_array,
    as_float,
    hashable,
    is_masked,
    label,
    leaves_of,
    number,
    takes_key,
    terms_of,
)
from jaxfit.losses.regression import beside, checked, predicted
from jaxfit.problems.messages import near_keywords, shown
from jaxfit.typing import ArrayLike, LossFunction, Model, Number, Params, PyTree


@leaves_of("strength")
@dataclass(frozen=True, eq=False, repr=False)
class L2(Penalty):
    """The penalty made by `l2`."""

    strength: Number
    of: Callable | None

    @property
    def knows_residuals(self) -> bool:
        return True

    def __call__(self, params: Params, *data: PyTree) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        squares: Any = sum(jnp.sum(jnp.square(leaf)) for leaf in self._chosen(params))
        return self.strength * squares

    def blocks(self, params: Params, *data: PyTree) -> tuple[Block, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return tuple(Block(leaf, self.strength) for leaf in self._chosen(params))

    def _chosen(self, params: Params) -> list[Array]:
        leaves = jax.tree.leaves(params if self.of is None else self.of(params))
        if not leaves:
            raise ValueError(f"{self}: there are no params to penalize; choose some with of=")
        return [as_float(as_numbers("params", leaf)) for leaf in leaves]

    def __repr__(self) -> str:
        return f"l2({self.strength!r}{'' if self.of is None else f', of={label(self.of)}'})"


@near_keywords
def l2(strength: float, of: Callable | None = None) -> L2:
    """Return the penalty strength * (sum of the squares of all params), which ignores the data; add it to a loss.

    Args:
      strength: Zero or more, in the loss's unit over the params' squared. A leaf.
      of: A hashable function of the params that selects the penalized ones, such as the weights without the biases.

    Raises:
      ValueError: If `strength` is a number and negative, NaN or infinite.
      TypeError: If `strength` cannot be a number, or `of` cannot be called or hashed.

    Example:
      >>> loss = jf.losses.mse(jf.models.line) + jf.losses.l2(0.5)
      >>> float(loss({"w": 2.0, "b": 0.0}, np.array([0.0, 1.0]), np.array([0.0, 2.0])))
      2.0
    """
    return L2(number("strength", strength, "zero or more"), of if of is None else hashable("of", of))


@leaves_of("strength", "x")
@dataclass(frozen=True, eq=False, repr=False)
class Smoothness(Penalty):
    """The penalty made by `smoothness`."""

    predict: Model
    strength: Number
    x: ArrayLike

    @property
    def functions(self) -> tuple[Callable, ...]:
        return (self.predict,)

    @property
    def knows_residuals(self) -> bool:
        return True

    def __call__(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        return self.strength * jnp.mean(jnp.square(self._bends(params, key)))

    def blocks(self, params: Params, *data: PyTree, key: Array | None = None) -> tuple[Block, ...]:
        bends = self._bends(params, key)
        return (Block(bends, self.strength / bends.size),)

    def _bends(self, params: Params, key: Array | None) -> Array:
        x = as_array("x", self.x)
        prediction = predicted(self, params, x, key)
        if prediction.shape[:1] != x.shape:
            raise ValueError(
                f"{self}: the prediction has shape {prediction.shape} on a grid x of shape {x.shape}; "
                f"let predict return one row for each point, {x.shape} or ({len(x)}, outputs)"
            )
        x = as_float(x)
        slopes = jnp.diff(prediction, axis=0) / beside(jnp.diff(x), prediction)
        return 2 * jnp.diff(slopes, axis=0) / beside(x[2:] - x[:-2], prediction)

    def __repr__(self) -> str:
        return f"smoothness({label(self.predict)}, strength={self.strength!r})"


@near_keywords
def smoothness(predict: Model, *, strength: float, x: ArrayLike) -> Smoothness:
    """Return the penalty strength * mean(bend**2), the bend being the second derivative of the predictions on a grid.

    The bend is the second difference over the spacing squared; on an uneven grid it is the second divided difference
    times two. So a straight line has no penalty on any grid, and a finer grid does not weaken the penalty. It ignores
    the data; add it to a loss.

    Args:
      predict: As for `rss`; it returns (m,) or (m, outputs) for the grid.
      strength: Zero or more, in the loss's unit over the bend's squared. A leaf.
      x: (m,) points, strictly increasing, three or more. A leaf.

    Raises:
      ValueError: If `strength` is a number and negative, NaN or infinite, or `x` is not such a grid.
      TypeError: If `predict` cannot be called or hashed, or the others cannot be numbers.

    Example:
      >>> penalty = jf.losses.smoothness(jf.models.polynomial(2), strength=1.0, x=np.linspace(0.0, 1.0, 5))
      >>> round(float(penalty({"coefficients": np.array([0.0, 1.0, 0.5])})), 3)
      1.0
    """
    predict, _ = checked(predict, False)
    return Smoothness(predict, number("strength", strength, "zero or more"), _grid(x))


def _grid(x: ArrayLike) -> ArrayLike:
    if isinstance(x, (str, bytes, dict, numbers.Number, type(None))):
        raise TypeError(f"x is {x!r}; it must be a grid of points, such as np.linspace(0, 1, 50)")
    if not isinstance(x, (list, tuple)) and (isinstance(x, Tracer) or not hasattr(x, "__array__")):
        return x
    points = as_numbers("x", x)
    if points.ndim != 1 or len(points) < 3:
        raise ValueError(
            f"x has shape {points.shape}; a grid must be (m,) with three points or more: np.linspace(0, 1, 50)"
        )
    if not (np.all(np.isfinite(points)) and np.all(np.diff(points) > 0)):
        raise ValueError("x must be finite and strictly increasing; sort it and drop repetitions: np.unique(x)")
    return points if isinstance(points, jax.Array) else np.array(points)


@leaves_of("loss", "scale")
@dataclass(frozen=True, eq=False, repr=False)
class InputNoise(Loss):
    """The loss made by `input_noise`."""

    loss: Loss
    scale: Number

    @property
    def data_names(self) -> tuple[str, ...]:
        return self.loss.data_names

    @property
    def by_row(self) -> bool:
        return self.loss.by_row

    @property
    def masked(self) -> bool:
        return is_masked(self.loss)

    @property
    def takes_arrays(self) -> bool:
        return self.loss.takes_arrays

    @property
    def functions(self) -> tuple[Callable, ...]:
        return (_noise, *self.loss.functions)

    def __call__(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        if key is None:
            raise TypeError(
                f"{self} draws noise, for which it needs a key: pass key=jax.random.key(0), or to fit key=0"
            )
        if not data:
            raise TypeError(f"{self} takes the data ({', '.join(self.data_names)}), but got none")
        given = {"key": jax.random.fold_in(key, 1)} if takes_key(self.loss) else {}
        return self.loss(params, _noise(self.scale, data[0], key), *data[1:], **given)

    def __repr__(self) -> str:
        return f"input_noise({self.loss!r}, scale={self.scale!r})"


def _noise(scale: Number, x: ArrayLike, key: Array) -> Array:
    x = as_float(as_array("x", x))
    return x + scale * jax.random.normal(jax.random.fold_in(key, 0), x.shape, x.dtype)


@near_keywords
def input_noise(loss: LossFunction, *, scale: float) -> InputNoise:
    """Return a loss with noise on its inputs: loss(params, x + scale * z, ...) with new z from N(0, 1) in every step.

    Noise on the inputs reduces overfitting. Averaged over the noise, a small scale adds the penalty
    scale**2 * mean(slope**2) to a mean squared error near its minimum, where the slope is that of the predictions by x.
    The loss takes a key, so fits and sweeps of it need one. Their final loss and validation loss contain the noise too:
    to see the loss without noise, record it as a function.

    Args:
      loss: A loss, or a function of (params, x, ...), whose first data are an array of numbers.
      scale: Standard deviation of the noise in the unit of x; zero or more. A leaf.

    Raises:
      TypeError: If `loss` cannot be called or hashed, or takes no data, or `scale` cannot be a number; when called,
        if there is no key.
      ValueError: If `scale` is a number and negative, NaN or infinite.

    Source: Bishop (1995), doi:10.1162/neco.1995.7.1.108.

    Example:
      >>> jf.losses.input_noise(jf.losses.mse(jf.models.line), scale=0.1)
      input_noise(mse(line), scale=0.1)
    """
    if not callable(loss):
        raise TypeError(f"loss is {shown(loss)}, which cannot be called; pass a loss itself, such as mse(line)")
    terms = terms_of(loss)
    inner = terms[0] if len(terms) == 1 else Sum(terms)
    if not inner.data_names:
        raise TypeError(f"loss is {loss!r}, which takes no data to add noise to; wrap the loss of the data instead")
    return InputNoise(inner, number("scale", scale, "zero or more"))
