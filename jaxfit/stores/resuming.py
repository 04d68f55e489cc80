"""Resume a sweep from its store: check that it is the same sweep, and find the blocks that are missing.

The manifest of a store has everything that determines the bits of its lanes. A call that would give other bits is
refused; one whose axes only grew at their ends adds a segment of lanes, and one with more steps a stage.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxfit.engine.compiling import worker_devices
from jaxfit.engine.dispatch import Sink, block_programs_of, empty_results
from jaxfit.engine.parts import Part, Plan, Task, pool_shape
from jaxfit.engine.pools import Lanes, PoolShape
from jaxfit.problems import precision_context
from jaxfit.problems.dimensions import Dimension, all_coordinates, position, stacked
from jaxfit.problems.messages import warn
from jaxfit.problems.pruning import as_text, choices
from jaxfit.stores import StoreError, identity, manifests, open_dataset
from jaxfit.stores.blocks import BlockMap, Blocks, Column
from jaxfit.stores.files import as_path, digest, make_folder, removed
from jaxfit.stores.manifests import Manifest, StoredPart
from jaxfit.verbs.grids import Grid, lane_numbers, lanes_in, tensors_of, variables_of

WRITERS = 2  # threads that write blocks; as many blocks may wait to be written
_REMEDY = "Make the call as it was to go on, or give this one another store="


class Stored(NamedTuple):
    """A sweep and its store."""

    folder: Path
    plan: Plan  # its parts have the pools of the store
    examples: Sequence[Lanes]  # by part: the results of no lanes
    maps: Sequence[BlockMap]  # by part: which block file holds which lanes
    manifest: Manifest
    blocks: Blocks


def open_or_create(plan: Plan, folder: Path, attributes: Callable, *, clean: bool, write: bool) -> Stored:
    """Return the store of a sweep, new or resumed; the caller holds its lock.

    Raises:
      ValueError: If it holds another sweep: with the fields that differ.
      StoreError, OSError: If it cannot be read or written.
    """
    if not write and not manifests.has_manifest(folder):
        raise StoreError(
            f"{folder} is not visible from here, but every worker must read the store; put it on a shared file system"
        )
    old = manifests.read_manifest(folder) if manifests.has_manifest(folder) else None
    plan = plan._replace(parts=[part.in_pool(_shape(part, plan.slots, old, folder)) for part in plan.parts])
    examples = [empty_results(part) for part in plan.parts]
    with precision_context(plan.precision):
        new = _manifest(plan, examples, attributes(plan.parts), _made_for(old) if old else 0)
    manifest = new if old is None else _grown(old, new, plan, folder)
    for pattern in (".*.tmp", "blocks/.*.tmp", "shard-*.lock") if clean else ():  # of writers that were killed
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    if write:
        make_folder(folder / manifests.BLOCKS)
    if write and manifest is not old:
        manifests.write_manifest(folder, manifest)
    by_key = manifests.block_maps(manifest)
    maps = [by_key[manifests.part_key(part.choice)] for part in plan.parts]
    return Stored(folder, plan, examples, maps, manifest, manifests.blocks_of(folder, manifest))


def _shape(part: Part, slots: int | None, old: Manifest | None, folder: Path) -> PoolShape:
    """Return the shape of the pool in the store, which may not be what this machine would choose; it fixes bits."""
    part = part.in_pool(part.shape._replace(keeps=_keeps(part)))
    stored = old.parts.get(manifests.part_key(part.choice)) if old else None
    if stored is None:
        return pool_shape(part, slots, manifests.SHARES)
    if slots not in (None, stored.slots):
        identity.refuse(f"store: {folder} holds another sweep", [f"slots was {stored.slots}, is now {slots}"], _REMEDY)
    return part.shape._replace(slots=stored.slots, lanes=stored.block)


def _keeps(part: Part) -> bool:
    """Return whether blocks keep what lanes need to go on with more steps; else they start anew.

    A method that judges itself seldom runs out of steps, and remembers much.
    """
    if part.shape.keeps:  # for its rungs
        return True
    kept = empty_results(part.in_pool(part.shape._replace(keeps=True))).kept
    kinds = {np.dtype(x.dtype).name for x in jax.tree.leaves(kept)}
    return not part.any_lane.optimizer.traits.judges and kinds <= set(manifests.DTYPES)


def _made_for(old: Manifest) -> int:
    """Return the number of steps that a store was made for; the base of a pruned one is its first rung."""
    return old.steps if "prune" in old.identity else old.base


def _manifest(plan: Plan, examples: Sequence[Lanes], attributes: dict, base: int) -> Manifest:
    """Return the manifest of a new store; of one that is there, `base` is the number of steps that it was made for."""
    sizes = {name: d.size for name, d in plan.dimensions.items()}
    fixed, parts = identity.environment(plan.precision) | {"compiler options": identity.compiler_options_text()}, {}
    steps = int(np.asarray(plan.training.steps))
    if plan.prune is not None:  # whose rungs depend on the steps
        fixed |= {"prune": as_text(plan.prune), "steps": f"{steps}"}
        fixed[_KEEPS] = digest(choices(plan.prune, plan.rungs, sizes))
    for part, lanes in zip(plan.parts, examples, strict=True):
        key, shape = manifests.part_key(part.choice), part.shape
        fixed |= {f"{_prefix(key)}{name}": value for name, value in _identity(part, base or steps).items()}
        tensors = {name: [np.dtype(x.dtype).name, list(x.shape[1:])] for name, x in tensors_of(lanes).items()}
        parts[key] = StoredPart(
            part.choice, list(part.sizes), shape.lanes, shape.slots, shape.records, tensors,
            identity.program_names(part.training), part.training.record.every,
        )  # fmt: skip
    axes = {name: _values(d, d.size, plan.precision) for name, d in plan.dimensions.items()}
    return Manifest(
        fixed, axes, (sizes,), (manifests.segment_name(fixed, axes, sizes),), parts,
        variables_of(examples, plan.training), _coordinates(plan, plan.parts[0].shape.records), attributes,
        plan.rungs[0] if plan.rungs else steps, steps,
    )  # fmt: skip


def _prefix(key: str) -> str:
    return "" if key == "all" else f"part {key}: "


def _identity(part: Part, steps: int) -> dict[str, str]:
    """Return the digest of the program of a part, with the records of so many steps; and the numbers of all lanes."""
    records = steps // part.training.record.every + 1 if part.shape.records else 0
    part = part.in_pool(part.shape._replace(records=records))
    device = worker_devices()[0]
    lowered = block_programs_of(part, [device]).lowered[device]
    numbers = identity.numbers_of(part.any_lane)
    del numbers["steps"]  # of which there may be more in a later call
    return {identity.PROGRAM: identity.program_digest(lowered), **numbers}


def _values(dimension: Dimension, size: int, precision: str) -> dict[str, str]:
    """Return a digest of the first values along a dimension, by path; values that are programs have none."""
    known = {mention.path: values for mention in dimension.mentions if (values := stacked(mention)) is not None}
    return {path: identity.values_digest(values, size, precision) for path, values in known.items()}


def _coordinates(plan: Plan, records: int) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    coordinates = {}
    for name, (dim, values) in all_coordinates(plan.dimensions, records, plan.training.record).items():
        values = np.asarray(values)
        if values.dtype.kind not in "biufU":
            raise ValueError(
                f"store: the coordinate {name!r} holds {values.dtype} values such as {values[0]!r}, but a store keeps "
                f"numbers and text; pass such labels= to the Axis"
            )
        coordinates[name] = ((dim,), values)
    return coordinates


def _grown(old: Manifest, new: Manifest, plan: Plan, folder: Path) -> Manifest:
    """Return the old manifest, with one more segment if the axes grew; more steps are made after those are done.

    Raises:
      ValueError: If anything else differs, or there are fewer steps; if axes grew whose lanes are in stages.
    """
    changes = _differences(old, new, plan)
    if old.steps != new.steps and "prune" in old.identity:
        changes.append(
            f"steps was {old.steps:,}, is now {new.steps:,} (a pruned sweep does not go on with other steps)"
        )
    elif old.steps > new.steps:
        changes.append(f"steps was {old.steps:,}, is now {new.steps:,} (a store goes on, not back)")
    if old.stages and new.sizes != old.sizes and not changes:
        why = "lanes are compared with all others" if plan.prune is not None else "its steps grew"
        changes.append(f"the axes were {old.sizes}, are now {new.sizes} (they cannot grow after {why})")
    identity.refuse(f"store: {folder} holds another sweep", changes, _REMEDY)
    same = new.sizes == old.sizes
    manifest = new._replace(
        segments=old.segments if same else (*old.segments, new.sizes),
        names=old.names if same else (*old.names, *new.names), base=old.base, steps=old.steps, stages=old.stages,
    )  # fmt: skip
    return old if same and old.steps == new.steps else manifest


_KEEPS = "what prune keeps"  # of values made up for a group of so many lanes


def _same_rule(old: Manifest, new: Manifest) -> bool:
    return old.identity.get("prune") == new.identity.get("prune")


def _differences(old: Manifest, new: Manifest, plan: Plan) -> list[str]:
    """Return in words what differs from the sweep in a store; if the axes differ, only that."""
    if list(old.sizes) != list(new.sizes):
        return [f"the axes were {', '.join(old.sizes)}, are now {', '.join(new.sizes)}"]
    static = [", ".join(next(iter(manifest.parts.values())).choice) or "none" for manifest in (old, new)]
    if static[0] != static[1]:
        return [f"the axes whose values are programs of their own were {static[0]}, are now {static[1]}"]
    fresh = tuple(_prefix(key) for key in new.parts if key not in old.parts)
    both = [(key, old.parts[key], part) for key, part in new.parts.items() if key in old.parts]
    words = {_prefix(key).removesuffix(": "): (was.words, part.words) for key, was, part in both}
    apart = {"steps"}
    if any(getattr(old, x) != getattr(new, x) for x in ("sizes", "steps")) or not _same_rule(old, new):
        apart |= {_KEEPS}  # which depends on all of these
    was, now = ({k: v for k, v in manifest.identity.items() if k not in apart} for manifest in (old, new))

    def place(prefix: str) -> str:
        choice = new.parts[prefix.removeprefix("part ")].choice
        return "at " + ", ".join(f"{name}={new.coordinates[name][1][i]}" for name, i in choice.items())

    changes = identity.differences(was, now, lambda name: name.startswith(fresh), words=words, label=place)
    if old.identity.get("precision") == new.identity["precision"]:  # otherwise all values differ
        for name, size in old.sizes.items():
            changes += _axis_differences(name, size, old, new, plan)
    return changes


def _axis_differences(name: str, size: int, old: Manifest, new: Manifest, plan: Plan) -> list[str]:
    if new.sizes[name] < size:
        return [f"axis {name!r} had {size} values, has now {new.sizes[name]} (it may only grow at its end)"]
    changes = []
    for coordinate, (dims, values) in old.coordinates.items():
        if dims == (name,):
            now = new.coordinates.get(coordinate, (dims, np.zeros(0)))[1][:size]
            if not np.array_equal(values, now):
                i = next((i for i, (a, b) in enumerate(zip(values, now, strict=False)) if a != b), len(now))
                is_now = now[i] if i < len(now) else "absent"
                changes.append(f"value {i} of {coordinate!r} on axis {name!r} was {values[i]}, is now {is_now}")
    with precision_context(plan.precision):
        now = _values(plan.dimensions[name], size, plan.precision)
    changed = [f"the values of axis {name!r} at {p} differ" for p, was in old.axes[name].items() if now.get(p) != was]
    return changes or changed


def missing_blocks(stored: Stored) -> list[Task]:
    """Return the blocks that have yet to run; one whose file is damaged runs again."""
    tasks, damaged = [], []
    for i, part in enumerate(stored.maps):
        lanes: dict[int, np.ndarray] = {}
        for segment, block in part.blocks():
            try:
                there = stored.blocks.read(part, segment, block) is not None
            except StoreError as error:
                if any(path.is_dir() for path in stored.blocks.files[part.key, segment, block]):
                    raise
                there = False
                damaged.append(str(error).split(":")[0])
            if not there:
                if segment not in lanes:
                    lanes[segment] = part.lanes(segment)
                length = part.block_of(segment)
                members = lanes[segment][block * length : (block + 1) * length]
                tasks.append(_task(stored, i, members, segment, block))
    if damaged:
        more = f" and {len(damaged) - 3} more" * (len(damaged) > 3)
        warn(f"store: {'; '.join(damaged[:3])}{more}; what was in there is computed again")
    return tasks


def task_at(stored: Stored, part: int, segment: int, block: int) -> Task:
    """Return the task of one block."""
    return _task(stored, part, stored.maps[part].lanes_of(segment, block), segment, block)


def _task(stored: Stored, part: int, members: np.ndarray, segment: int, block: int) -> Task:
    since = stored.maps[part].stage(segment).since

    def earlier() -> Lanes:
        return jax.tree.map(lambda column: column[members], columns_of(stored, part, segment))

    return Task(part, members, segment, block, since, earlier if since else None)


def columns_of(stored: Stored, part: int, segments: int | None = None) -> Lanes:
    """Return the results of a part, each a `Column`; with `segments` as they were after so many."""
    like, block_map = stored.examples[part], stored.maps[part]
    columns = [Column(stored.blocks, block_map, name, segments) for name in tensors_of(like)]
    return jax.tree.unflatten(jax.tree.structure(like), columns)


def parts_until(stored: Stored, task: Task) -> list[Part]:
    """Return the parts, to be run to the last step of a task's stage."""
    steps = stored.maps[task.part].stage(task.segment).steps
    return [part.until(steps) for part in stored.plan.parts]


