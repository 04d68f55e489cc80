"""Splines: piecewise polynomials with given knots, linear in their coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.datasets import as_numbers
from jaxfit.models.guessing import Shape, Span
from jaxfit.models.terms import Curve, array, taken, whole_number
from jaxfit.problems.axes import as_key
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import ArrayLike, Params


@dataclass(frozen=True, repr=False)
class Spline(Curve):
    """A spline, the sum of coefficients times B-splines; made by `spline`."""

    knots: tuple[float, ...]
    degree: int

    @property
    def names(self) -> tuple[str, ...]:
        return ("coefficients",)

    @property
    def count(self) -> int:
        """The number of coefficients."""
        return len(self.knots) - 1 + self.degree

    def __call__(self, params: Params, x: ArrayLike) -> Array:
        (coefficients,) = taken(self, params)
        if jnp.shape(coefficients) != (self.count,):
            raise ValueError(
                f"{self}: params['coefficients'] has shape {jnp.shape(coefficients)}; {len(self.knots)} knots and "
                f"degree {self.degree} take ({self.count},), as init(key) gives"
            )
        return self._value(jnp.asarray(coefficients), 1.0 * jnp.asarray(array(x)))

    def _value(self, coefficients: Array, x: Array) -> Array:
        """Return the spline by de Boor's algorithm, which averages the degree + 1 coefficients of an interval."""
        p = self.degree
        knots = jnp.asarray(np.pad(self.knots, p, mode="edge"), x.dtype)
        interval = jnp.clip(jnp.searchsorted(knots, x, side="right") - 1, p, self.count - 1)
        points = [coefficients[interval - p + j] for j in range(p + 1)]
        for level in range(1, p + 1):
            for j in range(p, level - 1, -1):
                left, right = knots[interval - p + j], knots[interval + 1 + j - level]
                share = (x - left) / jnp.where(right > left, right - left, 1)
                points[j] = (1 - share) * points[j - 1] + share * points[j]
        return points[p]

    def init(self, key: int | Array) -> dict[str, Array]:
        """Return coefficients from N(0, 1)."""
        return {"coefficients": jax.random.normal(as_key(key), (self.count,))}

    def columns(self, shape: Shape, span: Span) -> Array:
        """Return the B-splines, each between 0 and 1."""
        return jax.vmap(lambda one: self._value(one, span.x))(jnp.eye(self.count, dtype=span.x.dtype))

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> dict[str, Array]:
        return {"coefficients": coefficients}

    def raised(self, params: Params, rise: Array) -> Params:
        """Return the params of the spline that is higher everywhere: B-splines add up to 1."""
        return {"coefficients": params["coefficients"] + rise}

    def refuse(self, x: np.ndarray) -> None:
        low, high = self.knots[0], self.knots[-1]
        if x.size and (x.min() < low or x.max() > high):
            raise ValueError(
                f"x runs from {x.min():g} to {x.max():g}, but the knots from {low:g} to {high:g}, outside of which no "
                f"coefficient has data of its own; let the first and last knot enclose x, or drop the points outside"
            )

    def __repr__(self) -> str:
        shown = ", ".join(f"{knot:g}" for knot in self.knots[:3]) + (", ..." if len(self.knots) > 3 else "")
        return f"spline([{shown}], {self.degree})"


@near_keywords
def spline(knots: ArrayLike, degree: int = 3) -> Spline:
    """Return a spline, a polynomial of the given degree between two knots, smooth at those inside: a free background.

    It is the sum of coefficients times B-splines of which degree + 1 differ from zero at a point, by de Boor's
    algorithm, for x of any shape. The knots at both ends count degree + 1 times, so that the first coefficient is the
    value at the first knot and the last one that at the last. Outside of the knots the polynomials at the ends go on;
    `guess` refuses data there. It is linear in its params, {"coefficients": (len(knots) - 1 + degree,)}, in the unit of
    y: each is about the height of the curve at its place.

    Args:
      knots: (k,) increasing, two or more, from the lowest x to the highest; in the unit of x. Between two knots there
        should be data, or some coefficients are not determined.
      degree: 3 is a cubic spline, whose second derivative is continuous; 1 connects points by lines; 0 or more.

    Raises:
      TypeError: If the knots are no numbers, or the degree is not a whole number.
      ValueError: If the knots are fewer than two, not finite or not increasing, or the degree is negative.

    Source: de Boor (1978), A Practical Guide to Splines, chapters 9 and 10.

    Example:
      >>> model = jf.models.spline([0.0, 1.0, 4.0], degree=1)
      >>> model({"coefficients": np.array([0.0, 2.0, 5.0])}, np.array([0.0, 0.5, 2.0, 4.0])).tolist()
      [0.0, 1.0, 3.0, 5.0]
    """
    degree = whole_number("degree", degree, at_least=0)
    places = np.asarray(as_numbers("knots", knots), float)
    if places.ndim != 1 or len(places) < 2 or not np.isfinite(places).all():
        raise ValueError(
            f"knots has shape {places.shape}; it must be two or more finite numbers, such as np.linspace(x.min(), "
            f"x.max(), 6)"
        )
    wrong = np.flatnonzero(np.diff(places) <= 0)
    if len(wrong):
        before, after = places[wrong[0] : wrong[0] + 2]
        raise ValueError(
            f"knots must increase, but {after:g} follows {before:g}; sort them and take each once, np.unique(knots)"
        )
    return Spline(tuple(places.tolist()), degree)
