"""The process of a run: interruptions (Ctrl-C, SIGTERM, out of memory), the progress bar, calls for other processes."""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from jaxfit.engine.settings import current
from jaxfit.problems.axes import is_key


class Interrupted(KeyboardInterrupt):
    """A run that was ended by Ctrl-C; `result` holds what was finished.

    Example:
      >>> try:
      ...     raise jf.Interrupted("interrupted after 3 steps", result=None)
      ... except KeyboardInterrupt as stopped:
      ...     print(stopped, stopped.result)
      interrupted after 3 steps None
    """

    def __init__(self, message: str, result: object):
        super().__init__(message)
        self.result = result


def interruption(message: str, result: object) -> Interrupted:
    """Return the error that a verb raises after Ctrl-C; if it is not caught, the process exits with status 130."""
    _exit_as_after_ctrl_c()
    return Interrupted(message, result)


class OutOfMemory(MemoryError):
    """A run that a device had too little memory for; `result` holds what was finished, or None.

    Example:
      >>> try:
      ...     raise jf.OutOfMemory("the device has too little memory")
      ... except jf.OutOfMemory as failure:
      ...     print(failure.result)
      None
    """

    def __init__(self, message: str, result: object = None):
        super().__init__(message)
        self.result = result


@contextlib.contextmanager
def out_of_memory_told(advice: str) -> Iterator[None]:
    """Raise `OutOfMemory` with the advice if a device runs out of memory inside of the context."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        match = re.search("(?:RESOURCE_EXHAUSTED|Out of memory).*", str(error))
        if match is None:
            raise
        raise OutOfMemory(f"the device ran out of memory ({match[0].rpartition(': ')[2]}): {advice}") from error


def _exit_as_after_ctrl_c() -> None:
    """Make an uncaught `Interrupted` exit with status 130: Python does so for `KeyboardInterrupt` itself alone."""
    before = sys.excepthook
    if getattr(before, "after_ctrl_c", False):
        return

    def hook(kind, error, trace):
        before(kind, error, trace)
        if issubclass(kind, Interrupted):
            sys.exit(128 + signal.SIGINT)

    hook.after_ctrl_c = True  # pyright: ignore[reportFunctionMemberAccess]
    sys.excepthook = hook


@contextlib.contextmanager
def terminating_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM inside of the context as Ctrl-C; after the run has ended, send the signal on to the process."""
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return
    came = []

    def handler(number, frame):
        came.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handler)
    try:
        yield
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGTERM, before)
        if came:
            print(str(error) or "terminated before anything was finished", file=sys.stderr, flush=True)
            signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def stretches(total: int, most: int, every: int, pace: list[float]) -> Iterator[int]:
    """Yield the lengths of stretches of steps: a short one to learn the pace, then longer ones.

    Args:
      total: Steps to cover.
      most: Longest stretch; a multiple of the stride.
      every: The stride.
      pace: [seconds a step takes], kept up to date for the next run; empty at first, since the first stretch compiles.
    """
    done, limits = 0, current()
    most = min(most, max(every, (limits.stretch_steps or most) // every * every))
    while done < total:
        count = int(limits.stretch_seconds / pace[0]) if pace and pace[0] else 1000
        count = min(most, max(every, count // every * every), total - done)
        start = time.perf_counter()
        yield count
        pace[:] = [max((time.perf_counter() - start) / count, 1e-9) if pace else 0.0]
        done += count


def progress_bar(total: int, progress: bool | None, unit: str) -> Bar:
    """Return a tqdm bar on stderr; by default only where that is a terminal."""
    if progress if progress is not None else sys.stderr.isatty():
        from tqdm.auto import tqdm

        return tqdm(total=total, unit=f" {unit}", unit_scale=total >= 10_000, leave=False, mininterval=0.2)
    return _NoBar()


class Bar(Protocol):
    """What is used of a bar of tqdm."""

    n: float

    def update(self, n: float, /) -> object: ...

    def set_postfix_str(self, s: str, /, refresh: bool = True) -> object: ...

    def close(self) -> object: ...


class _NoBar:
    n = 0.0

    def update(self, n):
        pass

    def set_postfix_str(self, text, refresh=True):
        pass

    def close(self):
        pass


# Calls for other processes


def pickled(arguments: Mapping[str, object]) -> bytes:
    """Return the arguments of a call as bytes for another process; nothing is written to disk.

    Raises:
      TypeError: If one cannot travel, with its name.
    """
    try:
        return _dumps(dict(arguments))
    except _CANNOT:
        for name, value in arguments.items():
            try:
                _dumps(value)
            except _CANNOT as error:
                raise TypeError(
                    f"executor: {name} cannot travel to another process ({error}); define its functions with def at "
                    f"the top of a module, or install cloudpickle, which comes with dask"
                ) from error
        raise


def unpickled(content: bytes) -> dict[str, Any]:
    """Return the arguments that `pickled` made bytes of."""
    return pickle.loads(content)


_CANNOT = (pickle.PicklingError, AttributeError, TypeError, RecursionError)


def _dumps(value: object) -> bytes:
    try:
        import cloudpickle

        kind: Any = cloudpickle.Pickler
    except ImportError:
        kind = pickle.Pickler

    class Packer(kind):
        def reducer_override(self, obj):
            if is_key(obj):
                return _key, (np.asarray(jax.random.key_data(obj)), str(jax.random.key_impl(obj)))
            if isinstance(obj, jax.Array):  # which JAX there might narrow
                return np.asarray, (np.asarray(obj),)
            inherited = getattr(super(), "reducer_override", None)
            return NotImplemented if inherited is None else inherited(obj)

    file = io.BytesIO()
    Packer(file, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


def _key(data: np.ndarray, kind: str) -> jax.Array:
    return jax.random.wrap_key_data(jax.numpy.asarray(data), impl=kind)
