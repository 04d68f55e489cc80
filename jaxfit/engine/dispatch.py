"""Run blocks of lanes on every core and device, or on the workers of any `concurrent.futures.Executor`.

A block is a fixed range of lanes, which one pool on one device runs to their ends: the compiler never splits it, so
that its bits do not depend on which worker runs it. A worker is a thread, one for each core of a CPU or for each other
device. It takes one block after another, and calls the pool's program for a short time again and again, between which
it reports, and stops if it has to. A worker of an executor gets the whole call and the numbers of its blocks, and
returns counts.
"""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import functools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxfit.engine.compiling import Device, compiled, compiled_for_lanes, kept_in_cache, turn_of, worker_devices
from jaxfit.engine.host import out_of_memory_told
from jaxfit.engine.inspections import layout_of
from jaxfit.engine.loops import blank
from jaxfit.engine.parts import FinishedPart, Part, Task, neighbors, spec_of
from jaxfit.engine.pools import Lanes, Pool, PoolShape, pool_like, read_pool, run_pool
from jaxfit.engine.settings import current, happened
from jaxfit.engine.tracing import Structure
from jaxfit.problems import STATUSES, Status, precision_context
from jaxfit.typing import PyTree

Report = Callable[[np.ndarray], None]
Sink = Callable[[Task, Lanes], None]


class BlockPrograms(NamedTuple):
    """The program of a block, lowered and compiled once for each device."""

    run: jax.stages.Wrapped  # (leaves, columns, pool, real, chunks) -> (Pool, counts)
    pool: Pool  # its shapes
    blank: dict[Device, Pool]  # by device: a pool to start with, if it is small
    lowered: dict[Device, jax.stages.Lowered]  # by device
    compiled: dict[Device, jax.stages.Compiled]  # by device
    turns: dict[Device, contextlib.AbstractContextManager]  # by device: what a call waits for
    lock: threading.Lock
    pace: list[float]  # [seconds a chunk takes], once measured

    def lower(self, device: Device, leaves: list, columns: dict[str, PyTree]) -> None:
        """Trace the program for a device, with the settings of JAX in the calling thread."""
        there = jax.sharding.SingleDeviceSharding(device)
        spec = functools.partial(jax.tree.map, lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there))
        arguments = spec((leaves, columns, self.pool, np.int32(0), np.int32(0)))
        self.lowered[device] = self.run.lower(*arguments)

    def compile(self, device: Device) -> jax.stages.Compiled:
        with self.lock:
            if device not in self.compiled:
                with kept_in_cache():
                    self.compiled[device] = compiled_for_lanes(self.lowered[device], device.platform)
                self.turns[device] = turn_of(self.lowered[device], device)
            return self.compiled[device]

    def blank_pool(self, device: Device) -> Pool:
        """Return a pool that loads the first lanes of a block next."""
        if device in self.blank:
            return self.blank[device]
        pool = jax.tree.map(blank, self.pool)
        if sum(x.nbytes for x in jax.tree.leaves(pool)) <= current().idle_pool_bytes:
            self.blank[device] = pool = jax.device_put(pool, device)
        return pool


@functools.lru_cache(maxsize=64)
def _block_programs(
    structure: Structure, shapes: tuple, columns: tuple, shape: PoolShape, x64: bool, settings: tuple
) -> BlockPrograms:
    template = functools.partial(jax.tree.unflatten, structure)
    layout = layout_of(structure, shapes, columns, x64)
    assert layout is not None  # or it would have been refused

    def running(leaves, columns, pool, real, chunks):
        return run_pool(template(leaves), columns, pool, real, chunks, layout, shape)

    like = pool_like(template([jax.ShapeDtypeStruct(*x) for x in shapes]), layout, shape)
    return BlockPrograms(compiled(running), like, {}, {}, {}, {}, threading.Lock(), [])


def block_programs_of(part: Part, devices: Sequence[Device]) -> BlockPrograms:
    """Return the program of a part, lowered for the devices."""
    structure, leaves, columns = part.template
    shapes = tuple((x.shape, x.dtype) for x in leaves)
    programs = _block_programs(
        structure, shapes, spec_of(columns), part.shape, jax.config.jax_enable_x64, current().of_programs
    )
    for device in devices:
        if device not in programs.lowered:
            programs.lower(device, leaves, part.columns_like())
    return programs


