"""Growth to a limit along an S: logistic and Gompertz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxfit.models.guessing import Span, grid, spaced
from jaxfit.models.terms import Params, Term


def _steepness(span: Span) -> Array:
    """Candidates for a rate, of both signs."""
    up = spaced(1.0, 2.0 * max(span.size, 8), 10) / span.width
    return jnp.concatenate([up, -up])


def _places(span: Span) -> Array:
    """Candidates for the x of steepest ascent, also beyond the data."""
    return span.low + span.width * jnp.linspace(-0.5, 1.5, 65)


@dataclass(frozen=True, repr=False)
class Logistic(Term):
    """Logistic growth, capacity / (1 + exp(-rate * (x - midpoint))).

    Params: `capacity`, in the unit of y: the limit; `rate`, in the inverse unit of x, negative for a fall;
    `midpoint`, in the unit of x, where half of the capacity is reached and the slope is steepest, rate * capacity /
    4. From a level other than zero it is `logistic + constant`, whose curve is also that of (-capacity, -rate,
    midpoint, offset + capacity): the guess has a positive capacity, so that the offset is the lower of the two levels.

    Source: Verhulst (1838); NIST StRD, nonlinear regression, Rat42.
    """

    def value(self, x: Any, capacity: Any, rate: Any, midpoint: Any) -> Any:
        return capacity * jax.nn.sigmoid(rate * (x - midpoint))

    def shapes(self, span: Span) -> dict[str, Array]:
        return grid(rate=_steepness(span), midpoint=_places(span))

    @property
    def ordered_by(self) -> str:
        return "midpoint"

    def mirrored(self, params: Params) -> Params:
        """The same curve less its capacity."""
        return {"capacity": -params["capacity"], "rate": -params["rate"], "midpoint": params["midpoint"]}


logistic = Logistic()


@dataclass(frozen=True, repr=False)
class Gompertz(Term):
    """Gompertz growth, capacity * exp(-exp(-rate * (x - inflection))).

    Params: `capacity`, in the unit of y: the limit; `rate`, in the inverse unit of x; `inflection`, in the unit of x,
    where capacity / e is reached and the slope is steepest, rate * capacity / e.

    Source: Gompertz (1825), doi:10.1098/rstl.1825.0026; Winsor (1932), doi:10.1073/pnas.18.1.1.
    """

    def value(self, x: Any, capacity: Any, rate: Any, inflection: Any) -> Any:
        return capacity * jnp.exp(-jnp.exp(-rate * (x - inflection)))

    def shapes(self, span: Span) -> dict[str, Array]:
        return grid(rate=_steepness(span), inflection=_places(span))

    @property
    def ordered_by(self) -> str:
        return "inflection"


gompertz = Gompertz()
