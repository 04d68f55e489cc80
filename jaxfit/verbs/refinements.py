"""A sweep that runs only where its outcome changes: a map with a fine boundary at the price of a coarse one.

Coarse to fine: a lattice of every 2^depth-th member runs first; then, at half the distance each time, every member that
has a neighbor (also a diagonal one) of another outcome, until there is none left. What did not run takes the values of
the nearest member that did, which has the same outcome as all that lie between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import numpy as np

from jaxfit.engine.dispatch import Report, run_all
from jaxfit.engine.host import interruption, progress_bar
from jaxfit.engine.parts import FinishedPart, Part, Task, pool_shape, power_of_two
from jaxfit.engine.pools import Lanes, PoolShape
from jaxfit.problems import Batches, Record, Stop, whole_number
from jaxfit.problems.axes import is_array, is_key
from jaxfit.problems.dimensions import Dimension, coordinates
from jaxfit.problems.messages import did_you_mean, near_keywords
from jaxfit.typing import KeyLike, OptimizerLike, PyTree
from jaxfit.verbs.grids import Grid, dataset
from jaxfit.verbs.sweeps import check_memory, identity, plan_sweep, tally

if TYPE_CHECKING:
    import xarray as xr

By: TypeAlias = str | Callable
Measure: TypeAlias = Mapping[str, Callable] | None

FILLS = ("nearest", "linear")
OWN = ("lane", "evaluated")  # names that the results need for themselves
_NOTHING = "interrupted before there was a map to show"


@near_keywords
def refine(
    loss: Callable,
    params: PyTree,
    data: tuple = (),
    *,
    optimizer: OptimizerLike,
    depth: int = 4,
    by: By = "status",
    measure: Measure = None,
    over: str | Sequence[str] | None = None,
    fill: str = "nearest",
    steps: int = 1000,
    stop: Stop = Stop(),  # noqa: B008 (frozen)
    record: Record | None = None,
    batches: Batches | None = None,
    key: KeyLike | None = None,
    validation: tuple | None = None,
    progress: bool | None = None,
    precision: str | None = None,
    slots: int | None = None,
) -> Grid:
    """Run a sweep only where the outcome changes between neighbors, and fill in the rest.

    First every 2^depth-th point of the grid is run; then the distance is halved `depth` times, and each time only
    points with a neighbor of another outcome are run. A point is filled in wrongly only if the whole region of its
    outcome, joined by neighbors and diagonal neighbors, contains no point that ran: an island smaller than the first
    lattice. `depth=0` runs everything.

    Args:
      loss, params, data, optimizer, steps, stop, record, batches, key, validation, progress, precision, slots: As for
        `sweep`.
      depth: How many times the distance of the lattice is halved.
      by: What the outcome of a run is: a variable of the results, the name of a measure, or a function of the results.
        To refine where the colors of a map change as well:
        `lambda results: 10 * results.status + np.log2(results.steps).astype(int)`.
      measure: {name: function}: further variables. A function gets the `xarray.Dataset` of some runs, as `sweep` makes
        it but along the one dimension "lane", and returns one value for each.
      over: The axes to refine along; by default all axes of plain numbers that are not parts of the program. Every
        point of the other axes has a map of its own.
      fill: What points that did not run show: "nearest", all values of the nearest run; "linear", for pictures: floats
        and `steps` interpolated between runs of the same outcome.

    Returns:
      A `Grid` of all points. Its results have one number for each, and `evaluated` says which of them ran; params that
      are arrays, and histories, are read with `lane`, which gives the nearest run. `results.attrs["evaluated"]` is the
      fraction that ran.

    Raises:
      ValueError, TypeError: For bad input, before anything compiles; for a measure that returns anything else.
      Interrupted: On Ctrl-C; its `result` is the map so far, if there is one.

    Example:
      >>> rates = jf.Axis("rate", np.linspace(0.1, 1.5, 33))
      >>> grid = jf.refine(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(rates), steps=50, depth=3)
      >>> int(grid.results.evaluated.sum()), grid.results.sizes["rate"]
      (8, 33)
    """
    depth = whole_number("depth", depth, least=0)
    if fill not in FILLS:
        raise ValueError(f"fill is {fill!r}, but it must be {' or '.join(map(repr, FILLS))}")
    measure = _measures(measure, by)
    plan = plan_sweep(
        loss, params, data, optimizer=optimizer, steps=steps, stop=stop, record=record, batches=batches, key=key,
        validation=validation, precision=precision, slots=slots, verb="refine",
    )  # fmt: skip
    dimensions = plan.dimensions
    along = _directions(dimensions, over)
    check_memory(plan.parts, 4)
    parts = [part.in_pool(_shape(part, plan.slots)) for part in plan.parts]
    bar, drawn, interrupted = progress_bar(plan.size, progress, "lanes"), [], False
    try:
        for part in parts:
            axes = [i for i, d in enumerate(part.dimensions) if d.name in along]
            one, interrupted = _draw(part, dimensions, axes, depth, _Outcome(by, measure), tally(bar))
            drawn.append(one)
            if interrupted:
                break
    finally:
        bar.close()
    if interrupted and not (len(drawn) == len(parts) and all(one.complete for one in drawn)):
        raise interruption(_NOTHING, None)
    grid = _grid(drawn, dimensions, fill, depth, identity(plan, parts), plan.precision)
    if interrupted:
        raise interruption(
            f"interrupted after {len(grid.parts[-1].lanes.status):,} lanes; .result holds the map so far", grid
        )
    return grid


# What is asked


def _measures(measure: Measure, by: By) -> dict[str, Callable]:
    measure = {} if measure is None else measure
    if not isinstance(measure, Mapping) or not all(isinstance(k, str) and callable(f) for k, f in measure.items()):
        raise TypeError(
            f"measure is {measure!r}, but it must be a dictionary of functions of the results, such as "
            f'{{"low": lambda results: results.loss < 0.1}}'
        )
    taken = [name for name in measure if name in (*OWN, "loss", "status", "steps", "validation_loss")]
    if taken:
        raise ValueError(f"measure: {taken[0]!r} is a variable of the results already; call the measure otherwise")
    if not (isinstance(by, str) or callable(by)):
        raise TypeError(
            f"by is {by!r}, but it tells one outcome from another: the name of a variable, such as "
            f'"status", or a function of the results, such as lambda results: results.loss < 0.1'
        )
    return dict(measure)


def _directions(dimensions: dict[str, Dimension], over: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the axes to refine along, in the order of the dimensions."""
    for name in dimensions:
        if name in OWN:
            raise ValueError(
                f"axis name {name!r} is also a part of the results of refine; call the axis something else"
            )
    fit = [name for name, d in dimensions.items() if not d.static]
    if over is None:
        directions = tuple(name for name in fit if all(_is_ordered(m.axis.values) for m in dimensions[name].mentions))
        if not directions:
            raise ValueError(
                f"refine: none of the axes {', '.join(dimensions)} runs over plain numbers, so none has neighbors to "
                f"look between; use sweep, or name those that have with over="
            )
        return directions
    if not isinstance(over, (str, Sequence)):
        raise TypeError(f"refine: over is {over!r}, but it must be an axis's name, such as {fit[0]!r}, or several")
    asked = (over,) if isinstance(over, str) else tuple(over)
    for name in asked:
        if name not in fit:
            why = "is an axis over parts of the program" if name in dimensions else "is no axis"
            raise ValueError(f"refine: over={name!r} {why}; it can be of {', '.join(fit) or 'none here'}")
    return tuple(name for name in dimensions if name in asked)