def run_all(parts: Sequence[Part], tasks: Sequence[Task], report: Report, keep: Sink) -> bool:
    """Run blocks of lanes.

    Args:
      parts: The parts that the tasks name, all in one precision.
      tasks: The blocks.
      report: Called in this thread with (STATUSES,) counts of lanes by status whenever there are more of them.
      keep: Called with each block's results when it is done, by the worker that ran it.

    Returns:
      Whether Ctrl-C ended it early.

    Raises:
      OutOfMemory: Of a device; the results of other blocks have been kept.
    """
    if not tasks:
        return False
    precision = parts[0].precision
    waiting, team = iter(tasks), worker_devices()[: len(tasks)]
    with precision_context(precision):
        programs = {i: block_programs_of(parts[i], team) for i in sorted({task.part for task in tasks})}
    stop, lock = threading.Event(), threading.Lock()

    def work(device: Device, tell: Report) -> None:
        with precision_context(precision):  # a setting of each thread
            number, leaves, pools = -1, [], []  # of the last part: what its lanes share, put on the device once; a pool
            for task in _taking(waiting, lock, stop):
                part = parts[task.part]
                if task.part != number:
                    number, leaves, pools = task.part, _put_once(part.template.leaves, device, tasks), []
                happened("block", task.members)
                with out_of_memory_told(_advice(part)):
                    lanes = _run_block(part, programs[task.part], leaves, task, device, pools, stop, tell)
                if lanes is None:
                    break
                keep(task, lanes)

    return _alone(work, team[0], report, stop) if len(team) == 1 else _side_by_side(work, team, report, stop)


def _advice(part: Part) -> str:
    """Return what to change where a pool takes more memory than there is."""
    slots = part.shape.slots
    need = f"{slots:,} lanes side by side, each working on some {part.needs.working:,} bytes"
    if slots > 1:
        return f"{need}; pass slots={max(1, slots // 4)}"
    return f"{need}; make the loss smaller: batches=jf.Batches(size), or jax.checkpoint around a part of it"


def _alone(work: Callable, device: Device, report: Report, stop: threading.Event) -> bool:
    """Work in the calling thread; return whether Ctrl-C ended it."""

    def tell(counts):
        try:
            report(counts)
        except KeyboardInterrupt:  # of a block that may be finished, and is then kept
            stop.set()

    try:
        work(device, tell)
    except KeyboardInterrupt:
        return True
    return stop.is_set()


def _side_by_side(work: Callable, team: Sequence[Device], report: Report, stop: threading.Event) -> bool:
    """Work in a thread for each device, and report in the calling one; return whether Ctrl-C ended it."""
    news: queue.SimpleQueue = queue.SimpleQueue()

    def worker(device):
        try:
            work(device, news.put)
            news.put(None)
        except BaseException as error:  # raised in the calling thread
            news.put(error)

    threads = [threading.Thread(target=worker, args=(device,), daemon=True) for device in team]
    interrupted, failure, working = False, None, len(threads)
    try:
        for thread in threads:
            thread.start()
        while working:
            try:
                message = news.get(timeout=60.0)
                if message is None or isinstance(message, BaseException):
                    working -= 1
                    failure = failure or message
                    stop.set() if message is not None else None
                elif not interrupted:
                    report(message)
            except queue.Empty:
                continue
            except KeyboardInterrupt:
                interrupted = True
                stop.set()
    except KeyboardInterrupt:  # between two lines of the loop, or before it
        interrupted = True
    finally:
        stop.set()
        interrupted |= _ended(threads)
    if failure is not None:
        raise failure
    return interrupted


def _ended(threads: Sequence[threading.Thread]) -> bool:
    """Wait for threads, of which one that outlived the interpreter would bring it down; return whether Ctrl-C came."""
    interrupted = False
    while True:
        try:
            for thread in threads:
                if thread.is_alive():
                    thread.join()
            return interrupted
        except KeyboardInterrupt:
            interrupted = True


def _put_once(leaves: list, device: Device, blocks: Sequence[Task]) -> list:
    """Put leaves on the device; of a few blocks, small ones get there faster with each call."""
    size = sum(x.nbytes for x in leaves if isinstance(x, np.ndarray))
    return leaves if size * len(blocks) < 2**20 and len(blocks) <= 8 else jax.device_put(leaves, device)


def _taking(tasks: Iterator[Task], lock: threading.Lock, stop: threading.Event) -> Iterator[Task]:
    while not stop.is_set():
        with lock:
            task = next(tasks, None)
        if task is None:
            return
        yield task


