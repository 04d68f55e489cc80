"""Runs that fail, each in its own way, with the loss that a good one reaches: what `explain` is tested on.

A run has arrived when its loss, in float64, is within a thousandth of the way from the start's loss to the least known
(closed form, or Newton's method in NumPy); for nets, when a tenth of the variance of the data is left.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit.problems import precision_context


class Attempt(NamedTuple):
    """A call of `jf.fit`, and the loss it should reach."""

    name: str
    loss: Callable
    start: Any
    data: tuple
    options: dict[str, Any]
    target: float


def run(attempt: Attempt) -> jf.Fit:
    return jf.fit(attempt.loss, attempt.start, attempt.data, progress=False, **attempt.options)


def arrived(attempt: Attempt, fit: jf.Fit) -> bool:
    return fit.status in (jf.Status.CONVERGED, jf.Status.OUT_OF_STEPS) and height(attempt, fit.params) <= attempt.target


def height(attempt: Attempt, params: Any) -> float:
    """The loss in float64."""
    with precision_context("float64"):
        doubles = [jnp.asarray(np.asarray(x, float)) for x in jax.tree.leaves(params)]
        tree = jax.tree.unflatten(jax.tree.structure(params), doubles)
        return float(attempt.loss(tree, *(jnp.asarray(np.asarray(x, float)) for x in attempt.data)))


def near(start: float, least: float) -> float:
    return least + 1e-3 * (start - least)


# Problems


def plane(params, x):
    return x @ params["w"] + params["b"]


def cubic(params, x):
    return params["a"] + params["b"] * x + params["c"] * x**2 + params["d"] * x**3


def tanh_net(params, x):
    return jnp.tanh(x[:, None] * params["w1"][None] + params["b1"][None]) @ params["w2"]


def relu_net(params, x):
    return jnp.maximum(x @ params["w1"] + params["b1"][None], 0) @ params["w2"] + params["b2"]


def logistic(params, x, y):
    z = plane(params, x)
    return jnp.mean(jnp.logaddexp(0.0, z) - y * z) + 5e-3 * jnp.sum(params["w"] ** 2)


def well(params):
    """A saddle at 0 between two minima of -1/4."""
    return 0.5 * params["x"] ** 2 - 0.5 * params["y"] ** 2 + 0.25 * params["y"] ** 4


def valley(params):
    return (1.0 - params["x"]) ** 2 + 5.0 * (params["y"] - params["x"] ** 2) ** 2


def flat_far_away(params):
    return jnp.sqrt(1.0 + (params["x"] - 1.0) ** 2) + jnp.sqrt(1.0 + 4.0 * params["y"] ** 2)


def barrier(params):
    """Defined for positive x only; least at 1."""
    return params["x"] - jnp.log(params["x"]) + 0.5 * (params["y"] - 1.0) ** 2


def distance(params):
    """The gradient is not defined at the origin."""
    return jnp.sqrt(params["x"] ** 2 + params["y"] ** 2) ** 3 / 3 - params["x"]


def quartic(params):
    return 0.25 * jnp.sum(params["p"] ** 4) + 0.5 * jnp.sum((params["p"] - 1.0) ** 2)


MSE = {f.__name__: jf.losses.mse(f) for f in (plane, cubic, tanh_net, relu_net)}
MAE = jf.losses.mae(plane)
KINDS = ("sgd", "sgd", "momentum", "nesterov", "adam", "rmsprop", "adagrad")


def optimizer_of(rng, kind: str, rate: float):
    return getattr(jf.optimizers, kind)(rate)


def options_of(rng, *, low=-5.0, high=1.0, steps=(100, 500), kinds=KINDS) -> dict[str, Any]:
    kind = str(rng.choice(kinds))
    rate = 10 ** rng.uniform(low, high)
    return {"optimizer": optimizer_of(rng, kind, rate), "steps": int(rng.integers(*steps))}


def of_plane(rng, spread: float = 1.5) -> Attempt:
    x = rng.normal(size=(24, 3)) * 10 ** rng.uniform(-spread, spread, 3) + rng.normal(size=3)
    y = x @ rng.normal(size=3) + rng.normal() + 0.3 * rng.normal(size=24)
    rows = np.column_stack([x, np.ones(24)])
    least = np.mean((rows @ np.linalg.lstsq(rows, y, rcond=None)[0] - y) ** 2)
    start = {"w": np.zeros(3), "b": 0.0}
    return Attempt("plane", MSE["plane"], start, (x, y), options_of(rng), near(np.mean(y**2), least))


def of_cubic(rng) -> Attempt:
    x = np.sort(rng.uniform(0, rng.uniform(1, 3), 24))
    y = 1 - 2 * x + x**3 / 3 + 0.1 * rng.normal(size=24)
    rows = np.vander(x, 4)
    least = np.mean((rows @ np.linalg.lstsq(rows, y, rcond=None)[0] - y) ** 2)
    start = {"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.0}
    return Attempt("cubic", MSE["cubic"], start, (x, y), options_of(rng), near(np.mean(y**2), least))


def of_logistic(rng) -> Attempt:
    x = rng.normal(size=(40, 3)) * 10 ** rng.uniform(-1, 1, 3)
    y = (x @ (rng.normal(size=3) / x.std(axis=0)) + rng.normal(size=40) > 0).astype(float)
    rows, ridge = np.column_stack([x, np.ones(40)]), np.diag([1e-2, 1e-2, 1e-2, 0.0])
    value = lambda v: np.mean(np.logaddexp(0, rows @ v) - y * (rows @ v)) + 0.5 * v @ ridge @ v  # noqa: E731
    v = np.zeros(4)
    for _ in range(100):
        p = 1 / (1 + np.exp(-(rows @ v)))
        step = np.linalg.solve(rows.T @ (rows * (p * (1 - p))[:, None]) / 40 + ridge, rows.T @ (p - y) / 40 + ridge @ v)
        size = 1.0
        while value(v - size * step) > value(v) and size > 1e-6:
            size /= 2
        v = v - size * step
    start = {"w": np.zeros(3), "b": 0.0}
    return Attempt("logistic", logistic, start, (x, y), options_of(rng), near(np.log(2), value(v)))


def of_net(rng) -> Attempt:
    x = np.linspace(-1, 1, 32)
    y = np.sin(rng.uniform(2, 5) * x + rng.uniform(0, 1))
    start = {"w1": 2 * rng.normal(size=16), "b1": rng.normal(size=16), "w2": rng.normal(size=16) / 4}
    return Attempt("net", MSE["tanh_net"], start, (x, y), options_of(rng, low=-4), 0.1 * np.var(y))


def of_saturated_net(rng) -> Attempt:
    attempt = of_net(rng)
    scale = rng.uniform(30, 300)
    start = attempt.start | {"w1": scale * attempt.start["w1"], "b1": 3 * scale * attempt.start["b1"]}
    options = options_of(rng, low=-4, high=-1, kinds=("sgd", "momentum"))
    return attempt._replace(name="saturated net", start=start, options=options)


def of_dead_net(rng) -> Attempt:
    x = rng.normal(size=(32, 3))
    y = np.abs(x[:, 0]) + 0.5 * x[:, 1]
    start = {
        "w1": rng.normal(size=(3, 16)), "b1": np.full(16, -rng.uniform(8, 30)),
        "w2": rng.normal(size=16) / 4, "b2": 0.0,
    }  # fmt: skip
    return Attempt("dead net", MSE["relu_net"], start, (x, y), options_of(rng, low=-2.5, high=-1.5), 0.1 * np.var(y))


def of_well(rng) -> Attempt:
    options = options_of(rng, low=-3, high=-0.5, kinds=("sgd", "momentum", "nesterov", "adam"))
    return Attempt("saddle", well, {"x": rng.uniform(0.5, 2), "y": 0.0}, (), options, near(1.0, -0.25))


def of_zero_net(rng) -> Attempt:
    attempt = of_net(rng)
    start = {"w1": np.zeros(16), "b1": np.zeros(16), "w2": np.zeros(16)}
    return attempt._replace(
        name="zero net", start=start, options=options_of(rng, low=-3, high=-1, kinds=("sgd", "momentum"))
    )


def of_valley(rng) -> Attempt:
    start = {"x": rng.uniform(-1.5, -0.3), "y": rng.uniform(0.2, 1.5)}
    return Attempt("valley", valley, start, (), options_of(rng, low=-4, high=0.5), near(5.0, 0.0))


def of_far(rng) -> Attempt:
    options = options_of(rng, low=0.0, high=1.0, kinds=("sgd", "momentum", "adam", "rmsprop"))
    return Attempt(
        "limit cycle", flat_far_away, {"x": rng.uniform(4, 9), "y": rng.uniform(2, 5)}, (), options, near(9.0, 2.0)
    )


def of_mae(rng) -> Attempt:
    x = rng.normal(size=(25, 3))
    w = rng.normal(size=3)
    y = x @ w + 1.0
    options = options_of(rng, low=-1.5, high=0.3, kinds=("sgd", "adam", "rmsprop"))
    start = {"w": np.zeros(3), "b": 0.0}
    return Attempt("mae", MAE, start, (x, y), options, 1e-2 * float(np.mean(np.abs(y))))


def of_barrier(rng) -> Attempt:
    options = options_of(rng, low=-1.0, high=1.5, kinds=("sgd", "momentum", "nesterov", "adam"))
    start = {"x": rng.uniform(0.1, 4), "y": rng.uniform(2, 4)}
    first = start["x"] - np.log(start["x"]) + 0.5 * (start["y"] - 1) ** 2
    return Attempt("barrier", barrier, start, (), options, near(first, 1.0))


def of_origin(rng) -> Attempt:
    return Attempt(
        "no gradient", distance, {"x": 0.0, "y": 0.0}, (), options_of(rng, low=-2, high=-0.5), near(0.0, -2 / 3)
    )


def of_huge_data(rng) -> Attempt:
    attempt = of_plane(rng)
    x = attempt.data[0] * 10 ** rng.uniform(20, 30)
    return attempt._replace(name="huge data", data=(x, attempt.data[1]))


def of_batches(rng) -> Attempt:
    x = rng.normal(size=(24, 3))
    y = x @ rng.normal(size=3) + rng.normal() + 0.5 * rng.normal(size=24)
    rows = np.column_stack([x, np.ones(24)])
    least = np.mean((rows @ np.linalg.lstsq(rows, y, rcond=None)[0] - y) ** 2)
    options = options_of(rng, low=-2.5, high=-0.7, kinds=("sgd", "momentum", "adam"))
    options |= {"batches": jf.Batches(3), "key": int(rng.integers(1000))}
    start = {"w": np.zeros(3), "b": 0.0}
    return Attempt("batches", MSE["plane"], start, (x, y), options, least + 1e-2 * (np.mean(y**2) - least))


def of_quartic(rng) -> Attempt:
    p = rng.uniform(-4, 4, 3)
    root = 0.6823278038280193  # of p^3 + p - 1
    first = 0.25 * np.sum(p**4) + 0.5 * np.sum((p - 1) ** 2)
    least = 3 * (0.25 * root**4 + 0.5 * (root - 1) ** 2)
    return Attempt("quartic", quartic, {"p": p}, (), options_of(rng, low=-4, high=1), near(first, least))


def deep(widths: tuple[int, ...], activation: str) -> Callable:
    """The loss of a net; equal ones are one, so that it is compiled once."""
    return jf.losses.mse(jf.models.dense(widths, activation))


def of_deep_net(rng) -> Attempt:
    """10 to 20 layers of sigmoids or tanhs, whose small matrices let no gradient through."""
    x = np.linspace(-1, 1, 32)
    y = np.sin(rng.uniform(2, 5) * x + rng.uniform(0, 1))
    activation = str(rng.choice(["sigmoid", "tanh"]))
    widths = (1, *[8] * int(rng.choice([9, 14, 19])), 1)
    gain = rng.uniform(0.2, 2.0) * (1 if activation == "sigmoid" else 0.2)
    start = [
        {"w": gain * rng.normal(size=(m, n)) / np.sqrt(m), "b": np.zeros(n)} for m, n in itertools.pairwise(widths)
    ]
    options = options_of(rng, low=-3, high=-0.5, kinds=("sgd", "momentum", "adam"))
    return Attempt("deep net", deep(widths, activation), start, (x, y), options, 0.1 * np.var(y))


MAKERS = (
    of_plane, of_cubic, of_logistic, of_net, of_saturated_net, of_dead_net, of_well, of_zero_net, of_valley,
    of_far, of_mae, of_barrier, of_origin, of_huge_data, of_batches, of_quartic, of_deep_net,
)  # fmt: skip


def failing(
    count: int, seed: int = 0, makers: tuple = MAKERS, only: Callable[[Attempt], bool] = lambda attempt: True
) -> Iterator[tuple[Attempt, jf.Fit]]:
    """That many runs of each maker that did not arrive, with what came of them."""
    for number, make in enumerate(makers):
        rng, found = np.random.default_rng([seed, number]), 0
        while found < count:
            attempt = make(rng)
            if not only(attempt):
                continue
            fit = run(attempt)
            if not arrived(attempt, fit):
                found += 1
                yield attempt, fit


def follow(attempt: Attempt, fit: jf.Fit, rounds: int = 3) -> int | None:
    """After how many rounds of doing what `explain` says a run arrives; None if it does not."""
    for number in range(1, rounds + 1):
        explanation = jf.explain(fit)
        if not explanation.remedy:
            return None
        fit = explanation.retry()
        if arrived(attempt, fit):
            return number
    return None
