"""Losses of 50 steps by the optimizers of PyTorch, Keras and TensorFlow.js themselves, in float64.

`python -m tests.shared.ported` runs the three and writes ported.json, with their versions and defaults. TensorFlow.js
runs in Node from the folder TFJS (default: this one), where `npm install @tensorflow/tfjs` was called; it computes in
doubles here, since its 32-bit arrays are replaced before it loads.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

STEPS = 50
HERE = Path(__file__).parent
RECORDED = HERE / "ported.json"


class Case(NamedTuple):
    """An optimizer of a framework with its arguments, the rate of the first steps among them."""

    framework: str
    name: str
    rate: float
    given: dict

    def __str__(self) -> str:
        words = [f"{k}={v}" for k, v in ({"rate": self.rate} | self.given).items()]
        return f"{self.framework}.{self.name}({', '.join(words)})"


def cases(framework: str, table: dict) -> list[Case]:
    return [Case(framework, name, rate, given) for name, rows in table.items() for rate, given in rows]


CASES = [
    *cases("torch", {
        "SGD": [
            (0.05, {}), (0.005, {"momentum": 0.9}), (0.01, {"momentum": 0.8, "dampening": 0.5, "weight_decay": 0.1}),
            (0.005, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        ],
        "Adam": [
            (0.001, {}), (0.1, {"betas": (0.8, 0.95), "eps": 0.01}), (0.1, {"betas": (0.9, 0.9), "amsgrad": True}),
            (0.1, {"weight_decay": 0.1}), (0.1, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
        ],
        "AdamW": [(0.1, {}), (0.1, {"betas": (0.9, 0.9), "weight_decay": 0.2, "amsgrad": True})],
        "Adamax": [(0.1, {}), (0.1, {"betas": (0.8, 0.9), "eps": 0.01, "weight_decay": 0.1})],
        "NAdam": [
            (0.1, {}), (0.05, {"betas": (0.8, 0.95), "momentum_decay": 0.3, "weight_decay": 0.1}),
            (0.05, {"weight_decay": 0.1, "decoupled_weight_decay": True, "eps": 0.01}),
        ],
        "RAdam": [
            (0.05, {}), (0.05, {"betas": (0.8, 0.95), "weight_decay": 0.1}),
            (0.05, {"weight_decay": 0.1, "decoupled_weight_decay": True, "eps": 0.01}),
        ],
        "RMSprop": [
            (0.01, {}), (0.01, {"momentum": 0.9}), (0.02, {"alpha": 0.9, "eps": 0.01, "centered": True}),
            (0.01, {"momentum": 0.5, "centered": True, "weight_decay": 0.1}),
        ],
        "Rprop": [(0.01, {}), (0.1, {"etas": (0.6, 1.5), "step_sizes": (0.01, 0.2)})],
        "Adagrad": [
            (0.1, {}), (0.3, {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 0.01}),
        ],
        "Adadelta": [(1.0, {}), (3.0, {"rho": 0.5, "eps": 0.001, "weight_decay": 0.1})],
        "ASGD": [(0.05, {}), (0.05, {"lambd": 0.1, "alpha": 0.5, "t0": 10.0, "weight_decay": 0.1})],
        "Adafactor": [(0.05, {}), (0.3, {"beta2_decay": -0.5, "eps": (0.001, 0.01), "d": 2.0, "weight_decay": 0.1})],
    }),
    *cases("keras", {
        "SGD": [
            (0.05, {}), (0.005, {"momentum": 0.9}), (0.005, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
            (0.5, {"clipnorm": 0.1}), (0.5, {"global_clipnorm": 0.1}), (0.5, {"clipvalue": 0.1}),
        ],
        "RMSprop": [
            (0.01, {}), (0.01, {"momentum": 0.9}), (0.02, {"rho": 0.8, "epsilon": 0.01, "centered": True}),
            (0.01, {"momentum": 0.5, "centered": True, "weight_decay": 0.1}),
        ],
        "Adam": [
            (0.001, {}), (0.1, {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 0.01}),
            (0.1, {"beta_2": 0.9, "amsgrad": True}), (0.1, {"weight_decay": 0.1}),
        ],
        "AdamW": [(0.1, {}), (0.1, {"weight_decay": 0.2, "amsgrad": True, "beta_2": 0.9})],
        "Adadelta": [(1.0, {}), (3.0, {"rho": 0.5, "epsilon": 0.001})],
        "Adagrad": [(0.1, {}), (0.3, {"initial_accumulator_value": 0.5, "epsilon": 0.01})],
        "Adamax": [(0.1, {}), (0.1, {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.01})],
        "Nadam": [(0.1, {}), (0.1, {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.01, "weight_decay": 0.1})],
        "Adafactor": [
            (0.05, {}),
            (0.3, {"beta_2_decay": -0.5, "epsilon_1": 1e-6, "epsilon_2": 0.01, "clip_threshold": 0.5,
                   "relative_step": False, "weight_decay": 0.1}),
        ],
        "Ftrl": [
            (0.1, {}),
            (0.3, {"learning_rate_power": -0.4, "initial_accumulator_value": 0.2, "l1_regularization_strength": 0.05,
                   "l2_regularization_strength": 0.02, "l2_shrinkage_regularization_strength": 0.01, "beta": 0.1}),
        ],
        "Lion": [(0.01, {}), (0.02, {"beta_1": 0.8, "beta_2": 0.9, "weight_decay": 0.1})],
        "Lamb": [(0.05, {}), (0.05, {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.01, "weight_decay": 0.1})],
        "ScheduleFreeAdamW": [
            (0.1, {}), (0.1, {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.01, "warmup_steps": 10, "weight_decay": 0.1}),
        ],
    }),
    *cases("tfjs", {
        "sgd": [(0.05, {})],
        "momentum": [(0.005, {"momentum": 0.9}), (0.005, {"momentum": 0.9, "useNesterov": True})],
        "adagrad": [(0.1, {}), (0.3, {"initialAccumulatorValue": 0.5})],
        "adadelta": [(0.05, {}), (0.05, {"rho": 0.5, "epsilon": 0.001})],
        "adam": [(0.1, {}), (0.1, {"beta1": 0.8, "beta2": 0.9, "epsilon": 0.01})],
        "adamax": [(0.1, {}), (0.1, {"beta1": 0.8, "beta2": 0.9, "epsilon": 0.01, "decay": 0.1})],
        "rmsprop": [
            (0.01, {}), (0.01, {"momentum": 0.9}), (0.01, {"decay": 0.8, "momentum": 0.5, "epsilon": 0.01}),
            (0.01, {"centered": True}),
        ],
    }),
]  # fmt: skip
FRAMEWORKS = "torch", "keras", "tfjs"


def rate_at(first: float, t: int) -> float:
    """The rate of the update number t, counted from 0: it drops tenfold, then rises fivefold."""
    return first * (1.0 if t < 20 else 0.1 if t < 35 else 0.5)


ROWS = np.array([[np.sin(3 * i + j + 1) for j in range(3)] for i in range(8)])
TARGETS = np.array([[0.8 * np.cos(2 * i + j) for j in range(2)] for i in range(8)])
STARTS = {
    "valley": [np.array([-1.2, 1.0])],
    "layer": [np.array([[0.5, -0.4], [0.3, 0.9], [-0.7, 0.2]]), np.array([0.1, -0.2])],
}


def loss_of(problem: str, params: list, tanh):
    """Rosenbrock's valley, with 10 in place of 100; or the mean square of a layer with tanh. In any framework."""
    if problem == "valley":
        x, y = params[0][0], params[0][1]
        return (1 - x) ** 2 + 10 * (y - x**2) ** 2
    w, b = params
    return ((tanh(ROWS_OF(w) @ w + b[None]) - TARGETS_OF(w)) ** 2).mean()


