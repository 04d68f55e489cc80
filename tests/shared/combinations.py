"""Random legal sweeps, each as a dict of choices: run, opened again, and held against single fits.

`python -m tests.shared.combinations 0 300` checks those of seeds 0 to 299, and simplifies one that fails.
"""

import math
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxfit as jf
from tests.shared.small_sweeps import same

L, O = jf.losses, jf.optimizers  # noqa: E741
X = np.linspace(-1.0, 1.5, 7)
Y = 0.7 * X + 0.3 + 0.1 * np.sin(9 * X)
MASK = np.array([True, True, False, True, True, True, True])
SEEDS = [3, 1, 2]


def line(params, x):
    return params["w"] * x + params["b"]


def net(params, x):
    return jnp.tanh(x[:, None] * params["in"][None, :]) @ params["out"]


def init(key, width):
    return {"in": jnp.linspace(0.5, 1.5, width), "out": 0.3 * jax.random.normal(key, (width,))}


def absolute(params, x, y):
    return jnp.mean(jnp.sqrt(1.0 + (params["w"] * x + params["b"] - y) ** 2))


def noisy(params, x, y, key):
    return jnp.mean((params["w"] * x + params["b"] - y + 0.1 * jax.random.normal(key, x.shape)) ** 2)


def bowl(params):
    return (params["w"] - 1.0) ** 2 + 3.0 * (params["b"] + 0.5) ** 2


def size_of_w(params, *data):
    return params["w"] ** 2


SPACE = {  # the simplest choice first
    "loss": ["mse", "rss", "huber", "huber axis", "loss axis", "absolute", "masked", "noisy", "bowl", "net"],
    "params": ["plain", "w axis", "w and b together", "w and b", "whole", "bounded", "fixed axis", "tied"],
    "data": ["shared", "y axis", "x and y together"],
    "optimizer": [
        "sgd", "rate axis", "adam", "adam rate", "momentum", "kinds", "kinds with rates", "one kind", "one", "flag",
        "rmsprop", "lbfgs", "levenberg_marquardt", "judges", "schedule", "ready", "nadam", "lion rate",
    ],
    "stop": ["none", "gradient", "loss axis", "change", "above", "patience", "two"],
    "record": ["none", "loss", "every 3", "params", "norms", "validation", "function"],
    "batches": ["none", "shuffled", "replaced", "size axis"],
    "key": ["one", "axis"],
    "precision": ["float64", "float32", "none"],
    "steps": [1, 4, 9],
    "slots": [None, 1, 2],
    "keep": ["memory", "store", "executor", "grown", "in turns"],
    "names": ["alphabet", "reversed"],
}  # fmt: skip


PROGRAM_PARTS = ("l", "kind", "a_kind", "flag", "size", "width")


SMALL = SPACE | {  # few programs, and many places for them to be put together wrongly
    "loss": ["mse", "huber axis"],
    "params": ["plain", "w axis", "w and b together", "whole"],
    "optimizer": ["sgd", "rate axis", "kinds with rates", "one kind", "one"],
    "stop": ["none"],
    "record": ["none", "loss"],
    "batches": ["none"],
    "precision": ["float64"],
    "slots": [1],
}  # fmt: skip


def legal(spec: dict) -> bool:
    """Whether the choices go together."""
    judged = spec["optimizer"] in ("lbfgs", "levenberg_marquardt", "judges")
    squares = spec["loss"] in ("mse", "rss", "masked", "net")
    if spec["optimizer"] in ("levenberg_marquardt", "judges") and not squares:
        return False
    if judged and (spec["batches"] != "none" or spec["loss"] == "noisy"):
        return False
    if spec["loss"] == "bowl" and (spec["data"] != "shared" or spec["batches"] != "none"):
        return False
    if spec["loss"] == "bowl" and ("validation" in spec["record"] or spec["stop"] == "patience"):
        return False
    if spec["loss"] == "net" and (spec["params"] not in ("plain", "w axis") or spec["record"] == "function"):
        return False
    if spec["key"] == "axis" and not (spec["batches"] != "none" or spec["loss"] == "noisy"):
        return False
    if spec["loss"] == "masked" and spec["batches"] != "none":
        return False
    sizes = axes_of(spec)
    programs = math.prod(size for name, size in sizes.items() if name.removeprefix("z_") in PROGRAM_PARTS)
    return bool(sizes) and programs <= 3  # each takes seconds to compile


