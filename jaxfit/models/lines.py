"""The straight line, and the constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.datasets import as_key, as_numbers
from jaxfit.models.functions import array
from jaxfit.models.guessing import Shape, Span
from jaxfit.models.terms import Curve, Term


@dataclass(frozen=True, repr=False)
class Line(Curve):
    """A straight line, w * x + b for x of any shape, with params {"w": (), "b": ()}.

    Example:
      >>> jf.models.line({"w": 2.0, "b": 1.0}, np.array([0.0, 3.0])).tolist()
      [1.0, 7.0]
    """

    def __call__(self, params: dict[str, Any], x: Any) -> Any:
        return params["w"] * array(x) + params["b"]

    def init(self, key: int | Array) -> dict[str, Array]:
        """Return w from N(0, 1) and b zero."""
        return {"w": jax.random.normal(as_key(key)), "b": jnp.zeros(())}

    @property
    def names(self) -> tuple[str, ...]:
        return "w", "b"

    def shapes(self, span: Span) -> dict[str, Array]:
        return {}

    def columns(self, shape: Shape, span: Span) -> Array:
        """Orthogonal for evenly spaced points."""
        return jnp.stack([(span.x - (span.low + span.high) / 2) / span.width, jnp.ones_like(span.x)])

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> dict[str, Array]:
        w = coefficients[0] / span.width
        return {"w": w, "b": coefficients[1] - w * (span.low + span.high) / 2}

    def raised(self, params: dict[str, Any], rise: Any) -> dict[str, Any]:
        """The params of the line that is higher everywhere."""
        return params | {"b": params["b"] + rise}

    @staticmethod
    def least_squares(x: Any, y: Any) -> dict[str, float]:
        """The params of least mean squared error: w = sum (x - mean x)(y - mean y) / sum (x - mean x)**2, and b.

        b = mean y - w * mean x. In float64, whatever the arrays are; x and y are (n,).

        Raises:
          ValueError: If the shapes are others, a number is not finite, or x is the same at every point: a line through
            one x has any slope.
        """
        x, y = (np.asarray(as_numbers(name, value), float) for name, value in (("x", x), ("y", y)))
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(f"x has shape {x.shape} and y {y.shape}; a line takes two arrays (n,) of one length")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("x or y holds NaN or infinity; drop those points")
        if not np.ptp(x) if x.size else True:
            raise ValueError(
                f"x is {f'{x[0]:g} at every point' if x.size else 'empty'}, so that the slope is not determined; a "
                f"line takes at least two different x"
            )
        apart = (x - x.mean()) / np.ptp(x)  # squares of these neither overflow nor underflow
        w = float(np.sum(apart * (y - y.mean())) / np.sum(apart**2) / np.ptp(x))
        return {"w": w, "b": float(y.mean() - w * x.mean())}

    def __repr__(self) -> str:
        return "line"


line = Line()


@dataclass(frozen=True, repr=False)
class Constant(Term):
    """A constant, with params {"offset": ()} in the unit of y: a background, as in `gaussian + constant`.

    Example:
      >>> jf.models.constant({"offset": 2.0}, np.array([0.0, 1.0])).tolist()
      [2.0, 2.0]
    """

    def value(self, x: Any, offset: Any) -> Any:
        points = jnp.shape(x)
        return jnp.broadcast_to(offset, points[:-1] if len(points) > 1 else points)

    def shapes(self, span: Span) -> dict[str, Array]:
        return {}

    def columns(self, shape: Shape, span: Span) -> Array:
        return jnp.ones((1, span.size), span.x.dtype)

    def raised(self, params: dict[str, Any], rise: Any) -> dict[str, Any]:
        """The params of the constant that is higher."""
        return {"offset": params["offset"] + rise}


constant = Constant()
