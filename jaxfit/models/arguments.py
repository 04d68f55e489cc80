"""What every model takes: numbers, and whole numbers."""

from __future__ import annotations

import numbers
from typing import Any

from jaxfit.datasets import as_numbers


def whole(name: str, value: Any, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; it must be a whole number, {at_least} or more")
    if value < at_least:
        raise ValueError(f"{name} is {value}; it must be {at_least} or more")
    return int(value)


def array(x: Any) -> Any:
    """Lists as arrays; NumPy's arrays stay NumPy's, so that float64 params keep their precision outside of JAX."""
    return x if isinstance(x, numbers.Number) else as_numbers("x", x)
