"""The loss as a landscape: its value at every point of a grid of params, hyperparameters or data."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit import optimizers
from jaxfit.checks import pose
from jaxfit.compiling import compiled, compiler_options
from jaxfit.coordinates import coordinates
from jaxfit.dispatch import places, power_of_two, power_of_two_above
from jaxfit.fits import Fit
from jaxfit.jaxprs import largest_bytes
from jaxfit.keywords import near_keywords
from jaxfit.layouts import lane_problem
from jaxfit.markers import Axis, Dimension, Place, choose, read
from jaxfit.parameters import free
from jaxfit.problems import Problem, Record, Stop, precision_context, whole
from jaxfit.programs import warn_of_recompiling
from jaxfit.steps import full_loss
from jaxfit.sums import fast_sums
from jaxfit.sweeps import choices_of, laid_out
from jaxfit.tracing import inspect_loss, is_traced, trace

PyTree = Any
CHUNK = 2**16  # points that one call evaluates, about
_NOT_INSIDE = (
    "surface drives its programs from the host, so it cannot stand inside of a jit, vmap or grad, nor evaluate a loss "
    "that captured a value of one; call it outside, or use jax.vmap over the loss there"
)


@near_keywords
def surface(loss: Callable, params: PyTree, data: tuple = (), *, key: Any = None, precision: str = "float32") -> Any:
    """The loss at every combination of the axes that stand at the leaves of its arguments; nothing is trained.

    Axes of different names multiply, axes of one name move together: along `{"a": Axis("t", a), "b": Axis("t", b)}` the
    loss is that of a path. Memory holds the grid and some blocks of points, never points times data.

    Args:
      loss: Any pure function loss(params, *data) -> scalar; it need not have a gradient.
      params: With `Axis` at any leaf, or a `Call`, or a plane of `jaxfit.landscapes`.
      data: Handed to the loss after params; `Axis` may stand there too.
      key: For a loss that takes one: a key or a seed. Every point gets what step 0 of a fit would, unless keys are an
        axis.
      precision: "float32" or "float64".

    Returns:
      An `xarray.DataArray` named "loss" with a dimension for each axis, in order of first mention, and coordinates as
      in the results of `sweep`. Where the loss is not defined it is NaN or infinite. The attributes tell the precision,
      and of a plane what it holds.

    Raises:
      ValueError, TypeError: For bad input, before anything compiles; also if there is no axis, or more than 64 programs
        would be compiled.
    """
    problem = pose(
        loss, params, data, optimizer=optimizers.sgd(1.0), steps=1, stop=Stop(), record=Record(what=()), batches=None,
        key=key, validation=None, precision=precision,
    )  # fmt: skip
    dimensions = read(problem._asdict() | {"params": params})
    if is_traced(jax.tree.leaves(problem)):
        raise TypeError(_NOT_INSIDE)
    if not dimensions:
        raise ValueError(
            "surface found no Axis in its arguments; put jf.Axis(name, values) at a leaf, or call loss(params, *data)"
        )
    with precision_context(precision):
        pieces = [_prepare(problem, dimensions, choice, precision) for choice in choices_of(dimensions)]
        values = np.empty([d.size for d in dimensions.values()], pieces[0].dtype)
        for piece in pieces:
            where = tuple(piece.choice.get(name, slice(None)) for name in dimensions)
            values[where] = _evaluate(piece, precision).reshape(np.shape(values[where]))
    import xarray as xr

    attributes = {"precision": precision} | getattr(getattr(params, "function", None), "about", {})
    return xr.DataArray(values, coordinates(dimensions), tuple(dimensions), name="loss", attrs=attributes)


class Piece(NamedTuple):
    """The points of one program."""

    choice: dict[str, int]  # index along each static dimension
    names: tuple[str, ...]  # the other dimensions, the last one fastest
    sizes: tuple[int, ...]
    structure: Any  # of the problem with places instead of axes
    leaves: list  # of it, in the precision
    columns: dict[str, PyTree]  # by place: values along its dimension
    slots: int  # points side by side
    dtype: Any  # of the loss

    @property
    def size(self) -> int:
        return math.prod(self.sizes)


def _prepare(problem: Problem, dimensions: dict[str, Dimension], choice: dict[str, int], precision: str) -> Piece:
    structure, leaves, columns = laid_out(choose(problem, choice), precision)
    dynamic = tuple(d for d in dimensions.values() if d.name not in choice)
    slots, dtype = _inspect(structure, _spec(leaves), jax.tree.structure(columns), _spec(columns))
    sizes = tuple(d.size for d in dynamic)
    if math.prod(sizes) > np.iinfo(np.int32).max:
        raise ValueError(
            f"the axes {' x '.join(f'{d.name} ({d.size:,} values)' for d in dynamic)} make {math.prod(sizes):,} "
            f"points, but a surface holds at most {np.iinfo(np.int32).max:,}; make the grid coarser"
        )
    return Piece(choice, tuple(d.name for d in dynamic), sizes, structure, leaves, columns, slots, dtype)


def _spec(tree: PyTree) -> tuple:
    return tuple((x.shape, x.dtype) for x in jax.tree.leaves(tree))


@functools.lru_cache(maxsize=256)
def _inspect(structure: Any, shapes: tuple, tree: Any, columns: tuple) -> tuple[int, Any]:
    """Checks the loss at one point; returns how many to evaluate side by side, and the loss's type.

    What a point works on should stay in a core's own cache, with that of the points beside it.
    """
    template = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*s) for s in shapes])
    values = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(shape[1:], dtype) for shape, dtype in columns])
    _, filled = trace(lane_problem, template, values)
    if inspect_loss(filled, trained=False):
        raise TypeError(_NOT_INSIDE)
    warn_of_recompiling(filled)
    program, loss = trace(_loss, template, values)
    room, least, most = (2**18, 8, 1024) if jax.default_backend() == "cpu" else (2**28, 256, 2**16)
    fit = room // max(largest_bytes(program.jaxpr), 1)
    return min(most, max(least, power_of_two(fit))), loss.dtype


def _loss(template: Problem, values: dict[str, PyTree]) -> jax.Array:
    problem = lane_problem(template, values)
    return full_loss(problem, free(problem.params), jnp.int32(0))


def _evaluate(piece: Piece, precision: str) -> np.ndarray:
    """The loss at all points of a piece, (size,): chunks of them in turn by a thread for each core or device."""
    slots = min(piece.slots, power_of_two_above(piece.size))
    blocks = max(1, min(CHUNK // slots, -(-piece.size // slots)))
    firsts = np.arange(0, piece.size, slots * blocks, dtype=np.int64)
    team = places()[: len(firsts)]
    arguments = piece.leaves, piece.columns
    programs = {device: _program(piece, slots, blocks, device, jax.config.jax_enable_x64) for device in team}
    here = {device: jax.device_put(arguments, device) for device in set(team)}
    values = np.empty(slots * blocks * len(firsts), piece.dtype)

    def work(number: int) -> None:
        device = team[number]
        with precision_context(precision):
            for first in firsts[number :: len(team)]:
                values[first : first + slots * blocks] = programs[device](*here[device], np.int32(first))

    workers = ThreadPoolExecutor(len(team))
    try:
        list(workers.map(work, range(len(team))))
    finally:
        workers.shutdown(cancel_futures=True)
    return values[: piece.size]


def _program(piece: Piece, slots: int, blocks: int, device: Any, x64: bool) -> Callable:
    tree = jax.tree.structure(piece.columns)
    along = tuple((name, size) for name, size in zip(piece.names, piece.sizes, strict=True))
    return _compiled(
        piece.structure, _spec(piece.leaves), tree, _spec(piece.columns), along, slots, blocks, device, x64
    )


@functools.lru_cache(maxsize=64)
def _compiled(
    structure: Any, shapes: tuple, tree: Any, columns: tuple, along: Sequence[tuple[str, int]], slots: int, blocks: int,
    device: Any, x64: bool,
) -> Callable:  # fmt: skip
    """(leaves, columns, first) -> (slots * blocks,) losses from point `first` on; once for each structure."""
    names, sizes = [name for name, _ in along], tuple(size for _, size in along)

    def run(leaves, columns, first):
        template = jax.tree.unflatten(structure, leaves)

        def block(number):
            points = first + number * slots + jnp.arange(slots, dtype=np.int32)
            points = jnp.minimum(points, math.prod(sizes) - 1)
            index = dict(zip(names, jnp.unravel_index(points, sizes), strict=True)) if names else {}

            def point(own):
                values = {key: jax.tree.map(lambda x, k=key: x[own[Place(k).name]], columns[key]) for key in columns}
                return _loss(template, values)

            return jax.vmap(fast_sums(point), axis_size=slots)(index)

        return jax.lax.map(block, jnp.arange(blocks, dtype=np.int32)).reshape(-1)

    there = jax.sharding.SingleDeviceSharding(device)

    def spec(pairs):
        return [jax.ShapeDtypeStruct(shape, dtype, sharding=there) for shape, dtype in pairs]

    lowered = compiled(run).lower(spec(shapes), jax.tree.unflatten(tree, spec(columns)), *spec([((), np.int32)]))
    return lowered.compile(compiler_options(device.platform))


class Trail(NamedTuple):
    """Where a descent went, over the surface of the loss of all its data."""

    step: np.ndarray  # (k,); whole numbers are the records
    params: PyTree  # (k, ...)
    loss: np.ndarray  # (k,)


def trail(fit: Fit, *, between: int = 0) -> Trail:
    """The recorded params of a fit, and the loss there: of all the data, also where it was trained in batches.

    Args:
      fit: With its params recorded: `record=jf.Record(what=("loss", "params"))`.
      between: Points to add between two records, on the straight way from one to the next.

    Raises:
      TypeError: If it is no fit.
      ValueError: If its params were not recorded, or it no longer knows its problem.
    """
    if not isinstance(fit, Fit):
        raise TypeError(
            f"trail takes a fit, but got a {type(fit).__name__}; a grid's are reached by jf.lane(grid, ...)"
        )
    if fit.history is None or "params" not in fit.history:
        raise ValueError(
            "the fit did not record its params, so where it went is not known; run it with "
            "record=jf.Record(what=('loss', 'params'))"
        )
    if fit.problem is None:
        raise ValueError(
            "the fit no longer knows its loss and data, which a jit or another transformation of pytrees drops; use it "
            "as jf.fit returned it"
        )
    between = whole("between", between, least=0)
    steps = np.asarray(fit.history.step, float)
    dense = np.interp(np.arange((len(steps) - 1) * (between + 1) + 1) / (between + 1), np.arange(len(steps)), steps)

    def along(values):
        flat = np.asarray(values, float).reshape(len(steps), -1)
        rows = np.stack([np.interp(dense, steps, column) for column in flat.T], axis=1)
        return rows.reshape(len(dense), *np.shape(values)[1:])

    params = jax.tree.map(along, fit.history.params)
    problem = fit.problem
    axes = jax.tree.map(lambda values: Axis("point", values), params)
    found = surface(problem.loss, axes, problem.data, key=problem.key, precision=fit.precision or "float32")
    return Trail(dense, params, found.values)