def drawn(seed: int, space: dict = SPACE) -> dict:
    """The choices of a seed."""
    rng = random.Random(seed)
    loss = rng.choice(space["loss"])  # first, or those that go with little would be rare
    while True:
        spec = {name: rng.choice(choices) for name, choices in space.items()} | {"loss": loss}
        if legal(spec):
            return spec


def simplest(spec: dict, fails) -> dict:
    """The spec with every choice as simple as it can be while it fails."""
    while True:
        for name, choices in SPACE.items():
            for choice in choices[: choices.index(spec[name])]:
                simpler = spec | {name: choice}
                if legal(simpler) and fails(simpler):
                    spec = simpler
                    break
            else:
                continue
            break
        else:
            return spec


class Maker:
    """Makes the arguments of a sweep, or with `at` those of the single fit at these places of the axes.

    Args:
      at: By axis the place, or None.
      first: By axis how many of its values there are at first, for a store that grows.
      nudge: A factor on the thresholds of stop rules.
    """

    def __init__(self, spec, at=None, first=None, nudge=1.0):
        self.spec, self.at, self.first, self.nudge, self.sizes = spec, at, first or {}, nudge, {}

    def axis(self, name, values, labels=None):
        name = name if self.spec["names"] == "alphabet" else {"kind": "a_kind"}.get(name, f"z_{name}")
        self.sizes[name] = len(values)
        if self.at is not None:
            value = values[self.at[name]]
            return value.item() if isinstance(value, np.generic) else value
        n = self.first.get(name, len(values))
        return jf.Axis(name, values[:n], None if labels is None else labels[:n])

    def arguments(self):
        spec = self.spec
        made = {
            "loss": self.loss(),
            "params": self.params(),
            "data": self.data(),
            "optimizer": self.optimizer(),
            "steps": spec["steps"],
            "precision": None if spec["precision"] == "none" else spec["precision"],
        }
        stop, validated = self.stop()
        record = {
            "none": None, "loss": jf.Record(1), "every 3": jf.Record(3), "params": jf.Record(2, ("params", "loss")),
            "norms": jf.Record(1, ("gradient_norm", "gradient")), "validation": jf.Record(2, ("validation_loss",)),
            "function": jf.Record(4, (size_of_w, "loss")),
        }[spec["record"]]  # fmt: skip
        validated |= spec["record"] == "validation"
        made |= {"stop": stop} | ({} if record is None else {"record": record})
        if validated:
            made["validation"] = (X[:4], Y[:4], MASK[:4]) if spec["loss"] == "masked" else (X[:4], Y[:4])
        if spec["batches"] != "none":
            size = self.axis("size", [3, 2]) if spec["batches"] == "size axis" else 3
            made["batches"] = jf.Batches(size, replace=spec["batches"] == "replaced")
        if spec["batches"] != "none" or spec["loss"] == "noisy":
            made["key"] = self.axis("seed", np.array(SEEDS)) if spec["key"] == "axis" else 5
        return made

    def loss(self):
        kind = self.spec["loss"]
        deltas = np.array([0.1, 0.4])
        if kind == "loss axis":
            return self.axis("l", [L.mse(line), absolute, L.mae(line)], ["c", "a", "b"])
        return {
            "mse": lambda: L.mse(line), "rss": lambda: L.rss(line), "huber": lambda: L.huber(line, delta=0.2),
            "huber axis": lambda: L.huber(line, delta=self.axis("delta", deltas)), "absolute": lambda: absolute,
            "masked": lambda: L.mse(line, masked=True), "noisy": lambda: noisy, "bowl": lambda: bowl,
            "net": lambda: L.mse(net),
        }[kind]()  # fmt: skip

    def params(self):
        kind, w, b = self.spec["params"], np.array([0.4, -0.3, 1.1]), np.array([0.2, 0.6])
        if self.spec["loss"] == "net":
            key = 4 if kind == "plain" else self.axis("init", np.array(SEEDS))
            return jf.Call(init, key=key, width=self.axis("width", [3, 2]))
        return {
            "plain": lambda: {"w": 0.4, "b": 0.2},
            "w axis": lambda: {"w": self.axis("w0", w), "b": 0.2},
            "w and b together": lambda: {"w": self.axis("s", w[:2]), "b": self.axis("s", b)},
            "w and b": lambda: {"w": self.axis("w0", w), "b": self.axis("b0", b)},
            "whole": lambda: self.axis("p", [{"w": 0.4, "b": 0.2}, {"w": -0.3, "b": 0.1}]),
            "bounded": lambda: {"w": jf.Bounded(self.axis("w0", w), -0.5, 1.2), "b": 0.2},
            "fixed axis": lambda: {"w": 0.4, "b": jf.Fixed(self.axis("b0", b))},
            "tied": lambda: {"w": self.axis("w0", w), "b": jf.Tied(half_of_w)},
        }[kind]()

    def data(self):
        if self.spec["loss"] == "bowl":
            return ()
        x, y = X, Y
        if self.spec["data"] == "y axis":
            y = self.axis("set", [Y, Y + 0.5])
        if self.spec["data"] == "x and y together":
            x, y = self.axis("set", [X, 2 * X]), self.axis("set", [Y, Y - 0.2])
        return (x, y, MASK) if self.spec["loss"] == "masked" else (x, y)

    def optimizer(self):
        rates = np.array([0.03, 0.1])
        kinds = ["d", "c", "a", "b"]
        return {
            "sgd": lambda: O.sgd(0.1),
            "rate axis": lambda: O.sgd(self.axis("rate", rates)),
            "adam": lambda: O.adam(0.03),
            "adam rate": lambda: O.adam(self.axis("rate", rates)),
            "momentum": lambda: O.momentum(0.05, 0.5),
            "kinds": lambda: self.axis("kind", [O.sgd(0.1), O.adam(0.03), O.momentum(0.05, 0.5)], kinds[:3]),
            "kinds with rates": lambda: self.axis(
                "kind", [O.sgd(self.axis("rate", rates)), O.rmsprop(self.axis("rate", rates / 2))], kinds[:2]
            ),
            "one kind": lambda: self.axis("kind", [O.adam(0.03), O.adam(0.1)]),
            "one": lambda: self.axis("kind", [O.momentum(0.05, 0.5)]),
            "flag": lambda: jf.optimizer(
                optax.sgd, learning_rate=0.05, momentum=0.5, nesterov=self.axis("flag", [True, False])
            ),
            "rmsprop": lambda: O.rmsprop(0.02),
            "lbfgs": lambda: O.lbfgs(),
            "levenberg_marquardt": lambda: O.levenberg_marquardt(),
            "judges": lambda: self.axis("kind", [O.levenberg_marquardt(), O.lbfgs(), O.sgd(0.1)], kinds[:3]),
            "schedule": lambda: O.sgd(jf.schedules.cosine(self.axis("rate", rates), 10)),
            "ready": lambda: self.axis("kind", [optax.adam(0.03), O.sgd(0.1)], kinds[:2]),
            "nadam": lambda: jf.optimizer(optax.nadam, learning_rate=0.03, b1=self.axis("b1", np.array([0.8, 0.9]))),
            "lion rate": lambda: jf.optimizer(optax.lion, learning_rate=self.axis("rate", rates / 10)),
        }[self.spec["optimizer"]]()

    def stop(self):
        n = self.nudge
        return {
            "none": lambda: (jf.Stop(), False),
            "gradient": lambda: (jf.Stop(gradient_norm_below=0.3 * n), False),
            "loss axis": lambda: (jf.Stop(loss_below=self.axis("level", np.array([0.05, 0.5]) * n)), False),
            "change": lambda: (jf.Stop(params_change_below=0.02 * n), False),
            "above": lambda: (jf.Stop(loss_above=1.5 * n), False),
            "patience": lambda: (jf.Stop(patience=2), True),
            "two": lambda: (jf.Stop(loss_below=0.05 * n, gradient_norm_below=0.2 * n), False),
        }[self.spec["stop"]]()


