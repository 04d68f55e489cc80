"""The block files of a store: which file holds which lanes, and columns that read only the blocks they need.

- Part: the lanes of one program.
- Segment: lanes that were added together. Axes that grow at their ends add one; so does a stage, in which lanes go on
  after a rung or with more steps. The last stage in which a lane has run has its results.
- Block: a fixed range of the lanes of one segment of one part, which stays the same whatever is added later. The name
  of its file ends with a digest of its segment, part, number and bytes.
- Task: a block to run.
"""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from jaxfit.engine.settings import current, happened
from jaxfit.problems import Status
from jaxfit.stores.files import StoreError, digest, pack, read, unpack, write

_NAME = re.compile(r"(\d+(?:\.\d+)*|all)-(\d+)-(\d{6,9})-([0-9a-f]{32})\.safetensors")


class Stage(NamedTuple):
    """Lanes of a part that go on from where they stand, or start anew, with more steps to make."""

    members: np.ndarray  # their numbers in the part, rising
    since: int  # the step from which they go on; 0 if they start anew
    steps: int  # to which they run
    block: int  # lanes in a block, at most


class BlockMap(NamedTuple):
    """Which block file holds which lanes of a part.

    The lanes of a part fill a box of the grid, and after each growth of the axes a larger one: a segment is what a box
    has beyond the one before. Lanes are in the order of their multi-indices, the last dimension fastest, which no
    growth changes.
    """

    key: str  # the static choice, as "0.2"; "all" where there is none
    boxes: tuple[tuple[int, ...], ...]  # by segment: 1 if the part was there, else 0, and the size of each dimension
    block: int  # lanes in a block, at most
    tensors: dict[str, tuple[np.dtype, tuple[int, ...]]]  # by name: dtype and shape of what is kept of a lane
    every: int = 0  # the stride of records; 0 in stores that keep all of their rows
    steps: int = 0  # to which the lanes of the boxes run
    final: int = 0  # to which those run that nothing ends before; 0 in old stores, where they are the same
    stages: tuple[Stage, ...] = ()  # segments after those of the boxes

    @property
    def size(self) -> int:
        return math.prod(self.boxes[-1])

    def added(self, segment: int) -> int:
        """Return how many lanes a segment has."""
        if segment >= len(self.boxes):
            return len(self.stage(segment).members)
        before = math.prod(self.boxes[segment - 1]) if segment else 0
        return math.prod(self.boxes[segment]) - before

    def blocks(self) -> list[tuple[int, int]]:
        """Return (segment, block) of each block."""
        segments = range(len(self.boxes) + len(self.stages))
        return [(s, b) for s in segments for b in range(-(-self.added(s) // self.block_of(s)))]

    def stage(self, segment: int) -> Stage:
        """Return a segment as a stage; of a segment of the boxes, whose lanes start at 0, no members are listed."""
        if segment < len(self.boxes):
            return Stage(np.zeros(0, int), 0, self.steps, self.block)
        return self.stages[segment - len(self.boxes)]

    def block_of(self, segment: int) -> int:
        """Return how many lanes are in a block of a segment, at most."""
        return self.stage(segment).block

    def length(self, segment: int, block: int) -> int:
        """Return how many lanes a block holds."""
        return max(0, min(self.block_of(segment), self.added(segment) - block * self.block_of(segment)))

    def shape(self, name: str, segment: int) -> tuple[int, ...]:
        """Return the shape of a lane's tensor in the blocks of a segment: histories end where it does."""
        shape = self.tensors[name][1]
        if not (name.startswith(".rows") and self.every):
            return shape
        return (min(shape[0], self.stage(segment).steps // self.every + 1), *shape[1:])

    def lanes(self, segment: int) -> np.ndarray:
        """Return the numbers of the lanes of a segment, in order."""
        if segment >= len(self.boxes):
            return self.stage(segment).members
        if len(self.boxes) == 1:
            return np.arange(self.size)
        new = np.zeros(self.boxes[-1], bool)
        new[tuple(map(slice, self.boxes[segment]))] = True
        if segment:
            new[tuple(map(slice, self.boxes[segment - 1]))] = False
        return np.flatnonzero(new)

    def lanes_of(self, segment: int, block: int) -> np.ndarray:
        """Return the numbers of the lanes of a block."""
        length = self.block_of(segment)
        return self.lanes(segment)[block * length :][:length]

    def ranks(self, lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for each lane its segment, and its rank in that."""
        if len(self.boxes) == 1:
            return np.zeros_like(lanes), lanes
        index = np.unravel_index(lanes, self.boxes[-1])
        inside = [np.all([i < n for i, n in zip(index, box, strict=True)], axis=0) for box in self.boxes]
        segment = np.argmax(inside, axis=0)
        ranks = np.array([np.zeros_like(lanes), *(_rank(index, box) for box in self.boxes)])
        each = np.arange(len(lanes))
        return segment, ranks[segment + 1, each] - ranks[segment, each]


def _rank(index: Sequence[np.ndarray], box: Sequence[int]) -> np.ndarray:
    """Return how many cells of a box come before each multi-index."""
    rank, inside = np.zeros_like(index[0]), np.ones_like(index[0], bool)
    for d, (i, n) in enumerate(zip(index, box, strict=True)):
        rank += inside * np.minimum(i, n) * math.prod(box[d + 1 :])
        inside &= i < n
    return rank


@dataclass(eq=False)
class Blocks:
    """The block files of a store, as they were when it was opened.

    Attributes:
      folder: Where they are.
      segments: The name of each segment, which is part of the digests.
      skip: Whether damaged blocks count as not run, instead of raising an error.
    """

    folder: Path
    segments: tuple[str, ...]
    skip: bool = False
    files: dict[tuple[str, int, int], list[Path]] = field(default_factory=dict)
    _kept: OrderedDict = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __getstate__(self) -> dict:  # a copy reads the blocks anew: neither they nor the lock go to other processes
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state, _kept=OrderedDict(), _lock=threading.Lock())

    def __post_init__(self):
        if self.folder.is_dir():
            for path in sorted(self.folder.iterdir()):
                match = _NAME.fullmatch(path.name)
                if match:
                    self.files.setdefault((match[1], int(match[2]), int(match[3])), []).append(path)

    def write(self, part: BlockMap, segment: int, block: int, tensors: dict[str, np.ndarray]) -> None:
        """Write a block's file, and remove others of the same block."""
        cut = {name: x[:, : part.shape(name, segment)[0]] for name, x in tensors.items() if name.startswith(".rows")}
        content = pack(tensors | cut)
        name = f"{part.key}-{segment}-{block:06d}-{self._digest(part.key, segment, block, content)}.safetensors"
        write(self.folder / name, content)
        happened("block written", block)
        for other in self.files.get((part.key, segment, block), ()):
            if other.name != name:
                other.unlink(missing_ok=True)

    def _digest(self, key: str, segment: int, block: int, content: bytes) -> str:
        return digest(f"{self.segments[segment]} {key} {block}\n".encode(), content)

    def read(self, part: BlockMap, segment: int, block: int) -> dict[str, np.ndarray] | None:
        """Return the tensors of a block; None if it has not run.

        Raises:
          StoreError: If its file is damaged, unless such are skipped.
        """
        name = (part.key, segment, block)
        if name not in self.files:
            return None
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        tensors, errors = None, []
        for path in self.files[name]:
            try:
                tensors = self._checked(path, part, segment, block)
                break
            except StoreError as error:
                errors.append(error)
        if tensors is None and not self.skip:
            raise errors[0]
        with self._lock:
            self._kept[name] = tensors
            sizes = [sum(x.nbytes for x in (kept or {}).values()) for kept in self._kept.values()]
            while len(sizes) > 1 and sum(sizes) > current().read_bytes:
                self._kept.popitem(last=False)
                sizes.pop(0)
        return tensors

    def _checked(self, path: Path, part: BlockMap, segment: int, block: int) -> dict[str, np.ndarray]:
        happened("block read", path)
        content = read(path)
        if not path.name.endswith(f"-{self._digest(part.key, segment, block, content)}.safetensors"):
            raise StoreError(
                f"{path} is damaged: its bytes are not those that were written there. All other blocks can be used: "
                f"the same sweep with the same store= computes this one again, and jf.open(path, damaged='skip') "
                f"leaves it out"
            )
        tensors, lanes = unpack(content, path), part.length(segment, block)
        meant = {name: (dtype, (lanes, *part.shape(name, segment))) for name, (dtype, _) in part.tensors.items()}
        if {name: (x.dtype, x.shape) for name, x in tensors.items()} != meant:
            raise StoreError(f"{path} holds other arrays than its store declares; remove it")
        return {name: _high(x, part.tensors[name][1]) for name, x in tensors.items()}


def _high(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the tensor of a block with all rows of a history, those after its steps NaN."""
    if x.shape[1:] == shape:
        return x
    out = np.full((len(x), *shape), np.nan, x.dtype)
    out[:, : x.shape[1]] = x
    return out


class Column:
    """One array over the lanes of a part, read from its blocks when it is indexed: NaN, or 0, where nothing ran.

    With `segments` it is as it was at the end of so many of them, and statuses are those that were written: lanes that
    stand at a rung are OUT_OF_STEPS there. Otherwise such lanes are PRUNED, or NOT_RUN if they are to go on.
    """

    def __init__(self, blocks: Blocks, part: BlockMap, name: str, segments: int | None = None):
        self.blocks, self.part, self.name, self.segments = blocks, part, name, segments
        self.dtype, tail = part.tensors[name]
        self.shape = (part.size, *tail)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, lanes: slice | ArrayLike) -> np.ndarray:
        wanted = np.arange(len(self))[lanes] if isinstance(lanes, slice) else np.asarray(lanes)
        flat = wanted.reshape(-1)
        out = np.full((flat.size, *self.shape[1:]), np.nan if self.dtype.kind == "f" else 0, self.dtype)
        part, boxes = self.part, len(self.part.boxes)
        self._fill(out, np.arange(flat.size), *part.ranks(flat), part.block)
        latest, waits = np.zeros(flat.size, int), np.zeros(flat.size, bool)
        stages = part.stages if self.segments is None else part.stages[: self.segments - boxes]
        for number, stage in enumerate(stages):
            rank = np.searchsorted(stage.members, flat)
            hit = np.flatnonzero(np.isin(flat, stage.members))
            found = self._fill(out, hit, np.full(len(hit), boxes + number), rank[hit], stage.block)
            latest[hit[found]] = number + 1
            waits[hit] = ~found
        if self.name == ".status" and self.segments is None and part.final:
            limit = np.array([part.steps, *(stage.steps for stage in stages)])[latest]
            stands = (out == Status.OUT_OF_STEPS) & (limit < part.final)
            decided = latest < len(stages)
            out[stands & decided & ~waits] = Status.PRUNED
            out[waits | stands & ~decided] = Status.NOT_RUN
        return out.reshape((*wanted.shape, *self.shape[1:]))[()]

    def _fill(
        self, out: np.ndarray, places: np.ndarray, segment: np.ndarray, rank: np.ndarray, block: int
    ) -> np.ndarray:
        """Write what blocks have to these places; return for each whether there was a block."""
        there = np.zeros(len(places), bool)
        where = segment.astype(np.int64) << 40 | rank // block
        order = np.argsort(where, kind="stable") if np.any(np.diff(where) < 0) else np.arange(len(places))
        ends = np.flatnonzero(np.diff(where[order])) + 1
        for group in np.split(order, ends) if len(places) else ():
            tensors = self.blocks.read(self.part, int(segment[group[0]]), int(rank[group[0]] // block))
            if tensors is not None:
                out[places[group]] = tensors[self.name][rank[group] % block]
                there[group] = True
        return there

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def __repr__(self) -> str:
        return f"Column({self.name!r}, {len(self):,} lanes)"
