"""Bounds of params: what is free between them, and checks of bounds against each other and against the start."""

from __future__ import annotations

import reprlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.problems.axes import Axis, refuse_unit
from jaxfit.problems.marks import Bounded, Fixed, Tied, is_mark
from jaxfit.typing import PyTree


def bounds(marked: PyTree) -> tuple[PyTree, PyTree] | None:
    """Return the lowest and the highest values of what moves, like `free(marked)`; None if nothing is bounded."""
    leaves, structure = jax.tree.flatten(marked, is_leaf=is_mark)
    if not any(isinstance(x, Bounded) for x in leaves):
        return None

    def side(name, none):
        def leaf(x):
            if isinstance(x, (Fixed, Tied)):
                return None
            value = x.value if isinstance(x, Bounded) else x
            limit = getattr(x, name) if isinstance(x, Bounded) else None
            limit = none if limit is None else limit
            xp = np if isinstance(value, np.ndarray) and not isinstance(limit, jax.Array) else jnp
            return xp.broadcast_to(xp.asarray(limit, jnp.result_type(value)), jnp.shape(value))

        return jax.tree.unflatten(structure, map(leaf, leaves))

    return side("low", -jnp.inf), side("high", jnp.inf)


def check_bounds(name: str, value: PyTree, low: PyTree, high: PyTree) -> tuple[PyTree, PyTree]:
    """Return bounds as numbers or arrays, None where there is none, checked against each other and against the start.

    Raises:
      TypeError: If they are not numbers.
      ValueError: If they are NaN, of a wrong shape, not in order, or the start is not between them.
    """
    low, high = _bound(f"{name}: low", low, -np.inf), _bound(f"{name}: high", high, np.inf)
    shape = np.shape(value.values)[1:] if isinstance(value, Axis) else np.shape(value)
    for side, limit in (("low", low), ("high", high)):
        limit_shape = np.shape(limit.values)[1:] if isinstance(limit, Axis) else np.shape(limit)
        if limit is not None and limit_shape not in ((), shape):
            raise ValueError(
                f"{name}: {side} has shape {limit_shape} and the start {shape}; give one number, or one for each entry"
            )
    _compare(
        high, low, lambda high, low: high > low,
        lambda high, low: f"{name}: low is {low:g} and high is {high:g}, but low must be below high; swap them, or fix "
        f"the value with jf.Fixed",
    )  # fmt: skip
    remedy = "start between the bounds or on one, or move them"
    _compare(value, low, lambda x, low: x >= low, lambda x, low: f"{name} starts at {x:g}, below low={low:g}; {remedy}")
    _compare(
        value, high, lambda x, high: x <= high, lambda x, high: f"{name} starts at {x:g}, above high={high:g}; {remedy}"
    )
    return low, high


def _bound(name: str, limit: PyTree, none: float) -> PyTree:
    """Return a bound as floats; None for one that is never met."""
    if limit is None or isinstance(limit, jax.core.Tracer):
        return limit
    if isinstance(limit, Axis):
        return Axis(limit.name, _numbers(name, limit.values), limit.labels)
    numbers = _numbers(name, limit)
    return None if (numbers == none).all() else numbers


def _numbers(name: str, given: object) -> np.ndarray:
    refuse_unit(name, given)
    try:
        numbers = np.asarray(given)
    except ValueError:  # ragged
        numbers = np.asarray(None)
    if numbers.dtype.kind not in "iuf":
        raise TypeError(f"{name} is {reprlib.repr(given)}, but a bound must be a number, or None for none")
    if np.isnan(numbers).any():
        raise ValueError(f"{name} is {reprlib.repr(given)}, but a bound must not be NaN; use None for none")
    return numbers.astype(np.float64)


def _compare(one: PyTree, other: PyTree, holds: Callable, message: Callable) -> None:
    """Raise unless `holds` for all entries and lanes; what is traced or missing passes."""
    swept = [isinstance(x, Axis) for x in (one, other)]
    values = [x.values if isinstance(x, Axis) else x for x in (one, other)]
    if any(x is None or isinstance(x, jax.core.Tracer) or not _is_numeric(x) for x in values):
        return
    a, b = (
        np.asarray(x, np.float64)[None] if not yes else np.asarray(x, np.float64)
        for x, yes in zip(values, swept, strict=True)
    )
    if all(swept) and one.name != other.name:
        a, b = np.repeat(a, len(b), axis=0), np.concatenate([b] * len(a))
    if b.ndim < a.ndim:
        b = b.reshape(b.shape + (1,) * (a.ndim - b.ndim))
    if a.ndim < b.ndim:
        a = a.reshape(a.shape + (1,) * (b.ndim - a.ndim))
    a, b = np.broadcast_arrays(a, b)
    bad = np.argwhere(~holds(a, b))
    if len(bad):
        raise ValueError(message(a[tuple(bad[0])], b[tuple(bad[0])]))


def _is_numeric(x: object) -> bool:
    try:
        return np.asarray(x).dtype.kind in "iuf"
    except ValueError:
        return False
