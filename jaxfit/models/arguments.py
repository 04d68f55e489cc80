"""What every model takes: numbers, and whole numbers."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from jaxfit.datasets import as_floats


def whole(name: str, value: Any, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; it must be a whole number, {at_least} or more")
    if value < at_least:
        raise ValueError(f"{name} is {value}; it must be {at_least} or more")
    return int(value)


def array(x: Any) -> Any:
    """Lists as arrays, whole numbers as floats; NumPy's stay NumPy's, so that float64 params keep their precision."""
    return x if isinstance(x, numbers.Number) and not isinstance(x, (np.integer, np.bool_)) else as_floats("x", x)
