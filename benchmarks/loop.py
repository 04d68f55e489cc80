"""The C loop, compiled when it is wanted: how fast this machine can do the arithmetic."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("loop.c")
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
WIDTH = 64  # as in loop.c


class NotBuilt(RuntimeError):
    """There is no C loop on this machine; the message says why."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def build() -> Callable:
    """`descend(lanes, points, x, y, steps, rate, w, b, loss)` of loop.c; it runs without Python's lock.

    Raises:
      NotBuilt: If there is no compiler, or it fails.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotBuilt("no C compiler (cc) on this machine")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "loop.so"
        done = subprocess.run([compiler, *FLAGS, "-o", library, SOURCE], capture_output=True, text=True)
        if done.returncode:
            raise NotBuilt(f"cc {' '.join(FLAGS)} failed: {done.stderr.strip().splitlines()[-1:]}")
        return ctypes.CDLL(str(library)).descend


def descend(loop: Callable, own: dict, data: tuple, steps: int) -> dict:
    """Gradient descent of every lane on all cores; arguments and result as for the peers of `peers.py`."""
    lanes = len(own["rates"]["learning_rate"])
    share = -(-lanes // (WIDTH * cores())) * WIDTH  # lanes a core, whole blocks
    x, y = (np.ascontiguousarray(v, np.float32) for v in data)
    room = share * cores()
    rate, w, b = (_padded(v, room) for v in (own["rates"]["learning_rate"], own["params"]["w"], own["params"]["b"]))
    loss = np.empty(room, np.float32)

    def run(first: int) -> None:
        part = [_address(v[first : first + share]) for v in (rate, w, b, loss)]
        loop(share, len(x), _address(x), _address(y), steps, *part)

    with ThreadPoolExecutor(cores()) as threads:
        list(threads.map(run, range(0, room, share)))
    return {"params": {"w": w[:lanes], "b": b[:lanes]}, "loss": loss[:lanes]}


def _padded(values: np.ndarray, room: int) -> np.ndarray:
    return np.pad(values, (0, room - len(values)), mode="edge").astype(np.float32)


def _address(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
