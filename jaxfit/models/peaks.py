"""Symmetric peaks: Gaussian, also of two dimensions, Lorentzian, and Voigt by the Faddeeva function."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.models.guessing import Span, grid, spaced
from jaxfit.models.terms import Several, Term, several
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import Number, Params

TERMS = 40
FWHM, SQRT_2PI = 2 * np.sqrt(2 * np.log(2)), np.sqrt(2 * np.pi)  # of a Gaussian, in standard deviations


@functools.cache
def _coefficients(terms: int) -> tuple[float, tuple[float, ...]]:
    """Return the scale L, and the coefficients of the polynomial in Z = (L + i z) / (L - i z), highest power first."""
    scale = np.sqrt(terms / np.sqrt(2))
    t = scale * np.tan(np.arange(-2 * terms + 1, 2 * terms) * np.pi / (4 * terms))
    values = np.concatenate([[0.0], np.exp(-(t**2)) * (scale**2 + t**2)])
    coefficients = np.real(np.fft.fft(np.fft.fftshift(values))) / (4 * terms)
    return float(scale), tuple(coefficients[1 : terms + 1][::-1].tolist())


def faddeeva(z: Array) -> Array:
    """Return w(z) = exp(-z**2) erfc(-i z) for Im z >= 0, by a rational approximation, to 1e-13 in float64.

    Source: Weideman (1994), doi:10.1137/0731077.
    """
    scale, coefficients = _coefficients(TERMS)
    below = 1 / (scale - 1j * z)
    turned = (scale + 1j * z) * below
    value = jnp.zeros_like(turned)
    for c in coefficients:
        value = value * turned + c
    return 2 * value * below**2 + below / np.sqrt(np.pi)


def places_and_widths(span: Span, count: int = 12) -> tuple[Array, Array]:
    """Return candidates for the center and the half-width of a peak."""
    return span.even(min(max(2 * span.size, 32), 256)), spaced(0.4 / span.size, 0.6, count) * span.width


def in_widths(x: Array, center: Number, width: Number) -> Array:
    """Return (x - center) / width, at most 1e9 in size: it and its slopes are finite for a width of zero too."""
    apart = x - center
    least = jax.lax.stop_gradient(1e-9 * jnp.abs(apart))
    floor = jnp.where(least > 0, least, 1) * jnp.where(width < 0, -1, 1)
    return apart / jnp.where(jnp.abs(width) > least, width, floor)


def crossing(function: Callable, params: Params, low: Number, high: Number) -> Array:
    """Return the x at which function(x, params) crosses from below zero at `low` to above at `high`, by bisection.

    Its derivatives by the params are those of one step of Newton's method from there.
    """
    fixed = jax.lax.stop_gradient(params)

    def halved(_, ends):
        below, above = ends
        middle = (below + above) / 2
        positive = function(middle, fixed) > 0
        return jnp.where(positive, below, middle), jnp.where(positive, middle, above)

    ends = tuple(jax.lax.stop_gradient(jnp.asarray(end, jnp.result_type(float))) for end in (low, high))
    below, above = jax.lax.fori_loop(0, 60, halved, ends)
    x = (below + above) / 2
    return x - function(x, params) / jax.lax.stop_gradient(slope(function, x, fixed))


def slope(function: Callable, x: Array, params: Params) -> Array:
    """Return the derivative of function(x, params) by x, which compiles faster than `jax.grad` of long formulas."""
    return jax.jvp(lambda x: function(x, params), (x,), (jnp.ones_like(x),))[1]


@dataclass(frozen=True, repr=False)
class Gaussian(Term):
    """A Gaussian peak, height * exp(-((x - center) / sigma)**2 / 2).

    Params: `height`, in the unit of y, at x = center; negative for a dip. `center` and `sigma`, the standard
    deviation, in that of x; the full width at half maximum is 2 sqrt(2 ln 2) sigma. The sign of sigma does not
    matter.

    Derived: `fwhm`, the full width at half maximum, and `area` = sqrt(2 pi) height sigma.

    Source: NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.6.6.1.

    Example:
      >>> jf.models.gaussian({"height": 2.0, "center": 1.0, "sigma": 0.5}, np.array([1.0])).tolist()
      [2.0]
    """

    def value(self, x: Array, height: Number, center: Number, sigma: Number) -> Array:
        return height * jnp.exp(-0.5 * ((x - center) / sigma) ** 2)

    def derived(self, params: Params) -> dict[str, Array]:
        height, width = params["height"], jnp.abs(params["sigma"])
        return {"fwhm": FWHM * width, "area": SQRT_2PI * height * width}

    def shapes(self, span: Span) -> dict[str, Array]:
        centers, widths = places_and_widths(span)
        return grid(center=centers, sigma=widths)


gaussian = Gaussian()


@dataclass(frozen=True, repr=False)
class Lorentzian(Term):
    """A Lorentzian (Cauchy) peak, height / (1 + ((x - center) / gamma)**2).

    Params: `height`, in the unit of y, at x = center; negative for a dip. `center` and `gamma`, the half-width at
    half maximum, in that of x. The sign of gamma does not matter.

    Derived: `fwhm`, the full width at half maximum, and `area` = pi height gamma.

    Source: NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.6.6.3.

    Example:
      >>> jf.models.lorentzian({"height": 2.0, "center": 1.0, "gamma": 0.5}, np.array([1.0, 1.5])).tolist()
      [2.0, 1.0]
    """

    def value(self, x: Array, height: Number, center: Number, gamma: Number) -> Array:
        return height / (1 + ((x - center) / gamma) ** 2)

    def derived(self, params: Params) -> dict[str, Array]:
        height, width = params["height"], jnp.abs(params["gamma"])
        return {"fwhm": 2 * width, "area": jnp.pi * height * width}

    def shapes(self, span: Span) -> dict[str, Array]:
        centers, widths = places_and_widths(span)
        return grid(center=centers, gamma=widths)


lorentzian = Lorentzian()


@dataclass(frozen=True, repr=False)
class Voigt(Term):
    """A Voigt peak of the given area: a Gaussian of standard deviation sigma convolved with a Lorentzian.

    area * Re w(z) / (sigma sqrt(2 pi)) with z = (x - center + i gamma) / (sigma sqrt(2)) and the Faddeeva function w.

    Params: `area`, in the unit of y times that of x; `center`, `sigma` and `gamma`, the half-width of the Lorentzian,
    in that of x. The signs of sigma and gamma do not matter; with a sigma of zero it is `lorentzian`.

    Derived: `height` at the center, and `fwhm`, the full width at half maximum, to 0.03 %, by Olivero and
    Longbothum (1977), doi:10.1016/0022-4073(77)90161-3.

    Source: Olver and others, NIST Handbook of Mathematical Functions (2010), section 7.19.

    Example:
      >>> params = {"area": 1.0, "center": 0.0, "sigma": 1.0, "gamma": 0.0}
      >>> [round(float(y), 3) for y in jf.models.voigt(params, np.array([0.0]))]
      [0.399]
    """

    def value(self, x: Array, area: Number, center: Number, sigma: Number, gamma: Number) -> Array:
        least = 1e-6 * jax.lax.stop_gradient(jnp.abs(x - center) + jnp.abs(gamma))  # of sigma: Lorentzian in all digits
        width = jnp.sqrt(2.0) * jnp.where(jnp.abs(sigma) > least, jnp.abs(sigma), jnp.where(least > 0, least, 1))
        z = jax.lax.complex(*jnp.broadcast_arrays((x - center) / width, jnp.abs(gamma) / width))
        return area * jnp.real(faddeeva(z)) / (width * np.sqrt(np.pi))

    def derived(self, params: Params) -> dict[str, Array]:
        gauss, lorentz = FWHM * jnp.abs(params["sigma"]), 2 * jnp.abs(params["gamma"])
        fwhm = 0.5346 * lorentz + jnp.sqrt(0.2166 * lorentz**2 + gauss**2)
        return {"fwhm": fwhm, "height": self.value(params["center"], **params)}

    def shapes(self, span: Span) -> dict[str, Array]:
        centers, widths = places_and_widths(span, 10)
        candidates = grid(center=centers, width=widths, mixture=jnp.array([0.1, 0.5, 0.9]))
        width, mixture = candidates.pop("width"), candidates.pop("mixture")
        return candidates | {"sigma": (1 - mixture) * width, "gamma": mixture * width}


voigt = Voigt()


@dataclass(frozen=True, repr=False)
class Gaussian2D(Term):
    """A Gaussian of two dimensions, height * exp(-sum(((x - center) / sigma)**2) / 2), for x (n, 2).

    Params: `height`, in the unit of y; `center` (2,) and `sigma`, the standard deviations along the two axes (2,) or
    one number for a round one, in that of x.

    Example:
      >>> params = {"height": 2.0, "center": np.array([1.0, 0.0]), "sigma": 0.5}
      >>> jf.models.gaussian_2d(params, np.array([[1.0, 0.0]])).tolist()
      [2.0]
    """

    dimensions = 2

    def value(self, x: Array, height: Number, center: Array, sigma: Array) -> Array:
        along = [(x[..., i] - center[i]) / (sigma if jnp.ndim(sigma) == 0 else sigma[i]) for i in range(2)]
        return height * jnp.exp(-0.5 * (along[0] ** 2 + along[1] ** 2))

    def shapes(self, span: Span) -> dict[str, Array]:
        at = [span.low[i] + span.width[i] * jnp.linspace(0, 1, 12) for i in range(2)]
        candidates = grid(first=at[0], second=at[1], sigma=spaced(0.5 / span.size**0.5, 0.5, 8))
        center = jnp.stack([candidates["first"], candidates["second"]], axis=1)
        return {"center": center, "sigma": candidates["sigma"][:, None] * span.width[None, :]}

    def __repr__(self) -> str:
        return "gaussian_2d"


gaussian_2d = Gaussian2D()


@near_keywords
def gaussians(count: int) -> Several:
    """Return the sum of `count` Gaussian peaks, with params {"height", "center", "sigma"} of shape (count,) each.

    Raises:
      TypeError: If `count` is not a whole number.
      ValueError: If it is below 1.

    Example:
      >>> params = {"height": np.array([1.0, 2.0]), "center": np.array([0.0, 0.0]), "sigma": np.array([1.0, 3.0])}
      >>> jf.models.gaussians(2)(params, np.array([0.0])).tolist()
      [3.0]
    """
    return several(gaussian, count, "gaussians")


@near_keywords
def lorentzians(count: int) -> Several:
    """Return the sum of `count` Lorentzian peaks, with params {"height", "center", "gamma"} of shape (count,) each.

    Raises:
      TypeError, ValueError: As `gaussians`.

    Example:
      >>> params = {"height": np.array([1.0, 2.0]), "center": np.array([0.0, 0.0]), "gamma": np.array([1.0, 3.0])}
      >>> jf.models.lorentzians(2)(params, np.array([0.0])).tolist()
      [3.0]
    """
    return several(lorentzian, count, "lorentzians")


@near_keywords
def voigts(count: int) -> Several:
    """Return the sum of `count` Voigt peaks, with params {"area", "center", "sigma", "gamma"} of shape (count,) each.

    Raises:
      TypeError, ValueError: As `gaussians`.

    Example:
      >>> params = {name: np.array([1.0, 1.0]) for name in ("area", "center", "sigma", "gamma")}
      >>> jf.models.voigts(2)(params, np.array([0.0])).shape
      (1,)
    """
    return several(voigt, count, "voigts")
