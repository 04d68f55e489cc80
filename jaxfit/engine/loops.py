"""One step of a run, and its verdict: the only place where a gradient is taken for training.

A run is `begin`, then `advance` until the status says how it ended. A method is `init` and `step`; the loop does not
care whether it is a gradient transformation or something of second order. All functions are for one lane, and pure:
`vmap` makes many of them.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxfit.engine.shuffles import shuffled
from jaxfit.engine.sums import fast_sums
from jaxfit.losses import takes_key
from jaxfit.losses.base import is_masked
from jaxfit.optimizers.building import Optimizer
from jaxfit.optimizers.methods import GradientMethod, Method, Objective, Proposal, any_nonzero
from jaxfit.optimizers.stability import preconditioner
from jaxfit.problems.axes import resolve
from jaxfit.problems.marks import free, is_marked, plain, put
from jaxfit.problems.problems import Problem, Status, Stop, Training
from jaxfit.typing import PyTree

RUNNING = Status.NOT_RUN


def method_of(optimizer: Optimizer) -> Method:
    """The method that an optimizer builds; a gradient transformation is wrapped."""
    built = optimizer.build()
    if hasattr(built, "update"):
        return GradientMethod(optax.with_extra_args_support(built))
    if not (hasattr(built, "init") and hasattr(built, "step")):
        raise TypeError(
            f"optimizer: {optimizer.name} returned {reprlib.repr(built)}, but it must return an Optax transformation"
        )
    return built


def watched(training: Training) -> bool:
    """Whether the verdict is wanted in every step: there is a stop rule, or the method judges for itself."""
    return training.stop.watches or training.optimizer.traits.judges


class Best(NamedTuple):
    """Where the validation loss was lowest, of a run with patience: among its records and its end."""

    params: PyTree
    validation_loss: Any  # (); NaN until it was a number
    step: Any  # () int32


class State(NamedTuple):
    """What a run carries from step to step."""

    params: PyTree  # what is free of them
    memory: PyTree  # the method's own
    start_loss: Array  # () of all the data
    status: Array  # () int32; RUNNING while it moves
    steps: Array  # () int32 updates made until it ended; kept only while watching
    change: Array | None  # () norm of the last update that was made, if a rule asks for it
    best: Best | None  # with patience; its params are what is free of them
    stale: Any  # with patience: () int32 records since the best; else None


def objective_of(problem: Problem, data: PyTree, key: Any) -> Objective:
    """The loss as a function of the free params alone."""
    extra = {"key": key} if takes_key(problem.loss) else {}
    return Objective(problem.loss, data, extra, problem.params if is_marked(problem.params) else None)


def step_key(problem: Problem, t: Array) -> Any:
    """Return the key of step `t`; None if the run has no key."""
    return None if problem.key is None else jax.random.fold_in(problem.key, t)


def rows_of(data: tuple) -> int:
    return next(np.shape(x)[0] for x in jax.tree.leaves(data) if np.ndim(x))


def draw(training: Training, t: Array) -> tuple:
    """The data of step `t`."""
    problem, batches = training.problem, training.batches
    if batches is None:
        return problem.data
    n = rows_of(problem.data)
    if batches.replace:
        picked = jax.random.randint(_batch_key(problem, t), (batches.size,), 0, n)
    else:
        place = t % (n // batches.size)
        picked = shuffled(place * batches.size + jnp.arange(batches.size), _batch_key(problem, t - place), n)
    if is_masked(problem.loss):
        picked = _with_data(picked, problem.data[-1])
    return jax.tree.map(lambda x: x[picked] if np.ndim(x) else x, problem.data)


def _with_data(picked: Array, where: Array) -> Array:
    """The rows of a batch; if none of them counts, in place of each the next that does, from the end to the first."""
    n = len(where)
    at = jnp.where(where, jnp.arange(n, dtype=picked.dtype), n)
    following = jax.lax.cummin(at, reverse=True)
    following = jnp.where(following == n, at.min(), following)
    return jnp.where(where[picked].any(), picked, jnp.minimum(following, n - 1)[picked])


def _batch_key(problem: Problem, t: Array) -> Array:
    return jax.random.fold_in(step_key(problem, t), 0)  # the loss gets the step's key itself


def begin(training: Training) -> State:
    """The state before the first step."""
    problem, stop = training.problem, training.stop
    problem = problem._replace(params=resolve(problem.params))
    params = free(problem.params)
    loss = full_loss(problem, params, jnp.int32(0))
    objective = objective_of(problem, problem.data, step_key(problem, jnp.int32(0)))
    return State(
        params=params,
        memory=method_of(training.optimizer).init(objective, params),
        start_loss=loss,
        status=jnp.int32(RUNNING),
        steps=jnp.int32(0),
        change=None if stop.params_change_below is None else jnp.full_like(loss, jnp.inf),
        best=None if stop.patience is None else Best(params, jnp.full_like(loss, jnp.nan), jnp.int32(0)),
        stale=None if stop.patience is None else jnp.int32(0),
    )


def full_loss(problem: Problem, params: PyTree, t: Array) -> Array:
    """The loss of all the data."""
    return objective_of(problem, problem.data, step_key(problem, t))(params)


def validation_loss(training: Training, params: PyTree, t: Array) -> Array:
    return objective_of(training.problem, training.validation, step_key(training.problem, t))(params)


def propose(training: Training, state: State, t: Array) -> Proposal:
    """What the method would do at step `t`."""
    objective = objective_of(training.problem, draw(training, t), step_key(training.problem, t))
    return method_of(training.optimizer).step(objective, state.params, state.memory)


def move(training: Training, state: State, t: Array) -> tuple[State, Proposal]:
    """One update, without looking at where it leads."""
    proposal = propose(training, state, t)
    return state._replace(params=proposal.params, memory=proposal.memory), proposal


def watch(training: Training, state: State, t: Array, *, recorded: Array | bool = True) -> tuple[State, Proposal]:
    """One update, unless the run has ended, or ends at these params by the verdict on them or for want of steps."""
    proposal = propose(training, state, t)
    running = state.status == RUNNING
    if state.best is not None and recorded is not False:
        state = count_record(state, validation_loss(training, state.params, t), t, running & recorded)
    verdict = judge(training.stop, state, t, proposal)
    verdict = jnp.where((verdict == RUNNING) & (t >= training.steps), Status.OUT_OF_STEPS, verdict)
    status = jnp.where(running, verdict, state.status).astype(np.int32)
    goes = status == RUNNING
    params = jax.tree.map(lambda new, old: jnp.where(goes, new, old), proposal.params, state.params)
    change = state.change
    if change is not None:
        size = norm(jax.tree.map(jnp.subtract, params, state.params))
        change = jnp.where(goes & ~skipped(proposal, size), size, change)
    state = state._replace(
        params=params, memory=proposal.memory, status=status, change=change, steps=state.steps + goes
    )
    return state, proposal


def better_of(best: Best, params: PyTree, value: Array, t: Array, where: Array) -> tuple[Best, Array]:
    """The best so far and these params, and whether these are better; nothing changes where `where` is False."""
    better = where & ~(value >= best.validation_loss) & ~jnp.isnan(value)
    return jax.tree.map(lambda new, old: jnp.where(better, new, old), Best(params, value, t), best), better


def count_record(state: State, value: Array, t: Array, counts: Array | bool) -> State:
    """The state after a record with this validation loss, where it counts."""
    best, better = better_of(state.best, state.params, value, t, jnp.asarray(counts))  # pyright: ignore[reportArgumentType]
    return state._replace(best=best, stale=jnp.where(counts, jnp.where(better, 0, state.stale + 1), state.stale))


def skipped(proposal: Proposal, size: Array) -> Array:
    """Whether a step of this size was none: by the method's word, or where the params stay without a reason."""
    if proposal.skipped is not None:
        return jnp.asarray(proposal.skipped)
    return (size == 0) & (True if proposal.grads is None else any_nonzero(proposal.grads))


