"""The block files of a store: which file holds which lanes, and columns that read only the blocks they need.

A grid grows at the ends of its axes; each growth adds a segment of lanes. A block is a fixed range of one segment of
one part, so that it keeps its lanes whatever is added later. The name of its file ends with a digest of its segment,
part, number and bytes.
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
from jaxfit.stores.files import StoreError, digest, pack, read, unpack, write

_NAME = re.compile(r"(\d+(?:\.\d+)*|all)-(\d+)-(\d{6,9})-([0-9a-f]{32})\.safetensors")


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

    @property
    def size(self) -> int:
        return math.prod(self.boxes[-1])

    def added(self, segment: int) -> int:
        """Return how many lanes a segment added."""
        before = math.prod(self.boxes[segment - 1]) if segment else 0
        return math.prod(self.boxes[segment]) - before

    def blocks(self) -> list[tuple[int, int]]:
        """Return (segment, block) of each block."""
        return [(s, b) for s in range(len(self.boxes)) for b in range(-(-self.added(s) // self.block))]

    def length(self, segment: int, block: int) -> int:
        """Return how many lanes a block holds."""
        return max(0, min(self.block, self.added(segment) - block * self.block))

    def lanes(self, segment: int) -> np.ndarray:
        """Return the numbers of the lanes that a segment added, in order."""
        if len(self.boxes) == 1:
            return np.arange(self.size)
        new = np.zeros(self.boxes[-1], bool)
        new[tuple(map(slice, self.boxes[segment]))] = True
        if segment:
            new[tuple(map(slice, self.boxes[segment - 1]))] = False
        return np.flatnonzero(new)

    def lanes_of(self, segment: int, block: int) -> np.ndarray:
        """Return the numbers of the lanes of a block."""
        return self.lanes(segment)[block * self.block :][: self.block]

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
    found, inside = np.zeros_like(index[0]), np.ones_like(index[0], bool)
    for d, (i, n) in enumerate(zip(index, box, strict=True)):
        found += inside * np.minimum(i, n) * math.prod(box[d + 1 :])
        inside &= i < n
    return found


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

    def __post_init__(self):
        if self.folder.is_dir():
            for path in sorted(self.folder.iterdir()):
                match = _NAME.fullmatch(path.name)
                if match:
                    self.files.setdefault((match[1], int(match[2]), int(match[3])), []).append(path)

    def write(self, part: BlockMap, segment: int, block: int, tensors: dict[str, np.ndarray]) -> None:
        """Write a block's file, and remove others of the same block."""
        content = pack(tensors)
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
        found, errors = None, []
        for path in self.files[name]:
            try:
                found = self._checked(path, part, segment, block)
                break
            except StoreError as error:
                errors.append(error)
        if found is None and not self.skip:
            raise errors[0]
        with self._lock:
            self._kept[name] = found
            while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > current().read_bytes:
                self._kept.popitem(last=False)
        return found

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
        meant = {name: (dtype, (lanes, *shape)) for name, (dtype, shape) in part.tensors.items()}
        if {name: (x.dtype, x.shape) for name, x in tensors.items()} != meant:
            raise StoreError(f"{path} holds other arrays than its store declares; remove it")
        return tensors


def _bytes(tensors: dict[str, np.ndarray] | None) -> int:
    return sum(x.nbytes for x in (tensors or {}).values())


class Column:
    """One array over the lanes of a part, read from its blocks when it is indexed: NaN, or 0, where nothing ran."""

    def __init__(self, blocks: Blocks, part: BlockMap, name: str):
        self.blocks, self.part, self.name = blocks, part, name
        self.dtype, tail = part.tensors[name]
        self.shape = (part.size, *tail)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, lanes: slice | ArrayLike) -> np.ndarray:
        wanted = np.arange(len(self))[lanes] if isinstance(lanes, slice) else np.asarray(lanes)
        flat = wanted.reshape(-1)
        out = np.full((flat.size, *self.shape[1:]), np.nan if self.dtype.kind == "f" else 0, self.dtype)
        part = self.part
        segment, rank = part.ranks(flat)
        where = segment.astype(np.int64) << 40 | rank // part.block
        order = np.argsort(where, kind="stable") if np.any(np.diff(where) < 0) else np.arange(flat.size)
        ends = np.flatnonzero(np.diff(where[order])) + 1
        for group in np.split(order, ends) if flat.size else ():
            tensors = self.blocks.read(part, int(segment[group[0]]), int(rank[group[0]] // part.block))
            if tensors is not None:
                out[group] = tensors[self.name][rank[group] % part.block]
        return out.reshape((*wanted.shape, *self.shape[1:]))[()]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def __repr__(self) -> str:
        return f"Column({self.name!r}, {len(self):,} lanes)"
