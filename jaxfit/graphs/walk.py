"""The forward and backward pass through a program, with one vector-Jacobian product per step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.graphs.program import Program, Step, is_float

SMALL = 64  # entries of a Jacobian that is written out


class Passage(NamedTuple):
    """The results of one forward and backward pass."""

    values: dict[int, Any]  # at every place
    gradients: list[list[Any]]  # for each step and each of its inputs; None for what is not a float
    locals: list[list[Any]]
    sums: dict[int, Any]  # at every place that holds floats: d loss / d value


def walk(program: Program, arguments: Sequence[Any], params: set[int], name_of: Callable[[int], str]) -> Passage:
    """Forward and backward.

    Args:
      program: What to walk through.
      arguments: The values of its inputs.
      params: The places of the params.
      name_of: How a place is called, in the local derivative of a matrix product.

    Raises:
      TypeError: If a step between the params and the loss has no derivative.
    """
    values = dict(zip(program.inputs, map(jnp.asarray, arguments), strict=True))
    passage = _passage(program, values | {p: jnp.asarray(x) for p, x in program.constants.items()}, params)
    for step, slopes in zip(program.steps, passage.locals, strict=True):
        if step.kind == "contracts" and len(step.inputs) == 2:
            slopes[:] = [f"× {name_of(place)}" for place in reversed(step.inputs)]
    return passage


def _passage(program: Program, values: dict[int, Any], params: set[int]) -> Passage:
    pulls, moved = [], set(params)
    for step in program.steps:
        given = [values[place] for place in step.inputs]
        needed = not moved.isdisjoint(step.inputs)
        outputs, pull = _forward(step, given, needed=needed)
        moved.update(step.outputs if needed else ())
        values.update(zip(step.outputs, outputs, strict=True))
        pulls.append(pull)
    sums = {program.result: jnp.ones_like(values[program.result])}
    gradients, slopes = [], []
    for step, pull in zip(reversed(program.steps), reversed(pulls), strict=True):
        given = [values[place] for place in step.inputs]
        outputs = [values[place] for place in step.outputs]
        seeds = [sums.get(place, jnp.zeros_like(x)) for place, x in zip(step.outputs, outputs, strict=True)]
        found = pull(seeds)
        for place, gradient in zip(step.inputs, found, strict=True):
            if gradient is not None:
                sums[place] = sums[place] + gradient if place in sums else gradient
        gradients.append(found)
        slopes.append(_locals(step, given, outputs, pull))
    return Passage(values, gradients[::-1], slopes[::-1], sums)


def _forward(step: Step, given: Sequence[Any], needed: bool) -> tuple[Sequence[Any], Callable]:
    """The outputs, and the function from their gradients to those of the inputs."""
    floats = [i for i, x in enumerate(given) if is_float(x)]

    def function(*numbers):
        inputs = list(given)
        for i, x in zip(floats, numbers, strict=True):
            inputs[i] = x
        return list(step.function(*inputs))

    def placed(found):
        every: list[Any] = [None] * len(given)
        for i, gradient in zip(floats, found, strict=True):
            every[i] = gradient
        return every

    numbers = [given[i] for i in floats]
    if not floats:
        return function(), lambda seeds: placed([])
    try:
        outputs, pull = jax.vjp(function, *numbers)
    except ValueError as error:
        return function(*numbers), _without_reverse(step, function, numbers, placed, needed, error)
    if not any(map(is_float, outputs)):  # a comparison stops the gradient
        return outputs, lambda seeds: placed([jnp.zeros_like(x) for x in numbers])

    def reverse(seeds):
        try:
            return placed(pull([_seed(x, s) for x, s in zip(outputs, seeds, strict=True)]))
        except ValueError as error:  # JAX transposes a `while` only now
            return _without_reverse(step, function, numbers, placed, needed, error)(seeds)

    return outputs, reverse


def _seed(output: Any, gradient: Any) -> Any:
    return gradient if is_float(output) else np.zeros(output.shape, jax.dtypes.float0)


def _without_reverse(step: Step, function: Callable, numbers: list, placed: Callable, needed: bool, error: Exception):
    """The pull of a step that only knows its derivative forward, such as a `while`: from its whole Jacobian."""
    try:
        every = jax.jacfwd(lambda numbers: [x for x in function(*numbers) if is_float(x)])(numbers)
    except Exception:
        if needed:
            raise TypeError(
                f"the step {step.name!r} of the loss has no derivative ({str(error).splitlines()[0]}); give it one "
                f"with jax.custom_vjp, or compute it with jax.numpy"
            ) from error
        return lambda seeds: [None] * len(placed(numbers))

    def pull(seeds):
        seeds = [seed for seed in seeds if is_float(seed)]
        parts = [
            [jnp.tensordot(seed, row[i], seed.ndim) for seed, row in zip(seeds, every, strict=True)]
            for i in range(len(numbers))
        ]
        return placed([sum(part[1:], part[0]) for part in parts])

    return pull


def _locals(step: Step, given: Sequence[Any], outputs: Sequence[Any], pull: Callable) -> list[Any]:
    """The derivative of a step by each of its inputs, where it is a small thing; None where it is not."""
    if len(outputs) != 1 or step.kind == "contracts":
        return [None] * len(given)
    (output,) = outputs
    if not is_float(output):
        return [jnp.zeros_like(x) if is_float(x) else None for x in given]
    if step.kind == "moves":
        return [jnp.ones((), x.dtype) if is_float(x) else None for x in given]
    if step.kind == "elementwise":
        if any(is_float(x) and x.shape != output.shape for x in given):
            given = [jnp.broadcast_to(x, output.shape) for x in given]
            pull = _forward(step, given, needed=False)[1]
        return pull([jnp.ones_like(output)])
    if output.shape == () or step.kind == "reduces":
        return pull([jnp.ones_like(output)])
    return _jacobians(given, output, pull)


def _jacobians(given: Sequence[Any], output: Any, pull: Callable) -> list[Any]:
    """(*output.shape, *input.shape) for each input where that is small."""
    small = [is_float(x) and output.size * x.size <= SMALL for x in given]
    if not any(small):
        return [None] * len(given)
    rows = [pull([row]) for row in jnp.eye(output.size, dtype=output.dtype).reshape(-1, *output.shape)]
    return [
        jnp.stack([row[i] for row in rows]).reshape(*output.shape, *x.shape) if small[i] and rows[0][i] is not None
        else None
        for i, x in enumerate(given)
    ]  # fmt: skip
