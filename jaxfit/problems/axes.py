"""What kind of thing a value is: a number, an array, a key."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxfit.datasets import refuse_unit
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import PyTree, Scalar


def repetition(items: Sequence) -> int | None:
    """The position of the first item that equals an earlier one."""
    try:
        seen: dict[object, int] = {}
        return next((i for i, item in enumerate(items) if seen.setdefault(item, i) != i), None)
    except TypeError:  # not hashable
        return next((i for i, item in enumerate(items) if item in items[:i]), None)


def is_array(x: object) -> bool:
    return isinstance(x, (np.ndarray, np.generic, jax.Array)) and x.dtype != np.object_


def is_number(x: PyTree) -> bool:
    return isinstance(x, (bool, int, float, np.number, np.bool_)) or (
        is_array(x) and np.shape(x) == () and not is_key(x)
    )


def is_integer(x: object) -> bool:
    return isinstance(x, (bool, int)) or (is_array(x) and getattr(x.dtype, "kind", "V") in "biu")


def is_inexact(x: object) -> bool:
    return jax.numpy.issubdtype(x.dtype, np.inexact)


def is_key(x: object) -> bool:
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def plain(x: Any) -> Any:
    """NumPy's integers and floats as Python's, so that equal settings are equal programs."""
    return x.item() if isinstance(x, np.generic) else x


def stack(column: Sequence) -> Array | np.ndarray:
    if all(isinstance(x, jax.Array) for x in column) and any(is_key(x) for x in column):
        return jax.numpy.stack(column)
    return np.stack([np.asarray(x) for x in column])


def kind_of(x: object) -> str:
    return "number" if is_number(x) else "text" if isinstance(x, str) else "object"


def mixed_kinds(name: str, values: Sequence) -> str:
    kinds = [type(v).__name__ for v in values]
    odd = next(i for i, kind in enumerate(kinds) if kind != kinds[0])
    return (
        f"Axis {name!r}: value {odd} is {values[odd]!r} ({kinds[odd]}), but value 0 is {values[0]!r} ({kinds[0]}); "
        f"the values of one axis must be of one kind"
    )


@near_keywords
@dataclass(frozen=True, eq=False)
class Axis:
    """A dimension of a sweep: a name and the values to run, used in place of a single value.

    Args:
      name: The dimension's name in the results.
      values: The values along it: numbers, an array whose first axis runs along the dimension, PRNG keys, or any
        objects (optimizers, losses, whole params). Values may have further axes.
      labels: Names for the values in the results; by default the values themselves if they are plain numbers or
        strings.

    Raises:
      ValueError: If there are no values, a number is NaN, kinds are mixed, or labels are repeated or of another length.
      TypeError: If the name is not a string, or the values or labels are not a sequence.

    Example:
      >>> rates = jf.Axis("rate", [0.1, 0.5, 1.5])
      >>> grid = jf.sweep(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(rates), steps=20)
      >>> grid.results.rate.values.tolist()
      [0.1, 0.5, 1.5]
    """

    name: str
    values: Any
    labels: Sequence | None = None

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"Axis: name is {self.name!r}, but a dimension needs a non-empty string as its name")
        values = self.values
        refuse_unit(f"Axis {self.name!r}: values", values)
        if isinstance(values, Mapping):
            raise TypeError(
                f"Axis {self.name!r}: values is a dict; pass its values, and its keys as their names: "
                f"Axis({self.name!r}, list(d.values()), labels=list(d))"
            )
        if isinstance(values, (set, frozenset)):
            raise TypeError(f"Axis {self.name!r}: values is a set, which has no order; pass a list: sorted(values)")
        if hasattr(values, "__array__") and not is_array(values):
            values = np.asarray(values)
        if isinstance(values, str) or not hasattr(values, "__len__"):
            if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
                raise TypeError(
                    f"Axis {self.name!r}: values is {values!r}, but an axis takes a sequence: write [{values!r}]"
                )
            values = list(values)
        if getattr(values, "shape", None) == ():
            raise TypeError(
                f"Axis {self.name!r}: values has no first axis to run along (shape ()); pass a list of values"
            )
        if len(values) == 0:
            raise ValueError(f"Axis {self.name!r} is empty: give it at least one value")
        if not is_array(values):
            values = list(values)
            if all(is_number(v) for v in values):
                kinds = {type(v) is bool or isinstance(v, np.bool_) for v in values}
                if len(kinds) == 2:
                    raise ValueError(mixed_kinds(self.name, values))
                values = np.asarray(values)
            elif any(is_number(v) or isinstance(v, str) for v in values) and len({kind_of(v) for v in values}) > 1:
                raise ValueError(mixed_kinds(self.name, values))
        if is_array(values) and not isinstance(values, jax.core.Tracer) and np.ndim(values) == 1 and is_inexact(values):
            bad = np.flatnonzero(np.isnan(values))
            if bad.size:
                raise ValueError(
                    f"Axis {self.name!r}: value {bad[0]} is NaN ({bad.size} of {len(values)}), but every value must "
                    f"be a number; leave it out"
                )
        if isinstance(values, np.ndarray) and values.dtype.kind in "OSUMm":
            values = list(values.tolist())
            if any(not isinstance(v, str) for v in values) and len({kind_of(v) for v in values}) > 1:
                raise ValueError(mixed_kinds(self.name, values))
        object.__setattr__(self, "values", values)
        if self.labels is not None:
            refuse_unit(f"Axis {self.name!r}: labels", self.labels)
            if isinstance(self.labels, str) or not hasattr(self.labels, "__len__"):
                raise TypeError(
                    f"Axis {self.name!r}: labels is {self.labels!r}, but it must be a list with one label a value"
                )
            labels = list(self.labels)
            if len(labels) != len(values):
                raise ValueError(
                    f"Axis {self.name!r}: {len(labels)} labels for {len(values)} values; give one label a value"
                )
            repeated = repetition(labels)
            if repeated is not None:
                raise ValueError(
                    f"Axis {self.name!r}: label {repeated} ({labels[repeated]!r}) is a repetition; labels must differ"
                )
            object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Axis({self.name!r}, {len(self)} values)"


def is_axis(x: object) -> bool:
    return isinstance(x, Axis)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Place:
    """Where a lane's own value goes."""

    key: str

    @property
    def name(self) -> str:
        return self.key.rsplit("/", 1)[0]


def as_number(
    name: str, value: Scalar, rule: str = "a positive, finite number", holds: Callable = lambda x: x > 0
) -> Scalar:
    """One number as a float, so that it is a leaf, and an axis of numbers as one of floats; tracers pass.

    Raises:
      TypeError, ValueError: If it is neither, or a number is not finite or breaks the rule; the message begins `name`.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    swept = isinstance(value, Axis)
    values = value.values if swept else value
    refuse_unit(name, values)
    array = np.asarray(values if is_array(values) or np.isscalar(values) else None)
    if array.dtype.kind not in "iuf" or array.ndim != swept:
        raise TypeError(f"{name} is {reprlib.repr(value)} ({type(values).__name__}), but it must be {rule}")
    bad = np.flatnonzero(~(np.isfinite(array) & holds(array)))
    if bad.size:
        where = f" (value {bad[0]} of axis {value.name!r})" if swept else ""
        raise ValueError(f"{name} is {np.ravel(array)[bad[0]]}{where}, but it must be {rule}")
    return Axis(value.name, array.astype(float), value.labels) if swept else float(array)
