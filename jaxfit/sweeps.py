"""Many runs at once: `sweep` is `fit` with axes at its leaves; `lane` and `best` read the result."""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfit.checks import check_schedule, pose
from jaxfit.fits import Fit, History, Interrupted
from jaxfit.keywords import near_keywords
from jaxfit.markers import Axis, Dimension, Place, choose, is_array, lanes, read, resolve
from jaxfit.pools import Lanes, lane_problem, run_block
from jaxfit.problems import Batches, Problem, Record, Status, Stop, convert, precision_context, whole
from jaxfit.programs import warn_of_recompiling
from jaxfit.progress import progress_bar
from jaxfit.tracing import inspect_loss, is_traced, shape_of

PyTree = Any
MOST_PROGRAMS = 64
_NOT_INSIDE = (
    "sweep drives its programs from the host, so it cannot stand inside of a jit, vmap or grad, nor run a loss that "
    "captured a value of one; call it outside, or use jax.vmap over jf.fit there"
)
SLOTS = 256


class Part(NamedTuple):
    """The lanes of one program: those that share every static choice."""

    choice: dict[str, int]  # index along each static dimension
    dynamic: tuple[str, ...]  # the other dimensions, in order
    lanes: Lanes  # NumPy arrays with a leading lane axis, the last dimension fastest
    problem: Problem


@dataclass(frozen=True, eq=False)
class Grid:
    """A sweep that has ended.

    Attributes:
      results: An `xarray.Dataset` whose dimensions are the axes: `loss`, `status`, `steps`, `params.<path>` and, if
        asked for, `validation_loss` and `history.<name>` along `step`.
      members: Like `results.status`: the number of the lane at each place.
    """

    results: Any
    members: np.ndarray = field(repr=False)
    parts: tuple[Part, ...] = field(repr=False)
    precision: str = "float32"

    def __repr__(self) -> str:
        status = np.asarray(self.results.status)
        counts = ", ".join(f"{int((status == s).sum()):,} {s.name.lower()}" for s in Status if (status == s).any())
        sizes = " x ".join(f"{name} {size}" for name, size in zip(self.results.status.dims, status.shape, strict=True))
        return f"Grid({sizes}: {counts})\n{self.results}"


@near_keywords
def sweep(
    loss: Callable,
    params: PyTree,
    data: tuple = (),
    *,
    optimizer: Any,
    steps: int = 1000,
    stop: Stop = Stop(),  # noqa: B008 (frozen)
    record: Record | None = None,
    batches: Batches | None = None,
    key: Any = None,
    validation: tuple | None = None,
    progress: bool | None = None,
    precision: str = "float32",
    slots: int | None = None,
) -> Grid:
    """Runs `fit` once for every combination of the axes that stand at the leaves of its arguments.

    Axes of different names multiply, axes of one name move together. Axes of numbers run inside one program; axes of
    program parts (an optimizer's kind, a width, a batch size) become one program per value.

    Args:
      loss, params, data, optimizer, steps, stop, batches, key, validation, progress, precision: As for `fit`, with
        `Axis` at any leaf and `Call` in place of params.
      record: What the history holds; nothing unless asked.
      slots: Lanes side by side in the compiled program; part of what fixes the last bits of a result.

    Returns:
      The grid. One lane's trouble is that lane's status, and changes no other.

    Raises:
      ValueError, TypeError: For bad input, before anything compiles; also if there is no axis, if more than 64
        programs would be compiled, or if the results would not fit in memory.
      Interrupted: On Ctrl-C, with the blocks that were finished as its `result`.
    """
    problem = pose(
        loss, params, data, optimizer=optimizer, steps=steps, stop=stop, batches=batches, key=key, precision=precision,
        record=record or Record(what=()), validation=validation,
    )  # fmt: skip
    dimensions = read(problem._asdict(), static_places=("batches", "steps", "record"))
    slots = None if slots is None else whole("slots", slots)
    if is_traced(jax.tree.leaves(problem)):
        raise TypeError(_NOT_INSIDE)
    if not dimensions:
        raise ValueError("sweep found no Axis in its arguments; put jf.Axis(name, values) at a leaf, or call fit")
    choices = _choices(dimensions)
    members = np.arange(math.prod(d.size for d in dimensions.values())).reshape([d.size for d in dimensions.values()])
    with precision_context(precision):
        runs = [_prepare(problem, dimensions, choice, precision) for choice in choices]
        _check_memory(runs, steps)
        parts, interrupted = _run_all(runs, members.size, progress, slots)
    grid = Grid(_dataset(dimensions, parts, problem, precision, slots), _numbers(members, dimensions, parts), parts, precision)
    if interrupted:
        done = int((np.asarray(grid.results.status) != Status.NOT_RUN).sum())
        raise Interrupted(f"interrupted after {done:,} of {members.size:,} lanes; .result holds the grid so far", grid)
    return grid


