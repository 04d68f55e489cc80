"""Evaluate one function of a problem at many points: along axes, in a grid, or in the history of a run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxfit.engine.evaluating import evaluate, laid_out, member_like
from jaxfit.engine.single import warn_of_recompiling
from jaxfit.engine.tracing import inspect_loss, trace
from jaxfit.problems.axes import Axis, resolve
from jaxfit.problems.dimensions import Dimension, choose, coordinates, fill
from jaxfit.problems.marks import put
from jaxfit.problems.posing import as_params
from jaxfit.problems.problems import Problem, precision_context
from jaxfit.typing import Array, PyTree
from jaxfit.verbs.grids import Grid
from jaxfit.verbs.results import Fit, problem_of
from jaxfit.verbs.sweeps import choices_of

if TYPE_CHECKING:
    import xarray as xr


LANE = "#lane"


class Arguments(NamedTuple):
    """The arguments of a function of a problem."""

    problem: Problem
    extra: PyTree = None  # further arrays, which may hold axes too
    number: Any = None  # a setting as a traced number, so that a new value does not recompile


Quantity = Callable[[Arguments], PyTree]  # hashable; of one member


def at_one(quantity: Quantity, arguments: Arguments, precision: str) -> PyTree:
    """Return a quantity of one member, as NumPy arrays."""
    found = _evaluate(quantity, arguments, {}, precision)
    return jax.tree.map(lambda x: x[0], found)


def over_axes(quantity: Quantity, arguments: Arguments, dimensions: Mapping[str, Dimension], precision: str) -> PyTree:
    """Return a quantity at all combinations of the axes, in arrays whose leading dimensions are the axes."""
    sizes = [d.size for d in dimensions.values()]
    found: PyTree = None
    for choice in choices_of(dict(dimensions)):
        dynamic = [d for d in dimensions.values() if d.name not in choice]
        part = _evaluate(quantity, choose(arguments, choice), {d.name: d.size for d in dynamic}, precision)
        if found is None:
            found = jax.tree.map(lambda x: np.empty((*sizes, *x.shape[1:]), x.dtype), part)
        where = tuple(choice.get(name, slice(None)) for name in dimensions)
        for all_of_it, values in zip(jax.tree.leaves(found), jax.tree.leaves(part), strict=True):
            all_of_it[where] = values.reshape(np.shape(all_of_it[where]))
    return found


def over_history(quantity: Quantity, fit: Fit, extra: PyTree, number: float | None = None) -> PyTree:
    """Return a quantity at all records of a run, in arrays with a leading axis along `fit.history.step`.

    `extra` has such an axis too.
    """
    problem, (params, more) = problem_of(fit), jax.tree.map(_records, (fit.history.params, extra))
    arguments = Arguments(problem._replace(params=put(problem.params, params)), more, number)
    return _evaluate(quantity, arguments, {"#record": len(fit.history.step)}, fit.precision or "float32")


def _records(values: Array) -> Axis:
    return Axis("#record", np.asarray(values))


def over_grid(
    quantity: Quantity, grid: Grid, *, history: bool, extra: str | None, number: float | None = None
) -> PyTree:
    """Return a quantity at the end of all lanes, or at all records, in arrays whose leading dimensions are the grid's.

    Args:
      quantity: The function to evaluate.
      grid: Of a sweep; with its params recorded, if the history is evaluated.
      history: Whether the last leading axis runs along the records.
      extra: The name of a record to hand over as well.
      number: A setting of the quantity.
    """
    found = []
    for part in grid.parts:
        count, records = len(part.lanes.status), len(grid.results.step) if history else 1
        index = part.along(np.repeat(part.numbers(np.arange(count)), records))
        flat = lambda x: Axis(LANE, np.asarray(x).reshape(-1, *np.shape(x)[2:]))  # noqa: E731
        one = flat if history else (lambda x: Axis(LANE, np.asarray(x)))
        params = part.lanes.rows["params"] if history else part.lanes.params
        more = None if extra is None else jax.tree.map(one, part.lanes.rows[extra])
        problem = part.training.problem
        arguments = Arguments(problem._replace(params=put(problem.params, jax.tree.map(one, params))), more, number)
        values = _evaluate(quantity, arguments, index | {LANE: np.arange(count * records)}, grid.precision)
        if history:
            beyond = np.arange(records) * part.training.record.every > np.asarray(part.lanes.steps)[:, None]
            values = jax.tree.map(lambda x, b=beyond: _blank(x.reshape(*b.shape, *x.shape[1:]), b), values)
        found.append(values)
    joined = jax.tree.map(lambda *pieces: np.concatenate(pieces), *found)
    return jax.tree.map(lambda x: x[grid.members], joined)


def _blank(values: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "f":
        return values
    return np.where(beyond.reshape(beyond.shape + (1,) * (values.ndim - 2)), np.nan, values)


def named(
    values: np.ndarray, dimensions: Mapping[str, Dimension], name: str, extra: tuple[str, ...] = ()
) -> xr.DataArray:
    """Return values over axes as an `xarray.DataArray`."""
    import xarray as xr

    return xr.DataArray(values, coordinates(dict(dimensions)), (*dimensions, *extra), name=name)


# The program


@dataclass(frozen=True)
class OfMember:
    """A quantity of one member, whose start is made first if a `Call` makes it."""

    quantity: Quantity

    def __call__(self, arguments: Arguments) -> PyTree:
        params = as_params(resolve(arguments.problem.params))
        return self.quantity(arguments._replace(problem=arguments.problem._replace(params=params)))


def _evaluate(
    quantity: Quantity, arguments: Arguments, where: Mapping[str, int | np.ndarray], precision: str
) -> PyTree:
    """Return a quantity of many members; `where` as for `evaluate`."""
    with precision_context(precision):
        template = laid_out(arguments, precision)
        _inspect(template.spec, jax.config.jax_enable_x64)
    return evaluate(OfMember(quantity), template, where, precision)


@functools.lru_cache(maxsize=64)
def _inspect(spec: tuple, x64: bool) -> None:
    """Inspects the loss of one member, once for a structure."""

    def filled(template, own):
        problem = fill(template, own).problem
        return problem._replace(params=as_params(resolve(problem.params)))

    _, problem = trace(filled, *member_like(spec))
    if inspect_loss(problem, forward=True):  # `products` goes forward where there is no way backward
        raise TypeError(
            "the loss captured a value of a jit, vmap or grad that is going on, which cannot be compiled apart; pass "
            "that value as data"
        )
    warn_of_recompiling(problem.loss)
