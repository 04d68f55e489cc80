"""Programs of a user's functions, and what the compiler is asked for."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
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

    return jax.jit(program, compiler_options=options)


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
