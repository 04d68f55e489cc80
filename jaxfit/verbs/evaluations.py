"""Evaluate a pure function of a problem: at one point, along axes, at the records of a run, at all lanes of a grid."""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from jaxfit.engine.compiling import compiler_options, fast_sums, lanes_in_one_pass
from jaxfit.engine.evaluating import evaluate, laid_out, member_like
from jaxfit.engine.settings import current
from jaxfit.engine.single import warn_of_recompiling
from jaxfit.engine.tracing import inspect_loss, trace
from jaxfit.losses.base import label, noise_model_of
from jaxfit.optimizers.arrays import short
from jaxfit.optimizers.lanes import side_by_side
from jaxfit.problems import Problem, Status, precision_context
from jaxfit.problems.axes import Axis, is_axis
from jaxfit.problems.dimensions import Dimension, choices_of, choose, coordinates, fill
from jaxfit.problems.marks import Fixed, Tied, is_mark, is_marked, put, unflattened, without_kept
from jaxfit.problems.posing import as_params, with_start
from jaxfit.typing import PyTree, Scalar
from jaxfit.verbs.grids import Grid
from jaxfit.verbs.results import Fit, NotConverged, numbers_in, problem_of

if TYPE_CHECKING:
    import xarray as xr


LANE = "#lane"
PRECISION = "float64"  # of all statistics, whatever the run's
BYTES = 2**24  # that a block of lanes may hold in Jacobians, about
ON_CPU = 256  # lanes side by side at most: what they work on should stay in a core's own cache,
BYTES_ON_CPU = 2**21  # as their Jacobians should; but for two lanes, since a pair shares operations
FAILED = (Status.NOT_RUN, Status.DIVERGED, Status.NOT_FINITE)


class Arguments(NamedTuple):
    """The arguments of a function of a problem."""

    problem: Problem
    extra: PyTree = None  # further arrays, which may hold axes too
    number: Scalar = None  # a setting as a traced number, so that a new value does not recompile


Quantity = Callable[[Arguments], PyTree]  # hashable; of one member


def at_one(quantity: Quantity, arguments: Arguments, precision: str) -> PyTree:
    """Return a quantity of one member, as NumPy arrays."""
    results = _evaluate(quantity, arguments, {}, precision)
    return jax.tree.map(lambda x: x[0], results)


def over_axes(quantity: Quantity, arguments: Arguments, dimensions: Mapping[str, Dimension], precision: str) -> PyTree:
    """Return a quantity at all combinations of the axes, in arrays whose leading dimensions are the axes."""
    return at_choices(
        dimensions, lambda choice, sizes: _evaluate(quantity, choose(arguments, choice), sizes, precision)
    )


def at_choices(dimensions: Mapping[str, Dimension], part: Callable[[dict[str, int], dict[str, int]], PyTree]) -> PyTree:
    """Return arrays whose leading dimensions are the axes, put together from one part for each static choice.

    Args:
      dimensions: By name, in the order wanted.
      part: part(choice, sizes): the arrays of a choice, with one leading axis of all combinations of the other axes.
    """
    results: PyTree = None
    sizes = {name: d.size for name, d in dimensions.items()}
    for choice in choices_of(dimensions):
        values = part(choice, {name: size for name, size in sizes.items() if name not in choice})
        if results is None:
            results = jax.tree.map(lambda x: np.empty((*sizes.values(), *x.shape[1:]), x.dtype), values)
        where = tuple(choice.get(name, slice(None)) for name in dimensions)
        for all_of_it, own in zip(jax.tree.leaves(results), jax.tree.leaves(values), strict=True):
            all_of_it[where] = own.reshape(np.shape(all_of_it[where]))
    return results


