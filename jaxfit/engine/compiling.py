"""Compile programs of a user's functions, with their sums rewritten for speed on a CPU.

A loss and the gradient of each param are sums over the same points. XLA on a CPU makes one loop of each, which computes
the residuals again; one reduction with several operands is one loop. A loop adds one number after another, so that a
long sum would lose digits; therefore it is a sum of partial sums over at most `sum_length` numbers. (XLA's own remedy,
a reduce-window, is many times slower, and is turned off for these programs.)
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.engine.jaxprs import (
    JITS,
    Closed,
    ListedOperation,
    Listing,
    Operation,
    enclosing_nothing,
    inline,
    needed,
    operations,
    run,
)
from jaxfit.engine.settings import current, happened
from jaxfit.engine.tracing import trace
from jaxfit.optimizers.lanes import SideBySide

Options: TypeAlias = dict[str, Any]
Device: TypeAlias = Any  # jax.Device, which type checkers take for a variable
# By platform, for what `fast_sums` rewrites: without XLA's own, slow way to keep the digits of long sums.
SUMS: dict[str, Options] = {"cpu": {"xla_disable_hlo_passes": "tree_reduction_rewriter"}}
# By platform, for loops over many lanes, if the compiler knows the option.
WISHES: dict[str, Options] = {
    "cpu": {
        "xla_cpu_prefer_vector_width": 512,  # 10-20 % on AVX-512
        "xla_backend_optimization_level": 2,  # compiles in two thirds of the time of 3, to programs as fast
        "xla_cpu_experimental_ynn_fusion_type": "",  # a call for each sum: ten times slower beyond 256 slots
    }
}


_TURN = threading.Lock()


def compiled(function: Callable, options: Options | None = None) -> jax.stages.Wrapped:
    """Return `jax.jit(function)`, whose program holds copies of the NumPy arrays that the function encloses.

    JAX lets such an array have one type only, as long as any program holds it: enclosed by a program in float32, the
    array itself would stay float32 in the next one, in float64.
    """

    @functools.wraps(function)
    def program(*args):
        traced, shape = trace(function, *args)
        copied = [np.array(x) if isinstance(x, np.ndarray) else x for x in traced.consts]
        outputs = run(Closed(traced.jaxpr, copied), *jax.tree.leaves(args))
        happened("program", function.__name__)
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    jitted = jax.jit(program, compiler_options=(options or {}) | dict(current().compiler))
    if _cache.folder is None:
        return jitted

    @functools.wraps(function)
    def call(*args):
        with kept_in_cache():
            return jitted(*args)

    call.lower = jitted.lower  # pyright: ignore[reportFunctionMemberAccess]
    return call  # pyright: ignore[reportReturnType]


@dataclass
class _Cache:
    """The folder given to `cache`, the settings that JAX had before, and the number of `kept_in_cache` contexts now."""

    folder: str | None = None
    users_folder: str | None = None
    users_seconds: float = 1.0
    inside: int = 0


_cache, _lock = _Cache(), threading.Lock()
_FOLDER, _SECONDS = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"


def cache(folder: str | os.PathLike[str] | None) -> None:
    """Write the programs that jaxfit compiles into a folder, from which later processes read them.

    The folder becomes that of JAX's persistent compilation cache, which keeps what took a second or more to compile;
    of jaxfit's programs, few of which take so long, it keeps all. What else it keeps is up to JAX's own settings,
    which stay as they are. A second process then traces its programs, but does not compile them. Call it before the
    first fit: what was run before is not written. A damaged file costs a warning of JAX and the time to compile its
    program, in every process until it is deleted.

    Args:
      folder: Where; it is made if it is not there. None for the folder that JAX had before, if any, and its own rule.

    Raises:
      TypeError: If it is no path.
      OSError: If it cannot be made.

    Example:
      >>> jf.cache("programs")
      >>> x = np.linspace(0, 1, 9)
      >>> fit = jf.curve_fit(jf.models.line, {"w": 1.0, "b": 0.0}, (x, 2 * x + 1))
      >>> jf.cache(None)
    """
    from jax.experimental.compilation_cache import compilation_cache

    if folder is not None and not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"cache: folder is {folder!r}, but it must be a path or None, as in jf.cache('programs')")
    if folder is not None:
        folder = os.path.abspath(folder)
        Path(folder).mkdir(parents=True, exist_ok=True)
    with _lock:
        if _cache.folder is None:
            _cache.users_folder = getattr(jax.config, _FOLDER)
        _cache.folder = folder
        jax.config.update(_FOLDER, _cache.users_folder if folder is None else folder)
        compilation_cache.reset_cache()  # of the other folder


@contextlib.contextmanager
def kept_in_cache() -> Iterator[None]:
    """Keep programs in the folder of `cache`, if there is one, however quickly they compile, inside of the context."""
    with _lock:
        active = _cache.folder is not None
        if active and not _cache.inside:
            _cache.users_seconds = getattr(jax.config, _SECONDS)
            jax.config.update(_SECONDS, 0.0)
        _cache.inside += active
    try:
        yield
    finally:
        with _lock:
            _cache.inside -= active
            if active and not _cache.inside:
                jax.config.update(_SECONDS, _cache.users_seconds)


def compiled_for_lanes(program: jax.stages.Lowered, platform: str) -> jax.stages.Compiled:
    """Compile a program of many lanes."""
    wanted: Options = {**SUMS.get(platform, {}), **WISHES.get(platform, {}), **dict(current().compiler)}
    try:  # without asking first what the compiler knows, by programs of its own
        return program.compile(wanted)
    except jax.errors.JaxRuntimeError:
        return program.compile(compiler_options(platform))


def compiler_options(platform: str) -> Options:
    """Return the options for programs of many lanes: those of `WISHES` that this version of XLA knows."""
    wishes = WISHES.get(platform, {})
    return SUMS.get(platform, {}) | known_options(tuple(wishes.items())) | dict(current().compiler)


@functools.cache
def known_options(options: tuple[tuple[str, Any], ...]) -> Options:
    """Return those of the compiler's options that this version of XLA knows."""
    known, program = {}, jax.jit(lambda x: x).lower(0.0)
    for name, value in options:
        try:
            program.compile({name: value})
            known[name] = value
        except jax.errors.JaxRuntimeError:
            continue
    return known