def _choices(dimensions: dict[str, Dimension]) -> list[dict[str, int]]:
    static = [d for d in dimensions.values() if d.static]
    count = math.prod(d.size for d in static)
    if count > MOST_PROGRAMS:
        sizes = " x ".join(f"{d.name} ({d.size} values)" for d in static)
        raise ValueError(
            f"the axes {sizes} stand at places that are parts of the program, so that {count} programs would be compiled; "
            f"at most {MOST_PROGRAMS} are. Use numbers at traced places (floats instead of integers); for data sets of "
            f"unequal length, pad them (jf.datasets.pad) and use a loss with masked=True"
        )
    indices = itertools.product(*(range(d.size) for d in static))
    return [dict(zip([d.name for d in static], index, strict=True)) for index in indices]


class _Run(NamedTuple):
    """One program's share of a sweep, ready to run."""

    choice: dict[str, int]
    dynamic: tuple[Dimension, ...]
    problem: Problem  # with the static choice made, the user's numbers
    leaves: list
    structure: Any
    columns: dict[str, PyTree]  # by place, values along its dimension
    records: int
    lane_bytes: int

    @property
    def size(self) -> int:
        return math.prod(d.size for d in self.dynamic)

    def block(self, first: int, width: int) -> dict[str, PyTree]:
        """The lanes' own values, from lane `first` on; the last lane is repeated to fill the width."""
        numbers = np.minimum(np.arange(first, first + width), self.size - 1)
        index = np.unravel_index(numbers, [d.size for d in self.dynamic]) if self.dynamic else ()
        along = {d.name: i for d, i in zip(self.dynamic, index, strict=True)}
        taken = {
            key: jax.tree.map(lambda x, i=along[Place(key).name]: x[i], values) for key, values in self.columns.items()
        }
        return taken | {"#": numbers.astype(np.int32)}


def _prepare(problem: Problem, dimensions: dict[str, Dimension], choice: dict[str, int], precision: str) -> _Run:
    chosen = choose(problem, choice)
    template, columns = lanes(chosen)
    leaves, structure = jax.tree.flatten(template)
    leaves = [convert(x, precision) for x in leaves]
    columns = {key: jax.tree.map(lambda x: convert(x, precision), values) for key, values in columns.items()}
    dynamic = tuple(d for d in dimensions.values() if d.name not in choice)
    records = int(problem.steps) // problem.record.every + 1 if problem.record.what else 0
    lane_bytes = _inspect(structure, _shapes(leaves), tuple((k, _spec(v)) for k, v in columns.items()), records)
    check_schedule(choose(chosen.optimizer, {d.name: 0 for d in dynamic}), int(problem.steps))
    return _Run(choice, dynamic, chosen, leaves, structure, columns, records, lane_bytes)


def _shapes(leaves: Sequence) -> tuple:
    return tuple((x.shape, x.dtype) for x in leaves)


def _spec(values: PyTree) -> tuple:
    leaves, structure = jax.tree.flatten(values)
    return structure, tuple((x.shape[1:], x.dtype) for x in leaves)


@functools.lru_cache(maxsize=256)
def _inspect(structure: Any, shapes: tuple, columns: tuple, records: int) -> int:
    """Checks one lane's problem; returns how many bytes its results take."""
    template = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*s) for s in shapes])
    values = {key: jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*s) for s in specs]) for key, (tree, specs) in columns}

    def one(template, values):
        return lane_problem(template, values)

    filled = jax.eval_shape(one, template, values)
    if inspect_loss(filled):
        raise TypeError(_NOT_INSIDE)
    warn_of_recompiling(filled)
    block = {k: jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), v) for k, v in values.items()}
    block["#"] = jax.ShapeDtypeStruct((1,), np.int32)
    result, captured = shape_of(functools.partial(run_block, records=records), template, block)
    if captured:
        raise TypeError(_NOT_INSIDE)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(result))


def _check_memory(runs: Sequence[_Run], steps: int) -> None:
    need = sum(run.size * run.lane_bytes for run in runs)
    have = _free_memory()
    if have is not None and need > 0.8 * have:
        history = runs[0].records and f"record less often than every {runs[0].problem.record.every} steps or fewer things, "
        raise ValueError(
            f"the results of {sum(r.size for r in runs):,} lanes take {need:,} bytes ({runs[0].lane_bytes:,} a lane), but "
            f"{have:,} bytes of memory are free: {history or ''}sweep fewer lanes, or sweep in parts"
        )