def over_history(quantity: Quantity, fit: Fit, extra: PyTree, number: float | None = None) -> PyTree:
    """Return a quantity at all records of a run, in arrays with a leading axis along `fit.history.step`.

    `extra` has such an axis too.
    """
    problem = problem_of(fit)
    params, more = jax.tree.map(lambda x: Axis("#record", np.asarray(x)), (fit.history._rows["params"], extra))
    arguments = Arguments(problem._replace(params=put(problem.params, params)), more, number)
    return _evaluate(quantity, arguments, {"#record": len(fit.history.step)}, fit.precision or "float32")


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
    pieces = []
    for part in grid.parts:
        count, records = len(part.lanes.status), len(grid.results.step) if history else 1
        index = part.along(np.repeat(part.numbers(np.arange(count)), records))
        given = part.lanes.rows["params"] if history else part.lanes.params, extra and part.lanes.rows[extra]
        if history:
            given = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *np.shape(x)[2:]), given)
        params, more = jax.tree.map(lambda x: Axis(LANE, np.asarray(x)), given)
        problem = part.training.problem
        arguments = Arguments(problem._replace(params=put(problem.params, params)), more, number)
        values = _evaluate(quantity, arguments, index | {LANE: np.arange(count * records)}, grid.precision)
        if history:
            beyond = np.arange(records) * part.training.record.every > np.asarray(part.lanes.steps)[:, None]
            values = jax.tree.map(lambda x, b=beyond: _blank(x.reshape(*b.shape, *x.shape[1:]), b), values)
        pieces.append(values)
    joined = jax.tree.map(lambda *pieces: np.concatenate(pieces), *pieces)
    return jax.tree.map(lambda x: x[grid.members], joined)


