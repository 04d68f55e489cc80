"""Levenberg-Marquardt: damped Gauss-Newton steps for losses that know their residuals.

At each point the residuals r and their exact Jacobian J are reduced to a triangle, J = Q R and c = Q^T r, and nothing
else is kept: no step evaluates the model twice at the same params. ||c|| is how much of r an undamped step would take
away, whatever the units of params and data, and so what convergence is judged by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
from jax import Array

from jaxfit.losses import Block
from jaxfit.methods import Objective, Proposal

PyTree = Any
UNROLLED = 6  # params up to which a triangle is made in place: many lanes then share each operation
FLOOR = 1e-3  # of a robust loss' curvature, against that of the square with the same slope


class System(NamedTuple):
    """A loss around a point: loss(p + d) = loss + weight * (||c + R d||**2 - ||c||**2), about."""

    loss: Array  # ()
    weight: Array  # ()
    size: Array  # () sum of squares of the residuals, each in its measure
    scale: Array  # (k,) norms of the columns of J
    triangle: Array  # (k, k) R
    shadow: Array  # (k,) c = Q^T r


class Memory(NamedTuple):
    """What is known of the point where a run stands, and how far it may go."""

    system: System
    scale: Array  # (k,) largest norms of the columns of J so far: the step's own units
    damping: Array  # ()
    growth: Array  # () what a refused step multiplies the damping by
    before: Array  # () ||c||**2 / size at the point before


class LevenbergMarquardt(NamedTuple):
    """The method itself; `jf.optimizers.levenberg_marquardt` makes one."""

    damping: Any  # () at the start
    tolerance: Any = None  # () part of the sum of squares that may be left to take off; None for what rounding leaves

    def init(self, objective: Objective, params: PyTree) -> Memory:
        flat, back = jax.flatten_util.ravel_pytree(params)
        system = linearize(objective, back, flat)
        one = jnp.ones_like(system.loss)
        return Memory(system, system.scale, self.damping * one, 2 * one, jnp.inf * one)

    def step(self, objective: Objective, params: PyTree, memory: Memory) -> Proposal:
        flat, back = jax.flatten_util.ravel_pytree(params)
        here, eps = memory.system, jnp.finfo(flat.dtype).eps
        grads = 2 * here.weight * (here.shadow @ here.triangle)
        limits, free, triangle = objective.bounds, None, here.triangle
        if limits is not None:
            low, high = (jax.flatten_util.ravel_pytree(x)[0] for x in limits)
            free = ~(((flat <= low) & (grads > 0)) | ((flat >= high) & (grads < 0)))
            triangle, grads = triangle * free[None, :], jnp.where(free, grads, 0)

        units = jnp.where(memory.scale > 0, memory.scale, 1)
        scaled = triangle / units[None, :]
        move = solve(*damped(scaled, here.shadow, memory.damping)) / units
        there = flat - move if limits is None else jnp.clip(flat - move, low, high)
        change = triangle @ (there - flat)
        gain = -jnp.sum(change * (2 * here.shadow + change)) * here.weight
        system = linearize(objective, back, there)

        actual = here.loss - system.loss
        reach = jnp.sqrt(jnp.sum((here.scale * flat) ** 2))
        blur = 16 * eps * here.weight * jnp.sqrt(here.size) * (jnp.sqrt(here.size) + reach)
        unresolved = (gain <= blur) & (actual >= -blur)
        ratio = jnp.where(unresolved, 1.0, actual / jnp.where(gain > 0, gain, 1))
        accepted = (ratio > 1e-3) & (gain >= 0) & is_finite(system)
        shrink = jnp.maximum(1 / 5, 1 - (2 * ratio - 1) ** 3)
        most = 1 / eps**2
        verdict, offset = judge(flat, memory, triangle, free, self.tolerance)
        memory = Memory(
            jax.tree.map(lambda new, old: jnp.where(accepted, new, old), system, here),
            jnp.where(accepted, jnp.maximum(memory.scale, system.scale), memory.scale),
            jnp.where(accepted, memory.damping * shrink, jnp.clip(memory.damping * memory.growth, eps, most)),
            jnp.where(accepted, 2, jnp.minimum(2 * memory.growth, most)).astype(flat.dtype),
            offset,
        )
        return Proposal(here.loss, back(grads), back(jnp.where(accepted, there, flat)), memory, verdict)


def levenberg_marquardt(damping: Any = 1e-3, tolerance: Any = None) -> LevenbergMarquardt:
    return LevenbergMarquardt(damping, tolerance)


levenberg_marquardt.judges = True
levenberg_marquardt.residuals = levenberg_marquardt.deterministic = True
levenberg_marquardt.precision = "float64"
levenberg_marquardt.chunk = 8


def judge(
    flat: Array, memory: Memory, triangle: Array, free: Array | None, tolerance: Any = None
) -> tuple[Array, Array]:
    """Whether the point is a minimum as far as the precision can tell, and ||c||**2 / size, the part that is not.

    An undamped step would take ||c||**2 off the sum of squares. It is not worth it if
    - that is lost in the rounding of the sum, and the last step did not make it much smaller: the params are then
      within sqrt(eps) of their standard errors; or
    - it moves the predictions by less than their rounding, and the params by less than sqrt(eps) of themselves; or
    - it is no more than the tolerance of the sum, if there is one.
    Neither is believed where R is singular in this precision, or a param that mattered has ceased to.
    """
    here, eps = memory.system, jnp.finfo(flat.dtype).eps
    k = flat.size
    shadow = here.shadow
    if free is not None:
        triangle, shadow = triangularize(triangle.T, shadow)
    left = jnp.sum(shadow**2)
    offset = left / jnp.where(here.size > 0, here.size, 1)
    pivots, norms = jnp.abs(jnp.diagonal(triangle)), jnp.sqrt(jnp.sum(triangle**2, axis=0))
    known = (pivots > 8 * k * eps * norms) & (norms > eps**2 * memory.scale)
    sound = jnp.all(known if free is None else known | ~free)
    reach = jnp.sqrt(jnp.sum((norms * flat) ** 2))
    move = jnp.sqrt(jnp.sum((norms * solve(triangle, shadow)) ** 2))
    lost = (offset <= 16 * eps) & ((offset > memory.before / 2) | (offset <= eps ** (4 / 3)))
    below = (jnp.sqrt(left) <= 8 * eps * reach) & (move <= jnp.sqrt(eps) * reach)
    enough = (left == 0) if tolerance is None else (offset <= tolerance)
    return sound & (lost | below | enough), offset


def linearize(objective: Objective, back: Callable, flat: Array) -> System:
    """The residuals and their Jacobian at a point, as a triangle."""

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
    """Of each residual: its part of the loss, half its slope, half its curvature, and slope over twice the residual.

    The last is the weight of the square that has the same slope; the curvature is kept above a small part of it.
    """
    r = jnp.ravel(block.residuals)
    weight = jnp.broadcast_to(jnp.asarray(block.weight, r.dtype), r.shape)
    if block.rho is None:
        return weight * r * r, weight * r, weight, weight
    rho, ones = block.rho, jnp.ones_like(r)

    def slope(r):
        return jax.jvp(rho, (r,), (ones,))[1]

    first, second = jax.jvp(slope, (r,), (ones,))
    measure = jnp.where(r == 0, second, first / jnp.where(r == 0, 1, r)) / 2
    curve = jnp.maximum(second / 2, FLOOR * measure)
    return weight * rho(r), weight * first / 2, weight * curve, weight * measure


def triangularize(columns: Array, b: Array) -> tuple[Array, Array]:
    """R (k, k) and Q^T b (k,) of A = Q R, given the columns of A (k, n) and b (n,).

    Of few columns by modified Gram-Schmidt, with b as one more, which is as accurate as by reflections: Bjorck (1967).
    """
    k, n = columns.shape
    if k > UNROLLED:
        both = jnp.linalg.qr(jnp.concatenate([columns, b[None]]).T, mode="r")
        return both[:k, :k], both[:k, k]
    rows, rest = [], jnp.concatenate([columns, b[None]])
    for i in range(k):
        length = jnp.sqrt(jnp.sum(rest[0] * rest[0]))
        q = rest[0] / jnp.where(length > 0, length, 1)
        along = jnp.sum(rest[1:] * q[None, :], axis=1)
        rest = rest[1:] - along[:, None] * q[None, :]
        rows.append(jnp.concatenate([jnp.zeros(i, b.dtype), length[None], along]))
    both = jnp.stack(rows)
    return both[:, :k], both[:, k]


def damped(triangle: Array, shadow: Array, damping: Array) -> tuple[Array, Array]:
    """The triangle of min ||R z - c||**2 + damping * ||z||**2."""
    k = shadow.size
    below = jnp.sqrt(damping) * jnp.eye(k, dtype=triangle.dtype)
    return triangularize(
        jnp.concatenate([triangle.T, below], axis=1), jnp.concatenate([shadow, jnp.zeros_like(shadow)])
    )


def solve(triangle: Array, b: Array) -> Array:
    """z with R z = b; zero in the places where a pivot is."""
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
