"""Arithmetic that takes arrays of NumPy or of JAX: of one run, whose numbers are known, or traced for many of them.

`both`, `either` and `pick` leave out what is not needed where a condition is known.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def on_host(x: Array) -> bool:
    return isinstance(x, np.ndarray)


def namespace(x: Array) -> ModuleType:
    return np if on_host(x) else jnp


def eps_of(x: Array) -> Any:
    return np.finfo(x.dtype).eps


def normal(x: Any) -> Any:
    """Return a number, or zero for one that is too small to have all digits; a compiled program does so by itself."""
    return x.dtype.type(0) if isinstance(x, np.floating) and x < np.finfo(x.dtype).tiny else x


def is_known(condition: Any) -> bool:
    return isinstance(condition, (bool, np.bool_))


def pick(condition: Any, yes: Any, no: Any) -> Any:
    """Return one of two trees, or of what two functions return; if the condition is known, the other is not called."""
    if is_known(condition):
        chosen = yes if condition else no
        return chosen() if callable(chosen) else chosen
    yes, no = (x() if callable(x) else x for x in (yes, no))
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def both(condition: Any, then: Callable) -> Any:
    """Return whether a condition and one that a function returns hold."""
    return (condition and then()) if is_known(condition) else condition & then()


def either(condition: Any, otherwise: Callable) -> Any:
    """Return whether a condition or one that a function returns holds."""
    return (condition or otherwise()) if is_known(condition) else condition | otherwise()