def ROWS_OF(like):
    return like.new_tensor(ROWS) if hasattr(like, "new_tensor") else ROWS


def TARGETS_OF(like):
    return like.new_tensor(TARGETS) if hasattr(like, "new_tensor") else TARGETS


def run_torch(case: Case, problem: str) -> list[float]:
    import torch

    params = [torch.tensor(start, requires_grad=True) for start in STARTS[problem]]
    optimizer = getattr(torch.optim, case.name)(params, lr=case.rate, **case.given)
    losses = []
    for t in range(STEPS + 1):
        optimizer.zero_grad()
        loss = loss_of(problem, params, torch.tanh)
        losses.append(loss.item())
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate_at(case.rate, t)
        optimizer.step()
    return losses


def run_keras(case: Case, problem: str) -> list[float]:
    """With the backend of JAX, in float64."""
    import jax
    import jax.numpy as jnp
    import keras

    with jax.enable_x64(True):
        before = keras.config.floatx()
        keras.config.set_floatx("float64")
        try:
            params = [keras.Variable(start) for start in STARTS[problem]]
            optimizer = getattr(keras.optimizers, case.name)(learning_rate=case.rate, **case.given)
            ask = jax.value_and_grad(lambda values: loss_of(problem, values, jnp.tanh))
            losses = []
            for t in range(STEPS + 1):
                loss, slopes = ask([p.value for p in params])
                losses.append(float(loss))
                optimizer.learning_rate = rate_at(case.rate, t)
                optimizer.apply(slopes, params)
        finally:
            keras.config.set_floatx(before)
    return losses


