"""Optimizers made of others: one for each entry of the params, and gradient accumulation."""

from __future__ import annotations

import functools
import numbers
from typing import Any

import jax.numpy as jnp
import optax

from jaxfit.optimizers.building import Optimizer, as_part
from jaxfit.problems.reading import Call


def each(**optimizers: Any) -> Optimizer:
    """Return an optimizer with one optimizer for each entry of params that are a dictionary.

    Args:
      **optimizers: By the name of the entry: `each(w=sgd(1e-4), b=sgd(1e-2))`; each as for `fit`.

    Raises:
      ValueError: If no optimizer is given; when it gets the params, if these have other entries.
      TypeError: If one is not an optimizer.

    Example:
      >>> sgd = jf.optimizers.each(w=jf.optimizers.sgd(0.5), b=jf.optimizers.sgd(0.25))
      >>> after = jf.step(lambda p: p["w"] ** 2 + p["b"] ** 2, {"w": 2.0, "b": 2.0}, optimizer=sgd)
      >>> float(after.params["w"]), float(after.params["b"])
      (0.0, 1.0)
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
    """Return an optimizer that makes one update for the mean of the gradients of `every` steps.

    In between the params do not change. With `every` mini-batches of one size, the update is that of all their rows at
    once. `optax.MultiSteps` does the same, in float32 unless told otherwise, and can be passed to `fit` as it is.

    Args:
      optimizer: As for `fit`.
      every: Number of gradients to average, two or more.

    Raises:
      TypeError: If `optimizer` is not an optimizer.
      ValueError: If `every` is not a whole number of at least 2.

    Example:
      >>> sgd = jf.optimizers.accumulated(jf.optimizers.sgd(0.25), every=2)
      >>> float(jf.fit(lambda p: p**2, 4.0, optimizer=sgd, steps=4).params)
      1.0
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
