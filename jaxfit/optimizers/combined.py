"""Optimizers made of others: one for each entry of the params, and one for the mean of several gradients."""

from __future__ import annotations

import functools
import numbers
from typing import Any

import jax.numpy as jnp
import optax

from jaxfit.optimizers.building import Optimizer, as_part
from jaxfit.problems.reading import Call


def each(**optimizers: Any) -> Optimizer:
    """An optimizer of its own for every entry of params that are a dictionary: `each(w=sgd(1e-4), b=sgd(1e-2))`.

    Raises:
      ValueError: If none is given; when it meets the params, if these have other entries.
      TypeError: If one is not an optimizer.
    """
    if not optimizers:
        raise ValueError("each: no optimizer is given; name one for every entry of params, such as each(w=sgd(0.1))")
    return Optimizer(Call(_each, **{name: as_part(value, "each") for name, value in optimizers.items()}))


def _each(**transformations: Any) -> Any:
    by_name: Any = transformations
    return optax.partition(by_name, functools.partial(_entries, tuple(transformations)))


def _entries(names: tuple[str, ...], params: Any) -> dict[str, str]:
    have = tuple(params) if isinstance(params, dict) else None
    if have is None or set(have) != set(names):
        came = f"a {type(params).__name__}" if have is None else f"a dictionary of {', '.join(map(str, have))}"
        raise ValueError(
            f"each: params are {came}, but there are optimizers for {', '.join(names)}; each takes one for every entry "
            f"of params that are a dictionary: add {_MISSING} for the others, and leave out those without an entry"
        )
    return {name: name for name in names}


_MISSING = "sgd(0.1), or optax.set_to_zero() to hold them,"


def accumulated(optimizer: Any, every: int) -> Optimizer:
    """One update of the optimizer for the mean of the gradients of `every` steps; the params stay in between.

    With `every` mini-batches of one size it is the update by all of their rows at once. `optax.MultiSteps` does the
    same, in float32 unless told otherwise, and can be passed as it is.

    Args:
      optimizer: What `fit` takes.
      every: Gradients to a mean, two or more.

    Raises:
      TypeError: If `optimizer` is none.
      ValueError: If `every` is not a whole number from 2.
    """
    if isinstance(every, bool) or not isinstance(every, numbers.Integral) or every < 2:
        raise ValueError(
            f"accumulated: every is {every!r}; it must be a whole number of gradients, two or more: for every single "
            f"one pass the optimizer itself"
        )
    return Optimizer(Call(_accumulated, optimizer=as_part(optimizer, "accumulated"), every=int(every)))


def _accumulated(optimizer: Any, every: int) -> Any:
    floating = jnp.result_type(float)  # of the run's precision; Optax accumulates in float32
    return optax.MultiSteps(optimizer, every, accumulator_dtype=floating)