def with_manifest(stored: Stored, manifest: Manifest) -> Stored:
    """Write another manifest; return the store with it, as it is on disk now."""
    manifests.write_manifest(stored.folder, manifest)
    by_key = manifests.block_maps(manifest)
    maps = [by_key[manifests.part_key(part.choice)] for part in stored.plan.parts]
    return stored._replace(manifest=manifest, maps=maps, blocks=manifests.blocks_of(stored.folder, manifest))


def write_block(stored: Stored, task: Task, lanes: Lanes) -> None:
    """Write a block that is done."""
    stored.blocks.write(stored.maps[task.part], task.segment, task.block, tensors_of(lanes))


@contextlib.contextmanager
def writing_in_background(stored: Stored) -> Iterator[Sink]:
    """Yield a sink that writes blocks in threads of its own; at the end all is written, or the error is raised."""
    waiting: deque[Future] = deque()
    lock = threading.Lock()
    with ThreadPoolExecutor(WRITERS) as pool:

        def sink(task: Task, lanes: Lanes) -> None:
            with lock:
                while len(waiting) >= WRITERS:
                    waiting.popleft().result()
                waiting.append(pool.submit(write_block, stored, task, lanes))

        yield sink
        while waiting:
            waiting.popleft().result()


def grid_of(stored: Stored) -> Grid:
    """Return what the store holds now, as the result of the sweep; blocks are read when their values are used.

    Raises:
      OSError: If the store was removed meanwhile.
    """
    if not manifests.has_manifest(stored.folder):
        raise removed(stored.folder / manifests.MANIFEST)
    plan, stored = stored.plan, stored._replace(blocks=manifests.blocks_of(stored.folder, stored.manifest))
    parts = [part.finished(columns_of(stored, i)) for i, part in enumerate(plan.parts)]
    members = lane_numbers(plan.dimensions, parts)
    return Grid(open_dataset(stored.folder), members, tuple(parts), plan.precision, stored.folder)


