"""Programs of a user's functions, and what the compiler is asked for."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from jaxfit.engine.jaxprs import Closed, run
from jaxfit.engine.settings import current, happened
from jaxfit.engine.tracing import trace

Options: TypeAlias = dict[str, Any]
Device: TypeAlias = Any  # jax.Device, which type checkers take for a variable
# By platform, for programs whose sums `sums` rewrites: without XLA's own, slow way to keep the digits of long sums.
SUMS: dict[str, Options] = {"cpu": {"xla_disable_hlo_passes": "tree_reduction_rewriter"}}
# By platform, for loops over many lanes, if the compiler knows the option.
WISHES: dict[str, Options] = {
    "cpu": {
        "xla_cpu_prefer_vector_width": 512,  # 10-20 % on AVX-512
        "xla_cpu_experimental_ynn_fusion_type": "",  # a call for each sum: ten times slower beyond 256 slots
    }
}


def compiled(function: Callable, options: Options | None = None) -> jax.stages.Wrapped:
    """Return `jax.jit(function)`, whose program holds copies of the NumPy arrays that the function encloses.

    JAX lets such an array have one type only, as long as any program holds it: enclosed by a program in float32, the
    array itself would stay float32 in the next one, in float64.
    """

    @functools.wraps(function)
    def program(*args):
        traced, shape = trace(function, *args)
        own = [np.array(x) if isinstance(x, np.ndarray) else x for x in traced.consts]
        found = run(Closed(traced.jaxpr, own), *jax.tree.leaves(args))
        happened("program", function.__name__)
        return jax.tree.unflatten(jax.tree.structure(shape), found)

    jitted = jax.jit(program, compiler_options=options)
    if _cache.folder is None:
        return jitted

    @functools.wraps(function)
    def call(*args):
        with kept():
            return jitted(*args)

    call.lower = jitted.lower  # pyright: ignore[reportFunctionMemberAccess]
    return call  # pyright: ignore[reportReturnType]


@dataclass
class _Cache:
    """What `cache` was told, what JAX was told before, and how many calls are inside of `kept` now."""

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
def kept() -> Iterator[None]:
    """Inside, programs go to the folder of `cache` however quickly they compile, if there is one."""
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


@functools.cache
def compiler_options(platform: str) -> Options:
    """Return the options for programs of many lanes: those of `WISHES` that this version of XLA knows."""
    known = {}
    for name, value in WISHES.get(platform, {}).items():
        try:
            jax.jit(lambda x: x).lower(0.0).compile({name: value})
            known[name] = value
        except jax.errors.JaxRuntimeError:
            continue
    return SUMS.get(platform, {}) | known


def worker_devices() -> list[Device]:
    """Return the device of each worker: each device once, or the CPU once for each core that this process may use."""
    devices, count = jax.local_devices(), current().workers
    if count is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = cores if len(devices) == 1 and devices[0].platform == "cpu" else len(devices)
    return [devices[i % len(devices)] for i in range(count)]
