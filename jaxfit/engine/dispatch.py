"""Blocks of lanes on every core and device.

A block is a fixed range of lanes, run to exhaustion by one pool on one device: never split by the compiler, so that its
bits do not depend on who runs it. A thread a core takes blocks in turn on a CPU, a thread a device elsewhere; each
drives its pool in short segments, after which it can be seen and stopped.
"""

from __future__ import annotations

import functools
import math
import operator
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.engine.compiling import compiled, compiler_options
from jaxfit.engine.counting import happened
from jaxfit.engine.host import out_of_memory_told
from jaxfit.engine.layouts import layout_of, spec_of
from jaxfit.engine.pools import Lanes, Pool, Shape, pool_like, read_pool, run_pool
from jaxfit.engine.settings import current
from jaxfit.problems.axes import Place
from jaxfit.problems.problems import STATUSES, Status, Training, precision_context
from jaxfit.problems.reading import Dimension

PyTree = Any


class Run(NamedTuple):
    """One program's share of a sweep, ready to run."""

    choice: dict[str, int]  # index along each static dimension
    dynamic: tuple[Dimension, ...]  # the other dimensions; the last one runs fastest
    training: Training  # with the static choice made, its numbers as the user gave them
    structure: Any  # of the training with places instead of axes
    leaves: list  # of it, in the precision
    columns: dict[str, PyTree]  # by place: values along its dimension
    records: int  # rows of history to keep
    lane_bytes: int  # of results
    working_bytes: int  # that one lane's step touches

    @property
    def template(self) -> Training:
        """The training of any lane, with places for the lanes' own values."""
        return jax.tree.unflatten(self.structure, self.leaves)

    @property
    def sizes(self) -> dict[str, int]:
        return {d.name: d.size for d in self.dynamic}

    @property
    def size(self) -> int:
        return math.prod(d.size for d in self.dynamic)

    def block(self, numbers: np.ndarray, length: int) -> dict[str, PyTree]:
        """The own values of the lanes `numbers`; the last one is repeated to fill the block."""
        numbers = np.concatenate([numbers, np.full(length - len(numbers), numbers[-1])])
        index = np.unravel_index(numbers, [d.size for d in self.dynamic]) if self.dynamic else ()
        along = {d.name: i for d, i in zip(self.dynamic, index, strict=True)}
        taken: dict[str, PyTree] = {"#": numbers.astype(np.int32)}  # a column also where there is no axis
        for key, values in self.columns.items():
            taken[key] = jax.tree.map(operator.itemgetter(along[Place(key).name]), values)
        return taken

    def block_like(self, length: int) -> dict[str, PyTree]:
        """The shapes of a block's own values."""

        def like(x):
            return jax.ShapeDtypeStruct((length, *x.shape[1:]), x.dtype)

        return {"#": jax.ShapeDtypeStruct((length,), np.int32), **jax.tree.map(like, self.columns)}


