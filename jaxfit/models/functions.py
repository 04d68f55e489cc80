"""What every model takes: numbers, and whole numbers."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.datasets import as_floats, as_key, as_numbers
from jaxfit.problems.messages import near_keywords


def whole(name: str, value: Any, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; it must be a whole number, {at_least} or more")
    if value < at_least:
        raise ValueError(f"{name} is {value}; it must be {at_least} or more")
    return int(value)


def array(x: Any) -> Any:
    """Return lists as arrays and whole numbers as floats; NumPy arrays stay, so that they keep their precision."""
    return x if isinstance(x, numbers.Number) and not isinstance(x, (np.integer, np.bool_)) else as_floats("x", x)


@dataclass(frozen=True, repr=False)
class FromFunction:
    """A function f(x, a, b) as a model with params {"a", "b"}; made by `from_function`."""

    function: Callable

    def __call__(self, params: dict[str, Any], x: Any) -> Any:
        free = _parameters(self.function)
        by_position = [params[p.name] for p in free if p.kind is not p.KEYWORD_ONLY]
        by_name = {p.name: params[p.name] for p in free if p.kind is p.KEYWORD_ONLY}
        x = x if isinstance(x, numbers.Number) else as_numbers("x", x)
        return self.function(x, *by_position, **by_name)

    def init(self, key: int | Array) -> dict[str, Array]:
        """The function's own defaults; N(0, 1) for parameters without one."""
        key = as_key(key)
        return {
            p.name: jax.random.normal(jax.random.fold_in(key, i))
            if p.default is p.empty
            else jnp.asarray(p.default, float)
            for i, p in enumerate(_parameters(self.function))
        }

    def __repr__(self) -> str:
        return f"from_function({getattr(self.function, '__name__', self.function)})"


@near_keywords
def from_function(f: Callable) -> FromFunction:
    """Make a model of a function that takes x and then its parameters, as `scipy.optimize.curve_fit` does.

    `f(x, a, b=2.0)` has the params {"a", "b"}, and `init` starts b at 2. Keyword-only arguments with a default stay
    constants; so do arguments bound by keyword with `functools.partial`.

    Raises:
      TypeError: If `f` is not callable or not hashable, or a parameter's default is not a number.
      ValueError: If `f` has no parameters after x, takes *args, or has no signature to read them from.

    Example:
      >>> model = jf.models.from_function(lambda x, a, b=2.0: a * x + b)
      >>> float(model({"a": 3.0, "b": 2.0}, 1.0))
      5.0
    """
    if not callable(f):
        raise TypeError(f"f is {f!r}; it must be a function f(x, a, b)")
    try:
        hash(f)
    except TypeError:
        raise TypeError(f"f is {f!r}, which cannot be hashed; wrap it in a plain function") from None
    for p in _parameters(f):
        if p.default is not p.empty and (isinstance(p.default, bool) or not isinstance(p.default, numbers.Real)):
            raise TypeError(
                f"f: parameter {p.name!r} has the default {p.default!r}, which is no number to fit; "
                f"bind it first: functools.partial(f, {p.name}={p.default!r})"
            )
    return FromFunction(f)


def _parameters(f: Callable) -> list[inspect.Parameter]:
    try:
        given = list(inspect.signature(f).parameters.values())
    except ValueError:
        raise ValueError(f"f is {f!r}, whose arguments cannot be read; {_WRITE_OUT}") from None
    if any(p.kind is p.VAR_POSITIONAL for p in given):
        raise ValueError(f"f takes *args, so its parameters have no names; {_WRITE_OUT}")
    constant = {p.name for p in given if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}
    free = [p for p in given[1:] if p.kind is not p.VAR_KEYWORD and p.name not in constant]
    if not free:
        raise ValueError(f"f has no parameters to fit after its first argument; {_WRITE_OUT}")
    return free


_WRITE_OUT = "write them out: lambda x, a, b: f(x, a, b)"
