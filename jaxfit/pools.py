"""Many lanes in one compiled program: a block of them, advanced side by side.

A block runs in chunks of steps. Without a stop rule no step is judged: lanes are looked at once a chunk, and a chunk
in which one met trouble is run again with a look at every step, so that the trouble has its step and its params.
What does not depend on the lane (Adam's step count, a shared shuffle) is kept once for the block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.checks import as_params
from jaxfit.markers import fill, resolve
from jaxfit.problems import Problem, Status
from jaxfit.steps import RUNNING, State, advance, begin, watch, watched
from jaxfit.tracing import depends

PyTree = Any
CHUNK = 256  # steps between two looks


class Lanes(NamedTuple):
    """What is known of each lane at its end; every array has a leading lane axis."""

    params: PyTree
    loss: Array
    status: Array
    steps: Array
    start_loss: Array
    validation_loss: Array | None
    rows: dict[str, PyTree]  # (lanes, records, ...), NaN after a lane's end


def lane_problem(template: Problem, values: dict[str, PyTree]) -> Problem:
    """The problem of one lane: its own values filled in, its calls run."""
    problem = fill(template, values)
    return problem._replace(params=as_params(resolve(problem.params)))


def run_block(template: Problem, columns: dict[str, PyTree], *, records: int) -> Lanes:
    """Runs a block of lanes to their ends.

    Args:
      template: The problem with a place for each of the lanes' own values.
      columns: Those values, each with a leading lane axis.
      records: Rows of history to keep; 0 for none.
    """
    every = template.record.every
    chunk = every * max(1, CHUNK // every)
    shared = shared_axes(template, columns)
    looking = watched(template)

    def stretch(watching: bool) -> Callable:
        def lane(values, state, t, count):
            problem = lane_problem(template, values)
            return advance(problem, state, t, count, capacity=chunk // every, watching=watching)

        return jax.vmap(lane, in_axes=(0, shared, None, None), out_axes=(shared, 0, 0))

    start = jax.vmap(lambda values: begin(lane_problem(template, values)), out_axes=shared)(columns)
    _, shapes, end_shape = jax.eval_shape(stretch(True), columns, start, jnp.int32(0), jnp.int32(0))
    room = records + chunk // every + 1 if records else 0
    rows = jax.tree.map(lambda x: jnp.full((x.shape[0], room, *x.shape[2:]), jnp.nan, x.dtype), shapes)
    end = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), end_shape)

    def body(carry):
        t, state, rows, end = carry
        count = jnp.minimum(chunk, template.steps - t)
        if looking:
            new, piece, reached = stretch(True)(columns, state, t, count)
        else:
            new, piece, reached = stretch(False)(columns, state, t, count)
            trouble = running(state) & ((new.status == Status.NOT_FINITE) | ~jnp.isfinite(reached.loss) | ~_finite_rows(piece, count, every))
            new, piece, reached = jax.lax.cond(
                jnp.any(trouble),
                lambda: stretch(True)(columns, state, t, count),
                lambda: (new, piece, reached),
            )
        live = running(state)
        new = merge(live, new, state, shared)
        end = jax.tree.map(lambda a, b: pick(live, a, b), reached, end)
        if records:
            rows = jax.tree.map(
                lambda all, one: jax.lax.dynamic_update_slice_in_dim(all, one, t // every, axis=1), rows, piece
            )
        return t + count, new, rows, end

    def goes_on(carry):
        t, state, _, _ = carry
        return (t < template.steps) & jnp.any(running(state))

    _, state, rows, end = jax.lax.while_loop(goes_on, body, (jnp.int32(0), start, rows, end))
    at = jnp.arange(records, dtype=np.int32) * every
    kept = jax.tree.map(lambda x: _blank_after(x[:, :records], at, state.steps), rows)
    return Lanes(
        state.params, end.loss, state.status, state.steps, state.start_loss, end.validation_loss, kept if records else {}
    )


def running(state: State) -> Array:
    return state.status == RUNNING


def pick(mask: Array, new: Array, old: Array) -> Array:
    """Lane by lane, `new` where the mask is true."""
    return jnp.where(mask.reshape(mask.shape + (1,) * (new.ndim - 1)), new, old)


def merge(mask: Array, new: State, old: State, shared: State) -> State:
    """Lane by lane the new state where the mask is true; what lanes share is always new."""
    return jax.tree.map(
        lambda axis, a, b: a if axis is None else pick(mask, a, b), shared, new, old, is_leaf=lambda x: x is None
    )


def _finite_rows(piece: dict[str, PyTree], count: Array, every: int) -> Array:
    if "loss" not in piece:
        return jnp.asarray(True)
    meant = jnp.arange(piece["loss"].shape[1]) * every < count
    return jnp.all(jnp.isfinite(piece["loss"]) | ~meant[None, :], axis=1)


def _blank_after(rows: Array, at: Array, steps: Array) -> Array:
    meant = at[None, :] <= steps[:, None]
    return jnp.where(meant.reshape(meant.shape + (1,) * (rows.ndim - 2)), rows, jnp.nan)


def shared_axes(template: Problem, columns: dict[str, PyTree]) -> State:
    """For each leaf of the state, 0 if lanes may differ in it, None if all lanes share it.

    Found in the program: a leaf is shared if neither its start nor its update depends on a lane's own values.
    """
    values = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), columns)
    first, state = jax.make_jaxpr(lambda v: begin(lane_problem(template, v)), return_shape=True)(values)
    update = jax.make_jaxpr(lambda v, s, t: watch(lane_problem(template, v), s, t)[0])(values, state, np.int32(0))
    given = [True] * len(jax.tree.leaves(values))
    own = depends(first.jaxpr, given)
    while (grown := [a or b for a, b in zip(own, depends(update.jaxpr, [*given, *own, False]), strict=True)]) != own:
        own = grown
    axes = jax.tree.unflatten(jax.tree.structure(state), [0 if yes else None for yes in own])
    return axes._replace(params=jax.tree.map(lambda _: 0, state.params), status=0, steps=0, start_loss=0)
