"""Settings of the engine, for tests and for unusual machines, and the events of a run, which tests count.

    from jaxfit.engine.settings import using

    with using(workers=1, block_lanes=256):
        grid = jf.sweep(...)

Settings hold for the whole process. They change results only by rounding. A store and a checkpoint do not resume if a
setting makes another program.
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
    """Sizes, thresholds and intervals.

    Attributes:
      workers: Number of threads that run blocks of lanes; None for one on each core of a CPU, or on each device.
      block_lanes: Largest number of lanes in a block.
      block_bytes: Largest size of the results of a block, and of the data that its lanes own.
      block_loads: Smallest number of lanes in a block for each slot, which goes before the two limits above: with a
        stop rule, slots are idle at the end of a block.
      cpu_slots: Largest number of lanes side by side on a CPU, if `slots` is not given.
      gpu_slots: The same on another platform.
      chunk: Steps of a lane between two checks, about.
      first_chunk: Steps of the first chunk without a stop rule; chunks double from there.
      block_seconds: Time between two reports of a running block.
      numpy_numbers: Largest size of a Jacobian up to which a single run makes its steps in NumPy, if its method can; 0
        for none: then they are compiled.
      numpy_params: Largest number of params of such a run.
      stretch_rows: Largest number of records that one call of the program of a single fit keeps.
      stretch_bytes: Largest size of these records.
      stretch_steps: Largest number of steps of a single fit between two reports; None for no limit.
      stretch_seconds: Time between two reports of a single fit.
      checkpoint_seconds: Smallest time between two writings of a checkpoint.
      checkpoint_share: Largest share of the time for writing checkpoints.
      free_bytes: Memory that results may take; None to ask the system.
      unasked_bytes: Size up to which results are not checked against the free memory.
      idle_pool_bytes: Size up to which a pool stays on the device between sweeps.
      read_bytes: Size of the blocks of a store that are kept after reading.
      members: Number of members that one call of a program evaluates (surfaces, statistics, sharpness), about.
      dense_plane: Number of params up to which a plane of the Hessian is found from the whole matrix.
      sum_length: Largest number of terms added one after another on a CPU; the rounding errors of more add up.
      joint_sums: Whether one loop computes several sums on a CPU; before jax 0.11, XLA does not vectorize it.
      compiler: Further options of the compiler, (name, value) pairs, for the programs that are made from now on.
    """

    workers: int | None = None
    block_lanes: int = 16384
    block_bytes: int = 2**26
    block_loads: int = 8
    cpu_slots: int = 512
    gpu_slots: int = 8192
    chunk: int = 512
    first_chunk: int = 32
    block_seconds: float = 0.2
    numpy_numbers: int = 2**20
    numpy_params: int = 128
    stretch_rows: int = 2**17
    stretch_bytes: int = 2**25
    stretch_steps: int | None = None
    stretch_seconds: float = 0.3
    checkpoint_seconds: float = 2.0
    checkpoint_share: float = 0.05
    free_bytes: int | None = None
    unasked_bytes: int = 2**24
    idle_pool_bytes: int = 2**20
    read_bytes: int = 2**26
    members: int = 2**16
    dense_plane: int = 512
    sum_length: int = 256
    joint_sums: bool = jax.__version_info__ >= (0, 11)
    compiler: tuple[tuple[str, object], ...] = ()

    @property
    def of_programs(self) -> tuple[object, ...]:
        """The settings that compiled programs contain."""
        sizes = self.chunk, self.first_chunk, self.stretch_rows, self.stretch_bytes, self.sum_length
        return *sizes, self.joint_sums, self.compiler


_current = Settings()


def current() -> Settings:
    """Return the settings that hold now."""
    return _current


@contextlib.contextmanager
def using(**changes: object) -> Iterator[Settings]:
    """Change some settings inside of the context.

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


EVENTS = {  # by name: when it happens, and what is reported with it
    "program": "a program was traced, to be compiled: its name",
    "block": "a block of lanes begins to run: their numbers",
    "lanes": "lanes have ended: how many",
    "stage": "a further stage of a stored sweep begins, after a rung or with more steps: which",
    "block written": "a block was written to a store: its number",
    "block read": "a block of a store is read from its file: the path",
    "stretch": "a stretch of steps of a single fit begins: how many",
    "checkpoint": "a checkpoint was written: its path",
}
Listener = Callable[[str, int], None]  # listener(event, how often it has happened)
_listening: list[Callable[[str, object], None]] = []


def happened(event: str, what: object) -> None:
    """Report an event of `EVENTS` to the `counting` contexts."""
    for tell in tuple(_listening):
        tell(event, what)


@contextlib.contextmanager
def counting(then: Listener | None = None) -> Iterator[dict[str, list]]:
    """List the events inside of the context: by name, what was reported with each.

    Args:
      then: Called after each event, in the thread where it happened; what it raises interrupts the run there.
    """
    events: dict[str, list] = collections.defaultdict(list)
    lock = threading.Lock()

    def tell(event: str, what: object) -> None:
        with lock:
            events[event].append(what)
            times = len(events[event])
        if then is not None:
            then(event, times)

    _listening.append(tell)
    try:
        yield events
    finally:
        _listening.remove(tell)
