"""The residuals of one problem and their Jacobian at given params: a small program, for what is done in NumPy.

A fit by a method whose arithmetic takes NumPy, and the statistics of a fit, need nothing else of the loss. They share
the program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from jaxfit.engine.compiling import SUMS, compiled, fast_sums
from jaxfit.engine.settings import current
from jaxfit.engine.tracing import Structure
from jaxfit.optimizers.gauss_newton import Place, Slopes, residuals, slopes
from jaxfit.optimizers.methods import Objective
from jaxfit.problems.marks import bounds, free, is_marked
from jaxfit.problems.problems import Problem
from jaxfit.typing import PyTree


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
    at_point, alone = _programs(structure, shapes, jax.config.jax_enable_x64, current().of_programs)
    limits = bounds(problem.params) if is_marked(problem.params) else None

    def found(flat):
        packed = np.asarray(at_point(leaves, flat))
        k = flat.size
        n = (packed.size - 3 - k) // (k + 1)
        loss, weight, size = packed[:3]
        return Slopes(
            loss, weight, size, packed[3 : 3 + k], packed[3 + k : 3 + k + n], packed[3 + k + n :].reshape(k, n)
        )

    return Place(
        found,
        lambda flat: np.asarray(alone(leaves, flat)),
        None if limits is None else (raveled(limits[0]), raveled(limits[1])),
    )


@functools.lru_cache(maxsize=64)
def _programs(structure: Structure, shapes: tuple, x64: bool, settings: tuple) -> tuple[Callable, Callable]:
    """Return the programs (leaves, flat) -> numbers of `Slopes` in a row, and (leaves, flat) -> residuals."""

    def asked(leaves, flat):
        problem = jax.tree.unflatten(structure, leaves)
        objective = Objective(problem.loss, problem.data, {}, problem.params if is_marked(problem.params) else None)
        return objective, jax.flatten_util.ravel_pytree(free(problem.params))[1]

    def linearize(leaves, flat):
        found = fast_sums(lambda leaves, flat: slopes(*asked(leaves, flat), flat))(leaves, flat)
        return jnp.concatenate([jnp.ravel(x) for x in found])

    def evaluate(leaves, flat):
        return residuals(*asked(leaves, flat), flat)

    options = SUMS.get(jax.default_backend())
    return compiled(linearize, options), compiled(evaluate, options)
