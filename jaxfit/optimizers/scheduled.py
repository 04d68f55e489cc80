"""Hyperparameters that change with the step, including those for which the factory takes only a number."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from jaxfit.problems.reading import Call

PyTree = Any


class ScheduledState(NamedTuple):
    """The state of a scheduled optimizer."""

    count: Array  # () int32 updates made
    inner: PyTree  # the optimizer's own


def scheduled(build: Callable[..., Any], schedules: dict[str, Callable]) -> optax.GradientTransformationExtraArgs:
    """Return the optimizer whose update at step t is that of `build(**{name: schedule(t)})`, the state kept."""

    def at(count):
        numbers = {name: jnp.asarray(schedule(count)) for name, schedule in schedules.items()}
        return optax.with_extra_args_support(build(**numbers))

    def init(params):
        count = jnp.int32(0)
        return ScheduledState(count, at(count).init(params))

    def update(updates, state, params=None, **extra):
        updates, inner = at(state.count).update(updates, state.inner, params, **extra)
        return updates, ScheduledState(state.count + 1, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def takes_schedule(factory: Callable, name: str) -> bool:
    """Return whether the factory itself takes a function of the step for this hyperparameter.

    So says its annotation; without one a default that is a number says no, and a function is passed on as it is.
    """
    try:
        parameter = inspect.signature(factory).parameters.get(name)
    except (TypeError, ValueError):
        return True
    if parameter is None or parameter.kind is parameter.VAR_KEYWORD:
        return True
    words = str(parameter.annotation)
    if parameter.annotation is not parameter.empty:
        return "Callable" in words or "Schedule" in words or not ("float" in words or "Array" in words)
    return not isinstance(parameter.default, (int, float)) or isinstance(parameter.default, bool)


def schedules_of(optimizer: Any) -> dict[str, Callable]:
    """Return the hyperparameters of an optimizer that are functions of the step.

    These are a learning rate that is a schedule, and schedules for hyperparameters that the factory takes as numbers.

    Example:
      >>> sgd = jf.optimizers.sgd(jf.schedules.cosine(0.1, 100))
      >>> list(jf.optimizers.schedules_of(sgd))
      ['learning_rate']
    """
    found = {}
    for name, value in optimizer.hyperparameters.items():
        built = value() if isinstance(value, Call) else value.build() if hasattr(value, "build") else value
        if callable(built) and (name == "learning_rate" or not takes_schedule(optimizer.call.function, name)):
            found[name] = built
    return found
