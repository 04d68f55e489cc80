"""First calls in fresh processes: tracing, checking and compiling, and next to no work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxfit as jf
from benchmarks import curves, fresh, lines, peers
from benchmarks.agreement import agree
from benchmarks.curves import on_cpu
from benchmarks.results import SPEED, TIME, Row
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


def net(params: dict, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["first"] + params["shift"][None]) @ params["second"] + params["bias"][None]


def cross_entropy(params: dict, x: jax.Array, y: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(net(params, x), y).mean()


BATCH, ROWS = 64, 1280  # 20 batches an epoch


def net_of(lanes: int) -> tuple[dict, tuple, np.ndarray, int]:
    """The start of a net 64-32-10, data of ten classes, learning rates of Adam, and epochs: 30, or 1 of a few lanes."""
    random = np.random.default_rng(0)
    shapes: dict[str, Any] = {"first": (64, 32), "shift": 32, "second": (32, 10), "bias": 10}
    start = {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    x = random.standard_normal((ROWS, 64)).astype(np.float32)
    y = np.argmax(x @ random.standard_normal((64, 10)), axis=1).astype(np.int32)
    return start, (x, y), np.geomspace(1e-4, 3e-3, lanes).astype(np.float32), 30 if lanes >= 128 else 1


def net_sweep(lanes: int) -> Callable:
    start, data, rates, epochs = net_of(lanes)
    optimizer = jf.optimizer(optax.adam, learning_rate=jf.Axis("rate", rates))
    loss, steps, batches = jf.losses.softmax_cross_entropy(net), epochs * (ROWS // BATCH), jf.Batches(BATCH)
    return lambda: jf.sweep(loss, start, data, optimizer=optimizer, steps=steps, batches=batches, key=0)


def net_sweep_by_hand(lanes: int) -> Callable:
    start, data, rates, epochs = net_of(lanes)
    everywhere = {name: np.broadcast_to(x, (lanes, *x.shape)) for name, x in start.items()}
    own = {"params": everywhere, "rates": {"learning_rate": rates}}
    run = peers.wide(peers.descending_by_epochs(cross_entropy, optax.adam, epochs, BATCH))
    return lambda: run(own, (jax.random.key(0), *data))


def decays(side: int) -> Callable:
    sets = curves.decays(side * side)
    return lambda: curves.by_sweep(sets)


def decays_by_scipy(side: int) -> Callable:
    sets = curves.decays(side * side)
    return lambda: curves.by_scipy(sets)


CONTESTANTS = {
    call.__name__: call
    for call in (
        fit, fit_by_hand, sweep, sweep_and_table, sweep_by_hand, net_sweep, net_sweep_by_hand, decays, decays_by_scipy,
    )
}  # fmt: skip


def first_calls(quick: bool) -> list[Row]:
    """The first call of `fit` and of `sweep` against the first one of the program written by hand."""
    side = 4 if quick else 128  # also the lanes of the net
    swept = f"first sweep in a process, {side * side:,} lanes x 10 steps"
    trained = f"first sweep of a net in a process, {side} lanes, 64-32-10, Adam, batches of {BATCH}"
    losses = net_sweep(side)().results.loss.values, net_sweep_by_hand(side)()["loss"]
    agree(*losses, rtol=0.05, what=trained)  # their batches are not the same
    cases = {
        "first fit in a process, 10 steps": ("fit", "fit_by_hand", "jit(scan)", on_cpu(high=1.2)),
        swept: ("sweep", "sweep_by_hand", "jit(vmap(scan))", on_cpu(high=3)),
        f"{swept}, and its table": ("sweep_and_table", "sweep_by_hand", "jit(vmap(scan))", None),
        trained: ("net_sweep", "net_sweep_by_hand", "jit(vmap) of nested scans", on_cpu(high=1)),
    }
    rows = []
    for case, (ours, by_hand, peer, target) in cases.items():
        calls = {name: lambda name=name: Seconds(fresh.run("first_call", name, side)) for name in (ours, by_hand)}
        times = race(calls, rounds=1 if quick else 5, warm=False)
        rows.append(Row(case, peer, TIME, spread(times[ours] / times[by_hand]), target))
    return rows


FIRST_FITS = decays.__name__, decays_by_scipy.__name__


def first_fits(quick: bool) -> list[Row]:
    """The first sweep of many fits against a loop that compiles nothing."""
    side = 4 if quick else 128
    case = f"first sweep in a process, {curves.case_of(side * side, 50)}"
    few = curves.decays(16)
    agree(curves.by_sweep(few), curves.by_scipy(few), what=case)
    calls = {name: lambda name=name: Seconds(fresh.run("first_call", name, side)) for name in FIRST_FITS}
    ours, theirs = race(calls, rounds=1 if quick else 5, warm=False).values()
    return [Row(case, curves.SCIPY, SPEED, spread(theirs / ours), curves.on_cpu(low=1))]


def explanation(quick: bool) -> list[Row]:
    """A process that prints why a fit diverged against one that makes the fit and no more, imports and all."""
    calls = {task: lambda task=task: fresh.whole("diverging", task) for task in ("explained", "bare")}
    times = race(calls, rounds=1 if quick else 9, warm=False)
    case = "a process: a fit that diverges, and its printed explanation"
    return [Row(case, "the fit alone", TIME, spread(times["explained"] / times["bare"]), on_cpu(high=1.15))]
