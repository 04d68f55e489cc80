"""A pool of slots: many lanes side by side in one compiled program, which runs the lanes of a block to their ends.

A pool has a fixed number of slots, and runs a chunk of steps at a time. With a stop rule every step is judged; after
each chunk a slot whose lane has ended writes the result and loads the next lane of the block. Without a stop rule the
slots run in lock-step: they load together and end together, steps are not judged, and what does not depend on the lane
(Adam's step count, a shared batch) is kept once for all. Then lanes are judged once a chunk; if one has become
non-finite, the chunk is discarded and run again with every step judged, to find the step and the params.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.engine.compiling import fast_sums
from jaxfit.engine.inspections import Layout, lane_training, lock_step
from jaxfit.engine.loops import RUNNING, Best, State, Stepper, begin, check_end, stepper, take_steps
from jaxfit.engine.settings import current
from jaxfit.problems.marks import is_marked, plain, put
from jaxfit.problems.problems import STATUSES, Status, Training
from jaxfit.typing import PyTree


class PoolShape(NamedTuple):
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
    best: Best | None  # with patience
    rows: dict[str, PyTree]  # (lanes, records, ...), NaN after a lane's end; inside a pool (records, lanes, ...)


class Pool(NamedTuple):
    """A block that is being run.

    A pool whose `following` is zero has yet to load its first lanes. Nothing else in it is read before it is written,
    except the statuses of the results, which must be zero.
    """

    ids: Array  # (slots,) int32: the lane of each slot; from `real` on, none
    t: Array  # () int32 in lock-step, else (slots,)
    values: dict[str, PyTree]  # the slots' lanes' own values
    state: State  # of the slots
    loss: Array  # (slots,) at the last check
    validation_loss: Array | None
    results: Lanes  # of the block; rows after these are scratch space
    following: Array  # () int32: the next lane to load
    suspect: Array  # () bool: the next chunk repeats the last one, with every step judged


def chunk_of(template: Training) -> int:
    """Return the steps between two checks: a multiple of the stride of records."""
    every = template.record.every
    return every * max(1, (template.optimizer.traits.chunk or current().chunk) // every)


def pool_like(template: Training, layout: Layout, shape: PoolShape) -> Pool:
    """Return the shapes of a pool."""

    def stacked(*sizes: int) -> Callable[[Array], Array]:
        return lambda x: jax.ShapeDtypeStruct((*sizes, *x.shape), x.dtype)  # pyright: ignore[reportReturnType]

    column, slots = stacked(shape.lanes + shape.slots), stacked(shape.slots)
    height = shape.records + chunk_of(template) // template.record.every + 1
    number: Any = jax.ShapeDtypeStruct((), np.int32)
    flag: Any = jax.ShapeDtypeStruct((), np.bool_)
    state, end = layout.state, layout.end
    results = Lanes(
        params=jax.tree.map(column, layout.params),
        loss=column(end.loss),
        status=column(state.status),
        steps=column(state.steps),
        start_loss=column(state.start_loss),
        validation_loss=jax.tree.map(column, end.validation_loss),
        best=jax.tree.map(column, state.best and state.best._replace(params=layout.params)),
        rows=jax.tree.map(stacked(height, shape.lanes + shape.slots), end.row),
    )
    return Pool(
        ids=slots(number),
        t=number if lock_step(template) else slots(number),
        values=jax.tree.map(slots, layout.values),
        state=jax.tree.map(lambda a, x: x if a is None else slots(x), layout.axes, state, is_leaf=_is_none),
        loss=slots(end.loss),
        validation_loss=jax.tree.map(slots, end.validation_loss),
        results=results,
        following=number,
        suspect=flag,
    )


def run_pool(
    template: Training,
    columns: dict[str, PyTree],
    pool: Pool,
    real: Array,
    chunks: Array,
    layout: Layout,
    shape: PoolShape,
) -> tuple[Pool, Array]:
    """Run at most `chunks` chunks.

    Args:
      template: The problem with a place for each of the lanes' own values.
      columns: Those values, each with a leading axis of the block's lanes.
      pool: The block as it stands.
      real: () int32: the number of lanes of the block; those after them are padding.
      chunks: () int32.
      layout, shape: Of the pool.

    Returns:
      The pool, and (STATUSES,) int32: how many lanes there are of each status.
    """
    tick, write = (_together, write_neighbors) if lock_step(template) else (_refilling, write_scattered)

    def goes_on(carry):
        done, pool = carry
        return (done < chunks) & ((pool.following < real) | jnp.any(running(pool, real)))

    def body(carry):
        done, pool = carry
        return done + 1, tick(template, columns, pool, real, layout, shape)

    _, pool = jax.lax.while_loop(goes_on, body, (jnp.int32(0), pool))
    pool = pool._replace(results=write(template, pool, shape))
    status = jnp.where(jnp.arange(pool.results.status.size) < real, pool.results.status, -1)
    return pool, jnp.sum(status[:, None] == jnp.arange(STATUSES)[None, :], axis=0, dtype=np.int32)


def running(pool: Pool, real: Array) -> Array:
    """Return (slots,) whether a slot holds a lane that still runs."""
    return (pool.state.status == RUNNING) & (pool.ids < real) & (pool.following > 0)


def _together(template: Training, columns: dict, pool: Pool, real: Array, layout: Layout, shape: PoolShape) -> Pool:
    """Run one chunk in lock-step; if no lane runs any more, first write all results and load the next lanes.

    If a lane becomes non-finite, the chunk is discarded, and the next one repeats it with every step judged.
    """
    axes, every, chunk = layout.axes, template.record.every, chunk_of(template)

    def next_lanes():
        values = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, pool.following, shape.slots), columns)
        return pool._replace(
            ids=pool.following + jnp.arange(shape.slots, dtype=np.int32),
            t=jnp.int32(0),
            values=values,
            state=start(template, values, axes),
            results=write_neighbors(template, pool, shape),
            following=pool.following + shape.slots,
        )

    pool = jax.lax.cond(jnp.any(running(pool, real)), lambda: pool, next_lanes)
    live = running(pool, real)
    doubled = jnp.maximum(
        every * max(1, current().first_chunk // every), pool.t // every * every
    )  # most failures come early
    count = jnp.minimum(jnp.minimum(chunk, doubled), template.steps - pool.t)

    def steps(judged):
        return many(template, pool.values, axes, judged=judged)

    def stretch(judged):
        rows = blank_rows(layout, shape, chunk // every)
        return take_steps(steps(judged), pool.state, pool.t, count, rows, every=every)

    moved, piece = jax.lax.cond(pool.suspect, lambda: stretch(True), lambda: stretch(False))
    new, piece, end = check_end(steps(True), moved, piece, pool.t, count, every=every)
    failed = (new.status == Status.NOT_FINITE) | ~jnp.isfinite(end.loss)
    failed |= ~jnp.isfinite(pool.state.start_loss) | ~_finite_rows(piece, count, every)
    suspect = ~pool.suspect & jnp.any(live & failed)
    accepted = live & ~suspect
    rows = jax.tree.map(lambda all, one: _paste(all, one, pool.t // every, pool.ids[0]), pool.results.rows, piece)
    return pool._replace(
        t=jnp.where(suspect, pool.t, pool.t + count),
        state=jax.tree.map(lambda a, b: jnp.where(suspect, b, a), merge(accepted, new, pool.state, axes), pool.state),
        loss=pick(accepted, end.loss, pool.loss),
        validation_loss=jax.tree.map(lambda a, b: pick(accepted, a, b), end.validation_loss, pool.validation_loss),
        results=pool.results._replace(rows=rows),
        suspect=suspect,
    )


def _refilling(template: Training, columns: dict, pool: Pool, real: Array, layout: Layout, shape: PoolShape) -> Pool:
    """Run one chunk of slots at their own steps; first, slots whose lane has ended write it and load another."""
    axes, every, chunk = layout.axes, template.record.every, chunk_of(template)
    ended = (pool.following == 0) | (pool.state.status != RUNNING) & (pool.ids < real)

    def next_lanes():
        rank = jnp.cumsum(ended, dtype=np.int32)
        ids = jnp.where(ended, pool.following + rank - 1, pool.ids)
        fresh = load(columns, ids)
        values = jax.tree.map(lambda a, b: pick(ended, a, b), fresh, pool.values)
        return pool._replace(
            ids=ids,
            t=jnp.where(ended, 0, pool.t),
            values=values,
            state=merge(ended, start(template, values, axes), pool.state, axes),
            results=write_scattered(template, pool, shape),
            following=pool.following + rank[-1],
        )

    pool = jax.lax.cond(jnp.any(ended), next_lanes, lambda: pool)
    steps = many(template, pool.values, axes, judged=True)
    count, piece = jnp.int32(chunk), blank_rows(layout, shape, chunk // every)
    state, piece = take_steps(steps, pool.state, pool.t, count, piece, every=every)
    state, piece, end = check_end(steps, state, piece, pool.t, count, every=every)
    rows = pool.results.rows
    if rows:
        height = jnp.arange(chunk // every + 1)
        at = (pool.t // every)[None, :] + height[:, None]
        lane = jnp.broadcast_to(pool.ids[None, :], at.shape)
        rows = jax.tree.map(lambda all, one: all.at[at, lane].set(one, mode="drop"), rows, piece)
    return pool._replace(
        t=pool.t + chunk,
        state=state,
        loss=end.loss,
        validation_loss=end.validation_loss,
        results=pool.results._replace(rows=rows),
    )


def load(columns: dict[str, PyTree], ids: Array) -> dict[str, PyTree]:
    """Return the own values of the lanes `ids`; after the end of the block, those of its last lane."""
    return jax.tree.map(lambda x: x[jnp.minimum(ids, x.shape[0] - 1)], columns)


def _plain_params(template: Training, values: dict[str, PyTree], params: PyTree) -> PyTree:
    """Return the free params of the slots as the user's own tree."""
    if not is_marked(
        jax.eval_shape(lambda: lane_training(template, jax.tree.map(lambda x: x[0], values))).problem.params
    ):
        return params
    return jax.vmap(lambda v, params: plain(put(lane_training(template, v).problem.params, params)))(values, params)


