"""What kind of thing a value is: a number, an array, a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np


def repetition(items: Sequence) -> int | None:
    """The position of the first item that equals an earlier one."""
    try:
        seen: dict[Any, int] = {}
        return next((i for i, item in enumerate(items) if seen.setdefault(item, i) != i), None)
    except TypeError:  # not hashable
        return next((i for i, item in enumerate(items) if item in items[:i]), None)


def is_array(x: Any) -> bool:
    return isinstance(x, (np.ndarray, np.generic, jax.Array)) and x.dtype != np.object_


def is_number(x: Any) -> bool:
    return isinstance(x, (bool, int, float, np.number, np.bool_)) or (
        is_array(x) and np.shape(x) == () and not is_key(x)
    )


def is_integer(x: Any) -> bool:
    return isinstance(x, (bool, int)) or (is_array(x) and getattr(x.dtype, "kind", "V") in "biu")


def is_inexact(x: Any) -> bool:
    return jax.numpy.issubdtype(x.dtype, np.inexact)


def is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def plain(x: Any) -> Any:
    """NumPy's integers and floats as Python's, so that equal settings are equal programs."""
    return x.item() if isinstance(x, np.generic) else x


def stack(column: Sequence) -> Any:
    if all(isinstance(x, jax.Array) for x in column) and any(is_key(x) for x in column):
        return jax.numpy.stack(column)
    return np.stack([np.asarray(x) for x in column])


def kind_of(x: Any) -> str:
    return "number" if is_number(x) else "text" if isinstance(x, str) else "object"


def mixed_kinds(name: str, values: Sequence) -> str:
    kinds = [type(v).__name__ for v in values]
    odd = next(i for i, kind in enumerate(kinds) if kind != kinds[0])
    return (
        f"Axis {name!r}: value {odd} is {values[odd]!r} ({kinds[odd]}), but value 0 is {values[0]!r} ({kinds[0]}); "
        f"the values of one axis must be of one kind"
    )
