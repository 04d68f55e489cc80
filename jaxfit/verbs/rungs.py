"""A sweep that runs rung by rung: after each, lanes are ranked, and those that go on are laid out anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxfit.engine.compiling import worker_devices
from jaxfit.engine.dispatch import Memory, Report, run_all
from jaxfit.engine.parts import FinishedPart, Part, Plan, Task, all_tasks
from jaxfit.engine.pools import Lanes
from jaxfit.problems.problems import ENDED_WELL, STATUSES, Status
from jaxfit.problems.pruning import survivors
from jaxfit.verbs.grids import arrange, lanes_in


def run_in_memory(plan: Plan, parts: Sequence[Part], memory: Memory, report: Report) -> bool:
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


def going_on(parts: Sequence[Part], memory: Memory, since: int) -> list[Task]:
    """Return the lanes that stand at a rung, in blocks: small ones, so that every worker has some."""
    tasks, workers = [], len(worker_devices())
    for i, (part, lanes) in enumerate(zip(parts, memory.results, strict=True)):
        assert lanes is not None
        members = np.flatnonzero((lanes.status == Status.OUT_OF_STEPS) & (lanes.steps == since))
        length = block_length(part, len(members), workers)
        for block, first in enumerate(range(0, len(members), length)):
            own = members[first : first + length]
            tasks.append(Task(i, own, 0, block, since, jax.tree.map(lambda x, own=own: x[own], lanes)))
    return tasks


def block_length(part: Part, lanes: int, shares: int) -> int:
    """Return how many of some lanes are in a block: a multiple of the slots, at most what the pool holds."""
    slots = part.shape.slots
    return max(slots, min(part.shape.lanes, -(-lanes // (shares * slots)) * slots))


def rank(plan: Plan, number: int, parts: Sequence[FinishedPart], there: np.ndarray) -> np.ndarray:
    """Return which lanes go on from a rung, in the shape of the grid; `there` says which have taken part in it."""
    rule, sizes = plan.prune, {name: d.size for name, d in plan.dimensions.items()}
    assert rule is not None

    def over_grid(column: Callable[[FinishedPart], np.ndarray]) -> np.ndarray:
        return arrange([column(part) for part in parts], plan.dimensions, parts)

    values = over_grid(lambda part: measured(part.lanes, rule.by, part.training.record.every))
    fine = np.isin(over_grid(lambda part: np.asarray(part.lanes.status)), ENDED_WELL)
    return survivors(rule, plan.rungs[number], number, len(plan.rungs), values, fine, there, sizes)


def measured(lanes: Lanes, by: str, every: int) -> np.ndarray:
    """Return what lanes are ranked by: a result, or the last of their records."""
    if by in ("loss", "validation_loss"):
        return np.asarray(getattr(lanes, by))
    rows, last = np.asarray(lanes.rows[by]), np.asarray(lanes.steps) // every
    return rows[np.arange(len(rows)), last]


def _prune(plan: Plan, parts: Sequence[Part], memory: Memory, goes: np.ndarray, step: int) -> np.ndarray:
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

    def told(counts: np.ndarray) -> None:
        own = counts.copy()
        own[Status.OUT_OF_STEPS] = 0
        report(own)

    return told
