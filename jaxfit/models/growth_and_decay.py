"""Growth and decay: exponentials, damped oscillations, S-shaped curves, dose and response, kinetics, power laws."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jaxfit.models.guessing import Shape, Span, grid, spaced
from jaxfit.models.terms import Params, Several, Term, several
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import Number


def rates(span: Span, count: int = 48) -> Array:
    """Return candidates for a rate: from one hardly visible in the data to one that has decayed at the second point."""
    return spaced(0.05 / span.width, 4 / span.step, count)


@dataclass(frozen=True, repr=False)
class ExponentialDecay(Term):
    """A decay to zero, amplitude * exp(-rate * x).

    Params: `amplitude`, in the unit of y, at x = 0; `rate`, in the inverse unit of x: the lifetime is 1 / rate, the
    half-life ln 2 / rate. A decay to a level other than zero is `exponential_decay + constant`.

    Derived: `lifetime` and `half_life`.

    Source: NIST StRD, nonlinear regression, MGH17.

    Example:
      >>> jf.models.exponential_decay({"amplitude": 2.0, "rate": 0.0}, np.array([0.0, 1.0])).tolist()
      [2.0, 2.0]
    """

    def value(self, x: Array, amplitude: Number, rate: Number) -> Array:
        return amplitude * jnp.exp(-rate * x)

    def derived(self, params: Params) -> dict[str, Array]:
        return {"lifetime": 1 / params["rate"], "half_life": jnp.log(2) / params["rate"]}

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

    Derived: `doubling_time`.

    Example:
      >>> jf.models.exponential_growth({"amplitude": 2.0, "rate": 0.0}, np.array([0.0, 1.0])).tolist()
      [2.0, 2.0]
    """

    def value(self, x: Array, amplitude: Number, rate: Number) -> Array:
        return amplitude * jnp.exp(rate * x)

    def derived(self, params: Params) -> dict[str, Array]:
        return {"doubling_time": jnp.log(2) / params["rate"]}

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

    Derived: `half_time`, the x at which half of the height is reached.

    Source: NIST StRD, nonlinear regression, Misra1a and BoxBOD.

    Example:
      >>> [round(float(y), 3) for y in jf.models.exponential_rise({"height": 2.0, "rate": 1.0}, np.array([0.0, 1.0]))]
      [0.0, 1.264]
    """

    def value(self, x: Array, height: Number, rate: Number) -> Array:
        return -height * jnp.expm1(-rate * x)

    def derived(self, params: Params) -> dict[str, Array]:
        return {"half_time": jnp.log(2) / params["rate"]}

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

    Derived: `period`, and `lifetime` = 1 / rate of the amplitude.

    Source: Feynman, Leighton and Sands, The Feynman Lectures on Physics I (1963), chapter 24.

    Example:
      >>> params = {"amplitude": 1.0, "rate": 0.0, "frequency": 1.0, "phase": 0.0}
      >>> [round(float(y), 3) for y in jf.models.damped_oscillation(params, np.array([0.0, 0.5]))]
      [1.0, -1.0]
    """

    ordered_by = "frequency"

    def value(self, x: Array, amplitude: Number, rate: Number, frequency: Number, phase: Number) -> Array:
        return amplitude * jnp.exp(-rate * x) * jnp.cos(2 * jnp.pi * frequency * x + phase)

    def derived(self, params: Params) -> dict[str, Array]:
        return {"period": 1 / params["frequency"], "lifetime": 1 / params["rate"]}

    def shapes(self, span: Span) -> dict[str, Array]:
        """Return frequencies up to two points per period, four for each that the length of the data resolves."""
        count = 2 * span.size
        return grid(
            rate=jnp.array([0.0, 1.0, 3.0, 10.0]) / span.width, frequency=0.25 * jnp.arange(1, count + 1) / span.width
        )

    def columns(self, shape: Shape, span: Span) -> Array:
        x = span.x - span.low
        angle = 2 * jnp.pi * shape["frequency"] * x
        return jnp.exp(-shape["rate"] * x)[None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> Params:
        """Return params by a cos + b sin = sqrt(a**2 + b**2) cos(angle - atan2(b, a)), from the lowest x back to 0."""
        a, b = coefficients
        phase = -jnp.arctan2(b, a) - 2 * jnp.pi * shape["frequency"] * span.low
        phase = jnp.arctan2(jnp.sin(phase), jnp.cos(phase))
        amplitude = jnp.sqrt(a**2 + b**2) * jnp.exp(shape["rate"] * span.low)
        return {"amplitude": amplitude, **shape, "phase": phase}


damped_oscillation = DampedOscillation()


def _steepness(span: Span) -> Array:
    """Return candidates for a rate, of both signs."""
    up = spaced(1.0, 2.0 * max(span.size, 8), 10) / span.width
    return jnp.concatenate([up, -up])


def _places(span: Span) -> Array:
    """Return candidates for the x of steepest ascent, also beyond the data."""
    return span.low + span.width * jnp.linspace(-0.5, 1.5, 65)


@dataclass(frozen=True, repr=False)
class Logistic(Term):
    """A logistic curve of growth, capacity / (1 + exp(-rate * (x - midpoint))).

    Params: `capacity`, the limit, in the unit of y; `rate`, in the inverse unit of x, negative for a decrease;
    `midpoint`, the x at which half of the capacity is reached and the slope is steepest, rate * capacity / 4. If growth
    starts at a level other than zero, use `logistic + constant`. That curve has two equal descriptions, (capacity,
    rate, midpoint, offset) and (-capacity, -rate, midpoint, offset + capacity); the guess is the one with a positive
    capacity, so that the offset is the lower level.

    Derived: `slope`, the steepest one.

    Source: Verhulst (1838); NIST StRD, nonlinear regression, Rat42.

    Example:
      >>> params = {"capacity": 2.0, "rate": 1.0, "midpoint": 3.0}
      >>> [round(float(y), 3) for y in jf.models.logistic(params, np.array([3.0]))]
      [1.0]
    """

    ordered_by, flips = "midpoint", "rate"

    def value(self, x: Array, capacity: Number, rate: Number, midpoint: Number) -> Array:
        return capacity * jax.nn.sigmoid(rate * (x - midpoint))

    def derived(self, params: Params) -> dict[str, Array]:
        return {"slope": params["rate"] * params["capacity"] / 4}

    def shapes(self, span: Span) -> dict[str, Array]:
        return grid(rate=_steepness(span), midpoint=_places(span))


logistic = Logistic()


@dataclass(frozen=True, repr=False)
class Gompertz(Term):
    """A Gompertz curve of growth, capacity * exp(-exp(-rate * (x - inflection))).

    Params: `capacity`, in the unit of y: the limit; `rate`, in the inverse unit of x; `inflection`, in the unit of x,
    where capacity / e is reached and the slope is steepest, rate * capacity / e.

    Derived: `slope`, the steepest one.

    Source: Gompertz (1825), doi:10.1098/rstl.1825.0026; Winsor (1932), doi:10.1073/pnas.18.1.1.

    Example:
      >>> params = {"capacity": 2.0, "rate": 1.0, "inflection": 3.0}
      >>> [round(float(y), 3) for y in jf.models.gompertz(params, np.array([3.0]))]
      [0.736]
    """

    ordered_by = "inflection"

    def value(self, x: Array, capacity: Number, rate: Number, inflection: Number) -> Array:
        return capacity * jnp.exp(-jnp.exp(-rate * (x - inflection)))

    def derived(self, params: Params) -> dict[str, Array]:
        return {"slope": params["rate"] * params["capacity"] / jnp.e}

    def shapes(self, span: Span) -> dict[str, Array]:
        return grid(rate=_steepness(span), inflection=_places(span))


gompertz = Gompertz()


def positive(span: Span) -> tuple[Array, Array]:
    """Return the least and the greatest positive x."""
    least = jnp.min(jnp.where(span.x > 0, span.x, jnp.inf))
    most = jnp.max(jnp.where(span.x > 0, span.x, 0))
    return jnp.where(jnp.isfinite(least), least, 1), jnp.where(most > 0, most, 1)


def logarithm(x: Array, unit: Number = 1.0) -> tuple[Array, Array]:
    """Return whether x is not zero, and log(x / unit) there: so x = 0 has a slope, which is zero."""
    there = x != 0
    return there, jnp.log(jnp.where(there, x, unit) / unit)


@dataclass(frozen=True, repr=False)
class PowerLaw(Term):
    """A power law, scale * x**exponent for x >= 0.

    Params: `scale`, in the unit of y, at x = 1; `exponent`, without unit.

    Source: NIST StRD, nonlinear regression, DanWood.

    Example:
      >>> [round(float(y), 3) for y in jf.models.power_law({"scale": 2.0, "exponent": 2.0}, np.array([0.0, 3.0]))]
      [0.0, 18.0]
    """

    def value(self, x: Array, scale: Number, exponent: Number) -> Array:
        there, log = logarithm(x)
        at_zero = jnp.where(exponent > 0, 0.0, jnp.where(exponent == 0, 1.0, jnp.inf))
        return scale * jnp.where(there, jnp.exp(exponent * log), at_zero)

    def shapes(self, span: Span) -> dict[str, Array]:
        return {"exponent": jnp.linspace(-8, 8, 129)}

    def columns(self, shape: Shape, span: Span) -> Array:
        """Return powers of x in units of the greatest, or of the least for a negative exponent: at most 1."""
        return self.value(span.x / self._unit(shape, span), 1.0, shape["exponent"])[None]

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> Params:
        return {"scale": coefficients[0] * self._unit(shape, span) ** -shape["exponent"], **shape}

    @staticmethod
    def _unit(shape: Shape, span: Span) -> Array:
        least, most = positive(span)
        return jnp.where(shape["exponent"] > 0, most, least)


power_law = PowerLaw()


@dataclass(frozen=True, repr=False)
class MichaelisMenten(Term):
    """A Michaelis-Menten curve, vmax * x / (km + x).

    Params: `vmax`, in the unit of y: the limit; `km`, in that of x, where half of it is reached.

    Derived: `slope` = vmax / km at x = 0.

    Source: Michaelis and Menten (1913), Biochemische Zeitschrift 49, 333-369; NIST StRD, nonlinear regression,
    Misra1d.

    Example:
      >>> jf.models.michaelis_menten({"vmax": 2.0, "km": 3.0}, np.array([0.0, 3.0])).tolist()
      [0.0, 1.0]
    """

    def value(self, x: Array, vmax: Number, km: Number) -> Array:
        return vmax * x / (km + x)

    def derived(self, params: Params) -> dict[str, Array]:
        return {"slope": params["vmax"] / params["km"]}

    def shapes(self, span: Span) -> dict[str, Array]:
        least, most = positive(span)
        return {"km": spaced(least / 10, most * 30, 64)}


michaelis_menten = MichaelisMenten()


@dataclass(frozen=True, repr=False)
class Hill(Term):
    """A Hill curve of dose and response, top / (1 + (half / x)**steepness) for x >= 0.

    Params: `top`, the limit, in the unit of y; `half`, positive, the x at which half of it is reached; `steepness`,
    without unit, negative for a decreasing response. If the response starts at a level other than zero, use `hill +
    constant`. That curve has two equal descriptions, (top, half, steepness, offset) and (-top, half, -steepness, offset
    + top); the guess is the one with a positive top, so that the offset is the lower level.

    Source: Hill (1910), The Journal of Physiology 40, iv-vii.

    Example:
      >>> params = {"top": 2.0, "half": 3.0, "steepness": 4.0}
      >>> [round(float(y), 3) for y in jf.models.hill(params, np.array([0.0, 3.0]))]
      [0.0, 1.0]
    """

    flips = "steepness"

    def value(self, x: Array, top: Number, half: Number, steepness: Number) -> Array:
        there, log = logarithm(x, half)
        return top * jnp.where(there, jax.nn.sigmoid(steepness * log), jnp.where(steepness > 0, 0.0, 1.0))

    def shapes(self, span: Span) -> dict[str, Array]:
        least, most = positive(span)
        up = spaced(0.4, 10.0, 9)
        return grid(half=spaced(least / 3, most * 3, 48), steepness=jnp.concatenate([up, -up]))


hill = Hill()