def lanes_to_rerun(plan: Plan, folder: Path, rerun: object, other: object) -> np.ndarray:
    """Return for each point of the grid whether its lane is to be run again.

    Raises:
      ValueError, TypeError: If `rerun` cannot be applied, or the other store is of other axes.
    """
    source = folder if other is None else as_path("rerun_of", other)
    if rerun is None:
        raise ValueError("rerun_of names a store to choose from, but rerun does not say what; pass rerun={'status': 4}")
    results = open_dataset(source)
    sizes = {name: d.size for name, d in plan.dimensions.items()}
    if {name: results.sizes.get(name) for name in sizes} != sizes:
        raise ValueError(f"rerun: {source} has the axes {dict(results.status.sizes)}, but this sweep has {sizes}")
    if callable(rerun):
        chosen = rerun(results)
    elif isinstance(rerun, Mapping):
        chosen = True
        for name, values in rerun.items():
            if name not in results.variables:
                there = ", ".join(map(str, results.variables))
                raise ValueError(f"rerun: the results have no {name!r}; they have {there}")
            wanted = np.atleast_1d(np.asarray(values))
            if name in results.dims:  # the exact values of the axis, for numbers that were rounded
                places = [position("rerun", name, results[name].values, value, "exact") for value in wanted.tolist()]
                wanted = results[name].values[places]
            chosen = chosen & results[name].isin(wanted)
    else:
        raise TypeError(f"rerun is {rerun!r}, but it takes a dict such as {{'status': 4}} or a function of the results")
    boolean = getattr(getattr(chosen, "dtype", None), "kind", "") == "b"
    if not boolean or not set(getattr(chosen, "dims", [None])) <= set(sizes):
        raise TypeError(f"rerun gave {type(chosen).__name__}, but it must give a boolean DataArray over {list(sizes)}")
    return chosen.broadcast_like(results.status).transpose(*sizes).values


def blocks_to_rerun(stored: Stored, again: np.ndarray) -> list[Task]:
    """Return the blocks with a lane that is to be run again."""
    tasks, names = [], list(stored.manifest.sizes)
    for i, (part, own_blocks) in enumerate(zip(stored.plan.parts, stored.maps, strict=True)):
        chosen_lanes = lanes_in(again, part, names)
        for segment, block in own_blocks.blocks():
            lanes = own_blocks.lanes_of(segment, block)
            if chosen_lanes[lanes].any():
                tasks.append(_task(stored, i, lanes, segment, block))
    return tasks