def _free_memory() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


@functools.lru_cache(maxsize=MOST_PROGRAMS)
def _program(structure: Any, shapes: tuple, records: int, x64: bool) -> Callable:
    """One compiled block for each structure of a problem and each of its shapes."""
    return jax.jit(lambda leaves, columns: run_block(jax.tree.unflatten(structure, leaves), columns, records=records))


def _run_all(runs: Sequence[_Run], total: int, progress: bool | None, slots: int | None) -> tuple[tuple[Part, ...], bool]:
    parts, interrupted = [], False
    outcomes = dict.fromkeys(Status, 0)
    bar = progress_bar(total, progress, "lanes")
    try:
        for run in runs:
            pieces: list[Lanes] = []
            width = slots or min(SLOTS, 1 << (run.size - 1).bit_length())
            program = _program(run.structure, _shapes(run.leaves), run.records, jax.config.jax_enable_x64)
            leaves = jax.device_put(run.leaves)
            try:
                for first in range(0, run.size, width):
                    count = min(width, run.size - first)
                    piece = jax.device_get(program(leaves, run.block(first, width)))
                    pieces.append(jax.tree.map(lambda x, n=count: x[:n], piece))
                    for status, n in zip(*np.unique(pieces[-1].status, return_counts=True), strict=True):
                        outcomes[Status(int(status))] += int(n)
                    bar.update(count)
                    bar.set_postfix_str(_outcomes(outcomes), refresh=False)
            except KeyboardInterrupt:
                interrupted = True
            parts.append(Part(run.choice, tuple(d.name for d in run.dynamic), _joined(run, pieces, width), run.problem))
            if interrupted:
                break
    finally:
        bar.close()
    for run in runs[len(parts) :]:
        parts.append(Part(run.choice, tuple(d.name for d in run.dynamic), _joined(run, [], 1), run.problem))
    return tuple(parts), interrupted


def _outcomes(counts: dict[Status, int]) -> str:
    return ", ".join(f"{n:,} {status.name.lower().replace('_', ' ')}" for status, n in counts.items() if n)


def _joined(run: _Run, pieces: list[Lanes], width: int) -> Lanes:
    """The blocks as one; lanes that did not run are NaN with status NOT_RUN."""
    missing = run.size - sum(len(piece.status) for piece in pieces)
    if missing:
        values = run.block(0, 1)
        shape = jax.eval_shape(
            functools.partial(run_block, records=run.records), jax.tree.unflatten(run.structure, run.leaves), values
        )
        blank = jax.tree.map(
            lambda x: np.full((missing, *x.shape[1:]), np.nan if x.dtype.kind == "f" else 0, x.dtype), shape
        )
        pieces = [*pieces, blank]
    return jax.tree.map(lambda *parts: np.concatenate(parts) if len(parts) > 1 else parts[0], *pieces)


# Results as a labelled Dataset


def _numbers(members: np.ndarray, dimensions: dict[str, Dimension], parts: Sequence[Part]) -> np.ndarray:
    """At each place of the grid, the number of its lane: parts one after another."""
    starts = np.cumsum([0, *(len(part.lanes.status) for part in parts)])
    return _arrange([np.arange(a, b) for a, b in itertools.pairwise(starts)], dimensions, parts)


def _arrange(columns: Sequence[np.ndarray], dimensions: dict[str, Dimension], parts: Sequence[Part]) -> np.ndarray:
    """One array over all dimensions from one column of lanes a part."""
    names = list(dimensions)
    sizes = [d.size for d in dimensions.values()]
    out = np.empty((*sizes, *columns[0].shape[1:]), columns[0].dtype)
    for column, part in zip(columns, parts, strict=True):
        where = tuple(part.choice.get(name, slice(None)) for name in names)
        out[where] = column.reshape([dimensions[name].size for name in part.dynamic] + list(column.shape[1:]))
    return out


