"""A pool of slots: many lanes side by side in one compiled program, which runs the lanes of a block to their ends.

A pool has a fixed number of slots, and runs a chunk of steps at a time. With a stop rule every step is judged; after
each chunk a slot whose lane has ended writes the result and loads the next lane of the block. Without a stop rule the
slots run in lock-step: they load together and end together, steps are not judged, and what does not depend on the lane
(Adam's step count, a shared batch) is kept once for all. Then lanes are judged once a chunk; if one has become
non-finite, the chunk is discarded and run again with every step judged, to find the step and the params.

A pool may keep, beside the results, what a lane needs to go on with more steps. Another pool of the same shape then
starts from such results; a lane has the same bits as if it had been run at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.engine.compiling import fast_sums, lanes_in_one_pass
from jaxfit.engine.inspections import LaneLayout, lane_training, lock_step
from jaxfit.engine.loops import RUNNING, Best, State, Stepper, begin, check_end, stepper, take_steps
from jaxfit.engine.settings import current
from jaxfit.optimizers.lanes import WIDTH, side_by_side
from jaxfit.problems import STATUSES, Status, Training
from jaxfit.problems.axes import is_key
from jaxfit.problems.marks import is_marked, put, values_of
from jaxfit.typing import PyTree


class PoolShape(NamedTuple):
    """What fixes a pool's program beside the problem itself."""

    slots: int  # lanes side by side
    lanes: int  # in a block
    records: int  # rows of history to keep of each lane; 0 for none
    keeps: bool = False  # whether the results have what lanes need to go on


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
    kept: State | None = None  # what else a lane needs to go on; zero if it has come to an end


class Pool(NamedTuple):
    """A block that is being run.

    A pool whose `following` is zero has yet to load its first lanes. Nothing else in it is read before it is written,
    except the statuses of the results, which must be zero.
    """

    ids: Array  # (slots,) int32: the lane of each slot; from `real` on, none
    t: Array  # () int32 in lock-step, else (slots,)
    values: dict[str, PyTree]  # the slots' lanes' own values
    state: State  # of the slots, which run along `axis_of_slots`
    loss: Array  # (slots,) at the last check
    validation_loss: Array | None
    results: Lanes  # of the block; rows after these are scratch space
    following: Array  # () int32: the next lane to load
    since: Array | None  # () int32: the step from which lanes go on, whose results are there; None if nothing is kept
    suspect: Array  # () bool: the next chunk repeats the last one, with every step judged


WAITING = 2 / 3  # of the slots: with fewer lanes that run, it pays to load others before the end of a chunk


def axis_of_slots(template: Training, slots: int) -> int:
    """Return the axis of the slots in the leaves of their state: where the method's own arithmetic has it."""
    return -1 if template.optimizer.traits.residuals and slots % WIDTH == 0 else 0


def chunk_of(template: Training) -> int:
    """Return the steps between two checks: a multiple of the stride of records."""
    every = template.record.every
    return every * max(1, (template.optimizer.traits.chunk or current().chunk) // every)


def pool_like(template: Training, layout: LaneLayout, shape: PoolShape) -> Pool:
    """Return the shapes of a pool."""

    def stacked(*sizes: int) -> Callable[[Array], Array]:
        return lambda x: jax.ShapeDtypeStruct((*sizes, *x.shape), x.dtype)  # pyright: ignore[reportReturnType]

    def of_slots(x: Array) -> jax.ShapeDtypeStruct:
        sizes = (shape.slots, *x.shape) if at == 0 else (*x.shape, shape.slots)
        return jax.ShapeDtypeStruct(sizes, x.dtype)

    at = axis_of_slots(template, shape.slots)
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
        kept=jax.tree.map(column, jax.eval_shape(lambda s: state_to_keep(s, layout.marked), state))
        if shape.keeps
        else None,
        rows=jax.tree.map(stacked(height, shape.lanes + shape.slots), end.row),
    )
    return Pool(
        ids=slots(number),
        t=number if lock_step(template) else slots(number),
        values=jax.tree.map(slots, layout.values),
        state=jax.tree.map(lambda a, x: x if a is None else of_slots(x), layout.axes, state, is_leaf=_is_none),
        loss=slots(end.loss),
        validation_loss=jax.tree.map(slots, end.validation_loss),
        results=results,
        following=number,
        since=number if shape.keeps else None,
        suspect=flag,
    )