def write_neighbors(template: Training, pool: Pool, shape: PoolShape) -> Lanes:
    """Return the results with those of the slots, whose lanes are neighbors, written into them."""
    at = jnp.where(pool.following == 0, shape.lanes, pool.ids[0])
    return _write(template, pool, lambda all, one: jax.lax.dynamic_update_slice_in_dim(all, one, at, axis=0))


def write_scattered(template: Training, pool: Pool, shape: PoolShape) -> Lanes:
    """Return the results with those of the slots whose lane has ended written into them."""
    at = jnp.where((pool.following == 0) | (pool.state.status == RUNNING), shape.lanes, pool.ids)
    return _write(template, pool, lambda all, one: all.at[at].set(one, mode="drop"))


def _write(template: Training, pool: Pool, put: Callable) -> Lanes:
    state, best = pool.state, pool.state.best
    if best is not None:
        best = best._replace(params=_plain_params(template, pool.values, best.params))
    new = Lanes(
        params=_plain_params(template, pool.values, state.params),
        loss=pool.loss,
        status=state.status,
        steps=state.steps,
        start_loss=state.start_loss,
        validation_loss=pool.validation_loss,
        best=best,
        rows={},
    )
    return jax.tree.map(put, pool.results._replace(rows={}), new)._replace(rows=pool.results.rows)


