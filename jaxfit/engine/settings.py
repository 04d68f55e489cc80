"""Settings of the engine, which tests and users of unusual machines change; no call has them as arguments.

    from jaxfit.engine.settings import using

    with using(workers=1, block_lanes=256):
        grid = jf.sweep(...)

They hold for the whole process. No setting changes results but for rounding. A store and a checkpoint refuse to go on
where another setting makes another program.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax


@dataclass(frozen=True)
class Settings:
    """Sizes, thresholds and intervals."""

    # Workers
    workers: int | None = None  # threads that run blocks; None for one on each core of a CPU, or on each device

    # Blocks of lanes
    block_lanes: int = 8192  # at most
    block_bytes: int = 2**26  # of a block's results, at most, but at least
    block_loads: int = 8  # lanes for each slot: with a stop rule, slots are idle at the end of a block
    cpu_slots: int = 512  # lanes side by side on a CPU, at most, if `slots` is not given
    chunk: int = 512  # steps of a lane between two checks of a pool, about
    first_chunk: int = 32  # without a stop rule chunks begin with so many steps, and double
    block_seconds: float = 0.2  # between two reports of a block that runs

    # Single fits
    stretch_rows: int = 2**17  # records that one call of a program keeps, at most
    stretch_bytes: int = 2**25  # of these records, at most
    stretch_steps: int | None = None  # steps between two reports, at most; None for what takes
    stretch_seconds: float = 0.3
    checkpoint_seconds: float = 2.0  # between two writings, or longer, so that they take at most
    checkpoint_share: float = 0.05  # of the time

    # Memory
    free_bytes: int | None = None  # that results may take; None to ask the system
    unasked_bytes: int = 2**24  # results up to this size are not checked
    idle_pool_bytes: int = 2**20  # a pool up to this size stays on the device between sweeps
    read_bytes: int = 2**26  # blocks of a store that were read last and are kept
    members: int = 2**16  # that one call of a program evaluates, about: surfaces, statistics, sharpness
    dense_plane: int = 512  # params up to which a plane of the Hessian is found from all of it

    # Sums on a CPU
    sum_length: int = 256  # numbers added one after another, at most: roundings of more add up to a digit
    joint_sums: bool = jax.__version_info__ >= (0, 11)  # whether one loop makes several sums: before, XLA did not
    # vectorize it

    @property
    def of_programs(self) -> tuple[object, ...]:
        """The settings that compiled programs contain."""
        return self.chunk, self.first_chunk, self.stretch_rows, self.stretch_bytes, self.sum_length, self.joint_sums


_current = Settings()


def current() -> Settings:
    """Return the settings that hold now."""
    return _current


@contextlib.contextmanager
def using(**changes: object) -> Iterator[Settings]:
    """Inside, some settings have other values, by name.

    Raises:
      TypeError: If there is no such setting.
    """
    global _current
    before = _current
    _current = dataclasses.replace(before, **changes)  # pyright: ignore[reportArgumentType]
    try:
        yield _current
    finally:
        _current = before


EVENTS = {  # with what comes along
    "program": "a program was traced, to be compiled: its name",
    "block": "a block of lanes begins to run: their numbers",
    "lanes": "lanes have ended: how many",
    "block written": "a block was written to a store: its number",
    "block read": "a block of a store is read from its file: the path",
    "stretch": "a stretch of steps of a single fit begins: how many",
    "checkpoint": "a checkpoint was written: its path",
}
Listener = Callable[[str, int], None]  # listener(event, how often it has happened)
_listening: list[Callable[[str, object], None]] = []


def happened(event: str, what: object) -> None:
    """Tell those who count that an event of `EVENTS` happened."""
    for tell in tuple(_listening):
        tell(event, what)


@contextlib.contextmanager
def counting(then: Listener | None = None) -> Iterator[dict[str, list]]:
    """Inside, lists what happens: by event, what came along each time.

    Args:
      then: Called after each event, in the thread where it happened; what it raises interrupts the run there.
    """
    found: dict[str, list] = collections.defaultdict(list)
    lock = threading.Lock()

    def tell(event: str, what: object) -> None:
        with lock:
            found[event].append(what)
            times = len(found[event])
        if then is not None:
            then(event, times)

    _listening.append(tell)
    try:
        yield found
    finally:
        _listening.remove(tell)
