"""A sweep that runs in stages: at a rung lanes are ranked, and those that go on are laid out anew.

In a store every stage is a segment of its manifest, which is decided by what is there and written before it begins: a
sweep that was killed goes on inside of a stage. More steps of a finished store are one more stage.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxfit.engine.compiling import worker_devices
from jaxfit.engine.dispatch import MemorySink, Report, neighbors, run_all
from jaxfit.engine.loops import judges_steps
from jaxfit.engine.parts import FinishedPart, Part, Plan, Task, all_tasks, block_length
from jaxfit.engine.pools import Lanes, chunk_of, last_check
from jaxfit.engine.settings import happened
from jaxfit.problems import ENDED_WELL, STATUSES, Status
from jaxfit.problems.pruning import survivors
from jaxfit.stores.manifests import Manifest, blocks_of, with_stage
from jaxfit.stores.resuming import Stored, columns_of, missing_blocks, with_manifest
from jaxfit.verbs.grids import arrange, lanes_in


def run_in_memory(plan: Plan, parts: Sequence[Part], memory: MemorySink, report: Report) -> bool:
    """Run all lanes of a sweep, pruned at the rungs of its plan; return whether Ctrl-C ended it early."""
    steps, since = int(np.asarray(plan.training.steps)), 0
    there = np.ones([d.size for d in plan.dimensions.values()], bool)
    try:
        for number, step in enumerate([*plan.rungs, steps]):
            tasks = going_on(parts, memory, since) if since else all_tasks(parts)
            now = parts if step == steps else [part.until(step) for part in parts]
            if run_all(now, tasks, report if step == steps else _of_ended(report), memory.keep):
                return True
            if step < steps:
                there = rank(plan, number, memory.finished(), there)
                report(_prune(plan, parts, memory, there, step))
            since = step
    finally:
        for lanes in memory.results:
            if lanes is not None:
                lanes.status[(lanes.status == Status.OUT_OF_STEPS) & (lanes.steps < steps)] = Status.NOT_RUN
    return False


def going_on(parts: Sequence[Part], memory: MemorySink, since: int) -> list[Task]:
    """Return the lanes that stand at a rung, in blocks: small ones, so that every worker has some."""
    tasks, workers = [], len(worker_devices())
    for i, (part, lanes) in enumerate(zip(parts, memory.results, strict=True)):
        assert lanes is not None
        members = np.flatnonzero((lanes.status == Status.OUT_OF_STEPS) & (lanes.steps == since))
        length = block_length(part.shape, len(members), workers)
        for block, first in enumerate(range(0, len(members), length)):
            block_members = members[first : first + length]
            tasks.append(Task(i, block_members, 0, block, since, functools.partial(_rows, lanes, block_members)))
    return tasks


def _rows(lanes: Lanes, members: np.ndarray) -> Lanes:
    here = neighbors(members)
    return jax.tree.map(lambda x: x[here], lanes)


def run_in_store(
    stages: list[Stored], tasks: list[Task], run: Callable[[Stored, list[Task], Report], bool], report: Report
) -> bool:
    """Run all stages of a sweep; return whether Ctrl-C ended it early.

    Args:
      stages: With the store as it was opened; it gets one more whenever a stage begins.
      tasks: The blocks that it lacks.
      run: run(stored, tasks, report): runs blocks of one stage.
      report: Takes counts of lanes by status.
    """
    while True:
        stored = stages[-1]
        for segment in sorted({task.segment for task in tasks}):
            final = stored.maps[0].stage(segment).steps == int(np.asarray(stored.plan.training.steps))
            stage_tasks = [task for task in tasks if task.segment == segment]
            if run(stored, stage_tasks, report if final else _of_ended(report)):
                return True
        following, pruned = _next_stage(stored)
        if following is None:
            return False
        stages.append(with_manifest(stored, following))
        tasks = missing_blocks(stages[-1])
        happened("stage", len(stages))
        counts = np.zeros(STATUSES, int)
        counts[Status.PRUNED] = pruned
        report(counts)


def _next_stage(stored: Stored) -> tuple[Manifest | None, int]:
    """Return the manifest with the stage that follows when all blocks are done, and how many lanes that prunes.

    If no stage follows there is no such manifest.
    """
    plan, manifest = stored.plan, stored.manifest
    steps, number = int(np.asarray(plan.training.steps)), len(manifest.stages)
    if number == len(plan.rungs) if plan.prune is not None else manifest.steps == steps:
        return None, 0
    stored = stored._replace(blocks=blocks_of(stored.folder, manifest))
    segments = len(manifest.names)
    parts = [part.finished(columns_of(stored, i, segments)) for i, part in enumerate(plan.parts)]
    status, steps_made = (
        arrange([np.asarray(getattr(part.lanes, name)) for part in parts], plan.dimensions, parts)
        for name in ("status", "steps")
    )
    ran_out = status == Status.OUT_OF_STEPS
    if plan.prune is not None:
        there = manifest.stages[-1].there.reshape(status.shape) if number else np.ones(status.shape, bool)
        there = rank(plan, number, parts, there)
        until = [*plan.rungs, steps][number + 1]
        stands = ran_out & (steps_made == plan.rungs[number])
        pruned = int((stands & ~there).sum())
        return with_stage(manifest, plan.rungs[number], until, stands & there, there), pruned
    goes, anew = _lengthened(parts, ran_out & (steps_made == manifest.steps), status, steps_made, manifest.steps, plan)
    longer = manifest._replace(steps=steps)
    for since, members in ((manifest.steps, goes), (0, anew)):
        if members.any():
            longer = with_stage(longer, since, steps, members, np.ones(status.shape, bool))
    return longer, 0


def _lengthened(
    parts: Sequence[FinishedPart],
    ran_out: np.ndarray,
    status: np.ndarray,
    steps_made: np.ndarray,
    steps: int,
    plan: Plan,
) -> tuple[np.ndarray, np.ndarray]:
    """Return which lanes go on with more steps, and which start anew: those that go on where no state was kept, and
    failed ones, if the failure was perhaps only seen because the steps ended there."""
    goes, anew = np.zeros(status.shape, bool), np.zeros(status.shape, bool)
    failed = np.isin(status, (Status.DIVERGED, Status.NOT_FINITE))
    for part in parts:
        index = tuple(part.choice.get(name, slice(None)) for name in plan.dimensions)
        can = part.shape.keeps and steps % part.training.record.every == 0
        judged, every = judges_steps(part.any_lane), part.training.record.every
        seen = steps - 1 if judged else last_check(steps, every, chunk_of(part.any_lane))
        late = failed[index] & (steps_made[index] > seen)
        goes[index] = ran_out[index] & can
        anew[index] = late | ran_out[index] & (not can)
    return goes, anew


def rank(plan: Plan, number: int, parts: Sequence[FinishedPart], there: np.ndarray) -> np.ndarray:
    """Return which lanes go on from a rung, in the shape of the grid; `there` says which have taken part in it."""
    rule, sizes = plan.prune, {name: d.size for name, d in plan.dimensions.items()}
    assert rule is not None

    def over_grid(column: Callable[[FinishedPart], np.ndarray]) -> np.ndarray:
        return arrange([column(part) for part in parts], plan.dimensions, parts)

    values = over_grid(lambda part: measured(part.lanes, rule.by, part.training.record.every))
    fine = _FINE.take(over_grid(lambda part: np.asarray(part.lanes.status)))
    return survivors(rule, plan.rungs[number], number, len(plan.rungs), values, fine, there, sizes)


_FINE = np.isin(np.arange(STATUSES), ENDED_WELL)  # by status


def measured(lanes: Lanes, by: str, every: int) -> np.ndarray:
    """Return what lanes are ranked by: a result, or the last of their records."""
    if by in ("loss", "validation_loss"):
        return np.asarray(getattr(lanes, by))
    rows, last = np.asarray(lanes.rows[by]), np.asarray(lanes.steps) // every
    return rows[np.arange(len(rows)), last]


def _prune(plan: Plan, parts: Sequence[Part], memory: MemorySink, goes: np.ndarray, step: int) -> np.ndarray:
    """Mark the lanes that do not go on from a rung; return counts of lanes by status."""
    counts = np.zeros(STATUSES, int)
    for part, lanes in zip(parts, memory.results, strict=True):
        assert lanes is not None
        out = (
            (lanes.status == Status.OUT_OF_STEPS) & (lanes.steps == step) & ~lanes_in(goes, part, list(plan.dimensions))
        )
        lanes.status[out] = Status.PRUNED
        counts[Status.PRUNED] += int(out.sum())
    return counts


def _of_ended(report: Report) -> Report:
    """Return a report that leaves out the lanes that stand at a rung."""

    def of_ended(counts: np.ndarray) -> None:
        ended = counts.copy()
        ended[Status.OUT_OF_STEPS] = 0
        report(ended)

    return of_ended
