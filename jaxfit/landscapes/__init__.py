"""The loss as a landscape: surfaces over any axes, and slices of it through params of any number."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.engine.compiling import compiler_options, fast_sums
from jaxfit.engine.evaluating import evaluate, laid_out, member_like
from jaxfit.engine.inspections import lane_problem
from jaxfit.engine.jaxprs import largest_bytes
from jaxfit.engine.loops import full_loss
from jaxfit.engine.parts import power_of_two
from jaxfit.engine.single import warn_of_recompiling
from jaxfit.engine.tracing import inspect_loss, trace
from jaxfit.landscapes.slices import Slice, between, hessian_plane, random_plane, trajectory_plane
from jaxfit.problems import Problem, chosen_precision, precision_context, whole_number
from jaxfit.problems.axes import Axis, is_traced
from jaxfit.problems.dimensions import choose, coordinates, fill, read
from jaxfit.problems.marks import filled, free, without_kept
from jaxfit.problems.messages import near_keywords, near_names
from jaxfit.problems.posing import pose_question, with_start
from jaxfit.typing import KeyLike, PyTree
from jaxfit.verbs.evaluations import at_choices, whole_params
from jaxfit.verbs.results import Fit, problem_of, recorded

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Slice", "Trail", "between", "hessian_plane", "random_plane", "surface", "trail", "trajectory_plane",
]  # fmt: skip
__getattr__, __dir__ = near_names(__name__, __all__)

_NOT_INSIDE = (
    "surface drives its programs from the host, so it cannot stand inside of a jit, vmap or grad, nor evaluate a loss "
    "that captured a value of one; call it outside, or use jax.vmap over the loss there"
)


@near_keywords
def surface(
    loss: Callable, params: PyTree, data: tuple = (), *, key: KeyLike | None = None, precision: str | None = None
) -> xr.DataArray:
    """Return the loss at every combination of the axes at the leaves of its arguments, without any training.

    Axes of different names are combined as an outer product; axes of one name vary together: along
    `{"a": Axis("t", a), "b": Axis("t", b)}` the loss is that of a path. Memory holds the grid and some blocks of
    points, never points times data.

    Args:
      loss: A pure function loss(params, *data) -> scalar; it need not have a gradient.
      params: With `Axis` at any leaf, or a `Call`, or a plane of `jaxfit.landscapes`.
      data: Passed to the loss after params; may contain `Axis` too.
      key: For a loss that takes one: a key or a seed. Every point gets the key of step 0 of a fit, unless keys are an
        axis.
      precision: "float32" or "float64"; by default as JAX has it, see `fit`.

    Returns:
      An `xarray.DataArray` named "loss" with a dimension for each axis, in order of first mention, and coordinates as
      in the results of `sweep`. Where the loss is not defined it is NaN or infinite. The attributes hold the precision
      and, for a plane, how it was made.

    Raises:
      ValueError, TypeError: For bad input, before anything compiles; also if there is no axis, or more than 64 programs
        would be compiled.

    Example:
      >>> loss = lambda p: p["a"] ** 2 + 3 * p["b"] ** 2
      >>> found = jf.surface(loss, {"a": jf.Axis("a", [0.0, 1.0]), "b": jf.Axis("b", [0.0, 1.0, 2.0])})
      >>> found.dims, found.values.tolist()
      (('a', 'b'), [[0.0, 3.0, 12.0], [1.0, 4.0, 13.0]])
    """
    precision = chosen_precision(precision, params, data)
    problem = pose_question(loss, params, data, key, precision)
    dimensions = read(problem._asdict() | {"params": params})
    if is_traced(jax.tree.leaves(problem)):
        raise TypeError(_NOT_INSIDE)
    if not dimensions:
        raise ValueError(
            "surface found no Axis in its arguments; put jf.Axis(name, values) at a leaf, or call loss(params, *data)"
        )
    values = at_choices(dimensions, lambda choice, sizes: _losses(choose(problem, choice), sizes, precision))
    import xarray as xr

    attributes = {"precision": precision} | getattr(getattr(params, "function", None), "about", {})
    return xr.DataArray(values, coordinates(dimensions), tuple(dimensions), name="loss", attrs=attributes)


def _losses(problem: Problem, sizes: dict[str, int], precision: str) -> np.ndarray:
    """Return the loss at all combinations of the axes of a problem, (points,), the last axis fastest."""
    if math.prod(sizes.values()) > np.iinfo(np.int32).max:
        raise ValueError(
            f"the axes {' x '.join(f'{name} ({size:,} values)' for name, size in sizes.items())} make "
            f"{math.prod(sizes.values()):,} points, but a surface holds at most {np.iinfo(np.int32).max:,}; make the "
            f"grid coarser"
        )
    with precision_context(precision):
        template = laid_out(problem, precision)
        slots = _inspect(template.spec, jax.config.jax_enable_x64)
    options = tuple(compiler_options(jax.default_backend()).items())
    return evaluate(_fast_loss, template, sizes, precision, width=slots, options=options)


@functools.lru_cache(maxsize=256)
def _inspect(spec: tuple, x64: bool) -> int:
    """Check the loss at one point, and return how many to evaluate side by side.

    What a point works on should stay in a core's own cache, with that of the points beside it.
    """
    like = member_like(spec)
    _, filled = trace(lane_problem, *like)
    if inspect_loss(filled, differentiated=False):
        raise TypeError(_NOT_INSIDE)
    warn_of_recompiling(filled.loss)
    program, _ = trace(lambda template, own: _loss(fill(template, own)), *like)
    room, least, most = (2**18, 8, 1024) if jax.default_backend() == "cpu" else (2**28, 256, 2**16)
    fit = room // max(largest_bytes(program), 1)
    return min(most, max(least, power_of_two(fit)))


def _loss(problem: Problem) -> jax.Array:
    problem = with_start(problem)
    return full_loss(problem, free(problem.params), jnp.int32(0))


def _fast_loss(problem: Problem) -> jax.Array:
    return fast_sums(_loss)(problem)


class Trail(NamedTuple):
    """The recorded path of a descent: its params, and the loss of all data there."""

    step: np.ndarray  # (k,); whole numbers are the records
    params: PyTree  # (k, ...); None at what is no number
    loss: np.ndarray  # (k,)


@near_keywords
def trail(fit: Fit, *, between: int = 0) -> Trail:
    """Return the recorded params of a fit with the loss there, of all data even if the fit used mini-batches.

    Args:
      fit: With its params recorded: `record=jf.Record(what=("loss", "params"))`.
      between: Points to add between two records, on the straight way from one to the next.

    Raises:
      TypeError: If it is no fit.
      ValueError: If its params were not recorded, or it no longer knows its problem.

    Example:
      >>> record = jf.Record(what=("loss", "params"))
      >>> run = jf.fit(lambda p: p**2, 4.0, optimizer=jf.optimizers.sgd(0.25), steps=2, record=record)
      >>> jf.landscapes.trail(run).loss.tolist()
      [16.0, 4.0, 1.0]
    """
    if not isinstance(fit, Fit):
        raise TypeError(
            f"trail takes a fit, but got a {type(fit).__name__}; a grid's are reached by jf.lane(grid, ...)"
        )
    params, problem = recorded(fit, "params"), problem_of(fit)
    between = whole_number("between", between, least=0)
    steps = np.asarray(fit.history.step, float)
    dense = np.interp(np.arange((len(steps) - 1) * (between + 1) + 1) / (between + 1), np.arange(len(steps)), steps)

    def along(values):
        flat = np.asarray(values, float).reshape(len(steps), -1)
        rows = np.stack([np.interp(dense, steps, column) for column in flat.T], axis=1)
        return rows.reshape(len(dense), *np.shape(values)[1:])

    params = jax.tree.map(along, without_kept(params))
    axes = filled(jax.tree.map(lambda values: Axis("point", values), params), whole_params(fit))
    losses = surface(problem.loss, axes, problem.data, key=problem.key, precision=fit.precision or "float32")
    return Trail(dense, params, losses.values)
