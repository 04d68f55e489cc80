"""What is read from a program before it runs: what a lane holds, what all lanes share, and numbers that overflow."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.engine.jaxprs import Operation, depends, inline, largest_bytes
from jaxfit.engine.loops import End, State, begin, judged_step, judges_steps, row
from jaxfit.engine.tracing import Structure, program_of, program_of_steps, trace
from jaxfit.problems import Problem, Training, precision_context
from jaxfit.problems.axes import Axis, is_axis
from jaxfit.problems.data import Range, call_of, range_of, shape_like
from jaxfit.problems.dimensions import fill
from jaxfit.problems.marks import is_marked, put, values_of
from jaxfit.problems.messages import line_of, warn
from jaxfit.problems.posing import with_start
from jaxfit.typing import PyTree

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr


class LaneLayout(NamedTuple):
    """What a lane holds, as shapes."""

    values: dict[str, PyTree]  # its own
    state: State
    end: End
    params: PyTree  # the user's own tree
    axes: State  # for each leaf of the state, 0 if lanes may differ in it, None if they share it
    marked: bool  # whether the params of the state are not the user's own tree
    working: int  # bytes that a step touches: the state, and inputs and outputs of its largest operation


def lane_problem(template: Problem, values: dict[str, PyTree]) -> Problem:
    """Return the problem of one lane, with its own values filled in and each `Call` replaced by its result."""
    return with_start(fill(template, values))


def lane_training(template: Training, values: dict[str, PyTree]) -> Training:
    """Return the training of one lane, with its own values filled in and each `Call` replaced by its result."""
    training = fill(template, values)
    return training.at(with_start(training.problem).params)


def lock_step(template: Training) -> bool:
    """Return whether all lanes of a pool take the same number of steps: no step is judged."""
    return not judges_steps(template)


@functools.lru_cache(maxsize=256)
def layout_of(structure: Structure, leaves: tuple, columns: tuple, x64: bool) -> LaneLayout | None:
    """Return what each lane holds; None if the loss captured a tracer of the caller, so that it cannot be found out.

    Args:
      structure: Of the training with a place for each of the lanes' own values.
      leaves: (shape, dtype) of each of its leaves.
      columns: By place, `spec_of` the lanes' own values.
      x64: Whether 64-bit types are on.

    Raises:
      TypeError, ValueError: As `program_of_steps`.
    """

    def like(specs):
        return [jax.ShapeDtypeStruct(*x) for x in specs]

    template = jax.tree.unflatten(structure, like(leaves))
    values = {key: jax.tree.unflatten(tree, like(specs)) for key, (tree, specs) in columns}
    filling, training = trace(lane_training, template, values)
    marked = training.problem.params

    first, state, held = program_of_steps(begin, training)
    update, (_, proposal), captured = program_of_steps(judged_step, training, state, np.int32(0))
    if held or captured:
        return None
    _, records = trace(row, training, state, np.int32(0), proposal)
    _, params = trace(lambda marked, params: values_of(put(marked, params)), marked, state.params)
    loss = state.start_loss
    own = depends(filling, [False] * len(leaves) + [True] * len(jax.tree.leaves(values)))
    return LaneLayout(
        values=values,
        state=state,
        end=End(loss, None if training.validation is None else loss, records),
        params=params,
        axes=axes_of(training, state, own, first, update),
        marked=is_marked(marked),
        working=sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) + largest_bytes(update),
    )


def axes_of(training: Training, state: State, own: Sequence[bool], first: ClosedJaxpr, update: ClosedJaxpr) -> State:
    """Return the axes of `vmap` for the state: 0 for leaves in which lanes may differ, None for those that they share.

    If steps are judged, slots share nothing. Otherwise the results are each lane's own, and another leaf is shared if
    neither its start nor its update depends on a lane's own values or on leaves that are each lane's own.

    Args:
      training, state: Of one lane.
      own: For each leaf of the training, whether lanes may differ in it.
      first: The program of the state before the first step.
      update: The program of a step: (training, state, step number) -> state, and more.
    """
    if not lock_step(training):
        return jax.tree.map(lambda _: 0, state)
    shared = jax.tree.map(lambda _: False, state)
    results = shared._replace(
        params=jax.tree.map(lambda _: True, state.params), status=True, steps=True, start_loss=True
    )
    grown = [a or b for a, b in zip(jax.tree.leaves(results), depends(first, own), strict=True)]
    per_lane: list[bool] = []
    while grown != per_lane:
        per_lane = grown
        after = depends(update, [*own, *per_lane, False])[: len(per_lane)]
        grown = [a or b for a, b in zip(per_lane, after, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(state), [0 if yes else None for yes in per_lane])


OF_FIRST = (  # whose results are some of the first operand
    "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "slice", "rev", "copy", "gather", "sort",
    "dynamic_slice", "reduce_max", "reduce_min", "cummax", "cummin", "convert_element_type", "stop_gradient",
)  # fmt: skip
OF_ANY = ("concatenate", "pad", "max", "min", "clamp", "select_n")  # whose results are some of the operands
OF_TWO: dict[str, Callable[[int, int], int]] = {"add": int.__add__, "sub": int.__sub__, "mul": int.__mul__}
OF_ONE: dict[str, Callable[..., int]] = {
    "neg": lambda a, **_: -a, "abs": lambda a, **_: abs(a), "square": lambda a, **_: a * a,
    "integer_pow": lambda a, y: a**y,
}  # fmt: skip


def warn_of_overflow(problem: Problem, precision: str) -> None:
    """Warn if a loss takes whole numbers as an index, so that they stay whole, and their arithmetic leaves the type.

    Args:
      problem: The data in it as `pose` left them; axes may stand anywhere.
      precision: Of the run.
    """
    leaves, structure = jax.tree.flatten(problem.data, is_leaf=is_axis)
    values = [x.values if isinstance(x, Axis) else x for x in leaves]
    call = call_of(problem.loss, problem.params, problem.key)
    shapes = [shape_like(x, precision, as_float=False) for x in leaves]
    ranges = [range_of(x) for x, shape in zip(values, shapes, strict=True) for _ in jax.tree.leaves(shape)]
    with precision_context(precision):
        try:
            program, _ = program_of(lambda leaves: call(jax.tree.unflatten(structure, leaves)), shapes)
        except Exception:  # the run says why
            return
    if found := overflow(program, ranges):
        operation, value = found
        warn(
            f"{line_of(operation.traceback)} computes whole numbers that may reach {value:,}, beyond "
            f"{operation.results[0].dtype}: data that the loss takes as an index stay whole; write x.astype(float) "
            f"where x is a number"
        )


def overflow(program: ClosedJaxpr, ranges: Sequence[Range | None]) -> tuple[Operation, int] | None:
    """Return an operation whose signed whole numbers leave their type, with the number; None if none is known to.

    What is not known, as after a loop, is taken to fit; of a selection either side is taken to come.

    Args:
      program: A closed jaxpr.
      ranges: Of its inputs, where they are known.
    """
    listing = inline(program, lambda *_: True)
    known = dict(zip(listing.inputs, ranges, strict=True))
    for number, value in listing.constants.items():  # a number written into a program may be of a type of JAX's own
        known[number] = range_of(value if isinstance(value, (int, jax.Array)) else np.asarray(value))
    for one in listing.rows:
        dtype: Any = getattr(one.operation.results[0], "dtype", np.dtype(float)) if one.outputs else np.dtype(float)
        if not jnp.issubdtype(dtype, np.signedinteger):
            continue
        result_range, limits = _after(one.operation, [known.get(number) for number in one.inputs]), np.iinfo(dtype)
        if result_range and not (limits.min <= result_range[0] and result_range[1] <= limits.max):
            return one.operation, max(result_range, key=abs)
        known |= dict.fromkeys(one.outputs, result_range)
    return None


def _after(operation: Operation, inputs: Sequence[Range | None]) -> Range | None:
    """Return the range of the result of an operation, or one around it; None where it is not known."""
    name, params = operation.name, operation.params
    if name == "iota":
        return 0, params["shape"][params["dimension"]]
    inputs = inputs[1:] if name == "select_n" else inputs[:1] if name in OF_FIRST else inputs
    ranges = [one for one in inputs if one is not None]
    if not inputs or len(ranges) < len(inputs):
        return None
    first, *others = ranges
    if name in (*OF_FIRST, *OF_ANY):
        return _around([bound for one in ranges for bound in one])
    if name in OF_TWO:
        return _around([OF_TWO[name](a, b) for a in first for b in others[0]])
    if name in OF_ONE:
        at = [*first, *([0] if first[0] < 0 < first[1] else [])]
        return _around([OF_ONE[name](a, **params) for a in at])
    if name in ("div", "rem"):
        most = max(map(abs, first)) if name == "div" else max(map(abs, others[0])) - 1
        return -most, most
    if name in ("reduce_sum", "cumsum", "dot_general"):
        axes = params["dimension_numbers"][0][0] if others else params.get("axes", params.get("axis"))
        terms = math.prod(operation.operands[0].shape[axis] for axis in np.atleast_1d(axes))
        ends = [a * b for a in first for b in others[0]] if others else first
        return _around([terms * bound for bound in ends])
    return None


def _around(numbers: Sequence[int]) -> Range:
    return min(numbers), max(numbers)
