"""Sums over many numbers, made fast: several in one pass, and each in stretches.

A loss and the gradient of each param are sums over the same points. XLA on a CPU makes a loop of each, and in each of
them the residuals anew: as one reduction with several operands they are one loop. A loop adds one number after another,
so that a long sum would lose digits: it is made of the sums of its stretches. (XLA's own remedy is a window that moves
over the numbers, which is many times slower, and is turned off where these are used; see `compiling`.)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxfit.engine.jaxprs import JITS, Listing, Operation, Row, inline, needed, operations, run
from jaxfit.engine.settings import current
from jaxfit.engine.tracing import trace

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr


def fast_sums(function: Callable) -> Callable:
    """A function that returns the same, with its sums made fast; it is to be compiled.

    Made together are sums over the same axes of arrays that share what they are made of, entry by entry, and of which
    none depends on another. The order of addition changes, and so may last digits. Sums inside of a loop of the
    function's own stay as they are. The function can be mapped with `vmap`; its sums cannot be differentiated.
    """
    if jax.default_backend() != "cpu":
        return function

    @functools.wraps(function)
    def program(*args):
        jaxpr, shape = trace(function, *args)
        return jax.tree.unflatten(jax.tree.structure(shape), _evaluate(jaxpr, jax.tree.leaves(args)))

    return program


def _evaluate(program: ClosedJaxpr, leaves: Sequence[Array]) -> Sequence[Array]:
    listing: Listing[None] = inline(program, lambda operation, inner, scope: _has_sums(operation))
    groups = _groups(needed(listing.rows, listing.results))
    if program.effects or not any(map(_is_to_change, groups)):
        return run(program, *leaves)
    values = listing.constants | dict(zip(listing.inputs, leaves, strict=True))
    for group in groups:
        found = _sum(group, values) if _is_sum(group[0]) else group[0].operation(*_inputs(group, values))
        values.update(zip((number for row in group for number in row.outputs), found, strict=True))
    return [values[number] for number in listing.results]


def _inputs(group: Sequence[Row], values: Mapping[int, Array]) -> list[Array]:
    return [values[number] for row in group for number in row.inputs]


def _has_sums(operation: Operation) -> bool:
    """Return whether an operation is an inner `jit` that makes sums; others stay calls, which compile sooner."""
    inner = operation.inner(JITS)
    return inner is not None and any(o.name == "reduce_sum" or _has_sums(o) for o in operations(inner))


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in an order that they can be run in, sums of one kind together.

    The depth of a value is the number of sums that one has to pass to get there, so that sums of equal depth do not
    depend on each other.
    """
    family, depth = _families(rows), dict[int, int]()
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for number, row in enumerate(rows):
        deep = max((depth.get(value, 0) for value in row.inputs), default=0)
        key: tuple[Any, ...] = (deep, False, number)
        if summing := _is_sum(row):
            (value,), (aval,) = row.inputs, row.operation.operands
            kind = family[value], aval.shape, aval.dtype.name, row.operation.params["axes"]
            key = (deep, True, *kind) if current().joint_sums else (deep, True, number)
        groups.setdefault(key, []).append(row)
        depth |= dict.fromkeys(row.outputs, deep + summing)
    return [groups[key] for key in sorted(groups, key=lambda key: key[: 3 - key[1]])]


def _families(rows: Sequence[Row]) -> dict[int, int]:
    """For each value one of those that share their entries with it: the same one for all of them."""
    above: dict[int, int] = {}

    def eldest(value: int) -> int:
        while above.setdefault(value, value) != value:
            value = above[value]
        return value

    for row in rows:
        for result, made in zip(row.operation.results, row.outputs, strict=True):
            for operand, read in zip(row.operation.operands, row.inputs, strict=True):
                if operand.shape == result.shape:
                    above[eldest(read)] = eldest(made)
    return {value: eldest(value) for row in rows for value in (*row.inputs, *row.outputs)}


def _is_sum(row: Row) -> bool:
    operation = row.operation
    if operation.name != "reduce_sum" or operation.literals[0] is not None:
        return False
    return jnp.issubdtype(operation.operands[0].dtype, jnp.floating)


def _is_to_change(group: Sequence[Row]) -> bool:
    return _is_sum(group[0]) and (len(group) > 1 or _count(group[0]) > current().sum_length)


def _count(row: Row) -> int:
    """How many numbers each of its sums adds."""
    (summand,) = row.operation.operands
    return math.prod(summand.shape[axis] for axis in row.operation.params["axes"])


def _sum(group: Sequence[Row], values: Mapping[int, Array]) -> Sequence[Array]:
    summands = _inputs(group, values)
    axes = group[0].operation.params["axes"]
    if _count(group[0]) <= current().sum_length:
        return _reduced(summands, axes)
    *others, first = sorted(axes)
    sums = _along(summands, first)
    for axis in reversed(others):
        sums = _along(_ended(sums), axis)
    return sums


def _along(summands: Sequence[Array], axis: int) -> Sequence[Array]:
    """Sums along one axis: of its whole stretches, and of the rest."""
    shape, length = summands[0].shape, current().sum_length
    whole, rest = divmod(shape[axis], length)
    if whole == 0 or shape[axis] == length:
        return _reduced(summands, (axis,))
    cut = whole * length
    split = (*shape[:axis], whole, length, *shape[axis + 1 :])
    stretches = [jax.lax.slice_in_dim(x, 0, cut, axis=axis).reshape(split) for x in summands]
    sums = _along(_ended(_reduced(stretches, (axis + 1,))), axis)
    if not rest:
        return sums
    left = _reduced([jax.lax.slice_in_dim(x, cut, None, axis=axis) for x in summands], (axis,))
    return [a + b for a, b in zip(sums, left, strict=True)]


_ended = jax.lax.optimization_barrier  # or XLA would make one long sum of sums of sums again


def _reduced(summands: Sequence[Array], axes: tuple[int, ...]) -> Sequence[Array]:
    if len(summands) == 1:
        return [jnp.sum(summands[0], axes)]
    return jax.lax.reduce(tuple(summands), tuple(jnp.zeros((), x.dtype) for x in summands), _add, axes)


def _add(one: Sequence[Array], other: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
