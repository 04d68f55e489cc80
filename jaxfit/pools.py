"""Many lanes in one compiled program: a block of lanes, run to exhaustion by a pool of slots.

A pool has a fixed number of slots, and runs a chunk of steps at a time. Without a stop rule the slots go in lock-step:
they load together and end together, no step is judged, and what does not depend on the lane (Adam's step count, a
shared batch) is kept once for all. Lanes are looked at once a chunk; a chunk in which one met trouble is run again
with a look at every step, so that the trouble has its step and its params. With a stop rule every step is judged, and a
slot whose lane has ended writes the result and loads the next lane of the block.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.checks import as_params
from jaxfit.markers import fill, resolve
from jaxfit.parameters import is_marked
from jaxfit.problems import Problem, Status
from jaxfit.steps import RUNNING, State, Stepper, advance, begin, stepper, users, watch, watched
from jaxfit.tracing import depends, trace

PyTree = Any
CHUNK = 512  # steps between two looks, about
FIRST = 32  # steps before the first look in lock-step; the stretches double from there


class Shape(NamedTuple):
    """What fixes a pool's program beside the problem itself."""

    slots: int  # lanes side by side
    lanes: int  # in a block
    records: int  # rows of history to keep of each lane; 0 for none


class Lanes(NamedTuple):
    """What is known of each lane at its end; every array has a leading lane axis."""

    params: PyTree
    loss: Array
    status: Array  # int32
    steps: Array  # int32
    start_loss: Array
    validation_loss: Array | None
    rows: dict[str, PyTree]  # (lanes, records, ...), NaN after a lane's end; inside a pool (records, lanes, ...)


class Pool(NamedTuple):
    """A block under way."""

    ids: Array  # (slots,) int32: the lane of each slot; from `real` on, none
    t: Array  # () int32 in lock-step, else (slots,)
    values: dict[str, PyTree]  # the slots' lanes' own values
    state: State  # of the slots
    loss: Array  # (slots,) where a lane ended
    validation_loss: Array | None
    results: Lanes  # of the block, and some rows that nobody reads
    following: Array  # () int32: the next lane to load


def lane_problem(template: Problem, values: dict[str, PyTree]) -> Problem:
    """The problem of one lane: its own values filled in, its calls run."""
    problem = fill(template, values)
    return problem._replace(params=as_params(resolve(problem.params)))


def chunk_of(template: Problem) -> int:
    """Steps between two looks: a multiple of the stride of records."""
    every = template.record.every
    return every * max(1, getattr(template.optimizer.call.function, "chunk", CHUNK) // every)


def lock_step(template: Problem) -> bool:
    return not watched(template)


def open_pool(template: Problem, columns: dict[str, PyTree], shape: Shape) -> Pool:
    """A block with its first lanes loaded.

    Args:
      template: The problem with a place for each of the lanes' own values.
      columns: Those values, each with a leading axis of the block's lanes.
      shape: Of the pool.
    """
    ids = jnp.arange(shape.slots, dtype=np.int32)
    values = load(columns, ids)
    axes = axes_of(template, columns)
    state = start(template, values, axes)
    _, end = jax.eval_shape(
        lambda v, s: many(template, v, axes, watching=True).look(s, _clock(template, shape)), values, state
    )
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), end)
    room = shape.lanes + shape.slots
    height = shape.records + chunk_of(template) // template.record.every + 1

    def column(x):
        return jnp.zeros((room, *x.shape[1:]), x.dtype)

    results = Lanes(
        params=jax.tree.map(column, jax.eval_shape(lambda v, s: users_params(template, v, s), values, state)),
        loss=column(end.loss),
        status=jnp.zeros(room, np.int32),
        steps=jnp.zeros(room, np.int32),
        start_loss=column(state.start_loss),
        validation_loss=jax.tree.map(column, end.validation_loss),
        rows=jax.tree.map(lambda x: jnp.zeros((height, room, *x.shape[1:]), x.dtype), end.row),
    )
    return Pool(
        ids, _clock(template, shape), values, state, blank.loss, blank.validation_loss, results, jnp.int32(shape.slots)
    )


def run_pool(
    template: Problem, columns: dict[str, PyTree], pool: Pool, real: Array, chunks: Array, shape: Shape
) -> tuple[Pool, Array]:
    """At most `chunks` chunks further.

    Args:
      template, columns, shape: As for `open_pool`.
      pool: Where it stands.
      real: () int32: lanes of the block that are meant; those after them only fill it up.
      chunks: () int32.

    Returns:
      The pool, and (5,) int32: how many lanes there are of each status, NOT_RUN first.
    """
    axes = axes_of(template, columns)
    tick = _together if lock_step(template) else _refilling

    def goes_on(carry):
        done, pool = carry
        return (done < chunks) & jnp.any(pool.ids < real)

    def body(carry):
        done, pool = carry
        return done + 1, tick(template, columns, pool, real, axes, shape)

    _, pool = jax.lax.while_loop(goes_on, body, (jnp.int32(0), pool))
    status = jnp.where(jnp.arange(pool.results.status.size) < real, pool.results.status, -1)
    return pool, jnp.sum(status[:, None] == jnp.arange(len(Status))[None, :], axis=0, dtype=np.int32)


