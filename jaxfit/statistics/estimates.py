"""How the params, and numbers computed from them, vary with the noise of the data: the linear theory of one lane.

The noise model of the loss says how large the noise is. Squares: either the residuals are in units of their standard
deviation (sigma is absolute), or their scatter around the fit is the noise: s**2 = sum(r**2) / (n - k). Robust: the
scatter of the slopes rho'(residuals). Likelihood: the second derivative of the loss; of a deviance that expected from
the means.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.custom_batching
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from jaxfit.curvature.lanczos import gradient_and_product
from jaxfit.engine.single import raveled
from jaxfit.engine.tracing import undifferentiable
from jaxfit.losses import Joint, Loss, Sum, takes_key
from jaxfit.losses.base import LIKELIHOOD, ROBUST, SQUARES, NoiseModel, is_masked, noise_model_of
from jaxfit.optimizers.arrays import (
    Array,
    eps_of,
    is_unrolled,
    namespace,
    on_host,
    pick,
    singular,
    solve,
    triangularize,
)
from jaxfit.optimizers.bordered import Columns, reduced, transposed_product
from jaxfit.optimizers.lanes import TOGETHER, in_full_width, lanes_last, lanes_side_by_side, where_poor
from jaxfit.optimizers.linearization import System, place_of, system_at
from jaxfit.optimizers.methods import Objective
from jaxfit.problems import Problem, name_of
from jaxfit.problems.axes import is_axis
from jaxfit.problems.bounds import bounds
from jaxfit.problems.marks import free, is_marked, without_kept
from jaxfit.verbs.results import Fit

PyTree = Any


def noise_model_for(verb: str, loss: Any) -> NoiseModel:
    """Return the noise model of the loss, whose kind is known.

    Raises:
      TypeError: If it is not, with what to use instead.
    """
    if is_axis(loss):
        raise TypeError(f"{verb}: the loss is an axis; take one lane: jf.lane(grid, ...)")
    if isinstance(loss, Loss) and takes_key(loss):
        raise TypeError(f"{verb}: {loss} is random, so that its minimum is not a point; fit the loss without noise")
    model = noise_model_of(loss)
    if model.why_unknown:
        raise TypeError(f"{verb}: {model.why_unknown}")
    if model.kind is None:
        name = name_of(loss) if hasattr(loss, "__name__") or hasattr(loss, "func") else loss  # a lane's is wrapped
        raise TypeError(
            f"{verb} needs to know the noise behind the loss, which {name} does not tell; write the residuals as a "
            f"function and fit jf.losses.least_squares(residuals), or use jf.losses.rss, mse, huber, chi_squared, "
            f"poisson, binomial or likelihood"
        )
    return model


def is_absolute(verb: str, result: Any, loss: Any, asked: bool | None) -> bool:
    """Return whether the residuals are in units of their standard deviation.

    As asked; else as the fit was told (`curve_fit`); else whether the loss has a sigma (`chi_squared`).

    Raises:
      TypeError: If what was asked is not a boolean.
      ValueError: If it is asked for a loss whose residuals have no such unit.
    """
    model = noise_model_for(verb, loss)
    if asked is not None:
        if not isinstance(asked, (bool, np.bool_)):
            raise TypeError(f"{verb}: absolute_sigma is {asked!r}, but it must be True, False or None")
        if model.deviance:
            return bool(asked)
        if asked and model.kind != SQUARES:
            raise ValueError(
                f"{verb}: absolute_sigma is True, but {loss} has no sigma; leave it out, or fit jf.losses.chi_squared"
            )
        if asked and model.sigma is False:
            raise ValueError(
                f"{verb}: absolute_sigma is True, but there is no sigma in {loss}; fit jf.losses.chi_squared with "
                f"(x, y, sigma), or leave it out"
            )
        return bool(asked) or model.kind == LIKELIHOOD
    given = result.absolute_sigma if isinstance(result, Fit) else None
    if given is not None:
        return given
    return model.kind == LIKELIHOOD or bool(model.sigma)


def residual_count(loss: Any, data: tuple, residuals: Any) -> Any:
    """Return how many of the residuals (or of the rows, for a likelihood) count."""
    if is_masked(loss):
        where = data[loss.data_names.index("where")]
        return where.sum() * (residuals.size // where.size)
    return residuals.size - loss.hidden(*data) if isinstance(loss, Joint) else residuals.size


def counted_residuals(loss: Any, data: tuple) -> Any:
    """Return which residuals count, in y's shape; None if all do."""
    if not is_masked(loss):
        return None
    where, y = (data[loss.data_names.index(name)] for name in ("where", "y"))
    return jnp.broadcast_to(jnp.expand_dims(where, tuple(range(1, y.ndim))), y.shape)


