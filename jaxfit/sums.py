"""Sums over many numbers, made fast: several in one pass, and each in stretches.

A loss and the gradient of each param are sums over the same points. XLA on a CPU makes a loop of each, and in each of
them the residuals anew: as one reduction with several operands they are one loop. A loop adds one number after another,
so that a long sum would lose digits: it is made of the sums of its stretches. (XLA's own remedy is a window that moves
over the numbers, which is many times slower, and is turned off where these are used; see `compiling`.)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfit.tracing import as_function, trace

STRETCH = 256  # numbers added one after another; the roundings of more would add up to a digit
TOGETHER = jax.__version_info__ >= (0, 11)  # before, XLA makes no vector operations of a reduction of several operands


class Row(NamedTuple):
    """An equation of a program, what is called inlined, with a number for each value."""

    equation: Any
    inputs: dict[Any, int]  # by variable; literals are in the equation
    outputs: tuple[int, ...]


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


def _evaluate(closed: Any, leaves: Sequence[Any]) -> Sequence[Any]:
    values: list[Any] = list(leaves)
    rows: list[Row] = []
    results = _inlined(closed.jaxpr, closed.consts, list(range(len(leaves))), values, rows)
    groups = _groups(_needed(rows, results))
    if closed.jaxpr.effects or not any(map(_is_to_change, groups)):
        return jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *leaves)
    for group in groups:
        found = _sum(group, values) if _is_sum(group[0]) else _run(group[0], values)
        for place, value in zip((place for row in group for place in row.outputs), found, strict=True):
            values[place] = value
    return [values[place] for place in results]


def _inlined(jaxpr: Any, consts: Sequence[Any], inputs: Sequence[int], values: list[Any], rows: list[Row]) -> list[int]:
    """Appends the equations of a program to the rows, and a place for each new value; returns those of the results."""

    def placed(value: Any) -> int:
        values.append(value)
        return len(values) - 1

    def place(atom: Any) -> int:
        return placed(atom.val) if hasattr(atom, "val") else at[atom]

    at = dict(zip(jaxpr.invars, inputs, strict=True))
    at |= {variable: placed(x) for variable, x in zip(jaxpr.constvars, consts, strict=True)}
    for equation in jaxpr.eqns:
        if inner := _called_for_sums(equation):
            outputs = _inlined(inner.jaxpr, inner.consts, [place(v) for v in equation.invars], values, rows)
        else:
            outputs = [placed(None) for _ in equation.outvars]
            rows.append(Row(equation, {v: at[v] for v in equation.invars if not hasattr(v, "val")}, tuple(outputs)))
        at.update(zip(equation.outvars, outputs, strict=True))
    return [place(v) for v in jaxpr.outvars]


def _called_for_sums(equation: Any) -> Any:
    """The program that an inner `jit` calls, if it makes sums; others stay calls, which compile sooner."""
    inner = equation.params.get("jaxpr")
    if equation.primitive.name not in ("jit", "pjit") or not hasattr(inner, "jaxpr"):
        return None
    return inner if any(e.primitive.name == "reduce_sum" or _called_for_sums(e) for e in inner.jaxpr.eqns) else None


def _needed(rows: Sequence[Row], results: Sequence[int]) -> list[Row]:
    """Those that the results depend on: a sum that nobody reads would be made all the same beside others."""
    wanted, kept = set(results), []
    for row in reversed(rows):
        if wanted.intersection(row.outputs):
            wanted.update(row.inputs.values())
            kept.append(row)
    return kept[::-1]


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in an order that they can be run in, sums of one kind together.

    The depth of a value is the number of sums that one has to pass to get there, so that sums of equal depth do not
    depend on each other.
    """
    family, depth = _families(rows), dict[int, int]()
    groups: dict[Any, list[Row]] = {}
    for number, row in enumerate(rows):
        deep = max((depth.get(place, 0) for place in row.inputs.values()), default=0)
        key: Any = (deep, False, number)
        if summing := _is_sum(row):
            ((variable, place),) = row.inputs.items()
            kind = family[place], variable.aval.shape, variable.aval.dtype.name, row.equation.params["axes"]
            key = (deep, True, *kind) if TOGETHER else (deep, True, number)
        groups.setdefault(key, []).append(row)
        depth |= dict.fromkeys(row.outputs, deep + summing)
    return [groups[key] for key in sorted(groups, key=lambda key: key[: 3 - key[1]])]


def _families(rows: Sequence[Row]) -> dict[int, int]:
    """For each value one of those that share their entries with it: the same one for all of them."""
    above: dict[int, int] = {}

    def eldest(place: int) -> int:
        while above.setdefault(place, place) != place:
            place = above[place]
        return place

    for row in rows:
        for variable, place in zip(row.equation.outvars, row.outputs, strict=True):
            for other, at in row.inputs.items():
                if other.aval.shape == variable.aval.shape:
                    above[eldest(at)] = eldest(place)
    return {place: eldest(place) for row in rows for place in (*row.inputs.values(), *row.outputs)}


def _is_sum(row: Row) -> bool:
    return row.equation.primitive.name == "reduce_sum" and any(
        jnp.issubdtype(variable.aval.dtype, jnp.floating) for variable in row.inputs
    )


def _is_to_change(group: Sequence[Row]) -> bool:
    return _is_sum(group[0]) and (len(group) > 1 or _count(group[0]) > STRETCH)


def _count(row: Row) -> int:
    """How many numbers each of its sums adds."""
    (variable,) = row.inputs
    return math.prod(variable.aval.shape[axis] for axis in row.equation.params["axes"])


def _run(row: Row, values: list[Any]) -> Sequence[Any]:
    inputs = (v.val if hasattr(v, "val") else values[row.inputs[v]] for v in row.equation.invars)
    return as_function(row.equation)(*inputs)


def _sum(group: Sequence[Row], values: list[Any]) -> Sequence[Any]:
    summands = tuple(values[place] for row in group for place in row.inputs.values())
    axes = group[0].equation.params["axes"]
    if _count(group[0]) <= STRETCH:
        return _reduced(summands, axes)
    *others, first = sorted(axes)
    sums = _along(summands, first)
    for axis in reversed(others):
        sums = _along(_ended(sums), axis)
    return sums


def _along(summands: Sequence[Any], axis: int) -> Sequence[Any]:
    """Sums along one axis: of its whole stretches, and of the rest."""
    shape = summands[0].shape
    whole, rest = divmod(shape[axis], STRETCH)
    if whole == 0 or shape[axis] == STRETCH:
        return _reduced(summands, (axis,))
    cut = whole * STRETCH
    split = (*shape[:axis], whole, STRETCH, *shape[axis + 1 :])
    stretches = [jax.lax.slice_in_dim(x, 0, cut, axis=axis).reshape(split) for x in summands]
    sums = _along(_ended(_reduced(stretches, (axis + 1,))), axis)
    if not rest:
        return sums
    left = _reduced([jax.lax.slice_in_dim(x, cut, None, axis=axis) for x in summands], (axis,))
    return [a + b for a, b in zip(sums, left, strict=True)]


_ended = jax.lax.optimization_barrier  # or XLA would make one long sum of sums of sums again


def _reduced(summands: Sequence[Any], axes: tuple[int, ...]) -> Sequence[Any]:
    if len(summands) == 1:
        return [jnp.sum(summands[0], axes)]
    return jax.lax.reduce(tuple(summands), tuple(jnp.zeros((), x.dtype) for x in summands), _add, axes)


def _add(one: Sequence[Any], other: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