def judge(stop: Stop, state: State, t: Array, proposal: Proposal) -> Array:
    """The status at the params of the proposal; RUNNING to go on. Trouble comes before success."""
    loss = proposal.loss
    converged = jnp.asarray(proposal.converged)
    if stop.loss_below is not None:
        converged |= loss < stop.loss_below
    if stop.gradient_norm_below is not None:
        converged |= norm(proposal.grads) < stop.gradient_norm_below
    if stop.params_change_below is not None:
        converged |= state.change < stop.params_change_below
    diverged = jnp.isinf(loss)
    if stop.loss_above is not None:
        diverged |= loss > stop.loss_above
    status: Array | Status = RUNNING
    if state.best is not None:
        ended = jnp.where(jnp.isnan(state.best.validation_loss), Status.NOT_FINITE, Status.STOPPED_EARLY)
        status = jnp.where(state.stale >= stop.patience, ended, status)
    status = jnp.where(proposal.undetermined, Status.NOT_DETERMINED, status)
    status = jnp.where(converged, Status.CONVERGED, status)
    status = jnp.where(diverged, Status.DIVERGED, jnp.where(finite(proposal.grads), status, Status.NOT_FINITE))
    return jnp.where(jnp.isnan(loss), Status.NOT_FINITE, status).astype(np.int32)


