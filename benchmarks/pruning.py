"""Sweeps that stop lanes early: against the full sweep, and against Optuna and Ray Tune around a compiled JAX step.

The work is 1,024 settings of learning rate, momentum and weight decay, on batches of 32, 243 steps at most, ranked by
the loss of rows that no setting trains on: of a net of 16 tanh units on scikit-learn's digits, and, where a step costs
less than to call it from Python, of a softmax regression on its breast cancer data.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxfit as jf
from benchmarks import lines
from benchmarks.agreement import agree
from benchmarks.loop import cores
from benchmarks.results import SPEED, STEPS, TIME, Row, Target, unmeasured
from benchmarks.timing import Seconds, race, spread

US, FULL = "jaxfit", "the full sweep"
OPTUNA, RAY = "Optuna, random settings and its Hyperband pruner", "Ray Tune, random settings and its ASHA"
BATCH, FIRST, LAST = 32, 9, 243
RANGES = {"rate": (1e-3, 3.0), "momentum": (0.0, 0.99), "decay": (1e-5, 1e-1)}
GENTLE = RANGES | {"rate": (1e-3, 3e-2), "momentum": (0.0, 0.5)}  # where every lane falls
LOGS = ("rate", "decay")
WITHIN = 1.02  # times the best of the full sweep


def net(params, x):
    return regression(
        {"weights": params["second"], "bias": params["bias"]}, jnp.tanh(x @ params["first"] + params["shift"][None])
    )


def regression(params, x):
    return x @ params["weights"] + params["bias"][None]


def descent(rate, momentum, decay):
    return optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, momentum))


class Work(NamedTuple):
    """What is trained."""

    name: str
    loss: Callable
    train: tuple[np.ndarray, np.ndarray]
    held_out: tuple[np.ndarray, np.ndarray]
    start: dict[str, Any]


@functools.cache
def digits() -> Work:
    """A net that tells the ten digits apart."""
    first, second = jax.random.split(jax.random.key(0))
    start = {
        "first": jax.random.normal(first, (64, 16)) / 8, "second": jax.random.normal(second, (16, 10)) / 4,
        "shift": jnp.zeros(16), "bias": jnp.zeros(10),
    }  # fmt: skip
    return _work("digits", net, *_digits(), start)


@functools.cache
def digits_by_regression() -> Work:
    """A softmax regression that tells the ten digits apart."""
    start = {"weights": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}
    return _work("digits, softmax regression", regression, *_digits(), start)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return bunch.data / 16, bunch.target


@functools.cache
def cancer() -> Work:
    """A softmax regression that tells benign from malignant by 30 measurements."""
    from sklearn.datasets import load_breast_cancer

    bunch: Any = load_breast_cancer()
    x = (bunch.data - bunch.data.mean(0)) / bunch.data.std(0)
    start = {"weights": jnp.zeros((30, 2)), "bias": jnp.zeros(2)}
    return _work("breast cancer, softmax regression", regression, x, bunch.target, start)


def _work(name: str, predict: Callable, x: np.ndarray, y: np.ndarray, start: dict[str, Any]) -> Work:
    """The work with four fifths of the rows, in a random order, to train on."""
    order, some = np.random.default_rng(0).permutation(len(x)), len(x) * 4 // 5
    x, y = x[order].astype(np.float32), y[order].astype(np.int32)
    return Work(name, jf.losses.softmax_cross_entropy(predict), (x[:some], y[:some]), (x[some:], y[some:]), start)


def sweep(work: Work, trials: int, steps: int, prune: Any = None, ranges: dict[str, tuple] = RANGES) -> jf.Grid:
    space = {name: (jf.LogUniform if name in LOGS else jf.Uniform)(*ends) for name, ends in ranges.items()}
    method = jf.optimizer(descent, **jf.sample(space, trials, key=0))
    return jf.sweep(
        work.loss, work.start, work.train, optimizer=method, steps=steps, batches=jf.Batches(BATCH, replace=True),
        key=0, validation=work.held_out, prune=prune,
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
    full = sweep(digits(), trials, steps)
    pruned = {name: sweep(digits(), trials, steps, rule) for name, rule in contestants.items()}
    calls: dict[str, Callable] = {FULL: lambda: sweep(digits(), trials, steps)}
    calls |= {name: functools.partial(sweep, digits(), trials, steps, rule) for name, rule in contestants.items()}
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


class Descent:
    """One trial as Optuna and Ray run it: one compiled step a call, from Python."""

    def __init__(self, work: Work):
        @jax.jit
        def step(rates, state, key, number):
            params, memory = state
            rows = jax.random.randint(jax.random.fold_in(key, number), (BATCH,), 0, len(work.train[0]))
            grads = jax.grad(work.loss)(params, *(jnp.asarray(x)[rows] for x in work.train))
            updates, memory = _method(rates).update(grads, memory, params)
            return optax.apply_updates(params, updates), memory

        self.work, self.step, self.key, self.held_out_loss = work, step, jax.random.key(0), jax.jit(work.loss)

    def begin(self, settings: dict[str, float]) -> None:
        self.rates = {name: np.float32(settings[name]) for name in RANGES}
        self.state, self.number = (self.work.start, _method(self.rates).init(self.work.start)), 0

    def go_on(self) -> float:
        """Make the steps to the next look at the rows held out; return their loss."""
        for _ in range(FIRST):
            self.number += 1
            self.state = self.step(self.rates, self.state, self.key, self.number)
        return float(self.held_out_loss(self.state[0], *self.work.held_out))


def _method(rates):
    return descent(*(rates[name] for name in RANGES))


def against_optuna(quick: bool) -> list[Row]:
    """Hyperband over settings drawn at random, for a share of the trials."""
    return [row for work in (digits(), cancer()) for row in _against(work, OPTUNA, 4 if quick else 16, quick)]


def against_ray(quick: bool) -> list[Row]:
    """Ray's asynchronous halving, of which Hyperband has more trials that go on, for a share of the trials."""
    return [row for work in (digits(), cancer()) for row in _against(work, RAY, 4 if quick else 16, quick)]


