"""Contestants timed in turn, and ratios of what was measured side by side."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

_Result = TypeVar("_Result")


class Seconds(float):
    """A time that a contestant took itself: in another process, or scaled up from fewer steps."""


class Spread(NamedTuple):
    """What the rounds of a race gave."""

    least: float
    median: float
    most: float


def spread(values: np.ndarray) -> Spread:
    return Spread(float(np.min(values)), float(np.median(values)), float(np.max(values)))


def race(
    contestants: Mapping[str, Callable[[], object]], *, rounds: int, calls: int = 1, warm: bool = True
) -> dict[str, np.ndarray]:
    """The seconds of every contestant in every round: A B C A B C ..., so that a busy moment of the machine hits all.

    Args:
      contestants: What to call, by name. A contestant that returns `Seconds` has timed itself.
      rounds: Times to keep; ratios are taken within a round.
      calls: Calls of each in a round, in turn, of which the quickest counts: more than one for short work.
      warm: Run each once before, untimed.

    Returns:
      (rounds,) by name.
    """
    for run in contestants.values() if warm else ():
        run()
    times = {name: np.full((rounds, calls), np.nan) for name in contestants}
    for place in np.ndindex(rounds, calls):
        for name, run in contestants.items():
            times[name][place] = clock(run)
    return {name: np.min(taken, axis=1) for name, taken in times.items()}


def clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    result = run()
    return float(result) if isinstance(result, Seconds) else time.perf_counter() - start


def unseen(run: Callable[[], _Result]) -> Callable[[], _Result]:
    """The call with its stderr sent nowhere."""

    def call():
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            return run()

    return call
