"""Kinetics and heat: a dose taken by mouth, reactions, stretched decays, cut-off power laws, and thermal laws."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jaxfit.models.growth_and_decay import logarithm, positive, rates
from jaxfit.models.guessing import Shape, Span, grid, spaced
from jaxfit.models.peaks import in_widths
from jaxfit.models.terms import Params, Term
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import Number


@dataclass(frozen=True, repr=False)
class OralDose(Term):
    """The concentration after a dose that is absorbed and eliminated, both at rates proportional to what is there.

    exposure * a * e / (a - e) * (exp(-e x) - exp(-a x)), with the rates a = absorption and e = elimination, x >= 0.

    Params: `exposure`, in the unit of y times that of x: the area under the curve, which is the dose over the
    clearance; `absorption` and `elimination`, in the inverse unit of x: the half-life is ln 2 / elimination. With the
    two rates exchanged the curve is the same; the guess has the faster one as absorption. It is R's SSfol, whose Cl is
    Dose / exposure.

    Derived: `half_life`, and `peak_time` and `peak`, where and how high the maximum is.

    Source: Teorell (1937), Archives internationales de pharmacodynamie 57, 205-225; Pinheiro and Bates (2000),
    Mixed-Effects Models in S and S-PLUS, appendix C.5.

    Example:
      >>> params = {"exposure": 1.0, "absorption": 1.0, "elimination": 1.0}
      >>> [round(float(y), 3) for y in jf.models.oral_dose(params, np.array([0.0, 1.0]))]
      [0.0, 0.368]
    """

    def value(self, x: Array, exposure: Number, absorption: Number, elimination: Number) -> Array:
        apart = (absorption - elimination) * x
        near = jnp.abs(apart) < 1e-4
        share = jnp.where(
            near, 1 - apart / 2 + apart**2 / 6, -jnp.expm1(-jnp.where(near, 1, apart)) / jnp.where(near, 1, apart)
        )
        return exposure * absorption * elimination * x * jnp.exp(-elimination * x) * share

    def derived(self, params: Params) -> dict[str, Array]:
        absorption, elimination = params["absorption"], params["elimination"]
        apart = jnp.log(absorption / elimination)
        near = jnp.abs(apart) < 1e-4
        share = jnp.where(near, 1 - apart / 2, jnp.where(near, 1, apart) / jnp.where(near, 1, jnp.expm1(apart)))
        time = share / elimination
        return {"half_life": jnp.log(2) / elimination, "peak_time": time, "peak": self.value(time, **params)}

    def shapes(self, span: Span) -> dict[str, Array]:
        slow, ratio = spaced(0.1 / span.width, 2 / span.step, 40), spaced(1.05, 100.0, 16)
        candidates = grid(elimination=slow, ratio=ratio)
        return {"absorption": candidates["elimination"] * candidates["ratio"], "elimination": candidates["elimination"]}


oral_dose = OralDose()


@dataclass(frozen=True, repr=False)
class StretchedExponential(Term):
    """A stretched decay to zero, amplitude * exp(-(rate * x)**stretch) for x >= 0.

    Params: `amplitude`, in the unit of y, at x = 0; `rate`, positive, in the inverse unit of x; `stretch`, positive,
    without unit: below 1 the decay slows down, above 1 it speeds up. R's SSweibull, a growth from Asym - Drop to Asym,
    is `stretched_exponential + constant` with amplitude -Drop, rate exp(lrc / pwr) and stretch pwr.

    Derived: `half_life`, and `lifetime`, the area for an amplitude of 1.

    Source: Kohlrausch (1854), doi:10.1002/andp.18541670103; Pinheiro and Bates (2000), Mixed-Effects Models in S and
    S-PLUS, appendix C, for SSweibull.

    Example:
      >>> params = {"amplitude": 2.0, "rate": 0.5, "stretch": 2.0}
      >>> [round(float(y), 3) for y in jf.models.stretched_exponential(params, np.array([0.0, 2.0]))]
      [2.0, 0.736]
    """

    def value(self, x: Array, amplitude: Number, rate: Number, stretch: Number) -> Array:
        there, log = logarithm(x)
        return amplitude * jnp.where(there, jnp.exp(-jnp.exp(stretch * (log + jnp.log(rate)))), 1.0)

    def derived(self, params: Params) -> dict[str, Array]:
        rate, stretch = params["rate"], params["stretch"]
        mean = jnp.exp(jax.scipy.special.gammaln(1 + 1 / stretch)) / rate
        return {"half_life": jnp.log(2) ** (1 / stretch) / rate, "lifetime": mean}

    def shapes(self, span: Span) -> dict[str, Array]:
        return grid(rate=rates(span), stretch=spaced(0.25, 6.0, 14))


stretched_exponential = StretchedExponential()


@dataclass(frozen=True, repr=False)
class DelayedRise(Term):
    """A rise to a limit that begins at an onset, height * (1 - exp(-rate * (x - onset))); negative before it.

    Params: `height`, in the unit of y: the limit; `rate`, in the inverse unit of x; `onset`, in that of x. It is R's
    SSasympOff with rate exp(lrc) and onset c0.

    Derived: `half_time`, the x at which half of the height is reached.

    Source: Potvin, Lechowicz and Tardif (1990), doi:10.2307/1938276; Pinheiro and Bates (2000), appendix C.2.

    Example:
      >>> params = {"height": 2.0, "rate": 1.0, "onset": 1.0}
      >>> [round(float(y), 3) for y in jf.models.delayed_rise(params, np.array([1.0, 2.0]))]
      [0.0, 1.264]
    """

    ordered_by = "onset"

    def value(self, x: Array, height: Number, rate: Number, onset: Number) -> Array:
        return -height * jnp.expm1(-rate * (x - onset))

    def derived(self, params: Params) -> dict[str, Array]:
        return {"half_time": params["onset"] + jnp.log(2) / params["rate"]}

    def shapes(self, span: Span) -> dict[str, Array]:
        return grid(rate=rates(span, 32), onset=span.low + span.width * jnp.linspace(-1.0, 0.9, 39))


delayed_rise = DelayedRise()


@dataclass(frozen=True, repr=False)
class SubstrateInhibition(Term):
    """The rate of an enzyme that its substrate inhibits, vmax * x / (km + x + x**2 / ki).

    Params: `vmax`, in the unit of y: the limit without inhibition; `km` and `ki`, in that of x. The rate is largest at
    x = sqrt(km ki).

    Derived: `optimum`, the x of the largest rate, and `fastest`, this rate.

    Source: Haldane (1930), Enzymes, page 84; Andrews (1968), doi:10.1002/bit.260100602.

    Example:
      >>> jf.models.substrate_inhibition({"vmax": 3.0, "km": 1.0, "ki": 1.0}, np.array([0.0, 1.0])).tolist()
      [0.0, 1.0]
    """

    def value(self, x: Array, vmax: Number, km: Number, ki: Number) -> Array:
        return vmax * x / (km + x + x**2 / ki)

    def derived(self, params: Params) -> dict[str, Array]:
        km, ki = params["km"], params["ki"]
        return {"optimum": jnp.sqrt(km * ki), "fastest": params["vmax"] / (1 + 2 * jnp.sqrt(km / ki))}

    def shapes(self, span: Span) -> dict[str, Array]:
        least, most = positive(span)
        return grid(km=spaced(least / 10, most * 10, 40), ki=spaced(least / 3, most * 30, 24))


substrate_inhibition = SubstrateInhibition()


@dataclass(frozen=True, repr=False)
class Arrhenius(Term):
    """A rate that rises with the temperature x > 0, factor * exp(-activation / x).

    Params: `factor`, in the unit of y: the limit at infinite temperature; `activation`, in that of x (kelvin): the
    energy of activation over the gas constant, 8.314462618 J / (mol K). The two are nearly collinear; they are told
    apart better the wider the range of 1 / x.

    Derived: `energy`, of activation, in kJ / mol.

    Source: Arrhenius (1889), doi:10.1515/zpch-1889-0416.

    Example:
      >>> [round(float(y), 3) for y in jf.models.arrhenius({"factor": 2.0, "activation": 300.0}, np.array([300.0]))]
      [0.736]
    """

    def value(self, x: Array, factor: Number, activation: Number) -> Array:
        return factor * jnp.exp(-activation / x)

    def derived(self, params: Params) -> dict[str, Array]:
        return {"energy": 8.314462618e-3 * params["activation"]}

    def shapes(self, span: Span) -> dict[str, Array]:
        up = spaced(0.1, 300.0, 160) * span.high
        return {"activation": jnp.concatenate([up, -up])}

    def columns(self, shape: Shape, span: Span) -> Array:
        """Return the curve in units of its larger end: at most 1."""
        return jnp.exp(-shape["activation"] * (1 / span.x - 1 / self._unit(shape, span)))[None]

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> Params:
        return {"factor": coefficients[0] * jnp.exp(shape["activation"] / self._unit(shape, span)), **shape}

    @staticmethod
    def _unit(shape: Shape, span: Span) -> Array:
        return jnp.where(shape["activation"] > 0, span.high, span.low)


arrhenius = Arrhenius()


@dataclass(frozen=True, repr=False)
class AsymmetricHill(Term):
    """A dose-response curve with unequal shoulders, top / (1 + (half / x)**steepness)**asymmetry for x >= 0.

    Params: `top`, the limit, in the unit of y; `half`, positive, in that of x; `steepness`, without unit; `asymmetry`,
    positive, without unit: 1 is `hill`, and elsewhere half of the top is not reached at `half`. The five-parameter
    logistic of assays is `asymmetric_hill + constant`, the four-parameter one `hill + constant`.

    Source: Richards (1959), doi:10.1093/jxb/10.2.290; Gottschalk and Dunn (2005), doi:10.1016/j.ab.2005.04.035.

    Example:
      >>> params = {"top": 4.0, "half": 3.0, "steepness": 1.0, "asymmetry": 2.0}
      >>> [round(float(y), 3) for y in jf.models.asymmetric_hill(params, np.array([0.0, 3.0]))]
      [0.0, 1.0]
    """

    def value(self, x: Array, top: Number, half: Number, steepness: Number, asymmetry: Number) -> Array:
        there, log = logarithm(x, half)
        inside = jnp.exp(asymmetry * jax.nn.log_sigmoid(steepness * log))
        return top * jnp.where(there, inside, jnp.where(steepness > 0, 0.0, 1.0))

    def shapes(self, span: Span) -> dict[str, Array]:
        least, most = positive(span)
        up = spaced(0.5, 8.0, 6)
        both = jnp.concatenate([up, -up])
        return grid(
            half=spaced(least / 3, most * 3, 24), steepness=both, asymmetry=jnp.array([0.3, 0.6, 1.0, 1.8, 3.0])
        )


asymmetric_hill = AsymmetricHill()


@dataclass(frozen=True, repr=False)
class CutoffPowerLaw(Term):
    """A power law with an exponential end, scale * x**exponent * exp(-rate * x) for x > 0.

    Params: `scale`, in the unit of y; `exponent`, without unit; `rate`, in the inverse unit of x.

    Source: Schechter (1976), doi:10.1086/154079; Clauset, Shalizi and Newman (2009), doi:10.1137/070710111.

    Example:
      >>> params = {"scale": 2.0, "exponent": 1.0, "rate": 1.0}
      >>> [round(float(y), 3) for y in jf.models.cutoff_power_law(params, np.array([1.0]))]
      [0.736]
    """

    def value(self, x: Array, scale: Number, exponent: Number, rate: Number) -> Array:
        there, log = logarithm(x)
        at_zero = jnp.where(exponent > 0, 0.0, jnp.where(exponent == 0, 1.0, jnp.inf))
        return scale * jnp.where(there, jnp.exp(exponent * log - rate * x), at_zero)

    def shapes(self, span: Span) -> dict[str, Array]:
        return grid(exponent=jnp.linspace(-6, 6, 49), rate=jnp.concatenate([jnp.zeros(1), rates(span, 24)]))


cutoff_power_law = CutoffPowerLaw()


@dataclass(frozen=True, repr=False)
class Planck(Term):
    """The radiance of a black body, scale * 2 h c**2 / x**5 / (exp(h c / (x k temperature)) - 1).

    For wavelengths x > 0 in micrometers it is in W / (m**2 sr um) where the scale is 1.

    Params: `scale`, the emissivity, or the unit of y over that above; `temperature`, in kelvin.

    Derived: `peak`, the wavelength of the largest radiance, in micrometers.

    Source: Planck (1901), doi:10.1002/andp.19013090310; constants of CODATA 2018, doi:10.1103/RevModPhys.93.025010.

    Example:
      >>> [round(float(y) / 1e6, 1) for y in jf.models.planck({"scale": 1.0, "temperature": 5772.0}, np.array([0.5]))]
      [26.2]
    """

    FIRST, SECOND = 1.191042972397188e8, 14387.768775039337  # 2 h c**2 and h c / k, with x in micrometers

    def value(self, x: Array, scale: Number, temperature: Number) -> Array:
        return scale * self.FIRST / x**5 / jnp.expm1(self.SECOND / (x * temperature))

    def derived(self, params: Params) -> dict[str, Array]:
        return {"peak": 2897.771955 / params["temperature"]}

    def shapes(self, span: Span) -> dict[str, Array]:
        least, most = positive(span)
        return {"temperature": spaced(300.0 / most, 3e4 / least, 200)}


planck = Planck()


def _bose(u: Array) -> Array:
    """Return 1 / (exp(u) - 1), with both ends finite; at its pole the mean of both sides."""
    there = u != 0
    size = jnp.where(there, jnp.abs(u), 1)
    return jnp.where(there, jnp.where(u > 0, jnp.exp(-size), -1) / -jnp.expm1(-size), -0.5)


OCCUPATIONS = {
    "bose_einstein": _bose,
    "maxwell_boltzmann": lambda u: jnp.exp(-u),
    "fermi_dirac": lambda u: jax.nn.sigmoid(-u),
}


@dataclass(frozen=True, repr=False)
class ThermalDistribution(Term):
    """The occupation of states over their energy; made by `thermal_distribution`."""

    kind: str

    @property
    def names(self) -> tuple[str, ...]:
        return ("height", "kt") if self.kind == "maxwell_boltzmann" else ("height", "center", "kt")

    @property
    def flips(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "kt" if self.kind == "fermi_dirac" else ""

    def value(self, x: Array, height: Number, *shape: Number) -> Array:
        *center, kt = shape
        return height * OCCUPATIONS[self.kind](in_widths(x, center[0] if center else 0.0, kt))

    def shapes(self, span: Span) -> dict[str, Array]:
        both = spaced(0.4 / span.size, 3.0, 24) * span.width
        kt = jnp.concatenate([both, -both])
        if self.kind == "maxwell_boltzmann":
            return {"kt": kt}
        beside = spaced(1e-3, 2.0, 24) * span.width
        return grid(center=jnp.concatenate([span.low - beside, span.even(96), span.high + beside]), kt=kt)

    def columns(self, shape: Shape, span: Span) -> Array:
        if self.kind != "maxwell_boltzmann":
            return super().columns(shape, span)
        return jnp.exp(-(span.x - self._origin(shape, span)) / shape["kt"])[None]  # at most 1

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> Params:
        if self.kind != "maxwell_boltzmann":
            return super().assemble(shape, coefficients, span)
        return {"height": coefficients[0] * jnp.exp(self._origin(shape, span) / shape["kt"]), **shape}

    @staticmethod
    def _origin(shape: Shape, span: Span) -> Array:
        return jnp.where(shape["kt"] > 0, span.low, span.high)

    def __repr__(self) -> str:
        return f"thermal_distribution({self.kind!r})"


@near_keywords
def thermal_distribution(kind: str) -> ThermalDistribution:
    """Return the occupation of states over their energy x, height / (exp((x - center) / kt) + s) with s of the kind.

    "bose_einstein": s = -1, with a pole at the center, where the value is the mean of both sides, -height / 2.
    "fermi_dirac": s = 1, a step down of a logistic form. "maxwell_boltzmann": s = 0 and no center, height * exp(-x /
    kt), since a center would only be another height.

    The params are `height`, in the unit of y; `center`, the chemical potential, in that of x; `kt`, the temperature
    times Boltzmann's constant (8.617333262e-5 eV / K), in that of x, negative for energies that are counted downward.

    Raises:
      ValueError: If the kind is another.

    Source: Reif (1965), Fundamentals of Statistical and Thermal Physics, chapter 9.

    Example:
      >>> fermi = jf.models.thermal_distribution("fermi_dirac")
      >>> fermi({"height": 2.0, "center": 5.0, "kt": 0.1}, np.array([0.0, 5.0])).tolist()
      [2.0, 1.0]
    """
    if not isinstance(kind, str) or kind not in OCCUPATIONS:
        near = [name for name in OCCUPATIONS if str(kind).lower().split("-")[0].split("_")[0] in name.split("_")]
        near = near or difflib.get_close_matches(str(kind).lower(), OCCUPATIONS)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"kind is {kind!r}; {hint}it must be one of {', '.join(map(repr, OCCUPATIONS))}")
    return ThermalDistribution(kind)
