"""Arrays that functions enclose, in the precision of a run.

JAX gives a NumPy array one type only, for as long as a program that encloses it is kept: what a function's own `jit`
has seen in float32 stays float32 in a run in float64, and the other way round. So where a run has another precision
than the caller's JAX, functions are traced with copies of their arrays in that precision, and nothing of it is left.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
import sysconfig
import threading
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.problems import WIDTHS, convert, precision_context, switched_precision
from jaxfit.problems.axes import is_call, resolve

Swap = Callable[[object, object], None]  # swap(old, new) puts `new` where `old` stands, if it still stands there
MOST = 10_000  # objects looked at, and items of each
ATOMS = (int, float, complex, str, bytes, bytearray, type(None), np.generic, jax.core.Tracer, types.ModuleType)
OPEN = ("functools", "types", "collections", "argparse")  # of Python's own modules, those whose objects are looked into
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def enclosed_in_precision(*functions: object) -> Iterator[None]:
    """Give functions the arrays that they enclose in the run's precision, if it is not the caller's, in the context.

    Found are arrays in closures, globals, defaults, attributes and containers of the functions and of what they call,
    also inside of `jax.jit` and the like; not what installed libraries keep in their own modules. One thread at a time
    is inside, so that no run meets the copies of another.
    """
    precision = switched_precision()
    with _one_at_a_time:
        changed: list[tuple[Swap, object, object]] = []
        try:
            if precision is not None:
                swaps = [(value, swap) for value, swap in _enclosed(functions) if _differs(value, precision)]
                copies = {id(value): _copy(value, precision) for value, _ in swaps}
                for value, swap in swaps:
                    changed.append((swap, value, copies[id(value)]))
                    _swap(*changed[-1])
            yield
        finally:
            owners = {id(copy): value for _, value, copy in changed}
            copies = [copy for *_, copy in changed]  # kept, so that no other object gets the number of one
            _put_back(changed)
            if copies:  # what the functions themselves put elsewhere meanwhile
                strays = [(swap, owners[id(x)], x) for x, swap in _enclosed(functions) if id(x) in owners]
                _put_back(strays)


@contextlib.contextmanager
def in_precision(precision: str, *functions: object) -> Iterator[None]:
    """Give JAX and what functions enclose the precision inside of the context: to call them without tracing."""
    with precision_context(precision), enclosed_in_precision(*functions):
        yield


def resolved(tree: object, precision: str) -> object:
    """Return the tree with the result of every `Call` in it, made in the precision."""
    calls = [x for x in jax.tree.leaves(tree, is_leaf=is_call) if is_call(x)]
    with in_precision(precision, *calls):
        return resolve(tree)


def _swap(swap: Swap, old: object, new: object) -> None:
    with contextlib.suppress(Exception):  # an object that lets nothing be put into it keeps what it has
        swap(old, new)


def _put_back(changed: list[tuple[Swap, object, object]]) -> None:
    """Put back whatever was replaced, also if Ctrl-C comes meanwhile."""
    try:
        while changed:
            swap, value, copy = changed[-1]
            _swap(swap, copy, value)
            changed.pop()
    except BaseException:
        _put_back(changed)
        raise


def _is_array(x: object) -> bool:
    return type(x) is np.ndarray or issubclass(type(x), jax.Array) and not issubclass(type(x), jax.core.Tracer)


def _differs(x: Any, precision: str) -> bool:
    """Return whether JAX could take an array, or one in a tuple, for one of another precision."""
    if issubclass(type(x), tuple):
        return any(_differs(item, precision) for item in tuple.__iter__(x))
    if not _is_array(x) or not (jnp.issubdtype(x.dtype, np.floating) or jnp.issubdtype(x.dtype, np.integer)):
        return False
    other = x.dtype.kind == "f" and x.dtype.itemsize >= 4 and x.dtype != WIDTHS[precision][0]
    return other or isinstance(x, np.ndarray) and x.dtype.itemsize == 8


def _copy(x: Any, precision: str) -> object:
    if not _differs(x, precision):
        return x
    if issubclass(type(x), tuple):
        copy = tuple.__new__(type(x), [_copy(item, precision) for item in tuple.__iter__(x)])
        getattr(copy, "__dict__", {}).update(getattr(x, "__dict__", {}))
        return copy
    copy = np.array(convert(x, precision))
    with jax.ensure_compile_time_eval():
        return jnp.asarray(copy) if isinstance(x, jax.Array) else copy


def _enclosed(roots: Sequence[object]) -> Iterator[tuple[object, Swap]]:
    """Yield arrays, and tuples that may hold some, with what puts another in their place; the nearest first."""
    waiting: deque[tuple[object, Swap | None]] = deque((root, None) for root in roots)
    seen: dict[int, object] = {}
    while waiting and len(seen) < MOST:
        value, swap = waiting.popleft()
        if swap is not None and (_is_array(value) or issubclass(type(value), tuple)):
            yield value, swap
        if id(value) not in seen and not _is_array(value):
            seen[id(value)] = value
            with contextlib.suppress(Exception):  # an object that does not let anyone look inside
                waiting.extend(item for item in _inside(value) if not issubclass(type(item[0]), ATOMS))


def _inside(value: Any) -> Iterator[tuple[object, Swap | None]]:
    """Yield what one object holds; what stands in a tuple is replaced with it."""
    kind = type(value)  # `isinstance` would ask the object itself
    if kind is types.FunctionType:
        yield from _arrays_of_function(value)
    elif issubclass(kind, (types.MethodType, classmethod, staticmethod)):
        yield getattr(value, "__self__", None), None
        yield value.__func__, None
    elif kind is property:
        yield value.fget, None
    elif issubclass(kind, dict):
        yield from _arrays_of_dict(value)
    elif issubclass(kind, list):
        items = enumerate(itertools.islice(list.__iter__(value), MOST))
        yield from ((x, functools.partial(_in_list, value, i)) for i, x in items)
    elif issubclass(kind, (tuple, set, frozenset)):
        yield from ((x, None) for x in itertools.islice(value, MOST))
    elif kind is jax.tree_util.PyTreeDef:
        yield value.node_data(), None
        yield from ((child, None) for child in value.children())
    elif issubclass(kind, type):
        yield from _arrays_of_class(value)
    else:
        yield from _arrays_of_object(value)


def _arrays_of_object(value: Any) -> Iterator[tuple[object, Swap | None]]:
    """Yield what stands in the `__dict__` and the `__slots__` of an object, and what its class holds."""
    kind = type(value)
    if issubclass(kind, functools.partial):
        yield value.func, None
        yield value.args, functools.partial(_in_partial, value)
        yield value.keywords, None
    if _is_pythons(kind.__module__) and kind.__module__ not in OPEN:
        return
    with contextlib.suppress(AttributeError):
        own = object.__getattribute__(value, "__dict__")
        yield from _arrays_of_dict(own) if type(own) is dict else ()
    for base in kind.__mro__:
        yield base, None
        slots = [x for x in vars(base).values() if "__slots__" in vars(base) and type(x) is types.MemberDescriptorType]
        for slot in slots:
            with contextlib.suppress(AttributeError):  # an empty one
                yield slot.__get__(value), functools.partial(_in_slot, slot, value)


def _arrays_of_class(kind: type) -> Iterator[tuple[object, Swap | None]]:
    if _is_the_users(kind.__module__):
        yield from ((x, functools.partial(_in_class, kind, name)) for name, x in list(vars(kind).items())
                    if not name.startswith("__") or name == "__call__")  # fmt: skip


def _arrays_of_function(function: types.FunctionType) -> Iterator[tuple[object, Swap | None]]:
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not filled yet
            yield cell.cell_contents, functools.partial(_in_cell, cell)
    yield function.__defaults__, functools.partial(_in_defaults, function)
    yield function.__kwdefaults__, None
    yield vars(function).get("__wrapped__"), None
    if _is_the_users(function.__module__):
        yield from _arrays_of_namespace(function.__globals__, set(_names(function.__code__)))


def _arrays_of_namespace(
    space: dict[str, object], names: set[str], depth: int = 1
) -> Iterator[tuple[object, Swap | None]]:
    """Yield the globals of these names, and what the user's modules among them have under these names."""
    for name in names.intersection(space):
        value = space[name]
        if not issubclass(type(value), types.ModuleType):
            yield value, functools.partial(_in_dict, space, name)
        elif depth and _is_the_users(value.__name__):
            yield from _arrays_of_namespace(vars(value), names, depth - 1)


