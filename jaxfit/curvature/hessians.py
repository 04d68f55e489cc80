"""The Hessian of a loss by its free params, as products with vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxfit.parameters import free
from jaxfit.problems import Problem
from jaxfit.steps import full_loss
from jaxfit.tracing import undifferentiable

PyTree = Any


def flat_loss(problem: Problem) -> tuple[Callable, Array, Callable]:
    """The loss of all the data as a function of one vector, that vector, and the way back to the free params."""
    start, back = ravel_pytree(free(problem.params))
    return lambda vector: full_loss(problem, back(vector), jnp.int32(0)), start, back


def either_way(use: Callable[[Callable], Any], loss: Callable, at: Array) -> Any:
    """`use(jax.grad)`, or `use(jax.jacfwd)` of a loss that has no derivative backward: a loop of unknown length."""
    try:
        return use(jax.grad)
    except Exception:
        try:
            jax.eval_shape(jax.grad(loss), at)
        except Exception as error:
            if undifferentiable(error):
                return use(jax.jacfwd)
        raise


def products(problem: Problem, preconditioner: PyTree = None) -> tuple[Callable, Array, Callable]:
    """v -> Hv, or v -> D^-1/2 H D^-1/2 v; with the params as a vector, and the way back.

    The gradient is linearized once, so that a product costs about as much as a gradient.
    """
    loss, start, back = flat_loss(problem)
    _, product = either_way(lambda grad: jax.linearize(grad(loss), start), loss, start)
    if preconditioner is None:
        return product, start, back
    scale = 1 / jnp.sqrt(ravel_pytree(preconditioner)[0])
    return lambda vector: scale * product(scale * vector), start, back
