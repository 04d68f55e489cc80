"""Many runs at once: `sweep` is `fit` with axes at its leaves."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeAlias

import jax
import numpy as np

from jaxfit.engine.dispatch import MemorySink, Report, check_executor, run_all, run_on
from jaxfit.engine.host import (
    Bar,
    OutOfMemory,
    interruption,
    pickled,
    progress_bar,
    terminating_as_interrupted,
    unpickled,
)
from jaxfit.engine.inspections import warn_of_overflow
from jaxfit.engine.parts import CAPTURED, Part, Plan, Task, all_tasks, pool_shape
from jaxfit.engine.pools import PoolShape, chunk_of
from jaxfit.engine.settings import current, happened
from jaxfit.problems import (
    STATUSES,
    Batches,
    Record,
    Status,
    Stop,
    Training,
    chosen_precision,
    precision_context,
    whole_number,
)
from jaxfit.problems.axes import is_traced
from jaxfit.problems.data import has_large_indices
from jaxfit.problems.dimensions import Dimension, choices_of, choose, mentions, read
from jaxfit.problems.marks import is_kept
from jaxfit.problems.messages import near_keywords
from jaxfit.problems.posing import check_schedule, pose
from jaxfit.problems.pruning import Pruning, as_text, check_pruning
from jaxfit.stores import open_dataset, resuming
from jaxfit.stores.files import claim
from jaxfit.stores.identity import compiler_options_text, hardware, versions
from jaxfit.stores.manifests import as_folder
from jaxfit.stores.resuming import Stored
from jaxfit.typing import KeyLike, OptimizerLike, PyTree
from jaxfit.verbs.grids import Grid, dataset, lane_numbers
from jaxfit.verbs.rungs import run_in_memory, run_in_store

StoreLike: TypeAlias = str | os.PathLike
Rerun: TypeAlias = Mapping[str, object] | Callable  # which lanes: values by name, or a function of the results


@near_keywords
def sweep(
    loss: Callable,
    params: PyTree,
    data: tuple = (),
    *,
    optimizer: OptimizerLike,
    steps: int = 1000,
    stop: Stop = Stop(),  # noqa: B008 (frozen)
    record: Record | None = None,
    batches: Batches | None = None,
    key: KeyLike | None = None,
    validation: tuple | None = None,
    progress: bool | None = None,
    precision: str | None = None,
    slots: int | None = None,
    store: StoreLike | None = None,
    executor: Executor | None = None,
    rerun: Rerun | None = None,
    rerun_of: StoreLike | None = None,
    prune: Pruning | None = None,
) -> Grid:
    """Run `fit` once for every combination of the axes at the leaves of its arguments.

    Axes of different names are combined as an outer product; axes of one name vary together. Axes of numbers run inside
    one compiled program; axes of program parts (the kind of optimizer, a width, a batch size) need one program per
    value.

    Args:
      loss, params, data, optimizer, steps, stop, batches, key, validation, progress, precision: As for `fit`, with
        `Axis` at any leaf and `Call` in place of params. The rows of an array on disk, such as one of
        `np.load(path, mmap_mode="r")`, are read as their blocks run.
      record: What the history holds; by default nothing.
      slots: Number of lanes that run side by side in the compiled program. The last bits of a result depend on it.
      store: A folder in which to keep the results, block by block as they finish. The same call resumes where it
        stopped, and computes nothing if all is done; values added at the end of an axis are computed alone, and with
        more `steps` lanes whose steps ran out go on, to the bits that they would have had at once, but not of a pruned
        sweep. A call that would give other bits is refused. `jf.open(store)` reads the results at any time.
      executor: A `concurrent.futures.Executor` whose workers run the blocks and write them to the store, which all
        workers must see: a `ProcessPoolExecutor` with the start method "spawn", or `client.get_executor()` of dask. The
        arguments are sent with every task, so make data larger than some megabytes by a `Call`, or read them in the
        loss's module.
      rerun: Which blocks to run again: those with lanes where a function of the results is true, such as
        `lambda results: results.status == jf.Status.NOT_FINITE`, or a dictionary of names with a value or a list of
        values for each, such as `{"status": 4, "rate": [1e-3, 1e-2]}`, all of which must hold. No other block is run.
      rerun_of: Another store, over the same axes, from whose results `rerun` chooses; for a second run in another
        precision.
      prune: A rule by which lanes are stopped early: `jf.Halving`, `jf.Hyperband`, `jf.Median`, or `jf.Rungs` of your
        own. At each of its rungs, after so many updates, lanes are ranked, and those that do not go on end as PRUNED
        with the step, loss and history so far. The others go on from where they stand: their results have the same bits
        as without pruning. Ties are broken by the number of the lane. NaN and infinity rank worst, and a lane that has
        failed at a rung, or stands above its start there, never goes on; if all have, the sweep ends there. A lane
        that has converged before is ranked with its last value.

    Returns:
      A `Grid`. A lane that fails says so in its own status and changes no other lane.

    Raises:
      ValueError, TypeError: For bad input, before anything compiles; also if there is no axis, if more than 64
        programs would be compiled, or if the results would not fit in memory.
      Interrupted, OutOfMemory: On Ctrl-C, and if a device runs out of memory; `result` holds the finished blocks.
      StoreError: If the store is in use by another process, or if something in it is damaged and cannot be restored.
      OSError: If the store cannot be written; blocks that were finished before are kept.

    Example:
      >>> rates = jf.Axis("rate", [0.1, 0.5, 1.5])
      >>> grid = jf.sweep(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(rates), steps=20)
      >>> [f"{float(loss):.3g}" for loss in grid.results.loss]
      ['0.0012', '0', '9.9e+12']
    """
    if store is None:
        for name, value in (("executor", executor), ("rerun", rerun), ("rerun_of", rerun_of)):
            if value is not None:
                raise ValueError(f"{name} was given, but no store, where results are kept; pass store='runs/a'")
    folder = None if store is None else as_folder(store)
    if executor is not None:
        check_executor(executor)
    arguments = {
        "loss": loss, "params": params, "data": data, "optimizer": optimizer, "steps": steps, "stop": stop,
        "record": record, "batches": batches, "key": key, "validation": validation, "precision": precision,
        "slots": slots, "prune": prune,
    }  # fmt: skip
    if prune is not None and (rerun is not None or rerun_of is not None):
        raise ValueError(
            "prune and rerun were both given, but which lanes go on depends on all others: rerun without prune what is "
            "to be run again, in another store"
        )
    plan = plan_sweep(**arguments)
    if folder is None:
        return _in_memory(plan, progress)
    plain = rerun is None and rerun_of is None
    chosen_lanes = None if plain else resuming.lanes_to_rerun(plan, folder, rerun, rerun_of)
    call = None if executor is None else pickled(arguments)
    with terminating_as_interrupted(), claim(folder):
        stages = [begin_store(plan, folder, clean=True, of=rerun_of)]

        def run(stored: Stored, tasks: list[Task], report: Report) -> bool:
            if executor is not None and call is not None:
                stage = (call, str(folder.absolute()), len(stored.manifest.stages))
                todo = [(*stage, task.part, task.segment, task.block) for task in tasks]
                return run_on(executor, run_elsewhere, todo, report)
            with resuming.writing_in_background(stored) as sink:
                return run_all(resuming.parts_until(stored, tasks[0]), tasks, report, sink)

        if chosen_lanes is None:
            tasks = resuming.missing_blocks(stages[0])
            early = _run(plan, _done(stages[0], tasks), progress, functools.partial(run_in_store, stages, tasks, run))
        else:
            tasks = resuming.blocks_to_rerun(stages[0], chosen_lanes)
            early = _run(plan, _done(stages[0], tasks), progress, functools.partial(_rerun, stages[0], tasks, run))
        return _result(resuming.grid_of(stages[-1]), early)


def _done(stored: Stored, tasks: Sequence[Task]) -> int:
    """Return how many lanes have come to their end."""
    if stored.manifest.stages or stored.plan.rungs:
        status = np.asarray(open_dataset(stored.folder, damaged="skip").status)
        return int((status != Status.NOT_RUN).sum())
    return stored.plan.size - sum(len(task.members) for task in tasks)


def _rerun(stored: Stored, tasks: list[Task], run: Callable, report: Report) -> bool:
    segments = sorted({task.segment for task in tasks})
    return any(run(stored, [task for task in tasks if task.segment == segment], report) for segment in segments)


def plan_sweep(
    loss: Callable, params: PyTree, data: tuple = (), *, optimizer: OptimizerLike, steps: int = 1000,
    stop: Stop = Stop(), record: Record | None = None, batches: Batches | None = None,  # noqa: B008
    key: KeyLike | None = None, validation: tuple | None = None, precision: str | None = None,
    slots: int | None = None, prune: Pruning | None = None, verb: str = "sweep",
) -> Plan:  # fmt: skip
    """Check the arguments of a sweep and return its plan; nothing is compiled."""
    precision = chosen_precision(precision, params, data, optimizer=optimizer)
    training = pose(
        loss, params, data, optimizer=optimizer, steps=steps, stop=stop, batches=batches, key=key, precision=precision,
        record=record or Record(what=()), validation=validation,
    )  # fmt: skip
    if has_large_indices(training.problem.data):
        warn_of_overflow(training.problem, precision)
    written = training.arguments() | {"params": params}  # in the order written, which JAX sorts
    dimensions = _with_kept(read(written, static_places=("batches", "steps", "record")), training.problem.params)
    slots = None if slots is None else whole_number("slots", slots)
    if is_traced(jax.tree.leaves(training)):
        raise TypeError(CAPTURED.replace("sweep", verb, 1))
    if not dimensions:
        raise ValueError(f"{verb} found no Axis in its arguments; put jf.Axis(name, values) at a leaf, or call fit")
    choices = choices_of(dimensions)
    sizes = {name: d.size for name, d in dimensions.items()}
    rungs = () if prune is None else check_pruning(prune, training, sizes)
    with precision_context(precision):
        parts = [_part(training, dimensions, choice, precision, keeps=prune is not None) for choice in choices]
    return Plan(training, dimensions, parts, precision, slots, prune, rungs)


def _in_memory(plan: Plan, progress: bool | None) -> Grid:
    check_memory(plan.parts)
    parts = [part.in_pool(pool_shape(part, plan.slots)) for part in plan.parts]
    memory, tasks = MemorySink(parts), all_tasks(parts)

    def run(report: Report) -> bool:
        if plan.prune is None:
            return run_all(parts, tasks, report, memory.keep)
        return run_in_memory(plan, parts, memory, report)

    early = _run(plan, 0, progress, run)
    finished = tuple(part.finished(part.lanes._replace(kept=None)) for part in memory.finished())
    table = functools.partial(dataset, plan.dimensions, finished, plan.training, identity(plan, parts))
    return _result(Grid(table, lane_numbers(plan.dimensions, finished), finished, plan.precision), early)


def begin_store(
    plan: Plan, folder: Path, *, clean: bool = False, write: bool = True, of: StoreLike | None = None
) -> Stored:
    """Return the store of a planned sweep. The caller holds its lock; `clean` requires an exclusive lock."""
    noted = {} if of is None else {"rerun_of": str(of)}
    return resuming.open_or_create(plan, folder, lambda parts: identity(plan, parts) | noted, clean=clean, write=write)


def run_elsewhere(call: bytes, folder: str, stages: int, part: int, segment: int, block: int) -> list[int]:
    """Run and write one block of a sweep in a worker of an executor; return counts of lanes by status."""
    stored = _session(call, folder, stages)
    counts = np.zeros(STATUSES, int)

    def report(more: np.ndarray) -> None:
        counts[:] += more

    task = resuming.task_at(stored, part, segment, block)
    run_all(resuming.parts_until(stored, task), [task], report, functools.partial(resuming.write_block, stored))
    return counts.tolist()


@functools.lru_cache(maxsize=2)
def _session(call: bytes, folder: str, stages: int) -> Stored:
    """Return what a worker keeps between blocks of a stage; raise if its bits would differ from those of the caller."""
    return begin_store(_planned(call), Path(folder), write=False)


@functools.lru_cache(maxsize=2)
def _planned(call: bytes) -> Plan:
    return plan_sweep(**unpickled(call))


def _run(plan: Plan, done: int, progress: bool | None, run: Callable[[Report], bool]) -> bool | OutOfMemory:
    """Run what is not done with a progress bar; return whether Ctrl-C ended it early, or an `OutOfMemory`."""
    with bar_of_lanes(plan, done, progress) as report:
        try:
            return run(report)
        except KeyboardInterrupt:  # between blocks, such as at a rung
            return True
        except OutOfMemory as error:
            return error


def _result(grid: Grid, early: bool | OutOfMemory) -> Grid:
    """Return the grid; if the sweep ended early, raise its error with the grid as `result`."""
    if early is False:
        return grid
    status = np.asarray(grid.results.status)
    done = int((status != Status.NOT_RUN).sum())
    how = f"after {done:,} of {status.size:,} lanes"
    kept = "" if grid.store is None else f", kept in {grid.store}"
    if isinstance(early, OutOfMemory):
        other = "" if grid.store is None else " and another store"
        raise OutOfMemory(f"{early}{other}. It stopped {how}{kept}; .result holds the grid so far", grid) from early
    on = kept and f"{kept}: the same call goes on from there"
    raise interruption(f"interrupted {how}{on}; .result holds the grid so far", grid)


@contextlib.contextmanager
def bar_of_lanes(plan: Plan, done: int, progress: bool | None) -> Iterator[Report]:
    """Show a progress bar over all lanes; yields the function that takes new counts of lanes by status."""
    bar = progress_bar(plan.size, progress, "lanes")
    if done:
        bar.update(done)
    try:
        yield tally(bar)
    finally:
        bar.close()


def tally(bar: Bar) -> Callable:
    """Return the function that updates the bar, which takes (STATUSES,) new counts of lanes by status."""
    outcomes = np.zeros(STATUSES, int)

    def report(counts):
        outcomes[:] += counts
        named = [f"{n:,} {s.name.lower().replace('_', ' ')}" for s in Status if (n := outcomes[s])]
        bar.set_postfix_str(", ".join(named), refresh=False)
        bar.update(int(counts.sum()))
        happened("lanes", int(counts.sum()))

    return report


def _with_kept(dimensions: dict[str, Dimension], params: PyTree) -> dict[str, Dimension]:
    """Return the dimensions of params as they were written with the checked values of those that hold what is kept."""
    mentioned = {(m.axis.name, m.path): m for m in mentions(params, path="params")}
    mentioned = {
        place: m for place, m in mentioned.items() if any(map(is_kept, jax.tree.leaves(m.axis.values, is_leaf=is_kept)))
    }
    if not mentioned:
        return dimensions
    return {
        name: d._replace(mentions=tuple(mentioned.get((m.axis.name, m.path), m) for m in d.mentions))
        for name, d in dimensions.items()
    }


def identity(plan: Plan, parts: Sequence[Part]) -> dict[str, str | list[int]]:
    """Return everything except the problem that determines the bits of the results."""
    return ({} if plan.prune is None else {"prune": as_text(plan.prune)}) | {
        "precision": parts[0].precision,
        "slots": sorted({part.shape.slots for part in parts}),
        "block": sorted({part.shape.lanes for part in parts}),
        "chunk": sorted({chunk_of(part.any_lane) for part in parts}),
        **hardware(),
        "compiler_options": compiler_options_text(),
        **versions(),
    }


def _part(
    training: Training, dimensions: dict[str, Dimension], choice: dict[str, int], precision: str, *, keeps: bool
) -> Part:
    """Return the lanes with these values on the static axes, checked."""
    chosen = choose(training, choice)
    dynamic = tuple(d for d in dimensions.values() if d.name not in choice)
    check_schedule(choose(chosen.optimizer, {d.name: 0 for d in dynamic}), int(np.asarray(training.steps)))
    records = int(np.asarray(training.steps)) // training.record.every + 1 if training.record.what else 0
    part = Part(choice, dynamic, chosen, precision, PoolShape(0, 0, records, keeps))
    part.needs  # noqa: B018 (which inspects the loss)
    return part


def check_memory(parts: Sequence[Part], share: int = 1) -> None:
    """Raise a ValueError if the results of all lanes, or of one in `share`, do not fit in memory."""
    sizes = [-(-part.size // share) for part in parts]
    need = sum(size * part.needs.results for part, size in zip(parts, sizes, strict=True))
    have = (current().free_bytes or _free_memory()) if need > current().unasked_bytes else None
    if have is not None and need > 0.8 * have:
        every = parts[0].training.record.every
        history = f"record less often than every {every} steps or fewer things, " if parts[0].shape.records else ""
        raise ValueError(
            f"the results of {sum(sizes):,} lanes take {need:,} bytes ({parts[0].needs.results:,} a lane), "
            f"but {have:,} bytes of memory are free: {history}sweep fewer lanes, or sweep in parts"
        )


def _free_memory() -> int | None:
    """Return the bytes of available memory, including the system's caches; None where the system does not tell."""
    try:
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
