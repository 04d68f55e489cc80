"""Oscillations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxfit.models.guessing import Shape, Span, grid
from jaxfit.models.terms import Params, Term


@dataclass(frozen=True, repr=False)
class DampedOscillation(Term):
    """A damped oscillation, amplitude * exp(-rate * x) * cos(2 pi frequency x + phase).

    Params: `amplitude`, in the unit of y, at x = 0; `rate` and `frequency`, in the inverse unit of x; `phase`, in
    radians. (amplitude, phase) and (-amplitude, phase + pi) are one curve, and so are (frequency, phase) and
    (-frequency, -phase): the guess has a positive amplitude and frequency, and a phase within (-pi, pi].

    Source: Feynman, Leighton and Sands, The Feynman Lectures on Physics I (1963), chapter 24.
    """

    def value(self, x: Any, amplitude: Any, rate: Any, frequency: Any, phase: Any) -> Any:
        return amplitude * jnp.exp(-rate * x) * jnp.cos(2 * jnp.pi * frequency * x + phase)

    def shapes(self, span: Span) -> dict[str, Array]:
        """Four frequencies for each that the length of the data tells apart, up to two points a period."""
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
