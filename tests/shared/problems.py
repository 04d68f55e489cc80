"""A table of problems and a table of methods; tests cross them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxfit as jf
from jaxfit.optimizers import recurrences


class Case(NamedTuple):
    loss: Any
    start: Any
    data: tuple
    rate: float  # one that converges for plain gradient descent


def line(params, x):
    return params["w"] * x + params["b"]


def two_layers(params, x):
    hidden = jnp.tanh(x[:, None] * params[0]["w"] + params[0]["b"][None, :])
    return hidden @ params[1]


def quadratic(params):
    return 0.5 * (params[0] ** 2 + 10.0 * params[1] ** 2)


def rosenbrock(params):
    return (1.0 - params["x"]) ** 2 + 5.0 * (params["y"] - params["x"] ** 2) ** 2


def thermometer() -> tuple[np.ndarray, np.ndarray]:
    t_u, t_c = jf.datasets.thermometer()
    return 0.1 * t_u, t_c


def _net_start():
    a, b = jax.random.split(jax.random.key(3))
    return [{"w": jax.random.normal(a, (1, 5)), "b": jnp.zeros(5)}, jax.random.normal(b, (5,)) / 3]


# Not symmetric: symmetric data make the gradient of a bias pure rounding, which adaptive methods blow up to full steps.
GRID = np.linspace(-1, 0.7, 12)

PROBLEMS = {
    "line": Case(jf.losses.mse(line), {"w": 1.0, "b": 0.0}, thermometer(), 1e-2),
    "quadratic": Case(quadratic, [3.0, -2.0], (), 0.05),
    "rosenbrock": Case(rosenbrock, {"x": -0.5, "y": 0.8}, (), 0.02),
    "net": Case(jf.losses.mse(two_layers), _net_start(), (GRID, np.sin(3 * GRID) + 0.4), 0.05),
}

METHODS = {
    "sgd": (jf.optimizers.sgd, optax.sgd),
    "momentum": (jf.optimizers.momentum, lambda r: optax.sgd(r, momentum=0.9)),
    "nesterov": (jf.optimizers.nesterov, lambda r: optax.sgd(r, momentum=0.9, nesterov=True)),
    "adagrad": (jf.optimizers.adagrad, optax.adagrad),
    "adadelta": (jf.optimizers.adadelta, optax.adadelta),
    "rmsprop": (jf.optimizers.rmsprop, optax.rmsprop),
    "adam": (jf.optimizers.adam, optax.adam),
    "adamw": (jf.optimizers.adamw, optax.adamw),
    "nadam": (jf.optimizers.nadam, optax.nadam),
    "adamax": (jf.optimizers.adamax, optax.adamax),
    "amsgrad": (jf.optimizers.amsgrad, optax.amsgrad),
    "adabelief": (jf.optimizers.adabelief, optax.adabelief),
    "radam": (jf.optimizers.radam, optax.radam),
    "yogi": (jf.optimizers.yogi, lambda r: recurrences.yogi(r)),
    "lion": (jf.optimizers.lion, optax.lion),
    "muon": (jf.optimizers.muon, optax.contrib.muon),
    "rprop": (jf.optimizers.rprop, lambda r: recurrences.rprop(r)),
}


def plain_loop(loss, params, data, transformation, steps):
    """The slow and obvious: a Python loop. Returns the params and the loss after 0, 1, ... steps."""
    params = jax.tree.map(jnp.float32, params)
    data = jax.tree.map(jnp.float32, data)
    state, losses = transformation.init(params), []

    @jax.jit
    def update(params, state):
        value, grads = jax.value_and_grad(loss)(params, *data)
        updates, state = transformation.update(grads, state, params)
        return value, optax.apply_updates(params, updates), state

    for _ in range(steps):
        value, params, state = update(params, state)
        losses.append(float(value))
    return params, np.array([*losses, float(loss(params, *data))])