class Estimate(NamedTuple):
    """Numbers f(params) and how they vary, for noise of one unit; all of one lane."""

    values: Array  # (K,)
    variance: Array  # (K,) / noise; NaN where not determined or held
    unit: Array | None  # (K, K) covariance / noise, likewise; None if it is not asked for
    scatter: Array  # () the noise that the residuals show: multiply `unit` by it
    size: Array  # () sum of squares of the residuals, the deviance, or twice the negative log-likelihood
    count: Array  # () residuals that count
    rank: Array  # () params that move and are determined
    offset: Array  # () distance to the minimum of the linear theory, in standard errors for noise of one unit
    held: Array  # (k,) bool: on a bound, or with a mean of counts at zero
    blind: Array | None  # (k, k) rows: directions of the free params that change no prediction, or NaN; None as `unit`
    span: Array  # () how large the numbers are that residuals are differences of: root mean square; 0 if not known
    loss: Array  # ()


class Basis(NamedTuple):
    """The directions of the free params."""

    scale: Array  # (k,) D
    root: Array  # (k, k) T: the covariance is T T^T
    silent: Array  # (k, k) rows: directions, times D, that change no prediction; zero for the others
    kept: Array  # (k,) bool: the others
    least: Array  # () of the kept directions the least change of the predictions, or pivot where none is small
    held: Array  # (k,) bool
    gradient: Array  # (k,) half of the gradient of the sum of squares
    scatter: Array  # ()
    size: Array  # ()
    count: Array  # ()
    span: Array  # ()

    @property
    def rank(self) -> Array:
        return self.kept.sum() - self.held.sum()


def objective_at(problem: Problem, params: PyTree) -> tuple[Objective, Array, Callable]:
    """Return the loss by the free params, these as (k,), and the way back to their tree."""
    objective = Objective(problem.loss, problem.data, {}, problem.params if is_marked(problem.params) else None)
    return objective, *jax.flatten_util.ravel_pytree(free(problem.params, params))


def held_at(problem: Problem, flat: Array) -> Array:
    """Return (k,) which free params lie on a bound."""
    limits = bounds(problem.params) if is_marked(problem.params) else None
    if limits is None:
        return namespace(flat).zeros(flat.shape, bool)
    low, high = (raveled(x) if on_host(flat) else jax.flatten_util.ravel_pytree(x)[0] for x in limits)
    return (flat <= low) | (flat >= high)


def basis_of(problem: Problem, params: PyTree, kind: str) -> Basis:
    objective, flat, back = objective_at(problem, params)
    held = held_at(problem, flat)
    if kind == LIKELIHOOD and not noise_model_of(problem.loss).deviance:
        return _basis_of_likelihood(problem, objective, flat, back, held)
    if kind == LIKELIHOOD:
        held |= _on_edge(objective, flat, back)
    if kind == SQUARES and (model := _system_of_lane(objective, flat, back)) is not None:
        return _basis_of_lane(problem, flat, held, *model)
    residuals, columns = jacobian(objective, flat, back)
    count = residual_count(problem.loss, problem.data, residuals)
    basis = basis_of_squares(flat, held, residuals, columns, count, squares_of_data(problem))
    if kind == ROBUST:
        k = basis.rank
        gradient, scatter = _huber(objective, flat, back, columns, count, k, count - k)
        basis = basis._replace(gradient=jnp.where(held, 0, gradient), scatter=scatter)
    return basis._replace(size=objective(back(flat))) if kind == LIKELIHOOD else basis