def read_pool(pool: Pool, real: int, shape: PoolShape, every: int) -> Lanes:
    """Return the results of the lanes, without padding, as NumPy arrays; histories are NaN after a lane's end.

    In memory a history stays as it was written, row by row: to transpose it takes longer than to make it.
    """
    results = jax.tree.map(np.asarray, pool.results)
    rows = jax.tree.map(lambda x: x[: shape.records, :real].copy(), results.rows)
    cut = jax.tree.map(lambda x: x[:real].copy(), results._replace(rows={}))
    beyond = np.arange(shape.records)[:, None] * every > cut.steps[None, :]
    if beyond.any():
        for x in jax.tree.leaves(rows):
            x[beyond] = np.nan
    return cut._replace(rows=jax.tree.map(lambda x: np.moveaxis(x, 0, 1), rows))


def many(template: Training, values: dict[str, PyTree], axes: State, *, judged: bool) -> Stepper:
    """Return the functions of a step for many lanes; in lock-step at one step number, else each at its own."""
    time = None if lock_step(template) else 0

    def lane(name):
        def one(values, state, t):
            return getattr(stepper(lane_training(template, values), judged=judged), name)(state, t)

        out = axes if name == "unrecorded" else (axes, 0)
        mapped = jax.vmap(one, in_axes=(0, axes, time), out_axes=out)
        return functools.partial(mapped, values)

    return Stepper(*map(lane, Stepper._fields))


def start(template: Training, values: dict[str, PyTree], axes: State) -> State:
    return jax.vmap(fast_sums(lambda v: begin(lane_training(template, v))), out_axes=axes)(values)


def pick(mask: Array, new: Array, old: Array) -> Array:
    """Return `new` for the lanes where the mask is true, `old` for the others."""
    return jnp.where(mask.reshape(mask.shape + (1,) * (new.ndim - 1)), new, old)


def _is_none(x: object) -> bool:
    return x is None


def merge(mask: Array, new: State, old: State, axes: State) -> State:
    """Return the new state for the lanes where the mask is true; what lanes share is always new."""
    return jax.tree.map(lambda axis, a, b: a if axis is None else pick(mask, a, b), axes, new, old, is_leaf=_is_none)


def blank_rows(layout: Layout, shape: PoolShape, capacity: int) -> dict[str, PyTree]:
    return jax.tree.map(lambda x: jnp.zeros((capacity + 1, shape.slots, *x.shape), x.dtype), layout.end.row)


def _paste(all: Array, piece: Array, row: Array, lane: Array) -> Array:
    return jax.lax.dynamic_update_slice(all, piece, (row, lane) + (jnp.int32(0),) * (all.ndim - 2))


def _finite_rows(piece: dict[str, PyTree], count: Array, every: int) -> Array:
    if "loss" not in piece:
        return jnp.asarray(True)
    meant = jnp.arange(piece["loss"].shape[0]) * every < count
    return jnp.all(jnp.isfinite(piece["loss"]) | ~meant[:, None], axis=0)