def shape_of_pool(run: Run, slots: int | None, workers: int) -> Shape:
    """How many lanes side by side, and how many in a block.

    On a CPU the working set of the slots should stay in a core's own cache; an accelerator wants thousands.
    """
    limits = current()
    if slots is None:
        room, least, most = (2**18, 8, limits.cpu_slots) if jax.default_backend() == "cpu" else (2**28, 256, 8192)
        slots = min(most, max(least, power_of_two(room // max(run.working_bytes, 1))))
        slots = min(slots, power_of_two_above(run.size))
    share = power_of_two_above(-(-run.size // workers))
    lanes = min(limits.block_lanes, limits.block_bytes // max(run.lane_bytes, 1))
    loads = max(lanes // slots, limits.block_loads)
    return Shape(slots, max(1, min(loads, -(-share // slots))) * slots, run.records)


def power_of_two(n: int) -> int:
    return 1 << max(n, 1).bit_length() - 1


def power_of_two_above(n: int) -> int:
    return 1 << (n - 1).bit_length()


class Programs(NamedTuple):
    """A block's program: lowered and compiled once for each device that takes part."""

    run: Any  # (leaves, columns, pool, real, chunks) -> (Pool, counts)
    pool: Pool  # its shapes
    blank: dict[Any, Pool]  # by device: a pool to start with, if it is small
    lowered: dict[Any, Any]  # by device
    compiled: dict[Any, Callable]  # by device
    lock: threading.Lock
    pace: list  # [seconds a chunk takes], once measured

    def lower(self, device: Any, leaves: list, columns: dict[str, PyTree]) -> None:
        """Traces it, in the thread of the caller, whose settings of JAX it takes on."""
        if device in self.lowered:
            return
        there = jax.sharding.SingleDeviceSharding(device)
        spec = functools.partial(jax.tree.map, lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there))
        arguments = spec((leaves, columns, self.pool, np.int32(0), np.int32(0)))
        self.lowered[device] = self.run.lower(*arguments)

    def compile(self, device: Any) -> Callable:
        with self.lock:
            if device not in self.compiled:
                self.compiled[device] = self.lowered[device].compile(compiler_options(device.platform))
            return self.compiled[device]

    def blank_pool(self, device: Any) -> Pool:
        """A pool that loads its first lanes next."""
        if device in self.blank:
            return self.blank[device]
        pool = jax.tree.map(_zeros, self.pool)
        if sum(x.nbytes for x in jax.tree.leaves(pool)) <= current().idle_pool_bytes:
            self.blank[device] = pool = jax.device_put(pool, device)
        return pool


@functools.lru_cache(maxsize=64)
def _programs(structure: Any, shapes: tuple, columns: tuple, shape: Shape, x64: bool, settings: tuple) -> Programs:
    template = functools.partial(jax.tree.unflatten, structure)
    layout = layout_of(structure, shapes, columns, x64)
    assert layout is not None  # or it would have been refused

    def running(leaves, columns, pool, real, chunks):
        return run_pool(template(leaves), columns, pool, real, chunks, layout, shape)

    like = pool_like(template([jax.ShapeDtypeStruct(*x) for x in shapes]), layout, shape)
    return Programs(compiled(running), like, {}, {}, {}, threading.Lock(), [])


def programs_of(run: Run, shape: Shape, devices: Sequence[Any]) -> Programs:
    """The program of a share, lowered for the devices."""
    leaves, columns = tuple((x.shape, x.dtype) for x in run.leaves), spec_of(run.columns)
    programs = _programs(run.structure, leaves, columns, shape, jax.config.jax_enable_x64, current().of_programs)
    for device in devices:
        programs.lower(device, run.leaves, run.block_like(shape.lanes))
    return programs


def worker_devices() -> list[jax.Device]:
    """Return the device of each worker: each device once, or the CPU once for each core that this process may use."""
    devices, count = jax.local_devices(), current().workers
    if count is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = cores if len(devices) == 1 and devices[0].platform == "cpu" else len(devices)
    return [devices[i % len(devices)] for i in range(count)]


class Task(NamedTuple):
    """A block to run."""

    run: int
    lanes: np.ndarray  # their numbers, as many as a block holds or fewer
    place: Any = None  # where its results are kept, for who keeps them


def all_tasks(runs: Sequence[Run], shapes: Sequence[Shape]) -> list[Task]:
    """Every lane of every share, in blocks of neighbors."""
    return [
        Task(i, np.arange(first, min(first + shape.lanes, run.size)))
        for i, (run, shape) in enumerate(zip(runs, shapes, strict=True))
        for first in range(0, run.size, shape.lanes)
    ]


class Gathered:
    """The results of each share in memory: NaN and NOT_RUN where nothing ran."""

    def __init__(self, runs: Sequence[Run], shapes: Sequence[Shape], precision: str):
        self.runs, self.shapes, self.precision, self.lock = runs, shapes, precision, threading.Lock()
        self.results: list[Any] = [None] * len(runs)
        self.kept = [np.zeros(run.size, bool) for run in runs]

    def keep(self, task: Task, lanes: Lanes) -> None:
        size = self.runs[task.run].size
        with self.lock:
            if len(task.lanes) == size:  # all at once
                self.results[task.run] = lanes
            else:
                if self.results[task.run] is None:
                    self.results[task.run] = _room(size, lanes)
                where = slice(task.lanes[0], task.lanes[0] + len(task.lanes))  # neighbors
                for all, part in zip(jax.tree.leaves(self.results[task.run]), jax.tree.leaves(lanes), strict=True):
                    all[where] = part
            self.kept[task.run][task.lanes] = True  # only now: Ctrl-C may come in between

    def _example(self, i: int) -> Lanes:
        with precision_context(self.precision):
            return example(self.runs[i], self.shapes[i])

    def all(self) -> list[Lanes]:
        for i, kept in enumerate(self.kept):
            if self.results[i] is None:
                like = jax.tree.map(lambda x: np.empty((0, *x.shape[1:]), x.dtype), self._example(i))
                self.results[i] = _room(self.runs[i].size, like)
            if not kept.all():
                for x in jax.tree.leaves(self.results[i]):
                    x[~kept] = np.nan if x.dtype.kind == "f" else 0
        return self.results


def run_all(
    runs: Sequence[Run],
    shapes: Sequence[Shape],
    tasks: Sequence[Task],
    precision: str,
    report: Callable,
    keep: Callable[[Task, Lanes], None],
) -> bool:
    """Runs blocks of lanes.

    Args:
      runs, shapes: The shares, and the pool of each.
      tasks: The blocks.
      precision: Of the runs; it is a setting of a thread, and each worker enters it.
      report: Called in this thread with (STATUSES,) counts of lanes by status whenever there are more of them.
      keep: Called with each block's results when it is done, by the worker who ran it.

    Returns:
      Whether Ctrl-C ended it early.

    Raises:
      OutOfMemory: Of a device; what other blocks gave has been kept.
    """
    if not tasks:
        return False
    waiting, team = iter(tasks), worker_devices()[: len(tasks)]
    with precision_context(precision):
        programs = {i: programs_of(runs[i], shapes[i], team) for i in sorted({task.run for task in tasks})}
    stop, lock = threading.Event(), threading.Lock()

    def work(device, tell):
        with precision_context(precision):
            there: dict[int, tuple[list, list]] = {}  # by run: what its lanes share, put on the device once; a pool
            for task in _taking(waiting, lock, stop):
                run, shape = runs[task.run], shapes[task.run]
                if task.run not in there:
                    there = {task.run: (_put_once(run.leaves, device, tasks), [])}
                leaves, pools = there[task.run]
                happened("block", task.lanes)
                with out_of_memory_told(_advice(run, shape)):
                    lanes = _run_block(run, shape, programs[task.run], leaves, task, device, pools, stop, tell)
                if lanes is None:
                    break
                keep(task, lanes)

    return _alone(work, team[0], report, stop) if len(team) == 1 else _side_by_side(work, team, report, stop)


def _advice(run: Run, shape: Shape) -> str:
    """What to change where a pool takes more memory than there is."""
    need = f"{shape.slots:,} lanes side by side, each working on some {run.working_bytes:,} bytes"
    if shape.slots > 1:
        return f"{need}; pass slots={max(1, shape.slots // 4)}"
    return f"{need}; make the loss smaller: batches=jf.Batches(size), or jax.checkpoint around a part of it"


def _alone(work: Callable, device: Any, report: Callable, stop: threading.Event) -> bool:
    """The work in the calling thread; whether Ctrl-C ended it."""

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


def _side_by_side(work: Callable, team: Sequence[Any], report: Callable, stop: threading.Event) -> bool:
    """The work in a thread for each device, reported in the calling one; whether Ctrl-C ended it."""
    news: queue.SimpleQueue = queue.SimpleQueue()

    def worker(device):
        try:
            work(device, news.put)
            news.put(None)
        except BaseException as error:  # raised in the calling thread
            news.put(error)

    threads = [threading.Thread(target=worker, args=(device,), daemon=True) for device in team]
    interrupted, failure, working = False, None, len(threads)
    for thread in threads:
        thread.start()
    try:
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
    finally:
        stop.set()
        for thread in threads:  # one that outlived the interpreter would bring it down
            thread.join()
    if failure is not None:
        raise failure
    return interrupted


def _put_once(leaves: list, device: Any, blocks: Sequence[Task]) -> list:
    """Leaves on the device; small ones of a few blocks go there faster with each call."""
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
    run: Run,
    shape: Shape,
    programs: Programs,
    leaves: list,
    task: Task,
    device: Any,
    pools: list[Pool],
    stop: threading.Event,
    tell: Callable,
) -> Lanes | None:
    """One block to its end; None if it was stopped before. `pools` has the last block's pool, which is used again."""
    running = programs.compile(device)
    columns, real = run.block(task.lanes, shape.lanes), np.int32(len(task.lanes))
    pool, told = _again(pools.pop()) if pools else programs.blank_pool(device), np.zeros(STATUSES, np.int32)
    while True:
        chunks = int(max(1, current().block_seconds / programs.pace[0])) if programs.pace else 64
        began = time.perf_counter()
        pool, counts = running(leaves, columns, pool, real, np.int32(min(chunks, 2**30)))
        counts = np.array(counts)
        left = int(counts[Status.NOT_RUN])
        if left:
            programs.pace[:] = [(time.perf_counter() - began) / chunks]
        counts[Status.NOT_RUN] = 0
        tell(counts - told)
        told = counts
        if not left:
            pools.append(pool)
            return read_pool(pool, len(task.lanes), shape, run.training.record.every)
        if stop.is_set():
            return None


def _again(pool: Pool) -> Pool:
    """A pool that has done its work as one that loads its first lanes next."""
    results = pool.results._replace(status=np.zeros(pool.results.status.shape, np.int32))
    return pool._replace(following=np.int32(0), suspect=np.False_, results=results)


def _zeros(like: jax.ShapeDtypeStruct) -> Any:
    return np.zeros(like.shape, like.dtype) if isinstance(like.dtype, np.dtype) else jnp.zeros(like.shape, like.dtype)


def _room(size: int, like: Lanes) -> Lanes:
    """Arrays for the results of lanes, laid out in memory as those of some."""
    return jax.tree.map(lambda x: np.empty_like(x, shape=(size, *x.shape[1:])), like)


def example(run: Run, shape: Shape) -> Lanes:
    """Shapes and kinds of what is known of each lane, for none of them; in the run's precision."""
    results = programs_of(run, shape, []).pool.results
    rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct((0, shape.records, *x.shape[2:]), x.dtype), results.rows)
    return results._replace(rows=rows)
