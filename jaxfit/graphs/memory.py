"""Memory of the forward and backward pass of a loss, read from its program without running it."""

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
    """Return the bytes of intermediate results that the backward pass keeps of the forward pass.

    For layers h = tanh(h @ w + b) it grows with rows x width x depth. `jax.checkpoint` around a part of the loss keeps
    only the inputs of that part, and computes the rest again.

    Every array that the function returned by `jax.vjp` closes over counts once. Params, data and constants do not
    count, because they exist anyway, nor does what the backward pass needs for itself. A compiler may store less,
    because it fuses operations and repeats cheap ones: this number is what the program asks for, not what a device
    reports.

    Args:
      loss, params, data, key, precision: As for `fit`.

    Raises:
      ValueError, TypeError: As `fit` for the same arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> jf.backward_memory(lambda p, x: jnp.sum(jnp.tanh(x * p)), 1.0, (np.ones(100),)) >= 400
      True
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
    """Return the largest number of bytes of intermediate results that exist at once when only the loss is computed.

    Operations run in the order written, and an array is dropped after its last use: for a chain of layers of one width
    the result does not depend on their number. Params, data and constants do not count, nor do arrays that exist only
    inside of one operation (an inner `jit`, a loop).

    Args:
      loss, params, data, key, precision: As for `fit`.

    Raises:
      ValueError, TypeError: As `fit` for the same arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> jf.forward_memory(lambda p, x: jnp.sum(jnp.tanh(x * p)), 1.0, (np.ones(100),)) <= 804
      True
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
