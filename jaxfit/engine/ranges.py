"""Ranges of whole numbers in a loss: a warning where arithmetic on data that stay whole leaves their type."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.engine.jaxprs import Operation, inline
from jaxfit.engine.tracing import program_of
from jaxfit.problems.axes import Axis, is_axis
from jaxfit.problems.data import Range, call_of, range_of, shaped
from jaxfit.problems.messages import line_of, warn
from jaxfit.problems.problems import Problem, precision_context

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
    shapes = [shaped(x, precision, made=False) for x in leaves]
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


def overflow(program: Any, ranges: Sequence[Range | None]) -> tuple[Operation, int] | None:
    """Return an operation whose signed whole numbers leave their type, with the number; None if none is seen to.

    What is not known, as after a loop, is taken to fit; of a selection either side is taken to come.

    Args:
      program: A closed jaxpr.
      ranges: Of its inputs, where they are known.
    """
    listing = inline(program, lambda *_: True)
    known = dict(zip(listing.inputs, ranges, strict=True))
    known |= {number: range_of(value) for number, value in listing.constants.items()}
    for row in listing.rows:
        dtype: Any = getattr(row.operation.results[0], "dtype", np.dtype(float)) if row.outputs else np.dtype(float)
        if not jnp.issubdtype(dtype, np.signedinteger):
            continue
        found, limits = _after(row.operation, [known.get(number) for number in row.inputs]), np.iinfo(dtype)
        if found and not (limits.min <= found[0] and found[1] <= limits.max):
            return row.operation, max(found, key=abs)
        known |= dict.fromkeys(row.outputs, found)
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
