"""First calls in fresh processes: tracing, checking and compiling, and next to no work."""

from __future__ import annotations

from collections.abc import Callable

import optax

from benchmarks import fresh, lines, peers
from benchmarks.curves import on_cpu
from benchmarks.results import TIME, Row
from benchmarks.timing import Seconds, race, spread

STEPS = 10


def fit(side: int) -> Callable:
    return lines.fit_of(STEPS)


def fit_by_hand(side: int) -> Callable:
    run = peers.alone(peers.recording(peers.line_mse, optax.sgd, STEPS, 1))
    return lambda: run(lines.own_fit(), lines.blood_pressure())


def sweep(side: int) -> Callable:
    return lines.sweep_of(side, STEPS, table=False)


def sweep_and_table(side: int) -> Callable:
    return lines.sweep_of(side, STEPS)


def sweep_by_hand(side: int) -> Callable:
    run = peers.wide(peers.descending(peers.line_mse, optax.sgd, STEPS))
    return lambda: run(lines.own_lanes(side), lines.thermometer())


CONTESTANTS = {call.__name__: call for call in (fit, fit_by_hand, sweep, sweep_and_table, sweep_by_hand)}


def first_calls(quick: bool) -> list[Row]:
    """The first call of `fit` and of `sweep` against the first one of the program written by hand."""
    side = 4 if quick else 128
    swept = f"first sweep in a process, {side * side:,} lanes x 10 steps"
    cases = {
        "first fit in a process, 10 steps": ("fit", "fit_by_hand", "jit(scan)", on_cpu(high=1.2)),
        swept: ("sweep", "sweep_by_hand", "jit(vmap(scan))", on_cpu(high=3)),
        f"{swept}, and its table": ("sweep_and_table", "sweep_by_hand", "jit(vmap(scan))", None),
    }
    rows = []
    for case, (ours, by_hand, peer, target) in cases.items():
        calls = {name: lambda name=name: Seconds(fresh.run("first_call", name, side)) for name in (ours, by_hand)}
        times = race(calls, rounds=1 if quick else 5, warm=False)
        rows.append(Row(case, peer, TIME, spread(times[ours] / times[by_hand]), target))
    return rows


def explanation(quick: bool) -> list[Row]:
    """A process that prints why a fit diverged against one that makes the fit and no more, imports and all."""
    calls = {task: lambda task=task: fresh.whole("diverging", task) for task in ("explained", "bare")}
    times = race(calls, rounds=1 if quick else 9, warm=False)
    case = "a process: a fit that diverges, and its printed explanation"
    return [Row(case, "the fit alone", TIME, spread(times["explained"] / times["bare"]), on_cpu(high=1.15))]
