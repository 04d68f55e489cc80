"""Long runs from the host's side: how far to go at a time, and the bar that shows it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any


def segments(total: int, most: int, every: int, pace: list, *, seconds: float = 0.3) -> Iterator[int]:
    """Lengths of stretches, multiples of the stride: a short one to learn the pace, then what takes `seconds`.

    Args:
      total: Steps to cover.
      most: Longest stretch; a multiple of the stride.
      every: The stride.
      pace: [seconds a step takes], kept up to date for the next run; empty at first, since the first stretch compiles.
    """
    done = 0
    while done < total:
        count = int(seconds / pace[0]) if pace and pace[0] else 1000
        count = min(most, max(every, count // every * every), total - done)
        start = time.perf_counter()
        yield count
        pace[:] = [max((time.perf_counter() - start) / count, 1e-9) if pace else 0.0]
        done += count


def progress_bar(total: int, progress: bool | None, unit: str) -> Any:
    """A tqdm bar on stderr; by default only where that is a terminal."""
    if progress if progress is not None else sys.stderr.isatty():
        from tqdm.auto import tqdm

        return tqdm(total=total, unit=f" {unit}", unit_scale=total >= 10_000, leave=False, mininterval=0.2)
    return _NoBar()


class _NoBar:
    n = 0

    def update(self, n):
        pass

    def set_postfix_str(self, text, refresh=True):
        pass

    def close(self):
        pass