def half_of_w(params):
    return 0.5 * params["w"]


def axes_of(spec: dict) -> dict[str, int]:
    """The sizes of the axes of a spec."""
    maker = Maker(spec)
    maker.arguments()
    return maker.sizes


def run(spec: dict, folder: str):
    """The sweep of a spec, kept where it says."""
    arguments, keep = Maker(spec).arguments() | {"slots": spec["slots"]}, spec["keep"]
    if keep == "memory":
        return jf.sweep(**arguments)
    if keep == "executor":
        with ThreadPoolExecutor(2) as workers:
            return jf.sweep(**arguments, store=folder, executor=workers)
    if keep == "grown":
        name, size = max(axes_of(spec).items(), key=lambda item: item[1])
        if size > 1:
            jf.sweep(**Maker(spec, first={name: size - 1}).arguments(), slots=spec["slots"], store=folder)
    if keep == "in turns":
        jf.sweep(**arguments, store=folder)
    return jf.sweep(**arguments, store=folder)


def check(spec: dict, lanes: int = 1) -> None:
    """Runs the sweep of a spec, opens it again, and compares some of its lanes with single fits.

    Raises:
      AssertionError: Where they differ by more than rounding.
    """
    with tempfile.TemporaryDirectory() as folder:
        grid = run(spec, f"{folder}/store")
        sizes = axes_of(spec)
        assert dict(grid.results.status.sizes) == sizes
        assert not (grid.results.status == jf.Status.NOT_RUN).any()
        repr(grid)
        if spec["keep"] != "memory":
            same(jf.open(f"{folder}/store"), grid.results)
        rng = random.Random(str(spec))
        for _ in range(lanes):
            at = {name: rng.randrange(size) for name, size in sizes.items()}
            coords = {name: grid.results[name].values[i] for name, i in at.items()}
            compare(spec, at, jf.lane(grid, **coords))
        if np.isin(grid.results.status, (jf.Status.CONVERGED, jf.Status.OUT_OF_STEPS)).any():
            assert float(jf.best(grid).loss) <= float(np.nanmin(grid.results.loss.where(good(grid)).values))