def _is_ordered(values: PyTree) -> bool:
    return is_array(values) and not is_key(values) and np.ndim(values) == 1 and np.asarray(values).dtype.kind in "iuf"


def _shape(part: Part, slots: int | None) -> PoolShape:
    """Return the shape of blocks: small, because few lanes run at a time, and the same for every depth."""
    shape = pool_shape(part, slots)
    return shape._replace(lanes=min(shape.lanes, max(1, power_of_two(part.size // 256) // shape.slots) * shape.slots))


# One program's map


class _Outcome(NamedTuple):
    """What is an outcome, and what else is measured of a lane."""

    by: str | Callable
    measure: dict[str, Callable]


class _Drawn(NamedTuple):
    """The runs of one program that are computed."""

    part: FinishedPart
    measured: dict[str, np.ndarray]
    outcome: np.ndarray  # (lanes,)
    axes: list[int]  # along which it was refined
    known: np.ndarray  # whether each member has run

    @property
    def complete(self) -> bool:
        """Whether at every index of the other axes at least one run is computed."""
        return bool(self.known.any(axis=tuple(self.axes)).all())


def _draw(
    part: Part, dimensions: dict[str, Dimension], axes: list[int], depth: int, asked: _Outcome, report: Report
) -> tuple[_Drawn, bool]:
    """Run the necessary lanes of one program; also return whether Ctrl-C ended it early."""
    sizes, length = list(part.sizes.values()), part.shape.lanes
    batches: list[tuple[np.ndarray, Lanes, dict[str, np.ndarray], np.ndarray]] = []

    def evaluate(numbers):
        done: list[tuple[Task, Lanes]] = []
        tasks = [Task(0, numbers[i : i + length]) for i in range(0, len(numbers), length)]
        stopped = run_all([part], tasks, report, lambda *block: done.append(block))
        if not done:
            raise KeyboardInterrupt
        done.sort(key=lambda block: block[0].members[0])
        numbers = np.concatenate([task.members for task, _ in done])
        lanes = jax.tree.map(lambda *x: np.concatenate(x), *(lanes for _, lanes in done))
        results = table(part.finished(lanes, numbers), dimensions)
        measured = {n: _column(f"measure {n!r}", f(results), len(numbers)) for n, f in asked.measure.items()}
        outcome = _outcome(asked.by, results, measured)
        batches.append((numbers, lanes, measured, outcome))
        if stopped:
            raise KeyboardInterrupt
        return outcome

    try:
        trace_boundary(evaluate, sizes, axes, depth)
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
    if not batches:
        raise interruption(_NOTHING, None)
    numbers, lanes, measured, outcome = jax.tree.map(lambda *x: np.concatenate(x), *batches)
    known = np.zeros(sizes, bool)
    known.flat[numbers] = True
    return _Drawn(part.finished(lanes, numbers), measured, outcome, axes, known), interrupted


# Results


def table(part: FinishedPart, dimensions: dict[str, Dimension]) -> xr.Dataset:
    """Return the lanes of a part as a Dataset along "lane", with the coordinates of each."""
    count = len(part.lanes.status)
    along = {"lane": Dimension("lane", count, ())}
    results = dataset(along, [replace(part, choice={}, dimensions=tuple(along.values()))], part.training, {})
    index = dict(zip(dimensions, part.index(part.numbers(np.arange(count)), dimensions), strict=True))
    own_coordinates = {name: pair for name, pair in coordinates(dimensions).items() if pair[0] in index}
    coords = {n: ("lane", np.broadcast_to(v[index[d]], count)) for n, (d, v) in own_coordinates.items()}
    return results.assign_coords(coords)


def _column(what: str, values: PyTree, size: int) -> np.ndarray:
    column = np.asarray(values)
    if column.shape != (size,):
        raise ValueError(
            f"{what} returned an array of shape {column.shape} for {size} members; it must return one value for each"
        )
    return column


def _outcome(by: By, results: xr.Dataset, measured: dict[str, np.ndarray]) -> np.ndarray:
    """Return one label for each lane."""
    size = results.sizes["lane"]
    if isinstance(by, str) and by not in measured and not _is_scalar(results, by):
        there = [*measured, *(str(n) for n in results.data_vars if _is_scalar(results, n))]
        raise ValueError(
            f"by={by!r} is not one value for each member{did_you_mean(by, there)} There are {', '.join(there)}"
        )
    given = by(results) if callable(by) else measured[by] if by in measured else results[by]
    outcome = _column("by", given, size)
    if outcome.dtype.kind not in "biuUS":
        raise TypeError(
            f"by gives {outcome.dtype} values, but an outcome is a label, which neighbors can share: compare or round "
            f'them, such as lambda results: results.loss < 0.1, or np.log10(results.steps).astype("int")'
        )
    return outcome


def _grid(
    drawn: Sequence[_Drawn], dimensions: dict[str, Dimension], fill: str, depth: int, attributes: dict, precision: str
) -> Grid:
    import xarray as xr

    names, parts = tuple(dimensions), tuple(one.part for one in drawn)
    sizes = [d.size for d in dimensions.values()]
    tables = [table(part, dimensions) for part in parts]
    common = [str(name) for name in tables[0].data_vars if all(_is_scalar(one, name) for one in tables)]
    columns = {name: np.empty(sizes, tables[0][name].dtype) for name in common}
    columns |= {name: np.empty(sizes, values.dtype) for name, values in drawn[0].measured.items()}
    members, evaluated, first = np.empty(sizes, np.int64), np.empty(sizes, bool), 0
    for one, lane_table in zip(drawn, tables, strict=True):
        lane = np.zeros(one.known.shape, np.int64)
        count = len(one.part.lanes.status)
        lane.flat[one.part.numbers(np.arange(count))] = np.arange(count)
        cell = lane.ravel()[nearest(one.known, one.axes)]  # the lane that stands at each place
        where = tuple(one.part.choice.get(name, slice(None)) for name in names)
        members[where], evaluated[where] = first + cell, one.known
        for name, whole_grid in columns.items():
            values = (one.measured[name] if name in one.measured else lane_table[name].values)[cell]
            if fill == "linear" and (values.dtype.kind == "f" or name == "steps"):
                values = interpolate(values, one.known, one.outcome[cell], one.axes, depth)
            whole_grid[where] = np.round(values) if name == "steps" else values
        first += count
    variables: dict[str, tuple] = {name: (names, values) for name, values in columns.items()}
    variables["status"] += (tables[0].status.attrs,)
    variables["evaluated"] = (names, evaluated)
    attributes = attributes | {"refined_from": 2**depth, "fill": fill, "evaluated": float(evaluated.mean())}
    return Grid(xr.Dataset(variables, coordinates(dimensions), attributes), members, parts, precision)


def _is_scalar(table: xr.Dataset, name: Hashable) -> bool:
    return name in table and table[name].dims == ("lane",)


def trace_boundary(evaluate: Callable, sizes: Sequence[int], axes: Sequence[int], depth: int) -> np.ndarray:
    """Label the cells of an array, evaluating only a lattice and the cells that have a neighbor with another label.

    Args:
      evaluate: A function of flat indices of cells that returns a label for each.
      sizes: The shape of the array.
      axes: The axes along which cells are neighbors; the others index independent arrays.
      depth: The lattice has every 2^depth-th cell.

    Returns:
      The array of labels. A region of one label that is joined by neighbors, diagonal ones too, is complete if any cell
      of it was evaluated.
    """
    labels, known = None, np.zeros(sizes, bool)
    for stride in (2**k for k in reversed(range(depth + 1))):
        lattice = np.ix_(*(every_nth(size, stride if i in axes else 1) for i, size in enumerate(sizes)))
        while True:
            wanted = np.zeros(sizes, bool)
            wanted[lattice] = True if labels is None else mixed(labels[lattice], axes) & ~known[lattice]
            numbers = np.flatnonzero(wanted)
            if not len(numbers):
                break
            outcomes = np.asarray(evaluate(numbers))
            labels = (
                np.zeros(sizes, outcomes.dtype) if labels is None else labels.astype(np.result_type(labels, outcomes))
            )
            labels.flat[numbers] = outcomes
            known.flat[numbers] = True
            labels = labels.ravel()[nearest(known, axes)]
    return labels  # pyright: ignore[reportReturnType] (the first lattice is never empty)


def every_nth(size: int, stride: int) -> np.ndarray:
    """Return every `stride`-th index of an axis, and its last one."""
    return np.unique(np.append(np.arange(0, size, stride), size - 1))


def nearest(known: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Return for each cell the flat index of the nearest known cell along `axes`."""
    from scipy.ndimage import distance_transform_edt

    order = [*(i for i in range(known.ndim) if i not in axes), *axes]
    inner = [known.shape[i] for i in axes]
    turned = np.arange(known.size).reshape(known.shape).transpose(order)
    indices = []
    for cells in turned.reshape(-1, *inner):
        index: Any = distance_transform_edt(~known.ravel()[cells], return_distances=False, return_indices=True)
        indices.append(cells[tuple(index)])
    return np.reshape(indices, turned.shape).transpose(np.argsort(order))


def interpolate(
    values: np.ndarray, known: np.ndarray, labels: np.ndarray, axes: Sequence[int], depth: int
) -> np.ndarray:
    """Interpolate linearly between cells of the same label, on the successive lattices of `trace_boundary`.

    Args:
      values: Of all cells; those of known cells stay, and those for which the interpolation is not finite.
      known: Which cells were evaluated.
      labels: Of all cells.
      axes, depth: As they were for `trace_boundary`.
    """
    filled = values.astype(float)
    for stride in (2**k for k in reversed(range(depth))):
        lattice = [every_nth(size, 2 * stride if i in axes else 1) for i, size in enumerate(filled.shape)]
        for axis in axes:
            coarse = lattice[axis]
            fine = every_nth(filled.shape[axis], stride)
            new = np.setdiff1d(fine, coarse)
            low, high = coarse[np.searchsorted(coarse, new) - 1], coarse[np.searchsorted(coarse, new)]
            here, below, above = (np.ix_(*lattice[:axis], at, *lattice[axis + 1 :]) for at in (new, low, high))
            part = ((new - low) / (high - low)).reshape([-1 if i == axis else 1 for i in range(filled.ndim)])
            with np.errstate(invalid="ignore", over="ignore"):
                between = (1 - part) * filled[below] + part * filled[above]
            same = (labels[below] == labels[here]) & (labels[above] == labels[here]) & ~known[here]
            filled[here] = np.where(same & np.isfinite(between), between, filled[here])
            lattice[axis] = fine
    return filled


def mixed(labels: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Return where a neighbor along `axes`, diagonal ones included, has another label."""
    out = np.zeros(labels.shape, bool)
    for shift in itertools.product((-1, 0, 1), repeat=len(axes)):
        if shift <= (0,) * len(axes):  # itself, and the opposite of each other neighbor
            continue
        here, there = [slice(None)] * labels.ndim, [slice(None)] * labels.ndim
        for axis, step in zip(axes, shift, strict=True):
            here[axis] = slice(max(step, 0), labels.shape[axis] + min(step, 0))
            there[axis] = slice(max(-step, 0), labels.shape[axis] + min(-step, 0))
        differs = labels[tuple(here)] != labels[tuple(there)]
        out[tuple(here)] |= differs
        out[tuple(there)] |= differs
    return out