class End(NamedTuple):
    """What is known at the params where a stretch of updates led."""

    loss: Array  # () of all the data
    validation_loss: Array | None  # ()
    row: dict[str, PyTree]  # a record


def look(training: Training, state: State, t: Array) -> tuple[State, End]:
    """The verdict at step `t` without an update; a run that is out of steps ends here."""
    running = state.status == RUNNING
    if watched(training) and takes_key(
        training.problem.loss
    ):  # whose randomness is that of the step where the run ended
        t = jnp.where(running, t, state.steps)
    proposal = propose(training, state, t)
    validation: Any = None
    if training.validation is not None:
        validation = validation_loss(training, state.params, jnp.where(running, t, state.steps))
    seen = state
    if state.best is not None:
        seen = count_record(state, validation, t, running & (t % training.record.every == 0))
    verdict = judge(training.stop, seen, t, proposal)
    verdict = jnp.where((verdict == RUNNING) & ~finite(state.params), Status.NOT_FINITE, verdict)
    verdict = jnp.where((verdict == RUNNING) & (t >= training.steps), Status.OUT_OF_STEPS, verdict)
    status = jnp.where(running, verdict, state.status)
    final = full_loss(training.problem, state.params, t) if training.batches is not None else proposal.loss
    rounding = 64 * jnp.finfo(final.dtype).eps * jnp.maximum(jnp.abs(final), jnp.abs(state.start_loss))
    above = (status == Status.OUT_OF_STEPS) & (final > state.start_loss + rounding)
    status = jnp.where(above, Status.DIVERGED, status).astype(np.int32)
    state = state._replace(status=status, steps=jnp.where(running, t, state.steps))
    if state.best is not None:  # a run that goes on meets this record again, in its next step
        best, _ = better_of(state.best, state.params, validation, state.steps, status != RUNNING)
        state = state._replace(best=best)
    end = End(final, validation, row(training, state, t, proposal))
    return state, end


def row(training: Training, state: State, t: Array, proposal: Proposal) -> dict[str, PyTree]:
    """One record: what the history holds of step `t`, whose proposal was made at `state.params`."""

    def whole():
        return plain(put(training.problem.params, state.params))

    known: dict[str, Callable] = {
        "loss": lambda: proposal.loss,
        "params": whole,
        "gradient": lambda: proposal.grads,
        "gradient_norm": lambda: norm(proposal.grads),
        "validation_loss": lambda: validation_loss(training, state.params, t),
        "preconditioner": lambda: preconditioner(training.optimizer, proposal.memory),
    }

    def value(item):
        if isinstance(item, str):
            return known[item]()
        return jnp.asarray(item(whole(), *training.problem.data), proposal.loss.dtype)

    return dict(zip(training.record.names, map(value, training.record.what), strict=True))


class Stepper(NamedTuple):
    """The functions that a loop over steps is made of; of one lane, or of many by vmap."""

    recorded: Callable  # (state, t) -> (state, row)
    unrecorded: Callable  # (state, t) -> state
    look: Callable  # (state, t) -> (state, End)