def _blank(values: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "f":
        return values
    return np.where(beyond.reshape(beyond.shape + (1,) * (values.ndim - beyond.ndim)), np.nan, values)


def data_array(
    values: np.ndarray, dimensions: Mapping[str, Dimension], name: str, extra: tuple[str, ...] = ()
) -> xr.DataArray:
    """Return values over axes as an `xarray.DataArray`."""
    import xarray as xr

    return xr.DataArray(values, coordinates(dict(dimensions)), (*dimensions, *extra), name=name)


@dataclass(frozen=True)
class QuantityOfMember:
    """A quantity of one member, whose start is made first if a `Call` makes it."""

    quantity: Quantity

    def __call__(self, arguments: Arguments) -> PyTree:
        return self.quantity(arguments._replace(problem=with_start(arguments.problem)))


def _evaluate(
    quantity: Quantity, arguments: Arguments, where: Mapping[str, int | np.ndarray], precision: str
) -> PyTree:
    """Return a quantity of many members; `where` as for `evaluate`."""
    with precision_context(precision):
        template = laid_out(arguments, precision)
        _inspect(template.spec, jax.config.jax_enable_x64)
    return evaluate(QuantityOfMember(quantity), template, where, precision)


@functools.lru_cache(maxsize=64)
def _inspect(spec: tuple, x64: bool) -> None:
    """Inspect the loss of one member, once for a structure."""
    _, problem = trace(lambda template, own: with_start(fill(template.problem, own)), *member_like(spec))
    if inspect_loss(problem, forward=True):  # `products` goes forward where there is no way backward
        raise TypeError(
            "the loss captured a value of a jit, vmap or grad that is going on, which cannot be compiled apart; pass "
            "that value as data"
        )
    warn_of_recompiling(problem.loss)


class Group(NamedTuple):
    """Lanes of one program."""

    problem: Problem  # with axes where lanes differ
    along: dict[str, np.ndarray]  # (lanes,) places along its axes
    params: PyTree  # (lanes, ...) the user's tree, where each lane ended
    failed: np.ndarray  # (lanes,) bool

    @property
    def size(self) -> int:
        return len(self.failed)


def member_numbers(grid: Grid) -> np.ndarray:
    """Return the numbers of the lanes of a grid in order, each once."""
    numbers = np.ravel(grid.members)
    return numbers if (np.diff(numbers) > 0).all() else np.unique(numbers)


def check_result(verb: str, result: object) -> None:
    """Check that it is a finished run.

    Raises:
      TypeError: If it is neither a fit nor a grid.
      ValueError: If it no longer knows its problem.
      NotConverged: If it is a fit that failed, whose params have no meaning.
    """
    if isinstance(result, Grid):
        return
    if not isinstance(result, Fit):
        raise TypeError(
            f"{verb} takes a fit or the grid of a sweep, but got {reprlib.repr(result)}; pass what jf.fit, "
            f"jf.curve_fit or jf.sweep returned"
        )
    problem_of(result, verb)
    if result.status in FAILED:
        raise NotConverged(f"{verb} needs params at a minimum, but the fit ended {str(result).splitlines()[0]}")


def groups_of(result: Fit | Grid) -> list[Group]:
    """Return the lanes of a fit (one) or of a grid, by program."""
    if isinstance(result, Fit):
        params = jax.tree.map(lambda x: np.asarray(x)[None], whole_params(result))
        return [Group(problem_of(result), {}, params, np.zeros(1, bool))]
    groups, first = [], 0
    for part in result.parts:
        count = len(part.lanes.status)
        numbers = member_numbers(result)
        numbers = numbers[(numbers >= first) & (numbers < first + count)] - first
        first += count
        if not len(numbers):
            continue
        taken = jax.tree.map(lambda x, n=numbers: np.asarray(x)[n], (part.lanes.params, part.lanes.status))
        places = part.along(part.numbers(numbers))
        groups.append(Group(part.training.problem, places, taken[0], np.isin(taken[1], FAILED)))
    return groups


def one_lane(result: Fit | Grid) -> tuple[Problem, PyTree]:
    """Return the problem, with its axes for a grid, and the params of one lane.

    Raises:
      ValueError: If the lanes' params differ in shape, or the noise that their losses tell of.
    """
    if isinstance(result, Fit):
        return problem_of(result), numbers_in(result)
    losses = [part.training.problem.loss for part in result.parts]
    noise = {loss: noise_model_of(loss) for loss in losses}
    if len({(model.kind, model.sigma, model.deviance) for model in noise.values()}) > 1:
        raise ValueError(
            f"the losses of the grid, {' and '.join(map(label, noise))}, tell of different noise; take one lane: "
            f"jf.lane(grid, ...)"
        )
    shapes = {str(jax.tree.map(lambda x: x.shape[1:], without_kept(part.lanes.params))) for part in result.parts}
    if len(shapes) > 1:
        raise ValueError("the params of the grid differ in shape from lane to lane; take one: jf.lane(grid, ...)")
    return result.parts[0].training.problem, without_kept(whole_params(result))


def whole_params(result: Fit | Grid) -> PyTree:
    """Return the params of a fit, or of one lane, with marks around what is kept."""
    if isinstance(result, Grid):
        return jax.tree.map(lambda x: np.asarray(x)[0], result.parts[0].lanes.params)
    if numbers_in(result) is result.params:
        return result.params
    return as_params(result.params, inside=True, finite=False)


def free_places(marked: PyTree, params: PyTree) -> np.ndarray:
    """Return (K,) bool: which numbers of the user's tree are free."""
    leaves, structure = jax.tree.flatten(marked, is_leaf=is_mark)
    values = structure.flatten_up_to(params) if is_marked(marked) else [params]
    leaves = leaves if is_marked(marked) else [None]
    sizes = [sum(np.size(x) for x in jax.tree.leaves(without_kept(value))) for value in values]
    return np.repeat([not isinstance(mark, (Fixed, Tied)) for mark in leaves], sizes)


def over_lanes(result: Fit | Grid, function: Callable, static: tuple = (), extra: tuple = ()) -> PyTree:
    """Return function(problem, params, *static, *extra) as NumPy arrays; for a grid with its axes leading.

    A program is compiled once for a structure; lanes run in blocks. Floats are NaN where a run has failed.

    Args:
      result: A fit or a grid.
      function: Of one lane, pure; a module's own, so that it never recompiles.
      static: Hashable arguments, parts of the program.
      extra: Arrays, the same for all lanes.
    """
    groups = groups_of(result)
    with precision_context(PRECISION):
        pieces = [_run(group, function, static, extra) for group in groups]
    if isinstance(result, Fit):
        return jax.tree.map(lambda x: x[0], pieces[0])
    stacked, members = jax.tree.map(lambda *x: _joined(x), *pieces), result.members
    if (members.ravel() == np.arange(members.size)).all():
        return jax.tree.map(lambda x: x.reshape(*members.shape, *x.shape[1:]), stacked)
    order = np.searchsorted(member_numbers(result), members)
    return jax.tree.map(lambda x: x[order], stacked)


def _pieces(group: Group) -> Iterator[Group]:
    """Yield the lanes, in pieces with the data that they own if those of all would take much memory."""
    axes = [
        x for x in jax.tree.leaves(group.problem, is_leaf=is_axis) if is_axis(x) and isinstance(x.values, np.ndarray)
    ]
    bytes_of_member = sum(8 * x.values[0].size for x in axes)
    limit = current().block_bytes // 4  # as every device has a copy
    if sum(8 * x.values.size for x in axes) <= limit:
        yield group
        return
    length = max(1, limit // bytes_of_member)
    for first in range(0, group.size, length):
        lanes = np.minimum(np.arange(first, first + length), group.size - 1)  # all pieces run one program

        def taken(x, lanes=lanes):
            return Axis(LANE, x.values[group.along[x.name][lanes]]) if any(x is axis for axis in axes) else x

        problem = jax.tree.map(taken, group.problem, is_leaf=is_axis)
        along = {name: places[lanes] for name, places in group.along.items()}
        params = jax.tree.map(lambda x, lanes=lanes: x[lanes], group.params)
        yield Group(problem, along, params, group.failed[lanes])


@dataclass(frozen=True)
class Statistic:
    """A function of (problem, params, *extra) at one lane; a start given as a `Call` is made first."""

    function: Callable
    static: tuple
    alone: bool  # whether there is one lane only

    def __call__(self, lane: tuple) -> PyTree:
        with short(self.alone), side_by_side(None if self.alone else lanes_in_one_pass()):
            return fast_sums(self.at, joint=False)(lane)

    def at(self, lane: tuple) -> PyTree:
        problem, params, extra = lane
        return self.function(with_start(problem), params, *self.static, *extra)


def _run(group: Group, function: Callable, static: tuple, extra: tuple) -> PyTree:
    options = tuple(compiler_options(jax.default_backend()).items())
    statistic, pieces = Statistic(function, static, not group.along), []
    for piece in _pieces(group):
        params = jax.tree.map(lambda x: Axis(LANE, x), piece.params)
        template = laid_out((piece.problem, params, extra), PRECISION)
        where = piece.along | {LANE: np.arange(piece.size)}
        pieces.append(evaluate(statistic, template, where, PRECISION, width=_block(piece), options=options))
    joined = jax.tree.map(lambda *x: _joined(x)[: group.size], *pieces)
    return jax.tree.map(lambda x: _blank(x, group.failed), joined) if group.failed.any() else joined


def _joined(pieces: Sequence[np.ndarray]) -> np.ndarray:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _block(group: Group) -> int:
    """Return the number of lanes side by side, so that a few copies of their Jacobians stay small."""
    points = max([np.size(x) for x in jax.tree.leaves(group.problem.data) if not is_axis(x)] + [64])
    for x in jax.tree.leaves(group.problem.data, is_leaf=is_axis):
        if is_axis(x):
            points = max(points, np.size(x.values[0]) if len(x) else 1)
    jacobian = 8 * points * max(sum(x[0].size for x in jax.tree.leaves(group.params)), 1)
    lanes = max(1, BYTES // jacobian)
    if jax.default_backend() != "cpu":
        return int(min(4096, lanes))
    return int(min(ON_CPU, lanes, max(2, BYTES_ON_CPU // jacobian)))


def labelled(
    grid: Grid, values: np.ndarray, extra: Mapping[str, Sequence[str] | None] | None = None, name: str | None = None
) -> xr.DataArray:
    """Return an array over the axes of the grid, followed by its own, as an `xarray.DataArray`."""
    import xarray as xr

    status, extra = grid.results.status, extra or {}
    coords = dict(status.coords) | {k: v for k, v in extra.items() if v is not None}
    return xr.DataArray(values, coords, (*status.dims, *extra), name=name)


def labels_of(params: PyTree) -> list[str]:
    """Return the name of every number of a tree, in the order of its leaves: a, w[0], w[1], inner.b, ..."""
    names = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        label = jax.tree_util.keystr(path, simple=True, separator=".")
        label = label or ("params" if np.ndim(leaf) == 0 else "")
        names += [label + "".join(f"[{', '.join(map(str, i))}]" if i else "") for i in np.ndindex(np.shape(leaf))]
    return names


def like(params: PyTree, flat: np.ndarray) -> PyTree:
    """Return (..., K) numbers as a tree like params, (...) leading at every leaf; single ones as scalars."""
    return jax.tree.map(lambda x: x[()], unflattened(flat, params))
