"""`Axis` and `Call`, which stand for the values of many lanes; and what kind of thing a value is."""

from __future__ import annotations

import functools
import numbers
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.problems.messages import near_keywords, shown
from jaxfit.typing import PyTree, Scalar


def repetition(items: Sequence) -> int | None:
    """Return the position of the first item that equals an earlier one."""
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


def as_python(x: object) -> object:
    """Return NumPy's integers and floats as Python's, so that equal settings are equal programs."""
    return x.item() if isinstance(x, np.generic) else x


def stack(column: Sequence) -> Array | np.ndarray:
    if all(isinstance(x, jax.Array) for x in column) and any(is_key(x) for x in column):
        return jax.numpy.stack(column)
    return np.stack([np.asarray(x) for x in column])


def kind_of(x: object) -> str:
    return "number" if is_number(x) else "text" if isinstance(x, str) else "object"


def kinds_of(values: Sequence) -> set[str]:
    """Return the kinds of values; None, which stands for what a function does without the argument, has none."""
    return {kind_of(v) for v in values if v is not None}


def _check_kinds(name: str, values: Sequence) -> None:
    if len(kinds_of(values)) > 1 and kinds_of(values) & {"number", "text"}:
        raise ValueError(mixed_kinds(name, values))


def mixed_kinds(name: str, values: Sequence) -> str:
    kinds = [type(v).__name__ for v in values]
    odd = next(i for i, kind in enumerate(kinds) if kind != kinds[0])
    return (
        f"Axis {name!r}: value {odd} is {values[odd]!r} ({kinds[odd]}), but value 0 is {values[0]!r} ({kinds[0]}); "
        f"the values of one axis must be of one kind (or None): write a number among schedules as "
        f"jf.schedules.constant(0.1), or let the axis be one of whole optimizers or losses, with labels"
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
        strings, and for data sets in an array of xarray its first coordinate.

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
        if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
            raise TypeError(
                f"Axis {self.name!r}: values is a masked array, whose mask would be lost; leave numbers out with "
                f"values.compressed(), or pass data sets as values.filled(0) and their masks, "
                f"~np.ma.getmaskarray(values), as another axis of this name, to a loss with masked=True"
            )
        dims = getattr(values, "dims", ())
        if self.labels is None and len(dims) > 1 and dims[0] in _coordinates(values):
            object.__setattr__(self, "labels", np.asarray(values.coords[values.dims[0]]).tolist())
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
            else:
                _check_kinds(self.name, values)
        if is_array(values) and not isinstance(values, jax.core.Tracer) and np.ndim(values) == 1 and is_inexact(values):
            bad = np.flatnonzero(np.isnan(values))
            if bad.size:
                raise ValueError(
                    f"Axis {self.name!r}: value {bad[0]} is NaN ({bad.size} of {len(values)}), but every value must "
                    f"be a number; leave it out"
                )
        if isinstance(values, np.ndarray) and values.dtype.kind in "OSUMm":
            values = list(values.tolist())
            _check_kinds(self.name, values)
        if self.labels is None and not is_array(values) and any(v is None for v in values):
            if kinds_of(list(values)) in ({"number"}, {"text"}):
                object.__setattr__(self, "labels", list(map(str, values)))
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
class Placeholder:
    """What stands in a template where each lane has a value of its own."""

    key: str

    @property
    def name(self) -> str:
        return self.key.rsplit("/", 1)[0]


def as_number(
    name: str, value: Scalar, rule: str = "a positive, finite number", holds: Callable = lambda x: x > 0
) -> Scalar:
    """Return one number as a float, so that it is a leaf, and an axis of numbers as one of floats; tracers pass.

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


def as_key(key: Scalar) -> Array:
    """Return one PRNG key, from an integer seed or a key of either of JAX's two forms, also if it is traced.

    Raises:
      TypeError: If it is neither, or a boolean.
      ValueError: If a seed is a fraction or outside 0 .. 2**32 - 1, where different seeds would give equal keys; or
        if there are several keys.
    """
    rule = "an integer seed of 0 to 2**32 - 1, or a key made by jax.random.key"
    if isinstance(key, numbers.Integral) and not isinstance(key, bool):
        if not 0 <= int(key) < 2**32:
            raise ValueError(f"key is {key}; it must be {rule}")
        return jax.random.key(int(key))
    if isinstance(key, numbers.Real) and not isinstance(key, bool):
        raise ValueError(f"key is {key}; it must be {rule}")
    key = np.asarray(key) if hasattr(key, "detach") else key  # a tensor, whose dtype is another library's
    shape, dtype = getattr(key, "shape", None), getattr(key, "dtype", None)
    if dtype is None:
        raise TypeError(f"key is {key!r}; it must be {rule}")
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if shape != ():
            raise ValueError(f"key holds keys of shape {shape}; it must be one key: choose one, such as key[0]")
        return key  # pyright: ignore[reportReturnType]
    if dtype == np.uint32 and shape == (2,):
        return jax.random.wrap_key_data(jnp.asarray(key), impl="threefry2x32")
    if shape == () and jnp.issubdtype(dtype, np.integer):
        return jax.random.key(key) if isinstance(key, jax.core.Tracer) else as_key(int(key))  # pyright: ignore[reportArgumentType]
    raise TypeError(f"key is an array of shape {shape} and type {dtype}; it must be {rule}")


def refuse_unit(name: str, value: object) -> None:
    """Refuse a quantity with a unit (astropy's, pint's and the like), which would be dropped; also inside of a list,
    an array of objects, or an array of xarray.

    Raises:
      TypeError: With the unit, and how to take it off.
    """
    value = getattr(value, "data", value) if hasattr(value, "dims") else value
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = list(value.flat)
    items = {type(x): x for x in value}.values() if isinstance(value, (list, tuple)) else (value,)
    for item in items:
        unit = next((u for u in (getattr(item, key, None) for key in ("unit", "units")) if u is not None), None)
        dated = hasattr(item, "timetuple") or hasattr(item, "total_seconds")  # pandas' dates have a unit of their own
        if unit is None or dated or not (hasattr(item, "magnitude") or hasattr(item, "value")):
            continue
        unit_text = str(unit) or "dimensionless"
        off = "to_value" if hasattr(item, "to_value") else "m_as" if hasattr(item, "m_as") else None
        plain = f".{off}({unit_text!r})" if off else ".magnitude" if hasattr(item, "magnitude") else ".value"
        raise TypeError(
            f"{name} has the unit {unit_text}, but jaxfit computes with plain numbers and would drop it: pass x{plain} "
            f"for each such x, and all other numbers in units that go with it"
        )


def _coordinates(values: object) -> tuple[str, ...]:
    """Return the names of the coordinates of an array of xarray."""
    return tuple(getattr(values, "coords", ()) if hasattr(values, "dims") else ())


@near_keywords
class Call:
    """A function call that each lane makes for itself, used in place of the value that it returns.

    Among the arguments, floats, arrays, keys and axes of them are traced; integers, booleans, strings, None, functions
    and tuples of such are static: parts of the program. An integer for an argument named `key` is a seed.

    Raises:
      TypeError: If `function` is not callable, or a static argument cannot be hashed.

    Example:
      >>> import jax
      >>> start = jf.Call(jax.random.normal, key=jf.Axis("seed", [0, 1, 2]))
      >>> grid = jf.sweep(lambda p: p**2, start, optimizer=jf.optimizers.sgd(0.5), steps=5)
      >>> grid.results.params.values.tolist()
      [0.0, 0.0, 0.0]
    """

    def __init__(self, function: Callable, /, *args, **kwargs):
        if not callable(function):
            raise TypeError(
                f"Call: function is {shown(function)}, which cannot be called; pass the function and its "
                f"arguments apart: Call(init, key=0), not Call(init(key=0))"
            )
        self.function = function
        self.args = tuple(as_python(a) for a in args)
        self.kwargs = {name: seeds(value) if name == "key" else as_python(value) for name, value in kwargs.items()}
        for name, value in self.given.items():
            refuse_unit(f"Call: argument {name!r}", value)
            if is_static(value):
                _check_hashable(function, name, value)

    @property
    def given(self) -> dict[int | str, PyTree]:
        return dict(enumerate(self.args)) | self.kwargs

    def __call__(self) -> PyTree:
        return self.function(*resolve(self.args), **resolve(self.kwargs))

    def __repr__(self) -> str:
        given = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        return f"Call({', '.join([getattr(self.function, '__name__', repr(self.function)), *given])})"


def is_static(value: object) -> bool:
    """Return whether an argument is a part of the program (True) or a number that it works on (False)."""
    leaves = jax.tree.leaves(value, is_leaf=lambda x: isinstance(x, (Axis, Placeholder)))
    return all(isinstance(x, (bool, int, str, np.bool_, np.integer)) or _is_function(x) for x in leaves)


def _is_function(x: object) -> bool:
    return callable(x) and not isinstance(x, (Axis, jax.Array))


def _check_hashable(function: Callable, name: int | str, value: PyTree) -> None:
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"{getattr(function, '__name__', function)}: argument {name!r} is {value!r}, a part of the program that "
            f"cannot be hashed; use a tuple instead of a list, or floats if these are numbers to sweep"
        ) from None


def _flatten_call(call: Call):
    traced = {name: value for name, value in call.given.items() if not is_static(value)}
    static = tuple((name, value) for name, value in call.given.items() if name not in traced)
    children = [(jax.tree_util.GetAttrKey(str(name)), value) for name, value in traced.items()]
    return children, (call.function, tuple(traced), static)


def _unflatten_call(aux, children) -> Call:
    function, names, static = aux
    given = dict(static) | dict(zip(names, children, strict=True))
    call = object.__new__(Call)
    call.function = function
    call.args = tuple(given[i] for i in range(sum(isinstance(k, int) for k in given)))
    call.kwargs = {k: v for k, v in given.items() if isinstance(k, str)}
    return call


jax.tree_util.register_pytree_with_keys(Call, _flatten_call, _unflatten_call)


def resolve(tree: PyTree) -> PyTree:
    """Return the tree with every `Call` in it replaced by its result."""
    return jax.tree.map(lambda x: x() if is_call(x) else x, tree, is_leaf=is_call)


def is_call(x: object) -> bool:
    return isinstance(x, Call)


def holds_call(tree: PyTree) -> bool:
    return any(map(is_call, jax.tree.leaves(tree, is_leaf=is_call)))


def seeds(value: PyTree) -> PyTree:
    """Return seeds as keys: an integer, or an axis of integers, whose labels stay the integers."""
    if isinstance(value, Axis):
        if isinstance(value.values, np.ndarray) and value.values.ndim == 1:
            _check_seeds(value.name, value.values)
            keys = jax.numpy.stack([as_key(as_python(seed)) for seed in value.values])
            return Axis(value.name, keys, value.labels if value.labels is not None else value.values.tolist())
        return value
    return as_key(value) if is_number(value) else value


def _check_seeds(name: str, values: np.ndarray) -> None:
    integral = (
        values == np.floor(values) if values.dtype.kind == "f" else np.full(values.shape, values.dtype.kind in "iu")
    )
    bad = np.flatnonzero(~(integral & (values >= 0) & (values < 2**32))) if values.dtype.kind != "b" else [0]
    if len(bad):
        raise ValueError(
            f"Axis {name!r}: value {bad[0]} is {values[bad[0]]}, but a seed must be an integer of 0 to 2**32 - 1; "
            f"pass such integers, or keys made by jax.random.split"
        )
    if values.dtype.kind == "f":
        raise ValueError(f"Axis {name!r}: value 0 is {values[0]}, but seeds must be integers; use values.astype(int)")
    repeated = repetition(values.tolist())
    if repeated is not None:
        raise ValueError(
            f"Axis {name!r}: value {repeated} ({values[repeated]}) is a repetition, as its lanes would be; leave it out"
        )


def is_traced(leaves: Sequence) -> bool:
    """Return whether the call is inside a transformation of the caller's: a leaf is traced, or every operation is."""
    return any(isinstance(x, jax.core.Tracer) for x in leaves) or isinstance(jax.device_put(_zero()), jax.core.Tracer)


@functools.cache
def _zero() -> jax.Array:
    """Return a number on the device, which is put there once, and on which an operation compiles nothing."""
    with jax.ensure_compile_time_eval():
        return jax.device_put(np.int32(0))