SCRIPT = """
globalThis.Float32Array = Float64Array;
const warn = console.warn; console.warn = () => {};
const tf = require('@tensorflow/tfjs');
const {cases, starts, rows, targets, rates, steps} = JSON.parse(require('fs').readFileSync(0));
const names = f => /\\(([^)]*)\\)/.exec(f.toString())[1].split(',').map(s => s.trim()).filter(s => s);
const losses = {
  valley: ([p]) => tf.tidy(() => { const [x, y] = p.unstack();
    return tf.scalar(1).sub(x).square().add(y.sub(x.square()).square().mul(10)); }),
  layer: ([w, b]) => tf.tidy(() => tf.tensor2d(rows).matMul(w).add(b).tanh().sub(tf.tensor2d(targets)).square().mean()),
};
const f = losses;
tf.setBackend('cpu').then(() => {
  const found = cases.map(([name, given, problem], k) => {
    const make = tf.train[name], takes = names(make).map(s => s.split('=')[0].trim());
    const at = t => rates[k][t];
    const optimizer = make.apply(tf.train, takes.map(n => n === 'learningRate' ? at(0) : given[n]));
    const params = starts[problem].map(s => tf.variable(tf.tensor(s)));
    const seen = [];
    for (let t = 0; t <= steps; t++) {
      optimizer.setLearningRate ? optimizer.setLearningRate(at(t)) : (optimizer.learningRate = at(t));
      seen.push(optimizer.minimize(() => f[problem](params), true, params).dataSync()[0]);
    }
    return seen;
  });
  const defaults = Object.fromEntries([...new Set(cases.map(c => c[0]))].map(n => [n, names(tf.train[n]).map(a =>
    [a, (new RegExp('\\\\b' + a + ' = ([^;]*);').exec(tf.train[n].toString()) || [])[1]])]));
  console.log(JSON.stringify({version: tf.version_core, found, defaults}));
});
"""


def run_tfjs(some: list[tuple[Case, str]]) -> dict:
    """All at once: Node takes seconds to load it."""
    asked = {
        "cases": [(case.name, case.given, problem) for case, problem in some],
        "rates": [[rate_at(case.rate, t) for t in range(STEPS + 1)] for case, _ in some],
        "starts": {name: [x.tolist() for x in start] for name, start in STARTS.items()},
        "rows": ROWS.tolist(), "targets": TARGETS.tolist(), "steps": STEPS,
    }  # fmt: skip
    ran = subprocess.run(
        ["node", "-e", SCRIPT], input=json.dumps(asked), capture_output=True, text=True, check=True, cwd=tfjs_folder()
    )
    return json.loads(ran.stdout.splitlines()[-1])


def tfjs_folder() -> Path:
    return Path(os.environ.get("TFJS", "."))


def has_tfjs() -> bool:
    return shutil.which("node") is not None and (tfjs_folder() / "node_modules" / "@tensorflow" / "tfjs").exists()


def live(framework: str) -> dict[str, dict[str, list[float]]]:
    """The losses by the framework as installed, by case and problem."""
    mine = [case for case in CASES if case.framework == framework]
    if framework == "tfjs":
        pairs = [(case, problem) for case in mine for problem in STARTS]
        rows = iter(run_tfjs(pairs)["found"])
        return {str(case): {problem: next(rows) for problem in STARTS} for case in mine}
    run = run_torch if framework == "torch" else run_keras
    return {str(case): {problem: run(case, problem) for problem in STARTS} for case in mine}


LEFT = {  # arguments that say how a framework computes, or that are no part of the rule
    "torch": {"self", "params", "foreach", "maximize", "differentiable", "fused", "capturable"},
    "keras": {
        "self", "use_ema", "ema_momentum", "ema_overwrite_frequency", "loss_scale_factor",
        "gradient_accumulation_steps", "name", "kwargs",
    },
}  # fmt: skip


