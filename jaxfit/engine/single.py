"""The programs of a single run, compiled once for each structure of its training.

A run by a method whose arithmetic takes NumPy compiles only the residuals and their Jacobian. Its statistics share that
program.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from jaxfit.engine.compiling import SUMS, compiled, fast_sums
from jaxfit.engine.jaxprs import affine_inputs
from jaxfit.engine.loops import (
    ASKS,
    RUNNING,
    End,
    State,
    advance,
    begin,
    blank,
    judges_steps,
    method_of,
    objective_of,
    propose,
    row,
    step_key,
    stepper,
)
from jaxfit.engine.settings import current
from jaxfit.engine.tracing import Structure, inspect_training, program_of_steps, trace
from jaxfit.losses import Joint
from jaxfit.optimizers.arrays import are_finite
from jaxfit.optimizers.bordered import layout_of
from jaxfit.optimizers.building import Optimizer
from jaxfit.optimizers.gauss_newton import DampingState, View
from jaxfit.optimizers.linearization import Place, Slopes, affine_params, residuals, slopes
from jaxfit.optimizers.methods import Objective, judged_apart
from jaxfit.problems import Problem, Status, Training, convert
from jaxfit.problems.bounds import bounds
from jaxfit.problems.marks import free, is_marked, unflattened
from jaxfit.problems.messages import warn
from jaxfit.typing import PyTree


class RunPrograms(NamedTuple):
    """The programs of runs of one structure, whose leaves are arguments. Each is compiled when it is first called."""

    begin: Callable  # (leaves) -> State for the first call of one of the others; of a compiled run a blank one
    plain: Callable  # (leaves, state, t, count) -> (State, rows, End), without judging steps; at t = 0 from the start
    judged: Callable  # the same, judging each step
    training: Callable  # (leaves) -> Training
    judges_steps: bool  # whether every step is judged
    captured: bool  # whether the loss holds a tracer of the caller, so that it cannot be compiled on its own
    capacity: int  # rows that one call can record
    pace: list[float]  # [seconds a step takes], once measured


def prepare(training: Training, precision: str, *, in_numpy: bool = False) -> tuple[RunPrograms, list]:
    """Return the programs for a run, and its leaves in the precision; large ones are put on the device once.

    Args:
      training: Of one run.
      precision: Of it.
      in_numpy: Whether the steps may be made in NumPy, which then changes last digits.

    Raises:
      ValueError, TypeError: If its loss cannot be trained; see `inspect_training`.
    """
    leaves, structure = jax.tree.flatten(training)
    leaves = [convert(x, precision) for x in leaves]
    programs = run_programs_of(
        structure, tuple((x.shape, x.dtype) for x in leaves), jax.config.jax_enable_x64, current().of_programs,
        current().numpy_numbers if in_numpy else 0,
    )  # fmt: skip
    return programs, jax.device_put(leaves) if sum(x.nbytes for x in leaves) > 2**20 else leaves


@functools.lru_cache(maxsize=64)
def run_programs_of(structure: Structure, shapes: tuple, x64: bool, settings: tuple, in_numpy: int) -> RunPrograms:
    """Return the programs for a structure. The cache is bounded: new functions in every call cannot fill the memory.

    `in_numpy` is the largest size of a Jacobian for steps in NumPy.
    """
    ask = functools.partial(jax.tree.unflatten, structure)
    training = ask([jax.ShapeDtypeStruct(*x) for x in shapes])
    captured = inspect_training(training)
    capacity, state = 0, None
    record: PyTree = None
    apart = training.optimizer.traits.settles and training.record.every == 1
    if not captured and fits_numpy(training, in_numpy):
        warn_of_recompiling(training.problem.loss)
        capacity = max(1, min(current().stretch_rows, current().stretch_bytes // 8))
        return RunPrograms(*in_numpy_programs(ask), ask, True, False, capacity, [1e-2])
    if not captured:
        with judged_apart(apart):
            _, (state, record), captured = program_of_steps(_first, training)
        if not captured:
            warn_of_recompiling(training.problem.loss, training.optimizer)
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(record))
        capacity = max(1, min(current().stretch_rows, current().stretch_bytes // max(size, 1)))

    options = SUMS.get(jax.default_backend())

    def run(judged):
        def segment(leaves, state, t, count):
            training = ask(leaves)
            every = training.record.every
            with judged_apart(apart):
                starts = (t == 0) & (state.status != ASKS)
                state = jax.lax.cond(starts, fast_sums(lambda: begin(training)), lambda: state)  # one program, not two
                state = state._replace(status=jnp.int32(RUNNING))
                step = stepper(training, judged=judged)
                return advance(step, state, t, count, record, every=every, capacity=capacity, early=judged)

        return compiled(segment, options)

    def settle(leaves, state):
        training = ask(leaves)
        objective = objective_of(training.problem, training.problem.data, step_key(training.problem, state.steps))
        memory = method_of(training.optimizer).settle(objective, state.params, state.memory)
        return state._replace(memory=memory)

    start = jax.tree.map(blank, state)
    return RunPrograms(
        lambda leaves: start, run(False), with_verdicts(run(True), compiled(settle, options)) if apart else run(True),
        ask, judges_steps(training), captured, capacity, [],
    )  # fmt: skip


def with_verdicts(run: Callable, settle: Callable) -> Callable:
    """Return the program `run`, which goes on after each step whose verdict it leaves to the program `settle`."""

    def segment(leaves, state, t, count):
        pieces, end = [], t + count
        while True:
            state, rows, found = run(leaves, state, np.int32(t), np.int32(end - t))
            if state.status != ASKS:
                break
            pieces.append(jax.tree.map(lambda x, n=int(state.steps) - t: np.asarray(x)[:n], rows))
            t, state = int(state.steps), settle(leaves, state)
        if pieces:
            rows = jax.tree.map(lambda *x: np.concatenate(x), *pieces, rows)
        return state, rows, found

    segment.lower = run.lower  # by which a checkpoint knows the run
    return segment


def _first(training: Training) -> tuple[State, dict[str, PyTree]]:
    """Return the state before the first step, and the first record."""
    state = begin(training)
    return state, row(training, state, jnp.int32(0), propose(training, state, jnp.int32(0)))


# A run in NumPy


BLOCKS = 64  # times as large a Jacobian of data sets is still faster in NumPy, which takes all sets in one call


def fits_numpy(training: Training, most: int) -> bool:
    """Return whether the steps of a run are made in NumPy: its method can, and there is no rule and no record but loss.

    What is large is left to a compiled program: a Jacobian of more than `most` numbers, about.
    """
    problem, plain = training.problem, training.record.what in ((), ("loss",)) and not training.stop.watches
    if not (plain and training.optimizer.traits.numpy and training.validation is None and training.batches is None):
        return False
    params, numbers = sizes(problem)
    most *= BLOCKS if isinstance(problem.loss, Joint) else 1
    return jax.default_backend() == "cpu" and params <= current().numpy_params and numbers <= most


class InNumPy(NamedTuple):
    """The state of the method of a run in NumPy, which no compiled program can go on from to the bit."""

    memory: DampingState


def in_numpy_programs(ask: Callable) -> tuple[Callable, Callable, Callable]:
    """Return what stands for the programs of a run: begin, and twice the function that makes steps and judges them."""

    def begin(leaves):
        training = ask(leaves)
        params = free(training.problem.params)
        with np.errstate(all="ignore"):
            memory = method_of(training.optimizer).begin(linearized(training.problem), raveled(params))
        return State(
            params=params, memory=InNumPy(memory), start_loss=memory.system.loss,
            status=np.int32(RUNNING), steps=np.int32(0),  # pyright: ignore[reportArgumentType]
            change=None, best=None, stale=None,
        )  # fmt: skip

    def segment(leaves, state, t, count):
        training = ask(leaves)
        method, place, every = method_of(training.optimizer), linearized(training.problem), training.record.every
        flat, memory = raveled(state.params), state.memory.memory
        losses = []
        with np.errstate(all="ignore"):
            for i in range(count + 1):
                view, loss = method.look(place, flat, memory), memory.system.loss
                if i % every == 0:
                    losses.append(loss)
                status = _verdict(loss, view)
                if status != RUNNING or i == count:
                    flat = view.last if status == Status.CONVERGED else flat
                    break
                flat, memory = method.move(place, flat, memory, view)
        steps = int(t) + i
        if status == RUNNING and steps >= training.steps:
            rounding = 64 * np.finfo(flat.dtype).eps * abs(state.start_loss)
            status = Status.DIVERGED if loss > state.start_loss + rounding else Status.OUT_OF_STEPS
        state = state._replace(
            params=unflattened(flat, state.params),
            memory=InNumPy(memory),
            status=np.int32(status),
            steps=np.int32(steps),
        )
        return state, dict.fromkeys(training.record.what, np.array(losses)), End(loss, None, {})

    return begin, segment, segment


def _verdict(loss: np.floating, view: View) -> Status:
    """Return the status at a point, as `loops.judge` does."""
    if not math.isfinite(loss):
        return Status.NOT_FINITE if np.isnan(loss) else Status.DIVERGED
    if not are_finite(view.slope):
        return Status.NOT_FINITE
    return Status.CONVERGED if view.ends else Status.NOT_DETERMINED if view.undetermined else RUNNING


# New functions in every call

ENOUGH = 5
seen: dict[tuple, set[int]] = {}  # the functions compiled so far, by where they were written


def warn_of_recompiling(loss: Callable, optimizer: Optimizer | None = None) -> None:
    """Warn if functions from one line were compiled again and again: a new function in every call is a new program."""
    functions = {"loss": getattr(loss, "func", getattr(loss, "predict", None))}
    if optimizer is not None:
        functions["optimizer"] = getattr(optimizer.hyperparameters.get("transformation"), "update", None)
    remedies = {
        "loss": "define it once, outside of the loop, and pass what changes as data or params",
        "optimizer": "write jf.optimizer(optax.adam, learning_rate=...), whose numbers do not recompile",
    }
    for name, function in functions.items():
        if function is None or not hasattr(function, "__code__"):
            continue
        compiled_ids = seen.setdefault(_origin(function), set())
        if len(compiled_ids) == ENOUGH or id(function) in compiled_ids:
            continue
        compiled_ids.add(id(function))
        if len(compiled_ids) == ENOUGH:
            warn(
                f"the {name} `{function.__qualname__}` has been compiled {len(compiled_ids)} times, each time as a new "
                f"function: {remedies[name]}"
            )


def _origin(function: Callable, depth: int = 2) -> tuple:
    """Return where a function and those that it closes over were written: equal for all that one line makes."""
    cells = [cell.cell_contents for cell in (getattr(function, "__closure__", None) or ())] if depth else []
    inner = [x for cell in cells for x in (cell if isinstance(cell, (tuple, list)) else (cell,))]
    return function.__code__, tuple(_origin(x, depth - 1) for x in inner if hasattr(x, "__code__"))


def raveled(tree: PyTree) -> np.ndarray:
    """Return all numbers of a tree of one type, in the order of its leaves."""
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def linearized(problem: Problem) -> Place:
    """Return the residuals and slopes of a problem as functions of its free params, from NumPy to NumPy.

    Args:
      problem: Of one run, without a key; its numbers are in the precision that holds here.
    """
    leaves, structure = jax.tree.flatten(problem)
    shapes = tuple((x.shape, x.dtype) for x in leaves)
    at_point, alone, form, affine = _programs(structure, shapes, jax.config.jax_enable_x64, current().of_programs)
    limits = bounds(problem.params) if is_marked(problem.params) else None

    def of_sets(flat):
        packed, at, found = np.asarray(at_point(leaves, flat)), 0, []
        like, structure = form(flat)
        for shape in like:
            at += (size := math.prod(shape))
            found.append(packed[at - size : at].reshape(shape)[()])
        return jax.tree.unflatten(structure, found)

    def found(flat):
        packed = np.asarray(at_point(leaves, flat))
        k = flat.size
        n = (packed.size - 3 - k) // (k + 1)
        loss, weight, size = packed[:3]
        return Slopes(
            loss, weight, size, packed[3 : 3 + k], packed[3 + k : 3 + k + n], packed[3 + k + n :].reshape(k, n)
        )

    return Place(
        of_sets if isinstance(problem.loss, Joint) else found,
        lambda flat: np.asarray(alone(leaves, flat)),
        None if limits is None else (raveled(limits[0]), raveled(limits[1])),
        lambda flat: affine(leaves, flat),
    )


def sizes(problem: Problem, *, whole: bool = False) -> tuple[int, int]:
    """Return how many params a residual depends on, at most, and how many numbers a Jacobian has, about.

    Args:
      whole: Whether to count the Jacobian with all its zeros, even if data sets have params of their own.
    """
    moving = free(problem.params)
    layout = None if whole else layout_of(problem.loss, moving, problem.params)
    if layout is None:
        params = sum(x.size for x in jax.tree.leaves(moving))
        return params, params * max((x.size for x in jax.tree.leaves(problem.data)), default=1)
    return layout.width, layout.width * sum(max(x.size for x in jax.tree.leaves(given)) for given in problem.data)


@functools.lru_cache(maxsize=64)
def _programs(structure: Structure, shapes: tuple, x64: bool, settings: tuple) -> tuple[Callable, ...]:
    """Return the programs (leaves, flat) -> numbers of `Slopes` in a row, and (leaves, flat) -> residuals.

    And a function of flat, which returns the shapes and the structure of these `Slopes`; and (leaves, flat) -> the
    places of `Place.affine`, found when it is first called.
    """

    def asked(leaves, flat):
        problem = jax.tree.unflatten(structure, leaves)
        marked = problem.params if is_marked(problem.params) else None
        objective = Objective(problem.loss, problem.data, {}, marked, affine_inputs)
        return objective, jax.flatten_util.ravel_pytree(free(problem.params))[1]

    def linearize(leaves, flat):
        numbers = fast_sums(lambda leaves, flat: slopes(*asked(leaves, flat), flat))(leaves, flat)
        return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(numbers)])

    def evaluate(leaves, flat):
        return residuals(*asked(leaves, flat), flat)

    @functools.cache
    def shaped(size, dtype):
        like = [jax.ShapeDtypeStruct(*x) for x in shapes], jax.ShapeDtypeStruct((size,), dtype)
        found = jax.eval_shape(lambda leaves, flat: slopes(*asked(leaves, flat), flat), *like)
        leaves, structure = jax.tree.flatten(found)
        return [x.shape for x in leaves], structure

    known: list[tuple[int, ...]] = []

    def affine(leaves, flat):
        if not known:  # traced as in the other programs, so that the model is given the same kinds of arrays
            trace(lambda *x: known.append(affine_params(*asked(*x), x[1])), leaves, flat)
        return known[0]

    options = SUMS.get(jax.default_backend())
    programs = compiled(linearize, options), compiled(evaluate, options)
    return *programs, lambda flat: shaped(flat.size, flat.dtype), affine
