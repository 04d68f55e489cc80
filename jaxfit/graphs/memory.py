"""How many bytes a loss works on, forward and backward, read off its program; nothing is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxfit.engine.jaxprs import alive_bytes, returned_bytes
from jaxfit.engine.loops import objective_of
from jaxfit.engine.tracing import inspect_loss, trace
from jaxfit.problems.checks.posing import pose_question, refuse_axes
from jaxfit.problems.marks import free
from jaxfit.problems.messages import near_keywords
from jaxfit.problems.problems import Problem, chosen_precision, convert_all, precision_context

PyTree = Any


@near_keywords
def backward_memory(
    loss: Callable, params: PyTree, data: tuple = (), *, key: Any = None, precision: str | None = None
) -> int:
    """Bytes of intermediate results that the backward pass keeps of the forward pass.

    For layers h = tanh(h @ w + b) it grows with rows x width x depth. `jax.checkpoint` around a part of the loss keeps
    only what enters that part, and computes the rest again.

    Counted is every array, once, that the function returned by `jax.vjp` closes over. Not counted are params, data and
    constants, which are there anyway, and what the backward pass needs for itself. A compiler may store less (it fuses,
    and computes cheap things again), so this is what the program asks for, not what a device reports.

    Args:
      loss, params, data, key, precision: As for `fit`.

    Raises:
      ValueError, TypeError: As `fit` does for the same arguments.
    """
    precision = chosen_precision(precision, params, data)
    problem = _problem("backward_memory", loss, params, data, key, precision)
    with precision_context(precision):
        program, _ = trace(lambda problem: jax.vjp(_objective(problem), free(problem.params))[1], problem)
    return returned_bytes(program.jaxpr)


@near_keywords
def forward_memory(
    loss: Callable, params: PyTree, data: tuple = (), *, key: Any = None, precision: str | None = None
) -> int:
    """Bytes of intermediate results that are alive at once, at most, where only the value of the loss is wanted.

    Operations run in the order written, and an array is dropped after its last use: for a chain of layers of one width
    that does not depend on their number. Not counted are params, data and constants, nor what is alive inside of one
    operation only (an inner `jit`, a loop).

    Args:
      loss, params, data, key, precision: As for `fit`.

    Raises:
      ValueError, TypeError: As `fit` does for the same arguments.
    """
    precision = chosen_precision(precision, params, data)
    problem = _problem("forward_memory", loss, params, data, key, precision)
    with precision_context(precision):
        program, _ = trace(lambda problem: _objective(problem)(free(problem.params)), problem)
    return alive_bytes(program.jaxpr)


def _problem(verb: str, loss: Callable, params: PyTree, data: tuple, key: Any, precision: str) -> Problem:
    problem = pose_question(loss, params, data, key, precision)
    refuse_axes(verb, problem)
    with precision_context(precision):
        problem = convert_all(problem, precision)
        inspect_loss(problem)
    return problem


def _objective(problem: Problem) -> Callable:
    return objective_of(problem, problem.data, problem.key)
