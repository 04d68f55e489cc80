"""Lanes side by side: how functions written for one run are traced for many of them in a `vmap`.

A pool traces a step under `side_by_side`. Small arithmetic then takes all lanes at once, along a last axis, by
`lanes_last`; what only some lanes need runs for those alone, by `where_poor` and `where_asked`.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.custom_batching
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.typing import PyTree

TOGETHER = 12  # params up to which lanes side by side take the products of their columns in one pass over the points


class SideBySide(NamedTuple):
    """What lanes of a `vmap` are traced with."""

    # of arrays (lanes, n) along their rows, in one pass, if products of columns are to be used where they have digits
    sums: Callable[[Sequence[Array]], Sequence[Array]] | None
    enclosing_nothing: Callable  # of `engine.jaxprs`


_beside: contextvars.ContextVar[SideBySide | None] = contextvars.ContextVar("_beside", default=None)


def lanes_side_by_side() -> SideBySide | None:
    """Return what lanes are traced with, if they take the products of their columns in one pass over the points."""
    beside = _beside.get()
    return None if beside is None or beside.sums is None else beside


@contextlib.contextmanager
def side_by_side(how: SideBySide | None) -> Iterator[None]:
    """Trace for lanes of a `vmap`, for which `system_at` then takes one pass over the points; None for another way."""
    token = _beside.set(how)
    try:
        yield
    finally:
        _beside.reset(token)


at_once = jax.lax.optimization_barrier  # keeps XLA from computing it anew wherever it is used


WIDTH = 8  # numbers that one instruction takes at most; a loop rounds those that are left over in another way


def in_full_width(function: Callable, lanes: int, args: Sequence[PyTree]) -> PyTree:
    """Return function(*args) of arrays whose last axis are the lanes, or 1, computed for a multiple of `WIDTH` lanes.

    So no lane is left over, and each has the same bits in every place. Numbers (lanes,) may meet arrays (k, lanes).
    """
    more = -lanes % WIDTH

    def padded(x):
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, more)]) if x.shape[-1] == lanes else x

    with jax.numpy_rank_promotion("allow"):
        if not more:
            return function(*args)
        found = at_once(function(*at_once(jax.tree.map(padded, list(args)))))
    return jax.tree.map(lambda x: x[..., :lanes] if x.shape[-1] == lanes + more else x, found)


def lanes_last(function: Callable, *args: PyTree) -> PyTree:
    """Return function(*args); of lanes side by side it is called once, with all of them along one more axis, the last.

    A loop over lanes whose numbers lie next to each other takes eight at once; over arrays (lanes, k, k), whose inner
    loops are short, it takes one. The function encloses no array, and takes and returns none without that axis.
    """
    if lanes_side_by_side() is None:
        return function(*args)
    alone = jax.custom_batching.custom_vmap(function)

    @alone.def_vmap
    def _(lanes, batched, *args):
        def last(own, x):
            return jnp.moveaxis(x, 0, -1) if own else jnp.asarray(x)[..., None]

        def first(x):
            return jnp.moveaxis(jnp.broadcast_to(x, (*x.shape[:-1], lanes)), -1, 0)

        found = in_full_width(function, lanes, jax.tree.map(last, list(batched), list(args)))
        found = jax.tree.map(first, found)
        return found, jax.tree.map(lambda _: True, found)

    return alone(*args)


def where_poor(
    poor: Array, function: Callable, given: Sequence[Array], batched: Sequence[bool], plain: PyTree, at: int = 0
) -> PyTree:
    """Return `plain`, with function(*given) for the lanes where it is too poor, which are computed one by one.

    Args:
      poor: (lanes,) bool.
      function: Of one lane, to a tree like `plain`.
      given: Those that are `batched` with a leading lane axis; the others are common to all lanes.
      plain: With the lanes along the axis `at`, as what is returned. Where many are poor the first is faster; the last
        where few are, and what comes before and after has them there.
    """
    places = np.arange(len(poor), dtype=np.int32)

    def next_one(carry):  # a scatter would keep XLA from making one function of the loop around it
        left, found = carry
        lane = jnp.min(jnp.where(left, places, len(places)))
        own = jax.lax.dynamic_index_in_dim
        one = function(*(own(x, lane, keepdims=False) if b else x for x, b in zip(given, batched, strict=True)))
        put = jax.lax.dynamic_update_index_in_dim
        return left & (places != lane), jax.tree.map(lambda all, x: put(all, x, lane, axis=at), found, one)

    return jax.lax.while_loop(lambda carry: jnp.any(carry[0]), next_one, (poor, plain))[1]


def where_asked(asked: Array, function: Callable, *args: PyTree) -> PyTree:
    """Return function(*args) where it is asked for, else zeros; of lanes side by side only those run."""
    leaves, structure = jax.tree.flatten(args)

    def of_leaves(*leaves):
        return function(*jax.tree.unflatten(structure, leaves))

    def otherwise(lanes, like):
        return jax.tree.map(lambda x: jnp.zeros((*lanes, *x.shape), x.dtype), like)

    beside = _beside.get()
    if beside is None:
        found = of_leaves(*leaves)
        return jax.tree.map(lambda a, b: jnp.where(asked, a, b), found, otherwise((), found))
    found, enclosed, like = beside.enclosing_nothing(of_leaves, *leaves)

    @jax.custom_batching.custom_vmap
    def chosen(asked, *given):
        return jax.tree.map(lambda a, b: jnp.where(asked, a, b), found(*given), otherwise((), like))

    @chosen.def_vmap
    def _(lanes, batched, asked, *given):
        asked = jnp.broadcast_to(asked, (lanes,))
        results = where_poor(asked, found, given, batched[1:], otherwise((lanes,), like))
        return results, jax.tree.map(lambda _: True, results)

    return chosen(asked, *leaves, *enclosed)