def stepper(training: Training, *, watching: bool) -> Stepper:
    """The steps of one lane: judged every time (a run that ends stays where it ended), or not at all."""

    def recorded(state, t):
        new, proposal = watch(training, state, t) if watching else move(training, state, t)
        return new, row(training, state, t, proposal)

    def unrecorded(state, t):
        return (watch(training, state, t, recorded=False) if watching else move(training, state, t))[0]

    def at_the_end(state, t):
        return look(training, state, t)

    return Stepper(*map(fast_sums, (recorded, unrecorded, at_the_end)))


def advance(
    stepper: Stepper, state: State, t: Array, count: Array, *, every: int, capacity: int, early: bool = False
) -> tuple[State, dict[str, PyTree], End]:  # fmt: skip
    """At most `count` updates from step `t`, and a look at where they led.

    Args:
      stepper: What to do in a step.
      state: At step `t`, a multiple of the stride.
      t: () int32; of many lanes also (lanes,).
      count: () int32, at most capacity * every.
      every: The stride of records.
      capacity: Rows to keep, and one more; the record of step t + k * every is row k.
      early: Leave the loop with the run; for one lane that is watched.

    Returns:
      The state, the rows (those beyond a run's end are not meant), and what is known at the end. If `count` is a
      multiple of the stride, the row after the last is the record at step t + count.
    """
    shapes = jax.eval_shape(lambda s: stepper.recorded(s, t)[1], state)
    rows = jax.tree.map(lambda x: jnp.zeros((capacity + 1, *x.shape), x.dtype), shapes)
    state, rows = walk(stepper, state, t, count, rows, every=every, early=early)
    return arrive(stepper, state, rows, t, count, every=every, early=early)


def walk(
    stepper: Stepper,
    state: State,
    t: Array,
    count: Array,
    rows: dict[str, PyTree],
    *,
    every: int,
    early: bool = False,
) -> tuple[State, dict[str, PyTree]]:
    """The updates of `advance`, and its rows but for the last, written into those that are given."""
    blocks = (count + every - 1) // every

    def block(carry):  # one record and `every` updates
        i, state, rows = carry
        first = i * every
        new, here = stepper.recorded(state, t + first)
        rows = jax.tree.map(lambda all, one: all.at[i].set(one), rows, here)
        if every > 1:
            last = jnp.minimum(first + every, count)
            new = jax.lax.fori_loop(first + 1, last, lambda k, s: stepper.unrecorded(s, t + k), new)
        return i + 1, new, rows

    def goes_on(carry):
        i, state, _ = carry
        return (i < blocks) & (state.status == RUNNING) if early else i < blocks

    _, state, rows = jax.lax.while_loop(goes_on, block, (jnp.int32(0), state, rows))
    return state, rows


def arrive(
    stepper: Stepper, state: State, rows: dict[str, PyTree], t: Array, count: Array, *, every: int, early: bool = False
) -> tuple[State, dict[str, PyTree], End]:
    """The look of `advance` at where `walk` led."""
    state, end = stepper.look(state, t + count)
    at = (count + every - 1) // every
    here = count % every == 0
    if early:
        here &= state.steps == t + count
    rows = jax.tree.map(lambda all, one: all.at[jnp.where(here, at, len(all))].set(one, mode="drop"), rows, end.row)
    return state, rows, end


def unrolled(training: Training, steps: int) -> tuple[State, dict[str, PyTree], End]:
    """A whole run as one masked scan, which reverse-mode differentiation can go through; rows are NaN after its end."""
    every = training.record.every

    def body(state, t):
        new, proposal = watch(training, state, t, recorded=t % every == 0)
        return new, blank_unless(state.status == RUNNING, row(training, state, t, proposal))

    state, rows = jax.lax.scan(body, begin(training), jnp.arange(steps, dtype=np.int32))
    running = state.status == RUNNING
    state, end = look(training, state, jnp.int32(steps))
    rows = jax.tree.map(lambda x: x[::every], rows)
    if steps % every == 0:
        last = blank_unless(running, end.row)
        rows = jax.tree.map(lambda all, one: jnp.concatenate([all, one[None]]), rows, last)
    return state, rows, end


def blank_unless(condition: Array, rows: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.where(condition, x, jnp.nan), rows)


def norm(tree: PyTree) -> Array:
    """Euclidean norm over all leaves."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))


def finite(tree: PyTree) -> Array:
    """Whether every number in the tree is finite."""
    checks = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.stack(checks).all() if checks else jnp.asarray(True)