def _arrays_of_dict(items: dict) -> Iterator[tuple[object, Swap]]:
    yield from ((x, functools.partial(_in_dict, items, key)) for key, x in itertools.islice(dict.items(items), MOST))


def _in_dict(items: dict, key: object, old: object, new: object) -> None:
    if dict.get(items, key) is old:
        dict.__setitem__(items, key, new)


def _in_list(items: list[object], i: int, old: object, new: object) -> None:
    if list.__getitem__(items, i) is old:
        list.__setitem__(items, i, new)


def _in_slot(slot: types.MemberDescriptorType, value: object, old: object, new: object) -> None:
    if slot.__get__(value) is old:
        slot.__set__(value, new)


def _in_class(kind: type, name: str, old: object, new: object) -> None:
    if vars(kind).get(name) is old:
        type.__setattr__(kind, name, new)


def _in_cell(cell: types.CellType, old: object, new: object) -> None:
    if cell.cell_contents is old:
        cell.cell_contents = new


def _in_defaults(function: types.FunctionType, old: object, new: object) -> None:
    if function.__defaults__ is old:
        function.__defaults__ = new


def _in_partial(value: functools.partial, old: object, new: object) -> None:
    if value.args is old:
        value.__setstate__((value.func, new, value.keywords, vars(value)))


def _names(code: types.CodeType) -> Iterator[str]:
    """Yield the names that code uses, and that of the functions in it."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)


@functools.cache
def _is_pythons(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    installed = "site-packages" in file or "dist-packages" in file
    return module in sys.builtin_module_names or file.startswith(sysconfig.get_path("stdlib")) and not installed


@functools.cache
def _is_the_users(module: str | None) -> bool:
    """Return whether a module is the user's: neither Python's own, nor installed, nor of this package."""
    name = module or ""
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    installed = "site-packages" in file or "dist-packages" in file
    return not (_is_pythons(name) or installed or name.partition(".")[0] == "jaxfit")