def turn_of(program: jax.stages.Lowered, device: Device) -> contextlib.AbstractContextManager:
    """Return what a call of a program waits for: nothing, or the end of every other such call.

    Before version 0.12 of jaxlib, LAPACK's part of a program is cut in pieces for the threads of a CPU, and the thread
    that cuts it waits for them. Where two programs run at once on two cores, both threads may wait for ever.
    """
    waits = jax.__version_info__ < (0, 12) and device.platform == "cpu" and "@lapack_" in program.as_text()
    return _TURN if waits else contextlib.nullcontext()


def worker_devices() -> list[Device]:
    """Return the device of each worker: each device once, or the CPU once for each core that this process may use."""
    devices, count = jax.local_devices(), current().workers
    if count is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = cores if len(devices) == 1 and devices[0].platform == "cpu" else len(devices)
    return [devices[i % len(devices)] for i in range(count)]


if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr


def fast_sums(function: Callable, *, joint: bool = True) -> Callable:
    """Return the function with its sums rewritten; compile the result.

    Sums are joined if they are over the same axes of arrays that are computed, entry by entry, from common arrays, and
    none depends on another. The order of addition changes, and so may last digits. Sums inside of a loop in the
    function stay as they are. The result can be mapped with `vmap`; its sums cannot be differentiated.

    Args:
      function: Pure.
      joint: Whether sums are joined, if the settings allow it. XLA does not vectorize a loop of many sums in every
        program, and fuses those of some lanes without a rewrite.
    """
    if jax.default_backend() != "cpu":
        return function

    @functools.wraps(function)
    def program(*args):
        jaxpr, shape = trace(function, *args)
        return jax.tree.unflatten(jax.tree.structure(shape), _evaluate(jaxpr, jax.tree.leaves(args), joint))

    return program


def _evaluate(program: ClosedJaxpr, leaves: Sequence[Array], joint: bool) -> Sequence[Array]:
    listing: Listing[None] = inline(program, lambda operation, inner, scope: _has_sums(operation))
    groups = _groups(needed(listing.rows, listing.results), joint and current().joint_sums)
    if program.effects or not any(map(_is_to_change, groups)):
        return run(program, *leaves)
    values = listing.constants | dict(zip(listing.inputs, leaves, strict=True))
    for group in groups:
        outputs = _sum(group, values) if _is_sum(group[0]) else group[0].operation(*_inputs(group, values))
        values.update(zip((number for row in group for number in row.outputs), outputs, strict=True))
    return [values[number] for number in listing.results]


def _inputs(group: Sequence[ListedOperation], values: Mapping[int, Array]) -> list[Array]:
    return [values[number] for row in group for number in row.inputs]


