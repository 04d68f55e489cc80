"""`Call`: a function run once per lane, in place of its result."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxfit.datasets import as_key
from jaxfit.keywords import near_keywords
from jaxfit.markers.axes import Axis, Place
from jaxfit.markers.kinds import is_number, plain, repetition

PyTree = Any


@near_keywords
class Call:
    """A function run once per lane, in place of its result: `Call(init, key=seeds, width=widths)`.

    Floats, arrays, keys and axes of them among the arguments are traced; integers, booleans, strings, None, functions
    and tuples of such are static: parts of the program. An integer for an argument named `key` is a seed.

    Raises:
      TypeError: If `function` is not callable, or a static argument cannot be hashed.
    """

    def __init__(self, function: Callable, /, *args, **kwargs):
        if not callable(function):
            raise TypeError(
                f"Call: function is {reprlib.repr(function)}, which cannot be called; pass the function and its "
                f"arguments apart: Call(init, key=0), not Call(init(key=0))"
            )
        self.function = function
        self.args = tuple(plain(a) for a in args)
        self.kwargs = {name: seeds(value) if name == "key" else plain(value) for name, value in kwargs.items()}
        for name, value in self.given.items():
            if is_static(value):
                _check_hashable(function, name, value)

    @property
    def given(self) -> dict[int | str, Any]:
        return dict(enumerate(self.args)) | self.kwargs

    def __call__(self) -> Any:
        return self.function(*resolve(self.args), **resolve(self.kwargs))

    def __repr__(self) -> str:
        given = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        return f"Call({', '.join([getattr(self.function, '__name__', repr(self.function)), *given])})"


def is_static(value: Any) -> bool:
    """Whether an argument is a part of the program (True) or a number that it works on (False)."""
    leaves = jax.tree.leaves(value, is_leaf=lambda x: isinstance(x, (Axis, Place)))
    return all(isinstance(x, (bool, int, str, np.bool_, np.integer)) or _is_function(x) for x in leaves)


def _is_function(x: Any) -> bool:
    return callable(x) and not isinstance(x, (Axis, jax.Array))


def _check_hashable(function: Callable, name: Any, value: Any) -> None:
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
    """The tree with every `Call` in it replaced by its result."""
    return jax.tree.map(lambda x: x() if is_call(x) else x, tree, is_leaf=is_call)


def is_call(x: Any) -> bool:
    return isinstance(x, Call)


def holds_call(tree: PyTree) -> bool:
    return any(map(is_call, jax.tree.leaves(tree, is_leaf=is_call)))


def seeds(value: Any) -> Any:
    """Seeds as keys: an integer, or an axis of integers, whose labels stay the integers."""
    if isinstance(value, Axis):
        if isinstance(value.values, np.ndarray) and value.values.ndim == 1:
            _check_seeds(value.name, value.values)
            keys = jax.numpy.stack([as_key(plain(seed)) for seed in value.values])
            return Axis(value.name, keys, value.labels if value.labels is not None else value.values.tolist())
        return value
    return as_key(value) if is_number(value) else value


def _check_seeds(name: str, values: np.ndarray) -> None:
    whole = values == np.floor(values) if values.dtype.kind == "f" else np.full(values.shape, values.dtype.kind in "iu")
    bad = np.flatnonzero(~(whole & (values >= 0) & (values < 2**32))) if values.dtype.kind != "b" else [0]
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