def basis_of_squares(flat: Array, held: Array, residuals: Array, columns: Array, count: Any, of_data: Any) -> Basis:
    """Return the directions for a sum of squares; `of_data` is that of y in the units of its residuals."""
    gradient, moving = columns @ residuals, namespace(flat).where(held[:, None], 0, columns)
    scale, vectors, lengths, kept = directions(moving, held)
    terms = ((columns * flat[:, None]) ** 2).sum() + of_data
    return _basis(scale, _sorted_out(vectors, lengths, kept), held, gradient, (residuals**2).sum(), count, terms)


def _sorted_out(vectors: Array, lengths: Array, kept: Array) -> tuple[Array, Array, Array, Array]:
    """Return D T, the silent directions, which are kept and the least length of these, from V^T and S."""
    xp = namespace(vectors)
    inverse = xp.where(kept, 1 / xp.where(kept, lengths, 1), 0)
    silent, least = xp.where(kept[:, None], 0, vectors), xp.where(kept, lengths, np.inf).min()
    return vectors.T * inverse[None, :], silent, kept, least


def _basis(scale: Array, found: tuple, held: Array, gradient: Array, size: Array, count: Any, terms: Any) -> Basis:
    """Return the basis of what `_sorted_out` returned; `terms`: sum of squares of what residuals are differences of."""
    xp, (root, silent, kept, least) = namespace(scale), found
    freedom = count - (kept.sum() - held.sum())
    scatter = pick(freedom > 0, lambda: size / pick(freedom > 0, freedom, 1), np.nan)
    span = xp.sqrt(terms / xp.maximum(count, 1))
    root = root * xp.where(held, 0, 1 / scale)[:, None]
    return Basis(scale, root, silent, kept, least, held, xp.where(held, 0, gradient), scatter, size, count, span)


def _basis_of_lane(problem: Problem, flat: Array, held: Array, system: System, residuals: Any) -> Basis:
    """Return the directions for a sum of squares from its quadratic model; of the residuals the shape is enough."""
    norms = system.scale
    triangle: Any = system.triangle
    terms = jnp.sum((norms * flat) ** 2) + squares_of_data(problem)
    scale = jnp.where((norms > 0) & ~held, norms, 1)
    if is_marked(problem.params) and bounds(problem.params) is not None:
        free: Any = reduced(triangle, ~held, system.shadow)[0]
        triangle = free + jnp.diag(held.astype(flat.dtype))
    count = residual_count(problem.loss, problem.data, residuals)
    found = directions_of_lane(triangle / scale[None, :])
    gradient = lanes_last(transposed_product, system.triangle, system.shadow)
    return _basis(scale, found, held, gradient, system.size, count, terms)


def _by_singular_vectors(triangle: Array) -> tuple[Array, Array, Array, Array]:
    """Return what `_sorted_out` does, of a triangle whose columns have the length one, or zero."""
    if is_unrolled(len(triangle)):
        lengths, vectors = singular(triangle)
    else:
        _, lengths, vectors = jnp.linalg.svd(triangle)
    return _sorted_out(vectors, lengths, lengths > 64 * len(triangle) * eps_of(triangle) * lengths[0])


directions_of_lane = jax.custom_batching.custom_vmap(_by_singular_vectors)


@directions_of_lane.def_vmap
def _(lanes, batched, triangles):
    """R^-1 is such a root too. Lanes where it would have too few digits, or is none, take the singular vectors."""
    k = triangles.shape[-1]
    eye, least = jnp.eye(k, dtype=triangles.dtype), abs(jnp.diagonal(triangles, axis1=1, axis2=2)).min(axis=1)
    poor = ~(least > float(eps_of(triangles)) ** 0.25)
    last = jnp.moveaxis(triangles, 0, -1)
    root = jnp.moveaxis(in_full_width(lambda last: solve(last, eye[:, :, None]), lanes, (last,)), -1, 0)
    plain = root, jnp.zeros_like(root), jnp.ones((lanes, k), bool), least
    found = where_poor(poor, _by_singular_vectors, (triangles,), (True,), plain)
    return found, (True, True, True, True)