def _has_sums(operation: Operation) -> bool:
    """Return whether an operation is an inner `jit` that contains sums; others stay calls, which compile faster."""
    inner = operation.inner(JITS)
    return inner is not None and any(o.name == "reduce_sum" or _has_sums(o) for o in operations(inner))


def _groups(rows: Sequence[ListedOperation], joint: bool) -> list[list[ListedOperation]]:
    """Return the rows in an order in which they can run, with the sums that can be joined in one group.

    The depth of a value is the largest number of sums on a path to it, so that sums of equal depth do not depend on
    each other.
    """
    family, depth = _families(rows), dict[int, int]()
    groups: dict[tuple[Any, ...], list[ListedOperation]] = {}
    for number, row in enumerate(rows):
        deep = max((depth.get(value, 0) for value in row.inputs), default=0)
        key: tuple[Any, ...] = (deep, False, number)
        if summing := _is_sum(row):
            (value,), (aval,) = row.inputs, row.operation.operands
            kind = family[value], aval.shape, aval.dtype.name, row.operation.params["axes"]
            key = (deep, True, *kind) if joint else (deep, True, number)
        groups.setdefault(key, []).append(row)
        depth |= dict.fromkeys(row.outputs, deep + summing)
    return [groups[key] for key in sorted(groups, key=lambda key: key[: 3 - key[1]])]


def _families(rows: Sequence[ListedOperation]) -> dict[int, int]:
    """Return for each value a representative of the values that are computed entry by entry from common ones."""
    above: dict[int, int] = {}

    def eldest(value: int) -> int:
        while above.setdefault(value, value) != value:
            value = above[value]
        return value

    for row in rows:
        for result, output in zip(row.operation.results, row.outputs, strict=True):
            for operand, read in zip(row.operation.operands, row.inputs, strict=True):
                if operand.shape == result.shape:
                    above[eldest(read)] = eldest(output)
    return {value: eldest(value) for row in rows for value in (*row.inputs, *row.outputs)}


def _is_sum(row: ListedOperation) -> bool:
    operation = row.operation
    if operation.name != "reduce_sum" or operation.literals[0] is not None:
        return False
    return jnp.issubdtype(operation.operands[0].dtype, jnp.floating)


def _is_to_change(group: Sequence[ListedOperation]) -> bool:
    return _is_sum(group[0]) and (len(group) > 1 or _count(group[0]) > current().sum_length)


def _count(row: ListedOperation) -> int:
    """Return how many numbers a sum adds."""
    (summand,) = row.operation.operands
    return math.prod(summand.shape[axis] for axis in row.operation.params["axes"])


def _sum(group: Sequence[ListedOperation], values: Mapping[int, Array]) -> Sequence[Array]:
    summands = _inputs(group, values)
    axes = group[0].operation.params["axes"]
    if _count(group[0]) <= current().sum_length:
        return _reduced(summands, axes)
    *others, first = sorted(axes)
    sums = _along(summands, first)
    for axis in reversed(others):
        sums = _along(_ended(sums), axis)
    return sums


def _along(summands: Sequence[Array], axis: int) -> Sequence[Array]:
    """Return the sums along one axis, of partial sums of `sum_length` numbers and of the rest."""
    shape, length = summands[0].shape, current().sum_length
    quotient, rest = divmod(shape[axis], length)
    if quotient == 0 or shape[axis] == length:
        return _reduced(summands, (axis,))
    cut = quotient * length
    split = (*shape[:axis], quotient, length, *shape[axis + 1 :])
    pieces = [jax.lax.slice_in_dim(x, 0, cut, axis=axis).reshape(split) for x in summands]
    sums = _along(_ended(_reduced(pieces, (axis + 1,))), axis)
    if not rest:
        return sums
    left = _reduced([jax.lax.slice_in_dim(x, cut, None, axis=axis) for x in summands], (axis,))
    return [a + b for a, b in zip(sums, left, strict=True)]


_ended = jax.lax.optimization_barrier  # keeps XLA from joining the partial sums into one long sum


def _reduced(summands: Sequence[Array], axes: tuple[int, ...]) -> Sequence[Array]:
    if len(summands) == 1:
        return [jnp.sum(summands[0], axes)]
    return jax.lax.reduce(tuple(summands), tuple(jnp.zeros((), x.dtype) for x in summands), _add, axes)


def lanes_in_one_pass() -> SideBySide | None:
    """Return how lanes share their work on a CPU: sums of several arrays in one loop, where that is faster."""
    if jax.default_backend() != "cpu":
        return None
    return SideBySide(functools.partial(_along, axis=1) if current().joint_sums else None, enclosing_nothing)


def _add(one: Sequence[Array], other: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
