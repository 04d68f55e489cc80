"""What a run did, event by event: for tests that count programs, lanes or files, or that interrupt at one of them."""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Callable, Iterator

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
