"""The straight line, the constant, and polynomials: in powers of x, and in functions orthogonal on the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.datasets import as_numbers
from jaxfit.models.guessing import Shape, Span
from jaxfit.models.terms import Curve, Term, array, whole
from jaxfit.problems.axes import as_key
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import ArrayLike, Number, Params


@dataclass(frozen=True, repr=False)
class Line(Curve):
    """A straight line, w * x + b for x of any shape, with params {"w": (), "b": ()}.

    Example:
      >>> jf.models.line({"w": 2.0, "b": 1.0}, np.array([0.0, 3.0])).tolist()
      [1.0, 7.0]
    """

    def __call__(self, params: Params, x: ArrayLike) -> Array:
        return params["w"] * array(x) + params["b"]

    def init(self, key: int | Array) -> dict[str, Array]:
        """Return w from N(0, 1) and b zero."""
        return {"w": jax.random.normal(as_key(key)), "b": jnp.zeros(())}

    @property
    def names(self) -> tuple[str, ...]:
        return "w", "b"

    def columns(self, shape: Shape, span: Span) -> Array:
        """Return columns that are orthogonal for evenly spaced points."""
        return jnp.stack([(span.x - (span.low + span.high) / 2) / span.width, jnp.ones_like(span.x)])

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> dict[str, Array]:
        w = coefficients[0] / span.width
        return {"w": w, "b": coefficients[1] - w * (span.low + span.high) / 2}

    def raised(self, params: Params, rise: Array) -> Params:
        """Return the params of the line that is higher everywhere."""
        return params | {"b": params["b"] + rise}

    @staticmethod
    def least_squares(x: ArrayLike, y: ArrayLike) -> dict[str, float]:
        """Return the params of least mean squared error: w = sum (x - mean x)(y - mean y) / sum (x - mean x)**2, and b.

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
        if not x.size or not np.ptp(x):
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

    def value(self, x: Array, offset: Number) -> Array:
        points = jnp.shape(x)
        return jnp.broadcast_to(offset, points[:-1] if len(points) > 1 else points)

    def columns(self, shape: Shape, span: Span) -> Array:
        return jnp.ones((1, span.size), span.x.dtype)

    def raised(self, params: Params, rise: Array) -> Params:
        """Return the params of the constant that is higher."""
        return {"offset": params["offset"] + rise}


constant = Constant()


def _coefficients(model: object, params: Params, degree: int) -> Array:
    found = params["coefficients"]
    if jnp.shape(found) != (degree + 1,):
        raise ValueError(
            f"{model}: params['coefficients'] has shape {jnp.shape(found)}; a polynomial of degree {degree} takes "
            f"({degree + 1},), the constant first"
        )
    return found


@dataclass(frozen=True, repr=False)
class Polynomial(Curve):
    """A polynomial c[0] + c[1] x + ... + c[degree] x**degree; made by `polynomial`."""

    degree: int

    def __call__(self, params: Params, x: ArrayLike) -> Array:
        points, coefficients = array(x), _coefficients(self, params, self.degree)
        value = coefficients[-1]
        for power in reversed(range(self.degree)):
            value = value * points + coefficients[power]
        return value if self.degree else jnp.broadcast_to(value, jnp.shape(points))

    def init(self, key: int | Array) -> dict[str, Array]:
        """Return coefficients from N(0, 1)."""
        return {"coefficients": jax.random.normal(as_key(key), (self.degree + 1,))}

    @property
    def names(self) -> tuple[str, ...]:
        return ("coefficients",)

    def columns(self, shape: Shape, span: Span) -> Array:
        """Return powers of x, in units of the largest."""
        return jnp.stack([(span.x / self._unit(span)) ** power for power in range(self.degree + 1)])

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> dict[str, Array]:
        return {"coefficients": coefficients / self._unit(span) ** jnp.arange(self.degree + 1)}

    def raised(self, params: Params, rise: Array) -> Params:
        """Return the params of the polynomial that is higher everywhere."""
        return {"coefficients": params["coefficients"].at[0].add(rise)}

    @staticmethod
    def _unit(span: Span) -> Array:
        largest = jnp.maximum(jnp.abs(span.low), jnp.abs(span.high))
        return jnp.where(largest > 0, largest, 1)

    def __repr__(self) -> str:
        return f"polynomial({self.degree})"


