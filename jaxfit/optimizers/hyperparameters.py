"""Hyperparameters: their checks, how they are printed, and those that change with the step."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxfit.problems.axes import Axis, Call, is_array, is_key, refuse_unit
from jaxfit.problems.messages import did_you_mean
from jaxfit.typing import PyTree

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Mask:
    """A tree of booleans as a value that can be hashed; Optax asks for it as for any function of the params."""

    chosen: tuple[bool, ...]
    structure: Any

    def __call__(self, params: PyTree) -> PyTree:
        return jax.tree.unflatten(self.structure, self.chosen)

    def __repr__(self) -> str:
        return repr(self(None))


def as_static(value: Any) -> Any:
    """Return a dtype as its name, a tree of booleans as a `Mask`, and everything else unchanged."""
    if isinstance(value, np.dtype):
        return value.name
    leaves, structure = jax.tree.flatten(value)
    if isinstance(value, (dict, list, tuple)) and leaves and all(isinstance(x, (bool, np.bool_)) for x in leaves):
        return Mask(tuple(map(bool, leaves)), structure)
    return value


def check_names(name: str, signature: inspect.Signature, given: dict[str, object]) -> None:
    """Raise a TypeError for hyperparameters that the factory does not take, or that are missing.

    Raises:
      TypeError: Which names it takes, or what to write for the missing one.
    """
    parameters = signature.parameters.values()
    takes = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key in given:
            if key not in takes:
                near = did_you_mean(key, takes)
                raise TypeError(f"{name} takes no hyperparameter {key!r}{near} It takes {', '.join(takes) or 'none'}")
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in given
    ]
    if missing:
        raise TypeError(f"{name} needs the hyperparameter {missing[0]!r}: write {missing[0]}=0.1")


_FRACTION = "it must be a number in [0, 1): 0 forgets at once, 1 never does", lambda x: (x >= 0) & (x < 1)
_RATE = "it must be a positive, finite number such as 0.01, or a schedule", lambda x: np.isfinite(x) & (x > 0)
_DAMPING = "it must be a finite number, zero or more", lambda x: np.isfinite(x) & (x >= 0)
_RULES = {
    "learning_rate": _RATE, "damping": _DAMPING,
    **dict.fromkeys(
        ("momentum", "beta", "b1", "b2", "b3", "beta1", "beta2", "beta_1", "beta_2", "betas", "decay", "rho"), _FRACTION
    ),
}  # fmt: skip
_ANY = "it must be a number", lambda x: ~np.isnan(x)


def check_hyperparameter(name: str, key: str, value: Any) -> None:
    """Check a hyperparameter, and refuse numbers with which no optimizer can work.

    Traced values pass, and schedules are checked when a run begins.

    Raises:
      TypeError: If a learning rate or momentum is not one number, or any hyperparameter is complex.
      ValueError: If it is out of its range, or any hyperparameter is NaN.
    """
    refuse_unit(f"{name}: {key}", value)
    if isinstance(value, tuple) and key in _RULES:
        for position, item in enumerate(value):
            check_hyperparameter(name, f"{key}[{position}]", item)
        return
    swept = isinstance(value, Axis)
    numbers = value.values if swept else value
    if swept and not is_array(numbers):
        for position, item in enumerate(numbers):
            check_hyperparameter(f"{name} (value {position} of axis {value.name!r})", key, item)
        return
    known = not (isinstance(numbers, jax.core.Tracer) or callable(numbers) or is_key(numbers))
    if not known or numbers is None or hasattr(numbers, "build"):  # a schedule made by `optimizer`
        return
    array = np.asarray(numbers if np.isscalar(numbers) or is_array(numbers) else None)
    real = array.dtype.kind in "iuf" or jnp.issubdtype(array.dtype, np.floating)
    rule, holds = _RULES.get(key.split("[")[0], _ANY)
    if (rule is not _ANY[0] and not (real and array.ndim == swept)) or array.dtype.kind == "c":
        raise TypeError(f"{name}: {key} is {reprlib.repr(value)} ({type(numbers).__name__}), but {rule}")
    bad = ~holds(array) if real else np.zeros(0, bool)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        where = f" (value {first[0]} of axis {value.name!r})" if swept else f" at index {first}" if first else ""
        climbs = "; a negative one climbs" if key == "learning_rate" and array[first] < 0 else ""
        raise ValueError(f"{name}: {key} is {array[first]}{where}, but {rule}{climbs}")


def show(value: Any) -> str:
    """Return a hyperparameter as text for the `repr` of its optimizer."""
    if is_key(value):
        return "a key"
    if is_array(value) and np.ndim(value) == 0 and not isinstance(value, jax.core.Tracer):
        return f"{float(value):.6g}"
    if isinstance(value, Call):
        name = getattr(value.function, "__name__", repr(value.function)).removeprefix("_")
        return f"{name}({', '.join(f'{k}={show(v)}' for k, v in value.given.items())})"
    return getattr(value, "__name__", None) or repr(value)


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
