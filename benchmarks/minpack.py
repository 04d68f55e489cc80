"""MINPACK's lmder in a loop in C, compiled when it is wanted: what a C programmer would write for many small fits."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.loop import NotBuilt, cores

SOURCE = Path(__file__).with_name("minpack.c")
FLAGS = ("-O3", "-march=native", "-ffast-math", "-fPIC", "-c")
TOLERANCE = 1.49012e-8  # of the sum of squares and of the params, as SciPy's
ROUNDING = 1e-15  # the same where all digits are wanted


class Form(NamedTuple):
    """The model that `fit` of minpack.c fits."""

    decay: int = 0  # 1 for amplitude * exp(-rate * x), 2 for one with amplitude 1
    peaks: int = 0  # height * exp(-((x - center) / width)**2 / 2)
    level: int = 0  # coefficients of a polynomial, constant first
    spot: int = 0  # 1 for a round Gaussian of two coordinates over a level, alone


class Found(NamedTuple):
    """What the loop found."""

    params: np.ndarray  # (sets, k)
    errors: np.ndarray  # (sets, k) standard errors
    info: np.ndarray  # (sets,) int32: 1 to 4 if it converged
    calls: np.ndarray  # (sets,) int32: evaluations of the residuals


def build() -> Callable:
    """`fit` of minpack.c; it runs without Python's lock.

    Raises:
      NotBuilt: If there is no compiler or no library, with what to install.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotBuilt("no C compiler (cc) on this machine")
    with tempfile.TemporaryDirectory() as folder:
        part, library = Path(folder) / "minpack.o", Path(folder) / "minpack.so"
        # Linked without -ffast-math, which would have the whole process flush subnormal numbers to zero.
        for command in ([*FLAGS, "-o", part, SOURCE], ["-shared", "-o", library, part, "-lcminpack", "-lm"]):
            if subprocess.run([compiler, *command], capture_output=True).returncode:
                raise NotBuilt("minpack.c was not built: apt-get install libcminpack-dev")
        return ctypes.CDLL(str(library)).fit


def fit(
    loop: Callable, form: Form, x: np.ndarray, y: np.ndarray, start: np.ndarray, workers: int | None = None,
    tolerance: float = TOLERANCE,
) -> Found:  # fmt: skip
    """Fits of every set, on all cores unless told otherwise.

    Args:
      loop: What `build` returned.
      form: Of the model.
      x: (points,), of spots (points, 2)
      y: (sets, points)
      start: (k,) or (sets, k)
      workers: Threads.
      tolerance: Of the sum of squares and of the params.
    """
    (sets, points), k, workers = y.shape, start.shape[-1], workers or cores()
    x, y = (np.ascontiguousarray(v, np.float64) for v in (x, y))
    params = np.array(np.broadcast_to(start, (sets, k)), np.float64, order="C")
    found = Found(params, np.empty((sets, k)), np.empty(sets, np.int32), np.empty(sets, np.int32))

    def run(first: int, last: int) -> None:
        parts = [_address(v[first:last]) for v in found]
        data = _address(x), _address(y[first:last])
        loop(int(last - first), points, k, *form, *data, ctypes.c_double(tolerance), *parts)

    edges = np.linspace(0, sets, workers + 1).astype(int)
    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(run, edges[:-1], edges[1:]))
    return found


def check_digits(params: np.ndarray, found: Found, exact: Found, what: str) -> None:
    """Raise an AssertionError if the params (sets, k) are farther from the minimum than those that the loop found."""

    def far(p):  # in standard errors, (sets,)
        return np.abs((p - exact.params) / exact.errors).max(axis=1)

    for measure in (np.median, np.max):
        ours, theirs = measure(far(params)), measure(far(found.params))
        if not ours <= theirs:
            raise AssertionError(
                f"{what}: {measure.__name__} distance {ours:.1e} standard errors, of MINPACK {theirs:.1e}"
            )


def _address(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
