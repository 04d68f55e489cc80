"""Evaluate a pure function of a problem and its final params for a fit, or for every lane of a grid."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfit.engine.evaluating import evaluate, laid_out
from jaxfit.problems.axes import Axis, is_axis, resolve
from jaxfit.problems.marks import Fixed, Tied, is_mark, is_marked
from jaxfit.problems.posing import as_params
from jaxfit.problems.problems import Problem, Status, precision_context
from jaxfit.verbs.grids import Grid
from jaxfit.verbs.results import Fit, NotConverged, problem_of

PyTree = Any
LANE = "#lane"
PRECISION = "float64"  # of all statistics, whatever the run's
BYTES = 2**24  # that a block of lanes may hold in Jacobians, about
FAILED = (Status.NOT_RUN, Status.DIVERGED, Status.NOT_FINITE)


class Group(NamedTuple):
    """Lanes of one program."""

    problem: Problem  # with axes where lanes differ
    along: dict[str, np.ndarray]  # (lanes,) places along its axes
    params: PyTree  # (lanes, ...) the user's tree, where each lane ended
    failed: np.ndarray  # (lanes,) bool

    @property
    def size(self) -> int:
        return len(self.failed)


def check_result(verb: str, result: Any) -> None:
    """Check that it is a finished run.

    Raises:
      TypeError: If it is neither a fit nor a grid.
      ValueError: If it no longer knows its problem.
      NotConverged: If it is a fit without params to speak of.
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


def groups_of(result: Any) -> list[Group]:
    """Return the lanes of a fit (one) or of a grid, by program."""
    if isinstance(result, Fit):
        params = jax.tree.map(lambda x: np.asarray(x)[None], result.params)
        return [Group(result.problem, {}, params, np.zeros(1, bool))]  # pyright: ignore[reportArgumentType]
    groups, first = [], 0
    for part in result.parts:
        count = len(part.lanes.status)
        numbers = np.unique(result.members)
        numbers = numbers[(numbers >= first) & (numbers < first + count)] - first
        first += count
        if not len(numbers):
            continue
        taken = jax.tree.map(lambda x, n=numbers: np.asarray(x)[n], (part.lanes.params, part.lanes.status))
        places = part.along(part.numbers(numbers))
        groups.append(Group(part.training.problem, places, taken[0], np.isin(taken[1], FAILED)))
    return groups


def example(result: Any) -> tuple[Problem, PyTree]:
    """Return the problem, with its axes for a grid, and the params of one lane.

    Raises:
      ValueError: If the lanes' params differ in shape.
    """
    if isinstance(result, Fit):
        problem: Any = result.problem
        return problem, result.params
    shapes = {str(jax.tree.map(lambda x: x.shape[1:], part.lanes.params)) for part in result.parts}
    if len(shapes) > 1:
        raise ValueError("the params of the grid differ in shape from lane to lane; take one: jf.lane(grid, ...)")
    return result.parts[0].training.problem, jax.tree.map(lambda x: np.asarray(x)[0], result.parts[0].lanes.params)


def free_places(marked: PyTree, params: PyTree) -> np.ndarray:
    """Return (K,) bool: which numbers of the user's tree are free."""
    leaves, structure = jax.tree.flatten(marked, is_leaf=is_mark)
    values = structure.flatten_up_to(params) if is_marked(marked) else [params]
    leaves = leaves if is_marked(marked) else [None]
    sizes = [sum(np.size(x) for x in jax.tree.leaves(value)) for value in values]
    return np.repeat([not isinstance(mark, (Fixed, Tied)) for mark in leaves], sizes)


def over_lanes(result: Any, function: Callable, static: tuple = (), extra: tuple = ()) -> PyTree:
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
    stacked = jax.tree.map(lambda *x: np.concatenate(x), *pieces)
    order = np.searchsorted(np.unique(result.members), result.members)
    return jax.tree.map(lambda x: x[order], stacked)


@dataclass(frozen=True)
class Statistic:
    """A function of (problem, params, *extra) at one lane; a start given as a `Call` is made first."""

    function: Callable
    static: tuple

    def __call__(self, lane: tuple) -> PyTree:
        problem, params, extra = lane
        problem = problem._replace(params=as_params(resolve(problem.params)))
        return self.function(problem, params, *self.static, *extra)


def _run(group: Group, function: Callable, static: tuple, extra: tuple) -> PyTree:
    params = jax.tree.map(lambda x: Axis(LANE, x), group.params)
    template = laid_out((group.problem, params, extra), PRECISION)
    where = group.along | {LANE: np.arange(group.size)}
    found = jax.tree.map(
        np.array, evaluate(Statistic(function, static), template, where, PRECISION, width=_block(group))
    )
    for x in jax.tree.leaves(found):
        if x.dtype.kind == "f":
            x[group.failed] = np.nan
    return found


def _block(group: Group) -> int:
    """Return the number of lanes side by side, so that a few copies of their Jacobians stay small."""
    points = max([np.size(x) for x in jax.tree.leaves(group.problem.data) if not is_axis(x)] + [64])
    for x in jax.tree.leaves(group.problem.data, is_leaf=is_axis):
        if is_axis(x):
            points = max(points, np.size(x.values[0]) if len(x) else 1)
    numbers = sum(x[0].size for x in jax.tree.leaves(group.params))
    return int(min(4096, max(1, BYTES // (8 * points * max(numbers, 1)))))


def labelled(grid: Grid, values: np.ndarray, extra: dict[str, Any] | None = None, name: str | None = None) -> Any:
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
    """Return (..., K) numbers as a tree like params, (...) leading at every leaf."""
    leaves, structure = jax.tree.flatten(params)
    ends = np.cumsum([np.size(x) for x in leaves])
    parts = np.split(flat, ends[:-1], axis=-1)
    shaped = [p.reshape((*flat.shape[:-1], *np.shape(x)))[()] for p, x in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)
