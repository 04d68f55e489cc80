"""Peaks with tails or sides of their own."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.models.growth_and_decay import logarithm, positive
from jaxfit.models.guessing import Span, grid, spaced
from jaxfit.models.peaks import FWHM, SQRT_2PI, crossing, in_widths, places_and_widths, slope, voigt
from jaxfit.models.terms import Term
from jaxfit.typing import Number, Params

SQRT_2 = np.sqrt(2)
_SIDES = np.array([-1.0, 1.0])


def shaped(span: Span, width: str, **others: Array) -> dict[str, Array]:
    """Return candidates for the center, the width under its name, and other params of a peak."""
    centers, widths = places_and_widths(span, 20)
    return grid(center=centers[:: max(1, len(centers) // 96)], **{width: widths}, **others)


@dataclass(frozen=True, repr=False)
class PseudoVoigt(Term):
    """A mixture of a Lorentzian and a Gaussian of one width, which approximates a Voigt peak.

    height * (fraction / (1 + u**2) + (1 - fraction) * exp(-ln 2 u**2)), with u = (x - center) / gamma.

    Params: `height`, in the unit of y, at x = center; `center` and `gamma`, the half-width at half maximum, in that of
    x; `fraction` of the Lorentzian, without unit, from 0 to 1 if it is to be a mixture. The area is height * gamma *
    (pi fraction + sqrt(pi / ln 2) (1 - fraction)).

    Derived: `fwhm`, the full width at half maximum, and `area`.

    Source: Thompson, Cox and Hastings (1987), doi:10.1107/S0021889887087090.

    Example:
      >>> params = {"height": 2.0, "center": 0.0, "gamma": 1.0, "fraction": 0.3}
      >>> [round(float(y), 6) for y in jf.models.pseudo_voigt(params, np.array([0.0, 1.0]))]
      [2.0, 1.0]
    """

    def value(self, x: Array, height: Number, center: Number, gamma: Number, fraction: Number) -> Array:
        square = ((x - center) / gamma) ** 2
        return height * (fraction / (1 + square) + (1 - fraction) * jnp.exp(-np.log(2) * square))

    def derived(self, params: Params) -> dict[str, Array]:
        height, width, fraction = params["height"], jnp.abs(params["gamma"]), params["fraction"]
        gaussian = np.sqrt(np.pi / np.log(2))
        return {"fwhm": 2 * width, "area": height * width * (jnp.pi * fraction + gaussian * (1 - fraction))}

    def shapes(self, span: Span) -> dict[str, Array]:
        return shaped(span, "gamma", fraction=jnp.array([0.1, 0.5, 0.9]))


pseudo_voigt = PseudoVoigt()


@dataclass(frozen=True, repr=False)
class Moffat(Term):
    """A peak whose tails are a power law, height / (1 + ((x - center) / width)**2)**exponent.

    Params: `height`, in the unit of y, at x = center; `center` and `width`, in that of x; `exponent`, positive, without
    unit: 1 is a Lorentzian, a large one nearly a Gaussian. The full width at half maximum is 2 width sqrt(2**(1 /
    exponent) - 1). A Pearson VII is this curve, and so is Student's t with v degrees of freedom and scale s: width
    s sqrt(v), exponent (v + 1) / 2.

    Derived: `fwhm`, the full width at half maximum, and `area`, infinite for an exponent of 1 / 2 or less.

    Source: Moffat (1969), Astronomy and Astrophysics 3, 455-461.

    Example:
      >>> params = {"height": 4.0, "center": 0.0, "width": 1.0, "exponent": 2.0}
      >>> jf.models.moffat(params, np.array([0.0, 1.0])).tolist()
      [4.0, 1.0]
    """

    def value(self, x: Array, height: Number, center: Number, width: Number, exponent: Number) -> Array:
        return height * jnp.exp(-exponent * jnp.log1p(((x - center) / width) ** 2))

    def derived(self, params: Params) -> dict[str, Array]:
        width, exponent = jnp.abs(params["width"]), params["exponent"]
        root = jnp.sqrt(jnp.expm1(np.log(2) / exponent))
        ratio = jnp.exp(jax.scipy.special.gammaln(exponent - 0.5) - jax.scipy.special.gammaln(exponent))
        area = jnp.where(exponent > 0.5, params["height"] * width * np.sqrt(np.pi) * ratio, jnp.inf)
        return {"fwhm": 2 * width * root, "area": area}

    def shapes(self, span: Span) -> dict[str, Array]:
        return shaped(span, "width", exponent=jnp.array([0.7, 1.2, 2.0, 5.0]))


moffat = Moffat()


@dataclass(frozen=True, repr=False)
class PearsonIV(Term):
    """A Pearson IV peak: a Moffat peak with a skew, height * ((1 + m**2) / (1 + u**2))**exponent * exp(skew * a).

    u = (x - center) / width + m, m = skew / (2 exponent) and a = arctan(u) - arctan(m), so that the maximum lies at the
    center.

    Params: `height`, in the unit of y, at x = center; `center` and `width`, positive, in that of x; `exponent`,
    positive, and `skew`, without unit, positive for a tail to the right. The standard form, and lmfit's, has its own
    center at center - m width, and the skew with the other sign.

    Derived: `fwhm`, the full width at half maximum, and `area`, infinite for an exponent of 1 / 2 or less.

    Source: Pearson (1895), doi:10.1098/rsta.1895.0010; Heinrich (2004), A guide to the Pearson type IV distribution,
    CDF/MEMO/STATISTICS/PUBLIC/6820.

    Example:
      >>> params = {"height": 4.0, "center": 1.0, "width": 1.0, "exponent": 2.0, "skew": 3.0}
      >>> [round(float(y), 3) for y in jf.models.pearson_iv(params, np.array([0.0, 1.0, 2.0]))]
      [0.602, 4.0, 2.013]
    """

    def value(self, x: Array, height: Number, center: Number, width: Number, exponent: Number, skew: Number) -> Array:
        middle = skew / (2 * exponent)
        u = in_widths(x, center, width) + middle
        narrowing = exponent * (jnp.log1p(u**2) - jnp.log1p(middle**2))
        return height * jnp.exp(skew * (jnp.arctan(u) - jnp.arctan(middle)) - narrowing)

    def derived(self, params: Params) -> dict[str, Array]:
        height, width, m, skew = (params[name] for name in ("height", "width", "exponent", "skew"))
        middle = skew / (2 * m)
        top = skew * jnp.arctan(middle) - m * jnp.log1p(middle**2)

        def below(angle, p):
            """Return how far the logarithm of the curve at u = tan(angle) lies below half of the maximum."""
            m, skew, top = p
            return top - np.log(2) - skew * angle - 2 * m * jnp.log(jnp.cos(angle))

        half = jnp.tan(
            jax.vmap(lambda end: crossing(below, (m, skew, top), jnp.arctan(middle), end))(_SIDES * np.pi / 2)
        )
        before, here, apart = jax.vmap(_log_gamma)(jnp.array([m - 0.5, m, m]), jnp.array([0.0, 0.0, skew / 2]))
        sizes = before + here - 2 * apart
        area = jnp.where(m > 0.5, height * jnp.abs(width) * jnp.sqrt(jnp.pi) * jnp.exp(sizes - top), jnp.inf)
        return {"fwhm": jnp.abs(width) * (half[1] - half[0]), "area": area}

    def shapes(self, span: Span) -> dict[str, Array]:
        """Return peaks with the candidates for the half-width at half maximum, about."""
        candidates = shaped(span, "width", exponent=jnp.array([0.8, 1.5, 4.0]), middle=jnp.array([-3, -1, 0, 1, 3.0]))
        middle, exponent = candidates.pop("middle"), candidates["exponent"]
        narrower = jnp.sqrt(jnp.expm1(np.log(2) / exponent) * (1 + middle**2))
        return candidates | {"width": candidates["width"] / narrower, "skew": 2 * exponent * middle}

    def __repr__(self) -> str:
        return "pearson_iv"


def _log_gamma(real: Array, imaginary: Array) -> Array:
    """Return log |Gamma(real + i imaginary)| for real > 0, to 1e-13 in float64, by Stirling's series from real + 10.

    It is of the size and the angle of z, since a program of complex numbers takes long to compile.
    """
    before = jnp.sum(jnp.log((real + np.arange(10)) ** 2 + imaginary**2)) / 2
    real = real + 10
    size, angle = jnp.log(real**2 + imaginary**2) / 2, jnp.arctan2(imaginary, real)
    odd, terms = 2 * np.arange(5) + 1, np.array([1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188])
    series = jnp.sum(terms * jnp.exp(-odd * size) * jnp.cos(odd * angle))
    return (real - 0.5) * size - imaginary * angle - real + np.log(2 * np.pi) / 2 + series - before


pearson_iv = PearsonIV()


@dataclass(frozen=True, repr=False)
class SplitLorentzian(Term):
    """A Lorentzian peak with a width to each side, height / (1 + ((x - center) / gamma)**2).

    Params: `height`, in the unit of y, at x = center; `center`, `left` and `right`, the half-widths gamma below and
    above it, in that of x. The area is pi height (left + right) / 2.

    Derived: `fwhm`, the full width at half maximum, and `area`.

    Source: Stancik and Brauns (2008), doi:10.1016/j.vibspec.2008.02.009, for bands with unequal sides.

    Example:
      >>> params = {"height": 2.0, "center": 0.0, "left": 1.0, "right": 3.0}
      >>> jf.models.split_lorentzian(params, np.array([-1.0, 3.0])).tolist()
      [1.0, 1.0]
    """

    def value(self, x: Array, height: Number, center: Number, left: Number, right: Number) -> Array:
        return height / (1 + ((x - center) / jnp.where(x < center, left, right)) ** 2)

    def derived(self, params: Params) -> dict[str, Array]:
        width = jnp.abs(params["left"]) + jnp.abs(params["right"])
        return {"fwhm": width, "area": jnp.pi / 2 * params["height"] * width}

    def shapes(self, span: Span) -> dict[str, Array]:
        candidates = shaped(span, "left", ratio=spaced(0.2, 5.0, 8))
        return {
            "center": candidates["center"],
            "left": candidates["left"],
            "right": candidates["left"] * candidates["ratio"],
        }


split_lorentzian = SplitLorentzian()


@dataclass(frozen=True, repr=False)
class SkewedGaussian(Term):
    """A skew-normal peak of the given area, area * 2 / sigma * phi(u) * Phi(skew * u), u = (x - location) / sigma.

    phi and Phi are the density and the distribution function of the standard normal.

    Params: `area`, in the unit of y times that of x; `location` and `sigma`, positive, in that of x (for a skew of 0
    the center and the standard deviation); `skew`, without unit, positive for a tail to the right.

    Derived: `mean` and `deviation`, the standard deviation, of the peak as a density.

    Source: Azzalini (1985), Scandinavian Journal of Statistics 12, 171-178.

    Example:
      >>> params = {"area": 1.0, "location": 0.0, "sigma": 1.0, "skew": 5.0}
      >>> [round(float(y), 3) for y in jf.models.skewed_gaussian(params, np.array([0.0]))]
      [0.399]
    """

    def value(self, x: Array, area: Number, location: Number, sigma: Number, skew: Number) -> Array:
        u = (x - location) / sigma
        return area * jnp.exp(-0.5 * u**2) * (1 + jax.scipy.special.erf(skew * u / SQRT_2)) / (sigma * SQRT_2PI)

    def derived(self, params: Params) -> dict[str, Array]:
        tilt = np.sqrt(2 / np.pi) * params["skew"] / jnp.sqrt(1 + params["skew"] ** 2)
        sigma = params["sigma"]
        return {"mean": params["location"] + sigma * tilt, "deviation": jnp.abs(sigma) * jnp.sqrt(1 - tilt**2)}

    def shapes(self, span: Span) -> dict[str, Array]:
        candidates = shaped(span, "sigma", skew=jnp.array([-6.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 6.0]))
        return {"location": candidates.pop("center"), **candidates}


skewed_gaussian = SkewedGaussian()


@dataclass(frozen=True, repr=False)
class SkewedVoigt(Term):
    """A Voigt peak of the given area with a skew, voigt * (1 + erf(skew * (x - location) / (sigma sqrt(2)))).

    Params: `area`, in the unit of y times that of x; `location`, `sigma` and `gamma`, in that of x, of the Voigt peak,
    whose signs of sigma and gamma do not matter; `skew`, without unit, positive for a tail to the right. A skew leaves
    the area as it is; without gamma the curve is `skewed_gaussian`.

    Derived: `peak`, the x of the maximum, `height` there, and `fwhm`, the full width at half of it.

    Source: Azzalini (1985), Scandinavian Journal of Statistics 12, 171-178, for the factor.

    Example:
      >>> params = {"area": 1.0, "location": 0.0, "sigma": 1.0, "gamma": 0.5, "skew": 2.0}
      >>> [round(float(y), 3) for y in jf.models.skewed_voigt(params, np.array([-1.0, 0.0, 1.0]))]
      [0.009, 0.279, 0.391]
    """

    def value(self, x: Array, area: Number, location: Number, sigma: Number, gamma: Number, skew: Number) -> Array:
        side = 2 * jax.scipy.special.ndtr(skew * in_widths(x, location, jnp.abs(sigma)))
        return voigt.value(x, area, location, sigma, gamma) * side

    def derived(self, params: Params) -> dict[str, Array]:
        location, skew = params["location"], params["skew"]
        wide = jnp.abs(params["sigma"]) + jnp.abs(params["gamma"])
        shape = {"sigma": params["sigma"] / wide, "gamma": params["gamma"] / wide, "skew": skew}

        def curve(u, p):
            return self.value(u, 1.0, 0.0, p["sigma"], p["gamma"], p["skew"])

        side = jnp.where(skew < 0, -1.0, 1.0)
        u = crossing(lambda u, p: -side * slope(curve, u, p), shape, 0.0, side)
        top = curve(u, shape)
        half = shape | {"half": top / 2}
        left, right = jax.vmap(lambda end: crossing(lambda u, p: p["half"] - curve(u, p), half, u, end))(_SIDES * 8)
        return {"peak": location + wide * u, "height": params["area"] / wide * top, "fwhm": wide * (right - left)}

    def shapes(self, span: Span) -> dict[str, Array]:
        centers, widths = places_and_widths(span, 10)
        candidates = grid(
            location=centers[:: max(1, len(centers) // 96)],
            width=widths,
            mixture=jnp.array([0.2, 0.7]),
            skew=jnp.array([-4.0, -1.5, -0.5, 0.0, 0.5, 1.5, 4.0]),
        )
        width, mixture = candidates.pop("width"), candidates.pop("mixture")
        return candidates | {"sigma": (1 - mixture) * width, "gamma": mixture * width}


skewed_voigt = SkewedVoigt()


@dataclass(frozen=True, repr=False)
class ExponentialGaussian(Term):
    """A Gaussian of the given area convolved with a decay to the right: a peak of a chromatogram.

    area * rate * exp(rate * (center - x) + (rate * sigma)**2 / 2) * Phi((x - center) / sigma - rate * sigma).

    Params: `area`, in the unit of y times that of x; `center` and `sigma`, positive, of the Gaussian, in that of x;
    `rate`, positive, of the decay, in its inverse. The mean is center + 1 / rate.

    Derived: `mean` and `deviation`, the standard deviation, of the peak as a density.

    Source: Grushka (1972), doi:10.1021/ac60319a011.

    Example:
      >>> params = {"area": 1.0, "center": 0.0, "sigma": 1.0, "rate": 1.0}
      >>> [round(float(y), 4) for y in jf.models.exponential_gaussian(params, np.array([0.0, 2.0]))]
      [0.2616, 0.1877]
    """

    def value(self, x: Array, area: Number, center: Number, sigma: Number, rate: Number) -> Array:
        tail = jax.scipy.special.log_ndtr((x - center) / sigma - rate * sigma)
        return area * rate * jnp.exp(rate * (center - x) + (rate * sigma) ** 2 / 2 + tail)

    def derived(self, params: Params) -> dict[str, Array]:
        sigma, rate = params["sigma"], params["rate"]
        return {"mean": params["center"] + 1 / rate, "deviation": jnp.sqrt(sigma**2 + 1 / rate**2)}

    def shapes(self, span: Span) -> dict[str, Array]:
        candidates = shaped(span, "sigma", ratio=jnp.array([0.15, 0.3, 0.6, 1.2, 2.4, 5.0]))
        return {
            "center": candidates["center"],
            "sigma": candidates["sigma"],
            "rate": candidates["ratio"] / candidates["sigma"],
        }


exponential_gaussian = ExponentialGaussian()


@dataclass(frozen=True, repr=False)
class LogNormal(Term):
    """A peak that is Gaussian in log(x), height * exp(-(log(x / center) / sigma)**2 / 2) for x >= 0.

    Params: `height`, in the unit of y, at x = center; `center`, positive, in that of x; `sigma`, the standard deviation
    of log(x), without unit.

    Derived: `fwhm`, the full width at half maximum, and `area`.

    Source: Johnson, Kotz and Balakrishnan (1994), Continuous Univariate Distributions 1, chapter 14.

    Example:
      >>> jf.models.log_normal({"height": 2.0, "center": 3.0, "sigma": 1.0}, np.array([0.0, 3.0])).tolist()
      [0.0, 2.0]
    """

    def value(self, x: Array, height: Number, center: Number, sigma: Number) -> Array:
        there, log = logarithm(x, center)
        return height * jnp.where(there, jnp.exp(-0.5 * (log / sigma) ** 2), 0.0)

    def derived(self, params: Params) -> dict[str, Array]:
        height, center, sigma = params["height"], params["center"], jnp.abs(params["sigma"])
        return {
            "fwhm": 2 * center * jnp.sinh(FWHM / 2 * sigma),
            "area": SQRT_2PI * height * center * sigma * jnp.exp(sigma**2 / 2),
        }

    def shapes(self, span: Span) -> dict[str, Array]:
        least, most = positive(span)
        return grid(center=spaced(least, most, 96), sigma=spaced(0.02, 3.0, 16))


log_normal = LogNormal()


@dataclass(frozen=True, repr=False)
class Doniach(Term):
    """A photoemission line of a metal, height * cos(pi skew / 2 + (1 - skew) arctan(u)) / (1 + u**2)**((1 - skew) / 2).

    u = (x - center) / gamma; for a skew of 0 it is a Lorentzian.

    Params: `height`, in the unit of y; `center` and `gamma`, the half-width without skew, in that of x, gamma negative
    for a tail to the left; `skew`, without unit, from 0 to 1. The peak lies at center + gamma cot(pi / (2 - skew)).

    Derived: `peak`, the x of the maximum.

    Source: Doniach and Sunjic (1970), doi:10.1088/0022-3719/3/2/010.

    Example:
      >>> params = {"height": 2.0, "center": 0.0, "gamma": 1.0, "skew": 0.0}
      >>> [round(float(y), 6) for y in jf.models.doniach(params, np.array([0.0, 1.0]))]
      [2.0, 1.0]
    """

    def value(self, x: Array, height: Number, center: Number, gamma: Number, skew: Number) -> Array:
        u = (x - center) / gamma
        angle = jnp.pi * skew / 2 + (1 - skew) * jnp.arctan(u)
        return height * jnp.cos(angle) * jnp.exp(-(1 - skew) / 2 * jnp.log1p(u**2))

    def derived(self, params: Params) -> dict[str, Array]:
        skew = params["skew"]
        return {"peak": params["center"] + params["gamma"] / jnp.tan(jnp.pi / (2 - skew))}

    def shapes(self, span: Span) -> dict[str, Array]:
        candidates = shaped(span, "gamma", skew=jnp.array([0.0, 0.1, 0.2, 0.4]), side=jnp.array([1.0, -1.0]))
        return {
            "center": candidates["center"],
            "gamma": candidates["gamma"] * candidates["side"],
            "skew": candidates["skew"],
        }


doniach = Doniach()
