"""Levenberg-Marquardt: damped Gauss-Newton steps for losses that know their residuals.

At each point the residuals r and their exact Jacobian J are reduced to a triangle, J = Q R and c = Q^T r, and nothing
else is kept: no step evaluates the model twice at the same params. ||c|| is the part of r that an undamped step would
remove, whatever the units of params and data; convergence is judged by it.

A column that depends on earlier columns, within rounding, gets a row of zeros in R, and no step goes along it. At a
minimum along all other columns, a short step is tried along each such direction. If the loss rises because the
residuals are curved, the params are determined all the same (J is always singular at a minimum above zero of as many
residuals as params). If it does not change, the data do not determine them. If it falls, the run continues there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
from jax import Array

from jaxfit.losses import Block
from jaxfit.optimizers.methods import Objective, Proposal, Traits
from jaxfit.typing import PyTree

UNROLLED = 6  # params up to which a triangle is made in place: many lanes then share each operation
FLOOR = 1e-3  # of a robust loss' curvature, against that of the square with the same slope


class System(NamedTuple):
    """The quadratic model of a loss at a point: loss(p + d) ~ loss + weight * (||c + R d||**2 - ||c||**2)."""

    loss: Array  # ()
    weight: Array  # ()
    size: Array  # () sum of squares of the residuals, each with its measure
    scale: Array  # (k,) norms of the columns of J
    triangle: Array  # (k, k) R
    shadow: Array  # (k,) c = Q^T r


class Memory(NamedTuple):
    """The state of a run: the model at its params, and the control of its steps."""

    system: System
    scale: Array  # (k,) largest norms of the columns of J so far: the units of a step
    sizes: Array  # (k,) absolute values of the params at the start
    damping: Array  # ()
    growth: Array  # () what a refused step multiplies the damping by
    before: Array  # () ||c||**2 / size at the point before
    left: Array  # () ||c||**2 at the point before
    ceiling: Array  # () the least loss so far, plus its rounding
    settled: Array  # () whether the last step found the minimum along the direction that R does not show
    probed: Array  # () number of directions that R does not show and that were tried at these params
    bent: Array  # () whether the loss rises along all of them


class LevenbergMarquardt(NamedTuple):
    """Levenberg-Marquardt as a method; `jf.optimizers.levenberg_marquardt` makes one."""

    damping: Any  # () at the start
    tolerance: Any = None  # () fraction of the sum of squares that a step may still remove; None: down to rounding

    def init(self, objective: Objective, params: PyTree) -> Memory:
        flat, back = jax.flatten_util.ravel_pytree(params)
        system = linearize(objective, back, flat)
        one, sizes = jnp.ones_like(system.loss), jnp.abs(flat)
        scale = jnp.where(system.scale > 0, system.scale, elsewhere(objective, back, flat, system.scale == 0))
        far = jnp.inf * one
        return Memory(system, scale, sizes, self.damping * one, 2 * one, far, far, far, one < 0, 0 * one, one > 0)

    def step(self, objective: Objective, params: PyTree, memory: Memory) -> Proposal:
        flat, back = jax.flatten_util.ravel_pytree(params)
        here, eps = memory.system, jnp.finfo(flat.dtype).eps
        limits, free, triangle, shadow = objective.bounds, None, here.triangle, here.shadow
        slope = shadow @ triangle
        if limits is not None:
            low, high = (jax.flatten_util.ravel_pytree(x)[0] for x in limits)
            inert = memory.scale == 0  # without influence on its bound: the bound determines it
            free = ~(((flat <= low) & ((slope > 0) | inert)) | ((flat >= high) & ((slope < 0) | inert)))
            slope = jnp.where(free, slope, 0)
            triangle, shadow = reduced((triangle * free[None, :]).T, shadow, 8 * flat.size * float(eps))
        ends, least, offset, left = judge(flat, memory, triangle, shadow, free, self.tolerance)
        silent = jnp.diagonal(triangle) == 0 if free is None else (jnp.diagonal(triangle) == 0) & free
        tried = memory.probed >= jnp.sum(silent)
        ends, open_ended = ends | (least & tried & memory.bent), least & ~memory.bent
        probing = least & memory.bent & ~tried

        units = jnp.where(memory.scale > 0, memory.scale, 1)
        damping = jnp.where(offset <= 16 * eps, 0, memory.damping)  # what is left is a straight line
        move = solve(*damped(triangle / units[None, :], shadow, damping)) / units
        move = jnp.where(probing, unseen(flat, memory, triangle, silent), move)
        there = flat - move if limits is None else jnp.clip(flat - move, low, high)
        change = triangle @ (there - flat)
        gain = -jnp.sum(change * (2 * shadow + change)) * here.weight
        system = linearize(objective, back, there)

        step, ahead = there - flat, system.shadow @ system.triangle
        actual = here.loss - system.loss
        reach = jnp.sqrt(jnp.sum((here.scale * flat) ** 2))
        blur = 16 * eps * here.weight * jnp.sqrt(here.size) * (jnp.sqrt(here.size) + reach)
        unresolved = (gain <= blur) & (jnp.abs(actual) <= blur) & (system.loss <= memory.ceiling)
        means = -jnp.sum((slope + ahead) * step)  # by the slopes at both ends, which rounding spares for longer
        hidden = 16 * eps * jnp.sqrt(here.size * jnp.sum((here.scale * step) ** 2))
        blind = jnp.abs(means) <= hidden
        actual = jnp.where(unresolved, jnp.where(blind, gain, means * here.weight), actual)
        ratio = jnp.where(gain > 0, actual / jnp.where(gain > 0, gain, 1), 1.0 * unresolved)
        accepted = (ratio > 1e-3) & (gain >= 0) & is_finite(system)
        accepted = jnp.where(probing, (system.loss < here.loss - blur) & is_finite(system), accepted)
        if limits is not None:
            accepted &= ~jnp.any(stranded(flat, there, low, high, memory, system))
        shrink = jnp.maximum(1 / 5, 1 - (2 * ratio - 1) ** 3)
        most = 1 / eps**2
        after = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), system, here)
        bend = jnp.sum(step * (ahead - slope))
        straight = jnp.maximum(jnp.sum(change**2), jnp.sum((system.triangle @ step) ** 2))
        unsure = hidden + 16 * eps * reach * jnp.sqrt(straight)  # by the rounding of J, and of the residuals
        bent = bend > jnp.maximum(2 * straight, unsure)
        rest = jnp.sum(step * jnp.where(accepted, ahead, slope)) ** 2 / jnp.where(bend > 0, bend, 1)
        settled = bent & ~probing & bottomed(memory, flat, step, rest, blur / here.weight, after)
        memory = Memory(
            after,
            jnp.where(accepted, jnp.maximum(memory.scale, system.scale), memory.scale),
            memory.sizes,
            jnp.where(accepted, memory.damping * shrink, jnp.clip(memory.damping * memory.growth, eps, most)),
            jnp.where(accepted, 2, jnp.minimum(2 * memory.growth, most)).astype(flat.dtype),
            offset,
            left,
            jnp.minimum(memory.ceiling, here.loss + blur),
            jnp.where(accepted, settled, memory.settled | settled),
            jnp.where(accepted, 0, memory.probed + probing),
            accepted | jnp.where(probing, bent, memory.bent),
        )
        there = jnp.where(accepted, there, flat)
        return Proposal(here.loss, back(2 * here.weight * slope), back(there), memory, ends, open_ended)


def levenberg_marquardt(damping: Any = 1e-3, tolerance: Any = None) -> LevenbergMarquardt:
    return LevenbergMarquardt(damping, tolerance)


levenberg_marquardt.traits = Traits(judges=True, residuals=True, deterministic=True, precision="float64", chunk=8)


def judge(
    flat: Array, memory: Memory, triangle: Array, shadow: Array, free: Array | None, tolerance: Any = None
) -> tuple[Array, Array, Array, Array]:
    """Return whether the point is a minimum, and whether the data determine it, as far as the precision and R tell.

    An undamped step would remove ||c||**2 from the sum of squares. It is not worth a step if
    - it is lost in the rounding of the sum, and the last step did not make it much smaller, or the params are where
      they will stay: within eps**(2/3) of their standard errors and eps**0.7 of their size, or eps**(5/6) of the
      former; or
    - it moves the predictions by less than their rounding, and the params by less than sqrt(eps) of themselves; or
    - it moves the params by less than eps**0.75 of their size, and ||c||**2 shrinks no faster than 64-fold a step; or
    - it is at most the tolerance of the sum, if there is one.
    If R has rows of zeros, these rules see the other directions only; unless the run has settled in the rest too. There
    it is also enough that all residuals are at rounding. No claim is made where a param has lost its influence, or no
    param has any, unless all residuals are at rounding.

    Returns:
      Whether it is a minimum that is determined, whether it is one but for directions that R does not show,
      ||c||**2 / size, and ||c||**2.
    """
    here, eps = memory.system, jnp.finfo(flat.dtype).eps
    left = jnp.sum(shadow**2)
    offset = left / jnp.where(here.size > 0, here.size, 1)
    pivots, norms = jnp.diagonal(triangle), jnp.sqrt(jnp.sum(triangle**2, axis=0))
    held = jnp.zeros(flat.shape, bool) if free is None else ~free
    determined = jnp.all((pivots != 0) | held)
    alive = jnp.all((norms > eps**2 * memory.scale) | (memory.scale == 0) | held)
    alive &= jnp.any(pivots != 0) | jnp.all(held)
    reach = jnp.sqrt(jnp.sum((norms * flat) ** 2))
    exact = jnp.sqrt(here.size) <= 8 * eps * reach
    alive |= exact
    step = solve(triangle, shadow)
    move = jnp.sqrt(jnp.sum((norms * step) ** 2))
    near = (offset <= eps ** (5 / 3)) | (offset <= eps ** (4 / 3)) & slight(memory, flat, step, eps**0.7)
    lost = (offset <= 16 * eps) & ((offset > memory.before / 2) | near)
    below = (jnp.sqrt(left) <= 8 * eps * reach) & (move <= jnp.sqrt(eps) * reach)
    enough = (left == 0) if tolerance is None else (offset <= tolerance)
    least = lost | below | enough | (exact & ~determined)
    tiny = determined & slight(memory, flat, step, eps**0.75) & (left > memory.left / 64)
    return alive & (determined & least | tiny | memory.settled), alive & ~determined & least, offset, left


def bottomed(memory: Memory, flat: Array, step: Array, rest: Array, blur: Array, after: System) -> Array:
    """Return whether a run is at the minimum along a direction in which the residuals are curved and R nearly singular.

    This happens at a minimum above zero of as many residuals as params. The slopes at both ends of a step, accepted or
    rejected, give the curvature along it, of which J^T J shows nearly nothing. The run is at the minimum if
    - what is left of this parabola, and what an undamped step would remove along all directions but the weakest, are
      lost in rounding; and
    - the step itself was below sqrt(eps) of the params' size.

    Args:
      rest: () what is left of the parabola along the step.
      blur: () the rounding of the sum of squares.
      after: At the params where the run is after the step.
    """
    eps = jnp.finfo(flat.dtype).eps
    pivots = jnp.abs(jnp.diagonal(after.triangle)) / jnp.where(memory.scale > 0, memory.scale, 1)
    others = jnp.where(pivots > jnp.min(pivots), after.shadow, 0)
    at_rest = rest + jnp.sum(others**2) <= blur
    return at_rest & slight(memory, flat, step, eps**0.5) & (jnp.sum(pivots == 0) <= 1)


def unseen(flat: Array, memory: Memory, triangle: Array, silent: Array) -> Array:
    """Return a short step along which R is zero, for the next param without a pivot: a small part of its size."""
    part = jnp.finfo(flat.dtype).eps ** 0.375  # so that slopes show a curvature, and rounding hides higher powers
    own = jnp.maximum(memory.sizes, jnp.abs(flat))
    earlier = jnp.tri(flat.size, k=-1, dtype=flat.dtype) @ silent
    chosen = silent & (earlier == memory.probed)
    along = jnp.where(chosen, part * jnp.where(own > 0, own, 1), 0)
    return along - solve(triangle, triangle @ along)


def slight(memory: Memory, flat: Array, step: Array, part: Any) -> Array:
    """Return whether a step moves each param by less than a part of its size; for a start at 0, of the predictions."""
    own = jnp.maximum(memory.sizes, jnp.abs(flat))
    least = jnp.sqrt(jnp.sum((memory.scale * own) ** 2))
    unsized = (memory.sizes == 0) & (memory.scale * jnp.abs(step) <= part * least)
    return jnp.all((jnp.abs(step) <= part * own) | unsized)


def stranded(flat: Array, there: Array, low: Array, high: Array, memory: Memory, system: System) -> Array:
    """Return which params a long step would put on a bound where they have no influence, and so would stay there."""
    on = ((there <= low) & (flat > low)) | ((there >= high) & (flat < high))
    far = jnp.abs(there - flat) > 0.01 * jnp.maximum(memory.sizes, jnp.abs(flat))
    return on & far & (system.scale <= jnp.finfo(flat.dtype).eps * memory.scale)


def elsewhere(objective: Objective, back: Callable, flat: Array, silent: Array) -> Array:
    """Estimate the norms of the columns of params without influence here, from other values; zero if they have none.

    All of them are set to 0 (or to 1 if they are 0), then all to 1 (or to 0): the width and position of a peak far from
    the data have no influence where its height is 0. Residuals that change, or are not finite, show that the point lies
    on a plateau; otherwise the loss does not depend on the param.
    """

    def residuals(flat):
        return jnp.concatenate([jnp.ravel(b.residuals) for b in objective.blocks(back(flat))])

    def norms(value):
        there = jnp.where(silent, jnp.where(flat == value, 1 - value, value), flat).astype(flat.dtype)
        if objective.bounds is not None:
            low, high = (jax.flatten_util.ravel_pytree(x)[0] for x in objective.bounds)
            there = jnp.clip(there, low, high)
        change, moved = jnp.sqrt(jnp.sum((residuals(there) - now) ** 2)), jnp.abs(there - flat)
        change = jnp.where(jnp.isfinite(change), change, 1)
        return jnp.where(silent & (moved > 0), change / jnp.where(moved > 0, moved, 1), 0)

    now = residuals(flat)
    return jnp.maximum(norms(0), norms(1))


def linearize(objective: Objective, back: Callable, flat: Array) -> System:
    """Reduce the residuals and their Jacobian at a point to a triangle."""

    def residuals(flat):
        blocks = objective.blocks(back(flat))
        return [jnp.ravel(b.residuals) for b in blocks], [b._replace(residuals=None) for b in blocks]

    parts, push, blocks = jax.linearize(residuals, flat, has_aux=True)
    slopes = jax.vmap(push)(jnp.eye(flat.size, dtype=flat.dtype))
    blocks = [b._replace(residuals=r) for b, r in zip(blocks, parts, strict=True)]
    if len(blocks) == 1 and blocks[0].rho is None:
        (r,), (columns,) = parts, slopes
        weight = jnp.asarray(blocks[0].weight, r.dtype)
        size = jnp.sum(r * r)
        scale = jnp.sqrt(jnp.sum(columns * columns, axis=1))
        return System(weight * size, weight, size, scale, *triangularize(columns, r))
    loss, r, curve, measure = (jnp.concatenate(x) for x in zip(*map(weigh, blocks), strict=True))
    columns = jnp.concatenate(slopes, axis=1)
    scale = jnp.sqrt(jnp.sum(columns**2 * measure[None, :], axis=1))
    size = jnp.sum(measure * jnp.concatenate(parts) ** 2)
    root = jnp.sqrt(curve)
    triangle, shadow = triangularize(columns * root[None, :], r / jnp.where(root > 0, root, 1))
    return System(jnp.sum(loss), jnp.ones_like(size), size, scale, triangle, shadow)


def weigh(block: Block) -> tuple[Array, Array, Array, Array]:
    """Return, of each residual, its part of the loss, half its slope, half its curvature, and its measure.

    The measure is the slope over twice the residual: the weight of the square with the same slope. The curvature is
    kept above a small part of it.
    """
    r = jnp.ravel(block.residuals)
    weight = jnp.broadcast_to(jnp.ravel(jnp.asarray(block.weight, r.dtype)), r.shape)
    if block.rho is None:
        return weight * r * r, weight * r, weight, weight
    if block.variance is not None:
        measure = weight * jnp.ravel(block.precision)
        return weight * block.rho(r), r * measure, measure, measure
    rho, ones = block.rho, jnp.ones_like(r)

    def slope(r):
        return jax.jvp(rho, (r,), (ones,))[1]

    first, second = jax.jvp(slope, (r,), (ones,))
    measure = jnp.where(r == 0, second, first / jnp.where(r == 0, 1, r)) / 2
    curve = jnp.maximum(second / 2, FLOOR * measure)
    return weight * rho(r), weight * first / 2, weight * curve, weight * measure


def triangularize(columns: Array, b: Array) -> tuple[Array, Array]:
    """Return R (k, k) and Q^T b (k,) of A = Q R, given the columns of A (k, n) and b (n,); as `reduced` does."""
    k, n = columns.shape
    rounding = (8 * k + n**0.5) * float(jnp.finfo(b.dtype).eps)
    if k > UNROLLED:
        both = jnp.linalg.qr(jnp.concatenate([columns, b[None]]).T, mode="r")
        columns, b = both[:k, :k].T, both[:k, k]
    return reduced(columns, b, rounding)


def reduced(columns: Array, b: Array, rounding: float) -> tuple[Array, Array]:
    """Return R and Q^T b by modified Gram-Schmidt, with a row of zeros for a column that depends on earlier ones.

    With b as one more column this is as accurate as reflections: Bjorck (1967). A column depends on earlier ones if its
    part orthogonal to them is at most `rounding` of its norm.
    """
    k = len(columns)
    least = rounding * jnp.sqrt(jnp.sum(columns * columns, axis=1))

    def pivot(row, least):
        length = jnp.sqrt(jnp.sum(row * row))
        length = jnp.where(length <= least, 0, length)
        return row / jnp.where(length > 0, length, jnp.inf), length

    if k > UNROLLED:

        def body(i, carry):
            rest, triangle = carry
            q, length = pivot(rest[i], least[i])
            along = jnp.where(jnp.arange(k + 1) > i, jnp.sum(rest * q[None, :], axis=1), 0)
            row = jnp.where(jnp.arange(k + 1) == i, length, along)
            return rest - along[:, None] * q[None, :], triangle.at[i].set(row)

        rest = jnp.concatenate([columns, b[None]])
        both = jax.lax.fori_loop(0, k, body, (rest, jnp.zeros((k, k + 1), b.dtype)))[1]
        return both[:, :k], both[:, k]
    rows, rest = [], jnp.concatenate([columns, b[None]])
    for i in range(k):
        q, length = pivot(rest[0], least[i])
        along = jnp.sum(rest[1:] * q[None, :], axis=1)
        rest = rest[1:] - along[:, None] * q[None, :]
        rows.append(jnp.concatenate([jnp.zeros(i, b.dtype), length[None], along]))
    both = jnp.stack(rows)
    return both[:, :k], both[:, k]


def damped(triangle: Array, shadow: Array, damping: Array) -> tuple[Array, Array]:
    """Return the triangle and the right side of min ||R z - c||**2 + damping * ||z||**2."""
    k = shadow.size
    below = jnp.sqrt(damping) * jnp.eye(k, dtype=triangle.dtype)
    return triangularize(
        jnp.concatenate([triangle.T, below], axis=1), jnp.concatenate([shadow, jnp.zeros_like(shadow)])
    )


def solve(triangle: Array, b: Array) -> Array:
    """Return z with R z = b, with zeros where a pivot is zero."""
    k = b.size
    if k > UNROLLED:
        pivots = jnp.diagonal(triangle)
        safe = triangle + jnp.diag(jnp.where(pivots == 0, 1, 0).astype(b.dtype))
        return jnp.where(pivots == 0, 0, jax.scipy.linalg.solve_triangular(safe, b))
    z: list[Array] = [b[0]] * k
    for i in reversed(range(k)):
        rest = b[i] - sum((triangle[i, j] * z[j] for j in range(i + 1, k)), jnp.zeros_like(b[i]))
        pivot = triangle[i, i]
        z[i] = jnp.where(pivot == 0, 0, rest / jnp.where(pivot == 0, 1, pivot))
    return jnp.stack(z)


def is_finite(system: System) -> Array:
    return jnp.isfinite(system.loss) & jnp.all(jnp.isfinite(system.triangle)) & jnp.all(jnp.isfinite(system.shadow))
