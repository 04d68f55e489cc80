"""Sweeps that stop lanes early: against the full sweep, and against Optuna around a compiled JAX step.

The work is a net of 16 tanh units on scikit-learn's digits, in batches of 32: 1,024 settings of learning rate, momentum
and weight decay, 243 steps at most, ranked by the loss of the 360 digits that no setting trains on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxfit as jf
from benchmarks import lines
from benchmarks.agreement import agree
from benchmarks.results import SPEED, STEPS, TIME, Row, Target, unmeasured
from benchmarks.timing import Seconds, clock, race, spread

US, FULL, OPTUNA = "jaxfit", "the full sweep", "Optuna, random settings and its Hyperband pruner"
BATCH, FIRST, LAST = 32, 9, 243
RANGES = {"rate": (1e-3, 3.0), "momentum": (0.0, 0.99), "decay": (1e-5, 1e-1)}
LOGS = ("rate", "decay")
WITHIN = 1.02  # times the best of the full sweep


def net(params, x):
    return jnp.tanh(x @ params["first"] + params["shift"][None]) @ params["second"] + params["bias"][None]


LOSS = jf.losses.softmax_cross_entropy(net)


def descent(rate, momentum, decay):
    return optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, momentum))


@functools.cache
def digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The images and labels to train on, and those held out."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    x, y = digits.data, digits.target
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order].astype(np.int32)
    return (x[:1437], y[:1437]), (x[1437:], y[1437:])


def start() -> dict[str, Any]:
    first, second = jax.random.split(jax.random.key(0))
    return {
        "first": jax.random.normal(first, (64, 16)) / 8, "second": jax.random.normal(second, (16, 10)) / 4,
        "shift": jnp.zeros(16), "bias": jnp.zeros(10),
    }  # fmt: skip


def sweep(trials: int, steps: int, prune: Any = None) -> jf.Grid:
    space = {name: (jf.LogUniform if name in LOGS else jf.Uniform)(*ends) for name, ends in RANGES.items()}
    method = jf.optimizer(descent, **jf.sample(space, trials, key=0))
    train, held_out = digits()
    return jf.sweep(
        LOSS, start(), train, optimizer=method, steps=steps, batches=jf.Batches(BATCH, replace=True), key=0,
        validation=held_out, prune=prune,
    )  # fmt: skip


def best(grid: jf.Grid) -> float:
    return float(jf.best(grid, by="validation_loss").validation_loss)


def total(grid: jf.Grid) -> int:
    return int(grid.results.steps.astype(np.int64).sum())


def rules(quick: bool) -> list[Row]:
    """Halving and Hyperband against the full sweep; the target is halving's, if it comes within 2 % of the best."""
    trials, steps = (16, 27) if quick else (1_024, LAST)
    ranked: dict[str, Any] = {"by": "validation_loss"}
    contestants = {
        "halving by 3": jf.Halving(3, FIRST, **ranked),
        "halving by 2 from step 27": jf.Halving(2, FIRST if quick else 27, **ranked),
        "Hyperband": jf.Hyperband(3, FIRST, **ranked),
    }
    full = sweep(trials, steps)
    pruned = {name: sweep(trials, steps, rule) for name, rule in contestants.items()}
    calls: dict[str, Callable] = {FULL: lambda: sweep(trials, steps)}
    calls |= {name: functools.partial(sweep, trials, steps, rule) for name, rule in contestants.items()}
    times = race(calls, rounds=2 if quick else 3, warm=False)
    rows = []
    for name, grid in pruned.items():
        apart = best(grid) / best(full)
        told = f"best {100 * (apart - 1):+.1f} % of the full sweep's"
        case = f"digits, {trials:,} settings x {steps} steps, {name}: {told}"
        goals = (Target(high=1 / 4), Target(high=1 / 3)) if name == "halving by 3" and apart <= WITHIN else (None, None)
        rows += [
            Row(case, FULL, STEPS, spread(np.full(1, total(grid) / total(full))), goals[0]),
            Row(case, FULL, TIME, spread(times[name] / times[FULL]), goals[1]),
        ]
    return rows


def against_optuna(quick: bool) -> list[Row]:
    """Hyperband over settings drawn at random: Optuna's around one compiled step a call, for a share of the trials."""
    trials, steps, share = (16, 27, 2) if quick else (1_024, LAST, 16)
    case, target = f"digits, {trials:,} settings x {steps} steps, Hyperband", Target(low=50)
    peer = f"{OPTUNA} ({trials // share} trials, times {share})"
    try:
        import optuna  # pyright: ignore[reportMissingImports]
    except ImportError:
        return [unmeasured(case, peer, SPEED, "Optuna is not installed", target)]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    (x, y), held_out = digits()

    def training(rates):
        return descent(*(rates[name] for name in RANGES))

    @jax.jit
    def step(rates, state, key, number):
        params, memory = state
        rows = jax.random.randint(jax.random.fold_in(key, number), (BATCH,), 0, len(x))
        grads = jax.grad(LOSS)(params, jnp.asarray(x)[rows], jnp.asarray(y)[rows])
        updates, memory = training(rates).update(grads, memory, params)
        return optax.apply_updates(params, updates), memory

    held_out_loss, begin, key = jax.jit(LOSS), start(), jax.random.key(0)

    def objective(trial):
        rates = {name: np.float32(trial.suggest_float(name, *ends, log=name in LOGS)) for name, ends in RANGES.items()}
        state = begin, training(rates).init(begin)
        value = np.inf
        for number in range(1, steps + 1):
            state = step(rates, state, key, number)
            if number % FIRST == 0:
                value = float(held_out_loss(state[0], *held_out))
                trial.report(value, number)
                if trial.should_prune():
                    raise optuna.TrialPruned
        return value

    def study() -> Seconds:
        pruner = optuna.pruners.HyperbandPruner(FIRST, steps, 3)
        made = optuna.create_study(sampler=optuna.samplers.RandomSampler(0), pruner=pruner)
        taken = clock(lambda: made.optimize(objective, n_trials=trials // share))
        assert np.isfinite(made.best_value)
        return Seconds(taken * share)

    rule = jf.Hyperband(3, FIRST, by="validation_loss")
    times = race({US: lambda: sweep(trials, steps, rule), peer: study}, rounds=2 if quick else 3)
    return [Row(case, peer, SPEED, spread(times[peer] / times[US]), target)]


def overhead(quick: bool) -> list[Row]:
    """Six rungs at which every lane goes on, against none: each costs some 5 ms of a core, whatever the steps."""
    side, steps = (8, 70) if quick else (128, 40_000)
    at = [steps * k // 7 for k in range(1, 7)]
    all_of_them = jf.Rungs(at, lambda rung: np.ones(len(rung.values), bool))
    low: dict[str, Any] = {"high": 2e-4}  # where every lane falls
    plain, rungs = lines.sweep_of(side, steps, **low), lines.sweep_of(side, steps, **low, prune=all_of_them)
    agree(lines.ends(plain()), lines.ends(rungs()), rtol=0, atol=0, what="rungs")
    times = race({"plain": plain, "rungs": rungs}, rounds=2 if quick else 7)
    case = f"{side * side:,} lanes x {steps:,} steps with six rungs"
    return [Row(case, "without", TIME, spread(times["rungs"] / times["plain"]), Target(high=1.05))]
