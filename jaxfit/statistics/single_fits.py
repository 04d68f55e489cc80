"""Estimates of one fit by squares in NumPy: all that has to be compiled is the program that the fit itself used."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import numpy as np

from jaxfit.engine.compiling import compiled
from jaxfit.engine.linearizing import linearized, raveled
from jaxfit.engine.settings import current
from jaxfit.engine.tracing import Structure, undifferentiable
from jaxfit.losses.base import noise_model_of
from jaxfit.optimizers.arrays import Array
from jaxfit.problems.axes import holds_call
from jaxfit.problems.marks import Tied, free, is_mark
from jaxfit.problems.problems import Problem, convert_all, precision_context
from jaxfit.statistics.estimates import (
    Estimate,
    counted,
    held_at,
    of_squares,
    propagated,
    squares_around_constant,
    squares_of_data,
    varied,
)
from jaxfit.typing import PyTree
from jaxfit.verbs.evaluations import PRECISION, free_places
from jaxfit.verbs.results import Fit


def estimate_in_numpy(fit: Fit, function: Callable | None, extra: tuple) -> Estimate | None:
    """Return what `estimate` does for one fit by squares, by the program that the fit itself used.

    None for what is left to a compiled program: a large Jacobian, one that is not finite or only known backward.
    """
    asked: Any = fit.problem
    if jax.default_backend() != "cpu" or holds_call(asked.params):
        return None
    with precision_context(PRECISION), np.errstate(all="ignore"):
        problem = convert_all(asked, PRECISION)
        flat = raveled(convert_all(free(problem.params, fit.params), PRECISION))
        points = max((x.size for x in jax.tree.leaves(problem.data)), default=1)
        if flat.size > current().numpy_params or points * flat.size > current().numpy_numbers:
            return None
        try:
            found = linearized(problem).slopes(flat)
        except TypeError as error:
            cause = error.__cause__
            if undifferentiable(cause if isinstance(cause, Exception) else error):
                return None
            raise
        if not (np.isfinite(found.residuals).all() and np.isfinite(found.columns).all()):
            return None
        ties = any(isinstance(x, Tied) for x in jax.tree.leaves(problem.params, is_leaf=is_mark))
        if function is None and not ties:
            values = raveled(convert_all(fit.params, PRECISION))
            slopes = np.zeros((values.size, flat.size))
            slopes[free_places(problem.params, fit.params)] = np.eye(flat.size)
        else:
            values, slopes = _apart(_Varied(function), problem, (flat, extra))
        count = counted(problem.loss, problem.data, found.residuals)
        basis = of_squares(flat, held_at(problem, flat), found.residuals, found.columns, count, of_data(problem)[0])
        found = propagated(basis, values, slopes, function is None, found.loss)
        return Estimate(*(np.asarray(x)[()] for x in found))


class _Varied(NamedTuple):
    function: Callable | None

    def __call__(self, problem: Problem, flat: Array, extra: tuple) -> tuple:
        back = jax.flatten_util.ravel_pytree(free(problem.params))[1]
        return varied(problem, back, flat, self.function, extra)


def of_data(problem: Problem) -> tuple:
    """Return the sums of squares of y, and of y around the best constant, for a loss that predicts y; else zeros."""
    return _apart(_sums, problem, ()) if noise_model_of(problem.loss).predicts else (0.0, 0.0)


def _sums(problem: Problem) -> tuple[Any, Array]:
    return squares_of_data(problem), squares_around_constant(problem)


def _apart(function: Callable, problem: Problem, arguments: tuple) -> PyTree:
    """Return function(problem, *arguments) as NumPy arrays, by a program of its own."""
    leaves, structure = jax.tree.flatten((problem, arguments))
    shapes = tuple((np.shape(x), x.dtype) for x in leaves)
    return jax.tree.map(np.asarray, _program(function, structure, shapes, jax.config.jax_enable_x64)(leaves))


@functools.lru_cache(maxsize=64)
def _program(function: Callable, structure: Structure, shapes: tuple, x64: bool) -> Callable:
    def run(leaves):
        problem, arguments = jax.tree.unflatten(structure, leaves)
        return function(problem, *arguments)

    return compiled(run)
