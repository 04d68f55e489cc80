"""Sweeps: thousands of lanes, against the programs that people write."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
import optax

import jaxfit as jf
from benchmarks import lines, loop, peers
from benchmarks.agreement import agree
from benchmarks.results import SPEED, THROUGHPUT, TIME, Row, Target, release, unmeasured
from benchmarks.timing import race, spread, unseen
from benchmarks.torch_peers import NoTorch, Torch, scaled

US, WIDE, TORCH, C_LOOP = "jaxfit", "jit(vmap(scan))", "torch.func.vmap", "C loop on all cores"


def at_least(newest: float, before: float | None = 1) -> Target | None:
    """A speed to reach on a CPU: `newest`, or `before` with jax before 0.10.2, where the wide form was not slow."""
    goal = newest if release(jax.__version__) >= (0, 10, 2) else before
    return None if goal is None or jax.default_backend() != "cpu" else Target(low=goal)


def compare(
    case: str,
    contestants: Mapping[str, Callable],
    targets: Mapping[str, Target | None],
    *,
    useful: float,
    quick: bool,
    rounds: int = 9,
) -> list[Row]:
    """A race of jaxfit against peers on the same `useful` lane-steps: ratios, and everyone's lane-steps a second.

    All have run before, to be compared.
    """
    times = race(contestants, rounds=2 if quick else rounds, warm=False)
    ratios = [
        Row(case, peer, SPEED, spread(times[peer] / times[US]), targets.get(peer)) for peer in times if peer != US
    ]
    return ratios + [Row(case, name, THROUGHPUT, spread(useful / times[name] / 1e6)) for name in times]


def by_hand(lane: peers.Lane, own: dict, data: tuple, wide: str = WIDE, size: int = 256) -> dict[str, Callable]:
    """The two ways to run a lane many times, as calls. `size` lanes at a time do best for `lax.map` on a CPU."""
    size = size if jax.default_backend() == "cpu" else 8192
    programs = {wide: peers.wide(lane), f"lax.map of {size:,} lanes at a time": peers.in_blocks(lane, size)}
    return {name: lambda run=run: run(own, data) for name, run in programs.items()}


def agree_all(case: str, ours: dict, contestants: Mapping[str, Callable], **tolerance: float) -> None:
    for name, run in contestants.items():
        agree(ours, run(), what=f"{case}, {name}", **tolerance)


@contextlib.contextmanager
def in_torch(
    case: str, task: str, arguments: dict, losses: np.ndarray, *, share: int, target: Target | None = None,
    where: np.ndarray | slice = slice(None),
) -> Iterator[tuple[dict[str, Callable], list[Row]]]:  # fmt: skip
    """A task of `torch_loops.py` as a contestant that runs a share of the steps; or a row that says why there is none.

    Its final losses are compared with `losses` at the lanes `where`.
    """
    peer = f"{TORCH} ({arguments['steps']:,} steps, times {share})"
    try:
        torch = Torch()
    except NoTorch as missing:
        yield {}, [unmeasured(case, peer, SPEED, missing, target)]
        return
    with torch:
        result = np.asarray(torch.ask(task, **arguments)["result"], np.float32)
        agree(losses[where], result[where], what=f"{case}, {TORCH}")
        yield {peer: functools.partial(scaled, torch, share, task, **arguments)}, []


def descent(quick: bool) -> list[Row]:
    """Gradient descent on the thermometer's line, the final result only; the C loop is the physical limit."""
    side, steps, share = (8, 50, 25) if quick else (128, 1000, 25)
    case = f"{side * side:,} lanes x {steps:,} steps of gradient descent"
    own, data, ours = lines.own_lanes(side), lines.thermometer(), lines.sweep_of(side, steps)
    calls, rows = by_hand(peers.descending(peers.line_mse, optax.sgd, steps), own, data), []
    targets = {WIDE: at_least(12), C_LOOP: at_least(0.35, None)}
    try:
        compiled = loop.build()
        calls[C_LOOP] = lambda: loop.descend(compiled, own, data, steps)
    except loop.NotBuilt as why:
        rows.append(unmeasured(case, C_LOOP, SPEED, why, targets[C_LOOP]))
    agree_all(case, lines.ends(ours()), calls)
    numbers = {"x": data[0], "y": data[1], **own["params"], "rates": own["rates"]["learning_rate"]}
    arguments = {name: v.tolist() for name, v in numbers.items()} | {"steps": steps // share}
    soon = lines.ends(lines.sweep_of(side, steps // share)())["loss"]
    with in_torch(case, "line_vmap", arguments, soon, share=share) as (theirs, missing):
        raced = compare(case, {US: ours, **calls, **theirs}, targets, useful=side * side * steps, quick=quick)
    return raced + rows + missing


def adam(quick: bool) -> list[Row]:
    """The same with Adam, whose step count all lanes share."""
    side, steps = (8, 50) if quick else (128, 1000)
    case = f"{side * side:,} lanes x {steps:,} steps of Adam"
    ours = lines.sweep_of(side, steps, optax.adam)
    calls = by_hand(peers.descending(peers.line_mse, optax.adam, steps), lines.own_lanes(side), lines.thermometer())
    agree_all(case, lines.ends(ours()), calls)
    return compare(case, {US: ours, **calls}, {WIDE: at_least(6)}, useful=side * side * steps, quick=quick)


def history(quick: bool) -> list[Row]:
    """Gradient descent with the loss kept every 10 steps."""
    side, steps, every = (8, 50, 10) if quick else (128, 1000, 10)
    case = f"{side * side:,} lanes x {steps:,} steps, the loss kept every {every}"
    ours = lines.sweep_of(side, steps, record=jf.Record(every=every))
    lane = peers.recording(peers.line_mse, optax.sgd, steps, every)
    calls = by_hand(lane, lines.own_lanes(side), lines.thermometer())
    grid = ours()
    kept = grid.results["history.loss"].values.reshape(side * side, -1)
    agree_all(case, lines.ends(grid) | {"losses": kept}, calls)
    return compare(case, {US: ours, **calls}, {WIDE: at_least(7)}, useful=side * side * steps, quick=quick)


def batches(quick: bool) -> list[Row]:
    """A line on 1,000 points by mini-batches without replacement, every lane with a key of its own."""
    lanes, steps = (16, 40) if quick else (4096, 1000)
    case = f"{lanes:,} lanes x {steps:,} steps on batches of 32 of 1,000 points, without replacement"
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, 1000)
    data = lines.single((x, 2 * x - 1 + 0.1 * random.standard_normal(1000)))
    keys = jax.random.split(jax.random.key(0), lanes)
    rates = np.geomspace(1e-3, 1e-1, lanes, dtype=np.float32)

    def ours():
        optimizer = jf.optimizer(optax.sgd, learning_rate=jf.Axis("lane", rates))
        key = jf.Axis("lane", keys)
        batches = jf.Batches(32)
        start = {"w": 0.0, "b": 0.0}
        return jf.sweep(lines.LOSS, start, data, optimizer=optimizer, steps=steps, batches=batches, key=key)

    zero = np.zeros(lanes, np.float32)
    own = {"params": {"w": zero, "b": zero}, "rates": {"learning_rate": rates}, "key": keys}
    wide = "jit(vmap(scan)), permuting once an epoch"
    calls = by_hand(peers.descending_by_batches(peers.line_mse, optax.sgd, steps, 32), own, data, wide)
    losses = typical(lines.ends(ours())["loss"])
    for name, run in calls.items():
        agree(losses, typical(run()["loss"]), rtol=0.05, what=f"{case}, {name}")
    return compare(case, {US: ours, **calls}, {wide: at_least(5)}, useful=lanes * steps, quick=quick, rounds=3)


def typical(losses: np.ndarray) -> np.ndarray:
    """(8,) medians of eight ranges of learning rates: what lanes with other shuffles have in common."""
    return np.median(losses.reshape(8, -1), axis=1)


def stopping(quick: bool) -> list[Row]:
    """A stop rule on the gradient's norm, learning rates from too slow to divergent: most lanes end early."""
    side, steps, below = (8, 200, 1.0) if quick else (128, 20_000, 1e-2)
    case = f"{side * side:,} lanes until the gradient's norm is below {below:g}, at most {steps:,} steps"
    rule = jf.Stop(gradient_norm_below=below)
    ours = lines.sweep_of(side, steps, high=1e-1, stop=rule)
    lane = peers.descending_until(peers.line_mse, optax.sgd, steps, below)
    wide = "jit(vmap(while_loop))"
    calls = by_hand(lane, lines.own_lanes(side, high=1e-1), lines.thermometer(), wide, size=32)
    grid = ours()
    made = grid.results.steps.values.ravel()
    agree_where_stable(case, grid, made, calls)
    raced = compare(case, {US: ours, **calls}, {wide: at_least(25)}, useful=made.sum(), quick=quick, rounds=5)
    return raced + [_against_no_rule(case, ours, int(made.sum()), quick)]


def agree_where_stable(case: str, grid: jf.Grid, made: np.ndarray, calls: Mapping[str, Callable]) -> None:
    """The same ends of the lanes that did not run off to infinity, and the same number of steps in all.

    The peer leaves a diverging lane a little sooner: the gradient's squared norm overflows before the loss does.
    """
    stable = np.isin(grid.results.status.values.ravel(), (jf.Status.CONVERGED, jf.Status.OUT_OF_STEPS))
    ours = jax.tree.map(lambda v: v[stable], lines.ends(grid))
    for name, run in calls.items():
        theirs, what = run(), f"{case}, {name}"
        agree(made, theirs.pop("steps"), rtol=0.05, atol=5, what=f"{what}, steps")
        agree(ours, jax.tree.map(lambda v: v[stable], theirs), what=what)


def _against_no_rule(case: str, ours: Callable, useful: int, quick: bool) -> Row:
    """Useful lane-steps a second, against those of jaxfit's own sweep without a rule."""
    side, steps = (8, 50) if quick else (128, 1000)
    times = race({"rule": ours, "none": lines.sweep_of(side, steps)}, rounds=2 if quick else 5)
    ratio = (useful / times["rule"]) / (side * side * steps / times["none"])
    peer = f"jaxfit, {side * side:,} lanes x {steps:,} steps without a rule"
    return Row(case, peer, SPEED, spread(ratio), at_least(0.6, 0.6))


def one_lane(quick: bool) -> list[Row]:
    """A sweep of a single lane against a fit, neither keeping losses."""
    steps = 500 if quick else 80_000
    data = lines.blood_pressure()

    def ours():
        optimizer = jf.optimizer(optax.sgd, learning_rate=jf.Axis("learning_rate", [lines.RATE]))
        return jf.sweep(lines.LOSS, {"w": lines.SLOPE, "b": lines.INTERCEPT}, data, optimizer=optimizer, steps=steps)

    fit = lines.fit_of(steps, record=jf.Record(what=()))
    end = fit()
    agree(lines.ends(ours()), jax.tree.map(np.atleast_1d, {"params": end.params, "loss": end.loss}), what="one lane")
    times = race({US: ours, "fit": fit}, rounds=2 if quick else 9, calls=1 if quick else 3)
    case = f"a sweep of one lane, {steps:,} steps"
    return [Row(case, "jaxfit's fit", TIME, spread(times[US] / times["fit"]), Target(high=1.2))]


def progress(quick: bool) -> list[Row]:
    """A sweep with a progress bar forced on, drawn into the void, against none."""
    side, steps = (8, 50) if quick else (128, 10_000)
    off, on = (unseen(lines.sweep_of(side, steps, progress=shown)) for shown in (False, True))
    agree(lines.ends(off()), lines.ends(on()), rtol=0, atol=0, what="the progress bar")
    times = race({"off": off, "on": on}, rounds=2 if quick else 5)
    case = f"{side * side:,} lanes x {steps:,} steps with a progress bar"
    return [Row(case, "without", TIME, spread(times["on"] / times["off"]), Target(high=1.03))]