def _against(work: Work, name: str, share: int, quick: bool) -> list[Row]:
    trials, steps = (16, 27) if quick else (1_024, LAST)
    case, target = f"{work.name}, {trials:,} settings x {steps} steps, Hyperband", Target(low=50)
    peer = f"{name} ({trials // share} trials, times {share})"
    try:
        study = (optuna_study if name == OPTUNA else ray_study)(work, steps)
    except ImportError as why:
        return [unmeasured(case, peer, SPEED, why, target)]
    few, many = min(cores(), trials // share // 2), trials // share  # in the first ones Ray's workers start
    rule = jf.Hyperband(3, FIRST, by="validation_loss")

    def theirs() -> Seconds:
        begun = time.perf_counter()
        ended = np.sort(study(many)) - begun
        return Seconds(ended[few - 1] + (ended[-1] - ended[few - 1]) / (many - few) * (trials - few))

    sweep(work, trials, steps, rule)  # compiles; every study begins anew
    times = race({US: lambda: sweep(work, trials, steps, rule), peer: theirs}, rounds=2 if quick else 3, warm=False)
    return [Row(case, peer, SPEED, spread(times[peer] / times[US]), target)]


def optuna_study(work: Work, steps: int) -> Callable[[int], list[float]]:
    """The function that runs so many trials in this process, and returns when each one ended."""
    import optuna  # pyright: ignore[reportMissingImports]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    descent = Descent(work)

    def objective(trial) -> float:
        descent.begin({name: trial.suggest_float(name, *ends, log=name in LOGS) for name, ends in RANGES.items()})
        value = np.inf
        while descent.number < steps:
            value = descent.go_on()
            trial.report(value, descent.number)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    def run(trials: int) -> list[float]:
        ended = []
        pruner = optuna.pruners.HyperbandPruner(FIRST, steps, 3)
        made = optuna.create_study(sampler=optuna.samplers.RandomSampler(0), pruner=pruner)
        made.optimize(objective, n_trials=trials, callbacks=[lambda *_: ended.append(time.perf_counter())])
        assert np.isfinite(made.best_value)
        return ended

    return run


def ray_study(work: Work, steps: int) -> Callable[[int], list[float]]:
    """The function that runs so many trials, in a process for each core that trials follow one another in, and returns
    when each one ended."""
    import ray  # pyright: ignore[reportMissingImports]
    from ray import tune  # pyright: ignore[reportMissingImports]

    class Trial(tune.Trainable):
        def setup(self, config):
            self.descent = Descent(digits() if config["digits"] else cancer())
            self.reset_config(config)

        def reset_config(self, new_config):
            self.descent.begin(new_config)
            return True

        def step(self):
            value = self.descent.go_on()
            return {"value": value, "done": self.descent.number >= steps}

        def save_checkpoint(self, checkpoint_dir):
            pass  # asked for at the end of a trial

    class Clock(tune.Callback):
        def setup(self, stop=None, num_samples=None, total_num_samples=None, **info):
            self.ended = []

        def on_trial_complete(self, iteration, trials, trial, **info):
            self.ended.append(time.perf_counter())

    space = {name: (tune.loguniform if name in LOGS else tune.uniform)(*ends) for name, ends in RANGES.items()}
    space |= {"digits": work is digits()}
    if not ray.is_initialized():
        ray.init(num_cpus=cores(), include_dashboard=False, log_to_driver=False)

    def run(trials: int) -> list[float]:
        watch = Clock()
        halving = tune.schedulers.ASHAScheduler(max_t=steps // FIRST, grace_period=1, reduction_factor=3)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
            tuned = tune.Tuner(
                Trial, param_space=space,
                tune_config=tune.TuneConfig(
                    metric="value", mode="min", num_samples=trials, scheduler=halving, reuse_actors=True
                ),
                run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[watch]),
            ).fit()  # fmt: skip
        assert not tuned.num_errors and np.isfinite(tuned.get_best_result().metrics["value"])
        assert len(watch.ended) == trials
        return watch.ended

    return run


def overhead(quick: bool) -> list[Row]:
    """Six rungs at which every lane goes on, against none: of the line, beside whose steps all is dear, and of a model
    trained on batches, where to rank lanes is to compute losses of all rows, as dear as some 20 steps."""
    side, steps = (8, 70) if quick else (128, 40_000)
    low: dict[str, Any] = {"high": 2e-4}  # where every lane falls
    trials, few = (64, 14) if quick else (16_384, 400)
    return [
        _six_rungs(
            f"{side * side:,} lanes x {steps:,} steps with six rungs", steps,
            lambda rule: lines.sweep_of(side, steps, prune=rule, **low)(), by="loss", rounds=2 if quick else 31,
        ),
        _six_rungs(
            f"digits, softmax regression on batches, {trials:,} lanes x {few} steps with six rungs", few,
            lambda rule: sweep(digits_by_regression(), trials, few, rule, ranges=GENTLE),
            by="validation_loss", rounds=2 if quick else 5,
        ),
    ]  # fmt: skip


def _six_rungs(case: str, steps: int, call: Callable[[Any], jf.Grid], *, by: str, rounds: int) -> Row:
    at = [steps * k // 7 for k in range(1, 7)]
    all_of_them = jf.Rungs(at, lambda rung: np.ones(len(rung.values), bool), by=by)
    calls = {"without": functools.partial(call, None), "with": functools.partial(call, all_of_them)}
    ends = [
        {name: grid.results[name].values for name in ("loss", "steps")} for grid in (run() for run in calls.values())
    ]
    agree(*ends, rtol=0, atol=0, what="rungs")
    times = race(calls, rounds=rounds, warm=False)
    return Row(case, "without", TIME, spread(times["with"] / times["without"]), Target(high=1.05))
