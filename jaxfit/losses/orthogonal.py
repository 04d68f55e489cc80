"""Orthogonal distances: chi-squared for errors in x as well as in y."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jaxfit.losses.base import SQUARES, NoiseModel, as_float, label, leaves_of
from jaxfit.losses.likelihoods import SumOfSquares
from jaxfit.losses.regression import OfPredictions, checked, counted, difference, predicted, read
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import Model, Params, PyTree

STEPS = 100  # to the nearest point of the curve, at most
SHORT = 4  # times the precision of u: a step that ends the search


@leaves_of()
@dataclass(frozen=True, eq=False, repr=False)
class OrthogonalDistance(OfPredictions, SumOfSquares):
    """The loss made by `orthogonal_distance`."""

    correlated: bool = False

    @property
    def data_names(self) -> tuple[str, ...]:
        more = ("correlation",) * self.correlated + ("where",) * self.masked
        return ("x", "y", "sigma", "x_sigma", *more)

    def residuals(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        """Return the distances of the points from the curve, with a sign and in standard deviations; zero if masked."""
        x, y, sigma, x_sigma, *more, where = read(self, data)
        for name, value in zip(self.data_names[2:], (sigma, x_sigma, *more), strict=False):
            if value.shape != y.shape or y.ndim != 1 or x.shape != y.shape:
                raise ValueError(
                    f"{self}: {name} has shape {value.shape}, x {x.shape} and y {y.shape}; all are (n,), a number for "
                    f"each point: for one shared by all pass np.full({y.shape}, {name})"
                )
        x, y, sigma, x_sigma = map(as_float, (x, y, sigma, x_sigma))
        together = as_float(more[0]) if more else jnp.zeros_like(y)
        if where is not None:
            sigma, x_sigma, together = (jnp.where(where, v, n) for v, n in ((sigma, 1), (x_sigma, 0), (together, 0)))
        alone = sigma * jnp.sqrt(1 - together**2)  # of what x does not tell of y

        def apart(params, u):
            """Return the distance in y from the curve at x + x_sigma * u, less what the error of x tells of it."""
            return (difference(self, predicted(self, params, x + x_sigma * u, key), y) - together * sigma * u) / alone

        return counted(_distance(apart, params, jnp.zeros_like(y)), where)

    def noise_model(self) -> NoiseModel:
        return NoiseModel(SQUARES, sigma=True, additive=True, predicts=True)

    def __repr__(self) -> str:
        options = ["correlated=True"] * self.correlated + ["masked=True"] * self.masked
        return f"orthogonal_distance({', '.join([label(self.predict), *options])})"


def _distance(apart: Callable[[Params, Array], Array], params: Params, start: Array) -> Array:
    """Return for each point the least sqrt(u**2 + apart(u)**2) over its own u, with the sign of `apart`.

    At the least one, e = (apart - u * apart') / sqrt(1 + apart'**2) is that root, and its derivatives by the params are
    those of e with u held. One more step of Newton's, which is differentiated, makes the second ones right too.
    """

    def slopes(u, params=params):
        return jax.jvp(lambda u: apart(params, u), (u,), (jnp.ones_like(u),))

    still = jax.lax.stop_gradient(params)
    nearest = _nearest(lambda u: slopes(u, still), start)
    found, bend = jax.jvp(lambda u: slopes(u, still), (nearest,), (jnp.ones_like(nearest),))
    curve = 1 + found[1] ** 2 + found[0] * bend[1]
    found, slope = slopes(nearest)
    shift = (nearest + found * slope) / jnp.where(curve > 0, curve, jnp.inf)
    found, slope = slopes(nearest - shift)
    return (found - (nearest - shift) * slope) / jnp.sqrt(1 + slope**2)


def _nearest(slopes: Callable[[Array], tuple[Array, Array]], start: Array) -> Array:
    """Return u at a minimum of u**2 + apart(u)**2, by damped steps of Gauss and Newton, each point for itself."""
    least = SHORT * float(jnp.finfo(start.dtype).eps)

    def going(state):
        return (state[0] < STEPS) & jnp.any(state[-1])

    def step(state):
        count, u, found, slope, damping, moving = state
        move = -(u + found * slope) / (1 + slope**2) / (1 + damping)
        there = u + move
        ahead, steep = slopes(there)
        lower = there**2 + ahead**2 <= u**2 + found**2
        moving &= jnp.abs(move) > least * (1 + jnp.abs(u))
        taken = lower & moving
        u, found, slope = (jnp.where(taken, *pair) for pair in ((there, u), (ahead, found), (steep, slope)))
        return count + 1, u, found, slope, jnp.where(lower, damping / 8, 2 + 4 * damping), moving

    found, slope = slopes(start)
    state = 0, start, found, slope, jnp.zeros_like(start), jnp.isfinite(found + slope)
    return jax.lax.while_loop(going, step, state)[1]


@near_keywords
def orthogonal_distance(predict: Model, *, correlated: bool = False, masked: bool = False) -> OrthogonalDistance:
    """Return the sum of squared distances of points from a curve, in standard deviations of x and y.

    For each point it is the least of ((u - x) / x_sigma)**2 + ((predict(params, u) - y) / sigma)**2 over u, the unknown
    true abscissa, in the valley that begins at x. It is found point by point, so that the cost grows with the points
    and not with their square, and errors of the params are those of a fit of params and abscissas together. Where
    x_sigma is zero it is `chi_squared`.

    The data are (x, y, sigma, x_sigma), each (n,), and with `correlated` the correlation of the two errors of each
    point after them, between -1 and 1.

    Args:
      predict: As for `rss`; a prediction depends on its own x alone.
      correlated: Whether the data hold correlations.
      masked: Whether the data end with a mask, as for `rss`.

    Raises:
      TypeError, ValueError: As for `rss`; also if the data differ in shape.

    Source: York (1966), doi:10.1139/p66-090; Boggs, Byrd and Schnabel (1987), doi:10.1137/0908085.

    Example:
      >>> loss = jf.losses.orthogonal_distance(jf.models.line)
      >>> x, y, one = np.array([0.0, 1.0]), np.array([1.0, 1.0]), np.array([1.0, 1.0])
      >>> round(float(loss({"w": 1.0, "b": 0.0}, x, y, one, one)), 6)  # one point lies 1 / sqrt(2) from the line
      0.5
    """
    if not isinstance(correlated, bool):
        raise TypeError(f"correlated is {correlated!r}; it is True or False, and correlations are a part of the data")
    return OrthogonalDistance(*checked(predict, masked), correlated)