def _dataset(
    dimensions: dict[str, Dimension], parts: Sequence[Part], problem: Problem, precision: str, slots: int | None
) -> Any:
    import xarray as xr

    names = tuple(dimensions)

    def variable(select, extra=()):
        columns = [select(part.lanes) for part in parts]
        return (*names, *extra), _arrange(columns, dimensions, parts)

    variables: dict[str, Any] = {name: variable(lambda x, n=name: getattr(x, n)) for name in ("loss", "steps")}
    meaning = ", ".join(f"{s.value} {s.name}" for s in Status)
    variables["status"] = (*variable(lambda x: x.status.astype(np.int8)), {"meaning": meaning})
    if problem.validation is not None:
        variables["validation_loss"] = variable(lambda x: x.validation_loss)
    shapes = {jax.tree.structure(p.lanes.params): {x.shape[1:] for x in jax.tree.leaves(p.lanes.params)} for p in parts}
    layouts = {tuple(x.shape[1:] for x in jax.tree.leaves(p.lanes.params)) for p in parts}
    if len(shapes) == 1 and len(layouts) == 1:
        for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(parts[0].lanes.params)):
            name = ".".join(s for s in ("params", jax.tree_util.keystr(path, simple=True, separator=".")) if s)
            extra = tuple(f"{name}_dim_{k}" for k in range(leaf.ndim - 1))
            variables[name] = variable(lambda x, i=i: jax.tree.leaves(x.params)[i], extra)
    coords = _coordinates(dimensions)
    if problem.record.what:
        records = jax.tree.leaves(parts[0].lanes.rows)[0].shape[1]
        coords["step"] = ("step", np.arange(records) * problem.record.every)
        for name in parts[0].lanes.rows:
            for path, leaf in jax.tree_util.tree_leaves_with_path(parts[0].lanes.rows[name]):
                tail = jax.tree_util.keystr(path, simple=True, separator=".")
                full = ".".join(s for s in ("history", name, tail) if s)
                extra = ("step", *(f"{full}_dim_{k}" for k in range(leaf.ndim - 2)))
                if all(_has(part.lanes.rows[name], path, leaf) for part in parts):
                    variables[full] = variable(lambda x, n=name, p=path: _at(x.rows[n], p), extra)
    attributes = {
        "precision": precision, "slots": slots or SLOTS, "jax": jax.__version__, "platform": jax.default_backend(),
    }  # fmt: skip
    return xr.Dataset(variables, coords, attributes)


def _at(tree: PyTree, path: tuple) -> Any:
    return dict((jax.tree_util.keystr(p), x) for p, x in jax.tree_util.tree_leaves_with_path(tree))[
        jax.tree_util.keystr(path)
    ]


def _has(tree: PyTree, path: tuple, leaf: Any) -> bool:
    found = {jax.tree_util.keystr(p): x.shape[1:] for p, x in jax.tree_util.tree_leaves_with_path(tree)}
    return found.get(jax.tree_util.keystr(path)) == leaf.shape[1:]


def _coordinates(dimensions: dict[str, Dimension]) -> dict[str, Any]:
    """Labels if given, else values if they are plain and shared by all leaves, else 0..n-1 with each leaf's beside."""
    coords: dict[str, Any] = {}
    for name, dimension in dimensions.items():
        labels = next((m.axis.labels for m in dimension.mentions if m.axis.labels is not None), None)
        plain = [(m.path, v) for m in dimension.mentions if (v := _plain_values(m.axis)) is not None]
        shared = len(plain) == len(dimension.mentions) and all(np.array_equal(plain[0][1], v) for _, v in plain)
        if labels is not None:
            coords[name] = (name, np.asarray(labels))
        elif shared:
            coords[name] = (name, plain[0][1])
        else:
            coords[name] = (name, np.arange(dimension.size))
            coords |= {path.replace("params", "start", 1): (name, values) for path, values in plain}
    return coords


def _plain_values(axis: Axis) -> np.ndarray | None:
    values = axis.values
    if is_array(values):
        extended = isinstance(values, jax.Array) and jax.numpy.issubdtype(values.dtype, jax.dtypes.extended)
        return np.asarray(values) if values.ndim == 1 and not extended else None
    return np.asarray(values) if all(isinstance(v, str) for v in values) else None


# Reading a grid


def lane(grid: Grid, /, **coords: Any) -> Fit:
    """The member of a grid nearest to the given coordinates, as a `Fit` with `.coords`. Nothing is computed again.

    Args:
      grid: From `sweep`.
      **coords: One value for each dimension longer than one: a number within the axis, or a label.

    Raises:
      ValueError: If a coordinate is missing, unknown, or outside its axis.
    """
    dims = grid.results.status.dims
    unknown = [name for name in coords if name not in dims]
    if unknown:
        raise ValueError(f"lane: the grid has no dimension {unknown[0]!r}; it has {', '.join(dims)}")
    place = tuple(_position(grid.results[name], coords, name) for name in dims)
    return _member(grid, place)


