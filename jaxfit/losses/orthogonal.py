"""Orthogonal distances, for errors in x as well as in y: from a curve y = f(x), or from one where f(x) = 0."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from jaxfit.losses.base import SQUARES, NoiseModel, OfFunction, as_array, as_float, hashable, key_for, label, leaves_of
from jaxfit.losses.likelihoods import SumOfSquares
from jaxfit.losses.regression import OfPredictions, checked, difference, predicted, read, zero_where_masked
from jaxfit.problems.axes import is_array
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import Model, Params, PyTree

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr

STEPS = 100  # to the nearest point of the curve, at most
SHORT = 0.5  # power of the precision: a step of u that ends the search, whose error one more step squares
SQUARED = 0.25  # the same where a step of Newton's itself leaves about its square
CUBED = 0.2  # the same of a step that leaves about its third power
CUBIC = 2  # of these steps after the first, before each point chooses its own
FLAT = 0.1  # of the curvature of Gauss and Newton: the least one that a step takes


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
        if y.ndim != 1 or x.shape != y.shape:
            raise ValueError(
                f"{self}: x has shape {x.shape} and y {y.shape}; both are (n,), one abscissa and one y for each point: "
                f"for points of more coordinates use jf.losses.implicit_distance"
            )
        for name, value in zip(self.data_names[2:], (sigma, x_sigma, *more), strict=False):
            if value.shape != y.shape:
                raise ValueError(
                    f"{self}: {name} has shape {value.shape}, x {x.shape} and y {y.shape}; all are (n,), a number for "
                    f"each point: for one shared by all pass np.full({y.shape}, {name})"
                )
        x, y, sigma, x_sigma = map(as_float, (x, y, sigma, x_sigma))
        together = as_float(more[0]) if more else None
        if where is not None:
            sigma, x_sigma = jnp.where(where, sigma, 1), jnp.where(where, x_sigma, 0)
            together = None if together is None else jnp.where(where, together, 0)
        alone = sigma if together is None else sigma * jnp.sqrt(1 - together**2)  # of y given x

        def apart(params, u):
            """Return the distance in y from the curve at x + x_sigma * u, less the part of y that x explains."""
            away = difference(self, predicted(self, params, x + x_sigma * u, key), y)
            return (away if together is None else away - together * sigma * u) / alone

        return zero_where_masked(_distance(apart, params, jnp.zeros_like(y)), where)

    def noise_model(self) -> NoiseModel:
        return NoiseModel(SQUARES, sigma=True, additive=True, predicts=True)

    def __repr__(self) -> str:
        options = ["correlated=True"] * self.correlated + ["masked=True"] * self.masked
        return f"orthogonal_distance({', '.join([label(self.predict), *options])})"


def _distance(apart: Callable[[Params, Array], Array], params: Params, start: Array) -> Array:
    """Return for each point the least sqrt(u**2 + apart(u)**2) over its own u, with the sign of `apart`.

    At the least one, e = (apart - u * apart') / sqrt(1 + apart'**2) is that root, whose slopes by u and by apart' are
    zero. So its derivative by the params is that of `apart` with u held, over the same root.
    """
    program = jax.make_jaxpr(lambda u: apart(params, u))(start)  # whose constants are what it depends on
    return _distances(functools.partial(_along, program), start, *program.consts)


def _along(program: ClosedJaxpr, u: Array, *given: Array) -> Array:
    from jax.extend.core import jaxpr_as_fun  # would take 20 ms of every import of jaxfit

    return jaxpr_as_fun(program.replace(consts=list(given)))(u)[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _distances(apart: Callable[..., Array], start: Array, *given: Array) -> Array:
    return _distances_with_slope(apart, (start, *given), ())[0]


@functools.partial(_distances.defjvp, symbolic_zeros=True)
def _distances_with_slope(apart: Callable[..., Array], given: tuple, changes: tuple) -> tuple[Array, Array]:
    u = _abscissas(apart, *given)
    found, slope = _slopes(apart, u, *given[1:])
    root = jnp.sqrt(1 + slope**2)
    return (found - u * slope) / root, _moved(functools.partial(apart, u), given[1:], changes[1:]) / root


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _abscissas(apart: Callable[..., Array], start: Array, *given: Array) -> Array:
    """Return the u of the least u**2 + apart(u)**2."""
    return _nearest(lambda u: _jet(apart, u, *given), start)


@functools.partial(_abscissas.defjvp, symbolic_zeros=True)
def _abscissas_with_slope(apart: Callable[..., Array], given: tuple, changes: tuple) -> tuple[Array, Array]:
    u = _abscissas(apart, *given)

    def uphill(*given):
        found, slope = _slopes(apart, u, *given)
        return u + found * slope

    found, slope, bend = _jet(apart, u, *given[1:])
    curve = 1 + slope**2 + found * bend
    return u, -_moved(uphill, given[1:], changes[1:]) / jnp.where(curve > 0, curve, jnp.inf)


def _moved(function: Callable[..., Array], given: tuple, changes: tuple) -> Array:
    """Return the derivative of a function of (n,) numbers along changes of what it is given, of which most are zero."""
    moving = [i for i, change in enumerate(changes) if not isinstance(change, SymbolicZero)]

    def of_moving(*values):
        whole = dict(enumerate(given)) | dict(zip(moving, values, strict=True))
        return function(*whole.values())

    return jax.jvp(of_moving, [given[i] for i in moving], [changes[i] for i in moving])[1]


def _slopes(apart: Callable[..., Array], u: Array, *given: Array) -> tuple[Array, Array]:
    """Return `apart` and its slope by u, each point for itself."""
    return jax.jvp(lambda u: apart(u, *given), (u,), (jnp.ones_like(u),))


def _jet(apart: Callable[..., Array], u: Array, *given: Array) -> tuple[Array, Array, Array]:
    """Return the same and the second derivative."""
    (found, slope), (_, bend) = jax.jvp(lambda u: _slopes(apart, u, *given), (u,), (jnp.ones_like(u),))
    return found, slope, bend


def _nearest(jet: Callable[[Array], tuple[Array, Array, Array]], start: Array) -> Array:
    """Return u at a minimum of u**2 + apart(u)**2, by damped steps of Newton's, each point for itself.

    Most points arrive by a few steps without damping, which cost a third of those that choose theirs; the others begin
    again.

    Args:
      jet: Returns `apart` at u, its slope, and the slope of that.
    """
    eps = float(jnp.finfo(start.dtype).eps)

    def going(state):
        return (state[0] < STEPS) & jnp.any(state[-1])

    def step(state):  # which carries little, since most calls take none
        count, u, damping, moving = state
        found, slope, bend = jet(u)
        move = -(u + found * slope) / _curvature(found, slope, bend) / (1 + damping)
        there = u + move
        lower = there**2 + jet(there)[0] ** 2 <= u**2 + found**2
        size = jnp.abs(move) / (1 + jnp.abs(u))
        newton = lower & _is_convex(found, slope, bend) & (damping <= eps**SQUARED)
        u = jnp.where(lower & moving, there, u)
        moving &= size > jnp.where(newton, eps**SQUARED, eps**SHORT)
        return count + 1, u, jnp.where(lower, damping / 8, 2 + 4 * damping), moving

    u, arrived, alive = _directly(jet, start)
    state = 0, jnp.where(arrived, u, start), jnp.zeros_like(start), ~arrived & alive
    return jax.lax.while_loop(going, step, state)[1]


def _directly(jet: Callable[[Array], tuple[Array, Array, Array]], start: Array) -> tuple[Array, Array, Array]:
    """Return u after three steps to the minimum along the parabola of `apart`, and whether it is there.

    Each step leaves about its third power. It is there, in the valley where it began, if the last one was that small,
    the first step went most of the way, and both parts of the way made u**2 + apart(u)**2 smaller.

    Returns:
      u, whether it is there, and whether `apart` is finite at the start.
    """
    small = float(jnp.finfo(start.dtype).eps)
    found, slope, bend = jet(start)
    alive, high = jnp.isfinite(found + slope), start**2 + found**2
    first = _along_parabola(start, found, slope, bend, 1 + slope**2 + jnp.maximum(found * bend, 0))
    u = start + first
    found, slope, bend = jet(u)
    middle, convex, move = u**2 + found**2, True, first
    for _ in range(CUBIC):
        convex = _is_convex(found, slope, bend)
        move = _along_parabola(u, found, slope, bend, _curvature(found, slope, bend))
        u = u + move
        found, slope, bend = jet(u)
    size = small**SHORT * (1 + jnp.abs(u))
    near = jnp.abs(u - start - first) <= jnp.abs(first) / 4 + size
    blur = small**SHORT * (1 + high)
    falls = (middle <= high + blur) & (u**2 + found**2 <= middle + blur)
    return u, near & falls & convex & (jnp.abs(move) <= small**CUBED * (1 + jnp.abs(u))), alive


def _along_parabola(u: Array, found: Array, slope: Array, bend: Array, curve: Array) -> Array:
    """Return the move by two steps of Newton's to a minimum of u**2 + apart(u)**2 where `apart` is a parabola.

    Args:
      curve: Half the second derivative for the first of the two.
    """
    move = -(u + found * slope) / curve
    ahead, steep = found + (slope + bend / 2 * move) * move, slope + bend * move
    return move - (u + move + ahead * steep) / _curvature(ahead, steep, bend)


def _is_convex(found: Array, slope: Array, bend: Array) -> Array:
    return found * bend >= (FLAT - 1) * (1 + slope**2)


def _curvature(found: Array, slope: Array, bend: Array) -> Array:
    """Return the half second derivative of u**2 + apart(u)**2, or what replaces it where it is too small."""
    usual = 1 + slope**2  # of Gauss and Newton, where the valley bends the other way
    curve = usual + found * bend
    return jnp.where(curve > 0, jnp.maximum(curve, FLAT * usual), usual)


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


@leaves_of()
@dataclass(frozen=True, eq=False, repr=False)
class ImplicitDistance(OfFunction, SumOfSquares):
    """The loss made by `implicit_distance`."""

    @property
    def data_names(self) -> tuple[str, ...]:
        return "x", "x_sigma"

    @property
    def by_row(self) -> bool:
        return True

    def residuals(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        """Return the distances of the points from f = 0, in standard deviations, with the sign of f."""
        if len(data) != 2:
            raise TypeError(f"{self} takes the data (x, x_sigma), but got {len(data)} array{'s' * (len(data) != 1)}")
        x, sigma = (as_float(as_array(name, value)) for name, value in zip(self.data_names, data, strict=True))
        if x.ndim != 2 or not x.size or sigma.shape != x.shape:
            remedy = "for one error shared by all pass np.full(x.shape, x_sigma)"
            if x.ndim != 2:
                remedy = "x holds all coordinates, np.stack([x, y], axis=1), and x_sigma their errors, in its shape"
            raise ValueError(
                f"{self}: x has shape {x.shape} and x_sigma {sigma.shape}; both are (n, d), a row for each point: "
                f"{remedy}"
            )
        given = key_for(self, key)
        value = jnp.asarray(self.function(params, x, **given))
        if value.shape != x.shape[:1]:
            raise ValueError(
                f"{self}: f has shape {value.shape} for x {x.shape}; it returns {x.shape[:1]}, one a point"
            )

        def one(x, sigma):
            return _from_surface(lambda params, u: self.function(params, (x + sigma * u)[None], **given)[0], params, x)

        return jax.vmap(one)(x, sigma)

    def noise_model(self) -> NoiseModel:
        return NoiseModel(SQUARES, sigma=True, additive=True)

    def __repr__(self) -> str:
        return f"implicit_distance({label(self.function)})"


def _still(params: Params) -> Params:
    """Return params that are not differentiated; what is no number stays as it is."""
    return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if is_array(x) else x, params)


def _from_surface(surface: Callable[[Params, Array], Array], params: Params, like: Array) -> Array:
    """Return the least |u| with surface(u) = 0, with the sign that the surface has at u = 0.

    At the least one, e = (surface - slope @ u) / |slope| is that root, and its derivatives by the params are those of e
    with u held. One more step of Newton's, which is differentiated, makes the second ones right too.
    """
    still = _still(params)
    nearest = _nearest_on(lambda u: surface(still, u), jnp.zeros_like(like))
    slope = jax.grad(surface, argnums=1)
    ahead = slope(still, nearest)
    pull = jnp.dot(nearest, ahead) / jnp.dot(ahead, ahead)
    bend = jnp.eye(like.size) - pull * jax.hessian(lambda u: surface(still, u))(nearest)
    wrong = nearest - pull * slope(params, nearest), surface(params, nearest)
    moved = _constrained(bend, wrong[0], ahead, wrong[1])[0]
    u = nearest + jnp.where(jnp.isfinite(moved).all(), moved, 0)
    steep = slope(params, u)
    return (surface(params, u) - jnp.dot(steep, u)) / jnp.sqrt(jnp.dot(steep, steep))


def _constrained(bend: Array, gradient: Array, normal: Array, value: Array) -> tuple[Array, Array]:
    """Return the d of least d @ bend @ d / 2 + gradient @ d with value + normal @ d = 0, and its multiplier."""
    size = jnp.sqrt(jnp.dot(normal, normal))
    unit = normal / size
    table = jnp.block([[bend, -unit[:, None]], [unit[None, :], jnp.zeros((1, 1))]])
    solution = jnp.linalg.solve(table, -jnp.append(gradient, value / size))
    return solution[:-1], solution[-1] / size


def _nearest_on(surface: Callable[[Array], Array], start: Array) -> Array:
    """Return u at a minimum of |u| where surface(u) = 0: Newton's steps for both, cut until u and surface shrink."""
    eps, eye, cuts = float(jnp.finfo(start.dtype).eps), jnp.eye(start.size), 0.25 ** jnp.arange(6)

    def step(state):
        count, u, moving = state
        value, normal = jax.value_and_grad(surface)(u)
        square = jnp.dot(normal, normal)
        pull = (jnp.dot(normal, u) - value) / square
        bend = pull * jax.hessian(surface)(u)
        across = eye - jnp.outer(normal, normal) / square
        along = across @ bend @ across  # of one number along a curve
        most = jnp.trace(along) if start.size == 2 else jnp.sqrt(jnp.sum(along**2))
        bend = jnp.where(most < 0.9, eye - bend, eye)
        move, pull = _constrained(bend, u, normal, value)
        weight = 2 * jnp.abs(pull)

        def height(u):
            return jnp.dot(u, u) / 2 + weight * jnp.abs(surface(u))

        there = u[None] + jnp.outer(cuts, move)
        lower = jax.vmap(height)(there) <= height(u) * (1 + 4 * eps)
        moving = jnp.any(lower) & (jnp.sqrt(jnp.dot(move, move)) > eps**SHORT * (1 + jnp.sqrt(jnp.dot(u, u))))
        return count + 1, jnp.where(moving, there[jnp.argmax(lower)], u), moving

    state = 0, start, jnp.isfinite(surface(start))
    return jax.lax.while_loop(lambda state: (state[0] < STEPS) & state[-1], step, state)[1]