def _system_of_lane(objective: Objective, flat: Array, back: Callable) -> tuple[System, Any] | None:
    """Return the quadratic model of a sum of squares, and the shape of the residuals.

    None if lanes do not take one pass over the points for it.
    """
    if lanes_side_by_side() is None or flat.size > TOGETHER:
        return None
    place = place_of(objective, back)
    try:
        like = jax.eval_shape(place.slopes, flat)
    except Exception as error:
        if not undifferentiable(error):
            raise
        return None
    plain = like.squares is not None and not isinstance(like.columns, Columns)
    return (system_at(place.slopes, flat), like.residuals) if plain else None


EDGE = 1e-6  # of a count: a variance below it is that of a mean that went to zero


def _on_edge(objective: Objective, flat: Array, back: Callable) -> Array:
    """Return (k,) which params are known only by means that vanish where nothing was counted: the edge of their range.

    No step leads beyond, the slope of the loss is not zero there, and the information, 1 / mean, has no bound.
    """
    _, columns = _jacobian(objective, flat, back)
    precision = jnp.concatenate([jnp.ravel(block.precision) for block in objective.blocks(back(flat))])
    on_edge = columns**2 * precision[None, :]
    vanished = jnp.sum(jnp.where(precision[None, :] > 1 / EDGE, on_edge, 0), axis=1)
    return vanished > (1 - EDGE) * jnp.sum(on_edge, axis=1)


def squares_of_data(problem: Problem) -> Array | float:
    """Return the sum of squares of y in the units of its residuals; 0 for a loss without y."""
    loss: Any = problem.loss
    if not noise_model_of(loss).predicts:
        return 0.0
    y = problem.data[loss.data_names.index("y")]
    return jnp.sum(of_predictions(loss).residuals(jnp.zeros(y.shape, float), *problem.data) ** 2)


def of_predictions(loss: Any) -> Any:
    """Return the same loss of predictions in place of params."""
    return dataclasses.replace(loss, predict=_given)


def _given(params: Any, x: Any) -> Any:
    return params


def jacobian(objective: Objective, flat: Array, back: Callable) -> tuple[Array, Array]:
    """Return residuals (n,) and columns (k, n) of the Jacobian, in standard deviations if a block has a variance."""
    residuals_there, columns = _jacobian(objective, flat, back)
    blocks = objective.blocks(back(flat))
    if all(block.variance is None for block in blocks):
        return residuals_there, columns
    root = jnp.sqrt(jnp.concatenate([jnp.ravel(block.precision) for block in blocks]))
    return root * residuals_there, root[None, :] * columns


def _jacobian(objective: Objective, flat: Array, back: Callable) -> tuple[Array, Array]:

    def residuals(flat):
        return jnp.concatenate([jnp.ravel(block.residuals) for block in objective.blocks(back(flat))])

    try:
        residuals_there, push = jax.linearize(residuals, flat)
        return residuals_there, jax.vmap(push)(jnp.eye(flat.size, dtype=flat.dtype))
    except Exception as error:
        if not undifferentiable(error):
            raise
        residuals_there, pull = jax.vjp(residuals, flat)  # a rule of jax.custom_vjp: one row after the other
        row = lambda i: pull(jnp.zeros_like(residuals_there).at[i].set(1.0))[0]  # noqa: E731
        return residuals_there, jax.lax.map(row, jnp.arange(residuals_there.size)).T


def directions(columns: Array, held: Array) -> tuple[Array, Array, Array, Array]:
    """Return D, V^T, S and which of S exceed rounding; what is held is a direction of its own, of length one."""
    xp = namespace(columns)
    norms = xp.sqrt((columns**2).sum(axis=1))
    scale = xp.where(norms > 0, norms, 1)
    rows = xp.concatenate([(columns / scale[:, None]).T, xp.diag(held.astype(columns.dtype))])
    if on_host(columns) or not is_unrolled(held.size):
        _, lengths, vectors = xp.linalg.svd(rows, full_matrices=False)
    else:
        lengths, vectors = singular(triangularize(rows.T, jnp.zeros(len(rows), columns.dtype))[0])
    return scale, vectors, lengths, lengths > 64 * held.size * eps_of(columns) * lengths[0]


