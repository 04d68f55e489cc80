"""The programs of a single run, compiled once for each structure of its training, and a warning about too many."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxfit.engine.compiling import SUMS, compiled
from jaxfit.engine.loops import advance, begin, judges_steps, propose, row, stepper
from jaxfit.engine.settings import current
from jaxfit.engine.tracing import Structure, inspect_training, shape_of
from jaxfit.optimizers.building import Optimizer
from jaxfit.problems.messages import warn
from jaxfit.problems.problems import Training, convert
from jaxfit.typing import PyTree


class Programs(NamedTuple):
    """The programs of runs of one structure, whose leaves are arguments. Each is compiled when it is first called."""

    begin: Callable  # (leaves) -> State
    plain: Callable  # (leaves, state, t, count) -> (State, rows, End), without judging steps
    judged: Callable  # the same, judging each step
    training: Callable  # (leaves) -> Training
    judges_steps: bool  # whether every step is judged
    captured: bool  # whether the loss holds a tracer of the caller, so that it cannot be compiled on its own
    capacity: int  # rows that one call can record
    pace: list[float]  # [seconds a step takes], once measured


def prepare(training: Training, precision: str) -> tuple[Programs, list]:
    """Return the programs for a run, and its leaves in the precision; large ones are put on the device once.

    Raises:
      ValueError, TypeError: If its loss cannot be trained; see `inspect_training`.
    """
    leaves, structure = jax.tree.flatten(training)
    leaves = [convert(x, precision) for x in leaves]
    programs = programs_of(
        structure, tuple((x.shape, x.dtype) for x in leaves), jax.config.jax_enable_x64, current().of_programs
    )
    return programs, jax.device_put(leaves) if sum(x.nbytes for x in leaves) > 2**20 else leaves


@functools.lru_cache(maxsize=64)
def programs_of(structure: Structure, shapes: tuple, x64: bool, settings: tuple) -> Programs:
    """Return the programs for a structure. The cache is bounded: new functions in every call cannot fill the memory."""
    ask = functools.partial(jax.tree.unflatten, structure)
    training = ask([jax.ShapeDtypeStruct(*x) for x in shapes])
    captured = inspect_training(training)
    capacity = 0
    if not captured:
        record, captured = shape_of(_first_row, training)
        if not captured:
            warn_of_recompiling(training.problem.loss, training.optimizer)
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(record))
        capacity = max(1, min(current().stretch_rows, current().stretch_bytes // max(size, 1)))

    def run(judged):
        def segment(leaves, state, t, count):
            training = ask(leaves)
            every = training.record.every
            return advance(
                stepper(training, judged=judged),
                state,
                t,
                count,
                every=every,
                capacity=capacity,
                early=judged,
            )

        return compiled(segment, SUMS.get(jax.default_backend()))

    first = compiled(lambda leaves: begin(ask(leaves)))
    return Programs(first, run(False), run(True), ask, judges_steps(training), captured, capacity, [])


def _first_row(training: Training) -> dict[str, PyTree]:
    state = begin(training)
    return row(training, state, jnp.int32(0), propose(training, state, jnp.int32(0)))


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
        made = seen.setdefault(_origin(function), set())
        if len(made) == ENOUGH or id(function) in made:
            continue
        made.add(id(function))
        if len(made) == ENOUGH:
            warn(
                f"the {name} `{function.__qualname__}` has been compiled {len(made)} times, each time as a new "
                f"function: {remedies[name]}"
            )


def _origin(function: Callable, depth: int = 2) -> tuple:
    """Return where a function and those that it closes over were written: equal for all that one line makes."""
    cells = [cell.cell_contents for cell in (getattr(function, "__closure__", None) or ())] if depth else []
    inner = [x for cell in cells for x in (cell if isinstance(cell, (tuple, list)) else (cell,))]
    return function.__code__, tuple(_origin(x, depth - 1) for x in inner if hasattr(x, "__code__"))
