"""One fit: 80,000 steps on the blood pressure's line, against the loops that people write."""

from __future__ import annotations

import functools

import jax
import numpy as np
import optax

import jaxfit as jf
from benchmarks import fresh, lines, peers
from benchmarks.agreement import agree
from benchmarks.results import SPEED, TIME, Row, Target, release, unmeasured
from benchmarks.timing import Seconds, race, spread, unseen
from benchmarks.torch_peers import NoTorch, Torch, scaled

CASE = "a fit of {:,} steps, the loss of each kept"


def ended(fit: jf.Fit) -> dict:
    """A fit's results as the peers give them."""
    return {"params": fit.params, "loss": fit.loss, "losses": losses(fit)}


def losses(fit: jf.Fit) -> np.ndarray:
    assert fit.history is not None
    return np.asarray(fit.history.loss)


def against_scan(quick: bool) -> list[Row]:
    """A warm fit against `jit(lax.scan)` recording the same losses and watching nothing."""
    steps = 500 if quick else 80_000
    case, data, own = CASE.format(steps), lines.blood_pressure(), lines.own_fit()
    by_hand = {
        "jit(scan)": peers.alone(peers.recording(peers.line_mse, optax.sgd, steps, 1)),
        "jit(scan), unrolled 16 times": peers.alone(peers.recording(peers.line_mse, optax.sgd, steps, 1, unroll=16)),
    }
    ours = lines.fit_of(steps)
    for name, run in by_hand.items():
        agree(ended(ours()), run(own, data), what=f"{case}, {name}")
    calls = {name: lambda run=run: run(own, data) for name, run in by_hand.items()}
    times = race({"jaxfit": ours, **calls}, rounds=2 if quick else 11, calls=1 if quick else 5)
    targets = {"jit(scan)": Target(high=1.25)}
    return [Row(case, name, TIME, spread(times["jaxfit"] / times[name]), targets.get(name)) for name in by_hand]


def against_torch(quick: bool) -> list[Row]:
    """A warm fit against PyTorch's eager loop, which runs a share of the steps."""
    steps, share = (500, 5) if quick else (80_000, 20)
    case, peer = CASE.format(steps), f"PyTorch, eager loop ({steps // share:,} steps, times {share})"
    goal = None
    if jax.default_backend() == "cpu":
        goal = Target(low=1_000 if release(jax.__version__) >= (0, 12) else 200)
    x, y = (v.tolist() for v in lines.blood_pressure())

    arguments = {"x": x, "y": y, "start": [lines.SLOPE, lines.INTERCEPT], "rate": lines.RATE, "steps": steps // share}
    ours = lines.fit_of(steps)
    try:
        with Torch() as torch:
            agree(
                losses(ours())[: steps // share],
                np.asarray(torch.ask("line_eager", **arguments)["result"], np.float32),
                what=peer,
            )
            eager = functools.partial(scaled, torch, share, "line_eager", **arguments)
            times = race({"jaxfit": ours, "torch": eager}, rounds=2 if quick else 11, calls=1 if quick else 2)
    except NoTorch as missing:
        return [unmeasured(case, peer, SPEED, missing, goal)]
    return [Row(case, peer, SPEED, spread(times["torch"] / times["jaxfit"]), goal)]


def progress(quick: bool) -> list[Row]:
    """A progress bar forced on, drawn into the void, against none; long enough to be redrawn, and short."""
    rows, record = [], jf.Record(every=100)
    for steps in (500, 2_000) if quick else (80_000, 8_000_000):
        off, on = (unseen(lines.fit_of(steps, record=record, progress=shown)) for shown in (False, True))
        agree(ended(off()), ended(on()), rtol=0, atol=0, what="the progress bar")
        rounds, calls = (2, 1) if quick else (11, 5) if steps < 1e6 else (7, 1)
        times = race({"off": off, "on": on}, rounds=rounds, calls=calls)
        case = f"a fit of {steps:,} steps with a progress bar"
        rows.append(Row(case, "without", TIME, spread(times["on"] / times["off"]), Target(high=1.05)))
    return rows


def importing(quick: bool) -> list[Row]:
    """`import jaxfit` against `import jax, optax`, each in fresh processes."""
    contestants = {name: lambda name=name: Seconds(fresh.run("importing", name)) for name in ("jaxfit", "jax,optax")}
    times = race(contestants, rounds=1 if quick else 9, warm=not quick)
    return [
        Row("import jaxfit", "import jax, optax", TIME, spread(times["jaxfit"] / times["jax,optax"]), Target(high=1.1))
    ]