@near_keywords
def polynomial(degree: int) -> Polynomial:
    """Return the model c[0] + c[1] x + ... + c[degree] x**degree for x of any shape, computed by Horner's rule.

    The params are {"coefficients": (degree + 1,)}, the constant first.

    Raises:
      TypeError: If `degree` is not a whole number.
      ValueError: If it is negative.

    Example:
      >>> jf.models.polynomial(2)({"coefficients": np.array([1.0, 0.0, 2.0])}, np.array([0.0, 3.0])).tolist()
      [1.0, 19.0]
    """
    return Polynomial(whole("degree", degree, at_least=0))


@dataclass(frozen=True, repr=False)
class OrthogonalPolynomial:
    """A polynomial c[0] p_0(x) + ... + c[degree] p_degree(x); made by `orthogonal_polynomial`."""

    shifts: tuple[float, ...]
    scales: tuple[float, ...]

    def __call__(self, params: Params, x: ArrayLike) -> Array:
        points, coefficients = array(x), _coefficients(self, params, len(self.shifts))
        value: Any = sum(coefficients[k] * basis for k, basis in enumerate(self._basis(points)))
        return value

    def _basis(self, x: Array) -> list[Array]:
        """Return the polynomials p_k+1 = ((x - shift_k) p_k - scale_k p_k-1) / scale_k+1, from p_0 = 1."""
        found = [0 * x + 1.0]
        for k, (shift, scale) in enumerate(zip(self.shifts, self.scales, strict=True)):
            raised = (x - shift) * found[k] - (self.scales[k - 1] * found[k - 1] if k else 0.0)
            found.append(raised / scale)
        return found

    def init(self, key: int | Array) -> dict[str, Array]:
        """Return coefficients from N(0, 1)."""
        return {"coefficients": jax.random.normal(as_key(key), (len(self.shifts) + 1,))}

    def __repr__(self) -> str:
        return f"orthogonal_polynomial({len(self.shifts)})"


@near_keywords
def orthogonal_polynomial(degree: int, x: ArrayLike) -> OrthogonalPolynomial:
    """Return the model c[0] p_0(x) + ... + c[degree] p_degree(x), with p_k orthonormal on the given points.

    p_k is of degree k, and the mean over the points of p_j p_k is 1 if j = k, else 0. So these are the functions of
    `polynomial(degree)`, but the Hessian of their mean squared error on those points is 2 in every direction: gradient
    descent with a learning rate of 0.5 needs one update, while with powers of x it would take far too many. The params
    are {"coefficients": (degree + 1,)}, the constant first.

    Args:
      degree: Zero or more, and less than the number of distinct points.
      x: (n,) points, usually those of the data.

    Raises:
      TypeError: If `degree` is not a whole number, or `x` holds no numbers.
      ValueError: If `degree` is negative or too high for the points, or these are not (n,) finite numbers.

    Source: Forsythe (1957), doi:10.1137/0105007.

    Example:
      >>> x = np.array([-1.0, 0.0, 1.0])
      >>> line = jf.models.orthogonal_polynomial(1, x)
      >>> [round(float(y), 3) for y in line({"coefficients": np.array([0.0, 1.0])}, x)]
      [-1.225, 0.0, 1.225]
    """
    degree = whole("degree", degree, at_least=0)
    points = np.asarray(as_numbers("x", x), float)
    if points.ndim != 1 or not len(points) or not np.all(np.isfinite(points)):
        raise ValueError(f"x has shape {points.shape}; it must be (n,) finite points, such as those of the data")
    distinct = len(np.unique(points))
    if degree >= distinct:
        raise ValueError(
            f"degree is {degree}, but x has {distinct} distinct points, on which only polynomials up to degree "
            f"{distinct - 1} differ: choose a lower degree, or more points"
        )
    shifts, scales = [], []
    before, here = np.zeros_like(points), np.ones_like(points)
    for k in range(degree):
        shifts.append(float(np.mean(points * here**2)))
        raised = (points - shifts[k]) * here - (scales[k - 1] * before if k else 0.0)
        scales.append(float(np.sqrt(np.mean(raised**2))))
        before, here = here, raised / scales[k]
    return OrthogonalPolynomial(tuple(shifts), tuple(scales))
