"""Penalties: losses of the params alone, to add to a loss of the data."""

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
    Penalty,
    as_array,
    as_float,
    beside,
    checked,
    hashable,
    label,
    leaves_of,
    number,
    predicted,
)
from jaxfit.problems.messages import near_keywords


@leaves_of("strength")
@dataclass(frozen=True, eq=False, repr=False)
class L2(Penalty):
    """The penalty made by `l2`."""

    strength: Any
    of: Callable | None

    @property
    def knows_residuals(self) -> bool:
        return True

    def __call__(self, params: Any, *data: Any) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.strength * sum(jnp.sum(jnp.square(leaf)) for leaf in self._chosen(params))

    def blocks(self, params: Any, *data: Any) -> tuple[Block, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return tuple(Block(leaf, self.strength) for leaf in self._chosen(params))

    def _chosen(self, params: Any) -> list[Array]:
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

    predict: Callable
    strength: Any
    x: Any

    @property
    def functions(self) -> tuple[Callable, ...]:
        return (self.predict,)

    @property
    def knows_residuals(self) -> bool:
        return True

    def __call__(self, params: Any, *data: Any, key: Any = None) -> Array:
        return self.strength * jnp.mean(jnp.square(self._bends(params, key)))

    def blocks(self, params: Any, *data: Any, key: Any = None) -> tuple[Block, ...]:
        bends = self._bends(params, key)
        return (Block(bends, self.strength / bends.size),)

    def _bends(self, params: Any, key: Any) -> Array:
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
def smoothness(predict: Callable, *, strength: float, x: Any) -> Smoothness:
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


def _grid(x: Any) -> Any:
    if isinstance(x, (str, bytes, dict, numbers.Number, type(None))):
        raise TypeError(f"x is {x!r}; it must be a grid of points, such as np.linspace(0, 1, 50)")
    if not isinstance(x, (list, tuple)) and (isinstance(x, Tracer) or not hasattr(x, "__array__")):
        return x
    x = as_numbers("x", x)
    if x.ndim != 1 or len(x) < 3:
        raise ValueError(f"x has shape {x.shape}; a grid must be (m,) with three points or more: np.linspace(0, 1, 50)")
    if not (np.all(np.isfinite(x)) and np.all(np.diff(x) > 0)):
        raise ValueError("x must be finite and strictly increasing; sort it and drop repetitions: np.unique(x)")
    return x if isinstance(x, jax.Array) else np.array(x)
