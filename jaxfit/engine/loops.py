"""The steps of a run, and the verdict on each: the only module that takes a gradient for training.

A run is `begin`, then `advance` until the status says how it ended. A method has `init` and `step`, whether it is a
gradient transformation or of second order. All functions are pure and for one lane; `pools` maps them over many.
"""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxfit.engine.compiling import fast_sums
from jaxfit.engine.jaxprs import affine_inputs
from jaxfit.losses import takes_key
from jaxfit.losses.base import is_masked, is_stateful
from jaxfit.optimizers.building import Optimizer
from jaxfit.optimizers.methods import GradientMethod, Method, Objective, Proposal, any_nonzero
from jaxfit.optimizers.stability import preconditioner
from jaxfit.problems import Problem, Status, Stop, Training
from jaxfit.problems.axes import resolve
from jaxfit.problems.marks import carried, free, is_marked, joined, put, values_of
from jaxfit.typing import PyTree

RUNNING = Status.NOT_RUN
ASKS = -1  # the status of a single run while it waits for a verdict of its method


def method_of(optimizer: Optimizer) -> Method:
    """Return the method that an optimizer builds; a gradient transformation is wrapped."""
    built = optimizer.build()
    if hasattr(built, "update"):
        return GradientMethod(optax.with_extra_args_support(built))
    if not (hasattr(built, "init") and hasattr(built, "step")):
        raise TypeError(
            f"optimizer: {optimizer.name} returned {reprlib.repr(built)}, but it must return an Optax transformation"
        )
    return built


def judges_steps(training: Training) -> bool:
    """Return whether every step is judged: there is a stop rule, or the method judges itself."""
    return training.stop.watches or training.optimizer.traits.judges


class Best(NamedTuple):
    """Where the validation loss of a run with patience was lowest, among its records and its end."""

    params: PyTree
    validation_loss: Any  # (); NaN until it was a number
    step: Any  # () int32


class State(NamedTuple):
    """What a run carries from one step to the next."""

    params: PyTree  # the free ones, and those that a stateful loss carries
    memory: PyTree  # the state of the method
    start_loss: Array  # () of all the data
    status: Array  # () int32; RUNNING while it moves
    steps: Array  # () int32 updates until it ended; counted only where steps are judged
    change: Array | None  # () norm of the last update that was made, if a rule asks for it
    best: Best | None  # with patience; its params are the free ones
    stale: Any  # with patience: () int32 records since the best; else None


def objective_of(problem: Problem, data: PyTree, key: Any) -> Objective:
    """Return the loss as a function of the free params alone."""
    extra = {"key": key} if takes_key(problem.loss) else {}
    return Objective(problem.loss, data, extra, problem.params if is_marked(problem.params) else None, affine_inputs)


def step_key(problem: Problem, t: Array) -> Any:
    """Return the key of step `t`; None if the run has no key."""
    return None if problem.key is None else jax.random.fold_in(problem.key, t)


def rows_of(data: tuple) -> int:
    return next(np.shape(x)[0] for x in jax.tree.leaves(data) if np.ndim(x))


def batch_at(training: Training, t: Array) -> tuple:
    """Return the data of step `t`."""
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
    """Return the rows of a batch; if none of them counts, replace each by the next one that does, cyclically."""
    n = len(where)
    at = jnp.where(where, jnp.arange(n, dtype=picked.dtype), n)
    following = jax.lax.cummin(at, reverse=True)
    following = jnp.where(following == n, at.min(), following)
    return jnp.where(where[picked].any(), picked, jnp.minimum(following, n - 1)[picked])


def _batch_key(problem: Problem, t: Array) -> Array:
    return jax.random.fold_in(step_key(problem, t), 0)  # the loss gets the step's key itself


def begin(training: Training) -> State:
    """Return the state before the first step."""
    problem, stop = training.problem, training.stop
    problem = problem._replace(params=resolve(problem.params))
    params = moved = free(problem.params)
    if is_stateful(problem.loss):
        params = joined(problem.params, moved, carried(problem.params))
    loss = training_loss(problem, params, jnp.int32(0))
    objective = objective_of(problem, problem.data, step_key(problem, jnp.int32(0)))
    return State(
        params=params,
        memory=method_of(training.optimizer).init(objective, moved),
        start_loss=loss,
        status=jnp.int32(RUNNING),
        steps=jnp.int32(0),
        change=None if stop.params_change_below is None else jnp.full_like(loss, jnp.inf),
        best=None if stop.patience is None else Best(params, jnp.full_like(loss, jnp.nan), jnp.int32(0)),
        stale=None if stop.patience is None else jnp.int32(0),
    )


