"""The residuals of a problem and their exact Jacobian at a point, differentiated forward and reduced to a triangle.

A loss is a quadratic model there: of squares, of robust functions of residuals, of counts (by their mean and variance),
or of data sets with params of their own, whose blocks are kept apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.custom_batching
import jax.flatten_util
import jax.numpy as jnp

from jaxfit.losses import Block, Joint
from jaxfit.optimizers.arrays import (
    Array,
    are_finite,
    by_products,
    flat_root,
    namespace,
    on_host,
)
from jaxfit.optimizers.bordered import Columns, Layout, Triangle, layout_of, triangularize
from jaxfit.optimizers.bordered import is_finite as is_finite_triangle
from jaxfit.optimizers.lanes import TOGETHER, in_full_width, lanes_side_by_side, where_poor
from jaxfit.optimizers.methods import Objective
from jaxfit.typing import PyTree

FLOOR = 1e-3  # of a robust loss' curvature, against that of the square with the same slope


class Slopes(NamedTuple):
    """A loss at a point to second order: weight * ||r + J d||**2, but for a constant if a residual is robust."""

    loss: Array  # ()
    weight: Array  # ()
    size: Array  # () sum of squares of the residuals, each with its measure
    scale: Array  # (k,) norms of the columns of J
    residuals: Array  # (n,) r, with the roots of their weights if these differ
    columns: Array | Columns  # (k, n) of J, with the same
    squares: tuple[()] | None = None  # () if size and scale are of these very residuals and columns; no leaf


class System(NamedTuple):
    """The quadratic model of a loss at a point: loss(p + d) ~ loss + weight * (||c + R d||**2 - ||c||**2)."""

    loss: Array  # ()
    weight: Array  # ()
    size: Array  # () sum of squares of the residuals, each with its measure
    scale: Array  # (k,) norms of the columns of J
    triangle: Array | Triangle  # (k, k) R
    shadow: Array  # (k,) c = Q^T r


class Place(NamedTuple):
    """The functions of a problem that the method calls; the free params are one array (k,)."""

    slopes: Callable[[Array], Slopes]
    residuals: Callable[[Array], Array]
    limits: tuple[Array, Array] | None  # the lowest and highest params
    affine: Callable[[Array], tuple[int, ...]]  # of these the places of some in which all residuals are affine together


def place_of(objective: Objective, back: Callable) -> Place:
    """Return the `Place` of a traced problem; `back` makes the tree of free params."""
    limits = objective.bounds
    if limits is not None:
        low, high = (jax.flatten_util.ravel_pytree(x)[0] for x in limits)
        limits = low, high
    return Place(
        lambda flat: slopes(objective, back, flat),
        lambda flat: residuals(objective, back, flat),
        limits,
        lambda flat: affine_params(objective, back, flat),
    )


def affine_params(objective: Objective, back: Callable, flat: Array) -> tuple[int, ...]:
    """Return the places of params in which all residuals are affine together.

    All of them if the loss is a sum of squares that are so in all, whose minimum a step without damping reaches; none
    of data sets with params of their own.
    """
    if objective.affine is None or isinstance(objective.loss, Joint):
        return ()
    places = objective.affine(lambda flat: residuals(objective, back, flat), flat)
    if len(places) == flat.size and any(b.rho is not None for b in objective.blocks(back(flat))):
        return ()
    return places


def residuals(objective: Objective, back: Callable, flat: Array) -> Array:
    return jnp.concatenate([jnp.ravel(b.residuals) for b in objective.blocks(back(flat))])


def slopes(objective: Objective, back: Callable, flat: Array) -> Slopes:
    """Return the residuals and their Jacobian, differentiated forward."""
    free = back(flat) if isinstance(objective.loss, Joint) else None
    layout = layout_of(objective.loss, free, objective.marked)
    if layout is None:
        return _slopes(lambda flat: objective.blocks(back(flat)), flat)
    return _of_sets(objective, free, flat, layout)


def _of_sets(objective: Objective, free: PyTree, flat: Array, layout: Layout) -> Slopes:
    """Return the same of data sets, each differentiated by its own params and by those in common."""
    joint: Any = objective.loss
    shared, owned = joint.apart(free)
    numbers, common = layout.split(flat)
    parts, own_scales = [], []
    border, loss, size = jnp.zeros(common.size, flat.dtype), 0, 0
    for sets, own, mine in zip(joint.sets(objective.complete(free), *objective.data), owned, numbers, strict=True):
        m, many = len(mine), sets.many
        mine = mine.reshape(m, len(jax.tree.leaves(sets.data)[0]) if many else 1)

        def of_one(params, *given, sets=sets, own=own, m=m, many=many):
            *data, mine = given

            def blocks(z):
                beside = _inserted(sets.common, shared, z[m:], 0)
                whole = {name: params[name] for name in sets.own}
                return sets.loss.blocks(beside | _inserted(whole, own, z[:m], many), *data)

            return _slopes(blocks, jnp.concatenate([mine, common]))

        found = sets.map(of_one, mine.T if many else mine[:, 0])
        found = jax.tree.map(lambda x, many=many: jnp.moveaxis(x, 0, -1) if many else x[..., None], found)
        rooted = jnp.sqrt(found.weight)
        loss, size = loss + jnp.sum(found.loss), size + jnp.sum(found.weight * found.size)
        own_scales.append(rooted[None] * found.scale[:m])
        border = border + jnp.sum(found.weight[None] * found.scale[m:] ** 2, axis=-1)
        parts.append((found.columns * rooted[None, None], found.residuals * rooted[None]))
    return Slopes(
        loss, jnp.ones_like(size), size, layout.join(own_scales, flat_root(border)),
        jnp.concatenate([jnp.ravel(r) for _, r in parts]), Columns(tuple(x for x, _ in parts), layout),
    )  # fmt: skip


def _inserted(whole: PyTree, free: PyTree, numbers: Array, axes: int) -> PyTree:
    """Return the tree with its free leaves from an array of their numbers; `free` has that many more axes."""
    at = 0
    if not jax.tree.leaves(free):
        return whole

    def leaf(like, value):
        nonlocal at
        if like is None:
            return value
        shape = like.shape[axes:]
        size, at = math.prod(shape), at + math.prod(shape)
        return numbers[at - size : at].reshape(shape)

    return jax.tree.map(leaf, free, whole, is_leaf=lambda x: x is None)


def _slopes(blocks_at: Callable[[Array], tuple[Block, ...]], flat: Array) -> Slopes:
    def apart(flat):
        blocks = blocks_at(flat)
        return [jnp.ravel(b.residuals) for b in blocks], [b._replace(residuals=None) for b in blocks]

    parts, push, blocks = jax.linearize(apart, flat, has_aux=True)
    derivatives = jax.vmap(push)(jnp.eye(flat.size, dtype=flat.dtype))
    blocks = [b._replace(residuals=r) for b, r in zip(blocks, parts, strict=True)]
    if len(blocks) == 1 and blocks[0].rho is None:
        (r,), (columns,) = parts, derivatives
        weight = jnp.asarray(blocks[0].weight, r.dtype)
        size = jnp.sum(r * r)
        scale = flat_root(jnp.sum(columns * columns, axis=1))
        return Slopes(weight * size, weight, size, scale, r, columns, ())
    loss, r, curve, measure = (jnp.concatenate(x) for x in zip(*map(weigh, blocks), strict=True))
    columns = jnp.concatenate(derivatives, axis=1)
    scale = flat_root(jnp.sum(columns**2 * measure[None, :], axis=1))
    size = jnp.sum(measure * jnp.concatenate(parts) ** 2)
    root = jnp.sqrt(curve)
    rooted = columns * root[None, :]
    return Slopes(jnp.sum(loss), jnp.ones_like(size), size, scale, r / jnp.where(root > 0, root, 1), rooted)


def system_of(found: Slopes) -> System:
    """Reduce the residuals and their Jacobian at a point to a triangle."""
    return System(*found[:4], *triangularize(found.columns, found.residuals))


def system_at(slopes: Callable[[Array], Slopes], flat: Array) -> System:
    """Return `system_of(slopes(flat))`; of lanes side by side from the products of the columns, by Cholesky's way.

    One pass over the points then makes the columns, their products and the sum of squares. Lanes for which that has too
    few digits are triangularized. A lane's numbers never depend on its neighbors'.
    """
    beside = None if on_host(flat) else lanes_side_by_side()
    if beside is None or flat.size > TOGETHER:
        return system_of(slopes(flat))
    sums: Any = beside.sums
    found, enclosed, like = beside.enclosing_nothing(slopes, flat)  # as the rule of a `vmap` must
    if isinstance(like.columns, Columns):
        return system_of(slopes(flat))

    @jax.custom_batching.custom_vmap
    def system(*given):
        return system_of(found(*given))

    @system.def_vmap
    def _(lanes, batched, *given):
        axes = [0 if own else None for own in batched]
        here, k = jax.vmap(found, axes, axis_size=lanes)(*given), flat.size
        rows = [*jnp.moveaxis(here.columns, 1, 0), here.residuals]
        pairs = [(i, j) for i in range(k + 1) for j in range(i, k + 1)]
        products = dict(zip(pairs, sums([rows[i] * rows[j] for i, j in pairs]), strict=True))
        (triangle, shadow), poor = in_full_width(lambda products: by_products(products, k), lanes, (products,))

        def orthogonal(*given):  # from the params again: else the columns would be written to memory in every step
            return system_of(found(*given))[4:]

        triangle, shadow = where_poor(poor, orthogonal, given, batched, (triangle, shadow), at=-1)
        loss, weight, size, scale = here[:4]
        if here.squares is not None:
            size, scale = products[k, k], jnp.sqrt(jnp.stack([products[i, i] for i in range(k)])).T
            loss = weight * size
        there = System(loss, weight, size, scale, jnp.moveaxis(triangle, -1, 0), shadow.T)
        return there, System(True, True, True, True, True, True)

    return system(flat, *enclosed)


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


def is_finite(system: System) -> Array:
    xp = namespace(system.shadow)
    return xp.isfinite(system.loss) & is_finite_triangle(system.triangle) & are_finite(system.shadow)