@near_keywords
def implicit_distance(function: Callable) -> ImplicitDistance:
    """Return the sum of squared distances of points from the curve or surface where f(params, x) = 0.

    For each point it is the least of sum(((u - x) / x_sigma)**2) over the u with f(params, u) = 0, in the valley that
    begins at x: orthogonal distance regression of an implicit model, such as an ellipse. The u are eliminated point by
    point, so that the cost grows with the points; errors of the params are those of a fit of params and u together.

    The data are (x, x_sigma), both (n, d).

    Args:
      function: A hashable function of (params, x) that returns (n,) numbers for x (n, d), each of its own row. It must
        not vanish for all x: give an ellipse a fixed 1, not five params that may all be zero.

    Raises:
      TypeError: If it cannot be called or hashed; when called, if the data are not two arrays of numbers.
      ValueError: When called, if their shapes, or that of f, do not fit.

    Source: Boggs, Byrd and Schnabel (1987), doi:10.1137/0908085; Helfrich and Zwick (1993), doi:10.1007/BF02198291.

    Example:
      >>> circle = jf.losses.implicit_distance(lambda p, x: x[:, 0] ** 2 + x[:, 1] ** 2 - p["radius"] ** 2)
      >>> points = np.array([[3.0, 0.0], [0.0, 1.0]])
      >>> round(float(circle({"radius": 2.0}, points, np.ones((2, 2)))), 6)
      2.0
    """
    return ImplicitDistance(hashable("function", function))
