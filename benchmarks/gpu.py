"""The GPU's column in one call: what tells most comes first, and a case that would outlast the budget is left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from benchmarks import curves, lines
from benchmarks.agreement import agree
from benchmarks.results import FITS, THROUGHPUT, Row
from benchmarks.timing import race, spread

BUDGET = 480  # seconds
WIDTHS = 2048, 4096, 8192, 16_384, 32_768, 65_536  # `gpu_slots` of the engine's settings is to be one of them


def widths(quick: bool) -> list[Row]:
    """Lanes side by side: of gradient descent, and of Levenberg-Marquardt in float64. The quickest is `gpu_slots`."""
    side, steps, count, slots = (8, 20, 32, (8, 16)) if quick else (1024, 1000, 262_144, WIDTHS)
    sets = curves.decays(count)
    descents = {f"jaxfit, slots={n:,}": lines.sweep_of(side, steps, slots=n) for n in slots}
    fits = {f"jaxfit, slots={n:,}": lambda n=n: curves.by_sweep(sets, slots=n) for n in slots}
    descent, fit = f"{side * side:,} lanes x {steps:,} steps by width", f"{count:,} decays of 50 points by width"
    return [*_by_width(descent, descents, THROUGHPUT, side * side * steps / 1e6),
            *_by_width(fit, fits, FITS, count)]  # fmt: skip


def _by_width(case: str, contestants: Mapping[str, Callable], quantity: str, work: float) -> list[Row]:
    times = race(contestants, rounds=3)
    best = min(times, key=lambda name: float(np.median(times[name])))
    print(f"  {case}: the quickest is {best}", flush=True)
    return [Row(case, name, quantity, spread(work / times[name])) for name in times]


def many_lanes(quick: bool) -> list[Row]:
    """A million lanes, and ten million."""
    sides, steps = ((8, 16), 20) if quick else ((1000, 3163), 1000)
    rows = []
    for side in sides:
        times = race({"jaxfit": lines.sweep_of(side, steps)}, rounds=3)["jaxfit"]
        lanes = side * side
        rows.append(Row(f"{lanes:,} lanes x {steps:,} steps of gradient descent", "jaxfit", THROUGHPUT,
                        spread(lanes * steps / times / 1e6)))  # fmt: skip
    return rows


def many_fits(quick: bool) -> list[Row]:
    """A million decays of 50 points, in float64, with their standard errors; the first are compared with SciPy's."""
    count = 64 if quick else 1_000_000
    sets = curves.decays(count)
    few = curves.Sets(sets.x, sets.y[:32])
    first = {name: tuple(v[:32] for v in found) for name, found in curves.by_sweep(sets).items()}
    case = f"{count:,} decays of 50 points, 3 params, with standard errors"
    agree(first, curves.by_scipy(few), what=case)
    times = race({"jaxfit": lambda: curves.by_sweep(sets)}, rounds=3, warm=False)["jaxfit"]
    return [Row(case, "jaxfit", FITS, spread(count / times))]


CASES = {"gpu-widths": widths, "gpu-lanes": many_lanes, "gpu-fits": many_fits}
SECONDS = {  # that a case of the GPU's column may take with its compilation, guessed; the most telling ones first
    "gpu-fits": 60, "gpu-lanes": 60, "spots": 60, "gpu-widths": 120, "descent": 40, "adam": 30, "stopping": 40,
    "history": 30, "batches": 40, "linearity": 30, "fit": 20,
}  # fmt: skip


def in_time(budget: float = BUDGET, clock: Callable[[], float] = time.monotonic) -> Iterator[str]:
    """Yield the cases that what is left of the budget suffices for, and say which are left out."""
    start = clock()
    for name, seconds in SECONDS.items():
        if clock() - start + seconds <= budget:
            yield name
        else:
            print(f"{name} is left out: it may take {seconds} s, and of {budget} s {clock() - start:.0f} are gone")