def _together(template: Problem, columns: dict, pool: Pool, real: Array, axes: State, shape: Shape) -> Pool:
    """One chunk in lock-step; when no lane runs any more, all results are written and the next lanes loaded."""
    every, chunk = template.record.every, chunk_of(template)
    doubled = jnp.maximum(every * max(1, FIRST // every), pool.t // every * every)  # most trouble comes soon
    count = jnp.minimum(jnp.minimum(chunk, doubled), template.steps - pool.t)

    def stretch(watching):
        steps = many(template, pool.values, axes, watching=watching)
        return advance(steps, pool.state, pool.t, count, every=every, capacity=chunk // every)

    live = (pool.state.status == RUNNING) & (pool.ids < real)
    plain = stretch(False)
    trouble = (plain[0].status == Status.NOT_FINITE) | ~jnp.isfinite(plain[2].loss)
    trouble |= ~jnp.isfinite(pool.state.start_loss) | ~_finite_rows(plain[1], count, every)
    new, piece, end = jax.lax.cond(jnp.any(live & trouble), lambda: stretch(True), lambda: plain)
    state = merge(live, new, pool.state, axes)
    t = pool.t + count
    rows = jax.tree.map(lambda all, one: _paste(all, one, pool.t // every, pool.ids[0]), pool.results.rows, piece)
    pool = pool._replace(
        t=t,
        state=state,
        loss=pick(live, end.loss, pool.loss),
        validation_loss=jax.tree.map(lambda a, b: pick(live, a, b), end.validation_loss, pool.validation_loss),
        results=pool.results._replace(rows=rows),
    )

    def next_lanes():
        ids = pool.ids + shape.slots
        values = load(columns, ids)
        return pool._replace(
            ids=ids,
            t=jnp.int32(0),
            values=values,
            state=start(template, values, axes),
            results=write(template, pool, pool.ids),
        )

    over = (t >= template.steps) | ~jnp.any((state.status == RUNNING) & (pool.ids < real))
    return jax.lax.cond(over, next_lanes, lambda: pool)


def _refilling(template: Problem, columns: dict, pool: Pool, real: Array, axes: State, shape: Shape) -> Pool:
    """One chunk of slots that each go their own way; those whose lane has ended load another."""
    every, chunk = template.record.every, chunk_of(template)
    steps = many(template, pool.values, axes, watching=True)
    state, piece, end = advance(steps, pool.state, pool.t, jnp.int32(chunk), every=every, capacity=chunk // every)
    rows = pool.results.rows
    if rows:
        height = jnp.arange(chunk // every + 1)
        at = (pool.t // every)[None, :] + height[:, None]
        lane = jnp.broadcast_to(pool.ids[None, :], at.shape)
        rows = jax.tree.map(lambda all, one: all.at[at, lane].set(one, mode="drop"), rows, piece)
    held = pool.ids < real
    pool = pool._replace(
        t=pool.t + chunk,
        state=state,
        loss=end.loss,
        validation_loss=end.validation_loss,
        results=pool.results._replace(rows=rows),
    )
    ended = (state.status != RUNNING) & held

    def next_lanes():
        rank = jnp.cumsum(ended, dtype=np.int32)
        ids = jnp.where(ended, pool.following + rank - 1, pool.ids)
        fresh = load(columns, ids)
        values = jax.tree.map(lambda a, b: pick(ended, a, b), fresh, pool.values)
        return pool._replace(
            ids=ids,
            t=jnp.where(ended, 0, pool.t),
            values=values,
            state=merge(ended, start(template, values, axes), state, axes),
            results=write(template, pool, jnp.where(ended, pool.ids, shape.lanes)),
            following=pool.following + rank[-1],
        )

    return jax.lax.cond(jnp.any(ended), next_lanes, lambda: pool)


def load(columns: dict[str, PyTree], ids: Array) -> dict[str, PyTree]:
    """The own values of the lanes `ids`; an id beyond the block gets the last lane's."""
    return jax.tree.map(lambda x: x[jnp.minimum(ids, x.shape[0] - 1)], columns)


def users_params(template: Problem, values: dict[str, PyTree], state: State) -> PyTree:
    """The params of the slots as the user's own tree."""
    if not is_marked(jax.eval_shape(lambda: lane_problem(template, jax.tree.map(lambda x: x[0], values))).params):
        return state.params
    return jax.vmap(lambda v, params: users(lane_problem(template, v), params))(values, state.params)


def write(template: Problem, pool: Pool, at: Array) -> Lanes:
    """The results with those of the slots at the places `at`."""
    state, results = pool.state, pool.results
    new = (
        users_params(template, pool.values, state),
        pool.loss,
        state.status,
        state.steps,
        state.start_loss,
        pool.validation_loss,
    )
    put = jax.tree.map(lambda all, one: all.at[at].set(one, mode="drop"), tuple(results[:6]), new)
    return Lanes(*put, rows=results.rows)  # pyright: ignore[reportCallIssue]


def read_pool(pool: Pool, real: int, shape: Shape, every: int) -> Lanes:
    """The results of the lanes that were meant, as NumPy arrays, histories NaN after a lane's end."""
    results = jax.tree.map(np.asarray, pool.results)
    rows = jax.tree.map(lambda x: np.moveaxis(x[: shape.records, :real], 0, 1).copy(), results.rows)
    cut = jax.tree.map(lambda x: x[:real].copy(), results._replace(rows={}))
    beyond = np.arange(shape.records)[None, :] * every > cut.steps[:, None]
    for x in jax.tree.leaves(rows):
        x[beyond] = np.nan
    return cut._replace(rows=rows)


def many(template: Problem, values: dict[str, PyTree], axes: State, *, watching: bool) -> Stepper:
    """The steps of many lanes side by side; in lock-step at one time, else each at its own."""
    time = None if lock_step(template) else 0

    def lane(name):
        def one(values, state, t):
            return getattr(stepper(lane_problem(template, values), watching=watching), name)(state, t)

        out = axes if name == "unrecorded" else (axes, 0)
        mapped = jax.vmap(one, in_axes=(0, axes, time), out_axes=out)
        return functools.partial(mapped, values)

    return Stepper(*map(lane, Stepper._fields))


def start(template: Problem, values: dict[str, PyTree], axes: State) -> State:
    return jax.vmap(lambda v: begin(lane_problem(template, v)), out_axes=axes)(values)


def pick(mask: Array, new: Array, old: Array) -> Array:
    """Lane by lane, `new` where the mask is true."""
    return jnp.where(mask.reshape(mask.shape + (1,) * (new.ndim - 1)), new, old)


def merge(mask: Array, new: State, old: State, axes: State) -> State:
    """Lane by lane the new state where the mask is true; what lanes share is always new."""
    return jax.tree.map(
        lambda axis, a, b: a if axis is None else pick(mask, a, b), axes, new, old, is_leaf=lambda x: x is None
    )


def _clock(template: Problem, shape: Shape) -> Array:
    return jnp.int32(0) if lock_step(template) else jnp.zeros(shape.slots, np.int32)


def _paste(all: Array, piece: Array, row: Array, lane: Array) -> Array:
    return jax.lax.dynamic_update_slice(all, piece, (row, lane) + (jnp.int32(0),) * (all.ndim - 2))


def _finite_rows(piece: dict[str, PyTree], count: Array, every: int) -> Array:
    if "loss" not in piece:
        return jnp.asarray(True)
    meant = jnp.arange(piece["loss"].shape[0]) * every < count
    return jnp.all(jnp.isfinite(piece["loss"]) | ~meant[:, None], axis=0)


def axes_of(template: Problem, columns: dict[str, PyTree]) -> State:
    """For each leaf of the state, 0 if lanes may differ in it, None if they share it.

    Slots that go their own way share nothing. In lock-step it is found in the program: a leaf is shared if neither its
    start nor its update depends on a lane's own values.
    """
    values = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), columns)
    first, state = jax.make_jaxpr(lambda v: begin(lane_problem(template, v)), return_shape=True)(values)
    if not lock_step(template):
        return jax.tree.map(lambda _: 0, state)
    update = jax.make_jaxpr(lambda v, s, t: watch(lane_problem(template, v), s, t)[0])(values, state, np.int32(0))
    given = [True] * len(jax.tree.leaves(values))
    own = depends(first.jaxpr, given)
    while (grown := [a or b for a, b in zip(own, depends(update.jaxpr, [*given, *own, False]), strict=True)]) != own:
        own = grown
    axes = jax.tree.unflatten(jax.tree.structure(state), [0 if yes else None for yes in own])
    return axes._replace(params=jax.tree.map(lambda _: 0, state.params), status=0, steps=0, start_loss=0)


def working_bytes(problem: Problem) -> int:
    """Bytes that a step of one lane works on: its state, and the inputs and outputs of its largest operation."""
    _, state = trace(begin, problem)
    step, _ = trace(lambda p, s, t: watch(p, s, t)[0], problem, state, np.int32(0))
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) + largest(step.jaxpr)


def largest(jaxpr: Any) -> int:
    def size(variable):
        shape, dtype = getattr(variable.aval, "shape", ()), getattr(variable.aval, "dtype", None)
        return math.prod(shape) * getattr(dtype, "itemsize", 4)

    own = [sum(size(v) for v in (*equation.invars, *equation.outvars)) for equation in jaxpr.eqns]
    inner = [e.params["jaxpr"].jaxpr for e in jaxpr.eqns if hasattr(e.params.get("jaxpr"), "jaxpr")]
    return max([0, *own, *map(largest, inner)])
