"""A single run from start to end, `fit`; more steps of one, `resume`; and a single update, `step`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.engine.compiling import compiled
from jaxfit.engine.host import interruption, out_of_memory_told, progress_bar, stretches, terminating_as_interrupted
from jaxfit.engine.inspections import warn_of_overflow
from jaxfit.engine.loops import Best, End, State, method_of, objective_of, step_key, unrolled
from jaxfit.engine.settings import happened
from jaxfit.engine.single import InNumPy, RunPrograms, prepare
from jaxfit.engine.tracing import check_alive, inspect_training
from jaxfit.losses.base import is_stateful
from jaxfit.problems import (
    ENDED_WELL,
    Batches,
    Record,
    Status,
    Stop,
    Training,
    chosen_precision,
    convert,
    convert_all,
    precision_context,
    whole_number,
)
from jaxfit.problems.axes import holds_call, is_axis, is_traced, resolve
from jaxfit.problems.data import beyond_range, has_large_indices
from jaxfit.problems.enclosed import resolved
from jaxfit.problems.marks import Fixed, free, is_kept, is_mark, is_marked, joined, plain, put, released, values_of
from jaxfit.problems.messages import near_keywords, path_name
from jaxfit.problems.posing import as_params, check_schedule, pose, refuse_axes
from jaxfit.stores.files import as_path
from jaxfit.stores.fits import Checkpoint, Saved, holding_file
from jaxfit.typing import KeyLike, OptimizerLike, PyTree, Scalar
from jaxfit.verbs.results import Fit, History, best_of, training_of

LOSS, LOSSES = Record(what=("loss",)), Record(what=("loss", "validation_loss"))


@near_keywords
def fit(
    loss: Callable,
    params: PyTree,
    data: tuple = (),
    *,
    optimizer: OptimizerLike,
    steps: int = 1000,
    stop: Stop = Stop(),  # noqa: B008 (frozen)
    record: Record | None = None,
    batches: Batches | None = None,
    key: KeyLike | None = None,
    validation: tuple | None = None,
    progress: bool | None = None,
    precision: str | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> Fit:
    """Minimize a loss by the steps of an optimizer.

    Args:
      loss: A pure function loss(params, *data) -> scalar. If it has an argument `key`, it gets the key of each step.
      params: The start: any pytree. Whole numbers become floats; every float takes the precision of the run. `Fixed`,
        `Bounded` and `Tied` may be leaves; results are plain numbers in the same tree. What is no float (functions,
        text, booleans, keys, arrays of integers) stays as it is; of a module of Equinox or Flax NNX that library's own
        params are trained.
      data: Passed to the loss after params.
      optimizer: `jf.optimizers.adam(0.1)`, `jf.optimizer(factory, ...)`, or a transformation of Optax.
      steps: The largest number of updates.
      stop: Conditions that end the run earlier.
      record: What the history holds; by default the loss of every step. With batches it is the loss of the batch.
      batches: Use random rows in each step instead of all data; needs a key.
      key: A PRNG key or a seed. Step t draws with fold_in(key, t).
      validation: Other data for the loss, which is evaluated on them but not trained on them.
      progress: Whether to show a progress bar on stderr; by default only in a terminal.
      precision: "float32" or "float64", whatever JAX's global setting. By default float64 for Levenberg-Marquardt; for
        all others as JAX has it: float64 where `jax_enable_x64` is on and params or data have 64 bits, else float32.
        float64 results are NumPy arrays.
      checkpoint: A file in which to save a long run every few seconds. The same call resumes where the run stopped and
        ends with the same bits; after the end it returns the saved result at once, and with more `steps` it goes on. A
        call that would give other bits is refused.

    Returns:
      A `Fit`. A run that fails is not an error: its `status` says so. Inside of `jax.jit`, `jax.vmap` or `jax.grad` the
      run is one masked scan, its fields are traced, and checks that need numbers are skipped.

    Raises:
      ValueError, TypeError: For bad input, before anything compiles.
      Interrupted: On Ctrl-C; its `result` is the run so far.
      OutOfMemory: If a step takes more memory than the device has.

    Example:
      >>> x, y = jf.datasets.thermometer()
      >>> loss, start = jf.losses.rss(jf.models.line), {"w": 0.0, "b": 0.0}
      >>> run = jf.fit(loss, start, (x, y), optimizer=jf.optimizers.levenberg_marquardt())
      >>> run.status.name, round(float(run.params["w"]), 3), round(float(run.params["b"]), 2)
      ('CONVERGED', 0.537, -17.3)
    """
    precision = chosen_precision(precision, params, data, optimizer=optimizer)
    if record is None:
        record = LOSS if validation is None else LOSSES
    training = pose(
        loss, params, data, optimizer=optimizer, steps=steps, stop=stop, record=record, batches=batches, key=key,
        validation=validation, precision=precision,
    )  # fmt: skip
    if has_large_indices(training.problem.data):
        warn_of_overflow(training.problem, precision)
    count = int(training.steps)
    if checkpoint is not None:
        as_path("checkpoint", checkpoint)
    leaves = jax.tree.leaves(training, is_leaf=is_axis)
    swept = [x for x in leaves if is_axis(x)]
    if swept:
        raise ValueError(f"fit got {swept[0]}, but runs one problem; call sweep with the same arguments")
    if is_traced(leaves):
        check_alive(training)
        _check_untraced(checkpoint)
        return _traced_fit(convert_all(training, traced_precision(precision)), count)
    with precision_context(precision):
        if holds_call(training.problem.params):
            training = _started(training, precision)
        check_schedule(training.optimizer, count)
        programs, leaves = prepare(training, precision, in_numpy=checkpoint is None)
        if programs.captured:
            _check_untraced(checkpoint)
            return _traced_fit(programs.training(leaves), count)
        with out_of_memory_told(_SMALLER):
            if checkpoint is None:
                return _run(training, programs, leaves, count, precision, progress)
            with terminating_as_interrupted(), holding_file(checkpoint, programs, leaves, precision) as file:
                saved = file.load()
                if saved is not None:
                    saved = _lengthened(saved, count, training.record.every, f"checkpoint: {file.path}")
                return _run(training, programs, leaves, count, precision, progress, file, saved)


@near_keywords
def resume(fit: Fit, steps: int, *, progress: bool | None = None) -> Fit:
    """Return the fit as if it had been asked for with more steps, to the bit; only the steps that are new are made.

    The run goes on with the state of its optimizer from where its steps ran out, or Ctrl-C ended it. A run that ended
    for another reason (a stop rule, patience, a failure) would end there too with more steps, and stays as it is. One
    that stood above its start when its steps ran out is made anew, since that was no end.

    Args:
      fit: From `fit` or `curve_fit`.
      steps: The largest number of updates in all, those that were made included. A schedule of the learning rate stays
        as it was given: one that was made for the former steps is at its end.
      progress: As for `fit`.

    Raises:
      ValueError: If the fit has made more steps than that; if its steps are no multiple of `Record.every`, where its
        history would have other records; if it is a lane of a sweep, which keeps no state of its optimizer in memory;
        if it no longer knows its problem.
      TypeError: If `fit` is not a fit.

    Example:
      >>> adam = jf.optimizers.adam(0.1)
      >>> short = jf.fit(lambda p: p**2, 3.0, optimizer=adam, steps=20)
      >>> longer, whole = jf.resume(short, 50), jf.fit(lambda p: p**2, 3.0, optimizer=adam, steps=50)
      >>> longer.steps, bool(longer.params == whole.params), bool((longer.history.loss == whole.history.loss).all())
      (50, True, True)
    """
    if not isinstance(fit, Fit):
        raise TypeError(f"resume takes the fit of one run, but got a {type(fit).__name__}; pass what jf.fit returned")
    training, steps = training_of(fit, "resume"), whole_number("steps", steps)
    training = replace(training, steps=np.int32(steps))
    if fit.coords is not None:
        raise ValueError(
            "resume: the fit is a lane of a sweep, which keeps no state of its optimizer; sweep with store= and make "
            "that call again with more steps"
        )
    every, last, precision = training.record.every, fit.last, fit.precision or "float32"
    _check_longer("resume: the fit", int(fit.steps), steps)
    if last is not None:
        rows = {} if fit.history is None else {name: x for name, x in fit.history._rows.items() if name != "step"}
        last = _lengthened(last._replace(pieces=[rows]), steps, every, "resume: the fit")
        if last is not None and last.ended:
            return replace(fit, training=training)
    with precision_context(precision), out_of_memory_told(_SMALLER):
        check_schedule(training.optimizer, steps)
        in_numpy = last is None or isinstance(last.state.memory, InNumPy)
        programs, leaves = prepare(training, precision, in_numpy=in_numpy)
        longer = _run(training, programs, leaves, steps, precision, progress, saved=last)
    return replace(longer, absolute_sigma=fit.absolute_sigma)


def _started(training: Training, precision: str) -> Training:
    """Return the training with its start made, should a `Call` make it."""
    problem = training.problem
    made = resolved(problem.params, precision)
    return training.at(as_params(made, precision=precision, stateful=is_stateful(problem.loss)))


def _lengthened(saved: Saved, steps: int, every: int, what: str) -> Saved | None:
    """Return a saved run as it goes on if there are more steps now; None if it must be made anew.

    Raises:
      ValueError: If it has made more steps than are asked for, or its last record is not at its end.
    """
    status, steps_made = Status(int(saved.state.status)), int(saved.state.steps)
    _check_longer(what, saved.t if status == Status.NOT_RUN else steps_made, steps)
    at_limit = saved.ended and status in (Status.OUT_OF_STEPS, Status.DIVERGED) and steps_made == saved.steps < steps
    if not at_limit:
        return saved
    if status == Status.DIVERGED:  # perhaps only since it stood above its start
        return None
    if steps_made % every:
        raise ValueError(
            f"{what} has made {steps_made:,} steps, no multiple of Record.every={every:,}, so that it cannot go on "
            f"with the records that a run of {steps:,} steps has; make that run on its own"
        )
    pieces = [jax.tree.map(lambda x: x[: steps_made // every], rows) for rows in saved.pieces[:1]]
    state = saved.state._replace(status=jnp.zeros_like(saved.state.status))
    return saved._replace(state=state, pieces=pieces, ended=False)


_SMALLER = (
    "make a step smaller, by batches=jf.Batches(size) or jax.checkpoint around a part of the loss "
    "(jf.backward_memory counts the bytes)"
)


def _check_untraced(checkpoint: object) -> None:
    if checkpoint is not None:
        raise TypeError(
            f"checkpoint is {str(checkpoint)!r}, but inside of a jit, vmap or grad nothing is written; call fit outside"
        )


def traced_precision(precision: str) -> str:
    if precision == "float64" and not jax.config.jax_enable_x64:
        raise ValueError(
            'precision is "float64", but inside of a jit, vmap or grad of your own that needs 64-bit types there: '
            'wrap the outermost call in `with jax.enable_x64(True):`, or pass precision="float32"'
        )
    return precision


def _traced_fit(training: Training, steps: int) -> Fit:
    problem = training.problem
    training = training.at(as_params(resolve(problem.params), stateful=is_stateful(problem.loss)))
    problem = training.problem
    inspect_training(training)
    state, rows, end = unrolled(training, steps)
    every = training.record.every
    history = History({"step": np.arange(0, steps + 1, every), **rows})

    def own(params):
        return plain(put(problem.params, params))

    numbers = own(state.params), end.loss, state.status, state.steps, history, end.validation_loss
    return Fit(*numbers, start_loss=state.start_loss, **best_of(state.best, own))


def _check_longer(what: str, steps_made: int, steps: int) -> None:
    if steps_made > steps:
        raise ValueError(
            f"{what} has made {steps_made:,} steps, and steps is {steps:,} now, but a run goes on, not back; pass "
            f"steps={steps_made} or more, or make the shorter run on its own"
        )


def _run(
    training: Training,
    programs: RunPrograms,
    leaves: list,
    total: int,
    precision: str,
    progress: bool | None,
    checkpoint: Checkpoint | None = None,
    saved: Saved | None = None,
) -> Fit:
    every = training.record.every
    pieces: list[dict[str, PyTree]] = []
    status, steps_made, end, t = Status.NOT_RUN, 0, None, 0
    latest, interrupted = saved, False
    if saved is None:
        state = programs.begin(leaves)
    else:
        state, pieces, end, t, *_ = saved
        status, steps_made = Status(int(state.status)), int(state.steps)
    bar = progress_bar(total, progress, "steps")
    bar.update(steps_made)
    try:
        left = 0 if saved and saved.ended else total - t
        for count in stretches(left, programs.capacity * every, every, programs.pace):
            state, rows, end = _stretch(programs, leaves, every, state, t, count)
            status, steps_made = Status(int(state.status)), int(state.steps)
            if steps_made == 0:
                _check_start(training, precision, state.start_loss)
            ended = status != Status.NOT_RUN
            kept = (steps_made - t) // every + 1 if ended else count // every
            pieces.append(jax.tree.map(lambda x, k=kept: np.asarray(x)[:k], rows))
            t += count
            latest = Saved(state, list(pieces), end, t, ended or t >= total, total)
            if checkpoint is not None and (latest.ended or checkpoint.due()):
                checkpoint.save(latest)
            bar.update(steps_made - bar.n)
            bar.set_postfix_str(f"loss {float(end.loss):.4g}", refresh=False)
            if ended:
                break
    except KeyboardInterrupt:
        interrupted = True
        if checkpoint is not None and latest is not None:
            checkpoint.save(latest)
    finally:
        bar.close()
    result: Any = None
    if latest is not None and end is not None:
        result = _finished(training, state, status, steps_made, end, pieces, precision)
        result = replace(result, last=latest._replace(pieces=[]))
    if interrupted:
        kept = "" if checkpoint is None else f", kept in {checkpoint.path}: the same call goes on from there"
        raise interruption(
            f"interrupted after {steps_made:,} of {total:,} steps{kept}; .result holds the run so far", result
        )
    return result


def _check_start(training: Training, precision: str, loss: Scalar) -> None:
    """Refuse a start where the loss is not defined; data too large for the precision are a status instead."""
    if not np.isfinite(loss) and beyond_range(training.problem.data, precision) is None:
        raise ValueError(
            f"the loss at the start is {float(loss)}: params are outside of where the loss is defined; start from "
            f"params at which it is finite"
        )


def _stretch(programs: RunPrograms, leaves: list, every: int, state: State, t: int, count: int) -> tuple:
    """Make one stretch of updates; where no step is judged, a stretch that met trouble is run again, judged."""
    happened("stretch", count)
    span = np.int32(t), np.int32(count)
    if not programs.judges_steps:
        new, rows, end = programs.plain(leaves, state, *span)
        losses = np.asarray(rows["loss"])[: -(-count // every)] if "loss" in rows else ()
        if np.isfinite(end.loss) and np.isfinite(losses).all() and int(new.status) != Status.NOT_FINITE:
            return new, rows, end
    return programs.judged(leaves, state, *span)


def _finished(
    training: Training,
    state: State,
    status: Status,
    steps_made: int,
    end: End,
    pieces: list[dict[str, PyTree]],
    precision: str,
) -> Fit:
    rows = pieces[0] if len(pieces) == 1 else jax.tree.map(lambda *x: np.concatenate(x), *pieces)
    every = training.record.every
    records = steps_made // every + 1 if status != Status.NOT_RUN else -(-steps_made // every)
    as_result = (lambda x: np.asarray(x)[()]) if precision == "float64" else jnp.asarray
    loss = np.asarray(end.loss)[()]
    problem = training.problem
    start = jax.tree.map(lambda x: x if is_kept(x) else convert(x, precision), problem.params, is_leaf=is_kept)

    def users_own(params):
        tree = values_of(put(start, params)) if is_marked(start) else params
        return jax.tree.map(lambda x: x.own if is_kept(x) else as_result(x), tree, is_leaf=is_kept)

    best = state.best and Best(state.best.params, *(np.asarray(x)[()] for x in state.best[1:]))
    fine = status in ENDED_WELL and loss > np.finfo(loss.dtype).tiny
    return Fit(
        params=users_own(state.params),
        loss=loss,
        status=status,
        steps=steps_made,
        history=History({"step": np.arange(records) * every, **rows}),
        validation_loss=None if end.validation_loss is None else np.asarray(end.validation_loss)[()],
        start_loss=np.asarray(state.start_loss)[()],
        training=training,
        precision=precision,
        note=None if fine else beyond_range((*problem.data, *(training.validation or ())), precision),
        **best_of(best, users_own),
    )


class Step(tuple):
    """The result of one update: `params, value, grads = step(...)`; `opt_state` is passed to the next call."""

    opt_state: PyTree

    def __new__(cls, params: PyTree, value: Scalar, grads: PyTree, opt_state: PyTree):
        new = super().__new__(cls, (params, value, grads))
        new.opt_state = opt_state
        return new

    params = property(lambda self: self[0])
    value = property(lambda self: self[1])
    grads = property(lambda self: self[2])


@near_keywords
def step(
    loss: Callable,
    params: PyTree,
    data: tuple = (),
    *,
    optimizer: OptimizerLike,
    opt_state: PyTree = None,
    key: KeyLike | None = None,
    precision: str | None = None,
) -> Step:
    """Make one update and return the new params, the loss and the gradient.

    Use it for teaching, in tests, and in training loops of your own.

    Args:
      loss, params, data, optimizer, key, precision: As for `fit`.
      opt_state: The optimizer's state from the step before (`step(...).opt_state`); None makes a new one.

    Returns:
      (params after the update, loss before it, gradient before it), with the attribute `.opt_state`. Marks such as
      `Fixed` stay in the params, ready for the next step; the gradient is by the free params.

    Raises:
      ValueError, TypeError: As `fit`; also for an `opt_state` of another tree or shape.

    Example:
      >>> params, value, grads = jf.step(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(0.25))
      >>> float(params), float(value), float(grads)
      (1.5, 9.0, 6.0)
    """
    precision = chosen_precision(precision, params, data, optimizer=optimizer)
    training = pose(
        loss, params, data, optimizer=optimizer, steps=1, stop=Stop(), record=Record(), batches=None, key=key,
        validation=None, precision=precision,
    )  # fmt: skip
    refuse_axes("step", training)
    if is_traced(jax.tree.leaves((training, opt_state))):
        check_alive(training)
        return Step(*_step(convert_all(training, traced_precision(precision)), opt_state))
    with precision_context(precision):
        training = _started(training, precision)
        programs, leaves = prepare(training, precision)
        if programs.captured:
            return Step(*_step(programs.training(leaves), opt_state))
        updated = _step_program(programs.training)(leaves, opt_state)
        updated = jax.tree.map(np.asarray if precision == "float64" else lambda x: x, updated)
        return Step(_marked_as(params, updated[0]), *updated[1:])


def _marked_as(given: PyTree, params: PyTree) -> PyTree:
    """Return params with what is kept in its place, and marked if it was given with a mark."""
    if holds_call(given) or not is_marked(given):
        return released(params)
    leaves, structure = jax.tree.flatten(given, is_leaf=is_mark)
    pairs = zip(leaves, structure.flatten_up_to(params), strict=True)
    return jax.tree.unflatten(structure, [Fixed(x.own) if is_kept(x) and is_mark(own) else released(x)
                                          for own, x in pairs])  # fmt: skip


@functools.lru_cache(maxsize=64)
def _step_program(ask: Callable) -> Callable:
    return compiled(lambda leaves, opt_state: _step(ask(leaves), opt_state))


def _step(training: Training, opt_state: PyTree) -> tuple[PyTree, Scalar, PyTree, PyTree]:
    problem, method = training.problem, method_of(training.optimizer)
    objective = objective_of(problem, problem.data, step_key(problem, jnp.int32(0)))
    params = free(problem.params)
    if opt_state is None:
        opt_state = method.init(objective, params)
    else:
        _check_opt_state(opt_state, jax.eval_shape(lambda p: method.init(objective, p), params))
    proposal = method.step(objective, params, opt_state)
    after = put(
        problem.params,
        proposal.params if proposal.state is None else joined(problem.params, proposal.params, proposal.state),
    )
    return after, proposal.loss, proposal.grads, proposal.memory


def _check_opt_state(opt_state: PyTree, fresh: PyTree) -> None:
    if jax.tree.structure(opt_state) != jax.tree.structure(fresh):
        raise ValueError(
            f"opt_state has the leaves {_leaf_names(opt_state)}, but these params and this optimizer need "
            f"{_leaf_names(fresh)}; pass the .opt_state of the step before, or None to start afresh"
        )
    for (path, have), want in zip(jax.tree_util.tree_leaves_with_path(opt_state), jax.tree.leaves(fresh), strict=True):
        if jnp.shape(have) != want.shape:
            raise ValueError(
                f"{path_name('opt_state', path)} has shape {jnp.shape(have)}, but these params need {want.shape}; "
                f"pass the .opt_state of the step before, or None to start afresh"
            )


def _leaf_names(tree: PyTree) -> str:
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return ", ".join(names[:4] + ["..."] * (len(names) > 4)) or "of an empty tree"