def defaults_of(framework: str) -> dict[str, dict]:
    """The arguments of every optimizer in their order, with their defaults; None for one that must be given."""
    names = list(dict.fromkeys(case.name for case in CASES if case.framework == framework))
    if framework == "tfjs":
        some = [(case, "valley") for case in CASES if case.framework == "tfjs"]
        told = run_tfjs(some)["defaults"]
        return {name: {key: _js_value(word) for key, word in told[name]} for name in names}
    import importlib

    module = importlib.import_module({"torch": "torch.optim", "keras": "keras.optimizers"}[framework])
    return {
        name: {
            key: None if p.default is p.empty else p.default
            for key, p in inspect.signature(getattr(module, name).__init__).parameters.items()
            if key not in LEFT[framework]
        }
        for name in names
    }


def _js_value(word: str | None) -> object:
    return None if word is None else json.loads("0" + word if word.startswith(".") else word)


def schedules_of_torch() -> dict[str, list[float]]:
    """The rate of each update, by the schedulers of PyTorch, from 0.5."""
    import torch

    rules = torch.optim.lr_scheduler
    made = {
        "stepwise": lambda o: rules.StepLR(o, 10, 0.5),
        "milestones": lambda o: rules.MultiStepLR(o, [5, 22], 0.1),
        "exponential": lambda o: rules.ExponentialLR(o, 0.9),
        "cosine": lambda o: rules.CosineAnnealingLR(o, STEPS, 0.01),
        "cosine_restarts": lambda o: rules.CosineAnnealingWarmRestarts(o, 6, 2, 0.01),
        "one_cycle": lambda o: rules.OneCycleLR(o, 0.5, STEPS, cycle_momentum=False),
        "polynomial": lambda o: rules.PolynomialLR(o, STEPS, 2.0),
        "warmup": lambda o: rules.LinearLR(o, 0.2, 1.0, 10),
    }
    found = {}
    for name, make in made.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        scheduler, rates = make(optimizer), []
        for _ in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        found[name] = [float(f"{rate:.9g}") for rate in rates]
    return found


def plateaus_of_torch() -> dict[str, list[float]]:
    """The losses of SGD on Rosenbrock's valley, with ReduceLROnPlateau called after each update."""
    import torch

    found = {}
    for name, given in PLATEAUS.items():
        params = [torch.tensor(STARTS["valley"][0], requires_grad=True)]
        optimizer = torch.optim.SGD(params, lr=0.05)
        scheduler, losses = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **given), []
        for _ in range(STEPS + 1):
            optimizer.zero_grad()
            loss = loss_of("valley", params, torch.tanh)
            losses.append(float(f"{loss.item():.9g}"))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 20.0)
            optimizer.step()
            scheduler.step(loss.detach())
        found[name] = losses
    return found


PLATEAUS = {
    "patient": {"factor": 0.5, "patience": 3},
    "absolute": {"factor": 0.5, "patience": 1, "threshold": 0.05, "threshold_mode": "abs", "cooldown": 4},
    "least": {"factor": 0.1, "patience": 0, "min_lr": 0.003},
}


def _short(x: float | None) -> float | None:
    return x if x is None else float(f"{x:.9g}")  # None: NaN


def record() -> None:
    import keras
    import torch

    some = [(case, "valley") for case in CASES if case.framework == "tfjs"]
    written = {
        "versions": {
            "torch": torch.__version__, "keras": keras.__version__, "tfjs": run_tfjs(some[:1])["version"],
        },
        "defaults": {framework: defaults_of(framework) for framework in FRAMEWORKS},
        "schedules": schedules_of_torch(),
        "plateaus": plateaus_of_torch(),
        "losses": {
            case: {problem: [_short(x) for x in losses] for problem, losses in found.items()}
            for framework in FRAMEWORKS
            for case, found in live(framework).items()
        },
    }  # fmt: skip
    lines = [f"{json.dumps(case)}: {json.dumps(found)}" for case, found in written.pop("losses").items()]
    head = json.dumps(written)[:-1]
    RECORDED.write_text(head + ', "losses": {\n' + ",\n".join(lines) + "\n}}\n", "utf-8")


if __name__ == "__main__":
    sys.exit(record())
