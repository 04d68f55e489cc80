"""What a sweep runs: a part for each program, whose lanes are cut into blocks, the tasks."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import numpy as np

from jaxfit.engine.compiling import worker_devices
from jaxfit.engine.evaluating import Template, laid_out
from jaxfit.engine.inspections import LaneLayout, lane_training, layout_of
from jaxfit.engine.pools import Lanes, PoolShape, pool_like
from jaxfit.engine.settings import current
from jaxfit.engine.single import warn_of_recompiling
from jaxfit.engine.tracing import Structure, inspect_training, trace
from jaxfit.problems import Rows, Training, by_rows, precision_context
from jaxfit.problems.axes import Placeholder
from jaxfit.problems.dimensions import Dimension
from jaxfit.problems.pruning import Pruning
from jaxfit.typing import PyTree

CAPTURED = (
    "sweep drives its programs from the host, so it cannot stand inside of a jit, vmap or grad, nor run a loss that "
    "captured a value of one; call it outside, or use jax.vmap over jf.fit there"
)


STEPS = object()  # stands for a number of steps


@dataclass(eq=False)
class Part:
    """The lanes of one program: all members of a sweep that have the same values on the static axes."""

    choice: dict[str, int]  # the index along each static dimension
    dimensions: tuple[Dimension, ...]  # the others; the last one runs fastest
    training: Training  # with the choice made, and axes where lanes differ; its numbers as the user gave them
    precision: str
    shape: PoolShape  # of the pool that runs it; slots and lanes are 0 as long as none is chosen

    @functools.cached_property
    def template(self) -> Template:
        """The training taken apart into what lanes share and what each owns, in the precision; that as `Rows`."""
        with precision_context(self.precision):
            return laid_out(self.training, self.precision, by_rows)

    @property
    def any_lane(self) -> Training:
        """The training of any lane, with a `Placeholder` for each of its own values."""
        return jax.tree.unflatten(self.template.structure, self.template.leaves)

    @functools.cached_property
    def needs(self) -> Needs:
        """The bytes that a lane takes.

        Raises:
          ValueError, TypeError: If its loss cannot be trained.
        """
        structure, leaves, columns = self.template
        shapes = tuple((x.shape, x.dtype) for x in leaves)
        with precision_context(self.precision):
            return _needs(structure, shapes, spec_of(columns), self.shape, jax.config.jax_enable_x64)

    @property
    def sizes(self) -> dict[str, int]:
        return {d.name: d.size for d in self.dimensions}

    @property
    def size(self) -> int:
        return math.prod(self.sizes.values())

    def along(self, members: np.ndarray | int) -> dict[str, np.ndarray]:
        """Return the positions of some members, given by their numbers, along each of the dimensions."""
        places: list = [members] if self.dimensions else []
        for size in list(self.sizes.values())[:0:-1]:  # a few times faster than np.unravel_index
            above = places[0] // size
            places[:1] = above, places[0] - size * above
        return dict(zip(self.sizes, places, strict=True))

    def index(self, members: np.ndarray | int, names: Iterable[str]) -> tuple:
        """Return the positions of some members along these dimensions of the grid, static ones too."""
        here = self.choice | self.along(members)
        return tuple(here[name] for name in names)

    def columns(self, members: np.ndarray) -> dict[str, PyTree]:
        """Return the own values of a block of lanes; the last one is repeated to fill the block."""
        length, along, near = self.shape.lanes, self.along(members), isinstance(neighbors(members), slice)

        def taken(x, places):
            if isinstance(x, Rows):
                return x.padded(neighbors(places) if near else places, length)
            return x[_padded(places, length)]

        numbers = _padded(members, length).astype(np.int32)  # a column also where there is no axis
        columns: dict[str, PyTree] = {"#": numbers}
        for key, values in self.template.columns.items():
            columns[key] = jax.tree.map(functools.partial(taken, places=along[Placeholder(key).name]), values)
        return columns

    def columns_like(self) -> dict[str, PyTree]:
        """Return the shapes of a block's own values."""
        length = self.shape.lanes

        def like(x):
            return jax.ShapeDtypeStruct((length, *x.shape[1:]), x.dtype)

        return {"#": jax.ShapeDtypeStruct((length,), np.int32), **jax.tree.map(like, self.template.columns)}

    def in_pool(self, shape: PoolShape) -> Part:
        """Return the same lanes, to be run by a pool of this shape."""
        part = copy.copy(self)
        part.shape = shape
        return part

    def until(self, steps: int) -> Part:
        """Return the same lanes, to be run for so many steps: by the same program, which has them as an argument."""
        part, leaves, place = copy.copy(self), self.template.leaves, self._place_of_steps
        part.template = self.template._replace(leaves=[*leaves[:place], np.int32(steps), *leaves[place + 1 :]])
        return part

    @functools.cached_property
    def _place_of_steps(self) -> int:
        """Which of the template's leaves is the number of steps."""
        marked: list = [STEPS is x for x in jax.tree.leaves(replace(self.any_lane, steps=STEPS))]  # pyright: ignore
        return marked.index(True)

    def finished(self, lanes: Lanes, members: np.ndarray | None = None) -> FinishedPart:
        """Return the part with its results, without what was made for running it."""
        return FinishedPart(
            self.choice, self.dimensions, self.training, self.precision, self.shape, lanes=lanes, members=members
        )


