"""Resonances: of an oscillator that is driven, and of a state that interferes with a continuum."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from jaxfit.models.guessing import Span
from jaxfit.models.peaks import in_widths
from jaxfit.models.shaped_peaks import shaped
from jaxfit.models.terms import Term
from jaxfit.typing import Number, Params


@dataclass(frozen=True, repr=False)
class DrivenOscillator(Term):
    """The amplitude of a driven oscillator over the frequency, height / sqrt((1 - r**2)**2 + (2 damping r)**2).

    r = x / center.

    Params: `height`, in the unit of y, at x = 0; `center`, the frequency without damping, in that of x; `damping`, the
    ratio to the critical one, without unit. The signs of center and damping do not matter.

    Derived: `peak`, the x of the maximum, zero for a damping above sqrt(1 / 2); `maximum`, the amplitude there;
    `quality` = 1 / (2 damping); `fwhm`, the full width at half maximum, infinite if x = 0 lies above half.

    Source: Landau and Lifshitz, Mechanics (1976), section 26; Feynman, Leighton and Sands, The Feynman Lectures on
    Physics I (1963), chapter 23.

    Example:
      >>> params = {"height": 2.0, "center": 3.0, "damping": 0.1}
      >>> [round(float(y), 6) for y in jf.models.driven_oscillator(params, np.array([0.0, 3.0]))]
      [2.0, 10.0]
    """

    def value(self, x: Array, height: Number, center: Number, damping: Number) -> Array:
        square = in_widths(x, 0.0, center) ** 2
        least = 1e-20  # without damping the amplitude at the center is infinite; its slope stays finite in float32
        return height / jnp.sqrt(jnp.maximum((1 - square) ** 2 + 4 * damping**2 * square, least))

    def derived(self, params: Params) -> dict[str, Array]:
        height, center, damping = params["height"], jnp.abs(params["center"]), jnp.abs(params["damping"])
        rises = 2 * damping**2 < 1
        z = jnp.where(rises, damping, 0.5)
        peak = jnp.where(rises, center * jnp.sqrt(1 - 2 * z**2), 0.0)
        maximum = jnp.where(rises, height / (2 * z * jnp.sqrt(1 - z**2)), height)
        apart = z * jnp.sqrt(12 * (1 - z**2))
        lower = 1 - 2 * z**2 - apart
        falls = rises & (lower > 0)
        width = center * (jnp.sqrt(1 - 2 * z**2 + apart) - jnp.sqrt(jnp.where(falls, lower, 1.0)))
        fwhm = jnp.where(falls, width, jnp.inf)
        return {"peak": peak, "maximum": maximum, "quality": 1 / (2 * damping), "fwhm": fwhm}

    def shapes(self, span: Span) -> dict[str, Array]:
        candidates = shaped(span, "width")
        center = jnp.where(candidates["center"] == 0, span.width, jnp.abs(candidates["center"]))
        return {"center": center, "damping": candidates["width"] / center}


driven_oscillator = DrivenOscillator()


@dataclass(frozen=True, repr=False)
class Fano(Term):
    """A resonance that interferes with a continuum, height * (q + u)**2 / (1 + u**2), with u = (x - center) / gamma.

    Params: `height`, in the unit of y: the level far away, which a q of 0 dips to zero; `center` and `gamma`, the
    half-width, in that of x; `q`, without unit. With the signs of q and gamma reversed the curve is the same.

    Source: Fano (1961), doi:10.1103/PhysRev.124.1866.

    Example:
      >>> params = {"height": 2.0, "center": 0.0, "gamma": 1.0, "q": 1.0}
      >>> jf.models.fano(params, np.array([-1.0, 0.0, 1.0])).tolist()
      [0.0, 2.0, 4.0]
    """

    def value(self, x: Array, height: Number, center: Number, gamma: Number, q: Number) -> Array:
        u = (x - center) / gamma
        return height * (q + u) ** 2 / (1 + u**2)

    def shapes(self, span: Span) -> dict[str, Array]:
        return shaped(span, "gamma", q=jnp.array([-6.0, -3.0, -1.5, -0.8, -0.3, 0.0, 0.3, 0.8, 1.5, 3.0, 6.0]))


fano = Fano()