def good(grid):
    return grid.results.status.isin([int(jf.Status.CONVERGED), int(jf.Status.OUT_OF_STEPS)])


def compare(spec, at, lane):
    if spec["optimizer"] == "judges" and spec["precision"] == "none":  # one for all, that of Levenberg-Marquardt
        assert lane.precision == "float64"
        spec = spec | {"precision": "float64"}
    fits = [jf.fit(**Maker(spec, at).arguments())]
    if (fits[0].status, fits[0].steps) != (lane.status, lane.steps):  # a threshold that is met within rounding
        fits += [jf.fit(**Maker(spec, at, nudge=n).arguments()) for n in (1 - 1e-3, 1 + 1e-3)]
    alone = next((fit for fit in fits if (fit.status, fit.steps) == (lane.status, lane.steps)), None)
    assert alone is not None, (
        f"lane {at}: {lane.status!r} after {lane.steps}, alone {fits[0].status!r}, {fits[0].steps}"
    )
    # Some tens of operations a step, each off by eps; judges amplify that by the condition, some tens here.
    eps = np.finfo(np.asarray(lane.loss).dtype).eps
    assert lane.precision == alone.precision and np.asarray(alone.loss).dtype == np.asarray(lane.loss).dtype
    near = dict(rtol=2**13 * eps, atol=2**13 * eps * max(1.0, abs(float(alone.start_loss))))
    np.testing.assert_allclose(lane.loss, alone.loss, **near, err_msg=f"loss at {at}")
    compare_trees(lane.params, alone.params, f"params at {at}", near)
    record = Maker(spec, at).arguments().get("record")
    for name in ("step", *record.names) if record is not None else ():
        compare_trees(getattr(lane.history, name), getattr(alone.history, name), f"history.{name} at {at}", near)


def compare_trees(mine, other, what, near):
    assert jax.tree.structure(mine) == jax.tree.structure(other), what
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, **near, err_msg=what)


def fails(spec: dict) -> bool:
    try:
        check(spec)
    except Exception:  # noqa: BLE001 (whatever it is, it must not be)
        return True
    return False


def main(first: int, last: int) -> int:
    failed = 0
    for seed in range(first, last):
        spec, began = drawn(seed), time.process_time()
        try:
            check(spec)
            print(f"{seed} holds, {time.process_time() - began:.1f} s", flush=True)
        except Exception as error:  # noqa: BLE001
            failed += 1
            print(f"{seed} fails: {type(error).__name__}: {error}\n  {spec}\n  {simplest(spec, fails)}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])) > 0)
