"""What a lane of a sweep holds, as shapes, and which of it all lanes share: read from its program before it runs."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.engine.jaxprs import depends, largest_bytes
from jaxfit.engine.loops import End, State, begin, check, judged_step, judges_steps
from jaxfit.engine.tracing import Structure, shape_of, trace
from jaxfit.problems.axes import resolve
from jaxfit.problems.dimensions import fill
from jaxfit.problems.marks import plain, put
from jaxfit.problems.posing import as_params
from jaxfit.problems.problems import Problem, Training
from jaxfit.typing import PyTree


class Layout(NamedTuple):
    """What a lane holds, as shapes."""

    values: dict[str, PyTree]  # its own
    state: State
    end: End
    params: PyTree  # the user's own tree
    axes: State  # for each leaf of the state, 0 if lanes may differ in it, None if they share it


def lane_problem(template: Problem, values: dict[str, PyTree]) -> Problem:
    """Return the problem of one lane, with its own values filled in and each `Call` replaced by its result."""
    problem = fill(template, values)
    return problem._replace(params=as_params(resolve(problem.params)))


def lane_training(template: Training, values: dict[str, PyTree]) -> Training:
    """Return the training of one lane, with its own values filled in and each `Call` replaced by its result."""
    training = fill(template, values)
    return training.at(as_params(resolve(training.problem.params)))


def lock_step(template: Training) -> bool:
    """Return whether all lanes of a pool take the same number of steps: no step is judged."""
    return not judges_steps(template)


@functools.lru_cache(maxsize=256)
def layout_of(structure: Structure, leaves: tuple, columns: tuple, x64: bool) -> Layout | None:
    """Return what each lane holds; None if the loss captured a tracer of the caller, so that it cannot be found out.

    Args:
      structure: Of the training with a place for each of the lanes' own values.
      leaves: (shape, dtype) of each of its leaves.
      columns: By place, `spec_of` the lanes' own values.
      x64: Whether 64-bit types are on.

    Raises:
      TypeError, ValueError: As `shape_of`.
    """

    def like(specs):
        return [jax.ShapeDtypeStruct(*x) for x in specs]

    template = jax.tree.unflatten(structure, like(leaves))
    values = {key: jax.tree.unflatten(tree, like(specs)) for key, (tree, specs) in columns}

    def lane(template, values):
        training = lane_training(template, values)
        state = begin(training)
        _, end = check(training, state, jnp.int32(0))
        return state, end, plain(put(training.problem.params, state.params))

    (state, end, params), captured = shape_of(lane, template, values)
    if captured:
        return None
    return Layout(values, state, end, params, axes_of(template, values, state))


def axes_of(template: Training, values: dict[str, PyTree], state: State) -> State:
    """Return the axes of `vmap` for the state: 0 for leaves in which lanes may differ, None for those that they share.

    If steps are judged, slots share nothing. Otherwise the results are each lane's own, and another leaf is shared if
    neither its start nor its update depends on a lane's own values or on leaves that are each lane's own.
    """
    if not lock_step(template):
        return jax.tree.map(lambda _: 0, state)
    first, _ = trace(lambda p, v: begin(lane_training(p, v)), template, values)
    update, _ = trace(
        lambda p, v, s, t: judged_step(lane_training(p, v), s, t)[0], template, values, state, np.int32(0)
    )
    given = [False] * len(jax.tree.leaves(template)) + [True] * len(jax.tree.leaves(values))
    shared = jax.tree.map(lambda _: False, state)
    results = shared._replace(
        params=jax.tree.map(lambda _: True, state.params), status=True, steps=True, start_loss=True
    )
    grown = [a or b for a, b in zip(jax.tree.leaves(results), depends(first, given), strict=True)]
    own: list[bool] = []
    while grown != own:
        own = grown
        grown = [a or b for a, b in zip(own, depends(update, [*given, *own, False]), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(state), [0 if yes else None for yes in own])


def working_bytes(training: Training) -> int:
    """Return the bytes that a step of one lane touches: its state, and inputs and outputs of its largest operation."""
    _, state = trace(begin, training)
    step, _ = trace(lambda p, s, t: judged_step(p, s, t)[0], training, state, np.int32(0))
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) + largest_bytes(step)
