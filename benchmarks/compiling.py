"""First calls in fresh processes: tracing, checking and compiling, and next to no work."""

from __future__ import annotations

from collections.abc import Callable

import optax

from benchmarks import fresh, lines, peers
from benchmarks.results import TIME, Row
from benchmarks.timing import Seconds, race, spread

STEPS = 10


def fit(side: int) -> Callable:
    return lines.fit_of(STEPS)


def fit_by_hand(side: int) -> Callable:
    run = peers.alone(peers.recording(peers.line_mse, optax.sgd, STEPS, 1))
    return lambda: run(lines.own_fit(), lines.blood_pressure())


def sweep(side: int) -> Callable:
    return lines.sweep_of(side, STEPS)


def sweep_by_hand(side: int) -> Callable:
    run = peers.wide(peers.descending(peers.line_mse, optax.sgd, STEPS))
    return lambda: run(lines.own_lanes(side), lines.thermometer())


CONTESTANTS = {call.__name__: call for call in (fit, fit_by_hand, sweep, sweep_by_hand)}


def first_calls(quick: bool) -> list[Row]:
    """The first call of `fit` and of `sweep` against the first one of the program written by hand."""
    side = 4 if quick else 128
    cases = {
        "first fit in a process, 10 steps": ("fit", "jit(scan)"),
        f"first sweep in a process, {side * side:,} lanes x 10 steps": ("sweep", "jit(vmap(scan))"),
    }
    rows = []
    for case, (ours, peer) in cases.items():
        names = (ours, f"{ours}_by_hand")
        calls = {name: lambda name=name: Seconds(fresh.run("first_call", name, side)) for name in names}
        times = race(calls, rounds=1 if quick else 5, warm=False)
        rows.append(Row(case, peer, TIME, spread(times[names[0]] / times[names[1]])))
    return rows