def _run_block(
    part: Part,
    programs: BlockPrograms,
    leaves: list,
    task: Task,
    device: Device,
    pools: list[Pool],
    stop: threading.Event,
    tell: Report,
) -> Lanes | None:
    """Run one block to its end; return None if it was stopped before. `pools` has the pool of the last block."""
    running = programs.compile(device)
    columns, real = part.columns(task.members), np.int32(len(task.members))
    pool, reported = _reset(pools.pop()) if pools else programs.blank_pool(device), np.zeros(STATUSES, np.int32)
    earlier = None if task.earlier is None else task.earlier()
    if earlier is not None:
        pool = _going_on(pool, programs.pool, earlier, task.since)
    while True:
        chunks = int(max(1, current().block_seconds / programs.pace[0])) if programs.pace else 64
        began = time.perf_counter()
        with programs.turns[device]:
            pool, counts = running(leaves, columns, pool, real, np.int32(min(chunks, 2**30)))
            counts = np.array(counts)
        left = int(counts[Status.NOT_RUN])
        if left:
            programs.pace[:] = [(time.perf_counter() - began) / chunks]
        counts[Status.NOT_RUN] = 0
        tell(counts - reported)
        reported = counts
        if not left:
            pools.append(pool)
            lanes = read_pool(pool, len(task.members), part.shape, part.training.record.every)
            return lanes if earlier is None else _with_records(lanes, earlier, task.since // part.training.record.every)
        if stop.is_set():
            return None


def _reset(pool: Pool) -> Pool:
    """Return a finished pool, changed so that it loads the first lanes of the next block."""
    results = pool.results._replace(status=np.zeros(pool.results.status.shape, np.int32))
    since = None if pool.since is None else np.int32(0)
    return pool._replace(following=np.int32(0), since=since, suspect=np.False_, results=results)


def _going_on(pool: Pool, like: Pool, earlier: Lanes, since: int) -> Pool:
    """Return a pool that has run nothing, changed so that its lanes go on from their earlier results."""

    def filled(spec, x):
        column = np.zeros(spec.shape, spec.dtype)
        column[: len(x)] = x
        return column

    names = "params", "start_loss", "best", "kept"
    columns = {name: jax.tree.map(filled, getattr(like.results, name), getattr(earlier, name)) for name in names}
    return pool._replace(since=np.int32(since), results=pool.results._replace(**columns))


def _with_records(lanes: Lanes, earlier: Lanes, count: int) -> Lanes:
    """Return the results of lanes with the records from before they went on."""
    for x, before in zip(jax.tree.leaves(lanes.rows), jax.tree.leaves(earlier.rows), strict=True):
        x[:, :count] = before[:, :count]
    return lanes


def empty_results(part: Part) -> Lanes:
    """Return the results of no lanes: their shapes and types, in the precision of the part."""
    with precision_context(part.precision):
        results = block_programs_of(part, []).pool.results
    rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct((0, part.shape.records, *x.shape[2:]), x.dtype), results.rows)
    return results._replace(rows=rows)


class MemorySink:
    """A sink that keeps the results of all lanes in memory."""

    def __init__(self, parts: Sequence[Part]):
        self.parts, self.lock = parts, threading.Lock()
        self.results: list[Lanes | None] = [None] * len(parts)
        self.done = [np.zeros(part.size, bool) for part in parts]

    def keep(self, task: Task, lanes: Lanes) -> None:
        size = self.parts[task.part].size
        with self.lock:
            if len(task.members) == size:  # all at once
                self.results[task.part] = lanes
            else:
                results = self.results[task.part] = self.results[task.part] or _room(size, lanes)
                where = neighbors(task.members)
                for all, block in zip(jax.tree.leaves(results), jax.tree.leaves(lanes), strict=True):
                    all[where] = block
            self.done[task.part][task.members] = True  # only now: Ctrl-C may come in between

    def finished(self) -> list[FinishedPart]:
        """Return the parts with their results: NaN, or 0, of lanes that have not run."""
        return [
            part.finished(self._filled(part, found, done))
            for part, found, done in zip(self.parts, self.results, self.done, strict=True)
        ]

    @staticmethod
    def _filled(part: Part, lanes: Lanes | None, done: np.ndarray) -> Lanes:
        if lanes is None:
            like = jax.tree.map(lambda x: np.empty((0, *x.shape[1:]), x.dtype), empty_results(part))
            lanes = _room(part.size, like)
        if not done.all():
            for x in jax.tree.leaves(lanes):
                x[~done] = np.nan if x.dtype.kind == "f" else 0
        return lanes


def _room(size: int, like: Lanes) -> Lanes:
    """Return arrays for the results of lanes, laid out in memory as those of some."""
    return jax.tree.map(lambda x: np.empty_like(x, shape=(size, *x.shape[1:])), like)


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
    pool, deaths = executor, 0
    try:
        while True:
            try:
                while left and len(running) < AHEAD:
                    running[pool.submit(function, *left[0])] = left[0]
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
                if pool is not executor:
                    pool.shutdown(wait=False)
                pool = type(executor)(
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
        if pool is not executor:
            pool.shutdown(cancel_futures=True)


def _finished(future: futures.Future) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
