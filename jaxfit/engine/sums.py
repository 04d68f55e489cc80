"""Rewrite the sums of a program for speed on a CPU: several in one loop, and long ones as sums of partial sums.

A loss and the gradient of each param are sums over the same points. XLA on a CPU makes one loop of each, which computes
the residuals again; one reduction with several operands is one loop. A loop adds one number after another, so that a
long sum would lose digits; therefore it is a sum of partial sums over at most `sum_length` numbers. (XLA's own remedy,
a reduce-window, is many times slower, and is turned off for these programs; see `compiling`.)
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
    """Return the function with its sums rewritten; compile the result.

    Sums are joined if they are over the same axes of arrays that are computed, entry by entry, from common arrays, and
    none depends on another. The order of addition changes, and so may last digits. Sums inside of a loop in the
    function stay as they are. The result can be mapped with `vmap`; its sums cannot be differentiated.
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
    """Return whether an operation is an inner `jit` that contains sums; others stay calls, which compile faster."""
    inner = operation.inner(JITS)
    return inner is not None and any(o.name == "reduce_sum" or _has_sums(o) for o in operations(inner))


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows in an order in which they can run, with the sums that can be joined in one group.

    The depth of a value is the largest number of sums on a path to it, so that sums of equal depth do not depend on
    each other.
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
    """Return for each value a representative of the values that are computed entry by entry from common ones."""
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
    """Return how many numbers a sum adds."""
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
    """Return the sums along one axis, of partial sums of `sum_length` numbers and of the rest."""
    shape, length = summands[0].shape, current().sum_length
    whole, rest = divmod(shape[axis], length)
    if whole == 0 or shape[axis] == length:
        return _reduced(summands, (axis,))
    cut = whole * length
    split = (*shape[:axis], whole, length, *shape[axis + 1 :])
    pieces = [jax.lax.slice_in_dim(x, 0, cut, axis=axis).reshape(split) for x in summands]
    sums = _along(_ended(_reduced(pieces, (axis + 1,))), axis)
    if not rest:
        return sums
    left = _reduced([jax.lax.slice_in_dim(x, cut, None, axis=axis) for x in summands], (axis,))
    return [a + b for a, b in zip(sums, left, strict=True)]


_ended = jax.lax.optimization_barrier  # keeps XLA from joining the partial sums into one long sum


def _reduced(summands: Sequence[Array], axes: tuple[int, ...]) -> Sequence[Array]:
    if len(summands) == 1:
        return [jnp.sum(summands[0], axes)]
    return jax.lax.reduce(tuple(summands), tuple(jnp.zeros((), x.dtype) for x in summands), _add, axes)


def _add(one: Sequence[Array], other: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
