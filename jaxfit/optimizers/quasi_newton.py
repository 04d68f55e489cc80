"""L-BFGS, for any smooth loss, with a line search of Optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax
from jax import Array

from jaxfit.optimizers.methods import Objective, Proposal, Traits, between, inward
from jaxfit.typing import PyTree

PROBED = 64


class Memory(NamedTuple):
    """The state of a run."""

    curvature: Any  # of Optax: differences of params and gradients
    search: Any  # of the line search of Optax
    units: PyTree  # like params: the size of each leaf at the start
    start: Array  # () loss there
    loss: Array  # ()
    grads: PyTree
    settled: Array  # () whether the params are at a minimum


class LBFGS(NamedTuple):
    """L-BFGS as a method, on params divided by their units; `jf.optimizers.lbfgs` makes one."""

    precondition: optax.GradientTransformation
    search: optax.GradientTransformationExtraArgs
    pairs: int  # number of past steps that are kept

    def init(self, objective: Objective, params: PyTree) -> Memory:
        loss, grads = jax.value_and_grad(objective)(params)
        units = jax.tree.map(size_of, params)
        scaled = jax.tree.map(jnp.divide, params, units)
        settled = judge(objective, params, grads, units, loss, loss, jnp.asarray(False), jnp.asarray(False))
        return Memory(self.precondition.init(scaled), self.search.init(scaled), units, loss, loss, grads, settled)

    def step(self, objective: Objective, params: PyTree, memory: Memory) -> Proposal:
        limits, units, loss, verdict = objective.bounds, memory.units, memory.loss, memory.settled
        grads = memory.grads if limits is None else inward(memory.grads, params, *limits)
        slope = jax.tree.map(jnp.multiply, grads, units)
        here = jax.tree.map(jnp.divide, params, units)

        def inside(scaled):
            there = jax.tree.map(jnp.multiply, scaled, units)
            return there if limits is None else between(there, *limits)

        def value(scaled):
            found = objective(inside(scaled))
            return jnp.where(jnp.isnan(found), jnp.inf, found)

        direction, curvature = self.precondition.update(slope, memory.curvature, here)
        direction = jax.tree.map(lambda d, g: jnp.where(g == 0, 0, -d), direction, slope)
        updates, search = self.search.update(direction, memory.search, here, value=loss, grad=slope, value_fn=value)
        there = inside(jax.tree.map(jnp.add, here, updates))
        if limits is None:
            reached, found = search.value, jax.tree.map(jnp.divide, search.grad, units)
        else:  # a gradient through a bound is zero beyond it
            reached, found = jax.value_and_grad(objective)(there)
        ends = [jnp.all(jnp.isfinite(x)) for x in (reached, *jax.tree.leaves(found))]
        better = jnp.stack(ends).all() & (reached <= loss)

        def pick(new, old):
            return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)

        fresh = self.precondition.init(here), self.search.init(here)
        memory = Memory(
            pick(curvature, fresh[0]),
            pick(search, fresh[1]),
            units,
            memory.start,
            pick(reached, loss),
            pick(found, memory.grads),
            memory.settled,
        )
        promised = -sum(jnp.sum(d * g) for d, g in zip(jax.tree.leaves(direction), jax.tree.leaves(slope), strict=True))
        least = jnp.finfo(loss.dtype).eps ** 0.75 * jnp.abs(loss)
        learned = curvature.count > min(sum(x.size for x in jax.tree.leaves(params)), self.pairs)
        idle = loss - memory.loss <= least
        stalled = learned & (promised <= least) & idle
        there = pick(there, params)
        settled = judge(objective, there, memory.grads, units, memory.loss, memory.start, stalled, idle)
        return Proposal(loss, grads, there, memory._replace(settled=settled), verdict)


def size_of(leaf: Array) -> Array:
    """Return the root mean square of a leaf's entries, or 1 if they are zero."""
    size = jnp.sqrt(jnp.mean(leaf * leaf))
    return jnp.broadcast_to(jnp.where(size > 0, size, 1), leaf.shape)