def _position(axis: Any, coords: dict[str, Any], name: str) -> int:
    values = np.asarray(axis)
    if name not in coords:
        if len(values) == 1:
            return 0
        raise ValueError(f"lane: {name} is missing; give a value for each of the dimensions, such as {name}={values[0]!r}")
    wanted = coords[name]
    if values.dtype.kind not in "fiu" or not isinstance(wanted, (int, float, np.number)) or isinstance(wanted, bool):
        found = np.flatnonzero(values == wanted)
        if len(found):
            return int(found[0])
        raise ValueError(f"lane: {name}={wanted!r} is not on the axis; its values are {', '.join(map(str, values[:8]))}")
    low, high = values.min(), values.max()
    slack = 1e-6 * max(abs(float(low)), abs(float(high)))
    if not low - slack <= wanted <= high + slack:
        raise ValueError(f"lane: {name}={wanted} lies outside of the axis, which runs from {low} to {high}")
    return int(np.argmin(np.abs(values - wanted)))


def _member(grid: Grid, place: tuple[int, ...]) -> Fit:
    number = int(grid.members[place])
    for part in grid.parts:
        if number < len(part.lanes.status):
            break
        number -= len(part.lanes.status)
    own = jax.tree.map(lambda x: x[number], part.lanes)
    here = grid.results.isel(dict(zip(grid.results.status.dims, place, strict=True)))
    coords = {str(name): value.item() for name, value in here.coords.items() if value.ndim == 0}
    every, steps = part.problem.record.every, int(own.steps)
    history = None
    if own.rows:
        kept = steps // every + 1 if own.status != Status.NOT_RUN else 0
        history = History({"step": np.arange(kept) * every, **jax.tree.map(lambda x: x[:kept], own.rows)})
    return Fit(
        params=own.params,
        loss=own.loss,
        status=Status(int(own.status)),
        steps=steps,
        history=history,
        validation_loss=own.validation_loss,
        coords=coords,
        start_loss=own.start_loss,
        problem=_problem_of(part, number, grid),
        precision=grid.precision,
    )


def _problem_of(part: Part, number: int, grid: Grid) -> Problem:
    """A lane's own problem, with values in place of its axes and the call of its params run when it is asked for."""
    dimensions = read(part.problem._asdict(), static_places=("batches", "steps", "record"))
    sizes = [dimensions[name].size for name in part.dynamic if name in dimensions]
    names = [name for name in part.dynamic if name in dimensions]
    index = np.unravel_index(number, sizes) if sizes else ()
    return choose(part.problem, {name: int(i) for name, i in zip(names, index, strict=True)})


def best(grid: Grid, by: str = "loss", over: str | Sequence[str] | None = None) -> Any:
    """The member with the lowest final loss; diverged, non-finite and unfinished ones do not count.

    Args:
      grid: From `sweep`.
      by: The variable to be lowest: "loss", "validation_loss", "steps" or another of the results.
      over: Dimensions to choose along; the result is then a smaller grid over the others, in which the coordinates of
        `over` tell the choice. None: along all of them, and the result is a `Fit`.

    Raises:
      ValueError: If there is no such variable or dimension, or (without `over`) no member ended well.
    """
    results = grid.results
    dims = results.status.dims
    if by not in results or results[by].dims != dims:
        given = [str(name) for name in results.data_vars if results[name].dims == dims]
        raise ValueError(f"best: by={by!r} is not one number for each lane; there are {', '.join(given)}")
    over = dims if over is None else (over,) if isinstance(over, str) else tuple(over)
    for name in over:
        if name not in dims:
            raise ValueError(f"best: over={name!r} is not a dimension of the grid; it has {', '.join(dims)}")
    good = np.isin(results.status, (Status.CONVERGED, Status.OUT_OF_STEPS)) & ~np.isnan(results[by].values)
    values = np.where(good, results[by].values, np.inf)
    if set(over) == set(dims):
        if not good.any():
            raise ValueError("best: no member of the grid ended well; see grid.results.status, and jf.explain of a lane")
        return _member(grid, tuple(int(i) for i in np.unravel_index(np.argmin(values), values.shape)))
    import xarray as xr

    kept = [name for name in dims if name not in over]
    order = [dims.index(name) for name in (*kept, *over)]
    flat = values.transpose(order).reshape(*[results.sizes[n] for n in kept], -1)
    index = np.unravel_index(np.argmin(flat, axis=-1), [results.sizes[n] for n in over])
    chosen = {name: xr.DataArray(i, dims=kept) for name, i in zip(over, index, strict=True)}
    places = np.indices([results.sizes[n] for n in kept])
    where = tuple(index[over.index(n)] if n in over else places[kept.index(n)] for n in dims)
    return Grid(results.isel(chosen), grid.members[where], grid.parts, grid.precision)
