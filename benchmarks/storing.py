"""Sweeps on disk: what writing every block costs, and how soon a large store can be read."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import jaxfit as jf
from benchmarks import lines
from benchmarks.agreement import agree
from benchmarks.results import TIME, Row, Target
from benchmarks.timing import Seconds, race, spread


def writing(quick: bool) -> list[Row]:
    """A sweep that keeps its results in a store, against one that keeps them in memory; short ones and a longer one."""
    return [_writing(8, 50, 2)] if quick else [_writing(128, steps, 7) for steps in (1_000, 10_000, 100_000)]


def _writing(side: int, steps: int, rounds: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")

        def stored() -> Seconds:
            shutil.rmtree(store, ignore_errors=True)
            begin = time.perf_counter()
            lines.sweep_of(side, steps, store=store)()
            return Seconds(time.perf_counter() - begin)

        contestants = {"memory": lines.sweep_of(side, steps), "store": stored}
        times = race(contestants, rounds=rounds)
        kept = lines.sweep_of(side, steps, store=store)()
        agree(lines.ends(contestants["memory"]()), lines.ends(kept), rtol=0, atol=0, what="the store")
    case = f"{side * side:,} lanes x {steps:,} steps kept in a store"
    return Row(case, "in memory", TIME, spread(times["store"] / times["memory"]), Target(high=1.05))


def opening(quick: bool) -> list[Row]:
    """Opening a large store and reading one lane, against loading all of it."""
    side, steps = (8, 5) if quick else (1000, 5)
    with tempfile.TemporaryDirectory() as folder:
        lines.sweep_of(side, steps, store=Path(folder, "store"))()
        store = Path(folder, "store")
        contestants = {
            "one": lambda: float(jf.open(store).loss[side // 2, side // 2]),
            "all": lambda: jf.open(store).load(),
        }
        times = race(contestants, rounds=2 if quick else 5)
    case = f"open a store of {side * side:,} lanes and read one"
    return [Row(case, "load all", TIME, spread(times["one"] / times["all"]), Target(high=0.2))]
