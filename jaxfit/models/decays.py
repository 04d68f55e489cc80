"""Exponentials: decay, growth, the rise to a limit, and sums of decays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxfit.keywords import near_keywords
from jaxfit.models.guessing import Shape, Span, spaced
from jaxfit.models.terms import Params, Several, Term, several


def rates(span: Span, count: int = 48) -> Array:
    """Candidates for a rate: from one that the data hardly show, to one over at the second point."""
    return spaced(0.05 / span.width, 4 / span.step, count)


@dataclass(frozen=True, repr=False)
class ExponentialDecay(Term):
    """A decay, amplitude * exp(-rate * x).

    Params: `amplitude`, in the unit of y, at x = 0; `rate`, in the inverse unit of x: the lifetime is 1 / rate, the
    half-life ln 2 / rate. A decay to a level other than zero is `exponential_decay + constant`.

    Source: NIST StRD, nonlinear regression, MGH17.
    """

    def value(self, x: Any, amplitude: Any, rate: Any) -> Any:
        return amplitude * jnp.exp(-rate * x)

    def shapes(self, span: Span) -> dict[str, Array]:
        return {"rate": rates(span)}

    def columns(self, shape: Shape, span: Span) -> Array:
        return self.value(span.x - span.low, 1.0, shape["rate"])[None]

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> Params:
        return {"amplitude": coefficients[0] * jnp.exp(shape["rate"] * span.low), **shape}


exponential_decay = ExponentialDecay()


@dataclass(frozen=True, repr=False)
class ExponentialGrowth(Term):
    """Growth without limit, amplitude * exp(rate * x).

    Params: `amplitude`, in the unit of y, at x = 0; `rate`, in the inverse unit of x: the doubling time is ln 2 /
    rate.
    """

    def value(self, x: Any, amplitude: Any, rate: Any) -> Any:
        return amplitude * jnp.exp(rate * x)

    def shapes(self, span: Span) -> dict[str, Array]:
        return {"rate": rates(span._replace(step=span.width / span.size))}

    def columns(self, shape: Shape, span: Span) -> Array:
        return self.value(span.x - span.high, 1.0, shape["rate"])[None]

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> Params:
        return {"amplitude": coefficients[0] * jnp.exp(-shape["rate"] * span.high), **shape}


exponential_growth = ExponentialGrowth()


@dataclass(frozen=True, repr=False)
class ExponentialRise(Term):
    """The rise from zero to a limit, height * (1 - exp(-rate * x)).

    Params: `height`, in the unit of y: the limit; `rate`, in the inverse unit of x.

    Source: NIST StRD, nonlinear regression, Misra1a and BoxBOD.
    """

    def value(self, x: Any, height: Any, rate: Any) -> Any:
        return -height * jnp.expm1(-rate * x)

    def shapes(self, span: Span) -> dict[str, Array]:
        slowest = 0.01 / jnp.maximum(jnp.abs(span.low), jnp.abs(span.high))
        return {"rate": spaced(slowest, 4 / span.step, 48)}


exponential_rise = ExponentialRise()


@near_keywords
def exponentials(count: int) -> Several:
    """The sum of `count` decays, with the params {"amplitude", "rate"} of shape (count,) each.

    Rates closer than a factor of two or so are hardly told apart by data, however good.

    Raises:
      TypeError: If `count` is not a whole number.
      ValueError: If it is below 1.

    Source: NIST StRD, nonlinear regression, Lanczos1-3; Lanczos, Applied Analysis (1956), pages 272-280.
    """
    return several(exponential_decay, count, "exponentials")