def blank(like: jax.ShapeDtypeStruct) -> Array | np.ndarray:
    """Return zeros of a shape and type; also keys."""
    return np.zeros(like.shape, like.dtype) if isinstance(like.dtype, np.dtype) else jnp.zeros(like.shape, like.dtype)


def full_loss(problem: Problem, params: PyTree, t: Array) -> Array:
    """Return the loss of all the data."""
    return objective_of(problem, problem.data, step_key(problem, t))(params)


def training_loss(problem: Problem, params: PyTree, t: Array) -> Array:
    """Return the loss of all the data as a step of training sees it; another than `full_loss` of a stateful loss."""
    return objective_of(problem, problem.data, step_key(problem, t)).advance(params)[0]


def validation_loss(training: Training, params: PyTree, t: Array) -> Array:
    return objective_of(training.problem, training.validation, step_key(training.problem, t))(params)


def propose(training: Training, state: State, t: Array) -> Proposal:
    """Return the update that the method proposes at step `t`."""
    problem = training.problem
    data, key, method = batch_at(training, t), step_key(problem, t), method_of(training.optimizer)
    if not is_stateful(problem.loss):
        return method.step(objective_of(problem, data, key), state.params, state.memory)
    problem = problem._replace(params=put(problem.params, state.params))
    found = method.step(objective_of(problem, data, key), free(problem.params), state.memory)
    last = None if found.last is None else joined(problem.params, found.last, carried(problem.params))
    return found._replace(params=joined(problem.params, found.params, found.state), state=None, last=last)


def plain_step(training: Training, state: State, t: Array) -> tuple[State, Proposal]:
    """Make one update without judging it."""
    proposal = propose(training, state, t)
    return state._replace(params=proposal.params, memory=proposal.memory), proposal


def judged_step(training: Training, state: State, t: Array, *, recorded: Array | bool = True) -> tuple[State, Proposal]:
    """Judge the params, and make one update unless the run has ended, or ends here."""
    proposal = propose(training, state, t)
    running = state.status == RUNNING
    if state.best is not None and recorded is not False:
        state = count_record(state, validation_loss(training, state.params, t), t, running & recorded)
    verdict = judge(training.stop, state, t, proposal)
    verdict = jnp.where((verdict == RUNNING) & (t >= training.steps), Status.OUT_OF_STEPS, verdict)
    status = jnp.where(running, verdict, state.status).astype(np.int32)
    goes = status == RUNNING
    kept, proposed = (at_rest(state, proposal, verdict), state.memory), (proposal.params, proposal.memory)
    params, memory = jax.tree.map(lambda new, old: jnp.where(goes, new, old), proposed, kept)
    if isinstance(
        method_of(training.optimizer), GradientMethod
    ):  # whose memory does not depend on whether the step was accepted
        memory = proposal.memory
    change = state.change
    if change is not None:
        size = norm(jax.tree.map(jnp.subtract, *(free(training.problem.params, x) for x in (params, state.params))))
        change = jnp.where(goes & ~skipped(proposal, size), size, change)
    state = state._replace(params=params, memory=memory, status=status, change=change, steps=state.steps + goes)
    return state, proposal


def at_rest(state: State, proposal: Proposal, verdict: Array) -> PyTree:
    """Return the params where a run comes to rest that does not go on after this verdict."""
    if proposal.last is None:
        return state.params
    moves = (state.status == RUNNING) & (verdict == Status.CONVERGED) & proposal.converged
    return jax.tree.map(lambda new, old: jnp.where(moves, new, old), proposal.last, state.params)


def better_of(best: Best, params: PyTree, value: Array, t: Array, where: Array) -> tuple[Best, Array]:
    """Return the better of the best params so far and these, and whether it is these; only where `where` is true.

    Those of the same step are better: a run that goes on from its last step has compared its params there already.
    """
    lower = ~(value >= best.validation_loss) | (best.step == t)
    better = where & lower & ~jnp.isnan(value)
    return jax.tree.map(lambda new, old: jnp.where(better, new, old), Best(params, value, t), best), better


def count_record(state: State, value: Array, t: Array, counts: Array | bool) -> State:
    """Return the state after a record of this validation loss, where it counts."""
    best, better = better_of(state.best, state.params, value, t, jnp.asarray(counts))  # pyright: ignore[reportArgumentType]
    return state._replace(best=best, stale=jnp.where(counts, jnp.where(better, 0, state.stale + 1), state.stale))


