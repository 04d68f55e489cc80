"""Steps and rectangles: blurred by a Gaussian, by a Lorentzian, in a logistic form, and with straight ramps."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jaxfit.models.guessing import Span, grid, spaced
from jaxfit.models.peaks import in_widths, places_and_widths
from jaxfit.models.terms import Term
from jaxfit.typing import Number, Params


@dataclass(frozen=True, repr=False)
class SmoothStep(Term):
    """A step blurred by a Gaussian, height * (1 + erf((x - center) / (sigma sqrt(2)))) / 2.

    Params: `height`, in the unit of y; `center` and `sigma`, negative for a step down, in that of x. A step blurred
    by a Lorentzian is `arctan_step`, one of a logistic form `logistic`, one with a straight ramp `linear_step`.

    Source: Olver and others, NIST Handbook of Mathematical Functions (2010), section 7.2.

    Example:
      >>> jf.models.smooth_step({"height": 2.0, "center": 3.0, "sigma": 1.0}, np.array([3.0])).tolist()
      [1.0]
    """

    flips = "sigma"

    def value(self, x: Array, height: Number, center: Number, sigma: Number) -> Array:
        return height * jax.scipy.special.ndtr(in_widths(x, center, sigma))

    def shapes(self, span: Span) -> dict[str, Array]:
        centers, widths = places_and_widths(span)
        return grid(center=centers, sigma=jnp.concatenate([widths, -widths]))


smooth_step = SmoothStep()


@dataclass(frozen=True, repr=False)
class ArctanStep(Term):
    """A step blurred by a Lorentzian, height * (1 / 2 + arctan((x - center) / gamma) / pi): an absorption edge.

    Params: `height`, in the unit of y; `center` and `gamma`, negative for a step down, in that of x.

    Source: Richtmyer, Barnes and Ramberg (1934), doi:10.1103/PhysRev.46.843.

    Example:
      >>> [round(float(y), 3) for y in jf.models.arctan_step({"height": 2.0, "center": 3.0, "gamma": 1.0}, [3.0, 4.0])]
      [1.0, 1.5]
    """

    flips = "gamma"

    def value(self, x: Array, height: Number, center: Number, gamma: Number) -> Array:
        return height * (0.5 + jnp.arctan(in_widths(x, center, gamma)) / jnp.pi)

    def shapes(self, span: Span) -> dict[str, Array]:
        centers, widths = places_and_widths(span)
        return grid(center=centers, gamma=jnp.concatenate([widths, -widths]))


arctan_step = ArctanStep()


@dataclass(frozen=True, repr=False)
class LinearStep(Term):
    """A step with a straight ramp, height * min(max((x - center) / width + 1 / 2, 0), 1).

    Params: `height`, in the unit of y; `center`, the middle of the ramp, and `width`, its whole width, negative for a
    step down, in that of x. Where an end of the ramp meets a point the loss has a kink, at which a fit may use up its
    steps: its loss is then as low as it gets, though its status is not CONVERGED.

    Source: Johnson, Kotz and Balakrishnan (1995), Continuous Univariate Distributions 2, chapter 26.

    Example:
      >>> jf.models.linear_step({"height": 2.0, "center": 3.0, "width": 4.0}, np.array([0.0, 3.0, 4.0, 9.0])).tolist()
      [0.0, 1.0, 1.5, 2.0]
    """

    flips = "width"

    def value(self, x: Array, height: Number, center: Number, width: Number) -> Array:
        return height * _ramp(in_widths(x, center, width))

    def shapes(self, span: Span) -> dict[str, Array]:
        centers, widths = places_and_widths(span)
        return grid(center=centers, width=2 * jnp.concatenate([widths, -widths]))


def _ramp(u: Array) -> Array:
    return jnp.clip(u + 0.5, 0.0, 1.0)


linear_step = LinearStep()


def _plateaus(span: Span, blur: str) -> dict[str, Array]:
    """Return candidates for the start and the end of a plateau, and for the blur of both under its name."""
    centers, widths = span.even(40), spaced(1.0 / span.size, 1.0, 20) * span.width
    candidates = grid(center=centers, width=widths, share=jnp.array([0.02, 0.1, 0.3]))
    center, width = candidates["center"], candidates["width"]
    return {"start": center - width / 2, "end": center + width / 2, blur: candidates["share"] * width}


@dataclass(frozen=True, repr=False)
class Rectangle(Term):
    """A plateau between two blurred steps, height * (Phi((x - start) / sigma) - Phi((x - end) / sigma)).

    Params: `height`, in the unit of y; `start`, `end` and `sigma`, positive, in that of x. The area is height * (end -
    start).

    Derived: `width` and `area`.

    Source: Olver and others, NIST Handbook of Mathematical Functions (2010), section 7.2.

    Example:
      >>> params = {"height": 2.0, "start": 0.0, "end": 10.0, "sigma": 0.1}
      >>> [round(float(y), 3) for y in jf.models.rectangle(params, np.array([0.0, 5.0]))]
      [1.0, 2.0]
    """

    def value(self, x: Array, height: Number, start: Number, end: Number, sigma: Number) -> Array:
        ndtr = jax.scipy.special.ndtr
        return height * (ndtr(in_widths(x, start, sigma)) - ndtr(in_widths(x, end, sigma)))

    def derived(self, params: Params) -> dict[str, Array]:
        width = params["end"] - params["start"]
        return {"width": width, "area": params["height"] * width}

    def shapes(self, span: Span) -> dict[str, Array]:
        return _plateaus(span, "sigma")


rectangle = Rectangle()


@dataclass(frozen=True, repr=False)
class LinearRectangle(Rectangle):
    """A trapezoid: a plateau between two straight ramps, linear_step at the start minus linear_step at the end.

    Params: `height`, in the unit of y; `start` and `end`, the middles of the ramps, and `ramp`, positive, the width of
    each, in that of x. The height is reached if the ramps do not overlap; the area is height * (end - start).

    Derived: `width` and `area`.

    Source: Johnson, Kotz and Balakrishnan (1995), Continuous Univariate Distributions 2, chapter 26.

    Example:
      >>> params = {"height": 2.0, "start": 1.0, "end": 10.0, "ramp": 2.0}
      >>> jf.models.linear_rectangle(params, np.array([0.0, 1.0, 2.0, 10.5])).tolist()
      [0.0, 1.0, 2.0, 0.5]
    """

    def value(self, x: Array, height: Number, start: Number, end: Number, ramp: Number) -> Array:
        return height * (_ramp(in_widths(x, start, ramp)) - _ramp(in_widths(x, end, ramp)))

    def shapes(self, span: Span) -> dict[str, Array]:
        return _plateaus(span, "ramp")


linear_rectangle = LinearRectangle()


@dataclass(frozen=True, repr=False)
class ArctanRectangle(Rectangle):
    """A plateau blurred by a Lorentzian, height / pi * (arctan((x - start) / gamma) - arctan((x - end) / gamma)).

    Params: `height`, in the unit of y; `start`, `end` and `gamma`, positive, in that of x. The area is height * (end -
    start).

    Derived: `width` and `area`.

    Source: Richtmyer, Barnes and Ramberg (1934), doi:10.1103/PhysRev.46.843, for each side.

    Example:
      >>> params = {"height": 2.0, "start": 0.0, "end": 10.0, "gamma": 0.1}
      >>> [round(float(y), 2) for y in jf.models.arctan_rectangle(params, np.array([0.0, 5.0]))]
      [0.99, 1.97]
    """

    def value(self, x: Array, height: Number, start: Number, end: Number, gamma: Number) -> Array:
        return height / jnp.pi * (jnp.arctan(in_widths(x, start, gamma)) - jnp.arctan(in_widths(x, end, gamma)))

    def shapes(self, span: Span) -> dict[str, Array]:
        return _plateaus(span, "gamma")


arctan_rectangle = ArctanRectangle()


@dataclass(frozen=True, repr=False)
class LogisticRectangle(Rectangle):
    """A plateau between two logistic steps, height * (s((x - start) / scale) - s((x - end) / scale)).

    s(u) = 1 / (1 + exp(-u)).

    Params: `height`, in the unit of y; `start`, `end` and `scale`, positive, in that of x. The area is height * (end -
    start).

    Derived: `width` and `area`.

    Source: Johnson, Kotz and Balakrishnan (1995), Continuous Univariate Distributions 2, chapter 23.

    Example:
      >>> params = {"height": 2.0, "start": 0.0, "end": 10.0, "scale": 0.1}
      >>> [round(float(y), 3) for y in jf.models.logistic_rectangle(params, np.array([0.0, 5.0]))]
      [1.0, 2.0]
    """

    def value(self, x: Array, height: Number, start: Number, end: Number, scale: Number) -> Array:
        sides = (jax.nn.sigmoid(in_widths(x, place, scale)) for place in (start, end))
        return height * (next(sides) - next(sides))

    def shapes(self, span: Span) -> dict[str, Array]:
        return _plateaus(span, "scale")


logistic_rectangle = LogisticRectangle()
