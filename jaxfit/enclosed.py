"""Arrays that functions enclose, in the precision of a run.

JAX gives a NumPy array one type only, for as long as a program that encloses it is kept: what a function's own `jit`
has seen in float32 stays float32 in a run in float64, and the other way round. So where a run has another precision
than the caller's JAX, functions are traced with copies of their arrays in that precision, and nothing of it is left.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import sysconfig
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.problems import WIDTHS, convert, switched_precision

Put = Callable[[Any], None]  # puts another value in the place of the one found
MOST = 10_000  # objects looked at
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def enclosed_in_precision(*functions: Any) -> Iterator[None]:
    """Inside, functions find the arrays that they enclose in the run's precision, if that is not the caller's own.

    Found are arrays in closures, globals, defaults, attributes and containers of the functions and of what they call,
    also inside of `jax.jit` and the like; not what installed libraries keep in their own modules.
    """
    precision = switched_precision()
    if precision is None:
        yield
        return
    with _one_at_a_time:
        found = [(value, put) for value, put in _enclosed(functions) if _differs(value, precision)]
        try:
            for value, put in found:
                with contextlib.suppress(AttributeError, TypeError):  # an object that lets nothing be put into it
                    put(_copy(value, precision))
            yield
        finally:
            for value, put in found:
                with contextlib.suppress(AttributeError, TypeError):
                    put(value)


def _is_array(x: Any) -> bool:
    return type(x) is np.ndarray or isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)


def _differs(x: Any, precision: str) -> bool:
    """Whether JAX could take an array, or one in a tuple, for one of another precision."""
    if isinstance(x, tuple):
        return any(_differs(item, precision) for item in x)
    if not _is_array(x) or not (jnp.issubdtype(x.dtype, np.floating) or jnp.issubdtype(x.dtype, np.integer)):
        return False
    other = x.dtype.kind == "f" and x.dtype.itemsize >= 4 and x.dtype != WIDTHS[precision][0]
    return other or isinstance(x, np.ndarray) and x.dtype.itemsize == 8


def _copy(x: Any, precision: str) -> Any:
    if not isinstance(x, tuple):
        if not _differs(x, precision):
            return x
        copy = np.array(convert(x, precision))
        with jax.ensure_compile_time_eval():
            return jnp.asarray(copy) if isinstance(x, jax.Array) else copy
    items = [_copy(item, precision) for item in x]
    return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)


def _enclosed(roots: Sequence[Any]) -> Iterator[tuple[Any, Put]]:
    """Arrays, and tuples that may hold some, with what puts another in their place."""
    waiting: list[tuple[Any, Put | None]] = [(root, None) for root in roots]
    seen: dict[int, Any] = {}
    while waiting and len(seen) < MOST:
        value, put = waiting.pop()
        if put is not None and (_is_array(value) or isinstance(value, tuple)):
            yield value, put
        if id(value) not in seen and not _is_array(value):
            seen[id(value)] = value
            waiting.extend(_inside(value))


def _inside(value: Any) -> Iterator[tuple[Any, Put | None]]:
    """What one object holds; what stands in a tuple is replaced with it."""
    if isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, (types.MethodType, classmethod, staticmethod)):
        yield getattr(value, "__self__", None), None
        yield value.__func__, None
    elif isinstance(value, property):
        yield value.fget, None
    elif isinstance(value, functools.partial):
        yield value.func, None
        yield value.args, lambda x: value.__setstate__((value.func, x, value.keywords, value.__dict__))
        yield value.keywords, None
    elif isinstance(value, dict):
        yield from ((x, functools.partial(value.__setitem__, key)) for key, x in list(value.items())[:MOST])
    elif isinstance(value, list):
        yield from ((x, functools.partial(value.__setitem__, i)) for i, x in enumerate(value[:MOST]))
    elif isinstance(value, (tuple, set, frozenset)):
        yield from ((x, None) for x in list(value)[:MOST])
    elif isinstance(value, jax.tree_util.PyTreeDef):
        yield value.node_data(), None
        yield from ((child, None) for child in value.children())
    elif isinstance(value, type):
        yield from _of_class(value)
    elif not isinstance(value, types.ModuleType) and hasattr(value, "__dict__"):
        yield from ((x, functools.partial(object.__setattr__, value, name)) for name, x in list(vars(value).items()))
        yield from ((kind, None) for kind in type(value).__mro__)


def _of_class(kind: type) -> Iterator[tuple[Any, Put | None]]:
    if _is_the_users(kind.__module__):
        yield from ((x, functools.partial(setattr, kind, name)) for name, x in list(vars(kind).items())
                    if not name.startswith("__") or name == "__call__")  # fmt: skip


def _of_function(function: types.FunctionType) -> Iterator[tuple[Any, Put | None]]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents, functools.partial(setattr, cell, "cell_contents")
        except ValueError:  # not filled yet
            continue
    yield function.__defaults__, functools.partial(setattr, function, "__defaults__")
    yield function.__kwdefaults__, None
    yield vars(function).get("__wrapped__"), None
    if _is_the_users(function.__module__):
        yield from _of_namespace(function.__globals__, set(_names(function.__code__)))


def _of_namespace(space: dict[str, Any], names: set[str], depth: int = 1) -> Iterator[tuple[Any, Put | None]]:
    """The globals of these names, and what the user's modules among them have under these names."""
    for name in names.intersection(space):
        value = space[name]
        if not isinstance(value, types.ModuleType):
            yield value, functools.partial(space.__setitem__, name)
        elif depth and _is_the_users(value.__name__):
            yield from _of_namespace(vars(value), names, depth - 1)


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that code asks for, and that of the functions in it."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)


@functools.cache
def _is_the_users(module: str | None) -> bool:
    """Whether a module is no library's: neither Python's own, nor installed, nor of this package."""
    name = module or ""
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    of_python = name in sys.builtin_module_names or file.startswith(sysconfig.get_path("stdlib"))
    return not (of_python or "site-packages" in file or name.partition(".")[0] == "jaxfit")