def skipped(proposal: Proposal, size: Array) -> Array:
    """Return whether an update was skipped: the method says so, or params stay though the gradient is not zero."""
    if proposal.skipped is not None:
        return jnp.asarray(proposal.skipped)
    return (size == 0) & (True if proposal.grads is None else any_nonzero(proposal.grads))


def judge(stop: Stop, state: State, t: Array, proposal: Proposal) -> Array:
    """Return the status at the params of the proposal, RUNNING to go on; failures take precedence over success."""
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
    status: Array | Status = RUNNING if proposal.asks is False else jnp.where(proposal.asks, ASKS, RUNNING)
    if state.best is not None:
        ended = jnp.where(jnp.isnan(state.best.validation_loss), Status.NOT_FINITE, Status.STOPPED_EARLY)
        status = jnp.where(state.stale >= stop.patience, ended, status)
    status = jnp.where(proposal.undetermined, Status.NOT_DETERMINED, status)
    status = jnp.where(converged, Status.CONVERGED, status)
    status = jnp.where(diverged, Status.DIVERGED, jnp.where(finite(proposal.grads), status, Status.NOT_FINITE))
    return jnp.where(jnp.isnan(loss), Status.NOT_FINITE, status).astype(np.int32)


class End(NamedTuple):
    """What is known at the params at the end of a stretch of steps."""

    loss: Array  # () of all the data
    validation_loss: Array | None  # ()
    row: dict[str, PyTree]  # a record


def check(training: Training, state: State, t: Array, ends: Array | bool = True) -> tuple[State, End]:
    """Judge the params at step `t` without an update; a run that is out of steps ends here.

    The losses of all the data and of the validation data may cost as much as many steps on batches. Where `ends` is
    false, so that the run goes on whatever they are, both stand for the loss of the step.
    """
    running = state.status == RUNNING
    if judges_steps(training) and training.problem.key is not None:  # what is drawn is as in the step where it ended
        t = jnp.where(running, t, state.steps)
    proposal = propose(training, state, t)
    trained, final, validation = _losses_at_end(training, state, t, proposal.loss, ends)
    seen = state
    if state.best is not None:
        seen = count_record(state, validation, t, running & (t % training.record.every == 0))
    verdict = judge(training.stop, seen, t, proposal)
    verdict = jnp.where((verdict == RUNNING) & ~finite(state.params), Status.NOT_FINITE, verdict)
    verdict = jnp.where((verdict == RUNNING) & (t >= training.steps), Status.OUT_OF_STEPS, verdict)
    status = jnp.where(running, verdict, state.status)
    rounding = 64 * jnp.finfo(final.dtype).eps * jnp.maximum(jnp.abs(trained), jnp.abs(state.start_loss))
    unjudged = (status == Status.OUT_OF_STEPS) | (status == Status.STOPPED_EARLY)
    above = unjudged & (trained > state.start_loss + rounding)
    status = jnp.where(above, Status.DIVERGED, status).astype(np.int32)
    params = at_rest(state, proposal, verdict)
    if proposal.last is not None:  # what is not taken from the proposal is known where the run comes to rest
        final = full_loss(training.problem, params, t) if is_stateful(training.problem.loss) else final
        validation = validation if training.validation is None else validation_loss(training, params, t)
    state = state._replace(params=params, status=status, steps=jnp.where(running, t, state.steps))
    if state.best is not None:  # if the run goes on, its next step makes this record
        best, _ = better_of(state.best, state.params, validation, state.steps, status != RUNNING)
        state = state._replace(best=best)
    end = End(final, validation, row(training, state, t, proposal))
    return state, end


def _losses_at_end(training: Training, state: State, t: Array, loss: Array, ends: Array | bool) -> tuple:
    """Return the loss as training sees it, the loss, and the validation loss or None; of a step if it `ends` not."""
    problem = training.problem

    def losses():
        trained = loss if training.batches is None else training_loss(problem, state.params, t)
        final = full_loss(problem, state.params, t) if is_stateful(problem.loss) else trained
        if training.validation is None:
            return trained, final, None
        time = jnp.where(state.status == RUNNING, t, state.steps)
        return trained, final, validation_loss(training, state.params, time)

    of_step = loss, loss, None if training.validation is None else loss
    if ends is True or (training.batches is None and training.validation is None and not is_stateful(problem.loss)):
        return losses()
    return jax.lax.cond(ends, fast_sums(losses), lambda: of_step)


def row(training: Training, state: State, t: Array, proposal: Proposal) -> dict[str, PyTree]:
    """Return one record, of step `t`, whose proposal was made at `state.params`."""

    def whole():
        return values_of(put(training.problem.params, state.params))

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


