"""Exponentials: decay, growth, the rise to a limit, and sums of decays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxfit.models.guessing import Shape, Span, grid, spaced
from jaxfit.models.terms import Params, Several, Term, several
from jaxfit.problems.messages import near_keywords


def rates(span: Span, count: int = 48) -> Array:
    """Return candidates for a rate: from one hardly visible in the data to one that has decayed at the second point."""
    return spaced(0.05 / span.width, 4 / span.step, count)


@dataclass(frozen=True, repr=False)
class ExponentialDecay(Term):
    """A decay to zero, amplitude * exp(-rate * x).

    Params: `amplitude`, in the unit of y, at x = 0; `rate`, in the inverse unit of x: the lifetime is 1 / rate, the
    half-life ln 2 / rate. A decay to a level other than zero is `exponential_decay + constant`.

    Source: NIST StRD, nonlinear regression, MGH17.

    Example:
      >>> jf.models.exponential_decay({"amplitude": 2.0, "rate": 0.0}, np.array([0.0, 1.0])).tolist()
      [2.0, 2.0]
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
    """An exponential growth, amplitude * exp(rate * x).

    Params: `amplitude`, in the unit of y, at x = 0; `rate`, in the inverse unit of x: the doubling time is ln 2 /
    rate.

    Example:
      >>> jf.models.exponential_growth({"amplitude": 2.0, "rate": 0.0}, np.array([0.0, 1.0])).tolist()
      [2.0, 2.0]
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
    """A rise from zero to a limit, height * (1 - exp(-rate * x)).

    Params: `height`, in the unit of y: the limit; `rate`, in the inverse unit of x.

    Source: NIST StRD, nonlinear regression, Misra1a and BoxBOD.

    Example:
      >>> [round(float(y), 3) for y in jf.models.exponential_rise({"height": 2.0, "rate": 1.0}, np.array([0.0, 1.0]))]
      [0.0, 1.264]
    """

    def value(self, x: Any, height: Any, rate: Any) -> Any:
        return -height * jnp.expm1(-rate * x)

    def shapes(self, span: Span) -> dict[str, Array]:
        slowest = 0.01 / jnp.maximum(jnp.abs(span.low), jnp.abs(span.high))
        return {"rate": spaced(slowest, 4 / span.step, 48)}


exponential_rise = ExponentialRise()


@near_keywords
def exponentials(count: int) -> Several:
    """Return the sum of `count` decays, with params {"amplitude", "rate"} of shape (count,) each.

    Data can hardly distinguish rates closer than a factor of about two, however good they are.

    Raises:
      TypeError: If `count` is not a whole number.
      ValueError: If it is below 1.

    Source: NIST StRD, nonlinear regression, Lanczos1-3; Lanczos, Applied Analysis (1956), pages 272-280.

    Example:
      >>> params = {"amplitude": np.array([1.0, 2.0]), "rate": np.array([0.5, 3.0])}
      >>> jf.models.exponentials(2)(params, np.array([0.0])).tolist()
      [3.0]
    """
    return several(exponential_decay, count, "exponentials")


@dataclass(frozen=True, repr=False)
class DampedOscillation(Term):
    """A damped oscillation, amplitude * exp(-rate * x) * cos(2 pi frequency x + phase).

    Params: `amplitude`, in the unit of y, at x = 0; `rate` and `frequency`, in the inverse unit of x; `phase`, in
    radians. (amplitude, phase) and (-amplitude, phase + pi) are one curve, and so are (frequency, phase) and
    (-frequency, -phase): the guess has a positive amplitude and frequency, and a phase within (-pi, pi].

    Source: Feynman, Leighton and Sands, The Feynman Lectures on Physics I (1963), chapter 24.

    Example:
      >>> params = {"amplitude": 1.0, "rate": 0.0, "frequency": 1.0, "phase": 0.0}
      >>> [round(float(y), 3) for y in jf.models.damped_oscillation(params, np.array([0.0, 0.5]))]
      [1.0, -1.0]
    """

    def value(self, x: Any, amplitude: Any, rate: Any, frequency: Any, phase: Any) -> Any:
        return amplitude * jnp.exp(-rate * x) * jnp.cos(2 * jnp.pi * frequency * x + phase)

    def shapes(self, span: Span) -> dict[str, Array]:
        """Return frequencies up to two points per period, four for each that the length of the data resolves."""
        count = 2 * span.size
        return grid(
            rate=jnp.array([0.0, 1.0, 3.0, 10.0]) / span.width,
            frequency=0.25 * jnp.arange(1, count + 1) / span.width,
        )

    @property
    def ordered_by(self) -> str:
        return "frequency"

    def columns(self, shape: Shape, span: Span) -> Array:
        x = span.x - span.low
        angle = 2 * jnp.pi * shape["frequency"] * x
        return jnp.exp(-shape["rate"] * x)[None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> Params:
        """a cos + b sin = sqrt(a**2 + b**2) cos(angle - atan2(b, a)), from the lowest x back to zero."""
        a, b = coefficients
        phase = -jnp.arctan2(b, a) - 2 * jnp.pi * shape["frequency"] * span.low
        phase = jnp.arctan2(jnp.sin(phase), jnp.cos(phase))
        amplitude = jnp.sqrt(a**2 + b**2) * jnp.exp(shape["rate"] * span.low)
        return {"amplitude": amplitude, **shape, "phase": phase}


damped_oscillation = DampedOscillation()