@dataclass(eq=False)
class FinishedPart(Part):
    """A part with the results of its lanes."""

    lanes: Lanes = field(kw_only=True)  # arrays with a leading lane axis
    members: np.ndarray | None = field(kw_only=True, default=None)  # (lanes,) which they are, if they are not all

    def numbers(self, lanes: np.ndarray) -> np.ndarray:
        """Return the numbers of the members that some lanes are."""
        return lanes if self.members is None else self.members[lanes]

    def unfinished(self) -> Part:
        """Return the part without its results, to be run again."""
        return Part(self.choice, self.dimensions, self.training, self.precision, self.shape)


class Plan(NamedTuple):
    """What a sweep will run."""

    training: Training
    dimensions: dict[str, Dimension]
    parts: Sequence[Part]
    precision: str
    slots: int | None  # as given to `sweep`
    prune: Pruning | None = None
    rungs: Sequence[int] = ()  # after which it prunes

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


class Task(NamedTuple):
    """A block of lanes to run."""

    part: int
    members: np.ndarray  # their numbers, as many as a block holds or fewer
    segment: int = 0  # of a store: which growth of the axes added them
    block: int = 0  # which block of the segment they are
    since: int = 0  # the step from which they go on
    earlier: Callable[[], Lanes] | None = None  # earlier(): their results at that step


def all_tasks(parts: Sequence[Part]) -> list[Task]:
    """Return every lane of every part, in blocks of neighbors."""
    tasks, workers = [], len(worker_devices())
    for i, part in enumerate(parts):
        length = block_length(part.shape, part.size, workers)
        for block, first in enumerate(range(0, part.size, length)):
            tasks.append(Task(i, np.arange(first, min(first + length, part.size)), block=block))
    return tasks


def _padded(places: np.ndarray, length: int) -> np.ndarray:
    return np.append(places, np.full(length - len(places), places[-1]))


def neighbors(places: np.ndarray) -> slice | np.ndarray:
    """Return an index of rising places: a slice, which is faster, if all are neighbors."""
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first + 1 == len(places) else places


def block_length(shape: PoolShape, lanes: int, shares: int) -> int:
    """Return how many of some lanes are in a block, so that shares have as many blocks: a multiple of the slots."""
    blocks = shares * max(1, -(-lanes // (shares * shape.lanes)))  # of no lanes, too: none may go on from a rung
    return max(1, -(-lanes // (blocks * shape.slots))) * shape.slots


class Needs(NamedTuple):
    """Bytes of one lane."""

    results: int
    working: int  # that a step touches


@functools.lru_cache(maxsize=256)
def _needs(structure: Structure, shapes: tuple, columns: tuple, shape: PoolShape, x64: bool) -> Needs:
    """Inspect the training of one lane, and return the bytes that it takes."""
    template = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*s) for s in shapes])
    values = {
        key: jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*s) for s in specs]) for key, (tree, specs) in columns
    }
    _, filled = trace(lane_training, template, values)
    if inspect_training(filled):
        raise TypeError(CAPTURED)
    warn_of_recompiling(filled.problem.loss, filled.optimizer)
    layout: LaneLayout | None = layout_of(structure, shapes, columns, x64)
    if layout is None:
        raise TypeError(CAPTURED)
    results = pool_like(template, layout, shape._replace(slots=1, lanes=1)).results
    scalars = sum(x.size // x.shape[0] * x.dtype.itemsize for x in jax.tree.leaves(results._replace(rows={})))
    rows = sum(
        x.size // (x.shape[0] * x.shape[1]) * shape.records * x.dtype.itemsize for x in jax.tree.leaves(results.rows)
    )
    return Needs(scalars + rows, layout.working)


def pool_shape(part: Part, slots: int | None, workers: int | None = None) -> PoolShape:
    """Return how many lanes run side by side, and how many are in a block.

    On a CPU what the slots work on should stay in a core's own cache; an accelerator needs thousands of slots.

    Args:
      part: What the pool is for.
      slots: As given to `sweep`, or None.
      workers: How many share the blocks; None for those that there are.
    """
    limits = current()
    if slots is None:
        on_cpu = jax.default_backend() == "cpu"
        room, least, most = (2**18, 8, limits.cpu_slots) if on_cpu else (2**28, 256, limits.gpu_slots)
        slots = min(most, max(least, power_of_two(room // max(part.needs.working, 1))))
        slots = min(slots, power_of_two_above(part.size))
    share = power_of_two_above(-(-part.size // (workers or len(worker_devices()))))
    column_bytes = sum(math.prod(x.shape[1:]) * x.dtype.itemsize for x in jax.tree.leaves(part.template.columns))
    lanes = min(limits.block_lanes, limits.block_bytes // max(part.needs.results, column_bytes, 1))
    loads = max(lanes // slots, limits.block_loads)
    return part.shape._replace(slots=slots, lanes=max(1, min(loads, -(-share // slots))) * slots)


def power_of_two(n: int) -> int:
    """Return the largest power of two up to n, at least 1."""
    return 1 << max(n, 1).bit_length() - 1


def power_of_two_above(n: int) -> int:
    """Return the smallest power of two from n on."""
    return 1 << (n - 1).bit_length()


def spec_of(columns: dict[str, PyTree]) -> tuple:
    """Return the lanes' own values and their numbers as a part of a key: by place, structure, and (shape, dtype)s."""
    specs: list[tuple] = [("#", (jax.tree.structure(0), (((), np.dtype(np.int32)),)))]
    for key, values in columns.items():
        leaves, structure = jax.tree.flatten(values)
        specs.append((key, (structure, tuple((x.shape[1:], x.dtype) for x in leaves))))
    return tuple(specs)