def row_of(training: Training, state: State, new: State, t: Array, proposal: Proposal) -> dict[str, PyTree]:
    """Return the record of a step that was judged: of the params before it, or where the run has come to rest."""
    if proposal.last is not None:
        goes = new.status == RUNNING
        params = jax.tree.map(lambda old, last: jnp.where(goes, old, last), state.params, new.params)
        state = state._replace(params=params)
    return row(training, state, t, proposal)


class Stepper(NamedTuple):
    """The functions that a loop over steps calls; for one lane, or for many by `vmap`."""

    recorded: Callable  # (state, t) -> (state, row)
    unrecorded: Callable  # (state, t) -> state
    check: Callable  # (state, t) -> (state, End)


def stepper(training: Training, *, judged: bool, ends: Array | bool = True) -> Stepper:
    """Return the functions for one lane, with steps that are judged (a run that has ended stays there) or not.

    `ends`: as for `check`; of many lanes one for all.
    """

    def recorded(state, t):
        if not judged:
            new, proposal = plain_step(training, state, t)
            return new, row(training, state, t, proposal)
        new, proposal = judged_step(training, state, t)
        return new, row_of(training, state, new, t, proposal)

    def unrecorded(state, t):
        return (judged_step(training, state, t, recorded=False) if judged else plain_step(training, state, t))[0]

    def at_the_end(state, t):
        return check(training, state, t, ends)

    return Stepper(*map(fast_sums, (recorded, unrecorded, at_the_end)))


def advance(
    stepper: Stepper,
    state: State,
    t: Array,
    count: Array,
    record: dict[str, PyTree],
    *,
    every: int,
    capacity: int,
    early: bool = False,
) -> tuple[State, dict[str, PyTree], End]:
    """Make at most `count` updates from step `t`, and judge the params at their end.

    Args:
      stepper: The functions of a step.
      state: At step `t`, a multiple of the stride.
      t: () int32; of many lanes also (lanes,).
      count: () int32, at most capacity * every.
      record: The shapes of one.
      every: The stride of records.
      capacity: Rows to keep, and one more; the record of step t + k * every is row k.
      early: Whether to leave the loop where the run ends; only for one lane whose steps are judged.

    Returns:
      The state, the rows (those after a run's end are undefined), and what is known at the end. If `count` is a
      multiple of the stride, the row after the last is the record at step t + count.
    """
    rows = jax.tree.map(lambda x: jnp.zeros((capacity + 1, *x.shape), x.dtype), record)
    goes_on = (lambda state: state.status == RUNNING) if early else None
    state, rows, _ = take_steps(stepper, state, t, count, rows, every=every, goes_on=goes_on)
    return check_end(stepper, state, rows, t, count, every=every, early=early)


def take_steps(
    stepper: Stepper,
    state: State,
    t: Array,
    count: Array,
    rows: dict[str, PyTree],
    *,
    every: int,
    goes_on: Callable[[State], Array] | None = None,
) -> tuple[State, dict[str, PyTree], Array]:
    """Make the updates of `advance`, write its rows, except the last, into the given ones, and return how many it made.

    With `goes_on` it ends at the first record where goes_on(state) is false.
    """
    blocks = records_of(count, every)

    def block(carry):  # one record and `every` updates
        i, state, rows = carry
        first = i * every
        new, here = stepper.recorded(state, t + first)
        rows = jax.tree.map(lambda all, one: all.at[i].set(one), rows, here)
        if every > 1:
            last = jnp.minimum(first + every, count)
            new = jax.lax.fori_loop(first + 1, last, lambda k, s: stepper.unrecorded(s, t + k), new)
        return i + 1, new, rows

    def is_due(carry):
        i, state, _ = carry
        return i < blocks if goes_on is None else (i < blocks) & goes_on(state)

    i, state, rows = jax.lax.while_loop(is_due, block, (jnp.int32(0), state, rows))
    return state, rows, jnp.minimum(i * np.int32(every), count)


def records_of(count: Array, every: int) -> Array:
    """Return count / every, rounded up, by one operation; `//` is eight, for signs, which take time to compile."""
    return count if every == 1 else jax.lax.div(count + np.int32(every - 1), np.int32(every))


