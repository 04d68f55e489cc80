"""What fixes the bits of a result, in words that two processes can compare."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jaxlib
import numpy as np
import optax

from jaxfit.markers import is_key
from jaxfit.stores import digest

PyTree = Any
_ISA = ("fma", "avx", "avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve", "sve2")


def environment(precision: str) -> dict[str, str]:
    """The versions, the platform and the settings of JAX that a result depends on."""
    import jaxfit

    backend = jax.default_backend()
    found = {
        "jaxfit": jaxfit.__version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "optax": optax.__version__,
        "platform": backend,
        "device": jax.local_devices()[0].device_kind,
        "precision": precision,
        "PRNG": f"{jax.config.jax_default_prng_impl}, partitionable {jax.config.jax_threefry_partitionable}",
        "matmul precision": str(jax.config.jax_default_matmul_precision),
        "XLA_FLAGS": " ".join(sorted(f for f in os.environ.get("XLA_FLAGS", "").split() if not f.startswith(_APART))),
    }
    return found | ({"instructions": _instructions()} if backend == "cpu" else {})


_APART = ("--xla_force_host_platform_device_count", "--xla_dump")  # flags that change no bit


def _instructions() -> str:
    """The instruction set that programs are compiled for, as far as the system tells."""
    try:
        with open("/proc/cpuinfo") as lines:
            flags = next((line for line in lines if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        flags = []
    return " ".join([platform.machine(), *(flag for flag in _ISA if flag in flags)])


@functools.lru_cache(maxsize=64)
def program_digest(*lowered: Any) -> str:
    """Of programs that JAX has lowered: their text tells all but where in which file it was written."""
    return digest(*(program.as_text().encode() for program in lowered))


def describe(x: Any) -> str:
    """A number itself, or the digest of an array."""
    kind, values = _plain(x)
    if values.ndim == 0:
        return f"{kind} {values.item()!r}"
    return f"{kind} {values.shape} {_digest(values)}"


def values_digest(tree: PyTree, first: int) -> str:
    """Of the first rows of every array."""
    pairs = [_plain(x) for x in jax.tree.leaves(tree)]
    return digest(*(f"{kind} {x.shape[1:]} {_digest(x[:first])}\n".encode() for kind, x in pairs))


def _plain(x: Any) -> tuple[str, np.ndarray]:
    if is_key(x):
        return f"key ({jax.random.key_impl(x)})", np.asarray(jax.random.key_data(x))
    values = np.asarray(x)
    return values.dtype.name, values


def _digest(values: np.ndarray) -> str:
    return digest(values.tobytes())


def differences(old: Mapping[str, str], new: Mapping[str, str], ignored: Callable[[str], bool]) -> list[str]:
    """The fields that differ, each with both values; those that only `new` has may be ignored."""
    found = []
    for name in [*old, *(name for name in new if name not in old and not ignored(name))]:
        if old.get(name) != new.get(name):
            found.append(f"{name} was {old.get(name, 'absent')}, is now {new.get(name, 'absent')}")
    return found


def refuse(what: str, found: list[str], remedy: str) -> None:
    """Raises unless there is no difference.

    Raises:
      ValueError: With the fields that differ.
    """
    if found:
        more = f"; and {len(found) - 6} more" * (len(found) > 6)
        raise ValueError(f"{what}: {'; '.join(found[:6])}{more}. {remedy}")
