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
from jaxfit.optimizers.gauss_newton import Slopes
from jaxfit.problems.axes import holds_call
from jaxfit.problems.marks import Tied, free, is_mark
from jaxfit.problems.problems import Problem, convert_all, precision_context
from jaxfit.statistics.estimates import (
    Basis,
    Estimate,
    Placed,
    counted,
    held_at,
    of_squares,
    placed,
    propagated,
    squares_around_constant,
    squares_of_data,
    varied,
)
from jaxfit.typing import PyTree
from jaxfit.verbs.evaluations import PRECISION, free_places
from jaxfit.verbs.results import Fit, numbers_in


class Linear(NamedTuple):
    """One problem to first order at the params where its fit ended, in NumPy."""

    problem: Problem  # its numbers in the precision of statistics
    flat: np.ndarray  # (k,) free params
    found: Slopes
    basis: Basis


def estimate_in_numpy(fit: Fit, function: Callable | None, extra: tuple) -> Estimate | None:
    """Return what `estimate` does for one fit by squares, by the program that the fit itself used.

    None for what is left to a compiled program, see `linear_in_numpy`.
    """
    with precision_context(PRECISION), np.errstate(all="ignore"):
        if (linear := linear_in_numpy(fit)) is None:
            return None
        problem, flat, found, basis = linear
        ties = any(isinstance(x, Tied) for x in jax.tree.leaves(problem.params, is_leaf=is_mark))
        if function is None and not ties:
            params = numbers_in(fit)
            values = raveled(convert_all(params, PRECISION))
            slopes = np.zeros((values.size, flat.size))
            slopes[free_places(problem.params, params)] = np.eye(flat.size)
        else:
            values, slopes = _apart(_Varied(function), problem, (flat, extra))
        estimate = propagated(basis, values, slopes, function is None, found.loss)
        return Estimate(*(np.asarray(x)[()] for x in estimate))


def linear_in_numpy(fit: Fit) -> Linear | None:
    """Return one fit by squares to first order; to be called in the precision of statistics.

    None for what is left to a compiled program: a large Jacobian, one that is not finite or only known backward.
    """
    asked: Any = fit.problem
    if jax.default_backend() != "cpu" or holds_call(asked.params):
        return None
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
    count = counted(problem.loss, problem.data, found.residuals)
    basis = of_squares(flat, held_at(problem, flat), found.residuals, found.columns, count, of_data(problem)[0])
    return Linear(problem, flat, found, basis)


def leverages_in_numpy(fit: Fit) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return minus the residuals, raw and in standard deviations, and their leverages, in the shape of y.

    None if there is no y, and as `linear_in_numpy`.
    """
    loss: Any = fit.problem.loss  # pyright: ignore[reportOptionalMemberAccess]
    if not noise_model_of(loss).predicts:
        return None
    with precision_context(PRECISION), np.errstate(all="ignore"):
        if (linear := linear_in_numpy(fit)) is None:
            return None
        problem, _, found, basis = linear
        where = of_data(problem)[2].where
        leverage = ((found.columns.T @ basis.root) ** 2).sum(axis=1)
        shape = problem.data[loss.data_names.index("y")].shape
        each = (x if where is None else np.where(where, x, np.nan) for x in (-found.residuals, leverage))
        raw, leverage = (x.reshape(shape) for x in each)
        return raw, raw, leverage


class _Varied(NamedTuple):
    function: Callable | None

    def __call__(self, problem: Problem, flat: Array, extra: tuple) -> tuple:
        back = jax.flatten_util.ravel_pytree(free(problem.params))[1]
        return varied(problem, back, flat, self.function, extra)


def of_data(problem: Problem) -> tuple[Any, Any, Placed]:
    """Return the sums of squares of y, and of y around the best constant, and where the residuals stand.

    The sums are zero for a loss that does not predict y.
    """
    return _apart(_of_data, problem, ()) if noise_model_of(problem.loss).predicts else (0.0, 0.0, Placed())


def _of_data(problem: Problem) -> tuple[Any, Array, Placed]:
    return squares_of_data(problem), squares_around_constant(problem), placed(problem)


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