def check_end(
    stepper: Stepper, state: State, rows: dict[str, PyTree], t: Array, count: Array, *, every: int, early: bool = False
) -> tuple[State, dict[str, PyTree], End]:
    """Judge the params at the end of `advance`, and write the last row.

    With `early` that is the row where the run has ended, if it is one: a step may have written it, but only the time
    tells whether a run ends in a step or in the check, and XLA may round the loss otherwise in the one.
    """
    state, end = stepper.check(state, t + count)
    made = state.steps - t if early else count
    at, here = records_of(made, every), made % every == 0

    def put(name, all, one):  # the step where a run ended has changed the memory: what depends on it stays as it was
        now = here & (made == count) if name == "preconditioner" else here
        return all.at[jnp.where(now, at, len(all))].set(one, mode="drop")

    rows = {name: jax.tree.map(functools.partial(put, name), rows[name], one) for name, one in end.row.items()}
    return state, rows, end


def unrolled(training: Training, steps: int) -> tuple[State, dict[str, PyTree], End]:
    """Make a whole run as one masked scan, for reverse-mode differentiation; its rows are NaN after the end."""
    every = training.record.every

    def body(state, t):
        new, proposal = judged_step(training, state, t, recorded=t % every == 0)
        return new, blank_unless(state.status == RUNNING, row_of(training, state, new, t, proposal))

    state, rows = jax.lax.scan(body, begin(training), jnp.arange(steps, dtype=np.int32))
    running = state.status == RUNNING
    state, end = check(training, state, jnp.int32(steps))
    rows = jax.tree.map(lambda x: x[::every], rows)
    if steps % every == 0:
        last = blank_unless(running, end.row)
        rows = jax.tree.map(lambda all, one: jnp.concatenate([all, one[None]]), rows, last)
    return state, rows, end


def blank_unless(condition: Array, rows: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.where(condition, x, jnp.nan), rows)


def norm(tree: PyTree) -> Array:
    """Return the Euclidean norm over all leaves."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))


def finite(tree: PyTree) -> Array:
    """Return whether every number in the tree is finite."""
    checks = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.stack(checks).all() if checks else jnp.asarray(True)


ROUNDS = 20


def shuffled(places: Array, key: Array, n: int) -> Array:
    """Return the numbers that stand at some places of a random order of 0, 1, ..., n - 1.

    A round draws a k of 0 ... n - 1 and pairs every number i with k - i (mod n); the two change places if a coin says
    so, the highest bit of multiplier * max(i, k - i) + offset (mod 2^32), which for random multiplier and offset is
    independent from pair to pair. After 20 rounds one number in a million has never moved, and one that has may be
    anywhere. Neither a sort nor memory for the order is needed: of an order of 1,000, 32 places cost less than a
    fortieth of the sort. JAX's generator makes two numbers, from which a cheap one makes those of the rounds; to take
    all of them from JAX's would cost more than the rounds.

    Args:
      places: Any shape, integers of 0 ... n - 1; different places hold different numbers.
      key: One PRNG key; another key is another order.
      n: At most 2^31.

    Returns:
      int32 of the same shape.

    Source: the swap-or-not shuffle of Hoang, Morris and Rogaway (2012), doi:10.1007/978-3-642-32009-5_1; the coin is
    the multiply-shift hash of Dietzfelbinger (1996), doi:10.1007/3-540-60922-9_46.
    """
    multipliers, offsets = _spread(jax.random.bits(key, (2, 1), np.uint32))
    draws = offsets % np.uint32(n)  # the coin looks at the highest bit of the offsets, this at all the others

    def swap(r, i):
        partner = jnp.minimum(draws[r] - i, draws[r] - i + np.uint32(n))  # the smaller is the one without wrap-around
        heads = (jnp.maximum(i, partner) * multipliers[r] + offsets[r]) >> np.uint32(31) == 1
        return jnp.where(heads, partner, i)

    return jax.lax.fori_loop(0, ROUNDS, swap, places.astype(np.uint32), unroll=2).astype(np.int32)


def _spread(seeds: Array) -> Array:
    """Return ROUNDS numbers from each seed, (2, 1) to (2, ROUNDS): it and its distances by the golden ratio, mixed.

    Source: the additive sequence of Steele, Lea and Flood (2014), doi:10.1145/2660193.2660195, with the 32-bit mixing
    function that Wellons found by search, nullprogram.com/blog/2018/07/31.
    """
    x = seeds + np.arange(ROUNDS, dtype=np.uint32)[None, :] * np.uint32(0x9E3779B9)
    x = (x ^ x >> np.uint32(16)) * np.uint32(0x7FEB352D)
    x = (x ^ x >> np.uint32(15)) * np.uint32(0x846CA68B)
    return x ^ x >> np.uint32(16)