def judge(
    objective: Objective, params: PyTree, grads: PyTree, units: PyTree, loss: Array, start: Array, stalled: Array,
    idle: Array,
) -> Array:  # fmt: skip
    """Return whether the params are at a minimum, as far as the precision can tell. One of these must hold:

    - no param, moved by its own size, would change the loss by more than eps**0.6 of itself, to first order; that is
      eps**0.25 where the search has `stalled`: the step that the learned curvature proposes promises next to nothing;
    - the loss has fallen to zero as far as its start lets one see, and the start's rounding hides the slope;
    - the last step was `idle`, it did not lower the loss, and Newton's step would not either: what it promises,
      g H^-1 g / 2 with the Hessian H positive definite, is lost in the `rounding` of the loss.

    A plateau is flat too, so each of up to `PROBED` params, moved by a hundredth, must change some gradient. With more
    params neither this nor the Hessian is computed.
    """
    eps, limits = jnp.finfo(loss.dtype).eps, objective.bounds

    def steepest(grads, params):
        reach = jax.tree.map(lambda g, p, u: jnp.max(jnp.abs(g) * jnp.maximum(jnp.abs(p), u)), grads, params, units)
        return jnp.max(jnp.stack(jax.tree.leaves(reach)))

    slope = grads if limits is None else inward(grads, params, *limits)
    here = steepest(slope, params)
    flat = here <= jnp.where(stalled, eps**0.25, eps**0.6) * jnp.abs(loss)
    flat |= (jnp.abs(loss) <= eps**1.5 * jnp.abs(start)) & (here <= eps * jnp.abs(start))
    point, back = jax.flatten_util.ravel_pytree(params)
    if point.size > PROBED:
        return flat
    unit = jnp.maximum(jnp.abs(point), jax.flatten_util.ravel_pytree(units)[0])
    flat_slope = jax.flatten_util.ravel_pytree(slope)[0]
    held = at_bound = jnp.zeros(point.size, bool)
    if limits is not None:
        low, high = (jax.flatten_util.ravel_pytree(x)[0] for x in limits)
        at_bound = (point <= low) | (point >= high)
        held = at_bound & (flat_slope == 0)

    def gradient(point):
        return jax.flatten_util.ravel_pytree(jax.grad(objective)(back(point)))[0]

    columns = hessian_columns(gradient, point)

    def probe(carry):
        i, fine, newton = carry
        there = back(point + jnp.where(jnp.arange(point.size) == i, 0.01 * unit, 0))
        found = jax.grad(objective)(there)
        felt = steepest(jax.tree.map(jnp.subtract, found, grads), params) > 2 * eps**0.6 * jnp.abs(loss)
        fine &= felt | at_bound[i]
        if columns is not None:
            newton = eliminate(newton, i, columns(i), flat_slope, point, held)
        return i + 1, fine & (flat | newton.definite), newton

    newton = Newton.begin(point)
    _, fine, newton = jax.lax.while_loop(
        lambda carry: carry[1] & (carry[0] < point.size),
        probe,
        (jnp.int32(0), flat | (idle & (columns is not None)), newton),
    )
    return fine & (flat | newton.definite & (newton.promised <= rounding(loss, newton.size)))


def rounding(loss: Array, size: Array) -> Array:
    """Return by how much the rounding of params and residuals changes a loss, where size is p |H| p / 2.

    The residuals of a loss sum(r**2) are rounded by d with |d|**2 <= eps**2 * size, which changes it by
    eps * loss + 2 |r| |d| + |d|**2; a factor of 16 is the margin.
    """
    eps, level = jnp.finfo(loss.dtype).eps, jnp.abs(loss)
    return 16 * eps * (level + 2 * jnp.sqrt(level) * jnp.sqrt(size) + eps * size)


class Newton(NamedTuple):
    """A factorization of the Hessian, scaled to a diagonal of ones, of which the first rows are known."""

    factor: Array  # (k, k) lower triangle L with L L^T = H; the identity in rows that are not yet known
    root: Array  # (k,) of the diagonal
    solved: Array  # (k,) L^-1 g
    size: Array  # () p |H| p / 2 of the columns so far
    definite: Array  # () whether all pivots so far are positive beyond their rounding

    @staticmethod
    def begin(point: Array) -> Newton:
        zero = jnp.zeros_like(point)
        return Newton(jnp.eye(point.size, dtype=point.dtype), zero + 1, zero, zero.sum(), jnp.asarray(True))

    @property
    def promised(self) -> Array:
        """The decrease of the loss that Newton's step promises."""
        return jnp.sum(self.solved**2) / 2


def eliminate(newton: Newton, i: Array, column: Array, slope: Array, point: Array, held: Array) -> Newton:
    """Add a row to the factorization; params that are `held` have none."""
    k, eps = point.size, jnp.finfo(point.dtype).eps
    index = jnp.arange(k)
    column = jnp.where(held | held[i], 0, column)
    size = newton.size + jnp.sum(jnp.abs(column) * jnp.abs(point)) * jnp.abs(point[i]) / 2
    diagonal = column[i]
    root = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    scaled = jnp.where(index < i, column / newton.root / root, 0)
    row = jax.scipy.linalg.solve_triangular(newton.factor, scaled, lower=True)
    pivot = jnp.where(held[i], 1, 1 - jnp.sum(row * row))
    definite = (pivot > 8 * k * eps) & (held[i] | (diagonal > 0)) & jnp.isfinite(pivot)
    last = jnp.sqrt(jnp.where(definite, pivot, 1))
    solved = jnp.where(held[i], 0, (slope[i] / root - jnp.sum(row * newton.solved)) / last)
    return Newton(
        newton.factor.at[i].set(jnp.where(index < i, row, jnp.where(index == i, last, 0))),
        newton.root.at[i].set(root),
        newton.solved.at[i].set(solved),
        size,
        newton.definite & definite,
    )


def hessian_columns(gradient: Callable, point: Array) -> Callable | None:
    """Return a function from i to column i of the Hessian; None if the gradient has no derivative."""

    def column(i):
        return jax.vjp(gradient, point)[1](jnp.where(jnp.arange(point.size) == i, 1, 0).astype(point.dtype))[0]

    try:
        jax.eval_shape(column, jnp.int32(0))
    except Exception:  # noqa: BLE001 (a derivative of a user's own may have no second one)
        return None
    return column


def lbfgs(memory: int = 10) -> LBFGS:
    return LBFGS(
        optax.scale_by_lbfgs(memory_size=memory),
        optax.scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one"),
        memory,
    )


lbfgs.traits = Traits(judges=True, deterministic=True, chunk=32)