def state_to_keep(state: State, marked: bool) -> State:
    """Return the part of a lane's state that it needs to go on and its results do not have; of keys their data."""
    best = state.best._replace(validation_loss=None, step=None) if marked and state.best is not None else None
    to_keep = state._replace(
        params=state.params if marked else None, start_loss=None, status=None, steps=None, best=best
    )
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, to_keep)


def run_pool(
    template: Training,
    columns: dict[str, PyTree],
    pool: Pool,
    real: Array,
    chunks: Array,
    layout: LaneLayout,
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
        pool = tick(template, columns, pool, real, layout, shape)
        return done + 1, pool._replace(results=write(template, pool, real, layout))

    _, pool = jax.lax.while_loop(goes_on, body, (jnp.int32(0), pool))
    status = jnp.where(jnp.arange(pool.results.status.size) < real, pool.results.status, -1)
    return pool, jnp.sum(status[:, None] == jnp.arange(STATUSES)[None, :], axis=0, dtype=np.int32)


def running(pool: Pool, real: Array) -> Array:
    """Return (slots,) whether a slot holds a lane that still runs."""
    return (pool.state.status == RUNNING) & (pool.ids < real) & (pool.following > 0)


def _together(template: Training, columns: dict, pool: Pool, real: Array, layout: LaneLayout, shape: PoolShape) -> Pool:
    """Run one chunk in lock-step; if no lane runs any more, first load the next lanes.

    If a lane becomes non-finite, the chunk is discarded, and the next one repeats it with every step judged.
    """
    axes, every, chunk = layout.axes, template.record.every, chunk_of(template)

    def next_lanes(pool):
        def own(x):
            return jax.lax.dynamic_slice_in_dim(x, pool.following, shape.slots)

        values = jax.tree.map(own, columns)
        return pool._replace(
            ids=pool.following + jnp.arange(shape.slots, dtype=np.int32),
            t=first_step(pool),
            values=values,
            state=loaded(template, values, pool, layout, own, lambda x: x[pool.following]),
            following=pool.following + shape.slots,
        )

    pool = once(~jnp.any(running(pool, real)), next_lanes, pool)
    live = running(pool, real)
    count = jnp.minimum(next_check(pool.t, every, chunk), template.steps) - pool.t

    ends = pool.suspect | (pool.t + count >= template.steps)

    def steps(judged):
        return many(template, pool.values, axes, judged=judged, ends=ends)

    def stretch(judged):
        rows = blank_rows(layout, shape, chunk // every)
        return take_steps(steps(judged), pool.state, pool.t, count, rows, every=every)[:2]

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


def _refilling(
    template: Training, columns: dict, pool: Pool, real: Array, layout: LaneLayout, shape: PoolShape
) -> Pool:
    """Run one chunk of slots at their own steps; first, slots whose lane has ended load another."""
    every, chunk, at = template.record.every, chunk_of(template), axis_of_slots(template, shape.slots)
    ended = (pool.following == 0) | (pool.state.status != RUNNING) & (pool.ids < real)

    def next_lanes(pool):
        rank = jnp.cumsum(ended, dtype=np.int32)
        ids = jnp.where(ended, pool.following + rank - 1, pool.ids)
        first = jnp.minimum(pool.following, shape.lanes - shape.slots)
        near = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, shape.slots), columns)
        taken = jnp.minimum(ids, shape.lanes)
        values = jax.tree.map(lambda a, b: pick(ended, a, b), load(near, ids - first), pool.values)
        fresh = loaded(template, values, pool, layout, lambda x: x[taken], at=at)
        return pool._replace(
            ids=ids,
            t=jnp.where(ended, first_step(pool), pool.t),
            values=values,
            state=merge(ended, fresh, pool.state, layout.axes, at),
            following=pool.following + rank[-1],
        )

    def steps_of(carry):
        pool, piece = carry
        steps = many(template, pool.values, layout.axes, judged=True, at=at)
        left = jnp.min(jnp.where(running(pool, real), template.steps - pool.t, chunk))  # of the lane next to its last
        count = jnp.minimum(chunk, -(-left // every) * every)

        def goes_on(state):
            left = jnp.sum((state.status == RUNNING) & (pool.ids < real), dtype=np.int32)
            return left > jnp.where(pool.following < real, WAITING * shape.slots, 0)

        state, piece, count = take_steps(steps, pool.state, pool.t, count, piece, every=every, goes_on=goes_on)
        state, piece, end = check_end(steps, state, piece, pool.t, count, every=every)
        if not template.optimizer.traits.judges:  # which carry their loss from step to step
            piece = _with_ends(piece, end.row, state, pool.t, every)
        moved = pool._replace(t=pool.t + count, state=state, loss=end.loss, validation_loss=end.validation_loss)
        return moved, piece

    pool = once(jnp.any(ended), next_lanes, pool)
    first = pool.t // every
    pool, piece = once(pool.following > 0, steps_of, (pool, blank_rows(layout, shape, chunk // every)))
    if not piece:
        return pool
    row = first[None, :] + jnp.arange(chunk // every + 1)[:, None]
    lane = jnp.broadcast_to(pool.ids[None, :], row.shape)
    rows = jax.tree.map(lambda all, one: all.at[row, lane].set(one, mode="drop"), pool.results.rows, piece)
    return pool._replace(results=pool.results._replace(rows=rows))


def _with_ends(piece: dict[str, PyTree], ends: dict[str, PyTree], state: State, t: Array, every: int) -> dict:
    """Return the rows from step t on, with those of the check, `ends`, where lanes have ended at a record.

    A lane ends in a step or in the check after a chunk, as its neighbors have it, and XLA may round the loss otherwise
    in the one than in the other. What depends on the memory, which goes on changing, is rounded alike in both.
    """
    made = state.steps - t
    at = jnp.where((state.status != RUNNING) & (made % every == 0), made // every, -1)

    def put(all, one):
        here = jnp.arange(len(all))[:, None] == at[None, :]
        return jnp.where(here.reshape(*here.shape, *(1 for _ in one.shape[1:])), one[None], all)

    return piece | {name: jax.tree.map(put, piece[name], one) for name, one in ends.items() if name != "preconditioner"}


def once(now: Array, function: Callable[[PyTree], PyTree], tree: PyTree) -> PyTree:
    """Return function(tree) where it is time for that, else the tree.

    By a loop: XLA on a CPU compiles one without scatter as one function. Elsewhere it hands each operation to threads,
    which wake each other and wait; of as many small ones as here that takes as long as the operations.
    """
    done = jnp.asarray(False)
    return jax.lax.while_loop(lambda carry: carry[0], lambda carry: (done, function(carry[1])), (now, tree))[1]


def load(columns: dict[str, PyTree], rows: Array) -> dict[str, PyTree]:
    """Return these rows of the lanes' own values; the last one for those beyond it."""

    def taken(x):
        return x.at[jnp.clip(rows, 0, x.shape[0] - 1)].get(mode="promise_in_bounds")

    return jax.tree.map(taken, columns)


def _plain_params(template: Training, values: dict[str, PyTree], params: PyTree) -> PyTree:
    """Return the free params of the slots as the user's own tree."""
    if not is_marked(
        jax.eval_shape(lambda: lane_training(template, jax.tree.map(lambda x: x[0], values))).problem.params
    ):
        return params
    return jax.vmap(lambda v, params: values_of(put(lane_training(template, v).problem.params, params)))(values, params)


def write_neighbors(template: Training, pool: Pool, real: Array, layout: LaneLayout) -> Lanes:
    """Return the results with those of the slots, whose lanes are neighbors, written into them once all have ended."""
    at, ended = pool.ids[0], ~jnp.any(running(pool, real))
    return _write(
        template, pool, layout, ended, lambda all, one: jax.lax.dynamic_update_slice_in_dim(all, one, at, axis=0)
    )


def write_scattered(template: Training, pool: Pool, real: Array, layout: LaneLayout) -> Lanes:
    """Return the results with those of the slots whose lane has ended written into them."""
    ended = (pool.state.status != RUNNING) & (pool.ids < real)
    at = jnp.where(ended, pool.ids, len(pool.results.status))
    return _write(template, pool, layout, jnp.any(ended), lambda all, one: all.at[at].set(one, mode="drop"))


def _write(template: Training, pool: Pool, layout: LaneLayout, now: Array, put: Callable) -> Lanes:
    before = pool.results._replace(rows={})  # rows are there already

    def written() -> Lanes:
        at = axis_of_slots(template, len(pool.ids))
        state = by_axis(layout.axes, lambda x: jnp.moveaxis(x, at, 0), lambda x: x, pool.state)
        best = state.best
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
            kept=None
            if pool.since is None
            else state_to_keep(_spread(state, layout.axes, len(pool.ids)), layout.marked),
        )
        return jax.tree.map(put, before, new)

    return jax.lax.cond(now, written, lambda: before)._replace(rows=pool.results.rows)


def _spread(state: State, axes: State, slots: int) -> State:
    """Return the state of the slots with a lane axis in front of every leaf."""
    return by_axis(axes, lambda x: x, lambda x: jnp.broadcast_to(x, (slots, *x.shape)), state)


def read_pool(pool: Pool, real: int, shape: PoolShape, every: int) -> Lanes:
    """Return the results of the lanes, without padding, as NumPy arrays; histories are NaN after a lane's end.

    In memory a history stays as it was written, row by row: to transpose it takes longer than to make it.
    """
    results = jax.tree.map(np.asarray, pool.results)
    rows = jax.tree.map(lambda x: x[: shape.records, :real].copy(), results.rows)
    cut = jax.tree.map(lambda x: x[:real].copy(), results._replace(rows={}))
    for x in jax.tree.leaves(cut.kept):  # after an end it depends on how long the slot waited for its next lane
        x[cut.status != Status.OUT_OF_STEPS] = 0
    if rows and (beyond := np.arange(shape.records)[:, None] * every > cut.steps[None, :]).any():
        for x in jax.tree.leaves(rows):
            x[beyond] = np.nan
    return cut._replace(rows=jax.tree.map(lambda x: np.moveaxis(x, 0, 1), rows))


def many(
    template: Training, values: dict[str, PyTree], axes: State, *, judged: bool, ends: Array | bool = True, at: int = 0
) -> Stepper:
    """Return the functions of a step for many lanes; in lock-step at one step number, else each at its own.

    Args:
      at: The axis of the lanes in the leaves of the state in which they may differ.
    """
    time = None if lock_step(template) else 0
    axes = jax.tree.map(lambda axis: at, axes)

    def lane(name):
        def one(values, state, t):
            with side_by_side(lanes_in_one_pass()):
                return getattr(stepper(lane_training(template, values), judged=judged, ends=ends), name)(state, t)

        out = axes if name == "unrecorded" else (axes, 0)
        mapped = jax.vmap(one, in_axes=(0, axes, time), out_axes=out)
        return functools.partial(mapped, values)

    return Stepper(*map(lane, Stepper._fields))


def start(template: Training, values: dict[str, PyTree], axes: State, at: int) -> State:
    axes = jax.tree.map(lambda axis: at, axes)
    with side_by_side(lanes_in_one_pass()):
        return jax.vmap(fast_sums(lambda v: begin(lane_training(template, v))), out_axes=axes)(values)


def first_step(pool: Pool) -> Array:
    """Return the step from which the lanes of a pool start."""
    return jnp.int32(0) if pool.since is None else pool.since


def loaded(
    template: Training,
    values: dict[str, PyTree],
    pool: Pool,
    layout: LaneLayout,
    rows_of_lanes: Callable,
    shared: Callable | None = None,
    at: int = 0,
) -> State:
    """Return the state of lanes that start, or go on from where their results stand.

    Args:
      template, values, pool, layout: Of the pool, with the lanes' own values.
      rows_of_lanes: rows_of_lanes(column): the rows of the lanes that are loaded.
      shared: shared(column): one of them, for what all lanes share; None if they share nothing.
      at: The axis of the lanes in the leaves of the state in which they may differ.
    """
    axes, results, since = layout.axes, pool.results, pool.since
    if since is None:
        return start(template, values, axes, at)

    def own(x):
        return jnp.moveaxis(rows_of_lanes(x), 0, at)

    def going_on() -> State:
        kept, best = results.kept, results.best
        if best is not None and layout.marked:
            best = best._replace(params=kept.best.params)
        columns = kept._replace(
            params=kept.params if layout.marked else results.params,
            start_loss=results.start_loss,
            status=results.status,
            steps=results.steps,
            best=best,
        )
        rows = by_axis(axes, own, shared or own, columns)
        state = jax.tree.map(
            lambda old, x: jax.random.wrap_key_data(x, impl=jax.random.key_impl(old)) if is_key(old) else x,
            pool.state,
            rows,
        )
        return state._replace(status=jnp.zeros_like(state.status), steps=jnp.full_like(state.steps, since))

    return jax.lax.cond(since > 0, going_on, lambda: start(template, values, axes, at))


def next_check(t: Array, every: int, chunk: int) -> Array:
    """Return the step after `t` at which lanes in lock-step are judged: early ones double, as most failures do."""
    ends = np.array(_early_checks(every, chunk), np.int32)
    later = ends[-1] + ((t - ends[-1]) // chunk + 1) * chunk
    return jnp.where(t < ends[-1], jnp.min(jnp.where(ends > t, ends, ends[-1])), later)


def last_check(steps: int, every: int, chunk: int) -> int:
    """Return the last step before `steps` at which lanes in lock-step are judged; 0 if there is none."""
    early = _early_checks(every, chunk)
    later = early[-1] + (steps - 1 - early[-1]) // chunk * chunk
    return later if steps > early[-1] else max((end for end in early if end < steps), default=0)


def _early_checks(every: int, chunk: int) -> list[int]:
    early = [min(chunk, every * max(1, current().first_chunk // every))]
    while early[-1] < chunk:
        early.append(2 * early[-1])
    return early


def pick(mask: Array, new: Array, old: Array, at: int = 0) -> Array:
    """Return `new` for the lanes where the mask is true, `old` for the others; along their first axis or their last."""
    others = (1,) * (new.ndim - 1)
    return jnp.where(mask.reshape((*others, *mask.shape) if at else (*mask.shape, *others)), new, old)


def _is_none(x: object) -> bool:
    return x is None


def by_axis(axes: State, per_lane: Callable, shared: Callable, state: State) -> State:
    """Return per_lane(leaf) of the leaves in which lanes may differ, shared(leaf) of those that they share."""

    def mapped(axis, x):
        return x if x is None else shared(x) if axis is None else per_lane(x)

    return jax.tree.map(mapped, axes, state, is_leaf=_is_none)


def merge(mask: Array, new: State, old: State, axes: State, at: int = 0) -> State:
    """Return the new state for the lanes where the mask is true; what lanes share is always new."""

    def merged(axis, a, b):
        return a if axis is None else pick(mask, a, b, at)

    return jax.tree.map(merged, axes, new, old, is_leaf=_is_none)


def blank_rows(layout: LaneLayout, shape: PoolShape, capacity: int) -> dict[str, PyTree]:
    return jax.tree.map(lambda x: jnp.zeros((capacity + 1, shape.slots, *x.shape), x.dtype), layout.end.row)


def _paste(all: Array, piece: Array, row: Array, lane: Array) -> Array:
    return jax.lax.dynamic_update_slice(all, piece, (row, lane) + (jnp.int32(0),) * (all.ndim - 2))


def _finite_rows(piece: dict[str, PyTree], count: Array, every: int) -> Array:
    if "loss" not in piece:
        return jnp.asarray(True)
    meant = jnp.arange(piece["loss"].shape[0]) * every < count
    return jnp.all(jnp.isfinite(piece["loss"]) | ~meant[:, None], axis=0)