def _huber(
    objective: Objective, flat: Array, back: Callable, columns: Array, count: Any, k: Any, freedom: Any
) -> tuple[Array, Array]:
    """Return the gradient in units of the curvature, and the noise, of a robust loss of equally distributed residuals.

    noise = K**2 * sum(psi**2) / (n - k) / mean(psi')**2 with K = 1 + k / n * var(psi') / mean(psi')**2: the asymptotic
    covariance is that of least squares with it. Source: Huber (1981), Robust Statistics, equation 7.6.10.
    """
    (block,) = objective.blocks(back(flat))
    rho: Any = block.rho
    r = jnp.ravel(block.residuals)
    slope = lambda r: jax.jvp(rho, (r,), (jnp.ones_like(r),))[1]  # noqa: E731
    first, second = jax.jvp(slope, (r,), (jnp.ones_like(r),))
    masked = r.size - count  # where residuals are zero and the curvature is one
    mean = (jnp.sum(second) - masked) / count
    spread = (jnp.sum(second**2) - masked) / count - mean**2
    factor = 1 + k / count * spread / mean**2
    return columns @ first / mean, factor**2 * jnp.sum(first**2) / freedom / mean**2


def _basis_of_likelihood(problem: Problem, objective: Objective, flat: Array, back: Callable, held: Array) -> Basis:
    """Return the same of a negative log-likelihood: a sum, or the mean over rows times their number."""
    loss: Any = problem.loss
    if noise_model_of(loss).additive:
        terms = loss.terms if isinstance(loss, Sum) else (loss,)
        count, times = sum(term.pointwise(objective.complete(back(flat)), *problem.data).size for term in terms), 1
    else:
        y = problem.data[loss.data_names.index("y")]
        count = times = residual_count(loss, problem.data, jnp.zeros(y.shape[:1]))

    def total(flat):
        return times * objective(back(flat))

    gradient, product = gradient_and_product(total, flat)
    information = jax.vmap(product)(jnp.eye(flat.size, dtype=flat.dtype))
    free = ~held
    information = jnp.where(free[:, None] & free[None, :], information, 0)
    diagonal = jnp.diagonal(information)
    scale = jnp.where(diagonal > 0, jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
    scaled = information / scale[:, None] / scale[None, :] + jnp.diag(held.astype(flat.dtype))
    values, vectors = jnp.linalg.eigh(scaled)
    kept = values > 64 * flat.size * jnp.finfo(flat.dtype).eps * values[-1]
    lengths = jnp.sqrt(jnp.where(kept, values, 0))
    found, one = _sorted_out(vectors.T, lengths, kept), jnp.ones_like(gradient[0])
    basis = _basis(scale, found, held, gradient, 2 * total(flat), one * count, 0 * one)
    return basis._replace(scatter=one)


def estimate(
    problem: Problem, params: PyTree, kind: str, function: Callable | None, only_params: bool, covaries: bool,
    *extra: Any,
) -> Estimate:  # fmt: skip
    """Return how f(params, *extra), as one vector, varies.

    Args:
      problem: Of one lane.
      params: The user's tree, at the minimum.
      kind: Of the loss.
      function: From the user's tree to numbers; None for all of the params.
      only_params: Whether a number that does not vary at all is unknown (a param that is fixed) or exact.
      covaries: Whether the covariance is asked for, not the variances alone.
      *extra: For the function.
    """
    basis = basis_of(problem, params, kind)
    objective, flat, back = objective_at(problem, params)
    values, slopes = varied(problem, back, flat, function, extra)
    return propagated(basis, values, slopes, only_params, objective(back(flat)), covaries)


def varied(problem: Problem, back: Callable, flat: Array, function: Callable | None, extra: tuple) -> tuple:
    """Return the numbers f(params, *extra), (K,), and their derivatives by the free params, (K, k)."""
    objective = Objective(problem.loss, problem.data, {}, problem.params if is_marked(problem.params) else None)

    def numbers(flat):
        tree = objective.complete(back(flat))
        found = without_kept(tree, problem.params) if function is None else function(tree, *extra)
        return jax.flatten_util.ravel_pytree(found)[0]

    values, push = jax.linearize(numbers, flat)
    return values, jax.vmap(push)(jnp.eye(flat.size, dtype=flat.dtype)).T


def propagated(
    basis: Basis, values: Array, slopes: Array, only_params: bool, loss: Array, covaries: bool = True
) -> Estimate:
    """Return how numbers vary, of which the derivatives by the free params are known."""
    beside = not on_host(slopes) and lanes_side_by_side() is not None
    together = beside and basis.scale.size <= TOGETHER and slopes.size <= TOGETHER**2

    def spread(scale, root, silent, kept, least, held, gradient, slopes):
        xp = namespace(slopes)
        half = times(slopes, root)
        unknown = undetermined(scale, silent, least, held, slopes)
        variance = xp.where(unknown, np.nan, (half * half).sum(axis=1))
        offset = xp.sqrt((times(gradient[None], root) ** 2).sum(axis=1)[0])
        if not covaries:
            return variance, None, None, offset
        unit = xp.where(unknown[:, None] | unknown[None, :], np.nan, times(half, half.swapaxes(0, 1)))
        return variance, unit, xp.where(kept[:, None], np.nan, silent / scale[None, :]), offset

    def times(a, b):  # of lanes side by side without a call for each of them
        return (a[:, :, None] * b[None]).sum(axis=1) if together else a @ b

    def undetermined(scale, silent, least, held, slopes):
        """Return (K,) where a number depends on a direction that changes no prediction, or on held params alone."""
        xp, eps = namespace(slopes), eps_of(slopes)
        scaled = slopes / scale[None]
        moving = xp.where(held[None], 0, scaled)
        size = xp.sqrt((moving**2).sum(axis=1))
        lost = xp.sqrt((times(moving, silent.swapaxes(0, 1)) ** 2).sum(axis=1))
        blur = xp.sqrt(eps) + 100 * eps / least
        still = size == 0 if only_params else (size == 0) & (scaled != 0).any(axis=1)
        return (lost > blur * size) | still

    given = basis.scale, basis.root, basis.silent, basis.kept, basis.least, basis.held, basis.gradient, slopes
    variance, unit, blind, offset = lanes_last(spread, *given) if together else spread(*given)
    return Estimate(values, variance, unit, basis.scatter, basis.size, basis.count, basis.rank, offset, basis.held,
                    blind, basis.span, loss)  # fmt: skip


def squares_around_constant(problem: Problem) -> Array:
    """Return the sum of squares around the best constant."""
    return around_constant(*of_constants(problem))


def of_constants(problem: Problem) -> tuple[Array, Array]:
    """Return the residuals (n,) where all predictions are 0, and what is added to them where all are 1."""
    loss = of_predictions(problem.loss)
    y = problem.data[problem.loss.data_names.index("y")]
    zero = jnp.zeros(y.shape, float)
    origin = jnp.ravel(loss.residuals(zero, *problem.data))
    return origin, jnp.ravel(loss.residuals(zero + 1, *problem.data)) - origin


def around_constant(origin: Array, unit: Array) -> Array:
    """Return the least sum of squares of origin + c * unit."""
    return ((origin - unit * ((unit * origin).sum() / (unit**2).sum())) ** 2).sum()


class Placed(NamedTuple):
    """Where the residuals of a loss of predictions stand; None for what is not known."""

    x: Array | None = None  # (n, d) one row a residual
    where: Array | None = None  # (n,) bool: which count
    steepness: Array | None = None  # (n,) by how much a residual grows with its prediction: 1 / sigma


def placed(problem: Problem) -> Placed:
    """Return where the residuals stand, for a loss that predicts y."""
    loss: Any = problem.loss
    given = dict(zip(loss.data_names, problem.data, strict=True))
    x, y, where = given["x"], given["y"], counted_residuals(loss, problem.data)
    where = None if where is None else jnp.ravel(where)
    mixed = jnp.shape(given.get("sigma", y)) != y.shape  # by a covariance of the data
    if y.ndim != 1 or mixed or not 1 <= x.ndim <= 2:
        return Placed(None, where, None)
    x = jnp.reshape(x, (y.size, -1)).astype(float)
    if "x_sigma" in given or noise_model_of(loss).kind != SQUARES:
        return Placed(x, where, None)
    one = jnp.ones(y.shape, float)
    beside = (given | {"y": 0 * one}).values()  # no y, whose rounding would hide a one
    return Placed(x, where, of_predictions(loss).residuals(one, *beside))
