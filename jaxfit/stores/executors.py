"""Run blocks on the workers of any `concurrent.futures.Executor`: each task sends the call and returns counts."""

from __future__ import annotations

import concurrent.futures as futures
import io
import pickle
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxfit.engine.dispatch import Report
from jaxfit.problems.axes import is_key

AHEAD = 64  # tasks submitted at a time
PATIENCE = 3  # times in a row that workers may die before a block is done


def check_executor(executor: object) -> None:
    """Refuse an object that cannot run blocks.

    Raises:
      TypeError: If it is no executor.
      ValueError: If its workers would be forks of this process, in which JAX hangs.
    """
    if not isinstance(executor, futures.Executor):
        remedy = "client.get_executor()" if hasattr(executor, "get_executor") else "ProcessPoolExecutor(...)"
        raise TypeError(
            f"executor is {type(executor).__name__}, but it must be a concurrent.futures.Executor; pass {remedy}"
        )
    context = getattr(executor, "_mp_context", None)
    if context is not None and context.get_start_method() == "fork":
        raise ValueError(
            "executor starts its workers by fork, and JAX hangs in a fork of a process that has used it; pass "
            'ProcessPoolExecutor(..., mp_context=multiprocessing.get_context("spawn"))'
        )


def packed(arguments: Mapping[str, object]) -> bytes:
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


def unpacked(content: bytes) -> dict[str, Any]:
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


def run_on(executor: futures.Executor, function: Callable, tasks: Sequence[tuple], report: Report) -> bool:
    """Call a function for each task on the workers of an executor.

    Args:
      executor: It stays open. A process pool whose worker died is replaced by one like it.
      function: Returns counts.
      tasks: Its arguments, for each task.
      report: Called with the counts of each task.

    Returns:
      Whether Ctrl-C ended it early; tasks under way are then finished.

    Raises:
      RuntimeError: If workers die again and again.
    """
    left = deque(tasks)
    running: dict[futures.Future, tuple] = {}
    own, deaths = executor, 0
    try:
        while True:
            try:
                while left and len(running) < AHEAD:
                    running[own.submit(function, *left[0])] = left[0]
                    left.popleft()
                if not running:
                    return False
                done, _ = futures.wait(running, timeout=60.0, return_when=futures.FIRST_COMPLETED)
                for future in done:
                    counts = future.result()
                    del running[future]
                    deaths = 0
                    report(np.asarray(counts))
            except futures.BrokenExecutor as error:
                deaths += 1
                if deaths > PATIENCE or type(executor) is not futures.ProcessPoolExecutor:
                    raise RuntimeError(
                        f"executor: its workers died{f' {deaths} times, and no block was done' * (deaths > 1)} "
                        f"({error}). What was finished is kept: make the same call again. A script that starts "
                        f'processes needs `if __name__ == "__main__":` around what it does'
                    ) from error
                left.extend(task for future, task in running.items() if not _finished(future))
                for counts in [future.result() for future in running if _finished(future)]:
                    report(np.asarray(counts))
                running.clear()
                if own is not executor:
                    own.shutdown(wait=False)
                own = type(executor)(
                    executor._max_workers, executor._mp_context, executor._initializer, executor._initargs
                )
    except KeyboardInterrupt:
        for future in running:
            future.cancel()
        futures.wait(running, timeout=600.0)
        return True
    except BaseException:
        for future in running:
            future.cancel()
        raise
    finally:
        if own is not executor:
            own.shutdown(cancel_futures=True)


def _finished(future: futures.Future) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
